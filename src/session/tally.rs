//! What passes through, counted for each database: transactions, statements, bytes, and where the time goes.
//!
//! It is counted on the path of every statement, so each worker has numbers of its own, which nobody else writes: no lock,
//! no cache line that two cores want, not even an atomic addition. Whoever asks adds them up.
//!
//! A transaction costs two looks at the clock: when its first message is sent to a server, and when its last answer has
//! come. In a block each further statement costs two more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::Session;
use crate::pool::memory::Answered;
use crate::telemetry::distribution::Distribution;
use crate::telemetry::metric::Metric;

pub const TRANSACTIONS: Metric = Metric::counter(
    "pgbaton_transactions",
    "Transactions that ended, in whatever way; a statement outside of a block is one.",
);
pub const ANSWERED: Metric = Metric::counter(
    "pgbaton_answered_statements",
    "Statements that servers answered, with a result or an error; of a block or a pipeline each one.",
);
pub const ERRORS: Metric = Metric::counter("pgbaton_errors", "Errors of a server that clients were told.");
pub const RECEIVED: Metric = Metric::counter("pgbaton_received_bytes", "What clients sent, without TLS.").unit("bytes");
pub const SENT: Metric =
    Metric::counter("pgbaton_sent_bytes", "What servers sent to be passed on to clients, without TLS.").unit("bytes");
pub const TRANSACTION_TIME: Metric = Metric::counter(
    "pgbaton_transaction_seconds",
    "Time that clients were in transactions, from the first message sent to a server to the last answer.",
)
.unit("seconds");
pub const WAITED: Metric = Metric::counter(
    "pgbaton_wait_seconds",
    "Time that clients waited for a server connection, also while there was no primary.",
)
.unit("seconds");
pub const QUERY: Metric = Metric::histogram(
    "pgbaton_query_seconds",
    "How long servers took to answer, from a message sent to the last answer that was due.",
)
.unit("seconds")
.labels(&["target"]);

/// Values of `target`.
pub const TARGETS: [&str; 2] = ["primary", "replica"];

/// Bounds of [`QUERY`], in microseconds: from an index lookup on the same machine to what somebody should look at.
pub const BOUNDS: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// Databases that are counted apart; all others together.
const DATABASES: usize = 1_000;

/// What all those are called.
const OTHERS: &str = "(others)";

/// How far back averages reach; PgBouncer's `stats_period`.
const PERIOD: Duration = Duration::from_secs(60);

/// Looks at the numbers that are kept for that. Who looks more often than every [`PERIOD`] / `LOOKS` has a shorter period.
const LOOKS: usize = 64;

/// The numbers of one worker for one database. Only that worker writes them, so what it has read nobody else has changed.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct Counts {
    transactions: AtomicU64,
    statements: AtomicU64,
    errors: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    transaction_us: AtomicU64,
    wait_us: AtomicU64,
    assignments: AtomicU64,
    query_us: [AtomicU64; 2],
    queries: [[AtomicU64; BOUNDS.len() + 1]; 2],
}

#[inline]
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

impl Counts {
    #[inline]
    pub fn receive(&self, bytes: usize) {
        add(&self.received, bytes as u64);
    }

    #[inline]
    pub fn send(&self, bytes: usize) {
        add(&self.sent, bytes as u64);
    }

    #[inline]
    pub fn assign(&self) {
        add(&self.assignments, 1);
    }

    pub fn wait(&self, us: u64) {
        add(&self.wait_us, us);
    }

    #[inline]
    fn answer(&self, answered: Answered) {
        add(&self.statements, answered.statements.into());
        add(&self.transactions, answered.transactions.into());
        if answered.errors > 0 {
            add(&self.errors, answered.errors.into());
        }
    }

    #[inline]
    fn query(&self, on_replica: bool, us: u64) {
        let target = usize::from(on_replica);
        add(&self.query_us[target], us);
        add(&self.queries[target][Distribution::place(BOUNDS, us)], 1);
    }

    fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let queries = |target: usize| {
            let counts = self.queries[target].iter().map(read).collect();
            Distribution::of(BOUNDS, counts, read(&self.query_us[target]))
        };
        Totals {
            transactions: read(&self.transactions),
            statements: read(&self.statements),
            errors: read(&self.errors),
            received: read(&self.received),
            sent: read(&self.sent),
            transaction_us: read(&self.transaction_us),
            wait_us: read(&self.wait_us),
            assignments: read(&self.assignments),
            queries: [queries(0), queries(1)],
        }
    }
}

