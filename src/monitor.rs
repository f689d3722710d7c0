//! Looks at every node again and again, and publishes who is primary.
//!
//! What is seen is I/O, done here; what follows from it is [`decide`], a pure function of the last picture and the new
//! observations. Every change of primary is logged once, with its reason.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::node::{Control, NodeStatus};
use crate::types::{NodeAddress, NodeView, Role, Topology};

/// What one look at one node gave: its status, or why there is none.
pub type Observation = Result<NodeStatus, String>;

/// Runs for ever: one look each interval, and at once when `look_now` is notified.
pub async fn run(control: Control, interval: Duration, topology: watch::Sender<Arc<Topology>>, look_now: Arc<Notify>) {
    let addresses: Vec<NodeAddress> = control.addresses().cloned().collect();
    loop {
        let looks = addresses.iter().map(|address| {
            let control = &control;
            async move {
                let seen = control.status(&address.id).await;
                (address.clone(), seen.map_err(|error| error.to_string()))
            }
        });
        let observations = futures_util::future::join_all(looks).await;
        let before = topology.borrow().clone();
        let after = decide(&before, &observations);
        report(&before, &after);
        if *before != after {
            topology.send_replace(Arc::new(after));
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = look_now.notified() => {}
        }
    }
}

/// The picture that follows from the previous one and a look at each node.
///
/// Exactly one node that says it is the primary is the primary. Of two, the one on the higher timeline is; on the same
/// timeline the one that was it before, and failing that none, because writing to either could be writing to the wrong
/// one. A primary that does not answer stays the primary until another node says it is one.
pub fn decide(before: &Topology, observations: &[(NodeAddress, Observation)]) -> Topology {
    let nodes: Vec<Arc<NodeView>> = observations
        .iter()
        .map(|(address, seen)| {
            let last = before.nodes.iter().find(|node| node.address.id == address.id);
            Arc::new(match seen {
                Ok(status) => NodeView {
                    address: address.clone(),
                    role: if status.is_in_recovery { Role::Replica } else { Role::Primary },
                    timeline: status.timeline,
                    lsn: status.lsn,
                    system_identifier: status.system_identifier,
                    reason: String::new(),
                },
                Err(reason) => NodeView {
                    address: address.clone(),
                    role: Role::Unknown,
                    timeline: last.map_or_else(Default::default, |node| node.timeline),
                    lsn: last.map_or_else(Default::default, |node| node.lsn),
                    system_identifier: last.map_or(0, |node| node.system_identifier),
                    reason: reason.clone(),
                },
            })
        })
        .collect();
    let previous = before.primary().map(|node| (node.address.id.clone(), node.timeline, node.system_identifier));
    let was = |node: &NodeView| previous.as_ref().is_some_and(|(id, ..)| *id == node.address.id);
    let claims: Vec<usize> = (0..nodes.len()).filter(|at| nodes[*at].role == Role::Primary).collect();
    let highest = claims.iter().map(|at| nodes[*at].timeline).max();
    let best: Vec<usize> = claims.iter().copied().filter(|at| Some(nodes[*at].timeline) == highest).collect();
    let silent_primary = (0..nodes.len()).find(|at| was(&nodes[*at]) && nodes[*at].role == Role::Unknown);
    let (primary, reason) = match (&best[..], silent_primary) {
        ([], Some(at)) => (Some(at), String::new()),
        ([], None) if nodes.iter().all(|node| node.role == Role::Unknown) => {
            let why: Vec<_> = nodes.iter().map(|node| node.reason.clone()).collect();
            (None, format!("no node answers ({})", why.join("; ")))
        }
        ([], None) => (None, "no node says it is the primary".to_owned()),
        // The one we know does not answer: another must be ahead of it to take its place, or it may be a stray.
        ([one], Some(silent)) if nodes[*one].timeline <= nodes[silent].timeline => (
            Some(silent),
            format!(
                "{} says it is a primary too, but is not ahead of {}",
                nodes[*one].address.id, nodes[silent].address.id
            ),
        ),
        ([one], _) => (Some(*one), String::new()),
        (several, _) => match several.iter().find(|at| was(&nodes[**at])) {
            Some(at) => (Some(*at), "more than one node says it is the primary".to_owned()),
            None => (None, "more than one node says it is the primary, on the same timeline".to_owned()),
        },
    };
    // Another cluster's node is never taken for ours.
    let (primary, reason): (Option<usize>, String) = match (primary, &previous) {
        (Some(at), Some((id, _, system)))
            if *system != 0 && nodes[at].system_identifier != 0 && nodes[at].system_identifier != *system =>
        {
            let reason = format!(
                "{} has system identifier {}, {id} had {system}: not the same cluster",
                nodes[at].address.id, nodes[at].system_identifier
            );
            (None, reason)
        }
        (primary, _) => (primary, reason),
    };
    let now = primary.map(|at| nodes[at].address.id.clone());
    let changed = now != previous.map(|(id, ..)| id);
    Topology { version: before.version + u64::from(changed), nodes, primary, reason }
}

