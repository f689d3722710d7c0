//! `pgbaton drill --on` against a cluster that runs already: asked for first, played by orders and by commands, and gone without
//! a trace, however it ended.

mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pgbaton::drill::outcome::{MarkKind, Promise, Report, Verdict};
use rustix::process::Signal;
use serde_json::Value;
use support::{wait_for_end, wait_until};

/// How long a cluster may take to be up, or to heal, on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// A running demo, ended with its directory however the test ends.
struct Demo {
    child: Child,
    directory: PathBuf,
    proxy: String,
    admin: String,
    _parent: tempfile::TempDir,
    /// Kept, so that it can go on talking.
    _lines: Receiver<String>,
}

impl Demo {
    fn start() -> Demo {
        let parent = tempfile::tempdir().unwrap();
        support::set_mode(parent.path(), 0o755);
        let directory = parent.path().join("d");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
        command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--dir"]).arg(&directory);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let (mut said, deadline) = (Vec::new(), Instant::now() + LONG);
        while !said.last().is_some_and(|line: &String| line.starts_with("Ctrl-C")) {
            let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            said.push(line.unwrap_or_else(|_| panic!("it said only:\n{}", said.join("\n"))));
        }
        let word = |before: &str| {
            let line =
                said.iter().find(|line| line.contains(before)).unwrap_or_else(|| panic!("no {before}: {said:?}"));
            line.split(before).nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
        };
        let (admin, proxy) = (word("http://"), word("psql -h 127.0.0.1 -p "));
        let admin = format!("http://{}", admin.split('/').next().unwrap());
        Demo { child, directory, proxy, admin, _parent: parent, _lines: lines }
    }

