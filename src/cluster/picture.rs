//! What the brain believes, put into words for people.

use std::collections::BTreeMap;

use super::agent::{Data, Outcome, Report, Server};
use super::mode::{Mode, Step};
use super::nodes::Known;
use super::{AgentAccount, Brain, NodeAccount, NodeState, Picture, Record, Symptom};
use crate::types::{Durability, NodeId};

impl Brain {
    /// What it believes, for people.
    pub fn picture(&self) -> Picture {
        let record = self.record.as_ref();
        let wanted = self.nodes.iter().filter(|(node, _)| self.is_wanted(node));
        let nodes: BTreeMap<_, _> = wanted.map(|(node, known)| (node.clone(), self.account(node, known))).collect();
        let unready = self.unready(&nodes);
        Picture {
            epoch: record.map(|record| record.epoch),
            phase: record.map(|record| record.phase),
            primary: record.map(|record| record.primary.clone()),
            durability: record.map_or(self.policy.durability, |record| record.durability),
            sync: record.map(Record::sync).unwrap_or_default(),
            paused: record.is_some_and(|record| record.paused),
            reason: self.reason(),
            closed_since: self.closed_since,
            is_refused: self.said.contains_key("refused"),
            unready,
            nodes,
        }
    }

    /// What stands in the way of a failover, were the primary lost now.
    fn unready(&self, nodes: &BTreeMap<NodeId, NodeAccount>) -> Option<String> {
        let Some(record) = &self.record else { return Some("there is no record yet".into()) };
        let Mode::Stable(stable) = &self.mode else { return Some("the primary is being changed".into()) };
        if !stable.is_open {
            return Some(stable.reason.clone());
        }
        if record.paused {
            return Some("paused".into());
        }
        if !self.policy.automatic {
            return Some("failover.automatic is off".into());
        }
        if nodes.values().all(|account| account.promotable.is_err()) {
            return Some("no node may be promoted".into());
        }
        let sync = record.sync();
        let needed = sync.recruits_needed().filter(|_| record.durability == Durability::Quorum)?;
        let is_there = |voter: &&NodeId| nodes.get(*voter).is_some_and(|account| account.state == NodeState::Running);
        let there = sync.voters.iter().filter(is_there).count();
        (there < needed).then(|| format!("{there} voters are there, and it takes {needed}"))
    }

    fn reason(&self) -> String {
        if let Some(pending) = self.pending.as_ref().filter(|pending| pending.tries > 1) {
            return format!("the record of epoch {} is not stored yet", pending.record.epoch);
        }
        match &self.mode {
            Mode::Unloaded => "the store has not been read yet".into(),
            Mode::Adopting(adopting) => adopting.reason.clone(),
            Mode::Stable(stable) => stable.reason.clone(),
            Mode::Switching(switching) => format!("under way: {}", switching.change.cause),
            Mode::Recruiting(recruiting) => recruiting.reason.clone(),
            Mode::Settling(settling) => format!("{} replays what it received", settling.candidate),
            Mode::Promoting(promoting) => match promoting.step {
                Step::Promote => promoting.reason.clone(),
                Step::Lead { .. } => "the new primary's first commit waits for its voters".into(),
            },
            Mode::Frozen { reason, .. } => reason.clone(),
        }
    }

    fn account(&self, node: &NodeId, known: &Known) -> NodeAccount {
        let (state, reason) = self.state_of(node, known);
        let has_agent = self.policy.nodes.get(node).is_some_and(|policy| policy.has_agent);
        let is_well = state == NodeState::Running && reason.is_empty();
        let agent = has_agent.then(|| agent_account(known.agent.as_ref().map(|(_, report)| report), is_well));
        NodeAccount { state, promotable: self.promotable(node, known, state), reason, agent }
    }

    fn state_of(&self, node: &NodeId, known: &Known) -> (NodeState, String) {
        let record = self.record.as_ref();
        if record.is_some_and(|record| record.maintenance.contains(node)) {
            return (NodeState::Maintenance, "in maintenance, at an operator's wish".into());
        }
        if let Some(mending) = self.account_of_mending(node, known) {
            return mending;
        }
        if let Some(trouble) = known.trouble.as_ref().filter(|_| known.is_foreign) {
            return (NodeState::Unknown, trouble.text.clone());
        }
        if let Some(trouble) = &known.trouble {
            let state = match trouble.symptom {
                Symptom::Starting => NodeState::Starting,
                Symptom::Rejected => NodeState::Unknown,
                Symptom::Refused | Symptom::Silent => NodeState::Down,
            };
            return (state, trouble.text.clone());
        }
        let Some(seen) = known.answers() else { return (NodeState::Unknown, "not seen yet".into()) };
        let Some(record) = record else { return (NodeState::Running, String::new()) };
        if record.primary == *node {
            return (NodeState::Running, String::new());
        }
        if !seen.is_in_recovery {
            let text = "a primary of the past: it needs to rejoin as a standby";
            return (if seen.is_fenced { NodeState::Fenced } else { NodeState::Unknown }, text.into());
        }
        if let Err(unfit) = self.may_follow(record, node, seen) {
            return (NodeState::Rejoining, unfit.reason);
        }
        match &seen.receiver {
            Some(receiver) if receiver.from.as_ref() == Some(&record.primary) => (NodeState::Running, String::new()),
            Some(receiver) => match &receiver.from {
                Some(from) => (NodeState::Running, format!("receives from {from}")),
                None => (NodeState::Running, "receives from a server that is not in the configuration".into()),
            },
            None => (NodeState::Rejoining, format!("does not receive from {}", record.primary)),
        }
    }

