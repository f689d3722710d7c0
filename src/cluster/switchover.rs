//! A planned change of primary: refused early or carried out so that nobody notices, and undone where it does not go well.
//!
//! Up to the closing nothing is touched: the primary writes a checkpoint while clients go on, everything is looked at again,
//! then the primary drains (`Mode::Switching`). From the closing on it is a failover to a chosen node (`recruit`, `promote`),
//! but for two things. The old primary comes first: it is stopped by its agent or fenced, so that what it has written has an
//! end. And the new one must have all of that; if it has not, the old one is started again or freed, and taken back.
//!
//! The record of the closing is that of a failover. A pgbaton that dies in the middle goes on as one when it is back.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::agent::{Deed, Server, Shutdown};
use super::brain::after;
use super::candidate::{Recruit, listed};
use super::event::CommandId;
use super::jobs::Retry;
use super::mode::{Before, Change, Mode, Old, Order, Retiring, Settling, Switching};
use super::{Answer, Brain, Failure, FailureKind, Job, Lead, Record};
use crate::types::{Durability, Lsn, Millis, NodeId};

/// How much WAL the next primary may have to receive, and how much to replay: it does so in a few tenths of a second, while
/// everybody waits.
const MOST_BEHIND: u64 = 16 << 20;
/// A checkpoint that takes longer will take long again while the primary stops.
const CHECKPOINT_WITHIN_MS: u64 = 25_000;
/// For a look at both nodes, and for voters that are just being changed.
const LOOK_WITHIN_MS: u64 = 3000;
/// While the primary has not seen a standby stream that has just come back: the next look at both.
const CONNECT_LOOK_MS: u64 = 30;
/// Beyond the time to drain: commits under way are waited for, and then the answer should be there.
const DRAINED_WITHIN_MS: u64 = 3000;
/// A clean stop takes a few tenths of a second when a checkpoint went before. Clients wait for it.
const STOP_WITHIN_MS: u64 = 5000;
/// For what the fenced primary has written to arrive.
const CATCH_UP_WITHIN_MS: u64 = 1000;
const CATCH_UP_LOOK_MS: u64 = 5;
/// For a look at each standby of a primary that has stopped.
const COUNT_WITHIN_MS: u64 = 300;
/// For the old primary to be there again when nothing came of it. Then others are asked.
const RETURN_WITHIN_MS: u64 = 15_000;
const START_AGAIN_MS: u64 = 500;
const RETURN_LOOK_MS: u64 = 30;

/// How often both nodes were looked at for this switchover. What is known at first is as old as the last look.
#[derive(Clone, Copy)]
enum Sight {
    First,
    Second,
}

/// Between a standby and the primary.
enum Link {
    /// Up to there, as the primary knows.
    Streams(Lsn),
    /// The standby receives, and the primary has not been seen to send yet: its last look is older.
    Connects,
    None,
}

impl Brain {
    /// Refuses with the reason, before anything is touched, or begins.
    pub(super) fn switch_over(&mut self, record: &Record, id: CommandId, to: Option<NodeId>) -> Result<(), String> {
        let Mode::Stable(stable) = self.mode.clone() else {
            return Err("another change of primary is under way".into());
        };
        if let Some(to) = &to {
            self.check_node(to)?;
        }
        if record.paused {
            return Err("paused: no change of primary until resumed".into());
        }
        let from = &record.primary;
        let trouble = self.known(from).and_then(|known| known.trouble.as_ref());
        if let Some(trouble) = trouble {
            return Err(format!("{from} does not answer ({}); a failover does not need it", trouble.text));
        }
        if !stable.is_open || !matches!(self.lead, Some(Lead::Open { .. })) {
            return Err(format!("{from} does not take writes just now: {}", stable.reason));
        }
        let (to, why) = match to {
            Some(to) => {
                self.may_take_over(record, &to, Sight::First).map_err(|reason| format!("{to} {reason}"))?;
                (to, "asked for by an operator".to_string())
            }
            None => self.best_successor(record)?,
        };
        self.check_voters(record)?;
        let cause = format!("switchover from {from} to {to}, {why}");
        self.say(false, format!("{cause}: a checkpoint first"));
        let mut change = Change::new("switchover", cause.clone(), Some(from.clone()), self.now);
        change.incarnation = stable.incarnation;
        change.order = Some(Order { id, to, allow_data_loss: false });
        let step = Before::Checkpoint { until: after(self.now, CHECKPOINT_WITHIN_MS) };
        self.enter(Mode::Switching(Switching { stable, change, step }), cause);
        self.start(Job::Checkpoint { node: from.clone() });
        Ok(())
    }

