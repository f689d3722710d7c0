//! A replica that cannot answer a read, or a primary that is lost with one, while the client has heard nothing yet: what it
//! was asked is asked elsewhere, and the client never learns of it.
//!
//! Only outside a transaction block, and only up to the first row or completion: from there on the answer is the client's.

use super::{Due, Machine, Rest, Tx};
use crate::pool::memory::Memory;
use crate::wire::fields;
use crate::wire::frame::{self, HEADER};

/// How much of what comes before the first row is held back to see whether an error follows.
const LONGEST_PRELUDE: usize = 64 * 1024;

/// What the beginning of a replica's answer says.
pub(super) enum FirstWords {
    /// Nothing decisive yet.
    Wait,
    /// It cannot answer; the SQLSTATE.
    Heal([u8; 5]),
    /// It answers.
    Go,
}

/// Whether an error of a replica may be gone on the primary, so that a read is worth repeating there. Repeating one does no
/// harm in any case.
fn is_worth_repeating(sqlstate: &[u8; 5], body: &[u8]) -> bool {
    match sqlstate {
        // It writes after all; what is not possible during recovery; a snapshot or buffer that recovery needed.
        b"25006" | b"0A000" | b"55000" | b"40001" | b"40P01" => true,
        // Cancelled: by the user or a timeout, unless it says otherwise.
        b"57014" => {
            fields::error_field(body, b'M').is_some_and(|text| memchr::memmem::find(text, b"recovery").is_some())
        }
        // What was created or granted just now may not have arrived there.
        b"42P01" | b"42703" | b"42883" | b"42704" | b"3F000" | b"42501" | b"26000" | b"XX000" => true,
        // The node is going, or has no room.
        b"57P01" | b"57P02" | b"57P03" | b"53300" | b"53200" | b"53100" => true,
        _ => false,
    }
}

/// Whether an error of a replica may be gone on another, for a session that has nowhere else to go: recovery needed what the
/// statement read. Whatever else a standby refuses is its answer.
fn is_conflict(sqlstate: &[u8; 5], body: &[u8]) -> bool {
    match sqlstate {
        // No transaction on a standby is SERIALIZABLE or takes locks that others wait for, so there is no other reason.
        b"40001" | b"40P01" => true,
        b"57014" => {
            fields::error_field(body, b'M').is_some_and(|text| memchr::memmem::find(text, b"recovery").is_some())
        }
        _ => is_farewell(body),
    }
}

/// The server process is ending.
fn is_farewell(body: &[u8]) -> bool {
    fields::error_field(body, b'C').is_some_and(|code| code.starts_with(b"57P"))
}

impl Machine {
    /// Reads ahead in what a replica says first.
    pub(super) fn first_words(&self, input: &[u8]) -> FirstWords {
        // A verification waits for less than a whole answer.
        let wait = if self.verifying { FirstWords::Go } else { FirstWords::Wait };
        let mut rest = input;
        let mut has_rows = false;
        loop {
            let Ok(Some(head)) = frame::header(rest) else {
                return if rest.len() < HEADER && !has_rows { wait } else { FirstWords::Go };
            };
            let is_whole = rest.len() >= head.total;
            match head.tag {
                // A server that is told to quit flushes the rows it has and says why: all in one, so nothing has been passed on.
                b'D' | b'd' if is_whole => has_rows = true,
                b'N' | b'E' if is_whole && is_farewell(&rest[HEADER..head.total]) => {
                    return FirstWords::Heal(*b"57P01");
                }
                b'N' if has_rows && is_whole => {}
                _ if has_rows => return FirstWords::Go,
                b'1' | b'2' | b'3' | b't' | b'T' | b'n' | b'S' | b'N' | b'A' => {
                    if !is_whole {
                        return match input.len() - rest.len() + head.total > LONGEST_PRELUDE {
                            true => FirstWords::Go,
                            false => wait,
                        };
                    }
                }
                b'E' if !is_whole && head.total <= LONGEST_PRELUDE => return wait,
                b'E' if is_whole => {
                    let body = &rest[HEADER..head.total];
                    let sqlstate = fields::error_field(body, b'C').and_then(|code| <[u8; 5]>::try_from(code).ok());
                    // What a primary says is so, unless it is going.
                    let is_worth = |sqlstate: &[u8; 5]| match self.on_replica {
                        true if self.is_standby() => is_conflict(sqlstate, body),
                        true => is_worth_repeating(sqlstate, body),
                        false => is_farewell(body),
                    };
                    return match sqlstate.filter(is_worth) {
                        Some(sqlstate) => FirstWords::Heal(sqlstate),
                        None => FirstWords::Go,
                    };
                }
                _ => return FirstWords::Go,
            }
            rest = &rest[head.total..];
        }
    }

    /// Nothing of what was asked since the connection was taken has been answered to the client, and all of it may be
    /// asked again.
    pub fn is_armed(&self) -> bool {
        self.is_armed
    }

    /// It can no longer be asked again: too much to keep.
    pub fn disarm(&mut self, to_client: &mut Vec<u8>) {
        if std::mem::take(&mut self.is_armed) {
            self.settle_front(to_client);
        }
    }

    /// As if nothing had been sent since the connection was taken; the connection itself is no longer to be used.
    pub fn rewind(&mut self) {
        let mut nowhere = Memory::default();
        let sent: Vec<Due> = self.queue.drain(..).filter(|expect| !expect.silent).map(|expect| expect.due).collect();
        for due in sent.into_iter().rev() {
            self.undo(due, &mut nowhere);
        }
        self.status = Tx::Idle;
        self.unsynced = false;
        self.discarding = false;
        self.copy_in = false;
        self.failed = false;
        self.fatal = false;
        self.verifying = false;
        self.settling = false;
        self.portals.clear();
        self.pending.clear();
        self.block.clear();
        self.client_rest = Rest::default();
        self.server_rest = Rest::default();
        self.on_replica = false;
        self.commit = super::Commit { epoch: self.commit.epoch, ..Default::default() };
        self.is_armed = false;
        self.is_planned = false;
        self.done_before = false;
    }
}
