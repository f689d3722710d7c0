//! Whose acknowledgement commits wait for, while a primary takes writes: who streams is taken in, who has gone is let go.
//!
//! What is stored and what is in force on the server never change in one stroke, and a failover may have to go by the stored
//! ones at any moment between. So each single change keeps [`covers`] true of the stored names and of all that may be in
//! force; where no order of two changes does that, there is a step between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::brain::{SyncNamesKey, after, key, names};
use super::jobs::Retry;
use super::{Answer, Brain, Failure, Job, Record, SyncNames, covers};
use crate::types::{Durability, NodeId};

/// One change towards the target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Move {
    Store(SyncNames),
    Set(SyncNames),
}

/// How far behind a standby may be that becomes a voter: commits wait for it from then on.
const NEAR_BYTES: u64 = 16 << 20;
const SET_AGAIN_MS: u64 = 500;

/// The first of the fewest changes that lead from what is stored and what may be in force to the target in both.
///
/// `is_accounted`: what was acknowledged before is covered by one of `in_force` too; else only by what is stored.
/// Names that those in `live` cannot acknowledge are never set: nobody would confirm them.
pub(super) fn next_move(
    stored: &SyncNames,
    in_force: &BTreeSet<SyncNamesKey>,
    is_accounted: bool,
    target: &SyncNames,
    live: &BTreeSet<NodeId>,
) -> Option<Move> {
    if stored == target && is_accounted && in_force.len() == 1 && in_force.contains(&key(target)) {
        return None;
    }
    let steps = steps_between(stored, in_force, target);
    // An empty set is safe but stands for "no failover is possible", so it is only gone through if nothing else will do.
    let full: Vec<SyncNames> = steps.iter().filter(|names| names.k > 0 || *names == target).cloned().collect();
    search(stored, in_force, is_accounted, target, live, &full)
        .or_else(|| search(stored, in_force, is_accounted, target, live, &steps))
}

/// What is stored, and the names in force if they are not those of the beginning.
type At = (SyncNamesKey, Option<SyncNamesKey>);

fn search(
    stored: &SyncNames,
    in_force: &BTreeSet<SyncNamesKey>,
    is_accounted: bool,
    target: &SyncNames,
    live: &BTreeSet<NodeId>,
    steps: &[SyncNames],
) -> Option<Move> {
    let goal = key(target);
    let is_only = in_force.len() == 1 && is_accounted;
    let first: At = (key(stored), None);
    let mut came: BTreeMap<At, Option<Move>> = BTreeMap::from([(first.clone(), None)]);
    let mut queue = VecDeque::from([first]);
    while let Some(at) = queue.pop_front() {
        let (record, force) = &at;
        let forces: Vec<SyncNames> = match force {
            Some(force) => vec![names(force)],
            None => in_force.iter().map(names).collect(),
        };
        if *record == goal && forces.len() == 1 && key(&forces[0]) == goal && (force.is_some() || is_only) {
            return came.remove(&at).flatten();
        }
        let began = came.get(&at).cloned().flatten();
        let may_store = |names: &SyncNames| {
            (names.k == 0 || is_accounted || force.is_some()) && forces.iter().all(|force| covers(names, force))
        };
        let record_names = names(record);
        let may_set = |names: &SyncNames| {
            covers(&record_names, names) && names.voters.intersection(live).count() >= names.k as usize
        };
        for step in steps {
            let next = [
                may_store(step).then(|| ((key(step), force.clone()), Move::Store(step.clone()))),
                may_set(step).then(|| ((record.clone(), Some(key(step))), Move::Set(step.clone()))),
            ];
            for (to, by) in next.into_iter().flatten() {
                if !came.contains_key(&to) {
                    came.insert(to.clone(), began.clone().or(Some(by)));
                    queue.push_back(to);
                }
            }
        }
    }
    None
}

