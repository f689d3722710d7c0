//! The verbs that order something: `switchover`, `failover`, `pause`, `resume`, `maintenance`, `rejoin`, `rebuild`, `restart`.

use clap::Args;

use super::asking::order;
use super::{Asking, Outcome};
use crate::admin::orders::{Failover, Maintenance, Switchover};
use crate::config::is_label;

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
    asking: Asking,
}

#[derive(Debug, Args)]
pub(super) struct SwitchoverArguments {
    /// The node that is to be the primary [default: the best of those that may]
    #[arg(long, value_name = "NODE", value_parser = node_name)]
    to: Option<String>,
    #[command(flatten)]
    asking: Asking,
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
    asking: Asking,
}

#[derive(Debug, Args)]
pub(super) struct MaintenanceArguments {
    #[arg(value_name = "NODE", value_parser = node_name)]
    node: String,
    #[arg(value_name = "on|off", value_parser = ["on", "off"])]
    state: String,
    #[command(flatten)]
    asking: Asking,
}

/// A node's name, as far as one can be told from the outside.
fn node_name(text: &str) -> Result<String, String> {
    match is_label(text) && !text.is_empty() {
        true => Ok(text.to_owned()),
        false => Err("a node's name is up to 63 letters, digits, \"_\", \"-\" or \".\"".into()),
    }
}

pub(super) fn switchover(SwitchoverArguments { to, asking }: SwitchoverArguments) -> Outcome {
    order(&asking, "/switchover", &Switchover { to })
}

pub(super) fn failover(FailoverArguments { to, allow_data_loss, asking }: FailoverArguments) -> Outcome {
    order(&asking, "/failover", &Failover { to, allow_data_loss })
}

pub(super) fn pause(asking: &Asking) -> Outcome {
    order(asking, "/pause", &serde_json::json!({}))
}

pub(super) fn resume(asking: &Asking) -> Outcome {
    order(asking, "/resume", &serde_json::json!({}))
}

pub(super) fn maintenance(MaintenanceArguments { node, state, asking }: MaintenanceArguments) -> Outcome {
    order(&asking, &format!("/nodes/{node}/maintenance"), &Maintenance { on: state == "on" })
}

/// `what`: rejoin, rebuild or restart.
pub(super) fn node(NodeArguments { node, asking }: NodeArguments, what: &str) -> Outcome {
    order(&asking, &format!("/nodes/{node}/{what}"), &serde_json::json!({}))
}
