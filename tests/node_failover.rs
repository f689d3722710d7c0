//! What pgbaton asks of nodes and does to them at a failover, against real servers that are killed, frozen, paused, blocked
//! and short of rights. How long things take is printed, and asserted nowhere.

#[path = "support/field.rs"]
mod field;
#[path = "support/ground.rs"]
mod ground;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use field::{Field, failed, freeze, id, names, received};
use pgbaton::cluster::{Answer, FailureKind, Sight, Symptom, SyncNames};
use pgbaton::demo::{CONTROL_USER, Node, Shutdown};
use pgbaton::node::{Control, XactStatus};
use pgbaton::types::{Epoch, Lsn, NodeId, Timeline};
use support::{DEADLINE, wait_until};
use wire::{Batch, Login};

// --- probes -----------------------------------------------------------------------------------------------------------

#[test]
fn a_probe_sees_what_there_is_to_be_seen() {
    let field = Field::new(&[]);
    let primary = field.seen("n1");
    assert!(!primary.is_in_recovery && !primary.is_fenced);
    assert_eq!(primary.timeline, Timeline(1));
    assert_eq!((primary.receiver, primary.follows, primary.recruited_for), (None, None, None));
    assert_eq!(primary.sync, Some(SyncNames::default()));
    assert_eq!(
        primary.senders.iter().map(|sender| (&*sender.node.0, sender.is_streaming)).collect::<Vec<_>>(),
        [("n2", true), ("n3", true)]
    );
    let standby = field.seen("n2");
    assert!(standby.is_in_recovery);
    assert_eq!(standby.system_identifier, primary.system_identifier);
    assert_eq!((standby.timeline, standby.follows, standby.recruited_for), (Timeline(1), Some(id("n1")), None));
    assert_eq!(standby.sync, None);
    let receiver = standby.receiver.unwrap();
    assert_eq!((receiver.from, receiver.quiet.0), (Some(id("n1")), 2500));
    assert!(standby.lsn >= standby.replayed && standby.replayed > Lsn(0));

    // What others wrote is not ours.
    field.node("n1").set("synchronous_standby_names", "n2").unwrap();
    wait_until(DEADLINE, "another's names are seen", || field.seen("n1").sync.is_none());
    field.node("n1").set("synchronous_standby_names", "ANY 1 (\"n2\", \"n3\")").unwrap();
    wait_until(DEADLINE, "our names are seen", || field.seen("n1").sync == Some(names(&["n2", "n3"], 1)));

    // The table of epochs: empty, with rows, locked, gone, back.
    assert_eq!(primary.last_epoch, None);
    let sql = |text: &str| field.node("n1").sql_in("postgres", text).unwrap();
    sql("INSERT INTO pgbaton.epoch VALUES (4), (7), (5)");
    assert_eq!(field.seen("n1").last_epoch, Some(Epoch(7)));
    wait_until(DEADLINE, "the standby knows", || field.seen("n3").last_epoch == Some(Epoch(7)));
    let mut locker = Login::to(field.node("n1").port()).database("postgres").connect();
    locker.run("BEGIN; LOCK pgbaton.epoch");
    assert_eq!(field.seen("n1").last_epoch, Some(Epoch(7)), "a lock is no sign of death, and it only grows");
    locker.run("ROLLBACK");
    // After that the table is left alone for a while; what was written meanwhile counts all the same.
    let written =
        field.timed("an epoch", field.control.write_epoch(&id("n1"), Epoch(8), "test", Timeline(1), "a test"));
    assert_eq!(written, Ok(Answer::EpochWritten));
    assert_eq!(field.seen("n1").last_epoch, Some(Epoch(8)), "else it would have the data of a primary of the past");
    sql("REVOKE ALL ON pgbaton.epoch FROM pgbaton");
    assert_eq!(field.seen("n1").last_epoch, None);
    sql("DROP SCHEMA pgbaton CASCADE");
    assert_eq!(field.seen("n1").last_epoch, None);

    // A cascading standby, and one that calls itself otherwise.
    let upstream = format!("host={} port={}", field.node("n2").host(), field.node("n2").port());
    let mine = field.node("n3").sql("SHOW primary_conninfo").unwrap();
    let port = format!("port={}", field.node("n1").port());
    let cascading = mine.replace(&port, &format!("port={}", field.node("n2").port()));
    field.node("n3").sql("ALTER SYSTEM SET primary_slot_name = ''").unwrap();
    field.node("n3").set("primary_conninfo", &cascading).unwrap();
    field.wait_for_receiver("n3", "n2");
    assert_eq!(field.seen("n3").follows, Some(id("n2")), "{upstream}");
    field.node("n3").set("primary_conninfo", &cascading.replace("application_name=n3", "application_name=n9")).unwrap();
    wait_until(DEADLINE, "another name is seen", || field.seen("n3").follows.is_none());
    field.timed("1000 probes", async {
        for _ in 0..1000 {
            field.control.observe(&id("n1")).await;
        }
    });
}

