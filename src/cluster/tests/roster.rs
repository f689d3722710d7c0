//! Nodes are added and removed while everything runs, also at the worst moment.

use std::collections::BTreeSet;

use super::ground::*;
use crate::cluster::*;
use crate::types::Durability::{Async, Quorum};

/// The configuration is read again, and names these.
fn change(world: &mut World, names: &[&str]) -> Result<(), String> {
    let nodes = policy(Async, names).nodes;
    world.brain.may_have_nodes(&nodes, &BTreeSet::new())?;
    world.note(format!("the nodes are {}", names.join(", ")));
    world.tell(Event::Nodes(nodes));
    Ok(())
}

fn moves(world: &World, names: &[&str], moved: &str) -> Result<(), String> {
    world.brain.may_have_nodes(&policy(Async, names).nodes, &[id(moved)].into())
}

fn leaving(world: &World) -> Vec<String> {
    world.brain.leaving().map(ToString::to_string).collect()
}

const ALL: [&str; 3] = ["n1", "n2", "n3"];

#[test]
fn a_removed_voter_leaves_the_voters_and_is_known_until_then() {
    let mut world = world(Quorum, &ALL).start();
    change(&mut world, &["n1", "n2"]).unwrap();
    assert_eq!(leaving(&world), ["n3"]);
    assert!(!world.brain.picture().nodes.contains_key(&id("n3")), "people see it no more");
    world.run(2000);
    assert_script(
        &world.everything(),
        r#"
        -- the nodes are n1, n2
        "n3 was removed from the configuration; it leaves when it is no voter any more"
        "voters set on n1: any 1 of n2"
        set sync n1, sync any 1 of n2
        "voters stored: any 1 of n2"
        store 1 stable n1, voters any 1 of n2
        "#,
    );
    assert_eq!(leaving(&world), [""; 0]);
}

#[test]
fn a_node_that_is_added_becomes_a_voter_when_it_streams() {
    let mut world = world(Quorum, &ALL).start();
    change(&mut world, &["n1", "n2"]).unwrap();
    world.run(2000);
    world.everything();
    // The primary says that somebody streams under its name; whether that is the one at this address, nobody has seen.
    world.unseen.insert(id("n3"));
    change(&mut world, &ALL).unwrap();
    world.run(3000);
    world.unseen.clear();
    world.note("n3 is seen".into());
    world.run(2000);
    assert_script(
        &world.orders(),
        r#"
        -- the nodes are n1, n2, n3
        -- n3 is seen
        store 1 stable n1, voters any 1 of n2,n3
        set sync n1, sync any 1 of n2,n3
        "#,
    );
}

#[test]
fn the_primary_dies_right_after_a_voter_was_removed_that_alone_has_everything() {
    let mut world = world(Quorum, &ALL).start();
    // n2 lacks what n3 has acknowledged.
    let behind = world.node("n2").seen.lsn;
    world.write(&id("n1"), 100);
    let seen = &mut world.node("n2").seen;
    (seen.lsn, seen.replayed) = (behind, behind);
    world.node("n1").stuck.insert("set sync");
    change(&mut world, &["n1", "n2"]).unwrap();
    world.kill("n1");
    assert!(world.run_until(10_000, |world| world.is_open_on("n2")), "{}", world.everything());
    assert_script(
        &world.orders(),
        r#"
        -- the nodes are n1, n2
        set sync n1, sync any 1 of n2
        -- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        store 2 recruiting n1, voters any 1 of n2,n3
        recruit n2
        recruit n3
        level n2 from n3 until 0/4B0
        settle n2
        store 2 promoting n2, voters any 1 of n3
        promote n2, sync none
        write epoch n2
        store 2 stable n2, voters none
        open 2 n2 timeline 2
        checkpoint n2
        note 2 failover: Some(n1) to n2
        "#,
    );
}

#[test]
fn what_a_leaving_voter_alone_has_stays_there_until_somebody_has_got_it() {
    let mut world = world(Quorum, &ALL).start();
    let behind = world.node("n2").seen.lsn;
    world.write(&id("n1"), 100);
    let seen = &mut world.node("n2").seen;
    (seen.lsn, seen.replayed) = (behind, behind);
    world.node("n1").stuck.insert("set sync");
    world.node("n2").refuses.insert("level");
    change(&mut world, &["n1", "n2"]).unwrap();
    world.kill("n1");
    world.run(5000);
    let orders = world.orders();
    assert!(orders.contains("level n2 from n3") && !orders.contains("open 2"), "n2 lacks a commit:\n{orders}");
    assert!(orders.matches("recruit n2").count() > 1, "nobody knows what it receives:\n{orders}");
    // It is not too late to take it back.
    change(&mut world, &ALL).unwrap();
    assert!(world.run_until(10_000, |world| world.is_open_on("n3")), "{}", world.everything());
}

