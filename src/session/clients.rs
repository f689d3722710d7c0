//! Who is connected: one entry for each client, by which others cancel its query, end its connection, or list it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::task::AtomicWaker;
use hashbrown::HashMap;
use tokio::sync::Notify;

use super::gate::Draining;
use super::silent::Footing;
use super::tally::Counts;
use crate::pool::ServerIdentity;
use crate::sql::Pins;
use crate::telemetry::metric::Metric;

pub const CLIENTS: Metric = Metric::gauge("pgbaton_clients", "Clients that are connected.");
pub const MOST_CLIENTS: Metric = Metric::gauge("pgbaton_max_clients", "How many may be: proxy.max_clients.");
pub const WAITING: Metric =
    Metric::gauge("pgbaton_waiting_clients", "Clients that wait for a server connection, whatever the reason.");
pub const LONGEST_WAIT: Metric =
    Metric::gauge("pgbaton_longest_wait_seconds", "How long the one has waited that has waited longest.")
        .unit("seconds");

/// How long a cancel request to a node may take before it is given up.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// What a session is doing, for `SHOW CLIENTS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Activity {
    Idle,
    Waiting,
    Active,
}

/// By which door a client came, which decides what its session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entrance {
    /// `proxy.listen`: the session is the primary's.
    ReadWrite,
    /// `proxy.listen_read_only`: the session is a standby's.
    ReadOnly,
}

/// What someone else wants of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Wish {
    None,
    /// End when the transaction is over (shutdown).
    Drain,
    /// End now.
    Kill,
}

pub struct Client {
    /// Grows with every client; never reused.
    pub id: u64,
    /// The process id the client was told, and the key that goes with it in a cancel request.
    pub pid: u32,
    pub secret: Vec<u8>,
    pub user: Arc<str>,
    pub database: Arc<str>,
    pub peer: String,
    /// Where it was accepted; `None`: at a Unix socket.
    pub local: Option<String>,
    pub tls: bool,
    pub entrance: Entrance,
    pub worker: usize,
    pub connected: SystemTime,
    /// Where its clock begins.
    since: Instant,
    /// By its clock, and 0 for never or not: when something was last sent to a server for it, and since when it is not
    /// answered, its transaction open, and a server waited for. Only its session writes them.
    last_us: AtomicU64,
    asked_us: AtomicU64,
    begun_us: AtomicU64,
    waits_us: AtomicU64,
    /// Where what passes for it is counted.
    pub tally: Arc<Counts>,
    application_name: Mutex<Box<str>>,
    activity: AtomicU8,
    pins: AtomicU32,
    pub transactions: AtomicU64,
    wish: AtomicU8,
    /// Somebody waits for a server connection; this session may hold one it does not need.
    nudged: AtomicBool,
    pub waker: AtomicWaker,
    /// The generation of the gate under which the session may hold a connection to the primary; 0: under none.
    pass: AtomicU64,
    /// What the session says of itself while the primary drains: four times the drain's number, and [`Draining`].
    drain: AtomicU64,
    /// What the session stands on while it is at a replica; of the last one while it is not.
    footing: AtomicU64,
    /// All that the server owes the client is the answer to a COMMIT.
    commits: AtomicBool,
    /// The server that works for this client now. Held while a cancel is counted in at its gate.
    server: Mutex<Option<Arc<ServerIdentity>>>,
    /// A cancel arrived while the client was waiting for a server.
    pub cancelled: Notify,
}

impl Client {
    pub fn set_activity(&self, activity: Activity) {
        self.activity.store(activity as u8, Ordering::Relaxed);
    }

    pub fn activity(&self) -> Activity {
        match self.activity.load(Ordering::Relaxed) {
            0 => Activity::Idle,
            1 => Activity::Waiting,
            _ => Activity::Active,
        }
    }

    /// Microseconds since it connected, and never 0.
    #[inline]
    pub fn clock_us(&self) -> u64 {
        // In 64 bits, which are enough for half a million years: `as_micros` counts in 128.
        let since = self.since.elapsed();
        since.as_secs() * 1_000_000 + u64::from(since.subsec_micros()) + 1
    }

    #[inline]
    pub(super) fn is_asking(&self) -> bool {
        self.asked_us.load(Ordering::Relaxed) != 0
    }

