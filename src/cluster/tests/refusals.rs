//! What stands in the way of a failover, and how it is overcome.

use super::ground::*;
use crate::cluster::*;
use crate::types::Durability::{Async, Quorum};
use crate::types::{Epoch, Timeline};

#[test]
fn too_few_voters_and_then_one_returns() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.kill("n3");
    world.kill("n1");
    world.run(3000);
    assert_script(
        &world.everything(),
        r#"
        -- n3 dies
        -- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        "Stable → Recruiting: epoch 2: n1 is down: connection refused (3 probes missed)"
        store 2 recruiting n1, voters any 1 of n2,n3
        recruit n2
        "no failover: 1 of the 2 voters needed could be recruited; n3 or n1 would unblock it"
        closed 2: no failover: 1 of the 2 voters needed could be recruited; n3 or n1 would unblock it
        "#,
    );
    assert_script(
        &world.brain.picture().reason,
        "1 of the 2 voters needed could be recruited; n3 or n1 would unblock it",
    );
    world.revive("n3", true);
    world.run_until(3000, |world| world.is_open_on("n2"));
    assert_script(
        &world.orders(),
        r#"
        -- n3 is back
        recruit n3
        settle n2
        store 2 promoting n2, voters any 1 of n3
        promote n2, sync any 1 of n3
        follow n3 n2
        write epoch n2
        store 2 stable n2, voters any 1 of n3
        open 2 n2 timeline 2
        checkpoint n2
        note 2 failover: Some(n1) to n2
        "#,
    );
}

#[test]
fn too_few_voters_and_then_the_primary_returns() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.kill("n3");
    world.kill("n1");
    world.run(3000);
    world.orders();
    world.revive("n1", true);
    world.run_until(5000, |world| world.is_open_on("n1"));
    world.run(5000);
    assert_script(
        &world.orders(),
        r#"
        -- n1 is back
        settle n1
        store 2 promoting n1, voters any 1 of n2,n3
        promote n1, sync any 1 of n2,n3
        follow n2 n1
        set sync n1, sync any 1 of n2,n3
        write epoch n1
        store 2 stable n1, voters any 1 of n2,n3
        open 2 n1 timeline 1
        note 2 failover: Some(n1) to n1
        set sync n1, sync any 1 of n2
        store 2 stable n1, voters any 1 of n2
        "#,
    );
}

#[test]
fn too_much_would_be_lost() {
    let mut world = world(Async, &["n1", "n2"]).start();
    world.node("n2").seen.receiver = None;
    world.node("n2").seen.follows = None;
    world.node("n2").refuses.insert("follow");
    world.node("n1").seen.lsn.0 += 2 << 20;
    world.run(1000);
    world.kill("n1");
    world.run(3000);
    assert_script(
        &world.brain.picture().reason,
        "n2 lacks 2097152 bytes of what n1 had written, more than cluster.max_lost_bytes (1048576); n1 would unblock it",
    );
    assert!(!world.is_open_on("n2"));
    world.ask(1, Command::Failover { to: id("n2"), allow_data_loss: true });
    world.run(1000);
    assert_script(
        &world.orders(),
        r#"
        -- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        store 2 recruiting n1, voters none
        recruit n2
        closed 2: no failover: n2 lacks 2097152 bytes of what n1 had written, more than cluster.max_lost_bytes (1048576); n1 would unblock it
        -- asked: Failover { to: n2, allow_data_loss: true }
        settle n2
        store 2 promoting n2, voters none
        promote n2, sync none
        write epoch n2
        store 2 stable n2, voters none
        open 2 n2 timeline 2
        checkpoint n2
        answer 1: Ok("n2 takes writes in epoch 2")
        note 2 failover: Some(n1) to n2
        "#,
    );
    assert_eq!(world.last_note().known_loss_bytes, 2 << 20);
}

#[test]
fn the_most_advanced_recruit_is_chosen_and_one_of_priority_0_is_not() {
    let mut policy = policy(Async, &["n1", "n2", "n3", "n4"]);
    policy.nodes.get_mut(&id("n4")).expect("n4").priority = 0;
    let mut world = world_of(policy).start();
    world.node("n3").seen.lsn.0 += 10;
    world.node("n3").seen.replayed.0 += 10;
    world.node("n4").seen.lsn.0 += 20;
    world.kill("n1");
    world.run_until(1000, |world| world.is_open_on("n3"));
    assert_script(
        &world.orders(),
        r#"
        -- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        store 2 recruiting n1, voters none
        recruit n2
        recruit n3
        recruit n4
        settle n3
        level n2 from n3 until 0/456
        store 2 promoting n3, voters none
        promote n3, sync none
        follow n2 n3
        write epoch n3
        store 2 stable n3, voters none
        open 2 n3 timeline 2
        checkpoint n3
        note 2 failover: Some(n1) to n3
        "#,
    );
    assert_script(
        &format!("{:?}", world.last_note().rejected),
        r#"{n2: "is 10 bytes behind n3", n4: "has priority 0"}"#,
    );
}

