//! Whether a node may serve reads at all, and if not, why: in words for people and in a word for counters.
//!
//! Also whether it is fresh enough for one session: a [`Floor`] is the position a replica must have replayed before that
//! session may read from it.

use std::fmt;

use super::lag::Lag;
use crate::types::{Lsn, Millis, Role, Timeline};

/// What is known of a node when it is asked whether it may serve reads.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'s> {
    /// `Unknown` while it does not answer.
    pub role: Role,
    /// Why it does not answer; empty when it does.
    pub reason: &'s str,
    /// 0 while unknown.
    pub system_identifier: u64,
    pub timeline: Timeline,
    pub lag: Lag,
    /// See [`super::outlier::Outliers`].
    pub ejected_until: Option<Millis>,
    /// `cluster.nodes[].weight`; with 0 it serves no reads.
    pub weight: u32,
    pub is_in_maintenance: bool,
    /// Whether lag was the reason when it was last looked at ([`Ineligible::is_lag`]).
    pub was_lagging: bool,
}

/// What is known of the primary, or was when there last was one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrimaryFacts {
    /// 0 while unknown.
    pub system_identifier: u64,
    pub timeline: Timeline,
}

/// `reads.max_lag` and `reads.max_lag_bytes`: what a replica may be behind and still serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadLimits {
    pub max_lag: Millis,
    pub max_lag_bytes: u64,
}

/// Why a node may not serve reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ineligible {
    Primary,
    /// It is no node of the configuration any more.
    Removed,
    Maintenance,
    NoWeight,
    Down {
        reason: String,
    },
    /// `own` is 0 while it is not known.
    OtherCluster {
        own: u64,
        primary: u64,
    },
    OtherTimeline {
        own: Timeline,
        primary: Timeline,
    },
    Ejected {
        left: Millis,
    },
    /// With `is_returning` it is within the limit, but not yet as far as it has to be to come back.
    LagTime {
        lag: Millis,
        limit: Millis,
        is_returning: bool,
    },
    LagBytes {
        lag: u64,
        limit: u64,
        is_returning: bool,
    },
    /// Not fresh enough for one session.
    Behind {
        timeline: Timeline,
        replayed: Lsn,
        floor: Floor,
    },
}

impl Ineligible {
    /// One fixed word or two, for counters.
    pub fn as_str(&self) -> &'static str {
        match self {
            Ineligible::Primary => "primary",
            Ineligible::Removed => "removed",
            Ineligible::Maintenance => "maintenance",
            Ineligible::NoWeight => "weight 0",
            Ineligible::Down { .. } => "down",
            Ineligible::OtherCluster { .. } => "other cluster",
            Ineligible::OtherTimeline { .. } => "other timeline",
            Ineligible::Ejected { .. } => "ejected",
            Ineligible::LagTime { .. } | Ineligible::LagBytes { .. } => "lag",
            Ineligible::Behind { .. } => "behind",
        }
    }

    pub fn is_lag(&self) -> bool {
        matches!(self, Ineligible::LagTime { .. } | Ineligible::LagBytes { .. })
    }
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ineligible::Primary => f.write_str("is the primary"),
            Ineligible::Removed => f.write_str("was removed from the configuration"),
            Ineligible::Maintenance => f.write_str("is in maintenance"),
            Ineligible::NoWeight => f.write_str("has weight 0 in the configuration"),
            Ineligible::Down { reason } if reason.is_empty() => f.write_str("does not answer"),
            Ineligible::Down { reason } => write!(f, "does not answer: {reason}"),
            Ineligible::OtherCluster { own: 0, .. } => f.write_str("its system identifier is not known"),
            Ineligible::OtherCluster { own, primary } => {
                write!(f, "belongs to another cluster: its system identifier is {own}, the primary's {primary}")
            }
            Ineligible::OtherTimeline { own, primary } => {
                write!(f, "is on timeline {}, the primary on {}", own.0, primary.0)
            }
            Ineligible::Ejected { left } => write!(f, "failed too often, left out for another {}", Time(*left)),
            Ineligible::LagTime { lag, limit, is_returning } => {
                write!(f, "lags {}, ", Time(*lag))?;
                let (own, limit) = (Time(*limit), Time(Millis(returning_limit(limit.0))));
                write_limit(f, "reads.max_lag", &own, is_returning.then_some(&limit))
            }
            Ineligible::LagBytes { lag, limit, is_returning } => {
                write!(f, "lags {}, ", Size(*lag))?;
                let (own, limit) = (Size(*limit), Size(returning_limit(*limit)));
                write_limit(f, "reads.max_lag_bytes", &own, is_returning.then_some(&limit))
            }
            Ineligible::Behind { timeline, replayed, floor } if *timeline == floor.timeline => {
                write!(f, "has replayed up to {replayed}, the session needs {}", floor.lsn)
            }
            Ineligible::Behind { timeline, floor, .. } => {
                write!(f, "is on timeline {}, the session needs {} on {}", timeline.0, floor.lsn, floor.timeline.0)
            }
        }
    }
}

