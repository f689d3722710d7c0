//! PostgreSQL as the agent's child: started when its data allows it, stopped until the last process of it is gone.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::gate::{Asks, Gate};
use super::log::ServerLog;
use super::process::Process;
use super::processes::{Identity, LockFile, postmaster_of, those_in};
use super::site::{Act, Server, Site};
use super::{Failed, Settings, conf};
use crate::cluster::agent::{Code, Shutdown};

/// How often it is looked whether something has come about.
const LOOK: Duration = Duration::from_millis(10);

/// How long a fast stop may take before it becomes an immediate one: it waits for standbys to receive everything, and
/// for a checkpoint.
const FAST_LIMIT: Duration = Duration::from_secs(60);

/// How long an immediate stop may take before everything is killed; the postmaster itself kills what does not obey after 5 s.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(10);

/// How long processes may go on whose postmaster is dead. They notice when they next wait for something.
const ORPHAN_LIMIT: Duration = Duration::from_secs(2);

/// Lines of the server's own in an error message.
const LINES: usize = 12;

pub struct Postmaster {
    site: Arc<Site>,
    gate: Arc<Gate>,
    pub log: ServerLog,
    settings: Mutex<Arc<Settings>>,
    process: Mutex<Option<Process>>,
    is_stopping: AtomicBool,
}

