//! With an agent beside each node, everybody is a standby of the primary in the end, and nobody had to do anything for it.
//!
//! When faults have stopped and a while has passed: killed, frozen, cut off, wiped and promoted by hand, every node other than
//! the primary streams from it and replays.

use super::{Fact, Invariant, View};
use crate::node::index;

pub struct Rejoined;

impl Invariant for Rejoined {
    fn name(&self) -> &'static str {
        "rejoined"
    }

    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String> {
        let Fact::End { result: Err(reason) } = fact else { return Ok(()) };
        let has_agents = view.nodes.iter().all(|node| node.agent.is_some());
        let is_led = view.record.is_some_and(|record| view.nodes[index(&record.primary)].is_primary());
        match has_agents && is_led {
            true => Err(format!("at {} ms still: {reason}", view.now)),
            false => Ok(()),
        }
    }
}
