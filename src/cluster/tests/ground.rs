//! A world of a few nodes for the stories: it does what the brain orders, promptly and without faults of its own, and
//! writes down what was ordered. What goes wrong is up to the story (`tests/sim` is where dice are thrown).

use std::collections::{BTreeMap, BTreeSet};

use super::agents::Agent;
use crate::cluster::*;
use crate::types::{Durability, Epoch, Lsn, Millis, NodeId, Timeline};

pub(super) const SYSTEM: u64 = 7;

pub(super) fn id(name: &str) -> NodeId {
    NodeId::from(name)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    Runs,
    Refuses,
    /// Frozen, or its host is gone.
    Silent,
    Starts,
    Rejects,
}

pub(super) struct Node {
    pub life: Life,
    pub seen: Observation,
    /// On a standby: since when its primary feeds it no more.
    pub starved: Option<u64>,
    /// Jobs on it that are never answered, by name.
    pub stuck: BTreeSet<&'static str>,
    /// Jobs on it that it will not do.
    pub refuses: BTreeSet<&'static str>,
    /// What its agent says, if it has one.
    pub agent: Option<Agent>,
    /// Its agent finds that it has not ended cleanly.
    pub crashed: bool,
}

pub(super) struct World {
    pub brain: Brain,
    pub now: u64,
    pub nodes: BTreeMap<NodeId, Node>,
    pub store_works: bool,
    pub stored: Option<Record>,
    pub beats: bool,
    /// Transactions that do not end while the primary drains; and nobody says so.
    pub undrained: usize,
    pub drain_hangs: bool,
    /// Cut off from us, but not from each other.
    pub unseen: BTreeSet<NodeId>,
    pub answers: Vec<(u64, Result<String, String>)>,
    due: Vec<(u64, Event)>,
    pub jobs: Vec<(u64, JobId, Epoch, Job)>,
    probes: BTreeMap<NodeId, u64>,
    script: Vec<String>,
    opened: BTreeMap<Epoch, NodeId>,
    notes: Vec<Note>,
    pub repairs: Vec<RepairNote>,
}

pub(super) fn policy(durability: Durability, nodes: &[&str]) -> Policy {
    let node = |name: &&str| (id(name), NodePolicy { priority: 100, zone: String::new(), has_agent: false });
    Policy {
        coordinator: "baton".into(),
        automatic: true,
        durability,
        acks: 1,
        max_lost_bytes: 1 << 20,
        misses: 3,
        probe_interval: Millis(250),
        probe_timeout: Millis(1000),
        veto: Millis(15_000),
        restart_wait: Millis(5000),
        anti_flap: Millis(30_000),
        voter_grace: Millis(3000),
        drain: Millis(1000),
        rejoins: true,
        job_limit: Millis(10_000),
        nodes: nodes.iter().map(node).collect(),
    }
}

/// A primary, n1, and its standbys, all at the same position.
pub(super) fn world(durability: Durability, names: &[&str]) -> World {
    world_of(policy(durability, names))
}

pub(super) fn world_of(policy: Policy) -> World {
    let node = |name: &NodeId| {
        let is_primary = &*name.0 == "n1";
        let receiver = Receiver { from: Some(id("n1")), fed_ago: Millis(5), quiet: Millis(2500) };
        let seen = Observation {
            system_identifier: SYSTEM,
            is_in_recovery: !is_primary,
            timeline: Timeline(1),
            lsn: Lsn(1000),
            replayed: Lsn(1000),
            incarnation: 1,
            last_epoch: None,
            receiver: (!is_primary).then_some(receiver),
            recruited_for: None,
            follows: (!is_primary).then(|| id("n1")),
            senders: Vec::new(),
            sync: is_primary.then(SyncNames::default),
            is_fenced: false,
        };
        let agent = policy.nodes[name].has_agent.then(Agent::default);
        let (stuck, refuses) = (BTreeSet::new(), BTreeSet::new());
        let node = Node { life: Life::Runs, seen, starved: None, stuck, refuses, agent, crashed: false };
        (name.clone(), node)
    };
    World {
        nodes: policy.nodes.keys().map(node).collect(),
        brain: Brain::new(policy),
        now: 0,
        store_works: true,
        stored: None,
        beats: true,
        undrained: 0,
        drain_hangs: false,
        unseen: BTreeSet::new(),
        answers: Vec::new(),
        due: Vec::new(),
        jobs: Vec::new(),
        probes: BTreeMap::new(),
        script: Vec::new(),
        opened: BTreeMap::new(),
        notes: Vec::new(),
        repairs: Vec::new(),
    }
}

