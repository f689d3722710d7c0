//! A server connection is lost: it broke, its server is going, or the primary was given up. What the client hears then, and
//! with what it goes on.
//!
//! What had not been sent waits; what may be asked again is asked again; an open transaction is rolled back and says so. A
//! commit is the one thing whose outcome is worth waiting for: it is in doubt until the control plane has asked the
//! candidate, and then answered as what it was.

use std::io;
use std::sync::Arc;

use super::clients::Activity;
use super::doubt::Verdict;
use super::gate::{Draining, Gate};
use super::hold::while_connected;
use super::machine::Before;
use super::machine::commit::Xid;
use super::machine::lost::Loss;
use super::{Session, lost_transaction};
use crate::sql::{Pin, Pins};
use crate::types::NodeId;
use crate::wire::message::Problem;

/// What a session can go on without: the memory of its sequences, and the process it happened to have.
const NOT_MISSED: [Pin; 2] = [Pin::Sequence, Pin::SessionMode];

/// The reason why a session lets go of its connection when the gate has changed.
pub(super) fn given_up(gate: &Gate) -> io::Error {
    let state = gate.state();
    let reason = if state.reason.is_empty() { "another epoch has begun".into() } else { state.reason };
    let of = match state.given_up.0 {
        0 => "the primary".into(),
        epoch => format!("the primary of epoch {epoch}"),
    };
    io::Error::new(io::ErrorKind::ConnectionAborted, format!("{of} was given up: {reason}"))
}

impl Session {
    /// The gate has changed since this session took its connection to the primary: the reason to lose it, or nothing if all
    /// there was is what it can do without.
    pub(super) fn let_go(&mut self) -> Option<io::Error> {
        if self.shared.gate.drains(self.me.client.pass()) {
            self.drains = true;
            match self.lease.is_some() && !self.machine.is_on_replica() {
                true => drop(self.waits_for_drain()),
                false => self.release_pass(),
            }
            return None;
        }
        if self.lease.is_some() && !self.machine.is_on_replica() {
            return Some(given_up(&self.shared.gate));
        }
        self.release_pass();
        None
    }

    /// While the primary drains: whether the client's next message has to wait, as nothing is open on the connection that is
    /// kept. Others are told how things stand here.
    #[cold]
    pub(super) fn waits_for_drain(&mut self) -> bool {
        let drain = self.shared.gate.drain();
        if !self.shared.gate.drains(self.me.client.pass()) {
            self.drains = false;
            return false;
        }
        if self.lease.is_none() || self.machine.is_on_replica() {
            return false;
        }
        let state = match self.machine.is_at_rest() && self.to_server.is_empty() {
            true => Draining::Rests,
            false if self.machine.loss() == Loss::RolledBack => Draining::Open,
            false => Draining::Commits,
        };
        self.me.client.set_drain(drain, state);
        state == Draining::Rests
    }

    /// What pins the session to a server is gone with it.
    pub(super) fn lose_pins(&mut self) -> Pins {
        let mut lost = self.machine.pins();
        let mut kept = lost;
        for pin in NOT_MISSED {
            lost.remove(pin);
        }
        kept.remove_all(lost);
        kept.remove(Pin::Sequence);
        self.machine.set_pins(kept);
        self.me.client.set_pins(kept);
        lost
    }

