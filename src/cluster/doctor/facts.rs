//! What the doctor goes by: what was asked of each node, of its agent and of pgbaton itself, before anything is judged.
//!
//! Most of it is read straight from the JSON that the nodes answer with (`node/survey.rs`). No password is in any of it: a
//! connection string is taken apart where it is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cluster::Picture;
use crate::types::{Durability, Epoch, NodeId, Timeline};

/// Everything that is judged.
#[derive(Clone, Debug)]
pub struct Case {
    pub wishes: Wishes,
    pub store: Store,
    /// What a running pgbaton believes; `None`: none runs, or it is not asked.
    pub picture: Option<Picture>,
    /// Databases and roles for which there are server connections, the most that any node has; 0 where none runs.
    pub pools: usize,
    pub nodes: Vec<Patient>,
}

/// The part of the configuration that findings depend on.
#[derive(Clone, Debug)]
pub struct Wishes {
    pub control_user: String,
    pub control_database: String,
    pub durability: Durability,
    pub acks: u32,
    /// It has nothing done to nodes unless it is ordered to.
    pub only_watches: bool,
    pub pool_size: usize,
    /// `failover.hold` and what a detection takes, in milliseconds.
    pub hold_ms: u64,
    pub detection_ms: u64,
    /// `admin.listen` as written; empty: it is off.
    pub admin: String,
    pub admin_is_loopback: bool,
    pub has_admin_token: bool,
    /// Of the schema that this pgbaton works with.
    pub schema_version: i32,
}

/// The file in which the record is kept.
#[derive(Clone, Debug, Default)]
pub struct Store {
    pub path: String,
    /// Why its directory cannot be written to.
    pub trouble: Option<String>,
    /// Its file system lives in memory.
    pub is_volatile: bool,
    pub room: Option<Room>,
    /// Of the record in it; `None`: there is none, or it cannot be read.
    pub epoch: Option<Epoch>,
}

/// One node of the configuration, and what came of asking it.
#[derive(Clone, Debug)]
pub struct Patient {
    pub id: NodeId,
    pub host: String,
    pub port: u16,
    pub priority: u32,
    pub agent: Agent,
    pub survey: Result<Box<Survey>, Unseen>,
}

impl Patient {
    pub fn seen(&self) -> Option<&Survey> {
        self.survey.as_deref().ok()
    }

    /// On our own machine: nobody vanishes from there without a word.
    pub fn is_local(&self) -> bool {
        // `core`: an address is a value, and no socket comes with it.
        let is_loopback = self.host.parse::<core::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        self.host.starts_with('/') || self.host == "localhost" || is_loopback
    }
}

/// Why a node was not surveyed.
#[derive(Clone, Debug)]
pub struct Unseen {
    pub reason: String,
    /// Empty: it was no error of the server's.
    pub sqlstate: String,
    /// There was no password to show.
    pub lacks_password: bool,
}

/// What came of asking the agent beside a node.
#[derive(Clone, Debug)]
pub enum Agent {
    None,
    /// It does not answer, or not as an agent does.
    Silent(String),
    /// It wants another token than ours.
    Refused(String),
    Answers(Box<Site>),
}

/// What an agent says of the machine it is on: `GET /survey`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    pub data_dir: String,
    /// Of the data directory, of `pg_wal` where that is elsewhere, and of the data that was kept aside.
    pub data: Option<Room>,
    pub wal: Option<Room>,
    pub kept: Option<Room>,
    /// The permissions of the data directory, and whether it belongs to the user the server runs as.
    pub mode: Option<u32>,
    pub is_owned: bool,
    pub bin_dir: String,
    /// The major version of the programs there, and the one that the data is of.
    pub version: u32,
    pub data_version: Option<u32>,
    /// Programs that a repair needs and that are not there.
    pub missing: Vec<String>,
    pub has_token: bool,
}

/// Of a file system, in bytes. `free`: for whoever is not root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    pub free: u64,
    pub total: u64,
}

/// What a node says of itself, as the control user sees it.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    pub basics: Basics,
    /// By how much its clock is ahead of ours, and how uncertain that is at most, in milliseconds.
    pub ahead_ms: i64,
    pub uncertain_ms: u64,
    pub identity: Option<Identity>,
    pub settings: BTreeMap<String, Setting>,
    pub upstream: Upstream,
    pub replication: Replication,
    pub slots: Vec<Slot>,
    pub archiver: Archiver,
    /// `None`: the control user may not read `pg_hba.conf`.
    pub hba: Option<Vec<HbaRule>>,
    /// Mistakes in configuration files; `None`: the control user may not see them.
    pub file_errors: Option<Vec<FileError>>,
    pub roles: Roles,
    pub role_settings: Vec<RoleSetting>,
    pub things: Things,
    /// What the control user cannot do, and how it is granted.
    pub lacks: Vec<Lack>,
    /// Of the schema `pgbaton`: what was applied, and the highest epoch; as far as there is one, and it may be read.
    pub schema: Schema,
    /// Databases with tables that a failover empties, and some of their names. Asked of primaries only.
    pub unlogged: BTreeMap<String, Vec<String>>,
    /// Questions that were not answered, and why.
    pub gaps: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Basics {
    pub is_in_recovery: bool,
    /// 150018
    pub version: u32,
    pub now_ms: i64,
    /// Where the node and we are, as it sees that; `None`: by a Unix socket.
    pub address: Option<String>,
    pub client: Option<String>,
    /// 16 and later: `scram-sha-256:pgbaton`.
    pub login: Option<String>,
    pub is_paused: bool,
}

