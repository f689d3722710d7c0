//! The same scenario without pgbaton: clients that have all nodes in their connection string, and somebody who promotes a standby.
//!
//! That is what one has with PostgreSQL alone: libpq finds the primary among several hosts
//! (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-MULTIPLE-HOSTS>), but nobody makes one. The stand-in for the
//! operator, or the script, notices after [`Plain::operator_after`], promotes the first standby and points the other one to it,
//! without a mistake. Load, judge and faults are those of a drill with pgbaton.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checker::{Tables, judge, written_behind_the_back};
use super::faults;
use super::figures::{figures, ms, slices};
use super::findings::{examples, not_applicable, promises};
use super::load::{CREW, Load, TABLES};
use super::network::Network;
use super::outcome::{End, Figures, Judged, Mark, MarkKind, Plan, Promise, Run};
use super::reach::Reach;
use super::wire::PATIENCE;
use super::words::{counted, span};
use crate::demo::{Cancel, Cluster, ClusterError, ClusterOptions, Node, Shutdown};

/// Calm before the fault, for the eye to compare with.
const BEFORE: Duration = Duration::from_secs(3);
/// How long clients may take to be at work, and to write again after all was done: longer than they wait for a server that says
/// nothing.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// After writes go on, until a node that was cut off or frozen comes back.
const BEFORE_RETURN: Duration = Duration::from_secs(1);

/// One that serves somebody.
const A_BACKEND: &str =
    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1";

/// How it is played.
#[derive(Clone, Debug)]
pub struct Plain {
    /// From the fault until somebody promotes a standby.
    pub operator_after: Duration,
    /// How long the load goes on after the fault, at least.
    pub seconds: Duration,
    pub cancel: Cancel,
}

impl Plain {
    /// A person who is awake and knows what to do, or a script with a careful timeout.
    pub const OPERATOR_AFTER: Duration = Duration::from_secs(10);
}

/// What can be done to a plain cluster, by the names of the drill's scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillPrimary,
    KillPostmaster,
    KillBackend,
    FreezePrimary,
    HostGone,
    PartitionPrimary,
    KillReplica,
    Switchover,
}

impl Fault {
    const ALL: [(&str, Fault, &str); 8] = [
        ("kill-primary", Fault::KillPrimary, "Every process of the primary is killed at once."),
        ("kill-postmaster", Fault::KillPostmaster, "The primary's postmaster is killed."),
        ("kill-backend", Fault::KillBackend, "One backend of the primary is killed, so that it restarts by itself."),
        ("freeze-primary", Fault::FreezePrimary, "The primary stands still, and goes on when another is the primary."),
        ("host-gone", Fault::HostGone, "The primary's host vanishes from the network, with all that ran on it."),
        (
            "partition-primary",
            Fault::PartitionPrimary,
            "The primary is cut from everybody, and returns when another is the primary.",
        ),
        ("kill-replica", Fault::KillReplica, "Every process of a standby is killed at once."),
        ("switchover", Fault::Switchover, "The primary is stopped cleanly, by hand, and a standby promoted."),
    ];

    fn named(scenario: &str) -> Option<(Fault, &'static str)> {
        Fault::ALL.iter().find(|(name, ..)| *name == scenario).map(|(_, fault, does)| (*fault, *does))
    }

    fn needs_network(self) -> bool {
        matches!(self, Fault::HostGone | Fault::PartitionPrimary)
    }

    /// Whether somebody has to promote a standby some time after it.
    fn needs_operator(self) -> bool {
        !matches!(self, Fault::KillBackend | Fault::KillReplica | Fault::Switchover)
    }
}

/// The scenarios that can be compared.
pub fn scenarios() -> impl Iterator<Item = &'static str> {
    Fault::ALL.iter().map(|(name, ..)| *name)
}

