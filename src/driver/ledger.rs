//! Keeps the history: what each change of primary took and cost, when nobody could write, and when somebody was watching.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::unix_ms;
use crate::cluster::history::HistoryEntry;
use crate::cluster::{Lead, Note, RepairNote, Sight};
use crate::coord::Embedded;
use crate::monitor::Seen;
use crate::types::{Epoch, Lsn};

/// Sights of the primary that are remembered, to tell how many commits lie behind a position: a minute or two.
const SAMPLES: usize = 512;

/// How often it is written down that somebody still watches, in milliseconds.
const WATCH: u64 = 60_000;

/// An outage that lasts is written down before it is over, in milliseconds; looking for the primary after the start is none.
const LASTING: u64 = 10_000;

/// So many probes of the primary have to fail before it counts as an outage that nothing else is said about.
const MISSES: u32 = 3;

pub(super) struct Ledger {
    store: Arc<Mutex<Embedded>>,
    /// How far the primary was, and how many commits had been acknowledged before it was asked.
    samples: VecDeque<(Lsn, u64)>,
    /// When watching began, and when that was last written down.
    started: u64,
    watched: Option<u64>,
    outage: Option<Outage>,
    /// The last one that was opened.
    open_epoch: Option<Epoch>,
    /// The primary's failed probes in a row, and when the first was.
    misses: (u32, u64),
    /// Acknowledged when the last probe of the primary was under way.
    acknowledged_before: u64,
}

struct Outage {
    from: u64,
    reason: String,
    is_written: bool,
}

impl Ledger {
    pub fn new(store: Arc<Mutex<Embedded>>, started: u64) -> Ledger {
        Ledger {
            store,
            samples: VecDeque::new(),
            started,
            watched: None,
            outage: None,
            open_epoch: None,
            misses: (0, 0),
            acknowledged_before: 0,
        }
    }

    /// Takes in a sight of the primary. `acknowledged`: how many commits clients have been told of by now.
    pub fn see(&mut self, seen: &Seen, lead: Option<&Lead>, acknowledged: u64) {
        let Some(Lead::Open { primary, .. }) = lead else { return };
        if *primary != seen.node {
            return;
        }
        match &seen.sight {
            Sight::Answers(observation) => {
                if self.samples.len() >= SAMPLES {
                    self.samples.pop_front();
                }
                // Those acknowledged before the question was asked lie at or before the answer.
                self.samples.push_back((observation.lsn, self.acknowledged_before));
                self.misses = (0, 0);
                self.end_outage();
            }
            Sight::Fails(_, reason) => {
                let (count, since) = self.misses;
                self.misses = (count + 1, if count == 0 { unix_ms() } else { since });
                if self.misses.0 == MISSES {
                    self.begin_outage(self.misses.1, format!("{}: {reason}", seen.node));
                }
            }
        }
        self.acknowledged_before = acknowledged;
    }

    pub fn lead(&mut self, lead: &Lead) {
        match lead {
            // Those who are at it may end; how long the others wait is counted from the closing.
            Lead::Draining { .. } => {}
            Lead::Closed { reason, .. } => self.begin_outage(unix_ms(), reason.clone()),
            Lead::Open { epoch, .. } => {
                self.misses = (0, 0);
                // An epoch that begins has an entry of its own.
                let is_known = self.open_epoch.replace(*epoch) == Some(*epoch);
                match &self.outage {
                    // What was written down as not over has to be ended; where it overlaps with an epoch, it counts once.
                    Some(outage) if is_known || outage.is_written => self.end_outage(),
                    _ => self.outage = None,
                }
            }
        }
    }

    fn begin_outage(&mut self, from: u64, reason: String) {
        if self.outage.is_none() {
            self.outage = Some(Outage { from, reason, is_written: false });
        }
    }

    fn end_outage(&mut self) {
        if let Some(outage) = self.outage.take() {
            self.append(HistoryEntry::Outage { from: outage.from, to: Some(unix_ms()), reason: outage.reason });
        }
    }

    /// An epoch has been opened. Returns it as the database is to keep it.
    pub fn note(&mut self, mut note: Note, acknowledged: u64) -> (Epoch, serde_json::Value) {
        if let Some(fork) = note.fork_lsn {
            note.lost_commits_at_most = self.lost_commits(fork, acknowledged);
        }
        self.samples.clear();
        // What is an epoch is no other outage.
        self.outage = None;
        let epoch = note.epoch;
        // Numbers, names and texts only: this cannot fail.
        let value = serde_json::to_value(&note).unwrap_or_default();
        self.append(HistoryEntry::Epoch(note));
        (epoch, value)
    }

    pub fn repaired(&mut self, note: RepairNote) {
        self.append(HistoryEntry::Repair(note));
    }

    /// How many acknowledged commits may lie beyond this position. What was acknowledged since the last look at or before it is
    /// counted in full.
    fn lost_commits(&self, fork: Lsn, acknowledged: u64) -> Option<u64> {
        let safe = self.samples.iter().rev().find(|(lsn, _)| *lsn <= fork)?;
        Some(acknowledged.saturating_sub(safe.1))
    }

    /// Writes down now and then that somebody watches, and that an outage goes on.
    pub fn watch(&mut self, now: u64) {
        if self.watched.is_none_or(|watched| now >= watched + WATCH) {
            self.watched = Some(now);
            self.append(HistoryEntry::Watch { from: self.started, to: now });
        }
        let lasts = |outage: &&mut Outage| !outage.is_written && now > outage.from + LASTING;
        if let Some(outage) = self.outage.as_mut().filter(lasts) {
            outage.is_written = true;
            let entry = HistoryEntry::Outage { from: outage.from, to: None, reason: outage.reason.clone() };
            self.append(entry);
        }
    }

    fn append(&self, entry: HistoryEntry) {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = store.lock().unwrap_or_else(PoisonError::into_inner).append_history(&entry) {
                tracing::warn!(%error, "the history could not be written");
            }
        });
    }
}
