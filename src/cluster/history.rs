//! What happened, and what it amounts to: uptime, downtime, failures.
//!
//! Pure arithmetic on the entries of the history. Time nobody watched is neither up nor down: pgbaton cannot know what the
//! cluster did while pgbaton did not run, so what it says is about the time it saw ([`Availability::observed_ms`]).

use serde::{Deserialize, Serialize};

use super::{Note, RepairNote};

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
    /// A node was made a standby again, or could not be. Of no matter for how much of the time writes were taken.
    Repair(RepairNote),
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

/// What a window of time was like.
///
/// Terms and formulas are those of IEC 60050-192 (<https://www.electropedia.org>, part 192, dependability), for a system that is
/// either up or down and is repaired: MTTF = uptime / failures, MTTR (mean time to restoration) = downtime / failures, failure
/// rate λ = 1 / MTTF, and availability A = MTTF / (MTTF + MTTR), which is uptime / (uptime + downtime). Down is when writes
/// were not taken. What an operator ordered counts as downtime, for nobody could write, and not as a failure.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Availability {
    /// The window, in milliseconds since 1970.
    pub from: u64,
    pub to: u64,
    /// How much of it is known, in milliseconds: watched by pgbaton, or within an outage whose ends it saw.
    pub observed_ms: u64,
    pub uptime_ms: u64,
    pub downtime_ms: u64,
    /// Outages that nobody ordered. Those that touch or overlap are one; one that reaches into the window counts.
    pub failures: u64,
    /// `None` without failures.
    pub mttf_ms: Option<u64>,
    pub mttr_ms: Option<u64>,
    /// `None` if it failed without ever having been up.
    pub failure_rate_per_hour: Option<f64>,
    /// From 0 to 1; `None` when nothing was observed.
    pub availability: Option<f64>,
    /// The longest outage, ordered ones included, as far as it lies within the window.
    pub longest: Option<LongestOutage>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LongestOutage {
    pub from: u64,
    pub to: u64,
    pub reason: String,
}

/// Time when writes were not taken.
struct Down<'e> {
    from: u64,
    to: u64,
    reason: &'e str,
    nature: Nature,
}

/// Of outages that overlap, the greatest is that of them all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Nature {
    /// An outage of which no epoch came: a failure, unless it belongs to something that was ordered.
    Unknown,
    Ordered,
    Failure,
}

impl Availability {
    /// Of the time from `from` until `to`, which is now or before. Entries may overlap and come in any order.
    pub fn over(entries: &[HistoryEntry], from: u64, to: u64) -> Availability {
        let clip = |begin: u64, end: u64| (begin.max(from), end.min(to));
        let mut down: Vec<Down<'_>> = entries.iter().filter_map(|entry| entry.down(to)).collect();
        for outage in &mut down {
            (outage.from, outage.to) = clip(outage.from, outage.to);
        }
        down.retain(|outage| outage.from < outage.to);
        let down = joined(down);
        let watched = entries.iter().filter_map(|entry| match entry {
            HistoryEntry::Watch { from, to } => Some(clip(*from, *to)),
            _ => None,
        });
        let observed_ms = union(watched.chain(down.iter().map(|outage| (outage.from, outage.to))).collect());
        let downtime_ms = down.iter().map(|outage| outage.to - outage.from).sum();
        let uptime_ms: u64 = observed_ms - downtime_ms;
        let failures = down.iter().filter(|outage| outage.nature != Nature::Ordered).count() as u64;
        let hours = uptime_ms as f64 / 3_600_000.0;
        let longest = down.iter().rev().max_by_key(|outage| outage.to - outage.from);
        Availability {
            from,
            to,
            observed_ms,
            uptime_ms,
            downtime_ms,
            failures,
            mttf_ms: uptime_ms.checked_div(failures),
            mttr_ms: u64::checked_div(downtime_ms, failures),
            failure_rate_per_hour: match failures {
                0 => Some(0.0),
                _ => (uptime_ms > 0).then_some(failures as f64 / hours),
            },
            availability: (observed_ms > 0).then(|| uptime_ms as f64 / observed_ms as f64),
            longest: longest.map(|outage| LongestOutage {
                from: outage.from,
                to: outage.to,
                reason: outage.reason.to_owned(),
            }),
        }
    }

