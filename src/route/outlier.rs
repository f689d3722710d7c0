//! Leaving out a replica that fails statement after statement although it answers the monitor.
//!
//! The monitor asks each node a small question now and then; the reads of clients tell more, and sooner. Whoever fails
//! several times in a row is left out for a while, longer each time, but never so many at once that the others would
//! drown in what they take over.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::Fallback;
use crate::types::Millis;

/// So many failures in a row, without any success between them, and a replica is left out.
pub const THRESHOLD: u32 = 5;
/// For how long the first time; the second time twice as long, and so on.
pub const FIRST: Millis = Millis(10_000);
/// However often.
pub const LONGEST: Millis = Millis(300_000);
/// A replica that was not left out for this long is as good as one that never was.
pub const FORGET_AFTER: Millis = Millis(300_000);

/// How many replicas may be left out at once, of those that could serve.
///
/// Half of them, rounded down, and one of two. An only replica is left out when the primary takes over its reads; where
/// that is not allowed, a replica that may fail is better than none, which does.
pub fn most_out(replicas: usize, fallback: Fallback) -> usize {
    match replicas {
        0 => 0,
        1 => usize::from(fallback == Fallback::Primary),
        _ => replicas / 2,
    }
}

/// Failures of each node, by the caller's numbers from 0. Shared by all threads.
#[derive(Debug)]
pub struct Outliers {
    nodes: Box<[Node]>,
    /// Held while it is decided whether one more may be left out, which must not happen twice at the same moment.
    deciding: Mutex<()>,
}

/// Each by itself in the processor's cache: a node that is failing must not slow down the others' readers.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Node {
    /// Since the last success. Being left out does not end the row: the first statement afterwards is a trial.
    failures: AtomicU32,
    /// How often it was left out in a row.
    ejections: AtomicU32,
    /// In milliseconds; 0 if it never was.
    until: AtomicU64,
}

impl Outliers {
    pub fn new(nodes: usize) -> Self {
        Outliers { nodes: (0..nodes).map(|_| Node::default()).collect(), deciding: Mutex::new(()) }
    }

    /// A statement failed in a way that is the node's fault: its connection broke or could not be made, it took too long.
    /// An error in the statement itself is a success. `most_out` is what [`most_out`] says now.
    ///
    /// Gives the end of the time it is left out if it was this failure that did it, for the log.
    pub fn failed(&self, node: usize, now: Millis, most_out: usize) -> Option<Millis> {
        let own = self.nodes.get(node)?;
        // Saturating: a row of four billion failures is not to end with a wrap to zero.
        let failures = own.failures.fetch_update(Relaxed, Relaxed, |count| Some(count.saturating_add(1)));
        if failures.unwrap_or_default().saturating_add(1) < THRESHOLD {
            return None;
        }
        let _deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        if own.is_out(now) || self.nodes.iter().filter(|other| other.is_out(now)).count() >= most_out {
            return None;
        }
        let ended = own.until.load(Relaxed);
        let forgotten = now.0.saturating_sub(ended) >= FORGET_AFTER.0;
        let times = if forgotten { 1 } else { own.ejections.load(Relaxed).saturating_add(1) };
        let until = Millis(now.0 + LONGEST.0.min(FIRST.0.saturating_mul(u64::from(times))));
        own.ejections.store(times, Relaxed);
        own.until.store(until.0, Relaxed);
        Some(until)
    }

    /// A statement was answered. On the path of each read: one load, and nothing is written unless it had failed before.
    #[inline]
    pub fn succeeded(&self, node: usize) {
        if let Some(own) = self.nodes.get(node)
            && own.failures.load(Relaxed) != 0
        {
            own.failures.store(0, Relaxed);
        }
    }

    /// Until when the node is left out; `None` if it is not.
    pub fn is_ejected(&self, node: usize, now: Millis) -> Option<Millis> {
        let until = self.nodes.get(node)?.until.load(Relaxed);
        (until > now.0).then_some(Millis(until))
    }

    /// The node begins anew: it was restarted, or has another role now.
    pub fn forget(&self, node: usize) {
        if let Some(own) = self.nodes.get(node) {
            let _deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
            own.failures.store(0, Relaxed);
            own.ejections.store(0, Relaxed);
            own.until.store(0, Relaxed);
        }
    }
}

impl Node {
    fn is_out(&self, now: Millis) -> bool {
        self.until.load(Relaxed) > now.0
    }
}
