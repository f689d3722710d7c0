//! Bugs to be found: what stands between the brain and the world changes what one of them says, as a brain or driver with
//! that bug would. The brain itself has no switches.

use std::collections::BTreeMap;

use pgbaton::cluster::agent::Repair;
use pgbaton::cluster::{Action, Answer, Event, Job, Lead, Phase, Policy, Record, Sight};
use pgbaton::types::{Epoch, Lsn, NodeId, Timeline};

use crate::message::What;
use crate::node::{SYSTEM_IDENTIFIER, index};
use crate::pgbaton::node_of;
use crate::world::{Timer, World};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// Goes on while the record is still being written.
    ActsBeforeStored,
    /// Takes writes as soon as it wants to store that it may.
    OpensBeforeStored,
    /// A new change of primary without a new epoch.
    ReusesTheEpoch,
    /// Goes by a record that was restored from a backup, and does not look at the rows in the database.
    GoesByAnOldRecord,
    /// The comparison of positions is inverted: the one that lags most is promoted.
    PromotesTheLast,
    PromotesPriorityZero,
    /// Goes on with one standby fewer than it takes.
    RecruitsOneTooFew,
    /// A recruit keeps receiving, and acknowledging.
    RecruitLeavesTheReceiver,
    /// Promotes by place in the list, however far the others are.
    PromotesTheLowestIndex,
    /// A voter is asked of PostgreSQL before the store knows of it.
    NamesBeforeTheStore,
    /// A voter is taken out of the store before PostgreSQL has stopped to wait for it.
    StoreBeforeTheNames,
    /// PostgreSQL is told to wait for one acknowledgement fewer than the store says.
    AsksForOneFewer,
    /// What a server connection of an epoch before still says is passed on.
    OldAcksPass,
    /// Does not tell the data plane that an epoch is over.
    ForgetsToClose,
    /// A primary of the past that is seen again is given its writes back.
    RenewsTheZombie,
    /// Takes writes before the row of the epoch is written.
    OpensBeforeTheRow,
    IgnoresTheLossBound,
    /// When the first candidate fails, nobody else is tried.
    NeverTriesTheNext,
    /// Standbys are told to follow the primary of the past.
    FollowsTheDead,
    /// An agent starts what its data is, and asks nobody.
    IgnoresTheGate,
    /// Two timelines of one number are taken for the same: the brain does not say that it is to be copied, and the agent does not
    /// compare contents.
    RewindsBlindly,
}

/// What a planted bug remembers.
#[derive(Default)]
pub struct Planted {
    records: Vec<Record>,
    jobs: BTreeMap<u64, Job>,
    delayed: Vec<Action>,
    opened: Option<(Epoch, NodeId)>,
    stuck: Option<NodeId>,
    forged: u64,
}

impl Planted {
    pub fn remember(&mut self, record: Option<Record>) {
        self.records.extend(record);
    }
}

impl World {
    pub fn policy_of_the_brain(&self) -> Policy {
        let mut policy = self.policy.clone();
        if self.plant == Some(Plant::PromotesPriorityZero) {
            policy.nodes.values_mut().filter(|node| node.priority == 0).for_each(|node| node.priority = 200);
        }
        if self.plant == Some(Plant::IgnoresTheLossBound) {
            policy.max_lost_bytes = u64::MAX;
        }
        policy
    }

    pub fn record_to_load(&self) -> Option<Record> {
        let record = self.store.record.clone();
        if self.plant != Some(Plant::GoesByAnOldRecord) {
            return record;
        }
        let epoch = record.as_ref()?.epoch;
        let old = self.planted.records.iter().rev().find(|old| old.epoch < epoch && old.phase == Phase::Stable);
        old.cloned().or(record)
    }

