//! Settings of each node: those that a promise hangs on, those that pgbaton changes itself, and those that slow a failover down.

use super::facts::{Case, Patient, Setting, Survey};
use super::{Check, Judge, Level, Notes, check, fix};
use crate::cluster::NodeState;
use crate::types::Durability;

/// Longer than this, and what is to be noticed within seconds is not.
const RECEIVER_MS: i64 = 30_000;
const RETRY_MS: i64 = 2_000;
const STATUS_MS: i64 = 5_000;

/// So long the server may keep the session, and the locks, of a client whose machine is gone.
const VANISHED_S: i64 = 900;

/// A client that thinks for so long in a transaction is not to be blamed.
const IDLE_MS: i64 = 5_000;

/// What pgbaton changes by ALTER SYSTEM.
const OURS: &[&str] = &[
    "primary_conninfo",
    "primary_slot_name",
    "synchronous_standby_names",
    "default_transaction_read_only",
    "recovery_min_apply_delay",
];

/// All that is asked of `pg_settings`.
pub const ASKED: &[&str] = &[
    "allow_alter_system",
    "archive_command",
    "archive_library",
    "archive_mode",
    "data_checksums",
    "default_transaction_read_only",
    "fsync",
    "full_page_writes",
    "hot_standby",
    "hot_standby_feedback",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_standby_streaming_delay",
    "max_wal_senders",
    "max_worker_processes",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_min_apply_delay",
    "recovery_target_timeline",
    "reserved_connections",
    "superuser_reserved_connections",
    "sync_replication_slots",
    "synchronous_commit",
    "synchronous_standby_names",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "wal_level",
    "wal_log_hints",
    "wal_receiver_status_interval",
    "wal_receiver_timeout",
    "wal_retrieve_retry_interval",
    "wal_segment_size",
    "wal_sender_timeout",
];

pub(super) const CHECKS: &[Check] = &[
    check(
        "fsync",
        "`fsync` is on",
        "a crash of the machine loses acknowledged commits, and may leave data that cannot be read",
        Judge::Seen(fsync),
    ),
    check(
        "full_page_writes",
        "`full_page_writes` is on",
        "a crash may leave torn pages, and `pg_rewind` refuses to work",
        Judge::Seen(full_page_writes),
    ),
    check("wal_level", "`wal_level` is `replica` or `logical`", "nobody can follow it", Judge::Seen(wal_level)),
    check(
        "hot_standby",
        "`hot_standby` is on",
        "as a standby it lets nobody in, pgbaton neither, and cannot be promoted",
        Judge::Seen(hot_standby),
    ),
    check(
        "rewind",
        "`wal_log_hints` is on, or the data has checksums",
        "a primary of the past cannot be rewound: all of its data is copied",
        Judge::Seen(rewind),
    ),
    check(
        "synchronous_commit",
        "commits wait for the disk, and for the standbys where durability is `quorum`, for every role and database",
        "an acknowledged commit may be lost",
        Judge::Seen(synchronous_commit),
    ),
    check(
        "read_only",
        "`default_transaction_read_only` is off on the primary",
        "writes are refused",
        Judge::Primary(read_only),
    ),
    check(
        "alter_system",
        "the settings that pgbaton changes can be changed",
        "no failover: a standby cannot be pointed at another primary",
        Judge::Seen(alter_system),
    ),
    check(
        "configuration_files",
        "they are free of mistakes, and all of them is in force",
        "what is written there counts from the next restart on, or prevents it",
        Judge::Seen(configuration_files),
    ),
    check(
        "synchronous_standby_names",
        "`synchronous_standby_names` is left to pgbaton",
        "commits wait for a standby that pgbaton does not reckon with",
        Judge::Primary(sync_names),
    ),
    check(
        "replication_timing",
        "standbys and primary notice within seconds that the other is gone, and try again",
        "PostgreSQL's defaults (60 s, 60 s, 5 s, 10 s) are for links between continents: voters are missed late, standbys follow late",
        Judge::Seen(replication_timing),
    ),
    check(
        "keepalives",
        "the server notices within 15 minutes that a client's machine is gone",
        "its session goes on, and keeps its locks, for two hours",
        Judge::Seen(keepalives),
    ),
    check(
        "session_timeouts",
        "no timeout ends the connections that pgbaton keeps",
        "idle server connections are lost and opened again all the time; transactions end while their client thinks",
        Judge::Seen(session_timeouts),
    ),
    check(
        "recovery",
        "it follows the newest timeline, and replays at once",
        "it is left behind at the next failover, or far behind when it is promoted",
        Judge::Standby(recovery),
    ),
];

fn of<'s>(seen: &'s Survey, name: &str) -> Option<&'s Setting> {
    seen.settings.get(name)
}

fn is(seen: &Survey, name: &str, value: &str) -> bool {
    of(seen, name).is_some_and(|setting| setting.value == value)
}

fn fsync(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    if is(seen, "fsync", "off") {
        notes.error(
            "fsync is off: what is acknowledged need not be on the disk",
            fix::set(node, "fsync", of(seen, "fsync"), "on"),
        );
    }
}

