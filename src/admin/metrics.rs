//! `GET /metrics`: what is counted, for Prometheus.
//!
//! Each metric is declared by the module that knows the fact; here they are put on a page. Labels have bounded values only:
//! names of configured nodes, and words of ours. Nothing that a client can choose (user, database, application, statement) is
//! a label. To add one: declare it, fill it in [`page`], and put it into [`ALL`], from which `docs/metrics.md` is printed.

use std::collections::BTreeMap;

use super::alerts;
use super::{figures, picture};
use crate::cluster::{Picture, metrics as control};
use crate::driver::changes::{self, Counted, Kind, Outcome};
use crate::pool;
use crate::route::lag;
use crate::session::clients::{self, Activity};
use crate::session::shared::Shared;
use crate::session::{doubt, gate, hold, readers, routes, tally};
use crate::telemetry::metric::{Format, Metric, Page, seconds};
use crate::types::Role;

const BUILD: Metric = Metric::info("pgbaton_build", "The version that runs.").labels(&["version"]);

/// Every metric, in the order of the page, under the headings of its documentation.
pub const ALL: &[(&str, &[&Metric])] = &[
    ("Clients", &[&BUILD, &clients::CLIENTS, &clients::MOST_CLIENTS, &clients::WAITING, &clients::LONGEST_WAIT]),
    ("Server connections", &[&pool::SERVERS]),
    (
        "Statements",
        &[
            &routes::STATEMENTS,
            &routes::RETRIED,
            &tally::TRANSACTIONS,
            &tally::ANSWERED,
            &tally::ERRORS,
            &tally::QUERY,
            &tally::TRANSACTION_TIME,
            &tally::WAITED,
            &tally::RECEIVED,
            &tally::SENT,
        ],
    ),
    ("Nodes", &[&control::NODE_UP, &control::PRIMARY, &control::AGENT_UP]),
    ("Replicas", &[&readers::ELIGIBLE, &lag::LAG_BYTES, &lag::LAG_SECONDS]),
    (
        "The primary and its changes",
        &[
            &gate::WRITABLE,
            &hold::HELD,
            &doubt::IN_DOUBT,
            &control::EPOCH,
            &control::VOTERS,
            &control::ACKS,
            &control::PROMOTABLE,
            &control::READY,
            &control::PAUSED,
            &changes::CHANGES,
            &changes::PHASES,
            &changes::LOST,
            &changes::REPAIRS,
        ],
    ),
];

/// The page, in the format that is asked for.
pub fn page(shared: &Shared, believed: &Picture, changed: &Counted, format: Format) -> String {
    let mut page = Page::new(format);
    let nodes = picture::nodes(shared, Some(believed));
    of_clients(&mut page, shared);
    of_servers(&mut page, shared, &nodes);
    of_statements(&mut page, shared);
    of_nodes(&mut page, &nodes);
    of_changes(&mut page, shared, believed, changed);
    page.finish()
}

fn of_clients(page: &mut Page, shared: &Shared) {
    page.family(&BUILD).add(&[env!("CARGO_PKG_VERSION")], 1);
    let all = shared.clients.all();
    let waits = all.iter().map(|client| client.waits()).max().unwrap_or_default();
    page.one(&clients::CLIENTS, all.len());
    page.one(&clients::MOST_CLIENTS, shared.settings.load().max_clients);
    page.one(&clients::WAITING, all.iter().filter(|client| client.activity() == Activity::Waiting).count());
    page.one(&clients::LONGEST_WAIT, waits.as_secs_f64());
}

fn of_servers(page: &mut Page, shared: &Shared, nodes: &[picture::Node]) {
    let mut servers: BTreeMap<String, [usize; 3]> = nodes.iter().map(|node| (node.id.clone(), [0; 3])).collect();
    for pool in figures::pools(shared) {
        let counts = servers.entry(pool.node).or_default();
        counts[0] += pool.active;
        counts[1] += pool.idle;
        counts[2] += pool.opening;
    }
    let mut samples = page.family(&pool::SERVERS);
    for (node, counts) in &servers {
        for (state, count) in ["active", "idle", "login"].into_iter().zip(counts) {
            samples.add(&[node, state], count);
        }
    }
}

fn of_statements(page: &mut Page, shared: &Shared) {
    let mut samples = page.family(&routes::STATEMENTS);
    for (class, target, reason, count) in shared.routes.all() {
        samples.add(&[class, target, reason], count);
    }
    page.one(&routes::RETRIED, shared.routes.retried());
    let totals = tally::sum(shared.tallies.all().values());
    page.one(&tally::TRANSACTIONS, totals.transactions);
    page.one(&tally::ANSWERED, totals.statements);
    page.one(&tally::ERRORS, totals.errors);
    let mut samples = page.family(&tally::QUERY);
    for (target, queries) in tally::TARGETS.into_iter().zip(&totals.queries) {
        samples.add_distribution(&[target], queries);
    }
    page.one(&tally::TRANSACTION_TIME, seconds(totals.transaction_us));
    page.one(&tally::WAITED, seconds(totals.wait_us));
    page.one(&tally::RECEIVED, totals.received);
    page.one(&tally::SENT, totals.sent);
}