    /// Whether this standby could be the next primary in a moment; else why not.
    fn may_take_over(&self, record: &Record, node: &NodeId, sight: Sight) -> Result<(), String> {
        let from = &record.primary;
        if node == from {
            return Err("is the primary already".into());
        }
        if self.policy.nodes.get(node).is_none_or(|node| node.priority == 0) {
            return Err("has priority 0 and is never promoted".into());
        }
        if record.maintenance.contains(node) {
            return Err("is in maintenance".into());
        }
        let Some(known) = self.known(node) else { return Err("is not in the configuration".into()) };
        if known.is_foreign {
            return Err("belongs to another cluster".into());
        }
        if let Some(trouble) = &known.trouble {
            return Err(format!("does not answer: {}", trouble.text));
        }
        let Some(seen) = known.answers() else { return Err("has not been seen yet".into()) };
        if !seen.is_in_recovery {
            return Err("is a primary itself, and needs to rejoin first".into());
        }
        if seen.timeline != record.timeline {
            return Err(format!("is on timeline {}, not {}", seen.timeline.0, record.timeline.0));
        }
        let leader = self.known(from).and_then(|known| known.answers());
        let flushed = match (self.link(record, node), sight) {
            (Link::Streams(flushed), _) => flushed,
            (Link::Connects, Sight::First) => Lsn(0),
            (Link::Connects, Sight::Second) | (Link::None, _) => return Err(format!("does not receive from {from}")),
        };
        if record.durability == Durability::Quorum && !record.voters.contains(node) {
            return Err("is not a voter, so it need not have what was acknowledged".into());
        }
        // As the primary sees it, both positions are of one moment; but of one that has just connected it knows nothing yet.
        let behind = leader.map_or(0, |leader| leader.lsn.0.saturating_sub(flushed.max(seen.lsn).0));
        if behind > MOST_BEHIND {
            return Err(format!("is {behind} bytes behind {from}, of which {MOST_BEHIND} would do"));
        }
        let left = seen.lsn.0.saturating_sub(seen.replayed.0);
        if left > MOST_BEHIND {
            return Err(format!("has {left} bytes still to replay, of which {MOST_BEHIND} would do"));
        }
        Ok(())
    }

    /// How a standby and the primary are connected, by what both of them say.
    fn link(&self, record: &Record, node: &NodeId) -> Link {
        let answers = |node: &NodeId| self.known(node).and_then(|known| known.answers());
        let (Some(leader), Some(seen)) = (answers(&record.primary), answers(node)) else { return Link::None };
        if seen.receiver.as_ref().is_none_or(|receiver| receiver.from.as_ref() != Some(&record.primary)) {
            return Link::None;
        }
        let sender = leader.senders.iter().find(|sender| sender.node == *node && sender.is_streaming);
        sender.map_or(Link::Connects, |sender| Link::Streams(sender.flushed))
    }

    /// The best of those who could, by what counts at a failover among equals; and why it is that one.
    fn best_successor(&self, record: &Record) -> Result<(NodeId, String), String> {
        let zone = self.policy.nodes.get(&record.primary).map(|node| node.zone.clone()).unwrap_or_default();
        let rank = |node: &NodeId| {
            let policy = self.policy.nodes.get(node);
            let is_near = !zone.is_empty() && policy.is_some_and(|policy| policy.zone == zone);
            (policy.map_or(0, |policy| policy.priority), is_near, Reverse(node.clone()))
        };
        let mut rejected = BTreeMap::new();
        let mut able = Vec::new();
        for node in self.policy.nodes.keys().filter(|node| **node != record.primary) {
            match self.may_take_over(record, node, Sight::Second) {
                Ok(()) => able.push(node.clone()),
                Err(reason) => drop(rejected.insert(node.clone(), reason)),
            }
        }
        let Some(best) = able.iter().max_by_key(|node| rank(node)).cloned() else {
            return Err(match rejected.is_empty() {
                true => "there is no standby".into(),
                false => format!("no standby can take over: {}", listed(&rejected)),
            });
        };
        for node in able.into_iter().filter(|node| *node != best) {
            rejected.insert(node, "comes after it by priority, zone or name".into());
        }
        let why = match rejected.is_empty() {
            true => "the only standby".into(),
            false => format!("the best of those there are ({})", listed(&rejected)),
        };
        Ok((best, why))
    }

