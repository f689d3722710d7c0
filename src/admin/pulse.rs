//! What is moving just now: the numbers of the event stream, and the rates that only two looks can tell.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::figures::{Figures, Quantiles};
use crate::route::balance;
use crate::session::clients::Activity;
use crate::session::shared::Shared;

/// Pools that are told of; those beyond are the ones with the least to do.
const POOLS: usize = 100;

/// The event `figures`. Rates are per second, of the time since the look before, and null at the first look.
#[derive(Debug, Serialize)]
pub struct Pulse {
    /// In milliseconds since 1970.
    pub at: u64,
    pub clients: Clients,
    /// Statements that wait for a primary, and how much memory their messages take.
    pub held: Held,
    /// For how long nobody has taken writes, in milliseconds; null while somebody does.
    pub closed_ms: Option<u64>,
    /// Transactions that ended, statements outside of one among them, by where they ran.
    pub rates: Option<Rates>,
    /// How long answers to statements took in the last few seconds, in milliseconds: half of them less, 99 of 100 less.
    pub query_ms: Latency,
    /// Each time a session was given a server connection since the start, by what they were, where they went and why.
    pub routes: Vec<Route>,
    /// Statements that a replica could not answer and that were run elsewhere, since the start.
    pub retried: u64,
    /// Commits whose answer was lost, by what their clients were told, since the start.
    pub in_doubt: Vec<Doubt>,
    pub nodes: Vec<Node>,
    pub pools: Vec<Pool>,
    /// How many more there are.
    pub pools_left_out: usize,
}

/// Null when there were none.
#[derive(Debug, Default, Serialize)]
pub struct Latency {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

#[derive(Debug, Default, Serialize)]
pub struct Clients {
    pub connected: usize,
    /// A server works for them.
    pub active: usize,
    /// They wait for a server connection.
    pub waiting: usize,
}

#[derive(Debug, Serialize)]
pub struct Held {
    pub statements: usize,
    pub bytes: usize,
}

#[derive(Debug, Serialize)]
pub struct Rates {
    pub primary: f64,
    pub replica: f64,
    pub retried: f64,
}

#[derive(Debug, Serialize)]
pub struct Route {
    pub class: &'static str,
    pub target: &'static str,
    pub reason: &'static str,
    pub total: u64,
    pub per_second: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct Doubt {
    pub outcome: &'static str,
    pub total: u64,
}

#[derive(Debug, Serialize)]
pub struct Node {
    pub id: String,
    /// Server connections that serve a client.
    pub in_use: usize,
    /// What the replica was given of the reads; null for the primary.
    pub reads_per_second: Option<f64>,
    /// Moving average of how long a read took there; null while not measured.
    pub read_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct Pool {
    pub database: String,
    pub user: String,
    pub node: String,
    pub active: usize,
    pub idle: usize,
    pub waiting: usize,
}

/// Remembers the last look, so that the next one can tell rates.
#[derive(Default)]
pub struct Meter {
    last: Option<Look>,
}

struct Look {
    at: Instant,
    routes: HashMap<(&'static str, &'static str, &'static str), u64>,
    retried: u64,
    /// Reads that each node was chosen for.
    served: HashMap<String, u64>,
    /// Transactions that each client has seen the end of.
    transactions: HashMap<u64, u64>,
}

/// How often something happened between two looks.
#[derive(Clone, Copy)]
struct Between(Duration);

impl Between {
    fn rate(self, before: u64, now: u64) -> f64 {
        let rate = now.saturating_sub(before) as f64 / self.0.as_secs_f64().max(0.001);
        // A tenth is more than two looks can tell.
        (rate * 10.0).round() / 10.0
    }
}

impl Meter {
    /// Rates begin anew: the last look was too long ago to be worth anything.
    pub fn reset(&mut self) {
        self.last = None;
    }

