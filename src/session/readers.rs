//! The replicas as sessions see them: who may serve reads just now, how far each is, and which of them to take.
//!
//! The control plane publishes a [`View`] a few times a second; between two of them what changes fast (positions, load)
//! is read from where it is counted. Choosing is `route::balance`; here its facts are put together.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use smallvec::SmallVec;

use super::silent::Silence;
use crate::monitor::positions::Positions;
use crate::pool::{Load, Pools};
use crate::route::balance::{self, Candidate, Strategy};
use crate::route::eligible::{self, Floor, Ineligible, PrimaryFacts, ReadLimits, Sight};
use crate::route::lag::{Lag, LagRing};
use crate::route::outlier::{self, Outliers};
use crate::route::{Consistency, Fallback, HashBy};
use crate::telemetry::metric::Metric;
use crate::types::{Millis, NodeAddress, NodeId, PLACES, Role, Timeline, Topology};

pub const ELIGIBLE: Metric = Metric::gauge("pgbaton_eligible_replicas", "Replicas that may serve reads.");

/// The `[reads]` of the configuration, as far as sessions need it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadSettings {
    pub is_enabled: bool,
    pub consistency: Consistency,
    pub limits: ReadLimits,
    pub balance: Strategy,
    pub fallback: Fallback,
    pub wait: Duration,
    pub zone: String,
    pub hash_by: HashBy,
    pub slow_start: Millis,
    /// Zone and weight of each node.
    pub nodes: HashMap<NodeId, (String, u32)>,
}

/// One node as a place to read from.
#[derive(Debug)]
pub struct Reader {
    pub address: Arc<NodeAddress>,
    pub weight: u32,
    pub is_near: bool,
    pub timeline: Timeline,
    pub lag: Lag,
    /// `lag` is what was measured, and the node answers.
    is_measured: bool,
    pub state: Result<(), Ineligible>,
    /// When it last became eligible.
    pub since: Millis,
    pub load: Arc<Load>,
    name_hash: u64,
    ramp: f32,
}

impl Reader {
    /// False: its place is empty.
    pub fn is_present(&self) -> bool {
        !matches!(self.state, Err(Ineligible::Removed))
    }

    /// How far a replica is behind; `None` of one that does not answer, and of a primary.
    pub fn known_lag(&self) -> Option<Lag> {
        let is_unknown = matches!(self.state, Err(Ineligible::Primary | Ineligible::Removed | Ineligible::Down { .. }));
        (self.is_measured && !is_unknown).then_some(self.lag)
    }
}

/// What the control plane last made of the nodes.
#[derive(Debug, Default)]
pub struct View {
    /// That of the topology: changes when there is another primary.
    pub version: u64,
    pub primary: Option<usize>,
    pub timeline: Timeline,
    /// One for each place of the topology.
    pub nodes: Vec<Reader>,
    /// At least one may serve reads.
    pub has_any: bool,
    /// When the primary last was lost or another than before; `None` while the first one there was still is.
    pub changed: Option<Millis>,
    /// There is a primary, or there was one.
    has_begun: bool,
}

/// What sessions share to choose a replica.
pub struct Readers {
    pub settings: ArcSwap<ReadSettings>,
    pub positions: Positions,
    pub outliers: Outliers,
    pub silence: Silence,
    view: ArcSwap<View>,
    turn: AtomicU64,
    started: Instant,
    is_worth_judging: AtomicBool,
}

/// How fresh a session needs its reads, by what it has seen so far. Positions are compared by the numbers of questions put
/// to nodes (see [`Positions`]), so nothing is asked on the path of a statement.
#[derive(Debug, Default)]
pub struct Freshness {
    /// What a replica must have replayed.
    floor: Option<Floor>,
    /// How many questions the primary had been asked when the session was last served there: an answer to a later one is at
    /// or past everything the session has seen by then, on whatever node.
    on_primary: Option<u64>,
    /// The replica it was last served by since then, how many questions that had been asked, and how often it had failed to
    /// answer: one that has may have started again from before what it had shown.
    on_replica: Option<(usize, u64, u32)>,
    /// How many questions the primary had been asked when the floor was last raised.
    raised: u64,
    /// The view's version those are from.
    version: u64,
}

impl Freshness {
    /// Of a session that has seen nothing yet.
    pub fn new(readers: &Readers) -> Freshness {
        Freshness { version: readers.view().version, ..Freshness::default() }
    }

    /// The session was served by the primary, or by this replica, until now.
    #[inline]
    pub fn note(&mut self, node: usize, is_replica: bool, readers: &Readers) {
        let asked = readers.positions.asked(node);
        if is_replica {
            self.on_replica = Some((node, asked, readers.positions.latest(node).failures));
        } else {
            self.on_primary = Some(asked);
            self.on_replica = None;
        }
    }