fn steps_between(stored: &SyncNames, in_force: &BTreeSet<SyncNamesKey>, target: &SyncNames) -> Vec<SyncNames> {
    let mut bases: BTreeSet<BTreeSet<NodeId>> = [stored.voters.clone(), target.voters.clone()].into();
    bases.extend(in_force.iter().map(|(voters, _)| voters.clone()));
    let all: BTreeSet<NodeId> = bases.iter().flatten().cloned().collect();
    bases.insert(&stored.voters | &target.voters);
    bases.insert(&stored.voters & &target.voters);
    for node in &all {
        let one = BTreeSet::from([node.clone()]);
        bases.insert(&stored.voters | &one);
        bases.insert(&stored.voters - &one);
    }
    bases.insert(all);
    let highest = [stored.k, target.k].into_iter().chain(in_force.iter().map(|(_, k)| *k)).max().unwrap_or(1) + 1;
    let mut steps = vec![target.clone()];
    for voters in bases {
        for k in 1..=highest.min(voters.len() as u32) {
            steps.push(SyncNames { voters: voters.clone(), k });
        }
    }
    steps.push(SyncNames::default());
    steps
}

impl Brain {
    /// Whether these names, and no others, are in force, and commits made before are accounted for.
    pub(super) fn is_in_force(&self, names: &SyncNames) -> bool {
        self.is_accounted && self.in_force.len() == 1 && self.in_force.contains(&key(names))
    }

    pub(super) fn live(&self, names: &SyncNames) -> usize {
        names.voters.iter().filter(|node| self.is_live(node)).count()
    }

