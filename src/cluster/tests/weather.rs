//! Bad weather, a little of everything: whatever happens, when it is over there is one primary and everybody follows it.
//! The thorough version, with WAL, clients and a network, is `tests/sim`; this one is quick to read and to run.

use super::ground::*;
use crate::cluster::*;
use crate::types::Durability::{Async, Quorum};
use crate::types::{Durability, Millis};

/// Numbers that look like chance and are the same each time (an xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

const SEEDS: u64 = 10;
const JOBS: [&str; 7] = ["recruit", "settle", "promote", "set sync", "write epoch", "follow", "fence"];

fn something_happens(world: &mut World, dice: &mut Dice, durability: Durability) {
    let name = ["n1", "n2", "n3"][dice.roll(3) as usize];
    match dice.roll(14) {
        0 | 1 => world.kill(name),
        2 => world.freeze(name),
        3..=6 => world.revive(name, dice.roll(2) == 0),
        7 => drop(world.unseen.insert(id(name))),
        8 => world.unseen.clear(),
        9 => world.store_works = dice.roll(3) > 0,
        10 => drop(world.node(name).stuck.insert(JOBS[dice.roll(7) as usize])),
        11 => drop(world.node(name).refuses.insert(JOBS[dice.roll(7) as usize])),
        12 => world.beats = dice.roll(3) > 0,
        _ => world.restart(policy(durability, &["n1", "n2", "n3"])),
    }
}

/// People repair what pgbaton leaves to them: whoever is not on the primary's history is built anew from it.
fn repair(world: &mut World) {
    let Some(Lead::Open { primary, .. }) = world.brain.lead.clone() else { return };
    let source = world.nodes[&primary].seen.clone();
    for (node, it) in &mut world.nodes {
        let follows = it.seen.is_in_recovery && it.seen.receiver.is_some() && it.seen.timeline == source.timeline;
        if *node != primary && !follows {
            let receiver = Receiver { from: Some(primary.clone()), fed_ago: Millis(1), quiet: Millis(2500) };
            it.seen = Observation {
                is_in_recovery: true,
                receiver: Some(receiver),
                follows: Some(primary.clone()),
                recruited_for: None,
                is_fenced: false,
                sync: None,
                ..source.clone()
            };
        }
    }
}

#[test]
fn when_it_is_over_there_is_one_primary_and_everybody_follows() {
    for seed in 1..=SEEDS {
        let durability = if seed % 2 == 0 { Quorum } else { Async };
        let mut dice = Dice(u64::wrapping_mul(seed, 0x9E37_79B9_7F4A_7C15));
        let mut world = world(durability, &["n1", "n2", "n3"]).start();
        for _ in 0..25 {
            something_happens(&mut world, &mut dice, durability);
            let wait = [30, 300, 2000][dice.roll(3) as usize];
            world.run(1 + dice.roll(wait));
        }
        world.note("it is over".into());
        (world.store_works, world.beats) = (true, true);
        world.unseen.clear();
        for name in ["n1", "n2", "n3"] {
            world.node(name).stuck.clear();
            world.node(name).refuses.clear();
            if world.node(name).life != Life::Runs {
                world.revive(name, true);
            }
        }
        let is_open = |world: &World| matches!(world.brain.lead, Some(Lead::Open { .. }));
        assert!(world.run_until(90_000, is_open), "seed {seed}: {}", world.everything());
        world.run(40_000);
        repair(&mut world);
        world.run(10_000);
        assert!(is_open(&world), "seed {seed}: {}", world.everything());
        let picture = world.brain.picture();
        let running = picture.nodes.values().filter(|node| node.state == NodeState::Running).count();
        assert_eq!(running, 3, "seed {seed}: {picture:?}\n{}", world.everything());
        let k = world.stored.clone().map_or(0, |record| record.k);
        assert_eq!(k, u32::from(durability == Quorum), "seed {seed}: {}", world.everything());
    }
}