/// In place of a node, where a job concerns none.
static NOBODY: std::sync::OnceLock<NodeId> = std::sync::OnceLock::new();

pub(super) fn name_of(job: &Job) -> (&'static str, &NodeId) {
    match job {
        Job::Recruit { node } => ("recruit", node),
        Job::Level { node, .. } => ("level", node),
        Job::Settle { node } => ("settle", node),
        Job::Promote { node, .. } => ("promote", node),
        Job::SetSync { node, .. } => ("set sync", node),
        Job::WriteEpoch { node, .. } => ("write epoch", node),
        Job::Follow { node, .. } => ("follow", node),
        Job::Fence { node } => ("fence", node),
        Job::Checkpoint { node } => ("checkpoint", node),
        Job::Drain { .. } => ("drain", NOBODY.get_or_init(|| id("sessions"))),
        Job::Stop { node, .. } => ("stop", node),
        Job::Start { node } => ("start", node),
        Job::Restart { node, .. } => ("restart", node),
        Job::Rejoin { node, .. } => ("rejoin", node),
        Job::Initialise { node } => ("initialise", node),
    }
}

fn sync_text(sync: &SyncNames) -> String {
    let voters: Vec<String> = sync.voters.iter().map(|voter| voter.to_string()).collect();
    if sync.k == 0 { "none".into() } else { format!("any {} of {}", sync.k, voters.join(",")) }
}

impl World {
    /// Loads what the store holds and lets things settle; the script begins after that.
    pub fn start(mut self) -> World {
        let record = self.stored.clone();
        self.tell(Event::Loaded { record, unix_ms_at_zero: 1_000_000 });
        self.run(4000);
        self.script.clear();
        self
    }

