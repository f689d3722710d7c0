//! `pgbaton demo` as a user starts it: a whole cluster with agents that heals whatever is done to it, and of which nothing is left
//! afterwards, however it ended.

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use support::{DEADLINE, wait_for_end, wait_until};

/// How long a cluster may take to be up, or to heal, on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// A running demo in a directory of its own. However a test ends, it and what it started end too.
struct Demo {
    child: Child,
    directory: PathBuf,
    lines: Receiver<String>,
    said: Vec<String>,
    /// Removed with it.
    parent: Option<tempfile::TempDir>,
}

impl Demo {
    fn start(more: &[&str]) -> Demo {
        let parent = tempfile::tempdir().unwrap();
        support::set_mode(parent.path(), 0o755);
        let directory = parent.path().join("d");
        let mut demo = Demo::start_in(&directory, more);
        demo.parent = Some(parent);
        demo
    }

    fn start_in(directory: &Path, more: &[&str]) -> Demo {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
        command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--dir"]).arg(directory).args(more);
        // A demo takes its token from there.
        command.env_remove("PGBATON_TOKEN");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Demo { child, directory: directory.into(), lines, said: Vec::new(), parent: None }
    }

    /// Reads what it says until there is such a line.
    #[track_caller]
    fn wait_for_line(&mut self, what: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if what(&line) {
                        return line;
                    }
                }
                Err(_) => panic!("it said only:\n{}\n{}", self.said.join("\n"), self.logs()),
            }
        }
    }

    /// Until it is up.
    #[track_caller]
    fn up(mut self) -> Demo {
        self.wait_for_line(|line| line.starts_with("Ctrl-C"));
        self
    }

    /// A line of what it said, without the blanks before it.
    #[track_caller]
    fn line_with(&self, part: &str) -> &str {
        let line = self.said.iter().find(|line| line.contains(part));
        line.unwrap_or_else(|| panic!("no line with {part}:\n{}", self.said.join("\n"))).trim()
    }

    fn admin(&self) -> String {
        let line = self.line_with("admin          http://");
        line.split_whitespace().nth(1).unwrap().split("/cluster").next().unwrap().to_owned()
    }

    /// What it printed, typed into a shell as it stands, with something behind it.
    fn type_line(&self, line: &str, more: &str) -> Output {
        let path = format!("{}:{}", support::bin().directory().display(), std::env::var("PATH").unwrap());
        Command::new("sh").args(["-c", &format!("{line} {more}")]).env("PATH", path).output().unwrap()
    }

    #[track_caller]
    fn psql(&self, sql: &str) -> String {
        let output = self.type_line(self.line_with("PGPASSWORD=demo psql"), &format!("-XAtqc \"{sql}\""));
        assert!(output.status.success(), "{sql}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// One of pgbaton's verbs.
    fn verb(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
        command.args(arguments).env("PGBATON_ADMIN", self.admin()).env_remove("PGBATON_TOKEN").output().unwrap()
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.verb(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}\n{}", self.logs());
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.verb(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn cluster(&self) -> Value {
        serde_json::from_slice(&self.verb(&["list", "--json"]).stdout).unwrap_or_default()
    }

    fn node(&self, id: &str) -> Value {
        let cluster = self.cluster();
        cluster["nodes"]
            .as_array()
            .and_then(|nodes| nodes.iter().find(|node| node["id"] == id).cloned())
            .unwrap_or_default()
    }

    /// Until one node is the primary and all others stream and vote.
    #[track_caller]
    fn wait_until_whole(&self, primary: impl Fn(&str) -> bool) {
        let (mut cluster, deadline) = (Value::Null, Instant::now() + LONG);
        while Instant::now() < deadline {
            cluster = self.cluster();
            let Some(nodes) = cluster["nodes"].as_array() else { continue };
            let follows = nodes
                .iter()
                .filter(|node| node["role"] == "replica" && node["state"] == "running" && node["eligible"] == true);
            let voters = cluster["voters"].as_array().map_or(0, Vec::len);
            let is_primary = cluster["primary"].as_str().is_some_and(&primary);
            if is_primary && follows.count() + 1 == nodes.len() && voters + 1 == nodes.len() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("not whole again: {cluster:#}\n{}", self.logs());
    }

    fn server_pid(&self, node: &str) -> Option<u32> {
        let text = std::fs::read_to_string(self.directory.join(node).join("data/postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok()
    }

    /// Every process that has to do with it, but for itself.
    fn processes(&self) -> Vec<(u32, String)> {
        processes_of(&self.directory, self.child.id())
    }

    fn logs(&self) -> String {
        let logs = std::fs::read_dir(self.directory.join("log")).into_iter().flatten().flatten();
        let show = |entry: std::fs::DirEntry| {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(40)..].join("\n");
            format!("--- {}\n{end}\n", entry.path().display())
        };
        logs.map(show).collect()
    }

    /// Nothing of it is left but what it may leave.
    #[track_caller]
    fn assert_no_process(&self) {
        let mut left = Vec::new();
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            left = self.processes();
            if left.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("left behind: {left:?}");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Its sweeper does the rest.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let deadline = Instant::now() + DEADLINE;
        while !self.processes().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if std::thread::panicking() {
            eprintln!("{}", self.said.join("\n"));
        }
    }
}

fn processes_of(directory: &Path, but: u32) -> Vec<(u32, String)> {
    let needle = directory.display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let arguments = entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let text = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&text).replace('\0', " ")))
    });
    arguments.filter(|(pid, text)| *pid != but && *pid != std::process::id() && text.contains(&needle)).collect()
}

