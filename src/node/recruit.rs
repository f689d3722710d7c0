//! Taking a standby off its primary for good, so that no commit can be acknowledged by way of it any more.
//!
//! Its `primary_conninfo` keeps everything in it but the place, which becomes a directory that cannot exist and says why it
//! is there (`docs/decisions/0006`): whoever comes next, a restarted pgbaton or a person, finds the credentials.
//!
//! What has to be seen before it counts as done: the startup process, which alone starts WAL receivers, has read the new
//! value, and no receiver that it started before is left. A receiver shows itself in `pg_stat_wal_receiver` only once it is
//! connected, so its process is looked for too. The startup process reads settings between two records and while it waits for
//! WAL, but not while replay is paused for a delay or blocked by a query, so those are ended first.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Control;
use super::keeper::{Inner, Keeper};
use super::observe::epoch_in;
use super::work::{PAUSE, Value, Work};
use crate::cluster::{Answer, Failure};
use crate::net::Conninfo;
use crate::types::{Epoch, Lsn, NodeId, Timeline};

/// The host of a recruited standby, up to the epoch. Neither a name nor an address: libpq takes it for the directory of a
/// Unix socket.
const NOWHERE: &str = "/pgbaton/recruited-for-epoch-";

/// All of it; in good health it takes milliseconds.
pub const RECRUIT_LIMIT: Duration = Duration::from_secs(10);

/// Between the two looks that must agree.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// So long a query may block the replay that everybody waits for.
pub(super) const PATIENCE: Duration = Duration::from_millis(300);

/// What the startup process waits for when it has consumed all WAL there is. Both waits end at once when it is told to read
/// its settings.
const IDLE: &str = "'RecoveryWalStream', 'RecoveryRetrieveRetryInterval'";

/// What it waits for when a query is in its way.
const BLOCKED: &str = "'RecoveryConflictSnapshot', 'RecoveryConflictTablespace', 'BufferPin'";

/// The epoch that a standby was recruited for, read off its `primary_conninfo`.
pub(super) fn recruited_for(conninfo: &Conninfo) -> Option<Epoch> {
    conninfo.get("host")?.strip_prefix(NOWHERE)?.parse().ok().map(Epoch)
}

pub(super) fn nowhere(epoch: Epoch) -> String {
    format!("{NOWHERE}{epoch}")
}

/// One look at a standby's recovery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Progress {
    pub is_in_recovery: bool,
    pub received: Lsn,
    pub replayed: Lsn,
    /// The process, also of one that is not connected.
    pub has_receiver: bool,
    /// Everything there is has been replayed, up to a last record of which only a part has come.
    pub is_idle: bool,
    pub is_blocked: bool,
    pub is_paused: bool,
    pub conninfo: String,
}

impl Progress {
    pub async fn look(work: &Work<'_>) -> Result<Progress, Failure> {
        let sql = format!(
            "SELECT in_recovery,
                    CASE WHEN in_recovery THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) END,
                    CASE WHEN in_recovery THEN pg_last_wal_replay_lsn() END,
                    EXISTS (SELECT FROM pg_stat_wal_receiver)
                        OR EXISTS (SELECT FROM activity WHERE backend_type = 'walreceiver'),
                    EXISTS (SELECT FROM activity WHERE backend_type = 'startup' AND wait_event IN ({IDLE})),
                    EXISTS (SELECT FROM activity WHERE backend_type = 'startup'
                                AND (wait_event IN ({BLOCKED}) OR wait_event_type = 'Lock')),
                    in_recovery AND pg_is_wal_replay_paused(),
                    current_setting('primary_conninfo')
             FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) AS now"
        );
        let sql = format!(
            "WITH activity AS MATERIALIZED (SELECT backend_type, wait_event_type, wait_event FROM pg_stat_activity
                                            WHERE backend_type IN ('startup', 'walreceiver')) {sql}"
        );
        let row = match work.row(&sql, &[]).await {
            // `pg_is_wal_replay_paused` is an error when recovery has ended, which may happen between two columns of one answer
            // (object_not_in_prerequisite_state). The next one says that it has.
            Err(failure) if failure.reason.contains("(55000)") => work.row(&sql, &[]).await?,
            answer => answer?,
        };
        Ok(Progress {
            is_in_recovery: work.get(&row, 0)?,
            received: work.lsn(&row, 1)?,
            replayed: work.lsn(&row, 2)?,
            has_receiver: work.get(&row, 3)?,
            is_idle: work.get(&row, 4)?,
            is_blocked: work.get(&row, 5)?,
            is_paused: work.get(&row, 6)?,
            conninfo: work.get(&row, 7)?,
        })
    }
}

/// Ends what keeps a standby from replaying: sessions in its way, once it has waited for them for long enough, and a pause.
pub(super) struct Unblocker {
    blocked_since: Option<(Instant, Lsn)>,
}

impl Unblocker {
    pub fn new() -> Unblocker {
        Unblocker { blocked_since: None }
    }

