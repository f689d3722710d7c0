//! The last questions to a standby before it is promoted: has it replayed everything, and which commits in doubt are in it?
//!
//! After the promotion transaction ids are handed out again, and the answer could be about somebody else's transaction. A
//! primary that crashed and restarted in place hands out again those of which nothing had reached its disk. So what it says
//! of a transaction is what became of the last one with that number. If that is not the one meant, then the one meant was lost
//! before: "aborted" is right for both, "committed" only where it is known that the number was handed out once.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;

use super::Control;
use super::observe::epoch_in;
use super::recruit::{Progress, Unblocker};
use super::work::{PAUSE, Work};
use crate::cluster::{Answer, Failure};
use crate::types::{Lsn, NodeId};

/// For replaying what was received. A standby that serves reads is seldom more than a second behind.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// While the startup process is watched for reading on. What it starts then may live for a few milliseconds only.
const WATCH: Duration = Duration::from_millis(1);

/// The startup process is woken so often, until it was seen to read on.
const BETWEEN_WAKES: Duration = Duration::from_millis(50);

/// What a node says of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XactStatus {
    Committed,
    Aborted,
    /// On a primary: there is one of that number that was committed. The one that is meant, or, if the node has restarted
    /// since, another that got the number of one that was lost.
    Ambiguous,
    /// On a recruited standby: neither its commit nor its abort has been received. It will be aborted by the promotion. On a
    /// primary it may wait for standbys still.
    InProgress,
    /// It has never heard of it; a primary has not handed it out since it started.
    Future,
    /// So long ago that nothing is known any more.
    TooOld,
}

/// `pg_xact_status` raises an error for a number that was not handed out yet, so those are told apart first. The upper end of
/// a snapshot is at most the next number to be handed out, and nothing at or above it has committed.
const STATUS: &str = "
SELECT CASE WHEN xid < pg_snapshot_xmax(pg_current_snapshot()) THEN coalesce(pg_xact_status(xid), 'too old')
            ELSE 'in the future' END
FROM (SELECT text::xid8 AS xid, number FROM unnest($1::text[]) WITH ORDINALITY AS asked (text, number)) AS asked
ORDER BY number";

/// Takes a number, which nobody else gets then, and says so to nobody.
const NEXT: &str = "SELECT pg_current_xact_id()::text";

impl Control {
    /// Waits until a recruited standby has replayed all it received, and asks it about these transactions; the answers are in
    /// the order of the questions. Of a node that is no standby (any more) it only asks. `incarnation`: what the primary they
    /// were sent to was when it began to take writes.
    pub async fn settle(
        &self,
        node: &NodeId,
        xids: &[u64],
        incarnation: Option<u64>,
    ) -> Result<(Answer, Vec<(u64, XactStatus)>), Failure> {
        let keeper = &self.inner.keeper(node)?;
        let work = Work::begin(&self.inner, keeper, SETTLE_LIMIT).await?;
        let replayed = replay_all(&work).await?;
        let ground = work.row("SELECT pg_is_in_recovery()", &[]).await?;
        let statuses = if work.get(&ground, 0)? {
            ask(&work, xids).await?
        } else if xids.is_empty() {
            Vec::new()
        } else {
            let row = work.row(NEXT, &[]).await?;
            let next: u64 = work
                .get::<&str>(&row, 0)?
                .parse()
                .map_err(|_| work.refused("it hands out transaction ids that are not understood"))?;
            let durable =
                keeper.memory().durable_xid.filter(|(of, _)| Some(*of) == incarnation).map_or(0, |(_, xid)| xid);
            let said = ask(&work, xids).await?;
            said.into_iter().map(|(xid, status)| (xid, on_primary(xid, status, next, durable))).collect()
        };
        Ok((Answer::Settled { replayed, last_epoch: epoch_in(&work).await? }, statuses))
    }
}

/// What a primary says, in the light of the number it hands out next, and of one that was on its disk before it restarted.
fn on_primary(xid: u64, status: XactStatus, next: u64, durable: u64) -> XactStatus {
    match status {
        // Whatever has become of that number since it was asked.
        _ if xid >= next => XactStatus::Future,
        // At the upper end of a snapshot is the first that has not ended.
        XactStatus::Future => XactStatus::InProgress,
        XactStatus::Committed if xid > durable => XactStatus::Ambiguous,
        _ => status,
    }
}

async fn ask(work: &Work<'_>, xids: &[u64]) -> Result<Vec<(u64, XactStatus)>, Failure> {
    let texts: Vec<String> = xids.iter().map(u64::to_string).collect();
    let rows = work.rows(STATUS, &[(&texts, Type::TEXT_ARRAY)]).await?;
    if rows.len() != xids.len() {
        return Err(work.refused("it answered fewer questions about transactions than were asked"));
    }
    let mut statuses = Vec::with_capacity(xids.len());
    for (xid, row) in xids.iter().zip(&rows) {
        let status = match work.get::<&str>(row, 0)? {
            "committed" => XactStatus::Committed,
            "aborted" => XactStatus::Aborted,
            "in progress" => XactStatus::InProgress,
            "in the future" => XactStatus::Future,
            "too old" => XactStatus::TooOld,
            other => return Err(work.refused(format!("it says a transaction is \"{other}\", which is not understood"))),
        };
        statuses.push((*xid, status));
    }
    Ok(statuses)
}

