//! pgbaton's own connections to the nodes, as the control user: what a node is, what a role's password verifier is, and
//! whether the control user may see all that.
//!
//! One connection a node is kept; whatever fails on it closes it, and the next question opens another. Every question has
//! a deadline, because a frozen server never refuses. The SQL asked of nodes stands here and in `catalog`, nowhere else.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::{Mutex, watch};
use tokio_postgres::Client;

use crate::auth::Secret;
use crate::net::{DialError, NodeTls, dial_tls};
use crate::types::{Lsn, NodeAddress, NodeId, Timeline, Topology};

/// How long a client at login, or the console, waits for an answer before what was known last is used.
const ASK: Duration = Duration::from_secs(2);

/// How many roles' records are remembered for the time when no primary answers.
const REMEMBERED: usize = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("node {node} ({host}:{port}): {source}")]
    Dial { node: NodeId, host: String, port: u16, source: DialError },
    #[error("node {node}: {}", with_cause(source))]
    Sql { node: NodeId, source: tokio_postgres::Error },
    #[error("node {node}: no answer within {} ms", after.as_millis())]
    Timeout { node: NodeId, after: Duration },
    #[error("node {node}: unexpected answer: {what}")]
    Answer { node: NodeId, what: String },
    #[error("there is no primary to ask")]
    NoPrimary,
}

/// tokio-postgres says only "db error"; what the server said is its cause.
fn with_cause(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        None => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            text
        }
    }
}

/// What a role's line in `pg_authid` says, as far as login needs it.
#[derive(Clone)]
pub struct RoleRecord {
    /// `rolpassword` as stored: a SCRAM verifier, an md5 hash, or nothing.
    pub verifier: Option<Secret>,
    /// `rolvaliduntil` has passed.
    pub is_expired: bool,
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStatus {
    pub is_in_recovery: bool,
    pub timeline: Timeline,
    /// On a primary what it has written, on a standby the greater of received and replayed.
    pub lsn: Lsn,
    pub system_identifier: u64,
}

/// How the control user logs in.
#[derive(Clone)]
pub struct ControlSettings {
    pub user: String,
    pub database: String,
    pub nodes: Vec<(NodeAddress, Option<Secret>)>,
    pub tls: Arc<NodeTls>,
    pub connect_timeout: Duration,
}

struct Kept {
    address: NodeAddress,
    password: Option<Secret>,
    client: Mutex<Option<Arc<Client>>>,
}

pub struct Control {
    user: String,
    database: String,
    tls: Arc<NodeTls>,
    connect_timeout: Duration,
    nodes: Vec<Kept>,
    topology: watch::Receiver<Arc<Topology>>,
    roles: std::sync::Mutex<HashMap<String, Option<RoleRecord>>>,
}

/// The timeline comes from the name of the current WAL file on a primary; a standby's control file has the one of its last
/// restartpoint, so the one it receives is taken if there is one.
const STATUS: &str = "SELECT r, \
    CASE WHEN r THEN greatest((SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver), \
                              (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()))::text \
         ELSE ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int::text END, \
    CASE WHEN r THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()) \
         ELSE pg_catalog.pg_current_wal_lsn() END::text, \
    (SELECT system_identifier FROM pg_catalog.pg_control_system())::text \
    FROM pg_catalog.pg_is_in_recovery() r";

const ROLE: &str = "SELECT rolpassword, rolvaliduntil IS NOT NULL AND rolvaliduntil < now() \
    FROM pg_catalog.pg_authid WHERE rolname = $1";

const RIGHTS: &str = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT'), \
    pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'), \
    pg_catalog.pg_has_role('pg_monitor', 'MEMBER')";

const CONSOLE: &str = "SELECT pg_catalog.pg_has_role(u.oid, 'pg_monitor', 'MEMBER'), \
    u.rolsuper OR EXISTS (SELECT FROM pg_catalog.pg_roles a \
                          WHERE a.rolname = 'pgbaton_admin' AND pg_catalog.pg_has_role(u.oid, a.oid, 'MEMBER')) \
    FROM pg_catalog.pg_roles u WHERE u.rolname = $1";

impl Control {
    pub fn new(settings: ControlSettings, topology: watch::Receiver<Arc<Topology>>) -> Self {
        let ControlSettings { user, database, nodes, tls, connect_timeout } = settings;
        let nodes = nodes
            .into_iter()
            .map(|(address, password)| Kept { address, password, client: Mutex::default() })
            .collect();
        Control { user, database, tls, connect_timeout, nodes, topology, roles: std::sync::Mutex::default() }
    }

    pub fn addresses(&self) -> impl Iterator<Item = &NodeAddress> {
        self.nodes.iter().map(|node| &node.address)
    }

