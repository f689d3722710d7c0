//! Who is the primary: the brain, a pure state machine.
//!
//! It is told what happened ([`Event`]) and when, and answers with what is to be done ([`Action`]). It has no socket, clock,
//! runtime or randomness; the same record, policy and events give the same actions. `driver` does what it says and tells it
//! what came of it; the simulator in `tests/sim` does the same to nodes that do not exist.

pub mod action;
pub mod agent;
pub mod brain;
pub mod diagram;
pub mod doctor;
pub mod event;
pub mod history;
pub mod metrics;
pub mod policy;
pub mod record;
pub mod sync;

mod adopt;
mod agents;
mod candidate;
mod commands;
mod detect;
mod jobs;
mod level;
mod mode;
mod nodes;
mod picture;
mod promote;
mod recruit;
mod rejoin;
mod returning;
mod roster;
mod store;
mod switchover;
#[cfg(test)]
mod tests;
mod voters;
mod watch;

pub use action::{Action, AgentAccount, Job, JobId, Lead, NodeAccount, NodeState, Note, Picture, RepairNote};
pub use brain::Brain;
pub use event::{
    Answer, Command, CommandId, Event, Failure, FailureKind, Observation, Receiver, Sender, Sight, Symptom,
};
pub use history::{Availability, HistoryEntry};
pub use policy::{NodePolicy, Policy};
pub use record::{Phase, Record};
pub use sync::{SyncNames, covers};
