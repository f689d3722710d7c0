//! What a log comes to in numbers: figures for the table, slices for the picture.

use std::collections::BTreeMap;
use std::time::Duration;

use super::checker::Verdict;
use super::load::{Log, Outcome};
use super::outcome::{Figures, Slice};

/// What a client notes of a write that it undid itself: nothing has gone wrong with it.
const CHANGED_ITS_MIND: &str = "ROLLBACK";

/// What can be seen from outside; what the brain alone knows (`detection`, `phases`, `known_lost_bytes`) is left open. `fault`:
/// when it happened, on the load's clock.
pub fn figures(log: &Log, verdict: &Verdict, fault: Duration) -> Figures {
    let after = log.writes.iter().filter(|write| write.sent >= fault && write.outcome == Outcome::Acknowledged);
    let first_write = after.map(|write| write.done).min();
    let gap = |gap: Duration| (!gap.is_zero()).then(|| ms(gap));
    let mut failed: BTreeMap<String, u64> = BTreeMap::new();
    for (why, count) in verdict.failed.iter().filter(|(why, _)| *why != CHANGED_ITS_MIND) {
        // "40001 before COMMIT" is a 40001.
        let code = why.split(' ').next().unwrap_or(why);
        *failed.entry(code.to_owned()).or_default() += *count as u64;
    }
    Figures {
        first_write: first_write.map(|done| ms(done.saturating_sub(fault))),
        write_gap: gap(log.write_gap(fault)),
        read_gap: gap(log.read_gap(fault)),
        acknowledged: verdict.acknowledged as u64,
        failed,
        other_errors: log.other_errors.iter().map(|(code, count)| (code.clone(), *count as u64)).collect(),
        dropped: verdict.dropped() as u64,
        lost: verdict.lost.len() as u64,
        unknown: verdict.unknown() as u64,
        stale: verdict.stale.len() as u64,
        wrong: (verdict.wrong() - verdict.stale.len()) as u64,
        ..Figures::default()
    }
}

/// From the beginning of the load to the last thing anybody heard, without a hole.
pub fn slices(log: &Log) -> Vec<Slice> {
    let mut slices: Vec<Slice> = Vec::new();
    let mut latencies: Vec<[Vec<u64>; 2]> = Vec::new();
    let mut at = |moment: Duration| {
        let index = usize::try_from(ms(moment) / Slice::WIDTH).unwrap_or_default();
        while slices.len() <= index {
            slices.push(Slice { at: slices.len() as u64 * Slice::WIDTH, ..Slice::default() });
        }
        index
    };
    let writes: Vec<usize> = log.writes.iter().map(|write| at(write.done)).collect();
    let reads: Vec<usize> = log.reads.iter().map(|read| at(read.done)).collect();
    let ends = log.errors.iter().chain(log.dropped.iter().map(|dropped| &dropped.at));
    let errors: Vec<usize> = ends.map(|moment| at(*moment)).collect();
    latencies.resize_with(slices.len(), Default::default);
    for (write, index) in log.writes.iter().zip(writes) {
        if write.outcome == Outcome::Acknowledged {
            slices[index].writes += 1;
            latencies[index][0].push(us(write.waited));
        }
    }
    for (read, index) in log.reads.iter().zip(reads) {
        slices[index].reads += 1;
        latencies[index][1].push(us(read.done.saturating_sub(read.sent)));
    }
    for index in errors {
        slices[index].errors += 1;
    }
    for (slice, [mut writes, mut reads]) in slices.iter_mut().zip(latencies) {
        (slice.write_median, slice.write_max) = median_and_max(&mut writes);
        (slice.read_median, slice.read_max) = median_and_max(&mut reads);
    }
    slices
}

fn median_and_max(values: &mut [u64]) -> (Option<u64>, Option<u64>) {
    values.sort_unstable();
    (values.get(values.len() / 2).copied(), values.last().copied())
}

pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::load::{Read, Write};

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn write(sent: u64, done: u64, outcome: Outcome) -> Write {
        Write { id: done, sent: at(sent), done: at(done), waited: at(done - sent), outcome }
    }

    #[test]
    fn slices_have_no_holes_and_each_counts_what_ended_in_it() {
        let writes = vec![
            write(10, 20, Outcome::Acknowledged),
            write(10, 90, Outcome::Acknowledged),
            write(90, 310, Outcome::Failed("40001".into())),
            write(310, 320, Outcome::Acknowledged),
        ];
        let reads = vec![Read { sent: at(5), done: at(7) }];
        let log = Log { writes, reads, errors: vec![at(310)], ..Log::default() };
        let slices = slices(&log);
        assert_eq!(slices.iter().map(|slice| slice.at).collect::<Vec<_>>(), [0, 100, 200, 300]);
        assert_eq!(slices.iter().map(|slice| slice.writes).collect::<Vec<_>>(), [2, 0, 0, 1]);
        assert_eq!((slices[0].write_median, slices[0].write_max), (Some(80_000), Some(80_000)));
        assert_eq!((slices[0].reads, slices[0].read_median, slices[1].read_median), (1, Some(2000), None));
        assert_eq!((slices[3].errors, slices[0].errors), (1, 0));
    }

    #[test]
    fn what_a_client_undid_itself_is_no_failure() {
        let writes = vec![
            write(10, 20, Outcome::Acknowledged),
            write(30, 40, Outcome::Failed("ROLLBACK".into())),
            write(30, 41, Outcome::Failed("40001 before COMMIT".into())),
            write(30, 42, Outcome::Failed("40001".into())),
            write(90, 500, Outcome::Acknowledged),
        ];
        let log = Log { writes, ..Log::default() };
        let tables = crate::drill::checker::Tables { ids: [(20, 1), (500, 1)].into(), sum: 10_000 };
        let figures = figures(&log, &crate::drill::checker::judge(&log, &tables), at(60));
        assert_eq!(figures.failed, [("40001".to_owned(), 2)].into());
        assert_eq!((figures.first_write, figures.write_gap, figures.acknowledged), (Some(440), Some(440), 2));
    }
}
