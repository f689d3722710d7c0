//! One cluster with or without agents, one pgbaton, and clients whose day is judged in the end.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use pgbaton::demo::{Cluster, Node};
use pgbaton::net::http;
use serde_json::Value;

use crate::agents::Agents;
use crate::checker::{self, Tables, Verdict};
use crate::load::{Crew, Load, Outcome, TABLES};
use crate::support::{self, DEADLINE, Proxy, wait_until};
use crate::wire::{Login, Wire, trusting};

/// Twenty, all of whose transactions are short.
const CREW: Crew = Crew { writers: 5, transfers: 4, own_readers: 4, readers: 4, idle: 3 };
const CALM: Duration = Duration::from_millis(500);

/// Who has the machine.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Record {
    pub epoch: u64,
    pub phase: String,
    pub primary: String,
    pub voters: usize,
}

/// Fields end in this order.
pub struct Stage {
    name: &'static str,
    load: Option<Load>,
    proxy: Proxy,
    settings: support::ProxySettings,
    admin: u16,
    agents: Option<Agents>,
    cluster: Arc<Cluster>,
    directory: tempfile::TempDir,
    frozen: BTreeSet<u32>,
    /// When, on the load's clock, each switchover was ordered and done.
    switched: Mutex<Vec<(Duration, Duration)>>,
}

impl Stage {
    /// `failover`: lines below `[failover]`.
    pub fn set(name: &'static str, has_agents: bool, failover: &str) -> Stage {
        let cluster = Arc::new(support::cluster(2));
        cluster.nodes()[0].sql(TABLES).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let agents = has_agents.then(|| Agents::beside(&cluster));
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut settings = trusting(&cluster, "");
        settings.cluster = "durability = \"quorum\"".into();
        settings.admin = format!("127.0.0.1:{admin}");
        let state = directory.path().join("state.json");
        settings.sections += &format!(
            "\n[failover]\nrejoin = \"manual\"\n{failover}\n[coordination]\npath = \"{}\"\n[log]\nlevel = \"info,pgbaton::driver=debug\"\n",
            state.display()
        );
        settings.node_lines = agents.as_ref().map(|agents| agents.lines.clone()).unwrap_or_default();
        let proxy = Proxy::start(&cluster, &settings);
        let (frozen, switched) = (BTreeSet::new(), Mutex::default());
        let stage = Stage { name, load: None, proxy, settings, admin, agents, cluster, directory, frozen, switched };
        stage.wait_until_ready();
        stage
    }

    fn wait_until_ready(&self) {
        wait_until(DEADLINE, "every replica is a voter", || {
            self.try_record().is_some_and(|record| record.phase == "stable" && record.voters == 2)
        });
    }

    fn try_record(&self) -> Option<Record> {
        let text = std::fs::read(self.directory.path().join("state.json")).ok()?;
        let document: Value = serde_json::from_slice(&text).ok()?;
        let record = &document["record"];
        Some(Record {
            epoch: record["epoch"].as_u64()?,
            phase: record["phase"].as_str()?.into(),
            primary: record["primary"].as_str()?.into(),
            voters: record["voters"].as_array()?.len(),
        })
    }

    pub fn record(&self) -> Record {
        self.try_record().expect("a record")
    }

    pub fn node(&self, id: &str) -> &Node {
        self.cluster.node(id).unwrap_or_else(|| panic!("no node {id}"))
    }

    pub fn port(&self) -> u16 {
        self.proxy.port
    }

    pub fn client(&self) -> Wire {
        Login::to(self.proxy.port).connect()
    }

    pub fn begin_load(&mut self) {
        let load = Load::start(std::net::SocketAddr::from(([127, 0, 0, 1], self.proxy.port)), None, CREW);
        let everybody = CREW.writers + CREW.transfers + CREW.own_readers + CREW.readers + CREW.idle;
        wait_until(DEADLINE, "everybody is connected and writes", || {
            load.connected() == everybody as u64 && load.has_written_since(CALM)
        });
        self.load = Some(load);
    }

    fn load(&self) -> &Load {
        self.load.as_ref().expect("before it is judged")
    }

    pub fn live_on(&self) {
        let until = self.load().now() + CALM;
        wait_until(DEADLINE, "writes go on", || self.load().has_written_since(until));
    }

    pub fn wait_for_writes(&self) {
        let now = self.load().now();
        wait_until(DEADLINE, "writes are taken", || self.load().has_written_since(now));
    }

    /// Until it is published that the primary drains.
    pub fn wait_for_drain(&self) {
        wait_until(DEADLINE, "the primary drains", || self.proxy.log().contains("Drain"));
    }

    pub fn post(&self, path: &str, body: &str) -> Result<String, String> {
        post(self.admin, path, body)
    }

    pub fn switch(&self, to: Option<&str>) -> Result<String, String> {
        let began = self.load.as_ref().map(Load::now);
        let said = post(self.admin, "/switchover", &serde_json::json!({ "to": to }).to_string());
        if let (Some(began), Some(load), Ok(_)) = (began, &self.load, &said) {
            self.switched.lock().unwrap().push((began, load.now()));
        }
        said
    }

