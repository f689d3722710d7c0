//! What must be true of every run. Each invariant has a file of its own, with its reason; here is what they are told.

use pgbaton::cluster::{Action, Event, Policy, Record};

use crate::node::Node;

mod async_loss;
mod candidate;
mod dead_epoch;
mod epoch_row;
mod epochs;
mod gate;
mod liveness;
mod one_history;
mod one_writable;
mod quorum_loss;
mod rejoined;
mod stored_first;
mod voters;

/// Something that happened, when it has.
pub enum Fact<'a> {
    /// pgbaton was started.
    Booted,
    /// The brain is about to be told.
    Heard(&'a Event),
    /// What the brain wants is about to be done.
    Acting(&'a Action),
    /// The store holds another record; `before` is the last one.
    Stored { before: Option<&'a Record> },
    /// A server's processes may go by other names than before.
    NamesApplied { node: usize },
    /// A client's write was taken by a server.
    Written { node: usize, epoch: u64 },
    /// A client was told that its commit succeeded.
    Acknowledged { epoch: u64, id: u64 },
    /// An agent starts its server as a primary; `asked`: when it asked whether it may.
    StartsPrimary { node: usize, asked: u64 },
    /// A node was rewound or copied, and is to follow this one.
    Copied { node: usize, primary: usize },
    /// The run is over: all is well, or time is up.
    End { result: Result<(), String> },
}

/// The truth, which nobody in the run can see.
pub struct View<'a> {
    pub now: u64,
    pub nodes: &'a [Node],
    pub record: Option<&'a Record>,
    pub policy: &'a Policy,
}

pub trait Invariant {
    fn name(&self) -> &'static str;

    /// `Err` says how it was broken.
    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String>;
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub invariant: &'static str,
    pub reason: String,
}

pub struct Judge {
    invariants: Vec<Box<dyn Invariant>>,
    pub verdict: Option<Verdict>,
}

impl Judge {
    pub fn new() -> Judge {
        let invariants: Vec<Box<dyn Invariant>> = vec![
            Box::new(one_writable::OneWritable::default()),
            Box::new(stored_first::StoredFirst::default()),
            Box::new(epochs::Epochs),
            Box::new(epoch_row::EpochRow),
            Box::new(dead_epoch::DeadEpoch::default()),
            Box::new(candidate::MostAdvanced::default()),
            Box::new(quorum_loss::QuorumLoss::default()),
            Box::new(async_loss::AsyncLoss::default()),
            Box::new(voters::Voters),
            Box::new(gate::Gate::default()),
            Box::new(one_history::OneHistory),
            Box::new(rejoined::Rejoined),
            Box::new(liveness::Liveness),
        ];
        Judge { invariants, verdict: None }
    }

    pub fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) {
        for invariant in &mut self.invariants {
            if let Err(reason) = invariant.hear(fact, view)
                && self.verdict.is_none()
            {
                self.verdict = Some(Verdict { invariant: invariant.name(), reason });
            }
        }
    }
}
