//! A planned change of primary: refused, carried out, called off, undone, and turned into a failover.

use super::ground::*;
use crate::cluster::*;
use crate::types::Durability::{Async, Quorum};
use crate::types::{Durability, Epoch, Lsn};

fn with_agents(durability: Durability, names: &[&str]) -> World {
    let mut policy = policy(durability, names);
    policy.nodes.values_mut().for_each(|node| node.has_agent = true);
    world_of(policy).start()
}

fn to(name: &str) -> Command {
    Command::Switchover { to: Some(id(name)) }
}

impl World {
    /// Until the order is answered.
    #[track_caller]
    fn until_answered(&mut self) -> Result<String, String> {
        assert!(self.run_until(30_000, |world| !world.answers.is_empty()), "no answer:\n{}", self.everything());
        self.answers.remove(0).1
    }

    fn epoch(&self) -> Epoch {
        self.stored.as_ref().map(|record| record.epoch).unwrap_or_default()
    }
}

#[test]
fn the_primary_is_stopped_and_the_next_one_has_everything() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    world.ask(1, to("n3"));
    world.until_answered().unwrap();
    world.run(100);
    assert_script(
        &world.orders(),
        r#"
        -- asked: Switchover { to: Some(n3) }
        checkpoint n1
        draining 1: switchover from n1 to n3, asked for by an operator
        drain sessions
        closed 2: switchover from n1 to n3, asked for by an operator
        store 2 recruiting n1, voters any 1 of n2,n3
        stop n1 fast
        settle n3
        follow n2 n3
        store 2 promoting n3, voters any 1 of n2
        promote n3, sync any 1 of n2
        follow n2 n3
        write epoch n3
        store 2 stable n3, voters any 1 of n2
        open 2 n3 timeline 2
        checkpoint n3
        answer 1: Ok("n3 takes writes in epoch 2")
        note 2 switchover: Some(n1) to n3
        rejoin n1 n3 (auto): is a primary of the past (timeline 1); n3 is that of epoch 2
        note auto of n1
        "#,
    );
    let note = world.last_note();
    assert!(note.is_ordered());
    let phases: Vec<&str> = note.phases.iter().map(|(name, _)| &**name).collect();
    assert_eq!(phases, ["checkpoint", "drain", "stop", "recruit", "settle", "promote", "follow", "open"]);
}

#[test]
fn without_an_agent_it_is_fenced_and_left_so() {
    let mut world = world(Async, &["n1", "n2", "n3"]).start();
    world.ask(1, Command::Switchover { to: None });
    world.until_answered().unwrap();
    world.run(3000);
    assert_script(
        &world.orders(),
        r#"
        -- asked: Switchover { to: None }
        checkpoint n1
        draining 1: switchover from n1 to n2, the best of those there are (n3 comes after it by priority, zone or name)
        drain sessions
        closed 2: switchover from n1 to n2, the best of those there are (n3 comes after it by priority, zone or name)
        store 2 recruiting n1, voters none
        fence n1
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
        answer 1: Ok("n2 takes writes in epoch 2")
        note 2 switchover: Some(n1) to n2
        "#,
    );
    assert_eq!(world.brain.picture().nodes[&id("n1")].state, NodeState::Fenced);
}

/// As after `rebuild --wait`: the standby has been seen to receive, and the primary not yet to send.
#[test]
fn a_standby_that_has_just_come_back_is_looked_at_again() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.run(3000);
    world.look_before_it_streamed("n1", "n2");
    world.ask(1, Command::Switchover { to: Some(id("n2")) });
    assert_eq!(world.until_answered(), Ok("n2 takes writes in epoch 2".into()));
}

