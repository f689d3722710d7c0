//! Whose acknowledgement a commit waits for, and what that is worth at the next failover.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::types::NodeId;

/// `synchronous_standby_names = ANY k (voters)`; no voters: empty, nobody is waited for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SyncNames {
    pub voters: BTreeSet<NodeId>,
    /// How many of them have to acknowledge; 0 if there are none.
    pub k: u32,
}

impl SyncNames {
    /// How many voters must be recruited so that no commit can be acknowledged without them, and one of them has each
    /// that was: n − k + 1. `None`: no number is enough, as nobody but the primary has to have anything.
    pub fn recruits_needed(&self) -> Option<usize> {
        let needed = (self.voters.len() + 1).checked_sub(self.k as usize)?;
        (!self.voters.is_empty() && self.k > 0).then_some(needed)
    }
}

/// Whether a failover that goes by `record` finds every commit acknowledged under `server`: any `n − k + 1` voters of the
/// record have one in common with any `k` voters of the server.
///
/// A change of voters has to keep this true of what is stored and what is in force, at every moment.
pub fn covers(record: &SyncNames, server: &SyncNames) -> bool {
    // No failover can happen by such a record, so it loses nothing.
    let Some(needed) = record.recruits_needed() else { return true };
    let outside = record.voters.difference(&server.voters).count();
    // The recruits that have the least in common with the server's voters …
    let common = needed.saturating_sub(outside);
    // … must leave too few of them for an acknowledgement.
    server.voters.len() - common < server.k as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &str, k: u32) -> SyncNames {
        SyncNames { voters: names.chars().map(|name| NodeId::from(&*name.to_string())).collect(), k }
    }

    #[test]
    fn a_change_of_voters_has_an_order() {
        let (one, two, none) = (names("a", 1), names("ab", 1), names("", 0));
        // A voter is added: the store first.
        assert!(covers(&two, &one) && !covers(&one, &two));
        // The last one goes: the store first. The first one comes: the server first.
        assert!(covers(&none, &one) && !covers(&one, &none));
        // Both of two must acknowledge, one goes: the store first, any one recruit has everything.
        assert!(covers(&one, &names("ab", 2)));
        assert!(!covers(&names("ab", 2), &one));
        // Another in place of the only one: neither order will do, it takes a step between.
        assert!(!covers(&names("b", 1), &one) && !covers(&one, &names("b", 1)));
    }

    #[test]
    fn it_is_what_trying_all_sets_says() {
        fn subsets(of: &BTreeSet<NodeId>, at_least: usize) -> Vec<BTreeSet<NodeId>> {
            let all: Vec<_> = of.iter().cloned().collect();
            let chosen =
                |bits: u32| (0..all.len()).filter(|at| bits >> at & 1 == 1).map(|at| all[at].clone()).collect();
            let sets = (0..1u32 << all.len()).map(chosen).filter(|set: &BTreeSet<_>| set.len() >= at_least);
            sets.collect()
        }
        let mut tried = 0;
        for (first, second) in
            [("abc", "bcd"), ("abc", "abc"), ("ab", "abc"), ("ab", "cd"), ("abcd", "ab"), ("a", "abcd")]
        {
            for k in 1..=first.len() as u32 {
                for l in 1..=second.len() as u32 {
                    let (record, server) = (names(first, k), names(second, l));
                    let needed = record.recruits_needed().unwrap();
                    let meets = |recruits: &BTreeSet<NodeId>| {
                        subsets(&server.voters, l as usize).iter().all(|acks| !acks.is_disjoint(recruits))
                    };
                    let all = subsets(&record.voters, needed).iter().all(meets);
                    assert_eq!(covers(&record, &server), all, "{record:?} {server:?}");
                    tried += 1;
                }
            }
        }
        assert!(tried > 30);
    }
}
