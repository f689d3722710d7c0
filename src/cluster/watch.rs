//! While a primary takes writes: is it still there, and are its voters?

use super::brain::after;
use super::detect::Health;
use super::mode::{Change, Mode, Promoting, Recruiting, Stable, Step};
use super::{Brain, Lead, Phase, Record};
use crate::types::{Durability, Epoch, Lsn, Millis, NodeId};

impl Brain {
    pub(super) fn watch(&mut self) {
        self.care_for_others();
        self.mend();
        if self.pending.is_some() {
            return;
        }
        let Some(record) = self.record.clone() else { return };
        if let Some(reason) = self.start_stopped_primary(&record) {
            return self.set_stable_reason(reason);
        }
        let may_fail_over = self.policy.automatic && !record.paused;
        let health = self.health();
        match &health {
            Health::Fine | Health::Doubtful(_) => {}
            Health::Restarted(cause) | Health::Down { cause, .. } => self.call_off(cause.clone()),
            Health::Demoted => self.call_off(format!("{} is a standby now", record.primary)),
        }
        match health {
            Health::Fine => {
                self.watch_well(&record);
                self.switch(&record, true);
            }
            Health::Doubtful(reason) => {
                self.set_stable_reason(reason);
                self.switch(&record, false);
            }
            Health::Restarted(cause) => {
                let mut change = Change::new("restart", cause, Some(record.primary.clone()), self.now);
                change.incarnation = self.incarnation();
                self.begin(change, true);
            }
            // Whoever took its place by hand should be known before anybody else is chosen.
            Health::Demoted if !self.has_heard_all_since_demotion() => {
                let cause = format!("{} is a standby now, which was not ordered here", record.primary);
                self.close(record.epoch, cause.clone());
                self.set_stable_reason(cause);
            }
            Health::Demoted => {
                let cause = format!("{} is a standby now, which was not ordered here", record.primary);
                if !self.adopt_by_hand(&record) && may_fail_over {
                    self.begin(Change::new("failover", cause, Some(record.primary.clone()), self.now), false);
                } else if matches!(self.mode, Mode::Stable(_)) {
                    self.close(record.epoch, cause.clone());
                    self.stay(cause);
                }
            }
            Health::Down { cause, is_soft, since } if may_fail_over => {
                let mut change = Change::new("failover", cause, Some(record.primary.clone()), self.now);
                change.is_soft = is_soft;
                change.incarnation = self.incarnation();
                change.mark = since;
                change.took("detect", self.now);
                self.begin(change, false);
            }
            Health::Down { cause, .. } => {
                if !self.adopt_by_hand(&record) {
                    let why = if record.paused { "paused" } else { "failover.automatic is off" };
                    self.stay(format!("{why}: {cause}, and nothing is done"));
                }
            }
        }
    }

    fn has_heard_all_since_demotion(&mut self) -> bool {
        let now = self.now;
        let Some(stable) = self.mode.stable_mut() else { return true };
        let since = *stable.demoted.get_or_insert(now);
        self.has_heard_all(since)
    }

    /// Whether each node was looked at since then, or has had its time to answer.
    pub(super) fn has_heard_all(&mut self, since: Millis) -> bool {
        let unheard: Vec<NodeId> =
            self.nodes.iter().filter(|(_, known)| !known.looked_since(since)).map(|(node, _)| node.clone()).collect();
        let patience = after(since, self.policy.probe_timeout.0 + self.policy.probe_interval.0);
        if unheard.is_empty() || self.is_due(patience) {
            return true;
        }
        for node in unheard {
            self.probe_at(&node, self.now);
        }
        false
    }

    /// The trouble is named, and left to people.
    fn stay(&mut self, reason: String) {
        self.say_once("stay", reason.clone());
        self.set_stable_reason(reason);
    }

    fn set_stable_reason(&mut self, text: String) {
        if let Some(stable) = self.mode.stable_mut() {
            stable.reason = text;
        }
    }

    fn incarnation(&self) -> Option<u64> {
        self.mode.stable().and_then(|stable| stable.incarnation)
    }

