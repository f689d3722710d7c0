//! Whether the primary may be used: closed while it changes, open under one epoch at a time.
//!
//! ```text
//!   Open ──────────────► Closed ──► Open of the next epoch
//!    │ ▲                   ▲
//!    ▼ │                   │
//!   Draining ──────────────┘
//! ```
//!
//! Each opening and closing is a *generation*. A session notes the one under which it takes a connection to the primary
//! (its *pass*, kept with its [`Client`](super::clients::Client)), and compares it with the gate's at every poll, before it
//! passes anything on either way. When the generation has changed, whoever has a pass of before is woken and lets go of its
//! connection; only then is its pass given back, so that the control plane can wait for the last one.
//!
//! Neither side can miss the other: a session shows its pass before it looks at the gate, and the gate changes before it
//! looks for passes.
//!
//! While the gate *drains*, before a planned change of primary, what is open on the primary goes on to its end and nothing
//! else begins. A session that has nothing open there gives its pass back, or, if its connection remembers something that it
//! would miss, keeps both and says that it rests ([`Client::set_drain`](super::clients::Client)): nothing may come of the
//! change, and then the gate is open again under the same generation as before, as if nothing had been.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::shared::Shared;
use crate::telemetry::metric::Metric;
use crate::types::Epoch;

pub const WRITABLE: Metric = Metric::gauge(
    "pgbaton_writable",
    "1 while there is a primary that answers and takes writes through this pgbaton, else 0.",
);

/// How often it is looked whether everybody has let go.
const LOOK: Duration = Duration::from_millis(1);

/// What a generation says, in its last bits: [`Phase`].
const PHASES: u64 = 4;

/// How long commits that are under way when the time to drain is over are waited for: the primary lives and answers them, and
/// what it says is better than what can be found out later.
const ANSWERS: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
enum Phase {
    Open = 0,
    Draining = 1,
    Closed = 2,
}

fn phase(generation: u64) -> Phase {
    match generation % PHASES {
        0 => Phase::Open,
        1 => Phase::Draining,
        _ => Phase::Closed,
    }
}

/// What a session says of itself while the gate drains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Draining {
    /// Nothing yet.
    Unheard = 0,
    /// It has nothing open on the primary, and begins nothing.
    Rests = 1,
    /// It has a transaction open there, of which it is certain that it has not committed.
    Open = 2,
    /// What it has under way there may commit at any moment.
    Commits = 3,
}

#[derive(Debug)]
pub struct Gate {
    /// A multiple of [`PHASES`] while open, and that much more in another phase.
    generation: AtomicU64,
    /// How often it has drained: what a session said in another drain counts for nothing.
    drains: AtomicU64,
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
    /// Why it is closed, or drains; empty while open.
    pub reason: String,
    /// Since when it is closed, or drains.
    pub since: Option<Instant>,
}

impl Default for Gate {
    fn default() -> Self {
        // 0 stands for no pass.
        let (generation, drains) = (AtomicU64::new(PHASES), AtomicU64::new(0));
        Gate { generation, drains, state: Mutex::default(), changed: Notify::new() }
    }
}

impl Gate {
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    #[inline]
    pub fn is_open(&self) -> bool {
        Gate::opens(self.generation())
    }

    /// Whether it was open under that generation.
    #[inline]
    pub fn opens(generation: u64) -> bool {
        phase(generation) == Phase::Open
    }

    pub fn is_draining(&self) -> bool {
        phase(self.generation()) == Phase::Draining
    }

    /// Whether it drains, and what was begun under this pass may go on to its end.
    pub fn drains(&self, pass: u64) -> bool {
        pass != 0 && Gate::opens(pass) && self.generation() == pass + Phase::Draining as u64
    }

