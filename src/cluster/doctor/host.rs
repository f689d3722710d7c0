//! The machine a node is on, as far as an agent beside it says: room on its disks, programs, the data directory.

use super::facts::{Agent, Case, Patient, Room, Setting, Site};
use super::{Check, Judge, Level, Notes, check, fix};

/// Below these a disk is nearly full. A tenth of a large disk is plenty.
const WARN_BYTES: u64 = 2 << 30;
const WARN_PART: u64 = 10;
const PLENTY_BYTES: u64 = 20 << 30;
/// Below this the next burst of writes stops the server: so much, or so many segments of the log.
const ERROR_BYTES: u64 = 1 << 30;
const ERROR_SEGMENTS: u64 = 16;

pub(super) const CHECKS: &[Check] = &[
    check(
        "agent",
        "the agent beside it answers, to our token",
        "nobody stops, rewinds or copies that node: once it was a primary it stays away until somebody does so by hand",
        Judge::Node(agent),
    ),
    check(
        "disk_space",
        "its disks have room: 2 GiB and a tenth, or 20 GiB",
        "a primary with a full disk stops; a standby falls behind; nothing can be copied",
        Judge::Node(disk_space),
    ),
    check(
        "programs",
        "PostgreSQL's programs are there, and of the version of the data",
        "a node that has diverged cannot be rewound or copied",
        Judge::Node(programs),
    ),
    check(
        "data_directory",
        "it belongs to the server's user, and nobody else gets in",
        "PostgreSQL refuses to start",
        Judge::Node(data_directory),
    ),
];

fn site(node: &Patient) -> Option<&Site> {
    match &node.agent {
        Agent::Answers(site) => Some(site),
        _ => None,
    }
}

fn agent(_: &Case, node: &Patient, notes: &mut Notes) {
    match &node.agent {
        Agent::None => notes.leave_open(),
        Agent::Silent(reason) => notes.error(
            format!("its agent does not answer: {reason}"),
            format!(
                "on the host of {}: pgbaton agent -c agent.toml; or correct `agent` of {} in the configuration",
                node.id, node.id
            ),
        ),
        Agent::Refused(reason) => notes.error(
            format!("its agent does not take our token: {reason}"),
            format!(
                "make `token` in the agent.toml of {} and cluster.agent_token the same, and restart whose was changed",
                node.id
            ),
        ),
        Agent::Answers(site) if !site.has_token => notes.warn(
            "its agent has no token: whoever can connect to it can stop and rebuild the server",
            format!(
                "`token` in the agent.toml of {}, and the same as cluster.agent_token: openssl rand -hex 16",
                node.id
            ),
        ),
        Agent::Answers(_) => {}
    }
}

/// How bad it is that there is so little room, if it is.
pub(super) fn little(room: Room, segment_bytes: u64) -> Option<Level> {
    let error = ERROR_BYTES.max(segment_bytes.saturating_mul(ERROR_SEGMENTS));
    match room.free {
        free if free < error => Some(Level::Error),
        free if free < WARN_BYTES => Some(Level::Warning),
        free if free < PLENTY_BYTES && free < room.total / WARN_PART => Some(Level::Warning),
        _ => None,
    }
}

pub(super) fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

fn disk_space(_: &Case, node: &Patient, notes: &mut Notes) {
    let Some(site) = site(node) else { return notes.leave_open() };
    let segment = node.seen().and_then(|seen| seen.settings.get("wal_segment_size")).and_then(Setting::number);
    let segment = segment.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    let places = [("its data directory", site.data), ("pg_wal", site.wal), ("the data kept aside", site.kept)];
    let mut said: Vec<Room> = Vec::new();
    for (what, room) in places {
        let Some(room) = room else { continue };
        // One file system is complained of once.
        if let Some(level) = little(room, segment).filter(|_| !said.contains(&room)) {
            said.push(room);
            notes.complain(
                level,
                format!(
                    "the file system of {what} ({}) has {} of {} left",
                    site.data_dir,
                    gibibytes(room.free),
                    gibibytes(room.total)
                ),
                format!(
                    "on the host of {}: du -xh -d1 {}; then remove what is not needed, or give it more room",
                    node.id, site.data_dir
                ),
            );
        }
    }
}

fn programs(_: &Case, node: &Patient, notes: &mut Notes) {
    let Some(site) = site(node) else { return notes.leave_open() };
    let package = site.data_version.unwrap_or(site.version);
    if !site.missing.is_empty() {
        notes.warn(
            format!("{} lacks {}", site.bin_dir, site.missing.join(", ")),
            format!("on the host of {}: apt-get install postgresql-{package}", node.id),
        );
    }
    if let Some(data) = site.data_version.filter(|data| *data != site.version) {
        notes.error(
            format!("its programs in {} are of version {}, and its data of {data}", site.bin_dir, site.version),
            format!("`bin_dir` in the agent.toml of {}: that of version {data}; then restart the agent", node.id),
        );
    }
}

fn data_directory(_: &Case, node: &Patient, notes: &mut Notes) {
    let Some(site) = site(node) else { return notes.leave_open() };
    let Some(mode) = site.mode else { return notes.leave_open() };
    if mode & 0o027 != 0 {
        notes.error(
            format!("{} has the permissions {mode:o}: PostgreSQL starts with 0700 or 0750 only", site.data_dir),
            format!("on the host of {}: chmod 700 {}", node.id, site.data_dir),
        );
    }
    if !site.is_owned {
        notes.error(
            format!("{} does not belong to the user that the server runs as", site.data_dir),
            format!("on the host of {}: chown -R postgres: {}; then {}", node.id, site.data_dir, fix::restart(node)),
        );
    }
}
