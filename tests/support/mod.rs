//! What every test against real servers shares: a cluster, a proxy in front of it, psql, and waiting for a condition.
//!
//! Nothing here decides what is right; that is said in the tests. Everything cleans up after itself, also when a test
//! fails: servers by `Cluster`'s `Drop` and its sweeper, a child proxy by [`Proxy`]'s.

// Each test binary uses another part of this.
#![allow(dead_code)]

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use pgbaton::app;
use pgbaton::config::Config;
use pgbaton::demo::{CONTROL_USER, Cluster, ClusterOptions, DATABASE, PASSWORD, PgBin, USER};

/// How long a condition may take on a busy machine. A test that needs this long is failing.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A cluster that is fast and forgets everything in a power failure.
pub fn cluster(replicas: usize) -> Cluster {
    cluster_with(replicas, &[])
}

/// The same with more lines for `postgresql.conf`.
pub fn cluster_with(replicas: usize, settings: &[(&str, &str)]) -> Cluster {
    let settings = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let options = ClusterOptions { replicas, durable: false, settings, ..Default::default() };
    Cluster::start(options).unwrap_or_else(|error| panic!("the test cluster does not start: {error}"))
}

/// One primary and one replica, shared by all tests of a binary that do not break it. The sweeper ends it when the
/// binary ends, as a static is never dropped.
pub fn shared_cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| cluster(1))
}

/// A configuration file for `cluster`, to which a test adds what it is about.
#[derive(Clone, Debug, Default)]
pub struct ProxySettings {
    /// Lines below `[proxy]`, `[auth]` and `[cluster]`; `listen` is there already.
    pub proxy: String,
    pub auth: String,
    pub cluster: String,
    /// `admin.listen`; empty: it is off, so that any number of proxies can run.
    pub admin: String,
    /// Whole sections: `[proxy.tls]`, `[[auth.rules]]`, `[failover]`.
    pub sections: String,
    /// By a node's name, lines for its `[[cluster.nodes]]`: `zone`, `weight`.
    pub node_lines: Vec<(&'static str, String)>,
    /// Nodes that the proxy is not told of.
    pub left_out: Vec<&'static str>,
}

impl ProxySettings {
    /// The whole text, with one listen address.
    pub fn text(&self, cluster: &Cluster, listen: &str) -> String {
        let ProxySettings { proxy, auth, cluster: cluster_lines, admin, sections, node_lines, left_out } = self;
        let mut text = format!(
            "[proxy]\nlisten = [{listen}]\n{proxy}\n[auth]\n{auth}\n[cluster]\ncontrol_user = \"{CONTROL_USER}\"\n\
             control_password_file = \"control_password\"\n{cluster_lines}\n[admin]\nlisten = \"{admin}\"\n{sections}\n"
        );
        // Tests that stop nodes by hand want them back as they were; those about failover say so.
        if !sections.contains("[failover]") {
            text.push_str("[failover]\nautomatic = false\n");
        }
        for node in cluster.nodes().iter().filter(|node| !left_out.contains(&&*node.id)) {
            let _ = writeln!(
                text,
                "[[cluster.nodes]]\nid = \"{}\"\nhost = \"{}\"\nport = {}",
                node.id,
                node.host(),
                node.port()
            );
            for (_, lines) in node_lines.iter().filter(|(id, _)| *id == node.id) {
                let _ = writeln!(text, "{lines}");
            }
        }
        text
    }

