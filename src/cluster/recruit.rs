//! Between two primaries, first half: standbys are taken off the old one, one of them is chosen and made to replay all it
//! has; or the old one comes back in time and is taken back, which loses nothing.

use std::collections::BTreeSet;

use super::brain::after;
use super::candidate::{Choice, Ground, Recruit, choose};
use super::jobs::Retry;
use super::mode::{Change, Mode, Promoting, Recruiting, Settling, Step, Torn};
use super::{Action, Answer, Brain, Failure, Job, Phase, Record};
use crate::types::{Durability, Lsn, Millis, NodeId};

/// Asynchronous durability: how long slow standbys are waited for, as one of them may have more.
const ALL_WITHIN_MS: u64 = 1000;
/// Quorum durability: when there are recruits enough, one of them has everything; the others only save a rewind.
const REST_WITHIN_MS: u64 = 100;
/// At a switchover: how long a standby may take that is needed and has not refused.
const PLANNED_WITHIN_MS: u64 = 3000;
/// Who could not be recruited is tried again after this.
const AGAIN_MS: u64 = 1000;
const FENCE_AGAIN_MS: u64 = 5000;
/// The longest record there is (`XLogRecordMaxSize`, 1020 MB) with the headers of its pages: more than that is no torn record.
const MOST_TORN: u64 = 1 << 30;

impl Brain {
    pub(super) fn recruit(&mut self) {
        if self.pending.is_some() {
            return;
        }
        let now = self.now;
        let Some(record) = self.record.clone() else { return };
        if !self.retire_old(&record) {
            return;
        }
        let Mode::Recruiting(recruiting) = &mut self.mode else { return };
        let began = *recruiting.began.get_or_insert(now);
        if !recruiting.change.unfit.is_empty() && *recruiting.again.get_or_insert(after(now, AGAIN_MS)) <= now {
            recruiting.again = None;
            recruiting.change.unfit.clear();
        }
        let recruiting = recruiting.clone();
        if let Some(again) = recruiting.again {
            self.wake_at(again);
        }
        let is_back = self.can_be_taken_back(&record, &recruiting.change);
        if recruiting.is_in_place && !self.stop_waiting_in_place(&record) {
            if is_back {
                self.settle_with(record.primary.clone(), true, "the primary is back".into());
            }
            return;
        }
        let is_held = recruiting.change.order.is_none() && (record.paused || !self.policy.automatic);
        if is_back && recruiting.change.order.is_none() && (is_held || !recruiting.change.is_soft) {
            let reason = format!("{} answers again and is taken back, with everything it has", record.primary);
            return self.settle_with(record.primary.clone(), true, reason);
        }
        self.ask_recruits(&record, &recruiting);
        self.fence_old(&record, &recruiting.change);
        let choice = self.choose(&record, &recruiting.change);
        if self.is_running(|job| matches!(job, Job::Level { .. })) {
            return;
        }
        let is_asking = self.is_running(|job| matches!(job, Job::Recruit { .. }));
        if is_held {
            let reason = "no change of primary is allowed (paused, or failover.automatic is off)".to_string();
            return self.refuse(&record, &recruiting, Choice { chosen: Err(reason), ..choice }, is_back);
        }
        let patience = match (record.durability, &choice.chosen) {
            (Durability::Quorum, Ok(_)) => {
                let Mode::Recruiting(recruiting) = &mut self.mode else { return };
                after(*recruiting.enough.get_or_insert(now), REST_WITHIN_MS)
            }
            // The other way is back, which costs as much again.
            _ if recruiting.change.retiring.is_some() => after(began, PLANNED_WITHIN_MS),
            _ => after(began, ALL_WITHIN_MS),
        };
        if is_asking && !self.is_due(patience) {
            return;
        }
        match choice.chosen.clone() {
            Ok(node) => {
                if let Mode::Recruiting(recruiting) = &mut self.mode {
                    recruiting.change.rejected = choice.rejected;
                    recruiting.change.known_loss = choice.loss;
                }
                let reason = format!("{node} is the candidate");
                self.settle_with(node, false, reason);
            }
            Err(_) if self.brings_up(&record, &recruiting.change) => {}
            Err(_) => self.refuse(&record, &recruiting, choice, is_back),
        }
    }

