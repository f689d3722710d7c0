//! Where what the client sends next may run: read as a whole before any of it is sent anywhere.
//!
//! A simple Query is judged by its text, a pipeline up to its Sync by its strongest member. What happens within a block that is
//! already open is in `block`.

use std::sync::Arc;

use super::{Context, Home, Machine, Tx};
use crate::pool::memory::Prepared;
use crate::route::names::Path;
use crate::route::{Class, Target, Verdict};
use crate::session::verdicts::{Judged, Reading};
use crate::sql::shape::Hint;
use crate::sql::{Pin, Pins};
use crate::wire::fields;
use crate::wire::frame::{self, HEADER};

/// How much of a pipeline is gathered to find its Sync before a server is chosen; a longer one goes to the primary.
const LONGEST_PIPELINE: usize = 32 * 1024;

/// Where a transaction or autocommit statement has to run, and the short word for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Demand {
    Primary(Why),
    Replica(Why),
}

/// Why something goes where it goes. The fixed set that counters have labels from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Why {
    Read,
    ReadOnlyTransaction,
    Write,
    MayWrite,
    MeansSomethingElse,
    Transaction,
    SessionState,
    Unreadable,
    Pinned,
    OpenPipeline,
    TooLong,
    AskedFor,
    Disabled,
    NoReplica,
    NotFresh,
    Retry,
    ReadOnlyListener,
}

impl Why {
    pub const ALL: [Why; 17] = [
        Why::Read,
        Why::ReadOnlyTransaction,
        Why::Write,
        Why::MayWrite,
        Why::MeansSomethingElse,
        Why::Transaction,
        Why::SessionState,
        Why::Unreadable,
        Why::Pinned,
        Why::OpenPipeline,
        Why::TooLong,
        Why::AskedFor,
        Why::Disabled,
        Why::NoReplica,
        Why::NotFresh,
        Why::Retry,
        Why::ReadOnlyListener,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Why::Read => "read",
            Why::ReadOnlyTransaction => "read-only transaction",
            Why::Write => "write",
            Why::MayWrite => "may write",
            Why::MeansSomethingElse => "means something else on a replica",
            Why::Transaction => "transaction",
            Why::SessionState => "session state",
            Why::Unreadable => "unreadable",
            Why::Pinned => "pinned",
            Why::OpenPipeline => "open pipeline",
            Why::TooLong => "too long",
            Why::AskedFor => "asked for",
            Why::Disabled => "routing is off",
            Why::NoReplica => "no replica",
            Why::NotFresh => "no replica is fresh enough",
            Why::Retry => "retried on the primary",
            Why::ReadOnlyListener => "read-only listener",
        }
    }
}

/// What reading ahead came to.
pub(super) enum Plan {
    /// Its end has not come yet.
    Wait,
    Run(Demand),
}

/// What is remembered of a prepared statement's verdict: for which names and path, which class, which hint.
fn pack(context: &Context<'_>, class: Class, hint: Option<Hint>) -> u64 {
    let hint = match hint {
        None => 0,
        Some(Hint::Primary) => 1,
        Some(Hint::Replica) => 2,
    };
    stamp(context) | u64::from(class as u8 + 1) << 2 | hint
}

fn stamp(context: &Context<'_>) -> u64 {
    (context.names_version & 0xff_ffff) << 40 | (context.scope & 0xffff_ffff) << 8
}

fn unpack(context: &Context<'_>, packed: u64) -> Option<(Class, Option<Hint>)> {
    if packed & !0xff != stamp(context) {
        return None;
    }
    let class = Class::ALL.get((usize::try_from(packed & 0xff).ok()? >> 2).checked_sub(1)?)?;
    let hint = match packed & 3 {
        1 => Some(Hint::Primary),
        2 => Some(Hint::Replica),
        _ => None,
    };
    Some((*class, hint))
}

