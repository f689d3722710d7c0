//! The verdict on a text: what its outline and the names of the database together say about where it may run.
//!
//! `weigh` looks up the names a statement mentions; here the kind of statement and that are put together, first for one
//! statement, then for all of a text.

mod weigh;

use super::names::{Names, Path};
use super::outline::{Act, Modes, Outline, Unreadable};
use weigh::{Weight, weigh};

/// Where a text may run.
///
/// Of several statements in one text the strongest decides, in this order, from weak to strong: `Empty`, `Read`, `SetLocal`,
/// `Cursor`, `SetReadOnly`, `Transaction`, `Session`, `Volatile`, `Differs`, `Write`. Beyond that:
///
/// - One or more whole blocks declared READ ONLY, with nothing but reads before and between them, are `BeginReadOnly`; in
///   them may be whatever such a block allows on a replica (`Volatile`, `SetLocal`, `Cursor`, savepoints). The last one may
///   be left open.
/// - Any other text in which something stands beside a BEGIN or an EXECUTE, and one that has something volatile beside the
///   end of a transaction or a change of the session, is a `Write`: what the parts mean depends on each other.
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

impl Class {
    /// By their numbers.
    pub const ALL: [Class; 15] = [
        Class::Empty,
        Class::Read,
        Class::Volatile,
        Class::Differs,
        Class::Write,
        Class::BeginReadOnly,
        Class::Begin,
        Class::BeginReadWrite,
        Class::SetReadOnly,
        Class::Transaction,
        Class::SetLocal,
        Class::Session,
        Class::Cursor,
        Class::Execute,
        Class::Unreadable,
    ];
}

/// The verdict on one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub class: Class,
    /// Of a text that is one SQL PREPARE or DECLARE: the class of what it prepares or declares.
    pub inner: Option<Class>,
    /// Of a text that is one EXECUTE. Where its arguments are no plain read, the class is theirs and not `Execute`.
    pub executes: Option<Box<str>>,
    /// Why, for people, the deciding one first: `calls public.audit(text), which is VOLATILE`, `FOR UPDATE`,
    /// `reads only`. At most eight.
    pub reasons: Vec<String>,
    /// A short word for counters, one of [`REASONS`].
    pub reason: &'static str,
    /// Texts that differ from this one in constants only may be judged otherwise.
    pub depends_on_constants: bool,
}

/// Every value that `Verdict::reason` can have.
pub const REASONS: [&str; 15] = [
    "empty",
    "read",
    "volatile",
    "differs",
    "unknown name",
    "setting",
    "no catalog",
    "write",
    "mixed",
    "begin",
    "transaction",
    "session",
    "cursor",
    "execute",
    "unreadable",
];

/// So many reasons are given at most.
const MOST_REASONS: usize = 8;

/// What the outlines of a text mean in a database with these names, for a session with this `search_path`.
pub fn judge(outlines: &Result<Vec<Outline>, Unreadable>, names: &Names, path: &Path) -> Verdict {
    let outlines = match outlines {
        Ok(outlines) => outlines.as_slice(),
        Err(Unreadable(why)) => {
            let why = format!("it could not be read: {why}");
            return Judged::new(Class::Unreadable, "unreadable", why).into_verdict(false);
        }
    };
    let depends_on_constants = outlines.iter().any(|outline| outline.depends_on_constants);
    let judged = match outlines {
        [] => Judged::new(Class::Empty, "empty", "there is nothing in it"),
        [one] => judge_one(one, names, path),
        several => judge_several(several, names, path),
    };
    judged.into_verdict(depends_on_constants)
}

/// The verdict on one statement.
struct Judged<'a> {
    class: Class,
    inner: Option<Class>,
    executes: Option<&'a str>,
    reason: &'static str,
    reasons: Vec<String>,
}

impl<'a> Judged<'a> {
    fn new(class: Class, reason: &'static str, why: impl Into<String>) -> Judged<'a> {
        Judged { class, inner: None, executes: None, reason, reasons: vec![why.into()] }
    }

    fn into_verdict(self, depends_on_constants: bool) -> Verdict {
        let Judged { class, inner, executes, reason, reasons } = self;
        Verdict { class, inner, executes: executes.map(Box::from), reasons, reason, depends_on_constants }
    }
}

impl From<Weight> for Judged<'_> {
    fn from(weight: Weight) -> Self {
        Judged { class: weight.class, inner: None, executes: None, reason: weight.reason, reasons: weight.reasons }
    }
}

