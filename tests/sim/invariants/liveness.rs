//! When faults stop, the cluster comes back by itself: within a bound a primary takes writes, commits are acknowledged, every
//! other node is its replica, and in quorum durability somebody votes.
//!
//! A system that refuses everything is safe. What may be asked of people is what the design asks of them: to rewind a former
//! primary, and to take back what they ordered.

use super::{Fact, Invariant, View};

pub struct Liveness;

impl Invariant for Liveness {
    fn name(&self) -> &'static str {
        "liveness"
    }

    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::End { result: Err(reason) } => Err(format!("at {} ms still: {reason}", view.now)),
            _ => Ok(()),
        }
    }
}