/// Plays it on a throw-away cluster of its own. `tell`: what is being done.
pub fn play(scenario: &str, plain: &Plain, tell: &dyn Fn(&str)) -> Run {
    let begun = Instant::now();
    let mut run = Run {
        scenario: scenario.into(),
        does: String::new(),
        expects: "Nothing is promised; it is there to compare with.".into(),
        plan: Plan::MultiHost,
        durability: "async".into(),
        took: 0,
        end: End::Played,
        promises: Vec::new(),
        figures: Figures::default(),
        marks: Vec::new(),
        slices: Vec::new(),
        story: Vec::new(),
    };
    match Fault::named(scenario) {
        None => {
            let reason =
                "without pgbaton there is nothing that this could be done to, or nobody who would answer it".into();
            run.end = End::Skipped { reason };
        }
        Some((fault, does)) => {
            run.does = format!("{does} {}", whoever_acts(fault, plain));
            run.end = Stage::set(fault, plain, tell)
                .and_then(|stage| stage.play(fault, &mut run))
                .err()
                .unwrap_or(End::Played);
        }
    }
    run.took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    run
}

fn whoever_acts(fault: Fault, plain: &Plain) -> String {
    let clients =
        "Clients have all three nodes in their connection string (target_session_attrs=read-write, connect_timeout=2)";
    let hang = match fault {
        Fault::FreezePrimary | Fault::HostGone | Fault::PartitionPrimary => {
            format!(
                " Nobody is told that the primary is gone: a client that waits for it gives up after {}.",
                span(ms(PATIENCE))
            )
        }
        _ => String::new(),
    };
    match fault.needs_operator() {
        true => format!(
            "{clients}; a stand-in for an operator or a script promotes n2 {} after the fault, and points n3 to it.{hang}",
            span(ms(plain.operator_after))
        ),
        false if fault == Fault::Switchover => {
            format!("{clients}; a stand-in for an operator does every step at once.")
        }
        false => format!("{clients}; nobody has to do anything."),
    }
}

/// Cluster and clients while it is played.
struct Stage<'p> {
    plain: &'p Plain,
    tell: &'p dyn Fn(&str),
    // The clients stop first, the network is gone last.
    load: Load,
    cluster: Cluster,
    network: Option<Arc<Network>>,
}

fn failed(what: &str) -> impl FnOnce(ClusterError) -> End {
    move |error| End::Stuck { reason: format!("{what}: {error}") }
}

