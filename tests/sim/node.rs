//! A PostgreSQL server reduced to what a failover can see of it: its log, whether it recovers, whom it receives from, who
//! receives from it, and whose acknowledgement its commits wait for. What it does is in `server.rs` and `replication.rs`.

use std::collections::VecDeque;

use pgbaton::cluster::{Observation, Receiver as SeenReceiver, Sender as SeenSender, SyncNames};
use pgbaton::types::{Epoch, Lsn, Millis, NodeId, Timeline};

use crate::agent::Agent;
use crate::message::Caller;
use crate::wal::Wal;
use crate::world::Due;

pub const SYSTEM_IDENTIFIER: u64 = 7_000_000_000_000_000_001;
/// `wal_receiver_timeout`; a receiver asks after half of it.
pub const RECEIVER_TIMEOUT: u64 = 1000;
/// `wal_sender_timeout`
pub const SENDER_TIMEOUT: u64 = 1500;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    Running,
    /// Recovers after a start, answers 57P03.
    Starting,
    /// The process is gone, the host is there: connections are refused.
    Down,
    /// The host is gone: silence.
    Gone,
}

/// What is on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Data {
    Present,
    Absent,
    /// In the middle of a repair: nothing can be started on it.
    Unfinished,
}

/// `synchronous_standby_names`
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Names {
    Sync(SyncNames),
    /// A name that nobody has: what fences a primary.
    Nobody,
}

/// A WAL sender. Each goes by the names that it has read itself.
#[derive(Clone, Debug)]
pub struct Sender {
    pub standby: usize,
    pub serial: u64,
    /// How many records were sent.
    pub sent: usize,
    pub flushed: u64,
    pub heard_at: u64,
    pub applied: Names,
    /// When what was sent last arrives: the connection keeps the order.
    pub next_arrival: u64,
}

#[derive(Clone, Debug)]
pub struct Receiver {
    pub upstream: usize,
    pub serial: u64,
    pub fed_at: u64,
}

/// Somebody who waits for a record to be safe.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// Its index in the log, and its end.
    pub at: usize,
    pub end: u64,
    /// `synchronous_commit = local`
    pub is_local: bool,
    pub is_flushed: bool,
    pub process: u64,
    pub caller: Caller,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub id: NodeId,
    pub agent: Option<Agent>,
    pub data: Data,
    pub life: Life,
    /// Stopped by SIGSTOP; what arrives waits here.
    pub is_frozen: bool,
    pub inbox: Vec<Due>,
    /// Grows with each start of the server; what was under way in an earlier one is void.
    pub incarnation: u64,
    pub wal: Wal,
    /// How many records are on disk.
    pub flushed: usize,
    /// Writes to the disk hang.
    pub is_stalled: bool,
    pub stalled: Vec<Due>,
    /// Nobody new is let in.
    pub is_full: bool,

    pub in_recovery: bool,
    pub is_promoting: bool,
    /// The highest timeline it has heard of.
    pub known_timeline: u32,
    pub conninfo: Option<usize>,
    pub recruited_for: Option<u64>,
    pub receiver: Option<Receiver>,
    pub is_connecting: bool,
    /// It has received something since its start; before, the position received is NULL.
    pub has_streamed: bool,
    pub replayed: usize,
    pub replays: VecDeque<(u64, usize)>,
    pub is_replay_paused: bool,
    pub replay_lag: u64,
    /// It has received another history's records behind its own and cannot replay them.
    pub diverged_at: Option<usize>,
    /// Since when it has been a standby without a receiver, or not a standby of anybody: for the operator.
    pub astray_since: Option<u64>,

    pub names: Names,
    pub is_fenced: bool,
    /// Whether commits wait at all, as its checkpointer has last told everybody.
    pub is_waiting: bool,
    pub senders: Vec<Sender>,
    pub waiters: Vec<Waiter>,
    /// The youngest job that changed something here; what an older one still asks for is refused.
    pub order: u64,
    pub process: u64,
}

impl Node {
    pub fn new(id: NodeId, upstream: Option<usize>, wal: Wal) -> Node {
        let len = wal.len();
        Node {
            id,
            agent: None,
            data: Data::Present,
            life: Life::Running,
            is_frozen: false,
            inbox: Vec::new(),
            incarnation: 1,
            flushed: len,
            wal,
            is_stalled: false,
            stalled: Vec::new(),
            is_full: false,
            in_recovery: upstream.is_some(),
            is_promoting: false,
            known_timeline: 1,
            conninfo: upstream,
            recruited_for: None,
            receiver: None,
            is_connecting: false,
            has_streamed: false,
            replayed: len,
            replays: VecDeque::new(),
            is_replay_paused: false,
            replay_lag: 5,
            diverged_at: None,
            astray_since: None,
            names: Names::Sync(SyncNames::default()),
            is_fenced: false,
            is_waiting: false,
            senders: Vec::new(),
            waiters: Vec::new(),
            order: 0,
            process: 0,
        }
    }

