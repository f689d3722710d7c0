//! What is left of a conversation when the server connection breaks: what was under way, and what the client is owed for it.

use super::commit::{Ends, Xid};
use super::{Due, Machine, Pending, Rest, Tx};
use crate::pool::memory::Memory;
use crate::session::sink::Sink;
use crate::sql::Pin;
use crate::wire::frame::{self, HEADER};
use crate::wire::{fields, message};

/// What was under way on the connection that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: no answer is due, no transaction is open.
    Nothing,
    /// A transaction block, or a statement of which it is known that it has not committed.
    RolledBack,
    /// One COMMIT and nothing else.
    Commit(Xid),
    /// What may have been committed, or not.
    Unknown,
}

impl Machine {
    /// The session was left in the middle of nothing: what it pinned, the server no longer has.
    pub fn server_lost(&mut self) {
        // What was not confirmed has not happened.
        let mut nowhere = Memory::default();
        let due: Vec<Due> = self.queue.drain(..).filter(|expect| !expect.silent).map(|expect| expect.due).collect();
        for due in due.into_iter().rev() {
            self.undo(due, &mut nowhere);
        }
        self.status = Tx::Idle;
        self.unsynced = false;
        self.copy_in = false;
        self.verifying = false;
        self.settling = false;
        self.name_reset = false;
        self.failed = false;
        self.fatal = false;
        self.pending.clear();
        self.portals.clear();
        self.server_rest = Rest::default();
        self.unnamed = None;
        self.block.clear();
        self.is_armed = false;
        self.is_planned = false;
        // What was done on it before the next statement has to be done on the next one.
        self.done_before = false;
        self.commit = super::Commit { epoch: self.commit.epoch, ..Default::default() };
        // What is still to come of a message already begun has no server any more.
        self.client_rest.dropped = true;
    }

    /// Whether what is under way may already be committed: anything outside a transaction block, a COMMIT, and what is
    /// behind the end of a block.
    pub fn may_have_committed(&self) -> bool {
        // Behind a BEGIN under the same ReadyForQuery everything belongs to its block, or is skipped if that fails.
        let is_in_block = self.status != Tx::Idle || self.commit.opens && self.ends_due() <= 1;
        self.commit.has_run && !is_in_block
            || self.pins.contains(Pin::Oversized)
            || self.commit.ends == Ends::PerhapsCommitted
    }

    /// What is lost with the connection.
    pub fn loss(&self) -> Loss {
        // A server that ends a connection with an error (not with a warning: that may come at any moment) has rolled back
        // what it was doing. A procedure may have committed before.
        let is_rolled_back = self.commit.is_farewell && !self.commit.is_only_local;
        // One whose end was not sent has not been committed either.
        let is_unfinished = self.copy_in && self.ends_due() <= 1 || self.unsynced && self.ends_due() == 0;
        if is_unfinished && self.commit.is_atomic && self.status == Tx::Idle {
            return Loss::RolledBack;
        }
        if is_rolled_back && (self.only_commit_is_due() || self.status == Tx::Idle && self.commit.is_atomic) {
            return Loss::RolledBack;
        }
        if self.only_commit_is_due() {
            let is_alone = self.queue.iter().all(|expect| !expect.silent);
            // A cursor WITH HOLD runs its query to the end in COMMIT, after the question.
            let may_write_yet = self.pending.iter().any(|pending| matches!(pending, Pending::Pin(_)));
            return match self.commit.xid.get() {
                // It was answered only if nothing of it is due any more.
                _ if !is_alone => Loss::Commit(Xid::Unknown),
                Xid::None if may_write_yet => Loss::Commit(Xid::Unknown),
                Xid::Unknown if self.block.is_opening() => Loss::Commit(Xid::None),
                xid => Loss::Commit(xid),
            };
        }
        if self.queue.iter().all(|expect| expect.silent) && self.status == Tx::Idle && !self.unsynced {
            return Loss::Nothing;
        }
        match self.may_have_committed() {
            true => Loss::Unknown,
            false => Loss::RolledBack,
        }
    }

    /// How many ReadyForQuery the client waits for.
    fn ends_due(&self) -> usize {
        let ends = self.queue.iter().filter(|expect| {
            !expect.silent && matches!(expect.due, Due::Query(_) | Due::RefusedQuery(_) | Due::Sync | Due::FunctionCall)
        });
        ends.count()
    }

    /// The warning that a commit is on the primary alone was the last that was heard of it.
    pub fn is_only_local(&self) -> bool {
        self.commit.is_only_local
    }

    /// The beginning of a message has been passed on whose end will never come: nothing more can be said to this client.
    pub fn is_cut_short(&self) -> bool {
        self.server_rest.bytes > 0 && !self.server_rest.dropped
    }

    /// The COMMIT that is due has happened, as was found out elsewhere: answers as the server would have.
    pub fn answer_committed(&mut self, to_client: &mut Vec<u8>) {
        let mut replies = Vec::new();
        message::command_complete(&mut replies, "COMMIT");
        message::ready_for_query(&mut replies, b'I');
        let mut nowhere = Memory::new(self.parameters.clone());
        self.commit.is_only_local = false;
        let mut sink = Sink::new(&replies, to_client);
        // Two whole messages of our own are never malformed.
        let _ = self.server(&replies, &mut nowhere, &mut sink, usize::MAX);
        let run = sink.finish();
        to_client.extend_from_slice(&replies[run]);
        self.server_lost();
    }

    /// What to say to the client when the server connection broke: the error once for each ReadyForQuery that is due.
    /// A lost transaction block stays a failed block until the client ends it, so that what it has already sent after
    /// the failure does not run on its own. With its COMMIT alone it has ended.
    pub fn answer_lost(&mut self, problem: &message::Problem, to_client: &mut Vec<u8>) {
        let owed = self.ends_due();
        let unsynced = self.unsynced;
        let in_block = self.status != Tx::Idle && !self.only_commit_is_due();
        // The client has had its error: all it waits for is that it may go on.
        let mut is_told = self.commit.is_muted || self.failed;
        self.server_lost();
        if in_block {
            self.status = Tx::Failed;
            self.lost_block = owed == 0 && !unsynced;
        }
        for _ in 0..owed {
            if !std::mem::take(&mut is_told) {
                message::error(to_client, problem);
            }
            message::ready_for_query(to_client, self.status.as_byte());
        }
        if unsynced {
            if !self.discarding {
                message::error(to_client, problem);
            }
            self.discarding = true;
        }
    }

    /// The transaction block was lost while the client was idle in it: whether its next message is to be refused
    /// because of that. A ROLLBACK is not; it is what the client should say.
    pub fn takes_lost_block(&mut self, input: &[u8]) -> bool {
        let ends = match frame::client_header(input) {
            Ok(Some(head)) if input.len() >= head.total => self.ends_block(head.tag, &input[HEADER..head.total]),
            _ => false,
        };
        std::mem::take(&mut self.lost_block) && !ends
    }

    fn ends_block(&self, tag: u8, body: &[u8]) -> bool {
        let is_rollback = |text: &[u8]| super::block::begins_with(text, &["rollback", "abort"]);
        match tag {
            b'Q' => is_rollback(body.split(|byte| *byte == 0).next().unwrap_or_default()),
            b'P' => fields::cstr(body).is_some_and(|(_, tail)| is_rollback(tail)),
            b'B' => fields::bind_names(body).is_some_and(|(_, name, _)| {
                let prepared = self.statements.get(name);
                is_rollback(self.tail_of_statement(name, prepared.map(|prepared| &**prepared)))
            }),
            _ => false,
        }
    }
}
