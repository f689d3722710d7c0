//! The jobs under way, each with its deadline, and when what failed may be tried again.

use super::brain::after;
use super::event::CommandId;
use super::{Action, Answer, Brain, Failure, FailureKind, Job, JobId};
use crate::types::{Epoch, Millis, NodeId};

#[derive(Clone, Debug)]
pub(super) struct Running {
    pub job: Job,
    pub epoch: Epoch,
    /// `None`: the driver answers, sooner or later.
    pub deadline: Option<Millis>,
    /// Whom to tell when it is done, and what.
    pub asked: Option<(CommandId, String)>,
}

/// What is tried again, but not at once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Retry {
    Recruit(NodeId),
    Follow(NodeId),
    Fence(NodeId),
    SetSync,
    WriteEpoch,
    Promote,
    Initialise,
    Start(NodeId),
    Stop(NodeId),
}

impl Retry {
    pub fn is_about(&self, node: &NodeId) -> bool {
        match self {
            Retry::Recruit(other)
            | Retry::Follow(other)
            | Retry::Fence(other)
            | Retry::Start(other)
            | Retry::Stop(other) => other == node,
            Retry::SetSync | Retry::WriteEpoch | Retry::Promote | Retry::Initialise => false,
        }
    }
}

impl Brain {
    pub(super) fn start(&mut self, job: Job) {
        let Some(epoch) = self.record.as_ref().map(|record| record.epoch) else { return };
        self.start_under(epoch, job, None);
    }

    /// Without a record there is no epoch to do something for: what may be done then says so itself.
    pub(super) fn start_under(&mut self, epoch: Epoch, job: Job, asked: Option<(CommandId, String)>) {
        self.last_job += 1;
        let id = JobId(self.last_job);
        // A server recovers and a copy is made for as long as that takes; who waits for an agent is told if it goes silent.
        let is_long =
            matches!(job, Job::Start { .. } | Job::Restart { .. } | Job::Rejoin { .. } | Job::Initialise { .. });
        // What is waited for may take as long as it may.
        let extra = if let Job::Drain { limit } = &job { limit.0 } else { 0 };
        let deadline = (!is_long).then(|| after(self.now, self.policy.job_limit.0 + extra));
        self.jobs.insert(id, Running { job: job.clone(), epoch, deadline, asked });
        self.out.push(Action::Do { id, epoch, job });
    }

    pub(super) fn is_running(&self, is_it: impl Fn(&Job) -> bool) -> bool {
        self.jobs.values().any(|running| is_it(&running.job))
    }

    pub(super) fn forget_jobs(&mut self) {
        self.forget(|_| true);
    }

    pub(super) fn forget(&mut self, is_it: impl Fn(&Job) -> bool) {
        self.forget_for(is_it, "a change of primary came in between; the node's agent goes on with it");
    }

    /// `why`: for whoever has ordered one of them.
    pub(super) fn forget_for(&mut self, is_it: impl Fn(&Job) -> bool, why: &str) {
        let ids: Vec<JobId> = self.jobs.iter().filter(|(_, it)| is_it(&it.job)).map(|(id, _)| *id).collect();
        for id in ids {
            let asked = self.jobs.remove(&id).and_then(|running| running.asked);
            self.out.push(Action::Forget(id));
            if let Some((id, _)) = asked {
                self.out.push(Action::Answer { id, result: Err(why.to_owned()) });
            }
        }
    }

    /// The driver should have answered; if it has not, the outcome is unknown.
    pub(super) fn expire_jobs(&mut self) {
        let is_held = |id: &JobId| self.held.iter().any(|(held, _)| held == id);
        let is_late =
            |(id, running): &(&JobId, &Running)| running.deadline.is_some_and(|at| at <= self.now) && !is_held(id);
        let late: Vec<JobId> = self.jobs.iter().filter(is_late).map(|(id, _)| *id).collect();
        for id in late {
            self.out.push(Action::Forget(id));
            let reason = format!("no answer within {} ms", self.policy.job_limit.0);
            self.done(id, Err(Failure { kind: FailureKind::Unreachable, reason }));
        }
        let deadlines = self.jobs.values().filter_map(|running| running.deadline);
        for at in deadlines.filter(|at| *at > self.now).collect::<Vec<_>>() {
            self.wake_at(at);
        }
    }

    pub(super) fn may_try(&mut self, what: &Retry) -> bool {
        match self.not_before.get(what).copied() {
            Some(at) => self.is_due(at),
            None => true,
        }
    }

    pub(super) fn not_before(&mut self, what: Retry, wait_ms: u64) {
        self.not_before.insert(what, after(self.now, wait_ms));
    }

    /// Answers that came while a record was being stored.
    pub(super) fn take_up_held(&mut self) {
        while self.pending.is_none() && !self.held.is_empty() {
            let (id, result) = self.held.remove(0);
            self.done(id, result);
        }
    }

    /// An answer to a job of an epoch that has passed, or that was forgotten, says nothing any more.
    pub(super) fn done(&mut self, id: JobId, result: Result<Answer, Failure>) {
        let leads_on = |job: &Job| matches!(job, Job::Settle { .. } | Job::Promote { .. } | Job::Drain { .. });
        if self.pending.is_some() && self.jobs.get(&id).is_some_and(|running| leads_on(&running.job)) {
            // What follows from it is to be stored, and an order is just being stored.
            return self.held.push((id, result));
        }
        let Some(Running { job, epoch, asked, .. }) = self.jobs.remove(&id) else { return };
        if let Some((id, text)) = asked {
            let result = result.as_ref().map(|_| text).map_err(|failure| failure.reason.clone());
            self.out.push(Action::Answer { id, result });
        }
        if self.record.as_ref().is_some_and(|record| record.epoch != epoch) {
            return;
        }
        match job {
            Job::Recruit { node } => self.recruited(node, result),
            Job::Level { node, .. } => self.levelled(node, result),
            Job::Settle { node } => self.settled(&node, result),
            Job::Promote { node, sync } => self.promoted(&node, sync, result),
            Job::SetSync { node, sync } => self.sync_set(&node, sync, result),
            Job::WriteEpoch { node, .. } => self.epoch_written(&node, result),
            Job::Follow { node, primary } => self.follows(node, primary, result),
            Job::Fence { node } => self.fenced(&node, result),
            Job::Drain { .. } => self.drained(result),
            Job::Stop { node, .. } => {
                self.stopped(&node, result.clone());
                self.old_stopped(&node, result);
            }
            Job::Start { node } => {
                self.started(&node, result);
                self.old_started(&node);
            }
            Job::Restart { node, .. } => self.restarted(&node, result),
            Job::Rejoin { node, primary, repair, reason, .. } => {
                self.rejoined(&node, primary, repair, reason, result);
            }
            Job::Initialise { node } => self.initialised(&node, result),
            Job::Checkpoint { node } => {
                if let Err(failure) = result {
                    self.no_checkpoint(&node, &failure);
                    self.say(true, format!("no checkpoint on {node}: {}", failure.reason));
                }
            }
        }
    }
}
