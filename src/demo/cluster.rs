//! A throw-away PostgreSQL cluster on this machine: one primary, streaming replicas, and no trace of them afterwards.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sweeper::Sweeper;
use super::{ClusterError, DATABASE, Node, PASSWORD, PgBin, Place, Shutdown, USER};
use crate::migrate::ROLES;
use crate::programs::{Cancel, ProgramError, RunAs, Runner};

/// The role that pgbaton looks after the nodes with.
pub const CONTROL_USER: &str = "pgbaton";
const REPLICATION_USER: &str = "replicator";

/// The longest path of a Unix socket that every system takes, without the terminating zero.
const SOCKET_PATH_LIMIT: usize = 103;
/// How long replicas may take from their start until they stream.
const STREAMING_LIMIT: Duration = Duration::from_secs(60);

/// What cluster to make.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    pub replicas: usize,
    /// Made, or empty; `None` makes a new one in the directory for temporary files.
    pub directory: Option<PathBuf>,
    /// Whether the directory stays afterwards.
    pub keep: bool,
    /// `false` for data nobody will miss after a power failure: everything is faster without fsync.
    pub durable: bool,
    /// More settings for `postgresql.conf`, of every node.
    pub settings: Vec<(String, String)>,
    /// The network of each node in order; those beyond it listen on this machine's loopback address.
    pub places: Vec<Place>,
    /// Ends the start early, with everything cleaned up.
    pub cancel: Cancel,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions {
            replicas: 2,
            directory: None,
            keep: false,
            durable: true,
            settings: Vec::new(),
            places: Vec::new(),
            cancel: Cancel::default(),
        }
    }
}

/// A running cluster. Dropping it stops every node and removes the directory (unless it is to be kept).
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    keep: bool,
    shutdown: Shutdown,
    nodes: Vec<Node>,
    bin: Arc<PgBin>,
    runner: Arc<Runner>,
    control_password: String,
    replication_password: String,
    sweeper: Sweeper,
}

