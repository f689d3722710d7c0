//! Running PostgreSQL's programs: as an unprivileged user, in a clean environment, and never longer than wanted.

use std::fs::{File, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::ProgramError;

/// Somebody's wish that what is going on should end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<(Mutex<bool>, Condvar)>);

impl Cancel {
    pub fn cancel(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    pub fn check(&self) -> Result<(), ProgramError> {
        if *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) { Err(ProgramError::Cancelled) } else { Ok(()) }
    }

    /// Waits so long, or until [`Cancel::cancel`] was called; whether it was.
    pub fn wait_for(&self, limit: Duration) -> bool {
        let is_cancelled = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(is_cancelled, limit, |is_cancelled| !*is_cancelled);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Returns once [`Cancel::cancel`] was called.
    pub fn wait(&self) {
        let mut is_cancelled = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_cancelled {
            is_cancelled = self.0.1.wait(is_cancelled).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The user that servers run as when we are root: PostgreSQL refuses to run as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAs {
    pub name: String,
    uid: u32,
    gid: u32,
}

impl RunAs {
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// `None` when we are not root and servers simply run as ourselves.
    pub fn choose() -> Result<Option<RunAs>, ProgramError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let id = |flag: &str, name: &str| {
            let output =
                Command::new("id").args([flag, name]).output().ok().filter(|output| output.status.success())?;
            String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().ok()
        };
        for name in ["postgres", "nobody"] {
            if let (Some(uid), Some(gid)) = (id("-u", name), id("-g", name)) {
                return Ok(Some(RunAs { name: name.to_string(), uid, gid }));
            }
        }
        Err(ProgramError::NoUser)
    }
}

/// A network of its own for a server, so that it can be cut off from the others as another machine can. Only root can
/// put a program into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As under `/proc/<pid>/ns/net` or `/run/netns`.
    pub namespace: PathBuf,
    /// Where it listens there.
    pub address: IpAddr,
}

/// Starts programs for one cluster.
#[derive(Clone, Debug)]
pub struct Runner {
    pub run_as: Option<RunAs>,
    pub working_directory: PathBuf,
    pub cancel: Cancel,
}

impl Runner {
    /// A command that sees nothing of the caller's PostgreSQL settings, and no Ctrl-C typed at our terminal: we decide
    /// when a server stops.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = self.bare(Command::new(program));
        if let Some(RunAs { uid, gid, .. }) = self.run_as {
            // With a uid given, the standard library also drops root's supplementary groups.
            command.uid(uid).gid(gid);
        }
        command
    }

    /// The same in another network. The process id is still that of the program.
    pub fn command_at(&self, place: Option<&Place>, program: &Path) -> Command {
        let Some(place) = place else { return self.command(program) };
        let mut command = self.bare(Command::new("nsenter"));
        command.arg(format!("--net={}", place.namespace.display()));
        if let Some(RunAs { uid, gid, .. }) = self.run_as {
            // Not ours to give up: entering needs root.
            command.args([format!("--setuid={uid}"), format!("--setgid={gid}")]);
        }
        command.arg("--").arg(program);
        command
    }

    fn bare(&self, mut command: Command) -> Command {
        command.current_dir(&self.working_directory).process_group(0).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            // How a server's processes are weighed when memory runs out is for whoever runs the agent to say (systemd's unit does).
            if name.to_str().is_some_and(|name| name.starts_with("PG") && !name.starts_with("PG_OOM_ADJUST_")) {
                command.env_remove(name);
            }
        }
        if self.run_as.is_some() {
            command.env("HOME", &self.working_directory);
        }
        command
    }

    /// Runs to the end with all output in a file, which goes into the error if it fails.
    pub fn run(&self, mut command: Command, what: &str, log: &Path) -> Result<(), ProgramError> {
        let io = |source| ProgramError::Io { what: format!("cannot run {what}"), source };
        let output = File::options().create(true).append(true).open(log).map_err(io)?;
        command.stdout(output.try_clone().map_err(io)?).stderr(output);
        let mut child = command.spawn().map_err(io)?;
        loop {
            if let Some(status) = child.try_wait().map_err(io)? {
                if status.success() {
                    return Ok(());
                }
                let output = tail(log, 20);
                return Err(ProgramError::Failed { what: what.to_string(), status: status.to_string(), output });
            }
            if let Err(cancelled) = self.cancel.check() {
                let patience = Instant::now() + Duration::from_secs(5);
                signal_group(child.id(), Signal::INT);
                while Instant::now() < patience && matches!(child.try_wait(), Ok(None)) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                signal_group(child.id(), Signal::KILL);
                let _ = child.wait();
                return Err(cancelled);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Makes a directory that servers can write to.
    pub fn create_directory(&self, path: &Path, mode: u32) -> Result<(), ProgramError> {
        let io = |source| ProgramError::Io { what: format!("cannot make directory {}", path.display()), source };
        std::fs::create_dir(path).map_err(io)?;
        self.hand_over(path, mode).map_err(io)
    }

    /// Writes a file that servers, and nobody else, can read.
    pub fn write(&self, path: &Path, contents: &[u8]) -> Result<(), ProgramError> {
        let io = |source| ProgramError::Io { what: format!("cannot write {}", path.display()), source };
        // Private before it has contents.
        File::create(path).map_err(io)?;
        self.hand_over(path, 0o600).map_err(io)?;
        std::fs::write(path, contents).map_err(io)
    }

    fn hand_over(&self, path: &Path, mode: u32) -> std::io::Result<()> {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        match &self.run_as {
            Some(RunAs { uid, gid, .. }) => std::os::unix::fs::chown(path, Some(*uid), Some(*gid)),
            None => Ok(()),
        }
    }
}

/// Sends to a process and everything in its group. A process that is gone is not an error: that is what was wanted.
fn signal_group(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, signal);
    }
}

/// The last lines of a file, for error messages.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
