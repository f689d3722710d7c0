//! Questions to nodes, asked as the control user over one kept connection per node.
//!
//! The SQL in here is all that pgbaton asks a node for itself: what it is (`status`), how a role proves who it is (`role`)
//! and whether the control user may ask (`check_rights`). Connections live in the runtime in which [`Control`] was made,
//! whoever asks, are opened when first needed and again after they broke; everything has a deadline, because a frozen
//! server never refuses.

mod commits;
mod roles;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::types::{PgLsn, ToSql, Type};
use tokio_postgres::{Client, NoTls, Row, Statement};

pub use self::commits::Outcome;
pub use self::roles::RoleRecord;
use self::roles::Roles;
use crate::auth::Secret;
use crate::net::{NodeTls, dial_tls};
use crate::types::{Lsn, NodeAddress, NodeId, Timeline, Topology};

/// How pgbaton's own connections call themselves in `pg_stat_activity`.
pub const APPLICATION_NAME: &str = "pgbaton control";

/// How long a login waits for the answer about its role.
pub const ROLE_DEADLINE: Duration = Duration::from_secs(2);

/// Timeline: on a primary that of the WAL it writes, on a standby that of the WAL it receives or last recovered from. The
/// control file alone is not enough: its value changes only at the next checkpoint after a promotion.
const STATUS: &str = "
SELECT in_recovery,
       CASE WHEN in_recovery THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
            ELSE pg_current_wal_lsn() END,
       CASE WHEN in_recovery THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
       CASE WHEN in_recovery
            THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                          (SELECT timeline_id FROM pg_control_checkpoint()))::bigint
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END,
       (SELECT system_identifier FROM pg_control_system())
FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) AS now";

/// How far a node is, asked often and therefore in as few words as can be.
const POSITION: &str = "
SELECT in_recovery,
       CASE WHEN in_recovery THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END,
       CASE WHEN in_recovery THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END,
       pg_size_bytes(current_setting('wal_segment_size')),
       (extract(epoch FROM current_setting('wal_writer_delay')::interval) * 1000)::bigint
FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) AS now";

/// A transaction of its own, with a number: its commit brings all of the log before it to disk, from where standbys get it.
const FLUSH: &str = "SELECT pg_current_xact_id()::text";

const RIGHTS: &str = "
SELECT has_column_privilege('pg_catalog.pg_authid', 'rolname', 'SELECT')
       AND has_column_privilege('pg_catalog.pg_authid', 'rolpassword', 'SELECT')
       AND has_column_privilege('pg_catalog.pg_authid', 'rolvaliduntil', 'SELECT')
       AND has_column_privilege('pg_catalog.pg_authid', 'rolcanlogin', 'SELECT'),
       has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'),
       has_function_privilege('pg_catalog.pg_control_checkpoint()', 'EXECUTE'),
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
       current_user::text";

const CONSOLE: &str = "
SELECT pg_has_role(oid, 'pg_monitor', 'MEMBER'),
       rolsuper OR EXISTS (SELECT FROM pg_roles AS admin
                           WHERE admin.rolname = 'pgbaton_admin' AND pg_has_role(role.oid, admin.oid, 'MEMBER'))
FROM pg_roles AS role WHERE rolname = $1";

#[derive(Clone, Debug, thiserror::Error)]
pub enum NodeError {
    #[error("node {node}: {reason}")]
    Unreachable { node: NodeId, reason: String },
    /// The node answered, and the answer is an error.
    #[error("node {node}: {message} ({sqlstate})")]
    Refused { node: NodeId, message: String, sqlstate: String },
    #[error("node {node}: no answer within {} ms", after.as_millis())]
    Timeout { node: NodeId, after: Duration },
    #[error("no node is known to be the primary{}{reason}", if reason.is_empty() { "" } else { ": " })]
    NoPrimary { reason: String },
    #[error("no node is named {0}")]
    Unknown(NodeId),
    #[error("too many logins wait for an answer from the primary")]
    Overloaded,
}

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    pub is_in_recovery: bool,
    pub timeline: Timeline,
    /// Written on a primary; received or replayed, whichever is further, on a standby.
    pub lsn: Lsn,
    /// Replayed on a standby; the same as `lsn` on a primary.
    pub replayed: Lsn,
    pub system_identifier: u64,
}

/// How far a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePosition {
    pub is_in_recovery: bool,
    /// On a primary the end of what is inserted: with `synchronous_commit = off` a commit may be acknowledged, and seen by
    /// others, before it is written. On a standby the end of what is replayed.
    pub lsn: Lsn,
    /// On a primary the end of what is on disk, which is what standbys can get; on a standby the same as `lsn`.
    pub flushed: Lsn,
    pub segment_bytes: u64,
    /// `wal_writer_delay`: a commit of that kind is on disk after three times as long at the latest.
    pub writer_delay: Duration,
}