#[test]
fn a_crash_that_the_postmaster_survives_is_another_incarnation() {
    let field = Field::new(&[]);
    let before = field.seen("n1");
    assert_eq!(field.seen("n1").incarnation, before.incarnation);
    let mut victim = field.app("n1");
    let pid: i32 = victim.value("SELECT pg_backend_pid()").parse().unwrap();
    let postmaster = field.node("n1").pid();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    let mut met = Vec::new();
    wait_until(DEADLINE, "the crash is seen", || match field.sight("n1") {
        Sight::Answers(seen) => seen.incarnation != before.incarnation,
        Sight::Fails(symptom, reason) => {
            met.push(format!("{symptom:?}"));
            assert!(matches!(symptom, Symptom::Starting), "{symptom:?}: {reason}");
            false
        }
    });
    met.dedup();
    println!("seen of the crash: {met:?}");
    assert_eq!(field.node("n1").pid(), postmaster);
    // A restart is one too, also on a standby.
    let before = field.seen("n2").incarnation;
    field.node("n2").restart(Shutdown::Fast).unwrap();
    assert_ne!(field.seen("n2").incarnation, before);
}

#[test]
fn a_probe_tells_the_ways_of_not_answering_apart() {
    let field = Field::new(&[]);
    for node in ["n1", "n2", "n3"] {
        field.seen(node);
    }
    field.node("n2").stop(Shutdown::Kill);
    assert_eq!(field.symptom("n2"), Symptom::Refused);
    assert_eq!(field.symptom("n2"), Symptom::Refused);
    let frozen = freeze(field.node("n3"));
    assert_eq!(field.symptom("n3"), Symptom::Silent, "on the kept connection");
    assert_eq!(field.symptom("n3"), Symptom::Silent, "on a new one");
    drop(frozen);
    wait_until(DEADLINE, "it answers again", || matches!(field.sight("n3"), Sight::Answers(_)));
    // The kept connection is ended by somebody: the same probe opens another.
    field.node("n1").sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pgbaton'").unwrap();
    field.seen("n1");
    assert!(matches!(field.sight("n99"), Sight::Fails(Symptom::Rejected, _)));
}

#[test]
fn what_a_server_says_at_the_door_is_told_apart() {
    let cluster = support::cluster(0);
    let answers = |code: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                let mut stream = stream.unwrap();
                let mut asked = [0; 1024];
                let _ = stream.read(&mut asked);
                if code.is_empty() {
                    continue;
                }
                let _ = stream.write_all(b"N");
                let _ = stream.read(&mut asked);
                let body = format!("SFATAL\0VFATAL\0C{code}\0Mno\0\0");
                let _ = stream.write_all(&wire::message(b'E', body.as_bytes()));
            }
        });
        port
    };
    let runtime = ground::runtime();
    let look = |port: u16, password: &str| {
        let mut config = ground::control_config(&cluster, CONTROL_USER, password);
        let mut address = (*config.nodes[0].address).clone();
        address.port = port;
        config.nodes[0].address = std::sync::Arc::new(address);
        config.nodes.truncate(1);
        let sight = runtime.block_on(async { Control::new(config, ground::fixed(&cluster)).observe(&id("n1")).await });
        match sight {
            Sight::Fails(symptom, reason) => {
                println!("{reason}");
                assert!(!reason.contains("hidden"));
                symptom
            }
            Sight::Answers(_) => panic!("it answers"),
        }
    };
    for (code, symptom) in [
        ("57P03", Symptom::Starting),
        ("57P01", Symptom::Starting),
        ("53300", Symptom::Rejected),
        ("3D000", Symptom::Rejected),
        ("", Symptom::Refused),
    ] {
        assert_eq!(look(answers(code), "hidden"), symptom, "{code}");
    }
    assert_eq!(look(cluster.nodes()[0].port(), "hidden"), Symptom::Rejected, "a wrong password");
}

