//! What the brain is at, each mode with what it has to remember.

use std::collections::{BTreeMap, BTreeSet};

use super::candidate::Recruit;
use super::diagram::State;
use super::event::CommandId;
use crate::types::{Epoch, Lsn, Millis, NodeId, Timeline};

#[derive(Clone, Debug)]
pub(super) enum Mode {
    Unloaded,
    Adopting(Adopting),
    Stable(Stable),
    Switching(Switching),
    Recruiting(Recruiting),
    Settling(Settling),
    Promoting(Promoting),
    /// The database knows an epoch that the record does not: the store is older than what was done by it.
    Frozen {
        epoch: Epoch,
        reason: String,
    },
}

impl Mode {
    pub fn state(&self) -> State {
        match self {
            Mode::Unloaded => State::Unloaded,
            Mode::Adopting(_) => State::Adopting,
            Mode::Stable(_) => State::Stable,
            Mode::Switching(_) => State::Switching,
            Mode::Recruiting(_) => State::Recruiting,
            Mode::Settling(_) => State::Settling,
            Mode::Promoting(_) => State::Promoting,
            Mode::Frozen { .. } => State::Frozen,
        }
    }

    /// While the record's primary takes writes, also if it is about to be exchanged.
    pub fn stable(&self) -> Option<&Stable> {
        match self {
            Mode::Stable(stable) | Mode::Switching(Switching { stable, .. }) => Some(stable),
            _ => None,
        }
    }

    pub fn stable_mut(&mut self) -> Option<&mut Stable> {
        match self {
            Mode::Stable(stable) | Mode::Switching(Switching { stable, .. }) => Some(stable),
            _ => None,
        }
    }
}

/// No record: the cluster is looked at until it is clear who its primary is.
#[derive(Clone, Debug)]
pub(super) struct Adopting {
    pub since: Millis,
    /// No epoch up to this one is used again.
    pub floor: Epoch,
    pub reason: String,
}

/// The record's primary takes writes, or does as soon as it is seen to be what the record says.
#[derive(Clone, Debug, Default)]
pub(super) struct Stable {
    pub is_open: bool,
    /// Of the primary; another one means that it has restarted.
    pub incarnation: Option<u64>,
    /// Heartbeats that failed in a row: since when, how many, and why the last did.
    pub beats: Option<(Millis, u32, String)>,
    /// When it was first seen as a standby.
    pub demoted: Option<Millis>,
    /// Why it is not open.
    pub reason: String,
}

/// A planned change of primary, up to the closing: nothing has been touched.
#[derive(Clone, Debug)]
pub(super) struct Switching {
    /// What it goes on with if nothing comes of it.
    pub stable: Stable,
    pub change: Change,
    pub step: Before,
}

#[derive(Clone, Debug)]
pub(super) enum Before {
    /// The primary writes what is in its memory, so that it stops quickly later.
    Checkpoint { until: Millis },
    /// Both nodes are looked at again.
    Look { since: Millis },
    /// Open transactions end, new ones wait.
    Drain { until: Millis },
}

/// What becomes of the old primary at a switchover.
#[derive(Clone, Debug)]
pub(super) struct Retiring {
    /// Stopped by its agent; else fenced.
    pub by_agent: bool,
    pub state: Old,
}

#[derive(Clone, Debug)]
pub(super) enum Old {
    /// Nothing yet.
    Begins,
    /// It is being stopped or fenced.
    Ends { since: Millis },
    /// It has been, and this is the end of all it has written.
    Ended { since: Millis, end: Lsn },
    /// Nothing came of it: it is to take writes again.
    Returns { since: Millis },
}

