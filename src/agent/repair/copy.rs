//! Making a node anew with `pg_basebackup`. The old data stays until the new is whole, unless there is no room for both and
//! nothing in it that the primary has not.

use std::path::Path;

use super::note::{Note, Stage};
use super::server::Source;
use super::swap::Spot;
use super::{kept, program, settings};
use crate::agent::{Failed, Place, Site, Steps};
use crate::cluster::agent::{Code, Repair};

/// Besides the databases: the log that is written meanwhile, at the least, in files of it.
const SPARE_SEGMENTS: u64 = 3;

const SEGMENT_BYTES: &str = "SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'";

/// What the old data is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Worth {
    /// The primary has all of it, or it cannot be used.
    Nothing,
    /// It has what the primary has not.
    Something,
}

pub async fn rebuild(
    site: &Site,
    place: &Place,
    source: &Source,
    worth: Worth,
    note: &mut Note,
    steps: &Steps,
) -> Result<(), Failed> {
    let tablespaces = source.tablespaces().await?;
    if !tablespaces.is_empty() {
        return Err(Failed::new(
            Code::Impossible,
            format!(
                "the primary has tablespaces outside its data directory ({tablespaces}); copies of such are not made by \
                 the agent: take a pg_basebackup by hand, with --tablespace-mapping"
            ),
        ));
    }
    let spot = Spot::of(site)?;
    settings::save(site)?;
    make_room(site, source, worth, &spot, note, steps).await?;
    let made = site.runner.create_directory(&spot.new, 0o700);
    made.map_err(|error| Failed::new(Code::Failed, error.to_string()))?;
    if let Err(error) = fill(site, place, source, &spot.new, steps).await {
        spot.discard(&spot.new).await;
        return Err(error);
    }
    settings::restore(site, &spot.new)?;
    settings::prepare(site, &spot.new, source)?;
    let Some(old) = spot.swap(site, note)? else { return Ok(()) };
    // It is safe where it is; what is said of it is all that is left to do.
    if worth == Worth::Something
        && let Some(lost) = &mut note.diverged
    {
        let measured = old.clone();
        let bytes = tokio::task::spawn_blocking(move || kept::size(&measured)).await.unwrap_or(u64::MAX);
        match kept::keep_data(site, &old, bytes, lost, &note.why) {
            Ok(path) => lost.kept = path.display().to_string(),
            Err(reason) => steps.say(format!("the old data directory is removed: {reason}")),
        }
        note.write(site)?;
    }
    spot.discard(&old).await;
    Ok(())
}

async fn make_room(
    site: &Site,
    source: &Source,
    worth: Worth,
    spot: &Spot,
    note: &mut Note,
    steps: &Steps,
) -> Result<(), Failed> {
    let segment: i64 = source.asked.get(SEGMENT_BYTES).await?;
    let needed = source.size().await? + SPARE_SEGMENTS * segment.max(0) as u64;
    let free = || {
        let found = rustix::fs::statvfs(spot.file_system());
        found
            .map(|found| found.f_bavail * found.f_frsize)
            .map_err(|error| Failed::new(Code::Failed, format!("{}: {error}", spot.file_system().display())))
    };
    if free()? >= needed {
        return Ok(());
    }
    let old = kept::size(&site.data_dir);
    let numbers = format!("a copy of the primary needs {}, and {} are free", shown(needed), shown(free()?));
    if worth == Worth::Nothing && free()? + old >= needed {
        steps.say(format!("{numbers}: the old data ({}) is removed first, as the primary has all of it", shown(old)));
        note.stage = Stage::Unusable;
        note.write(site)?;
        return spot.remove_data().await;
    }
    let why = match worth {
        Worth::Nothing => "even without the old data that is not enough",
        Worth::Something => "the old data is kept, as it has what the primary has not",
    };
    Err(Failed::new(Code::DiskFull, format!("{numbers}; {why}")))
}

async fn fill(site: &Site, place: &Place, source: &Source, into: &Path, steps: &Steps) -> Result<(), Failed> {
    let mut command = program::command(site, "pg_basebackup");
    command.arg("-D").arg(into).arg("-d").arg(program::without_secrets(&source.conninfo));
    command.args(["-X", "stream", "-c", "fast", "--progress", "--no-password"]);
    if !source.slot.is_empty() {
        command.args(["-S", &source.slot]);
    }
    command.args(["-l", &format!("pgbaton: {} made anew", site.node)]);
    steps.say(format!("copying {}", place.node));
    let is_progress = |line: &str| match parse_progress(line) {
        Some((done, all)) => {
            let percent = (done * 100).checked_div(all).unwrap_or(0).min(100);
            steps.tell(format!("copying {}: {percent} % of {}", place.node, shown(all << 10)));
            true
        }
        None => false,
    };
    let ended = program::run(command, "pg_basebackup", |_| (), is_progress).await?;
    if ended.is_disk_full() {
        let why = format!("the disk is full: {}; what was copied is removed again", ended.complaint);
        return Err(Failed::new(Code::DiskFull, why));
    }
    ended.check("pg_basebackup")
}

/// `12345/67890 kB (18%), 0/1 tablespace (…)`
fn parse_progress(line: &str) -> Option<(u64, u64)> {
    let (done, rest) = line.trim().split_once('/')?;
    let (all, _) = rest.split_once(" kB")?;
    Some((done.trim().parse().ok()?, all.trim().parse().ok()?))
}

fn shown(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} kB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MB", bytes >> 20),
        _ => format!("{:.1} GB", bytes as f64 / f64::from(1 << 30)),
    }
}

/// For the note of a rebuild that begins.
pub fn note(source: &Source, why: &str) -> Note {
    Note {
        stage: Stage::Begun,
        repair: Repair::Rebuild,
        why: why.to_owned(),
        timeline: source.timeline,
        end: None,
        diverged: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_as_it_is_printed() {
        assert_eq!(parse_progress("  4096/23456 kB (17%), 0/1 tablespace (/x/base/1/2)"), Some((4096, 23456)));
        assert_eq!(parse_progress("pg_basebackup: error: could not write: No space left on device"), None);
        assert_eq!(shown(5 << 20), "5 MB");
        assert_eq!(shown(3 << 29), "1.5 GB");
    }
}
