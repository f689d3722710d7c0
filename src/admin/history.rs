//! The past as people see it: the same table in the console and on the command line, and the window that availability is of.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::tables::{Table, utc};
use crate::cluster::agent::Diverged;
use crate::cluster::history::spell;
use crate::cluster::{Availability, HistoryEntry, RepairNote};

/// Gives the entries as they are now, oldest first. It must not wait for anything.
pub type History = Arc<dyn Fn() -> Vec<HistoryEntry> + Send + Sync>;

/// What `GET /history` answers with.
#[derive(Serialize, Deserialize)]
pub struct Entries {
    /// Oldest first.
    pub entries: Vec<HistoryEntry>,
}

/// `window` of `GET /availability` when it is not given.
pub const WINDOW: &str = "30d";
const LONGEST_WINDOW: Duration = Duration::from_secs(36_500 * 24 * 3600);

/// Reads a window such as `30d` or `12h 30m`.
pub fn parse_window(text: &str) -> Result<Duration, String> {
    let window = humantime_serde::re::humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if window < Duration::from_secs(1) || window > LONGEST_WINDOW {
        return Err("it has to be from 1s to 100 years".into());
    }
    Ok(window)
}

/// Of the window that ends now.
pub fn availability(history: &History, window: Duration) -> Availability {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let (now, window) = (u64::try_from(now).unwrap_or(u64::MAX), u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
    Availability::over(&history(), now.saturating_sub(window), now)
}

/// Newest first, as one reads it.
pub fn table(entries: &[HistoryEntry]) -> Table {
    let columns = &["at", "epoch", "what", "from", "to", "down", "known_lost_bytes", "phases", "rejected", "reason"];
    Table::shown(columns, entries.iter().rev().map(row).collect())
}

fn row(entry: &HistoryEntry) -> Vec<Option<String>> {
    let moment = |ms: u64| Some(utc(ms / 1000));
    match entry {
        HistoryEntry::Epoch(note) => {
            let phases: Vec<String> = note.phases.iter().map(|(phase, ms)| format!("{phase} {}", spell(*ms))).collect();
            let rejected: Vec<String> = note.rejected.iter().map(|(node, why)| format!("{node}: {why}")).collect();
            vec![
                moment(note.closed_at),
                Some(note.epoch.to_string()),
                Some(note.kind.to_string()),
                note.from.as_ref().map(ToString::to_string),
                Some(note.to.to_string()),
                Some(spell(note.opened_at.saturating_sub(note.closed_at))),
                Some(note.known_loss_bytes.to_string()),
                Some(phases.join(", ")),
                Some(rejected.join("; ")),
                Some(note.cause.clone()),
            ]
        }
        HistoryEntry::Outage { from, to, reason } => {
            let down = to.map_or("until now".to_owned(), |to| spell(to.saturating_sub(*from)));
            let mut row = vec![moment(*from), None, Some("outage".into()), None, None, Some(down)];
            row.extend([None, None, None, Some(reason.clone())]);
            row
        }
        HistoryEntry::Repair(note) => {
            let took = spell(note.ended_at.saturating_sub(note.began_at));
            let (to, epoch) = (note.node.to_string(), note.epoch.to_string());
            let what = if note.failure.is_empty() { "rejoin" } else { "rejoin failed" };
            // Writes went on meanwhile: no time that anything was down.
            let mut row = vec![moment(note.began_at), Some(epoch), Some(what.into()), None, Some(to), None];
            let lost = note.diverged.as_ref().map(|diverged| diverged.to.0.saturating_sub(diverged.from.0).to_string());
            row.extend([lost, Some(format!("{} {took}", note.repair)), None, Some(why(note))]);
            row
        }
        HistoryEntry::Watch { from, to } => {
            let mut row = vec![moment(*from), None, Some("watch".into()), None, None, None];
            row.extend([None, None, None, Some(format!("pgbaton was there until {}", utc(to / 1000)))]);
            row
        }
    }
}

/// Why a node was made a standby again, what was lost by it, and why it could not be.
fn why(note: &RepairNote) -> String {
    let mut said = note.why.clone();
    if let Some(Diverged { commits, kept, .. }) = &note.diverged {
        let commits = match commits {
            Some(0) => "no commit of its own is lost".into(),
            Some(1) => "1 commit of its own that the cluster does not have".into(),
            Some(many) => format!("{many} commits of its own that the cluster does not have"),
            None => "commits of its own that could not be counted".into(),
        };
        let kept = if kept.is_empty() { String::new() } else { format!(", kept in {kept}") };
        said = [said, format!("{commits}{kept}")]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("; ");
    }
    match note.failure.as_str() {
        "" => said,
        failure if said.is_empty() => failure.into(),
        failure => format!("{said}; {failure}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Lsn, NodeId, Timeline};

    #[test]
    fn a_window_is_a_length_of_time() {
        assert_eq!(parse_window("30d"), Ok(Duration::from_secs(30 * 24 * 3600)));
        assert_eq!(parse_window("1h 30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "30", "soon", "0s", "1000years"] {
            assert!(parse_window(wrong).is_err(), "{wrong}");
        }
        assert!(parse_window(WINDOW).is_ok());
    }

    fn repair(failure: &str, commits: Option<u64>) -> RepairNote {
        let (from, to) = (Lsn(0x1000), Lsn(0x2000));
        let diverged = Diverged { timeline: Timeline(1), from, to, commits, kept: "/kept/n1".into() };
        RepairNote {
            node: NodeId::from("n1"),
            epoch: Epoch(4),
            primary: NodeId::from("n2"),
            repair: "rewind".into(),
            why: "it was the primary of epoch 3".into(),
            diverged: Some(diverged),
            failure: failure.into(),
            began_at: 2000,
            ended_at: 5100,
        }
    }

    #[test]
    fn every_kind_of_entry_has_every_column() {
        let entries = [
            HistoryEntry::Watch { from: 0, to: 60_000 },
            HistoryEntry::Outage { from: 1000, to: None, reason: "why".into() },
            HistoryEntry::Outage { from: 1000, to: Some(3500), reason: "why".into() },
            HistoryEntry::Repair(repair("", Some(17))),
            HistoryEntry::Repair(repair("the disk is full", None)),
        ];
        let table = table(&entries);
        assert!(table.rows.iter().all(|row| row.len() == table.columns.len()));
        let shown: Vec<String> =
            table.rows.iter().map(|row| row.iter().flatten().cloned().collect::<Vec<_>>().join(" | ")).collect();
        assert_eq!(
            shown,
            [
                "1970-01-01 00:00:02 UTC | 4 | rejoin failed | n1 | 4096 | rewind 3.100s | it was the primary of epoch 3; \
                 commits of its own that could not be counted, kept in /kept/n1; the disk is full",
                "1970-01-01 00:00:02 UTC | 4 | rejoin | n1 | 4096 | rewind 3.100s | it was the primary of epoch 3; \
                 17 commits of its own that the cluster does not have, kept in /kept/n1",
                "1970-01-01 00:00:01 UTC | outage | 2.500s | why",
                "1970-01-01 00:00:01 UTC | outage | until now | why",
                "1970-01-01 00:00:00 UTC | watch | pgbaton was there until 1970-01-01 00:01:00 UTC",
            ]
        );
    }
}
