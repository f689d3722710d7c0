//! What a session has and does is the same on a replica: prepared statements, read-only transactions, COPY, large results,
//! settings, roles, errors and cancel. Every test first makes sure that it is a replica that answers.

#[path = "support/nodes.rs"]
mod nodes;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nodes::{Ledger, mark, reads, until_replicas_serve, watched_cluster};
use pgbaton::demo::Cluster;
use support::{DEADLINE, Proxy, wait_until};
use wire::{Batch, Login, Wire};

const SETUP: &str = "
CREATE TABLE item AS SELECT id, md5(id::text) AS name FROM generate_series(1, 1000) id;
CREATE SCHEMA north; CREATE SCHEMA south;
CREATE TABLE north.place AS SELECT 'north'::text AS name;
CREATE TABLE south.place AS SELECT 'south'::text AS name;
CREATE ROLE limited; GRANT USAGE ON SCHEMA north TO limited; GRANT SELECT ON north.place TO limited;
";

struct Ground {
    cluster: &'static Cluster,
    ledger: Ledger,
    proxy: Proxy,
}

/// One replica, and a proxy that has begun to use it; nothing here is written, so every read can run there.
fn ground(settings: &str) -> Ground {
    static CALM: OnceLock<Cluster> = OnceLock::new();
    let cluster = CALM.get_or_init(|| {
        let cluster = watched_cluster(1);
        cluster.nodes()[0].sql(SETUP).unwrap();
        cluster.wait_for_replicas().unwrap();
        cluster
    });
    let ledger = Ledger::of(cluster);
    let mut all = reads(cluster, "");
    all.proxy = settings.into();
    let proxy = Proxy::start(cluster, &all);
    until_replicas_serve(proxy.port, &ledger);
    Ground { cluster, ledger, proxy }
}

impl Ground {
    fn connect(&self) -> Wire {
        Login::to(self.proxy.port).connect()
    }

    /// The only value of a statement, whoever says it, until it is the replica that does: what a session has just done on the
    /// primary has to be known of the replica first.
    #[track_caller]
    fn on_replica(&self, client: &mut Wire, sql: &str) -> String {
        let mut value = None;
        wait_until(DEADLINE, "the session reads at the replica", || {
            let mark = mark("here");
            let new = client.value(&format!("{sql} /* {mark} */"));
            assert_eq!(*value.get_or_insert(new.clone()), new, "{sql}: not the same everywhere");
            self.ledger.count(&mark).only() == Some("n2")
        });
        value.unwrap_or_default()
    }

    #[track_caller]
    fn ran_on_replica(&self, mark: &str) {
        let shares = self.ledger.count(mark);
        assert_eq!(shares.only(), Some("n2"), "{mark} ran on {shares}");
    }
}

#[test]
fn prepared_statements_work_wherever_they_run() {
    // Two server connections for each node and five sessions that call their statements the same.
    let ground = ground("pool_size = 2");
    let mark = mark("prepared");
    let mut clients: Vec<_> = (0..5).map(|_| ground.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let sql = format!("SELECT name || '{number}' FROM item WHERE id = $1 /* {mark} */");
        client.batch(Batch::new().parse("mine", &sql).describe(b'S', "mine").sync()).ok();
    }
    for round in 1..20 {
        for (number, client) in clients.iter_mut().enumerate() {
            let id = round.to_string();
            let answer = client.batch(Batch::new().run("mine", &[Some(&id)]).sync());
            assert!(answer.value().ends_with(&number.to_string()) && answer.value().len() == 33, "{answer:?}");
            // A write in between takes the session to the primary and back.
            if round % 5 == 0 {
                let nothing = "DELETE FROM item WHERE id < 0";
                client.batch(Batch::new().parse("gone", nothing).run("gone", &[]).close(b'S', "gone").sync()).ok();
            }
        }
    }
    let shares = ground.ledger.count(&mark);
    assert!(shares.of("n1") > 0 && shares.of("n2") > 0, "both were to run them: {shares}");
    let client = &mut clients[0];
    assert_eq!(client.batch(Batch::new().run("nobody's", &[]).sync()).code(), "26000");
    client.batch(Batch::new().close(b'S', "mine").sync()).ok();
    assert_eq!(client.batch(Batch::new().run("mine", &[Some("1")]).sync()).code(), "26000");
    // SQL's own kind of prepared statement.
    client.run("PREPARE theirs(int) AS SELECT name FROM item WHERE id = $1");
    for _ in 0..3 {
        assert_eq!(client.value("EXECUTE theirs(1)"), "c4ca4238a0b923820dcc509a6f75849b");
    }
}