#[test]
fn a_standby_of_another_cluster_or_timeline_is_not_chosen() {
    let mut world = world(Async, &["n1", "n2", "n3", "n4"]).start();
    world.node("n2").seen.system_identifier = 8;
    world.node("n3").seen.timeline = Timeline(4);
    world.node("n3").seen.lsn.0 += 100;
    world.run(300);
    world.kill("n1");
    world.run_until(1000, |world| world.is_open_on("n4"));
    assert_script(
        &format!("{:?}", world.last_note().rejected),
        r#"{n3: "is on timeline 4, beyond 1: somebody promoted a node by hand"}"#,
    );
    world.run(10_000);
    assert!(!world.orders().contains("n2\n"), "a node of another cluster is never touched");
}

#[test]
fn a_store_that_does_not_work_stops_the_decision() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.store_works = false;
    world.kill("n1");
    world.run(3000);
    assert_script(
        &world.everything(),
        r#"
        -- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        "Stable → Recruiting: epoch 2: n1 is down: connection refused (3 probes missed)"
        store 2 recruiting n1, voters any 1 of n2,n3
        "the record (epoch 2, recruiting) could not be stored, nothing moves until it is: the disk is full"
        store 2 recruiting n1, voters any 1 of n2,n3
        store 2 recruiting n1, voters any 1 of n2,n3
        store 2 recruiting n1, voters any 1 of n2,n3
        store 2 recruiting n1, voters any 1 of n2,n3
        "#,
    );
    world.store_works = true;
    assert!(world.run_until(3000, |world| world.is_open_on("n2")));
}

#[test]
fn answers_of_the_past_are_ignored() {
    let mut world = world(Async, &["n1", "n2", "n3"]).start();
    world.node("n2").stuck.insert("promote");
    world.kill("n1");
    world.run(300);
    let promote = JobId(world.brain.last_job);
    world.kill("n2");
    world.run_until(3000, |world| world.is_open_on("n3"));
    world.orders();
    world.tell(Event::Done { id: promote, result: Ok(Answer::Promoted { timeline: Timeline(2), fork: None }) });
    world.tell(Event::Done { id: JobId(9999), result: Ok(Answer::EpochWritten) });
    world.tell(Event::Stored { epoch: crate::types::Epoch(2), serial: 1, result: Err("late".into()) });
    assert_script(&world.everything(), "");
}

#[test]
fn a_driver_that_never_answers_is_not_waited_for() {
    let mut world = world(Async, &["n1", "n2", "n3"]).start();
    world.node("n2").stuck.insert("promote");
    world.kill("n1");
    world.run_until(15_000, |world| world.is_open_on("n3"));
    assert_script(
        &world.orders(),
        r#"
        -- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        store 2 recruiting n1, voters none
        recruit n2
        recruit n3
        settle n2
        store 2 promoting n2, voters none
        promote n2, sync none
        forget promote n2
        closed 3: n2 failed while it was promoted: no answer within 10000 ms
        store 3 recruiting n2, voters none
        recruit n2
        recruit n3
        settle n3
        store 3 promoting n3, voters none
        promote n3, sync none
        follow n2 n3
        write epoch n3
        store 3 stable n3, voters none
        open 3 n3 timeline 2
        checkpoint n3
        note 3 failover: Some(n1) to n3
        "#,
    );
}

/// What the primary of before wrote while its successor was already chosen is given up with that choice. The successor, which
/// failed once, was refused for ever as lacking it, and the other could not be taken back.
#[test]
fn a_loss_that_was_accepted_is_not_refused_the_second_time() {
    let mut policy = policy(Async, &["n1", "n2"]);
    policy.max_lost_bytes = 0;
    let mut world = world_of(policy).start();
    world.freeze("n1");
    world.run_until(20_000, |world| world.stored.as_ref().is_some_and(|record| record.phase == Phase::Recruiting));
    world.store_works = false;
    world.run(1000);
    world.revive("n1", false);
    world.node("n1").seen.lsn.0 += 5000;
    world.node("n2").seen.receiver = None;
    world.run(1000);
    world.node("n2").refuses.insert("promote");
    world.store_works = true;
    world.run_until(5000, |world| world.stored.as_ref().is_some_and(|record| record.epoch == Epoch(3)));
    world.node("n2").refuses.clear();
    assert!(world.run_until(20_000, |world| world.is_open_on("n2")), "{}", world.brain.picture().reason);
    assert_eq!(world.last_note().known_loss_bytes, 5000);
}

/// In async durability the candidate may lack the row of the last epoch. One that was promoted, died and is back was not taken
/// back for that, and nobody else could be promoted.
#[test]
fn a_candidate_that_lacks_the_last_row_is_taken_back_all_the_same() {
    let mut policy = policy(Async, &["n1", "n2", "n3"]);
    policy.nodes.get_mut(&id("n3")).unwrap().priority = 0;
    let mut world = world_of(policy).start();
    // n2 has streamed from n1, and not got the row of this epoch.
    world.node("n2").seen.last_epoch = None;
    world.node("n2").seen.lsn.0 -= 100;
    world.node("n2").seen.replayed.0 -= 100;
    world.node("n2").seen.last_epoch = Some(Epoch(0));
    world.kill("n1");
    world.node("n2").stuck.insert("write epoch");
    world.run_until(3000, |world| !world.nodes[&id("n2")].seen.is_in_recovery);
    world.kill("n2");
    world.run(3000);
    assert_eq!(world.nodes[&id("n2")].seen.last_epoch, Some(Epoch(0)));
    world.node("n2").stuck.clear();
    world.revive("n2", true);
    assert!(world.run_until(10_000, |world| world.is_open_on("n2")), "{}", world.brain.picture().reason);
}
