//! What a history amounts to, told by example and by what has to hold for any history.

use proptest::prelude::*;

use super::*;
use crate::types::{Durability, Epoch, NodeId, Timeline};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn change(kind: &'static str, closed_at: u64, opened_at: u64) -> HistoryEntry {
    HistoryEntry::Epoch(Note {
        epoch: Epoch(closed_at),
        kind: kind.into(),
        cause: format!("{kind} at {closed_at}"),
        from: Some(NodeId::from("n1")),
        to: NodeId::from("n2"),
        timeline: Timeline(2),
        fork_lsn: None,
        durability: Durability::Async,
        phases: Vec::new(),
        rejected: Default::default(),
        known_loss_bytes: 0,
        lost_commits_at_most: None,
        closed_at,
        opened_at,
        by: None,
    })
}

fn outage(from: u64, to: Option<u64>) -> HistoryEntry {
    HistoryEntry::Outage { from, to, reason: format!("outage at {from}") }
}

fn watch(from: u64, to: u64) -> HistoryEntry {
    HistoryEntry::Watch { from, to }
}

#[test]
fn two_failures_in_ten_hours() {
    let entries = [
        watch(0, 10 * HOUR),
        change("failover", HOUR, HOUR + MINUTE),
        change("failover", 5 * HOUR, 5 * HOUR + 5 * MINUTE),
    ];
    let over = Availability::over(&entries, 0, 10 * HOUR);
    let uptime_ms = 10 * HOUR - 6 * MINUTE;
    let expected = Availability {
        from: 0,
        to: 10 * HOUR,
        observed_ms: 10 * HOUR,
        uptime_ms,
        downtime_ms: 6 * MINUTE,
        failures: 2,
        mttf_ms: Some(uptime_ms / 2),
        mttr_ms: Some(3 * MINUTE),
        failure_rate_per_hour: Some(2.0 / 9.9),
        availability: Some(0.99),
        longest: Some(LongestOutage {
            from: 5 * HOUR,
            to: 5 * HOUR + 5 * MINUTE,
            reason: "failover at 18000000".into(),
        }),
    };
    assert_eq!(over, expected);
    let rows: Vec<String> = over.rows().iter().map(|[item, value]| format!("{item}: {value}")).collect();
    assert_eq!(
        rows,
        [
            "window: 10h 0m",
            "observed: 10h 0m",
            "unobserved: 0ms",
            "uptime: 9h 54m",
            "downtime: 6m 0s",
            "availability: 99.0000 %",
            "failures: 2",
            "MTTF: 4h 57m",
            "MTTR: 3m 0s",
            "failure rate: 0.202020 per hour",
            "longest outage: 5m 0s (failover at 18000000)",
        ]
    );
}

#[test]
fn what_was_ordered_is_downtime_and_no_failure() {
    for kind in ["switchover", "command"] {
        let entries = [watch(0, 1000), change(kind, 100, 200)];
        let over = Availability::over(&entries, 0, 1000);
        assert_eq!((over.downtime_ms, over.failures, over.mttf_ms), (100, 0, None), "{kind}");
        assert_eq!(over.availability, Some(0.9));
        assert_eq!((over.failure_rate_per_hour, over.mttr_ms), (Some(0.0), None));
    }
    // The bare outage that an ordered change caused belongs to it; one that a failure takes part in is a failure.
    let ordered = [watch(0, 1000), outage(90, Some(150)), change("switchover", 100, 200)];
    assert_eq!(Availability::over(&ordered, 0, 1000).failures, 0);
    let both = [watch(0, 1000), change("failover", 200, 300), change("switchover", 100, 200)];
    assert_eq!(Availability::over(&both, 0, 1000).failures, 1);
}

#[test]
fn without_failures_there_is_no_mean_time_to_one() {
    let over = Availability::over(&[watch(0, 30 * 24 * HOUR)], 0, 30 * 24 * HOUR);
    assert_eq!((over.failures, over.mttf_ms, over.mttr_ms, over.availability), (0, None, None, Some(1.0)));
    let rows = over.rows();
    assert!(rows.contains(&["MTTF".into(), "none in 30d 0h".into()]), "{rows:?}");
    assert!(rows.contains(&["longest outage".into(), "none".into()]), "{rows:?}");
}

#[test]
fn time_that_nobody_watched_is_neither_up_nor_down() {
    let over = Availability::over(&[watch(0, 100), watch(900, 1000), outage(950, Some(1000))], 0, 1000);
    assert_eq!((over.observed_ms, over.uptime_ms, over.downtime_ms), (200, 150, 50));
    assert_eq!(over.availability, Some(0.75));
    // Both ends of an outage were seen, so pgbaton was away and writes were not taken in between.
    let over = Availability::over(&[watch(0, 100), watch(900, 1000), outage(50, Some(950))], 0, 1000);
    assert_eq!((over.observed_ms, over.downtime_ms), (1000, 900));
    let nothing = Availability::over(&[], 0, 1000);
    assert_eq!((nothing.observed_ms, nothing.availability, nothing.failures), (0, None, 0));
    assert!(nothing.rows().contains(&["availability".into(), "unknown: nobody watched".into()]));
}

#[test]
fn only_what_lies_within_the_window_counts() {
    let entries = [watch(0, 2000), change("failover", 450, 600), change("failover", 1450, 1600)];
    let over = Availability::over(&entries, 500, 1500);
    assert_eq!((over.observed_ms, over.downtime_ms, over.failures), (1000, 150, 2));
    assert_eq!(over.longest.map(|longest| (longest.from, longest.to)), Some((500, 600)));
    assert_eq!(Availability::over(&entries, 600, 1450).failures, 0);
}

