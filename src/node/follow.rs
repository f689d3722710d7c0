//! Making a standby receive from a primary.

use std::time::Duration;

use super::Control;
use super::keeper::{Inner, Keeper};
use super::slots::slot_name;
use super::work::{Value, Work};
use crate::cluster::{Answer, Failure};
use crate::net::Conninfo;
use crate::types::NodeId;

/// It is told, and it is not waited for whether it does.
pub const FOLLOW_LIMIT: Duration = Duration::from_secs(5);

impl Control {
    /// Points a standby's `primary_conninfo` at that node, with everything else in it kept, and with the slot of its own
    /// there if there is one or can be.
    pub async fn follow(&self, node: &NodeId, primary: &NodeId) -> Result<Answer, Failure> {
        let keeper = &self.inner.keeper(node)?;
        let upstream = &self.inner.keeper(primary)?;
        let work = Work::begin(&self.inner, keeper, FOLLOW_LIMIT).await?;
        if node == primary {
            return Err(work.refused("it cannot follow itself"));
        }
        work.alone(self.inner.follow(&work, upstream)).await
    }
}

impl Inner {
    async fn follow(&self, work: &Work<'_>, upstream: &Keeper) -> Result<Answer, Failure> {
        let (node, primary) = (work.node(), &upstream.address.id);
        let row = work.row("SELECT pg_is_in_recovery(), current_setting('primary_conninfo')", &[]).await?;
        if !work.get::<bool>(&row, 0)? {
            return Err(work.refused("it is no standby; it has to be stopped, rewound and started as one"));
        }
        let mut conninfo = Conninfo::parse(work.get(&row, 1)?)
            .map_err(|error| work.refused(format!("its primary_conninfo cannot be read: {error}")))?;
        if conninfo.keys().all(|key| matches!(key, "host" | "hostaddr")) {
            return Err(work.refused(
                "its primary_conninfo is empty, so it is not known as whom it is to connect; set it by hand, with user and \
                 password (or passfile)",
            ));
        }
        conninfo.point_at(&upstream.address.host, Some(upstream.address.port));
        conninfo.set("application_name", &node.0);
        // A receiver that names a slot which is not there receives nothing at all.
        let slot = match self.make_slot(upstream, &slot_name(node)).await {
            Ok(()) => slot_name(node),
            Err(error) => {
                tracing::warn!(%node, %primary, %error, "it follows without a slot, which cannot be made");
                String::new()
            }
        };
        work.put(&[("primary_slot_name", Value::To(slot)), ("primary_conninfo", Value::To(conninfo.to_text()))])
            .await?;
        Ok(Answer::Follows)
    }
}
