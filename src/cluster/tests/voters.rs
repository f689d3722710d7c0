//! Who has to acknowledge, while nodes come and go.

use super::ground::*;
use crate::cluster::*;
use crate::types::Durability::{Async, Quorum};

#[test]
fn a_voter_that_goes_is_removed_and_returns_when_it_streams() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.kill("n3");
    world.run(6000);
    assert_script(
        &world.everything(),
        r#"
        -- n3 dies
        "voters set on n1: any 1 of n2"
        set sync n1, sync any 1 of n2
        "voters stored: any 1 of n2"
        store 1 stable n1, voters any 1 of n2
        "#,
    );
    world.revive("n3", true);
    world.run(6000);
    assert_script(
        &world.everything(),
        r#"
        -- n3 is back
        "voters stored: any 1 of n2, n3"
        store 1 stable n1, voters any 1 of n2,n3
        "voters set on n1: any 1 of n2, n3"
        set sync n1, sync any 1 of n2,n3
        "#,
    );
}

#[test]
fn all_voters_go_and_commits_go_on_soon() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.kill("n2");
    world.kill("n3");
    world.run(2000);
    assert_script(
        &world.orders(),
        r#"
        -- n2 dies
        -- n3 dies
        store 1 stable n1, voters none
        set sync n1, sync none
        "#,
    );
    assert!(world.is_open_on("n1"));
}

#[test]
fn another_voter_takes_the_place_of_the_only_one() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.ask(1, Command::Maintenance { node: id("n2"), on: true });
    world.run(2000);
    world.orders();
    world.ask(2, Command::Maintenance { node: id("n2"), on: false });
    world.ask(3, Command::Maintenance { node: id("n3"), on: true });
    world.run(2000);
    assert_script(
        &world.orders(),
        r#"
        -- asked: Maintenance { node: n2, on: false }
        store 1 stable n1, voters any 1 of n3
        -- asked: Maintenance { node: n3, on: true }
        answer 2: Ok("n2 is in use again")
        store 1 stable n1, voters any 1 of n3
        answer 3: Ok("n3 is in maintenance")
        store 1 stable n1, voters any 1 of n2,n3
        set sync n1, sync any 1 of n2
        store 1 stable n1, voters any 1 of n2
        "#,
    );
}

#[test]
fn names_that_somebody_changed_are_set_again() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.node("n1").seen.sync = None;
    world.run(2000);
    assert_script(
        &world.everything(),
        r#"
        "somebody changed synchronous_standby_names on n1 to something else; it is set again"
        set sync n1, sync any 1 of n2,n3
        "#,
    );
}

#[test]
fn durability_follows_the_configuration() {
    let mut world = world(Async, &["n1", "n2", "n3"]).start();
    world.restart(policy(Quorum, &["n1", "n2", "n3"]));
    world.run(2000);
    assert_script(
        &world.orders(),
        r#"
        -- pgbaton restarts
        closed 1: n1 has not been seen to be the primary of epoch 1 yet
        store 1 stable n1, voters none
        set sync n1, sync any 1 of n2,n3
        store 1 stable n1, voters any 1 of n2,n3
        open 1 n1 timeline 1
        "#,
    );
    world.restart(policy(Async, &["n1", "n2", "n3"]));
    world.run(2000);
    assert_script(
        &world.orders(),
        r#"
        -- pgbaton restarts
        closed 1: n1 has not been seen to be the primary of epoch 1 yet
        store 1 stable n1, voters none
        set sync n1, sync none
        open 1 n1 timeline 1
        "#,
    );
}

#[test]
fn a_voter_dies_during_the_promotion() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.node("n2").stuck.insert("promote");
    world.kill("n1");
    world.run(300);
    world.kill("n3");
    world.node("n2").stuck.clear();
    world.run_until(5000, |world| world.is_open_on("n2"));
    assert_script(
        &world.orders(),
        r#"
        -- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        store 2 recruiting n1, voters any 1 of n2,n3
        recruit n2
        recruit n3
        settle n2
        store 2 promoting n2, voters any 1 of n3
        promote n2, sync any 1 of n3
        -- n3 dies
        follow n3 n2
        write epoch n2
        set sync n2, sync none
        store 2 stable n2, voters none
        open 2 n2 timeline 2
        checkpoint n2
        note 2 failover: Some(n1) to n2
        "#,
    );
}
