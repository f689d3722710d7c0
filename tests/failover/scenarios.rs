//! The faults, one function each. What has to hold in all of them is in [`Stage::judge`]; what has to hold in one of them is
//! said there.

use std::time::{Duration, Instant};

use pgbaton::demo::Shutdown;

use crate::faults;
use crate::network::Network;
use crate::stage::{Durability, LIMIT, Plan, Stage};
use crate::support::wait_until;
use crate::wire::Rng;

use Durability::{Async, Quorum};

/// Runs a scenario as often as wanted, with the machine to itself.
fn play(plan: Plan, scenario: fn(Stage)) {
    let _turn = crate::turn();
    for _ in 0..crate::table::runs() {
        scenario(Stage::set(plan));
    }
}

/// The same for one that needs cables to cut.
fn play_with_cuts(plan: Plan, scenario: fn(Stage)) {
    if let Err(reason) = Network::new(&[]) {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "skipped: {}, {}: {reason}", plan.fault, plan.durability.name());
        return;
    }
    play(plan, scenario);
}

fn plan(fault: &'static str, durability: Durability) -> Plan {
    Plan { fault, durability, replicas: 2, failover: "" }
}

// --- the primary dies ------------------------------------------------------------------------------------------------

fn the_primary_is_killed(mut stage: Stage) {
    let old = stage.kill_primary();
    stage.wait_for_writes();
    let record = stage.record();
    assert!(record.epoch > stage.first.epoch && record.primary != old, "{record:?}");
    stage.live_on();
    stage.judge(false);
}

#[test]
fn primary_killed_quorum() {
    play(plan("kill -9 of the primary", Quorum), the_primary_is_killed);
}

#[test]
fn primary_killed_async() {
    play(plan("kill -9 of the primary", Async), the_primary_is_killed);
}

/// It comes back by itself and as a primary, as nobody is there to stop it; it must not be believed.
fn the_postmaster_is_killed_and_the_node_returns(mut stage: Stage) {
    let old = stage.record().primary;
    faults::kill_postmaster(stage.node(&old));
    stage.note_fault();
    stage.wait_for_writes();
    stage.node(&old).start().unwrap();
    stage.watch_zombie(&old);
    assert_ne!(stage.record().primary, old);
    stage.live_on();
    stage.judge(false);
}

#[test]
fn postmaster_killed_and_back_quorum() {
    play(plan("kill -9 of the postmaster, back later", Quorum), the_postmaster_is_killed_and_the_node_returns);
}

#[test]
fn postmaster_killed_and_back_async() {
    play(plan("kill -9 of the postmaster, back later", Async), the_postmaster_is_killed_and_the_node_returns);
}

/// Faster than anybody can notice, or not: either it goes on, or it has been replaced and is out.
fn the_primary_crashes_and_restarts_at_once(mut stage: Stage) {
    let old = stage.kill_primary();
    stage.node(&old).start().unwrap();
    stage.wait_for_writes();
    if stage.record().primary != old {
        stage.watch_zombie(&old);
    }
    stage.live_on();
    stage.judge(false);
}

#[test]
fn primary_restarts_at_once_quorum() {
    play(plan("crash and restart at once", Quorum), the_primary_crashes_and_restarts_at_once);
}

#[test]
fn primary_restarts_at_once_async() {
    play(plan("crash and restart at once", Async), the_primary_crashes_and_restarts_at_once);
}

/// All its backends end with it; the port stays open, and says 57P03 for a while.
fn a_backend_is_killed(mut stage: Stage) {
    let old = stage.record().primary;
    faults::kill_a_backend(stage.node(&old));
    stage.note_fault();
    stage.wait_for_writes();
    stage.live_on();
    stage.judge(false);
}

#[test]
fn backend_killed_quorum() {
    play(plan("kill -9 of one backend", Quorum), a_backend_is_killed);
}

/// What waits for an acknowledgement when the primary crashes is there when it is back, and nobody else has it. Whatever
/// becomes of it, nobody may have been told that it is safe.
fn it_restarts_while_commits_wait(mut stage: Stage) {
    let old = stage.record().primary;
    stage.network().cut_one_way(&old, "n2");
    stage.network().cut_one_way(&old, "n3");
    let waiting = "SELECT count(*) > 3 FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_until(LIMIT, "commits wait", || stage.node(&old).sql(waiting).is_ok_and(|answer| answer == "t"));
    stage.kill_primary();
    stage.node(&old).start().unwrap();
    stage.wait_for_writes();
    stage.network().heal();
    if stage.record().primary != old {
        stage.watch_zombie(&old);
    }
    stage.live_on();
    stage.judge(false);
}

#[test]
fn restart_while_commits_wait_quorum() {
    play_with_cuts(plan("crash and restart while commits wait", Quorum), it_restarts_while_commits_wait);
}

