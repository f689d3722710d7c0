//! One job each: the brain's word for it, and the node's.

use std::collections::HashMap;
use std::time::Duration;

use crate::cluster::{Answer, Failure, FailureKind, Job, Sight};
use crate::migrate::{self, MigrateError};
use crate::node::{Control, NodeError, XactStatus};
use crate::types::{Epoch, NodeId, Timeline};

/// Longer than its own wait for a lock.
const MIGRATION: Duration = Duration::from_secs(15);

pub(super) async fn perform(control: &Control, epoch: Epoch, coordinator: &str, job: Job) -> Result<Answer, Failure> {
    match job {
        Job::Recruit { node } => control.recruit(&node, epoch).await,
        Job::Level { node, from, until } => control.level(&node, epoch, &from, until).await,
        Job::Settle { node } => settle(control, &node, &[]).await.map(|(answer, _)| answer),
        Job::Promote { node, sync } => control.promote(&node, &sync).await,
        Job::SetSync { node, sync } => control.set_sync(&node, &sync).await,
        Job::WriteEpoch { node, cause } => {
            prepare(control, &node).await?;
            let timeline = timeline(control, &node).await?;
            control.write_epoch(&node, epoch, coordinator, timeline, &cause).await
        }
        Job::Follow { node, primary } => control.follow(&node, &primary).await,
        Job::Fence { node } => control.fence(&node).await,
        Job::Checkpoint { node } => control.checkpoint(&node).await,
    }
}

/// Asks a node what became of these transactions.
pub(super) async fn settle(
    control: &Control,
    node: &NodeId,
    doubts: &[u64],
) -> Result<(Answer, HashMap<u64, bool>), Failure> {
    let (answer, said) = control.settle(node, doubts).await?;
    // A primary that crashed and is taken back may have run them after its restart: their backends still wait for standbys,
    // and will commit.
    let is_standby = matches!(control.observe(node).await, Sight::Answers(seen) if seen.is_in_recovery);
    Ok((answer, outcomes(said, is_standby)))
}

/// What is certain of them. `is_over`: what is under way there has lost its session, and can only be undone: on a standby about
/// to be promoted, or a primary that has restarted.
pub(super) fn outcomes(said: Vec<(u64, XactStatus)>, is_over: bool) -> HashMap<u64, bool> {
    let certain = |(xid, status)| match status {
        XactStatus::Committed => Some((xid, true)),
        XactStatus::Aborted => Some((xid, false)),
        // On a primary, a transaction that waits for its standbys is one of these, whatever its number.
        XactStatus::InProgress | XactStatus::Future => is_over.then_some((xid, false)),
        XactStatus::TooOld => None,
    };
    said.into_iter().filter_map(certain).collect()
}

async fn timeline(control: &Control, node: &NodeId) -> Result<Timeline, Failure> {
    match control.observe(node).await {
        Sight::Answers(seen) => Ok(seen.timeline),
        Sight::Fails(_, reason) => Err(Failure { kind: FailureKind::Unreachable, reason }),
    }
}

/// Brings the schema `pgbaton` up to date, where there is reason to: a primary seen for the first time.
async fn prepare(control: &Control, node: &NodeId) -> Result<(), Failure> {
    let unreachable = |error: NodeError| Failure { kind: FailureKind::Unreachable, reason: error.to_string() };
    let mut client = control.client_to(node).await.map_err(unreachable)?;
    let applied = tokio::time::timeout(MIGRATION, migrate::apply(&mut client)).await;
    let applied = applied.map_err(|_| {
        let reason = format!("{node}: the schema pgbaton was not brought up to date within {} s", MIGRATION.as_secs());
        Failure { kind: FailureKind::Unreachable, reason }
    })?;
    match applied {
        Ok(applied) if applied.is_empty() => Ok(()),
        Ok(applied) => {
            tracing::info!(%node, migrations = applied.join(", "), "schema pgbaton is up to date");
            Ok(())
        }
        Err(error) => {
            let kind = match error {
                // No other try would end better: it goes on without the schema.
                MigrateError::Forbidden { .. } | MigrateError::Newer { .. } | MigrateError::Locked { .. } => {
                    FailureKind::Refused
                }
                MigrateError::Standby | MigrateError::Failed { .. } => FailureKind::Unreachable,
            };
            Err(Failure { kind, reason: error.to_string() })
        }
    }
}
