//! The nodes' agents: what a job is in their words, and asking each again and again how things are.

use std::collections::BTreeMap;
use std::time::Duration;

use super::views::Views;
use super::{Driver, Report};
use crate::cluster::Job;
use crate::cluster::agent::Task;
use crate::net::http::HttpUrl;
use crate::types::NodeId;

/// How often an agent is asked, and how often while it carries out an order.
const INTERVAL: Duration = Duration::from_millis(500);

/// What an agent is told, if this is one's job: whose, and what.
pub(super) fn task(job: &Job, views: &Views) -> Option<(NodeId, Task)> {
    Some(match job {
        Job::Stop { node, how } => (node.clone(), Task::Stop { how: *how }),
        Job::Start { node } => (node.clone(), Task::Start),
        Job::Restart { node, how } => (node.clone(), Task::Restart { how: *how }),
        Job::Initialise { node } => (node.clone(), Task::Initialise),
        Job::Rejoin { node, primary, system_identifier, repair, reason } => {
            let address = views.address(primary)?;
            let task = Task::Rejoin {
                primary: primary.clone(),
                host: address.host.clone(),
                port: address.port,
                system_identifier: *system_identifier,
                repair: *repair,
                reason: reason.clone(),
            };
            (node.clone(), task)
        }
        _ => return None,
    })
}

impl Driver {
    /// Asks the agents of the nodes for as long as they are where they are.
    pub(super) fn ask_agents(&mut self) {
        let agents =
            self.reached.iter().filter_map(|(node, how)| Some((node.clone(), how.agent.as_ref()?.url.clone())));
        let agents: BTreeMap<NodeId, HttpUrl> = agents.collect();
        self.asking.retain(|node, (url, task)| {
            let is_asked = agents.get(node) == Some(url);
            if !is_asked {
                task.abort();
            }
            is_asked
        });
        for (node, url) in agents {
            if self.asking.contains_key(&node) {
                continue;
            }
            let (control, reports) = (self.control.clone(), self.reports.clone());
            let (asked, whose) = (url.clone(), node.clone());
            let task = tokio::spawn(async move {
                while let Some(report) = control.agent_report(&node).await {
                    let (url, node, report) = (url.clone(), node.clone(), report.map(Box::new));
                    if reports.send(Report::Agent { url, node, report }).is_err() {
                        return;
                    }
                    tokio::time::sleep(INTERVAL).await;
                }
            });
            self.asking.insert(whose, (asked, task.abort_handle()));
        }
    }
}
