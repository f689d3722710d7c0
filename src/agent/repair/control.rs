//! What `pg_control` says, as `pg_controldata` prints it.

use crate::types::{Lsn, Timeline};

/// As far as a repair has to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    pub system_identifier: u64,
    /// In PostgreSQL's words: `in production`, `shut down in recovery`.
    pub state: String,
    pub timeline: Timeline,
    pub checkpoint: Lsn,
    /// The data is not consistent before the log was replayed up to here; 0 of a primary.
    pub needs: Lsn,
    pub needs_timeline: Timeline,
    pub has_full_pages: bool,
    /// Hint bits are in the log: by `wal_log_hints`, or because of checksums.
    pub logs_hints: bool,
    pub segment_bytes: u64,
    pub page_bytes: u64,
}

impl Control {
    pub fn parse(text: &str) -> Result<Control, String> {
        if text.contains("WARNING") {
            return Err("pg_control is damaged: its checksum is wrong".into());
        }
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim).ok_or_else(|| format!("pg_controldata says nothing of \"{name}\""))
        };
        let number = |name: &str| {
            let text = field(name)?;
            text.parse::<u64>().map_err(|_| format!("pg_controldata says \"{text}\" of \"{name}\""))
        };
        let lsn = |name: &str| {
            let text = field(name)?;
            text.parse::<Lsn>().map_err(|()| format!("pg_controldata says \"{text}\" of \"{name}\""))
        };
        let timeline = |name: &str| number(name).map(|number| Timeline(number as u32));
        let is_on = |name: &str| field(name).map(|value| value == "on");
        let control = Control {
            system_identifier: number("Database system identifier")?,
            state: field("Database cluster state")?.to_owned(),
            timeline: timeline("Latest checkpoint's TimeLineID")?,
            checkpoint: lsn("Latest checkpoint location")?,
            needs: lsn("Minimum recovery ending location")?,
            needs_timeline: timeline("Min recovery ending loc's timeline")?,
            has_full_pages: is_on("Latest checkpoint's full_page_writes")?,
            logs_hints: is_on("wal_log_hints setting")? || number("Data page checksum version")? > 0,
            segment_bytes: number("Bytes per WAL segment")?,
            page_bytes: number("WAL block size")?,
        };
        let is_sensible = control.segment_bytes.is_power_of_two()
            && control.page_bytes.is_power_of_two()
            && (1 << 20..=1 << 30).contains(&control.segment_bytes)
            && control.page_bytes >= 1024;
        if is_sensible { Ok(control) } else { Err("pg_control has impossible sizes in it".into()) }
    }

    /// Nothing has to be replayed before something else may be done with the data.
    pub fn is_clean(&self) -> bool {
        matches!(self.state.as_str(), "shut down" | "shut down in recovery")
    }
}

#[cfg(test)]
pub(super) const EXAMPLE: &str = "\
pg_control version number:            1300
Database system identifier:           7412345678901234567
Database cluster state:               in production
Latest checkpoint location:           0/3000110
Latest checkpoint's REDO location:    0/30000D8
Latest checkpoint's TimeLineID:       2
Latest checkpoint's PrevTimeLineID:   2
Latest checkpoint's full_page_writes: on
Minimum recovery ending location:     0/0
Min recovery ending loc's timeline:   0
wal_log_hints setting:                on
WAL block size:                       8192
Bytes per WAL segment:                16777216
Data page checksum version:           0
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_pg_controldata_prints_it() {
        let control = Control::parse(EXAMPLE).unwrap();
        assert_eq!(control.system_identifier, 7412345678901234567);
        assert_eq!((control.timeline, control.checkpoint), (Timeline(2), Lsn(0x300_0110)));
        assert!(control.logs_hints && control.has_full_pages && !control.is_clean());
        let without =
            Control::parse(&EXAMPLE.replace("hints setting:                on", "hints setting: off")).unwrap();
        assert!(!without.logs_hints);
        let summed = EXAMPLE.replace("hints setting:                on", "hints setting: off");
        let summed = Control::parse(&summed.replace("version:           0", "version: 1")).unwrap();
        assert!(summed.logs_hints);
        assert!(Control::parse(&EXAMPLE.replace("in production", "shut down")).unwrap().is_clean());
    }

    #[test]
    fn damage_is_seen() {
        let warning = "WARNING: Calculated CRC checksum does not match value stored in file.\n".to_owned();
        assert!(Control::parse(&(warning + EXAMPLE)).unwrap_err().contains("damaged"));
        assert!(Control::parse(&EXAMPLE.replace("16777216", "0")).is_err());
        assert!(Control::parse("").is_err());
    }
}
