//! pgbaton and the agents: asking each how things are, again and again, and having them carry out jobs.

use pgbaton::cluster::agent::{Order, Outcome, Report, Task};
use pgbaton::cluster::{Answer, Event, Failure, FailureKind, Job};
use pgbaton::types::Epoch;

use crate::node::{Life, index};
use crate::pgbaton::unreachable;
use crate::world::{Due, Timer, World};

/// How often an agent is asked.
const INTERVAL: u64 = 500;
/// How long one may take to answer.
const LIMIT: u64 = 700;
/// Between two looks at how far an order is.
const PAUSE: (u64, u64) = (20, 120);
/// So long an agent may be out of reach while it carries out an order.
const PATIENCE: u64 = 3000;

/// What waits for an agent's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    HowAreYou { node: usize },
    Errand { id: u64 },
}

/// A job of an agent's, on its way to its end.
#[derive(Clone, Debug)]
pub struct Errand {
    node: usize,
    order: Order,
    is_taken: bool,
    heard: u64,
}

/// What an agent is told, if this is one's job.
fn task(job: &Job) -> Option<(usize, Task)> {
    Some(match job {
        Job::Stop { node, how } => (index(node), Task::Stop { how: *how }),
        Job::Start { node } => (index(node), Task::Start),
        Job::Restart { node, how } => (index(node), Task::Restart { how: *how }),
        Job::Initialise { node } => (index(node), Task::Initialise),
        Job::Rejoin { node, primary, system_identifier, repair, reason } => {
            let (primary, reason) = (primary.clone(), reason.clone());
            let (host, system_identifier, repair) = (primary.to_string(), *system_identifier, *repair);
            (index(node), Task::Rejoin { primary, host, port: 5432, system_identifier, repair, reason })
        }
        _ => return None,
    })
}

impl World {
    /// Begins it, if it is an agent's.
    pub fn begin_errand(&mut self, id: u64, epoch: Epoch, job: &Job) -> bool {
        let Some((node, task)) = task(job) else { return false };
        let order = Order { epoch, id: format!("{}-{id}", self.pgbaton.process), task };
        self.pgbaton.errands.insert(id, Errand { node, order, is_taken: false, heard: self.now });
        self.ask_errand(id);
        true
    }

    fn put_question(&mut self, node: usize, question: Question, order: Option<Order>) {
        let serial = self.next_serial();
        let process = self.pgbaton.process;
        self.pgbaton.questions.insert(serial, question);
        let delay = self.delay(self.nodes.len(), node);
        self.after(delay, Due::AgentAsked { to: node, process, serial, order: order.map(Box::new) });
        self.own(LIMIT, Timer::AgentLate { serial });
    }

    pub fn ask_agent(&mut self, node: usize) {
        self.put_question(node, Question::HowAreYou { node }, None);
    }

    pub fn ask_errand(&mut self, id: u64) {
        let Some(errand) = self.pgbaton.errands.get(&id) else { return };
        let order = (!errand.is_taken).then(|| errand.order.clone());
        self.put_question(errand.node, Question::Errand { id }, order);
    }

    /// A question has come to where the agent is.
    pub fn ask_at_agent(&mut self, node: usize, process: u64, serial: u64, order: Option<Box<Order>>) {
        let count = self.nodes.len();
        if self.net.is_cut(count, node) {
            // The connection lives longer than the cut.
            if self.random.chance(300) {
                let after = self.random.between(200, 1500);
                self.after(after, Due::AgentAsked { to: node, process, serial, order });
            }
            return;
        }
        if self.nodes[node].life == Life::Gone {
            return;
        }
        let report = self.agent_asked(node, order.map(|order| *order)).map(Box::new);
        let delay = self.delay(node, count);
        self.after(delay, Due::AgentSays { process, from: node, serial, report });
    }

    pub fn agent_says(&mut self, process: u64, from: usize, serial: u64, report: Option<Box<Report>>) {
        if process != self.pgbaton.process || self.net.is_cut(from, self.nodes.len()) {
            return;
        }
        let result = report.map(|report| *report).ok_or_else(|| "connection refused".to_string());
        self.agent_answered(serial, result);
    }

    pub fn agent_late(&mut self, serial: u64) {
        self.agent_answered(serial, Err("no answer in time".into()));
    }

    fn agent_answered(&mut self, serial: u64, result: Result<Report, String>) {
        let Some(question) = self.pgbaton.questions.remove(&serial) else { return };
        match question {
            Question::HowAreYou { node } => {
                self.own(INTERVAL, Timer::AskAgent { node });
                let node = self.ids[node].clone();
                self.deliver(Event::Agent { node, report: result.map(Box::new) });
            }
            Question::Errand { id } => self.errand_answered(id, result),
        }
    }

    fn errand_answered(&mut self, id: u64, result: Result<Report, String>) {
        let now = self.now;
        let Some(errand) = self.pgbaton.errands.get_mut(&id) else { return };
        let report = match result {
            Ok(report) => report,
            Err(_) if errand.is_taken && now < errand.heard + PATIENCE => {
                return self.own(PAUSE.1, Timer::Errand { id });
            }
            Err(reason) => return self.end_errand(id, Err(unreachable(&reason))),
        };
        (errand.is_taken, errand.heard) = (true, now);
        let is_it = |epoch: Epoch, its: &str| (epoch, its) == (errand.order.epoch, &*errand.order.id);
        if let Some(done) = report.done.filter(|done| is_it(done.epoch, &done.id)) {
            let result = match done.outcome {
                Outcome::Well(deed) => Ok(Answer::Agent(deed)),
                Outcome::Failed { reason, .. } => Err(Failure { kind: FailureKind::Refused, reason }),
            };
            return self.end_errand(id, result);
        }
        if !report.doing.as_ref().is_some_and(|doing| is_it(doing.epoch, &doing.id)) {
            return self.end_errand(id, Err(unreachable("the agent has forgotten what it was told")));
        }
        let pause = self.random.between(PAUSE.0, PAUSE.1);
        self.own(pause, Timer::Errand { id });
    }

    fn end_errand(&mut self, id: u64, result: Result<Answer, Failure>) {
        if self.pgbaton.errands.remove(&id).is_some() {
            self.done(id, result);
        }
    }
}
