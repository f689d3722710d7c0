//! Who is chosen how often, for each strategy. Apart from `balance.rs` for length only.

use proptest::prelude::*;
use proptest::strategy::Strategy as _;

use super::{Strategy, *};

const ALL: [Strategy; 6] = [
    Strategy::RoundRobin,
    Strategy::Random,
    Strategy::WeightedRoundRobin,
    Strategy::LeastConnections,
    Strategy::Fastest,
    Strategy::ConsistentHash,
];

fn node(index: usize, weight: u32) -> Candidate {
    let name_hash = stable_hash(format!("n{index}").as_bytes());
    Candidate { index, weight, ramp: 1.0, in_use: 0, served: 0, latency_us: 0.0, name_hash, is_near: true }
}

fn nodes(weights: &[u32]) -> Vec<Candidate> {
    weights.iter().enumerate().map(|(index, weight)| node(index, *weight)).collect()
}

/// How many of `choices` choices each candidate gets, when what is chosen is served.
fn counts(strategy: Strategy, candidates: &mut [Candidate], choices: u64) -> Vec<u64> {
    let mut counts = vec![0; candidates.len()];
    for turn in 0..choices {
        let chosen = choose(strategy, candidates, turn, turn, turn).unwrap();
        counts[chosen] += 1;
        candidates[chosen].served += charge(candidates[chosen].ramp);
    }
    counts
}

#[track_caller]
fn assert_near(found: &[u64], expected: &[f64], tolerance: f64) {
    let total: u64 = found.iter().sum();
    for (found, expected) in found.iter().zip(expected) {
        let share = *found as f64 / total as f64;
        assert!((share - expected).abs() <= tolerance, "{found} of {total} is not {expected} ± {tolerance}");
    }
}

fn shares(weights: &[u32]) -> Vec<f64> {
    let total: u32 = weights.iter().sum();
    weights.iter().map(|weight| f64::from(*weight) / f64::from(total)).collect()
}

fn any_candidate() -> impl proptest::strategy::Strategy<Value = Candidate> {
    let ramp = prop_oneof![Just(1.0f32), 0.1f32..1.0];
    let latency = prop_oneof![Just(0.0f32), 1.0f32..1e6];
    (1u32..1000, ramp, 0usize..200, any::<u64>(), latency, any::<u64>(), any::<bool>()).prop_map(
        |(weight, ramp, in_use, served, latency_us, name_hash, is_near)| Candidate {
            index: 0,
            weight,
            ramp,
            in_use,
            served,
            latency_us,
            name_hash,
            is_near,
        },
    )
}

