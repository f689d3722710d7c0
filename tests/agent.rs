//! `pgbaton agent` on a real PostgreSQL: what it starts and what it does not, what it is told, and what it survives.

#[path = "support/agents.rs"]
mod agents;

use agents::{Agent, Pgbaton, Responder, as_root, free_port, http, lives, signal, wait_until};
use serde_json::{Value, json};

fn is(report: &Value, server: &str) -> bool {
    report["server"]["is"] == server
}

fn reason(report: &Value) -> &str {
    report["server"]["reason"].as_str().unwrap_or_default()
}

#[test]
fn a_cluster_is_made_and_led_and_its_primary_comes_back() {
    let (port, admin) = (free_port(), free_port());
    let mut agent = Agent::new("n1", port, &[admin]);
    agent.write_config("database = \"shop\"\nnetworks = [\"10.0.0.0/8\"]\n[agent.postgres]\nwork_mem = \"5MB\"");
    agent.start();
    assert_eq!(agent.status()["data"]["is"], "absent");
    let _pgbaton = Pgbaton::start(admin, &[("n1", port)]);
    let done = agent.order(0, "make", json!({"do": "initialise"}));
    assert_eq!(done["outcome"]["is"], "well", "{done}");
    let report = agent.wait("is the leader of a record", |report| is(report, "running") && report["epoch"] == 1);
    assert_eq!((&report["data"]["is_standby"], &report["data"]["timeline"]), (&json!(false), &json!(1)));
    let asked = agent.sql(
        "SELECT current_setting('data_checksums'), current_setting('wal_log_hints'), \
                           current_setting('work_mem'), current_setting('wal_receiver_timeout'), \
                           (SELECT count(*) FROM pg_database WHERE datname = 'shop'), current_setting('cluster_name'), \
                           (SELECT count(*) > 0 FROM pg_settings WHERE sourcefile LIKE '%/postgresql.conf')",
    );
    assert_eq!(asked, "on|on|5MB|5s|1|n1|t");
    let again = agent.order(1, "again", json!({"do": "initialise"}));
    assert_eq!(
        (&again["outcome"]["is"], &again["outcome"]["code"]),
        (&json!("failed"), &json!("impossible")),
        "{again}"
    );
    assert!(!agent.log().contains(agents::PASSWORD));
    assert!(!std::fs::read_to_string(agent.beside("postgres.log")).unwrap().contains(agents::PASSWORD));

    // A setting that counts at once, and one that waits.
    agent.write_config("[agent.postgres]\nwork_mem = \"6MB\"\nmax_connections = 77");
    signal(agent.pid(), "HUP");
    wait_until("the setting counts", || agent.sql("SHOW work_mem") == "6MB");
    let done = agent.order(1, "configure", json!({"do": "configure"}));
    assert_eq!(done["outcome"]["why"], "these wait for a restart: max_connections", "{done}");
    let done = agent.order(1, "restart", json!({"do": "restart", "how": "fast"}));
    assert_eq!(done["outcome"]["is"], "well", "{done}");
    assert_eq!(agent.sql("SHOW max_connections"), "77");

    let postmaster = agent.postmaster();
    signal(postmaster, "KILL");
    agent.wait("the primary is back", |report| is(report, "running") && agent.postmaster() != postmaster);
    wait_until("it has an epoch of its own again", || agent.status()["epoch"].as_u64() > Some(1));
}

#[test]
fn a_standby_needs_nobody_and_outlives_its_agent() {
    let mut agent = Agent::with_data("n2", &[free_port()], true);
    agent.start();
    agent.wait("the standby runs", |report| is(report, "running"));
    for _ in 0..2 {
        let postmaster = agent.postmaster();
        signal(postmaster, "KILL");
        agent.wait("it is back", |report| is(report, "running") && agent.postmaster() != postmaster);
    }
    let postmaster = agent.postmaster();
    agent.kill();
    assert!(lives(postmaster));
    agent.start();
    agent.wait("it is taken over", |report| is(report, "running"));
    assert_eq!(agent.postmaster(), postmaster, "PostgreSQL was not restarted");
    assert!(agent.log().contains("runs already"));
    // One that is no child of this agent is told to stop like any other, and its death is seen.
    signal(postmaster, "KILL");
    agent.wait("it is back", |report| is(report, "running") && agent.postmaster() != postmaster);
    agent.kill();
    agent.start();
    agent.wait("it is taken over", |report| is(report, "running"));

    let second = agent.another();
    assert!(second.contains("another agent looks after"), "{second}");

    let postmaster = agent.postmaster();
    signal(agent.pid(), "TERM");
    assert_eq!(agent.exit(), Some(0));
    assert!(!lives(postmaster));
    assert_eq!(agent.cluster_state(), "shut down in recovery");
    // That was no order: the next agent starts it.
    agent.start();
    agent.wait("it runs", |report| is(report, "running"));
}

