//! Sessions that arrive by `proxy.listen_read_only` are a standby's: drivers take them for one, what a standby does works, what it
//! does not is refused in PostgreSQL's own words, and nothing of it ever reaches the primary. Where statements ran is read in the
//! nodes' own logs.

#[path = "support/nodes.rs"]
mod nodes;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::net::TcpListener;
use std::sync::OnceLock;
use std::time::Duration;

use nodes::{Crowd, Ledger, Standby, mark, reads, until_reads, watched_cluster};
use pgbaton::demo::{Cluster, PASSWORD, Shutdown};
use pgbaton::net::http;
use support::{DEADLINE, Proxy, wait_until};
use wire::{Batch, Login, Wire};

const SETUP: &str = "
CREATE TABLE item AS SELECT id, md5(id::text) AS name FROM generate_series(1, 1000) id;
CREATE TABLE own (id int PRIMARY KEY, n bigint); INSERT INTO own VALUES (1, 0);
CREATE SEQUENCE counter";

struct Ground {
    proxy: Proxy,
    read_only: u16,
    ledger: Ledger,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Ground {
    /// A proxy with both listeners, these lines below `[reads]` and these sections.
    fn over(cluster: &Cluster, lines: &str, sections: &str, admin: Option<u16>) -> Ground {
        let ledger = Ledger::of(cluster);
        let read_only = free_port();
        let mut settings = reads(cluster, &format!("slow_start = \"0s\"\n{lines}"));
        settings.proxy = format!("listen_read_only = [\"127.0.0.1:{read_only}\"]");
        settings.sections += sections;
        settings.admin = admin.map_or(String::new(), |port| format!("127.0.0.1:{port}"));
        let proxy = Proxy::start(cluster, &settings);
        // It has to find the replicas first, for which nobody waits for as long as a busy machine may take.
        wait_until(DEADLINE, "somebody gets in", || matches!(Login::to(read_only).attempt(), Ok(Ok(_))));
        let ground = Ground { proxy, read_only, ledger };
        // What may be asked again is known when the catalog is.
        let mut client = ground.connect();
        let sql = "EXPLAIN ROUTE SELECT count(*) FROM generate_series(1, 2)";
        wait_until(DEADLINE, "the catalog is known", || client.run(sql).table().contains("class|read,"));
        ground
    }

    fn connect(&self) -> Wire {
        Login::to(self.read_only).connect()
    }

    #[track_caller]
    fn never_on_primary(&self, mark: &str) {
        let shares = self.ledger.count(mark);
        assert!(shares.of("n1") == 0 && shares.total() > 0, "{mark}: {shares}");
    }

    fn until_both_serve(&self) {
        until_reads(self.read_only, &self.ledger, "both replicas serve", |seen| seen.of("n2") > 0 && seen.of("n3") > 0);
    }
}

fn new_cluster() -> Cluster {
    let cluster = watched_cluster(2);
    cluster.nodes()[0].sql(SETUP).unwrap();
    cluster.wait_for_replicas().unwrap();
    cluster
}

/// A cluster that no test breaks.
fn calm() -> &'static Cluster {
    static CALM: OnceLock<Cluster> = OnceLock::new();
    CALM.get_or_init(new_cluster)
}

const ROUND_ROBIN: &str = "consistency = \"eventual\"\nbalance = \"round_robin\"";

// --- what drivers see -------------------------------------------------------------------------------------------------

#[test]
fn libpq_tells_the_two_listeners_apart() {
    let ground = Ground::over(calm(), "", "", None);
    let (one, other) = (ground.proxy.port, ground.read_only);
    for (wanted, is_standby) in
        [("standby", "t"), ("read-only", "t"), ("prefer-standby", "t"), ("primary", "f"), ("read-write", "f")]
    {
        for ports in [format!("{one},{other}"), format!("{other},{one}")] {
            let conninfo = format!(
                "host=127.0.0.1,127.0.0.1 port={ports} user=demo password={PASSWORD} dbname=demo target_session_attrs={wanted}"
            );
            let said = ground.proxy.psql().database(&conninfo).ok(&["SELECT pg_is_in_recovery()"]);
            assert_eq!(said, is_standby, "{wanted} of {ports}");
        }
    }
    let (ours, theirs) = (ground.connect(), Login::to(one).connect());
    let told = |client: &Wire, name: &str| client.parameters.get(name).cloned().unwrap_or_default();
    for name in ["in_hot_standby", "default_transaction_read_only"] {
        assert_eq!((told(&ours, name), told(&theirs, name)), ("on".into(), "off".into()), "{name}");
    }
    // Both kinds side by side, over the same nodes: each is told what is its own, whoever used the connection before.
    let (mut ours, mut theirs) = (ours, theirs);
    for _ in 0..10 {
        assert_eq!(theirs.value("SELECT count(*) FROM item"), "1000");
        assert_eq!(ours.value("SELECT count(*) FROM item"), "1000");
        assert_eq!((told(&ours, "in_hot_standby"), told(&theirs, "in_hot_standby")), ("on".into(), "off".into()));
        assert_eq!(theirs.value("SHOW transaction_read_only"), "off");
        assert_eq!(ours.value("SHOW transaction_read_only"), "on");
    }
    let refused = Login::to(other).with("replication", "true").attempt().unwrap().err().unwrap();
    assert_eq!(refused.code, "0A000", "{refused:?}");
}

