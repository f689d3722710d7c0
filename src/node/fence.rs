//! Making a primary of the past harmless by SQL alone, which is all there is without an agent.
//!
//! Transactions are read-only by default, what writes all the same waits for a standby that cannot exist, and every session
//! that began before is ended. WAL senders are left alone: a standby that has not been recruited yet may still get what was
//! committed, and one that has been does not come back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Control;
use super::keeper::Keeper;
use super::sync_names::FENCED;
use super::work::{PAUSE, Value, Work};
use crate::cluster::{Answer, Failure};
use crate::types::{NodeId, Timeline};

pub const FENCE_LIMIT: Duration = Duration::from_secs(5);

/// Sessions end at their next look around; one in the middle of a system call takes its time.
const ENDING: Duration = Duration::from_secs(2);

/// Ends all sessions but the control user's; how many there were, and how many of them are superusers', which may be ended
/// by superusers only.
const END_SESSIONS: &str = "
SELECT count(*), count(*) FILTER (WHERE is_out_of_reach),
       count(CASE WHEN NOT is_out_of_reach THEN pg_terminate_backend(pid) END)
FROM (SELECT pid, coalesce(role.rolsuper, false)
                  AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_out_of_reach
      FROM pg_stat_activity AS session LEFT JOIN pg_roles AS role ON role.oid = session.usesysid
      WHERE backend_type = 'client backend' AND usename <> current_user) AS session";

const END: &str = "
SELECT pg_current_wal_lsn(), ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint";

impl Control {
    /// Nothing that is committed on it from now on is acknowledged to anybody.
    pub async fn fence(&self, node: &NodeId) -> Result<Answer, Failure> {
        let keeper = &self.inner.keeper(node)?;
        let work = Work::begin(&self.inner, keeper, FENCE_LIMIT).await?;
        work.alone(fence(keeper, &work)).await
    }
}

async fn fence(keeper: &Keeper, work: &Work<'_>) -> Result<Answer, Failure> {
    let row = work.row("SELECT pg_is_in_recovery()", &[]).await?;
    if work.get(&row, 0)? {
        return Err(work.refused("it is a standby, which takes no writes"));
    }
    keeper.memory().confirmed = None;
    // The name last: where it stands, the other is there too.
    work.put(&[
        ("default_transaction_read_only", Value::To("on".into())),
        ("synchronous_standby_names", Value::To(FENCED.into())),
    ])
    .await?;
    let patience = Instant::now() + ENDING;
    loop {
        let row = work.row(END_SESSIONS, &[]).await?;
        let (all, out_of_reach): (i64, i64) = (work.get(&row, 0)?, work.get(&row, 1)?);
        if all == out_of_reach || Instant::now() > patience {
            if all > 0 {
                tracing::warn!(
                    node = %work.node(), sessions = all, superusers = out_of_reach,
                    "fenced, but these sessions could not be ended; what they commit waits for ever"
                );
            }
            break;
        }
        sleep(PAUSE).await;
    }
    let row = work.row(END, &[]).await?;
    Ok(Answer::Fenced { lsn: work.lsn(&row, 0)?, timeline: Timeline(work.get::<i64>(&row, 1)? as u32) })
}