impl<'p> Stage<'p> {
    fn set(fault: Fault, plain: &'p Plain, tell: &'p dyn Fn(&str)) -> Result<Stage<'p>, End> {
        let names = ["n1", "n2", "n3"];
        let network = match fault.needs_network() {
            false => None,
            true => Some(Arc::new(Network::new(&names).map_err(|reason| End::Skipped { reason })?)),
        };
        tell("without pgbaton: starting a plain cluster");
        let places = network.iter().flat_map(|network| names.map(|name| network.place(name))).collect();
        let options =
            ClusterOptions { durable: false, places, cancel: plain.cancel.clone(), ..ClusterOptions::default() };
        let cluster = Cluster::start(options).map_err(failed("the cluster does not start"))?;
        let primary = node(&cluster, "n1")?;
        primary.sql(TABLES).map_err(failed("no tables"))?;
        cluster.wait_for_replicas().map_err(failed("the standbys do not follow"))?;
        let address = |node: &Node| Some(SocketAddr::new(node.host().parse().ok()?, node.port()));
        let load = Load::start(Reach::Any(cluster.nodes().iter().filter_map(address).collect()), network.clone(), CREW);
        let stage = Stage { plain, tell, load, cluster, network };
        stage.wait("all clients are connected and write", || {
            stage.load.connected() == CREW.size() as u64 && stage.load.has_written_since(Duration::ZERO)
        })?;
        Ok(stage)
    }

    fn play(self, fault: Fault, run: &mut Run) -> Result<(), End> {
        self.pass(BEFORE)?;
        let (at, frozen) = self.strike(fault, run)?;
        let result = self.act(fault, at, &frozen, run);
        let new = if matches!(fault, Fault::KillBackend | Fault::KillReplica) { "n1" } else { "n2" };
        let Stage { load, cluster, network, .. } = self;
        // Whoever hangs on a host that is gone hears of it when there is a network again; of a frozen one, when it goes on.
        let log = load.end();
        run.slices = slices(&log);
        let primary = node(&cluster, new)?;
        let Some(tables) = Tables::of_a_primary(primary) else {
            result?;
            return Err(End::Stuck { reason: format!("{new} is not the primary in the end") });
        };
        let verdict = judge(&log, &tables);
        run.figures = figures(&log, &verdict, at);
        run.promises = promises(&verdict);
        run.promises.push(one_primary(&cluster, new, &log, run));
        drop(cluster);
        drop(network);
        result
    }

    fn mark(&self, run: &mut Run, kind: MarkKind, text: impl Into<String>) {
        let text = text.into();
        (self.tell)(&format!("without pgbaton: {text}"));
        run.marks.push(Mark { at: ms(self.load.now()), kind, text });
    }

    /// What is broken, and when it was so: until a process is gone it may still answer. What was frozen is to be thawed.
    fn strike(&self, fault: Fault, run: &mut Run) -> Result<(Duration, BTreeSet<u32>), End> {
        let n1 = node(&self.cluster, "n1")?;
        let pid = |node: &Node| node.pid().ok_or_else(|| End::Stuck { reason: format!("{} does not run", node.id) });
        let mut frozen = BTreeSet::new();
        let what = match fault {
            Fault::KillPrimary => {
                faults::kill_all(pid(n1)?);
                "n1 is killed"
            }
            Fault::KillPostmaster => {
                faults::kill_alone(pid(n1)?);
                "the postmaster of n1 is killed"
            }
            Fault::KillBackend => {
                let backend = n1.sql(A_BACKEND).map_err(failed("no backend"))?;
                let backend = backend.parse().map_err(|_| End::Stuck { reason: "n1 has no backend".into() })?;
                faults::send(backend, rustix::process::Signal::KILL);
                "a backend of n1 is killed"
            }
            Fault::FreezePrimary => {
                frozen = faults::freeze_all(pid(n1)?);
                "n1 is frozen"
            }
            Fault::HostGone => {
                self.network.iter().for_each(|network| network.isolate("n1"));
                faults::kill_all(pid(n1)?);
                "the host of n1 is gone"
            }
            Fault::PartitionPrimary => {
                self.network.iter().for_each(|network| network.isolate("n1"));
                "n1 is cut from everybody"
            }
            Fault::KillReplica => {
                faults::kill_all(pid(node(&self.cluster, "n3")?)?);
                "n3 is killed"
            }
            Fault::Switchover => "the operator begins: n1 is stopped cleanly (pg_ctl stop -m fast)",
        };
        let at = self.load.now();
        self.mark(run, MarkKind::Fault, what);
        if fault == Fault::Switchover {
            n1.stop(Shutdown::Fast);
            self.promote(run)?;
        }
        Ok((at, frozen))
    }

    /// From the fault on, until the cluster is as it will be.
    fn act(&self, fault: Fault, at: Duration, frozen: &BTreeSet<u32>, run: &mut Run) -> Result<(), End> {
        let [n1, n2] = [node(&self.cluster, "n1")?, node(&self.cluster, "n2")?];
        if fault.needs_operator() {
            self.pass(self.plain.operator_after)?;
            self.promote(run)?;
        }
        let acted = if fault.needs_operator() { self.load.now() } else { at };
        let result = self.wait("clients write again", || self.load.has_written_since(acted));
        if result.is_ok() {
            let who = if fault.needs_operator() || fault == Fault::Switchover { &n2.id } else { &n1.id };
            self.mark(run, MarkKind::Seen, format!("{who} takes writes"));
            self.pass(BEFORE_RETURN)?;
        }
        // Also if it came to no end: clients that hang could not be ended otherwise.
        if !frozen.is_empty() {
            self.mark(run, MarkKind::Mended, "n1 goes on");
            faults::thaw(frozen);
        }
        if let Some(network) = &self.network {
            self.mark(run, MarkKind::Mended, "the network is whole again");
            network.heal();
        }
        result?;
        match fault {
            Fault::KillReplica => {
                let n3 = node(&self.cluster, "n3")?;
                n3.start().map_err(failed("n3 does not start"))?;
                self.mark(run, MarkKind::Mended, "n3 is started again");
            }
            Fault::Switchover => self.follow(n1, run)?,
            _ => {}
        }
        self.pass(self.plain.seconds.saturating_sub(self.load.now().saturating_sub(at)))
    }

    /// What an operator types, without having to think.
    fn promote(&self, run: &mut Run) -> Result<(), End> {
        let [n2, n3] = [node(&self.cluster, "n2")?, node(&self.cluster, "n3")?];
        self.mark(run, MarkKind::Mended, "the operator promotes n2, and points n3 to it");
        n2.sql("SELECT pg_promote()").map_err(failed("n2 is not promoted"))?;
        let slot = "SELECT pg_create_physical_replication_slot('n3')";
        n2.sql(slot).map_err(failed("no slot for n3"))?;
        let info = n3.sql("SHOW primary_conninfo").map_err(failed("n3 does not answer"))?;
        n3.set("primary_conninfo", &leading_to(&info, n2)).map_err(failed("n3 cannot be pointed to n2"))
    }

    /// The node of the past comes back as a standby, after a clean stop.
    fn follow(&self, old: &Node, run: &mut Run) -> Result<(), End> {
        let [n2, n3] = [node(&self.cluster, "n2")?, node(&self.cluster, "n3")?];
        let what = "n1 does not come back";
        let slot = format!("SELECT pg_create_physical_replication_slot('{}')", old.id);
        n2.sql(&slot).map_err(failed(what))?;
        let info = n3.sql("SHOW primary_conninfo").map_err(failed(what))?.replace("'", "''");
        let settings = format!("primary_conninfo = '{info}'\nprimary_slot_name = '{}'\n", old.id);
        old.write_file("standby.signal", b"").map_err(failed(what))?;
        old.write_file("postgresql.auto.conf", settings.as_bytes()).map_err(failed(what))?;
        old.start().map_err(failed(what))?;
        self.mark(run, MarkKind::Mended, "n1 is started again, as a standby");
        Ok(())
    }

    /// Lets time pass.
    fn pass(&self, time: Duration) -> Result<(), End> {
        match self.plain.cancel.wait_for(time) {
            true => Err(End::Stuck { reason: "it was interrupted".into() }),
            false => Ok(()),
        }
    }

    fn wait(&self, what: &str, is_so: impl Fn() -> bool) -> Result<(), End> {
        let deadline = Instant::now() + LIMIT;
        while !is_so() {
            if Instant::now() > deadline {
                return Err(End::Stuck { reason: format!("not so after {}: {what}", span(ms(LIMIT))) });
            }
            self.pass(LOOK)?;
        }
        Ok(())
    }
}