// --- recruiting -------------------------------------------------------------------------------------------------------

/// A commit on `n1` that n2 would have to acknowledge, begun now: whether it waits for that.
fn waits_for_n2(field: &Field) -> bool {
    let primary = field.node("n1");
    primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").unwrap();
    primary.set("synchronous_standby_names", "ANY 1 (\"n2\")").unwrap();
    wait_until(DEADLINE, "the names are in force", || {
        primary.sql("SHOW synchronous_standby_names").unwrap().contains("n2")
            && primary
                .sql("SELECT count(*) FROM pg_stat_replication WHERE application_name = 'n3' AND sync_priority > 0")
                .unwrap()
                == "0"
    });
    let mut writer = field.app("n1");
    writer.send(&Batch::new().query("INSERT INTO own VALUES (1)").0).unwrap();
    let mut waits = false;
    wait_until(DEADLINE, "the commit waits or ends", || {
        let state = primary
            .sql("SELECT wait_event = 'SyncRep', state = 'idle' FROM pg_stat_activity WHERE usename = 'app' AND query LIKE 'INSERT%' ORDER BY backend_start DESC LIMIT 1")
            .unwrap();
        waits = state.starts_with('t');
        waits || state.ends_with('t')
    });
    if waits {
        // It goes on waiting: for as long as a standby takes to come back by itself several times.
        let until = Instant::now() + Duration::from_millis(700);
        while Instant::now() < until {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            assert_eq!(primary.sql(waiting).unwrap(), "1", "it was acknowledged after all");
            assert_eq!(
                primary.sql("SELECT count(*) FROM pg_stat_replication WHERE application_name = 'n2'").unwrap(),
                "0"
            );
        }
    }
    waits
}

#[test]
fn a_recruit_acknowledges_nothing_to_a_living_primary() {
    let field = Field::new(&[]);
    assert!(!waits_for_n2(&field), "n2 acknowledges at first");
    let before = field.node("n2").sql("SHOW primary_conninfo").unwrap();
    let had = received(field.recruit("n2", 7));
    assert!(waits_for_n2(&field));
    let seen = field.seen("n2");
    assert_eq!((seen.recruited_for, seen.receiver, seen.lsn), (Some(Epoch(7)), None, had));
    // Everything but the place is still there.
    let after = field.node("n2").sql("SHOW primary_conninfo").unwrap();
    let password = |text: &str| text.split_whitespace().find(|word| word.starts_with("password")).map(str::to_owned);
    assert_eq!(password(&after), password(&before));
    assert!(password(&after).is_some() && after.contains("host=/pgbaton/recruited-for-epoch-7"));
    // Again, for the next epoch; and nothing changes when both restart.
    assert_eq!(received(field.recruit("n2", 8)), had);
    field.node("n2").restart(Shutdown::Kill).unwrap();
    field.node("n1").restart(Shutdown::Kill).unwrap();
    assert!(waits_for_n2(&field));
    assert_eq!(field.seen("n2").recruited_for, Some(Epoch(8)));
}

#[test]
fn recruits_of_a_killed_primary_receive_nothing_when_it_returns() {
    let field = Field::new(&[]);
    field.seen("n2");
    // As the driver does every few seconds: a connection lies ready.
    for node in ["n2", "n3"] {
        field.runtime.block_on(field.control.keep_slots(&id(node), false, &[]));
    }
    field.node("n1").stop(Shutdown::Kill);
    let begin = Instant::now();
    let (two, three) = field.runtime.block_on(async {
        let (two, three) = (id("n2"), id("n3"));
        tokio::join!(field.control.recruit(&two, Epoch(2)), field.control.recruit(&three, Epoch(2)))
    });
    println!("both recruited after the kill: {:?}", begin.elapsed());
    let (two, three) = (received(two), received(three));
    field.node("n1").start().unwrap();
    assert!(waits_for_n2(&field));
    assert_eq!((field.seen("n2").lsn, field.seen("n3").lsn), (two, three));
}

#[test]
fn a_frozen_primary_is_left_all_the_same() {
    let field = Field::new(&[]);
    let frozen = freeze(field.node("n1"));
    received(field.recruit("n2", 2));
    drop(frozen);
    assert!(waits_for_n2(&field));
}

