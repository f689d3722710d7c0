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

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::prepared::Registry;
use super::sink::Sink;
use crate::pool::memory::{Image, Memory, PREFIX, Parameters, Prepared};
use crate::sql::{Analysis, Argument, Dialect, Kind, Pin, Pins, Statement, Suspects, analysis, quote_literal};
use crate::wire::fields;
use crate::wire::frame::{self, HEADER, Malformed};
use crate::wire::message;

/// How many replies may be due at once. A client that pipelines more is read further when some have come; each entry
/// costs 32 bytes.
pub const MAX_PIPELINE: usize = 65_536;

/// Names of portals and statements are at most 63 bytes in SQL, but the protocol sets no limit; this is ours.
const MAX_NAME: usize = 16 * 1024;

/// What the machine may look up while it reads the client.
pub struct Context<'a> {
    pub suspects: &'a Suspects,
    pub registry: &'a Registry,
    pub ddl_generation: u64,
    /// Texts longer than this pass uninspected and pin the session, in bytes.
    pub max_inspect: usize,
    /// Statements kept prepared on one server connection.
    pub max_prepared: usize,
    /// A client of this pool has asked for `currval` or `lastval`: remember who advanced a sequence.
    pub sequence_memory: bool,
}

/// Where reading the client stopped.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientStep {
    /// Everything whole was taken; more bytes are needed.
    More,
    /// The next message needs a server connection.
    NeedServer,
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
    /// DISCARD SEQUENCES: what the connection remembers is another session's.
    ForgetSequences,
}

