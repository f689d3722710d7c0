//! What clients see while there is no primary, told to the sessions as the control plane tells it: writes are closed, doubts
//! are settled, writes are opened again. The primary itself lives all the time, so that each client can be caught in the
//! very moment that a story is about.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pgbaton::demo::{Cluster, Node};
use pgbaton::session::shared::{Settings, Shared};
use pgbaton::types::Epoch;
use support::{DEADLINE, InProcess, cluster, wait_until};
use wire::{Batch, Login, Wire, trusting};

/// A cluster of its own for each test, as its commits are made to wait for a standby that does not exist.
struct Ground {
    cluster: Cluster,
    proxy: InProcess,
    shared: Arc<Shared>,
    runtime: tokio::runtime::Runtime,
    epoch: std::cell::Cell<u64>,
}

impl Ground {
    fn new(hold: &str) -> Ground {
        Ground::with_replicas(hold, 0)
    }

    fn with_replicas(hold: &str, replicas: usize) -> Ground {
        let cluster = cluster(replicas);
        cluster.nodes()[0].sql("CREATE TABLE t (id int PRIMARY KEY, n int)").unwrap();
        let mut settings = trusting(&cluster, "");
        settings.sections += &format!("\n[failover]\nhold = \"{hold}\"");
        let proxy = InProcess::start(&cluster, &settings);
        let shared = proxy.shared();
        shared.open_writes(Epoch(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Ground { cluster, proxy, shared, runtime, epoch: std::cell::Cell::new(1) }
    }

    fn client(&self) -> Wire {
        Login::to(self.proxy.address.port()).connect()
    }

    fn primary(&self) -> &Node {
        &self.cluster.nodes()[0]
    }

    /// Writes are closed, and when this returns nobody holds on to the primary any more.
    fn close(&self) {
        self.epoch.set(self.epoch.get() + 1);
        self.shared.close_writes(Epoch(self.epoch.get()), "it was given up in a test".into());
        assert!(self.runtime.block_on(self.shared.all_let_go(DEADLINE)), "somebody holds on to the primary");
    }

    fn open(&self, outcomes: &[(u64, bool)]) {
        self.shared.doubts.deliver(&outcomes.iter().copied().collect::<HashMap<_, _>>());
        self.shared.open_writes(Epoch(self.epoch.get()));
    }

    #[track_caller]
    fn until_held(&self, count: usize) {
        wait_until(DEADLINE, "the statements are held", || self.shared.hold.statements() == count);
    }

    fn set(&self, change: impl Fn(&mut Settings)) {
        let mut settings = Settings::clone(&self.shared.settings.load());
        change(&mut settings);
        self.shared.settings.store(Arc::new(settings));
    }

    /// Commits wait from now on for a standby that will never come; or no more.
    fn stall_commits(&self, stall: bool) {
        self.primary().set("synchronous_standby_names", if stall { "nobody" } else { "" }).unwrap();
        let shown = if stall { "nobody" } else { "" };
        // The checkpointer has to have read it, which only a commit shows.
        let mut direct = Login::to(self.primary().port()).connect();
        let pid = direct.value("SELECT pg_backend_pid()");
        wait_until(DEADLINE, "the setting is in force", || {
            send(&mut direct, "SELECT pg_logical_emit_message(true, 'test', 'x')");
            let state =
                format!("SELECT state = 'idle', wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = {pid}");
            let mut seen = String::new();
            wait_until(DEADLINE, "it is done or waits", || {
                seen = self.primary().sql(&state).unwrap();
                seen.starts_with('t') || seen.ends_with("|t")
            });
            let waits = seen.ends_with("|t");
            if waits {
                direct.cancel().unwrap();
            }
            direct.until(b"Z").unwrap().ok();
            waits == stall && self.primary().sql("SHOW synchronous_standby_names").unwrap() == shown
        });
    }

    #[track_caller]
    fn until_in_sync_wait(&self) {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'demo'";
        wait_until(DEADLINE, "the commit waits for its standby", || self.primary().sql(sql).unwrap() == "1");
    }

    fn rows(&self) -> String {
        self.primary().sql("SET synchronous_commit = local; SELECT count(*) FROM t").unwrap().replace("SET\n", "")
    }
}

fn send(client: &mut Wire, sql: &str) {
    client.send(&Batch::new().query(sql).0).unwrap();
}

// --- what may wait, waits -----------------------------------------------------------------------------------------------

#[test]
fn statements_wait_for_the_primary_and_then_run_once() {
    let ground = Ground::new("60s");
    let (mut simple, mut extended, mut block) = (ground.client(), ground.client(), ground.client());
    let mut idle = ground.client();
    for client in [&mut simple, &mut extended, &mut block, &mut idle] {
        client.run("SELECT 1");
    }
    ground.close();
    send(&mut simple, "INSERT INTO t VALUES (1)");
    extended.send(&Batch::new().parse("", "INSERT INTO t VALUES (2)").run("", &[]).sync().0).unwrap();
    send(&mut block, "BEGIN; INSERT INTO t VALUES (3)");
    ground.until_held(3);
    // A new client waits for its greeting just so.
    let port = ground.proxy.address.port();
    let login = std::thread::spawn(move || Login::to(port).connect().value("SELECT 'late'"));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(ground.rows(), "0");
    ground.open(&[]);
    assert_eq!(simple.until(b"Z").unwrap().ok().done, ["INSERT 0 1"]);
    assert_eq!(extended.until(b"Z").unwrap().ok().done, ["INSERT 0 1"]);
    assert_eq!(block.until(b"Z").unwrap().ok().status, b'T');
    block.run("COMMIT");
    assert_eq!(idle.value("SELECT count(*) FROM t"), "3");
    assert_eq!(login.join().unwrap(), "late");
    assert_eq!((ground.shared.hold.statements(), ground.shared.hold.bytes()), (0, 0));
}

#[test]
fn who_has_waited_for_as_long_as_configured_is_told_why() {
    let ground = Ground::new("1s");
    let mut client = ground.client();
    client.run("SELECT 1");
    ground.close();
    let answer = client.query("INSERT INTO t VALUES (1)");
    let error = &answer.errors[0];
    assert_eq!((answer.code(), answer.status), ("57P03", b'I'));
    assert!(error.message.contains("it was given up in a test"), "{error:?}");
    assert!(error.detail.contains("(failover.hold)") && error.detail.contains("Epoch 2"), "{error:?}");
    ground.open(&[]);
    client.run("INSERT INTO t VALUES (1)");
}

#[test]
fn so_many_statements_wait_and_so_much_memory_is_spent_on_them() {
    let ground = Ground::new("60s");
    let mut clients: Vec<Wire> = (0..4).map(|_| ground.client()).collect();
    clients.iter_mut().for_each(|client| drop(client.run("SELECT 1")));
    ground.set(|settings| settings.max_held = 2);
    ground.close();
    for (at, client) in clients[..2].iter_mut().enumerate() {
        send(client, "INSERT INTO t SELECT count(*) FROM t");
        ground.until_held(at + 1);
    }
    let refused = clients[2].query("INSERT INTO t VALUES (9)");
    assert_eq!(refused.code(), "53400");
    assert!(refused.errors[0].detail.contains("failover.max_held is 2"), "{refused:?}");
    ground.set(|settings| (settings.max_held, settings.max_held_bytes) = (100, 100_000));
    let refused = clients[2].query(&format!("INSERT INTO t VALUES (length('{}'))", "x".repeat(100_000)));
    assert!(refused.errors[0].detail.contains("failover.max_held_bytes is 100000"), "{refused:?}");
    // One that goes makes room.
    ground.set(|settings| settings.max_held = 2);
    drop(clients.remove(0));
    ground.until_held(1);
    send(&mut clients[2], "INSERT INTO t VALUES (10)");
    ground.until_held(2);
    ground.open(&[]);
    clients[0].until(b"Z").unwrap().ok();
    clients[2].until(b"Z").unwrap().ok();
    assert_eq!(ground.rows(), "2");
}

#[test]
fn a_statement_that_waits_can_be_cancelled() {
    let ground = Ground::new("60s");
    let mut client = ground.client();
    client.run("SELECT 1");
    ground.close();
    send(&mut client, "INSERT INTO t VALUES (1)");
    ground.until_held(1);
    client.cancel().unwrap();
    assert_eq!(client.until(b"Z").unwrap().code(), "57014");
    ground.until_held(0);
    ground.open(&[]);
    assert_eq!(client.value("SELECT count(*) FROM t"), "0");
}

#[test]
fn reads_that_may_be_stale_go_on_meanwhile() {
    let ground = Ground::with_replicas("60s", 1);
    ground.cluster.wait_for_replicas().unwrap();
    let (mut stale, mut fresh) = (ground.client(), ground.client());
    stale.run("SET pgbaton.consistency = 'eventual'");
    wait_until(DEADLINE, "reads run on the replica", || {
        stale.run("SELECT count(*) FROM t");
        stale.value("SHOW pgbaton.node") == "n2"
    });
    ground.close();
    for _ in 0..20 {
        assert_eq!(stale.value("SELECT count(*) FROM t"), "0");
    }
    // One that must see its own write asks for what only the next primary can promise.
    send(&mut fresh, "INSERT INTO t VALUES (1)");
    ground.until_held(1);
    ground.open(&[]);
    fresh.until(b"Z").unwrap().ok();
    assert_eq!(fresh.value("SELECT count(*) FROM t"), "1");
}

// --- what was under way -------------------------------------------------------------------------------------------------

#[test]
fn an_open_block_is_rolled_back_and_its_session_goes_on() {
    let ground = Ground::new("60s");
    let (mut idle, mut busy, mut extended) = (ground.client(), ground.client(), ground.client());
    for (client, id) in [(&mut idle, 1), (&mut busy, 2), (&mut extended, 3)] {
        client.run("SET application_name = 'mine'");
        client.run("BEGIN");
        client.run(&format!("INSERT INTO t VALUES ({id})"));
    }
    send(&mut busy, "SELECT pg_sleep(600)");
    wait_until(DEADLINE, "it sleeps", || {
        ground.primary().sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").unwrap() == "1"
    });
    ground.close();
    // Who waits for an answer hears of it at once, who does not with the next statement.
    let answer = busy.until(b"Z").unwrap();
    assert_eq!((answer.code(), answer.status), ("40001", b'E'));
    assert!(answer.errors[0].detail.contains("the primary of epoch 1 was given up"), "{answer:?}");
    ground.open(&[]);
    assert_eq!(busy.query("SELECT 1").code(), "25P02");
    busy.run("ROLLBACK");
    let answer = idle.query("INSERT INTO t VALUES (4)");
    assert_eq!((answer.code(), answer.status), ("40001", b'E'));
    assert_eq!(idle.query("COMMIT").done, ["ROLLBACK"]);
    let rollback = Batch::new().parse("", "ROLLBACK").run("", &[]).sync();
    assert_eq!(extended.batch(rollback).ok().done, ["ROLLBACK"]);
    for client in [&mut idle, &mut busy, &mut extended] {
        assert_eq!(client.value("SHOW application_name"), "mine");
        assert_eq!(client.value("SELECT count(*) FROM t"), "0");
    }
}

#[test]
fn a_commit_in_doubt_is_answered_as_what_it_was() {
    let ground = Ground::new("60s");
    let mut counted = [0; 3];
    let stories = [(Some(true), false), (Some(false), false), (None, false), (Some(true), true), (Some(false), true)];
    for (at, (outcome, extended)) in stories.into_iter().enumerate() {
        let (mut client, epoch) = (ground.client(), ground.epoch.get());
        client.run("BEGIN");
        client.run(&format!("INSERT INTO t VALUES ({at})"));
        let xid: u64 = client.value("SELECT pg_current_xact_id()").parse().unwrap();
        ground.stall_commits(true);
        let batch = match extended {
            true => Batch::new().parse("", "COMMIT").run("", &[]).sync(),
            false => Batch::new().query("COMMIT"),
        };
        client.send(&batch.0).unwrap();
        ground.until_in_sync_wait();
        ground.close();
        assert_eq!(ground.shared.doubts.pending(), [xid]);
        ground.open(&outcome.map(|committed| (xid, committed)).into_iter().collect::<Vec<_>>());
        let answer = client.until(b"Z").unwrap();
        assert_eq!(answer.status, b'I', "{answer:?}");
        match outcome {
            Some(true) => assert_eq!(answer.ok().done, ["COMMIT"]),
            Some(false) => {
                assert_eq!(answer.code(), "40001");
                assert!(answer.errors[0].message.contains("was not committed"), "{answer:?}");
            }
            None => {
                assert_eq!(answer.code(), "08007");
                let detail = &answer.errors[0].detail;
                let whereabouts = format!("node n1 in epoch {epoch}");
                assert!(detail.contains(&whereabouts) && detail.contains(&xid.to_string()), "{detail}");
            }
        }
        counted[match outcome {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        }] += 1;
        assert_eq!(ground.shared.doubts.counted().map(|(_, count)| count), counted);
        ground.stall_commits(false);
        // The session is in no block, and of the new epoch.
        client.run(&format!("INSERT INTO t VALUES ({at} + 100)"));
    }
}

#[test]
fn a_commit_of_nothing_has_nothing_to_be_in_doubt_about() {
    let ground = Ground::new("60s");
    let mut client = ground.client();
    client.run("BEGIN");
    client.value("SELECT count(*) FROM t");
    client.run("SET timezone = 'Asia/Tokyo'");
    // The server process is stopped in its tracks, so that the COMMIT is sent and never answered.
    let sql = "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' AND usename = 'demo'";
    let server: u32 = ground.primary().sql(sql).unwrap().parse().unwrap();
    support::send(server, rustix::process::Signal::STOP);
    send(&mut client, "COMMIT");
    std::thread::sleep(Duration::from_millis(100));
    ground.close();
    support::send(server, rustix::process::Signal::CONT);
    // The question was never answered either.
    assert_eq!(client.until(b"Z").unwrap().code(), "08007");
    ground.open(&[]);
    client.run("SELECT 1");
}

#[test]
fn an_autocommit_write_without_an_answer_is_never_repeated_and_says_so() {
    let ground = Ground::new("60s");
    let mut client = ground.client();
    for (batch, epoch) in [
        (Batch::new().query("INSERT INTO t VALUES (1)"), 1),
        (Batch::new().parse("", "INSERT INTO t VALUES (2)").run("", &[]).sync(), 2),
    ] {
        client.run("SELECT 1");
        ground.stall_commits(true);
        client.send(&batch.0).unwrap();
        ground.until_in_sync_wait();
        ground.close();
        let answer = client.until(b"Z").unwrap();
        assert_eq!((answer.code(), answer.status), ("08007", b'I'));
        assert!(answer.errors[0].detail.contains(&format!("node n1 in epoch {epoch}")), "{answer:?}");
        ground.stall_commits(false);
        ground.open(&[]);
    }
    // Each happened once.
    assert_eq!(client.value("SELECT count(*) FROM t"), "2");
}

#[test]
fn a_session_tied_to_the_lost_server_is_closed_with_the_name_of_what_was_lost() {
    let ground = Ground::new("60s");
    for (statement, name) in [
        ("CREATE TEMPORARY TABLE mine (id int)", "temporary object"),
        ("SELECT pg_advisory_lock(7)", "advisory lock"),
        ("LISTEN news", "listen"),
        ("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT", "cursor with hold"),
    ] {
        let mut client = ground.client();
        client.run(statement);
        ground.close();
        let answer = client.rest();
        assert_eq!(answer.code(), "57P01", "{statement}");
        assert!(answer.errors[0].detail.contains(name), "{answer:?}");
        ground.open(&[]);
        ground.client().run("SELECT 1");
    }
    // The memory of sequences is not worth a connection.
    ground.primary().sql("CREATE SEQUENCE s").unwrap();
    let mut client = ground.client();
    client.run("SELECT nextval('s')");
    client.run("SELECT currval('s')");
    ground.close();
    ground.open(&[]);
    assert_eq!(client.value("SELECT 1"), "1");
}

#[test]
fn nobody_waits_for_a_primary_that_is_frozen() {
    let ground = Ground::new("60s");
    let mut writer = ground.client();
    let (mut opens, mut restores, mut block) = (ground.client(), ground.client(), ground.client());
    block.run("BEGIN");
    block.run("INSERT INTO t VALUES (1)");
    restores.run("SET timezone = 'Asia/Tokyo'");
    send(&mut writer, "INSERT INTO t SELECT 2 FROM pg_sleep(600)");
    wait_until(DEADLINE, "it sleeps", || {
        ground.primary().sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").unwrap() == "1"
    });
    ground.primary().pause();
    send(&mut restores, "INSERT INTO t VALUES (3)");
    send(&mut opens, "INSERT INTO t VALUES (4)");
    std::thread::sleep(Duration::from_millis(100));
    // Its client goes while the server cannot be told.
    drop(block);
    ground.close();
    let answer = writer.until(b"Z").unwrap();
    assert_eq!(answer.code(), "08007");
    ground.until_held(2);
    ground.primary().resume();
    ground.open(&[]);
    restores.until(b"Z").unwrap().ok();
    opens.until(b"Z").unwrap().ok();
    assert_eq!(restores.value("SHOW timezone"), "Asia/Tokyo");
}

// --- servers that end connections by themselves -----------------------------------------------------------------------------

#[test]
fn a_server_process_that_is_terminated_ends_what_it_did_and_not_its_client() {
    let ground = Ground::new("60s");
    let terminate = |what: &str| {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE usename = 'demo' AND pid <> pg_backend_pid() AND ({what})"
        );
        wait_until(DEADLINE, "one is terminated", || ground.primary().sql(&sql).unwrap() == "1");
    };
    let mut client = ground.client();
    client.run("SELECT 1");
    let idle = "SELECT pid FROM pg_stat_activity WHERE usename = 'demo' AND state = 'idle' AND pid <> pg_backend_pid()";
    let pid = ground.primary().sql(idle).unwrap();
    terminate("state = 'idle'");
    // It was told to end; once it has, its connection is known to be of no use.
    let is_there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    wait_until(DEADLINE, "it has ended", || ground.primary().sql(&is_there).unwrap() == "0");
    assert_eq!(client.value("SELECT 2"), "2");
    // In a statement on its own: it is known that it was not committed.
    send(&mut client, "INSERT INTO t SELECT 1 FROM pg_sleep(600)");
    terminate("wait_event = 'PgSleep'");
    let answer = client.until(b"Z").unwrap();
    assert_eq!((answer.code(), answer.status), ("40001", b'I'));
    // In a block.
    client.run("BEGIN");
    client.run("INSERT INTO t VALUES (1)");
    terminate("state = 'idle in transaction'");
    let answer = client.query("INSERT INTO t VALUES (2)");
    assert_eq!((answer.code(), answer.status), ("40001", b'E'));
    client.run("ROLLBACK");
    assert_eq!(ground.rows(), "0");
    // What was tied to the process ends with it.
    client.run("LISTEN news");
    terminate("state = 'idle'");
    assert_eq!(client.rest().code(), "57P01");
}

#[test]
fn an_interrupted_wait_for_standbys_is_not_passed_off_as_success() {
    let ground = Ground::new("2s");
    let mut client = ground.client();
    let interrupt = |function: &str| {
        ground.until_in_sync_wait();
        let sql = format!("SELECT {function}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
        ground.primary().sql(&sql).unwrap();
    };
    client.run("SELECT 1");
    ground.stall_commits(true);
    let commit = ["BEGIN", "INSERT INTO t VALUES (1)", "COMMIT"];
    let simple = ["", "", "INSERT INTO t VALUES (2)"];
    for [begin, insert, last] in [commit, simple] {
        for sql in [begin, insert] {
            client.run(sql);
        }
        send(&mut client, last);
        interrupt("pg_cancel_backend");
        let answer = client.until(b"Z").unwrap();
        assert_eq!((answer.code(), answer.status, answer.done.len()), ("08007", b'I', 0), "{answer:?}");
        assert!(answer.errors[0].detail.contains("on node n1 in epoch 1"), "{answer:?}");
    }
    client.send(&Batch::new().parse("", "INSERT INTO t VALUES (3)").run("", &[]).sync().0).unwrap();
    interrupt("pg_cancel_backend");
    assert_eq!(client.until(b"Z").unwrap().code(), "08007");
    // Terminated instead: PostgreSQL says nothing more, and nobody knows but that it was not replicated.
    client.run("BEGIN");
    client.run("INSERT INTO t VALUES (4)");
    send(&mut client, "COMMIT");
    interrupt("pg_terminate_backend");
    let answer = client.until(b"Z").unwrap();
    assert_eq!((answer.code(), answer.status), ("08007", b'I'));
    assert!(answer.errors[0].detail.contains("though not on its standbys"), "{answer:?}");
    assert!(client.notices.iter().all(|notice| !notice.message.contains("terminating")), "{:?}", client.notices);
    ground.stall_commits(false);
    assert_eq!(client.value("SELECT count(*) FROM t"), "4");
}

#[test]
fn a_cancel_does_not_reach_a_commit_that_waits_for_its_standbys() {
    let ground = Ground::new("60s");
    for extended in [false, true] {
        let mut client = ground.client();
        client.run("BEGIN");
        client.run(&format!("INSERT INTO t VALUES ({})", i32::from(extended)));
        ground.stall_commits(true);
        let batch =
            if extended { Batch::new().parse("", "COMMIT").run("", &[]).sync() } else { Batch::new().query("COMMIT") };
        client.send(&batch.0).unwrap();
        ground.until_in_sync_wait();
        client.cancel().unwrap();
        ground.until_in_sync_wait();
        ground.stall_commits(false);
        assert_eq!(client.until(b"Z").unwrap().ok().done, ["COMMIT"]);
        // The next statement can be cancelled as ever.
        send(&mut client, "SELECT pg_sleep(600)");
        wait_until(DEADLINE, "it sleeps", || {
            ground.primary().sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").unwrap() == "1"
        });
        client.cancel().unwrap();
        assert_eq!(client.until(b"Z").unwrap().code(), "57014");
    }
}