    /// Without them the change could not be carried out, and that would show only after the closing.
    fn check_voters(&self, record: &Record) -> Result<(), String> {
        let Some(needed) = record.sync().recruits_needed().filter(|_| record.durability == Durability::Quorum) else {
            return Ok(());
        };
        let is_there =
            |node: &&NodeId| self.known(node).and_then(|known| known.answers()).is_some_and(|seen| seen.is_in_recovery);
        let there = record.voters.iter().filter(is_there).count();
        let absent: Vec<String> =
            record.voters.iter().filter(|node| !is_there(node)).map(|node| node.to_string()).collect();
        match there >= needed {
            true => Ok(()),
            false => Err(format!("{there} of the {needed} voters needed answer; {} does not", absent.join(", "))),
        }
    }

    /// While the primary is well, or not certainly otherwise.
    pub(super) fn switch(&mut self, record: &Record, is_well: bool) {
        let Mode::Switching(switching) = self.mode.clone() else { return };
        match switching.step {
            Before::Checkpoint { until } => {
                if !self.is_running(|job| matches!(job, Job::Checkpoint { .. })) {
                    return self.step_on(Before::Look { since: self.now });
                }
                if self.is_due(until) {
                    self.call_off(too_long(&record.primary));
                }
            }
            Before::Look { since } => self.look_again(record, &switching, since, is_well),
            Before::Drain { until } => {
                if self.is_due(until) {
                    self.call_off(format!("{} does not answer as it should while it drains", record.primary));
                }
            }
        }
    }

    /// One that may not be made is done without; the others are those that take too long.
    pub(super) fn no_checkpoint(&mut self, node: &NodeId, failure: &Failure) {
        let is_ours = matches!(&self.mode, Mode::Switching(Switching { step: Before::Checkpoint { .. }, .. }));
        if is_ours && failure.kind == FailureKind::Unreachable {
            self.call_off(too_long(node));
        }
    }

    fn step_on(&mut self, step: Before) {
        if let Mode::Switching(switching) = &mut self.mode {
            switching.step = step;
        }
        self.wake_at(self.now);
    }

    fn look_again(&mut self, record: &Record, switching: &Switching, since: Millis, is_well: bool) {
        let Some(order) = switching.change.order.clone() else { return };
        let is_late = self.is_due(after(since, LOOK_WITHIN_MS));
        let unseen: Vec<NodeId> = [&order.to, &record.primary]
            .into_iter()
            .filter(|node| !self.known(node).is_some_and(|known| known.looked_since(since)))
            .cloned()
            .collect();
        for node in &unseen {
            self.probe_at(node, self.now);
        }
        let is_quiet = record.durability == Durability::Async || self.is_in_force(&record.sync());
        if !(is_late || unseen.is_empty() && is_quiet && is_well) {
            return;
        }
        if !is_late && matches!(self.link(record, &order.to), Link::Connects) {
            for node in [&order.to, &record.primary] {
                self.probe_at(node, after(self.now, CONNECT_LOOK_MS));
            }
            return;
        }
        let fits = self.may_take_over(record, &order.to, Sight::Second);
        let fits = fits.map_err(|reason| format!("{} {reason}", order.to));
        let verdict = match (unseen.first(), is_well, is_quiet) {
            (Some(node), ..) => Err(format!("{node} was not seen in time")),
            (None, false, _) => Err(format!("{} does not answer as it should", record.primary)),
            (None, true, false) => Err("the voters are just being changed".into()),
            (None, true, true) => fits.and_then(|()| self.check_voters(record)),
        };
        match verdict {
            Ok(()) => self.drain(record),
            Err(reason) => self.call_off(reason),
        }
    }

    /// From here on somebody may wait.
    fn drain(&mut self, record: &Record) {
        let (now, limit) = (self.now, self.policy.drain);
        let Mode::Switching(switching) = &mut self.mode else { return };
        switching.change.took("checkpoint", now);
        switching.change.closed = now;
        switching.step = Before::Drain { until: after(now, limit.0 + DRAINED_WITHIN_MS) };
        let reason = switching.change.cause.clone();
        self.publish(Lead::Draining { epoch: record.epoch, reason });
        self.start(Job::Drain { limit });
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(&self.mode, Mode::Switching(Switching { step: Before::Drain { .. }, .. }))
    }

