//! What agents say, and what is left to them: nodes that are no standby of the primary are made one again.

use std::collections::BTreeMap;

use super::agent::Report;
use super::{Brain, NodePolicy};
use crate::types::NodeId;

impl Brain {
    pub(super) fn heard_agent(&mut self, node: &NodeId, report: Result<Report, String>) {
        let now = self.now;
        if let Some(known) = self.nodes.get_mut(node) {
            known.agent = Some((now, report));
        }
    }

    pub(super) fn nodes_changed(&mut self, nodes: BTreeMap<NodeId, NodePolicy>) {
        self.nodes.retain(|node, _| nodes.contains_key(node));
        for node in nodes.keys() {
            self.nodes.entry(node.clone()).or_default();
        }
        self.policy.nodes = nodes;
    }
}
