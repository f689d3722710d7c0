//! The life of one client: enter, relay statements through server connections, leave nothing behind.
//!
//! `login` lets it in, `machine` (pure) knows its protocol and session state, `relay` moves the bytes, `taking` finds the
//! server connection for what comes next, `moving` deals with what interrupts it, `finish` cleans up. This file is the
//! frame: how a session begins, which step follows which, and what others must hear of.

pub mod clients;
pub mod doubt;
pub mod explain;
pub mod finish;
pub mod gate;
pub mod hold;
pub mod hypothetical;
mod known;
pub mod login;
mod losing;
pub mod machine;
mod moving;
pub mod prepared;
pub mod readers;
pub mod relay;
pub mod replication;
pub mod routes;
pub mod shared;
mod showing;
pub mod silent;
pub mod sink;
mod standby;
mod taking;
pub mod tally;
pub mod verdicts;
pub mod wishes;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::auth::Credential;
use crate::net::{Peer, Stream};
use crate::pool::memory::Parameters;
use crate::pool::{AcquireError, Lease, Pool, PoolKey, Startup, Want, connect::ConnectError};
use crate::route::balance::Strategy;
use crate::wire::message::{self, Problem};
use clients::{Arrival, Entrance, Registered};
use hold::Wait;
use login::Admitted;
use losing::Own;
use machine::Machine;
use machine::plan::Demand;
use readers::Freshness;
use relay::Step;
use shared::{Database, SequenceUse, Shared};
use wishes::Kept;

/// What the console's database is called: by its own name, and by that which PgBouncer's exporters ask for.
pub const CONSOLES: [&str; 2] = ["pgbaton", "pgbouncer"];

/// What a connection turned out to be, when it is not for a session to serve.
pub enum Arrived {
    Served,
    /// A client of the console, logged in but not yet told so.
    Console(Box<login::Client>),
}

pub struct Session {
    shared: Arc<Shared>,
    database: Arc<Database>,
    me: Registered,
    stream: Stream,
    machine: Machine,
    lease: Option<Lease>,
    /// The place of the node it belongs to, in the topology.
    place: usize,
    /// A connection that is ours but still needs settings, and whether it is to a replica.
    half_taken: Option<Box<(Lease, bool)>>,
    /// A connection to the primary that is kept for what it remembers while a replica serves a read.
    aside: Option<Lease>,
    pool: Option<Arc<Pool>>,
    primary_at: usize,
    /// By the replica's place in the topology.
    reader_pools: Vec<Option<Arc<Pool>>>,
    /// The replica that was chosen, when no connection to it was idle.
    picked: Option<usize>,
    /// One that has just failed us.
    avoid: Option<usize>,
    freshness: Freshness,
    wishes: Option<Box<Kept>>,
    /// What the client was told of the primary at login.
    told: Arc<Parameters>,
    /// What a replica was sent, as the client sent it, while it may have to be sent elsewhere.
    sent: Vec<u8>,
    heals: u8,
    stuck: Option<Box<taking::Stuck>>,
    /// When it last looked whether another replica should serve it.
    changed: Option<Instant>,
    /// Since when a replica has been at it, where that is measured.
    taken: Option<Instant>,
    measures_latency: bool,
    /// Where the statement before went, for SHOW pgbaton.node and pgbaton.route; and the one under way.
    previous: Option<(usize, Demand)>,
    present: Option<(usize, Demand)>,
    startup: Arc<Startup>,
    /// Stands for the role and `startup`.
    identity: u64,
    credential: Arc<Credential>,
    /// Bytes of the client's not yet taken by the machine.
    from_client: Vec<u8>,
    /// `from_client` begins with a message that waits for something other than more bytes.
    stalled: bool,
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    /// A statement ran that may have ended what pins the session.
    may_unpin: bool,
    sequence_use: Arc<SequenceUse>,
    /// When a pinned session last came to rest.
    rested: Instant,
    /// Since when it is pinned by sequence memory alone.
    soft_since: Option<Instant>,
    max_inspect: usize,
    max_prepared: usize,
    ask_commits: bool,
    /// As the client's entry has it: all that is due is the answer to a COMMIT.
    commits: bool,
    /// The primary was seen to drain.
    drains: bool,
}

/// Counts one that logs in, however that ends.
struct LoggingIn<'a>(&'a AtomicUsize);

