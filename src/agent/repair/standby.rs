//! Starting a standby, and believing that it is one only when it has replayed something new from its primary.
//!
//! A standby that is ahead of its primary says `streaming` for a moment, and then replays nothing for ever.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::types::PgLsn;

use super::program::is_about_password;
use super::server::{Asked, Source};
use crate::agent::{Failed, Place, Server, Site, Steps};
use crate::cluster::agent::Code;
use crate::types::Lsn;

const PAUSE: Duration = Duration::from_millis(100);
/// Without any progress of receiving or replaying: several attempts of a WAL receiver whose retry interval is 5 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// What its log says counts when it has said so for so long: a first attempt may meet a primary that is just ready.
const SECOND_THOUGHT: Duration = Duration::from_secs(2);
const LOG_LINES: usize = 60;

const PROGRESS: &str = "
SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn(),
       greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()),
       (SELECT status = 'streaming' FROM pg_stat_wal_receiver),
       (SELECT received_tli FROM pg_stat_wal_receiver),
       (SELECT sender_host FROM pg_stat_wal_receiver), (SELECT sender_port FROM pg_stat_wal_receiver),
       (SELECT setting::bigint > 0 FROM pg_settings WHERE name = 'recovery_min_apply_delay')";

/// Why a node is no standby of that primary yet.
#[derive(Debug)]
pub enum NotYet {
    /// What the data is stands in the way: a more thorough repair may help.
    Data(String),
    /// It would not.
    Other(Failed),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    is_in_recovery: bool,
    replayed: Lsn,
    received: Lsn,
    is_streaming: bool,
    /// It receives from the place that was ordered.
    is_from_there: bool,
    /// And on the primary's timeline.
    is_right: bool,
    is_delayed: bool,
}

async fn look(asked: &Asked, place: &Place, source: &Source) -> Result<Seen, Failed> {
    let row = asked.row(PROGRESS, &[]).await?;
    let row = row.as_ref();
    let lsn = |at| asked.column::<Option<PgLsn>>(row, at).map(|lsn| Lsn(lsn.map_or(0, u64::from)));
    let host = asked.column::<Option<String>>(row, 5)?;
    let port = asked.column::<Option<i32>>(row, 6)?;
    let timeline = asked.column::<Option<i32>>(row, 4)?;
    let is_from_there = host.as_deref() == Some(&*place.host) && port == Some(i32::from(place.port));
    Ok(Seen {
        is_in_recovery: asked.column(row, 0)?,
        replayed: lsn(1)?,
        received: lsn(2)?,
        is_streaming: asked.column::<Option<bool>>(row, 3)?.unwrap_or(false),
        is_from_there,
        is_right: is_from_there && timeline == Some(source.timeline.0 as i32),
        is_delayed: asked.column::<Option<bool>>(row, 7)?.unwrap_or(false),
    })
}

/// Whether a server that runs is a standby of that primary already, and replays.
pub async fn is_one(site: &Site, place: &Place, source: &Source) -> bool {
    let patience = Instant::now() + Duration::from_secs(3);
    let asking = async {
        let asked = Asked::own(site).await?;
        let mut wanted = None;
        while Instant::now() < patience {
            let seen = look(&asked, place, source).await?;
            if !seen.is_in_recovery || !seen.is_streaming || !seen.is_right {
                return Ok(false);
            }
            let wanted = match wanted {
                Some(wanted) => wanted,
                None => *wanted.insert(source.beacon().await?),
            };
            if has(&seen, wanted) {
                return Ok(seen.replayed <= source.flushed().await?);
            }
            sleep(PAUSE).await;
        }
        Ok::<_, Failed>(false)
    };
    asking.await.unwrap_or(false)
}

fn has(seen: &Seen, wanted: Lsn) -> bool {
    seen.replayed >= wanted || seen.is_delayed && seen.received >= wanted
}

