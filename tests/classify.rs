//! The corpus of `tests/classify/`: what statements really do, where they really ran, and whether anybody could tell.
//!
//! Every case is played twice: directly on the primary, in a database that is a copy, and through pgbaton in front of a
//! primary and two replicas. All that came back has to be equal. Where a statement ran is read from the logs of the
//! nodes, so that pgbaton's own opinion of it plays no part. `PGBATON_CLASSIFY=theme` or `theme:word` plays a part of it.

#[path = "classify/corpus.rs"]
mod corpus;
#[path = "classify/play.rs"]
mod play;
mod support;
#[path = "classify/whereabouts.rs"]
mod whereabouts;
#[path = "support/wire.rs"]
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use corpus::{Case, Protocol, Target, Theme};
use pgbaton::demo::{Cluster, DATABASE, PASSWORD, USER};
use play::{Exchange, Stage};
use support::{Proxy, ProxySettings, wait_until};
use whereabouts::Whereabouts;
use wire::{Login, Wire};

/// The database of the direct connection. As long as the other's name, so that it can be put in its place.
const TWIN: &str = "twin";
/// A role without any right but those the set-ups give it.
const PLAIN_USER: &str = "plain";
/// Of all that a replica may run, how much has to run there.
const PERCENT_WANTED: usize = 95;
const PLAYERS: usize = 4;

/// One case played under one protocol.
struct Played<'a> {
    theme: usize,
    case: &'a Case,
    protocol: Protocol,
    /// Of its first step; the others follow.
    first_marker: usize,
    direct: Vec<Vec<Exchange>>,
    proxied: Vec<Vec<Exchange>>,
    /// What a replica itself says to a case of which it may run everything: whether the corpus is right about that.
    replica: Option<Vec<Vec<Exchange>>>,
    broken: Option<String>,
}

#[derive(Default, Clone)]
struct Count {
    cases: usize,
    statements: usize,
    for_primary: usize,
    for_replica: usize,
    on_replica: usize,
    free: usize,
    strayed: usize,
    unequal: usize,
    other: usize,
}