    fn is_live(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|known| known.unstreamed.is_none())
    }

    /// Whether a voter has gone for good enough to be let go: sooner if commits wait for it.
    pub(super) fn is_gone(&self, node: &NodeId, is_waited_for: bool) -> bool {
        let Some((since, times)) = self.nodes.get(node).map(|known| known.unstreamed).unwrap_or(Some((self.now, 0)))
        else {
            return false;
        };
        let is_over = after(since, self.policy.voter_grace.0) <= self.now;
        times > 0 && (is_over || is_waited_for && times >= self.policy.misses)
    }

    fn target(&self, record: &Record) -> SyncNames {
        if self.policy.durability == Durability::Async {
            return SyncNames::default();
        }
        let is_waited_for = (record.k as usize) > self.live(&record.sync());
        let seen = self.known(&record.primary).and_then(|known| known.answers());
        let is_voter = |node: &&NodeId| {
            let is_kept = record.voters.contains(*node) && !self.is_gone(node, is_waited_for);
            let sender = seen.and_then(|seen| seen.senders.iter().find(|sender| sender.node == **node));
            let is_near = sender.is_some_and(|sender| {
                let lsn = seen.map_or(0, |seen| seen.lsn.0);
                sender.is_streaming && lsn.saturating_sub(sender.flushed.0) <= NEAR_BYTES
            });
            // What streams under its name may be another server, unless it says itself that it follows, by that name.
            let sighting = self.known(node).and_then(|known| known.seen.as_ref());
            let is_near = is_near && sighting.is_some_and(|seen| seen.what.follows.as_ref() == Some(&record.primary));
            let is_in_use = self.is_wanted(node) && !record.maintenance.contains(*node);
            **node != record.primary && is_in_use && (is_kept || is_near)
        };
        self.as_voters(self.nodes.keys().filter(is_voter).cloned().collect())
    }

    /// Nodes of priority 0 vote only if the others are too few: what such a one alone has acknowledged could not be had
    /// by promoting it, and would stand in the way of a failover.
    pub(super) fn as_voters(&self, mut nodes: BTreeSet<NodeId>) -> SyncNames {
        nodes.retain(|node| self.is_wanted(node));
        let is_promotable = |node: &NodeId| self.policy.nodes.get(node).is_some_and(|node| node.priority > 0);
        let promotable: BTreeSet<NodeId> = nodes.iter().filter(|node| is_promotable(node)).cloned().collect();
        let voters = if promotable.len() >= self.policy.acks as usize { promotable } else { nodes };
        SyncNames { k: self.policy.acks.min(voters.len() as u32), voters }
    }

    /// In `Stable`, while the primary answers.
    pub(super) fn maintain_voters(&mut self) {
        let Some(record) = self.record.clone().filter(|_| self.pending.is_none()) else { return };
        if record.durability != self.policy.durability {
            let text = format!("durability is {} from now on", self.policy.durability.as_str());
            self.say(false, text);
            let none = SyncNames::default();
            return self
                .store_names(&record, if self.policy.durability == Durability::Async { none } else { record.sync() });
        }
        self.see_sync(&record);
        if self.in_force.is_empty() {
            return;
        }
        let target = self.target(&record);
        let live: BTreeSet<NodeId> = self.nodes.keys().filter(|node| self.is_live(node)).cloned().collect();
        match next_move(&record.sync(), &self.in_force, self.is_accounted, &target, &live) {
            None => {}
            Some(Move::Store(names)) => {
                self.say(false, format!("voters stored: {}", listed(&names)));
                self.store_names(&record, names);
            }
            Some(Move::Set(names)) => self.set_sync(&record.primary, names),
        }
    }

    /// What the server says of its names, if it was asked after we last changed them.
    fn see_sync(&mut self, record: &Record) {
        let Some(known) = self.known(&record.primary) else { return };
        let settled = after(self.sync_at, self.policy.probe_timeout.0);
        let (Some(at), Some(seen)) = (known.seen.as_ref().map(|seen| seen.at), known.answers()) else { return };
        if self.in_force.is_empty() {
            // What it is not known to be, it may be: nobody waited for.
            self.in_force = [key(&seen.sync.clone().unwrap_or_default())].into();
            self.is_accounted = record.durability == Durability::Async;
            return;
        }
        let is_changing = self.is_running(|job| matches!(job, Job::SetSync { .. }));
        let said = seen.sync.clone();
        // In asynchronous durability a setting that is not ours may be there for a reason of somebody else's.
        let is_known = match &said {
            Some(names) => self.in_force.contains(&key(names)),
            None => record.durability == Durability::Async,
        };
        if !is_changing && !is_known && at >= settled {
            let text = format!(
                "somebody changed synchronous_standby_names on {} to {}; it is set again",
                record.primary,
                said.as_ref().map_or("something else".into(), listed)
            );
            self.say_once("sync", text);
            self.in_force.insert(key(&said.unwrap_or_default()));
        }
    }

    fn store_names(&mut self, record: &Record, names: SyncNames) {
        let SyncNames { voters, k } = names;
        self.store(Record { voters, k, durability: self.policy.durability, ..record.clone() });
    }

    /// One change at a time; one that is no longer wanted is given up, and either may be in force then.
    pub(super) fn set_sync(&mut self, primary: &NodeId, sync: SyncNames) {
        let is_it = |job: &Job| matches!(job, Job::SetSync { sync: other, .. } if *other == sync);
        if self.is_running(is_it) {
            return;
        }
        let is_other = self.is_running(|job| matches!(job, Job::SetSync { .. }));
        if !is_other && !self.may_try(&Retry::SetSync) {
            return;
        }
        self.forget(|job| matches!(job, Job::SetSync { .. }));
        self.say_once("set", format!("voters set on {primary}: {}", listed(&sync)));
        self.in_force.insert(key(&sync));
        self.start(Job::SetSync { node: primary.clone(), sync });
    }

    pub(super) fn sync_set(&mut self, node: &NodeId, sync: SyncNames, result: Result<Answer, Failure>) {
        match result {
            Ok(_) => {
                self.in_force = [key(&sync)].into();
                self.is_accounted = true;
                self.sync_at = self.now;
            }
            Err(failure) => {
                self.not_before(Retry::SetSync, SET_AGAIN_MS);
                self.say_once(
                    "sync_failed",
                    format!("voters on {node}: {} not confirmed: {}", listed(&sync), failure.reason),
                );
            }
        }
    }
}

