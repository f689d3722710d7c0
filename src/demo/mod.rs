//! `pgbaton demo`: a whole cluster on this machine with the proxy in front, gone without a trace at Ctrl-C.
//!
//! [`hosts`] is what it shows: nodes with agents, made as a real cluster is. [`Cluster`] is what most tests run against: bare servers
//! that do what they are told and nothing by themselves.

mod chaos;
mod cluster;
mod greeting;
mod host;
mod hosts;
mod node;
mod processes;
mod sweeper;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::admin::picture;
use crate::app::Running;
use crate::config::{Config, ConfigError};
pub use crate::programs::{Cancel, PgBin, Place};
use crate::programs::{ProgramError, Runner};
use crate::types::Durability;
use crate::{app, telemetry};

pub use chaos::Chaos;
pub use cluster::{CONTROL_USER, Cluster, ClusterOptions};
pub use host::Host;
pub use hosts::{Hosts, Plan};
pub use node::{Node, Shutdown, free_ports};
pub use sweeper::Sweeper;

/// How long everything may take to be up: on a busy machine three PostgreSQLs are not made at once.
const READY: Duration = Duration::from_secs(120);

/// When it is said what is waited for, and how often after that.
const IMPATIENCE: Duration = Duration::from_secs(5);

/// The superuser that a demo's user is.
pub const USER: &str = "demo";
/// Its password. Nodes listen on the loopback address only.
pub const PASSWORD: &str = "demo";
pub const DATABASE: &str = "demo";

/// Why a cluster did not start, or did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("{} is not empty; give a new directory", .0.display())]
    NotEmpty(PathBuf),
    #[error("{} is in use by another demo, or one that is just being stopped", .0.display())]
    InUse(PathBuf),
    #[error("{} is too long a path for Unix sockets in it; give a shorter one with --dir", .0.display())]
    TooLong(PathBuf),
    #[error("port {port} was taken by another process")]
    PortTaken { port: u16 },
    #[error("no free port between 20000 and 32000 on 127.0.0.1")]
    NoPort,
    #[error("replication does not work: {0}")]
    NotStreaming(String),
}

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("cannot listen on {listen}: {source}; choose another address with --listen")]
    Listen { listen: SocketAddr, source: std::io::Error },
    #[error("cannot listen on {listen}: {source}; choose another address with --admin")]
    Admin { listen: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] app::StartError),
    #[error("{0}")]
    Logging(String),
    #[error("cannot handle signals: {0}")]
    Signals(std::io::Error),
    #[error("not up after {} s:\n{state}", READY.as_secs())]
    NotReady { state: String },
    #[error("cannot run the load: {0}")]
    Load(String),
    /// What chaos has found. The reason is in the summary, which has been printed.
    #[error("{0}")]
    Broken(String),
}

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    pub replicas: usize,
    pub durability: Durability,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub directory: Option<PathBuf>,
    pub keep: bool,
    /// Break something again and again.
    pub chaos: Option<Chaos>,
}

/// Runs until Ctrl-C or SIGTERM, during the start too; a second one leaves the cleaning up to the sweeper.
pub fn run(options: Options) -> Result<(), DemoError> {
    let Options { replicas, durability, listen, admin, directory, keep, chaos } = options;
    // PostgreSQL takes seconds to start; a taken port is better known before that.
    if let Some(source) = hosts::is_taken(listen) {
        return Err(DemoError::Listen { listen, source });
    }
    if let Some(source) = hosts::is_taken(admin) {
        return Err(DemoError::Admin { listen: admin, source });
    }
    let cancel = Cancel::default();
    cancel_on_signal(cancel.clone()).map_err(DemoError::Signals)?;
    let failover = chaos.as_ref().map_or(String::new(), |_| chaos::FAILOVER.to_owned());
    let (places, postgres) = (Vec::new(), String::new());
    let plan = Plan { replicas, durability, listen, admin, directory, keep, failover, places, postgres };
    let mut hosts = Hosts::prepare(&plan)?;
    let directory = hosts.directory().to_path_buf();
    let keep = hosts.is_kept();
    let count = hosts.all().len();
    let again = if hosts.is_old() { " again" } else { "" };
    let nodes = if count == 1 { "1 node and its agent".into() } else { format!("{count} nodes, each with its agent") };
    println!("Starting PostgreSQL{again}: {nodes} …");
    let result = attend(&mut hosts, listen, admin, chaos, &cancel);
    drop(hosts);
    let left = || {
        if keep { format!("data and logs are in {}.", directory.display()) } else { "nothing is left behind.".into() }
    };
    match result {
        Err(DemoError::Cluster(ClusterError::Program(ProgramError::Cancelled))) => println!("\nCancelled; {}", left()),
        Err(error) => return Err(error),
        Ok(()) => println!("Stopped; {}", left()),
    }
    if keep {
        println!("pgbaton demo --dir {} starts it again.", directory.display());
    }
    Ok(())
}

