//! Where a new copy of the data grows, and how it takes the place of the old data.
//!
//! Beside the data directory, where there is room for that: two renames then make the swap. Where the data directory is a
//! mount point, or its parent is not ours to write to, the copy grows in a directory inside of it, and entries are moved.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::kept::nanos;
use super::note::{Note, Stage};
use crate::agent::{Failed, Site};
use crate::cluster::agent::Code;

/// Of what lies in a data directory and is not PostgreSQL's.
pub const PREFIX: &str = "pgbaton_repair_";

pub struct Spot {
    /// The data directory without links in its path.
    data: PathBuf,
    pub new: PathBuf,
    old: PathBuf,
    is_inside: bool,
}

impl Spot {
    pub fn of(site: &Site) -> Result<Spot, Failed> {
        let failed = |what: &str, error: io::Error| {
            Failed::new(Code::Failed, format!("{what} {}: {error}", site.data_dir.display()))
        };
        let data = match site.data_dir.canonicalize() {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = site.data_dir.parent().unwrap_or(Path::new("/"));
                fs::create_dir_all(parent).map_err(|error| failed("cannot make the directory above", error))?;
                let parent = parent.canonicalize().map_err(|error| failed("cannot find", error))?;
                parent.join(site.data_dir.file_name().unwrap_or_default())
            }
            Err(error) => return Err(failed("cannot find", error)),
        };
        let (Some(parent), Some(name)) = (data.parent(), data.file_name()) else {
            return Err(Failed::new(Code::Impossible, "the root directory cannot be a data directory"));
        };
        let name = name.to_string_lossy();
        let beside = |what: &str| parent.join(format!(".{name}.{PREFIX}{what}"));
        let inside = |what: &str| data.join(format!("{PREFIX}{what}"));
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
        let is_inside = data.exists() && (device(parent) != device(&data) || !is_writable(&beside("probe")));
        Ok(match is_inside {
            true => Spot { new: inside("new"), old: inside("old"), data, is_inside },
            false => Spot { new: beside("new"), old: beside("old"), data, is_inside },
        })
    }

    /// Undoes or ends what an interrupted repair has left.
    pub async fn recover(&self, site: &Site, note: Option<&mut Note>) -> Result<(), Failed> {
        if !self.is_inside {
            // Between the two renames of a swap: the data is still as it was.
            if self.old.exists() && !self.data.exists() {
                rename(&self.old, &self.data)?;
            }
        } else if let Some(note) = note
            && matches!(note.stage, Stage::MovingOut | Stage::MovingIn)
        {
            self.move_entries(site, note)?;
        }
        self.discard(&self.new).await;
        self.discard(&self.old).await;
        for place in self.new.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten() {
            if place.file_name().to_string_lossy().contains(&format!("{PREFIX}gone")) {
                remove(place.path()).await;
            }
        }
        Ok(())
    }

    /// Where free space counts.
    pub fn file_system(&self) -> &Path {
        self.new.parent().unwrap_or(&self.data)
    }

    /// The new data takes the place of the old, which is where the answer says then.
    pub fn swap(&self, site: &Site, note: &mut Note) -> Result<Option<PathBuf>, Failed> {
        if self.is_inside {
            note.stage = Stage::MovingOut;
            note.write(site)?;
            self.move_entries(site, note)?;
        } else {
            if self.data.exists() {
                rename(&self.data, &self.old)?;
            }
            if let Err(error) = rename(&self.new, &self.data) {
                let _ = fs::rename(&self.old, &self.data);
                return Err(error);
            }
        }
        note.stage = Stage::Made;
        note.write(site)?;
        Ok(self.old.exists().then(|| self.old.clone()))
    }

    fn move_entries(&self, site: &Site, note: &mut Note) -> Result<(), Failed> {
        let failed = |error: &dyn std::fmt::Display| {
            Failed::new(Code::Failed, format!("cannot move files in {}: {error}", self.data.display()))
        };
        let names = |directory: &Path| -> Result<Vec<_>, Failed> {
            let entries = fs::read_dir(directory).map_err(|error| failed(&error))?.flatten();
            let names = entries.map(|entry| entry.file_name());
            Ok(names.filter(|name| name != "lost+found" && !name.to_string_lossy().starts_with(PREFIX)).collect())
        };
        if note.stage == Stage::MovingOut {
            if !self.old.is_dir() {
                site.runner.create_directory(&self.old, 0o700).map_err(|error| failed(&error))?;
            }
            for name in names(&self.data)? {
                rename(&self.data.join(&name), &self.old.join(&name))?;
            }
            note.stage = Stage::MovingIn;
            note.write(site)?;
        }
        // The control file last: without it nothing starts there.
        let mut new = names(&self.new)?;
        new.sort_by_key(|name| name == "global");
        for name in new {
            rename(&self.new.join(&name), &self.data.join(&name))?;
        }
        fs::remove_dir(&self.new).map_err(|error| failed(&error))?;
        note.stage = Stage::Made;
        note.write(site)
    }

    /// Frees the data directory before there is anything new.
    pub async fn remove_data(&self) -> Result<(), Failed> {
        if !self.is_inside {
            self.discard(&self.data).await;
            return Ok(());
        }
        let entries = fs::read_dir(&self.data).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name() != "lost+found") {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => remove(path).await,
                _ => drop(fs::remove_file(path)),
            }
        }
        Ok(())
    }

    /// Removes a directory. It has another name at once, so that whoever comes next is not in its way.
    pub async fn discard(&self, path: &Path) {
        let gone = self.new.with_file_name(format!("{PREFIX}gone-{}", nanos()));
        match fs::rename(path, &gone) {
            Ok(()) => remove(gone).await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a directory could not be moved away");
                remove(path.to_path_buf()).await;
            }
        }
    }
}

fn is_writable(probe: &Path) -> bool {
    let made = fs::create_dir(probe);
    let _ = fs::remove_dir(probe);
    made.is_ok() || made.is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
}

/// Goes on if nobody waits for it any more.
async fn remove(path: PathBuf) {
    let removing = move || {
        if let Err(error) = fs::remove_dir_all(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a directory could not be removed");
        }
    };
    let _ = tokio::task::spawn_blocking(removing).await;
}

/// On the disk when this returns.
fn rename(from: &Path, to: &Path) -> Result<(), Failed> {
    let done = fs::rename(from, to).and_then(|()| match to.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    });
    done.map_err(|error| {
        Failed::new(Code::Failed, format!("cannot rename {} to {}: {error}", from.display(), to.display()))
    })
}
