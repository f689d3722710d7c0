//! Reading one statement token by token, as the grammar of its verb asks.

use super::Dialect;
use super::lexer::{Lexeme, Lexer, Token, text_of};
use super::words::Word;

/// Stands on a token of a statement that the lexer has already read to its end, so that nothing here can fail.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    pub text: &'a [u8],
    lexer: Lexer<'a>,
    pub token: Option<Token>,
    /// The word under the cursor; `Other` if it is no word without quotes.
    pub word: Word,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a [u8], dialect: Dialect) -> Self {
        let mut cursor = Cursor { text, lexer: Lexer::new(text, dialect), token: None, word: Word::Other };
        cursor.advance();
        cursor
    }

    pub fn advance(&mut self) {
        self.token = self.lexer.next_token().unwrap_or(None);
        self.word = match self.token {
            Some(token) if token.lexeme == Lexeme::Word => Word::of(token.bytes(self.text)),
            _ => Word::Other,
        };
    }

    pub fn lexeme(&self) -> Option<Lexeme> {
        self.token.map(|token| token.lexeme)
    }

    pub fn is_at(&self, lexeme: Lexeme) -> bool {
        self.lexeme() == Some(lexeme)
    }

    pub fn at_end(&self) -> bool {
        self.token.is_none()
    }

    pub fn at_equals(&self) -> bool {
        self.token.is_some_and(|token| token.is_operator(self.text, b"="))
    }

    /// The token after this one.
    pub fn ahead(&self) -> Cursor<'a> {
        let mut ahead = self.clone();
        ahead.advance();
        ahead
    }

    pub fn eat(&mut self, word: Word) -> bool {
        let found = self.word == word;
        if found {
            self.advance();
        }
        found
    }

    pub fn eat_lexeme(&mut self, lexeme: Lexeme) -> bool {
        let found = self.is_at(lexeme);
        if found {
            self.advance();
        }
        found
    }

    /// Takes an identifier.
    pub fn name(&mut self) -> Option<Box<str>> {
        let name = text_of(&self.token?.name(self.text)?);
        self.advance();
        Some(name)
    }

    /// From an opening parenthesis to after its closing one.
    pub fn skip_parentheses(&mut self) {
        let mut depth = 0usize;
        while let Some(lexeme) = self.lexeme() {
            match lexeme {
                Lexeme::Open => depth += 1,
                Lexeme::Close => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.advance();
            if depth == 0 {
                return;
            }
        }
    }
}
