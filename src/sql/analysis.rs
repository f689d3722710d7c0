//! From a text to what each of its statements does to the session. It runs for every text that is not cached, so it is
//! made in two steps: one pass over the tokens that finds where statements end and which dangerous names they mention,
//! and then, only for verbs that do something to the session, a closer look at that one statement.
//!
//! It decides on the safe side. A needless pin costs a pooled connection; a missing one loses state.

mod phrases;
#[cfg(test)]
mod tests;

use super::cursor::Cursor;
use super::lexer::{Lexeme, Lexer, Refused};
use super::set_config::{self, Use};
use super::words::{Mention, Word};
use super::{Analysis, Argument, Dialect, Kind, Pin, Pins, Statement, Suspects};
use phrases::*;

/// What the statements of `text` do to a session that reads it by `dialect`, in a database with these `suspects`. A NUL
/// ends the text, as it does for PostgreSQL.
pub fn analyze(text: &[u8], dialect: Dialect, suspects: &Suspects) -> Analysis {
    analyze_as(Reading::Session, text, dialect, suspects)
}

/// Where a text stands: the same words do other things in a function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Sent by a client.
    Session,
    /// The body of a function in SQL. A procedure it CALLs is judged by its name, among the suspects.
    SqlBody,
    /// One statement of a body in PL/pgSQL, where SELECT … INTO names a variable.
    PlpgsqlStatement,
    /// A part of a body in PL/pgSQL that is no SQL statement, whatever word it begins with.
    PlpgsqlExpression,
}

pub(super) fn analyze_as(reading: Reading, text: &[u8], dialect: Dialect, suspects: &Suspects) -> Analysis {
    let text = memchr::memchr(0, text).map_or(text, |end| &text[..end]);
    let mut lexer = Lexer::new(text, dialect);
    let mut analysis = Analysis::default();
    loop {
        let scan = Scan::next_statement(&mut lexer, text, suspects);
        match scan.stop {
            // PostgreSQL reads the whole message before it runs any of it, so this message will be answered with one
            // error and nothing else. The statements before the fault are kept only because they were counted; they
            // have no effect.
            Stop::Refused if !lexer.is_doubtful() => {
                for statement in &mut analysis.statements {
                    *statement = Statement::default();
                }
                return analysis;
            }
            // The fault may be a second byte of a character that was taken for a character: PostgreSQL, who knows the
            // encoding, may well run this.
            Stop::Refused => {
                analysis.statements.push(unreadable());
                return analysis;
            }
            Stop::Semicolon | Stop::End => {}
        }
        if scan.start < scan.end {
            analysis.statements.push(if lexer.is_doubtful() {
                unreadable()
            } else {
                Judge::new(reading, &scan, &text[scan.start..scan.end], dialect, suspects).judge()
            });
        }
        if scan.stop == Stop::End {
            return analysis;
        }
    }
}

/// A statement of which all must be assumed.
fn unreadable() -> Statement {
    Statement { pins: Pins::of(Pin::Opaque), is_ddl: true, changes_facts: true, ..Statement::default() }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Semicolon,
    End,
    Refused,
}

/// What one pass over a statement's tokens finds.
struct Scan {
    /// From the first token to the last, without the semicolon.
    start: usize,
    end: usize,
    stop: Stop,
    verb: Word,
    pins: Pins,
    may_unpin: bool,
    calls_set_config: bool,
    /// `INTO`, other than of INSERT and MERGE; and `INTO TEMP`.
    selects_into: bool,
    selects_into_temp: bool,
    mentions_pg_temp: bool,
    /// `pg_temp.`
    qualifies_pg_temp: bool,
    /// `U&"…"`, a name this does not decode.
    has_spelled_name: bool,
}

