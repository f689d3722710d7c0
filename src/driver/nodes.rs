//! Exchanging the nodes while everything runs: who is reached, looked at and shown, in step with what the brain allows.
//!
//! The brain may still need a node that was removed (`cluster/roster.rs`): until it does not, the node is reached where it was,
//! though clients see nothing of it. A node that listens elsewhere from now on is removed first, and added when it has left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Driver, Handle, Request};
use crate::cluster::{Event, NodePolicy};
use crate::node::Reached;
use crate::types::{NodeAddress, NodeId, PLACES};

/// The nodes of the configuration: how each is reached, and what the operator wants of it.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    pub reached: Vec<Reached>,
    pub policies: BTreeMap<NodeId, NodePolicy>,
}

impl Nodes {
    pub fn addresses(&self) -> Vec<Arc<NodeAddress>> {
        self.reached.iter().map(|node| node.address.clone()).collect()
    }
}

impl Handle {
    /// These are the nodes from now on; or why not, and then nothing has changed.
    pub async fn set_nodes(&self, nodes: Nodes) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Nodes(nodes, answer);
        self.requests.try_send(request).map_err(|_| "too many orders wait".to_owned())?;
        answered.await.map_err(|_| "shutting down".to_owned())?
    }
}

impl Driver {
    pub(super) fn change_nodes(&mut self, nodes: Nodes) -> Result<(), String> {
        let is_elsewhere =
            |node: &&Reached| self.reached.get(&node.address.id).is_some_and(|known| known.address != node.address);
        let moved = nodes.reached.iter().filter(is_elsewhere).map(|node| node.address.id.clone()).collect();
        self.brain.may_have_nodes(&nodes.policies, &moved)?;
        let addresses = nodes.addresses();
        if self.views.places_with(&addresses) > PLACES {
            return Err(format!("{PLACES} addresses of nodes have been in use since the start; restart pgbaton"));
        }
        let policies = nodes.policies.iter().filter(|(node, _)| !moved.contains(*node));
        let policies = policies.map(|(node, policy)| (node.clone(), policy.clone())).collect();
        self.wanted = nodes;
        // Clients see the change at once: nobody begins to read from a node that goes.
        self.views.set_nodes(&addresses);
        self.views.publish();
        self.step(Event::Nodes(policies));
        self.follow_brain();
        Ok(())
    }

    /// Reaches whom the brain has to know, and tells it of the nodes that could not come before another had left.
    pub(super) fn follow_brain(&mut self) {
        loop {
            let leaving: BTreeSet<NodeId> = self.brain.leaving().cloned().collect();
            let mut next: BTreeMap<NodeId, Reached> = BTreeMap::new();
            for node in &leaving {
                if let Some(known) = self.reached.get(node) {
                    next.insert(node.clone(), known.clone());
                }
            }
            for node in &self.wanted.reached {
                next.entry(node.address.id.clone()).or_insert_with(|| node.clone());
            }
            self.reach(next);
            let is_here = |node: &NodeId| !leaving.contains(node);
            let policies = self.wanted.policies.iter().filter(|(node, _)| is_here(node));
            let policies: BTreeMap<_, _> = policies.map(|(node, policy)| (node.clone(), policy.clone())).collect();
            self.is_changing = policies.len() < self.wanted.policies.len() || !leaving.is_empty();
            if *self.brain.nodes() == policies {
                return;
            }
            self.step(Event::Nodes(policies));
        }
    }

    fn reach(&mut self, next: BTreeMap<NodeId, Reached>) {
        let is_same =
            |node: &NodeId, how: &Reached| self.reached.get(node).is_some_and(|known| known.address == how.address);
        let stays = |node: &NodeId| self.wanted.policies.contains_key(node) || next.contains_key(node);
        for node in self.reached.keys().filter(|node| !next.contains_key(*node)) {
            let others = self.reached.keys().filter(|other| *other != node).cloned().collect();
            if !self.only_watches() {
                self.departed.entry(node.clone()).or_default();
                let parting = self.control.part(node, others);
                let node = node.clone();
                tokio::spawn(async move {
                    if let Err(error) = parting.await {
                        tracing::info!(%node, %error, "slots for the others may be left on the node that was removed");
                    }
                });
            }
        }
        self.departed.retain(|node, _| !stays(node));
        let has_changed = next.len() != self.reached.len() || next.iter().any(|(node, how)| !is_same(node, how));
        self.reached = next;
        let all: Vec<Reached> = self.reached.values().cloned().collect();
        // Before it is asked: whoever looks at a new node finds it there.
        self.control.set_nodes(&all);
        if has_changed {
            self.monitor.set_nodes(all.iter().map(|node| node.address.clone()));
        }
        self.ask_agents();
    }

    /// Whether it was seen where the node is.
    pub(super) fn is_current(&self, address: &NodeAddress) -> bool {
        self.reached.get(&address.id).is_some_and(|known| *known.address == *address)
    }
}