#[test]
fn every_statement_runs_where_it_may_and_nobody_can_tell() {
    assert_eq!(TWIN.len(), DATABASE.len());
    let themes = chosen(corpus::read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/classify")));
    let cluster = support::cluster_with(2, &[("log_statement", "all"), ("max_connections", "200")]);
    set_up(&cluster, &themes);
    let proxy = Proxy::start(&cluster, &settings(&cluster));
    let begun = Instant::now();
    Settle::new(&cluster, proxy.port).wait_for_reads();
    println!("a read reached a replica after {:.1} s", seconds(begun));

    let begun = Instant::now();
    let played = play_all(&cluster, &proxy, &themes);
    println!("played in {:.1} s", seconds(begun));
    let expected = played.iter().flat_map(expected_somewhere).collect();
    let whereabouts = whereabouts::read(&cluster, &expected, Duration::from_secs(5));
    let primary = cluster.primary().unwrap().id.clone();

    let mut counts = vec![Count::default(); themes.len()];
    for played in &played {
        let complaints = judge(played, &whereabouts, &primary, &mut counts[played.theme]);
        for complaint in complaints {
            println!("{}.sql:{complaint}", themes[played.theme].name);
        }
    }
    for (theme, count) in themes.iter().zip(&mut counts) {
        count.cases = theme.cases.len();
    }
    let total = print_table(&themes, &counts);
    assert_eq!(total.strayed, 0, "statements that had to run on the primary reached a replica");
    assert_eq!(total.unequal, 0, "results differ from those of a direct connection");
    assert_eq!(total.other, 0, "the corpus is not what it says, or a statement was lost or split");
    assert!(
        total.on_replica * 100 >= total.for_replica * PERCENT_WANTED,
        "{} of {} statements a replica may run ran on one",
        total.on_replica,
        total.for_replica
    );
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

/// All themes, or the part that `PGBATON_CLASSIFY` names.
fn chosen(mut themes: Vec<Theme>) -> Vec<Theme> {
    let Ok(choice) = std::env::var("PGBATON_CLASSIFY") else { return themes };
    let (theme, word) = choice.split_once(':').unwrap_or((&choice, ""));
    themes.retain(|candidate| candidate.name.contains(theme));
    for theme in &mut themes {
        theme.cases.retain(|case| case.name.contains(word));
    }
    themes
}

// --- the ground -------------------------------------------------------------------------------------------------------

/// Makes what all cases need, then the twin as a copy of it, so that object ids are the same in both.
fn set_up(cluster: &Cluster, themes: &[Theme]) {
    let primary = cluster.primary().unwrap();
    let hba = "local all all trust\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n";
    primary.write_file("pg_hba.conf", hba.as_bytes()).unwrap();
    primary.reload().unwrap();
    let run = |sql: &str, what: &str| primary.sql(sql).unwrap_or_else(|error| panic!("set-up of {what}: {error}"));
    run(&format!("CREATE ROLE {PLAIN_USER} LOGIN PASSWORD '{PASSWORD}'"), "roles");
    for theme in themes {
        run(&theme.setup, &theme.name);
    }
    run("VACUUM ANALYZE", "statistics");
    primary.sql_in("postgres", &format!("CREATE DATABASE {TWIN} TEMPLATE {DATABASE}")).unwrap();
    cluster.wait_for_replicas().unwrap();
}

/// Everybody comes in unasked; the passwords are for the nodes.
fn settings(cluster: &Cluster) -> ProxySettings {
    let file = cluster.directory().join("users");
    std::fs::write(&file, format!("\"{USER}\" \"{PASSWORD}\"\n\"{PLAIN_USER}\" \"{PASSWORD}\"\n")).unwrap();
    support::set_mode(&file, 0o600);
    ProxySettings {
        auth: format!("method = \"file\"\nusers_file = \"{}\"", file.display()),
        // It soon knows how far replicas are, so that nobody waits for long.
        sections: "[failover]\nautomatic = false\nprobe_interval = \"50ms\"\n[[auth.rules]]\nmethod = \"trust\"".into(),
        ..Default::default()
    }
}

fn next_markers(count: usize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(count, Ordering::Relaxed)
}

/// Waits until a read may go to a replica and see everything written so far.
struct Settle {
    primary: Wire,
    replicas: Vec<Wire>,
    proxy: Wire,
}

impl Settle {
    fn new(cluster: &Cluster, proxy_port: u16) -> Settle {
        let primary = cluster.primary().unwrap();
        let wire = |port| Login::to(port).database("postgres").connect();
        let replicas = cluster.nodes().iter().filter(|node| node.id != primary.id);
        Settle {
            primary: wire(primary.port()),
            replicas: replicas.map(|node| wire(node.port())).collect(),
            proxy: Login::to(proxy_port).connect(),
        }
    }

    /// Both replicas have replayed all commits so far.
    fn wait_for_replay(&mut self) {
        let position = self.primary.value("SELECT pg_current_wal_flush_lsn()");
        for replica in &mut self.replicas {
            let question = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
            wait_until(support::DEADLINE, "a replica replays what was written", || replica.value(&question) == "t");
        }
    }

    /// pgbaton sends reads to replicas: it has seen them, and read the catalog after the last change of it.
    fn wait_for_reads(&mut self) {
        self.wait_for_replay();
        wait_until(support::DEADLINE, "pgbaton reads from replicas", || {
            let probe = format!("SELECT 1 /* probe {} */", next_markers(1));
            self.proxy.run(&probe);
            let question = format!("SELECT count(*) FROM pg_stat_activity WHERE query = '{probe}'");
            self.replicas.iter_mut().any(|replica| replica.value(&question) != "0")
        });
    }

    /// And it knows that replicas have everything up to now: this session has seen the primary, and reads from a replica.
    fn wait_for_knowledge(&mut self) {
        self.proxy.run("/* pgbaton: primary */ SELECT 2");
        self.wait_for_reads();
    }
}

// --- playing ----------------------------------------------------------------------------------------------------------

/// Cases of a theme one after the other, as they may write; themes beside each other, as they have objects of their own.
/// After a change of the catalog pgbaton reads it anew, and sends everybody's reads to the primary until it has; so the
/// cases that make such changes come after the others, and alone.
fn play_all<'a>(cluster: &Cluster, proxy: &Proxy, themes: &'a [Theme]) -> Vec<Played<'a>> {
    // The longest first, so that none of them is alone at the end.
    let mut order: Vec<usize> = (0..themes.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(themes[*at].cases.len()));
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Vec::new());
    let primary = cluster.primary().unwrap();
    let replica = cluster.nodes().iter().find(|node| node.id != primary.id).unwrap();
    let ports = Ports { primary: primary.port(), replica: replica.port(), proxy: proxy.port };
    let play = |theme: usize, changes_catalog: bool, settle: &mut Settle| {
        for case in themes[theme].cases.iter().filter(|case| case.changes_catalog() == changes_catalog) {
            for protocol in &case.protocols {
                let played = play_one(theme, case, *protocol, &ports, settle);
                all.lock().unwrap().push(played);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..PLAYERS {
            scope.spawn(|| {
                let mut settle = Settle::new(cluster, ports.proxy);
                while let Some(theme) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    play(*theme, false, &mut settle);
                }
            });
        }
    });
    let mut settle = Settle::new(cluster, ports.proxy);
    for theme in 0..themes.len() {
        play(theme, true, &mut settle);
    }
    let mut all = all.into_inner().unwrap();
    all.sort_by_key(|played: &Played| (played.theme, played.case.line));
    all
}

