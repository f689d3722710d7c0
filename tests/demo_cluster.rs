//! The cluster that the demo shows and every other test stands on: it replicates, it breaks when told to, and nothing
//! of it is left afterwards, however it ended.

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pgbaton::demo::{CONTROL_USER, Cluster, ClusterError, ClusterOptions, Shutdown};
use pgbaton::programs::ProgramError;
use rustix::process::Signal;
use support::{DEADLINE, Psql, wait_for_end, wait_until};

fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

fn pids(cluster: &Cluster) -> Vec<u32> {
    cluster.nodes().iter().filter_map(|node| node.pid()).collect()
}

#[test]
fn what_the_primary_commits_appears_on_every_replica() {
    let cluster = support::cluster(2);
    cluster.nodes()[0].sql("CREATE TABLE t AS SELECT 42 AS answer").unwrap();
    cluster.wait_for_replicas().unwrap();
    for node in cluster.nodes() {
        assert_eq!(Psql::tcp(node.port()).ok(&["SELECT answer FROM t"]), "42", "{}", node.id);
    }
    let refused = Psql::tcp(cluster.node("n2").unwrap().port()).refused(&["CREATE TABLE u ()"]);
    assert!(refused.contains("25006"), "{refused}");
    assert_eq!(cluster.primary().unwrap().id, "n1");
}

#[test]
fn a_wrong_password_is_refused_on_every_way_in() {
    let cluster = support::shared_cluster();
    let node = &cluster.nodes()[0];
    let socket = node.socket_directory().to_str().unwrap();
    for host in ["127.0.0.1", socket] {
        let psql = Psql::tcp(node.port()).host(host);
        assert_eq!(psql.ok(&["SELECT 1"]), "1");
        let refused = psql.user("demo", Some("wrong")).refused(&["SELECT 1"]);
        assert!(refused.contains("password authentication failed"), "{refused}");
    }
}

#[test]
fn the_control_user_can_do_its_work_and_no_more() {
    let cluster = support::shared_cluster();
    let psql =
        Psql::tcp(cluster.nodes()[0].port()).user(CONTROL_USER, Some(cluster.control_password())).database("postgres");
    let verifier = psql.ok(&["SELECT rolpassword FROM pg_authid WHERE rolname = 'demo'"]);
    assert!(verifier.starts_with("SCRAM-SHA-256$"), "{verifier}");
    psql.ok(&[
        "SELECT pg_is_in_recovery(), pg_current_wal_lsn()",
        "SELECT system_identifier FROM pg_control_system()",
        "SELECT timeline_id FROM pg_control_checkpoint()",
        "SELECT * FROM pg_stat_replication",
    ]);
    assert!(psql.refused(&["CREATE ROLE other"]).contains("42501"));
    assert!(psql.refused(&["SELECT pg_read_file('PG_VERSION')"]).contains("42501"));
}

#[test]
fn nodes_can_be_killed_started_paused_and_promoted() {
    let cluster = support::cluster(1);
    let (primary, replica) = (&cluster.nodes()[0], &cluster.nodes()[1]);
    primary.stop(Shutdown::Kill);
    assert_eq!(primary.pid(), None);
    replica.sql("SELECT pg_promote()").unwrap();
    assert_eq!(cluster.primary().unwrap().id, "n2");
    primary.start().unwrap();
    primary.stop(Shutdown::Fast);
    replica.pause();
    replica.resume();
    replica.set("work_mem", "5MB").unwrap();
    wait_until(DEADLINE, "the setting is in effect", || replica.sql("SHOW work_mem").unwrap() == "5MB");
    replica.restart(Shutdown::Immediate).unwrap();
    assert_eq!(replica.sql("SELECT 1").unwrap(), "1");
}

#[test]
fn dropping_a_cluster_leaves_no_process_and_no_file() {
    let cluster = support::cluster(1);
    let (directory, pids) = (cluster.directory().to_path_buf(), pids(&cluster));
    assert_eq!(pids.len(), 2);
    // A paused server takes no polite signal.
    cluster.nodes()[1].pause();
    drop(cluster);
    assert!(!pids.into_iter().any(is_alive));
    assert!(!directory.exists());
}

#[test]
fn a_panic_leaves_nothing_either() {
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let cluster = support::cluster(0);
        send.send((cluster.directory().to_path_buf(), pids(&cluster))).unwrap();
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    let (directory, pids) = receive.recv().unwrap();
    assert!(!pids.into_iter().any(is_alive));
    assert!(!directory.exists());
}

#[test]
fn a_directory_that_holds_something_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("precious"), "data").unwrap();
    let options = ClusterOptions { directory: Some(directory.path().into()), ..Default::default() };
    assert!(matches!(Cluster::start(options), Err(ClusterError::NotEmpty(_))));
    assert_eq!(std::fs::read(directory.path().join("precious")).unwrap(), b"data");
}

