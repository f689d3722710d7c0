//! The verbs that order something: `switchover`, `failover`, `pause`, `resume`, `maintenance`, `rejoin`, `rebuild`, `restart`.

use std::time::{Duration, Instant};

use clap::Args;

use super::Outcome;
use super::asking::{Asking, Failed, Ordering, ask, give, order, read, say};
use super::progress::Progress;
use crate::admin::history::Entries;
use crate::admin::orders::{Done, Failover, Maintenance, Nothing, Switchover};
use crate::admin::picture::Cluster;
use crate::cluster::history::spell;
use crate::cluster::{HistoryEntry, RepairNote};
use crate::config::is_label;

/// How long `--wait` waits: longer than any copy takes.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);

/// While it waits.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

pub(super) const SWITCHOVER_HELP: &str = "\
It is refused, with the reason and before anything is touched, if no node can take over without loss. Transactions that are open may
end (failover.drain); new ones wait. If the new primary does not come up, the old one goes on.

Examples:
  pgbaton switchover
  pgbaton switchover --to n2";

pub(super) const FAILOVER_HELP: &str = "\
It is refused if acknowledged commits would be lost by it, unless --allow-data-loss says that they may.

Example:
  pgbaton failover --to n2";

pub(super) const REJOIN_HELP: &str = "\
What the node has that the cluster has not is kept aside, and named in `pgbaton history`. It goes on if this command is interrupted:
`pgbaton list` shows how far it is.";

pub(super) const RESTART_HELP: &str = "\
All of a cluster, without an error for its clients: each standby, one after the other; then a switchover; then the primary of the past.

Example:
  pgbaton restart n2 && pgbaton restart n3 && pgbaton switchover && pgbaton restart n1";

#[derive(Debug, Args)]
pub(super) struct NodeArguments {
    #[arg(value_name = "NODE", value_parser = node_name)]
    node: String,
    #[command(flatten)]
    pub(super) ordering: Ordering,
}

#[derive(Debug, Args)]
pub(super) struct RepairArguments {
    #[arg(value_name = "NODE", value_parser = node_name)]
    node: String,
    /// Until the node streams from the primary again
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    pub(super) ordering: Ordering,
}

#[derive(Debug, Args)]
pub(super) struct SwitchoverArguments {
    /// The node that is to be the primary [default: the best of those that may]
    #[arg(long, value_name = "NODE", value_parser = node_name)]
    to: Option<String>,
    #[command(flatten)]
    pub(super) ordering: Ordering,
}

#[derive(Debug, Args)]
pub(super) struct FailoverArguments {
    /// The node that is to be the primary
    #[arg(long, value_name = "NODE", value_parser = node_name)]
    to: String,
    /// Also if acknowledged commits are lost by it
    #[arg(long)]
    allow_data_loss: bool,
    #[command(flatten)]
    pub(super) ordering: Ordering,
}

#[derive(Debug, Args)]
pub(super) struct MaintenanceArguments {
    #[arg(value_name = "NODE", value_parser = node_name)]
    node: String,
    #[arg(value_name = "on|off", value_parser = ["on", "off"])]
    state: String,
    #[command(flatten)]
    pub(super) asking: Asking,
}

/// A node's name, as far as one can be told from the outside.
pub(super) fn node_name(text: &str) -> Result<String, String> {
    match is_label(text) && !text.is_empty() {
        true => Ok(text.to_owned()),
        false => Err("a node's name is up to 63 letters, digits, \"_\", \"-\" or \".\"".into()),
    }
}

pub(super) fn switchover(SwitchoverArguments { to, ordering }: SwitchoverArguments) -> Outcome {
    order_patiently(&ordering, "/switchover", &Switchover { to })
}

pub(super) fn failover(FailoverArguments { to, allow_data_loss, ordering }: FailoverArguments) -> Outcome {
    order_patiently(&ordering, "/failover", &Failover { to, allow_data_loss })
}

pub(super) fn pause(asking: &Asking) -> Outcome {
    order(asking, "/pause", &Nothing {})
}

pub(super) fn resume(asking: &Asking) -> Outcome {
    order(asking, "/resume", &Nothing {})
}

pub(super) fn maintenance(MaintenanceArguments { node, state, asking }: MaintenanceArguments) -> Outcome {
    order(&asking, &format!("/nodes/{node}/maintenance"), &Maintenance { on: state == "on" })
}

pub(super) fn restart(NodeArguments { node, ordering }: NodeArguments) -> Outcome {
    order_patiently(&ordering, &format!("/nodes/{node}/restart"), &Nothing {})
}

/// `what`: rejoin or rebuild.
pub(super) fn repair(RepairArguments { node, wait, ordering }: RepairArguments, what: &str) -> Outcome {
    let path = format!("/nodes/{node}/{what}");
    if !wait {
        return order_patiently(&ordering, &path, &Nothing {});
    }
    let asking = &ordering.asking;
    let before = last_repair(asking, &node)?.map_or(0, |note| note.ended_at);
    give(asking, ordering.quiet, &path, &Nothing {})?;
    let done = wait_for_repair(&ordering, &node, before)?;
    say(asking, &serde_json::to_string(&Done { done })?)
}

fn order_patiently(ordering: &Ordering, path: &str, body: &impl serde::Serialize) -> Outcome {
    say(&ordering.asking, &give(&ordering.asking, ordering.quiet, path, body)?)
}

/// What the history says last of this node's repairs.
fn last_repair(asking: &Asking, node: &str) -> Result<Option<RepairNote>, Box<dyn std::error::Error>> {
    let answer = ask(&asking.admin, "/history", &[])?;
    let Entries { entries } = read(&asking.admin, &answer)?;
    let of_node = |entry| match entry {
        HistoryEntry::Repair(note) if *note.node.0 == *node => Some(note),
        _ => None,
    };
    Ok(entries.into_iter().rev().find_map(of_node))
}

/// Until the history has what came of it, and the node runs as a standby; what to say then. `before`: when the last repair ended.
fn wait_for_repair(ordering: &Ordering, node: &str, before: u64) -> Result<String, Box<dyn std::error::Error>> {
    let asking = &ordering.asking;
    let progress = Progress::new(&asking.admin, ordering.quiet);
    let deadline = Instant::now() + LONGEST_WAIT;
    while Instant::now() < deadline {
        let cluster: Cluster = read(&asking.admin, &ask(&asking.admin, "/cluster", &[])?)?;
        progress.show(&cluster);
        let note = last_repair(asking, node)?.filter(|note| note.ended_at > before);
        if let Some(failure) = note.as_ref().map(|note| &note.failure).filter(|failure| !failure.is_empty()) {
            progress.wipe();
            let message = format!("{node} could not be made a standby: {failure}");
            return Err(Failed::new("failed", message, "It is tried again; `pgbaton list` shows how far it is.").into());
        }
        let is_back =
            cluster.nodes.iter().any(|seen| seen.id == node && seen.role == "replica" && seen.state == "running");
        if let Some(note) = note.filter(|_| is_back) {
            progress.wipe();
            let took = spell(note.ended_at.saturating_sub(note.began_at));
            return Ok(format!("{node} is a standby of {} again ({}, {took})", note.primary, note.repair));
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    progress.wipe();
    Err(Failed::new("late", format!("{node} is not back yet"), "It goes on; `pgbaton list` shows how far it is.")
        .into())
}
