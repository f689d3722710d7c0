//! What follows the nodes for the data plane: who may serve reads, how far each node is.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::node::{Control, NodeError};
use crate::route::eligible;
use crate::route::lag::LagRing;
use crate::session::shared::Shared;
use crate::types::{Lsn, NodeAddress};

/// How often the replicas are judged.
const JUDGE: Duration = Duration::from_millis(100);

/// How long the end of the log may stay unwritten before it is written out at our request, and how often at most.
const TAIL: Duration = Duration::from_millis(8);
const FLUSH_PAUSE: Duration = Duration::from_millis(100);

/// After so long the end of the log that is not written out holds nobody's commit, at least.
const SETTLED: Duration = Duration::from_millis(800);

/// Judges again and again who may serve reads.
pub(super) async fn judge_replicas(shared: Arc<Shared>) {
    let mut topology = shared.topology.clone();
    let mut ring = LagRing::default();
    loop {
        let now = topology.borrow_and_update().clone();
        shared.note_silence(&now);
        shared.readers.refresh(&now, &mut ring, &shared.pools);
        tokio::select! {
            changed = topology.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(JUDGE) => {}
        }
    }
}

/// Asks every node how far it is, also who joins later. One that has been removed is asked for as long as somebody reads from
/// it, who would not be told otherwise that it has fallen silent; then what is left of it is closed.
pub(super) async fn ask_positions(control: Control, shared: Arc<Shared>) {
    let mut asked: HashMap<usize, AbortHandle> = HashMap::new();
    let mut topology = shared.topology.clone();
    loop {
        let now = topology.borrow_and_update().clone();
        for (at, view) in now.nodes.iter().enumerate() {
            match (view.is_removed, asked.contains_key(&at)) {
                (false, false) => {
                    let task = tokio::spawn(ask_position(control.clone(), shared.clone(), at, view.address.clone()));
                    asked.insert(at, task.abort_handle());
                }
                // Until it has been judged, somebody may choose it.
                (true, true) if has_judged(&shared, at) => {
                    shared.pools.retire_at(&view.address);
                    if !is_read_from(&shared, at)
                        && let Some(task) = asked.remove(&at)
                    {
                        task.abort();
                        shared.readers.positions.forget(at);
                        shared.pools.remove(&view.address);
                    }
                }
                _ => {}
            }
        }
        tokio::select! {
            changed = topology.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(JUDGE) => {}
        }
    }
}

/// Whether sessions know that this place is empty.
fn has_judged(shared: &Shared, at: usize) -> bool {
    shared.readers.view().nodes.get(at).is_some_and(|reader| !reader.is_present())
}

/// Whether a session still has a connection to the node of this place.
fn is_read_from(shared: &Shared, at: usize) -> bool {
    shared.readers.view().nodes.get(at).is_some_and(|reader| reader.load.in_use.load(Ordering::Relaxed) > 0)
}

/// Asks one node how far it is.
async fn ask_position(control: Control, shared: Arc<Shared>, at: usize, address: NodeAddress) {
    let node = &address.id;
    // The node is shown before it can be asked.
    let gauge = loop {
        match control.gauge(&address) {
            Some(gauge) => break gauge,
            None => tokio::time::sleep(JUDGE).await,
        }
    };
    // Since when the end of the log is where it is, and when it was last brought to disk for that.
    let tail = Mutex::new((Lsn(0), Instant::now(), Instant::now()));
    let ask = || async {
        let position = gauge.position().await?;
        if position.is_in_recovery {
            return Ok::<_, NodeError>((true, position.lsn));
        }
        let (since, is_stuck) = {
            let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
            if tail.0 != position.lsn {
                (tail.0, tail.1) = (position.lsn, Instant::now());
            }
            // What is inserted and not written out is somebody's commit under way, or nobody's: hint bits, pruning by a read.
            // Such a tail may stay for long, and no standby could ever show that it has it.
            let is_stuck = position.lsn > position.flushed && tail.1.elapsed() > TAIL && tail.2.elapsed() > FLUSH_PAUSE;
            if is_stuck {
                tail.2 = Instant::now();
            }
            (tail.1, is_stuck)
        };
        if is_stuck && let Err(error) = gauge.flush_log().await {
            tracing::debug!(%node, %error, "the log could not be brought to disk");
        }
        // A commit with synchronous_commit = off is on disk after three times wal_writer_delay at the latest.
        let is_settled = since.elapsed() > (position.writer_delay * 4).max(SETTLED);
        let end = if is_settled { position.flushed } else { position.lsn };
        Ok((false, eligible::settle(end, position.segment_bytes)))
    };
    shared.readers.positions.keep_asking(at, ask).await;
}