#[test]
fn replay_that_is_paused_delayed_or_blocked_does_not_keep_a_recruit_receiving() {
    let field = Field::new(&[("max_standby_streaming_delay", "-1"), ("hot_standby_feedback", "off")]);
    let primary = field.node("n1");
    primary.sql("INSERT INTO own SELECT generate_series(1, 1000)").unwrap();
    // Paused.
    field.node("n2").sql("SELECT pg_wal_replay_pause()").unwrap();
    primary.sql("INSERT INTO own VALUES (0)").unwrap();
    wait_until(DEADLINE, "paused", || {
        field.node("n2").sql("SELECT pg_get_wal_replay_pause_state()").unwrap() == "paused"
    });
    received(field.recruit("n2", 2));
    assert!(waits_for_n2(&field), "paused");
    field.timed("follow n2", field.control.follow(&id("n2"), &id("n1"))).unwrap();
    field.wait_for_receiver("n2", "n1");
    // Delayed.
    field.node("n2").set("recovery_min_apply_delay", "1h").unwrap();
    let _ = primary.sql("SET synchronous_commit = local; INSERT INTO own VALUES (0)");
    received(field.recruit("n2", 3));
    assert!(waits_for_n2(&field), "delayed");
    field.timed("follow n2", field.control.follow(&id("n2"), &id("n1"))).unwrap();
    field.wait_for_receiver("n2", "n1");
    field.cluster.wait_for_replicas().unwrap();
    // Blocked by a lock, by one who holds no snapshot.
    let mut reader = field.app("n2");
    reader.run("BEGIN; SELECT count(*) FROM own");
    primary.sql("SET synchronous_commit = local; ALTER TABLE own ADD COLUMN more int").unwrap();
    wait_until(DEADLINE, "replay is blocked", || {
        field
            .node("n2")
            .sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event_type = 'Lock'")
            .unwrap()
            == "1"
    });
    received(field.recruit("n2", 4));
    assert!(waits_for_n2(&field), "blocked by a lock");
    field.timed("follow n2", field.control.follow(&id("n2"), &id("n1"))).unwrap();
    field.wait_for_receiver("n2", "n1");
    field.cluster.wait_for_replicas().unwrap();
    // Blocked by a snapshot.
    let mut reader = field.app("n2");
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM own");
    primary.sql_in("demo", "SET synchronous_commit = local; DELETE FROM own").unwrap();
    let mut vacuum = Login::to(primary.port()).with("options", "-c synchronous_commit=local").connect();
    vacuum.run("VACUUM own");
    wait_until(DEADLINE, "replay is blocked", || {
        field
            .node("n2")
            .sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'RecoveryConflictSnapshot'")
            .unwrap()
            == "1"
    });
    received(field.recruit("n2", 5));
    assert!(waits_for_n2(&field), "blocked by a snapshot");
}

#[test]
fn a_standby_that_cannot_be_recruited_says_what_it_takes() {
    let field = Field::new(&[]);
    failed(field.recruit("n1", 2), FailureKind::Refused, "it is a primary");
    field.node("n1").sql_in("postgres", "REVOKE ALTER SYSTEM ON PARAMETER primary_conninfo FROM pgbaton").unwrap();
    field.cluster.wait_for_replicas().unwrap();
    let refused = field.recruit("n2", 2);
    failed(refused, FailureKind::Refused, "GRANT ALTER SYSTEM ON PARAMETER primary_conninfo");
    let log = std::fs::read_to_string(field.node("n2").log_file()).unwrap();
    assert!(!log.contains("password="), "a refused statement is in the log, with the password");
    field.node("n1").sql_in("postgres", "GRANT ALTER SYSTEM ON PARAMETER primary_conninfo TO pgbaton").unwrap();
    field.cluster.wait_for_replicas().unwrap();

    // A configuration that cannot be read: the reload changes nothing.
    let file = field.node("n2").data_directory().join("postgresql.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\nnonsense\n")).unwrap();
    failed(field.recruit("n2", 2), FailureKind::Refused, "is still what it was after a reload");
    std::fs::write(&file, text).unwrap();

    // On the command line it overrides everything.
    let standby = field.node("n2");
    let conninfo = standby.sql("SHOW primary_conninfo").unwrap();
    field.node("n2").sql("ALTER SYSTEM RESET primary_conninfo").unwrap();
    standby.stop(Shutdown::Fast);
    let mut by_hand = by_hand(&field, standby, &["-c", &format!("primary_conninfo={conninfo}")]);
    wait_until(DEADLINE, "it is up", || matches!(field.sight("n2"), Sight::Answers(_)));
    let outcome = field.recruit("n2", 2);
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&by_hand), rustix::process::Signal::INT);
    support::wait_for_end(&mut by_hand, DEADLINE);
    failed(outcome, FailureKind::Refused, "command line");

    let _frozen = freeze(field.node("n3"));
    let begin = Instant::now();
    failed(field.recruit("n3", 2), FailureKind::Unreachable, "no answer");
    assert!(begin.elapsed() < DEADLINE);
}

