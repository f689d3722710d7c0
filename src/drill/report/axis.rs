//! The time axis of a run's chart, and what clients saw brought to so many steps that it can be drawn.
//!
//! Zero is the first fault, so that the same scenario with pgbaton and without lies on one axis, the faults on top of each other.

use crate::drill::outcome::{MarkKind, Run, Slice};

/// Steps of a chart at most. More than there are pixels only makes the page heavy.
pub const STEPS: usize = 480;

/// Marks of the time axis at most.
const TICKS: u64 = 12;

/// From where to where, in milliseconds since the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    pub from: i64,
    pub to: i64,
}

/// When the run's first fault was, since its load began; 0 without one.
pub fn origin(run: &Run) -> u64 {
    run.marks.iter().filter(|mark| mark.kind == MarkKind::Fault).map(|mark| mark.at).min().unwrap_or(0)
}

/// Of some time within a run, when it was since the fault.
pub fn since(at: u64, origin: u64) -> i64 {
    at.min(i64::MAX as u64) as i64 - origin.min(i64::MAX as u64) as i64
}

impl Axis {
    /// That all of these runs have room on.
    pub fn of<'r>(runs: impl Iterator<Item = &'r Run>) -> Axis {
        let (mut from, mut to) = (0, 1000);
        for run in runs {
            let origin = origin(run);
            let slices = run.slices.last().map_or(0, |slice| slice.at.saturating_add(Slice::WIDTH));
            let end = run.marks.iter().map(|mark| mark.at).max().unwrap_or(0).max(slices);
            from = from.min(since(0, origin));
            to = to.max(since(end, origin));
        }
        Axis { from, to }
    }

    /// Where a time lies, from 0 to 1.
    pub fn part(&self, at: i64) -> f64 {
        ((at as f64 - self.from as f64) / (self.to as f64 - self.from as f64)).clamp(0.0, 1.0)
    }

    /// Round times, in milliseconds.
    pub fn ticks(&self) -> Vec<i64> {
        let length = self.to.abs_diff(self.from);
        let round =
            [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000];
        let step = round.into_iter().find(|step| length / step <= TICKS).unwrap_or(length / TICKS + 1) as i64;
        let first = self.from.div_euclid(step) + i64::from(self.from.rem_euclid(step) != 0);
        (first..=self.to.div_euclid(step)).map(|number| number * step).collect()
    }
}

/// One or more slices as they are drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// In milliseconds since the fault.
    pub from: i64,
    pub to: i64,
    /// In [`Slice::WIDTH`], on average.
    pub writes: f64,
    pub reads: f64,
    /// All of them.
    pub errors: u64,
    pub write_median: Option<u64>,
    pub write_max: Option<u64>,
    pub read_median: Option<u64>,
    pub read_max: Option<u64>,
}

/// All slices of a run, so many of them taken together that there are no more than [`STEPS`].
pub fn steps(run: &Run) -> Vec<Step> {
    let origin = origin(run);
    let together = run.slices.len().div_ceil(STEPS).max(1);
    let step = |slices: &[Slice]| {
        let mean =
            |of: fn(&Slice) -> u32| slices.iter().map(|slice| f64::from(of(slice))).sum::<f64>() / slices.len() as f64;
        let greatest = |of: fn(&Slice) -> Option<u64>| slices.iter().filter_map(of).max();
        // Of medians the median: not that of all, but between the least and the greatest of them, as that is.
        let middle =
            |of: fn(&Slice) -> Option<u64>| crate::drill::words::median(slices.iter().filter_map(of).collect());
        Step {
            from: slices.first().map_or(0, |slice| since(slice.at, origin)),
            to: slices.last().map_or(0, |slice| since(slice.at.saturating_add(Slice::WIDTH), origin)),
            writes: mean(|slice| slice.writes),
            reads: mean(|slice| slice.reads),
            errors: slices.iter().map(|slice| u64::from(slice.errors)).sum(),
            write_median: middle(|slice| slice.write_median),
            write_max: greatest(|slice| slice.write_max),
            read_median: middle(|slice| slice.read_median),
            read_max: greatest(|slice| slice.read_max),
        }
    };
    run.slices.chunks(together).map(step).collect()
}

/// Where nothing was written (or read) for at least so many steps in a row after the fault, the longest such time.
pub fn longest_silence(steps: &[Step], of: fn(&Step) -> f64) -> Option<(i64, i64)> {
    const LEAST: usize = 3;
    let mut longest: Option<(i64, i64)> = None;
    for silent in steps.chunk_by(|one, other| (of(one) == 0.0) == (of(other) == 0.0)) {
        let [first, .., last] = silent else { continue };
        let is_longer = longest.is_none_or(|(from, to)| last.to - first.from > to - from);
        if of(first) == 0.0 && silent.len() >= LEAST && last.to > 0 && is_longer {
            longest = Some((first.from, last.to));
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(Axis { from: -2100, to: 5300 }.ticks(), [-2000, -1000, 0, 1000, 2000, 3000, 4000, 5000]);
        assert_eq!(Axis { from: 0, to: 1000 }.ticks().len(), 11);
        assert!(Axis { from: -1, to: i64::MAX / 2 }.ticks().len() <= 14);
    }

    #[test]
    fn a_silence_is_the_longest_after_the_fault() {
        let step = |from: i64, writes: f64| Step { from, to: from + 100, writes, ..Step::default() };
        let writes = [0.0, 0.0, 0.0, 0.0, 5.0, 5.0, 0.0, 0.0, 0.0, 7.0];
        let steps: Vec<Step> =
            writes.iter().enumerate().map(|(at, writes)| step(at as i64 * 100 - 500, *writes)).collect();
        assert_eq!(longest_silence(&steps, |step| step.writes), Some((100, 400)));
        assert_eq!(longest_silence(&steps[..8], |step| step.writes), None, "before the fault, and too short");
    }
}
