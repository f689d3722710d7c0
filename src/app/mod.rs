//! Builds everything once from the configuration, runs it, and shuts it down in order.
//!
//! Two kinds of threads: one for the control plane (the monitor, catalog facts, reloads, reaping idle connections), and one
//! per worker for clients. A worker is a runtime of its own; a client stays with the worker it was handed to.

mod admin;
pub mod agent;
pub mod doctor;
mod following;
mod listen;
pub mod migrate;
mod plane;
mod reload;
mod settings;
mod workers;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};

use crate::admin::asked::{self, Who};
use crate::admin::console::Console;
use crate::admin::history::History;
use crate::admin::picture::Cluster;
use crate::auth::MockSecret;
use crate::catalog::{Facts, Overrides};
use crate::cluster::HistoryEntry;
use crate::cluster::doctor::Finding;
use crate::config::Config;
use crate::coord::{Embedded, StoreError};
use crate::driver;
use crate::monitor::MonitorConfig;
use crate::node::{Control, NodeError};
use crate::pool::Pools;
use crate::session::clients::{Entrance, Wish};
use crate::session::readers::Readers;
use crate::session::shared::Shared;
use crate::sql::{Pin, Pins};
use crate::telemetry::LevelHandle;
use crate::types::NodeId;
use listen::Listener;
use workers::{Worker, work};

/// How often idle and old server connections are looked for, and what passed is noted for averages.
const REAP: Duration = Duration::from_secs(5);

/// How often catalog facts are read again when no DDL passed: what was changed past the proxy is seen after this.
const FACTS_INTERVAL: Duration = Duration::from_secs(10);