    /// Something is sent for it.
    #[inline]
    pub(super) fn ask_server(&self) {
        let now = self.clock_us();
        self.last_us.store(now, Ordering::Relaxed);
        self.asked_us.store(now, Ordering::Relaxed);
        if self.begun_us.load(Ordering::Relaxed) == 0 {
            self.begun_us.store(now, Ordering::Relaxed);
        }
    }

    /// All of that is answered: how long it took, and, if that was its end, the transaction.
    #[inline]
    pub(super) fn take_answer(&self, is_over: bool) -> (u64, Option<u64>) {
        let now = self.clock_us();
        let took = now - self.asked_us.load(Ordering::Relaxed);
        self.asked_us.store(0, Ordering::Relaxed);
        let begun = self.begun_us.load(Ordering::Relaxed);
        if !is_over || begun == 0 {
            return (took, None);
        }
        self.begun_us.store(0, Ordering::Relaxed);
        (took, Some(now - begun))
    }

    /// Nothing is under way any more, however that came about.
    #[inline]
    pub(super) fn forget_asking(&self) {
        self.asked_us.store(0, Ordering::Relaxed);
        self.begun_us.store(0, Ordering::Relaxed);
    }

    /// When something was last sent to a server for it; when it connected, if nothing was.
    pub fn asked(&self) -> SystemTime {
        self.connected + Duration::from_micros(self.last_us.load(Ordering::Relaxed))
    }

    /// By its clock; 0: it waits no more.
    pub fn set_waits_since(&self, us: u64) {
        self.waits_us.store(us, Ordering::Relaxed);
    }

    /// How long it has waited for a server connection; zero if it does not.
    pub fn waits(&self) -> Duration {
        match self.waits_us.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_micros(self.clock_us().saturating_sub(since)),
        }
    }

    pub fn application_name(&self) -> Box<str> {
        self.application_name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_application_name(&self, name: &str) {
        *self.application_name.lock().unwrap_or_else(PoisonError::into_inner) = name.into();
    }

    pub fn set_pins(&self, pins: Pins) {
        self.pins.store(pins.bits(), Ordering::Relaxed);
    }

    pub fn pins(&self) -> Pins {
        Pins::from_bits(self.pins.load(Ordering::Relaxed))
    }

    pub fn wish(&self) -> Wish {
        match self.wish.load(Ordering::Relaxed) {
            0 => Wish::None,
            1 => Wish::Drain,
            _ => Wish::Kill,
        }
    }

    pub fn ask(&self, wish: Wish) {
        self.wish.fetch_max(wish as u8, Ordering::Relaxed);
        self.waker.wake();
    }

    pub fn nudge(&self) {
        self.nudged.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    #[inline]
    pub fn is_nudged(&self) -> bool {
        self.nudged.load(Ordering::Relaxed)
    }

    #[inline]
    pub fn take_nudge(&self) -> bool {
        self.nudged.load(Ordering::Relaxed) && self.nudged.swap(false, Ordering::Relaxed)
    }

    /// See `gate`.
    #[inline]
    pub fn pass(&self) -> u64 {
        self.pass.load(Ordering::Relaxed)
    }

    /// Ordered before the look at the gate that has to follow it, as closing the gate is before the look at this.
    #[inline]
    pub fn set_pass(&self, generation: u64) {
        self.pass.store(generation, Ordering::SeqCst);
    }

    /// What it has said of itself in this drain.
    pub fn drain(&self, drain: u64) -> Draining {
        match self.drain.load(Ordering::SeqCst).checked_sub(drain * 4) {
            Some(1) => Draining::Rests,
            Some(2) => Draining::Open,
            Some(3) => Draining::Commits,
            _ => Draining::Unheard,
        }
    }

    pub fn set_drain(&self, drain: u64, what: Draining) {
        self.drain.store(drain * 4 + what as u64, Ordering::SeqCst);
    }

    /// See `silent`.
    #[inline]
    pub fn footing(&self) -> Footing {
        Footing::from_bits(self.footing.load(Ordering::Relaxed))
    }

    /// Ordered as [`set_pass`](Self::set_pass) is.
    #[inline]
    pub fn set_footing(&self, footing: Footing) {
        if self.footing() != footing {
            self.footing.store(footing.bits(), Ordering::SeqCst);
        }
    }

    #[inline]
    pub fn set_commits(&self, commits: bool) {
        self.commits.store(commits, Ordering::Relaxed);
    }

    #[inline]
    pub fn set_server(&self, server: Option<Arc<ServerIdentity>>) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    /// The server that works for this client now.
    pub fn server(&self) -> Option<Arc<ServerIdentity>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn server_pid(&self) -> Option<u32> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|server| server.pid)
    }

    /// Passes a cancel on to the server that works for this client, if one does.
    async fn cancel(&self) {
        // A commit that waits for its standbys would be reported as done by being cancelled, and nothing else of it can be.
        if self.commits.load(Ordering::Relaxed) {
            return;
        }
        let server = {
            let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
            // Counted in under the lock: the session cannot let go of the server without seeing it.
            server.as_ref().inspect(|server| server.gate.enter()).cloned()
        };
        match server {
            Some(server) => {
                server.cancel(CANCEL_TIMEOUT).await;
                server.gate.leave();
            }
            None if self.activity() == Activity::Waiting => self.cancelled.notify_one(),
            None => {}
        }
    }
}

