//! What the console shows, as tables. Column names are PgBouncer's where it has the same thing, so that what monitors
//! PgBouncer finds its way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::picture;
use crate::cluster;
use crate::session::clients::{Activity, Client, Entrance};
use crate::session::explain::Explanation;
use crate::session::shared::Shared;
use crate::types::calendar;

pub struct Table {
    pub columns: &'static [&'static str],
    pub rows: Vec<Vec<Option<String>>>,
    pub tag: String,
}

impl Table {
    pub fn shown(columns: &'static [&'static str], rows: Vec<Vec<Option<String>>>) -> Table {
        Table { columns, rows, tag: "SHOW".into() }
    }

    /// For a command that answers with nothing but that it is done.
    pub fn done(tag: &str) -> Table {
        Table { columns: &[], rows: Vec::new(), tag: tag.into() }
    }
}

fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

fn yes(is: bool) -> Option<String> {
    text(if is { "yes" } else { "" })
}

pub fn nodes(shared: &Shared, believed: &cluster::Picture) -> Table {
    let rows = picture::nodes(shared, Some(believed)).into_iter().map(|node| {
        vec![
            Some(node.id),
            Some(node.host),
            text(node.port),
            text(node.role),
            text(node.state),
            text(node.timeline),
            Some(node.lsn),
            yes(node.eligible),
            Some(node.reason),
        ]
    });
    Table::shown(&["id", "host", "port", "role", "state", "timeline", "lsn", "eligible", "reason"], rows.collect())
}

pub fn lag(shared: &Shared) -> Table {
    let rows = picture::nodes(shared, None).into_iter().map(|node| {
        vec![
            Some(node.id),
            text(node.role),
            yes(node.eligible),
            Some(node.reason),
            node.lag_bytes.map(|bytes| bytes.to_string()),
            node.lag_ms.map(|ms| ms.to_string()),
            node.read.replayed,
            text(node.timeline),
            text(node.read.weight),
            yes(node.read.is_near),
            text(node.read.in_use),
            text(node.read.served),
        ]
    });
    let columns = &[
        "node",
        "role",
        "eligible",
        "reason",
        "lag_bytes",
        "lag_ms",
        "replayed",
        "timeline",
        "weight",
        "near",
        "in_use",
        "served",
    ];
    Table::shown(columns, rows.collect())
}

pub fn routes(shared: &Shared) -> Table {
    let rows = shared.routes.all().into_iter();
    let rows = rows.map(|(class, target, why, count)| vec![text(class), text(target), text(why), text(count)]);
    Table::shown(&["class", "target", "reason", "count"], rows.collect())
}

/// Totals since the start, of the whole proxy.
pub fn stats(shared: &Shared) -> Table {
    let (mut on_primary, mut on_replica) = (0, 0);
    for (_, target, _, count) in shared.routes.all() {
        *(if target == "replica" { &mut on_replica } else { &mut on_primary }) += count;
    }
    let columns = &[
        "total_server_assignment_count",
        "total_primary_assignment_count",
        "total_replica_assignment_count",
        "total_retried_count",
        "cl_count",
    ];
    let row = vec![
        text(on_primary + on_replica),
        text(on_primary),
        text(on_replica),
        text(shared.routes.retried()),
        text(shared.clients.count()),
    ];
    Table::shown(columns, vec![row])
}

pub fn pools(shared: &Shared) -> Table {
    let mut pools = shared.pools.all();
    pools.sort_by(|a, b| {
        (&a.key.database, &a.key.user, &a.key.node.0).cmp(&(&b.key.database, &b.key.user, &b.key.node.0))
    });
    let rows = pools.iter().map(|pool| {
        let (size, idle, waiting) = pool.status();
        vec![
            text(&pool.key.database),
            text(&pool.key.user),
            text(&pool.key.node),
            text(waiting),
            text(size.saturating_sub(idle)),
            text(idle),
        ]
    });
    Table::shown(&["database", "user", "node", "cl_waiting", "sv_active", "sv_idle"], rows.collect())
}

/// The server connections that a client has just now.
pub fn servers(shared: &Shared) -> Table {
    let rows = shared.clients.all().into_iter().filter_map(|client| {
        let server = client.server()?;
        let pins: Vec<_> = client.pins().iter().map(|pin| pin.as_str()).collect();
        Some(vec![
            text(&client.user),
            text(&client.database),
            text("active"),
            text(&server.address.id),
            text(&server.address.host),
            text(server.address.port),
            text(client.id),
            text(server.pid),
            Some(pins.join(", ")),
        ])
    });
    let columns = &["user", "database", "state", "node", "addr", "port", "link", "remote_pid", "pinned"];
    Table::shown(columns, rows.collect())
}

pub fn clients(shared: &Shared) -> Table {
    let columns = &[
        "id",
        "user",
        "database",
        "state",
        "addr",
        "connect_time",
        "link",
        "tls",
        "xact_count",
        "pinned",
        "read_only",
    ];
    Table::shown(columns, shared.clients.all().iter().map(client).collect())
}

fn client(client: &Arc<Client>) -> Vec<Option<String>> {
    let state = match client.activity() {
        Activity::Idle => "idle",
        Activity::Waiting => "waiting",
        Activity::Active => "active",
    };
    let since = client.connected.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let pins: Vec<_> = client.pins().iter().map(|pin| pin.as_str()).collect();
    vec![
        text(client.id),
        text(&client.user),
        text(&client.database),
        text(state),
        Some(client.peer.clone()),
        Some(utc(since)),
        client.server_pid().map(|pid| pid.to_string()),
        yes(client.tls),
        text(client.transactions.load(Ordering::Relaxed)),
        Some(pins.join(", ")),
        yes(client.entrance == Entrance::ReadOnly),
    ]
}

pub fn explanation(explanation: &Explanation) -> Table {
    let rows = explanation.rows().into_iter().map(|row| row.map(Some).to_vec());
    Table { columns: &["item", "value"], rows: rows.collect(), tag: "EXPLAIN".into() }
}

/// Seconds since 1970 as `YYYY-MM-DD hh:mm:ss UTC`.
pub fn utc(seconds: u64) -> String {
    let [year, month, day, hour, minute, second] = calendar(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_798_761_599), "2026-12-31 23:59:59 UTC");
    }
}
