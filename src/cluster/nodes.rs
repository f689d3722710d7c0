//! What is known of each node: what it last said, and since when it says nothing.
//!
//! Facts only; what follows from them is decided in `detect`, `voters` and `returning`.

use super::agent::{Data, Report, Server};
use super::{Observation, Policy, Sight, Symptom};
use crate::types::{Lsn, Millis, NodeId, Timeline};

#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The last answer, however old.
    pub seen: Option<Sighting>,
    /// Set by a probe that failed, until one is answered.
    pub trouble: Option<Trouble>,
    /// When the last probe ended, whatever came of it.
    pub looked: Option<Millis>,
    /// A probe was asked for and has not ended.
    pub asked: Option<Millis>,
    /// Since when it has no WAL receiver, as a standby.
    pub unfed_since: Option<Millis>,
    /// Since when the primary does not stream to it, and in how many answers in a row; `None` while it does.
    pub unstreamed: Option<(Millis, u32)>,
    /// Whom it was last seen to receive from, and on which timeline.
    pub received_from: Option<(NodeId, Timeline)>,
    /// Whom it last took the order to follow.
    pub followed: Option<NodeId>,
    /// It belongs to another cluster.
    pub is_foreign: bool,
    /// What its agent last said, and when; `Err`: why it did not answer.
    pub agent: Option<(Millis, Result<Report, String>)>,
    /// Since when, as a standby that lacks something, it has replayed nothing.
    pub still: Option<Still>,
    /// Since when its server does not come up although it has a standby's data, and nothing is asked of its agent.
    pub stuck_since: Option<Millis>,
}

#[derive(Clone, Debug)]
pub(super) struct Still {
    pub since: Millis,
    pub replayed: Lsn,
    /// How often its receiver has gone since then.
    pub losses: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub at: Millis,
    pub what: Observation,
}

#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// The first probe of those in a row that count as missed; while none does, of the last that failed.
    pub since: Millis,
    pub misses: u32,
    /// When there were as many misses as the policy asks for.
    pub reached: Option<Millis>,
    /// Since when it says that it starts up.
    pub starting: Option<Millis>,
    pub symptom: Symptom,
    pub text: String,
}

impl Known {
    /// The answer, if the last probe had one.
    pub fn answers(&self) -> Option<&Observation> {
        self.trouble.is_none().then_some(())?;
        self.seen.as_ref().map(|seen| &seen.what)
    }

    /// The answer, if it was given after this moment and is the last that was heard.
    pub fn answered_since(&self, since: Millis) -> Option<&Observation> {
        self.answers().filter(|_| self.seen.as_ref().is_some_and(|seen| seen.at >= since))
    }

    pub fn is_primary(&self) -> bool {
        self.answers().is_some_and(|seen| !seen.is_in_recovery)
    }

    pub fn looked_since(&self, since: Millis) -> bool {
        self.looked.is_some_and(|looked| looked >= since)
    }

    /// As many misses as it takes to believe that it is gone.
    pub fn is_missed(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.reached.is_some())
    }

    /// `highest`: how far its primary is known to be.
    pub fn learn(&mut self, now: Millis, sight: Sight, highest: Lsn, policy: &Policy) {
        self.looked = Some(now);
        self.asked = None;
        match sight {
            Sight::Answers(what) => {
                self.unfed_since = match what.is_in_recovery && what.receiver.is_none() {
                    true => self.unfed_since.or(Some(now)),
                    false => None,
                };
                if let Some(from) = what.receiver.as_ref().and_then(|receiver| receiver.from.clone()) {
                    self.received_from = Some((from, what.timeline));
                }
                self.learn_replay(now, &what, highest);
                self.seen = Some(Sighting { at: now, what: *what });
                self.trouble = None;
            }
            Sight::Fails(symptom, text) => self.miss(now, symptom, text, policy),
        }
    }

    /// Where replay is paused, delayed or blocked, the receiver stays; where the log it gets does not fit its own, it comes and
    /// goes.
    fn learn_replay(&mut self, now: Millis, what: &Observation, highest: Lsn) {
        let had_receiver = self.answers().is_some_and(|before| before.receiver.is_some());
        let is_lost = had_receiver && what.receiver.is_none();
        let is_behind = what.is_in_recovery && what.replayed < highest;
        let same = self.still.take().filter(|still| still.replayed == what.replayed);
        self.still = is_behind.then(|| match same {
            Some(still) => Still { losses: still.losses + u32::from(is_lost), ..still },
            None => Still { since: now, replayed: what.replayed, losses: 0 },
        });
    }

    fn miss(&mut self, now: Millis, symptom: Symptom, text: String, policy: &Policy) {
        let trouble = self.trouble.get_or_insert_with(|| Trouble {
            since: now,
            misses: 0,
            reached: None,
            starting: None,
            symptom,
            text: String::new(),
        });
        (trouble.symptom, trouble.text) = (symptom, text);
        let counts = match symptom {
            Symptom::Refused | Symptom::Silent => true,
            Symptom::Starting => {
                let starting = *trouble.starting.get_or_insert(now);
                now.0 >= starting.0 + policy.restart_wait.0
            }
            Symptom::Rejected => {
                trouble.starting = None;
                false
            }
        };
        if !counts {
            (trouble.misses, trouble.reached) = (0, None);
            return;
        }
        if trouble.misses == 0 {
            trouble.since = now;
        }
        trouble.misses += 1;
        // A server that was given all of `restart_wait` has used up its misses.
        if trouble.misses >= policy.misses || symptom == Symptom::Starting {
            trouble.reached = trouble.reached.or(Some(now));
        }
    }

    pub fn hear_agent(&mut self, now: Millis, report: Result<Report, String>) {
        let is_stuck = report.as_ref().is_ok_and(|report| {
            let has_standby = matches!(report.data, Data::Present { is_standby: true, .. });
            has_standby && matches!(report.server, Server::Waiting { .. }) && report.doing.is_none()
        });
        self.stuck_since = is_stuck.then(|| self.stuck_since.unwrap_or(now));
        self.agent = Some((now, report));
    }

    /// What the primary says of its stream to this node.
    pub fn learn_stream(&mut self, now: Millis, is_streaming: bool) {
        self.unstreamed = match (is_streaming, self.unstreamed) {
            (true, _) => None,
            (false, Some((since, times))) => Some((since, times + 1)),
            (false, None) => Some((now, 1)),
        };
    }

    /// Whether it receives from this node, or from one it cannot name, as of now.
    pub fn is_fed(&self, now: Millis, by: &NodeId, policy: &Policy) -> bool {
        let Some(seen) = self.seen.as_ref().filter(|_| self.trouble.is_none()) else { return false };
        let Some(receiver) = seen.what.receiver.as_ref().filter(|_| seen.what.is_in_recovery) else { return false };
        let limit = (3 * policy.probe_interval.0).max(receiver.quiet.0 + policy.probe_interval.0);
        let age = receiver.fed_ago.0 + now.0.saturating_sub(seen.at.0);
        receiver.from.as_ref().is_none_or(|from| from == by) && age <= limit
    }
}
