//! What a token stands for: the name of an identifier, the value of a string constant. Read only of the few tokens that matter.

use std::borrow::Cow;

use super::{Lexeme, Token};

/// The longest name PostgreSQL keeps, in bytes (NAMEDATALEN - 1); longer ones are cut.
const NAME_BYTES: usize = 63;

impl Token {
    pub fn bytes<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.start..self.end]
    }

    pub fn is_operator(&self, text: &[u8], operator: &[u8]) -> bool {
        self.lexeme == Lexeme::Operator && self.bytes(text) == operator
    }

    /// The name an identifier stands for: folded to lower case unless quoted, cut to 63 bytes. `None` for what is no
    /// identifier, and for `U&"…"`.
    pub fn name<'a>(&self, text: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self.lexeme {
            Lexeme::Word => Some(folded(self.bytes(text))),
            Lexeme::Quoted => {
                let inside = &text[self.start + 1..self.end - 1];
                let name = if memchr::memchr(b'"', inside).is_some() {
                    Cow::Owned(undoubled(inside, b'"'))
                } else {
                    Cow::Borrowed(inside)
                };
                Some(truncated(name))
            }
            _ => None,
        }
    }

    /// The value of a string constant, or `None` for what is none or is written with escapes.
    pub fn literal<'a>(&self, text: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let bytes = self.bytes(text);
        match self.lexeme {
            Lexeme::DollarString => {
                let tag = 2 + memchr::memchr(b'$', &bytes[1..])?;
                Some(Cow::Borrowed(&bytes[tag..bytes.len() - tag]))
            }
            Lexeme::String => Some(joined(bytes)),
            Lexeme::EscapeString if !bytes.contains(&b'\\') => {
                Some(joined(bytes.strip_prefix(b"E").or_else(|| bytes.strip_prefix(b"e")).unwrap_or(bytes)))
            }
            _ => None,
        }
    }
}

/// `name` as PostgreSQL folds an identifier without quotes. Only ASCII letters: what PostgreSQL does with others depends
/// on encoding and locale.
pub fn folded(name: &[u8]) -> Cow<'_, [u8]> {
    let name = if name.iter().any(u8::is_ascii_uppercase) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    };
    truncated(name)
}

/// Bytes as text. Names in an encoding other than UTF-8 become some text, and different names become different texts.
pub fn text_of(bytes: &[u8]) -> Box<str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

fn truncated(name: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if name.len() <= NAME_BYTES {
        return name;
    }
    let mut end = NAME_BYTES;
    // Not inside a character: continuation bytes of UTF-8 are 10xxxxxx.
    while end > 0 && name[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(&name[..end]),
        Cow::Owned(mut name) => {
            name.truncate(end);
            Cow::Owned(name)
        }
    }
}

fn undoubled(inside: &[u8], quote: u8) -> Vec<u8> {
    let mut value = Vec::with_capacity(inside.len());
    let mut at = 0;
    while at < inside.len() {
        value.push(inside[at]);
        at += if inside[at] == quote { 2 } else { 1 };
    }
    value
}

/// The value of `'…'`, several of them joined over newlines.
fn joined(bytes: &[u8]) -> Cow<'_, [u8]> {
    let inside = &bytes[1..bytes.len() - 1];
    if memchr::memchr(b'\'', inside).is_none() {
        return Cow::Borrowed(inside);
    }
    let mut value = Vec::with_capacity(inside.len());
    let mut at = 0;
    while at < inside.len() {
        if inside[at] != b'\'' {
            value.push(inside[at]);
            at += 1;
        } else if inside.get(at + 1) == Some(&b'\'') {
            value.push(b'\'');
            at += 2;
        } else {
            // Between two parts: white space and comments, up to the next quote that is not in a comment.
            at += 1;
            while at < inside.len() && inside[at] != b'\'' {
                at += match inside[at] {
                    b'-' => memchr::memchr2(b'\n', b'\r', &inside[at..]).unwrap_or(inside.len() - at),
                    _ => 1,
                };
            }
            at += 1;
        }
    }
    Cow::Owned(value)
}
