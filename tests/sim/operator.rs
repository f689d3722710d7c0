//! The people: give orders, rewind what cannot follow by itself, and in the end look
//! whether the cluster is well again.

use pgbaton::cluster::{CommandId, Event, Phase};
use pgbaton::types::Durability;

use crate::faults::Order;
use crate::invariants::Fact;
use crate::node::{Life, index};
use crate::world::{Due, World};

/// How long a node is left alone that does not follow.
const PATIENCE: u64 = 900;
/// How long, if it is only said that it cannot.
const LONG_PATIENCE: u64 = 8000;
/// When faults have stopped, all has to be well after so long.
const BOUND: u64 = 40_000;
/// Agents try again after growing pauses, and are called when a standby has not been streamed to for a while.
const BOUND_OF_AGENTS: u64 = 120_000;

#[derive(Clone, Default, Debug)]
pub struct Operator {
    commands: u64,
    pub calm_since: Option<u64>,
    /// How many commits were acknowledged when faults stopped.
    pub acknowledged: u64,
    well: u32,
}

impl World {
    pub fn order(&mut self, order: Order) {
        if self.pgbaton.brain.is_none() || self.pgbaton.is_frozen {
            return;
        }
        self.operator.commands += 1;
        let id = CommandId(self.operator.commands);
        self.deliver(Event::Asked { id, command: order.command() });
    }

    /// The primary of a stable epoch, if it serves.
    fn settled_primary(&self) -> Option<usize> {
        let (epoch, node) = self.pgbaton.serves()?;
        let record = self.store.record.as_ref()?;
        let server = &self.nodes[node];
        let is_it = record.phase == Phase::Stable
            && record.epoch.0 == epoch
            && index(&record.primary) == node
            && server.is_up()
            && server.is_primary()
            && !server.is_fenced;
        is_it.then_some(node)
    }

    pub fn operate(&mut self) {
        self.after(300, Due::Operate);
        if let Some(since) = self.operator.calm_since
            && self.now > since + 500
        {
            self.undo_orders();
        }
        if self.plan.has_agents || !self.is_calm && !self.plan.has_people {
            return;
        }
        let Some(primary) = self.settled_primary() else { return };
        for node in 0..self.nodes.len() {
            if node != primary {
                self.look_after(node, primary);
            }
        }
    }

    fn undo_orders(&mut self) {
        let Some(record) = &self.store.record else { return };
        let maintained: Vec<usize> = record.maintenance.iter().map(index).collect();
        if record.paused {
            self.order(Order::Resume);
        }
        for node in maintained {
            self.order(Order::Maintenance { node, on: false });
        }
    }

    fn look_after(&mut self, node: usize, primary: usize) {
        let now = self.now;
        let server = &self.nodes[node];
        let leader = &self.nodes[primary];
        // After two promotions to one number nobody can tell histories apart by their positions, so a standby may be said to need
        // a rebuild that needs none. People do what they are told, after a while.
        let is_doubtful = self.is_calm
            && server.in_recovery
            && server.receiver.is_none()
            && server.conninfo != Some(primary)
            && server.wal.timeline() == leader.wal.timeline();
        let needs_rewind = server.life == Life::Running
            && !server.is_frozen
            && !server.is_promoting
            && (!server.in_recovery
                || server.diverged_at.is_some()
                || server.wal.common(&leader.wal) < server.wal.len());
        if !needs_rewind && !is_doubtful {
            self.nodes[node].astray_since = None;
            return;
        }
        let since = *self.nodes[node].astray_since.get_or_insert(now);
        if now - since >= if needs_rewind { PATIENCE } else { LONG_PATIENCE } {
            self.rewind(node, primary);
        }
    }

    /// pg_rewind, or a new copy: the primary's log, and follow it.
    fn rewind(&mut self, node: usize, primary: usize) {
        self.say(|world| format!("{} is rewound to {}", world.nodes[node].id, world.nodes[primary].id));
        self.kill(node, Life::Down);
        let leader = &self.nodes[primary];
        let mut wal = leader.wal.clone();
        wal.truncate(leader.flushed);
        let known_timeline = leader.wal.timeline();
        let server = &mut self.nodes[node];
        server.flushed = wal.len();
        server.replayed = wal.len();
        server.wal = wal;
        server.known_timeline = known_timeline;
        server.in_recovery = true;
        server.conninfo = Some(primary);
        server.recruited_for = None;
        server.diverged_at = None;
        server.is_fenced = false;
        server.astray_since = None;
        self.start(node);
    }

    /// Is a primary serving, and is every other node its replica?
    pub fn look(&mut self) {
        let since = self.operator.calm_since.unwrap_or(self.now);
        match self.is_well() {
            Ok(()) => {
                self.operator.well += 1;
                if self.operator.well >= 3 {
                    self.judge(&Fact::End { result: Ok(()) });
                    self.is_over = true;
                    return;
                }
            }
            Err(reason) => {
                self.operator.well = 0;
                let bound = if self.plan.has_agents { BOUND_OF_AGENTS } else { BOUND };
                if self.now > since + bound {
                    self.judge(&Fact::End { result: Err(reason) });
                    return;
                }
            }
        }
        self.after(150, Due::Look);
    }

    /// Whether it receives from the primary; where nobody votes, by way of another is as good.
    fn leads_to(&self, node: usize, primary: usize) -> bool {
        let mut at = node;
        for _ in 0..self.nodes.len() {
            let Some(receiver) = &self.nodes[at].receiver else { return false };
            if receiver.upstream == primary {
                return true;
            }
            if self.policy.durability == Durability::Quorum {
                return false;
            }
            at = receiver.upstream;
        }
        false
    }

    fn is_well(&mut self) -> Result<(), String> {
        let Some(primary) = self.settled_primary() else { return Err("no primary serves".into()) };
        let now = self.now;
        for node in (0..self.nodes.len()).filter(|node| *node != primary) {
            self.nodes[node].catch_up(now);
            let server = &self.nodes[node];
            let id = &server.id;
            if !server.is_up() || !server.in_recovery {
                return Err(format!("{id} is not a running standby"));
            }
            if !self.leads_to(node, primary) {
                return Err(format!("{id} does not receive from the primary"));
            }
            if server.diverged_at.is_some() || server.replayed + 10 < self.nodes[primary].flushed {
                return Err(format!("{id} does not replay"));
            }
        }
        let acknowledged: u64 = self.clients.iter().map(|client| client.acknowledged).sum();
        if acknowledged < self.operator.acknowledged + 3 {
            return Err("commits are not acknowledged".into());
        }
        let Some(record) = &self.store.record else { return Err("nothing is stored".into()) };
        if self.policy.durability == Durability::Quorum && record.voters.is_empty() && self.nodes.len() > 1 {
            return Err("nobody votes".into());
        }
        if record.paused || !record.maintenance.is_empty() {
            return Err("orders were not taken back".into());
        }
        Ok(())
    }
}
