//! What sessions share: the settings, the pools, the picture of the cluster, and what is known of each database.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use tokio::sync::{Notify, watch};

use super::clients::Clients;
use super::doubt::Doubts;
use super::gate::Gate;
use super::hold::Hold;
use super::login::LoginContext;
use super::prepared::Registry;
use super::readers::Readers;
pub use super::routes::{Route, Routes};
use super::tally::Tallies;
use crate::auth::Credential;
use crate::catalog::Facts;
use crate::pool::memory::Parameters;
use crate::pool::{Pools, Startup};
use crate::types::Topology;

/// What can change while running.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub session_mode: bool,
    pub max_clients: usize,
    pub max_prepared: usize,
    pub max_inspect: usize,
    /// How long a statement waits for a primary.
    pub hold: Duration,
    /// How many statements may wait for one at the same time.
    pub max_held: usize,
    /// How much of their clients' messages is kept meanwhile, in bytes.
    pub max_held_bytes: usize,
    /// Each commit of a transaction block is preceded by the question for its transaction id, so that its outcome can be
    /// found out if its answer is lost.
    pub ask_commits: bool,
}

pub struct Shared {
    pub settings: ArcSwap<Settings>,
    pub login: ArcSwap<LoginContext>,
    pub pools: Pools,
    pub topology: watch::Receiver<Arc<Topology>>,
    /// Asks the monitor to look at the nodes at once.
    pub look_now: Arc<Notify>,
    pub clients: Arc<Clients>,
    pub readers: Readers,
    /// Where statements went, and why.
    pub routes: Routes,
    /// How much passed, and where the time went.
    pub tallies: Tallies,
    /// Connections that have not logged in yet.
    pub logins: AtomicUsize,
    /// Whether the primary may be used, and under which epoch.
    pub gate: Gate,
    /// Commits whose outcome is not known.
    pub doubts: Doubts,
    /// Statements that wait for a primary.
    pub hold: Hold,
    databases: Mutex<HashMap<Arc<str>, Arc<Database>>>,
    /// What the last client of each role showed at login and a server accepted.
    credentials: Mutex<HashMap<Arc<str>, Arc<Credential>>>,
    /// Called once for each database when its first client comes, to keep its facts fresh.
    pub watch_database: Box<dyn Fn(Arc<str>, Arc<Facts>) + Send + Sync>,
}

/// How many different greetings are kept for one database; a client beyond that costs a look at a server connection.
const GREETINGS: usize = 256;

/// How many roles' newest credentials are kept.
const CREDENTIALS: usize = 10_000;

/// How many applications of a database are told apart; those beyond learn for each session alone.
const APPLICATIONS: usize = 1_024;

/// Whether an application asks for currval or lastval after it has written. Until it is known, its first writes are
/// taken as if it did: a session that may have advanced a sequence keeps its connection until others need it.
#[derive(Debug)]
pub struct SequenceUse(AtomicUsize);

/// Writes after which an application that never asked is taken not to ask at all.
const TRIALS: usize = 200;

impl Default for SequenceUse {
    fn default() -> Self {
        SequenceUse(AtomicUsize::new(TRIALS))
    }
}

impl SequenceUse {
    const KNOWN: usize = usize::MAX;