/// From the first process to the last word; what was started is stopped by whoever drops `hosts`.
fn attend(
    hosts: &mut Hosts,
    listen: SocketAddr,
    admin: SocketAddr,
    chaos: Option<Chaos>,
    cancel: &Cancel,
) -> Result<(), DemoError> {
    let begun = Instant::now();
    let config = Config::load(&hosts.config_file())?;
    start_logging(hosts, &config)?;
    let durability = config.cluster.durability;
    let running = app::start(config)?;
    // Port 0 has become a real one by now.
    let listen = running.listen_addresses().first().copied().unwrap_or(listen);
    let admin = running.admin_address().unwrap_or(admin);
    hosts.start(admin)?;
    wait_for_all(hosts, &running, durability, cancel)?;
    println!("{}", greeting::greeting(hosts, &running.cluster(), listen, admin, begun.elapsed(), chaos.is_some()));
    let verdict = match chaos {
        Some(chaos) => chaos::run(hosts, &running, listen, admin, &chaos, cancel),
        None => {
            cancel.wait();
            Ok(())
        }
    };
    println!("\nStopping …");
    running.stop();
    verdict
}

/// Until there is a primary, every other node streams from it, and each that may acknowledge commits does.
fn wait_for_all(hosts: &Hosts, running: &Running, durability: Durability, cancel: &Cancel) -> Result<(), DemoError> {
    let mut next = Instant::now() + IMPATIENCE;
    let is_up = hosts.wait_until(READY, cancel, || {
        let cluster = running.cluster();
        if Instant::now() > next {
            next += IMPATIENCE;
            print!("{}", what_is_missing(&cluster));
        }
        is_whole(&cluster, durability)
    })?;
    match is_up {
        true => Ok(()),
        false => Err(DemoError::NotReady { state: what_is_missing(&running.cluster()) }),
    }
}

/// One primary, and all others stream from it.
fn is_whole(cluster: &picture::Cluster, durability: Durability) -> bool {
    let Some(primary) = &cluster.primary else { return false };
    let Some(lead) = cluster.nodes.iter().find(|node| node.id == *primary) else { return false };
    cluster.phase.as_deref() == Some("stable")
        && cluster.nodes.iter().all(|node| {
            let votes = durability == Durability::Async || cluster.voters.contains(&node.id);
            let follows = node.role == "replica" && node.timeline == lead.timeline && node.eligible && votes;
            node.state == "running" && (node.id == *primary || follows)
        })
}

/// A line for each node that keeps [`is_whole`] from being so.
fn what_is_missing(cluster: &picture::Cluster) -> String {
    let mut text = String::new();
    for node in &cluster.nodes {
        // What its agent says comes first: it is why the node is as it is.
        let agent = node.agent.as_ref().map_or(["", ""], |agent| [&*agent.step, &*agent.trouble]);
        let said = agent.into_iter().chain([&*node.reason]).find(|said| !said.is_empty()).unwrap_or_default();
        text.push_str(&format!("    {}  {}  {}  {}\n", node.id, node.role, node.state, said));
    }
    if !cluster.reason.is_empty() {
        text.push_str(&format!("    {}\n", cluster.reason));
    }
    text
}

/// Ctrl-C and SIGTERM cancel; a second one ends the process at once.
pub fn cancel_on_signal(cancel: Cancel) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    drop(entered);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let mut next = async || {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            };
            next().await;
            cancel.cancel();
            next().await;
            std::process::exit(1);
        });
    })?;
    Ok(())
}

fn start_logging(hosts: &Hosts, config: &Config) -> Result<(), DemoError> {
    let path = hosts.directory().join("log/pgbaton.log");
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|source| ProgramError::Io { what: format!("cannot write {}", path.display()), source })?;
    let output = telemetry::Output::File(file);
    telemetry::init(telemetry::Format::Text, &config.log.level, output).map(drop).map_err(DemoError::Logging)
}
