//! Who changes a node does so alone, and what earlier pieces of work left running there ends first.
//!
//! A job that was forgotten, or a pgbaton that was killed, leaves a session behind that goes on with the statement it has: a
//! late ALTER SYSTEM of it could undo what came after. So each piece of work that changes a node holds an advisory lock
//! there, which standbys have too, and whoever comes later ends the session that holds it. The lock is given back when that
//! session is gone with all it was doing, so what is written from then on stands.

use tokio::time::sleep;

use super::work::{PAUSE, Work};
use crate::cluster::Failure;

/// "pgba" and "turn", so as to be nobody else's.
const KEY: (i32, i32) = (0x7067_6261, 0x7475_726e);

impl Work<'_> {
    /// Does this as the only one who changes the node, until somebody else wants to.
    pub async fn alone<T>(&self, change: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.take_turn().await?;
        let outcome = change.await;
        // What could not be given back is given back with the session.
        if self.is_whole() && self.run(&format!("SELECT pg_advisory_unlock({}, {})", KEY.0, KEY.1)).await.is_ok() {
            self.holds_turn(false);
        }
        outcome
    }

    async fn take_turn(&self) -> Result<(), Failure> {
        let take = format!("SELECT pg_try_advisory_lock({}, {})", KEY.0, KEY.1);
        let mut was_held = false;
        // Before the answer: whoever waits for it may be stopped.
        self.holds_turn(true);
        while !self.get::<bool>(&self.row(&take, &[]).await?, 0)? {
            let (ended, kept) = self.end_holders().await?;
            if ended > 0 && !std::mem::replace(&mut was_held, true) {
                tracing::debug!(node = %self.node(), "ended what an earlier piece of work had left running");
            }
            if self.is_late() {
                return Err(self.late(match kept > 0 {
                    true => "a session that may not be ended holds the lock of who changes the node",
                    false => "what an earlier piece of work left running there does not end",
                }));
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// How many sessions that hold the lock were told to end, and how many may not be: anybody who can connect may take it.
    async fn end_holders(&self) -> Result<(i64, i64), Failure> {
        let sql = format!(
            "SELECT count(CASE WHEN may THEN pg_terminate_backend(pid) END), count(*) FILTER (WHERE NOT may)
             FROM (SELECT session.pid,
                          me.rolsuper OR session.usesysid = me.oid
                              OR (pg_has_role('pg_signal_backend', 'USAGE') AND NOT coalesce(role.rolsuper, false)) AS may
                   FROM pg_locks AS lock
                   JOIN pg_stat_activity AS session ON session.pid = lock.pid
                   JOIN pg_roles AS me ON me.rolname = current_user
                   LEFT JOIN pg_roles AS role ON role.oid = session.usesysid
                   WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 2
                         AND lock.classid::bigint = {} AND lock.objid::bigint = {}
                         AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                         AND lock.pid <> pg_backend_pid() OFFSET 0) AS holder",
            KEY.0, KEY.1
        );
        let row = self.row(&sql, &[]).await?;
        Ok((self.get(&row, 0)?, self.get(&row, 1)?))
    }
}
