//! The doctor at work: a healthy cluster is told to be healthy; then real servers are made wrong in one way after another, and
//! exactly that is found, on that node; the fix as it is printed is typed, and all is well again.

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use pgbaton::admin::doctor::Examination;
use pgbaton::app;
use pgbaton::cluster::doctor::{Finding, Level};
use pgbaton::config::Config;
use pgbaton::demo::{CONTROL_USER, Cluster, ClusterOptions, DATABASE, Node, Shutdown};
use pgbaton::programs::{Cancel, RunAs, Runner};
use support::{DEADLINE, InProcess, Proxy, ProxySettings, wait_until};

/// Check and node, empty for the cluster.
type Found = BTreeSet<(String, String)>;

/// A cluster, and a configuration for it, which lies in its directory.
struct Ward {
    cluster: Cluster,
    directory: PathBuf,
    file: PathBuf,
    /// What is true of it from the beginning.
    known: Found,
}

impl Ward {
    fn start(replicas: usize) -> Ward {
        let settings =
            [("wal_level", "logical"), ("archive_mode", "on"), ("archive_command", "true"), ("max_connections", "60")];
        let settings = settings.map(|(name, value)| (name.to_string(), value.to_string())).to_vec();
        let cluster = Cluster::start(ClusterOptions { replicas, settings, ..Default::default() }).unwrap();
        let directory = cluster.directory().join("doctor");
        std::fs::create_dir(&directory).unwrap();
        let settings = ProxySettings {
            sections: format!("[coordination]\npath = \"{}/state.json\"\n", directory.display()),
            ..Default::default()
        };
        let file = settings.write(&cluster, &directory, "\"127.0.0.1:0\"");
        let known = found(&[("agents", "")]);
        Ward { cluster, directory, file, known }
    }

    fn node(&self, id: &str) -> &Node {
        self.cluster.node(id).unwrap()
    }

    fn look(&self) -> Vec<Finding> {
        let config = Config::load(&self.file).unwrap();
        let findings = app::doctor::doctor(&config).unwrap();
        findings.into_iter().filter(|finding| finding.level != Level::Ok && !is_about_room(finding)).collect()
    }

