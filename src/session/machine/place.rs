//! Whether what comes next may be sent where the session is: before a transaction, and within one on a replica.

use super::block::Fit;
use super::client::Taken;
use super::plan::{Demand, Plan, Why};
use super::{ClientStep, Context, Due, Home, Machine, Tx};
use crate::pool::memory::{Memory, Prepared};
use crate::session::sink::Sink;
use crate::sql::{Kind, Pin, Pins, Statement};
use crate::wire::fields;
use crate::wire::message;

impl Machine {
    /// Before the first message of a transaction: whether it may be sent where we are, or has to wait, or go elsewhere.
    pub(super) fn place(
        &mut self,
        tag: u8,
        here: &[u8],
        has_server: bool,
        context: &Context<'_>,
    ) -> Option<ClientStep> {
        if matches!(tag, b'S' | b'H' | b'c' | b'f') {
            return None;
        }
        if self.status != Tx::Idle || self.unsynced {
            if !has_server {
                // What is left of a lost block.
                match self.is_standby() {
                    true => self.demand_replica(Why::ReadOnlyListener),
                    false => self.demand_primary(Why::Transaction),
                }
            }
            return None;
        }
        if self.is_standby() {
            return self.place_on_standby(here, has_server, context);
        }
        let is_soft = has_server && !self.on_replica && self.queue.is_empty() && self.pins == Pins::of(Pin::Sequence);
        if has_server && !self.on_replica && !(is_soft && context.reads) {
            return None;
        }
        if !self.is_planned
            && let Plan::Wait = self.plan(here, context)
        {
            return Some(ClientStep::More);
        }
        match self.demand {
            // What is before it comes to rest first, so that the block is known for what it is.
            Demand::Replica(Why::ReadOnlyTransaction) if self.on_replica && !self.queue.is_empty() => {
                Some(ClientStep::Full)
            }
            Demand::Replica(_) if is_soft => Some(ClientStep::SetAside),
            Demand::Primary(_) if self.on_replica && has_server => match self.queue.is_empty() {
                true => Some(ClientStep::GiveBack),
                false => Some(ClientStep::Full),
            },
            _ => None,
        }
    }

    /// Sends what is bound to fail in place of a query that must not run here, whose error will be `problem`.
    pub(super) fn refuse_query(
        &mut self,
        problem: &message::Problem,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
    ) -> Taken {
        self.unnamed = None;
        memory.unnamed = 0;
        self.unsynced = false;
        message::query(to_server.insert(), b"ROLLBACK TO SAVEPOINT pgbaton_refused");
        self.expect(Due::RefusedQuery(problem.body().into()));
        Taken::Dropped
    }

    /// What a READ ONLY transaction hears that has read from a replica and now wants what only the primary has.
    pub(super) fn elsewhere(&mut self, text: &[u8], context: &Context<'_>) -> message::Problem {
        self.home = Home::PrimaryOnly;
        let judged = self.judge(text, context);
        let reason = judged.verdict.reasons.first().cloned().unwrap_or_default();
        message::Problem::new(
            "40001",
            "this READ ONLY transaction reads from a replica, where the statement cannot run",
        )
        .detail(reason)
        .hint("Run the transaction again: READ ONLY transactions of this session go to the primary from now on.")
    }

    /// What was said of a statement when it was prepared, its text first.
    pub(super) fn tail_of_statement<'t>(&'t self, name: &[u8], prepared: Option<&'t Prepared>) -> &'t [u8] {
        match (prepared, &self.unnamed) {
            (Some(prepared), _) => &prepared.tail[..],
            (None, Some(unnamed)) if name.is_empty() => &unnamed.tail[..],
            _ => &[],
        }
    }

    pub(super) fn text_of_statement(&self, name: &[u8], prepared: Option<&Prepared>) -> Vec<u8> {
        let tail = self.tail_of_statement(name, prepared);
        fields::cstr(tail).map_or(tail, |(text, _)| text).to_vec()
    }

    pub(super) fn bind_in_block(
        &mut self,
        name: &[u8],
        prepared: Option<&Prepared>,
        effect: Option<&Statement>,
        context: &Context<'_>,
    ) -> Fit {
        let text = self.text_of_statement(name, prepared);
        if self.status == Tx::Block {
            let kinds = effect.map_or(&[][..], std::slice::from_ref);
            match self.fits_block(&text, kinds, context) {
                Fit::Goes => {}
                other => return other,
            }
        }
        self.note_opening(&text, is_begin(effect), context);
        Fit::Goes
    }
}

pub(super) fn is_begin(effect: Option<&Statement>) -> bool {
    effect.is_some_and(|statement| statement.kind == Kind::Begin)
}

/// Whether statements may show data or change some. Those of the session and of transactions do neither by themselves, so
/// what comes after them needs to be no fresher than before.
pub(super) fn shows_data(statements: &[Statement]) -> bool {
    let is_silent = |statement: &Statement| {
        matches!(
            statement.kind,
            Kind::Begin
                | Kind::Commit
                | Kind::Rollback
                | Kind::Savepoint(_)
                | Kind::RollbackTo(_)
                | Kind::Release(_)
                | Kind::Set { .. }
                | Kind::SetLocal
                | Kind::SetConfig { .. }
                | Kind::Reset(_)
                | Kind::ResetAll
                | Kind::Prepare { .. }
                | Kind::Deallocate(_)
                | Kind::DeallocateAll
                | Kind::DiscardAll
                | Kind::DiscardPlans
                | Kind::DiscardSequences
                | Kind::DiscardTemp
                | Kind::Unlisten
        )
    };
    statements.is_empty() || !statements.iter().all(is_silent)
}
