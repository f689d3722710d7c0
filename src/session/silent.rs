//! Replicas that have fallen silent: whoever has a connection there lets go of it, as if it had broken.
//!
//! A frozen server keeps its connections open and says nothing, so that nobody would ever be told. Each node's falling silent
//! and answering again is a generation of its own; a session notes the one under which it turns to a replica (its *footing*,
//! kept with its [`Client`](super::clients::Client)) and compares it wherever it would wait for that replica. As with the
//! gate, the generation changes before it is looked for footings, so neither can miss the other.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use super::Session;
use super::shared::Shared;
use crate::pool::server::Exchange;
use crate::types::{NodeAddress, Role, Topology};

/// A node has as many bits of a footing as there are above those of its generation.
const GENERATION_BITS: u32 = 48;

/// A node's place in the topology, from 1, and its generation; 0 stands for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Footing(u64);

impl Footing {
    fn new(node: usize, generation: u64) -> Footing {
        Footing((node as u64 + 1) << GENERATION_BITS | generation & ((1 << GENERATION_BITS) - 1))
    }

    pub fn bits(self) -> u64 {
        self.0
    }

    pub fn from_bits(bits: u64) -> Footing {
        Footing(bits)
    }

    #[inline]
    fn node(self) -> Option<usize> {
        (self.0 >> GENERATION_BITS).checked_sub(1).map(|node| node as usize)
    }
}

/// Of each node, whether it has fallen silent and how often.
#[derive(Debug)]
pub struct Silence {
    /// Even while the node answers, odd while it is silent.
    generations: Vec<AtomicU64>,
    changed: Notify,
}

impl Silence {
    pub fn new(nodes: usize) -> Silence {
        Silence { generations: (0..nodes).map(|_| AtomicU64::new(0)).collect(), changed: Notify::new() }
    }

    #[inline]
    pub fn footing(&self, node: usize) -> Footing {
        Footing::new(node, self.generations[node].load(Ordering::SeqCst))
    }

    /// Whether the node has been silent since, or was when this was noted.
    #[inline]
    pub fn has_taken(&self, footing: Footing) -> bool {
        let Some(node) = footing.node() else { return false };
        !footing.0.is_multiple_of(2) || self.footing(node) != footing
    }

    /// Waits for that.
    pub async fn takes(&self, footing: Footing) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.has_taken(footing) {
                return;
            }
            changed.await;
        }
    }

    /// True if that is new, and it has fallen silent.
    fn note(&self, node: usize, is_silent: bool) -> bool {
        let Some(generation) = self.generations.get(node) else { return false };
        // Nobody else changes it.
        let was_silent = !generation.load(Ordering::Relaxed).is_multiple_of(2);
        if was_silent == is_silent {
            return false;
        }
        generation.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
        is_silent
    }
}

/// Why a connection to a replica that says nothing is given up.
pub(super) fn fell_silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the replica does not answer")
}

/// What has to stay as it is while a session waits for a server: the gate's generation, or a replica's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ground {
    Primary { pass: u64 },
    Replica(Footing),
}

impl Shared {
    /// Notes which nodes do not answer, and has sessions let go of replicas that have stopped to. Called by the control
    /// plane alone.
    pub fn note_silence(&self, topology: &Topology) {
        for (index, view) in topology.nodes.iter().enumerate() {
            // Both who looks at roles and who asks for positions got no answer: one of them may be unlucky. The gate is
            // there for the primary.
            let is_silent = view.role == Role::Unknown
                && topology.primary != Some(index)
                && !self.readers.positions.latest(index).is_known();
            if self.readers.silence.note(index, is_silent) {
                let waiting = self.leave(index, &view.address);
                if waiting > 0 {
                    tracing::info!(node = %view.address.id, waiting, "node does not answer; what it was asked is given up");
                }
            }
        }
    }

    /// How many may be waiting for it.
    fn leave(&self, node: usize, address: &NodeAddress) -> usize {
        // A connection that was idle all the time might be as good as before; nobody can know.
        self.pools.retire_at(address);
        let mut waiting = 0;
        for client in self.clients.all() {
            if client.footing().node() == Some(node) {
                waiting += 1;
                client.waker.wake();
            }
        }
        waiting
    }

    /// Waits until there is nothing to wait for any more, and says why.
    pub(super) async fn lost(&self, ground: Ground) -> io::Error {
        match ground {
            Ground::Primary { pass: 0 } => std::future::pending().await,
            Ground::Primary { pass } => {
                self.gate.gave_up(pass).await;
                super::losing::given_up(&self.gate)
            }
            Ground::Replica(footing) => {
                self.readers.silence.takes(footing).await;
                fell_silent()
            }
        }
    }

    /// A conversation of our own with a server, as long as that is the one to talk to.
    pub(super) async fn during<T>(
        &self,
        ground: Ground,
        what: impl Future<Output = Result<T, Exchange>>,
    ) -> Result<T, Exchange> {
        tokio::select! {
            biased;
            error = self.lost(ground) => Err(Exchange::Lost(error)),
            result = what => result,
        }
    }
}

impl Session {
    /// Before anything is expected of a replica.
    #[inline]
    pub(super) fn turn_to(&self, node: usize) -> Footing {
        let footing = self.shared.readers.silence.footing(node);
        self.me.client.set_footing(footing);
        footing
    }

    pub(super) fn ground(&self, on_replica: bool) -> Ground {
        match on_replica {
            true => Ground::Replica(self.me.client.footing()),
            false => Ground::Primary { pass: self.me.client.pass() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_silence_takes_those_who_came_before_it_ended() {
        let silence = Silence::new(2);
        let (first, other) = (silence.footing(0), silence.footing(1));
        assert!(!silence.has_taken(first) && !silence.has_taken(Footing::default()));
        assert!(!silence.note(0, false), "it answered all the time");
        assert!(silence.note(0, true));
        assert!(!silence.note(0, true), "it is known");
        let during = silence.footing(0);
        assert!(silence.has_taken(first) && silence.has_taken(during) && !silence.has_taken(other));
        assert!(!silence.note(0, false), "it answers again");
        assert!(silence.has_taken(first) && silence.has_taken(during) && !silence.has_taken(silence.footing(0)));
        assert!(!silence.note(2, true), "there is no such node");
    }

    #[tokio::test]
    async fn who_waits_for_a_silent_replica_is_woken() {
        let silence = Silence::new(1);
        let falls = async {
            tokio::task::yield_now().await;
            silence.note(0, true);
        };
        tokio::join!(silence.takes(silence.footing(0)), falls);
    }
}
