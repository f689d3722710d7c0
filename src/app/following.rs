//! What follows the nodes for the data plane: who may serve reads, how far each node is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::node::{Control, NodeError};
use crate::route::eligible;
use crate::route::lag::LagRing;
use crate::session::shared::Shared;
use crate::types::{Lsn, NodeId};

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

/// Asks one node how far it is for as long as the proxy runs.
pub(super) async fn ask_position(control: Control, shared: Arc<Shared>, at: usize, node: NodeId) {
    // Since when the end of the log is where it is, and when it was last brought to disk for that.
    let tail = Mutex::new((Lsn(0), Instant::now(), Instant::now()));
    let ask = || async {
        let position = control.position(&node).await?;
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
        if is_stuck && let Err(error) = control.flush_log(&node).await {
            tracing::debug!(%node, %error, "the log could not be brought to disk");
        }
        // A commit with synchronous_commit = off is on disk after three times wal_writer_delay at the latest.
        let is_settled = since.elapsed() > (position.writer_delay * 4).max(SETTLED);
        let end = if is_settled { position.flushed } else { position.lsn };
        Ok((false, eligible::settle(end, position.segment_bytes)))
    };
    shared.readers.positions.keep_asking(at, ask).await;
}
