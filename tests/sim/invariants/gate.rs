//! No agent starts a former primary as a primary while another node takes writes.
//!
//! Such a one would take the writes of whoever speaks to it directly, and what it writes by itself leaves it with a history of
//! its own. Between the answer to an agent's question and the start the record may change: so another node must not have been
//! the primary of a stable record for all the time since the agent asked.

use pgbaton::cluster::Phase;

use super::{Fact, Invariant, View};
use crate::node::index;

#[derive(Default)]
pub struct Gate {
    /// The primary of the stable record, and since when it is.
    stable: Option<(usize, u64)>,
}

impl Invariant for Gate {
    fn name(&self) -> &'static str {
        "the gate"
    }

    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Stored { .. } => {
                let stable = view.record.filter(|record| record.phase == Phase::Stable);
                self.stable = stable.map(|record| index(&record.primary)).map(|primary| match self.stable {
                    Some((before, since)) if before == primary => (primary, since),
                    _ => (primary, view.now),
                });
            }
            Fact::StartsPrimary { node, asked } => {
                if let Some((primary, since)) = self.stable
                    && primary != *node
                    && since < *asked
                {
                    let (id, primary) = (&view.nodes[*node].id, &view.nodes[primary].id);
                    return Err(format!("{id} is started as a primary, and {primary} takes writes"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
