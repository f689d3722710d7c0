//! Asking a node everything that the doctor judges by, in one visit over a connection of its own.
//!
//! The answers are JSON, read as they come by `cluster::doctor::facts`. Each question stands alone: one that a right is missing
//! for, or that somebody keeps from being answered, leaves a gap and nothing more. A password in `primary_conninfo` does not
//! leave this file.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::error::refusal;
use super::keeper::Keeper;
use super::{Control, NodeError, ROLE_DEADLINE, recruit, rights};
use crate::cluster::doctor::ASKED;
use crate::cluster::doctor::facts::{Basics, Lack, Survey, Unseen, Upstream};
use crate::net::Conninfo;
use crate::types::NodeId;

/// All of a visit. A frozen server never refuses.
const LIMIT: Duration = Duration::from_secs(10);

/// Databases in which unlogged tables are looked for, and how many of them are named.
const DATABASES: i64 = 20;
const TABLES: i64 = 5;

/// The server's own settings stay visible in it, as roles without settings of their own have them.
const OPTIONS: &str =
    "-c search_path=pg_catalog -c client_min_messages=warning -c statement_timeout=5s -c lock_timeout=1s";

const BASICS: &str = "
SELECT jsonb_build_object(
    'is_in_recovery', r,
    'version', current_setting('server_version_num')::int,
    'now_ms', (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    'address', host(inet_server_addr()), 'client', host(inet_client_addr()),
    'is_paused', CASE WHEN r THEN pg_is_wal_replay_paused() ELSE false END)::text
FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) AS now";

/// 16 and later.
const LOGIN: &str = "SELECT to_jsonb(system_user)::text";

const IDENTITY: &str = "
SELECT jsonb_build_object(
    'system_identifier', (SELECT system_identifier::text FROM pg_control_system()),
    'timeline', CASE WHEN r THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                                          (SELECT timeline_id FROM pg_control_checkpoint()))::bigint
                ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END)::text
FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) AS now";

/// `$1`: names. A connection string is asked for apart.
const SETTINGS: &str = "
SELECT coalesce(jsonb_object_agg(name, jsonb_build_object(
    'value', CASE WHEN name = 'primary_conninfo' THEN '' ELSE coalesce(setting, '') END,
    'unit', unit, 'source', source, 'context', context, 'pending', pending_restart)), '{}')::text
FROM pg_settings WHERE name = ANY ($1::text[])";

const CONNINFO: &str = "SELECT to_jsonb(current_setting('primary_conninfo'))::text";

const REPLICATION: &str = "
SELECT jsonb_build_object(
    'senders', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                    'name', application_name, 'address', host(client_addr), 'state', state)), '[]')
                FROM pg_stat_replication),
    'receiver', (SELECT jsonb_build_object('status', status, 'host', sender_host, 'port', sender_port)
                 FROM pg_stat_wal_receiver))::text";

const SLOTS: &str = "
SELECT coalesce(jsonb_agg(to_jsonb(slot) || jsonb_build_object(
    'kept', pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                            restart_lsn)::bigint)), '[]')::text
FROM pg_replication_slots AS slot";

const ARCHIVER: &str = "
SELECT (to_jsonb(archiver) || jsonb_build_object(
    'is_failing', last_failed_time IS NOT NULL AND last_failed_time > coalesce(last_archived_time, '-infinity')))::text
FROM pg_stat_archiver AS archiver";

/// The view and the function behind it are each a right of its own.
const MAY_READ_FILES: &str = "
SELECT jsonb_build_array(
    has_table_privilege('pg_hba_file_rules', 'SELECT') AND has_function_privilege('pg_hba_file_rules()', 'EXECUTE'),
    has_table_privilege('pg_file_settings', 'SELECT') AND has_function_privilege('pg_show_all_file_settings()', 'EXECUTE'))::text";

const HBA: &str = "SELECT coalesce(jsonb_agg(to_jsonb(rule) - 'options' ORDER BY line_number), '[]')::text FROM pg_hba_file_rules AS rule";

/// Without the value, which may be a secret.
const FILE_ERRORS: &str = "
SELECT coalesce(jsonb_agg(jsonb_build_object(
    'place', coalesce(sourcefile || ':' || sourceline, 'a configuration file') || coalesce(': ' || name, ''), 'error', error)), '[]')::text
FROM pg_file_settings WHERE error IS NOT NULL";

