//! The store of a pgbaton that is alone: one file, replaced as a whole, and a lock so that it stays alone.
//!
//! The file is JSON that people can read: the record, a revision that grows by one with each, and a SHA-256 of both. Whatever
//! the disk, a power failure or an editor makes of it, it is either what was written or noticed; a file that is noticed is
//! refused. It is written beside itself, synced, renamed and the directory synced: killed at any instant, the process leaves
//! the last record that was acknowledged or the one it was writing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::StoreError;
use super::files::{self, NotReplaced, failed};
use super::history::HistoryFile;
use crate::cluster::record::FORMAT;
use crate::cluster::{HistoryEntry, Record};

/// What the file says it is.
const KIND: &str = "pgbaton state";
/// The longest file that is read, in bytes; a record has some hundred.
const LONGEST: u64 = 4 * 1024 * 1024;

/// See the module's page. Its methods wait for the disk: call them where waiting is allowed.
#[derive(Debug)]
pub struct Embedded {
    path: PathBuf,
    /// Of the record in the file; 0 while there is none.
    revision: u64,
    history: HistoryFile,
    _lock: Lock,
}

/// Held for the life of this value; the system lets it go when the process dies.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would do, were there not a child between its fork and its exec now and then, which has the file open too.
        let _ = self.0.unlock();
    }
}

/// The file. `record` is kept as text, so that the checksum is of what was written and not of what this version reads in it.
#[derive(Serialize, Deserialize)]
struct Document {
    kind: String,
    format: u32,
    revision: u64,
    sha256: String,
    record: Box<RawValue>,
}

/// What is found where the record should be.
enum Found {
    Nothing,
    Record { revision: u64, record: Record },
}

impl Embedded {
    /// Takes the store at `path` for as long as the value lives, and reads what it holds. `None`: it is new.
    pub fn open(path: &Path) -> Result<(Embedded, Option<Record>), StoreError> {
        let path = resolve(path)?;
        let lock = lock(&path)?;
        files::remove_leftover(&files::beside(&path, ".tmp"))?;
        let found = read(&path)?;
        if let Found::Record { .. } = found {
            // The process before may have been killed between its rename and its sync: what is acted upon from now on has to
            // survive a power failure.
            File::open(&path).and_then(|file| file.sync_all()).map_err(failed("sync", &path))?;
            files::sync_directory(&path)?;
        }
        let history = HistoryFile::open(&history_path(&path))?;
        let (revision, record) = match found {
            Found::Nothing => (0, None),
            Found::Record { revision, record } => (revision, Some(record)),
        };
        Ok((Embedded { path, revision, history, _lock: lock }, record))
    }

    /// What the store at `path` holds, for who only looks, beside whoever has it.
    pub fn peek(path: &Path) -> Result<Option<Record>, StoreError> {
        match read(&resolve(path)?)? {
            Found::Nothing => Ok(None),
            Found::Record { record, .. } => Ok(Some(record)),
        }
    }

    /// Puts the record in place of the one before. After an error the store holds the one before, or (if the error came at
    /// the very end) this one; it can be tried again with this or a later one.
    pub fn store(&mut self, record: &Record) -> Result<(), StoreError> {
        self.check_unchanged()?;
        let revision = self.revision + 1;
        match files::replace(&self.path, &write(revision, record, &self.path)?) {
            Ok(_) => {
                self.revision = revision;
                Ok(())
            }
            Err(NotReplaced::Uncertain(_, error)) => {
                self.revision = revision;
                Err(error)
            }
            Err(NotReplaced::Untouched(error)) => Err(error),
        }
    }

    /// Adds an entry to the history; when this returns without error, it survives a power failure.
    pub fn append_history(&mut self, entry: &HistoryEntry) -> Result<(), StoreError> {
        self.history.append(entry)
    }

    /// The newest entries, oldest first, without those that later ones superseded.
    pub fn history(&self) -> Vec<HistoryEntry> {
        self.history.entries()
    }

    /// The lock keeps other pgbatons away; this notices hands and restored backups.
    fn check_unchanged(&self) -> Result<(), StoreError> {
        let found = match read(&self.path)? {
            Found::Nothing => 0,
            Found::Record { revision, .. } => revision,
        };
        if found == self.revision {
            return Ok(());
        }
        let reason = match found {
            0 => "it is gone".to_owned(),
            _ => format!("it has revision {found}, not {}", self.revision),
        };
        Err(StoreError::Changed { path: self.path.clone(), reason })
    }
}

/// The file itself where `path` is a link to it: a rename would replace the link, and two links have two locks.
fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    match path.canonicalize() {
        Ok(path) => return Ok(path),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed("find", path)(error)),
    }
    let directory = files::directory_of(path).canonicalize();
    let directory = directory.map_err(failed("find the directory of", path))?;
    let name = path.file_name().ok_or(ErrorKind::IsADirectory.into()).map_err(failed("use", path))?;
    Ok(directory.join(name))
}

fn lock(path: &Path) -> Result<Lock, StoreError> {
    let name = files::beside(path, ".lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(files::MODE);
    let mut file = options.open(&name).map_err(failed("open", &name))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Only to be helpful: another process id than none at all is not worth an error of its own.
            let by = file.take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(StoreError::Held { path: path.to_path_buf(), lock: name, by });
        }
        Err(TryLockError::Error(source)) => return Err(failed("lock", &name)(source)),
    }
    // On a full disk the number may be missing; the lock holds all the same.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(Lock(file))
}

fn read(path: &Path) -> Result<Found, StoreError> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed("read", path))?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let damaged = |reason: String| StoreError::Damaged { path: path.to_path_buf(), reason };
    let foreign = |reason: String| StoreError::Foreign { path: path.to_path_buf(), reason };
    if bytes.is_empty() {
        return Err(damaged("it is empty".into()));
    }
    if bytes.len() as u64 > LONGEST {
        return Err(damaged("it is too long".into()));
    }
    let document: Document = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if document.kind != KIND {
        return Err(damaged(format!("it is a \"{}\"", document.kind)));
    }
    if document.sha256 != checksum(document.format, document.revision, document.record.get()) {
        return Err(damaged("its checksum is wrong".into()));
    }
    if document.format != FORMAT {
        return Err(foreign(format!("format {}, this one has {FORMAT}", document.format)));
    }
    let record = serde_json::from_str(document.record.get()).map_err(|error| foreign(error.to_string()))?;
    Ok(Found::Record { revision: document.revision, record })
}

fn write(revision: u64, record: &Record, path: &Path) -> Result<Vec<u8>, StoreError> {
    let unsayable = |error: serde_json::Error| failed("write", path)(error.into());
    let record = RawValue::from_string(serde_json::to_string(record).map_err(unsayable)?).map_err(unsayable)?;
    let sha256 = checksum(FORMAT, revision, record.get());
    let document = Document { kind: KIND.into(), format: FORMAT, revision, sha256, record };
    let mut bytes = serde_json::to_vec_pretty(&document).map_err(unsayable)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn checksum(format: u32, revision: u64, record: &str) -> String {
    let digest = Sha256::new().chain_update(format!("{format}\n{revision}\n")).chain_update(record).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `pgbaton-state.json` has `pgbaton-state-history.jsonl` beside it.
fn history_path(path: &Path) -> PathBuf {
    let base = if path.extension().is_some_and(|extension| extension == "json") {
        path.with_extension("")
    } else {
        path.to_path_buf()
    };
    files::beside(&base, "-history.jsonl")
}
