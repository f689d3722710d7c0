//! pgbaton itself: the brain that is shipped, and a driver that does what it says as `cluster/action.rs` has it. It can
//! die between any two actions, and be frozen.

use std::collections::BTreeMap;

use pgbaton::cluster::action::JobId;
use pgbaton::cluster::{Action, Answer, Brain, Event, Failure, FailureKind, Job, Lead, Sight, Symptom};
use pgbaton::types::{Epoch, Millis};

use crate::errands::{Errand, Question};
use crate::invariants::Fact;
use crate::message::{Caller, Reply, Request, What};
use crate::node::index;
use crate::plants::Plant;
use crate::tasks::Task;
use crate::world::{Due, Timer, World};

/// What the calendar says at the beginning of a run.
const UNIX_MS: u64 = 1_750_000_000_000;

pub struct Pgbaton {
    /// Counts the starts.
    pub process: u64,
    pub brain: Option<Brain>,
    pub started: u64,
    pub is_frozen: bool,
    pub inbox: Vec<Due>,
    /// What the data plane goes by: the open epoch and its primary.
    pub open: Option<(u64, usize)>,
    pub tasks: BTreeMap<u64, Task>,
    pub errands: BTreeMap<u64, Errand>,
    pub questions: BTreeMap<u64, Question>,
    /// The number of the probe that is under way, for each node; 0: none.
    pub probes: Vec<u64>,
    pub beat: u64,
    pub tick: Option<u64>,
    /// Dies after so many more actions.
    pub dies_after: Option<u64>,
}

impl Pgbaton {
    pub fn new(nodes: usize) -> Pgbaton {
        Pgbaton {
            process: 1,
            brain: None,
            started: 0,
            is_frozen: false,
            inbox: Vec::new(),
            open: None,
            tasks: BTreeMap::new(),
            errands: BTreeMap::new(),
            questions: BTreeMap::new(),
            probes: vec![0; nodes],
            beat: 0,
            tick: None,
            dies_after: None,
        }
    }

    pub fn serves(&self) -> Option<(u64, usize)> {
        self.open.filter(|_| self.brain.is_some() && !self.is_frozen)
    }
}

impl World {
    // --- life ------------------------------------------------------------------------------------------------------------

    pub fn boot(&mut self) {
        if self.pgbaton.brain.is_some() {
            return;
        }
        self.pgbaton.started = self.now;
        self.pgbaton.brain = Some(Brain::new(self.policy_of_the_brain()));
        self.judge(&Fact::Booted);
        self.say(|world| format!("pgbaton {} starts", world.pgbaton.process));
        let record = self.record_to_load();
        self.deliver(Event::Loaded { record, unix_ms_at_zero: UNIX_MS + self.now });
        for node in 0..self.nodes.len() {
            let after = self.random.between(0, 40);
            self.own(after, Timer::Probe { node });
            if self.plan.has_agents {
                let after = self.random.between(0, 60);
                self.own(after, Timer::AskAgent { node });
            }
        }
        self.own(50, Timer::Beat);
    }

    /// kill -9
    pub fn die(&mut self) {
        if self.pgbaton.brain.is_none() {
            return;
        }
        self.say(|world| format!("pgbaton {} dies", world.pgbaton.process));
        if let Some((_, record)) = self.store.pending.take()
            && self.random.chance(500)
        {
            self.write_record(record);
        }
        let nodes = self.nodes.len();
        self.pgbaton = Pgbaton { process: self.pgbaton.process + 1, ..Pgbaton::new(nodes) };
        self.drop_clients(u64::MAX);
    }

    pub fn thaw_pgbaton(&mut self) {
        self.pgbaton.is_frozen = false;
        for due in std::mem::take(&mut self.pgbaton.inbox) {
            self.after(0, due);
        }
    }

    fn write_record(&mut self, record: pgbaton::cluster::Record) {
        let before = self.store.record.replace(record);
        self.say(|world| format!("the store holds {}", described(world.store.record.as_ref())));
        self.judge(&Fact::Stored { before: before.as_ref() });
        self.planted.remember(before);
    }

    // --- the brain -------------------------------------------------------------------------------------------------------

    pub fn deliver(&mut self, event: Event) {
        self.judge(&Fact::Heard(&event));
        let events = self.tamper_with_event(event);
        for event in events {
            self.step(event);
        }
    }

