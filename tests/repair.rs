//! Nodes that come back: as they are, rewound, or made anew; what only they had is counted and kept, and refusals touch nothing.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pgbaton::agent::repair::{rejoin, unfinished};
use pgbaton::agent::{Failed, Place, Server, Site, Steps};
use pgbaton::auth::Secret;
use pgbaton::cluster::agent::{Code, Deed, Repair, Shutdown};
use pgbaton::demo::{self, CONTROL_USER, Cluster, Node, PgBin};
use pgbaton::programs::{Cancel, RunAs, Runner, tail};
use pgbaton::types::{NodeId, Timeline};
use rustix::process::Signal;
use support::*;

type Act<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), Failed>> + Send + 'a>>;

/// A node of a test cluster with its server in our own hands, as an agent has it: the port is on the command line.
struct Own<'a> {
    node: &'a Node,
    site: Site,
    child: Mutex<Option<Child>>,
    log: PathBuf,
}

impl<'a> Own<'a> {
    fn of(cluster: &'a Cluster, id: &str) -> Own<'a> {
        let node = cluster.node(id).unwrap();
        let directory = cluster.directory();
        let runner = Runner {
            run_as: RunAs::choose().unwrap(),
            working_directory: directory.to_path_buf(),
            cancel: Cancel::default(),
        };
        let site = Site {
            node: NodeId::from(id),
            bin: PgBin::find().unwrap(),
            runner,
            data_dir: node.data_directory().to_path_buf(),
            port: node.port(),
            socket_dir: node.socket_directory().to_path_buf(),
            control_user: CONTROL_USER.into(),
            control_password: Some(Secret::new(cluster.control_password())),
            kept_dir: directory.join(format!("kept-{id}")),
            keep_bytes: 1 << 30,
        };
        Own { node, site, child: Mutex::new(None), log: directory.join(format!("log/own-{id}.log")) }
    }

    fn rejoin(&self, primary: &Node, repair: Repair) -> Result<Deed, Failed> {
        self.rejoin_place(&place(primary), repair)
    }

    fn rejoin_place(&self, place: &Place, repair: Repair) -> Result<Deed, Failed> {
        let steps = Steps::default();
        let done = runtime().block_on(rejoin(&self.site, self, place, repair, &steps));
        println!("{} → {}: {done:?}", self.site.node, place.node);
        done
    }

    /// Begins, and is dropped as soon as it says such a step.
    fn begin(&self, primary: &Node, until: &str, then: impl FnOnce()) {
        let (steps, place) = (Steps::default(), place(primary));
        let seen = async {
            while !steps.current().starts_with(until) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        runtime().block_on(async {
            tokio::select! {
                done = rejoin(&self.site, self, &place, Repair::Auto, &steps) => panic!("it ended before \"{until}\": {done:?}"),
                () = seen => then(),
            }
        });
    }

    fn sql(&self, statement: &str) -> String {
        self.node.sql(statement).unwrap()
    }

    fn pid(&self) -> Option<u32> {
        let mut child = self.child.lock().unwrap();
        let child = child.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    fn end(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            send(pid, signal);
            wait_for_end(self.child.lock().unwrap().as_mut().unwrap(), DEADLINE);
        }
    }

    fn start_now(&self) -> Result<(), Failed> {
        if self.is_running() {
            return Ok(());
        }
        let log = fs::File::create(&self.log).unwrap();
        let mut command = self.site.runner.command(&self.site.bin.program("postgres"));
        command.arg("-D").arg(&self.site.data_dir).args(["-p", &self.site.port.to_string()]);
        command.args(["-c", "listen_addresses=127.0.0.1", "-c"]);
        command.arg(format!("unix_socket_directories={}", self.site.socket_dir.display()));
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let pid = child.id().to_string();
        *self.child.lock().unwrap() = Some(child);
        let deadline = Instant::now() + DEADLINE;
        loop {
            let text = fs::read_to_string(self.site.data("postmaster.pid")).unwrap_or_default();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            if lines.first() == Some(&&*pid) && lines.get(7) == Some(&"ready") {
                return Ok(());
            }
            if self.pid().is_none() || Instant::now() > deadline {
                return Err(Failed::new(Code::Failed, format!("it does not start: {}", self.log_tail(5))));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Server for Own<'_> {
    fn start(&self) -> Act<'_> {
        Box::pin(async { self.start_now() })
    }

    fn stop(&self, how: Shutdown) -> Act<'_> {
        Box::pin(async move {
            let (signal, there) = match how {
                Shutdown::Fast => (Signal::INT, demo::Shutdown::Fast),
                Shutdown::Immediate => (Signal::QUIT, demo::Shutdown::Immediate),
            };
            self.node.stop(there);
            self.end(signal);
            Ok(())
        })
    }

    fn is_running(&self) -> bool {
        self.node.pid().is_some() || self.pid().is_some()
    }

    fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            send(pid, Signal::QUIT);
            let _ = self.child.lock().unwrap().as_mut().unwrap().wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.site.node, self.log_tail(40));
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn place(node: &Node) -> Place {
    let identifier = node.sql("SELECT system_identifier FROM pg_control_system()").unwrap();
    Place {
        node: NodeId::from(&*node.id),
        host: node.host(),
        port: node.port(),
        system_identifier: identifier.parse().unwrap(),
    }
}

/// Nothing commits but what a test does.
fn quiet_cluster(replicas: usize, settings: &[(&str, &str)]) -> Cluster {
    let cluster = cluster_with(replicas, &[&[("autovacuum", "off")], settings].concat());
    cluster.nodes()[0].sql("CREATE TABLE mark (n int)").unwrap();
    cluster.wait_for_replicas().unwrap();
    cluster
}

fn write(node: &Node, marks: std::ops::Range<i32>) {
    for mark in marks {
        node.sql(&format!("INSERT INTO mark VALUES ({mark})")).unwrap();
    }
}

fn marks(node: &Node) -> String {
    node.sql("SELECT coalesce(string_agg(n::text, ',' ORDER BY n), '') FROM mark").unwrap()
}

fn promote(node: &Node) {
    node.sql("SELECT pg_promote(true)").unwrap();
}

/// It receives nothing any more, and stays a standby.
fn cut_off(node: &Node) {
    node.set("primary_conninfo", "").unwrap();
    wait_until(DEADLINE, "the WAL receiver ends", || {
        node.sql("SELECT count(*) FROM pg_stat_wal_receiver").unwrap() == "0"
    });
}

/// What is written on the primary from now on arrives there, and it is no primary itself.
#[track_caller]
fn assert_follows(own: &Own<'_>, primary: &Node) {
    assert_eq!(own.sql("SELECT pg_is_in_recovery()"), "t");
    primary.sql("INSERT INTO mark VALUES (1000)").unwrap();
    wait_until(DEADLINE, "what is written arrives", || marks(own.node) == marks(primary));
    assert_eq!(own.sql("SELECT slot_name FROM pg_stat_wal_receiver"), own.site.node.0.to_string());
    let names = primary.sql("SELECT string_agg(application_name, ',') FROM pg_stat_replication").unwrap();
    assert!(names.split(',').any(|name| name == &*own.site.node.0), "{names}");
    assert_eq!(unfinished(&own.site), None);
    let mode = fs::metadata(own.site.data("postgresql.auto.conf")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Names and contents of what cannot change while nobody touches the data.
fn control_file(site: &Site) -> Vec<u8> {
    fs::read(site.data("global/pg_control")).unwrap()
}

/// n2 is promoted without what was committed on n1 last.
fn diverge(cluster: &Cluster, commits: i32, how: demo::Shutdown) {
    let [n1, n2] = [&cluster.nodes()[0], &cluster.nodes()[1]];
    write(n1, 0..3);
    cluster.wait_for_replicas().unwrap();
    cut_off(n2);
    write(n1, 100..100 + commits);
    n1.stop(how);
    promote(n2);
    write(n2, 10..12);
}

/// Of settings that come twice the last counts.
fn port_of(conf: &str) -> String {
    let last = conf.lines().rev().find_map(|line| line.strip_prefix("port = "));
    last.unwrap_or_default().trim_matches('\'').to_owned()
}

fn kept(site: &Site) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(&site.kept_dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'));
    found.sort();
    found
}

fn has_file(directory: &Path, name: impl Fn(&str) -> bool) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| name(entry.unwrap().file_name().to_str().unwrap()))
}

#[test]
fn a_primary_that_was_stopped_cleanly_follows_as_it_is() {
    let cluster = quiet_cluster(1, &[]);
    let [n1, n2] = [&cluster.nodes()[0], &cluster.nodes()[1]];
    write(n1, 0..3);
    // What a fence leaves behind.
    n1.sql("ALTER SYSTEM SET default_transaction_read_only = on").unwrap();
    n1.sql("ALTER SYSTEM SET synchronous_standby_names = E'ANY 1 (\"pgbaton:\\tfenced\")'").unwrap();
    n1.stop(demo::Shutdown::Fast);
    promote(n2);
    write(n2, 3..5);
    let own = Own::of(&cluster, "n1");
    let deed = own.rejoin(n2, Repair::Follow).unwrap();
    assert_eq!((deed.repair, deed.diverged), (Some(Repair::Follow), None));
    assert!(deed.why.ends_with("on timeline 1, and the primary has all of that"), "{}", deed.why);
    assert_follows(&own, n2);
    let settings = own
        .sql("SELECT current_setting('default_transaction_read_only'), current_setting('synchronous_standby_names')");
    assert_eq!(settings, "off|");
    let pid = own.pid();
    let again = own.rejoin(n2, Repair::Auto).unwrap();
    assert_eq!((again.repair, &*again.why), (Some(Repair::Follow), "it follows n2 already"));
    assert_eq!(own.pid(), pid);
}

#[test]
fn what_a_killed_primary_alone_had_is_counted_kept_and_undone() {
    let cluster = quiet_cluster(1, &[]);
    diverge(&cluster, 5, demo::Shutdown::Kill);
    let n2 = &cluster.nodes()[1];
    let own = Own::of(&cluster, "n1");
    let refused = own.rejoin(n2, Repair::Follow).unwrap_err();
    assert_eq!(refused.code, Code::Impossible);
    assert!(refused.reason.contains("its log left the primary's at"), "{refused}");
    let deed = own.rejoin(n2, Repair::Auto).unwrap();
    assert_eq!(deed.repair, Some(Repair::Rewind));
    let lost = deed.diverged.unwrap();
    assert_eq!((lost.commits, lost.timeline), (Some(5), Timeline(1)));
    assert_eq!(deed.end, Some(lost.to));
    assert!(has_file(&Path::new(&lost.kept).join("wal"), |name| name.len() == 24));
    let about = fs::read_to_string(Path::new(&lost.kept).join("about.json")).unwrap();
    assert!(about.contains("\"commits\": 5"), "{about}");
    assert_eq!(marks(own.node), "0,1,2,10,11");
    assert_follows(&own, n2);
    // Its own port, not the primary's, stands in its configuration.
    let conf = fs::read_to_string(own.site.data("postgresql.conf")).unwrap();
    assert_eq!(port_of(&conf), own.node.port().to_string());
}

fn a_standby_ahead(is_killed: bool) {
    let cluster = quiet_cluster(2, &[]);
    let [n1, n2, n3] = [&cluster.nodes()[0], &cluster.nodes()[1], &cluster.nodes()[2]];
    cut_off(n2);
    write(n1, 20..22);
    wait_until(DEADLINE, "n3 has it", || marks(n3) == "20,21");
    n1.stop(demo::Shutdown::Kill);
    promote(n2);
    if is_killed {
        n3.stop(demo::Shutdown::Kill);
    }
    let own = Own::of(&cluster, "n3");
    let deed = own.rejoin(n2, Repair::Auto).unwrap();
    assert_eq!((deed.repair, deed.diverged.unwrap().commits), (Some(Repair::Rewind), Some(2)));
    assert_eq!(marks(n3), "");
    assert_follows(&own, n2);
}

#[test]
fn a_standby_that_is_ahead_is_rewound() {
    a_standby_ahead(false);
}

#[test]
fn a_standby_that_is_ahead_and_was_killed_is_rewound() {
    a_standby_ahead(true);
}

#[test]
fn nothing_is_left_of_a_timeline_that_was_undone() {
    let cluster = quiet_cluster(2, &[]);
    let [n1, n3] = [&cluster.nodes()[0], &cluster.nodes()[2]];
    // pg_rewind leaves the file that it finds the last common checkpoint in, which is that of the promotion.
    n1.sql("CHECKPOINT").unwrap();
    write(n1, 1..3);
    wait_until(DEADLINE, "n3 has it", || marks(n3) == "1,2");
    promote(n3);
    write(n3, 50..53);
    write(n1, 10..12);
    let own = Own::of(&cluster, "n3");
    let deed = own.rejoin(n1, Repair::Auto).unwrap();
    assert_eq!(deed.repair, Some(Repair::Rewind), "{}", deed.why);
    assert_eq!(marks(n3), "1,2,10,11");
    assert!(has_file(&own.site.data("pg_wal"), |name| name.starts_with("00000001")));
    assert!(!has_file(&own.site.data("pg_wal"), |name| name.starts_with("00000002")));
    assert_follows(&own, n1);
}

#[test]
fn another_promotion_to_the_same_number_is_made_anew() {
    let cluster = quiet_cluster(2, &[]);
    let [n1, n2, n3] = [&cluster.nodes()[0], &cluster.nodes()[1], &cluster.nodes()[2]];
    n1.stop(demo::Shutdown::Fast);
    let replayed = || [n2, n3].map(|node| node.sql("SELECT pg_last_wal_replay_lsn()").unwrap());
    wait_until(DEADLINE, "both have everything", || replayed()[0] == replayed()[1]);
    promote(n2);
    promote(n3);
    write(n3, 50..53);
    // n2 has more of its timeline 2 than n3 of its own: by positions n3 has a beginning of it.
    write(n2, 10..30);
    let histories = [n2, n3].map(|node| fs::read(node.data_directory().join("pg_wal/00000002.history")).unwrap());
    assert_eq!(histories[0], histories[1]);
    let own = Own::of(&cluster, "n3");
    let deed = own.rejoin(n2, Repair::Rewind).unwrap();
    assert_eq!(deed.repair, Some(Repair::Rebuild));
    assert!(deed.why.starts_with("it has another timeline 2 than the primary's"), "{}", deed.why);
    let lost = deed.diverged.unwrap();
    assert_eq!((lost.timeline, lost.commits), (Timeline(2), Some(3)));
    assert!(Path::new(&lost.kept).join("data/PG_VERSION").is_file());
    assert_follows(&own, n2);
}

#[test]
fn a_wiped_disk_is_filled_again() {
    let cluster = quiet_cluster(1, &[]);
    let [n1, n2] = [&cluster.nodes()[0], &cluster.nodes()[1]];
    write(n1, 0..3);
    n2.stop(demo::Shutdown::Kill);
    fs::remove_dir_all(n2.data_directory()).unwrap();
    let own = Own::of(&cluster, "n2");
    let other = Place { system_identifier: 42, ..place(n1) };
    assert_eq!(own.rejoin_place(&other, Repair::Auto).unwrap_err().code, Code::OtherCluster);
    let deed = own.rejoin(n1, Repair::Auto).unwrap();
    assert_eq!((deed.repair, &*deed.why), (Some(Repair::Rebuild), "its data directory is empty"));
    assert_follows(&own, n1);
}

#[test]
fn refusals_touch_nothing() {
    let cluster = quiet_cluster(1, &[]);
    let [n1, n2] = [&cluster.nodes()[0], &cluster.nodes()[1]];
    let mut own = Own::of(&cluster, "n1");
    promote(n2);
    let before = control_file(&own.site);
    let other = Place { system_identifier: 42, ..place(n2) };
    let error = own.rejoin_place(&other, Repair::Rebuild).unwrap_err();
    assert_eq!(error.code, Code::OtherCluster);
    assert!(error.reason.contains("the data directory belongs to another cluster"), "{error}");
    own.site.control_password = Some(Secret::new("wrong"));
    let error = own.rejoin(n2, Repair::Rebuild).unwrap_err();
    assert_eq!(error.code, Code::Password, "{error}");
    assert!(!error.reason.contains("wrong"), "{error}");
    own.site.control_password = Some(Secret::new(cluster.control_password()));
    n2.stop(demo::Shutdown::Fast);
    let gone = Place { port: n2.port(), node: NodeId::from("n2"), ..place(n1) };
    assert_eq!(own.rejoin_place(&gone, Repair::Rebuild).unwrap_err().code, Code::Unreachable);
    assert_eq!(own.rejoin(n1, Repair::Rebuild).unwrap_err().code, Code::Impossible);
    // It runs as it did, and is the primary that it was.
    assert_eq!(before, control_file(&own.site));
    assert_eq!(own.sql("SELECT pg_is_in_recovery()"), "f");
}

#[test]
fn without_hints_in_the_log_it_is_made_anew_and_the_old_data_kept() {
    let cluster = quiet_cluster(1, &[("wal_log_hints", "off")]);
    diverge(&cluster, 2, demo::Shutdown::Fast);
    let n2 = &cluster.nodes()[1];
    let own = Own::of(&cluster, "n1");
    let deed = own.rejoin(n2, Repair::Auto).unwrap();
    assert_eq!(deed.repair, Some(Repair::Rebuild));
    assert!(
        deed.why.ends_with("it cannot be rewound: neither wal_log_hints nor checksums are on here"),
        "{}",
        deed.why
    );
    let lost = deed.diverged.unwrap();
    assert_eq!(lost.commits, Some(2));
    assert!(Path::new(&lost.kept).join("data/PG_VERSION").is_file());
    assert_follows(&own, n2);
}

#[test]
fn a_log_that_the_primary_has_no_more_ends_in_a_copy() {
    let cluster = quiet_cluster(1, &[("min_wal_size", "32MB"), ("max_wal_size", "32MB")]);
    let [n1, n2] = [&cluster.nodes()[0], &cluster.nodes()[1]];
    n2.stop(demo::Shutdown::Fast);
    n1.sql("SELECT pg_drop_replication_slot('n2')").unwrap();
    let first = n1.sql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
    for _ in 0..6 {
        n1.sql("INSERT INTO mark VALUES (7)").unwrap();
        n1.sql("SELECT pg_switch_wal()").unwrap();
        n1.sql("CHECKPOINT").unwrap();
    }
    assert!(!n1.data_directory().join("pg_wal").join(first).exists());
    let own = Own::of(&cluster, "n2");
    let error = own.rejoin(n1, Repair::Follow).unwrap_err();
    assert_eq!(error.code, Code::Impossible);
    assert!(error.reason.contains("requested WAL segment"), "{error}");
    let deed = own.rejoin(n1, Repair::Auto).unwrap();
    assert_eq!(deed.repair, Some(Repair::Rebuild));
    assert!(deed.why.contains("has already been removed"), "{}", deed.why);
    assert_eq!(deed.diverged, None);
    assert_follows(&own, n1);
}

#[test]
fn a_copy_that_is_cut_off_leaves_the_data_and_is_made_again() {
    let cluster = quiet_cluster(1, &[("wal_log_hints", "off")]);
    diverge(&cluster, 2, demo::Shutdown::Fast);
    let n2 = &cluster.nodes()[1];
    let own = Own::of(&cluster, "n1");
    let before = control_file(&own.site);
    // It cannot end by itself before its own limits: nobody lets it in.
    own.begin(n2, "copying", || n2.pause());
    wait_until(Duration::from_secs(5), "pg_basebackup is killed", || programs(&own.site.data_dir).is_empty());
    n2.resume();
    assert_eq!(control_file(&own.site), before);
    assert_eq!(unfinished(&own.site), None);
    let deed = own.rejoin(n2, Repair::Auto).unwrap();
    assert_eq!((deed.repair, deed.diverged.unwrap().commits), (Some(Repair::Rebuild), Some(2)));
    assert_follows(&own, n2);
    let parent = own.site.data_dir.parent().unwrap();
    assert!(!has_file(parent, |name| name.contains("pgbaton_repair")), "something is left of the first copy");
}

#[test]
fn a_rewind_that_is_cut_off_is_not_started_on_but_made_anew() {
    let cluster = quiet_cluster(1, &[]);
    diverge(&cluster, 4, demo::Shutdown::Kill);
    let n2 = &cluster.nodes()[1];
    let own = Own::of(&cluster, "n1");
    own.begin(n2, "rewinding", || ());
    wait_until(DEADLINE, "pg_rewind is gone", || programs(&own.site.data_dir).is_empty());
    assert!(unfinished(&own.site).is_some());
    assert!(own.rejoin(n2, Repair::Follow).is_err());
    let deed = own.rejoin(n2, Repair::Auto).unwrap();
    assert_eq!(deed.repair, Some(Repair::Rebuild));
    assert!(deed.why.contains("a repair of it was interrupted"), "{}", deed.why);
    let lost = deed.diverged.unwrap();
    assert_eq!(lost.commits, Some(4));
    assert!(has_file(&Path::new(&lost.kept).join("wal"), |name| name.len() == 24));
    assert_follows(&own, n2);
    let conf = fs::read_to_string(own.site.data("postgresql.conf")).unwrap();
    assert_eq!(port_of(&conf), own.node.port().to_string());
}

#[test]
fn what_is_kept_is_bounded() {
    let cluster = quiet_cluster(1, &[]);
    diverge(&cluster, 1, demo::Shutdown::Kill);
    let mut own = Own::of(&cluster, "n1");
    // Room for one file of the log, and not for what is there already.
    own.site.keep_bytes = 20 << 20;
    let old = own.site.kept_dir.join("20200101T000000Z-1-0_1");
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("x"), vec![1; 8 << 20]).unwrap();
    let deed = own.rejoin(&cluster.nodes()[1], Repair::Auto).unwrap();
    assert_eq!(kept(&own.site), [PathBuf::from(deed.diverged.unwrap().kept)]);
}

/// A small file system of its own, gone with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, megabytes: u32) -> SmallDisk {
        fs::create_dir(at).unwrap();
        let options = format!("size={megabytes}m,mode=755");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(at).status().unwrap();
        assert!(done.success(), "mounting a tmpfs needs root");
        SmallDisk(at.to_path_buf())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

/// Moves a stopped node's data to a small disk.
fn move_to(disk: &SmallDisk, own: &mut Own<'_>) {
    let data = disk.0.join("data");
    let done = Command::new("cp").arg("-a").arg(&own.site.data_dir).arg(&data).status().unwrap();
    assert!(done.success());
    own.site.data_dir = data;
    own.site.kept_dir = disk.0.join("kept");
}

#[test]
fn a_full_disk_costs_no_data() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: no small disk can be mounted");
        return;
    }
    let cluster = quiet_cluster(1, &[("wal_log_hints", "off")]);
    diverge(&cluster, 2, demo::Shutdown::Fast);
    let n2 = &cluster.nodes()[1];
    let disk = SmallDisk::mount(&cluster.directory().join("disk"), 300);
    let mut own = Own::of(&cluster, "n1");
    move_to(&disk, &mut own);
    let before = control_file(&own.site);
    let filler = disk.0.join("filler");
    let fill = |leave: u64| {
        // It may grow in between.
        wait_until(DEADLINE, "the disk is filled", || {
            let found = rustix::fs::statvfs(&disk.0).unwrap();
            let bytes = (found.f_bavail * found.f_frsize).saturating_sub(leave).max(4096).to_string();
            Command::new("fallocate").args(["-l", &bytes]).arg(&filler).status().unwrap().success()
        });
    };
    // Too little from the beginning.
    fill(60 << 20);
    let error = own.rejoin(n2, Repair::Auto).unwrap_err();
    assert_eq!(error.code, Code::DiskFull, "{error}");
    assert!(error.reason.contains("MB are free; the old data is kept"), "{error}");
    fs::remove_file(&filler).unwrap();
    // Somebody else fills it during the copy.
    let (steps, place) = (Steps::default(), place(n2));
    let done = runtime().block_on(async {
        let filling = async {
            while !steps.current().starts_with("copying") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            fill(1 << 20);
        };
        tokio::join!(rejoin(&own.site, &own, &place, Repair::Auto, &steps), filling).0
    });
    let error = done.unwrap_err();
    assert_eq!(error.code, Code::DiskFull, "{error}");
    assert_eq!(control_file(&own.site), before);
    assert!(!has_file(&disk.0, |name| name.contains("pgbaton_repair")), "the unfinished copy takes up room");
    fs::remove_file(&filler).unwrap();
    let deed = own.rejoin(n2, Repair::Auto).unwrap();
    assert_eq!((deed.repair, deed.diverged.unwrap().commits), (Some(Repair::Rebuild), Some(2)));
    assert_follows(&own, n2);
    own.end(Signal::QUIT);
}

