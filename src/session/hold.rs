//! Statements that wait for a primary: how many may, with how much memory, and what they are told when they may not.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::clients::{Client, Wish};
use super::gate::Gate;
use super::shared::{Settings, Shared};
use crate::net::Stream;
use crate::pool::AcquireError;
use crate::pool::connect::ConnectError;
use crate::telemetry::metric::Metric;
use crate::types::{NodeView, Topology};
use crate::wire::message::Problem;

pub const HELD: Metric = Metric::gauge("pgbaton_held_statements", "Statements that wait for a primary.");

/// How often a primary is tried that cannot be reached, or does not let anybody in yet.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// So much is read ahead from a client that waits, in bytes, so that its going is noticed.
pub(super) const READ_AHEAD: usize = 4096;

/// Everybody who waits.
#[derive(Debug, Default)]
pub struct Hold {
    statements: AtomicUsize,
    bytes: AtomicUsize,
}

/// Stands for one statement that waits.
#[derive(Debug)]
pub struct Held<'a> {
    hold: &'a Hold,
    bytes: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.hold.statements.fetch_sub(1, Ordering::Relaxed);
        self.hold.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Hold {
    /// Statements that wait now: `pgbaton_held_statements`.
    pub fn statements(&self) -> usize {
        self.statements.load(Ordering::Relaxed)
    }

    /// What their clients have sent, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Lets one more wait, whose client has sent so much, if that is within the bounds.
    pub fn enter(&self, bytes: usize, settings: &Settings) -> Result<Held<'_>, Problem> {
        let statements = self.statements.fetch_add(1, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // From here on dropping it takes it off again.
        let entered = Held { hold: self, bytes };
        let reached = match () {
            () if statements >= settings.max_held => {
                format!("{statements} statements are waiting (failover.max_held is {}).", settings.max_held)
            }
            () if held + bytes > settings.max_held_bytes => {
                format!(
                    "Waiting clients have sent {held} bytes (failover.max_held_bytes is {}).",
                    settings.max_held_bytes
                )
            }
            () => return Ok(entered),
        };
        Err(Problem::new("53400", "there is no primary, and too many statements are waiting for one").detail(reached))
    }
}

/// Whether a server that cannot be had may be there again soon, or another in its place: nobody listens, it does not answer,
/// it starts or stops.
pub(super) fn may_pass(error: &AcquireError) -> bool {
    match error {
        AcquireError::Connect(ConnectError::Refused { .. } | ConnectError::Timeout { .. }) => true,
        AcquireError::Connect(ConnectError::Server { sqlstate, .. }) => {
            matches!(sqlstate.as_str(), "57P01" | "57P02" | "57P03")
        }
        _ => false,
    }
}

/// One wait for the primary, from its first disappointment on.
pub(super) struct Wait<'a> {
    shared: &'a Shared,
    topology: watch::Receiver<Arc<Topology>>,
    bytes: usize,
    since: Instant,
    deadline: Instant,
    held: Option<Held<'a>>,
    /// What was tried last, and how it failed.
    last: Option<String>,
}

