//! What the load has seen so far, for the lines that tell of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(super) struct Tally(Mutex<Counts>);

struct Counts {
    acknowledged: u64,
    reads: BTreeMap<String, u64>,
    backwards: u64,
    /// By SQLSTATE, or what there was in place of one.
    errors: BTreeMap<String, u64>,
    last: Instant,
    /// The longest time between two acknowledged writes, of whomever: since the start, and since the last mark.
    longest: Duration,
    marked: Duration,
    told: Told,
}

/// What the last line has told already.
struct Told {
    at: Instant,
    acknowledged: u64,
    reads: BTreeMap<String, u64>,
}

/// A second of the load, and what has come together since the start.
pub(super) struct Second {
    pub writes: f64,
    /// By node.
    pub reads: BTreeMap<String, f64>,
    pub errors: BTreeMap<String, u64>,
    pub longest: Duration,
}

/// All of it.
pub(super) struct Total {
    pub reads: BTreeMap<String, u64>,
    pub backwards: u64,
    pub errors: BTreeMap<String, u64>,
    pub longest: Duration,
}

impl Tally {
    pub fn new() -> Tally {
        let now = Instant::now();
        Tally(Mutex::new(Counts {
            acknowledged: 0,
            reads: BTreeMap::new(),
            backwards: 0,
            errors: BTreeMap::new(),
            last: now,
            longest: Duration::ZERO,
            marked: Duration::ZERO,
            told: Told { at: now, acknowledged: 0, reads: BTreeMap::new() },
        }))
    }

    pub fn wrote(&self) {
        let mut counts = self.counts();
        let gap = if counts.acknowledged == 0 { Duration::ZERO } else { counts.last.elapsed() };
        counts.acknowledged += 1;
        counts.last = Instant::now();
        counts.longest = counts.longest.max(gap);
        counts.marked = counts.marked.max(gap);
    }

    pub fn read(&self, node: &str) {
        let mut counts = self.counts();
        match counts.reads.get_mut(node) {
            Some(count) => *count += 1,
            None => drop(counts.reads.insert(node.to_owned(), 1)),
        }
    }

    /// A session saw less than it had seen before.
    pub fn went_back(&self) {
        self.counts().backwards += 1;
    }

    pub fn failed(&self, error: &str) {
        *self.counts().errors.entry(error.to_owned()).or_default() += 1;
    }

    /// [`Tally::pause`] is from now on.
    pub fn mark(&self) {
        self.counts().marked = Duration::ZERO;
    }

    /// The longest time without an acknowledged write since the mark, up to now if it has not ended.
    pub fn pause(&self) -> Duration {
        let counts = self.counts();
        counts.marked.max(counts.last.elapsed())
    }

    /// Whether a write was acknowledged within that time.
    pub fn is_fresh(&self, limit: Duration) -> bool {
        self.counts().last.elapsed() < limit
    }

    /// Since the last call.
    pub fn second(&self) -> Second {
        let mut counts = self.counts();
        let seconds = counts.told.at.elapsed().as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
        let reads = counts.reads.iter().map(|(node, count)| {
            (node.clone(), rate(*count, counts.told.reads.get(node).copied().unwrap_or_default()))
        });
        let second = Second {
            writes: rate(counts.acknowledged, counts.told.acknowledged),
            reads: reads.collect(),
            errors: counts.errors.clone(),
            longest: counts.longest.max(counts.last.elapsed()),
        };
        counts.told = Told { at: Instant::now(), acknowledged: counts.acknowledged, reads: counts.reads.clone() };
        second
    }

    pub fn total(&self) -> Total {
        let counts = self.counts();
        Total {
            reads: counts.reads.clone(),
            backwards: counts.backwards,
            errors: counts.errors.clone(),
            longest: counts.longest,
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
