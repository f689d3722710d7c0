//! `pgbaton demo --chaos`: breaks something every few seconds, waits until all is well again, and shows what clients see of it.
//!
//! What is broken is drawn by lot, the primary most often. The next thing is broken only when there is one primary again and all
//! others stream from it, so that what is seen is what one fault costs.

mod fault;
mod load;
mod report;
mod tally;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::hosts::{Hosts, reachable};
use super::{Cancel, DemoError, is_whole, what_is_missing};
use crate::admin::picture::Cluster;
use crate::app::Running;
use crate::cluster::{HistoryEntry, RepairNote};
use crate::types::Durability;
use fault::{Fault, Lot};
use load::Load;
use report::{Mood, Report, Summary, span};
use tally::Tally;

/// What the demo's `[failover]` has while it is broken all the time: a node that is frozen twice in half a minute is not waited for.
pub(super) const FAILOVER: &str = "anti_flap = \"2s\"\n";

/// How long it may take until all is well after a fault; then it is said that it is not, and waited for on.
const HEALED: Duration = Duration::from_secs(60);

/// How often the cluster is looked at while something is awaited.
const LOOK: Duration = Duration::from_millis(10);

/// So recent must the last acknowledged write be for writes to be taken.
const FRESH: Duration = Duration::from_millis(500);

/// Probes that are under way when a frozen node goes on may still have a good word for it from before.
const SETTLE: Duration = Duration::from_millis(1500);

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// Between the end of one fault and the next.
    pub every: Duration,
    /// `None`: until Ctrl-C.
    pub limit: Option<Duration>,
}

/// What is known of one fault when it is over.
#[derive(Clone, Debug)]
struct Outcome {
    what: &'static str,
    /// The longest time without an acknowledged write, if there was another primary afterwards.
    pause: Option<Duration>,
    healed: Option<Duration>,
}

/// Runs until its time is up or somebody cancels, and then until all is well.
pub(super) fn run(
    hosts: &Hosts,
    running: &Running,
    listen: SocketAddr,
    admin: SocketAddr,
    chaos: &Chaos,
    cancel: &Cancel,
) -> Result<(), DemoError> {
    let tally = Arc::new(Tally::new());
    let load = Load::start(reachable(listen), tally.clone()).map_err(DemoError::Load)?;
    let report = Report::new();
    let every = span(chaos.every);
    println!(
        "\n4 writers and 4 readers at work. Something breaks {every} after all is well; Ctrl-C ends it. Times are UTC.\n"
    );
    let begun = Instant::now();
    let is_over = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        scope.spawn(|| tick(running, &tally, &report, &is_over));
        let stage = Stage { hosts, running, admin: reachable(admin), tally: &tally, report: &report, cancel };
        let outcomes = stage.play(chaos);
        is_over.store(true, Ordering::Relaxed);
        outcomes
    });
    let verdict = load.finish();
    let summary = Summary { took: begun.elapsed(), outcomes: &outcomes, tally: &tally, verdict: &verdict };
    println!("\n{}", summary.text());
    summary.judge().map_err(DemoError::Broken)
}

/// A line a second.
fn tick(running: &Running, tally: &Tally, report: &Report, is_over: &AtomicBool) {
    let mut next = Instant::now() + Duration::from_secs(1);
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(next.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)));
        if Instant::now() >= next {
            next += Duration::from_secs(1);
            report.second(&running.cluster(), &tally.second());
        }
    }
}

struct Stage<'c> {
    hosts: &'c Hosts,
    running: &'c Running,
    admin: SocketAddr,
    tally: &'c Tally,
    report: &'c Report,
    cancel: &'c Cancel,
}

