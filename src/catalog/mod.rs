//! What one database's own definitions can do: which of its functions, views, tables, operators and types leave session
//! state behind when a statement mentions them, and which may not simply be used on a replica. The text of a statement
//! does not show it, so the catalog is asked when DDL has passed, and from time to time because DDL can pass elsewhere.
//!
//! `Facts` is the shared handle that sessions read; `read` asks PostgreSQL; `builtins` judges what PostgreSQL itself
//! brings and `functions` what others made; `graph` and `traits` follow who reaches whom.

mod builtins;
mod functions;
mod graph;
mod read;
mod rows;
mod traits;
mod why;

pub use read::{Overrides, Reader, read, read_suspects};
pub use rows::CatalogError;

use crate::route::names::Names;
use crate::sql::Suspects;
use arc_swap::ArcSwap;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long a statement waits for facts that DDL has made old. Far longer than a refresh takes; when the node does not
/// answer the control connection, sessions go on with what was known rather than stand still.
pub const FRESHNESS_WAIT: Duration = Duration::from_secs(5);
/// How long one refresh may take, connecting included.
pub const REFRESH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the connection of a refresh is kept for the next: DDL comes in series, and between them no node should carry
/// a connection for every database.
const CONNECTION_LINGER: Duration = Duration::from_secs(3);
/// Waits between refreshes that failed, growing from the first to the last.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// The facts of one database, shared by its sessions. Reading costs one atomic load.
pub struct Facts {
    suspects: ArcSwap<Suspects>,
    names: ArcSwap<Names>,
    names_version: AtomicU64,
    overrides: ArcSwap<Overrides>,
    ddl_generation: AtomicU64,
    /// Counts the reasons to refresh.
    marked: AtomicU64,
    /// What `marked` was before the last refresh that succeeded began: everything up to there is in `suspects`. Two
    /// counters rather than a flag, so that a mark that comes during a refresh is not wiped out at its end.
    covered: watch::Sender<u64>,
    wake: Notify,
    /// The last refresh failed: waiting for the next would only make everybody wait, so nobody does.
    failing: AtomicBool,
    /// Asks the refresher to close its connection: somebody needs the database to be empty.
    let_go: Notify,
}

impl Default for Facts {
    /// Not yet read, hence dirty.
    fn default() -> Self {
        Facts {
            suspects: ArcSwap::default(),
            names: ArcSwap::default(),
            names_version: AtomicU64::new(0),
            overrides: ArcSwap::default(),
            ddl_generation: AtomicU64::new(0),
            marked: AtomicU64::new(1),
            covered: watch::Sender::new(0),
            wake: Notify::new(),
            failing: AtomicBool::new(false),
            let_go: Notify::new(),
        }
    }
}

impl Facts {
    /// The names as of the last refresh. The pointer changes only when they do, so that what was judged by the same
    /// pointer need not be judged again.
    pub fn suspects(&self) -> arc_swap::Guard<Arc<Suspects>> {
        self.suspects.load()
    }

    /// What the names of this database stand for, as of the last refresh. The pointer changes only when that does.
    pub fn names(&self) -> arc_swap::Guard<Arc<Names>> {
        self.names.load()
    }

    /// Grows with every change of the names. One who keeps what was derived from them loads this first and the names
    /// afterwards: they are then at least as new.
    pub fn names_version(&self) -> u64 {
        self.names_version.load(Ordering::Acquire)
    }

    /// Has what the configuration says of functions counted from the next refresh on, which is due with this if it is
    /// another than before.
    pub fn set_overrides(&self, overrides: Overrides) {
        if **self.overrides.load() != overrides {
            self.overrides.store(Arc::new(overrides));
            self.mark_dirty();
        }
    }

    /// Grows with every DDL that passed through here: results prepared under an older one may have another shape.
    pub fn ddl_generation(&self) -> u64 {
        self.ddl_generation.load(Ordering::Acquire)
    }

