//! Planned changes of primary on real servers, under load: nobody may notice but by a pause.
//!
//! pgbaton is a process of its own, the load and its judge are those of `tests/failover`. How long writes stood still is
//! printed, and kept in `target/tmp/switchover.md`, and never asserted. `PGBATON_SWITCHOVERS=n`: so many in a row.

mod agents;
#[path = "../failover/faults.rs"]
#[allow(dead_code)]
mod faults;
mod stage;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use pgbaton::drill::{checker, load};

use stage::{Stage, turn};
use support::{DEADLINE, wait_until};
use wire::{Batch, Login, Wire};

fn send(client: &mut Wire, sql: &str) {
    client.send(&Batch::new().query(sql).0).unwrap();
}

#[test]
fn nobody_notices_a_switchover_under_load_with_agents() {
    let _turn = turn();
    let mut stage = Stage::set("with agents", true, "");
    let rounds = std::env::var("PGBATON_SWITCHOVERS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    stage.begin_load();
    for round in 0..rounds {
        let old = stage.record().primary;
        let new = ["n2", "n1", "n3"].into_iter().cycle().skip(round).find(|node| *node != old).unwrap();
        stage.live_on();
        stage.switch(Some(new)).unwrap();
        assert_eq!(stage.record().primary, new);
        stage.wait_for_writes();
        stage.rejoin(&old, new);
    }
    stage.live_on();
    let verdict = stage.judge();
    assert!(verdict.acknowledged > 0);
}

#[test]
fn nobody_notices_one_without_agents_and_the_old_primary_stays_fenced() {
    let _turn = turn();
    let mut stage = Stage::set("without agents", false, "");
    stage.begin_load();
    stage.live_on();
    // Whoever it is, it says so.
    let said = stage.switch(None).unwrap();
    assert_eq!(said, "n2 takes writes in epoch 2");
    stage.wait_for_writes();
    stage.live_on();
    assert_eq!(stage.node("n1").sql("SHOW default_transaction_read_only").unwrap(), "on");
    stage.judge();
}

#[test]
fn a_transaction_longer_than_the_drain_is_told_and_nobody_else() {
    let _turn = turn();
    let mut stage = Stage::set("long transactions", true, "drain = \"300ms\"");
    let (mut idle, mut busy) = (stage.client(), stage.client());
    for client in [&mut idle, &mut busy] {
        client.run("BEGIN");
    }
    idle.run("INSERT INTO ledger VALUES (-1)");
    send(&mut busy, "INSERT INTO ledger SELECT -2 FROM pg_sleep(30)");
    stage.begin_load();
    stage.live_on();
    stage.switch(Some("n3")).unwrap();
    stage.wait_for_writes();
    assert_eq!(busy.until(b"Z").unwrap().code(), "40001");
    busy.run("ROLLBACK");
    assert_eq!(idle.query("COMMIT").code(), "40001");
    idle.run("ROLLBACK");
    for client in [&mut idle, &mut busy] {
        client.run("BEGIN; SELECT 1; COMMIT");
    }
    assert_eq!(stage.node("n3").sql("SELECT count(*) FROM ledger WHERE id < 0").unwrap(), "0");
    stage.judge();
}

#[test]
fn what_is_open_ends_and_what_is_new_waits_and_reads_go_on() {
    let _turn = turn();
    let stage = Stage::set("drain", true, "drain = \"20s\"");
    let (mut open, mut new, mut read, mut pinned) = (stage.client(), stage.client(), stage.client(), stage.client());
    read.run("SET pgbaton.consistency = 'eventual'");
    for client in [&mut new, &mut read] {
        client.run("SELECT 1");
    }
    pinned.run("CREATE TEMPORARY TABLE kept (n int)");
    open.run("BEGIN; INSERT INTO ledger VALUES (1)");
    open.run("DECLARE c CURSOR FOR SELECT generate_series(1, 10)");
    let ordered = stage.order(Some("n2"));
    wait_until(DEADLINE, "the primary drains", || {
        send(&mut new, "INSERT INTO ledger VALUES (2)");
        new.stream().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let waits = new.receive().is_err();
        new.stream().set_read_timeout(Some(DEADLINE)).unwrap();
        if !waits {
            new.until(b"Z").unwrap().ok();
        }
        waits
    });
    for _ in 0..10 {
        read.run("SELECT count(*) FROM ledger");
    }
    assert_eq!(stage.record().epoch, 1);
    // It goes on as if nothing were about to happen, however many statements that takes.
    for n in 1..=10 {
        assert_eq!(open.value("FETCH c"), n.to_string());
    }
    open.run("COMMIT");
    ordered.join().unwrap().unwrap();
    assert!(new.until(b"Z").unwrap().errors.is_empty());
    assert_eq!(stage.node("n2").sql("SELECT count(*) FROM ledger WHERE id = 1").unwrap(), "1");
    // What lived on the old primary alone is gone, and its owner hears what it was.
    let said = pinned.rest().errors.remove(0);
    assert_eq!(said.code, "57P01");
    assert!(said.detail.contains("temporary object") && said.detail.contains("switchover"), "{said:?}");
}

#[test]
fn what_speaks_against_it_is_said_before_anything_is_touched() {
    let _turn = turn();
    let stage = Stage::set("refusals", true, "");
    let refusal = |to: &str| stage.switch(Some(to)).unwrap_err();
    assert!(refusal("n9").contains("n9 is not in the configuration"));
    assert!(refusal("n1").contains("n1 is the primary already"));
    stage.post("/nodes/n3/maintenance", "{\"on\":true}").unwrap();
    assert!(refusal("n3").contains("n3 is in maintenance"));
    stage.post("/nodes/n3/maintenance", "{\"on\":false}").unwrap();
    stage.post("/pause", "{}").unwrap();
    assert!(refusal("n2").contains("paused"));
    stage.post("/resume", "{}").unwrap();
    // It has received everything, and replays nothing of it.
    stage.node("n2").sql("SELECT pg_wal_replay_pause()").unwrap();
    stage.node("n1").sql("INSERT INTO ledger SELECT -1 FROM generate_series(1, 500000)").unwrap();
    wait_until(DEADLINE, "n2 has too much to replay", || {
        let reason = refusal("n2");
        reason.contains("bytes still to replay")
    });
    stage.node("n2").sql("SELECT pg_wal_replay_resume()").unwrap();
    faults::kill(stage.node("n3"));
    wait_until(DEADLINE, "n3 is seen to be down", || refusal("n3").contains("n3 does not answer"));
    assert_eq!((stage.record().epoch, stage.record().phase.as_str()), (1, "stable"));
    stage.client().run("INSERT INTO ledger VALUES (1)");
}

#[test]
fn a_candidate_that_freezes_after_the_closing_is_left_and_nobody_sees_an_error() {
    let _turn = turn();
    for has_agents in [true, false] {
        let mut stage = Stage::set("candidate frozen", has_agents, "");
        stage.begin_load();
        stage.live_on();
        // A transaction that is open holds the closing up until the candidate is frozen.
        let mut open = stage.client();
        open.run("BEGIN; INSERT INTO ledger VALUES (-7)");
        let ordered = stage.order(Some("n3"));
        stage.wait_for_drain();
        stage.freeze("n3");
        open.run("ROLLBACK");
        let reason = ordered.join().unwrap().unwrap_err();
        assert!(reason.contains("the switchover to n3 is undone"), "{reason}");
        assert_eq!(stage.record().primary, "n1");
        stage.wait_for_writes();
        stage.thaw();
        stage.live_on();
        stage.judge();
    }
}

#[test]
fn the_primary_that_dies_while_it_drains_is_failed_over() {
    let _turn = turn();
    let mut stage = Stage::set("primary killed", true, "drain = \"20s\"");
    stage.begin_load();
    stage.live_on();
    let mut open = stage.client();
    open.run("BEGIN; INSERT INTO ledger VALUES (-7)");
    let ordered = stage.order(Some("n3"));
    stage.wait_for_drain();
    faults::kill(stage.node("n1"));
    // Seen to be down by its probes, or by its agent when it is to be stopped.
    let reason = ordered.join().unwrap().unwrap_err();
    assert!(reason.contains("n1 is down") || reason.contains("n1 was not there any more"), "{reason}");
    stage.wait_for_writes();
    assert_eq!(open.query("COMMIT").code(), "40001");
    assert_ne!(stage.record().primary, "n1");
    stage.live_on();
    let verdict = stage.judge_failover();
    assert_eq!((verdict.wrong(), verdict.lost.len(), verdict.dropped()), (0, 0, 0), "{verdict}");
}

#[test]
fn the_candidate_that_dies_after_the_stop_leaves_a_primary_all_the_same() {
    let _turn = turn();
    let mut stage = Stage::set("candidate killed", true, "");
    stage.begin_load();
    stage.live_on();
    let ordered = stage.order(Some("n3"));
    let deadline = Instant::now() + DEADLINE;
    while stage.node("n1").pid().is_some() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    faults::kill(stage.node("n3"));
    let said = ordered.join().unwrap();
    println!("{said:?}");
    stage.wait_for_writes();
    stage.live_on();
    let verdict = stage.judge_failover();
    assert_eq!((verdict.wrong(), verdict.lost.len(), verdict.dropped()), (0, 0, 0), "{verdict}");
}

#[test]
fn pgbaton_that_dies_in_the_middle_goes_on_when_it_is_back() {
    let _turn = turn();
    let mut stage = Stage::set("pgbaton killed", true, "");
    let mut client = stage.client();
    client.run("INSERT INTO ledger VALUES (1)");
    let ordered = stage.order(Some("n3"));
    let deadline = Instant::now() + DEADLINE;
    while stage.record().epoch == 1 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    stage.restart_pgbaton();
    assert!(ordered.join().unwrap().is_err());
    wait_until(DEADLINE, "there is a primary again", || stage.record().phase == "stable");
    let mut client: Wire = Login::to(stage.port()).connect();
    client.run("INSERT INTO ledger VALUES (2)");
    assert_eq!(client.value("BEGIN; SELECT count(*) FROM ledger; COMMIT"), "2");
}
