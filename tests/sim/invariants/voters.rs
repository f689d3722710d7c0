//! What is stored about voters covers what PostgreSQL goes by, at every instant.
//!
//! A failover recruits by the record. If any process of the primary could acknowledge a commit that those recruits need not
//! have, it could be lost; so each change of voters has an order, the store first or PostgreSQL first, and each WAL sender
//! counts, as each reads its configuration when it gets round to it.

use pgbaton::cluster::{Phase, Record, covers};

use super::{Fact, Invariant, View};
use crate::node::index;
use pgbaton::types::Durability;

pub struct Voters;

impl Invariant for Voters {
    fn name(&self) -> &'static str {
        "voters are covered"
    }

    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String> {
        if !matches!(fact, Fact::Stored { .. } | Fact::NamesApplied { .. })
            || view.policy.durability == Durability::Async
        {
            return Ok(());
        }
        // While it is being promoted, and after it failed to become one, a node acknowledges nothing to clients.
        let has_acknowledged = |record: &&Record| match record.phase {
            Phase::Recruiting => record.written.next() == record.epoch,
            Phase::Promoting => false,
            Phase::Stable => true,
        };
        let Some(record) = view.record.filter(has_acknowledged) else { return Ok(()) };
        let primary = index(&record.primary);
        if let Fact::NamesApplied { node } = fact
            && *node != primary
        {
            return Ok(());
        }
        let server = &view.nodes[primary];
        if !server.is_primary() {
            return Ok(());
        }
        for names in server.sync_in_force() {
            if !covers(&record.sync(), &names) {
                let stored = record.sync();
                return Err(format!("stored are {stored:?}, and a commit on {} waits for {names:?}", server.id));
            }
        }
        Ok(())
    }
}
