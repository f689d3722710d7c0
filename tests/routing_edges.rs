//! Message orders and texts in which a statement once ran where it must not, or a reply or a setting got lost on the way: each
//! was found by reading the code against its promises, and stays here as a story.

#[path = "support/nodes.rs"]
mod nodes;
mod support;
#[path = "support/wire.rs"]
mod wire;

use nodes::{Ledger, reads, until_replicas_serve, watched_cluster};
use pgbaton::demo::Cluster;
use std::sync::OnceLock;
use support::{DEADLINE, Proxy, wait_until};
use wire::{Answer, Batch, Login, Wire};

const SETUP: &str = "
CREATE TABLE item AS SELECT id, 'x'::text AS name FROM generate_series(1, 100) id;
CREATE TABLE written (id serial, what text);
CREATE SCHEMA tenant; CREATE TABLE tenant.place AS SELECT 'tenant'::text AS name;
CREATE TABLE place AS SELECT 'public'::text AS name;
";

struct Ground {
    cluster: &'static Cluster,
    proxy: Proxy,
}

fn ground() -> Ground {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| {
        let cluster = watched_cluster(1);
        cluster.nodes()[0].sql(SETUP).unwrap();
        cluster.wait_for_replicas().unwrap();
        cluster
    });
    let proxy = Proxy::start(cluster, &reads(cluster, ""));
    until_replicas_serve(proxy.port, &Ledger::of(cluster));
    Ground { cluster, proxy }
}

impl Ground {
    fn connect(&self) -> Wire {
        Login::to(self.proxy.port).connect()
    }

    /// A session in a READ ONLY block that has read from the replica.
    fn in_a_block(&self) -> Wire {
        let mut client = self.connect();
        wait_until(DEADLINE, "the session's reads go to the replica", || {
            client.query("SELECT count(*) FROM item");
            client.value("SHOW pgbaton.route").starts_with("replica")
        });
        client.run("BEGIN READ ONLY");
        assert_eq!(client.value("SELECT count(*) FROM item"), "100");
        client
    }

    /// Advisory locks that somebody holds on the replica, where nobody means to.
    #[track_caller]
    fn no_lock_on_the_replica(&self) {
        let locks = self.cluster.node("n2").unwrap().sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'");
        assert_eq!(locks.unwrap().trim(), "0", "an advisory lock is held on the replica");
    }
}

fn code(answer: &Answer) -> &str {
    answer.errors.first().map_or("", |error| error.code.as_str())
}

#[test]
fn what_means_something_else_is_refused_in_a_block_however_it_is_written() {
    let ground = ground();
    for text in [
        "SELECT pg_advisory_lock(55), pg_is_in_recovery()",
        "/* app:x */ SELECT pg_advisory_lock(55), pg_is_in_recovery()",
        "-- x\nSELECT pg_advisory_lock(55)",
        "DO $$BEGIN PERFORM pg_advisory_lock(55); END$$",
        "COPY item TO PROGRAM 'cat >/dev/null'",
        "SET work_mem = '1MB'; SELECT pg_advisory_lock(55)",
        "SELECT 1; COMMIT; INSERT INTO written (what) VALUES ('x')",
    ] {
        let mut client = ground.in_a_block();
        assert_eq!(code(&client.query(text)), "40001", "{text}");
        client.run("ROLLBACK");
        let mut client = ground.in_a_block();
        let answer = client.batch(Batch::new().parse("", text).bind("", "", &[]).execute("", 0).sync());
        assert!(matches!(code(&answer), "40001" | "42601"), "{text}: {answer:?}");
        client.run("ROLLBACK");
        ground.no_lock_on_the_replica();
    }
}

#[test]
fn the_next_read_only_block_after_a_refusal_runs_on_the_primary() {
    let ground = ground();
    let mut client = ground.in_a_block();
    assert_eq!(code(&client.query("SELECT pg_is_in_recovery()")), "40001");
    client.run("ROLLBACK");
    client.run("BEGIN READ ONLY");
    assert_eq!(client.value("SELECT count(*) FROM item"), "100");
    assert_eq!(client.value("SELECT pg_is_in_recovery()"), "f");
    client.run("COMMIT");
}

#[test]
fn what_stands_behind_the_end_of_a_block_runs_where_it_has_to() {
    let ground = ground();
    let mut client = ground.in_a_block();
    client.query("COMMIT; INSERT INTO written (what) VALUES ('behind')").ok();
    assert_eq!(client.value("SELECT count(*) FROM written WHERE what = 'behind'"), "1");
    let mut client = ground.in_a_block();
    assert_eq!(code(&client.query("SELECT 1 / 0")), "22012");
    let answer = client.query("ROLLBACK; SELECT pg_try_advisory_lock(777), pg_is_in_recovery()").ok();
    assert_eq!(answer.table(), "t|f");
    ground.no_lock_on_the_replica();
    client.run("SELECT pg_advisory_unlock_all()");
}

