//! The verdict on a text: what its outline and the names of the database together say about where it may run.

use super::names::{Names, Path};
use super::outline::{Outline, Unreadable};

/// Where a text may run. Of several statements in one text the strongest decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Class {
    /// Nothing in it: goes anywhere.
    Empty,
    /// Provably a read that means the same on a replica.
    Read,
    /// It may write, but in a transaction declared READ ONLY it cannot, and it would mean the same on a replica.
    Volatile,
    /// It means something else on a standby, fails there, or nobody can tell.
    Differs,
    Write,
    /// BEGIN … READ ONLY, of an isolation level that standbys offer; with a whole text, also with reads and the end behind it.
    BeginReadOnly,
    /// BEGIN that does not say READ ONLY or READ WRITE, and nothing a standby does not offer.
    Begin,
    /// BEGIN of any other kind: READ WRITE, SERIALIZABLE.
    BeginReadWrite,
    /// SET TRANSACTION … READ ONLY.
    SetReadOnly,
    /// COMMIT, ROLLBACK, SAVEPOINT …
    Transaction,
    /// SET LOCAL, and SET TRANSACTION that does not decide about read-only: goes where the block is.
    SetLocal,
    /// SET, RESET, PREPARE, DISCARD, LISTEN …: goes to the primary, and is remembered.
    Session,
    /// FETCH, MOVE, CLOSE: goes where the block is.
    Cursor,
    /// EXECUTE of a statement made by SQL PREPARE: `Verdict::executes` says which, that one's `Verdict::inner` says how.
    Execute,
    /// It could not be read.
    Unreadable,
}

/// The verdict on one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub class: Class,
    /// Of a text that is one SQL PREPARE or DECLARE: the class of what it prepares or declares.
    pub inner: Option<Class>,
    /// Of a text that is one EXECUTE.
    pub executes: Option<Box<str>>,
    /// Why, for people, the deciding one first: `calls public.audit(text), which is VOLATILE`, `FOR UPDATE`,
    /// `reads only`. At most eight.
    pub reasons: Vec<String>,
    /// A short word for counters, of a fixed set: `read`, `volatile`, `differs`, `unknown name`, `write`, …
    pub reason: &'static str,
    /// Texts that differ from this one in constants only may be judged otherwise.
    pub depends_on_constants: bool,
}

/// What the outlines of a text mean in a database with these names, for a session with this `search_path`.
pub fn judge(outlines: &Result<Vec<Outline>, Unreadable>, names: &Names, path: &Path) -> Verdict {
    let _ = (names, path);
    let reasons = match outlines {
        Err(Unreadable(reason)) => vec![format!("it could not be read: {reason}")],
        Ok(_) => Vec::new(),
    };
    Verdict {
        class: Class::Unreadable,
        inner: None,
        executes: None,
        reasons,
        reason: "unreadable",
        depends_on_constants: false,
    }
}
