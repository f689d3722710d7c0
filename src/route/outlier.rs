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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fail(outliers: &Outliers, node: usize, times: u32, now: u64, most: usize) -> Option<u64> {
        (0..times).filter_map(|_| outliers.failed(node, Millis(now), most)).last().map(|until| until.0)
    }

    #[test]
    fn five_failures_in_a_row_leave_a_replica_out_for_ten_seconds() {
        let outliers = Outliers::new(2);
        assert_eq!(fail(&outliers, 1, 4, 1_000, 1), None);
        outliers.succeeded(1);
        assert_eq!(fail(&outliers, 1, 4, 1_000, 1), None, "a success begins the row anew");
        assert_eq!(outliers.is_ejected(1, Millis(1_000)), None);
        assert_eq!(fail(&outliers, 1, 1, 1_000, 1), Some(11_000));
        assert_eq!(outliers.is_ejected(1, Millis(10_999)), Some(Millis(11_000)));
        assert_eq!(outliers.is_ejected(1, Millis(11_000)), None);
        assert_eq!(outliers.is_ejected(0, Millis(1_000)), None);
    }

    #[test]
    fn statements_that_were_under_way_do_not_make_it_longer() {
        let outliers = Outliers::new(2);
        fail(&outliers, 0, 5, 1_000, 1);
        assert_eq!(fail(&outliers, 0, 20, 5_000, 1), None);
        assert_eq!(outliers.is_ejected(0, Millis(5_000)), Some(Millis(11_000)));
    }

    #[test]
    fn the_first_statement_afterwards_is_a_trial_and_each_time_it_is_longer() {
        let outliers = Outliers::new(2);
        let mut now = 1_000;
        let mut lengths = Vec::new();
        for _ in 0..5 {
            let until = fail(&outliers, 0, if lengths.is_empty() { 5 } else { 1 }, now, 1).unwrap();
            lengths.push((until - now) / 1000);
            now = until;
        }
        assert_eq!(lengths, [10, 20, 30, 40, 50]);
        outliers.succeeded(0);
        assert_eq!(fail(&outliers, 0, 4, now, 1), None, "after a success it takes five again");
        for _ in 0..40 {
            now = fail(&outliers, 0, 5, now, 1).unwrap();
        }
        assert_eq!(fail(&outliers, 0, 5, now, 1), Some(now + LONGEST.0), "but never longer than that");
    }

    #[test]
    fn after_a_good_while_the_count_begins_anew() {
        let outliers = Outliers::new(1);
        let first = fail(&outliers, 0, 5, 1_000, 1).unwrap();
        let second = fail(&outliers, 0, 5, first, 1).unwrap();
        assert_eq!(second - first, 20_000);
        let later = second + FORGET_AFTER.0;
        assert_eq!(fail(&outliers, 0, 5, later - 1, 1), Some(later - 1 + 30_000));
        let later = later - 1 + 30_000 + FORGET_AFTER.0;
        assert_eq!(fail(&outliers, 0, 5, later, 1), Some(later + 10_000));
        outliers.forget(0);
        assert_eq!(outliers.is_ejected(0, Millis(later)), None);
        assert_eq!(fail(&outliers, 0, 4, later, 1), None);
    }

    #[test]
    fn at_least_half_of_the_replicas_stay() {
        let bounds: Vec<usize> = (0..7).map(|replicas| most_out(replicas, Fallback::Primary)).collect();
        assert_eq!(bounds, [0, 1, 1, 1, 2, 2, 3]);
        assert_eq!(
            (most_out(1, Fallback::Wait), most_out(1, Fallback::Error), most_out(2, Fallback::Error)),
            (0, 0, 1)
        );
        let outliers = Outliers::new(3);
        assert!(fail(&outliers, 0, 5, 1_000, 1).is_some());
        assert_eq!(fail(&outliers, 1, 9, 2_000, 1), None, "one of three is out already");
        assert_eq!(fail(&outliers, 1, 1, 11_000, 1), Some(21_000), "it goes when the other is back");
        assert_eq!(fail(&outliers, 2, 9, 12_000, 0), None);
    }

    #[test]
    fn a_number_without_node_is_nobody() {
        let outliers = Outliers::new(0);
        assert_eq!(fail(&outliers, 3, 9, 1_000, 9), None);
        outliers.succeeded(3);
        outliers.forget(3);
        assert_eq!(outliers.is_ejected(3, Millis(0)), None);
    }

    /// Two replicas fail for the fifth time at the very same moment, as near as two threads can meet, many times over.
    #[test]
    fn two_threads_do_not_both_leave_out_the_last_that_may_be() {
        let rounds: Vec<Outliers> = (0..20_000).map(|_| Outliers::new(2)).collect();
        let arrived = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for node in 0..2 {
                let (rounds, arrived) = (&rounds, &arrived);
                scope.spawn(move || {
                    for (round, outliers) in (1..).zip(rounds) {
                        fail(outliers, node, THRESHOLD - 1, 1_000, 1);
                        arrived.fetch_add(1, Relaxed);
                        let mut spins = 0u32;
                        while arrived.load(Relaxed) < 2 * round {
                            // Spinning lets both go on within nanoseconds; yielding helps where there is but one core.
                            spins += 1;
                            if spins.is_multiple_of(10_000) { std::thread::yield_now() } else { std::hint::spin_loop() }
                        }
                        fail(outliers, node, 1, 1_000, 1);
                    }
                });
            }
        });
        for outliers in &rounds {
            let out = (0..2).filter(|node| outliers.is_ejected(*node, Millis(1_000)).is_some()).count();
            assert_eq!(out, 1);
        }
    }

    proptest! {
        #[test]
        fn never_too_many_out_never_too_long_never_without_five_in_a_row(
            steps in proptest::collection::vec((0usize..5, any::<bool>(), 0u64..20_000), 0..400),
        ) {
            let outliers = Outliers::new(5);
            let (mut now, mut rows) = (0, [0; 5]);
            for (node, fails, later) in steps {
                now += later;
                let was_out = outliers.is_ejected(node, Millis(now)).is_some();
                if fails {
                    rows[node] += 1;
                    if let Some(until) = outliers.failed(node, Millis(now), 2) {
                        prop_assert!(rows[node] >= 5 && !was_out);
                        prop_assert!((10_000..=300_000).contains(&(until.0 - now)));
                    }
                } else {
                    outliers.succeeded(node);
                    rows[node] = 0;
                }
                let out = (0..5).filter(|node| outliers.is_ejected(*node, Millis(now)).is_some()).count();
                prop_assert!(out <= 2);
            }
        }
    }
}