impl Drop for LoggingIn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one connection from its first byte to its last.
pub async fn serve(stream: Stream, peer: Peer, entrance: Entrance, shared: Arc<Shared>, worker: usize) -> Arrived {
    let context = shared.login.load_full();
    shared.logins.fetch_add(1, Ordering::Relaxed);
    let admitted = {
        let _counted = LoggingIn(&shared.logins);
        Box::pin(login::admit(stream, peer, &context)).await
    };
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(failure) => {
            tracing::debug!(%failure, "a client did not get in");
            return Arrived::Served;
        }
    };
    match admitted {
        Admitted::Cancel { pid, secret, stream } => {
            // In a box, as everything here: the task of an idle client has no room for what it is not doing.
            Box::pin(shared.clients.cancel(pid, &secret)).await;
            // Only now, so that who waits for the end of this connection can send its next statement unharmed.
            drop(stream);
        }
        Admitted::Client(client) if client.replication.is_some() && entrance == Entrance::ReadOnly => {
            Box::pin(turn_away(client.stream, client.pending, &standby::no_replication())).await;
        }
        Admitted::Client(client) if client.replication.is_some() => {
            Box::pin(replication::serve(*client, shared, worker)).await;
        }
        Admitted::Client(client) if CONSOLES.contains(&&*client.database) => return Arrived::Console(client),
        Admitted::Client(client) => {
            if let Some(session) = Box::pin(Session::open(*client, entrance, shared, worker)).await {
                session.run().await;
            }
        }
    }
    Arrived::Served
}

/// Tells a client that it cannot stay, as far as it listens, and closes.
async fn turn_away(mut stream: Stream, pending: Vec<u8>, problem: &Problem) {
    let mut out = pending;
    message::fatal(&mut out, problem);
    let farewell = async {
        stream.write_all(&out).await?;
        stream.shutdown().await
    };
    // A client that does not read its farewell is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(5), farewell).await;
}

/// Bodies of errors that PostgreSQL itself sent while a connection was opened are passed on as they are.
enum Refusal {
    Ours(Problem),
    Theirs(Vec<u8>),
}

impl Refusal {
    fn write_fatal(&self, out: &mut Vec<u8>) {
        match self {
            Refusal::Ours(problem) => message::fatal(out, problem),
            Refusal::Theirs(body) => message::raw(out, b'E', &[body]),
        }
    }

    fn problem(self) -> Problem {
        match self {
            Refusal::Ours(problem) => problem,
            Refusal::Theirs(body) => {
                let field = |tag| crate::wire::fields::error_field(&body, tag).map(String::from_utf8_lossy);
                let text = field(b'M').unwrap_or_default();
                Problem::new("08006", format!("could not open a server connection: {text}"))
            }
        }
    }
}

impl From<AcquireError> for Refusal {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::Connect(ConnectError::Server { body, .. }) => Refusal::Theirs(body),
            AcquireError::Connect(ConnectError::NoCredential { .. }) => Refusal::Ours(
                Problem::new("28000", error.to_string())
                    .hint("Add the role with its password to auth.users_file, or let it log in with SCRAM."),
            ),
            AcquireError::Connect(_) => Refusal::Ours(Problem::new("08006", error.to_string())),
            AcquireError::Exhausted { .. } => Refusal::Ours(
                Problem::new("53300", error.to_string())
                    .hint("Raise proxy.pool_size, or look at SHOW CLIENTS for sessions that hold one."),
            ),
            AcquireError::Crowded { .. } => Refusal::Ours(
                Problem::new("53300", error.to_string())
                    .hint("proxy.max_waiting bounds the queue; raise proxy.pool_size to make it shorter."),
            ),
            AcquireError::Retired => Refusal::Ours(Problem::new("57P03", error.to_string())),
        }
    }
}

