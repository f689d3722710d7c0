//! A connection of its own for one piece of work on a node, with one deadline for all of it.
//!
//! Nothing else waits behind it. When it is dropped it is put aside for the next piece of work there, as opening one costs
//! more than most of what is done over it; or it is closed, if anything still hangs on it. Here is also how settings are
//! changed: written with ALTER SYSTEM, reloaded, and seen in force.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, PgLsn, ToSql, Type};

use super::NodeError;
use super::error::refusal;
use super::keeper::{Inner, Keeper, Link, PLAIN};
use crate::cluster::{Failure, FailureKind};
use crate::sql::{quote_ident, quote_literal};
use crate::types::{Lsn, NodeId};

/// Between two looks at something that takes milliseconds.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// A connection that was put aside has to answer at once, else a new one is opened.
const STALE_LIMIT: Duration = Duration::from_millis(200);

/// A reload reaches every process of a healthy server within milliseconds.
const RELOAD_LIMIT: Duration = Duration::from_secs(3);

/// What is in force, and where it comes from. `$1`: the names.
const SETTINGS: &str = "
SELECT name, setting, source, coalesce(sourcefile, ''), current_user::text,
       coalesce(current_setting('allow_alter_system', true), 'on') = 'off'
FROM pg_settings WHERE name = ANY ($1)";

const MAY_ALTER: &str =
    "SELECT name FROM unnest($1::text[]) AS name WHERE NOT has_parameter_privilege(name, 'ALTER SYSTEM')";

const IS_SUPERUSER: &str = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";

pub(super) struct Work<'a> {
    keeper: &'a Keeper,
    node: NodeId,
    /// Always there until this is dropped.
    link: Option<Link>,
    limit: Duration,
    deadline: Instant,
    /// Something is under way on it, or went wrong: it cannot serve anybody else.
    is_spoiled: AtomicBool,
    /// It holds the lock of who changes the node, or may: `turn.rs`.
    is_its_turn: AtomicBool,
}

/// What a setting shall be.
#[derive(Clone)]
pub(super) enum Value {
    To(String),
    /// As `postgresql.conf` has it.
    Default,
}

struct Setting {
    name: String,
    value: String,
    source: String,
    file: String,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        match self.is_whole() && !self.is_its_turn.load(Ordering::SeqCst) {
            true => self.keeper.put_aside(link),
            false => link.end(),
        }
    }
}

pub(super) fn refused(node: &NodeId, reason: impl std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Refused, reason: format!("node {node}: {reason}") }
}

