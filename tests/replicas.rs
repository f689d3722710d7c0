//! Replicas come, lag, die, are made anew and are promoted, while clients read: nobody sees an error that need not be, and
//! nobody reads anything wrong. Where reads ran is read in the nodes' own logs.

#[path = "support/nodes.rs"]
mod nodes;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use nodes::{Crowd, Ledger, Standby, mark, reads, until_reads, until_replicas_serve, watched_cluster};
use pgbaton::demo::{Cluster, Shutdown};
use support::{DEADLINE, Proxy, wait_until};
use wire::{Batch, Login, Wire};

fn set_up(cluster: &Cluster) {
    cluster.nodes()[0].sql("CREATE TABLE own (id int PRIMARY KEY, n bigint); INSERT INTO own VALUES (1, 0)").unwrap();
    cluster.wait_for_replicas().unwrap();
}

/// A proxy with these lines below `[reads]`, for clients without passwords.
fn proxy(cluster: &Cluster, lines: &str, left_out: &[&'static str]) -> Proxy {
    let mut settings = reads(cluster, &format!("slow_start = \"0s\"\n{lines}"));
    settings.left_out = left_out.to_vec();
    Proxy::start(cluster, &settings)
}

fn write(client: &mut Wire, n: i64) {
    client.run(&format!("UPDATE own SET n = {n} WHERE id = 1"));
}

const READ: &str = "SELECT n FROM own WHERE id = 1";

// --- none, one, all too old -------------------------------------------------------------------------------------------

#[test]
fn reads_need_no_replica() {
    let cluster = watched_cluster(1);
    set_up(&cluster);
    let ledger = Ledger::of(&cluster);
    for consistency in ["eventual", "bounded", "session", "strong"] {
        let alone = proxy(&cluster, &format!("consistency = \"{consistency}\""), &["n2"]);
        let mut client = Login::to(alone.port).connect();
        for n in 0..10 {
            write(&mut client, n);
            let mark = mark("alone");
            assert_eq!(client.value(&format!("{READ} /* {mark} */")), n.to_string());
            assert_eq!(ledger.count(&mark).only(), Some("n1"), "{consistency}");
        }
    }
}

#[test]
fn with_every_replica_too_old_the_fallback_decides() {
    let cluster = watched_cluster(2);
    set_up(&cluster);
    let ledger = Ledger::of(&cluster);
    let to_primary = proxy(&cluster, "", &[]);
    let waiting = proxy(&cluster, "fallback = \"wait\"\nwait = \"2s\"", &[]);
    // It would wait for longer than the whole test takes.
    let refusing = proxy(&cluster, "fallback = \"error\"\nwait = \"60s\"", &[]);
    for proxy in [&to_primary, &waiting, &refusing] {
        until_replicas_serve(proxy.port, &ledger);
    }
    let mut standbys = Standby::all(&cluster);
    standbys.iter_mut().for_each(Standby::pause);

    let mut client = Login::to(to_primary.port).connect();
    let mark = mark("fallback");
    for n in 1..20 {
        write(&mut client, n);
        assert_eq!(client.value(&format!("{READ} /* {mark} */")), n.to_string());
    }
    assert_eq!(ledger.count(&mark).only(), Some("n1"));

    let mut client = Login::to(refusing.port).connect();
    write(&mut client, 20);
    let begin = Instant::now();
    assert_eq!(client.query(READ).code(), "57P03");
    assert_eq!(client.batch(Batch::new().parse("", READ).run("", &[]).sync()).code(), "57P03");
    assert!(begin.elapsed() < Duration::from_secs(60), "an error is not waited for");
    // What belongs to the primary is not concerned.
    write(&mut client, 21);
    client.run("BEGIN");
    assert_eq!(client.value(READ), "21");
    client.run("COMMIT");
    client.run("SET pgbaton.target = 'primary'");
    assert_eq!(client.value(READ), "21");

    let mut client = Login::to(waiting.port).connect();
    write(&mut client, 22);
    let (begin, mark) = (Instant::now(), nodes::mark("waited"));
    assert_eq!(client.value(&format!("{READ} /* {mark} */")), "22");
    assert!(begin.elapsed() >= Duration::from_secs(1), "it did not wait: {:?}", begin.elapsed());
    assert_eq!(ledger.count(&mark).only(), Some("n1"));
    // What it waits for comes.
    client.send(&Batch::new().query(READ).0).unwrap();
    standbys.iter_mut().for_each(Standby::resume);
    assert_eq!(client.until(b"Z").unwrap().value(), "22");
}

// --- dying, and coming back -------------------------------------------------------------------------------------------

#[test]
fn a_replica_dies_in_every_way_under_load_and_no_reader_notices() {
    let cluster = watched_cluster(2);
    set_up(&cluster);
    let ledger = Ledger::of(&cluster);
    // At `session` the one client that looks whether both serve might stay with one of them.
    let proxy = proxy(&cluster, "consistency = \"eventual\"\nbalance = \"round_robin\"", &[]);
    let both = |port| {
        until_reads(port, &ledger, "both replicas serve", |seen| seen.of("n2") > 0 && seen.of("n3") > 0);
    };
    both(proxy.port);
    let victim = cluster.node("n2").unwrap();
    for how in [Shutdown::Kill, Shutdown::Fast, Shutdown::Immediate] {
        let crowd = Crowd::start(proxy.port, 6);
        wait_until(DEADLINE, "the crowd reads at the victim", || ledger.count(&crowd.mark).of("n2") > 20);
        victim.stop(how);
        let reached = ledger.count(&crowd.mark).of("n3");
        wait_until(DEADLINE, "the crowd reads on", || ledger.count(&crowd.mark).of("n3") > reached + 50);
        victim.start().unwrap();
        both(proxy.port);
        let shares = ledger.count(&crowd.mark);
        println!("{how:?}: {} reads; {shares}", crowd.end());
    }
    // The last replicas go too.
    let crowd = Crowd::start(proxy.port, 6);
    cluster.nodes()[1..].iter().for_each(|node| node.stop(Shutdown::Kill));
    wait_until(DEADLINE, "the crowd reads at the primary", || ledger.count(&crowd.mark).of("n1") > 50);
    cluster.nodes()[1..].iter().for_each(|node| node.start().unwrap());
    both(proxy.port);
    println!("both killed: {} reads", crowd.end());
}

#[test]
fn a_replica_is_made_anew_while_clients_read_and_sessions_from_before_get_to_use_it() {
    let cluster = watched_cluster(2);
    set_up(&cluster);
    let ledger = Ledger::of(&cluster);
    // Only n2 is known, and it is not there yet.
    cluster.node("n2").unwrap().stop(Shutdown::Fast);
    let proxy = proxy(&cluster, "", &["n3"]);
    let mut client = Login::to(proxy.port).connect();
    let mut prepared = Batch::new().parse("mine", READ).sync();
    let crowd = Crowd::start(proxy.port, 4);
    wait_until(DEADLINE, "the crowd reads at the primary", || ledger.count(&crowd.mark).of("n1") > 50);
    write(&mut client, 5);
    client.run("SET timezone = 'Asia/Tokyo'");
    client.batch(std::mem::take(&mut prepared)).ok();
    cluster.rebuild("n2").unwrap();
    wait_until(DEADLINE, "the crowd reads at the new replica", || ledger.count(&crowd.mark).of("n2") > 50);
    wait_until(DEADLINE, "the session from before reads there too", || {
        let mark = mark("before");
        assert_eq!(client.value(&format!("{READ} /* {mark} */")), "5");
        ledger.count(&mark).of("n2") > 0
    });
    assert_eq!(client.batch(Batch::new().run("mine", &[]).sync()).value(), "5");
    assert_eq!(client.value("SELECT '2024-01-01 00:00:00+00'::timestamptz"), "2024-01-01 09:00:00+09");
    println!("{} reads", crowd.end());
}

// --- conflicts with recovery ------------------------------------------------------------------------------------------

/// Replay never waits for a reader here.
fn impatient() -> (Cluster, Ledger, Proxy) {
    let cluster = watched_cluster(1);
    cluster.nodes()[0].sql("CREATE TABLE heap (id int) WITH (autovacuum_enabled = off)").unwrap();
    cluster.node("n2").unwrap().set("max_standby_streaming_delay", "0").unwrap();
    cluster.wait_for_replicas().unwrap();
    let ledger = Ledger::of(&cluster);
    let proxy = proxy(&cluster, "", &[]);
    until_replicas_serve(proxy.port, &ledger);
    (cluster, ledger, proxy)
}

fn fill(cluster: &Cluster) {
    cluster.nodes()[0].sql("TRUNCATE heap; INSERT INTO heap SELECT generate_series(1, 500)").unwrap();
    cluster.wait_for_replicas().unwrap();
}

/// Waits until the node runs a statement with this mark.
fn until_runs(cluster: &Cluster, id: &str, mark: &str) {
    let node = cluster.node(id).unwrap();
    // The mark is split, so that this question does not find itself.
    let (first, last) = mark.split_at(2);
    let sql = format!(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{first}' || '{last}%'"
    );
    wait_until(DEADLINE, "the statement runs there", || node.sql(&sql).unwrap() == "t");
}

/// Removes most of `heap`, so that replay has to remove row versions a reader might still need.
fn remove(cluster: &Cluster) {
    cluster.nodes()[0].sql("DELETE FROM heap WHERE id > 10").unwrap();
    cluster.nodes()[0].sql("VACUUM heap").unwrap();
}

#[test]
fn a_read_that_recovery_cancels_before_its_first_row_runs_again_on_the_primary() {
    let (cluster, ledger, proxy) = impatient();
    // Half a minute of work with what is there, nothing with what is left when the primary runs it.
    let sql = "SELECT count(*) FROM heap a, heap b, heap c, heap d WHERE a.id <= 60";
    let mut client = Login::to(proxy.port).connect();
    type Conflict = fn(&Cluster);
    let with_lock: Conflict = |cluster| {
        let sql = "BEGIN; LOCK TABLE heap IN ACCESS EXCLUSIVE MODE; DELETE FROM heap WHERE id > 10; COMMIT";
        cluster.nodes()[0].sql(sql).unwrap();
    };
    for (round, conflict) in [remove, with_lock, remove].into_iter().enumerate() {
        fill(&cluster);
        until_replicas_serve(proxy.port, &ledger);
        let mark = mark("conflict");
        let sql = format!("{sql} /* {mark} */");
        let batch = match round {
            0 | 1 => Batch::new().query(&sql),
            _ => Batch::new().parse("long", &sql).describe(b'S', "long").run("long", &[]).sync(),
        };
        client.send(&batch.0).unwrap();
        until_runs(&cluster, "n2", &mark);
        // Shown as active from its Parse on, and told in the log from its execution on.
        wait_until(DEADLINE, "it is executed there", || ledger.count(&mark).of("n2") == 1);
        conflict(&cluster);
        let answer = client.until(b"Z").unwrap();
        assert_eq!(answer.value(), "10000", "round {round}");
        let shares = ledger.count(&mark);
        assert_eq!((shares.of("n2"), shares.of("n1")), (1, 1), "round {round}");
    }
    assert_eq!(client.batch(Batch::new().run("long", &[]).sync()).value(), "10000");
}

#[test]
fn a_read_that_recovery_cancels_after_its_first_row_fails_with_a_code_to_try_again() {
    let (cluster, _ledger, proxy) = impatient();
    let mut client = Login::to(proxy.port).connect();
    fill(&cluster);
    let mark = mark("rows");
    let sql = format!("SELECT a.id FROM heap a, heap b, heap c, heap d /* {mark} */");
    client.send(&Batch::new().query(&sql).0).unwrap();
    let mut rows = 0u64;
    while rows < 1000 {
        rows += u64::from(client.receive().unwrap().tag == b'D');
    }
    until_runs(&cluster, "n2", &mark);
    remove(&cluster);
    // Not with `until`, which would keep all rows.
    let error = loop {
        let message = client.receive().unwrap();
        match message.tag {
            b'D' => rows += 1,
            b'E' => break wire::Said::of(&message.body),
            tag => panic!("unexpected {} after {rows} rows", tag as char),
        }
    };
    assert_eq!(error.code, "40001", "after {rows} rows: {error:?}");
    assert_eq!(client.until(b"Z").unwrap().status, b'I');
    assert_eq!(client.value("SELECT count(*) FROM heap"), "10");
}

#[test]
fn a_read_only_block_that_recovery_cancels_is_not_run_again() {
    let (cluster, ledger, proxy) = impatient();
    let mut client = Login::to(proxy.port).connect();
    fill(&cluster);
    until_replicas_serve(proxy.port, &ledger);
    client.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    assert_eq!(client.value("SELECT count(*) FROM heap"), "500");
    let mark = mark("block");
    let sql = format!("SELECT count(*) FROM heap a, heap b, heap c, heap d WHERE a.id <= 60 /* {mark} */");
    client.send(&Batch::new().query(&sql).0).unwrap();
    until_runs(&cluster, "n2", &mark);
    remove(&cluster);
    let answer = client.until(b"Z").unwrap();
    assert_eq!((answer.code(), answer.status), ("40001", b'E'));
    // What comes next is refused too: as in a failed transaction, or by a second signal of the same conflict.
    let answer = client.query("SELECT 1");
    assert!(["25P02", "40001"].contains(&answer.code()), "{answer:?}");
    client.run("ROLLBACK");
    assert_eq!(client.value("SELECT count(*) FROM heap"), "10");
    assert_eq!(ledger.count(&mark).only(), Some("n2"));
}

// --- a statement misjudged --------------------------------------------------------------------------------------------

#[test]
fn a_write_taken_for_a_read_is_done_once_and_on_the_primary() {
    let cluster = watched_cluster(1);
    let sql = "CREATE TABLE journal (what text);
               CREATE FUNCTION sneaky(what text) RETURNS int LANGUAGE sql AS
                   'INSERT INTO journal VALUES (what) RETURNING 1'";
    cluster.nodes()[0].sql(sql).unwrap();
    cluster.wait_for_replicas().unwrap();
    let ledger = Ledger::of(&cluster);
    let proxy = proxy(&cluster, "safe_functions = [\"public.sneaky\"]", &[]);
    until_replicas_serve(proxy.port, &ledger);
    let mut client = Login::to(proxy.port).connect();
    let mut tried = 0;
    for shape in ["simple", "unnamed", "named", "described", "named again"] {
        let mark = mark("sneaky");
        let sql = format!("SELECT sneaky('{shape}') /* {mark} */");
        let batch = match shape {
            "simple" => Batch::new().query(&sql),
            "unnamed" => Batch::new().parse("", &sql).run("", &[]).sync(),
            "named" => Batch::new().parse("known", "SELECT sneaky($1)").run("known", &[Some(shape)]).sync(),
            "described" => Batch::new().parse("", &sql).bind("", "", &[]).describe(b'P', "").execute("", 0).sync(),
            _ => Batch::new().run("known", &[Some(shape)]).sync(),
        };
        assert_eq!(client.batch(batch).value(), "1", "{shape}");
        let written = cluster.nodes()[0].sql(&format!("SELECT count(*) FROM journal WHERE what = '{shape}'"));
        assert_eq!(written.unwrap(), "1", "{shape}");
        tried += ledger.count(&mark).of("n2");
    }
    assert!(tried > 0, "the replica was never asked, so nothing was shown");
    // Who declares a transaction read-only hears of it.
    client.run("BEGIN READ ONLY");
    assert_eq!(client.query("SELECT sneaky('never')").code(), "25006");
    client.run("ROLLBACK");
    client.run("SET default_transaction_read_only = on");
    assert_eq!(client.query("SELECT sneaky('never')").code(), "25006");
    assert_eq!(cluster.nodes()[0].sql("SELECT count(*) FROM journal WHERE what = 'never'").unwrap(), "0");
}

// --- promotion --------------------------------------------------------------------------------------------------------

#[test]
fn after_a_promotion_by_hand_reads_and_writes_go_on_correctly() {
    let cluster = watched_cluster(2);
    set_up(&cluster);
    let ledger = Ledger::of(&cluster);
    let proxy = proxy(&cluster, "", &[]);
    until_replicas_serve(proxy.port, &ledger);
    let [old, new, other] = cluster.nodes() else { panic!("three nodes") };
    let mut session = Login::to(proxy.port).connect();
    write(&mut session, 1);
    let mut stale = Login::to(proxy.port).connect();
    stale.run("SET pgbaton.consistency = 'eventual'");
    cluster.wait_for_replicas().unwrap();
    old.stop(Shutdown::Fast);
    // Who takes what there is is served while there is no primary.
    for _ in 0..20 {
        assert_eq!(stale.value(READ), "1");
    }
    new.sql("SELECT pg_promote()").unwrap();
    new.sql("SELECT pg_create_physical_replication_slot('n3', true)").unwrap();
    let primary_conninfo = other.sql("SHOW primary_conninfo").unwrap();
    let (from, to) = (format!("port={}", old.port()), format!("port={}", new.port()));
    assert!(primary_conninfo.contains(&from), "{primary_conninfo}");
    other.set("primary_conninfo", &primary_conninfo.replace(&from, &to)).unwrap();
    wait_until(DEADLINE, "writes go to the new primary", || {
        let answer = session.query("UPDATE own SET n = 2 WHERE id = 1");
        answer.errors.is_empty()
    });
    until_reads(proxy.port, &ledger, "the other replica serves", |shares| shares.only() == Some("n3"));
    let mark = mark("after");
    let mut newer = Login::to(proxy.port).connect();
    for n in 3..100 {
        let client = if n % 2 == 0 { &mut session } else { &mut newer };
        write(client, n);
        assert_eq!(client.value(&format!("{READ} /* {mark} */")), n.to_string());
        if n % 10 == 0 {
            // Long enough for the replica to be fresh enough again.
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    assert_eq!(new.sql(READ).unwrap(), "99");
    for client in [&mut session, &mut newer] {
        wait_until(DEADLINE, "a session reads at the replica of the new timeline", || {
            let mark = nodes::mark("settled");
            let n: i64 = client.value(&format!("{READ} /* {mark} */")).parse().unwrap();
            assert!(n >= 98, "stale: {n}");
            ledger.count(&mark).only() == Some("n3")
        });
    }
}
