//! Reports as drills make them, without a drill: good, failed, stuck, skipped, compared.

use std::collections::BTreeMap;

use pgbaton::drill::outcome::{
    Chapter, End, Figures, Judged, Mark, MarkKind, Plan, Promise, Report, Run, Slice, Verdict,
};

pub fn report(runs: Vec<Run>) -> Report {
    Report { version: "0.1.0".into(), postgres: "15.18".into(), began: 1_795_300_000_000, runs }
}

fn mark(at: u64, kind: MarkKind, text: &str) -> Mark {
    Mark { at, kind, text: text.into() }
}

fn chapter(at: u64, epoch: u64, what: &str, reason: &str) -> Chapter {
    Chapter { at: Some(at), epoch: Some(epoch), what: what.into(), reason: reason.into() }
}

pub fn judged(promise: Promise, verdict: Verdict, why: &str) -> Judged {
    Judged { promise, verdict, why: why.into() }
}

/// Of so many, with a gap for writes, and errors at the end of it. Noise is arithmetic, so that a page is the same each time.
pub fn slices(count: u64, gap: std::ops::Range<u64>, errors: u32) -> Vec<Slice> {
    let slice = |number: u64| {
        let at = number * Slice::WIDTH;
        let noise = number.wrapping_mul(2_654_435_761) >> 7;
        let is_down = gap.contains(&at);
        let is_after = gap.end <= at && at < gap.end + Slice::WIDTH;
        let is_any = gap.end > gap.start;
        let writes = if is_down { 0 } else { 60 + (noise % 17) as u32 };
        let reads = 210 + (noise % 60) as u32 - if is_down { 120 } else { 0 };
        let held = (gap.end - gap.start) * 1000;
        Slice {
            at,
            writes,
            reads,
            errors: if is_after && is_any { errors } else { 0 },
            write_median: (!is_down).then_some(900 + noise % 300),
            write_max: (!is_down).then_some(if is_after && is_any { held } else { 4000 + noise % 9000 }),
            read_median: Some(220 + noise % 80),
            read_max: Some(1500 + noise % 4000),
        }
    };
    (0..count).map(slice).collect()
}

fn all_kept() -> Vec<Judged> {
    vec![
        judged(Promise::FreshReads, Verdict::Pass, ""),
        judged(Promise::NothingLost, Verdict::Pass, ""),
        judged(Promise::OnePrimary, Verdict::Pass, ""),
        judged(Promise::StayConnected, Verdict::Pass, ""),
        judged(Promise::HonestAnswers, Verdict::Pass, ""),
        judged(Promise::AsExpected, Verdict::Pass, "n2 is the primary, n1 follows it again"),
    ]
}

pub fn good() -> Run {
    Run {
        scenario: "kill-primary".into(),
        does: "Kills every process of the primary at once (SIGKILL), as when its machine dies, while clients write.".into(),
        expects: "A replica is promoted, no acknowledged commit is lost, no client is dropped, and the node of the past returns as a replica.".into(),
        plan: Plan::Pgbaton,
        durability: "quorum".into(),
        took: 17_400,
        end: End::Played,
        promises: all_kept(),
        figures: Figures {
            detection: Some(271),
            first_write: Some(688),
            write_gap: Some(702),
            read_gap: Some(103),
            phases: [("recruit", 92), ("elect", 3), ("promote", 141), ("follow", 68), ("confirm", 107), ("open", 6)]
                .map(|(name, took)| (name.to_owned(), took))
                .into(),
            acknowledged: 7211,
            failed: BTreeMap::from([("40001".to_owned(), 6)]),
            other_errors: BTreeMap::from([("40001".to_owned(), 4), ("57P01".to_owned(), 1)]),
            known_lost_bytes: Some(0),
            unknown: 1,
            ..Figures::default()
        },
        marks: vec![
            mark(3000, MarkKind::Fault, "n1 killed: 14 processes"),
            mark(3688, MarkKind::Seen, "n2 takes writes (epoch 2)"),
            mark(6400, MarkKind::Seen, "n1 follows n2 after pg_rewind"),
            mark(6900, MarkKind::Seen, "the cluster is whole: 2 voters"),
        ],
        slices: slices(120, 3000..3700, 11),
        story: vec![
            chapter(3271, 2, "failover", "n1 is down: refused 3 times, and neither n2 nor n3 receives from it"),
            chapter(3363, 2, "recruited", "n2 at 0/5A1C3B8, n3 at 0/5A1C340: 2 of 2 voters, 1 needed"),
            chapter(3366, 2, "elected", "n2: has the most of the log; n3 is 120 bytes behind"),
            chapter(3507, 2, "promoted", "n2 is on timeline 2"),
            chapter(3682, 2, "stable", "the epoch's row was acknowledged by n3; 6 held statements go on"),
            chapter(6400, 2, "rejoin", "n1 had 96 bytes that n2 has not: pg_rewind, 410 ms"),
        ],
    }
}

