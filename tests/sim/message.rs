//! What pgbaton asks of a node, and what comes back.

use pgbaton::cluster::{Observation, SyncNames};

/// Who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    Probe { node: usize, serial: u64 },
    Beat { node: usize, epoch: u64, serial: u64 },
    Task { id: u64, question: u64 },
    Client { client: usize, id: u64, epoch: u64 },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub caller: Caller,
    /// Which start of pgbaton asks. The first thing that one asks of a node ends what earlier ones left running there.
    pub process: u64,
    /// Grows with each job; a job's first act on a node ends what earlier jobs left running there. 0: not part of one that
    /// changes anything.
    pub order: u64,
    pub what: What,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    Look,
    Beat,
    /// A client's commit.
    Write(u64),
    Recruit(u64),
    IsRecruited,
    IsSettled,
    Names(SyncNames),
    AreNamesApplied,
    /// A commit that waits as clients' do.
    Commit,
    Promote,
    IsPromoted,
    Row(u64),
    Follow(usize),
    Fence,
    IsFenced,
    Checkpoint,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Seen(Box<Observation>),
    Done,
    NotYet,
    Is {
        timeline: u32,
        lsn: u64,
        row: Option<u64>,
        fork: u64,
    },
    /// It answers, and will not.
    No(&'static str),
    Starting,
    /// Nobody listens, or the connection was cut short.
    Reset,
    /// Too many clients.
    Full,
}