fn of_nodes(page: &mut Page, nodes: &[picture::Node]) {
    let mut samples = page.family(&control::NODE_UP);
    for node in nodes {
        samples.add(&[&node.id], u8::from(node.state == "running"));
    }
    let mut samples = page.family(&control::PRIMARY);
    for node in nodes {
        samples.add(&[&node.id], u8::from(node.role == "primary"));
    }
    let mut samples = page.family(&control::AGENT_UP);
    for node in nodes {
        if let Some(agent) = &node.agent {
            samples.add(&[&node.id], u8::from(!matches!(&*agent.state, "silent" | "unknown")));
        }
    }
    let replicas = || nodes.iter().filter(|node| node.role == "replica");
    page.one(&readers::ELIGIBLE, replicas().filter(|node| node.eligible).count());
    let mut samples = page.family(&lag::LAG_BYTES);
    for node in replicas() {
        if let Some(bytes) = node.lag_bytes {
            samples.add(&[&node.id], bytes);
        }
    }
    let mut samples = page.family(&lag::LAG_SECONDS);
    for node in replicas() {
        if let Some(ms) = node.lag_ms {
            samples.add(&[&node.id], format_args!("{}.{:03}", ms / 1000, ms % 1000));
        }
    }
}

fn of_changes(page: &mut Page, shared: &Shared, believed: &Picture, changed: &Counted) {
    let answers = shared.topology.borrow().primary().is_some_and(|node| node.role == Role::Primary);
    let is_writable = shared.gate.is_open() && answers;
    page.one(&gate::WRITABLE, u8::from(is_writable));
    page.one(&hold::HELD, shared.hold.statements());
    let mut samples = page.family(&doubt::IN_DOUBT);
    for (outcome, count) in shared.doubts.counted() {
        samples.add(&[outcome], count);
    }
    let mut samples = page.family(&control::EPOCH);
    if let Some(epoch) = believed.epoch {
        samples.add(&[], epoch.0);
    }
    page.one(&control::VOTERS, believed.sync.voters.len());
    page.one(&control::ACKS, believed.sync.k);
    page.one(&control::PROMOTABLE, believed.nodes.values().filter(|node| node.promotable.is_ok()).count());
    page.one(&control::READY, u8::from(believed.unready.is_none()));
    page.one(&control::PAUSED, u8::from(believed.paused));
    let mut samples = page.family(&changes::CHANGES);
    for kind in Kind::ALL {
        for outcome in Outcome::ALL {
            samples.add(&[kind.as_str(), outcome.as_str()], changed.changes(kind, outcome));
        }
    }
    let mut samples = page.family(&changes::PHASES);
    for (phase, took) in changed.phases() {
        samples.add_distribution(&[phase], took);
    }
    page.one(&changes::LOST, changed.lost_bytes);
    let mut samples = page.family(&changes::REPAIRS);
    samples.add(&["done"], changed.repaired);
    samples.add(&["failed"], changed.not_repaired);
}

/// docs/metrics.md.
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\n*Printed by `pgbaton config print-metrics`; do not edit by hand.*\n\n\
         `GET /metrics` on `admin.listen` answers with OpenMetrics 1.0, or in the older text format if `Accept` names only that\n\
         (`text/plain`). Counters begin at 0 when pgbaton starts. No label has a value that a client can choose, so the number of\n\
         series depends on the number of nodes alone. Figures by database and user are in the [console](operations.md#the-console)\n\
         (`SHOW STATS`, `SHOW POOLS`).\n",
    );
    for (heading, metrics) in ALL {
        text += &format!("\n## {heading}\n\n| metric | type | labels | |\n|---|---|---|---|\n");
        for metric in *metrics {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            text += &format!(
                "| `{}` | {} | {} | {} |\n",
                metric.sample_name(),
                metric.kind.as_str(),
                labels.join(", "),
                metric.help
            );
        }
    }
    text + &alerts::section()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are() {
        let mut names = std::collections::BTreeSet::new();
        for metric in ALL.iter().flat_map(|(_, metrics)| *metrics) {
            assert!(names.insert(metric.name) && metric.name.starts_with("pgbaton_"), "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
            let has_unit = metric.name.ends_with("_bytes") || metric.name.ends_with("_seconds");
            assert_eq!(metric.unit.is_some(), has_unit, "{}", metric.name);
            assert!(metric.unit.is_none_or(|unit| metric.name.ends_with(&format!("_{unit}"))), "{}", metric.name);
        }
    }
}