    fn promotable(&self, node: &NodeId, known: &Known, state: NodeState) -> Result<(), String> {
        let Some(record) = &self.record else { return Err("there is no record yet".into()) };
        if record.primary == *node {
            return Err("is the primary".into());
        }
        if self.policy.nodes.get(node).is_none_or(|node| node.priority == 0) {
            return Err("has priority 0".into());
        }
        match state {
            NodeState::Maintenance => return Err("is in maintenance".into()),
            NodeState::Fenced => return Err("is fenced".into()),
            NodeState::Down | NodeState::Starting | NodeState::Unknown => return Err("does not answer".into()),
            NodeState::Running | NodeState::Rejoining => {}
        }
        let Some(seen) = known.answers() else { return Err("does not answer".into()) };
        if seen.timeline != record.timeline {
            return Err(format!("is on timeline {}, not {}", seen.timeline.0, record.timeline.0));
        }
        if record.durability == Durability::Quorum && !record.voters.contains(node) {
            return Err("is not a voter".into());
        }
        let behind = self.highest.0.saturating_sub(seen.lsn.0);
        if record.durability == Durability::Async && behind > self.policy.max_lost_bytes {
            return Err(format!("is {behind} bytes behind, more than may be lost"));
        }
        Ok(())
    }
}

/// What an agent last said, the most important thing first: one line has room for one.
fn agent_account(report: Option<&Result<Report, String>>, is_well: bool) -> AgentAccount {
    let report = match report {
        Some(Ok(report)) => report,
        Some(Err(reason)) => {
            return AgentAccount { state: "silent".into(), step: String::new(), trouble: reason.clone(), epoch: None };
        }
        None => {
            let (step, trouble) = (String::new(), String::new());
            return AgentAccount { state: "unknown".into(), step, trouble, epoch: None };
        }
    };
    let state = match &report.server {
        Server::Starting => "starting",
        Server::Running => "running",
        Server::Stopping => "stopping",
        Server::Stopped => "stopped",
        Server::Waiting { .. } => "waiting",
    };
    let step = report.doing.as_ref().map_or(String::new(), |doing| match doing.step.is_empty() {
        true => doing.task.clone(),
        false => format!("{}: {}", doing.task, doing.step),
    });
    // Of an order that failed long ago nobody wants to know once all is well, nor while the next one is under way.
    let failed = report.done.as_ref().filter(|_| !is_well && report.doing.is_none());
    let failed = failed.and_then(|done| match &done.outcome {
        Outcome::Failed { reason, .. } => Some(format!("{} failed: {reason}", done.task)),
        Outcome::Well(_) => None,
    });
    let trouble = match (&report.data, failed, &report.server) {
        _ if !report.trouble.is_empty() => report.trouble.clone(),
        (Data::Unusable { reason }, ..) => reason.clone(),
        (_, Some(failed), _) => failed,
        (_, None, Server::Waiting { reason }) => reason.clone(),
        _ => String::new(),
    };
    AgentAccount { state: state.into(), step, trouble, epoch: Some(report.epoch) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::agent::{Code, Doing, Done};
    use crate::types::Epoch;

    fn report() -> Report {
        Report {
            node: NodeId::from("n1"),
            epoch: Epoch(7),
            server: Server::Running,
            data: Data::Absent,
            doing: None,
            done: None,
            kept: Vec::new(),
            trouble: String::new(),
        }
    }

    fn account(report: Report, is_well: bool) -> [String; 3] {
        let AgentAccount { state, step, trouble, epoch } = agent_account(Some(&Ok(report)), is_well);
        assert_eq!(epoch, Some(Epoch(7)));
        [state.into(), step, trouble]
    }

    #[test]
    fn an_agent_is_told_of_by_what_matters_most() {
        assert_eq!(account(report(), true), ["running", "", ""]);
        let waiting = Report { server: Server::Waiting { reason: "for the record".into() }, ..report() };
        assert_eq!(account(waiting.clone(), false), ["waiting", "", "for the record"]);
        let outcome = Outcome::Failed { code: Code::Password, reason: "wrong password".into() };
        let done = Done { epoch: Epoch(7), id: "1".into(), task: "rejoin".into(), took_ms: 5, outcome };
        let failed = Report { done: Some(done), ..waiting };
        assert_eq!(account(failed.clone(), false), ["waiting", "", "rejoin failed: wrong password"]);
        assert_eq!(account(Report { server: Server::Running, ..failed.clone() }, true), ["running", "", ""]);
        let step = "copying n2: 41 % of 2.1 GiB".to_owned();
        let doing = Doing { epoch: Epoch(7), id: "2".into(), task: "rejoin".into(), since: 0, step };
        let doing = Report { server: Server::Stopped, doing: Some(doing), ..failed.clone() };
        assert_eq!(account(doing, false), ["stopped", "rejoin: copying n2: 41 % of 2.1 GiB", ""]);
        let damaged = Report { data: Data::Unusable { reason: "no PG_VERSION".into() }, ..failed };
        assert_eq!(account(damaged, false)[2], "no PG_VERSION");
    }

    #[test]
    fn a_silent_agent_says_why_not() {
        let silent = agent_account(Some(&Err("connection refused".into())), true);
        assert_eq!((&*silent.state, &*silent.trouble, silent.epoch), ("silent", "connection refused", None));
        assert_eq!(agent_account(None, true).state, "unknown");
    }
}
