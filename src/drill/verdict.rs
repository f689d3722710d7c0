//! What a play comes to: each promise kept, broken with examples, or not at stake; the figures; and the brain's own account.

use super::checker::{self, Tables, Verdict as Found, judge};
use super::figures::figures;
use super::load::{Log, Outcome};
use super::outcome::{Chapter, Figures, Judged, Promise, Verdict};
use super::play::{Played, Trouble};
use super::scenarios::Scenario;
use crate::cluster::{HistoryEntry, Note};
use crate::types::Durability;

/// `cluster.max_lost_bytes` as it is by default.
const MAX_LOST_BYTES: u64 = 1024 * 1024;
/// Of what is wrong, so many are shown.
const EXAMPLES: usize = 5;

/// How a promise was kept.
fn judged(promise: Promise, wrong: &[String]) -> Judged {
    match wrong {
        [] => Judged { promise, verdict: Verdict::Pass, why: String::new() },
        _ => Judged { promise, verdict: Verdict::Fail, why: some_of(wrong) },
    }
}

fn not_applicable(promise: Promise, why: &str) -> Judged {
    Judged { promise, verdict: Verdict::NotApplicable, why: why.to_owned() }
}

fn some_of(texts: &[String]) -> String {
    let more = texts.len().saturating_sub(EXAMPLES);
    let end = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{end}", texts[..texts.len() - more].join("; "))
}

/// Of rows that are wrong in one way.
fn rows(what: &str, ids: &[u64], log: &Log) -> Option<String> {
    let example = |id: &u64| match log.writes.iter().find(|write| write.id == *id) {
        Some(write) => format!("{id} (answered at {:.3} s)", write.done.as_secs_f64()),
        None => id.to_string(),
    };
    let shown: Vec<String> = ids.iter().take(EXAMPLES).map(example).collect();
    (!ids.is_empty()).then(|| format!("{} {what}, such as {}", ids.len(), shown.join(", ")))
}

pub fn promises(
    scenario: &Scenario,
    durability: Durability,
    played: &Played,
    outcome: &Result<(), Trouble>,
) -> (Vec<Judged>, Figures) {
    let Played { log, tables, zombies, surprises, fault, .. } = played;
    let entries = own_entries(played);
    let Some(tables) = tables else {
        let why = "no primary could be read in the end";
        let silent = [
            Promise::FreshReads,
            Promise::NothingLost,
            Promise::OnePrimary,
            Promise::StayConnected,
            Promise::HonestAnswers,
        ];
        let mut all: Vec<Judged> = silent.map(|promise| not_applicable(promise, why)).into();
        all.push(as_expected(surprises, outcome));
        let nothing = Tables { ids: Default::default(), sum: 0 };
        let mut figures = figures(log, &Found { lost: Vec::new(), ..judge(log, &nothing) }, *fault);
        (figures.lost, figures.wrong, figures.stale) = (0, 0, 0);
        return (all, complete(figures, played, &entries));
    };
    let found = judge(log, tables);
    let figures = complete(figures(log, &found, *fault), played, &entries);
    let mut surprises = surprises.clone();
    if scenario.is_smooth && (figures.unknown > 0 || !figures.failed.is_empty() || !figures.other_errors.is_empty()) {
        let Figures { failed, other_errors, unknown, .. } = &figures;
        surprises.push(format!("clients were told of errors: {failed:?}, {other_errors:?}, {unknown} unknown"));
    }
    let mut zombie_writes = Vec::new();
    for zombie in zombies {
        let next =
            log.writes.iter().filter(|write| write.sent > zombie.since && write.outcome == Outcome::Acknowledged);
        let Some(next) = next.map(|write| write.done).min() else { continue };
        let taken = checker::written_behind_the_back(log, &zombie.tables, next);
        zombie_writes.extend(rows(&format!("writes taken by {} after it was replaced", zombie.id), &taken, log));
    }
    let fresh = match log.looks.is_empty() {
        true => not_applicable(Promise::FreshReads, "nobody came to read"),
        false => judged(Promise::FreshReads, &found.stale),
    };
    let connected = match scenario.drops {
        Some(why) => not_applicable(Promise::StayConnected, why),
        None => {
            let dropped: Vec<String> = found.dropped.keys().cloned().collect();
            judged(Promise::StayConnected, &dropped)
        }
    };
    let one_primary = match scenario.impostor {
        Some(why) => not_applicable(Promise::OnePrimary, why),
        None => judged(Promise::OnePrimary, &zombie_writes),
    };
    let promises = vec![
        fresh,
        nothing_lost(durability, &found, log, &figures),
        one_primary,
        connected,
        judged(Promise::HonestAnswers, &dishonest(&found, log)),
        as_expected(&surprises, outcome),
    ];
    (promises, figures)
}

fn as_expected(surprises: &[String], outcome: &Result<(), Trouble>) -> Judged {
    match outcome {
        Err(Trouble::Stuck(reason)) => {
            let all: Vec<String> = surprises.iter().cloned().chain([reason.clone()]).collect();
            judged(Promise::AsExpected, &all)
        }
        Err(Trouble::Cancelled) if surprises.is_empty() => not_applicable(Promise::AsExpected, "interrupted"),
        _ => judged(Promise::AsExpected, surprises),
    }
}

