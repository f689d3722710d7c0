//! The cluster that the demo shows: each node an agent with its PostgreSQL, made as a real one is. The data directories are empty
//! at first; pgbaton has the agents make a cluster on one and copy it to the others.
//!
//! Everything lies in one directory. A demo that was kept is started again with it: the data and pgbaton's record are the same,
//! the ports are new.

use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;

use super::cluster::{make_directory, random_password};
use super::host::Host;
use super::node::free_ports;
use super::sweeper::Sweeper;
use super::{CONTROL_USER, ClusterError, DATABASE, PASSWORD, PgBin, USER};
use crate::programs::{Cancel, Place, ProgramError, RunAs, Runner, tail};
use crate::types::Durability;

/// How often it is looked whether an agent has died.
const LOOK: Duration = Duration::from_millis(100);

/// How long an agent may take to end its server cleanly.
const STOP: Duration = Duration::from_secs(15);

/// Between the signal for a clean end and the one for a quick one.
const HURRY: Duration = Duration::from_millis(100);

/// Data of the past that each agent keeps: a demo is broken often.
const KEEP: &str = "128MiB";

/// Files that a kept demo has, and nothing else that somebody may name by mistake.
const MARKS: [&str; 3] = ["pgbaton.toml", "control_password", "n1/agent.toml"];

/// Only one demo at a time, and no sweeper of an earlier one.
const LOCK: &str = "demo.lock";

/// What hosts to make.
#[derive(Clone, Debug)]
pub struct Plan {
    pub replicas: usize,
    pub durability: Durability,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub directory: Option<PathBuf>,
    pub keep: bool,
    /// Lines below `[failover]` of pgbaton's configuration.
    pub failover: String,
    /// The network of each node in order; those beyond it listen on this machine's loopback address.
    pub places: Vec<Place>,
    /// Lines below `[agent.postgres]` of every node.
    pub postgres: String,
}

/// Dropping it stops every node and removes the directory (unless it is to be kept).
#[derive(Debug)]
pub struct Hosts {
    directory: PathBuf,
    keep: bool,
    is_old: bool,
    hosts: Arc<Vec<Host>>,
    bin: PgBin,
    run_as: Option<RunAs>,
    agent_token: String,
    postgres: String,
    /// Looks after the agents until this is dropped.
    supervisor: Option<(Sender<()>, JoinHandle<()>)>,
    sweeper: Sweeper,
}

impl Hosts {
    /// The directory with everything that pgbaton's configuration names; nothing runs yet.
    pub fn prepare(plan: &Plan) -> Result<Hosts, ClusterError> {
        let bin = PgBin::find()?;
        let run_as = RunAs::choose()?;
        let program = std::env::current_exe()
            .map_err(|source| ProgramError::Io { what: "cannot find this program".into(), source })?;
        let old = plan.directory.as_deref().filter(|directory| is_kept(directory));
        let directory = match old {
            Some(directory) => directory.canonicalize().map_err(ProgramError::io("cannot use directory", directory))?,
            None => make_directory(plan.directory.as_deref())?,
        };
        // What was kept once was wanted.
        let (is_old, keep) = (old.is_some(), plan.keep || old.is_some());
        let lock = lock(&directory)?;
        let sweeper = Sweeper::watch_agents(&directory, keep, &program, lock)
            .map_err(|source| ProgramError::Io { what: "cannot run /bin/sh".into(), source })?;
        let count = (plan.replicas + 1).max(if is_old { hosts_in(&directory) } else { 0 });
        let mut hosts = Hosts {
            keep,
            is_old,
            hosts: Arc::default(),
            bin,
            run_as,
            agent_token: random_password()?,
            postgres: plan.postgres.clone(),
            supervisor: None,
            sweeper,
            directory,
        };
        // From here on, dropping this cleans up.
        let ports = free_ports(2 * count)?;
        let host = |at: usize| {
            let (id, ports, place) = (format!("n{}", at + 1), (ports[2 * at], ports[2 * at + 1]), plan.places.get(at));
            Host::new(id, &hosts.directory, ports, program.clone(), place.cloned())
        };
        hosts.hosts = Arc::new((0..count).map(host).collect());
        hosts.write(plan)?;
        Ok(hosts)
    }

    pub fn all(&self) -> &[Host] {
        &self.hosts
    }

