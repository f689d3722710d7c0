//! What lies in the data directory, and how far its log goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::control::Control;
use super::program;
use super::timelines::{Stretch, chain, end_of_record, segment_name};
use crate::agent::Site;
use crate::types::{Lsn, Timeline};

/// A page header lies between the place of a switch and the first record behind it, at the most.
const HEADER: u64 = 40;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Local {
    Empty,
    /// It is not PostgreSQL's, or of another version: nothing that may be written over.
    Foreign(String),
    /// It was a data directory of this version.
    Damaged(String),
    Data(Control),
}

/// A record of the log, as `pg_waldump` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Record {
    at: Lsn,
    bytes: u64,
    is_switch: bool,
    is_commit: bool,
}

pub async fn look(site: &Site) -> Local {
    let mut names = match fs::read_dir(&site.data_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Local::Empty,
        Err(error) => return Local::Foreign(format!("{} cannot be read: {error}", site.data_dir.display())),
        Ok(entries) => entries.flatten().map(|entry| entry.file_name()).collect::<BTreeSet<_>>(),
    };
    // What a new file system has in it, and what an interrupted repair leaves.
    names.retain(|name| name != "lost+found" && !name.to_string_lossy().starts_with(super::swap::PREFIX));
    if names.is_empty() {
        return Local::Empty;
    }
    let Ok(version) = fs::read_to_string(site.data("PG_VERSION")) else {
        let dir = site.data_dir.display();
        return Local::Foreign(format!("{dir} is not empty, and has no data of PostgreSQL's in it (PG_VERSION)"));
    };
    if version.trim() != site.bin.version().to_string() {
        let (dir, wanted) = (site.data_dir.display(), site.bin.version());
        return Local::Foreign(format!("{dir} has data of PostgreSQL {}, not {wanted}, in it", version.trim()));
    }
    let mut command = program::command(site, "pg_controldata");
    command.arg(&site.data_dir);
    let read = program::output(command, "pg_controldata").await;
    match read.map_err(|error| error.reason).and_then(|text| Control::parse(&text)) {
        Ok(control) => Local::Data(control),
        Err(reason) => Local::Damaged(reason),
    }
}

/// The log of a server that is stopped, up to the last record that is whole. It may go on over timelines that it received and
/// has not replayed.
pub async fn log(site: &Site, control: &Control) -> Result<Vec<Stretch>, String> {
    if is_fresh(site) {
        return Err("a restore from a backup was begun there and not finished (backup_label)".into());
    }
    let histories = histories(site);
    let history = |timeline: Timeline| histories.get(&timeline).map_or("", String::as_str);
    let mut timeline = control.timeline;
    let (_, mut end) = scan(site, control, timeline, control.checkpoint, |_| ()).await?;
    for (next, history) in histories.iter().filter(|(next, _)| **next > control.timeline) {
        let Ok(stretches) = chain(*next, history, Lsn(0)) else { continue };
        let Some(last) = stretches.last().filter(|last| last.from >= control.checkpoint && last.from <= end) else {
            continue;
        };
        if !stretches.iter().any(|stretch| stretch.timeline == timeline && stretch.to == last.from) {
            continue;
        }
        // Its history may have come without any of its log.
        if let Ok((first, to)) = scan(site, control, *next, last.from, |_| ()).await
            && first.0 - last.from.0 <= HEADER
        {
            (timeline, end) = (*next, to);
        }
    }
    if control.needs_timeline == timeline {
        end = end.max(control.needs);
    }
    chain(timeline, history(timeline), end)
}

/// How many transactions were committed in this part of the log.
pub async fn commits(site: &Site, control: &Control, stretches: &[Stretch], from: Lsn) -> Result<u64, String> {
    let mut count = 0;
    for stretch in stretches.iter().filter(|stretch| stretch.to > from && stretch.to > stretch.from) {
        let begin = from.max(stretch.from);
        let found = scan(site, control, stretch.timeline, begin, |record| {
            count += u64::from(record.is_commit && record.at >= begin && record.at < stretch.to);
        });
        found.await?;
    }
    Ok(count)
}