/// The server with more on its command line.
fn by_hand(field: &Field, node: &Node, arguments: &[&str]) -> std::process::Child {
    let mut command = match field.cluster.run_as() {
        Some(user) => {
            let mut command = std::process::Command::new("setpriv");
            command.args(["--reuid", user, "--regid", user, "--clear-groups", "--"]);
            command.arg(field.cluster.bin().program("postgres"));
            command
        }
        None => std::process::Command::new(field.cluster.bin().program("postgres")),
    };
    command.arg("-D").arg(node.data_directory()).args(arguments).current_dir(field.cluster.directory());
    command.stderr(std::process::Stdio::null()).spawn().unwrap()
}

// --- the last questions -----------------------------------------------------------------------------------------------

#[test]
fn a_settled_standby_knows_of_every_commit_in_doubt() {
    let field = Field::new(&[("max_standby_streaming_delay", "-1")]);
    let mut client = field.app("n1");
    let mut xid = |end: &str| {
        client.run("BEGIN; INSERT INTO own VALUES (1)");
        let xid: u64 = client.value("SELECT pg_current_xact_id()").parse().unwrap();
        client.run(end);
        xid
    };
    let (committed, aborted) = (xid("COMMIT"), xid("ROLLBACK"));
    let mut open = field.app("n1");
    open.run("BEGIN; INSERT INTO own VALUES (2)");
    let in_progress: u64 = open.value("SELECT pg_current_xact_id()").parse().unwrap();
    // One after it is finished and known to the standby, so this one is no longer in the future there.
    let last = xid("COMMIT");
    field.cluster.wait_for_replicas().unwrap();
    field.node("n2").sql("SELECT pg_wal_replay_pause()").unwrap();
    let late = xid("COMMIT");
    let had = field.node("n1").sql("SELECT pg_current_wal_lsn()").unwrap();
    wait_until(DEADLINE, "n2 has it", || {
        field.node("n2").sql(&format!("SELECT pg_last_wal_receive_lsn() >= '{had}'")).unwrap() == "t"
    });
    field.node("n1").stop(Shutdown::Kill);
    received(field.recruit("n2", 2));
    let asked = [committed, aborted, in_progress, last, late, late + 1, late + 1_000_000];
    let (answer, statuses) = field.timed("settle n2", field.control.settle(&id("n2"), &asked, None)).unwrap();
    use XactStatus::{Aborted, Committed, Future, InProgress};
    let told: Vec<XactStatus> = statuses.iter().map(|(_, status)| *status).collect();
    assert_eq!(told, [Committed, Aborted, InProgress, Committed, Committed, Future, Future]);
    assert_eq!(statuses.iter().map(|(xid, _)| *xid).collect::<Vec<_>>(), asked);
    let Answer::Settled { replayed, .. } = answer else { panic!("{answer:?}") };
    assert!(replayed >= had.parse().unwrap());
    let many: Vec<u64> = (0..1000).map(|n| 700 + n).collect();
    assert_eq!(
        field.timed("settle n2, 1000 questions", field.control.settle(&id("n2"), &many, None)).unwrap().1.len(),
        1000
    );
    assert_eq!(field.timed("settle n2, no question", field.control.settle(&id("n2"), &[], None)).unwrap().1, []);
}