#[test]
fn a_session_can_be_told_from_others_and_says_why() {
    let ground = Ground::over(calm(), "", "", None);
    let mut client = Login::to(ground.read_only).with("application_name", "reporting").connect();
    // What asks for the primary has no effect.
    let asked = mark("asked");
    client.run("SET pgbaton.target = 'primary'");
    for sql in ["SELECT pg_is_in_recovery()", "/* pgbaton: primary */ SELECT pg_is_in_recovery()"] {
        assert_eq!(client.value(&format!("{sql} /* {asked} */")), "t");
    }
    ground.never_on_primary(&asked);
    let route = client.value("SHOW pgbaton.route");
    assert!(route.starts_with("replica n") && route.ends_with(": read-only listener"), "{route}");
    for sql in ["SELECT 1", "DELETE FROM item", "no SQL at all"] {
        let answer = client.run(&format!("EXPLAIN ROUTE {sql}"));
        let text = answer.table();
        assert!(text.contains("target|replica") && text.contains("reason|read-only listener: "), "{text}");
    }
    let listed = ground.proxy.psql().database("pgbaton").ok(&["SHOW CLIENTS"]);
    let read_only = listed.lines().filter(|line| line.ends_with("|yes")).count();
    assert_eq!(read_only, 1, "{listed}");
    let routes = ground.proxy.psql().database("pgbaton").ok(&["SHOW ROUTES"]);
    assert!(routes.contains("|replica|read-only listener|"), "{routes}");
}

// --- as PostgreSQL's own standby --------------------------------------------------------------------------------------

/// The code and words of each error, and what was done.
fn said(client: &mut Wire, batch: Batch) -> (Vec<(String, String)>, Vec<String>, u8) {
    let answer = client.batch(batch);
    let errors = answer.errors.into_iter().map(|error| (error.code, error.message)).collect();
    (errors, answer.done, answer.status)
}

#[test]
fn what_a_standby_refuses_is_refused_in_its_words_and_never_reaches_the_primary() {
    let ground = Ground::over(calm(), ROUND_ROBIN, "", None);
    let mut client = ground.connect();
    let mut direct = Login::to(calm().node("n2").unwrap().port()).connect();
    let written = mark("written");
    let note = format!("/* {written} */");
    for sql in [
        "INSERT INTO own VALUES (2, 0)",
        "UPDATE own SET n = -1",
        "DELETE FROM own",
        "WITH gone AS (DELETE FROM own RETURNING id) SELECT count(*) FROM gone",
        "SELECT * FROM own FOR UPDATE",
        "SELECT nextval('counter')",
        "SELECT pg_current_xact_id()",
        "CREATE TABLE never (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "SELECT * INTO never FROM own",
        "TRUNCATE own",
        "DROP TABLE own",
        "DROP DATABASE nowhere",
        "COPY own FROM STDIN",
        "LISTEN channel",
        "NOTIFY channel",
        "VACUUM own",
        "LOCK TABLE own IN SHARE MODE",
        "BEGIN READ WRITE",
        "SET transaction_read_only = off",
        "BEGIN; SELECT 1; UPDATE own SET n = -1; COMMIT",
        "SELECT 1; DELETE FROM own",
        "SELECT currval('counter')",
        "DO $$ BEGIN UPDATE own SET n = -1; END $$",
    ] {
        let shapes: [fn(&str) -> Batch; 3] = [
            |sql| Batch::new().query(sql),
            |sql| Batch::new().parse("", sql).run("", &[]).sync(),
            // What is behind the error is skipped, what comes behind the Sync is not.
            |sql| {
                Batch::new().parse("", "SELECT 1").run("", &[]).parse("", sql).run("", &[]).parse("", "SELECT 2").sync()
            },
        ];
        for (number, shape) in shapes.into_iter().enumerate() {
            let (own, same) = (shape(&format!("{sql} {note}")), shape(sql));
            let (heard, expected) = (said(&mut client, own), said(&mut direct, same));
            assert_eq!(heard, expected, "{sql}, shape {number}");
            assert!(!heard.0.is_empty() || sql.contains("currval"), "{sql}: {heard:?}");
            for client in [&mut client, &mut direct] {
                client.query("ROLLBACK");
            }
        }
    }
    assert_eq!(client.query("UPDATE own SET n = 1").code(), "25006");
    // Also with what a driver says to make a session read-write.
    client.run("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE");
    assert_eq!(client.query(&format!("UPDATE own SET n = 1 {note}")).code(), "25006");
    ground.never_on_primary(&written);
    assert_eq!(calm().nodes()[0].sql("SELECT string_agg(id::text || n, ',') FROM own").unwrap(), "10");
}

