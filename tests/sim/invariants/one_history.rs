//! A node that was made a standby has nothing that its primary has not.
//!
//! Two promotions can take one number, and then `pg_rewind` takes the two histories for one: rows of the lost one stay, on a node
//! that looks well and may be promoted one day. So whoever was rewound or copied has a beginning of its primary's log at that
//! moment, and when all is well everybody has.

use super::{Fact, Invariant, View};
use crate::node::index;

pub struct OneHistory;

fn check(node: usize, primary: usize, view: &View<'_>) -> Result<(), String> {
    let (wal, leader) = (&view.nodes[node].wal, &view.nodes[primary]);
    let common = wal.common(&leader.wal);
    if common < wal.len() {
        let (id, end) = (&view.nodes[node].id, wal.end_of(common));
        return Err(format!("{id} has a record after {end} that {} has not", leader.id));
    }
    Ok(())
}

impl Invariant for OneHistory {
    fn name(&self) -> &'static str {
        "one history"
    }

    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::Copied { node, primary } => check(*node, *primary, view),
            Fact::End { result: Ok(()) } => {
                let Some(primary) = view.record.map(|record| index(&record.primary)) else { return Ok(()) };
                let mut others = (0..view.nodes.len()).filter(|node| *node != primary);
                others.try_for_each(|node| check(node, primary, view))
            }
            _ => Ok(()),
        }
    }
}