fn node<'c>(cluster: &'c Cluster, id: &str) -> Result<&'c Node, End> {
    cluster.node(id).ok_or_else(|| End::Stuck { reason: format!("there is no {id}") })
}

/// Of what is there twice in a connection string, libpq takes the later.
fn leading_to(info: &str, node: &Node) -> String {
    format!("{info} host={} port={}", node.host(), node.port())
}

/// Whether the node of the past took writes after another had been promoted; they are all lost.
fn one_primary(cluster: &Cluster, new: &str, log: &super::load::Log, run: &Run) -> Judged {
    let promoted = run.marks.iter().find(|mark| mark.kind == MarkKind::Mended && mark.text.contains("promotes"));
    let Some(promoted) = promoted.filter(|_| new != "n1") else {
        return not_applicable(Promise::OnePrimary, "n1 was the primary all the time");
    };
    let zombie = cluster.node("n1").and_then(Tables::of_a_primary);
    let Some(zombie) = zombie else {
        return not_applicable(Promise::OnePrimary, "n1 did not come back as a primary");
    };
    let behind = written_behind_the_back(log, &zombie, Duration::from_millis(promoted.at));
    let against = match behind.is_empty() {
        true => String::new(),
        false => format!(
            "n1 took {} after n2 had been promoted: {}",
            counted(behind.len() as u64, "write"),
            examples(&behind)
        ),
    };
    super::findings::judged(Promise::OnePrimary, against)
}