const ROLES: &str = "
SELECT jsonb_build_object(
    'limited', (SELECT coalesce(jsonb_object_agg(rolname, rolconnlimit), '{}') FROM pg_roles
                WHERE rolcanlogin AND NOT rolsuper AND rolconnlimit >= 0),
    'limited_databases', (SELECT coalesce(jsonb_object_agg(datname, datconnlimit), '{}') FROM pg_database
                          WHERE datallowconn AND datconnlimit >= 0),
    'expiring', (SELECT coalesce(jsonb_object_agg(rolname, floor(extract(epoch FROM rolvaliduntil - now()) / 3600)), '{}')
                 FROM pg_roles WHERE (rolname = current_user OR rolcanlogin AND rolreplication) AND isfinite(rolvaliduntil)
                                     AND rolvaliduntil < now() + interval '30 days'),
    'readers', (SELECT coalesce(jsonb_agg(rolname ORDER BY rolname), '[]') FROM pg_roles AS reader
                WHERE rolcanlogin AND NOT rolsuper AND pg_has_role(reader.oid, 'pg_read_all_settings', 'USAGE')),
    'replicators', (SELECT coalesce(jsonb_object_agg(replicator.rolname,
                        (SELECT jsonb_agg(of.rolname) FROM pg_roles AS of
                         WHERE pg_has_role(replicator.oid, of.oid, 'MEMBER'))), '{}')
                    FROM pg_roles AS replicator WHERE rolcanlogin AND rolreplication AND NOT rolsuper))::text";

const ROLE_SETTINGS: &str = "
SELECT coalesce(jsonb_agg(jsonb_build_object(
    'role', coalesce(rolname, ''), 'database', coalesce(datname, ''),
    'name', split_part(line, '=', 1), 'value', substr(line, strpos(line, '=') + 1))), '[]')::text
FROM pg_db_role_setting AS of
LEFT JOIN pg_roles AS role ON role.oid = of.setrole LEFT JOIN pg_database AS database ON database.oid = of.setdatabase,
LATERAL unnest(of.setconfig) AS line
WHERE split_part(line, '=', 1) = 'synchronous_commit'";

const THINGS: &str = "
SELECT jsonb_build_object(
    'tablespaces', (SELECT coalesce(jsonb_agg(spcname || ' (' || location || ')'), '[]')
                    FROM (SELECT spcname, pg_tablespace_location(oid) AS location FROM pg_tablespace) AS of
                    WHERE location LIKE '/%'),
    'prepared', (SELECT coalesce(jsonb_agg(gid ORDER BY prepared), '[]')
                 FROM (SELECT gid, prepared FROM pg_prepared_xacts WHERE prepared < now() - interval '1 hour' LIMIT 5) AS old),
    'reads_files', has_function_privilege('pg_ls_dir(text, boolean, boolean)', 'EXECUTE')
                   AND has_function_privilege('pg_stat_file(text, boolean)', 'EXECUTE')
                   AND has_function_privilege('pg_read_binary_file(text, bigint, bigint, boolean)', 'EXECUTE'))::text";

/// Which of the tables there are, and may be read.
const SCHEMA: &str = "
SELECT jsonb_build_array(
    to_regclass('pgbaton.schema_version') IS NOT NULL
        AND has_schema_privilege('pgbaton', 'USAGE') AND has_table_privilege('pgbaton.schema_version', 'SELECT'),
    to_regclass('pgbaton.epoch') IS NOT NULL
        AND has_schema_privilege('pgbaton', 'USAGE') AND has_table_privilege('pgbaton.epoch', 'SELECT'),
    CASE WHEN to_regnamespace('pgbaton') IS NULL THEN has_database_privilege(current_database(), 'CREATE')
         ELSE has_schema_privilege('pgbaton', 'CREATE') END)::text";

const SCHEMA_VERSION: &str = "SELECT to_jsonb(max(version))::text FROM pgbaton.schema_version";
const LAST_EPOCH: &str = "SELECT to_jsonb(max(epoch))::text FROM pgbaton.epoch";

/// `$1`: how many.
const IN_DATABASES: &str = "
SELECT coalesce(jsonb_agg(datname), '[]')::text
FROM (SELECT datname FROM pg_database WHERE datallowconn AND has_database_privilege(oid, 'CONNECT') ORDER BY datname LIMIT $1) AS of";

/// `$1`: how many.
const UNLOGGED: &str = "
SELECT coalesce(jsonb_agg(name), '[]')::text
FROM (SELECT format('%I.%I', nspname, relname) AS name FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace
      WHERE relpersistence = 'u' AND relkind IN ('r', 'p') ORDER BY 1 LIMIT $1) AS of";

