//! Is the primary of the record down, and why do we think so?
//!
//! It takes a row of failed probes, and that no standby still receives from it: then it may be our own network. A standby
//! that is fed holds the decision up for a bounded time only, as it may itself be wrong.

use super::brain::after;
use super::nodes::Known;
use super::{Brain, Symptom};
use crate::types::{Millis, NodeId};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Health {
    Fine,
    /// Nothing can be said yet, or nothing may be done yet.
    Doubtful(String),
    Down {
        cause: String,
        is_soft: bool,
        since: Millis,
    },
    /// It runs, but is not the server it was: what was under way there is gone.
    Restarted(String),
    /// It says that it is a standby.
    Demoted,
}

/// A server that refuses connections is asked again so soon; one that dies takes about that long to do it.
const REFUSED_AGAIN_MS: u64 = 30;
/// A standby that should have lost its receiver is asked again so soon.
const FED_AGAIN_MS: u64 = 50;
/// New epochs within `anti_flap`, whatever the symptom.
pub(super) const MOST_EPOCHS: usize = 5;

impl Brain {
    pub(super) fn health(&mut self) -> Health {
        let Some(primary) = self.record.as_ref().map(|record| record.primary.clone()) else {
            return Health::Doubtful("no record".into());
        };
        let Some(known) = self.known(&primary).cloned() else {
            return Health::Doubtful(format!("{primary} is not in the configuration"));
        };
        match (&known.trouble, &known.seen) {
            (Some(_), _) => self.health_in_trouble(&primary, &known),
            (None, None) => Health::Doubtful(format!("{primary} has not been seen yet")),
            (None, Some(_)) => self.health_of_answer(&primary, &known),
        }
    }

    fn health_in_trouble(&mut self, primary: &NodeId, known: &Known) -> Health {
        let Some(trouble) = known.trouble.clone() else { return Health::Fine };
        let Some(reached) = trouble.reached else {
            return match trouble.symptom {
                Symptom::Rejected => {
                    let text = format!(
                        "{primary} answers, but not to us, which is no reason for a failover: {}",
                        trouble.text
                    );
                    self.say_once("rejected", text.clone());
                    Health::Doubtful(text)
                }
                Symptom::Starting => {
                    let until = after(trouble.starting.unwrap_or(self.now), self.policy.restart_wait.0);
                    let text = format!(
                        "{primary} starts up; it is waited for until {} ms have passed",
                        self.policy.restart_wait.0
                    );
                    self.say_once("starting", text.clone());
                    self.probe_at(primary, until);
                    Health::Doubtful(text)
                }
                Symptom::Refused | Symptom::Silent => {
                    let wait = if trouble.symptom == Symptom::Refused { REFUSED_AGAIN_MS } else { 0 };
                    self.probe_at(primary, after(known.looked.unwrap_or(self.now), wait));
                    Health::Doubtful(format!("{primary} missed {} probes: {}", trouble.misses, trouble.text))
                }
            };
        };
        let is_soft = trouble.symptom == Symptom::Silent;
        if let Some(wait) = self.wait_for_standbys(primary, trouble.since, reached, is_soft) {
            return Health::Doubtful(wait);
        }
        let cause = format!("{primary} is down: {} ({} probes missed)", trouble.text, self.policy.misses);
        self.unless_flapping(Health::Down { cause, is_soft, since: trouble.since })
    }

