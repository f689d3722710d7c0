//! What the server sends: replies are matched with what is due, and what has succeeded becomes the session's state.

use std::sync::Arc;

use super::commit::{self, Ends, Notice};
use super::heal::FirstWords;
use super::{Due, Expect, Machine, Pending, Rest, ServerStep, Tx};
use crate::pool::memory::{Memory, PREFIX, Prepared, UNKNOWN};
use crate::session::sink::Sink;
use crate::sql::{Kind, Pin, Statement};
use crate::wire::fields;
use crate::wire::frame::{self, HEADER, Malformed};
use crate::wire::message;

/// A row up to this length is passed on whole, in bytes.
const LONGEST_WAITING_ROW: usize = 4096;

enum Keep {
    Pass,
    Drop,
    Instead(Vec<u8>),
}

impl Machine {
    /// Reads the server's bytes; what the client is to get goes into `to_client`.
    pub fn server(
        &mut self,
        input: &[u8],
        memory: &mut Memory,
        to_client: &mut Sink<'_>,
        max_inspect: usize,
    ) -> Result<(usize, ServerStep), Malformed> {
        let mut at = 0;
        if self.is_armed {
            match self.first_words(input) {
                FirstWords::Wait => return Ok((0, ServerStep::More)),
                FirstWords::Heal(sqlstate) => return Ok((0, ServerStep::Heal(sqlstate))),
                FirstWords::Go => {
                    self.is_armed = false;
                    self.settle_front(to_client.insert());
                }
            }
        }
        loop {
            if self.server_rest.bytes > 0 {
                let taken = self.server_rest.bytes.min(input.len() - at);
                if !self.server_rest.dropped {
                    to_client.pass(at, at + taken);
                }
                at += taken;
                self.server_rest.bytes -= taken;
                if self.server_rest.bytes > 0 {
                    return Ok((at, ServerStep::More));
                }
            }
            let here = &input[at..];
            let Some(head) = frame::header(here)? else { break };
            let seen = &here[..head.total.min(here.len())];
            match head.tag {
                // Data: on its way without being looked at.
                // One that is not all there waits for its end, so that what is cut short by the loss of the server is
                // never a message that has begun; a long one is passed on as it comes.
                b'D' | b'd' if seen.len() < head.total && head.total <= LONGEST_WAITING_ROW => break,
                b'D' | b'd' => {
                    if let Some(Expect { due: Due::AskXid, .. }) = self.queue.front() {
                        self.answer_xid(&seen[HEADER..]);
                    }
                    let silent = self.queue.front().is_some_and(|expect| expect.silent) || self.commit.is_muted;
                    if !silent {
                        to_client.pass(at, at + seen.len());
                    }
                    self.server_rest = Rest { bytes: head.total - seen.len(), dropped: silent };
                    at += seen.len();
                }
                _ if seen.len() < head.total && head.total <= max_inspect => break,
                _ => {
                    let is_muted = self.commit.is_muted;
                    let mut keep = self.reply(head.tag, &seen[HEADER..], memory);
                    if is_muted && !matches!(head.tag, b'Z' | b'S' | b'A' | b'N') {
                        keep = Keep::Drop;
                    }
                    let dropped = match keep {
                        Keep::Pass => {
                            to_client.pass(at, at + seen.len());
                            false
                        }
                        Keep::Drop => true,
                        Keep::Instead(bytes) => {
                            to_client.insert().extend_from_slice(&bytes);
                            true
                        }
                    };
                    self.server_rest = Rest { bytes: head.total - seen.len(), dropped };
                    at += seen.len();
                    if let Some(Expect { due: Due::Local(..) | Due::CopyEnd, .. }) = self.queue.front() {
                        self.settle_front(to_client.insert());
                    }
                }
            }
        }
        let step = if at == input.len() && self.is_at_rest() { ServerStep::Rest } else { ServerStep::More };
        Ok((at, step))
    }

