//! What pgbaton writes into the schema `pgbaton` of a primary: whose epoch it is, that it can still write, and what happened.

use tokio_postgres::types::{ToSql, Type};

use super::keeper::Line;
use super::sync::{SYNC_LIMIT, acknowledged};
use super::work::Work;
use super::{Control, NodeError};
use crate::cluster::{Answer, Failure};
use crate::types::{Epoch, NodeId, Timeline};

const EPOCH: &str = "
INSERT INTO pgbaton.epoch (epoch, node, coordinator, timeline, cause) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (epoch) DO NOTHING";

const BEAT: &str = "
INSERT INTO pgbaton.heartbeat (coordinator, node, epoch, at) VALUES ($1, $3, $2, clock_timestamp())
ON CONFLICT (coordinator) DO UPDATE SET node = excluded.node, epoch = excluded.epoch, at = excluded.at
RETURNING pg_current_xact_id()::text,
          (SELECT (extract(epoch FROM backend_start) * 1000000)::bigint
           FROM pg_stat_get_activity(NULL) WHERE backend_type = 'checkpointer')";

const HISTORY: &str = "
INSERT INTO pgbaton.history (epoch, entry, at) VALUES ($1, $2::text::jsonb, clock_timestamp())
ON CONFLICT (epoch) DO UPDATE SET entry = excluded.entry, at = excluded.at";

impl Control {
    /// Commits the row of this epoch, acknowledged by the voters in force. That it is there already is fine if it is ours;
    /// one of another node's means that two nodes were the primary of one epoch.
    pub async fn write_epoch(
        &self,
        node: &NodeId,
        epoch: Epoch,
        coordinator: &str,
        timeline: Timeline,
        cause: &str,
    ) -> Result<Answer, Failure> {
        let keeper = &self.inner.keeper(node)?;
        let work = Work::begin(&self.inner, keeper, SYNC_LIMIT).await?;
        let (number, on, id) = (epoch.0 as i64, timeline.0 as i32, &*node.0);
        let values: [(&(dyn ToSql + Sync), Type); 5] = [
            (&number, Type::INT8),
            (&id, Type::TEXT),
            (&coordinator, Type::TEXT),
            (&on, Type::INT4),
            (&cause, Type::TEXT),
        ];
        work.run("BEGIN READ WRITE").await?;
        work.rows(EPOCH, &values).await?;
        let row = work.row("SELECT node FROM pgbaton.epoch WHERE epoch = $1", &[(&number, Type::INT8)]).await?;
        let owner: String = work.get(&row, 0)?;
        if owner != id {
            // In the middle of a transaction.
            work.spoil();
            return Err(work.refused(format!(
                "epoch {epoch} is there already, as that of {owner}: two nodes were written as its primary"
            )));
        }
        // Locally at first: what was begun with another value of synchronous_commit is none the worse for it, as the commits
        // of the barrier come after it in the log, and a row that was there already needs the same proof.
        work.run("COMMIT").await?;
        acknowledged(&work).await?;
        // Where the table does not answer a probe, what is remembered counts; less than this would be data of the past.
        let mut memory = keeper.memory();
        memory.last_epoch = memory.last_epoch.max(Some(epoch));
        Ok(Answer::EpochWritten)
    }

    /// Writes a heartbeat: that it returns means that the log up to it is on the node's disk. A full disk or one that stands
    /// still is seen in it, within `probe_timeout`.
    pub async fn beat(&self, node: &NodeId, epoch: Epoch, coordinator: &str) -> Result<(), Failure> {
        let number = epoch.0 as i64;
        let values: [(&(dyn ToSql + Sync), Type); 3] =
            [(&coordinator, Type::TEXT), (&number, Type::INT8), (&&*node.0, Type::TEXT)];
        let keeper = &self.inner.keeper(node)?;
        let limit = self.inner.config.probe_timeout;
        match self.inner.ask(keeper, Line::Writes, BEAT, &values, limit).await {
            // Insufficient resources, a system error: the disk. Anything else (no such table, a right that was taken away) is a
            // fault of the schema, for which no other node would be the better primary.
            Err(NodeError::Refused { message, sqlstate, .. })
                if !matches!(&sqlstate[..2.min(sqlstate.len())], "53" | "58") =>
            {
                let complaint = format!("no heartbeat can be written: {message} ({sqlstate})");
                if keeper.is_news(&complaint) {
                    tracing::warn!(%node, "{complaint}");
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
            Ok(rows) => {
                let seen = rows.first().and_then(|row| {
                    let xid = row.try_get::<_, &str>(0).ok()?.parse().ok()?;
                    Some((row.try_get::<_, Option<i64>>(1).ok()?? as u64, xid))
                });
                keeper.memory().durable_xid = seen;
                Ok(())
            }
        }
    }

    /// Keeps an entry of the history, on the primary's disk; standbys get it as they get everything.
    pub async fn write_history(&self, node: &NodeId, epoch: Epoch, entry: &str) -> Result<Answer, Failure> {
        let number = epoch.0 as i64;
        self.write(node, HISTORY, &[(&number, Type::INT8), (&entry, Type::TEXT)]).await?;
        Ok(Answer::Noted)
    }

    async fn write(
        &self,
        node: &NodeId,
        sql: &'static str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<(), Failure> {
        let keeper = &self.inner.keeper(node)?;
        self.inner.ask(keeper, Line::Writes, sql, values, self.inner.config.probe_timeout).await?;
        Ok(())
    }
}
