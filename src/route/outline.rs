//! What a text does, by PostgreSQL's own grammar alone, and which names decide the rest.

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
    /// COMMIT, ROLLBACK, SAVEPOINT, RELEASE, ROLLBACK TO; not those of two-phase commit.
    Transaction,
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
    let _ = text;
    Err(Unreadable("not built yet".into()))
}
