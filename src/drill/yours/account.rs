//! The brain's own account of what it did while the drill went on, from the history that it keeps.

use std::time::Duration;

use crate::cluster::{HistoryEntry, Note};
use crate::drill::figures::ms;
use crate::drill::outcome::{Chapter, Run};

/// Into the run's figures and story. `began`: when the load began, in milliseconds since 1970, by this machine's clock; pgbaton's may differ.
pub fn tell(entries: &[HistoryEntry], began: u64, fault: Duration, run: &mut Run) {
    let at = |time: u64| time.checked_sub(began);
    for entry in entries {
        match entry {
            HistoryEntry::Epoch(note) if note.opened_at >= began => {
                let from = note.from.as_ref().map_or("nobody", |from| &*from.0);
                let reason = format!("{}; from {from} to {}", note.cause, note.to);
                run.story.push(chapter(at(note.closed_at), note, &note.kind, reason));
                for (node, why) in &note.rejected {
                    run.story.push(chapter(at(note.closed_at), note, "rejected", format!("{node}: {why}")));
                }
                run.story.push(chapter(at(note.opened_at), note, "open", format!("{} takes writes", note.to)));
                if run.figures.phases.is_empty() {
                    first_change(note, began.saturating_add(ms(fault)), run);
                }
            }
            HistoryEntry::Outage { from, reason, .. } if *from >= began => {
                run.story.push(Chapter { at: at(*from), epoch: None, what: "outage".into(), reason: reason.clone() });
            }
            HistoryEntry::Repair(note) if note.ended_at >= began => {
                let failed =
                    if note.failure.is_empty() { String::new() } else { format!("; failed: {}", note.failure) };
                let reason = format!("{}, by {}: {}{failed}", note.node, note.repair, note.why);
                let (at, epoch) = (at(note.began_at), Some(note.epoch.0));
                run.story.push(Chapter { at, epoch, what: "rejoin".into(), reason });
            }
            _ => {}
        }
    }
    run.story.sort_by_key(|chapter| chapter.at);
}

fn chapter(at: Option<u64>, note: &Note, what: &str, reason: String) -> Chapter {
    Chapter { at, epoch: Some(note.epoch.0), what: what.into(), reason }
}

fn first_change(note: &Note, fault: u64, run: &mut Run) {
    run.figures.phases = note.phases.iter().map(|(name, took)| (name.to_string(), *took)).collect();
    run.figures.known_lost_bytes = Some(note.known_loss_bytes);
    let all: u64 = note.phases.iter().map(|(_, took)| took).sum();
    let detect = note.phases.iter().find(|(name, _)| name == "detect");
    // What was ordered was not detected.
    let decided = detect.filter(|_| !note.is_ordered()).map(|(_, took)| note.opened_at.saturating_sub(all) + took);
    run.figures.detection = decided.map(|decided| decided.saturating_sub(fault));
}
