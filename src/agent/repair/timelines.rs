//! Where two logs are one, and where one leaves the other: pure, from what history files say.
//!
//! A log is a chain of stretches, each on a timeline of its own
//! (<https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES>).

use crate::types::{Lsn, Timeline};

/// A log that goes on.
pub const OPEN: Lsn = Lsn(u64::MAX);

/// A part of a log, on one timeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    pub timeline: Timeline,
    pub from: Lsn,
    pub to: Lsn,
}

/// How a node's log lies to the primary's, as far as timelines and positions say. The last stretch that both have is to be
/// compared: two promotions can take the same number at the same place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relation {
    pub shared: Stretch,
    /// The node has more than `shared`, up to here.
    pub beyond: Option<Lsn>,
}

/// The chain of a timeline whose history file is this (empty for the first), up to `end`.
pub fn chain(timeline: Timeline, history: &str, end: Lsn) -> Result<Vec<Stretch>, String> {
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut from = Lsn(0);
    for line in history.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let parent = words.next().and_then(|word| word.parse::<u32>().ok()).map(Timeline);
        let switch = words.next().and_then(|word| word.parse::<Lsn>().ok());
        let (Some(parent), Some(switch)) = (parent, switch) else {
            return Err(format!("the history of timeline {} has a line that cannot be read: {line:?}", timeline.0));
        };
        if switch < from || stretches.last().is_some_and(|last| last.timeline >= parent) || parent >= timeline {
            return Err(format!("the history of timeline {} is out of order at {line:?}", timeline.0));
        }
        stretches.push(Stretch { timeline: parent, from, to: switch });
        from = switch;
    }
    if stretches.is_empty() && timeline.0 > 1 {
        return Err(format!("timeline {} has no history", timeline.0));
    }
    stretches.push(Stretch { timeline, from, to: end.max(from) });
    Ok(stretches)
}

/// `None`: they have nothing in common.
pub fn relate(local: &[Stretch], primary: &[Stretch]) -> Option<Relation> {
    let end = local.last()?.to;
    let mut shared: Option<Stretch> = None;
    for (ours, theirs) in local.iter().zip(primary) {
        if (ours.timeline, ours.from) != (theirs.timeline, theirs.from) {
            break;
        }
        let to = ours.to.min(theirs.to);
        // A timeline that was begun and has nothing in it yet proves nothing.
        if to > ours.from {
            shared = Some(Stretch { to, ..*ours });
        }
        if ours.to != theirs.to {
            break;
        }
    }
    let shared = shared?;
    Some(Relation { shared, beyond: (end > shared.to).then_some(end) })
}

/// The file of the log with that position in it.
pub fn segment_name(timeline: Timeline, number: u64, segment_bytes: u64) -> String {
    let per_id = 0x1_0000_0000 / segment_bytes;
    format!("{:08X}{:08X}{:08X}", timeline.0, number / per_id, number % per_id)
}

/// Where the record ends that begins there: every page has a header, the first of a segment a longer one
/// (`src/include/access/xlog_internal.h`), and records begin at multiples of eight.
pub fn end_of_record(begin: Lsn, bytes: u64, page_bytes: u64, segment_bytes: u64) -> Lsn {
    let (mut at, mut left) = (begin.0, bytes);
    loop {
        let room = page_bytes - at % page_bytes;
        if left <= room {
            return Lsn((at + left).next_multiple_of(8));
        }
        left -= room;
        at += room;
        at += if at % segment_bytes == 0 { 40 } else { 24 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(timeline: u32, from: u64, to: u64) -> Stretch {
        Stretch { timeline: Timeline(timeline), from: Lsn(from), to: Lsn(to) }
    }

    #[test]
    fn a_history_file_is_read_as_postgresql_writes_it() {
        let text = "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tno recovery target specified\n";
        assert_eq!(
            chain(Timeline(4), text, OPEN).unwrap(),
            [stretch(1, 0, 0x300_0148), stretch(2, 0x300_0148, 0x500_0000), stretch(4, 0x500_0000, u64::MAX)]
        );
        assert_eq!(chain(Timeline(1), "", Lsn(7)).unwrap(), [stretch(1, 0, 7)]);
        for (timeline, bad) in [(2, ""), (3, "1\n"), (3, "x\t0/1\n"), (2, "2\t0/1\n"), (4, "1\t0/9\n2\t0/3\n")] {
            assert!(chain(Timeline(timeline), bad, OPEN).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_log_that_ends_before_the_fork_is_a_beginning() {
        let primary = [stretch(1, 0, 100), stretch(2, 100, 200), stretch(4, 200, u64::MAX)];
        for (local, shared) in [
            (vec![stretch(1, 0, 80)], stretch(1, 0, 80)),
            (vec![stretch(1, 0, 100)], stretch(1, 0, 100)),
            (vec![stretch(1, 0, 100), stretch(2, 100, 100)], stretch(1, 0, 100)),
            (vec![stretch(1, 0, 100), stretch(2, 100, 150)], stretch(2, 100, 150)),
            (vec![stretch(1, 0, 100), stretch(2, 100, 200), stretch(4, 200, 300)], stretch(4, 200, 300)),
        ] {
            assert_eq!(relate(&local, &primary), Some(Relation { shared, beyond: None }));
        }
    }

    #[test]
    fn a_log_that_goes_on_after_the_fork_has_diverged() {
        let primary = [stretch(1, 0, 100), stretch(2, 100, 200), stretch(4, 200, u64::MAX)];
        for (local, shared) in [
            (vec![stretch(1, 0, 108)], stretch(1, 0, 100)),
            // A promotion of its own, at the same place but not to the same number, or before.
            (vec![stretch(1, 0, 100), stretch(3, 100, 108)], stretch(1, 0, 100)),
            (vec![stretch(1, 0, 90), stretch(2, 90, 108)], stretch(1, 0, 90)),
            // The same number at the same place: the contents have to tell.
            (vec![stretch(1, 0, 100), stretch(2, 100, 208)], stretch(2, 100, 200)),
        ] {
            let beyond = local.last().map(|last| last.to);
            assert_eq!(relate(&local, &primary), Some(Relation { shared, beyond }));
        }
    }

    #[test]
    fn segments_are_named_as_in_pg_wal() {
        let name = segment_name(Timeline(2), 0x1_0000_0005, 16 << 20);
        assert_eq!(name, "000000020100000000000005");
        assert_eq!(segment_name(Timeline(1), 0x17, 1 << 30), "000000010000000500000003");
    }

    #[test]
    fn a_record_ends_behind_the_headers_in_its_way() {
        let end = |begin, bytes| end_of_record(Lsn(begin), bytes, 8192, 16 << 20).0;
        assert_eq!(end(0x100_0028, 114), 0x100_00a0);
        assert_eq!(end(8192 - 16, 16), 8192);
        assert_eq!(end(8192 - 16, 17), 8192 + 24 + 8);
        assert_eq!(end((16 << 20) - 8, 16), (16 << 20) + 40 + 8);
    }
}
