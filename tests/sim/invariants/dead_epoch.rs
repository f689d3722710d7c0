//! Nothing is acknowledged under an epoch that is over.
//!
//! An epoch is over when the first node is touched for the next. What a server of it says afterwards may be about a commit that
//! nobody will find again: the standby that acknowledged it was perhaps not recruited, and the connection that says so is
//! perhaps a zombie's.

use pgbaton::cluster::{Action, Lead};

use super::{Fact, Invariant, View};

#[derive(Default)]
pub struct DeadEpoch {
    /// The newest epoch that a node was touched for, or that the data plane was told of.
    newest: u64,
}

impl Invariant for DeadEpoch {
    fn name(&self) -> &'static str {
        "dead epoch"
    }

    fn hear(&mut self, fact: &Fact<'_>, _view: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Acting(
                Action::Do { epoch, .. } | Action::Publish(Lead::Closed { epoch, .. } | Lead::Open { epoch, .. }),
            ) => {
                self.newest = self.newest.max(epoch.0);
            }
            Fact::Acknowledged { epoch, id } if *epoch < self.newest => {
                return Err(format!("commit {id} of epoch {epoch} is acknowledged in epoch {}", self.newest));
            }
            _ => {}
        }
        Ok(())
    }
}
