//! Between two primaries, second half: the chosen one is made the primary, the others follow it, the epoch's row is written
//! (its acknowledgement shows that the new primary can commit), and when the record says so too, writes are taken again.
//!
//! Nothing here waits for a node that may have died: a voter that does not stream is taken out, a candidate that fails is
//! given up for a new epoch.

use std::collections::BTreeMap;

use super::brain::{key, names};
use super::candidate::{Ground, Recruit};
use super::detect::MOST_EPOCHS;
use super::event::CommandId;
use super::jobs::Retry;
use super::mode::{Change, Mode, Row, Stable, Step};
use super::{Action, Answer, Brain, Failure, FailureKind, Job, Note, Phase, Record, SyncNames};
use crate::types::{Durability, Lsn, Millis, NodeId, Timeline};

const AGAIN_MS: u64 = 200;
/// When too many candidates failed in a row, the last is tried again so often.
const SAME_AGAIN_MS: u64 = 1000;

impl Brain {
    pub(super) fn promote(&mut self) {
        let Some(record) = self.record.clone() else { return };
        if self.pending.is_some() {
            return;
        }
        if record.phase == Phase::Stable {
            return self.opened(&record);
        }
        let Mode::Promoting(promoting) = self.mode.clone() else { return };
        if self.known(&record.primary).is_some_and(|known| known.is_missed()) && self.may_try(&Retry::Promote) {
            let text = self.known(&record.primary).and_then(|known| known.trouble.clone()).map(|trouble| trouble.text);
            return self.next_candidate(&record, text.unwrap_or_default());
        }
        self.look_at_candidate(&record.primary);
        match promoting.step {
            Step::Promote => {
                let is_it = |job: &Job| matches!(job, Job::Promote { .. });
                if !self.is_running(is_it) && self.may_try(&Retry::Promote) {
                    let sync = self.first_sync(&record, &promoting.change);
                    self.stop_former(&record, promoting.change.kind);
                    self.start(Job::Promote { node: record.primary, sync });
                }
            }
            Step::Lead { timeline, fork, row } => self.lead(&record, timeline, fork, row),
        }
    }

    /// A candidate in trouble is looked at again at once, as a primary would be.
    fn look_at_candidate(&mut self, node: &NodeId) {
        let Some(known) = self.known(node) else { return };
        if let (Some(_), Some(looked)) = (&known.trouble, known.looked) {
            self.probe_at(node, super::brain::after(looked, 30));
        }
    }

    /// The names that the new primary begins with.
    fn first_sync(&self, record: &Record, change: &Change) -> SyncNames {
        if record.durability == Durability::Async {
            return SyncNames::default();
        }
        if record.fork_lsn.is_none() {
            // Taken back: as it was, until a commit was acknowledged by those who are there.
            return record.sync();
        }
        let ground =
            Ground { record, policy: &self.policy, highest: self.highest, unfit: &BTreeMap::new(), order: None };
        let follows = |(node, recruit): &(&NodeId, &Recruit)| {
            **node != record.primary
                && !record.maintenance.contains(*node)
                && ground.fits(recruit).is_ok()
                && record.fork_lsn.is_some_and(|fork| recruit.received <= fork || recruit.timeline > record.timeline)
                && self.known(node).is_none_or(|known| known.trouble.is_none())
        };
        let voters: std::collections::BTreeSet<NodeId> = match change.recruits.is_empty() {
            // Found in the store after a restart: who was recruited is not known, but who has everything is.
            true => record.voters.iter().filter(|node| **node != record.primary).cloned().collect(),
            false => change.recruits.iter().filter(follows).map(|(node, _)| node.clone()).collect(),
        };
        self.as_voters(voters)
    }