    /// The server connection broke or was given up while this session used it. False if the session is over.
    pub(super) async fn lose_server(&mut self, error: io::Error) -> bool {
        if self.machine.is_armed() {
            let goes_on = self.heal(None);
            self.release_pass();
            return goes_on;
        }
        self.note_over();
        let was_replica = self.machine.is_on_replica();
        if was_replica {
            self.shared.readers.failed(self.place);
            self.avoid = Some(self.place);
        }
        // Whatever was under way may have been seen or done.
        self.freshness.note(self.place, was_replica, &self.shared.readers);
        self.me.client.set_server(None);
        self.me.client.set_commits(false);
        self.commits = false;
        self.me.client.set_activity(Activity::Idle);
        self.shared.look_now.notify_one();
        let node = self.lease.take().map_or(NodeId::from("unknown"), |lease| lease.pool().key.node.clone());
        self.to_server.clear();
        if self.machine.is_cut_short() {
            // The rest of a row would have to be made up.
            tracing::debug!(client = self.me.client.id, "the server was lost in the middle of a long row");
            self.release_pass();
            return false;
        }
        if self.machine.is_standby() {
            return self.lose_replica(&error);
        }
        if was_replica {
            let problem = Problem::new("40001", "the replica that was answering is gone")
                .detail(error.to_string())
                .hint("Run the statement, or its transaction, again.");
            self.machine.answer_lost(&problem, &mut self.to_client);
            self.stalled = !self.from_client.is_empty();
            return true;
        }
        if self.machine.saw_fatal() {
            // PostgreSQL has told the client why, and that the connection is over.
            self.release_pass();
            return false;
        }
        let loss = self.machine.loss();
        let epoch = self.machine.epoch();
        let whereabouts = match epoch.0 {
            0 => format!("on node {node}"),
            epoch => format!("on node {node} in epoch {epoch}"),
        };
        let only_local = match self.machine.is_only_local() {
            true => " It had been committed there, though not on its standbys.",
            false => "",
        };
        let verdict = match loss {
            Loss::Commit(Xid::None) => Some(Verdict::Committed),
            Loss::Commit(Xid::Is(xid)) => match self.ask_about(xid.get()).await {
                // It waited for its standbys in vain; that the same primary still has it is no news.
                Some(Verdict::Committed) if self.machine.is_only_local() && self.shared.gate.epoch() == epoch => {
                    Some(Verdict::Unknown)
                }
                Some(verdict) => Some(verdict),
                // The client has gone meanwhile.
                None => return false,
            },
            Loss::Commit(Xid::Unknown) => Some(Verdict::Unknown),
            _ => None,
        };
        self.release_pass();
        if let (Some(verdict), Loss::Commit(xid)) = (verdict, loss)
            && xid != Xid::None
        {
            self.shared.doubts.count(verdict);
        }
        let xid = match loss {
            Loss::Commit(Xid::Is(xid)) => format!(" Its transaction id was {xid}."),
            _ => String::new(),
        };
        let unknown = || {
            Problem::new("08007", "server connection lost while the statement was running")
                .detail(format!(
                    "It was sent {whereabouts}, and it is not known whether it was committed.{only_local}{xid} {error}"
                ))
                .hint("It may have been committed or not: look whether its effects are there before you repeat it.")
        };
        let is_unknown = loss == Loss::Unknown || verdict == Some(Verdict::Unknown);
        match (loss, verdict) {
            (Loss::Nothing, _) => self.machine.server_lost(),
            (_, Some(Verdict::Committed)) => self.machine.answer_committed(&mut self.to_client),
            (_, Some(Verdict::Aborted)) => {
                let problem =
                    Problem::new("40001", "server connection lost in COMMIT; the transaction was not committed")
                        .detail(format!("It was sent {whereabouts}.{xid} {error}"))
                        .hint("Run the transaction again.");
                self.machine.answer_lost(&problem, &mut self.to_client);
            }
            _ if !self.lost_pins().is_empty() => {}
            _ if is_unknown => self.machine.answer_lost(&unknown(), &mut self.to_client),
            _ => self.machine.answer_lost(&lost_transaction().detail(error.to_string()), &mut self.to_client),
        }
        let lost = self.lose_pins();
        if !lost.is_empty() {
            let names: Vec<_> = lost.iter().map(Pin::as_str).collect();
            let also = match is_unknown {
                true => format!(" It is not known whether the statement under way was committed.{only_local}{xid}"),
                false => String::new(),
            };
            self.farewell(
                &Problem::new("57P01", "terminating connection: the server it was tied to is gone")
                    .detail(format!("Lost with it: {}.{also} {error}", names.join(", "))),
            );
            return false;
        }
        self.stalled = !self.from_client.is_empty();
        true
    }

    fn lost_pins(&self) -> Pins {
        let mut lost = self.machine.pins();
        for pin in NOT_MISSED {
            lost.remove(pin);
        }
        lost
    }

    /// Nothing of the primary is left here, and what is in doubt is registered.
    pub(super) fn release_pass(&mut self) {
        let pass = self.me.client.pass();
        if pass != self.shared.gate.generation() {
            self.half_taken = None;
            let drain = self.shared.gate.drain();
            // Perhaps nothing comes of the change of primary, and what is kept there is wanted again.
            if self.aside.is_some() && self.shared.gate.drains(pass) {
                return self.me.client.set_drain(drain, Draining::Rests);
            }
            if self.aside.take().is_some() {
                self.forget_sequences();
            }
            self.me.client.set_pass(0);
        }
    }

    /// Waits for what became of a commit: the control plane asks the primary if that lives, else its successor. `None` if the
    /// client has gone.
    async fn ask_about(&mut self, xid: u64) -> Option<Verdict> {
        let shared = self.shared.clone();
        let epoch = self.machine.epoch();
        let told = shared.doubts.register(epoch, xid);
        // There is nothing left of the primary here, and nobody has to wait for this wait.
        self.half_taken = None;
        self.me.client.set_pass(0);
        tracing::debug!(client = self.me.client.id, xid, %epoch, "a commit is in doubt");
        let limit = shared.settings.load().hold;
        let verdict = tokio::time::timeout(limit, async { told.await.unwrap_or(Verdict::Unknown) });
        let (me, mut ahead) = (self.me.client.clone(), Vec::new());
        let verdict = while_connected(&me, &mut self.stream, &mut ahead, verdict).await;
        self.me.client.tally.receive(ahead.len());
        self.from_client.append(&mut ahead);
        Some(verdict?.unwrap_or(Verdict::Unknown))
    }

    /// What stands between a statement and its being sent, or follows it, as long as the server it is about is not
    /// given up.
    pub(super) async fn unless_given_up(&mut self, what: Own) -> bool {
        let shared: Arc<_> = self.shared.clone();
        let ground = self.ground(self.machine.is_on_replica());
        let is_move = matches!(what, Own::Before(Before::MoveToPrimary | Before::MoveToReplica));
        let done = tokio::select! {
            biased;
            error = shared.lost(ground), if !is_move => Err(error),
            goes_on = async {
                match what {
                    Own::Before(before) => self.do_before(before).await,
                    Own::Rest => self.rest_slowly().await,
                }
            } => Ok(goes_on),
        };
        match done {
            Ok(goes_on) => goes_on,
            Err(error) => self.lose_server(error).await,
        }
    }
}

/// Conversations of our own on the server connection at hand.
pub(super) enum Own {
    Before(Before),
    Rest,
}