/// What has been counted, since the start or within a period.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Totals {
    pub transactions: u64,
    pub statements: u64,
    pub errors: u64,
    /// From clients, in bytes.
    pub received: u64,
    /// From servers, in bytes.
    pub sent: u64,
    pub transaction_us: u64,
    pub wait_us: u64,
    /// How often a client was given a server connection.
    pub assignments: u64,
    /// How long answers took, from the primary and from replicas.
    pub queries: [Distribution; 2],
}

impl Default for Totals {
    fn default() -> Self {
        Totals {
            transactions: 0,
            statements: 0,
            errors: 0,
            received: 0,
            sent: 0,
            transaction_us: 0,
            wait_us: 0,
            assignments: 0,
            queries: [Distribution::new(BOUNDS), Distribution::new(BOUNDS)],
        }
    }
}

impl Totals {
    pub fn merge(&mut self, other: &Totals) {
        self.transactions += other.transactions;
        self.statements += other.statements;
        self.errors += other.errors;
        self.received += other.received;
        self.sent += other.sent;
        self.transaction_us += other.transaction_us;
        self.wait_us += other.wait_us;
        self.assignments += other.assignments;
        self.queries.iter_mut().zip(&other.queries).for_each(|(queries, more)| queries.merge(more));
    }

    fn since(&self, earlier: &Totals) -> Totals {
        Totals {
            transactions: self.transactions.saturating_sub(earlier.transactions),
            statements: self.statements.saturating_sub(earlier.statements),
            errors: self.errors.saturating_sub(earlier.errors),
            received: self.received.saturating_sub(earlier.received),
            sent: self.sent.saturating_sub(earlier.sent),
            transaction_us: self.transaction_us.saturating_sub(earlier.transaction_us),
            wait_us: self.wait_us.saturating_sub(earlier.wait_us),
            assignments: self.assignments.saturating_sub(earlier.assignments),
            queries: [0, 1].map(|target| self.queries[target].since(&earlier.queries[target])),
        }
    }

    pub fn query_us(&self) -> u64 {
        self.queries.iter().map(Distribution::sum_us).sum()
    }
}

/// Of all together.
pub fn sum<'a>(all: impl Iterator<Item = &'a Totals>) -> Totals {
    let mut sum = Totals::default();
    all.for_each(|one| sum.merge(one));
    sum
}

type ByDatabase = HashMap<Arc<str>, Totals>;

/// The numbers of all workers and databases.
pub struct Tallies {
    workers: usize,
    /// One that is gone keeps its numbers: sums that fall look like a restart to whoever watches them.
    databases: Mutex<HashMap<Arc<str>, Vec<Arc<Counts>>>>,
    looks: Mutex<VecDeque<(Instant, ByDatabase)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tallies {
    pub fn new(workers: usize) -> Tallies {
        let first = (Instant::now(), ByDatabase::default());
        Tallies { workers, databases: Mutex::default(), looks: Mutex::new([first].into()) }
    }

    /// Where this worker counts what passes for this database.
    pub fn of(&self, database: &Arc<str>, worker: usize) -> Arc<Counts> {
        let mut databases = lock(&self.databases);
        let is_known = databases.contains_key(database) || databases.len() < DATABASES;
        let name = if is_known { database.clone() } else { OTHERS.into() };
        let workers = databases.entry(name).or_insert_with(|| (0..self.workers).map(|_| Arc::default()).collect());
        // A worker without a place here would be one that nobody counted at the start: it counts for nobody.
        workers.get(worker).cloned().unwrap_or_default()
    }

    /// Since the start, by database.
    pub fn all(&self) -> ByDatabase {
        let databases = lock(&self.databases);
        let total = |workers: &Vec<Arc<Counts>>| {
            let mut total = Totals::default();
            workers.iter().for_each(|counts| total.merge(&counts.totals()));
            total
        };
        databases.iter().map(|(name, workers)| (name.clone(), total(workers))).collect()
    }

    /// Remembers how things are now: called every few seconds.
    pub fn look(&self, now: Instant) {
        let all = self.all();
        let mut looks = lock(&self.looks);
        looks.push_back((now, all));
        // The oldest one kept is as old as the period, or not quite.
        while looks.len() > LOOKS || looks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= PERIOD) {
            looks.pop_front();
        }
    }

