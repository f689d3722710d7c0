//! The states the brain can be in and how it gets from one to another, as a table: what is not in it cannot happen
//! (`Brain::enter` looks it up), and `docs/failover.md` is printed from it.

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum State {
    Unloaded,
    Adopting,
    Stable,
    Switching,
    Recruiting,
    Settling,
    Promoting,
    Frozen,
}

use State::{Adopting, Frozen, Promoting, Recruiting, Settling, Stable, Switching, Unloaded};

pub const STATES: &[(State, &str)] = &[
    (Unloaded, "the store has not been read"),
    (Adopting, "no record yet: who is the primary?"),
    (Stable, "the primary takes writes"),
    (Switching, "a planned change: checkpoint, look, drain; nothing is touched"),
    (Recruiting, "nobody takes writes; standbys are taken off the primary"),
    (Settling, "the candidate replays all it has, commits in doubt are asked about"),
    (Promoting, "promote, follow, write the epoch's row"),
    (Frozen, "the store is older than the database"),
];

/// Each way from one state to another, and what leads there.
pub const TRANSITIONS: &[(State, State, &str)] = &[
    (Unloaded, Adopting, "the store holds no record"),
    (Unloaded, Stable, "the record is stable"),
    (Unloaded, Recruiting, "a failover was under way"),
    (Unloaded, Promoting, "a promotion was under way"),
    (Unloaded, Frozen, "the record is of another format"),
    (Adopting, Promoting, "exactly one node is a primary"),
    (Stable, Recruiting, "the primary is down, was restarted, or an operator asks for another"),
    (Stable, Promoting, "another node was promoted by hand"),
    (Stable, Switching, "an operator asks for a switchover, and nothing speaks against it"),
    (Switching, Stable, "it is called off"),
    (Switching, Recruiting, "the primary has drained"),
    (Switching, Frozen, "a node knows a later epoch than the record"),
    (Stable, Frozen, "a node knows a later epoch than the record"),
    (Recruiting, Settling, "a candidate is chosen, or the primary is taken back"),
    (Recruiting, Promoting, "another node was promoted by hand"),
    (Recruiting, Frozen, "a node knows a later epoch than the record"),
    (Settling, Recruiting, "the candidate fails or does not fit"),
    (Settling, Promoting, "it has everything"),
    (Settling, Frozen, "a node knows a later epoch than the record"),
    (Promoting, Stable, "the epoch's row is committed and the record is stable"),
    (Promoting, Recruiting, "the candidate fails: a new epoch"),
    (Promoting, Frozen, "a node knows a later epoch than the record"),
    (Frozen, Adopting, "an operator says `resume`: the next epoch after the database's"),
];

pub fn is_drawn(from: State, to: State) -> bool {
    TRANSITIONS.iter().any(|(one, other, _)| (*one, *other) == (from, to))
}

/// The diagram in the language of Mermaid.
pub fn mermaid() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> Unloaded\n");
    for (state, means) in STATES {
        text += &format!("    {state:?}: {state:?}<br/>{means}\n");
    }
    for (from, to, why) in TRANSITIONS {
        text += &format!("    {from:?} --> {to:?}: {why}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_described_and_can_be_reached_and_left() {
        for (from, to, _) in TRANSITIONS {
            assert!(STATES.iter().any(|(state, _)| state == from) && STATES.iter().any(|(state, _)| state == to));
        }
        for (state, _) in STATES {
            assert!(*state == Unloaded || TRANSITIONS.iter().any(|(_, to, _)| to == state), "{state:?}");
            assert!(TRANSITIONS.iter().any(|(from, _, _)| from == state), "{state:?}");
        }
        assert!(mermaid().contains("    Settling --> Promoting: it has everything\n"));
    }
}