/// No goodbye, not even from the kernel: as when the power is cut.
fn the_host_is_gone(mut stage: Stage) {
    let old = stage.record().primary;
    stage.network().isolate(&old);
    stage.kill_primary();
    stage.wait_for_writes();
    assert_ne!(stage.record().primary, old);
    stage.live_on();
    stage.judge(false);
}

#[test]
#[ignore = "as SIGSTOP and as a partition, which are always run"]
fn host_gone_quorum() {
    play_with_cuts(plan("the primary's host is gone", Quorum), the_host_is_gone);
}

/// One node after the other, the primary last, each stopped as an operator stops it.
fn all_nodes_are_restarted(mut stage: Stage) {
    stage.note_fault();
    for id in ["n2", "n3", "n1"] {
        stage.node(id).restart(Shutdown::Fast).unwrap();
        stage.wait_for_writes();
        if stage.record().primary == "n1" {
            stage.wait_until_ready();
        }
    }
    stage.watch_zombie("n1");
    stage.live_on();
    stage.judge(false);
}

#[test]
#[ignore = "the restart of the primary is as a crash and restart, which is always run"]
fn rolling_restart_quorum() {
    play(plan("rolling restart of all nodes", Quorum), all_nodes_are_restarted);
}

// --- the primary stands still, or cannot be reached ------------------------------------------------------------------

fn the_primary_freezes_for(mut stage: Stage, time: Duration) {
    let old = stage.record().primary;
    let began = Instant::now();
    stage.freeze(&old);
    stage.note_fault();
    stage.wait_for_writes();
    assert_ne!(stage.record().primary, old);
    std::thread::sleep(time.saturating_sub(began.elapsed()));
    stage.thaw();
    stage.watch_zombie(&old);
    assert_ne!(stage.record().primary, old);
    stage.live_on();
    stage.judge(false);
}

#[test]
fn primary_frozen_quorum() {
    play(plan("SIGSTOP of the primary, SIGCONT 30 s later", Quorum), |stage| {
        the_primary_freezes_for(stage, Duration::from_secs(30));
    });
}

#[test]
fn primary_frozen_async() {
    play(plan("SIGSTOP of the primary, SIGCONT 10 s later", Async), |stage| {
        the_primary_freezes_for(stage, Duration::from_secs(10));
    });
}

/// It lives on in its corner, and takes itself for the primary when it is back.
fn the_primary_is_cut_off(mut stage: Stage) {
    let old = stage.record().primary;
    stage.network().isolate(&old);
    stage.note_fault();
    stage.wait_for_writes();
    assert_ne!(stage.record().primary, old);
    stage.watch_zombie(&old);
    stage.network().heal();
    stage.watch_zombie(&old);
    assert_ne!(stage.record().primary, old);
    stage.live_on();
    stage.judge(false);
}

#[test]
fn primary_partitioned_quorum() {
    play_with_cuts(plan("primary cut off from everybody", Quorum), the_primary_is_cut_off);
}

#[test]
fn primary_partitioned_async() {
    play_with_cuts(plan("primary cut off from everybody", Async), the_primary_is_cut_off);
}

/// The cable is whole again while the next primary is being made.
fn the_partition_heals_in_the_middle(mut stage: Stage) {
    let old = stage.record().primary;
    stage.network().isolate(&old);
    stage.note_fault();
    wait_until(LIMIT, "a failover has begun", || stage.record().epoch > stage.first.epoch);
    stage.network().heal();
    stage.wait_for_writes();
    stage.watch_zombie(&old);
    stage.live_on();
    stage.judge(false);
}

#[test]
fn partition_heals_in_the_middle_quorum() {
    play_with_cuts(plan("partition that heals during the failover", Quorum), the_partition_heals_in_the_middle);
}

/// Replicas still receive from it, so it lives: nothing happens before the veto has ended.
fn only_the_proxy_is_cut_off(mut stage: Stage) {
    let old = stage.record().primary;
    let before = Instant::now();
    stage.network().cut(&old, "proxy");
    stage.note_fault();
    wait_until(LIMIT, "a failover has begun", || stage.record().epoch > stage.first.epoch);
    let waited = before.elapsed();
    assert!(waited >= Duration::from_secs(6), "no failover before the veto ends, but after {waited:?}");
    stage.wait_for_writes();
    stage.watch_zombie(&old);
    stage.network().heal();
    stage.watch_zombie(&old);
    assert_ne!(stage.record().primary, old);
    stage.live_on();
    stage.judge(false);
}

#[test]
fn proxy_partitioned_quorum() {
    let plan = plan("primary cut off from the proxy only", Quorum);
    play_with_cuts(Plan { failover: "veto = \"6s\"", ..plan }, only_the_proxy_is_cut_off);
}

