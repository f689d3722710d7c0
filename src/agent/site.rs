//! What a repair works with: the place of one PostgreSQL, its server as something that can be started and stopped, and where
//! it says how far it is.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use super::Failed;
use crate::auth::Secret;
use crate::cluster::agent::Shutdown;
use crate::programs::{PgBin, Runner};
use crate::types::NodeId;

/// Where one PostgreSQL lives, and as whom it connects to others. `runner` makes commands that run as the server's user.
#[derive(Clone, Debug)]
pub struct Site {
    pub node: NodeId,
    pub bin: PgBin,
    pub runner: Runner,
    pub data_dir: PathBuf,
    pub port: u16,
    pub socket_dir: PathBuf,
    pub control_user: String,
    pub control_password: Option<Secret>,
    /// Data of the past is moved there: on the same file system as `data_dir`, outside of it.
    pub kept_dir: PathBuf,
    pub keep_bytes: u64,
}

impl Site {
    /// Of a file in the data directory.
    pub fn data(&self, name: impl AsRef<Path>) -> PathBuf {
        self.data_dir.join(name)
    }
}

/// Another server, to follow or to copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub node: NodeId,
    pub host: String,
    pub port: u16,
    pub system_identifier: u64,
}

pub type Act<'a> = Pin<Box<dyn Future<Output = Result<(), Failed>> + Send + 'a>>;

/// The server of a site. While a repair is under way nobody else starts or stops it.
pub trait Server: Send + Sync {
    /// Starts it as what its data is, and waits until it accepts connections. Of one that runs, nothing is done.
    fn start(&self) -> Act<'_>;
    /// Waits until every process of it is gone. Of one that is stopped, nothing is done.
    fn stop(&self, how: Shutdown) -> Act<'_>;
    /// Whether its postmaster lives.
    fn is_running(&self) -> bool;
    /// What it logged since it was started last, the end of it, for error messages.
    fn log_tail(&self, lines: usize) -> String;
}

/// How far an order has come, for `GET /status`. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Steps(Arc<Mutex<String>>);

impl Steps {
    pub fn say(&self, step: impl Into<String>) {
        let step = step.into();
        tracing::info!("{step}");
        self.tell(step);
    }

    /// Without a line in the log: for a progress that changes all the time.
    pub fn tell(&self, step: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = step.into();
    }

    pub fn current(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
