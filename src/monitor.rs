//! Looks at every node again and again, and publishes who is the primary.
//!
//! What is seen becomes a [`Topology`] in one pure function, [`decide`]; the rest of this file is asking. A node that hangs
//! does not delay what is seen of the others: its probe goes on until its own deadline, and its last answer counts so long.
//!
//! The monitor follows what nodes say of themselves and never changes them. So a primary that stops answering stays the
//! primary (nothing else may take writes) until another node says it is one, on a higher timeline.

pub mod positions;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::types::{Epoch, Lsn, NodeAddress, NodeId, NodeView, Role, Timeline, Topology};

/// Shortest time between two looks, however often one is asked for.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// Answers of one look are judged together, as far as they come within this time: a change of primary seen on one node only
/// would look like two primaries, or none.
const GATHERING: Duration = Duration::from_millis(100);

/// What one node said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub is_in_recovery: bool,
    pub timeline: Timeline,
    pub lsn: Lsn,
    pub system_identifier: u64,
}

/// The last answer of a node, or why there was none.
pub type Observation = Result<Sighting, String>;

/// How often to look.
#[derive(Clone, Copy, Debug)]
pub struct MonitorConfig {
    pub probe_interval: Duration,
    /// For one node's answer.
    pub probe_timeout: Duration,
}

/// Why nothing is known of a node at first.
const NOT_LOOKED_AT: &str = "not looked at yet";

/// The topology before anybody has looked.
pub fn unseen(nodes: &[Arc<NodeAddress>]) -> Topology {
    let view = |address: &Arc<NodeAddress>| {
        Arc::new(NodeView {
            address: NodeAddress::clone(address),
            role: Role::Unknown,
            timeline: Timeline(0),
            lsn: Lsn(0),
            system_identifier: 0,
            reason: NOT_LOOKED_AT.into(),
        })
    };
    Topology {
        version: 0,
        nodes: nodes.iter().map(view).collect(),
        primary: None,
        reason: "no node has been looked at yet".into(),
        epoch: Epoch::default(),
    }
}

/// What the observations make of the topology. There is one observation for each node, in the same order; `None` for one
/// that has not been looked at.
pub fn decide(previous: &Topology, observations: &[Option<Observation>]) -> Topology {
    let nodes: Vec<Arc<NodeView>> = previous
        .nodes
        .iter()
        .enumerate()
        .map(|(at, view)| match observations.get(at) {
            Some(Some(observation)) => Arc::new(seen(view, observation)),
            _ => view.clone(),
        })
        .collect();
    let believed = previous.primary;
    let (primary, reason) = elect(&nodes, believed, previous.primary().map_or(0, |view| view.system_identifier));
    let incarnation = |nodes: &[Arc<NodeView>], at: Option<usize>| {
        at.and_then(|at| nodes.get(at)).map(|view| (view.address.id.clone(), view.timeline, view.system_identifier))
    };
    let changed = incarnation(&nodes, primary) != incarnation(&previous.nodes, believed);
    Topology { version: previous.version + u64::from(changed), nodes, primary, reason, epoch: previous.epoch }
}

fn seen(view: &NodeView, observation: &Observation) -> NodeView {
    match observation {
        Ok(sighting) => NodeView {
            address: view.address.clone(),
            role: if sighting.is_in_recovery { Role::Replica } else { Role::Primary },
            timeline: sighting.timeline,
            lsn: sighting.lsn,
            system_identifier: sighting.system_identifier,
            reason: String::new(),
        },
        // Timeline and position stay as last known: the timeline is what a successor is measured by.
        Err(error) => NodeView { role: Role::Unknown, reason: error.clone(), ..view.clone() },
    }
}