struct Ports {
    primary: u16,
    replica: u16,
    proxy: u16,
}

fn play_one<'a>(theme: usize, case: &'a Case, protocol: Protocol, ports: &Ports, settle: &mut Settle) -> Played<'a> {
    let first_marker = next_markers(case.steps.len());
    let login = |port, database: &str| Login {
        user: case.user.clone().unwrap_or_else(|| USER.into()),
        database: database.into(),
        parameters: case.login.clone(),
        ..Login::to(port)
    };
    let mut play = |kind, login| {
        // What cases before this one wrote is on the replicas, so that its reads may go there.
        match kind {
            'p' => settle.wait_for_reads(),
            _ => settle.wait_for_replay(),
        }
        let marker = |at| whereabouts::marker(kind, first_marker + at);
        let mut settled = || match kind {
            'p' => settle.wait_for_knowledge(),
            _ => settle.wait_for_replay(),
        };
        let stage = Stage { login, marker: &marker, settle: &mut settled, number: first_marker };
        play::play(case, protocol, stage)
    };
    let direct = play('d', login(ports.primary, TWIN));
    let proxied = play('p', login(ports.proxy, DATABASE));
    let is_all_for_replicas = case.steps.iter().all(|step| step.target == Target::Replica && !step.own);
    let replica = is_all_for_replicas.then(|| play('d', login(ports.replica, TWIN))).transpose();
    let broken = match (&direct, &proxied, &replica) {
        (Err(error), ..) | (_, _, Err(error)) => Some(format!("the direct connection broke: {error}")),
        (_, Err(error), _) => Some(format!("the connection to pgbaton broke: {error}")),
        _ => None,
    };
    let (direct, proxied) = (direct.unwrap_or_default(), proxied.unwrap_or_default());
    Played { theme, case, protocol, first_marker, direct, proxied, replica: replica.unwrap_or_default(), broken }
}

// --- judging ----------------------------------------------------------------------------------------------------------

/// The markers that have to be in a log.
fn expected_somewhere<'p>(played: &'p Played) -> impl Iterator<Item = usize> + use<'p> {
    let steps = played.case.steps.iter().enumerate();
    let is_expected = move |target| played.broken.is_none() && matches!(target, Target::Replica | Target::Primary);
    steps.filter(move |(_, step)| is_expected(step.target)).map(|(at, _)| played.first_marker + at)
}

/// What is wrong, one line each beginning with the line in the file; counts it too.
fn judge(played: &Played, whereabouts: &Whereabouts, primary: &str, count: &mut Count) -> Vec<String> {
    let Played { case, protocol, .. } = played;
    let mut complaints = Vec::new();
    if let Some(broken) = &played.broken {
        count.other += 1;
        return vec![format!("{}: BROKEN {protocol:?} {}: {broken}", case.line, case.name)];
    }
    let nowhere = BTreeSet::new();
    // Within a transaction block, where the block is.
    let mut block: Option<&BTreeSet<String>> = None;
    let mut statuses = BTreeMap::new();
    for (at, step) in case.steps.iter().enumerate() {
        let nodes = whereabouts.get(&(played.first_marker + at)).unwrap_or(&nowhere);
        let elsewhere = nodes.iter().any(|node| node != primary);
        let mut complain = |what: &str, more: String| {
            let text: String = step.text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(150).collect();
            complaints.push(format!("{}: {what} {protocol:?} [{}] {text}{more}", step.line, case.name));
        };
        count.statements += 1;
        match step.target {
            Target::Primary => {
                count.for_primary += 1;
                if elsewhere {
                    count.strayed += 1;
                    complain("STRAYED", format!(" ran on {nodes:?}"));
                } else if nodes.is_empty() {
                    count.other += 1;
                    complain("LOST", String::new());
                }
            }
            Target::Replica => {
                count.for_replica += 1;
                match (elsewhere && !nodes.contains(primary), nodes.len()) {
                    // More than one: it was executed more than once.
                    (true, _) => count.on_replica += 1,
                    (_, 0) => {
                        count.other += 1;
                        complain("LOST", String::new());
                    }
                    _ => complain("MISSED", format!(" ran on {nodes:?}")),
                }
            }
            Target::Nowhere if !nodes.is_empty() => {
                count.other += 1;
                complain("NOT SKIPPED", format!(" ran on {nodes:?}"));
            }
            Target::Nowhere | Target::Any => count.free += 1,
        }
        let (direct, proxied) = (&played.direct[at], &played.proxied[at]);
        let given: Vec<&String> = direct.iter().flat_map(|exchange| &exchange.errors).collect();
        let is_checked = !step.queued && !step.own;
        if is_checked && given.first().copied() != step.error.as_ref() {
            count.other += 1;
            complain("CORPUS", format!(": a direct connection gives {given:?}\n{}", listing(direct)));
        }
        if let Some(replica) = &played.replica
            && let Some(difference) = difference(direct, &as_primary(&replica[at]))
        {
            count.other += 1;
            complain("CORPUS", format!(": a replica does not give the same\n{difference}"));
        }
        if is_checked && let Some(difference) = difference(direct, proxied) {
            count.unequal += 1;
            complain("UNEQUAL", format!(" ran on {nodes:?}\n{difference}"));
        }
        // A block stays where it is. What begins it may have been kept back, and what ends it was not needed then.
        let status = proxied.last().map_or(b'I', |exchange| exchange.status);
        let before = statuses.insert(step.session, status).unwrap_or(b'I');
        match block {
            _ if before == b'I' || case.steps.iter().any(|step| step.session != 1) => block = None,
            Some(place) if !nodes.is_empty() && place != nodes => {
                count.other += 1;
                complain("SPLIT", format!(" ran on {nodes:?}, the transaction was on {place:?}"));
            }
            None if !nodes.is_empty() => block = Some(nodes),
            _ => {}
        }
    }
    complaints
}

