//! The phrases of single statements: what follows SET, RESET, ROLLBACK, DEALLOCATE, CREATE DATABASE and the like.
//!
//! Each function takes a cursor behind the verb and says what the statement is, or `None` if it is nothing to act on.

use super::spells_pg_temp;
use crate::sql::Kind;
use crate::sql::cursor::Cursor;
use crate::sql::lexer::{Lexeme, text_of};
use crate::sql::words::Word;

/// Whether CREATE, ALTER or DROP of the object under the cursor can make an innocent name do something to the session.
/// Everything can but what is known not to.
pub(super) fn defines_behaviour(cursor: &Cursor) -> bool {
    match cursor.word {
        Word::User => cursor.ahead().word == Word::Mapping,
        Word::Foreign => cursor.ahead().word != Word::Data,
        Word::Index
        | Word::Unique
        | Word::Role
        | Word::Group
        | Word::Database
        | Word::Tablespace
        | Word::Subscription
        | Word::Publication
        | Word::Collation
        | Word::Statistics
        | Word::Sequence
        | Word::Server
        | Word::System
        | Word::Text
        | Word::Large
        | Word::Default => false,
        _ => true,
    }
}

/// `[WORK|TRANSACTION] [TO [SAVEPOINT] name | AND [NO] CHAIN]`, or `PREPARED 'gid'`
pub(super) fn rollback(mut cursor: Cursor) -> Option<Kind> {
    if cursor.word == Word::Prepared {
        return None;
    }
    if matches!(cursor.word, Word::Work | Word::Transaction) {
        cursor.advance();
    }
    if cursor.eat(Word::To) { savepoint_name(cursor).map(Kind::RollbackTo) } else { Some(Kind::Rollback) }
}

/// `[SAVEPOINT] name`, where the name may be `savepoint`.
pub(super) fn savepoint_name(mut cursor: Cursor) -> Option<Box<str>> {
    if cursor.word == Word::Savepoint && !cursor.ahead().at_end() {
        cursor.advance();
    }
    cursor.name()
}

/// `[PREPARE] {name | ALL}`, where the name may be `prepare`.
pub(super) fn deallocate(mut cursor: Cursor) -> Option<Kind> {
    if cursor.word == Word::Prepare && !cursor.ahead().at_end() {
        cursor.advance();
    }
    if cursor.word == Word::All { Some(Kind::DeallocateAll) } else { cursor.name().map(Kind::Deallocate) }
}

pub(super) fn reset(mut cursor: Cursor) -> Option<Kind> {
    if cursor.word == Word::All {
        return Some(Kind::ResetAll);
    }
    let name = match (cursor.word, cursor.ahead().word) {
        (Word::Time, Word::Zone) => "timezone".into(),
        (Word::Session, Word::Authorization) => "session_authorization".into(),
        (Word::Transaction, Word::Isolation) => return None,
        _ => variable(&mut cursor)?,
    };
    (!is_of_transaction(&name)).then(|| Kind::Reset(name.into()))
}

/// CREATE DATABASE copies its template, in which nobody else may be connected.
pub(super) fn create_database(mut cursor: Cursor) -> Option<Kind> {
    cursor.advance();
    cursor.name()?;
    let mut template: Box<str> = "template1".into();
    while !cursor.at_end() {
        if cursor.eat(Word::Template) {
            if cursor.at_equals() {
                cursor.advance();
            }
            if cursor.word != Word::Default {
                let token = cursor.token?;
                template = match token.literal(cursor.text) {
                    Some(value) => text_of(&value),
                    None => cursor.name()?,
                };
            }
        } else {
            cursor.advance();
        }
    }
    Some(Kind::NeedsDatabaseEmpty(vec![template]))
}

/// What SET sets, and how.
pub(super) struct SetTarget {
    pub(super) name: String,
    pub(super) how: How,
}

pub(super) enum How {
    Value,
    Default,
    FromCurrent,
}

/// Is the word under the cursor a setting's name, whatever it means elsewhere in SET?
pub(super) fn names_setting(cursor: &Cursor) -> bool {
    let ahead = cursor.ahead();
    ahead.at_equals() || ahead.word == Word::To || ahead.is_at(Lexeme::Dot)
}

/// The part after SET [SESSION | LOCAL]; leaves the cursor on the value. `None` for SET TRANSACTION and SET CONSTRAINTS,
/// and for what PostgreSQL will refuse.
pub(super) fn set_target(cursor: &mut Cursor) -> Option<SetTarget> {
    let target = |name: &str, how| Some(SetTarget { name: name.into(), how });
    if !names_setting(cursor) {
        match cursor.word {
            Word::Transaction | Word::Constraints => return None,
            Word::Time if cursor.ahead().word == Word::Zone => {
                cursor.advance();
                cursor.advance();
                let is_default = matches!(cursor.word, Word::Default | Word::Local) && cursor.ahead().at_end();
                return target("timezone", if is_default { How::Default } else { How::Value });
            }
            Word::Schema => {
                cursor.advance();
                return target("search_path", How::Value);
            }
            Word::Names => {
                cursor.advance();
                let is_default = cursor.at_end() || cursor.word == Word::Default;
                return target("client_encoding", if is_default { How::Default } else { How::Value });
            }
            Word::Role => {
                cursor.advance();
                return target("role", How::Value);
            }
            Word::Session => {
                cursor.advance();
                if cursor.eat(Word::Characteristics) {
                    return target("session characteristics", How::Value);
                }
                if !cursor.eat(Word::Authorization) {
                    return None;
                }
                let how = if cursor.word == Word::Default { How::Default } else { How::Value };
                return target("session_authorization", how);
            }
            Word::Xml if cursor.ahead().word == Word::Option => {
                cursor.advance();
                cursor.advance();
                return target("xmloption", How::Value);
            }
            _ => {}
        }
    }
    let name = variable(cursor)?;
    if cursor.eat(Word::From) {
        return target(&name, How::FromCurrent);
    }
    if !cursor.at_equals() && cursor.word != Word::To {
        return None;
    }
    cursor.advance();
    let is_default = cursor.word == Word::Default && cursor.ahead().at_end();
    target(&name, if is_default { How::Default } else { How::Value })
}

/// A setting's name: `a` or `a.b`.
pub(super) fn variable(cursor: &mut Cursor) -> Option<String> {
    let mut name = String::from(cursor.name()?);
    while cursor.eat_lexeme(Lexeme::Dot) {
        name.push('.');
        name.push_str(&cursor.name()?);
    }
    Some(setting_name(&name))
}

/// Settings are found whatever the case of their letters, also between quotes, and two have an old name.
pub(super) fn setting_name(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "sort_mem" => "work_mem".into(),
        "vacuum_mem" => "maintenance_work_mem".into(),
        _ => name,
    }
}

/// Settings that are of the transaction, however they are set.
pub(super) fn is_of_transaction(name: &str) -> bool {
    matches!(name, "transaction_isolation" | "transaction_read_only" | "transaction_deferrable")
}

/// May a value of `search_path` lead into the temporary schema?
pub(super) fn is_temporary_path(mut cursor: Cursor) -> bool {
    while let Some(token) = cursor.token {
        match token.lexeme {
            // Written with escapes.
            Lexeme::EscapeString | Lexeme::UnicodeString if token.literal(cursor.text).is_none() => return true,
            _ if spells_pg_temp(token.bytes(cursor.text)) => return true,
            _ => {}
        }
        cursor.advance();
    }
    false
}
