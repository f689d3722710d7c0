//! The cluster as it is told to people and programs: one picture for `GET /cluster`, `SHOW NODES` and `SHOW LAG`.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use crate::cluster;
use crate::route::balance;
use crate::session::shared::Shared;
use crate::types::Role;
use cluster::{AgentAccount, NodeState};

/// Of a standby that replays too little to be asked: `cannot_connect_now`.
const STARTING: &str = "(57P03)";

/// `GET /cluster`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cluster {
    pub name: String,
    /// `epoch` and `phase` are null until the store has been read and a primary was seen.
    pub epoch: Option<u64>,
    pub phase: Option<Cow<'static, str>>,
    pub primary: Option<String>,
    /// Whose epoch it is by the record, also while nobody takes writes: the one node that may start as a primary.
    pub leader: Option<String>,
    pub durability: Cow<'static, str>,
    /// Whose acknowledgement a commit waits for, and how many of them it takes.
    pub voters: Vec<String>,
    pub acks: u32,
    pub paused: bool,
    /// Why nobody takes writes, or what stands in the way of a failover; may be empty.
    pub reason: String,
    pub nodes: Vec<Node>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Node {
    pub id: String,
    pub host: String,
    pub port: u16,
    pub role: Cow<'static, str>,
    pub state: Cow<'static, str>,
    pub timeline: u32,
    /// Written on a primary, received or replayed on a standby.
    pub lsn: String,
    /// Null while not known; 0 on the primary.
    pub lag_bytes: Option<u64>,
    pub lag_ms: Option<u64>,
    /// It may serve reads.
    pub eligible: bool,
    /// Why not; empty when it may.
    pub reason: String,
    /// Why it cannot become the primary just now; null of one that can.
    #[serde(default)]
    pub not_promotable: Option<String>,
    /// What its agent last said; null when there is none.
    pub agent: Option<AgentAccount>,
    #[serde(skip)]
    pub read: Read,
}

/// A node as a place to read from.
#[derive(Debug, Default)]
pub struct Read {
    pub replayed: Option<String>,
    pub weight: u32,
    pub is_near: bool,
    pub in_use: usize,
    /// Reads, as balancing counts them: one that comes while the replica warms up counts for several, and what the others
    /// served while it was away is taken as served.
    pub served: u64,
}

impl Cluster {
    pub fn of(name: &str, shared: &Shared, believed: &cluster::Picture) -> Cluster {
        let primary = shared.topology.borrow().primary().map(|node| node.address.id.to_string());
        Cluster {
            name: name.to_owned(),
            epoch: believed.epoch.map(|epoch| epoch.0),
            phase: believed.phase.map(|phase| phase.as_str().into()),
            primary,
            leader: believed.primary.as_ref().map(ToString::to_string),
            durability: believed.durability.as_str().into(),
            voters: believed.sync.voters.iter().map(ToString::to_string).collect(),
            acks: believed.sync.k,
            paused: believed.paused,
            reason: believed.reason.clone(),
            nodes: nodes(shared, Some(believed)),
        }
    }
}

/// `believed`: what the control plane makes of them, where it is asked.
pub fn nodes(shared: &Shared, believed: Option<&cluster::Picture>) -> Vec<Node> {
    let topology = shared.topology.borrow().clone();
    let view = shared.readers.view();
    let mut nodes = Vec::with_capacity(topology.nodes.len());
    for (at, seen) in topology.present() {
        // Not there before the nodes have been judged for the first time.
        let reader = view.nodes.get(at);
        let is_primary = topology.primary == Some(at);
        let state = match seen.role {
            Role::Primary | Role::Replica => "running",
            Role::Unknown if seen.reason.contains(STARTING) => "starting",
            Role::Unknown => "down",
        };
        let account = believed.and_then(|believed| believed.nodes.get(&seen.address.id));
        let state = match account.map(|account| account.state) {
            Some(NodeState::Fenced) => "fenced",
            Some(NodeState::Rejoining) => "rejoining",
            Some(NodeState::Maintenance) => "maintenance",
            // It answers, but not as a node of this cluster does.
            Some(NodeState::Unknown) if seen.role != Role::Unknown => "unknown",
            _ => state,
        };
        // What the control plane does to a node says more than that it serves no reads.
        let has_own_account = account.is_some_and(|account| {
            let is_apart = matches!(account.state, NodeState::Fenced | NodeState::Rejoining | NodeState::Maintenance)
                || account.state == NodeState::Unknown && seen.role != Role::Unknown
                // It knows more than that nobody answers there: what its agent cannot do, above all.
                || account.state == NodeState::Down && account.reason != seen.reason;
            is_apart && !account.reason.is_empty()
        });
        let (lag_bytes, lag_ms) = match reader.and_then(|reader| reader.known_lag()) {
            _ if is_primary => (Some(0), Some(0)),
            Some(lag) => (Some(lag.bytes), Some(lag.time.0)),
            None => (None, None),
        };
        let reason = match reader.map(|reader| &reader.state) {
            // Of a primary that does not answer, that is worth more than that it is the primary.
            _ if is_primary && seen.role == Role::Unknown => format!("does not answer: {}", seen.reason),
            _ if has_own_account => account.map_or(String::new(), |account| account.reason.clone()),
            Some(Ok(())) => String::new(),
            Some(Err(reason)) => reason.to_string(),
            None => "not judged yet".to_owned(),
        };
        let position = shared.readers.positions.latest(at);
        let read = reader.map(|reader| Read {
            replayed: (position.is_known() && position.is_in_recovery).then(|| position.lsn.to_string()),
            weight: reader.weight,
            is_near: reader.is_near,
            in_use: reader.load.in_use.load(Ordering::Relaxed),
            served: reader.load.served.load(Ordering::Relaxed) / balance::charge(1.0),
        });
        nodes.push(Node {
            id: seen.address.id.to_string(),
            host: seen.address.host.clone(),
            port: seen.address.port,
            role: seen.role.as_str().into(),
            state: state.into(),
            timeline: seen.timeline.0,
            lsn: seen.lsn.to_string(),
            lag_bytes,
            lag_ms,
            eligible: reader.is_some_and(|reader| reader.state.is_ok()),
            reason,
            not_promotable: account
                .map_or_else(|| Some("not seen yet".to_owned()), |account| account.promotable.clone().err()),
            agent: account.and_then(|account| account.agent.clone()),
            read: read.unwrap_or_default(),
        });
    }
    nodes
}
