//! What the brain is told.

use std::collections::BTreeMap;

use super::action::JobId;
use super::agent::{Deed, Report};
use super::policy::NodePolicy;
use super::record::Record;
use super::sync::SyncNames;
use crate::types::{Epoch, Lsn, Millis, NodeId, Timeline};

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// What the store holds at the start. The first event; until then nothing is decided.
    Loaded {
        record: Option<Record>,
        /// What the calendar says at `Millis(0)`, in milliseconds since 1970: for `Record::since` and nothing else.
        unix_ms_at_zero: u64,
    },
    /// A probe of a node ended.
    Seen {
        node: NodeId,
        sight: Sight,
    },
    /// An agent was asked how things are; `Err`: it did not answer, or did not understand.
    Agent {
        node: NodeId,
        report: Result<Box<Report>, String>,
    },
    /// The configuration was read again: these are the nodes from now on. Those that were not there before are unknown, what was
    /// known of those that are gone is forgotten.
    Nodes(BTreeMap<NodeId, NodePolicy>),
    /// A heartbeat was written on the primary of this epoch, with all of the log before it on its disk, or could not be.
    Beat {
        node: NodeId,
        epoch: Epoch,
        result: Result<(), Failure>,
    },
    /// The record of the last [`Action::Store`](super::Action::Store) is safe, or is not (then the store still holds the one
    /// before, or this one: it is tried again).
    Stored {
        epoch: Epoch,
        serial: u64,
        result: Result<(), String>,
    },
    /// A job has ended.
    Done {
        id: JobId,
        result: Result<Answer, Failure>,
    },
    Asked {
        id: CommandId,
        command: Command,
    },
    /// The deadline of [`Brain::next_deadline`](super::Brain::next_deadline) has come.
    Tick,
}

/// What a probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sight {
    Answers(Box<Observation>),
    Fails(Symptom, String),
}

/// Why a probe found nothing, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Symptom {
    /// Nobody listens there, or the connection was reset: a server that has died.
    Refused,
    /// No answer within `probe_timeout`, no route, no such name: a host that is gone, or frozen, or cut off.
    Silent,
    /// 57P03: the server starts up, shuts down or recovers.
    Starting,
    /// It answers, but not to us: a wrong password, too many clients. No sign of death.
    Rejected,
}

/// A node's answer to a probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observation {
    pub system_identifier: u64,
    pub is_in_recovery: bool,
    /// That of the WAL it writes or receives.
    pub timeline: Timeline,
    /// On a primary the end of what is written; on a standby of what is received or replayed, whichever is further.
    pub lsn: Lsn,
    /// On a standby, the end of what is replayed.
    pub replayed: Lsn,
    /// When its checkpointer was started, in microseconds: another number means that it has crashed or restarted since.
    pub incarnation: u64,
    /// The newest row of `pgbaton.epoch`; `None`: no such row, table or right.
    pub last_epoch: Option<Epoch>,
    /// On a standby.
    pub receiver: Option<Receiver>,
    /// On a standby: it was taken off its primary by us (see `docs/decisions/0006`), for this epoch.
    pub recruited_for: Option<Epoch>,
    /// On a standby: `primary_conninfo` names this node of the configuration, and calls itself by its own id there.
    pub follows: Option<NodeId>,
    /// On a primary: who receives from it, as far as they are nodes of the configuration.
    pub senders: Vec<Sender>,
    /// On a primary: `synchronous_standby_names`, `None` if it is not of the form that pgbaton writes.
    pub sync: Option<SyncNames>,
    /// It was fenced by us: clients' transactions are read-only there and wait for a name that nobody has.
    pub is_fenced: bool,
}

/// A standby's WAL receiver, while it is connected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receiver {
    /// From which node of the configuration.
    pub from: Option<NodeId>,
    /// How long ago the last message came, by the standby's own clock.
    pub fed_ago: Millis,
    /// So long a living primary may be silent: half of `wal_receiver_timeout`, after which a receiver asks.
    pub quiet: Millis,
}

/// A standby as its primary sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sender {
    pub node: NodeId,
    pub is_streaming: bool,
    /// What it has on disk.
    pub flushed: Lsn,
}

/// What came of a job; each variant belongs to the [`Job`](super::Job) of that name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The node receives from nobody any more and will not by itself.
    Recruited {
        system_identifier: u64,
        timeline: Timeline,
        received: Lsn,
        last_epoch: Option<Epoch>,
    },
    /// Everything received is replayed, but for a last record of which only a part was received, and what could be asked of it about commits in doubt was.
    Settled {
        replayed: Lsn,
        last_epoch: Option<Epoch>,
    },
    /// It is a primary now; if it was one already, `fork` is where its timeline began, if known.
    Promoted {
        timeline: Timeline,
        fork: Option<Lsn>,
    },
    /// In force, seen so on every WAL sender, and a commit made after that was acknowledged by them.
    SyncSet,
    /// The epoch's row is committed, acknowledged by the voters in force.
    EpochWritten,
    /// It has been told whom to follow; whether it does is seen by probes.
    Follows,
    Fenced {
        lsn: Lsn,
        timeline: Timeline,
    },
    Checkpointed,
    /// No transaction is open on the primary any more, or `left` are and have had their time.
    Drained {
        left: usize,
    },
    /// To [`Job::Stop`](super::Job::Stop), [`Job::Start`](super::Job::Start), [`Job::Rejoin`](super::Job::Rejoin) and
    /// [`Job::Initialise`](super::Job::Initialise): the agent has done it.
    Agent(Deed),
    Noted,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub kind: FailureKind,
    /// For people.
    pub reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKind {
    /// The node did not answer, or not in time. What was asked may have been done all the same.
    Unreachable,
    /// The node answered and will not or cannot do it.
    Refused,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct CommandId(pub u64);

/// An operator's wish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    Pause,
    Resume,
    Maintenance {
        node: NodeId,
        on: bool,
    },
    /// Whatever the state of the primary. `allow_data_loss`: also if acknowledged commits are lost by it.
    Failover {
        to: NodeId,
        allow_data_loss: bool,
    },
    /// Planned: the primary is stopped cleanly when the one after it can take over, and nothing is lost. `to`: whom, else
    /// the best of those that may.
    Switchover {
        to: Option<NodeId>,
    },
    /// Make a standby of it again, by its agent, the cheapest way that is right; `rebuild`: by copying everything.
    Rejoin {
        node: NodeId,
        rebuild: bool,
    },
    /// Restart its server, by its agent.
    Restart {
        node: NodeId,
    },
}
