//! The connections to the nodes: opened when first needed and again after they broke, kept as long as they are whole.
//!
//! Each node has one [`Line`] for each kind of question, so that none waits behind another that hangs: a disk that stands
//! still stops what is written, and must not stop what is asked. Long work gets a connection of its own (`work.rs`).

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::error::Severity;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, NoTls, Row, Statement};

use super::error::{is_lost, refusal, undialled};
use super::roster::Roster;
use super::{APPLICATION_NAME, ControlConfig, NodeError};
use crate::auth::Secret;
use crate::cluster::{Symptom, SyncNames};
use crate::net::dial_tls;
use crate::types::{Epoch, Lsn, NodeAddress, NodeId, Timeline, Topology};

/// What a connection is opened with. A `search_path` of our own, so that nothing a database's owner puts into its public
/// schema can stand in for what is meant. What is written on it, nobody waits for a standby to have.
const OURS: &str = "-c search_path=pg_catalog -c default_transaction_read_only=off -c synchronous_commit=local";

/// Without the `search_path`, for who wants to know which one others get, and qualifies all names.
pub(super) const AS_OTHERS: &str = "-c default_transaction_read_only=off -c synchronous_commit=local";

/// The server's own `default_transaction_read_only` stays visible in it. Warnings are wanted: one of them says that a commit
/// is less than it seems.
pub(super) const PLAIN: &str =
    "-c search_path=pg_catalog -c synchronous_commit=local -c client_min_messages=warning -c statement_timeout=0";

/// Kinds of questions, each with a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Line {
    /// For the data plane: roles, positions.
    Questions,
    Probes,
    /// What is short and writes: it hangs with the disk.
    Writes,
}

const LINES: usize = 3;

impl Line {
    fn options(self) -> &'static str {
        match self {
            Line::Questions | Line::Writes => OURS,
            Line::Probes => PLAIN,
        }
    }
}

pub(super) struct Inner {
    pub config: ControlConfig,
    pub roster: ArcSwap<Roster>,
    pub topology: watch::Receiver<Arc<Topology>>,
    pub runtime: Handle,
}

/// One node, the connections to it as far as there are some, and what is remembered of it.
pub(super) struct Keeper {
    pub address: Arc<NodeAddress>,
    password: std::sync::Mutex<Option<Secret>>,
    lines: [Mutex<Option<Arc<Kept>>>; LINES],
    /// For the next piece of work.
    aside: std::sync::Mutex<Option<Link>>,
    memory: std::sync::Mutex<Memory>,
}

/// What a node has said and will not say again.
#[derive(Default)]
pub(super) struct Memory {
    /// The highest timeline received since its checkpointer was started then. A WAL receiver that is gone takes it along,
    /// and the control file learns of it late.
    pub received: Option<(u64, Timeline)>,
    pub last_epoch: Option<Epoch>,
    /// The table of epochs did not answer (somebody has locked it): it is left alone until then.
    pub epoch_rests_until: Option<Instant>,
    /// Where the timeline began that the node was promoted to before our eyes.
    pub fork: Option<(Timeline, Lsn)>,
    /// A transaction id that is known to be on its disk, of a time as a primary since its checkpointer was started then. What
    /// was handed out in that time up to it will not be handed out again.
    pub durable_xid: Option<(u64, u64)>,
    /// `synchronous_standby_names` that were seen in force in every WAL sender, since its checkpointer was started then.
    pub confirmed: Option<(u64, SyncNames)>,
    /// Complaints that were made once.
    pub said: HashSet<String>,
}

/// A connection to a node.
pub(super) struct Link {
    pub client: Client,
    /// A WARNING has come.
    pub warned: Arc<AtomicBool>,
    /// 15 for 15.4.
    pub major_version: u32,
    /// Of the task that carries it: it goes on for as long as an answer is due, on a frozen server for ever.
    task: AbortHandle,
}

/// A connection and the questions it has been asked before: planning one costs the server more than answering it.
pub(super) struct Kept {
    link: Link,
    prepared: std::sync::Mutex<HashMap<&'static str, Statement>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.link.end();
    }
}

impl Link {
    /// Closes it, whatever is still due on it.
    pub fn end(&self) {
        self.task.abort();
    }
}

impl Kept {
    /// Closes it: what comes next opens another.
    pub fn give_up(&self) {
        self.link.end();
    }

    pub async fn query(
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
                let statement = self.link.client.prepare_typed(sql, &types).await?;
                known().insert(sql, statement.clone());
                statement
            }
        };
        let values: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|(value, _)| *value).collect();
        self.link.client.query(&statement, &values).await
    }
}

impl Inner {
    /// The primary, waiting for one until the deadline: right after the start nobody has looked yet.
    pub async fn primary(&self, deadline: Instant) -> Result<NodeId, NodeError> {
        let mut topology = self.topology.clone();
        if let Ok(Ok(seen)) = timeout_at(deadline, topology.wait_for(|seen| seen.primary().is_some())).await
            && let Some(primary) = seen.primary()
        {
            return Ok(primary.address.id.clone());
        }
        Err(NodeError::NoPrimary { reason: self.topology.borrow().reason.clone() })
    }

    pub async fn ask_one(
        &self,
        keeper: &Keeper,
        line: Line,
        sql: &'static str,
        limit: Duration,
    ) -> Result<Row, NodeError> {
        let mut rows = self.ask(keeper, line, sql, &[], limit).await?;
        rows.pop().ok_or_else(|| keeper.odd("the answer to a question of ours is empty; is this PostgreSQL?"))
    }

    pub async fn ask(
        &self,
        keeper: &Keeper,
        line: Line,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
        limit: Duration,
    ) -> Result<Vec<Row>, NodeError> {
        Ok(self.ask_over(keeper, line, sql, parameters, limit).await?.0)
    }

