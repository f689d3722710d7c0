//! Looks at every node again and again, and tells what it saw.
//!
//! Each node is looked at on its own: one that hangs does not delay what is seen of the others, and is asked again only when
//! the last question has had its answer or its time. Nothing is concluded here: what the sights mean is `cluster`'s to say.

pub mod positions;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::cluster::{Sight, Symptom};
use crate::types::NodeId;

/// Shortest time between two looks at a node, however often one is asked for.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// How often to look.
#[derive(Clone, Copy, Debug)]
pub struct MonitorConfig {
    pub probe_interval: Duration,
    /// For one node's answer.
    pub probe_timeout: Duration,
}

/// One look at one node.
#[derive(Debug)]
pub struct Seen {
    pub node: NodeId,
    pub sight: Sight,
}

/// How to have a node looked at before its time.
#[derive(Debug)]
pub struct Monitor {
    wakes: Vec<(NodeId, Arc<Notify>)>,
}

impl Monitor {
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Monitor {
        Monitor { wakes: nodes.into_iter().map(|node| (node, Arc::default())).collect() }
    }

    /// Has a node looked at at once; if it is being looked at just now, again after that.
    pub fn look(&self, node: &NodeId) {
        if let Some((_, wake)) = self.wakes.iter().find(|(known, _)| known == node) {
            wake.notify_one();
        }
    }

    pub fn look_at_all(&self) {
        for (_, wake) in &self.wakes {
            wake.notify_one();
        }
    }

    /// Looks at all nodes for as long as somebody listens. `ask` asks one node.
    pub async fn run<P, F>(&self, config: MonitorConfig, tell: mpsc::Sender<Seen>, ask: P)
    where
        P: Fn(NodeId) -> F + Clone + Send + 'static,
        F: Future<Output = Sight> + Send + 'static,
    {
        let mut nodes = JoinSet::new();
        for (node, wake) in &self.wakes {
            nodes.spawn(watch(node.clone(), wake.clone(), config, tell.clone(), ask.clone()));
        }
        drop(tell);
        while nodes.join_next().await.is_some() {}
    }
}

async fn watch<P, F>(node: NodeId, wake: Arc<Notify>, config: MonitorConfig, tell: mpsc::Sender<Seen>, ask: P)
where
    P: Fn(NodeId) -> F,
    F: Future<Output = Sight> + Send + 'static,
{
    let limit = config.probe_timeout;
    loop {
        let begun = Instant::now();
        // In a task of its own: a panic in it costs one look.
        let mut asking = tokio::spawn(timeout(limit, ask(node.clone())));
        let sight = match (&mut asking).await {
            Ok(Ok(sight)) => sight,
            Ok(Err(_)) => Sight::Fails(Symptom::Silent, format!("no answer within {} ms", limit.as_millis())),
            Err(error) => {
                tracing::error!(%node, %error, "a probe failed in itself");
                Sight::Fails(Symptom::Rejected, "the probe failed in itself".into())
            }
        };
        if tell.send(Seen { node: node.clone(), sight }).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep_until(begun + config.probe_interval) => {}
            () = wake.notified() => sleep_until(begun + SHORTEST_PAUSE).await,
            () = tell.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hanging_node_does_not_hide_the_others_and_a_wish_does_not_wait() {
        let (tell, mut told) = mpsc::channel(16);
        let config =
            MonitorConfig { probe_interval: Duration::from_secs(3600), probe_timeout: Duration::from_millis(50) };
        let monitor = Arc::new(Monitor::new(["n1".into(), "n2".into()]));
        let looking = monitor.clone();
        let task = tokio::spawn(async move {
            let ask = |id: NodeId| async move {
                if &*id.0 == "n2" {
                    std::future::pending::<()>().await;
                }
                Sight::Fails(Symptom::Refused, "refused".into())
            };
            looking.run(config, tell, ask).await;
        });
        let limit = Duration::from_secs(10);
        let mut next = async || timeout(limit, told.recv()).await.unwrap().unwrap();
        let seen = [next().await, next().await];
        assert_eq!(seen.iter().map(|seen| &*seen.node.0).collect::<Vec<_>>(), ["n1", "n2"]);
        assert_eq!(seen[1].sight, Sight::Fails(Symptom::Silent, "no answer within 50 ms".into()));
        monitor.look(&"n1".into());
        assert_eq!(&*next().await.node.0, "n1");
        drop(told);
        timeout(limit, task).await.unwrap().unwrap();
    }
}
