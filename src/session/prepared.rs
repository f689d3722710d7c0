//! The prepared statements of one database that clients share: the same text, parameter types, settings and catalog
//! generation have one name on all servers, whatever each client calls it.
//!
//! Settings belong to the identity because `search_path` decides what a name means; the catalog generation because a
//! client that prepares after DDL must get a plan made after it, while one that prepared before keeps PostgreSQL's own
//! answer ("cached plan must not change result type").

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use hashbrown::HashMap;

use crate::pool::memory::{PREFIX, Prepared};
use crate::sql::Statement;

#[derive(Debug, Default)]
pub struct Registry {
    next: AtomicU64,
    /// Part of every name, so that no client can name a statement it has not prepared. `None` where names are to be read.
    secret: Option<u64>,
    hasher: foldhash::quality::RandomState,
    known: Mutex<Known>,
    ask_xid: OnceLock<Arc<Prepared>>,
}

#[derive(Debug, Default)]
struct Known {
    by_hash: HashMap<u64, Weak<Prepared>, foldhash::fast::RandomState>,
    /// Entries whose statement nobody holds any more are swept when the map has grown to this.
    sweep_at: usize,
}

impl Registry {
    pub fn with_secret_names() -> Registry {
        // The standard library's keys come from the system, and its hash does not tell them.
        let secret = std::hash::RandomState::new().hash_one(0);
        Registry { secret: Some(secret), ..Registry::default() }
    }

    /// The question for the transaction id that precedes a COMMIT.
    pub fn ask_xid(&self) -> &Arc<Prepared> {
        const TEXT: &[u8] = b"SELECT pg_catalog.pg_current_xact_id_if_assigned()\0\0\0";
        self.ask_xid.get_or_init(|| self.unshared(TEXT, 0, None))
    }

    /// A number for what else decides about the meaning of a text.
    pub fn identity(&self, of: impl std::hash::Hash) -> u64 {
        self.hasher.hash_one(of)
    }

    /// The statement with this Parse tail (text, NUL, types) under these settings, made if new.
    pub fn shared(
        &self,
        tail: &[u8],
        settings: u64,
        generation: u64,
        effect: impl FnOnce() -> Option<Arc<Statement>>,
    ) -> Arc<Prepared> {
        let hash = self.hasher.hash_one((tail, settings, generation));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = known.by_hash.get(&hash).and_then(Weak::upgrade) {
            if &*prepared.tail == tail {
                return prepared;
            }
            // Two texts with one hash: the later one is simply not shared.
            drop(known);
            return self.unshared(tail, generation, effect());
        }
        let prepared = self.unshared(tail, generation, effect());
        known.by_hash.insert(hash, Arc::downgrade(&prepared));
        if known.by_hash.len() > known.sweep_at {
            known.by_hash.retain(|_, statement| statement.strong_count() > 0);
            known.sweep_at = (known.by_hash.len() * 2).max(1024);
        }
        prepared
    }

    /// A statement no other client gets.
    pub fn unshared(&self, tail: &[u8], generation: u64, effect: Option<Arc<Statement>>) -> Arc<Prepared> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(Prepared {
            id,
            server_name: match self.secret {
                Some(secret) => format!("{PREFIX}{id:x}_{secret:x}").into_bytes().into(),
                None => format!("{PREFIX}{id:x}").into_bytes().into(),
            },
            tail: tail.into(),
            effect,
            generation,
            shape: OnceLock::new(),
            route: AtomicU64::new(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_under_the_same_settings_is_one_statement() {
        let registry = Registry::default();
        let one = registry.shared(b"SELECT 1\0\0\0", 0, 0, || None);
        let two = registry.shared(b"SELECT 1\0\0\0", 0, 0, || None);
        assert!(Arc::ptr_eq(&one, &two));
        assert_ne!(one.id, registry.shared(b"SELECT 1\0\0\0", 7, 0, || None).id, "another search_path");
        assert_ne!(one.id, registry.shared(b"SELECT 1\0\0\0", 0, 1, || None).id, "after DDL");
    }

    #[test]
    fn statements_nobody_holds_are_forgotten() {
        let registry = Registry::default();
        for number in 0..5000 {
            registry.shared(format!("SELECT {number}\0").as_bytes(), 0, 0, || None);
        }
        assert!(registry.known.lock().unwrap().by_hash.len() <= 2048);
    }
}
