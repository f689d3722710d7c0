//! What a running pgbaton says of itself: why a statement goes where it goes, how the replicas are, what was counted. The
//! same answers in a session, in the console, on the command line and over HTTP.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::OnceLock;

use pgbaton::admin::metrics;
use pgbaton::demo::{Cluster, Node, Shutdown};
use rustix::process::Signal;
use support::{DEADLINE, InProcess, Proxy, ProxySettings, Psql, wait_until};

const GROUND: &str = "
CREATE TABLE IF NOT EXISTS numbers (n int);
CREATE OR REPLACE FUNCTION note() RETURNS int LANGUAGE sql AS 'INSERT INTO numbers VALUES (1) RETURNING n';
CREATE OR REPLACE VIEW noted AS SELECT note() AS n;
CREATE SEQUENCE IF NOT EXISTS counter;
CREATE SCHEMA IF NOT EXISTS side;
CREATE OR REPLACE FUNCTION side.doubtful() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE OR REPLACE FUNCTION public.doubtful() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT note()';
DROP ROLE IF EXISTS sider;
CREATE ROLE sider;
ALTER ROLE sider SET search_path = side;
";

/// One primary and one replica that nobody breaks.
fn ground() -> &'static Cluster {
    static GROUND_CLUSTER: OnceLock<()> = OnceLock::new();
    let cluster = support::shared_cluster();
    GROUND_CLUSTER.get_or_init(|| {
        cluster.primary().unwrap().sql(GROUND).unwrap();
        cluster.wait_for_replicas().unwrap();
    });
    cluster
}

fn settings() -> ProxySettings {
    ProxySettings { admin: "127.0.0.1:0".into(), ..Default::default() }
}

/// A proxy that knows the database and whose replicas serve.
fn proxy(cluster: &Cluster, settings: &ProxySettings) -> InProcess {
    let proxy = InProcess::start(cluster, settings);
    proxy.psql().ok(&["SELECT 1"]);
    wait_until(DEADLINE, "the replicas serve", || {
        let lag = console(&proxy.psql()).ok(&["SHOW LAG"]);
        lag.lines().filter(|line| line.split('|').nth(2) == Some("yes")).count() == cluster.nodes().len() - 1
    });
    proxy
}

fn console(psql: &Psql) -> Psql {
    psql.clone().database("pgbaton")
}