#[test]
fn the_demo_tells_how_to_connect_and_is_gone_after_ctrl_c() {
    let mut demo = Demo::start(&["--replicas", "1"]).up();
    assert_eq!(demo.psql("SELECT pg_is_in_recovery(), current_user, current_database()"), "f|demo|demo");
    for node in ["n1", "n2"] {
        let pid = demo.server_pid(node).unwrap();
        assert!(demo.said.iter().any(|line| line.ends_with(&format!("pid {pid}"))), "{:?}", demo.said);
    }
    assert_eq!(demo.cluster()["durability"], "quorum");
    let agents =
        demo.cluster()["nodes"].as_array().unwrap().iter().filter(|node| node["agent"]["state"] == "running").count();
    assert_eq!(agents, 2);
    support::send(demo.child.id(), Signal::INT);
    assert_eq!(wait_for_end(&mut demo.child, LONG), Some(0));
    demo.wait_for_line(|line| line == "Stopped; nothing is left behind.");
    assert!(processes_of(&demo.directory, 0).is_empty());
    assert!(!demo.directory.exists());
}

#[test]
fn what_it_says_to_try_next_works_as_it_stands() {
    let demo = Demo::start(&[]).up();
    demo.psql("CREATE TABLE t (n int)");
    let primary = demo.cluster()["primary"].as_str().unwrap().to_owned();
    let listed = demo.type_line(&demo.line_with(" list --watch").replace(" --watch", ""), "");
    assert!(String::from_utf8(listed.stdout).unwrap().contains(&format!("primary {primary}")));

    let killed = demo.type_line(demo.line_with("kill -9"), "");
    assert!(killed.status.success(), "{killed:?}");
    // The session waits for the next primary instead of failing.
    demo.psql("INSERT INTO t VALUES (1)");
    demo.wait_until_whole(|node| node != primary);
    let after_kill = demo.cluster()["primary"].as_str().unwrap().to_owned();
    assert_eq!(demo.node(&primary)["role"], "replica");

    let exchanged = demo.type_line(demo.line_with(" switchover"), "");
    assert!(exchanged.status.success(), "{exchanged:?}\n{}", demo.logs());
    demo.psql("INSERT INTO t VALUES (2)");
    demo.wait_until_whole(|node| node != after_kill);

    let rebuilt = demo.type_line(demo.line_with(" rebuild "), "");
    // Who was to be rebuilt may be the primary by now, and that is refused.
    let is_refused = String::from_utf8_lossy(&rebuilt.stderr).contains("is the primary");
    assert!(rebuilt.status.success() || is_refused, "{rebuilt:?}\n{}", demo.logs());
    demo.wait_until_whole(|_| true);

    let history = demo.type_line(demo.line_with(" history"), "");
    let history = String::from_utf8(history.stdout).unwrap();
    for what in ["failover", "switchover", "rejoin"] {
        assert!(history.contains(what), "{what}:\n{history}");
    }
    assert_eq!(demo.psql("SELECT count(*), sum(n) FROM t"), "2|3");
}

#[test]
fn operators_orders_are_carried_out_by_the_agents_or_refused() {
    let demo = Demo::start(&[]).up();
    let primary = demo.cluster()["primary"].as_str().unwrap().to_owned();
    let others: Vec<&str> = ["n1", "n2", "n3"].into_iter().filter(|node| *node != primary).collect();
    for order in [&["rejoin", "n9"][..], &["rebuild", "n9"], &["restart", "n9"], &["switchover", "--to", "n9"]] {
        assert!(demo.refused(order).contains("n9 is not in the configuration"), "{order:?}");
    }
    for order in [&["rejoin", &primary][..], &["rebuild", &primary], &["switchover", "--to", &primary]] {
        assert!(demo.refused(order).contains(&format!("{primary} is the primary")), "{order:?}");
    }
    let before = demo.server_pid(others[0]).unwrap();
    demo.done(&["restart", others[0]]);
    assert_ne!(demo.server_pid(others[0]), Some(before));
    demo.wait_until_whole(|node| node == primary);
    let made = std::fs::metadata(demo.directory.join(others[1]).join("data/PG_VERSION")).unwrap();
    demo.done(&["rebuild", others[1]]);
    let is_anew = |file: std::fs::Metadata| file.modified().unwrap() > made.modified().unwrap();
    wait_until(LONG, "the data is copied anew", || {
        std::fs::metadata(demo.directory.join(others[1]).join("data/PG_VERSION")).is_ok_and(is_anew)
    });
    demo.wait_until_whole(|node| node == primary);
    demo.done(&["switchover", "--to", others[1]]);
    demo.wait_until_whole(|node| node == others[1]);
    let history = demo.done(&["history"]);
    assert!(history.contains("rebuild"), "{history}");
}