    /// For people: what it is, and how much.
    pub fn rows(&self) -> Vec<[String; 2]> {
        let window = self.to.saturating_sub(self.from);
        let none = || format!("none in {}", spell(self.observed_ms));
        let mean = |ms: Option<u64>| ms.map_or_else(none, spell);
        let row = |item: &str, value: String| [item.to_owned(), value];
        let percent = self.availability.map_or("unknown: nobody watched".to_owned(), |ratio| {
            // Never rounded up to more than it was.
            format!("{:.4} %", (ratio * 1e6).floor() / 1e4)
        });
        let failures = if self.failures == 0 { none() } else { self.failures.to_string() };
        let rate =
            self.failure_rate_per_hour.map_or("unknown: never up".to_owned(), |rate| format!("{rate:.6} per hour"));
        let longest = self
            .longest
            .as_ref()
            .map_or("none".to_owned(), |longest| format!("{} ({})", spell(longest.to - longest.from), longest.reason));
        vec![
            row("window", spell(window)),
            row("observed", spell(self.observed_ms)),
            row("unobserved", spell(window.saturating_sub(self.observed_ms))),
            row("uptime", spell(self.uptime_ms)),
            row("downtime", spell(self.downtime_ms)),
            row("availability", percent),
            row("failures", failures),
            row("MTTF", mean(self.mttf_ms)),
            row("MTTR", mean(self.mttr_ms)),
            row("failure rate", rate),
            row("longest outage", longest),
        ]
    }
}

impl HistoryEntry {
    /// The time it says writes were not taken, if it says so. One that has not ended lasts until now.
    fn down(&self, now: u64) -> Option<Down<'_>> {
        match self {
            // There was nothing before the first epoch that could have failed.
            HistoryEntry::Epoch(note) if note.from.is_none() => None,
            HistoryEntry::Epoch(note) => {
                let nature = if note.is_ordered() { Nature::Ordered } else { Nature::Failure };
                Some(Down { from: note.closed_at, to: note.opened_at, reason: &note.cause, nature })
            }
            HistoryEntry::Outage { from, to, reason } => {
                Some(Down { from: *from, to: to.unwrap_or(now), reason, nature: Nature::Unknown })
            }
            HistoryEntry::Watch { .. } | HistoryEntry::Repair(_) => None,
        }
    }
}

/// Those that touch or overlap as one, in the order of time.
fn joined(mut down: Vec<Down<'_>>) -> Vec<Down<'_>> {
    down.sort_by_key(|outage| (outage.from, outage.to));
    let mut joined: Vec<Down<'_>> = Vec::new();
    for outage in down {
        match joined.last_mut() {
            Some(last) if outage.from <= last.to => {
                last.to = last.to.max(outage.to);
                last.nature = last.nature.max(outage.nature);
            }
            _ => joined.push(outage),
        }
    }
    joined
}

/// How long all of them are together, what they share counted once.
fn union(mut spans: Vec<(u64, u64)>) -> u64 {
    spans.sort();
    let (mut total, mut end) = (0, 0);
    for (from, to) in spans {
        total += to.saturating_sub(from.max(end));
        end = end.max(to);
    }
    total
}

/// A length of time in its two largest units: `3d 4h`, `2m 5s`, `1.250s`, `12ms`.
pub fn spell(ms: u64) -> String {
    let (days, hours, minutes) = (ms / 86_400_000, ms / 3_600_000 % 24, ms / 60_000 % 60);
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}.{:03}s", ms / 1000, ms % 1000),
        60_000..3_600_000 => format!("{minutes}m {}s", ms / 1000 % 60),
        3_600_000..86_400_000 => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests;
