//! Whether the primary may be used: closed while it changes, open under one epoch at a time.
//!
//! Each opening and closing is a *generation*. A session notes the one under which it takes a connection to the primary
//! (its *pass*, kept with its [`Client`](super::clients::Client)), and compares it with the gate's at every poll, before it
//! passes anything on either way. When the generation has changed, whoever has a pass of before is woken and lets go of its
//! connection; only then is its pass given back, so that the control plane can wait for the last one.
//!
//! Neither side can miss the other: a session shows its pass before it looks at the gate, and the gate changes before it
//! looks for passes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::shared::Shared;
use crate::types::Epoch;

/// How often it is looked whether everybody has let go.
const LOOK: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub struct Gate {
    /// Even while open, odd while closed.
    generation: AtomicU64,
    state: Mutex<State>,
    changed: Notify,
}

/// What is known of the gate, for those who wait at it and for messages.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// That of the primary, or the one that is to come; 0 while nobody has said.
    pub epoch: Epoch,
    /// The last epoch under which it was open, and the one before the last closing.
    pub given_up: Epoch,
    /// Why it is closed; empty while open.
    pub reason: String,
    /// Since when it is closed.
    pub since: Option<Instant>,
}

impl Default for Gate {
    fn default() -> Self {
        // 0 stands for no pass.
        Gate { generation: AtomicU64::new(2), state: Mutex::default(), changed: Notify::new() }
    }
}

impl Gate {
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    #[inline]
    pub fn is_open(&self) -> bool {
        self.generation().is_multiple_of(2)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn state(&self) -> State {
        self.lock().clone()
    }

    pub fn epoch(&self) -> Epoch {
        self.lock().epoch
    }

    /// Waits until the generation is another than this.
    pub async fn left(&self, generation: u64) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.generation() != generation {
                return;
            }
            changed.await;
        }
    }

    fn close(&self, epoch: Epoch, reason: String) {
        let mut state = self.lock();
        state.reason = reason;
        if self.is_open() {
            state.since = Some(Instant::now());
            state.given_up = state.epoch;
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
        state.epoch = epoch;
        drop(state);
        self.changed.notify_waiters();
    }

    /// False if it was open under this epoch already.
    fn open(&self, epoch: Epoch) -> bool {
        let mut state = self.lock();
        let step = match (self.is_open(), state.epoch == epoch) {
            (true, true) => return false,
            // Whatever is held is of another epoch.
            (true, false) => {
                state.given_up = state.epoch;
                2
            }
            (false, _) => 1,
        };
        state.epoch = epoch;
        state.reason.clear();
        state.since = None;
        self.generation.fetch_add(step, Ordering::SeqCst);
        drop(state);
        self.changed.notify_waiters();
        true
    }
}

impl Shared {
    /// From now on nothing is sent to the primary, and nothing that it says is passed on. `epoch` is the one that is being
    /// opened. What sessions had open there is settled as far as that is possible, and what they want next waits.
    /// The topology without a primary is to be published after this. Can be repeated.
    pub fn close_writes(&self, epoch: Epoch, reason: String) {
        let was_open = self.gate.is_open();
        self.gate.close(epoch, reason);
        if was_open {
            self.give_up_primary();
        }
    }

    /// The primary may be used, under this epoch. [`Doubts::deliver`](super::doubt::Doubts::deliver) is to come before this,
    /// the topology with its primary is to be published after it. Can be repeated.
    pub fn open_writes(&self, epoch: Epoch) {
        let was_open = self.gate.is_open();
        // Before anybody can have a transaction of this epoch to be in doubt about.
        self.doubts.open(epoch);
        if self.gate.open(epoch) && was_open {
            self.give_up_primary();
        }
    }

    fn give_up_primary(&self) {
        let primary = self.topology.borrow().primary().map(|view| view.address.id.clone());
        if let Some(primary) = primary {
            self.pools.retire(&primary);
        }
        self.wake_holders();
    }

    /// How many may still hold a connection of a generation before.
    fn wake_holders(&self) -> usize {
        let generation = self.gate.generation();
        let mut holders = 0;
        for client in self.clients.all() {
            if client.pass() != 0 && client.pass() != generation {
                holders += 1;
                client.waker.wake();
            }
        }
        holders
    }

    /// Waits until no session holds a connection from before the gate last changed: nothing is passed on any more then, and
    /// each commit in doubt is registered. False if some still do after `limit`.
    pub async fn all_let_go(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.wake_holders() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_a_generation_and_repeating_it_is_none() {
        let gate = Gate::default();
        let first = gate.generation();
        assert!(gate.is_open());
        gate.close(Epoch(2), "down".into());
        let closed = gate.generation();
        assert!(!gate.is_open() && closed != first);
        gate.close(Epoch(3), "still down".into());
        assert_eq!(gate.generation(), closed);
        assert_eq!((gate.state().epoch, gate.state().reason.as_str()), (Epoch(3), "still down"));
        assert!(gate.open(Epoch(3)));
        let opened = gate.generation();
        assert!(gate.is_open() && opened != first && opened != closed);
        assert!(!gate.open(Epoch(3)));
        assert_eq!(gate.generation(), opened);
        // Another epoch without a closing between is another generation all the same.
        assert!(gate.open(Epoch(4)));
        assert!(gate.is_open() && gate.generation() != opened);
    }

    #[tokio::test]
    async fn who_waits_at_the_gate_is_woken() {
        let gate = Gate::default();
        let generation = gate.generation();
        let closes = async {
            tokio::task::yield_now().await;
            gate.close(Epoch(1), String::new());
        };
        tokio::join!(gate.left(generation), closes);
        assert!(!gate.is_open());
    }
}
