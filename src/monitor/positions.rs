//! How far each node is in the write-ahead log, asked again and again: the numbers that freshness is judged by.
//!
//! What matters about an answer is not when it came but when it was asked for: an LSN that the primary gave in answer to a
//! question asked after a commit is at or past that commit. So questions are numbered. Who wants to know later whether
//! something lies behind it remembers how many had been asked ([`Positions::asked`]); any answer to a later one will do.
//!
//! Nodes are asked every [`CALM`], and as often as every [`EAGER`] while somebody waits to be allowed elsewhere.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use crate::types::Lsn;

/// Between questions when nobody waits.
pub const CALM: Duration = Duration::from_millis(100);
/// Between questions while somebody does.
pub const EAGER: Duration = Duration::from_millis(5);
/// Answers remembered: between half a second and ten.
const HISTORY: usize = 128;
/// After a node has not answered.
const FAILED: Duration = Duration::from_millis(250);

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Position {
    /// The number of the question; 0 while none was answered.
    pub number: u64,
    pub is_in_recovery: bool,
    /// On a primary the end of what is written, on a standby of what is replayed; 0 while the node does not answer.
    pub lsn: Lsn,
    /// How often it has not answered.
    pub failures: u32,
}

impl Position {
    pub fn is_known(&self) -> bool {
        self.lsn != Lsn(0)
    }
}

#[derive(Default)]
struct Node {
    asked: AtomicU64,
    latest: watch::Sender<Position>,
    /// The last answers, the oldest first: somebody who comes back after a while needs the first that covers what was seen
    /// then, not the last, which no replica may have yet.
    history: Mutex<VecDeque<(u64, Lsn)>>,
    is_wanted: AtomicBool,
    wake: Notify,
}

/// The positions of all nodes, by their place in the topology.
pub struct Positions {
    /// Made when first asked for, as most places stay empty.
    nodes: Box<[OnceLock<Box<Node>>]>,
}

impl Positions {
    pub fn new(places: usize) -> Positions {
        Positions { nodes: (0..places).map(|_| OnceLock::new()).collect() }
    }

    #[inline]
    fn node(&self, place: usize) -> &Node {
        self.nodes[place].get_or_init(Box::default)
    }

    /// Nobody asks this node any more: what it said counts no longer.
    pub fn forget(&self, place: usize) {
        let own = self.node(place);
        own.history.lock().unwrap_or_else(PoisonError::into_inner).clear();
        own.latest.send_modify(|position| {
            position.lsn = Lsn(0);
            position.failures = position.failures.wrapping_add(1);
        });
    }

    /// How many questions have been put to a node so far.
    #[inline]
    pub fn asked(&self, node: usize) -> u64 {
        self.node(node).asked.load(Ordering::SeqCst)
    }

    #[inline]
    pub fn latest(&self, node: usize) -> Position {
        *self.node(node).latest.borrow()
    }

    /// The position in the first answer that is still known to a question numbered above `number`.
    pub fn first_after(&self, node: usize, number: u64) -> Option<Lsn> {
        let history = self.node(node).history.lock().unwrap_or_else(PoisonError::into_inner);
        let at = history.partition_point(|(known, _)| *known <= number);
        history.get(at).map(|(_, lsn)| *lsn)
    }

    /// Somebody waits for the next answer of this node.
    #[inline]
    pub fn want(&self, node: usize) {
        let node = self.node(node);
        if !node.is_wanted.swap(true, Ordering::Relaxed) {
            node.wake.notify_one();
        }
    }

    /// The first answer to a question asked after this call.
    pub async fn next(&self, node: usize) -> Position {
        self.after(node, self.asked(node)).await
    }

    /// The first answer to a question numbered above `number`.
    pub async fn after(&self, node: usize, number: u64) -> Position {
        let mut latest = self.node(node).latest.subscribe();
        self.want(node);
        let answer = latest.wait_for(|position| position.number > number).await.map(|position| *position);
        // The sender lives in `self`, so there always is one.
        answer.unwrap_or_default()
    }

    /// Asks one node for as long as it is polled.
    pub async fn keep_asking<F, E>(&self, node: usize, ask: impl Fn() -> F)
    where
        F: Future<Output = Result<(bool, Lsn), E>>,
    {
        let own = self.node(node);
        loop {
            let begun = Instant::now();
            own.is_wanted.store(false, Ordering::Relaxed);
            let number = own.asked.fetch_add(1, Ordering::SeqCst) + 1;
            let answer = ask().await;
            match answer {
                Ok((is_in_recovery, lsn)) => {
                    {
                        let mut history = own.history.lock().unwrap_or_else(PoisonError::into_inner);
                        if history.len() >= HISTORY {
                            history.pop_front();
                        }
                        history.push_back((number, lsn));
                    }
                    own.latest.send_modify(|position| {
                        *position = Position { number, is_in_recovery, lsn, failures: position.failures };
                    });
                }
                Err(_) => {
                    // What it said before may not hold when it comes back.
                    self.forget(node);
                    sleep_until(begun + FAILED).await;
                    continue;
                }
            }
            tokio::select! {
                () = sleep_until(begun + CALM) => {}
                () = own.wake.notified() => sleep_until(begun + EAGER).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn an_answer_counts_by_when_it_was_asked_for() {
        let positions = Arc::new(Positions::new(1));
        let asking = positions.clone();
        let lsn = Arc::new(AtomicU64::new(10));
        let written = lsn.clone();
        let task = tokio::spawn(async move {
            asking
                .keep_asking(0, || std::future::ready(Ok::<_, ()>((false, Lsn(written.load(Ordering::SeqCst))))))
                .await
        });
        let first = positions.next(0).await;
        assert_eq!(first.lsn, Lsn(10));
        for commit in 11..40 {
            lsn.store(commit, Ordering::SeqCst);
            let seen = positions.next(0).await;
            assert!(seen.lsn >= Lsn(commit), "asked after commit {commit}, told {}", seen.lsn);
        }
        task.abort();
    }

    #[tokio::test]
    async fn what_a_node_said_does_not_outlive_its_silence() {
        let positions = Positions::new(1);
        let asked =
            tokio::time::timeout(Duration::from_millis(20), positions.keep_asking(0, || std::future::ready(Err(()))));
        assert!(asked.await.is_err());
        assert_eq!((positions.latest(0), positions.asked(0)), (Position { failures: 1, ..Position::default() }, 1));
    }
}
