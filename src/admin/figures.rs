//! The figures of the data plane, as they are now: for the dashboard, and for whoever else wants them in one piece.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::session::clients::Activity;
use crate::session::shared::Shared;
use crate::session::tally::{self, Totals};

/// What is going on, and totals since the start.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Figures {
    pub clients: usize,
    /// Connections that have not logged in yet.
    pub logging_in: usize,
    /// Clients that wait for a server connection, those that are held included.
    pub waiting: usize,
    /// Statements that wait for a primary.
    pub held: usize,
    /// Transactions, and statements outside of one, that were sent there.
    pub statements_primary: u64,
    pub statements_replica: u64,
    /// Statements that were answered, with a result or an error; of a block each one.
    pub queries: u64,
    pub transactions: u64,
    pub errors: u64,
    /// What a replica could not answer and was run elsewhere.
    pub retried: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Of the last few seconds.
    pub per_second: Rates,
    pub query_seconds: Quantiles,
    pub pools: Vec<PoolFigures>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Rates {
    pub queries: f64,
    pub transactions: f64,
    pub errors: f64,
    pub received_bytes: f64,
    pub sent_bytes: f64,
}

/// How long answers took in the last few seconds; null when there were none.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Quantiles {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

/// The server connections for one node, database and user.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PoolFigures {
    pub database: String,
    pub user: String,
    pub node: String,
    pub active: usize,
    pub idle: usize,
    /// Being opened.
    pub opening: usize,
    /// Clients in line for one.
    pub waiting: usize,
    /// The most it may have.
    pub limit: usize,
}

impl Figures {
    pub fn of(shared: &Shared) -> Figures {
        let (mut statements_primary, mut statements_replica) = (0, 0);
        for (_, target, _, count) in shared.routes.all() {
            *(if target == "replica" { &mut statements_replica } else { &mut statements_primary }) += count;
        }
        let totals = tally::sum(shared.tallies.all().values());
        let (period, lately) = shared.tallies.lately(Instant::now());
        let lately = tally::sum(lately.values());
        Figures {
            clients: shared.clients.count(),
            logging_in: shared.logins.load(Ordering::Relaxed),
            waiting: shared.clients.all().iter().filter(|client| client.activity() == Activity::Waiting).count(),
            held: shared.hold.statements(),
            statements_primary,
            statements_replica,
            queries: totals.statements,
            transactions: totals.transactions,
            errors: totals.errors,
            retried: shared.routes.retried(),
            received_bytes: totals.received,
            sent_bytes: totals.sent,
            per_second: Rates::of(&lately, period),
            query_seconds: Quantiles::of(&lately),
            pools: pools(shared),
        }
    }
}

impl Rates {
    fn of(totals: &Totals, period: Duration) -> Rates {
        let rate = |count: u64| match period.as_secs_f64() {
            0.0 => 0.0,
            seconds => count as f64 / seconds,
        };
        Rates {
            queries: rate(totals.statements),
            transactions: rate(totals.transactions),
            errors: rate(totals.errors),
            received_bytes: rate(totals.received),
            sent_bytes: rate(totals.sent),
        }
    }
}

impl Quantiles {
    fn of(totals: &Totals) -> Quantiles {
        let [mut all, on_replicas] = totals.queries.clone();
        all.merge(&on_replicas);
        let seconds = |share| all.quantile(share).map(|us| us as f64 / 1e6);
        Quantiles { p50: seconds(0.5), p99: seconds(0.99) }
    }
}

/// All pools, ordered by database, user and node.
pub fn pools(shared: &Shared) -> Vec<PoolFigures> {
    let mut all: Vec<PoolFigures> = shared
        .pools
        .all()
        .iter()
        .map(|pool| {
            let (size, idle, waiting) = pool.status();
            // They are looked at one after the other, and may change in between.
            let opening = pool.opening().min(size.saturating_sub(idle));
            PoolFigures {
                database: pool.key.database.to_string(),
                user: pool.key.user.to_string(),
                node: pool.key.node.to_string(),
                active: size.saturating_sub(idle + opening),
                idle,
                opening,
                waiting,
                limit: pool.size_limit(),
            }
        })
        .collect();
    all.sort();
    all
}
