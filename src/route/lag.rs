//! How far a replica is behind, in bytes and in time, measured against where the primary was when.
//!
//! A replica's own `now() - pg_last_xact_replay_timestamp()` grows without end while the primary is idle and depends on
//! two machines' clocks. Instead the proxy remembers at which of its own moments the primary was at which position; a
//! replica that has replayed that position has everything up to that moment.

use std::collections::VecDeque;

use crate::telemetry::metric::Metric;
use crate::types::{Lsn, Millis, Timeline};

pub const LAG_BYTES: Metric = Metric::gauge(
    "pgbaton_replica_lag_bytes",
    "WAL that the primary has written and the replica has not replayed; absent while not known.",
)
.unit("bytes")
.labels(&["node"]);
pub const LAG_SECONDS: Metric = Metric::gauge(
    "pgbaton_replica_lag_seconds",
    "How long ago the primary was where the replica is; absent while not known.",
)
.unit("seconds")
.labels(&["node"]);

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
    /// `now` is when the question was sent rather than when the answer came: so lag is never understated. `lsn` is one that
    /// replicas can reach while the primary is idle: at rest in the sense of [`super::eligible::settle`], and flushed
    /// (`pg_current_wal_flush_lsn()`), since what is not flushed is not sent to anybody.
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
        // After going back, the primary can be exactly where it was seen before.
        match self.fine.back_mut() {
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
        // The newest sample is always among the fine ones.
        if self.fine.is_empty() {
            self.fine.extend(self.coarse.pop_back());
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
        let newest = self.fine.back()?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: Timeline = Timeline(1);

    /// Remembers everything, and looks through all of it.
    #[derive(Default)]
    struct Naive {
        timeline: Timeline,
        samples: Vec<(u64, u64)>,
    }

    impl Naive {
        fn push(&mut self, now: u64, timeline: Timeline, lsn: u64) {
            if self.timeline != timeline {
                (self.timeline, self.samples) = (timeline, Vec::new());
            }
            if self.samples.iter().any(|(time, _)| *time > now) {
                return;
            }
            self.samples.retain(|(_, at)| *at <= lsn);
            self.samples.push((now, lsn));
        }

        fn lag(&self, now: u64, timeline: Timeline, replayed: u64) -> Lag {
            let Some((_, newest)) = self.samples.last() else { return Lag::default() };
            let bytes = newest.saturating_sub(replayed);
            let seen = self.samples.iter().rfind(|(_, lsn)| timeline == self.timeline && *lsn <= replayed);
            let time = match seen {
                Some((_, lsn)) if lsn == newest => 0,
                Some((time, _)) => now - time,
                None => now - self.samples[0].0,
            };
            Lag { bytes, time: Millis(time) }
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// After so many milliseconds, the primary has written so much.
        Sample {
            later: u64,
            written: u64,
        },
        /// An answer to a question of so many milliseconds ago.
        Late {
            ago: u64,
            written: u64,
        },
        Crash {
            lost: u64,
        },
        Promotion,
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            12 => (0u64..500, prop_oneof![Just(0u64), 1u64..100]).prop_map(|(later, written)| Event::Sample { later, written }),
            1 => (1u64..500, 0u64..100).prop_map(|(ago, written)| Event::Late { ago, written }),
            1 => (0u64..300).prop_map(|lost| Event::Crash { lost }),
            1 => Just(Event::Promotion),
        ]
    }

    proptest! {
        #[test]
        fn it_says_what_a_perfect_memory_would(
            events in proptest::collection::vec(any_event(), 0..400), probes in proptest::collection::vec(0u64..20_000, 20),
        ) {
            let (mut ring, mut naive) = (LagRing::default(), Naive::default());
            let (mut now, mut timeline, mut lsn) = (1_000, ONE, 5_000);
            for event in events {
                let mut asked = now;
                match event {
                    Event::Sample { later, written } => {
                        now += later;
                        (asked, lsn) = (now, lsn + written);
                    }
                    Event::Late { ago, written } => (asked, lsn) = (now - ago, lsn + written),
                    Event::Crash { lost } => lsn -= lost.min(lsn),
                    Event::Promotion => timeline = Timeline(timeline.0 + 1),
                }
                ring.push(Millis(asked), timeline, Lsn(lsn));
                naive.push(asked, timeline, lsn);
            }
            now += 7;
            for replayed in probes.into_iter().chain([lsn, lsn - 1.min(lsn), lsn + 1, lsn / 2, 0, u64::MAX]) {
                for of in [timeline, Timeline(0)] {
                    let found = ring.lag(Millis(now), of, Lsn(replayed));
                    prop_assert_eq!(found, naive.lag(now, of, replayed), "at {} on {:?}", replayed, of);
                }
            }
        }

        #[test]
        fn thinning_overstates_by_less_than_a_second_and_never_understates(
            step in 10u64..=250, jitter in proptest::collection::vec(0u64..5, 16), back in 0u64..600_000,
        ) {
            let (mut ring, mut naive) = (LagRing::default(), Naive::default());
            let (mut now, mut lsn) = (0, 1);
            while now < 700_000 {
                now += step + jitter[now as usize % 16];
                lsn += 100;
                ring.push(Millis(now), ONE, Lsn(lsn));
                naive.samples.push((now, lsn));
            }
            naive.timeline = ONE;
            prop_assert!(ring.fine.len() + ring.coarse.len() <= FINE + COARSE);
            let (_, replayed) = naive.samples[naive.samples.partition_point(|(time, _)| *time < now - back)];
            let (found, exact) = (ring.lag(Millis(now), ONE, Lsn(replayed)), naive.lag(now, ONE, replayed));
            prop_assert_eq!(found.bytes, exact.bytes);
            prop_assert!(found.time >= exact.time && found.time.0 <= exact.time.0 + 700, "{found:?}, not {exact:?}");
            let nothing = ring.lag(Millis(now), ONE, Lsn(0));
            prop_assert!(nothing.time.0 >= 600_000, "reaches back only {nothing:?}");
        }
    }

    fn ring(samples: &[(u64, u64)]) -> LagRing {
        let mut ring = LagRing::default();
        samples.iter().for_each(|(now, lsn)| ring.push(Millis(*now), ONE, Lsn(*lsn)));
        ring
    }

    fn lag(ring: &LagRing, now: u64, replayed: u64) -> (u64, u64) {
        let lag = ring.lag(Millis(now), ONE, Lsn(replayed));
        (lag.bytes, lag.time.0)
    }

    #[test]
    fn a_replica_that_has_everything_does_not_lag_however_long_the_primary_is_idle() {
        let ring = ring(&[(0, 10), (100, 20), (200, 20), (60_000, 20)]);
        assert_eq!(lag(&ring, 3_600_000, 20), (0, 0));
        assert_eq!(lag(&ring, 3_600_000, 21), (0, 0));
        assert_eq!(lag(&ring, 60_001, 19), (1, 60_001));
    }

    #[test]
    fn the_first_write_after_idleness_does_not_make_lag_of_the_idle_time() {
        let ring = ring(&[(0, 20), (60_000, 20), (60_250, 30)]);
        assert_eq!(lag(&ring, 60_260, 20), (10, 260));
    }

    #[test]
    fn an_idle_primary_takes_no_room() {
        let samples: Vec<(u64, u64)> = (0..100_000).map(|at| (at * 10, 5)).collect();
        assert_eq!(ring(&samples).fine.len(), 1);
    }

    #[test]
    fn a_new_timeline_forgets_the_old_one() {
        let mut ring = ring(&[(0, 10), (100, 20)]);
        ring.push(Millis(200), Timeline(2), Lsn(15));
        assert_eq!(ring.newest(), Some((Millis(200), Timeline(2), Lsn(15))));
        let of = |timeline, replayed| ring.lag(Millis(300), timeline, Lsn(replayed));
        assert_eq!(of(ONE, 15), Lag { bytes: 0, time: Millis(100) }, "the same number means something else there");
        assert_eq!(of(Timeline(2), 15), Lag::default());
    }

    #[test]
    fn going_back_to_where_it_was_before_does_not_shorten_the_memory() {
        let ring = ring(&[(100, 10), (200, 20), (300, 10)]);
        assert_eq!(lag(&ring, 400, 10), (0, 0));
        assert_eq!(lag(&ring, 400, 9), (1, 300));
    }

    #[test]
    fn a_primary_that_lost_all_of_the_fine_samples_is_followed_on() {
        let mut ring = ring(&(0..2_000).map(|at| (at * 10, at)).collect::<Vec<_>>());
        let lost = ring.coarse[10].lsn;
        ring.push(Millis(30_000), ONE, lost);
        assert_eq!(ring.newest(), Some((Millis(30_000), ONE, lost)));
        ring.push(Millis(29_000), ONE, Lsn(5));
        assert_eq!(ring.newest(), Some((Millis(30_000), ONE, lost)), "an old answer is no news");
        ring.push(Millis(31_000), ONE, Lsn(0));
        assert_eq!(ring.newest(), Some((Millis(31_000), ONE, Lsn(0))));
        assert_eq!(ring.fine.len() + ring.coarse.len(), 1);
    }

    #[test]
    fn before_anything_is_known_nobody_lags() {
        assert_eq!(lag(&LagRing::default(), 5, 0), (0, 0));
        assert_eq!(LagRing::default().newest(), None);
    }
}