/// The primary, and what is to be said about it.
fn elect(nodes: &[Arc<NodeView>], believed: Option<usize>, identity: u64) -> (Option<usize>, String) {
    let name = |at: usize| &nodes[at].address.id;
    let timeline = |at: usize| nodes[at].timeline;
    // A node of another cluster (a wrong port, a fresh initdb) is nobody's successor.
    let is_foreign = |at: usize| Some(at) != believed && identity != 0 && nodes[at].system_identifier != identity;
    let says_primary = |at: &usize| nodes[*at].role == Role::Primary;
    let (foreign, claims): (Vec<usize>, Vec<usize>) =
        (0..nodes.len()).filter(says_primary).partition(|at| is_foreign(*at));

    match (claims.as_slice(), believed) {
        ([], Some(old)) if nodes[old].role == Role::Unknown => {
            (Some(old), format!("node {} does not answer, and no other node has become the primary", name(old)))
        }
        ([], Some(old)) => (None, format!("node {} is a standby now, and no other node is the primary", name(old))),
        ([], None) => match foreign.first() {
            Some(&at) => (None, format!("node {} belongs to another cluster (system identifier)", name(at))),
            None => (None, no_claims(nodes)),
        },
        (&[one], Some(old)) if one != old && nodes[old].role == Role::Unknown && timeline(one) <= timeline(old) => (
            Some(old),
            format!(
                "node {} does not answer; node {} says it is the primary, but on timeline {}, which is not higher than {}",
                name(old),
                name(one),
                timeline(one).0,
                timeline(old).0
            ),
        ),
        (&[one], _) => (Some(one), String::new()),
        (several, believed) => {
            let names = several.iter().map(|at| format!("{} (timeline {})", name(*at), timeline(*at).0));
            let names = names.collect::<Vec<_>>().join(" and ");
            let highest = several.iter().map(|at| timeline(*at)).max().unwrap_or_default();
            match believed.filter(|old| several.contains(old) && timeline(*old) == highest) {
                Some(old) => (Some(old), format!("{names} say they are the primary; {} was it before", name(old))),
                None => (None, format!("{names} say they are the primary; stop all but one of them")),
            }
        }
    }
}

fn no_claims(nodes: &[Arc<NodeView>]) -> String {
    let state = |view: &Arc<NodeView>| match view.role {
        Role::Unknown => format!("{} does not answer", view.address.id),
        _ => format!("{} is a standby", view.address.id),
    };
    let states = nodes.iter().map(state).collect::<Vec<_>>().join(", ");
    format!("no node says it is the primary: {states}")
}