    /// One question over the kept connection, and which one that was. One that broke while it was idle is replaced and asked
    /// once more; one that does not answer in time is thrown away.
    pub async fn ask_over(
        &self,
        keeper: &Keeper,
        line: Line,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
        limit: Duration,
    ) -> Result<(Vec<Row>, Arc<Kept>), NodeError> {
        let node = &keeper.address.id;
        let deadline = Instant::now() + limit;
        let late = || NodeError::Timeout { node: node.clone(), after: limit };
        let mut may_retry = true;
        loop {
            let (kept, is_fresh) = match timeout_at(deadline, self.kept(keeper, line, limit)).await {
                Err(_) => return Err(late()),
                Ok(kept) => kept?,
            };
            match timeout_at(deadline, kept.query(sql, parameters)).await {
                Ok(Ok(rows)) => return Ok((rows, kept)),
                Ok(Err(error)) if is_lost(&error) || kept.link.client.is_closed() => {
                    keeper.forget(line, &kept).await;
                    if is_fresh || !may_retry {
                        return Err(refusal(node, &error));
                    }
                    may_retry = false;
                }
                Ok(Err(error)) => return Err(refusal(node, &error)),
                Err(_) => {
                    keeper.forget(line, &kept).await;
                    return Err(late());
                }
            }
        }
    }

    /// The kept connection, and whether it was opened just now.
    async fn kept(&self, keeper: &Keeper, line: Line, limit: Duration) -> Result<(Arc<Kept>, bool), NodeError> {
        let mut slot = keeper.lines[line as usize].lock().await;
        if let Some(kept) = slot.as_ref().filter(|known| !known.link.client.is_closed()) {
            return Ok((kept.clone(), false));
        }
        *slot = None;
        let link = self.connect(keeper, &self.config.database, line.options(), limit).await?;
        let kept = Arc::new(Kept { link, prepared: Default::default() });
        *slot = Some(kept.clone());
        Ok((kept, true))
    }

    /// A new connection with these options of the server.
    pub async fn connect(
        &self,
        keeper: &Keeper,
        database: &str,
        options: &str,
        limit: Duration,
    ) -> Result<Link, NodeError> {
        let address = keeper.address.clone();
        let node = address.id.clone();
        let mut settings = tokio_postgres::Config::new();
        settings.user(&self.config.user).dbname(database).application_name(APPLICATION_NAME).options(options);
        settings.ssl_mode(tokio_postgres::config::SslMode::Disable);
        if let Some(password) = keeper.password() {
            settings.password(password.reveal());
        }
        let tls = self.config.tls.clone();
        let opening = async move {
            // TLS is ours already when tokio-postgres gets the stream, so that every mode means what it means elsewhere.
            let stream = dial_tls(&address, &tls, limit)
                .await
                .map_err(|error| undialled(&address.id, &format!("{}:{}", address.host, address.port), &error))?;
            let (client, mut connection) =
                settings.connect_raw(stream, NoTls).await.map_err(|error| refusal(&address.id, &error))?;
            let version = connection.parameter("server_version").unwrap_or_default();
            let major = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            let major_version = major.parse().unwrap_or_default();
            let warned = Arc::new(AtomicBool::new(false));
            let warns = warned.clone();
            let task = tokio::spawn(async move {
                // In the order of their coming: a warning is known before the answer that it precedes.
                while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                    match message {
                        Ok(AsyncMessage::Notice(notice)) if notice.parsed_severity() == Some(Severity::Warning) => {
                            warns.store(true, Ordering::SeqCst);
                        }
                        Ok(_) => {}
                        Err(error) => {
                            tracing::debug!(node = %address.id, %error, "control connection ended");
                            break;
                        }
                    }
                }
            });
            Ok(Link { client, warned, major_version, task: task.abort_handle() })
        };
        // In our own runtime: the worker that asks may be gone before the connection is.
        let mut task = self.runtime.spawn(opening);
        match timeout(limit, &mut task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                Err(NodeError::Unreachable { node, reason: error.to_string(), symptom: Symptom::Rejected })
            }
            Err(_) => {
                task.abort();
                Err(NodeError::Timeout { node, after: limit })
            }
        }
    }
}

impl Keeper {
    pub fn new(address: Arc<NodeAddress>, password: Option<Secret>) -> Keeper {
        let password = std::sync::Mutex::new(password);
        Keeper { address, password, lines: Default::default(), aside: Default::default(), memory: Default::default() }
    }

    pub fn password(&self) -> Option<Secret> {
        self.password.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For connections to come.
    pub fn set_password(&self, password: Option<Secret>) {
        *self.password.lock().unwrap_or_else(PoisonError::into_inner) = password;
    }

    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put_aside(&self, link: Link) {
        let before = self.aside.lock().unwrap_or_else(PoisonError::into_inner).replace(link);
        if let Some(before) = before {
            before.end();
        }
    }

    pub fn take_aside(&self) -> Option<Link> {
        let aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner).take();
        aside.filter(|link| !link.client.is_closed())
    }

    /// Something that no PostgreSQL answers.
    pub fn odd(&self, reason: &str) -> NodeError {
        NodeError::Unreachable { node: self.address.id.clone(), reason: reason.into(), symptom: Symptom::Rejected }
    }

    /// Whether this complaint is made for the first time.
    pub fn is_news(&self, complaint: &str) -> bool {
        self.memory().said.insert(complaint.to_owned())
    }

    /// Unless somebody has replaced it already.
    async fn forget(&self, line: Line, kept: &Arc<Kept>) {
        let mut slot = self.lines[line as usize].lock().await;
        if slot.as_ref().is_some_and(|known| Arc::ptr_eq(known, kept)) {
            *slot = None;
        }
    }
}
