//! What the control plane believes, as numbers: what each metric is called and means. `admin` reads them off the [`Picture`].
//!
//! [`Picture`]: super::Picture

use crate::telemetry::metric::Metric;

pub const EPOCH: Metric = Metric::gauge(
    "pgbaton_epoch",
    "The number of the present primary's epoch: grows by one with each change of primary; absent until it is known.",
);
pub const NODE_UP: Metric =
    Metric::gauge("pgbaton_node_up", "1 while the node answers, 0 while not.").labels(&["node"]);
pub const PRIMARY: Metric =
    Metric::gauge("pgbaton_node_primary", "1 of the node that is the primary, 0 of the others.").labels(&["node"]);
pub const AGENT_UP: Metric = Metric::gauge(
    "pgbaton_agent_up",
    "1 while the agent beside the node answers, 0 while not; absent for nodes without one.",
)
.labels(&["node"]);
pub const VOTERS: Metric =
    Metric::gauge("pgbaton_voters", "Standbys of which commits wait for some; 0 with asynchronous durability.");
pub const ACKS: Metric =
    Metric::gauge("pgbaton_required_acks", "How many voters a commit waits for; 0 with asynchronous durability.");
pub const PROMOTABLE: Metric =
    Metric::gauge("pgbaton_promotable_nodes", "Nodes that may become the primary as things stand.");
pub const READY: Metric = Metric::gauge(
    "pgbaton_failover_ready",
    "1 if a failover would be carried out were the primary lost now; 0 if it would be refused, or is not allowed.",
);
pub const PAUSED: Metric =
    Metric::gauge("pgbaton_paused", "1 while changes of primary are forbidden by an operator (pause), else 0.");
