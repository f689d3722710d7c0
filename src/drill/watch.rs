//! Looks, all the time, for a node that takes itself for the primary after another has been promoted: what it holds is kept, and
//! nothing that clients sent after the change may be among it.
//!
//! It asks each node itself, with a connection and a thread for each, so that a frozen one keeps nobody from looking.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::checker::Tables;
use super::stage::{Server, lines};
use super::wire::{Batch, Wire};

const LOOK: Duration = Duration::from_millis(200);

/// A primary tells its timeline, a standby nothing.
const QUESTION: &str =
    "SELECT CASE WHEN pg_is_in_recovery() THEN '' ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END";

/// A node that is a primary by itself alone.
#[derive(Clone, Debug)]
pub struct Zombie {
    pub id: String,
    /// When, on the load's clock, the next primary had been seen to be one.
    pub since: Duration,
    /// What it held when it was last seen.
    pub tables: Tables,
}

#[derive(Default)]
struct Seen {
    /// Timeline, node and moment of the newest promotion.
    newest: Option<(u32, String, Duration)>,
    zombies: BTreeMap<String, Zombie>,
}

pub struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// `began`: when the load's clock began.
    pub fn start(servers: Vec<Server>, began: Instant) -> Watch {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let threads = servers.into_iter().map(|server| {
            let (stop, seen) = (stop.clone(), seen.clone());
            std::thread::spawn(move || {
                let mut wire = None;
                while !stop.load(Ordering::Relaxed) {
                    if wire.is_none() {
                        wire = server.connect();
                    }
                    // Whatever went wrong, a new connection is the answer.
                    wire = wire.and_then(|wire| look(wire, &server.id, began, &seen));
                    std::thread::sleep(LOOK);
                }
            })
        });
        Watch { threads: threads.collect(), stop, seen }
    }

    /// Those that were seen.
    pub fn end(mut self) -> Vec<Zombie> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut seen.zombies).into_values().collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn look(mut wire: Wire, id: &str, began: Instant, seen: &Mutex<Seen>) -> Option<Wire> {
    let answer = wire.ask(Batch::new().query(QUESTION)).ok().filter(|answer| answer.errors.is_empty())?;
    let Ok(timeline) = u32::from_str_radix(answer.first().unwrap_or_default(), 16) else { return Some(wire) };
    let since = {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &seen.newest {
            Some((newest, primary, since)) if *newest >= timeline => {
                if primary == id {
                    return Some(wire);
                }
                *since
            }
            _ => {
                seen.newest = Some((timeline, id.to_owned(), began.elapsed()));
                return Some(wire);
            }
        }
    };
    let answer = wire.ask(Batch::new().query(Tables::QUESTION)).ok().filter(|answer| answer.errors.is_empty())?;
    if let Some(tables) = Tables::parse(&lines(&answer)) {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let since = seen.zombies.get(id).map_or(since, |zombie| zombie.since.min(since));
        seen.zombies.insert(id.to_owned(), Zombie { id: id.to_owned(), since, tables });
    }
    Some(wire)
}
