//! The nodes' agents, as pgbaton asks and orders them over HTTP.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Control;
use crate::auth::Secret;
use crate::cluster::agent::{Deed, Done, Order, Outcome, Report};
use crate::cluster::doctor::facts::Agent;
use crate::cluster::{Failure, FailureKind};
use crate::net::http::{self, ClientError, HttpUrl};
use crate::types::NodeId;

/// An agent answers at once, whatever its server does.
const LIMIT: Duration = Duration::from_secs(2);

/// Between two looks at how far an order is: a twentieth of the time it has taken, as somebody may wait for it, and not without
/// end.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// So long an agent may be out of reach while it carries out an order.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a node's agent is, and what it wants to be shown.
#[derive(Clone, Debug)]
pub struct AgentAddress {
    pub url: HttpUrl,
    pub token: Option<Secret>,
}

impl Control {
    /// What the agent of a node says. `None`: it has none.
    pub async fn agent_report(&self, node: &NodeId) -> Option<Result<Report, String>> {
        let agent = self.agent(node)?;
        Some(
            ask(&agent, http::get(&agent.url, token(&agent), "/status", &[], LIMIT).await)
                .map_err(|error| error.reason),
        )
    }

    /// What the agent of a node says of the machine it is on.
    pub async fn agent_survey(&self, node: &NodeId) -> Agent {
        let Some(agent) = self.agent(node) else { return Agent::None };
        match http::get(&agent.url, token(&agent), "/survey", &[], LIMIT).await {
            Ok(text) => match serde_json::from_str(&text) {
                Ok(site) => Agent::Answers(Box::new(site)),
                Err(error) => Agent::Silent(format!("{} does not answer as an agent does: {error}", agent.url)),
            },
            Err(ClientError::Refused { code, message, .. }) if code == "token_required" => Agent::Refused(message),
            Err(error) => Agent::Silent(error.to_string()),
        }
    }

    /// Has the agent of a node do something, and waits until it is done, however long that takes. Dropping this does not end
    /// what has begun.
    pub async fn agent_do(&self, node: &NodeId, order: &Order) -> Result<Deed, Failure> {
        let Some(agent) = self.agent(node) else {
            return Err(Failure { kind: FailureKind::Refused, reason: format!("{node} has no agent") });
        };
        let body = serde_json::to_string(order)
            .map_err(|error| Failure { kind: FailureKind::Refused, reason: error.to_string() })?;
        let answer = http::post(&agent.url, token(&agent), "/actions", body, LIMIT).await;
        let mut report: Report = ask(&agent, answer)?;
        let begun = Instant::now();
        let mut heard = begun;
        loop {
            if let Some(done) = report.done.as_ref().filter(|done| is_it(done, order)) {
                return match done.outcome.clone() {
                    Outcome::Well(deed) => Ok(deed),
                    Outcome::Failed { reason, .. } => Err(Failure { kind: FailureKind::Refused, reason }),
                };
            }
            if !report.doing.as_ref().is_some_and(|doing| doing.id == order.id && doing.epoch == order.epoch) {
                let reason = format!("the agent of {node} has forgotten what it was told ({})", order.task.name());
                return Err(Failure { kind: FailureKind::Unreachable, reason });
            }
            sleep((begun.elapsed() / 20).clamp(FIRST_PAUSE, LAST_PAUSE)).await;
            match ask(&agent, http::get(&agent.url, token(&agent), "/status", &[], LIMIT).await) {
                Ok(now) => (report, heard) = (now, Instant::now()),
                Err(failure) if failure.kind == FailureKind::Unreachable && heard.elapsed() < PATIENCE => {}
                Err(failure) => return Err(failure),
            }
        }
    }
}

fn is_it(done: &Done, order: &Order) -> bool {
    (done.epoch, &done.id) == (order.epoch, &order.id)
}

fn token(agent: &AgentAddress) -> Option<&str> {
    agent.token.as_ref().map(Secret::reveal)
}

fn ask(agent: &AgentAddress, answer: Result<String, ClientError>) -> Result<Report, Failure> {
    let failure = |kind, reason| Failure { kind, reason };
    match answer {
        Ok(text) => serde_json::from_str(&text).map_err(|error| {
            let reason = format!("{} does not answer as an agent does: {error}", agent.url);
            failure(FailureKind::Refused, reason)
        }),
        Err(error @ (ClientError::Unreachable { .. } | ClientError::Strange { .. })) => {
            Err(failure(FailureKind::Unreachable, error.to_string()))
        }
        Err(error) => Err(failure(FailureKind::Refused, error.to_string())),
    }
}
