//! The command line: what each verb prints, as a table and as JSON, on a terminal and not, and how it refuses.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support;
use crate::{Alone, TOKEN};

pub const BINARY: &str = env!("CARGO_BIN_EXE_pgbaton");

/// What a verb printed, and how it ended.
pub struct Typed {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl Typed {
    fn of(output: Output) -> Typed {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        Typed { stdout: text(&output.stdout), stderr: text(&output.stderr), code: output.status.code() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

pub fn typed(admin: &str, token: Option<&str>, arguments: &[&str]) -> Typed {
    let mut command = Command::new(BINARY);
    command.args(arguments).env("PGBATON_ADMIN", admin).env_remove("PGBATON_TOKEN").env_remove("PGBATON_TOKEN_FILE");
    command.envs(token.map(|token| ("PGBATON_TOKEN", token)));
    Typed::of(command.stdin(Stdio::null()).output().unwrap())
}

/// The same with a terminal for its output; what came is all in `stdout`.
pub fn on_a_terminal(admin: &str, more: &[(&str, &str)], arguments: &str) -> Typed {
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{BINARY} {arguments}"), "/dev/null"]).env("PGBATON_ADMIN", admin);
    command.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("PGBATON_TOKEN").envs(more.iter().copied());
    Typed::of(command.stdin(Stdio::null()).output().unwrap())
}

#[test]
fn colours_are_for_terminals_and_for_who_wants_them() {
    let alone = Alone::without_token();
    let admin = alone.api.url();
    assert!(on_a_terminal(&admin, &[], "list").stdout.contains("\u{1b}[32mrunning\u{1b}[0m"));
    assert!(!on_a_terminal(&admin, &[("NO_COLOR", "1")], "list").stdout.contains('\u{1b}'));
    assert!(!on_a_terminal(&admin, &[], "list --json").stdout.contains('\u{1b}'));
    assert!(!typed(&admin, None, &["list"]).stdout.contains('\u{1b}'));
}

#[test]
fn looking_again_and_again_goes_on_until_nobody_reads() {
    let alone = Alone::without_token();
    let admin = alone.api.url();
    for (verb, word) in [("list", "cluster main"), ("history", "watch"), ("availability --window 1h", "window")] {
        let line = format!("{BINARY} {verb} --watch --admin {admin} | grep -m 2 '{word}'");
        let seen = Typed::of(Command::new("sh").args(["-c", &line]).output().unwrap());
        assert_eq!(seen.stdout.lines().count(), 2, "{verb}: {}", seen.stdout);
        let line = format!("{BINARY} {verb} --watch --json --admin {admin} | head -n 2");
        let seen = Typed::of(Command::new("sh").args(["-c", &line]).output().unwrap());
        assert!(seen.stdout.lines().all(|line| line.starts_with('{')), "{verb}: {}", seen.stdout);
    }
}

#[test]
fn every_verb_that_asks_prints_json_as_the_endpoint_has_it() {
    let alone = Alone::with_token();
    let admin = alone.api.url();
    let json = |arguments: &[&str]| {
        let typed = typed(&admin, Some(TOKEN), arguments);
        assert_eq!(typed.code, Some(0), "{arguments:?}: {}", typed.stderr);
        typed.json()
    };
    assert_eq!(json(&["list", "--json"])["primary"], "n1");
    assert!(json(&["history", "--json"])["entries"].is_array());
    assert_eq!(json(&["availability", "--json"])["failures"], 0);
    alone.proxy.psql().ok(&["SELECT 1"]);
    assert_eq!(json(&["explain", "--json", "SELECT 1"])["target"], "replica");
    assert_eq!(json(&["pause", "--json"])["done"], "paused: no change of primary until resumed");
    // A refusal, too: on standard output for programs, and on standard error for people.
    let refused = typed(&admin, Some(TOKEN), &["switchover", "--json"]);
    assert_eq!(refused.code, Some(1));
    assert_eq!(refused.json()["error"]["message"], "paused: no change of primary until resumed");
    assert_eq!(refused.json()["error"]["code"], "refused");
    assert!(refused.stderr.starts_with("pgbaton: paused: no change of primary"), "{}", refused.stderr);
    assert_eq!(json(&["resume", "--json"])["done"], "resumed");
    let unknown = typed(&admin, Some(TOKEN), &["maintenance", "n9", "on", "--json"]);
    assert_eq!((unknown.code, &unknown.json()["error"]["code"]), (Some(1), &"unknown_node".into()));
}

#[test]
fn a_configuration_is_checked_for_people_and_for_programs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pgbaton.toml");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "[proxy]\npool_sise = 1\n[[cluster.nodes]]\nid = \"n1\"\nhost = \"h\"\nport = 0\n").unwrap();
    let check = |more: &[&str]| typed("http://127.0.0.1:1", None, &[&["config", "check", "-c", name], more].concat());
    let (plain, json) = (check(&[]), check(&["--json"]));
    assert_eq!((plain.code, json.code, &*plain.stdout), (Some(1), Some(1), ""));
    let told = json.json();
    assert_eq!((&told["ok"], &told["file"]), (&false.into(), &name.into()));
    let findings = told["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 2, "{told}");
    assert_eq!((&findings[0]["line"], &findings[0]["file"]), (&2.into(), &name.into()));
    assert!(findings[0]["message"].as_str().unwrap().contains("pool_size"), "{told}");
    std::fs::write(&file, "[[cluster.nodes]]\nid = \"n1\"\nhost = \"127.0.0.1\"\nport = 5432\n").unwrap();
    let told = check(&["--json"]).json();
    assert_eq!((&told["ok"], &told["findings"]), (&true.into(), &serde_json::json!([])));
    assert_eq!(check(&[]).stdout, format!("{name}: ok"));
    std::fs::remove_file(&file).unwrap();
    let told = check(&["--json"]).json();
    assert!(told["findings"][0]["message"].as_str().unwrap().starts_with("cannot read"), "{told}");
}

#[test]
fn migrate_says_what_it_did_as_json_too() {
    let cluster = support::cluster(0);
    let directory = tempfile::tempdir().unwrap();
    let file = support::ProxySettings::default().write(&cluster, directory.path(), "\"127.0.0.1:0\"");
    let migrate = || typed("http://127.0.0.1:1", None, &["migrate", "--json", "-c", file.to_str().unwrap()]).json();
    let first = migrate();
    assert_eq!(first["node"], "n1");
    assert!(!first["applied"].as_array().unwrap().is_empty(), "{first}");
    assert_eq!(migrate(), serde_json::json!({ "node": "n1", "applied": [] }));
    cluster.nodes()[0].stop(pgbaton::demo::Shutdown::Kill);
    let refused = migrate();
    assert!(refused["error"]["message"].as_str().unwrap().starts_with("there is no primary"), "{refused}");
}

#[test]
fn shells_and_man_are_told_every_verb() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = typed("http://127.0.0.1:1", None, &["completions", shell]).stdout;
        for verb in pgbaton::cli::verbs() {
            assert!(script.contains(&verb), "{shell}: {verb}");
        }
    }
    let script = typed("http://127.0.0.1:1", None, &["completions", "bash"]).stdout;
    let ask = format!(
        "{script}\nCOMP_WORDS=(pgbaton switch); COMP_CWORD=1; _pgbaton pgbaton switch pgbaton; echo ${{COMPREPLY[@]}}"
    );
    let completed = Typed::of(Command::new("bash").args(["-c", &ask]).output().unwrap());
    assert_eq!(completed.stdout, "switchover", "{}", completed.stderr);
    assert_eq!(typed("http://127.0.0.1:1", None, &["completions", "tcsh"]).code, Some(2));

