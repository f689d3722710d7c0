//! The history beside the record: a file of JSON lines that grows at its end and is cut at its beginning.
//!
//! Nothing is decided by it, so it forgives more than the record does: a line that cannot be read is left out, and a last
//! line that was not finished, which nobody was told is safe, is cut off.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::files::{self, NotReplaced, failed};
use crate::cluster::HistoryEntry;

/// Entries that are kept; older ones go. A failover a day fills it in 27 years.
pub const KEPT: usize = 10_000;
/// Lines the file may have before it is written anew with what is kept, so that this is done rarely.
pub const LINES: usize = 2 * KEPT;

#[derive(Debug)]
pub struct HistoryFile {
    path: PathBuf,
    file: File,
    /// Bytes of it that are whole lines.
    length: u64,
    /// A write failed: there may be more in the file than `length`.
    has_tail: bool,
    lines: usize,
    entries: Vec<HistoryEntry>,
}

impl HistoryFile {
    pub fn open(path: &Path) -> Result<HistoryFile, StoreError> {
        files::remove_leftover(&files::beside(path, ".tmp"))?;
        let is_new = !path.exists();
        let mut file = append_to(path)?;
        if is_new {
            files::sync_directory(path)?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read", path))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut history = HistoryFile {
            path: path.to_path_buf(),
            file,
            length: whole as u64,
            has_tail: whole < bytes.len(),
            lines: 0,
            entries: Vec::new(),
        };
        let mut unreadable = 0;
        for line in bytes[..whole].split_inclusive(|byte| *byte == b'\n') {
            history.lines += 1;
            match serde_json::from_slice(line) {
                Ok(entry) => history.remember(entry),
                Err(_) => unreadable += 1,
            }
        }
        if unreadable > 0 {
            tracing::warn!(file = %path.display(), lines = unreadable, "lines of the history cannot be read and are left out");
        }
        if let Err(error) = history.cut_tail() {
            // It is cut before the next entry, or that one says what is wrong.
            tracing::warn!(%error, "the last line of the history was not finished, and cannot be cut off");
        }
        Ok(history)
    }

    /// Oldest first.
    pub fn entries(&self) -> Vec<HistoryEntry> {
        self.entries.clone()
    }

    pub fn append(&mut self, entry: &HistoryEntry) -> Result<(), StoreError> {
        let mut line = line_of(entry, &self.path)?;
        line.push(b'\n');
        self.cut_tail()?;
        self.has_tail = true;
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_all());
        written.map_err(failed("write", &self.path))?;
        self.has_tail = false;
        self.length += line.len() as u64;
        self.lines += 1;
        self.remember(entry.clone());
        if self.lines > LINES
            && let Err(error) = self.rewrite()
        {
            // The entry is safe; it is tried again with the next.
            tracing::warn!(%error, "the history cannot be shortened");
        }
        Ok(())
    }

    fn remember(&mut self, entry: HistoryEntry) {
        entry.add_to(&mut self.entries);
        if self.entries.len() > KEPT {
            self.entries.remove(0);
        }
    }

    fn cut_tail(&mut self) -> Result<(), StoreError> {
        if self.has_tail {
            self.file.set_len(self.length).map_err(failed("repair", &self.path))?;
            self.has_tail = false;
        }
        Ok(())
    }

    /// With what is kept, and nothing else.
    fn rewrite(&mut self) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        for entry in &self.entries {
            bytes.extend(line_of(entry, &self.path)?);
            bytes.push(b'\n');
        }
        let (file, result) = match files::replace(&self.path, &bytes) {
            Ok(file) => (file, Ok(())),
            Err(NotReplaced::Uncertain(file, error)) => (file, Err(error)),
            Err(NotReplaced::Untouched(error)) => return Err(error),
        };
        // What was open until now has no name any more.
        self.file = file;
        (self.length, self.lines) = (bytes.len() as u64, self.entries.len());
        result
    }
}

fn append_to(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(files::MODE);
    options.open(path).map_err(failed("open", path))
}

fn line_of(entry: &HistoryEntry, path: &Path) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(entry).map_err(|error| failed("write", path)(error.into()))
}
