//! The state machine itself: what it remembers, and the one way in.
//!
//! An event only changes what is known; then everything is thought over again from what is known (`think`), until nothing
//! more is to be done. A decision therefore never hangs on an event that was missed. Whatever waits for a moment says so
//! (`wake_at`) each time it is thought over, and the earliest of these is the next deadline.
//!
//! ```text
//! Unloaded ─► Adopting ─► Promoting ─► Stable ─► Recruiting ─► Settling ─► Promoting ─► …      (see `diagram`)
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::diagram::is_drawn;
use super::event::CommandId;
use super::jobs::{Retry, Running};
use super::mode::{Adopting, Change, Mode, Promoting, Recruiting, Stable, Step};
use super::nodes::Known;
use super::record::FORMAT;
use super::rejoin::Mending;
use super::store::Pending;
use super::{Action, Command, Event, JobId, Lead, Phase, Policy, Record, Sight, Symptom, SyncNames};
use crate::types::{Epoch, Lsn, Millis, NodeId};

/// See the module's page. `step` is the only thing that changes it.
#[derive(Clone, Debug)]
pub struct Brain {
    pub(super) policy: Policy,
    pub(super) now: Millis,
    /// What the calendar says at `Millis(0)`.
    pub(super) unix_ms_at_zero: u64,
    pub(super) loaded_at: Millis,
    pub(super) mode: Mode,
    /// What the store holds, as far as it has confirmed.
    pub(super) record: Option<Record>,
    pub(super) pending: Option<Pending>,
    pub(super) serial: u64,
    pub(super) nodes: BTreeMap<NodeId, Known>,
    pub(super) jobs: BTreeMap<JobId, Running>,
    pub(super) last_job: u64,
    /// How it went with nodes that had to be made standbys again.
    pub(super) mending: BTreeMap<NodeId, Mending>,
    /// What must not be tried again before.
    pub(super) not_before: BTreeMap<Retry, Millis>,
    /// Probes to ask for, and when.
    pub(super) probes: BTreeMap<NodeId, Millis>,
    /// What may be in force as `synchronous_standby_names` on the primary: one, or several while a change is under way
    /// or its outcome unknown. Empty: nothing is known.
    pub(super) in_force: BTreeSet<SyncNamesKey>,
    /// What was acknowledged before is covered by one of these too. Not so when pgbaton has only just found the primary.
    pub(super) is_accounted: bool,
    /// When one of them was last seen to be in force. Probes from before that say nothing about it.
    pub(super) sync_at: Millis,
    /// When the primary was made one. A probe begun before may still say that it is a standby.
    pub(super) led_since: Option<Millis>,
    /// The furthest position seen on the primary of the record.
    pub(super) highest: Lsn,
    /// Answers of jobs that wait until the record is stored.
    pub(super) held: Vec<(JobId, Result<super::Answer, super::Failure>)>,
    /// When the epochs of the last `anti_flap` were opened, and when writes were last taken again after a failover.
    pub(super) openings: VecDeque<Millis>,
    pub(super) recovered: Option<Millis>,
    pub(super) commands: VecDeque<(CommandId, Command)>,
    pub(super) lead: Option<Lead>,
    pub(super) closed_since: Option<Millis>,
    /// What was said last about each matter, so that it is said once.
    pub(super) said: BTreeMap<String, String>,
    pub(super) wakes: BTreeSet<Millis>,
    pub(super) out: Vec<Action>,
}

/// [`SyncNames`] in an order.
pub(super) type SyncNamesKey = (BTreeSet<NodeId>, u32);

pub(super) fn key(names: &SyncNames) -> SyncNamesKey {
    (names.voters.clone(), names.k)
}

pub(super) fn names((voters, k): &SyncNamesKey) -> SyncNames {
    SyncNames { voters: voters.clone(), k: *k }
}

impl Brain {
    pub fn new(policy: Policy) -> Brain {
        let nodes = policy.nodes.keys().map(|node| (node.clone(), Known::default())).collect();
        Brain {
            policy,
            now: Millis(0),
            unix_ms_at_zero: 0,
            loaded_at: Millis(0),
            mode: Mode::Unloaded,
            record: None,
            pending: None,
            serial: 0,
            nodes,
            jobs: BTreeMap::new(),
            last_job: 0,
            mending: BTreeMap::new(),
            not_before: BTreeMap::new(),
            probes: BTreeMap::new(),
            in_force: BTreeSet::new(),
            is_accounted: false,
            sync_at: Millis(0),
            led_since: None,
            highest: Lsn(0),
            held: Vec::new(),
            openings: VecDeque::new(),
            recovered: None,
            commands: VecDeque::new(),
            lead: None,
            closed_since: None,
            said: BTreeMap::new(),
            wakes: BTreeSet::new(),
            out: Vec::new(),
        }
    }

