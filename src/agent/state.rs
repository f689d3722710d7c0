//! What an agent must not forget: a small file beside the data directory, replaced as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::AgentError;
use crate::cluster::agent::Done;
use crate::types::Epoch;

const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub(super) format: u32,
    /// The highest epoch of an order or of the record.
    pub epoch: Epoch,
    /// The highest epoch of a record that a pgbaton told; 0: none ever did. Not the same as `epoch`: an order may come before
    /// there is a record.
    pub record: Epoch,
    /// By an order, until another one.
    pub is_stopped: bool,
    pub done: Option<Done>,
}

impl Default for State {
    fn default() -> Self {
        State { format: FORMAT, epoch: Epoch(0), record: Epoch(0), is_stopped: false, done: None }
    }
}

/// The state, in memory and in its file.
pub struct Memory {
    path: PathBuf,
    now: Mutex<Now>,
}

struct Now {
    state: State,
    /// Why the file has something older.
    unwritten: Option<String>,
}

impl Memory {
    pub fn open(path: PathBuf) -> Result<Memory, AgentError> {
        let state = match std::fs::read(&path) {
            Ok(text) => match serde_json::from_slice::<State>(&text) {
                Ok(state) if state.format == FORMAT => state,
                Ok(State { format, .. }) => {
                    return Err(AgentError::State { path, reason: format!("it is of format {format}, not {FORMAT}") });
                }
                Err(error) => return Err(AgentError::State { path, reason: error.to_string() }),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => State::default(),
            Err(error) => return Err(AgentError::State { path, reason: error.to_string() }),
        };
        Ok(Memory { path, now: Mutex::new(Now { state, unwritten: None }) })
    }

    pub fn state(&self) -> State {
        self.now().state.clone()
    }

    /// Why what was remembered last is not in the file.
    pub fn trouble(&self) -> Option<String> {
        self.now().unwritten.clone()
    }

    /// Changes it. A file that cannot be written (a full disk) keeps what it had, which is tried again with the next change:
    /// an order is carried out all the same, as one that stops a server must not depend on room on the disk. What the file
    /// protects from is an order of the past after a restart of this agent, and the record is asked in any case.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        let mut now = self.now();
        let before = now.state.clone();
        change(&mut now.state);
        if now.state == before && now.unwritten.is_none() {
            return;
        }
        let written =
            serde_json::to_vec_pretty(&now.state).map_err(io::Error::other).and_then(|text| replace(&self.path, &text));
        let trouble = written.err().map(|error| format!("cannot write {}: {error}", self.path.display()));
        if let Some(trouble) = trouble.as_ref().filter(|_| now.unwritten.is_none()) {
            tracing::error!("{trouble}");
        }
        now.unwritten = trouble;
    }

    /// Tries again to write what could not be written.
    pub fn settle(&self) {
        if self.trouble().is_some() {
            self.change(|_| {});
        }
    }

    /// A pgbaton has told the epoch of its record.
    pub fn heard(&self, record: Epoch) {
        let state = self.now().state.clone();
        if record > state.record || record > state.epoch {
            self.change(|state| {
                state.record = state.record.max(record);
                state.epoch = state.epoch.max(record);
            });
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The new contents, or the old ones, whatever happens in between.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let new = path.with_extension("tmp");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(contents).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&new, path));
    if let Err(error) = written {
        // Frees what little a full disk has.
        let _ = std::fs::remove_file(&new);
        return Err(error);
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_remembered_is_there_after_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state.json");
        let memory = Memory::open(path.clone()).unwrap();
        memory.heard(Epoch(7));
        memory.heard(Epoch(5));
        memory.change(|state| state.is_stopped = true);
        let state = Memory::open(path.clone()).unwrap().state();
        assert_eq!((state.epoch, state.record, state.is_stopped), (Epoch(7), Epoch(7), true));
        assert!(!path.with_extension("tmp").exists());
    }

    #[test]
    fn a_file_that_cannot_be_written_keeps_what_it_had() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state.json");
        let memory = Memory::open(path.clone()).unwrap();
        memory.heard(Epoch(1));
        // As a full disk: nothing new can be made.
        let obstacle = path.with_extension("tmp");
        std::fs::create_dir_all(obstacle.join("x")).unwrap();
        memory.heard(Epoch(2));
        assert!(memory.trouble().unwrap().contains("cannot write"));
        assert_eq!(memory.state().epoch, Epoch(2), "in memory it counts");
        assert_eq!(Memory::open(path.clone()).unwrap().state().epoch, Epoch(1));
        std::fs::remove_dir_all(&obstacle).unwrap();
        memory.settle();
        assert_eq!(memory.trouble(), None);
        assert_eq!(Memory::open(path).unwrap().state().epoch, Epoch(2));
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state.json");
        std::fs::write(&path, "{").unwrap();
        assert!(Memory::open(path.clone()).is_err());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "{");
    }
}
