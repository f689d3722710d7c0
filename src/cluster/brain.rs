//! The state machine itself.

use super::{Action, Event, Picture, Policy, SyncNames};
use crate::types::Millis;

/// See the module's page. `step` is the only thing that changes it.
#[derive(Clone, Debug)]
pub struct Brain {
    policy: Policy,
}

impl Brain {
    pub fn new(policy: Policy) -> Brain {
        Brain { policy }
    }

    /// What is to be done now that this has happened. `now` never goes back.
    pub fn step(&mut self, _now: Millis, _event: Event) -> Vec<Action> {
        Vec::new()
    }

    /// When it wants to be stepped with [`Event::Tick`] if nothing happens before.
    pub fn next_deadline(&self) -> Option<Millis> {
        None
    }

    /// What it believes, for people.
    pub fn picture(&self) -> Picture {
        Picture {
            epoch: None,
            phase: None,
            primary: None,
            durability: self.policy.durability,
            sync: SyncNames::default(),
            paused: false,
            reason: String::new(),
            closed_since: None,
            nodes: Default::default(),
        }
    }
}
