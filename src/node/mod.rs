//! Questions to nodes, asked as the control user over one kept connection per node.
//!
//! The SQL in here is all that pgbaton asks a node for itself: what it is (`status`), how a role proves who it is (`role`)
//! and whatever the doctor wants to know (`survey`). Connections live in the runtime in which [`Control`] was made,
//! whoever asks, are opened when first needed and again after they broke; everything has a deadline, because a frozen
//! server never refuses.

mod agents;
mod error;
mod fence;
mod follow;
mod keeper;
mod level;
mod observe;
mod promote;
mod recruit;
mod rights;
mod roles;
mod roster;
mod rows;
mod settle;
mod slots;
mod survey;
mod sync;
mod sync_names;
mod turn;
mod work;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::types::{PgLsn, Type};

pub use self::agents::AgentAddress;
pub use self::error::NodeError;
use self::error::refusal;
use self::keeper::{Inner, Keeper, Line};
pub use self::roles::RoleRecord;
use self::roles::Roles;
pub use self::roster::Reached;
use self::roster::Roster;
pub use self::settle::XactStatus;
use crate::net::NodeTls;
pub use crate::net::{Conninfo, ConninfoError};
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

/// A transaction of its own that writes to the log: its commit brings all of the log before it to disk, from where standbys
/// get it. A number alone (`pg_current_xact_id`) would not do: a commit that has written nothing else is not flushed.
const FLUSH: &str = "SELECT pg_logical_emit_message(true, 'pgbaton', '')::text";

const CONSOLE: &str = "
SELECT pg_has_role(oid, 'pg_monitor', 'MEMBER'),
       rolsuper OR EXISTS (SELECT FROM pg_roles AS admin
                           WHERE admin.rolname = 'pgbaton_admin' AND pg_has_role(role.oid, admin.oid, 'MEMBER'))
FROM pg_roles AS role WHERE rolname = $1";

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
    /// At first; [`Control::set_nodes`] exchanges them.
    pub nodes: Vec<Reached>,
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

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("nodes", &self.inner.roster.load().keepers.keys()).finish()
    }
}

impl Control {
    /// Must be called in the runtime that shall carry the connections; it has to live as long as this.
    pub fn new(config: ControlConfig, topology: watch::Receiver<Arc<Topology>>) -> Control {
        let roster = ArcSwap::from_pointee(Roster::of(&config.nodes, &Roster::default()));
        let runtime = Handle::current();
        let inner = Arc::new(Inner { config, roster, topology, runtime: runtime.clone() });
        let (questions, asked) = mpsc::channel(roles::MAX_WAITING);
        runtime.spawn(roles::answer(inner.clone(), asked));
        Control { inner, roles: Roles::new(questions) }
    }

    /// These are the nodes from now on.
    pub fn set_nodes(&self, nodes: &[Reached]) {
        self.inner.set_nodes(nodes);
    }

    fn agent(&self, node: &NodeId) -> Option<AgentAddress> {
        self.inner.roster.load().agents.get(node).cloned()
    }

    /// How a role proves who it is, as the primary has it now; `None` if it has no such role. When the primary cannot be
    /// asked, what it said last time counts.
    pub async fn role(&self, name: &str) -> Result<Option<Arc<RoleRecord>>, NodeError> {
        self.roles.ask(name, Instant::now() + ROLE_DEADLINE).await
    }

    /// Asks one node what it is.
    pub async fn status(&self, node: &NodeId) -> Result<NodeStatus, NodeError> {
        let keeper = &self.inner.keeper(node)?;
        let row = self.inner.ask_one(keeper, Line::Questions, STATUS, self.inner.config.probe_timeout).await?;
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

    /// What asks one server how far it is, also when its node has been removed meanwhile; `None` if no node is there.
    pub fn gauge(&self, address: &NodeAddress) -> Option<Gauge> {
        let keeper = self.inner.keeper(&address.id).ok()?;
        (*keeper.address == *address).then(|| Gauge { inner: self.inner.clone(), keeper })
    }

    /// Whether a role may look (member of `pg_monitor`) and act (member of `pgbaton_admin`, or superuser) in the console.
    pub async fn console_right(&self, role: &str) -> Result<(bool, bool), NodeError> {
        let primary = self.inner.primary(Instant::now() + ROLE_DEADLINE).await?;
        let keeper = &self.inner.keeper(&primary)?;
        let rows = self.inner.ask(keeper, Line::Questions, CONSOLE, &[(&role, Type::TEXT)], ROLE_DEADLINE).await?;
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
        let keeper = &inner.keeper(&primary)?;
        Ok(inner.connect(keeper, &database, keeper::AS_OTHERS, limit).await?.client)
    }

    /// A connection of its own to the control database of a node.
    pub async fn client_to(&self, node: &NodeId) -> Result<Client, NodeError> {
        let limit = self.inner.config.probe_timeout.max(ROLE_DEADLINE);
        let keeper = &self.inner.keeper(node)?;
        Ok(self.inner.connect(keeper, &self.inner.config.database, keeper::AS_OTHERS, limit).await?.client)
    }
}

/// Asks one server how far it is, again and again.
#[derive(Clone)]
pub struct Gauge {
    inner: Arc<Inner>,
    keeper: Arc<Keeper>,
}

impl Gauge {
    pub async fn position(&self) -> Result<NodePosition, NodeError> {
        let limit = self.inner.config.probe_timeout;
        let row = self.inner.ask_one(&self.keeper, Line::Questions, POSITION, limit).await?;
        let bad = |error: tokio_postgres::Error| refusal(&self.keeper.address.id, &error);
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
    pub async fn flush_log(&self) -> Result<(), NodeError> {
        self.inner.ask_one(&self.keeper, Line::Questions, FLUSH, self.inner.config.probe_timeout).await.map(|_| ())
    }
}
