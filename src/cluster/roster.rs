//! Nodes are added and removed while everything runs.
//!
//! A node that is removed while its acknowledgement counts, or counted for what is stored, is not forgotten at once: it *leaves*.
//! Until the voters have been changed in their safe order it is looked at, and should the primary die just then, recruited like
//! any voter; but it is not promoted, told to follow, or made a voter.

use std::collections::{BTreeMap, BTreeSet};

use super::brain::names;
use super::candidate::Ground;
use super::mode::{Change, Mode};
use super::{Answer, Brain, Failure, Job, NodePolicy, Record};
use crate::types::{Durability, NodeId};

impl Brain {
    /// Whether these may be the nodes from now on; if not, why. `moved`: those that stay, but elsewhere, which is to be removed
    /// and added.
    pub fn may_have_nodes(&self, nodes: &BTreeMap<NodeId, NodePolicy>, moved: &BTreeSet<NodeId>) -> Result<(), String> {
        let gone = self.policy.nodes.keys().filter(|node| !nodes.contains_key(*node) || moved.contains(*node));
        for node in gone {
            let what = if nodes.contains_key(node) { "moved to another address" } else { "removed" };
            if let Some(reason) = self.is_indispensable(node) {
                return Err(format!("{node} cannot be {what}: {reason}"));
            }
        }
        Ok(())
    }

    fn is_indispensable(&self, node: &NodeId) -> Option<String> {
        let records = || self.record.iter().chain(self.pending.as_ref().map(|pending| &pending.record));
        if let Some(record) = records().find(|record| record.primary == *node) {
            return Some(format!("it is the primary of epoch {}; make another one the primary first", record.epoch));
        }
        let under_way = "a change of primary is under way";
        let again = "try again when it is over";
        let order = match &self.mode {
            Mode::Switching(switching) => switching.change.order.clone(),
            _ => self.order(),
        };
        if let Some(order) = order.filter(|order| order.to == *node) {
            return Some(format!("{under_way}, and it was asked for {}; {again}", order.to));
        }
        match &self.mode {
            Mode::Settling(settling) if settling.candidate == *node => {
                return Some(format!("{under_way}, and it is the candidate; {again}"));
            }
            Mode::Switching(_) | Mode::Recruiting(_) | Mode::Settling(_) | Mode::Promoting(_) => {}
            _ => return None,
        }
        let has_vote = |record: &Record| record.durability == Durability::Quorum && record.voters.contains(node);
        records().any(has_vote).then(|| {
            format!(
                "{under_way}, and it may be the only one that has some acknowledged commit (it is a voter); {again}"
            )
        })
    }

    /// What only a node has that leaves, and so is not promoted, is brought to the best of those that may be: the voters were to
    /// be changed, and the primary died before they were. Whether that is under way.
    pub(super) fn brings_up(&mut self, record: &Record, change: &Change) -> bool {
        let Change { recruits, unfit, order, .. } = change;
        let ground = Ground { record, policy: &self.policy, highest: self.highest, unfit, order: None };
        let Some(floor) = ground.floor(recruits).filter(|_| record.durability == Durability::Quorum) else {
            return false;
        };
        let known = || recruits.iter().filter(|(_, recruit)| ground.is_of_history(recruit));
        let source = known().find(|(node, recruit)| !self.is_wanted(node) && recruit.received >= floor);
        let Some((from, source)) = source else { return false };
        let may_lead =
            |node: &NodeId| ground.is_eligible(node).is_ok() && order.as_ref().is_none_or(|order| order.to == *node);
        let behind = known()
            .filter(|(node, its)| its.timeline == source.timeline && its.received < source.received && may_lead(node));
        let rank = |node: &NodeId| self.policy.nodes.get(node).map_or(0, |node| node.priority);
        let Some((node, _)) = behind.max_by_key(|(node, its)| (its.received, rank(node))) else { return false };
        let (node, from, until) = (node.clone(), from.clone(), source.received);
        self.say(true, format!("{from} is to leave and alone has everything up to {until}: {node} receives it"));
        if let Mode::Recruiting(recruiting) = &mut self.mode {
            recruiting.change.levelled.insert(node.clone());
        }
        self.start(Job::Level { node, from, until });
        true
    }