#[test]
fn a_half_received_record_does_not_hold_settling_up() {
    let field = Field::new(&[]);
    // Under load, so that the kill is likely to tear a record.
    let load: Vec<_> = (0..3)
        .map(|n| {
            let mut client = field.app("n1");
            std::thread::spawn(move || {
                let insert = format!("INSERT INTO own SELECT {n} FROM generate_series(1, 20000)");
                while client.send(&Batch::new().query(&insert).0).is_ok() && client.until(b"Z").is_ok() {}
            })
        })
        .collect();
    wait_until(DEADLINE, "there is a load", || {
        field.node("n2").sql("SELECT count(*) > 50000 FROM own").is_ok_and(|enough| enough == "t")
    });
    field.node("n1").stop(Shutdown::Kill);
    load.into_iter().for_each(|thread| thread.join().unwrap());
    for node in ["n2", "n3"] {
        let received = received(field.recruit(node, 2));
        let (answer, _) = field.timed("settle under load", field.control.settle(&id(node), &[], None)).unwrap();
        let Answer::Settled { replayed, .. } = answer else { panic!("{answer:?}") };
        println!("{node}: received {received}, replayed {replayed}");
        assert!(replayed <= received);
    }
}

// --- promoting and following ------------------------------------------------------------------------------------------