    /// Tells this drain from others.
    pub fn drain(&self) -> u64 {
        self.drains.load(Ordering::SeqCst)
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

    /// Waits until what was begun under this pass may not go on.
    pub async fn gave_up(&self, pass: u64) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.generation() != pass && !self.drains(pass) {
                return;
            }
            changed.await;
        }
    }

    /// False if it is not open.
    fn begin_drain(&self, reason: String) -> bool {
        let mut state = self.lock();
        if !self.is_open() {
            return false;
        }
        state.reason = reason;
        state.since = Some(Instant::now());
        self.drains.fetch_add(1, Ordering::SeqCst);
        self.generation.fetch_add(Phase::Draining as u64, Ordering::SeqCst);
        drop(state);
        self.changed.notify_waiters();
        true
    }

    /// Open again as it was, if it drains under this epoch.
    fn end_drain(&self, epoch: Epoch) -> bool {
        let mut state = self.lock();
        if !self.is_draining() || state.epoch != epoch {
            return false;
        }
        state.reason.clear();
        state.since = None;
        self.generation.fetch_sub(Phase::Draining as u64, Ordering::SeqCst);
        drop(state);
        self.changed.notify_waiters();
        true
    }

    fn close(&self, epoch: Epoch, reason: String) {
        let mut state = self.lock();
        state.reason = reason;
        let was = phase(self.generation());
        if was != Phase::Closed {
            state.since = state.since.or_else(|| Some(Instant::now()));
            state.given_up = state.epoch;
            self.generation.fetch_add(Phase::Closed as u64 - was as u64, Ordering::SeqCst);
        }
        state.epoch = epoch;
        drop(state);
        self.changed.notify_waiters();
    }

    /// False if it was open under this epoch already.
    fn open(&self, epoch: Epoch) -> bool {
        let mut state = self.lock();
        let was = phase(self.generation());
        match (was, state.epoch == epoch) {
            (Phase::Open, true) => return false,
            // Whatever is held is of another epoch.
            (Phase::Open | Phase::Draining, _) => state.given_up = state.epoch,
            (Phase::Closed, _) => {}
        }
        let step = PHASES - was as u64;
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
        let was_closed = phase(self.gate.generation()) == Phase::Closed;
        self.gate.close(epoch, reason);
        if !was_closed {
            self.give_up_primary();
        }
    }

    /// The primary may be used, under this epoch. [`Doubts::deliver`](super::doubt::Doubts::deliver) is to come before this,
    /// the topology with its primary is to be published after it. Can be repeated.
    pub fn open_writes(&self, epoch: Epoch) {
        let was_closed = phase(self.gate.generation()) == Phase::Closed;
        // Before anybody can have a transaction of this epoch to be in doubt about.
        self.doubts.open(epoch);
        if self.gate.open(epoch) && !was_closed {
            self.give_up_primary();
        }
    }

    /// The primary is about to be exchanged: what is open there goes on to its end, what is new waits. Followed by
    /// [`close_writes`](Self::close_writes), or by [`resume_writes`](Self::resume_writes).
    pub fn drain_writes(&self, reason: String) {
        if self.gate.begin_drain(reason) {
            self.wake_undrained();
        }
    }

    /// Nothing came of it: everybody goes on as if nothing had been. False if this epoch does not drain.
    pub fn resume_writes(&self, epoch: Epoch) -> bool {
        let resumes = self.gate.end_drain(epoch);
        if resumes {
            self.clients.all().iter().filter(|client| client.pass() != 0).for_each(|client| client.waker.wake());
        }
        resumes
    }

    /// Waits until nobody has a transaction open on the primary, for so long at the most, and a moment more for those that
    /// commit just then. How many are left.
    pub async fn all_drained(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        loop {
            let [unheard, open, commits] = self.wake_undrained();
            let is_late = Instant::now() >= deadline;
            let is_over = unheard + open + commits == 0 || is_late && unheard + commits == 0;
            if is_over || Instant::now() >= deadline + ANSWERS || !self.gate.is_draining() {
                return unheard + open + commits;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many have said nothing yet, have a transaction open, or commit.
    fn wake_undrained(&self) -> [usize; 3] {
        let (generation, drain) = (self.gate.generation(), self.gate.drain());
        let mut counts = [0; 3];
        for client in self.clients.all() {
            if client.pass() == 0 || client.pass() == generation {
                continue;
            }
            match client.drain(drain) {
                Draining::Rests => continue,
                Draining::Unheard => counts[0] += 1,
                Draining::Open => counts[1] += 1,
                Draining::Commits => counts[2] += 1,
            }
            client.waker.wake();
        }
        counts
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

    #[test]
    fn a_drain_that_comes_to_nothing_leaves_no_trace() {
        let gate = Gate::default();
        assert!(gate.open(Epoch(1)));
        let pass = gate.generation();
        assert!(gate.begin_drain("switchover".into()) && !gate.begin_drain("again".into()));
        assert!(!gate.is_open() && gate.drains(pass) && !gate.drains(0) && !gate.drains(pass - PHASES));
        assert!(!gate.end_drain(Epoch(2)) && gate.end_drain(Epoch(1)));
        assert_eq!((gate.generation(), gate.state().reason.as_str(), gate.state().since), (pass, "", None));
        let first = gate.drain();
        assert!(gate.begin_drain("another".into()));
        assert_ne!(gate.drain(), first);
        // What follows is a generation that no pass is of, and then one that is new.
        gate.close(Epoch(2), "closed".into());
        assert!(!gate.drains(pass) && !gate.is_open());
        assert_eq!(gate.state().given_up, Epoch(1));
        assert!(gate.open(Epoch(2)) && gate.is_open() && gate.generation() > pass);
        assert!(gate.begin_drain("and again".into()) && gate.open(Epoch(3)) && gate.is_open());
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