#[test]
fn a_primary_starts_only_as_the_leader_of_the_newest_record() {
    let (one, two) = (Responder::start(), Responder::start());
    let mut agent = Agent::with_data("n1", &[one.port(), two.port()], false);
    one.say(None);
    two.say(None);
    agent.start();
    agent.wait("nobody answers", |report| reason(report).contains("no pgbaton can be asked"));

    // There is no record at all, and there never was.
    one.say(Some((None, None)));
    agent.wait("it starts", |report| is(report, "running"));
    // The record is taken note of while it runs, also from the one that knows more.
    one.say(Some((Some(3), Some("n1"))));
    two.say(Some((Some(4), Some("n2"))));
    agent.wait("it has heard of epoch 4", |report| report["epoch"] == 4);
    let postmaster = agent.postmaster();
    signal(postmaster, "KILL");
    let report = agent.wait("it waits", |report| is(report, "waiting") && reason(report).contains("rejoin"));
    assert!(reason(&report).contains("n2 is the primary of epoch 4"), "{report}");
    // The one that knows more is away: an older record does not count.
    two.say(None);
    agent.wait("it waits", |report| reason(report).contains("of epoch 3, and this node knows epoch 4"));
    let done = agent.order(4, "a", json!({"do": "start"}));
    assert_eq!(done["outcome"]["code"], "not_primary", "{done}");
    // The record is lost.
    one.say(Some((None, None)));
    agent.wait("it waits", |report| reason(report).contains("it waits for an order to start"));
    agent.kill();
    agent.start();
    agent.wait("still", |report| reason(report).contains("it waits for an order to start"));
    let done = agent.order(4, "b", json!({"do": "start"}));
    assert_eq!(done["outcome"]["is"], "well", "{done}");
    assert!(is(&agent.status(), "running"));
    // The record is back, and it is the leader.
    one.say(Some((Some(5), Some("n1"))));
    let postmaster = agent.postmaster();
    signal(postmaster, "KILL");
    agent.wait("it is back", |report| is(report, "running") && agent.postmaster() != postmaster);
}

