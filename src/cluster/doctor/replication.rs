//! Standbys and their primary: who follows whom, under which name, and with room enough.

use std::collections::BTreeMap;

use super::facts::{Agent, Case, Patient, Setting, Survey};
use super::{Check, Judge, Level, Notes, check, fix};
use crate::types::Durability;

/// A copy of the data takes two WAL senders, and one is made at a time.
const FOR_A_COPY: i64 = 2;

/// What a standby must have at least as much of as its primary, or it stops replaying
/// (<https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-ADMIN>).
const AT_LEAST: &[&str] = &[
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

pub(super) const CHECKS: &[Check] = &[
    check(
        "standby_limits",
        "no limit is lower than on a node it follows, or may follow",
        "the log stops being replayed, and the node cannot be promoted",
        Judge::Seen(standby_limits),
    ),
    check("follows", "it receives from the primary", "it falls behind, and is no candidate", Judge::Standby(follows)),
    check(
        "application_name",
        "it calls itself by its name in the configuration",
        "the primary does not know whose acknowledgement it has",
        Judge::Standby(application_name),
    ),
    check(
        "senders",
        "no two receivers have one name, and none but a standby has a node's",
        "commits are acknowledged by whoever has the name, which may be no standby at all",
        Judge::Primary(senders),
    ),
    check(
        "room_for_followers",
        "`max_wal_senders` and `max_replication_slots` have room for all other nodes and a copy",
        "after a failover some node cannot follow",
        Judge::Seen(room),
    ),
    check(
        "conninfo_password",
        "nobody but superusers can read the password in `primary_conninfo`",
        "whoever may read all settings can log in as the replication role",
        Judge::Standby(conninfo_password),
    ),
];

pub(super) fn is_below_its_primary(case: &Case, node: &Patient, seen: &Survey) -> bool {
    let number = |seen: &Survey, name: &str| seen.settings.get(name).and_then(Setting::number);
    let primary = case.primary().filter(|(primary, _)| primary.id != node.id);
    primary.is_some_and(|(_, leading)| AT_LEAST.iter().any(|name| number(seen, name) < number(leading, name)))
}

fn standby_limits(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let number = |seen: &Survey, name: &str| seen.settings.get(name).and_then(Setting::number);
    let primary = case.primary().filter(|(primary, _)| primary.id != node.id);
    for name in AT_LEAST {
        let Some(own) = number(seen, name) else { continue };
        let setting = seen.settings.get(*name);
        if let Some((primary, leading)) = primary
            && let Some(theirs) = number(leading, name).filter(|theirs| *theirs > own)
        {
            notes.error(
                format!(
                    "{name} is {own}, and {theirs} on its primary {}: it stops replaying, or does not start",
                    primary.id
                ),
                fix::set(node, name, setting, &theirs.to_string()),
            );
            continue;
        }
        let candidates = case.nodes.iter().filter(|other| other.id != node.id && other.priority > 0);
        let highest =
            candidates.filter_map(|other| Some((number(other.seen()?, name)?, other))).max_by_key(|(of, _)| *of);
        if let Some((theirs, other)) = highest.filter(|(theirs, _)| *theirs > own) {
            notes.warn(
                format!("{name} is {own}, and {theirs} on {}: it could not follow that as its primary", other.id),
                fix::set(node, name, setting, &theirs.to_string()),
            );
        }
    }
}

/// Whether the primary sends to this standby, by its name or by the one it goes by.
fn is_fed(node: &Patient, seen: &Survey, leading: &Survey) -> bool {
    let names = [Some(&*node.id.0), seen.upstream.application_name.as_deref()];
    let mut own = leading.replication.senders.iter().filter(|sender| names.contains(&Some(&*sender.name)));
    own.any(|sender| sender.state.as_deref() != Some("backup"))
}

fn follows(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let Some((primary, leading)) = case.primary() else { return notes.leave_open() };
    let upstream = &seen.upstream;
    if let Some(trouble) = &upstream.trouble {
        notes.error(
            format!("its primary_conninfo cannot be read: {trouble}"),
            fix::sql(node, "ALTER SYSTEM SET primary_conninfo = 'host=… port=… user=… application_name=…'; SELECT pg_reload_conf()"),
        );
        return;
    }
    let is_received = seen.replication.receiver.as_ref().is_some_and(|of| of.status.as_deref() == Some("streaming"));
    let words = format!("host={} port={}", primary.host, primary.port);
    let again = || match node.agent {
        Agent::None if upstream.is_address => format!("on {}: point primary_conninfo at {words}", node.id),
        Agent::None => fix::conninfo(node, &words),
        _ => format!("pgbaton rejoin {}", node.id),
    };
    if upstream.is_empty {
        notes.error(
            "its primary_conninfo is empty: it follows nobody, and it is not known as whom it would",
            fix::sql(
                node,
                &format!(
                    "ALTER SYSTEM SET primary_conninfo = '{words} user=… password=… application_name={}'; SELECT pg_reload_conf()",
                    node.id
                ),
            ),
        );
    } else if upstream.is_recruited {
        // A failover is under way, or has been left unfinished.
        notes.warn("pgbaton took it off its primary for a failover, and it has not followed again yet", again());
    } else if !is_received || !is_fed(node, seen, leading) {
        let at = match (&upstream.host, upstream.port) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.clone(),
            _ => "nowhere".into(),
        };
        let knows = case.nodes.iter().any(|other| {
            Some(&other.host) == upstream.host.as_ref() && upstream.port.is_none_or(|port| port == other.port)
        });
        match (is_received, knows) {
            // From another standby, or by another name of the primary.
            (true, true) => notes.warn(
                format!("it receives from {at}, which is not the primary: it falls behind when that does"),
                again(),
            ),
            (true, false) => {
                notes.warn(format!("it receives from {at}, which is no node of the configuration"), again())
            }
            (false, _) => {
                notes.error(format!("it receives nothing (primary_conninfo says {at}); its log says why"), again())
            }
        }
    }
}

