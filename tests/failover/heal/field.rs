//! Three machines with an agent each, one with pgbaton, and clients; empty at first.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgbaton::demo::Sweeper;

use super::host::Host;
use crate::baton::{self, Baton, Record};
use crate::checker::{self, Asked, Tables, Verdict};
use crate::load::{CREW, Load, Log, TABLES};
use crate::network::Network;
use crate::support::{self, wait_until};

pub const USER: &str = "demo";
pub const PASSWORD: &str = "demo";
pub const DATABASE: &str = "demo";
pub const PORT: u16 = 5432;
pub const TOKEN: &str = "only-for-this-test";
pub const CONTROL_PASSWORD: &str = "of-the-control-user";

/// The promise: after each fault, so long until everything is as it was.
pub const WHOLE: Duration = Duration::from_secs(60);
const CALM: Duration = Duration::from_millis(1500);

/// Fields end in this order: nobody is to see the servers go.
pub struct Field {
    load: Option<Load>,
    pub baton: Baton,
    hosts: BTreeMap<String, Host>,
    pub network: Arc<Network>,
    sweeper: Sweeper,
    directory: tempfile::TempDir,
    name: &'static str,
    report: String,
}

impl Field {
    /// `None`: there can be no networks here, which was said.
    pub fn new(name: &'static str, size: usize) -> Option<Field> {
        let ids: Vec<String> = (1..=size).map(|number| format!("n{number}")).collect();
        let mut names: Vec<&str> = ids.iter().map(String::as_str).collect();
        names.push(baton::MEMBER);
        let network = match Network::new(&names) {
            Ok(network) => Arc::new(network),
            Err(reason) => {
                let _ = writeln!(std::io::stderr(), "skipped: {name}: {reason}");
                return None;
            }
        };
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        support::set_mode(root, 0o755);
        for folder in ["data", "run", "baton"] {
            std::fs::create_dir(root.join(folder)).unwrap();
            support::set_mode(&root.join(folder), 0o777);
        }
        for (file, secret) in [("control_password", CONTROL_PASSWORD), ("superuser_password", PASSWORD)] {
            write_secret(&root.join(file), secret);
        }
        let sweeper = Sweeper::watch(root, "QUIT", false).unwrap();
        let address = SocketAddr::from((network.address(baton::MEMBER), 6432));
        let admin = format!("http://{}:6433", network.address(baton::MEMBER));
        let host = |id: &String| {
            let folder = root.join("run").join(id);
            std::fs::create_dir(&folder).unwrap();
            support::set_mode(&folder, 0o777);
            (id.clone(), Host::new(id, root.to_path_buf(), network.clone(), &admin))
        };
        let hosts: BTreeMap<String, Host> = ids.iter().map(host).collect();
        hosts.values().for_each(Host::start);
        let (home, config) = configure(root, &network, &ids);
        let baton = Baton::run(home, config, address, Some(network.clone()));
        let report = "it did not come to a verdict".into();
        let mut field = Field { load: None, baton, hosts, network, sweeper, directory, name, report };
        field.wait_until_whole("the cluster has made itself");
        field.primary().ask(TABLES).unwrap();
        let load = Load::start(address, Some(field.network.clone()), CREW);
        let everybody = CREW.writers + CREW.transfers + CREW.own_readers + CREW.readers + CREW.idle;
        wait_until(WHOLE, "everybody is connected and writes", || {
            load.connected() >= everybody as u64 && load.has_written_since(CALM)
        });
        field.load = Some(load);
        Some(field)
    }

    pub fn host(&self, id: &str) -> &Host {
        &self.hosts[id]
    }

    pub fn ids(&self) -> Vec<String> {
        self.hosts.keys().cloned().collect()
    }

    pub fn record(&self) -> Record {
        self.baton.record().expect("a record")
    }

    /// By the record.
    pub fn primary(&self) -> &Host {
        self.host(&self.record().primary)
    }

    pub fn now(&self) -> Duration {
        self.load().now()
    }

    /// A verb of pgbaton's, as an operator types it: what it printed, or why it was refused.
    pub fn order(&self, words: &[&str]) -> Result<String, String> {
        let admin = format!("http://{}:6433", self.network.address(baton::MEMBER));
        let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        self.network.among_clients(move || {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pgbaton"));
            let output = command.args(words).env("PGBATON_ADMIN", admin).env("PGBATON_TOKEN", TOKEN).output().unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
            if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
        })
    }

