//! `pg_rewind`: what a node has that its primary has not is undone, and the rest stays.

use std::fs;

use super::control::Control;
use super::note::{Note, Stage};
use super::server::Source;
use super::{program, settings};
use crate::agent::{Failed, Site, Steps};
use crate::cluster::agent::Code;

/// Why this data cannot be rewound against that primary, as far as can be known beforehand.
pub async fn refused(site: &Site, control: &Control, source: &Source) -> Result<Option<String>, Failed> {
    if !control.logs_hints {
        return Ok(Some("neither wal_log_hints nor checksums are on here".into()));
    }
    if !control.has_full_pages {
        return Ok(Some("full_page_writes is off here".into()));
    }
    if !site.bin.program("pg_rewind").is_file() {
        return Ok(Some("there is no pg_rewind here".into()));
    }
    source.refuses_rewind().await
}

/// Replays the log after a crash, as `pg_rewind` would have it done before it begins, but without removing any of it: the
/// checkpoint at the end takes away what was before the last one, which may be just what the rewind has to begin from.
async fn recover(site: &Site, steps: &Steps) -> Result<(), Failed> {
    steps.say("recovering from the crash before it is rewound");
    // Alone it refuses to be a standby.
    for name in ["standby.signal", "recovery.signal"] {
        let _ = fs::remove_file(site.data(name));
    }
    let mut command = program::command(site, "postgres");
    command.arg("--single").arg("-D").arg(&site.data_dir);
    // In MB, the most that there is. Nobody is asked for an acknowledgement.
    command.args(["-c", "wal_keep_size=2147483647", "-c", "synchronous_standby_names=", "template1"]);
    program::run(command, "crash recovery", |_| (), |_| false).await?.check("crash recovery")
}

/// The files of the log that are not of the primary's timelines. `pg_rewind` leaves those that it looked for the last common
/// checkpoint in, and the next promotion may give their timeline's number to another one.
fn remove_undone(site: &Site, source: &Source) {
    let Ok(entries) = fs::read_dir(site.data("pg_wal")) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| u32::from_str_radix(name.get(..8)?, 16).ok());
        let is_theirs = |number| source.chain.iter().any(|stretch| stretch.timeline.0 == number);
        if number.is_some_and(|number| !is_theirs(number))
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(%error, file = %entry.path().display(), "the log of a timeline that was undone stays");
        }
    }
}

/// From the moment it begins until it has ended well, the data is of no use to anybody: the note says so.
pub async fn rewind(
    site: &Site,
    control: &Control,
    source: &Source,
    note: &mut Note,
    steps: &Steps,
) -> Result<(), Failed> {
    steps.say("waiting for a checkpoint of the primary");
    source.checkpoint().await?;
    settings::save(site)?;
    if !control.is_clean() {
        recover(site, steps).await?;
    }
    note.stage = Stage::Unusable;
    note.write(site)?;
    let mut conninfo = source.conninfo.clone();
    conninfo.set("dbname", "postgres");
    let mut command = program::command(site, "pg_rewind");
    command.arg("-D").arg(&site.data_dir).arg("--source-server").arg(program::without_secrets(&conninfo));
    command.arg("--progress");
    steps.say("rewinding");
    let is_progress = |line: &str| {
        // `12345/67890 kB (18%) copied`
        if let Some((percent, _)) = line.split_once("%)").filter(|_| line.ends_with("copied")) {
            let percent = percent.rsplit('(').next().unwrap_or_default();
            steps.tell(format!("rewinding: {percent} % copied"));
            return true;
        }
        false
    };
    let ended = program::run(command, "pg_rewind", |_| (), is_progress).await?;
    if ended.status.success() && ended.complaint.contains("no rewind required") {
        let why = "pg_rewind takes the data for a beginning of the primary's, which it is not";
        return Err(Failed::new(Code::Failed, why));
    }
    ended.check("pg_rewind")?;
    remove_undone(site, source);
    settings::restore(site, &site.data_dir)?;
    settings::prepare(site, &site.data_dir, source)?;
    note.stage = Stage::Made;
    note.write(site)
}