    /// What was seen up to there must be there. It may be a token of another session.
    pub fn raise(&mut self, floor: Floor, readers: &Readers) {
        match &mut self.floor {
            Some(known) if known.timeline == floor.timeline && known.lsn >= floor.lsn => return,
            known => *known = Some(floor),
        }
        self.raised = readers.view().primary.map_or(0, |primary| readers.positions.asked(primary));
    }

    /// Takes in what has become known since.
    fn settle(&mut self, view: &View, readers: &Readers) {
        // Without a primary nothing can be learnt, and nothing may be forgotten.
        let Some(primary) = view.primary else { return };
        if self.version != view.version {
            // Another primary: its position at any time from now on covers whatever of the past it has.
            if self.floor.take().is_some() || self.on_primary.is_some() || self.on_replica.take().is_some() {
                self.on_primary = Some(readers.positions.asked(primary));
                self.on_replica = None;
            }
            self.version = view.version;
        }
        if let Some((node, asked, failures)) = self.on_replica {
            let position = readers.positions.latest(node);
            if position.failures != failures {
                // It may show less than it did. The primary never has less.
                self.on_primary = Some(readers.positions.asked(primary));
                self.on_replica = None;
            } else if let Some(lsn) = readers.positions.first_after(node, asked) {
                self.raise(Floor { timeline: view.timeline, lsn }, readers);
                self.on_replica = None;
            }
        }
        let position = readers.positions.latest(primary);
        let is_there = position.is_known() && !position.is_in_recovery;
        if let Some(asked) = self.on_primary
            && is_there
            && let Some(lsn) = readers.positions.first_after(primary, asked)
        {
            self.raise(Floor { timeline: view.timeline, lsn }, readers);
            self.on_primary = None;
        }
        // An end of the log that has turned out to be nobody's commit: what the primary says later is less.
        if let Some(floor) = &mut self.floor
            && is_there
            && position.number > self.raised
            && floor.timeline == view.timeline
        {
            floor.lsn = floor.lsn.min(position.lsn);
        }
    }

    /// Whether a node shows everything the session has seen.
    fn allows(&self, node: usize, view: &View, readers: &Readers) -> bool {
        match (self.floor, self.on_primary, self.on_replica) {
            // How far the other was when the session was there, nobody has said yet.
            (_, Some(_), _) => false,
            (_, _, Some((other, ..))) if other != node => false,
            (Some(floor), ..) => eligible::covers(view.nodes[node].timeline, readers.positions.latest(node).lsn, floor),
            _ => true,
        }
    }

    /// The replica this session stays on for no other reason than that it was there last.
    pub fn stays_on(&self) -> Option<usize> {
        self.on_replica.map(|(node, ..)| node).filter(|_| self.on_primary.is_none())
    }

    /// The node whose next answer would settle what is open.
    pub fn unsettled(&self, view: &View) -> Option<usize> {
        match self.on_primary {
            Some(_) => view.primary,
            None => self.on_replica.map(|(node, ..)| node),
        }
    }

    pub fn floor(&self) -> Option<Floor> {
        self.floor
    }
}

/// Who wants to read.
pub struct Wanted<'a> {
    pub consistency: Consistency,
    pub freshness: &'a mut Freshness,
    /// For `consistent_hash`.
    pub key: u64,
    /// A node that has just failed this session.
    pub avoid: Option<usize>,
    /// What the session was told to have seen, which counts at any level.
    pub token: Option<Floor>,
}

/// Which replica to read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    Node(usize),
    /// There are replicas, but none is as fresh as this session needs.
    NotFresh,
    /// No replica may serve reads.
    None,
}

thread_local! {
    static DICE: Cell<u64> = const { Cell::new(0x9e37_79b9_7f4a_7c15) };
}

/// Not for secrets: xorshift64.
fn random() -> u64 {
    DICE.with(|dice| {
        let mut x = dice.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        dice.set(x);
        x
    })
}

impl Readers {
    pub fn new(settings: ReadSettings) -> Readers {
        Readers {
            settings: ArcSwap::from_pointee(settings),
            positions: Positions::new(PLACES),
            outliers: Outliers::new(PLACES),
            silence: Silence::new(PLACES),
            view: ArcSwap::default(),
            turn: AtomicU64::new(0),
            started: Instant::now(),
            is_worth_judging: AtomicBool::new(false),
        }
    }

    /// Whether anything may come of judging a text: reads may go to replicas, and there is one, or its absence matters.
    #[inline]
    pub fn is_worth_judging(&self) -> bool {
        self.is_worth_judging.load(Ordering::Relaxed)
    }

