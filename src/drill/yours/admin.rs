//! A running pgbaton, asked and ordered as its operator does it.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::admin::history::Entries;
use crate::admin::orders::{Done, Failover, Switchover};
use crate::admin::picture::Cluster;
use crate::cluster::HistoryEntry;
use crate::net::http::{self, ClientError, HttpUrl};

/// How long an order may take to be carried out.
const CARRIED_OUT: Duration = Duration::from_secs(300);
/// How long a question may take.
const ANSWERED: Duration = Duration::from_secs(5);
/// Entries of the history that are looked at, the newest.
const ENTRIES: &str = "100";

pub struct Admin {
    url: HttpUrl,
    token: Option<String>,
    runtime: tokio::runtime::Runtime,
}

impl Admin {
    pub fn new(url: HttpUrl, token: Option<String>) -> Result<Admin, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Admin { url, token, runtime: runtime.map_err(|error| error.to_string())? })
    }

    pub fn cluster(&self) -> Result<Cluster, String> {
        serde_json::from_str(&self.get("/cluster", &[])?).map_err(|error| format!("{}/cluster: {error}", self.url))
    }

    pub fn history(&self) -> Result<Vec<HistoryEntry>, String> {
        let answer = self.get("/history", &[("limit", ENTRIES)])?;
        let entries: Entries =
            serde_json::from_str(&answer).map_err(|error| format!("{}/history: {error}", self.url))?;
        Ok(entries.entries)
    }

    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<String, String> {
        let answer = http::get(&self.url, self.token.as_deref(), path, parameters, ANSWERED);
        self.runtime.block_on(answer).map_err(|error| error.to_string())
    }

    /// What was done, or why not.
    fn post(&self, path: &str, order: &impl Serialize) -> Result<String, String> {
        let order = serde_json::to_string(order).map_err(|error| error.to_string())?;
        let answer = http::post(&self.url, self.token.as_deref(), path, order, CARRIED_OUT);
        let answer = self.runtime.block_on(answer).map_err(|error| match error {
            ClientError::Refused { message, .. } => message,
            error => error.to_string(),
        })?;
        serde_json::from_str(&answer).map(|Done { done }| done).map_err(|error| error.to_string())
    }

    pub fn switchover(&self) -> Result<String, String> {
        self.post("/switchover", &Switchover { to: None })
    }

    pub fn failover(&self, to: &str) -> Result<String, String> {
        self.post("/failover", &Failover { to: to.into(), allow_data_loss: false })
    }

    pub fn restart(&self, node: &str) -> Result<String, String> {
        self.post(&format!("/nodes/{node}/restart"), &json!({}))
    }

    pub fn pause(&self) -> Result<String, String> {
        self.post("/pause", &json!({}))
    }

    pub fn resume(&self) -> Result<String, String> {
        self.post("/resume", &json!({}))
    }
}

/// What the cluster was like before anything was done to it; it has to be as good again.
#[derive(Debug, PartialEq, Eq)]
pub struct Before {
    running: Vec<String>,
    eligible: usize,
    voters: usize,
}

impl Before {
    /// `Err`: it is in no state for a drill.
    pub fn of(cluster: &Cluster) -> Result<Before, String> {
        let name = &cluster.name;
        if cluster.primary.is_none() || cluster.phase.as_deref() != Some("stable") {
            return Err(format!(
                "the cluster {name} is in no state for a drill: no primary takes writes {}",
                cluster.reason
            ));
        }
        if cluster.paused {
            return Err(format!("the cluster {name} is paused: nothing would happen (`pgbaton resume`)"));
        }
        let running = cluster.nodes.iter().filter(|node| node.state == "running").map(|node| node.id.clone()).collect();
        let eligible = cluster.nodes.iter().filter(|node| node.eligible).count();
        if eligible == 0 {
            return Err(format!("the cluster {name} is in no state for a drill: it has no replica that follows"));
        }
        Ok(Before { running, eligible, voters: cluster.voters.len() })
    }

    /// Why it is not as good as it was; `None`: it is.
    pub fn missing(&self, now: &Cluster) -> Option<String> {
        if now.primary.is_none() || now.phase.as_deref() != Some("stable") {
            return Some(format!("no primary takes writes {}", now.reason));
        }
        let is_running = |id: &String| now.nodes.iter().any(|node| node.id == *id && node.state == "running");
        if let Some(id) = self.running.iter().find(|id| !is_running(id)) {
            let node = now.nodes.iter().find(|node| node.id == *id);
            return Some(format!("{id} does not run: {}", node.map_or("it is gone", |node| &node.reason)));
        }
        let eligible = now.nodes.iter().filter(|node| node.eligible).count();
        if eligible < self.eligible {
            return Some(format!("{eligible} replicas serve reads, and there were {}", self.eligible));
        }
        let voters = now.voters.len();
        (voters < self.voters).then(|| format!("{voters} replicas vote, and there were {}", self.voters))
    }
}
