//! Statements that wait for a primary: how many may, with how much memory, and what they are told when they may not.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::gate::Gate;
use super::shared::Settings;
use crate::types::Topology;
use crate::wire::message::Problem;

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

/// What a statement is told that has waited in vain since `since`.
pub(super) fn in_vain(gate: &Gate, topology: &Topology, since: Instant, last: Option<String>) -> Problem {
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