    pub fn get(&self, id: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.id == id)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn bin(&self) -> &PgBin {
        &self.bin
    }

    /// The user the servers run as, if it is not ourselves.
    pub fn run_as(&self) -> Option<&str> {
        self.run_as.as_ref().map(|user| user.name.as_str())
    }

    /// What agents, and pgbaton where it does not listen on a loopback address, want to be shown.
    pub fn token(&self) -> &str {
        &self.agent_token
    }

    pub fn is_kept(&self) -> bool {
        self.keep
    }

    /// It is one that was kept.
    pub fn is_old(&self) -> bool {
        self.is_old
    }

    pub fn config_file(&self) -> PathBuf {
        self.directory.join("pgbaton.toml")
    }

    /// Starts the agents, and each again when it dies. `admin`: where pgbaton answers them.
    pub fn start(&mut self, admin: SocketAddr) -> Result<(), ClusterError> {
        for host in self.all() {
            let file = host.directory.join("agent.toml");
            write_private(&file, &self.agent_config(host, admin)).map_err(ProgramError::io("cannot write", &file))?;
        }
        for host in self.all() {
            host.start()?;
        }
        let hosts = self.hosts.clone();
        let (end, ended) = channel();
        let thread = std::thread::Builder::new().name("supervisor".into()).spawn(move || {
            while matches!(ended.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
                hosts.iter().for_each(Host::look_after);
            }
        });
        let thread = thread.map_err(|source| ProgramError::Io { what: "cannot start a thread".into(), source })?;
        self.supervisor = Some((end, thread));
        Ok(())
    }

