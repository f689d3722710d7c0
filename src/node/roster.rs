//! Which nodes there are to be reached just now, and how. It can be exchanged while everything runs.
//!
//! A node that stays where it is keeps its connections and what is remembered of it. One that has gone, or listens elsewhere,
//! is another to us: whoever still has a question on its way gets the answer over the connection it was asked on.

use std::collections::HashMap;
use std::sync::Arc;

use super::NodeError;
use super::agents::AgentAddress;
use super::keeper::{Inner, Keeper};
use crate::auth::Secret;
use crate::types::{NodeAddress, NodeId};

/// How one node is reached as the control user.
#[derive(Clone, Debug)]
pub struct Reached {
    pub address: Arc<NodeAddress>,
    /// The control user's password there, if one is needed.
    pub password: Option<Secret>,
    /// `None`: it has none.
    pub agent: Option<AgentAddress>,
}

/// All nodes that are reached just now.
#[derive(Default)]
pub(super) struct Roster {
    pub keepers: HashMap<NodeId, Arc<Keeper>>,
    pub agents: HashMap<NodeId, AgentAddress>,
}

impl Roster {
    /// What is the same server as before is kept.
    pub fn of(nodes: &[Reached], before: &Roster) -> Roster {
        let keeper = |node: &Reached| {
            let id = node.address.id.clone();
            let known = before.keepers.get(&id).filter(|known| known.address == node.address);
            let keeper = match known {
                Some(known) => {
                    known.set_password(node.password.clone());
                    known.clone()
                }
                None => Arc::new(Keeper::new(node.address.clone(), node.password.clone())),
            };
            (id, keeper)
        };
        let agent = |node: &Reached| Some((node.address.id.clone(), node.agent.clone()?));
        Roster { keepers: nodes.iter().map(keeper).collect(), agents: nodes.iter().filter_map(agent).collect() }
    }
}

impl Inner {
    pub fn keeper(&self, node: &NodeId) -> Result<Arc<Keeper>, NodeError> {
        self.roster.load().keepers.get(node).cloned().ok_or_else(|| NodeError::Unknown(node.clone()))
    }

    pub fn set_nodes(&self, nodes: &[Reached]) {
        let before = self.roster.load();
        self.roster.store(Arc::new(Roster::of(nodes, &before)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(id: &str, port: u16, password: &str) -> Reached {
        let address = Arc::new(NodeAddress { id: id.into(), host: "h".into(), port });
        Reached { address, password: Some(Secret::new(password)), agent: None }
    }

    #[test]
    fn a_node_that_stays_where_it_is_keeps_its_connections_and_gets_its_new_password() {
        let first = Roster::of(&[reached("n1", 1, "a"), reached("n2", 2, "a")], &Roster::default());
        let second = Roster::of(&[reached("n1", 1, "b"), reached("n2", 3, "a"), reached("n3", 4, "a")], &first);
        let (n1, n2): (NodeId, NodeId) = ("n1".into(), "n2".into());
        assert!(Arc::ptr_eq(&first.keepers[&n1], &second.keepers[&n1]));
        assert_eq!(second.keepers[&n1].password().unwrap().reveal(), "b");
        assert!(!Arc::ptr_eq(&first.keepers[&n2], &second.keepers[&n2]), "another address is another server");
        assert_eq!(second.keepers.len(), 3);
    }
}