#[test]
fn a_pipeline_is_answered_in_order_and_an_error_in_it_skips_to_its_end() {
    let ground = ground("");
    let mut client = ground.connect();
    let mark = mark("pipeline");
    let sql = format!("SELECT $1::text /* {mark} */");
    let mut batch = Batch::new();
    for number in 0..50 {
        batch = batch.parse("", &sql).run("", &[Some(&number.to_string())]);
    }
    let answer = client.batch(batch.sync()).ok();
    let expected: Vec<_> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(answer.table(), expected.join(","));
    ground.ran_on_replica(&mark);
    let bad = Batch::new().parse("", &sql).run("", &[Some("a")]).parse("", "SELECT 1/0").run("", &[]);
    let answer = client.batch(bad.parse("", &sql).run("", &[Some("b")]).sync());
    assert_eq!((answer.code(), answer.table().as_str(), answer.status), ("22012", "a", b'I'));
    // Several pipelines at once: a read, a write, a read.
    let write = Batch::new().parse("", "DELETE FROM item WHERE id < 0").run("", &[]).sync();
    let read = |value: &str| Batch::new().parse("", &sql).run("", &[Some(value)]).sync();
    client.send(&[read("1").0, write.0, read("2").0, Batch::new().query("SELECT '3'").0].concat()).unwrap();
    assert_eq!(client.until(b"Z").unwrap().value(), "1");
    assert_eq!(client.until(b"Z").unwrap().ok().done, ["DELETE 0"]);
    assert_eq!(client.until(b"Z").unwrap().value(), "2");
    assert_eq!(client.until(b"Z").unwrap().value(), "3");
    // A row at a time from a portal.
    client.send(&Batch::new().query("BEGIN READ ONLY").0).unwrap();
    client.until(b"Z").unwrap().ok();
    let portal = Batch::new().parse("", "SELECT id FROM item ORDER BY id").bind("p", "", &[]).execute("p", 2);
    let answer = client.batch(portal.execute("p", 3).sync()).ok();
    assert_eq!(answer.table(), "1,2,3,4,5");
    client.run("COMMIT");
}

#[test]
fn a_read_only_transaction_is_one_snapshot_on_one_replica() {
    let ground = ground("");
    let mut client = ground.connect();
    client.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    let snapshot = mark("snapshot");
    let sql = format!("SELECT now()::text || count(*) FROM item /* {snapshot} */");
    let first = client.value(&sql);
    assert_eq!(client.value(&sql), first);
    ground.ran_on_replica(&snapshot);
    // Where nothing can be written a cursor and a savepoint are a matter of this transaction.
    client.run("DECLARE c CURSOR FOR SELECT id FROM item ORDER BY id");
    assert_eq!(client.query("FETCH 3 FROM c").table(), "1,2,3");
    client.run("SAVEPOINT s");
    assert_eq!(client.query("SELECT 1/0").code(), "22012");
    client.run("ROLLBACK TO s");
    assert_eq!(client.query("FETCH 1 FROM c").table(), "4");
    assert_eq!(client.query("UPDATE item SET name = ''").code(), "25006");
    assert_eq!(client.run("ROLLBACK").status, b'I');
    // The same statements in a block that may write are one transaction on the primary.
    let mark = mark("writable");
    client.run("BEGIN");
    client.value(&format!("SELECT count(*) FROM item /* {mark} */"));
    client.run("UPDATE item SET name = name WHERE id < 0");
    client.run("COMMIT");
    assert_eq!(ground.ledger.count(&mark).only(), Some("n1"));
    assert_eq!(client.value("SHOW transaction_read_only"), "off");
    assert_eq!(client.value("SHOW in_hot_standby"), "off");
    assert_eq!(client.parameters.get("in_hot_standby").map(String::as_str), Some("off"));
}

