//! Builds everything once from the configuration, runs it, and shuts it down in order.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::Config;
use crate::telemetry::LevelHandle;

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("this build has no proxy")]
    NoProxy,
}

/// A running proxy.
pub struct Running {
    addresses: Vec<SocketAddr>,
}

impl Running {
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    pub fn stop(self) {}
}

pub fn start(_config: Config) -> Result<Running, StartError> {
    Err(StartError::NoProxy)
}

pub fn serve(config: Config, _config_path: PathBuf, _level: Option<LevelHandle>) -> Result<(), StartError> {
    start(config).map(Running::stop)
}
