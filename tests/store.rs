//! The embedded store against what happens to files: a kill at any instant, a full disk, a second pgbaton, and hands.
//!
//! What has to be killed or limited is this very test binary, run again with [`ROLE`] set; see [`child`].

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pgbaton::cluster::record::{FORMAT, Phase, Record};
use pgbaton::cluster::{HistoryEntry, Note};
use pgbaton::coord::{Embedded, StoreError};
use pgbaton::types::{Durability, Epoch, Lsn, NodeId, Timeline};

/// What a child is to do, and with which file.
const ROLE: &str = "PGBATON_TEST_STORE_ROLE";
const FILE: &str = "PGBATON_TEST_STORE_FILE";

fn record(epoch: u64) -> Record {
    Record {
        format: FORMAT,
        system_identifier: 7_340_000_000_000_000_001,
        epoch: Epoch(epoch),
        phase: Phase::Stable,
        primary: NodeId::from("n1"),
        former: Some(NodeId::from("n2")),
        timeline: Timeline(3),
        fork_lsn: Some(Lsn(0x16_B374_D848)),
        durability: Durability::Quorum,
        voters: [NodeId::from("n2"), NodeId::from("n3")].into(),
        k: 1,
        written: Epoch(epoch),
        coordinator: "here".into(),
        // Longer with each, so that a mixture of two could not go unnoticed.
        cause: "x".repeat(epoch as usize % 9000),
        since: 1_790_000_000_000,
        paused: false,
        maintenance: Default::default(),
    }
}

fn watch(from: u64, to: u64) -> HistoryEntry {
    HistoryEntry::Watch { from, to }
}

fn note(epoch: u64, closed_at: u64, opened_at: u64) -> HistoryEntry {
    HistoryEntry::Epoch(Note {
        epoch: Epoch(epoch),
        kind: "failover".into(),
        cause: "the primary refuses connections".into(),
        from: Some(NodeId::from("n1")),
        to: NodeId::from("n2"),
        timeline: Timeline(2),
        fork_lsn: Some(Lsn(0x300_0000)),
        durability: Durability::Async,
        phases: vec![("detect".into(), 12), ("promote".into(), 300)],
        rejected: [(NodeId::from("n3"), "it is behind".to_owned())].into(),
        known_loss_bytes: 17,
        lost_commits_at_most: None,
        closed_at,
        opened_at,
        by: None,
    })
}

struct Place {
    // Removed with everything in it when the test ends.
    _directory: tempfile::TempDir,
    file: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.json");
    Place { _directory: directory, file }
}

impl Place {
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.file.parent().unwrap()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn refusal(&self) -> String {
        Embedded::open(&self.file).expect_err("the file was taken").to_string()
    }
}

// --- what is run again ------------------------------------------------------------------------------------------------

