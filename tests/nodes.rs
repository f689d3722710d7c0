//! Nodes are added, removed, moved and changed while clients work: nobody sees an error that need not be, nothing that was
//! acknowledged is lost, and who is no node any more is left alone, by pgbaton and by its former peers.

#[path = "support/nodes.rs"]
mod at_nodes;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use at_nodes::{Crowd, Ledger, until_reads, watched_cluster};
use pgbaton::demo::{Cluster, Shutdown};
use rustix::process::Signal;
use serde_json::Value;
use support::{DEADLINE, Proxy, ProxySettings, wait_until};
use wire::{Login, trusting};

/// Every replica may serve every read, so that whoever is a node is read from.
const READS: &str = "[reads]\nconsistency = \"eventual\"\nslow_start = \"0s\"";

struct Stage {
    cluster: Cluster,
    proxy: Proxy,
    settings: ProxySettings,
    admin: u16,
}

impl Stage {
    /// pgbaton knows all nodes but these.
    fn set(replicas: usize, durability: &str, left_out: &[&'static str]) -> Stage {
        let cluster = watched_cluster(replicas);
        cluster.nodes()[0].sql("CREATE TABLE kept (id bigint PRIMARY KEY)").unwrap();
        cluster.wait_for_replicas().unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut settings = trusting(&cluster, "");
        settings.admin = format!("127.0.0.1:{admin}");
        settings.cluster = format!("durability = \"{durability}\"");
        settings.sections +=
            &format!("\n{READS}\n[failover]\nautomatic = true\n[coordination]\npath = \"state.json\"\n");
        settings.left_out = left_out.to_vec();
        let proxy = Proxy::start(&cluster, &settings);
        let stage = Stage { cluster, proxy, settings, admin };
        wait_until(DEADLINE, "the admin endpoint listens", || TcpStream::connect(("127.0.0.1", admin)).is_ok());
        wait_until(DEADLINE, "there is a primary", || stage.picture()["primary"] == "n1");
        let voters = if durability == "quorum" { replicas - left_out.len() } else { 0 };
        wait_until(DEADLINE, "there are voters", || names(&stage.picture()["voters"]).len() == voters);
        stage
    }

    /// Writes the file anew, without these nodes.
    fn write(&mut self, left_out: &[&'static str]) {
        self.settings.left_out = left_out.to_vec();
        let listen = format!("\"127.0.0.1:{}\"", self.proxy.port);
        self.settings.write(&self.cluster, self.proxy.directory.path(), &listen);
    }

    /// `POST /reload`: what was applied, or why nothing was.
    fn reload(&self) -> Result<String, String> {
        let (status, body) = http(self.admin, "POST", "/reload");
        match status {
            200 => Ok(body["done"].as_str().unwrap().into()),
            409 => Err(body["error"]["message"].as_str().unwrap().into()),
            other => panic!("{other}: {body}"),
        }
    }

    fn picture(&self) -> Value {
        http(self.admin, "GET", "/cluster").1
    }

    fn shown(&self) -> BTreeSet<String> {
        self.picture()["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap().into()).collect()
    }

    fn shown_node(&self, id: &str) -> Value {
        let nodes = self.picture()["nodes"].as_array().unwrap().clone();
        nodes.into_iter().find(|node| node["id"] == *id).unwrap_or_default()
    }

    fn ledger(&self) -> Ledger {
        Ledger::of(&self.cluster)
    }

    fn sql(&self, node: &str, sql: &str) -> String {
        self.cluster.node(node).unwrap().sql(sql).unwrap()
    }

    fn slots(&self, node: &str) -> Vec<String> {
        let slots = self.sql(node, "SELECT slot_name FROM pg_replication_slots ORDER BY 1");
        slots.lines().map(String::from).collect()
    }

    fn wait_for_voters(&self, wanted: &[&str]) {
        wait_until(DEADLINE, &format!("the voters are {wanted:?}"), || {
            let picture = self.picture();
            let in_force = names(&picture["voters"]);
            let Some(primary) = picture["primary"].as_str() else { return false };
            let set = self.sql(primary, "SHOW synchronous_standby_names");
            in_force == set_of(wanted)
                && wanted.iter().all(|node| set.contains(node))
                && set.matches('n').count() >= wanted.len()
        });
    }

    fn wait_until_read_from(&self, id: &str) {
        until_reads(self.proxy.port, &self.ledger(), &format!("{id} gets reads"), |shares| shares.of(id) > 0);
    }
}

fn names(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(String::from)).collect()
}

fn set_of(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn http(port: u16, method: &str, path: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let body = if method == "POST" { "{}" } else { "" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// Clients that write without a rest, and remember what was acknowledged.
struct Writers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<(Vec<u64>, Vec<String>)>>,
}

impl Writers {
    fn start(port: u16, clients: u64) -> Writers {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let write = |client: u64| {
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || {
                let (mut acknowledged, mut wrong) = (Vec::new(), Vec::new());
                let mut wire = Login::to(port).connect();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = client * 1_000_000 + n;
                    match wire.ask(wire::Batch::new().query(&format!("INSERT INTO kept VALUES ({id})"))) {
                        Ok(answer) if answer.errors.is_empty() => {
                            acknowledged.push(id);
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(answer) => wrong.push(format!("{:?}", answer.errors)),
                        Err(error) => {
                            wrong.push(error.to_string());
                            wire = Login::to(port).connect();
                        }
                    }
                }
                (acknowledged, wrong)
            })
        };
        let threads = (1..=clients).map(write).collect();
        let writers = Writers { stop, done, threads };
        writers.wait_for_more();
        writers
    }

    /// Until something has been written that was begun after this.
    fn wait_for_more(&self) {
        let before = self.done.load(Ordering::Relaxed);
        let enough = before + 20;
        wait_until(DEADLINE, "writes go on", || self.done.load(Ordering::Relaxed) >= enough);
    }

    /// What was acknowledged is there. What went wrong for the clients.
    fn end(self, stage: &Stage) -> Vec<String> {
        let (lost, wrong) = self.end_async(stage);
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        wrong
    }

    /// What was lost, and what went wrong for the clients.
    fn end_async(mut self, stage: &Stage) -> (Vec<u64>, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut acknowledged, mut wrong) = (BTreeSet::new(), Vec::new());
        for thread in self.threads.drain(..) {
            let (own, its) = thread.join().unwrap();
            acknowledged.extend(own);
            wrong.extend(its);
        }
        let primary = stage.picture()["primary"].as_str().unwrap().to_owned();
        let there: BTreeSet<u64> =
            stage.sql(&primary, "SELECT id FROM kept").lines().map(|id| id.parse().unwrap()).collect();
        (acknowledged.difference(&there).copied().collect(), wrong)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

// --- coming and going -------------------------------------------------------------------------------------------------

#[test]
fn a_node_is_added_under_load_and_is_read_from_and_votes() {
    let mut stage = Stage::set(3, "quorum", &["n4"]);
    stage.wait_for_voters(&["n2", "n3"]);
    let (writers, crowd) = (Writers::start(stage.proxy.port, 3), Crowd::start(stage.proxy.port, 3));
    assert_eq!(stage.shown(), set_of(&["n1", "n2", "n3"]));
    stage.write(&[]);
    assert_eq!(stage.reload().unwrap(), "applied: cluster.nodes; needs a restart: nothing");
    assert_eq!(stage.shown(), set_of(&["n1", "n2", "n3", "n4"]));
    stage.wait_for_voters(&["n2", "n3", "n4"]);
    stage.wait_until_read_from("n4");
    wait_until(DEADLINE, "it has a slot on the others, and they on it", || {
        ["n1", "n2", "n3"].iter().all(|node| stage.slots(node).contains(&"n4".into()))
            && stage.slots("n4") == ["n1", "n2", "n3"]
    });
    assert_eq!(writers.end(&stage), [""; 0]);
    assert!(crowd.end() > 0);
}

#[test]
fn a_node_is_removed_under_load_and_nobody_notices() {
    let mut stage = Stage::set(3, "quorum", &[]);
    stage.wait_for_voters(&["n2", "n3", "n4"]);
    stage.wait_until_read_from("n4");
    wait_until(DEADLINE, "everybody has slots", || {
        ["n1", "n2", "n3"].iter().all(|node| stage.slots(node).contains(&"n4".into()))
            && stage.slots("n4") == ["n1", "n2", "n3"]
    });
    let (writers, crowd) = (Writers::start(stage.proxy.port, 3), Crowd::start(stage.proxy.port, 6));
    // One that reads for a good while from the node that goes, and is let finish.
    let until_there = stage.ledger();
    let long = (0..6).map(|number| {
        let port = stage.proxy.port;
        std::thread::spawn(move || {
            let sql = format!("SELECT count(*) FROM (SELECT pg_sleep(3)) AS slept /* long={number} */");
            Login::to(port).connect().value(&sql)
        })
    });
    let long: Vec<_> = long.collect();
    wait_until(DEADLINE, "somebody reads from n4 for long", || {
        until_there.by_rest("long").values().any(|shares| shares.of("n4") > 0)
    });
    stage.write(&["n4"]);
    assert_eq!(stage.reload().unwrap(), "applied: cluster.nodes; needs a restart: nothing");
    assert_eq!(stage.shown(), set_of(&["n1", "n2", "n3"]));
    wait_until(DEADLINE, "it is in no metric", || !http_text(stage.admin, "/metrics").contains("\"n4\""));
    stage.wait_for_voters(&["n2", "n3"]);
    for client in long {
        assert_eq!(client.join().unwrap(), "1", "a read under way ends as it would have");
    }
    let after = stage.ledger();
    writers.wait_for_more();
    until_reads(stage.proxy.port, &after, "n4 gets no reads", |shares| shares.of("n4") == 0 && shares.total() > 0);
    assert_eq!(stage.slots("n4"), [""; 0], "it keeps nothing for the others");
    wait_until(DEADLINE, "nobody is connected to it any more", || {
        let others =
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        stage.sql("n4", others) == "0"
    });
    assert!(stage.slots("n1").contains(&"n4".into()), "it is in use");
    stage.cluster.node("n4").unwrap().stop(Shutdown::Fast);
    wait_until(DEADLINE, "nothing is kept for it", || {
        ["n1", "n2", "n3"].iter().all(|node| !stage.slots(node).contains(&"n4".into()))
    });
    writers.wait_for_more();
    assert_eq!(writers.end(&stage), [""; 0]);
    assert!(crowd.end() > 0);
}

fn http_text(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

#[test]
fn the_primary_is_not_removed_and_then_nothing_is_changed() {
    let mut stage = Stage::set(2, "quorum", &[]);
    stage.settings.proxy = "pool_size = 7".into();
    stage.write(&["n1"]);
    let refused = stage.reload().unwrap_err();
    let reason = "n1 cannot be removed: it is the primary of epoch 1; make another one the primary first";
    assert!(refused.contains(reason), "{refused}");
    let config = |stage: &Stage| {
        stage
            .proxy
            .psql()
            .database("pgbaton")
            .ok(&["SHOW CONFIG"])
            .lines()
            .find(|line| line.starts_with("proxy.pool_size"))
            .unwrap()
            .to_owned()
    };
    assert!(!config(&stage).contains("|7|"), "{}", config(&stage));
    // The same by the other ways.
    let said = stage.proxy.psql().database("pgbaton").refused(&["RELOAD"]);
    assert!(said.contains(reason), "{said}");
    stage.proxy.signal(Signal::HUP);
    wait_until(DEADLINE, "it is said", || stage.proxy.log().matches(reason).count() >= 3);
    assert_eq!(stage.shown(), set_of(&["n1", "n2", "n3"]));
    // A primary somewhere else, which is nowhere.
    let (from, to) = (stage.cluster.nodes()[0].port(), free_port());
    stage.write(&[]);
    let file = stage.proxy.config_file();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&format!("port = {from}"), &format!("port = {to}"))).unwrap();
    let refused = stage.reload().unwrap_err();
    assert!(refused.contains("n1 cannot be moved to another address"), "{refused}");
    Login::to(stage.proxy.port).connect().run("INSERT INTO kept VALUES (1)");
    stage.write(&["n3"]);
    assert_eq!(stage.reload().unwrap(), "applied: proxy.pool_size, cluster.nodes; needs a restart: nothing");
    assert!(config(&stage).contains("|7|"), "{}", config(&stage));
    stage.wait_for_voters(&["n2"]);
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

// --- changed in place -------------------------------------------------------------------------------------------------

#[test]
fn weight_zone_and_priority_are_changed_in_place() {
    let mut stage = Stage::set(2, "async", &[]);
    stage.wait_until_read_from("n2");
    stage.wait_until_read_from("n3");
    let port = stage.proxy.port;
    let crowd = Crowd::start(port, 3);
    stage.settings.node_lines = vec![("n3", "weight = 0".into())];
    stage.write(&[]);
    stage.proxy.signal(Signal::HUP);
    until_reads(port, &stage.ledger(), "n3 gets none", |shares| shares.of("n3") == 0 && shares.of("n2") > 0);
    wait_until(DEADLINE, "it says so", || stage.shown_node("n3")["reason"].as_str().unwrap().contains("has weight 0"));
    stage.settings.node_lines = vec![("n2", "zone = \"far\"".into()), ("n3", "zone = \"near\"".into())];
    stage.settings.sections = stage.settings.sections.replace("[reads]", "[reads]\nzone = \"near\"");
    stage.write(&[]);
    let said = stage.proxy.psql().database("pgbaton").ok(&["RELOAD"]);
    assert_eq!(said, "applied: cluster.nodes, reads.zone; needs a restart: nothing");
    until_reads(port, &stage.ledger(), "the near one gets all", |shares| shares.of("n2") == 0 && shares.of("n3") > 0);
    crowd.end();
    // n3 comes first by its priority; by its name n2 would.
    stage.settings.node_lines = vec![("n3", "priority = 200".into())];
    stage.write(&[]);
    stage.reload().unwrap();
    stage.cluster.wait_for_replicas().unwrap();
    stage.cluster.nodes()[0].stop(Shutdown::Fast);
    wait_until(DEADLINE, "n3 is the primary", || stage.picture()["primary"] == "n3");
}

#[test]
fn a_node_moves_to_another_port_under_load() {
    let mut stage = Stage::set(2, "quorum", &[]);
    stage.wait_for_voters(&["n2", "n3"]);
    stage.wait_until_read_from("n3");
    let (writers, crowd) = (Writers::start(stage.proxy.port, 3), Crowd::start(stage.proxy.port, 3));
    let before = stage.cluster.node("n3").unwrap().port();
    stage.cluster.node("n3").unwrap().stop(Shutdown::Fast);
    stage.wait_for_voters(&["n2"]);
    // Its address of before is taken by somebody who is no node.
    stage.cluster.node("n3").unwrap().start_on_a_free_port().unwrap();
    let after = stage.cluster.node("n3").unwrap().port();
    assert_ne!(before, after);
    let squatter = TcpListener::bind(("127.0.0.1", before)).unwrap();
    squatter.set_nonblocking(true).unwrap();
    stage.write(&[]);
    stage.reload().unwrap();
    stage.wait_for_voters(&["n2", "n3"]);
    stage.wait_until_read_from("n3");
    assert_eq!(stage.shown_node("n3")["port"], after);
    assert_eq!(stage.shown().len(), 3);
    // Whoever still came there has come; nobody does any more.
    while squatter.accept().is_ok() {}
    writers.wait_for_more();
    until_reads(stage.proxy.port, &stage.ledger(), "reads go on", |shares| shares.of("n3") > 0);
    assert!(squatter.accept().is_err(), "somebody still looks for it where it was");
    assert_eq!(writers.end(&stage), [""; 0]);
    crowd.end();
}

#[test]
fn two_nodes_exchange_their_addresses() {
    let stage = Stage::set(2, "quorum", &[]);
    stage.wait_for_voters(&["n2", "n3"]);
    let (writers, crowd) = (Writers::start(stage.proxy.port, 2), Crowd::start(stage.proxy.port, 3));
    let port = |id: &str| stage.cluster.node(id).unwrap().port();
    let (n2, n3) = (port("n2"), port("n3"));
    let file = stage.proxy.config_file();
    let text = std::fs::read_to_string(&file).unwrap();
    let text =
        text.replace(&format!("port = {n2}"), "port = X").replace(&format!("port = {n3}"), &format!("port = {n2}"));
    std::fs::write(&file, text.replace("port = X", &format!("port = {n3}"))).unwrap();
    stage.reload().unwrap();
    wait_until(DEADLINE, "each calls itself by its new name", || {
        let senders = "SELECT string_agg(application_name || ' ' || state, ',' ORDER BY application_name) FROM pg_stat_replication";
        let name = |id: &str| stage.sql(id, "SHOW primary_conninfo");
        stage.sql("n1", senders) == "n2 streaming,n3 streaming"
            && name("n2").contains("n3")
            && name("n3").contains("n2")
    });
    stage.wait_for_voters(&["n2", "n3"]);
    until_reads(stage.proxy.port, &stage.ledger(), "both get reads", |shares| {
        shares.of("n2") > 0 && shares.of("n3") > 0
    });
    assert_eq!((&stage.shown_node("n2")["port"], &stage.shown_node("n3")["port"]), (&n3.into(), &n2.into()));
    assert_eq!(writers.end(&stage), [""; 0]);
    crowd.end();
}

// --- together with failovers ------------------------------------------------------------------------------------------

#[test]
fn a_failover_right_after_a_removal_and_the_node_is_added_again() {
    let mut stage = Stage::set(3, "quorum", &[]);
    stage.wait_for_voters(&["n2", "n3", "n4"]);
    let writers = Writers::start(stage.proxy.port, 4);
    stage.write(&["n4"]);
    stage.reload().unwrap();
    // The voters may be on their way.
    stage.cluster.nodes()[0].stop(Shutdown::Kill);
    wait_until(DEADLINE, "there is another primary", || {
        let primary = stage.picture()["primary"].clone();
        primary == "n2" || primary == "n3"
    });
    let primary = stage.picture()["primary"].as_str().unwrap().to_owned();
    let other = if primary == "n2" { "n3" } else { "n2" };
    writers.wait_for_more();
    stage.wait_for_voters(&[other]);
    let follows = |node: &str| stage.sql(node, "SHOW primary_conninfo");
    let port = stage.cluster.node(&primary).unwrap().port();
    assert!(
        !follows("n4").contains(&format!("port={port}")) && !follows("n4").contains(&format!("port='{port}'")),
        "{}",
        follows("n4")
    );
    assert_eq!(stage.shown(), set_of(&["n1", "n2", "n3"]));
    // n1 has to stay away: it would be a primary of the past.
    stage.write(&["n1"]);
    stage.reload().unwrap();
    stage.wait_for_voters(&[other, "n4"]);
    writers.wait_for_more();
    writers.end(&stage);
}

#[test]
fn nodes_come_and_go_during_a_failover() {
    for durability in ["async", "quorum"] {
        come_and_go_during_a_failover(durability);
    }
}

fn come_and_go_during_a_failover(durability: &str) {
    let mut stage = Stage::set(3, durability, &["n4"]);
    let writers = Writers::start(stage.proxy.port, 4);
    let epoch = || http(stage.admin, "GET", "/cluster").1["epoch"].as_u64().unwrap();
    let before = epoch();
    stage.cluster.nodes()[0].stop(Shutdown::Kill);
    wait_until(DEADLINE, "a failover has begun", || epoch() > before);
    // One comes, one goes: if that one is the candidate, it is said.
    let mut refusals = Vec::new();
    stage.write(&["n3"]);
    wait_until(DEADLINE, "the nodes are changed", || match stage.reload() {
        Ok(_) => true,
        Err(reason) => {
            refusals.push(reason);
            refusals.last().unwrap().contains("is the primary of epoch")
        }
    });
    println!("{durability}, refused: {refusals:?}");
    assert!(refusals.iter().all(|reason| reason.contains("n3 cannot be removed")), "{refusals:?}");
    wait_until(DEADLINE, "there is another primary", || {
        let primary = stage.picture()["primary"].clone();
        primary == "n2" || primary == "n3"
    });
    let primary = stage.picture()["primary"].as_str().unwrap().to_owned();
    if primary == "n3" {
        stage.write(&["n2"]);
        stage.reload().unwrap();
    }
    assert_eq!(stage.shown(), set_of(&["n1", &primary, "n4"]));
    wait_until(DEADLINE, "the one that was added follows", || stage.shown_node("n4")["state"] == "running");
    let senders = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'n4' AND state = 'streaming'";
    wait_until(DEADLINE, "n4 streams", || stage.sql(&primary, senders) == "1");
    writers.wait_for_more();
    let (lost, _) = writers.end_async(&stage);
    assert!(durability == "async" || lost.is_empty(), "acknowledged and lost: {lost:?}");
}

#[test]
fn a_server_of_another_cluster_is_not_taken_in() {
    let other = support::cluster(0);
    let mut stage = Stage::set(1, "quorum", &[]);
    stage.wait_for_voters(&["n2"]);
    let node = &other.nodes()[0];
    // It lets the control user in as ours do.
    let password = format!("ALTER ROLE pgbaton PASSWORD '{}'", stage.cluster.control_password());
    node.sql(&password).unwrap();
    let section = format!("[[cluster.nodes]]\nid = \"n9\"\nhost = \"127.0.0.1\"\nport = {}\n", node.port());
    stage.settings.sections += &format!("\n{section}");
    stage.write(&[]);
    stage.reload().unwrap();
    wait_until(DEADLINE, "it says what is wrong", || {
        stage.shown_node("n9")["reason"].as_str().unwrap_or_default().starts_with("belongs to another cluster (")
    });
    let shown = stage.shown_node("n9");
    assert_eq!((&shown["state"], &shown["eligible"]), (&"unknown".into(), &false.into()), "{shown}");
    Login::to(stage.proxy.port).connect().run("INSERT INTO kept VALUES (1)");
    assert_eq!(stage.picture()["primary"], "n1");
    assert_eq!(node.sql("SHOW default_transaction_read_only").unwrap(), "off", "and is left alone");
}