#[test]
fn orders_are_taken_once_in_order_and_from_those_who_may() {
    let mut agent = Agent::with_data("n2", &[free_port()], true);
    agent.start();
    agent.wait("it runs", |report| is(report, "running"));
    let stop = json!({"epoch": 7, "id": "stop", "task": {"do": "stop", "how": "fast"}}).to_string();
    let ask = |token: Option<&str>, kind: &str, path: &str, body: &str| http(agent.port, token, kind, path, body);
    let json = "application/json";
    let code = |body: &str| serde_json::from_str::<Value>(body).unwrap()["error"]["code"].clone();
    for token in [None, Some("wrong"), Some("")] {
        for (path, body) in [("/status", ""), ("/actions", &*stop)] {
            let (status, said) = ask(token, json, path, body);
            assert_eq!((status, code(&said)), (401, json!("token_required")), "{path}");
        }
    }
    let (status, body) = ask(None, "", "/health", "");
    assert_eq!((status, body.as_str()), (200, r#"{"server":{"is":"running"},"status":"live"}"#));
    let token = Some(agents::TOKEN);
    let long = json!({"epoch": 7, "id": "x".repeat(101), "task": {"do": "start"}}).to_string();
    for (expected, kind, path, body) in [
        (415, "text/plain", "/actions", &*stop),
        (400, json, "/actions", "{"),
        (422, json, "/actions", r#"{"epoch":7,"id":"x","task":{"do":"promote"}}"#),
        (422, json, "/actions", r#"{"epoch":7,"id":"x","task":{"do":"start"},"more":1}"#),
        (400, json, "/actions", &*long),
        (413, json, "/actions", &"x".repeat(100_000)),
        (404, json, "/promote", "{}"),
        (405, json, "/status", "{}"),
        (405, json, "/actions", ""),
    ] {
        let (status, said) = ask(token, kind, path, body);
        assert_eq!(status, expected, "{path}: {said}");
        assert!(code(&said).is_string(), "{said}");
    }
    assert!(is(&agent.status(), "running"), "none of them did anything");

    let postmaster = agent.postmaster();
    let (status, _) = ask(token, json, "/actions", &stop);
    assert_eq!(status, 202);
    agent.wait("it is stopped", |report| report["done"]["id"] == "stop");
    assert!(!lives(postmaster) && is(&agent.status(), "stopped"));
    let (status, said) = ask(token, json, "/actions", &stop);
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["done"]["outcome"]["is"], "well");
    let (status, said) = ask(token, json, "/actions", &stop.replace("\"epoch\":7", "\"epoch\":6"));
    assert_eq!((status, code(&said)), (409, json!("stale")));

    // Stopped by an order is stopped, for the next agent too; and what it knew it knows.
    agent.kill();
    agent.start();
    let report = agent.status();
    assert!(is(&report, "stopped") && report["epoch"] == 7, "{report}");
    assert_eq!(report["done"]["id"], "stop");
    let done = agent.order(8, "start", json!({"do": "start"}));
    assert_eq!(done["outcome"]["is"], "well");
    assert!(is(&agent.status(), "running"));
}

#[test]
fn a_newer_order_takes_the_place_of_one_under_way() {
    let mut agent = Agent::with_data("n2", &[free_port()], true);
    // A standby that needs what it does not have never accepts connections.
    agent.damage_start();
    agent.start();
    agent.wait("it starts", |report| is(report, "starting"));
    agent.post(3, "first", json!({"do": "start"}));
    agent.wait("the order is under way", |report| report["doing"]["id"] == "first");
    let (status, said) = agent.post(3, "second", json!({"do": "start"}));
    assert_eq!(status, 409, "{said}");
    assert!(said.contains("\"busy\""), "{said}");
    agent.post(4, "third", json!({"do": "start"}));
    agent.wait("the next is under way", |report| {
        report["doing"]["id"] == "third" && report["done"]["outcome"]["code"] == "replaced"
    });
    // To stop it is never to wait.
    let done = agent.order(4, "fourth", json!({"do": "stop", "how": "immediate"}));
    assert_eq!(done["outcome"]["is"], "well", "{done}");
    assert!(is(&agent.status(), "stopped"));
}

#[test]
fn a_taken_port_is_said_and_waited_for() {
    let mut agent = Agent::with_data("n2", &[free_port()], true);
    let taken = std::net::TcpListener::bind(("127.0.0.1", agent.postgres_port)).unwrap();
    agent.start();
    let report = agent.wait("it waits", |report| reason(report).contains("is taken"));
    assert!(
        report["trouble"].as_str().unwrap().contains(&format!("port {} is taken", agent.postgres_port)),
        "{report}"
    );
    let done = agent.order(1, "a", json!({"do": "start"}));
    assert_eq!(done["outcome"]["code"], "port_taken", "{done}");
    drop(taken);
    agent.wait("it runs, and nothing is wrong", |report| is(report, "running") && report["trouble"] == "");
}

#[test]
fn what_is_no_data_of_postgresqls_is_left_alone() {
    let mut agent = Agent::new("n1", free_port(), &[free_port()]);
    std::fs::create_dir(agent.data_dir()).unwrap();
    std::fs::write(agent.data_dir().join("letter"), "dear").unwrap();
    agent.write_config("");
    agent.start();
    agent.wait("it says why", |report| reason(report).contains("is no data directory of PostgreSQL's"));
    for (id, task) in [("a", "initialise"), ("b", "start")] {
        let done = agent.order(1, id, json!({"do": task}));
        assert_eq!(done["outcome"]["code"], "impossible", "{done}");
    }
    assert_eq!(std::fs::read_to_string(agent.data_dir().join("letter")).unwrap(), "dear");
    assert_eq!(std::fs::read_dir(agent.data_dir()).unwrap().count(), 1);
}

#[test]
fn a_half_made_cluster_is_made_anew() {
    let mut agent = Agent::new("n1", free_port(), &[free_port()]);
    agent.write_config("");
    agent.start();
    // Once while initdb is at work, once while the roles are made.
    for (at, id) in [("(initdb)", "make"), ("making the roles", "once more")] {
        agent.post(0, id, json!({"do": "initialise"}));
        agent.wait("there is something half made", |report| {
            let step = report["doing"]["step"].as_str().unwrap_or_default();
            step.contains(at) && agent.data_dir().join("postmaster.pid").exists()
        });
        agent.kill();
        agent.start();
        agent.wait("it is forgotten", |report| report["data"]["is"] == "absent");
    }
    assert!(agents::those_in(&agent.data_dir()).is_empty(), "its server is gone");
    let done = agent.order(0, "again", json!({"do": "initialise"}));
    // No pgbaton is there to say that it may lead.
    assert_eq!(done["outcome"]["code"], "not_primary", "{done}");
    assert_eq!(agent.status()["data"]["is_clean"], true);
}

#[test]
fn a_frozen_server_is_stopped() {
    let responder = Responder::start();
    responder.say(Some((None, None)));
    let mut agent = Agent::with_data("n1", &[responder.port()], false);
    agent.start();
    agent.wait("it runs", |report| is(report, "running"));
    agent.sql("CREATE TABLE t AS SELECT generate_series(1, 1000)");
    agents::freeze(&agent.data_dir());
    let done = agent.order(1, "stop", json!({"do": "stop", "how": "fast"}));
    assert_eq!(done["outcome"]["is"], "well", "{done}");
    assert!(agents::those_in(&agent.data_dir()).is_empty());
    assert_eq!(agent.cluster_state(), "shut down");
    // Where the log ends is where pg_waldump finds no further record.
    assert_eq!(done["outcome"]["end"].as_str(), agent.end_of_log().as_deref(), "{done}");
}

#[test]
fn as_process_one_it_buries_the_dead_and_its_agent_may_be_killed() {
    if !as_root() {
        return;
    }
    let mut agent = Agent::with_data("n2", &[free_port()], true);
    agent.start_in(&["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    agent.wait("it runs", |report| is(report, "running"));
    let first = agents::children(agent.pid())[0];
    let [inner] = agents::children(first)[..] else { panic!("process 1 has one child, the agent") };
    let mut before = agents::those_in(&agent.data_dir());
    // Their postmaster dead, its children become those of process 1.
    let postmaster = agents::children(inner)[0];
    signal(postmaster, "KILL");
    wait_until("new processes", || {
        let now = agents::those_in(&agent.data_dir());
        !now.is_empty() && now.iter().all(|pid| !before.contains(pid))
    });
    agent.wait("it is back", |report| is(report, "running"));
    wait_until("the dead are buried", || agents::dead_children(first).is_empty());
    before = agents::those_in(&agent.data_dir());
    signal(inner, "KILL");
    wait_until("there is another agent", || agents::children(first).iter().any(|pid| agents::name(*pid) == "pgbaton"));
    agent.wait("it is taken over", |report| is(report, "running"));
    assert!(before.iter().all(|pid| lives(*pid)), "PostgreSQL has run on");
    signal(first, "TERM");
    assert_eq!(agent.exit(), Some(0));
    assert_eq!(agent.cluster_state(), "shut down in recovery");
}

#[test]
fn a_full_disk_does_not_keep_it_from_stopping_the_server() {
    if !as_root() {
        return;
    }
    let mut agent = Agent::with_data("n2", &[free_port()], true);
    let beside = agent.beside("");
    std::fs::create_dir(&beside).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=64k,mode=0755 tmpfs {0} && echo '{{\"format\":1,\"epoch\":2,\"record\":2,\"is_stopped\":false,\
         \"done\":null}}' > {0}/state.json && cat /dev/zero > {0}/fill 2>/dev/null; exec \"$@\"",
        beside.display()
    );
    agent.start_in(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    agent.wait("it runs", |report| is(report, "running"));
    let done = agent.order(3, "stop", json!({"do": "stop", "how": "fast"}));
    assert_eq!(done["outcome"]["is"], "well", "{done}");
    let report = agent.status();
    assert!(is(&report, "stopped") && report["epoch"] == 3, "{report}");
    assert!(report["trouble"].as_str().unwrap().contains("state.json: No space left"), "{report}");
    let inside = format!("/proc/{}/root{}", agent.pid(), beside.display());
    let state = || serde_json::from_slice::<Value>(&std::fs::read(format!("{inside}/state.json")).unwrap()).unwrap();
    assert_eq!(state()["epoch"], 2, "as it was");
    std::fs::remove_file(format!("{inside}/fill")).unwrap();
    agent.wait("the disk has room again", |report| report["trouble"] == "");
    assert_eq!((&state()["epoch"], &state()["is_stopped"]), (&json!(3), &json!(true)));
}

#[test]
fn mistakes_in_the_file_are_said_before_anything_is_touched() {
    let agent = Agent::new("n1", free_port(), &[free_port()]);
    for (lines, complaint) in [
        ("bin_dir = \"/tmp\"", "agent.bin_dir: /tmp has no postgres"),
        ("socket_dir = \"/nowhere\"", "agent.socket_dir: cannot read /nowhere"),
        ("control_password_file = \"/etc/passwd\"", "can be read by everybody"),
        ("[agent.postgres]\nport = 1", "agent.postgres.port: cannot be set here"),
    ] {
        agent.write_config(lines);
        for verb in [&["agent"][..], &["config", "check"]] {
            let said = agent.refused(verb);
            assert!(said.contains(complaint), "{verb:?} {lines}: {said}");
        }
    }
    assert!(!agent.data_dir().exists() && !agent.beside("").exists());
}