/// The same without pgbaton.
pub fn without() -> Run {
    Run {
        does: "Clients have all three addresses in their connection string; an operator promotes the first standby 10 s after the fault.".into(),
        plan: Plan::MultiHost,
        durability: "async".into(),
        promises: vec![
            judged(Promise::NothingLost, Verdict::Fail, "2 acknowledged writes are not there: 3000412, 5000398"),
            judged(Promise::StayConnected, Verdict::Fail, "8 connections ended under their clients: 57P01, end of file"),
            judged(Promise::HonestAnswers, Verdict::Pass, ""),
        ],
        figures: Figures {
            detection: None,
            first_write: Some(10_312),
            write_gap: Some(10_340),
            read_gap: Some(10_120),
            phases: vec![],
            acknowledged: 2904,
            failed: BTreeMap::from([("08001".to_owned(), 1840)]),
            other_errors: BTreeMap::from([("08006".to_owned(), 16)]),
            dropped: 16,
            lost: 2,
            known_lost_bytes: None,
            unknown: 5,
            ..Figures::default()
        },
        marks: vec![
            mark(3000, MarkKind::Fault, "n1 killed: 14 processes"),
            mark(13_000, MarkKind::Mended, "the operator: pg_promote() on n2"),
            mark(13_240, MarkKind::Seen, "n2 takes writes"),
        ],
        slices: {
            let mut slices = slices(190, 3000..13_400, 0);
            for slice in slices.iter_mut().filter(|slice| (3000..13_400).contains(&slice.at)) {
                *slice = Slice { at: slice.at, errors: 18, ..Slice::default() };
            }
            slices
        },
        story: vec![],
        ..good()
    }
}

pub fn switched() -> Run {
    Run {
        scenario: "switchover".into(),
        does: "Orders a change of primary while clients write.".into(),
        expects: "No client sees an error; nothing is lost.".into(),
        took: 12_050,
        figures: Figures {
            detection: None,
            first_write: Some(240),
            write_gap: Some(233),
            failed: BTreeMap::new(),
            other_errors: BTreeMap::new(),
            unknown: 0,
            ..good().figures
        },
        marks: vec![
            mark(3000, MarkKind::Fault, "switchover ordered"),
            mark(3240, MarkKind::Seen, "n3 takes writes (epoch 3)"),
        ],
        slices: slices(110, 3000..3200, 0),
        ..good()
    }
}

pub fn failed() -> Run {
    let mut run = Run {
        scenario: "freeze-primary".into(),
        does: "Freezes every process of the primary (SIGSTOP) for half a minute, then lets it go on: the zombie."
            .into(),
        expects: "A replica is promoted, and the zombie takes no write after that.".into(),
        marks: vec![
            mark(3000, MarkKind::Fault, "n1 frozen: 14 processes"),
            mark(4900, MarkKind::Seen, "n2 takes writes (epoch 2)"),
            mark(10_000, MarkKind::Mended, "n1 goes on"),
            mark(10_030, MarkKind::Seen, "n1 answers"),
            mark(10_050, MarkKind::Seen, "n1 is fenced"),
        ],
        slices: slices(140, 3000..4900, 30),
        figures: Figures {
            detection: Some(1210),
            first_write: Some(1902),
            write_gap: Some(1911),
            lost: 3,
            stale: 12,
            dropped: 2,
            ..good().figures
        },
        ..good()
    };
    run.promises[0] = judged(
        Promise::FreshReads,
        Verdict::Fail,
        "12 reads showed less than their session knew: at 5.1 s session 3 knew 3000412 and saw 3000409 on n3",
    );
    run.promises[1] =
        judged(Promise::NothingLost, Verdict::Fail, "3 acknowledged writes are not there: 3000412, 5000398, 5000399");
    run.promises[2] = judged(
        Promise::OnePrimary,
        Verdict::Fail,
        "n1 took 3 writes after n2 was the primary: 3000412 (at 10.031 s), 5000398 (at 10.032 s), 5000399 (at 10.034 s)",
    );
    run
}

pub fn stuck() -> Run {
    Run {
        scenario: "partition-primary".into(),
        end: End::Stuck {
            reason: "after 60 s n1 does not follow n2:\nrejoin: pg_rewind: could not connect to n2".into(),
        },
        promises: vec![
            judged(Promise::NothingLost, Verdict::Pass, ""),
            judged(Promise::OnePrimary, Verdict::NotApplicable, "nobody could ask n1"),
        ],
        slices: slices(700, 3000..60_000, 3),
        figures: Figures { first_write: None, write_gap: Some(57_000), ..Figures::default() },
        took: 73_000,
        ..failed()
    }
}

pub fn skipped() -> Run {
    Run {
        scenario: "disk-full".into(),
        does: "Fills the disk that the primary's log is on.".into(),
        expects: "A replica is promoted.".into(),
        end: End::Skipped { reason: "only root can mount a small file system".into() },
        took: 0,
        promises: vec![],
        figures: Figures::default(),
        marks: vec![],
        slices: vec![],
        story: vec![],
        ..good()
    }
}

pub fn of_all_kinds() -> Report {
    report(vec![good(), without(), switched(), failed(), stuck(), skipped()])
}
