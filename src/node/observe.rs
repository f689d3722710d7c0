//! A probe: everything the brain wants to know of a node, in one round trip on a line of its own.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::Row;
use tokio_postgres::types::PgLsn;

use super::error::refusal;
use super::keeper::{Inner, Keeper, Kept, Line};
use super::recruit::recruited_for;
use super::sync_names::{self, FENCED};
use super::work::Work;
use super::{Control, NodeError};
use crate::cluster::{Failure, Observation, Receiver, Sender, Sight};
use crate::net::Conninfo;
use crate::types::{Epoch, Lsn, Millis, NodeId, Timeline};

/// A standby's timeline: that of the WAL it receives, else that of the WAL files it has; what the control file knows is late
/// in both of its places. Files of a timeline whose history is not there are none that it replays: `pg_rewind` leaves those
/// that it has read itself, of the timeline that it undid.
///
/// The checkpointer is the one process that every restart of the server's processes replaces, also where the postmaster
/// survives the crash of a backend.
///
/// Of the table of epochs only whether we may read it: a table that is missing, or locked, must not spoil a probe.
const OBSERVE: &str = "
SELECT in_recovery,
       (SELECT system_identifier FROM pg_control_system()),
       CASE WHEN in_recovery THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
            ELSE pg_current_wal_lsn() END,
       CASE WHEN in_recovery THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
       CASE WHEN in_recovery
            THEN greatest(coalesce(receiver.received_tli,
                                   (SELECT max(('x' || number)::bit(32)::bigint)
                                    FROM (SELECT left(name, 8) AS number,
                                                 bool_or(name ~ '^[0-9A-F]{24}$') AS has_log,
                                                 bool_or(name ~ '^[0-9A-F]{8}[.]history$') AS has_history
                                          FROM pg_ls_waldir() GROUP BY 1) AS timeline
                                    WHERE has_log AND (has_history OR number = '00000001'))),
                          (SELECT timeline_id FROM pg_control_checkpoint()),
                          (SELECT min_recovery_end_timeline FROM pg_control_recovery()))::bigint
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END,
       (SELECT (extract(epoch FROM backend_start) * 1000000)::bigint
        FROM pg_stat_get_activity(NULL) WHERE backend_type = 'checkpointer'),
       (SELECT has_schema_privilege(space.oid, 'USAGE') AND has_table_privilege(class.oid, 'SELECT')
        FROM pg_namespace AS space JOIN pg_class AS class ON class.relnamespace = space.oid
        WHERE space.nspname = 'pgbaton' AND class.relname = 'epoch'),
       receiver.pid IS NOT NULL,
       receiver.sender_host,
       receiver.sender_port,
       (extract(epoch FROM clock_timestamp() - receiver.last_msg_receipt_time) * 1000)::bigint,
       (extract(epoch FROM current_setting('wal_receiver_timeout')::interval) * 1000)::bigint,
       CASE WHEN in_recovery THEN current_setting('primary_conninfo') END,
       CASE WHEN in_recovery THEN '' ELSE current_setting('synchronous_standby_names') END,
       current_setting('default_transaction_read_only') = 'on',
       sender.names, sender.are_streaming, sender.flushed
FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) AS now
LEFT JOIN pg_stat_wal_receiver AS receiver ON in_recovery
LEFT JOIN LATERAL (
    SELECT array_agg(application_name::text) AS names, array_agg(state = 'streaming') AS are_streaming,
           array_agg(coalesce(flush_lsn, '0/0')) AS flushed
    FROM pg_stat_replication WHERE state IN ('startup', 'catchup', 'streaming')) AS sender ON NOT in_recovery";

pub(super) const LAST_EPOCH: &str = "SELECT max(epoch) FROM pgbaton.epoch";

/// How long the table of epochs may take to answer; a look into an index takes microseconds.
const EPOCH_LIMIT: Duration = Duration::from_millis(200);
/// For how long it is left alone after that.
const EPOCH_REST: Duration = Duration::from_secs(10);

/// Of a receiver that never gives up, and is silent only if its primary is: PostgreSQL's own default, halved.
const QUIET_UNKNOWN: Millis = Millis(30_000);