impl Scan {
    fn next_statement(lexer: &mut Lexer, text: &[u8], suspects: &Suspects) -> Scan {
        let mut scan = Scan {
            start: usize::MAX,
            end: 0,
            stop: Stop::End,
            verb: Word::Other,
            pins: Pins::EMPTY,
            may_unpin: false,
            calls_set_config: false,
            selects_into: false,
            selects_into_temp: false,
            mentions_pg_temp: false,
            qualifies_pg_temp: false,
            has_spelled_name: false,
        };
        let has_suspects = !suspects.names.is_empty();
        let has_suspect_operators = !suspects.operators.is_empty();
        let mut depth = 0usize;
        // How many END are awaited in the body of `CREATE FUNCTION … BEGIN ATOMIC … END`.
        let mut blocks = 0usize;
        let mut creates_routine = false;
        let mut updates = false;
        let mut mentions_pg_settings = false;
        let mut words = 0usize;
        let mut previous = Lexeme::Semicolon;
        let mut previous_word = Word::Other;
        let mut previous_mention = Mention::Nothing;
        let mut previous_is_pg_temp = false;
        loop {
            let token = match lexer.next_token() {
                Ok(Some(token)) => token,
                Ok(None) => break,
                Err(Refused) => {
                    scan.stop = Stop::Refused;
                    break;
                }
            };
            let mut word = Word::Other;
            let mut mention = Mention::Nothing;
            let mut is_pg_temp = false;
            match token.lexeme {
                Lexeme::Word => {
                    let bytes = token.bytes(text);
                    word = Word::of(bytes);
                    words += 1;
                    if words == 1 && scan.start == usize::MAX {
                        scan.verb = word;
                    }
                    if has_suspects {
                        scan.pins = scan.pins.union(suspects.of_identifier(bytes, true));
                    }
                    is_pg_temp = is_pg_temp_schema(bytes);
                    if word != Word::Other {
                        mention = word.mention();
                        match word {
                            Word::Into => scan.selects_into |= !matches!(previous_word, Word::Insert | Word::Merge),
                            Word::Temp | Word::Temporary => {
                                scan.selects_into_temp |= scan.selects_into
                                    && matches!(previous_word, Word::Into | Word::Local | Word::Global);
                            }
                            Word::Update => updates = true,
                            Word::Function | Word::Procedure if scan.verb == Word::Create && words <= 4 => {
                                creates_routine = true;
                            }
                            Word::Atomic if creates_routine && previous_word == Word::Begin => blocks += 1,
                            // As a label (`AS end`, `.end`) they open and close nothing.
                            Word::Case | Word::End
                                if blocks > 0 && previous != Lexeme::Dot && previous_word != Word::As =>
                            {
                                blocks = if word == Word::Case { blocks + 1 } else { blocks - 1 };
                            }
                            _ => {}
                        }
                    }
                }
                Lexeme::Quoted => {
                    let inside = &text[token.start + 1..token.end - 1];
                    mention = Word::mention_of_name(inside);
                    is_pg_temp = is_pg_temp_schema(inside);
                    if has_suspects {
                        scan.pins = scan.pins.union(match token.name(text) {
                            Some(name) => suspects.of_identifier(&name, false),
                            None => Pins::EMPTY,
                        });
                    }
                }
                Lexeme::UnicodeQuoted => scan.has_spelled_name = true,
                Lexeme::Open => {
                    depth += 1;
                    match previous_mention {
                        Mention::Call(pin) => scan.pins.insert(pin),
                        Mention::CallMayUnpin => scan.may_unpin = true,
                        Mention::SetConfig => scan.calls_set_config = true,
                        _ => {}
                    }
                }
                Lexeme::Close => depth = depth.saturating_sub(1),
                Lexeme::Dot => scan.qualifies_pg_temp |= previous_is_pg_temp,
                // Rules may hold a list of statements in parentheses.
                Lexeme::Semicolon if depth == 0 && blocks == 0 => {
                    scan.stop = Stop::Semicolon;
                    break;
                }
                Lexeme::Operator | Lexeme::TypeCast if has_suspect_operators => {
                    scan.pins = scan.pins.union(suspects.of_operator(token.bytes(text)));
                }
                _ => {}
            }
            match mention {
                Mention::Name(pin) => scan.pins.insert(pin),
                Mention::PgSettings => mentions_pg_settings = true,
                _ => {}
            }
            scan.mentions_pg_temp |= is_pg_temp;
            scan.start = scan.start.min(token.start);
            scan.end = token.end;
            previous = token.lexeme;
            previous_word = word;
            previous_mention = mention;
            previous_is_pg_temp = is_pg_temp;
        }
        // pg_settings has a rule that turns UPDATE into set_config().
        if updates && mentions_pg_settings {
            scan.pins.insert(Pin::Opaque);
        }
        scan
    }
}

/// `pg_temp`, or the real name behind it (`pg_temp_3`).
fn is_pg_temp_schema(name: &[u8]) -> bool {
    name.len() >= 7 && name[..7].eq_ignore_ascii_case(b"pg_temp") && (name.len() == 7 || name[7] == b'_')
}

