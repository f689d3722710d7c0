//! Replication slots: those that keep the log for nobody, and those that a failover loses.

use super::facts::{Case, Patient, Setting, Slot, Survey};
use super::{Check, Judge, Notes, check, fix};
use crate::sql::quote_literal;
use crate::types::NodeId;

/// The first that can carry logical slots over to standbys.
const CARRIES_SLOTS: u32 = 17;

pub(super) const CHECKS: &[Check] = &[
    check(
        "inactive_slots",
        "no slot keeps the log for somebody who does not come",
        "the log fills the disk, and the server stops",
        Judge::Seen(inactive),
    ),
    check(
        "lost_slots",
        "no slot has lost the log it needs",
        "whoever it is for has to be made anew",
        Judge::Seen(lost),
    ),
    check(
        "slot_limit",
        "`max_slot_wal_keep_size` bounds what slots may keep",
        "one standby that stays away fills the primary's disk",
        Judge::Seen(limit),
    ),
    check(
        "logical_slots",
        "logical slots are on the standbys too",
        "after a failover its subscriber gets nothing any more, and misses what happened meanwhile",
        Judge::Primary(logical),
    ),
];

/// Which slot is a node's, on any other. The same as `node/slots.rs` makes.
pub(super) fn slot_of(node: &NodeId) -> String {
    let fitting = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '_') => c,
        _ => '_',
    };
    node.0.chars().map(fitting).take(63).collect()
}

fn drop_it(node: &Patient, slot: &Slot) -> String {
    fix::sql(node, &format!("SELECT pg_drop_replication_slot({})", quote_literal(&slot.slot_name)))
}

fn megabytes(bytes: Option<i64>) -> String {
    format!("{} MiB of the log", bytes.unwrap_or(0).max(0) / (1 << 20))
}

fn is_node(case: &Case, slot: &Slot) -> bool {
    slot.slot_type == "physical" && case.nodes.iter().any(|node| slot_of(&node.id) == slot.slot_name)
}

fn is_lost(slot: &Slot) -> bool {
    slot.wal_status.as_deref() == Some("lost")
}

fn inactive(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    // Of a node's own slot pgbaton takes care, which moves it or lets it go. One that has never been used keeps nothing.
    let idle = seen.slots.iter().filter(|slot| {
        !slot.active && !slot.temporary && !slot.synced && !is_lost(slot) && slot.kept.is_some() && !is_node(case, slot)
    });
    for slot in idle {
        notes.warn(
            format!("nobody uses the {} slot {}, which keeps {}", slot.slot_type, slot.slot_name, megabytes(slot.kept)),
            format!("start whoever it is for; if nobody needs it: {}", drop_it(node, slot)),
        );
    }
}

fn lost(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    for slot in seen.slots.iter().filter(|slot| is_lost(slot)) {
        notes.warn(
            format!("the slot {} has lost the log it needs", slot.slot_name),
            format!("{}; then make anew whoever it was for (of a node: pgbaton rejoin)", drop_it(node, slot)),
        );
    }
}

fn limit(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let name = "max_slot_wal_keep_size";
    let setting = seen.settings.get(name);
    if setting.and_then(Setting::number) == Some(-1) {
        notes.warn(
            format!("{name} is -1: a slot may keep the log until the disk is full"),
            fix::set(node, name, setting, "10GB"),
        );
    }
}

fn logical(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    if !case.is_primary(node) || case.nodes.len() < 2 {
        return;
    }
    for slot in seen.slots.iter().filter(|slot| slot.slot_type == "logical" && !slot.temporary) {
        let database = slot.database.as_deref().unwrap_or("?");
        let needless = drop_it(node, slot);
        if seen.basics.major() < CARRIES_SLOTS {
            notes.warn(
                format!("the logical slot {} (database {database}) will not be on the next primary", slot.slot_name),
                format!(
                    "make it anew after each change of primary, and have its subscriber copy its tables again; if nobody needs it: {needless}"
                ),
            );
            continue;
        }
        if !slot.failover {
            notes.warn(
                format!("the logical slot {} (database {database}) is not carried over to standbys", slot.slot_name),
                format!(
                    "ALTER SUBSCRIPTION … SET (failover = true) at its subscriber, while that is disabled; if nobody needs it: {needless}"
                ),
            );
            continue;
        }
        // What a standby needs to fetch it.
        let candidates = case.nodes.iter().filter(|other| other.id != node.id && other.priority > 0);
        for (other, theirs) in candidates.filter_map(|other| Some((other, other.seen()?))) {
            let is_on = |name: &str| theirs.settings.get(name).is_some_and(|setting| setting.value == "on");
            let has_slot = theirs.settings.get("primary_slot_name").is_some_and(|setting| !setting.value.is_empty());
            if !is_on("sync_replication_slots") {
                let fix =
                    fix::set(other, "sync_replication_slots", theirs.settings.get("sync_replication_slots"), "on");
                notes.warn(
                    format!(
                        "{} does not fetch the logical slot {}: sync_replication_slots is off",
                        other.id, slot.slot_name
                    ),
                    fix,
                );
            }
            if !is_on("hot_standby_feedback") {
                let fix = fix::set(other, "hot_standby_feedback", theirs.settings.get("hot_standby_feedback"), "on");
                notes.warn(
                    format!(
                        "{} cannot keep the logical slot {}: hot_standby_feedback is off",
                        other.id, slot.slot_name
                    ),
                    fix,
                );
            }
            if !has_slot || !theirs.upstream.has_database {
                notes.warn(
                    format!("{} cannot fetch the logical slot {}: it needs primary_slot_name, and dbname in primary_conninfo", other.id, slot.slot_name),
                    fix::conninfo(other, &format!("dbname={}", case.wishes.control_database)),
                );
            }
        }
    }
}