/// One visit, with one deadline for all of it.
struct Visit<'a> {
    node: &'a NodeId,
    client: Client,
    deadline: Instant,
}

impl Visit<'_> {
    async fn ask<T: DeserializeOwned>(&self, sql: &str) -> Result<T, NodeError> {
        self.ask_with(sql, &[]).await
    }

    async fn ask_with<T: DeserializeOwned>(
        &self,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<T, NodeError> {
        let rows = timeout_at(self.deadline, self.client.query_typed(sql, values)).await;
        let rows = rows.map_err(|_| NodeError::Timeout { node: self.node.clone(), after: LIMIT })?;
        let rows = rows.map_err(|error| refusal(self.node, &error))?;
        let odd =
            |reason: String| NodeError::Refused { node: self.node.clone(), message: reason, sqlstate: "XX000".into() };
        let row = rows.first().ok_or_else(|| odd("the answer to a question of ours is empty".into()))?;
        let text: Option<&str> = row.try_get(0).map_err(|error| refusal(self.node, &error))?;
        serde_json::from_str(text.unwrap_or("null")).map_err(|error| odd(format!("an answer cannot be read: {error}")))
    }

    /// What is not answered leaves a gap.
    async fn or_gap<T: DeserializeOwned + Default>(&self, gaps: &mut Vec<String>, sql: &str) -> T {
        self.ask(sql).await.unwrap_or_else(|error| {
            gaps.push(error.to_string());
            T::default()
        })
    }
}

impl Control {
    /// Everything the doctor asks of one node; why it cannot be asked else.
    pub async fn survey(&self, node: &NodeId) -> Result<Box<Survey>, Unseen> {
        let unseen = |error: NodeError| {
            let (reason, sqlstate) = match &error {
                NodeError::Refused { message, sqlstate, .. } => (message.clone(), sqlstate.clone()),
                NodeError::Unreachable { reason, .. } => (reason.clone(), String::new()),
                NodeError::Timeout { after, .. } => {
                    (format!("no answer within {} s", after.as_secs_f64()), String::new())
                }
                other => (other.to_string(), String::new()),
            };
            let lacks_password = sqlstate.is_empty() && reason.contains("password missing");
            Unseen { reason, sqlstate, lacks_password }
        };
        let keeper = self.inner.keeper(node).map_err(unseen)?;
        let survey = self.visit(&keeper).await;
        survey.map_err(unseen)
    }

    async fn visit(&self, keeper: &Keeper) -> Result<Box<Survey>, NodeError> {
        let node = &keeper.address.id;
        let deadline = Instant::now() + LIMIT;
        let opening = self.inner.config.probe_timeout.max(ROLE_DEADLINE);
        let database = &self.inner.config.database;
        let link = self.inner.connect(keeper, database, OPTIONS, opening).await?;
        let visit = Visit { node, client: link.client, deadline };
        let begun = (Instant::now(), SystemTime::now());
        let mut basics: Basics = visit.ask(BASICS).await?;
        let took = begun.0.elapsed();
        // Halfway between question and answer.
        let ours = begun.1 + took / 2;
        let ours = ours.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let mut gaps = Vec::new();
        if basics.major() >= 16 {
            basics.login = visit.or_gap(&mut gaps, LOGIN).await;
        }
        let names: Vec<&str> = ASKED.to_vec();
        let settings = visit.ask_with(SETTINGS, &[(&names, Type::TEXT_ARRAY)]).await?;
        let may: (bool, bool) = visit.or_gap(&mut gaps, MAY_READ_FILES).await;
        let hba = if may.0 { Some(visit.or_gap(&mut gaps, HBA).await) } else { None };
        let file_errors = if may.1 { Some(visit.or_gap(&mut gaps, FILE_ERRORS).await) } else { None };
        let upstream = match visit.ask::<String>(CONNINFO).await {
            Ok(text) => upstream(&text),
            // It may be seen by some only.
            Err(error) => Upstream { trouble: Some(error.to_string()), ..Upstream::default() },
        };
        let mut survey = Box::new(Survey {
            ahead_ms: basics.now_ms - ours,
            uncertain_ms: took.as_millis() as u64 / 2 + 1,
            // A right that is missing is among the rights.
            identity: visit.ask(IDENTITY).await.ok(),
            settings,
            upstream,
            replication: visit.or_gap(&mut gaps, REPLICATION).await,
            slots: visit.or_gap(&mut gaps, SLOTS).await,
            archiver: visit.or_gap(&mut gaps, ARCHIVER).await,
            hba,
            file_errors,
            roles: visit.or_gap(&mut gaps, ROLES).await,
            role_settings: visit.or_gap(&mut gaps, ROLE_SETTINGS).await,
            things: visit.or_gap(&mut gaps, THINGS).await,
            ..Survey::default()
        });
        survey.lacks = self.lacks(&visit, &mut gaps).await;
        let (has_version, has_epoch, is_ours): (bool, bool, bool) = visit.or_gap(&mut gaps, SCHEMA).await;
        survey.schema.is_ours = is_ours;
        if has_version {
            survey.schema.version = visit.or_gap(&mut gaps, SCHEMA_VERSION).await;
        }
        if has_epoch {
            survey.schema.epoch = visit.or_gap(&mut gaps, LAST_EPOCH).await;
        }
        if !basics.is_in_recovery {
            survey.unlogged = self.unlogged(keeper, &visit, &mut gaps).await;
        }
        (survey.basics, survey.gaps) = (basics, gaps);
        Ok(survey)
    }

