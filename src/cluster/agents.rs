//! What agents say, and having them start and stop their servers.

use super::agent::{Data, Report, Server, Shutdown};
use super::event::CommandId;
use super::jobs::Retry;
use super::mode::{Adopting, Mode};
use super::{Answer, Brain, Failure, Job, Lead, Phase, Record};
use crate::types::{Epoch, NodeId};

/// What was said so long ago says nothing of now. Agents are asked twice a second.
const FRESH_MS: u64 = 5000;
/// A former primary is told to stop once for each promotion.
const STOP_AGAIN_MS: u64 = 60_000;
/// A server that does not start is left alone for so long, at the least.
const START_AGAIN_MS: u64 = 5000;

impl Brain {
    pub(super) fn heard_agent(&mut self, node: &NodeId, report: Result<Report, String>) {
        let now = self.now;
        if let Some(known) = self.nodes.get_mut(node) {
            known.hear_agent(now, report);
        }
    }

    // --- what is known of them ----------------------------------------------------------------------------------------

    pub(super) fn has_agent(&self, node: &NodeId) -> bool {
        self.policy.nodes.get(node).is_some_and(|policy| policy.has_agent)
    }

    /// What a node's agent says, if it said so a moment ago.
    pub(super) fn report(&self, node: &NodeId) -> Option<&Report> {
        let (at, said) = self.known(node).filter(|_| self.has_agent(node))?.agent.as_ref()?;
        said.as_ref().ok().filter(|_| self.now.0 <= at.0 + FRESH_MS)
    }

    /// The same, or why there is nothing to go by.
    pub(super) fn report_or_why(&self, node: &NodeId) -> Result<&Report, String> {
        if !self.has_agent(node) {
            return Err(format!("{node} has no agent (cluster.nodes.agent)"));
        }
        match (self.report(node), self.known(node).and_then(|known| known.agent.as_ref())) {
            (Some(report), _) => Ok(report),
            (None, Some((_, Err(reason)))) => Err(format!("the agent of {node} does not answer: {reason}")),
            (None, _) => Err(format!("the agent of {node} has not been heard")),
        }
    }

    /// Its agent is doing something that was ordered here.
    pub(super) fn is_at_work(&self, node: &NodeId) -> bool {
        self.is_running(|job| match job {
            Job::Stop { node: other, .. }
            | Job::Start { node: other }
            | Job::Restart { node: other, .. }
            | Job::Rejoin { node: other, .. }
            | Job::Initialise { node: other } => other == node,
            _ => false,
        })
    }

    /// Its agent is making it a standby, for this epoch or one before.
    pub(super) fn is_being_repaired(&self, node: &NodeId) -> bool {
        let is_ours = self.is_running(|job| matches!(job, Job::Rejoin { node: other, .. } if other == node));
        let doing = self.report(node).and_then(|report| report.doing.as_ref());
        is_ours || doing.is_some_and(|doing| doing.task == "rejoin")
    }

    // --- stop and start -----------------------------------------------------------------------------------------------

    /// Best effort, and nobody waits for it: another is about to be promoted, and this one may still serve whoever speaks to it
    /// directly.
    pub(super) fn stop_former(&mut self, record: &Record, kind: &str) {
        let is_promotion = record.phase == Phase::Promoting && record.fork_lsn.is_some() && kind != "switchover";
        let Some(former) = record.former.clone().filter(|former| is_promotion && *former != record.primary) else {
            return;
        };
        let is_up = self
            .report(&former)
            .is_some_and(|report| !matches!(report.server, Server::Stopped | Server::Waiting { .. }));
        if is_up && !self.is_at_work(&former) && self.may_try(&Retry::Stop(former.clone())) {
            self.not_before(Retry::Stop(former.clone()), STOP_AGAIN_MS);
            self.start(Job::Stop { node: former, how: Shutdown::Immediate });
        }
    }

    pub(super) fn stopped(&mut self, node: &NodeId, result: Result<Answer, Failure>) {
        match result {
            Ok(_) => self.say(false, format!("{node} was stopped by its agent")),
            Err(failure) => self.say(true, format!("{node} was not stopped by its agent: {}", failure.reason)),
        }
    }

    /// A switchover that was interrupted leaves the primary stopped: it goes on as if nothing had been asked. `Some`: it is
    /// waited for, in place of a failover.
    pub(super) fn start_stopped_primary(&mut self, record: &Record) -> Option<String> {
        let node = &record.primary;
        let is_missing = self.known(node).is_some_and(|known| known.trouble.is_some());
        if !is_missing || matches!(self.lead, Some(Lead::Draining { .. })) {
            return None;
        }
        self.start_if_stopped(node);
        let is_starting = self.is_running(|job| matches!(job, Job::Start { node: other } if other == node));
        // While it may take its time; after that, it counts as down.
        (is_starting && !self.may_try(&Retry::Start(node.clone())))
            .then(|| format!("{node} had been stopped by an order, and is started again"))
    }