fn nothing_lost(durability: Durability, found: &Found, log: &Log, figures: &Figures) -> Judged {
    let promise = Promise::NothingLost;
    let Some(lost) = rows("acknowledged writes are not there", &found.lost, log) else {
        return judged(promise, &[]);
    };
    match (durability, figures.known_lost_bytes) {
        (Durability::Quorum, _) => judged(promise, &[lost]),
        (Durability::Async, None) => judged(promise, &[format!("{lost}; and pgbaton knows of no change of primary")]),
        (Durability::Async, Some(bytes)) if bytes > MAX_LOST_BYTES => {
            judged(promise, &[format!("{lost}: {bytes} bytes of WAL, more than max_lost_bytes ({MAX_LOST_BYTES})")])
        }
        (Durability::Async, Some(bytes)) => {
            let why = format!("{lost}; {bytes} bytes of WAL, within max_lost_bytes ({MAX_LOST_BYTES})");
            Judged { promise, verdict: Verdict::Pass, why }
        }
    }
}

/// What was said and is not so.
fn dishonest(found: &Found, log: &Log) -> Vec<String> {
    let kinds = [
        ("writes said to have failed are there", &found.phantoms),
        ("writes are there more than once", &found.doubled),
        ("rows are there that nobody wrote", &found.invented),
        ("writes found after an unknown outcome are gone, or the other way round", &found.turned),
    ];
    let mut wrong: Vec<String> = kinds.iter().filter_map(|(what, ids)| rows(what, ids, log)).collect();
    if let Some(sum) = found.broken_sums.first() {
        wrong.push(format!("{} sums of all accounts are wrong, such as {sum}", found.broken_sums.len()));
    }
    wrong.extend(found.broken.iter().cloned());
    wrong
}

/// Of this run.
fn own_entries(played: &Played) -> Vec<&HistoryEntry> {
    let began = played.began;
    let is_own = |entry: &&HistoryEntry| match entry {
        HistoryEntry::Epoch(note) => note.opened_at >= began,
        HistoryEntry::Outage { from, to, .. } => *from >= began || to.is_some_and(|to| to >= began),
        HistoryEntry::Repair(note) => note.ended_at >= began,
        HistoryEntry::Watch { .. } => false,
    };
    played.history.iter().filter(is_own).collect()
}

/// When the first sign was seen, by what the steps took.
fn noticed(note: &Note) -> u64 {
    note.opened_at.saturating_sub(note.phases.iter().map(|(_, ms)| ms).sum())
}

/// With what the brain alone knows: of the first change of primary, and of everything that was lost with any.
fn complete(mut figures: Figures, played: &Played, entries: &[&HistoryEntry]) -> Figures {
    let fault = played.began + u64::try_from(played.fault.as_millis()).unwrap_or_default();
    let notes =
        || entries.iter().filter_map(|entry| if let HistoryEntry::Epoch(note) = entry { Some(note) } else { None });
    if let Some(note) = notes().find(|note| note.opened_at >= fault) {
        figures.phases = note.phases.iter().map(|(name, ms)| (name.to_string(), *ms)).collect();
        let detect = note.phases.iter().find(|(name, _)| name == "detect");
        let decided = detect.map(|(_, ms)| noticed(note) + ms);
        // Clocks are read at different moments: a step of a millisecond back is none.
        figures.detection = decided.filter(|_| !note.is_ordered()).map(|decided| decided.saturating_sub(fault));
    }
    let known = notes().map(|note| note.known_loss_bytes).sum::<u64>();
    let left = entries.iter().filter_map(|entry| match entry {
        HistoryEntry::Repair(note) => note.diverged.as_ref().map(|it| it.to.0.saturating_sub(it.from.0)),
        _ => None,
    });
    figures.known_lost_bytes = notes().next().map(|_| known.max(left.sum()));
    figures
}

/// The history as chapters on the run's own axis.
pub fn story(played: &Played) -> Vec<Chapter> {
    let at = |wall: u64| wall.checked_sub(played.began);
    let mut story = Vec::new();
    for entry in own_entries(played) {
        match entry {
            HistoryEntry::Epoch(note) => {
                let epoch = Some(note.epoch.0);
                let chapter = |at, what: &str, reason: String| Chapter { at, epoch, what: what.to_owned(), reason };
                let from = note.from.as_ref().map_or("nobody", |from| &*from.0);
                let reason = format!("{}; from {from} to {}", note.cause, note.to);
                story.push(chapter(at(note.closed_at), &note.kind, reason));
                for (node, why) in &note.rejected {
                    story.push(chapter(at(note.closed_at), "rejected", format!("{node}: {why}")));
                }
                let mut moment = noticed(note);
                for (phase, ms) in &note.phases {
                    story.push(chapter(at(moment), phase, format!("{ms} ms")));
                    moment += ms;
                }
            }
            HistoryEntry::Outage { from, reason, .. } => {
                story.push(Chapter { at: at(*from), epoch: None, what: "outage".into(), reason: reason.clone() });
            }
            HistoryEntry::Repair(note) => {
                let result =
                    if note.failure.is_empty() { String::new() } else { format!("; failed: {}", note.failure) };
                let reason = format!("{} by {}: {}{result}", note.node, note.repair, note.why);
                let what = if note.failure.is_empty() { "rejoin" } else { "rejoin failed" };
                story.push(Chapter { at: at(note.began_at), epoch: Some(note.epoch.0), what: what.into(), reason });
            }
            HistoryEntry::Watch { .. } => {}
        }
    }
    story.sort_by_key(|chapter| chapter.at);
    story
}