impl Session {
    /// Greets an admitted client, or turns it away.
    async fn open(
        client: login::Client,
        entrance: Entrance,
        shared: Arc<Shared>,
        worker: usize,
    ) -> Option<Box<Session>> {
        let login::Client { stream, unread, mut pending, user, database, mut startup, credential, peer, .. } = client;
        let tls = client.tls;
        let user: Arc<str> = (&*user).into();
        let settings = shared.settings.load_full();
        let mut application_name = String::new();
        startup.retain(|(name, value)| {
            let is_name = &**name == "application_name";
            if is_name {
                application_name = value.to_string();
            }
            !is_name
        });
        let is_read_only = entrance == Entrance::ReadOnly;
        let startup = Arc::new(Startup { is_read_only, parameters: startup });
        if shared.clients.count() >= settings.max_clients {
            turn_away(stream, pending, &too_many(settings.max_clients)).await;
            return None;
        }
        let database = shared.known_database(&database).unwrap_or_else(|| Arc::new(Database::new(&database)));
        let credential = Arc::new(credential);
        let newcomer = Newcomer {
            database: &database,
            user: &user,
            startup: &startup,
            worker,
            credential: &credential,
            application_name: &application_name,
        };
        let greeting = match entrance {
            Entrance::ReadWrite => greet(&shared, newcomer).await,
            Entrance::ReadOnly => standby::greet(&shared, newcomer).await,
        };
        let (startup, parameters, pid) = match greeting {
            Ok(greeting) => greeting,
            Err(refusal) => {
                refusal.write_fatal(&mut pending);
                let mut stream = stream;
                let farewell = async {
                    stream.write_all(&pending).await?;
                    stream.shutdown().await
                };
                let _ = tokio::time::timeout(Duration::from_secs(5), farewell).await;
                return None;
            }
        };
        shared.keep_credential(&user, &credential);
        // Only a database that a server has let somebody into is remembered.
        let database = shared.remember_database(database);
        let identity = database.registry.identity((&user, &startup));
        let sequence_use = database.sequence_use(&user, &application_name);
        let tally = shared.tallies.of(&database.name, worker);
        let arrival = Arrival {
            user,
            database: database.name.clone(),
            application_name: application_name.clone(),
            tally,
            local: stream.local_addr().map(|address| address.to_string()),
            peer: peer.to_string(),
            tls,
            entrance,
            worker,
            long_key: client.protocol_minor >= 2,
            pid,
        };
        let Some(me) = shared.clients.enter(arrival, settings.max_clients) else {
            turn_away(stream, pending, &too_many(settings.max_clients)).await;
            return None;
        };
        let parameters = database.personal(parameters, &application_name);
        let mut to_client = pending;
        message::authentication_ok(&mut to_client);
        for (name, value) in parameters.iter() {
            message::parameter_status(&mut to_client, name, value);
        }
        message::backend_key_data(&mut to_client, me.client.pid, &me.client.secret);
        message::ready_for_query(&mut to_client, b'I');
        let mut machine = Machine::new(me.client.id, me.client.pid, parameters.clone(), settings.session_mode);
        if is_read_only {
            machine = machine.as_standby();
        }
        let stalled = !unread.is_empty();
        let freshness = Freshness::new(&shared.readers);
        let measures_latency = shared.readers.settings.load().balance == Strategy::Fastest;
        Some(Box::new(Session {
            shared,
            database,
            me,
            stream,
            machine,
            lease: None,
            place: 0,
            half_taken: None,
            aside: None,
            pool: None,
            primary_at: 0,
            reader_pools: Vec::new(),
            picked: None,
            avoid: None,
            freshness,
            wishes: None,
            told: parameters.clone(),
            sent: Vec::new(),
            heals: 0,
            stuck: None,
            changed: None,
            taken: None,
            measures_latency,
            previous: None,
            present: None,
            startup,
            identity,
            credential,
            from_client: unread,
            stalled,
            to_client,
            to_server: Vec::new(),
            may_unpin: false,
            sequence_use,
            rested: Instant::now(),
            soft_since: None,
            max_inspect: settings.max_inspect,
            max_prepared: settings.max_prepared,
            ask_commits: settings.ask_commits,
            commits: false,
            drains: false,
        }))
    }

    async fn run(mut self: Box<Self>) {
        loop {
            let step = poll_fn(|cx| self.poll_relay(cx)).await;
            let goes_on = match step {
                Step::NeedServer => Box::pin(self.take_server()).await,
                Step::Before(before) => Box::pin(self.unless_given_up(Own::Before(before))).await,
                Step::Rest => Box::pin(self.unless_given_up(Own::Rest)).await,
                Step::Heal(sqlstate) => self.heal(Some(sqlstate)),
                Step::Explain => Box::pin(self.explain()).await,
                Step::ServerGone(error) => Box::pin(self.lose_server(error)).await,
                Step::Terminate | Step::ClientGone => false,
                Step::ClientMalformed(error) => {
                    self.farewell(&Problem::new("08P01", error.to_string()));
                    false
                }
                Step::ServerMalformed(error) => {
                    tracing::error!(%error, "a server sent what is not PostgreSQL's protocol");
                    self.lease = None;
                    self.farewell(&Problem::new("08P01", format!("server connection broken: {error}")));
                    false
                }
                Step::Drained | Step::Killed => {
                    self.farewell(&Problem::new("57P01", "terminating connection due to administrator command"));
                    false
                }
            };
            if !goes_on {
                break;
            }
        }
        Box::pin(self.finish()).await;
    }

    fn farewell(&mut self, problem: &Problem) {
        message::fatal(&mut self.to_client, problem);
    }