/// How to reach the nodes as the control user.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Each node with the control user's password there, if one is needed.
    pub nodes: Vec<(Arc<NodeAddress>, Option<Secret>)>,
    pub user: String,
    pub database: String,
    pub tls: Arc<NodeTls>,
    /// For one question, connecting included: `failover.probe_timeout`.
    pub probe_timeout: Duration,
}

/// The keeper of the control connections. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    inner: Arc<Inner>,
    roles: Roles,
}

struct Inner {
    config: ControlConfig,
    nodes: HashMap<NodeId, Keeper>,
    topology: watch::Receiver<Arc<Topology>>,
    runtime: Handle,
}

/// One node and the connection to it, if there is one.
struct Keeper {
    address: Arc<NodeAddress>,
    password: Option<Secret>,
    client: Mutex<Option<Arc<Kept>>>,
}

/// A connection and the questions it has been asked before: planning one costs the server more than answering it.
struct Kept {
    client: Client,
    prepared: std::sync::Mutex<HashMap<&'static str, Statement>>,
}

impl Kept {
    async fn query(
        &self,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let known = || self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known().get(sql).cloned();
        let statement = match found {
            Some(statement) => statement,
            None => {
                let types: Vec<Type> = parameters.iter().map(|(_, of)| of.clone()).collect();
                let statement = self.client.prepare_typed(sql, &types).await?;
                known().insert(sql, statement.clone());
                statement
            }
        };
        let values: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|(value, _)| *value).collect();
        self.client.query(&statement, &values).await
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("nodes", &self.inner.nodes.keys()).finish()
    }
}

impl Control {
    /// Must be called in the runtime that shall carry the connections; it has to live as long as this.
    pub fn new(config: ControlConfig, topology: watch::Receiver<Arc<Topology>>) -> Control {
        let keeper = |(address, password): &(Arc<NodeAddress>, Option<Secret>)| {
            let keeper = Keeper { address: address.clone(), password: password.clone(), client: Mutex::new(None) };
            (address.id.clone(), keeper)
        };
        let nodes = config.nodes.iter().map(keeper).collect();
        let runtime = Handle::current();
        let inner = Arc::new(Inner { config, nodes, topology, runtime: runtime.clone() });
        let (questions, asked) = mpsc::channel(roles::MAX_WAITING);
        runtime.spawn(roles::answer(inner.clone(), asked));
        Control { inner, roles: Roles::new(questions) }
    }

    /// How a role proves who it is, as the primary has it now; `None` if it has no such role. When the primary cannot be
    /// asked, what it said last time counts.
    pub async fn role(&self, name: &str) -> Result<Option<Arc<RoleRecord>>, NodeError> {
        self.roles.ask(name, Instant::now() + ROLE_DEADLINE).await
    }

    /// Asks one node what it is.
    pub async fn status(&self, node: &NodeId) -> Result<NodeStatus, NodeError> {
        let keeper = self.inner.nodes.get(node).ok_or_else(|| NodeError::Unknown(node.clone()))?;
        let row = self.inner.ask_one(keeper, STATUS, self.inner.config.probe_timeout).await?;
        let bad = |error: tokio_postgres::Error| refusal(node, &error);
        Ok(NodeStatus {
            is_in_recovery: row.try_get(0).map_err(bad)?,
            lsn: Lsn(row.try_get::<_, Option<PgLsn>>(1).map_err(bad)?.map_or(0, u64::from)),
            replayed: Lsn(row.try_get::<_, Option<PgLsn>>(2).map_err(bad)?.map_or(0, u64::from)),
            // Timelines are 32 bits without sign, which SQL has no type for.
            timeline: Timeline(row.try_get::<_, Option<i64>>(3).map_err(bad)?.unwrap_or(0) as u32),
            // PostgreSQL shows this unsigned number as a signed one.
            system_identifier: row.try_get::<_, i64>(4).map_err(bad)? as u64,
        })
    }

    /// Asks one node how far it is.
    pub async fn position(&self, node: &NodeId) -> Result<NodePosition, NodeError> {
        let keeper = self.inner.nodes.get(node).ok_or_else(|| NodeError::Unknown(node.clone()))?;
        let row = self.inner.ask_one(keeper, POSITION, self.inner.config.probe_timeout).await?;
        let bad = |error: tokio_postgres::Error| refusal(node, &error);
        let lsn = |column| {
            Ok::<_, NodeError>(Lsn(row.try_get::<_, Option<PgLsn>>(column).map_err(bad)?.map_or(0, u64::from)))
        };
        Ok(NodePosition {
            is_in_recovery: row.try_get(0).map_err(bad)?,
            lsn: lsn(1)?,
            flushed: lsn(2)?,
            segment_bytes: row.try_get::<_, i64>(3).map_err(bad)?.unsigned_abs(),
            writer_delay: Duration::from_millis(row.try_get::<_, i64>(4).map_err(bad)?.unsigned_abs()),
        })
    }

