//! What a statement that was judged to set something sets it to, read back from its text.

use super::Dialect;
use super::lexer::{Lexeme, Lexer, Token};

/// The values of `SET [SESSION | LOCAL] name {TO | =} value, …` or of `SELECT set_config('name', 'value', …)`. `None` for any
/// other way to say it (SET TIME ZONE, SET SCHEMA, an escape string).
pub fn setting_values(text: &[u8]) -> Option<Vec<String>> {
    // It may be an escape, by the session's own settings.
    if text.contains(&b'\\') {
        return None;
    }
    let mut lexer = Lexer::new(text, Dialect::default());
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next_token().ok()? {
        tokens.push(token);
        if tokens.len() > 256 {
            return None;
        }
    }
    let first = tokens.first().filter(|token| token.lexeme == Lexeme::Word)?;
    let says = |word: &str, token: &Token| text[token.start..token.end].eq_ignore_ascii_case(word.as_bytes());
    if says("select", first) {
        let at = tokens.iter().position(|token| token.lexeme == Lexeme::Comma)?;
        return Some(vec![plain(text, tokens.get(at + 1)?)?]);
    }
    if !says("set", first) {
        return None;
    }
    let at =
        tokens.iter().position(|token| says("to", token) || token.lexeme == Lexeme::Operator && says("=", token))?;
    let mut values = Vec::new();
    for (place, token) in tokens[at + 1..].iter().filter(|token| token.lexeme != Lexeme::Semicolon).enumerate() {
        match (place % 2, token.lexeme) {
            (1, Lexeme::Comma) => {}
            (0, _) => values.push(plain(text, token)?),
            _ => return None,
        }
    }
    Some(values)
}

fn plain(text: &[u8], token: &Token) -> Option<String> {
    let bytes = &text[token.start..token.end];
    match token.lexeme {
        Lexeme::Word => Some(String::from_utf8(bytes.to_ascii_lowercase()).ok()?),
        Lexeme::Number => Some(String::from_utf8(bytes.to_vec()).ok()?),
        Lexeme::Quoted => Some(String::from_utf8(token.name(text)?.into_owned()).ok()?),
        // One with a line break between its parts is two strings to the eye; nobody writes that here.
        Lexeme::String => {
            let inside = std::str::from_utf8(bytes.get(1..bytes.len() - 1)?).ok()?;
            Some(inside.replace("''", "'"))
        }
        _ => None,
    }
}

/// The schemas in a value of `search_path` as the server writes it: names separated by commas, perhaps in double quotes.
pub fn schemas_of(value: &str) -> Option<Vec<Box<str>>> {
    let text = value.as_bytes();
    let mut lexer = Lexer::new(text, Dialect::default());
    let mut schemas = Vec::new();
    let mut wants_name = true;
    while let Some(token) = lexer.next_token().ok()? {
        match (wants_name, token.lexeme) {
            (true, Lexeme::Word | Lexeme::Quoted) => schemas.push(plain(text, &token)?.into()),
            (false, Lexeme::Comma) => {}
            _ => return None,
        }
        wants_name = !wants_name;
    }
    Some(schemas)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Option<Vec<String>> {
        setting_values(text.as_bytes())
    }

    #[test]
    fn values_are_read_as_they_were_written() {
        let some = |values: &[&str]| Some(values.iter().map(|value| value.to_string()).collect::<Vec<_>>());
        assert_eq!(values("SET pgbaton.target = 'primary'"), some(&["primary"]));
        assert_eq!(values("set session search_path to A, \"B c\", 'd''e';"), some(&["a", "B c", "d'e"]));
        assert_eq!(values("SELECT pg_catalog.set_config('search_path', 'x, y', false)"), some(&["x, y"]));
        assert_eq!(values("SET x = E'a'"), None);
        assert_eq!(values("SET TIME ZONE 'UTC'"), None);
    }

    #[test]
    fn a_path_is_a_list_of_names() {
        assert_eq!(schemas_of("\"$user\", public"), Some(vec!["$user".into(), "public".into()]));
        assert_eq!(schemas_of(""), Some(vec![]));
        assert_eq!(schemas_of("a b"), None);
    }
}
