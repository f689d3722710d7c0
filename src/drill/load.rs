//! Clients that write down everything they did and were told: what [`super::checker`] judges by.
//!
//! Each is a thread with one connection, as an application has. It repeats what it was told has failed only where an
//! application would (a transfer), with a new id, so that nothing may ever be there twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::clients;
use super::network::{HUB, Network};
use super::reach::{Account, Reach};

/// Ids are `session * SESSION + n`, so that whose it was can be seen, and a session's ids grow.
pub const SESSION: u64 = 1_000_000;
pub const ACCOUNTS: u64 = 10;
/// In each at the beginning.
pub const BALANCE: i64 = 1000;

/// The tables, before the first client. There is no unique key: something written twice has to show.
pub const TABLES: &str = "
    CREATE TABLE ledger (id bigint NOT NULL);
    CREATE INDEX ON ledger (id);
    CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
    INSERT INTO accounts SELECT id, 1000 FROM generate_series(1, 10) AS id";

/// Errors of each kind that are kept with their words.
pub const SAMPLES: usize = 8;

/// What a client was told of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged,
    /// By an error: it must not be there. The SQLSTATE.
    Failed(String),
    /// 08007, or the connection ended before there was an answer. Either may be true.
    Unknown(String),
}

#[derive(Clone, Debug)]
pub struct Write {
    pub id: u64,
    pub sent: Duration,
    pub done: Duration,
    /// How much of the time between was spent waiting for answers: some clients think in the middle.
    pub waited: Duration,
    pub outcome: Outcome,
}

/// A read that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    pub sent: Duration,
    pub done: Duration,
}

/// A session's look at the greatest id it has written. It may not be smaller than what it was told or saw before.
#[derive(Clone, Debug)]
pub struct Look {
    pub at: Duration,
    pub expected: u64,
    pub seen: u64,
}

/// After an unknown outcome, what the session then found on the primary.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub id: u64,
    pub is_there: bool,
}

#[derive(Clone, Debug)]
pub struct Dropped {
    pub at: Duration,
    pub session: u64,
    pub kind: &'static str,
    /// The SQLSTATE of the last words, or what the socket said.
    pub why: String,
}

/// All that was heard. Times are since the beginning of the load.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub writes: Vec<Write>,
    pub looks: Vec<Look>,
    pub resolved: Vec<Resolved>,
    pub reads: Vec<Read>,
    /// Of all accounts, as somebody saw it.
    pub sums: Vec<(Duration, i64)>,
    /// Errors of reads and of ends of transactions, by SQLSTATE.
    pub other_errors: BTreeMap<String, usize>,
    /// When a client was told of an error, whatever it had asked.
    pub errors: Vec<Duration>,
    pub dropped: Vec<Dropped>,
    /// Logins that were refused or never answered, by SQLSTATE or by what the socket said.
    pub refused: BTreeMap<String, usize>,
    /// The first words of each SQLSTATE.
    pub samples: BTreeMap<String, Vec<String>>,
    /// What no client should ever see: another's setting, a statement forgotten.
    pub broken: Vec<String>,
}

impl Log {
    pub fn add(&mut self, other: Log) {
        self.writes.extend(other.writes);
        self.looks.extend(other.looks);
        self.resolved.extend(other.resolved);
        self.reads.extend(other.reads);
        self.errors.extend(other.errors);
        self.sums.extend(other.sums);
        self.dropped.extend(other.dropped);
        self.broken.extend(other.broken);
        for (code, samples) in other.samples {
            let known = self.samples.entry(code).or_default();
            known.extend(samples);
            known.truncate(SAMPLES);
        }
        for (from, to) in [(other.other_errors, &mut self.other_errors), (other.refused, &mut self.refused)] {
            for (what, count) in from {
                *to.entry(what).or_default() += count;
            }
        }
    }

    /// Between two acknowledgements after `from`, the longest time without any.
    pub fn write_gap(&self, from: Duration) -> Duration {
        let acknowledged = self.writes.iter().filter(|write| write.outcome == Outcome::Acknowledged);
        longest_gap(acknowledged.map(|write| write.done).collect(), from)
    }

    /// The same of a part of the story.
    pub fn write_gap_within(&self, from: Duration, to: Duration) -> Duration {
        let acknowledged =
            self.writes.iter().filter(|write| write.outcome == Outcome::Acknowledged && write.done <= to);
        longest_gap(acknowledged.map(|write| write.done).collect(), from)
    }

