//! What a session that has just logged in would do with a text: for those who ask without being one.
//!
//! It has the role's own defaults as far as they are known here, has set nothing and seen nothing.

use std::sync::Arc;

use super::explain::{Case, Explanation, explain, nodes};
use super::known::{Known, VERDICTS};
use super::machine::{Context, Machine};
use super::readers::Freshness;
use super::shared::{Database, Shared};
use super::wishes::{Kept, Wishes};
use crate::pool::Startup;
use crate::pool::memory::{Image, Parameters};

/// Why nothing can be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    #[error("no database is known here yet")]
    NoneKnown,
    #[error("several databases are known here: {}", .0.join(", "))]
    Several(Vec<String>),
    #[error("database \"{0}\" is not known here")]
    Unknown(String),
}

impl Unexplained {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Unexplained::Several(_) => "Name the one that is meant.",
            Unexplained::NoneKnown | Unexplained::Unknown(_) => {
                "A database is known from the first client that connects to it through pgbaton."
            }
        }
    }
}

impl Shared {
    /// Explains a text as that of a new session of `user` in `database`. Without a database, the only one known is meant;
    /// without a user, one that has no settings of its own.
    pub async fn explain(
        &self,
        database: Option<&str>,
        user: Option<&str>,
        text: &str,
    ) -> Result<Explanation, Unexplained> {
        let database = self.the_database(database)?;
        database.facts.refreshed().await;
        Ok(self.explain_in(&database, user.unwrap_or_default(), text))
    }

    fn the_database(&self, name: Option<&str>) -> Result<Arc<Database>, Unexplained> {
        if let Some(name) = name {
            return self.known_database(name).ok_or_else(|| Unexplained::Unknown(name.to_owned()));
        }
        let mut known = self.databases();
        match (known.pop(), known.is_empty()) {
            (None, _) => Err(Unexplained::NoneKnown),
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                let mut names: Vec<String> = known.iter().map(|database| database.name.to_string()).collect();
                names.push(last.name.to_string());
                names.sort();
                Err(Unexplained::Several(names))
            }
        }
    }

    fn explain_in(&self, database: &Database, user: &str, text: &str) -> Explanation {
        let settings = self.readers.settings.load();
        let parameters = database.greeting_of(user).unwrap_or_else(|| {
            // What a database has that nobody has configured otherwise.
            let usual = [("client_encoding", "UTF8"), ("standard_conforming_strings", "on")];
            Arc::new(Parameters::new(usual.map(|(name, value)| (name.to_owned(), value.to_owned()))))
        });
        let machine = Machine::new(0, 0, parameters, self.settings.load().session_mode);
        let known = Known::of(database, self);
        let version = database.facts.names_version();
        let image: &Arc<Image> = machine.image();
        let wishes = Wishes::read(&Startup::default(), image, &database.facts.names(), user, database.number);
        let wishes = Some(Box::new(Kept::new(image, version, wishes)));
        let is_current = database.facts.is_current();
        let (judged, demand) = VERDICTS.with(|verdicts| {
            let context = known.context(database, &wishes, 0, (usize::MAX, 1, false, false), verdicts);
            machine.explain(text.as_bytes(), &Context { reads: settings.is_enabled && is_current, ..context })
        });
        let nodes = nodes(&self.readers, &mut Freshness::default(), settings.consistency, None);
        let (consistency, fallback) = (settings.consistency, settings.fallback);
        explain(Case { judged: &judged, demand, consistency, fallback, nodes, is_current })
    }
}