fn spells_pg_temp(text: &[u8]) -> bool {
    text.windows(7).any(|part| part.eq_ignore_ascii_case(b"pg_temp"))
}

/// The closer look at one statement.
struct Judge<'a> {
    reading: Reading,
    scan: &'a Scan,
    text: &'a [u8],
    dialect: Dialect,
    suspects: &'a Suspects,
    statement: Statement,
}

impl<'a> Judge<'a> {
    #[inline]
    fn new(reading: Reading, scan: &'a Scan, text: &'a [u8], dialect: Dialect, suspects: &'a Suspects) -> Self {
        let statement = Statement { pins: scan.pins, may_unpin: scan.may_unpin, ..Statement::default() };
        Judge { reading, scan, text, dialect, suspects, statement }
    }

    #[inline]
    fn judge(mut self) -> Statement {
        if self.scan.has_spelled_name {
            self.statement.pins.insert(Pin::Opaque);
            self.ddl(true);
        }
        if self.scan.calls_set_config {
            self.set_config();
        }
        match self.scan.verb {
            _ if self.reading == Reading::PlpgsqlExpression => {}
            // In parentheses, or WITH … SELECT.
            Word::Other | Word::Select | Word::With | Word::Values | Word::Table => self.select(),
            Word::Insert | Word::Update | Word::Merge => {}
            verb => self.verb(Cursor::new(self.text, self.dialect), verb),
        }
        self.statement
    }

    fn ddl(&mut self, changes_facts: bool) {
        self.statement.is_ddl = true;
        self.statement.changes_facts |= changes_facts;
        self.fires_event_triggers();
    }

    fn fires_event_triggers(&mut self) {
        self.statement.pins = self.statement.pins.union(self.suspects.any_ddl);
    }

    fn select(&mut self) {
        if self.scan.selects_into && self.reading != Reading::PlpgsqlStatement {
            self.ddl(!self.scan.selects_into_temp);
            if self.scan.selects_into_temp || self.scan.mentions_pg_temp {
                self.statement.pins_at_commit.insert(Pin::Temporary);
            }
        }
    }

    /// What the verb under the cursor does; `verb` is the statement's, or the one that EXPLAIN explains.
    fn verb(&mut self, mut cursor: Cursor<'a>, verb: Word) {
        cursor.advance();
        let kind = match verb {
            Word::Begin => Some(Kind::Begin),
            Word::Start if cursor.word == Word::Transaction => Some(Kind::Begin),
            Word::Commit if cursor.word == Word::Prepared => None,
            Word::Commit | Word::End => {
                // AND NO CHAIN counts too: it is rare, and less is known of its outcome then.
                self.statement.chains = self.text.windows(5).any(|word| word.eq_ignore_ascii_case(b"chain"));
                Some(Kind::Commit)
            }
            Word::Rollback | Word::Abort => rollback(cursor),
            Word::Savepoint => cursor.name().map(Kind::Savepoint),
            Word::Release => savepoint_name(cursor).map(Kind::Release),
            Word::Set => self.set(cursor),
            Word::Reset => reset(cursor),
            Word::Prepare => self.prepare(cursor),
            Word::Execute => cursor.name().map(Kind::Execute),
            Word::Deallocate => deallocate(cursor),
            Word::Discard => self.discard(cursor),
            Word::Listen => {
                self.statement.pins_at_commit.insert(Pin::Listen);
                None
            }
            Word::Unlisten => {
                self.statement.may_unpin = true;
                Some(Kind::Unlisten)
            }
            Word::Declare => {
                self.declare(cursor);
                None
            }
            Word::Close => {
                self.statement.may_unpin = true;
                None
            }
            Word::Load => {
                self.statement.pins.insert(Pin::Process);
                None
            }
            // A procedure or a block can do anything, DDL too.
            Word::Do | Word::Call_ => {
                if verb == Word::Do || self.reading == Reading::Session {
                    self.statement.pins.insert(Pin::Opaque);
                }
                self.ddl(true);
                None
            }
            Word::Create => self.create(cursor),
            Word::Alter => self.alter(cursor),
            Word::Drop => self.drop(cursor),
            Word::Import => {
                self.ddl(true);
                if self.scan.mentions_pg_temp {
                    self.statement.pins_at_commit.insert(Pin::Temporary);
                }
                None
            }
            Word::Comment
            | Word::Grant
            | Word::Revoke
            | Word::Refresh
            | Word::Security
            | Word::Reassign
            | Word::Reindex => {
                self.fires_event_triggers();
                None
            }
            Word::Explain => {
                self.explain(cursor);
                return;
            }
            _ => None,
        };
        if let Some(kind) = kind {
            self.statement.kind = kind;
        }
    }

