//! Agents as simple as they can be, beside the nodes of a cluster in this process: they stop, start and report, as
//! `cluster::agent` says. What only a real one can do (starting as a standby what was a primary) tests do by hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgbaton::cluster::agent::{Data, Deed, Doing, Done, Order, Outcome, Report, Server, Shutdown, Task};
use pgbaton::demo::{self, Cluster, Node};
use pgbaton::types::{Epoch, Lsn, NodeId, Timeline};
use rustix::process::Signal;

use crate::support::send;

/// What one agent knows.
struct Known {
    epoch: Epoch,
    server: Server,
    doing: Option<Doing>,
    done: Option<Done>,
}

struct Agent {
    node: String,
    cluster: Weak<Cluster>,
    known: Mutex<Known>,
}

/// One for each node; they end with the process.
pub struct Agents {
    /// A line for each node's configuration.
    pub lines: Vec<(&'static str, String)>,
    conninfo: String,
    agents: Vec<Arc<Agent>>,
}

impl Agents {
    pub fn beside(cluster: &Arc<Cluster>) -> Agents {
        let (mut lines, mut agents) = (Vec::new(), Vec::new());
        for node in cluster.nodes() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let known = Known { epoch: Epoch(0), server: Server::Running, doing: None, done: None };
            let (node_id, cluster) = (node.id.clone(), Arc::downgrade(cluster));
            let agent = Arc::new(Agent { node: node_id, cluster, known: Mutex::new(known) });
            let name: &'static str = node.id.clone().leak();
            lines.push((name, format!("agent = \"http://127.0.0.1:{port}\"")));
            agents.push(agent.clone());
            let _: JoinHandle<()> = std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let agent = agent.clone();
                    std::thread::spawn(move || agent.serve(stream));
                }
            });
        }
        let conninfo = cluster.nodes()[1].sql("SHOW primary_conninfo").unwrap();
        Agents { lines, conninfo, agents }
    }

    /// What a rejoin comes to after a clean stop: it starts as a standby of the new primary.
    pub fn rejoin(&self, cluster: &Cluster, old: &str, new: &str) {
        let (old, new) = (cluster.node(old).unwrap(), cluster.node(new).unwrap());
        old.stop(demo::Shutdown::Fast);
        let words = self
            .conninfo
            .split(' ')
            .filter(|word| !word.starts_with("port=") && !word.starts_with("application_name="));
        let conninfo =
            format!("{} port={} application_name={}", words.collect::<Vec<_>>().join(" "), new.port(), old.id);
        let auto = old.data_directory().join("postgresql.auto.conf");
        let mut text = std::fs::read_to_string(&auto).unwrap();
        text += &format!("primary_conninfo = '{}'\nprimary_slot_name = ''\n", conninfo.replace('\'', "''"));
        for name in ["postgresql.auto.conf", "standby.signal"] {
            old.write_file(name, if name == "standby.signal" { b"" } else { text.as_bytes() }).unwrap();
        }
        old.start().unwrap();
        let agent = self.agents.iter().find(|agent| agent.node == old.id).unwrap();
        agent.known().server = Server::Running;
    }
}

impl Agent {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut first = String::new();
        let (mut length, mut line) = (0, String::new());
        if reader.read_line(&mut first).is_err() {
            return;
        }
        while reader.read_line(&mut line).is_ok() && !line.trim().is_empty() {
            if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = number.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        if first.starts_with("POST /actions") {
            let order: Order = serde_json::from_slice(&body).unwrap();
            self.clone().take(order);
        }
        let text = serde_json::to_string(&self.report()).unwrap();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
        // Whoever asked may have gone.
        let _ = stream.write_all((head + &text).as_bytes());
    }

    fn report(&self) -> Report {
        let known = self.known();
        Report {
            node: NodeId::from(&*self.node),
            epoch: known.epoch,
            server: known.server.clone(),
            data: Data::Present {
                system_identifier: 0,
                timeline: Timeline(0),
                is_standby: false,
                is_clean: true,
                checkpoint: Lsn(0),
            },
            doing: known.doing.clone(),
            done: known.done.clone(),
            kept: Vec::new(),
            trouble: String::new(),
        }
    }

    fn take(self: Arc<Self>, order: Order) {
        let mut known = self.known();
        known.epoch = known.epoch.max(order.epoch);
        let (epoch, id, task) = (order.epoch, order.id, order.task.name().to_owned());
        known.doing = Some(Doing { epoch, id: id.clone(), task: task.clone(), since: 0, step: String::new() });
        drop(known);
        let agent = self.clone();
        std::thread::spawn(move || {
            let begun = Instant::now();
            let Some(cluster) = agent.cluster.upgrade() else { return };
            let node = cluster.node(&agent.node).unwrap();
            let mut deed = Deed::default();
            let server = match order.task {
                Task::Stop { how } => {
                    agent.known().server = Server::Stopping;
                    let signal = if how == Shutdown::Fast { Signal::INT } else { Signal::QUIT };
                    if let Some(pid) = node.pid() {
                        send(pid, signal);
                    }
                    while node.pid().is_some() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    deed.end = end_of(&cluster, node);
                    Server::Stopped
                }
                Task::Start => {
                    node.start().unwrap();
                    Server::Running
                }
                other => panic!("nobody asked for {other:?}"),
            };
            let mut known = agent.known();
            // Another one has taken its place.
            if known.doing.as_ref().is_none_or(|doing| doing.id != id) {
                return;
            }
            let took_ms = begun.elapsed().as_millis() as u64;
            (known.server, known.doing) = (server, None);
            known.done = Some(Done { epoch, id, task, took_ms, outcome: Outcome::Well(deed) });
        });
    }
}

/// Where the log ends that was shut down cleanly.
fn end_of(cluster: &Cluster, node: &Node) -> Option<Lsn> {
    let output = Command::new(cluster.bin().program("pg_controldata")).arg(node.data_directory()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |name: &str| Some(text.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned());
    if value("Database cluster state:")? != "shut down" {
        return None;
    }
    // The record itself is 114 bytes long, and the next one begins at a multiple of 8.
    let start: Lsn = value("Latest checkpoint location:")?.parse().ok()?;
    Some(Lsn((start.0 + 114).next_multiple_of(8)))
}