pub(super) fn listed(names: &SyncNames) -> String {
    let voters: Vec<String> = names.voters.iter().map(|voter| voter.to_string()).collect();
    match names.k {
        0 => "none".into(),
        k => format!("any {k} of {}", voters.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &str) -> BTreeSet<NodeId> {
        names.chars().map(|name| NodeId::from(&*name.to_string())).collect()
    }

    fn of(voters: &str, k: u32) -> SyncNames {
        SyncNames { voters: nodes(voters), k }
    }

    /// All moves from what is stored and in force to the target, as a line; what a failover would go by is checked at each.
    fn moves(stored: SyncNames, in_force: SyncNames, target: SyncNames, live: &str) -> String {
        let (mut stored, mut force, mut line) = (stored, in_force, Vec::new());
        while let Some(next) = next_move(&stored, &[key(&force)].into(), true, &target, &nodes(live)) {
            match next {
                Move::Store(names) => {
                    assert!(covers(&names, &force), "stored {names:?} under {force:?}");
                    line.push(format!("store {}", listed(&names)));
                    stored = names;
                }
                Move::Set(names) => {
                    assert!(covers(&stored, &names), "set {names:?} under {stored:?}");
                    line.push(format!("set {}", listed(&names)));
                    force = names;
                }
            }
            assert!(line.len() < 10, "{line:?}");
        }
        assert!(stored == target && force == target || live.is_empty(), "{line:?} leads to {stored:?}, {force:?}");
        line.join("; ")
    }

    #[test]
    fn each_way_from_one_set_of_voters_to_another() {
        let from = |stored: SyncNames, target, live| moves(stored.clone(), stored, target, live);
        assert_eq!(from(of("ab", 1), of("ab", 1), "ab"), "");
        assert_eq!(from(of("a", 1), of("ab", 1), "ab"), "store any 1 of a, b; set any 1 of a, b");
        assert_eq!(from(of("ab", 1), of("b", 1), "b"), "set any 1 of b; store any 1 of b");
        assert_eq!(from(of("", 0), of("ab", 1), "ab"), "set any 1 of a, b; store any 1 of a, b");
        assert_eq!(from(of("ab", 1), of("", 0), ""), "store none; set none");
        assert_eq!(from(of("ab", 2), of("b", 1), "b"), "store any 1 of b; set any 1 of b");
        // Another in place of the only one: by way of both, and if the old one is dead as well.
        assert_eq!(from(of("a", 1), of("b", 1), "ab"), "store any 1 of a, b; set any 1 of b; store any 1 of b");
        assert_eq!(from(of("a", 1), of("b", 1), "b"), "store any 1 of a, b; set any 1 of b; store any 1 of b");
        let line = "store any 1 of a, b, c, d; set any 2 of c, d, e; store any 2 of c, d, e";
        assert_eq!(from(of("abc", 2), of("cde", 2), "abcde"), line);
    }

    #[test]
    fn all_pairs_of_sets_of_three_nodes_also_with_dead_ones() {
        let all: Vec<SyncNames> = ["", "a", "b", "ab", "bc"]
            .into_iter()
            .flat_map(|voters| (u32::from(!voters.is_empty())..=voters.len() as u32).map(move |k| of(voters, k)))
            .collect();
        for stored in &all {
            for force in all.iter().filter(|force| covers(stored, force)) {
                for target in &all {
                    for live in ["abc", "b"] {
                        if target.voters.intersection(&nodes(live)).count() >= target.k as usize {
                            moves(stored.clone(), force.clone(), target.clone(), live);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn after_a_restart_only_the_stored_names_are_to_be_relied_on() {
        let found = |force: SyncNames, target: SyncNames, live| {
            next_move(&of("ab", 1), &[key(&force)].into(), false, &target, &nodes(live))
        };
        // What is in force may have been set a moment ago, and not yet waited for.
        assert_eq!(found(of("ab", 1), of("ab", 1), "ab"), Some(Move::Set(of("ab", 1))));
        assert_eq!(found(of("a", 1), of("a", 1), "a"), Some(Move::Set(of("a", 1))));
        assert_eq!(found(of("c", 1), of("c", 1), "c"), Some(Move::Store(of("", 0))));
    }
}
