//! pgbaton as a process of its own, that can be killed, frozen and started again with the same state file; and that file,
//! read as anybody could read it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use pgbaton::demo::Cluster;
use rustix::process::Signal;
use serde_json::Value;

use crate::network::Network;
use crate::support::{self, DEADLINE, ProxySettings, wait_until};

pub const MEMBER: &str = "proxy";

pub struct Baton {
    child: Child,
    config: PathBuf,
    directory: tempfile::TempDir,
    network: Option<Arc<Network>>,
    pub address: SocketAddr,
}

/// What the state file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub epoch: u64,
    pub phase: String,
    pub primary: String,
    pub voters: Vec<String>,
}

/// One change of epoch in the history.
#[derive(Clone, Debug)]
pub struct Change {
    pub epoch: u64,
    /// In milliseconds.
    pub phases: Vec<(String, u64)>,
    pub known_loss_bytes: u64,
    pub fork_lsn: Option<String>,
}

impl Baton {
    /// `lines`: below `[cluster]` and `[failover]`.
    pub fn start(cluster: &Cluster, network: Option<Arc<Network>>, lines: (&str, &str)) -> Baton {
        let directory = tempfile::tempdir().unwrap();
        let address = match &network {
            Some(network) => (network.address(MEMBER), 6432).into(),
            None => TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        };
        let mut settings: ProxySettings = crate::wire::trusting(cluster, "");
        settings.cluster = lines.0.into();
        let state = state_file(directory.path());
        settings.sections += &format!("\n[failover]\n{}\n[coordination]\npath = \"{}\"\n", lines.1, state.display());
        let config = settings.write(cluster, directory.path(), &format!("\"{address}\""));
        Baton::run(directory, config, address, network)
    }

    /// With a configuration that is in that directory, and its state there too, as `state.json`.
    pub fn run(
        directory: tempfile::TempDir,
        config: PathBuf,
        address: SocketAddr,
        network: Option<Arc<Network>>,
    ) -> Baton {
        let child = spawn(&config, directory.path(), network.as_deref());
        let baton = Baton { child, config, directory, network, address };
        baton.wait_until_listening();
        baton
    }

    /// SIGKILL, and no word to anybody.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// After [`Baton::kill`].
    pub fn restart(&mut self) {
        self.child = spawn(&self.config, self.directory.path(), self.network.as_deref());
        self.wait_until_listening();
    }

    pub fn freeze(&self) {
        support::send(self.child.id(), Signal::STOP);
    }

    pub fn thaw(&self) {
        support::send(self.child.id(), Signal::CONT);
    }

    /// `None`: there is none yet.
    pub fn record(&self) -> Option<Record> {
        let text = std::fs::read(state_file(self.directory.path())).ok()?;
        let document: Value = serde_json::from_slice(&text).ok()?;
        let record = &document["record"];
        let names = |value: &Value| {
            let names = value.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(String::from));
            names.collect()
        };
        Some(Record {
            epoch: record["epoch"].as_u64()?,
            phase: record["phase"].as_str()?.into(),
            primary: record["primary"].as_str()?.into(),
            voters: names(&record["voters"]),
        })
    }

    /// Changes of epoch after `epoch`, oldest first.
    pub fn changes_after(&self, epoch: u64) -> Vec<Change> {
        let files = std::fs::read_dir(self.directory.path()).unwrap().flatten().map(|entry| entry.path());
        let mut files = files.filter(|path| path.to_string_lossy().ends_with("history.jsonl"));
        let text = files.next().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut changes: Vec<Change> = entries.filter_map(|entry| change(&entry)).collect();
        changes.retain(|change| change.epoch > epoch);
        changes
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(log_file(self.directory.path())).unwrap_or_default()
    }

    fn wait_until_listening(&self) {
        let connects = || std::net::TcpStream::connect(self.address).is_ok();
        wait_until(DEADLINE, "pgbaton listens", || match &self.network {
            Some(network) => network.among_clients(connects),
            None => connects(),
        });
    }
}

impl Drop for Baton {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn state_file(directory: &Path) -> PathBuf {
    directory.join("state.json")
}

fn log_file(directory: &Path) -> PathBuf {
    directory.join("pgbaton.log")
}

fn spawn(config: &Path, directory: &Path, network: Option<&Network>) -> Child {
    // Killed with us, however we end.
    let program = ["setpriv", "--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_pgbaton")];
    let mut command = match network {
        Some(network) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", network.namespace(MEMBER).display())).arg("--").args(program);
            command
        }
        None => {
            let mut command = Command::new(program[0]);
            command.args(&program[1..]);
            command
        }
    };
    let log = std::fs::File::options().create(true).append(true).open(log_file(directory)).unwrap();
    command.args(["serve", "-c"]).arg(config).current_dir(directory).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// Of a line of the history, if it is about that. The line may wrap the entry.
fn change(entry: &Value) -> Option<Change> {
    let entry = if entry["phases"].is_array() { entry } else { &entry["entry"] };
    let phase = |phase: &Value| Some((phase[0].as_str()?.to_owned(), phase[1].as_u64()?));
    Some(Change {
        epoch: entry["epoch"].as_u64()?,
        phases: entry["phases"].as_array()?.iter().filter_map(phase).collect(),
        known_loss_bytes: entry["known_loss_bytes"].as_u64().unwrap_or_default(),
        fork_lsn: entry["fork_lsn"].as_str().map(String::from),
    })
}
