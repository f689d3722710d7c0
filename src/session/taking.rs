//! Finding a server connection for what the client wants next, and making it look like the one the session had before.
//!
//! The quick way happens within a poll: choose a node, take an idle connection. Everything that may wait (opening one,
//! standing in line, settings to be made, `strong` reads, waiting for a replica) takes the other way.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_all;
use tokio::time::{Instant, timeout, timeout_at};

use super::clients::{Activity, Wish};
use super::hold::{READ_AHEAD, Wait, may_pass, while_connected};
use super::machine::plan::{Demand, Why};
use super::machine::{self};
use super::readers::{Choice, Wanted};
use super::shared::Route;
use super::silent::Ground;
use super::{Refusal, Session, lost_transaction};
use crate::net::Stream;
use crate::pool::connect::ConnectError;
use crate::pool::server::Exchange;
use crate::pool::{AcquireError, Lease, Pool, PoolKey, Want};
use crate::route::eligible::Floor;
use crate::route::{Consistency, Fallback, HashBy, Target, balance};
use crate::sql::Pin;
use crate::wire::message::Problem;
use std::sync::Arc;

/// How long a statement of our own (SET, PREPARE, a probe) may take on a server connection.
pub(super) const OWN_STATEMENT: Duration = Duration::from_secs(30);

/// How often a connection that turns out to be broken is replaced before the client hears of it.
pub(super) const ATTEMPTS: usize = 4;

/// Puts a connection into a failed transaction block: the second statement always fails.
pub(super) const FAILED_BLOCK: [&[u8]; 2] = [b"BEGIN", b"ROLLBACK TO SAVEPOINT pgbaton"];

/// How long a `strong` read waits for a replica to have what the primary had: longer than a replica needs that is up to
/// date, shorter than anybody would notice.
const STRONG_WAIT: Duration = Duration::from_millis(50);

/// A session that reads on the primary without a pause, because it has seen there what no replica has yet, would do so for
/// ever. After so long one of its reads waits for a replica, for [`ESCAPE_WAIT`] at most; if in vain, the next does after
/// twice as long, and so on up to [`ESCAPE_LAST`].
const ESCAPE_FIRST: Duration = Duration::from_millis(100);
const ESCAPE_LAST: Duration = Duration::from_secs(10);
pub(super) const ESCAPE_WAIT: Duration = Duration::from_millis(20);

/// A session that reads from one replica without a pause stays there, since how far that is is known only a little later. So
/// often it asks first, so that reads spread as they should.
const CHANGE: Duration = Duration::from_millis(250);

/// Since when a session's reads have gone to the primary for want of a fresh replica, and for how long they may.
#[derive(Debug)]
pub(super) struct Stuck {
    since: Instant,
    patience: Duration,
}

/// Where a read goes.
pub(super) enum Pick {
    Replica(usize),
    Primary(Why),
    /// It has to wait.
    Later,
}

