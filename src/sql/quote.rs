//! Writing names and values so that PostgreSQL reads back exactly them: for the SET and DEALLOCATE texts the proxy says
//! on its own.

/// The name as a delimited identifier: always quoted, since which words are reserved differs between versions.
pub fn quote_ident(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    text.push('"');
    for c in name.chars() {
        if c == '"' {
            text.push('"');
        }
        text.push(c);
    }
    text.push('"');
    text
}

/// The value as a string constant that reads the same whatever `standard_conforming_strings` says.
pub fn quote_literal(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 3);
    if value.contains('\\') {
        text.push('E');
    }
    text.push('\'');
    for c in value.chars() {
        if c == '\'' || c == '\\' {
            text.push(c);
        }
        text.push(c);
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_survive_quoting() {
        assert_eq!(quote_ident("plain"), r#""plain""#);
        assert_eq!(quote_ident(r#"wei"rd"#), r#""wei""rd""#);
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"a\b'"), r"E'a\\b'''");
    }
}
