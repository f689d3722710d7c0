//! Bugs planted between the brain and the world, each of which some seed must find by the invariant that is there for it.
//!
//! Many are what others got wrong (`Plant` says which): promoting by index, renewing a zombie's lease, going by a stale store,
//! one recruit too few. A search ends at the first seed that finds the bug, and fails if none of so many does; the seeds printed
//! are good for one version of brain and world only.

use pgbaton::types::Durability;

use crate::faults::{Fault, Plan, Profile, Script};
use crate::plants::Plant;
use crate::run::{first_that, run_plan};

fn is_found(plant: Plant, invariant: &str, seeds: u64) {
    is_found_in(Plan::of, plant, invariant, seeds);
}

fn is_found_in(plan: impl Fn(u64) -> Plan + Sync, plant: Plant, invariant: &str, seeds: u64) {
    let run = |seed| run_plan(seed, plan(seed), Some(plant), false).verdict;
    let is_it = |seed| run(seed).is_some_and(|verdict| verdict.invariant == invariant);
    let Some(seed) = first_that(0..seeds, is_it) else {
        panic!("none of {seeds} seeds finds {plant:?} to break \"{invariant}\"");
    };
    let reason = run(seed).map(|verdict| verdict.reason).unwrap_or_default();
    println!("{plant:?} | {invariant} | {seed} | {reason}");
}

#[test]
fn acting_before_the_record_is_stored_is_found() {
    is_found(Plant::ActsBeforeStored, "stored first", 100);
}

#[test]
fn taking_writes_before_that_is_stored_is_found() {
    is_found(Plant::OpensBeforeStored, "stored first", 100);
}

#[test]
fn an_epoch_used_twice_is_found() {
    is_found(Plant::ReusesTheEpoch, "epochs grow", 100);
}

#[test]
fn a_record_restored_from_a_backup_is_found() {
    is_found(Plant::GoesByAnOldRecord, "epochs grow", 1000);
}

#[test]
fn promoting_the_one_that_lags_most_is_found() {
    is_found(Plant::PromotesTheLast, "most advanced candidate", 1000);
}

#[test]
fn promoting_who_must_not_be_is_found() {
    is_found(Plant::PromotesPriorityZero, "most advanced candidate", 1000);
}

#[test]
fn one_recruit_too_few_is_found() {
    is_found(Plant::RecruitsOneTooFew, "no acknowledged commit lost", 5000);
}

/// What is drawn seldom has a primary go on writing just between recruitment and promotion, so the seeds are those of a story:
/// its disk hangs, and goes on when it has been given up; only c still receives from it then.
#[test]
fn a_recruit_that_goes_on_receiving_is_found() {
    let story = |_| {
        let faults = vec![(1500, Fault::Stall { node: 0 }), (1600, Fault::OneWay { from: 0, to: 1 })];
        let script = Some(Script { nodes: 3, faults, calm: 6000 });
        Plan {
            profile: Profile::Everything,
            durability: Some(Durability::Quorum),
            has_agents: false,
            has_people: false,
            script,
        }
    };
    is_found_in(story, Plant::RecruitLeavesTheReceiver, "most advanced candidate", 3000);
}

#[test]
fn promoting_by_place_in_the_list_is_found() {
    is_found(Plant::PromotesTheLowestIndex, "most advanced candidate", 1000);
}

#[test]
fn names_before_the_store_are_found() {
    is_found(Plant::NamesBeforeTheStore, "voters are covered", 1000);
}

#[test]
fn the_store_before_the_names_is_found() {
    is_found(Plant::StoreBeforeTheNames, "voters are covered", 1000);
}

#[test]
fn one_acknowledgement_too_few_is_found() {
    is_found(Plant::AsksForOneFewer, "voters are covered", 1000);
}

#[test]
fn an_acknowledgement_of_an_old_epoch_is_found() {
    is_found(Plant::OldAcksPass, "dead epoch", 1000);
}

#[test]
fn an_epoch_that_is_not_closed_is_found() {
    is_found(Plant::ForgetsToClose, "dead epoch", 1000);
}

#[test]
fn a_zombie_whose_lease_is_renewed_is_found() {
    is_found(Plant::RenewsTheZombie, "one writable primary", 1000);
}

#[test]
fn writes_before_the_row_of_the_epoch_are_found() {
    is_found(Plant::OpensBeforeTheRow, "the row of the epoch", 100);
}

#[test]
fn a_loss_beyond_the_bound_is_found() {
    is_found(Plant::IgnoresTheLossBound, "loss within the bound", 2000);
}

#[test]
fn giving_up_after_the_first_candidate_is_found() {
    is_found(Plant::NeverTriesTheNext, "liveness", 1000);
}

#[test]
fn a_former_primary_that_starts_unasked_is_found() {
    is_found(Plant::IgnoresTheGate, "the gate", 1000);
}

#[test]
fn a_rewind_between_timelines_of_one_number_is_found() {
    is_found(Plant::RewindsBlindly, "one history", 20_000);
}

#[test]
fn following_the_dead_is_found() {
    is_found(Plant::FollowsTheDead, "liveness", 1000);
}
