//! The record: the one value that says whose epoch it is. Written to the store before anything is done on the strength of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::sync::SyncNames;
use crate::types::{Durability, Epoch, Lsn, NodeId, Timeline};

/// Of the record's layout. A store with another is refused.
pub const FORMAT: u32 = 1;

/// How far the change to this epoch has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nobody takes writes. Standbys are taken off the primary of the epoch before, `primary`.
    Recruiting,
    /// `primary` was chosen and is being promoted (or taken back); nobody takes writes yet.
    Promoting,
    /// `primary` takes writes.
    Stable,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Recruiting => "recruiting",
            Phase::Promoting => "promoting",
            Phase::Stable => "stable",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`FORMAT`]
    pub format: u32,
    /// Of every node of this cluster.
    pub system_identifier: u64,
    pub epoch: Epoch,
    pub phase: Phase,
    /// While recruiting, the primary of the epoch before; else the one chosen.
    pub primary: NodeId,
    /// The primary of the epoch before, if there was one.
    pub former: Option<NodeId>,
    /// On which `primary` writes (`Stable`), or which has to be exceeded by a promotion (the other phases).
    pub timeline: Timeline,
    /// Where the timeline of this epoch leaves the one before; known from `Promoting` on, where there was a promotion.
    pub fork_lsn: Option<Lsn>,
    pub durability: Durability,
    /// Whose acknowledgement counts for what was acknowledged so far, and how many of them it takes. In `Promoting`: the
    /// nodes that have everything, each of which is enough. Empty: only the primary itself has everything. Where an operator
    /// made one the primary that may lack something, it is among them: see [`Record::before_loss`].
    pub voters: BTreeSet<NodeId>,
    pub k: u32,
    /// The last epoch that was `Stable`: its row is in the database.
    pub written: Epoch,
    pub coordinator: String,
    /// Why this epoch was opened, for people.
    pub cause: String,
    /// When, in milliseconds since 1970.
    pub since: u64,
    /// An operator has forbidden any change of primary.
    #[serde(default)]
    pub paused: bool,
    /// Nodes that are neither voted with, promoted nor read from, at an operator's wish.
    #[serde(default)]
    pub maintenance: BTreeSet<NodeId>,
}

impl Record {
    pub fn sync(&self) -> SyncNames {
        SyncNames { voters: self.voters.clone(), k: self.k }
    }

    /// Whose acknowledgement counts, should the one that is being promoted fail.
    ///
    /// What an operator allowed to be lost is lost when that node takes writes, not before. Until then the voters of before
    /// are kept, with the node itself among them, which no other record of a promotion has; one voter more at the same `k`
    /// asks for one recruit more, so that can only be too careful.
    pub(super) fn before_loss(self) -> Record {
        match (&self.former, self.phase) {
            (Some(former), Phase::Promoting) if self.fork_lsn.is_some() && self.voters.contains(&self.primary) => {
                let primary = former.clone();
                let voters = self.voters.iter().filter(|voter| **voter != primary).cloned().collect();
                Record { primary, voters, former: None, fork_lsn: None, ..self }
            }
            _ => self,
        }
    }
}
