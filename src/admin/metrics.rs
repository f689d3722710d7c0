//! `GET /metrics`: what is counted, in the text format of OpenMetrics 1.0.
//!
//! Labels have bounded values only: names of configured nodes, and the words that the router knows. Nothing that a client
//! can choose (user, database, application) is a label.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::picture;
use crate::cluster;
use crate::session::shared::Shared;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One family of samples. `name` is without the `_total` of counters.
struct Family {
    name: &'static str,
    kind: Kind,
    /// The last part of the name, where that is a unit.
    unit: Option<&'static str>,
    help: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
}

const CLIENTS: Family =
    Family { name: "pgbaton_clients", kind: Kind::Gauge, unit: None, help: "Clients that are connected." };
const SERVERS: Family = Family {
    name: "pgbaton_server_connections",
    kind: Kind::Gauge,
    unit: None,
    help: "Connections to a node, active (a client has it) or idle.",
};
const STATEMENTS: Family = Family {
    name: "pgbaton_statements",
    kind: Kind::Counter,
    unit: None,
    help: "Transactions and statements outside of one that were given a server connection, by what they are, where they \
           went and why.",
};
const RETRIED: Family = Family {
    name: "pgbaton_retried_statements",
    kind: Kind::Counter,
    unit: None,
    help: "Statements that a replica could not answer and that were run elsewhere.",
};
const HELD: Family = Family {
    name: "pgbaton_held_statements",
    kind: Kind::Gauge,
    unit: None,
    help: "Statements that wait for a primary.",
};
const IN_DOUBT: Family = Family {
    name: "pgbaton_in_doubt",
    kind: Kind::Counter,
    unit: None,
    help: "Commits whose answer was lost with their server, by what their clients were told.",
};
const LAG_BYTES: Family = Family {
    name: "pgbaton_replica_lag_bytes",
    kind: Kind::Gauge,
    unit: Some("bytes"),
    help: "WAL that the primary has written and the replica has not replayed; absent while not known.",
};
const LAG_SECONDS: Family = Family {
    name: "pgbaton_replica_lag_seconds",
    kind: Kind::Gauge,
    unit: Some("seconds"),
    help: "How long ago the primary was where the replica is; absent while not known.",
};
const NODE_UP: Family =
    Family { name: "pgbaton_node_up", kind: Kind::Gauge, unit: None, help: "1 while the node answers, 0 while not." };

const EPOCH: Family = Family {
    name: "pgbaton_epoch",
    kind: Kind::Gauge,
    unit: None,
    help: "The number of the present primary's epoch: grows by one with each change of primary.",
};

/// The page.
pub fn page(shared: &Shared, believed: &cluster::Picture) -> String {
    let mut page = String::new();
    CLIENTS.head(&mut page);
    CLIENTS.sample(&mut page, &[], shared.clients.count());

    let nodes = picture::nodes(shared, None);
    let mut servers: BTreeMap<String, (usize, usize)> = nodes.iter().map(|node| (node.id.clone(), (0, 0))).collect();
    for pool in shared.pools.all() {
        let (size, idle, _) = pool.status();
        let (active, resting) = servers.entry(pool.key.node.to_string()).or_default();
        *active += size.saturating_sub(idle);
        *resting += idle;
    }
    SERVERS.head(&mut page);
    for (node, (active, idle)) in &servers {
        SERVERS.sample(&mut page, &[("node", node), ("state", "active")], active);
        SERVERS.sample(&mut page, &[("node", node), ("state", "idle")], idle);
    }

    STATEMENTS.head(&mut page);
    for (class, target, reason, count) in shared.routes.all() {
        STATEMENTS.sample(&mut page, &[("class", class), ("target", target), ("reason", reason)], count);
    }
    RETRIED.head(&mut page);
    RETRIED.sample(&mut page, &[], shared.routes.retried());

    HELD.head(&mut page);
    HELD.sample(&mut page, &[], shared.hold.statements());
    IN_DOUBT.head(&mut page);
    for (outcome, count) in shared.doubts.counted() {
        IN_DOUBT.sample(&mut page, &[("outcome", outcome)], count);
    }

    let is_replica = |node: &&picture::Node| node.role == "replica";
    LAG_BYTES.head(&mut page);
    for node in nodes.iter().filter(is_replica) {
        if let Some(bytes) = node.lag_bytes {
            LAG_BYTES.sample(&mut page, &[("node", &node.id)], bytes);
        }
    }
    LAG_SECONDS.head(&mut page);
    for node in nodes.iter().filter(is_replica) {
        if let Some(ms) = node.lag_ms {
            LAG_SECONDS.sample(&mut page, &[("node", &node.id)], format_args!("{}.{:03}", ms / 1000, ms % 1000));
        }
    }
    NODE_UP.head(&mut page);
    for node in &nodes {
        NODE_UP.sample(&mut page, &[("node", &node.id)], u8::from(node.state == "running"));
    }
    EPOCH.head(&mut page);
    if let Some(epoch) = believed.epoch {
        EPOCH.sample(&mut page, &[], epoch.0);
    }
    page.push_str("# EOF\n");
    page
}

impl Family {
    // Writing to a String cannot fail.

    fn head(&self, page: &mut String) {
        let kind = if self.kind == Kind::Counter { "counter" } else { "gauge" };
        let _ = writeln!(page, "# TYPE {} {kind}", self.name);
        if let Some(unit) = self.unit {
            let _ = writeln!(page, "# UNIT {} {unit}", self.name);
        }
        let _ = writeln!(page, "# HELP {} {}", self.name, self.help);
    }

    fn sample(&self, page: &mut String, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        page.push_str(self.name);
        if self.kind == Kind::Counter {
            page.push_str("_total");
        }
        for (at, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(page, "{}{name}=\"{value}\"", if at == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            page.push('}');
        }
        let _ = writeln!(page, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_written_as_openmetrics_has_it() {
        let mut page = String::new();
        STATEMENTS.head(&mut page);
        STATEMENTS.sample(&mut page, &[("class", "a \"b\"\\\n"), ("target", "primary")], 3);
        LAG_SECONDS.head(&mut page);
        let expected = format!(
            "# TYPE pgbaton_statements counter\n# HELP pgbaton_statements {}\n\
             pgbaton_statements_total{{class=\"a \\\"b\\\"\\\\\\n\",target=\"primary\"}} 3\n\
             # TYPE pgbaton_replica_lag_seconds gauge\n# UNIT pgbaton_replica_lag_seconds seconds\n\
             # HELP pgbaton_replica_lag_seconds {}\n",
            STATEMENTS.help, LAG_SECONDS.help
        );
        assert_eq!(page, expected);
    }
}
