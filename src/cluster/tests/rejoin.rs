//! Nodes come back as standbys, by their agents, and a cluster begins where there is none.

use super::agents::world_with_agents;
use super::ground::*;
use crate::cluster::agent::{Code, Data, Deed, Diverged, Doing, Done, Outcome, Repair, Server};
use crate::cluster::*;
use crate::types::Durability::{Async, Quorum};
use crate::types::{Epoch, Lsn, Millis, Timeline};

fn begin(world: &mut World) {
    let record = world.stored.clone();
    world.tell(Event::Loaded { record, unix_ms_at_zero: 0 });
}

#[test]
fn a_killed_primary_comes_back_as_a_standby() {
    let mut world = world_with_agents(Quorum, &["n1", "n2", "n3"]).start();
    let diverged =
        Diverged { timeline: Timeline(1), from: Lsn(1100), to: Lsn(1500), commits: Some(3), kept: "/kept/1".into() };
    let repair = Some(Repair::Rewind);
    world.agent("n1").deed =
        Deed { repair, why: "its log goes on after the fork".into(), end: None, diverged: Some(diverged.clone()) };
    world.kill_under_agent("n1");
    world.run(3000);
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
        stop n1 immediate
        promote n2, sync any 1 of n3
        follow n3 n2
        write epoch n2
        store 2 stable n2, voters any 1 of n3
        open 2 n2 timeline 2
        checkpoint n2
        note 2 failover: Some(n1) to n2
        rejoin n1 n2 (auto): has the data of a primary of the past (timeline 1)
        note rewind of n1
        store 2 stable n2, voters any 1 of n1,n3
        set sync n2, sync any 1 of n1,n3
        "#,
    );
    let note = world.repairs.last().unwrap();
    assert_eq!(note.why, "has the data of a primary of the past (timeline 1); its log goes on after the fork");
    assert_eq!((&note.primary, note.epoch, &note.diverged), (&id("n2"), Epoch(2), &Some(diverged)));
    assert_eq!(world.account("n1").state, NodeState::Running);
}

#[test]
fn a_former_primary_that_answers_is_fenced_and_then_made_a_standby() {
    let mut world = world_with_agents(Quorum, &["n1", "n2", "n3"]).start();
    world.freeze("n1");
    world.agent("n1").silent = Some("no answer within 2 s".into());
    world.run_until(10_000, |world| world.is_open_on("n2"));
    world.orders();
    world.run(5000);
    assert_script(&world.orders(), "");
    world.revive("n1", false);
    world.agent("n1").silent = None;
    world.run(2000);
    assert_script(
        &world.orders(),
        r#"
        -- n1 is back
        fence n1
        rejoin n1 n2 (auto): is a primary of the past (timeline 1); n2 is that of epoch 2
        note auto of n1
        store 2 stable n2, voters any 1 of n1,n3
        set sync n2, sync any 1 of n1,n3
        "#,
    );
}

#[test]
fn a_wiped_disk_and_a_new_node_are_filled_and_the_step_is_shown() {
    let mut world = world_with_agents(Async, &["n1", "n2", "n3", "n4"]).start();
    for name in ["n2", "n3", "n4"] {
        world.wipe(name);
        world.node(name).stuck.insert("rejoin");
    }
    world.agent("n2").step = Some("copying n1: 41 % of 2.1 GiB".into());
    // Longer than any other job may take.
    world.run(30_000);
    assert_script(
        &world.orders(),
        r#"
        -- the disk of n2 is wiped
        -- the disk of n3 is wiped
        -- the disk of n4 is wiped
        rejoin n2 n1 (auto): has no data
        rejoin n3 n1 (auto): has no data
        "#,
    );
    let account = world.account("n2");
    assert_eq!((account.state, account.reason.as_str()), (NodeState::Rejoining, "copying n1: 41 % of 2.1 GiB"));
    world.node("n2").stuck.clear();
    world.run(1000);
    assert_script(&world.orders(), "note auto of n2\nrejoin n4 n1 (auto): has no data");
}

