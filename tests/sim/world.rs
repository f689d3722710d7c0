//! Everything that there is in a run, and the order in which it happens.
//!
//! One queue of what is due, by time and then by the order in which it was put there; one generator of chance; no clock.

use std::collections::BinaryHeap;

use pgbaton::cluster::Policy;
use pgbaton::cluster::agent::{Order, Report};
use pgbaton::types::NodeId;

use crate::agent::{Agent, Said};
use crate::clients::Client;
use crate::faults::{Fault, Plan};
use crate::invariants::{Fact, Judge, View};
use crate::message::{Caller, Reply, Request};
use crate::network::Network;
use crate::node::{Data, Life, Node, name};
use crate::operator::Operator;
use crate::pgbaton::Pgbaton;
use crate::plants::{Plant, Planted};
use crate::random::Random;
use crate::store::Store;
use crate::trace::Trace;
use crate::wal::{Entry, Payload, Wal};

/// What is going to happen. Those with a `node` happen to that server, and wait while it is frozen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Due {
    Arrive { to: usize, request: Request },
    Flush { node: usize, incarnation: u64, len: usize },
    Apply { node: usize, incarnation: u64, whom: Option<u64> },
    Promoted { node: usize, incarnation: u64 },
    Started { node: usize, incarnation: u64 },
    StopReceiver { node: usize, incarnation: u64 },
    LoseReceiver { node: usize, incarnation: u64 },
    Connect { node: usize, incarnation: u64 },
    Batch { node: usize, from: usize, serial: u64, behind: u64, entries: Vec<Entry> },
    Ack { node: usize, from: usize, serial: u64, flushed: u64 },
    Ping { node: usize, from: usize, serial: u64 },
    Pong { node: usize, from: usize, serial: u64 },
    Hangup { node: usize, from: usize, serial: u64 },
    ReceiverTimer { node: usize, serial: u64 },
    // Of the agents, each beside its server.
    Watch { node: usize, serial: u64 },
    Work { node: usize, serial: u64 },
    GateSays { node: usize, serial: u64, said: Said },
    AgentAsked { to: usize, process: u64, serial: u64, order: Option<Box<Order>> },
    // Of pgbaton; void when it has been started again.
    AgentSays { process: u64, from: usize, serial: u64, report: Option<Box<Report>> },
    GateAsks { node: usize, serial: u64 },
    Reply { process: u64, from: usize, caller: Caller, reply: Reply },
    Own { process: u64, timer: Timer },
    Boot,
    // Of the world.
    Think { client: usize },
    Impatient { client: usize, id: u64 },
    Fault(Fault),
    Heal(Fault),
    Operate,
    Calm,
    Look,
}

/// What pgbaton itself waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    Tick {
        at: u64,
    },
    Probe {
        node: usize,
    },
    ProbeLate {
        node: usize,
        serial: u64,
    },
    AskAgent {
        node: usize,
    },
    AgentLate {
        serial: u64,
    },
    Errand {
        id: u64,
    },
    Drained {
        id: u64,
    },
    Beat,
    BeatLate {
        serial: u64,
    },
    Stored {
        serial: u64,
    },
    Ask {
        id: u64,
    },
    Late {
        id: u64,
        question: u64,
    },
    GiveUp {
        id: u64,
    },
    /// Only a planted bug sets it.
    Planted,
}

/// What is due, by time and then by the order in which it came. The heap holds numbers only, because it moves what it holds
/// about, and ten thousand runs spend much of their time here.
#[derive(Default)]
struct Queue {
    /// Time, order and slot in one number, inverted, as the heap gives out the largest.
    heap: BinaryHeap<u128>,
    slots: Vec<Option<Due>>,
    free: Vec<usize>,
    order: u64,
}

impl Queue {
    fn put(&mut self, at: u64, due: Due) {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(due);
        self.order += 1;
        self.heap.push(!(u128::from(at) << 64 | u128::from(self.order) << 24 | slot as u128));
    }

    /// The time, a number of its own, and what is due then.
    fn take(&mut self) -> Option<(u64, u64, Due)> {
        let key = !self.heap.pop()?;
        let slot = (key & 0xff_ffff) as usize;
        self.free.push(slot);
        let due = self.slots[slot].take()?;
        Some(((key >> 64) as u64, key as u64 >> 24, due))
    }
}

