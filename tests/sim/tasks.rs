//! Jobs: several questions to a node, one after the other, each with a deadline. A pgbaton that dies leaves a job where it is.

use pgbaton::cluster::{Answer, Failure, Job};
use pgbaton::types::{Epoch, Lsn, Timeline};

use crate::message::{Caller, Reply, What};
use crate::node::{SYSTEM_IDENTIFIER, index};
use crate::pgbaton::{failure, node_of, unreachable};
use crate::world::{Timer, World};

/// Of a whole job.
pub const LIMIT: u64 = 3000;
/// Of a question, and of one that waits for other nodes.
const PATIENCE: u64 = 700;
const LONG_PATIENCE: u64 = 1500;
/// Between two looks at whether something has come about.
const POLL: u64 = 20;
/// How long one recruit receives from another.
const LEVEL_LIMIT: u64 = 500;

#[derive(Clone, Debug)]
pub struct Task {
    pub epoch: u64,
    pub job: Job,
    order: u64,
    stage: usize,
    /// When this stage began.
    began: u64,
    question: u64,
}

enum Next {
    Again,
    Stage(usize),
    End(Result<Answer, Failure>),
}

impl Task {
    pub fn new(epoch: u64, job: Job, order: u64) -> Task {
        Task { epoch, job, order, stage: 0, began: 0, question: 0 }
    }

    /// What is asked now, and whether it takes others.
    fn question(&self) -> (What, bool) {
        let what = match (&self.job, self.stage) {
            (Job::Recruit { .. }, 0) => What::Recruit(self.epoch),
            (Job::Recruit { .. }, _) => What::IsRecruited,
            (Job::Level { from, .. }, 0) => What::Follow(index(from)),
            (Job::Level { .. }, 1) => What::Look,
            (Job::Level { .. }, 2) => What::Recruit(self.epoch),
            (Job::Level { .. }, _) => What::IsRecruited,
            (Job::Settle { .. }, _) => What::IsSettled,
            (Job::Promote { sync, .. } | Job::SetSync { sync, .. }, 0) => What::Names(sync.clone()),
            (Job::Promote { .. }, 1) => What::Promote,
            (Job::Promote { .. }, _) => What::IsPromoted,
            (Job::SetSync { .. }, 1) => What::AreNamesApplied,
            (Job::SetSync { .. }, _) => return (What::Commit, true),
            (Job::WriteEpoch { .. }, _) => return (What::Row(self.epoch), true),
            (Job::Follow { primary, .. }, _) => What::Follow(index(primary)),
            (Job::Fence { .. }, 0) => What::Fence,
            (Job::Fence { .. }, _) => What::IsFenced,
            (Job::Checkpoint { .. }, _) => What::Checkpoint,
            (job, _) => unreachable!("an agent's: {job:?}"),
        };
        (what, false)
    }

    fn next(&self, reply: &Reply, now: u64) -> Next {
        let end = |answer| Next::End(Ok(answer));
        match (&self.job, self.stage, reply) {
            // What it got in that time is as good as it gets.
            (Job::Level { until, .. }, 1, reply) => match reply {
                Reply::Seen(seen) if seen.lsn >= *until => Next::Stage(2),
                _ if now >= self.began + LEVEL_LIMIT => Next::Stage(2),
                _ => Next::Again,
            },
            (_, _, Reply::NotYet) => Next::Again,
            (_, _, Reply::No(_) | Reply::Starting | Reply::Reset | Reply::Full) => Next::End(Err(failure(reply))),
            (Job::Recruit { .. } | Job::Fence { .. }, 0, _) => Next::Stage(1),
            (Job::Level { .. }, 0 | 2, _) | (Job::Promote { .. } | Job::SetSync { .. }, 0 | 1, _) => {
                Next::Stage(self.stage + 1)
            }
            (Job::Recruit { .. } | Job::Level { .. }, _, Reply::Is { timeline, lsn, row, .. }) => {
                end(Answer::Recruited {
                    system_identifier: SYSTEM_IDENTIFIER,
                    timeline: Timeline(*timeline),
                    received: Lsn(*lsn),
                    last_epoch: row.map(Epoch),
                })
            }
            (Job::Settle { .. }, _, Reply::Is { lsn, row, .. }) => {
                end(Answer::Settled { replayed: Lsn(*lsn), last_epoch: row.map(Epoch) })
            }
            (Job::Promote { .. }, _, Reply::Is { timeline, fork, .. }) => {
                end(Answer::Promoted { timeline: Timeline(*timeline), fork: Some(Lsn(*fork)) })
            }
            (Job::Fence { .. }, _, Reply::Is { timeline, lsn, .. }) => {
                end(Answer::Fenced { lsn: Lsn(*lsn), timeline: Timeline(*timeline) })
            }
            (Job::SetSync { .. }, _, _) => end(Answer::SyncSet),
            (Job::WriteEpoch { .. }, _, _) => end(Answer::EpochWritten),
            (Job::Follow { .. }, _, _) => end(Answer::Follows),
            (Job::Checkpoint { .. }, _, _) => end(Answer::Checkpointed),
            _ => Next::End(Err(unreachable("an odd answer"))),
        }
    }
}

impl World {
    pub fn ask(&mut self, id: u64) {
        let question = self.next_serial();
        let Some(task) = self.pgbaton.tasks.get_mut(&id) else { return };
        task.question = question;
        let node = node_of(&task.job);
        let (what, is_long) = task.question();
        // Only what changes how nodes receive and wait puts an end to earlier jobs.
        let changes = matches!(what, What::Recruit(_) | What::Names(_) | What::Promote | What::Follow(_) | What::Fence);
        let order = if changes { task.order } else { 0 };
        self.request(node, Caller::Task { id, question }, order, what);
        self.own(if is_long { LONG_PATIENCE } else { PATIENCE }, Timer::Late { id, question });
    }

    pub fn late(&mut self, id: u64, question: u64) {
        if self.pgbaton.tasks.get(&id).is_some_and(|task| task.question == question) {
            self.finish(id, Err(unreachable("no answer in time")));
        }
    }

    pub fn task_replied(&mut self, id: u64, question: u64, reply: Reply) {
        let Some(task) = self.pgbaton.tasks.get_mut(&id).filter(|task| task.question == question) else { return };
        match task.next(&reply, self.now) {
            Next::Again => {
                task.question = 0;
                self.own(POLL, Timer::Ask { id });
            }
            Next::Stage(stage) => {
                task.stage = stage;
                task.began = self.now;
                task.question = 0;
                self.own(0, Timer::Ask { id });
            }
            Next::End(result) => self.finish(id, result),
        }
    }

    pub fn finish(&mut self, id: u64, result: Result<Answer, Failure>) {
        if self.pgbaton.tasks.remove(&id).is_some() {
            self.done(id, result);
        }
    }
}
