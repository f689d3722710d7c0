//! Reads are spread over the replicas as `balance`, zones and weights say, counted in the nodes' own logs; and a session
//! can say where its reads shall go, and ask where they went.

#[path = "support/nodes.rs"]
mod nodes;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nodes::{Ledger, Shares, Standby, mark, reads, until_reads, until_replicas_serve, watched_cluster};
use pgbaton::demo::{Cluster, Shutdown};
use support::{DEADLINE, Proxy, wait_until};
use wire::{Batch, Login};

/// Every replica may serve every read, so that `balance` alone decides. At `session` the choice is among those that are known
/// to have all that the session has seen, which a proxy knows of the others only after it has asked them again.
const FREE: &str = "consistency = \"eventual\"";

/// Reads in a measurement: random choices between two nodes then deviate by 0.8 % (one sigma).
const READS: usize = 4000;
const CLIENTS: usize = 8;

fn set_up(cluster: &Cluster) {
    let sql = "CREATE TABLE item AS SELECT id, md5(id::text) AS name FROM generate_series(1, 1000) id;
               ALTER TABLE item ADD PRIMARY KEY (id)";
    cluster.nodes()[0].sql(sql).unwrap();
    cluster.wait_for_replicas().unwrap();
}

/// Two replicas, for the tests that break nothing and write nothing: with nobody writing, every replica is always as fresh
/// as every other, so that only `balance` decides.
fn calm() -> &'static Cluster {
    static CALM: OnceLock<Cluster> = OnceLock::new();
    CALM.get_or_init(|| {
        let cluster = watched_cluster(2);
        set_up(&cluster);
        cluster
    })
}

/// Without slow start. `lines` may say more of `[reads]`; see [`FREE`].
fn proxy(cluster: &Cluster, lines: &str, nodes: &[(&'static str, &str)]) -> Proxy {
    let mut settings = reads(cluster, &format!("slow_start = \"0s\"\n{lines}"));
    settings.node_lines = nodes.iter().map(|(id, lines)| (*id, lines.to_string())).collect();
    Proxy::start(cluster, &settings)
}

/// A read-mostly load of several clients at once, and which node ran how many of its reads.
fn load(port: u16, ledger: &Ledger, count: usize) -> Shares {
    let mark = mark("load");
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let mark = &mark;
            scope.spawn(move || {
                let mut client = Login::to(port).connect();
                let sql = format!("SELECT name FROM item WHERE id = $1 /* {mark} */");
                client.batch(Batch::new().parse("by_id", &sql).sync()).ok();
                for turn in 0..count / CLIENTS {
                    let id = (1 + (number * 131 + turn * 7) % 1000).to_string();
                    match turn % 3 {
                        0 => client.batch(Batch::new().run("by_id", &[Some(&id)]).sync()),
                        1 => client.batch(Batch::new().parse("", &sql).run("", &[Some(&id)]).sync()),
                        _ => client.query(&sql.replace("$1", &id)),
                    }
                    .value();
                }
            });
        }
    });
    ledger.count(&mark)
}

fn close_to(shares: &Shares, id: &str, part: f64, tolerance: f64) {
    let off = (shares.part(id) - part).abs();
    assert!(off <= tolerance, "{id} was to have {:.1} %: {shares}", 100.0 * part);
}

// --- the ways to balance ----------------------------------------------------------------------------------------------