    /// Why the standbys' word does not allow a decision yet.
    fn wait_for_standbys(&mut self, primary: &NodeId, since: Millis, reached: Millis, is_soft: bool) -> Option<String> {
        let veto_ends = after(since, self.policy.veto.0);
        if self.now >= veto_ends {
            return None;
        }
        let maintenance = self.record.as_ref().map(|record| record.maintenance.clone()).unwrap_or_default();
        let others: Vec<NodeId> =
            self.nodes.keys().filter(|node| *node != primary && !maintenance.contains(*node)).cloned().collect();
        let (mut fed, mut unheard) = (Vec::new(), Vec::new());
        for node in others {
            let Some(known) = self.known(&node) else { continue };
            if !known.looked_since(since) {
                unheard.push(node);
            } else if known.is_fed(self.now, primary, &self.policy) {
                fed.push((node, known.looked.unwrap_or(self.now)));
            }
        }
        if let [(first, _), ..] = fed.as_slice() {
            let text = format!("{primary} does not answer us, but {first} still receives from it: no failover for now");
            self.say_once("veto", text.clone());
            for (node, looked) in &fed {
                let wait = if is_soft { self.policy.probe_interval.0 } else { FED_AGAIN_MS };
                self.probe_at(node, after(*looked, wait));
            }
            self.wake_at(veto_ends);
            return Some(text);
        }
        let patience = after(reached, self.policy.probe_timeout.0);
        if unheard.is_empty() || self.now >= patience {
            return None;
        }
        for node in &unheard {
            self.probe_at(node, self.now);
        }
        self.wake_at(patience.min(veto_ends));
        Some(format!("{primary} does not answer; waiting to hear whether a standby still receives from it"))
    }

    fn health_of_answer(&mut self, primary: &NodeId, known: &Known) -> Health {
        let (Some(seen), Some(record)) = (known.answers(), &self.record) else { return Health::Fine };
        let Some(stable) = self.mode.stable() else { return Health::Fine };
        let is_older = seen.timeline < record.timeline || seen.last_epoch.is_some_and(|last| last < record.written);
        if seen.is_in_recovery || is_older || seen.is_fenced {
            let at = known.seen.as_ref().map(|seen| seen.at).unwrap_or_default();
            let from = self.led_since.map(|since| after(since, self.policy.probe_timeout.0));
            if Some(at) < from {
                self.probe_at(primary, after(known.looked.unwrap_or(self.now), REFUSED_AGAIN_MS));
                return Health::Doubtful(format!("{primary} has not been seen since it was promoted"));
            }
            if is_older && !seen.is_in_recovery {
                let cause = format!("{primary} has data from before epoch {}", record.written);
                return self.unless_flapping(Health::Down { cause, is_soft: false, since: at });
            }
            if seen.is_in_recovery {
                return Health::Demoted;
            }
            return self.unless_flapping(Health::Restarted(format!("{primary} is fenced though it is the primary")));
        }
        if seen.timeline > record.timeline {
            let text = format!("{primary} went on to timeline {} by itself", seen.timeline.0);
            return self.unless_flapping(Health::Restarted(text));
        }
        if stable.incarnation.is_some_and(|before| before != seen.incarnation) {
            return self.unless_flapping(Health::Restarted(format!("{primary} crashed and restarted")));
        }
        match &stable.beats {
            Some((since, times, reason)) if *times >= self.policy.misses => {
                let cause =
                    format!("{primary} answers, but cannot write: {reason} ({} heartbeats missed)", self.policy.misses);
                self.unless_flapping(Health::Down { cause, is_soft: true, since: *since })
            }
            _ => Health::Fine,
        }
    }

    fn unless_flapping(&mut self, health: Health) -> Health {
        let window = self.policy.anti_flap.0;
        while self.openings.front().is_some_and(|opened| after(*opened, window) <= self.now) {
            self.openings.pop_front();
        }
        let (cause, is_soft) = match &health {
            Health::Down { cause, is_soft, .. } => (cause.clone(), *is_soft),
            Health::Restarted(cause) => (cause.clone(), false),
            _ => return health,
        };
        let mut until = Millis(0);
        if let Some(recovered) = self.recovered.filter(|_| is_soft) {
            until = after(recovered, window);
        }
        if let Some(oldest) = self.openings.front().filter(|_| self.openings.len() >= MOST_EPOCHS) {
            until = until.max(after(*oldest, window));
        }
        if self.is_due(until) {
            return health;
        }
        let text = format!("{cause}; the last change was less than {window} ms ago, so it waits (failover.anti_flap)");
        self.say_once("anti_flap", text.clone());
        Health::Doubtful(text)
    }
}