/// The text of a Parse's tail.
fn text_of(tail: &[u8]) -> &[u8] {
    fields::cstr(tail).map_or(tail, |(text, _)| text)
}

/// `SHOW pgbaton.…`, which is answered from what the session knows: the name after the dot, in lower case.
pub(super) fn own_show(text: &[u8]) -> Option<String> {
    let rest = text.trim_ascii();
    if !rest.get(..4)?.eq_ignore_ascii_case(b"show") {
        return None;
    }
    let rest = rest[4..].trim_ascii().strip_suffix(b";").unwrap_or(rest[4..].trim_ascii()).trim_ascii();
    let name = rest.get(8..).filter(|_| rest[..8].eq_ignore_ascii_case(b"pgbaton."))?;
    let is_name = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    is_name.then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

/// `EXPLAIN ROUTE …`: what is to be explained.
pub fn explain_route(text: &[u8]) -> Option<&[u8]> {
    let rest = text.trim_ascii_start();
    if !rest.get(..7)?.eq_ignore_ascii_case(b"explain") || !rest.get(7)?.is_ascii_whitespace() {
        return None;
    }
    let rest = rest[7..].trim_ascii_start();
    (rest.get(..5)?.eq_ignore_ascii_case(b"route") && rest.get(5)?.is_ascii_whitespace()).then(|| &rest[6..])
}

fn why(class: Class) -> Why {
    match class {
        Class::Empty | Class::Read => Why::Read,
        Class::BeginReadOnly => Why::ReadOnlyTransaction,
        Class::Volatile => Why::MayWrite,
        Class::Differs => Why::MeansSomethingElse,
        Class::Write => Why::Write,
        Class::Begin | Class::BeginReadWrite | Class::SetReadOnly | Class::Transaction | Class::SetLocal => {
            Why::Transaction
        }
        Class::Session | Class::Cursor | Class::Execute => Why::SessionState,
        Class::Unreadable => Why::Unreadable,
    }
}

impl Machine {
    /// The verdict on a text of this session.
    pub fn judge(&self, text: &[u8], context: &Context<'_>) -> Judged {
        context.verdicts.borrow_mut().judge(text, &self.reading(context))
    }

    fn reading<'c>(&self, context: &Context<'c>) -> Reading<'c> {
        let manner = self.manner();
        // The search_path may be the transaction's own.
        let (path, scope) = match self.unsettled {
            true => (&Path::Unknown, !context.scope),
            false => (context.path, context.scope),
        };
        Reading {
            dialect: manner.dialect,
            encoding: manner.encoding,
            names: context.names,
            names_version: context.names_version,
            path,
            scope,
        }
    }

    /// A replica has refused to write for what begins with these bytes: it is no read, whatever the catalog says.
    pub fn distrust(&mut self, input: &[u8], context: &Context<'_>) {
        let mut rest = input;
        let mut syncs = 0;
        while let Ok(Some(head)) = frame::client_header(rest) {
            let Some(body) = rest.get(HEADER..head.total) else { return };
            rest = &rest[head.total..];
            // Which of several it was is not known; the first will be.
            syncs += usize::from(matches!(head.tag, b'S' | b'Q'));
            if syncs > 1 {
                return;
            }
            let text = match head.tag {
                b'Q' => body.strip_suffix(b"\0"),
                b'P' => fields::cstr(body).map(|(_, tail)| text_of(tail)),
                b'B' => {
                    let name = fields::bind_names(body).map(|(_, name, _)| name);
                    if let Some(prepared) = name.and_then(|name| self.statements.get(name)) {
                        let refused = pack(context, Class::Write, None);
                        prepared.route.store(refused, std::sync::atomic::Ordering::Relaxed);
                    }
                    None
                }
                _ => None,
            };
            if let Some(text) = text {
                context.verdicts.borrow_mut().distrust(text, &self.reading(context));
            }
        }
    }

    /// What a text is, and where it would go between transactions.
    pub fn explain(&self, text: &[u8], context: &Context<'_>) -> (Judged, Demand) {
        let judged = self.judge(text, context);
        let demand = match self.may_leave(context) {
            _ if self.is_standby() => Demand::Replica(Why::ReadOnlyListener),
            Err(why) => Demand::Primary(why),
            Ok(()) => self.demand_of(judged.class(), judged.hint, Some(&judged.verdict), context),
        };
        (judged, demand)
    }

    /// What was planned is planned again: the names may mean something else by now.
    pub fn replan(&mut self, input: &[u8], context: &Context<'_>) {
        let may_change =
            !self.is_standby() && matches!(self.demand, Demand::Replica(_) | Demand::Primary(Why::Disabled));
        if self.status == Tx::Idle && self.is_planned && may_change {
            self.is_planned = false;
            if let Plan::Wait = self.plan(input, context) {
                self.demand_primary(Why::OpenPipeline);
            }
        }
    }

    /// Whether reads of this session may leave the primary at all, pins aside.
    pub(super) fn may_leave(&self, context: &Context<'_>) -> Result<(), Why> {
        if !context.reads {
            return Err(Why::Disabled);
        }
        if context.target == Target::Primary {
            return Err(Why::AskedFor);
        }
        // A session that has advanced a sequence keeps its connection to the primary aside meanwhile.
        if !self.pins.is_empty() && self.pins != Pins::of(Pin::Sequence) || self.native {
            return Err(Why::Pinned);
        }
        Ok(())
    }

    /// Where the whole of what begins at `input` must run; asked between transactions.
    pub(super) fn plan(&mut self, input: &[u8], context: &Context<'_>) -> Plan {
        self.verdict = None;
        let plan = match self.may_leave(context) {
            Err(why) => Plan::Run(Demand::Primary(why)),
            Ok(()) => self.read_ahead(input, context),
        };
        if let Plan::Run(demand) = plan {
            self.is_read = demand == Demand::Replica(Why::Read);
            self.demand = demand;
            self.is_planned = true;
        }
        plan
    }

    pub(super) fn read_ahead(&mut self, input: &[u8], context: &Context<'_>) -> Plan {
        let primary = |why| Plan::Run(Demand::Primary(why));
        let Ok(Some(head)) = frame::client_header(input) else { return primary(Why::Unreadable) };
        match head.tag {
            b'Q' if head.total > context.max_inspect => primary(Why::TooLong),
            b'Q' if input.len() < head.total => Plan::Wait,
            b'Q' => match input[HEADER..head.total].strip_suffix(b"\0") {
                None => primary(Why::Unreadable),
                Some(text) => {
                    let judged = self.judge(text, context);
                    self.verdict = Some(judged.verdict.clone());
                    Plan::Run(self.demand_of(judged.class(), judged.hint, Some(&judged.verdict), context))
                }
            },
            b'P' | b'B' | b'D' | b'C' | b'E' => self.read_pipeline(input, context),
            _ => primary(Why::SessionState),
        }
    }

    /// A pipeline, up to its Sync.
    fn read_pipeline(&mut self, input: &[u8], context: &Context<'_>) -> Plan {
        let mut rest = input;
        let mut parsed: smallvec::SmallVec<[(&[u8], Class, Option<Hint>, bool); 2]> = smallvec::SmallVec::new();
        let mut is_flushed = false;
        // A block opened within it, and whether anything at all goes to a replica so far.
        let mut is_open = false;
        let mut demand = None;
        // What the unnamed portal is bound to and not executed yet.
        let mut bound: Option<(Class, Option<Hint>)> = None;
        loop {
            let Ok(head) = frame::client_header(rest) else { return Plan::Run(Demand::Primary(Why::Unreadable)) };
            let whole = head.filter(|head| rest.len() >= head.total);
            let Some(head) = whole else {
                let length = input.len() - rest.len() + head.map_or(0, |head| head.total);
                return match length > LONGEST_PIPELINE || is_flushed {
                    true => Plan::Run(Demand::Primary(if is_flushed { Why::OpenPipeline } else { Why::TooLong })),
                    false => Plan::Wait,
                };
            };
            let body = &rest[HEADER..head.total];
            rest = &rest[head.total..];
            let runs = match head.tag {
                b'P' => {
                    let named = fields::cstr(body).and_then(|(name, tail)| Some((name, fields::cstr(tail)?.0)));
                    let Some((name, text)) = named else { return Plan::Run(Demand::Primary(Why::Unreadable)) };
                    let judged = self.judge(text, context);
                    let class = self.resolve(judged.class(), Some(&judged.verdict), context);
                    self.verdict = Some(judged.verdict);
                    parsed.push((name, class, judged.hint, false));
                    continue;
                }
                b'B' => {
                    let Some((portal, name, _)) = fields::bind_names(body) else {
                        return Plan::Run(Demand::Primary(Why::Unreadable));
                    };
                    // Portals with names may be executed in any order.
                    if !portal.is_empty() {
                        return Plan::Run(Demand::Primary(Why::OpenPipeline));
                    }
                    let before = bound.take();
                    bound = match parsed.iter_mut().rev().find(|(known, ..)| *known == name) {
                        Some((_, class, hint, is_bound)) => {
                            *is_bound = true;
                            Some((*class, *hint))
                        }
                        None => Some(self.class_of_statement(name, context)),
                    };
                    // One that is bound and never executed only has to be bindable there.
                    before.filter(|(class, _)| *class != Class::Read).map(|_| (Class::Session, None))
                }
                b'D' | b'C' => match body.split_first().and_then(|(what, name)| Some((*what, fields::cstr(name)?.0))) {
                    Some((b'S', name)) if head.tag == b'D' => {
                        match parsed.iter().rev().find(|(known, ..)| *known == name) {
                            Some(_) => None,
                            None => Some(self.class_of_statement(name, context)),
                        }
                    }
                    _ => None,
                },
                // Without a Bind before it, a portal from earlier.
                b'E' => Some(bound.take().unwrap_or((Class::Session, None))),
                b'H' => {
                    is_flushed = true;
                    None
                }
                b'S' => break,
                _ => return Plan::Run(Demand::Primary(Why::OpenPipeline)),
            };
            let Some((class, hint)) = runs else { continue };
            let next = match class {
                Class::Volatile | Class::SetLocal | Class::Cursor | Class::SetReadOnly if is_open => {
                    Demand::Replica(Why::ReadOnlyTransaction)
                }
                Class::Transaction if is_open => {
                    is_open = false;
                    Demand::Replica(Why::ReadOnlyTransaction)
                }
                _ => self.demand_of(class, hint, None, context),
            };
            is_open |= matches!(class, Class::BeginReadOnly | Class::Begin);
            match next {
                Demand::Primary(_) => return Plan::Run(next),
                Demand::Replica(_) => demand = Some(demand.unwrap_or(next)),
            }
        }
        if bound.is_some_and(|(class, _)| class != Class::Read) {
            return Plan::Run(Demand::Primary(Why::SessionState));
        }
        // What is only prepared will run some other time.
        for (_, class, hint, is_bound) in parsed {
            if !is_bound {
                match self.demand_of(class, hint, None, context) {
                    next @ Demand::Replica(Why::Read) => demand = Some(demand.unwrap_or(next)),
                    Demand::Replica(_) => return Plan::Run(Demand::Primary(Why::Transaction)),
                    next => return Plan::Run(next),
                }
            }
        }
        Plan::Run(demand.unwrap_or(Demand::Primary(Why::SessionState)))
    }

    /// The class of a statement prepared earlier.
    fn class_of_statement(&mut self, name: &[u8], context: &Context<'_>) -> (Class, Option<Hint>) {
        if name.is_empty() {
            let Some(unnamed) = &self.unnamed else { return (Class::Unreadable, None) };
            let judged = self.judge(text_of(&unnamed.tail), context);
            let class = self.resolve(judged.class(), Some(&judged.verdict), context);
            self.verdict = Some(judged.verdict);
            return (class, judged.hint);
        }
        match self.statements.get(name).cloned() {
            Some(prepared) => self.class_of_prepared(&prepared, context),
            None => match std::str::from_utf8(name) {
                Ok(name) => (self.class_of_sql_prepared(name, context), None),
                Err(_) => (Class::Unreadable, None),
            },
        }
    }

    /// Judged once for each meaning of the names, then read off the statement.
    fn class_of_prepared(&mut self, prepared: &Arc<Prepared>, context: &Context<'_>) -> (Class, Option<Hint>) {
        if !self.unsettled
            && let Some(known) = unpack(context, prepared.route.load(std::sync::atomic::Ordering::Relaxed))
        {
            return known;
        }
        let judged = self.judge(text_of(&prepared.tail), context);
        let class = self.resolve(judged.class(), Some(&judged.verdict), context);
        // What an EXECUTE stands for may change without the statement.
        if judged.class() != Class::Execute && !self.unsettled {
            prepared.route.store(pack(context, class, judged.hint), std::sync::atomic::Ordering::Relaxed);
        }
        self.verdict = Some(judged.verdict);
        (class, judged.hint)
    }

    /// The class of what SQL PREPARE has made under this name.
    fn class_of_sql_prepared(&self, name: &str, context: &Context<'_>) -> Class {
        let Some((_, text)) = self.image.prepared.iter().find(|(known, _)| **known == *name) else {
            return Class::Unreadable;
        };
        self.judge(text, context).verdict.inner.unwrap_or(Class::Unreadable)
    }

    /// EXECUTE is what it executes.
    pub(super) fn resolve(&self, class: Class, verdict: Option<&Verdict>, context: &Context<'_>) -> Class {
        match (class, verdict.and_then(|verdict| verdict.executes.as_deref())) {
            (Class::Execute, Some(name)) => self.class_of_sql_prepared(name, context),
            (class, _) => class,
        }
    }

    fn demand_of(&self, class: Class, hint: Option<Hint>, verdict: Option<&Verdict>, context: &Context<'_>) -> Demand {
        let class = self.resolve(class, verdict, context);
        if hint == Some(Hint::Primary) && !self.is_standby() {
            return Demand::Primary(Why::AskedFor);
        }
        match class {
            Class::Read => Demand::Replica(Why::Read),
            Class::BeginReadOnly if self.home == Home::PrimaryOnly => Demand::Primary(Why::Retry),
            Class::BeginReadOnly => Demand::Replica(Why::ReadOnlyTransaction),
            Class::Begin | Class::Volatile if self.manner().is_read_only && self.home != Home::PrimaryOnly => {
                Demand::Replica(Why::ReadOnlyTransaction)
            }
            class => Demand::Primary(why(class)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_stand_at_their_numbers() {
        for (number, class) in Class::ALL.iter().enumerate() {
            assert_eq!(*class as usize, number);
        }
    }

    #[test]
    fn our_own_statements_are_known_by_their_first_words() {
        assert_eq!(own_show(b" show  pgbaton.LSN ;").as_deref(), Some("lsn"));
        assert_eq!(own_show(b"SHOW pgbaton.").as_deref(), None);
        assert_eq!(own_show(b"SHOW search_path"), None);
        assert_eq!(own_show(b"SHO"), None);
        assert_eq!(explain_route(b"explain Route select 1"), Some(&b"select 1"[..]));
        assert_eq!(explain_route(b"EXPLAIN SELECT 1"), None);
        assert_eq!(explain_route(b"EXPLAIN ROUTE"), None);
    }
}