    fn reply(&mut self, tag: u8, body: &[u8], memory: &mut Memory) -> Keep {
        let silent = self.queue.front().is_some_and(|expect| expect.silent);
        let keep = if silent { Keep::Drop } else { Keep::Pass };
        match tag {
            b'1' | b'2' | b'3' | b's' => {
                if let Some(Expect { due: Due::CloseSql(name), .. }) = self.queue.pop_front() {
                    self.image = Arc::new(self.image.without_prepared(&name));
                }
            }
            b'T' | b'n' => {
                if let Some(Expect { due: Due::Describe(_) | Due::Verify(_), .. }) = self.queue.front() {
                    match self.queue.pop_front().map(|expect| expect.due) {
                        Some(Due::Describe(Some(prepared))) => {
                            prepared.shape.get_or_init(|| shape(tag, body));
                        }
                        Some(Due::Verify(prepared)) => self.verified(&prepared, &shape(tag, body), memory),
                        _ => {}
                    }
                }
            }
            b'C' => {
                memory.answered.statements += u32::from(!silent);
                match fields::command_tag(body) {
                    b"ROLLBACK" => self.commit.has_written = false,
                    tag => self.commit.has_written |= commit::has_written(tag),
                }
                match self.queue.front_mut() {
                    Some(Expect { due: Due::Execute(_), .. }) => {
                        if let Some(Expect { due: Due::Execute(Some(statement)), .. }) = self.queue.pop_front() {
                            self.completed(&statement, body, memory);
                            if let Some(bytes) = self.instead_of_rollback(&statement, fields::command_tag(body)) {
                                return Keep::Instead(bytes);
                            }
                        }
                        return self.done(keep, memory);
                    }
                    Some(Expect { due: Due::AskXid, .. }) => {
                        self.queue.pop_front();
                    }
                    Some(Expect { due: Due::Query(Some(running)), .. }) => {
                        let statement = running.analysis.statements.get_mut(running.next).map(std::mem::take);
                        running.next += 1;
                        if let Some(statement) = statement {
                            self.completed(&statement, body, memory);
                            if let Some(bytes) = self.instead_of_rollback(&statement, fields::command_tag(body)) {
                                return Keep::Instead(bytes);
                            }
                        }
                        return self.done(keep, memory);
                    }
                    _ => return self.done(keep, memory),
                }
            }
            b'N' => {
                if let Notice::Farewell = self.notice(body) {
                    return Keep::Drop;
                }
            }
            b'V' => memory.answered.statements += 1,
            b'I' => {
                memory.answered.statements += u32::from(!silent);
                if let Some(Expect { due: Due::Execute(_), .. }) = self.queue.front() {
                    self.queue.pop_front();
                }
            }
            b'G' => self.copy_begins(),
            b'E' => {
                let keep = self.error(body, silent, memory);
                if !matches!(keep, Keep::Drop) {
                    memory.answered.statements += 1;
                    memory.answered.errors += 1;
                }
                return keep;
            }
            b'Z' => {
                let keep = self.ready(body, memory, silent);
                memory.answered.transactions += u32::from(!silent && self.status == Tx::Idle);
                return keep;
            }
            b'S' => return self.parameter(body, memory, silent),
            // Not an answer to anything: it concerns the client even between our own statements.
            b'A' => return self.notification(body),
            _ => {}
        }
        keep
    }

    /// A statement is complete; that its commit may not be replicated was said before that.
    fn done(&mut self, keep: Keep, memory: &Memory) -> Keep {
        if !self.commit.is_only_local || matches!(keep, Keep::Drop) {
            return keep;
        }
        self.commit.is_muted = true;
        Keep::Instead(self.only_local(memory))
    }

    /// A statement was prepared again after DDL: it may be used if its result still looks as its clients know it.
    fn verified(&mut self, prepared: &Prepared, now: &[u8], memory: &mut Memory) {
        self.verifying = false;
        if prepared.shape.get().is_some_and(|known| **known != *now) {
            memory.forget(prepared.id);
            self.stale = Some(prepared.id);
        }
    }

    fn ready(&mut self, body: &[u8], memory: &mut Memory, silent: bool) -> Keep {
        match self.queue.front() {
            Some(Expect { due: Due::Query(_) | Due::RefusedQuery(_) | Due::Sync | Due::FunctionCall, .. }) => {
                self.queue.pop_front();
            }
            // One too many can only follow a COPY that failed before it had read a Sync: pass it on as it is.
            _ => return Keep::Pass,
        }
        self.status = match body.first() {
            Some(b'T') => Tx::Block,
            Some(b'E') => Tx::Failed,
            _ => Tx::Idle,
        };
        self.copy_in = false;
        if self.status == Tx::Idle {
            self.unsettled = false;
            self.block.clear();
            if self.failed {
                self.pending.clear();
            } else if !self.pending.is_empty() {
                self.commit();
            }
            if !self.portals.is_empty() && !silent {
                self.portals.clear();
            }
            if !Arc::ptr_eq(&memory.image, &self.image) {
                memory.image = self.image.clone();
            }
        }
        if self.status == Tx::Idle && !silent {
            let has_written = std::mem::take(&mut self.commit.has_written);
            self.happened.committed |= has_written && !self.failed;
        }
        self.failed = false;
        if !silent {
            self.commit.opens = false;
        }
        if self.queue.is_empty() {
            self.settling = false;
            self.commit.has_run = false;
            self.commit.ends = Ends::Not;
        }
        if !silent {
            self.commit.is_muted = false;
            if self.commit.is_only_local {
                // The statement was complete before it was committed, as it is in the extended protocol.
                let mut bytes = self.only_local(memory);
                message::raw(&mut bytes, b'Z', &[body]);
                return Keep::Instead(bytes);
            }
        }
        if self.status == Tx::Idle {
            self.name_reset = false;
            if std::mem::take(&mut self.name_changed) && !silent {
                memory.answered.renamed = true;
                return self.tell_name(body);
            }
        }
        if silent { Keep::Drop } else { Keep::Pass }
    }