    /// To be called with each look.
    pub async fn see(&mut self, work: &Work<'_>, progress: &Progress) -> Result<(), Failure> {
        if progress.is_paused {
            work.row("SELECT pg_wal_replay_resume()", &[]).await?;
        }
        // Between two waits for the same session it does not look blocked for a moment.
        if progress.is_idle || self.blocked_since.is_some_and(|(_, at)| at != progress.replayed) {
            self.blocked_since = None;
        }
        if !progress.is_blocked {
            return Ok(());
        }
        let (since, _) = *self.blocked_since.get_or_insert_with(|| (Instant::now(), progress.replayed));
        if since.elapsed() < PATIENCE {
            return Ok(());
        }
        // Whoever is in a transaction may hold the snapshot, lock or page that the next record needs. Who may not be ended is
        // left out: an error about one would spare the others.
        let ended = work
            .row(
                "SELECT count(pg_terminate_backend(pid))
                 FROM pg_stat_activity AS session LEFT JOIN pg_roles AS role ON role.oid = session.usesysid
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND usename <> current_user
                       AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)
                       AND (NOT role.rolsuper OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))",
                &[],
            )
            .await?;
        let ended = work.get::<i64>(&ended, 0)?.unsigned_abs();
        if ended > 0 {
            tracing::warn!(node = %work.node(), sessions = ended, "ended sessions on a standby that kept it from replaying");
        }
        self.blocked_since = None;
        Ok(())
    }
}

impl Control {
    /// Takes a standby off its primary. When this returns, it has no WAL receiver and will start none: nothing it has not
    /// received now will ever be acknowledged by it for an epoch before this one.
    pub async fn recruit(&self, node: &NodeId, epoch: Epoch) -> Result<Answer, Failure> {
        let keeper = &self.inner.keeper(node)?;
        let work = Work::begin(&self.inner, keeper, RECRUIT_LIMIT).await?;
        work.alone(self.inner.recruit(keeper, &work, epoch)).await
    }
}

impl Inner {
    async fn recruit(&self, keeper: &Keeper, work: &Work<'_>, epoch: Epoch) -> Result<Answer, Failure> {
        let before = Progress::look(work).await?;
        if !before.is_in_recovery {
            return Err(work.refused("it is a primary, which cannot be recruited"));
        }
        let mut conninfo = Conninfo::parse(&before.conninfo)
            .map_err(|error| work.refused(format!("its primary_conninfo cannot be read: {error}")))?;
        conninfo.point_at(&nowhere(epoch), None);
        let conninfo = conninfo.to_text();
        let delay =
            work.row("SELECT setting <> '0' FROM pg_settings WHERE name = 'recovery_min_apply_delay'", &[]).await?;
        let mut changes = vec![("primary_conninfo", Value::To(conninfo.clone()))];
        if work.get(&delay, 0)? {
            changes.push(("recovery_min_apply_delay", Value::To("0".into())));
        }
        work.put(&changes).await?;
        let received = self.unfed(work, &conninfo).await?;
        let row = work
            .row(
                "SELECT (SELECT system_identifier FROM pg_control_system()),
                        greatest((SELECT max(('x' || left(name, 8))::bit(32)::bigint) FROM pg_ls_waldir()
                                  WHERE name ~ '^[0-9A-F]{24}$'),
                                 (SELECT timeline_id FROM pg_control_checkpoint()),
                                 (SELECT min_recovery_end_timeline FROM pg_control_recovery()))::bigint,
                        (SELECT (extract(epoch FROM backend_start) * 1000000)::bigint
                         FROM pg_stat_activity WHERE backend_type = 'checkpointer')",
                &[],
            )
            .await?;
        let timeline = Timeline(work.get::<Option<i64>>(&row, 1)?.unwrap_or(0) as u32);
        let incarnation = work.get::<Option<i64>>(&row, 2)?.unwrap_or(0) as u64;
        let remembered = keeper.memory().received.filter(|(started, _)| *started == incarnation);
        Ok(Answer::Recruited {
            system_identifier: work.get::<i64>(&row, 0)? as u64,
            timeline: remembered.map_or(timeline, |(_, seen)| timeline.max(seen)),
            received,
            last_epoch: epoch_in(work).await?,
        })
    }

    /// Waits until two looks agree that there is no receiver, and that the startup process has gone on in between.
    async fn unfed(&self, work: &Work<'_>, conninfo: &str) -> Result<Lsn, Failure> {
        let mut unblocker = Unblocker::new();
        let mut first: Option<(Instant, Progress)> = None;
        loop {
            let seen = Progress::look(work).await?;
            if !seen.is_in_recovery {
                return Err(work.refused("it was promoted meanwhile"));
            }
            if seen.conninfo != conninfo {
                return Err(work.refused("its primary_conninfo was changed by somebody else meanwhile"));
            }
            unblocker.see(work, &seen).await?;
            if seen.has_receiver {
                first = None;
            } else {
                match &first {
                    Some((at, before)) if before.received == seen.received => {
                        // Waiting for WAL, or at another record than before: it has had the occasion to read its settings.
                        let goes_on = (before.is_idle && seen.is_idle) || before.replayed < seen.replayed;
                        if goes_on && at.elapsed() >= BETWEEN_LOOKS {
                            return Ok(seen.received);
                        }
                    }
                    _ => first = Some((Instant::now(), seen.clone())),
                }
            }
            if work.is_late() {
                return Err(work.late(match seen {
                    Progress { has_receiver: true, .. } => "its WAL receiver does not end",
                    Progress { is_blocked: true, .. } => "its replay is blocked by a session that may not be ended",
                    _ => "its startup process does not go on",
                }));
            }
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_read_back_from_where_it_points() {
        let mut conninfo = Conninfo::parse("host=10.0.0.1 port=5 user=u password=p").unwrap();
        assert_eq!(recruited_for(&conninfo), None);
        conninfo.point_at(&nowhere(Epoch(7)), None);
        assert_eq!(recruited_for(&Conninfo::parse(&conninfo.to_text()).unwrap()), Some(Epoch(7)));
        assert_eq!(conninfo.get("password"), Some("p"));
    }
}