fn full_page_writes(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    if is(seen, "full_page_writes", "off") {
        let fix = fix::set(node, "full_page_writes", of(seen, "full_page_writes"), "on");
        notes.warn("full_page_writes is off: pg_rewind refuses to work with it", fix);
    }
}

fn wal_level(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    if is(seen, "wal_level", "minimal") {
        notes.error(
            "wal_level is minimal: nobody can follow it",
            fix::set(node, "wal_level", of(seen, "wal_level"), "replica"),
        );
    }
}

fn hot_standby(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    if is(seen, "hot_standby", "off") {
        let fix = fix::set(node, "hot_standby", of(seen, "hot_standby"), "on");
        notes.error("hot_standby is off: as a standby it lets nobody in", fix);
    }
}

fn rewind(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    if is(seen, "wal_log_hints", "off") && is(seen, "data_checksums", "off") {
        notes.warn(
            "wal_log_hints is off and the data has no checksums: what has diverged cannot be rewound",
            fix::set(node, "wal_log_hints", of(seen, "wal_log_hints"), "on"),
        );
    }
}

fn synchronous_commit(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let is_quorum = case.wishes.durability == Durability::Quorum;
    // What is less than what is promised. `local` does not wait for standbys, `remote_write` not for their disks.
    let loss = |value: &str| match (value, is_quorum) {
        ("off", true) => {
            Some((Level::Error, "commits are acknowledged before they are on any disk: durability is less than quorum"))
        }
        ("off", false) => Some((
            Level::Warning,
            "commits are acknowledged before they are on the disk: a crash loses some, whatever max_lost_bytes says",
        )),
        ("local", true) => Some((Level::Error, "commits do not wait for the standbys: durability is less than quorum")),
        ("remote_write", true) => Some((Level::Warning, "commits wait for the standbys' memory, not for their disks")),
        _ => None,
    };
    if let Some(setting) = of(seen, "synchronous_commit") {
        // What is set for the control user alone is none of the others' business.
        let is_general = !["user", "database user", "database", "client", "session"].contains(&&*setting.source);
        if let Some((level, what)) = loss(&setting.value).filter(|_| is_general) {
            let fix = fix::set(node, "synchronous_commit", Some(setting), "on");
            notes.complain(level, format!("synchronous_commit is {}: {what}", setting.value), fix);
        }
    }
    // The same on every node.
    if !case.is_primary(node) {
        return;
    }
    for setting in seen.role_settings.iter().filter(|setting| setting.name == "synchronous_commit") {
        if let Some((_, what)) = loss(&setting.value).filter(|_| setting.role != case.wishes.control_user) {
            let whose = match (&*setting.role, &*setting.database) {
                (role, "") => format!("role {role}"),
                ("", database) => format!("database {database}"),
                (role, database) => format!("role {role} in database {database}"),
            };
            notes.warn(
                format!("synchronous_commit is {} for {whose}: its {what}", setting.value),
                fix::reset_role(node, &setting.role, &setting.database, &setting.name),
            );
        }
    }
}

fn read_only(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let setting = of(seen, "default_transaction_read_only");
    let account = case.picture.as_ref().and_then(|picture| picture.nodes.get(&node.id));
    let is_fenced = account.is_some_and(|account| matches!(account.state, NodeState::Fenced | NodeState::Rejoining));
    let is_general = setting.is_some_and(|setting| !["user", "database user", "database"].contains(&&*setting.source));
    if case.is_primary(node) && !is_fenced && is_general && is(seen, "default_transaction_read_only", "on") {
        notes.error(
            "default_transaction_read_only is on: whoever does not ask for a transaction that writes gets none",
            fix::set(node, "default_transaction_read_only", setting, "off"),
        );
    }
}

fn alter_system(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    if is(seen, "allow_alter_system", "off") {
        notes.error(
            "allow_alter_system is off: no setting can be changed, so no standby can be pointed at another primary",
            format!(
                "on {}: put allow_alter_system = on into postgresql.conf; as superuser: SELECT pg_reload_conf()",
                node.id
            ),
        );
    }
    for name in OURS {
        if of(seen, name).is_some_and(Setting::is_given_at_start) {
            notes.error(
                format!("{name} is given on the server's command line, where pgbaton cannot change it"),
                format!("on {}: take {name} off the server's command line, put it into postgresql.conf, and restart the server", node.id),
            );
        }
    }
}

fn configuration_files(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let waiting: Vec<&str> =
        seen.settings.iter().filter(|(_, setting)| setting.pending).map(|(name, _)| &**name).collect();
    if !waiting.is_empty() {
        notes.warn(format!("changed, and not in force before a restart: {}", waiting.join(", ")), fix::restart(node));
    }
    // Those that wait for a restart are among the mistakes, too.
    let is_mistake = |error: &str| !error.contains("without restarting the server");
    for mistake in seen.file_errors.iter().flatten().filter(|mistake| is_mistake(&mistake.error)) {
        notes.warn(
            format!("{}: {}", mistake.place, mistake.error),
            format!("on {}: correct it; as superuser: SELECT pg_reload_conf()", node.id),
        );
    }
}