    /// A primary that has just restarted is not failed over while it is there.
    fn stop_waiting_in_place(&mut self, record: &Record) -> bool {
        let Some(known) = self.known(&record.primary).cloned() else { return true };
        if known.is_missed() || self.is_demoted(&record.primary) {
            let text = format!("{} does not come back by itself: {}", record.primary, reason_of(&known));
            self.say(true, text);
            if let Mode::Recruiting(recruiting) = &mut self.mode {
                recruiting.is_in_place = false;
            }
            return true;
        }
        if known.trouble.is_some() {
            self.probe_at(&record.primary, after(known.looked.unwrap_or(self.now), 30));
        }
        false
    }

    fn is_demoted(&self, node: &NodeId) -> bool {
        self.known(node).and_then(|known| known.answers()).is_some_and(|seen| seen.is_in_recovery)
    }

    /// Whether the primary of before is there, and still is what it was.
    pub(super) fn can_be_taken_back(&self, record: &Record, change: &Change) -> bool {
        let known = self.known(&record.primary);
        let Some(seen) = known.and_then(|known| known.answered_since(change.back_from)) else { return false };
        let is_of_record = match record.fork_lsn {
            None => seen.timeline >= record.timeline,
            Some(_) => seen.timeline > record.timeline,
        };
        // One that was chosen where something may be lost lacks that row, perhaps; it was promoted all the same.
        let may_lack_row = record.fork_lsn.is_some() && record.durability == Durability::Async;
        let knows = seen.last_epoch.is_none_or(|last| (last >= record.written || may_lack_row) && last <= record.epoch);
        // Less than what a standby received from it: it has lost data.
        let most = change.recruits.values().filter(|recruit| recruit.timeline == seen.timeline);
        let is_whole = match record.fork_lsn {
            None => most.map(|recruit| recruit.received).max().is_none_or(|most| most <= seen.lsn),
            // Nobody had to acknowledge anything on its timeline yet, and others may be on another one of that number.
            Some(fork) => fork <= seen.lsn,
        };
        !seen.is_in_recovery && is_of_record && knows && is_whole
    }

