//! What earlier work leaves behind on a node: sessions of jobs that were forgotten, transaction ids that a crash has lost and
//! that others got, records of which a dying primary sent the beginning only, the log of a timeline that was undone.

#[path = "support/field.rs"]
mod field;
#[path = "support/ground.rs"]
mod ground;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use field::{Field, failed, id, names, received};
use pgbaton::cluster::{Answer, FailureKind};
use pgbaton::demo::{CONTROL_USER, Node, Shutdown};
use pgbaton::node::{Control, XactStatus};
use pgbaton::types::{Epoch, Timeline};
use support::{DEADLINE, wait_until};

/// A port that leads to a node, on which the statement with these words is kept back until it is told to go on; and whether
/// it has one.
fn keeping_back(node: &Node, words: &'static [u8]) -> (u16, Arc<AtomicBool>, Arc<AtomicBool>) {
    let (has_it, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, to) = (listener.local_addr().unwrap().port(), node.port());
    let (has, go) = (has_it.clone(), go_on.clone());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", to)).unwrap());
            let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
            let (has, go) = (has.clone(), go.clone());
            std::thread::spawn(move || {
                let mut bytes = [0; 16384];
                while let Ok(length @ 1..) = client.read(&mut bytes) {
                    if bytes[..length].windows(words.len()).any(|seen| seen == words) {
                        has.store(true, Ordering::SeqCst);
                        let deadline = Instant::now() + 2 * DEADLINE;
                        while !go.load(Ordering::SeqCst) && Instant::now() < deadline {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                    }
                    if server.write_all(&bytes[..length]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    (port, has_it, go_on)
}

#[test]
fn what_a_forgotten_follow_still_does_does_not_undo_a_recruit() {
    let field = Field::new(&[]);
    let (port, has_it, go_on) = keeping_back(field.node("n2"), b"ALTER SYSTEM SET \"primary_conninfo\"");
    let slow = {
        let _entered = field.runtime.enter();
        let mut config = ground::control_config(&field.cluster, CONTROL_USER, field.cluster.control_password());
        for node in &mut config.nodes {
            if *node.address.id.0 == *"n2" {
                Arc::make_mut(&mut node.address).port = port;
            }
        }
        Control::new(config, ground::fixed(&field.cluster))
    };
    let follow = field.runtime.spawn(async move { slow.follow(&id("n2"), &id("n1")).await });
    wait_until(DEADLINE, "it is on its way", || has_it.load(Ordering::SeqCst));
    follow.abort();
    assert!(field.runtime.block_on(follow).unwrap_err().is_cancelled());
    received(field.recruit("n2", 7));
    go_on.store(true, Ordering::SeqCst);
    // Should its session be there still, it has the statement now, and then the end of the connection.
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'pgbaton' AND query LIKE '%pg_settings%'
                        AND query NOT LIKE '%pg_stat_activity%'";
    wait_until(DEADLINE, "the session of the follow is over", || field.node("n2").sql(sessions).unwrap() == "0");
    let written = field.node("n2").sql("SELECT pg_read_file('postgresql.auto.conf')").unwrap();
    assert!(written.contains("/pgbaton/recruited-for-epoch-7"), "{}", written.contains("port="));
    let seen = field.seen("n2");
    assert_eq!((seen.recruited_for, seen.receiver), (Some(Epoch(7)), None));
}

#[test]
fn names_that_wait_for_a_voter_give_way_to_newer_ones() {
    let field = Field::new(&[]);
    field.node("n3").stop(Shutdown::Kill);
    let (control, first) = (field.control.clone(), names(&["n3"], 1));
    let waiting = field.runtime.spawn(async move { control.set_sync(&id("n1"), &first).await });
    wait_until(DEADLINE, "it waits for n3", || {
        field.node("n1").sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").unwrap() == "1"
    });
    let newer = names(&["n2"], 1);
    let set = field.timed("set_sync past one that waits", field.control.set_sync(&id("n1"), &newer));
    assert_eq!(set.unwrap(), Answer::SyncSet);
    failed(field.runtime.block_on(waiting).unwrap(), FailureKind::Unreachable, "n1");
    assert_eq!(field.seen("n1").sync, Some(newer));
    // Nothing keeps the next one waiting.
    let left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(field.node("n1").sql_in("postgres", left).unwrap(), "0");
}

#[test]
fn a_primary_that_restarted_is_not_believed_about_numbers_that_may_be_of_others() {
    use XactStatus::{Aborted, Ambiguous, Committed, Future, InProgress};
    let field = Field::new(&[]);
    let one = id("n1");
    let number = |client: &mut wire::Wire, end: &str| {
        let xid: u64 = client.value("SELECT pg_current_xact_id()").parse().unwrap();
        client.run(end);
        xid
    };
    for attempt in 0.. {
        let incarnation = Some(field.seen("n1").incarnation);
        let mut client = field.app("n1");
        client.run("BEGIN; INSERT INTO own VALUES (1)");
        let early = number(&mut client, "COMMIT");
        field.runtime.block_on(field.control.beat(&one, Epoch(1), "test")).unwrap();
        client.run("BEGIN");
        let aborted = number(&mut client, "ROLLBACK");
        client.run("BEGIN; INSERT INTO own VALUES (2)");
        let late = number(&mut client, "COMMIT");
        // Nothing of these reaches the disk.
        let mut open: Vec<_> = (0..5).map(|_| field.app("n1")).collect();
        let lost: Vec<u64> = open
            .iter_mut()
            .map(|client| {
                client.run("BEGIN");
                number(client, "")
            })
            .collect();
        let asked = [&[early, aborted, late][..], &lost].concat();
        let settle = || field.runtime.block_on(field.control.settle(&one, &asked, incarnation)).unwrap().1;
        let living: Vec<XactStatus> = settle().into_iter().map(|(_, status)| status).collect();
        assert_eq!(living[..3], [Committed, Aborted, Ambiguous]);
        assert_eq!(living[3..], [InProgress; 5]);

        field.node("n1").restart(Shutdown::Kill).unwrap();
        // Others get the same numbers, and commit.
        let mut other = field.app("n1");
        other.run("BEGIN; INSERT INTO own VALUES (3)");
        let first = number(&mut other, "COMMIT");
        if first != lost[0] && attempt < 5 {
            println!("the background writer has noted the numbers: {first} after {}", lost[0]);
            continue;
        }
        assert_eq!(first, lost[0]);
        other.run("BEGIN; INSERT INTO own VALUES (4)");
        assert_eq!(number(&mut other, "ROLLBACK"), lost[1]);
        other.run("BEGIN; INSERT INTO own VALUES (4)");
        assert_eq!(number(&mut other, ""), lost[2]);
        let restarted: Vec<XactStatus> = settle().into_iter().map(|(_, status)| status).collect();
        assert_eq!(restarted, [Committed, Aborted, Ambiguous, Ambiguous, Aborted, InProgress, Future, Future]);
        // Without a heartbeat of the time that is asked about nothing is known to be of that time.
        let (_, of_now) = field.runtime.block_on(field.control.settle(&one, &[early], Some(1))).unwrap();
        assert_eq!(of_now, [(early, Ambiguous)]);
        return;
    }
}

#[test]
fn a_record_received_in_part_is_discarded_and_everybody_goes_on_from_there() {
    let field = Field::new(&[]);
    // It is flushed, and so sent, up to the end of its last full page only: nobody commits after it.
    let mut writer = field.app("n1");
    writer.run("BEGIN; SELECT pg_logical_emit_message(false, 'x', repeat('y', 100000))");
    let is_torn = |node: &str| {
        let seen = field.seen(node);
        seen.lsn > seen.replayed
    };
    wait_until(DEADLINE, "both have a part of it", || is_torn("n2") && is_torn("n3"));
    field.node("n1").stop(Shutdown::Kill);
    let (had, others) = (received(field.recruit("n2", 2)), received(field.recruit("n3", 2)));
    let whole = |node: &str| {
        let (answer, _) = field.timed("settle at a torn record", field.control.settle(&id(node), &[], None)).unwrap();
        let Answer::Settled { replayed, .. } = answer else { panic!("{answer:?}") };
        replayed
    };
    let end = whole("n2");
    println!("received {had} and {others}, replayed {end}");
    assert!(end < had && end < others);
    assert_eq!(whole("n3"), end);
    let promoted = field.timed("promote n2", field.control.promote(&id("n2"), &names(&["n3"], 1))).unwrap();
    assert_eq!(promoted, Answer::Promoted { timeline: Timeline(2), fork: Some(end) });
    field.timed("follow n3", field.control.follow(&id("n3"), &id("n2"))).unwrap();
    field.node("n2").sql("INSERT INTO own VALUES (1)").unwrap();
    wait_until(DEADLINE, "n3 has the commit", || field.node("n3").sql("SELECT count(*) FROM own").unwrap() == "1");
}

#[test]
fn the_log_of_a_timeline_that_was_undone_is_not_taken_for_its_own() {
    let field = Field::new(&[]);
    // Without a receiver all that tells of what was received are the files.
    received(field.recruit("n2", 7));
    let log = field.node("n2").data_directory().join("pg_wal");
    std::fs::write(log.join("000000030000000000000001"), "left by pg_rewind").unwrap();
    assert_eq!(field.seen("n2").timeline, Timeline(1));
}