fn application_name(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let upstream = &seen.upstream;
    if upstream.is_empty || upstream.trouble.is_some() {
        return notes.leave_open();
    }
    if upstream.application_name.as_deref() == Some(&*node.id.0) {
        return;
    }
    let said = match &upstream.application_name {
        Some(name) => format!("it calls itself \"{name}\" in its primary_conninfo, and not {}", node.id),
        None => format!("its primary_conninfo has no application_name, which has to be {}", node.id),
    };
    let level = if case.wishes.durability == Durability::Quorum { Level::Error } else { Level::Warning };
    let fix = match upstream.is_address {
        true => format!("on {}: add application_name={} to primary_conninfo", node.id, node.id),
        false => fix::conninfo(node, &format!("application_name={}", node.id)),
    };
    notes.complain(level, said, fix);
}

fn senders(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let is_node = |name: &str| case.nodes.iter().any(|node| *node.id.0 == *name);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    // A copy that is being made receives under the name of its node-to-be, and acknowledges nothing.
    for sender in seen.replication.senders.iter().filter(|sender| sender.state.as_deref() == Some("streaming")) {
        *counts.entry(&sender.name).or_default() += 1;
    }
    let is_quorum = case.wishes.durability == Durability::Quorum;
    for (name, count) in counts.into_iter().filter(|(name, count)| *count > 1 && is_node(name)) {
        notes.complain(
            if is_quorum { Level::Error } else { Level::Warning },
            format!("{count} receivers call themselves {name}: one of them is not that node, and its acknowledgement counts all the same"),
            fix::sql(
                node,
                &format!(
                    "SELECT pid, client_addr, usename, backend_start FROM pg_stat_replication WHERE application_name = '{name}'; then give \
                     all but {name} another application_name"
                ),
            ),
        );
    }
    let own = case.nodes.iter().find(|other| other.id == node.id);
    if own.is_some() && seen.replication.senders.iter().any(|sender| *sender.name == *node.id.0) {
        notes.warn(
            format!("a receiver calls itself {}, as the primary itself", node.id),
            fix::sql(
                node,
                &format!("SELECT pid, client_addr, usename FROM pg_stat_replication WHERE application_name = '{}'; then give it another application_name", node.id),
            ),
        );
    }
}

fn room(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    if node.priority == 0 && seen.basics.is_in_recovery {
        return;
    }
    let number = |name: &str| seen.settings.get(name).and_then(Setting::number);
    let others = case.nodes.len() as i64 - 1;
    let is_node = |name: &str| case.nodes.iter().any(|node| *node.id.0 == *name);
    let strangers = seen.replication.senders.iter().filter(|sender| {
        !is_node(&sender.name) && sender.state.as_deref() == Some("streaming") && sender.name != "pg_basebackup"
    });
    let needed = others + strangers.count() as i64;
    if let Some(senders) = number("max_wal_senders") {
        let level = match senders {
            senders if senders < needed => Some((Level::Error, format!("{needed} have to follow it"))),
            senders if senders < needed + FOR_A_COPY => {
                Some((Level::Warning, format!("{needed} follow it and a copy takes {FOR_A_COPY} more")))
            }
            _ => None,
        };
        if let Some((level, why)) = level {
            let wanted = (needed + FOR_A_COPY).max(10).to_string();
            let fix = fix::set(node, "max_wal_senders", seen.settings.get("max_wal_senders"), &wanted);
            notes.complain(level, format!("max_wal_senders is {senders}, and {why}"), fix);
        }
    }
    let owned: Vec<String> = case.nodes.iter().map(|node| super::slots::slot_of(&node.id)).collect();
    let foreign = seen.slots.iter().filter(|slot| !owned.contains(&slot.slot_name)).count() as i64;
    if let Some(slots) = number("max_replication_slots").filter(|slots| *slots < others + foreign) {
        let wanted = (others + foreign).max(10).to_string();
        notes.warn(
            format!(
                "max_replication_slots is {slots}, and {} are needed: a node that is away for long has to be copied",
                others + foreign
            ),
            fix::set(node, "max_replication_slots", seen.settings.get("max_replication_slots"), &wanted),
        );
    }
}

fn conninfo_password(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let readers: Vec<&str> =
        seen.roles.readers.iter().map(|role| &**role).filter(|role| *role != case.wishes.control_user).collect();
    if seen.upstream.has_password && !readers.is_empty() {
        let user = seen.upstream.user.as_deref().unwrap_or("the replication role");
        let file = match seen.upstream.is_address {
            true => format!(
                "on {}: put the password of {user} into ~/.pgpass of the server's user, and take it out of primary_conninfo",
                node.id
            ),
            false => format!(
                "on {}: put the password of {user} into ~/.pgpass of the server's user; then {}",
                node.id,
                fix::conninfo(node, "password=''")
            ),
        };
        notes.warn(format!("{} can read the password of {user} in its primary_conninfo", readers.join(", ")), file);
    }
}
