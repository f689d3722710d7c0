//! The words of fixes: what can be typed, and where. One form for each kind, so that people learn to read them.
//!
//! SQL is written `on NODE, as superuser: …` and ends at the end, or at `; then …`.

use super::facts::{Agent, Patient, Setting};
use crate::sql::{quote_ident, quote_literal};

/// SQL for the superuser on one node.
pub fn sql(node: &Patient, statements: &str) -> String {
    format!("on {}, as superuser: {statements}", node.id)
}

/// Changes a setting, however it has to be put in force.
pub fn set(node: &Patient, name: &str, setting: Option<&Setting>, value: &str) -> String {
    if setting.is_some_and(Setting::is_given_at_start) {
        return format!(
            "on {}: take {name} off the server's command line, where it overrides everything; put {name} = {} into postgresql.conf, \
             and restart the server",
            node.id,
            quote_literal(value)
        );
    }
    let change = format!("ALTER SYSTEM SET {name} = {}", quote_literal(value));
    match setting.is_some_and(|setting| setting.context == "postmaster") {
        true => sql(node, &format!("{change}; then {}", restart(node))),
        false => sql(node, &format!("{change}; SELECT pg_reload_conf()")),
    }
}

pub fn restart(node: &Patient) -> String {
    match node.agent {
        Agent::None => format!("restart the server of {}", node.id),
        _ => format!("pgbaton restart {}", node.id),
    }
}

/// Adds words to a standby's `primary_conninfo`, of which the last of a kind counts, without anybody's seeing what it holds.
/// For psql, which runs what the answer says (`\gexec`), and for which `\\` ends its own command.
pub fn conninfo(node: &Patient, words: &str) -> String {
    sql(
        node,
        &format!(
            "SELECT format('ALTER SYSTEM SET primary_conninfo = %L', current_setting('primary_conninfo') || {}) \\gexec \\\\ \
             SELECT pg_reload_conf()",
            quote_literal(&format!(" {words}"))
        ),
    )
}

/// A role for all databases, or in one.
pub fn reset_role(node: &Patient, role: &str, database: &str, name: &str) -> String {
    let statement = match (role, database) {
        ("", database) => format!("ALTER DATABASE {} RESET {name}", quote_ident(database)),
        (role, "") => format!("ALTER ROLE {} RESET {name}", quote_ident(role)),
        (role, database) => {
            format!("ALTER ROLE {} IN DATABASE {} RESET {name}", quote_ident(role), quote_ident(database))
        }
    };
    sql(node, &statement)
}

/// The lines of `pg_hba.conf` are taken from above, so a new one goes first.
pub fn hba(node: &Patient, line: &str) -> String {
    format!(
        "on {}: put the line \"{line}\" at the top of the file that SHOW hba_file names; as superuser: SELECT pg_reload_conf()",
        node.id
    )
}
