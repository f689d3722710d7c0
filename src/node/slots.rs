//! A physical replication slot for every node on every other, so that a new primary already has what its standbys need.
//!
//! On a standby nobody moves a slot forward by using it, so it is moved to where its owner is; and no slot, wherever it is,
//! may keep so much of the log that the disk fills up.

use tokio_postgres::types::{PgLsn, ToSql, Type};

use super::keeper::{Inner, Keeper, Line};
use super::work::Work;
use super::{Control, NodeError};
use crate::types::{Lsn, NodeId};

/// So much log may a slot keep that nobody uses: enough for some minutes of a standby's absence, and little enough for
/// every disk. A standby that needs more is made anew.
pub const SLOT_KEEP_BYTES: i64 = 1 << 30;

/// `$1`: names. What is kept is counted from the end of what is replayed or written.
const SLOTS: &str = "
SELECT slot_name::text, active, slot_type = 'physical',
       restart_lsn, coalesce(wal_status = 'lost', false),
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                       restart_lsn)::bigint
FROM pg_replication_slots WHERE slot_name = ANY ($1::text[]::name[])";

/// `$2`: whether it keeps the log from now on, or only from its first use on.
const MAKE: &str = "SELECT pg_create_physical_replication_slot($1::text::name, $2)";
const DROP: &str = "SELECT pg_drop_replication_slot($1::text::name)";
const ADVANCE: &str = "SELECT pg_replication_slot_advance($1::text::name, $2)";

/// A node's slot on any other. Slots have names of lower-case letters, digits and `_`, of up to 63 bytes.
pub(super) fn slot_name(node: &NodeId) -> String {
    let fitting = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '_') => c,
        _ => '_',
    };
    node.0.chars().map(fitting).take(63).collect()
}

impl Control {
    /// Sees to the slots of these peers, who are that far, on one node. To be called every few seconds. A right that is
    /// missing is complained of once in the log, as replication works without slots too.
    ///
    /// As it comes by so often, it also sees to it that a connection lies ready for the work of a failover.
    pub async fn keep_slots(&self, node: &NodeId, is_primary: bool, peers: &[(NodeId, Lsn)]) {
        let Ok(keeper) = &self.inner.keeper(node) else { return };
        drop(Work::begin(&self.inner, keeper, self.inner.config.probe_timeout).await);
        if let Err(error) = self.inner.keep_slots(keeper, is_primary, peers).await {
            let is_refused = matches!(error, NodeError::Refused { .. });
            if is_refused && keeper.is_news(&format!("slots: {error}")) {
                tracing::warn!(
                    %node, %error,
                    "replication slots cannot be kept there; the control user needs the attribute REPLICATION, and \
                     max_replication_slots must have room for every node"
                );
            }
        }
    }

    /// The slots of these nodes, which are nodes no more, are to go from this one: what nobody fetches would be kept for ever.
    /// One that is in use has to wait until its owner is stopped. Whether all of them are gone.
    pub async fn drop_slots(&self, node: &NodeId, owners: &[NodeId], kept: &[NodeId]) -> Result<bool, NodeError> {
        let keeper = &self.inner.keeper(node)?;
        self.inner.drop_slots(keeper, owners, kept).await
    }

    /// A node leaves: it is not to keep the log for the others any more. Begun while it is still known here, to be waited for
    /// when it is not.
    pub fn part(&self, node: &NodeId, others: Vec<NodeId>) -> impl Future<Output = Result<bool, NodeError>> + use<> {
        let (inner, keeper) = (self.inner.clone(), self.inner.keeper(node));
        async move {
            let keeper = &keeper?;
            inner.drop_slots(keeper, &others, &[]).await
        }
    }
}