#[test]
fn every_way_to_balance_spreads_a_read_load_over_both_replicas() {
    let cluster = calm();
    for (balance, tolerance) in
        [("round_robin", 0.03), ("random", 0.05), ("least_connections", 0.15), ("weighted_round_robin", 0.03)]
    {
        let ledger = Ledger::of(cluster);
        let proxy = proxy(cluster, &format!("{FREE}\nbalance = \"{balance}\""), &[]);
        until_replicas_serve(proxy.port, &ledger);
        let shares = load(proxy.port, &ledger, READS);
        println!("{balance}: {shares}");
        assert!(shares.part("n1") < 0.01, "{balance}: {shares}");
        close_to(&shares, "n2", 0.5, tolerance);
    }
    // At `session` both have their part.
    let ledger = Ledger::of(cluster);
    let careful = proxy(cluster, "", &[]);
    until_replicas_serve(careful.port, &ledger);
    let shares = load(careful.port, &ledger, READS);
    println!("at session: {shares}");
    assert!(shares.part("n1") < 0.05 && shares.part("n2") > 0.2 && shares.part("n3") > 0.2, "{shares}");
    // Which one is faster is for the day to say, but replicas serve.
    let ledger = Ledger::of(cluster);
    let proxy = proxy(cluster, "balance = \"fastest\"", &[]);
    until_replicas_serve(proxy.port, &ledger);
    let shares = load(proxy.port, &ledger, READS);
    println!("fastest: {shares}");
    assert!(shares.part("n1") < 0.01, "fastest: {shares}");
}

#[test]
fn weights_decide_how_much_a_replica_gets() {
    let cluster = calm();
    let ledger = Ledger::of(cluster);
    let weights = [("n2", "weight = 3"), ("n3", "weight = 1")];
    let lines = format!("{FREE}\nbalance = \"weighted_round_robin\"");
    let proxy = proxy(cluster, &lines, &weights);
    until_replicas_serve(proxy.port, &ledger);
    let shares = load(proxy.port, &ledger, READS);
    println!("3:1: {shares}");
    close_to(&shares, "n2", 0.75, 0.05 * 0.75);
    close_to(&shares, "n3", 0.25, 0.05 * 0.25);
}

#[test]
fn a_replica_of_weight_zero_gets_no_reads() {
    let cluster = calm();
    for balance in ["round_robin", "least_connections", "consistent_hash", "fastest"] {
        let ledger = Ledger::of(cluster);
        let proxy = proxy(cluster, &format!("balance = \"{balance}\""), &[("n3", "weight = 0")]);
        until_replicas_serve(proxy.port, &ledger);
        let shares = load(proxy.port, &ledger, 400);
        assert_eq!(shares.only(), Some("n2"), "{balance}: {shares}");
    }
}

/// Every session's reads have to be as fresh as the last one it saw, whoever wrote in between.
#[test]
fn a_load_with_writes_in_it_spreads_too() {
    let cluster = watched_cluster(2);
    set_up(&cluster);
    let ledger = Ledger::of(&cluster);
    let proxy = proxy(&cluster, "", &[]);
    until_replicas_serve(proxy.port, &ledger);
    let (begin, length, mark) = (Instant::now(), Duration::from_secs(3), mark("mostly"));
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (mark, port) = (&mark, proxy.port);
            scope.spawn(move || {
                let mut client = Login::to(port).connect();
                let mut written = Instant::now();
                while begin.elapsed() < length {
                    // One of them writes, ten times a second.
                    if number == 0 && written.elapsed() > Duration::from_millis(100) {
                        client.run("UPDATE item SET name = name || '.' WHERE id = 5");
                        written = Instant::now();
                    }
                    client.value(&format!("SELECT name FROM item WHERE id = 5 /* {mark} */"));
                    std::thread::sleep(Duration::from_millis(3));
                }
            });
        }
    });
    let shares = ledger.count(&mark);
    println!("with writes: {shares}");
    assert!(shares.replicas() * 2 > shares.total(), "{shares}");
    for id in ["n2", "n3"] {
        assert!(shares.part(id) > 0.1, "{shares}");
    }
}

// --- consistent hashing -----------------------------------------------------------------------------------------------

const KEYS: usize = 48;