    /// After a reset: the client's name is what it said at startup. The server gets it with the next transaction.
    fn tell_name(&mut self, status: &[u8]) -> Keep {
        let name = self.own_name.clone();
        let mut bytes = Vec::new();
        if self.parameters.get("application_name").unwrap_or("") != &*name {
            Arc::make_mut(&mut self.parameters).set("application_name", &name);
            message::parameter_status(&mut bytes, "application_name", &name);
        }
        message::raw(&mut bytes, b'Z', &[status]);
        Keep::Instead(bytes)
    }

    fn error(&mut self, body: &[u8], silent: bool, memory: &mut Memory) -> Keep {
        if fields::error_field(body, b'V').or(fields::error_field(body, b'S')) == Some(b"FATAL")
            || fields::error_field(body, b'V') == Some(b"PANIC")
        {
            // The client's connection does not end with that of a replica.
            if self.on_replica {
                return Keep::Drop;
            }
            // What makes the server end it is not the client's affair: it goes on with another.
            if matches!(fields::error_field(body, b'C'), Some(b"57P01" | b"57P02" | b"57P03")) {
                self.commit.is_farewell = true;
                return Keep::Drop;
            }
            // Nor is its crash. What was being committed may be on its disk by then, and be found there by the recovery.
            if fields::error_field(body, b'V') == Some(b"PANIC") {
                return Keep::Drop;
            }
            self.fatal = true;
            return Keep::Pass;
        }
        self.failed = true;
        self.verifying = false;
        if fields::error_field(body, b'C') == Some(b"25006") && !self.on_replica {
            self.happened.read_only_refusal = true;
        }
        let refusal = match self.queue.front_mut() {
            Some(Expect { due: Due::Refused(body), .. }) => Some(std::mem::take(body)),
            Some(Expect { due: Due::RefusedQuery(body), .. }) => {
                let mut bytes = Vec::new();
                message::raw(&mut bytes, b'E', &[body]);
                return Keep::Instead(bytes);
            }
            _ => None,
        };
        // An injected message is alone up to its own Sync: the client's statement then says itself what is wrong.
        let mut hidden = silent;
        if silent && self.is_question() {
            self.question_failed(body);
        }
        let extended = !matches!(
            self.queue.front(),
            None | Some(Expect { due: Due::Query(_) | Due::Sync | Due::FunctionCall, .. })
        );
        if extended {
            if self.copy_in {
                // Whether a Sync sent ahead was eaten by the COPY cannot be known now; stay on this server.
                self.pins.insert(Pin::Process);
            }
            let skipped = self.queue.iter().take_while(|expect| !matches!(expect.due, Due::Sync)).count();
            let skipped: Vec<Due> = self.queue.drain(..skipped).map(|expect| expect.due).collect();
            // The last first: a name may have been closed and prepared anew.
            for due in skipped.into_iter().rev() {
                self.undo(due, memory);
            }
            match self.queue.front() {
                Some(sync) => hidden &= sync.silent,
                None => {
                    self.discarding = true;
                    hidden = false;
                }
            }
        }
        self.copy_in = false;
        if hidden {
            self.failed = false;
            return Keep::Drop;
        }
        // In a failed transaction PostgreSQL refuses for that reason first.
        if let Some(refusal) = refusal
            && fields::error_field(body, b'C') == Some(b"26000")
        {
            let mut bytes = Vec::new();
            message::raw(&mut bytes, b'E', &[&refusal]);
            return Keep::Instead(bytes);
        }
        self.translate_names(body)
    }