impl Control {
    /// Looks at a node, within `probe_timeout`. A kept connection that has died is opened again within the same probe, so
    /// that what it says is of now.
    pub async fn observe(&self, node: &NodeId) -> Sight {
        let looked = async {
            let keeper = &self.inner.keeper(node)?;
            self.inner.observe(keeper, self.inner.config.probe_timeout).await
        };
        match looked.await {
            Ok(observation) => Sight::Answers(Box::new(observation)),
            Err(error) => Sight::Fails(error.symptom(), error.to_string()),
        }
    }
}

impl Inner {
    pub async fn observe(&self, keeper: &Keeper, limit: Duration) -> Result<Observation, NodeError> {
        let (mut rows, kept) = self.ask_over(keeper, Line::Probes, OBSERVE, &[], limit).await?;
        let row = rows.pop().ok_or_else(|| keeper.odd("the answer to a probe is empty; is this PostgreSQL?"))?;
        let may_read = row.try_get::<_, Option<bool>>(6).map_err(|error| refusal(&keeper.address.id, &error))?;
        let epoch = match may_read {
            Some(true) => Some(last_epoch(keeper, &kept).await),
            _ => None,
        };
        let mut seen = self.read(keeper, &row).map_err(|error| refusal(&keeper.address.id, &error))?;
        let mut memory = keeper.memory();
        seen.last_epoch = match epoch {
            Some(EpochAnswer::Is(epoch)) => epoch,
            // It only grows: what it was is at least still true.
            Some(EpochAnswer::Unknown) => memory.last_epoch,
            None => None,
        };
        // Nor is less remembered than we wrote ourselves since this probe began.
        memory.last_epoch = seen.last_epoch.map(|last| Some(last).max(memory.last_epoch)).unwrap_or_default();
        if seen.is_in_recovery {
            if let Some((_, timeline)) = memory.received.filter(|(started, _)| *started == seen.incarnation) {
                seen.timeline = seen.timeline.max(timeline);
            }
            memory.received = Some((seen.incarnation, seen.timeline));
        }
        Ok(seen)
    }

    fn read(&self, keeper: &Keeper, row: &Row) -> Result<Observation, tokio_postgres::Error> {
        let is_in_recovery: bool = row.try_get(0)?;
        let lsn =
            |column| Ok::<_, tokio_postgres::Error>(Lsn(row.try_get::<_, Option<PgLsn>>(column)?.map_or(0, u64::from)));
        let receiver = match row.try_get::<_, bool>(7)? {
            true => {
                let (host, port) = (row.try_get::<_, Option<&str>>(8)?, row.try_get::<_, Option<i32>>(9)?);
                Some(Receiver {
                    from: host.zip(port).and_then(|(host, port)| self.at(host, u16::try_from(port).ok()?)),
                    fed_ago: Millis(row.try_get::<_, Option<i64>>(10)?.map_or(u64::MAX, |ms| ms.max(0) as u64)),
                    quiet: match row.try_get::<_, i64>(11)? {
                        ms if ms > 0 => Millis(ms as u64 / 2),
                        _ => QUIET_UNKNOWN,
                    },
                })
            }
            false => None,
        };
        let upstream = row.try_get::<_, Option<&str>>(12)?.and_then(|text| Conninfo::parse(text).ok());
        let sync: &str = row.try_get(13)?;
        let names = row.try_get::<_, Option<Vec<Option<&str>>>>(15)?.unwrap_or_default();
        let are_streaming = row.try_get::<_, Option<Vec<bool>>>(16)?.unwrap_or_default();
        let flushed = row.try_get::<_, Option<Vec<PgLsn>>>(17)?.unwrap_or_default();
        let mut senders: Vec<Sender> = Vec::with_capacity(names.len());
        for ((name, is_streaming), flushed) in names.iter().zip(are_streaming).zip(flushed) {
            let node = NodeId::from(name.unwrap_or_default());
            if node == keeper.address.id || !self.roster.load().keepers.contains_key(&node) {
                continue;
            }
            let sender = Sender { node, is_streaming, flushed: Lsn(flushed.into()) };
            // Two of one name: the older connection has not been noticed dead yet.
            match senders.iter_mut().find(|known| known.node == sender.node) {
                Some(known) => {
                    if (sender.is_streaming, sender.flushed) > (known.is_streaming, known.flushed) {
                        *known = sender;
                    }
                }
                None => senders.push(sender),
            }
        }
        senders.sort_by(|one, other| one.node.cmp(&other.node));
        Ok(Observation {
            // PostgreSQL shows this unsigned number as a signed one.
            system_identifier: row.try_get::<_, i64>(1)? as u64,
            is_in_recovery,
            timeline: Timeline(row.try_get::<_, Option<i64>>(4)?.unwrap_or(0) as u32),
            lsn: lsn(2)?,
            replayed: lsn(3)?,
            incarnation: row.try_get::<_, Option<i64>>(5)?.unwrap_or(0) as u64,
            last_epoch: None,
            receiver,
            recruited_for: upstream.as_ref().and_then(recruited_for),
            follows: upstream.as_ref().and_then(|upstream| self.upstream(keeper, upstream)),
            senders,
            sync: (!is_in_recovery).then(|| sync_names::parse(sync)).flatten(),
            is_fenced: !is_in_recovery && sync == FENCED && row.try_get(14)?,
        })
    }

