//! While the candidate settles, the other recruits receive from it what they lack: should it die while it is promoted, the
//! next one has everything, and nobody has to wait for the dead.
//!
//! It costs nothing where all have received the same, which is the usual case, and whoever cannot be brought up is no
//! obstacle: it follows the new primary later, as it would have anyway.

use super::brain::after;
use super::candidate::Ground;
use super::mode::{Mode, Settling};
use super::{Answer, Brain, Failure, Job};
use crate::types::{Millis, NodeId};

/// How long others are waited for when the candidate has settled: as long as a job may take that was begun with it (half a
/// second to receive, and a moment to be recruited again). It is time without a primary, so not longer.
const LEVEL_WITHIN_MS: u64 = 600;

impl Brain {
    /// Recruits that have received less, and could be the next primary, are to receive from the candidate.
    pub(super) fn level(&mut self, settling: Settling) {
        let Some(record) = self.record.clone().filter(|_| !settling.is_back) else { return };
        let Settling { change, candidate, .. } = &settling;
        let Some(chosen) = change.recruits.get(candidate) else { return };
        let ground =
            Ground { record: &record, policy: &self.policy, highest: self.highest, unfit: &change.unfit, order: None };
        let is_behind = |node: &NodeId| {
            change.recruits.get(node).is_some_and(|its| {
                its.received < chosen.received && its.timeline == chosen.timeline && ground.is_of_history(its)
            })
        };
        if !ground.is_of_history(chosen) {
            return;
        }
        let behind = change.recruits.keys().filter(|node| is_behind(node) && ground.is_eligible(node).is_ok());
        let behind: Vec<NodeId> = behind.cloned().collect();
        for node in &behind {
            let (from, until) = (candidate.clone(), chosen.received);
            self.start(Job::Level { node: node.clone(), from, until });
        }
        if let Mode::Settling(settling) = &mut self.mode {
            settling.adrift.extend(behind.iter().cloned());
            settling.change.levelled.extend(behind);
        }
    }

    pub(super) fn levelled(&mut self, node: NodeId, result: Result<Answer, Failure>) {
        if matches!(self.mode, Mode::Recruiting(_)) {
            return self.brought_up(node, result);
        }
        let Mode::Settling(settling) = &mut self.mode else { return };
        match result {
            Ok(Answer::Recruited { timeline, received, last_epoch, .. }) => {
                settling.adrift.remove(&node);
                if let Some(recruit) = settling.change.recruits.get_mut(&node) {
                    (recruit.timeline, recruit.received, recruit.last_epoch) = (timeline, received, last_epoch);
                }
            }
            Ok(other) => debug_assert!(false, "{other:?} is no answer to Level"),
            Err(failure) => {
                let text = format!("{node} could not be brought up to {}: {}", settling.candidate, failure.reason);
                self.say(true, text);
            }
        }
    }

    /// The candidate has settled; so have the others, or they have had their time.
    pub(super) fn settle_others(&mut self, settling: Settling, settled: Millis) {
        let is_it = |job: &Job| matches!(job, Job::Level { .. });
        if self.pending.is_some() || self.is_running(is_it) && !self.is_due(after(settled, LEVEL_WITHIN_MS)) {
            return;
        }
        let Some(record) = self.record.clone() else { return };
        self.forget(is_it);
        let mut change = settling.change;
        change.took("settle", self.now);
        self.promote_it(record, change, settling.candidate, settling.is_back);
    }
}