fn pgbaton(admin: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
    command.env_remove("PGBATON_ADMIN").env_remove("PGBATON_TOKEN").arg("explain").args(arguments);
    command.args(["--admin", admin]).output().unwrap()
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Status, head and body of the answer.
fn http(address: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
}

fn get(address: SocketAddr, path: &str) -> (u16, serde_json::Value) {
    let (status, _, body) = http(address, "GET", path, "");
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
}

/// `item|value` lines as psql prints them, or `item  value` as the command does.
fn items(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut items = BTreeMap::<String, Vec<String>>::new();
    for line in text.lines() {
        let (item, value) = line.split_once('|').or_else(|| line.split_once("  ")).unwrap_or_else(|| panic!("{text}"));
        items.entry(item.trim().into()).or_default().push(value.trim().into());
    }
    items
}

fn without_figures(text: &str) -> String {
    // How far a replica lags differs from one look to the next.
    text.split(" (lag ").next().unwrap_or_default().to_owned()
}

#[test]
fn console_session_and_command_line_say_the_same() {
    let proxy = proxy(ground(), &settings());
    for (sql, class, target, because) in [
        ("SELECT count(*) FROM numbers", "read", "replica", "reads only"),
        ("SELECT note()", "may write", "primary", "note"),
        ("SELECT nextval('counter')", "differs", "primary", "nextval"),
        ("SELECT * FROM noted", "may write", "primary", "note"),
        ("INSERT INTO numbers VALUES (2)", "write", "primary", "writes"),
    ] {
        let session = items(&proxy.psql().ok(&[&format!("EXPLAIN ROUTE {sql}")]));
        let console = items(&console(&proxy.psql()).ok(&[&format!("EXPLAIN ROUTE {sql}")]));
        let output = pgbaton(&url(proxy.admin()), &["--user", "demo", sql]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let command = items(&String::from_utf8(output.stdout).unwrap());
        for said in [&session, &console, &command] {
            assert_eq!((said["class"][0].as_str(), said["target"][0].as_str()), (class, target), "{sql}: {said:?}");
            assert!(said["reason"].iter().any(|reason| reason.contains(because)), "{sql}: {said:?}");
            assert_eq!(said["consistency"], ["session"]);
            assert_eq!(without_figures(&said["node n1"][0]), "is the primary");
            assert_eq!(without_figures(&said["node n2"][0]), "may serve it");
            assert!(said["node n2"][0].contains(" (lag "), "{said:?}");
        }
        assert_eq!(session["reason"], command["reason"]);
        let output = pgbaton(&url(proxy.admin()), &["--database", "demo", "--json", sql]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&json["class"], &json["target"]), (&class.into(), &target.into()), "{json}");
        assert!(json["nodes"][1]["lag_ms"].is_u64(), "{json}");
    }
}

#[test]
fn a_name_means_what_it_means_to_that_user() {
    let proxy = proxy(ground(), &settings());
    let target = |user: &str| {
        let output = pgbaton(&url(proxy.admin()), &["--user", user, "SELECT doubtful()"]);
        items(&String::from_utf8(output.stdout).unwrap())["target"][0].clone()
    };
    assert_eq!(target("sider"), "replica");
    assert_eq!(target("demo"), "primary", "to demo it is the one in public");
}

#[test]
fn a_database_that_is_not_known_is_an_error_that_says_so() {
    let mut proxy = InProcess::start(ground(), &settings());
    let admin = url(proxy.admin());
    let refused = |admin: &str, arguments: &[&str]| {
        let output = pgbaton(admin, arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused(&admin, &["SELECT 1"]);
    assert!(said.contains("no database is known here yet") && said.contains("Hint: "), "{said}");
    proxy.psql().ok(&["SELECT 1"]);
    assert_eq!(pgbaton(&admin, &["SELECT 1"]).status.code(), Some(0));
    let said = refused(&admin, &["--database", "nowhere", "SELECT 1"]);
    assert!(said.starts_with("pgbaton: database \"nowhere\" is not known here\nHint: "), "{said}");
    let own = console(&proxy.psql());
    let said = own.refused(&["EXPLAIN ROUTE IN nowhere SELECT 1"]);
    assert!(said.contains("3D000: database \"nowhere\""), "{said}");
    assert_eq!(items(&own.ok(&["EXPLAIN ROUTE IN demo SELECT 1"]))["class"], ["read"]);

    proxy.psql().database("postgres").ok(&["SELECT 1"]);
    let said = refused(&admin, &["SELECT 1"]);
    assert!(said.contains("several databases are known here: demo, postgres"), "{said}");
    assert!(own.refused(&["EXPLAIN ROUTE SELECT 1"]).contains("EXPLAIN ROUTE IN <database>"));
    assert_eq!(items(&own.ok(&["EXPLAIN ROUTE IN \"postgres\" SELECT 1"]))["class"], ["read"]);

    proxy.stop();
    let said = refused(&admin, &["SELECT 1"]);
    assert!(said.starts_with(&format!("pgbaton: cannot reach {admin}: ")) && said.contains("--admin"), "{said}");
    for wrong in ["https://127.0.0.1:1", "127.0.0.1:1", "http://"] {
        let output = pgbaton(wrong, &["SELECT 1"]);
        assert_eq!(output.status.code(), Some(2), "{wrong}: {output:?}");
    }
}

#[test]
fn somebody_else_at_the_admin_address_is_not_taken_for_pgbaton() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnope\n").unwrap();
    });
    let output = pgbaton(&url(address), &["SELECT 1"]);
    server.join().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("does not answer as pgbaton does: status 404"), "{said}");
}

