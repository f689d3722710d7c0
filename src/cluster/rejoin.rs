//! Nodes that are no standby of the primary are made one again by their agents: as they are, by a rewind, or by a copy of
//! everything.
//!
//! Which way it goes the agent decides, who sees the data; the brain says whether it has to be, and that nothing but a copy
//! will do where it knows that a timeline only has the number of the primary's. What fails is tried again after growing pauses,
//! and stays visible until it has worked.

use super::agent::{Data, Deed, Outcome, Repair, Server};
use super::brain::after;
use super::event::CommandId;
use super::mode::Mode;
use super::nodes::{Known, Still};
use super::{
    Action, Answer, Brain, Failure, FailureKind, Job, Lead, NodeState, Observation, Phase, Record, RepairNote,
};
use crate::types::{Epoch, Millis, NodeId, Timeline};

/// Copies load the primary and the network.
const MOST_AT_ONCE: usize = 2;
const FIRST_PAUSE_MS: u64 = 2000;
const LAST_PAUSE_MS: u64 = 60_000;
/// What was seen or reported so soon after an order ended may be from before.
const SETTLE_MS: u64 = 1000;
/// A standby that follows and is not streamed to may be connecting, or between two tries, for so long.
const UNSTREAMED_MS: u64 = 10_000;
/// And a server with a standby's data may be waited for so long that does not come up, or replays nothing.
const STUCK_MS: u64 = 15_000;
/// A receiver that is lost so often while nothing is replayed gets what does not fit.
const STUCK_LOSSES: u32 = 3;

/// How it goes with one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Mending {
    /// When the order under way was given, and why.
    began: Option<(Millis, String)>,
    /// The last epoch in which an order was given here: what the agent is at then is no other's.
    ordered: Option<Epoch>,
    /// An order under way that was not given here, by its id.
    awaited: Option<String>,
    failures: u64,
    /// Why the last one failed, if it did.
    pub failure: Option<String>,
    again: Option<Millis>,
    /// The failure that is in the history already.
    noted: Option<String>,
}

/// What a node needs to be a standby of the primary.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Need {
    Nothing,
    /// It is left as it is, for this reason.
    NotOurs(String),
    Start,
    Rejoin {
        repair: Repair,
        why: String,
    },
}