/// Which node serves each key, by what several connections see; or which key was seen in several places.
fn homes(port: u16, ledger: &Ledger) -> Result<BTreeMap<String, String>, String> {
    let name = mark("key");
    for _ in 0..2 {
        let mut client = Login::to(port).connect();
        for key in 0..KEYS {
            client.run(&format!("SET pgbaton.key = 'customer {key}'"));
            for _ in 0..2 {
                client.value(&format!("SELECT name FROM item WHERE id = 1 /* {name}={key} */"));
            }
        }
    }
    let home = |(key, shares): (String, Shares)| match shares.only() {
        Some(home) => Ok((key, home.to_owned())),
        None => Err(format!("key {key} was seen at {shares}")),
    };
    ledger.by_rest(&name).into_iter().map(home).collect()
}

fn at_home(homes: &BTreeMap<String, String>, id: &str) -> usize {
    homes.values().filter(|home| *home == id).count()
}

#[test]
fn a_key_stays_with_its_node_and_only_those_of_a_node_that_leaves_move() {
    let cluster = watched_cluster(3);
    set_up(&cluster);
    let ledger = Ledger::of(&cluster);
    let proxy = proxy(&cluster, &format!("{FREE}\nbalance = \"consistent_hash\"\nhash_by = \"key\""), &[]);
    until_replicas_serve(proxy.port, &ledger);
    // A proxy that has just started may not have met all replicas yet, so nodes come and keys move.
    let spread = |homes: &BTreeMap<String, String>| ["n2", "n3", "n4"].iter().all(|id| at_home(homes, id) >= 4);
    wait_until(DEADLINE, "every replica is home to some of the keys", || {
        homes(proxy.port, &ledger).is_ok_and(|homes| spread(&homes))
    });
    let before = homes(proxy.port, &ledger).unwrap();
    assert!(spread(&before));
    let count = |homes: &BTreeMap<String, String>| ["n1", "n2", "n3", "n4"].map(|id| at_home(homes, id));
    println!("keys at n1, n2, n3, n4: {:?}", count(&before));

    let leaving = cluster.node("n2").unwrap();
    leaving.stop(Shutdown::Fast);
    let mut during = BTreeMap::new();
    wait_until(DEADLINE, "keys of n2 have moved to the other replicas", || {
        during = homes(proxy.port, &ledger).unwrap_or_default();
        during.len() == KEYS && at_home(&during, "n2") == 0 && at_home(&during, "n1") == 0
    });
    println!("without n2: {:?}", count(&during));
    for (key, home) in before.iter().filter(|(_, home)| *home != "n2") {
        assert_eq!(&during[key], home, "key {key} had no reason to move");
    }

    leaving.start().unwrap();
    wait_until(DEADLINE, "every key is at home again", || {
        homes(proxy.port, &ledger).is_ok_and(|after| after == before)
    });
}

#[test]
fn an_application_can_be_the_key_and_so_can_a_user() {
    let cluster = calm();
    for hash_by in ["application", "user"] {
        let ledger = Ledger::of(cluster);
        let proxy = proxy(cluster, &format!("balance = \"consistent_hash\"\nhash_by = \"{hash_by}\""), &[]);
        until_replicas_serve(proxy.port, &ledger);
        let name = mark(hash_by);
        for _ in 0..3 {
            for number in 0..16 {
                let application = format!("worker {number}");
                let mut client = Login::to(proxy.port).with("application_name", &application).connect();
                for _ in 0..2 {
                    client.value(&format!("SELECT 1 /* {name}={number} */"));
                }
            }
        }
        let all = ledger.by_rest(&name);
        let homes: Vec<_> = all.values().map(|shares| shares.only().map(str::to_owned)).collect();
        assert!(homes.iter().all(Option::is_some), "{hash_by}: {all:?}");
        let differ = homes.iter().any(|home| *home != homes[0]);
        assert_eq!(differ, hash_by == "application", "sixteen applications of one user, by {hash_by}: {homes:?}");
    }
}

// --- zones ------------------------------------------------------------------------------------------------------------