    pub fn is_up(&self) -> bool {
        self.life == Life::Running && !self.is_frozen
    }

    /// Takes the place of a primary: writes to it would succeed.
    pub fn is_primary(&self) -> bool {
        self.life == Life::Running && !self.in_recovery
    }

    /// How many records a standby can get from it.
    pub fn available(&self) -> usize {
        if self.in_recovery { self.wal.len() } else { self.flushed }
    }

    pub fn catch_up(&mut self, now: u64) {
        if self.is_replay_paused {
            return;
        }
        while let Some((at, len)) = self.replays.front().copied()
            && at <= now
        {
            self.replays.pop_front();
            self.replayed = self.replayed.max(len.min(self.diverged_at.unwrap_or(usize::MAX)));
        }
    }

    pub fn will_replay(&mut self, now: u64) {
        let at = self.replays.back().map_or(0, |(at, _)| *at).max(now + self.replay_lag);
        self.replays.push_back((at, self.wal.len()));
    }

    pub fn newest_row(&self) -> Option<Epoch> {
        let row = if self.in_recovery {
            self.wal.newest_row(self.replayed, |_| false)
        } else {
            self.wal.newest_row(self.wal.len(), |at| self.waiters.iter().any(|waiter| waiter.at == at))
        };
        row.map(Epoch)
    }

    /// Whether its commits wait as the names say that are written in its configuration.
    pub fn has_applied_names(&self) -> bool {
        self.is_waiting == self.wants_waiting() && self.senders.iter().all(|sender| sender.applied == self.names)
    }

    pub fn wants_waiting(&self) -> bool {
        match &self.names {
            Names::Sync(sync) => !sync.voters.is_empty(),
            Names::Nobody => true,
        }
    }

    /// All that an acknowledgement may go by at this moment.
    pub fn sync_in_force(&self) -> Vec<SyncNames> {
        let mut all = Vec::new();
        if !self.is_waiting {
            all.push(SyncNames::default());
        }
        for sender in &self.senders {
            if let Names::Sync(names) = &sender.applied
                && names.voters.iter().any(|voter| index(voter) == sender.standby)
                && !all.contains(names)
            {
                all.push(names.clone());
            }
        }
        all
    }

    pub fn observe(&mut self, now: u64, ids: &[NodeId]) -> Observation {
        self.catch_up(now);
        let received = if self.has_streamed || !self.in_recovery { self.wal.end() } else { 0 };
        let replayed = if self.in_recovery { self.wal.end_of(self.replayed) } else { self.wal.end() };
        let receiver = self.receiver.as_ref().map(|receiver| SeenReceiver {
            from: Some(ids[receiver.upstream].clone()),
            fed_ago: Millis(now - receiver.fed_at),
            quiet: Millis(RECEIVER_TIMEOUT / 2),
        });
        let senders = self.senders.iter().filter(|sender| now - sender.heard_at < SENDER_TIMEOUT);
        let senders = senders.map(|sender| SeenSender {
            node: ids[sender.standby].clone(),
            is_streaming: sender.flushed > 0,
            flushed: Lsn(sender.flushed),
        });
        Observation {
            system_identifier: SYSTEM_IDENTIFIER,
            is_in_recovery: self.in_recovery,
            timeline: Timeline(self.wal.timeline()),
            lsn: Lsn(received.max(replayed)),
            replayed: Lsn(replayed),
            incarnation: self.incarnation,
            last_epoch: self.newest_row(),
            receiver: receiver.filter(|_| self.in_recovery),
            recruited_for: self.recruited_for.filter(|_| self.in_recovery).map(Epoch),
            follows: self.conninfo.filter(|_| self.in_recovery).map(|upstream| ids[upstream].clone()),
            senders: if self.in_recovery { Vec::new() } else { senders.collect() },
            sync: match &self.names {
                Names::Sync(sync) if !self.in_recovery => Some(sync.clone()),
                _ => None,
            },
            is_fenced: self.is_fenced,
        }
    }
}

/// Nodes are called `a`, `b`, `c` … in the order of their indexes.
pub fn index(id: &NodeId) -> usize {
    id.0.bytes().next().map_or(0, |letter| usize::from(letter - b'a'))
}

pub fn name(index: usize) -> NodeId {
    NodeId::from(&*char::from(b'a' + index as u8).to_string())
}