    /// Until there is one primary, which takes writes, and all others receive from it and have replayed what it had.
    /// Returns how long that took.
    pub fn wait_until_whole(&self, what: &str) -> Duration {
        let began = Instant::now();
        let mut last = String::new();
        while let Err(reason) = self.is_whole() {
            last = reason;
            assert!(
                began.elapsed() < WHOLE,
                "{what}, and after {} s it is not whole: {last}\n{}",
                WHOLE.as_secs(),
                self.order(&["list"]).unwrap_or_else(|error| error)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = last;
        began.elapsed()
    }

    fn is_whole(&self) -> Result<(), String> {
        let record = self.baton.record().ok_or("no record")?;
        if record.phase != "stable" {
            return Err(format!("epoch {} is {}", record.epoch, record.phase));
        }
        if record.voters.len() != self.hosts.len() - 1 {
            return Err(format!("voters are {:?}", record.voters));
        }
        let primary = self.host(&record.primary);
        let words =
            "SELECT pg_current_wal_lsn(), ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
                     WHERE NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off'";
        let answer = primary.ask(words).filter(|answer| !answer.is_empty());
        let answer = answer.ok_or(format!("{} is no primary that takes writes", primary.id))?;
        let (lsn, timeline) = answer.split_once('|').ok_or("odd")?;
        for host in self.hosts.values().filter(|host| host.id != primary.id) {
            let question = format!(
                "SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= '{lsn}'
                 AND (SELECT received_tli = {timeline} AND status = 'streaming' FROM pg_stat_wal_receiver)"
            );
            let end = Instant::now() + Duration::from_secs(2);
            loop {
                match host.ask(&question).as_deref() {
                    Some("t") => break,
                    _ if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                    answer => return Err(format!("{} does not follow {} ({answer:?})", host.id, primary.id)),
                }
            }
        }
        self.are_agents_done()
    }

    /// A rejoin ends a moment after the node streams: its agent makes sure of it first.
    fn are_agents_done(&self) -> Result<(), String> {
        let cluster: serde_json::Value =
            serde_json::from_str(&self.order(&["list", "--json"])?).map_err(|error| error.to_string())?;
        for node in cluster["nodes"].as_array().into_iter().flatten() {
            let agent = &node["agent"];
            if agent["state"] != "running" || agent["step"] != "" {
                return Err(format!("the agent of {} is at work: {agent}", node["id"]));
            }
        }
        Ok(())
    }

    /// Until `pgbaton list` says one of these of a node.
    pub fn wait_until_listed(&self, id: &str, words: &[&str]) {
        let says = |line: &str| line.starts_with(id) && words.iter().any(|word| line.contains(word));
        let mut last = String::new();
        let began = Instant::now();
        while !last.lines().any(says) {
            assert!(began.elapsed() < WHOLE, "{id} is not listed with one of {words:?}:\n{last}");
            last = self.order(&["list"]).unwrap_or_else(|error| error);
        }
    }

    /// Until something that was sent from now on is acknowledged.
    pub fn wait_for_writes(&self) {
        let now = self.now();
        wait_until(WHOLE, "writes are taken", || self.load().has_written_since(now));
    }

    /// Life goes on for a while, with everything as it is.
    pub fn live_on(&self) {
        let until = self.now() + CALM;
        wait_until(WHOLE, "writes go on", || self.load().has_written_since(until));
    }

    /// Ends the load and compares what everybody was told with what every node holds, which has to be the same.
    pub fn judge(mut self) -> (Log, Verdict) {
        self.wait_until_whole("before the verdict");
        let log = self.load.take().expect("only once").end();
        self.wait_until_whole("at the verdict");
        let tables = Tables::of_a_primary(self.primary()).expect("the primary of the record is one");
        let mut verdict = checker::judge(&log, &tables);
        for host in self.hosts.values() {
            if Tables::read(host).unwrap() != tables {
                verdict.broken.push(format!("{} holds something else than the primary", host.id));
            }
        }
        self.report = format!("{verdict}\n{:#?}", log.samples);
        assert!(verdict.wrong() == 0 && verdict.lost.is_empty(), "{}:\n{verdict}", self.name);
        (log, verdict)
    }

    fn load(&self) -> &Load {
        self.load.as_ref().expect("before it is judged")
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        self.network.heal();
        self.baton.thaw();
        let name: String = self.name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("heal-{name}.log"));
        let mut text = format!("{}\n\n{}\n", self.report, self.baton.log());
        for host in self.hosts.values() {
            text += &format!("\n--- agent of {}\n{}", host.id, host.log());
        }
        let _ = std::fs::write(&file, text);
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "what everybody logged is in {}", file.display());
        }
        self.hosts.clear();
        // What is left of servers is stopped by it, should anything be.
        let _ = (&self.sweeper, &self.directory);
    }
}

/// pgbaton's file, in a directory of its own.
fn configure(root: &Path, network: &Network, ids: &[String]) -> (tempfile::TempDir, std::path::PathBuf) {
    let home = tempfile::tempdir_in(root.join("baton")).unwrap();
    let address = network.address(baton::MEMBER);
    write_secret(&home.path().join("users"), &format!("\"{USER}\" \"{PASSWORD}\"\n"));
    write_secret(&home.path().join("control_password"), CONTROL_PASSWORD);
    let mut text = format!(
        "[proxy]\nlisten = [\"{address}:6432\"]\n[auth]\nmethod = \"file\"\nusers_file = \"users\"\n\
         [[auth.rules]]\nmethod = \"trust\"\n[cluster]\ncontrol_password_file = \"control_password\"\n\
         durability = \"quorum\"\nagent_token = \"{TOKEN}\"\n[admin]\nlisten = \"{address}:6433\"\ntoken = \"{TOKEN}\"\n\
         [coordination]\npath = \"{}/state.json\"\n",
        home.path().display()
    );
    for id in ids {
        let host = network.address(id);
        text += &format!(
            "[[cluster.nodes]]\nid = \"{id}\"\nhost = \"{host}\"\nport = {PORT}\nagent = \"http://{host}:6501\"\n"
        );
    }
    let file = home.path().join("pgbaton.toml");
    write_secret(&file, &text);
    (home, file)
}

pub fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    support::set_mode(path, 0o600);
}