    pub fn look(&mut self, shared: &Shared, at: u64, closed_ms: Option<u64>) -> Pulse {
        let now = Instant::now();
        let counted = shared.routes.all();
        let (nodes, served) = nodes(shared);
        let (clients, transactions) = clients(shared);
        let look = Look {
            at: now,
            routes: counted.iter().map(|(class, target, reason, count)| ((*class, *target, *reason), *count)).collect(),
            retried: shared.routes.retried(),
            served,
            transactions,
        };
        let last = self.last.as_ref().map(|last| (last, Between(now - last.at)));
        let routes: Vec<Route> = counted
            .into_iter()
            .map(|(class, target, reason, total)| {
                let before = |last: &Look| last.routes.get(&(class, target, reason)).copied().unwrap_or(0);
                let per_second = last.map(|(last, between)| between.rate(before(last), total));
                Route { class, target, reason, total, per_second }
            })
            .collect();
        let to = |target: &str| {
            let rates = routes.iter().filter(|route| route.target == target).filter_map(|route| route.per_second);
            // A sum over nothing is -0.0.
            rates.sum::<f64>() + 0.0
        };
        let rates = last.map(|(last, between)| {
            let ended = look.ended_since(last);
            let replica = to("replica");
            // A session that keeps its connection to the primary is counted once in the routes, whatever it does there.
            let primary = (between.rate(0, ended) - replica).max(to("primary"));
            Rates { primary, replica, retried: between.rate(last.retried, look.retried) }
        });
        let nodes = match (&rates, last) {
            (Some(rates), Some((last, _))) => shared_out(nodes, rates.replica, &last.served, &look.served),
            _ => nodes,
        };
        let (pools, pools_left_out) = pools(shared);
        let Quantiles { p50, p99 } = Figures::of(shared).query_seconds;
        let ms = |seconds: f64| (seconds * 100_000.0).round() / 100.0;
        let pulse = Pulse {
            at,
            query_ms: Latency { p50: p50.map(ms), p99: p99.map(ms) },
            clients,
            held: Held { statements: shared.hold.statements(), bytes: shared.hold.bytes() },
            closed_ms,
            rates,
            routes,
            retried: look.retried,
            in_doubt: shared.doubts.counted().map(|(outcome, total)| Doubt { outcome, total }).into(),
            nodes,
            pools,
            pools_left_out,
        };
        self.last = Some(look);
        pulse
    }
}

impl Look {
    /// Transactions that ended between the two. What clients that have left did in their last moments is not known.
    fn ended_since(&self, last: &Look) -> u64 {
        let ended =
            |(client, now): (&u64, &u64)| now.saturating_sub(last.transactions.get(client).copied().unwrap_or(0));
        self.transactions.iter().map(ended).sum()
    }
}

fn clients(shared: &Shared) -> (Clients, HashMap<u64, u64>) {
    let (mut clients, mut transactions) = (Clients::default(), HashMap::new());
    for client in shared.clients.all() {
        clients.connected += 1;
        transactions.insert(client.id, client.transactions.load(Ordering::Relaxed));
        match client.activity() {
            Activity::Idle => {}
            Activity::Waiting => clients.waiting += 1,
            Activity::Active => clients.active += 1,
        }
    }
    (clients, transactions)
}

fn nodes(shared: &Shared) -> (Vec<Node>, HashMap<String, u64>) {
    let view = shared.readers.view();
    let mut served = HashMap::new();
    let node = |reader: &crate::session::readers::Reader| {
        let (id, load) = (reader.address.id.to_string(), &reader.load);
        served.insert(id.clone(), load.served.load(Ordering::Relaxed) / balance::charge(1.0));
        let latency = f64::from(load.latency_us());
        let read_ms = (latency > 0.0).then(|| (latency / 10.0).round() / 100.0);
        Node { id, in_use: load.in_use.load(Ordering::Relaxed), reads_per_second: None, read_ms }
    };
    (view.nodes.iter().filter(|reader| reader.is_present()).map(node).collect(), served)
}

/// What a node is charged for in balancing is more than one read each while it warms up, so it tells who had which share, and the
/// routes tell how much there was.
fn shared_out(
    mut nodes: Vec<Node>,
    reads: f64,
    before: &HashMap<String, u64>,
    now: &HashMap<String, u64>,
) -> Vec<Node> {
    let gained = |id: &str| {
        let now = now.get(id).copied().unwrap_or(0);
        now.saturating_sub(before.get(id).copied().unwrap_or(now))
    };
    let all: u64 = nodes.iter().map(|node| gained(&node.id)).sum();
    for node in &mut nodes {
        let share = gained(&node.id) as f64 / all.max(1) as f64;
        node.reads_per_second = Some((share * reads * 10.0).round() / 10.0);
    }
    nodes
}

fn pools(shared: &Shared) -> (Vec<Pool>, usize) {
    let pool = |pool: &std::sync::Arc<crate::pool::Pool>| {
        let (size, idle, waiting) = pool.status();
        let key = &pool.key;
        Pool {
            database: key.database.to_string(),
            user: key.user.to_string(),
            node: key.node.to_string(),
            active: size.saturating_sub(idle),
            idle,
            waiting,
        }
    };
    let mut pools: Vec<Pool> = shared.pools.all().iter().map(pool).collect();
    pools.sort_by_key(|pool| std::cmp::Reverse((pool.waiting, pool.active, pool.idle)));
    let left_out = pools.len().saturating_sub(POOLS);
    pools.truncate(POOLS);
    pools.sort_by(|a, b| (&a.database, &a.user, &a.node).cmp(&(&b.database, &b.user, &b.node)));
    (pools, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> Node {
        Node { id: id.into(), in_use: 0, reads_per_second: None, read_ms: None }
    }

    fn counts(counts: &[(&str, u64)]) -> HashMap<String, u64> {
        counts.iter().map(|(id, count)| ((*id).to_owned(), *count)).collect()
    }

    #[test]
    fn reads_are_shared_out_as_nodes_were_chosen() {
        let (before, now) = (counts(&[("n1", 5), ("n2", 100)]), counts(&[("n1", 5), ("n2", 400), ("n3", 1000)]));
        let nodes = shared_out(vec![node("n1"), node("n2"), node("n3")], 50.0, &before, &now);
        let rates: Vec<Option<f64>> = nodes.iter().map(|node| node.reads_per_second).collect();
        // What is counted for one that has just come was not read there since the last look.
        assert_eq!(rates, [Some(0.0), Some(50.0), Some(0.0)]);
        assert_eq!(Between(Duration::from_millis(500)).rate(10, 15), 10.0);
        assert_eq!(Between(Duration::ZERO).rate(10, 5), 0.0);
    }
}
