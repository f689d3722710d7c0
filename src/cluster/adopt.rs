//! Without a record: the cluster as it is found. One primary is taken as it is; none, or two, is for people to settle.

use super::brain::after;
use super::mode::{Change, Mode, Promoting, Step};
use super::record::FORMAT;
use super::{Brain, Observation, Phase, Record};
use crate::types::{Durability, Epoch, NodeId};

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
            _ if seen.is_empty() => "no node answers".into(),
            _ => {
                let all: Vec<String> = seen.iter().map(|(node, _)| node.to_string()).collect();
                format!("no node is a primary; of those that answer ({}) an operator promotes one", all.join(", "))
            }
        };
        self.say_once("adopt", reason.clone());
        self.close(adopting.floor.next(), reason.clone());
        if let Mode::Adopting(adopting) = &mut self.mode {
            adopting.reason = reason;
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
