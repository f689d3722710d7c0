//! Sessions that are a standby's, as they arrive by `proxy.listen_read_only`: how one is greeted, how it finds a replica, and what
//! it hears when it loses one or there is none. Nothing in here ever asks for the primary.

use std::io;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::time::{Instant, timeout};

use super::clients::Activity;
use super::hold::may_pass;
use super::readers::{Choice, Freshness, Readers, Wanted};
use super::shared::Shared;
use super::silent::Ground;
use super::taking::{ATTEMPTS, ESCAPE_WAIT, Pick, in_words};
use super::{Greeting, Newcomer, Refusal, Session};
use crate::pool::{AcquireError, Lease, PoolKey};
use crate::route::Consistency;
use crate::route::eligible::Floor;
use crate::sql::Pin;
use crate::types::Millis;
use crate::wire::message::Problem;

/// How often it is looked whether a replica may serve that has not said anything new.
const LOOK: Duration = Duration::from_millis(10);

/// How long such a session waits for a replica: `reads.wait`, and as long as statements wait for a primary
/// (`failover.hold`) while that is being replaced, since the replicas are on their way to the next one then.
struct Patience {
    begun: Instant,
}

impl Patience {
    fn new() -> Patience {
        Patience { begun: Instant::now() }
    }

    fn is_over(&self, shared: &Shared) -> bool {
        let (wait, hold) = (shared.readers.settings.load().wait, shared.settings.load().hold);
        let limit = if is_unsettled(&shared.readers, hold) { wait.max(hold) } else { wait };
        self.begun.elapsed() >= limit
    }
}

/// Whether there is no primary, or has been one for less than this.
fn is_unsettled(readers: &Readers, limit: Duration) -> bool {
    let view = readers.view();
    let Some(changed) = view.changed else { return view.primary.is_none() };
    let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    view.primary.is_none() || readers.now() < Millis(changed.0.saturating_add(limit))
}

/// Waits for the next answer of a replica that may serve reads, or for so long that one may have come back.
async fn look_again(readers: &Readers) {
    let view = readers.view().clone();
    let able = view.nodes.iter().enumerate().filter(|(_, reader)| reader.state.is_ok());
    let next: Vec<_> = able.map(|(node, _)| Box::pin(readers.positions.next(node))).collect();
    match next.is_empty() {
        true => tokio::time::sleep(LOOK).await,
        // Whoever answers first; who does not in time is asked again.
        false => drop(timeout(LOOK, select_all(next)).await),
    }
}

pub(super) fn no_replication() -> Problem {
    Problem::new("0A000", "replication connections are not served here")
        .hint("Connect to an address of proxy.listen, or to the node itself.")
}

