//! One run of a seed, and many of them on all cores.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::faults::Plan;
use crate::invariants::Verdict;
use crate::plants::Plant;
use crate::world::World;

pub struct Outcome {
    pub seed: u64,
    pub verdict: Option<Verdict>,
    pub hash: u64,
    pub lines: Vec<String>,
    pub epochs: u64,
    pub acknowledged: u64,
    /// Virtual milliseconds.
    pub lasted: u64,
}

impl Outcome {
    /// The last lines of the trace.
    pub fn told(&self, lines: usize) -> String {
        self.lines[self.lines.len().saturating_sub(lines)..].join("\n")
    }

    pub fn summary(&self) -> String {
        let Some(verdict) = &self.verdict else { return format!("seed {}: well", self.seed) };
        format!(
            "seed {}: {}: {}\nagain: PGBATON_SIM_SEED={} cargo test --test sim whatever_fails -- --nocapture",
            self.seed, verdict.invariant, verdict.reason, self.seed
        )
    }
}

pub fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

pub fn run(seed: u64, plant: Option<Plant>, is_traced: bool) -> Outcome {
    run_plan(seed, Plan::of(seed), plant, is_traced)
}

pub fn run_plan(seed: u64, plan: Plan, plant: Option<Plant>, is_traced: bool) -> Outcome {
    let mut world = World::new(seed, plan, plant, is_traced);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let verdict = match result {
        Ok(()) => world.judge.verdict.clone(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            Some(Verdict { invariant: "no panic", reason: text.unwrap_or_default() })
        }
    };
    Outcome {
        seed,
        verdict,
        hash: world.trace.hash(),
        lines: world.trace.lines().to_vec(),
        epochs: world.store.record.as_ref().map_or(0, |record| record.epoch.0),
        acknowledged: world.clients.iter().map(|client| client.acknowledged).sum(),
        lasted: world.now,
    }
}

/// The first of these seeds, in their order, that breaks something; those behind it may not have been run.
pub fn run_all(seeds: Range<u64>) -> Option<u64> {
    first_that(seeds, |seed| run(seed, None, false).verdict.is_some())
}

/// The lowest seed for which this is true, tried on all cores.
pub fn first_that(seeds: Range<u64>, is_it: impl Fn(u64) -> bool + Sync) -> Option<u64> {
    let next = AtomicU64::new(seeds.start);
    let found = AtomicU64::new(u64::MAX);
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || seed > found.load(Ordering::Relaxed) {
                        return;
                    }
                    if is_it(seed) {
                        found.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    Some(found.into_inner()).filter(|seed| *seed < u64::MAX)
}
