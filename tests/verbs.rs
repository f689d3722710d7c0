//! What operators type, end to end: on the command line, in the console and over HTTP the same orders are given, the same
//! refusals come back, and a refusal is known by its exit code.

mod support;

use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use support::{InProcess, ProxySettings, Psql, wait_until};

/// What a verb printed, and how it ended.
struct Typed {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

fn typed(admin: &str, token: Option<&str>, arguments: &[&str]) -> Typed {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
    command.args(arguments).env("PGBATON_ADMIN", admin).env_remove("PGBATON_TOKEN");
    command.envs(token.map(|token| ("PGBATON_TOKEN", token)));
    let Output { stdout, stderr, status } = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    Typed { stdout: text(&stdout), stderr: text(&stderr), code: status.code() }
}

/// A proxy whose orders need a token, in front of one primary and one replica that all tests share. One at a time: pgbatons that
/// begin to look after the same nodes in the same moment end each other's work there.
fn proxy() -> (Alone, String) {
    static ONE: Mutex<()> = Mutex::new(());
    let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let settings = ProxySettings { admin: "127.0.0.1:0\"\ntoken = \"open-sesame".into(), ..Default::default() };
    let proxy = InProcess::start(support::shared_cluster(), &settings);
    let admin = format!("http://{}", proxy.admin());
    wait_until(support::DEADLINE, "the primary takes writes and the replica serves", || {
        let shown = typed(&admin, None, &["list"]).stdout;
        let serves = shown.lines().any(|line| line.contains("replica") && line.contains("  yes  "));
        shown.contains("   stable   primary n1   ") && serves
    });
    (Alone { proxy, _turn: turn }, admin)
}

/// The proxy ends before the turn does.
struct Alone {
    proxy: InProcess,
    _turn: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Alone {
    type Target = InProcess;

    fn deref(&self) -> &InProcess {
        &self.proxy
    }
}

fn console(proxy: &InProcess) -> Psql {
    proxy.psql().database("pgbaton")
}

#[test]
fn list_shows_the_cluster_on_one_screen_and_as_json() {
    let (_proxy, admin) = proxy();
    let shown = typed(&admin, None, &["list"]);
    assert_eq!((shown.code, &*shown.stderr), (Some(0), ""));
    let lines: Vec<&str> = shown.stdout.lines().collect();
    assert!(lines[0].starts_with("cluster main   epoch 1   stable   primary n1   async"), "{}", shown.stdout);
    let row = |node: &str| {
        let line = lines.iter().find(|line| line.starts_with(node)).unwrap();
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
    };
    assert_eq!(row("node"), ["node", "role", "state", "timeline", "lsn", "lag", "reads", "agent"]);
    assert_eq!(row("n1")[..4], ["n1", "primary", "running", "1"]);
    let n2 = row("n2");
    assert_eq!((&n2[..4], &n2[6..]), (&["n2", "replica", "running", "1"][..], &["yes", "none"][..]));

    let json = typed(&admin, None, &["list", "--json"]);
    let cluster: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(cluster["primary"], "n1");
    assert_eq!(cluster["nodes"][1]["eligible"], true);
    assert!(cluster["nodes"][1]["agent"].is_null());
}

#[test]
fn list_watch_goes_on_until_nobody_reads() {
    let (_proxy, admin) = proxy();
    let watch = format!("{} list --watch --admin {admin} | head -n 12", env!("CARGO_BIN_EXE_pgbaton"));
    let output = Command::new("sh").args(["-c", &watch]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(shown.matches("cluster main   epoch 1").count(), 2, "{shown}");
}

#[test]
fn who_is_not_there_is_said_to_be_unreachable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for verb in [&["list"][..], &["switchover"], &["rejoin", "n1"]] {
        let refused = typed(&format!("http://{free}"), None, verb);
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.starts_with(&format!("pgbaton: cannot reach http://{free}")), "{}", refused.stderr);
    }
}

#[test]
fn orders_are_refused_without_the_token() {
    let (_proxy, admin) = proxy();
    let orders: [&[&str]; 9] = [
        &["switchover"],
        &["switchover", "--to", "n2"],
        &["failover", "--to", "n2"],
        &["pause"],
        &["resume"],
        &["maintenance", "n2", "on"],
        &["rejoin", "n2"],
        &["rebuild", "n2"],
        &["restart", "n2"],
    ];
    for order in orders {
        for token in [None, Some("open")] {
            let refused = typed(&admin, token, order);
            assert_eq!((refused.code, &*refused.stdout), (Some(1), ""), "{order:?}");
            assert!(refused.stderr.contains("this needs the token of [admin]"), "{order:?}: {}", refused.stderr);
            assert!(refused.stderr.contains("PGBATON_TOKEN"), "{order:?}: {}", refused.stderr);
        }
    }
    assert!(typed(&admin, None, &["list"]).stdout.contains("   primary n1   "), "nothing was done");
}

#[test]
fn names_that_no_node_can_have_are_usage_and_unknown_ones_are_refused() {
    let (proxy, admin) = proxy();
    for order in [&["rejoin", "n/1"][..], &["switchover", "--to", "n 2"], &["rebuild"], &["restart", ""]] {
        assert_eq!(typed(&admin, Some("open-sesame"), order).code, Some(2), "{order:?}");
    }
    let orders: [(&[&str], &str); 6] = [
        (&["switchover", "--to", "n9"], "SWITCHOVER TO n9"),
        (&["failover", "--to", "n9"], "FAILOVER TO n9"),
        (&["maintenance", "n9", "on"], "MAINTENANCE n9 ON"),
        (&["rejoin", "n9"], "REJOIN n9"),
        (&["rebuild", "n9"], "REBUILD n9"),
        (&["restart", "n9"], "RESTART n9"),
    ];
    for (order, command) in orders {
        let refused = typed(&admin, Some("open-sesame"), order);
        assert_eq!((refused.code, &*refused.stdout), (Some(1), ""), "{order:?}");
        assert!(refused.stderr.contains("n9 is not in the configuration"), "{order:?}: {}", refused.stderr);
        let refused = console(&proxy).refused(&[command]);
        assert!(refused.contains("55000: n9 is not in the configuration"), "{command}: {refused}");
    }
}

#[test]
fn what_takes_an_agent_is_refused_where_there_is_none() {
    let (proxy, admin) = proxy();
    for (verb, command) in [("rejoin", "REJOIN n2"), ("rebuild", "REBUILD n2"), ("restart", "RESTART n2")] {
        let refused = typed(&admin, Some("open-sesame"), &[verb, "n2"]);
        assert_eq!((refused.code, &*refused.stdout), (Some(1), ""), "{verb}");
        assert!(refused.stderr.contains("agent"), "{verb}: {}", refused.stderr);
        let refused = console(&proxy).refused(&[command]);
        assert!(refused.contains("55000") && refused.contains("agent"), "{command}: {refused}");
    }
}

#[test]
fn the_primary_is_no_place_to_rejoin_or_to_go_to() {
    let (_proxy, admin) = proxy();
    for order in [&["rejoin", "n1"][..], &["rebuild", "n1"], &["switchover", "--to", "n1"]] {
        let refused = typed(&admin, Some("open-sesame"), order);
        assert_eq!((refused.code, &*refused.stdout), (Some(1), ""), "{order:?}");
        assert!(refused.stderr.contains("n1 is the primary"), "{order:?}: {}", refused.stderr);
    }
}

#[test]
fn an_order_is_the_same_wherever_it_is_given() {
    let (proxy, admin) = proxy();
    let paused = typed(&admin, Some("open-sesame"), &["pause"]);
    assert_eq!((paused.code, &*paused.stdout), (Some(0), "paused: no change of primary until resumed"));
    assert!(typed(&admin, None, &["list"]).stdout.lines().next().unwrap().ends_with("PAUSED"));
    assert_eq!(console(&proxy).ok(&["RESUME"]), "resumed");
    let resumed = typed(&admin, Some("open-sesame"), &["resume", "--json"]);
    assert_eq!(resumed.stdout, r#"{"done":"resumed"}"#);
    assert_eq!(console(&proxy).ok(&["maintenance n2 on"]), "n2 is in maintenance");
    wait_until(support::DEADLINE, "n2 is shown to be in maintenance", || {
        typed(&admin, None, &["list"]).stdout.lines().any(|line| line.contains("n2") && line.contains("maintenance"))
    });
    let off = typed(&admin, Some("open-sesame"), &["maintenance", "n2", "off"]);
    assert_eq!(off.stdout, "n2 is in use again");
}

#[test]
fn who_may_only_look_may_not_order() {
    let (proxy, _) = proxy();
    let primary = support::shared_cluster().primary().unwrap();
    primary.sql("CREATE ROLE looker LOGIN PASSWORD 'look' IN ROLE pg_monitor").unwrap();
    let looker = console(&proxy).user("looker", Some("look"));
    assert!(looker.ok(&["SHOW NODES"]).contains("n1"));
    for order in ["SWITCHOVER", "FAILOVER TO n2", "PAUSE", "RESUME", "REJOIN n2", "REBUILD n2", "RESTART n2"] {
        let refused = looker.refused(&[order]);
        assert!(refused.contains("42501") && refused.contains("pgbaton_admin"), "{order}: {refused}");
    }
}