    pub fn read_gap(&self, from: Duration) -> Duration {
        longest_gap(self.reads.iter().map(|read| read.done).collect(), from)
    }
}

fn longest_gap(mut times: Vec<Duration>, from: Duration) -> Duration {
    times.push(from);
    times.sort_unstable();
    times.retain(|time| *time >= from);
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// How many of each kind of client there are.
#[derive(Clone, Copy, Debug)]
pub struct Crew {
    pub writers: usize,
    pub transfers: usize,
    pub own_readers: usize,
    pub readers: usize,
    pub idle: usize,
}

impl Crew {
    /// All of them.
    pub fn size(&self) -> usize {
        let Crew { writers, transfers, own_readers, readers, idle } = self;
        writers + transfers + own_readers + readers + idle
    }
}

pub const CREW: Crew = Crew { writers: 16, transfers: 4, own_readers: 4, readers: 2, idle: 4 };

/// What the clients share.
pub struct Shared {
    pub reach: Reach,
    pub account: Account,
    network: Option<Arc<Network>>,
    began: Instant,
    stop: AtomicBool,
    /// Of the writes that were acknowledged, when the last one to be sent was sent, in microseconds.
    last_acknowledged: AtomicU64,
    last_read: AtomicU64,
    /// Clients that are connected.
    pub connected: AtomicU64,
}

impl Shared {
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn note_acknowledged(&self, sent: Duration) {
        self.last_acknowledged.fetch_max(sent.as_micros() as u64, Ordering::Relaxed);
    }

    pub fn note_read(&self, sent: Duration) {
        self.last_read.fetch_max(sent.as_micros() as u64, Ordering::Relaxed);
    }
}

/// Clients at work, until [`Load::end`].
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    log: Arc<Mutex<Log>>,
}

impl Load {
    /// Of a throw-away cluster. With a network, all of them are in that of the clients.
    pub fn start(reach: impl Into<Reach>, network: Option<Arc<Network>>, crew: Crew) -> Load {
        Load::start_as(Account::default(), reach, network, crew)
    }

    /// The same as somebody else.
    pub fn start_as(account: Account, reach: impl Into<Reach>, network: Option<Arc<Network>>, crew: Crew) -> Load {
        let shared = Arc::new(Shared {
            reach: reach.into(),
            account,
            network,
            began: Instant::now(),
            stop: AtomicBool::new(false),
            last_acknowledged: AtomicU64::new(0),
            last_read: AtomicU64::new(0),
            connected: AtomicU64::new(0),
        });
        let log = Arc::new(Mutex::new(Log::default()));
        let Crew { writers, transfers, own_readers, readers, idle } = crew;
        let mut acts: Vec<clients::Act> = Vec::new();
        acts.extend((0..writers).map(|number| clients::WRITERS[number % clients::WRITERS.len()]));
        acts.extend(std::iter::repeat_n(clients::transfer as clients::Act, transfers));
        acts.extend(std::iter::repeat_n(clients::read_own as clients::Act, own_readers));
        acts.extend(std::iter::repeat_n(clients::read as clients::Act, readers));
        acts.extend(std::iter::repeat_n(clients::idle as clients::Act, idle));
        let threads = acts.into_iter().zip(1..).map(|(act, session)| {
            let (shared, log) = (shared.clone(), log.clone());
            std::thread::spawn(move || {
                if let Some(network) = &shared.network {
                    network.enter(HUB);
                }
                let own = clients::live(&shared, session, act);
                log.lock().unwrap_or_else(PoisonError::into_inner).add(own);
            })
        });
        Load { threads: threads.collect(), shared, log }
    }

    pub fn now(&self) -> Duration {
        self.shared.now()
    }

    pub fn connected(&self) -> u64 {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// Whether something that was sent after `from` has been acknowledged.
    pub fn has_written_since(&self, from: Duration) -> bool {
        u128::from(self.shared.last_acknowledged.load(Ordering::Relaxed)) > from.as_micros()
    }

    pub fn has_read_since(&self, from: Duration) -> bool {
        u128::from(self.shared.last_read.load(Ordering::Relaxed)) > from.as_micros()
    }

    /// Lets everybody finish what they are at, and gives what they wrote down.
    pub fn end(mut self) -> Log {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}
