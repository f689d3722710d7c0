//! Whether a node is there at all, is one of ours, and lets pgbaton do its work.

use super::facts::{Case, Patient, Survey};
use super::{Check, Judge, Level, Notes, check, fix};
use crate::cluster::NodeState;
use crate::sql::quote_ident;
use crate::types::Durability;

/// The first to report `in_hot_standby`.
const OLDEST: u32 = 14;

pub(super) const CHECKS: &[Check] = &[
    check(
        "reachable",
        "the control user logs in",
        "the node is unknown: neither believed, nor promoted, nor read from",
        Judge::Node(reachable),
    ),
    check(
        "one_primary",
        "exactly one node takes writes",
        "nobody can write, or two histories begin",
        Judge::Whole(one_primary),
    ),
    check(
        "system_identifier",
        "the node is of the same cluster as the others",
        "it is left alone: what it holds is somebody else's data",
        Judge::Seen(system_identifier),
    ),
    check(
        "timeline",
        "it is on the primary's timeline",
        "it has left the primary's history, and has to be made a standby again",
        Judge::Standby(timeline),
    ),
    check(
        "version",
        "its PostgreSQL is supported, and of the same release as the others",
        "another major version cannot follow; a standby that is older than its primary may not understand its log",
        Judge::Seen(version),
    ),
    check(
        "rights",
        "the control user has every right it needs",
        "what it cannot do is found out in the middle of a failover",
        Judge::Seen(rights),
    ),
    check(
        "login_method",
        "the control user shows a password that nobody can read on the wire",
        "whoever reaches the server may act as pgbaton",
        Judge::Seen(login_method),
    ),
    check(
        "password_expiry",
        "no password that nodes and pgbaton log in with ends within a month",
        "from then on nobody follows, and pgbaton is not let in",
        Judge::Primary(password_expiry),
    ),
    check(
        "schema",
        "the schema `pgbaton` is there, and of this version",
        "a store put back from a backup is not recognised, and a primary that cannot write is not seen",
        Judge::Primary(schema),
    ),
];

fn reachable(case: &Case, node: &Patient, notes: &mut Notes) {
    let Err(unseen) = &node.survey else { return };
    let account = case.picture.as_ref().and_then(|picture| picture.nodes.get(&node.id));
    if account.is_some_and(|account| account.state == NodeState::Rejoining) {
        return notes.warn("it is being made a standby again", "wait for it: pgbaton list says how far it is");
    }
    let user = quote_ident(&case.wishes.control_user);
    let reason = &unseen.reason;
    let (message, fix) = match (&*unseen.sqlstate, unseen.lacks_password) {
        (_, true) => (
            "it asks for the control user's password, and none is configured".to_owned(),
            "put it into a file (mode 0600) and name that in cluster.control_password_file, or into PGBATON_CONTROL_PASSWORD"
                .to_owned(),
        ),
        ("28P01", _) => (
            format!("it does not take the control user's password: {reason}"),
            format!(
                "set the password that pgbaton has (cluster.control_password_file, PGBATON_CONTROL_PASSWORD, ~/.pgpass): {}",
                fix::sql(node, &format!("ALTER ROLE {user} PASSWORD '…'"))
            ),
        ),
        ("28000", _) if reason.contains("pg_hba.conf") => {
            let from = reason.split("host \"").nth(1).and_then(|rest| rest.split('"').next());
            let from = from.map_or("samenet".to_owned(), host_mask);
            let database = quote_ident(&case.wishes.control_database);
            (
                format!("no line of pg_hba.conf lets the control user in: {reason}"),
                fix::hba(node, &format!("host {database} {user} {from} scram-sha-256")),
            )
        }
        ("28000", _) => (
            format!("the control user may not log in: {reason}"),
            "on the primary, as superuser: psql -X -d postgres -f migrations/roles.sql, then \\password".to_owned(),
        ),
        ("3D000", _) => (
            format!("cluster.control_database is not there: {reason}"),
            format!(
                "name one that is there in cluster.control_database, or on the primary, as superuser: CREATE DATABASE {}",
                quote_ident(&case.wishes.control_database)
            ),
        ),
        ("53300", _) => (
            format!("it has no connection left: {reason}"),
            fix::sql(node, &format!("ALTER SYSTEM SET max_connections = …; then {}", fix::restart(node))),
        ),
        ("57P03", _) => (format!("it is not ready: {reason}"), "wait until it has started, and look into its log".to_owned()),
        _ => (
            format!("it does not answer: {reason}"),
            format!(
                "start its server, or correct host and port of {} in the configuration; from here: pg_isready -h {} -p {}",
                node.id, node.host, node.port
            ),
        ),
    };
    notes.error(message, fix);
}

