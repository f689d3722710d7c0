//! What operators ask for, and what they do behind our back.

use super::ground::*;
use crate::cluster::*;
use crate::types::Durability::{Async, Quorum};
use crate::types::{Millis, Timeline};

fn promote_by_hand(world: &mut World, name: &str) {
    world.note(format!("{name} is promoted by hand"));
    let seen = &mut world.node(name).seen;
    (seen.is_in_recovery, seen.receiver, seen.follows) = (false, None, None);
    (seen.timeline, seen.sync) = (Timeline(seen.timeline.0 + 1), Some(SyncNames::default()));
}

#[test]
fn paused_the_primary_dies_and_nothing_happens_loudly() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.ask(1, Command::Pause);
    world.run(100);
    world.kill("n1");
    world.run(5000);
    assert_script(
        &world.everything(),
        r#"
        -- asked: Pause
        "by an operator: paused: no change of primary until resumed"
        store 1 stable n1, voters any 1 of n2,n3
        answer 1: Ok("paused: no change of primary until resumed")
        -- n1 dies
        "paused: n1 is down: connection refused (3 probes missed), and nothing is done"
        "#,
    );
    promote_by_hand(&mut world, "n2");
    world.run(8000);
    assert_script(
        &world.orders(),
        r#"
        -- n2 is promoted by hand
        closed 2: n2 was promoted by hand, to timeline 2
        store 2 promoting n2, voters none
        promote n2, sync none
        follow n3 n2
        set sync n2, sync none
        write epoch n2
        store 2 stable n2, voters none
        open 2 n2 timeline 2
        note 2 by hand: Some(n1) to n2
        set sync n2, sync any 1 of n3
        store 2 stable n2, voters any 1 of n3
        "#,
    );
}

#[test]
fn resumed_it_fails_over() {
    let mut world = world(Async, &["n1", "n2"]).start();
    world.ask(1, Command::Pause);
    world.run(100);
    world.kill("n1");
    world.run(5000);
    world.ask(2, Command::Resume);
    assert!(world.run_until(1000, |world| world.is_open_on("n2")));
}

#[test]
fn a_node_promoted_beside_a_living_primary_is_fenced() {
    let mut world = world(Async, &["n1", "n2", "n3"]).start();
    promote_by_hand(&mut world, "n2");
    world.run(3000);
    assert_script(
        &world.everything(),
        r#"
        -- n2 is promoted by hand
        "n2 says that it is a primary (timeline 2), but n1 is that of epoch 1: it is fenced"
        fence n2
        "n2 is fenced at 0/44C; it needs to rejoin as a standby"
        "#,
    );
    assert_eq!(world.brain.picture().nodes[&id("n2")].state, NodeState::Fenced);
}

#[test]
fn a_node_in_maintenance_neither_votes_nor_leads() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.ask(1, Command::Maintenance { node: id("n2"), on: true });
    world.run(2000);
    assert_script(
        &world.orders(),
        r#"
        -- asked: Maintenance { node: n2, on: true }
        store 1 stable n1, voters any 1 of n2,n3
        answer 1: Ok("n2 is in maintenance")
        set sync n1, sync any 1 of n3
        store 1 stable n1, voters any 1 of n3
        "#,
    );
    world.kill("n1");
    world.run_until(2000, |world| world.is_open_on("n3"));
    assert_script(
        &world.orders(),
        r#"
        -- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        store 2 recruiting n1, voters any 1 of n3
        recruit n3
        settle n3
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
}

#[test]
fn an_operator_chooses_the_next_primary() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.ask(1, Command::Failover { to: id("n3"), allow_data_loss: false });
    world.run_until(2000, |world| !world.answers.is_empty());
    world.run(3000);
    assert_script(
        &world.orders(),
        r#"
        -- asked: Failover { to: n3, allow_data_loss: false }
        closed 2: an operator asked for n3
        store 2 recruiting n1, voters any 1 of n2,n3
        recruit n2
        recruit n3
        fence n1
        settle n3
        store 2 promoting n3, voters any 1 of n2
        promote n3, sync any 1 of n2
        follow n2 n3
        write epoch n3
        store 2 stable n3, voters any 1 of n2
        open 2 n3 timeline 2
        checkpoint n3
        answer 1: Ok("n3 takes writes in epoch 2")
        note 2 order: Some(n1) to n3
        "#,
    );
}

