//! What pgbaton finds when it starts.

use super::ground::*;
use crate::cluster::*;
use crate::types::Durability::{Async, Quorum};
use crate::types::{Epoch, Timeline};

fn begin(world: &mut World) {
    let record = world.stored.clone();
    world.tell(Event::Loaded { record, unix_ms_at_zero: 0 });
}

#[test]
fn a_cluster_without_a_record_is_adopted() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]);
    begin(&mut world);
    world.run(2000);
    assert_script(
        &world.everything(),
        r#"
        closed 1: no node has been seen to be the primary yet
        "Unloaded → Adopting: the store holds no record"
        "Adopting → Promoting: epoch 1: n1 was found to be the primary"
        store 1 promoting n1, voters none
        promote n1, sync none
        "n1 is the primary on timeline 1; the others follow it"
        "voters set on n1: none"
        set sync n1, sync none
        write epoch n1
        "n1 can commit; epoch 1 is stored as stable"
        store 1 stable n1, voters none
        "Promoting → Stable: n1 takes writes in epoch 1"
        open 1 n1 timeline 1
        note 1 adoption: None to n1
        "voters set on n1: any 1 of n2, n3"
        set sync n1, sync any 1 of n2,n3
        "voters stored: any 1 of n2, n3"
        store 1 stable n1, voters any 1 of n2,n3
        "#,
    );
}

#[test]
fn two_primaries_are_for_people_to_settle() {
    let mut world = world(Async, &["n1", "n2"]);
    world.node("n2").seen.is_in_recovery = false;
    begin(&mut world);
    world.run(3000);
    assert_script(
        &world.everything(),
        r#"
        closed 1: no node has been seen to be the primary yet
        "Unloaded → Adopting: the store holds no record"
        "n1 (system 7, timeline 1) and n2 (system 7, timeline 1) say that they are the primary; stop all but one"
        closed 1: n1 (system 7, timeline 1) and n2 (system 7, timeline 1) say that they are the primary; stop all but one
        "#,
    );
    world.kill("n2");
    world.run(1000);
    assert_script(
        &world.orders(),
        r#"
        -- n2 dies
        store 1 promoting n1, voters none
        promote n1, sync none
        write epoch n1
        store 1 stable n1, voters none
        open 1 n1 timeline 1
        note 1 adoption: None to n1
        "#,
    );
}

#[test]
fn without_rights_async_goes_on_with_a_warning() {
    let mut world = world(Async, &["n1", "n2"]);
    world.node("n1").refuses.insert("write epoch");
    begin(&mut world);
    world.run(1000);
    assert_script(
        &world.everything(),
        r#"
        closed 1: no node has been seen to be the primary yet
        "Unloaded → Adopting: the store holds no record"
        "Adopting → Promoting: epoch 1: n1 was found to be the primary"
        store 1 promoting n1, voters none
        promote n1, sync none
        "n1 is the primary on timeline 1; the others follow it"
        write epoch n1
        "n1 has no row of this epoch, so an old store will not be noticed: it will not"
        "n1 can commit; epoch 1 is stored as stable"
        store 1 stable n1, voters none
        "Promoting → Stable: n1 takes writes in epoch 1"
        open 1 n1 timeline 1
        note 1 adoption: None to n1
        "#,
    );
}

#[test]
fn a_restarted_pgbaton_waits_for_the_voters_before_it_opens() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.restart(policy(Quorum, &["n1", "n2", "n3"]));
    world.run(1000);
    assert_script(
        &world.everything(),
        r#"
        -- pgbaton restarts
        closed 1: n1 has not been seen to be the primary of epoch 1 yet
        "Unloaded → Stable: the record says: epoch 1, stable, n1"
        "voters set on n1: any 1 of n2, n3"
        set sync n1, sync any 1 of n2,n3
        "n1 takes writes in epoch 1"
        open 1 n1 timeline 1
        "#,
    );
}

#[test]
fn a_failover_under_way_is_gone_on_with() {
    for stuck in ["recruit", "settle", "promote", "write epoch"] {
        let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
        world.node("n2").stuck.insert(stuck);
        world.kill("n1");
        world.run(400);
        assert!(!world.is_open_on("n2"), "{stuck}");
        world.node("n2").stuck.clear();
        world.restart(policy(Quorum, &["n1", "n2", "n3"]));
        assert!(world.run_until(3000, |world| world.is_open_on("n2")), "{stuck}: {}", world.everything());
        world.run(8000);
        let stored = world.stored.clone().expect("a record");
        assert_eq!((stored.epoch, stored.sync().k), (Epoch(2), 1), "{stuck}: {}", world.everything());
    }
}

#[test]
fn an_old_store_freezes_until_an_operator_resumes() {
    let mut world = world(Async, &["n1", "n2"]).start();
    let old = world.stored.clone();
    world.kill("n1");
    world.run_until(1000, |world| world.is_open_on("n2"));
    world.run(500);
    world.revive("n1", true);
    world.orders();
    world.stored = old;
    world.restart(policy(Async, &["n1", "n2"]));
    world.run(2000);
    assert_script(
        &world.orders(),
        r#"
        -- pgbaton restarts
        closed 1: n1 has not been seen to be the primary of epoch 1 yet
        closed 2: n2 knows epoch 2, the store only 1: the store is older than the cluster. Nothing is done until an operator has made sure that exactly one node is the primary, and says `resume`: epoch 3 will follow
        "#,
    );
    world.ask(1, Command::Failover { to: id("n1"), allow_data_loss: true });
    world.node("n1").life = Life::Refuses;
    world.ask(2, Command::Resume);
    world.run(3000);
    assert_script(
        &world.orders(),
        r#"
        -- asked: Failover { to: n1, allow_data_loss: true }
        answer 1: Err("n2 knows epoch 2, the store only 1: the store is older than the cluster. Nothing is done until an operator has made sure that exactly one node is the primary, and says `resume`: epoch 3 will follow")
        -- asked: Resume
        answer 2: Ok("the one primary that is found will be that of epoch 3")
        store 3 promoting n2, voters none
        promote n2, sync none
        write epoch n2
        store 3 stable n2, voters none
        open 3 n2 timeline 2
        note 3 adoption: None to n2
        "#,
    );
    assert_eq!(world.stored.clone().map(|record| record.timeline), Some(Timeline(2)));
}
