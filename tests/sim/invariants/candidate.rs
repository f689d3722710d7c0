//! The one promoted was the most advanced of those recruited.
//!
//! With `ANY 1` an acknowledged commit may be on one standby only; promoting another of them loses it. So at the moment of
//! promotion nobody who was recruited for this epoch, may be promoted and still answers, has more of the log, on the same or
//! a later timeline. A node of priority 0 is never promoted.
//!
//! Whoever failed a later job of the epoch, or was the candidate of the epoch before and failed, does not count (the next is
//! tried then), and neither does what another pgbaton process
//! was told. An operator may order one with less, where data may be lost (what is lost has its own bound).

use std::collections::{BTreeMap, BTreeSet};

use pgbaton::cluster::action::JobId;
use pgbaton::cluster::{Action, Answer, Command, Event, Job};
use pgbaton::types::Durability;

use super::{Fact, Invariant, View};
use crate::node::index;
use crate::pgbaton::node_of;

#[derive(Default)]
pub struct MostAdvanced {
    epoch: u64,
    jobs: BTreeMap<JobId, Job>,
    recruited: BTreeSet<usize>,
    /// Whom an operator has ordered, whatever is lost by it.
    ordered: Option<usize>,
}

impl Invariant for MostAdvanced {
    fn name(&self) -> &'static str {
        "most advanced candidate"
    }

    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Heard(Event::Asked { command: Command::Failover { to, allow_data_loss }, .. })
                if *allow_data_loss || view.policy.durability == Durability::Async =>
            {
                self.ordered = Some(index(to));
            }
            Fact::Booted => {
                self.jobs.clear();
                self.recruited.clear();
            }
            Fact::Acting(Action::Do { id, epoch, job }) => {
                if epoch.0 != self.epoch {
                    self.epoch = epoch.0;
                    self.recruited.clear();
                }
                if let Job::Promote { node, .. } = job {
                    self.judge(index(node), view)?;
                }
                if let Job::Recruit { node } | Job::Follow { node, .. } | Job::Level { node, .. } = job {
                    self.recruited.remove(&index(node));
                }
                self.jobs.insert(*id, job.clone());
            }
            Fact::Heard(Event::Done { id, result }) => {
                let Some(job) = self.jobs.remove(id) else { return Ok(()) };
                let node = node_of(&job);
                match (job, result) {
                    (Job::Recruit { .. } | Job::Level { .. }, Ok(Answer::Recruited { .. })) => {
                        self.recruited.insert(node);
                    }
                    (Job::Follow { .. } | Job::Checkpoint { .. }, _) => {}
                    (_, Err(_)) => {
                        self.recruited.remove(&node);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl MostAdvanced {
    fn judge(&self, candidate: usize, view: &View<'_>) -> Result<(), String> {
        let server = &view.nodes[candidate];
        if !server.in_recovery {
            return Ok(());
        }
        let priority = |node: usize| view.policy.nodes.get(&view.nodes[node].id).map_or(0, |node| node.priority);
        if priority(candidate) == 0 {
            return Err(format!("{} has priority 0 and is promoted", server.id));
        }
        // Stored by a process before: it has to be done as it is stored. Or ordered.
        if !self.recruited.contains(&candidate) || self.ordered == Some(candidate) {
            return Ok(());
        }
        let in_maintenance =
            |node: usize| view.record.is_some_and(|record| record.maintenance.contains(&view.nodes[node].id));
        let has_failed = |node: usize| {
            view.record.is_some_and(|record| {
                record.written.next() < record.epoch && record.former.as_ref() == Some(&view.nodes[node].id)
            })
        };
        // As it truly is, now: a recruit that still receives would be ahead of what it said.
        let position = |node: usize| (view.nodes[node].wal.timeline(), view.nodes[node].wal.end());
        for node in self.recruited.iter().copied() {
            let is_eligible =
                view.nodes[node].in_recovery && priority(node) > 0 && !in_maintenance(node) && !has_failed(node);
            if is_eligible && position(node) > position(candidate) {
                let (better, worse) = (&view.nodes[node].id, &server.id);
                let (more, less) = (position(node), position(candidate));
                return Err(format!("{worse} at {less:?} is promoted, {better} is at {more:?}"));
            }
        }
        Ok(())
    }
}
