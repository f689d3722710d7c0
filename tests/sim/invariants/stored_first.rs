//! Nothing is done before it is stored.
//!
//! A pgbaton that dies knows afterwards only what the store says. If a node could be promoted, or writes be taken, for an
//! epoch that is not in the store, the next pgbaton would give the same number to another primary. So a job needs the record
//! of its epoch in the store, a promotion the record that names the promoted, and taking writes the record that says so.

use pgbaton::cluster::{Action, Job, Lead, Phase};

use super::{Fact, Invariant, View};

#[derive(Default)]
pub struct StoredFirst {
    /// A write to the store is under way.
    is_storing: bool,
}

impl Invariant for StoredFirst {
    fn name(&self) -> &'static str {
        "stored first"
    }

    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String> {
        let action = match fact {
            Fact::Acting(action) => action,
            Fact::Booted => {
                self.is_storing = false;
                return Ok(());
            }
            Fact::Heard(pgbaton::cluster::Event::Stored { .. }) => {
                self.is_storing = false;
                return Ok(());
            }
            _ => return Ok(()),
        };
        match action {
            Action::Store { .. } if self.is_storing => Err("two records are being stored at a time".into()),
            Action::Store { .. } => {
                self.is_storing = true;
                Ok(())
            }
            Action::Do { epoch, job, .. } => {
                // Of a cluster that has not begun: it is an agent's to see that there is nothing yet.
                if view.record.is_none() && matches!(job, Job::Initialise { .. } | Job::Start { .. }) {
                    return Ok(());
                }
                let Some(record) = view.record.filter(|record| record.epoch == *epoch) else {
                    return Err(format!("{job:?} for epoch {epoch}, which is not in the store"));
                };
                match job {
                    Job::Promote { node, .. } | Job::WriteEpoch { node, .. }
                        if record.phase == Phase::Recruiting || record.primary != *node =>
                    {
                        Err(format!("{job:?} and the store does not say that it is the primary of epoch {epoch}"))
                    }
                    Job::Recruit { .. } | Job::Level { .. } | Job::Settle { .. } if record.phase == Phase::Stable => {
                        Err(format!("{job:?}, and the store says that epoch {epoch} takes writes"))
                    }
                    _ => Ok(()),
                }
            }
            Action::Publish(Lead::Open { epoch, primary, .. }) => {
                let is_stored = view.record.is_some_and(|record| {
                    record.epoch == *epoch && record.phase == Phase::Stable && record.primary == *primary
                });
                if is_stored { Ok(()) } else { Err(format!("{primary} takes writes before that is stored")) }
            }
            _ => Ok(()),
        }
    }
}
