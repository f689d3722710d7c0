//! An operator's orders and their refusals: the same sentence on the command line, over HTTP and in the console.

use crate::client::Api;
use crate::support::{self, DEADLINE, Proxy, ProxySettings, wait_until};
use crate::typed::typed;
use crate::{Alone, TOKEN, turn};

/// An order in each of the three ways.
struct Way {
    verb: &'static [&'static str],
    path: &'static str,
    body: &'static str,
    command: &'static str,
}

const fn way(verb: &'static [&'static str], path: &'static str, body: &'static str, command: &'static str) -> Way {
    Way { verb, path, body, command }
}

/// Refused all three ways, with a sentence that has this, and that status.
#[track_caller]
fn refused(alone: &Alone, way: &Way, says: &str, status: u16) {
    let verb = typed(&alone.api.url(), Some(TOKEN), way.verb);
    assert_eq!((verb.code, &*verb.stdout), (Some(1), ""), "{:?}", way.verb);
    assert!(verb.stderr.starts_with("pgbaton: ") && verb.stderr.contains(says), "{:?}: {}", way.verb, verb.stderr);
    let answer = alone.api.order(way.path, way.body);
    assert_eq!(answer.refusal().0, status, "{}: {answer:?}", way.path);
    assert!(answer.message().contains(says), "{}: {answer:?}", way.path);
    if !way.command.is_empty() {
        let console = alone.console().refused(&[way.command]);
        assert!(console.contains("55000: ") && console.contains(says), "{}: {console}", way.command);
    }
}