#[test]
fn a_removed_voter_has_its_say_but_is_neither_promoted_nor_made_to_follow() {
    let mut world = world(Quorum, &ALL).start();
    world.node("n1").stuck.insert("set sync");
    change(&mut world, &["n1", "n2"]).unwrap();
    world.kill("n1");
    assert!(world.run_until(10_000, |world| world.is_open_on("n2")), "{}", world.everything());
    world.run(3000);
    assert_script(
        &world.orders(),
        r#"
        -- the nodes are n1, n2
        set sync n1, sync any 1 of n2
        -- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        store 2 recruiting n1, voters any 1 of n2,n3
        recruit n2
        recruit n3
        settle n2
        store 2 promoting n2, voters any 1 of n3
        promote n2, sync none
        write epoch n2
        store 2 stable n2, voters none
        open 2 n2 timeline 2
        checkpoint n2
        note 2 failover: Some(n1) to n2
        "#,
    );
    assert_eq!(leaving(&world), [""; 0]);
}

#[test]
fn whoever_cannot_be_done_without_is_not_removed() {
    let mut world = world(Quorum, &ALL).start();
    let refused = |world: &mut World, names: &[&str]| change(world, names).unwrap_err();
    let primary = "it is the primary of epoch 1; make another one the primary first";
    assert_eq!(refused(&mut world, &["n2", "n3"]), format!("n1 cannot be removed: {primary}"));
    let elsewhere = moves(&world, &ALL, "n1").unwrap_err();
    assert_eq!(elsewhere, format!("n1 cannot be moved to another address: {primary}"));
    assert_eq!(moves(&world, &ALL, "n2"), Ok(()));
    world.node("n3").stuck.insert("recruit");
    world.kill("n1");
    assert!(world.run_until(5000, |world| world.brain.picture().phase == Some(Phase::Recruiting)));
    world.run(50);
    let error = refused(&mut world, &["n1", "n2"]);
    assert!(error.starts_with("n3 cannot be removed: a change of primary is under way"), "{error}");
    assert!(refused(&mut world, &["n2", "n3"]).contains("n1 cannot be removed: it is the primary of epoch 2"));
    assert_eq!(change(&mut world, &ALL), Ok(()), "nothing has changed");
}

#[test]
fn who_is_to_be_the_primary_next_is_not_removed() {
    let mut world = world(Async, &ALL).start();
    world.node("n1").stuck.insert("checkpoint");
    world.ask(1, Command::Switchover { to: Some(id("n2")) });
    world.run(20);
    assert!(world.answers.is_empty(), "{:?}", world.answers);
    let error = change(&mut world, &["n1", "n3"]).unwrap_err();
    assert_eq!(
        error,
        "n2 cannot be removed: a change of primary is under way, and it was asked for n2; try again when it is over"
    );
    assert_eq!(change(&mut world, &["n1", "n2"]), Ok(()));
    world.node("n1").stuck.clear();
    assert!(world.run_until(10_000, |world| world.is_open_on("n2")), "{}", world.everything());
}

#[test]
fn a_standby_is_removed_in_the_middle_of_a_failover() {
    let mut world = world(Async, &ALL).start();
    world.node("n3").stuck.insert("recruit");
    world.kill("n1");
    assert!(world.run_until(5000, |world| world.brain.picture().phase == Some(Phase::Recruiting)));
    world.run(50);
    assert_eq!(change(&mut world, &["n1", "n2"]), Ok(()));
    // It is not waited for any more: that would take a second.
    assert!(world.run_until(500, |world| world.is_open_on("n2")), "{}", world.everything());
    let orders = world.orders();
    assert!(orders.contains("forget recruit n3") && !orders.contains("follow n3"), "{orders}");
}

#[test]
fn a_standby_is_added_in_the_middle_of_a_failover() {
    let mut world = world(Async, &ALL).start();
    change(&mut world, &["n1", "n2"]).unwrap();
    world.node("n2").stuck.insert("promote");
    world.kill("n1");
    assert!(world.run_until(5000, |world| world.brain.picture().phase == Some(Phase::Promoting)));
    assert_eq!(change(&mut world, &ALL), Ok(()));
    world.node("n2").stuck.clear();
    assert!(world.run_until(5000, |world| world.is_open_on("n2")));
    world.run(5000);
    let follows = world.nodes[&id("n3")].seen.follows.clone();
    assert_eq!(follows, Some(id("n2")), "{}", world.everything());
}

#[test]
fn what_a_removed_node_does_is_nobodys_business() {
    let mut world = world(Async, &ALL).start();
    change(&mut world, &["n1", "n2"]).unwrap();
    let seen = &mut world.node("n3").seen;
    (seen.is_in_recovery, seen.timeline, seen.receiver) = (false, crate::types::Timeline(2), None);
    world.run(5000);
    assert_script(&world.orders(), "-- the nodes are n1, n2");
}

#[test]
fn a_node_of_another_cluster_says_so() {
    let mut world = world(Quorum, &ALL).start();
    change(&mut world, &["n1", "n2"]).unwrap();
    world.run(2000);
    let seen = &mut world.node("n3").seen;
    (seen.system_identifier, seen.is_in_recovery, seen.receiver) = (SYSTEM + 1, false, None);
    world.everything();
    change(&mut world, &ALL).unwrap();
    world.run(3000);
    let account = world.brain.picture().nodes[&id("n3")].clone();
    assert_eq!((account.state, &*account.reason), (NodeState::Unknown, "belongs to another cluster (8)"));
    assert_script(&world.orders(), "-- the nodes are n1, n2, n3");
}
