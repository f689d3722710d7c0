//! The doctor's visit: asks every node and agent at once, looks at pgbaton's own state file, and has all of it judged.
//!
//! By a running pgbaton with what it believes, or from a configuration alone, before anything runs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{Running, StartError, settings};
use crate::cluster::doctor::facts::{Case, Patient, Room, Store, Wishes};
use crate::cluster::doctor::{self, Finding, Level};
use crate::cluster::{NodeState, Picture};
use crate::config::Config;
use crate::coord::{Embedded, directory_of};
use crate::driver;
use crate::migrate;
use crate::node::Control;
use crate::session::shared::Shared;
use crate::types::NodeId;

/// After the start everything is in motion for a moment: standbys are copied and pointed at their primary, voters are taken in.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(500);

/// A file system that hangs keeps whoever looks at it.
const STORE_LIMIT: Duration = Duration::from_secs(2);

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of statfs(2).
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// From the configuration alone.
pub fn doctor(config: &Config) -> Result<Vec<Finding>, StartError> {
    let runtime = super::runtime()?;
    runtime.block_on(async {
        let reached = settings::control(config, settings::node_tls(config)?)?;
        let addresses: Vec<_> = reached.nodes.iter().map(|node| node.address.clone()).collect();
        // Nobody is asked by way of it.
        let (_, topology) = watch::channel(Arc::new(driver::unseen(&addresses)));
        Ok(examine(config, &Control::new(reached, topology), None, 0).await)
    })
}

/// `picture`, `pools`: of a running pgbaton.
pub async fn examine(config: &Config, control: &Control, picture: Option<Picture>, pools: usize) -> Vec<Finding> {
    let visits = config.cluster.nodes.iter().map(|node| async {
        let id = NodeId::from(&*node.id);
        let (survey, agent) = join(control.survey(&id), control.agent_survey(&id)).await;
        Patient { host: node.host.clone(), port: node.port, priority: node.priority, agent, survey, id }
    });
    let path = config.coordination.path.clone();
    let looking = tokio::task::spawn_blocking(move || store(&path));
    let (nodes, store) = join(join_all(visits), timeout(STORE_LIMIT, looking)).await;
    let path = config.coordination.path.display().to_string();
    let store = store.ok().and_then(Result::ok).unwrap_or_else(|| Store {
        trouble: Some(format!("its file system does not answer within {} s", STORE_LIMIT.as_secs())),
        ..Store::default()
    });
    doctor::examine(&Case { wishes: wishes(config), store: Store { path, ..store }, picture, pools, nodes })
}

fn wishes(config: &Config) -> Wishes {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let failover = &config.failover;
    // One that refuses is down after so many probes; one that is silent when the last of them has waited in vain.
    let detection = failover.probe_interval * failover.misses + failover.probe_timeout;
    Wishes {
        control_user: config.cluster.control_user.clone(),
        control_database: config.cluster.control_database.clone(),
        durability: config.cluster.durability,
        acks: config.cluster.quorum_acks,
        only_watches: settings::policy(config).only_watches(),
        pool_size: config.proxy.pool_size,
        hold_ms: millis(failover.hold),
        detection_ms: millis(detection),
        admin: config.admin.listen.as_ref().map(ToString::to_string).unwrap_or_default(),
        admin_is_loopback: config.admin.is_loopback(),
        has_admin_token: !config.admin.token.is_empty(),
        schema_version: migrate::version(),
    }
}

/// The state file and the directory it is replaced in.
fn store(path: &Path) -> Store {
    // A link is followed, as the store does.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let directory = directory_of(&path);
    let trouble = match directory.metadata() {
        Err(error) => Some(format!("{}: {error}", directory.display())),
        Ok(facts) if !facts.is_dir() => Some(format!("{} is no directory", directory.display())),
        Ok(facts) => rustix::fs::access(directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .err()
            .map(|error| {
                format!("{} (permissions {:o}): {error}", directory.display(), facts.permissions().mode() & 0o777)
            }),
    };
    let room = rustix::fs::statvfs(directory).ok().map(|space| {
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        Room { free: bytes(space.f_bavail), total: bytes(space.f_blocks) }
    });
    let is_volatile = rustix::fs::statfs(directory).is_ok_and(|facts| IN_MEMORY.contains(&(facts.f_type as u32)));
    let record = Embedded::peek(&path);
    let unreadable = record.as_ref().err().map(ToString::to_string);
    Store {
        path: String::new(),
        trouble: trouble.or(unreadable),
        is_volatile,
        room,
        epoch: record.ok().flatten().map(|record| record.epoch),
    }
}

/// Examines once, when all has settled or should have, and logs what is amiss.
pub async fn report(whole: Arc<OnceLock<Weak<Running>>>, shared: Arc<Shared>) {
    let mut topology = shared.topology.clone();
    if topology.wait_for(|topology| topology.primary().is_some()).await.is_err() {
        return;
    }
    let patience = Instant::now() + PATIENCE;
    let running = loop {
        let Some(running) = whole.get().and_then(Weak::upgrade) else { return };
        let picture = running.cluster.picture();
        let runs = picture.nodes.values().all(|node| matches!(node.state, NodeState::Running | NodeState::Maintenance));
        if runs && picture.reason.is_empty() || Instant::now() > patience {
            break running;
        }
        drop(running);
        sleep(LOOK).await;
    };
    let findings = running.examine().await;
    let mut warnings = 0;
    for finding in &findings {
        let node = finding.node.as_deref().unwrap_or("-");
        match finding.level {
            Level::Error => {
                tracing::error!(check = %finding.check, node, fix = %finding.fix, "doctor: {}", finding.message)
            }
            Level::Warning => warnings += 1,
            Level::Ok => {}
        }
    }
    if warnings > 0 {
        tracing::warn!(warnings, "the doctor has something to say: pgbaton doctor");
    }
}