#[test]
fn what_was_ordered_before_a_restart_is_waited_for() {
    let mut world = world_with_agents(Async, &["n1", "n2"]).start();
    world.wipe("n2");
    let (epoch, order, task) = (Epoch(1), "7-3".to_string(), "rejoin".to_string());
    let step = "copying n1: 7 %".to_string();
    world.agent("n2").doing =
        Some(Doing { epoch, id: order.clone(), task: task.clone(), since: 0, step: step.clone() });
    let policy = world.brain.policy.clone();
    world.restart(policy);
    world.run(20_000);
    assert!(!world.orders().contains("rejoin"));
    assert_eq!(world.account("n2").reason, step);
    let deed = Deed { repair: Some(Repair::Rebuild), ..Deed::default() };
    let agent = world.agent("n2");
    (agent.doing, agent.data, agent.server) = (None, None, Server::Running);
    agent.done = Some(Done { epoch, id: order, task, took_ms: 9, outcome: Outcome::Well(deed) });
    world.revive("n2", true);
    world.run(2000);
    assert_script(&world.orders(), "-- n2 is back\nnote rebuild of n2");
    assert_eq!(world.account("n2").state, NodeState::Running);
}

/// A report from just before the end says that the order is under way.
#[test]
fn an_order_that_fails_is_counted_once() {
    let mut world = world_with_agents(Async, &["n1", "n2"]).start();
    world.wipe("n2");
    world.node("n2").refuses.insert("rejoin");
    world.run(600);
    let (epoch, order, task) = (Epoch(1), "7-3".to_string(), "rejoin".to_string());
    world.agent("n2").doing =
        Some(Doing { epoch, id: order.clone(), task: task.clone(), since: 0, step: String::new() });
    world.run(600);
    let outcome = Outcome::Failed { code: Code::Failed, reason: "it will not, again".into() };
    let agent = world.agent("n2");
    (agent.doing, agent.done) = (None, Some(Done { epoch, id: order, task, took_ms: 9, outcome }));
    world.run(600);
    assert_eq!(world.repairs.len(), 1, "{:?}", world.repairs);
}

#[test]
fn what_fails_is_tried_again_more_and_more_slowly_and_says_why() {
    let mut world = world_with_agents(Async, &["n1", "n2"]).start();
    world.wipe("n2");
    world.node("n2").refuses.insert("rejoin");
    world.run(40_000);
    let orders = world.orders();
    let times = orders.lines().filter(|line| line.starts_with("rejoin")).count();
    assert_eq!(times, 5, "after 2, 4, 8 and 16 s: {orders}");
    assert_eq!(orders.lines().filter(|line| line.starts_with("note")).count(), 1, "the history has it once: {orders}");
    let account = world.account("n2");
    let reason = "has no data; could not be made a standby of n1: it will not";
    assert_eq!((account.state, account.reason.as_str()), (NodeState::Down, reason));
    // An operator need not wait.
    world.node("n2").refuses.clear();
    world.ask(1, Command::Rejoin { node: id("n2"), rebuild: true });
    world.run(1000);
    let text = "n2 is being made a standby of n1 (rebuild); `pgbaton list` shows how far it is";
    assert_eq!(world.answers, [(1, Ok(text.to_string()))]);
    assert_eq!(world.account("n2").state, NodeState::Running);
}

#[test]
fn another_clusters_data_is_left_as_it_is() {
    let mut world = world_with_agents(Async, &["n1", "n2"]).start();
    world.kill_under_agent("n2");
    world.node("n2").seen.system_identifier = 8;
    world.run(5000);
    assert_script(&world.orders(), "-- n2 dies");
    assert!(world.account("n2").reason.starts_with("has the data of another cluster"), "{:?}", world.account("n2"));
    world.ask(1, Command::Rejoin { node: id("n2"), rebuild: true });
    assert!(world.answers[0].1.as_ref().unwrap_err().starts_with("n2 has the data of another cluster"));
}

