//! A transaction block that may be on a replica: what opened it, and which statements may run in it where it is.
//!
//! What would mean something else there moves the block to the primary while nothing but its opening (BEGIN, SET TRANSACTION,
//! SET LOCAL) has run, and is refused after that.

use super::plan::own_show;
use super::{Before, Context, Home, Machine, Tx};
use crate::route::Class;
use crate::sql::shape::Hint;
use crate::sql::{Kind, Statement};

/// The longest opening of a block that is kept to be said again elsewhere.
const LONGEST_OPENING: usize = 4096;

/// What a statement within a block on a replica is to be done with.
pub(super) enum Fit {
    Goes,
    Moves(Before),
    Refused,
}

/// A block that is open, as far as where it runs depends on it.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// The texts that opened it, as one: BEGIN, SET TRANSACTION, SET LOCAL. Empty if that is not known.
    pub opening: Vec<u8>,
    /// Something else has run in it.
    pub has_run: bool,
    /// It is declared READ ONLY.
    pub is_declared: bool,
}

impl Block {
    pub fn clear(&mut self) {
        self.opening.clear();
        if self.opening.capacity() > 256 {
            self.opening = Vec::new();
        }
        self.is_declared = false;
        self.has_run = false;
    }

    /// Nothing but its opening has run, so that it may be opened again elsewhere.
    pub fn is_opening(&self) -> bool {
        !self.has_run && !self.opening.is_empty()
    }

    fn add(&mut self, text: &[u8]) {
        if self.opening.len() + text.len() > LONGEST_OPENING {
            self.opening.clear();
            return;
        }
        if !self.opening.is_empty() {
            // The text before may end in a comment.
            self.opening.extend_from_slice(b"\n;");
        }
        self.opening.extend_from_slice(text);
    }
}

/// What a READ ONLY transaction refuses with the same words on a primary and on a standby (ExecCheckXactReadOnly and
/// PreventCommandIfReadOnly come before PreventCommandDuringRecovery).
const REFUSED_ALIKE: [&str; 11] =
    ["insert", "update", "delete", "merge", "create", "alter", "drop", "truncate", "select", "with", "execute"];

/// Whether a text begins with one of these words. One behind a comment does not count.
pub(super) fn begins_with(text: &[u8], words: &[&str]) -> bool {
    let text = text.trim_ascii_start();
    words.iter().any(|word| {
        let (start, rest) = text.split_at(word.len().min(text.len()));
        start.eq_ignore_ascii_case(word.as_bytes()) && rest.first().is_none_or(|byte| !byte.is_ascii_alphanumeric())
    })
}

impl Machine {
    /// A text is about to run that begins or continues a block: what it means for where the block is.
    pub(super) fn note_opening(&mut self, text: &[u8], is_begin: bool, context: &Context<'_>) {
        if is_begin && self.status == Tx::Idle && !self.block.is_opening() {
            self.block.clear();
            self.block.add(text);
            self.block.is_declared = self.on_replica;
        } else if self.status == Tx::Idle && self.on_replica && !self.block.is_opening() {
            // Whatever block it leaves open is declared, or it would not be here.
            self.block.clear();
            self.block.is_declared = true;
        } else if self.block.is_opening() {
            let class = if begins_with(text, &["set"]) { self.judge(text, context).class() } else { Class::Read };
            match class {
                Class::SetReadOnly => {
                    self.block.add(text);
                    self.block.is_declared = true;
                }
                Class::SetLocal => self.block.add(text),
                _ => self.block.has_run = true,
            }
        }
    }