    /// Answers the message at the head of `from_client` with an error.
    fn refuse(&mut self, problem: &Problem) -> bool {
        match self.machine.refuse(&self.from_client, problem, &mut self.to_client) {
            Ok(taken) => {
                self.from_client.drain(..taken);
                self.stalled = !self.from_client.is_empty();
                true
            }
            Err(error) => {
                self.farewell(&Problem::new("08P01", error.to_string()));
                false
            }
        }
    }

    /// Passes on what the machine saw that others must know, before the client hears of it.
    pub(super) fn note_happened(&mut self) {
        let happened = std::mem::take(&mut self.machine.happened);
        self.may_unpin |= happened.may_unpin;
        // Whatever a standby's session tries changes nothing for anybody.
        if self.machine.is_standby() {
            return;
        }
        if happened.facts_changed {
            self.database.facts.mark_dirty();
        }
        if happened.ddl || happened.facts_changed {
            self.database.facts.bump_ddl();
        }
        if happened.defaults_changed {
            self.shared.pools.renew();
            self.shared.forget_greetings();
        }
        if happened.read_only_refusal {
            self.shared.look_now.notify_one();
        }
        if happened.committed {
            self.shared.doubts.acknowledge();
        }
        if happened.sequence_memory {
            self.sequence_use.confirm();
        }
        if happened.may_have_advanced {
            self.sequence_use.try_once();
        }
    }
}

fn lost_transaction() -> Problem {
    Problem::new("40001", "server connection lost; the transaction is rolled back").hint("Run the transaction again.")
}

fn too_many(limit: usize) -> Problem {
    Problem::new("53300", "sorry, too many clients already").detail(format!("proxy.max_clients is {limit}."))
}

/// A client that has been let in and not greeted.
#[derive(Clone, Copy)]
struct Newcomer<'a> {
    database: &'a Database,
    user: &'a Arc<str>,
    startup: &'a Arc<Startup>,
    application_name: &'a str,
    credential: &'a Credential,
    worker: usize,
}

/// The startup parameters as others have them too, what the server reported, and the process id of a connection.
type Greeting = (Arc<Startup>, Arc<Parameters>, Option<u32>);

impl<'a> Newcomer<'a> {
    fn want(self) -> Want<'a> {
        let Newcomer { startup, application_name, credential, worker, .. } = self;
        Want { session: 0, worker, startup, application_name, credential, told: None }
    }

    /// What was told before to who came alike, as long as there is a connection.
    fn known_at(self, pool: &Pool) -> Option<Greeting> {
        if pool.status().0 == 0 {
            return None;
        }
        let (startup, parameters) = self.database.greeting(self.user, self.startup)?;
        let pid = pool.peek(&startup).map(|(_, pid)| pid);
        Some((startup, parameters, pid))
    }

    fn greeted_by(self, mut lease: Lease) -> Greeting {
        let server = lease.server();
        let found = (server.startup.clone(), server.startup_parameters.clone(), Some(server.identity.pid));
        lease.release();
        self.database.keep_greeting(self.user, &found.0, &found.1);
        found
    }
}

/// What a new client is told of the server: from a connection that is there, from what was told before, or by opening one.
async fn greet(shared: &Shared, newcomer: Newcomer<'_>) -> Result<Greeting, Refusal> {
    let Newcomer { database, user, .. } = newcomer;
    let mut wait = Wait::new(shared, 0);
    let lease = loop {
        let (primary, _, generation) = wait.primary().await.map_err(Refusal::Ours)?;
        let key = PoolKey { node: primary.address.id.clone(), database: database.name.clone(), user: user.clone() };
        let pool = shared.pools.get(&key, &primary.address);
        if let Some(known) = newcomer.known_at(&pool) {
            return Ok(known);
        }
        let want = newcomer.want();
        let got = tokio::select! {
            biased;
            () = shared.gate.left(generation) => continue,
            got = pool.acquire(&want) => got,
        };
        match got {
            Ok(lease) => break lease,
            // Another node has become the primary meanwhile.
            Err(AcquireError::Retired) if wait.goes_on() => {}
            Err(error) if hold::may_pass(&error) => {
                shared.look_now.notify_one();
                wait.pause(error.to_string()).await.map_err(Refusal::Ours)?;
            }
            Err(error) => return Err(error.into()),
        }
    };
    Ok(newcomer.greeted_by(lease))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, F>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// At 5,000 idle clients a kilobyte each is five megabytes. Whatever is large and rare lives in a box of its own.
    #[test]
    fn the_task_of_an_idle_client_is_small() {
        let serving =
            size_of_future(|(stream, peer, shared, worker)| serve(stream, peer, Entrance::ReadOnly, shared, worker));
        assert!(serving <= 512, "serve: {serving} bytes");
        assert!(size_of::<Session>() <= 1024, "Session: {} bytes", size_of::<Session>());
    }
}