#[test]
fn a_mount_point_is_filled_from_within() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: no small disk can be mounted");
        return;
    }
    let cluster = quiet_cluster(1, &[("wal_log_hints", "off")]);
    diverge(&cluster, 2, demo::Shutdown::Fast);
    let n2 = &cluster.nodes()[1];
    let disk = SmallDisk::mount(&cluster.directory().join("disk"), 400);
    let mut own = Own::of(&cluster, "n1");
    let all = format!("{}/.", own.site.data_dir.display());
    assert!(Command::new("cp").args(["-a", &all]).arg(&disk.0).status().unwrap().success());
    own.site.data_dir = disk.0.clone();
    let deed = own.rejoin(n2, Repair::Auto).unwrap();
    assert_eq!(deed.repair, Some(Repair::Rebuild));
    let lost = deed.diverged.unwrap();
    assert!(has_file(&Path::new(&lost.kept).join("wal"), |name| name.len() == 24));
    assert!(!has_file(&disk.0, |name| name.contains("pgbaton_repair")));
    assert_follows(&own, n2);
    own.end(Signal::QUIT);
}

/// Programs that have this path in their arguments.
fn programs(path: &Path) -> Vec<String> {
    // A copy grows beside it, under a name with that of the data directory in it.
    let (parent, name) = (path.parent().unwrap().to_str().unwrap(), path.file_name().unwrap().to_str().unwrap());
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let found = entries.filter_map(|entry| {
        let text = fs::read(entry.path().join("cmdline")).ok()?;
        let text = String::from_utf8_lossy(&text).replace('\0', " ");
        (text.contains("pg_") || text.contains("--single"))
            .then_some(text)
            .filter(|text| text.contains(&format!("{parent}/{name}")) || text.contains(&format!("{parent}/.{name}.")))
    });
    found.collect()
}