    /// Has a primary write out its log up to now.
    pub async fn flush_log(&self, node: &NodeId) -> Result<(), NodeError> {
        let keeper = self.inner.nodes.get(node).ok_or_else(|| NodeError::Unknown(node.clone()))?;
        self.inner.ask_one(keeper, FLUSH, self.inner.config.probe_timeout).await.map(|_| ())
    }

    /// Whether a role may look (member of `pg_monitor`) and act (member of `pgbaton_admin`, or superuser) in the console.
    pub async fn console_right(&self, role: &str) -> Result<(bool, bool), NodeError> {
        let primary = self.inner.primary(Instant::now() + ROLE_DEADLINE).await?;
        let keeper = self.inner.nodes.get(&primary).ok_or_else(|| NodeError::Unknown(primary.clone()))?;
        let rows = self.inner.ask(keeper, CONSOLE, &[(&role, Type::TEXT)], ROLE_DEADLINE).await?;
        let bad = |error: tokio_postgres::Error| refusal(&primary, &error);
        match rows.first() {
            Some(row) => Ok((row.try_get(0).map_err(bad)?, row.try_get(1).map_err(bad)?)),
            None => Ok((false, false)),
        }
    }

    /// A connection of its own to a database on the current primary, as the control user.
    pub async fn client_for(&self, database: &str) -> Result<Client, NodeError> {
        let inner = self.inner.clone();
        let limit = self.inner.config.probe_timeout.max(ROLE_DEADLINE);
        let primary = inner.primary(Instant::now() + limit).await?;
        let database = database.to_owned();
        let keeper = inner.nodes.get(&primary).ok_or_else(|| NodeError::Unknown(primary.clone()))?;
        inner.connect(keeper, &database, None, limit).await
    }

    /// What the control user lacks on the primary, each as a sentence that says how to grant it. Empty: nothing.
    pub async fn check_rights(&self) -> Result<Vec<String>, NodeError> {
        let limit = self.inner.config.probe_timeout.max(ROLE_DEADLINE);
        let primary = self.inner.primary(Instant::now() + limit).await?;
        let keeper = self.inner.nodes.get(&primary).ok_or_else(|| NodeError::Unknown(primary.clone()))?;
        let row = self.inner.ask_one(keeper, RIGHTS, limit).await?;
        let bad = |error: tokio_postgres::Error| refusal(&primary, &error);
        let user = row.try_get::<_, String>(4).map_err(bad)?;
        let grants = [
            (0, "read pg_authid, so nobody can log in by password", "GRANT SELECT ON pg_authid TO"),
            (
                1,
                "call pg_control_system(), so nodes cannot be checked",
                "GRANT EXECUTE ON FUNCTION pg_control_system() TO",
            ),
            (
                2,
                "call pg_control_checkpoint(), so nodes cannot be checked",
                "GRANT EXECUTE ON FUNCTION pg_control_checkpoint() TO",
            ),
            (3, "see the WAL receiver, so a standby's timeline is seen late", "GRANT pg_read_all_stats TO"),
        ];
        let mut missing = Vec::new();
        for (column, lack, grant) in grants {
            if !row.try_get::<_, bool>(column).map_err(bad)? {
                missing.push(format!(
                    "the control user \"{user}\" cannot {lack}; run as superuser in database \"{}\": {grant} \"{user}\"",
                    self.inner.config.database
                ));
            }
        }
        Ok(missing)
    }
}

impl Inner {
    /// The primary, waiting for one until the deadline: right after the start nobody has looked yet.
    async fn primary(&self, deadline: Instant) -> Result<NodeId, NodeError> {
        let mut topology = self.topology.clone();
        if let Ok(Ok(seen)) = timeout_at(deadline, topology.wait_for(|seen| seen.primary().is_some())).await
            && let Some(primary) = seen.primary()
        {
            return Ok(primary.address.id.clone());
        }
        Err(NodeError::NoPrimary { reason: self.topology.borrow().reason.clone() })
    }

    async fn ask_one(&self, keeper: &Keeper, sql: &'static str, limit: Duration) -> Result<Row, NodeError> {
        let mut rows = self.ask(keeper, sql, &[], limit).await?;
        rows.pop().ok_or_else(|| NodeError::Unreachable {
            node: keeper.address.id.clone(),
            reason: "the answer to a question of ours is empty; is this PostgreSQL?".into(),
        })
    }