#[test]
fn what_speaks_against_it_is_said_before_anything_is_touched() {
    let refusal = |prepare: &dyn Fn(&mut World), command: Command| {
        let mut policy = policy(Quorum, &["n1", "n2", "n3", "n4"]);
        policy.nodes.get_mut(&id("n4")).unwrap().priority = 0;
        let mut world = world_of(policy).start();
        prepare(&mut world);
        world.run(300);
        world.answers.clear();
        let (epoch, _) = (world.epoch(), world.orders());
        world.ask(9, command);
        let reason = world.until_answered().unwrap_err();
        let script = world.orders();
        let touched = script.lines().filter(|line| !line.starts_with("--") && !line.starts_with("answer"));
        assert_eq!(touched.collect::<Vec<_>>(), Vec::<&str>::new(), "{reason}");
        assert!(world.epoch() == epoch && world.is_open_on("n1"));
        reason
    };
    let none = |_: &mut World| {};
    assert_eq!(refusal(&none, to("n9")), "n9 is not in the configuration");
    assert_eq!(refusal(&none, to("n1")), "n1 is the primary already");
    assert_eq!(refusal(&none, to("n4")), "n4 has priority 0 and is never promoted");
    let pause = |world: &mut World| world.ask(1, Command::Pause);
    assert_eq!(refusal(&pause, to("n2")), "paused: no change of primary until resumed");
    let maintain = |world: &mut World| world.ask(1, Command::Maintenance { node: id("n2"), on: true });
    assert_eq!(refusal(&maintain, to("n2")), "n2 is in maintenance");
    let kill = |world: &mut World| world.kill("n2");
    assert_eq!(refusal(&kill, to("n2")), "n2 does not answer: connection refused");
    let lag = |world: &mut World| {
        let seen = &mut world.node("n2").seen;
        seen.replayed = Lsn(0);
        seen.lsn = Lsn(20 << 20);
    };
    assert_eq!(refusal(&lag, to("n2")), "n2 has 20971520 bytes still to replay, of which 16777216 would do");
    let behind = |world: &mut World| world.node("n1").seen.lsn = Lsn(1 << 30);
    assert!(refusal(&behind, to("n2")).contains("bytes behind n1"));
    let unlinked = |world: &mut World| {
        world.node("n2").refuses.insert("follow");
        let seen = &mut world.node("n2").seen;
        (seen.receiver, seen.follows) = (None, Some(id("n3")));
    };
    assert_eq!(refusal(&unlinked, to("n2")), "n2 does not receive from n1");
    let older = |world: &mut World| world.node("n2").seen.timeline.0 = 0;
    assert_eq!(refusal(&older, to("n2")), "n2 is on timeline 0, not 1");
    let all = |world: &mut World| {
        for name in ["n2", "n3"] {
            world.kill(name);
        }
    };
    let reason = refusal(&all, Command::Switchover { to: None });
    assert!(reason.starts_with("no standby can take over: n2 does not answer"), "{reason}");
}

#[test]
fn two_at_once_are_one_too_many() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    world.ask(1, to("n3"));
    world.ask(2, to("n2"));
    assert_eq!(world.until_answered().unwrap_err(), "another change of primary is under way");
    world.ask(3, Command::Failover { to: id("n2"), allow_data_loss: false });
    assert_eq!(world.until_answered().unwrap_err(), "another change of primary is under way");
    world.until_answered().unwrap();
    assert!(world.is_open_on("n3"));
}

#[test]
fn one_that_falls_behind_during_the_checkpoint_is_called_off_before_anybody_waits() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    world.node("n1").stuck.insert("checkpoint");
    world.ask(1, to("n3"));
    world.run(1000);
    world.node("n3").seen.replayed = Lsn(0);
    world.node("n3").seen.lsn = Lsn(20 << 20);
    world.node("n1").stuck.clear();
    assert!(world.until_answered().unwrap_err().contains("still to replay"));
    assert!(!world.orders().contains("draining") && world.is_open_on("n1") && world.epoch() == Epoch(1));
}

#[test]
fn a_checkpoint_that_takes_too_long_means_a_stop_that_does() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    world.node("n1").stuck.insert("checkpoint");
    world.ask(1, to("n3"));
    assert!(world.until_answered().unwrap_err().contains("takes long"));
    assert!(world.is_open_on("n1") && world.epoch() == Epoch(1));
}

#[test]
fn one_that_may_not_be_made_is_done_without() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    world.node("n1").refuses.insert("checkpoint");
    world.ask(1, to("n3"));
    world.until_answered().unwrap();
    assert!(world.everything().contains("no checkpoint on n1: it will not"));
}

#[test]
fn what_has_not_ended_in_time_is_rolled_back() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    world.undrained = 2;
    world.ask(1, to("n3"));
    world.until_answered().unwrap();
    assert!(world.everything().contains("2 transactions have not ended within 1000 ms and are rolled back"));
}

#[test]
fn a_drain_without_an_end_is_called_off_and_nobody_has_noticed() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    world.drain_hangs = true;
    world.ask(1, to("n3"));
    assert!(world.until_answered().unwrap_err().contains("while it drains"));
    world.run(10);
    assert_script(
        &world.orders(),
        r#"
        -- asked: Switchover { to: Some(n3) }
        checkpoint n1
        draining 1: switchover from n1 to n3, asked for by an operator
        drain sessions
        forget drain sessions
        answer 1: Err("n1 does not answer as it should while it drains")
        open 1 n1 timeline 1
        "#,
    );
}

#[test]
fn the_primary_dies_while_it_drains() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    world.drain_hangs = true;
    world.ask(1, to("n3"));
    world.run_until(2000, |world| matches!(world.brain.lead, Some(Lead::Draining { .. })));
    world.kill("n1");
    assert!(world.until_answered().unwrap_err().contains("n1 is down: connection refused"));
    assert!(world.run_until(2000, |world| world.is_open_on("n2")));
    assert_eq!(world.last_note().kind, "failover");
    assert_eq!(world.epoch(), Epoch(2));
}

#[test]
fn the_next_primary_dies_after_the_stop_and_the_old_one_is_taken_back() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    world.node("n3").stuck.insert("recruit");
    world.ask(1, to("n3"));
    world.run_until(2000, |world| world.nodes[&id("n1")].life == Life::Refuses);
    world.freeze("n3");
    let reason = world.until_answered().unwrap_err();
    assert!(
        reason.starts_with("the switchover to n3 is undone: 1 of the 2 voters needed could be recruited"),
        "{reason}"
    );
    assert!(reason.ends_with("n1 takes writes in epoch 2"), "{reason}");
    assert!(world.is_open_on("n1"));
    let script = world.orders();
    assert!(script.contains("start n1") && !script.contains("promoting n2"), "{script}");
    assert_eq!((&*world.last_note().kind, &world.last_note().to), ("switchover", &id("n1")));
}