    pub fn tamper_with_event(&mut self, event: Event) -> Vec<Event> {
        let Some(plant) = self.plant else { return vec![event] };
        match (plant, event) {
            (Plant::ActsBeforeStored, Event::Stored { result: Ok(()), .. }) => Vec::new(),
            (Plant::GoesByAnOldRecord, Event::Seen { node, sight: Sight::Answers(mut observation) }) => {
                observation.last_epoch = None;
                vec![Event::Seen { node, sight: Sight::Answers(observation) }]
            }
            (Plant::PromotesTheLast, Event::Done { id, result: Ok(answer) }) => {
                vec![Event::Done { id, result: Ok(as_if_at(answer, |received| FAR - received)) }]
            }
            (Plant::RecruitsOneTooFew, Event::Done { id, result: Err(failure) }) => {
                match self.planted.jobs.get(&id.0) {
                    Some(Job::Recruit { .. }) => {
                        let answer = Answer::Recruited {
                            system_identifier: SYSTEM_IDENTIFIER,
                            timeline: Timeline(1),
                            received: Lsn(1),
                            last_epoch: None,
                        };
                        vec![Event::Done { id, result: Ok(answer) }]
                    }
                    _ => vec![Event::Done { id, result: Err(failure) }],
                }
            }
            (Plant::PromotesTheLowestIndex, Event::Done { id, result: Ok(answer) }) => {
                let place = self.planted.jobs.get(&id.0).map_or(0, |job| node_of(job) as u64);
                vec![Event::Done { id, result: Ok(as_if_at(answer, |_| FAR - place)) }]
            }
            (Plant::NeverTriesTheNext, Event::Done { id, result: Err(failure) }) => {
                if let Some(Job::Promote { node, .. }) = self.planted.jobs.get(&id.0) {
                    self.planted.stuck.get_or_insert(node.clone());
                }
                vec![Event::Done { id, result: Err(failure) }]
            }
            (Plant::RenewsTheZombie, Event::Seen { node, sight: Sight::Answers(observation) }) => {
                if !observation.is_in_recovery
                    && let Some((epoch, primary)) = self.planted.opened.clone()
                    && primary != node
                    && self.pgbaton.open.is_some()
                {
                    let lead = Lead::Open { epoch, primary: node.clone(), timeline: observation.timeline };
                    self.act(Action::Publish(lead));
                }
                vec![Event::Seen { node, sight: Sight::Answers(observation) }]
            }
            (_, event) => vec![event],
        }
    }

    pub fn tamper_with_actions(&mut self, actions: Vec<Action>) -> Vec<Action> {
        let Some(plant) = self.plant else { return actions };
        let mut changed = Vec::new();
        for action in actions {
            if let Action::Do { id, job, .. } = &action {
                self.planted.jobs.insert(id.0, job.clone());
            }
            if let Action::Publish(Lead::Open { epoch, primary, .. }) = &action {
                self.planted.opened = Some((*epoch, primary.clone()));
            }
            self.tamper_with_action(plant, action, &mut changed);
        }
        changed
    }