impl Inner {
    async fn drop_slots(&self, keeper: &Keeper, owners: &[NodeId], kept: &[NodeId]) -> Result<bool, NodeError> {
        let kept: Vec<String> = kept.iter().map(slot_name).collect();
        let names: Vec<String> = owners.iter().map(slot_name).filter(|name| !kept.contains(name)).collect();
        let rows = self.ask_slots(keeper, SLOTS, &[(&names, Type::TEXT_ARRAY)]).await?;
        let mut are_gone = true;
        // A logical one of that name is somebody else's.
        for row in rows.iter().filter(|row| row.get::<_, bool>(2)) {
            let (name, is_active) = (row.get::<_, &str>(0), row.get::<_, bool>(1));
            match is_active {
                true => are_gone = false,
                false => {
                    self.ask_slots(keeper, DROP, &[(&name, Type::TEXT)]).await?;
                    tracing::info!(node = %keeper.address.id, slot = name, "dropped the slot of a node that was removed");
                }
            }
        }
        Ok(are_gone)
    }

    /// There is a slot of this name, and it keeps the log from now on if it was not there before.
    pub async fn make_slot(&self, keeper: &Keeper, name: &str) -> Result<(), NodeError> {
        let rows = self.ask_slots(keeper, SLOTS, &[(&vec![name], Type::TEXT_ARRAY)]).await?;
        match rows.first() {
            Some(row) if row.get::<_, bool>(4) => self.ask_slots(keeper, DROP, &[(&name, Type::TEXT)]).await?,
            Some(_) => return Ok(()),
            None => Vec::new(),
        };
        let keeps = true;
        match self.ask_slots(keeper, MAKE, &[(&name, Type::TEXT), (&keeps, Type::BOOL)]).await {
            // Somebody was faster.
            Err(NodeError::Refused { sqlstate, .. }) if sqlstate == "42710" => Ok(()),
            other => other.map(drop),
        }
    }

    async fn keep_slots(&self, keeper: &Keeper, is_primary: bool, peers: &[(NodeId, Lsn)]) -> Result<(), NodeError> {
        let node = &keeper.address.id;
        let peers: Vec<(String, Lsn)> =
            peers.iter().filter(|(peer, _)| peer != node).map(|(peer, at)| (slot_name(peer), *at)).collect();
        let names: Vec<&str> = peers.iter().map(|(name, _)| name.as_str()).collect();
        let rows = self.ask_slots(keeper, SLOTS, &[(&names, Type::TEXT_ARRAY)]).await?;
        for (name, at) in &peers {
            let slot = rows.iter().find(|row| row.get::<_, &str>(0) == name);
            let Some(slot) = slot else {
                self.ask_slots(keeper, MAKE, &[(name, Type::TEXT), (&true, Type::BOOL)]).await?;
                continue;
            };
            let (is_active, is_physical, is_lost) =
                (slot.get::<_, bool>(1), slot.get::<_, bool>(2), slot.get::<_, bool>(4));
            if is_active || !is_physical {
                continue;
            }
            let kept = slot.get::<_, Option<i64>>(5).unwrap_or(0);
            if is_lost || kept > SLOT_KEEP_BYTES {
                tracing::warn!(
                    %node, slot = name, kept_bytes = kept,
                    "dropped the replication slot of a node that is too far behind; it may have to be made anew"
                );
                self.ask_slots(keeper, DROP, &[(name, Type::TEXT)]).await?;
                // It is there when its owner comes, and keeps nothing until then.
                self.ask_slots(keeper, MAKE, &[(name, Type::TEXT), (&false, Type::BOOL)]).await?;
                continue;
            }
            let restart = slot.get::<_, Option<PgLsn>>(3).map(u64::from);
            if !is_primary && restart.is_some_and(|restart| restart < at.0) {
                self.ask_slots(keeper, ADVANCE, &[(name, Type::TEXT), (&PgLsn::from(at.0), Type::PG_LSN)]).await?;
            }
        }
        Ok(())
    }

    async fn ask_slots(
        &self,
        keeper: &Keeper,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<tokio_postgres::Row>, NodeError> {
        self.ask(keeper, Line::Writes, sql, parameters, self.config.probe_timeout).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_called_as_their_owners_as_far_as_may_be() {
        assert_eq!(slot_name(&NodeId::from("n2")), "n2");
        assert_eq!(slot_name(&NodeId::from("Db-East.2")), "db_east_2");
        assert_eq!(slot_name(&NodeId::from(&*"x".repeat(80))).len(), 63);
    }
}
