//! Agents as processes of their own, each with a directory that is gone afterwards, and pgbatons for them to ask.

#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgbaton::programs::{Cancel, PgBin, RunAs, Runner};
use serde_json::{Value, json};

pub const TOKEN: &str = "open-sesame";
/// Of the control user.
pub const PASSWORD: &str = "it's a \\ secret";
/// How long a condition may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

const BINARY: &str = env!("CARGO_BIN_EXE_pgbaton");

pub fn as_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("not run: this needs root");
    }
    is_root
}

#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "not yet: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Below the range that outgoing connections take theirs from.
pub fn free_port() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    let start = u16::try_from(RandomState::new().hash_one(0) % 10_000).unwrap();
    (0..10_000)
        .map(|step| 20_000 + (start + step) % 10_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "kill -{name} {pid}");
}

/// Name, state, parent.
fn stat(pid: u32) -> Option<(String, char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = text.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((before.split_once('(')?.1.to_owned(), state, fields.next()?.parse().ok()?))
}

pub fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|(_, state, _)| state != 'Z')
}

pub fn name(pid: u32) -> String {
    stat(pid).map(|(name, ..)| name).unwrap_or_default()
}

fn all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

pub fn children(parent: u32) -> Vec<u32> {
    all().filter(|pid| stat(*pid).is_some_and(|(_, state, of)| of == parent && state != 'Z')).collect()
}

pub fn dead_children(parent: u32) -> Vec<u32> {
    all().filter(|pid| stat(*pid).is_some_and(|(_, state, of)| of == parent && state == 'Z')).collect()
}

/// PostgreSQL's processes in a data directory.
pub fn those_in(data_dir: &Path) -> Vec<u32> {
    let is_there = |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|directory| directory == data_dir);
    all().filter(is_there).filter(|pid| lives(*pid)).collect()
}

/// Stops every process of a server as a paused virtual machine does.
pub fn freeze(data_dir: &Path) {
    for pid in those_in(data_dir) {
        // Some come and go.
        let _ = Command::new("kill").args(["-STOP", &pid.to_string()]).stderr(Stdio::null()).status();
    }
}

/// One question: with a body it is a POST. The status and the body of the answer.
pub fn http(port: u16, token: Option<&str>, kind: &str, path: &str, body: &str) -> (u16, String) {
    ask(port, token, kind, path, body).unwrap_or_else(|| panic!("no answer to {path}"))
}

/// `None`: nobody answers.
fn ask(port: u16, token: Option<&str>, kind: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !kind.is_empty() {
        head.push_str(&format!("Content-Type: {kind}\r\n"));
    }
    if let Some(token) = token {
        head.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    // One that refuses may not read it all.
    let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// A pgbaton that says what a test wants to be said.
pub struct Responder {
    port: u16,
    says: Arc<Mutex<Option<String>>>,
    is_over: Arc<AtomicBool>,
}

impl Responder {
    pub fn start() -> Responder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (says, is_over) = (Arc::<Mutex<Option<String>>>::default(), Arc::<AtomicBool>::default());
        let (says_what, ends) = (says.clone(), is_over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(mut stream), Some(body)) = (stream, says_what.lock().unwrap().clone()) else { continue };
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                    line.clear();
                }
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
                let _ = stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
            }
        });
        Responder { port, says, is_over }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Epoch and leader of the record; `None`: nothing at all.
    pub fn say(&self, what: Option<(Option<u64>, Option<&str>)>) {
        *self.says.lock().unwrap() = what.map(|(epoch, leader)| {
            json!({ "name": "main", "epoch": epoch, "leader": leader, "nodes": [] }).to_string()
        });
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// A real pgbaton.
pub struct Pgbaton {
    process: Child,
    _dir: tempfile::TempDir,
}

impl Pgbaton {
    pub fn start(admin: u16, nodes: &[(&str, u16)]) -> Pgbaton {
        let dir = tempfile::tempdir().unwrap();
        let mut text = format!("[proxy]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n");
        for (id, port) in nodes {
            text.push_str(&format!("[[cluster.nodes]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {port}\n"));
        }
        let file = dir.path().join("pgbaton.toml");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["serve", "-c"]).arg(&file).env("PGBATON_CONTROL_PASSWORD", PASSWORD);
        let process = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("pgbaton answers", || TcpStream::connect(("127.0.0.1", admin)).is_ok());
        Pgbaton { process, _dir: dir }
    }
}

impl Drop for Pgbaton {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub struct Agent {
    dir: tempfile::TempDir,
    node: String,
    pub port: u16,
    pub postgres_port: u16,
    pgbatons: Vec<u16>,
    process: Option<Child>,
}

impl Agent {
    /// Without data, and without a file.
    pub fn new(node: &str, postgres_port: u16, pgbatons: &[u16]) -> Agent {
        let dir = tempfile::tempdir().unwrap();
        // The server's user has to get in.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        let agent = Agent { dir, node: node.into(), port, postgres_port, pgbatons: pgbatons.into(), process: None };
        agent.runner().create_directory(&agent.dir.path().join("run"), 0o755).unwrap();
        agent
    }

    /// With a cluster of its own, whose superuser is the control user and needs no password.
    pub fn with_data(node: &str, pgbatons: &[u16], is_standby: bool) -> Agent {
        let agent = Agent::new(node, free_port(), pgbatons);
        let runner = agent.runner();
        let data = agent.data_dir();
        runner.create_directory(&data, 0o700).unwrap();
        let mut command = runner.command(&PgBin::find().unwrap().program("initdb"));
        command.arg("-D").arg(&data).args(["-U", "pgbaton", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]);
        runner.run(command, "initdb", &agent.dir.path().join("initdb.log")).unwrap();
        if is_standby {
            runner.write(&data.join("standby.signal"), b"").unwrap();
        }
        agent.write_config("");
        agent
    }

