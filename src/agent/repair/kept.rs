//! Data of the past: what a node had that its cluster does not have is put aside, named, and bounded in size.
//!
//! `kept_dir/<time>-<timeline>-<position>/` has `about.json`, and `wal/` (the files of the log from the fork on) or `data/` (the
//! whole data directory as it was).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::agent::{Failed, Site};
use crate::cluster::agent::{Code, Diverged};
use crate::programs::Runner;
use crate::types::{Lsn, Timeline, calendar};

const UNFINISHED: &str = ".unfinished-";

/// `about.json`, for people.
#[derive(Serialize)]
struct About<'a> {
    node: &'a str,
    what: &'a str,
    timeline: u32,
    from: String,
    to: String,
    commits: Option<u64>,
    why: &'a str,
    how_to_look: &'a str,
}

pub fn make_directory(site: &Site) -> Result<(), Failed> {
    if site.kept_dir.is_dir() {
        return Ok(());
    }
    let failed =
        |error: &dyn std::fmt::Display| Failed::new(Code::Failed, format!("data cannot be kept aside: {error}"));
    if let Some(parent) = site.kept_dir.parent() {
        fs::create_dir_all(parent).map_err(|error| failed(&error))?;
    }
    site.runner.create_directory(&site.kept_dir, 0o700).map_err(|error| failed(&error))
}

/// Copies these files of the log. The directory they are in then, or why they were not kept.
pub async fn keep_log(site: &Site, files: Vec<String>, lost: &Diverged, why: &str) -> Result<PathBuf, String> {
    // It was kept when this was tried before.
    if let Some(known) = entries(&site.kept_dir).into_iter().find(|path| name_of(path).ends_with(&suffix(lost))) {
        return Ok(known);
    }
    let source = site.data("pg_wal");
    let files: Vec<String> = files.into_iter().filter(|name| source.join(name).is_file()).collect();
    if files.is_empty() {
        return Err("none of these files of the log is there any more".into());
    }
    let bytes: u64 = files.iter().filter_map(|name| source.join(name).metadata().ok()).map(|file| file.len()).sum();
    if bytes > site.keep_bytes {
        return Err(format!("{bytes} bytes of the log are more than may be kept ({})", site.keep_bytes));
    }
    let histories = fs::read_dir(&source).map_err(|error| error.to_string())?.flatten();
    let histories = histories.filter_map(|entry| entry.file_name().into_string().ok());
    let files: Vec<String> = files.into_iter().chain(histories.filter(|name| name.ends_with(".history"))).collect();
    prune(&site.kept_dir, site.keep_bytes.saturating_sub(bytes));
    let about = about(
        site,
        lost,
        why,
        "the write-ahead log of this node from the fork on, in wal/",
        "pg_waldump -p wal (of the same major version) prints its records; -r Transaction those of commits",
    );
    let (name, runner, kept) = (new_name(lost), site.runner.clone(), site.kept_dir.clone());
    let made = move || -> io::Result<PathBuf> {
        let unfinished = kept.join(format!("{UNFINISHED}{name}-{}", nanos()));
        create(&runner, &unfinished)?;
        create(&runner, &unfinished.join("wal"))?;
        for file in files {
            let to = unfinished.join("wal").join(&file);
            write(&runner, &to, &fs::read(source.join(&file))?)?;
            fs::File::open(&to)?.sync_all()?;
        }
        write(&runner, &unfinished.join("about.json"), about.as_bytes())?;
        let path = kept.join(name);
        fs::rename(&unfinished, &path)?;
        fs::File::open(&kept)?.sync_all()?;
        Ok(path)
    };
    let made = tokio::task::spawn_blocking(made).await.map_err(|error| error.to_string())?;
    made.map_err(|error| format!("the log could not be copied aside: {error}"))
}

/// Moves a whole data directory there. `Err`: it is too big, or cannot be moved; it is where it was.
pub fn keep_data(site: &Site, data: &Path, bytes: u64, lost: &Diverged, why: &str) -> Result<PathBuf, String> {
    if bytes > site.keep_bytes {
        return Err(format!("its {bytes} bytes are more than may be kept ({})", site.keep_bytes));
    }
    prune(&site.kept_dir, site.keep_bytes.saturating_sub(bytes));
    // What was kept of its log lies beside it.
    let path = site.kept_dir.join(format!("{}-data", new_name(lost)));
    let about = about(
        site,
        lost,
        why,
        "the data directory of this node as it was, in data/",
        "a server of the same major version can be started on a copy of it, with another port and as no standby",
    );
    let moved = || -> io::Result<()> {
        create(&site.runner, &path)?;
        write(&site.runner, &path.join("about.json"), about.as_bytes())?;
        fs::rename(data, path.join("data"))
    };
    moved().map_err(|error| {
        let _ = fs::remove_file(path.join("about.json"));
        let _ = fs::remove_dir(&path);
        format!("it could not be moved to {}: {error}", site.kept_dir.display())
    })?;
    Ok(path)
}