    async fn lacks(&self, visit: &Visit<'_>, gaps: &mut Vec<String>) -> Vec<Lack> {
        match timeout_at(visit.deadline, rights::of(visit.node, &visit.client)).await {
            Ok(Ok(lacks)) => lacks,
            Ok(Err(error)) => {
                gaps.push(error.to_string());
                Vec::new()
            }
            Err(_) => {
                gaps.push(NodeError::Timeout { node: visit.node.clone(), after: LIMIT }.to_string());
                Vec::new()
            }
        }
    }

    /// In each database by itself, as a catalog is one database's.
    async fn unlogged(
        &self,
        keeper: &Keeper,
        visit: &Visit<'_>,
        gaps: &mut Vec<String>,
    ) -> BTreeMap<String, Vec<String>> {
        let databases = visit.ask_with::<Vec<String>>(IN_DATABASES, &[(&DATABASES, Type::INT8)]).await;
        let databases = databases.unwrap_or_else(|error| {
            gaps.push(error.to_string());
            Vec::new()
        });
        let mut found = BTreeMap::new();
        for database in databases {
            let limit = visit.deadline.saturating_duration_since(Instant::now());
            // One that does not let us in has its reasons.
            let Ok(link) = self.inner.connect(keeper, &database, OPTIONS, limit).await else { continue };
            let there = Visit { node: visit.node, client: link.client, deadline: visit.deadline };
            if let Ok(tables) = there.ask_with::<Vec<String>>(UNLOGGED, &[(&TABLES, Type::INT8)]).await
                && !tables.is_empty()
            {
                found.insert(database, tables);
            }
        }
        found
    }
}

/// What may be told of a connection string.
fn upstream(text: &str) -> Upstream {
    if text.trim().is_empty() {
        return Upstream { is_empty: true, ..Upstream::default() };
    }
    let conninfo = match Conninfo::parse(text) {
        Ok(conninfo) => conninfo,
        Err(error) => return Upstream { trouble: Some(error.to_string()), ..Upstream::default() },
    };
    let get = |key: &str| conninfo.get(key).filter(|value| !value.is_empty()).map(str::to_owned);
    Upstream {
        is_empty: false,
        trouble: None,
        is_address: text.starts_with("postgres://") || text.starts_with("postgresql://"),
        is_recruited: recruit::recruited_for(&conninfo).is_some(),
        host: get("host").or_else(|| get("hostaddr")),
        port: get("port").and_then(|port| port.parse().ok()),
        user: get("user"),
        application_name: get("application_name"),
        has_password: get("password").is_some(),
        has_database: get("dbname").is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_is_told_without_its_password() {
        let told = upstream("host=h port=5 user=r password='s3 cret' application_name=n2");
        assert_eq!((told.host.as_deref(), told.port, told.user.as_deref()), (Some("h"), Some(5), Some("r")));
        assert!(told.has_password && !told.is_address && !told.has_database && !told.is_recruited);
        assert!(!format!("{told:?}").contains("s3"), "{told:?}");
        let address = upstream("postgresql://r:s3cret@h:5/?application_name=n2");
        assert!(address.is_address && address.has_password && !format!("{address:?}").contains("s3"));
        assert!(upstream(" ").is_empty);
        assert!(upstream("host='s3").trouble.is_some_and(|trouble| !trouble.contains("s3")));
    }
}
