//! One PostgreSQL server of a throw-away cluster: its directory, its process, and asking it something.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{ClusterError, DATABASE, PASSWORD, PgBin, Place, Runner, USER};
use crate::programs::{ProgramError, tail};

/// How long a server may take to accept connections; on a busy machine initialisation can take a while.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a server may take to stop before it is told more firmly.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How often another port is tried when somebody was faster.
const PORT_ATTEMPTS: usize = 20;

/// How a server is told to stop
/// (<https://www.postgresql.org/docs/current/server-shutdown.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Disconnects everybody and stops cleanly.
    Fast,
    /// Stops as if the power had failed, but leaves no processes.
    Immediate,
    /// SIGKILL to the postmaster; its children notice and end.
    Kill,
}

impl Shutdown {
    fn signal(self) -> Signal {
        match self {
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
            Shutdown::Kill => Signal::KILL,
        }
    }
}

/// One server. Methods take `&self`, so that tests can break it while others look.
#[derive(Debug)]
pub struct Node {
    pub id: String,
    /// `None`: this machine's loopback address.
    pub(super) place: Option<Place>,
    port: AtomicU16,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
    pub(super) socket_directory: PathBuf,
    pub(super) bin: Arc<PgBin>,
    pub(super) runner: Arc<Runner>,
    postmaster: Mutex<Option<Child>>,
}

impl Node {
    /// For a data directory that does not exist yet; see [`Node::start_on_a_free_port`].
    pub(super) fn new(id: String, place: Option<Place>, base: &Path, bin: Arc<PgBin>, runner: Arc<Runner>) -> Node {
        Node {
            place,
            port: AtomicU16::new(0),
            data: base.join("data").join(&id),
            log: base.join("log").join(format!("{id}.log")),
            socket_directory: base.join("run"),
            bin,
            runner,
            postmaster: Mutex::new(None),
            id,
        }
    }

    pub fn host(&self) -> String {
        self.place.as_ref().map_or_else(|| "127.0.0.1".into(), |place| place.address.to_string())
    }

    pub fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    pub fn data_directory(&self) -> &Path {
        &self.data
    }

