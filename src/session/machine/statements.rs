//! Prepared statements on the server at hand: there when they are needed, under the right name, and with the result their
//! clients know.

use std::ops::Range;
use std::sync::Arc;

use super::client::Taken;
use super::{Context, Due, Machine, Parsing, Tx};
use crate::pool::memory::{Memory, Prepared};
use crate::session::sink::Sink;
use crate::sql::{Argument, Kind, Pin, Statement, quote_literal};
use crate::wire::message;

#[derive(PartialEq, Eq)]
pub(super) enum Ensured {
    There,
    Verifying,
    Stale,
}

/// A statement name that no server has.
pub(super) const NOWHERE: &[u8] = b"pgbaton_nowhere";

/// PostgreSQL's own error for it. Drivers know it by its routine, and answer by preparing anew.
pub(super) const CHANGED_SHAPE: &[u8] =
    b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0Fplancache.c\0RRevalidateCachedQuery\0\0";

/// The error for preparing a name that is in use.
pub(super) fn already_exists(name: &[u8]) -> Box<[u8]> {
    let parts: [&[u8]; 3] = [
        b"SERROR\0VERROR\0C42P05\0Mprepared statement \"",
        name,
        b"\" already exists\0Fprepare.c\0RStorePreparedStatement\0\0",
    ];
    parts.concat().into()
}

impl Machine {
    /// Describe of a statement, under the name it has on the server.
    pub(super) fn describe(
        &mut self,
        name: &[u8],
        pass: Range<usize>,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        context: &Context<'_>,
    ) -> Taken {
        let prepared = if name.is_empty() || self.native { None } else { self.statements.get(name).cloned() };
        let Some(prepared) = prepared else {
            if name.is_empty() {
                self.ensure_unnamed(memory, to_server);
            }
            to_server.pass(pass.start, pass.end);
            self.expect(Due::Describe(None));
            return Taken::Yes;
        };
        match self.ensure(&prepared, memory, to_server, context) {
            Ensured::There => {
                message::raw(to_server.insert(), b'D', &[b"S", &prepared.server_name, b"\0"]);
                self.expect(Due::Describe(Some(prepared)));
                Taken::Yes
            }
            Ensured::Verifying => Taken::NeedReplies,
            Ensured::Stale => {
                message::raw(to_server.insert(), b'D', &[b"S", NOWHERE, b"\0"]);
                self.expect(Due::Refused(CHANGED_SHAPE.into()));
                Taken::Yes
            }
        }
    }

    /// Makes sure the server has a shared statement, parsing it in the same write if not. One that was prepared before
    /// DDL is looked at first: PostgreSQL refuses to run a prepared statement whose result has changed its shape, and so
    /// does a server that never had it.
    pub(super) fn ensure(
        &mut self,
        prepared: &Arc<Prepared>,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        context: &Context<'_>,
    ) -> Ensured {
        if memory.touch(prepared.id) {
            return Ensured::There;
        }
        if self.stale.take() == Some(prepared.id) {
            message::close(to_server.insert(), b'S', &prepared.server_name);
            self.expect_silent(Due::Evict(prepared.clone()));
            return Ensured::Stale;
        }
        self.evict(memory, to_server, context);
        message::raw(to_server.insert(), b'P', &[&prepared.server_name, b"\0", &prepared.tail]);
        memory.remember(prepared.clone());
        self.expect_silent(Due::Parse(Some(Box::new(Parsing { name: None, id: prepared.id }))));
        if prepared.generation == context.ddl_generation || prepared.shape.get().is_none() {
            return Ensured::There;
        }
        let out = to_server.insert();
        message::raw(out, b'D', &[b"S", &prepared.server_name, b"\0"]);
        message::raw(out, b'H', &[]);
        self.expect_silent(Due::Verify(prepared.clone()));
        self.unsynced = true;
        self.verifying = true;
        Ensured::Verifying
    }

    pub(super) fn evict(&mut self, memory: &mut Memory, to_server: &mut Sink<'_>, context: &Context<'_>) {
        if let Some(oldest) = memory.to_evict(context.max_prepared) {
            memory.forget(oldest.id);
            message::close(to_server.insert(), b'S', &oldest.server_name);
            self.expect_silent(Due::Evict(oldest));
        }
    }