fn judge_one<'a>(outline: &'a Outline, names: &Names, path: &Path) -> Judged<'a> {
    match &outline.act {
        Act::Read(_) => weigh(&outline.mentions, names, path).into(),
        Act::Write(why) => Judged::new(Class::Write, "write", *why),
        Act::Begin(modes) => judge_begin(*modes),
        Act::SetTransaction(modes) => judge_modes(*modes),
        Act::Transaction { .. } => Judged::new(Class::Transaction, "transaction", "it goes where the transaction is"),
        Act::SetLocal => Judged::new(Class::SetLocal, "transaction", "it goes where the transaction is"),
        Act::Session(what) => Judged::new(Class::Session, "session", format!("{what} changes the session")),
        Act::Show(setting) if weigh::is_alike_everywhere(setting) => Judged::new(Class::Read, "read", "reads only"),
        Act::Show(setting) => Judged::new(Class::Differs, "setting", weigh::may_differ(setting)),
        Act::Prepare(query) => {
            let inner = judge_one(query, names, path);
            let class = inner.class;
            let mut judged = Judged::new(Class::Session, "session", "PREPARE changes the session");
            judged.inner = Some(class);
            judged.reasons.extend(inner.reasons);
            judged.reasons.truncate(MOST_REASONS);
            judged
        }
        Act::Declare(query) => {
            let inner = judge_one(query, names, path);
            let class = inner.class;
            let mut judged = match class {
                Class::Read => Judged::new(Class::Cursor, "cursor", "it goes where the transaction is"),
                _ => inner,
            };
            judged.inner = Some(class);
            judged
        }
        Act::Execute(name) => {
            let executes = || Judged::new(Class::Execute, "execute", format!("executes the prepared statement {name}"));
            // Arguments that are constants need no names.
            let mut judged = match outline.mentions.is_empty() {
                true => executes(),
                false => match weigh(&outline.mentions, names, path) {
                    weight if weight.class == Class::Read => executes(),
                    // What runs beside the arguments is not known here, so they cannot be left to a replica at all.
                    weight => Judged { class: Class::Differs, ..weight.into() },
                },
            };
            judged.executes = Some(name);
            judged
        }
        Act::Cursor => Judged::new(Class::Cursor, "cursor", "it goes where the cursor is"),
    }
}

fn judge_begin(modes: Modes) -> Judged<'static> {
    match (modes.read_only, modes.serializable) {
        (_, Some(true)) => {
            Judged::new(Class::BeginReadWrite, "begin", "no standby offers transactions that are SERIALIZABLE")
        }
        (Some(false), _) => Judged::new(Class::BeginReadWrite, "begin", "the transaction is declared READ WRITE"),
        (Some(true), _) => Judged::new(Class::BeginReadOnly, "begin", "the transaction is declared READ ONLY"),
        (None, _) => Judged::new(Class::Begin, "begin", "the transaction is not declared READ ONLY"),
    }
}

fn judge_modes(modes: Modes) -> Judged<'static> {
    match (modes.read_only, modes.serializable) {
        (_, Some(true)) => {
            Judged::new(Class::Differs, "differs", "no standby offers transactions that are SERIALIZABLE")
        }
        (Some(false), _) => {
            Judged::new(Class::Differs, "differs", "no standby offers transactions that are READ WRITE")
        }
        (Some(true), _) => Judged::new(Class::SetReadOnly, "transaction", "the transaction is declared READ ONLY"),
        (None, _) => Judged::new(Class::SetLocal, "transaction", "it goes where the transaction is"),
    }
}

/// Where the statements of a text stand with regard to blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    /// After a BEGIN that has not said READ ONLY yet.
    Undecided,
    /// In a block that is declared READ ONLY.
    ReadOnly,
    /// Whatever this is, it is not a row of reads and blocks of reads.
    Lost,
}

