//! The data plane as the driver knows it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::DataPlane;
use crate::session::shared::Shared;
use crate::types::{Epoch, NodeId};

pub(super) struct Plane(pub Arc<Shared>);

impl DataPlane for Plane {
    fn close_writes(&self, epoch: Epoch, reason: &str) {
        self.0.close_writes(epoch, reason.to_owned());
    }

    fn open_writes(&self, epoch: Epoch, primary: &NodeId) {
        if self.0.resume_writes(epoch) {
            return;
        }
        // Connections from when it was a standby may be in transactions that stay read-only.
        self.0.pools.retire(primary);
        self.0.forget_greetings();
        self.0.open_writes(epoch);
    }

    fn drain_writes(&self, reason: &str) {
        self.0.drain_writes(reason.to_owned());
    }

    fn all_drained(&self, limit: Duration) -> Pin<Box<dyn Future<Output = usize> + Send + '_>> {
        Box::pin(self.0.all_drained(limit))
    }

    fn all_let_go(&self, limit: Duration) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(self.0.all_let_go(limit))
    }

    fn doubts(&self) -> Vec<u64> {
        self.0.doubts.pending()
    }

    fn deliver(&self, outcomes: &HashMap<u64, bool>) {
        self.0.doubts.deliver(outcomes);
    }

    fn deliver_some(&self, outcomes: &HashMap<u64, bool>) {
        self.0.doubts.deliver_some(outcomes);
    }

    fn acknowledged(&self) -> u64 {
        self.0.doubts.acknowledged()
    }
}
