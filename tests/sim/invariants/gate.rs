//! No agent starts a former primary as a primary while another node is the primary by the record.
//!
//! Such a one would take the writes of whoever speaks to it directly, and what it writes by itself leaves it with a history of
//! its own. Between the answer to its question and the start the record may change: so the record must have named the node
//! at some time since the agent asked.

use super::{Fact, Invariant, View};
use crate::node::index;

#[derive(Default)]
pub struct Gate {
    /// By the record, and until when each other was.
    leader: Option<usize>,
    until: Vec<u64>,
}

impl Invariant for Gate {
    fn name(&self) -> &'static str {
        "the gate"
    }

    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Stored { .. } => {
                self.until.resize(view.nodes.len(), 0);
                if let Some(leader) = self.leader {
                    self.until[leader] = view.now;
                }
                self.leader = view.record.map(|record| index(&record.primary));
            }
            Fact::StartsPrimary { node, asked } => {
                if let Some(leader) = self.leader.filter(|leader| leader != node)
                    && self.until[*node] < *asked
                {
                    let (id, leader) = (&view.nodes[*node].id, &view.nodes[leader].id);
                    return Err(format!("{id} is started as a primary, and {leader} is the primary by the record"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