    pub fn step(&mut self, event: Event) {
        let now = Millis(self.now - self.pgbaton.started);
        if !matches!(event, Event::Seen { .. } | Event::Agent { .. } | Event::Beat { .. } | Event::Tick) {
            self.say(|_| format!("  -> {event:?}"));
        }
        let Some(brain) = &mut self.pgbaton.brain else { return };
        let actions = brain.step(now, event);
        let process = self.pgbaton.process;
        for action in self.tamper_with_actions(actions) {
            if self.pgbaton.process != process || self.judge.verdict.is_some() {
                return;
            }
            self.act(action);
            if let Some(left) = &mut self.pgbaton.dies_after {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.die();
                    let after = self.random.between(30, 1500);
                    return self.after(after, Due::Boot);
                }
            }
        }
        let deadline = self.pgbaton.brain.as_ref().and_then(Brain::next_deadline);
        if let Some(deadline) = deadline {
            let at = (deadline.0 + self.pgbaton.started).max(self.now + 1);
            if self.pgbaton.tick.is_none_or(|tick| at < tick || tick <= self.now) {
                self.pgbaton.tick = Some(at);
                let process = self.pgbaton.process;
                self.at(at, Due::Own { process, timer: Timer::Tick { at } });
            }
        }
    }

    pub fn act(&mut self, action: Action) {
        self.say(|_| match &action {
            Action::Store { serial, record } => format!("  <- store {serial}: {}", described(Some(record))),
            Action::Note(note) => format!("  <- note {} {} to {}: {}", note.epoch, note.kind, note.to, note.cause),
            Action::Say { text, .. } => format!("  <- \"{text}\""),
            action => format!("  <- {action:?}"),
        });
        self.judge(&Fact::Acting(&action));
        match action {
            Action::Store { serial, record } => {
                self.store.pending = Some((serial, *record));
                let after = if self.store.is_slow { self.random.between(300, 1500) } else { self.random.between(1, 8) };
                self.own(after, Timer::Stored { serial });
            }
            Action::Do { id, epoch, job } => {
                if self.begin_errand(id.0, epoch, &job) {
                    return;
                }
                if let Job::Drain { limit } = job {
                    // Clients' transactions are short here.
                    let after = self.random.between(1, limit.0);
                    return self.own(after, Timer::Drained { id: id.0 });
                }
                let order = self.next_serial();
                self.pgbaton.tasks.insert(id.0, Task::new(epoch.0, job, order));
                self.own(0, Timer::Ask { id: id.0 });
                self.own(crate::tasks::LIMIT, Timer::GiveUp { id: id.0 });
            }
            Action::Forget(id) => {
                self.pgbaton.tasks.remove(&id.0);
                self.pgbaton.errands.remove(&id.0);
            }
            Action::Probe(node) => self.probe(index(&node)),
            Action::Publish(Lead::Draining { .. }) | Action::NoteRepair(_) => {}
            Action::Publish(Lead::Closed { epoch, .. }) => {
                self.pgbaton.open = None;
                if self.plant != Some(Plant::OldAcksPass) {
                    self.drop_clients(epoch.0);
                }
            }
            Action::Publish(Lead::Open { epoch, primary, .. }) => {
                self.pgbaton.open = Some((epoch.0, index(&primary)));
                if self.plant != Some(Plant::OldAcksPass) {
                    self.drop_clients(epoch.0);
                }
            }
            Action::Note(_) | Action::Answer { .. } | Action::Say { .. } => {}
        }
    }

    // --- what it waits for -----------------------------------------------------------------------------------------------

    pub fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Tick { at } => {
                if self.pgbaton.tick == Some(at) {
                    self.pgbaton.tick = None;
                    self.deliver(Event::Tick);
                }
            }
            Timer::Probe { node } => {
                self.own(self.policy.probe_interval.0, Timer::Probe { node });
                self.probe(node);
            }
            Timer::ProbeLate { node, serial } => {
                if self.pgbaton.probes[node] == serial {
                    self.pgbaton.probes[node] = 0;
                    self.seen(node, Sight::Fails(Symptom::Silent, "no answer in time".into()));
                }
            }
            Timer::AskAgent { node } => self.ask_agent(node),
            Timer::AgentLate { serial } => self.agent_late(serial),
            Timer::Errand { id } => self.ask_errand(id),
            Timer::Drained { id } => self.done(id, Ok(Answer::Drained { left: 0 })),
            Timer::Beat => {
                self.own(self.policy.probe_interval.0, Timer::Beat);
                if let Some((epoch, node)) = self.pgbaton.open
                    && self.pgbaton.beat == 0
                {
                    let serial = self.next_serial();
                    self.pgbaton.beat = serial;
                    self.request(node, Caller::Beat { node, epoch, serial }, 0, What::Beat);
                    self.own(self.policy.probe_timeout.0, Timer::BeatLate { serial });
                }
            }
            Timer::BeatLate { serial } if self.pgbaton.beat == serial => {
                if let Some((epoch, node)) = self.pgbaton.open {
                    let failure = Failure { kind: FailureKind::Unreachable, reason: "not in time".into() };
                    self.beaten(node, epoch, Err(failure));
                }
                self.pgbaton.beat = 0;
            }
            Timer::BeatLate { .. } => {}
            Timer::Stored { serial } => self.stored(serial),
            Timer::Ask { id } => self.ask(id),
            Timer::Late { id, question } => self.late(id, question),
            Timer::GiveUp { id } => self.finish(id, Err(unreachable("gave up"))),
            Timer::Planted => self.planted_timer(),
        }
    }

    fn stored(&mut self, serial: u64) {
        let Some((_, record)) = self.store.pending.take_if(|(pending, _)| *pending == serial) else { return };
        let epoch = record.epoch;
        let is_failing = self.store.is_failing;
        if !is_failing || self.random.chance(300) {
            self.write_record(record);
        }
        let result = if is_failing { Err("no space left on device".into()) } else { Ok(()) };
        self.deliver(Event::Stored { epoch, serial, result });
    }

    pub fn request(&mut self, to: usize, caller: Caller, order: u64, what: What) {
        let request = Request { caller, process: self.pgbaton.process, order, what };
        let delay = self.delay(self.nodes.len(), to);
        self.after(delay, Due::Arrive { to, request });
    }

    pub fn probe(&mut self, node: usize) {
        if self.pgbaton.probes[node] == 0 {
            let serial = self.next_serial();
            self.pgbaton.probes[node] = serial;
            self.request(node, Caller::Probe { node, serial }, 0, What::Look);
            self.own(self.policy.probe_timeout.0, Timer::ProbeLate { node, serial });
        }
    }

    fn seen(&mut self, node: usize, sight: Sight) {
        let node = self.ids[node].clone();
        self.deliver(Event::Seen { node, sight });
    }

    fn beaten(&mut self, node: usize, epoch: u64, result: Result<(), Failure>) {
        let node = self.ids[node].clone();
        self.deliver(Event::Beat { node, epoch: Epoch(epoch), result });
    }

    /// An answer has come back.
    pub fn replied(&mut self, from: usize, caller: Caller, reply: Reply) {
        match caller {
            Caller::Probe { node, serial } => {
                if self.pgbaton.probes[node] != serial {
                    return;
                }
                self.pgbaton.probes[node] = 0;
                let sight = match reply {
                    Reply::Seen(observation) => Sight::Answers(observation),
                    Reply::Starting => Sight::Fails(Symptom::Starting, "57P03".into()),
                    Reply::Reset => Sight::Fails(Symptom::Refused, "connection refused".into()),
                    Reply::Full => Sight::Fails(Symptom::Rejected, "53300".into()),
                    _ => Sight::Fails(Symptom::Silent, "no answer".into()),
                };
                self.seen(node, sight);
            }
            Caller::Beat { node, epoch, serial } => {
                if self.pgbaton.beat != serial {
                    return;
                }
                self.pgbaton.beat = 0;
                let result = match reply {
                    Reply::Done => Ok(()),
                    reply => Err(failure(&reply)),
                };
                self.beaten(node, epoch, result);
            }
            Caller::Task { id, question } => self.task_replied(id, question, reply),
            Caller::Client { client, id, epoch } => self.client_replied(client, id, epoch, from, reply),
        }
    }

    pub fn done(&mut self, id: u64, result: Result<pgbaton::cluster::Answer, Failure>) {
        self.deliver(Event::Done { id: JobId(id), result });
    }
}

