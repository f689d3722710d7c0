//! What agents and pgbaton tell each other: the bodies of the agent's HTTP API, and what the brain goes by.
//!
//! An agent runs beside one PostgreSQL and is its parent. It reports ([`Report`], `GET /status`) and does what it is told
//! ([`Order`], `POST /actions`), one thing at a time. An order is known by its epoch and its id: the same one again is
//! answered with what came of it, one of an older epoch is refused, one of a newer epoch takes the place of what is under way.

use serde::{Deserialize, Serialize};

use crate::types::{Epoch, Lsn, NodeId, Timeline};

/// What an agent says of itself and its server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    pub node: NodeId,
    /// The highest epoch it was ever given an order for, or saw in the record; it survives restarts.
    pub epoch: Epoch,
    pub server: Server,
    pub data: Data,
    /// The order under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<Doing>,
    /// The last one that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Done>,
    /// Data of the past that was kept aside, the newest last.
    #[serde(default)]
    pub kept: Vec<Kept>,
    /// What is wrong, for people; empty when all is well.
    #[serde(default)]
    pub trouble: String,
}

/// The server process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum Server {
    /// It starts up, or recovers.
    Starting,
    Running,
    Stopping,
    /// Stopped by an order, and not started before another one.
    Stopped,
    /// It does not run and will be started when what it waits for has come: a record that says it is the primary, a free
    /// port, a while after a crash.
    Waiting {
        reason: String,
    },
}

/// The data directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum Data {
    /// No directory, or an empty one: a node may be made there.
    Absent,
    Present {
        system_identifier: u64,
        timeline: Timeline,
        /// It would start as a standby (`standby.signal`).
        is_standby: bool,
        /// It was shut down cleanly; its log ends with the checkpoint of that.
        is_clean: bool,
        /// Of the last checkpoint in the control file.
        checkpoint: Lsn,
    },
    /// There is something, and it is no data directory of PostgreSQL's, or a damaged or unfinished one.
    Unusable { reason: String },
}

/// What an agent is told to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub epoch: Epoch,
    /// Up to 100 characters; never used for anything else.
    pub id: String,
    pub task: Task,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Task {
    /// Stop the server, and leave it so. Of one that is stopped, nothing is done. Ends when every process of it is gone.
    Stop { how: Shutdown },
    /// Start the server as what its data is: as a primary only if the record says that it is the primary. Ends when it accepts
    /// connections.
    Start,
    /// Stop and start: for a new binary or setting.
    Restart { how: Shutdown },
    /// Make it a standby of that primary, whatever it is now; ends when it receives from it and replays what it receives.
    Rejoin {
        primary: NodeId,
        host: String,
        port: u16,
        /// Another one is not written over.
        system_identifier: u64,
        repair: Repair,
        /// For people.
        reason: String,
    },
    /// Make a new cluster in an empty directory and start it as its primary.
    Initialise,
    /// Write the settings of the agent's own again, and have the server read them. What waits for a restart is in the outcome.
    Configure,
}

impl Task {
    /// As it is called in logs and in the history.
    pub fn name(&self) -> &'static str {
        match self {
            Task::Stop { .. } => "stop",
            Task::Start => "start",
            Task::Restart { .. } => "restart",
            Task::Rejoin { .. } => "rejoin",
            Task::Initialise => "initialise",
            Task::Configure => "configure",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shutdown {
    /// Sessions are ended; standbys get all of the log, and a checkpoint ends it.
    Fast,
    /// As in a crash.
    Immediate,
}

/// How a node becomes a standby.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Repair {
    /// The cheapest that is right: follow, else rewind, else rebuild.
    Auto,
    /// As it is: its log is a beginning of the primary's.
    Follow,
    /// `pg_rewind`, else rebuild.
    Rewind,
    /// `pg_basebackup` into an empty directory.
    Rebuild,
}

impl Repair {
    pub fn as_str(self) -> &'static str {
        match self {
            Repair::Auto => "auto",
            Repair::Follow => "follow",
            Repair::Rewind => "rewind",
            Repair::Rebuild => "rebuild",
        }
    }
}

/// An order under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Doing {
    pub epoch: Epoch,
    pub id: String,
    /// [`Task::name`]
    pub task: String,
    /// In milliseconds since 1970.
    pub since: u64,
    /// What is being done just now, for people: `copying n2: 41 % of 2.1 GiB`.
    pub step: String,
}

/// An order that has ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Done {
    pub epoch: Epoch,
    pub id: String,
    /// [`Task::name`]
    pub task: String,
    pub took_ms: u64,
    pub outcome: Outcome,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum Outcome {
    Well(Deed),
    Failed { code: Code, reason: String },
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Deed {
    /// Of a rejoin: which way it went, never `Auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
    /// Why that way, for people.
    #[serde(default)]
    pub why: String,
    /// Where the log ended when it was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Lsn>,
    /// What it had that the primary has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged: Option<Diverged>,
}

/// The part of a node's log that its cluster does not have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Diverged {
    pub timeline: Timeline,
    /// Where it left the primary's log, and where it ended.
    pub from: Lsn,
    pub to: Lsn,
    /// How many transactions were committed in it; `None`: they could not be counted.
    pub commits: Option<u64>,
    /// Where it was kept; empty: it was not, see the agent's log.
    pub kept: String,
}

/// Data kept aside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    pub path: String,
    pub bytes: u64,
    /// In milliseconds since 1970.
    pub since: u64,
}

/// Why an agent could not do what it was told, as far as programs care.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The order is of an epoch before one that the agent knows.
    Stale,
    /// An order of a newer epoch came in between.
    Replaced,
    /// The data directory belongs to another cluster, and stays as it is.
    OtherCluster,
    /// The record does not say that it is the primary, or could not be asked.
    NotPrimary,
    /// The other server cannot be reached, or does not let us in.
    Unreachable,
    Password,
    DiskFull,
    PortTaken,
    /// What is asked for is not possible with this data; another repair may be.
    Impossible,
    /// Anything else; the reason has the last lines of what the program said.
    Failed,
}
