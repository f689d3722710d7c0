//! Who becomes the primary: a pure choice among the recruits.
//!
//! In quorum durability it is safe by counting: each acknowledged commit is on `k` of the record's `n` voters, so any
//! `n − k + 1` of them have it among them, and WAL of one timeline has no holes: the one that received most has all.
//! Recruits do not receive any more, so none can acknowledge what the chosen one lacks. After a promotion that never took
//! writes (`Record::fork_lsn` while recruiting), whoever has everything up to the fork has everything acknowledged.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::mode::Order;
use super::{Policy, Record};
use crate::types::{Durability, Epoch, Lsn, NodeId, Timeline};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Recruit {
    pub system_identifier: u64,
    pub timeline: Timeline,
    pub received: Lsn,
    pub last_epoch: Option<Epoch>,
    /// All of it is replayed, so that `last_epoch` is the last there is.
    pub is_settled: bool,
    /// It was seen to receive from the primary of before on its timeline, so it is of the same history, if perhaps behind.
    pub has_streamed: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Choice {
    /// The chosen one, or why there is none and who would unblock it.
    pub chosen: Result<NodeId, String>,
    pub rejected: BTreeMap<NodeId, String>,
    /// Bytes of WAL known to have existed that the chosen one lacks.
    pub loss: u64,
}

/// What the choice goes by besides the recruits.
pub(super) struct Ground<'a> {
    pub record: &'a Record,
    pub policy: &'a Policy,
    /// The furthest position ever seen on the primary of before.
    pub highest: Lsn,
    pub unfit: &'a BTreeMap<NodeId, String>,
    pub order: Option<&'a Order>,
}

impl Ground<'_> {
    /// Whether its WAL is of this cluster and of the record's history.
    pub fn fits(&self, recruit: &Recruit) -> Result<(), String> {
        let record = self.record;
        if recruit.system_identifier != record.system_identifier {
            return Err(format!("belongs to another cluster ({})", recruit.system_identifier));
        }
        if recruit.timeline < record.timeline {
            return Err(format!("is on timeline {}, not {}", recruit.timeline.0, record.timeline.0));
        }
        // The timeline of a promotion that never took writes may have been streamed already.
        if recruit.timeline > record.timeline && record.fork_lsn.is_none() {
            return Err(format!(
                "is on timeline {}, beyond {}: somebody promoted a node by hand",
                recruit.timeline.0, record.timeline.0
            ));
        }
        match recruit.last_epoch {
            Some(last) if last > record.epoch => Err(format!("knows epoch {last}, which the record does not")),
            // Before everything is replayed the row may still be on its way.
            // Then the row says whether it is of this history: in quorum durability whoever has everything has the row.
            Some(last) if last < record.written && recruit.is_settled && !self.may_lack_row(recruit) => Err(format!(
                "knows no epoch after {last}, though {} was written: its timeline is another's of the same number, \
                 or it lacks the beginning of this one",
                record.written
            )),
            _ => Ok(()),
        }
    }

    /// Whether the chosen one has every acknowledged commit, as far as these recruits tell.
    pub fn is_complete(&self, recruits: &BTreeMap<NodeId, Recruit>, chosen: &Recruit) -> bool {
        let fitting = recruits.iter().filter(|(_, recruit)| self.fits(recruit).is_ok()).collect();
        complete(&fitting, self).is_ok_and(|floor| chosen.received >= floor)
    }

    /// Up to where a recruit has to have everything to be chosen, if these are enough to tell.
    pub fn floor(&self, recruits: &BTreeMap<NodeId, Recruit>) -> Option<Lsn> {
        let fitting = recruits.iter().filter(|(_, recruit)| self.fits(recruit).is_ok()).collect();
        complete(&fitting, self).ok()
    }

    /// Whether its log is known to be a beginning of that of the record's primary, or the other way round: it was seen to
    /// receive from it, or has the row that was only written there.
    pub fn is_of_history(&self, recruit: &Recruit) -> bool {
        let has_row = recruit.last_epoch == Some(self.record.written);
        self.record.fork_lsn.is_none() && self.fits(recruit).is_ok() && (recruit.has_streamed || has_row)
    }

    fn may_lack_row(&self, recruit: &Recruit) -> bool {
        recruit.has_streamed && self.record.durability == Durability::Async
    }

    pub fn is_eligible(&self, node: &NodeId) -> Result<(), String> {
        match self.policy.nodes.get(node) {
            None => return Err("is not in the configuration any more".into()),
            Some(node) if node.priority == 0 => return Err("has priority 0".into()),
            Some(_) => {}
        }
        if self.record.maintenance.contains(node) {
            return Err("is in maintenance".into());
        }
        self.unfit.get(node).map_or(Ok(()), |reason| Err(reason.clone()))
    }
}

