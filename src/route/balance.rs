//! Choosing one replica among those that may serve a read.
//!
//! Called for each statement that goes to a replica, so nothing here allocates, and each strategy is one or two passes
//! over a handful of candidates. Where chance or a turn decides, the caller brings it along.

use crate::types::Millis;

words!(
    /// `reads.balance`
    #[derive(Default)]
    Strategy =>
    RoundRobin "round_robin",
    Random "random",
    WeightedRoundRobin "weighted_round_robin",
    #[default]
    LeastConnections "least_connections",
    Fastest "fastest",
    ConsistentHash "consistent_hash",
);

/// A replica that may serve, and what the strategies want to know of it. A node of weight 0 is never a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The caller's own number for it, given back when it is chosen. No two candidates have the same.
    pub index: usize,
    /// At least 1: twice the weight, twice the share.
    pub weight: u32,
    /// The part of its share that it is given while it warms up after it came back: above 0, at most 1. See [`ramp`].
    pub ramp: f32,
    /// Server connections of it that are serving a client right now.
    pub in_use: usize,
    /// What it has served so far: grows by [`charge`] with each statement.
    pub served: u64,
    /// Moving average of its answers in microseconds; 0 while not known.
    pub latency_us: f32,
    /// [`stable_hash`] of the node's id.
    pub name_hash: u64,
    /// Whether it is in the proxy's own zone, or no zones are set.
    pub is_near: bool,
}

impl Candidate {
    fn pull(&self) -> f64 {
        f64::from(self.weight) * f64::from(self.ramp)
    }
}

/// With `fastest`, one choice in this many goes to another replica, so that a slow one which has recovered is noticed.
const EXPLORE_ONE_IN: u64 = 64;

/// The `index` of the candidate that serves; `None` only when there is no candidate.
///
/// A candidate near the proxy comes before all that are not. `turn` grows by one with each choice, `random` is any number
/// drawn for this choice, `key` is what `consistent_hash` goes by.
pub fn choose(strategy: Strategy, candidates: &[Candidate], turn: u64, random: u64, key: u64) -> Option<usize> {
    let only_near = candidates.iter().any(|candidate| candidate.is_near);
    let mut zone = candidates.iter().filter(move |candidate| candidate.is_near || !only_near);
    let chosen = match strategy {
        Strategy::RoundRobin => round_robin(zone, turn),
        Strategy::Random => weighted_random(zone, random),
        Strategy::WeightedRoundRobin => {
            smallest(zone, turn, |candidate| (candidate.served as f64 + 1.0) / f64::from(candidate.weight))
        }
        Strategy::LeastConnections => {
            smallest(zone, turn, |candidate| (candidate.in_use as f64 + 1.0) / candidate.pull())
        }
        Strategy::Fastest => fastest(zone, turn, random),
        Strategy::ConsistentHash => {
            let first = zone.clone().next()?.weight;
            let key = mix(key);
            if zone.clone().all(|candidate| candidate.weight == first) {
                zone.max_by_key(|candidate| draw(key, candidate))
            } else {
                let first = zone.next()?;
                let start = (first, attraction(key, first));
                let best = zone.fold(start, |best, candidate| {
                    let own = attraction(key, candidate);
                    if own > best.1 { (candidate, own) } else { best }
                });
                Some(best.0)
            }
        }
    };
    chosen.map(|candidate| candidate.index)
}

/// By turn over the candidates in the order of `index`. One that is warming up gives most of its turns away, to each of
/// the others alike rather than to its neighbour.
fn round_robin<'c>(zone: impl Iterator<Item = &'c Candidate> + Clone, turn: u64) -> Option<&'c Candidate> {
    let count = zone.clone().count() as u64;
    let (round, own) = (turn.checked_div(count)?, turn % count);
    let at = |place: u64| zone.clone().find(|one| zone.clone().filter(|c| c.index < one.index).count() as u64 == place);
    // Of any 10 rounds in a row, one with ramp 0.3 takes 3, evenly spread.
    let takes = |one: &Candidate| {
        let ramp = f64::from(one.ramp);
        ramp >= 1.0 || ((round + 1) as f64 * ramp).floor() > (round as f64 * ramp).floor()
    };
    let first = at(own)?;
    if takes(first) || count == 1 {
        return Some(first);
    }
    let others = (0..count - 1).map(|step| (own + 1 + (round + step) % (count - 1)) % count);
    others.filter_map(at).find(|one| takes(one)).or(Some(first))
}