#[test]
fn a_function_call_is_not_undone_when_a_block_is_declared_read_only_behind_it() {
    let ground = ground();
    let mut client = ground.connect();
    client.run("BEGIN");
    // lo_creat(integer), number 957, in text format.
    let call = [&957u32.to_be_bytes()[..], &[0, 1, 0, 0, 0, 1, 0, 0, 0, 2], b"-1", &[0, 0]].concat();
    client.batch(Batch::new().raw(b'F', &call));
    let oid = client.value("SELECT max(oid) FROM pg_largeobject_metadata");
    client.query("SET TRANSACTION READ ONLY");
    client.query("COMMIT");
    assert_eq!(client.value(&format!("SELECT count(*) FROM pg_largeobject_metadata WHERE oid = {oid}")), "1");
}

#[test]
fn a_block_lost_on_a_replica_is_ended_under_the_sessions_own_settings() {
    let ground = ground();
    let mut client = ground.in_a_block();
    client.run("COMMIT");
    client.run("SET search_path = tenant");
    wait_until(DEADLINE, "the session reads at the replica", || {
        client.query("SELECT name FROM place");
        client.value("SHOW pgbaton.route").starts_with("replica")
    });
    client.run("BEGIN READ ONLY");
    assert_eq!(client.value("SELECT name FROM place"), "tenant");
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'";
    ground.cluster.node("n2").unwrap().sql(kill).unwrap();
    wait_until(DEADLINE, "the block is lost", || client.query("SELECT name FROM place").code() != "");
    client.query("ROLLBACK");
    assert_eq!(client.value("/* pgbaton: primary */ SELECT name FROM place"), "tenant");
    assert_eq!(client.value("SELECT name FROM place"), "tenant");
}

#[test]
fn a_session_that_wrote_and_reads_gets_on_after_a_cancel_on_the_replica() {
    let ground = ground();
    let mut client = ground.connect();
    client.run("INSERT INTO written (what) VALUES ('pinned')");
    wait_until(DEADLINE, "the session reads at the replica", || {
        client.query("SELECT count(*) FROM item");
        client.value("SHOW pgbaton.route").starts_with("replica")
    });
    client.send(&Batch::new().query("SELECT count(*) FROM generate_series(1, 1000000000)").0).unwrap();
    let runs = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT count(*) FROM generate_series%'";
    wait_until(DEADLINE, "it runs at the replica", || ground.cluster.node("n2").unwrap().sql(runs).unwrap() == "1");
    client.cancel().unwrap();
    assert_eq!(client.until(b"Z").unwrap().code(), "57014");
    client.run("INSERT INTO written (what) VALUES ('after')");
    assert_eq!(client.value("SELECT count(*) FROM written WHERE what = 'after'"), "1");
}

#[test]
fn no_reply_gets_lost_when_too_much_is_sent_to_keep_it() {
    let ground = ground();
    let mut client = ground.in_a_block();
    client.run("COMMIT");
    let sql = "SELECT length($1)";
    client.batch(Batch::new().parse("s1", sql).sync()).ok();
    client.batch(Batch::new().run("s1", &[Some("x")]).close(b'S', "s1").sync()).ok();
    let long = "x".repeat(30_000);
    let mut batch = Batch::new();
    for _ in 0..4 {
        batch = batch.parse("s1", sql).run("s1", &[Some(&long)]).close(b'S', "s1").sync();
    }
    client.send(&batch.0).unwrap();
    for _ in 0..4 {
        assert_eq!(client.until(b"Z").unwrap().tags, "12DC3Z");
    }
}

#[test]
fn a_block_begun_behind_a_read_in_one_packet_is_a_block() {
    let ground = ground();
    let mut client = ground.in_a_block();
    client.run("COMMIT");
    client.send(&Batch::new().query("SELECT count(*) FROM item").query("BEGIN READ ONLY").0).unwrap();
    assert_eq!(client.until(b"Z").unwrap().value(), "100");
    client.until(b"Z").unwrap().ok();
    assert_eq!(client.value("SELECT count(*) FROM item"), "100");
    assert_eq!(client.value("SHOW TRANSACTION ISOLATION LEVEL"), "read committed");
    client.run("SET work_mem = '1MB'; COMMIT");
    assert_eq!(client.value("SHOW work_mem"), "1MB");
}

#[test]
fn serializable_by_default_reads_on_the_primary() {
    let ground = ground();
    let mut client = ground.in_a_block();
    client.run("COMMIT");
    client.run("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE");
    client.run("BEGIN READ ONLY");
    assert_eq!(client.value("SELECT count(*) FROM item"), "100");
    client.run("COMMIT");
}

#[test]
fn a_sequence_of_a_session_that_is_gone_is_nobodys() {
    let ground = ground();
    for _ in 0..3 {
        ground.connect().run("INSERT INTO written (what) VALUES ('gone')");
        let mut client = ground.connect();
        client.query("WITH x AS (SELECT 1) SELECT * FROM x");
        client.run("INSERT INTO place VALUES ('no sequence')");
        assert_eq!(client.query("SELECT lastval()").code(), "55000");
    }
}