    /// Writes the file and the control user's password into `directory`.
    pub fn write(&self, cluster: &Cluster, directory: &Path, listen: &str) -> PathBuf {
        let password = directory.join("control_password");
        std::fs::write(&password, cluster.control_password()).unwrap();
        set_mode(&password, 0o600);
        let file = directory.join("pgbaton.toml");
        std::fs::write(&file, self.text(cluster, listen)).unwrap();
        file
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A proxy in this process, stopped when dropped.
pub struct InProcess {
    running: Option<std::sync::Arc<app::Running>>,
    pub address: SocketAddr,
    pub directory: tempfile::TempDir,
}

impl InProcess {
    pub fn start(cluster: &Cluster, settings: &ProxySettings) -> InProcess {
        let directory = tempfile::tempdir().unwrap();
        let file = settings.write(cluster, directory.path(), "\"127.0.0.1:0\"");
        let config = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
        let running = app::start(config).unwrap_or_else(|error| panic!("the proxy does not start: {error}"));
        let address = running.listen_addresses()[0];
        InProcess { running: Some(running), address, directory }
    }

    pub fn psql(&self) -> Psql {
        Psql::tcp(self.address.port())
    }

    /// Where its admin endpoint listens; there has to be one.
    pub fn admin(&self) -> SocketAddr {
        self.running.as_ref().and_then(|running| running.admin_address()).unwrap()
    }

    /// What its sessions share; it has to be running.
    pub fn shared(&self) -> std::sync::Arc<pgbaton::session::shared::Shared> {
        self.running.as_ref().map(|running| running.shared().clone()).unwrap()
    }

    /// Ends it before its time.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `pgbaton serve` as a child process, killed when dropped; its log goes to `pgbaton.log` in `directory`.
pub struct Proxy {
    child: Child,
    pub port: u16,
    pub directory: tempfile::TempDir,
}

impl Proxy {
    /// Returns when it accepts connections.
    pub fn start(cluster: &Cluster, settings: &ProxySettings) -> Proxy {
        // Somebody may be faster at taking the port, so that is tried again.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let directory = tempfile::tempdir().unwrap();
            let file = settings.write(cluster, directory.path(), &format!("\"127.0.0.1:{port}\""));
            let log = std::fs::File::create(directory.path().join("pgbaton.log")).unwrap();
            let child = Command::new(env!("CARGO_BIN_EXE_pgbaton"))
                .args(["serve", "-c"])
                .arg(file)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            let mut proxy = Proxy { child, port, directory };
            let mut ended = None;
            wait_until(DEADLINE, "the proxy listens", || {
                ended = proxy.child.try_wait().unwrap();
                ended.is_some() || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            match ended {
                None => return proxy,
                Some(status) if !proxy.log().contains("in use") => panic!("pgbaton ended ({status}):\n{}", proxy.log()),
                Some(_) => {}
            }
        }
        panic!("no free port for the proxy");
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("pgbaton.log")).unwrap_or_default()
    }

    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("pgbaton.toml")
    }

    pub fn psql(&self) -> Psql {
        Psql::tcp(self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        send(self.pid(), signal);
    }

    /// Waits for its end, and gives the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        wait_for_end(&mut self.child, DEADLINE)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of pgbaton\n{}", self.log());
        }
    }
}

/// Real psql. It sees no PG* variable but those given here.
#[derive(Clone, Debug)]
pub struct Psql {
    host: String,
    port: u16,
    user: String,
    password: Option<String>,
    database: String,
    environment: Vec<(String, String)>,
}

/// What psql said.
#[derive(Debug)]
pub struct Said {
    pub stdout: String,
    pub stderr: String,
    pub status: Option<i32>,
}

impl Psql {
    pub fn tcp(port: u16) -> Psql {
        Psql {
            host: "127.0.0.1".into(),
            port,
            user: USER.into(),
            password: Some(PASSWORD.into()),
            database: DATABASE.into(),
            environment: Vec::new(),
        }
    }

    /// A name, an address, or the directory of a Unix socket.
    pub fn host(mut self, host: &str) -> Psql {
        self.host = host.into();
        self
    }

    pub fn user(mut self, user: &str, password: Option<&str>) -> Psql {
        (self.user, self.password) = (user.into(), password.map(Into::into));
        self
    }

    pub fn database(mut self, database: &str) -> Psql {
        self.database = database.into();
        self
    }

    /// `PGSSLMODE`, `PGOPTIONS`, …
    pub fn env(mut self, name: &str, value: &str) -> Psql {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// A command with everything set, to which arguments can be added: for sessions that stay open.
    pub fn command(&self) -> Command {
        let mut command = Command::new(bin().program("psql"));
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("PG")) {
                command.env_remove(name);
            }
        }
        command.env("PGCONNECT_TIMEOUT", "20").env("HOME", "/nonexistent");
        command.envs(self.password.iter().map(|password| ("PGPASSWORD", password)));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"]);
        command.args(["-h", &self.host, "-p", &self.port.to_string(), "-U", &self.user, "-d", &self.database]);
        command
    }

    /// Each text as a `-c` of its own, all in one session.
    pub fn run(&self, statements: &[&str]) -> Said {
        let mut command = self.command();
        for statement in statements {
            command.args(["-c", statement]);
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        Said {
            stdout: String::from_utf8_lossy(&output.stdout).trim_end().into(),
            stderr: String::from_utf8_lossy(&output.stderr).trim_end().into(),
            status: output.status.code(),
        }
    }

    /// The same for what must succeed: what it printed.
    #[track_caller]
    pub fn ok(&self, statements: &[&str]) -> String {
        let said = self.run(statements);
        assert_eq!(said.status, Some(0), "{statements:?}: {}", said.stderr);
        said.stdout
    }

    /// The same for what must fail: what it complained of.
    #[track_caller]
    pub fn refused(&self, statements: &[&str]) -> String {
        let said = self.run(statements);
        assert_ne!(said.status, Some(0), "{statements:?} succeeded: {}", said.stdout);
        said.stderr
    }
}

/// PostgreSQL's programs, looked for once.
pub fn bin() -> &'static PgBin {
    static BIN: OnceLock<PgBin> = OnceLock::new();
    BIN.get_or_init(|| PgBin::find().unwrap_or_else(|error| panic!("{error}")))
}

/// Looks until `condition` holds; fails with `what` after `limit`.
#[track_caller]
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for a child's end, and gives the exit code (`None` when a signal ended it).
#[track_caller]
pub fn wait_for_end(child: &mut Child, limit: Duration) -> Option<i32> {
    let mut status = None;
    wait_until(limit, "the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.and_then(|status| status.code())
}

pub fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
