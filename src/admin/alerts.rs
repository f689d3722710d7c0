//! What an operator should be woken for, or told of: the rules for Prometheus that go with the metrics.
//!
//! They are printed into `docker/monitoring/alerts.yml` (`pgbaton config print-alerts`) and `docs/metrics.md`.

struct Alert {
    name: &'static str,
    /// PromQL.
    expression: &'static str,
    /// How long it has to be so.
    lasts: &'static str,
    severity: &'static str,
    summary: &'static str,
}

const fn alert(
    severity: &'static str,
    name: &'static str,
    lasts: &'static str,
    expression: &'static str,
    summary: &'static str,
) -> Alert {
    Alert { name, expression, lasts, severity, summary }
}

/// `critical`: somebody is to get up; `warning`: somebody is to look, today; `info`: somebody may want to know.
const ALERTS: &[Alert] = &[
    alert("critical", "PgbatonDown", "30s", "up{job=\"pgbaton\"} == 0", "pgbaton does not answer."),
    alert(
        "critical",
        "PgbatonNotWritable",
        "15s",
        "pgbaton_writable == 0",
        "Nobody takes writes; statements wait for up to failover.hold. `pgbaton list` says why.",
    ),
    alert(
        "critical",
        "PgbatonCommitsInDoubt",
        "0s",
        "increase(pgbaton_in_doubt_total{outcome=\"unknown\"}[10m]) > 0",
        "Clients were told that nobody knows whether their commit took place.",
    ),
    alert(
        "warning",
        "PgbatonWritesLost",
        "0s",
        "increase(pgbaton_failover_lost_bytes_total[1h]) > 0",
        "A failover has left log behind. With asynchronous durability there may be commits in it: see `pgbaton history`.",
    ),
    alert(
        "critical",
        "PgbatonFailoverRefused",
        "0s",
        "increase(pgbaton_failovers_total{kind=\"failover\",outcome=\"refused\"}[10m]) > 0",
        "A failover was refused; `pgbaton list` says which node would unblock it.",
    ),
    alert(
        "warning",
        "PgbatonFailoverNotReady",
        "2m",
        "pgbaton_failover_ready == 0",
        "If the primary were lost now, nobody would take its place.",
    ),
    alert("warning", "PgbatonNodeDown", "1m", "pgbaton_node_up == 0", "A node does not answer."),
    alert(
        "warning",
        "PgbatonAgentDown",
        "1m",
        "pgbaton_agent_up == 0",
        "A node's agent does not answer: nothing is repaired there.",
    ),
    alert("warning", "PgbatonNoReplica", "1m", "pgbaton_eligible_replicas == 0", "No replica may serve reads."),
    alert("warning", "PgbatonReplicaLags", "2m", "pgbaton_replica_lag_seconds > 10", "A replica is far behind."),
    alert(
        "warning",
        "PgbatonClientsWait",
        "1m",
        "pgbaton_waiting_clients > 0 and pgbaton_longest_wait_seconds > 1",
        "Clients stand in line for server connections: proxy.pool_size may be too small, or transactions too long.",
    ),
    alert(
        "warning",
        "PgbatonClientsNearLimit",
        "1m",
        "pgbaton_clients > 0.9 * pgbaton_max_clients",
        "Soon clients will be turned away (proxy.max_clients).",
    ),
    alert(
        "warning",
        "PgbatonManyErrors",
        "5m",
        "rate(pgbaton_errors_total[5m]) > 0.05 * rate(pgbaton_answered_statements_total[5m])",
        "More than one statement of twenty fails.",
    ),
    alert(
        "warning",
        "PgbatonRejoinFailed",
        "0s",
        "increase(pgbaton_rejoins_total{outcome=\"failed\"}[30m]) > 0",
        "A node could not be made a standby again; `pgbaton history` says why.",
    ),
    alert(
        "warning",
        "PgbatonPaused",
        "1h",
        "pgbaton_paused == 1",
        "Changes of primary are forbidden, perhaps forgotten: `pgbaton resume`.",
    ),
    alert(
        "info",
        "PgbatonPrimaryChanged",
        "0s",
        "changes(pgbaton_epoch[10m]) > 0",
        "The primary was changed, or has begun a new epoch; `pgbaton history` says why.",
    ),
];

/// docker/monitoring/alerts.yml.
pub fn rules() -> String {
    let mut text = String::from(
        "# Printed by `pgbaton config print-alerts`; docs/metrics.md explains.\ngroups:\n  - name: pgbaton\n    rules:\n",
    );
    for Alert { name, expression, lasts, severity, summary } in ALERTS {
        text += &format!(
            "      - alert: {name}\n        expr: {expression}\n        for: {lasts}\n        labels: {{severity: {severity}}}\n        \
             annotations:\n          summary: \"{summary}\"\n",
        );
    }
    text
}

/// The last section of docs/metrics.md.
pub fn section() -> String {
    let mut text = String::from(
        "\n## What to alert on\n\n\
         As rules for Prometheus: [docker/monitoring/alerts.yml](../docker/monitoring/alerts.yml). `critical` is to wake\n\
         somebody, `warning` is for the day, `info` is to be known.\n\n\
         | alert | severity | when | for | |\n|---|---|---|---|---|\n",
    );
    for Alert { name, expression, lasts, severity, summary } in ALERTS {
        text += &format!("| {name} | {severity} | `{expression}` | {lasts} | {summary} |\n");
    }
    text
}
