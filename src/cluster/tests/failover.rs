//! The primary goes, and comes back.

use super::ground::*;
use crate::types::Durability::{Async, Quorum};
use crate::types::{Durability, Lsn};

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

#[test]
fn a_frozen_primary_is_given_up_when_its_standbys_hear_nothing() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.freeze("n1");
    world.run_until(6000, |world| world.is_open_on("n2"));
    assert_script(
        &world.everything(),
        r#"
        -- n1 freezes
        "n1 does not answer us, but n2 still receives from it: no failover for now"
        closed 2: n1 is down: no answer within 1 s (3 probes missed)
        "Stable → Recruiting: epoch 2: n1 is down: no answer within 1 s (3 probes missed)"
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
    assert!(world.now < 4000 + 6000);
    world.revive("n1", false);
    world.run(3000);
    assert_script(
        &world.orders(),
        r#"
        -- n1 is back
        fence n1
        "#,
    );
}

#[test]
fn a_primary_that_only_we_cannot_see_is_kept_until_the_veto_ends() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.unseen.insert(id("n1"));
    world.run(14_000);
    assert_script(
        &world.everything(),
        r#""n1 does not answer us, but n2 still receives from it: no failover for now""#,
    );
    world.run_until(6000, |world| world.is_open_on("n2"));
    assert_script(
        &world.orders(),
        r#"
        closed 2: n1 is down: no answer within 1 s (3 probes missed)
        store 2 recruiting n1, voters any 1 of n2,n3
        recruit n2
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
fn a_primary_that_we_see_again_before_the_veto_ends_is_kept() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.unseen.insert(id("n1"));
    world.run(10_000);
    world.unseen.clear();
    world.run(20_000);
    assert_script(&world.orders(), "");
}

#[test]
fn a_primary_that_crashes_and_restarts_at_once_goes_on_in_a_new_epoch() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.node("n1").seen.incarnation = 2;
    world.run(1000);
    assert_script(
        &world.everything(),
        r#"
        closed 2: n1 crashed and restarted
        "Stable → Recruiting: epoch 2: n1 crashed and restarted"
        store 2 recruiting n1, voters any 1 of n2,n3
        "Recruiting → Settling: the primary is back"
        settle n1
        "Settling → Promoting: n1 is taken back for epoch 2"
        store 2 promoting n1, voters any 1 of n2,n3
        promote n1, sync any 1 of n2,n3
        "n1 is the primary on timeline 1; the others follow it"
        "voters set on n1: any 1 of n2, n3"
        set sync n1, sync any 1 of n2,n3
        write epoch n1
        "n1 can commit; epoch 2 is stored as stable"
        store 2 stable n1, voters any 1 of n2,n3
        "Promoting → Stable: n1 takes writes in epoch 2"
        open 2 n1 timeline 1
        note 2 restart: Some(n1) to n1
        "#,
    );
}

#[test]
fn a_primary_that_comes_back_while_standbys_are_recruited_is_taken_back() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.node("n2").stuck.insert("recruit");
    world.kill("n1");
    world.run(600);
    world.revive("n1", true);
    world.run(6000);
    assert_script(
        &world.orders(),
        r#"
        -- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        store 2 recruiting n1, voters any 1 of n2,n3
        recruit n2
        recruit n3
        -- n1 is back
        forget recruit n2
        settle n1
        store 2 promoting n1, voters any 1 of n2,n3
        promote n1, sync any 1 of n2,n3
        follow n3 n1
        set sync n1, sync any 1 of n2,n3
        write epoch n1
        store 2 stable n1, voters any 1 of n2,n3
        open 2 n1 timeline 1
        note 2 failover: Some(n1) to n1
        "#,
    );
}

#[test]
fn the_candidate_dies_and_the_next_one_is_taken() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.node("n2").stuck.insert("promote");
    world.kill("n1");
    world.run(300);
    world.kill("n2");
    world.run_until(5000, |world| world.is_open_on("n3"));
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
        -- n2 dies
        closed 3: n2 failed while it was promoted: no connection
        "Promoting → Recruiting: epoch 3: n2 failed while it was promoted: no connection"
        store 3 recruiting n2, voters any 1 of n3
        recruit n2
        recruit n3
        "Recruiting → Settling: n3 is the candidate"
        settle n3
        "Settling → Promoting: n3 has everything up to 0/44C"
        store 3 promoting n3, voters none
        promote n3, sync none
        "n3 is the primary on timeline 2; the others follow it"
        "n2 is told to follow n3"
        follow n2 n3
        write epoch n3
        "n2 does not follow n3: no connection"
        "n3 can commit; epoch 3 is stored as stable"
        store 3 stable n3, voters none
        "Promoting → Stable: n3 takes writes in epoch 3"
        open 3 n3 timeline 2
        checkpoint n3
        note 3 failover: Some(n1) to n3
        "#,
    );
}

