//! The cluster that every other test stands on: it replicates, it breaks when told to, and nothing
//! of it is left afterwards, however it ended.

mod support;

use pgbaton::demo::{CONTROL_USER, Cluster, ClusterError, ClusterOptions, Shutdown};
use pgbaton::programs::ProgramError;
use support::{DEADLINE, Psql, wait_until};

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
