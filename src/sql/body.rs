//! What the body of a stored function can do to the session that calls it. The catalog asks; the same lexer and the same
//! judgement as for statements answer, so that a function is suspect exactly when its statements would be.

use super::analysis::{Reading, analyze_as};
use super::lexer::{Lexeme, Lexer, Refused};
use super::words::{Mention, Word};
use super::{Dialect, Kind, Pin, Pins, Statement, Suspects};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Language {
    /// A list of SQL statements.
    Sql,
    /// PL/pgSQL, or the standard's `BEGIN ATOMIC … END`, which has the same outer shape.
    Plpgsql,
}

/// The pins a body needs by itself, without regard to what the functions it calls do.
pub fn pins_of_body(body: &str, language: Language) -> Pins {
    let nobody = Suspects::default();
    match language {
        Language::Sql => union(Reading::SqlBody, body, &nobody),
        Language::Plpgsql => plpgsql(body, &nobody),
    }
}

/// Calls `found` with every identifier, as the catalog spells it, and every operator of a body: what it may use.
pub fn each_name(body: &str, mut found: impl FnMut(&str)) {
    let text = body.as_bytes();
    let mut lexer = Lexer::new(text, Dialect::default());
    while let Ok(Some(token)) = lexer.next_token() {
        if let Some(name) = token.name(text) {
            found(&String::from_utf8_lossy(&name));
        } else if token.lexeme == Lexeme::Operator {
            found(&body[token.start..token.end]);
        }
    }
}

/// What a built-in function or view of this name does when something stored in the catalog uses it.
pub fn pins_of_builtin(name: &str) -> Pins {
    match Word::mention_of_name(name.as_bytes()) {
        Mention::Call(pin) | Mention::Name(pin) => Pins::of(pin),
        Mention::SetConfig => Pins::of(Pin::Opaque),
        Mention::CallMayUnpin | Mention::PgSettings | Mention::Nothing => Pins::EMPTY,
    }
}

/// The names for which `pins_of_builtin` says something.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    Word::mentioned_names().map(|(name, _)| name).filter(|name| !pins_of_builtin(name).is_empty())
}

/// A body is cut at the words and semicolons where a statement can begin. Cutting once too often, at the THEN of a CASE
/// expression, does no harm: the pieces are expressions then.
fn plpgsql(body: &str, suspects: &Suspects) -> Pins {
    let text = body.as_bytes();
    let mut lexer = Lexer::new(text, Dialect::default());
    let mut pins = Pins::EMPTY;
    let mut piece = 0;
    let mut depth = 0usize;
    let mut declares = false;
    let mut tokens_in_piece = 0usize;
    let mut is_assignment = false;
    let mut previous = Word::Other;
    let mut closes_label = false;
    let mut judge = |piece: &str, declares: bool, is_assignment: bool| {
        let reading = if declares || is_assignment { Reading::PlpgsqlExpression } else { Reading::PlpgsqlStatement };
        pins = pins.union(union(reading, piece, suspects));
    };
    let mut runs_text = false;
    loop {
        let token = match lexer.next_token() {
            Ok(Some(token)) => token,
            Ok(None) => break,
            // Not a body its language would run, or not in a way this can read.
            Err(Refused) => return Pins::of(Pin::Opaque),
        };
        let word = if token.lexeme == Lexeme::Word { Word::of(token.bytes(text)) } else { Word::Other };
        match token.lexeme {
            Lexeme::Open => depth += 1,
            Lexeme::Close => depth = depth.saturating_sub(1),
            Lexeme::ColonEquals => is_assignment |= tokens_in_piece == 1,
            Lexeme::Operator if tokens_in_piece == 1 && token.is_operator(text, b"=") => is_assignment = true,
            _ => {}
        }
        // EXECUTE of a text; not GRANT EXECUTE ON and CREATE TRIGGER … EXECUTE FUNCTION.
        if previous == Word::Execute {
            runs_text |= !matches!(word, Word::On | Word::Function | Word::Procedure);
        }
        let cuts = match word {
            Word::Begin | Word::Then | Word::Else | Word::Loop | Word::Declare => depth == 0,
            _ => token.lexeme == Lexeme::Semicolon && depth == 0,
        };
        if cuts {
            judge(&body[piece..token.start], declares, is_assignment);
            match word {
                // Only where a block can begin: elsewhere it is somebody's name, and must not hide what follows.
                Word::Declare => declares |= tokens_in_piece == 0 || closes_label,
                Word::Begin => declares = false,
                _ => {}
            }
            piece = token.end;
            tokens_in_piece = 0;
            is_assignment = false;
        } else {
            tokens_in_piece += 1;
        }
        closes_label = token.is_operator(text, b">>");
        previous = word;
    }
    judge(&body[piece..], declares, is_assignment);
    if runs_text {
        pins.insert(Pin::Opaque);
    }
    pins
}

fn union(reading: Reading, text: &str, suspects: &Suspects) -> Pins {
    let analysis = analyze_as(reading, text.as_bytes(), Dialect::default(), suspects);
    analysis.statements.iter().fold(Pins::EMPTY, |pins, statement| pins.union(pins_of_statement(statement)))
}

/// Inside a function nobody follows what a statement sets or prepares: it counts as opaque.
fn pins_of_statement(statement: &Statement) -> Pins {
    let pins = statement.pins.union(statement.pins_at_commit);
    match statement.kind {
        Kind::Set { .. }
        | Kind::SetConfig { .. }
        | Kind::Reset(_)
        | Kind::ResetAll
        | Kind::Prepare { .. }
        | Kind::Execute(_)
        | Kind::Deallocate(_)
        | Kind::DeallocateAll
        | Kind::DiscardAll
        | Kind::DiscardPlans
        | Kind::DiscardSequences
        | Kind::DiscardTemp
        | Kind::Unlisten => pins.union(Pins::of(Pin::Opaque)),
        // Transaction control of a procedure, END of a block, and what is the same for every session.
        Kind::Plain
        | Kind::Begin
        | Kind::Commit
        | Kind::Rollback
        | Kind::PrepareTransaction
        | Kind::Savepoint(_)
        | Kind::RollbackTo(_)
        | Kind::Release(_)
        | Kind::NeedsDatabaseEmpty(_)
        | Kind::SetLocal
        | Kind::ChangesDefaults => pins,
    }
}