    pub(super) fn promoted(&mut self, node: &NodeId, sync: SyncNames, result: Result<Answer, Failure>) {
        let (Some(record), Mode::Promoting(promoting)) = (self.record.clone(), &mut self.mode) else { return };
        let (timeline, fork) = match result {
            Ok(Answer::Promoted { timeline, fork }) => (timeline, fork),
            Ok(other) => return debug_assert!(false, "{other:?} is no answer to Promote"),
            Err(failure) => return self.next_candidate(&record, failure.reason),
        };
        let is_new = record.fork_lsn.is_none() || timeline > record.timeline;
        if timeline < record.timeline || !is_new {
            let text = format!("it is on timeline {}, not on one after {}", timeline.0, record.timeline.0);
            return self.next_candidate(&record, text);
        }
        promoting.change.took("promote", self.now);
        promoting.step = Step::Lead { timeline, fork, row: Row::Missing };
        let followers: Vec<NodeId> = promoting.change.recruits.keys().filter(|other| *other != node).cloned().collect();
        // A new primary has never committed under other names; one that is taken back may have.
        self.is_accounted = record.fork_lsn.is_some() || record.durability == Durability::Async;
        self.in_force = [key(&sync)].into();
        self.sync_at = self.now;
        self.led_since = Some(self.now);
        self.not_before.retain(|what, _| matches!(what, Retry::Fence(_)));
        if record.fork_lsn.is_some() {
            self.highest = Lsn(0);
        }
        for known in self.nodes.values_mut() {
            known.unstreamed = None;
        }
        self.say(false, format!("{node} is the primary on timeline {}; the others follow it", timeline.0));
        for other in followers {
            let is_ahead = self.is_ahead_of_fork(&record, &other);
            if self.is_wanted(&other) && !record.maintenance.contains(&other) && !is_ahead {
                self.tell_to_follow(other, node.clone());
            }
        }
    }

    fn is_ahead_of_fork(&self, record: &Record, node: &NodeId) -> bool {
        let Mode::Promoting(promoting) = &self.mode else { return false };
        let recruit = promoting.change.recruits.get(node);
        recruit.is_some_and(|its| {
            its.timeline == record.timeline && record.fork_lsn.is_some_and(|fork| its.received > fork)
        })
    }

    fn lead(&mut self, record: &Record, timeline: Timeline, fork: Option<Lsn>, row: Row) {
        self.care_for_others();
        self.settle_sync(record, row);
        let is_it = |job: &Job| matches!(job, Job::WriteEpoch { .. });
        if row == Row::Missing {
            if !self.is_running(is_it) && self.may_try(&Retry::WriteEpoch) {
                self.start(Job::WriteEpoch { node: record.primary.clone(), cause: record.cause.clone() });
            }
            return;
        }
        let Some(sync) = self.in_force.first().map(names).filter(|_| self.in_force.len() == 1 && self.is_accounted)
        else {
            return;
        };
        if let Mode::Promoting(promoting) = &mut self.mode {
            promoting.change.took("follow", self.now);
        }
        let stable = Record {
            phase: Phase::Stable,
            timeline,
            fork_lsn: record.fork_lsn.map(|chosen| fork.unwrap_or(chosen)),
            voters: sync.voters,
            k: sync.k,
            written: if row == Row::Written { record.epoch } else { record.written },
            ..record.clone()
        };
        self.say(false, format!("{} can commit; epoch {} is stored as stable", stable.primary, stable.epoch));
        self.store(stable);
    }

    /// No clients write yet, so the names may change freely; but what is in force at the end must have been tried.
    fn settle_sync(&mut self, record: &Record, row: Row) {
        if record.durability == Durability::Async {
            return;
        }
        let Some(now) = self.in_force.last().map(names) else { return };
        let gone = |node: &&NodeId| self.is_gone(node, now.k as usize > self.live(&now));
        let gone: Vec<NodeId> = now.voters.iter().filter(gone).cloned().collect();
        let mut wanted = now.clone();
        wanted.voters.retain(|node| !gone.contains(node));
        wanted.k = self.policy.acks.min(wanted.voters.len() as u32);
        let is_tried = self.is_accounted && self.in_force.len() == 1 && wanted == now;
        // Without its row, the first commit that the voters acknowledge is that of changing the names.
        let is_barrier_due = row == Row::Refused && !self.said.contains_key("barrier");
        if is_tried && !is_barrier_due {
            return;
        }
        if is_barrier_due {
            self.said.insert("barrier".into(), String::new());
            self.is_accounted = false;
        }
        if !gone.is_empty() {
            let gone: Vec<String> = gone.iter().map(|node| node.to_string()).collect();
            self.say_once(
                "gone",
                format!("{} not waited for: it does not stream from {}", gone.join(", "), record.primary),
            );
        }
        self.set_sync(&record.primary, wanted);
    }

    pub(super) fn epoch_written(&mut self, node: &NodeId, result: Result<Answer, Failure>) {
        let Mode::Promoting(promoting) = &mut self.mode else { return };
        let Step::Lead { row, .. } = &mut promoting.step else { return };
        match result {
            Ok(_) => *row = Row::Written,
            Err(failure) if failure.kind == FailureKind::Refused => {
                *row = Row::Refused;
                let text =
                    format!("{node} has no row of this epoch, so an old store will not be noticed: {}", failure.reason);
                self.say(true, text);
            }
            Err(failure) => {
                self.not_before(Retry::WriteEpoch, AGAIN_MS);
                self.say_once("row", format!("the epoch's row is not written yet: {}", failure.reason));
            }
        }
    }

