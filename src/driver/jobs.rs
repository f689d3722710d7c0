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
        Job::Settle { node } => settle(control, &node, &[], None).await.map(|(answer, _)| answer),
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
        // An agent's, or the data plane's; or to rejoin a primary that nobody knows.
        Job::Drain { .. }
        | Job::Stop { .. }
        | Job::Start { .. }
        | Job::Restart { .. }
        | Job::Rejoin { .. }
        | Job::Initialise { .. } => {
            Err(Failure { kind: FailureKind::Refused, reason: "nobody is there to do it".into() })
        }
    }
}

/// What is known of the node that was asked about transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Witness {
    /// About to be promoted: what is under way there has lost its session and its primary, and can only be undone.
    Standby,
    /// The primary of these transactions, which has not restarted since.
    Living,
    /// A primary that has restarted, or may have.
    Restarted,
}

/// Asks a node what became of these transactions. `incarnation`: what the primary they were sent to was when it opened.
pub(super) async fn settle(
    control: &Control,
    node: &NodeId,
    doubts: &[u64],
    incarnation: Option<u64>,
) -> Result<(Answer, HashMap<u64, bool>), Failure> {
    let (answer, said) = control.settle(node, doubts, incarnation).await?;
    // Asked afterwards: what is the same now was so before.
    let witness = match control.observe(node).await {
        Sight::Answers(seen) if seen.is_in_recovery => Witness::Standby,
        Sight::Answers(seen) if Some(seen.incarnation) == incarnation => Witness::Living,
        _ => Witness::Restarted,
    };
    Ok((answer, outcomes(said, witness)))
}

/// What is certain of them, `true`: committed.
pub(super) fn outcomes(said: Vec<(u64, XactStatus)>, witness: Witness) -> HashMap<u64, bool> {
    let certain = |(xid, status)| match (status, witness) {
        (XactStatus::Committed, _) | (XactStatus::Ambiguous, Witness::Living) => Some((xid, true)),
        // Of the last transaction with that number. Had the number been handed out before, that one was lost in a crash.
        (XactStatus::Aborted, _) => Some((xid, false)),
        (XactStatus::InProgress, Witness::Standby) => Some((xid, false)),
        // On a primary it may wait for standbys, and will be committed when they have it.
        (XactStatus::InProgress, Witness::Living | Witness::Restarted) => None,
        (XactStatus::Future, Witness::Standby | Witness::Restarted) => Some((xid, false)),
        // That cannot be.
        (XactStatus::Future, Witness::Living) => None,
        // Perhaps somebody else's.
        (XactStatus::Ambiguous, Witness::Standby | Witness::Restarted) => None,
        (XactStatus::TooOld, _) => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_is_told() {
        use XactStatus::{Aborted, Ambiguous, Committed, Future, InProgress, TooOld};
        let all = [Committed, Aborted, Ambiguous, InProgress, Future, TooOld];
        let told = |witness| all.map(|status| outcomes(vec![(7, status)], witness).remove(&7));
        assert_eq!(told(Witness::Standby), [Some(true), Some(false), None, Some(false), Some(false), None]);
        assert_eq!(told(Witness::Living), [Some(true), Some(false), Some(true), None, None, None]);
        assert_eq!(told(Witness::Restarted), [Some(true), Some(false), None, None, Some(false), None]);
    }
}
