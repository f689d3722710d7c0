//! What a statement does to the session that runs it: which settings it changes, what it prepares, and what it leaves
//! behind that ties the session to one server connection.
//!
//! Pure text in, facts out. It reads with PostgreSQL's lexical rules (`lexer`) and decides by tokens (`analysis`), always
//! on the safe side: what it cannot understand pins the session instead of losing state. Statements that PostgreSQL will
//! refuse anyway need no care: they have no effect.

pub mod analysis;
pub mod body;
mod cursor;
pub mod lexer;
mod pins;
mod quote;
mod set_config;
mod setting_value;
pub mod shape;
mod suspects;
mod words;

pub use pins::PinSet as Pins;
pub use quote::{quote_ident, quote_literal};
pub use setting_value::{schemas_of, setting_values};

/// Why a session must keep its server connection between transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
pub enum Pin {
    /// Temporary table, view, sequence, type or function (anything in `pg_temp`).
    Temporary,
    /// Session-level advisory lock.
    AdvisoryLock,
    /// LISTEN.
    Listen,
    /// A cursor WITH HOLD.
    HoldCursor,
    /// The session reads what its own sequences were last set to (`currval`, `lastval`).
    Sequence,
    /// The session asks for its own server process (`pg_backend_pid()`, `pg_prepared_statements`, …).
    Introspection,
    /// DO, CALL, or a function whose body can do any of these: it can be undone with DISCARD ALL.
    Opaque,
    /// LOAD, `setseed`, a session-level replication origin, a dblink connection, an unknown C function, …: only closing the server connection undoes it.
    Process,
    /// A text too long to be inspected.
    Oversized,
    /// `proxy.pool_mode = "session"`.
    SessionMode,
}

impl Pin {
    pub const ALL: [Pin; 10] = [
        Pin::Temporary,
        Pin::AdvisoryLock,
        Pin::Listen,
        Pin::HoldCursor,
        Pin::Sequence,
        Pin::Introspection,
        Pin::Opaque,
        Pin::Process,
        Pin::Oversized,
        Pin::SessionMode,
    ];

    /// The word shown by `SHOW CLIENTS`.
    pub fn as_str(self) -> &'static str {
        match self {
            Pin::Temporary => "temporary object",
            Pin::AdvisoryLock => "advisory lock",
            Pin::Listen => "listen",
            Pin::HoldCursor => "cursor with hold",
            Pin::Sequence => "sequence memory",
            Pin::Introspection => "looks at its own server process",
            Pin::Opaque => "opaque statement",
            Pin::Process => "state in the server process",
            Pin::Oversized => "statement too large to inspect",
            Pin::SessionMode => "session mode",
        }
    }
}

/// What the proxy must know of one query string (a simple Query, or the text of a Parse).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Analysis {
    /// One entry for each statement PostgreSQL will answer with CommandComplete, in order; empty statements between
    /// semicolons have none.
    pub statements: smallvec::SmallVec<[Statement; 1]>,
}

/// One statement: what it is, and what it may leave behind whatever its kind.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Statement {
    pub kind: Kind,
    /// Pins that last even if the transaction is rolled back or the statement fails (advisory locks, opaque bodies).
    pub pins: Pins,
    /// Pins that the end of the transaction in ROLLBACK undoes (temporary table, LISTEN, hold cursor).
    pub pins_at_commit: Pins,
    /// The statement may have ended a pin: worth asking the server what is left (unlock, DROP, CLOSE, UNLISTEN).
    pub may_unpin: bool,
    /// DDL: results of statements prepared before may change their shape. Set for every CREATE/ALTER/DROP/… and for
    /// what may hide one (DO, CALL).
    pub is_ddl: bool,
    /// The facts of `catalog` may be out of date once this has run.
    pub changes_facts: bool,
    /// COMMIT AND CHAIN: the next block begins with the end of this one.
    pub chains: bool,
}

/// The statements pgbaton acts on. Names are folded as PostgreSQL folds them (unquoted to lower case).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Kind {
    #[default]
    Plain,
    /// BEGIN, START TRANSACTION
    Begin,
    /// COMMIT, END
    Commit,
    /// ROLLBACK, ABORT
    Rollback,
    PrepareTransaction,
    Savepoint(Box<str>),
    RollbackTo(Box<str>),
    Release(Box<str>),
    /// SET at session level. `name` is the setting (`timezone` for SET TIME ZONE, `client_encoding` for SET NAMES, `role`,
    /// `session_authorization`, `default_transaction_…` bundle for SESSION CHARACTERISTICS as
    /// `session characteristics`); `text` is the statement as the client wrote it, to be said again on another server.
    /// Also `SELECT set_config('name', 'value', false)` when it is nothing but that.
    Set {
        name: Box<str>,
        text: Box<[u8]>,
    },
    /// SET LOCAL, in all its spellings: until the end of the transaction names and literals may mean something else.
    SetLocal,
    /// `SELECT set_config($1, $2, $3)` in the extended protocol: values come with Bind.
    SetConfig {
        name: Argument,
        value: Argument,
        is_local: Argument,
    },
    /// RESET name; SET name TO DEFAULT.
    Reset(Box<str>),
    ResetAll,
    /// SQL PREPARE; `text` is the whole statement.
    Prepare {
        name: Box<str>,
        text: Box<[u8]>,
    },
    /// SQL EXECUTE (also inside EXPLAIN and CREATE TABLE AS).
    Execute(Box<str>),
    Deallocate(Box<str>),
    DeallocateAll,
    DiscardAll,
    DiscardPlans,
    DiscardSequences,
    DiscardTemp,
    Unlisten,
    /// A statement that needs other connections to these databases to be gone: DROP DATABASE, ALTER DATABASE … RENAME or
    /// SET TABLESPACE, CREATE DATABASE … TEMPLATE. Idle pooled connections to them are closed first.
    NeedsDatabaseEmpty(Vec<Box<str>>),
    /// ALTER ROLE/USER/DATABASE … SET or RESET, ALTER SYSTEM: what a new connection starts with has changed.
    ChangesDefaults,
}

/// An argument of `set_config`: written out, or parameter number `n` (from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    Literal(Box<str>),
    Parameter(u16),
}

/// Names in one database whose use may leave session state behind, found by `catalog`: functions by name, and everything
/// that reaches one of them (views, tables with such triggers or defaults, operators, types). A statement that mentions
/// such a name in any position gets the pin. Names are as stored in the catalog (already folded), without schema.
#[derive(Clone, Debug, Default)]
pub struct Suspects {
    pub names: hashbrown::HashMap<Box<str>, Pins, foldhash::fast::RandomState>,
    /// Operator symbols, for example `@+@`.
    pub operators: hashbrown::HashMap<Box<str>, Pins, foldhash::fast::RandomState>,
    /// Pins for any DDL at all (an event trigger with an opaque function).
    pub any_ddl: Pins,
}

/// What the lexer must know of the session to read its texts as the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// `standard_conforming_strings`: when off, a backslash escapes in plain '…' too.
    pub standard_conforming_strings: bool,
    /// The client encoding may hold bytes below 0x80 inside a character (SJIS, BIG5, GBK, UHC, GB18030, JOHAB).
    pub unsafe_encoding: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Dialect { standard_conforming_strings: true, unsafe_encoding: false }
    }
}