    pub fn bump_ddl(&self) {
        self.ddl_generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Something has been committed that may have changed the facts. They are read again when somebody waits for them, or
    /// by the timer: a series of DDL in one session costs one reading, and none of our snapshots stands in the way of a
    /// VACUUM that nobody else runs beside.
    pub fn mark_dirty(&self) {
        self.marked.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether it is worth waiting for [`refreshed`](Self::refreshed).
    pub fn is_dirty(&self) -> bool {
        *self.covered.borrow() < self.marked.load(Ordering::Acquire) && !self.failing.load(Ordering::Acquire)
    }

    /// Whether what is known covers everything that has passed here. Where it does not, names may stand for something else
    /// than they did, and no text is a read for sure.
    pub fn is_current(&self) -> bool {
        *self.covered.borrow() >= self.marked.load(Ordering::Acquire)
    }

    /// Closes the refresher's connection, so that it does not stand in the way of DROP DATABASE.
    pub fn let_go(&self) {
        self.let_go.notify_one();
    }

    /// Waits until everything marked before this call is covered, at most `FRESHNESS_WAIT`, and not while refreshing
    /// fails. Answers whether it is covered.
    pub async fn refreshed(&self) -> bool {
        let marked = self.marked.load(Ordering::Acquire);
        let mut covered = self.covered.subscribe();
        if *covered.borrow() < marked {
            self.wake.notify_one();
        }
        let done = covered.wait_for(|covered| *covered >= marked || self.failing.load(Ordering::Acquire));
        match tokio::time::timeout(FRESHNESS_WAIT, done).await {
            Ok(Ok(covered)) => *covered >= marked,
            _ => false,
        }
    }

    /// Refreshes at once, then whenever somebody waits for what was marked and every `interval`. Several marks that come
    /// during a refresh are served by the next one. The connection is kept as long as waiters follow each other closely.
    /// Runs until it is dropped.
    pub async fn keep_fresh<F, E>(self: Arc<Self>, connect: impl Fn() -> F, interval: Duration)
    where
        F: Future<Output = Result<tokio_postgres::Client, E>>,
        E: Display,
    {
        let mut retry = RETRY[0];
        let mut kept = None;
        let mut reader = Reader::default();
        loop {
            let marked = self.marked.load(Ordering::Acquire);
            let refresh = tokio::time::timeout(REFRESH_TIMEOUT, async {
                let client = match kept.take() {
                    Some(client) => client,
                    None => connect().await.map_err(|error| error.to_string())?,
                };
                let overrides = self.overrides.load_full();
                let found = reader.read(&client, &overrides).await.map_err(|error| with_causes(&error))?;
                Ok::<_, String>((client, found))
            });
            match refresh.await.unwrap_or_else(|_| Err(format!("no answer within {REFRESH_TIMEOUT:?}"))) {
                Ok((client, found)) => {
                    kept = Some(client);
                    if let Some((suspects, names)) = found {
                        self.store(suspects, names);
                    }
                    self.failing.store(false, Ordering::Release);
                    self.covered.send_replace(marked);
                    retry = RETRY[0];
                }
                Err(error) => {
                    let is_news = !self.failing.swap(true, Ordering::AcqRel);
                    // Wakes those who wait, with nothing new to show.
                    self.covered.send_modify(|_| {});
                    if is_news {
                        tracing::warn!(%error, "the catalog could not be read; going on with what was known");
                    } else {
                        tracing::debug!(%error, retry_in = ?retry, "the catalog still cannot be read");
                    }
                    // A mark must not cut the wait short: the next try would fail the same way.
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY[1]);
                    continue;
                }
            }
            // Who has begun to wait since the refresh began has left a permit in `wake`.
            let linger = CONNECTION_LINGER.min(interval);
            let keep = tokio::select! {
                woken = tokio::time::timeout(linger, self.wake.notified()) => woken.is_ok(),
                () = self.let_go.notified() => false,
            };
            if !keep {
                kept = None;
                let _ = tokio::time::timeout(interval - linger, self.wake.notified()).await;
            }
            kept = kept.filter(|client| !client.is_closed());
        }
    }

    fn store(&self, suspects: Suspects, names: Names) {
        let known = self.suspects.load();
        let same =
            known.names == suspects.names && known.operators == suspects.operators && known.any_ddl == suspects.any_ddl;
        if !same {
            self.suspects.store(Arc::new(suspects));
        }
        if **self.names.load() != names {
            self.names.store(Arc::new(names));
            // After the names: who sees the new number sees them too.
            self.names_version.fetch_add(1, Ordering::Release);
        }
    }
}

/// tokio-postgres says "db error" and keeps what the server said as the cause.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