/// How often a drain looks whether all clients are gone.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{key}: cannot listen on {listen}: {source}")]
    Listen { key: &'static str, listen: String, source: std::io::Error },
    #[error("admin.listen: cannot listen on {listen}: {source}")]
    AdminListen { listen: String, source: std::io::Error },
    #[error("coordination.path: {0}")]
    Store(#[from] StoreError),
    #[error("{key}: {reason}")]
    Setting { key: &'static str, reason: String },
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    #[error("cannot start {what}: {source}")]
    System { what: &'static str, source: std::io::Error },
}

/// A running proxy. It stops when told to, or when dropped (then without waiting for clients).
pub struct Running {
    addresses: Vec<SocketAddr>,
    read_only_addresses: Vec<SocketAddr>,
    admin_address: Option<SocketAddr>,
    shared: Arc<Shared>,
    config: Mutex<Config>,
    /// Held while one is going on.
    reloading: tokio::sync::Mutex<()>,
    config_path: Option<PathBuf>,
    level: Option<LevelHandle>,
    control: Control,
    cluster: driver::Handle,
    /// What the configuration says of functions, for databases to come.
    said: Arc<ArcSwap<Overrides>>,
    /// Closing it ends every thread's runtime.
    stop: watch::Sender<bool>,
    /// Ends accepting.
    refuse: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Starts the proxy in threads of its own.
pub fn start(config: Config) -> Result<Arc<Running>, StartError> {
    start_with(config, None, None)
}

fn start_with(
    config: Config,
    config_path: Option<PathBuf>,
    level: Option<LevelHandle>,
) -> Result<Arc<Running>, StartError> {
    let (listeners, addresses, read_only_addresses) = open_listeners(&config)?;
    let admin_listener = admin::open(&config)?;
    let admin_address = admin_listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let workers = match config.proxy.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let (stop, stopped) = watch::channel(false);
    let (refuse, refused) = watch::channel(false);
    let node_tls = settings::node_tls(&config)?;
    let look_now = Arc::new(Notify::new());
    let control_config = settings::control(&config, node_tls.clone())?;
    let (store, record) = Embedded::open(&config.coordination.path)?;
    let policy = settings::policy(&config);
    let nodes = driver::Nodes { reached: control_config.nodes.clone(), policies: policy.nodes.clone() };
    let (topology, topology_seen) = watch::channel(Arc::new(driver::unseen(&nodes.addresses())));
    let control_runtime = runtime()?;
    let control = {
        // Its connections live in the control plane's runtime, whoever asks.
        let _inside = control_runtime.enter();
        Control::new(control_config.clone(), topology_seen.clone())
    };
    let cluster_runtime = runtime()?;
    let cluster_control = {
        let _inside = cluster_runtime.enter();
        Control::new(control_config, topology_seen.clone())
    };
    let login = settings::login(&config, control.clone(), MockSecret::generate())?;
    let pools = Pools::new(settings::limits(&config), node_tls, workers);
    let (databases, mut new_databases) = mpsc::unbounded_channel::<(Arc<str>, Arc<Facts>)>();
    let shared = Arc::new(Shared::new(
        settings::session(&config),
        login,
        pools,
        topology_seen.clone(),
        look_now.clone(),
        Readers::new(settings::reads(&config)),
        workers,
        Box::new(move |name, facts| {
            // The control thread is only gone when everything ends.
            let _ = databases.send((name, facts));
        }),
    ));

    let said = Arc::new(ArcSwap::from_pointee(settings::overrides(&config)));
    let mut threads = Vec::new();
    let (cluster, drive) = driver::new(driver::Parts {
        policy,
        monitor: MonitorConfig {
            probe_interval: config.failover.probe_interval,
            probe_timeout: config.failover.probe_timeout,
        },
        nodes,
        control: cluster_control,
        store,
        record,
        topology,
        look_now,
        plane: Arc::new(plane::Plane(shared.clone())),
    });
    // A thread of its own: what is decided here must not wait for anything else.
    threads.push(thread("cluster".into(), cluster_runtime, stopped.clone(), drive)?);
    let kept = cluster.clone();
    let history: History = Arc::new(move || kept.history());
    let whole = Arc::new(OnceLock::new());
    let reload = admin::reload(whole.clone());
    let doctor = admin::doctor(whole.clone());
    let api =
        admin::api(&config, shared.clone(), cluster.clone(), refused.clone(), history.clone(), reload.clone(), doctor);
    let api = Arc::new(api);
    {
        let (control, shared, stopped, said) = (control.clone(), shared.clone(), stopped.clone(), said.clone());
        let reports = whole.clone();
        let body = async move {
            tokio::spawn(following::judge_replicas(shared.clone()));
            tokio::spawn(following::ask_positions(control.clone(), shared.clone()));
            tokio::spawn(feed_the_hungry(shared.clone()));
            if let Some(listener) = admin_listener {
                tokio::spawn(admin::serve(listener, api));
            }
            tokio::spawn(doctor::report(reports, shared.clone()));
            let watching = shared.clone();
            let overrides = said.clone();
            tokio::spawn(async move {
                while let Some((name, facts)) = new_databases.recv().await {
                    facts.set_overrides(overrides.load().as_ref().clone());
                    tokio::spawn(keep_facts(name, facts, control.clone(), watching.clone()));
                }
            });
            loop {
                tokio::time::sleep(REAP).await;
                shared.pools.reap();
                shared.tallies.look(Instant::now());
            }
        };
        threads.push(thread("control".into(), control_runtime, stopped, body)?);
    }
    let running = Arc::new(Running {
        addresses,
        read_only_addresses,
        admin_address,
        shared: shared.clone(),
        config: Mutex::new(config),
        reloading: tokio::sync::Mutex::default(),
        config_path,
        level,
        control,
        cluster,
        said,
        stop,
        refuse,
        threads: Mutex::default(),
    });
    // The first to say so.
    let _ = whole.set(Arc::downgrade(&running));
    let console = {
        let believed = running.cluster.clone();
        let weak = Arc::downgrade(&running);
        let config = move || weak.upgrade().map_or(Vec::new(), |running| running.config_rows());
        Arc::new(Console {
            shared: shared.clone(),
            reload,
            believed: Box::new(move || believed.picture()),
            config: Box::new(config),
            history,
            orders: admin::orders(running.cluster.clone()),
        })
    };

    let mut hands = Vec::new();
    let mut inboxes = Vec::new();
    for _ in 0..workers {
        let (arrivals, inbox) = mpsc::unbounded_channel();
        hands.push(Worker { arrivals, clients: Arc::default() });
        inboxes.push(inbox);
    }
    let hands: Arc<[Worker]> = hands.into();
    let mut listeners: Vec<Option<(Listener, Entrance)>> = listeners.into_iter().map(Some).collect();
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let mine: Vec<(Listener, Entrance)> = listeners
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| at % workers == index)
            .filter_map(|(_, l)| l.take())
            .collect();
        let body = work(
            index,
            inbox,
            mine,
            hands.clone(),
            refused.clone(),
            shared.clone(),
            console.clone(),
            running.control.clone(),
        );
        threads.push(thread(format!("worker-{index}"), runtime()?, stopped.clone(), body)?);
    }
    *running.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
    for address in &running.addresses {
        tracing::info!(%address, "listening");
    }
    for address in &running.read_only_addresses {
        tracing::info!(%address, "listening for read-only sessions");
    }
    if let Some(address) = running.admin_address {
        tracing::info!(%address, "the admin endpoint listens");
    }
    Ok(running)
}

/// The sockets of both lists, and where those of each are.
fn open_listeners(
    config: &Config,
) -> Result<(Vec<(Listener, Entrance)>, Vec<SocketAddr>, Vec<SocketAddr>), StartError> {
    let proxy = &config.proxy;
    let mut listeners = Vec::new();
    for listen in &proxy.listen {
        let opened = listen::open("proxy.listen", listen, proxy.unix_port())?;
        listeners.extend(opened.into_iter().map(|listener| (listener, Entrance::ReadWrite)));
    }
    for listen in &proxy.listen_read_only {
        let opened = listen::open("proxy.listen_read_only", listen, proxy.read_only_unix_port())?;
        listeners.extend(opened.into_iter().map(|listener| (listener, Entrance::ReadOnly)));
    }
    let addresses = |of: Entrance| {
        let these = listeners.iter().filter(|(_, entrance)| *entrance == of);
        these.filter_map(|(listener, _)| listener.address()).collect()
    };
    let (read_write, read_only) = (addresses(Entrance::ReadWrite), addresses(Entrance::ReadOnly));
    Ok((listeners, read_write, read_only))
}

fn runtime() -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "a runtime", source })
}