fn sync_names(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let Some(setting) = of(seen, "synchronous_standby_names") else { return notes.leave_open() };
    if setting.value.is_empty() || !case.is_primary(node) {
        return;
    }
    match case.wishes.durability {
        Durability::Async => notes.warn(
            format!(
                "synchronous_standby_names is set by hand ({}), and cluster.durability is \"async\": pgbaton does not reckon with it, and \
                 a standby that is gone stops all writes",
                setting.value
            ),
            format!(
                "cluster.durability = \"quorum\" has it looked after; or {}",
                fix::set(node, "synchronous_standby_names", Some(setting), "")
            ),
        ),
        // What pgbaton writes. Anything else it replaces when it starts.
        Durability::Quorum if setting.value.starts_with("ANY ") || case.picture.is_none() => {}
        Durability::Quorum => notes.warn(
            format!("synchronous_standby_names is not as pgbaton writes it: {}", setting.value),
            fix::set(node, "synchronous_standby_names", Some(setting), ""),
        ),
    }
}

fn replication_timing(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let limits = [
        ("wal_receiver_timeout", RECEIVER_MS, "5s", "a standby notices late that its primary is gone"),
        (
            "wal_sender_timeout",
            RECEIVER_MS,
            "5s",
            "a primary notices late that a standby is gone, and commits wait for it",
        ),
        ("wal_retrieve_retry_interval", RETRY_MS, "200ms", "a standby waits before it tries again to follow"),
        ("wal_receiver_status_interval", STATUS_MS, "1s", "a standby seldom says how far it is"),
    ];
    for (name, limit, value, consequence) in limits {
        let Some(setting) = of(seen, name) else { continue };
        let Some(is) = setting.millis() else { continue };
        if is == 0 || is > limit {
            let shown = if is == 0 { "off".to_owned() } else { format!("{} s", is as f64 / 1000.0) };
            notes.warn(format!("{name} is {shown}: {consequence}"), fix::set(node, name, Some(setting), value));
        }
    }
}

fn keepalives(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let number = |name| of(seen, name).and_then(Setting::number);
    let (Some(idle), Some(interval), Some(count)) =
        (number("tcp_keepalives_idle"), number("tcp_keepalives_interval"), number("tcp_keepalives_count"))
    else {
        return notes.leave_open();
    };
    let after = idle.saturating_add(interval.saturating_mul(count));
    // 0: by a Unix socket, where nobody vanishes.
    if node.is_local() || idle == 0 || after <= VANISHED_S {
        return;
    }
    notes.warn(
        format!(
            "tcp_keepalives_idle is {idle} s: that a client's machine is gone is noticed after {} minutes",
            after / 60
        ),
        fix::sql(
            node,
            "ALTER SYSTEM SET tcp_keepalives_idle = 60; ALTER SYSTEM SET tcp_keepalives_interval = 10; \
             ALTER SYSTEM SET tcp_keepalives_count = 6; SELECT pg_reload_conf()",
        ),
    );
}

fn session_timeouts(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let idle = of(seen, "idle_session_timeout");
    if let Some(after) = idle.and_then(Setting::millis).filter(|after| *after > 0) {
        notes.warn(
            format!("idle_session_timeout ends pgbaton's idle connections after {} s", after as f64 / 1000.0),
            fix::set(node, "idle_session_timeout", idle, "0"),
        );
    }
    let name = "idle_in_transaction_session_timeout";
    let idle = of(seen, name);
    if let Some(after) = idle.and_then(Setting::millis).filter(|after| (1..IDLE_MS).contains(after)) {
        notes.warn(
            format!(
                "{name} is {} s: a client that thinks for longer in a transaction loses its session",
                after as f64 / 1000.0
            ),
            fix::set(node, name, idle, "1min"),
        );
    }
}

fn recovery(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let target = of(seen, "recovery_target_timeline");
    if let Some(setting) = target.filter(|setting| setting.value != "latest") {
        notes.error(
            format!("recovery_target_timeline is \"{}\": it does not follow another primary", setting.value),
            fix::set(node, "recovery_target_timeline", target, "latest"),
        );
    }
    let name = "recovery_min_apply_delay";
    let delay = of(seen, name);
    if node.priority > 0
        && let Some(after) = delay.and_then(Setting::millis).filter(|after| *after > 0)
    {
        notes.warn(
            format!(
                "{name} is {} s, so it serves old data and has much to replay when it is promoted (priority = 0 keeps it from that)",
                after / 1000
            ),
            fix::set(node, name, delay, "0"),
        );
    }
    let name = "max_standby_streaming_delay";
    if is(seen, name, "-1") {
        notes.warn(
            format!("{name} is -1: one query may keep it from replaying for ever"),
            fix::set(node, name, of(seen, name), "30s"),
        );
    }
    // It pauses itself rather than to replay with less room than its primary has, and stops altogether when it is told to go on.
    if seen.basics.is_paused && !super::replication::is_below_its_primary(case, node, seen) {
        notes.warn("replay is paused", fix::sql(node, "SELECT pg_wal_replay_resume()"));
    }
}