/// As an address in pg_hba.conf.
pub(super) fn host_mask(address: &str) -> String {
    match address.contains(':') {
        true => format!("{address}/128"),
        false => format!("{address}/32"),
    }
}

fn one_primary(case: &Case, notes: &mut Notes) {
    let seen: Vec<_> = case.nodes.iter().filter_map(|node| Some((node, node.seen()?))).collect();
    let leading: Vec<_> = seen.iter().filter(|(_, seen)| !seen.basics.is_in_recovery).map(|(node, _)| *node).collect();
    let is_being_mended = |node: &Patient| {
        let account = case.picture.as_ref().and_then(|picture| picture.nodes.get(&node.id));
        account.is_some_and(|account| matches!(account.state, NodeState::Fenced | NodeState::Rejoining))
    };
    match leading[..] {
        [_] => {}
        [] if seen.len() < case.nodes.len() => notes.leave_open(),
        [] => notes.error(
            "all nodes are standbys: nobody takes writes",
            "pgbaton list says why; to decide by hand: pgbaton failover --to NODE",
        ),
        _ => {
            let names: Vec<String> = leading.iter().map(|node| node.id.to_string()).collect();
            let recorded = case.primary().map(|(node, _)| node.id.clone());
            for node in leading.iter().filter(|node| recorded.as_ref() != Some(&node.id)) {
                match (&recorded, is_being_mended(node)) {
                    (Some(primary), true) => notes.warn(
                        format!(
                            "{} is a primary of the past, and is kept from taking writes; {primary} is the primary",
                            node.id
                        ),
                        format!(
                            "make it a standby of {primary}: pgbaton rejoin {} (or by hand, docs/rejoin.md)",
                            node.id
                        ),
                    ),
                    (Some(primary), false) => notes.error(
                        format!("{} is no standby, and {primary} is the primary", node.id),
                        format!(
                            "make it a standby of {primary}: pgbaton rejoin {} (or by hand, docs/rejoin.md)",
                            node.id
                        ),
                    ),
                    (None, _) => {}
                }
            }
            if recorded.is_none() {
                notes.error(
                    format!("{} say that they are primaries", names.join(" and ")),
                    "stop all but the one whose data is right, and make the others its standbys (docs/rejoin.md)",
                );
            }
        }
    }
}

fn system_identifier(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let Some(own) = &seen.identity else { return notes.leave_open() };
    // The primary's is right; without one, that of most.
    let of = |node: &Patient| node.seen().and_then(|seen| Some(seen.identity.as_ref()?.system_identifier.clone()));
    let right = match case.primary() {
        Some((primary, _)) => of(primary),
        None => {
            let all: Vec<String> = case.nodes.iter().filter_map(of).collect();
            let count = |one: &String| all.iter().filter(|other| *other == one).count();
            all.iter().max_by_key(|one| count(one)).cloned()
        }
    };
    if let Some(right) = right.filter(|right| *right != own.system_identifier) {
        notes.error(
            format!("its system identifier is {}, and that of the cluster {right}", own.system_identifier),
            format!(
                "correct host and port of {} in the configuration; if it is to be a node of this cluster, empty its data directory and \
                 copy the primary (pg_basebackup; with an agent: pgbaton rebuild {})",
                node.id, node.id
            ),
        );
    }
}

fn timeline(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let own = seen.identity.as_ref().map(|identity| identity.timeline);
    let primary = case.primary().and_then(|(_, seen)| Some(seen.identity.as_ref()?.timeline));
    let (Some(own), Some(right)) = (own, primary) else { return notes.leave_open() };
    if own != right {
        notes.error(
            format!("it is on timeline {}, and the primary on {}", own.0, right.0),
            format!("pgbaton rejoin {} (or by hand, docs/rejoin.md)", node.id),
        );
    }
}

fn version(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let own = seen.basics.version;
    if seen.basics.major() < OLDEST {
        notes.error(
            format!("its PostgreSQL is {}, and {OLDEST} is the oldest that is supported", written(own)),
            "upgrade all nodes",
        );
        return;
    }
    let Some((primary, other)) = case.primary().filter(|(primary, _)| primary.id != node.id) else { return };
    let right = other.basics.version;
    if seen.basics.major() != other.basics.major() {
        notes.error(
            format!("its PostgreSQL is {}, and that of {} {}", written(own), primary.id, written(right)),
            format!("install the same major version on all nodes, and copy the primary: pgbaton rebuild {}", node.id),
        );
    } else if own != right {
        let older = if own < right { node } else { primary };
        notes.warn(
            format!("its PostgreSQL is {}, and that of {} {}", written(own), primary.id, written(right)),
            format!("install {} on {}; then {}", written(own.max(right)), older.id, fix::restart(older)),
        );
    }
}