    fn tamper_with_action(&mut self, plant: Plant, action: Action, changed: &mut Vec<Action>) {
        match (plant, action) {
            (Plant::ActsBeforeStored, Action::Store { serial, record }) => {
                let stored = Event::Stored { epoch: record.epoch, serial, result: Ok(()) };
                changed.push(Action::Store { serial, record });
                self.planted.delayed.push(Action::Say { is_warning: false, text: format!("{stored:?}") });
                self.planted.forged = serial;
                self.own(0, Timer::Planted);
            }
            (Plant::OpensBeforeStored, Action::Store { serial, record }) => {
                let is_stable = record.phase == Phase::Stable;
                let lead =
                    Lead::Open { epoch: record.epoch, primary: record.primary.clone(), timeline: record.timeline };
                changed.push(Action::Store { serial, record });
                if is_stable && self.pgbaton.open.is_none() {
                    changed.push(Action::Publish(lead));
                }
            }
            (Plant::ReusesTheEpoch, Action::Store { serial, mut record }) => {
                if record.epoch.0 > 1 {
                    record.epoch = Epoch(record.epoch.0 - 1);
                }
                changed.push(Action::Store { serial, record });
            }
            (Plant::NamesBeforeTheStore, Action::Store { serial, record }) => {
                if record.phase == Phase::Stable && self.pgbaton.open.is_some() {
                    let order = self.next_serial();
                    let id = self.next_serial();
                    let caller = crate::message::Caller::Task { id, question: id };
                    self.request(index(&record.primary), caller, order, What::Names(record.sync()));
                }
                self.store.is_slow = true;
                changed.push(Action::Store { serial, record });
            }
            (Plant::StoreBeforeTheNames | Plant::OpensBeforeTheRow, Action::Do { id, epoch, job }) => {
                let is_it = match plant {
                    Plant::StoreBeforeTheNames => matches!(job, Job::SetSync { .. }),
                    _ => matches!(job, Job::WriteEpoch { .. }),
                };
                if is_it {
                    self.planted.delayed.push(Action::Do { id, epoch, job });
                    self.own(0, Timer::Planted);
                } else {
                    changed.push(Action::Do { id, epoch, job });
                }
            }
            (Plant::AsksForOneFewer, Action::Do { id, epoch, job: Job::SetSync { node, mut sync } }) => {
                sync.k = if sync.k > 1 { sync.k - 1 } else { sync.k };
                changed.push(Action::Do { id, epoch, job: Job::SetSync { node, sync } });
            }
            (Plant::ForgetsToClose, Action::Publish(Lead::Closed { .. })) => {}
            (Plant::NeverTriesTheNext, Action::Do { id, epoch, job: Job::Promote { node, sync } }) => {
                if self.planted.stuck.is_none() {
                    changed.push(Action::Do { id, epoch, job: Job::Promote { node, sync } });
                }
            }
            (Plant::FollowsTheDead, Action::Do { id, epoch, job: Job::Follow { node, primary } }) => {
                let former = self.store.record.as_ref().and_then(|record| record.former.clone());
                let primary = former.filter(|former| *former != node).unwrap_or(primary);
                changed.push(Action::Do { id, epoch, job: Job::Follow { node, primary } });
            }
            (
                Plant::RewindsBlindly,
                Action::Do { id, epoch, job: Job::Rejoin { node, primary, system_identifier, reason, .. } },
            ) => {
                let job = Job::Rejoin { node, primary, system_identifier, repair: Repair::Auto, reason };
                changed.push(Action::Do { id, epoch, job });
            }
            (_, action) => changed.push(action),
        }
    }

    /// What a planted bug has put off.
    pub fn planted_timer(&mut self) {
        let epoch = self.store.pending.as_ref().map(|(_, record)| record.epoch);
        for delayed in std::mem::take(&mut self.planted.delayed) {
            match delayed {
                Action::Say { .. } => {
                    if let Some(epoch) = epoch {
                        // Past `tamper_with_event`, which drops the true one.
                        let event = Event::Stored { epoch, serial: self.planted.forged, result: Ok(()) };
                        self.step(event);
                    }
                }
                Action::Do { job: Job::SetSync { .. }, id, .. } => {
                    self.deliver(Event::Done { id, result: Ok(Answer::SyncSet) });
                }
                Action::Do { job: Job::WriteEpoch { .. }, id, .. } => {
                    self.deliver(Event::Done { id, result: Ok(Answer::EpochWritten) });
                }
                _ => {}
            }
        }
    }
}

/// Further than any log of a run.
const FAR: u64 = 1_000_000_000;

/// An answer about another position, and the candidate's consent to it.
fn as_if_at(answer: Answer, position: impl Fn(u64) -> u64) -> Answer {
    match answer {
        Answer::Recruited { system_identifier, timeline, received, last_epoch } => {
            Answer::Recruited { system_identifier, timeline, received: Lsn(position(received.0)), last_epoch }
        }
        Answer::Settled { last_epoch, .. } => Answer::Settled { replayed: Lsn(FAR), last_epoch },
        answer => answer,
    }
}