#[test]
fn a_killed_demo_is_swept_up_after() {
    let mut demo = Demo::start(&["--replicas", "1"]).up();
    assert!(demo.processes().len() >= 4, "{:?}", demo.processes());
    // A frozen server takes no polite signal.
    support::send(demo.server_pid("n2").unwrap(), Signal::STOP);
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    demo.assert_no_process();
    wait_until(DEADLINE, "the directory is gone", || !demo.directory.exists());
}

#[test]
fn a_demo_killed_while_it_starts_is_swept_up_after() {
    let mut demo = Demo::start(&[]);
    wait_until(LONG, "a cluster is being made", || demo.directory.join("n1/data").exists());
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    demo.assert_no_process();
    wait_until(DEADLINE, "the directory is gone", || !demo.directory.exists());
}

#[test]
fn an_interrupted_start_of_the_demo_cleans_up_and_says_so() {
    let mut demo = Demo::start(&["--replicas", "1"]);
    wait_until(LONG, "the agents run", || demo.processes().iter().any(|(_, arguments)| arguments.contains("agent -c")));
    support::send(demo.child.id(), Signal::INT);
    assert_eq!(wait_for_end(&mut demo.child, LONG), Some(0));
    demo.wait_for_line(|line| line == "Cancelled; nothing is left behind.");
    demo.assert_no_process();
    assert!(!demo.directory.exists());
}

#[test]
fn a_demo_that_is_kept_is_started_again_with_its_data() {
    let parent = tempfile::tempdir().unwrap();
    support::set_mode(parent.path(), 0o755);
    let directory = parent.path().join("d");
    let mut demo = Demo::start_in(&directory, &["--replicas", "1", "--keep"]).up();
    demo.psql("CREATE TABLE kept AS SELECT 42 AS answer");
    let epoch = demo.cluster()["epoch"].as_u64().unwrap();
    let second = Command::new(env!("CARGO_BIN_EXE_pgbaton"))
        .args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--dir"])
        .arg(&directory)
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("is in use by another demo"), "{said}");
    support::send(demo.child.id(), Signal::TERM);
    assert_eq!(wait_for_end(&mut demo.child, LONG), Some(0));
    demo.wait_for_line(|line| line.starts_with("Stopped; data and logs are in"));
    demo.wait_for_line(|line| line.contains("starts it again"));
    demo.assert_no_process();
    assert!(directory.join("n1/data/PG_VERSION").exists() && directory.join("log/n1.log").exists());

    let mut again = Demo::start_in(&directory, &[]).up();
    assert_eq!(again.psql("SELECT answer FROM kept"), "42");
    assert!(again.cluster()["epoch"].as_u64().unwrap() >= epoch);
    assert_eq!(again.cluster()["nodes"].as_array().unwrap().len(), 3, "the one that was not there before is cloned");
    support::send(again.child.id(), Signal::INT);
    assert_eq!(wait_for_end(&mut again.child, LONG), Some(0));
    again.assert_no_process();
    assert!(directory.join("n1/data/PG_VERSION").exists(), "what was kept once stays");
}

#[test]
fn chaos_loses_nothing_and_says_so() {
    let mut demo = Demo::start(&["--chaos", "--seconds", "20", "--every", "2s"]);
    assert_eq!(wait_for_end(&mut demo.child, Duration::from_secs(300)), Some(0), "{}", demo.logs());
    demo.wait_for_line(|line| line == "Stopped; nothing is left behind.");
    let shown = demo.said.join("\n");
    let value = |name: &str| demo.line_with(&format!("  {name} ")).trim_start_matches(name).trim().to_owned();
    assert_eq!((&*value("lost"), &*value("duplicated")), ("0", "0"), "{shown}");
    assert!(!value("acknowledged").starts_with("0 "), "{shown}");
    assert!(shown.contains("writes/s") && shown.contains("follows again after"), "{shown}");
    demo.assert_no_process();
    assert!(!demo.directory.exists());
}

#[test]
fn the_demo_does_not_start_servers_when_an_address_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (taken, other) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
        let output = command.args(["demo", taken, &address, other, "127.0.0.1:0"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with(&format!("pgbaton: cannot listen on {address}")), "{said}");
        assert!(said.contains(taken), "{said}");
    }
}

#[test]
fn a_directory_that_is_no_demos_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pgbaton.toml"), "precious").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
    command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--dir"]).arg(directory.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("is not empty"));
    assert_eq!(std::fs::read(directory.path().join("pgbaton.toml")).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}