    /// The same, while something else happens.
    pub fn order(&self, to: Option<&'static str>) -> JoinHandle<Result<String, String>> {
        let admin = self.admin;
        std::thread::spawn(move || post(admin, "/switchover", &serde_json::json!({ "to": to }).to_string()))
    }

    /// The old primary comes back as a standby, and is a voter again.
    pub fn rejoin(&self, old: &str, new: &str) {
        self.agents.as_ref().expect("agents").rejoin(&self.cluster, old, new);
        self.wait_until_ready();
    }

    pub fn freeze(&mut self, id: &str) {
        let processes = crate::faults::freeze(self.node(id));
        self.frozen.extend(processes);
    }

    pub fn thaw(&mut self) {
        crate::faults::thaw(&std::mem::take(&mut self.frozen));
    }

    pub fn restart_pgbaton(&mut self) {
        self.proxy.signal(rustix::process::Signal::KILL);
        self.proxy.wait();
        self.proxy = Proxy::start(&self.cluster, &self.settings);
    }

    /// Ends the load, and fails if anybody has noticed anything but a pause.
    #[track_caller]
    pub fn judge(&mut self) -> Verdict {
        let verdict = self.judge_failover();
        let is_clean =
            verdict.wrong() == 0 && verdict.lost.is_empty() && verdict.dropped() == 0 && verdict.unknown() == 0;
        let errors = verdict.failed.keys().filter(|code| *code != "ROLLBACK").count();
        assert!(is_clean && errors == 0, "{}:\n{verdict}", self.name);
        verdict
    }

    /// The same, for a person to judge: after a failure transactions may be rolled back.
    pub fn judge_failover(&mut self) -> Verdict {
        let log = self.load.take().expect("only once").end();
        let primary = self.node(&self.record().primary);
        let tables = Tables::of_a_primary(primary).expect("the primary of the record is one");
        let mut verdict = checker::judge(&log, &tables);
        for (code, count) in &log.other_errors {
            verdict.broken.push(format!("{count} errors {code} outside of writes"));
        }
        if !log.refused.is_empty() {
            verdict.broken.push(format!("logins refused: {:?}", log.refused));
        }
        let done = |write: &&checker_types::Write| write.outcome == Outcome::Acknowledged;
        let mut times: Vec<Duration> = log.writes.iter().filter(done).map(|write| write.done).collect();
        times.sort_unstable();
        let switched = self.switched.lock().unwrap().clone();
        let pauses: Vec<Duration> = switched
            .iter()
            .map(|(from, to)| {
                let within = |pair: &&[Duration]| pair[1] >= *from && pair[0] <= *to + Duration::from_millis(500);
                times.windows(2).filter(within).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
            })
            .collect();
        self.print(&pauses, &log);
        verdict
    }

    fn print(&self, pauses: &[Duration], log: &crate::load::Log) {
        let mut text = format!("## {}\n\n", self.name);
        let mut sorted = pauses.to_vec();
        sorted.sort_unstable();
        if let Some(median) = sorted.get(sorted.len() / 2) {
            text += &format!(
                "pauses of writes in ms: {:?}; median {}\n",
                pauses.iter().map(Duration::as_millis).collect::<Vec<_>>(),
                median.as_millis()
            );
        }
        let longest = log.writes.iter().map(|write| write.done - write.sent).max().unwrap_or_default();
        text += &format!("the longest write took {} ms\n", longest.as_millis());
        for change in self.history() {
            text += &format!("{change}\n");
        }
        println!("{text}");
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("switchover.md");
        if let Ok(mut file) = std::fs::File::options().create(true).append(true).open(file) {
            let _ = writeln!(file, "{text}");
        }
    }

    /// What pgbaton says about each change of epoch.
    fn history(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.directory.path()).unwrap().flatten().map(|entry| entry.path());
        let mut files = files.filter(|path| path.to_string_lossy().ends_with("history.jsonl"));
        let text = files.next().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = |entry: Value| {
            let entry = if entry["phases"].is_array() { entry } else { entry["entry"].clone() };
            let phases = entry["phases"].as_array()?.iter();
            let phases: Vec<String> =
                phases.map(|phase| format!("{} {}", phase[0].as_str().unwrap_or(""), phase[1])).collect();
            Some(format!("epoch {} {}: {}", entry["epoch"], entry["kind"], phases.join(", ")))
        };
        entries.filter_map(line).collect()
    }
}

use crate::load as checker_types;

fn post(admin: u16, path: &str, body: &str) -> Result<String, String> {
    let url = format!("http://127.0.0.1:{admin}").parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(http::post(&url, None, path, body.to_owned(), Duration::from_secs(60)));
    let text = answer.map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok(value["done"].as_str().unwrap_or_default().to_owned())
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.thaw();
        if std::thread::panicking() {
            let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("switchover-{}.log", self.name));
            let _ = std::fs::write(&file, self.proxy.log());
            eprintln!("the log of pgbaton is in {}", file.display());
        }
    }
}