/// What has been learnt on the way from one primary to the next.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub kind: &'static str,
    pub cause: String,
    /// The primary may be well but for what we see of it: frozen, cut off, unable to write.
    pub is_soft: bool,
    pub from: Option<NodeId>,
    /// What the primary of before was last seen as.
    pub incarnation: Option<u64>,
    /// When writes stopped being taken.
    pub closed: Millis,
    /// When the part now under way began.
    pub mark: Millis,
    pub phases: Vec<(&'static str, u64)>,
    pub recruits: BTreeMap<NodeId, Recruit>,
    /// Recruits that were to receive from the candidate; seen to be of the history of the primary of before, until then.
    pub levelled: BTreeSet<NodeId>,
    /// Recruits that could not be brought to the end of what they received, and why.
    pub unfit: BTreeMap<NodeId, String>,
    /// What one of them was seen to have received and not to be able to replay: the beginning of a record.
    pub torn: Option<Torn>,
    pub rejected: BTreeMap<NodeId, String>,
    pub known_loss: u64,
    pub order: Option<Order>,
    /// At a switchover, until it is a failover like any other.
    pub retiring: Option<Retiring>,
    /// A switchover of which nothing came: who asked for it, and why.
    pub undone: Option<(CommandId, String)>,
    /// The primary of before is taken back only if it answered at this moment or later.
    pub back_from: Millis,
}

/// The primary died while it wrote a record: the whole ones end at `from`, what was sent of the next ends at `to`. No commit
/// in it was acknowledged, since an acknowledged record is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Torn {
    pub from: Lsn,
    pub to: Lsn,
}

impl Change {
    pub fn new(kind: &'static str, cause: String, from: Option<NodeId>, now: Millis) -> Change {
        Change {
            kind,
            cause,
            is_soft: false,
            from,
            incarnation: None,
            closed: now,
            mark: now,
            phases: Vec::new(),
            recruits: BTreeMap::new(),
            levelled: BTreeSet::new(),
            unfit: BTreeMap::new(),
            torn: None,
            rejected: BTreeMap::new(),
            known_loss: 0,
            order: None,
            retiring: None,
            undone: None,
            back_from: now,
        }
    }

    /// Those who have received no more than was seen to be torn can replay no more either.
    pub fn leave_out_torn(&mut self, whom: impl Fn(&NodeId, &Recruit) -> bool) {
        let Some(torn) = self.torn else { return };
        for (node, recruit) in &mut self.recruits {
            if whom(node, recruit) && (torn.from..=torn.to).contains(&recruit.received) {
                recruit.received = torn.from;
            }
        }
    }

    /// The part called so ends now. One that is gone through twice counts as one.
    pub fn took(&mut self, part: &'static str, now: Millis) {
        let took = now.0.saturating_sub(self.mark.0);
        self.mark = now;
        match self.phases.iter_mut().find(|(name, _)| *name == part) {
            Some((_, before)) => *before += took,
            None => self.phases.push((part, took)),
        }
    }
}

/// An operator's wish that this node be the primary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Order {
    pub id: CommandId,
    pub to: NodeId,
    pub allow_data_loss: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Recruiting {
    pub change: Change,
    /// When the first recruits were asked for.
    pub began: Option<Millis>,
    /// The primary is expected back: nobody is taken off it.
    pub is_in_place: bool,
    /// Since when there are recruits enough to choose.
    pub enough: Option<Millis>,
    /// Those who could not be recruited, and why.
    pub failed: BTreeMap<NodeId, String>,
    /// When those who are unfit are tried again.
    pub again: Option<Millis>,
    /// Why nobody is chosen.
    pub reason: String,
}

impl Recruiting {
    pub fn new(change: Change, is_in_place: bool) -> Recruiting {
        let reason = change.cause.clone();
        let again = None;
        Recruiting { change, began: None, is_in_place, enough: None, failed: BTreeMap::new(), again, reason }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Settling {
    pub change: Change,
    pub candidate: NodeId,
    /// The primary of before is taken back: there is no promotion and no new timeline.
    pub is_back: bool,
    /// Recruits that are being brought up to it, or were and failed: nobody knows from whom they receive.
    pub adrift: BTreeSet<NodeId>,
    /// Since when it has settled.
    pub settled: Option<Millis>,
}

#[derive(Clone, Debug)]
pub(super) struct Promoting {
    pub change: Change,
    pub step: Step,
    pub reason: String,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// It is being made a primary.
    Promote,
    /// It is one. The others are made to follow, and the epoch's row is written.
    Lead { timeline: Timeline, fork: Option<Lsn>, row: Row },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Row {
    Missing,
    Written,
    /// The node has no place for it, or will not let us.
    Refused,
}