/// The first exchange that differs, in both versions.
fn difference(direct: &[Exchange], proxied: &[Exchange]) -> Option<String> {
    // The twin's name is not a difference.
    let same_name = |lines: &[String]| lines.iter().map(|line| line.replace(TWIN, DATABASE)).collect::<Vec<_>>();
    for (direct, proxied) in direct.iter().zip(proxied) {
        // Markers are in texts that the server shows again.
        let ours = same_name(&proxied.lines).iter().map(|line| line.replace("/*@p", "/*@d")).collect::<Vec<_>>();
        let theirs = same_name(&direct.lines);
        if ours != theirs {
            let at = ours.iter().zip(&theirs).take_while(|(one, other)| one == other).count();
            let rest = |lines: &[String]| lines.iter().skip(at).take(4).cloned().collect::<Vec<_>>().join("\n      ");
            return Some(format!("    direct:\n      {}\n    pgbaton:\n      {}", rest(&theirs), rest(&ours)));
        }
        if direct.parameters != proxied.parameters {
            let differing =
                direct.parameters.iter().filter(|(name, value)| proxied.parameters.get(*name) != Some(value));
            let differing: Vec<_> =
                differing.map(|(name, value)| (name, value, proxied.parameters.get(name))).collect();
            return Some(format!("    reported parameters (name, direct, pgbaton): {differing:?}"));
        }
    }
    (direct.len() != proxied.len()).then(|| "    one has more answers".to_owned())
}

/// A replica that is asked directly says that it is one, which is no difference here.
fn as_primary(exchanges: &[Exchange]) -> Vec<Exchange> {
    let mut exchanges = exchanges.to_vec();
    for exchange in &mut exchanges {
        exchange.parameters.insert("in_hot_standby".into(), "off".into());
    }
    exchanges
}

fn listing(exchanges: &[Exchange]) -> String {
    let lines = exchanges.iter().flat_map(|exchange| &exchange.lines).take(6);
    lines.map(|line| format!("      {line}")).collect::<Vec<_>>().join("\n")
}

/// One line for each theme and one for all; returns the sum.
fn print_table(themes: &[Theme], counts: &[Count]) -> Count {
    let head = ["cases", "runs", "primary", "replica", "reached", "%", "either", "strayed", "unequal", "other"];
    let line = |name: &str, cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>8}")).collect();
        println!("{name:<24}{}", cells.concat());
    };
    println!();
    line("theme", &head.map(str::to_owned));
    let cells = |count: &Count| {
        let percent = match count.for_replica {
            0 => "-".to_owned(),
            all => format!("{:.1}", count.on_replica as f64 * 100.0 / all as f64),
        };
        let numbers = |values: &[usize]| values.iter().map(usize::to_string).collect::<Vec<_>>();
        let mut cells =
            numbers(&[count.cases, count.statements, count.for_primary, count.for_replica, count.on_replica]);
        cells.push(percent);
        cells.extend(numbers(&[count.free, count.strayed, count.unequal, count.other]));
        cells
    };
    let mut total = Count::default();
    for (theme, count) in themes.iter().zip(counts) {
        line(&theme.name, &cells(count));
        total.cases += count.cases;
        total.statements += count.statements;
        total.for_primary += count.for_primary;
        total.for_replica += count.for_replica;
        total.on_replica += count.on_replica;
        total.free += count.free;
        total.strayed += count.strayed;
        total.unequal += count.unequal;
        total.other += count.other;
    }
    line("all", &cells(&total));
    total
}