#[test]
fn what_a_standby_does_works() {
    let ground = Ground::over(calm(), ROUND_ROBIN, "", None);
    let mut client = ground.connect();
    let done = mark("done");
    let note = format!("/* {done} */");
    // A plain block, which is one snapshot with cursors and savepoints.
    client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let now = client.value(&format!("SELECT now() {note}"));
    client.run(&format!("DECLARE c CURSOR FOR SELECT id FROM item ORDER BY id {note}"));
    assert_eq!(client.query("FETCH 3 FROM c").table(), "1,2,3");
    client.run("SAVEPOINT s");
    assert_eq!(client.query(&format!("DELETE FROM item {note}")).code(), "25006");
    assert_eq!(client.query("SELECT 1").code(), "25P02");
    client.run("ROLLBACK TO s");
    assert_eq!(client.value("SELECT now()"), now);
    client.run("COMMIT");
    // Settings and prepared statements go from one replica to the other.
    client.run("SET timezone = 'Asia/Tokyo'");
    client.run("SET search_path = pg_catalog, public");
    client.run(&format!("PREPARE spelt AS SELECT name FROM item WHERE id = $1 {note}"));
    client.batch(Batch::new().parse("mine", &format!("SELECT id FROM item WHERE id = $1 {note}")).sync()).ok();
    for _ in 0..6 {
        assert_eq!(client.batch(Batch::new().run("mine", &[Some("7")]).sync()).value(), "7");
        assert_eq!(client.value("EXECUTE spelt(1)"), "c4ca4238a0b923820dcc509a6f75849b");
        assert_eq!(
            client.value(&format!("SELECT '2024-01-01 00:00:00+00'::timestamptz {note}")),
            "2024-01-01 09:00:00+09"
        );
    }
    let shares = ground.ledger.count(&done);
    assert!(shares.of("n2") > 0 && shares.of("n3") > 0, "{shares}");
    // Several pipelines at once; what is wrong in one is not in the next.
    let good = |value: &str| Batch::new().run("mine", &[Some(value)]).sync();
    let bad = Batch::new().parse("", &format!("DELETE FROM item {note}")).run("", &[]).sync();
    client.send(&[good("1").0, bad.0, good("2").0, Batch::new().query("SELECT 3").0].concat()).unwrap();
    assert_eq!(client.until(b"Z").unwrap().value(), "1");
    assert_eq!(client.until(b"Z").unwrap().code(), "25006");
    assert_eq!(client.until(b"Z").unwrap().value(), "2");
    assert_eq!(client.until(b"Z").unwrap().value(), "3");
    let copied = client.run(&format!("COPY (SELECT id FROM item ORDER BY id {note}) TO STDOUT"));
    assert_eq!((copied.done, copied.copied.len()), (vec!["COPY 1000".into()], 3893));
    // A row at a time from a portal.
    client.run("BEGIN");
    let portal = Batch::new().parse("", &format!("SELECT id FROM item ORDER BY id {note}")).bind("p", "", &[]);
    assert_eq!(client.batch(portal.execute("p", 2).execute("p", 3).sync()).ok().table(), "1,2,3,4,5");
    client.run("COMMIT");
    // What lives in one server keeps the session there.
    let mut other = ground.connect();
    client.run("SELECT pg_advisory_lock(42)");
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    for _ in 0..4 {
        assert_eq!((client.value(held), other.value(held)), ("1".into(), "0".into()));
    }
    assert_eq!(client.value("SELECT pg_advisory_unlock(42)"), "t");
    client.run("DISCARD ALL");
    assert_eq!(client.query("EXECUTE spelt(1)").code(), "26000");
    ground.never_on_primary(&done);
}