    /// What is to be done now that this has happened. `now` never goes back.
    pub fn step(&mut self, now: Millis, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        match event {
            Event::Loaded { record, unix_ms_at_zero } => self.loaded(record, unix_ms_at_zero),
            Event::Seen { node, sight } => self.seen(node, sight),
            Event::Agent { node, report } => self.heard_agent(&node, report.map(|report| *report)),
            Event::Nodes(nodes) => self.nodes_changed(nodes),
            Event::Beat { node, epoch, result } => self.beat(&node, epoch, result),
            Event::Stored { serial, result, .. } => self.stored(serial, result),
            Event::Done { id, result } => self.done(id, result),
            Event::Asked { id, command } => self.commands.push_back((id, command)),
            Event::Tick => {}
        }
        // Each round that does something leads to one that has less to do; the bound only keeps an error from hanging.
        for _ in 0..64 {
            let before = self.out.len();
            self.wakes.clear();
            self.think();
            if self.out.len() == before {
                break;
            }
        }
        std::mem::take(&mut self.out)
    }

    /// When it wants to be stepped with [`Event::Tick`] if nothing happens before.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.wakes.first().copied()
    }

    fn think(&mut self) {
        self.expire_jobs();
        self.retry_store();
        self.take_up_held();
        if matches!(self.mode, Mode::Unloaded) {
            return;
        }
        self.let_go();
        self.look_for_later_epochs();
        self.obey();
        match self.mode {
            Mode::Unloaded | Mode::Frozen { .. } => {}
            Mode::Adopting(_) => self.adopt(),
            Mode::Stable(_) | Mode::Switching(_) => self.watch(),
            Mode::Recruiting(_) => self.recruit(),
            Mode::Settling(_) => self.settle(),
            Mode::Promoting(_) => self.promote(),
        }
        self.ask_probes();
    }

    // --- what happened -----------------------------------------------------------------------------------------------

    fn loaded(&mut self, record: Option<Record>, unix_ms_at_zero: u64) {
        if !matches!(self.mode, Mode::Unloaded) {
            return;
        }
        self.unix_ms_at_zero = unix_ms_at_zero;
        self.loaded_at = self.now;
        let Some(record) = record else {
            let mode = Adopting { since: self.now, floor: Epoch(0), reason: "looking for the primary".into() };
            self.close(Epoch(1), "no node has been seen to be the primary yet".into());
            return self.enter(Mode::Adopting(mode), "the store holds no record".into());
        };
        let epoch = record.epoch;
        if record.format != FORMAT {
            let reason = format!("the record in the store has format {}, this pgbaton knows {FORMAT}", record.format);
            self.close(epoch, reason.clone());
            return self.enter(Mode::Frozen { epoch, reason: reason.clone() }, reason);
        }
        self.close(epoch, format!("{} has not been seen to be the primary of epoch {epoch} yet", record.primary));
        let about = format!("epoch {epoch}, {}, {}", record.phase.as_str(), record.primary);
        let mut change = Change::new("failover", record.cause.clone(), record.former.clone(), self.now);
        let mode = match record.phase {
            Phase::Stable => Mode::Stable(Stable::default()),
            Phase::Recruiting => {
                change.from = Some(record.primary.clone());
                Mode::Recruiting(Recruiting::new(change, false))
            }
            Phase::Promoting => {
                Mode::Promoting(Promoting { change, step: Step::Promote, reason: "going on with the promotion".into() })
            }
        };
        self.record = Some(record);
        self.enter(mode, format!("the record says: {about}"));
    }

    fn seen(&mut self, node: NodeId, sight: Sight) {
        let Some(known) = self.nodes.get_mut(&node) else { return };
        let sight = match (&self.record, sight) {
            // Somebody else's server at this address is no sign of life of ours, and is never touched.
            (Some(record), Sight::Answers(seen)) if seen.system_identifier != record.system_identifier => {
                known.is_foreign = true;
                let text = format!("belongs to another cluster ({})", seen.system_identifier);
                Sight::Fails(Symptom::Refused, text)
            }
            (_, Sight::Answers(seen)) => {
                known.is_foreign = false;
                Sight::Answers(seen)
            }
            (_, fails) => fails,
        };
        known.learn(self.now, sight, self.highest, &self.policy);
        self.learn_from_primary(&node);
    }

    /// What the primary says about itself and its standbys.
    fn learn_from_primary(&mut self, node: &NodeId) {
        let is_ours = self.record.as_ref().is_some_and(|record| record.primary == *node);
        let Some(seen) = self.nodes.get(node).and_then(Known::answers).cloned() else { return };
        if !is_ours || seen.is_in_recovery {
            return;
        }
        self.highest = self.highest.max(seen.lsn);
        let now = self.now;
        for (other, known) in self.nodes.iter_mut().filter(|(other, _)| *other != node) {
            let is_streaming = seen.senders.iter().any(|sender| sender.node == *other && sender.is_streaming);
            known.learn_stream(now, is_streaming);
        }
    }

    fn beat(&mut self, node: &NodeId, epoch: Epoch, result: Result<(), super::Failure>) {
        let is_ours = self.record.as_ref().is_some_and(|record| record.primary == *node && record.epoch == epoch);
        let now = self.now;
        if let Some(stable) = self.mode.stable_mut()
            && is_ours
        {
            stable.beats = match (result, stable.beats.take()) {
                (Ok(()), _) => None,
                (Err(failure), Some((since, times, _))) => Some((since, times + 1, failure.reason)),
                (Err(failure), None) => Some((now, 1, failure.reason)),
            };
        }
    }

    /// A store that is older than the database must not be acted upon.
    fn look_for_later_epochs(&mut self) {
        let Some(record) = &self.record else { return };
        if matches!(self.mode, Mode::Frozen { .. } | Mode::Adopting(_)) {
            return;
        }
        let known = |known: &Known| known.seen.as_ref().filter(|_| !known.is_foreign)?.what.last_epoch;
        let pending = self.pending.as_ref().map_or(record.epoch, |pending| pending.record.epoch);
        let later = self.nodes.iter().filter_map(|(node, it)| Some((known(it)?, node))).max();
        let Some((last, node)) = later.filter(|(last, _)| *last > pending.max(record.epoch)) else { return };
        let reason = format!(
            "{node} knows epoch {last}, the store only {}: the store is older than the cluster. Nothing is done until an \
             operator has made sure that exactly one node is the primary, and says `resume`: epoch {} will follow",
            record.epoch,
            last.next()
        );
        if let Some(id) = self.asker() {
            self.out.push(Action::Answer { id, result: Err(reason.clone()) });
        }
        self.forget_jobs();
        self.close(last, reason.clone());
        self.enter(Mode::Frozen { epoch: last, reason: reason.clone() }, reason);
    }

    // --- what is done ------------------------------------------------------------------------------------------------

    /// The only way from one mode to another.
    pub(super) fn enter(&mut self, mode: Mode, reason: String) {
        let (from, to) = (self.mode.state(), mode.state());
        debug_assert!(is_drawn(from, to), "{from:?} → {to:?} is not in the diagram");
        let is_warning = !matches!(mode, Mode::Stable(_) | Mode::Adopting(_));
        self.say(is_warning, format!("{from:?} → {to:?}: {reason}"));
        self.mode = mode;
        self.said.clear();
        // What was asked of other nodes is not asked again sooner for that.
        self.not_before.retain(|what, _| matches!(what, Retry::Follow(_) | Retry::Fence(_) | Retry::Start(_)));
    }

    pub(super) fn say(&mut self, is_warning: bool, text: String) {
        self.out.push(Action::Say { is_warning, text });
    }

    /// Says it unless it is what was said last about this matter.
    pub(super) fn say_once(&mut self, matter: &str, text: String) {
        if self.said.get(matter) != Some(&text) {
            self.said.insert(matter.to_string(), text.clone());
            self.say(true, text);
        }
    }

    pub(super) fn close(&mut self, epoch: Epoch, reason: String) {
        self.closed_since = self.closed_since.or(Some(self.now));
        self.publish(Lead::Closed { epoch, reason });
    }

    pub(super) fn publish(&mut self, lead: Lead) {
        if self.lead.as_ref() != Some(&lead) {
            self.lead = Some(lead.clone());
            self.out.push(Action::Publish(lead));
        }
    }

    pub(super) fn wake_at(&mut self, at: Millis) {
        self.wakes.insert(at);
    }

    /// Whether this moment has come; if not, it is waited for.
    pub(super) fn is_due(&mut self, at: Millis) -> bool {
        if self.now < at {
            self.wake_at(at);
        }
        self.now >= at
    }

    /// Asks for a probe at this moment, or at once if it has passed.
    pub(super) fn probe_at(&mut self, node: &NodeId, at: Millis) {
        let first = self.probes.get(node).map_or(at, |other| at.min(*other));
        self.probes.insert(node.clone(), first);
    }

    fn ask_probes(&mut self) {
        let patience = self.policy.probe_timeout.0 + self.policy.probe_interval.0;
        for (node, at) in std::mem::take(&mut self.probes) {
            let Some(asked) = self.nodes.get(&node).map(|known| known.asked) else { continue };
            let at = asked.map_or(at, |asked| Millis(at.0.max(asked.0 + patience)));
            if !self.is_due(at) {
                continue;
            }
            if let Some(known) = self.nodes.get_mut(&node) {
                known.asked = Some(self.now);
            }
            self.out.push(Action::Probe(node));
        }
    }

    pub(super) fn known(&self, node: &NodeId) -> Option<&Known> {
        self.nodes.get(node)
    }
}

pub(super) fn after(at: Millis, by: u64) -> Millis {
    Millis(at.0 + by)
}
