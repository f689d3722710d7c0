//! Agents beside the nodes of a story: they do at once what they are told, unless the story says otherwise.

use super::ground::*;
use crate::cluster::agent::{Data, Deed, Doing, Done, Report, Server, Shutdown};
use crate::cluster::*;
use crate::types::{Durability, Epoch, Millis, NodeId};

#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub server: Server,
    /// In place of what the node shows.
    pub data: Option<Data>,
    pub epoch: Epoch,
    pub step: Option<String>,
    /// Of an order that was given before pgbaton was started.
    pub doing: Option<Doing>,
    pub done: Option<Done>,
    /// Why it does not answer.
    pub silent: Option<String>,
    /// What the next rejoin amounts to.
    pub deed: Deed,
}

impl Default for Agent {
    fn default() -> Agent {
        Agent {
            server: Server::Running,
            data: None,
            epoch: Epoch(0),
            step: None,
            doing: None,
            done: None,
            silent: None,
            deed: Deed::default(),
        }
    }
}

/// The same, with an agent beside each node.
pub(super) fn world_with_agents(durability: Durability, names: &[&str]) -> World {
    let mut policy = policy(durability, names);
    policy.nodes.values_mut().for_each(|node| node.has_agent = true);
    world_of(policy)
}

impl World {
    /// The server dies, and its agent goes by the record before it starts a primary again.
    pub fn kill_under_agent(&mut self, name: &str) {
        self.kill(name);
        let reason = "the record names another as the primary".to_string();
        self.agent(name).server = Server::Waiting { reason };
    }

    /// There is nothing on its disk any more.
    pub fn wipe(&mut self, name: &str) {
        self.note(format!("the disk of {name} is wiped"));
        self.node(name).life = Life::Refuses;
        let agent = self.agent(name);
        agent.server = Server::Waiting { reason: "there is no data".into() };
        agent.data = Some(Data::Absent);
    }

    pub fn agent(&mut self, name: &str) -> &mut Agent {
        self.node(name).agent.as_mut().expect("an agent beside it")
    }

    pub fn account(&self, name: &str) -> NodeAccount {
        self.brain.picture().nodes[&id(name)].clone()
    }

    pub fn report(&self, node: &NodeId) -> Option<Result<Report, String>> {
        let it = &self.nodes[node];
        let agent = it.agent.as_ref()?;
        if let Some(reason) = &agent.silent {
            return Some(Err(reason.clone()));
        }
        let shown = Data::Present {
            system_identifier: it.seen.system_identifier,
            timeline: it.seen.timeline,
            is_standby: it.seen.is_in_recovery,
            is_clean: false,
            checkpoint: it.seen.lsn,
        };
        let under_way =
            self.jobs.iter().find(|(_, _, _, job)| matches!(job, Job::Rejoin { node: on, .. } if on == node));
        let doing = under_way.map(|(_, id, epoch, _)| Doing {
            epoch: *epoch,
            id: id.0.to_string(),
            task: "rejoin".into(),
            since: 0,
            step: agent.step.clone().unwrap_or_default(),
        });
        Some(Ok(Report {
            node: node.clone(),
            epoch: agent.epoch,
            server: agent.server.clone(),
            data: agent.data.clone().unwrap_or(shown),
            doing: doing.or(agent.doing.clone()),
            done: agent.done.clone(),
            kept: Vec::new(),
            trouble: String::new(),
        }))
    }

    /// What agents do does not need a server that runs.
    pub fn carry_out_by_agent(&mut self, epoch: Epoch, job: &Job) -> Option<Result<Answer, Failure>> {
        let (name, node) = name_of(job);
        let (name, node) = (name, node.clone());
        let refused = |kind, reason: &str| Some(Err(Failure { kind, reason: reason.into() }));
        let it = &self.nodes[&node];
        let is_fast = matches!(job, Job::Stop { how: Shutdown::Fast, .. });
        if it.stuck.contains(name) || is_fast && it.stuck.contains("stop fast") {
            return None;
        }
        if it.agent.as_ref().is_none_or(|agent| agent.silent.is_some()) {
            return refused(FailureKind::Unreachable, "its agent does not answer");
        }
        if it.refuses.contains(name) {
            return refused(FailureKind::Refused, "it will not");
        }
        let leader = match job {
            Job::Rejoin { primary, .. } => Some(self.nodes[primary].seen.clone()),
            _ => None,
        };
        let it = self.nodes.get_mut(&node)?;
        let agent = it.agent.as_mut()?;
        agent.epoch = agent.epoch.max(epoch);
        match job {
            Job::Stop { .. } => {
                (it.life, agent.server) = (Life::Refuses, Server::Stopped);
                let end = Some(it.seen.lsn).filter(|_| is_fast && !it.crashed);
                for other in self.nodes.values_mut() {
                    if other.seen.receiver.as_ref().is_some_and(|receiver| receiver.from.as_ref() == Some(&node)) {
                        other.seen.receiver = None;
                    }
                }
                return Some(Ok(Answer::Agent(Deed { end, ..Deed::default() })));
            }
            Job::Start { .. } if it.life == Life::Runs => {}
            Job::Start { .. } | Job::Restart { .. } => {
                (it.life, agent.server) = (Life::Runs, Server::Running);
                it.seen.incarnation += 1;
            }
            Job::Initialise { .. } => {
                (it.life, agent.server, agent.data) = (Life::Runs, Server::Running, None);
                it.seen.is_in_recovery = false;
                (it.seen.receiver, it.seen.follows) = (None, None);
                it.seen.sync = Some(SyncNames::default());
            }
            Job::Rejoin { primary, .. } => {
                let leader = leader?;
                (it.life, agent.server, agent.data) = (Life::Runs, Server::Running, None);
                let receiver = Receiver { from: Some(primary.clone()), fed_ago: Millis(1), quiet: Millis(2500) };
                it.seen = Observation {
                    is_in_recovery: true,
                    receiver: Some(receiver),
                    follows: Some(primary.clone()),
                    incarnation: it.seen.incarnation + 1,
                    senders: Vec::new(),
                    sync: None,
                    recruited_for: None,
                    is_fenced: false,
                    ..leader
                };
            }
            _ => unreachable!("{job:?} is not an agent's"),
        }
        Some(Ok(Answer::Agent(self.nodes[&node].agent.as_ref()?.deed.clone())))
    }
}
