//! A text without its constants, comments and white space: what texts that differ only in those have in common. It is the
//! key under which a verdict on one of them serves them all.

use super::Dialect;
use super::lexer::{Lexeme, Lexer, Refused};
use super::words::Word;

/// What reading a text for its shape has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// It begins with a word of which nothing good can come: INSERT, UPDATE, CREATE, …: the text writes, whatever follows.
    pub writes: bool,
}

/// Writes the shape of `text` into `out`. `None` if the text cannot be read with certainty.
#[inline]
pub fn shape(text: &[u8], dialect: Dialect, out: &mut Vec<u8>) -> Option<Shape> {
    let mut lexer = Lexer::new(text, dialect);
    let mut first = None;
    let begin = out.len();
    let mut word_end = usize::MAX;
    loop {
        let token = match lexer.next_token() {
            Ok(Some(token)) => token,
            Ok(None) => break,
            Err(Refused) => return None,
        };
        // Each constant is a control character, which no token can be.
        let constant = match token.lexeme {
            Lexeme::Number => 1,
            // N'…', and a type right before its constant: not the same as with a space between.
            Lexeme::String if token.start == word_end => 6,
            Lexeme::String | Lexeme::DollarString => 2,
            // Not decoded the same way by every reader.
            Lexeme::EscapeString => 3,
            // What stands in it is spelled with an escape that may come behind it: there is no shape but the text.
            Lexeme::UnicodeString | Lexeme::UnicodeQuoted => {
                out.truncate(begin);
                out.push(7);
                out.extend_from_slice(text);
                return if lexer.is_doubtful() { None } else { Some(Shape { writes: false }) };
            }
            Lexeme::BitString => 5,
            _ => 0,
        };
        word_end = if token.lexeme == Lexeme::Word { token.end } else { usize::MAX };
        if constant == 0 {
            let bytes = &text[token.start..token.end];
            if first.is_none() {
                first = Some(if token.lexeme == Lexeme::Word { Word::of(bytes) } else { Word::Other });
            }
            out.extend_from_slice(bytes);
            out.push(b' ');
        } else {
            out.push(constant);
        }
    }
    if lexer.is_doubtful() {
        return None;
    }
    let first = first.unwrap_or(Word::Other);
    let writes = matches!(
        first,
        Word::Insert | Word::Update | Word::Merge | Word::Create | Word::Alter | Word::Drop | Word::Do | Word::Call_
    );
    Some(Shape { writes })
}

/// What a comment at the head of a text asks for: `/* pgbaton: primary */` or `/* pgbaton: replica */`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hint {
    Primary,
    Replica,
}

/// The hint of a text. Anything else after `pgbaton:` is no hint.
#[inline]
pub fn hint(text: &[u8]) -> Option<Hint> {
    let comment = text.trim_ascii_start().strip_prefix(b"/*")?;
    let said = comment.trim_ascii_start().strip_prefix(b"pgbaton:")?;
    let end = memchr::memmem::find(said, b"*/")?;
    match said[..end].trim_ascii() {
        word if word.eq_ignore_ascii_case(b"primary") => Some(Hint::Primary),
        word if word.eq_ignore_ascii_case(b"replica") => Some(Hint::Replica),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        shape(text.as_bytes(), Dialect::default(), &mut out).map(|_| out)
    }

    #[test]
    fn texts_that_differ_in_constants_and_spaces_have_one_shape() {
        assert_eq!(of("SELECT a FROM t WHERE b = 1"), of("SELECT a  FROM t -- x\nWHERE b=  23"));
        assert_eq!(of("SELECT 'a', 1.5"), of("/* x */ SELECT 'bb''b' , 2e7"));
        for (one, other) in [
            ("SELECT a", "SELECT b"),
            ("SELECT 1", "SELECT '1'"),
            ("SELECT 1", "SELECT $1"),
            ("SELECT a b", "SELECT ab"),
            ("SELECT \"a\"", "SELECT a"),
            ("SELECT f(1)", "SELECT f(1, 1)"),
            ("SELECT 'a'", "SELECT E'a'"),
            ("SELECT n'a'", "SELECT n 'a'"),
            ("SELECT U&'!0061' UESCAPE '!'", "SELECT U&'!0061' UESCAPE '#'"),
        ] {
            assert_ne!(of(one), of(other), "{one} | {other}");
        }
        assert_eq!(of("SELECT 'unterminated"), None);
    }

    #[test]
    fn a_hint_is_the_first_comment_and_nothing_else() {
        assert_eq!(hint(b"  /* pgbaton: primary */ SELECT 1"), Some(Hint::Primary));
        assert_eq!(hint(b"/*pgbaton:REPLICA*/SELECT 1"), Some(Hint::Replica));
        assert_eq!(hint(b"/* pgbaton: both */ SELECT 1"), None);
        assert_eq!(hint(b"SELECT 1 /* pgbaton: primary */"), None);
        assert_eq!(hint(b"/* pgbaton: primary"), None);
    }
}
