//! PostgreSQL's lexical rules (`src/backend/parser/scan.l`) over raw bytes, in one pass and without allocating.
//!
//! Only what decides where a token ends is kept; values are read later, and only of the few tokens that matter. Where
//! PostgreSQL's versions differ (`1a`, vertical tab) the reading that accepts more is taken: a version that refuses the
//! text refuses the whole message, and then nothing said about it matters.

mod value;

use super::Dialect;
pub use value::{folded, text_of};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lexeme {
    /// An identifier or key word without quotes.
    Word,
    /// `"identifier"`
    Quoted,
    /// `U&"identifier"`: its name can be spelled with escapes and is not decoded here.
    UnicodeQuoted,
    /// `'…'`
    String,
    /// `E'…'`, or `'…'` while `standard_conforming_strings` is off.
    EscapeString,
    /// `U&'…'`
    UnicodeString,
    /// `B'…'` or `X'…'`
    BitString,
    /// `$tag$…$tag$`
    DollarString,
    /// `$1`
    Parameter,
    Number,
    /// One or more of `+-*/<>=~!@#%^&|` and the back quote or question mark.
    Operator,
    Open,
    Close,
    /// `[` or `]`
    Bracket,
    Comma,
    Dot,
    DotDot,
    Colon,
    ColonEquals,
    /// `::`
    TypeCast,
    Semicolon,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    pub lexeme: Lexeme,
    /// Byte offsets into the text.
    pub start: usize,
    pub end: usize,
}

/// The scanner of PostgreSQL would stop here with an error, so that nothing of the message is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// A cursor over one text.
#[derive(Clone)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    dialect: Dialect,
    /// A multi-byte character of an unsafe encoding stood where its second byte may have been taken for something else:
    /// the tokens from there on are a guess.
    doubtful: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Operator,
    Dot,
    Colon,
    /// A byte that is a token by itself.
    Single,
    Bad,
}

const CLASS: [Class; 256] = {
    let mut class = [Class::Bad; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        class[i] = match b {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Class::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b'$' => Class::Dollar,
            b'.' => Class::Dot,
            b':' => Class::Colon,
            b'(' | b')' | b'[' | b']' | b',' | b';' => Class::Single,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<'
            | b'>' | b'=' => Class::Operator,
            _ => Class::Bad,
        };
        i += 1;
    }
    class
};

/// May a byte continue an identifier?
const CONTINUES: [bool; 256] = {
    let mut continues = [false; 256];
    let mut i = 0;
    while i < 256 {
        continues[i] = matches!(CLASS[i], Class::Letter | Class::Digit | Class::Dollar);
        i += 1;
    }
    continues
};

impl<'a> Lexer<'a> {
    pub fn new(text: &'a [u8], dialect: Dialect) -> Self {
        Lexer { text, at: 0, dialect, doubtful: false }
    }

