//! `pgbaton agent`: from its file to the settings of the agent.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use crate::agent::{self, AgentError, Settings};
use crate::auth::Secret;
use crate::config::{AgentConfig, Listen};
use crate::programs::PgBin;
use crate::types::NodeId;

/// Runs until it is told to end.
pub fn run(config: &AgentConfig, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let reload = || {
        let config = AgentConfig::load(file).map_err(|error| error.to_string())?;
        settings(&config).map_err(|error| error.to_string())
    };
    Ok(agent::run(settings(config)?, reload)?)
}

/// Whether an agent could be started with it, as far as can be seen without doing so.
pub fn check(config: &AgentConfig) -> Result<(), Box<dyn std::error::Error>> {
    settings(config)?;
    match &config.bin_dir {
        Some(directory) => PgBin::at(directory),
        None => PgBin::find(),
    }
    .map_err(AgentError::Binaries)?;
    Ok(())
}

fn settings(config: &AgentConfig) -> Result<Settings, Box<dyn std::error::Error>> {
    let secret = |text: zeroize::Zeroizing<String>| Secret::new(text.as_str());
    Ok(Settings {
        node: NodeId::from(config.node.as_str()),
        listen: address(&config.listen)?,
        token: (!config.token.is_empty()).then(|| Secret::new(config.token.reveal())),
        data_dir: config.data_dir.clone(),
        bin_dir: config.bin_dir.clone(),
        port: config.port,
        listen_addresses: config.listen_addresses.clone(),
        socket_dir: config.socket_dir.clone(),
        pgbatons: config.pgbatons.clone(),
        control_user: config.control_user.clone(),
        control_password: config.control_password()?.map(secret),
        superuser: config.superuser.clone(),
        superuser_password: config.superuser_password()?.map(secret),
        database: (!config.database.is_empty()).then(|| config.database.clone()),
        networks: config.networks.clone(),
        keep_bytes: config.keep_bytes,
        postgres: config.postgres.clone(),
    })
}

/// Of a name with several addresses the first is taken.
fn address(listen: &Listen) -> Result<SocketAddr, String> {
    let Listen::Tcp { host, port } = listen else { return Err("agent.listen: must be \"host:port\"".into()) };
    let found = (host.as_str(), *port).to_socket_addrs().map_err(|error| format!("agent.listen: {listen}: {error}"))?;
    found.into_iter().next().ok_or_else(|| format!("agent.listen: {listen} has no address"))
}