    /// Where its Unix socket is.
    pub fn socket_directory(&self) -> &Path {
        &self.socket_directory
    }

    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// The postmaster's process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        let mut postmaster = self.postmaster();
        let child = postmaster.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// Starts the server and waits until it accepts connections. After a kill, what is left of the one before may take a
    /// moment to end.
    pub fn start(&self) -> Result<(), ClusterError> {
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            match self.start_once() {
                Err(ClusterError::Program(ProgramError::Failed { output, .. }))
                    if output.contains("pre-existing shared memory block") && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(50));
                }
                other => return other,
            }
        }
    }

    fn start_once(&self) -> Result<(), ClusterError> {
        let io = |source| ProgramError::Io { what: format!("cannot start {}", self.id), source };
        let mut postmaster = self.postmaster();
        if let Some(child) = postmaster.as_mut()
            && matches!(child.try_wait(), Ok(None))
        {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log).map_err(io)?;
        let log_start = log.metadata().map_err(io)?.len();
        let mut command = self.runner.command_at(self.place.as_ref(), &self.bin.program("postgres"));
        command.arg("-D").arg(&self.data).stdout(log.try_clone().map_err(io)?).stderr(log);
        let child = postmaster.insert(command.spawn().map_err(io)?);
        let deadline = Instant::now() + START_LIMIT;
        while !self.is_ready(child.id()) {
            if let Some(status) = child.try_wait().map_err(io)? {
                return Err(self.failed_start(&status.to_string(), log_start));
            }
            if let Err(reason) =
                self.runner.cancel.check().map_err(ClusterError::from).and_then(|()| self.not_after(deadline))
            {
                self.end(child, Shutdown::Immediate);
                return Err(reason);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Stops the server and waits until it is gone. One that does not obey is told more firmly.
    pub fn stop(&self, how: Shutdown) {
        if let Some(mut child) = self.postmaster().take() {
            self.end(&mut child, how);
        }
    }

    /// Tells the server to stop without waiting for it, so that several can stop at once.
    pub(super) fn begin_stop(&self, how: Shutdown) {
        self.signal(how.signal());
        self.signal(Signal::CONT);
    }

    pub fn restart(&self, how: Shutdown) -> Result<(), ClusterError> {
        self.stop(how);
        self.start()
    }

    /// Makes the server stand still as in a virtual machine that is paused, until [`Node::resume`].
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Runs statements as the superuser `demo` and returns what they print: a line for each row, columns with `|`.
    pub fn sql(&self, statements: &str) -> Result<String, ClusterError> {
        self.sql_in(DATABASE, statements)
    }

    pub fn sql_in(&self, database: &str, statements: &str) -> Result<String, ClusterError> {
        let mut command = self.psql(database);
        command.args(["-c", statements]).stdin(Stdio::null());
        self.answer(command.output())
    }

    /// Runs what psql understands, with its own commands; said to its standard input, so that nobody reads it off the list of
    /// processes.
    pub fn script(&self, database: &str, text: &str) -> Result<String, ClusterError> {
        let mut command = self.psql(database);
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.spawn().and_then(|mut child| {
            // A psql that has stopped reading says why itself.
            let _ = child.stdin.take().map(|mut stdin| stdin.write_all(text.as_bytes()));
            child.wait_with_output()
        });
        self.answer(output)
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = self.runner.command(&self.bin.program("psql"));
        command.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "10").args(["-X", "-q", "-A", "-t"]);
        command.args(["-v", "ON_ERROR_STOP=1", "-U", USER, "-d", database, "-p", &self.port().to_string()]);
        command.arg("-h").arg(&self.socket_directory);
        command
    }

    fn answer(&self, output: std::io::Result<Output>) -> Result<String, ClusterError> {
        let output = output.map_err(|source| ProgramError::Io { what: "cannot run psql".into(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string());
        }
        Err(ProgramError::Failed {
            what: format!("a statement on {}", self.id),
            status: output.status.to_string(),
            output: String::from_utf8_lossy(&output.stderr).trim_end().to_string(),
        }
        .into())
    }

    /// Changes a setting with ALTER SYSTEM and reloads. A setting that only a restart changes needs that too.
    pub fn set(&self, name: &str, value: &str) -> Result<(), ClusterError> {
        self.sql(&format!("ALTER SYSTEM SET {name} = '{}'", value.replace('\'', "''")))?;
        self.reload()
    }

    /// Rereads configuration files and `pg_hba.conf`.
    pub fn reload(&self) -> Result<(), ClusterError> {
        self.sql("SELECT pg_reload_conf()").map(drop)
    }

    /// Writes a file into the data directory, readable by the server only: certificates, `pg_hba.conf`.
    pub fn write_file(&self, name: &str, contents: &[u8]) -> Result<PathBuf, ClusterError> {
        let path = self.data.join(name);
        self.runner.write(&path, contents)?;
        Ok(path)
    }

    /// Lets in, with a password, whoever is in the same network: the other nodes and the proxy, when each has an address
    /// of its own.
    pub(super) fn let_neighbours_in(&self) -> Result<(), ClusterError> {
        let path = self.data.join("pg_hba.conf");
        let io = |source| ProgramError::Io { what: format!("cannot change {}", path.display()), source };
        let rules = "host all,replication all samenet scram-sha-256\n";
        std::fs::write(&path, std::fs::read_to_string(&path).map_err(io)? + rules).map_err(io)?;
        Ok(())
    }

    /// Appends to `postgresql.conf`; later lines win.
    pub(super) fn append_settings(&self, settings: &[(String, String)]) -> Result<(), ClusterError> {
        let path = self.data.join("postgresql.conf");
        let io = |source| ProgramError::Io { what: format!("cannot change {}", path.display()), source };
        let mut text = std::fs::read_to_string(&path).map_err(io)?;
        for (name, value) in settings {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        std::fs::write(&path, text).map_err(io)?;
        Ok(())
    }

    /// Starts for the first time, or somewhere else than before. Between finding a port free and PostgreSQL's taking it another process can be
    /// faster, so that is an ordinary outcome and the next port is tried.
    pub fn start_on_a_free_port(&self) -> Result<(), ClusterError> {
        for _ in 0..PORT_ATTEMPTS {
            let port = free_port()?;
            self.append_settings(&[("port".into(), port.to_string())])?;
            self.port.store(port, Ordering::Relaxed);
            match self.start() {
                Err(ClusterError::PortTaken { .. }) => {}
                other => return other,
            }
        }
        Err(ClusterError::NoPort)
    }

    fn postmaster(&self) -> MutexGuard<'_, Option<Child>> {
        self.postmaster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            send(pid, signal);
        }
    }

    fn end(&self, child: &mut Child, how: Shutdown) {
        for how in [how, Shutdown::Immediate, Shutdown::Kill] {
            // Only while it is not waited for: afterwards the number may belong to another process.
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            send(child.id(), how.signal());
            // A paused process takes nothing but SIGKILL and SIGCONT.
            send(child.id(), Signal::CONT);
            let deadline = Instant::now() + STOP_LIMIT;
            while Instant::now() < deadline {
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// What `pg_ctl -w` looks at: the last line of `postmaster.pid` is the server's state.
    fn is_ready(&self, pid: u32) -> bool {
        let Ok(text) = std::fs::read_to_string(self.data.join("postmaster.pid")) else { return false };
        let mut lines = text.lines();
        lines.next().is_some_and(|line| line == pid.to_string())
            && lines.nth(6).is_some_and(|line| line.trim() == "ready")
    }

    fn not_after(&self, deadline: Instant) -> Result<(), ClusterError> {
        if Instant::now() < deadline {
            return Ok(());
        }
        Err(ProgramError::Failed {
            what: format!("starting {}", self.id),
            status: format!("not ready after {START_LIMIT:?}"),
            output: tail(&self.log, 20),
        }
        .into())
    }

    fn failed_start(&self, status: &str, log_start: u64) -> ClusterError {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let new = log.get(usize::try_from(log_start).unwrap_or(0)..).unwrap_or_default();
        if String::from_utf8_lossy(new).contains("could not bind") {
            return ClusterError::PortTaken { port: self.port() };
        }
        let output = tail(&self.log, 20);
        ProgramError::Failed { what: format!("starting {}", self.id), status: status.to_string(), output }.into()
    }
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // A process that is gone is what was wanted.
        let _ = kill_process(pid, signal);
    }
}

/// So many different ones of which the same is true.
pub fn free_ports(count: usize) -> Result<Vec<u16>, ClusterError> {
    let mut ports = Vec::with_capacity(count);
    // Held until all are found, as one that is let go may be found again.
    let mut held = Vec::with_capacity(count);
    while ports.len() < count {
        let port = free_port()?;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push(listener);
            ports.push(port);
        }
    }
    Ok(ports)
}

/// A port nobody listens on, below the range that outgoing connections take theirs from (32768 on Linux), so that a
/// restarted server finds it free again.
fn free_port() -> Result<u16, ClusterError> {
    use std::hash::{BuildHasher, RandomState};
    // The standard library's only source of randomness: every RandomState has other keys.
    let random = RandomState::new().hash_one(0);
    let start = u16::try_from(random % 12_000).unwrap_or_default();
    let ports = (0..12_000).map(|step| 20_000 + (start + step) % 12_000);
    ports.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).ok_or(ClusterError::NoPort)
}
