//! Brings a recruited standby up to another one, before that is promoted.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Control;
use super::work::PAUSE;
use crate::cluster::{Answer, Failure, Sight};
use crate::types::{Epoch, Lsn, NodeId};

/// What is missing is what was in a dead primary's socket buffers: kilobytes. Nobody waits longer for it.
const LIMIT: Duration = Duration::from_millis(500);

impl Control {
    /// Has a recruit receive from another recruit until it has everything up to `until`, and recruits it again, whether or not
    /// that was reached: the answer says how far it has come.
    pub async fn level(&self, node: &NodeId, epoch: Epoch, from: &NodeId, until: Lsn) -> Result<Answer, Failure> {
        self.follow(node, from).await?;
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            match self.observe(node).await {
                Sight::Answers(seen) if seen.lsn >= until => break,
                _ => sleep(PAUSE).await,
            }
        }
        self.recruit(node, epoch).await
    }
}
