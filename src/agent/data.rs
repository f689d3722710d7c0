//! What lies in the data directory, by what `pg_controldata` says of it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::site::Site;
use crate::cluster::agent::Data;
use crate::types::{Lsn, Timeline};

/// These programs read a file or two.
const LIMIT: Duration = Duration::from_secs(10);

/// Written before a cluster is made in an empty directory, and removed when it is complete: what is there meanwhile is
/// nobody's data.
pub const UNFINISHED: &str = "initialising";

/// Remembers the last answer for as long as the control file is the same.
#[derive(Default)]
pub struct DataReader(Mutex<Option<(Stamp, Data)>>);

/// What changes whenever the control file does: it is replaced or written at each checkpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    file: (u64, u64),
    is_standby: bool,
}

impl DataReader {
    pub async fn read(&self, site: &Site, agent_dir: &Path) -> Data {
        // Its control file may look as if nothing had happened.
        if let Some(reason) = super::repair::unfinished(site) {
            return Data::Unusable { reason };
        }
        let directory = match std::fs::read_dir(&site.data_dir) {
            Ok(mut entries) => match entries.next() {
                None => return Data::Absent,
                Some(_) if agent_dir.join(UNFINISHED).exists() => {
                    return Data::Unusable { reason: "a cluster was being made here, and is not complete".into() };
                }
                Some(_) => &site.data_dir,
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Data::Absent,
            Err(error) => {
                return Data::Unusable { reason: format!("cannot read {}: {error}", site.data_dir.display()) };
            }
        };
        let stamp = match directory.join("global/pg_control").metadata() {
            Ok(facts) => Stamp {
                modified: (facts.mtime(), facts.mtime_nsec()),
                file: (facts.dev(), facts.ino()),
                is_standby: directory.join("standby.signal").exists(),
            },
            Err(error) => {
                let reason =
                    format!("{} is no data directory of PostgreSQL's: global/pg_control: {error}", directory.display());
                return Data::Unusable { reason };
            }
        };
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, data)) = known.filter(|(of, _)| *of == stamp) {
            return data;
        }
        let data = match ask(site, stamp.is_standby).await {
            Ok(data) => data,
            // Not remembered: what kept the program from running may pass.
            Err(reason) => return Data::Unusable { reason },
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, data.clone()));
        data
    }
}

async fn ask(site: &Site, is_standby: bool) -> Result<Data, String> {
    let version = std::fs::read_to_string(site.data("PG_VERSION")).unwrap_or_default();
    if version.trim() != site.bin.version().to_string() {
        return Err(format!(
            "the data is of PostgreSQL {}, the programs are of {}",
            version.trim(),
            site.bin.version()
        ));
    }
    let text = run(site, "pg_controldata", &["-D".as_ref(), site.data_dir.as_ref()]).await?;
    parse(&text, is_standby)
}

async fn run(site: &Site, program: &str, arguments: &[&std::ffi::OsStr]) -> Result<String, String> {
    let mut command = site.runner.command(&site.bin.program(program));
    command.env("LC_ALL", "C").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = Command::from(command);
    let ended = timeout(LIMIT, command.kill_on_drop(true).output()).await;
    let output = match ended {
        Ok(output) => output.map_err(|error| format!("cannot run {program}: {error}"))?,
        Err(_) => return Err(format!("{program} does not end")),
    };
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn parse(text: &str, is_standby: bool) -> Result<Data, String> {
    if text.contains("WARNING: Calculated CRC checksum does not match") {
        return Err("the control file is damaged (its checksum is wrong)".into());
    }
    let find = |label: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(':'));
        line.map(str::trim).ok_or_else(|| format!("pg_controldata does not tell \"{label}\""))
    };
    let number = |label: &str| {
        let found = find(label)?;
        found.parse::<u64>().map_err(|_| format!("pg_controldata tells \"{found}\" of \"{label}\""))
    };
    let checkpoint = find("Latest checkpoint location")?;
    let timeline = number("Latest checkpoint's TimeLineID")?.max(number("Min recovery ending loc's timeline")?);
    Ok(Data::Present {
        system_identifier: number("Database system identifier")?,
        timeline: Timeline(u32::try_from(timeline).map_err(|_| "a timeline beyond all bounds".to_owned())?),
        is_standby,
        is_clean: matches!(find("Database cluster state")?, "shut down" | "shut down in recovery"),
        checkpoint: checkpoint
            .parse()
            .map_err(|()| format!("pg_controldata tells of a checkpoint at \"{checkpoint}\""))?,
    })
}