    /// One question over the kept connection. One that broke while it was idle is replaced and asked once more; one that
    /// does not answer in time is thrown away.
    async fn ask(
        &self,
        keeper: &Keeper,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
        limit: Duration,
    ) -> Result<Vec<Row>, NodeError> {
        let node = &keeper.address.id;
        let deadline = Instant::now() + limit;
        let late = || NodeError::Timeout { node: node.clone(), after: limit };
        let mut may_retry = true;
        loop {
            let (client, is_fresh) = match timeout_at(deadline, self.client(keeper, limit)).await {
                Err(_) => return Err(late()),
                Ok(client) => client?,
            };
            match timeout_at(deadline, client.query(sql, parameters)).await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(error)) if is_lost(&error) || client.client.is_closed() => {
                    keeper.forget(&client).await;
                    if is_fresh || !may_retry {
                        return Err(refusal(node, &error));
                    }
                    may_retry = false;
                }
                Ok(Err(error)) => return Err(refusal(node, &error)),
                Err(_) => {
                    keeper.forget(&client).await;
                    return Err(late());
                }
            }
        }
    }

    /// The kept connection, and whether it was opened just now.
    async fn client(&self, keeper: &Keeper, limit: Duration) -> Result<(Arc<Kept>, bool), NodeError> {
        let mut kept = keeper.client.lock().await;
        if let Some(client) = kept.as_ref().filter(|known| !known.client.is_closed()) {
            return Ok((client.clone(), false));
        }
        *kept = None;
        let client = self.connect(keeper, &self.config.database, Some("pg_catalog"), limit).await?;
        let client = Arc::new(Kept { client, prepared: Default::default() });
        *kept = Some(client.clone());
        Ok((client, true))
    }

    /// With a `search_path` of its own, so that nothing a database's owner puts into its public schema can stand in for
    /// what is meant; without one for who wants to know which path others get, and qualifies all names.
    async fn connect(
        &self,
        keeper: &Keeper,
        database: &str,
        search_path: Option<&str>,
        limit: Duration,
    ) -> Result<Client, NodeError> {
        let address = keeper.address.clone();
        let node = address.id.clone();
        let mut settings = tokio_postgres::Config::new();
        settings.user(&self.config.user).dbname(database).application_name(APPLICATION_NAME);
        let path = search_path.map_or(String::new(), |path| format!("-c search_path={path} "));
        // What is written on this connection, nobody waits for a standby to have.
        settings.options(format!("{path}-c default_transaction_read_only=off -c synchronous_commit=local"));
        settings.ssl_mode(tokio_postgres::config::SslMode::Disable);
        if let Some(password) = &keeper.password {
            settings.password(password.reveal());
        }
        let tls = self.config.tls.clone();
        let opening = async move {
            // TLS is ours already when tokio-postgres gets the stream, so that every mode means what it means elsewhere.
            let stream = dial_tls(&address, &tls, limit).await.map_err(|error| NodeError::Unreachable {
                node: address.id.clone(),
                reason: format!("{}:{}: {error}", address.host, address.port),
            })?;
            let (client, connection) =
                settings.connect_raw(stream, NoTls).await.map_err(|error| refusal(&address.id, &error))?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(node = %address.id, %error, "control connection ended");
                }
            });
            Ok(client)
        };
        // In our own runtime: the worker that asks may be gone before the connection is.
        let mut task = self.runtime.spawn(opening);
        match timeout(limit, &mut task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(NodeError::Unreachable { node, reason: error.to_string() }),
            Err(_) => {
                task.abort();
                Err(NodeError::Timeout { node, after: limit })
            }
        }
    }
}

impl Keeper {
    /// Unless somebody has replaced it already.
    async fn forget(&self, client: &Arc<Kept>) {
        let mut kept = self.client.lock().await;
        if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, client)) {
            *kept = None;
        }
    }
}

/// Whether the connection is gone: without a word, or with one that says so (57P01 and 57P02, the server ends it).
fn is_lost(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_none_or(|said| matches!(said.code().code(), "57P01" | "57P02" | "57P03"))
}

fn refusal(node: &NodeId, error: &tokio_postgres::Error) -> NodeError {
    use std::error::Error;
    match error.as_db_error() {
        Some(refused) => NodeError::Refused {
            node: node.clone(),
            message: refused.message().to_owned(),
            sqlstate: refused.code().code().to_owned(),
        },
        None => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            NodeError::Unreachable { node: node.clone(), reason: format!("{error}{cause}") }
        }
    }
}
