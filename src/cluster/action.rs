//! What the brain wants done.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::agent::{Diverged, Repair, Shutdown};
use super::event::CommandId;
use super::record::{Phase, Record};
use super::sync::SyncNames;
use crate::types::{Durability, Epoch, Lsn, Millis, NodeId, Timeline};

/// Done in the order given, each begun before the next; [`Event::Stored`](super::Event::Stored) and
/// [`Event::Done`](super::Event::Done) tell what came of those that take time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Put the record into the store, in place of the one before. There is never more than one under way. `serial` grows
    /// with each, to tell answers apart.
    Store {
        serial: u64,
        record: Box<Record>,
    },
    /// Begin a job. All that are given run at the same time.
    Do {
        id: JobId,
        epoch: Epoch,
        job: Job,
    },
    /// What is said about a job that has not ended no longer matters; it may be stopped.
    Forget(JobId),
    /// Look at a node at once, whenever its next probe is due.
    Probe(NodeId),
    /// What the data plane goes by from now on.
    Publish(Lead),
    /// To be kept as history, in the store and in the database.
    Note(Box<Note>),
    /// Likewise in the store, of a node that was made a standby again, or could not be. The table in the database has a row for
    /// each epoch only.
    NoteRepair(Box<RepairNote>),
    Answer {
        id: CommandId,
        result: Result<String, String>,
    },
    /// Said in the log: one for each transition, with its reason.
    Say {
        is_warning: bool,
        text: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct JobId(pub u64);

/// Something to be done to a node, for the epoch it is given with. Each can be done twice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Job {
    /// Take a standby off its primary for good.
    Recruit {
        node: NodeId,
    },
    /// Have a recruited standby receive from another what it lacks, up to there, and recruit it again: the next failure must
    /// not find everything on one node alone. Answered as [`Job::Recruit`] is; takes half a second at the most.
    Level {
        node: NodeId,
        from: NodeId,
        until: Lsn,
    },
    /// Wait until a recruited standby has replayed everything it received, and ask it about commits in doubt.
    Settle {
        node: NodeId,
    },
    /// Give it these names, promote it, and wait until it is a primary. One that is a primary already is given the names, and
    /// freed of what fenced it.
    Promote {
        node: NodeId,
        sync: SyncNames,
    },
    /// Change `synchronous_standby_names` on the primary, and see that it is in force.
    SetSync {
        node: NodeId,
        sync: SyncNames,
    },
    /// Commit the row of this epoch on its primary.
    WriteEpoch {
        node: NodeId,
        cause: String,
    },
    /// Make a standby receive from this primary.
    Follow {
        node: NodeId,
        primary: NodeId,
    },
    /// Make a primary of the past harmless.
    Fence {
        node: NodeId,
    },
    Checkpoint {
        node: NodeId,
    },
    /// Wait until no session has a transaction open on the primary, for at most so long. Published as [`Lead::Draining`]
    /// before.
    Drain {
        limit: Millis,
    },
    /// By the node's agent, as all that follow.
    Stop {
        node: NodeId,
        how: Shutdown,
    },
    Start {
        node: NodeId,
    },
    Restart {
        node: NodeId,
        how: Shutdown,
    },
    /// May take hours; how far it is, is in the agent's reports.
    Rejoin {
        node: NodeId,
        primary: NodeId,
        /// Of the cluster: another's data is not written over.
        system_identifier: u64,
        repair: Repair,
        reason: String,
    },
    /// Make a cluster where there is none.
    Initialise {
        node: NodeId,
    },
}

/// Who takes writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lead {
    /// Nobody, for now. Every server connection to a primary of an epoch before `epoch` is closed, and nothing that one still
    /// says is passed on.
    Closed {
        epoch: Epoch,
        reason: String,
    },
    Open {
        epoch: Epoch,
        primary: NodeId,
        timeline: Timeline,
    },
    /// The primary is about to be exchanged: transactions that are open on it may end, new ones wait. Follows `Open`, and goes on
    /// to `Closed`, or back to `Open` with the same epoch.
    Draining {
        epoch: Epoch,
        reason: String,
    },
}

