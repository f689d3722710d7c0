//! What became of a transaction, asked of the very server that ran it.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{Control, NodeError, refusal};
use crate::types::NodeId;

/// Transaction ids are only meaningful to the server that gave them out, and after a crash it may give out the same again.
/// The checkpointer is as old as the server's memory: one older than the connection that had the transaction has seen it.
const OUTCOME: &str = "
SELECT CASE WHEN extract(epoch FROM clock_timestamp() - backend_start) > $1
            THEN pg_xact_status($2::text::xid8) ELSE 'restarted' END
FROM pg_stat_activity WHERE backend_type = 'checkpointer'";

/// What a node says of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Committed,
    Aborted,
    InProgress,
    /// Nobody can tell: the server has started anew since, or the transaction is too old.
    Forgotten,
}

impl Control {
    /// Asks a node about a transaction that it ran on a connection opened so long ago.
    pub async fn outcome(&self, node: &NodeId, xid: u64, opened: Duration) -> Result<Outcome, NodeError> {
        let keeper = self.inner.nodes.get(node).ok_or_else(|| NodeError::Unknown(node.clone()))?;
        let (age, xid) = (opened.as_secs_f64(), xid.to_string());
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&age, Type::FLOAT8), (&xid, Type::TEXT)];
        let rows = self
            .inner
            .ask(keeper, super::Line::Questions, OUTCOME, &parameters, self.inner.config.probe_timeout)
            .await?;
        let Some(row) = rows.first() else { return Ok(Outcome::Forgotten) };
        let status: Option<String> = row.try_get(0).map_err(|error| refusal(node, &error))?;
        Ok(match status.as_deref() {
            Some("committed") => Outcome::Committed,
            Some("aborted") => Outcome::Aborted,
            Some("in progress") => Outcome::InProgress,
            _ => Outcome::Forgotten,
        })
    }
}