    fn ask_recruits(&mut self, record: &Record, recruiting: &Recruiting) {
        for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
            let Some(known) = self.known(&node) else { continue };
            let is_wanted = !record.maintenance.contains(&node) || record.voters.contains(&node);
            let is_old = node == record.primary && known.answered_since(recruiting.change.closed).is_none();
            let is_there = known.trouble.is_none() && !known.is_primary();
            let is_asked = self.is_running(|job| matches!(job, Job::Recruit { node: other } if *other == node));
            // Its agent would point it at the primary of before again. Nothing hangs on it, unless it votes.
            let is_in_flux = self.is_being_repaired(&node) && !record.voters.contains(&node);
            if is_wanted
                && is_there
                && !is_in_flux
                && !is_old
                && !is_asked
                && !recruiting.change.recruits.contains_key(&node)
                && self.may_try(&Retry::Recruit(node.clone()))
            {
                self.start(Job::Recruit { node });
            }
        }
    }

    /// Best effort: it may be frozen or cut off, and nobody waits for it.
    fn fence_old(&mut self, record: &Record, change: &Change) {
        let node = record.primary.clone();
        let is_there = self.known(&node).is_some_and(|known| known.answered_since(change.closed).is_some());
        let is_it = |job: &Job| matches!(job, Job::Fence { .. });
        if (change.is_soft || change.order.is_some())
            && change.retiring.is_none()
            && is_there
            && !self.is_demoted(&node)
            && !self.is_running(is_it)
            && self.may_try(&Retry::Fence(node.clone()))
        {
            self.not_before(Retry::Fence(node.clone()), FENCE_AGAIN_MS);
            self.start(Job::Fence { node });
        }
    }

    fn choose(&self, record: &Record, change: &Change) -> Choice {
        let ground = Ground {
            record,
            policy: &self.policy,
            highest: self.highest,
            unfit: &change.unfit,
            order: change.order.as_ref(),
        };
        let mut choice = choose(&change.recruits, &ground);
        if let (Ok(node), Some(end)) = (&choice.chosen, Brain::end_of_old(change)) {
            let has = change.recruits.get(node).map_or(Lsn(0), |recruit| recruit.received);
            if has < end {
                let old = &record.primary;
                choice.chosen = Err(format!("{node} has received up to {has} only, and {old} has written up to {end}"));
            }
        }
        choice
    }

    /// Nobody can be promoted as things stand.
    fn refuse(&mut self, record: &Record, recruiting: &Recruiting, choice: Choice, is_back: bool) {
        let Err(mut reason) = choice.chosen else { return };
        if !recruiting.failed.is_empty() {
            reason += &format!(" (not recruited: {})", super::candidate::listed(&recruiting.failed));
        }
        if recruiting.change.retiring.is_some() && recruiting.change.order.is_some() {
            return self.undo(reason);
        }
        if let Some(order) = &recruiting.change.order {
            self.out.push(Action::Answer { id: order.id, result: Err(reason.clone()) });
            self.say(true, format!("the failover to {} that was asked for is refused: {reason}", order.to));
            if let Mode::Recruiting(recruiting) = &mut self.mode {
                recruiting.change.order = None;
                recruiting.change.is_soft = false;
            }
            return;
        }
        if is_back {
            let why = format!("{} is taken back, as nobody can take its place: {reason}", record.primary);
            return self.settle_with(record.primary.clone(), true, why);
        }
        if self.adopt_by_hand(record) {
            return;
        }
        self.start_whoever_is_stopped(record);
        let text = format!("no failover: {reason}");
        self.say_once("refused", text.clone());
        self.close(record.epoch, text);
        if let Mode::Recruiting(recruiting) = &mut self.mode {
            recruiting.reason = reason;
            recruiting.change.rejected = choice.rejected;
        }
    }

    pub(super) fn settle_with(&mut self, candidate: NodeId, is_back: bool, reason: String) {
        let Mode::Recruiting(recruiting) = self.mode.clone() else { return };
        let mut change = recruiting.change;
        change.took("recruit", self.now);
        for (node, why) in recruiting.failed {
            change.rejected.entry(node).or_insert(why);
        }
        self.forget(|job| matches!(job, Job::Recruit { .. }));
        if is_back {
            self.forget(|job| matches!(job, Job::Fence { .. }));
        }
        let (adrift, settled) = (Default::default(), None);
        self.enter(Mode::Settling(Settling { change, candidate, is_back, adrift, settled }), reason);
    }

    pub(super) fn settle(&mut self) {
        let Mode::Settling(settling) = self.mode.clone() else { return };
        if let Some(settled) = settling.settled {
            return self.settle_others(settling, settled);
        }
        // One job from beginning to end: its answer leads on, to the promotion or back.
        if !self.is_running(|job| matches!(job, Job::Settle { .. })) {
            self.start(Job::Settle { node: settling.candidate.clone() });
            self.follow_ahead(&settling);
            self.level(settling);
        }
    }

    /// Whether it was seen to receive from the primary of before, on its timeline.
    pub(super) fn has_streamed(&self, node: &NodeId) -> bool {
        let streamed = self.known(node).and_then(|known| known.received_from.clone());
        // After a promotion that never took writes, what counts is still the log of the primary before.
        // The one that was to be promoted had it too, and may have brought others up to itself.
        self.record.as_ref().zip(streamed).is_some_and(|(record, (from, timeline))| {
            let is_former = record.fork_lsn.is_some() && record.former.as_ref() == Some(&from);
            timeline == record.timeline && (is_former || from == record.primary)
        })
    }

    pub(super) fn recruited(&mut self, node: NodeId, result: Result<Answer, Failure>) {
        let now = self.now;
        let has_streamed = self.has_streamed(&node);
        let Mode::Recruiting(recruiting) = &mut self.mode else { return };
        let has_streamed = has_streamed || recruiting.change.levelled.contains(&node);
        match result {
            Ok(Answer::Recruited { system_identifier, timeline, received, last_epoch }) => {
                recruiting.failed.remove(&node);
                let recruit =
                    Recruit { system_identifier, timeline, received, last_epoch, is_settled: false, has_streamed };
                recruiting.change.recruits.insert(node, recruit);
                self.said.remove("refused");
            }
            Ok(other) => debug_assert!(false, "{other:?} is no answer to Recruit"),
            Err(failure) => {
                recruiting.failed.insert(node.clone(), failure.reason);
                self.not_before.insert(Retry::Recruit(node), after(now, AGAIN_MS));
            }
        }
    }

    pub(super) fn settled(&mut self, node: &NodeId, result: Result<Answer, Failure>) {
        let Mode::Settling(settling) = self.mode.clone() else { return };
        let (Some(record), true) = (self.record.clone(), settling.candidate == *node) else { return };
        let mut change = settling.change;
        let verdict = match result {
            Err(failure) => Err(failure.reason),
            Ok(_) if settling.is_back => Ok(()),
            Ok(Answer::Settled { replayed, last_epoch }) => {
                let verdict = self.try_on(&record, &mut change, node, replayed, last_epoch);
                // Those that receive from this one have what it has.
                let other = self.who_may_have_more(&record, &change, node, &settling.adrift);
                if let (Ok(()), Some(other)) = (&verdict, other) {
                    change.took("settle", self.now);
                    let text =
                        format!("{node} has received a record in part; {other} is asked whether it has all of it");
                    return self.ask_another(change, &settling.adrift, text);
                }
                verdict
            }
            Ok(other) => Err(format!("{other:?} is no answer to Settle")),
        };
        match verdict {
            Ok(()) => self.mode = Mode::Settling(Settling { change, settled: Some(self.now), ..settling }),
            Err(reason) => {
                let text = format!("{node} cannot be taken: {reason}");
                change.took("settle", self.now);
                // It has not shown that it has more than the one that was asked before it.
                change.leave_out_torn(|other, _| other == node);
                match settling.is_back {
                    true => change.back_from = Millis(self.now.0 + 1),
                    false => drop(change.unfit.insert(node.clone(), reason)),
                }
                self.ask_another(change, &settling.adrift, text);
            }
        }
    }

    fn ask_another(&mut self, mut change: Change, adrift: &BTreeSet<NodeId>, text: String) {
        // Who may receive again is no recruit any more.
        self.forget(|job| matches!(job, Job::Level { .. }));
        change.recruits.retain(|other, _| !adrift.contains(other));
        self.enter(Mode::Recruiting(Recruiting::new(change, false)), text);
    }

    /// Another that has received the record that the candidate could not replay, and has not been asked yet. It should not have
    /// more, and if it has, the log of the candidate is damaged rather than torn.
    fn who_may_have_more(
        &self,
        record: &Record,
        change: &Change,
        node: &NodeId,
        adrift: &BTreeSet<NodeId>,
    ) -> Option<NodeId> {
        let torn = change.torn.filter(|_| change.order.is_none())?;
        let unfit = &change.unfit;
        let ground = Ground { record, policy: &self.policy, highest: self.highest, unfit, order: None };
        let chosen = change.recruits.get(node).filter(|its| its.received == torn.from)?;
        let may_have_more = |(other, its): &(&NodeId, &Recruit)| {
            !its.is_settled
                && its.timeline == chosen.timeline
                && its.received > torn.from
                && !adrift.contains(*other)
                && ground.fits(its).is_ok()
                && ground.is_eligible(other).is_ok()
        };
        change.recruits.iter().find(may_have_more).map(|(other, _)| other.clone())
    }

    /// Does the candidate, now that it has replayed what it received, still look like what was chosen?
    fn try_on(
        &self,
        record: &Record,
        change: &mut Change,
        node: &NodeId,
        replayed: crate::types::Lsn,
        last_epoch: Option<crate::types::Epoch>,
    ) -> Result<(), String> {
        let end = Brain::end_of_old(change);
        let Some(recruit) = change.recruits.get_mut(node) else { return Err("it is no recruit".into()) };
        let received = recruit.received;
        if received.0 > replayed.0 + MOST_TORN || end.is_some_and(|end| replayed < end) {
            return Err(format!("has replayed up to {replayed} only, of {received} received"));
        }
        // It has shown that the rest is the beginning of a record. What counts from here on is what it can replay.
        if replayed < received {
            change.torn = Some(Torn { from: replayed, to: received });
            recruit.received = replayed;
        } else if change.torn.is_some_and(|torn| torn.from < replayed) {
            change.torn = None;
        }
        recruit.last_epoch = last_epoch;
        recruit.is_settled = true;
        let recruit = recruit.clone();
        let unfit = &change.unfit;
        Ground { record, policy: &self.policy, highest: self.highest, unfit, order: None }.fits(&recruit)
    }

    /// Whether an order makes one the primary that may lack what was acknowledged.
    fn is_loss(&self, record: &Record, change: &Change, chosen: &Recruit) -> bool {
        let is_allowed = change.order.as_ref().is_some_and(|order| order.allow_data_loss);
        let ground = Ground { record, policy: &self.policy, highest: self.highest, unfit: &change.unfit, order: None };
        is_allowed && !ground.is_complete(&change.recruits, chosen)
    }

    pub(super) fn promote_it(&mut self, record: Record, mut change: Change, node: NodeId, is_back: bool) {
        change.leave_out_torn(|_, its| its.timeline == record.timeline);
        let mut next = Record {
            phase: Phase::Promoting,
            primary: node.clone(),
            coordinator: self.policy.coordinator.clone(),
            ..record.clone()
        };
        if let Some(chosen) = change.recruits.get(&node).filter(|_| !is_back) {
            if node != record.primary {
                next.former = Some(record.primary.clone());
            }
            // Whoever has as much as the chosen one is enough, should that one die before it takes writes.
            let is_as_far = |(other, its): &(&NodeId, &Recruit)| {
                **other != node && (its.timeline, its.received) == (chosen.timeline, chosen.received)
            };
            next.voters = match record.durability {
                Durability::Quorum if self.is_loss(&record, &change, chosen) => {
                    // Should it fail, the next one is chosen as if this one had never been asked for (`Record::before_loss`).
                    next.former = Some(record.primary.clone());
                    record.voters.iter().chain(Some(&node)).cloned().collect()
                }
                Durability::Quorum => {
                    change.recruits.iter().filter(is_as_far).map(|(other, _)| other.clone()).collect()
                }
                Durability::Async => Default::default(),
            };
            next.k = if next.voters.contains(&node) { record.k } else { next.voters.len() as u32 };
            next.timeline = chosen.timeline;
            next.fork_lsn = Some(chosen.received);
        }
        let reason = match is_back {
            true => format!("{node} is taken back for epoch {}", record.epoch),
            false => format!("{node} has everything up to {}", next.fork_lsn.unwrap_or_default()),
        };
        self.enter(Mode::Promoting(Promoting { change, step: Step::Promote, reason: reason.clone() }), reason);
        self.store(next);
    }
}

fn reason_of(known: &super::nodes::Known) -> String {
    known.trouble.as_ref().map_or_else(|| "it is a standby".into(), |trouble| trouble.text.clone())
}
