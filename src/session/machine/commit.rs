//! What becomes of a COMMIT whose answer may be lost: the question for its transaction's id that goes before it, and the
//! warning that it is committed on the primary alone.
//!
//! The question travels in the same write as the COMMIT, and its answer is sent by the server before it commits. It is only
//! asked within a transaction block, where it costs a few microseconds and cannot change anything: it writes nothing, and in a
//! block that has failed it fails too, which the client does not hear of.

use std::num::NonZeroU64;

use super::block::begins_with;
use super::{Context, Due, Expect, Machine, Tx};
use crate::pool::memory::Memory;
use crate::session::sink::Sink;
use crate::sql::{Kind, Statement};
use crate::types::Epoch;
use crate::wire::fields;
use crate::wire::message::{self, Problem};

/// The portal of the question, where the client's own unnamed one must stay as it is.
const PORTAL: &[u8] = b"pgbaton_xid";

/// The function in PostgreSQL that waits for standbys (syncrep.c), which is how its warnings are told from others in
/// any language.
const SYNC_WAIT: &[u8] = b"SyncRepWaitForLSN";

/// The transaction id of the COMMIT under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xid {
    /// Not asked for, or not answered.
    Unknown,
    /// None: the transaction had written nothing.
    None,
    Is(NonZeroU64),
}

/// [`Xid`] in a word; ids count from 3 (PostgreSQL's `FirstNormalTransactionId`).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedXid(u64);

impl PackedXid {
    const UNKNOWN: PackedXid = PackedXid(0);
    const NONE: PackedXid = PackedXid(u64::MAX);

