//! One primary for each epoch: no two nodes take clients' writes under the same one, and none under an older one than
//! another has taken writes under.
//!
//! This is split brain as clients would see it. A zombie may think that it is a primary for as long as it likes, as long as no
//! write reaches it through pgbaton after another was given the name.

use std::collections::BTreeMap;

use super::{Fact, Invariant, View};
use crate::node::index;
use pgbaton::cluster::{Action, Lead};

#[derive(Default)]
pub struct OneWritable {
    open: BTreeMap<u64, usize>,
    written: BTreeMap<u64, usize>,
}

impl Invariant for OneWritable {
    fn name(&self) -> &'static str {
        "one writable primary"
    }

    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String> {
        let (seen, epoch, node) = match fact {
            Fact::Acting(Action::Publish(Lead::Open { epoch, primary, .. })) => {
                (&mut self.open, epoch.0, index(primary))
            }
            Fact::Written { node, epoch } => (&mut self.written, *epoch, *node),
            _ => return Ok(()),
        };
        let name = |node: usize| view.nodes[node].id.clone();
        let first = *seen.entry(epoch).or_insert(node);
        if first != node {
            return Err(format!("both {} and {} take writes in epoch {epoch}", name(first), name(node)));
        }
        Ok(())
    }
}
