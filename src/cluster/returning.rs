//! The nodes that are not the primary: standbys are made to follow it, primaries of the past are made harmless.

use super::agent::Repair;
use super::brain::after;
use super::jobs::Retry;
use super::{Answer, Brain, Failure, Job, Observation, Phase, Record};
use crate::types::{Durability, NodeId};

/// A standby may be without a receiver for a moment by itself.
const UNFED_MS: u64 = 2000;
const FOLLOW_AGAIN_MS: u64 = 5000;
/// While the new primary's first commit waits for it.
const FOLLOW_SOON_MS: u64 = 500;
const FENCE_AGAIN_MS: u64 = 5000;

/// Why a standby must not be connected to the primary, and what would help.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unfit {
    pub repair: Repair,
    pub reason: String,
}

impl Unfit {
    fn needs(repair: Repair, reason: String) -> Unfit {
        let what = if repair == Repair::Rebuild { "rebuild" } else { "rewind" };
        Unfit { repair, reason: format!("{reason}: needs a {what}") }
    }
}

impl Brain {
    /// While there is a primary that others can be pointed to.
    pub(super) fn care_for_others(&mut self) {
        let Some(record) = self.record.clone() else { return };
        let is_foreign = |node: &NodeId| self.nodes.get(node).is_some_and(|known| known.is_foreign);
        let others: Vec<(NodeId, Observation)> = self
            .nodes
            .iter()
            .filter(|(node, _)| **node != record.primary && self.is_wanted(node))
            .filter(|(node, _)| !is_foreign(node) && !self.is_at_work(node))
            .filter_map(|(node, known)| Some((node.clone(), known.answers()?.clone())))
            .collect();
        for (node, seen) in others {
            match seen.is_in_recovery {
                true => self.care_for_standby(&record, node, &seen),
                false => self.care_for_rogue(&record, node, &seen),
            }
        }
    }

    fn care_for_standby(&mut self, record: &Record, node: NodeId, seen: &Observation) {
        let Some(known) = self.known(&node).cloned() else { return };
        let is_ours = seen.follows.as_ref() == Some(&record.primary);
        let unfed = known.unfed_since.map(|since| after(since, UNFED_MS));
        let is_lost = match unfed {
            Some(until) if !is_ours => self.is_due(until),
            _ => false,
        };
        let is_unnamed = record.durability == Durability::Quorum && !is_ours;
        // It was to follow one that was not made the primary after all.
        let is_misled = !is_ours && known.followed.as_ref().is_some_and(|followed| *followed != record.primary);
        if !(seen.recruited_for.is_some() || is_lost || is_unnamed || is_misled) {
            return;
        }
        if let Err(unfit) = self.may_follow(record, &node, seen) {
            let text = format!("{node} {}", unfit.reason);
            return self.say_once(&format!("unfit {node}"), text);
        }
        self.tell_to_follow(node, record.primary.clone());
    }

    /// Whether what it has is a beginning of what the primary has; if not, it must not be connected to it.
    pub(super) fn may_follow(&self, record: &Record, node: &NodeId, seen: &Observation) -> Result<(), Unfit> {
        if record.phase != Phase::Stable {
            return Ok(());
        }
        if seen.timeline > record.timeline {
            let reason = format!("is on timeline {}, beyond {}", seen.timeline.0, record.timeline.0);
            return Err(Unfit::needs(Repair::Auto, reason));
        }
        let Some(fork) = record.fork_lsn.filter(|fork| seen.lsn > *fork) else { return Ok(()) };
        let beyond = seen.lsn.0 - fork.0;
        if seen.timeline < record.timeline {
            return Err(Unfit::needs(Repair::Auto, format!("has {beyond} bytes beyond the fork at {fork}")));
        }
        // Two promotions can take the same number. Who did not follow in this epoch, and has replayed all it has without
        // meeting the epoch's row, is on the other.
        // A primary's timelines only grow, so who followed this one and is on its timeline followed this very timeline.
        let ours = (record.primary.clone(), record.timeline);
        let has_followed = self.known(node).is_some_and(|known| {
            known.followed.as_ref() == Some(&record.primary) || known.received_from.as_ref() == Some(&ours)
        });
        let is_other = seen.last_epoch.is_some_and(|last| last < record.epoch) && record.written == record.epoch;
        if is_other && !has_followed && seen.replayed >= seen.lsn {
            let reason = format!("is on another timeline {} than the primary", seen.timeline.0);
            return Err(Unfit::needs(Repair::Rebuild, reason));
        }
        Ok(())
    }

