//! `[failover]` and `[coordination]`: what the control plane may decide, and where it remembers what it decided.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::document::Document;
use super::{CoordinationKind, Rejoin};

/// `[failover]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failover {
    pub automatic: bool,
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub probe_timeout: Duration,
    /// At least 1.
    pub misses: u32,
    #[serde(with = "humantime_serde")]
    pub veto: Duration,
    #[serde(with = "humantime_serde")]
    pub restart_wait: Duration,
    #[serde(with = "humantime_serde")]
    pub anti_flap: Duration,
    #[serde(with = "humantime_serde")]
    pub voter_grace: Duration,
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    pub rejoin: Rejoin,
    #[serde(with = "humantime_serde")]
    pub hold: Duration,
    /// Statements.
    pub max_held: usize,
    /// Of all of them together.
    pub max_held_bytes: usize,
    pub ask_commits: bool,
}

impl Failover {
    pub(super) fn read(document: &Document<'_>) -> Failover {
        let section = document.section("failover");
        Failover {
            automatic: section.boolean("automatic").unwrap_or(true),
            probe_interval: section.duration("probe_interval"),
            probe_timeout: section.duration("probe_timeout"),
            misses: section.number("misses"),
            veto: section.duration("veto"),
            restart_wait: section.duration("restart_wait"),
            anti_flap: section.duration("anti_flap"),
            voter_grace: section.duration("voter_grace"),
            drain: section.duration("drain"),
            rejoin: section.choice("rejoin", Rejoin::parse).unwrap_or(Rejoin::Auto),
            hold: section.duration("hold"),
            max_held: section.count("max_held"),
            max_held_bytes: section.size("max_held_bytes"),
            ask_commits: section.boolean("ask_commits").unwrap_or(true),
        }
    }
}

/// `[coordination]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Coordination {
    /// Always `Embedded` for now: a file with the other is refused.
    pub kind: CoordinationKind,
    /// Of the embedded store.
    pub path: PathBuf,
}

impl Coordination {
    pub(super) fn read(document: &Document<'_>) -> Option<Coordination> {
        let section = document.section("coordination");
        let kind = section.choice("kind", CoordinationKind::parse);
        if kind == Some(CoordinationKind::Etcd) {
            let reason = "\"etcd\" is not built yet: run one pgbaton, with \"embedded\"";
            section.refuse("kind", reason);
        }
        let path = section.state_file("path");
        Some(Coordination { kind: kind?, path })
    }
}
