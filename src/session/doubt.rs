//! Commits in doubt: sent to a primary that was lost before it answered.
//!
//! A session that knows the transaction's id registers it and waits. The control plane asks the candidate about all of them
//! while that is still in recovery ([`Doubts::pending`]), and tells what came of it when the new epoch opens
//! ([`Doubts::deliver`]). Later the question would be meaningless: transaction ids are given out again by a new primary, and
//! the answer may be about somebody else's. So a commit of an epoch that is over by then stays in doubt for ever.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::telemetry::metric::Metric;
use crate::types::Epoch;

pub const IN_DOUBT: Metric = Metric::counter(
    "pgbaton_in_doubt",
    "Commits whose answer was lost with their server, by what their clients were told.",
)
.labels(&["outcome"]);

/// What became of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Verdict {
    Committed,
    Aborted,
    Unknown,
}

impl Verdict {
    pub const ALL: [Verdict; 3] = [Verdict::Committed, Verdict::Aborted, Verdict::Unknown];

    /// The label of `pgbaton_in_doubt_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Committed => "committed",
            Verdict::Aborted => "aborted",
            Verdict::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Default)]
pub struct Doubts {
    state: Mutex<State>,
    outcomes: [AtomicU64; 3],
    acknowledged: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// The newest epoch that was opened: what is of one before can no longer be asked about.
    open: Epoch,
    /// By transaction id. One for each client at the most.
    waiting: BTreeMap<u64, Vec<(Epoch, oneshot::Sender<Verdict>)>>,
}

impl Doubts {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit of this epoch is in doubt. What the control plane finds out comes through the receiver, if anything does:
    /// the wait has to be bounded.
    pub fn register(&self, epoch: Epoch, xid: u64) -> oneshot::Receiver<Verdict> {
        let (tell, told) = oneshot::channel();
        let mut state = self.lock();
        if epoch < state.open {
            // Nobody waits any less for it if the receiver is gone.
            let _ = tell.send(Verdict::Unknown);
        } else {
            state.waiting.entry(xid).or_default().push((epoch, tell));
        }
        told
    }

    /// The transaction ids to ask the candidate about, each once, in order.
    pub fn pending(&self) -> Vec<u64> {
        let mut state = self.lock();
        let open = state.open;
        state.waiting.retain(|_, waiting| {
            // Of those of an epoch that is over nothing can be known any more, and dropping it says so.
            waiting.retain(|(epoch, tell)| *epoch >= open && !tell.is_closed());
            !waiting.is_empty()
        });
        state.waiting.keys().copied().collect()
    }

    /// What the candidate said of each, `true`: committed. Whoever waits for one that is not among them learns that nobody
    /// knows.
    pub fn deliver(&self, outcomes: &HashMap<u64, bool>) {
        let mut state = self.lock();
        let open = state.open;
        for (xid, waiting) in std::mem::take(&mut state.waiting) {
            for (epoch, tell) in waiting {
                let verdict = match outcomes.get(&xid) {
                    Some(true) if epoch >= open => Verdict::Committed,
                    Some(false) if epoch >= open => Verdict::Aborted,
                    _ => Verdict::Unknown,
                };
                // One that has gone does not want to know.
                let _ = tell.send(verdict);
            }
        }
    }

    /// What is known of some, while the epoch goes on; the others wait on.
    pub fn deliver_some(&self, outcomes: &HashMap<u64, bool>) {
        let mut state = self.lock();
        let open = state.open;
        for (xid, is_committed) in outcomes {
            let verdict = if *is_committed { Verdict::Committed } else { Verdict::Aborted };
            let Some(waiting) = state.waiting.get_mut(xid) else { continue };
            for (_, tell) in waiting.extract_if(.., |(epoch, _)| *epoch == open) {
                // One that has gone does not want to know.
                let _ = tell.send(verdict);
            }
        }
        state.waiting.retain(|_, waiting| !waiting.is_empty());
    }

    /// A new epoch begins: what is registered later of one before is too late.
    pub(super) fn open(&self, epoch: Epoch) {
        let mut state = self.lock();
        state.open = state.open.max(epoch);
    }

    /// A client was told that something is committed that may have written.
    #[inline]
    pub fn acknowledge(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was, since the start.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// A client was told this of a commit in doubt.
    pub fn count(&self, verdict: Verdict) {
        self.outcomes[verdict as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often each was told, since the start.
    pub fn counted(&self) -> [(&'static str, u64); 3] {
        Verdict::ALL.map(|verdict| (verdict.as_str(), self.outcomes[verdict as usize].load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_hears_of_its_own_commit() {
        let doubts = Doubts::default();
        let mut waiting: Vec<_> = [5, 7, 9, 5].iter().map(|xid| doubts.register(Epoch(1), *xid)).collect();
        drop(doubts.register(Epoch(1), 8));
        assert_eq!(doubts.pending(), [5, 7, 9]);
        doubts.deliver(&HashMap::from([(5, true), (7, false)]));
        let heard: Vec<_> = waiting.iter_mut().map(|told| told.try_recv().unwrap()).collect();
        assert_eq!(heard, [Verdict::Committed, Verdict::Aborted, Verdict::Unknown, Verdict::Committed]);
        assert!(doubts.pending().is_empty());
    }

    #[test]
    fn one_that_comes_late_is_never_asked_of_a_later_candidate() {
        let doubts = Doubts::default();
        let mut before = doubts.register(Epoch(1), 5);
        doubts.open(Epoch(2));
        // By now the number may be somebody else's.
        assert_eq!(doubts.register(Epoch(1), 5).try_recv(), Ok(Verdict::Unknown));
        assert!(doubts.pending().is_empty());
        assert!(before.try_recv().is_err(), "whoever waits hears that there is no answer to wait for");
        let mut of_two = doubts.register(Epoch(2), 5);
        assert_eq!(doubts.pending(), [5]);
        doubts.deliver(&HashMap::from([(5, true)]));
        assert_eq!(of_two.try_recv(), Ok(Verdict::Committed));
    }
}
