//! What the control user may do, against what pgbaton needs: said by the doctor, not found out in the middle of a failover.
//!
//! The list is that of `migrations/roles.sql` and of the table in `docs/operations.md`; whoever changes one changes all.

use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Row};

use super::NodeError;
use super::error::refusal;
use crate::cluster::doctor::facts::Lack;
use crate::types::NodeId;

const RIGHTS: &str = "
SELECT me.rolname::text, me.rolsuper, current_setting('server_version_num')::int >= 150000,
       has_column_privilege('pg_catalog.pg_authid', 'rolname', 'SELECT')
       AND has_column_privilege('pg_catalog.pg_authid', 'rolpassword', 'SELECT')
       AND has_column_privilege('pg_catalog.pg_authid', 'rolvaliduntil', 'SELECT')
       AND has_column_privilege('pg_catalog.pg_authid', 'rolcanlogin', 'SELECT'),
       has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'),
       has_function_privilege('pg_catalog.pg_control_checkpoint()', 'EXECUTE'),
       pg_has_role(me.oid, 'pg_read_all_stats', 'USAGE'),
       me.rolreplication OR me.rolsuper,
       pg_has_role(me.oid, 'pg_signal_backend', 'USAGE'),
       has_function_privilege('pg_catalog.pg_promote(boolean, integer)', 'EXECUTE'),
       has_function_privilege('pg_catalog.pg_reload_conf()', 'EXECUTE'),
       has_function_privilege('pg_catalog.pg_wal_replay_resume()', 'EXECUTE'),
       EXISTS (SELECT FROM pg_roles AS role WHERE role.rolname = 'pg_checkpoint' AND pg_has_role(me.oid, role.oid, 'USAGE'))
FROM pg_roles AS me WHERE me.rolname = current_user";

/// Where the rights begin among the columns.
const FIRST: usize = 3;

/// What it cannot do without each of them, and how it is granted, with `@` for the control user.
const GRANTS: [(&str, &str); 10] = [
    ("read pg_authid, so nobody can log in by password", "GRANT SELECT ON pg_authid TO @"),
    ("call pg_control_system(), so nodes cannot be checked", "GRANT EXECUTE ON FUNCTION pg_control_system() TO @"),
    (
        "call pg_control_checkpoint(), so nodes cannot be checked",
        "GRANT EXECUTE ON FUNCTION pg_control_checkpoint() TO @",
    ),
    ("see the WAL receiver, so a standby's timeline is seen late", "GRANT pg_read_all_stats TO @"),
    ("make replication slots, so a node that was away for long may have to be rebuilt", "ALTER ROLE @ REPLICATION"),
    (
        "end sessions, so those on a primary of the past go on there until they notice, and a query may keep a candidate from \
         replaying",
        "GRANT pg_signal_backend TO @",
    ),
    ("promote a standby, so there is no failover", "GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO @"),
    ("have settings loaded, so there is no failover", "GRANT EXECUTE ON FUNCTION pg_reload_conf() TO @"),
    (
        "resume replay, so a candidate whose replay somebody has paused is not promoted",
        "GRANT EXECUTE ON FUNCTION pg_wal_replay_resume() TO @",
    ),
    (
        "run CHECKPOINT, so rewinding a primary of the past may have to wait for the new one's next checkpoint",
        "GRANT pg_checkpoint TO @",
    ),
];

/// Settings that are changed with ALTER SYSTEM, and what for.
const PARAMETERS: [(&str, &str); 5] = [
    ("primary_conninfo", "so there is no failover"),
    ("primary_slot_name", "so there is no failover"),
    (
        "synchronous_standby_names",
        "so there is no failover, no durability = \"quorum\", and a primary of the past is not fenced",
    ),
    ("default_transaction_read_only", "so a primary of the past is not fenced"),
    ("recovery_min_apply_delay", "so a candidate that replays late is promoted only when its delay is over"),
];

const MAY_ALTER: &str = "SELECT has_parameter_privilege(name, 'ALTER SYSTEM')
FROM unnest($1::text[]) WITH ORDINALITY AS asked (name, number) ORDER BY number";

/// What the control user lacks where this connection leads.
pub(super) async fn of(node: &NodeId, client: &Client) -> Result<Vec<Lack>, NodeError> {
    let bad = |error: tokio_postgres::Error| refusal(node, &error);
    let row = client.query_one(RIGHTS, &[]).await.map_err(bad)?;
    let parameters = match grants_parameters(node, &row)? {
        true => client.query_typed(MAY_ALTER, &[(&names(), Type::TEXT_ARRAY)]).await.map_err(bad)?,
        false => Vec::new(),
    };
    lacks(node, &row, &parameters)
}

fn names() -> Vec<&'static str> {
    PARAMETERS.map(|(name, _)| name).to_vec()
}

fn grants_parameters(node: &NodeId, row: &Row) -> Result<bool, NodeError> {
    get(node, row, 2)
}

/// What the answers to both questions say.
fn lacks(node: &NodeId, row: &Row, parameters: &[Row]) -> Result<Vec<Lack>, NodeError> {
    let user: String = get(node, row, 0)?;
    let (is_superuser, grants_parameters): (bool, bool) = (get(node, row, 1)?, grants_parameters(node, row)?);
    let mut missing = Vec::new();
    let mut lacks = |what: String, grant: &str| {
        missing.push(Lack { what, grant: grant.replace('@', &format!("\"{user}\"")) });
    };
    for (at, (lack, grant)) in GRANTS.into_iter().enumerate() {
        let is_there: bool = get(node, row, FIRST + at)?;
        // Before PostgreSQL 15 there is no such role: it is said with the settings.
        let is_to_be_granted = !grant.contains("pg_checkpoint") || grants_parameters;
        if !is_there && is_to_be_granted {
            lacks(lack.to_owned(), grant);
        }
    }
    if grants_parameters {
        for (row, (name, consequence)) in parameters.iter().zip(PARAMETERS) {
            if !get::<bool>(node, row, 0)? {
                lacks(format!("change {name}, {consequence}"), &format!("GRANT ALTER SYSTEM ON PARAMETER {name} TO @"));
            }
        }
    } else if !is_superuser {
        lacks(
            "change settings or run CHECKPOINT, which before PostgreSQL 15 only superusers may, so there is no failover \
             (failover.automatic = false says that none is wanted)"
                .to_owned(),
            "ALTER ROLE @ SUPERUSER",
        );
    }
    Ok(missing)
}

fn get<'r, T: FromSql<'r>>(node: &NodeId, row: &'r Row, column: usize) -> Result<T, NodeError> {
    row.try_get(column).map_err(|error| refusal(node, &error))
}