impl<'a> Work<'a> {
    pub async fn begin(inner: &Inner, keeper: &'a Keeper, limit: Duration) -> Result<Work<'a>, Failure> {
        let deadline = Instant::now() + limit;
        if let Some(link) = keeper.take_aside() {
            let work = Work::over(keeper, link, limit, deadline);
            // The host may have vanished under it, which nobody would have noticed.
            if matches!(timeout(STALE_LIMIT, work.rows("SELECT", &[])).await, Ok(Ok(_))) {
                return Ok(work);
            }
        }
        // A server that does not let us in by then is not there, however long the work itself may take.
        let opening = inner.config.probe_timeout.max(super::ROLE_DEADLINE).min(limit);
        let link = inner.connect(keeper, &inner.config.database, PLAIN, opening).await?;
        Ok(Work::over(keeper, link, limit, deadline))
    }

    fn over(keeper: &'a Keeper, link: Link, limit: Duration, deadline: Instant) -> Work<'a> {
        let node = keeper.address.id.clone();
        link.warned.store(false, Ordering::SeqCst);
        let (is_spoiled, is_its_turn) = (AtomicBool::new(false), AtomicBool::new(false));
        Work { keeper, node, link: Some(link), limit, deadline, is_spoiled, is_its_turn }
    }

    fn link(&self) -> &Link {
        // Only `drop` takes it.
        self.link.as_ref().unwrap()
    }

    /// It is closed when it is dropped, for what is left on it.
    pub fn spoil(&self) {
        self.is_spoiled.store(true, Ordering::SeqCst);
    }

    /// Nothing hangs on it, and nothing went wrong.
    pub fn is_whole(&self) -> bool {
        !self.is_spoiled.load(Ordering::SeqCst)
    }

    /// For `turn.rs` only: until it is given back, the connection is closed when this is dropped.
    pub fn holds_turn(&self, is_its_turn: bool) {
        self.is_its_turn.store(is_its_turn, Ordering::SeqCst);
    }

    pub fn node(&self) -> &NodeId {
        &self.node
    }

    pub fn refused(&self, reason: impl std::fmt::Display) -> Failure {
        refused(&self.node, reason)
    }

    /// For what did not come about in time.
    pub fn late(&self, reason: impl std::fmt::Display) -> Failure {
        Failure { kind: FailureKind::Unreachable, reason: format!("node {}: {reason}", self.node) }
    }

    pub fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    pub fn major_version(&self) -> u32 {
        self.link().major_version
    }

    /// Whether the server has warned since this was last asked.
    pub fn was_warned(&self) -> bool {
        self.link().warned.swap(false, Ordering::SeqCst)
    }

    async fn within<T>(&self, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
        // Until the answer is there: whoever waits for it may be stopped.
        let was_spoiled = self.is_spoiled.swap(true, Ordering::SeqCst);
        match timeout_at(self.deadline, answer).await {
            Ok(Ok(answer)) => {
                self.is_spoiled.store(was_spoiled, Ordering::SeqCst);
                Ok(answer)
            }
            Ok(Err(error)) => Err(refusal(&self.node, &error).into()),
            Err(_) => Err(NodeError::Timeout { node: self.node.clone(), after: self.limit }.into()),
        }
    }

    pub async fn rows(&self, sql: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Failure> {
        self.within(self.link().client.query_typed(sql, parameters)).await
    }

    pub async fn row(&self, sql: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<Row, Failure> {
        let empty = || self.refused("the answer to a question of ours is empty");
        self.rows(sql, parameters).await?.into_iter().next().ok_or_else(empty)
    }

    /// One statement, or several that make one transaction.
    pub async fn run(&self, sql: &str) -> Result<(), Failure> {
        self.within(self.link().client.batch_execute(sql)).await
    }

    pub fn get<'r, T: FromSql<'r>>(&self, row: &'r Row, column: usize) -> Result<T, Failure> {
        row.try_get(column).map_err(|error| refusal(&self.node, &error).into())
    }

    /// 0 where there is none.
    pub fn lsn(&self, row: &Row, column: usize) -> Result<Lsn, Failure> {
        Ok(Lsn(self.get::<Option<PgLsn>>(row, column)?.map_or(0, u64::from)))
    }

    /// Writes these settings, and waits until they are in force for new transactions of every session that looks. They are
    /// written even if they are in force already: what is in the file may be something else that waits for a reload. And they
    /// are loaded then too: another process of the server may have read that already, of a reload that is just going on.
    pub async fn put(&self, wanted: &[(&str, Value)]) -> Result<(), Failure> {
        if !self.put_news(wanted).await? {
            self.row("SELECT pg_reload_conf()", &[]).await?;
        }
        Ok(())
    }

    /// The same, for who looks at every process that is concerned: without a reload if they are in force already, in which
    /// case the answer is `false`.
    pub async fn put_news(&self, wanted: &[(&str, Value)]) -> Result<bool, Failure> {
        let before = self.settings(wanted).await?;
        for setting in &before {
            // Overrides what ALTER SYSTEM writes.
            if setting.source == "command line" && !is_met(setting, wanted) {
                return Err(self.refused(format!(
                    "{} is given on the server's command line, where it cannot be changed; put it into postgresql.conf",
                    setting.name
                )));
            }
        }
        self.may_alter(wanted).await?;
        for (name, value) in wanted {
            let (name, secret) = (quote_ident(name), matches!(value, Value::To(_)));
            let sql = match value {
                Value::To(value) => format!("ALTER SYSTEM SET {name} = {}", quote_literal(value)),
                Value::Default => format!("ALTER SYSTEM RESET {name}"),
            };
            self.run(&sql).await.map_err(|failure| match failure.kind {
                // Such a message may show the value, which may have a password in it.
                FailureKind::Refused if secret && failure.reason.contains("invalid value") => {
                    self.refused(format!("the server does not take the value for {name}"))
                }
                _ => failure,
            })?;
        }
        let is_news = before.iter().any(|setting| !is_met(setting, wanted))
            || wanted.iter().any(|(_, value)| matches!(value, Value::Default));
        if !is_news {
            return Ok(false);
        }
        self.row("SELECT pg_reload_conf()", &[]).await?;
        let patience = Instant::now() + RELOAD_LIMIT;
        loop {
            let seen = self.settings(wanted).await?;
            let Some(unmet) = seen.iter().find(|setting| !is_met(setting, wanted)) else { return Ok(true) };
            if Instant::now() > patience {
                return Err(self.refused(format!(
                    "{} was changed with ALTER SYSTEM and is still what it was after a reload: its value comes from {} {}; \
                     the server's log may say why",
                    unmet.name, unmet.source, unmet.file
                )));
            }
            sleep(PAUSE).await;
        }
    }

    async fn settings(&self, wanted: &[(&str, Value)]) -> Result<Vec<Setting>, Failure> {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
        let rows = self.rows(SETTINGS, &[(&names, Type::TEXT_ARRAY)]).await?;
        let mut settings = Vec::with_capacity(rows.len());
        for row in &rows {
            if self.get::<bool>(row, 5)? {
                return Err(self.refused("allow_alter_system is off there, so no setting can be changed"));
            }
            settings.push(Setting {
                name: self.get(row, 0)?,
                value: self.get::<Option<String>>(row, 1)?.unwrap_or_default(),
                source: self.get(row, 2)?,
                file: self.get(row, 3)?,
            });
        }
        // A setting that one may not see is not shown at all, or without its value.
        match names.iter().find(|name| !settings.iter().any(|setting| setting.name == **name)) {
            Some(name) => Err(self.refused(format!("{name} cannot be seen; GRANT pg_monitor TO the control user"))),
            None => Ok(settings),
        }
    }

    /// Asked first: a server writes a statement that it refuses into its log, and one of ours has a password in it.
    async fn may_alter(&self, wanted: &[(&str, Value)]) -> Result<(), Failure> {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
        let missing = if self.major_version() >= 15 {
            let rows = self.rows(MAY_ALTER, &[(&names, Type::TEXT_ARRAY)]).await?;
            rows.iter().map(|row| self.get::<String>(row, 0)).collect::<Result<Vec<_>, _>>()?
        } else if self.get(&self.row(IS_SUPERUSER, &[]).await?, 0)? {
            Vec::new()
        } else {
            return Err(self.refused("before PostgreSQL 15 only a superuser may change settings"));
        };
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(self.refused(format!(
            "the control user may not change {missing}; run as superuser: GRANT ALTER SYSTEM ON PARAMETER {missing} TO it"
        )))
    }
}

fn is_met(setting: &Setting, wanted: &[(&str, Value)]) -> bool {
    wanted.iter().all(|(name, value)| match value {
        Value::To(value) => *name != setting.name || *value == setting.value,
        Value::Default => *name != setting.name || !setting.file.ends_with("postgresql.auto.conf"),
    })
}
