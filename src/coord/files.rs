//! Writing files so that a crash at any instant leaves the old contents or the new ones, and never a mixture.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::StoreError;

/// Only the owner: the history has what nodes answered, which is nobody else's business.
pub const MODE: u32 = 0o600;

pub fn failed<'p>(act: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> StoreError + 'p {
    move |source| StoreError::Io { act, path: path.to_path_buf(), source }
}

/// `path` with something behind its name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// How far a replacement came.
#[derive(Debug)]
pub enum NotReplaced {
    /// The old contents are there.
    Untouched(StoreError),
    /// The new contents are there, and the file is what holds them; after a power failure it may be the old ones again.
    Uncertain(File, StoreError),
}

/// Replaces the contents of `path`. When this returns without error, they survive a power failure. The file is the new one, to
/// be read and appended to.
///
/// A new file each time: an fsync that failed once may succeed the next time without anything having been written
/// (<https://wiki.postgresql.org/wiki/Fsync_Errors>), but not for a file that did not exist then.
pub fn replace(path: &Path, contents: &[u8]) -> Result<File, NotReplaced> {
    let new = beside(path, ".tmp");
    let renamed = write_new(&new, contents).and_then(|file| {
        std::fs::rename(&new, path).map_err(failed("replace", path))?;
        Ok(file)
    });
    let file = renamed.map_err(|error| {
        // Frees what little a full disk has; at the next start it is removed in any case.
        let _ = std::fs::remove_file(&new);
        NotReplaced::Untouched(error)
    })?;
    match sync_directory(path) {
        Ok(()) => Ok(file),
        Err(error) => Err(NotReplaced::Uncertain(file, error)),
    }
}

fn write_new(path: &Path, contents: &[u8]) -> Result<File, StoreError> {
    remove_leftover(path)?;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create_new(true).mode(MODE);
    let mut file = options.open(path).map_err(failed("create", path))?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(failed("write", path))?;
    Ok(file)
}

/// What a process that was killed left behind.
pub fn remove_leftover(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Makes the names in the file's directory safe: a rename is not before this.
pub fn sync_directory(file: &Path) -> Result<(), StoreError> {
    let directory = directory_of(file);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("sync", directory))
}

pub fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}