pub fn failure(reply: &Reply) -> Failure {
    match reply {
        Reply::No(reason) => Failure { kind: FailureKind::Refused, reason: (*reason).into() },
        Reply::Starting => unreachable("the server starts up"),
        Reply::Reset => unreachable("connection reset"),
        _ => unreachable("no answer"),
    }
}

pub fn unreachable(reason: &str) -> Failure {
    Failure { kind: FailureKind::Unreachable, reason: reason.into() }
}

/// On which node a job is done.
pub fn node_of(job: &Job) -> usize {
    match job {
        Job::Recruit { node }
        | Job::Level { node, .. }
        | Job::Settle { node }
        | Job::Promote { node, .. }
        | Job::SetSync { node, .. }
        | Job::WriteEpoch { node, .. }
        | Job::Follow { node, .. }
        | Job::Fence { node }
        | Job::Checkpoint { node }
        | Job::Stop { node, .. }
        | Job::Start { node }
        | Job::Restart { node, .. }
        | Job::Rejoin { node, .. }
        | Job::Initialise { node } => index(node),
        // Not of any node; clients have no open transactions here.
        Job::Drain { .. } => 0,
    }
}

fn described(record: Option<&pgbaton::cluster::Record>) -> String {
    let Some(record) = record else { return "nothing".into() };
    let extra = if record.paused { " paused" } else { "" };
    format!(
        "epoch {} {} {} (former {:?}) timeline {} fork {:?} voters {:?} k {} written {}{extra} maintenance {:?}: {}",
        record.epoch,
        record.phase.as_str(),
        record.primary,
        record.former,
        record.timeline.0,
        record.fork_lsn,
        record.voters,
        record.k,
        record.written,
        record.maintenance,
        record.cause
    )
}
