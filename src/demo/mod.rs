//! `pgbaton demo`: a whole cluster on this machine with the proxy in front, gone without a trace at Ctrl-C.
//!
//! [`Cluster`] is also what the tests run against, so the demo cannot rot.

mod cluster;
mod node;
mod sweeper;

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use crate::config::{Config, ConfigError};
pub use crate::programs::{Cancel, PgBin, Place};
use crate::programs::{ProgramError, Runner};
use crate::types::Durability;
use crate::{app, telemetry};

pub use cluster::{CONTROL_USER, Cluster, ClusterOptions};
pub use node::{Node, Shutdown};
pub use sweeper::Sweeper;

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
}

/// Runs until Ctrl-C or SIGTERM, during the start too; a second one leaves the cleaning up to the sweeper.
pub fn run(options: Options) -> Result<(), DemoError> {
    let Options { replicas, durability, listen, admin, directory, keep } = options;
    // PostgreSQL takes seconds to start; a taken port is better known before that.
    let listening = TcpListener::bind(listen).map_err(|source| DemoError::Listen { listen, source })?;
    TcpListener::bind(admin).map_err(|source| DemoError::Admin { listen: admin, source })?;
    drop(listening);
    let cancel = Cancel::default();
    cancel_on_signal(cancel.clone()).map_err(DemoError::Signals)?;
    println!(
        "Starting PostgreSQL: one primary, {replicas} streaming replica{} …",
        if replicas == 1 { "" } else { "s" }
    );
    let cluster =
        Cluster::start(ClusterOptions { replicas, directory, keep, cancel: cancel.clone(), ..Default::default() });
    let cluster = match cluster {
        Err(ClusterError::Program(ProgramError::Cancelled)) => {
            println!("\nCancelled; nothing is left behind.");
            return Ok(());
        }
        other => other?,
    };
    let config_file = write_config(&cluster, durability, listen, admin)?;
    let config = Config::load(&config_file)?;
    start_logging(&cluster, &config)?;
    let running = app::start(config)?;
    // Port 0 has become a real one by now.
    let listen = running.listen_addresses().first().copied().unwrap_or(listen);
    let admin = running.admin_address().unwrap_or(admin);
    println!("{}", greeting(&cluster, listen, admin));
    cancel.wait();
    println!("\nStopping …");
    running.stop();
    let directory = cluster.directory().to_path_buf();
    drop(cluster);
    if keep {
        println!("Data and logs are in {}.", directory.display());
    } else {
        println!("Stopped; nothing is left behind.");
    }
    Ok(())
}

fn cancel_on_signal(cancel: Cancel) -> std::io::Result<()> {
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

/// The demo's configuration is an ordinary file, to be read and copied from.
fn write_config(
    cluster: &Cluster,
    durability: Durability,
    listen: SocketAddr,
    admin: SocketAddr,
) -> Result<PathBuf, DemoError> {
    let io = |source| ProgramError::Io { what: "cannot write the configuration".into(), source };
    let directory = cluster.directory();
    let password_file = directory.join("control_password");
    write_private(&password_file, cluster.control_password()).map_err(io)?;
    let mut text = format!(
        "[proxy]\nlisten = [\"{listen}\"]\n\n[cluster]\nname = \"demo\"\ncontrol_user = \"{CONTROL_USER}\"\n\
         control_password_file = \"control_password\"\ndurability = \"{}\"\n\n[admin]\nlisten = \"{admin}\"\n",
        durability.as_str()
    );
    for node in cluster.nodes() {
        let _ = write!(
            text,
            "\n[[cluster.nodes]]\nid = \"{}\"\nhost = \"{}\"\nport = {}\n",
            node.id,
            node.host(),
            node.port()
        );
    }
    let file = directory.join("pgbaton.toml");
    std::fs::write(&file, text).map_err(io)?;
    Ok(file)
}

fn write_private(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::File::options().create_new(true).write(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

fn start_logging(cluster: &Cluster, config: &Config) -> Result<(), DemoError> {
    let path = cluster.directory().join("log/pgbaton.log");
    let file = std::fs::File::create(&path)
        .map_err(|source| ProgramError::Io { what: format!("cannot write {}", path.display()), source })?;
    let output = telemetry::Output::File(file);
    telemetry::init(telemetry::Format::Text, &config.log.level, output).map(drop).map_err(DemoError::Logging)
}

fn greeting(cluster: &Cluster, listen: SocketAddr, admin: SocketAddr) -> String {
    let user = cluster.run_as().map(|user| format!(" (as user {user})")).unwrap_or_default();
    let mut text = format!(
        "\npgbaton is in front of PostgreSQL {}{user}. Connect with\n\n    PGPASSWORD={PASSWORD} psql -h {} -p {} -U {USER}\n\n",
        cluster.bin().version(),
        listen.ip(),
        listen.port()
    );
    for (at, node) in cluster.nodes().iter().enumerate() {
        let role = if at == 0 { "primary" } else { "replica" };
        let pid = node.pid().map_or("-".into(), |pid| pid.to_string());
        let _ = writeln!(text, "    {}  {role}  127.0.0.1:{}  pid {pid}", node.id, node.port());
    }
    let directory = cluster.directory().display();
    let _ = write!(
        text,
        "\n    configuration  {directory}/pgbaton.toml\n    admin          http://{admin}/cluster, /metrics\n    logs           {directory}/log/\n\
         \nTry next, each in a second terminal:\n\n\
         \x20   PGPASSWORD={PASSWORD} psql -h {ip} -p {port} -U {USER} -c 'SELECT count(*) FROM pg_class' -c 'SHOW pgbaton.route'\n\
         \x20   PGPASSWORD={PASSWORD} psql -h {ip} -p {port} -U {USER} -d pgbaton -c 'SHOW POOLS'\n\
         \x20   pgbaton explain --admin http://{admin} --user {USER} 'SELECT 1'\n\
         \nCtrl-C stops everything{}.",
        if cluster.is_kept() { " and keeps the directory" } else { " and removes the directory" },
        ip = listen.ip(),
        port = listen.port(),
    );
    text
}