proptest! {
    #[test]
    fn only_a_candidate_is_chosen_and_one_nearby_first(
        mut candidates in proptest::collection::vec(any_candidate(), 0..9),
        start in any::<usize>(), turn: u64, random: u64, key: u64,
    ) {
        // Numbers with gaps, in no order: the caller leaves out those that may not serve.
        for (at, candidate) in candidates.iter_mut().enumerate() {
            candidate.index = (start % 7 + at * 5) % 11 * 3;
        }
        for strategy in ALL {
            let chosen = choose(strategy, &candidates, turn, random, key);
            prop_assert_eq!(chosen.is_none(), candidates.is_empty());
            let Some(chosen) = chosen else { continue };
            let chosen = candidates.iter().find(|candidate| candidate.index == chosen).unwrap();
            prop_assert!(chosen.is_near || candidates.iter().all(|candidate| !candidate.is_near));
        }
    }

    #[test]
    fn shares_follow_the_weights(weights in proptest::collection::vec(1u32..10, 1..6)) {
        let exact = counts(Strategy::WeightedRoundRobin, &mut nodes(&weights), 5_000);
        assert_near(&exact, &shares(&weights), 0.001);
        assert_near(&counts(Strategy::Random, &mut nodes(&weights), 20_000), &shares(&weights), 0.02);
        assert_near(&counts(Strategy::ConsistentHash, &mut nodes(&weights), 20_000), &shares(&weights), 0.02);
        let equal = vec![1.0 / weights.len() as f64; weights.len()];
        assert_near(&counts(Strategy::RoundRobin, &mut nodes(&weights), 5_000), &equal, 0.001);
    }

    /// Whoever stays with the replica first chosen for it, for as long as it likes, is made up for by those after it.
    #[test]
    fn shares_follow_the_weights_however_long_sessions_stay(
        weights in proptest::collection::vec(1u32..10, 2..6),
        stays in proptest::collection::vec(1u64..200, 2_000),
    ) {
        let mut candidates = nodes(&weights);
        let mut counts = vec![0; weights.len()];
        for (turn, statements) in stays.iter().enumerate() {
            let chosen = choose(Strategy::WeightedRoundRobin, &candidates, turn as u64, 0, 0).unwrap();
            candidates[chosen].served += statements * charge(1.0);
            counts[chosen] += statements;
        }
        assert_near(&counts, &shares(&weights), 0.01);
    }

    #[test]
    fn a_node_that_leaves_moves_only_its_own_keys(
        weights in proptest::collection::vec(1u32..4, 2..8), leaving in any::<prop::sample::Index>(),
    ) {
        let all = nodes(&weights);
        let leaving = leaving.index(all.len());
        let rest: Vec<Candidate> = all.iter().copied().filter(|candidate| candidate.index != leaving).collect();
        for key in 0..500 {
            let (before, after) = (by_key(&all, key), by_key(&rest, key));
            prop_assert!(before == leaving || before == after);
            prop_assert_ne!(after, leaving);
        }
    }

    #[test]
    fn a_node_that_joins_takes_its_share_and_nothing_else_moves(weights in proptest::collection::vec(1u32..4, 2..8)) {
        let all = nodes(&weights);
        let joining = all.len() - 1;
        let moved = (0..4_000).filter(|key| {
            let (before, after) = (by_key(&all[..joining], *key), by_key(&all, *key));
            assert!(before == after || after == joining);
            before != after
        });
        let share = shares(&weights)[joining];
        let moved = moved.count() as f64 / 4_000.0;
        prop_assert!((moved - share).abs() < 0.05, "{moved} of the keys moved, its share is {share}");
    }
}

fn by_key(candidates: &[Candidate], key: u64) -> usize {
    choose(Strategy::ConsistentHash, candidates, 0, 0, key).unwrap()
}

#[test]
fn equal_weights_hash_the_same_whether_compared_by_draw_or_by_attraction() {
    let equal = nodes(&[3, 3, 3, 3]);
    for key in 0..1000 {
        let by_attraction = equal.iter().max_by(|a, b| attraction(mix(key), a).total_cmp(&attraction(mix(key), b)));
        assert_eq!(by_key(&equal, key), by_attraction.unwrap().index);
    }
}

/// Several proxies have to agree, so these numbers never change.
#[test]
fn the_hash_is_the_same_for_ever() {
    let all = nodes(&[1, 1, 1, 2]);
    let chosen: Vec<usize> = ["alice", "bob", "carol", "dave", "erin", "frank"]
        .iter()
        .map(|user| by_key(&all, stable_hash(user.as_bytes())))
        .collect();
    assert_eq!(chosen, [1, 0, 1, 2, 0, 3]);
}

#[test]
fn round_robin_goes_by_the_order_of_index() {
    let candidates = [node(5, 1), node(2, 1), node(9, 1)];
    let chosen: Vec<_> = (0..6).filter_map(|turn| choose(Strategy::RoundRobin, &candidates, turn, 0, 0)).collect();
    assert_eq!(chosen, [2, 5, 9, 2, 5, 9]);
}

#[test]
fn round_robin_spreads_what_a_warming_replica_leaves_over_all_others() {
    let mut candidates = nodes(&[1, 1, 1, 1]);
    candidates[1].ramp = 0.25;
    assert_eq!(counts(Strategy::RoundRobin, &mut candidates, 4_800), [1500, 300, 1500, 1500]);
    // When all of them are warming up alike, nobody is spared.
    candidates.iter_mut().for_each(|candidate| candidate.ramp = 0.25);
    assert_eq!(counts(Strategy::RoundRobin, &mut candidates, 4_000), [1000; 4]);
}

#[test]
fn random_and_weighted_round_robin_give_a_warming_replica_part_of_its_share() {
    for (strategy, tolerance) in [(Strategy::Random, 0.02), (Strategy::WeightedRoundRobin, 0.001)] {
        let mut candidates = nodes(&[2, 1, 1]);
        candidates[0].ramp = 0.5;
        assert_near(&counts(strategy, &mut candidates, 10_000), &[1.0 / 3.0; 3], tolerance);
    }
}