/// A thread with a runtime of its own that runs `body` until everything stops.
fn thread(
    name: String,
    runtime: tokio::runtime::Runtime,
    mut stopped: watch::Receiver<bool>,
    body: impl Future<Output = ()> + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = body => {}
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                }
            });
            runtime.shutdown_timeout(Duration::from_millis(100));
        })
        .map_err(|source| StartError::System { what: "a thread", source })
}

/// Keeps one database's facts fresh until the database is gone.
async fn keep_facts(name: Arc<str>, facts: Arc<Facts>, control: Control, shared: Arc<Shared>) {
    let gone = Notify::new();
    let connect = || async {
        let connected = control.client_for(&name).await;
        // invalid_catalog_name: it was dropped or renamed.
        if let Err(NodeError::Refused { sqlstate, .. }) = &connected
            && sqlstate == "3D000"
        {
            gone.notify_one();
        }
        connected
    };
    tokio::select! {
        () = facts.keep_fresh(connect, FACTS_INTERVAL) => {}
        () = gone.notified() => {
            tracing::info!(database = %name, "database is gone");
            shared.forget_database(&name);
        }
    }
}

/// Passes on that somebody waits for a server connection to those who hold one only for the case that they want
/// currval or lastval.
async fn feed_the_hungry(shared: Arc<Shared>) {
    loop {
        shared.pools.hungry.notified().await;
        for client in shared.clients.all() {
            if client.pins() == Pins::of(Pin::Sequence) {
                client.nudge();
            }
        }
    }
}

impl Running {
    /// What the sessions share, and are told a change of primary by.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// Those of `proxy.listen_read_only`.
    pub fn read_only_addresses(&self) -> Vec<SocketAddr> {
        self.read_only_addresses.clone()
    }