impl Brain {
    /// While the primary of the record takes writes.
    pub(super) fn mend(&mut self) {
        let Some(record) = self.mended_by().cloned() else { return };
        for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
            if !self.has_agent(&node) || node == record.primary || record.maintenance.contains(&node) {
                continue;
            }
            self.see_others_order(&record, &node);
            match self.need(&record, &node) {
                Need::Nothing => self.see_well(&record, &node),
                Need::NotOurs(why) => self.say_once(&format!("mend {node}"), format!("{node} {why}")),
                Need::Start => self.start_if_stopped(&node),
                Need::Rejoin { repair, why } if self.policy.rejoins && !self.policy.only_watches() => {
                    self.rejoin_when_due(&record, node, repair, why);
                }
                Need::Rejoin { why, .. } => self.say_once(
                    &format!("mend {node}"),
                    format!("{node} {why}; `pgbaton rejoin {node}` makes it a standby again"),
                ),
            }
        }
    }

    /// The record whose primary others can be made standbys of.
    fn mended_by(&self) -> Option<&Record> {
        let is_open = matches!((&self.mode, &self.lead), (Mode::Stable(it), Some(Lead::Open { .. })) if it.is_open);
        let record = self.record.as_ref().filter(|record| is_open && record.phase == Phase::Stable)?;
        // Not from one that is perhaps about to be replaced.
        self.known(&record.primary).is_some_and(Known::is_primary).then_some(record)
    }

    fn need(&self, record: &Record, node: &NodeId) -> Need {
        let (Some(known), Some(report)) = (self.known(node), self.report(node)) else { return Need::Nothing };
        let primary = &record.primary;
        let other = match report.data {
            Data::Present { system_identifier, .. } if system_identifier != record.system_identifier => true,
            _ => known.is_foreign,
        };
        if other {
            let why =
                "has the data of another cluster, which is left as it is; empty its data directory to have it copied";
            return Need::NotOurs(why.into());
        }
        if let Some(seen) = known.answers() {
            return match seen.is_in_recovery {
                true => self.need_of_standby(record, node, known, seen),
                // Fenced first, which takes a moment and is certain.
                false if self.is_running(|job| matches!(job, Job::Fence { node: other } if other == node)) => {
                    Need::Nothing
                }
                false => {
                    let why = format!(
                        "is a primary of the past (timeline {}); {primary} is that of epoch {}",
                        seen.timeline.0, record.epoch
                    );
                    self.need_of_former(record, seen.timeline, why)
                }
            };
        }
        let is_waiting = match &report.server {
            Server::Stopped => false,
            Server::Waiting { .. } => true,
            Server::Starting | Server::Running | Server::Stopping => return Need::Nothing,
        };
        let stuck = known.stuck_since.is_some_and(|since| after(since, STUCK_MS) <= self.now);
        match (&report.data, &report.server) {
            (Data::Absent, _) => Need::Rejoin { repair: Repair::Auto, why: "has no data".into() },
            (Data::Unusable { reason }, _) => {
                Need::Rejoin { repair: Repair::Auto, why: format!("has no usable data: {reason}") }
            }
            (Data::Present { is_standby: false, timeline, .. }, _) => {
                let why = format!("has the data of a primary of the past (timeline {})", timeline.0);
                self.need_of_former(record, *timeline, why)
            }
            (Data::Present { .. }, Server::Waiting { reason }) if stuck => {
                Need::Rejoin { repair: Repair::Auto, why: format!("does not start: {reason}") }
            }
            (Data::Present { .. }, _) if is_waiting => Need::Nothing,
            (Data::Present { .. }, _) => Need::Start,
        }
    }

    /// Of one that was a primary itself: nobody else's timeline can be its own, so one of the same number is another.
    fn need_of_former(&self, record: &Record, timeline: Timeline, why: String) -> Need {
        if timeline == record.timeline {
            let why = format!("{why}, which is another than the cluster's of that number");
            return Need::Rejoin { repair: Repair::Rebuild, why };
        }
        Need::Rejoin { repair: Repair::Auto, why }
    }

    fn need_of_standby(&self, record: &Record, node: &NodeId, known: &Known, seen: &Observation) -> Need {
        if let Err(unfit) = self.may_follow(record, node, seen) {
            return Need::Rejoin { repair: unfit.repair, why: unfit.reason };
        }
        let primary = &record.primary;
        if seen.follows.as_ref() != Some(primary) {
            return Need::Nothing;
        }
        let is_left = |(since, times): (Millis, u32)| times > 3 && after(since, UNSTREAMED_MS) <= self.now;
        let is_stuck = |still: &Still| still.losses >= STUCK_LOSSES && after(still.since, STUCK_MS) <= self.now;
        let why = if known.unstreamed.is_some_and(is_left) {
            format!("follows {primary} and has not been streamed to for {} s", UNSTREAMED_MS / 1000)
        } else if known.still.as_ref().is_some_and(is_stuck) {
            format!("follows {primary}, loses it again and again and replays nothing")
        } else {
            return Need::Nothing;
        };
        Need::Rejoin { repair: Repair::Auto, why }
    }

    fn see_well(&mut self, record: &Record, node: &NodeId) {
        let Some(known) = self.known(node) else { return };
        let from = known.answers().and_then(|seen| seen.receiver.as_ref()).and_then(|receiver| receiver.from.as_ref());
        if from == Some(&record.primary) && known.unstreamed.is_none() && !self.is_at_work(node) {
            self.said.remove(&format!("mend {node}"));
            if let Some(mending) = self.mending.get_mut(node) {
                let Mending { began, ordered, awaited, .. } = mending.clone();
                *mending = Mending { began, ordered, awaited, ..Mending::default() };
            }
        }
    }

    // --- orders -----------------------------------------------------------------------------------------------------------

    fn rejoin_when_due(&mut self, record: &Record, node: NodeId, repair: Repair, why: String) {
        // Begun by a pgbaton before this one, perhaps; an older epoch's is replaced.
        let doing = |node: &NodeId| {
            let doing = self.report(node).and_then(|report| report.doing.as_ref());
            doing.is_some_and(|doing| doing.epoch >= record.epoch)
        };
        let busy = self.nodes.keys().filter(|other| {
            let is_ours = self.is_running(|job| matches!(job, Job::Rejoin { node, .. } if node == *other));
            is_ours || doing(other)
        });
        if self.is_at_work(&node) || doing(&node) || busy.count() >= MOST_AT_ONCE {
            return;
        }
        let again = self.mending.get(&node).and_then(|mending| mending.again);
        if again.is_none_or(|again| self.is_due(again)) {
            self.order_rejoin(record, node, repair, why);
        }
    }

    fn order_rejoin(&mut self, record: &Record, node: NodeId, repair: Repair, why: String) {
        let primary = record.primary.clone();
        let text = format!("{node} is to be made a standby of {primary} by its agent ({}): it {why}", repair.as_str());
        self.say_once(&format!("mend {node}"), text);
        let mending = self.mending.entry(node.clone()).or_default();
        (mending.began, mending.ordered) = (Some((self.now, why.clone())), Some(record.epoch));
        let system_identifier = record.system_identifier;
        self.start(Job::Rejoin { node, primary, system_identifier, repair, reason: why });
    }

    /// A pgbaton before this one has ordered it. It is waited for, and has its place in the history.
    fn see_others_order(&mut self, record: &Record, node: &NodeId) {
        let is_ours = self.mending.get(node).is_some_and(|mending| mending.ordered == Some(record.epoch));
        let Some(report) = self.report(node).filter(|_| !is_ours && !self.is_at_work(node)) else { return };
        let awaited = self.mending.get(node).and_then(|mending| mending.awaited.clone());
        let doing = report.doing.clone().filter(|doing| doing.task == "rejoin" && doing.epoch == record.epoch);
        let done = report.done.clone().filter(|done| Some(&done.id) == awaited.as_ref());
        if let Some(doing) = doing {
            if awaited.as_ref() != Some(&doing.id) {
                let mending = self.mending.entry(node.clone()).or_default();
                mending.awaited = Some(doing.id);
                mending.began = Some((self.now, "was ordered before this pgbaton was started".into()));
            }
        } else if let Some(done) = done {
            let mending = self.mending.entry(node.clone()).or_default();
            mending.awaited = None;
            let why = mending.began.as_ref().map(|(_, why)| why.clone()).unwrap_or_default();
            let result = match done.outcome {
                Outcome::Well(deed) => Ok(Answer::Agent(deed)),
                Outcome::Failed { reason, .. } => Err(Failure { kind: FailureKind::Refused, reason }),
            };
            self.rejoined(node, record.primary.clone(), Repair::Auto, why, result);
        }
    }

    pub(super) fn rejoined(
        &mut self,
        node: &NodeId,
        primary: NodeId,
        repair: Repair,
        reason: String,
        result: Result<Answer, Failure>,
    ) {
        let Some(epoch) = self.record.as_ref().map(|record| record.epoch) else { return };
        let began = self.mending.entry(node.clone()).or_default().began.take();
        let note = RepairNote {
            node: node.clone(),
            epoch,
            primary,
            repair: repair.as_str().into(),
            why: reason,
            diverged: None,
            failure: String::new(),
            began_at: self.unix(began.map_or(self.now, |(at, _)| at)),
            ended_at: self.unix(self.now),
        };
        match result {
            Ok(Answer::Agent(deed)) => self.is_standby_again(node, deed, note),
            Ok(other) => debug_assert!(false, "{other:?} is no answer to Rejoin"),
            Err(failure) => self.could_not_rejoin(node, failure.reason, note),
        }
    }

    fn is_standby_again(&mut self, node: &NodeId, deed: Deed, note: RepairNote) {
        let (again, ordered) = (Some(after(self.now, SETTLE_MS)), Some(note.epoch));
        let mending = Mending { again, ordered, ..Mending::default() };
        self.mending.insert(node.clone(), mending);
        if let Some(known) = self.nodes.get_mut(node) {
            known.followed = Some(note.primary.clone());
            (known.unstreamed, known.still) = (None, None);
        }
        let repair = deed.repair.map_or(note.repair, |repair| repair.as_str().into());
        let why = if deed.why.is_empty() { note.why } else { format!("{}; {}", note.why, deed.why) };
        let lost = deed.diverged.as_ref().map_or(String::new(), |its| {
            let commits = its.commits.map_or("an unknown number of".into(), |count| count.to_string());
            let kept = if its.kept.is_empty() { String::new() } else { format!(", kept in {}", its.kept) };
            format!("; it had {commits} commits from {} to {} that nobody else has{kept}", its.from, its.to)
        });
        self.said.remove(&format!("mend {node}"));
        self.say(false, format!("{node} is a standby of {} again ({repair}): {}{lost}", note.primary, deed.why));
        let note = RepairNote { repair, why, diverged: deed.diverged, ..note };
        self.out.push(Action::NoteRepair(Box::new(note)));
    }

    /// Tried again, less and less often; the history has each reason once.
    fn could_not_rejoin(&mut self, node: &NodeId, failure: String, note: RepairNote) {
        let now = self.now;
        let mending = self.mending.entry(node.clone()).or_default();
        let pause = (FIRST_PAUSE_MS << mending.failures.min(10)).min(LAST_PAUSE_MS);
        mending.failures += 1;
        mending.again = Some(after(now, pause));
        mending.failure = Some(failure.clone());
        let is_news = mending.noted.replace(failure.clone()).as_ref() != Some(&failure);
        let text = format!("{node} could not be made a standby of {}: {failure}; again in {pause} ms", note.primary);
        self.say(true, text);
        if is_news {
            self.out.push(Action::NoteRepair(Box::new(RepairNote { failure, ..note })));
        }
    }

    pub(super) fn rejoin_by_order(
        &mut self,
        id: CommandId,
        record: &Record,
        node: NodeId,
        rebuild: bool,
    ) -> Result<(), String> {
        if node == record.primary {
            return Err(format!("{node} is the primary"));
        }
        if record.maintenance.contains(&node) {
            return Err(format!("{node} is in maintenance"));
        }
        if self.mended_by().is_none() {
            return Err(format!("{} does not take writes yet: nobody can be made a standby of it", record.primary));
        }
        self.check_is_free(&node)?;
        let (repair, why) = match self.need(record, &node) {
            Need::NotOurs(why) => return Err(format!("{node} {why}")),
            _ if rebuild => (Repair::Rebuild, "is copied anew at an operator's wish".to_string()),
            Need::Rejoin { repair, why } => (repair, why),
            Need::Nothing | Need::Start if self.is_streamed_to(record, &node) => {
                return Err(format!(
                    "{node} is a standby of {} already; `pgbaton rebuild {node}` copies everything anew",
                    record.primary
                ));
            }
            Need::Nothing | Need::Start => (Repair::Auto, "is made a standby at an operator's wish".to_string()),
        };
        let text = format!(
            "{node} is being made a standby of {} ({}); `pgbaton list` shows how far it is",
            record.primary,
            repair.as_str()
        );
        self.mending.remove(&node);
        self.said.remove(&format!("mend {node}"));
        self.order_rejoin(record, node, repair, why);
        self.out.push(Action::Answer { id, result: Ok(text) });
        Ok(())
    }

    fn is_streamed_to(&self, record: &Record, node: &NodeId) -> bool {
        self.known(node).is_some_and(|known| {
            let follows = known.answers().is_some_and(|seen| seen.follows.as_ref() == Some(&record.primary));
            follows && known.unstreamed.is_none()
        })
    }

    // --- for people --------------------------------------------------------------------------------------------------

    /// What is being done about a node, or stands in the way of it; `None`: nothing has to be done.
    pub(super) fn account_of_mending(&self, node: &NodeId, known: &Known) -> Option<(NodeState, String)> {
        let record = self.record.as_ref().filter(|record| record.primary != *node && self.has_agent(node))?;
        if self.is_being_repaired(node) {
            let step = self.report(node).and_then(|report| report.doing.as_ref()).map(|doing| doing.step.clone());
            let began = self.mending.get(node).and_then(|mending| mending.began.as_ref());
            let why = began.map_or(String::new(), |(_, why)| why.clone());
            let text = step.filter(|step| !step.is_empty()).unwrap_or(why);
            return Some((NodeState::Rejoining, text));
        }
        let record = self.mended_by().filter(|its| its.epoch == record.epoch)?;
        let apart = match known.answers() {
            Some(seen) if seen.is_fenced => NodeState::Fenced,
            Some(seen) if !seen.is_in_recovery => NodeState::Unknown,
            Some(_) => NodeState::Rejoining,
            None => NodeState::Down,
        };
        let (why, is_ordered) = match self.need(record, node) {
            Need::Nothing | Need::Start => return None,
            Need::NotOurs(why) => return Some((apart, why)),
            Need::Rejoin { why, .. } => (why, self.policy.rejoins && !self.policy.only_watches()),
        };
        let mending = self.mending.get(node);
        Some(match mending.and_then(|mending| mending.failure.as_ref()) {
            Some(failure) => (apart, format!("{why}; could not be made a standby of {}: {failure}", record.primary)),
            None if is_ordered => (NodeState::Rejoining, why),
            None => (apart, format!("{why}; `pgbaton rejoin {node}` makes it a standby again")),
        })
    }
}
