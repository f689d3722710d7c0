//! Server connections and who may use them: one [`Pool`] for each (node, database, user).
//!
//! The pool is deadpool's, with a [`Manager`] of our own: it bounds how many connections exist and queues those who wait,
//! first come, first served. In front of it each worker keeps the idle connections it used last; another worker that has
//! none takes one of those before it waits (it is moved to the taker's runtime). A connection goes back only through
//! [`Lease::release`]; a lease that is dropped in any other way closes it, because nobody knows what state it is in.

pub mod connect;
pub mod memory;
pub mod server;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use deadpool::managed::{self, Object, PoolError, RecycleResult, Timeouts};
use hashbrown::HashMap;

use tokio::sync::Notify;

use crate::auth::Credential;
use crate::net::NodeTls;
use crate::telemetry::metric::Metric;
use crate::types::{NodeAddress, NodeId};
use connect::{ConnectError, ConnectRequest};
use memory::Memory;
pub use server::{CancelGate, Server, ServerIdentity};

pub const SERVERS: Metric = Metric::gauge(
    "pgbaton_server_connections",
    "Connections to a node: active (a client has it), idle, or login (it is being opened).",
)
.labels(&["node", "state"]);

/// How often somebody who waits says so.
const HUNGRY: Duration = Duration::from_millis(100);

/// How busy one node is with what we send it, over all its pools: what balancing looks at.
#[derive(Debug, Default)]
pub struct Load {
    /// Server connections that serve a client just now.
    pub in_use: AtomicUsize,
    /// Reads sent there: who sends one counts it.
    pub served: AtomicU64,
    /// Moving average of how long a read took, in microseconds, as the bits of an `f32`; 0 while not known.
    latency: AtomicU32,
}

impl Load {
    pub fn latency_us(&self) -> f32 {
        f32::from_bits(self.latency.load(Ordering::Relaxed))
    }

    /// Adds a measurement; each counts an eighth. Two at the same moment may count as one.
    pub fn note_latency(&self, took: Duration) {
        let (known, new) = (self.latency_us(), took.as_secs_f32() * 1e6);
        let average = if known == 0.0 { new } else { known + (new - known) / 8.0 };
        self.latency.store(average.to_bits(), Ordering::Relaxed);
    }
}

/// The bounds of every pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Server connections per (node, database, user).
    pub pool_size: usize,
    /// Clients that may wait for one at the same time, for each pool.
    pub max_waiting: usize,
    /// How long a client waits for one.
    pub wait: Duration,
    /// How long opening one may take, login included.
    pub login_timeout: Duration,
    /// A connection idle for longer is closed.
    pub idle_timeout: Duration,
    /// A connection older than this is closed when it is next given back.
    pub lifetime: Duration,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PoolKey {
    pub node: NodeId,
    pub database: Arc<str>,
    pub user: Arc<str>,
}

/// What a client said at startup apart from user, database and application_name. A server connection is started with the
/// same, so that RESET and DISCARD ALL go back to the client's own values; it serves only clients that said the same.
#[derive(PartialEq, Eq, Hash, Debug, Default)]
pub struct Startup {
    /// For sessions that are a standby's: what it serves is read-only also in the instant in which its node is promoted.
    pub is_read_only: bool,
    pub parameters: Vec<(Box<str>, Box<str>)>,
}

/// Who wants a connection, and how it is to be opened if there is none.
pub struct Want<'a> {
    pub session: u64,
    pub worker: usize,
    pub startup: &'a Arc<Startup>,
    pub application_name: &'a str,
    pub credential: &'a Credential,
    /// For a replica: what the client was told of the primary. What the replica would say otherwise (its own time zone, that
    /// it is a standby) is none of the client's business.
    pub told: Option<&'a memory::Parameters>,
}

/// Parameters that decide how values are written, which a replica's own configuration must not change.
const SAME_EVERYWHERE: [&str; 4] = ["TimeZone", "DateStyle", "IntervalStyle", "client_encoding"];

#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    #[error("all {size} server connections stayed in use for {} s", waited.as_secs())]
    Exhausted { size: usize, waited: Duration },
    #[error("{waiting} clients are waiting for a server connection already")]
    Crowded { waiting: usize },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The pool was closed while waiting (another node is the primary now): ask for the right pool again.
    #[error("the node is no longer in use")]
    Retired,
}

/// deadpool's view of a connection: a place for one. It is filled by whoever takes it, because only a client has the
/// credentials and startup parameters to open it with.
#[derive(Default)]
pub struct Place {
    server: Option<Box<Server>>,
}

