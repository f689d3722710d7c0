//! `synchronous_standby_names` on a primary: changed, and seen in force everywhere it is looked at.
//!
//! Three parties read it, each in its own time: sessions (how many acknowledgements, and by whom: they only read a flag that
//! the checkpointer keeps), the checkpointer, and each WAL sender, which lets commits go. So seeing the new value is not
//! enough: every WAL sender must show the state that belongs to it, and a commit must be seen to have waited.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::types::Type;

use super::Control;
use super::keeper::{Inner, Keeper};
use super::sync_names;
use super::work::{PAUSE, Value, Work};
use crate::cluster::{Answer, Failure, SyncNames};
use crate::sql::quote_ident;
use crate::types::NodeId;

/// For the change and a commit that waits for it. A voter that does not answer for so long is none.
pub const SYNC_LIMIT: Duration = Duration::from_secs(10);

/// Commits in a row that were acknowledged in the moment of their end, before one believes that they were waited for.
const COMMITS: usize = 3;

/// A commit of which nothing remains but a record in the log. `pg_current_xact_id` alone would not do: a transaction that has
/// written no log waits for nobody.
const BARRIER: &str = "SELECT pg_logical_emit_message(true, 'pgbaton', 'barrier')::text";

/// Each WAL sender, and whether the checkpointer, which tells sessions whether to wait at all, is in its loop: if it is
/// busy with a checkpoint it may not have read its settings yet.
const SENDERS: &str = "
SELECT application_name::text, sync_state, sync_priority,
       EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'checkpointer'
                   AND wait_event IN ('CheckpointerMain', 'CheckpointWriteDelay')),
       current_setting('synchronous_standby_names'),
       (SELECT (extract(epoch FROM backend_start) * 1000000)::bigint
        FROM pg_stat_activity WHERE backend_type = 'checkpointer')
FROM (SELECT) AS always LEFT JOIN pg_stat_replication ON state IN ('startup', 'catchup', 'streaming')";

const ACKNOWLEDGED: &str = "
SELECT count(DISTINCT application_name) FROM pg_stat_replication
WHERE application_name = ANY ($1::text[]) AND flush_lsn >= $2::text::pg_lsn";

impl Control {
    /// Changes whose acknowledgement commits wait for, and returns when that is so for every commit made from now on.
    pub async fn set_sync(&self, node: &NodeId, names: &SyncNames) -> Result<Answer, Failure> {
        let keeper = &self.inner.keeper(node)?;
        let work = Work::begin(&self.inner, keeper, SYNC_LIMIT).await?;
        work.alone(self.inner.set_sync(keeper, &work, names)).await
    }

    /// Returns when what was committed before has been acknowledged by whoever the names in force ask for. Changes nothing.
    pub async fn await_voters(&self, node: &NodeId) -> Result<(), Failure> {
        let keeper = &self.inner.keeper(node)?;
        let work = Work::begin(&self.inner, keeper, SYNC_LIMIT).await?;
        acknowledged(&work).await
    }
}

impl Inner {
    async fn set_sync(&self, keeper: &Keeper, work: &Work<'_>, names: &SyncNames) -> Result<Answer, Failure> {
        let row = work
            .row(
                "SELECT pg_is_in_recovery(),
                        (SELECT (extract(epoch FROM backend_start) * 1000000)::bigint
                         FROM pg_stat_activity WHERE backend_type = 'checkpointer')",
                &[],
            )
            .await?;
        if work.get(&row, 0)? {
            return Err(work.refused("it is a standby, where no commit waits for anybody"));
        }
        let incarnation = work.get::<Option<i64>>(&row, 1)?.unwrap_or(0) as u64;
        let is_known = |k: u32| {
            keeper.memory().confirmed.as_ref().is_some_and(|(started, seen)| *started == incarnation && seen.k == k)
        };
        // How many acknowledgements a WAL sender asks for cannot be seen, and one that has not heard yet that it is more than
        // before would let commits go too early. Its rank in a list can be seen, so it goes through a list that asks for as
        // many of the same voters, with somebody in front who does not exist.
        if names.k > 1 && !names.voters.is_empty() && !is_known(names.k) {
            put(work, &ranked(names)).await?;
            in_force(work, names, |priority| priority > 1).await?;
        }
        keeper.memory().confirmed = None;
        put(work, &sync_names::to_text(names)).await?;
        in_force(work, names, |priority| priority == 1).await?;
        barrier(work, names).await?;
        keeper.memory().confirmed = Some((incarnation, names.clone()));
        Ok(Answer::SyncSet)
    }
}