#[test]
fn an_order_that_cannot_be_carried_out_is_refused_and_the_primary_kept() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.node("n3").refuses.insert("recruit");
    world.ask(1, Command::Failover { to: id("n3"), allow_data_loss: false });
    world.run_until(2000, |world| world.is_open_on("n1") && !world.answers.is_empty());
    world.run(6000);
    assert_script(
        &world.orders(),
        r#"
        -- asked: Failover { to: n3, allow_data_loss: false }
        closed 2: an operator asked for n3
        store 2 recruiting n1, voters any 1 of n2,n3
        recruit n2
        recruit n3
        fence n1
        answer 1: Err("1 of the 2 voters needed could be recruited; n3 or n1 would unblock it (not recruited: n3 it will not)")
        settle n1
        store 2 promoting n1, voters any 1 of n2,n3
        promote n1, sync any 1 of n2,n3
        follow n2 n1
        set sync n1, sync any 1 of n2,n3
        write epoch n1
        store 2 stable n1, voters any 1 of n2,n3
        open 2 n1 timeline 1
        note 2 order: Some(n1) to n1
        "#,
    );
    assert!(world.is_open_on("n1"));
}

#[test]
fn an_order_with_loss_whose_candidate_fails_has_lost_nothing() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    for name in ["n1", "n2"] {
        let seen = &mut world.node(name).seen;
        seen.lsn.0 += 0x100;
        seen.replayed = seen.lsn;
    }
    world.node("n3").refuses.insert("promote");
    world.ask(1, Command::Failover { to: id("n3"), allow_data_loss: true });
    assert!(world.run_until(5000, |world| world.is_open_on("n2")));
    assert_script(
        &world.orders(),
        r#"
        -- asked: Failover { to: n3, allow_data_loss: true }
        closed 2: an operator asked for n3
        store 2 recruiting n1, voters any 1 of n2,n3
        recruit n2
        recruit n3
        fence n1
        settle n3
        store 2 promoting n3, voters any 1 of n2,n3
        promote n3, sync none
        answer 1: Err("n3 failed while it was promoted: it will not")
        closed 3: n3 failed while it was promoted: it will not
        store 3 recruiting n1, voters any 1 of n2,n3
        recruit n2
        recruit n3
        settle n2
        store 3 promoting n2, voters none
        promote n2, sync any 1 of n3
        follow n3 n2
        write epoch n2
        store 3 stable n2, voters any 1 of n3
        open 3 n2 timeline 2
        checkpoint n2
        note 3 order: Some(n1) to n2
        "#,
    );
}

#[test]
fn a_primary_that_is_made_a_standby_by_hand_is_left_for_the_new_one() {
    let mut world = world(Async, &["n1", "n2"]).start();
    promote_by_hand(&mut world, "n2");
    let receiver = Receiver { from: Some(id("n2")), fed_ago: Millis(1), quiet: Millis(2500) };
    let seen = &mut world.node("n1").seen;
    (seen.is_in_recovery, seen.receiver, seen.timeline) = (true, Some(receiver), Timeline(2));
    world.run(3000);
    assert_script(
        &world.orders(),
        r#"
        -- n2 is promoted by hand
        closed 1: n1 is a standby now, which was not ordered here
        closed 2: n2 was promoted by hand, to timeline 2
        store 2 promoting n2, voters none
        promote n2, sync none
        write epoch n2
        store 2 stable n2, voters none
        open 2 n2 timeline 2
        note 2 by hand: Some(n1) to n2
        "#,
    );
}