impl Postmaster {
    /// Takes over one that runs already, so that restarting the agent never restarts PostgreSQL.
    pub fn new(site: Arc<Site>, settings: Arc<Settings>, gate: Arc<Gate>, log: ServerLog) -> Postmaster {
        let found = postmaster_of(&site.data_dir);
        if let Some(Identity { pid, .. }) = found {
            tracing::info!(pid, "PostgreSQL runs already; it is taken over as it is");
        }
        Postmaster {
            process: Mutex::new(found.map(Process::adopt)),
            site,
            gate,
            log,
            settings: Mutex::new(settings),
            is_stopping: AtomicBool::new(false),
        }
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts from the next start or [`Postmaster::reload`] on.
    pub fn set(&self, settings: Arc<Settings>) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// The process while it lives.
    pub fn process(&self) -> Option<Process> {
        let mut process = self.slot();
        if process.as_ref().is_some_and(|process| process.ended().is_some()) {
            *process = None;
        }
        process.clone()
    }

    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// It accepts connections: what `pg_ctl -w` looks at.
    pub fn is_ready(&self) -> bool {
        let lock = self.process().and_then(|process| Some((process.pid, LockFile::read(&self.site.data_dir)?)));
        lock.is_some_and(|(pid, lock)| lock.pid == pid && lock.is_ready)
    }

    pub fn is_standby(&self) -> bool {
        self.site.data("standby.signal").exists()
    }

    /// Starts it if its data allows that, and returns without waiting for what comes of it.
    pub async fn launch(&self, asks: Asks) -> Result<Process, Failed> {
        if let Some(process) = self.process() {
            return Ok(process);
        }
        if !self.is_standby() {
            self.gate.may_lead(asks).await.map_err(|reason| Failed::new(Code::NotPrimary, reason))?;
        }
        self.clear().await;
        self.remove_stale_lock();
        let settings = self.settings();
        conf::write(&self.site, &settings.postgres)?;
        let io = |what: &str, error: std::io::Error| {
            let code = if error.kind() == std::io::ErrorKind::StorageFull { Code::DiskFull } else { Code::Failed };
            Failed::new(code, format!("cannot {what}: {error}"))
        };
        let log = self.log.begin().map_err(|error| io("open the file for PostgreSQL's log", error))?;
        let mut command = self.site.runner.command(&self.site.bin.program("postgres"));
        command.args(conf::arguments(&self.site, &settings));
        command.stdout(log.try_clone().map_err(|error| io("open the file for PostgreSQL's log", error))?).stderr(log);
        let role = if self.is_standby() { "standby" } else { "primary" };
        let process = Process::spawn(command).map_err(|error| io("run postgres", error))?;
        tracing::info!(pid = process.pid, "PostgreSQL starts, as a {role}");
        *self.slot() = Some(process.clone());
        Ok(process)
    }

    /// Waits until it accepts connections, however long it recovers.
    pub async fn ready(&self, process: &Process) -> Result<(), Failed> {
        while !self.is_ready() {
            if timeout(LOOK, process.end()).await.is_ok() {
                return Err(self.failed_start(process));
            }
        }
        Ok(())
    }

    /// What is to be said of one that has ended.
    pub fn failed_start(&self, process: &Process) -> Failed {
        let status = process.ended().unwrap_or_default();
        let said = self.log.tail(LINES);
        let code = if said.contains("could not bind") || said.contains("Address already in use") {
            Code::PortTaken
        } else if said.contains("No space left on device") {
            Code::DiskFull
        } else {
            Code::Failed
        };
        let reason = match code {
            Code::PortTaken => format!("port {} is taken by another program", self.site.port),
            _ if said.is_empty() => format!("PostgreSQL did not start ({status})"),
            _ => format!("PostgreSQL did not start ({status}): {}", said.replace('\n', "; ")),
        };
        Failed::new(code, reason)
    }

    pub async fn start_as(&self, asks: Asks) -> Result<(), Failed> {
        let process = self.launch(asks).await?;
        self.ready(&process).await
    }

    async fn stop_it(&self, how: Shutdown) -> Result<(), Failed> {
        if let Some(process) = self.process() {
            // Also where this is dropped in the middle.
            let _stopping = Stopping::of(&self.is_stopping);
            self.end(&process, how).await;
        }
        self.clear().await;
        Ok(())
    }

    /// Ever more firmly, until it has ended.
    async fn end(&self, process: &Process, how: Shutdown) {
        let fast = [(Signal::INT, FAST_LIMIT), (Signal::QUIT, IMMEDIATE_LIMIT)];
        let signals = match how {
            Shutdown::Fast => &fast[..],
            Shutdown::Immediate => &fast[1..],
        };
        for (signal, limit) in signals {
            process.signal(*signal);
            let deadline = Instant::now() + *limit;
            while Instant::now() < deadline {
                // One that stands still takes nothing else, and those it waits for may stand still as well.
                for one in those_in(&self.site.data_dir) {
                    one.signal(Signal::CONT);
                }
                process.signal(Signal::CONT);
                if timeout(Duration::from_secs(1), process.end()).await.is_ok() {
                    return;
                }
            }
            tracing::warn!(pid = process.pid, "PostgreSQL does not stop; it is told more firmly");
        }
        process.signal(Signal::KILL);
        process.end().await;
    }

    /// Sees to it that nothing of a server is left whose postmaster has ended: its processes may still commit.
    async fn clear(&self) {
        let lock = LockFile::read(&self.site.data_dir);
        let is_used = || lock.as_ref().is_some_and(LockFile::memory_is_used);
        let begun = Instant::now();
        loop {
            let left = those_in(&self.site.data_dir);
            if left.is_empty() && !is_used() {
                return;
            }
            if begun.elapsed() > ORPHAN_LIMIT {
                for one in left {
                    one.signal(Signal::KILL);
                }
            }
            sleep(LOOK).await;
            if begun.elapsed() > ORPHAN_LIMIT * 5 {
                // PostgreSQL looks for itself before it starts.
                tracing::warn!("processes of a PostgreSQL that has ended do not go away");
                return;
            }
        }
    }

    /// The lock file of a server that is gone names a process; by now the number may be that of another program, for which
    /// PostgreSQL would take it: so in a container that was started anew.
    fn remove_stale_lock(&self) {
        let Some(lock) = LockFile::read(&self.site.data_dir) else { return };
        if Identity::of(lock.pid).is_some() && postmaster_of(&self.site.data_dir).is_none() && !lock.memory_is_used() {
            tracing::info!(pid = lock.pid, "postmaster.pid is of a server that is gone; it is removed");
            let _ = fs::remove_file(LockFile::path(&self.site.data_dir));
        }
    }

    /// Writes the settings anew and has a running server read them.
    pub fn reload(&self) -> Result<(), Failed> {
        if self.site.data("PG_VERSION").exists() {
            conf::write(&self.site, &self.settings().postgres)?;
        }
        if let Some(process) = self.process() {
            process.signal(Signal::HUP);
        }
        Ok(())
    }

    fn slot(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Stopping<'a>(&'a AtomicBool);

impl Stopping<'_> {
    fn of(flag: &AtomicBool) -> Stopping<'_> {
        flag.store(true, Ordering::Relaxed);
        Stopping(flag)
    }
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Server for Postmaster {
    fn start(&self) -> Act<'_> {
        Box::pin(self.start_as(Asks::Itself))
    }

    fn stop(&self, how: Shutdown) -> Act<'_> {
        Box::pin(self.stop_it(how))
    }

    fn is_running(&self) -> bool {
        self.process().is_some()
    }

    fn log_tail(&self, lines: usize) -> String {
        self.log.tail(lines)
    }
}
