//! One client's side of the protocol as a pure state machine: which replies are due, where the transaction stands, what
//! the session has set, prepared and left behind.
//!
//! It is given bytes and answers with bytes to pass on; it never does I/O and knows no clock. `relay` moves the bytes,
//! `mod.rs` acts on the steps. The order of everything hangs on one queue: each message sent to the server that will be
//! answered has an [`Expect`] in it, and replies are matched against its front. An injected message is an entry marked
//! `silent`, a reply of our own is a [`Due::Local`] that is said when its turn comes.
//!
//! ```text
//!                 Query, Parse, … (needs a server)            ReadyForQuery 'I', queue empty, no pin
//!   detached ───────────────────────────────────► attached ───────────────────────────────────────► detached
//!                                                  │  ▲
//!                      ErrorResponse to Parse … ───┘  └─── Sync                (discarding: frames up to Sync dropped)
//! ```

mod before;
mod block;
mod client;
pub mod commit;
mod heal;
pub mod lost;
mod place;
pub mod plan;
mod sequences;
mod server;
mod standby;
mod statements;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use block::Block;
use commit::Commit;
use hashbrown::HashMap;
use plan::{Demand, Why};

use super::prepared::Registry;
use super::verdicts::{Encoding, Verdicts};
use crate::pool::memory::{Image, MANY, Memory, Parameters, Prepared};
use crate::route::names::{Names, Path};
use crate::route::{Class, Target, Verdict};
use crate::sql::{Analysis, Dialect, Kind, Pin, Pins, Statement, Suspects, quote_literal};
use crate::wire::frame::{self, Malformed};
use crate::wire::message;

/// How many replies may be due at once. A client that pipelines more is read further when some have come; each entry
/// costs 32 bytes.
pub const MAX_PIPELINE: usize = 65_536;

/// What the machine may look up while it reads the client.
pub struct Context<'a> {
    pub suspects: &'a Suspects,
    pub registry: &'a Registry,
    pub ddl_generation: u64,
    /// A number for the role and the startup parameters: what they make of a text is shared with the same only.
    pub identity: u64,
    /// Texts longer than this pass uninspected and pin the session, in bytes.
    pub max_inspect: usize,
    /// Statements kept prepared on one server connection.
    pub max_prepared: usize,
    /// This application may ask for `currval` or `lastval`: remember who advanced a sequence.
    pub sequence_memory: bool,
    pub verdicts: &'a RefCell<Verdicts>,
    pub names: &'a Names,
    /// Grows when `names` change.
    pub names_version: u64,
    pub path: &'a Path,
    /// Stands for the database and the path.
    pub scope: u64,
    /// Reads may go to replicas at all.
    pub reads: bool,
    /// A COMMIT is preceded by the question for the transaction's id.
    pub ask_commits: bool,
    pub target: Target,
}

/// What a machine looks up where nothing is known and reads go nowhere.
#[derive(Default)]
pub struct Nothing {
    pub suspects: Suspects,
    pub registry: Registry,
    pub generation: u64,
    pub ask_commits: bool,
    verdicts: RefCell<Verdicts>,
    names: Names,
    path: Path,
}

impl Nothing {
    pub fn context(&self) -> Context<'_> {
        Context {
            suspects: &self.suspects,
            registry: &self.registry,
            ddl_generation: self.generation,
            identity: 0,
            max_inspect: 1 << 20,
            max_prepared: 3,
            sequence_memory: false,
            verdicts: &self.verdicts,
            names: &self.names,
            names_version: 0,
            path: &self.path,
            scope: 0,
            reads: false,
            ask_commits: self.ask_commits,
            target: Target::Auto,
        }
    }
}

/// Where reading the client stopped.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientStep {
    /// Everything whole was taken; more bytes are needed.
    More,
    /// The next message needs a server connection: see [`Machine::demand`] for which.
    NeedServer,
    /// The next messages must not run on the replica at hand, which is at rest.
    GiveBack,
    /// What comes next is a read for a replica: the connection to the primary is kept aside meanwhile.
    SetAside,
    /// The next message is `EXPLAIN ROUTE`, for the session to answer.
    Explain,
    /// Something must be done before the next message is taken; then call again.
    Before(Before),
    /// Too many replies are due; take the server's first.
    Full,
    /// The client said goodbye.
    Terminate,
}

