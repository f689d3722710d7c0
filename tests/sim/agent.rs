//! Agents beside the servers: each starts its server again when it has died, but never as a primary before it has asked
//! pgbaton, and carries out orders. What `src/agent/` does with processes and files, done to servers that do not exist.

use pgbaton::cluster::agent::{Code, Data as Told, Deed, Doing, Done, Order, Outcome, Report, Server, Shutdown, Task};
use pgbaton::types::{Epoch, Lsn, Timeline};

use crate::invariants::Fact;
use crate::node::{Data, Life, Node, SYSTEM_IDENTIFIER, index};
use crate::plants::Plant;
use crate::world::{Due, World};

/// How long a server may take to accept connections.
const START_LIMIT: u64 = 4000;
/// How long a pgbaton may take to answer.
const GATE_LIMIT: u64 = 1000;

#[derive(Clone, Debug, Default)]
pub struct Agent {
    pub is_up: bool,
    // What it remembers when it is started again.
    pub epoch: u64,
    /// The highest of a record.
    pub record: u64,
    pub is_stopped: bool,
    pub done: Option<Done>,
    // And what it does not.
    pub work: Option<Work>,
    /// Of its next look at the server; one that was to come before is void.
    watch: u64,
    /// The question under way, and when it was asked.
    asking: Option<(u64, u64)>,
}

/// An order under way.
#[derive(Clone, Debug)]
pub struct Work {
    pub serial: u64,
    pub order: Order,
    since: u64,
    pub stage: Stage,
    pub until: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    Begins,
    /// Its server is a primary's, and pgbaton is asked.
    Asks,
    Starts,
    /// The server is down and its data is being changed.
    Repairs(Repairing),
    Receives(Repairing),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repairing {
    pub way: pgbaton::cluster::agent::Repair,
    /// So many attempts have failed, each is followed by a more thorough one.
    pub tried: u32,
}

/// What pgbaton says when an agent asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    pub leader: Option<usize>,
    pub epoch: Option<u64>,
}

impl Agent {
    pub fn running() -> Agent {
        Agent { is_up: true, ..Agent::default() }
    }
}

impl Node {
    fn report(&self, unix: impl Fn(u64) -> u64) -> Option<Report> {
        let agent = self.agent.as_ref().filter(|agent| agent.is_up)?;
        let server = match self.life {
            Life::Running => Server::Running,
            Life::Starting => Server::Starting,
            Life::Down | Life::Gone if agent.is_stopped => Server::Stopped,
            Life::Down | Life::Gone => Server::Waiting { reason: "it is not started".into() },
        };
        let data = match self.data {
            Data::Absent => Told::Absent,
            Data::Unfinished => Told::Unusable { reason: "a repair of it was interrupted".into() },
            Data::Present => Told::Present {
                system_identifier: SYSTEM_IDENTIFIER,
                timeline: Timeline(self.wal.timeline()),
                is_standby: self.in_recovery,
                is_clean: false,
                checkpoint: Lsn(self.wal.end()),
            },
        };
        let doing = agent.work.as_ref().map(|work| Doing {
            epoch: work.order.epoch,
            id: work.order.id.clone(),
            task: work.order.task.name().into(),
            since: unix(work.since),
            step: format!("{:?}", work.stage),
        });
        Some(Report {
            node: self.id.clone(),
            epoch: Epoch(agent.epoch),
            server,
            data,
            doing,
            done: agent.done.clone(),
            kept: Vec::new(),
            trouble: String::new(),
        })
    }
}

impl World {
    // --- life ------------------------------------------------------------------------------------------------------------

    pub fn agent(&mut self, node: usize) -> Option<&mut Agent> {
        self.nodes[node].agent.as_mut().filter(|agent| agent.is_up)
    }

    /// Its process is started, and finds the server as it is.
    pub fn boot_agent(&mut self, node: usize) {
        if self.nodes[node].life == Life::Gone {
            self.nodes[node].life = Life::Down;
        }
        let Some(agent) = self.nodes[node].agent.as_mut().filter(|agent| !agent.is_up) else { return };
        agent.is_up = true;
        self.say(|world| format!("the agent of {} starts", world.nodes[node].id));
        self.watch_in(node, 50);
    }

    pub fn kill_agent(&mut self, node: usize) {
        let Some(agent) = self.agent(node) else { return };
        (agent.is_up, agent.work, agent.watch, agent.asking) = (false, None, 0, None);
        self.say(|world| format!("the agent of {} dies", world.nodes[node].id));
    }