/// An entry of the history: one epoch, from its cause until it took writes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Note {
    pub epoch: Epoch,
    /// See [`Note::is_ordered`].
    pub kind: Cow<'static, str>,
    pub cause: String,
    pub from: Option<NodeId>,
    pub to: NodeId,
    pub timeline: Timeline,
    pub fork_lsn: Option<Lsn>,
    pub durability: Durability,
    /// From the first failed probe or the order, in milliseconds, in the order they were gone through: `detect`, `recruit`,
    /// `settle`, `promote`, `follow`, `open`.
    pub phases: Vec<(Cow<'static, str>, u64)>,
    /// Why the other nodes were not chosen.
    pub rejected: BTreeMap<NodeId, String>,
    /// Of the log of the primary before, as far as it was seen; what nobody saw is not in it.
    pub known_loss_bytes: u64,
    /// Commits that clients were told of and that may lie beyond the fork, counted from the last look at the old primary at or
    /// before it; filled in by the driver. `None`: no promotion, or no such look.
    #[serde(default)]
    pub lost_commits_at_most: Option<u64>,
    /// When writes stopped being taken and when they were taken again, in milliseconds since 1970.
    pub closed_at: u64,
    pub opened_at: u64,
    /// Who ordered it, as far as that is known; filled in by the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// An entry of the history: a node was made a standby again, or could not be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RepairNote {
    pub node: NodeId,
    pub epoch: Epoch,
    pub primary: NodeId,
    /// `follow`, `rewind` or `rebuild`; `auto` if it failed before that was known.
    pub repair: Cow<'static, str>,
    /// Why it had to be, and why in that way.
    pub why: String,
    /// What it had that the cluster has not.
    #[serde(default)]
    pub diverged: Option<Diverged>,
    /// Why it could not be; empty: it was.
    #[serde(default)]
    pub failure: String,
    /// In milliseconds since 1970.
    pub began_at: u64,
    pub ended_at: u64,
}

impl Note {
    /// An operator wanted it; anything else is a failure.
    pub fn is_ordered(&self) -> bool {
        matches!(&*self.kind, "switchover" | "order" | "command")
    }
}

/// What a node is, for people and for `GET /cluster`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    Unknown,
    Running,
    Starting,
    Down,
    Fenced,
    Rejoining,
    Maintenance,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeAccount {
    pub state: NodeState,
    /// May become the primary as things stand; else why not.
    pub promotable: Result<(), String>,
    /// What else is to be said; may be empty.
    pub reason: String,
    /// `None`: there is no agent beside it.
    pub agent: Option<AgentAccount>,
}

/// What a node's agent last said, in short, for people and for `GET /cluster`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgentAccount {
    /// What it has its server do (`starting`, `running`, `stopping`, `stopped`, `waiting`); `silent`: it does not answer;
    /// `unknown`: it was not asked yet.
    pub state: Cow<'static, str>,
    /// The order under way and how far it is; may be empty.
    pub step: String,
    /// What is wrong, what it waits for, or why its last order failed; may be empty.
    pub trouble: String,
    /// The highest that it knows of.
    pub epoch: Option<Epoch>,
}

/// What the brain believes, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Picture {
    pub epoch: Option<Epoch>,
    pub phase: Option<Phase>,
    pub primary: Option<NodeId>,
    pub durability: Durability,
    pub sync: SyncNames,
    pub paused: bool,
    /// Why nobody takes writes, or what stands in the way of a failover; may be empty.
    pub reason: String,
    /// Since when nobody takes writes.
    pub closed_since: Option<Millis>,
    /// A failover is due, and nobody can be promoted as things stand.
    pub is_refused: bool,
    /// Why a failover would be refused, were the primary lost now; `None`: it would not be.
    pub unready: Option<String>,
    pub nodes: BTreeMap<NodeId, NodeAccount>,
}