/// The story of a replica that was away: nobody waits for it, it is not flooded, and afterwards it has just its share.
#[test]
fn a_returning_replica_gets_a_growing_part_of_its_share() {
    let mut candidates = nodes(&[1, 1, 1]);
    counts(Strategy::WeightedRoundRobin, &mut candidates[..2], 100_000);
    candidates[2].served = rejoin_served(1, &[(candidates[0].served, 1), (candidates[1].served, 1)]);
    let mut by_second = Vec::new();
    for second in 0..15 {
        candidates[2].ramp = ramp(Millis(second * 1000), Millis(10_000));
        by_second.push(counts(Strategy::WeightedRoundRobin, &mut candidates, 3_000)[2]);
    }
    for (second, count) in by_second.iter().enumerate() {
        let ramp = f64::from(ramp(Millis(second as u64 * 1000), Millis(10_000)));
        let expected = 3_000.0 * ramp / (2.0 + ramp);
        assert!((*count as f64 - expected).abs() < 5.0, "second {second}: {count}, not {expected}: {by_second:?}");
    }
}

#[test]
fn least_connections_weighs_what_is_in_use() {
    let mut candidates = nodes(&[1, 2, 1]);
    (candidates[0].in_use, candidates[1].in_use, candidates[2].in_use) = (4, 8, 5);
    assert_eq!(choose(Strategy::LeastConnections, &candidates, 0, 0, 0), Some(1));
    candidates[1].in_use = 9;
    let chosen: Vec<_> =
        (0..4).filter_map(|turn| choose(Strategy::LeastConnections, &candidates, turn, 0, 0)).collect();
    assert_eq!(chosen, [0, 1, 0, 1], "equals take turns");
    candidates[0].ramp = 0.5;
    candidates[1].ramp = 0.5;
    assert_eq!(choose(Strategy::LeastConnections, &candidates, 0, 0, 0), Some(2), "a warming one holds fewer");
}

#[test]
fn fastest_tries_the_unknown_once_and_then_the_fast() {
    let mut candidates = nodes(&[1, 1, 1]);
    (candidates[0].latency_us, candidates[1].latency_us) = (100.0, 900.0);
    let most = |candidates: &[Candidate]| {
        let mut counts = [0u32; 3];
        (0..10_000).for_each(|random| counts[choose(Strategy::Fastest, candidates, 0, random, 0).unwrap()] += 1);
        (counts.iter().enumerate().max_by_key(|(_, count)| **count).unwrap().0, counts)
    };
    assert_eq!(most(&candidates).0, 2, "nobody knows how fast it is");
    candidates[2].in_use = 1;
    let (chosen, counts) = most(&candidates);
    assert_eq!(chosen, 0, "one is trying it already");
    assert!((50..110).contains(&counts[1]) && (50..110).contains(&counts[2]), "the others are tried too: {counts:?}");
    candidates[0].in_use = 20;
    assert_eq!(most(&candidates).0, 1, "a queue makes the fast one slow");
    candidates[1].ramp = 0.1;
    assert_ne!(most(&candidates).0, 1);
}

#[test]
fn a_ramp_grows_from_a_tenth_to_the_whole() {
    let at = |ms| ramp(Millis(ms), Millis(10_000));
    assert_eq!((at(0), at(10_000), at(u64::MAX)), (0.1, 1.0, 1.0));
    assert!((at(5_000) - 0.55).abs() < 1e-6);
    assert_eq!(ramp(Millis(0), Millis(0)), 1.0);
    assert_eq!((charge(1.0), charge(0.1), charge(0.0)), (1_000, 10_000, 1_000_000));
}

#[test]
fn what_a_returning_replica_is_taken_to_have_served_is_proportional() {
    assert_eq!(rejoin_served(2, &[(300, 1), (700, 1)]), 1_000);
    assert_eq!(rejoin_served(1, &[(300, 3)]), 100);
    assert_eq!(rejoin_served(1, &[]), 0);
    assert_eq!(rejoin_served(1000, &[(u64::MAX, 1)]), u64::MAX);
}