    /// What keeps it stopped is an order of ours that led to nothing.
    pub(super) fn start_if_stopped(&mut self, node: &NodeId) {
        let is_stopped = self.report(node).is_some_and(|report| {
            report.server == Server::Stopped && report.doing.is_none() && matches!(report.data, Data::Present { .. })
        });
        let is_maintained = self.record.as_ref().is_some_and(|record| record.maintenance.contains(node));
        if !is_stopped || is_maintained || self.policy.only_watches() || self.is_at_work(node) {
            return;
        }
        if self.may_try(&Retry::Start(node.clone())) {
            self.not_before(Retry::Start(node.clone()), self.policy.restart_wait.0.max(START_AGAIN_MS));
            self.say_once(&format!("start {node}"), format!("{node} was left stopped, and is started by its agent"));
            self.start(Job::Start { node: node.clone() });
        }
    }

    /// Between two primaries, when nobody can be chosen: whoever was left stopped may be who is missing.
    pub(super) fn start_whoever_is_stopped(&mut self, record: &Record) {
        for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
            let has_standby =
                self.report(&node).is_some_and(|its| matches!(its.data, Data::Present { is_standby: true, .. }));
            if has_standby || node == record.primary {
                self.start_if_stopped(&node);
            }
        }
    }

    pub(super) fn started(&mut self, node: &NodeId, result: Result<Answer, Failure>) {
        let mending = self.mending.entry(node.clone()).or_default();
        mending.failure = result.as_ref().err().map(|failure| failure.reason.clone());
        match result {
            Ok(_) => self.say(false, format!("{node} was started by its agent")),
            Err(failure) => self.say(true, format!("{node} was not started by its agent: {}", failure.reason)),
        }
    }

    pub(super) fn restarted(&mut self, node: &NodeId, result: Result<Answer, Failure>) {
        match result {
            Ok(_) => self.say(false, format!("{node} was restarted by its agent")),
            Err(failure) => self.say(true, format!("{node} was not restarted by its agent: {}", failure.reason)),
        }
    }

    // --- by order ---------------------------------------------------------------------------------------------------

    pub(super) fn restart_by_order(&mut self, id: CommandId, record: &Record, node: NodeId) -> Result<(), String> {
        if node == record.primary {
            return Err(format!(
                "{node} is the primary: make another one the primary first (`pgbaton switchover`), then restart it"
            ));
        }
        if !matches!(self.mode, Mode::Stable(_)) {
            return Err("a change of primary is under way".into());
        }
        let report = self.report_or_why(&node)?;
        if !matches!(report.data, Data::Present { is_standby: true, .. }) {
            return Err(format!("{node} has no standby's data; `pgbaton rejoin {node}` makes it a standby"));
        }
        self.check_is_free(&node)?;
        let asked = Some((id, format!("{node} has been restarted")));
        self.say(true, format!("by an operator: {node} is restarted"));
        self.start_under(record.epoch, Job::Restart { node, how: Shutdown::Fast }, asked);
        Ok(())
    }

    pub(super) fn check_is_free(&self, node: &NodeId) -> Result<(), String> {
        let report = self.report_or_why(node)?;
        match &report.doing {
            Some(doing) => Err(format!("the agent of {node} is at work ({} {})", doing.task, doing.step)),
            None if self.is_at_work(node) => Err(format!("the agent of {node} is at work")),
            None => Ok(()),
        }
    }

    /// No record, and nobody is a primary: people know which one was the last, and say so.
    pub(super) fn start_unrecorded(&mut self, id: CommandId, node: NodeId) -> Result<(), String> {
        let Mode::Adopting(Adopting { floor, since, .. }) = self.mode.clone() else { return Ok(()) };
        if !self.policy.nodes.contains_key(&node) {
            return Err(format!("{node} is not in the configuration"));
        }
        let primary = self.nodes.iter().find(|(_, it)| it.answered_since(since).is_some_and(|it| !it.is_in_recovery));
        if let Some((other, _)) = primary {
            return Err(format!("{other} is a primary; {node} would be a second one"));
        }
        if let Some(other) = self.nodes.keys().find(|other| self.is_at_work(other)) {
            return Err(format!("the agent of {other} is at work"));
        }
        let report = self.report_or_why(&node)?;
        match (&report.server, &report.data) {
            (Server::Stopped | Server::Waiting { .. }, Data::Present { is_standby: false, .. }) => {}
            (Server::Stopped | Server::Waiting { .. }, Data::Present { .. }) => {
                return Err(format!("{node} has a standby's data, and would not be a primary"));
            }
            (Server::Stopped | Server::Waiting { .. }, _) => return Err(format!("{node} has no data to start with")),
            _ => return Err(format!("the server of {node} runs already, or is about to")),
        }
        let epoch: Epoch = floor.max(report.epoch);
        let asked = Some((id, format!("{node} runs, and is taken for the primary")));
        self.say(true, format!("by an operator: {node} is started as the primary"));
        self.start_under(epoch, Job::Start { node }, asked);
        Ok(())
    }
}