    fn runner(&self) -> Runner {
        Runner {
            run_as: RunAs::choose().unwrap(),
            working_directory: self.dir.path().to_path_buf(),
            cancel: Cancel::default(),
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("data")
    }

    /// What the agent keeps beside it.
    pub fn beside(&self, name: &str) -> PathBuf {
        let directory = self.dir.path().canonicalize().unwrap().join("data.agent");
        if name.is_empty() { directory } else { directory.join(name) }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("agent.toml")
    }

    /// What every agent needs is there already; `more` begins within `[agent]`.
    pub fn write_config(&self, more: &str) {
        let pgbatons: Vec<String> = self.pgbatons.iter().map(|port| format!("\"http://127.0.0.1:{port}\"")).collect();
        let socket_dir = if more.contains("socket_dir") { "" } else { "socket_dir = \"run\"\n" };
        let text = format!(
            "[agent]\nnode = \"{}\"\nlisten = \"127.0.0.1:{}\"\ntoken = \"{TOKEN}\"\ndata_dir = \"data\"\nport = {}\n\
             pgbatons = [{}]\n{socket_dir}{more}\n",
            self.node,
            self.port,
            self.postgres_port,
            pgbatons.join(", ")
        );
        fs::write(self.file(), text).unwrap();
    }

    /// Its start takes for ever: it wants to have something that nobody brings.
    pub fn damage_start(&self) {
        self.write_config("[agent.postgres]\nrestore_command = \"sleep 1000\"");
    }

    pub fn start(&mut self) {
        self.start_in(&[]);
    }

    /// By way of another program.
    pub fn start_in(&mut self, wrapper: &[&str]) {
        let mut words = wrapper.iter().copied().chain([BINARY, "agent", "-c"]);
        let mut command = Command::new(words.next().unwrap());
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("agent.log")).unwrap();
        command.args(words).arg(self.file()).env("PGBATON_CONTROL_PASSWORD", PASSWORD);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        wait_until("the agent answers", || {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the agent has ended: {}", self.log());
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    /// What a second agent with the same file says, on another port.
    pub fn another(&self) -> String {
        let file = self.dir.path().join("second.toml");
        let text = fs::read_to_string(self.file()).unwrap();
        fs::write(&file, text.replace(&format!(":{}\"\ntoken", self.port), &format!(":{}\"\ntoken", free_port())))
            .unwrap();
        self.run(&["agent"], &file)
    }

    /// What it says before it ends in failure.
    pub fn refused(&self, verb: &[&str]) -> String {
        self.run(verb, &self.file())
    }

    fn run(&self, verb: &[&str], file: &Path) -> String {
        let output = Command::new(BINARY).args(verb).arg("-c").arg(file).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Waits for its end.
    pub fn exit(&mut self) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        wait_until("the agent ends", || process.try_wait().unwrap().is_some());
        process.wait().unwrap().code()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    pub fn status(&self) -> Value {
        let (status, body) = http(self.port, Some(TOKEN), "", "/status", "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    #[track_caller]
    pub fn wait(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            // An agent that is just being started anew does not answer.
            let answer = ask(self.port, Some(TOKEN), "", "/status", "");
            let report = answer.map_or(Value::Null, |(_, body)| serde_json::from_str(&body).unwrap());
            if condition(&report) {
                return report;
            }
            assert!(Instant::now() < deadline, "not yet: {what}: {report}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn post(&self, epoch: u64, id: &str, task: Value) -> (u16, String) {
        let order = json!({ "epoch": epoch, "id": id, "task": task }).to_string();
        http(self.port, Some(TOKEN), "application/json", "/actions", &order)
    }

    /// Gives an order and waits for what comes of it.
    #[track_caller]
    pub fn order(&self, epoch: u64, id: &str, task: Value) -> Value {
        let (status, body) = self.post(epoch, id, task);
        assert_eq!(status, 202, "{body}");
        self.wait(&format!("order {id} has ended"), |report| report["done"]["id"] == id)["done"].clone()
    }

    /// Of the running server; 0 while there is none.
    pub fn postmaster(&self) -> u32 {
        let text = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        text.lines().next().and_then(|line| line.parse().ok()).unwrap_or(0)
    }

    /// As the control user. Empty when it fails.
    pub fn sql(&self, statement: &str) -> String {
        let mut command = Command::new(PgBin::find().unwrap().program("psql"));
        command.env("PGPASSWORD", PASSWORD).args(["-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-U", "pgbaton"]);
        command.args(["-d", "postgres", "-p", &self.postgres_port.to_string(), "-c", statement]);
        let output = command.output().unwrap();
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn control_data(&self, label: &str) -> String {
        let mut command = self.runner().command(&PgBin::find().unwrap().program("pg_controldata"));
        let output = command.env("LC_ALL", "C").arg("-D").arg(self.data_dir()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_default().trim_start_matches(':').trim().into()
    }

    pub fn cluster_state(&self) -> String {
        self.control_data("Database cluster state")
    }

    /// Where `pg_waldump` finds nothing more behind the last checkpoint.
    pub fn end_of_log(&self) -> Option<String> {
        let mut command = self.runner().command(&PgBin::find().unwrap().program("pg_waldump"));
        command.env("LC_ALL", "C").arg("-p").arg(self.data_dir().join("pg_wal"));
        command.args(["-s", &self.control_data("Latest checkpoint location")]);
        let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
        Some(said.split_once("invalid record length at ")?.1.split(':').next()?.to_owned())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let data_dir = self.data_dir();
        for pid in those_in(&data_dir) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !those_in(&data_dir).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