#[test]
fn a_cancelled_start_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    support::set_mode(parent.path(), 0o755);
    let directory = parent.path().join("c");
    let options = ClusterOptions { directory: Some(directory.clone()), ..Default::default() };
    let cancel = options.cancel.clone();
    let start = std::thread::spawn(move || Cluster::start(options).map(drop));
    wait_until(DEADLINE, "initdb is at work", || directory.join("data/n1/base").exists());
    cancel.cancel();
    assert!(matches!(start.join().unwrap(), Err(ClusterError::Program(ProgramError::Cancelled))));
    assert!(!directory.exists());
}

#[test]
fn a_setting_that_postgres_refuses_is_shown_with_its_words() {
    let options = ClusterOptions { settings: vec![("shared_buffers".into(), "many".into())], ..Default::default() };
    let message = Cluster::start(options).unwrap_err().to_string();
    assert!(message.contains("invalid value for parameter \"shared_buffers\""), "{message}");
}

/// `pgbaton demo` as a user would start it, in a directory of its own.
fn demo(parent: &Path, more: &[&str]) -> (Child, PathBuf) {
    support::set_mode(parent, 0o755);
    let directory = parent.join("d");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
    command
        .args(["demo", "--replicas", "1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--dir"])
        .arg(&directory)
        .args(more);
    (command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), directory)
}

fn server_pids(directory: &Path) -> Vec<u32> {
    let read = |node| std::fs::read_to_string(directory.join("data").join(node).join("postmaster.pid"));
    ["n1", "n2"].into_iter().filter_map(|node| read(node).ok()?.lines().next()?.parse().ok()).collect()
}

#[test]
fn a_killed_demo_is_swept_up_after() {
    let parent = tempfile::tempdir().unwrap();
    let (mut child, directory) = demo(parent.path(), &[]);
    wait_until(DEADLINE, "the primary runs", || !server_pids(&directory).is_empty());
    let pids = server_pids(&directory);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until(DEADLINE, "the servers are gone", || !pids.iter().copied().any(is_alive));
    wait_until(DEADLINE, "the directory is gone", || !directory.exists());
}

#[test]
fn an_interrupted_start_of_the_demo_cleans_up_and_says_so() {
    let parent = tempfile::tempdir().unwrap();
    let (mut child, directory) = demo(parent.path(), &[]);
    wait_until(DEADLINE, "initdb is at work", || directory.join("data/n1/base").exists());
    support::send(child.id(), Signal::INT);
    assert_eq!(wait_for_end(&mut child, DEADLINE), Some(0));
    let said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(said.last().unwrap(), "Cancelled; nothing is left behind.");
    assert!(!directory.exists());
}

#[test]
fn the_demo_tells_how_to_connect_and_is_gone_after_ctrl_c() {
    let parent = tempfile::tempdir().unwrap();
    let (mut child, directory) = demo(parent.path(), &[]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    for line in lines.by_ref() {
        said.push(line);
        if said.last().is_some_and(|line| line.starts_with("Ctrl-C")) {
            break;
        }
    }
    // The line is to be typed as it stands, so it is.
    let connect = said.iter().find(|line| line.contains("PGPASSWORD=demo psql")).expect("how to connect").trim();
    let typed = format!("{connect} -XAtc 'SELECT pg_is_in_recovery(), current_user, current_database()'");
    let path = format!("{}:{}", support::bin().directory().display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh").args(["-c", &typed]).env("PATH", path).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "f|demo|demo\n", "{output:?}");

    let pids = server_pids(&directory);
    assert_eq!(pids.len(), 2);
    for pid in &pids {
        assert!(said.iter().any(|line| line.ends_with(&format!("pid {pid}"))), "{said:?}");
    }
    support::send(child.id(), Signal::INT);
    assert_eq!(wait_for_end(&mut child, DEADLINE), Some(0));
    assert_eq!(lines.last().unwrap(), "Stopped; nothing is left behind.");
    assert!(!pids.into_iter().any(is_alive));
    assert!(!directory.exists());
}

#[test]
fn a_demo_that_is_kept_leaves_its_data_and_no_process() {
    let parent = tempfile::tempdir().unwrap();
    let (mut child, directory) = demo(parent.path(), &["--keep"]);
    wait_until(DEADLINE, "both servers run", || server_pids(&directory).len() == 2);
    let pids = server_pids(&directory);
    support::send(child.id(), Signal::TERM);
    assert_eq!(wait_for_end(&mut child, DEADLINE), Some(0));
    assert!(!pids.into_iter().any(is_alive));
    assert!(directory.join("data/n1/PG_VERSION").exists());
    assert!(directory.join("log/n1.log").exists());
}

#[test]
fn the_demo_does_not_start_servers_when_its_address_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_pgbaton"))
        .args(["demo", "--listen", &address, "--admin", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with(&format!("pgbaton: cannot listen on {address}")), "{said}");
    assert!(said.contains("--listen"), "{said}");
}

#[test]
fn the_demo_does_not_start_servers_when_its_admin_address_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
    let output = command.args(["demo", "--listen", "127.0.0.1:0", "--admin", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with(&format!("pgbaton: cannot listen on {address}")), "{said}");
    assert!(said.contains("--admin"), "{said}");
}