    async fn open(&self, node: &Kept, database: &str) -> Result<Client, NodeError> {
        let address = &node.address;
        let stream = dial_tls(address, &self.tls, self.connect_timeout).await.map_err(|source| NodeError::Dial {
            node: address.id.clone(),
            host: address.host.clone(),
            port: address.port,
            source,
        })?;
        let mut config = tokio_postgres::Config::new();
        config.user(&self.user).dbname(database).application_name("pgbaton control");
        // TLS, if any, has been negotiated already: to tokio-postgres the stream is just a stream.
        config.ssl_mode(tokio_postgres::config::SslMode::Disable);
        if let Some(password) = &node.password {
            config.password(password.reveal());
        }
        let (client, connection) = config
            .connect_raw(stream, tokio_postgres::NoTls)
            .await
            .map_err(|source| NodeError::Sql { node: address.id.clone(), source })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a control connection ended");
            }
        });
        Ok(client)
    }

    /// Asks one node, over its kept connection, within `limit`.
    async fn ask<T>(
        &self,
        node: &Kept,
        limit: Duration,
        question: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, NodeError> {
        let id = node.address.id.clone();
        let conversation = async {
            let client = {
                let mut kept = node.client.lock().await;
                match kept.as_ref().filter(|client| !client.is_closed()) {
                    Some(client) => client.clone(),
                    None => {
                        let client = Arc::new(self.open(node, &self.database).await?);
                        *kept = Some(client.clone());
                        client
                    }
                }
            };
            question(&client).await.map_err(|source| NodeError::Sql { node: id.clone(), source })
        };
        let result = match tokio::time::timeout(limit, conversation).await {
            Ok(result) => result,
            Err(_) => Err(NodeError::Timeout { node: id.clone(), after: limit }),
        };
        // Only an error the server itself reported leaves the connection fit for the next question.
        let keeps = match &result {
            Ok(_) => true,
            Err(NodeError::Sql { source, .. }) => source.as_db_error().is_some() && !source.is_closed(),
            Err(_) => false,
        };
        if !keeps && let Ok(mut kept) = node.client.try_lock() {
            *kept = None;
        }
        result
    }

    fn primary(&self) -> Result<&Kept, NodeError> {
        let topology = self.topology.borrow().clone();
        let id = topology.primary().map(|node| node.address.id.clone()).ok_or(NodeError::NoPrimary)?;
        self.nodes.iter().find(|node| node.address.id == id).ok_or(NodeError::NoPrimary)
    }

    pub async fn status(&self, id: &NodeId, limit: Duration) -> Result<NodeStatus, NodeError> {
        let node = self.nodes.iter().find(|node| node.address.id == *id).ok_or(NodeError::NoPrimary)?;
        let rows = self.ask(node, limit, async |client| client.simple_query(STATUS).await).await?;
        let row = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let column = |at: usize| row.and_then(|row| row.get(at)).unwrap_or_default();
        let answer = |what: &str| NodeError::Answer { node: id.clone(), what: what.to_owned() };
        Ok(NodeStatus {
            is_in_recovery: column(0) == "t",
            timeline: Timeline(column(1).parse().map_err(|_| answer("timeline"))?),
            lsn: column(2).parse().unwrap_or_default(),
            system_identifier: column(3).parse().map_err(|_| answer("system identifier"))?,
        })
    }

    /// A role as the primary knows it now, so that a changed password counts at once. While no primary answers, what was
    /// known last.
    pub async fn role(&self, name: &str) -> Result<Option<RoleRecord>, NodeError> {
        let asked = match self.primary() {
            Ok(node) => self.ask(node, ASK, async |client| client.query_opt(ROLE, &[&name]).await).await,
            Err(error) => Err(error),
        };
        let lock = || self.roles.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match asked {
            Ok(row) => {
                let record = row.map(|row| RoleRecord {
                    verifier: row.get::<_, Option<String>>(0).map(Secret::new),
                    is_expired: row.get(1),
                });
                let mut roles = lock();
                if roles.len() >= REMEMBERED {
                    roles.clear();
                }
                roles.insert(name.to_owned(), record.clone());
                Ok(record)
            }
            Err(error) => match lock().get(name) {
                Some(record) => {
                    tracing::warn!(%error, "login goes by what was last known of the role");
                    Ok(record.clone())
                }
                None => Err(error),
            },
        }
    }

    /// Whether a role may look (member of `pg_monitor`) and act (member of `pgbaton_admin`, or superuser) in the console.
    pub async fn console_right(&self, name: &str) -> Result<(bool, bool), NodeError> {
        let node = self.primary()?;
        let row = self.ask(node, ASK, async |client| client.query_opt(CONSOLE, &[&name]).await).await?;
        Ok(row.map_or((false, false), |row| (row.get(0), row.get(1))))
    }

    /// A connection of its own to one database of the primary.
    pub async fn client_for(&self, database: &str) -> Result<Client, NodeError> {
        self.open(self.primary()?, database).await
    }

    /// What the control user may not do, in words, with the statement that would allow it.
    pub async fn check_rights(&self) -> Result<Vec<String>, NodeError> {
        let node = self.primary()?;
        let row = self.ask(node, ASK, async |client| client.query_one(RIGHTS, &[]).await).await?;
        let user = &self.user;
        let wanted = [
            (0, format!("\"{user}\" cannot read pg_authid, so no client can log in with its role's own password; GRANT SELECT ON pg_catalog.pg_authid TO \"{user}\"")),
            (1, format!("\"{user}\" cannot call pg_control_system(); GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO \"{user}\"")),
            (2, format!("\"{user}\" cannot see replication in full; GRANT pg_monitor TO \"{user}\"")),
        ];
        Ok(wanted.into_iter().filter(|(column, _)| !row.get::<_, bool>(*column)).map(|(_, text)| text).collect())
    }
}