#[test]
fn what_makes_no_sense_as_things_are_is_refused_in_the_same_words() {
    let alone = Alone::with_token();
    let of_n9 = [
        way(&["switchover", "--to", "n9"], "/switchover", r#"{"to":"n9"}"#, "SWITCHOVER TO n9"),
        way(&["failover", "--to", "n9"], "/failover", r#"{"to":"n9"}"#, "FAILOVER TO n9"),
        way(&["maintenance", "n9", "on"], "/nodes/n9/maintenance", r#"{"on":true}"#, "MAINTENANCE n9 ON"),
        way(&["rejoin", "n9"], "/nodes/n9/rejoin", "{}", "REJOIN n9"),
        way(&["rebuild", "n9"], "/nodes/n9/rebuild", "{}", "REBUILD n9"),
        way(&["restart", "n9"], "/nodes/n9/restart", "{}", "RESTART n9"),
    ];
    for order in &of_n9 {
        refused(&alone, order, "n9 is not in the configuration", 404);
    }
    let of_the_primary = [
        way(&["switchover", "--to", "n1"], "/switchover", r#"{"to":"n1"}"#, "SWITCHOVER TO n1"),
        way(&["maintenance", "n1", "on"], "/nodes/n1/maintenance", r#"{"on":true}"#, "MAINTENANCE n1 ON"),
        way(&["rejoin", "n1"], "/nodes/n1/rejoin", "", "REJOIN n1"),
        way(&["rebuild", "n1"], "/nodes/n1/rebuild", "{}", "REBUILD n1"),
    ];
    for order in &of_the_primary {
        refused(&alone, order, "n1 is the primary", 409);
    }
    let failover = way(&["failover", "--to", "n1"], "/failover", r#"{"to":"n1"}"#, "FAILOVER TO n1");
    refused(&alone, &failover, "n1 is a primary", 409);
    let of_an_agent = [
        way(&["rejoin", "n2"], "/nodes/n2/rejoin", "{}", "REJOIN n2"),
        way(&["rebuild", "n2", "--wait"], "/nodes/n2/rebuild", "{}", "REBUILD n2"),
        way(&["restart", "n2"], "/nodes/n2/restart", "{}", "RESTART n2"),
    ];
    for order in &of_an_agent {
        refused(&alone, order, "agent", 409);
    }
}

#[test]
fn a_pause_forbids_a_switchover_and_is_seen_everywhere() {
    let alone = Alone::with_token();
    let api = &alone.api;
    let switchover = way(&["switchover"], "/switchover", "{}", "SWITCHOVER");
    assert_eq!(api.order("/pause", "{}").json()["done"], "paused: no change of primary until resumed");
    refused(&alone, &switchover, "paused: no change of primary until resumed", 409);
    assert_eq!(api.get("/cluster").json()["paused"], true);
    let resumed = typed(&api.url(), Some(TOKEN), &["resume"]);
    assert_eq!((resumed.code, &*resumed.stdout), (Some(0), "resumed"));
    assert_eq!(alone.console().ok(&["PAUSE"]), "paused: no change of primary until resumed");
    assert!(typed(&api.url(), None, &["list"]).stdout.lines().next().unwrap().ends_with("PAUSED"));
    assert_eq!(alone.console().ok(&["RESUME"]), "resumed");
}

#[test]
fn a_node_in_maintenance_serves_nothing_and_takes_over_nothing() {
    let alone = Alone::with_token();
    let api = &alone.api;
    assert_eq!(api.order("/nodes/n2/maintenance", r#"{"on":true}"#).json()["done"], "n2 is in maintenance");
    wait_until(DEADLINE, "it serves no reads", || api.get("/nodes/n2/replica").status == 503);
    assert_eq!(api.get("/replica").refusal(), (503, "no_replica".into()));
    let failover = way(&["failover", "--to", "n2"], "/failover", r#"{"to":"n2"}"#, "FAILOVER TO n2");
    refused(&alone, &failover, "n2 is in maintenance", 409);
    let off = typed(&api.url(), Some(TOKEN), &["maintenance", "n2", "off"]);
    assert_eq!((off.code, &*off.stdout), (Some(0), "n2 is in use again"));
    wait_until(DEADLINE, "it serves again", || api.get("/nodes/n2/replica").status == 200);
}

#[test]
fn the_console_tells_looking_from_ordering() {
    let alone = Alone::with_token();
    let primary = support::shared_cluster().primary().unwrap();
    primary
        .sql(
            "CREATE ROLE api_looker LOGIN PASSWORD 'look' IN ROLE pg_monitor; \
             CREATE ROLE api_nobody LOGIN PASSWORD 'look'; \
             DO $$ BEGIN CREATE ROLE pgbaton_admin NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; \
             CREATE ROLE api_admin LOGIN PASSWORD 'look' IN ROLE pgbaton_admin",
        )
        .unwrap();
    alone.proxy.psql().ok(&["SELECT 1"]);
    let looker = alone.console().user("api_looker", Some("look"));
    for command in crate::whole::SHOWN {
        looker.ok(&[command]);
    }
    for command in crate::whole::ORDERED {
        let refused = looker.refused(&[command]);
        assert!(refused.contains("42501") && refused.contains("pgbaton_admin"), "{command}: {refused}");
    }
    let nobody = alone.console().user("api_nobody", Some("look")).refused(&["SHOW NODES"]);
    assert!(nobody.contains("permission denied for the console") && nobody.contains("pg_monitor"), "{nobody}");
    let admin = alone.console().user("api_admin", Some("look"));
    assert_eq!(admin.ok(&["RESUME"]), "resumed");
    for wrong in ["SWITCHOVER n2", "FAILOVER", "REJOIN", "MAINTENANCE n2", "SHOW EVERYTHING", "KILL me"] {
        let refused = admin.refused(&[wrong]);
        assert!(refused.contains("42601") || refused.contains("22P02"), "{wrong}: {refused}");
    }
    assert!(admin.refused(&["KILL 4000000000"]).contains("42704"));
}

/// A failover that would lose commits is refused, and is one that people may order all the same; the history has who did.
#[test]
fn a_node_that_lacks_commits_is_promoted_only_when_that_is_allowed() {
    let _turn = turn();
    let cluster = support::cluster(1);
    let settings = ProxySettings {
        admin: "127.0.0.1:0".into(),
        cluster: "max_lost_bytes = \"1KiB\"".into(),
        ..Default::default()
    };
    let proxy = support::InProcess::start(&cluster, &settings);
    let api = Api::new(proxy.admin(), None);
    wait_until(DEADLINE, "the replica serves", || api.get("/replica").status == 200);
    let (n1, n2) = (cluster.node("n1").unwrap(), cluster.node("n2").unwrap());
    // It can be asked, and receives nothing.
    n2.set("primary_conninfo", "host=127.0.0.1 port=1").unwrap();
    wait_until(DEADLINE, "nothing is received", || n1.sql("SELECT count(*) FROM pg_stat_replication").unwrap() == "0");
    n1.sql("CREATE TABLE lost AS SELECT repeat('x', 100) FROM generate_series(1, 3000)").unwrap();
    wait_until(DEADLINE, "it is seen to be behind", || {
        api.get("/cluster").json()["nodes"][1]["lag_bytes"].as_u64().is_some_and(|bytes| bytes > 300_000)
    });
    let refused = typed(&api.url(), None, &["failover", "--to", "n2"]);
    assert_eq!((refused.code, &*refused.stdout), (Some(1), ""));
    assert!(
        refused.stderr.contains("n2 lacks ") && refused.stderr.contains("more than cluster.max_lost_bytes"),
        "{}",
        refused.stderr
    );
    wait_until(DEADLINE, "the old one goes on", || api.get("/nodes/n1/primary").status == 200);
    let refused = api.order("/failover", r#"{"to":"n2"}"#);
    assert_eq!(refused.refusal(), (409, "refused".into()));
    wait_until(DEADLINE, "the old one goes on", || api.get("/nodes/n1/primary").status == 200);

    let done = typed(&api.url(), None, &["failover", "--to", "n2", "--allow-data-loss", "--json"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let epoch: u64 = done.json()["done"].as_str().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    let history = || api.get("/history").json();
    let entry = || {
        let history = history();
        let entries = history["entries"].as_array().unwrap().clone();
        entries.into_iter().find(|entry| entry["what"] == "epoch" && entry["epoch"] == epoch)
    };
    wait_until(DEADLINE, "the history has it", || entry().is_some());
    let by = entry().unwrap()["by"].as_str().unwrap().to_owned();
    assert!(by.starts_with("pgbaton/") && by.contains('@') && by.ends_with("(HTTP)"), "{by}");
    assert!(entry().unwrap()["known_loss_bytes"].as_u64().unwrap() > 300_000);
}

#[test]
fn the_log_has_a_line_for_each_order_with_who_and_what_came_of_it() {
    let _turn = turn();
    let cluster = support::shared_cluster();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let admin = format!("{free}\"\ntoken = \"{TOKEN}");
    let proxy = Proxy::start(cluster, &ProxySettings { admin, ..Default::default() });
    let api = Api::new(free, Some(TOKEN));
    wait_until(DEADLINE, "it takes writes", || api.get("/primary").status == 200);
    let line = |parts: &[&str]| {
        wait_until(DEADLINE, &format!("a line has {parts:?}"), || {
            proxy.log().lines().any(|line| parts.iter().all(|part| line.contains(part)))
        });
    };
    assert_eq!(typed(&api.url(), Some(TOKEN), &["pause"]).code, Some(0));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    line(&["by=pgbaton/", &format!("@{host}) from 127.0.0.1:"), "(HTTP)", "order=\"pause\"", "outcome=\"done\""]);
    proxy.psql().database("pgbaton").refused(&["SWITCHOVER TO n2"]);
    line(&["by=demo from ", "(console)", "switchover --to n2", "outcome=\"refused\"", "paused"]);
    let json =
        format!("Content-Type: application/json\r\nAuthorization: Bearer {TOKEN}\r\nUser-Agent: my script/1\r\n");
    assert_eq!(api.send("POST", "/resume", &json, Some("{}")).status, 200);
    line(&["by=my script/1 from ", "order=\"resume\""]);
    proxy.signal(rustix::process::Signal::HUP);
    line(&["by=SIGHUP from ", "(signal)", "order=\"reload\"", "outcome=\"done\""]);
    for _ in 0..50 {
        let wrong = "Content-Type: application/json\r\nAuthorization: Bearer guess\r\nUser-Agent: guesser\r\n";
        assert_eq!(api.send("POST", "/pause", wrong, Some("{}")).status, 401);
    }
    line(&["by=guesser from ", "order=\"/pause\"", "without the token"]);
    let log = proxy.log();
    let lines = log.lines().filter(|line| line.contains("without the token")).count();
    assert!(lines < 10, "fifty guesses are {lines} lines");
    assert!(!log.contains(TOKEN) && !log.contains("guess\""), "no token is logged, right or wrong:\n{log}");
}