impl Cluster {
    /// Makes and starts everything; returns when every replica streams. On an error nothing is left behind.
    pub fn start(options: ClusterOptions) -> Result<Cluster, ClusterError> {
        let bin = Arc::new(PgBin::find()?);
        let run_as = RunAs::choose()?;
        let directory = make_directory(options.directory.as_deref())?;
        let shutdown = if options.durable { Shutdown::Fast } else { Shutdown::Immediate };
        let signal = if options.durable { "INT" } else { "QUIT" };
        let sweeper = Sweeper::watch(&directory, signal, options.keep)
            .map_err(|source| ProgramError::Io { what: "cannot run /bin/sh".into(), source })?;
        let runner = Runner { run_as, working_directory: directory.clone(), cancel: options.cancel.clone() };
        // From here on, dropping this cleans up.
        let mut cluster = Cluster {
            directory,
            keep: options.keep,
            shutdown,
            nodes: Vec::new(),
            bin,
            runner: Arc::new(runner),
            control_password: random_password()?,
            replication_password: random_password()?,
            sweeper,
        };
        cluster.build(&options)?;
        Ok(cluster)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The first one started as the primary; see [`Cluster::primary`] for which one is.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// By its name: `n1`, `n2`, …
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The node that says it is not in recovery.
    pub fn primary(&self) -> Option<&Node> {
        let is_primary = |node: &&Node| node.sql("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f");
        self.nodes.iter().find(is_primary)
    }

    pub fn bin(&self) -> &PgBin {
        &self.bin
    }

    /// The user the servers run as, if it is not ourselves.
    pub fn run_as(&self) -> Option<&str> {
        self.runner.run_as.as_ref().map(|user| user.name.as_str())
    }

    /// Whether the directory stays when this is dropped.
    pub fn is_kept(&self) -> bool {
        self.keep
    }

    /// The password of [`CONTROL_USER`].
    pub fn control_password(&self) -> &str {
        &self.control_password
    }

    /// Waits until every running replica has replayed what the primary had written when this was called.
    pub fn wait_for_replicas(&self) -> Result<(), ClusterError> {
        let Some(primary) = self.primary() else { return Err(ClusterError::NotStreaming("no primary".into())) };
        let position = primary.sql("SELECT pg_current_wal_lsn()")?;
        let replicas = self.nodes.iter().filter(|node| node.id != primary.id && node.pid().is_some());
        for replica in replicas {
            let question = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
            self.wait_until(
                || Ok(replica.sql(&question)? == "t"),
                || format!("{} has not replayed {position}", replica.id),
            )?;
        }
        Ok(())
    }

    fn build(&mut self, options: &ClusterOptions) -> Result<(), ClusterError> {
        let Cluster { directory, runner, .. } = &*self;
        runner.create_directory(&directory.join("data"), 0o700)?;
        runner.create_directory(&directory.join("run"), 0o755)?;
        let log = directory.join("log");
        std::fs::create_dir(&log)
            .map_err(|source| ProgramError::Io { what: format!("cannot make directory {}", log.display()), source })?;
        let nodes = (1..=options.replicas + 1).map(|number| {
            let place = options.places.get(number - 1).cloned();
            Node::new(format!("n{number}"), place, &self.directory, Arc::clone(&self.bin), Arc::clone(&self.runner))
        });
        self.nodes = nodes.collect();
        let Some((primary, replicas)) = self.nodes.split_first() else { return Ok(()) };
        self.initialise(primary, options)?;
        primary.start_on_a_free_port()?;
        primary.script("postgres", &self.first_statements())?;
        primary.sql_in("postgres", &format!("CREATE DATABASE {DATABASE} OWNER {USER}"))?;
        for replica in replicas {
            // Not pg_basebackup's own --create-slot: that comes after the backup has begun, and the checkpoint of another
            // one that begins in between may remove WAL this one needs.
            let reserve_now = true;
            primary.sql(&format!("SELECT pg_create_physical_replication_slot('{}', {reserve_now})", replica.id))?;
        }
        std::thread::scope(|scope| {
            let clones: Vec<_> =
                replicas.iter().map(|replica| scope.spawn(|| self.clone_primary(primary, replica))).collect();
            let mut results = clones.into_iter().map(|clone| clone.join());
            // A panic in one of them is a fault of ours and goes on as one.
            results.try_for_each(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        let expected = replicas.len().to_string();
        self.wait_until(
            || Ok(primary.sql(streaming)? == expected),
            || {
                let seen = primary.sql("SELECT application_name, state FROM pg_stat_replication").unwrap_or_default();
                format!("of {expected} replicas the primary sees {seen:?}")
            },
        )?;
        self.wait_for_replicas()
    }

    fn initialise(&self, primary: &Node, options: &ClusterOptions) -> Result<(), ClusterError> {
        let password_file = self.directory.join("data/password");
        self.runner.write(&password_file, PASSWORD.as_bytes())?;
        let log = self.directory.join("log/initdb.log");
        let initdb = |locale: &str| {
            let mut command = self.runner.command(&self.bin.program("initdb"));
            command.arg("-D").arg(&primary.data).arg("--pwfile").arg(&password_file);
            command.args(["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--no-sync", "--no-instructions"]);
            command.args([format!("--locale={locale}"), "--lc-messages=C".into()]);
            self.runner.run(command, "initdb", &log)
        };
        // Sorting that is the same everywhere. Some systems do not have the first; every system has the second.
        match initdb("C.UTF-8") {
            Err(ProgramError::Failed { output, .. }) if output.contains("invalid locale") => initdb("C")?,
            other => other?,
        }
        let _ = std::fs::remove_file(&password_file);
        if !options.places.is_empty() {
            primary.let_neighbours_in()?;
        }
        primary.append_settings(&self.settings(options))
    }

    /// Replication settings are those of a cluster that has to notice things within a second; PostgreSQL's own
    /// defaults (5 s, 60 s, 60 s, 10 s) are for links between continents.
    fn settings(&self, options: &ClusterOptions) -> Vec<(String, String)> {
        let socket_directory = self.directory.join("run").display().to_string();
        let mut settings = vec![
            ("listen_addresses", if options.places.is_empty() { "127.0.0.1" } else { "*" }),
            ("unix_socket_directories", &socket_directory),
            ("shared_buffers", "32MB"),
            ("max_wal_size", "256MB"),
            ("wal_level", "replica"),
            ("wal_log_hints", "on"),
            ("wal_retrieve_retry_interval", "200ms"),
            ("wal_receiver_timeout", "5s"),
            ("wal_sender_timeout", "5s"),
            ("wal_receiver_status_interval", "1s"),
            ("max_slot_wal_keep_size", "10GB"),
            ("max_prepared_transactions", "20"),
            ("log_line_prefix", "%m [%p] %q%u@%d %a "),
        ];
        if !options.durable {
            // Nothing else: with synchronous_commit off an acknowledged commit may not be in the WAL yet, and without
            // full_page_writes there is no rewind.
            settings.push(("fsync", "off"));
        }
        let settings = settings.into_iter().map(|(name, value)| (name.to_string(), value.to_string()));
        settings.chain(options.settings.iter().cloned()).collect()
    }

    /// For psql. The control user gets what `migrations/roles.sql` gives it and no more, so that every demo and every test is a
    /// proof that this is enough.
    fn first_statements(&self) -> String {
        format!(
            "\\set control_user {CONTROL_USER}\n\\set control_password '{control}'\n{ROLES}\n\
             CREATE ROLE {REPLICATION_USER} LOGIN REPLICATION PASSWORD '{replication}';\n",
            control = self.control_password,
            replication = self.replication_password,
        )
    }

    /// Makes a node anew as a replica of the primary, as an operator would, and starts it where it was. Returns when it
    /// accepts connections.
    pub fn rebuild(&self, id: &str) -> Result<(), ClusterError> {
        let (Some(primary), Some(replica)) = (self.primary(), self.node(id)) else {
            return Err(ClusterError::NotStreaming(format!("no primary to copy, or no node {id}")));
        };
        replica.stop(Shutdown::Immediate);
        let data = &replica.data;
        std::fs::remove_dir_all(data)
            .map_err(|source| ProgramError::Io { what: format!("cannot remove {}", data.display()), source })?;
        primary.sql(&format!(
            "SELECT pg_create_physical_replication_slot('{id}', true)
             WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{id}')"
        ))?;
        // Its last connection may not have ended yet.
        self.wait_until(
            || Ok(primary.sql(&format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{id}'"))? == "f"),
            || format!("the slot of {id} stays in use"),
        )?;
        self.copy_primary(primary, replica)?;
        replica.append_settings(&[("port".into(), replica.port().to_string())])?;
        replica.start()
    }

    fn clone_primary(&self, primary: &Node, replica: &Node) -> Result<(), ClusterError> {
        self.copy_primary(primary, replica)?;
        replica.start_on_a_free_port()
    }

    fn copy_primary(&self, primary: &Node, replica: &Node) -> Result<(), ClusterError> {
        let mut command = self.runner.command_at(replica.place.as_ref(), &self.bin.program("pg_basebackup"));
        command.arg("-D").arg(&replica.data).arg("-d").arg(format!(
            "host={} port={} user={REPLICATION_USER} password={} application_name={}",
            primary.host(),
            primary.port(),
            self.replication_password,
            replica.id
        ));
        command.args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-S", &replica.id]);
        let log = self.directory.join(format!("log/basebackup-{}.log", replica.id));
        Ok(self.runner.run(command, "pg_basebackup", &log)?)
    }

    /// Errors count as "not yet": a server that is just starting refuses questions.
    fn wait_until(
        &self,
        mut condition: impl FnMut() -> Result<bool, ClusterError>,
        state: impl FnOnce() -> String,
    ) -> Result<(), ClusterError> {
        let deadline = Instant::now() + STREAMING_LIMIT;
        loop {
            let answer = condition();
            if matches!(answer, Ok(true)) {
                return Ok(());
            }
            self.runner.cancel.check()?;
            if Instant::now() > deadline {
                let error = answer.err().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(ClusterError::NotStreaming(format!("{}{error}", state())));
            }
            std::thread::sleep(Duration::from_millis(25));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All at once first, then wait for each.
        for node in &self.nodes {
            node.begin_stop(self.shutdown);
        }
        for node in &self.nodes {
            node.stop(self.shutdown);
        }
        if self.keep {
            self.sweeper.dismiss();
            return;
        }
        match std::fs::remove_dir_all(&self.directory) {
            Ok(()) => self.sweeper.dismiss(),
            // The sweeper tries again when this process ends; children of a killed postmaster may still be writing.
            Err(error) => tracing::debug!(directory = %self.directory.display(), %error, "directory not removed yet"),
        }
    }
}

pub(super) fn make_directory(wanted: Option<&Path>) -> Result<PathBuf, ClusterError> {
    let io =
        |path: &Path, source| ProgramError::Io { what: format!("cannot use directory {}", path.display()), source };
    let directory = match wanted {
        None => {
            let name = format!("pgbaton-{}-{}", std::process::id(), &random_password()?[..8]);
            let directory = std::env::temp_dir().join(name);
            std::fs::create_dir(&directory).map_err(|source| io(&directory, source))?;
            directory
        }
        Some(path) => {
            std::fs::create_dir_all(path).map_err(|source| io(path, source))?;
            let mut entries = std::fs::read_dir(path).map_err(|source| io(path, source))?;
            if entries.next().is_some() {
                return Err(ClusterError::NotEmpty(path.to_path_buf()));
            }
            path.to_path_buf()
        }
    };
    let directory = directory.canonicalize().map_err(|source| io(&directory, source))?;
    let socket = directory.join("run/.s.PGSQL.65535");
    if socket.as_os_str().len() > SOCKET_PATH_LIMIT {
        let _ = std::fs::remove_dir(&directory);
        return Err(ClusterError::TooLong(directory));
    }
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755))
        .map_err(|source| io(&directory, source))?;
    Ok(directory)
}

/// 128 random bits in hexadecimal: safe in SQL, in a connection string and in a file name.
pub(super) fn random_password() -> Result<String, ClusterError> {
    let random: [u8; 16] = ring::rand::generate(&ring::rand::SystemRandom::new())
        .map_err(|_| ProgramError::Io {
            what: "cannot make a password".into(),
            source: std::io::Error::other("the system gives no random numbers"),
        })?
        .expose();
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
