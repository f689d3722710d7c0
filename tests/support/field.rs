//! A cluster whose control user may do what a failover takes, and pgbaton's hands on it.

// Each test binary uses another part of this.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pgbaton::cluster::{Answer, Failure, FailureKind, Observation, Sight, Symptom, SyncNames};
use pgbaton::demo::{CONTROL_USER, Cluster, Node};
use pgbaton::node::Control;
use pgbaton::types::{Epoch, Lsn, NodeId};
use tokio::runtime::Runtime;

use crate::ground;
use crate::support::{self, DEADLINE, wait_until};
use crate::wire::{Login, Wire};

/// Everything the control user needs for this, and the tables that migrations make.
pub const RIGHTS: &str = "
ALTER ROLE pgbaton REPLICATION;
GRANT pg_signal_backend, pg_checkpoint TO pgbaton;
GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf(), pg_wal_replay_resume() TO pgbaton;
GRANT ALTER SYSTEM ON PARAMETER primary_conninfo, primary_slot_name, synchronous_standby_names,
    default_transaction_read_only, recovery_min_apply_delay TO pgbaton;
CREATE ROLE app LOGIN PASSWORD 'app';";

pub const TABLES: &str = "
CREATE SCHEMA IF NOT EXISTS pgbaton;
CREATE TABLE pgbaton.epoch (epoch bigint PRIMARY KEY, node text, coordinator text, timeline int, cause text,
    at timestamptz DEFAULT now());
CREATE TABLE pgbaton.heartbeat (coordinator text PRIMARY KEY, node text, epoch bigint, at timestamptz);
CREATE TABLE pgbaton.history (epoch bigint PRIMARY KEY, entry jsonb, at timestamptz);
GRANT USAGE ON SCHEMA pgbaton TO pgbaton;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA pgbaton TO pgbaton;";

pub struct Field {
    pub runtime: Runtime,
    pub control: Control,
    pub cluster: Cluster,
}

impl Field {
    pub fn new(settings: &[(&str, &str)]) -> Field {
        let cluster = support::cluster_with(2, settings);
        let primary = &cluster.nodes()[0];
        // In the database that the control user is in, and that functions' rights count in.
        primary.sql_in("postgres", RIGHTS).unwrap();
        primary.sql_in("postgres", TABLES).unwrap();
        primary.sql("CREATE TABLE own (n int); GRANT ALL ON own TO app").unwrap();
        cluster.wait_for_replicas().unwrap();
        Field::over(cluster, Duration::from_secs(2))
    }

    pub fn over(cluster: Cluster, probe_timeout: Duration) -> Field {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let control = {
            let _entered = runtime.enter();
            let mut config = ground::control_config(&cluster, CONTROL_USER, cluster.control_password());
            config.probe_timeout = probe_timeout;
            Control::new(config, ground::fixed(&cluster))
        };
        Field { runtime, control, cluster }
    }

    pub fn node(&self, id: &str) -> &Node {
        self.cluster.node(id).unwrap()
    }

    pub fn sight(&self, id: &str) -> Sight {
        self.runtime.block_on(self.control.observe(&NodeId::from(id)))
    }

    #[track_caller]
    pub fn seen(&self, id: &str) -> Observation {
        match self.sight(id) {
            Sight::Answers(seen) => *seen,
            Sight::Fails(symptom, reason) => panic!("{id}: {symptom:?} {reason}"),
        }
    }

    #[track_caller]
    pub fn symptom(&self, id: &str) -> Symptom {
        match self.sight(id) {
            Sight::Answers(seen) => panic!("{id} answers: {seen:?}"),
            Sight::Fails(symptom, _) => symptom,
        }
    }

    /// Does it, and says how long it took.
    pub fn timed<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let begin = Instant::now();
        let outcome = self.runtime.block_on(work);
        println!("{what}: {:?}", begin.elapsed());
        outcome
    }

    pub fn recruit(&self, id: &str, epoch: u64) -> Result<Answer, Failure> {
        let id = NodeId::from(id);
        self.timed(&format!("recruit {id}"), self.control.recruit(&id, Epoch(epoch)))
    }

    pub fn app(&self, id: &str) -> Wire {
        Login::to(self.node(id).port()).user("app", "app").connect()
    }

    pub fn wait_for_receiver(&self, id: &str, from: &str) {
        wait_until(DEADLINE, "it receives", || {
            let Sight::Answers(seen) = self.sight(id) else { return false };
            seen.receiver.is_some_and(|receiver| receiver.from == Some(NodeId::from(from)))
        });
    }
}

pub fn names(voters: &[&str], k: u32) -> SyncNames {
    SyncNames { voters: voters.iter().map(|voter| NodeId::from(*voter)).collect::<BTreeSet<_>>(), k }
}

pub fn id(name: &str) -> NodeId {
    NodeId::from(name)
}

#[track_caller]
pub fn received(answer: Result<Answer, Failure>) -> Lsn {
    match answer {
        Ok(Answer::Recruited { received, .. }) => received,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub fn failed<T: std::fmt::Debug>(outcome: Result<T, Failure>, kind: FailureKind, says: &str) {
    let failure = outcome.expect_err("it was to fail");
    assert_eq!(failure.kind, kind, "{failure:?}");
    assert!(failure.reason.contains(says), "{:?} does not say {says:?}", failure.reason);
}

/// Stops all of a server's processes, as a paused virtual machine does; [`Node::pause`] stops the postmaster only, and what
/// is connected already is served on. Thawed when dropped.
pub struct Frozen(Vec<rustix::process::Pid>);

pub fn freeze(node: &Node) -> Frozen {
    use rustix::process::{Pid, Signal, kill_process};
    let postmaster = node.pid().unwrap().to_string();
    let mut frozen = Vec::new();
    // New ones may be born until the postmaster stands still.
    node.pause();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = process.file_name().to_string_lossy().into_owned();
        let status = std::fs::read_to_string(process.path().join("status")).unwrap_or_default();
        let is_child = status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|id| id.trim() == postmaster));
        if let (true, Some(pid)) = (is_child, name.parse().ok().and_then(Pid::from_raw)) {
            kill_process(pid, Signal::STOP).unwrap();
            frozen.push(pid);
        }
    }
    assert!(frozen.len() > 3, "these are not all: {frozen:?}");
    frozen.push(Pid::from_raw(postmaster.parse().unwrap()).unwrap());
    Frozen(frozen)
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = rustix::process::kill_process(*pid, rustix::process::Signal::CONT);
        }
    }
}