    pub(super) fn drained(&mut self, result: Result<Answer, Failure>) {
        let Mode::Switching(switching) = self.mode.clone() else { return };
        let Some(record) = self.record.clone().filter(|_| self.is_draining()) else { return };
        match result {
            Ok(Answer::Drained { left }) => {
                let mut change = switching.change;
                change.took("drain", self.now);
                if left > 0 {
                    let ms = self.policy.drain.0;
                    self.say(true, format!("{left} transactions have not ended within {ms} ms and are rolled back"));
                }
                change.retiring = Some(Retiring { by_agent: self.by_agent(&record.primary), state: Old::Begins });
                self.begin(change, false);
            }
            Ok(other) => debug_assert!(false, "{other:?} is no answer to Drain"),
            Err(failure) => self.call_off(failure.reason),
        }
    }

    fn by_agent(&mut self, node: &NodeId) -> bool {
        if !self.has_agent(node) {
            return false;
        }
        let reason = match self.report_or_why(node) {
            Ok(report) if report.server == Server::Running => return true,
            Ok(report) => format!("it says that its server is {:?}", report.server),
            Err(reason) => reason,
        };
        self.say(true, format!("{node} is fenced rather than stopped by its agent: {reason}"));
        false
    }

    /// Nothing has been touched: everything goes on as before. Writes are taken again as soon as the primary is seen to be well.
    pub(super) fn call_off(&mut self, reason: String) {
        let Mode::Switching(switching) = self.mode.clone() else { return };
        self.forget(|job| matches!(job, Job::Drain { .. } | Job::Checkpoint { .. }));
        if let Some(order) = &switching.change.order {
            self.out.push(super::Action::Answer { id: order.id, result: Err(reason.clone()) });
        }
        self.enter(Mode::Stable(switching.stable), format!("no switchover: {reason}"));
    }

    // --- after the closing -------------------------------------------------------------------------------------------

    /// What has to be done about the old primary before standbys are taken off it. True: that is done, or none of it is wanted.
    pub(super) fn retire_old(&mut self, record: &Record) -> bool {
        let Mode::Recruiting(recruiting) = &self.mode else { return true };
        let change = recruiting.change.clone();
        let Some(Retiring { by_agent, state }) = change.retiring.clone() else { return true };
        let old = record.primary.clone();
        match state {
            Old::Begins => {
                self.set_old(Old::Ends { since: self.now });
                self.not_before(Retry::Fence(old.clone()), STOP_WITHIN_MS);
                match by_agent {
                    true => self.start(Job::Stop { node: old, how: Shutdown::Fast }),
                    false => self.start(Job::Fence { node: old }),
                }
                false
            }
            Old::Ends { since } => {
                let to = change.order.as_ref().map(|order| order.to.clone()).unwrap_or_else(|| old.clone());
                let trouble = self.known(&to).and_then(|known| known.trouble.clone()).filter(|_| to != old);
                // A server that stops waits for its standbys, also for one that stands still.
                if let Some(trouble) = trouble {
                    self.undo(format!("{to} does not answer: {}", trouble.text));
                } else if self.is_due(after(since, STOP_WITHIN_MS)) {
                    self.undo(format!("{old} was not stopped within {STOP_WITHIN_MS} ms"));
                }
                false
            }
            Old::Ended { since, .. } if by_agent => self.count_off(record, since),
            Old::Ended { since, end } => {
                let Some(order) = &change.order else { return true };
                let known = self.known(&order.to);
                if known.and_then(|known| known.answered_since(since)).is_some_and(|seen| seen.lsn >= end) {
                    return true;
                }
                let looked = known.and_then(|known| known.looked).unwrap_or_default();
                let has = known.and_then(|known| known.answers()).map_or(Lsn(0), |seen| seen.lsn);
                if self.is_due(after(since, CATCH_UP_WITHIN_MS)) {
                    self.undo(format!("{} has not received what {old} wrote up to {end}, only up to {has}", order.to));
                    return false;
                }
                self.probe_at(&order.to.clone(), after(looked, CATCH_UP_LOOK_MS).max(since));
                false
            }
            Old::Returns { since } => self.await_old(record, &change, by_agent, since),
        }
    }