    /// A message the server skipped after an error did not happen.
    pub(super) fn undo(&mut self, skipped: Due, memory: &mut Memory) {
        match skipped {
            Due::Parse(Some(parsing)) => {
                memory.forget(parsing.id);
                if let Some(name) = parsing.name
                    && self.statements.get(&name).is_some_and(|prepared| prepared.id == parsing.id)
                {
                    self.statements.remove(&name);
                }
            }
            Due::Parse(None) => {
                memory.unnamed = UNKNOWN;
                self.unnamed = None;
            }
            // They would have dropped the unnamed statement.
            Due::Query(_) | Due::Close(None) => memory.unnamed = UNKNOWN,
            Due::Evict(prepared) => memory.remember(prepared),
            Due::Close(Some(removed)) => {
                let (name, prepared) = *removed;
                self.statements.insert(name, prepared);
            }
            Due::Local(_, Some(before)) => {
                match *before {
                    (name, Some(prepared)) => self.statements.insert(name, prepared),
                    (name, None) => self.statements.remove(&name),
                };
            }
            _ => {}
        }
    }

    /// Errors that name a statement name it as the client does.
    fn translate_names(&self, body: &[u8]) -> Keep {
        let Some(at) = memchr::memmem::find(body, PREFIX.as_bytes()) else { return Keep::Pass };
        let digits = &body[at + PREFIX.len()..];
        let length = digits.iter().take_while(|byte| byte.is_ascii_hexdigit() || **byte == b'_').count();
        let server_name = &body[at..at + PREFIX.len() + length];
        let own = self.statements.iter().find(|(_, prepared)| &*prepared.server_name == server_name);
        let Some((name, _)) = own else { return Keep::Pass };
        let mut bytes = Vec::new();
        message::raw(&mut bytes, b'E', &[&body[..at], name, &body[at + server_name.len()..]]);
        Keep::Instead(bytes)
    }

    fn parameter(&mut self, body: &[u8], memory: &mut Memory, silent: bool) -> Keep {
        let Some((name, value)) = fields::parameter_status(body) else { return Keep::Pass };
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else { return Keep::Pass };
        // A session at the proxy is a primary's or a standby's for good, whatever serves it; a promotion of what serves it is
        // not its affair.
        if name == "in_hot_standby" {
            return Keep::Drop;
        }
        let together = Arc::ptr_eq(&memory.parameters, &self.parameters);
        Arc::make_mut(&mut memory.parameters).set(name, value);
        if silent {
            return Keep::Drop;
        }
        // After RESET the server goes back to the name it was started with; the client's own is said at the end.
        if name == "application_name" && self.name_reset {
            return Keep::Drop;
        }
        memory.answered.renamed |= name == "application_name";
        if together {
            self.parameters = memory.parameters.clone();
        } else {
            Arc::make_mut(&mut self.parameters).set(name, value);
        }
        self.read_manner();
        Keep::Pass
    }

    /// A session's own notifications carry the process id it was told, which is how clients know them for their own.
    fn notification(&self, body: &[u8]) -> Keep {
        match body.split_first_chunk::<4>() {
            Some((pid, rest)) if self.pid != self.server_pid && u32::from_be_bytes(*pid) == self.server_pid => {
                let mut bytes = Vec::new();
                message::raw(&mut bytes, b'A', &[&self.pid.to_be_bytes(), rest]);
                Keep::Instead(bytes)
            }
            _ => Keep::Pass,
        }
    }

    /// COPY FROM STDIN begins: Syncs sent ahead of the data are ignored by the server (libpq sends one).
    fn copy_begins(&mut self) {
        self.copy_in = true;
        let mut at = 1;
        while at < self.queue.len() {
            match self.queue[at].due {
                Due::Sync => {
                    self.queue.remove(at);
                    self.unsynced = true;
                }
                Due::CopyEnd => {
                    self.copy_in = false;
                    break;
                }
                _ => at += 1,
            }
        }
        if self.queue.iter().skip(at).any(|expect| matches!(expect.due, Due::Sync)) {
            self.unsynced = false;
        }
    }

