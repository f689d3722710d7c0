//! What goes wrong, and when: drawn by the seed from a profile, for some seconds; then everything is mended.

use pgbaton::cluster::{Command, NodePolicy, Phase, Policy};
use pgbaton::types::{Durability, Millis};

use crate::node::{Data, Life, index, name};
use crate::random::Random;
use crate::wal::Wal;
use crate::world::{Due, World};

/// Whoever is the primary when it strikes.
const PRIMARY: usize = usize::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    Everything,
    Crashes,
    Partitions,
    Restarts,
    Store,
    Slow,
    Frozen,
}

pub const PROFILES: [Profile; 7] = [
    Profile::Everything,
    Profile::Crashes,
    Profile::Partitions,
    Profile::Restarts,
    Profile::Store,
    Profile::Slow,
    Profile::Frozen,
];

/// What kind of run it is.
#[derive(Clone, Debug)]
pub struct Plan {
    pub profile: Profile,
    pub durability: Option<Durability>,
    /// There is an agent beside each node, and nobody repairs anything by hand.
    pub has_agents: bool,
    /// People rewind former primaries while faults go on, too.
    pub has_people: bool,
    /// Instead of what would be drawn.
    pub script: Option<Script>,
}

/// A story told by hand: so many nodes, what goes wrong when, and when it stops. Delays are still the seed's.
#[derive(Clone, Debug)]
pub struct Script {
    pub nodes: usize,
    pub faults: Vec<(u64, Fault)>,
    pub calm: u64,
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let profile = PROFILES[(seed % PROFILES.len() as u64) as usize];
        Plan {
            profile,
            durability: None,
            has_agents: (seed / 7) % 2 == 1,
            has_people: (seed / 14).is_multiple_of(2),
            script: None,
        }
    }

    pub fn policy(&self, random: &mut Random) -> Policy {
        let count = [3, 3, 3, 3, 2, 4, 4, 5][random.below(8) as usize];
        let count = self.script.as_ref().map_or(count, |script| script.nodes);
        let drawn = if random.chance(650) { Durability::Quorum } else { Durability::Async };
        let nodes = (0..count).map(|at| {
            let priority = [100, 100, 100, 100, 100, 50, 0][random.below(if at == 0 { 5 } else { 7 }) as usize];
            let priority = if self.script.is_some() { 100 } else { priority };
            (name(at), NodePolicy { priority, zone: String::new(), has_agent: self.has_agents })
        });
        let nodes = nodes.collect();
        Policy {
            coordinator: "sim".into(),
            automatic: true,
            durability: self.durability.unwrap_or(drawn),
            acks: if random.chance(700) || self.script.is_some() { 1 } else { 2 },
            max_lost_bytes: [0, 5_000, 20_000, 1_000_000][random.below(4) as usize],
            misses: random.between(1, 3) as u32,
            probe_interval: Millis(300),
            probe_timeout: Millis(400),
            veto: Millis(1500),
            restart_wait: Millis(1000),
            anti_flap: Millis(2000),
            voter_grace: Millis(800),
            drain: Millis(300),
            rejoins: true,
            job_limit: Millis(5000),
            nodes,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    Kill {
        node: usize,
    },
    Gone {
        node: usize,
    },
    Freeze {
        node: usize,
    },
    /// From everybody, or only from pgbaton.
    Isolate {
        node: usize,
        from_all: bool,
    },
    /// One direction, or (`node` to pgbaton and back) one of those.
    OneWay {
        from: usize,
        to: usize,
    },
    Slow,
    Loss,
    PauseReplay {
        node: usize,
    },
    Lag {
        node: usize,
    },
    /// The disk hangs: it answers and cannot write.
    Stall {
        node: usize,
    },
    Full {
        node: usize,
    },
    Die,
    DieSoon {
        actions: u64,
    },
    FreezePgbaton,
    StoreFails,
    StoreSlow,
    Order(Order),
    PromoteByHand {
        node: usize,
    },
    /// The agent's process; its server lives on.
    KillAgent {
        node: usize,
    },
    /// Everything that is on a standby's disk is lost.
    Wipe {
        node: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    Pause,
    Resume,
    Maintenance { node: usize, on: bool },
    Failover { to: usize, allow_data_loss: bool },
    Switchover { to: Option<usize> },
    Rejoin { node: usize, rebuild: bool },
    Restart { node: usize },
}

impl World {
    pub fn draw_faults(&mut self) {
        self.after(1000, Due::Operate);
        if let Some(script) = self.plan.script.clone() {
            for (at, fault) in script.faults {
                self.at(at, Due::Fault(fault));
            }
            return self.at(script.calm, Due::Calm);
        }
        let end = self.random.between(2500, 8500);
        let mut at = if self.random.chance(100) { 100 } else { 900 };
        let haste = self.random.between(300, 1800);
        while at < end {
            let fault = self.draw_fault();
            self.at(at, Due::Fault(fault));
            at += if self.random.chance(200) { self.random.below(60) } else { self.random.between(50, haste) };
        }
        self.at(end, Due::Calm);
    }

    fn draw_fault(&mut self) -> Fault {
        let count = self.nodes.len() as u64;
        let any = self.random.below(count) as usize;
        let node = if self.random.chance(450) { PRIMARY } else { any };
        // Weights: kill, gone, freeze, isolate, one way, slow, loss, replay, stall, full, die, freeze pgbaton, store, orders.
        let weights: [u64; 14] = match self.plan.profile {
            Profile::Everything => [9, 4, 6, 7, 5, 3, 3, 4, 3, 2, 7, 3, 5, 5],
            Profile::Crashes => [20, 8, 4, 0, 0, 1, 1, 2, 1, 0, 2, 0, 0, 1],
            Profile::Partitions => [4, 3, 2, 15, 12, 1, 3, 1, 0, 0, 1, 1, 0, 1],
            Profile::Restarts => [9, 2, 3, 3, 1, 1, 0, 1, 0, 0, 18, 6, 2, 1],
            Profile::Store => [9, 2, 3, 3, 1, 1, 0, 1, 1, 0, 5, 1, 14, 2],
            Profile::Slow => [8, 2, 4, 3, 2, 8, 6, 4, 3, 1, 2, 2, 2, 1],
            Profile::Frozen => [4, 1, 15, 3, 1, 2, 1, 2, 6, 1, 2, 5, 1, 1],
        };
        let mut left = self.random.below(weights.iter().sum());
        let mut kind = 0;
        while left >= weights[kind] {
            left -= weights[kind];
            kind += 1;
        }
        let coin = self.random.chance(500);
        if self.plan.has_agents && self.random.chance(150) {
            return match self.random.below(6) {
                0 => Fault::KillAgent { node },
                1 => Fault::Wipe { node: any },
                2 => Fault::Order(Order::Rejoin { node: any, rebuild: coin }),
                3 => Fault::Order(Order::Restart { node: any }),
                _ => Fault::Order(Order::Switchover { to: coin.then_some(any) }),
            };
        }
        match kind {
            0 => Fault::Kill { node },
            1 => Fault::Gone { node },
            2 => Fault::Freeze { node },
            3 => Fault::Isolate { node, from_all: coin },
            4 => {
                // The index behind the last node is pgbaton's.
                let other = self.random.below(count + 1) as usize;
                if coin { Fault::OneWay { from: any, to: other } } else { Fault::OneWay { from: other, to: any } }
            }
            5 => Fault::Slow,
            6 => Fault::Loss,
            7 if coin => Fault::PauseReplay { node: any },
            7 => Fault::Lag { node: any },
            8 => Fault::Stall { node },
            9 => Fault::Full { node },
            10 if coin => Fault::Die,
            10 => Fault::DieSoon { actions: self.random.between(1, 25) },
            11 => Fault::FreezePgbaton,
            12 if coin => Fault::StoreFails,
            12 => Fault::StoreSlow,
            _ => match self.random.below(10) {
                0 => Fault::Order(Order::Pause),
                1 => Fault::Order(Order::Resume),
                2 | 3 => Fault::Order(Order::Maintenance { node: any, on: coin }),
                4 | 5 => Fault::Order(Order::Failover { to: any, allow_data_loss: false }),
                6 => Fault::Order(Order::Failover { to: any, allow_data_loss: true }),
                7 | 8 => Fault::Order(Order::Switchover { to: coin.then_some(any) }),
                _ => Fault::PromoteByHand { node: any },
            },
        }
    }

    fn current_primary(&mut self) -> usize {
        let of_record = self.store.record.as_ref().map(|record| crate::node::index(&record.primary));
        of_record.unwrap_or_else(|| self.random.below(self.nodes.len() as u64) as usize)
    }

    pub fn strike(&mut self, fault: Fault) {
        if self.is_calm {
            return;
        }
        let primary = self.current_primary();
        let resolve = |node: usize| if node == PRIMARY { primary } else { node };
        let fault = match fault {
            Fault::Kill { node } => Fault::Kill { node: resolve(node) },
            Fault::Gone { node } => Fault::Gone { node: resolve(node) },
            Fault::Freeze { node } => Fault::Freeze { node: resolve(node) },
            Fault::Isolate { node, from_all } => Fault::Isolate { node: resolve(node), from_all },
            Fault::Stall { node } => Fault::Stall { node: resolve(node) },
            Fault::Full { node } => Fault::Full { node: resolve(node) },
            Fault::KillAgent { node } => Fault::KillAgent { node: resolve(node) },
            fault => fault,
        };
        self.say(|_| format!("FAULT {fault:?}"));
        let mut lasts = if self.random.chance(300) { (20, 300) } else { (300, 4000) };
        match &fault {
            Fault::Kill { node } => self.kill(*node, Life::Down),
            Fault::Gone { node } => {
                self.kill(*node, Life::Gone);
                self.nodes[*node].life = Life::Gone;
                self.kill_agent(*node);
            }
            Fault::Freeze { node } => {
                let node = &mut self.nodes[*node];
                node.is_frozen = node.life == Life::Running;
            }
            Fault::Isolate { .. } | Fault::OneWay { .. } => {
                let links = self.links(&fault);
                self.net.cut(&links);
            }
            Fault::Slow => self.net.base = (20, 600),
            Fault::Loss => self.net.loss = 200,
            Fault::PauseReplay { node } => self.nodes[*node].is_replay_paused = true,
            Fault::Lag { node } => self.nodes[*node].replay_lag = 700,
            Fault::Stall { node } => self.nodes[*node].is_stalled = true,
            Fault::Full { node } => self.nodes[*node].is_full = true,
            Fault::Die => {
                self.die();
                lasts = (20, 1500);
            }
            Fault::DieSoon { actions } => self.pgbaton.dies_after = Some(*actions),
            Fault::FreezePgbaton => {
                self.pgbaton.is_frozen = true;
                lasts = (50, 3000);
            }
            Fault::StoreFails => self.store.is_failing = true,
            Fault::StoreSlow => self.store.is_slow = true,
            Fault::Order(order) => self.order(*order),
            Fault::KillAgent { node } => self.kill_agent(*node),
            Fault::Wipe { node } => self.wipe(*node),
            Fault::PromoteByHand { node } => {
                if self.nodes[*node].is_up() {
                    self.promote(*node);
                }
            }
        }
        let after = self.random.between(lasts.0, lasts.1);
        self.after(after, Due::Heal(fault));
    }

    pub fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::Kill { .. } if self.plan.has_agents => {}
            Fault::Gone { node } | Fault::KillAgent { node } if self.plan.has_agents => self.boot_agent(node),
            Fault::Kill { node } | Fault::Gone { node } => self.start(node),
            Fault::Freeze { node } => self.thaw(node),
            Fault::Isolate { .. } | Fault::OneWay { .. } => {
                let links = self.links(&fault);
                self.net.heal(&links);
            }
            Fault::Slow => self.net.base = (1, 3),
            Fault::Loss => self.net.loss = 0,
            Fault::PauseReplay { node } => self.nodes[node].is_replay_paused = false,
            Fault::Lag { node } => self.nodes[node].replay_lag = 5,
            Fault::Stall { node } => self.unstall(node),
            Fault::Full { node } => self.nodes[node].is_full = false,
            Fault::Die | Fault::DieSoon { .. } => self.boot(),
            Fault::FreezePgbaton => self.thaw_pgbaton(),
            Fault::StoreFails => self.store.is_failing = false,
            Fault::StoreSlow => self.store.is_slow = false,
            Fault::Order(_) | Fault::PromoteByHand { .. } | Fault::Wipe { .. } | Fault::KillAgent { .. } => {}
        }
    }

    fn links(&self, fault: &Fault) -> Vec<(usize, usize)> {
        let count = self.nodes.len();
        match *fault {
            Fault::Isolate { node, from_all } => {
                let others = if from_all { 0..count + 1 } else { count..count + 1 };
                others.filter(|other| *other != node).flat_map(|other| [(node, other), (other, node)]).collect()
            }
            Fault::OneWay { from, to } => vec![(from, to)],
            _ => Vec::new(),
        }
    }

    /// Not of the primary, nor of a second node: then even what two nodes have acknowledged may be lost, and nobody promises
    /// anything about that.
    fn wipe(&mut self, node: usize) {
        let Some(record) = self.store.record.as_ref().filter(|record| record.phase == Phase::Stable) else { return };
        let are_whole = self.nodes.iter().all(|node| node.data == Data::Present);
        if !are_whole || index(&record.primary) == node || self.nodes[node].life == Life::Gone {
            return;
        }
        self.kill(node, Life::Down);
        let server = &mut self.nodes[node];
        server.data = Data::Absent;
        server.wal = Wal::default();
        (server.flushed, server.replayed, server.diverged_at) = (0, 0, None);
    }

    fn thaw(&mut self, node: usize) {
        if !self.nodes[node].is_frozen {
            return;
        }
        self.say(|world| format!("{} goes on where it was stopped", world.nodes[node].id));
        self.nodes[node].is_frozen = false;
        for due in std::mem::take(&mut self.nodes[node].inbox) {
            self.after(0, due);
        }
    }

    fn unstall(&mut self, node: usize) {
        self.nodes[node].is_stalled = false;
        for due in std::mem::take(&mut self.nodes[node].stalled) {
            self.after(1, due);
        }
    }

    /// Faults stop. What is broken is mended, what is down is started, orders are taken back.
    pub fn calm(&mut self) {
        self.is_calm = true;
        self.say(|_| "CALM".to_string());
        self.net.heal_all();
        for node in 0..self.nodes.len() {
            self.thaw(node);
            self.unstall(node);
            self.nodes[node].is_full = false;
            self.nodes[node].is_replay_paused = false;
            self.nodes[node].replay_lag = 5;
            match self.plan.has_agents {
                true => self.boot_agent(node),
                false => self.start(node),
            }
        }
        self.store.is_failing = false;
        self.store.is_slow = false;
        self.pgbaton.dies_after = None;
        self.thaw_pgbaton();
        self.boot();
        self.operator.calm_since = Some(self.now);
        self.operator.acknowledged = self.clients.iter().map(|client| client.acknowledged).sum();
        self.after(0, Due::Look);
    }
}

impl Order {
    pub fn command(self) -> Command {
        match self {
            Order::Pause => Command::Pause,
            Order::Resume => Command::Resume,
            Order::Maintenance { node, on } => Command::Maintenance { node: name(node), on },
            Order::Switchover { to } => Command::Switchover { to: to.map(name) },
            Order::Rejoin { node, rebuild } => Command::Rejoin { node: name(node), rebuild },
            Order::Restart { node } => Command::Restart { node: name(node) },
            Order::Failover { to, allow_data_loss } => Command::Failover { to: name(to), allow_data_loss },
        }
    }
}