/// The files of this part of the log that are there.
pub fn segments(control: &Control, stretches: &[Stretch], from: Lsn) -> Vec<String> {
    let mut names = Vec::new();
    for stretch in stretches.iter().filter(|stretch| stretch.to > from) {
        let begin = from.max(stretch.from).0 / control.segment_bytes;
        let end = (stretch.to.0 - 1) / control.segment_bytes;
        let all = (begin..=end).map(|number| segment_name(stretch.timeline, number, control.segment_bytes));
        names.extend(all);
    }
    names
}

/// Reads from there to the end of what is valid on that timeline: where the first record is, and where the last one ends.
async fn scan(
    site: &Site,
    control: &Control,
    timeline: Timeline,
    from: Lsn,
    mut each: impl FnMut(Record),
) -> Result<(Lsn, Lsn), String> {
    let mut command = program::command(site, "pg_waldump");
    command.arg("-p").arg(site.data("pg_wal")).arg("-t").arg(timeline.0.to_string()).args(["-s", &from.to_string()]);
    let (mut first, mut end) = (None, None);
    let says = |line: &str| {
        let Some(record) = parse_record(line) else { return };
        each(record);
        first.get_or_insert(record.at);
        let to = end_of_record(record.at, record.bytes, control.page_bytes, control.segment_bytes);
        // What follows a switch is in the next file.
        end = Some(if record.is_switch { Lsn(to.0.next_multiple_of(control.segment_bytes)) } else { to });
    };
    // It complains of the end of the log, wherever that is.
    let ended = program::run(command, "pg_waldump", says, |_| false).await.map_err(|error| error.reason)?;
    first.zip(end).ok_or_else(|| format!("its log cannot be read from {from} on: {}", ended.complaint))
}

fn histories(site: &Site) -> BTreeMap<Timeline, String> {
    let Ok(entries) = fs::read_dir(site.data("pg_wal")) else { return BTreeMap::new() };
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let timeline = u32::from_str_radix(name.to_str()?.strip_suffix(".history")?, 16).ok()?;
        Some((Timeline(timeline), fs::read_to_string(entry.path()).ok()?))
    };
    entries.flatten().filter_map(read).collect()
}

/// `rmgr: Transaction len (rec/tot):     34/    34, tx:        733, lsn: 0/0149B1E8, prev 0/0149B1B0, desc: COMMIT …`
fn parse_record(line: &str) -> Option<Record> {
    let (head, description) = line.split_once(", desc: ")?;
    let (rmgr, rest) = head.strip_prefix("rmgr: ")?.split_once(' ')?;
    let total = rest.split_once('/')?.1.split_once('/')?.1.split_once(',')?.0;
    let at = rest.split_once("lsn: ")?.1.split_once(',')?.0;
    let word = description.split_whitespace().next().unwrap_or_default();
    Some(Record {
        at: at.trim().parse().ok()?,
        bytes: total.trim().parse().ok()?,
        is_switch: rmgr == "XLOG" && word == "SWITCH",
        is_commit: rmgr == "Transaction" && matches!(word, "COMMIT" | "COMMIT_PREPARED"),
    })
}

/// It was copied or rewound, and has not been started since.
pub fn is_fresh(site: &Site) -> bool {
    site.data("backup_label").exists()
}

/// It would start as a standby.
pub fn is_standby(site: &Site) -> bool {
    site.data("standby.signal").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_pg_waldump_prints_them() {
        let line = "rmgr: Transaction len (rec/tot):     34/  8234, tx:        733, lsn: 0/0149B1E8, prev 0/0149B1B0, \
                    desc: COMMIT 2026-01-01 00:00:00.000000 UTC";
        let commit = Record { at: Lsn(0x149_B1E8), bytes: 8234, is_switch: false, is_commit: true };
        assert_eq!(parse_record(line), Some(commit));
        let line = "rmgr: XLOG        len (rec/tot):     24/    24, tx:          0, lsn: 1/030001B8, prev 1/03000180, desc: SWITCH ";
        let switch = Record { at: Lsn(0x1_0300_01B8), bytes: 24, is_switch: true, is_commit: false };
        assert_eq!(parse_record(line), Some(switch));
        for other in ["", "first record is after 0/3000000, at 0/3000028, skipping over 40 bytes", "rmgr: x, desc: y"] {
            assert_eq!(parse_record(other), None);
        }
        assert!(!parse_record(&line.replace("SWITCH", "ABORT")).unwrap().is_commit);
    }
}
