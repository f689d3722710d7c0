//! A throw-away cluster for drills: hosts with agents, each in a network of its own where that can be, and one pgbaton.
//!
//! What it is asked is asked of the servers themselves, from their own machine, which is never cut off from itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::baton::{Baton, Record};
use super::checker::Asked;
use super::network::Network;
use super::wire::{Answer, Batch, Login, Wire};
use crate::admin::history::Entries;
use crate::admin::orders::Done;
use crate::admin::picture;
use crate::cluster::HistoryEntry;
use crate::demo::{self, Cancel, ClusterError, Host, Hosts};
use crate::net::http::{self, ClientError, HttpUrl};
use crate::types::Durability;

/// Where pgbaton is in the network.
pub const MEMBER: &str = "proxy";
const REPLICAS: usize = 2;

/// How long a cluster may take to be made, and to be whole again after a fault.
pub const WHOLE: Duration = Duration::from_secs(60);
/// For the first time: three PostgreSQLs are not made at once on a busy machine.
const MADE: Duration = Duration::from_secs(120);
/// For a question to a server, and to pgbaton.
const ANSWER: Duration = Duration::from_secs(5);
/// For an order, which is answered when it has been carried out.
const ORDER: Duration = Duration::from_secs(120);
/// How far back the history of one run can reach.
const ENTRIES: &str = "200";

/// A node that is frozen twice in half a minute is not waited for: something is broken here all the time.
const FAILOVER: &str = "anti_flap = \"2s\"\n";

/// What a killed process has written stays with the kernel: syncing would only tell after a power failure of this machine.
const POSTGRES: &str = "fsync = \"off\"\n";

/// Fields end in this order: nobody is to see the servers go.
pub struct Stage {
    pub baton: Baton,
    pub hosts: Hosts,
    pub network: Option<Arc<Network>>,
    /// Why there is none.
    pub no_network: String,
    pub durability: Durability,
    pub cancel: Cancel,
    admin: HttpUrl,
}

/// Why there is no stage.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("cannot start pgbaton: {0}")]
    Baton(std::io::Error),
    #[error("{0}")]
    NotWhole(String),
}

impl Stage {
    /// Makes everything, and waits until it is whole.
    pub fn set(durability: Durability, cancel: &Cancel) -> Result<Stage, StageError> {
        let ids: Vec<String> = (1..=REPLICAS + 1).map(|number| format!("n{number}")).collect();
        let names: Vec<&str> = ids.iter().map(String::as_str).chain([MEMBER]).collect();
        let (network, no_network) = match Network::new(&names) {
            Ok(network) => (Some(Arc::new(network)), String::new()),
            Err(reason) => (None, reason),
        };
        let [listen, admin] = match &network {
            Some(network) => [6432, 6433].map(|port| SocketAddr::from((network.address(MEMBER), port))),
            None => {
                let ports = demo::free_ports(2)?;
                [ports[0], ports[1]].map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            }
        };
        let place = |network: &Arc<Network>| ids.iter().map(|id| network.place(id)).collect();
        let plan = demo::Plan {
            replicas: REPLICAS,
            durability,
            listen,
            admin,
            directory: None,
            keep: false,
            failover: FAILOVER.into(),
            places: network.as_ref().map(place).unwrap_or_default(),
            postgres: POSTGRES.into(),
        };
        let mut hosts = Hosts::prepare(&plan)?;
        let place = network.as_ref().map(|network| network.place(MEMBER));
        let baton = Baton::start(hosts.config_file(), place, listen).map_err(StageError::Baton)?;
        hosts.start(admin)?;
        let admin = format!("http://{admin}").parse().map_err(StageError::NotWhole)?;
        let stage = Stage { baton, hosts, network, no_network, durability, cancel: cancel.clone(), admin };
        let mut last = String::new();
        let is_whole = stage.hosts.wait_until(MADE, cancel, || match stage.is_whole() {
            Ok(()) => true,
            Err(reason) => {
                last = reason;
                stage.baton.has_ended().is_some()
            }
        })?;
        match (stage.baton.has_ended(), is_whole) {
            (Some(status), _) => {
                let log = crate::programs::tail(&stage.hosts.directory().join("log/pgbaton.log"), 20);
                Err(StageError::NotWhole(format!("pgbaton has ended ({status}):\n{log}")))
            }
            (None, true) => Ok(stage),
            (None, false) => Err(StageError::NotWhole(format!("no cluster after {} s: {last}", MADE.as_secs()))),
        }
    }

    pub fn ids(&self) -> Vec<String> {
        self.hosts.all().iter().map(|host| host.id.clone()).collect()
    }

    pub fn host(&self, id: &str) -> &Host {
        // Every name comes from this list, or from a record that is made of it.
        self.hosts.get(id).unwrap_or_else(|| panic!("no node is called {id}"))
    }

    /// A way to ask one server.
    pub fn server(&self, id: &str) -> Server {
        let host = self.host(id);
        Server { id: id.into(), address: (host.address(), host.port).into(), network: self.network.clone() }
    }

