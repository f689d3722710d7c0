//! What a text does, by PostgreSQL's own grammar alone, and which names decide the rest.
//!
//! `statement` says which [`Act`] a statement is, `walk` decides about every kind of node the grammar has, `query`,
//! `expression` and `json` follow those that hold others. Whatever is not where it belongs makes the statement a write.

mod expression;
mod json;
mod mentions;
mod query;
mod statement;
mod walk;

/// Longer texts are not parsed: a parse costs some 60 ns per byte, and a worker serves other sessions as well.
pub const MAX_TEXT: usize = 256 * 1024;

/// How deep nodes may lie in one another. The decoder of the tree gives up at a hundred messages; this bound holds even
/// if it did not, so that no text can overflow a worker's stack.
const MAX_DEPTH: u32 = 128;

/// Of an error of the parser, so many characters are kept.
const MAX_MESSAGE: usize = 200;

/// One statement of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    pub act: Act,
    /// What it mentions, each once.
    pub mentions: Vec<Mention>,
    /// A constant in it decides about the route (`current_setting('…')`): texts that differ in constants only are not alike.
    pub depends_on_constants: bool,
}

/// What kind of statement it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// It only reads, if what it mentions does: SELECT, VALUES, TABLE, EXPLAIN of one, COPY (…) TO STDOUT. The text says
    /// how it is called.
    Read(&'static str),
    /// It writes or does something only a primary does; why, for people (`INSERT`, `WITH … DELETE`, `FOR UPDATE`,
    /// `SELECT INTO`, `a kind of statement this version does not know`).
    Write(&'static str),
    /// BEGIN, START TRANSACTION.
    Begin(Modes),
    /// SET TRANSACTION (not SESSION CHARACTERISTICS).
    SetTransaction(Modes),
    /// COMMIT, ROLLBACK, which end the block; SAVEPOINT, RELEASE, ROLLBACK TO, which do not. Not those of two-phase commit,
    /// and not AND CHAIN, which opens the next one.
    Transaction { ends: bool },
    /// SET LOCAL: within a block it goes where the block is.
    SetLocal,
    /// What changes the session and is remembered by it: SET, RESET, DISCARD, DEALLOCATE, LISTEN, UNLISTEN, NOTIFY, LOAD.
    Session(&'static str),
    /// SHOW of this setting (`all` for SHOW ALL).
    Show(Box<str>),
    /// SQL PREPARE: what it prepares.
    Prepare(Box<Outline>),
    /// EXECUTE, or EXPLAIN EXECUTE, of this prepared statement.
    Execute(Box<str>),
    /// DECLARE CURSOR: the query. WITH HOLD is a `Session` act.
    Declare(Box<Outline>),
    /// FETCH, MOVE, CLOSE: it goes where the cursor is.
    Cursor,
}

/// What is said of a transaction when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Modes {
    /// READ ONLY, READ WRITE, or nothing said.
    pub read_only: Option<bool>,
    /// ISOLATION LEVEL SERIALIZABLE, which no standby offers; or another level; or nothing said.
    pub serializable: Option<bool>,
}

/// A name whose meaning in the database decides where the statement may run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mention {
    /// A call with so many arguments. `constant` is the first argument where that is a string constant.
    Function {
        schema: Option<Box<str>>,
        name: Box<str>,
        arguments: u16,
        constant: Option<Box<str>>,
    },
    Relation {
        schema: Option<Box<str>>,
        name: Box<str>,
    },
    Operator {
        schema: Option<Box<str>>,
        symbol: Box<str>,
    },
    Type {
        schema: Option<Box<str>>,
        name: Box<str>,
    },
    /// `x.name`, which may be a column or, in functional notation, the call `name(x)`.
    Field(Box<str>),
}

/// Why a text has no outline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

/// The outlines of the statements in a text, in order; empty for an empty text. `text` must be what the server reads with
/// `standard_conforming_strings = on`.
pub fn outline(text: &str) -> Result<Vec<Outline>, Unreadable> {
    if text.len() > MAX_TEXT {
        return Err(Unreadable(format!("it is longer than {MAX_TEXT} bytes")));
    }
    if text.as_bytes().contains(&0) {
        return Err(Unreadable("it holds a NUL byte".into()));
    }
    // Besides decoding the tree, the crate makes lists of tables and functions, with code that panics on trees it does
    // not expect. Such a text has no outline; that is no reason to lose the connection.
    let parsed = std::panic::catch_unwind(|| pg_query::parse(text, 0));
    let parsed = match parsed {
        Ok(Ok(parsed)) => parsed.protobuf,
        Ok(Err(error)) => return Err(Unreadable(shortened(error.to_string()))),
        Err(_) => return Err(Unreadable("the parser gave up".into())),
    };
    parsed.stmts.iter().map(|raw| statement::outline_of(raw.stmt.as_deref())).collect()
}

fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests;