impl Session {
    pub(super) fn want<'a>(&'a self, on_replica: bool) -> Want<'a> {
        Want {
            session: self.me.client.id,
            worker: self.me.client.worker,
            startup: &self.startup,
            application_name: self.machine.parameters().get("application_name").unwrap_or(""),
            credential: &self.credential,
            told: on_replica.then_some(&*self.told),
        }
    }

    /// The quick way to a server connection: an idle one that already has what this session needs.
    pub(super) fn take_server_at_once(&mut self) -> bool {
        if self.database.facts.is_dirty() && !self.machine.is_standby() || self.machine.status() != machine::Tx::Idle {
            return false;
        }
        self.picked = None;
        if let Demand::Replica(_) = self.machine.demand() {
            match self.pick() {
                Pick::Replica(node) => {
                    let Some(pool) = self.reader_pool(node) else { return false };
                    self.turn_to(node);
                    let Some(lease) = pool.take_idle(&self.want(true)) else {
                        self.picked = Some(node);
                        return false;
                    };
                    self.place = node;
                    return self.use_lease(lease, true);
                }
                Pick::Primary(why) => self.machine.demand_primary(why),
                Pick::Later => return false,
            }
        }
        // A pass of another generation, or none: see `lease_from_primary`.
        if self.me.client.pass() != self.shared.gate.generation() {
            return false;
        }
        if let Some(lease) = self.aside.take() {
            self.place = self.primary_at;
            return self.use_lease(lease, false);
        }
        let Some(pool) = &self.pool else { return false };
        if pool.is_retired() {
            return false;
        }
        let Some(lease) = pool.take_idle(&self.want(false)) else { return false };
        self.place = self.primary_at;
        self.use_lease(lease, false)
    }

    /// Attaches a connection if that needs no statement of our own; else keeps it for [`take_server`](Self::take_server).
    fn use_lease(&mut self, mut lease: Lease, on_replica: bool) -> bool {
        let ready = self.machine.steps_to_attach(&lease.server().memory).is_empty();
        if ready {
            self.attach(&mut lease, on_replica);
            self.lease = Some(lease);
        } else {
            self.half_taken = Some(Box::new((lease, on_replica)));
        }
        ready
    }

    pub(super) fn attach(&mut self, lease: &mut Lease, on_replica: bool) {
        let server = lease.server();
        self.machine.attach(&mut server.memory, server.identity.pid, on_replica, &mut self.to_client);
        self.me.client.set_server(Some(server.identity.clone()));
        self.me.client.set_activity(Activity::Active);
        self.sent.clear();
        self.taken = None;
        if on_replica && self.measures_latency {
            self.taken = Some(Instant::now());
        }
        let why = match self.machine.demand() {
            Demand::Primary(why) | Demand::Replica(why) => why,
        };
        self.previous = self.present.replace((self.place, self.machine.demand()));
        self.me.client.tally.assign();
        self.shared.routes.count(self.me.client.worker, Route { class: self.machine.class(), on_replica, why });
    }

    /// The other way: wait for a node and a connection, and bring the connection to this session's state. Returns false
    /// if the session is over.
    pub(super) async fn take_server(&mut self) -> bool {
        if self.machine.takes_lost_block(&self.from_client) {
            return self.refuse(&lost_transaction());
        }
        let me = self.me.client.clone();
        // A cancel that came when an earlier wait was just over is not for this statement.
        let _ = me.cancelled.notified().now_or_never();
        me.set_activity(Activity::Waiting);
        let since = me.clock_us();
        me.set_waits_since(since);
        let mut stream = std::mem::replace(&mut self.stream, Stream::Closed);
        let mut ahead = Vec::new();
        let found = while_connected(&me, &mut stream, &mut ahead, async {
            tokio::select! {
                biased;
                () = me.cancelled.notified() => None,
                result = self.find_server_while_open() => Some(result),
            }
        })
        .await;
        self.stream = stream;
        me.set_waits_since(0);
        self.me.client.tally.wait(me.clock_us() - since);
        self.me.client.tally.receive(ahead.len());
        self.from_client.append(&mut ahead);
        let Some(found) = found else {
            self.half_taken = None;
            if me.wish() == Wish::Kill {
                self.farewell(&Problem::new("57P01", "terminating connection due to administrator command"));
            }
            return false;
        };
        let result = found.unwrap_or_else(|| {
            self.half_taken = None;
            Err(Refusal::Ours(Problem::new("57014", "canceling statement due to user request")))
        });
        match result {
            Ok((mut lease, on_replica)) => {
                self.attach(&mut lease, on_replica);
                self.lease = Some(lease);
                self.stalled = true;
                true
            }
            Err(refusal) => {
                self.me.client.set_activity(Activity::Idle);
                self.refuse(&refusal.problem())
            }
        }
    }

    /// What was held of a primary that is given up meanwhile is let go of at once, whatever else there is to wait for.
    async fn find_server_while_open(&mut self) -> Result<(Lease, bool), Refusal> {
        let shared = self.shared.clone();
        loop {
            let pass = self.me.client.pass();
            let drains = shared.gate.drains(pass);
            tokio::select! {
                biased;
                () = shared.gate.gave_up(pass), if pass != 0 => self.release_pass(),
                // What was seen of the drain before is let be.
                () = shared.gate.left(pass), if pass != 0 && !drains => self.release_pass(),
                found = self.find_server() => return found,
            }
        }
    }

    async fn find_server(&mut self) -> Result<(Lease, bool), Refusal> {
        // Clients of a database whose functions just changed wait for the new facts, so that DDL passing here is
        // known to everyone before its author is told it is done.
        if !self.machine.is_standby() {
            self.database.facts.refreshed().await;
        }
        let before = self.machine.demand();
        self.replan();
        if self.machine.demand() != before {
            self.picked = None;
        }
        if matches!(self.machine.demand(), Demand::Primary(_)) && self.half_taken.as_ref().is_some_and(|taken| taken.1)
        {
            self.half_taken = None;
        }
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let (mut lease, on_replica) = match self.half_taken.take() {
                Some(taken) => *taken,
                None => self.lease_somewhere().await?,
            };
            let steps = self.machine.steps_to_attach(&lease.server().memory);
            let ground = self.ground(on_replica);
            let shared = self.shared.clone();
            let restored = match steps.is_empty() {
                true => Ok(Vec::new()),
                false => shared.during(ground, lease.server().run(&steps, OWN_STATEMENT)).await,
            };
            match restored {
                Ok(_) => {
                    lease.server().memory.image = self.machine.image().clone();
                    if self.machine.status() == machine::Tx::Idle {
                        return Ok((lease, on_replica));
                    }
                    // A block whose server was lost goes on as what it is: failed, until the client ends it.
                    let failed = FAILED_BLOCK.map(<[u8]>::to_vec);
                    match shared.during(ground, lease.server().run(&failed, OWN_STATEMENT)).await {
                        Ok(_) | Err(Exchange::Refused(_)) => return Ok((lease, on_replica)),
                        Err(error) => last = Some(error),
                    }
                }
                // What was prepared or set on the primary may not be possible there, or not yet.
                Err(Exchange::Refused(_)) if on_replica && !self.machine.is_standby() => {
                    self.machine.demand_primary(Why::SessionState)
                }
                // The connection is dropped with whatever part of the settings it took.
                Err(Exchange::Refused(body)) => {
                    let field = |tag| {
                        crate::wire::fields::error_field(&body, tag)
                            .map(|text| String::from_utf8_lossy(text).into_owned())
                    };
                    let text = field(b'M').unwrap_or_default();
                    return Err(Refusal::Ours(
                        Problem::new(
                            "08006",
                            format!("could not restore the session on another server connection: {text}"),
                        )
                        .hint("RESET ALL or DEALLOCATE what can no longer be set."),
                    ));
                }
                Err(error) => {
                    if on_replica {
                        self.shared.readers.failed(self.place);
                        self.avoid = Some(self.place);
                    }
                    last = Some(error);
                }
            }
        }
        let reason = last.map(|error| error.to_string()).unwrap_or_default();
        Err(Refusal::Ours(Problem::new("08006", format!("could not prepare a server connection: {reason}"))))
    }

    /// A connection to where the client's next statement may run.
    async fn lease_somewhere(&mut self) -> Result<(Lease, bool), Refusal> {
        if self.machine.is_standby() {
            return self.lease_as_standby().await.map(|lease| (lease, true));
        }
        if matches!(self.machine.demand(), Demand::Replica(_))
            && let Some(lease) = self.lease_from_replica().await?
        {
            return Ok((lease, true));
        }
        if self.me.client.pass() == self.shared.gate.generation()
            && let Some(lease) = self.aside.take()
        {
            self.place = self.primary_at;
            return Ok((lease, false));
        }
        self.lease_from_primary().await.map(|lease| (lease, false))
    }

    /// A connection to a replica that may serve this session; `None` if it is to be the primary after all.
    pub(super) async fn lease_from_replica(&mut self) -> Result<Option<Lease>, Refusal> {
        let settings = self.shared.readers.settings.load_full();
        let mut deadline = None;
        for _ in 0..ATTEMPTS {
            let node = match self.picked.take() {
                Some(node) => node,
                None => match self.pick() {
                    Pick::Replica(node) => node,
                    Pick::Primary(why) => {
                        self.machine.demand_primary(why);
                        return Ok(None);
                    }
                    Pick::Later => match self.wait_for_replica(&settings, &mut deadline).await? {
                        Some(node) => node,
                        None => return Ok(None),
                    },
                },
            };
            if let Ok(lease) = self.lease_at(node).await {
                return Ok(Some(lease));
            }
        }
        self.machine.demand_primary(Why::NoReplica);
        Ok(None)
    }

    /// A connection to this replica, which is avoided next time if there is none; why there is none, if that is known.
    pub(super) async fn lease_at(&mut self, node: usize) -> Result<Lease, Option<AcquireError>> {
        let Some(pool) = self.reader_pool(node) else {
            // Removed since it was chosen.
            self.avoid = Some(node);
            return Err(None);
        };
        let ground = Ground::Replica(self.turn_to(node));
        let want = self.want(true);
        let got = tokio::select! {
            biased;
            error = self.shared.lost(ground) => {
                tracing::debug!(node = %pool.key.node, %error, "no connection to a replica");
                self.avoid = Some(node);
                return Err(None);
            }
            got = pool.acquire(&want) => got,
        };
        match got {
            Ok(lease) => {
                self.place = node;
                Ok(lease)
            }
            Err(AcquireError::Connect(ConnectError::Server { sqlstate, .. }))
                if sqlstate == "28P01" && self.take_newer_credential() =>
            {
                Err(None)
            }
            Err(error) => {
                tracing::debug!(node = %pool.key.node, %error, "no connection to a replica");
                if matches!(error, AcquireError::Connect(_)) {
                    self.shared.readers.failed(node);
                    self.shared.look_now.notify_one();
                }
                self.avoid = Some(node);
                Err(Some(error))
            }
        }
    }

    /// Where the read goes that the machine wants to send to a replica.
    pub(super) fn pick(&mut self) -> Pick {
        let target = self.wish(|wishes| wishes.target);
        let choice = match self.consistency() {
            Consistency::Strong => return Pick::Later,
            Consistency::Session if self.is_due_for_change() => return Pick::Later,
            consistency => self.choose(consistency),
        };
        let fallback = match self.machine.is_standby() {
            true => Fallback::Wait,
            false => self.shared.readers.settings.load().fallback,
        };
        match choice {
            Choice::Node(node) => {
                self.stuck = None;
                Pick::Replica(node)
            }
            Choice::NotFresh if fallback != Fallback::Primary || target == Target::Replica => Pick::Later,
            Choice::NotFresh => {
                let now = Instant::now();
                let stuck = self.stuck.get_or_insert_with(|| Box::new(Stuck { since: now, patience: ESCAPE_FIRST }));
                match now - stuck.since > stuck.patience {
                    true => Pick::Later,
                    false => Pick::Primary(Why::NotFresh),
                }
            }
            Choice::None if fallback != Fallback::Primary => Pick::Later,
            Choice::None => Pick::Primary(Why::NoReplica),
        }
    }

    /// Whether it is time to look whether another replica should serve this session.
    fn is_due_for_change(&mut self) -> bool {
        if self.freshness.stays_on().is_none() {
            self.changed = None;
            return false;
        }
        let now = Instant::now();
        now.duration_since(*self.changed.get_or_insert(now)) > CHANGE
    }

    pub(super) fn choose(&mut self, consistency: Consistency) -> Choice {
        let token = self.token();
        let key = self.balance_key();
        let avoid = self.avoid.take();
        self.shared.readers.choose(Wanted { consistency, freshness: &mut self.freshness, key, avoid, token })
    }

    pub(super) fn consistency(&self) -> Consistency {
        let asked = self.wish(|wishes| wishes.consistency);
        asked.unwrap_or_else(|| self.shared.readers.settings.load().consistency)
    }

    /// What the session was told to have seen.
    pub(super) fn token(&self) -> Option<Floor> {
        self.wish(|wishes| wishes.min_lsn).map(|(timeline, lsn)| Floor {
            timeline: timeline.unwrap_or_else(|| self.shared.readers.view().timeline),
            lsn,
        })
    }

    fn balance_key(&self) -> u64 {
        let settings = self.shared.readers.settings.load();
        if settings.balance != balance::Strategy::ConsistentHash {
            return 0;
        }
        match settings.hash_by {
            HashBy::User => balance::stable_hash(self.me.client.user.as_bytes()),
            HashBy::Database => balance::stable_hash(self.me.client.database.as_bytes()),
            HashBy::Application => {
                balance::stable_hash(self.machine.parameters().get("application_name").unwrap_or("").as_bytes())
            }
            HashBy::Key => self.wish(|wishes| balance::stable_hash(wishes.key.as_deref().unwrap_or("").as_bytes())),
        }
    }

    /// Waits for a replica as `strong` and `fallback` ask for it.
    async fn wait_for_replica(
        &mut self,
        settings: &super::readers::ReadSettings,
        deadline: &mut Option<Instant>,
    ) -> Result<Option<usize>, Refusal> {
        let shared = self.shared.clone();
        let readers = &shared.readers;
        let consistency = self.consistency();
        let is_strong = consistency == Consistency::Strong;
        let waits = settings.fallback == Fallback::Wait || self.wish(|wishes| wishes.target) == Target::Replica;
        if is_strong {
            // What anybody has committed until now lies at or before what the primary says from now on.
            let view = readers.view().clone();
            let Some(primary) = view.primary else {
                self.machine.demand_primary(Why::NotFresh);
                return Ok(None);
            };
            let Ok(position) = timeout(Duration::from_secs(1), readers.positions.next(primary)).await else {
                self.machine.demand_primary(Why::NotFresh);
                return Ok(None);
            };
            self.freshness.raise(Floor { timeline: view.timeline, lsn: position.lsn }, &shared.readers);
        }
        let escapes = !is_strong && !waits && settings.fallback == Fallback::Primary;
        if let Some(node) = self.freshness.stays_on().filter(|_| !is_strong) {
            // If it does not answer, the session stays there as before.
            let _ = timeout(ESCAPE_WAIT, readers.positions.next(node)).await;
            self.changed = None;
        }
        let limit = match () {
            () if waits => settings.wait,
            () if escapes => ESCAPE_WAIT,
            () => STRONG_WAIT,
        };
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
        let mut is_first = true;
        loop {
            let choice = self.choose(consistency);
            let why = match choice {
                Choice::Node(node) => {
                    self.stuck = None;
                    return Ok(Some(node));
                }
                Choice::NotFresh => Why::NotFresh,
                Choice::None => Why::NoReplica,
            };
            let gives_up = match (settings.fallback, why) {
                (Fallback::Error, _) if !is_strong || Instant::now() >= deadline => true,
                (Fallback::Wait, _) => Instant::now() >= deadline,
                // The primary has everything at once.
                (_, Why::NoReplica) => true,
                _ => Instant::now() >= deadline,
            };
            if gives_up {
                if let Some(stuck) = &mut self.stuck {
                    stuck.since = Instant::now();
                    stuck.patience = (stuck.patience * 2).min(ESCAPE_LAST);
                }
                if settings.fallback == Fallback::Error {
                    return Err(Refusal::Ours(self.no_replica()));
                }
                self.machine.demand_primary(why);
                return Ok(None);
            }
            let view = readers.view().clone();
            let able = view.nodes.iter().enumerate().filter(|(_, reader)| reader.state.is_ok());
            let next: Vec<_> = able.map(|(node, _)| Box::pin(readers.positions.next(node))).collect();
            readers.hurry(&self.freshness);
            if next.is_empty() || !is_first && waits {
                // A replica that is to come back does so within a few looks of the control plane.
                tokio::time::sleep(Duration::from_millis(10)).await;
            } else {
                let _ = timeout_at(deadline, select_all(next)).await;
            }
            is_first = false;
        }
    }

    /// The error of a read that no replica may serve where the primary is not to.
    fn no_replica(&mut self) -> Problem {
        let is_free = matches!(self.consistency(), Consistency::Eventual | Consistency::Bounded);
        let token = self.token();
        let reasons = self.shared.readers.reasons(&mut self.freshness, is_free, token);
        Problem::new("57P03", "no replica may serve this read")
            .detail(in_words(&reasons))
            .hint("reads.fallback decides what happens then: primary, wait or error.")
    }

    /// The pool of a replica for this session.
    fn reader_pool(&mut self, node: usize) -> Option<Arc<Pool>> {
        if let Some(Some(pool)) = self.reader_pools.get(node)
            && !pool.is_retired()
        {
            return Some(pool.clone());
        }
        let view = self.shared.readers.view();
        let address = view.nodes.get(node).filter(|reader| reader.is_present())?.address.clone();
        let (database, user) = (self.me.client.database.clone(), self.me.client.user.clone());
        let key = PoolKey { node: address.id.clone(), database, user };
        let pool = self.shared.pools.get(&key, &address);
        if self.reader_pools.len() <= node {
            self.reader_pools.resize(node + 1, None);
        }
        self.reader_pools[node] = Some(pool.clone());
        Some(pool)
    }

    /// A connection to the primary, waiting for one to be known and reachable.
    pub(super) async fn lease_from_primary(&mut self) -> Result<Lease, Refusal> {
        let shared = self.shared.clone();
        let mut wait = Wait::new(&shared, self.from_client.len() + READ_AHEAD);
        loop {
            self.release_pass();
            let (primary, at, generation) = wait.primary().await.map_err(Refusal::Ours)?;
            // The primary has drained, and nothing came of it.
            if self.me.client.pass() == generation
                && let Some(lease) = self.aside.take()
            {
                self.place = self.primary_at;
                return Ok(lease);
            }
            let (database, user) = (self.me.client.database.clone(), self.me.client.user.clone());
            let key = PoolKey { node: primary.address.id.clone(), database, user };
            let pool = shared.pools.get(&key, &primary.address);
            self.pool = Some(pool.clone());
            self.primary_at = at;
            if self.me.client.pass() != generation {
                self.release_pass();
                self.machine.set_epoch(shared.gate.epoch());
                self.me.client.set_pass(generation);
            }
            let want = self.want(false);
            let got = tokio::select! {
                biased;
                () = shared.gate.left(generation) => continue,
                got = pool.acquire(&want) => got,
            };
            match got {
                Ok(lease) if shared.gate.generation() == generation => {
                    self.place = at;
                    return Ok(lease);
                }
                Ok(_) => continue,
                Err(AcquireError::Retired) if wait.goes_on() => continue,
                // The role's password was changed since this client logged in. An open session goes on in PostgreSQL,
                // and here with the key of somebody who has logged in with the new one.
                Err(AcquireError::Connect(ConnectError::Server { sqlstate, .. }))
                    if sqlstate == "28P01" && self.take_newer_credential() =>
                {
                    continue;
                }
                Err(error) => {
                    if let AcquireError::Connect(_) = &error {
                        shared.look_now.notify_one();
                    }
                    if !may_pass(&error) {
                        return Err(error.into());
                    }
                    wait.pause(error.to_string()).await.map_err(Refusal::Ours)?;
                }
            }
        }
    }

    fn take_newer_credential(&mut self) -> bool {
        let newest = self.shared.credential(&self.me.client.user);
        match newest {
            Some(newest) if !Arc::ptr_eq(&newest, &self.credential) => {
                self.credential = newest;
                true
            }
            _ => false,
        }
    }

    /// The server connection is about to be given back, or rests: what the session has seen by now, later reads must not be
    /// without.
    pub(super) fn note_served(&mut self) {
        let readers = &self.shared.readers;
        if self.machine.has_shown_data() {
            self.freshness.note(self.place, self.machine.is_on_replica(), readers);
        }
        match self.machine.demand() {
            // Its next read may come when a replica has what this one has shown.
            Demand::Primary(Why::NotFresh) => readers.hurry(&self.freshness),
            // A write starts the time anew; SET and SHOW do not.
            Demand::Primary(_) if self.machine.has_shown_data() => self.stuck = None,
            Demand::Primary(_) => {}
            Demand::Replica(_) => {}
        }
        if self.machine.is_on_replica() {
            readers.outliers.succeeded(self.place);
            if let Some(taken) = self.taken.take()
                && let Some(reader) = readers.view().nodes.get(self.place)
            {
                reader.load.note_latency(taken.elapsed());
            }
        }
    }

    /// The connection that remembered the session's sequences is gone.
    pub(super) fn forget_sequences(&mut self) {
        let mut pins = self.machine.pins();
        pins.remove(Pin::Sequence);
        self.machine.set_pins(pins);
        self.me.client.set_pins(pins);
    }

    /// The connection to the primary that was kept aside is the session's again.
    pub(super) fn take_back(&mut self) {
        let Some(mut lease) = self.aside.take() else { return };
        // The session's settings may have changed on the replica, in a READ ONLY transaction: then it goes without what was
        // remembered there, as others do who wait too long.
        let fits = lease.server().is_alive() && self.machine.steps_to_attach(&lease.server().memory).is_empty();
        if !fits {
            self.forget_sequences();
            return;
        }
        let server = lease.server();
        self.machine.attach(&mut server.memory, server.identity.pid, false, &mut self.to_client);
        self.me.client.set_server(Some(server.identity.clone()));
        self.place = self.primary_at;
        self.lease = Some(lease);
    }
}

/// Why each node may not serve a read, as one sentence.
pub(super) fn in_words(reasons: &[(String, Option<String>)]) -> String {
    let reasons = reasons.iter().filter_map(|(node, reason)| Some(format!("{node} {}", reason.as_deref()?)));
    format!("{}.", reasons.collect::<Vec<_>>().join("; "))
}
