//! `pgbaton agent`: runs beside one PostgreSQL, as its parent, and does to it what SQL cannot.
//!
//! It decides nothing about the cluster. A server with a standby's data it starts; one that would be a primary only if the
//! record, asked of the `pgbatons`, says that it is; and it does what it is told under an epoch not older than the last one
//! it knows ([`crate::cluster::agent`] has the words).

mod failed;
pub mod repair;
mod site;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use failed::Failed;
pub use site::{Place, Server, Site, Steps};

use crate::auth::Secret;
use crate::net::http::HttpUrl;
use crate::types::NodeId;

/// `[agent]`
#[derive(Debug)]
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
    pub socket_dir: PathBuf,
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