    pub(super) fn brought_up(&mut self, node: NodeId, result: Result<Answer, Failure>) {
        // Nobody knows from whom one receives that was not brought up: it is recruited again, or for the first time.
        if let (Mode::Recruiting(recruiting), Err(_)) = (&mut self.mode, &result) {
            recruiting.change.recruits.remove(&node);
        }
        self.recruited(node, result);
    }

    pub(super) fn nodes_changed(&mut self, nodes: BTreeMap<NodeId, NodePolicy>) {
        for node in nodes.keys() {
            self.nodes.entry(node.clone()).or_default();
        }
        for node in self.policy.nodes.keys().filter(|node| !nodes.contains_key(*node)).cloned().collect::<Vec<_>>() {
            self.said.retain(|matter, _| !matter.ends_with(&format!(" {node}")));
            let text = match self.is_needed(&node) {
                true => format!("{node} was removed from the configuration; it leaves when it is no voter any more"),
                false => format!("{node} was removed from the configuration"),
            };
            self.say(false, text);
        }
        for node in nodes.keys().filter(|node| !self.policy.nodes.contains_key(*node)).cloned().collect::<Vec<_>>() {
            self.say(false, format!("{node} was added to the configuration"));
        }
        self.policy.nodes = nodes;
        self.let_go();
    }

    /// Those of the configuration, as it was last told.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodePolicy> {
        &self.policy.nodes
    }

    /// Removed nodes that it still has to know: they have to be looked at and within reach.
    pub fn leaving(&self) -> impl Iterator<Item = &NodeId> {
        self.nodes.keys().filter(|node| !self.is_wanted(node))
    }

    /// Whether it is in the configuration. One that leaves is not.
    pub(super) fn is_wanted(&self, node: &NodeId) -> bool {
        self.policy.nodes.contains_key(node)
    }

    /// Whether a failover may have to ask it.
    fn is_needed(&self, node: &NodeId) -> bool {
        let records = self.record.iter().chain(self.pending.as_ref().map(|pending| &pending.record));
        records.into_iter().any(|record| record.primary == *node || record.voters.contains(node))
            || self.in_force.iter().map(names).any(|names| names.voters.contains(node))
    }

    /// Forgets those who have been removed and are needed no longer.
    pub(super) fn let_go(&mut self) {
        let gone: Vec<NodeId> = self.leaving().filter(|node| !self.is_needed(node)).cloned().collect();
        for node in gone {
            self.nodes.remove(&node);
            self.mending.remove(&node);
            let why = format!("{node} was removed from the configuration");
            self.forget_for(|job| concerns(job, &node), &why);
            self.not_before.retain(|what, _| !what.is_about(&node));
            let change = match &mut self.mode {
                Mode::Recruiting(recruiting) => {
                    recruiting.failed.remove(&node);
                    &mut recruiting.change
                }
                Mode::Settling(settling) => {
                    settling.adrift.remove(&node);
                    &mut settling.change
                }
                Mode::Promoting(promoting) => &mut promoting.change,
                _ => continue,
            };
            change.recruits.remove(&node);
            change.levelled.remove(&node);
            change.unfit.remove(&node);
        }
    }
}

/// Whether it is to be done to that node, or with its help.
fn concerns(job: &Job, node: &NodeId) -> bool {
    match job {
        Job::Recruit { node: other }
        | Job::Settle { node: other }
        | Job::Promote { node: other, .. }
        | Job::SetSync { node: other, .. }
        | Job::WriteEpoch { node: other, .. }
        | Job::Fence { node: other }
        | Job::Checkpoint { node: other }
        | Job::Stop { node: other, .. }
        | Job::Start { node: other }
        | Job::Restart { node: other, .. }
        | Job::Initialise { node: other } => other == node,
        Job::Level { node: other, from, .. } => other == node || from == node,
        Job::Follow { node: other, primary } => other == node || primary == node,
        Job::Rejoin { node: other, primary, .. } => other == node || primary == node,
        Job::Drain { .. } => false,
    }
}
