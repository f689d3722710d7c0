//! A real Prometheus scrapes a whole cluster with load on it, through a switchover and a failover: every metric arrives there
//! with its help and unit, and moves as what it measures does. `PGBATON_PROMETHEUS_SECONDS=60` has it watch for longer.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgbaton::admin::metrics;
use pgbaton::telemetry::metric::Kind;
use rustix::process::Signal;
use serde_json::Value;
use support::{DEADLINE, Psql, send};
use wire::{Batch, Login};

/// A cluster is made, broken and healed while others want the machine too.
const LONG: Duration = Duration::from_secs(90);

/// How long Prometheus watches at least.
fn seconds() -> u64 {
    std::env::var("PGBATON_PROMETHEUS_SECONDS").map_or(20, |seconds| seconds.parse().unwrap())
}

fn installed(program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").output().is_ok();
    if !is_there {
        eprintln!("skipped: {program} is not installed (package prometheus)");
    }
    is_there
}

fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

/// A child that is ended with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `pgbaton demo`: three nodes with their agents.
struct Demo {
    _program: Program,
    directory: tempfile::TempDir,
    proxy: SocketAddr,
    admin: SocketAddr,
}

impl Demo {
    fn start() -> Demo {
        let directory = tempfile::tempdir().unwrap();
        support::set_mode(directory.path(), 0o755);
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
        command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--dir"]);
        let mut child =
            command.arg(directory.path().join("d")).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let program = Program(child);
        let (mut proxy, mut admin) = (None, None);
        for line in said.lines().map_while(Result::ok) {
            let mut words = line.split_whitespace().skip_while(|word| *word != "-p").skip(1);
            if proxy.is_none() && line.contains("psql") {
                proxy = words.next().map(|port| SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())));
            }
            if let Some((_, rest)) = line.split_once("http://")
                && admin.is_none()
            {
                admin = rest.split('/').next().map(|address| address.parse().unwrap());
            }
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        Demo { _program: program, directory, proxy: proxy.unwrap(), admin: admin.unwrap() }
    }

    fn cluster(&self) -> Value {
        serde_json::from_str(&get(self.admin, "/cluster", "")).unwrap_or_default()
    }

    fn primary(&self) -> String {
        self.cluster()["primary"].as_str().unwrap_or_default().to_owned()
    }

    /// Until one node is the primary and both others stream, vote and serve reads.
    #[track_caller]
    fn wait_until_whole(&self) {
        until(LONG, "the cluster is whole", || {
            let cluster = self.cluster();
            let nodes = cluster["nodes"].as_array().cloned().unwrap_or_default();
            let serve = nodes.iter().filter(|node| node["state"] == "running" && node["eligible"] == true).count();
            cluster["primary"].is_string()
                && serve == 2
                && cluster["voters"].as_array().is_some_and(|all| all.len() == 2)
        });
    }

    fn verb(&self, arguments: &[&str]) -> bool {
        let admin = format!("http://{}", self.admin);
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
        command
            .args(arguments)
            .env("PGBATON_ADMIN", admin)
            .env_remove("PGBATON_TOKEN")
            .output()
            .unwrap()
            .status
            .success()
    }

    fn server_pid(&self, node: &str) -> Option<u32> {
        let file = self.directory.path().join("d").join(node).join("data/postmaster.pid");
        std::fs::read_to_string(file).ok()?.lines().next()?.parse().ok()
    }

    fn agent_pid(&self, node: &str) -> u32 {
        let file = format!("{}/d/{node}/agent.toml", self.directory.path().display());
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let mut pids = entries.filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let text = String::from_utf8_lossy(&std::fs::read(entry.path().join("cmdline")).ok()?).replace('\0', " ");
            (text.contains(" agent ") && text.contains(&file)).then_some(pid)
        });
        pids.next().expect("an agent runs beside the node")
    }

    fn node(&self, id: &str) -> Psql {
        let cluster = self.cluster();
        let node = cluster["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).unwrap().clone();
        Psql::tcp(u16::try_from(node["port"].as_u64().unwrap()).unwrap())
    }
}

#[track_caller]
fn until(limit: Duration, what: &str, condition: impl FnMut() -> bool) {
    support::wait_until(limit, what, condition);
}

/// Prometheus, with the alerts that go with pgbaton.
struct Prometheus {
    _program: Program,
    directory: tempfile::TempDir,
    address: SocketAddr,
}

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