    /// Where the admin endpoint listens, if it does.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The cluster as `GET /cluster` tells it.
    pub fn cluster(&self) -> Cluster {
        let name = self.config.lock().unwrap_or_else(PoisonError::into_inner).cluster.name.clone();
        Cluster::of(&name, &self.shared, &self.cluster.picture())
    }

    /// Every precondition of a safe failover, as the doctor finds it now.
    pub async fn examine(&self) -> Vec<Finding> {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut pools: HashMap<NodeId, usize> = HashMap::new();
        for pool in self.shared.pools.all() {
            *pools.entry(pool.key.node.clone()).or_default() += 1;
        }
        let pools = pools.into_values().max().unwrap_or(0);
        doctor::examine(&config, &self.control, Some(self.cluster.picture().as_ref().clone()), pools).await
    }

    /// What happened so far, the oldest first.
    pub fn history(&self) -> Vec<HistoryEntry> {
        self.cluster.history()
    }

    /// Waits until a primary is known, for at most `limit`. False if none was.
    pub fn wait_for_primary(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.shared.topology.borrow().primary().is_none() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Takes no new clients, lets open transactions end for `limit`, then ends what is left. Stops waiting early when
    /// `hurry` fires.
    async fn drain(&self, limit: Duration, hurry: impl Future<Output = ()>) {
        self.refuse.send_replace(true);
        for client in self.shared.clients.all() {
            client.ask(Wish::Drain);
        }
        let deadline = tokio::time::Instant::now() + limit;
        let empty = async {
            while self.shared.clients.count() > 0 && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        tokio::select! {
            () = empty => {}
            () = hurry => {}
        }
        let left = self.shared.clients.all();
        if !left.is_empty() {
            tracing::warn!(clients = left.len(), "ending clients that were still in a transaction");
        }
        for client in left {
            client.ask(Wish::Kill);
        }
        // Long enough for their farewell to be written; nobody waits for a client that does not read it.
        let deadline = tokio::time::Instant::now() + Duration::from_millis(500);
        while self.shared.clients.count() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// Stops in order: listeners, clients, server connections, threads.
    pub fn stop(&self) {
        let limit = self.config.lock().unwrap_or_else(PoisonError::into_inner).proxy.drain_timeout;
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
            runtime.block_on(self.drain(limit, std::future::pending()));
        }
        self.end();
    }

    fn end(&self) {
        self.refuse.send_replace(true);
        self.shared.pools.close();
        self.stop.send_replace(true);
        for thread in std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner)) {
            // The console may be what dropped the last handle; a thread cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread ended with a panic");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// `pgbaton serve`: runs until SIGTERM or SIGINT. A second one quits without waiting for clients.
pub fn serve(config: Config, config_path: PathBuf, level: Option<LevelHandle>) -> Result<(), StartError> {
    let limit = config.proxy.drain_timeout;
    let running = start_with(config, Some(config_path), level)?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let failed = |source| StartError::System { what: "signal handling", source };
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        let asked = loop {
            tokio::select! {
                _ = hangup.recv() => {
                    let reload = admin::reload(Arc::new(OnceLock::from(Arc::downgrade(&running))));
                    // Said in the log.
                    let _ = asked::reload(&reload, Who::signal("SIGHUP")).await;
                }
                _ = terminate.recv() => break Who::signal("SIGTERM"),
                _ = interrupt.recv() => break Who::signal("SIGINT"),
            }
        };
        tracing::info!(by = %asked, order = "stop", outcome = "begun", "an order");
        tracing::info!(
            "stopping: no new clients; open transactions may end for {} s",
            running.current_drain(limit).as_secs()
        );
        let again = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping at once");
        };
        running.drain(running.current_drain(limit), again).await;
        Ok::<(), StartError>(())
    })?;
    running.end();
    Ok(())
}

impl Running {
    fn current_drain(&self, fallback: Duration) -> Duration {
        self.config.try_lock().map_or(fallback, |config| config.proxy.drain_timeout)
    }
}