    /// It looks at its server after so long.
    pub fn watch_in(&mut self, node: usize, after: u64) {
        let serial = self.next_serial();
        let Some(agent) = self.agent(node) else { return };
        agent.watch = serial;
        self.after(after, Due::Watch { node, serial });
    }

    /// Starts a server that has died: a standby at once, a primary when pgbaton says that it is.
    pub fn watch(&mut self, node: usize, serial: u64) {
        let server = &self.nodes[node];
        let Some(agent) = server.agent.as_ref().filter(|agent| agent.is_up && agent.watch == serial) else { return };
        if agent.work.is_some() || agent.is_stopped || server.life != Life::Down || server.data != Data::Present {
            return;
        }
        if server.in_recovery || self.plant == Some(Plant::IgnoresTheGate) {
            return self.launch(node, self.now);
        }
        self.ask_gate(node);
        self.watch_in(node, 1000);
    }

    /// `asked`: since when what allows it is known.
    fn launch(&mut self, node: usize, asked: u64) {
        if !self.nodes[node].in_recovery {
            self.judge(&Fact::StartsPrimary { node, asked });
        }
        self.start(node);
    }

    // --- the gate --------------------------------------------------------------------------------------------------------

    fn ask_gate(&mut self, node: usize) {
        let (serial, now) = (self.next_serial(), self.now);
        let Some(agent) = self.agent(node) else { return };
        agent.asking = Some((serial, now));
        let delay = self.delay(node, self.nodes.len());
        self.after(delay, Due::GateAsks { node, serial });
    }

    /// At pgbaton.
    pub fn answer_gate(&mut self, node: usize, serial: u64) {
        let count = self.nodes.len();
        let Some(brain) = self.pgbaton.brain.as_ref().filter(|_| !self.pgbaton.is_frozen) else { return };
        let picture = brain.picture();
        let said = Said { leader: picture.primary.as_ref().map(index), epoch: picture.epoch.map(|epoch| epoch.0) };
        if !self.net.is_cut(node, count) {
            let delay = self.delay(count, node);
            self.after(delay, Due::GateSays { node, serial, said });
        }
    }

    pub fn gate_said(&mut self, node: usize, serial: u64, said: Said) {
        if self.net.is_cut(self.nodes.len(), node) {
            return;
        }
        let Some(agent) = self.agent(node) else { return };
        let Some((_, asked)) = agent.asking.take_if(|(asked, _)| *asked == serial) else { return };
        let by_order = agent.work.as_ref().is_some_and(|work| work.stage == Stage::Asks);
        let is_old = said.epoch.is_some_and(|epoch| epoch < agent.epoch);
        agent.epoch = agent.epoch.max(said.epoch.unwrap_or(0));
        agent.record = agent.record.max(said.epoch.unwrap_or(0));
        let may = match (said.epoch, said.leader) {
            (Some(_), leader) => !is_old && leader == Some(node),
            (None, _) => agent.record == 0 || by_order,
        };
        let server = &self.nodes[node];
        if by_order {
            match may {
                true => {
                    self.launch(node, asked);
                    self.go_on(node, Stage::Starts, 40);
                }
                false => self.end_work(node, Err((Code::NotPrimary, "another is the primary".into()))),
            }
        } else if may
            && server.life == Life::Down
            && server.data == Data::Present
            && server.agent.as_ref().is_some_and(|agent| agent.work.is_none() && !agent.is_stopped)
        {
            self.launch(node, asked);
        }
    }

    // --- orders ----------------------------------------------------------------------------------------------------------

    /// pgbaton asks, or orders. `None`: nobody is there who could answer.
    pub fn agent_asked(&mut self, node: usize, order: Option<Order>) -> Option<Report> {
        if let (Some(order), Some(agent)) = (order, self.agent(node)) {
            let is_it = |epoch: &Epoch, id: &str| (*epoch, id) == (order.epoch, &*order.id);
            let is_known = agent.done.as_ref().is_some_and(|done| is_it(&done.epoch, &done.id))
                || agent.work.as_ref().is_some_and(|work| is_it(&work.order.epoch, &work.order.id));
            let is_busy = agent
                .work
                .as_ref()
                .is_some_and(|work| work.order.epoch == order.epoch && !matches!(order.task, Task::Stop { .. }));
            if !is_known && order.epoch.0 >= agent.epoch && !is_busy {
                self.take_order(node, order);
            }
        }
        let now = self.now;
        self.nodes[node].report(|at| now - at)
    }

