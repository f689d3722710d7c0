//! The brain that is shipped, against nodes, a network, a store and clients that do not exist.
//!
//! A seed draws a cluster, some seconds of faults and every delay; the same seed gives the same run. `PGBATON_SIM_SEEDS` says
//! how many are run, from `PGBATON_SIM_FIRST` on; `PGBATON_SIM_SEED=n` runs one and prints what happened. A run ends with the first
//! invariant broken (`invariants/`, one file each), or when the cluster is well again.

mod agent;
mod clients;
mod errands;
mod faults;
mod found;
mod invariants;
mod message;
mod network;
mod node;
mod operator;
mod pgbaton;
mod planted;
mod plants;
mod random;
mod repair;
mod replication;
mod run;
mod server;
mod store;
mod tasks;
mod trace;
mod wal;
mod world;

use run::{Outcome, run, run_all, setting};

#[test]
fn whatever_fails_no_promise_is_broken() {
    if let Some(seed) = setting("PGBATON_SIM_SEED") {
        let outcome = run(seed, None, true);
        println!("{}", outcome.told(usize::MAX));
        assert!(outcome.verdict.is_none(), "{}", outcome.summary());
        return;
    }
    let count = setting("PGBATON_SIM_SEEDS").unwrap_or(10_000);
    let first = setting("PGBATON_SIM_FIRST").unwrap_or(0);
    let broken = run_all(first..first + count);
    if let Some(seed) = broken {
        let outcome = run(seed, None, true);
        panic!("{}\n{}", outcome.told(60), outcome.summary());
    }
}

#[test]
fn a_seed_gives_the_same_run() {
    for seed in 0..20 {
        let (one, other) = (run(seed, None, false), run(seed, None, true));
        let third = run(seed, None, true);
        assert_eq!((one.hash, &one.verdict), (other.hash, &other.verdict), "seed {seed}");
        assert_eq!((&other.lines, other.hash), (&third.lines, third.hash), "seed {seed}");
    }
    let different: std::collections::BTreeSet<u64> = (0..20).map(|seed| run(seed, None, false).hash).collect();
    assert_eq!(different.len(), 20, "every seed gives another run");
}

#[test]
fn runs_are_not_idle() {
    // A model that never fails over would find nothing.
    let outcomes: Vec<Outcome> = (0..50).map(|seed| run(seed, None, false)).collect();
    let epochs: u64 = outcomes.iter().map(|outcome| outcome.epochs).sum();
    let acknowledged: u64 = outcomes.iter().map(|outcome| outcome.acknowledged).sum();
    assert!(epochs > 100, "{epochs} epochs in 50 runs");
    assert!(acknowledged > 1000, "{acknowledged} commits in 50 runs");
}

/// For whoever works on the brain: which invariants break how often, with the first seed of each and what was said.
#[test]
#[ignore = "a table for people: cargo test --test sim survey -- --ignored --nocapture"]
fn survey() {
    let count = setting("PGBATON_SIM_SEEDS").unwrap_or(1000);
    let first = setting("PGBATON_SIM_FIRST").unwrap_or(0);
    let began = std::time::Instant::now();
    let broken = std::sync::Mutex::new(std::collections::BTreeMap::<String, (u64, u64, String)>::new());
    let totals = std::sync::Mutex::new([0u64; 3]);
    run::first_that(first..first + count, |seed| {
        let outcome = run(seed, None, false);
        let mut totals = totals.lock().unwrap();
        totals[0] += outcome.epochs;
        totals[1] += outcome.acknowledged;
        totals[2] += outcome.lasted;
        if let Some(verdict) = outcome.verdict {
            let words = verdict.reason.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
            let key = format!("{}: {}", verdict.invariant, words.take(6).collect::<Vec<_>>().join(" "));
            let mut broken = broken.lock().unwrap();
            let entry = broken.entry(key).or_insert((0, seed, verdict.reason.clone()));
            entry.0 += 1;
            if seed < entry.1 {
                (entry.1, entry.2) = (seed, verdict.reason);
            }
        }
        false
    });
    for (key, (times, seed, reason)) in broken.into_inner().unwrap() {
        println!("{times:>6}  seed {seed:<7} {key}\n          {reason}");
    }
    let [epochs, acknowledged, lasted] = totals.into_inner().unwrap();
    println!(
        "{count} seeds, {epochs} epochs, {acknowledged} commits, {} virtual s, {:?}",
        lasted / 1000,
        began.elapsed()
    );
}