/// n2 gets what was on its way to both when n1 died.
fn die_with_n2_ahead(world: &mut World) {
    world.kill("n1");
    let seen = &mut world.node("n2").seen;
    seen.lsn.0 += 0x100;
    seen.replayed = seen.lsn;
}

#[test]
fn the_candidate_that_had_more_dies_and_the_next_one_has_it_too() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.node("n2").stuck.insert("promote");
    die_with_n2_ahead(&mut world);
    world.run(300);
    world.kill("n2");
    assert!(world.run_until(5000, |world| world.is_open_on("n3")));
    assert_script(
        &world.orders(),
        r#"
        -- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        store 2 recruiting n1, voters any 1 of n2,n3
        recruit n2
        recruit n3
        settle n2
        level n3 from n2 until 0/54C
        store 2 promoting n2, voters any 1 of n3
        promote n2, sync any 1 of n3
        -- n2 dies
        closed 3: n2 failed while it was promoted: no connection
        store 3 recruiting n2, voters any 1 of n3
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

#[test]
fn a_recruit_that_cannot_be_brought_up_is_waited_for_shortly_and_never_counted() {
    for refuses in [false, true] {
        let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
        let node = world.node("n3");
        if refuses {
            node.refuses.insert("level")
        } else {
            node.stuck.insert("level")
        };
        die_with_n2_ahead(&mut world);
        assert!(world.run_until(1500, |world| world.is_open_on("n2")));
        let given_up = if refuses { "" } else { "forget level n3" };
        assert_script(
            &world.orders(),
            &format!(
                "-- n1 dies
                closed 2: n1 is down: connection refused (3 probes missed)
                store 2 recruiting n1, voters any 1 of n2,n3
                recruit n2
                recruit n3
                settle n2
                level n3 from n2 until 0/54C
                {given_up}
                store 2 promoting n2, voters none
                promote n2, sync any 1 of n3
                follow n3 n2
                write epoch n2
                store 2 stable n2, voters any 1 of n3
                open 2 n2 timeline 2
                checkpoint n2
                note 2 failover: Some(n1) to n2"
            ),
        );
    }
}

#[test]
fn a_candidate_that_cannot_settle_is_passed_over() {
    let mut world = world(Async, &["n1", "n2", "n3"]).start();
    world.node("n2").refuses.insert("settle");
    world.kill("n1");
    world.run_until(3000, |world| world.is_open_on("n3"));
    assert_script(
        &world.orders(),
        r#"
        -- n1 dies
        closed 2: n1 is down: connection refused (3 probes missed)
        store 2 recruiting n1, voters none
        recruit n2
        recruit n3
        settle n2
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
    let rejected = world.last_note().rejected.clone();
    assert_script(&format!("{rejected:?}"), r#"{n2: "it will not"}"#);
}

/// The primary dies while it writes a record, of which each has received so much and can replay so much.
fn torn(durability: Durability, received: [u64; 2], replayed: [u64; 2]) -> World {
    let mut world = world(durability, &["n1", "n2", "n3"]).start();
    let whole = world.node("n2").seen.lsn.0;
    for (at, name) in ["n2", "n3"].into_iter().enumerate() {
        let seen = &mut world.node(name).seen;
        (seen.lsn, seen.replayed) = (Lsn(whole + received[at]), Lsn(whole + replayed[at]));
    }
    world.kill("n1");
    world
}

#[test]
fn a_record_received_in_part_is_left_out_and_everybody_has_the_rest() {
    for durability in [Async, Quorum] {
        for (received, first) in [([500, 500], "n3"), ([500, 200], "n2"), ([0, 500], "n3")] {
            let mut world = torn(durability, received, [0, 0]);
            let whole = world.node("n2").seen.replayed;
            let is_open = world.run_until(3000, |world| world.is_open_on(first));
            assert!(is_open, "{durability:?} {received:?}\n{}", world.orders());
            assert_eq!(world.last_note().fork_lsn, Some(whole), "{durability:?} {received:?}");
            let other = if first == "n2" { "n3" } else { "n2" };
            assert_eq!(world.node(other).seen.follows, Some(id(first)), "{durability:?} {received:?}");
        }
    }
}

#[test]
fn one_that_has_replayed_more_is_taken_before_one_whose_log_is_damaged() {
    for durability in [Async, Quorum] {
        let mut world = torn(durability, [500, 500], [100, 500]);
        let has = world.node("n3").seen.lsn;
        assert!(world.run_until(3000, |world| world.is_open_on("n3")), "{}", world.orders());
        assert_eq!(world.last_note().fork_lsn, Some(has));
        // Nor does it keep the other from being taken if it cannot say.
        let mut world = torn(durability, [500, 500], [100, 100]);
        let has = world.node("n2").seen.replayed;
        world.node("n3").refuses.insert("settle");
        assert!(world.run_until(3000, |world| world.is_open_on("n2")), "{}", world.orders());
        assert_eq!(world.last_note().fork_lsn, Some(has));
    }
}

#[test]
fn what_is_too_long_for_a_record_is_no_torn_one() {
    let mut world = torn(Quorum, [2 << 30, 2 << 30], [0, 0]);
    assert!(!world.run_until(10_000, |world| world.is_open_on("n2") || world.is_open_on("n3")));
    assert!(world.everything().contains("has replayed up to"), "{}", world.everything());
}

#[test]
fn a_primary_that_cannot_write_is_replaced_and_fenced() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.beats = false;
    world.run_until(3000, |world| world.is_open_on("n2"));
    world.beats = true;
    world.run(3000);
    assert_script(
        &world.orders(),
        r#"
        closed 2: n1 answers, but cannot write: no space left on device (3 heartbeats missed)
        store 2 recruiting n1, voters any 1 of n2,n3
        recruit n2
        recruit n3
        fence n1
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
fn soft_symptoms_wait_after_a_recovery_and_refused_connections_do_not() {
    let mut world = world(Async, &["n1", "n2", "n3"]).start();
    world.kill("n1");
    world.run_until(1000, |world| world.is_open_on("n2"));
    world.run(500);
    world.orders();
    let opened = world.now;
    world.beats = false;
    world.run(20_000);
    assert_script(
        &world.everything(),
        r#""n2 answers, but cannot write: no space left on device (3 heartbeats missed); the last change was less than 30000 ms ago, so it waits (failover.anti_flap)""#,
    );
    assert!(world.run_until(15_000, |world| !world.is_open_on("n2")));
    assert!(world.now >= opened + 29_000);

    let mut world = super::ground::world(Async, &["n1", "n2", "n3"]).start();
    world.kill("n1");
    world.run_until(1000, |world| world.is_open_on("n2"));
    world.kill("n2");
    assert!(world.run_until(1000, |world| world.is_open_on("n3")));
}

#[test]
fn a_server_that_restarts_for_ever_opens_a_few_epochs_and_no_more() {
    let mut world = world(Async, &["n1", "n2"]).start();
    for _ in 0..40 {
        world.node("n1").seen.incarnation += 1;
        world.run(500);
    }
    let stored = world.stored.clone().expect("a record");
    assert_eq!(stored.epoch.0, 6);
}

#[test]
fn a_server_that_starts_up_is_waited_for_but_not_for_ever() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.kill("n1");
    world.node("n1").life = Life::Starts;
    world.run(4000);
    assert_script(
        &world.everything(),
        r#"
        -- n1 dies
        "n1 starts up; it is waited for until 5000 ms have passed"
        "#,
    );
    assert!(world.run_until(3000, |world| world.is_open_on("n2")));
}

#[test]
fn a_server_that_rejects_us_is_alive() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.node("n1").life = Life::Rejects;
    world.run(60_000);
    assert_script(
        &world.everything(),
        r#""n1 answers, but not to us, which is no reason for a failover: password authentication failed""#,
    );
    assert!(world.is_open_on("n1"));
}

#[test]
fn a_fenced_primary_is_freed_in_a_new_epoch() {
    let mut world = world(Async, &["n1", "n2"]).start();
    world.node("n1").seen.is_fenced = true;
    world.run(1000);
    assert_script(
        &world.orders(),
        "closed 2: n1 is fenced though it is the primary
        store 2 recruiting n1, voters none
        settle n1
        store 2 promoting n1, voters none
        promote n1, sync none
        write epoch n1
        store 2 stable n1, voters none
        open 2 n1 timeline 1
        note 2 restart: Some(n1) to n1",
    );
}
