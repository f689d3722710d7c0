//! In asynchronous durability a failover loses no more than `max_lost_bytes` of what was known to exist.
//!
//! Known is what this pgbaton process has seen of the primary's log while it was the primary. What was written after the last
//! look is not known to anybody but the dead, and no bound can be kept on it by those who are left; it is bounded by
//! the time between two probes, not by a number of bytes. So, when a standby is promoted: the furthest sighting of the last
//! primary, minus where the candidate's log leaves that primary's, is within the bound; unless an operator said that
//! data may be lost.

use pgbaton::cluster::action::Action;
use pgbaton::cluster::{Command, Event, Job, Phase, Sight};
use pgbaton::types::Durability;

use super::{Fact, Invariant, View};
use crate::node::index;

#[derive(Default)]
pub struct AsyncLoss {
    /// The primary of the last stable epoch, and the end of its log as it was seen while it was.
    seen: Option<(usize, u64)>,
    primary: Option<usize>,
    allowed: Option<pgbaton::cluster::CommandId>,
}

impl Invariant for AsyncLoss {
    fn name(&self) -> &'static str {
        "loss within the bound"
    }

    fn hear(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Result<(), String> {
        if view.policy.durability != Durability::Async {
            return Ok(());
        }
        match fact {
            Fact::Booted => self.seen = None,
            Fact::Stored { .. } => {
                if let Some(record) = view.record.filter(|record| record.phase == Phase::Stable) {
                    let primary = index(&record.primary);
                    if self.primary != Some(primary) {
                        self.primary = Some(primary);
                        self.seen = None;
                        self.allowed = None;
                    }
                }
            }
            Fact::Heard(Event::Seen { node, sight: Sight::Answers(observation) }) => {
                let is_stable =
                    view.record.is_some_and(|record| record.phase == Phase::Stable && record.primary == *node);
                if is_stable && !observation.is_in_recovery {
                    let before = self.seen.filter(|(of, _)| *of == index(node)).map_or(0, |(_, lsn)| lsn);
                    self.seen = Some((index(node), before.max(observation.lsn.0)));
                }
            }
            Fact::Heard(Event::Asked { id, command: Command::Failover { allow_data_loss: true, .. } }) => {
                self.allowed = Some(*id);
            }
            Fact::Acting(Action::Answer { id, result: Err(_) }) if self.allowed == Some(*id) => self.allowed = None,
            Fact::Acting(Action::Do { job: Job::Promote { node, .. }, .. }) => {
                let candidate = index(node);
                if let Some((primary, seen)) = self.seen
                    && candidate != primary
                    && view.nodes[candidate].in_recovery
                    && self.allowed.is_none()
                {
                    let wal = &view.nodes[candidate].wal;
                    let fork = wal.end_of(wal.common(&view.nodes[primary].wal));
                    let lost = seen.saturating_sub(fork);
                    if lost > view.policy.max_lost_bytes {
                        return Err(format!(
                            "{lost} bytes up to {seen} were seen on {} and are not on {node}, allowed are {}",
                            view.nodes[primary].id, view.policy.max_lost_bytes
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
