//! The life of an agent's process: what it opens, what it waits for, and how it ends.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{SignalKind, signal};

use super::gate::Gate;
use super::keeper::Agent;
use super::log::ServerLog;
use super::postmaster::Postmaster;
use super::site::{Server as _, Site};
use super::state::Memory;
use super::{AgentError, Settings, http, initialise};
use crate::cluster::agent::Shutdown;
use crate::programs::{Cancel, PgBin, ProgramError, RunAs, Runner};

/// How often the record is looked at while nothing asks for it, so that this node knows of epochs that passed it by.
const LISTEN: Duration = Duration::from_secs(5);

/// Where the packages of most systems have PostgreSQL's socket, and where PostgreSQL itself has it.
const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// The longest path of a Unix socket that Linux takes, with its final zero byte.
const SOCKET_PATH_LIMIT: usize = 107;

/// Runs until it is told to end. `reload` reads the settings again, for SIGHUP.
///
/// SIGTERM stops PostgreSQL, fast, and a second one immediately: that is what the stop of a container or a service means.
pub fn run(settings: Settings, reload: impl Fn() -> Result<Settings, String>) -> Result<(), AgentError> {
    let system = |what| move |source| AgentError::System { what, source };
    // Two threads: what reads or writes a file does not keep the API from answering.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().map_err(system("a runtime"))?;
    let ended = runtime.block_on(live(settings, reload));
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

async fn live(settings: Settings, reload: impl Fn() -> Result<Settings, String>) -> Result<(), AgentError> {
    let system = |what| move |source| AgentError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("listening to signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listening to signals"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(system("listening to signals"))?;
    let failed = |source| AgentError::Listen { address: settings.listen, source };
    let listener = tokio::net::TcpListener::bind(settings.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let token = settings.token.clone();
    let (agent, _lock) = open(settings).await?;
    let agent = Arc::new(agent);
    tracing::info!(%address, node = %agent.site.node, data_dir = %agent.site.data_dir.display(), "the agent listens");
    tokio::spawn(http::serve(listener, agent.clone(), token));
    let watched = agent.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LISTEN).await;
            watched.gate.listen().await;
            watched.memory.settle();
        }
    });
    let written = agent.clone();
    tokio::spawn(async move { written.postmaster.log.pass_on().await });

    {
        let work = agent.work();
        tokio::pin!(work);
        loop {
            tokio::select! {
                () = &mut work => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => apply(&agent, reload()),
            }
        }
        // What was under way ends with `work`.
    }
    tracing::info!("told to end: PostgreSQL is stopped");
    let stopped = tokio::select! {
        stopped = agent.postmaster.stop(Shutdown::Fast) => stopped,
        _ = async { tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} } } => {
            tracing::info!("told again: PostgreSQL is stopped immediately");
            agent.postmaster.stop(Shutdown::Immediate).await
        }
    };
    agent.postmaster.log.pass_on_now();
    if let Err(failed) = stopped {
        tracing::error!("PostgreSQL was not stopped: {failed}");
    }
    Ok(())
}

/// The lock is for as long as the agent lives.
async fn open(settings: Settings) -> Result<(Agent, File), AgentError> {
    let bin = match &settings.bin_dir {
        Some(directory) => PgBin::at(directory),
        None => PgBin::find(),
    };
    let bin = bin.map_err(AgentError::Binaries)?;
    let data_dir = absolute(&settings.data_dir)?;
    let mut dir = data_dir.clone().into_os_string();
    dir.push(".agent");
    let dir = PathBuf::from(dir);
    let run_as = RunAs::choose()?;
    let runner = Runner { run_as, working_directory: dir.clone(), cancel: Cancel::default() };
    make(&runner, &dir)?;
    let lock = lock(&dir, &data_dir)?;
    let kept_dir = dir.join("kept");
    make(&runner, &kept_dir)?;
    let socket_dir = match &settings.socket_dir {
        Some(directory) => absolute(directory)?,
        None => socket_dir(&runner),
    };
    let socket = socket_dir.join(format!(".s.PGSQL.{}", settings.port));
    if socket.as_os_str().len() > SOCKET_PATH_LIMIT {
        let reason = format!("{} is too long for the path of a Unix socket; see agent.socket_dir", socket.display());
        return Err(AgentError::DataDir(reason));
    }
    let memory = Arc::new(Memory::open(dir.join("state.json"))?);
    let site = Arc::new(Site {
        node: settings.node.clone(),
        bin,
        runner,
        data_dir,
        port: settings.port,
        socket_dir,
        control_user: settings.control_user.clone(),
        control_password: settings.control_password.clone(),
        kept_dir,
        keep_bytes: settings.keep_bytes,
    });
    if let Err(failed) = initialise::forget(&site, &dir).await {
        tracing::error!("{failed}");
    }
    let gate = Arc::new(Gate::new(settings.node.clone(), settings.pgbatons.clone(), memory.clone()));
    let log = ServerLog::new(dir.join("postgres.log"));
    let postmaster = Postmaster::new(site.clone(), Arc::new(settings), gate.clone(), log);
    Ok((Agent::new(site, dir, memory, gate, postmaster), lock))
}

/// The directory it is in has to be there.
fn absolute(path: &Path) -> Result<PathBuf, AgentError> {
    let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let wrong = |error| AgentError::DataDir(format!("{}: {error}", parent.display()));
    let parent = parent.canonicalize().map_err(wrong)?;
    let name = path.file_name().ok_or_else(|| AgentError::DataDir(format!("{} has no name", path.display())))?;
    Ok(parent.join(name))
}

/// One that is there stays as it is.
fn make(runner: &Runner, path: &Path) -> Result<(), AgentError> {
    match path.metadata() {
        Ok(_) => Ok(()),
        Err(_) => Ok(runner.create_directory(path, 0o700)?),
    }
}

/// One agent for each data directory, also from two containers that have the same volume.
fn lock(dir: &Path, data_dir: &Path) -> Result<File, AgentError> {
    let path = dir.join("lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(ProgramError::io("cannot open", &path))?;
    let _ = file.set_permissions(std::fs::Permissions::from_mode(0o600));
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(AgentError::Taken(data_dir.to_path_buf())),
        Err(error) => Err(ProgramError::io("cannot lock", &path)(error.into()).into()),
    }
}

/// The first in which the server's user can make a file.
fn socket_dir(runner: &Runner) -> PathBuf {
    let is_writable = |directory: &str| {
        let mut command = runner.command(Path::new("test"));
        command.args(["-w", directory, "-a", "-d", directory]);
        command.status().is_ok_and(|status| status.success())
    };
    SOCKET_DIRS.iter().find(|directory| is_writable(directory)).unwrap_or(&"/tmp").into()
}

/// What changes while running: the settings of PostgreSQL's, whom to ask, and how much is kept.
fn apply(agent: &Agent, read: Result<Settings, String>) {
    let new = match read {
        Ok(new) => new,
        Err(reason) => return tracing::error!("the settings stay as they were: {reason}"),
    };
    let old = agent.settings();
    for name in old.fixed_differences(&new) {
        tracing::warn!("agent.{name} waits for a restart of the agent");
    }
    agent.gate.ask_others(new.pgbatons.clone());
    let changed =
        Settings { pgbatons: new.pgbatons, keep_bytes: new.keep_bytes, postgres: new.postgres, ..(*old).clone() };
    agent.postmaster.set(Arc::new(changed));
    match agent.postmaster.reload() {
        Ok(()) => tracing::info!("the settings were read again"),
        Err(failed) => tracing::error!("{failed}"),
    }
}
