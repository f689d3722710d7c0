//! Proof that the checker finds things on real servers: each of these breaks something by hand, and it has to be seen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pgbaton::demo::{Cluster, ClusterOptions};

use crate::checker::{self, Tables};
use crate::load::{CREW, Crew, Load, Log, Outcome, TABLES};
use crate::network::Network;
use crate::support::{self, DEADLINE, wait_until};

/// A while of load, straight at a primary or through a proxy.
fn some_load(port: u16, crew: Crew) -> Log {
    let load = Load::start(SocketAddr::from(([127, 0, 0, 1], port)), None, crew);
    wait_until(DEADLINE, "everybody is connected and writes", || {
        load.connected() == (crew.writers + crew.transfers + crew.own_readers + crew.readers + crew.idle) as u64
            && load.has_written_since(Duration::from_millis(1500))
    });
    load.end()
}

#[test]
fn what_is_planted_in_the_tables_is_found() {
    let _turn = crate::turn();
    let cluster = support::cluster(1);
    let primary = cluster.primary().unwrap();
    primary.sql(TABLES).unwrap();
    let log = some_load(primary.port(), CREW);

    let clean = checker::judge(&log, &Tables::read(primary).unwrap());
    assert_eq!((clean.wrong(), clean.lost.len(), clean.dropped(), clean.unknown()), (0, 0, 0, 0), "{clean}");
    assert!(clean.acknowledged > 200, "{clean}");
    assert!(clean.failed.contains_key("ROLLBACK"), "some must have changed their mind: {clean}");
    assert!(!log.looks.is_empty() && !log.sums.is_empty());
    cluster.wait_for_replicas().unwrap();
    assert_eq!(Tables::read(&cluster.nodes()[1]).unwrap(), Tables::read(primary).unwrap());

    let of = |is: fn(&Outcome) -> bool| {
        let mut ids = log.writes.iter().filter(|write| is(&write.outcome)).map(|write| write.id);
        ids.next().unwrap()
    };
    let acknowledged = of(|outcome| *outcome == Outcome::Acknowledged);
    let failed = of(|outcome| matches!(outcome, Outcome::Failed(_)));
    let judged = |sql: &str| {
        primary.sql(sql).unwrap();
        checker::judge(&log, &Tables::read(primary).unwrap())
    };
    assert_eq!(judged(&format!("DELETE FROM ledger WHERE id = {acknowledged}")).lost, [acknowledged]);
    assert_eq!(
        judged(&format!("INSERT INTO ledger VALUES ({acknowledged}), ({acknowledged})")).doubled,
        [acknowledged]
    );
    assert_eq!(judged(&format!("INSERT INTO ledger VALUES ({failed})")).phantoms, [failed]);
    assert_eq!(judged("INSERT INTO ledger VALUES (77)").invented, [77]);
    let sums = judged("UPDATE accounts SET balance = balance + 1 WHERE id = 1").broken_sums;
    assert_eq!(sums, [10_001], "and nobody saw another on the way");
}

/// A proxy that is told that stale reads are welcome gives them, and that shows.
#[test]
fn a_stale_read_of_ones_own_writes_is_found() {
    let _turn = crate::turn();
    let cluster = support::cluster(1);
    let primary = cluster.primary().unwrap();
    primary.sql(TABLES).unwrap();
    cluster.wait_for_replicas().unwrap();
    let mut settings = crate::nodes::reads(&cluster, "consistency = \"eventual\"");
    settings.cluster = "durability = \"async\"".into();
    let proxy = support::Proxy::start(&cluster, &settings);
    cluster.nodes()[1].sql("SELECT pg_wal_replay_pause()").unwrap();
    let crew = Crew { writers: 0, transfers: 0, own_readers: 4, readers: 0, idle: 0 };
    let log = some_load(proxy.port, crew);
    let verdict = checker::judge(&log, &Tables::read(primary).unwrap());
    assert!(!verdict.stale.is_empty(), "{verdict}");
}

/// All clients lose their server at once, with nothing in between to hold them: they are counted.
#[test]
fn a_crash_without_a_proxy_drops_everybody() {
    let _turn = crate::turn();
    let cluster = support::cluster(0);
    let primary = cluster.primary().unwrap();
    primary.sql(TABLES).unwrap();
    let load = Load::start(SocketAddr::from(([127, 0, 0, 1], primary.port())), None, CREW);
    wait_until(DEADLINE, "writes", || load.has_written_since(Duration::from_millis(1000)));
    crate::faults::kill(primary);
    let fault = load.now();
    primary.start().unwrap();
    wait_until(DEADLINE, "writes again", || load.has_written_since(fault));
    let log = load.end();
    let verdict = checker::judge(&log, &Tables::read(primary).unwrap());
    assert!(verdict.dropped() >= 25, "{verdict}");
    assert_eq!((verdict.lost.len(), verdict.wrong()), (0, 0), "{verdict}");
    assert!(log.write_gap(fault - Duration::from_millis(200)) > Duration::from_millis(20));
}

/// Two primaries by hand, each in a network of its own, and clients that stay with the old one: what they are told there is
/// lost to the new one, and the old one has taken writes behind its back.
#[test]
fn a_split_brain_is_found() {
    let _turn = crate::turn();
    let network = match Network::new(&["n1", "n2"]) {
        Ok(network) => Arc::new(network),
        Err(reason) => return println!("skipped: {reason}"),
    };
    let places = vec![network.place("n1"), network.place("n2")];
    let options = ClusterOptions { replicas: 1, durable: false, places, ..Default::default() };
    let cluster = Cluster::start(options).unwrap_or_else(|error| panic!("{error}"));
    let (old, new) = (&cluster.nodes()[0], &cluster.nodes()[1]);
    old.sql(TABLES).unwrap();
    let load = Load::start(SocketAddr::from((network.address("n1"), old.port())), Some(network.clone()), CREW);
    wait_until(DEADLINE, "writes", || load.has_written_since(Duration::from_millis(1000)));
    network.cut("n1", "n2");
    assert_eq!(new.sql("SELECT pg_promote()").unwrap(), "t");
    let promoted = load.now();
    wait_until(DEADLINE, "writes on the old primary", || load.has_written_since(promoted + Duration::from_millis(500)));
    let log = load.end();
    let zombie = Tables::of_a_primary(old).unwrap();
    assert!(!checker::written_behind_the_back(&log, &zombie, promoted).is_empty());
    let verdict = checker::judge(&log, &Tables::of_a_primary(new).unwrap());
    assert!(!verdict.lost.is_empty(), "{verdict}");
    // How much that was can be read in what is left of it.
    let fork = new.sql("SELECT pg_current_wal_lsn()").unwrap();
    crate::faults::kill(old);
    let bytes = checker::wal_after(old, cluster.bin(), &fork);
    assert!(bytes.is_some_and(|bytes| bytes > 1000), "{bytes:?} bytes after {fork}");
}
