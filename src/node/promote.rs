//! Making a standby the primary.

use std::time::Duration;

use tokio::time::sleep;

use super::Control;
use super::keeper::{Inner, Keeper};
use super::recruit::{Progress, Unblocker};
use super::sync_names::{self, FENCED};
use super::work::{Value, Work};
use crate::cluster::{Answer, Failure, SyncNames};
use crate::types::{Lsn, NodeId, Timeline};

/// In good health 50 ms; a busy disk makes it seconds.
pub const PROMOTE_LIMIT: Duration = Duration::from_secs(30);

/// `pg_promote(wait => true)` looks every 100 ms.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// The name of a WAL file begins with its timeline.
const WRITES: &str = "
SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint, pg_last_wal_replay_lsn()";

impl Control {
    /// Sets whom commits wait for, takes away what fenced the node, and promotes it. One that is a primary already gets
    /// the names, and is promoted as far as anybody can tell; where its timeline began is then known only if this process has
    /// seen it begin, or may read the timeline's history file.
    pub async fn promote(&self, node: &NodeId, names: &SyncNames) -> Result<Answer, Failure> {
        let keeper = &self.inner.keeper(node)?;
        let work = Work::begin(&self.inner, keeper, PROMOTE_LIMIT).await?;
        work.alone(self.inner.promote(keeper, &work, names)).await
    }

    /// Brings all that is in memory to disk, so that a `pg_rewind` against it sees the new timeline and a crash costs little.
    pub async fn checkpoint(&self, node: &NodeId) -> Result<Answer, Failure> {
        /// It is done at full speed, but of whatever there is.
        const LIMIT: Duration = Duration::from_secs(300);
        let keeper = &self.inner.keeper(node)?;
        Work::begin(&self.inner, keeper, LIMIT).await?.run("CHECKPOINT").await?;
        Ok(Answer::Checkpointed)
    }
}

impl Inner {
    async fn promote(&self, keeper: &Keeper, work: &Work<'_>, names: &SyncNames) -> Result<Answer, Failure> {
        let row = work
            .row(
                "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on',
                        current_setting('synchronous_standby_names'),
                        (SELECT coalesce(sourcefile, '') FROM pg_settings WHERE name = 'default_transaction_read_only')",
                &[],
            )
            .await?;
        let (was_standby, is_read_only): (bool, bool) = (work.get(&row, 0)?, work.get(&row, 1)?);
        let is_fenced = work.get::<&str>(&row, 2)? == FENCED;
        let is_ours = work.get::<&str>(&row, 3)?.ends_with("postgresql.auto.conf");
        let mut changes = vec![("synchronous_standby_names", Value::To(sync_names::to_text(names)))];
        if is_fenced || (is_read_only && is_ours) {
            changes.push(("default_transaction_read_only", Value::Default));
        }
        keeper.memory().confirmed = None;
        work.put(&changes).await?;
        if was_standby {
            let before = Progress::look(work).await?;
            if before.is_in_recovery {
                let began = work.row("SELECT pg_promote(false)", &[]).await?;
                if !work.get::<bool>(&began, 0)? {
                    return Err(work.refused("pg_promote() says no; the server's log says why"));
                }
            }
            self.promoted(work).await?;
        }
        let row = work.row(WRITES, &[]).await?;
        let timeline = Timeline(work.get::<i64>(&row, 0)? as u32);
        let mut fork = keeper.memory().fork.filter(|(of, _)| *of == timeline).map(|(_, at)| at);
        if was_standby {
            // The end of what recovery replayed is where the new timeline leaves the old one. Later it no longer says that:
            // a crash recovery sets it too.
            fork = Some(work.lsn(&row, 1)?).filter(|at| *at > Lsn(0));
            keeper.memory().fork = fork.map(|at| (timeline, at));
        } else if fork.is_none() {
            fork = from_history(work, timeline).await;
        }
        Ok(Answer::Promoted { timeline, fork })
    }

    async fn promoted(&self, work: &Work<'_>) -> Result<(), Failure> {
        let mut unblocker = Unblocker::new();
        loop {
            let seen = Progress::look(work).await?;
            if !seen.is_in_recovery {
                return Ok(());
            }
            // Promotion comes after what was received has been replayed.
            unblocker.see(work, &seen).await?;
            if work.is_late() {
                return Err(work.late("it was told to become the primary and has not"));
            }
            sleep(BETWEEN_LOOKS).await;
        }
    }
}

/// The last line of a timeline's history file that is not empty says where it left the timeline before. Few may read it.
async fn from_history(work: &Work<'_>, timeline: Timeline) -> Option<Lsn> {
    let sql = format!("SELECT pg_read_file('pg_wal/{:08X}.history')", timeline.0);
    let row = work.row(&sql, &[]).await.ok()?;
    let text = work.get::<String>(&row, 0).ok()?;
    text.lines().rev().find_map(|line| line.split_whitespace().nth(1)?.parse().ok())
}