/// All clients.
#[derive(Default)]
pub struct Clients {
    next: AtomicU64,
    known: Mutex<HashMap<u64, Arc<Client>>>,
}

/// Takes its client off the list when the session ends, however it ends.
pub struct Registered {
    pub client: Arc<Client>,
    clients: Arc<Clients>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.clients.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.client.id);
    }
}

/// What is known of a client when it enters.
pub struct Arrival {
    pub user: Arc<str>,
    pub database: Arc<str>,
    pub peer: String,
    /// Where it was accepted; `None`: at a Unix socket.
    pub local: Option<String>,
    pub application_name: String,
    pub tally: Arc<Counts>,
    pub tls: bool,
    pub entrance: Entrance,
    pub worker: usize,
    pub long_key: bool,
    /// The process id of a server connection the client will probably use; made up if there is none.
    pub pid: Option<u32>,
}

impl Clients {
    /// Adds a client, unless there are `limit` already.
    pub fn enter(self: &Arc<Self>, arrival: Arrival, limit: usize) -> Option<Registered> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let mut secret = vec![0; if arrival.long_key { 32 } else { 4 }];
        let random = ring::rand::SystemRandom::new();
        if ring::rand::SecureRandom::fill(&random, &mut secret).is_err() {
            return None;
        }
        let client = Arc::new(Client {
            id,
            pid: arrival.pid.unwrap_or((id & 0x3fff_ffff) as u32 | 0x4000_0000),
            secret,
            user: arrival.user,
            database: arrival.database,
            peer: arrival.peer,
            local: arrival.local,
            tls: arrival.tls,
            entrance: arrival.entrance,
            worker: arrival.worker,
            connected: SystemTime::now(),
            since: Instant::now(),
            last_us: AtomicU64::new(0),
            asked_us: AtomicU64::new(0),
            begun_us: AtomicU64::new(0),
            tally: arrival.tally,
            waits_us: AtomicU64::new(0),
            application_name: Mutex::new(arrival.application_name.into()),
            activity: AtomicU8::new(Activity::Idle as u8),
            pins: AtomicU32::new(0),
            transactions: AtomicU64::new(0),
            wish: AtomicU8::new(Wish::None as u8),
            nudged: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            pass: AtomicU64::new(0),
            drain: AtomicU64::new(0),
            footing: AtomicU64::new(0),
            commits: AtomicBool::new(false),
            server: Mutex::new(None),
            cancelled: Notify::new(),
        });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= limit {
            return None;
        }
        known.insert(id, client.clone());
        Some(Registered { client, clients: self.clone() })
    }

    pub fn all(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by_key(|client| client.id);
        all
    }

    pub fn count(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Carries out a cancel request. Says nothing about whether the key was right, as PostgreSQL does.
    pub async fn cancel(&self, pid: u32, secret: &[u8]) {
        let same = |client: &&Arc<Client>| {
            client.pid == pid && bool::from(subtle::ConstantTimeEq::ct_eq(&client.secret[..], secret))
        };
        let found = self.known.lock().unwrap_or_else(PoisonError::into_inner).values().find(same).cloned();
        if let Some(client) = found {
            client.cancel().await;
        }
    }
}