/// Looks for as long as somebody listens. `look_now` makes the next look happen at once; `probe` asks one node.
pub async fn run<P, F>(config: MonitorConfig, publish: watch::Sender<Arc<Topology>>, look_now: Arc<Notify>, probe: P)
where
    P: Fn(NodeId) -> F,
    F: Future<Output = Observation> + Send + 'static,
{
    let ids: Vec<NodeId> = publish.borrow().nodes.iter().map(|view| view.address.id.clone()).collect();
    let mut observations: Vec<Option<Observation>> = vec![None; ids.len()];
    let mut is_asked = vec![false; ids.len()];
    let mut asked = JoinSet::new();
    let mut ticks = interval(config.probe_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut begun = Instant::now();
    let (mut is_look_wanted, mut is_gathering) = (false, false);
    while !publish.is_closed() {
        let is_look_due = tokio::select! {
            _ = ticks.tick() => true,
            () = sleep_until(begun + SHORTEST_PAUSE), if is_look_wanted => true,
            () = look_now.notified() => {
                is_look_wanted = true;
                false
            }
            Some(answer) = asked.join_next() => {
                match answer {
                    Ok((at, observation)) => {
                        observations[at] = Some(observation);
                        is_asked[at] = false;
                    }
                    // A probe that panicked: which one is not known, so all are asked again.
                    Err(error) => {
                        tracing::error!(%error, "a probe failed in itself");
                        asked.abort_all();
                        is_asked.fill(false);
                    }
                }
                false
            }
            () = sleep_until(begun + GATHERING), if is_gathering => {
                is_gathering = false;
                false
            }
        };
        if is_look_due {
            (begun, is_look_wanted, is_gathering) = (Instant::now(), false, true);
            for (at, id) in ids.iter().enumerate() {
                if !std::mem::replace(&mut is_asked[at], true) {
                    let limit = config.probe_timeout;
                    let answer = timeout(limit, probe(id.clone()));
                    asked.spawn(async move {
                        let late = |_| Err(format!("no answer within {} ms", limit.as_millis()));
                        (at, answer.await.unwrap_or_else(late))
                    });
                }
            }
        } else if asked.is_empty() || !is_gathering {
            is_gathering = false;
            conclude(&publish, &observations);
        }
    }
}

fn conclude(publish: &watch::Sender<Arc<Topology>>, observations: &[Option<Observation>]) {
    let previous = publish.borrow().clone();
    let next = decide(&previous, observations);
    log(&previous, &next);
    publish.send_if_modified(|topology| {
        let is_news = differs(topology, &next);
        *topology = Arc::new(next);
        is_news
    });
}

/// Whether there is anything that somebody would want to be woken for; log positions move all the time.
fn differs(previous: &Topology, next: &Topology) -> bool {
    let known = |view: &NodeView| (view.role, view.timeline, view.system_identifier);
    previous.version != next.version
        || previous.primary != next.primary
        || previous.reason != next.reason
        || previous.nodes.iter().zip(&next.nodes).any(|(old, new)| known(old) != known(new))
}

fn log(previous: &Topology, next: &Topology) {
    for (old, new) in previous.nodes.iter().zip(&next.nodes) {
        if old.role != new.role || old.timeline != new.timeline {
            let (node, was, role) = (&new.address.id, old.role.as_str(), new.role.as_str());
            tracing::info!(%node, was, role, timeline = new.timeline.0, reason = new.reason, "node changed");
        } else if new.role == Role::Unknown && old.reason == NOT_LOOKED_AT && new.reason != NOT_LOOKED_AT {
            // It never answered, so it did not change; whoever has just started the proxy must hear why.
            tracing::warn!(node = %new.address.id, reason = new.reason, "node does not answer");
        }
    }
    if previous.version != next.version {
        let name = |topology: &Topology| topology.primary().map_or("none".into(), |view| view.address.id.to_string());
        let (was, primary, version) = (name(previous), name(next), next.version);
        tracing::info!(was, primary, version, reason = next.reason, "primary changed");
    } else if previous.reason != next.reason && !next.reason.is_empty() {
        tracing::warn!(reason = next.reason, "the primary is in doubt");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: u64 = 7;

    fn nodes(count: usize) -> Topology {
        let address = |at| Arc::new(NodeAddress { id: NodeId::from(&*format!("n{at}")), host: "h".into(), port: 1 });
        unseen(&(1..=count).map(address).collect::<Vec<_>>())
    }

    fn says(is_in_recovery: bool, timeline: u32) -> Option<Observation> {
        Some(Ok(Sighting { is_in_recovery, timeline: Timeline(timeline), lsn: Lsn(1), system_identifier: CLUSTER }))
    }

    fn primary(timeline: u32) -> Option<Observation> {
        says(false, timeline)
    }

    fn standby(timeline: u32) -> Option<Observation> {
        says(true, timeline)
    }

    fn silent() -> Option<Observation> {
        Some(Err("connection refused".into()))
    }

    /// Primary's name, version and reason after each look.
    fn story(count: usize, looks: &[&[Option<Observation>]]) -> Vec<(String, u64, String)> {
        let mut topology = nodes(count);
        let mut told = Vec::new();
        for look in looks {
            topology = decide(&topology, look);
            let name = topology.primary().map_or("-".into(), |view| view.address.id.to_string());
            told.push((name, topology.version, topology.reason.clone()));
        }
        told
    }

    fn told(name: &str, version: u64, reason: &str) -> (String, u64, String) {
        (name.into(), version, reason.into())
    }

    #[test]
    fn the_one_node_that_says_so_is_the_primary() {
        assert_eq!(
            story(2, &[&[None, None], &[standby(1), silent()], &[standby(1), primary(1)], &[standby(1), primary(1)]]),
            vec![
                told("-", 0, "no node says it is the primary: n1 does not answer, n2 does not answer"),
                told("-", 0, "no node says it is the primary: n1 is a standby, n2 does not answer"),
                told("n2", 1, ""),
                told("n2", 1, ""),
            ]
        );
    }

    #[test]
    fn a_primary_that_stops_answering_stays_it_until_a_higher_timeline_is_seen() {
        assert_eq!(
            story(
                2,
                &[
                    &[primary(1), standby(1)],
                    &[silent(), standby(1)],
                    &[silent(), primary(1)],
                    &[silent(), primary(2)],
                    &[standby(2), primary(2)],
                ]
            ),
            vec![
                told("n1", 1, ""),
                told("n1", 1, "node n1 does not answer, and no other node has become the primary"),
                told(
                    "n1",
                    1,
                    "node n1 does not answer; node n2 says it is the primary, but on timeline 1, which is not higher than 1"
                ),
                told("n2", 2, ""),
                told("n2", 2, ""),
            ]
        );
    }

    #[test]
    fn of_two_primaries_the_one_before_is_kept_only_on_the_highest_timeline() {
        assert_eq!(
            story(
                2,
                &[
                    &[primary(2), standby(2)],
                    &[primary(2), primary(1)],
                    &[primary(2), primary(3)],
                    &[silent(), primary(3)],
                ]
            ),
            vec![
                told("n1", 1, ""),
                told("n1", 1, "n1 (timeline 2) and n2 (timeline 1) say they are the primary; n1 was it before"),
                told("-", 2, "n1 (timeline 2) and n2 (timeline 3) say they are the primary; stop all but one of them"),
                told("n2", 3, ""),
            ]
        );
    }

    #[test]
    fn two_primaries_at_first_sight_are_none() {
        let told = story(2, &[&[primary(1), primary(1)]]);
        assert_eq!((told[0].0.as_str(), told[0].1), ("-", 0));
    }

    #[test]
    fn a_switchover_is_followed_at_once() {
        assert_eq!(
            story(2, &[&[primary(1), standby(1)], &[standby(1), standby(1)], &[standby(1), primary(2)]]),
            vec![
                told("n1", 1, ""),
                told("-", 2, "node n1 is a standby now, and no other node is the primary"),
                told("n2", 3, ""),
            ]
        );
    }

    #[test]
    fn the_same_node_on_a_new_timeline_is_a_new_primary() {
        let told = story(1, &[&[primary(1)], &[silent()], &[primary(2)]]);
        assert_eq!(told.iter().map(|look| look.1).collect::<Vec<_>>(), [1, 1, 2]);
    }

    #[test]
    fn a_node_of_another_cluster_is_no_successor() {
        let stranger = Some(Ok(Sighting {
            is_in_recovery: false,
            timeline: Timeline(9),
            lsn: Lsn(1),
            system_identifier: CLUSTER + 1,
        }));
        let told = story(2, &[&[primary(1), standby(1)], &[silent(), stranger.clone()], &[primary(1), stranger]]);
        assert_eq!(told.iter().map(|look| (&*look.0, look.1)).collect::<Vec<_>>(), [("n1", 1), ("n1", 1), ("n1", 1)]);
    }

    #[test]
    fn a_hanging_node_does_not_hide_the_others_and_look_now_does_not_wait() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let (publish, mut topology) = watch::channel(Arc::new(nodes(2)));
            let look_now = Arc::new(Notify::new());
            let config =
                MonitorConfig { probe_interval: Duration::from_secs(3600), probe_timeout: Duration::from_millis(50) };
            let is_primary = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let shared = is_primary.clone();
            let probe = move |id: NodeId| {
                let is_primary = shared.load(std::sync::atomic::Ordering::SeqCst);
                async move {
                    if &*id.0 == "n2" {
                        std::future::pending::<()>().await;
                    }
                    says(!is_primary, 1).expect("somebody says something")
                }
            };
            tokio::spawn(run(config, publish, look_now.clone(), probe));
            let limit = Duration::from_secs(10);
            let seen = timeout(limit, topology.wait_for(|seen| seen.nodes[0].role == Role::Replica)).await;
            assert_eq!(seen.unwrap().unwrap().nodes[1].reason, "no answer within 50 ms");
            is_primary.store(true, std::sync::atomic::Ordering::SeqCst);
            look_now.notify_one();
            timeout(limit, topology.wait_for(|seen| seen.primary == Some(0))).await.unwrap().unwrap();
        });
    }
}