/// Where reading the server stopped.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerStep {
    More,
    /// All replies are in and the transaction is over: the connection may be given back unless the session is pinned.
    Rest,
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
    Describe,
    Execute(Option<Arc<Statement>>),
    /// The statement removed by it, to be put back if the Close is skipped after an error.
    Close(Option<Box<(Box<[u8]>, Arc<Prepared>)>>),
    Sync,
    FunctionCall,
    /// CopyDone or CopyFail: no reply of its own, but it bounds which Syncs a COPY swallows.
    CopyEnd,
    /// Said by us.
    Local(&'static [u8]),
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

pub struct Machine {
    session: u64,
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

    image: Arc<Image>,
    parameters: Arc<Parameters>,
    pending: Vec<Pending>,
    pins: Pins,
    native: bool,
    /// The connection we hold was used by nobody else since we last did.
    undisturbed: bool,
    statements: HashMap<Box<[u8]>, Arc<Prepared>, foldhash::fast::RandomState>,
    unnamed: Option<Box<Unnamed>>,
    next_token: u64,
    /// Effects of bound portals, only of those that have any.
    portals: Vec<(Box<[u8]>, Arc<Statement>)>,
    pub happened: Happened,
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
    pub fn new(session: u64, parameters: Arc<Parameters>, session_mode: bool) -> Self {
        let mut pins = Pins::EMPTY;
        if session_mode {
            pins.insert(Pin::SessionMode);
        }
        Machine {
            session,
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
            image: Arc::default(),
            parameters,
            pending: Vec::new(),
            pins,
            native: false,
            undisturbed: true,
            statements: HashMap::default(),
            unnamed: None,
            next_token: 0,
            portals: Vec::new(),
            happened: Happened::default(),
        }
    }

    pub fn status(&self) -> Tx {
        self.status
    }

    pub fn pins(&self) -> Pins {
        self.pins
    }

    pub fn set_pins(&mut self, pins: Pins) {
        self.pins = pins;
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
        Dialect {
            standard_conforming_strings: self.parameters.get("standard_conforming_strings") != Some("off"),
            unsafe_encoding: self.parameters.get("client_encoding").is_some_and(|name| {
                matches!(name, "SJIS" | "SHIFT_JIS_2004" | "BIG5" | "GBK" | "UHC" | "GB18030" | "JOHAB")
            }),
        }
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
        let wanted = self.parameters.get("application_name").unwrap_or("");
        if memory.parameters.get("application_name").unwrap_or("") != wanted {
            steps.push(format!("SET application_name TO {}", quote_literal(wanted)).into_bytes());
        }
        steps
    }

    /// The connection is ours now and has what [`steps_to_attach`](Self::steps_to_attach) asked for. Tells the client of
    /// parameters that differ from what it last heard.
    #[inline]
    pub fn attach(&mut self, memory: &mut Memory, to_client: &mut Vec<u8>) {
        self.undisturbed = memory.last_session == self.session;
        memory.last_session = self.session;
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
        }
    }

    /// Puts the client's own names on the server: the texts to send as Parse, after DEALLOCATE ALL.
    pub fn go_native(&mut self, memory: &mut Memory) -> Vec<(Box<[u8]>, Arc<Prepared>)> {
        self.native = true;
        memory.native = true;
        memory.forget_all();
        self.statements.iter().map(|(name, prepared)| (name.clone(), prepared.clone())).collect()
    }

    /// The session was left in the middle of nothing: what it pinned, the server no longer has.
    pub fn server_lost(&mut self) {
        self.queue.clear();
        self.status = Tx::Idle;
        self.unsynced = false;
        self.copy_in = false;
        self.failed = false;
        self.pending.clear();
        self.portals.clear();
        self.server_rest = Rest::default();
        self.unnamed = None;
        // What is still to come of a message already begun has no server any more.
        self.client_rest.dropped = true;
    }

    /// What to say to the client when the server connection broke: the error once for each ReadyForQuery that is due.
    /// Afterwards the session is detached and at rest, or discarding up to the client's Sync.
    pub fn answer_lost(&mut self, problem: &message::Problem, to_client: &mut Vec<u8>) {
        let due = self
            .queue
            .iter()
            .filter(|expect| !expect.silent && matches!(expect.due, Due::Query(_) | Due::Sync | Due::FunctionCall));
        let owed = due.count();
        let unsynced = self.unsynced;
        self.server_lost();
        for _ in 0..owed {
            message::error(to_client, problem);
            message::ready_for_query(to_client, b'I');
        }
        if unsynced {
            message::error(to_client, problem);
            self.discarding = true;
        }
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
        message::error(to_client, problem);
        match head.tag {
            b'Q' | b'F' => message::ready_for_query(to_client, b'I'),
            _ => self.discarding = true,
        }
        let taken = head.total.min(input.len());
        self.client_rest = Rest { bytes: head.total - taken, dropped: true };
        Ok(taken)
    }

    // ---- what the client sends ----

    /// Reads the client's bytes. What is to be sent on goes into `to_server`, replies of our own into `to_client`.
    /// Returns how many bytes were taken and why it stopped.
    pub fn client(
        &mut self,
        input: &[u8],
        mut memory: Option<&mut Memory>,
        to_server: &mut Sink<'_>,
        to_client: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Result<(usize, ClientStep), Malformed> {
        let mut at = 0;
        loop {
            if self.client_rest.bytes > 0 {
                let taken = self.client_rest.bytes.min(input.len() - at);
                if !self.client_rest.dropped {
                    to_server.pass(at, at + taken);
                }
                at += taken;
                self.client_rest.bytes -= taken;
                if self.client_rest.bytes > 0 {
                    return Ok((at, ClientStep::More));
                }
            }
            let here = &input[at..];
            let Some(head) = frame::client_header(here)? else {
                return Ok((at, ClientStep::More));
            };
            if self.queue.len() >= MAX_PIPELINE {
                return Ok((at, ClientStep::Full));
            }
            let seen = &here[..head.total.min(here.len())];
            let whole = seen.len() == head.total;
            if head.tag == b'X' {
                return Ok((at, ClientStep::Terminate));
            }
            let drop_it = match head.tag {
                b'S' => false,
                b'd' | b'c' | b'f' | b'H' => self.discarding || memory.is_none(),
                _ => self.discarding,
            };
            if drop_it {
                at += seen.len();
                self.client_rest = Rest { bytes: head.total - seen.len(), dropped: true };
                continue;
            }
            if head.tag == b'd' {
                to_server.pass(at, at + seen.len());
                at += seen.len();
                self.client_rest = Rest { bytes: head.total - seen.len(), dropped: false };
                continue;
            }
            if head.tag == b'S' && memory.is_none() {
                if !whole {
                    return Ok((at, ClientStep::More));
                }
                self.discarding = false;
                self.unsynced = false;
                message::ready_for_query(to_client, self.status.as_byte());
                at += head.total;
                continue;
            }
            let Some(memory) = memory.as_deref_mut() else {
                return Ok((at, ClientStep::NeedServer));
            };
            // What must be seen whole waits for its last byte, if it is small enough to be held.
            let streams = match head.tag {
                b'Q' | b'P' => head.total > context.max_inspect,
                b'B' => head.total > context.max_inspect || fields::bind_names(&seen[HEADER..]).is_some(),
                b'F' => seen.len() >= HEADER + 4,
                _ => false,
            };
            if !whole && !streams {
                return Ok((at, ClientStep::More));
            }
            let taken = match self.message(head, seen, at, memory, to_server, to_client, context)? {
                Taken::Yes => seen.len(),
                Taken::NeedMore => return Ok((at, ClientStep::More)),
                Taken::Wait(before) => {
                    self.done_before = true;
                    return Ok((at, ClientStep::Before(before)));
                }
            };
            self.done_before = false;
            at += taken;
            self.client_rest = Rest { bytes: head.total - taken, dropped: false };
        }
    }

    fn message(
        &mut self,
        head: frame::Header,
        seen: &[u8],
        at: usize,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        to_client: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Result<Taken, Malformed> {
        let body = &seen[HEADER..];
        let pass = at..at + seen.len();
        match head.tag {
            b'Q' => return self.query(head, body, pass, memory, to_server, context),
            b'P' => return self.parse(head, body, pass, memory, to_server, to_client, context),
            b'B' => return self.bind(head, body, pass, memory, to_server, context),
            b'D' => {
                self.unsynced = true;
                match body.split_first().and_then(|(what, rest)| Some((*what, fields::cstr(rest)?.0))) {
                    Some((b'S', name)) => self.with_statement(b'D', name, pass, memory, to_server, context),
                    Some((_, _)) => to_server.pass(pass.start, pass.end),
                    None => return Err(Malformed::Body(b'D')),
                }
                self.expect(Due::Describe);
            }
            b'E' => {
                self.unsynced = true;
                let (portal, _) = fields::cstr(body).ok_or(Malformed::Body(b'E'))?;
                let effect = match self.portals.is_empty() {
                    true => None,
                    false => self.portals.iter().find(|(name, _)| &**name == portal).map(|(_, effect)| effect.clone()),
                };
                if let Some(statement) = &effect {
                    self.dispatch(statement);
                    if let Kind::Execute(name) | Kind::Deallocate(name) = &statement.kind {
                        self.give_real_name(
                            name.as_bytes(),
                            matches!(statement.kind, Kind::Execute(_)),
                            memory,
                            to_server,
                        );
                    }
                }
                to_server.pass(pass.start, pass.end);
                self.expect(Due::Execute(effect));
            }
            b'C' => {
                self.unsynced = true;
                let (what, name) = body
                    .split_first()
                    .and_then(|(what, rest)| Some((*what, fields::cstr(rest)?.0)))
                    .ok_or(Malformed::Body(b'C'))?;
                self.close(what, name, pass, memory, to_server, to_client);
            }
            b'F' => {
                // Large-object functions are the builtins called this way; what else it may be is not known by number.
                let Some((oid, _)) = body.split_first_chunk::<4>() else { return Err(Malformed::Body(b'F')) };
                let oid = u32::from_be_bytes(*oid);
                if oid >= 16_384 || FASTPATH_SESSION_FUNCTIONS.contains(&oid) {
                    self.pins.insert(Pin::Opaque);
                }
                self.unsynced = false;
                to_server.pass(pass.start, pass.end);
                self.expect(Due::FunctionCall);
            }
            b'H' => to_server.pass(pass.start, pass.end),
            b'S' => {
                self.discarding = false;
                if self.copy_in {
                    // PostgreSQL ignores Sync while it reads COPY data (CopyGetData), so no reply will come.
                    return Ok(Taken::Yes);
                }
                self.unsynced = false;
                to_server.pass(pass.start, pass.end);
                self.expect(Due::Sync);
            }
            b'c' | b'f' => {
                self.copy_in = false;
                to_server.pass(pass.start, pass.end);
                self.expect(Due::CopyEnd);
                self.settle_front(to_client);
            }
            // 'p' answers an authentication request; none is open. PostgreSQL calls this a protocol violation too.
            tag => return Err(Malformed::Tag(tag)),
        }
        Ok(Taken::Yes)
    }

    fn query(
        &mut self,
        head: frame::Header,
        body: &[u8],
        pass: std::ops::Range<usize>,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        context: &Context<'_>,
    ) -> Result<Taken, Malformed> {
        let mut running = None;
        if head.total > context.max_inspect {
            self.pins.insert(Pin::Oversized);
        } else {
            let text = body.strip_suffix(b"\0").ok_or(Malformed::Body(b'Q'))?;
            let analysis = analysis::analyze(text, self.dialect(), context.suspects);
            if context.sequence_memory && may_advance_sequence(text) {
                self.pins.insert(Pin::Sequence);
            }
            if !analysis.statements.iter().all(is_plain) {
                if let Some(before) = self.before(&analysis.statements) {
                    return Ok(Taken::Wait(before));
                }
                for statement in &analysis.statements {
                    self.dispatch(statement);
                    if let Kind::Execute(name) | Kind::Deallocate(name) = &statement.kind {
                        let executes = matches!(statement.kind, Kind::Execute(_));
                        if self.give_real_name(name.as_bytes(), executes, memory, to_server) {
                            message::sync(to_server.insert());
                            self.expect_silent(Due::Sync);
                        }
                    }
                }
                running = Some(Box::new(Running { analysis, next: 0 }));
            }
        }
        // A simple query drops the unnamed statement (exec_simple_query), and ends an unsynced pipeline.
        self.unnamed = None;
        memory.unnamed = 0;
        self.unsynced = false;
        to_server.pass(pass.start, pass.end);
        self.expect(Due::Query(running));
        Ok(Taken::Yes)
    }

    fn parse(
        &mut self,
        head: frame::Header,
        body: &[u8],
        pass: std::ops::Range<usize>,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        to_client: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Result<Taken, Malformed> {
        if head.total > context.max_inspect {
            // Not kept, so it cannot be prepared elsewhere: the session stays on this server, under the client's names.
            if !self.native && self.is_quiet() && !self.done_before {
                return Ok(Taken::Wait(Before::GoNative));
            }
            self.pins.insert(Pin::Oversized);
            self.unsynced = true;
            self.unnamed = None;
            memory.unnamed = 0;
            to_server.pass(pass.start, pass.end);
            self.expect(Due::Parse(None));
            return Ok(Taken::Yes);
        }
        let (name, tail) = fields::cstr(body).ok_or(Malformed::Body(b'P'))?;
        let (text, _) = fields::cstr(tail).ok_or(Malformed::Body(b'P'))?;
        if context.sequence_memory && may_advance_sequence(text) {
            self.pins.insert(Pin::Sequence);
        }
        if name.is_empty() || self.native {
            let effect = self.effect_of(text, context);
            if let Some(statement) = &effect
                && let Some(before) = self.before(std::slice::from_ref(&**statement))
            {
                return Ok(Taken::Wait(before));
            }
            self.unsynced = true;
            to_server.pass(pass.start, pass.end);
            if name.is_empty() {
                self.next_token += 1;
                let token = self.session << 24 | (self.next_token & 0xff_ffff);
                memory.unnamed = token;
                match &mut self.unnamed {
                    Some(known) => {
                        known.token = token;
                        known.tail.clear();
                        known.tail.extend_from_slice(tail);
                        known.effect = effect;
                    }
                    None => self.unnamed = Some(Box::new(Unnamed { token, tail: tail.to_vec(), effect })),
                }
                self.expect(Due::Parse(None));
            } else {
                let prepared = context.registry.unshared(tail, effect);
                let parsing = Parsing { name: Some(name.into()), id: prepared.id };
                self.statements.entry(name.into()).or_insert(prepared);
                self.expect(Due::Parse(Some(Box::new(parsing))));
            }
            return Ok(Taken::Yes);
        }
        if let Some(known) = self.statements.get(name).cloned() {
            // PostgreSQL refuses to prepare a name twice (42P05); let it say so, about the statement that is there.
            self.unsynced = true;
            self.ensure(&known, memory, to_server, context);
            message::raw(to_server.insert(), b'P', &[&known.server_name, b"\0", tail]);
            self.expect(Due::Parse(None));
            return Ok(Taken::Yes);
        }
        // Temporary objects can hide permanent ones of the same name, so a pinned session shares with nobody.
        let prepared = if self.pins.is_empty() {
            let (dialect, settings) = (self.dialect(), self.image.hash());
            context.registry.shared(tail, settings, context.ddl_generation, || effect(text, dialect, context.suspects))
        } else {
            context.registry.unshared(tail, self.effect_of(text, context))
        };
        if let Some(statement) = &prepared.effect
            && let Some(before) = self.before(std::slice::from_ref(&**statement))
        {
            return Ok(Taken::Wait(before));
        }
        self.unsynced = true;
        self.statements.insert(name.into(), prepared.clone());
        if memory.touch(prepared.id) {
            self.expect(Due::Local(&message::PARSE_COMPLETE));
            self.settle_front(to_client);
        } else {
            self.evict(memory, to_server, context);
            message::raw(to_server.insert(), b'P', &[&prepared.server_name, b"\0", tail]);
            let parsing = Parsing { name: Some(name.into()), id: prepared.id };
            memory.remember(prepared);
            self.expect(Due::Parse(Some(Box::new(parsing))));
        }
        Ok(Taken::Yes)
    }

    fn bind(
        &mut self,
        head: frame::Header,
        body: &[u8],
        pass: std::ops::Range<usize>,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        context: &Context<'_>,
    ) -> Result<Taken, Malformed> {
        let Some((portal, name, rest)) = fields::bind_names(body) else {
            return match body.len() > MAX_NAME || body.len() == head.total - HEADER {
                true => Err(Malformed::Body(b'B')),
                false => Ok(Taken::NeedMore),
            };
        };
        let prepared = if name.is_empty() { None } else { self.statements.get(name).cloned() };
        let effect = match (&prepared, &self.unnamed) {
            (Some(prepared), _) => prepared.effect.clone(),
            (None, Some(unnamed)) if name.is_empty() => unnamed.effect.clone(),
            _ => None,
        };
        let mut resolved = None;
        if let Some(statement) = effect {
            if let Some(before) = self.before(std::slice::from_ref(&*statement)) {
                return Ok(Taken::Wait(before));
            }
            if matches!(statement.kind, Kind::SetConfig { .. }) {
                if body.len() < head.total - HEADER && head.total <= context.max_inspect {
                    return Ok(Taken::NeedMore);
                }
                resolved =
                    Some(self.resolve_set_config(&statement, body.get(rest..).and_then(fields::bind_parameters)));
            } else {
                resolved = Some(statement);
            }
        }
        if !self.portals.is_empty() {
            self.portals.retain(|(known, _)| &**known != portal);
        }
        if let Some(statement) = resolved {
            self.portals.push((portal.into(), statement));
        }
        self.unsynced = true;
        match &prepared {
            Some(prepared) if !self.native => {
                self.ensure(prepared, memory, to_server, context);
                let length = (head.total - 1 - name.len() + prepared.server_name.len()) as u32;
                let out = to_server.insert();
                out.push(b'B');
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(portal);
                out.push(0);
                out.extend_from_slice(&prepared.server_name);
                out.push(0);
                to_server.pass(pass.start + HEADER + rest, pass.end);
            }
            _ => {
                if name.is_empty() {
                    self.ensure_unnamed(memory, to_server);
                }
                to_server.pass(pass.start, pass.end);
            }
        }
        self.expect(Due::Bind);
        Ok(Taken::Yes)
    }

    /// Describe of a statement, under the name it has on the server.
    fn with_statement(
        &mut self,
        tag: u8,
        name: &[u8],
        pass: std::ops::Range<usize>,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        context: &Context<'_>,
    ) {
        if name.is_empty() {
            self.ensure_unnamed(memory, to_server);
        } else if !self.native
            && let Some(prepared) = self.statements.get(name).cloned()
        {
            self.ensure(&prepared, memory, to_server, context);
            message::raw(to_server.insert(), tag, &[b"S", &prepared.server_name, b"\0"]);
            return;
        }
        to_server.pass(pass.start, pass.end);
    }

    fn close(
        &mut self,
        what: u8,
        name: &[u8],
        pass: std::ops::Range<usize>,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        to_client: &mut Vec<u8>,
    ) {
        if what == b'P' {
            self.portals.retain(|(known, _)| &**known != name);
        } else if name.is_empty() {
            self.unnamed = None;
            memory.unnamed = 0;
        } else if let Some(prepared) = self.statements.remove(name) {
            let removed = Some(Box::new((name.into(), prepared)));
            if self.native {
                to_server.pass(pass.start, pass.end);
                self.expect(Due::Close(removed));
            } else {
                // The server's copy is shared and stays; only the client's name for it goes.
                self.expect(Due::Local(&message::CLOSE_COMPLETE));
                self.settle_front(to_client);
            }
            return;
        } else if self.image.has_prepared(name)
            && let Ok(name) = std::str::from_utf8(name)
        {
            self.image = Arc::new(self.image.without_prepared(name));
        }
        to_server.pass(pass.start, pass.end);
        self.expect(Due::Close(None));
    }

    /// Makes sure the server has a shared statement, parsing it in the same write if not.
    fn ensure(
        &mut self,
        prepared: &Arc<Prepared>,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        context: &Context<'_>,
    ) {
        if memory.touch(prepared.id) {
            return;
        }
        self.evict(memory, to_server, context);
        message::raw(to_server.insert(), b'P', &[&prepared.server_name, b"\0", &prepared.tail]);
        memory.remember(prepared.clone());
        self.expect_silent(Due::Parse(Some(Box::new(Parsing { name: None, id: prepared.id }))));
    }

    fn evict(&mut self, memory: &mut Memory, to_server: &mut Sink<'_>, context: &Context<'_>) {
        if let Some(oldest) = memory.to_evict(context.max_prepared) {
            memory.forget(oldest.id);
            message::close(to_server.insert(), b'S', &oldest.server_name);
            self.expect_silent(Due::Close(None));
        }
    }

    /// The unnamed statement outlives its transaction, so it may have to be parsed again on another server, or another
    /// session's be removed.
    fn ensure_unnamed(&mut self, memory: &mut Memory, to_server: &mut Sink<'_>) {
        match &self.unnamed {
            Some(unnamed) if memory.unnamed != unnamed.token => {
                memory.unnamed = unnamed.token;
                message::raw(to_server.insert(), b'P', &[b"\0", &unnamed.tail]);
                self.expect_silent(Due::Parse(None));
            }
            None if memory.unnamed != 0 => {
                memory.unnamed = 0;
                message::close(to_server.insert(), b'S', b"");
                self.expect_silent(Due::Close(None));
            }
            _ => {}
        }
    }

    /// SQL that names a statement of the protocol's (`EXECUTE s1`, `DEALLOCATE s1`) finds it under the client's name.
    fn give_real_name(&mut self, name: &[u8], stays: bool, memory: &mut Memory, to_server: &mut Sink<'_>) -> bool {
        if self.native || self.image.has_prepared(name) || self.status == Tx::Failed {
            return false;
        }
        let Some(prepared) = self.statements.get(name).cloned() else { return false };
        if stays {
            self.pins.insert(Pin::Introspection);
        }
        memory.unnamed = 0;
        message::raw(to_server.insert(), b'P', &[name, b"\0", &prepared.tail]);
        self.expect_silent(Due::Parse(None));
        true
    }

    fn effect_of(&self, text: &[u8], context: &Context<'_>) -> Option<Arc<Statement>> {
        effect(text, self.dialect(), context.suspects)
    }

    /// Whether something must be done before these statements are sent; asked again afterwards, it says no.
    fn before(&mut self, statements: &[Statement]) -> Option<Before> {
        if self.done_before || !self.is_quiet() {
            return None;
        }
        for statement in statements {
            if let Kind::NeedsDatabaseEmpty(databases) = &statement.kind {
                return Some(Before::EmptyDatabases(databases.clone()));
            }
            let new = |pin: Pin| statement.pins.contains(pin) && !self.pins.contains(pin);
            if new(Pin::Introspection) && !self.native {
                return Some(Before::GoNative);
            }
            if new(Pin::Sequence) {
                self.happened.sequence_memory = true;
                if !self.undisturbed {
                    return Some(Before::ForgetSequences);
                }
            }
        }
        None
    }

    /// The statement is about to be sent: what it leaves behind even if it fails counts from now.
    fn dispatch(&mut self, statement: &Statement) {
        self.pins = self.pins.union(statement.pins);
        if statement.pins.contains(Pin::Sequence) {
            self.happened.sequence_memory = true;
        }
        if statement.is_ddl {
            self.happened.ddl = true;
        }
    }

    /// A `set_config` whose values came with Bind, turned into the SET it amounts to.
    fn resolve_set_config(&self, statement: &Statement, values: Option<Vec<Option<&[u8]>>>) -> Arc<Statement> {
        let opaque = || {
            let mut pins = statement.pins;
            pins.insert(Pin::Opaque);
            Arc::new(Statement { pins, ..Statement::default() })
        };
        let Kind::SetConfig { name, value, is_local } = &statement.kind else { return opaque() };
        let look_up = |argument: &Argument| -> Option<String> {
            match argument {
                Argument::Literal(text) => Some(text.to_string()),
                Argument::Parameter(number) => {
                    let bytes = (*values.as_ref()?.get(usize::from(*number).checked_sub(1)?)?)?;
                    Some(std::str::from_utf8(bytes).ok()?.to_owned())
                }
            }
        };
        let (Some(name), Some(value), Some(is_local)) = (look_up(name), look_up(value), look_up(is_local)) else {
            return opaque();
        };
        match is_local.to_ascii_lowercase().as_str() {
            "t" | "true" | "1" | "on" | "y" | "yes" | "\u{1}" => Arc::new(Statement::default()),
            "f" | "false" | "0" | "off" | "n" | "no" | "\0" => {
                let text =
                    format!("SELECT pg_catalog.set_config({}, {}, false)", quote_literal(&name), quote_literal(&value));
                let kind = Kind::Set { name: name.to_ascii_lowercase().into(), text: text.into_bytes().into() };
                Arc::new(Statement { kind, pins: statement.pins, ..Statement::default() })
            }
            _ => opaque(),
        }
    }

    fn expect(&mut self, due: Due) {
        self.queue.push_back(Expect { due, silent: false });
    }

    fn expect_silent(&mut self, due: Due) {
        self.queue.push_back(Expect { due, silent: true });
    }

    /// Says our own replies whose turn has come.
    fn settle_front(&mut self, to_client: &mut Vec<u8>) {
        while let Some(Expect { due: Due::Local(_) | Due::CopyEnd, .. }) = self.queue.front() {
            if let Some(Expect { due: Due::Local(bytes), .. }) = self.queue.pop_front() {
                to_client.extend_from_slice(bytes);
            }
        }
    }

    // ---- what the server sends ----

    /// Reads the server's bytes; what the client is to get goes into `to_client`.
    pub fn server(
        &mut self,
        input: &[u8],
        memory: &mut Memory,
        to_client: &mut Sink<'_>,
        max_inspect: usize,
    ) -> Result<(usize, ServerStep), Malformed> {
        let mut at = 0;
        loop {
            if self.server_rest.bytes > 0 {
                let taken = self.server_rest.bytes.min(input.len() - at);
                if !self.server_rest.dropped {
                    to_client.pass(at, at + taken);
                }
                at += taken;
                self.server_rest.bytes -= taken;
                if self.server_rest.bytes > 0 {
                    return Ok((at, ServerStep::More));
                }
            }
            let here = &input[at..];
            let Some(head) = frame::header(here)? else { break };
            let seen = &here[..head.total.min(here.len())];
            match head.tag {
                // Data: on its way without being looked at.
                b'D' | b'd' => {
                    let silent = self.queue.front().is_some_and(|expect| expect.silent);
                    if !silent {
                        to_client.pass(at, at + seen.len());
                    }
                    self.server_rest = Rest { bytes: head.total - seen.len(), dropped: silent };
                    at += seen.len();
                }
                _ if seen.len() < head.total && head.total <= max_inspect => break,
                _ => {
                    let keep = self.reply(head.tag, &seen[HEADER..], memory);
                    let dropped = match keep {
                        Keep::Pass => {
                            to_client.pass(at, at + seen.len());
                            false
                        }
                        Keep::Drop => true,
                        Keep::Instead(bytes) => {
                            to_client.insert().extend_from_slice(&bytes);
                            true
                        }
                    };
                    self.server_rest = Rest { bytes: head.total - seen.len(), dropped };
                    at += seen.len();
                    if let Some(Expect { due: Due::Local(_) | Due::CopyEnd, .. }) = self.queue.front() {
                        self.settle_front(to_client.insert());
                    }
                }
            }
        }
        let step = if at == input.len() && self.is_at_rest() { ServerStep::Rest } else { ServerStep::More };
        Ok((at, step))
    }

    fn reply(&mut self, tag: u8, body: &[u8], memory: &mut Memory) -> Keep {
        let silent = self.queue.front().is_some_and(|expect| expect.silent);
        let keep = if silent { Keep::Drop } else { Keep::Pass };
        match tag {
            b'1' | b'2' | b'3' | b's' => {
                self.queue.pop_front();
            }
            b'T' | b'n' => {
                if let Some(Expect { due: Due::Describe, .. }) = self.queue.front() {
                    self.queue.pop_front();
                }
            }
            b'C' => match self.queue.front_mut() {
                Some(Expect { due: Due::Execute(_), .. }) => {
                    if let Some(Expect { due: Due::Execute(Some(statement)), .. }) = self.queue.pop_front() {
                        self.completed(&statement, body, memory);
                    }
                }
                Some(Expect { due: Due::Query(Some(running)), .. }) => {
                    let statement = running.analysis.statements.get_mut(running.next).map(std::mem::take);
                    running.next += 1;
                    if let Some(statement) = statement {
                        self.completed(&statement, body, memory);
                    }
                }
                _ => {}
            },
            b'I' => {
                if let Some(Expect { due: Due::Execute(_), .. }) = self.queue.front() {
                    self.queue.pop_front();
                }
            }
            b'G' => self.copy_begins(),
            b'E' => return self.error(body, silent, memory),
            b'Z' => return self.ready(body, memory, silent),
            b'S' => return self.parameter(body, memory, silent),
            // Not an answer to anything: it concerns the client even between our own statements.
            b'A' => return Keep::Pass,
            _ => {}
        }
        keep
    }

    fn ready(&mut self, body: &[u8], memory: &mut Memory, silent: bool) -> Keep {
        match self.queue.front() {
            Some(Expect { due: Due::Query(_) | Due::Sync | Due::FunctionCall, .. }) => {
                self.queue.pop_front();
            }
            // One too many can only follow a COPY that failed before it had read a Sync: pass it on as it is.
            _ => return Keep::Pass,
        }
        self.status = match body.first() {
            Some(b'T') => Tx::Block,
            Some(b'E') => Tx::Failed,
            _ => Tx::Idle,
        };
        self.copy_in = false;
        if self.status == Tx::Idle {
            if self.failed {
                self.pending.clear();
            } else if !self.pending.is_empty() {
                self.commit();
            }
            if !self.portals.is_empty() && !silent {
                self.portals.clear();
            }
            if !Arc::ptr_eq(&memory.image, &self.image) {
                memory.image = self.image.clone();
            }
        }
        self.failed = false;
        if silent { Keep::Drop } else { Keep::Pass }
    }

    fn error(&mut self, body: &[u8], silent: bool, memory: &mut Memory) -> Keep {
        if fields::error_field(body, b'V').or(fields::error_field(body, b'S')) == Some(b"FATAL")
            || fields::error_field(body, b'V') == Some(b"PANIC")
        {
            self.fatal = true;
            return Keep::Pass;
        }
        self.failed = true;
        if fields::error_field(body, b'C') == Some(b"25006") {
            self.happened.read_only_refusal = true;
        }
        // An injected message is alone up to its own Sync: the client's statement then says itself what is wrong.
        let mut hidden = silent;
        let extended = !matches!(
            self.queue.front(),
            None | Some(Expect { due: Due::Query(_) | Due::Sync | Due::FunctionCall, .. })
        );
        if extended {
            if self.copy_in {
                // Whether a Sync sent ahead was eaten by the COPY cannot be known now; stay on this server.
                self.pins.insert(Pin::Process);
            }
            while self.queue.front().is_some_and(|expect| !matches!(expect.due, Due::Sync)) {
                let skipped = self.queue.pop_front();
                self.undo(skipped, memory);
            }
            match self.queue.front() {
                Some(sync) => hidden &= sync.silent,
                None => {
                    self.discarding = true;
                    hidden = false;
                }
            }
        }
        self.copy_in = false;
        if hidden {
            self.failed = false;
            return Keep::Drop;
        }
        self.translate_names(body)
    }

    /// A message the server skipped after an error did not happen.
    fn undo(&mut self, skipped: Option<Expect>, memory: &mut Memory) {
        match skipped.map(|expect| expect.due) {
            Some(Due::Parse(Some(parsing))) => {
                memory.forget(parsing.id);
                if let Some(name) = parsing.name
                    && self.statements.get(&name).is_some_and(|prepared| prepared.id == parsing.id)
                {
                    self.statements.remove(&name);
                }
            }
            Some(Due::Parse(None)) => {
                memory.unnamed = 0;
                self.unnamed = None;
            }
            Some(Due::Close(Some(removed))) => {
                let (name, prepared) = *removed;
                self.statements.insert(name, prepared);
            }
            _ => {}
        }
    }

    /// Errors that name a statement name it as the client does.
    fn translate_names(&self, body: &[u8]) -> Keep {
        let Some(at) = memchr::memmem::find(body, PREFIX.as_bytes()) else { return Keep::Pass };
        let digits = &body[at + PREFIX.len()..];
        let length = digits.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let server_name = &body[at..at + PREFIX.len() + length];
        let own = self.statements.iter().find(|(_, prepared)| &*prepared.server_name == server_name);
        let Some((name, _)) = own else { return Keep::Pass };
        let mut bytes = Vec::new();
        message::raw(&mut bytes, b'E', &[&body[..at], name, &body[at + server_name.len()..]]);
        Keep::Instead(bytes)
    }

    fn parameter(&mut self, body: &[u8], memory: &mut Memory, silent: bool) -> Keep {
        let Some((name, value)) = fields::parameter_status(body) else { return Keep::Pass };
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else { return Keep::Pass };
        let together = Arc::ptr_eq(&memory.parameters, &self.parameters);
        Arc::make_mut(&mut memory.parameters).set(name, value);
        if silent {
            return Keep::Drop;
        }
        // After RESET the server goes back to the name it was started with; the client's own is another.
        if name == "application_name" && self.is_resetting() {
            return Keep::Drop;
        }
        if together {
            self.parameters = memory.parameters.clone();
        } else {
            Arc::make_mut(&mut self.parameters).set(name, value);
        }
        Keep::Pass
    }

    fn is_resetting(&self) -> bool {
        let kind = match self.queue.front().map(|expect| &expect.due) {
            Some(Due::Execute(Some(statement))) => &statement.kind,
            Some(Due::Query(Some(running))) => match running.analysis.statements.get(running.next) {
                Some(statement) => &statement.kind,
                None => return false,
            },
            _ => return false,
        };
        matches!(kind, Kind::Reset(_) | Kind::ResetAll | Kind::DiscardAll)
    }

    /// COPY FROM STDIN begins: Syncs sent ahead of the data are ignored by the server (libpq sends one).
    fn copy_begins(&mut self) {
        self.copy_in = true;
        let mut at = 1;
        while at < self.queue.len() {
            match self.queue[at].due {
                Due::Sync => {
                    self.queue.remove(at);
                    self.unsynced = true;
                }
                Due::CopyEnd => {
                    self.copy_in = false;
                    break;
                }
                _ => at += 1,
            }
        }
        if self.queue.iter().skip(at).any(|expect| matches!(expect.due, Due::Sync)) {
            self.unsynced = false;
        }
    }

    /// A statement with effects has succeeded.
    fn completed(&mut self, statement: &Statement, body: &[u8], memory: &mut Memory) {
        let tag = fields::command_tag(body);
        if statement.is_ddl {
            self.happened.ddl = true;
        }
        if statement.changes_facts {
            self.pending.push(Pending::Facts);
        }
        if statement.may_unpin {
            self.happened.may_unpin = true;
        }
        if !statement.pins_at_commit.is_empty() {
            self.pending.push(Pending::Pin(statement.pins_at_commit));
        }
        match &statement.kind {
            Kind::Plain | Kind::Begin | Kind::Execute(_) | Kind::NeedsDatabaseEmpty(_) | Kind::Unlisten => {}
            Kind::SetConfig { .. } | Kind::DiscardPlans => {}
            Kind::Commit | Kind::Rollback | Kind::PrepareTransaction => match tag {
                b"COMMIT" | b"PREPARE TRANSACTION" => self.commit(),
                _ => self.pending.clear(),
            },
            Kind::Savepoint(name) => self.pending.push(Pending::Savepoint(name.clone())),
            Kind::RollbackTo(name) => {
                if let Some(at) = self.savepoint(name) {
                    self.pending.truncate(at + 1);
                }
                // The block is usable again, so what follows counts.
                self.failed = false;
            }
            Kind::Release(name) => {
                if let Some(at) = self.savepoint(name) {
                    let mut position = 0;
                    self.pending.retain(|pending| {
                        let keep = position < at || !matches!(pending, Pending::Savepoint(_));
                        position += 1;
                        keep
                    });
                }
            }
            // Follows the client by its reported value.
            Kind::Set { name, .. } if &**name == "application_name" => {}
            Kind::Set { name, text } => self.pending.push(Pending::Set(name.clone(), text.clone())),
            Kind::Reset(name) => self.pending.push(Pending::Reset(name.clone())),
            Kind::ResetAll => self.pending.push(Pending::ResetAll),
            Kind::Prepare { name, text } => self.image = Arc::new(self.image.with_prepared(name, text)),
            Kind::Deallocate(name) => {
                if self.statements.remove(name.as_bytes()).is_none() {
                    self.image = Arc::new(self.image.without_prepared(name));
                }
            }
            Kind::DeallocateAll => {
                self.statements.clear();
                memory.forget_all();
                self.image = Arc::new(self.image.without_any_prepared());
            }
            Kind::DiscardAll => {
                self.statements.clear();
                self.unnamed = None;
                self.image = Arc::default();
                self.pending.clear();
                self.native = false;
                memory.discarded();
                memory.last_session = self.session;
                for pin in Pin::ALL {
                    if !matches!(pin, Pin::Process | Pin::SessionMode) {
                        self.pins.remove(pin);
                    }
                }
            }
            Kind::DiscardSequences => self.pins.remove(Pin::Sequence),
            Kind::DiscardTemp => self.happened.may_unpin = true,
            Kind::ChangesDefaults => self.pending.push(Pending::Defaults),
        }
    }

    fn savepoint(&self, name: &str) -> Option<usize> {
        self.pending.iter().rposition(|pending| matches!(pending, Pending::Savepoint(known) if &**known == name))
    }

    /// The transaction has committed: what it set is the session's.
    fn commit(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Savepoint(_) => {}
                Pending::Set(name, text) => self.image = Arc::new(self.image.with_setting(&name, &text)),
                Pending::Reset(name) => self.image = Arc::new(self.image.without_setting(&name)),
                Pending::ResetAll => self.image = Arc::new(self.image.without_settings()),
                Pending::Pin(pins) => self.pins = self.pins.union(pins),
                Pending::Facts => self.happened.facts_changed = true,
                Pending::Defaults => self.happened.defaults_changed = true,
            }
        }
    }
}

enum Taken {
    Yes,
    NeedMore,
    Wait(Before),
}

enum Keep {
    Pass,
    Drop,
    Instead(Vec<u8>),
}

/// pg_advisory_lock and its kin, set_config: the builtins that change a session when called by number
/// (pg_proc.dat of PostgreSQL 14 to 18).
const FASTPATH_SESSION_FUNCTIONS: [u32; 9] = [2078, 2880, 2881, 2882, 2883, 2884, 2886, 2887, 2888];

fn effect(text: &[u8], dialect: Dialect, suspects: &Suspects) -> Option<Arc<Statement>> {
    let statement = analysis::analyze(text, dialect, suspects).statements.into_iter().next()?;
    (!is_plain(&statement)).then(|| Arc::new(statement))
}

/// Whether a text can advance a sequence: only asked in pools whose clients use currval or lastval.
fn may_advance_sequence(text: &[u8]) -> bool {
    let first: Vec<u8> = text.trim_ascii_start().iter().take(7).map(u8::to_ascii_lowercase).collect();
    let reads = first.starts_with(b"select") || first.starts_with(b"show") || first.starts_with(b"begin");
    let names = memchr::memmem::find(text, b"nextval").or_else(|| memchr::memmem::find(text, b"setval")).is_some();
    names || !(reads || first.starts_with(b"commit") || first.starts_with(b"rollbac") || first.starts_with(b"set "))
}
