//! What the brain believes, put into words for people.

use super::mode::{Mode, Step};
use super::nodes::Known;
use super::{Brain, NodeAccount, NodeState, Picture, Record, Symptom};
use crate::types::{Durability, NodeId};

impl Brain {
    /// What it believes, for people.
    pub fn picture(&self) -> Picture {
        let record = self.record.as_ref();
        let nodes = self.nodes.iter().map(|(node, known)| (node.clone(), self.account(node, known))).collect();
        Picture {
            epoch: record.map(|record| record.epoch),
            phase: record.map(|record| record.phase),
            primary: record.map(|record| record.primary.clone()),
            durability: record.map_or(self.policy.durability, |record| record.durability),
            sync: record.map(Record::sync).unwrap_or_default(),
            paused: record.is_some_and(|record| record.paused),
            reason: self.reason(),
            closed_since: self.closed_since,
            nodes,
        }
    }

    fn reason(&self) -> String {
        if let Some(pending) = self.pending.as_ref().filter(|pending| pending.tries > 1) {
            return format!("the record of epoch {} is not stored yet", pending.record.epoch);
        }
        match &self.mode {
            Mode::Unloaded => "the store has not been read yet".into(),
            Mode::Adopting(adopting) => adopting.reason.clone(),
            Mode::Stable(stable) => stable.reason.clone(),
            Mode::Recruiting(recruiting) => recruiting.reason.clone(),
            Mode::Settling(settling) => format!("{} replays what it received", settling.candidate),
            Mode::Promoting(promoting) => match promoting.step {
                Step::Promote => promoting.reason.clone(),
                Step::Lead { .. } => "the new primary's first commit waits for its voters".into(),
            },
            Mode::Frozen { reason, .. } => reason.clone(),
        }
    }

    fn account(&self, node: &NodeId, known: &Known) -> NodeAccount {
        let (state, reason) = self.state_of(node, known);
        NodeAccount { state, promotable: self.promotable(node, known, state), reason }
    }

    fn state_of(&self, node: &NodeId, known: &Known) -> (NodeState, String) {
        let record = self.record.as_ref();
        if record.is_some_and(|record| record.maintenance.contains(node)) {
            return (NodeState::Maintenance, "in maintenance, at an operator's wish".into());
        }
        if let Some(trouble) = &known.trouble {
            let state = match trouble.symptom {
                Symptom::Starting => NodeState::Starting,
                Symptom::Rejected => NodeState::Unknown,
                Symptom::Refused | Symptom::Silent => NodeState::Down,
            };
            return (state, trouble.text.clone());
        }
        let Some(seen) = known.answers() else { return (NodeState::Unknown, "not seen yet".into()) };
        let Some(record) = record else { return (NodeState::Running, String::new()) };
        if record.primary == *node {
            return (NodeState::Running, String::new());
        }
        if !seen.is_in_recovery {
            let text = "a primary of the past: it needs to rejoin as a standby";
            return (if seen.is_fenced { NodeState::Fenced } else { NodeState::Unknown }, text.into());
        }
        if let Err(reason) = self.may_follow(record, node, seen) {
            return (NodeState::Rejoining, reason);
        }
        match &seen.receiver {
            Some(receiver) if receiver.from.as_ref() == Some(&record.primary) => (NodeState::Running, String::new()),
            Some(receiver) => match &receiver.from {
                Some(from) => (NodeState::Running, format!("receives from {from}")),
                None => (NodeState::Running, "receives from a server that is not in the configuration".into()),
            },
            None => (NodeState::Rejoining, format!("does not receive from {}", record.primary)),
        }
    }

    fn promotable(&self, node: &NodeId, known: &Known, state: NodeState) -> Result<(), String> {
        let Some(record) = &self.record else { return Err("there is no record yet".into()) };
        if record.primary == *node {
            return Err("is the primary".into());
        }
        if self.policy.nodes.get(node).is_none_or(|node| node.priority == 0) {
            return Err("has priority 0".into());
        }
        match state {
            NodeState::Maintenance => return Err("is in maintenance".into()),
            NodeState::Fenced => return Err("is fenced".into()),
            NodeState::Down | NodeState::Starting | NodeState::Unknown => return Err("does not answer".into()),
            NodeState::Running | NodeState::Rejoining => {}
        }
        let Some(seen) = known.answers() else { return Err("does not answer".into()) };
        if seen.timeline != record.timeline {
            return Err(format!("is on timeline {}, not {}", seen.timeline.0, record.timeline.0));
        }
        if record.durability == Durability::Quorum && !record.voters.contains(node) {
            return Err("is not a voter".into());
        }
        let behind = self.highest.0.saturating_sub(seen.lsn.0);
        if record.durability == Durability::Async && behind > self.policy.max_lost_bytes {
            return Err(format!("is {behind} bytes behind, more than may be lost"));
        }
        Ok(())
    }
}