fn write_limit<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    limit: &T,
    returning: Option<&T>,
) -> fmt::Result {
    match returning {
        None => write!(f, "more than {key} = {limit}"),
        Some(lower) => write!(f, "comes back at {lower} (80 % of {key} = {limit})"),
    }
}

/// `850 ms`, `12.4 s`, `10 s`
pub struct Time(pub Millis);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.0 {
            ms if ms < 1000 => write!(f, "{ms} ms"),
            ms if (ms / 100).is_multiple_of(10) => write!(f, "{} s", ms / 1000),
            ms => write!(f, "{}.{} s", ms / 1000, ms / 100 % 10),
        }
    }
}

/// `512 B`, `64 MiB`, `1.5 GiB`
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            bytes if bytes < 1 << 10 => return write!(f, "{bytes} B"),
            bytes if bytes < 1 << 20 => (1u64 << 10, "KiB"),
            bytes if bytes < 1 << 30 => (1 << 20, "MiB"),
            _ => (1 << 30, "GiB"),
        };
        match (self.0 / unit, self.0 % unit * 10 / unit) {
            (whole, 0) => write!(f, "{whole} {name}"),
            (whole, tenth) => write!(f, "{whole}.{tenth} {name}"),
        }
    }
}

/// A replica that is out because it lags comes back when it lags no more than this. Were it the limit itself, one that
/// hovers there would go in and out with each look.
fn returning_limit(limit: u64) -> u64 {
    limit - limit / 5
}

/// Whether a node may serve reads. Without facts of a primary, what would be compared with it is not; so reads that may be
/// stale go on while there is none.
pub fn eligible(
    sight: &Sight<'_>,
    limits: &ReadLimits,
    primary: Option<PrimaryFacts>,
    now: Millis,
) -> Result<(), Ineligible> {
    if sight.role == Role::Primary {
        return Err(Ineligible::Primary);
    }
    if sight.is_in_maintenance {
        return Err(Ineligible::Maintenance);
    }
    if sight.weight == 0 {
        return Err(Ineligible::NoWeight);
    }
    if sight.role == Role::Unknown {
        return Err(Ineligible::Down { reason: sight.reason.to_string() });
    }
    if let Some(primary) = primary {
        if primary.system_identifier != 0 && sight.system_identifier != primary.system_identifier {
            return Err(Ineligible::OtherCluster { own: sight.system_identifier, primary: primary.system_identifier });
        }
        if sight.timeline != primary.timeline {
            return Err(Ineligible::OtherTimeline { own: sight.timeline, primary: primary.timeline });
        }
    }
    if let Some(until) = sight.ejected_until.filter(|until| *until > now) {
        return Err(Ineligible::Ejected { left: Millis(until.0 - now.0) });
    }
    within_limits(sight, limits)
}

fn within_limits(sight: &Sight<'_>, limits: &ReadLimits) -> Result<(), Ineligible> {
    let exceeds = |lag: u64, limit: u64| lag > if sight.was_lagging { returning_limit(limit) } else { limit };
    let (lag, limit) = (sight.lag.time, limits.max_lag);
    if exceeds(lag.0, limit.0) {
        return Err(Ineligible::LagTime { lag, limit, is_returning: lag <= limit });
    }
    let (lag, limit) = (sight.lag.bytes, limits.max_lag_bytes);
    if exceeds(lag, limit) {
        return Err(Ineligible::LagBytes { lag, limit, is_returning: lag <= limit });
    }
    Ok(())
}

/// Where a replica must have come to before a session may read from it, so that the session sees its own writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Floor {
    pub timeline: Timeline,
    pub lsn: Lsn,
}