#[test]
fn the_near_replica_gets_all_reads_while_it_may_serve() {
    let cluster = watched_cluster(2);
    set_up(&cluster);
    let ledger = Ledger::of(&cluster);
    let zones = [("n1", "zone = \"east\""), ("n2", "zone = \"west\""), ("n3", "zone = \"east\"")];
    let proxy = proxy(&cluster, "zone = \"west\"\nmax_lag = \"1s\"", &zones);
    let near = |shares: &Shares| shares.only() == Some("n2");
    let far = |shares: &Shares| shares.only() == Some("n3");
    until_reads(proxy.port, &ledger, "reads run on the near replica", near);
    let shares = load(proxy.port, &ledger, 800);
    assert!(near(&shares), "{shares}");
    // Too far behind, then gone.
    let mut standby = Standby::of(cluster.node("n2").unwrap());
    standby.pause();
    cluster.nodes()[0].sql("UPDATE item SET name = 'other' WHERE id = 1").unwrap();
    until_reads(proxy.port, &ledger, "reads run on the far replica while the near one lags", far);
    standby.resume();
    until_reads(proxy.port, &ledger, "reads run on the near replica again", near);
    cluster.node("n2").unwrap().stop(Shutdown::Fast);
    until_reads(proxy.port, &ledger, "reads run on the far replica while the near one is gone", far);
    cluster.node("n2").unwrap().start().unwrap();
    until_reads(proxy.port, &ledger, "reads run on the near replica when it is back", near);
}

// --- replicas that come, and replicas that fail -----------------------------------------------------------------------

#[test]
fn a_replica_that_comes_back_gets_its_share_step_by_step() {
    let cluster = watched_cluster(2);
    set_up(&cluster);
    let ledger = Ledger::of(&cluster);
    let proxy = Proxy::start(&cluster, &reads(&cluster, &format!("{FREE}\nbalance = \"random\"\nslow_start = \"4s\"")));
    let mut client = Login::to(proxy.port).connect();
    let mut window = |length: Duration| {
        let (begin, mark) = (Instant::now(), mark("slow"));
        while begin.elapsed() < length {
            client.value(&format!("SELECT 1 /* {mark} */"));
            std::thread::sleep(Duration::from_millis(2));
        }
        ledger.count(&mark)
    };
    // Whether a proxy that has just started takes its time too is not asked here.
    let full = |shares: &Shares| shares.part("n2") > 0.4 && shares.part("n3") > 0.4;
    wait_until(DEADLINE, "both replicas serve evenly", || full(&window(Duration::from_millis(500))));
    cluster.node("n3").unwrap().stop(Shutdown::Fast);
    let is_gone = |line: &str| line.contains("replica gets no more reads") && line.contains("node=n3");
    wait_until(DEADLINE, "its absence is noticed", || {
        window(Duration::from_millis(50));
        proxy.log().lines().any(is_gone)
    });
    cluster.node("n3").unwrap().start().unwrap();
    let mut first = Shares::default();
    wait_until(DEADLINE, "the replica that came back serves", || {
        first = window(Duration::from_millis(500));
        first.of("n3") > 0
    });
    println!("at first: {first}");
    assert!(first.part("n3") < 0.35, "no slow start: {first}");
    wait_until(DEADLINE, "it has its full share in the end", || {
        let later = window(Duration::from_millis(500));
        println!("then: {later}");
        full(&later)
    });
}