/// What must be done, with the server connection at rest, before the next message may be taken.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Before {
    /// Close idle pooled connections to these databases.
    EmptyDatabases(Vec<Box<str>>),
    /// Give the client's statements their own names on this server.
    GoNative,
    /// Take a new server connection: this one's process shows traces that cannot be undone.
    FreshServer,
    /// Within the transaction that reset it, set application_name to the client's own.
    RestoreName,
    /// DISCARD SEQUENCES: what the connection remembers is another session's.
    ForgetSequences,
    /// The block, of which only the opening has run, is to be opened again on the primary; or on a replica.
    MoveToPrimary,
    MoveToReplica,
    /// Give `pgbaton.<name>` its value on the server, for the SHOW that asks for it.
    Publish(Box<str>),
}

/// Where reading the server stopped.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerStep {
    More,
    /// All replies are in and the transaction is over: the connection may be given back unless the session is pinned.
    Rest,
    /// A replica could not answer, the client has heard nothing yet: run it elsewhere. The SQLSTATE it gave.
    Heal([u8; 5]),
}

/// What happened on the way that others must hear of; taken and cleared by the session.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Happened {
    pub ddl: bool,
    pub facts_changed: bool,
    pub defaults_changed: bool,
    pub may_unpin: bool,
    /// A 25006 came back: the node may have changed its role.
    pub read_only_refusal: bool,
    /// currval or lastval was asked for.
    pub sequence_memory: bool,
    /// A transaction that has written was committed.
    pub committed: bool,
    /// A statement was sent that may advance a sequence, where that is of interest.
    pub may_have_advanced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tx {
    Idle,
    Block,
    Failed,
}

impl Tx {
    pub fn as_byte(self) -> u8 {
        match self {
            Tx::Idle => b'I',
            Tx::Block => b'T',
            Tx::Failed => b'E',
        }
    }
}

#[derive(Debug)]
struct Expect {
    due: Due,
    /// The client did not ask for this reply and does not get it.
    silent: bool,
}

#[derive(Debug)]
enum Due {
    Query(Option<Box<Running>>),
    Parse(Option<Box<Parsing>>),
    Bind,
    /// A statement whose shape becomes known by the reply; `None` for a portal.
    Describe(Option<Arc<Prepared>>),
    /// A Describe of our own that shows whether a statement still has the shape its clients know.
    Verify(Arc<Prepared>),
    /// A message sent to fail, in place of one that PostgreSQL would have refused; the body of its error.
    Refused(Box<[u8]>),
    Execute(Option<Arc<Statement>>),
    /// Our own, of the question for the transaction id.
    AskXid,
    /// The statement removed by it, to be put back if the Close is skipped after an error.
    Close(Option<Box<(Box<[u8]>, Arc<Prepared>)>>),
    Sync,
    FunctionCall,
    /// CopyDone or CopyFail: no reply of its own, but it bounds which Syncs a COPY swallows.
    CopyEnd,
    /// Of a statement made with SQL PREPARE.
    CloseSql(Box<str>),
    /// Put away to make room, and still there if the Close is skipped.
    Evict(Arc<Prepared>),
    /// A simple query sent to fail, in place of one that must not run here; the body of its error.
    RefusedQuery(Box<[u8]>),
    /// Said by us. With it, what a name was before, to be put back if this is skipped after an error.
    Local(&'static [u8], Option<Box<(Box<[u8]>, Option<Arc<Prepared>>)>>),
}

/// A simple query whose statements have effects, and which of them answers next.
#[derive(Debug)]
struct Running {
    analysis: Analysis,
    next: usize,
}

#[derive(Debug)]
struct Parsing {
    /// The client's name for it; `None` for one we injected.
    name: Option<Box<[u8]>>,
    id: u64,
}

/// An operation of the open transaction that takes effect when it commits.
#[derive(Debug)]
enum Pending {
    Savepoint(Box<str>),
    Set(Box<str>, Box<[u8]>),
    Reset(Box<str>),
    ResetAll,
    Pin(Pins),
    /// application_name goes back to what the client said at startup.
    ResetName,
    Facts,
    Defaults,
}

/// The rest of a message whose beginning was already dealt with.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    bytes: usize,
    dropped: bool,
}

