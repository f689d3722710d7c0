//! What is done again and again while a primary takes writes: heartbeats, replication slots, questions about commits whose
//! session broke although the primary lives.

use std::time::Duration;

use super::{Driver, Report, jobs, unix_ms};
use crate::cluster::Lead;
use crate::types::{Durability, Lsn, NodeId, Role};

/// How often slots are looked after: WAL that a standby no longer needs is kept for so long at most.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);

/// How often it is looked whether a commit is in doubt on a primary that lives. Nothing is asked if none is.
pub(super) const DOUBTS: Duration = Duration::from_millis(250);

/// A heartbeat costs the primary a small write: four probes without one show as much as a probe more.
pub(super) fn beat_interval(probe_interval: Duration) -> Duration {
    (probe_interval * 4).clamp(Duration::from_millis(250), Duration::from_secs(10))
}

impl Driver {
    /// Has the primary write something, as one whose disk is full or hangs still answers questions.
    pub(super) fn beat(&mut self) {
        let Some(Lead::Open { epoch, primary, .. }) = &self.lead else { return };
        // Without the schema there is nothing to write it to.
        if !self.views.has_schema(primary) {
            return;
        }
        if std::mem::replace(&mut self.is_beating, true) {
            return;
        }
        let (epoch, node) = (*epoch, primary.clone());
        let (control, reports) = (self.control.clone(), self.reports.clone());
        let coordinator = self.policy.coordinator.clone();
        tokio::spawn(async move {
            let result = control.beat(&node, epoch, &coordinator).await;
            // Nobody listens any more only when everything ends.
            let _ = reports.send(Report::BeatDone { epoch, node, result });
        });
    }

    /// Slots on every node for every other, so that a new primary already has them.
    pub(super) fn keep_up(&mut self) {
        self.ledger.watch(unix_ms());
        if self.only_watches() {
            return;
        }
        let Some(Lead::Open { primary, .. }) = &self.lead else { return };
        if std::mem::replace(&mut self.is_keeping_up, true) {
            return;
        }
        let known: Vec<(NodeId, Role, Lsn)> = self.views.nodes();
        let (control, reports, primary) = (self.control.clone(), self.reports.clone(), primary.clone());
        let departed = self.departed.clone();
        tokio::spawn(async move {
            let mut parted = Vec::new();
            for (node, role, _) in &known {
                let is_primary = *node == primary;
                let is_sound = matches!((role, is_primary), (Role::Primary, true) | (Role::Replica, false));
                if !is_sound {
                    continue;
                }
                let peers = known.iter().filter(|(peer, ..)| peer != node);
                let peers: Vec<(NodeId, Lsn)> = peers.map(|(peer, _, lsn)| (peer.clone(), *lsn)).collect();
                control.keep_slots(node, is_primary, &peers).await;
                let gone = departed.iter().filter(|(_, done)| !done.contains(node)).map(|(gone, _)| gone.clone());
                let gone: Vec<NodeId> = gone.collect();
                if gone.is_empty() {
                    continue;
                }
                let kept: Vec<NodeId> = known.iter().map(|(known, ..)| known.clone()).collect();
                match control.drop_slots(node, &gone, &kept).await {
                    Ok(true) => parted.push((node.clone(), gone)),
                    Ok(false) => {}
                    Err(error) => tracing::debug!(%node, %error, "slots of removed nodes could not be dropped"),
                }
            }
            let _ = reports.send(Report::UpkeepDone(parted));
        });
    }

    /// Whoever has no slot left anywhere is forgotten.
    pub(super) fn note_parted(&mut self, parted: Vec<(NodeId, Vec<NodeId>)>) {
        for (node, gone) in parted {
            for gone in gone {
                if let Some(done) = self.departed.get_mut(&gone) {
                    done.insert(node.clone());
                }
            }
        }
        let known: Vec<NodeId> = self.views.nodes().into_iter().map(|(node, ..)| node).collect();
        self.departed.retain(|_, done| !known.iter().all(|node| done.contains(node)));
    }

    /// A session that lost its connection in COMMIT waits for an answer; if no failover comes, the primary itself knows.
    pub(super) fn clear_doubts(&mut self) {
        let Some(Lead::Open { epoch, primary, .. }) = &self.lead else { return };
        let doubts = self.plane.doubts();
        if doubts.is_empty() || std::mem::replace(&mut self.is_clearing, true) {
            return;
        }
        let (epoch, node, incarnation) = (*epoch, primary.clone(), self.incarnation);
        let is_quorum = self.policy.durability == Durability::Quorum;
        let (control, reports) = (self.control.clone(), self.reports.clone());
        tokio::spawn(async move {
            let mut outcomes = match jobs::settle(&control, &node, &doubts, incarnation).await {
                Ok((_, outcomes)) => outcomes,
                Err(failure) => {
                    tracing::debug!(%node, reason = failure.reason, "commits in doubt could not be asked for");
                    Default::default()
                }
            };
            // What is committed there may have been waiting for the voters still when its session broke.
            if is_quorum
                && outcomes.values().any(|is_committed| *is_committed)
                && control.await_voters(&node).await.is_err()
            {
                outcomes.clear();
            }
            let _ = reports.send(Report::Cleared { epoch, outcomes });
        });
    }
}