    /// Waits until exactly this is found beside what is known.
    #[track_caller]
    fn finds(&self, expected: &[(&str, &str)]) -> Vec<Finding> {
        let expected: Found = &found(expected) | &self.known;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let findings = self.look();
            let seen: Found = findings
                .iter()
                .map(|finding| (finding.check.to_string(), finding.node.clone().unwrap_or_default()))
                .collect();
            if seen == expected {
                return findings;
            }
            assert!(Instant::now() < deadline, "expected {expected:?}, found {findings:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Something is wrong with one node; what is printed against it mends it.
    #[track_caller]
    fn trial(&self, check: &str, node: &str, level: Level) -> String {
        let findings = self.finds(&[(check, node)]);
        let finding = findings.iter().find(|finding| finding.check == check).unwrap();
        assert_eq!(finding.level, level, "{finding:?}");
        self.apply(finding);
        self.finds(&[]);
        finding.message.clone()
    }

    /// Types what the finding says.
    #[track_caller]
    fn apply(&self, finding: &Finding) {
        let fix = &finding.fix;
        // A new line for pg_hba.conf.
        if let Some((_, rest)) = fix.split_once("put the line \"") {
            let (line, _) = rest.split_once("\" at the top").unwrap();
            self.hba(finding.node.as_deref().unwrap(), line);
        }
        let database = fix.split_once("in database ").and_then(|(_, rest)| rest.split(' ').next());
        if let Some((before, sql)) = fix.split_once("as superuser: ") {
            let named = before.rsplit_once(", ").and_then(|(at, _)| at.rsplit_once("on ")).map(|(_, at)| at);
            let at = named.filter(|at| self.cluster.node(at).is_some()).or(finding.node.as_deref()).unwrap();
            let (sql, _) = sql.split_once("; then ").unwrap_or((sql, ""));
            self.node(at).script(database.unwrap_or("postgres"), &format!("{sql};")).unwrap();
        }
        if let Some((_, node)) = fix.rsplit_once("restart the server of ") {
            self.node(node).restart(Shutdown::Fast).unwrap();
        }
    }

    /// In front of all others.
    fn hba(&self, node: &str, line: &str) {
        let node = self.node(node);
        let old = std::fs::read_to_string(node.data_directory().join("pg_hba.conf")).unwrap();
        node.write_file("pg_hba.conf", format!("{line}\n{old}").as_bytes()).unwrap();
        node.reload().unwrap();
    }
}

fn found(what: &[(&str, &str)]) -> Found {
    what.iter().map(|(check, node)| (check.to_string(), node.to_string())).collect()
}

/// How full the disk of this machine is, is not ours to say.
fn is_about_room(finding: &Finding) -> bool {
    ["disk_space", "store"].contains(&&*finding.check) && finding.message.ends_with(" left")
}

/// As it ends when there is one warning, and those about the disk of this machine.
fn one_warning(shown: &str) -> String {
    match shown.lines().filter(|line| line.ends_with(" left")).count() {
        0 => "\n0 errors, 1 warning in ".into(),
        full => format!("\n0 errors, {} warnings in ", full + 1),
    }
}

fn pgbaton(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
    let Output { stdout, stderr, status } =
        command.args(arguments).env_remove("PGBATON_TOKEN").env_remove("PGBATON_ADMIN").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn what_is_made_wrong_is_found_and_the_fix_as_printed_mends_it() {
    let ward = Ward::start(2);
    let begun = Instant::now();
    let (n1, n2, n3) = (ward.node("n1"), ward.node("n2"), ward.node("n3"));
    ward.finds(&[]);

    // Settings.
    n2.set("fsync", "off").unwrap();
    ward.trial("fsync", "n2", Level::Error);
    n3.set("full_page_writes", "off").unwrap();
    ward.trial("full_page_writes", "n3", Level::Warning);
    n1.set("synchronous_commit", "off").unwrap();
    ward.trial("synchronous_commit", "n1", Level::Warning);
    n1.sql("ALTER ROLE demo IN DATABASE demo SET synchronous_commit = off").unwrap();
    let said = ward.trial("synchronous_commit", "n1", Level::Warning);
    assert!(said.contains("role demo in database demo"), "{said}");
    n1.set("default_transaction_read_only", "on").unwrap();
    let findings = ward.finds(&[("read_only", "n1")]);
    let fix = findings.iter().find(|finding| finding.check == "read_only").unwrap();
    ward.apply(fix);
    ward.finds(&[]);
    n2.set("wal_receiver_timeout", "60s").unwrap();
    ward.trial("replication_timing", "n2", Level::Warning);
    n1.set("idle_session_timeout", "5min").unwrap();
    ward.trial("session_timeouts", "n1", Level::Warning);
    n2.set("recovery_min_apply_delay", "1min").unwrap();
    ward.trial("recovery", "n2", Level::Warning);
    n2.set("max_standby_streaming_delay", "-1").unwrap();
    ward.trial("recovery", "n2", Level::Warning);
    n3.sql("SELECT pg_wal_replay_pause()").unwrap();
    ward.trial("recovery", "n3", Level::Warning);
    n1.set("max_slot_wal_keep_size", "-1").unwrap();
    ward.trial("slot_limit", "n1", Level::Warning);
    n1.set("synchronous_standby_names", "n2").unwrap();
    ward.trial("synchronous_standby_names", "n1", Level::Warning);
    n3.set("max_replication_slots", "12").unwrap();
    ward.trial("configuration_files", "n3", Level::Warning);
    let conf = n2.data_directory().join("postgresql.conf");
    let before = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, format!("{before}no_such_setting = 1\n")).unwrap();
    ward.finds(&[("configuration_files", "n2")]);
    std::fs::write(&conf, before).unwrap();

    // Replication: two of one name, and one that receives from nowhere.
    let append = |node: &Node, words: &str| {
        let conninfo = node.sql("SHOW primary_conninfo").unwrap();
        node.set("primary_conninfo", &format!("{conninfo} {words}")).unwrap();
    };
    append(n3, "application_name=n2");
    let findings = ward.finds(&[("application_name", "n3"), ("senders", "n1")]);
    ward.apply(findings.iter().find(|finding| finding.check == "application_name").unwrap());
    ward.finds(&[]);
    append(n2, "port=1");
    let said = ward.trial("follows", "n2", Level::Error);
    assert!(said.contains("127.0.0.1:1"), "{said}");

    // Slots.
    n1.sql("SELECT pg_create_physical_replication_slot('gone', true)").unwrap();
    ward.trial("inactive_slots", "n1", Level::Warning);
    n1.sql("SELECT pg_create_logical_replication_slot('feed', 'pgoutput')").unwrap();
    let findings = ward.finds(&[("logical_slots", "n1"), ("inactive_slots", "n1")]);
    ward.apply(findings.iter().find(|finding| finding.check == "logical_slots").unwrap());
    ward.finds(&[]);

    // Who may do what, and who gets in.
    n1.sql_in("postgres", &format!("REVOKE EXECUTE ON FUNCTION pg_promote(boolean, integer) FROM {CONTROL_USER}"))
        .unwrap();
    let said = ward.trial("rights", "n1", Level::Error);
    assert!(said.contains("so there is no failover"), "{said}");
    n1.sql_in("postgres", &format!("REVOKE SELECT ON pg_hba_file_rules FROM {CONTROL_USER}")).unwrap();
    ward.trial("rights", "n1", Level::Warning);
    ward.hba("n2", "host replication replicator 127.0.0.1/32 reject");
    let said = ward.trial("logins_between", "n2", Level::Error);
    assert!(said.starts_with("n3 could not log in here as replicator"), "{said}");
    ward.hba("n3", &format!("host all {CONTROL_USER} all reject"));
    ward.trial("reachable", "n3", Level::Error);
    ward.hba("n3", &format!("host all {CONTROL_USER} all trust"));
    ward.trial("login_method", "n3", Level::Warning);
    let soon = "SELECT format('ALTER ROLE replicator VALID UNTIL %L', now() + interval '50 hours') \\gexec";
    n1.script("postgres", soon).unwrap();
    let said = ward.trial("password_expiry", "n1", Level::Warning);
    assert_eq!(said, "the password of replicator ends in 2 days");
    let password = ward.directory.join("control_password");
    std::fs::write(&password, "wrong").unwrap();
    let findings = ward.finds(&[("reachable", "n1"), ("reachable", "n2"), ("reachable", "n3")]);
    assert!(findings[1].message.contains("password"), "{findings:#?}");
    assert!(!format!("{findings:?}").contains(ward.cluster.control_password()));
    std::fs::write(&password, ward.cluster.control_password()).unwrap();

    // What lies about.
    n1.sql("CREATE UNLOGGED TABLE \"Scratch\" ()").unwrap();
    let said = ward.trial("unlogged_tables", "n1", Level::Warning);
    assert!(said.contains(&format!("database {DATABASE} has")) && said.contains("public.\"Scratch\""), "{said}");
    n1.sql("CREATE ROLE app LOGIN CONNECTION LIMIT 5").unwrap();
    ward.trial("connection_limits", "n1", Level::Warning);
    n1.set("archive_command", "false").unwrap();
    n1.sql("CREATE TABLE t (); SELECT pg_switch_wal()").unwrap();
    ward.finds(&[("archiving", "n1")]);
    n1.set("archive_command", "true").unwrap();

    // A node whose primary has grown, and which stops replaying.
    ward.finds(&[]);
    n1.sql("ALTER SYSTEM SET max_connections = 70").unwrap();
    n1.restart(Shutdown::Fast).unwrap();
    let findings = ward.finds(&[("standby_limits", "n2"), ("standby_limits", "n3")]);
    for finding in findings.iter().filter(|finding| finding.check == "standby_limits") {
        assert_eq!((finding.level, &finding.message[..31]), (Level::Error, "max_connections is 60, and 70 o"));
        ward.apply(finding);
    }
    ward.finds(&[]);

    // One that is given a setting where nobody can change it.
    n3.stop(Shutdown::Fast);
    let mut server = Started::with(n3, "recovery_min_apply_delay=0", ward.directory.clone());
    let findings = ward.finds(&[("alter_system", "n3")]);
    let finding = findings.iter().find(|finding| finding.check == "alter_system").unwrap();
    assert!(finding.fix.contains("take recovery_min_apply_delay off the server's command line"), "{finding:?}");
    server.stop();

    // One that is not there, and one that does not move.
    let findings = ward.finds(&[("reachable", "n3")]);
    assert!(findings.iter().any(|finding| finding.fix.contains("pg_isready")), "{findings:#?}");
    n3.start().unwrap();
    ward.finds(&[]);
    n3.pause();
    let findings = ward.finds(&[("reachable", "n3")]);
    assert!(findings.iter().any(|finding| finding.message.contains("no answer within")), "{findings:#?}");
    n3.resume();
    ward.finds(&[]);
    println!("all trials took {:?}", begun.elapsed());
}

/// For those that leave it as it was. One at a time; the sweeper ends it when the binary ends.
fn shared() -> MutexGuard<'static, Ward> {
    static SHARED: OnceLock<Mutex<Ward>> = OnceLock::new();
    SHARED.get_or_init(|| Mutex::new(Ward::start(2))).lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node's server with a setting on its command line.
struct Started(std::process::Child);

impl Started {
    fn with(node: &Node, setting: &str, working_directory: PathBuf) -> Started {
        support::set_mode(&working_directory, 0o755);
        let runner = Runner { run_as: RunAs::choose().unwrap(), working_directory, cancel: Cancel::default() };
        let mut command = runner.command(&support::bin().program("postgres"));
        command.arg("-D").arg(node.data_directory()).args(["-c", setting]).stdout(Stdio::null()).stderr(Stdio::null());
        Started(command.spawn().unwrap())
    }

    fn stop(&mut self) {
        support::send(self.0.id(), rustix::process::Signal::INT);
        support::wait_for_end(&mut self.0, DEADLINE);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            support::send(self.0.id(), rustix::process::Signal::QUIT);
            let _ = self.0.wait();
        }
    }
}

#[test]
fn a_server_of_another_cluster_is_recognised() {
    let ward = Ward::start(1);
    let stranger = support::cluster(0);
    let other = stranger.primary().unwrap();
    other.sql(&format!("ALTER ROLE {CONTROL_USER} PASSWORD '{}'", ward.cluster.control_password())).unwrap();
    let text = std::fs::read_to_string(&ward.file).unwrap();
    let n3 = format!("[[cluster.nodes]]\nid = \"n3\"\nhost = \"127.0.0.1\"\nport = {}\n", other.port());
    std::fs::write(&ward.file, text + &n3).unwrap();
    let findings = ward.look();
    let of = |check: &str| findings.iter().find(|finding| finding.check == check);
    // By the majority, as both say that they are primaries.
    assert_eq!(of("system_identifier").and_then(|finding| finding.node.as_deref()), Some("n3"), "{findings:#?}");
    assert!(of("one_primary").unwrap().message.contains("n1 and n3"), "{findings:#?}");
}

#[test]
fn the_command_line_says_it_in_a_table_in_json_and_by_its_exit_code() {
    let ward = shared();
    let file = ward.file.to_str().unwrap();
    let (code, shown, said) = pgbaton(&["doctor", "-c", file]);
    assert_eq!((code, &*said), (Some(0), ""), "{shown}");
    assert!(shown.starts_with("cluster and pgbaton\n  warning  agents "), "{shown}");
    assert!(shown.contains(&one_warning(&shown)), "{shown}");
    assert_eq!(pgbaton(&["doctor", "-c", file, "--strict"]).0, Some(1));
    let (code, json, _) = pgbaton(&["doctor", "-c", file, "--json", "--all"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let findings = json["findings"].as_array().unwrap();
    assert!(code == Some(0) && findings.len() > 60, "{json}");
    let keys: Vec<&String> = findings[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["check", "fix", "level", "message", "node"]);
    assert!(findings.iter().any(|finding| finding["level"] == "ok" && finding["node"] == "n2"));

    ward.node("n2").set("fsync", "off").unwrap();
    ward.finds(&[("fsync", "n2")]);
    let (code, shown, _) = pgbaton(&["doctor", "-c", file]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("\nn2\n  error    fsync  "), "{shown}");
    assert!(
        shown.contains("> on n2, as superuser: ALTER SYSTEM SET fsync = 'on'; SELECT pg_reload_conf()\n"),
        "{shown}"
    );
    ward.node("n2").set("fsync", "on").unwrap();
    ward.finds(&[]);
    assert_eq!(pgbaton(&["doctor", "--no-such-option"]).0, Some(2));
    assert_eq!(pgbaton(&["doctor", "-c", "/no/such/file"]).0, Some(1));
    let (code, _, said) = pgbaton(&["doctor", "--admin", "http://127.0.0.1:1"]);
    assert!(code == Some(1) && said.contains("Is pgbaton running"), "{said}");
}

#[test]
fn a_running_pgbaton_says_what_only_it_knows() {
    let ward = shared();
    let settings = ProxySettings { admin: "127.0.0.1:0\"\ntoken = \"open-sesame".into(), ..Default::default() };
    let proxy = InProcess::start(&ward.cluster, &settings);
    let admin = format!("http://{}", proxy.admin());
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
        command.args(arguments).env("PGBATON_ADMIN", &admin).env("PGBATON_TOKEN", "open-sesame");
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let deadline = Instant::now() + DEADLINE;
    loop {
        let (code, shown) = ask(&["doctor"]);
        if code == Some(0) && shown.contains(&one_warning(&shown)) && shown.contains(" agents ") {
            break;
        }
        assert!(Instant::now() < deadline, "{shown}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ask(&["pause"]).0, Some(0));
    let (code, shown) = ask(&["doctor"]);
    assert!(
        code == Some(0) && shown.contains("paused: nothing is done") && shown.contains("> pgbaton resume"),
        "{shown}"
    );
    assert_eq!(ask(&["resume"]).0, Some(0));
    assert_eq!(ask(&["maintenance", "n2", "on"]).0, Some(0));
    let (_, shown) = ask(&["doctor"]);
    assert!(shown.contains("> pgbaton maintenance n2 off"), "{shown}");
    assert_eq!(ask(&["maintenance", "n2", "off"]).0, Some(0));
    // Who does not show the token is not told what is weak.
    let (code, _, said) = pgbaton(&["doctor", "--admin", &admin]);
    assert!(code == Some(1) && said.contains("token"), "{said}");
    drop(proxy);

    // One that starts says once what would make a failover fail.
    ward.node("n2").set("fsync", "off").unwrap();
    let proxy = Proxy::start(&ward.cluster, &ProxySettings::default());
    wait_until(DEADLINE, "the log says what is wrong", || proxy.log().contains("doctor: fsync is off"));
    ward.node("n2").set("fsync", "on").unwrap();
}

#[test]
fn the_demo_is_in_good_health() {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (listen, admin) = (free(), free());
    let mut demo = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
    demo.args(["demo", "--listen", &listen, "--admin", &admin]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut demo = Started(demo.spawn().unwrap());
    let url = format!("http://{admin}");
    let deadline = Instant::now() + 3 * DEADLINE;
    loop {
        let (code, json, said) = pgbaton(&["doctor", "--admin", &url, "--json"]);
        let found = serde_json::from_str(&json).map(|Examination { findings }| findings);
        if found.as_ref().is_ok_and(|findings| findings.iter().all(is_about_room)) {
            let shown = pgbaton(&["doctor", "--admin", &url]).1;
            assert!(shown.starts_with("nothing to complain of, ") || shown.contains(" left"), "{shown}");
            assert_eq!(code, Some(0));
            break;
        }
        assert!(Instant::now() < deadline, "{json}{said}");
        std::thread::sleep(Duration::from_millis(200));
    }
    // Agents tell what only they can see.
    let (code, all, _) = pgbaton(&["doctor", "--admin", &url, "--all"]);
    assert!(code == Some(0) && all.matches(" disk_space ").count() == 3, "{all}");
    demo.stop();
}