#[test]
fn an_outage_that_has_not_ended_lasts_until_now() {
    let entries = [watch(0, 900), outage(400, None)];
    let over = Availability::over(&entries, 0, 1000);
    assert_eq!((over.uptime_ms, over.downtime_ms, over.failures), (400, 600, 1));
}

#[test]
fn outages_that_overlap_or_touch_are_one() {
    let entries = [
        watch(0, 1000),
        outage(300, Some(400)),
        change("failover", 100, 200),
        outage(150, Some(300)),
        outage(5, Some(5)),
    ];
    let over = Availability::over(&entries, 0, 1000);
    assert_eq!((over.downtime_ms, over.failures), (300, 1));
    assert_eq!(over.longest.unwrap().reason, "failover at 100");
}

#[test]
fn the_beginning_of_a_cluster_is_no_outage() {
    let HistoryEntry::Epoch(note) = change("start", 100, 200) else { unreachable!() };
    let first = HistoryEntry::Epoch(Note { from: None, ..note });
    assert_eq!(Availability::over(&[watch(0, 1000), first], 0, 1000).downtime_ms, 0);
}

#[test]
fn a_later_entry_replaces_what_it_says_more_about() {
    let mut history = Vec::new();
    for entry in [
        watch(0, 10),
        outage(5, None),
        watch(0, 20),
        outage(5, Some(15)),
        outage(30, None),
        outage(31, None),
        change("failover", 29, 40),
        watch(50, 60),
        change("failover", 29, 41),
    ] {
        entry.add_to(&mut history);
    }
    assert_eq!(history, [watch(0, 20), outage(5, Some(15)), change("failover", 29, 41), watch(50, 60)]);
}

#[test]
fn an_entry_reads_back_as_it_is_written() {
    for entry in [watch(1, 2), outage(1, None), outage(1, Some(2)), change("failover", 1, 2)] {
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<HistoryEntry>(&text).unwrap(), entry, "{text}");
    }
    let text = serde_json::to_string(&outage(7, None)).unwrap();
    assert_eq!(text, r#"{"what":"outage","from":7,"to":null,"reason":"outage at 7"}"#);
}

#[test]
fn lengths_of_time_are_spelt_in_two_units() {
    let spelt = [0, 999, 1250, 61_000, HOUR + 90_000, 49 * HOUR + MINUTE].map(spell);
    assert_eq!(spelt, ["0ms", "999ms", "1.250s", "1m 1s", "1h 1m", "2d 1h"]);
}

fn entries() -> impl Strategy<Value = Vec<HistoryEntry>> {
    // Times may run backwards: calendars do.
    let span = || (0..2000_u64, 0..2000_u64);
    let entry = prop_oneof![
        span().prop_map(|(from, to)| watch(from, to)),
        span().prop_map(|(from, to)| change("failover", from, to)),
        span().prop_map(|(from, to)| change("switchover", from, to)),
        (0..2000_u64, proptest::option::of(0..2000_u64)).prop_map(|(from, to)| outage(from, to)),
    ];
    proptest::collection::vec(entry, 0..12)
}

proptest! {
    #[test]
    fn it_agrees_with_counting_every_millisecond(entries in entries(), from in 0..1000_u64, length in 0..1000_u64) {
        let to = from + length;
        let over = Availability::over(&entries, from, to);
        let is_in = |begin: u64, end: u64, at: u64| begin <= at && at < end;
        let is_down = |at: &u64| entries.iter().any(|entry| match entry {
            HistoryEntry::Epoch(note) => is_in(note.closed_at, note.opened_at, *at),
            HistoryEntry::Outage { from, to: end, .. } => is_in(*from, end.unwrap_or(to), *at),
            HistoryEntry::Watch { .. } | HistoryEntry::Repair(_) => false,
        });
        let is_watched = |at: &u64| entries.iter().any(|entry| match entry {
            HistoryEntry::Watch { from, to } => is_in(*from, *to, *at),
            _ => false,
        });
        let down = (from..to).filter(is_down).count() as u64;
        let up = (from..to).filter(|at| !is_down(at) && is_watched(at)).count() as u64;
        prop_assert_eq!((over.downtime_ms, over.uptime_ms, over.observed_ms), (down, up, down + up));
        prop_assert!(over.longest.is_some() == (down > 0));
        // A = MTTF / (MTTF + MTTR) is the same number.
        if let (Some(mttf), Some(mttr), Some(ratio)) = (over.mttf_ms, over.mttr_ms, over.availability) {
            let rounding = 2.0 / (mttf + mttr).max(1) as f64;
            prop_assert!((mttf as f64 / (mttf + mttr).max(1) as f64 - ratio).abs() <= rounding);
            prop_assert_eq!(over.failure_rate_per_hour.is_some(), over.uptime_ms > 0);
        }
        prop_assert_eq!(over.mttf_ms.is_some(), over.failures > 0);
    }

    #[test]
    fn the_order_of_entries_does_not_matter(entries in entries(), from in 0..1000_u64, length in 0..1000_u64) {
        let mut reversed = entries.clone();
        reversed.reverse();
        let figures = |over: Availability| (over.observed_ms, over.uptime_ms, over.downtime_ms, over.failures);
        prop_assert_eq!(
            figures(Availability::over(&entries, from, from + length)),
            figures(Availability::over(&reversed, from, from + length))
        );
    }
}
