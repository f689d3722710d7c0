//! What the operator wants: the part of the configuration that the brain decides by.

use std::collections::BTreeMap;

use crate::types::{Durability, Millis, NodeId};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// How this pgbaton calls itself in the record.
    pub coordinator: String,
    /// `failover.automatic`: a primary that is down is replaced. Else it is only said that it is, and what people do by
    /// hand is followed.
    pub automatic: bool,
    pub durability: Durability,
    /// `cluster.quorum_acks`, quorum durability: how many voters acknowledge each commit, if there are so many. At least 1.
    pub acks: u32,
    /// `cluster.max_lost_bytes`, asynchronous durability.
    pub max_lost_bytes: u64,
    /// `failover.misses`: so many probes in a row must fail. At least 1.
    pub misses: u32,
    /// `failover.probe_interval`, `failover.probe_timeout`
    pub probe_interval: Millis,
    pub probe_timeout: Millis,
    /// `failover.veto`: how long a standby that still receives from a primary we cannot reach holds a failover up.
    pub veto: Millis,
    /// `failover.restart_wait`: how long a primary that answers "starting up" (57P03) is waited for.
    pub restart_wait: Millis,
    /// `failover.anti_flap`: after a recovery, soft symptoms (timeouts, a heartbeat that is not written) have to wait until
    /// this has passed; a refused connection has not.
    pub anti_flap: Millis,
    /// `failover.voter_grace`: a voter that has gone is removed after so long; sooner if commits wait for it.
    pub voter_grace: Millis,
    /// `failover.drain`: at a switchover, how long open transactions may take to end.
    pub drain: Millis,
    /// `failover.rejoin = "auto"`: nodes that are no standby of the primary are made one, by their agents, also if that takes
    /// a rewind or a copy of everything.
    pub rejoins: bool,
    /// How long a job may take before the brain gives up on it, should the driver never answer.
    pub job_limit: Millis,
    pub nodes: BTreeMap<NodeId, NodePolicy>,
}

impl Policy {
    /// With `failover.automatic = false` and asynchronous commits pgbaton follows what people do, and has nothing done to nodes
    /// unless it is ordered to: any number may watch one cluster.
    pub fn only_watches(&self) -> bool {
        !self.automatic && self.durability == Durability::Async
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodePolicy {
    /// Higher is preferred among equals; 0: never promoted.
    pub priority: u32,
    pub zone: String,
    /// There is an agent beside it.
    pub has_agent: bool,
}