pub struct World {
    pub now: u64,
    queue: Queue,
    serial: u64,
    pub random: Random,
    pub trace: Trace,
    pub policy: Policy,
    pub ids: Vec<NodeId>,
    pub nodes: Vec<Node>,
    pub net: Network,
    pub store: Store,
    pub pgbaton: Pgbaton,
    pub clients: Vec<Client>,
    pub operator: Operator,
    pub plan: Plan,
    pub plant: Option<Plant>,
    pub planted: Planted,
    pub judge: Judge,
    /// Faults have stopped.
    pub is_calm: bool,
    pub is_over: bool,
}

/// What every server has at the beginning.
pub fn first_log() -> Wal {
    let mut wal = Wal::default();
    for number in 1..=3 {
        wal.push(Entry { number, end: 1000 + number * 100, timeline: 1, payload: Payload::Other });
    }
    wal
}

impl World {
    pub fn new(seed: u64, plan: Plan, plant: Option<Plant>, is_traced: bool) -> World {
        let mut random = Random::new(seed);
        let policy = plan.policy(&mut random);
        let count = policy.nodes.len();
        let wal = first_log();
        let begins_empty = plan.has_agents && plan.script.is_none() && random.chance(60);
        let nodes = (0..count).map(|at| {
            let node = Node::new(name(at), (at > 0).then_some(0), wal.clone());
            let agent = plan.has_agents.then(Agent::running);
            match begins_empty {
                true => Node { agent, data: Data::Absent, life: Life::Down, wal: Wal::default(), ..node },
                false => Node { agent, ..node },
            }
        });
        let nodes = nodes.collect();
        let mut world = World {
            now: 0,
            queue: Queue::default(),
            serial: 1000,
            random,
            trace: Trace::new(is_traced),
            ids: (0..count).map(name).collect(),
            nodes,
            net: Network::new(count + 1),
            store: Store::default(),
            pgbaton: Pgbaton::new(count),
            clients: vec![Client::default(); 2],
            operator: Operator::default(),
            judge: Judge::new(),
            policy,
            plan,
            plant,
            planted: Planted::default(),
            is_calm: false,
            is_over: false,
        };
        for node in 1..count {
            world.will_connect(node, 5);
        }
        world.after(20, Due::Boot);
        for client in 0..world.clients.len() {
            world.after(100, Due::Think { client });
        }
        world.draw_faults();
        world
    }

    /// To the end, or to the first broken invariant.
    pub fn run(&mut self) {
        while !self.is_over && self.judge.verdict.is_none() {
            let Some((at, order, due)) = self.queue.take() else { return };
            self.now = at;
            self.trace.mix(at);
            self.trace.mix(order);
            self.happen(due);
        }
    }

