//! One cluster, one pgbaton and a crowd of clients; something happens to them, and then they are judged.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgbaton::demo::{Cluster, ClusterOptions, Node};

use crate::baton::{self, Baton, Record};
use crate::checker::{self, Tables, Verdict};
use crate::load::{CREW, Load, Log, Outcome, TABLES};
use crate::network::Network;
use crate::support::wait_until;
use crate::table::{self, Row};

/// Longer than any of it may take, hold and vetoes included; not a promise of pgbaton's.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Of ordinary life, before and after.
const CALM: Duration = Duration::from_millis(1500);
/// `cluster.max_lost_bytes` as it is by default.
const MAX_LOST_BYTES: u64 = 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Quorum,
    Async,
}

impl Durability {
    pub fn name(self) -> &'static str {
        match self {
            Durability::Quorum => "quorum",
            Durability::Async => "async",
        }
    }
}

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub fault: &'static str,
    pub durability: Durability,
    pub replicas: usize,
    /// Lines below `[failover]`.
    pub failover: &'static str,
}

/// Fields end in this order: nobody is to see the servers go.
pub struct Stage {
    pub plan: Plan,
    load: Option<Load>,
    pub baton: Baton,
    pub cluster: Cluster,
    pub network: Option<Arc<Network>>,
    /// The epoch before anything happened.
    pub first: Record,
    /// When, on the load's clock, it happened.
    fault: Option<Duration>,
    frozen: BTreeSet<u32>,
    /// What nodes held that took themselves for the primary after they were replaced.
    zombies: Vec<(String, Tables)>,
    /// What was found in the end, for the file beside the table.
    report: String,
}

impl Stage {
    pub fn set(plan: Plan) -> Stage {
        let members: Vec<String> = (1..=plan.replicas + 1).map(|number| format!("n{number}")).collect();
        let mut names: Vec<&str> = members.iter().map(String::as_str).collect();
        names.push(baton::MEMBER);
        // Everything but cuts works without namespaces, too.
        let network = Network::new(&names).ok().map(Arc::new);
        let place = |network: &Arc<Network>| members.iter().map(|name| network.place(name)).collect();
        let options = ClusterOptions {
            replicas: plan.replicas,
            // What a killed process has written stays in the kernel: syncing would only tell after a power failure.
            durable: false,
            places: network.as_ref().map(place).unwrap_or_default(),
            ..Default::default()
        };
        let cluster = Cluster::start(options).unwrap_or_else(|error| panic!("{error}"));
        cluster.nodes()[0].sql(TABLES).unwrap();
        let durability = format!("durability = \"{}\"", plan.durability.name());
        let baton = Baton::start(&cluster, network.clone(), (&durability, plan.failover));
        let first = Record { epoch: 0, phase: String::new(), primary: String::new(), voters: Vec::new() };
        let mut stage = Stage {
            plan,
            load: None,
            baton,
            cluster,
            network,
            first,
            fault: None,
            frozen: BTreeSet::new(),
            zombies: Vec::new(),
            report: "it did not come to a verdict".into(),
        };
        stage.wait_until_ready();
        stage.first = stage.record();
        let load = Load::start(stage.baton.address, stage.network.clone(), CREW);
        let everybody = CREW.writers + CREW.transfers + CREW.own_readers + CREW.readers + CREW.idle;
        wait_until(LIMIT, "everybody is connected and writes", || {
            load.connected() == everybody as u64 && load.has_written_since(CALM)
        });
        stage.load = Some(load);
        stage
    }

    pub fn node(&self, id: &str) -> &Node {
        self.cluster.node(id).unwrap_or_else(|| panic!("no node {id}"))
    }

    pub fn record(&self) -> Record {
        self.baton.record().expect("a record")
    }