// --- freshness --------------------------------------------------------------------------------------------------------

#[test]
fn reads_never_go_back_and_are_as_fresh_as_they_are_asked_to_be() {
    let cluster = new_cluster();
    let ground = Ground::over(&cluster, "balance = \"round_robin\"\nwait = \"2s\"", "", None);
    let mut standbys = Standby::all(&cluster);
    let mut writer = Login::to(ground.proxy.port).connect();
    let mut reader = ground.connect();
    let mut n = 0;
    let mut write = |writer: &mut Wire| {
        n += 1;
        writer.run(&format!("UPDATE own SET n = {n} WHERE id = 1"));
        n
    };
    let mut last = 0;
    for round in 0..4 {
        // One of them stays behind what the other shows.
        let behind = round % 2;
        standbys[behind].pause();
        for _ in 0..15 {
            write(&mut writer);
            let seen: i64 = reader.value("SELECT n FROM own WHERE id = 1").parse().unwrap();
            assert!(seen >= last, "{seen} after {last} in round {round}");
            last = seen;
        }
        standbys[behind].resume();
    }
    // By token, and with `strong`: everything that was committed before.
    for round in 0..10 {
        let written = write(&mut writer);
        if round % 2 == 0 {
            let token = writer.value("SHOW pgbaton.lsn");
            reader.run(&format!("SET pgbaton.min_lsn = '{token}'"));
        } else {
            reader.run("RESET pgbaton.min_lsn");
            reader.run("SET pgbaton.consistency = 'strong'");
        }
        assert_eq!(reader.value("SELECT n FROM own WHERE id = 1"), written.to_string());
        reader.run("RESET pgbaton.consistency");
    }
    // What no replica has is waited for, and then refused; never asked of the primary.
    standbys.iter_mut().for_each(Standby::pause);
    write(&mut writer);
    let token = writer.value("SHOW pgbaton.lsn");
    let late = mark("late");
    let mut newcomer = ground.connect();
    newcomer.run(&format!("SET pgbaton.min_lsn = '{token}'"));
    let sql = format!("SELECT n FROM own WHERE id = 1 /* {late} */");
    for batch in [Batch::new().query(&sql), Batch::new().parse("", &sql).run("", &[]).sync()] {
        let refused = newcomer.batch(batch);
        assert_eq!(refused.code(), "57P03");
        assert!(refused.errors[0].detail.contains("has replayed up to"), "{refused:?}");
    }
    newcomer.send(&Batch::new().query(&sql).0).unwrap();
    standbys.iter_mut().for_each(Standby::resume);
    let answer = newcomer.until(b"Z").unwrap();
    assert!(answer.errors.is_empty() || answer.code() == "57P03", "{answer:?}");
    wait_until(DEADLINE, "the replicas have it", || newcomer.query(&sql).first() == Some(&*n.to_string()));
    ground.never_on_primary(&late);
}

// --- without a replica, and with one after another --------------------------------------------------------------------

#[test]
fn replicas_die_under_readers_and_nobody_is_sent_to_the_primary() {
    let cluster = new_cluster();
    let ground = Ground::over(&cluster, &format!("{ROUND_ROBIN}\nwait = \"1s\""), "", None);
    ground.until_both_serve();
    let (n2, n3) = (cluster.node("n2").unwrap(), cluster.node("n3").unwrap());
    let mut pinned = ground.connect();
    pinned.run("SELECT pg_advisory_lock(1)");
    let on_n2 = pinned.value("SELECT inet_server_port()") == n2.port().to_string();
    for (victim, other, how) in [(n2, n3, Shutdown::Kill), (n3, n2, Shutdown::Fast)] {
        let crowd = Crowd::start(ground.read_only, 4);
        wait_until(DEADLINE, "the crowd reads there", || ground.ledger.count(&crowd.mark).of(&victim.id) > 20);
        victim.stop(how);
        let reached = ground.ledger.count(&crowd.mark).of(&other.id);
        wait_until(DEADLINE, "the crowd reads on", || ground.ledger.count(&crowd.mark).of(&other.id) > reached + 50);
        if on_n2 == (victim.id == "n2") {
            // What it was tied to is gone.
            let farewell = pinned.rest();
            assert_eq!(farewell.code(), "57P01");
            assert!(farewell.errors[0].detail.contains("Lost with it: "), "{farewell:?}");
        }
        victim.start().unwrap();
        ground.until_both_serve();
        let mark = crowd.mark.clone();
        println!("{how:?}: {} reads", crowd.end());
        ground.never_on_primary(&mark);
    }
    // None is left: an open block is told, what comes next waits and is refused, and so is who logs in.
    let mut client = ground.connect();
    client.run("BEGIN");
    client.value("SELECT count(*) FROM item");
    let none = mark("none");
    [n2, n3].iter().for_each(|node| node.stop(Shutdown::Kill));
    let answer = client.query(&format!("SELECT 1 /* {none} */"));
    assert_eq!((answer.code(), answer.status), ("40001", b'E'), "{answer:?}");
    assert_eq!(client.query("ROLLBACK").code(), "57P03");
    let refused = client.query(&format!("SELECT 1 /* {none} */"));
    assert_eq!(refused.code(), "57P03");
    assert!(refused.errors[0].detail.contains("n1 is the primary"), "{refused:?}");
    wait_until(
        DEADLINE,
        "nobody gets in",
        || matches!(Login::to(ground.read_only).attempt(), Ok(Err(refused)) if refused.code == "57P03"),
    );
    let mut writer = Login::to(ground.proxy.port).connect();
    writer.run("UPDATE own SET n = 5 WHERE id = 1");
    [n2, n3].iter().for_each(|node| node.start().unwrap());
    wait_until(DEADLINE, "the block can be ended", || client.query("ROLLBACK").errors.is_empty());
    wait_until(DEADLINE, "they serve again", || client.query("SELECT n FROM own WHERE id = 1").first() == Some("5"));
    assert_eq!(ground.ledger.count(&none).of("n1"), 0);
}