/// What a new client is told: by a replica, as if it had connected to that.
pub(super) async fn greet(shared: &Shared, newcomer: Newcomer<'_>) -> Result<Greeting, Refusal> {
    let patience = Patience::new();
    let mut avoid = None;
    let mut attempts = 0;
    let mut last = String::new();
    loop {
        let mut nothing_seen = Freshness::default();
        let wanted = Wanted {
            consistency: Consistency::Eventual,
            freshness: &mut nothing_seen,
            key: 0,
            avoid: avoid.take(),
            token: None,
        };
        let address = match shared.readers.choose(wanted) {
            Choice::Node(node) => {
                let view = shared.readers.view();
                view.nodes.get(node).map(|reader| (node, reader.address.clone()))
            }
            Choice::NotFresh | Choice::None => None,
        };
        let Some((node, address)) = address else {
            if patience.is_over(shared) {
                let mut reasons = in_words(&shared.readers.reasons(&mut nothing_seen, true, None));
                reasons.push_str(&last);
                return Err(Refusal::Ours(no_replica(reasons)));
            }
            look_again(&shared.readers).await;
            continue;
        };
        let (user, database) = (newcomer.user.clone(), newcomer.database.name.clone());
        let pool = shared.pools.get(&PoolKey { node: address.id.clone(), database, user }, &address);
        if let Some(known) = newcomer.known_at(&pool) {
            return Ok(known);
        }
        let want = newcomer.want();
        let got = tokio::select! {
            biased;
            _ = shared.lost(Ground::Replica(shared.readers.silence.footing(node))) => {
                avoid = Some(node);
                continue;
            }
            got = pool.acquire(&want) => got,
        };
        match got {
            Ok(lease) => return Ok(newcomer.greeted_by(lease)),
            Err(error) => {
                note_failure(shared, node, &error);
                last = format!(" Last tried: {error}.");
                if !passes(&error, &mut attempts) || patience.is_over(shared) {
                    return Err(error.into());
                }
                avoid = Some(node);
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

fn note_failure(shared: &Shared, node: usize, error: &AcquireError) {
    if matches!(error, AcquireError::Connect(_)) {
        shared.readers.failed(node);
        shared.look_now.notify_one();
    }
}

/// Whether another replica is worth a try. One that has no room was waited for already; what a server says against the login
/// the others will hardly see otherwise.
fn passes(error: &AcquireError, attempts: &mut usize) -> bool {
    *attempts += usize::from(!may_pass(error));
    !matches!(error, AcquireError::Exhausted { .. } | AcquireError::Crowded { .. }) && *attempts < ATTEMPTS
}

/// The error of a session that only a replica may serve when there is none.
fn no_replica(detail: String) -> Problem {
    Problem::new("57P03", "no replica may serve this read-only session")
        .detail(detail)
        .hint("Sessions of proxy.listen_read_only are never served by the primary; how long they wait is reads.wait.")
}

impl Session {
    /// A connection to a replica that may serve this session, however long its patience lasts.
    pub(super) async fn lease_as_standby(&mut self) -> Result<Lease, Refusal> {
        let patience = Patience::new();
        let mut attempts = 0;
        loop {
            let node = match self.picked.take() {
                Some(node) => node,
                None => match self.pick() {
                    Pick::Replica(node) => node,
                    Pick::Primary(_) | Pick::Later => self.wait_as_standby(&patience).await?,
                },
            };
            match self.lease_at(node).await {
                Ok(lease) => return Ok(lease),
                Err(Some(error)) if !passes(&error, &mut attempts) => return Err(error.into()),
                // That it cannot be reached is known to the control plane a little later.
                Err(Some(error)) if patience.is_over(&self.shared) => return Err(error.into()),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Waits for a replica that may serve this session now.
    async fn wait_as_standby(&mut self, patience: &Patience) -> Result<usize, Refusal> {
        let shared = self.shared.clone();
        let readers = &shared.readers;
        let consistency = self.consistency();
        if consistency == Consistency::Strong {
            self.ask_primary(patience).await?;
        } else if let Some(node) = self.freshness.stays_on() {
            // If it does not answer, the session stays there as before.
            let _ = timeout(ESCAPE_WAIT, readers.positions.next(node)).await;
        }
        self.changed = None;
        loop {
            if let Choice::Node(node) = self.choose(consistency) {
                return Ok(node);
            }
            if patience.is_over(&shared) {
                return Err(Refusal::Ours(no_replica(self.why_no_replica())));
            }
            readers.hurry(&self.freshness);
            look_again(readers).await;
        }
    }

    /// What anybody has committed until now lies at or before what the primary says from now on.
    async fn ask_primary(&mut self, patience: &Patience) -> Result<(), Refusal> {
        let shared = self.shared.clone();
        loop {
            let view = shared.readers.view().clone();
            match view.primary {
                None => tokio::time::sleep(LOOK).await,
                Some(primary) => {
                    let answer = timeout(super::showing::LSN_WAIT, shared.readers.positions.next(primary)).await;
                    // What was asked of one that is no primary any more says nothing.
                    if let Ok(position) = answer
                        && !position.is_in_recovery
                        && shared.readers.view().version == view.version
                    {
                        self.freshness.raise(Floor { timeline: view.timeline, lsn: position.lsn }, &shared.readers);
                        return Ok(());
                    }
                }
            }
            if patience.is_over(&shared) {
                let detail = "There is no primary to ask how far it is, which consistency \"strong\" takes.";
                return Err(Refusal::Ours(no_replica(detail.to_owned())));
            }
        }
    }

    fn why_no_replica(&mut self) -> String {
        let is_free = matches!(self.consistency(), Consistency::Eventual | Consistency::Bounded);
        let token = self.token();
        in_words(&self.shared.readers.reasons(&mut self.freshness, is_free, token))
    }

    /// The node this session rests on has become the primary: between transactions it is left, with all that was kept there.
    pub(super) fn outgrown(&self) -> Option<io::Error> {
        let rests = self.lease.is_some() && self.machine.is_at_rest() && self.to_server.is_empty();
        let is_primary = rests && self.shared.readers.view().primary == Some(self.place);
        is_primary.then(|| io::Error::new(io::ErrorKind::ConnectionAborted, "the node is the primary now"))
    }

    /// The replica is lost while the session had a connection there, and what was under way cannot be asked again. False if the
    /// session is over.
    pub(super) fn lose_replica(&mut self, error: &io::Error) -> bool {
        let lost = self.lose_pins();
        if !lost.is_empty() {
            let names: Vec<_> = lost.iter().map(Pin::as_str).collect();
            self.farewell(
                &Problem::new("57P01", "terminating connection: the replica it was tied to is gone")
                    .detail(format!("Lost with it: {}. {error}", names.join(", "))),
            );
            return false;
        }
        let problem = Problem::new("40001", "the replica that was answering is gone")
            .detail(error.to_string())
            .hint("Run the statement, or its transaction, again.");
        self.machine.answer_lost(&problem, &mut self.to_client);
        self.stalled = !self.from_client.is_empty();
        true
    }

    /// It was asked of one replica after another, and none could answer.
    pub(super) fn refuse_to_heal(&mut self, sqlstate: &str) -> bool {
        self.heals = 0;
        self.me.client.set_activity(Activity::Idle);
        let mut problem = Problem::new("40001", "no replica could answer the statement").hint("Run it again.");
        if !sqlstate.is_empty() {
            problem = problem.detail(format!("The last one gave {sqlstate}."));
        }
        self.refuse(&problem)
    }
}