/// This binary, doing what [`ROLE`] says in the test `child` and nothing else. `before` is put in front: a shell that limits it.
fn again(before: &[&str], role: &str, file: &Path) -> Command {
    let me = std::env::current_exe().unwrap();
    let mut words = before.iter().map(std::ffi::OsString::from).chain([me.into_os_string()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(FILE, file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

fn told(line: &str) {
    // Not println!, which the harness may keep to itself.
    let _ = writeln!(std::io::stdout(), "told {line}");
    let _ = std::io::stdout().flush();
}

/// Not a test by itself: what the others run in a process of its own.
#[test]
fn child() {
    let (Ok(role), Some(file)) = (std::env::var(ROLE), std::env::var_os(FILE)) else { return };
    let file = Path::new(&file);
    match role.as_str() {
        "store for ever" => {
            let (mut store, record_before) = Embedded::open(file).unwrap();
            let mut epoch = record_before.map_or(0, |record| record.epoch.0);
            loop {
                epoch += 1;
                store.store(&record(epoch)).unwrap();
                store.append_history(&note(epoch, epoch * 1000, epoch * 1000 + 1)).unwrap();
                told(&epoch.to_string());
            }
        }
        "hold" => {
            let _held = Embedded::open(file).unwrap();
            told("held");
            // Until the test kills it; bounded, should the test die first.
            std::thread::sleep(Duration::from_secs(60));
        }
        "fill" => fill(file),
        "open" => told(&Embedded::open(file).map(drop).expect_err("it was opened").to_string()),
        other => panic!("{other}"),
    }
}

struct Killed {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Killed {
    fn start(mut command: Command) -> Killed {
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Killed { child, said }
    }

    /// What it says next; `None` when it has ended.
    fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.said.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The harness's own words may stand before it in the line. One that is cut short was not told.
            if let Some((_, told)) = line.split_once("told ")
                && let Some(told) = told.strip_suffix('\n')
            {
                return Some(told.to_owned());
            }
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// --- the stories ------------------------------------------------------------------------------------------------------

#[test]
fn what_is_stored_is_found_again() {
    let place = place();
    let (mut store, found) = Embedded::open(&place.file).unwrap();
    assert_eq!(found, None);
    for epoch in 1..4 {
        store.store(&record(epoch)).unwrap();
    }
    store.append_history(&note(1, 5, 6)).unwrap();
    drop(store);
    assert_eq!(place.names(), ["state-history.jsonl", "state.json", "state.json.lock"]);
    for name in place.names() {
        let mode = place.file.with_file_name(&name).metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let (store, found) = Embedded::open(&place.file).unwrap();
    assert_eq!(found, Some(record(3)));
    assert_eq!(store.history(), [note(1, 5, 6)]);
}

#[test]
fn a_kill_at_any_instant_loses_nothing_that_was_acknowledged() {
    let place = place();
    let mut last = 0;
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..60 {
        let mut writer = Killed::start(again(&[], "store for ever", &place.file));
        let mut acknowledged = writer.next().expect("it stores").parse().unwrap();
        assert_eq!(acknowledged, last + 1, "round {round}");
        // Anywhere within some stores: xorshift, so that a bad round can be run again.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        std::thread::sleep(Duration::from_micros(seed % 20_000));
        writer.child.kill().unwrap();
        while let Some(epoch) = writer.next() {
            acknowledged = epoch.parse().unwrap();
        }
        writer.child.wait().unwrap();
        let (store, found) = Embedded::open(&place.file).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let found = found.expect("a record");
        assert!(
            (acknowledged..=acknowledged + 1).contains(&found.epoch.0),
            "round {round}: {acknowledged}, {}",
            found.epoch
        );
        assert_eq!(found, record(found.epoch.0), "round {round}");
        let entries = store.history();
        let expected = (1..=entries.len() as u64).map(|epoch| note(epoch, epoch * 1000, epoch * 1000 + 1));
        assert!(entries.iter().cloned().eq(expected), "round {round}: the history has holes");
        assert!((acknowledged..=acknowledged + 1).contains(&(entries.len() as u64)), "round {round}");
        assert_eq!(place.names(), ["state-history.jsonl", "state.json", "state.json.lock"], "round {round}");
        last = found.epoch.0;
        // The entry of an epoch whose writer was killed before it wrote it.
        let mut store = store;
        store.append_history(&note(last, last * 1000, last * 1000 + 1)).unwrap();
    }
    assert!(last > 60, "it was killed before it did anything");
}

#[test]
fn a_second_pgbaton_is_refused_until_the_first_is_gone() {
    let place = place();
    let mut first = Killed::start(again(&[], "hold", &place.file));
    assert_eq!(first.next().as_deref(), Some("held"));
    let message = place.refusal();
    let expected = format!("another pgbaton (process {}) uses ", first.child.id());
    assert!(message.starts_with(&expected) && message.contains("state.json.lock is locked"), "{message}");
    // By another name too.
    let link = place.file.with_file_name("link.json");
    Embedded::open(&place.file).unwrap_err();
    std::fs::write(&place.file, "").unwrap();
    std::os::unix::fs::symlink(&place.file, &link).unwrap();
    assert!(matches!(Embedded::open(&link), Err(StoreError::Held { .. })));
    std::fs::remove_file(&place.file).unwrap();
    drop(first);
    Embedded::open(&place.file).unwrap();
}

/// Stores until it fails, checks what is left, makes room and goes on. Panics when something is wrong; [`FILE`] may be a directory,
/// in which there is little room then.
fn fill(place: &Path) {
    let file = if place.is_dir() { place.join("state.json") } else { place.to_path_buf() };
    let (mut store, _) = Embedded::open(&file).unwrap();
    store.store(&record(1)).unwrap();
    store.append_history(&note(1, 5, 6)).unwrap();
    let ballast = file.with_file_name("ballast");
    if place.is_dir() {
        let mut filling = std::fs::File::create(&ballast).unwrap();
        while filling.write_all(&[0; 512]).is_ok() {}
    }
    let mut too_long = record(2);
    too_long.cause = "x".repeat(100_000);
    for _ in 0..3 {
        let error = store.store(&too_long).expect_err("it was stored").to_string();
        assert!(error.starts_with("cannot "), "{error}");
    }
    let long = HistoryEntry::Outage { from: 1, to: None, reason: "x".repeat(100_000) };
    store.append_history(&long).expect_err("it was kept");
    assert_eq!(store.history(), [note(1, 5, 6)]);
    // Another process, as it were: the record of before is there, and nothing else.
    drop(store);
    let (mut store, found) = Embedded::open(&file).unwrap();
    assert_eq!(found, Some(record(1)));
    assert_eq!(store.history(), [note(1, 5, 6)]);
    assert!(!file.with_file_name("state.json.tmp").exists());
    let _ = std::fs::remove_file(&ballast);
    store.store(&record(2)).unwrap();
    store.append_history(&note(2, 7, 8)).unwrap();
    drop(store);
    let (store, found) = Embedded::open(&file).unwrap();
    assert_eq!(found, Some(record(2)));
    assert_eq!(store.history(), [note(1, 5, 6), note(2, 7, 8)]);
    told("good");
}

#[test]
fn a_full_disk_stops_a_decision_and_corrupts_nothing() {
    let place = place();
    // A limit on the size of files is what every user can set: writes fail in the middle as on a full disk.
    let limited = r#"trap '' XFSZ; ulimit -f 16; exec "$0" "$@""#;
    let mut child = Killed::start(again(&["/bin/sh", "-c", limited], "fill", &place.file));
    assert_eq!(child.next().as_deref(), Some("good"));
    // A really full one takes root; the mount is gone with the process.
    let directory = place.file.parent().unwrap();
    let mount = r#"mount -t tmpfs -o size=32k none "$PGBATON_TEST_STORE_FILE" && echo told mounted && exec "$0" "$@""#;
    let apart = r#"inner=$1; shift; exec unshare -m /bin/sh -c "$inner" "$@""#;
    let mut child = Killed::start(again(&["/bin/sh", "-c", apart, "sh", mount], "fill", directory));
    if child.next().as_deref() == Some("mounted") {
        assert_eq!(child.next().as_deref(), Some("good"));
    } else {
        eprintln!("the full disk was not tried: no file system can be mounted here");
    }
}

#[test]
fn a_file_that_is_not_as_written_is_refused_and_left_alone() {
    let place = place();
    let (mut store, _) = Embedded::open(&place.file).unwrap();
    store.store(&record(7)).unwrap();
    drop(store);
    let good = std::fs::read_to_string(&place.file).unwrap();
    let beginning = format!("{} is not as pgbaton wrote it: ", place.file.canonicalize().unwrap().display());
    let refuse = |text: &str, reason: &str| {
        std::fs::write(&place.file, text).unwrap();
        let message = place.refusal();
        assert!(message.starts_with(&beginning) && message.contains(reason), "{message}");
        assert!(message.contains("move the file away"), "{message}");
        assert_eq!(std::fs::read_to_string(&place.file).unwrap(), text);
    };
    for length in 0..good.trim_end().len() {
        refuse(&good[..length], "");
    }
    refuse("", "it is empty");
    refuse("{\"name\": \"something else\"}", "");
    refuse("\0\0\0\0", "");
    refuse(&good.replace("\"epoch\":7", "\"epoch\":8"), "its checksum is wrong");
    refuse(&good.replace("\"revision\": 1", "\"revision\": 2"), "its checksum is wrong");
    refuse(&good.replace("pgbaton state", "other state"), "it is a \"other state\"");
    // Every single letter of it counts.
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        std::fs::write(&place.file, text).unwrap();
        match Embedded::open(&place.file) {
            Ok((_, found)) => assert_eq!(found, Some(record(7)), "byte {at}"),
            Err(StoreError::Damaged { .. }) => {}
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    std::fs::write(&place.file, &good).unwrap();
    assert_eq!(Embedded::open(&place.file).unwrap().1, Some(record(7)));
}

#[test]
fn what_somebody_else_wrote_is_not_written_over() {
    let place = place();
    let (mut store, _) = Embedded::open(&place.file).unwrap();
    store.store(&record(1)).unwrap();
    let old = std::fs::read(&place.file).unwrap();
    store.store(&record(2)).unwrap();
    // An old copy put back while it runs.
    std::fs::write(&place.file, &old).unwrap();
    let message = store.store(&record(3)).unwrap_err().to_string();
    assert!(message.contains("was changed by somebody else (it has revision 1, not 2)"), "{message}");
    std::fs::remove_file(&place.file).unwrap();
    let message = store.store(&record(3)).unwrap_err().to_string();
    assert!(message.contains("(it is gone)"), "{message}");
    assert!(!place.file.exists());
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_at_the_start() {
    let place = place();
    let directory = place.file.parent().unwrap();
    let missing = directory.join("none/state.json");
    let message = Embedded::open(&missing).unwrap_err().to_string();
    assert!(message.contains("none/state.json: No such file"), "{message}");
    let message = Embedded::open(directory).unwrap_err().to_string();
    assert!(message.starts_with("cannot "), "{message}");
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o555)).unwrap();
    let message = if rustix::process::geteuid().is_root() {
        // Root may write anywhere, and nobody may not reach this binary by its name.
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", "child", "--nocapture"]).env(ROLE, "open").env(FILE, &place.file);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).uid(65534).gid(65534);
        Killed::start(command).next().expect("an error")
    } else {
        place.refusal()
    };
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
    assert!(message.contains("state.json.lock: Permission denied"), "{message}");
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn what_a_killed_process_left_is_cleaned_up() {
    let place = place();
    let (mut store, _) = Embedded::open(&place.file).unwrap();
    store.store(&record(1)).unwrap();
    drop(store);
    for name in ["state.json.tmp", "state-history.jsonl.tmp"] {
        std::fs::write(place.file.with_file_name(name), "half").unwrap();
    }
    assert_eq!(Embedded::open(&place.file).unwrap().1, Some(record(1)));
    assert_eq!(place.names(), ["state-history.jsonl", "state.json", "state.json.lock"]);
}

#[test]
fn an_unfinished_line_of_the_history_is_cut_off() {
    let place = place();
    let history = place.file.with_file_name("state-history.jsonl");
    let (mut store, _) = Embedded::open(&place.file).unwrap();
    store.append_history(&note(1, 5, 6)).unwrap();
    store.append_history(&note(2, 7, 8)).unwrap();
    drop(store);
    let good = std::fs::read(&history).unwrap();
    let first = 1 + good.iter().position(|byte| *byte == b'\n').unwrap();
    for length in first..good.len() {
        std::fs::write(&history, &good[..length]).unwrap();
        let (mut store, _) = Embedded::open(&place.file).unwrap();
        assert_eq!(store.history(), [note(1, 5, 6)], "{length}");
        store.append_history(&note(3, 9, 10)).unwrap();
        drop(store);
        assert_eq!(Embedded::open(&place.file).unwrap().0.history(), [note(1, 5, 6), note(3, 9, 10)], "{length}");
    }
    // Zeros, as some file systems leave them; and a line of a version to come in the middle.
    let mut bytes = b"{\"what\":\"comet\"}\n".to_vec();
    bytes.extend(&good[..first]);
    bytes.extend([0; 100]);
    std::fs::write(&history, bytes).unwrap();
    assert_eq!(Embedded::open(&place.file).unwrap().0.history(), [note(1, 5, 6)]);
}

#[test]
fn the_history_says_the_newest_of_what_is_known_and_is_bounded() {
    let place = place();
    let history = place.file.with_file_name("state-history.jsonl");
    let lines = || std::fs::read_to_string(&history).unwrap().lines().count();
    let (mut store, _) = Embedded::open(&place.file).unwrap();
    // A watch that is extended is one entry.
    store.append_history(&watch(10, 20)).unwrap();
    store.append_history(&HistoryEntry::Outage { from: 15, to: None, reason: "why".into() }).unwrap();
    store.append_history(&watch(10, 30)).unwrap();
    store.append_history(&note(1, 14, 25)).unwrap();
    assert_eq!(store.history(), [watch(10, 30), note(1, 14, 25)]);
    assert_eq!(lines(), 4);
    drop(store);
    // As a history that has grown for years, without an fsync for each.
    let line = |entry: &HistoryEntry| serde_json::to_string(entry).unwrap() + "\n";
    let many: String = (1..=19_999).map(|epoch| line(&note(epoch, epoch, epoch))).collect();
    std::fs::write(&history, many).unwrap();
    let (mut store, _) = Embedded::open(&place.file).unwrap();
    assert_eq!((store.history().len(), lines()), (10_000, 19_999));
    store.append_history(&note(20_000, 1, 1)).unwrap();
    assert_eq!(lines(), 20_000);
    store.append_history(&note(20_001, 1, 1)).unwrap();
    assert_eq!((store.history().len(), lines()), (10_000, 10_000));
    // It goes on in the new file.
    store.append_history(&note(20_002, 1, 1)).unwrap();
    assert_eq!(lines(), 10_001);
    let before = store.history();
    assert_eq!(before.first(), Some(&note(10_003, 10_003, 10_003)));
    assert_eq!(before.last(), Some(&note(20_002, 1, 1)));
    drop(store);
    assert_eq!(Embedded::open(&place.file).unwrap().0.history(), before);
    assert_eq!(history.metadata().unwrap().mode() & 0o777, 0o600);
}