    fn take_order(&mut self, node: usize, order: Order) {
        self.say(|world| format!("the agent of {} is ordered: {:?}", world.nodes[node].id, order.task));
        let (serial, now) = (self.next_serial(), self.now);
        let Some(agent) = self.agent(node) else { return };
        agent.epoch = agent.epoch.max(order.epoch.0);
        agent.is_stopped = matches!(order.task, Task::Stop { .. });
        agent.asking = None;
        agent.work = Some(Work { serial, order, since: now, stage: Stage::Begins, until: now });
        self.go_on(node, Stage::Begins, 3);
    }

    /// The next look at the order under way.
    pub fn go_on(&mut self, node: usize, stage: Stage, after: u64) {
        let (serial, now) = (self.next_serial(), self.now);
        let Some(work) = self.agent(node).and_then(|agent| agent.work.as_mut()) else { return };
        if work.stage != stage {
            (work.stage, work.until) = (stage, now + START_LIMIT);
        }
        work.serial = serial;
        self.after(after, Due::Work { node, serial });
    }

    pub fn end_work(&mut self, node: usize, result: Result<Deed, (Code, String)>) {
        let now = self.now;
        let Some(agent) = self.agent(node) else { return };
        let Some(work) = agent.work.take() else { return };
        let outcome = match result {
            Ok(deed) => Outcome::Well(deed),
            Err((code, reason)) => Outcome::Failed { code, reason },
        };
        let task = work.order.task.name().to_string();
        let done = Done { epoch: work.order.epoch, id: work.order.id, task, took_ms: now - work.since, outcome };
        agent.done = Some(done);
        self.say(|world| format!("the agent of {} is done: {:?}", world.nodes[node].id, world.nodes[node].agent));
        self.watch_in(node, 20);
    }

    pub fn work(&mut self, node: usize, serial: u64) {
        let Some(work) = self.agent(node).and_then(|agent| agent.work.clone()) else { return };
        if work.serial != serial {
            return;
        }
        let fail = |code, reason: &str| Err((code, reason.to_string()));
        let server = &self.nodes[node];
        match (&work.order.task, &work.stage) {
            (Task::Stop { how }, _) => {
                self.stop_server(node, *how);
                self.end_work(node, Ok(Deed::default()));
            }
            (Task::Restart { how }, Stage::Begins) => {
                self.stop_server(node, *how);
                self.start_by_order(node);
            }
            (Task::Start, Stage::Begins) => self.start_by_order(node),
            (_, Stage::Asks) => self.end_work(node, fail(Code::NotPrimary, "no pgbaton answers")),
            (Task::Start | Task::Restart { .. } | Task::Initialise, Stage::Starts) => match server.life {
                Life::Running => self.end_work(node, Ok(Deed::default())),
                Life::Starting if self.now < work.until => self.go_on(node, Stage::Starts, 40),
                _ => self.end_work(node, fail(Code::Failed, "it does not start")),
            },
            (Task::Initialise, _) if server.data != Data::Absent => {
                self.end_work(node, fail(Code::Impossible, "there is data already"));
            }
            (Task::Initialise, _) => {
                self.make_cluster(node);
                self.launch(node, self.now);
                self.go_on(node, Stage::Starts, 40);
            }
            (Task::Rejoin { primary, repair, .. }, stage) => {
                let (primary, repair, stage) = (index(primary), *repair, stage.clone());
                self.repair(node, primary, repair, &work, stage);
            }
            (Task::Configure | Task::Start | Task::Restart { .. }, _) => self.end_work(node, Ok(Deed::default())),
        }
    }

    pub fn stop_server(&mut self, node: usize, how: Shutdown) {
        let server = &mut self.nodes[node];
        if how == Shutdown::Fast && !server.is_stalled {
            server.flushed = server.wal.len();
        }
        self.kill(node, Life::Down);
    }

    fn start_by_order(&mut self, node: usize) {
        let server = &self.nodes[node];
        match (server.life, server.data, server.in_recovery) {
            (Life::Running | Life::Starting, ..) => self.go_on(node, Stage::Starts, 1),
            (_, Data::Absent | Data::Unfinished, _) => {
                self.end_work(node, Err((Code::Impossible, "there is no data to start".into())));
            }
            (.., true) => {
                self.launch(node, self.now);
                self.go_on(node, Stage::Starts, 40);
            }
            (.., false) => {
                self.go_on(node, Stage::Asks, GATE_LIMIT);
                self.ask_gate(node);
            }
        }
    }

    fn make_cluster(&mut self, node: usize) {
        let wal = crate::world::first_log();
        let server = &mut self.nodes[node];
        let agent = server.agent.take();
        let (incarnation, order, process) = (server.incarnation, server.order, server.process);
        *server =
            Node { agent, incarnation, order, process, life: Life::Down, ..Node::new(server.id.clone(), None, wal) };
    }
}
