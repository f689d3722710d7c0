//! One node of the demo as a host of its own: an agent, which is started again when it dies as a service manager does, and the
//! server that the agent runs. It can be broken in the ways that hosts break.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::processes::{send, server_of, tree};
use crate::programs::{Place, ProgramError};

/// How long a service manager leaves an agent that has died alone.
const RESTART: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Host {
    pub id: String,
    /// Of its PostgreSQL.
    pub port: u16,
    /// Where the agent listens.
    pub agent_port: u16,
    /// `agent.toml`, `data` and what the agent keeps beside that.
    pub directory: PathBuf,
    pub log: PathBuf,
    program: PathBuf,
    /// `None`: this machine's loopback address.
    place: Option<Place>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    agent: Option<Child>,
    /// When it is to be started again; `None`: not by itself.
    due: Option<Instant>,
    /// Processes that were stopped by [`Host::freeze`].
    frozen: Vec<u32>,
    /// How the last one ended that ended by itself.
    ended: Option<String>,
}

impl Host {
    pub(super) fn new(
        id: String,
        base: &Path,
        (port, agent_port): (u16, u16),
        program: PathBuf,
        place: Option<Place>,
    ) -> Host {
        Host {
            directory: base.join(&id),
            log: base.join("log").join(format!("{id}.log")),
            id,
            port,
            agent_port,
            program,
            place,
            state: Mutex::default(),
        }
    }

    /// Where its server and its agent listen.
    pub fn address(&self) -> IpAddr {
        self.place.as_ref().map_or(Ipv4Addr::LOCALHOST.into(), |place| place.address)
    }

    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The postmaster's process id while it lives.
    pub fn server_pid(&self) -> Option<u32> {
        server_of(&self.data())
    }

    /// Starts the agent, and from now on again whenever it dies, as long as somebody calls [`Host::look_after`].
    pub(super) fn start(&self) -> Result<(), ProgramError> {
        let mut state = self.state();
        self.spawn(&mut state)
    }

    fn spawn(&self, state: &mut State) -> Result<(), ProgramError> {
        let io = |source| ProgramError::Io { what: format!("cannot start the agent of {}", self.id), source };
        let log = File::options().create(true).append(true).open(&self.log).map_err(io)?;
        let mut command = program_at(self.place.as_ref(), &self.program);
        command.args(["agent", "-c"]).arg(self.directory.join("agent.toml")).current_dir(&self.directory);
        // A group of its own: a Ctrl-C at the terminal is for us.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(io)?).stderr(log);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        let child = command.spawn().map_err(io)?;
        // For people: its number is another one each time.
        let _ = std::fs::write(self.directory.join("agent.pid"), format!("{}\n", child.id()));
        (state.agent, state.due) = (Some(child), None);
        Ok(())
    }

    /// Starts an agent that has died when it is time.
    pub(super) fn look_after(&self) {
        let mut state = self.state();
        if let Some(status) = state.agent.as_mut().and_then(|agent| agent.try_wait().ok().flatten()) {
            tracing::warn!(node = self.id, %status, "an agent has ended");
            (state.agent, state.due) = (None, Some(Instant::now() + RESTART));
            state.ended = Some(status.to_string());
        }
        if state.due.is_some_and(|due| Instant::now() >= due)
            && let Err(error) = self.spawn(&mut state)
        {
            tracing::error!(node = self.id, "{error}");
            state.due = Some(Instant::now() + RESTART);
        }
    }

    /// How its last agent ended, if one has ended by itself.
    pub(super) fn has_ended(&self) -> Option<String> {
        self.state().ended.clone()
    }

    /// `kill -9` to the postmaster; its children notice, and so does the agent. The process id it had.
    pub fn kill_server(&self) -> Option<u32> {
        let pid = self.server_pid()?;
        send(pid, Signal::KILL);
        Some(pid)
    }

    /// As when the power fails: the agent and all of PostgreSQL at once. The host comes back after a second.
    pub fn kill_all(&self) {
        self.end_all(Signal::KILL, |_| ());
    }