#[derive(Debug)]
struct Unnamed {
    token: u64,
    tail: Vec<u8>,
    effect: Option<Arc<Statement>>,
}

/// Where the session's statements run that nothing leads elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Home {
    Primary,
    /// A READ ONLY transaction of this session tripped over something that a replica does not have.
    PrimaryOnly,
    /// The session is a standby's: see `standby`.
    Standby,
}

pub struct Machine {
    session: u64,
    /// The process id the client was told, and that of the server it has now.
    pid: u32,
    server_pid: u32,
    queue: VecDeque<Expect>,
    status: Tx,
    /// Extended messages were sent since the last Sync.
    unsynced: bool,
    /// The server skips everything up to Sync after an error; so do we.
    discarding: bool,
    copy_in: bool,
    /// An ErrorResponse came since the last ReadyForQuery.
    failed: bool,
    fatal: bool,
    client_rest: Rest,
    server_rest: Rest,
    done_before: bool,
    /// A transaction block was lost and the client has not heard of it.
    lost_block: bool,
    /// application_name was reset in this transaction: what the server reports is its own, not the client's.
    name_reset: bool,
    /// … and that transaction has committed.
    name_changed: bool,
    /// What the client called itself at startup.
    own_name: Box<str>,
    /// A statement under way changes which names are prepared; what comes behind it waits for its answer.
    settling: bool,
    /// A statement is being verified: nothing more is taken from the client until it is.
    verifying: bool,
    /// The statement found to have changed its shape by the last verification.
    stale: Option<u64>,

    image: Arc<Image>,
    parameters: Arc<Parameters>,
    pending: Vec<Pending>,
    pins: Pins,
    native: bool,
    /// The last statement may have advanced a sequence (only kept up to date where sequence memory is wanted).
    advanced_last: bool,
    /// The open transaction has settings that are not (yet) the session's.
    unsettled: bool,
    /// The connection we hold was used by nobody else since we last did.
    undisturbed: bool,
    statements: HashMap<Box<[u8]>, Arc<Prepared>, foldhash::fast::RandomState>,
    unnamed: Option<Box<Unnamed>>,
    next_token: u64,
    /// The named statement the unnamed portal was bound to last.
    bound: Option<Arc<Prepared>>,
    /// Effects of bound portals, only of those that have any.
    portals: Vec<(Box<[u8]>, Arc<Statement>)>,
    manner: Manner,
    /// Where what comes next must run, once `is_planned`.
    demand: Demand,
    is_planned: bool,
    /// What was last judged, for people who ask why.
    verdict: Option<Arc<Verdict>>,
    /// The connection at hand is to a replica.
    on_replica: bool,
    /// What was planned last is a read, wherever it runs.
    is_read: bool,
    /// Nothing of what the server has answered has reached the client yet, and all of it may be asked again.
    is_armed: bool,
    has_shown_data: bool,
    home: Home,
    block: Block,
    commit: Commit,
    pub happened: Happened,
}

/// How the session's texts are to be read, and its transactions: kept with the parameters it was read from.
#[derive(Debug, Clone, Copy)]
struct Manner {
    dialect: Dialect,
    encoding: Encoding,
    /// `default_transaction_read_only`
    is_read_only: bool,
}

impl Manner {
    fn of(parameters: &Parameters) -> Manner {
        let encoding = parameters.get("client_encoding");
        Manner {
            dialect: Dialect {
                standard_conforming_strings: parameters.get("standard_conforming_strings") != Some("off"),
                unsafe_encoding: encoding.is_some_and(|name| {
                    matches!(name, "SJIS" | "SHIFT_JIS_2004" | "BIG5" | "GBK" | "UHC" | "GB18030" | "JOHAB")
                }),
            },
            encoding: match encoding {
                Some("UTF8") => Encoding::Utf8,
                Some("LATIN1") => Encoding::Latin1,
                _ => Encoding::Other,
            },
            is_read_only: parameters.get("default_transaction_read_only") == Some("on"),
        }
    }
}