/// Whether a replica has replayed what the floor asks for. A position on another timeline says nothing: after a promotion
/// the same number stands for other records.
pub fn covers(replica_timeline: Timeline, replayed: Lsn, floor: Floor) -> bool {
    replica_timeline == floor.timeline && replayed >= floor.lsn
}

/// Bytes of a page of the write-ahead log (`XLOG_BLCKSZ`, as PostgreSQL is built everywhere).
const WAL_PAGE: u64 = 8192;
/// `SizeOfXLogShortPHD`: what a page begins with.
const SHORT_HEADER: u64 = 24;
/// `SizeOfXLogLongPHD`: what the first page of a segment begins with.
const LONG_HEADER: u64 = 40;

/// The position that a standby shows when it has replayed everything that was written when the primary said `lsn`.
///
/// `pg_current_wal_insert_lsn()` says where the next record will begin. When the last one ended exactly at the end of a
/// page, that is behind the header of the next page; no record ever ends there. A standby, which says where the last
/// record ended, shows the boundary of the page, and would seem to be behind until something else is written.
/// `wal_segment_size` is a power of two from 1 MiB to 1 GiB.
pub fn settle(lsn: Lsn, wal_segment_size: u64) -> Lsn {
    let within = lsn.0 % WAL_PAGE;
    let page = lsn.0 - within;
    let is_first = page.checked_rem(wal_segment_size) == Some(0);
    let header = if is_first { LONG_HEADER } else { SHORT_HEADER };
    if within == header { Lsn(page) } else { lsn }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: ReadLimits = ReadLimits { max_lag: Millis(10_000), max_lag_bytes: 64 << 20 };
    const PRIMARY: Option<PrimaryFacts> = Some(PrimaryFacts { system_identifier: 77, timeline: Timeline(3) });
    const NOW: Millis = Millis(1_000_000);

    const GOOD: Sight<'static> = Sight {
        role: Role::Replica,
        reason: "",
        system_identifier: 77,
        timeline: Timeline(3),
        lag: Lag { bytes: 0, time: Millis(0) },
        ejected_until: None,
        weight: 1,
        is_in_maintenance: false,
        was_lagging: false,
    };

    fn lagging(ms: u64, bytes: u64) -> Sight<'static> {
        Sight { lag: Lag { bytes, time: Millis(ms) }, ..GOOD }
    }

    fn verdict(sight: Sight<'_>) -> String {
        match eligible(&sight, &LIMITS, PRIMARY, NOW) {
            Ok(()) => "serves".into(),
            Err(why) => format!("{}: {why}", why.as_str()),
        }
    }

    #[test]
    fn each_reason_is_told_with_its_figures() {
        let cases = [
            (GOOD, "serves"),
            (Sight { role: Role::Primary, ..GOOD }, "primary: is the primary"),
            (Sight { is_in_maintenance: true, ..GOOD }, "maintenance: is in maintenance"),
            (Sight { weight: 0, ..GOOD }, "weight 0: has weight 0 in the configuration"),
            (Sight { role: Role::Unknown, ..GOOD }, "down: does not answer"),
            (
                Sight { role: Role::Unknown, reason: "connection refused", ..GOOD },
                "down: does not answer: connection refused",
            ),
            (
                Sight { system_identifier: 78, ..GOOD },
                "other cluster: belongs to another cluster: its system identifier is 78, the primary's 77",
            ),
            (Sight { system_identifier: 0, ..GOOD }, "other cluster: its system identifier is not known"),
            (Sight { timeline: Timeline(2), ..GOOD }, "other timeline: is on timeline 2, the primary on 3"),
            (
                Sight { ejected_until: Some(Millis(NOW.0 + 7_240)), ..GOOD },
                "ejected: failed too often, left out for another 7.2 s",
            ),
            (Sight { ejected_until: Some(NOW), ..GOOD }, "serves"),
            (lagging(10_000, 64 << 20), "serves"),
            (lagging(12_449, 0), "lag: lags 12.4 s, more than reads.max_lag = 10 s"),
            (lagging(0, (64 << 20) + 1), "lag: lags 64 MiB, more than reads.max_lag_bytes = 64 MiB"),
            (lagging(0, 1_700_000_000), "lag: lags 1.5 GiB, more than reads.max_lag_bytes = 64 MiB"),
        ];
        for (sight, expected) in cases {
            assert_eq!(verdict(sight), expected);
        }
    }

    #[test]
    fn a_replica_that_lagged_comes_back_at_four_fifths_of_the_limit() {
        let returning = |ms, bytes| verdict(Sight { was_lagging: true, ..lagging(ms, bytes) });
        assert_eq!(verdict(lagging(9_000, 60 << 20)), "serves", "one that did not lag may go up to the limit");
        assert_eq!(returning(9_000, 0), "lag: lags 9 s, comes back at 8 s (80 % of reads.max_lag = 10 s)");
        assert_eq!(
            returning(0, 60 << 20),
            "lag: lags 60 MiB, comes back at 51.2 MiB (80 % of reads.max_lag_bytes = 64 MiB)"
        );
        assert_eq!(returning(8_000, 50 << 20), "serves");
        assert_eq!(returning(11_000, 0), "lag: lags 11 s, more than reads.max_lag = 10 s");
        // A limit of nothing can still be met.
        let strict = ReadLimits { max_lag: Millis(0), max_lag_bytes: 0 };
        assert_eq!(eligible(&Sight { was_lagging: true, ..GOOD }, &strict, PRIMARY, NOW), Ok(()));
    }

    #[test]
    fn without_a_primary_replicas_go_on() {
        let alone = Sight { timeline: Timeline(2), system_identifier: 5, ..GOOD };
        assert_eq!(eligible(&alone, &LIMITS, None, NOW), Ok(()));
        let unknown = PrimaryFacts { system_identifier: 0, timeline: Timeline(2) };
        assert_eq!(eligible(&alone, &LIMITS, Some(unknown), NOW), Ok(()));
    }

    #[test]
    fn a_floor_counts_on_its_own_timeline() {
        let floor = Floor { timeline: Timeline(3), lsn: "16/B374D848".parse().unwrap() };
        assert!(covers(Timeline(3), floor.lsn, floor));
        assert!(!covers(Timeline(3), Lsn(floor.lsn.0 - 1), floor));
        assert!(!covers(Timeline(4), Lsn(u64::MAX), floor));
        let behind = |timeline| Ineligible::Behind { timeline, replayed: "16/B374D000".parse().unwrap(), floor };
        assert_eq!(behind(Timeline(3)).to_string(), "has replayed up to 16/B374D000, the session needs 16/B374D848");
        assert_eq!(behind(Timeline(2)).to_string(), "is on timeline 2, the session needs 16/B374D848 on 3");
        assert_eq!((behind(Timeline(2)).as_str(), behind(Timeline(2)).is_lag()), ("behind", false));
    }

    #[test]
    fn what_points_behind_the_header_of_a_page_settles_at_its_beginning() {
        const SEGMENT: u64 = 16 << 20;
        let settled = |lsn: &str| settle(lsn.parse().unwrap(), SEGMENT).to_string();
        assert_eq!(settled("0/3002018"), "0/3002000");
        assert_eq!(settled("0/3000028"), "0/3000000", "the first page of a segment has the longer header");
        assert_eq!(settled("0/3000018"), "0/3000018");
        assert_eq!(settled("0/3002028"), "0/3002028");
        assert_eq!(settled("0/3002000"), "0/3002000");
        assert_eq!(settled("0/3002020"), "0/3002020");
        // The same position, with segments of another size.
        assert_eq!(settle(Lsn(0x300028), 1 << 20), Lsn(0x300000));
        assert_eq!(settle(Lsn(0x300028), SEGMENT), Lsn(0x300028));
        assert_eq!(settle(Lsn(0x300018), SEGMENT), Lsn(0x300000));
    }

    proptest! {
        #[test]
        fn settling_changes_only_what_lies_behind_a_header(
            page in 0u64..1 << 20, within in 0u64..8192, megabytes in 0u32..=10,
        ) {
            let (lsn, segment) = (page * 8192 + within, 1u64 << (20 + megabytes));
            let settled = settle(Lsn(lsn), segment).0;
            let header = if page * 8192 % segment == 0 { 40 } else { 24 };
            prop_assert_eq!(settled, if within == header { page * 8192 } else { lsn });
            prop_assert_eq!(settle(Lsn(settled), segment).0, settled);
        }
    }
}