/// To the server and all its processes: with the first alone, connections that exist go on being served.
fn send_to_all(node: &Node, signal: Signal) {
    let pid = node.pid().unwrap();
    support::send(pid, signal);
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    for child in children.split_whitespace() {
        support::send(child.parse().unwrap(), signal);
    }
}

#[test]
fn a_replica_that_is_gone_or_behind_is_rejected_with_its_reason() {
    let cluster = support::cluster(2);
    cluster.primary().unwrap().sql(GROUND).unwrap();
    cluster.wait_for_replicas().unwrap();
    let sections = "[failover]\nautomatic = false\nprobe_timeout = \"500ms\"".into();
    let proxy = proxy(&cluster, &ProxySettings { sections, ..settings() });
    let explained = || {
        let output = pgbaton(&url(proxy.admin()), &["SELECT count(*) FROM numbers"]);
        items(&String::from_utf8(output.stdout).unwrap())
    };
    let node = |id: &str| {
        let (_, cluster) = get(proxy.admin(), "/cluster");
        cluster["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).unwrap().clone()
    };

    send_to_all(cluster.node("n3").unwrap(), Signal::STOP);
    wait_until(DEADLINE, "the paused replica is rejected", || {
        explained()["node n3"][0].starts_with("does not answer: ") && node("n3")["state"] == "down"
    });
    let said = explained();
    assert_eq!(
        (said["target"][0].as_str(), without_figures(&said["node n2"][0]).as_str()),
        ("replica", "may serve it")
    );
    let n3 = node("n3");
    assert_eq!((&n3["state"], &n3["eligible"], &n3["lag_ms"]), (&"down".into(), &false.into(), &().into()), "{n3}");
    assert!(n3["reason"].as_str().unwrap().starts_with("does not answer: "), "{n3}");

    cluster.node("n2").unwrap().stop(Shutdown::Immediate);
    wait_until(DEADLINE, "the stopped replica is rejected", || node("n2")["eligible"] == false);
    let said = explained();
    assert_eq!((said["target"][0].as_str(), said["reason"][0].as_str()), ("primary", "no replica"), "{said:?}");
    let session = items(&proxy.psql().ok(&["EXPLAIN ROUTE SELECT count(*) FROM numbers"]));
    assert_eq!(
        (session["target"][0].as_str(), session["reason"][0].as_str()),
        ("primary", "no replica"),
        "{session:?}"
    );
    // It gets no reads as soon as its position is not known; that it is down is for the next probe to see.
    wait_until(DEADLINE, "the stopped replica is down", || {
        http(proxy.admin(), "GET", "/metrics", "").2.contains("pgbaton_node_up{node=\"n2\"} 0\n")
    });
    let (_, _, page) = http(proxy.admin(), "GET", "/metrics", "");
    assert!(page.contains("pgbaton_node_up{node=\"n1\"} 1\n"), "{page}");
    assert!(!page.contains("pgbaton_replica_lag_bytes{node=\"n2\"}"), "nobody knows it: {page}");

    send_to_all(cluster.node("n3").unwrap(), Signal::CONT);
    wait_until(DEADLINE, "the replica is back", || node("n3")["eligible"] == true);
    assert_eq!(explained()["target"], ["replica"]);

    // Fresh as it is, it has not what this session asks for.
    let asking = proxy.psql().env("PGOPTIONS", "-c pgbaton.min_lsn=FFFF/0");
    let said = items(&asking.ok(&["EXPLAIN ROUTE SELECT count(*) FROM numbers"]));
    assert_eq!((said["target"][0].as_str(), said["reason"][0].as_str()), ("primary", "no replica is fresh enough"));
    assert!(said["node n3"][0].contains("the session needs FFFF/0 (lag "), "{said:?}");

    cluster.node("n3").unwrap().sql("SELECT pg_wal_replay_pause()").unwrap();
    proxy.psql().ok(&["INSERT INTO numbers VALUES (3)"]);
    wait_until(DEADLINE, "the lag shows", || node("n3")["lag_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
}

#[test]
fn counters_move_with_what_is_done() {
    let proxy = proxy(ground(), &settings());
    let console = console(&proxy.psql());
    let count = |class: &str, target: &str, reason: &str| {
        let routes = console.ok(&["SHOW ROUTES"]);
        let prefix = format!("{class}|{target}|{reason}|");
        let found = routes.lines().find_map(|line| line.strip_prefix(&prefix)).map(|count| count.parse().unwrap());
        let sample = format!("pgbaton_statements_total{{class=\"{class}\",target=\"{target}\",reason=\"{reason}\"}} ");
        let (_, _, page) = http(proxy.admin(), "GET", "/metrics", "");
        let told = page.lines().find_map(|line| line.strip_prefix(&sample)).map(|count| count.parse().unwrap());
        assert_eq!(found, told, "{routes}\n{page}");
        found.unwrap_or(0u64)
    };
    let before = (count("read", "replica", "read"), count("write", "primary", "write"));
    let total_of = |name: &str| {
        let totals = console.ok(&["SHOW TOTALS"]);
        let prefix = format!("total_{name}_assignment_count|");
        totals.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().parse::<u64>().unwrap()
    };
    let total = total_of("server");
    let reads = vec!["SELECT count(*) FROM numbers"; 5];
    proxy.psql().ok(&reads);
    // In sessions of their own: one that has written keeps its server connection for the case that it asks for currval.
    proxy.psql().ok(&["INSERT INTO numbers VALUES (4)"]);
    proxy.psql().ok(&["INSERT INTO numbers VALUES (5)"]);
    assert_eq!(count("read", "replica", "read"), before.0 + 5);
    assert_eq!(count("write", "primary", "write"), before.1 + 2);
    assert_eq!(total_of("server"), total + 7);
    assert_eq!(total_of("server"), total_of("primary") + total_of("replica"));
}

#[test]
fn the_console_shows_replicas_servers_and_configuration() {
    let proxy = proxy(ground(), &settings());
    let console = console(&proxy.psql());
    let lag = console.ok(&["SHOW LAG"]);
    let rows: Vec<Vec<&str>> = lag.lines().map(|line| line.split('|').collect()).collect();
    assert_eq!(
        rows.iter().map(|row| row[..4].join("|")).collect::<Vec<_>>(),
        ["n1|primary||is the primary", "n2|replica|yes|"]
    );
    assert!(rows[1][6].contains('/') && rows[1][8] == "1" && rows[1][9] == "yes", "{lag}");
    let nodes = console.ok(&["SHOW NODES"]);
    assert!(nodes.lines().any(|line| line.starts_with("n2|") && line.ends_with("|yes|")), "{nodes}");

    let mut session = proxy.psql().command();
    let mut session = session.args(["-c", "SELECT pg_backend_pid(), pg_sleep(60)"]).spawn().unwrap();
    wait_until(DEADLINE, "the session's server connection is shown", || {
        console.ok(&["SHOW SERVERS"]).starts_with("S|demo|demo|active|127.0.0.1|")
    });
    session.kill().unwrap();
    session.wait().unwrap();

    let config = console.ok(&["SHOW CONFIG"]);
    assert!(config.lines().any(|line| line == "reads.consistency|session|session|yes"), "{config}");
    assert!(config.lines().any(|line| line == "admin.token|||no"), "{config}");
    let help = console.ok(&["SHOW HELP"]);
    for command in ["SHOW LAG", "SHOW ROUTES", "SHOW STATS", "SHOW SERVERS", "SHOW CONFIG", "EXPLAIN ROUTE"] {
        assert!(help.contains(command), "{command}: {help}");
    }
    proxy.psql().ok(&["DROP ROLE IF EXISTS watcher", "CREATE ROLE watcher LOGIN PASSWORD 'w' IN ROLE pg_monitor"]);
    let watcher = console.clone().user("watcher", Some("w"));
    assert_eq!(items(&watcher.ok(&["EXPLAIN ROUTE IN demo SELECT 1"]))["target"], ["replica"]);
}

#[test]
fn metrics_have_help_and_type_and_bounded_labels() {
    let proxy = proxy(ground(), &settings());
    proxy.psql().ok(&["SELECT count(*) FROM numbers", "INSERT INTO numbers VALUES (6)"]);
    let (status, head, page) = http(proxy.admin(), "GET", "/metrics", "");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(page.ends_with("# EOF\n"), "{page}");
    let mut families = BTreeMap::<&str, (bool, &str, bool)>::new();
    let mut seen = std::collections::BTreeSet::new();
    for line in page.lines().filter(|line| *line != "# EOF") {
        if let Some(about) = line.strip_prefix("# ") {
            let mut words = about.splitn(3, ' ');
            let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            let family = families.entry(name).or_default();
            match what {
                "TYPE" => family.1 = rest,
                "HELP" => family.0 = rest.ends_with('.'),
                "UNIT" => family.2 = name.ends_with(&format!("_{rest}")),
                other => panic!("{other}"),
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(seen.insert(sample.to_owned()), "twice: {line}");
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let suffixes = ["_total", "_info", "_bucket", "_count", "_sum"];
        let suffix = suffixes
            .into_iter()
            .find(|suffix| name.strip_suffix(suffix).is_some_and(|family| families.contains_key(family)));
        let family = suffix.map_or(name, |suffix| &name[..name.len() - suffix.len()]);
        let (has_help, kind, _) = families[family];
        assert!(has_help, "{family} has no help");
        let kind_of = match suffix {
            Some("_total") => "counter",
            Some("_info") => "info",
            Some(_) => "histogram",
            None => "gauge",
        };
        assert_eq!(kind, kind_of, "{family}");
        for label in labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').unwrap();
            let value = value.trim_matches('"');
            let is_bounded = match label {
                "node" => ["n1", "n2"].contains(&value),
                "state" => ["active", "idle", "login"].contains(&value),
                "outcome" => {
                    ["committed", "aborted", "unknown", "done", "refused", "undone", "failed"].contains(&value)
                }
                "kind" => ["failover", "switchover"].contains(&value),
                "phase" => value.chars().all(|letter| letter.is_ascii_lowercase()),
                "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
                "version" => value == env!("CARGO_PKG_VERSION"),
                "target" => ["primary", "replica"].contains(&value),
                "class" | "reason" => value.chars().all(|letter| letter.is_ascii_lowercase() || " -".contains(letter)),
                _ => false,
            };
            assert!(is_bounded, "{line}");
        }
    }
    for metric in metrics::ALL.iter().flat_map(|(_, metrics)| *metrics) {
        let family = families.remove(metric.name).unwrap_or_else(|| panic!("{}: {page}", metric.name));
        assert_eq!((family.1, family.2), (metric.kind.as_str(), metric.unit.is_some()), "{}", metric.name);
    }
    assert!(families.is_empty(), "not in docs/metrics.md: {families:?}");
    assert!(seen.contains("pgbaton_replica_lag_seconds{node=\"n2\"}"), "{page}");
}

#[test]
fn health_and_the_cluster_are_told() {
    let cluster = support::cluster(0);
    let proxy = InProcess::start(&cluster, &settings());
    let admin = proxy.admin();
    assert_eq!(get(admin, "/health/live"), (200, serde_json::json!({ "status": "live" })));
    wait_until(DEADLINE, "it is ready", || get(admin, "/health/ready").0 == 200);
    let (_, told) = get(admin, "/cluster");
    assert_eq!((&told["name"], &told["primary"], &told["paused"]), (&"main".into(), &"n1".into(), &false.into()));
    let decided = (&told["epoch"], &told["phase"], &told["durability"], &told["voters"]);
    assert_eq!(decided, (&1.into(), &"stable".into(), &"async".into(), &serde_json::json!([])), "{told}");
    let node = &told["nodes"][0];
    assert_eq!((&node["role"], &node["state"], &node["lag_bytes"]), (&"primary".into(), &"running".into(), &0.into()));
    assert_eq!(node["port"], cluster.nodes()[0].port());

    // Without a primary it is alive, and not ready.
    let nowhere = ProxySettings { admin: "127.0.0.1:0".into(), ..Default::default() };
    cluster.nodes()[0].stop(Shutdown::Immediate);
    let blind = InProcess::start(&cluster, &nowhere);
    let (status, told) = get(blind.admin(), "/health/ready");
    assert_eq!((status, &told["error"]["code"]), (503, &"no_primary".into()), "{told}");
    assert_eq!(get(blind.admin(), "/health/live").0, 200);
}

#[test]
fn what_acts_needs_the_token_and_errors_look_alike() {
    let sections = String::new();
    let mut settings = ProxySettings { sections, ..settings() };
    settings.admin = "127.0.0.1:0\"\ntoken = \"open-sesame".into();
    let proxy = proxy(ground(), &settings);
    let admin = proxy.admin();
    let code = |method: &str, path: &str, headers: &str| {
        let (status, _, body) = http(admin, method, path, headers);
        let told: serde_json::Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
        for key in ["code", "message", "hint"] {
            assert!(told["error"][key].as_str().is_some_and(|text| !text.is_empty()), "{told}");
        }
        assert!(!body.contains("sesame"), "{body}");
        (status, told["error"]["code"].as_str().unwrap().to_owned())
    };
    assert_eq!(code("GET", "/nowhere", ""), (404, "unknown_path".into()));
    assert_eq!(code("GET", "/explain", ""), (400, "bad_request".into()));
    assert_eq!(code("GET", "/explain?sql=SELECT+1&database=nowhere", ""), (404, "unknown_database".into()));
    for wrong in
        ["", "Authorization: Bearer open-sesamo\r\n", "Authorization: Bearer \r\n", "Authorization: open-sesame\r\n"]
    {
        assert_eq!(code("POST", "/cluster", wrong), (401, "token_required".into()), "{wrong}");
    }
    let right = "Authorization: Bearer open-sesame\r\n";
    assert_eq!(code("POST", "/cluster", right), (405, "method_not_allowed".into()));
    assert_eq!(http(admin, "GET", "/cluster", "").0, 200, "looking needs no token");
    let config = console(&proxy.psql()).ok(&["SHOW CONFIG"]);
    assert!(config.contains("admin.token|***|") && !config.contains("sesame"), "{config}");
    // What no client would send does not stop it.
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.write_all(b"\x16\x03\x01 not http at all\r\n\r\n").unwrap();
    let long = format!("/explain?sql={}", "x".repeat(100_000));
    let mut stream = TcpStream::connect(admin).unwrap();
    let _ = write!(stream, "GET {long} HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(http(admin, "GET", "/health/live", "").0, 200);
}

#[test]
fn a_taken_admin_port_is_told_and_none_at_all_is_fine() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let settings = ProxySettings { admin: address.clone(), ..Default::default() };
    let file = settings.write(ground(), directory.path(), "\"127.0.0.1:0\"");
    let output = Command::new(env!("CARGO_BIN_EXE_pgbaton")).args(["serve", "-c"]).arg(file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("admin.listen: cannot listen on {address}")), "{said}");

    let proxy = Proxy::start(ground(), &ProxySettings::default());
    proxy.psql().ok(&["SELECT 1"]);
    assert!(!proxy.log().contains("the admin endpoint listens"), "{}", proxy.log());
}
