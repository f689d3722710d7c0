//! The settings file of the agent's own, and what is said on the server's command line.
//!
//! The file, `pgbaton.conf` in the data directory, is what PostgreSQL is started with; it takes in the user's own
//! `postgresql.conf` first, which is left as it is. It is written before every start: one that came with a copy of another node
//! would be that one's. On the command line is only what must survive everything else, as that overrides ALTER SYSTEM, by which
//! pgbaton works.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::site::Site;
use super::{Failed, Settings};
use crate::cluster::agent::Code;
use crate::programs::ProgramError;

pub const FILE: &str = "pgbaton.conf";

/// What pgbaton relies on. PostgreSQL's defaults (5 s, 60 s, 60 s, 10 s) are for links between continents.
const RELIED_ON: &[(&str, &str)] = &[
    ("hot_standby", "on"),
    ("wal_log_hints", "on"),
    ("recovery_target_timeline", "latest"),
    ("wal_retrieve_retry_interval", "200ms"),
    ("wal_receiver_timeout", "5s"),
    ("wal_sender_timeout", "5s"),
    ("wal_receiver_status_interval", "1s"),
    // The session of a pgbaton, or a client, whose machine is gone keeps its locks until this notices. By default after two hours.
    ("tcp_keepalives_idle", "60"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "6"),
    // A node that stays away must not fill everybody's disk; beyond this it is copied anew. `[agent.postgres]` may say otherwise.
    ("max_slot_wal_keep_size", "10GB"),
];

/// Given on the command line where `[agent.postgres]` has them.
const FILES: &[&str] = &["hba_file", "ident_file"];

/// What the server is started with.
pub fn arguments(site: &Site, settings: &Settings) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-D".into(), site.data_dir.clone().into()];
    let mut set = |name: &str, value: &std::ffi::OsStr| {
        let mut text = OsString::from(format!("{name}="));
        text.push(value);
        arguments.extend(["-c".into(), text]);
    };
    set("config_file", site.data(FILE).as_os_str());
    set("port", site.port.to_string().as_ref());
    set("listen_addresses", settings.listen_addresses.as_ref());
    set("unix_socket_directories", site.socket_dir.as_os_str());
    for name in FILES {
        if let Some(file) = settings.postgres.get(*name) {
            set(name, file.as_ref());
        }
    }
    arguments
}

/// Writes the file: the old one or the new one is there, whatever happens.
pub fn write(site: &Site, postgres: &BTreeMap<String, String>) -> Result<(), Failed> {
    let text = text(&site.node.0, postgres);
    // What is there already needs no room on the disk.
    if std::fs::read_to_string(site.data(FILE)).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let (path, new) = (site.data(FILE), site.data(format!("{FILE}.tmp")));
    let written = site
        .runner
        .write(&new, text.as_bytes())
        .and_then(|()| std::fs::rename(&new, &path).map_err(ProgramError::io("cannot replace", &path)));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&new);
        Failed::new(code_of(&error), error.to_string())
    })
}

/// Whether the disk is full is what people and programs want to know of an error.
pub fn code_of(error: &ProgramError) -> Code {
    match error {
        ProgramError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => Code::DiskFull,
        ProgramError::Failed { output, .. } if output.contains("No space left on device") => Code::DiskFull,
        _ => Code::Failed,
    }
}

fn text(node: &str, postgres: &BTreeMap<String, String>) -> String {
    let own = Path::new("postgresql.conf");
    let file = postgres.get("config_file").map_or(own, Path::new);
    let mut text =
        String::from("# Written by `pgbaton agent` before every start: what is changed here by hand is lost.\n\n");
    text.push_str(&format!("include_if_exists = {}\n\n", quoted(&file.display().to_string())));
    text.push_str(&format!("cluster_name = {}\n", quoted(node)));
    for (name, value) in RELIED_ON {
        text.push_str(&format!("{name} = {}\n", quoted(value)));
    }
    text.push_str("\n# [agent.postgres]\n");
    for (name, value) in postgres {
        if name != "config_file" && !FILES.contains(&name.as_str()) {
            text.push_str(&format!("{name} = {}\n", quoted(value)));
        }
    }
    text
}

/// In a configuration file a backslash escapes, and a quote is doubled.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_settings_come_last_and_are_quoted() {
        let postgres =
            [("archive_command", r"cp '%p' C:\wal"), ("hba_file", "/etc/hba"), ("config_file", "/etc/pg.conf")];
        let postgres = postgres.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let text = text("n1", &postgres);
        assert!(text.contains("include_if_exists = '/etc/pg.conf'\n"), "{text}");
        assert!(text.ends_with("\n# [agent.postgres]\narchive_command = 'cp ''%p'' C:\\\\wal'\n"), "{text}");
        assert!(text.find("cluster_name = 'n1'") > text.find("include_if_exists"), "{text}");
        assert!(!text.contains("hba"), "{text}");
    }
}
