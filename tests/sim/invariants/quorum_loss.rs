//! In quorum durability no acknowledged commit is lost: whoever is the primary of an epoch that takes writes has each that
//! was acknowledged before.
//!
//! This is what all the rest is for. It holds whatever fails, as disks keep what they have in this world; the only way
//! out is an operator who said that data may be lost, or who paused pgbaton and promoted somebody by hand.

use std::collections::HashSet;

use pgbaton::cluster::action::Action;
use pgbaton::cluster::{Command, CommandId, Event, Phase};
use pgbaton::types::Durability;

use super::{Fact, Invariant, View};
use crate::node::index;
use crate::wal::{Payload, Wal};

#[derive(Default)]
pub struct QuorumLoss {
    acknowledged: Vec<(u64, u64)>,
    /// An operator allows the loss, with the order of this number.
    allowed: Option<CommandId>,
}

impl Invariant for QuorumLoss {
    fn name(&self) -> &'static str {
        "no acknowledged commit lost"
    }

    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String> {
        if view.policy.durability != Durability::Quorum {
            return Ok(());
        }
        match fact {
            Fact::Acknowledged { epoch, id } => self.acknowledged.push((*epoch, *id)),
            Fact::Heard(Event::Asked { id, command: Command::Failover { allow_data_loss: true, .. } }) => {
                self.allowed = Some(*id);
            }
            Fact::Acting(Action::Answer { id, result: Err(_) }) if self.allowed == Some(*id) => self.allowed = None,
            Fact::Stored { before } => {
                let Some(record) = view.record else { return Ok(()) };
                // Also if it is no longer paused when it takes writes.
                if record.paused && record.cause.contains("by hand") {
                    self.allowed.get_or_insert(CommandId(0));
                }
                if record.phase != Phase::Stable {
                    return Ok(());
                }
                if before.is_none_or(|before| before.epoch != record.epoch || before.phase != Phase::Stable) {
                    self.check(&view.nodes[index(&record.primary)].wal, record.epoch.0)?;
                }
            }
            Fact::End { result: Ok(()) } => {
                if let Some(record) = view.record {
                    self.check(&view.nodes[index(&record.primary)].wal, record.epoch.0)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl QuorumLoss {
    fn check(&mut self, wal: &Wal, epoch: u64) -> Result<(), String> {
        let commits: HashSet<u64> = wal
            .entries
            .iter()
            .filter_map(|entry| if let Payload::Commit(id) = entry.payload { Some(id) } else { None })
            .collect();
        if self.allowed.take().is_some() {
            self.acknowledged.retain(|(_, id)| commits.contains(id));
        }
        match self.acknowledged.iter().find(|(_, id)| !commits.contains(id)) {
            Some((of, id)) => Err(format!("commit {id}, acknowledged in epoch {of}, is not there in epoch {epoch}")),
            None => Ok(()),
        }
    }
}
