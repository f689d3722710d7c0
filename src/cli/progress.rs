//! What goes on while an order is carried out: one line on a terminal, written over again and again, and gone at the end.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::printing;
use crate::admin::picture::Cluster;
use crate::net::http::{self, HttpUrl};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// How long a look may take: what is told late is wrong.
const LOOK: Duration = Duration::from_secs(2);

/// To the start of the line, and wipes it.
const CLEAR: &str = "\r\x1b[K";

pub(super) struct Progress {
    admin: HttpUrl,
    is_shown: bool,
    begun: Instant,
}

impl Progress {
    /// Shown on a terminal only, and there unless somebody wants it quiet.
    pub(super) fn new(admin: &HttpUrl, is_quiet: bool) -> Progress {
        Progress { admin: admin.clone(), is_shown: !is_quiet && std::io::stderr().is_terminal(), begun: Instant::now() }
    }

    /// Says what goes on until this has ended.
    pub(super) async fn until<T>(&self, mut work: JoinHandle<T>) -> Result<T, tokio::task::JoinError> {
        let mut ticks = tokio::time::interval(INTERVAL);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                _ = ticks.tick(), if self.is_shown => self.look().await,
            }
        };
        self.wipe();
        result
    }

    async fn look(&self) {
        let Ok(answer) = http::get(&self.admin, None, "/cluster", &[], LOOK).await else { return };
        if let Ok(cluster) = serde_json::from_str(&answer) {
            self.show(&cluster);
        }
    }

    pub(super) fn show(&self, cluster: &Cluster) {
        if self.is_shown {
            let line = line(cluster, self.begun.elapsed());
            let line: String = line.chars().take(printing::width().saturating_sub(1)).collect();
            // A terminal that is gone has nobody before it.
            let _ = write!(std::io::stderr(), "{CLEAR}{line}");
        }
    }

    pub(super) fn wipe(&self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "{CLEAR}");
        }
    }
}

/// Seconds, the phase of a change of primary, and what each agent is at.
fn line(cluster: &Cluster, passed: Duration) -> String {
    let mut parts = Vec::new();
    if let (Some(epoch), Some(phase)) = (cluster.epoch, &cluster.phase)
        && (cluster.primary.is_none() || phase != "stable")
    {
        parts.push(format!("epoch {epoch} {phase}"));
    }
    if !cluster.reason.is_empty() {
        parts.push(cluster.reason.clone());
    }
    for node in &cluster.nodes {
        if let Some(agent) = node.agent.as_ref().filter(|agent| !agent.step.is_empty()) {
            parts.push(format!("{}: {}", node.id, agent.step));
        }
    }
    let text = if parts.is_empty() { "waiting".to_owned() } else { parts.join("; ") };
    format!("{:5.1} s  {}", passed.as_secs_f64(), text.replace(char::is_control, " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_phase_reason_and_steps() {
        let cluster = |phase: &str, primary: Option<&str>, reason: &str, step: &str| -> Cluster {
            serde_json::from_value(serde_json::json!({
                "name": "demo", "epoch": 4, "phase": phase, "primary": primary, "leader": "n1", "durability": "async",
                "voters": [], "acks": 0, "paused": false, "reason": reason, "nodes": [{
                    "id": "n2", "host": "h", "port": 1, "role": "replica", "state": "running", "timeline": 1, "lsn": "0/1",
                    "lag_bytes": 0, "lag_ms": 0, "eligible": true, "reason": "",
                    "agent": { "state": "running", "step": step, "trouble": "", "epoch": 4 }
                }]
            }))
            .unwrap()
        };
        let passed = Duration::from_millis(1250);
        assert_eq!(line(&cluster("stable", Some("n1"), "", ""), passed), "  1.2 s  waiting");
        assert_eq!(
            line(&cluster("recruiting", None, "n2 replays\nwhat it received", "rejoin: copying n1: 41 %"), passed),
            "  1.2 s  epoch 4 recruiting; n2 replays what it received; n2: rejoin: copying n1: 41 %"
        );
    }
}