/// A cut that ends before the veto does: nothing may come of it.
fn the_proxy_is_cut_off_for_a_while(mut stage: Stage) {
    let old = stage.record().primary;
    stage.network().cut(&old, "proxy");
    stage.note_fault();
    std::thread::sleep(Duration::from_secs(4));
    stage.network().heal();
    stage.wait_for_writes();
    let record = stage.record();
    assert_eq!((record.epoch, &record.primary), (stage.first.epoch, &old), "no failover");
    stage.live_on();
    stage.judge(false);
}

#[test]
fn proxy_partitioned_shortly_quorum() {
    let plan = plan("primary cut off from the proxy for 4 s", Quorum);
    play_with_cuts(Plan { failover: "veto = \"20s\"", ..plan }, the_proxy_is_cut_off_for_a_while);
}

/// What the primary says does not arrive at the proxy; what the proxy says does.
fn answers_get_lost(mut stage: Stage) {
    let old = stage.record().primary;
    for other in ["proxy", "n2", "n3"] {
        stage.network().cut_one_way(&old, other);
    }
    stage.note_fault();
    stage.wait_for_writes();
    stage.watch_zombie(&old);
    stage.network().heal();
    stage.watch_zombie(&old);
    assert_ne!(stage.record().primary, old);
    stage.live_on();
    stage.judge(false);
}

#[test]
fn one_way_loss_quorum() {
    play_with_cuts(plan("nothing the primary sends arrives", Quorum), answers_get_lost);
}

/// It is reached, and nobody confirms what it writes, until that is no longer asked for.
fn the_standbys_are_cut_off(mut stage: Stage) {
    let old = stage.record().primary;
    stage.network().cut(&old, "n2");
    stage.network().cut(&old, "n3");
    stage.note_fault();
    stage.wait_for_writes();
    stage.network().heal();
    stage.wait_until_ready();
    stage.live_on();
    stage.judge(false);
}

#[test]
fn standbys_partitioned_quorum() {
    play_with_cuts(plan("primary cut off from its standbys only", Quorum), the_standbys_are_cut_off);
}

// --- something else breaks in the middle -----------------------------------------------------------------------------

