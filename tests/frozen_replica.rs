//! A replica stops as a paused virtual machine does: its connections stay open, and nobody answers. Whoever waits for it is
//! answered all the same.

#[path = "support/nodes.rs"]
mod nodes;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::collections::BTreeSet;

use nodes::{Crowd, Ledger, mark, reads, until_replicas_serve, watched_cluster};
use pgbaton::demo::Node;
use rustix::process::Signal;
use support::{DEADLINE, Proxy, wait_until};
use wire::{Batch, Login, Wire};

/// The processes of a node, stopped until this is dropped.
struct Frozen(BTreeSet<u32>);

impl Frozen {
    fn all_of(node: &Node) -> Frozen {
        let postmaster = node.pid().unwrap();
        // First the one that makes others, then those there are.
        support::send(postmaster, Signal::STOP);
        let frozen = Frozen(children(postmaster).into_iter().chain([postmaster]).collect());
        frozen.send(Signal::STOP);
        frozen
    }

    fn send(&self, signal: Signal) {
        for pid in &self.0 {
            // One that has ended meanwhile is of no interest.
            let pid = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw).unwrap();
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.send(Signal::CONT);
    }
}

/// PostgreSQL's processes are all children of the postmaster.
fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after =
            stat.rsplit_once(')').map(|(_, after)| after.split_whitespace().nth(1) == Some(&parent.to_string()));
        after.unwrap_or_default()
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_child).collect()
}

fn send(client: &mut Wire, sql: &str) {
    client.send(&Batch::new().query(sql).0).unwrap();
}

#[test]
fn whoever_waits_for_a_frozen_replica_is_answered() {
    let cluster = watched_cluster(1);
    let primary = &cluster.nodes()[0];
    primary.sql("CREATE TABLE t (id int PRIMARY KEY, n text)").unwrap();
    primary.sql("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 30000) AS i").unwrap();
    primary.sql("CREATE TABLE own (id int PRIMARY KEY, n bigint); INSERT INTO own VALUES (1, 0)").unwrap();
    cluster.wait_for_replicas().unwrap();
    let ledger = Ledger::of(&cluster);
    let proxy = Proxy::start(&cluster, &reads(&cluster, "consistency = \"eventual\"\nmax_lag_bytes = \"1GiB\""));
    until_replicas_serve(proxy.port, &ledger);
    let login = Login::to(proxy.port);
    let seen = mark("seen");

    let crowd = Crowd::start(proxy.port, 4);
    let mut block = login.connect();
    block.run("BEGIN READ ONLY");
    assert_eq!(block.value(&format!("SELECT count(*) FROM t WHERE id < 0 /* {seen} */")), "0");
    // Waits in its block, and hears of it only when it says something.
    let mut idle = login.connect();
    idle.run("BEGIN READ ONLY");
    assert_eq!(idle.value(&format!("SELECT count(*) FROM t WHERE id < 0 /* {seen} */")), "0");
    // Has got some of its rows.
    let mut result = login.connect();
    send(&mut result, &format!("SELECT * FROM t /* {seen} */"));
    assert_eq!(result.until(b"D").unwrap().tags, "TD");
    wait_until(DEADLINE, "all three are at the replica", || ledger.count(&seen).of("n2") == 3);
    let mut simple = login.connect();
    let mut extended = login.connect();
    // Its settings are still to be made there.
    let mut set = login.connect();
    set.run("SET timezone = 'Asia/Tokyo'");
    let mut fresh = login.connect();
    wait_until(DEADLINE, "the crowd reads there", || ledger.count(&crowd.mark).of("n2") > 20);

    let frozen = Frozen::all_of(cluster.node("n2").unwrap());
    send(&mut simple, "SELECT count(*) FROM t");
    extended.send(&Batch::new().parse("", "SELECT count(*) FROM t").describe(b'S', "").run("", &[]).sync().0).unwrap();
    send(&mut set, "SELECT current_setting('timezone') FROM t WHERE id = 1");
    send(&mut fresh, "SELECT n FROM own WHERE id = 1");
    send(&mut block, "SELECT count(*) FROM t");
    assert_eq!(simple.until(b"Z").unwrap().value(), "30000");
    assert_eq!(extended.until(b"Z").unwrap().value(), "30000");
    assert_eq!(set.until(b"Z").unwrap().value(), "Asia/Tokyo");
    assert_eq!(fresh.until(b"Z").unwrap().value(), "0");
    let lost = block.until(b"Z").unwrap();
    assert_eq!((lost.code(), lost.status), ("40001", b'E'), "{lost:?}");
    let lost = result.until(b"Z").unwrap();
    assert_eq!((lost.code(), lost.status), ("40001", b'I'), "{:?}", lost.errors);
    let lost = idle.query("SELECT 1");
    assert_eq!((lost.code(), lost.status), ("40001", b'E'), "{lost:?}");
    let reached = ledger.count(&crowd.mark).of("n1");
    wait_until(DEADLINE, "the crowd reads on", || ledger.count(&crowd.mark).of("n1") > reached + 50);
    for client in [&mut block, &mut idle] {
        client.run("ROLLBACK");
    }
    for client in [&mut simple, &mut extended, &mut set, &mut fresh, &mut block, &mut idle, &mut result] {
        assert_eq!(client.value("SELECT count(*) FROM t"), "30000");
    }

    // It goes on where it was, and so do the reads.
    drop(frozen);
    until_replicas_serve(proxy.port, &ledger);
    let again = ledger.count(&crowd.mark).of("n2");
    wait_until(DEADLINE, "the crowd reads there again", || ledger.count(&crowd.mark).of("n2") > again + 20);
    println!("{} reads", crowd.end());
    for client in [&mut simple, &mut extended, &mut set, &mut fresh, &mut block, &mut idle, &mut result] {
        assert_eq!(client.value("SELECT count(*) FROM t"), "30000");
    }
}

#[test]
fn a_block_that_is_to_move_does_not_wait_for_a_frozen_replica() {
    let cluster = watched_cluster(1);
    let primary = &cluster.nodes()[0];
    primary.sql("CREATE TABLE own (id int PRIMARY KEY, n bigint); INSERT INTO own VALUES (1, 0)").unwrap();
    cluster.wait_for_replicas().unwrap();
    let ledger = Ledger::of(&cluster);
    let proxy = Proxy::start(&cluster, &reads(&cluster, ""));
    until_replicas_serve(proxy.port, &ledger);
    let mut clients: Vec<Wire> = (0..3).map(|_| Login::to(proxy.port).connect()).collect();
    for client in &mut clients {
        client.run("BEGIN READ ONLY");
    }
    let _frozen = Frozen::all_of(cluster.node("n2").unwrap());
    // They may be moved to the replica and back, or be lost with it; none of them waits for it.
    for (client, sql) in
        clients.iter_mut().zip(["SELECT n FROM own", "SELECT txid_current()", "SELECT nextval('none')"])
    {
        send(client, sql);
    }
    for client in &mut clients {
        let answer = client.until(b"Z").unwrap();
        assert!(answer.errors.iter().all(|error| ["40001", "42P01"].contains(&&*error.code)), "{answer:?}");
        client.run("ROLLBACK");
        assert_eq!(client.value("SELECT n FROM own"), "0");
    }
}
