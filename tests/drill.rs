//! `pgbaton drill` as a user starts it: what it plays is judged and told, and nothing of it is left, however it ended.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgbaton::drill::faults;
use pgbaton::drill::outcome::{End, Promise, Report, Verdict};
use pgbaton::drill::scenarios;
use rustix::process::Signal;
use support::{wait_for_end, wait_until};

/// How long a drill may take to come to an end on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// Who has the machine: three clusters at once tell of nothing but a busy one.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a drill makes its clusters: any user may.
fn ground() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    support::set_mode(directory.path(), 0o777);
    directory
}

fn drill(ground: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
    command.arg("drill").args(arguments).env("TMPDIR", ground).stdin(Stdio::null());
    command
}

/// One that has said such a line, and all that runs for it.
fn started(ground: &Path, arguments: &[&str], until: &str) -> (Child, BTreeSet<u32>) {
    let mut child = drill(ground, arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(until) {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it has ended before it said {until}");
    }
    // What else it says is nobody's concern, but has to be read.
    std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
    let family = faults::family(child.id());
    assert!(family.len() > 10, "{family:?}");
    (child, family)
}

#[track_caller]
fn assert_nothing_is_left(ground: &Path, family: &BTreeSet<u32>) {
    let is_alive = |pid: &&u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    };
    wait_until(LONG, "every process has ended", || !family.iter().any(|pid| is_alive(&pid)));
    let entries = || std::fs::read_dir(ground).unwrap().count();
    wait_until(LONG, "no file is left", || entries() == 0);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn report(output: &Output) -> Report {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{}", text(&output.stderr)))
}

#[test]
fn what_is_played_is_judged_and_told() {
    let _turn = turn();
    let ground = ground();
    let page = ground.path().join("report.html");
    let names = ["kill-primary", "switchover", "kill-replica"];
    let arguments = [&names[..], &["--seconds", "1", "--json", "--report", page.to_str().unwrap()]].concat();
    let output = drill(ground.path(), &arguments).output().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(report.runs.iter().map(|run| run.scenario.as_str()).collect::<Vec<_>>(), names);
    for run in &report.runs {
        assert_eq!(run.end, End::Played, "{}", run.scenario);
        assert_eq!(run.promises.len(), 6, "{:?}", run.promises);
        assert!(run.promises.iter().all(|judged| judged.verdict == Verdict::Pass), "{:?}", run.promises);
        assert!(run.figures.acknowledged > 100, "{:?}", run.figures);
        assert!(!run.marks.is_empty() && run.slices.len() > 10);
        assert_eq!(run.slices.iter().map(|slice| u64::from(slice.writes)).sum::<u64>(), run.figures.acknowledged);
    }
    let killed = &report.runs[0];
    assert!(killed.figures.detection.is_some() && killed.figures.write_gap.is_some(), "{:?}", killed.figures);
    assert!(killed.story.iter().any(|chapter| chapter.what == "failover"), "{:?}", killed.story);
    let switched = &report.runs[1];
    assert!(switched.figures.detection.is_none() && switched.figures.failed.is_empty(), "{:?}", switched.figures);
    assert!(switched.story.iter().any(|chapter| chapter.what == "switchover"), "{:?}", switched.story);
    assert!(report.runs[2].story.iter().all(|chapter| chapter.what != "failover"));
    assert!(std::fs::read_to_string(&page).unwrap().contains("kill-primary"));
    std::fs::remove_file(page).unwrap();
    assert_nothing_is_left(ground.path(), &BTreeSet::new());
}

#[test]
fn a_name_that_nothing_has_is_answered_with_the_nearest() {
    let ground = ground();
    let output = drill(ground.path(), &["kill-primary", "partition-primry"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean partition-primary"), "{}", text(&output.stderr));
}

#[test]
fn the_list_says_what_each_does() {
    let ground = ground();
    let output = drill(ground.path(), &["--list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let list = text(&output.stdout);
    assert_eq!(list, scenarios::all().iter().map(|scenario| scenario.description()).collect::<String>());
    for scenario in scenarios::all() {
        assert!(
            list.contains(&format!("    {}\n    expected: {}\n", scenario.does, scenario.expects)),
            "{}",
            scenario.name
        );
    }
}

#[test]
fn the_page_names_every_scenario() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/drill.md");
    let page = std::fs::read_to_string(file).unwrap();
    let table = scenarios::reference();
    assert!(page.contains(&table), "docs/drill.md has to contain:\n{table}");
}

#[test]
fn an_interrupted_drill_leaves_nothing_and_tells_what_it_knows() {
    let _turn = turn();
    let ground = ground();
    let (mut child, family) = started(ground.path(), &["freeze-primary", "--seconds", "600"], "stands still");
    support::send(child.id(), Signal::INT);
    assert_eq!(wait_for_end(&mut child, LONG), Some(0));
    assert_nothing_is_left(ground.path(), &family);
}

#[test]
fn a_killed_drill_is_swept_up_after() {
    let _turn = turn();
    let ground = ground();
    let (mut child, family) = started(ground.path(), &["freeze-primary", "--seconds", "600"], "stands still");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_nothing_is_left(ground.path(), &family);
}

/// Without root there are no cables to cut; what takes none is played all the same.
#[test]
fn who_is_not_root_is_told_what_was_skipped() {
    let _turn = turn();
    let ground = ground();
    let mut command = drill(ground.path(), &["partition-primary", "kill-replica", "--seconds", "0", "--json"]);
    if rustix::process::geteuid().is_root() {
        let as_root = command;
        command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"]);
        command.arg(as_root.get_program()).args(as_root.get_args());
        command.env("TMPDIR", ground.path()).stdin(Stdio::null()).current_dir("/");
    }
    let output = command.output().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let End::Skipped { reason } = &report.runs[0].end else { panic!("{:?}", report.runs[0].end) };
    assert!(reason.contains("only root"), "{reason}");
    assert_eq!(report.runs[1].end, End::Played);
    let has_failed = |judged: &pgbaton::drill::outcome::Judged| judged.verdict == Verdict::Fail;
    assert!(!report.runs[1].promises.iter().any(has_failed), "{:?}", report.runs[1].promises);
    assert!(report.runs[1].promises.iter().any(|judged| judged.promise == Promise::StayConnected));
    assert_nothing_is_left(ground.path(), &BTreeSet::new());
}