    /// Nobody receives from a server that is not there any more, so what its standbys have is final without their being taken off it:
    /// a look at each is as good as a recruit. Whoever does not answer is left to that.
    fn count_off(&mut self, record: &Record, since: Millis) -> bool {
        let mut waits_for = Vec::new();
        for node in self.nodes.keys().filter(|node| **node != record.primary).cloned().collect::<Vec<_>>() {
            let Mode::Recruiting(recruiting) = &self.mode else { return true };
            let Some(known) = self.known(&node).filter(|known| known.trouble.is_none()) else { continue };
            let is_wanted = !record.maintenance.contains(&node) || record.voters.contains(&node);
            if !is_wanted || recruiting.change.recruits.contains_key(&node) {
                continue;
            }
            let looked = known.looked.unwrap_or_default();
            let Some(seen) = known.answered_since(since).filter(|seen| seen.is_in_recovery && seen.receiver.is_none())
            else {
                waits_for.push((node, looked));
                continue;
            };
            let recruit = Recruit {
                system_identifier: seen.system_identifier,
                timeline: seen.timeline,
                received: seen.lsn,
                last_epoch: seen.last_epoch,
                is_settled: false,
                has_streamed: self.has_streamed(&node),
            };
            if let Mode::Recruiting(recruiting) = &mut self.mode {
                recruiting.change.recruits.insert(node, recruit);
            }
        }
        if waits_for.is_empty() || self.is_due(after(since, COUNT_WITHIN_MS)) {
            return true;
        }
        for (node, looked) in waits_for {
            self.probe_at(&node, after(looked, CATCH_UP_LOOK_MS).max(since));
        }
        false
    }

    /// Nothing can come from the old primary any more, so those who have all of it may receive from the next one before that is
    /// promoted: its first commit then waits for nobody to connect, as a stream goes on to a new timeline by itself.
    pub(super) fn follow_ahead(&mut self, settling: &Settling) {
        let Settling { change, candidate, is_back, .. } = settling;
        let is_stopped =
            matches!(&change.retiring, Some(Retiring { by_agent: true, state: Old::Ended { .. } })) && !is_back;
        let (Some(chosen), Some(record)) = (change.recruits.get(candidate), &self.record) else { return };
        let has_all = |(node, recruit): &(&NodeId, &Recruit)| {
            *node != candidate
                && (recruit.timeline, recruit.received) == (chosen.timeline, chosen.received)
                && !record.maintenance.contains(*node)
                && self.is_wanted(node)
        };
        let equals: Vec<NodeId> = match is_stopped {
            true => change.recruits.iter().filter(has_all).map(|(node, _)| node.clone()).collect(),
            false => return,
        };
        for node in &equals {
            self.tell_to_follow(node.clone(), candidate.clone());
        }
        if let Mode::Settling(settling) = &mut self.mode {
            settling.change.levelled.extend(equals);
        }
    }

    fn set_old(&mut self, state: Old) {
        if let Mode::Recruiting(recruiting) = &mut self.mode
            && let Some(retiring) = &mut recruiting.change.retiring
        {
            retiring.state = state;
        }
        self.wake_at(self.now);
    }

    /// The way back is over: what comes now is a failover like any other.
    fn retire_no_more(&mut self, reason: String) {
        self.say(true, reason);
        if let Mode::Recruiting(recruiting) = &mut self.mode {
            recruiting.change.retiring = None;
            recruiting.change.is_soft = true;
        }
        self.wake_at(self.now);
    }

    /// It was stopped, or fenced: nothing more comes from it than up to there.
    pub(super) fn old_ended(&mut self, node: &NodeId, result: Result<Lsn, Failure>) {
        let Some(record) = self.record.clone() else { return };
        let Mode::Recruiting(recruiting) = &mut self.mode else { return };
        let is_awaited = matches!(&recruiting.change.retiring, Some(Retiring { state: Old::Ends { .. }, .. }));
        if !is_awaited || record.primary != *node {
            return;
        }
        match result {
            Ok(end) => {
                recruiting.change.took("stop", self.now);
                self.highest = self.highest.max(end);
                self.set_old(Old::Ended { since: self.now, end });
            }
            Err(failure) => self.undo(format!("{node} could not be stopped: {}", failure.reason)),
        }
    }

