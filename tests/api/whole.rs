//! Nothing is left out: every route, verb and command of the console is described and tried, and the long ones are tried where there
//! are agents to carry them out.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pgbaton::admin::{console, openapi};
use serde_json::Value;

use crate::client::Api;
use crate::typed::{BINARY, on_a_terminal, typed};
use crate::{Alone, support, turn};

/// Commands of the console that look, each as it is tried.
pub const SHOWN: [&str; 19] = [
    "SHOW NODES",
    "SHOW LAG",
    "SHOW POOLS",
    "SHOW POOLS BY NODE",
    "SHOW DATABASES",
    "SHOW USERS",
    "SHOW LISTS",
    "SHOW STATS_TOTALS",
    "SHOW STATS_AVERAGES",
    "SHOW TOTALS",
    "SHOW SERVERS",
    "SHOW CLIENTS",
    "SHOW STATS",
    "SHOW ROUTES",
    "SHOW HISTORY",
    "SHOW CONFIG",
    "SHOW VERSION",
    "SHOW HELP",
    "EXPLAIN ROUTE IN demo SELECT 1",
];

/// And those that act.
pub const ORDERED: [&str; 10] = [
    "RELOAD",
    "KILL 1",
    "SWITCHOVER TO n2",
    "FAILOVER TO n2",
    "PAUSE",
    "RESUME",
    "MAINTENANCE n2 ON",
    "REJOIN n2",
    "REBUILD n2",
    "RESTART n2",
];

/// Verbs, each with the suite that tries it.
const VERBS: [(&str, &str); 21] = [
    ("serve", "api"),
    ("agent", "agent"),
    ("demo", "demo"),
    ("drill", "drill"),
    ("doctor", "doctor"),
    ("list", "api"),
    ("explain", "explain"),
    ("history", "api"),
    ("availability", "api"),
    ("migrate", "api"),
    ("switchover", "api"),
    ("failover", "api"),
    ("pause", "api"),
    ("resume", "api"),
    ("maintenance", "api"),
    ("rejoin", "api"),
    ("rebuild", "api"),
    ("restart", "api"),
    ("config", "api"),
    ("completions", "api"),
    ("man", "api"),
];

/// The two words a command begins with, where the second is none to fill in.
fn stem(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().take(if command.starts_with("SHOW") { 2 } else { 1 }).collect();
    words.join(" ")
}

#[test]
fn every_command_of_the_console_and_every_verb_is_one_that_is_tried() {
    let tried: BTreeSet<String> = SHOWN.iter().chain(&ORDERED).map(|command| stem(command)).collect();
    for (command, _) in console::HELP {
        assert!(tried.contains(&stem(command)), "{command} is tried nowhere: see SHOWN and ORDERED");
    }
    for verb in pgbaton::cli::verbs() {
        assert!(VERBS.iter().any(|(tried, _)| *tried == verb), "{verb} is tried nowhere: see VERBS");
    }
}

/// The paths that stand in the source as routes.
fn routes() -> BTreeSet<String> {
    let mut left = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin")];
    let mut found = BTreeSet::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let after = text.split(".route(").skip(1).map(str::trim_start);
            found.extend(after.filter_map(|rest| Some(rest.strip_prefix('"')?.split('"').next()?.to_owned())));
        }
    }
    found
}

#[test]
fn every_route_is_described_and_what_is_described_is_there() {
    let routes = routes();
    assert!(routes.len() > 30, "{routes:?}");
    let description = openapi::document(false);
    let described: BTreeSet<String> = description["paths"].as_object().unwrap().keys().cloned().collect();
    let missing: Vec<_> = routes.difference(&described).collect();
    assert!(missing.is_empty(), "without an entry in src/admin/openapi.rs: {missing:?}");

    let alone = Alone::without_token();
    alone.proxy.psql().ok(&["SELECT 1"]);
    for (path, operations) in description["paths"].as_object().unwrap() {
        // What is routed elsewhere, or does not end.
        if !routes.contains(path) || path == "/events" {
            continue;
        }
        let filled = path.replace("{id}", "n2").replace("{file}", "app.js");
        for method in operations.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let filled = if path == "/explain" { format!("{filled}?sql=SELECT+1") } else { filled.clone() };
            // As no form would be sent: it is there, and nothing happens.
            let body = (method == "POST").then_some("{}");
            let answer = alone.api.send(&method, &filled, "", body);
            let is_there = if method == "POST" { answer.status == 415 } else { matches!(answer.status, 200 | 503) };
            assert!(is_there, "{method} {filled}: {answer:?}");
        }
    }
}

