//! What the agent says of its machine to the doctor, for `GET /survey`: room on its disks, programs, the data directory.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::site::Site;
use crate::cluster::doctor::facts::{Room, Site as Told};

/// What a repair runs, and `initdb`.
const PROGRAMS: &[&str] = &["pg_rewind", "pg_basebackup", "pg_controldata", "pg_waldump"];

/// A file system that hangs keeps whoever looks at it.
const LIMIT: Duration = Duration::from_millis(1500);

/// `has_token`: one is asked for.
pub async fn survey(site: &Arc<Site>, has_token: bool) -> Told {
    let here = site.clone();
    let look = tokio::task::spawn_blocking(move || look(&here));
    let told = timeout(LIMIT, look).await.ok().and_then(Result::ok);
    let told = told.unwrap_or_else(|| blind(site));
    Told { has_token, ..told }
}

/// What is known without touching a disk.
fn blind(site: &Site) -> Told {
    Told {
        data_dir: site.data_dir.display().to_string(),
        data: None,
        wal: None,
        kept: None,
        mode: None,
        is_owned: true,
        bin_dir: site.bin.directory().display().to_string(),
        version: site.bin.version(),
        data_version: None,
        missing: Vec::new(),
        has_token: false,
    }
}

fn look(site: &Site) -> Told {
    let directory = std::fs::metadata(&site.data_dir).ok();
    let owner = site.runner.run_as.as_ref().map_or(rustix::process::geteuid().as_raw(), |user| user.uid());
    let version = std::fs::read_to_string(site.data("PG_VERSION")).ok();
    Told {
        data: room(&site.data_dir),
        wal: room(&site.data("pg_wal")),
        kept: room(&site.kept_dir),
        mode: directory.as_ref().map(|directory| directory.permissions().mode() & 0o777),
        is_owned: directory.is_none_or(|directory| directory.uid() == owner),
        data_version: version.and_then(|version| version.trim().parse().ok()),
        missing: PROGRAMS.iter().filter(|name| !site.bin.program(name).is_file()).map(ToString::to_string).collect(),
        ..blind(site)
    }
}

fn room(path: &Path) -> Option<Room> {
    let space = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
    Some(Room { free: bytes(space.f_bavail), total: bytes(space.f_blocks) })
}