impl<'a> Wait<'a> {
    /// For a client that has sent so many bytes.
    pub fn new(shared: &'a Shared, bytes: usize) -> Wait<'a> {
        let since = Instant::now();
        let deadline = since + shared.settings.load().hold;
        Wait { shared, topology: shared.topology.clone(), bytes, since, deadline, held: None, last: None }
    }

    pub fn goes_on(&self) -> bool {
        Instant::now() < self.deadline
    }

    /// The primary, its place in the topology and the generation under which it may be used, as soon as there is one.
    pub async fn primary(&mut self) -> Result<(Arc<NodeView>, usize, u64), Problem> {
        loop {
            // First the gate, which changes before the topology does: what is seen together belongs together.
            let generation = self.shared.gate.generation();
            let now = self.topology.borrow_and_update().clone();
            if Gate::opens(generation)
                && let (Some(primary), Some(at)) = (now.primary(), now.primary)
            {
                return Ok((primary.clone(), at, generation));
            }
            self.hold()?;
            tokio::select! {
                changed = self.topology.changed() => {
                    if changed.is_err() {
                        return Err(self.in_vain());
                    }
                }
                () = self.shared.gate.left(generation) => {}
                () = tokio::time::sleep_until(self.deadline) => return Err(self.in_vain()),
            }
        }
    }

    /// What is believed to be the primary cannot be used just now: waits until it is worth trying again.
    pub async fn pause(&mut self, reason: String) -> Result<(), Problem> {
        self.last = Some(reason);
        self.hold()?;
        let generation = self.shared.gate.generation();
        let again = Instant::now() + TRY_AGAIN;
        tokio::select! {
            // One that has no sender any more is not to be asked without end.
            Ok(()) = self.topology.changed() => {}
            () = self.shared.gate.left(generation) => {}
            () = tokio::time::sleep_until(again.min(self.deadline)) => {}
        }
        match self.goes_on() {
            true => Ok(()),
            false => Err(self.in_vain()),
        }
    }

    fn hold(&mut self) -> Result<(), Problem> {
        if self.held.is_none() {
            self.held = Some(self.shared.hold.enter(self.bytes, &self.shared.settings.load())?);
        }
        Ok(())
    }

    fn in_vain(&self) -> Problem {
        in_vain(&self.shared.gate, &self.shared.topology.borrow(), self.since, self.last.clone())
    }
}

/// What a statement is told that has waited in vain since `since`.
fn in_vain(gate: &Gate, topology: &Topology, since: Instant, last: Option<String>) -> Problem {
    let state = gate.state();
    let reason = match () {
        () if !state.reason.is_empty() => state.reason,
        () if topology.primary.is_none() && !topology.reason.is_empty() => topology.reason.clone(),
        () => last.unwrap_or_else(|| "no node says it is the primary".into()),
    };
    let mut detail = format!("Waited {} s (failover.hold).", since.elapsed().as_secs());
    if let Some(closed) = state.since {
        detail += &format!(" There has been no primary for {} s.", closed.elapsed().as_secs());
    }
    let epoch = state.epoch.max(topology.epoch);
    if epoch.0 > 0 {
        detail += &format!(" Epoch {epoch}.");
    }
    Problem::new("57P03", format!("no primary to run the statement on: {reason}"))
        .detail(detail)
        .hint("The statement was not sent anywhere; it can be run again.")
}

/// Waits for something with the client's connection in view: `None` if the client goes, or is told to, meanwhile. What it
/// sends is kept in `ahead`, as far as that is little.
pub(super) async fn while_connected<T>(
    client: &Client,
    stream: &mut Stream,
    ahead: &mut Vec<u8>,
    what: impl Future<Output = T>,
) -> Option<T> {
    let mut what = pin!(what);
    poll_fn(|cx| {
        client.waker.register(cx.waker());
        if client.wish() == Wish::Kill {
            return Poll::Ready(None);
        }
        if let Poll::Ready(result) = what.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        while ahead.len() < READ_AHEAD {
            let mut bytes = [0; READ_AHEAD];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => ahead.extend_from_slice(buffer.filled()),
                Poll::Ready(_) => return Poll::Ready(None),
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings() -> Settings {
        Settings {
            session_mode: false,
            max_clients: 1,
            max_prepared: 1,
            max_inspect: 1,
            hold: Duration::ZERO,
            max_held: 2,
            max_held_bytes: 100,
            ask_commits: true,
        }
    }

    #[test]
    fn so_many_may_wait_and_no_more() {
        let hold = Hold::default();
        let first = hold.enter(10, &settings()).unwrap();
        let second = hold.enter(10, &settings()).unwrap();
        let refused = hold.enter(10, &settings()).unwrap_err();
        assert_eq!(refused.code, "53400");
        assert_eq!(refused.detail.as_deref(), Some("2 statements are waiting (failover.max_held is 2)."));
        assert_eq!((hold.statements(), hold.bytes()), (2, 20));
        drop(first);
        drop(hold.enter(10, &settings()).unwrap());
        drop(second);
        assert_eq!((hold.statements(), hold.bytes()), (0, 0));
    }

    #[test]
    fn so_much_may_be_kept_and_no_more() {
        let hold = Hold::default();
        let _first = hold.enter(60, &settings()).unwrap();
        let refused = hold.enter(60, &settings()).unwrap_err();
        assert_eq!(
            refused.detail.as_deref(),
            Some("Waiting clients have sent 60 bytes (failover.max_held_bytes is 100).")
        );
        assert!(hold.enter(40, &settings()).is_ok());
    }
}