    /// Whether the tokens so far may not be those PostgreSQL sees.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// The next token, or `None` at the end of the text.
    #[inline]
    pub fn next_token(&mut self) -> Result<Option<Token>, Refused> {
        loop {
            let start = self.at;
            let Some(&byte) = self.text.get(start) else { return Ok(None) };
            let lexeme = match CLASS[byte as usize] {
                Class::Space => {
                    self.at += 1;
                    continue;
                }
                Class::Letter => self.word_or_prefixed_string(start)?,
                Class::Digit => self.number(),
                Class::Quote => self.string(start + 1, self.dialect.standard_conforming_strings)?,
                Class::DoubleQuote => self.quoted(start + 1, Lexeme::Quoted)?,
                Class::Dollar => self.dollar(start)?,
                Class::Operator => {
                    match (byte, self.peek(1)) {
                        (b'-', Some(b'-')) => {
                            self.line_comment();
                            continue;
                        }
                        (b'/', Some(b'*')) => {
                            self.block_comment()?;
                            continue;
                        }
                        _ => {}
                    }
                    self.operator(start)
                }
                Class::Dot => match self.peek(1) {
                    Some(b'.') => self.punctuation(2, Lexeme::DotDot),
                    Some(b'0'..=b'9') => self.number(),
                    _ => self.punctuation(1, Lexeme::Dot),
                },
                Class::Colon => match self.peek(1) {
                    Some(b':') => self.punctuation(2, Lexeme::TypeCast),
                    Some(b'=') => self.punctuation(2, Lexeme::ColonEquals),
                    _ => self.punctuation(1, Lexeme::Colon),
                },
                Class::Single => {
                    let lexeme = match byte {
                        b'(' => Lexeme::Open,
                        b')' => Lexeme::Close,
                        b',' => Lexeme::Comma,
                        b';' => Lexeme::Semicolon,
                        _ => Lexeme::Bracket,
                    };
                    self.punctuation(1, lexeme)
                }
                // `{`, `\`, a control character: no rule of the grammar has it.
                Class::Bad => return Err(Refused),
            };
            return Ok(Some(Token { lexeme, start, end: self.at }));
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn punctuation(&mut self, len: usize, lexeme: Lexeme) -> Lexeme {
        self.at += len;
        lexeme
    }

    #[inline]
    fn word_or_prefixed_string(&mut self, start: usize) -> Result<Lexeme, Refused> {
        if let Some(quote @ (b'\'' | b'&')) = self.peek(1) {
            match (self.text[start], quote) {
                (b'e' | b'E', b'\'') => return self.string(start + 2, false),
                (b'b' | b'B' | b'x' | b'X', b'\'') => return self.bit_string(start + 2),
                (b'u' | b'U', b'&') => match self.peek(2) {
                    Some(b'\'') => {
                        self.plain_string(start + 3)?;
                        return Ok(Lexeme::UnicodeString);
                    }
                    Some(b'"') => return self.quoted(start + 3, Lexeme::UnicodeQuoted),
                    _ => {}
                },
                // N'…' is the word NCHAR and then a plain string: reading it as the word `n` comes to the same.
                _ => {}
            }
        }
        let mut end = start + 1;
        while end < self.text.len() && CONTINUES[self.text[end] as usize] {
            end += 1;
        }
        if self.dialect.unsafe_encoding && !self.text[start..end].is_ascii() {
            self.doubtful = true;
        }
        self.at = end;
        Ok(Lexeme::Word)
    }

    fn number(&mut self) -> Lexeme {
        let digits = |text: &[u8], mut at: usize| {
            while at < text.len() && text[at].is_ascii_digit() {
                at += 1;
            }
            at
        };
        let mut end = digits(self.text, self.at);
        // `1..10` is a number and two dots.
        if self.text.get(end) == Some(&b'.') && self.text.get(end + 1) != Some(&b'.') {
            end = digits(self.text, end + 1);
        }
        if let Some(b'e' | b'E') = self.text.get(end) {
            let sign = usize::from(matches!(self.text.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(self.text, end + 1 + sign);
            if exponent > end + 1 + sign {
                end = exponent;
            }
        }
        self.at = end;
        Lexeme::Number
    }

    /// A string from the byte after its opening quote.
    fn string(&mut self, from: usize, standard: bool) -> Result<Lexeme, Refused> {
        if standard {
            self.plain_string(from)?;
            return Ok(Lexeme::String);
        }
        let mut at = from;
        loop {
            let found = memchr::memchr2(b'\'', b'\\', self.text.get(at..).unwrap_or_default()).ok_or(Refused);
            if self.dialect.unsafe_encoding
                && !self.text[at.min(self.text.len())..found.map_or(self.text.len(), |n| at + n)].is_ascii()
            {
                // The backslash may be the second half of a character.
                self.doubtful = true;
            }
            let found = found? + at;
            if self.text[found] == b'\\' || self.text.get(found + 1) == Some(&b'\'') {
                at = found + 2;
            } else if let Some(next) = self.continuation(found + 1) {
                at = next;
            } else {
                self.at = found + 1;
                return Ok(Lexeme::EscapeString);
            }
        }
    }

    fn plain_string(&mut self, from: usize) -> Result<(), Refused> {
        let mut at = from;
        loop {
            let quote = at + memchr::memchr(b'\'', self.text.get(at..).unwrap_or_default()).ok_or(Refused)?;
            if self.text.get(quote + 1) == Some(&b'\'') {
                at = quote + 2;
            } else if let Some(next) = self.continuation(quote + 1) {
                at = next;
            } else {
                self.at = quote + 1;
                return Ok(());
            }
        }
    }

    /// In B'…' and X'…' a doubled quote is two strings, not a quote.
    fn bit_string(&mut self, from: usize) -> Result<Lexeme, Refused> {
        let mut at = from;
        loop {
            let quote = at + memchr::memchr(b'\'', self.text.get(at..).unwrap_or_default()).ok_or(Refused)?;
            match self.continuation(quote + 1) {
                Some(next) => at = next,
                None => {
                    self.at = quote + 1;
                    return Ok(Lexeme::BitString);
                }
            }
        }
    }

    /// Strings separated by white space with a newline in it are one string: the byte after the next opening quote.
    fn continuation(&self, after: usize) -> Option<usize> {
        let rest = self.text.get(after..)?;
        // The common case: `'…',` or `'…')` or the end.
        if !matches!(rest.first()?, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | b'-') {
            return None;
        }
        let mut at = after;
        let mut newline = false;
        loop {
            match self.text.get(at)? {
                b'\n' | b'\r' => {
                    newline = true;
                    at += 1;
                }
                b' ' | b'\t' | 0x0b | 0x0c => at += 1,
                b'-' if self.text.get(at + 1) == Some(&b'-') => {
                    at += memchr::memchr2(b'\n', b'\r', &self.text[at..])?;
                }
                b'\'' if newline => return Some(at + 1),
                _ => return None,
            }
        }
    }

    fn quoted(&mut self, from: usize, lexeme: Lexeme) -> Result<Lexeme, Refused> {
        let mut at = from;
        loop {
            let quote = at + memchr::memchr(b'"', self.text.get(at..).unwrap_or_default()).ok_or(Refused)?;
            if self.text.get(quote + 1) == Some(&b'"') {
                at = quote + 2;
                continue;
            }
            if quote == from {
                // zero-length delimited identifier
                return Err(Refused);
            }
            self.at = quote + 1;
            return Ok(lexeme);
        }
    }

    fn dollar(&mut self, start: usize) -> Result<Lexeme, Refused> {
        let mut end = start + 1;
        match self.text.get(end) {
            Some(b'0'..=b'9') => {
                while end < self.text.len() && self.text[end].is_ascii_digit() {
                    end += 1;
                }
                self.at = end;
                return Ok(Lexeme::Parameter);
            }
            Some(b'$') => {}
            Some(&byte) if CLASS[byte as usize] == Class::Letter => {
                while end < self.text.len() && self.text[end] != b'$' && CONTINUES[self.text[end] as usize] {
                    end += 1;
                }
                if self.text.get(end) != Some(&b'$') {
                    return Err(Refused);
                }
            }
            _ => return Err(Refused),
        }
        let delimiter = &self.text[start..=end];
        if self.dialect.unsafe_encoding && !delimiter.is_ascii() {
            self.doubtful = true;
        }
        let body = end + 1;
        let found = memchr::memmem::find(&self.text[body..], delimiter).ok_or(Refused)?;
        self.at = body + found + delimiter.len();
        Ok(Lexeme::DollarString)
    }

    fn line_comment(&mut self) {
        let rest = &self.text[self.at..];
        self.at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
    }

    fn block_comment(&mut self) -> Result<(), Refused> {
        let mut depth = 1usize;
        let mut at = self.at + 2;
        while depth > 0 {
            at += memchr::memchr2(b'*', b'/', self.text.get(at..).unwrap_or_default()).ok_or(Refused)?;
            match (self.text[at], self.text.get(at + 1)) {
                (b'/', Some(b'*')) => {
                    depth += 1;
                    at += 2;
                }
                (b'*', Some(b'/')) => {
                    depth -= 1;
                    at += 2;
                }
                _ => at += 1,
            }
        }
        self.at = at;
        Ok(())
    }

    /// An operator ends where a comment begins, and keeps a trailing + or - only if it holds a character that no
    /// operator of the SQL standard has: `a=-1` is `=` and `-`, but `@-` is one operator.
    fn operator(&mut self, start: usize) -> Lexeme {
        let text = self.text;
        let mut end = start + 1;
        while end < text.len() && CLASS[text[end] as usize] == Class::Operator {
            match (text[end], text.get(end + 1)) {
                (b'-', Some(b'-')) | (b'/', Some(b'*')) => break,
                _ => end += 1,
            }
        }
        let extends = |b: &u8| matches!(b, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%');
        if end - start > 1 && matches!(text[end - 1], b'+' | b'-') && !text[start..end - 1].iter().any(extends) {
            while end - start > 1 && matches!(text[end - 1], b'+' | b'-') {
                end -= 1;
            }
        }
        self.at = end;
        Lexeme::Operator
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The tokens as text, separated by `·`, or `refused` at the end.
    fn tokens_in(text: &str, dialect: Dialect) -> String {
        let mut lexer = Lexer::new(text.as_bytes(), dialect);
        let mut tokens = Vec::new();
        loop {
            match lexer.next_token() {
                Ok(Some(token)) => tokens.push(text[token.start..token.end].replace('\n', "⏎")),
                Ok(None) => return tokens.join("·"),
                Err(Refused) => {
                    tokens.push("refused".into());
                    return tokens.join("·");
                }
            }
        }
    }

    fn tokens(text: &str) -> String {
        tokens_in(text, Dialect::default())
    }

    #[test]
    fn tokens_are_those_of_postgresql() {
        for (text, expected) in [
            ("select a.b, 'x' from t", "select·a·.·b·,·'x'·from·t"),
            ("select/*a/*b*/'*/1", "select·1"),
            ("a--b'\nc", "a·c"),
            ("/* open", "refused"),
            ("/*/ */ x", "x"),
            ("/***/x", "x"),
            ("'it''s' x", "'it''s'·x"),
            (r"'a\' x", r"'a\'·x"),
            (r"E'a\' x' y", r"E'a\' x'·y"),
            (r"e'\\' y", r"e'\\'·y"),
            ("N'x'", "N·'x'"),
            ("ne'x'", "ne·'x'"),
            ("b'01' X'1f'", "b'01'·X'1f'"),
            ("b'0''1'", "b'0'·'1'"),
            (r"U&'\0041' U&\0022", r"U&'\0041'·U·&·refused"),
            ("U&\"a\"\"b\" u & x", "U&\"a\"\"b\"·u·&·x"),
            ("'a'\n  'b' 'c'", "'a'⏎  'b'·'c'"),
            ("'a' -- note '\n 'b'", "'a' -- note '⏎ 'b'"),
            ("'a' /* no */\n 'b'", "'a'·'b'"),
            ("'a'--x", "'a'"),
            ("\"a\"\"b\"c", "\"a\"\"b\"·c"),
            ("\"\"", "refused"),
            ("\"open", "refused"),
            ("$$a'b$$c", "$$a'b$$·c"),
            ("$x$ $$ $y$ $x $x$z", "$x$ $$ $y$ $x $x$·z"),
            ("a$b$c", "a$b$c"),
            ("$1 $23", "$1·$23"),
            ("$a", "refused"),
            ("$a b$", "refused"),
            ("1.5e-3 .5 1. 1..2 1e 7e+", "1.5e-3·.5·1.·1·..·2·1·e·7·e·+"),
            ("1e'\\''", "1·e'\\''"),
            ("a=-1", "a·=·-·1"),
            ("a@-1", "a·@-·1"),
            ("a<>-1 a>=+ b", "a·<>·-·1·a·>=·+·b"),
            ("a+--b\n*/*c*/d", "a·+·*·d"),
            ("a::int b:=c d:e f=>g", "a·::·int·b·:=·c·d·:·e·f·=>·g"),
            ("x[1:2]", "x·[·1·:·2·]"),
            ("größe ☃", "größe·☃"),
            ("a {", "a·refused"),
            ("a \\ b", "a·refused"),
        ] {
            assert_eq!(tokens(text), expected, "{text}");
        }
    }

    #[test]
    fn a_backslash_escapes_when_strings_are_not_standard_conforming() {
        let old = Dialect { standard_conforming_strings: false, ..Dialect::default() };
        assert_eq!(tokens_in(r"'a\'b' c", old), r"'a\'b'·c");
        assert_eq!(tokens_in(r"$$a\$$ c", old), r"$$a\$$·c");
    }

    #[test]
    fn doubt_is_raised_only_where_a_second_byte_could_matter() {
        let unsafe_dialect = Dialect { unsafe_encoding: true, ..Dialect::default() };
        let doubtful = |text: &[u8]| {
            let mut lexer = Lexer::new(text, unsafe_dialect);
            while let Ok(Some(_)) = lexer.next_token() {}
            lexer.is_doubtful()
        };
        assert!(!doubtful(b"select '\x83\x5c' /* \x83\x5c */, \"\x83\x5c\", $$\x83\x5c$$"));
        assert!(doubtful(b"select E'\x83\x5c'"));
        assert!(doubtful(b"select \x83\x5c"));
        assert!(!doubtful(b"select E'a\\n'"));
    }

    #[test]
    fn values_are_read_back() {
        let literal = |text: &str| {
            let token = Lexer::new(text.as_bytes(), Dialect::default()).next_token().unwrap().unwrap();
            token.literal(text.as_bytes()).map(|value| String::from_utf8(value.into_owned()).unwrap())
        };
        assert_eq!(literal("'it''s'").as_deref(), Some("it's"));
        assert_eq!(literal("'a' -- '\n\t'b'''").as_deref(), Some("ab'"));
        assert_eq!(literal("$x$a'$$b$x$").as_deref(), Some("a'$$b"));
        assert_eq!(literal("$$$$").as_deref(), Some(""));
        assert_eq!(literal("E'ab'").as_deref(), Some("ab"));
        assert_eq!(literal(r"E'a\n'"), None);
        assert_eq!(literal("U&'a'"), None);
        let name = |text: &str| {
            let token = Lexer::new(text.as_bytes(), Dialect::default()).next_token().unwrap().unwrap();
            token.name(text.as_bytes()).map(|name| text_of(&name))
        };
        assert_eq!(name("FooBär").as_deref(), Some("foobär"));
        assert_eq!(name("\"Foo\"\"Bar\"").as_deref(), Some("Foo\"Bar"));
        assert_eq!(name(&"x".repeat(70)).as_deref(), Some("x".repeat(63).as_str()));
        assert_eq!(name(&format!("{}ü", "x".repeat(62))).as_deref(), Some("x".repeat(62).as_str()));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_ordered_tokens(text in proptest::collection::vec(any::<u8>(), 0..200), standard: bool, unsafe_encoding: bool) {
            let dialect = Dialect { standard_conforming_strings: standard, unsafe_encoding };
            let mut lexer = Lexer::new(&text, dialect);
            let mut at = 0;
            while let Ok(Some(token)) = lexer.next_token() {
                prop_assert!(token.start >= at && token.end > token.start && token.end <= text.len());
                let _ = (token.name(&text), token.literal(&text));
                at = token.end;
            }
        }

        #[test]
        fn any_mix_of_awkward_pieces_ends_in_ordered_tokens(pieces in proptest::collection::vec(
            prop::sample::select(vec!["'", "\"", "$", "$$", "$a$", "/*", "*/", "--", "\n", "\\", "E'", "U&'", "U&\"", "b'", "+", "-", "@", ".", "1", "e", "a", ":", "=", "ü", " ", "(", ";"]), 0..60)) {
            let text = pieces.concat();
            let mut lexer = Lexer::new(text.as_bytes(), Dialect::default());
            let mut at = 0;
            while let Ok(Some(token)) = lexer.next_token() {
                prop_assert!(token.start >= at && token.end > token.start);
                let _ = (token.name(text.as_bytes()), token.literal(text.as_bytes()));
                at = token.end;
            }
        }
    }
}
