//! Why something may not simply run on a replica, in words for people and as traits.

use super::graph::Sort;
use crate::route::names::Traits;
use crate::sql::{Pin, Pins};

/// A reason that lies in the object itself, not in what it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Volatile,
    /// One of PostgreSQL's own functions that is another on a standby; what it is about.
    PerNode(&'static str),
    /// A body that nobody here can read.
    Language(Box<str>),
    Unreadable,
    /// Its body does something to the session.
    Pin(Pin),
    /// Its body looks at a setting that is another on a standby.
    Setting(&'static str),
    Extension(Box<str>),
    Unlogged,
    Foreign,
    Sequence,
    /// A view with FOR UPDATE or FOR SHARE.
    Locks,
    /// `reads.unsafe_functions` names it.
    Unsafe,
}

impl Cause {
    pub fn traits(&self) -> Traits {
        match self {
            Cause::Volatile | Cause::Locks => Traits::MAY_WRITE,
            // Text that is put together and run can be anything.
            Cause::Pin(Pin::Opaque) => Traits::MAY_WRITE.union(Traits::DIFFERS),
            _ => Traits::DIFFERS,
        }
    }

    /// Said of the object itself.
    pub fn text(&self) -> String {
        match self {
            Cause::Volatile => "VOLATILE".into(),
            Cause::PerNode(what) => (*what).into(),
            Cause::Language(language) => format!("language {language}"),
            Cause::Unreadable => "a body that cannot be read".into(),
            Cause::Pin(pin) => pin_text(*pin).into(),
            Cause::Setting(setting) => format!("looks at {setting}"),
            Cause::Extension(extension) => format!("extension {extension}"),
            Cause::Unlogged => "unlogged table".into(),
            Cause::Foreign => "foreign table".into(),
            Cause::Sequence => "sequence".into(),
            Cause::Locks => "FOR UPDATE or FOR SHARE".into(),
            Cause::Unsafe => "reads.unsafe_functions".into(),
        }
    }

    /// Said of somebody who uses `label`, an object of this sort with this cause.
    pub fn text_of_user(&self, is_direct: bool, user: Sort, sort: Sort, label: &str) -> String {
        let verb = match (is_direct, sort) {
            (false, _) => "reaches",
            (true, Sort::Function) if user == Sort::Function && matches!(self, Cause::PerNode(_)) => "mentions",
            (true, Sort::Function) => "calls",
            (true, Sort::Relation) => "reads",
            (true, _) => "uses",
        };
        let rest = match self {
            // The name says it.
            Cause::PerNode(_) => return format!("{verb} {label}"),
            Cause::Volatile => "is VOLATILE".into(),
            Cause::Language(language) => format!("is in language {language}"),
            Cause::Unreadable => "cannot be read".into(),
            Cause::Pin(pin) => pin_text(*pin).into(),
            Cause::Setting(setting) => format!("looks at {setting}"),
            Cause::Extension(extension) => format!("belongs to extension {extension}"),
            Cause::Unlogged => "is an unlogged table".into(),
            Cause::Foreign => "is a foreign table".into(),
            Cause::Sequence => "is a sequence".into(),
            Cause::Locks => "locks rows".into(),
            Cause::Unsafe => "stands in reads.unsafe_functions".into(),
        };
        format!("{verb} {label}, which {rest}")
    }
}

/// The causes that lie in what a function does to its session.
pub(super) fn causes_of_pins(pins: Pins) -> impl Iterator<Item = Cause> {
    // Opaque first: it has all traits, and of several causes the first of each trait is told.
    let opaque = pins.contains(Pin::Opaque).then_some(Pin::Opaque);
    opaque.into_iter().chain(pins.iter().filter(|pin| *pin != Pin::Opaque)).map(Cause::Pin)
}

fn pin_text(pin: Pin) -> &'static str {
    match pin {
        Pin::Opaque => "changes settings or runs a text",
        Pin::AdvisoryLock => "takes advisory locks",
        Pin::Temporary => "makes temporary objects",
        Pin::Listen => "listens",
        Pin::Introspection => "looks at its own server process",
        Pin::Sequence => "looks at the session's sequences",
        _ => "leaves something in the session",
    }
}