fn is_plain(statement: &Statement) -> bool {
    statement.kind == Kind::Plain
        && statement.pins.is_empty()
        && statement.pins_at_commit.is_empty()
        && !statement.may_unpin
        && !statement.is_ddl
        && !statement.changes_facts
}

impl Machine {
    /// `pid` is the process id the client was told.
    pub fn new(session: u64, pid: u32, parameters: Arc<Parameters>, session_mode: bool) -> Self {
        let mut pins = Pins::EMPTY;
        let manner = Manner::of(&parameters);
        if session_mode {
            pins.insert(Pin::SessionMode);
        }
        Machine {
            session,
            pid,
            server_pid: pid,
            queue: VecDeque::new(),
            status: Tx::Idle,
            unsynced: false,
            discarding: false,
            copy_in: false,
            failed: false,
            fatal: false,
            client_rest: Rest::default(),
            server_rest: Rest::default(),
            done_before: false,
            lost_block: false,
            name_reset: false,
            name_changed: false,
            own_name: parameters.get("application_name").unwrap_or("").into(),
            settling: false,
            verifying: false,
            stale: None,
            image: Arc::default(),
            parameters,
            pending: Vec::new(),
            pins,
            native: false,
            advanced_last: false,
            unsettled: false,
            undisturbed: true,
            statements: HashMap::default(),
            unnamed: None,
            next_token: 0,
            bound: None,
            portals: Vec::new(),
            manner,
            demand: Demand::Primary(Why::SessionState),
            is_planned: false,
            verdict: None,
            on_replica: false,
            is_read: false,
            is_armed: false,
            has_shown_data: false,
            home: Home::Primary,
            block: Block::default(),
            commit: Commit::default(),
            happened: Happened::default(),
        }
    }

    fn manner(&self) -> Manner {
        self.manner
    }

    /// The server has reported a parameter.
    fn read_manner(&mut self) {
        self.manner = Manner::of(&self.parameters);
    }

    /// Where what comes next must run.
    pub fn demand(&self) -> Demand {
        self.demand
    }

    /// What was decided by the text: where it may run is another matter now.
    pub fn demand_primary(&mut self, why: Why) {
        self.demand = Demand::Primary(why);
        self.is_planned = true;
    }

    pub fn demand_replica(&mut self, why: Why) {
        self.demand = Demand::Replica(why);
        self.is_planned = true;
    }

    /// The class of what was last judged.
    pub fn class(&self) -> Option<Class> {
        self.verdict.as_ref().map(|verdict| verdict.class)
    }

    /// Whether what was just run may have changed data or shown some: SET and its like do neither.
    pub fn has_shown_data(&self) -> bool {
        self.has_shown_data
    }

    /// The verdict behind the last demand, where a text was judged.
    pub fn verdict(&self) -> Option<&Arc<Verdict>> {
        self.verdict.as_ref()
    }

    pub fn is_on_replica(&self) -> bool {
        self.on_replica
    }

    pub fn status(&self) -> Tx {
        self.status
    }

    pub fn pins(&self) -> Pins {
        self.pins
    }

    pub fn advanced_last(&self) -> bool {
        self.advanced_last
    }

    pub fn set_pins(&mut self, pins: Pins) {
        self.pins = pins;
    }

    /// The statement that gives the server the name this client had at startup, where RESET would find another.
    pub fn restore_name(&mut self) -> Vec<u8> {
        self.name_reset = false;
        format!("SET application_name TO {}", quote_literal(&self.own_name)).into_bytes()
    }

    pub fn parameters(&self) -> &Arc<Parameters> {
        &self.parameters
    }

    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// A FATAL error was passed to the client: the server is about to close the connection.
    pub fn saw_fatal(&self) -> bool {
        self.fatal
    }

    /// Nothing is due, nothing is half sent, no transaction is open.
    pub fn is_at_rest(&self) -> bool {
        self.queue.is_empty() && self.status == Tx::Idle && !self.unsynced && !self.discarding && self.whole()
    }

    /// Nothing is due or half sent, though a transaction may be open.
    pub fn is_quiet(&self) -> bool {
        self.queue.is_empty() && !self.unsynced && !self.discarding && self.whole()
    }