    fn explain(&mut self, mut cursor: Cursor<'a>) {
        if cursor.is_at(Lexeme::Open) && cursor.ahead().word != Word::Select {
            cursor.skip_parentheses();
        }
        while matches!(cursor.word, Word::Analyze | Word::Analyse | Word::Verbose) {
            cursor.advance();
        }
        match cursor.word {
            verb @ (Word::Create | Word::Execute | Word::Declare | Word::Refresh) => self.verb(cursor, verb),
            _ => self.select(),
        }
    }

    /// After SET.
    fn set(&mut self, mut cursor: Cursor<'a>) -> Option<Kind> {
        let is_local = cursor.word == Word::Local && !names_setting(&cursor);
        if is_local
            || cursor.word == Word::Session
                && !names_setting(&cursor)
                && !matches!(cursor.ahead().word, Word::Authorization | Word::Characteristics)
        {
            cursor.advance();
        }
        let set = set_target(&mut cursor)?;
        if set.name == "search_path" && is_temporary_path(cursor.clone()) {
            // What is created from here on may be temporary without saying so, also after SET LOCAL.
            self.statement.pins_at_commit.insert(Pin::Temporary);
        }
        if set.name == "seed" {
            // The same as setseed(): the generator is in the server process, and saying it again would restart it.
            self.statement.pins.insert(Pin::Process);
            return None;
        }
        if is_local {
            return Some(Kind::SetLocal);
        }
        if is_of_transaction(&set.name) {
            return None;
        }
        match set.how {
            How::Value => Some(Kind::Set { name: set.name.into(), text: self.text.into() }),
            How::Default => Some(Kind::Reset(set.name.into())),
            How::FromCurrent => {
                // Makes the value that SET LOCAL gave permanent: a value this does not know.
                self.statement.pins.insert(Pin::Opaque);
                None
            }
        }
    }

    fn set_config(&mut self) {
        if spells_pg_temp(self.text) {
            self.statement.pins_at_commit.insert(Pin::Temporary);
        }
        let (name, value, is_local) = match set_config::how_used(self.text, self.dialect) {
            Use::Alone { name, value, is_local } => (name, value, is_local),
            Use::Local => {
                if self.statement.kind == Kind::Plain {
                    self.statement.kind = Kind::SetLocal;
                }
                return;
            }
            Use::Hidden => {
                self.statement.pins.insert(Pin::Opaque);
                return;
            }
        };
        let lasts = match &is_local {
            Argument::Literal(word) if &**word == "true" => {
                self.statement.kind = Kind::SetLocal;
                return;
            }
            Argument::Literal(_) => true,
            Argument::Parameter(_) => false,
        };
        self.statement.kind = match (name, value) {
            (Argument::Literal(name), value) => {
                let name = setting_name(&name);
                if is_of_transaction(&name) {
                    return;
                }
                if name == "seed" {
                    self.statement.pins.insert(Pin::Process);
                    return;
                }
                let name = name.into();
                match value {
                    None if lasts => Kind::Reset(name),
                    Some(Argument::Literal(_)) if lasts => Kind::Set { name, text: self.text.into() },
                    Some(value) => Kind::SetConfig { name: Argument::Literal(name), value, is_local },
                    None => return self.statement.pins.insert(Pin::Opaque),
                }
            }
            (name, Some(value)) => Kind::SetConfig { name, value, is_local },
            (_, None) => return self.statement.pins.insert(Pin::Opaque),
        };
    }

    fn prepare(&mut self, mut cursor: Cursor<'a>) -> Option<Kind> {
        if cursor.word == Word::Transaction
            && matches!(
                cursor.ahead().lexeme(),
                Some(Lexeme::String | Lexeme::EscapeString | Lexeme::UnicodeString | Lexeme::DollarString)
            )
        {
            return Some(Kind::PrepareTransaction);
        }
        Some(Kind::Prepare { name: cursor.name()?, text: self.text.into() })
    }