    #[inline]
    pub fn is_likely(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Somebody asked.
    pub fn confirm(&self) {
        self.0.store(Self::KNOWN, Ordering::Relaxed);
    }

    /// Somebody wrote.
    pub fn try_once(&self) {
        let less = |left| if left == Self::KNOWN || left == 0 { None } else { Some(left - 1) };
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// One database as sessions know it.
pub struct Database {
    pub name: Arc<str>,
    /// Tells it from all others, also from one of the same name before.
    pub number: u64,
    pub registry: Registry,
    pub facts: Arc<Facts>,
    /// What is known of clients of each role and application_name as to currval and lastval.
    sequence_users: Mutex<HashMap<(Arc<str>, Box<str>), Arc<SequenceUse>>>,
    /// What servers reported at startup, by user and startup parameters: enough to greet the next client that says the same.
    greetings: Mutex<HashMap<(Arc<str>, Arc<Startup>), Arc<Parameters>>>,
    /// The same with each client's own application_name: most clients have it in common, and a set is above a kilobyte.
    personal: Mutex<HashMap<u64, Weak<Parameters>>>,
}

impl Shared {
    pub fn new(
        settings: Settings,
        login: LoginContext,
        pools: Pools,
        topology: watch::Receiver<Arc<Topology>>,
        look_now: Arc<Notify>,
        readers: Readers,
        workers: usize,
        watch_database: Box<dyn Fn(Arc<str>, Arc<Facts>) + Send + Sync>,
    ) -> Self {
        Shared {
            settings: ArcSwap::from_pointee(settings),
            login: ArcSwap::from_pointee(login),
            pools,
            topology,
            look_now,
            clients: Arc::default(),
            readers,
            routes: Routes::new(workers),
            tallies: Tallies::new(workers),
            logins: AtomicUsize::new(0),
            gate: Gate::default(),
            doubts: Doubts::default(),
            hold: Hold::default(),
            databases: Mutex::default(),
            credentials: Mutex::default(),
            watch_database,
        }
    }

    /// Makes a database known to all sessions, and has its facts kept fresh from now on.
    pub fn remember_database(&self, database: Arc<Database>) -> Arc<Database> {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = databases.get(&database.name) {
            return known.clone();
        }
        databases.insert(database.name.clone(), database.clone());
        drop(databases);
        (self.watch_database)(database.name.clone(), database.facts.clone());
        database
    }

    pub fn credential(&self, user: &str) -> Option<Arc<Credential>> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner).get(user).cloned()
    }

    pub fn keep_credential(&self, user: &Arc<str>, credential: &Arc<Credential>) {
        let mut credentials = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        if credentials.len() >= CREDENTIALS {
            credentials.clear();
        }
        credentials.insert(user.clone(), credential.clone());
    }

    /// Forgets a database that is no longer there.
    pub fn forget_database(&self, name: &str) {
        self.databases.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub fn known_database(&self, name: &str) -> Option<Arc<Database>> {
        self.databases.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub fn databases(&self) -> Vec<Arc<Database>> {
        self.databases.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// What servers report at startup may have changed: ask again.
    pub fn forget_greetings(&self) {
        for database in self.databases() {
            database.greetings.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

impl Database {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Database {
            name: name.into(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            registry: Registry::with_secret_names(),
            facts: Arc::new(Facts::default()),
            sequence_users: Mutex::default(),
            greetings: Mutex::default(),
            personal: Mutex::default(),
        }
    }

    pub fn greeting(&self, user: &Arc<str>, startup: &Arc<Startup>) -> Option<(Arc<Startup>, Arc<Parameters>)> {
        let greetings = self.greetings.lock().unwrap_or_else(PoisonError::into_inner);
        let ((_, startup), parameters) = greetings.get_key_value(&(user.clone(), startup.clone()))?;
        Some((startup.clone(), parameters.clone()))
    }

    /// What some client of this role was told, who asked for as little of its own as any.
    pub fn greeting_of(&self, user: &str) -> Option<Arc<Parameters>> {
        let greetings = self.greetings.lock().unwrap_or_else(PoisonError::into_inner);
        let own = greetings.iter().filter(|((role, _), _)| **role == *user);
        own.min_by_key(|((_, startup), _)| startup.parameters.len()).map(|(_, parameters)| parameters.clone())
    }

    /// What clients of one role and application share.
    pub fn sequence_use(&self, user: &Arc<str>, application_name: &str) -> Arc<SequenceUse> {
        let mut users = self.sequence_users.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (user.clone(), application_name.into());
        if users.len() >= APPLICATIONS && !users.contains_key(&key) {
            return Arc::default();
        }
        users.entry(key).or_default().clone()
    }

    /// These parameters with this application_name, shared by all clients that are told the same.
    pub fn personal(&self, parameters: Arc<Parameters>, application_name: &str) -> Arc<Parameters> {
        if parameters.get("application_name").unwrap_or("") == application_name {
            return parameters;
        }
        let mut own = Parameters::clone(&parameters);
        own.set("application_name", application_name);
        let mut known = self.personal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get(&own.hash()).and_then(Weak::upgrade)
            && *same == own
        {
            return same;
        }
        if known.len() >= APPLICATIONS {
            known.retain(|_, parameters| parameters.strong_count() > 0);
        }
        let own = Arc::new(own);
        known.insert(own.hash(), Arc::downgrade(&own));
        own
    }

    pub fn keep_greeting(&self, user: &Arc<str>, startup: &Arc<Startup>, parameters: &Arc<Parameters>) {
        let mut greetings = self.greetings.lock().unwrap_or_else(PoisonError::into_inner);
        if greetings.len() >= GREETINGS {
            greetings.clear();
        }
        greetings.insert((user.clone(), startup.clone()), parameters.clone());
    }
}