async fn put(work: &Work<'_>, text: &str) -> Result<(), Failure> {
    work.put_news(&[("synchronous_standby_names", Value::To(text.into()))]).await.map(drop)
}

fn ranked(names: &SyncNames) -> String {
    let voters: Vec<String> = names.voters.iter().map(|voter| quote_ident(&voter.0)).collect();
    format!("FIRST {} (\"pgbaton:\tnobody\", {})", names.k, voters.join(", "))
}

/// Waits until each WAL sender has the rank that it must have, which is 0 for one that is no voter.
async fn in_force(work: &Work<'_>, names: &SyncNames, is_voters: impl Fn(i32) -> bool) -> Result<(), Failure> {
    loop {
        let mut unmet: BTreeMap<String, &str> = BTreeMap::new();
        for row in &work.rows(SENDERS, &[]).await? {
            if !work.get::<bool>(row, 3)? {
                unmet.insert("checkpointer".into(), "has not read its settings");
            }
            let Some(name) = work.get::<Option<String>>(row, 0)? else { continue };
            // Of a sender that has only just begun.
            let Some(priority) = work.get::<Option<i32>>(row, 2)? else { continue };
            match names.voters.contains(&NodeId::from(name.as_str())) {
                true if !is_voters(priority) => unmet.insert(name, "does not count yet"),
                false if priority != 0 => unmet.insert(name, "still counts"),
                _ => None,
            };
        }
        if unmet.is_empty() {
            return Ok(());
        }
        if work.is_late() {
            let unmet: Vec<String> = unmet.iter().map(|(name, what)| format!("{name} {what}")).collect();
            return Err(work.late(format!("synchronous_standby_names is not in force: {}", unmet.join(", "))));
        }
        sleep(PAUSE).await;
    }
}

/// The barrier of the names in force.
pub(super) async fn acknowledged(work: &Work<'_>) -> Result<(), Failure> {
    let row = work.row("SELECT current_setting('synchronous_standby_names')", &[]).await?;
    match sync_names::parse(&work.get::<String>(&row, 0)?) {
        Some(names) => barrier(work, &names).await,
        // Somebody else's: the server knows who is to be waited for.
        None => committed(work, BARRIER).await.map(drop),
    }
}

/// Commits, and sees that the voters had it when the commit ended. Should sessions not know yet that they have to wait, the
/// look that comes right behind the commit would be faster than the voters.
async fn barrier(work: &Work<'_>, names: &SyncNames) -> Result<(), Failure> {
    if names.voters.is_empty() || names.k == 0 {
        return committed(work, BARRIER).await.map(drop);
    }
    let voters: Vec<&str> = names.voters.iter().map(|voter| &*voter.0).collect();
    let mut in_a_row = 0;
    while in_a_row < COMMITS {
        let at = committed(work, BARRIER).await.map_err(|failure| unacknowledged(work, failure, &voters))?;
        let row = work.row(ACKNOWLEDGED, &[(&voters, Type::TEXT_ARRAY), (&at, Type::TEXT)]).await?;
        match work.get::<i64>(&row, 0)? >= i64::from(names.k) {
            true => in_a_row += 1,
            false => {
                in_a_row = 0;
                sleep(PAUSE).await;
            }
        }
    }
    Ok(())
}

/// Runs a statement whose one value is the position of the log it wrote, and waits for its acknowledgement by the voters in
/// force.
async fn committed(work: &Work<'_>, statement: &str) -> Result<String, Failure> {
    work.was_warned();
    work.run("BEGIN READ WRITE; SET LOCAL synchronous_commit = on").await?;
    let row = work.row(statement, &[]).await?;
    let at = work.get::<String>(&row, 0)?;
    work.run("COMMIT").await?;
    // An interrupted wait ends in success, with a warning that nobody may have it but this node.
    if work.was_warned() {
        return Err(work.late("the wait for its voters was interrupted; nobody else may have what was committed"));
    }
    Ok(at)
}

fn unacknowledged(work: &Work<'_>, failure: Failure, voters: &[&str]) -> Failure {
    match work.is_late() {
        true => work.late(format!("a commit was not acknowledged in time by {}", voters.join(", "))),
        false => failure,
    }
}