/// A page of the log, and the header of each but the first of a segment, whose is longer.
const PAGE: u64 = 8192;
const HEADER: u64 = 24;

/// A checkpoint's record, where `pg_waldump` does not tell.
const CHECKPOINT_RECORD: u64 = 114;

/// Where the log of a server ends that was shut down cleanly: behind the record of its last checkpoint.
pub async fn end_of_log(site: &Site, timeline: Timeline, checkpoint: Lsn) -> Lsn {
    let (directory, start) = (site.data("pg_wal"), checkpoint.to_string());
    let timeline = timeline.0.to_string();
    let arguments = ["-p".as_ref(), directory.as_os_str(), "-t".as_ref(), timeline.as_ref(), "-s".as_ref()];
    let arguments = [&arguments[..], &[start.as_ref(), "-n".as_ref(), "1".as_ref()]].concat();
    let length = run(site, "pg_waldump", &arguments).await.ok().and_then(|text| total_length(&text));
    end_of_record(checkpoint, length.unwrap_or(CHECKPOINT_RECORD))
}

/// `rmgr: XLOG        len (rec/tot):    114/   114, tx: …`
fn total_length(text: &str) -> Option<u64> {
    let after = text.split_once("len (rec/tot):")?.1;
    after.split_once('/')?.1.split(',').next()?.trim().parse().ok()
}

/// Records are padded to eight bytes, and go on behind the header of the next page.
fn end_of_record(start: Lsn, length: u64) -> Lsn {
    let length = length.next_multiple_of(8);
    let room = PAGE - start.0 % PAGE;
    // A checkpoint's record is shorter than a page. Where the next page begins a segment its header is longer, which is
    // 16 bytes of no consequence: nothing but a header follows.
    Lsn(if length <= room { start.0 + length } else { start.0 + room + HEADER + (length - room) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
pg_control version number:            1300
Catalog version number:               202209061
Database system identifier:           7438912345678901234
Database cluster state:               shut down
Latest checkpoint location:           0/3000110
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/0
Min recovery ending loc's timeline:   3
";

    #[test]
    fn what_pg_controldata_says_is_read() {
        let expected = Data::Present {
            system_identifier: 7_438_912_345_678_901_234,
            timeline: Timeline(3),
            is_standby: true,
            is_clean: true,
            checkpoint: Lsn(0x300_0110),
        };
        assert_eq!(parse(SAID, true), Ok(expected));
        let crashed = SAID.replace("shut down", "in production");
        assert!(matches!(parse(&crashed, false), Ok(Data::Present { is_clean: false, is_standby: false, .. })));
        let damaged = format!("WARNING: Calculated CRC checksum does not match value stored in file.\n{SAID}");
        assert!(parse(&damaged, false).unwrap_err().contains("damaged"));
        assert!(parse("", false).is_err());
    }

    #[test]
    fn a_record_ends_behind_its_padding_and_perhaps_on_the_next_page() {
        let said = "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/03000110, prev 0/030000D8";
        assert_eq!(total_length(said), Some(114));
        assert_eq!(end_of_record(Lsn(0x300_0028), 114), Lsn(0x300_00A0));
        assert_eq!(end_of_record(Lsn(0x300_2000 - 120), 114), Lsn(0x300_2000));
        assert_eq!(end_of_record(Lsn(0x300_2000 - 112), 114), Lsn(0x300_2000 + 24 + 8));
    }
}