    /// The primary by the record; whether it is one is asked of itself when it matters.
    pub fn primary(&self) -> &Node {
        self.node(&self.record().primary)
    }

    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("network namespaces")
    }

    /// Until there is a primary, and every replica that runs could take over.
    pub fn wait_until_ready(&self) {
        wait_until(LIMIT, "there is a record, and every replica is a voter", || {
            self.baton.record().is_some_and(|record| {
                let running = self.cluster.nodes().iter().filter(|node| node.pid().is_some()).count();
                let voters = if self.plan.durability == Durability::Quorum { running - 1 } else { 0 };
                record.phase == "stable" && record.voters.len() == voters
            })
        });
    }

    pub fn now(&self) -> Duration {
        self.load().now()
    }

    /// It has happened just now; only the first time counts for gaps.
    pub fn note_fault(&mut self) {
        let now = self.now();
        self.fault.get_or_insert(now);
    }

    /// Until something that was sent from now on is acknowledged.
    pub fn wait_for_writes(&self) {
        let now = self.now();
        wait_until(LIMIT, "writes are taken", || self.load().has_written_since(now));
    }

    pub fn has_written_since(&self, moment: Duration) -> bool {
        self.load().has_written_since(moment)
    }

    pub fn wait_for_reads(&self) {
        let now = self.now();
        wait_until(LIMIT, "reads are answered", || self.load().has_read_since(now));
    }

    /// Life goes on for a while, with everything as it is.
    pub fn live_on(&self) {
        let until = self.now() + CALM;
        wait_until(LIMIT, "writes go on", || self.load().has_written_since(until));
    }

    pub fn freeze(&mut self, id: &str) {
        let processes = crate::faults::freeze(self.node(id));
        self.frozen.extend(processes);
    }

    pub fn thaw(&mut self) {
        crate::faults::thaw(&std::mem::take(&mut self.frozen));
    }

    /// Looks again and again at what a node holds that takes itself for the primary and must not be one any more.
    pub fn watch_zombie(&mut self, id: &str) {
        let end = Instant::now() + Duration::from_secs(3);
        let mut last = None;
        while Instant::now() < end {
            if let Some(tables) = Tables::of_a_primary(self.node(id)) {
                last = Some(tables);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        self.zombies.extend(last.map(|tables| (id.to_owned(), tables)));
    }

    /// Kills what is the primary now.
    pub fn kill_primary(&mut self) -> String {
        let id = self.record().primary;
        crate::faults::kill(self.node(&id));
        self.note_fault();
        id
    }

    /// Ends the load, compares what everybody was told with what every node holds, adds the row, and fails if anything is
    /// wrong. `may_drop`: clients may have lost their connection.
    pub fn judge(mut self, may_drop: bool) -> Verdict {
        let log = self.load.take().expect("only once").end();
        let fault = self.fault.unwrap_or_default();
        let primary = self.primary();
        let tables = Tables::of_a_primary(primary).expect("the primary of the record is one");
        let mut verdict = checker::judge(&log, &tables);
        for node in self.cluster.nodes().iter().filter(|node| node.id != primary.id && node.pid().is_some()) {
            // One that is fenced, or had something of its own, waits for an operator: it serves nobody.
            if !self.is_following(node, primary) {
                continue;
            }
            let held = Tables::read(node).unwrap();
            if held != tables {
                verdict.broken.push(format!("{} holds something else than {}", node.id, primary.id));
            }
        }
        if let Some(next) = first_acknowledged(&log, fault) {
            for (id, zombie) in &self.zombies {
                let taken = checker::written_behind_the_back(&log, zombie, next);
                if !taken.is_empty() {
                    verdict.broken.push(format!("{id} took {taken:?} after it was replaced"));
                }
            }
        }
        let row = self.row(&log, &verdict, fault);
        let is_too_much = row.lost_bytes.is_some_and(|bytes| bytes > MAX_LOST_BYTES);
        table::add(row);
        let is_lost = !verdict.lost.is_empty() && self.plan.durability == Durability::Quorum;
        let is_dropped = !may_drop && verdict.dropped() > 0;
        self.report = format!("{verdict}\n{:#?}\n{:#?}", log.samples, self.baton.changes_after(0));
        let is_clean = verdict.wrong() == 0 && !is_lost && !is_dropped && !is_too_much;
        assert!(is_clean, "{}, {}:\n{verdict}", self.plan.fault, self.plan.durability.name());
        verdict
    }

    fn load(&self) -> &Load {
        self.load.as_ref().expect("before it is judged")
    }

    /// Whether a node has, within a while, everything the primary has now.
    fn is_following(&self, node: &Node, primary: &Node) -> bool {
        let position = primary.sql("SELECT pg_current_wal_lsn()").unwrap();
        // Replayed is not enough: an old primary's own WAL may go further.
        let of_timeline = "(SELECT timeline_id FROM pg_control_checkpoint())";
        let timeline = primary.sql(&format!("CHECKPOINT; SELECT {of_timeline}")).unwrap();
        let question = format!(
            "SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= '{position}'
             AND (SELECT received_tli = {timeline} AND status = 'streaming' FROM pg_stat_wal_receiver)"
        );
        let is_standby = || node.sql("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "t");
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end && is_standby() {
            if node.sql(&question).is_ok_and(|answer| answer == "t") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // Of those that were standbys all the time, all have to follow.
        assert!(self.was_primary(&node.id), "{} does not follow {}", node.id, primary.id);
        false
    }

    fn was_primary(&self, id: &str) -> bool {
        self.first.primary == id || self.zombies.iter().any(|(zombie, _)| zombie == id)
    }

    fn row(&self, log: &Log, verdict: &Verdict, fault: Duration) -> Row {
        let changes = self.baton.changes_after(self.first.epoch);
        let of = |wanted: fn(&str) -> bool| {
            let each = |change: &baton::Change| {
                change.phases.iter().filter(|(name, _)| wanted(name)).map(|(_, ms)| ms).sum::<u64>()
            };
            changes.first().map(each)
        };
        let old = self.node(&self.first.primary);
        // What a node wrote after the place where the next primary's timeline began, when nobody writes there any more.
        let lost_bytes = changes
            .first()
            .and_then(|change| change.fork_lsn.as_deref())
            .and_then(|fork| old.pid().is_none().then(|| checker::wal_after(old, self.cluster.bin(), fork)).flatten());
        Row {
            fault: self.plan.fault.into(),
            durability: self.plan.durability.name(),
            detection: of(|name| name == "detect"),
            promotion: of(|name| name != "detect"),
            total: of(|_| true),
            write_gap: log.write_gap(fault),
            read_gap: log.read_gap(fault),
            acknowledged: verdict.acknowledged,
            failed: verdict.failed.clone(),
            dropped: verdict.dropped(),
            lost: verdict.lost.len(),
            lost_bytes,
            known_lost_bytes: changes.first().map(|change| change.known_loss_bytes),
            unknown: verdict.unknown(),
            wrong: verdict.wrong(),
        }
    }
}

/// When, after `fault`, the first write that was sent after it was acknowledged.
fn first_acknowledged(log: &Log, fault: Duration) -> Option<Duration> {
    let later = log.writes.iter().filter(|write| write.sent > fault && write.outcome == Outcome::Acknowledged);
    later.map(|write| write.done).min()
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.thaw();
        self.baton.thaw();
        // Whoever wonders about a row finds here what was behind it.
        let fault: String = self.plan.fault.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
        let file = table::file().with_file_name(format!("failover-{fault}-{}.log", self.plan.durability.name()));
        let text = format!("{}\n\n{:?}\n\n{}", self.report, self.baton.record(), self.baton.log());
        let _ = std::fs::write(&file, text);
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "the verdict and the log of pgbaton are in {}", file.display());
        }
    }
}