    /// The candidate fails. Whatever it may still do is of an epoch that has passed.
    fn next_candidate(&mut self, record: &Record, why: String) {
        let text = format!("{} failed while it was promoted: {why}", record.primary);
        let window = self.policy.anti_flap.0;
        let recent = self.openings.iter().filter(|opened| opened.0 + window > self.now.0).count();
        if recent >= MOST_EPOCHS {
            self.say_once("again", format!("{text}; {recent} epochs within {window} ms are enough, it is tried again"));
            self.forget(|job| matches!(job, Job::Promote { .. }));
            if let Mode::Promoting(promoting) = &mut self.mode {
                promoting.reason = text;
                promoting.step = Step::Promote;
            }
            return self.not_before(Retry::Promote, SAME_AGAIN_MS);
        }
        let Mode::Promoting(promoting) = self.mode.clone() else { return };
        let mut change = Change::new(promoting.change.kind, text.clone(), promoting.change.from, self.now);
        change.closed = promoting.change.closed;
        change.phases = promoting.change.phases;
        change.undone = promoting.change.undone;
        change.order = promoting.change.order.filter(|order| order.to != record.primary);
        if let Some(order) = self.order().filter(|order| order.to == record.primary) {
            self.out.push(Action::Answer { id: order.id, result: Err(text) });
        }
        // It must be seen again before it is believed, and others come first.
        change.back_from = Millis(self.now.0 + 1);
        change.unfit.insert(record.primary.clone(), format!("failed while it was promoted: {why}"));
        self.begin(change, false);
    }

    /// What an operator asked for and has not been answered.
    pub(super) fn order(&self) -> Option<super::mode::Order> {
        match &self.mode {
            Mode::Switching(switching) => switching.change.order.clone(),
            Mode::Recruiting(recruiting) => recruiting.change.order.clone(),
            Mode::Settling(settling) => settling.change.order.clone(),
            Mode::Promoting(promoting) => promoting.change.order.clone(),
            _ => None,
        }
    }

    /// Who waits for an answer to it, also if it is not carried out any more.
    pub(super) fn asker(&self) -> Option<CommandId> {
        let change = match &self.mode {
            Mode::Switching(switching) => &switching.change,
            Mode::Recruiting(recruiting) => &recruiting.change,
            Mode::Settling(settling) => &settling.change,
            Mode::Promoting(promoting) => &promoting.change,
            _ => return None,
        };
        change.order.as_ref().map(|order| order.id).or(change.undone.as_ref().map(|(id, _)| *id))
    }

    /// The record is stable: writes are taken.
    fn opened(&mut self, record: &Record) {
        let Mode::Promoting(promoting) = self.mode.clone() else { return };
        let mut change = promoting.change;
        change.took("open", self.now);
        let known = self.known(&record.primary);
        let incarnation = known.and_then(|known| known.answered_since(change.closed)).map(|seen| seen.incarnation);
        self.forget(|job| matches!(job, Job::WriteEpoch { .. }));
        let reason = format!("{} takes writes in epoch {}", record.primary, record.epoch);
        self.enter(Mode::Stable(Stable { is_open: true, incarnation, ..Stable::default() }), reason.clone());
        self.open(record);
        if !matches!(change.kind, "adoption" | "switchover") {
            self.recovered = Some(self.now);
        }
        if record.fork_lsn.is_some() {
            self.start(Job::Checkpoint { node: record.primary.clone() });
        }
        if let Some((id, why)) = &change.undone {
            self.out.push(Action::Answer { id: *id, result: Err(format!("{why}; {reason}")) });
        }
        if let Some(order) = &change.order {
            self.out.push(Action::Answer { id: order.id, result: Ok(reason) });
        }
        let detect = change.phases.iter().find(|(name, _)| *name == "detect").map_or(0, |(_, ms)| *ms);
        let note = Note {
            epoch: record.epoch,
            kind: change.kind.into(),
            cause: record.cause.clone(),
            from: change.from,
            to: record.primary.clone(),
            timeline: record.timeline,
            fork_lsn: record.fork_lsn,
            durability: record.durability,
            phases: change.phases.into_iter().map(|(name, ms)| (name.into(), ms)).collect(),
            rejected: change.rejected,
            known_loss_bytes: change.known_loss,
            lost_commits_at_most: None,
            // From the first sign on: nobody could write in that time either.
            closed_at: self.unix(change.closed).saturating_sub(detect),
            opened_at: self.unix(self.now),
            by: None,
        };
        self.out.push(Action::Note(Box::new(note)));
    }
}