    /// What was counted since an earlier look, by database, and how long that was: since the oldest of the period, or
    /// the one before the last.
    fn since(&self, now: Instant, which: impl Fn(usize) -> usize) -> (Duration, ByDatabase) {
        let mut all = self.all();
        let looks = lock(&self.looks);
        // There is one from the start on.
        let Some((at, earlier)) = looks.get(which(looks.len())) else { return (Duration::ZERO, all) };
        for (name, totals) in &mut all {
            if let Some(earlier) = earlier.get(name) {
                *totals = totals.since(earlier);
            }
        }
        (now.duration_since(*at), all)
    }

    /// The last minute, or since the start if that is less.
    pub fn period(&self, now: Instant) -> (Duration, ByDatabase) {
        self.since(now, |_| 0)
    }

    /// The last few seconds.
    pub fn lately(&self, now: Instant) -> (Duration, ByDatabase) {
        self.since(now, |looks| looks.saturating_sub(2))
    }
}

impl Session {
    /// Something of the client's is about to be sent to a server, if it is not all of it answered already.
    #[inline]
    pub(super) fn note_asked(&mut self) {
        if !self.me.client.is_asking() && !self.machine.is_quiet() {
            self.me.client.ask_server();
        }
    }

    /// The server has said something: counts it before the client hears of it.
    #[inline]
    pub(super) fn note_answered(&mut self) {
        let Some(lease) = &mut self.lease else { return };
        let answered = std::mem::take(&mut lease.server().memory.answered);
        if answered == Answered::default() {
            return;
        }
        let client = &self.me.client;
        client.tally.answer(answered);
        if client.is_asking() && self.machine.is_quiet() {
            let (took, transaction) = client.take_answer(answered.transactions > 0);
            client.tally.query(self.machine.is_on_replica(), took);
            if let Some(transaction) = transaction {
                add(&client.tally.transaction_us, transaction);
            }
        }
        if answered.renamed {
            client.set_application_name(self.machine.parameters().get("application_name").unwrap_or(""));
        }
    }

    /// Nothing is under way any more, however that came about.
    #[inline]
    pub(super) fn note_over(&mut self) {
        self.me.client.forget_asking();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(counts: &Counts, transactions: u32, us: u64) {
        counts.answer(Answered { statements: transactions * 2, transactions, ..Answered::default() });
        counts.query(true, us);
    }

    #[test]
    fn each_worker_counts_for_itself_and_sums_are_of_all() {
        let tallies = Tallies::new(2);
        let shop: Arc<str> = "shop".into();
        counted(&tallies.of(&shop, 0), 3, 150);
        counted(&tallies.of(&shop, 1), 4, 300);
        counted(&tallies.of(&"other".into(), 1), 1, 1);
        let all = tallies.all();
        assert_eq!((all["shop"].transactions, all["shop"].statements, all["shop"].query_us()), (7, 14, 450));
        assert_eq!(sum(all.values()).transactions, 8);
        assert_eq!((all["shop"].queries[0].count(), all["shop"].queries[1].count()), (0, 2));
    }

    #[test]
    fn averages_are_of_the_last_minute() {
        let tallies = Tallies::new(1);
        let shop: Arc<str> = "shop".into();
        let counts = tallies.of(&shop, 0);
        let start = lock(&tallies.looks)[0].0;
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        counted(&counts, 10, 1);
        assert_eq!(tallies.period(at(2)).0, Duration::from_secs(2));
        assert_eq!(tallies.period(at(2)).1["shop"].transactions, 10);
        for second in (5..=100).step_by(5) {
            counted(&counts, 1, 1);
            tallies.look(at(second));
        }
        let (period, all) = tallies.period(at(100));
        assert_eq!((period.as_secs(), all["shop"].transactions), (60, 12));
        let (period, all) = tallies.lately(at(101));
        assert_eq!((period.as_secs(), all["shop"].transactions), (6, 1));
    }

    #[test]
    fn databases_beyond_the_bound_are_counted_together() {
        let tallies = Tallies::new(1);
        for number in 0..DATABASES + 5 {
            let name: Arc<str> = format!("db{number}").into();
            counted(&tallies.of(&name, 0), 1, 1);
        }
        let all = tallies.all();
        assert_eq!((all.len(), all[OTHERS].transactions), (DATABASES + 1, 5));
    }
}