    /// The node of the configuration that listens there.
    fn at(&self, host: &str, port: u16) -> Option<NodeId> {
        let is_there = |keeper: &&std::sync::Arc<Keeper>| keeper.address.host == host && keeper.address.port == port;
        self.roster.load().keepers.values().find(is_there).map(|keeper| keeper.address.id.clone())
    }

    /// The node of the configuration that a standby wants to receive from, if it calls itself by its own id there.
    fn upstream(&self, keeper: &Keeper, conninfo: &Conninfo) -> Option<NodeId> {
        if conninfo.get("application_name") != Some(&*keeper.address.id.0) {
            return None;
        }
        let given = |key| conninfo.get(key).filter(|value: &&str| !value.is_empty());
        let port = given("port").map_or(Some(5432), |port| port.parse().ok())?;
        // Where both are given, the second one only says what its certificate must be called.
        self.at(given("hostaddr").or(given("host"))?, port)
    }
}

pub(super) enum EpochAnswer {
    Is(Option<Epoch>),
    Unknown,
}

/// The newest row of `pgbaton.epoch`, unless the table does not answer: somebody may have locked it, and that is no sign of
/// the node's health.
async fn last_epoch(keeper: &Keeper, kept: &Kept) -> EpochAnswer {
    let rests = keeper.memory().epoch_rests_until;
    if rests.is_some_and(|until| Instant::now() < until) {
        return EpochAnswer::Unknown;
    }
    match timeout(EPOCH_LIMIT, kept.query(LAST_EPOCH, &[])).await {
        Ok(Ok(rows)) => {
            let epoch = rows.first().and_then(|row| row.try_get::<_, Option<i64>>(0).ok().flatten());
            EpochAnswer::Is(epoch.map(|epoch| Epoch(epoch as u64)))
        }
        // Dropped or changed in this moment.
        Ok(Err(_)) => EpochAnswer::Unknown,
        Err(_) => {
            keeper.memory().epoch_rests_until = Some(Instant::now() + EPOCH_REST);
            // Nothing else is to wait behind it.
            kept.give_up();
            EpochAnswer::Unknown
        }
    }
}

/// The one that a piece of work asks for itself. `None` also where there is no such table, or no right to read it.
pub(super) async fn epoch_in(work: &Work<'_>) -> Result<Option<Epoch>, Failure> {
    const MAY_READ: &str = "
SELECT EXISTS (SELECT FROM pg_namespace AS space JOIN pg_class AS class ON class.relnamespace = space.oid
               WHERE space.nspname = 'pgbaton' AND class.relname = 'epoch'
                     AND has_schema_privilege(space.oid, 'USAGE') AND has_table_privilege(class.oid, 'SELECT'))";
    if !work.get::<bool>(&work.row(MAY_READ, &[]).await?, 0)? {
        return Ok(None);
    }
    let row = work.row(LAST_EPOCH, &[]).await?;
    Ok(work.get::<Option<i64>>(&row, 0)?.map(|epoch| Epoch(epoch as u64)))
}
