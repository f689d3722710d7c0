//! What the machine may look up while it reads a client, put together for one look: facts of the database, verdicts of the
//! worker, wishes of the session.

use std::cell::RefCell;
use std::sync::Arc;

use super::Session;
use super::machine::Context;
use super::shared::{Database, Shared};
use super::verdicts::Verdicts;
use super::wishes::{Kept, Wishes};
use crate::route::Target;
use crate::route::names::{Names, Path};
use crate::sql::Suspects;

thread_local! {
    /// Of this worker.
    pub(super) static VERDICTS: RefCell<Verdicts> = RefCell::default();
}

static NO_PATH: Path = Path::Unknown;

/// Held while the machine reads.
pub(super) struct Known {
    suspects: arc_swap::Guard<Arc<Suspects>>,
    names: arc_swap::Guard<Arc<Names>>,
    names_version: u64,
    reads: bool,
}

impl Known {
    #[inline]
    pub fn of(database: &Database, shared: &Shared) -> Known {
        Known {
            suspects: database.facts.suspects(),
            // The version first: see there.
            names_version: database.facts.names_version(),
            names: database.facts.names(),
            reads: shared.readers.is_worth_judging() && database.facts.is_current(),
        }
    }

    #[inline]
    pub fn context<'a>(
        &'a self,
        database: &'a Database,
        wishes: &'a Option<Box<Kept>>,
        identity: u64,
        (max_inspect, max_prepared, sequence_memory, ask_commits): (usize, usize, bool, bool),
        verdicts: &'a RefCell<Verdicts>,
    ) -> Context<'a> {
        let (scope, path, target) = match wishes {
            Some(kept) => {
                let target = if kept.wishes.is_serializable { Target::Primary } else { kept.wishes.target };
                (kept.wishes.scope(), &kept.wishes.path, target)
            }
            None => (database.number, &NO_PATH, Target::Auto),
        };
        Context {
            suspects: &self.suspects,
            registry: &database.registry,
            ddl_generation: database.facts.ddl_generation(),
            identity,
            max_inspect,
            max_prepared,
            sequence_memory,
            verdicts,
            names: &self.names,
            names_version: self.names_version,
            path,
            scope,
            reads: self.reads,
            ask_commits,
            target,
        }
    }
}

impl Session {
    /// Reads the wishes anew if what they are read from has changed.
    #[inline]
    pub(super) fn refresh_wishes(&mut self) {
        let version = self.database.facts.names_version();
        if !self.wishes.as_ref().is_some_and(|kept| kept.is_of(self.machine.image(), version)) {
            self.read_wishes(version);
        }
    }

    fn read_wishes(&mut self, version: u64) {
        let names = self.database.facts.names();
        let image = self.machine.image();
        let wishes = Wishes::read(&self.startup, image, &names, &self.me.client.user, self.database.number);
        self.wishes = Some(Box::new(Kept::new(image, version, wishes)));
    }

    /// Looks at the wishes as they were last read, which is before each statement.
    #[inline]
    pub(super) fn wish<R>(&self, look: impl FnOnce(&Wishes) -> R) -> R {
        match &self.wishes {
            Some(kept) => look(&kept.wishes),
            None => look(&Wishes::default()),
        }
    }

    /// Plans what is at the head of `from_client` again.
    pub(super) fn replan(&mut self) {
        self.with_context(|session, context| session.machine.replan(&session.from_client, context));
    }

    pub(super) fn distrust(&mut self, sent: &[u8]) {
        self.with_context(|session, context| session.machine.distrust(sent, context));
    }

    pub(super) fn with_context<R>(&mut self, act: impl FnOnce(&mut Session, &Context<'_>) -> R) -> R {
        self.refresh_wishes();
        let (database, shared) = (self.database.clone(), self.shared.clone());
        let known = Known::of(&database, &shared);
        let wishes = self.wishes.take();
        let limits = (self.max_inspect, self.max_prepared, self.sequence_use.is_likely(), self.ask_commits);
        let result = VERDICTS.with(|verdicts| {
            let context = known.context(&database, &wishes, self.identity, limits, verdicts);
            act(self, &context)
        });
        self.wishes = wishes;
        result
    }
}
