//! The topology that the data plane goes by: what each node was last seen as, and who takes writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use crate::cluster::{Lead, Sight};
use crate::monitor::Seen;
use crate::types::{Epoch, Lsn, NodeAddress, NodeId, NodeView, Role, Timeline, Topology};

/// Why nothing is known of a node at first.
const NOT_LOOKED_AT: &str = "not looked at yet";

/// Of a place that is empty.
const REMOVED: &str = "was removed from the configuration";

/// The topology before anybody has looked.
pub fn unseen(nodes: &[Arc<NodeAddress>]) -> Topology {
    Topology {
        version: 0,
        epoch: Epoch(0),
        nodes: nodes.iter().map(|address| Arc::new(unseen_at(address))).collect(),
        primary: None,
        reason: "no node has been looked at yet".into(),
    }
}

fn unseen_at(address: &NodeAddress) -> NodeView {
    NodeView {
        address: address.clone(),
        is_removed: false,
        is_in_maintenance: false,
        role: Role::Unknown,
        timeline: Timeline(0),
        lsn: Lsn(0),
        system_identifier: 0,
        reason: NOT_LOOKED_AT.into(),
    }
}

pub(super) struct Views {
    topology: Topology,
    published: watch::Sender<Arc<Topology>>,
    /// When each node's checkpointer was started, as last seen.
    incarnations: BTreeMap<NodeId, u64>,
    /// The nodes with a row in `pgbaton.epoch` when they last answered.
    with_schema: BTreeSet<NodeId>,
    /// Something changed that somebody would want to be woken for; log positions move all the time.
    is_news: bool,
}

impl Views {
    pub fn new(published: watch::Sender<Arc<Topology>>) -> Views {
        let topology = Topology::clone(&published.borrow());
        Views { topology, published, incarnations: BTreeMap::new(), with_schema: BTreeSet::new(), is_news: false }
    }

    pub fn take(&mut self, seen: &Seen) {
        let Some(at) = self.place(|view| view.address == *seen.address) else { return };
        if let Sight::Answers(observation) = &seen.sight {
            self.incarnations.insert(seen.node.clone(), observation.incarnation);
            match observation.last_epoch {
                Some(_) => self.with_schema.insert(seen.node.clone()),
                None => self.with_schema.remove(&seen.node),
            };
        }
        let old = &self.topology.nodes[at];
        let new = match &seen.sight {
            Sight::Answers(seen) => NodeView {
                role: if seen.is_in_recovery { Role::Replica } else { Role::Primary },
                timeline: seen.timeline,
                lsn: seen.lsn,
                system_identifier: seen.system_identifier,
                reason: String::new(),
                ..NodeView::clone(old)
            },
            // Timeline and position stay as last known.
            Sight::Fails(_, reason) => NodeView { role: Role::Unknown, reason: reason.clone(), ..NodeView::clone(old) },
        };
        if old.role != new.role || old.timeline != new.timeline {
            let (node, was, role) = (&new.address.id, old.role.as_str(), new.role.as_str());
            tracing::info!(%node, was, role, timeline = new.timeline.0, reason = new.reason, "node changed");
        } else if new.role == Role::Unknown && old.reason == NOT_LOOKED_AT {
            // It never answered, so it did not change; whoever has just started the proxy must hear why.
            tracing::warn!(node = %new.address.id, reason = new.reason, "node does not answer");
        }
        let known = |view: &NodeView| (view.role, view.timeline, view.system_identifier);
        self.is_news |= known(old) != known(&new);
        self.topology.nodes[at] = Arc::new(new);
    }

    fn place(&self, is_it: impl Fn(&NodeView) -> bool) -> Option<usize> {
        self.topology.present().find(|(_, view)| is_it(view)).map(|(at, _)| at)
    }

    /// How many places there would be with these nodes.
    pub fn places_with(&self, nodes: &[Arc<NodeAddress>]) -> usize {
        let is_known = |address: &&Arc<NodeAddress>| self.topology.nodes.iter().any(|view| view.address == ***address);
        self.topology.nodes.len() + nodes.iter().filter(|address| !is_known(address)).count()
    }

    /// These are the nodes from now on. The places of those that were there before stay, or stay empty.
    pub fn set_nodes(&mut self, nodes: &[Arc<NodeAddress>]) {
        for at in 0..self.topology.nodes.len() {
            let view = &self.topology.nodes[at];
            let is_wanted = nodes.iter().any(|address| **address == view.address);
            if is_wanted != view.is_removed {
                continue;
            }
            let mut view = unseen_at(&view.address);
            if !is_wanted {
                view.is_removed = true;
                view.reason = REMOVED.into();
            }
            self.incarnations.remove(&view.address.id);
            self.with_schema.remove(&view.address.id);
            self.topology.nodes[at] = Arc::new(view);
        }
        for address in nodes {
            if !self.topology.nodes.iter().any(|view| view.address == **address) {
                self.topology.nodes.push(Arc::new(unseen_at(address)));
            }
        }
        self.is_news = true;
    }

    /// Who is in maintenance.
    pub fn maintain(&mut self, is_in_maintenance: impl Fn(&NodeId) -> bool) {
        for view in &mut self.topology.nodes {
            let is = !view.is_removed && is_in_maintenance(&view.address.id);
            if view.is_in_maintenance != is {
                *view = Arc::new(NodeView { is_in_maintenance: is, ..NodeView::clone(view) });
                self.is_news = true;
            }
        }
    }

    pub fn incarnation(&self, node: &NodeId) -> Option<u64> {
        self.incarnations.get(node).copied()
    }

    pub fn has_schema(&self, node: &NodeId) -> bool {
        self.with_schema.contains(node)
    }

    pub fn lead(&mut self, lead: &Lead) {
        self.is_news = true;
        match lead {
            // It still is the primary.
            Lead::Draining { .. } => {}
            Lead::Closed { epoch, reason } => {
                self.topology.epoch = *epoch;
                self.topology.primary = None;
                self.topology.reason.clone_from(reason);
            }
            Lead::Open { epoch, primary, timeline } => {
                self.topology.epoch = *epoch;
                self.topology.primary = self.place(|view| view.address.id == *primary);
                self.topology.reason.clear();
                self.topology.version += 1;
                // It may have been promoted a moment ago, and not been looked at since.
                if let Some(at) = self.topology.primary {
                    let old = &self.topology.nodes[at];
                    self.topology.nodes[at] =
                        Arc::new(NodeView { role: Role::Primary, timeline: *timeline, ..NodeView::clone(old) });
                }
            }
        }
    }

    pub fn address(&self, node: &NodeId) -> Option<&NodeAddress> {
        self.topology.present().map(|(_, view)| &view.address).find(|address| address.id == *node)
    }

    /// Each node, what it said it is, and how far it is.
    pub fn nodes(&self) -> Vec<(NodeId, Role, Lsn)> {
        self.topology.present().map(|(_, view)| (view.address.id.clone(), view.role, view.lsn)).collect()
    }

    /// Unless there is nothing new.
    pub fn publish_news(&mut self) {
        if self.is_news {
            self.publish();
        }
    }

    pub fn publish(&mut self) {
        let is_news = std::mem::take(&mut self.is_news);
        self.published.send_if_modified(|topology| {
            *topology = Arc::new(self.topology.clone());
            is_news
        });
    }
}
