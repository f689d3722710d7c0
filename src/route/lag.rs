//! How far a replica is behind, in bytes and in time, measured against where the primary was when.
//!
//! A replica's own `now() - pg_last_xact_replay_timestamp()` grows without end while the primary is idle and depends on
//! two machines' clocks. Instead the proxy remembers at which of its own moments the primary was at which position; a
//! replica that has replayed that position has everything up to that moment.

use std::collections::VecDeque;

use crate::types::{Lsn, Millis, Timeline};

/// How far a replica is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lag {
    pub bytes: u64,
    /// Never less than it is; more by the distance of two samples at most.
    pub time: Millis,
}

/// The youngest samples are all kept: at 100 a second, the last 5 seconds.
const FINE: usize = 512;
/// Older ones only this far apart, so that few of them reach back more than ten minutes.
const COARSE_STEP: u64 = 400;
/// 1536 × 400 ms are 614 s.
const COARSE: usize = 1536;

/// Where the primary was when, for the last ten minutes and more.
#[derive(Clone, Debug, Default)]
pub struct LagRing {
    timeline: Timeline,
    /// Both by time and position, oldest first; all of `coarse` is older than all of `fine`.
    coarse: VecDeque<Sample>,
    fine: VecDeque<Sample>,
}

/// The primary was at `lsn` from `first` to `last`; an idle primary needs no more than one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    first: Millis,
    last: Millis,
    lsn: Lsn,
}

impl LagRing {
    /// The primary was asked at `now`, and said it is on `timeline` at `lsn`.
    ///
    /// `now` is when the question was sent rather than when the answer came: so lag is never understated.
    pub fn push(&mut self, now: Millis, timeline: Timeline, lsn: Lsn) {
        if timeline != self.timeline {
            *self = LagRing { timeline, ..LagRing::default() };
        }
        if let Some(newest) = self.fine.back_mut() {
            // The answer to an earlier question has come later than that to this one.
            if now < newest.last {
                return;
            }
            if lsn == newest.lsn {
                newest.last = now;
                return;
            }
            if lsn < newest.lsn {
                self.go_back_to(lsn);
            }
        }
        // After going back, the primary can be where it once was before.
        match self.fine.back_mut().or(self.coarse.back_mut()) {
            Some(same) if same.lsn == lsn => same.last = now,
            _ => self.fine.push_back(Sample { first: now, last: now, lsn }),
        }
        if self.fine.len() > FINE {
            self.thin();
        }
    }

    /// A primary that crashed comes back without the log it had not yet written to disk. What lies beyond will never be
    /// replayed by anybody as it was.
    fn go_back_to(&mut self, lsn: Lsn) {
        for samples in [&mut self.fine, &mut self.coarse] {
            samples.truncate(samples.partition_point(|sample| sample.lsn <= lsn));
        }
    }

    fn thin(&mut self) {
        let Some(leaving) = self.fine.pop_front() else { return };
        let is_far = self.coarse.back().is_none_or(|kept| leaving.last.0 - kept.last.0 >= COARSE_STEP);
        if is_far {
            self.coarse.push_back(leaving);
        }
        if self.coarse.len() > COARSE {
            self.coarse.pop_front();
        }
    }

    /// The latest that is known of the primary: when it was there last, its timeline and position.
    pub fn newest(&self) -> Option<(Millis, Timeline, Lsn)> {
        let newest = self.fine.back().or(self.coarse.back())?;
        Some((newest.last, self.timeline, newest.lsn))
    }

    /// How far a replica is behind that is on `timeline` and has replayed up to `replayed`.
    ///
    /// Nothing, if it has all that the primary had when it was last heard of, however long ago that is; so too while
    /// nothing is known of the primary. A replica on another timeline, or behind everything remembered, lags at least as
    /// long as the memory reaches back.
    pub fn lag(&self, now: Millis, timeline: Timeline, replayed: Lsn) -> Lag {
        let Some((_, _, newest)) = self.newest() else { return Lag::default() };
        let bytes = newest.0.saturating_sub(replayed.0);
        let since = |moment: Millis| Millis(now.0.saturating_sub(moment.0));
        if timeline == self.timeline {
            if bytes == 0 {
                return Lag::default();
            }
            if let Some(seen) = [&self.fine, &self.coarse].into_iter().find_map(|kept| last_within(kept, replayed)) {
                return Lag { bytes, time: since(seen.last) };
            }
        }
        let oldest = self.coarse.front().or(self.fine.front());
        Lag { bytes, time: oldest.map_or(Millis(0), |sample| since(sample.first)) }
    }
}

/// The last of the samples whose position has been replayed.
fn last_within(samples: &VecDeque<Sample>, replayed: Lsn) -> Option<&Sample> {
    samples.get(samples.partition_point(|sample| sample.lsn <= replayed).checked_sub(1)?)
}