#[test]
fn a_standby_becomes_the_primary_and_the_other_follows() {
    let field = Field::new(&[]);
    let control = &field.control;
    let (one, two, three) = (id("n1"), id("n2"), id("n3"));
    // Every node has slots before it is needed.
    for round in 0..2 {
        for node in ["n1", "n2", "n3"] {
            let peers: Vec<(NodeId, Lsn)> = ["n1", "n2", "n3"].map(|peer| (id(peer), field.seen(peer).replayed)).into();
            field.runtime.block_on(control.keep_slots(&id(node), node == "n1", &peers));
        }
        if round == 0 {
            field.node("n1").sql("INSERT INTO own SELECT generate_series(1, 1000)").unwrap();
            field.cluster.wait_for_replicas().unwrap();
        }
    }
    let slots =
        "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE restart_lsn IS NOT NULL";
    assert_eq!(field.node("n2").sql(slots).unwrap(), "n1 n3");
    assert_eq!(field.node("n3").sql(slots).unwrap(), "n1 n2");
    assert_eq!(field.node("n1").sql(slots).unwrap(), "n2 n3");
    let advanced = "SELECT restart_lsn = pg_last_wal_replay_lsn() FROM pg_replication_slots WHERE slot_name = 'n3'";
    wait_until(DEADLINE, "n2's slot for n3 is where n3 is", || {
        field.runtime.block_on(control.keep_slots(&two, false, &[(three.clone(), field.seen("n3").replayed)]));
        field.node("n2").sql(advanced).unwrap() == "t"
    });

    field.node("n1").stop(Shutdown::Kill);
    received(field.recruit("n2", 2));
    received(field.recruit("n3", 2));
    let (settled, _) = field.timed("settle n2", control.settle(&two, &[], None)).unwrap();
    let Answer::Settled { replayed, .. } = settled else { panic!("{settled:?}") };
    let promoted = field.timed("promote n2", control.promote(&two, &names(&["n3"], 1))).unwrap();
    let Answer::Promoted { timeline: Timeline(2), fork: Some(fork) } = promoted else { panic!("{promoted:?}") };
    assert_eq!(fork, replayed);
    let history = field.node("n2").sql("SELECT pg_read_file('pg_wal/00000002.history')").unwrap();
    assert!(history.contains(&fork.to_string()), "{history}");
    assert_eq!(field.timed("promote n2 again", control.promote(&two, &names(&["n3"], 1))).unwrap(), promoted);

    // The epoch is written when n3 has it, and n3 is told to follow meanwhile.
    let begin = Instant::now();
    field.runtime.block_on(async {
        let write = control.write_epoch(&two, Epoch(2), "test", Timeline(2), "n1 is down");
        let (written, followed) = tokio::join!(write, control.follow(&three, &two));
        assert_eq!((written.unwrap(), followed.unwrap()), (Answer::EpochWritten, Answer::Follows));
    });
    println!("follow n3 and write the epoch: {:?}", begin.elapsed());
    let seen = field.seen("n3");
    assert_eq!((seen.follows, seen.timeline, seen.recruited_for), (Some(two.clone()), Timeline(2), None));
    assert_eq!(field.node("n3").sql("SHOW primary_slot_name").unwrap(), "n3");
    field.wait_for_receiver("n3", "n2");
    assert_eq!(field.node("n2").sql("SELECT active FROM pg_replication_slots WHERE slot_name = 'n3'").unwrap(), "t");
    wait_until(DEADLINE, "n3 replays it", || field.seen("n3").last_epoch == Some(Epoch(2)));
    let seen = field.seen("n2");
    assert_eq!((seen.is_in_recovery, seen.last_epoch, seen.sync), (false, Some(Epoch(2)), Some(names(&["n3"], 1))));
    field.timed("checkpoint n2", control.checkpoint(&two)).unwrap();

    // Rows: again is fine; another's is a fork.
    field.timed("write the epoch", control.write_epoch(&two, Epoch(2), "x", Timeline(2), "y")).unwrap();
    field.node("n2").sql_in("postgres", "INSERT INTO pgbaton.epoch VALUES (3, 'n9')").unwrap();
    let forked = field.runtime.block_on(control.write_epoch(&two, Epoch(3), "x", Timeline(2), "y"));
    failed(forked, FailureKind::Refused, "as that of n9");
    field.timed("beat", control.beat(&two, Epoch(2), "test")).unwrap();
    field.timed("beat again", control.beat(&two, Epoch(2), "test")).unwrap();
    field.runtime.block_on(control.write_history(&two, Epoch(2), r#"{"cause": "x"}"#)).unwrap();
    field.runtime.block_on(control.write_history(&two, Epoch(2), r#"{"cause": "y"}"#)).unwrap();
    assert_eq!(field.node("n2").sql_in("postgres", "SELECT entry ->> 'cause' FROM pgbaton.history").unwrap(), "y");
    field
        .runtime
        .block_on(control.beat(&three, Epoch(2), "test"))
        .expect("that it takes no rows is no fault of its disk");
    failed(field.runtime.block_on(control.beat(&one, Epoch(2), "test")), FailureKind::Unreachable, "n1");

    // Who is no standby cannot follow; who has no credentials does not know how.
    failed(field.runtime.block_on(control.follow(&two, &three)), FailureKind::Refused, "no standby");
    field.node("n3").set("primary_conninfo", "").unwrap();
    wait_until(DEADLINE, "it is empty", || field.node("n3").sql("SHOW primary_conninfo").unwrap().is_empty());
    failed(field.runtime.block_on(control.follow(&three, &two)), FailureKind::Refused, "primary_conninfo is empty");
    // It can be recruited all the same.
    received(field.recruit("n3", 9));
    assert_eq!(field.seen("n3").recruited_for, Some(Epoch(9)));
    failed(field.runtime.block_on(control.follow(&three, &two)), FailureKind::Refused, "primary_conninfo is empty");
}

// --- synchronous_standby_names ----------------------------------------------------------------------------------------

#[test]
fn voters_change_and_are_in_force() {
    let field = Field::new(&[]);
    let (one, primary) = (id("n1"), field.node("n1"));
    let set = |voters: &[&str], k: u32| {
        let names = names(voters, k);
        field.timed(&format!("set_sync {voters:?} {k}"), field.control.set_sync(&one, &names))
    };
    let states = "SELECT string_agg(application_name || ':' || sync_state, ' ' ORDER BY 1) FROM \
                  (SELECT application_name, sync_state FROM pg_stat_replication ORDER BY 1) AS senders";
    for (voters, k, expected) in [
        (&["n2", "n3"][..], 1, "n2:quorum n3:quorum"),
        (&["n2", "n3"], 1, "n2:quorum n3:quorum"),
        (&["n2", "n3"], 2, "n2:quorum n3:quorum"),
        (&["n2"], 1, "n2:quorum n3:async"),
        (&["n3"], 1, "n2:async n3:quorum"),
        (&[], 0, "n2:async n3:async"),
        (&["n2", "n3"], 2, "n2:quorum n3:quorum"),
    ] {
        assert_eq!(set(voters, k).unwrap(), Answer::SyncSet);
        assert_eq!(primary.sql(states).unwrap(), expected);
        assert_eq!(field.seen("n1").sync, Some(names(voters, k)));
    }
    failed(field.runtime.block_on(field.control.set_sync(&id("n2"), &names(&[], 0))), FailureKind::Refused, "standby");

    // A voter that does not acknowledge: it is said who, and that in time.
    field.node("n3").stop(Shutdown::Kill);
    failed(set(&["n3"], 1), FailureKind::Unreachable, "not acknowledged in time by n3");
    assert_eq!(set(&["n2"], 1).unwrap(), Answer::SyncSet);

    // Somebody ends the wait: what PostgreSQL calls a success is none.
    let mut ender = Login::to(primary.port()).connect();
    let ending = std::thread::spawn(move || {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            let ended = ender.value(
                "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'pgbaton'",
            );
            if ended != "0" {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("nobody waited");
    });
    failed(set(&["n3"], 1), FailureKind::Unreachable, "interrupted");
    ending.join().unwrap();
}

// --- fencing ----------------------------------------------------------------------------------------------------------

#[test]
fn a_fenced_primary_acknowledges_nothing_until_it_is_promoted_again() {
    let field = Field::new(&[]);
    let one = id("n1");
    let mut client = field.app("n1");
    client.run("BEGIN; INSERT INTO own VALUES (1)");
    let mut master = Login::to(field.node("n1").port()).connect();
    let fenced = field.timed("fence n1", field.control.fence(&one)).unwrap();
    assert!(matches!(fenced, Answer::Fenced { timeline: Timeline(1), lsn } if lsn > Lsn(0)), "{fenced:?}");
    assert!(
        client.until(b"Z").is_err()
            || client.send(&Batch::new().query("COMMIT").0).is_err()
            || client.until(b"Z").is_err()
    );
    let mut client = field.app("n1");
    assert_eq!(client.query("INSERT INTO own VALUES (2)").code(), "25006");
    let seen = field.seen("n1");
    assert!(seen.is_fenced && seen.sync.is_none());
    // Superusers' sessions are out of reach; what they commit waits for ever.
    master.send(&Batch::new().query("INSERT INTO own VALUES (3)").0).unwrap();
    let answer = master.until(b"Z").unwrap();
    assert_eq!(answer.code(), "25006", "it took the new default too");
    master.send(&Batch::new().query("BEGIN READ WRITE; INSERT INTO own VALUES (3); COMMIT").0).unwrap();
    wait_until(DEADLINE, "its commit waits", || {
        field.node("n1").sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").unwrap() == "1"
    });
    // Again is fine.
    field.timed("fence n1 again", field.control.fence(&one)).unwrap();
    failed(field.runtime.block_on(field.control.fence(&id("n2"))), FailureKind::Refused, "standby");
    // Taken back.
    let promoted = field.timed("promote n1 (fenced)", field.control.promote(&one, &names(&["n2"], 1))).unwrap();
    assert!(matches!(promoted, Answer::Promoted { timeline: Timeline(1), fork: None }), "{promoted:?}");
    field.timed("set_sync n1", field.control.set_sync(&one, &names(&["n2"], 1))).unwrap();
    let seen = field.seen("n1");
    assert_eq!((seen.is_fenced, seen.sync), (false, Some(names(&["n2"], 1))));
    let mut client = field.app("n1");
    client.run("INSERT INTO own VALUES (4)");
}

// --- bounds -----------------------------------------------------------------------------------------------------------

#[test]
fn nothing_waits_for_a_frozen_node_for_ever() {
    let field = Field::new(&[]);
    let (one, two) = (id("n1"), id("n2"));
    field.seen("n1");
    field.runtime.block_on(field.control.beat(&one, Epoch(1), "test")).unwrap();
    let frozen = (freeze(field.node("n1")), freeze(field.node("n2")));
    let control = &field.control;
    let begin = Instant::now();
    field.runtime.block_on(async {
        let none = SyncNames::default();
        let (a, b, c, d, e, f, g, h) = tokio::join!(
            control.recruit(&two, Epoch(2)),
            control.settle(&two, &[1], None),
            control.promote(&two, &none),
            control.follow(&two, &one),
            control.fence(&one),
            control.set_sync(&one, &none),
            control.write_epoch(&one, Epoch(2), "c", Timeline(1), "x"),
            control.beat(&one, Epoch(2), "c"),
        );
        for failure in [a.err(), b.err(), c.err(), d.err(), e.err(), f.err(), g.err(), h.err()] {
            let failure = failure.expect("a frozen node did something");
            assert_eq!(failure.kind, FailureKind::Unreachable, "{}", failure.reason);
        }
        control.keep_slots(&one, true, &[(two.clone(), Lsn(0))]).await;
    });
    println!("all gave up after {:?}", begin.elapsed());
    drop(frozen);
    // A follower's new primary that is frozen: it follows without a slot.
    let _frozen = freeze(field.node("n3"));
    wait_until(DEADLINE, "n2 answers", || matches!(field.sight("n2"), Sight::Answers(_)));
    field.timed("follow a frozen one", control.follow(&two, &id("n3"))).unwrap();
    assert_eq!(field.node("n2").sql("SHOW primary_slot_name").unwrap(), "");
    assert_eq!(field.seen("n2").follows, Some(id("n3")));
}