    /// Its agent has stopped it, or could not.
    pub(super) fn old_stopped(&mut self, node: &NodeId, result: Result<Answer, Failure>) {
        let Mode::Recruiting(recruiting) = &mut self.mode else { return };
        let change = &mut recruiting.change;
        match (result, &change.retiring) {
            // It was in the way of being started again.
            (_, Some(Retiring { state: Old::Returns { .. }, .. })) => self.start(Job::Start { node: node.clone() }),
            (Ok(Answer::Agent(Deed { end: None, .. })), Some(_)) => {
                let reason = format!("{node} was not there any more to be stopped cleanly; it goes on as a failover");
                if let Some(order) = change.order.take() {
                    change.undone = Some((order.id, reason.clone()));
                }
                self.retire_no_more(reason);
            }
            (Ok(Answer::Agent(Deed { end: Some(end), .. })), _) => self.old_ended(node, Ok(end)),
            (Ok(_), _) => {}
            (Err(failure), _) => self.old_ended(node, Err(failure)),
        }
    }

    /// Up to where the next primary must have everything.
    pub(super) fn end_of_old(change: &Change) -> Option<Lsn> {
        match &change.retiring {
            Some(Retiring { state: Old::Ended { end, .. }, .. }) => Some(*end),
            _ => None,
        }
    }

    /// The old primary is to take writes again. Nobody was promoted, so nothing is lost by it.
    pub(super) fn undo(&mut self, reason: String) {
        let (now, old) = (self.now, self.record.as_ref().map(|record| record.primary.clone()));
        let Mode::Recruiting(recruiting) = &mut self.mode else { return };
        let change = &mut recruiting.change;
        let Some(order) = change.order.take() else { return };
        change.undone = Some((order.id, format!("the switchover to {} is undone: {reason}", order.to)));
        (change.is_soft, change.back_from) = (false, after(now, 1));
        recruiting.reason = reason.clone();
        let by_agent = change.retiring.as_ref().is_some_and(|retiring| retiring.by_agent);
        if by_agent {
            // Some of them were only looked at, and will receive again.
            change.recruits.clear();
        }
        let is_stopping = matches!(&change.retiring, Some(Retiring { state: Old::Ends { .. }, .. }));
        self.say(true, format!("the switchover to {} is undone: {reason}", order.to));
        self.forget(|job| matches!(job, Job::Stop { .. } | Job::Fence { .. } | Job::Recruit { .. }));
        self.set_old(Old::Returns { since: now });
        if let Some(node) = old.filter(|_| by_agent) {
            self.start(match is_stopping {
                true => Job::Stop { node, how: Shutdown::Immediate },
                false => Job::Start { node },
            });
        }
    }

    fn await_old(&mut self, record: &Record, change: &Change, by_agent: bool, since: Millis) -> bool {
        let old = record.primary.clone();
        if self.can_be_taken_back(record, change) {
            self.settle_with(old, true, "it is taken back, with everything it has".into());
            return false;
        }
        let is_gone = !by_agent && self.known(&old).is_some_and(|known| known.is_missed());
        if is_gone || self.is_due(after(since, RETURN_WITHIN_MS)) {
            self.forget(|job| matches!(job, Job::Start { .. } | Job::Stop { .. }));
            self.retire_no_more(format!("{old} does not come back; it goes on as a failover"));
            return false;
        }
        let starts = self.is_running(|job| matches!(job, Job::Start { .. } | Job::Stop { .. }));
        if by_agent && !starts && self.known(&old).is_some_and(|known| known.trouble.is_some()) {
            match self.may_try(&Retry::Start(old.clone())) {
                true => self.start(Job::Start { node: old.clone() }),
                false => return false,
            }
        }
        let looked = self.known(&old).and_then(|known| known.looked).unwrap_or_default();
        self.probe_at(&old, after(looked, RETURN_LOOK_MS).max(change.back_from));
        false
    }

    /// Its agent has started it, or could not.
    pub(super) fn old_started(&mut self, node: &NodeId) {
        let Mode::Recruiting(recruiting) = &self.mode else { return };
        if matches!(&recruiting.change.retiring, Some(Retiring { state: Old::Returns { .. }, .. })) {
            self.not_before(Retry::Start(node.clone()), START_AGAIN_MS);
            self.probe_at(node, self.now);
        }
    }
}

fn too_long(node: &NodeId) -> String {
    format!("the checkpoint on {node} takes long, and so would stopping it; try again when it is done")
}
