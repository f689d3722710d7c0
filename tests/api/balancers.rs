//! What load balancers are told: by pgbaton itself, through a failover, and by HAProxy, which acts on it.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pgbaton::demo::Shutdown;

use crate::client::Api;
use crate::support::{self, DEADLINE, InProcess, ProxySettings, Psql, wait_until};
use crate::{Alone, turn};

#[test]
fn each_path_answers_for_pgbaton_and_for_each_node() {
    let alone = Alone::with_token();
    let api = &alone.api;
    let status = |path: &str| api.get(path).status;
    for path in ["/primary", "/master", "/read-write", "/leader", "/health", "/readiness", "/liveness", "/read-only"] {
        assert_eq!(status(path), 200, "{path}");
    }
    assert_eq!(api.get("/primary").json()["nodes"], serde_json::json!(["n1"]));
    assert_eq!(api.get("/replica").json()["nodes"], serde_json::json!(["n2"]));
    for (path, expected) in [
        ("/nodes/n1/primary", 200),
        ("/nodes/n1/leader", 200),
        ("/nodes/n1/replica", 503),
        ("/nodes/n1/read-only", 200),
        ("/nodes/n1/health", 200),
        ("/nodes/n2/primary", 503),
        ("/nodes/n2/read-write", 503),
        ("/nodes/n2/master", 503),
        ("/nodes/n2/replica", 200),
        ("/nodes/n2/read-only", 200),
        ("/nodes/n2/asynchronous", 200),
        ("/nodes/n2/async", 200),
        ("/nodes/n2/synchronous", 503),
        ("/nodes/n2/sync", 503),
        ("/nodes/n9/primary", 404),
        ("/nodes/n9/replica?lag=1MB", 404),
    ] {
        assert_eq!(status(path), expected, "{path}");
    }
    // The status is the answer, however it is asked for.
    for method in ["HEAD", "OPTIONS"] {
        for (path, expected) in [("/primary", 200), ("/nodes/n2/primary", 503), ("/nodes/n2/replica?lag=1GB", 200)] {
            let answer = api.send(method, path, "", None);
            assert_eq!((answer.status, &*answer.body), (expected, ""), "{method} {path}");
        }
    }
}

#[test]
fn a_replica_is_one_only_within_the_lag_that_is_asked_for() {
    let alone = Alone::without_token();
    let api = &alone.api;
    let cluster = support::shared_cluster();
    let replica = cluster.node("n2").unwrap();
    replica.sql("SELECT pg_wal_replay_pause()").unwrap();
    let behind = || api.get("/cluster").json()["nodes"][1]["lag_bytes"].as_u64().unwrap_or_default();
    let written =
        cluster.primary().unwrap().sql("CREATE TABLE lagging AS SELECT repeat('x', 100) FROM generate_series(1, 3000)");
    written.unwrap();
    wait_until(DEADLINE, "it is behind", || behind() > 300_000);
    let statuses: Vec<u16> = ["1kB", "16kB", "300000", "64MB", "2GB"]
        .iter()
        .map(|lag| api.get(&format!("/replica?lag={lag}")).status)
        .collect();
    replica.sql("SELECT pg_wal_replay_resume()").unwrap();
    assert_eq!(statuses, [503, 503, 503, 200, 200]);
    wait_until(DEADLINE, "it has caught up", || api.get("/replica?lag=1kB").status == 200);
    assert_eq!(api.get("/nodes/n2/replica?lag=1kB").status, 200);
    for wrong in
        ["/replica?lag=much", "/replica?lag=-1", "/replica?lag=1mb", "/replica?tag_x=1", "/readiness?mode=write"]
    {
        assert_eq!(api.get(wrong).refusal(), (400, "bad_request".into()), "{wrong}");
    }
}

/// HAProxy, ended when dropped.
struct HaProxy {
    child: Child,
    ports: [u16; 2],
    _directory: tempfile::TempDir,
}

impl HaProxy {
    /// In front of these nodes: one port for the primary and one for replicas, as pgbaton says which is which.
    fn start(nodes: &[(String, u16)], admin: std::net::SocketAddr) -> HaProxy {
        let directory = tempfile::tempdir().unwrap();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for _ in 0..10 {
            let ports = [free(), free()];
            let mut text = "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
                .to_owned();
            for (port, question) in ports.iter().zip(["primary", "replica?lag=16MB"]) {
                text.push_str(&format!(
                    "listen on-{port}\n  bind 127.0.0.1:{port}\n  option httpchk\n  \
                     http-check send meth OPTIONS uri-lf \"/nodes/%[srv_name]/{question}\"\n  http-check expect status 200\n  \
                     default-server inter 100ms fall 2 rise 1 on-marked-down shutdown-sessions\n"
                ));
                for (id, node) in nodes {
                    text.push_str(&format!(
                        "  server {id} 127.0.0.1:{node} check addr {} port {}\n",
                        admin.ip(),
                        admin.port()
                    ));
                }
            }
            let file = directory.path().join("haproxy.cfg");
            std::fs::write(&file, text).unwrap();
            let log = std::fs::File::create(directory.path().join("haproxy.log")).unwrap();
            let mut command = Command::new("haproxy");
            command.args(["-db", "-f"]).arg(&file).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            let mut child = command.spawn().expect("haproxy is there: ./setup.sh test");
            let mut is_over = false;
            wait_until(DEADLINE, "HAProxy listens", || {
                is_over = child.try_wait().unwrap().is_some();
                is_over || std::net::TcpStream::connect(("127.0.0.1", ports[1])).is_ok()
            });
            if !is_over {
                return HaProxy { child, ports, _directory: directory };
            }
            let said = std::fs::read_to_string(directory.path().join("haproxy.log")).unwrap();
            assert!(said.contains("cannot bind"), "{said}");
        }
        panic!("no free ports for HAProxy");
    }