    /// No message is half sent to the server.
    pub fn is_whole(&self) -> bool {
        self.client_rest.bytes == 0
    }

    /// The pipeline is open: the server waits for a Sync that has not been sent.
    pub fn needs_sync(&self) -> bool {
        self.unsynced || self.discarding
    }

    fn whole(&self) -> bool {
        self.client_rest.bytes == 0 && self.server_rest.bytes == 0
    }

    pub fn copy_in(&self) -> bool {
        self.copy_in
    }

    /// How the client's texts are to be read.
    pub fn dialect(&self) -> Dialect {
        self.manner.dialect
    }

    // ---- taking and giving back a server connection ----

    /// The statements that must be run on a connection with this memory before the session may use it; empty on the
    /// path of nearly every query.
    #[inline]
    pub fn steps_to_attach(&self, memory: &Memory) -> Vec<Vec<u8>> {
        if Arc::ptr_eq(&memory.image, &self.image) && Arc::ptr_eq(&memory.parameters, &self.parameters) {
            return Vec::new();
        }
        let mut steps = Vec::new();
        if !memory.image.same_as(&self.image) {
            steps = memory.image.steps_to(&self.image);
        }
        // application_name is not part of what a connection is chosen by, so it follows the client here.
        // A RESET leaves what the connection was started with, which may be another client's.
        let is_reset = steps.iter().any(|step| matches!(&**step, b"RESET ALL" | b"RESET application_name"));
        let wanted = self.parameters.get("application_name").unwrap_or("");
        if is_reset || memory.parameters.get("application_name").unwrap_or("") != wanted {
            steps.push(format!("SET application_name TO {}", quote_literal(wanted)).into_bytes());
        }
        steps
    }

    /// The connection is ours now and has what [`steps_to_attach`](Self::steps_to_attach) asked for. Tells the client of
    /// parameters that differ from what it last heard.
    #[inline]
    pub fn attach(&mut self, memory: &mut Memory, server_pid: u32, on_replica: bool, to_client: &mut Vec<u8>) {
        self.server_pid = server_pid;
        self.on_replica = on_replica;
        self.is_armed = (self.is_guest() || self.is_planned && self.is_read) && self.status == Tx::Idle;
        self.has_shown_data = false;
        self.undisturbed = memory.last_session == self.session;
        memory.last_session = self.session;
        if memory.sole_session == 0 {
            memory.sole_session = self.session;
        } else if memory.sole_session != self.session {
            memory.sole_session = MANY;
        }
        if !Arc::ptr_eq(&memory.image, &self.image) {
            memory.image = self.image.clone();
        }
        if !Arc::ptr_eq(&memory.parameters, &self.parameters) {
            for (name, value) in memory.parameters.iter() {
                if self.parameters.get(name) != Some(value) {
                    message::parameter_status(to_client, name, value);
                }
            }
            self.parameters = memory.parameters.clone();
            self.read_manner();
        }
    }

    /// Puts the client's own names on the server: the texts to send as Parse, after DEALLOCATE ALL.
    pub fn go_native(&mut self, memory: &mut Memory) -> Vec<(Box<[u8]>, Arc<Prepared>)> {
        self.native = true;
        self.pins.insert(Pin::Introspection);
        memory.native = true;
        memory.forget_all();
        self.statements.iter().map(|(name, prepared)| (name.clone(), prepared.clone())).collect()
    }

    /// Refuses the client's next message with `problem`, taking it from `input`: what is answered when no server could be
    /// had. Returns the bytes taken (more may still come and be dropped).
    pub fn refuse(
        &mut self,
        input: &[u8],
        problem: &message::Problem,
        to_client: &mut Vec<u8>,
    ) -> Result<usize, Malformed> {
        let Some(head) = frame::client_header(input)? else { return Ok(0) };
        self.is_planned = false;
        self.verdict = None;
        self.done_before = false;
        self.lost_block = false;
        message::error(to_client, problem);
        match head.tag {
            b'Q' | b'F' => message::ready_for_query(to_client, self.status.as_byte()),
            _ => self.discarding = true,
        }
        let taken = head.total.min(input.len());
        self.client_rest = Rest { bytes: head.total - taken, dropped: true };
        Ok(taken)
    }
}
