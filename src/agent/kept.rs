//! The data of the past that was kept aside, as it lies there.

use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::cluster::agent::Kept;

/// The newest last.
pub fn list(place: &Path) -> Vec<Kept> {
    let mut kept: Vec<Kept> = Vec::new();
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        // What a repair notes for itself.
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let modified = entry.metadata().and_then(|facts| facts.modified()).ok();
        let since = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        kept.push(Kept {
            path: entry.path().display().to_string(),
            bytes: size(&entry.path()),
            since: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        });
    }
    kept.sort_by_key(|kept| kept.since);
    kept
}

/// Links are not followed: what they point at is not kept here.
fn size(path: &Path) -> u64 {
    let Ok(facts) = path.symlink_metadata() else { return 0 };
    if !facts.is_dir() {
        return facts.len();
    }
    std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
}