    /// The node behind a port; `None`: none is.
    fn node(&self, at: usize) -> Option<u16> {
        let said = Psql::tcp(self.ports[at]).run(&["SHOW port"]);
        said.stdout.parse().ok()
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn haproxy_follows_a_failover_by_what_pgbaton_says_of_each_node() {
    if Command::new("haproxy").arg("-v").output().is_err() {
        return eprintln!("skipped: there is no haproxy (./setup.sh test installs it)");
    }
    let _turn = turn();
    let cluster = support::cluster(2);
    let sections = "[failover]\nautomatic = true\nmisses = 2\nprobe_timeout = \"500ms\"\n".into();
    let settings = ProxySettings { admin: "127.0.0.1:0".into(), sections, ..Default::default() };
    let proxy = InProcess::start(&cluster, &settings);
    let api = Api::new(proxy.admin(), None);
    wait_until(DEADLINE, "both replicas serve", || {
        api.get("/replica?lag=16MB").json()["nodes"] == serde_json::json!(["n2", "n3"])
    });
    let nodes: Vec<(String, u16)> = cluster.nodes().iter().map(|node| (node.id.clone(), node.port())).collect();
    let haproxy = HaProxy::start(&nodes, proxy.admin());
    let port = |id: &str| nodes.iter().find(|(node, _)| node == id).map(|(_, port)| *port);
    wait_until(DEADLINE, "HAProxy sends to the primary", || haproxy.node(0) == port("n1"));
    wait_until(DEADLINE, "and reads to a replica", || haproxy.node(1).is_some_and(|at| Some(at) != port("n1")));

    cluster.node("n1").unwrap().stop(Shutdown::Kill);
    let takes_writes = || {
        let answer = api.get("/primary");
        answer.status == 200 && answer.json()["nodes"] != serde_json::json!(["n1"])
    };
    wait_until(DEADLINE, "another takes writes", takes_writes);
    let primary = api.get("/cluster").json()["primary"].as_str().unwrap().to_owned();
    assert_ne!(primary, "n1");
    assert_eq!(api.get("/nodes/n1/primary").status, 503);
    wait_until(DEADLINE, "HAProxy sends to the new primary", || haproxy.node(0) == port(&primary));
    Psql::tcp(haproxy.ports[0]).ok(&["CREATE TABLE written ()"]);
    let other = if primary == "n2" { "n3" } else { "n2" };
    wait_until(DEADLINE, "and reads to the other", || haproxy.node(1) == port(other));
}

#[test]
fn a_failover_that_cannot_be_finished_refuses_others_and_says_what_it_waits_for() {
    let _turn = turn();
    let cluster = support::cluster(2);
    let sections = "[failover]\nautomatic = true\nmisses = 2\nprobe_timeout = \"500ms\"\n".into();
    let lines = "durability = \"quorum\"".into();
    let settings = ProxySettings { admin: "127.0.0.1:0".into(), sections, cluster: lines, ..Default::default() };
    let proxy = InProcess::start(&cluster, &settings);
    let api = Api::new(proxy.admin(), None);
    wait_until(DEADLINE, "both vote", || api.get("/cluster").json()["voters"] == serde_json::json!(["n2", "n3"]));
    wait_until(DEADLINE, "a voter is one for load balancers too", || api.get("/nodes/n3/sync").status == 200);
    assert_eq!(api.get("/nodes/n3/async").status, 503);

    // Who looks up a role's password there is no primary to ask: this one is logged in already.
    let mut console = proxy.psql().database("pgbaton").command();
    let mut console = console.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut typing, mut reading) = (console.stdin.take().unwrap(), console.stdout.take().unwrap());
    typing.write_all(b"SHOW VERSION;\n").unwrap();
    let mut version = [0; 8];
    reading.read_exact(&mut version).unwrap();
    assert_eq!(&version, b"pgbaton ");

    // Either of the two may have what was acknowledged, so both are needed, and one stands still.
    let frozen = cluster.node("n2").unwrap();
    frozen.pause();
    cluster.node("n1").unwrap().stop(Shutdown::Kill);
    let phase = || api.get("/cluster").json()["phase"].as_str().unwrap_or_default().to_owned();
    wait_until(DEADLINE, "a failover is under way", || phase() == "recruiting");
    for path in ["/primary", "/leader", "/health/ready"] {
        assert_eq!(api.get(path).refusal(), (503, "no_primary".into()), "{path}");
    }
    assert_eq!(api.get("/health").status, 200, "clients are taken, and wait");
    assert_eq!(api.get("/liveness").status, 200);
    let refused = api.order("/switchover", "{\"to\":\"n3\"}");
    assert_eq!(refused.refusal(), (409, "refused".into()));
    assert_eq!(refused.message(), "another change of primary is under way");
    typing.write_all(b"SWITCHOVER;\n").unwrap();
    drop(typing);
    let said = console.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("55000: another change of primary is under way"), "{said}");
    let verb = crate::typed::typed(&api.url(), None, &["switchover"]);
    assert_eq!((verb.code, &*verb.stdout), (Some(1), ""));
    assert!(verb.stderr.starts_with("pgbaton: another change of primary is under way"), "{}", verb.stderr);

    frozen.resume();
    wait_until(Duration::from_secs(60), "it is finished", || api.get("/primary").status == 200);
}
