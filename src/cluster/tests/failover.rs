//! The primary goes, and comes back.

use super::ground::*;
use crate::types::Durability::{Async, Quorum};

#[test]
fn the_primary_is_killed_quorum() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    assert!(world.is_open_on("n1"));
    world.kill("n1");
    world.run_until(1000, |world| world.is_open_on("n2"));
    assert_script(
        &world.everything(),
        r#"
        -- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        "Stable → Recruiting: epoch 2: n1 is down: connection refused (3 probes missed)"
        store 2 recruiting n1, voters any 1 of n2,n3
        recruit n2
        recruit n3
        "Recruiting → Settling: n2 is the candidate"
        settle n2
        "Settling → Promoting: n2 has everything up to 0/44C"
        store 2 promoting n2, voters any 1 of n3
        promote n2, sync any 1 of n3
        "n2 is the primary on timeline 2; the others follow it"
        "n3 is told to follow n2"
        follow n3 n2
        write epoch n2
        "n2 can commit; epoch 2 is stored as stable"
        store 2 stable n2, voters any 1 of n3
        "Promoting → Stable: n2 takes writes in epoch 2"
        open 2 n2 timeline 2
        checkpoint n2
        note 2 failover: Some(n1) to n2
        "#,
    );
}

#[test]
fn the_primary_is_killed_async() {
    let mut world = world(Async, &["n1", "n2", "n3"]).start();
    assert!(world.is_open_on("n1"));
    world.kill("n1");
    world.run_until(1000, |world| world.is_open_on("n2"));
    assert_script(
        &world.orders(),
        "-- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        store 2 recruiting n1, voters none
        recruit n2
        recruit n3
        settle n2
        store 2 promoting n2, voters none
        promote n2, sync none
        follow n3 n2
        write epoch n2
        store 2 stable n2, voters none
        open 2 n2 timeline 2
        checkpoint n2
        note 2 failover: Some(n1) to n2",
    );
}