    /// The agent and PostgreSQL end, and the host comes back with what `meanwhile` has made of its data.
    pub fn exchange_disk(&self, meanwhile: impl FnOnce(&Path)) {
        // One that is killed leaves shared memory behind, which the next start finds by what is in the data directory.
        self.end_all(Signal::QUIT, meanwhile);
    }

    fn end_all(&self, how: Signal, meanwhile: impl FnOnce(&Path)) {
        let mut state = self.state();
        let agent = state.agent.take();
        // The agent first: it would notice.
        if let Some(mut agent) = agent {
            let server = tree(self.server_pid());
            let below = tree([agent.id()]);
            send(agent.id(), Signal::KILL);
            let _ = agent.wait();
            let others = below.into_iter().filter(|pid| *pid != agent.id() && !server.contains(pid));
            others.for_each(|pid| send(pid, Signal::KILL));
        }
        if how == Signal::QUIT {
            self.server_pid().into_iter().for_each(|pid| send(pid, how));
            self.wait_for_server(Duration::from_secs(10));
        }
        self.kill_servers();
        self.wait_for_server(Duration::from_secs(5));
        state.frozen.clear();
        meanwhile(&self.data());
        state.due = Some(Instant::now() + RESTART);
    }

    /// Everything of this node stands still, as in a virtual machine that is paused, until [`Host::thaw`].
    pub fn freeze(&self) {
        let mut state = self.state();
        let agent = state.agent.as_ref().map(Child::id);
        // Again until nothing new appears: a process may be forked while we stop its parent's neighbour.
        loop {
            let all = tree(agent.into_iter().chain(self.server_pid()));
            let new: Vec<u32> = all.into_iter().filter(|pid| !state.frozen.contains(pid)).collect();
            if new.is_empty() {
                return;
            }
            for pid in new {
                send(pid, Signal::STOP);
                state.frozen.push(pid);
            }
        }
    }

    pub fn thaw(&self) {
        for pid in std::mem::take(&mut self.state().frozen) {
            send(pid, Signal::CONT);
        }
    }

    /// Tells an agent that is ending its server cleanly to have done with it.
    pub(super) fn hurry(&self) {
        if let Some(agent) = &self.state().agent {
            send(agent.id(), Signal::TERM);
        }
    }

    /// Tells the agent to end, which ends its server, without waiting for it.
    pub(super) fn begin_stop(&self) {
        self.thaw();
        let mut state = self.state();
        state.due = None;
        if let Some(agent) = &state.agent {
            send(agent.id(), Signal::TERM);
        }
    }

    /// Waits until the agent has ended, and ends by force what is left after that.
    pub(super) fn wait_for_end(&self, limit: Duration) {
        let mut state = self.state();
        if let Some(mut agent) = state.agent.take() {
            let deadline = Instant::now() + limit;
            while matches!(agent.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if matches!(agent.try_wait(), Ok(None)) {
                let below = tree([agent.id()]);
                send(agent.id(), Signal::KILL);
                let _ = agent.wait();
                below.into_iter().filter(|pid| *pid != agent.id()).for_each(|pid| send(pid, Signal::KILL));
            }
        }
        self.kill_servers();
    }

    /// Until it is gone.
    fn wait_for_server(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.server_pid().is_some() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill_servers(&self) {
        tree(self.server_pid()).into_iter().for_each(|pid| send(pid, Signal::KILL));
    }

    /// The agent alone is killed; it comes back as when it dies by itself.
    pub fn kill_agent(&self) {
        let mut state = self.state();
        if let Some(mut agent) = state.agent.take() {
            send(agent.id(), Signal::KILL);
            let _ = agent.wait();
            state.due = Some(Instant::now() + RESTART);
        }
    }

    /// As [`Host::kill_all`], until [`Host::switch_on`].
    pub fn switch_off(&self) {
        self.end_all(Signal::KILL, |_| ());
        self.state().due = None;
    }

    pub fn switch_on(&self) {
        let mut state = self.state();
        if state.agent.is_none() && state.due.is_none() {
            state.due = Some(Instant::now());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command for a program in that network; its process is the program's own.
pub(super) fn program_at(place: Option<&Place>, program: &Path) -> Command {
    let Some(place) = place else { return Command::new(program) };
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", place.namespace.display())).arg("--").arg(program);
    command
}