pub struct Manager;

impl managed::Manager for Manager {
    type Type = Place;
    type Error = Infallible;

    async fn create(&self) -> Result<Place, Infallible> {
        Ok(Place::default())
    }

    async fn recycle(&self, _: &mut Place, _: &managed::Metrics) -> RecycleResult<Infallible> {
        // Health is looked at when the connection is taken, on both ways out of the pool alike.
        Ok(())
    }
}

pub struct Pool {
    pub key: PoolKey,
    pub address: Arc<NodeAddress>,
    tls: Arc<NodeTls>,
    limits: Arc<RwLock<Limits>>,
    inner: managed::Pool<Manager>,
    /// Idle connections by the worker that gave them back.
    idle: Vec<Mutex<VecDeque<Object<Manager>>>>,
    waiting: AtomicUsize,
    /// Connections that are being opened; each has its place already.
    opening: AtomicUsize,
    retired: AtomicBool,
    /// Grows when connections opened before must not be used again (defaults changed).
    generation: AtomicU64,
    /// Notified again and again while somebody waits: sessions that keep a connection softly may let go.
    hungry: Arc<Notify>,
    load: Arc<Load>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn new(
        key: PoolKey,
        address: Arc<NodeAddress>,
        tls: Arc<NodeTls>,
        limits: Arc<RwLock<Limits>>,
        workers: usize,
        hungry: Arc<Notify>,
        load: Arc<Load>,
    ) -> Self {
        let size = limits.read().unwrap_or_else(PoisonError::into_inner).pool_size;
        let config = managed::PoolConfig::new(size);
        let inner = match managed::Pool::builder(Manager).config(config).runtime(deadpool::Runtime::Tokio1).build() {
            Ok(pool) => pool,
            // The only error is a timeout without a runtime, and there is one.
            Err(error) => unreachable!("deadpool: {error}"),
        };
        Pool {
            key,
            address,
            tls,
            limits,
            inner,
            idle: (0..workers).map(|_| Mutex::default()).collect(),
            waiting: AtomicUsize::new(0),
            opening: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            hungry,
            load,
        }
    }