/// 150018 is 15.18.
fn written(version: u32) -> String {
    format!("{}.{}", version / 10_000, version % 10_000)
}

fn rights(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    // They are the same on every node, as the log carries them: said once, where they can be granted.
    if let Some((primary, leading)) = case.primary()
        && primary.id != node.id
        && leading.lacks == seen.lacks
    {
        return;
    }
    let (user, database) = (&case.wishes.control_user, &case.wishes.control_database);
    let at = case.primary().map_or(node, |(primary, _)| primary);
    let grant = |statement: &str| {
        let database = if database == "postgres" { String::new() } else { format!(" (in database {database})") };
        format!("on {}, as superuser: {statement}{database}", at.id)
    };
    for lack in &seen.lacks {
        notes.error(format!("the control user \"{user}\" cannot {}", lack.what), grant(&lack.grant));
    }
    let has_agents = case.nodes.iter().any(|node| !matches!(node.agent, super::facts::Agent::None));
    if has_agents && !seen.things.reads_files {
        notes.warn(
            format!("the control user \"{user}\" cannot read files of the data directory, so a node is copied where it could be rewound"),
            grant(&format!(
                "GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text), \
                 pg_read_binary_file(text, bigint, bigint, boolean) TO {}",
                quote_ident(user)
            )),
        );
    }
    if seen.hba.is_none() {
        notes.warn(
            format!("the control user \"{user}\" cannot read pg_hba.conf, so nobody knows whether nodes let each other in after a switch"),
            grant(&format!(
                "GRANT SELECT ON pg_hba_file_rules TO {0}; GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO {0}",
                quote_ident(user)
            )),
        );
    }
    if seen.file_errors.is_none() {
        notes.warn(
            format!("the control user \"{user}\" cannot see mistakes in configuration files"),
            grant(&format!(
                "GRANT SELECT ON pg_file_settings TO {0}; GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO {0}",
                quote_ident(user)
            )),
        );
    }
    for gap in &seen.gaps {
        notes.warn(
            format!("a question was not answered, so some checks are missing: {gap}"),
            "pgbaton doctor again; docs/operations.md has all rights",
        );
    }
}

fn login_method(case: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    let told = seen.basics.login.as_deref().and_then(|login| login.split(':').next()).map(str::to_owned);
    let Some(client) = &seen.basics.client else { return };
    let wishes = &case.wishes;
    let rule = super::logins::rule_for(
        seen,
        &super::logins::Visitor {
            database: Some(&wishes.control_database),
            user: &wishes.control_user,
            roles: &[],
            address: client,
        },
    );
    let method = told.or_else(|| rule.and_then(|rule| rule.auth_method.clone()));
    let line = |method: &str| {
        format!(
            "host {} {} {} {method}",
            quote_ident(&wishes.control_database),
            quote_ident(&wishes.control_user),
            host_mask(client)
        )
    };
    match method.as_deref() {
        Some("trust") => notes.warn(
            format!("pg_hba.conf lets anybody in from {client} as the control user, without a password"),
            fix::hba(node, &line("scram-sha-256")),
        ),
        Some("password") => {
            notes.warn("the control user's password is sent as it is", fix::hba(node, &line("scram-sha-256")))
        }
        Some(_) => {}
        None => notes.leave_open(),
    }
}

fn password_expiry(_: &Case, node: &Patient, seen: &Survey, notes: &mut Notes) {
    for (role, hours) in &seen.roles.expiring {
        let level = if *hours < 0 { Level::Error } else { Level::Warning };
        let when = if *hours < 0 { "has ended".to_owned() } else { format!("ends in {} days", hours / 24) };
        notes.complain(
            level,
            format!("the password of {role} {when}"),
            fix::sql(node, &format!("ALTER ROLE {} VALID UNTIL 'infinity'", quote_ident(role))),
        );
    }
}

fn schema(case: &Case, _: &Patient, seen: &Survey, notes: &mut Notes) {
    let known = case.wishes.schema_version;
    let migrate = "pgbaton migrate -c pgbaton.toml";
    match seen.schema.version {
        Some(version) if version == known => {}
        Some(version) if version > known => notes.warn(
            format!("the schema pgbaton is of version {version}, and this pgbaton knows no later one than {known}"),
            "run the newer pgbaton",
        ),
        Some(version) => {
            notes.warn(format!("the schema pgbaton is of version {version}, and this is {known}"), migrate)
        }
        // A pgbaton that starts makes it, if it may, and needs none if it only watches.
        None if case.wishes.only_watches || case.picture.is_none() && seen.schema.is_ours => {}
        None => {
            let level = if case.wishes.durability == Durability::Quorum { Level::Error } else { Level::Warning };
            notes.complain(level, "there is no schema pgbaton", migrate);
        }
    }
}