    /// Waits until `is_ready`, for as long as no agent dies and nobody cancels.
    pub fn wait_until(
        &self,
        limit: Duration,
        cancel: &Cancel,
        mut is_ready: impl FnMut() -> bool,
    ) -> Result<bool, ClusterError> {
        let deadline = std::time::Instant::now() + limit;
        while !is_ready() {
            if cancel.wait_for(Duration::from_millis(20)) {
                return Err(ProgramError::Cancelled.into());
            }
            for host in self.all() {
                if let Some(status) = host.has_ended() {
                    let (what, output) = (format!("the agent of {}", host.id), tail(&host.log, 20));
                    return Err(ProgramError::Failed { what, status, output }.into());
                }
            }
            if std::time::Instant::now() > deadline {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write(&self, plan: &Plan) -> Result<(), ClusterError> {
        let runner = Runner {
            run_as: self.run_as.clone(),
            working_directory: self.directory.clone(),
            cancel: Cancel::default(),
        };
        let make = |path: &Path, is_servers: bool| match path.is_dir() {
            true => Ok(()),
            false if is_servers => runner.create_directory(path, 0o755),
            false => std::fs::create_dir(path).map_err(ProgramError::io("cannot make directory", path)),
        };
        make(&self.directory.join("run"), true)?;
        make(&self.directory.join("log"), false)?;
        for host in self.all() {
            make(&host.directory, true)?;
        }
        let put = |name: &str, text: &str| {
            let path = self.directory.join(name);
            write_private(&path, text).map_err(ProgramError::io("cannot write", &path))
        };
        if !self.is_old {
            put("control_password", &random_password()?)?;
            put("superuser_password", PASSWORD)?;
        }
        put("pgbaton.toml", &self.pgbaton_config(plan))?;
        Ok(())
    }

    /// An ordinary file, to be read and copied from.
    fn pgbaton_config(&self, plan: &Plan) -> String {
        let Plan { durability, listen, admin, failover, .. } = plan;
        let mut text = format!(
            "[proxy]\nlisten = [\"{listen}\"]\n\n[cluster]\nname = \"demo\"\ncontrol_user = \"{CONTROL_USER}\"\n\
             control_password_file = \"control_password\"\ndurability = \"{}\"\nagent_token = \"{}\"\n\n\
             [admin]\nlisten = \"{admin}\"\n",
            durability.as_str(),
            self.agent_token,
        );
        if !admin.ip().is_loopback() && !plan.places.is_empty() {
            let _ = writeln!(text, "token = \"{}\"", self.agent_token);
        }
        if !failover.is_empty() {
            let _ = write!(text, "\n[failover]\n{failover}");
        }
        for host in self.all() {
            let _ = write!(
                text,
                "\n[[cluster.nodes]]\nid = \"{}\"\nhost = \"{address}\"\nport = {}\nagent = \"http://{address}:{}\"\n",
                host.id,
                host.port,
                host.agent_port,
                address = host.address(),
            );
        }
        text
    }

    fn agent_config(&self, host: &Host, admin: SocketAddr) -> String {
        let path = |path: PathBuf| toml::Value::String(path.display().to_string());
        // Its neighbours are let in where each has an address of its own.
        let networks = match host.address() {
            address if address.is_loopback() => String::new(),
            // Never refused: it is no longer than an address.
            address => {
                IpNet::new(address, 24).map_or(String::new(), |net| format!("networks = [\"{}\"]\n", net.trunc()))
            }
        };
        format!(
            "[agent]\nnode = \"{id}\"\nlisten = \"{address}:{agent_port}\"\ntoken = \"{token}\"\ndata_dir = {data}\n\
             bin_dir = {bin}\nport = {port}\nlisten_addresses = \"{address}\"\nsocket_dir = {sockets}\n\
             pgbatons = [\"http://{admin}\"]\ncontrol_user = \"{CONTROL_USER}\"\ncontrol_password_file = {control}\n\
             superuser = \"{USER}\"\nsuperuser_password_file = {superuser}\ndatabase = \"{DATABASE}\"\nkeep = \"{KEEP}\"\n{networks}\n\
             [agent.postgres]\nshared_buffers = \"32MB\"\nmax_wal_size = \"256MB\"\nmax_prepared_transactions = 20\n\
             log_line_prefix = \"%m [%p] %q%u@%d %a \"\n{postgres}",
            id = host.id,
            address = host.address(),
            postgres = self.postgres,
            agent_port = host.agent_port,
            token = self.agent_token,
            data = path(host.data()),
            bin = path(self.bin.directory().to_path_buf()),
            port = host.port,
            sockets = path(self.directory.join("run")),
            admin = reachable(admin),
            control = path(self.directory.join("control_password")),
            superuser = path(self.directory.join("superuser_password")),
        )
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.supervisor.take() {
            drop(end);
            // It does nothing that can panic; if it has, everything is stopped all the same.
            let _ = thread.join();
        }
        // All at once first, then wait for each.
        self.hosts.iter().for_each(Host::begin_stop);
        if !self.keep {
            // Nobody will start from this data again. Two signals at once would be taken for one.
            std::thread::sleep(HURRY);
            self.hosts.iter().for_each(Host::hurry);
        }
        self.hosts.iter().for_each(|host| host.wait_for_end(STOP));
        if self.keep {
            self.sweeper.dismiss();
            return;
        }
        // Side by side: a file system may take its time over a thousand files.
        std::thread::scope(|scope| {
            for host in self.all() {
                scope.spawn(|| std::fs::remove_dir_all(&host.directory));
            }
        });
        match std::fs::remove_dir_all(&self.directory) {
            Ok(()) => self.sweeper.dismiss(),
            // The sweeper tries again when this process ends.
            Err(error) => tracing::debug!(directory = %self.directory.display(), %error, "directory not removed yet"),
        }
    }
}

/// Where somebody on this machine reaches who listens there.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(any) if any.ip().is_unspecified() => (std::net::Ipv4Addr::LOCALHOST, any.port()).into(),
        SocketAddr::V6(any) if any.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, any.port()).into(),
        other => other,
    }
}

/// Whether a demo was kept in this directory.
fn is_kept(directory: &Path) -> bool {
    MARKS.iter().all(|mark| directory.join(mark).is_file())
}

/// How many nodes it has: they are numbered.
fn hosts_in(directory: &Path) -> usize {
    (1..).take_while(|number| directory.join(format!("n{number}")).is_dir()).count()
}

fn lock(directory: &Path) -> Result<File, ClusterError> {
    let path = directory.join(LOCK);
    let io = ProgramError::io("cannot lock", &path);
    let file = File::options().create(true).append(true).open(&path).map_err(&io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ClusterError::InUse(directory.to_path_buf())),
        Err(TryLockError::Error(source)) => Err(io(source).into()),
    }
}

/// In place of what was there, readable by us alone.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

/// Whether somebody listens there already.
pub(super) fn is_taken(address: SocketAddr) -> Option<std::io::Error> {
    TcpListener::bind(address).err()
}
