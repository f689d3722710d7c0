//! Bugs of the brain that seeds have found, told again by hand. A seed finds a bug in one version of brain and world only; a
//! story keeps finding it.

use pgbaton::types::Durability;

use crate::faults::{Fault, Order, Plan, Profile, Script};
use crate::run::run_plan;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// Tells the story with the delays of some seeds.
fn ends_well(durability: Durability, faults: &[(u64, Fault)], calm: u64) {
    for seed in 0..30 {
        let script = Script { nodes: 3, faults: faults.to_vec(), calm };
        let plan = Plan {
            profile: Profile::Everything,
            durability: Some(durability),
            has_agents: false,
            has_people: false,
            script: Some(script),
        };
        let outcome = run_plan(seed, plan, None, true);
        assert!(outcome.verdict.is_none(), "{}\n{}\n{faults:?}", outcome.told(60), outcome.summary());
    }
}

/// c is promoted by hand and has nothing of what b acknowledges from then on. When a dies, b alone is not enough to tell that
/// it has everything; c was taken instead, because it was a primary already.
#[test]
fn a_standby_promoted_by_hand_is_not_adopted_in_quorum() {
    for offset in (0..300).step_by(30) {
        let promote = Fault::PromoteByHand { node: C };
        // It dies before it is seen, and comes back as it is.
        let faults = [(1000, promote), (1130, Fault::Kill { node: C }), (1200 + offset, Fault::Gone { node: A })];
        ends_well(Durability::Quorum, &faults, 6000);
    }
}

/// An order that is to be stored comes while the candidate of a failover settles: when it had settled, a second record was to be
/// stored while the first was under way.
#[test]
fn an_order_while_the_candidate_settles_waits_for_its_turn() {
    for offset in (0..120).step_by(4) {
        let failover = Fault::Order(Order::Failover { to: B, allow_data_loss: false });
        let maintenance = Fault::Order(Order::Maintenance { node: C, on: true });
        let faults = [(900, Fault::Slow), (1500, failover), (1500 + offset * 10, maintenance)];
        ends_well(Durability::Async, &faults, 3000);
    }
}

/// The new primary takes too long to be promoted; the next epoch takes it all the same. Who followed it meanwhile is on its
/// timeline, knows no row of the new epoch, and was said to need a rebuild.
#[test]
fn who_followed_a_candidate_that_failed_once_follows_it_again() {
    for offset in (0..400).step_by(20) {
        let cut = Fault::Isolate { node: B, from_all: false };
        let faults = [(1000, Fault::Gone { node: A }), (1100 + offset, cut), (1300 + offset, Fault::Kill { node: C })];
        ends_well(Durability::Quorum, &faults, 6000);
    }
}

/// An order that may lose something, whose candidate is behind and dies before it is promoted: it was refused, and yet what that
/// one had was all that the next one had to have, which was the same one again.
#[test]
fn an_order_with_loss_whose_candidate_dies_loses_nothing() {
    for offset in (0..240).step_by(20) {
        let cut = Fault::OneWay { from: A, to: B };
        let failover = Fault::Order(Order::Failover { to: B, allow_data_loss: true });
        let kill = |node| Fault::Kill { node };
        let faults = [(1200, cut), (1480, kill(C)), (1500, failover), (1500 + offset, kill(B))];
        ends_well(Durability::Quorum, &faults, 6000);
    }
}

/// What was on its way when the primary died has reached one standby and not the other, and the one that has it dies as well.
#[test]
fn a_candidate_that_dies_while_it_is_promoted_does_not_hold_the_next_one_up() {
    for offset in (0..600).step_by(40) {
        let faults = [(1000, Fault::Slow), (1500, Fault::Kill { node: A }), (1700 + offset, Fault::Kill { node: C })];
        ends_well(Durability::Quorum, &faults, 6000);
    }
}