#[test]
fn a_replica_that_refuses_everybody_is_left_alone_and_nobody_notices() {
    let cluster = watched_cluster(2);
    set_up(&cluster);
    let ledger = Ledger::of(&cluster);
    // Its health looks fine to the control user all the while.
    let proxy = proxy(&cluster, &format!("{FREE}\nbalance = \"round_robin\""), &[]);
    until_reads(proxy.port, &ledger, "both replicas serve", |shares| shares.of("n2") > 0 && shares.of("n3") > 0);
    let broken = cluster.node("n3").unwrap();
    let good = std::fs::read(broken.data_directory().join("pg_hba.conf")).unwrap();
    let bad = [b"host all demo 127.0.0.1/32 reject\n".as_slice(), &good].concat();
    broken.write_file("pg_hba.conf", &bad).unwrap();
    broken.reload().unwrap();
    wait_until(DEADLINE, "n3 refuses", || Login::to(broken.port()).attempt().is_ok_and(|said| said.is_err()));
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE usename = 'demo' AND pid <> pg_backend_pid()";
    broken.sql(end).unwrap();
    let before = ledger.lines_with("n3", "pg_hba.conf rejects connection");
    let shares = load(proxy.port, &ledger, READS);
    let tried = ledger.lines_with("n3", "pg_hba.conf rejects connection") - before;
    println!("{shares}; n3 was tried {tried} times");
    assert_eq!(shares.of("n1") + shares.of("n2"), READS, "{shares}");
    assert!(shares.of("n2") > shares.of("n1"), "the other replica takes over: {shares}");
    assert!(tried < READS / 20, "n3 was tried {tried} times for {READS} reads");
    broken.write_file("pg_hba.conf", &good).unwrap();
    broken.reload().unwrap();
    until_reads(proxy.port, &ledger, "n3 serves again", |shares| shares.of("n3") > 0);
}

// --- a session's own wishes -------------------------------------------------------------------------------------------

#[test]
fn a_session_says_where_its_reads_go_and_hears_where_they_went() {
    let cluster = watched_cluster(1);
    set_up(&cluster);
    let ledger = Ledger::of(&cluster);
    let proxy = proxy(&cluster, "", &[]);
    until_replicas_serve(proxy.port, &ledger);
    let mut client = Login::to(proxy.port).connect();
    let where_from = |client: &mut wire::Wire| {
        let mark = mark("where");
        client.value(&format!("SELECT count(*) FROM item /* {mark} */"));
        let seen = ledger.count(&mark).only().unwrap().to_owned();
        assert_eq!(client.value("SHOW pgbaton.node"), seen);
        assert_ne!(client.value("SHOW pgbaton.route"), "");
        seen
    };
    client.run("SET pgbaton.target = 'primary'");
    assert_eq!(where_from(&mut client), "n1");
    // What it has seen on the primary has to be known of a replica first.
    client.run("SET pgbaton.target = 'replica'");
    wait_until(DEADLINE, "the session reads at the replica", || where_from(&mut client) == "n2");
    client.run("SET pgbaton.target = 'auto'");
    wait_until(DEADLINE, "the session reads at the replica again", || where_from(&mut client) == "n2");
    client.run("UPDATE item SET name = name WHERE id = 3");
    assert_eq!(client.value("SHOW pgbaton.node"), "n1");
    assert_eq!(client.query("SET pgbaton.target = 'elsewhere'").code(), "22023");
    // A wish: what cannot run on a replica still goes to the primary.
    client.run("SET pgbaton.target = 'replica'");
    client.run("UPDATE item SET name = name WHERE id = 4");
    client.run("BEGIN; SET LOCAL pgbaton.target = 'primary'; COMMIT");
    assert_eq!(client.value("SHOW pgbaton.target"), "replica");
    let mut by_option = Login::to(proxy.port).with("options", "-c pgbaton.target=primary").connect();
    assert_eq!(where_from(&mut by_option), "n1");
    let comment = mark("comment");
    let mut plain = Login::to(proxy.port).connect();
    plain.value(&format!("/* pgbaton: primary */ SELECT count(*) FROM item /* {comment} */"));
    assert_eq!(ledger.count(&comment).only(), Some("n1"));
}

#[test]
fn without_the_split_every_statement_goes_to_the_primary() {
    let cluster = calm();
    let ledger = Ledger::of(cluster);
    let settings = reads(cluster, "enabled = false");
    let proxy = Proxy::start(cluster, &settings);
    let shares = load(proxy.port, &ledger, 400);
    assert_eq!(shares.only(), Some("n1"), "{shares}");
}
