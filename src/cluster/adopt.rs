//! Without a record: the cluster as it is found. One primary is taken as it is; none, or two, is for people to settle.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::agent::{Data, Report, Server};
use super::brain::after;
use super::jobs::Retry;
use super::mode::{Adopting, Change, Mode, Promoting, Step};
use super::record::FORMAT;
use super::{Answer, Brain, Failure, Job, Observation, Phase, Record};
use crate::types::{Durability, Epoch, Lsn, NodeId, Timeline};

/// What failed is tried again after so long.
const INITIALISE_AGAIN_MS: u64 = 5000;

impl Brain {
    pub(super) fn adopt(&mut self) {
        let Mode::Adopting(adopting) = self.mode.clone() else { return };
        if self.pending.is_some() {
            return;
        }
        let all_looked = self.nodes.values().all(|known| known.looked_since(adopting.since));
        let patience = after(adopting.since, 2 * self.policy.probe_timeout.0);
        if !all_looked && !self.is_due(patience) {
            return;
        }
        let seen: Vec<(NodeId, Observation)> = self
            .nodes
            .iter()
            .filter_map(|(node, known)| Some((node.clone(), known.answered_since(adopting.since)?.clone())))
            .collect();
        let last = |its: &Observation| {
            let known = seen.iter().filter(|(_, other)| other.system_identifier == its.system_identifier);
            known.filter_map(|(_, other)| other.last_epoch).max().unwrap_or(Epoch(0))
        };
        let mut primaries = seen.iter().filter(|(_, seen)| !seen.is_in_recovery);
        let reason = match (primaries.next(), primaries.next()) {
            (Some((node, its)), None) if its.is_fenced => {
                format!("{node} was fenced, as a primary of the past; the one after it has to be there")
            }
            (Some((node, its)), None) if its.last_epoch.is_some_and(|known| known < last(its)) => {
                format!("{node} is a primary, but does not know epoch {}, which a standby does", last(its))
            }
            (Some((node, its)), None) => {
                let last = last(its).max(adopting.floor);
                return self.adopt_primary(node, its, last);
            }
            (Some(_), Some(_)) => {
                let all: Vec<String> = seen
                    .iter()
                    .filter(|(_, seen)| !seen.is_in_recovery)
                    .map(|(node, seen)| {
                        format!("{node} (system {}, timeline {})", seen.system_identifier, seen.timeline.0)
                    })
                    .collect();
                format!("{} say that they are the primary; stop all but one", all.join(" and "))
            }
            _ => self.begin_somewhere(&adopting, &seen),
        };
        self.say_once("adopt", reason.clone());
        self.close(adopting.floor.next(), reason.clone());
        if let Mode::Adopting(adopting) = &mut self.mode {
            adopting.reason = reason;
        }
    }

    /// Nobody is a primary. Where agents say that there is nothing at all, a cluster is made; where they say that there is one
    /// primary's data and that no pgbaton ever ordered anything, that one is started; all else is for people.
    fn begin_somewhere(&mut self, adopting: &Adopting, seen: &[(NodeId, Observation)]) -> String {
        let has_begun = |job: &Job| matches!(job, Job::Initialise { .. } | Job::Start { .. });
        if let Some(node) = self.nodes.keys().find(|node| self.is_at_work(node)).filter(|_| self.is_running(has_begun))
        {
            return format!("{node} is being started as the primary by its agent");
        }
        let heard: BTreeMap<NodeId, Report> = self
            .nodes
            .iter()
            .filter(|(_, known)| known.agent.as_ref().is_some_and(|(at, _)| *at >= adopting.since))
            .filter_map(|(node, _)| Some((node.clone(), self.report(node)?.clone())))
            .collect();
        let is_new = adopting.floor == Epoch(0)
            && heard.len() == self.nodes.len()
            && heard.values().all(|report| report.epoch == Epoch(0) && report.doing.is_none())
            && !self.policy.only_watches();
        let failure = |brain: &Brain, node: &NodeId| {
            let failure = brain.mending.get(node).and_then(|mending| mending.failure.clone());
            failure.map_or(String::new(), |failure| format!(": {failure}"))
        };
        if is_new && heard.values().all(|report| report.data == Data::Absent) {
            let priority = |node: &NodeId| self.policy.nodes.get(node).map_or(0, |node| node.priority);
            let first =
                heard.keys().filter(|node| priority(node) > 0).max_by_key(|node| (priority(node), Reverse(*node)));
            let Some(node) = first.cloned() else { return "there is no data, and no node may be the primary".into() };
            if self.may_try(&Retry::Initialise) {
                self.not_before(Retry::Initialise, INITIALISE_AGAIN_MS);
                self.start_under(Epoch(0), Job::Initialise { node: node.clone() }, None);
            }
            return format!("no node has any data; {node} is made the first of a new cluster{}", failure(self, &node));
        }
        if let Some(node) = only_primary(&heard).filter(|_| is_new) {
            if self.may_try(&Retry::Start(node.clone())) {
                self.not_before(Retry::Start(node.clone()), INITIALISE_AGAIN_MS);
                self.start_under(Epoch(0), Job::Start { node: node.clone() }, None);
            }
            return format!("{node} has the only primary's data, and is started by its agent{}", failure(self, &node));
        }
        if heard.is_empty() {
            let all: Vec<String> = seen.iter().map(|(node, _)| node.to_string()).collect();
            return match all.is_empty() {
                true => "no node answers".into(),
                false => {
                    format!("no node is a primary; of those that answer ({}) an operator promotes one", all.join(", "))
                }
            };
        }
        let all: Vec<String> = self.nodes.keys().map(|node| format!("{node} {}", described(heard.get(node)))).collect();
        let best = heard.iter().filter_map(|(node, report)| Some((rank(report)?, node)));
        let advice = match best.max() {
            Some((_, node)) => format!(
                "the one that was the primary last has to be started by an operator; by these it is {node}: `pgbaton restart {node}`"
            ),
            None => "an operator promotes one".into(),
        };
        format!("no node is a primary, and there is no record of which one was: {}; {advice}", all.join("; "))
    }