fn report(before: &Topology, after: &Topology) {
    for node in &after.nodes {
        let last = before.nodes.iter().find(|known| known.address.id == node.address.id);
        let was = last.map(|known| known.role);
        if was == Some(node.role) {
            continue;
        }
        match node.role {
            Role::Unknown => tracing::warn!(node = %node.address.id, reason = node.reason, "node does not answer"),
            role => {
                tracing::info!(node = %node.address.id, role = role.as_str(), timeline = node.timeline.0, "node seen")
            }
        }
    }
    if before.version != after.version {
        match after.primary() {
            Some(node) => tracing::info!(node = %node.address.id, timeline = node.timeline.0, "primary"),
            None => tracing::warn!(reason = after.reason, "no primary"),
        }
    } else if before.reason != after.reason && !after.reason.is_empty() {
        tracing::warn!(reason = after.reason, "the primary is in doubt");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Lsn, Timeline};

    fn seen(id: &str, is_primary: bool, timeline: u32) -> (NodeAddress, Observation) {
        let status = NodeStatus {
            is_in_recovery: !is_primary,
            timeline: Timeline(timeline),
            lsn: Lsn(1),
            replayed: Lsn(1),
            system_identifier: 1,
        };
        (address(id), Ok(status))
    }

    fn silent(id: &str) -> (NodeAddress, Observation) {
        (address(id), Err("refused".into()))
    }

    fn address(id: &str) -> NodeAddress {
        NodeAddress { id: id.into(), host: "h".into(), port: 1 }
    }

    fn name(topology: &Topology) -> Option<String> {
        topology.primary().map(|node| node.address.id.to_string())
    }

    #[test]
    fn the_one_that_says_so_is_the_primary() {
        let picture = decide(&Topology::default(), &[seen("a", true, 1), seen("b", false, 1)]);
        assert_eq!((name(&picture).as_deref(), picture.version), (Some("a"), 1));
    }

    #[test]
    fn a_primary_that_falls_silent_stays_until_another_is_promoted_past_it() {
        let first = decide(&Topology::default(), &[seen("a", true, 1), seen("b", false, 1)]);
        let silent_now = decide(&first, &[silent("a"), seen("b", false, 1)]);
        assert_eq!((name(&silent_now).as_deref(), silent_now.version), (Some("a"), 1));
        let promoted = decide(&silent_now, &[silent("a"), seen("b", true, 2)]);
        assert_eq!((name(&promoted).as_deref(), promoted.version), (Some("b"), 2));
    }

    #[test]
    fn an_old_primary_that_returns_does_not_win() {
        let first = decide(&Topology::default(), &[silent("a"), seen("b", true, 2)]);
        let both = decide(&first, &[seen("a", true, 1), seen("b", true, 2)]);
        assert_eq!(name(&both).as_deref(), Some("b"));
        // Not even while the real one is silent for a moment.
        let alone = decide(&both, &[seen("a", true, 1), silent("b")]);
        assert_eq!(name(&alone).as_deref(), Some("b"));
        assert!(alone.reason.contains("not ahead"), "{}", alone.reason);
    }

    #[test]
    fn of_two_on_one_timeline_only_a_known_one_is_believed() {
        let two = [seen("a", true, 2), seen("b", true, 2)];
        assert_eq!(name(&decide(&Topology::default(), &two)), None);
        let known = decide(&Topology::default(), &[seen("a", true, 2), seen("b", false, 2)]);
        let both = decide(&known, &two);
        assert_eq!(name(&both).as_deref(), Some("a"));
        assert!(both.reason.contains("more than one"));
    }

    #[test]
    fn a_node_of_another_cluster_is_refused() {
        let first = decide(&Topology::default(), &[seen("a", true, 1), seen("b", false, 1)]);
        let mut stranger = seen("b", true, 9);
        if let Ok(status) = &mut stranger.1 {
            status.system_identifier = 2;
        }
        let picture = decide(&first, &[silent("a"), stranger]);
        assert_eq!(name(&picture), None);
        assert!(picture.reason.contains("not the same cluster"), "{}", picture.reason);
    }

    #[test]
    fn why_there_is_none_is_said() {
        let picture = decide(&Topology::default(), &[silent("a"), silent("b")]);
        assert_eq!(picture.reason, "no node answers (refused; refused)");
        assert_eq!(decide(&Topology::default(), &[seen("a", false, 1)]).reason, "no node says it is the primary");
    }
}