impl Prometheus {
    fn start(admin: SocketAddr) -> Prometheus {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 250ms, evaluation_interval: 500ms}}\nrule_files: [{}]\nscrape_configs:\n  \
             - job_name: pgbaton\n    static_configs: [{{targets: [\"{admin}\"]}}]\n",
            file("docker/monitoring/alerts.yml").display()
        );
        std::fs::write(&config, text).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let program = Program(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let prometheus = Prometheus { _program: program, directory, address };
        until(LONG, "Prometheus is ready", || {
            TcpStream::connect(address).is_ok() && get(address, "/-/ready", "").contains("Ready")
        });
        prometheus
    }

    fn ask(&self, path: &str) -> Value {
        let answer = get(self.address, path, "");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
    }

    /// How many series the expression has.
    fn count(&self, expression: &str) -> usize {
        let encoded: String = form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let answer = self.ask(&format!("/api/v1/query?query={encoded}"));
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().map_or(0, Vec::len)
    }

    #[track_caller]
    fn wait_for(&self, expression: &str) {
        let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let deadline = Instant::now() + LONG;
        while self.count(expression) == 0 {
            assert!(Instant::now() < deadline, "Prometheus never saw {expression}\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Clients that read, write, open blocks and make mistakes, and come again when they are turned away.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(proxy: SocketAddr) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |number: usize| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Ok(Ok(mut wire)) = Login::at(proxy).attempt() else {
                        std::thread::sleep(Duration::from_millis(50));
                        continue;
                    };
                    while !stop.load(Ordering::Relaxed) {
                        let batch = match number % 4 {
                            0 => Batch::new().query("SELECT count(*) FROM load"),
                            1 => Batch::new().query("INSERT INTO load VALUES (repeat('x', 5000))"),
                            2 => Batch::new().query("BEGIN").query("INSERT INTO load VALUES ('')").query("COMMIT"),
                            _ => Batch::new().query("SELECT 1/0"),
                        };
                        let answers = if number % 4 == 2 { 3 } else { 1 };
                        let answered = wire.send(&batch.0).is_ok() && (0..answers).all(|_| wire.until(b"Z").is_ok());
                        if !answered {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            })
        };
        Load { clients: (0..8).map(client).collect(), stop }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

/// Of each metric, what has to be seen of it in the end: a series for each of these expressions.
const MOVES: &[(&str, &[&str])] = &[
    ("pgbaton_build", &["pgbaton_build_info == 1"]),
    ("pgbaton_clients", &["changes(pgbaton_clients[10m]) > 0"]),
    ("pgbaton_max_clients", &["pgbaton_max_clients == 10000"]),
    ("pgbaton_waiting_clients", &["changes(pgbaton_waiting_clients[10m]) > 0"]),
    ("pgbaton_longest_wait_seconds", &["max_over_time(pgbaton_longest_wait_seconds[10m]) > 0.2"]),
    (
        "pgbaton_server_connections",
        &[
            "changes(pgbaton_server_connections{state=\"active\"}[10m]) > 0",
            "changes(pgbaton_server_connections{state=\"idle\"}[10m]) > 0",
            "pgbaton_server_connections{state=\"login\"} >= 0",
        ],
    ),
    (
        "pgbaton_statements",
        &[
            "increase(pgbaton_statements_total{class=\"read\",target=\"replica\",reason=\"read\"}[10m]) > 0",
            "increase(pgbaton_statements_total{class=\"write\",target=\"primary\",reason=\"write\"}[10m]) > 0",
        ],
    ),
    ("pgbaton_retried_statements", &["pgbaton_retried_statements_total >= 0"]),
    ("pgbaton_transactions", &["increase(pgbaton_transactions_total[10m]) > 0"]),
    ("pgbaton_answered_statements", &["increase(pgbaton_answered_statements_total[10m]) > 0"]),
    ("pgbaton_errors", &["increase(pgbaton_errors_total[10m]) > 0"]),
    (
        "pgbaton_query_seconds",
        &[
            "increase(pgbaton_query_seconds_count{target=\"primary\"}[10m]) > 0",
            "increase(pgbaton_query_seconds_count{target=\"replica\"}[10m]) > 0",
            "histogram_quantile(0.99, sum by (le) (rate(pgbaton_query_seconds_bucket[10m]))) > 0",
        ],
    ),
    ("pgbaton_transaction_seconds", &["increase(pgbaton_transaction_seconds_total[10m]) > 0"]),
    ("pgbaton_wait_seconds", &["increase(pgbaton_wait_seconds_total[10m]) > 0"]),
    ("pgbaton_received_bytes", &["increase(pgbaton_received_bytes_total[10m]) > 0"]),
    ("pgbaton_sent_bytes", &["increase(pgbaton_sent_bytes_total[10m]) > 0"]),
    ("pgbaton_node_up", &["changes(pgbaton_node_up[10m]) > 0", "pgbaton_node_up == 1"]),
    ("pgbaton_node_primary", &["changes(pgbaton_node_primary[10m]) > 0", "sum(pgbaton_node_primary) == 1"]),
    ("pgbaton_agent_up", &["changes(pgbaton_agent_up[10m]) > 0", "pgbaton_agent_up == 1"]),
    ("pgbaton_eligible_replicas", &["changes(pgbaton_eligible_replicas[10m]) > 0", "pgbaton_eligible_replicas == 2"]),
    ("pgbaton_replica_lag_bytes", &["max_over_time(pgbaton_replica_lag_bytes[10m]) > 5000"]),
    ("pgbaton_replica_lag_seconds", &["max_over_time(pgbaton_replica_lag_seconds[10m]) > 0.3"]),
    ("pgbaton_writable", &["changes(pgbaton_writable[10m]) > 0", "pgbaton_writable == 1"]),
    ("pgbaton_held_statements", &["max_over_time(pgbaton_held_statements[10m]) > 0", "pgbaton_held_statements == 0"]),
    // Whether one was in doubt is for chance; that it would be counted is for tests/hold.rs.
    ("pgbaton_in_doubt", &["count(pgbaton_in_doubt_total) == 3"]),
    ("pgbaton_epoch", &["max_over_time(pgbaton_epoch[10m]) >= min_over_time(pgbaton_epoch[10m]) + 2"]),
    ("pgbaton_voters", &["pgbaton_voters == 2"]),
    ("pgbaton_required_acks", &["pgbaton_required_acks == 1"]),
    ("pgbaton_promotable_nodes", &["changes(pgbaton_promotable_nodes[10m]) > 0", "pgbaton_promotable_nodes == 2"]),
    ("pgbaton_failover_ready", &["changes(pgbaton_failover_ready[10m]) > 0", "pgbaton_failover_ready == 1"]),
    ("pgbaton_paused", &["max_over_time(pgbaton_paused[10m]) == 1", "pgbaton_paused == 0"]),
    (
        "pgbaton_failovers",
        &[
            "pgbaton_failovers_total{kind=\"switchover\",outcome=\"done\"} == 1",
            "pgbaton_failovers_total{kind=\"switchover\",outcome=\"refused\"} == 1",
            "pgbaton_failovers_total{kind=\"failover\",outcome=\"done\"} >= 1",
        ],
    ),
    (
        "pgbaton_failover_phase_seconds",
        &[
            "pgbaton_failover_phase_seconds_count{phase=\"promote\"} >= 2",
            "pgbaton_failover_phase_seconds_count{phase=\"stop\"} == 1",
            "pgbaton_failover_phase_seconds_sum{phase=\"recruit\"} > 0",
        ],
    ),
    ("pgbaton_failover_lost_bytes", &["pgbaton_failover_lost_bytes_total >= 0"]),
    (
        "pgbaton_rejoins",
        &["pgbaton_rejoins_total{outcome=\"done\"} > 0", "pgbaton_rejoins_total{outcome=\"failed\"} >= 0"],
    ),
];

#[test]
fn every_metric_arrives_in_a_real_prometheus_and_moves() {
    if !installed("prometheus") {
        return;
    }
    let begun = Instant::now();
    let demo = Demo::start();
    demo.wait_until_whole();
    let prometheus = Prometheus::start(demo.admin);
    prometheus.wait_for("up == 1");
    let watching = Instant::now();
    let psql = Psql::tcp(demo.proxy.port());
    psql.ok(&["CREATE TABLE load (t text)"]);
    let load = Load::start(demo.proxy);
    prometheus.wait_for("pgbaton_statements_total{target=\"replica\"} > 20");

    // More want a transaction than there are server connections.
    let mut crowd: Vec<_> = (0..22).map(|_| Login::at(demo.proxy).connect()).collect();
    for wire in &mut crowd {
        wire.send(&Batch::new().query("BEGIN").query("CREATE TEMP TABLE mine (n int) ON COMMIT DROP").0).unwrap();
    }
    prometheus.wait_for("pgbaton_waiting_clients > 0 and pgbaton_longest_wait_seconds > 0.2");
    drop(crowd);

    // A replica falls behind.
    let behind = demo.cluster()["nodes"].as_array().unwrap().iter().find(|node| node["role"] == "replica").cloned();
    let behind = demo.node(behind.unwrap()["id"].as_str().unwrap());
    behind.ok(&["SELECT pg_wal_replay_pause()"]);
    prometheus.wait_for("pgbaton_replica_lag_seconds > 0.3 and pgbaton_replica_lag_bytes > 5000");
    behind.ok(&["SELECT pg_wal_replay_resume()"]);
    demo.wait_until_whole();

    // The first node of a new cluster is its primary already.
    assert!(!demo.verb(&["switchover", "--to", "n1"]));
    let before = demo.primary();
    assert!(demo.verb(&["switchover"]));
    assert_ne!(demo.primary(), before);
    demo.wait_until_whole();

    // The primary is gone, and nobody may take its place yet: what would write is held. Its agent stands still, or it would
    // start the primary again at once.
    assert!(demo.verb(&["pause"]));
    let lost = demo.primary();
    let agent = demo.agent_pid(&lost);
    send(agent, Signal::STOP);
    send(demo.server_pid(&lost).unwrap(), Signal::KILL);
    prometheus.wait_for("pgbaton_held_statements > 0 and pgbaton_paused == 1");
    prometheus.wait_for("pgbaton_agent_up == 0 and on () pgbaton_writable == 0");
    assert!(demo.verb(&["resume"]));
    until(LONG, "another node is the primary", || !["", &*lost].contains(&&*demo.primary()));
    send(agent, Signal::CONT);
    demo.wait_until_whole();
    prometheus.wait_for("pgbaton_eligible_replicas == 2 and pgbaton_failover_ready == 1 and pgbaton_voters == 2");
    while watching.elapsed() < Duration::from_secs(seconds()) {
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(load);

    let expected: BTreeMap<_, _> = MOVES.iter().copied().collect();
    let known = prometheus.ask("/api/v1/metadata")["data"].clone();
    let mut count = 0;
    for metric in metrics::ALL.iter().flat_map(|(_, metrics)| *metrics) {
        let about = &known[metric.name][0];
        let told = (about["type"].as_str(), about["help"].as_str(), about["unit"].as_str());
        assert_eq!(
            told,
            (Some(metric.kind.as_str()), Some(metric.help), Some(metric.unit.unwrap_or(""))),
            "{}",
            metric.name
        );
        let samples = match metric.kind {
            Kind::Histogram => format!("{}_bucket", metric.name),
            _ => metric.sample_name(),
        };
        assert!(prometheus.count(&samples) > 0, "{samples} is not there");
        let moves = expected.get(metric.name).unwrap_or_else(|| panic!("say what {} does", metric.name));
        for expression in *moves {
            prometheus.wait_for(expression);
        }
        count += 1;
    }
    assert_eq!(count, expected.len());
    let series = prometheus.count("{__name__=~\"pgbaton_.*\"}");

    // The alerts are rules that it understands, and it has seen that the primary changed.
    let rules = prometheus.ask("/api/v1/rules")["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
    assert!(rules.len() > 10 && rules.iter().all(|rule| rule["health"] == "ok"), "{rules:#?}");
    prometheus.wait_for("ALERTS{alertname=\"PgbatonPrimaryChanged\"}");
    eprintln!(
        "{count} metrics, {series} series, watched for {} s of {} s",
        watching.elapsed().as_secs(),
        begun.elapsed().as_secs()
    );
}

#[test]
fn promtool_finds_nothing_wrong_with_the_page_and_the_rules() {
    if !installed("promtool") {
        return;
    }
    let promtool = |arguments: &[&str], input: &str| {
        let mut command = Command::new("promtool");
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "promtool {arguments:?}: {said}\n{input}");
        said
    };
    let settings = support::ProxySettings { admin: "127.0.0.1:0".into(), ..Default::default() };
    let proxy = support::InProcess::start(support::shared_cluster(), &settings);
    proxy.psql().ok(&["SELECT 1"]);
    let page = get(proxy.admin(), "/metrics", "Accept: text/plain; version=0.0.4\r\n");
    assert_eq!(promtool(&["check", "metrics"], &page), "");
    promtool(&["check", "rules", &file("docker/monitoring/alerts.yml").display().to_string()], "");
    promtool(
        &["check", "config", "--syntax-only", &file("docker/monitoring/prometheus.yml").display().to_string()],
        "",
    );
}
