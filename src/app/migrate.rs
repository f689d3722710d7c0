//! `pgbaton migrate`: brings the schema `pgbaton` to the primary, without running anything else.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{StartError, settings};
use crate::config::Config;
use crate::driver;
use crate::migrate::{self, MigrateError};
use crate::node::{Control, NodeError};
use crate::types::NodeId;

/// How long it may take. Waiting for another one that does the same is part of it.
const LIMIT: Duration = Duration::from_secs(60);

/// Why the schema is not there.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot run: {0}")]
    Runtime(#[from] std::io::Error),
    #[error("there is no primary: {0}")]
    NoPrimary(String),
    #[error("{0} say that they are primaries; make sure that only one is")]
    Several(String),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("node {node}: {source}")]
    Migrate { node: NodeId, source: MigrateError },
    #[error("node {node}: not done within {} s", LIMIT.as_secs())]
    Late { node: NodeId },
}

/// Which node is the primary, and what was applied there.
pub fn migrate(config: &Config) -> Result<(NodeId, Vec<String>), MigrationError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(config))
}

async fn run(config: &Config) -> Result<(NodeId, Vec<String>), MigrationError> {
    let control = settings::control(config, settings::node_tls(config)?)?;
    let addresses: Vec<_> = control.nodes.iter().map(|node| node.address.clone()).collect();
    let database = control.database.clone();
    let (publish, topology) = watch::channel(Arc::new(driver::unseen(&addresses)));
    let control = Control::new(control, topology);
    let answers = join_all(addresses.iter().map(|address| control.status(&address.id))).await;
    let (mut primaries, mut reasons) = (Vec::new(), Vec::new());
    for (at, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(status) if !status.is_in_recovery => primaries.push(at),
            Ok(_) => reasons.push(format!("{} is a standby", addresses[at].id)),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    let at = match primaries[..] {
        [at] => at,
        [] => return Err(MigrationError::NoPrimary(reasons.join("; "))),
        _ => {
            let names: Vec<String> = primaries.iter().map(|at| addresses[*at].id.to_string()).collect();
            return Err(MigrationError::Several(names.join(", ")));
        }
    };
    let node = addresses[at].id.clone();
    let mut found = driver::unseen(&addresses);
    found.primary = Some(at);
    publish.send_replace(Arc::new(found));
    let mut client = control.client_for(&database).await?;
    match timeout(LIMIT, migrate::apply(&mut client)).await {
        Ok(Ok(applied)) => Ok((node, applied)),
        Ok(Err(source)) => Err(MigrationError::Migrate { node, source }),
        Err(_) => Err(MigrationError::Late { node }),
    }
}