fn weighted_random<'c>(zone: impl Iterator<Item = &'c Candidate> + Clone, random: u64) -> Option<&'c Candidate> {
    let total: f64 = zone.clone().map(Candidate::pull).sum();
    let mut left = unit(mix(random)) * total;
    let mut last = None;
    for candidate in zone {
        last = Some(candidate);
        left -= candidate.pull();
        if left < 0.0 {
            break;
        }
    }
    last
}

/// The one with the smallest measure; those with an equal one take turns.
fn smallest<'c>(
    zone: impl Iterator<Item = &'c Candidate> + Clone,
    turn: u64,
    measure: impl Fn(&Candidate) -> f64,
) -> Option<&'c Candidate> {
    let least = zone.clone().map(&measure).fold(f64::INFINITY, f64::min);
    let equals = zone.clone().filter(|candidate| measure(candidate) <= least);
    let count = equals.clone().count() as u64;
    // Without any equal, `count` is 0: no candidates, or measures that are not numbers.
    match turn.checked_rem(count) {
        Some(place) => equals.clone().nth(place as usize),
        None => zone.clone().next(),
    }
}

/// By the time an answer is likely to take. One whose latency nobody knows is asked first, but only by one client at a
/// time: else all of them would rush to a replica that has just come back, before its first answer.
fn fastest<'c>(zone: impl Iterator<Item = &'c Candidate> + Clone, turn: u64, random: u64) -> Option<&'c Candidate> {
    let slowest = zone.clone().map(|candidate| candidate.latency_us).fold(1.0, f32::max);
    let measure = |candidate: &Candidate| {
        let latency = match candidate.latency_us {
            known if known > 0.0 => known,
            _ if candidate.in_use == 0 => return 0.0,
            _ => slowest,
        };
        f64::from(latency) * (candidate.in_use as f64 + 1.0) / f64::from(candidate.ramp)
    };
    let best = smallest(zone.clone(), turn, measure)?;
    let random = mix(random);
    let others = zone.clone().filter(|candidate| candidate.index != best.index);
    let count = others.clone().count() as u64;
    if count == 0 || !random.is_multiple_of(EXPLORE_ONE_IN) {
        return Some(best);
    }
    others.clone().nth((random / EXPLORE_ONE_IN % count) as usize)
}

/// What a candidate draws for a key; the highest wins (rendezvous hashing). What one draws does not depend on the others,
/// so when a node leaves, only its own keys move.
fn draw(mixed_key: u64, candidate: &Candidate) -> u64 {
    mix(mixed_key.wrapping_add(candidate.name_hash))
}

/// The draw made to respect the weight: `-weight / ln(u)` for u uniform in (0, 1) is the highest with a probability
/// proportional to the weight (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005). With equal
/// weights it orders as the draw itself does.
fn attraction(mixed_key: u64, candidate: &Candidate) -> f64 {
    -f64::from(candidate.weight) / unit(draw(mixed_key, candidate)).ln()
}

/// From all numbers to those strictly between 0 and 1.
fn unit(number: u64) -> f64 {
    ((number >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// The finalizer of SplitMix64: each bit of the input changes half of those of the output.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// FNV-1a, mixed: the same on every machine and in every version, so that several proxies agree about who reads where.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// What one statement adds to [`Candidate::served`]: more while the replica warms up, so that it seems to have had its
/// share earlier.
///
/// Dividing all that was ever served by the ramp instead would keep a returning replica idle until its ramp is nearly
/// over, and then send it everything at once; so would remembering what it missed.
pub fn charge(ramp: f32) -> u64 {
    const WHOLE: f32 = 1000.0;
    // A cast from f32 saturates.
    (WHOLE / ramp.clamp(0.001, 1.0)).round() as u64
}

/// What `served` becomes when a replica comes back: what it would have served beside the others, so that
/// `weighted_round_robin` neither floods nor avoids it. `others` are those that serve, without itself: (served, weight).
pub fn rejoin_served(own_weight: u32, others: &[(u64, u32)]) -> u64 {
    let served: u128 = others.iter().map(|(served, _)| u128::from(*served)).sum();
    let weight: u128 = others.iter().map(|(_, weight)| u128::from(*weight)).sum();
    let own = (served * u128::from(own_weight)).checked_div(weight).unwrap_or(0);
    u64::try_from(own).unwrap_or(u64::MAX)
}

/// The part of its share that a replica gets: from a tenth when it comes back, growing evenly to all of it after
/// `slow_start`.
pub fn ramp(since_return: Millis, slow_start: Millis) -> f32 {
    if since_return >= slow_start {
        return 1.0;
    }
    0.1 + 0.9 * (since_return.0 as f32 / slow_start.0 as f32)
}

#[cfg(test)]
mod tests;