    fn limits(&self) -> Limits {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn tls(&self) -> &Arc<NodeTls> {
        &self.tls
    }

    pub fn login_timeout(&self) -> Duration {
        self.limits().login_timeout
    }

    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Connections that exist, and clients that wait for one.
    pub fn status(&self) -> (usize, usize, usize) {
        let idle: usize = self.idle.iter().map(|shard| lock(shard).len()).sum();
        let status = self.inner.status();
        (status.size, idle + status.available, self.waiting.load(Ordering::Relaxed))
    }

    /// How many of those that exist are still being opened.
    pub fn opening(&self) -> usize {
        self.opening.load(Ordering::Relaxed)
    }

    /// The connections that nobody has just now, and the application_name each has.
    pub fn idle(&self) -> Vec<(Arc<ServerIdentity>, String)> {
        let mut idle = Vec::new();
        let mut note = |server: &Server| {
            let name = server.memory.parameters.get("application_name").unwrap_or_default();
            idle.push((server.identity.clone(), name.to_owned()));
        };
        for shard in &self.idle {
            lock(shard).iter().filter_map(|object| object.server.as_deref()).for_each(&mut note);
        }
        // deadpool shows what it keeps in no other way.
        self.inner.retain(|place, _| {
            place.server.as_deref().into_iter().for_each(&mut note);
            true
        });
        idle
    }

    /// The most connections it may have.
    pub fn size_limit(&self) -> usize {
        self.inner.status().max_size
    }

    /// Some idle connection's startup parameters and process id, without taking it: enough to greet a client.
    pub fn peek(&self, startup: &Startup) -> Option<(Arc<memory::Parameters>, u32)> {
        let generation = self.generation.load(Ordering::Relaxed);
        self.idle.iter().find_map(|shard| {
            let shard = lock(shard);
            let servers = shard.iter().filter_map(|object| object.server.as_deref());
            let mut fitting = servers.filter(|server| *server.startup == *startup && server.generation == generation);
            fitting.next().map(|server| (server.startup_parameters.clone(), server.identity.pid))
        })
    }

    /// An idle connection that fits, at once. Prefers the one this session used last, then the one unused for longest,
    /// so that what a session left behind softly (sequence memory, process id) tends to be there when it comes back.
    #[inline]
    pub fn take_idle(self: &Arc<Self>, want: &Want<'_>) -> Option<Lease> {
        let shards = self.idle.len();
        for offset in 0..shards {
            let shard = &self.idle[(want.worker + offset) % shards];
            loop {
                let mut object = {
                    let mut shard = lock(shard);
                    let mut chosen = None;
                    for (at, object) in shard.iter().enumerate() {
                        let Some(server) = object.server.as_deref() else { continue };
                        if !Arc::ptr_eq(&server.startup, want.startup) && server.startup != *want.startup {
                            continue;
                        }
                        if server.memory.last_session == want.session {
                            chosen = Some(at);
                            break;
                        }
                        chosen = chosen.or(Some(at));
                    }
                    match chosen.and_then(|at| shard.remove(at)) {
                        Some(object) => object,
                        None => break,
                    }
                };
                if let Some(server) = &mut object.server
                    && server.is_alive()
                    && (offset == 0 || server.move_to(want.worker).is_ok())
                {
                    return Some(Lease::new(object, self));
                }
                // It closed while idle: its place is free again.
                drop(Object::take(object));
            }
        }
        None
    }

    /// A connection: an idle one, a new one, or after waiting in line the next that comes free.
    pub async fn acquire(self: &Arc<Self>, want: &Want<'_>) -> Result<Lease, AcquireError> {
        let mut object = self.place(want).await?;
        if let Some(server) = &mut object.server {
            let fits = server.startup == *want.startup
                && server.generation == self.generation.load(Ordering::Relaxed)
                && server.is_alive()
                && server.move_to(want.worker).is_ok();
            if !fits && let Some(server) = object.server.take() {
                server.close();
            }
        }
        let mut lease = Lease::new(object, self);
        if lease.place().server.is_none() {
            let server = self.open(want).await?;
            lease.place().server = Some(Box::new(server));
        }
        Ok(lease)
    }

    /// A place for a connection, perhaps with one in it.
    async fn place(self: &Arc<Self>, want: &Want<'_>) -> Result<Object<Manager>, AcquireError> {
        if let Some(mut lease) = self.take_idle(want)
            && let Some(object) = lease.object.take()
        {
            return Ok(object);
        }
        let status = self.inner.status();
        if status.size >= status.max_size
            && status.available == 0
            && let Some(object) = self.take_misfit()
        {
            return Ok(object);
        }
        let limits = self.limits();
        let ahead = self.waiting.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted(&self.waiting);
        if ahead >= limits.max_waiting {
            return Err(AcquireError::Crowded { waiting: ahead });
        }
        // One may have been given back to a worker's list before it saw us waiting.
        if let Some(mut lease) = self.take_idle(want)
            && let Some(object) = lease.object.take()
        {
            return Ok(object);
        }
        let timeouts = Timeouts { wait: Some(limits.wait), create: None, recycle: None };
        let mut line = std::pin::pin!(self.inner.timeout_get(&timeouts));
        let got = loop {
            match tokio::time::timeout(HUNGRY, &mut line).await {
                Ok(got) => break got,
                Err(_) => self.hungry.notify_one(),
            }
        };
        match got {
            Ok(object) => Ok(object),
            Err(PoolError::Timeout(_)) => Err(AcquireError::Exhausted { size: limits.pool_size, waited: limits.wait }),
            Err(_) => Err(AcquireError::Retired),
        }
    }

    /// An idle connection that was started for other clients; its place is worth more than itself when all are taken.
    fn take_misfit(&self) -> Option<Object<Manager>> {
        self.idle.iter().find_map(|shard| lock(shard).pop_front())
    }

    async fn open(&self, want: &Want<'_>) -> Result<Server, ConnectError> {
        self.opening.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted(&self.opening);
        let mut startup = want.startup.parameters.clone();
        if !want.application_name.is_empty() {
            startup.push(("application_name".into(), want.application_name.into()));
        }
        if let Some(told) = want.told {
            for name in SAME_EVERYWHERE {
                if let Some(value) = told.get(name)
                    && !startup.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
                {
                    startup.push((name.into(), value.into()));
                }
            }
        }
        if want.startup.is_read_only {
            // The last counts, so the client's own wish does not.
            startup.push(("default_transaction_read_only".into(), "on".into()));
        }
        let generation = self.generation.load(Ordering::Relaxed);
        let connected = connect::connect(&ConnectRequest {
            address: &self.address,
            tls: &self.tls,
            user: &self.key.user,
            database: &self.key.database,
            startup: &startup,
            credential: want.credential,
            timeout: self.limits().login_timeout,
        })
        .await?;
        let mut parameters = memory::Parameters::new(connected.parameters);
        if want.startup.is_read_only && parameters.get("in_hot_standby") == Some("off") {
            let node = self.key.node.to_string();
            return Err(ConnectError::Protocol { node, reason: "it is no standby any more".into() });
        }
        if let Some(told) = want.told {
            for name in ["in_hot_standby", "default_transaction_read_only"] {
                if let Some(value) = told.get(name) {
                    parameters.set(name, value);
                }
            }
        }
        let parameters = Arc::new(parameters);
        let local = connected.stream.local_addr().map(|address| address.to_string());
        let is_tls = connected.stream.is_tls();
        Ok(Server {
            stream: connected.stream,
            identity: Arc::new(ServerIdentity {
                address: self.address.clone(),
                tls: self.tls.clone(),
                pid: connected.pid,
                cancel_key: connected.cancel_key,
                gate: CancelGate::default(),
                opened: SystemTime::now(),
                local,
                is_tls,
            }),
            startup: want.startup.clone(),
            startup_parameters: parameters.clone(),
            memory: Memory::new(parameters).of(self.key.node.clone()),
            unread: connected.unread,
            overheard: Vec::new(),
            opened: Instant::now(),
            idle_since: Instant::now(),
            worker: want.worker,
            generation,
        })
    }

    fn give_back(&self, mut object: Object<Manager>) {
        let Some(server) = &mut object.server else {
            drop(Object::take(object));
            return;
        };
        server.overheard = Vec::new();
        server.idle_since = Instant::now();
        let stale = server.generation != self.generation.load(Ordering::Relaxed) || self.is_retired();
        if stale || server.idle_since.duration_since(server.opened) > self.limits().lifetime {
            if let Some(server) = Object::take(object).server {
                server.close();
            }
            return;
        }
        let worker = server.worker;
        lock(&self.idle[worker]).push_back(object);
        // Whoever began to wait before this push either sees the connection in the list or is seen here.
        if self.waiting.load(Ordering::SeqCst) > 0
            && let Some(object) = lock(&self.idle[worker]).pop_front()
        {
            // Dropping it puts it back into deadpool, which wakes the first in line.
            drop(object);
        }
    }

    /// Closes idle connections for which `close` says so. Returns how many.
    fn close_idle(&self, close: impl Fn(&Server) -> bool) -> usize {
        let mut closed = 0;
        for shard in &self.idle {
            let mut kept = VecDeque::new();
            let all = std::mem::take(&mut *lock(shard));
            for object in all {
                if object.server.as_deref().is_none_or(&close) {
                    closed += 1;
                    if let Some(server) = Object::take(object).server {
                        server.close();
                    }
                } else {
                    kept.push_back(object);
                }
            }
            lock(shard).append(&mut kept);
        }
        let removed = self.inner.retain(|place, _| !place.server.as_deref().is_none_or(&close)).removed;
        closed += removed.len();
        removed.into_iter().filter_map(|place| place.server).for_each(|server| server.close());
        closed
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.inner.close();
        self.close_idle(|_| true);
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A server connection in use. Dropping it closes the connection; [`Lease::release`] gives it back.
pub struct Lease {
    object: Option<Object<Manager>>,
    pool: Arc<Pool>,
}

impl Lease {
    fn new(object: Object<Manager>, pool: &Arc<Pool>) -> Lease {
        pool.load.in_use.fetch_add(1, Ordering::Relaxed);
        Lease { object: Some(object), pool: pool.clone() }
    }

    fn place(&mut self) -> &mut Place {
        // `object` is only taken by the methods that consume the lease.
        self.object.as_mut().expect("a lease holds its place until it ends")
    }

    #[inline]
    pub fn server(&mut self) -> &mut Server {
        // `acquire` and `take_idle` hand out leases with a connection in them.
        self.place().server.as_deref_mut().expect("a lease holds a connection")
    }

    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Closes the connection and opens another in its place.
    pub async fn replace(mut self, want: &Want<'_>) -> Result<Lease, AcquireError> {
        if let Some(server) = self.place().server.take() {
            server.close();
        }
        let server = self.pool.open(want).await?;
        self.place().server = Some(Box::new(server));
        Ok(self)
    }

    /// Gives the connection back: it must be at rest, with nothing of the session's left on it that another must not meet.
    pub fn release(mut self) {
        if let Some(object) = self.object.take() {
            self.pool.give_back(object);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.load.in_use.fetch_sub(1, Ordering::Relaxed);
        if let Some(object) = self.object.take()
            && let Some(server) = Object::take(object).server
        {
            server.close();
        }
    }
}

/// All pools.
pub struct Pools {
    pools: RwLock<HashMap<PoolKey, Arc<Pool>>>,
    limits: Arc<RwLock<Limits>>,
    tls: RwLock<Arc<NodeTls>>,
    workers: usize,
    loads: RwLock<HashMap<NodeAddress, Arc<Load>>>,
    /// See [`Pool`]'s field of this name.
    pub hungry: Arc<Notify>,
}

impl Pools {
    pub fn new(limits: Limits, tls: Arc<NodeTls>, workers: usize) -> Self {
        Pools {
            pools: RwLock::default(),
            limits: Arc::new(RwLock::new(limits)),
            tls: RwLock::new(tls),
            workers,
            loads: RwLock::default(),
            hungry: Arc::default(),
        }
    }

    /// How busy the server at this address is.
    pub fn load(&self, node: &NodeAddress) -> Arc<Load> {
        if let Some(load) = self.loads.read().unwrap_or_else(PoisonError::into_inner).get(node) {
            return load.clone();
        }
        self.loads.write().unwrap_or_else(PoisonError::into_inner).entry(node.clone()).or_default().clone()
    }

    pub fn get(&self, key: &PoolKey, address: &NodeAddress) -> Arc<Pool> {
        // A node of the same name may have been elsewhere.
        let fits = |pool: &Pool| !pool.is_retired() && *pool.address == *address;
        if let Some(pool) = self.pools.read().unwrap_or_else(PoisonError::into_inner).get(key)
            && fits(pool)
        {
            return pool.clone();
        }
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(key) {
            if fits(pool) {
                return pool.clone();
            }
            pool.retire();
        }
        let tls = self.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
        let pool = Arc::new(Pool::new(
            key.clone(),
            Arc::new(address.clone()),
            tls,
            self.limits.clone(),
            self.workers,
            self.hungry.clone(),
            self.load(address),
        ));
        pools.insert(key.clone(), pool.clone());
        pool
    }

    pub fn all(&self) -> Vec<Arc<Pool>> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The most connections that a pool to come may have.
    pub fn size_limit(&self) -> usize {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).pool_size
    }

    /// Applies new bounds to pools that exist and to those to come.
    pub fn set_limits(&self, limits: Limits) {
        let size = limits.pool_size;
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
        for pool in self.all() {
            pool.inner.resize(size);
        }
    }

    /// A node's pools are over: connections are closed when they are given back, idle ones at once. Who wants one next
    /// gets it from a new pool.
    pub fn retire(&self, node: &NodeId) {
        self.retire_those(|pool| pool.key.node == *node);
    }

    /// The same of one address.
    pub fn retire_at(&self, address: &NodeAddress) {
        self.retire_those(|pool| *pool.address == *address);
    }

    fn retire_those(&self, is_gone: impl Fn(&Pool) -> bool) {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|_, pool| {
            if is_gone(pool) {
                pool.retire();
            }
            !pool.is_retired()
        });
    }

    /// Nobody reads from the server at this address any more, nor will.
    pub fn remove(&self, address: &NodeAddress) {
        self.retire_at(address);
        self.loads.write().unwrap_or_else(PoisonError::into_inner).remove(address);
    }

    /// Connections opened until now keep what they started with; none of them serves another transaction.
    pub fn renew(&self) {
        for pool in self.all() {
            pool.generation.fetch_add(1, Ordering::Relaxed);
            pool.close_idle(|_| true);
        }
    }

    /// Closes idle connections to a database.
    pub fn empty_database(&self, database: &str) -> usize {
        self.all().iter().filter(|pool| &*pool.key.database == database).map(|pool| pool.close_idle(|_| true)).sum()
    }

    /// Closes what has been idle or alive for too long; called every few seconds.
    pub fn reap(&self) {
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner).clone();
        for pool in self.all() {
            pool.close_idle(|server| {
                server.idle_since.elapsed() > limits.idle_timeout || server.opened.elapsed() > limits.lifetime
            });
        }
        // A pool nobody holds and with nothing in it costs memory for a role or database that may never come back.
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|_, pool| Arc::strong_count(pool) > 1 || pool.status().0 > 0);
    }

    pub fn close(&self) {
        for pool in self.all() {
            pool.retire();
        }
    }
}
