//! What lies about in the nodes and is lost at a failover, stands in the way of one, or of what comes after it; and whether
//! there are connections enough.

use super::facts::{Case, Patient, Setting, Survey};
use super::{Check, Judge, Notes, check, fix};
use crate::sql::quote_ident;

/// Of pgbaton itself, on each node: questions, probes, writes, and what a failover takes.
const OWN_CONNECTIONS: i64 = 6;

/// Beyond so much a node's clock is another than ours.
const CLOCK_MS: i64 = 2_000;

pub(super) const CHECKS: &[Check] = &[
    check(
        "archiving",
        "the log is archived, where it is to be, and on every node alike",
        "the log is kept until the disk is full, or the archive has a hole after a failover",
        Judge::Seen(archiving),
    ),
    check(
        "tablespaces",
        "all data is in the data directory",
        "an agent does not copy tablespaces outside of it: a node that cannot be rewound has to be copied by hand",
        Judge::Primary(tablespaces),
    ),
    check(
        "unlogged_tables",
        "there are no unlogged tables",
        "they are empty after a failover",
        Judge::Primary(unlogged),
    ),
    check(
        "prepared_transactions",
        "none was prepared more than an hour ago and forgotten",
        "it keeps its locks, through every failover",
        Judge::Primary(prepared),
    ),
    check(
        "connections",
        "`max_connections` has room for all pools there are, and for pgbaton itself",
        "clients are refused while the pool would have waited",
        Judge::Seen(connections),
    ),
    check(
        "connection_limits",
        "no role or database may have fewer connections than `proxy.pool_size`",
        "clients get errors where they could have waited for a connection",
        Judge::Primary(connection_limits),
    ),
    check(
        "clock",
        "its clock agrees with ours, within 2 s",
        "dates in the history and in logs cannot be compared; passwords with an end expire too early or late",
        Judge::Seen(clock),
    ),
];

fn archiving(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let value =
        |seen: &Survey, name: &str| seen.settings.get(name).map(|setting| setting.value.clone()).unwrap_or_default();
    let mode = value(seen, "archive_mode");
    let is_on = matches!(&*mode, "on" | "always");
    if seen.archiver.is_failing && is_on {
        let wal = seen.archiver.last_failed_wal.as_deref().unwrap_or("?");
        notes.error(
            format!("archiving fails ({} times, last of {wal}): the log is kept until the disk is full", seen.archiver.failed_count),
            format!("on {}: see its log for what archive_command says, and correct that; as superuser: SELECT pg_reload_conf()", node.id),
        );
    }
    let has_command =
        !matches!(&*value(seen, "archive_command"), "" | "(disabled)") || !value(seen, "archive_library").is_empty();
    if is_on && !has_command {
        notes.warn(
            "archive_mode is on, and neither archive_command nor archive_library is set: the log is kept until the disk is full",
            fix::sql(node, "ALTER SYSTEM SET archive_command = '…'; SELECT pg_reload_conf()"),
        );
    }
    if let Some((primary, leading)) = case.primary().filter(|(primary, _)| primary.id != node.id) {
        let theirs = value(leading, "archive_mode");
        if node.priority > 0 && mode == "off" && matches!(&*theirs, "on" | "always") {
            notes.warn(
                format!(
                    "archive_mode is off, and {theirs} on {}: after a failover nothing is archived any more",
                    primary.id
                ),
                fix::set(node, "archive_mode", seen.settings.get("archive_mode"), &theirs),
            );
        }
    }
}

fn tablespaces(_: &Case, _: &Patient, seen: &Survey, notes: &mut Notes) {
    if !seen.things.tablespaces.is_empty() {
        notes.warn(
            format!("there are tablespaces outside of the data directory: {}", seen.things.tablespaces.join(", ")),
            "move what is in them (ALTER TABLE … SET TABLESPACE pg_default) and drop them, or be ready to copy with pg_basebackup \
             --tablespace-mapping by hand",
        );
    }
}

fn unlogged(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    if case.nodes.len() < 2 {
        return;
    }
    for (database, tables) in &seen.unlogged {
        let alter: Vec<String> = tables.iter().map(|table| format!("ALTER TABLE {table} SET LOGGED")).collect();
        notes.warn(
            format!("database {database} has unlogged tables, which are empty after a failover: {}", tables.join(", ")),
            format!("if that matters: in database {database} {}", fix::sql(node, &alter.join("; "))),
        );
    }
}

fn prepared(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    for transaction in &seen.things.prepared {
        notes.warn(
            format!("a transaction was prepared more than an hour ago, and holds its locks: {transaction}"),
            fix::sql(node, "SELECT gid, prepared, owner, database FROM pg_prepared_xacts; then COMMIT PREPARED or ROLLBACK PREPARED, in its database"),
        );
    }
}

fn connections(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let number = |name: &str| seen.settings.get(name).and_then(Setting::number);
    let Some(all) = number("max_connections") else { return notes.leave_open() };
    let reserved = number("superuser_reserved_connections").unwrap_or(0) + number("reserved_connections").unwrap_or(0);
    let size = i64::try_from(case.wishes.pool_size).unwrap_or(i64::MAX);
    let pools = i64::try_from(case.pools.max(1)).unwrap_or(i64::MAX);
    let needed = size.saturating_mul(pools).saturating_add(OWN_CONNECTIONS).saturating_add(reserved);
    if all < needed {
        let many =
            if pools == 1 { "one pool".to_owned() } else { format!("{pools} pools (a database and a role each)") };
        let fitting = (all - reserved - OWN_CONNECTIONS) / pools;
        notes.warn(
            format!(
                "max_connections is {all}, of which {reserved} are reserved and pgbaton takes up to {OWN_CONNECTIONS}: {many} of \
                 proxy.pool_size = {size} cannot all be filled"
            ),
            format!(
                "proxy.pool_size = {} in the configuration; or {}",
                fitting.max(1),
                fix::set(node, "max_connections", seen.settings.get("max_connections"), &needed.to_string())
            ),
        );
    }
}

fn connection_limits(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let pool = i64::try_from(case.wishes.pool_size).unwrap_or(i64::MAX);
    let limits = [("role", "ROLE", &seen.roles.limited), ("database", "DATABASE", &seen.roles.limited_databases)];
    for (kind, word, limited) in limits {
        for (name, limit) in limited.iter().filter(|(_, limit)| (0..pool).contains(*limit)) {
            // The control user has its own, which are few.
            if kind == "role" && *name == case.wishes.control_user && *limit >= OWN_CONNECTIONS {
                continue;
            }
            notes.warn(
                format!("{kind} {name} may have {limit} connections, and proxy.pool_size is {pool}"),
                fix::sql(node, &format!("ALTER {word} {} CONNECTION LIMIT -1", quote_ident(name))),
            );
        }
    }
}

fn clock(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let uncertain = i64::try_from(seen.uncertain_ms).unwrap_or(i64::MAX);
    if seen.ahead_ms.abs().saturating_sub(uncertain) > CLOCK_MS {
        let direction = if seen.ahead_ms > 0 { "ahead of" } else { "behind" };
        notes.warn(
            format!("its clock is {:.1} s {direction} ours", seen.ahead_ms.abs() as f64 / 1000.0),
            format!("on {} and here: timedatectl set-ntp true (or chrony, ntpd)", node.id),
        );
    }
}