    /// Arguments of a drill on it, with the cluster's name as consent.
    fn drill(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
        let dsn = format!("host=127.0.0.1 port={} user=demo dbname=demo", self.proxy);
        command.args(["drill", "--on", &self.admin, "--dsn", &dsn]).args(more);
        if !more.contains(&"--seconds") {
            command.args(["--seconds", "1"]);
        }
        command.env("PGPASSWORD", "demo").env_remove("PGBATON_TOKEN").stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn played(&self, more: &[&str]) -> Report {
        let output = self.drill(more).args(["--json", "--yes", "demo"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", shown(&output)))
    }

    fn cluster(&self) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
        let output = command.args(["list", "--json", "--admin", &self.admin]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    #[track_caller]
    fn psql(&self, sql: &str) -> String {
        let mut command = Command::new(support::bin().program("psql"));
        command.args(["-h", "127.0.0.1", "-p", &self.proxy, "-U", "demo", "-XAtqc", sql]).env("PGPASSWORD", "demo");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", shown(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[track_caller]
    fn assert_nothing_is_left(&self) {
        let left = "/* pgbaton: primary */ SELECT count(*) FROM pg_namespace WHERE nspname = 'pgbaton_drill'";
        assert_eq!(self.psql(left), "0");
    }

    fn node(&self, id: &str) -> String {
        let cluster = self.cluster();
        let node = cluster["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).unwrap().clone();
        format!("{id}=host=127.0.0.1 port={} user=demo dbname=demo", node["port"])
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        support::send(self.child.id(), Signal::INT);
        wait_for_end(&mut self.child, LONG);
    }
}

fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn verdict(report: &Report, run: usize, promise: Promise) -> Verdict {
    let promises = &report.runs[run].promises;
    promises.iter().find(|judged| judged.promise == promise).unwrap_or_else(|| panic!("{promises:?}")).verdict
}

/// One demo for all of them: what one test does to it, the next one finds mended.
#[test]
fn a_drill_on_a_running_cluster() {
    let demo = Demo::start();
    nothing_is_done_without_consent(&demo);
    orders_are_played_and_judged(&demo);
    what_is_broken_by_a_command_is_mended_by_another(&demo);
    an_interrupted_drill_leaves_nothing_behind(&demo);
}

fn nothing_is_done_without_consent(demo: &Demo) {
    let epoch = demo.cluster()["epoch"].clone();
    let refused = |mut command: Command, words: &str| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
        assert!(
            output.stdout.is_empty() && String::from_utf8_lossy(&output.stderr).contains(words),
            "{}",
            shown(&output)
        );
        String::from_utf8(output.stderr).unwrap()
    };
    // Nobody is there; a name was said that is another cluster's; it cannot be done from outside.
    let said = refused(demo.drill(&["switchover"]), "--yes NAME");
    for part in
        ["to the cluster demo", "n1  127.0.0.1:", "another node is made the primary", "the schema pgbaton_drill"]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    refused(demo.drill(&["switchover", "--yes", "production"]), "is demo, not production: nothing was done");
    refused(demo.drill(&["kill-primary", "--yes", "demo"]), "no scenario is called kill-primary");
    refused(demo.drill(&["--mend", "true", "--yes", "demo"]), "--break");
    assert_eq!(demo.cluster()["epoch"], epoch);
    demo.assert_nothing_is_left();
}

fn orders_are_played_and_judged(demo: &Demo) {
    let before = demo.cluster()["primary"].clone();
    let nodes = ["n1", "n2", "n3"].map(|id| demo.node(id));
    let page = demo.directory.join("drill.html");
    let scenarios = ["switchover", "terminate-backends", "pause-and-resume"];
    let mut more: Vec<&str> = scenarios.to_vec();
    more.extend(nodes.iter().flat_map(|node| ["--node", node.as_str()]));
    more.extend(["--report", page.to_str().unwrap()]);
    let report = demo.played(&more);
    assert_eq!(report.runs.iter().map(|run| run.scenario.as_str()).collect::<Vec<_>>(), scenarios);
    for run in &report.runs {
        assert!(!run.is_bad() && run.figures.acknowledged > 20, "{run:#?}");
        assert!(run.slices.iter().any(|slice| slice.reads > 0));
        assert_eq!(run.marks[0].kind, MarkKind::Fault);
    }
    // Each node was read, and held what the primary held.
    assert_eq!(verdict(&report, 0, Promise::OnePrimary), Verdict::Pass);
    assert_ne!(demo.cluster()["primary"], before);
    let switchover = &report.runs[0];
    assert!(!switchover.figures.phases.is_empty(), "{:?}", switchover.figures);
    assert!(switchover.story.iter().any(|chapter| chapter.what == "switchover"), "{:?}", switchover.story);
    assert_eq!((switchover.figures.detection, switchover.figures.dropped), (None, 0));
    assert!(std::fs::read_to_string(&page).unwrap().contains("pause-and-resume"));
    demo.assert_nothing_is_left();
}

fn what_is_broken_by_a_command_is_mended_by_another(demo: &Demo) {
    let primary = demo.cluster()["primary"].as_str().unwrap().to_owned();
    let flag = demo.directory.join("mended");
    let pid = demo.directory.join(&primary).join("data/postmaster.pid");
    // The agent starts what was killed; there is nothing else to mend.
    let breaks = format!("kill -9 $(head -1 {})", pid.display());
    let mend = format!("touch {}", flag.display());
    let report = demo.played(&["--break", &breaks, "--mend", &mend]);
    let run = &report.runs[0];
    assert_eq!((run.scenario.as_str(), report.runs.len()), ("break", 1));
    assert!(run.does.contains(&breaks) && flag.exists(), "{run:#?}");
    assert_eq!(verdict(&report, 0, Promise::NothingLost), Verdict::Pass);
    assert_eq!(verdict(&report, 0, Promise::OnePrimary), Verdict::NotApplicable, "nobody asked the nodes");
    assert!(run.story.iter().any(|chapter| chapter.what == "failover"), "{:?}", run.story);
    demo.assert_nothing_is_left();

    let output = demo.drill(&["--break", "exit 3", "--yes", "demo"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("`exit 3` ended with exit status: 3"),
        "{}",
        shown(&output)
    );
    demo.assert_nothing_is_left();
}

fn an_interrupted_drill_leaves_nothing_behind(demo: &Demo) {
    let mut child = demo
        .drill(&["switchover", "--yes", "demo", "--seconds", "600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let is_there = "/* pgbaton: primary */ SELECT count(*) FROM pg_class WHERE relname = 'ledger'";
    wait_until(LONG, "the clients are at work", || demo.psql(is_there) == "1");
    support::send(child.id(), Signal::INT);
    // What is known so far is printed, and that it came to no end.
    assert_eq!(wait_for_end(&mut child, LONG), Some(1));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("it was interrupted"), "{said}");
    demo.assert_nothing_is_left();
}