    pub fn ask(&self, id: &str, sql: &str) -> Option<String> {
        self.server(id).ask(sql)
    }

    /// What pgbaton takes to be so.
    pub fn record(&self) -> Record {
        self.baton.record().unwrap_or_default()
    }

    pub fn cluster(&self) -> Result<picture::Cluster, String> {
        self.get("/cluster", &[])
    }

    /// Oldest first.
    pub fn history(&self) -> Result<Vec<HistoryEntry>, String> {
        self.get::<Entries>("/history", &[("limit", ENTRIES)]).map(|answer| answer.entries)
    }

    /// An operator's order: what was done, or why it was refused.
    pub fn order(&self, path: &str, body: &serde_json::Value) -> Result<String, String> {
        let answer = self.talk(http::post(&self.admin, self.hosts.token(), path, body.to_string(), ORDER))?;
        let done: Done = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        Ok(done.done)
    }

    fn get<T: DeserializeOwned>(&self, path: &str, parameters: &[(&str, &str)]) -> Result<T, String> {
        let answer = self.talk(http::get(&self.admin, self.hosts.token(), path, parameters, ANSWER))?;
        serde_json::from_str(&answer).map_err(|error| format!("{path}: {error}"))
    }

    /// In the clients' network.
    fn talk(&self, conversation: impl Future<Output = Result<String, ClientError>> + Send) -> Result<String, String> {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            runtime.block_on(conversation).map_err(|error| error.to_string())
        };
        match &self.network {
            Some(network) => network.among_clients(run),
            None => run(),
        }
    }

    /// One primary that takes writes, all others stream from it and have replayed what it had, all of them vote where votes count,
    /// and no agent is at work. `Err`: what is missing.
    pub fn is_whole(&self) -> Result<(), String> {
        let record = self.baton.record().ok_or("pgbaton has no record yet")?;
        if record.phase != "stable" {
            return Err(format!("epoch {} is {}", record.epoch, record.phase));
        }
        let others: Vec<String> = self.ids().into_iter().filter(|id| *id != record.primary).collect();
        if self.durability == Durability::Quorum && record.voters.len() != others.len() {
            return Err(format!("of {others:?} only {:?} vote", record.voters));
        }
        let primary = &record.primary;
        let words =
            "SELECT pg_current_wal_lsn(), ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
             WHERE NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off'";
        let answer = self.ask(primary, words).filter(|answer| !answer.is_empty());
        let answer = answer.ok_or_else(|| format!("{primary} is no primary that takes writes"))?;
        let (lsn, timeline) = answer.split_once('|').ok_or("an odd answer")?;
        for id in &others {
            let question = format!(
                "SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= '{lsn}'
                 AND (SELECT received_tli = {timeline} AND status = 'streaming' FROM pg_stat_wal_receiver)"
            );
            let end = Instant::now() + Duration::from_secs(1);
            while self.ask(id, &question).as_deref() != Some("t") {
                if Instant::now() > end || self.cancel.check().is_err() {
                    return Err(format!("{id} does not follow {primary}"));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let cluster = self.cluster()?;
        if cluster.paused {
            return Err("changes of primary are paused".into());
        }
        for node in &cluster.nodes {
            // A rejoin ends a moment after the node streams: its agent makes sure of it first.
            let is_at_work = |agent: &&crate::cluster::AgentAccount| agent.state != "running" || !agent.step.is_empty();
            if let Some(agent) = node.agent.as_ref().filter(is_at_work) {
                return Err(format!("the agent of {} is {} {} {}", node.id, agent.state, agent.step, agent.trouble));
            }
            if node.state != "running" {
                return Err(format!("{} is {}: {}", node.id, node.state, node.reason));
            }
        }
        Ok(())
    }
}

/// One server, asked past everything.
#[derive(Clone)]
pub struct Server {
    pub id: String,
    address: SocketAddr,
    network: Option<Arc<Network>>,
}

impl Server {
    /// As the superuser, from its own machine; `None`: not within a while.
    pub fn connect(&self) -> Option<Wire> {
        let login = || {
            let wire = Login::at(self.address).attempt_within(ANSWER).ok()?.ok()?;
            wire.be_patient(ANSWER).ok()?;
            Some(wire)
        };
        match &self.network {
            Some(network) => network.at(&self.id, login),
            None => login(),
        }
    }
}

impl Asked for Server {
    fn name(&self) -> &str {
        &self.id
    }

    fn ask(&self, sql: &str) -> Option<String> {
        let answer = self.connect()?.ask(Batch::new().query(sql)).ok()?;
        answer.errors.is_empty().then(|| lines(&answer))
    }
}

/// As `psql -At` prints it.
pub fn lines(answer: &Answer) -> String {
    let row =
        |row: &super::wire::Row| row.iter().map(|value| value.as_deref().unwrap_or("")).collect::<Vec<_>>().join("|");
    answer.rows.iter().map(row).collect::<Vec<_>>().join("\n")
}