    fn discard(&mut self, cursor: Cursor) -> Option<Kind> {
        let kind = match cursor.word {
            Word::All => Kind::DiscardAll,
            Word::Plans => return Some(Kind::DiscardPlans),
            Word::Sequences => Kind::DiscardSequences,
            Word::Temp | Word::Temporary => Kind::DiscardTemp,
            _ => return None,
        };
        self.statement.may_unpin = true;
        Some(kind)
    }

    /// DECLARE name [options] CURSOR [WITH HOLD] FOR …
    fn declare(&mut self, mut cursor: Cursor) {
        // The name, which may be any word.
        cursor.advance();
        while !cursor.at_end() {
            if cursor.eat(Word::Cursor) {
                if cursor.eat(Word::With) && cursor.word == Word::Hold {
                    self.statement.pins_at_commit.insert(Pin::HoldCursor);
                }
                return;
            }
            cursor.advance();
        }
    }

    fn create(&mut self, mut cursor: Cursor) -> Option<Kind> {
        if cursor.eat(Word::Or) {
            cursor.eat(Word::Replace);
        }
        if matches!(cursor.word, Word::Local | Word::Global) {
            cursor.advance();
        }
        let object = cursor.word;
        let is_temporary = matches!(object, Word::Temp | Word::Temporary);
        let is_routine = matches!(object, Word::Function | Word::Procedure);
        self.ddl(!is_temporary && defines_behaviour(&cursor));
        match object {
            Word::Database => return create_database(cursor),
            // `SET search_path = …, pg_temp` is good practice in a function and creates nothing.
            _ if is_routine => {
                if self.scan.qualifies_pg_temp {
                    // A body that no catalog scan will see in time.
                    self.statement.pins_at_commit.insert(Pin::Temporary);
                    self.statement.pins.insert(Pin::Opaque);
                }
                return None;
            }
            _ => {}
        }
        let mut drops_on_commit = false;
        let mut executes = None;
        let mut depth = 0usize;
        // The last two words.
        let mut trail = [Word::Other; 2];
        while let Some(lexeme) = cursor.lexeme() {
            match lexeme {
                Lexeme::Open => depth += 1,
                Lexeme::Close => depth = depth.saturating_sub(1),
                _ => {}
            }
            match cursor.word {
                Word::Drop if depth == 0 && trail == [Word::On, Word::Commit] => drops_on_commit = true,
                Word::Execute if depth == 0 && trail[1] == Word::As => executes = cursor.ahead().name(),
                _ => {}
            }
            trail = [trail[1], cursor.word];
            cursor.advance();
        }
        if (is_temporary || self.scan.mentions_pg_temp) && !drops_on_commit {
            self.statement.pins_at_commit.insert(Pin::Temporary);
        }
        executes.map(Kind::Execute)
    }

    fn alter(&mut self, mut cursor: Cursor) -> Option<Kind> {
        self.ddl(defines_behaviour(&cursor));
        let object = cursor.word;
        cursor.advance();
        match object {
            Word::System => Some(Kind::ChangesDefaults),
            Word::Role | Word::User if cursor.word != Word::Mapping => {
                // The role, or ALL.
                cursor.advance();
                if cursor.eat(Word::In) {
                    cursor.eat(Word::Database);
                    cursor.advance();
                }
                matches!(cursor.word, Word::Set | Word::Reset).then_some(Kind::ChangesDefaults)
            }
            Word::Database => {
                let name = cursor.name()?;
                match cursor.word {
                    Word::Rename => Some(Kind::NeedsDatabaseEmpty(vec![name])),
                    Word::Set if cursor.ahead().word == Word::Tablespace => Some(Kind::NeedsDatabaseEmpty(vec![name])),
                    Word::Set | Word::Reset => Some(Kind::ChangesDefaults),
                    _ => None,
                }
            }
            Word::Function | Word::Procedure => None,
            _ => {
                if self.scan.mentions_pg_temp {
                    self.statement.pins_at_commit.insert(Pin::Temporary);
                }
                None
            }
        }
    }

    fn drop(&mut self, mut cursor: Cursor) -> Option<Kind> {
        self.ddl(defines_behaviour(&cursor));
        self.statement.may_unpin = true;
        if !cursor.eat(Word::Database) {
            return None;
        }
        if cursor.word == Word::If && cursor.ahead().word == Word::Exists {
            cursor.advance();
            cursor.advance();
        }
        Some(Kind::NeedsDatabaseEmpty(vec![cursor.name()?]))
    }
}
