//! Nothing is acknowledged under an epoch that is over.
//!
//! An epoch is over when the first node is touched for the next, and nothing is passed on while the data plane is closed (it
//! may be opened again for the same epoch, if the next one was never stored). What a server of it says afterwards may be about a commit that
//! nobody will find again: the standby that acknowledged it was perhaps not recruited, and the connection that says so is
//! perhaps a zombie's.

use pgbaton::cluster::{Action, Lead};

use super::{Fact, Invariant, View};

#[derive(Default)]
pub struct DeadEpoch {
    /// The newest epoch that a node was touched for, or that took writes.
    newest: u64,
    is_open: bool,
}

impl Invariant for DeadEpoch {
    fn name(&self) -> &'static str {
        "dead epoch"
    }

    fn hear(&mut self, fact: &Fact<'_>, _view: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Booted => self.is_open = false,
            Fact::Acting(Action::Do { epoch, .. }) => self.newest = self.newest.max(epoch.0),
            Fact::Acting(Action::Publish(Lead::Closed { .. })) => self.is_open = false,
            Fact::Acting(Action::Publish(Lead::Open { epoch, .. })) => {
                self.newest = self.newest.max(epoch.0);
                self.is_open = true;
            }
            Fact::Acknowledged { epoch, id } if *epoch < self.newest => {
                return Err(format!("commit {id} of epoch {epoch} is acknowledged in epoch {}", self.newest));
            }
            Fact::Acknowledged { epoch, id } if !self.is_open => {
                return Err(format!("commit {id} of epoch {epoch} is acknowledged while nobody takes writes"));
            }
            _ => {}
        }
        Ok(())
    }
}