    /// A statement with effects has succeeded.
    fn completed(&mut self, statement: &Statement, body: &[u8], memory: &mut Memory) {
        let tag = fields::command_tag(body);
        if statement.is_ddl {
            self.happened.ddl = true;
        }
        if statement.changes_facts {
            self.pending.push(Pending::Facts);
        }
        if statement.may_unpin {
            self.happened.may_unpin = true;
        }
        if !statement.pins_at_commit.is_empty() {
            self.pending.push(Pending::Pin(statement.pins_at_commit));
        }
        match &statement.kind {
            Kind::Plain | Kind::Begin | Kind::Execute(_) | Kind::NeedsDatabaseEmpty(_) | Kind::Unlisten => {}
            Kind::SetConfig { .. } | Kind::SetLocal | Kind::DiscardPlans => {}
            Kind::Commit | Kind::Rollback | Kind::PrepareTransaction => match tag {
                b"COMMIT" | b"PREPARE TRANSACTION" => self.commit(),
                _ => self.pending.clear(),
            },
            Kind::Savepoint(name) => self.pending.push(Pending::Savepoint(name.clone())),
            Kind::RollbackTo(name) => {
                if let Some(at) = self.savepoint(name) {
                    self.pending.truncate(at + 1);
                }
                // The block is usable again, so what follows counts.
                self.failed = false;
            }
            Kind::Release(name) => {
                if let Some(at) = self.savepoint(name) {
                    let mut position = 0;
                    self.pending.retain(|pending| {
                        let keep = position < at || !matches!(pending, Pending::Savepoint(_));
                        position += 1;
                        keep
                    });
                }
            }
            // Follows the client by its reported value.
            Kind::Set { name, .. } if &**name == "application_name" => {
                self.name_reset = false;
                self.pending.retain(|pending| !matches!(pending, Pending::ResetName));
            }
            Kind::Set { name, text } => self.pending.push(Pending::Set(name.clone(), text.clone())),
            Kind::Reset(name) => {
                if &**name == "application_name" {
                    self.reset_name();
                }
                self.pending.push(Pending::Reset(name.clone()));
            }
            Kind::ResetAll => {
                self.reset_name();
                self.pending.push(Pending::ResetAll);
            }
            Kind::Prepare { name, text } => self.image = Arc::new(self.image.with_prepared(name, text)),
            Kind::Deallocate(name) => {
                if self.statements.remove(name.as_bytes()).is_none() {
                    self.image = Arc::new(self.image.without_prepared(name));
                }
            }
            Kind::DeallocateAll => {
                self.statements.clear();
                memory.forget_all();
                self.image = Arc::new(self.image.without_any_prepared());
            }
            Kind::DiscardAll => {
                self.statements.clear();
                self.unnamed = None;
                self.image = Arc::default();
                self.pending.clear();
                self.reset_name();
                self.native = false;
                memory.discarded();
                memory.last_session = self.session;
                for pin in Pin::ALL {
                    if !matches!(pin, Pin::Process | Pin::SessionMode) {
                        self.pins.remove(pin);
                    }
                }
            }
            Kind::DiscardSequences => self.pins.remove(Pin::Sequence),
            Kind::DiscardTemp => self.happened.may_unpin = true,
            Kind::ChangesDefaults => self.pending.push(Pending::Defaults),
        }
    }

    fn reset_name(&mut self) {
        self.name_reset = true;
        self.pending.push(Pending::ResetName);
    }

    fn savepoint(&self, name: &str) -> Option<usize> {
        self.pending.iter().rposition(|pending| matches!(pending, Pending::Savepoint(known) if &**known == name))
    }

    /// The transaction has committed: what it set is the session's.
    fn commit(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Savepoint(_) => {}
                Pending::Set(name, text) => self.image = Arc::new(self.image.with_setting(&name, &text)),
                Pending::Reset(name) => self.image = Arc::new(self.image.without_setting(&name)),
                Pending::ResetAll => self.image = Arc::new(self.image.without_settings()),
                Pending::Pin(pins) => self.pins = self.pins.union(pins),
                Pending::ResetName => self.name_changed = true,
                Pending::Facts => self.happened.facts_changed = true,
                Pending::Defaults => self.happened.defaults_changed = true,
            }
        }
    }
}

/// What a client knows a statement's result by: names, types and modifiers of its columns. The origin of a column (table
/// and attribute number) may change without anybody decoding it otherwise.
fn shape(tag: u8, body: &[u8]) -> Box<[u8]> {
    let mut shape = vec![tag];
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some((name, fields)) = fields::cstr(rest) {
        let Some((fields, after)) = fields.split_at_checked(18) else { break };
        shape.extend_from_slice(name);
        shape.push(0);
        // Table OID (4) and attribute number (2), then type OID, size and modifier (10), then the format code (2).
        shape.extend_from_slice(&fields[6..16]);
        rest = after;
    }
    shape.into()
}