#[test]
fn histories_of_one_number_are_told_apart() {
    let mut world = world_with_agents(Quorum, &["n1", "n2", "n3"]).start();
    // n2 is promoted, and dies before anybody follows it: n3 takes the same number.
    world.node("n2").stuck.insert("write epoch");
    world.node("n3").refuses.insert("follow");
    world.kill_under_agent("n1");
    world.run_until(2000, |world| !world.nodes[&id("n2")].seen.is_in_recovery);
    world.kill_under_agent("n2");
    world.run_until(2000, |world| world.stored.as_ref().is_some_and(|record| record.epoch == Epoch(3)));
    world.node("n3").refuses.clear();
    world.run_until(5000, |world| world.is_open_on("n3"));
    assert_eq!(world.nodes[&id("n2")].seen.timeline, world.nodes[&id("n3")].seen.timeline);
    world.run(3000);
    let orders = world.orders();
    let rejoins: Vec<&str> = orders.lines().filter(|line| line.starts_with("rejoin")).collect();
    assert_eq!(
        rejoins,
        [
            "rejoin n1 n3 (auto): has the data of a primary of the past (timeline 1)",
            "rejoin n2 n3 (rebuild): has the data of a primary of the past (timeline 2), which is another than the \
             cluster's of that number"
        ]
    );
}

#[test]
fn a_standby_that_is_not_streamed_to_is_made_one_again() {
    let mut world = world_with_agents(Quorum, &["n1", "n2", "n3"]).start();
    // What it asks for is not there any more: it tries again and again.
    world.node("n2").seen.receiver = None;
    world.node("n2").seen.timeline = Timeline(0);
    world.run(15_000);
    let orders = world.orders();
    let rejoins: Vec<&str> = orders.lines().filter(|line| line.starts_with("rejoin")).collect();
    assert_eq!(rejoins, ["rejoin n2 n1 (auto): follows n1 and has not been streamed to for 10 s"]);
    assert_eq!(world.account("n2").state, NodeState::Running);
}

#[test]
fn a_standby_whose_log_does_not_fit_is_told_from_one_whose_replay_is_paused() {
    let mut world = world_with_agents(Async, &["n1", "n2", "n3"]).start();
    // n2 is paused: it receives, and replays nothing. n3 tries what does not fit, again and again.
    for round in 0..100 {
        world.node("n1").seen.lsn.0 += 100;
        world.node("n2").seen.lsn.0 += 100;
        let receiver = Receiver { from: Some(id("n1")), fed_ago: Millis(1), quiet: Millis(2500) };
        world.node("n3").seen.receiver = (round % 4 > 0).then_some(receiver);
        world.node("n3").seen.timeline = Timeline(0);
        world.run(250);
        if world.orders().contains("rejoin n3 n1 (auto): follows n1, loses it again and again and replays nothing") {
            assert!(round > 50);
            return;
        }
    }
    panic!("nothing was ordered");
}

#[test]
fn nobody_touches_a_node_in_maintenance_nor_where_people_rejoin() {
    let mut policy = policy(Async, &["n1", "n2", "n3"]);
    policy.nodes.values_mut().for_each(|node| node.has_agent = true);
    policy.rejoins = false;
    let mut world = world_of(policy).start();
    world.wipe("n2");
    world.wipe("n3");
    world.ask(1, Command::Maintenance { node: id("n3"), on: true });
    world.run(5000);
    assert!(!world.orders().contains("rejoin"));
    let account = world.account("n2");
    let reason = "has no data; `pgbaton rejoin n2` makes it a standby again";
    assert_eq!((account.state, account.reason.as_str()), (NodeState::Down, reason));
    world.answers.clear();
    for (number, node) in [(2, "n1"), (3, "n2"), (4, "n3")] {
        world.ask(number, Command::Rejoin { node: id(node), rebuild: false });
    }
    world.run(1000);
    assert_eq!(world.answers[0], (2, Err("n1 is the primary".into())));
    assert!(world.answers[1].1.is_ok());
    assert_eq!(world.answers[2], (4, Err("n3 is in maintenance".into())));
    assert_eq!(world.account("n2").state, NodeState::Running);
}

#[test]
fn whoever_an_interrupted_order_left_stopped_is_started() {
    let mut world = world_with_agents(Quorum, &["n1", "n2", "n3"]).start();
    world.kill("n3");
    world.agent("n3").server = Server::Stopped;
    world.run(2000);
    assert_script(
        &world.orders(),
        "-- n3 dies
start n3",
    );
}

