//! Looks at every node again and again, and tells what it saw.
//!
//! Each node is looked at on its own: one that hangs does not delay what is seen of the others, and is asked again only when
//! the last question has had its answer or its time. Nothing is concluded here: what the sights mean is `cluster`'s to say.

pub mod positions;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::cluster::{Sight, Symptom};
use crate::types::{NodeAddress, NodeId};

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
    /// Where it was looked at: what was seen where a node no longer is says nothing about it.
    pub address: Arc<NodeAddress>,
    pub sight: Sight,
}

/// Which nodes are looked at, and how to have one looked at before its time.
#[derive(Debug)]
pub struct Monitor {
    wakes: Mutex<Wakes>,
    changed: Notify,
}

type Wakes = HashMap<Arc<NodeAddress>, Arc<Notify>>;

impl Monitor {
    pub fn new(nodes: impl IntoIterator<Item = Arc<NodeAddress>>) -> Monitor {
        let wakes = nodes.into_iter().map(|node| (node, Arc::default())).collect();
        Monitor { wakes: Mutex::new(wakes), changed: Notify::new() }
    }

    fn wakes(&self) -> MutexGuard<'_, Wakes> {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are looked at from now on, new ones at once.
    pub fn set_nodes(&self, nodes: impl IntoIterator<Item = Arc<NodeAddress>>) {
        let mut wakes = self.wakes();
        let kept = |node| {
            let wake = wakes.get(&node).cloned().unwrap_or_default();
            (node, wake)
        };
        *wakes = nodes.into_iter().map(kept).collect();
        drop(wakes);
        self.changed.notify_one();
    }

    /// Has a node looked at at once; if it is being looked at just now, again after that.
    pub fn look(&self, node: &NodeId) {
        for (_, wake) in self.wakes().iter().filter(|(known, _)| known.id == *node) {
            wake.notify_one();
        }
    }

    pub fn look_at_all(&self) {
        for wake in self.wakes().values() {
            wake.notify_one();
        }
    }

    /// Looks at all nodes for as long as somebody listens. `ask` asks one node.
    pub async fn run<P, F>(&self, config: MonitorConfig, tell: mpsc::Sender<Seen>, ask: P)
    where
        P: Fn(NodeId) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Sight> + Send + 'static,
    {
        let mut watched = Watched(HashMap::new());
        loop {
            let wakes = self.wakes().clone();
            watched.0.retain(|node, task| {
                let is_known = wakes.contains_key(node);
                if !is_known {
                    task.abort();
                }
                is_known
            });
            for (node, wake) in wakes {
                watched.0.entry(node.clone()).or_insert_with(|| {
                    tokio::spawn(watch(node, wake, config, tell.clone(), ask.clone())).abort_handle()
                });
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = tell.closed() => return,
            }
        }
    }
}

/// Who watches each node, for as long as this is there.
struct Watched(HashMap<Arc<NodeAddress>, AbortHandle>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.values().for_each(AbortHandle::abort);
    }
}

async fn watch<P, F>(
    address: Arc<NodeAddress>,
    wake: Arc<Notify>,
    config: MonitorConfig,
    tell: mpsc::Sender<Seen>,
    ask: P,
) where
    P: Fn(NodeId) -> F,
    F: Future<Output = Sight> + Send + 'static,
{
    let limit = config.probe_timeout;
    let node = address.id.clone();
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
        if tell.send(Seen { node: node.clone(), address: address.clone(), sight }).await.is_err() {
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

    fn node(id: &str, port: u16) -> Arc<NodeAddress> {
        Arc::new(NodeAddress { id: id.into(), host: "h".into(), port })
    }

    #[tokio::test]
    async fn a_hanging_node_does_not_hide_the_others_and_a_wish_does_not_wait() {
        let (tell, mut told) = mpsc::channel(16);
        let config =
            MonitorConfig { probe_interval: Duration::from_secs(3600), probe_timeout: Duration::from_millis(50) };
        let monitor = Arc::new(Monitor::new([node("n1", 1), node("n2", 1)]));
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
        // Another node, and one that has moved; the third is gone.
        monitor.set_nodes([node("n1", 1), node("n3", 1)]);
        assert_eq!(&*next().await.node.0, "n3", "looked at at once");
        monitor.set_nodes([node("n1", 1), node("n3", 2)]);
        assert_eq!(next().await.address.port, 2);
        monitor.look_at_all();
        let mut both = [next().await.node, next().await.node];
        both.sort();
        assert_eq!(both, ["n1".into(), "n3".into()]);
        drop(told);
        timeout(limit, task).await.unwrap().unwrap();
    }
}