impl Place {
    fn after(self, class: Class, act: &Act) -> Place {
        use Class::*;
        let ends = matches!(act, Act::Transaction { ends: true });
        match (self, class) {
            (Place::Outside, Empty | Read) => Place::Outside,
            (Place::Outside, BeginReadOnly) => Place::ReadOnly,
            (Place::Outside, Begin) => Place::Undecided,
            (Place::Undecided, SetReadOnly) => Place::ReadOnly,
            (Place::Undecided, SetLocal) => Place::Undecided,
            (Place::ReadOnly, Transaction) if ends => Place::Outside,
            (Place::ReadOnly, Empty | Read | Volatile | SetLocal | SetReadOnly | Cursor | Transaction) => {
                Place::ReadOnly
            }
            _ => Place::Lost,
        }
    }
}

fn judge_several<'a>(outlines: &'a [Outline], names: &Names, path: &Path) -> Judged<'a> {
    let mut place = Place::Outside;
    let mut has_block = false;
    let mut judged = Vec::with_capacity(outlines.len());
    let mut path = path;
    for outline in outlines {
        let one = judge_one(outline, names, path);
        place = place.after(one.class, &outline.act);
        has_block |= place != Place::Outside;
        // What is no plain read may change the search_path: SET LOCAL, set_config(), the end of a transaction.
        if !matches!(one.class, Class::Empty | Class::Read) {
            path = &Path::Unknown;
        }
        judged.push(one);
    }
    match place {
        Place::Outside if !has_block => strongest(judged),
        Place::Outside | Place::ReadOnly => {
            Judged::new(Class::BeginReadOnly, "begin", "the transaction is declared READ ONLY")
        }
        Place::Undecided | Place::Lost => match mixture(&judged, outlines) {
            Some(why) => Judged::new(Class::Write, "mixed", why),
            None => strongest(judged),
        },
    }
}

/// Why the strongest member does not say enough about a text that is no row of reads and blocks of reads.
fn mixture(judged: &[Judged<'_>], outlines: &[Outline]) -> Option<&'static str> {
    use Class::*;
    let has = |classes: &[Class]| judged.iter().any(|one| classes.contains(&one.class));
    // These say it themselves, and why.
    if has(&[Unreadable, Write, Differs]) {
        return None;
    }
    let ends = outlines.iter().any(|outline| matches!(outline.act, Act::Transaction { ends: true }));
    match () {
        () if has(&[BeginReadOnly, Begin, BeginReadWrite]) => Some("a BEGIN and more in one text"),
        () if judged.iter().any(|one| one.executes.is_some()) => Some("an EXECUTE and more in one text"),
        () if has(&[Volatile]) && (ends || has(&[Session, SetReadOnly])) => {
            Some("in one text it may write and changes the session or the transaction")
        }
        () => None,
    }
}

/// The order of classes within one text; see [`Class`].
fn strength(class: Class) -> u8 {
    match class {
        Class::Empty => 0,
        Class::Read => 1,
        Class::SetLocal => 2,
        Class::Cursor => 3,
        Class::SetReadOnly => 4,
        Class::Transaction => 5,
        Class::Session => 6,
        // Those four never stand beside others when it comes to this; see `mixture`.
        Class::Execute | Class::BeginReadOnly | Class::Begin | Class::BeginReadWrite => 7,
        Class::Volatile => 8,
        Class::Differs => 9,
        Class::Write => 10,
        Class::Unreadable => 11,
    }
}

fn strongest(mut judged: Vec<Judged<'_>>) -> Judged<'_> {
    // Stable: among equals the first one decides.
    judged.sort_by_key(|one| std::cmp::Reverse(strength(one.class)));
    let mut all = judged.into_iter();
    let Some(mut first) = all.next() else { return Judged::new(Class::Empty, "empty", "there is nothing in it") };
    // Of a text with several statements neither says anything.
    (first.inner, first.executes) = (None, None);
    for other in all.filter(|other| !matches!(other.class, Class::Empty | Class::Read)) {
        for reason in other.reasons {
            if first.reasons.len() < MOST_REASONS && !first.reasons.contains(&reason) {
                first.reasons.push(reason);
            }
        }
    }
    first
}

#[cfg(test)]
pub(super) mod tests;
