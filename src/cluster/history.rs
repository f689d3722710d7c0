//! What happened: the entries of the history.

use serde::{Deserialize, Serialize};

use super::Note;

/// One entry of the history. All times are in milliseconds since 1970.
///
/// An entry may say more about what an earlier one began: see [`HistoryEntry::supersedes`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum HistoryEntry {
    /// A change of epoch that took writes in the end.
    Epoch(Note),
    /// Writes were not taken for a while, and then again by the same primary in the same epoch; `to` is `None` while they are
    /// not taken yet.
    Outage { from: u64, to: Option<u64>, reason: String },
    /// pgbaton was there to see. It is written at the start, and again, with a later `to`, as time goes by.
    Watch { from: u64, to: u64 },
}

impl HistoryEntry {
    /// Whether the earlier entry has nothing more to say once there is this one: a longer watch, the end of an outage, or the
    /// epoch that an outage led to.
    pub fn supersedes(&self, earlier: &HistoryEntry) -> bool {
        use HistoryEntry::{Epoch, Outage, Watch};
        match (self, earlier) {
            (Epoch(note), Epoch(before)) => note.epoch == before.epoch,
            (Epoch(note), Outage { from, .. }) => (note.closed_at..=note.opened_at).contains(from),
            (Outage { from, .. }, Outage { from: before, .. }) | (Watch { from, .. }, Watch { from: before, .. }) => {
                from == before
            }
            _ => false,
        }
    }

    /// Adds an entry to a history, in place of what it supersedes.
    pub fn add_to(self, history: &mut Vec<HistoryEntry>) {
        let place = history.iter().position(|earlier| self.supersedes(earlier));
        history.retain(|earlier| !self.supersedes(earlier));
        history.insert(place.unwrap_or(history.len()), self);
    }
}
