//! Writes are taken only when the row of the epoch is committed on its primary.
//!
//! The row is what makes a store older than the database noticeable, what tells two timelines of the same number apart, and,
//! as it is acknowledged by the voters, the proof that this primary can commit at all.

use pgbaton::cluster::{Action, Lead};

use super::{Fact, Invariant, View};
use crate::node::index;
use crate::wal::Payload;

pub struct EpochRow;

impl Invariant for EpochRow {
    fn name(&self) -> &'static str {
        "the row of the epoch"
    }

    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String> {
        let Fact::Acting(Action::Publish(Lead::Open { epoch, primary, .. })) = fact else { return Ok(()) };
        let node = &view.nodes[index(primary)];
        if node.wal.entries.iter().rev().any(|entry| entry.payload == Payload::Row(epoch.0)) {
            Ok(())
        } else {
            Err(format!("{primary} takes writes without the row of epoch {epoch}"))
        }
    }
}