    pub fn get(self) -> Xid {
        match NonZeroU64::new(self.0) {
            None => Xid::Unknown,
            Some(_) if self == Self::NONE => Xid::None,
            Some(xid) => Xid::Is(xid),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Commit {
    pub xid: PackedXid,
    /// Of the server connection at hand.
    pub epoch: Epoch,
    /// What was just committed is so on the primary alone, and the client has not heard of it.
    pub is_only_local: bool,
    /// The client was told that: the rest of what the server says up to ReadyForQuery is not for it.
    pub is_muted: bool,
    /// Something was sent since the last ReadyForQuery that may write.
    pub has_run: bool,
    /// What was sent since the last ReadyForQuery begins with BEGIN, and nothing of it ends the block.
    pub opens: bool,
    /// Whether something of it, since the server last had nothing to do, ends a block.
    pub ends: Ends,
    /// Something that writes was completed in the transaction.
    pub has_written: bool,
    /// All of that is one statement that cannot commit anything before its end.
    pub is_atomic: bool,
    /// The server has ended the connection by an error.
    pub is_farewell: bool,
    /// How the question failed, though the transaction had not.
    #[expect(clippy::box_collection, reason = "one word in each session for what hardly ever is there")]
    pub refused: Option<Box<Vec<u8>>>,
}

/// What may have become of a block by what was sent and is not answered yet.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// It is still open, if it was.
    #[default]
    Not,
    /// It is rolled back, and nothing has been sent behind that.
    RolledBack,
    /// It is committed, or what was sent behind its end may be.
    PerhapsCommitted,
}

/// What begins with one of these commits as a whole or not at all: no procedure, no maintenance command.
const ATOMIC: [&str; 7] = ["insert", "update", "delete", "merge", "select", "with", "copy"];

pub(super) fn is_atomic(text: &[u8]) -> bool {
    begins_with(text, &ATOMIC)
}

pub(super) fn is_commit(statement: &Statement) -> bool {
    statement.kind == Kind::Commit && !statement.chains
}

/// What to make of a notice.
pub(super) enum Notice {
    Pass,
    /// The server is going, which is not the client's affair.
    Farewell,
}

/// Whether a statement that is answered with this tag has written.
#[inline]
pub(super) fn has_written(tag: &[u8]) -> bool {
    match tag.first() {
        Some(b'S') => tag.starts_with(b"SELECT INTO"),
        Some(b'B' | b'C' | b'R' | b'F') => {
            tag.starts_with(b"CREATE") || tag.starts_with(b"COPY") || tag.starts_with(b"COMMIT PREPARED")
        }
        Some(b'I' | b'U' | b'D' | b'M' | b'T' | b'A' | b'G') => {
            !tag.starts_with(b"DECLARE") && !tag.starts_with(b"DEALLOCATE") && !tag.starts_with(b"UNLISTEN")
        }
        _ => false,
    }
}

impl Machine {
    /// Statements are about to be sent that may write, or begin or end a block.
    pub(super) fn note_sent(&mut self, statements: &[Statement]) {
        let ends =
            |statement: &Statement| matches!(statement.kind, Kind::Commit | Kind::Rollback | Kind::PrepareTransaction);
        let has_end = statements.iter().any(ends);
        if !self.commit.has_run {
            self.commit.opens = matches!(statements.first(), Some(Statement { kind: Kind::Begin, .. }));
        }
        self.commit.opens &= !has_end;
        self.commit.ends = match (self.commit.ends, statements) {
            (Ends::Not, _) if !has_end => Ends::Not,
            (Ends::Not, [Statement { kind: Kind::Rollback, .. }]) => Ends::RolledBack,
            _ => Ends::PerhapsCommitted,
        };
        self.commit.has_run = true;
    }

    /// A COMMIT is about to be sent as a simple query: asks for its transaction's id, in a pipeline of its own.
    pub(super) fn ask_before_query(&mut self, memory: &mut Memory, to_server: &mut Sink<'_>, context: &Context<'_>) {
        self.commit.xid = PackedXid::UNKNOWN;
        if !self.unsynced && self.may_ask(context) {
            self.ask_xid(b"", memory, to_server, context);
            message::sync(to_server.insert());
            self.expect_silent(Due::Sync);
        }
    }

    /// A portal with COMMIT is about to be executed. The question goes into the client's own pipeline, so that both are
    /// skipped if something before fails.
    pub(super) fn ask_before_execute(&mut self, memory: &mut Memory, to_server: &mut Sink<'_>, context: &Context<'_>) {
        self.commit.xid = PackedXid::UNKNOWN;
        // With more than this pipeline under way the block may have failed by the time, and COMMIT must still end it.
        let ends = |expect: &Expect| matches!(expect.due, Due::Sync | Due::Query(_) | Due::RefusedQuery(_));
        if self.may_ask(context) && !self.queue.iter().any(ends) {
            self.ask_xid(PORTAL, memory, to_server, context);
            message::raw(to_server.insert(), b'H', &[]);
        }
    }

    fn may_ask(&self, context: &Context<'_>) -> bool {
        context.ask_commits
            && self.status == Tx::Block
            && !self.on_replica
            && !self.native
            && !self.copy_in
            && !self.verifying
            // Nothing but its opening has run: there is nothing to commit.
            && !self.block.is_opening()
    }

    fn ask_xid(&mut self, portal: &[u8], memory: &mut Memory, to_server: &mut Sink<'_>, context: &Context<'_>) {
        let question = context.registry.ask_xid().clone();
        // It is never described, so it has no shape that could have changed.
        self.ensure(&question, memory, to_server, context);
        let out = to_server.insert();
        message::raw(out, b'B', &[portal, b"\0", &question.server_name, b"\0", &[0; 6]]);
        message::raw(out, b'E', &[portal, b"\0", &[0; 4]]);
        self.expect_silent(Due::Bind);
        self.expect_silent(Due::AskXid);
    }

    /// What is due next belongs to the question.
    pub(super) fn is_question(&self) -> bool {
        let mut due = self.queue.iter().take_while(|expect| expect.silent);
        due.any(|expect| matches!(expect.due, Due::AskXid))
    }

    /// The answer: one column, as text.
    pub(super) fn answer_xid(&mut self, row: &[u8]) {
        let Some((head, value)) = row.split_first_chunk::<6>() else { return };
        self.commit.xid = match i32::from_be_bytes([head[2], head[3], head[4], head[5]]) {
            -1 => PackedXid::NONE,
            _ => PackedXid(std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)),
        };
    }

    /// The question failed: if not for what the client knows already, the COMMIT behind it will be a ROLLBACK for a reason
    /// that the client has not heard (a cancel, a timeout).
    pub(super) fn question_failed(&mut self, body: &[u8]) {
        if fields::error_field(body, b'C') != Some(b"25P02") {
            self.commit.refused = Some(Box::new(body.to_vec()));
        }
    }

    /// What the client hears of a ROLLBACK that it did not ask for.
    pub(super) fn instead_of_rollback(&mut self, statement: &Statement, tag: &[u8]) -> Option<Vec<u8>> {
        if statement.kind != Kind::Commit {
            return None;
        }
        let refused = self.commit.refused.take()?;
        if tag != b"ROLLBACK" {
            return None;
        }
        let mut bytes = Vec::new();
        message::raw(&mut bytes, b'E', &[&refused]);
        Some(bytes)
    }

    pub(super) fn notice(&mut self, body: &[u8]) -> Notice {
        let code = fields::error_field(body, b'C');
        if fields::error_field(body, b'R') == Some(SYNC_WAIT) {
            self.commit.is_only_local = true;
        }
        match code {
            Some(b"57P01" | b"57P02" | b"57P03") => Notice::Farewell,
            _ => Notice::Pass,
        }
    }

    /// A commit that its standbys may not have: never passed off as success.
    pub(super) fn only_local(&mut self, memory: &Memory) -> Vec<u8> {
        self.commit.is_only_local = false;
        let mut bytes = Vec::new();
        message::error(&mut bytes, &self.only_local_problem(memory));
        bytes
    }

    pub(super) fn only_local_problem(&self, memory: &Memory) -> Problem {
        let mut detail = "It is committed".to_owned();
        if let Some(node) = &memory.node {
            detail += &format!(" on node {node}");
        }
        if self.commit.epoch.0 > 0 {
            detail += &format!(" in epoch {}", self.commit.epoch);
        }
        detail += " and can be seen there, but may not have been replicated: if this node is lost now, so is the transaction.";
        Problem::new("08007", "the wait for synchronous replication was interrupted")
            .detail(detail)
            .hint("Look whether it is there before you repeat it.")
    }

    /// The epoch of the primary at hand.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.commit.epoch = epoch;
    }

    pub fn epoch(&self) -> Epoch {
        self.commit.epoch
    }

    /// All that the server still owes the client is the answer to one COMMIT.
    #[inline]
    pub fn only_commit_is_due(&self) -> bool {
        let mut due = self.queue.iter().filter(|expect| !expect.silent);
        match due.next().map(|expect| &expect.due) {
            Some(Due::Query(Some(running))) => {
                matches!(&running.analysis.statements[..], [statement] if is_commit(statement))
                    && running.next == 0
                    && due.next().is_none()
            }
            Some(Due::Execute(Some(statement))) if is_commit(statement) => {
                matches!(due.next(), Some(Expect { due: Due::Sync, .. })) && due.next().is_none() && !self.unsynced
            }
            _ => false,
        }
    }
}
