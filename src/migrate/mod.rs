//! The schema `pgbaton` on the primary, and how it comes there.
//!
//! Why not `refinery`: it keeps its table where the schema does not exist yet, leaves concurrent runs to whoever calls it, and
//! brings some thirty packages for one file. What is needed is here: files in their order, one transaction, one lock.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

/// In their order. One that has been released is never changed; a change is another one.
const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, name: "pgbaton", sql: include_str!("../../migrations/0001_pgbaton.sql") }];

/// The least-privilege script for the control user, for psql.
pub const ROLES: &str = include_str!("../../migrations/roles.sql");

/// Of `pg_advisory_xact_lock`: "pgbaton" in ASCII.
const LOCK: i64 = 0x70_6762_6174_6f6e;

/// The version of the schema that this program works with.
pub fn version() -> i32 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

impl Migration {
    fn label(&self) -> String {
        format!("{:04}_{}", self.version, self.name)
    }
}

/// Why the schema is not as it should be. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("it is a standby; the schema is made on the primary and comes to it from there")]
    Standby,
    /// An operator has to say a word.
    #[error(
        "the control user \"{user}\" lacks a right ({reason}); run migrations/roles.sql as superuser in database \"{database}\", \
         or there: CREATE SCHEMA IF NOT EXISTS pgbaton AUTHORIZATION \"{user}\"; ALTER SCHEMA pgbaton OWNER TO \"{user}\""
    )]
    Forbidden { user: String, database: String, reason: String },
    /// Somebody else made it, and did not let the control user in.
    #[error(
        "the tables of schema pgbaton belong to another role, and the control user \"{user}\" may not write them; run as superuser \
         in database \"{database}\": GRANT USAGE ON SCHEMA pgbaton TO \"{user}\"; GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA \
         pgbaton TO \"{user}\"; GRANT UPDATE ON pgbaton.heartbeat, pgbaton.history TO \"{user}\""
    )]
    Locked { user: String, database: String },
    #[error("the schema pgbaton is of version {found}, and this pgbaton knows no later one than {known}")]
    Newer { found: i32, known: i32 },
    #[error("{doing}: {}", said(source))]
    Failed { doing: String, source: tokio_postgres::Error },
}

/// Makes the schema what this version needs, in one transaction; those applied are returned, none if it was so already. Two that
/// run at the same time wait for each other. The caller bounds the time, as a frozen server never refuses.
pub async fn apply(client: &mut Client) -> Result<Vec<String>, MigrateError> {
    let begun = client.transaction().await.map_err(because("cannot begin a transaction"))?;
    let applied = match run(&begun).await {
        Ok(applied) => applied,
        Err(MigrateError::Failed { source, .. }) if source.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            // The transaction has failed; who we are has to be asked outside of it.
            drop(begun);
            return Err(forbidden(client, &source).await);
        }
        Err(error) => return Err(error),
    };
    begun.commit().await.map_err(because("cannot commit the schema pgbaton"))?;
    Ok(applied)
}

async fn run(transaction: &Transaction<'_>) -> Result<Vec<String>, MigrateError> {
    // Nothing in a database's public schema may stand in for what is meant. Nobody is waited for at the commit: standbys that
    // cannot acknowledge must not keep a primary from getting its schema, and whoever builds upon it commits later than this.
    let settings = "SET LOCAL search_path = pg_catalog; SET LOCAL synchronous_commit = local; SET LOCAL lock_timeout = '10s'; \
                    SET LOCAL client_min_messages = warning";
    transaction.batch_execute(settings).await.map_err(because("cannot begin"))?;
    let asking = "cannot see whether there is a schema pgbaton";
    let row = transaction.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(because(asking))?;
    if row.try_get(0).map_err(because(asking))? {
        return Err(MigrateError::Standby);
    }
    let locking = "cannot lock the schema pgbaton";
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await.map_err(because(locking))?;
    // What another one committed while this one waited is seen by this question, and would not be by IF NOT EXISTS, which
    // also needs the right to create what is there already.
    let exist = "SELECT to_regnamespace('pgbaton') IS NOT NULL, to_regclass('pgbaton.schema_version') IS NOT NULL";
    let row = transaction.query_one(exist, &[]).await.map_err(because(asking))?;
    if !row.try_get::<_, bool>(0).map_err(because(asking))? {
        transaction
            .batch_execute("CREATE SCHEMA pgbaton")
            .await
            .map_err(because("cannot create the schema pgbaton"))?;
    }
    if !row.try_get::<_, bool>(1).map_err(because(asking))? {
        let table = "CREATE TABLE pgbaton.schema_version
                         (version integer PRIMARY KEY, name text NOT NULL, at timestamptz NOT NULL DEFAULT now())";
        transaction.batch_execute(table).await.map_err(because("cannot create pgbaton.schema_version"))?;
    }
    let newest = "SELECT coalesce(max(version), 0) FROM pgbaton.schema_version";
    let row = transaction.query_one(newest, &[]).await.map_err(because(asking))?;
    let found: i32 = row.try_get(0).map_err(because(asking))?;
    let known = version();
    if found > known {
        return Err(MigrateError::Newer { found, known });
    }
    let mut applied = Vec::new();
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
        let doing = || format!("cannot apply {}", migration.label());
        transaction.batch_execute(migration.sql).await.map_err(because(doing()))?;
        let remember = "INSERT INTO pgbaton.schema_version (version, name) VALUES ($1, $2)";
        transaction.execute(remember, &[&migration.version, &migration.name]).await.map_err(because(doing()))?;
        applied.push(migration.label());
    }
    let row = transaction.query_one(WRITABLE, &[]).await.map_err(because(asking))?;
    if !row.try_get::<_, bool>(0).map_err(because(asking))? {
        let name = |column| row.try_get::<_, String>(column).map_err(because(asking));
        return Err(MigrateError::Locked { user: name(1)?, database: name(2)? });
    }
    Ok(applied)
}

/// What pgbaton does with the tables. That it can see them is not enough: whoever is in `pg_monitor` can.
const WRITABLE: &str = "
SELECT has_table_privilege('pgbaton.epoch', 'INSERT')
       AND has_table_privilege('pgbaton.heartbeat', 'INSERT') AND has_table_privilege('pgbaton.heartbeat', 'UPDATE')
       AND has_table_privilege('pgbaton.history', 'INSERT') AND has_table_privilege('pgbaton.history', 'UPDATE'),
       current_user::text, current_database()::text";

fn because(doing: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> MigrateError {
    move |source| MigrateError::Failed { doing: doing.into(), source }
}

/// What the server said, or what became of the connection to it; tokio-postgres alone says "db error".
fn said(error: &tokio_postgres::Error) -> String {
    use std::error::Error;
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => said.message().to_owned(),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

async fn forbidden(client: &Client, source: &tokio_postgres::Error) -> MigrateError {
    let reason = said(source);
    match client.query_one("SELECT current_user::text, current_database()::text", &[]).await {
        Ok(row) => MigrateError::Forbidden { user: row.get(0), database: row.get(1), reason },
        Err(source) => MigrateError::Failed { doing: reason, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_holes_and_named_as_their_files() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut files: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "roles.sql")
            .collect();
        files.sort();
        let labels: Vec<String> = MIGRATIONS.iter().map(|migration| format!("{}.sql", migration.label())).collect();
        assert_eq!(labels, files);
        assert!(MIGRATIONS.iter().zip(1..).all(|(migration, number)| migration.version == number));
    }
}