    pub(super) fn initialised(&mut self, node: &NodeId, result: Result<Answer, Failure>) {
        let mending = self.mending.entry(node.clone()).or_default();
        mending.failure = result.as_ref().err().map(|failure| failure.reason.clone());
        match result {
            Ok(_) => self.say(false, format!("{node} is the first node of a new cluster")),
            Err(failure) => self.say(true, format!("{node} could not be made a new cluster: {}", failure.reason)),
        }
    }

    fn adopt_primary(&mut self, node: &NodeId, seen: &Observation, last: Epoch) {
        let cause = format!("{node} was found to be the primary");
        let record = Record {
            format: FORMAT,
            system_identifier: seen.system_identifier,
            epoch: last.next(),
            phase: Phase::Promoting,
            primary: node.clone(),
            former: None,
            timeline: seen.timeline,
            fork_lsn: None,
            durability: self.policy.durability,
            voters: Default::default(),
            k: 0,
            written: seen.last_epoch.unwrap_or(Epoch(0)),
            coordinator: self.policy.coordinator.clone(),
            cause: cause.clone(),
            since: self.unix(self.now),
            paused: false,
            maintenance: Default::default(),
        };
        let mut change = Change::new("adoption", cause.clone(), None, self.now);
        change.closed = self.closed_since.unwrap_or(self.now);
        // In quorum durability voters are taken in as soon as it is stable; until then nobody has to have anything.
        debug_assert!(record.durability != Durability::Quorum || record.voters.is_empty());
        let reason = format!("epoch {}: {cause}", record.epoch);
        self.enter(Mode::Promoting(Promoting { change, step: Step::Promote, reason: cause }), reason);
        self.store(record);
    }
}

/// The one node whose data is a primary's, if all else is empty or a standby of it.
fn only_primary(heard: &BTreeMap<NodeId, Report>) -> Option<NodeId> {
    let is_primary = |report: &&Report| matches!(report.data, Data::Present { is_standby: false, .. });
    let mut primaries = heard.iter().filter(|(_, report)| is_primary(report));
    let (Some((node, its)), None) = (primaries.next(), primaries.next()) else { return None };
    let Data::Present { system_identifier: system, timeline: newest, .. } = its.data else { return None };
    let fits = |report: &Report| match report.data {
        Data::Absent => true,
        Data::Present { system_identifier, timeline, .. } => system_identifier == system && timeline <= newest,
        Data::Unusable { .. } => false,
    };
    let is_down = matches!(its.server, Server::Stopped | Server::Waiting { .. });
    (is_down && heard.values().all(fits)).then(|| node.clone())
}

/// Which of several was probably the primary last; `None`: it has no primary's data.
fn rank(report: &Report) -> Option<(Epoch, Timeline, Lsn)> {
    match report.data {
        Data::Present { is_standby: false, timeline, checkpoint, .. } => Some((report.epoch, timeline, checkpoint)),
        _ => None,
    }
}

fn described(report: Option<&Report>) -> String {
    let Some(report) = report else { return "(its agent does not answer)".into() };
    match &report.data {
        Data::Absent => "has no data".into(),
        Data::Unusable { reason } => format!("has no usable data ({reason})"),
        Data::Present { system_identifier, timeline, is_standby, checkpoint, .. } => {
            let whose = if *is_standby { "a standby's" } else { "a primary's" };
            let (timeline, epoch) = (timeline.0, report.epoch);
            format!(
                "has {whose} data (system {system_identifier}, timeline {timeline}, checkpoint {checkpoint}, epoch {epoch})"
            )
        }
    }
}
