//! pgbaton as a process of its own, so that it can be killed, frozen and started again with the same record; and that record, read
//! as anybody could read it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;
use serde_json::Value;

use super::faults;
use crate::demo::Place;

/// What the state file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub epoch: u64,
    pub phase: String,
    pub primary: String,
    pub voters: Vec<String>,
}

#[derive(Debug)]
pub struct Baton {
    child: Mutex<Option<Child>>,
    program: PathBuf,
    config: PathBuf,
    place: Option<Place>,
    pub address: SocketAddr,
}

impl Baton {
    /// Starts it. Its record and its log lie beside and below its configuration.
    pub fn start(config: PathBuf, place: Option<Place>, address: SocketAddr) -> std::io::Result<Baton> {
        let program = std::env::current_exe()?;
        let baton = Baton { child: Mutex::default(), program, config, place, address };
        baton.restart()?;
        Ok(baton)
    }

    /// SIGKILL, and no word to anybody.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// After [`Baton::kill`], or in its place.
    pub fn restart(&self) -> std::io::Result<()> {
        self.kill();
        let log = File::options().create(true).append(true).open(self.directory().join("log/pgbaton.log"))?;
        let mut command = match &self.place {
            Some(place) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", place.namespace.display())).arg("--").arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(["serve", "-c"]).arg(&self.config).current_dir(self.directory());
        // A group of its own: a Ctrl-C at the terminal is for us.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        *self.child() = Some(command.spawn()?);
        Ok(())
    }

    pub fn freeze(&self) {
        if let Some(child) = self.child().as_ref() {
            faults::send(child.id(), Signal::STOP);
        }
    }

    pub fn thaw(&self) {
        if let Some(child) = self.child().as_ref() {
            faults::send(child.id(), Signal::CONT);
        }
    }

    /// How it ended, if it has.
    pub fn has_ended(&self) -> Option<String> {
        let mut child = self.child();
        child.as_mut()?.try_wait().ok()?.map(|status| status.to_string())
    }

    /// `None`: there is none yet.
    pub fn record(&self) -> Option<Record> {
        let text = std::fs::read(self.directory().join("pgbaton-state.json")).ok()?;
        let document: Value = serde_json::from_slice(&text).ok()?;
        let record = &document["record"];
        let names = |value: &Value| {
            let names = value.as_array().into_iter().flatten();
            names.filter_map(|name| name.as_str().map(String::from)).collect()
        };
        Some(Record {
            epoch: record["epoch"].as_u64()?,
            phase: record["phase"].as_str()?.into(),
            primary: record["primary"].as_str()?.into(),
            voters: names(&record["voters"]),
        })
    }

    fn directory(&self) -> &Path {
        self.config.parent().unwrap_or(Path::new("/"))
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Baton {
    fn drop(&mut self) {
        self.kill();
    }
}