#[test]
fn a_primary_left_stopped_is_started_rather_than_replaced() {
    let mut world = world_with_agents(Quorum, &["n1", "n2", "n3"]).start();
    world.ask(1, Command::Pause);
    world.run(100);
    world.kill("n1");
    world.agent("n1").server = Server::Stopped;
    let policy = world.brain.policy.clone();
    world.restart(policy);
    world.run_until(5000, |world| world.is_open_on("n1"));
    assert!(world.is_open_on("n1"));
    assert!(world.orders().contains("start n1"));
    assert_eq!(world.stored.as_ref().map(|record| record.epoch), Some(Epoch(1)));
}

#[test]
fn a_standby_is_restarted_by_order_and_the_primary_is_not() {
    let mut world = world_with_agents(Quorum, &["n1", "n2"]).start();
    world.ask(1, Command::Restart { node: id("n1") });
    world.ask(2, Command::Restart { node: id("n2") });
    world.run(1000);
    assert!(world.answers[0].1.as_ref().unwrap_err().contains("switchover"));
    assert_eq!(world.answers[1], (2, Ok("n2 has been restarted".into())));
}

#[test]
fn a_cluster_begins_where_there_is_none() {
    let mut world = world_with_agents(Quorum, &["n1", "n2", "n3"]);
    for name in ["n1", "n2", "n3"] {
        world.wipe(name);
        world.node(name).seen.receiver = None;
    }
    world.agent("n3").silent = Some("connection refused".into());
    begin(&mut world);
    world.run(5000);
    assert!(!world.orders().contains("initialise"), "n3 may have the data");
    let reason = world.brain.picture().reason;
    assert!(reason.contains("n1 has no data; n2 has no data; n3 (its agent does not answer)"), "{reason}");
    world.agent("n3").silent = None;
    world.run(6000);
    let orders = world.orders();
    let kept: Vec<&str> = orders.lines().filter(|line| !line.starts_with("closed")).take(9).collect();
    assert_script(
        &kept.join("\n"),
        r#"
        initialise n1
        store 1 promoting n1, voters none
        promote n1, sync none
        set sync n1, sync none
        write epoch n1
        store 1 stable n1, voters none
        open 1 n1 timeline 1
        note 1 adoption: None to n1
        rejoin n2 n1 (auto): has no data
        "#,
    );
    assert_eq!(world.stored.as_ref().map(|record| record.voters.len()), Some(2));
}

#[test]
fn the_only_primary_there_is_is_started_unless_somebody_may_have_been_promoted() {
    let mut world = world_with_agents(Async, &["n1", "n2"]);
    world.kill_under_agent("n1");
    begin(&mut world);
    world.run(3000);
    assert!(world.orders().contains("\nstart n1"));
    assert!(world.is_open_on("n1"));

    // The agents know of epochs, and the store does not: people have to say.
    let mut world = world_with_agents(Async, &["n1", "n2"]);
    world.kill_under_agent("n1");
    world.agent("n1").epoch = Epoch(3);
    world.agent("n2").epoch = Epoch(4);
    begin(&mut world);
    world.run(3000);
    assert!(!world.orders().contains("\nstart"));
    let reason = world.brain.picture().reason;
    assert!(reason.ends_with("by these it is n1: `pgbaton restart n1`"), "{reason}");
    assert!(reason.contains("n1 has a primary's data (system 7, timeline 1, checkpoint 0/3E8, epoch 3)"), "{reason}");
    world.ask(1, Command::Restart { node: id("n2") });
    world.ask(2, Command::Restart { node: id("n1") });
    world.run(3000);
    assert!(world.answers[0].1.is_err());
    assert_eq!(world.answers[1], (2, Ok("n1 runs, and is taken for the primary".into())));
    assert!(world.is_open_on("n1"));
}

#[test]
fn data_that_is_no_data_is_told_to_the_agent_to_deal_with() {
    let mut world = world_with_agents(Async, &["n1", "n2"]).start();
    world.wipe("n2");
    world.agent("n2").data = Some(Data::Unusable { reason: "a copy that was not finished".into() });
    world.run(1000);
    assert!(world.orders().contains("rejoin n2 n1 (auto): has no usable data: a copy that was not finished"));
}