/// Returns when it has replayed what was written on the primary after it began to receive.
pub async fn start(
    site: &Site,
    server: &dyn Server,
    place: &Place,
    source: &Source,
    steps: &Steps,
) -> Result<(), NotYet> {
    steps.say(format!("starting as a standby of {}", place.node));
    if let Err(error) = server.start().await {
        return Err(unstarted(error, &server.log_tail(LOG_LINES)));
    }
    let asked = Asked::own(site).await.map_err(NotYet::Other)?;
    let mut wanted = None;
    let mut best = (Lsn(0), Lsn(0));
    let mut since = Instant::now();
    let mut complained: Option<Instant> = None;
    loop {
        let seen = look(&asked, place, source).await.map_err(NotYet::Other)?;
        if !seen.is_in_recovery {
            let why = "it runs as a primary, though it was started as a standby";
            return Err(NotYet::Other(Failed::new(Code::Failed, why)));
        }
        if seen.is_streaming && seen.is_right {
            let wanted = match wanted {
                Some(wanted) => wanted,
                None => *wanted.insert(source.beacon().await.map_err(NotYet::Other)?),
            };
            if has(&seen, wanted) {
                // Nobody who replays this primary's log has replayed more than there is of it.
                let there = source.flushed().await.map_err(NotYet::Other)?;
                if seen.replayed > there {
                    let why = format!("it has replayed up to {}, and the primary has written {there}", seen.replayed);
                    return Err(NotYet::Data(why));
                }
                return Ok(());
            }
            steps.tell(format!("replaying: at {} of {wanted}", seen.replayed));
        }
        // Nobody but pgbaton tells it whom to follow: there is another primary by now, and what comes from that one is
        // neither waited for nor a reason for a more thorough repair.
        if seen.is_streaming && !seen.is_from_there {
            let why = format!("it was told to follow another primary than {} meanwhile", place.node);
            return Err(NotYet::Other(Failed::new(Code::Failed, why)));
        }
        if (seen.replayed, seen.received) > best {
            best = (seen.replayed, seen.received);
            (since, complained) = (Instant::now(), None);
        }
        let log = server.log_tail(LOG_LINES);
        match complaint(&log) {
            Some(why) if complained.is_some_and(|first| first.elapsed() > SECOND_THOUGHT) => return Err(why),
            Some(_) => drop(complained.get_or_insert_with(Instant::now)),
            None => complained = None,
        }
        if since.elapsed() > PATIENCE {
            let last: Vec<&str> = log.lines().rev().take(6).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            let why = format!("nothing came from the primary for {} s; its log ends with\n{last}", PATIENCE.as_secs());
            return Err(NotYet::Data(why));
        }
        sleep(PAUSE).await;
    }
}

/// What a log says of why nothing comes.
fn complaint(log: &str) -> Option<NotYet> {
    let line = |phrase: &str| log.lines().rev().find(|line| line.contains(phrase)).map(str::trim);
    if let Some(line) = line("database system identifier differs") {
        return Some(NotYet::Other(Failed::new(Code::OtherCluster, line)));
    }
    let is_password = |line: &&str| is_about_password(line);
    if let Some(line) = log.lines().rev().find(is_password) {
        return Some(NotYet::Other(Failed::new(Code::Password, line.trim())));
    }
    let phrases = [
        "requested WAL segment",
        "requested starting point",
        "forked off current database system timeline",
        "is not a child of database system timeline",
        "is behind recovery timeline",
        "has been invalidated",
        "can no longer get changes from replication slot",
    ];
    phrases.iter().find_map(|phrase| line(phrase)).map(|line| NotYet::Data(line.to_owned()))
}

/// A server that did not even start: whether its data is why.
fn unstarted(error: Failed, log: &str) -> NotYet {
    let phrases = [
        "could not locate a valid checkpoint record",
        "could not locate required checkpoint record",
        "requested timeline",
        "invalid data in file \"backup_label\"",
        "WAL ends before",
        "invalid checkpoint record",
        "incorrect checksum in control file",
        "could not find redo location",
        "page verification failed",
    ];
    match log.lines().rev().find(|line| phrases.iter().any(|phrase| line.contains(phrase))) {
        Some(line) => NotYet::Data(format!("it does not start: {}", line.trim())),
        None => complaint(log).unwrap_or(NotYet::Other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_whether_more_would_help() {
        let gone = "x FATAL:  could not receive data from WAL stream: ERROR:  requested WAL segment 0001 has already been removed";
        assert!(matches!(complaint(&format!("a\n{gone}\nb")), Some(NotYet::Data(line)) if line == gone));
        let other = "FATAL:  password authentication failed for user \"pgbaton\"";
        assert!(matches!(complaint(other), Some(NotYet::Other(failed)) if failed.code == Code::Password));
        assert!(complaint("LOG:  started streaming WAL from primary at 0/3000000 on timeline 1").is_none());
        let failed = || Failed::new(Code::PortTaken, "x");
        assert!(
            matches!(unstarted(failed(), "could not bind"), NotYet::Other(failed) if failed.code == Code::PortTaken)
        );
        let log = "PANIC:  could not locate a valid checkpoint record";
        assert!(matches!(unstarted(failed(), log), NotYet::Data(_)));
    }
}
