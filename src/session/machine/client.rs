//! What the client sends: which messages go to the server, under which names, and what each one means for the session.

use std::ops::Range;
use std::sync::Arc;

use super::block::{Fit, begins_with};
use super::commit::{is_atomic, is_commit};
use super::place::{is_begin, shows_data};
use super::plan::{explain_route, own_show};
use super::statements::{CHANGED_SHAPE, Ensured, NOWHERE, already_exists};
use super::{
    Before, ClientStep, Context, Due, Expect, MAX_PIPELINE, Machine, Parsing, Rest, Running, Tx, Unnamed, is_plain,
};
use crate::pool::memory::{Memory, Prepared};
use crate::route::Class;
use crate::session::sink::Sink;
use crate::session::wishes;
use crate::sql::{Analysis, Dialect, Kind, Pin, Statement, Suspects, analysis};
use crate::wire::fields;
use crate::wire::frame::{self, HEADER, Malformed};
use crate::wire::message;

/// Names of portals and statements are at most 63 bytes in SQL, but the protocol sets no limit; this is ours.
const MAX_NAME: usize = 16 * 1024;

pub(super) enum Taken {
    Yes,
    /// Taken, and answered by other means: what is still to come of it is dropped.
    Dropped,
    /// Replies must come first; then the message is looked at again.
    NeedReplies,
    NeedMore,
    Wait(Before),
}