#[test]
fn copy_and_large_results_come_whole_from_a_replica() {
    let ground = ground("");
    let mut client = ground.connect();
    let mark = mark("copy");
    let answer = client.run(&format!("COPY (SELECT id FROM item ORDER BY id /* {mark} */) TO STDOUT"));
    let expected: String = (1..=1000).map(|id| format!("{id}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&answer.copied), expected);
    assert_eq!(answer.done, ["COPY 1000"]);
    ground.ran_on_replica(&mark);
    let many = nodes::mark("large");
    let sql = format!("SELECT id, repeat('x', 1000) FROM generate_series(1, 20000) id /* {many} */");
    for batch in [Batch::new().query(&sql), Batch::new().parse("", &sql).run("", &[]).sync()] {
        let answer = client.batch(batch).ok();
        let in_order = answer.rows.iter().enumerate().all(|(at, row)| {
            row[0] == Some((at + 1).to_string()) && row[1].as_ref().is_some_and(|text| text.len() == 1000)
        });
        assert!(in_order && answer.rows.len() == 20000);
    }
    ground.ran_on_replica(&many);
    // One value larger than any buffer.
    assert_eq!(ground.on_replica(&mut client, "SELECT repeat('y', 5000000)").len(), 5_000_000);
}

#[test]
fn settings_and_roles_count_on_a_replica_and_do_not_stay_there() {
    let ground = ground("pool_size = 1");
    let mut north = ground.connect();
    let mut south = Login::to(ground.proxy.port).with("options", "-c search_path=south -c timezone=UTC").connect();
    let mut bare = ground.connect();
    north.run("SET search_path = north");
    north.run("SET timezone = 'Asia/Tokyo'");
    let mut named = Login::to(ground.proxy.port).with("application_name", "by name").connect();
    for _ in 0..3 {
        let noon = "SELECT '2024-01-01 12:00:00+00'::timestamptz::text";
        assert_eq!(ground.on_replica(&mut north, "SELECT name FROM place"), "north");
        assert_eq!(ground.on_replica(&mut south, "SELECT name FROM place"), "south");
        assert_eq!(bare.query("SELECT name FROM place").code(), "42P01");
        assert_eq!(ground.on_replica(&mut north, noon), "2024-01-01 21:00:00+09");
        assert_eq!(ground.on_replica(&mut south, noon), "2024-01-01 12:00:00+00");
        assert_eq!(named.value("SHOW application_name"), "by name");
    }
    // In a block, and only for that.
    north.run("BEGIN READ ONLY");
    north.run("SET LOCAL search_path = south");
    assert_eq!(north.value("SELECT name FROM place"), "south");
    north.run("COMMIT");
    assert_eq!(ground.on_replica(&mut north, "SELECT name FROM place"), "north");
    north.run("SET ROLE limited");
    assert_eq!(ground.on_replica(&mut north, "SELECT name FROM place"), "north");
    assert_eq!(north.query("SELECT name FROM south.place").code(), "42501");
    assert_eq!(ground.on_replica(&mut north, "SELECT current_user"), "limited");
    assert_eq!(ground.on_replica(&mut south, "SELECT current_user"), "demo");
    assert_eq!(ground.on_replica(&mut bare, "SELECT count(*) FROM south.place"), "1");
    north.run("RESET ROLE");
    assert_eq!(ground.on_replica(&mut north, "SELECT current_user"), "demo");
    north.run("DISCARD ALL");
    assert_eq!(north.query("SELECT name FROM place").code(), "42P01");
    assert_eq!(north.parameters.get("application_name").map(String::as_str), Some(""));
}

#[test]
fn errors_and_notices_of_a_replica_are_the_clients_own() {
    let ground = ground("");
    let mut client = ground.connect();
    for (sql, code) in [
        ("SELECT 1/0", "22012"),
        ("SELECT nothing FROM item", "42703"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELEC", "42601"),
        ("SELECT 'x'::int", "22P02"),
    ] {
        let answer = client.query(sql);
        assert_eq!((answer.code(), answer.status), (code, b'I'), "{sql}");
        let answer = client.batch(Batch::new().parse("", sql).run("", &[]).sync());
        assert_eq!((answer.code(), answer.status), (code, b'I'), "{sql}");
        assert_eq!(ground.on_replica(&mut client, "SELECT 2"), "2");
    }
    client.run("SET statement_timeout = '200ms'");
    let mark = mark("slow");
    let sql = format!("SELECT count(*) FROM generate_series(1, 1000000000) /* {mark} */");
    assert_eq!(ground.on_replica(&mut client, "SELECT 3"), "3");
    assert_eq!(client.query(&sql).code(), "57014");
    // The client's own limit is no conflict with recovery, so it is not tried again elsewhere.
    ground.ran_on_replica(&mark);
}

/// Ends the bystanders, also when the test fails: a scope waits for its threads.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_cancel_reaches_the_statement_on_the_replica_and_nobody_else() {
    let ground = ground("");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopper = Stopper(&stop);
        let bystanders: Vec<_> = (0..4)
            .map(|_| {
                let (mut client, stop) = (ground.connect(), &stop);
                scope.spawn(move || {
                    let mut done = 0;
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(client.value("SELECT count(*) FROM generate_series(1, 20000)"), "20000");
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let mut client = ground.connect();
        for round in 0..6 {
            let mark = mark("cancelled");
            let sql = format!("SELECT count(*) FROM generate_series(1, 3000000000) /* {mark} */");
            let batch = match round % 3 {
                0 => Batch::new().query(&sql),
                1 => Batch::new().parse("", &sql).run("", &[]).sync(),
                _ => Batch::new().query(&format!("BEGIN READ ONLY; {sql}")),
            };
            assert_eq!(ground.on_replica(&mut client, "SELECT 'on'"), "on");
            client.send(&batch.0).unwrap();
            wait_until(DEADLINE, "the statement runs", || ground.ledger.count(&mark).total() > 0);
            client.cancel().unwrap();
            assert_eq!(client.until(b"Z").unwrap().code(), "57014");
            ground.ran_on_replica(&mark);
            client.query("ROLLBACK");
        }
        drop(stopper);
        let done: i32 = bystanders.into_iter().map(|one| one.join().unwrap()).sum();
        assert!(done > 0);
    });
}

#[test]
fn the_console_shows_the_replica_as_serving_reads() {
    let ground = ground("");
    let text = ground.proxy.psql().database("pgbaton").ok(&["SHOW NODES"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), ground.cluster.nodes().len(), "{text}");
    assert!(lines.iter().any(|line| line.starts_with("n2|")), "{text}");
}
