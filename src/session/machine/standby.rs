//! A session that is a standby's: it came by `proxy.listen_read_only`, and its home is a replica as that of others is the primary.
//!
//! A text decides nothing about where it runs, only whether it may be asked again if the replica is lost before it has answered.
//! What a session leaves on its server (advisory locks, cursors WITH HOLD) pins it there, and what a standby cannot do
//! PostgreSQL refuses in its own words.

use super::plan::{Demand, Plan, Why};
use super::{ClientStep, Context, Home, Machine};

impl Machine {
    /// The machine of such a session.
    pub fn as_standby(mut self) -> Self {
        self.home = Home::Standby;
        self.demand = Demand::Replica(Why::ReadOnlyListener);
        self
    }

    #[inline]
    pub fn is_standby(&self) -> bool {
        self.home == Home::Standby
    }

    /// At a replica for one statement or block, away from the primary.
    #[inline]
    pub fn is_guest(&self) -> bool {
        self.on_replica && !self.is_standby()
    }

    /// Before the first message of a transaction.
    pub(super) fn place_on_standby(
        &mut self,
        here: &[u8],
        has_server: bool,
        context: &Context<'_>,
    ) -> Option<ClientStep> {
        // The replica has begun to answer: there is nothing to decide any more.
        if has_server && !self.is_armed {
            return None;
        }
        if !self.is_planned
            && let Plan::Wait = self.plan_on_standby(here, context)
        {
            return Some(ClientStep::More);
        }
        // What may not be asked again does not go behind what may.
        match has_server && !self.is_read {
            true if !self.queue.is_empty() => Some(ClientStep::Full),
            true => {
                self.is_armed = false;
                None
            }
            false => None,
        }
    }

    /// Judged as in a session whose transactions are all READ ONLY: what would leave the primary there may be repeated here.
    fn plan_on_standby(&mut self, input: &[u8], context: &Context<'_>) -> Plan {
        self.verdict = None;
        let plan = self.read_ahead(input, context);
        if let Plan::Run(demand) = plan {
            self.is_read = matches!(demand, Demand::Replica(_));
            self.demand_replica(Why::ReadOnlyListener);
        }
        plan
    }
}