impl Stage<'_> {
    fn play(&self, chaos: &Chaos) -> Vec<Outcome> {
        let end = chaos.limit.map(|limit| Instant::now() + limit);
        let (mut lot, mut outcomes) = (Lot::new(), Vec::new());
        loop {
            let left = end.map_or(chaos.every, |end| end.saturating_duration_since(Instant::now()));
            if self.cancel.wait_for(chaos.every.min(left)) || left <= chaos.every {
                return outcomes;
            }
            let cluster = self.running.cluster();
            let Some(fault) = Fault::draw(&mut lot, self.hosts, &cluster) else { continue };
            outcomes.push(self.suffer(&fault, &cluster));
        }
    }

    /// Breaks something, and waits until all is well.
    fn suffer(&self, fault: &Fault<'_>, before: &Cluster) -> Outcome {
        let since = unix_ms();
        self.tally.mark();
        self.report.event(Mood::Bad, &fault.announcement(before));
        let begun = Instant::now();
        let old = fault.strike(self.admin, self.hosts.token());
        if let Err(refused) = &old {
            self.report.event(Mood::Bad, refused);
        }
        let mut earliest = Instant::now() + if fault.is_seen_late() { SETTLE } else { Duration::ZERO };
        let mut frozen = fault.frozen();
        let old = old.unwrap_or_default();
        let is_back =
            || fault.victim().is_none_or(|host| old.is_none() || host.server_pid().is_some_and(|pid| Some(pid) != old));
        let (mut is_told, mut limit, mut healed) = (false, HEALED, None);
        loop {
            if let Some((host, length)) = frozen
                && (begun.elapsed() >= length || self.cancel.check().is_err())
            {
                host.thaw();
                self.report.event(Mood::Good, &format!("{} is awake", host.id));
                (frozen, earliest) = (None, Instant::now() + SETTLE);
            }
            let cluster = self.running.cluster();
            let writes = self.tally.is_fresh(FRESH);
            if let Some(primary) =
                cluster.primary.as_ref().filter(|_| !is_told && cluster.epoch > before.epoch && writes)
            {
                is_told = true;
                let pause = span(self.tally.pause());
                self.report.event(Mood::Good, &format!("{primary} takes writes, {pause}"));
            }
            if frozen.is_none()
                && Instant::now() >= earliest
                && is_back()
                && writes
                && is_whole(&cluster, self.durability(&cluster))
            {
                healed = Some(begun.elapsed());
                break;
            }
            if begun.elapsed() > limit {
                let missing = what_is_missing(&cluster);
                self.report
                    .event(Mood::Bad, &format!("not all well after {} s:\n{}", limit.as_secs(), missing.trim_end()));
                limit += HEALED;
                // Who wants to leave is not kept by something that may never end.
                if self.cancel.check().is_err() {
                    break;
                }
            }
            std::thread::sleep(LOOK);
        }
        if let Some(took) = healed {
            self.tell_healed(fault, before, since, took);
        }
        let what = fault.kind();
        Outcome { what, pause: is_told.then(|| self.tally.pause()), healed: healed.filter(|took| *took <= HEALED) }
    }

    /// Who follows again, and in which way that came about.
    fn tell_healed(&self, fault: &Fault<'_>, before: &Cluster, since: u64, took: Duration) {
        let repairs: Vec<RepairNote> = self
            .running
            .history()
            .into_iter()
            .filter_map(|entry| match entry {
                HistoryEntry::Repair(note) if note.ended_at >= since && note.failure.is_empty() => Some(note),
                _ => None,
            })
            .collect();
        let primary = self.running.cluster().primary;
        let mut nodes: BTreeSet<String> = repairs.iter().map(|note| note.node.to_string()).collect();
        nodes.extend(fault.victim().map(|host| host.id.clone()));
        nodes.extend(before.primary.clone().filter(|_| fault.changes_primary()));
        nodes.retain(|node| Some(node) != primary.as_ref());
        for node in &nodes {
            let repair = repairs.iter().rfind(|note| *note.node.0 == **node);
            let how = repair.map(way).unwrap_or_default();
            self.report.event(Mood::Good, &format!("{node} follows again after {}{how}", span(took)));
        }
        if nodes.is_empty() {
            self.report.event(Mood::Good, &format!("all is well after {}", span(took)));
        }
    }

    fn durability(&self, cluster: &Cluster) -> Durability {
        if cluster.durability == Durability::Quorum.as_str() { Durability::Quorum } else { Durability::Async }
    }
}

/// ` (rewind, 0 commits lost)`: what it had that the cluster has not was acknowledged to nobody, or it would be a loss.
fn way(note: &RepairNote) -> String {
    let commits = match &note.diverged {
        None => "nothing of its own".to_owned(),
        Some(diverged) => match diverged.commits {
            Some(1) => "1 commit of its own given up".to_owned(),
            Some(commits) => format!("{commits} commits of its own given up"),
            None => "commits of its own that were not counted".to_owned(),
        },
    };
    format!(" ({}, {commits})", note.repair)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
