//! `pgbaton history` and `pgbaton availability`: what they ask, what they print, and how they end.
//!
//! A running pgbaton has little to tell in a test, so what they print is shown with an endpoint that answers from a script.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output};

use support::{InProcess, ProxySettings, shared_cluster};

fn pgbaton(arguments: &[&str], admin: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgbaton"));
    command.args(arguments).env("PGBATON_ADMIN", admin).env_remove("PGBATON_TOKEN").output().unwrap()
}

fn printed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the command printed, and the path it asked for, of an endpoint that answers once with this.
fn answered(arguments: &[&str], answer: &'static str) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        lines.find(|line| line.as_ref().unwrap().is_empty());
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}", answer.len())
            .unwrap();
        first.split(' ').nth(1).unwrap().to_owned()
    });
    let output = pgbaton(arguments, &admin);
    (printed(&output), server.join().unwrap())
}

const ENTRIES: &str = r#"{"entries":[
    {"what":"watch","from":0,"to":7200000},
    {"what":"outage","from":1000000,"to":1002500,"reason":"the primary was restarted"},
    {"what":"epoch","epoch":2,"kind":"failover","cause":"the primary refuses connections","from":"n1","to":"n2","timeline":2,
     "fork_lsn":"0/3000000","durability":"async","phases":[["detect",12],["promote",300]],"rejected":{"n3":"it is behind"},
     "known_loss_bytes":17,"closed_at":3600000,"opened_at":3600420}]}"#;

#[test]
fn the_history_is_a_table_with_the_newest_first() {
    let (printed, asked) = answered(&["history", "--limit", "3"], ENTRIES);
    assert_eq!(asked, "/history?limit=3");
    let words: Vec<String> = printed
        .lines()
        .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect::<Vec<_>>().join("|"))
        .collect();
    assert_eq!(
        words,
        [
            "at|epoch|what|from|to|down|known_lost_bytes|phases|rejected|reason",
            "1970-01-01 01:00:00 UTC|2|failover|n1|n2|420ms|17|detect 12ms, promote 300ms|n3: it is behind|the primary refuses connections",
            "1970-01-01 00:16:40 UTC|outage|2.500s|the primary was restarted",
            "1970-01-01 00:00:00 UTC|watch|pgbaton was there until 1970-01-01 02:00:00 UTC",
        ]
    );
    let (printed, asked) = answered(&["history", "--json"], ENTRIES);
    assert_eq!((printed.trim_end(), asked.as_str()), (ENTRIES, "/history?limit=50"));
}

#[test]
fn availability_is_printed_item_by_item() {
    let answer = r#"{"from":0,"to":36000000,"observed_ms":36000000,"uptime_ms":35640000,"downtime_ms":360000,"failures":2,
        "mttf_ms":17820000,"mttr_ms":180000,"failure_rate_per_hour":0.202,"availability":0.99,
        "longest":{"from":1,"to":300001,"reason":"why"}}"#;
    let (printed, asked) = answered(&["availability", "--window", "10h"], answer);
    assert_eq!(asked, "/availability?window=10h");
    assert_eq!(
        printed,
        "window          10h 0m\nobserved        10h 0m\nunobserved      0ms\nuptime          9h 54m\ndowntime        6m 0s\n\
         availability    99.0000 %\nfailures        2\nMTTF            4h 57m\nMTTR            3m 0s\n\
         failure rate    0.202000 per hour\nlongest outage  5m 0s (why)\n"
    );
}

#[test]
fn a_window_that_means_nothing_is_a_mistake_of_usage() {
    let output = pgbaton(&["availability", "--window", "soon"], "http://127.0.0.1:1");
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let output = pgbaton(&["availability"], "http://127.0.0.1:1");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot reach http://127.0.0.1:1"));
}

#[test]
fn a_running_pgbaton_answers_both_and_the_console_too() {
    let proxy =
        InProcess::start(shared_cluster(), &ProxySettings { admin: "127.0.0.1:0".into(), ..Default::default() });
    let admin = format!("http://{}", proxy.admin());
    let history: serde_json::Value = serde_json::from_str(&printed(&pgbaton(&["history", "--json"], &admin))).unwrap();
    assert!(history["entries"].is_array(), "{history}");
    let answer = printed(&pgbaton(&["availability", "--json", "--window", "1h"], &admin));
    let availability: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let window = availability["to"].as_u64().unwrap() - availability["from"].as_u64().unwrap();
    assert_eq!((window, availability["failures"].as_u64()), (3_600_000, Some(0)), "{availability}");
    assert!(printed(&pgbaton(&["availability"], &admin)).starts_with("window          30d 0h\n"));
    let output =
        Command::new("curl").args(["-s", "-g", &format!("{admin}/availability?window=soon")]).output().unwrap();
    let body = String::from_utf8_lossy(&output.stdout);
    assert!(body.contains("\"code\":\"bad_request\"") && body.contains("window: "), "{body}");
    proxy.psql().database("pgbaton").ok(&["SHOW HISTORY"]);
}