    /// The unnamed statement outlives its transaction, so it may have to be parsed again on another server, or another
    /// session's be removed.
    pub(super) fn ensure_unnamed(&mut self, memory: &mut Memory, to_server: &mut Sink<'_>) {
        match &self.unnamed {
            Some(unnamed) if memory.unnamed != unnamed.token => {
                memory.unnamed = unnamed.token;
                message::raw(to_server.insert(), b'P', &[b"\0", &unnamed.tail]);
                self.expect_silent(Due::Parse(None));
            }
            None if memory.unnamed != 0 => {
                memory.unnamed = 0;
                message::close(to_server.insert(), b'S', b"");
                self.expect_silent(Due::Close(None));
            }
            _ => {}
        }
    }

    /// SQL that names a statement of the protocol's (`EXECUTE s1`, `DEALLOCATE s1`) finds it under the client's name.
    pub(super) fn give_real_name(
        &mut self,
        name: &[u8],
        stays: bool,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
    ) -> bool {
        if self.native || self.image.has_prepared(name) || self.status == Tx::Failed {
            return false;
        }
        let Some(prepared) = self.statements.get(name).cloned() else { return false };
        if stays {
            self.pins.insert(Pin::Introspection);
        }
        memory.unnamed = 0;
        message::raw(to_server.insert(), b'P', &[name, b"\0", &prepared.tail]);
        self.expect_silent(Due::Parse(None));
        true
    }

    /// A `set_config` whose values came with Bind, turned into the SET it amounts to.
    pub(super) fn resolve_set_config(
        &self,
        statement: &Statement,
        values: Option<Vec<Option<&[u8]>>>,
    ) -> Arc<Statement> {
        let opaque = || {
            let mut pins = statement.pins;
            pins.insert(Pin::Opaque);
            Arc::new(Statement { pins, ..Statement::default() })
        };
        let Kind::SetConfig { name, value, is_local } = &statement.kind else { return opaque() };
        let look_up = |argument: &Argument| -> Option<String> {
            match argument {
                Argument::Literal(text) => Some(text.to_string()),
                Argument::Parameter(number) => {
                    let bytes = (*values.as_ref()?.get(usize::from(*number).checked_sub(1)?)?)?;
                    Some(std::str::from_utf8(bytes).ok()?.to_owned())
                }
            }
        };
        let (Some(name), Some(value), Some(is_local)) = (look_up(name), look_up(value), look_up(is_local)) else {
            return opaque();
        };
        match is_local.to_ascii_lowercase().as_str() {
            "t" | "true" | "1" | "on" | "y" | "yes" | "\u{1}" => {
                Arc::new(Statement { kind: Kind::SetLocal, ..Statement::default() })
            }
            "f" | "false" | "0" | "off" | "n" | "no" | "\0" => {
                let text =
                    format!("SELECT pg_catalog.set_config({}, {}, false)", quote_literal(&name), quote_literal(&value));
                let kind = Kind::Set { name: name.to_ascii_lowercase().into(), text: text.into_bytes().into() };
                Arc::new(Statement { kind, pins: statement.pins, ..Statement::default() })
            }
            _ => opaque(),
        }
    }

    /// Close of a statement or portal, under the client's name for it.
    pub(super) fn close(
        &mut self,
        what: u8,
        name: &[u8],
        pass: Range<usize>,
        memory: &mut Memory,
        to_server: &mut Sink<'_>,
        to_client: &mut Vec<u8>,
    ) {
        if what == b'P' {
            self.portals.retain(|(known, _)| &**known != name);
        } else if name.is_empty() {
            self.unnamed = None;
            memory.unnamed = 0;
        } else if let Some(prepared) = self.statements.remove(name) {
            if self.native {
                to_server.pass(pass.start, pass.end);
                self.expect(Due::Close(Some(Box::new((name.into(), prepared)))));
            } else {
                // The server's copy is shared and stays; only the client's name for it goes.
                self.say(&message::CLOSE_COMPLETE, to_client, || (name.into(), Some(prepared)));
            }
            return;
        } else if self.image.has_prepared(name)
            && let Ok(name) = std::str::from_utf8(name)
        {
            to_server.pass(pass.start, pass.end);
            self.expect(Due::CloseSql(name.into()));
            return;
        }
        to_server.pass(pass.start, pass.end);
        self.expect(Due::Close(None));
    }
}