    fn watch_well(&mut self, record: &Record) {
        let Some(seen) = self.known(&record.primary).and_then(|known| known.answers()).cloned() else { return };
        self.said.remove("stay");
        self.said.remove("veto");
        if let Some(stable) = self.mode.stable_mut() {
            stable.incarnation = stable.incarnation.or(Some(seen.incarnation));
            stable.reason = String::new();
        }
        // Until that is over nothing changes.
        if self.is_draining() {
            return;
        }
        self.maintain_voters();
        let Some(stable) = self.mode.stable_mut() else { return };
        stable.demoted = None;
        if stable.is_open && matches!(self.lead, Some(Lead::Open { .. })) {
            return;
        }
        // One of the others may know that the store is too old to be believed.
        if !self.has_heard_all(self.loaded_at) {
            return self.set_stable_reason("waiting to hear from all nodes".into());
        }
        if self.pending.is_some() || record.durability == Durability::Quorum && !self.is_in_force(&record.sync()) {
            let reason = "waiting until the voters acknowledge commits".to_string();
            return self.set_stable_reason(reason);
        }
        if let Some(stable) = self.mode.stable_mut() {
            *stable = Stable { is_open: true, ..stable.clone() };
        }
        self.say(false, format!("{} takes writes in epoch {}", record.primary, record.epoch));
        self.open(record);
    }

    pub(super) fn open(&mut self, record: &Record) {
        self.closed_since = None;
        self.publish(Lead::Open { epoch: record.epoch, primary: record.primary.clone(), timeline: record.timeline });
    }

    /// A new epoch: nobody takes writes from now on, and when that is stored, nodes may be touched for it.
    pub(super) fn begin(&mut self, change: Change, is_in_place: bool) {
        let Some(record) = self.record.clone().map(Record::before_loss) else { return };
        let record = Record {
            epoch: record.epoch.next(),
            phase: Phase::Recruiting,
            // After a promotion that never took writes, the fork is what says who has everything.
            fork_lsn: record.fork_lsn.filter(|_| record.phase != Phase::Stable),
            coordinator: self.policy.coordinator.clone(),
            cause: change.cause.clone(),
            since: self.unix(self.now),
            ..record
        };
        self.forget_jobs();
        self.close(record.epoch, change.cause.clone());
        // What people ask for is no flapping.
        if change.kind != "switchover" {
            self.openings.push_back(self.now);
        }
        let reason = format!("epoch {}: {}", record.epoch, change.cause);
        self.enter(Mode::Recruiting(Recruiting::new(change, is_in_place)), reason);
        self.store(record);
    }

    pub(super) fn unix(&self, at: Millis) -> u64 {
        self.unix_ms_at_zero + at.0
    }

    /// Another node of this cluster, promoted by somebody after the record's primary was: it knows the last epoch that
    /// was written, which a primary of the past does not.
    ///
    /// Not where no acknowledged commit may be lost: where it left the log of the record's primary cannot be seen any
    /// more, and others may have acknowledged commits after that. It needs to rejoin as a standby then; unless people have
    /// taken over (paused, or not automatic), who then answer for it.
    pub(super) fn adopt_by_hand(&mut self, record: &Record) -> bool {
        if self.policy.automatic && !record.paused && record.durability == Durability::Quorum {
            return false;
        }
        let is_it = |node: &NodeId| {
            let seen = self.known(node).and_then(|known| known.answers());
            seen.filter(|seen| {
                !seen.is_in_recovery
                    && !seen.is_fenced
                    && seen.timeline > record.timeline
                    && seen.last_epoch.unwrap_or(Epoch(0)) == record.written
            })
        };
        let found: Vec<NodeId> = self
            .nodes
            .keys()
            .filter(|node| **node != record.primary && self.is_wanted(node) && is_it(node).is_some())
            .cloned()
            .collect();
        let [node] = found.as_slice() else { return false };
        let Some(timeline) = is_it(node).map(|seen| seen.timeline) else { return false };
        let cause = format!("{node} was promoted by hand, to timeline {}", timeline.0);
        let change = Change::new("by hand", cause.clone(), Some(record.primary.clone()), self.now);
        let record = Record {
            epoch: record.epoch.next(),
            phase: Phase::Promoting,
            primary: node.clone(),
            former: Some(record.primary.clone()),
            timeline,
            fork_lsn: None,
            // What others had to acknowledge was acknowledged to another primary: this one was declared to have everything.
            voters: Default::default(),
            k: 0,
            coordinator: self.policy.coordinator.clone(),
            cause: cause.clone(),
            since: self.unix(self.now),
            ..record.clone()
        };
        self.forget_jobs();
        self.close(record.epoch, cause.clone());
        self.openings.push_back(self.now);
        self.highest = Lsn(0);
        let reason = format!("epoch {}: {cause}", record.epoch);
        self.enter(Mode::Promoting(Promoting { change, step: Step::Promote, reason: cause }), reason);
        self.store(record);
        true
    }
}