pub(super) fn choose(recruits: &BTreeMap<NodeId, Recruit>, ground: &Ground) -> Choice {
    let mut rejected = BTreeMap::new();
    let mut fitting: BTreeMap<&NodeId, &Recruit> = BTreeMap::new();
    for (node, recruit) in recruits {
        match ground.fits(recruit) {
            Ok(()) => drop(fitting.insert(node, recruit)),
            Err(reason) => drop(rejected.insert(node.clone(), reason)),
        }
    }
    if let Some(order) = ground.order.filter(|order| order.allow_data_loss) {
        let chosen = match fitting.get(&order.to) {
            Some(_) => Ok(order.to.clone()),
            None => Err(missing(&order.to, &rejected)),
        };
        let loss = fitting.get(&order.to).map_or(0, |recruit| known_loss(recruit, &fitting, ground));
        return Choice { chosen, rejected, loss };
    }
    let floor = match ground.record.durability {
        Durability::Async => Ok(Lsn(0)),
        Durability::Quorum => complete(&fitting, ground),
    };
    let floor = match floor {
        Ok(floor) => floor,
        Err(reason) => return Choice { chosen: Err(reason), rejected, loss: 0 },
    };
    let mut best: Option<(&NodeId, &Recruit)> = None;
    let zone = ground.policy.nodes.get(&ground.record.primary).map(|node| node.zone.as_str()).unwrap_or_default();
    let rank = |node: &NodeId, recruit: &Recruit| {
        let policy = ground.policy.nodes.get(node);
        let is_near = !zone.is_empty() && policy.is_some_and(|policy| policy.zone == zone);
        let priority = policy.map_or(0, |policy| policy.priority);
        (recruit.timeline, recruit.received, priority, is_near, Reverse(node.clone()))
    };
    for (node, recruit) in &fitting {
        let eligible = ground.is_eligible(node).and_then(|()| match ground.order {
            Some(order) if order.to != **node => Err(format!("{} was asked for", order.to)),
            _ if recruit.received < floor => Err(format!(
                "has received up to {} and lacks {} bytes that may have been acknowledged",
                recruit.received,
                floor.0 - recruit.received.0
            )),
            _ => Ok(()),
        });
        match eligible {
            Ok(()) if best.is_none_or(|(than, other)| rank(node, recruit) > rank(than, other)) => {
                best = Some((node, recruit))
            }
            Ok(()) => {}
            Err(reason) => drop(rejected.insert((*node).clone(), reason)),
        }
    }
    let Some((node, recruit)) = best else {
        let chosen = match ground.order {
            Some(order) => Err(missing(&order.to, &rejected)),
            None if rejected.is_empty() => Err("no standby can be reached".into()),
            None => Err(format!("no standby can be promoted: {}", listed(&rejected))),
        };
        return Choice { chosen, rejected, loss: 0 };
    };
    let loss = known_loss(recruit, &fitting, ground);
    // Where a promotion was begun, what lies beyond its fork was given up then, within the bound, and stored.
    let is_accepted = ground.record.fork_lsn.is_some_and(|fork| recruit.received >= fork);
    let is_bounded = ground.record.durability == Durability::Async && !is_accepted;
    if is_bounded && loss > ground.policy.max_lost_bytes {
        let reason = format!(
            "{node} lacks {loss} bytes of what {} had written, more than cluster.max_lost_bytes ({}); {} would unblock it",
            ground.record.primary, ground.policy.max_lost_bytes, ground.record.primary
        );
        return Choice { chosen: Err(reason), rejected, loss };
    }
    for (other, its) in fitting.iter().filter(|(other, _)| **other != node) {
        let reason = match (its.timeline, its.received) < (recruit.timeline, recruit.received) {
            true => format!("is {} bytes behind {node}", recruit.received.0.saturating_sub(its.received.0)),
            false => format!("has as much as {node}, which comes first by priority, zone or name"),
        };
        rejected.entry((*other).clone()).or_insert(reason);
    }
    Choice { chosen: Ok(node.clone()), rejected, loss }
}

/// Up to where a recruit must have received to have every acknowledged commit, if the recruits are enough to tell.
fn complete(fitting: &BTreeMap<&NodeId, &Recruit>, ground: &Ground) -> Result<Lsn, String> {
    let record = ground.record;
    if let Some(fork) = record.fork_lsn {
        let has_all = fitting.values().any(|recruit| recruit.received >= fork);
        let whole: Vec<String> =
            record.voters.iter().chain(Some(&record.primary)).map(|node| node.to_string()).collect();
        return has_all.then_some(fork).ok_or(format!(
            "no standby that can be reached has all of {} ({fork}); one of {} would unblock it",
            record.primary,
            whole.join(", ")
        ));
    }
    let Some(needed) = record.sync().recruits_needed() else {
        return Err(format!(
            "no standby had to acknowledge what {0} committed; only {0} itself would unblock it",
            record.primary
        ));
    };
    let voters = fitting.iter().filter(|(node, _)| record.voters.contains(**node));
    let (count, furthest) =
        voters.fold((0, Lsn(0)), |(count, lsn), (_, recruit)| (count + 1, lsn.max(recruit.received)));
    if count < needed {
        let absent: Vec<String> =
            record.voters.iter().filter(|voter| !fitting.contains_key(voter)).map(|voter| voter.to_string()).collect();
        return Err(format!(
            "{count} of the {needed} voters needed could be recruited; {} or {} would unblock it",
            absent.join(", "),
            record.primary
        ));
    }
    Ok(furthest)
}

fn known_loss(recruit: &Recruit, fitting: &BTreeMap<&NodeId, &Recruit>, ground: &Ground) -> u64 {
    let highest = fitting.values().map(|other| other.received).chain(Some(ground.highest)).max().unwrap_or_default();
    highest.0.saturating_sub(recruit.received.0)
}

fn missing(node: &NodeId, rejected: &BTreeMap<NodeId, String>) -> String {
    match rejected.get(node) {
        Some(reason) => format!("{node} {reason}"),
        None => format!("{node} could not be recruited"),
    }
}

pub(super) fn listed(reasons: &BTreeMap<NodeId, String>) -> String {
    reasons.iter().map(|(node, reason)| format!("{node} {reason}")).collect::<Vec<_>>().join("; ")
}