#[test]
fn the_description_is_whole_in_itself() {
    let description = openapi::document(true);
    assert_eq!(description["openapi"], "3.1.0");
    let text = description.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(description.pointer(pointer).is_some(), "{pointer}");
    }
    let mut ids = BTreeSet::new();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(ids.insert(operation["operationId"].to_string()), "{path} {method}: {}", operation["operationId"]);
            let is_guarded = method == "post" || path == "/doctor";
            assert_eq!(operation["security"].is_array(), is_guarded, "{path} {method}");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            assert_eq!(parameters.iter().any(|its| its["in"] == "path"), path.contains('{'), "{path}");
        }
    }
}

/// `pgbaton demo`: three nodes with their agents. Ended when dropped.
struct Demo {
    child: Child,
    api: Api,
}

impl Demo {
    fn start() -> Demo {
        let mut command = Command::new(BINARY);
        command.args(["demo", "--replicas", "1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut admin = None;
        for line in lines.map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("admin          http://") {
                admin = rest.split(['/', ' ']).next().and_then(|address| address.parse().ok());
            }
            if line.trim_start().starts_with("Ctrl-C") {
                break;
            }
        }
        let api = Api::new(admin.expect("the demo says where its endpoint is"), None);
        Demo { child, api }
    }

    fn node(&self, id: &str) -> Value {
        let cluster = self.api.get("/cluster").json();
        cluster["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).cloned().unwrap()
    }

    #[track_caller]
    fn wait_until_votes(&self, id: &str) {
        // A look that failed while it was restarted counts until the next one.
        support::wait_until(Duration::from_secs(60), "it votes and could take over", || {
            self.api.get("/cluster").json()["voters"] == serde_json::json!([id])
                && self.node(id)["not_promotable"].is_null()
        });
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        support::send(self.child.id(), rustix::process::Signal::INT);
        support::wait_for_end(&mut self.child, support::DEADLINE);
    }
}

#[test]
fn long_orders_say_on_a_terminal_how_far_they_are_and_wait_where_told_to() {
    let _turn = turn();
    let demo = Demo::start();
    let admin = demo.api.url();
    demo.wait_until_votes("n2");

    // What is a standby already is left alone.
    let refused = typed(&admin, None, &["rejoin", "n2", "--wait"]);
    assert_eq!((refused.code, &*refused.stdout), (Some(1), ""));
    assert!(refused.stderr.contains("n2 is a standby of n1 already"), "{}", refused.stderr);

    let begun = Instant::now();
    let rebuilt = on_a_terminal(&admin, &[], "rebuild n2 --wait");
    assert_eq!(rebuilt.code, Some(0), "{}", rebuilt.stdout);
    let shown = &rebuilt.stdout;
    assert!(shown.contains("n2 is a standby of n1 again (rebuild, "), "{shown:?}");
    assert!(shown.contains(" s  ") && shown.contains("n2: "), "it says how far it is: {shown:?}");
    assert!(
        shown.lines().last().unwrap().contains("\u{1b}[Kn2 is a standby"),
        "and that is gone at the end: {shown:?}"
    );
    let node = demo.node("n2");
    assert_eq!((&node["role"], &node["state"]), (&"replica".into(), &"running".into()), "{:?}", begun.elapsed());

    // Without a terminal, or when it is to be quiet, there is the result and nothing else.
    let restarted = typed(&admin, None, &["restart", "n2"]);
    assert_eq!((restarted.code, &*restarted.stderr), (Some(0), ""), "{}", restarted.stderr);
    demo.wait_until_votes("n2");
    let quiet = on_a_terminal(&admin, &[], "switchover --quiet");
    assert_eq!(quiet.code, Some(0), "{}", quiet.stdout);
    assert!(!quiet.stdout.contains('\u{1b}') && quiet.stdout.contains("n2 takes writes"), "{:?}", quiet.stdout);
    demo.wait_until_votes("n1");
    let loud = on_a_terminal(&admin, &[], "switchover --to n1");
    assert_eq!(loud.code, Some(0), "{}", loud.stdout);
    assert!(loud.stdout.contains(" s  ") && loud.stdout.contains("n1 takes writes"), "{:?}", loud.stdout);

    support::wait_until(support::DEADLINE, "the history has it", || {
        demo.api.get("/history").json()["entries"].as_array().unwrap().iter().any(|entry| {
            entry["kind"] == "switchover"
                && entry["to"] == "n1"
                && entry["by"].as_str().is_some_and(|by| by.contains('@'))
        })
    });
    let repairs = demo.api.get("/history").json();
    let repairs: Vec<_> =
        repairs["entries"].as_array().unwrap().iter().filter(|entry| entry["what"] == "repair").collect();
    assert!(repairs.iter().any(|entry| entry["repair"] == "rebuild" && entry["node"] == "n2"), "{repairs:?}");
}