/// Removes the oldest until no more than so many bytes are left.
pub fn prune(kept: &Path, bytes: u64) {
    let mut entries = entries(kept);
    let mut sizes: Vec<u64> = entries.iter().map(|path| size(path)).collect();
    while sizes.iter().sum::<u64>() > bytes && !entries.is_empty() {
        let (path, size) = (entries.remove(0), sizes.remove(0));
        tracing::warn!(path = %path.display(), bytes = size, "removed data that was kept aside, for its size");
        // Its name goes at once; the rest may take a while, and is swept up next time if it is cut off.
        let gone = kept.join(format!("{UNFINISHED}{}", nanos()));
        let _ = fs::rename(&path, &gone);
        std::thread::spawn(move || fs::remove_dir_all(gone));
    }
}

/// What copies that were never finished have left.
pub fn sweep(kept: &Path) {
    for entry in fs::read_dir(kept).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The oldest first.
pub fn entries(kept: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(kept).into_iter().flatten().flatten();
    let found = found.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    let mut found: Vec<PathBuf> = found.filter(|path| !name_of(path).starts_with('.')).collect();
    found.sort();
    found
}

/// What it takes on the disk, with everything below it.
pub fn size(path: &Path) -> u64 {
    let Ok(found) = path.symlink_metadata() else { return 0 };
    let below = match found.is_dir() {
        true => fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum(),
        false => 0,
    };
    found.blocks() * 512 + below
}

fn about(site: &Site, lost: &Diverged, why: &str, what: &str, how_to_look: &str) -> String {
    let about = About {
        node: &site.node.0,
        what,
        timeline: lost.timeline.0,
        from: lost.from.to_string(),
        to: lost.to.to_string(),
        commits: lost.commits,
        why,
        how_to_look,
    };
    serde_json::to_string_pretty(&about).unwrap_or_default() + "\n"
}

fn create(runner: &Runner, path: &Path) -> io::Result<()> {
    runner.create_directory(path, 0o700).map_err(|error| io::Error::other(error.to_string()))
}

fn write(runner: &Runner, path: &Path, contents: &[u8]) -> io::Result<()> {
    runner.write(path, contents).map_err(|error| io::Error::other(error.to_string()))
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn suffix(lost: &Diverged) -> String {
    let Diverged { timeline: Timeline(timeline), to: Lsn(to), .. } = lost;
    format!("-{timeline}-{:X}_{:X}", to >> 32, to & 0xffff_ffff)
}

fn new_name(lost: &Diverged) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{}{}", written(seconds), suffix(lost))
}

/// Different for each that is made.
pub fn nanos() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

/// `20260131T235959Z`: sorts as it was.
fn written(seconds: u64) -> String {
    let [year, month, day, hour, minute, second] = calendar(seconds);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        assert_eq!(written(0), "19700101T000000Z");
        assert_eq!(written(951_782_399), "20000228T235959Z");
        assert_eq!(written(951_782_400), "20000229T000000Z");
        assert_eq!(written(1_798_761_599), "20261231T235959Z");
    }

    #[test]
    fn the_oldest_goes_first_and_only_as_much_as_must() {
        let kept = tempfile::tempdir().unwrap();
        for name in ["20260102T000000Z-1-0_1", "20260101T000000Z-1-0_1", "20260103T000000Z-1-0_1"] {
            fs::create_dir(kept.path().join(name)).unwrap();
            fs::write(kept.path().join(name).join("wal"), vec![1; 100_000]).unwrap();
        }
        let one = size(&entries(kept.path())[0]);
        assert!(one >= 100_000, "{one}");
        prune(kept.path(), 3 * one);
        assert_eq!(entries(kept.path()).len(), 3);
        prune(kept.path(), 2 * one);
        let left: Vec<String> = entries(kept.path()).iter().map(|path| name_of(path)).collect();
        assert_eq!(left, ["20260102T000000Z-1-0_1", "20260103T000000Z-1-0_1"]);
        prune(kept.path(), 0);
        assert!(entries(kept.path()).is_empty());
    }
}