    let page = typed("http://127.0.0.1:1", None, &["man"]).stdout;
    assert!(page.contains(".TH pgbaton 1") && page.contains("switchover"), "{page}");
    let page = typed("http://127.0.0.1:1", None, &["man", "rejoin"]).stdout;
    assert!(page.contains("pgbaton\\-rejoin") && page.contains("\\-\\-wait"), "{page}");
    assert_eq!(typed("http://127.0.0.1:1", None, &["man", "dance"]).code, Some(1));
}

/// An endpoint that answers each question as this says, in turn.
fn endpoint(answers: Vec<(&'static str, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (status, body) in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    admin
}

#[test]
fn what_is_no_pgbaton_or_another_one_is_said_in_a_sentence() {
    let old = r#"{"openapi":"3.1.0","info":{"version":"0.0.7"}}"#.to_owned();
    let told = |answers, verb: &[&str]| {
        let said = typed(&endpoint(answers), None, verb);
        assert_eq!((said.code, &*said.stdout), (Some(1), ""), "{verb:?}");
        said.stderr
    };
    let said = told(vec![("200 OK", "{\"name\":1}".into()), ("200 OK", old.clone())], &["list"]);
    assert!(said.contains("is pgbaton 0.0.7, and this is") && said.contains("its answer is not understood"), "{said}");
    assert!(said.contains("Hint: Use the commands of the version"), "{said}");
    let unknown =
        r#"{"error":{"code":"unknown_path","message":"there is nothing at this path","hint":"h"}}"#.to_owned();
    let said = told(vec![("404 Not Found", unknown), ("200 OK", old)], &["restart", "n1"]);
    assert!(said.contains("is pgbaton 0.0.7"), "{said}");
    let said = told(vec![("200 OK", "<html>".into()), ("200 OK", "<html>".into())], &["history"]);
    assert!(said.contains("does not answer as pgbaton") && said.contains("Something else listens there"), "{said}");
    let said = told(vec![("502 Bad Gateway", "oops".into())], &["pause"]);
    assert!(said.contains("status 502") && said.contains("Hint: "), "{said}");
    let said = typed("http://127.0.0.1:1", None, &["pause", "--json"]);
    assert_eq!((said.code, &said.json()["error"]["code"]), (Some(1), &"unreachable".into()));
}