    pub(super) fn tell_to_follow(&mut self, node: NodeId, primary: NodeId) {
        let is_it = |job: &Job| matches!(job, Job::Follow { node: other, .. } if *other == node);
        if self.is_running(is_it) || !self.may_try(&Retry::Follow(node.clone())) {
            return;
        }
        self.not_before(Retry::Follow(node.clone()), FOLLOW_AGAIN_MS);
        self.say_once(&format!("follow {node}"), format!("{node} is told to follow {primary}"));
        self.start(Job::Follow { node, primary });
    }

    pub(super) fn follows(&mut self, node: NodeId, primary: NodeId, result: Result<Answer, Failure>) {
        match result {
            Ok(_) => {
                if let Some(known) = self.nodes.get_mut(&node) {
                    known.followed = Some(primary);
                }
            }
            Err(failure) => {
                let is_waited_for = self.record.as_ref().is_some_and(|record| record.phase != Phase::Stable);
                let wait = if is_waited_for { FOLLOW_SOON_MS } else { FOLLOW_AGAIN_MS };
                self.not_before(Retry::Follow(node.clone()), wait);
                let text = format!("{node} does not follow {primary}: {}", failure.reason);
                self.say_once(&format!("follow {node}"), text);
            }
        }
    }

    fn care_for_rogue(&mut self, record: &Record, node: NodeId, seen: &Observation) {
        let is_it = |job: &Job| matches!(job, Job::Fence { node: other } if *other == node);
        // While nobody else is known to be the primary, the one that was promoted by hand may become it.
        if seen.is_fenced || record.phase != Phase::Stable || self.is_running(is_it) {
            return;
        }
        let is_ours_there = self.known(&record.primary).is_some_and(|known| known.is_primary());
        if is_ours_there && self.may_try(&Retry::Fence(node.clone())) {
            self.not_before(Retry::Fence(node.clone()), FENCE_AGAIN_MS);
            let text = format!(
                "{node} says that it is a primary (timeline {}), but {} is that of epoch {}: it is fenced",
                seen.timeline.0, record.primary, record.epoch
            );
            self.say_once(&format!("fence {node}"), text);
            self.start(Job::Fence { node });
        }
    }

    pub(super) fn fenced(&mut self, node: &NodeId, result: Result<Answer, Failure>) {
        let Some(record) = self.record.clone() else { return };
        let end = match &result {
            Ok(Answer::Fenced { lsn, .. }) => Ok(*lsn),
            Ok(_) => Ok(self.highest),
            Err(failure) => Err(failure.clone()),
        };
        self.old_ended(node, end);
        match result {
            Ok(Answer::Fenced { lsn, .. }) => {
                if *node == record.primary {
                    self.highest = self.highest.max(lsn);
                }
                let text = match record.fork_lsn.filter(|_| record.former.as_ref() == Some(node)) {
                    Some(fork) if lsn > fork => format!(
                        "{node} is fenced; it has {} bytes of WAL after the fork at {fork} that nobody else has, and needs a rewind",
                        lsn.0 - fork.0
                    ),
                    _ => format!("{node} is fenced at {lsn}; it needs to rejoin as a standby"),
                };
                self.say_once(&format!("fenced {node}"), text);
            }
            Ok(other) => debug_assert!(false, "{other:?} is no answer to Fence"),
            Err(failure) => {
                self.say_once(&format!("fenced {node}"), format!("{node} could not be fenced: {}", failure.reason))
            }
        }
    }
}