    /// Whether a statement may run in the open block where the block is.
    pub(super) fn fits_block(&mut self, text: &[u8], kinds: &[Statement], context: &Context<'_>) -> Fit {
        let can_open =
            !self.block.opening.is_empty() && self.is_quiet() && self.status == Tx::Block && !self.done_before;
        let may_move = can_open && !self.block.has_run;
        if !self.on_replica {
            // SET TRANSACTION READ ONLY behind a plain BEGIN.
            let leaves = may_move
                && begins_with(text, &["set"])
                && self.may_leave(context).is_ok()
                && self.pins.is_empty()
                && self.home == Home::Primary
                && self.judge(text, context).class() == Class::SetReadOnly;
            return if leaves { Fit::Moves(Before::MoveToReplica) } else { Fit::Goes };
        }
        if own_show(text).is_some() {
            return Fit::Goes;
        }
        let judged = self.judge(text, context);
        let class = self.resolve(judged.class(), Some(&judged.verdict), context);
        if self.status == Tx::Failed {
            // Alone it is refused, or ends the block. Behind what ends the block others may run.
            let is_alone = kinds.len() <= 1 || matches!(class, Class::Transaction | Class::Read);
            return match (is_alone, self.is_quiet() && !self.done_before) {
                (true, _) => Fit::Goes,
                (false, true) => Fit::Moves(Before::MoveToPrimary),
                (false, false) => Fit::Refused,
            };
        }
        // Its Bind comes in the same pipeline as its BEGIN, and was read ahead.
        if self.status != Tx::Block {
            return Fit::Goes;
        }
        let asks_for_primary = judged.hint == Some(Hint::Primary)
            || class == Class::SetLocal && memchr::memmem::find(text, b"pgbaton.").is_some();
        // COMMIT, and behind it what is no business of the block: as nothing of the block is left to lose, it may as well end
        // where the rest has to run.
        let ends_first = kinds.len() > 1 && matches!(kinds[0].kind, Kind::Commit | Kind::Rollback);
        let is_remembered_or_ends = |statement: &Statement| {
            is_remembered(&statement.kind) || matches!(statement.kind, Kind::Commit | Kind::Rollback)
        };
        if ends_first
            && !matches!(class, Class::Transaction | Class::Read)
            && !kinds.iter().all(is_remembered_or_ends)
            && self.pending.is_empty()
            && self.is_quiet()
            && !self.done_before
        {
            if self.block.opening.is_empty() {
                // All that is asked of the block is to be there.
                self.block.opening.extend_from_slice(b"BEGIN READ ONLY");
            }
            return Fit::Moves(Before::MoveToPrimary);
        }
        let is_single = kinds.len() <= 1;
        let goes = match class {
            _ if asks_for_primary => !may_move,
            // Refused for coming too late, as everywhere; and the modes of the transaction are what they are here.
            Class::Differs if !may_move && is_single && begins_with(text, &["set", "show transaction"]) => true,
            Class::SetReadOnly | Class::Empty => true,
            // Also AND CHAIN: the next block is what this one was.
            _ if is_single && begins_with(text, &["commit", "rollback", "end", "abort"]) => true,
            _ if !self.block.is_declared => false,
            Class::Read | Class::Volatile | Class::Transaction | Class::SetLocal | Class::Cursor => true,
            // There is a transaction in progress: a warning, here as there.
            Class::Begin | Class::BeginReadOnly if is_single => true,
            // SET and PREPARE are remembered wherever they run; LISTEN is not possible on a standby.
            Class::Session => kinds.iter().all(is_remembered_or_ends),
            Class::Write if kinds.len() > 1 && kinds.iter().all(is_remembered_or_ends) => true,
            // Refused by the replica exactly as the primary would refuse it in a READ ONLY transaction.
            Class::Write => !may_move && is_single && begins_with(text, &REFUSED_ALIKE),
            _ => false,
        };
        match goes {
            true => Fit::Goes,
            false if may_move => Fit::Moves(Before::MoveToPrimary),
            false => Fit::Refused,
        }
    }

    /// The block is on another node now, where its opening has been said again.
    pub fn moved(&mut self, to_replica: bool) {
        self.on_replica = to_replica;
        self.is_armed = false;
    }

    /// What opened the block, as one text.
    pub fn opening(&self) -> &[u8] {
        &self.block.opening
    }
}

/// SET, RESET, PREPARE and DEALLOCATE.
fn is_remembered(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Set { .. }
            | Kind::SetConfig { .. }
            | Kind::SetLocal
            | Kind::Reset(_)
            | Kind::ResetAll
            | Kind::Prepare { .. }
            | Kind::Deallocate(_)
            | Kind::DeallocateAll
    )
}
