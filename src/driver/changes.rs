//! Counts the changes of primary: how many, what came of them, and how long each of their phases took.
//!
//! The history has each of them in full; this is what a monitoring system adds up, since the start of this pgbaton.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cluster::{Command, Note};
use crate::telemetry::distribution::Distribution;
use crate::telemetry::metric::Metric;

pub const CHANGES: Metric = Metric::counter(
    "pgbaton_failovers",
    "Changes of primary, also those that an operator ordered: done, refused, or undone (the primary of before takes writes \
     again).",
)
.labels(&["kind", "outcome"]);
pub const PHASES: Metric =
    Metric::histogram("pgbaton_failover_phase_seconds", "How long the phases of changes of primary took.")
        .unit("seconds")
        .labels(&["phase"]);
pub const LOST: Metric = Metric::counter(
    "pgbaton_failover_lost_bytes",
    "Log of primaries of the past that the cluster has not, as far as it had been seen.",
)
.unit("bytes");
pub const REPAIRS: Metric = Metric::counter(
    "pgbaton_rejoins",
    "Nodes that were made standbys of the primary again (done), or could not be (failed).",
)
.labels(&["outcome"]);

/// Bounds of [`PHASES`], in microseconds.
const BOUNDS: &[u64] = &[
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// Every phase that a change may go through, in their order.
const NAMES: [&str; 9] = ["detect", "checkpoint", "drain", "stop", "recruit", "settle", "promote", "follow", "open"];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Unplanned, or ordered without regard to the primary.
    Failover,
    Switchover,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    Done,
    Refused,
    Undone,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Failover, Kind::Switchover];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Failover => "failover",
            Kind::Switchover => "switchover",
        }
    }

    /// What an order is about, if that is a change of primary.
    pub(super) fn of(command: &Command) -> Option<Kind> {
        match command {
            Command::Switchover { .. } => Some(Kind::Switchover),
            Command::Failover { .. } => Some(Kind::Failover),
            _ => None,
        }
    }
}

impl Outcome {
    pub const ALL: [Outcome; 3] = [Outcome::Done, Outcome::Refused, Outcome::Undone];

    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Undone => "undone",
        }
    }
}

/// What has been counted.
#[derive(Clone, Debug)]
pub struct Counted {
    changes: BTreeMap<(Kind, Outcome), u64>,
    phases: BTreeMap<&'static str, Distribution>,
    pub lost_bytes: u64,
    pub repaired: u64,
    pub not_repaired: u64,
}

impl Default for Counted {
    fn default() -> Self {
        let phases = NAMES.map(|name| (name, Distribution::new(BOUNDS))).into();
        Counted { changes: BTreeMap::new(), phases, lost_bytes: 0, repaired: 0, not_repaired: 0 }
    }
}

impl Counted {
    pub fn changes(&self, kind: Kind, outcome: Outcome) -> u64 {
        self.changes.get(&(kind, outcome)).copied().unwrap_or_default()
    }

    /// In the order in which a change goes through them.
    pub fn phases(&self) -> impl Iterator<Item = (&'static str, &Distribution)> {
        NAMES.into_iter().filter_map(|name| Some((name, self.phases.get(name)?)))
    }

    fn count(&mut self, kind: Kind, outcome: Outcome) {
        *self.changes.entry((kind, outcome)).or_default() += 1;
    }

    /// An epoch has been opened.
    fn note(&mut self, note: &Note) {
        let kind = match &*note.kind {
            // The first sight of a cluster changes nothing.
            "adoption" => return,
            "switchover" => Kind::Switchover,
            _ => Kind::Failover,
        };
        let is_back = note.from.as_ref() == Some(&note.to);
        self.count(kind, if is_back { Outcome::Undone } else { Outcome::Done });
        self.lost_bytes += note.known_loss_bytes;
        for (phase, ms) in &note.phases {
            if let Some(distribution) = self.phases.get_mut(&**phase) {
                distribution.add(ms * 1000);
            }
        }
    }
}

/// The counters, shared by who counts and who asks.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<Mutex<Counted>>);

impl Changes {
    pub fn counted(&self) -> Counted {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with(&self, act: impl FnOnce(&mut Counted)) {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn note(&self, note: &Note) {
        self.with(|counted| counted.note(note));
    }

    pub(super) fn refuse(&self, kind: Kind) {
        self.with(|counted| counted.count(kind, Outcome::Refused));
    }

    pub(super) fn repair(&self, is_done: bool) {
        self.with(|counted| match is_done {
            true => counted.repaired += 1,
            false => counted.not_repaired += 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Durability, Epoch, NodeId, Timeline};

    fn note(kind: &'static str, from: &str, to: &str) -> Note {
        Note {
            by: None,
            epoch: Epoch(2),
            kind: kind.into(),
            cause: String::new(),
            from: Some(NodeId::from(from)),
            to: NodeId::from(to),
            timeline: Timeline(2),
            fork_lsn: None,
            durability: Durability::Async,
            phases: vec![("recruit".into(), 40), ("nap".into(), 7)],
            rejected: BTreeMap::new(),
            known_loss_bytes: 10,
            lost_commits_at_most: None,
            closed_at: 0,
            opened_at: 0,
        }
    }

    #[test]
    fn what_came_of_a_change_is_told_by_who_took_writes_then() {
        let changes = Changes::default();
        for (kind, from, to) in [
            ("adoption", "n1", "n1"),
            ("failover", "n1", "n2"),
            ("order", "n2", "n1"),
            ("switchover", "n1", "n2"),
            ("switchover", "n2", "n2"),
        ] {
            changes.note(&note(kind, from, to));
        }
        changes.refuse(Kind::Switchover);
        let counted = changes.counted();
        let table = Kind::ALL.map(|kind| Outcome::ALL.map(|outcome| counted.changes(kind, outcome)));
        assert_eq!(table, [[2, 0, 0], [1, 1, 1]]);
        assert_eq!(counted.lost_bytes, 40);
    }

    #[test]
    fn only_phases_with_a_name_of_ours_are_labels() {
        let changes = Changes::default();
        changes.note(&note("failover", "n1", "n2"));
        let counted = changes.counted();
        let all: Vec<_> = counted.phases().map(|(name, phase)| (name, phase.count())).collect();
        assert_eq!(all.iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>(), [&("recruit", 1)]);
        assert_eq!(all.len(), NAMES.len());
    }
}
