//! `pgbaton agent`: runs beside one PostgreSQL, as its parent, and does to it what SQL cannot.
//!
//! It decides nothing about the cluster. A server with a standby's data it starts; one that would be a primary only if the
//! record, asked of the `pgbatons`, says that it is; and it does what it is told under an epoch not older than the last one
//! it knows ([`crate::cluster::agent`] has the words).

mod admission;
mod conf;
mod data;
mod failed;
mod gate;
mod http;
pub mod init;
mod initialise;
mod keeper;
mod kept;
mod log;
mod orders;
mod postmaster;
mod process;
mod processes;
pub mod repair;
mod run;
mod site;
mod state;
mod survey;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use failed::Failed;
pub use run::run;
pub use site::{Place, Server, Site, Steps};

use crate::auth::Secret;
use crate::net::http::HttpUrl;
use crate::programs::ProgramError;
use crate::types::NodeId;

/// `[agent]`
#[derive(Clone, Debug)]
pub struct Settings {
    pub node: NodeId,
    pub listen: SocketAddr,
    /// `None`: everybody who can connect may order. Only on a loopback address.
    pub token: Option<Secret>,
    pub data_dir: PathBuf,
    /// `None`: found as for the demo.
    pub bin_dir: Option<PathBuf>,
    pub port: u16,
    /// As PostgreSQL's setting of that name.
    pub listen_addresses: String,
    /// `None`: found as PostgreSQL's packages have it.
    pub socket_dir: Option<PathBuf>,
    /// Where the record is asked.
    pub pgbatons: Vec<HttpUrl>,
    /// The role of pgbaton itself, which standbys replicate and are repaired as, too.
    pub control_user: String,
    pub control_password: Option<Secret>,
    /// Of a cluster that is made new: its superuser, that one's password, and a database to be made beside `postgres`.
    pub superuser: String,
    pub superuser_password: Option<Secret>,
    pub database: Option<String>,
    /// Addresses that may connect with a password, as in `pg_hba.conf`, besides the loopback addresses: of a cluster that is
    /// made new.
    pub networks: Vec<String>,
    /// Data kept aside is removed, the oldest first, beyond so many bytes.
    pub keep_bytes: u64,
    /// `[agent.postgres]`
    pub postgres: BTreeMap<String, String>,
}

impl Settings {
    /// The keys in which another one differs that only a restart of the agent changes.
    fn fixed_differences(&self, other: &Settings) -> Vec<&'static str> {
        let pairs = [
            ("node", self.node != other.node),
            ("listen", self.listen != other.listen),
            ("token", self.token != other.token),
            ("data_dir", self.data_dir != other.data_dir),
            ("bin_dir", self.bin_dir != other.bin_dir),
            ("port", self.port != other.port),
            ("listen_addresses", self.listen_addresses != other.listen_addresses),
            ("socket_dir", self.socket_dir != other.socket_dir),
            ("control_user", self.control_user != other.control_user),
            ("control_password_file", self.control_password != other.control_password),
            ("superuser", self.superuser != other.superuser),
            ("superuser_password_file", self.superuser_password != other.superuser_password),
            ("database", self.database != other.database),
            ("networks", self.networks != other.networks),
        ];
        pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("agent.listen: cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("agent.bin_dir: {0}")]
    Binaries(ProgramError),
    #[error("agent.data_dir: {0}")]
    DataDir(String),
    #[error("another agent looks after {} already", .0.display())]
    Taken(PathBuf),
    #[error("cannot use the agent's state {}: {reason}", path.display())]
    State { path: PathBuf, reason: String },
    #[error("cannot start {what}: {source}")]
    System { what: &'static str, source: std::io::Error },
}