    pub fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    #[inline]
    pub fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// A replica to read from, of those that may serve this session.
    pub fn choose(&self, wanted: Wanted<'_>) -> Choice {
        let view = self.view.load();
        if !view.has_any {
            return Choice::None;
        }
        let settings = self.settings.load();
        let is_free = matches!(wanted.consistency, Consistency::Eventual | Consistency::Bounded);
        wanted.freshness.settle(&view, self);
        if let Some(token) = wanted.token.filter(|_| !is_free) {
            wanted.freshness.raise(token, self);
        }
        let mut candidates: SmallVec<[Candidate; 8]> = SmallVec::new();
        let mut is_stale = false;
        for (index, reader) in view.nodes.iter().enumerate() {
            if reader.state.is_err() || wanted.avoid == Some(index) {
                continue;
            }
            let covers = |floor| eligible::covers(reader.timeline, self.positions.latest(index).lsn, floor);
            // A token counts at any level.
            let fresh = match is_free {
                true => wanted.token.is_none_or(covers),
                false => wanted.freshness.allows(index, &view, self),
            };
            if !fresh {
                is_stale = true;
                continue;
            }
            candidates.push(Candidate {
                index,
                weight: reader.weight,
                ramp: reader.ramp,
                in_use: reader.load.in_use.load(Ordering::Relaxed),
                served: reader.load.served.load(Ordering::Relaxed),
                latency_us: reader.load.latency_us(),
                name_hash: reader.name_hash,
                is_near: reader.is_near,
            });
        }
        if is_stale {
            // So that it may be among the candidates soon.
            self.hurry(wanted.freshness);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match balance::choose(settings.balance, &candidates, turn, random(), wanted.key) {
            Some(index) => {
                let reader = &view.nodes[index];
                reader.load.served.fetch_add(balance::charge(reader.ramp), Ordering::Relaxed);
                Choice::Node(index)
            }
            None if is_stale => Choice::NotFresh,
            None => Choice::None,
        }
    }

    /// Has the nodes asked at once that a session with this freshness waits for.
    pub fn hurry(&self, freshness: &Freshness) {
        let view = self.view.load();
        if let Some(node) = freshness.unsettled(&view) {
            self.positions.want(node);
        }
        for (index, reader) in view.nodes.iter().enumerate() {
            if reader.state.is_ok() {
                self.positions.want(index);
            }
        }
    }

    /// Why each node may not serve a session that needs this much; `None` for those that may.
    pub fn reasons(
        &self,
        freshness: &mut Freshness,
        is_free: bool,
        token: Option<Floor>,
    ) -> Vec<(String, Option<String>)> {
        let view = self.view.load();
        freshness.settle(&view, self);
        let floor = if is_free { token } else { freshness.floor.max(token) };
        let reason = |(index, reader): (usize, &Reader)| {
            let reason = match (&reader.state, floor, freshness.unsettled(&view)) {
                (Err(reason), ..) => Some(reason.to_string()),
                (Ok(()), _, Some(other)) if !is_free && other != index => {
                    let other = view.nodes.get(other).map_or(String::new(), |other| other.address.id.to_string());
                    Some(format!("the session was on {other} a moment ago, whose position then is not known yet"))
                }
                (Ok(()), Some(floor), _) => {
                    let replayed = self.positions.latest(index).lsn;
                    let behind = Ineligible::Behind { timeline: reader.timeline, replayed, floor };
                    (!eligible::covers(reader.timeline, replayed, floor)).then(|| behind.to_string())
                }
                (Ok(()), ..) => None,
            };
            (reader.address.id.to_string(), reason)
        };
        let present = view.nodes.iter().enumerate().filter(|(_, reader)| reader.is_present());
        present.map(reason).collect()
    }

    /// A replica did not do what it was asked to: a connection that could not be opened or broke.
    pub fn failed(&self, node: usize) {
        let view = self.view.load();
        let replicas = view
            .nodes
            .iter()
            .filter(|reader| !matches!(reader.state, Err(Ineligible::Primary | Ineligible::Removed)))
            .count();
        let most_out = outlier::most_out(replicas, self.settings.load().fallback);
        if let Some(until) = self.outliers.failed(node, self.now(), most_out)
            && let Some(reader) = view.nodes.get(node)
        {
            let seconds = until.0.saturating_sub(self.now().0) / 1000;
            tracing::warn!(node = %reader.address.id, seconds, "replica fails again and again; it gets no reads for a while");
        }
    }

    /// Judges all nodes anew. Called by the control plane alone.
    pub fn refresh(&self, topology: &Topology, ring: &mut LagRing, pools: &Pools) {
        let settings = self.settings.load();
        let before = self.view.load();
        let now = self.now();
        let primary = topology.primary();
        if let (Some(at), Some(view)) = (topology.primary, primary) {
            let position = self.positions.latest(at);
            if position.is_known() && !position.is_in_recovery {
                ring.push(now, view.timeline, position.lsn);
            }
        }
        let facts =
            primary.map(|view| PrimaryFacts { system_identifier: view.system_identifier, timeline: view.timeline });
        let zones_are_set = !settings.zone.is_empty();
        let mut nodes = Vec::with_capacity(topology.nodes.len());
        for (index, view) in topology.nodes.iter().enumerate() {
            let known = before.nodes.get(index);
            let (zone, weight) = settings.nodes.get(&view.address.id).cloned().unwrap_or((String::new(), 0));
            let position = self.positions.latest(index);
            let is_known = position.is_known() && position.is_in_recovery;
            let lag = if is_known { ring.lag(now, view.timeline, position.lsn) } else { Lag::default() };
            let sight = Sight {
                // One whose position nobody knows is as good as silent.
                role: if view.role == Role::Replica && !is_known { Role::Unknown } else { view.role },
                reason: if view.reason.is_empty() { "its position is not known yet" } else { &view.reason },
                system_identifier: view.system_identifier,
                timeline: view.timeline,
                lag,
                ejected_until: self.outliers.is_ejected(index, now),
                weight,
                is_in_maintenance: view.is_in_maintenance,
                was_lagging: known.is_some_and(|known| matches!(&known.state, Err(reason) if reason.is_lag())),
            };
            let mut state = eligible::eligible(&sight, &settings.limits, facts, now);
            if topology.primary == Some(index) {
                state = Err(Ineligible::Primary);
            }
            if view.is_removed {
                state = Err(Ineligible::Removed);
            }
            // It was stopped, and is back: what failed before failed for that.
            if view.role == Role::Replica
                && known.is_some_and(|known| matches!(known.state, Err(Ineligible::Down { .. })))
            {
                self.outliers.forget(index);
            }
            // Sessions may still be reading from one that was removed.
            let load = match known.filter(|_| view.is_removed) {
                Some(known) => known.load.clone(),
                None => pools.load(&view.address),
            };
            let was_eligible = known.is_some_and(|known| known.state.is_ok());
            let since = match (state.is_ok(), was_eligible, known) {
                (true, true, Some(known)) => known.since,
                _ => now,
            };
            if state.is_ok() && !was_eligible {
                let others =
                    before.nodes.iter().enumerate().filter(|(other, node)| *other != index && node.state.is_ok());
                let others: Vec<(u64, u32)> =
                    others.map(|(_, node)| (node.load.served.load(Ordering::Relaxed), node.weight)).collect();
                load.served.store(balance::rejoin_served(weight, &others), Ordering::Relaxed);
            }
            tell(known, &state, &view.address);
            // One that was there from the start has nothing to warm up for.
            let is_first = before.nodes.is_empty() || !before.has_any;
            let ramp = match is_first || since.0 == 0 {
                true => 1.0,
                false => balance::ramp(Millis(now.0 - since.0), settings.slow_start),
            };
            let since = if is_first { Millis(0) } else { since };
            nodes.push(Reader {
                address: Arc::new(view.address.clone()),
                weight,
                is_near: !zones_are_set || zone == settings.zone,
                timeline: view.timeline,
                lag,
                is_measured: is_known && view.role == Role::Replica,
                state,
                since,
                load,
                name_hash: balance::stable_hash(view.address.id.0.as_bytes()),
                ramp,
            });
        }
        let has_any = nodes.iter().any(|reader| reader.state.is_ok());
        let judges = settings.is_enabled && (has_any || settings.fallback != Fallback::Primary);
        self.is_worth_judging.store(judges, Ordering::Relaxed);
        let changes = before.has_begun && topology.primary != before.primary;
        self.view.store(Arc::new(View {
            changed: if changes { Some(now) } else { before.changed },
            has_begun: before.has_begun || topology.primary.is_some(),
            version: topology.version,
            primary: topology.primary,
            timeline: primary.map_or(before.timeline, |view| view.timeline),
            nodes,
            has_any,
        }));
    }
}

/// One line for each node that begins or stops to serve reads.
fn tell(before: Option<&Reader>, now: &Result<(), Ineligible>, address: &NodeAddress) {
    let was = before.map(|reader| &reader.state);
    match (was, now) {
        (Some(Ok(())), Err(reason)) => tracing::info!(node = %address.id, %reason, "replica gets no more reads"),
        (Some(Err(_)) | None, Ok(())) => tracing::info!(node = %address.id, "replica gets reads"),
        _ => {}
    }
}
