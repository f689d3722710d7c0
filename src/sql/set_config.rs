//! `set_config()`: SET written as a function call, which drivers and pg_dump prefer, and which can stand anywhere.

use super::cursor::Cursor;
use super::lexer::{Lexeme, text_of};
use super::words::Word;
use super::{Argument, Dialect};

/// How a statement that mentions `set_config` uses it.
pub(super) enum Use {
    /// The statement is this call and nothing else. A value of `None` is NULL: back to the default.
    Alone { name: Argument, value: Option<Argument>, is_local: Argument },
    /// Every call is literally local to the transaction.
    Local,
    /// Some call may change the session in a way that cannot be read from the text.
    Hidden,
}

pub(super) fn how_used(statement: &[u8], dialect: Dialect) -> Use {
    if let Some(alone) = alone(statement, dialect) {
        return alone;
    }
    let mut cursor = Cursor::new(statement, dialect);
    let mut all_local = true;
    while let Some(token) = cursor.token {
        let is_call = token.name(statement).is_some_and(|name| &*name == b"set_config");
        cursor.advance();
        if is_call && cursor.is_at(Lexeme::Open) {
            all_local &= is_local_call(cursor.ahead());
        }
    }
    if all_local { Use::Local } else { Use::Hidden }
}

/// `SELECT [pg_catalog.]set_config(a, b, c) [[AS] label]`
fn alone(statement: &[u8], dialect: Dialect) -> Option<Use> {
    let mut cursor = Cursor::new(statement, dialect);
    if !cursor.eat(Word::Select) {
        return None;
    }
    if cursor.ahead().is_at(Lexeme::Dot) {
        if &*cursor.name()? != "pg_catalog" {
            return None;
        }
        cursor.advance();
    }
    if &*cursor.name()? != "set_config" || !cursor.eat_lexeme(Lexeme::Open) {
        return None;
    }
    let name = argument(&mut cursor)??;
    if !cursor.eat_lexeme(Lexeme::Comma) {
        return None;
    }
    let value = argument(&mut cursor)?;
    if !cursor.eat_lexeme(Lexeme::Comma) {
        return None;
    }
    // NULL for is_local means false.
    let is_local = argument(&mut cursor)?.unwrap_or(Argument::Literal("false".into()));
    if !cursor.eat_lexeme(Lexeme::Close) {
        return None;
    }
    let is_local = match is_local {
        Argument::Literal(text) if is_true(&text) => Argument::Literal("true".into()),
        Argument::Literal(text) if is_false(&text) => Argument::Literal("false".into()),
        Argument::Literal(_) => return None,
        parameter => parameter,
    };
    cursor.eat(Word::As);
    if !cursor.at_end() {
        cursor.name()?;
    }
    cursor.at_end().then_some(Use::Alone { name, value, is_local })
}

/// A constant or a parameter, with a harmless cast or none; the inner `None` is NULL.
fn argument(cursor: &mut Cursor) -> Option<Option<Argument>> {
    let token = cursor.token?;
    let argument = match token.lexeme {
        Lexeme::Parameter => {
            let number = std::str::from_utf8(&token.bytes(cursor.text)[1..]).ok()?.parse().ok()?;
            Some(Argument::Parameter(number))
        }
        Lexeme::Word => match cursor.word {
            Word::True => Some(Argument::Literal("true".into())),
            Word::False => Some(Argument::Literal("false".into())),
            Word::Null => None,
            _ => return None,
        },
        _ => Some(Argument::Literal(text_of(&token.literal(cursor.text)?))),
    };
    cursor.advance();
    if cursor.eat_lexeme(Lexeme::TypeCast) {
        if cursor.ahead().is_at(Lexeme::Dot) {
            if &*cursor.name()? != "pg_catalog" {
                return None;
            }
            cursor.advance();
        }
        // A cast to any other type may change the value.
        if !matches!(&*cursor.name()?, "text" | "varchar" | "bool" | "boolean") {
            return None;
        }
    }
    Some(argument)
}

/// From the first argument: is the third one, and the last, a literal `true`?
fn is_local_call(mut cursor: Cursor) -> bool {
    let mut depth = 0usize;
    let mut commas = 0;
    while commas < 2 {
        match cursor.lexeme() {
            None => return false,
            Some(Lexeme::Open | Lexeme::Bracket) => depth += 1,
            // Brackets come in pairs, so that counting each as one deeper only delays: an array argument hides the
            // commas after it, and the call counts as hidden.
            Some(Lexeme::Close) if depth == 0 => return false,
            Some(Lexeme::Close) => depth -= 1,
            Some(Lexeme::Comma) if depth == 0 => commas += 1,
            Some(_) => {}
        }
        cursor.advance();
    }
    let is_local = argument(&mut cursor);
    matches!(is_local, Some(Some(Argument::Literal(text))) if is_true(&text)) && cursor.is_at(Lexeme::Close)
}

/// The spellings of `boolin`.
fn is_true(text: &str) -> bool {
    ["t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"].iter().any(|word| text.trim().eq_ignore_ascii_case(word))
}

fn is_false(text: &str) -> bool {
    let words = ["f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"];
    words.iter().any(|word| text.trim().eq_ignore_ascii_case(word))
}