#[test]
fn a_fenced_primary_is_freed_when_its_log_does_not_arrive() {
    let mut world = world(Quorum, &["n1", "n2", "n3"]).start();
    world.ask(1, to("n3"));
    world.run_until(2000, |world| matches!(world.brain.lead, Some(Lead::Closed { .. })));
    world.node("n1").seen.lsn.0 += 0x100;
    let reason = world.until_answered().unwrap_err();
    assert!(reason.starts_with("the switchover to n3 is undone: n3 has not received what n1 wrote"), "{reason}");
    world.run(2000);
    assert!(world.is_open_on("n1") && !world.nodes[&id("n1")].seen.is_fenced);
}

#[test]
fn one_that_cannot_be_stopped_goes_on() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    world.node("n1").refuses.insert("stop");
    world.ask(1, to("n3"));
    let reason = world.until_answered().unwrap_err();
    assert!(reason.starts_with("the switchover to n3 is undone: n1 could not be stopped: it will not"), "{reason}");
    assert!(world.is_open_on("n1"));
}

#[test]
fn a_stop_without_an_end_is_made_short_and_undone() {
    for durability in [Quorum, Async] {
        let mut world = with_agents(durability, &["n1", "n2", "n3"]);
        world.node("n1").stuck.insert("stop fast");
        world.ask(1, to("n3"));
        assert!(world.until_answered().unwrap_err().contains("n1 was not stopped within 5000 ms"));
        assert!(world.is_open_on("n1"));
        assert!(world.orders().contains("stop n1 fast\nforget stop n1\nstop n1 immediate\nstart n1"));
    }
}

#[test]
fn a_primary_that_was_dead_before_it_was_stopped_is_failed_over() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    world.node("n1").crashed = true;
    world.ask(1, to("n3"));
    let reason = world.until_answered().unwrap_err();
    assert!(
        reason.starts_with("n1 was not there any more to be stopped cleanly; it goes on as a failover"),
        "{reason}"
    );
    assert!(reason.ends_with("n2 takes writes in epoch 2"), "{reason}");
}

#[test]
fn an_old_primary_that_does_not_come_back_leaves_it_to_a_failover() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    world.node("n3").refuses.insert("settle");
    world.node("n1").refuses.insert("start");
    world.ask(1, to("n3"));
    let reason = world.until_answered().unwrap_err();
    assert!(reason.contains("n3 it will not") && reason.ends_with("n2 takes writes in epoch 2"), "{reason}");
    assert!(world.is_open_on("n2"));
}

#[test]
fn the_new_primary_dies_while_it_is_promoted() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    world.node("n3").stuck.insert("promote");
    world.ask(1, to("n3"));
    world.run_until(2000, |world| world.stored.as_ref().is_some_and(|record| record.phase == Phase::Promoting));
    world.kill("n3");
    assert!(world.until_answered().unwrap_err().contains("n3 failed while it was promoted"));
    assert!(world.run_until(5000, |world| world.is_open_on("n2")));
    assert_eq!(world.epoch(), Epoch(3));
}

#[test]
fn pgbaton_dies_at_each_point_and_goes_on_as_a_failover() {
    for ms in (0..120).step_by(2) {
        let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
        let policy = world.brain.policy.clone();
        world.ask(1, to("n3"));
        world.run(ms);
        world.restart(policy);
        let is_open = |world: &World| ["n1", "n2", "n3"].iter().any(|name| world.is_open_on(name));
        assert!(world.run_until(20_000, is_open), "after {ms} ms:\n{}", world.everything());
    }
}

#[test]
fn ten_in_a_row_are_no_flapping() {
    let mut world = with_agents(Quorum, &["n1", "n2", "n3"]);
    for round in 0..10 {
        let name = ["n2", "n3"][round % 2];
        world.ask(round as u64, to(name));
        world.until_answered().unwrap();
        assert!(world.is_open_on(name));
        // What the old one's agent would do.
        let follows = Some(id(name));
        for other in ["n1", "n2", "n3"].into_iter().filter(|other| *other != name) {
            let (lead, it) = (world.nodes[&id(name)].seen.clone(), world.node(other));
            it.life = Life::Runs;
            let receiver =
                Receiver { from: follows.clone(), fed_ago: crate::types::Millis(1), quiet: crate::types::Millis(2500) };
            (it.seen.is_in_recovery, it.seen.receiver, it.seen.follows) = (true, Some(receiver), follows.clone());
            (it.seen.timeline, it.seen.lsn, it.seen.replayed) = (lead.timeline, lead.lsn, lead.lsn);
            it.seen.last_epoch = lead.last_epoch;
        }
        world.run(6000);
    }
    world.kill("n3");
    assert!(world.run_until(1000, |world| !world.is_open_on("n3")), "a crash is replaced at once");
}