/// The chosen one dies as soon as it is chosen. The other one is taken, if it has everything; else the chosen one has to
/// come back.
fn the_candidate_is_killed(mut stage: Stage) {
    stage.kill_primary();
    let mut candidate = String::new();
    let limit = Instant::now() + LIMIT;
    while candidate.is_empty() {
        assert!(Instant::now() < limit, "nobody is promoted: {:?}", stage.record());
        let record = stage.record();
        assert!(record.phase != "stable" || record.epoch == stage.first.epoch, "too fast to be seen: {record:?}");
        if record.phase == "promoting" {
            candidate = record.primary;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    faults::kill(stage.node(&candidate));
    // Which of the two it is depends on what the other had received; that neither is lost does not.
    let soon = Instant::now() + Duration::from_secs(8);
    let fault = stage.now();
    while !stage.has_written_since(fault) && Instant::now() < soon {
        std::thread::sleep(Duration::from_millis(10));
    }
    if !stage.has_written_since(fault) {
        stage.node(&candidate).start().unwrap();
    }
    stage.wait_for_writes();
    stage.live_on();
    stage.judge(false);
}

#[test]
fn candidate_killed_quorum() {
    play(plan("candidate killed during its promotion", Quorum), the_candidate_is_killed);
}

#[test]
fn candidate_killed_async() {
    play(plan("candidate killed during its promotion", Async), the_candidate_is_killed);
}

fn one_primary_after_the_other(mut stage: Stage) {
    let first = stage.kill_primary();
    stage.wait_for_writes();
    stage.live_on();
    let second = stage.kill_primary();
    stage.wait_for_writes();
    let third = stage.record().primary;
    assert!(third != first && third != second);
    stage.live_on();
    stage.judge(false);
}

#[test]
fn two_failovers_quorum() {
    play(plan("two failovers within ten seconds", Quorum), one_primary_after_the_other);
}

#[test]
fn two_failovers_async() {
    play(plan("two failovers within ten seconds", Async), one_primary_after_the_other);
}

/// Until a failover after `epoch` has come to a phase, or is over.
fn wait_for_phase(stage: &Stage, epoch: u64, phase: &str) {
    let limit = Instant::now() + LIMIT;
    loop {
        let now = stage.record();
        if now.epoch > epoch && (now.phase == phase || now.phase == "stable") {
            return;
        }
        assert!(Instant::now() < limit, "{phase} is not reached: {now:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Its clients lose their connections; what they were told before has to stay true.
fn pgbaton_is_killed_in_each_phase(mut stage: Stage) {
    let mut random = Rng(crate::wire::seed("moments to kill pgbaton at"));
    let phases = ["recruiting", "promoting", "stable", "", ""];
    for phase in phases {
        let before = stage.record();
        let old = stage.kill_primary();
        match phase {
            // At any moment: before it is noticed, at any step, or when all is over.
            "" => std::thread::sleep(Duration::from_millis(random.next() % 600)),
            phase => wait_for_phase(&stage, before.epoch, phase),
        }
        stage.baton.kill();
        stage.baton.restart();
        stage.wait_for_writes();
        let record = stage.record();
        assert!(record.epoch > before.epoch && record.primary != old, "{record:?} after {before:?}");
        stage.cluster.rebuild(&old).unwrap();
        stage.cluster.wait_for_replicas().unwrap();
        stage.wait_until_ready();
    }
    stage.live_on();
    stage.judge(true);
}

#[test]
fn pgbaton_killed_quorum() {
    play(plan("pgbaton killed in each phase, restarted", Quorum), pgbaton_is_killed_in_each_phase);
}

#[test]
fn pgbaton_killed_async() {
    play(plan("pgbaton killed in each phase, restarted", Async), pgbaton_is_killed_in_each_phase);
}

/// Whoever starts then has seen nothing of the standby that is left: not that it had followed the last change of timeline.
fn pgbaton_and_the_primary_die_together(mut stage: Stage) {
    stage.kill_primary();
    stage.wait_for_writes();
    stage.wait_until_ready();
    stage.live_on();
    let before = stage.record();
    stage.baton.kill();
    stage.kill_primary();
    stage.baton.restart();
    stage.wait_for_writes();
    let record = stage.record();
    assert!(record.epoch > before.epoch && record.primary != before.primary, "{record:?} after {before:?}");
    stage.live_on();
    stage.judge(true);
}

#[test]
fn pgbaton_and_primary_killed_quorum() {
    play(plan("pgbaton killed with the second primary", Quorum), pgbaton_and_the_primary_die_together);
}

/// It stands still in the middle of a failover, and goes on as if nothing had been.
fn pgbaton_freezes_in(mut stage: Stage, phase: &str) {
    let old = stage.kill_primary();
    wait_for_phase(&stage, stage.first.epoch, phase);
    stage.baton.freeze();
    std::thread::sleep(Duration::from_secs(5));
    stage.baton.thaw();
    stage.wait_for_writes();
    assert_ne!(stage.record().primary, old);
    stage.live_on();
    stage.judge(false);
}

#[test]
#[ignore = "pgbaton is killed in each phase, which is always run"]
fn pgbaton_frozen_recruiting_quorum() {
    play(plan("pgbaton frozen for 5 s: recruiting", Quorum), |stage| pgbaton_freezes_in(stage, "recruiting"));
}

#[test]
#[ignore = "pgbaton is killed in each phase, which is always run"]
fn pgbaton_frozen_promoting_quorum() {
    play(plan("pgbaton frozen for 5 s: promoting", Quorum), |stage| pgbaton_freezes_in(stage, "promoting"));
}

// --- replicas --------------------------------------------------------------------------------------------------------

fn a_replica_is_killed(mut stage: Stage) {
    faults::kill(stage.node("n2"));
    stage.note_fault();
    stage.live_on();
    stage.wait_for_reads();
    stage.node("n2").start().unwrap();
    stage.wait_until_ready();
    assert_eq!(stage.record().primary, "n1");
    stage.live_on();
    stage.judge(false);
}

#[test]
fn replica_killed_quorum() {
    play(plan("one replica killed", Quorum), a_replica_is_killed);
}

fn all_replicas_are_killed(mut stage: Stage) {
    for id in ["n2", "n3"] {
        faults::kill(stage.node(id));
    }
    stage.note_fault();
    stage.wait_for_writes();
    stage.wait_for_reads();
    stage.live_on();
    assert_eq!(stage.record().primary, "n1");
    for id in ["n2", "n3"] {
        stage.node(id).start().unwrap();
    }
    stage.wait_until_ready();
    stage.live_on();
    stage.judge(false);
}

#[test]
fn all_replicas_killed_quorum() {
    play(plan("all replicas killed", Quorum), all_replicas_are_killed);
}

#[test]
fn all_replicas_killed_async() {
    play(plan("all replicas killed", Async), all_replicas_are_killed);
}

/// Its connections stay open, and nothing comes from them.
fn a_replica_freezes(mut stage: Stage) {
    stage.freeze("n2");
    stage.note_fault();
    stage.wait_for_writes();
    stage.wait_for_reads();
    stage.live_on();
    stage.wait_for_reads();
    stage.thaw();
    stage.wait_until_ready();
    assert_eq!(stage.record().primary, "n1");
    stage.live_on();
    stage.judge(false);
}

#[test]
fn replica_frozen_quorum() {
    play(plan("one replica frozen", Quorum), a_replica_freezes);
}