    fn happen(&mut self, due: Due) {
        if let Some(node) = due.server()
            && self.nodes[node].is_frozen
        {
            return self.nodes[node].inbox.push(due);
        }
        if self.pgbaton.is_frozen && matches!(due, Due::Reply { .. } | Due::Own { .. } | Due::AgentSays { .. }) {
            return self.pgbaton.inbox.push(due);
        }
        let count = self.nodes.len();
        match due {
            Due::Arrive { to, request } => {
                if !self.net.is_cut(count, to) {
                    self.arrive(to, request);
                } else if self.random.chance(300) {
                    // The connection lives longer than the cut.
                    let after = self.random.between(200, 1500);
                    self.after(after, Due::Arrive { to, request });
                }
            }
            Due::Reply { process, from, caller, reply } => {
                if process != self.pgbaton.process {
                } else if !self.net.is_cut(from, count) {
                    self.replied(from, caller, reply);
                } else if self.random.chance(300) {
                    let after = self.random.between(200, 1500);
                    self.after(after, Due::Reply { process, from, caller, reply });
                }
            }
            Due::Flush { node, incarnation, len } if self.is_current(node, incarnation) => self.flush(node, len),
            Due::Apply { node, incarnation, whom } if self.is_current(node, incarnation) => self.apply(node, whom),
            Due::Promoted { node, incarnation } if self.is_current(node, incarnation) => self.promoted(node),
            Due::Started { node, incarnation } if self.nodes[node].incarnation == incarnation => self.started(node),
            Due::StopReceiver { node, incarnation } if self.is_current(node, incarnation) => {
                let server = &self.nodes[node];
                if server.receiver.as_ref().is_none_or(|receiver| Some(receiver.upstream) != server.conninfo) {
                    self.stop_receiver(node);
                }
            }
            Due::LoseReceiver { node, incarnation } if self.is_current(node, incarnation) => self.stop_receiver(node),
            Due::Connect { node, incarnation } if self.is_current(node, incarnation) => self.connect(node),
            Due::Flush { .. }
            | Due::Apply { .. }
            | Due::Promoted { .. }
            | Due::Started { .. }
            | Due::StopReceiver { .. }
            | Due::LoseReceiver { .. }
            | Due::Connect { .. } => {}
            Due::Batch { node, from, serial, behind, entries } => self.batch(node, from, serial, behind, entries),
            Due::Ack { node, from, serial, flushed } => self.ack(node, from, serial, flushed),
            Due::Ping { node, from, serial } => self.ping(node, from, serial),
            Due::Pong { node, from, serial } => self.pong(node, from, serial),
            Due::Hangup { node, from, serial } => self.hangup(node, from, serial),
            Due::ReceiverTimer { node, serial } => self.receiver_timer(node, serial),
            Due::Watch { node, serial } => self.watch(node, serial),
            Due::Work { node, serial } => self.work(node, serial),
            Due::GateSays { node, serial, said } => self.gate_said(node, serial, said),
            Due::AgentAsked { to, process, serial, order } => self.ask_at_agent(to, process, serial, order),
            Due::AgentSays { process, from, serial, report } => self.agent_says(process, from, serial, report),
            Due::GateAsks { node, serial } => {
                if !self.net.is_cut(node, count) {
                    self.answer_gate(node, serial);
                }
            }
            Due::Own { process, timer } if process == self.pgbaton.process => self.timer(timer),
            Due::Own { .. } => {}
            Due::Boot => self.boot(),
            Due::Think { client } => self.think(client),
            Due::Impatient { client, id } => self.impatient(client, id),
            Due::Fault(fault) => self.strike(fault),
            Due::Heal(fault) => self.mend(fault),
            Due::Operate => self.operate(),
            Due::Calm => self.calm(),
            Due::Look => self.look(),
        }
    }

    fn is_current(&self, node: usize, incarnation: u64) -> bool {
        self.nodes[node].incarnation == incarnation && self.nodes[node].life == crate::node::Life::Running
    }

    pub fn at(&mut self, at: u64, due: Due) {
        self.queue.put(at, due);
    }

    pub fn after(&mut self, after: u64, due: Due) {
        self.at(self.now + after, due);
    }

    pub fn own(&mut self, after: u64, timer: Timer) {
        let process = self.pgbaton.process;
        self.after(after, Due::Own { process, timer });
    }

    pub fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub fn say(&mut self, text: impl Fn(&World) -> String) {
        if self.trace.is_kept() {
            let text = text(self);
            self.trace.say(self.now, text);
        }
    }

    /// Holds a fact against the invariants.
    pub fn judge(&mut self, fact: &Fact<'_>) {
        let view = View { now: self.now, nodes: &self.nodes, record: self.store.record.as_ref(), policy: &self.policy };
        self.judge.hear(fact, &view);
    }
}

impl Due {
    fn server(&self) -> Option<usize> {
        match self {
            Due::Arrive { to, .. } | Due::AgentAsked { to, .. } => Some(*to),
            Due::Watch { node, .. } | Due::Work { node, .. } | Due::GateSays { node, .. } => Some(*node),
            Due::Flush { node, .. }
            | Due::Apply { node, .. }
            | Due::Promoted { node, .. }
            | Due::Started { node, .. }
            | Due::StopReceiver { node, .. }
            | Due::LoseReceiver { node, .. }
            | Due::Connect { node, .. }
            | Due::Batch { node, .. }
            | Due::Ack { node, .. }
            | Due::Ping { node, .. }
            | Due::Pong { node, .. }
            | Due::Hangup { node, .. }
            | Due::ReceiverTimer { node, .. } => Some(*node),
            _ => None,
        }
    }
}