#[test]
fn a_failover_and_a_switchover_cost_readers_no_error() {
    for kind in ["failover", "switchover"] {
        let cluster = new_cluster();
        let admin = free_port();
        let failover = "\n[failover]\nautomatic = true\nrejoin = \"manual\"\n[coordination]\npath = \"state.json\"\n";
        let lines = "consistency = \"session\"\nbalance = \"round_robin\"";
        let ground = Ground::over(&cluster, lines, failover, Some(admin));
        wait_until(DEADLINE, "the cluster is stable", || ground.proxy.log().contains("→ Stable"));
        let mut pinned = ground.connect();
        pinned.run("SELECT pg_advisory_lock(7)");
        let tied_to = pinned.value("SELECT inet_server_port()");
        let crowd = Crowd::start(ground.read_only, 4);
        let seen = || ground.ledger.count(&crowd.mark);
        wait_until(DEADLINE, "the crowd reads", || seen().of("n2") > 20 && seen().of("n3") > 20);
        match kind {
            "failover" => cluster.nodes()[0].stop(Shutdown::Kill),
            _ => {
                let url = format!("http://127.0.0.1:{admin}").parse().unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let body = "{\"to\":\"n2\"}".to_owned();
                let done = runtime.block_on(http::post(&url, None, "/switchover", body, Duration::from_secs(60)));
                println!("{:?}", done.unwrap());
            }
        }
        let successor = || {
            let is_primary =
                |id: &&str| cluster.node(id).unwrap().sql("SELECT pg_is_in_recovery()").is_ok_and(|said| said == "f");
            ["n2", "n3"].into_iter().find(is_primary)
        };
        wait_until(DEADLINE, "there is another primary", || successor().is_some());
        let primary = successor().unwrap();
        let replica = if primary == "n2" { "n3" } else { "n2" };
        let mut writer = Login::to(ground.proxy.port).connect();
        writer.run("UPDATE own SET n = 77 WHERE id = 1");
        let reached = seen().of(replica);
        wait_until(DEADLINE, "the crowd reads at the other", || seen().of(replica) > reached + 100);
        // Those of before have moved, and write neither here nor there.
        let after = mark("after");
        let mut client = ground.connect();
        for _ in 0..20 {
            assert_eq!(client.query(&format!("UPDATE own SET n = -1 /* {after} */")).code(), "25006");
            assert_eq!(client.value(&format!("SELECT pg_is_in_recovery() /* {after} */")), "t");
        }
        assert_eq!(ground.ledger.count(&after).only(), Some(replica), "{kind}");
        println!("{kind}: {} reads", crowd.end());
        // What ties a session to the node that takes writes now has ended it; else it is as it was.
        let port = cluster.node(primary).unwrap().port().to_string();
        match tied_to == port {
            true => {
                // Its next word is enough.
                pinned.send(&Batch::new().query("SELECT 1").0).unwrap();
                assert_eq!(pinned.rest().code(), "57P01");
            }
            false => assert_eq!(pinned.value("SELECT inet_server_port()"), tied_to),
        }
        assert_eq!(writer.value("/* pgbaton: primary */ SELECT n FROM own"), "77");
    }
}