impl Machine {
    /// Reads the client's bytes. What is to be sent on goes into `to_server`, replies of our own into `to_client`.
    /// Returns how many bytes were taken and why it stopped.
    pub fn client(
        &mut self,
        input: &[u8],
        mut memory: Option<&mut Memory>,
        to_server: &mut Sink<'_>,
        to_client: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Result<(usize, ClientStep), Malformed> {
        let mut at = 0;
        loop {
            if self.client_rest.bytes > 0 {
                let taken = self.client_rest.bytes.min(input.len() - at);
                if !self.client_rest.dropped {
                    to_server.pass(at, at + taken);
                }
                at += taken;
                self.client_rest.bytes -= taken;
                if self.client_rest.bytes > 0 {
                    return Ok((at, ClientStep::More));
                }
            }
            let here = &input[at..];
            let Some(head) = frame::client_header(here)? else {
                return Ok((at, ClientStep::More));
            };
            let settling = self.settling && !self.unsynced && !self.queue.is_empty();
            if self.queue.len() >= MAX_PIPELINE || self.verifying || settling {
                return Ok((at, ClientStep::Full));
            }
            let seen = &here[..head.total.min(here.len())];
            let whole = seen.len() == head.total;
            if head.tag == b'X' {
                return Ok((at, ClientStep::Terminate));
            }
            let drop_it = match head.tag {
                b'S' => false,
                b'd' | b'c' | b'f' | b'H' => self.discarding || memory.is_none(),
                _ => self.discarding,
            };
            if drop_it {
                at += seen.len();
                self.client_rest = Rest { bytes: head.total - seen.len(), dropped: true };
                continue;
            }
            if head.tag == b'd' {
                to_server.pass(at, at + seen.len());
                at += seen.len();
                self.client_rest = Rest { bytes: head.total - seen.len(), dropped: false };
                continue;
            }
            if head.tag == b'S' && memory.is_none() {
                if !whole {
                    return Ok((at, ClientStep::More));
                }
                self.discarding = false;
                self.unsynced = false;
                message::ready_for_query(to_client, self.status.as_byte());
                at += head.total;
                continue;
            }
            // What must be seen whole waits for its last byte, if it is small enough to be held; and it waits without a
            // server connection.
            let streams = match head.tag {
                b'Q' | b'P' => head.total > context.max_inspect,
                b'B' => head.total > context.max_inspect || fields::bind_names(&seen[HEADER..]).is_some(),
                b'F' => seen.len() >= HEADER + 4,
                _ => false,
            };
            if !whole && !streams {
                return Ok((at, ClientStep::More));
            }
            if head.tag == b'Q' && self.queue.is_empty() && explain_route(&seen[HEADER..]).is_some() {
                return Ok((at, ClientStep::Explain));
            }
            // On a primary that is followed by what may not be asked again.
            if self.is_armed && !self.on_replica && !self.unsynced && !self.queue.is_empty() && head.tag != b'S' {
                self.disarm(to_client);
            }
            if let Some(step) = self.place(head.tag, here, memory.is_some(), context) {
                return Ok((at, step));
            }
            let Some(memory) = memory.as_deref_mut() else {
                return Ok((at, ClientStep::NeedServer));
            };
            if self.name_reset && self.status == Tx::Block && self.is_quiet() && !self.done_before {
                self.done_before = true;
                return Ok((at, ClientStep::Before(Before::RestoreName)));
            }
            let taken = match self.message(head, seen, at, memory, to_server, to_client, context)? {
                Taken::Yes => seen.len(),
                Taken::Dropped => {
                    self.done_before = false;
                    self.is_planned = false;
                    at += seen.len();
                    self.client_rest = Rest { bytes: head.total - seen.len(), dropped: true };
                    continue;
                }
                Taken::NeedMore => return Ok((at, ClientStep::More)),
                Taken::NeedReplies => return Ok((at, ClientStep::Full)),
                Taken::Wait(before) => {
                    self.done_before = true;
                    return Ok((at, ClientStep::Before(before)));
                }
            };
            self.done_before = false;
            self.is_planned = false;
            at += taken;
            self.client_rest = Rest { bytes: head.total - taken, dropped: false };
        }
    }

    fn message(
        &mut self,
        head: frame::Header,
        seen: &[u8],
        at: usize,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        to_client: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Result<Taken, Malformed> {
        let body = &seen[HEADER..];
        let pass = at..at + seen.len();
        match head.tag {
            b'Q' => return self.query(head, body, pass, memory, to_server, context),
            b'P' => return self.parse(head, body, pass, memory, to_server, to_client, context),
            b'B' => return self.bind(head, body, pass, memory, to_server, context),
            b'D' => {
                self.unsynced = true;
                match body.split_first().and_then(|(what, rest)| Some((*what, fields::cstr(rest)?.0))) {
                    Some((b'S', name)) => return Ok(self.describe(name, pass, memory, to_server, context)),
                    Some((_, portal)) => {
                        to_server.pass(pass.start, pass.end);
                        // A statement's shape is known just as well from a portal bound to it.
                        let of = if portal.is_empty() { self.bound.clone() } else { None };
                        self.expect(Due::Describe(of));
                    }
                    None => return Err(Malformed::Body(b'D')),
                }
            }
            b'E' => {
                self.unsynced = true;
                let (portal, _) = fields::cstr(body).ok_or(Malformed::Body(b'E'))?;
                let effect = match self.portals.is_empty() {
                    true => None,
                    false => self.portals.iter().find(|(name, _)| &**name == portal).map(|(_, effect)| effect.clone()),
                };
                if let Some(statement) = &effect {
                    self.dispatch(statement, memory);
                    if let Kind::Execute(name) | Kind::Deallocate(name) = &statement.kind {
                        self.give_real_name(
                            name.as_bytes(),
                            matches!(statement.kind, Kind::Execute(_)),
                            memory,
                            to_server,
                        );
                    }
                    if is_commit(statement) {
                        self.ask_before_execute(memory, to_server, context);
                    }
                }
                self.commit.is_atomic &= !self.commit.has_run;
                self.note_sent(effect.as_deref().map_or(&[], std::slice::from_ref));
                to_server.pass(pass.start, pass.end);
                self.expect(Due::Execute(effect));
            }
            b'C' => {
                self.unsynced = true;
                let (what, name) = body
                    .split_first()
                    .and_then(|(what, rest)| Some((*what, fields::cstr(rest)?.0)))
                    .ok_or(Malformed::Body(b'C'))?;
                self.close(what, name, pass, memory, to_server, to_client);
            }
            b'F' => {
                // Large-object functions are the builtins called this way; what else it may be is not known by number.
                let Some((oid, _)) = body.split_first_chunk::<4>() else { return Err(Malformed::Body(b'F')) };
                self.has_shown_data = true;
                self.block.has_run = true;
                self.commit.is_atomic = false;
                self.note_sent(&[]);
                if self.is_guest() {
                    let problem = self.elsewhere(b"", context);
                    return Ok(self.refuse_query(&problem, memory, to_server));
                }
                let oid = u32::from_be_bytes(*oid);
                if oid >= 16_384 || FASTPATH_SESSION_FUNCTIONS.contains(&oid) {
                    self.pins.insert(Pin::Opaque);
                }
                self.unsynced = false;
                to_server.pass(pass.start, pass.end);
                self.expect(Due::FunctionCall);
            }
            b'H' => {
                // Nothing answers a Flush, unless it is malformed: then an error would come when nobody awaits one, perhaps
                // when the connection is somebody else's.
                if !body.is_empty() {
                    return Err(Malformed::Body(b'H'));
                }
                to_server.pass(pass.start, pass.end);
            }
            b'S' => {
                self.discarding = false;
                if self.copy_in {
                    // PostgreSQL ignores Sync while it reads COPY data (CopyGetData), so no reply will come.
                    return Ok(Taken::Yes);
                }
                self.unsynced = false;
                to_server.pass(pass.start, pass.end);
                self.expect(Due::Sync);
            }
            b'c' | b'f' => {
                self.copy_in = false;
                to_server.pass(pass.start, pass.end);
                self.expect(Due::CopyEnd);
                self.settle_front(to_client);
            }
            // 'p' answers an authentication request; none is open. PostgreSQL calls this a protocol violation too.
            tag => return Err(Malformed::Tag(tag)),
        }
        Ok(Taken::Yes)
    }

    fn query(
        &mut self,
        head: frame::Header,
        body: &[u8],
        pass: Range<usize>,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        context: &Context<'_>,
    ) -> Result<Taken, Malformed> {
        let mut running = None;
        if head.total > context.max_inspect {
            if self.is_guest() {
                let problem = self.elsewhere(b"", context);
                return Ok(self.refuse_query(&problem, memory, to_server));
            }
            self.block.has_run = true;
            self.pins.insert(Pin::Oversized);
            self.has_shown_data = true;
        } else {
            let text = body.strip_suffix(b"\0").ok_or(Malformed::Body(b'Q'))?;
            // A read has no effect on its session.
            let reads = self.is_planned && self.verdict.as_ref().is_some_and(|verdict| verdict.class == Class::Read);
            let analysis = match reads {
                true => Analysis::default(),
                false => analysis::analyze(text, self.dialect(), context.suspects),
            };
            if !reads {
                if self.forgets_first(text, context) {
                    return Ok(Taken::Wait(Before::ForgetSequences));
                }
                self.note_sequence(text, context);
            }
            if let Some(name) = own_show(text)
                && !self.done_before
            {
                match self.is_quiet() {
                    true => return Ok(Taken::Wait(Before::Publish(name.into()))),
                    false if !self.unsynced => return Ok(Taken::NeedReplies),
                    false => {}
                }
            }
            if self.is_guest() || self.block.is_opening() {
                match self.fits_block(text, &analysis.statements, context) {
                    Fit::Goes => {}
                    Fit::Moves(before) => return Ok(Taken::Wait(before)),
                    Fit::Refused => {
                        let problem = self.elsewhere(text, context);
                        return Ok(self.refuse_query(&problem, memory, to_server));
                    }
                }
            }
            if let Some(problem) = analysis.statements.iter().find_map(wrong_setting) {
                return Ok(self.refuse_query(&problem, memory, to_server));
            }
            self.commit.is_atomic = !self.commit.has_run && analysis.statements.len() == 1 && is_atomic(text);
            let is_show = analysis.statements.len() == 1 && begins_with(text, &["show"]);
            self.has_shown_data |= reads || shows_data(&analysis.statements) && !is_show;
            let is_begin = matches!(&analysis.statements[..], [Statement { kind: Kind::Begin, .. }]);
            let was_opening = self.block.is_opening();
            if !self.is_standby() && (is_begin || self.on_replica || self.block.is_opening()) {
                self.note_opening(text, is_begin, context);
            }
            if !analysis.statements.iter().all(is_plain) {
                if let Some(before) = self.before(&analysis.statements, memory) {
                    return Ok(Taken::Wait(before));
                }
                for statement in &analysis.statements {
                    self.dispatch(statement, memory);
                    if let Kind::Execute(name) | Kind::Deallocate(name) = &statement.kind {
                        let executes = matches!(statement.kind, Kind::Execute(_));
                        if self.give_real_name(name.as_bytes(), executes, memory, to_server) {
                            message::sync(to_server.insert());
                            self.expect_silent(Due::Sync);
                        }
                    }
                }
                if let [statement] = &analysis.statements[..]
                    && is_commit(statement)
                {
                    // It changes nothing of what the block has done.
                    self.block.has_run &= !was_opening;
                    self.ask_before_query(memory, to_server, context);
                }
                running = Some(Box::new(Running { analysis, next: 0 }));
            }
        }
        self.note_sent(running.as_ref().map_or(&[], |running| &running.analysis.statements));
        // A simple query drops the unnamed statement (exec_simple_query), and ends an unsynced pipeline.
        self.unnamed = None;
        memory.unnamed = 0;
        self.unsynced = false;
        to_server.pass(pass.start, pass.end);
        self.expect(Due::Query(running));
        Ok(Taken::Yes)
    }

    fn parse(
        &mut self,
        head: frame::Header,
        body: &[u8],
        pass: Range<usize>,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        to_client: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Result<Taken, Malformed> {
        if head.total > context.max_inspect {
            if self.is_guest() {
                let problem = self.elsewhere(b"", context);
                self.unsynced = true;
                message::raw(to_server.insert(), b'D', &[b"S", NOWHERE, b"\0"]);
                self.expect(Due::Refused(problem.body().into()));
                return Ok(Taken::Dropped);
            }
            self.block.has_run = true;
            // Not kept, so it cannot be prepared elsewhere: the session stays on this server, under the client's names.
            if !self.native && self.is_quiet() && !self.done_before {
                return Ok(Taken::Wait(Before::GoNative));
            }
            self.pins.insert(Pin::Oversized);
            self.unsynced = true;
            self.unnamed = None;
            memory.unnamed = 0;
            to_server.pass(pass.start, pass.end);
            self.expect(Due::Parse(None));
            return Ok(Taken::Yes);
        }
        let (name, tail) = fields::cstr(body).ok_or(Malformed::Body(b'P'))?;
        let (text, _) = fields::cstr(tail).ok_or(Malformed::Body(b'P'))?;
        if !self.on_replica {
            if self.forgets_first(text, context) {
                return Ok(Taken::Wait(Before::ForgetSequences));
            }
            self.note_sequence(text, context);
        }
        if own_show(text).is_some() && !self.is_quiet() && !self.unsynced {
            return Ok(Taken::NeedReplies);
        }
        if self.is_quiet() && !self.done_before {
            if let Some(name) = own_show(text) {
                return Ok(Taken::Wait(Before::Publish(name.into())));
            }
            if self.status == Tx::Block && (self.is_guest() || self.block.is_opening()) {
                let effect = self.effect_of(text, context);
                let kinds = effect.as_deref().map_or(&[][..], std::slice::from_ref);
                // One that may not run there is refused when it is to run.
                if let Fit::Moves(before) = self.fits_block(text, kinds, context) {
                    return Ok(Taken::Wait(before));
                }
            }
        }
        if begins_with(text, &["set"])
            && let Some(problem) = self.effect_of(text, context).as_deref().and_then(wrong_setting)
        {
            self.unsynced = true;
            message::raw(to_server.insert(), b'D', &[b"S", NOWHERE, b"\0"]);
            self.expect(Due::Refused(problem.body().into()));
            return Ok(Taken::Dropped);
        }
        if name.is_empty() || self.native {
            let effect = self.effect_of(text, context);
            if let Some(statement) = &effect
                && let Some(before) = self.before(std::slice::from_ref(&**statement), memory)
            {
                return Ok(Taken::Wait(before));
            }
            self.unsynced = true;
            to_server.pass(pass.start, pass.end);
            if name.is_empty() {
                self.next_token += 1;
                let token = self.session << 24 | (self.next_token & 0xff_ffff);
                memory.unnamed = token;
                match &mut self.unnamed {
                    Some(known) => {
                        known.token = token;
                        known.tail.clear();
                        known.tail.extend_from_slice(tail);
                        known.effect = effect;
                    }
                    None => self.unnamed = Some(Box::new(Unnamed { token, tail: tail.to_vec(), effect })),
                }
                self.expect(Due::Parse(None));
            } else {
                let prepared = context.registry.unshared(tail, context.ddl_generation, effect);
                let parsing = Parsing { name: Some(name.into()), id: prepared.id };
                self.statements.entry(name.into()).or_insert(prepared);
                self.expect(Due::Parse(Some(Box::new(parsing))));
            }
            return Ok(Taken::Yes);
        }
        if self.statements.contains_key(name) {
            self.unsynced = true;
            message::raw(to_server.insert(), b'D', &[b"S", NOWHERE, b"\0"]);
            self.expect(Due::Refused(already_exists(name)));
            return Ok(Taken::Dropped);
        }
        // Temporary objects can hide permanent ones of the same name, so a pinned session shares with nobody; nor does one
        // with settings of its transaction's own.
        let prepared = if self.pins.is_empty() && !self.unsettled {
            let (dialect, settings) = (self.dialect(), self.image.hash() ^ context.identity);
            context.registry.shared(tail, settings, context.ddl_generation, || effect(text, dialect, context.suspects))
        } else {
            context.registry.unshared(tail, context.ddl_generation, self.effect_of(text, context))
        };
        if let Some(statement) = &prepared.effect
            && let Some(before) = self.before(std::slice::from_ref(&**statement), memory)
        {
            return Ok(Taken::Wait(before));
        }
        let ends_transaction = prepared.effect.as_ref().is_some_and(|statement| {
            matches!(statement.kind, Kind::Commit | Kind::Rollback | Kind::RollbackTo(_) | Kind::PrepareTransaction)
        });
        if self.status == Tx::Failed && !ends_transaction && self.is_quiet() {
            // PostgreSQL refuses it, whether it knows the text or not.
            self.unsynced = true;
            message::raw(to_server.insert(), b'P', &[NOWHERE, b"\0", tail]);
            self.expect(Due::Bind);
            return Ok(Taken::Dropped);
        }
        self.unsynced = true;
        self.statements.insert(name.into(), prepared.clone());
        if memory.touch(prepared.id) {
            self.say(&message::PARSE_COMPLETE, to_client, || (name.into(), None));
        } else {
            self.evict(memory, to_server, context);
            message::raw(to_server.insert(), b'P', &[&prepared.server_name, b"\0", tail]);
            let parsing = Parsing { name: Some(name.into()), id: prepared.id };
            memory.remember(prepared);
            self.expect(Due::Parse(Some(Box::new(parsing))));
        }
        Ok(Taken::Yes)
    }

    fn bind(
        &mut self,
        head: frame::Header,
        body: &[u8],
        pass: Range<usize>,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        context: &Context<'_>,
    ) -> Result<Taken, Malformed> {
        let Some((portal, name, rest)) = fields::bind_names(body) else {
            return match body.len() > MAX_NAME || body.len() == head.total - HEADER {
                true => Err(Malformed::Body(b'B')),
                false => Ok(Taken::NeedMore),
            };
        };
        let prepared = if name.is_empty() { None } else { self.statements.get(name).cloned() };
        let effect = match (&prepared, &self.unnamed) {
            (Some(prepared), _) => prepared.effect.clone(),
            (None, Some(unnamed)) if name.is_empty() => unnamed.effect.clone(),
            _ => None,
        };
        if !self.is_standby() && (self.on_replica || self.block.is_opening() || is_begin(effect.as_deref())) {
            match self.bind_in_block(name, prepared.as_deref(), effect.as_deref(), context) {
                Fit::Goes => {}
                Fit::Moves(before) => return Ok(Taken::Wait(before)),
                Fit::Refused => {
                    let text = self.text_of_statement(name, prepared.as_deref());
                    let problem = self.elsewhere(&text, context);
                    self.unsynced = true;
                    message::raw(to_server.insert(), b'B', &[b"\0", NOWHERE, b"\0", &[0; 6]]);
                    self.expect(Due::Refused(problem.body().into()));
                    return Ok(Taken::Dropped);
                }
            }
        }
        self.commit.is_atomic = !self.commit.has_run && is_atomic(self.tail_of_statement(name, prepared.as_deref()));
        let is_show = effect.is_none() && begins_with(self.tail_of_statement(name, prepared.as_deref()), &["show"]);
        self.has_shown_data |= shows_data(effect.as_deref().map_or(&[], std::slice::from_ref)) && !is_show;
        let mut resolved = None;
        if let Some(statement) = effect {
            if let Some(before) = self.before(std::slice::from_ref(&*statement), memory) {
                return Ok(Taken::Wait(before));
            }
            if matches!(statement.kind, Kind::SetConfig { .. }) {
                if body.len() < head.total - HEADER && head.total <= context.max_inspect {
                    return Ok(Taken::NeedMore);
                }
                resolved =
                    Some(self.resolve_set_config(&statement, body.get(rest..).and_then(fields::bind_parameters)));
            } else {
                resolved = Some(statement);
            }
        }
        if !self.portals.is_empty() {
            self.portals.retain(|(known, _)| &**known != portal);
        }
        if let Some(statement) = resolved {
            self.portals.push((portal.into(), statement));
        }
        self.unsynced = true;
        match &prepared {
            Some(prepared) if !self.native => {
                match self.ensure(prepared, memory, to_server, context) {
                    Ensured::There => {}
                    Ensured::Verifying => return Ok(Taken::NeedReplies),
                    Ensured::Stale => {
                        message::raw(to_server.insert(), b'B', &[b"\0", NOWHERE, b"\0", &[0; 6]]);
                        self.expect(Due::Refused(CHANGED_SHAPE.into()));
                        return Ok(Taken::Dropped);
                    }
                }
                let length = (head.total - 1 - name.len() + prepared.server_name.len()) as u32;
                let out = to_server.insert();
                out.push(b'B');
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(portal);
                out.push(0);
                out.extend_from_slice(&prepared.server_name);
                out.push(0);
                to_server.pass(pass.start + HEADER + rest, pass.end);
            }
            _ => {
                if name.is_empty() {
                    self.ensure_unnamed(memory, to_server);
                }
                to_server.pass(pass.start, pass.end);
            }
        }
        if portal.is_empty() {
            self.bound = prepared;
        }
        self.expect(Due::Bind);
        Ok(Taken::Yes)
    }

    fn effect_of(&self, text: &[u8], context: &Context<'_>) -> Option<Arc<Statement>> {
        effect(text, self.dialect(), context.suspects)
    }

    /// The statement is about to be sent: what it leaves behind even if it fails counts from now.
    fn dispatch(&mut self, statement: &Statement, memory: &mut Memory) {
        let pins = statement.pins.union(statement.pins_at_commit);
        memory.has_temp_schema |= pins.contains(Pin::Temporary) || pins.contains(Pin::Opaque);
        self.pins = self.pins.union(statement.pins);
        self.settling |= matches!(
            statement.kind,
            Kind::Prepare { .. } | Kind::Deallocate(_) | Kind::DeallocateAll | Kind::DiscardAll
        );
        self.unsettled |= matches!(statement.kind, Kind::SetLocal | Kind::Set { .. } | Kind::Reset(_) | Kind::ResetAll);
        if statement.pins.contains(Pin::Sequence) {
            self.happened.sequence_memory = true;
        }
        if statement.is_ddl {
            self.happened.ddl = true;
        }
    }

    pub(super) fn expect(&mut self, due: Due) {
        self.queue.push_back(Expect { due, silent: false });
    }

    pub(super) fn expect_silent(&mut self, due: Due) {
        self.queue.push_back(Expect { due, silent: true });
    }

    /// Says it when its turn comes. `before` is what a name was, to be put back if that turn never comes.
    pub(super) fn say(
        &mut self,
        bytes: &'static [u8],
        to_client: &mut Vec<u8>,
        before: impl FnOnce() -> (Box<[u8]>, Option<Arc<Prepared>>),
    ) {
        // What a replica is asked may have to be asked again: nothing is said before it has answered.
        if self.queue.is_empty() && !self.is_armed {
            to_client.extend_from_slice(bytes);
        } else {
            self.expect(Due::Local(bytes, Some(Box::new(before()))));
        }
    }

    /// Says our own replies whose turn has come.
    pub(super) fn settle_front(&mut self, to_client: &mut Vec<u8>) {
        while let Some(Expect { due: Due::Local(..) | Due::CopyEnd, .. }) = self.queue.front() {
            if let Some(Expect { due: Due::Local(bytes, _), .. }) = self.queue.pop_front()
                && !self.commit.is_muted
            {
                to_client.extend_from_slice(bytes);
            }
        }
    }
}

/// pg_advisory_lock and its kin, set_config: the builtins that change a session when called by number
/// (pg_proc.dat of PostgreSQL 14 to 18).
const FASTPATH_SESSION_FUNCTIONS: [u32; 9] = [2078, 2880, 2881, 2882, 2883, 2884, 2886, 2887, 2888];

/// A SET of one of our own settings that cannot be.
fn wrong_setting(statement: &Statement) -> Option<message::Problem> {
    match &statement.kind {
        Kind::Set { name, text } => wishes::check(name, text).err(),
        _ => None,
    }
}

fn effect(text: &[u8], dialect: Dialect, suspects: &Suspects) -> Option<Arc<Statement>> {
    let statement = analysis::analyze(text, dialect, suspects).statements.into_iter().next()?;
    (!is_plain(&statement)).then(|| Arc::new(statement))
}