impl Basics {
    pub fn major(&self) -> u32 {
        self.version / 10_000
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Identity {
    /// As text: JSON's numbers are not that large everywhere.
    pub system_identifier: String,
    pub timeline: Timeline,
}

/// A line of `pg_settings`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Setting {
    /// In `unit`; hidden where it may hold a secret.
    pub value: String,
    pub unit: Option<String>,
    pub source: String,
    pub context: String,
    pub pending: bool,
}

impl Setting {
    pub fn is_given_at_start(&self) -> bool {
        self.source == "command line"
    }

    pub fn number(&self) -> Option<i64> {
        self.value.parse().ok()
    }

    /// Of a time; negative and 0 have meanings of their own.
    pub fn millis(&self) -> Option<i64> {
        let factor = match self.unit.as_deref()? {
            "ms" => 1,
            "s" => 1000,
            "min" => 60_000,
            _ => return None,
        };
        Some(self.number()?.saturating_mul(factor))
    }
}

/// `primary_conninfo` without what is secret in it.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    /// There is none at all.
    pub is_empty: bool,
    /// Why it cannot be read.
    pub trouble: Option<String>,
    /// It is written as an address (`postgresql://…`), to which no word can be added.
    pub is_address: bool,
    /// pgbaton took this standby off its primary.
    pub is_recruited: bool,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub application_name: Option<String>,
    pub has_password: bool,
    pub has_database: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Replication {
    pub senders: Vec<Sender>,
    pub receiver: Option<Receiver>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Sender {
    pub name: String,
    pub address: Option<String>,
    pub state: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Receiver {
    pub status: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
}

/// A line of `pg_replication_slots`; what a version does not have yet is not there.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Slot {
    pub slot_name: String,
    pub slot_type: String,
    #[serde(default)]
    pub database: Option<String>,
    pub active: bool,
    #[serde(default)]
    pub temporary: bool,
    #[serde(default)]
    pub wal_status: Option<String>,
    /// So much of the log is kept for it.
    #[serde(default)]
    pub kept: Option<i64>,
    /// 17 and later.
    #[serde(default)]
    pub failover: bool,
    #[serde(default)]
    pub synced: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Archiver {
    pub failed_count: i64,
    #[serde(default)]
    pub last_failed_wal: Option<String>,
    /// The last attempt failed.
    #[serde(default)]
    pub is_failing: bool,
}

/// A line of `pg_hba_file_rules`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct HbaRule {
    pub line_number: i32,
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    #[serde(default)]
    pub database: Option<Vec<String>>,
    #[serde(default)]
    pub user_name: Option<Vec<String>>,
    #[serde(default)]
    pub address: Option<String>,
    #[serde(default)]
    pub netmask: Option<String>,
    #[serde(default)]
    pub auth_method: Option<String>,
    #[serde(default)]
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct FileError {
    pub place: String,
    pub error: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Roles {
    /// Roles that log in and may have only so many connections; by name.
    pub limited: BTreeMap<String, i64>,
    /// The same of databases.
    pub limited_databases: BTreeMap<String, i64>,
    /// Passwords of the control user and of roles that replicate that end within a month, and in how many hours; negative:
    /// they have ended.
    #[serde(default)]
    pub expiring: BTreeMap<String, i64>,
    /// Who else can read every setting, and with it the password in a `primary_conninfo`.
    pub readers: Vec<String>,
    /// Of roles that may replicate: what they are members of, themselves included.
    pub replicators: BTreeMap<String, Vec<String>>,
}

/// `ALTER ROLE … IN DATABASE … SET …`; empty: any.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RoleSetting {
    pub role: String,
    pub database: String,
    pub name: String,
    pub value: String,
}

/// What lies about in a node.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Things {
    /// Tablespaces outside of the data directory.
    pub tablespaces: Vec<String>,
    /// Transactions that were prepared more than an hour ago.
    pub prepared: Vec<String>,
    /// Whether the control user reads files of the data directory, as rewinding does.
    pub reads_files: bool,
}

/// One thing that the control user cannot do, with the statement that changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    pub what: String,
    pub grant: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Schema {
    pub version: Option<i32>,
    pub epoch: Option<u64>,
    /// The control user can make what is missing.
    pub is_ours: bool,
}