/// Waits until nothing is left to be replayed, by positive signs: everything received is replayed, or the startup process
/// has tried to read on and found nothing that it can replay. (The primary may have died in the middle of a record, of which
/// the first part was received; it is never replayed.)
async fn replay_all(work: &Work<'_>) -> Result<Lsn, Failure> {
    let mut unblocker = Unblocker::new();
    let mut end = End::default();
    loop {
        let seen = Progress::look(work).await?;
        if !seen.is_in_recovery {
            let row = work.row("SELECT pg_current_wal_lsn()", &[]).await?;
            return work.lsn(&row, 0);
        }
        // After a restart only what was replayed is known to have been received, so the startup process has to be idle too.
        if seen.is_idle && seen.replayed >= seen.received && !seen.has_receiver {
            return Ok(seen.replayed);
        }
        unblocker.see(work, &seen).await?;
        if end.see(work, &seen).await? {
            return Ok(seen.replayed);
        }
        if work.is_late() {
            return Err(work.late(format!(
                "it has replayed up to {} of {} and does not get on{}",
                seen.replayed,
                seen.received,
                if seen.has_receiver { ", as it still receives" } else { "" }
            )));
        }
        sleep(if end.is_watched() { WATCH } else { PAUSE }).await;
    }
}

/// Whether a standby that has received more than it has replayed stands at the end of what can be replayed.
///
/// That the startup process waits is not enough: it also waits, for `wal_retrieve_retry_interval`, when its receiver has ended
/// for the second time within that, before it reads what was received last. But it tries to receive more only after it has
/// found nothing to replay in any file. So it is woken, by a reload, and its next receiver is looked for, which lives for as
/// long as it takes to see that a recruit's primary is nowhere. Or it has waited at one place for longer than that interval.
#[derive(Default)]
struct End {
    /// Where it waits, since when, and how long it may do so before it reads again.
    waits: Option<(Lsn, Instant, Duration)>,
    woken: Option<Instant>,
    has_tried: bool,
}

impl End {
    fn is_watched(&self) -> bool {
        self.waits.is_some()
    }

    /// To be called with each look.
    async fn see(&mut self, work: &Work<'_>, seen: &Progress) -> Result<bool, Failure> {
        if seen.is_paused || seen.is_blocked || self.waits.is_some_and(|(at, ..)| at != seen.replayed) {
            *self = End::default();
            return Ok(false);
        }
        let Some((_, since, interval)) = self.waits else {
            if seen.is_idle && !seen.has_receiver {
                let interval = interval(work).await?;
                self.waits = Some((seen.replayed, Instant::now(), interval));
            }
            return Ok(false);
        };
        self.has_tried |= seen.has_receiver && self.woken.is_some();
        if seen.is_idle && !seen.has_receiver && (self.has_tried || since.elapsed() > interval) {
            return Ok(true);
        }
        if !self.has_tried && self.woken.is_none_or(|at| at.elapsed() >= BETWEEN_WAKES) {
            work.row("SELECT pg_reload_conf()", &[]).await?;
            self.woken = Some(Instant::now());
        }
        Ok(false)
    }
}

/// `wal_retrieve_retry_interval`, and half as much again for a machine that is busy.
async fn interval(work: &Work<'_>) -> Result<Duration, Failure> {
    const INTERVAL: &str =
        "SELECT (extract(epoch FROM current_setting('wal_retrieve_retry_interval')::interval) * 1500)::bigint";
    let row = work.row(INTERVAL, &[]).await?;
    Ok(Duration::from_millis(work.get::<i64>(&row, 0)?.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::XactStatus::{Aborted, Ambiguous, Committed, Future, InProgress, TooOld};
    use super::*;

    #[test]
    fn a_primary_is_believed_as_far_as_numbers_were_handed_out_once() {
        // 700 is on disk, and 800 is the next.
        let seen = |xid, status| on_primary(xid, status, 800, 700);
        for status in [Committed, Aborted, InProgress, Future, TooOld] {
            assert_eq!(seen(800, status), Future, "handed out by nobody but to this question");
            assert_eq!(seen(900, status), Future);
        }
        assert_eq!([699, 700, 701].map(|xid| seen(xid, Committed)), [Committed, Committed, Ambiguous]);
        assert_eq!([699, 701].map(|xid| seen(xid, Aborted)), [Aborted; 2]);
        assert_eq!([699, 701].map(|xid| seen(xid, InProgress)), [InProgress; 2]);
        assert_eq!(seen(799, Future), InProgress, "it may have begun and not ended");
        assert_eq!(seen(5, TooOld), TooOld);
        assert_eq!(on_primary(5, Committed, 800, 0), Ambiguous, "nothing is known to be on disk");
    }
}
