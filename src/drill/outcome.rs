//! What came of a drill, as data: the table, the JSON, the HTML report and the exit code are all made of this and of nothing else.
//!
//! Times within a run are in milliseconds since its load began, so that what clients saw, what was broken and what the brain did
//! lie on one axis.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All that `pgbaton drill` ran in one go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of pgbaton.
    pub version: String,
    /// Of PostgreSQL, as its server calls itself.
    pub postgres: String,
    /// When it began, in milliseconds since 1970.
    pub began: u64,
    pub runs: Vec<Run>,
}

/// Who stood between the clients and the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plan {
    Pgbaton,
    /// Nobody: clients have all nodes in one connection string, as libpq takes it (`target_session_attrs=read-write`).
    MultiHost,
}

/// One scenario, played once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub scenario: String,
    /// What it does.
    pub does: String,
    /// What is to come of it.
    pub expects: String,
    pub plan: Plan,
    /// `quorum` or `async`.
    pub durability: String,
    /// How long it took altogether, in milliseconds.
    pub took: u64,
    pub end: End,
    pub promises: Vec<Judged>,
    pub figures: Figures,
    /// What was done to the cluster, and what became of it, in the order of time.
    pub marks: Vec<Mark>,
    /// What clients saw, [`Slice::WIDTH`] by [`Slice::WIDTH`].
    pub slices: Vec<Slice>,
    /// The brain's own account of what it did and why; empty without pgbaton.
    pub story: Vec<Chapter>,
}

/// Whether it could be played at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum End {
    Played,
    /// This machine, or this cluster, has not what it takes: that is no failure.
    Skipped {
        reason: String,
    },
    /// It came to no end: the cluster did not become what the scenario waits for.
    Stuck {
        reason: String,
    },
}

/// What pgbaton promises (docs/guarantees.md), as far as clients under a fault can judge it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// P2: a session saw what it had written, and never less than before.
    FreshReads,
    /// P4: every acknowledged commit is there; `async`: what is not there is within `max_lost_bytes`.
    NothingLost,
    /// P5: nobody wrote to a node that was replaced.
    OnePrimary,
    /// P6: sessions kept their connections.
    StayConnected,
    /// P7: what was said to have failed is not there, nothing is there twice, sums add up.
    HonestAnswers,
    /// What the scenario itself expects: who is the primary in the end, that there was (no) failover, that all nodes are whole.
    AsExpected,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    pub promise: Promise,
    pub verdict: Verdict,
    /// What broke it, with examples; why it does not apply; may be empty when it was kept.
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    Fail,
    NotApplicable,
}

/// Milliseconds where nothing else is said; `None` where there was nothing to measure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// From the fault to the decision that the primary is down.
    pub detection: Option<u64>,
    /// From the fault to the first write that was sent after it and acknowledged.
    pub first_write: Option<u64>,
    /// The longest time without an acknowledged write, or an answered read, after the fault.
    pub write_gap: Option<u64>,
    pub read_gap: Option<u64>,
    /// Of each step of the change of primary, in their order.
    pub phases: Vec<(String, u64)>,
    pub acknowledged: u64,
    /// Writes that were refused with an error, by SQLSTATE.
    pub failed: BTreeMap<String, u64>,
    /// Errors of reads and others.
    pub other_errors: BTreeMap<String, u64>,
    /// Connections that ended under a client.
    pub dropped: u64,
    /// Acknowledged and not there.
    pub lost: u64,
    /// Of the log of the primary of the past, as pgbaton knew when it gave it up.
    pub known_lost_bytes: Option<u64>,
    /// Commits of which the client was told that nobody knows (08007), or that had no answer.
    pub unknown: u64,
    /// Reads that showed less than the session knew.
    pub stale: u64,
    /// Everything else that is wrong: said to have failed and there, there twice, sums that do not add up.
    pub wrong: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub at: u64,
    pub kind: MarkKind,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// Something was broken, or ordered.
    Fault,
    /// It was mended by the drill.
    Mended,
    /// Seen in the cluster.
    Seen,
}

/// What all clients together saw in a short time. Latencies in microseconds, of those that ended in it; `None`: none did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    pub at: u64,
    pub writes: u32,
    pub reads: u32,
    pub errors: u32,
    pub write_median: Option<u64>,
    pub write_max: Option<u64>,
    pub read_median: Option<u64>,
    pub read_max: Option<u64>,
}

impl Slice {
    /// In milliseconds.
    pub const WIDTH: u64 = 100;
}

/// A line of the brain's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chapter {
    /// `None` when it is not known when within the run.
    pub at: Option<u64>,
    pub epoch: Option<u64>,
    /// `failover`, `switchover`, `rejoin`, `outage`, or the name of a step.
    pub what: String,
    pub reason: String,
}

impl Run {
    /// Whether a promise was broken, or it came to no end.
    pub fn is_bad(&self) -> bool {
        matches!(self.end, End::Stuck { .. }) || self.promises.iter().any(|judged| judged.verdict == Verdict::Fail)
    }
}

impl Report {
    /// A plan without pgbaton is there to compare with; what it breaks is no failure of the drill.
    pub fn is_bad(&self) -> bool {
        self.runs.iter().any(|run| run.plan == Plan::Pgbaton && run.is_bad())
    }
}