    /// pgbaton dies and is started again; what it had begun is lost with it.
    pub fn restart(&mut self, policy: Policy) {
        self.note("pgbaton restarts".into());
        self.brain = Brain::new(policy);
        self.jobs.clear();
        self.due.clear();
        self.probes.clear();
        let record = self.stored.clone();
        self.tell(Event::Loaded { record, unix_ms_at_zero: 0 });
    }

    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(&id(name)).expect("a node of this story")
    }

    pub fn kill(&mut self, name: &str) {
        self.note(format!("{name} dies"));
        self.node(name).life = Life::Refuses;
        let node = id(name);
        for other in self.nodes.values_mut() {
            if other.seen.receiver.as_ref().is_some_and(|receiver| receiver.from.as_ref() == Some(&node)) {
                other.seen.receiver = None;
            }
        }
    }

    pub fn freeze(&mut self, name: &str) {
        self.note(format!("{name} freezes"));
        self.node(name).life = Life::Silent;
        let (now, node) = (self.now, id(name));
        for other in self.nodes.values_mut() {
            if other.seen.receiver.as_ref().is_some_and(|receiver| receiver.from.as_ref() == Some(&node)) {
                other.starved = Some(now);
            }
        }
    }

    /// Runs again; a restarted one is another server to those who knew it.
    pub fn revive(&mut self, name: &str, is_restarted: bool) {
        self.note(format!("{name} is back"));
        let node = self.node(name);
        node.life = Life::Runs;
        node.seen.incarnation += u64::from(is_restarted);
        for other in self.nodes.values_mut() {
            other.starved = None;
        }
    }

    pub fn note(&mut self, text: String) {
        self.script.push(format!("-- {text}"));
    }

    pub fn ask(&mut self, number: u64, command: Command) {
        self.note(format!("asked: {command:?}"));
        self.tell(Event::Asked { id: CommandId(number), command });
    }

    /// The last look at the primary is from before it sent anything to this standby.
    pub fn look_before_it_streamed(&mut self, primary: &str, standby: &str) {
        let mut seen = self.observe(&id(primary));
        seen.senders.retain(|sender| sender.node != id(standby));
        self.tell(Event::Seen { node: id(primary), sight: Sight::Answers(Box::new(seen)) });
    }

    pub fn last_note(&self) -> &Note {
        self.notes.last().expect("a note was taken")
    }

    pub fn is_open_on(&self, name: &str) -> bool {
        matches!(&self.brain.lead, Some(Lead::Open { primary, .. }) if *primary == id(name))
    }

    pub fn run(&mut self, ms: u64) {
        self.run_until(ms, |_| false);
    }

    /// Until it is so; false: it was not, in all this time.
    pub fn run_until(&mut self, ms: u64, is_so: impl Fn(&World) -> bool) -> bool {
        let end = self.now + ms;
        loop {
            if is_so(self) {
                return true;
            }
            if self.now >= end {
                return false;
            }
            self.now += 1;
            self.turn();
        }
    }

    fn turn(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.due).into_iter().partition(|(at, _)| *at <= now);
        self.due = later;
        for (_, event) in due {
            self.tell(event);
        }
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.jobs).into_iter().partition(|job| job.0 <= now);
        self.jobs = waiting;
        for (_, id, epoch, job) in ready {
            match self.carry_out(epoch, &job) {
                Some(result) => self.tell(Event::Done { id, result }),
                None => self.jobs.push((now + 5, id, epoch, job)),
            }
        }
        if now.is_multiple_of(250) {
            self.reconnect();
            for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
                self.probe(node);
            }
            self.beat();
        }
        if now.is_multiple_of(500) {
            for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
                if let Some(report) = self.report(&node) {
                    self.tell(Event::Agent { node, report: report.map(Box::new) });
                }
            }
        }
        let (asked, later): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.probes).into_iter().partition(|(_, at)| *at <= now);
        self.probes = later;
        for (node, _) in asked {
            self.look(node);
        }
        if self.brain.next_deadline().is_some_and(|deadline| deadline.0 <= now) {
            self.tell(Event::Tick);
        }
    }

    /// Standbys find their primary again by themselves.
    fn reconnect(&mut self) {
        let ends: BTreeMap<NodeId, (Timeline, Lsn)> = self
            .nodes
            .iter()
            .filter(|(_, it)| it.life == Life::Runs && !it.seen.is_in_recovery)
            .map(|(node, it)| (node.clone(), (it.seen.timeline, it.seen.lsn)))
            .collect();
        for it in self.nodes.values_mut().filter(|it| it.life == Life::Runs && it.seen.is_in_recovery) {
            let end = it.seen.follows.as_ref().and_then(|follows| ends.get(follows));
            if let Some((timeline, lsn)) = end
                && it.seen.receiver.is_none()
                && it.seen.timeline == *timeline
                && it.seen.lsn <= *lsn
            {
                (it.seen.lsn, it.seen.replayed) = (*lsn, *lsn);
                let from = it.seen.follows.clone();
                it.seen.receiver = Some(Receiver { from, fed_ago: Millis(1), quiet: Millis(2500) });
            }
        }
    }

    fn beat(&mut self) {
        let Some(Lead::Open { epoch, primary, .. }) = self.brain.lead.clone() else { return };
        let node = &self.nodes[&primary];
        let result = match (node.life == Life::Runs, self.beats) {
            (true, true) => Ok(()),
            (true, false) => Err(Failure { kind: FailureKind::Refused, reason: "no space left on device".into() }),
            _ => Err(Failure { kind: FailureKind::Unreachable, reason: "no answer".into() }),
        };
        self.tell(Event::Beat { node: primary, epoch, result });
    }

    fn probe(&mut self, node: NodeId) {
        let is_silent = self.nodes[&node].life == Life::Silent || self.unseen.contains(&node);
        let at = self.now + if is_silent { 1000 } else { 1 };
        let first = self.probes.get(&node).map_or(at, |before| at.min(*before));
        self.probes.insert(node, first);
    }

    fn look(&mut self, node: NodeId) {
        let life = if self.unseen.contains(&node) { Life::Silent } else { self.nodes[&node].life };
        let sight = match life {
            Life::Runs => Sight::Answers(Box::new(self.observe(&node))),
            Life::Refuses => Sight::Fails(Symptom::Refused, "connection refused".into()),
            Life::Silent => Sight::Fails(Symptom::Silent, "no answer within 1 s".into()),
            Life::Starts => Sight::Fails(Symptom::Starting, "the database system is starting up".into()),
            Life::Rejects => Sight::Fails(Symptom::Rejected, "password authentication failed".into()),
        };
        self.tell(Event::Seen { node, sight });
    }

    fn streams_from(&self, primary: &NodeId) -> Vec<Sender> {
        let is_fed = |(node, it): (&NodeId, &Node)| {
            let from = it.seen.receiver.as_ref().filter(|_| it.life == Life::Runs)?.from.as_ref()?;
            (from == primary).then(|| Sender { node: node.clone(), is_streaming: true, flushed: it.seen.lsn })
        };
        self.nodes.iter().filter_map(is_fed).collect()
    }

    fn observe(&self, node: &NodeId) -> Observation {
        let it = &self.nodes[node];
        let mut seen = it.seen.clone();
        if let (Some(receiver), Some(since)) = (&mut seen.receiver, it.starved) {
            receiver.fed_ago = Millis(self.now - since);
        }
        if !seen.is_in_recovery {
            seen.senders = self.streams_from(node);
        }
        seen
    }

    fn can_commit(&self, primary: &NodeId) -> bool {
        let sync = self.nodes[primary].seen.sync.clone().unwrap_or_default();
        let streams = self.streams_from(primary);
        streams.iter().filter(|sender| sync.voters.contains(&sender.node)).count() >= sync.k as usize
    }

    fn carry_out(&mut self, epoch: Epoch, job: &Job) -> Option<Result<Answer, Failure>> {
        let (name, node) = name_of(job);
        if matches!(name, "stop" | "start" | "restart" | "rejoin" | "initialise") {
            return self.carry_out_by_agent(epoch, job);
        }
        if let Job::Drain { .. } = job {
            return (!self.drain_hangs).then_some(Ok(Answer::Drained { left: self.undrained }));
        }
        let it = self.nodes.get(node)?;
        if it.life != Life::Runs || self.unseen.contains(node) {
            let failure = Failure { kind: FailureKind::Unreachable, reason: "no connection".into() };
            return (it.life != Life::Silent && !self.unseen.contains(node)).then_some(Err(failure));
        }
        if it.stuck.contains(name) {
            return None;
        }
        if it.refuses.contains(name) {
            return Some(Err(Failure { kind: FailureKind::Refused, reason: "it will not".into() }));
        }
        let answer = match job {
            Job::Recruit { node } => {
                let seen = &mut self.nodes.get_mut(node)?.seen;
                (seen.recruited_for, seen.receiver, seen.follows) = (Some(epoch), None, None);
                Answer::Recruited {
                    system_identifier: seen.system_identifier,
                    timeline: seen.timeline,
                    received: seen.lsn,
                    last_epoch: seen.last_epoch,
                }
            }
            Job::Level { node, from, until } => {
                let source = &self.nodes[from];
                let end = if source.life == Life::Runs { source.seen.lsn.min(*until) } else { Lsn(0) };
                let whole = source.seen.replayed;
                let seen = &mut self.nodes.get_mut(node)?.seen;
                seen.lsn = seen.lsn.max(end);
                seen.replayed = seen.replayed.max(whole.min(end));
                Answer::Recruited {
                    system_identifier: seen.system_identifier,
                    timeline: seen.timeline,
                    received: seen.lsn,
                    last_epoch: seen.last_epoch,
                }
            }
            Job::Drain { .. } => unreachable!("{job:?} is the sessions'"),
            Job::Stop { .. }
            | Job::Start { .. }
            | Job::Restart { .. }
            | Job::Rejoin { .. }
            | Job::Initialise { .. } => unreachable!("{job:?} is an agent's"),
            Job::Settle { .. } => Answer::Settled { replayed: it.seen.replayed, last_epoch: it.seen.last_epoch },
            Job::Promote { node, sync } => {
                let seen = &mut self.nodes.get_mut(node)?.seen;
                // What was received of a record in part is discarded.
                seen.lsn = seen.replayed;
                let fork = seen.is_in_recovery.then_some(seen.lsn);
                seen.timeline.0 += u32::from(seen.is_in_recovery);
                (seen.is_in_recovery, seen.is_fenced, seen.recruited_for) = (false, false, None);
                seen.sync = Some(sync.clone());
                Answer::Promoted { timeline: seen.timeline, fork }
            }
            Job::SetSync { node, sync } => {
                self.nodes.get_mut(node)?.seen.sync = Some(sync.clone());
                if !self.can_commit(node) {
                    return None;
                }
                Answer::SyncSet
            }
            Job::WriteEpoch { node, .. } => {
                if !self.can_commit(node) {
                    return None;
                }
                let node = node.clone();
                self.write(&node, 100);
                let lsn = self.nodes[&node].seen.lsn;
                for it in self.nodes.values_mut().filter(|it| it.seen.lsn == lsn) {
                    it.seen.last_epoch = it.seen.last_epoch.max(Some(epoch));
                }
                Answer::EpochWritten
            }
            Job::Follow { node, primary } => {
                let (timeline, lsn) = (self.nodes[primary].seen.timeline, self.nodes[primary].seen.lsn);
                let last_epoch = self.nodes[primary].seen.last_epoch;
                let seen = &mut self.nodes.get_mut(node)?.seen;
                (seen.recruited_for, seen.follows) = (None, Some(primary.clone()));
                seen.receiver = Some(Receiver { from: Some(primary.clone()), fed_ago: Millis(1), quiet: Millis(2500) });
                (seen.timeline, seen.lsn, seen.replayed, seen.last_epoch) = (timeline, lsn, lsn, last_epoch);
                Answer::Follows
            }
            Job::Fence { node } => {
                let seen = &mut self.nodes.get_mut(node)?.seen;
                seen.is_fenced = true;
                Answer::Fenced { lsn: seen.lsn, timeline: seen.timeline }
            }
            Job::Checkpoint { .. } => Answer::Checkpointed,
        };
        Some(Ok(answer))
    }

    /// Some WAL, which those who stream from it receive at once.
    pub fn write(&mut self, primary: &NodeId, bytes: u64) {
        let streams = self.streams_from(primary);
        for (node, it) in &mut self.nodes {
            if node == primary || streams.iter().any(|sender| sender.node == *node) {
                it.seen.lsn.0 += bytes;
                it.seen.replayed = it.seen.lsn;
            }
        }
    }

    pub fn tell(&mut self, event: Event) {
        for action in self.brain.step(Millis(self.now), event) {
            self.obey(action);
        }
    }

    fn obey(&mut self, action: Action) {
        let now = self.now;
        let line = match action {
            Action::Store { serial, record } => {
                let result = if self.store_works { Ok(()) } else { Err("the disk is full".to_string()) };
                if self.store_works {
                    self.stored = Some((*record).clone());
                }
                self.due.push((now + 2, Event::Stored { epoch: record.epoch, serial, result }));
                let sync = sync_text(&record.sync());
                format!("store {} {} {}, voters {sync}", record.epoch, record.phase.as_str(), record.primary)
            }
            Action::Do { id, epoch, job } => {
                let stored = self.stored.as_ref().map(|record| record.epoch);
                let begins = stored.is_none() && matches!(job, Job::Initialise { .. } | Job::Start { .. });
                assert!(stored == Some(epoch) || begins, "{job:?}: nothing is done for an epoch that is not stored");
                let (name, node) = name_of(&job);
                let more = match &job {
                    Job::Promote { sync, .. } | Job::SetSync { sync, .. } => format!(", sync {}", sync_text(sync)),
                    Job::Follow { primary, .. } => format!(" {primary}"),
                    Job::Level { from, until, .. } => format!(" from {from} until {until}"),
                    Job::Rejoin { primary, repair, reason, .. } => {
                        format!(" {primary} ({}): {reason}", repair.as_str())
                    }
                    Job::Stop { how, .. } => format!(" {how:?}").to_lowercase(),
                    _ => String::new(),
                };
                let line = format!("{name} {node}{more}");
                self.jobs.push((now + 5, id, epoch, job));
                line
            }
            Action::Forget(id) => {
                let Some(at) = self.jobs.iter().position(|job| job.1 == id) else { return };
                let (_, _, _, job) = self.jobs.remove(at);
                let (name, node) = name_of(&job);
                format!("forget {name} {node}")
            }
            Action::Probe(node) => return self.probe(node),
            Action::Publish(Lead::Closed { epoch, reason }) => format!("closed {epoch}: {reason}"),
            Action::Publish(Lead::Open { epoch, primary, timeline }) => {
                let before = self.opened.insert(epoch, primary.clone());
                assert!(before.is_none_or(|before| before == primary), "two primaries in epoch {epoch}");
                format!("open {epoch} {primary} timeline {}", timeline.0)
            }
            Action::Publish(Lead::Draining { epoch, reason }) => format!("draining {epoch}: {reason}"),
            Action::NoteRepair(note) => {
                let failed = if note.failure.is_empty() { String::new() } else { format!(" failed: {}", note.failure) };
                let line = format!("note {} of {}{failed}", note.repair, note.node);
                self.repairs.push(*note);
                line
            }
            Action::Note(note) => {
                let line = format!("note {} {}: {:?} to {}", note.epoch, note.kind, note.from, note.to);
                self.notes.push(*note);
                line
            }
            Action::Answer { id, result } => {
                self.answers.push((id.0, result.clone()));
                format!("answer {}: {result:?}", id.0)
            }
            Action::Say { text, .. } => format!("\"{text}\""),
        };
        self.script.push(line);
    }

    /// What was ordered since the last time, without what was said.
    pub fn orders(&mut self) -> String {
        let script = std::mem::take(&mut self.script);
        let kept: Vec<String> = script.into_iter().filter(|line| !line.starts_with('"')).collect();
        kept.join("\n")
    }

    pub fn everything(&mut self) -> String {
        std::mem::take(&mut self.script).join("\n")
    }
}

/// Compares by lines, without the indentation of the source.
#[track_caller]
pub(super) fn assert_script(found: &str, expected: &str) {
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert!(found.lines().eq(expected.iter().copied()), "\nfound:\n{found}\n\nexpected:\n{}\n", expected.join("\n"));
}
