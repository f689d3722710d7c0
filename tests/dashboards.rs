//! The dashboard that comes with the containers shows what a running pgbaton measures: a metric that is renamed here would leave an
//! empty panel there, and nobody would be told.

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use support::{DEADLINE, InProcess, ProxySettings, wait_until};

const DASHBOARD: &str = "docker/monitoring/dashboards/pgbaton.json";

/// Every PromQL expression of a dashboard, however deep.
fn expressions(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(|expr| expr.as_str()).map(str::to_owned));
            fields.values().for_each(|value| expressions(value, found));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// The names of pgbaton's metrics in an expression.
fn metrics_in(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("pgbaton_"))
}

fn metrics(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The names that samples have: of a counter that is the metric's with `_total`.
fn samples(text: &str) -> BTreeSet<&str> {
    let name = |line| str::split(line, ['{', ' ']).next().unwrap_or_default();
    text.lines().filter(|line| line.starts_with("pgbaton_")).map(name).collect()
}

#[test]
fn every_metric_of_the_dashboard_is_one_that_pgbaton_has() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(DASHBOARD)).unwrap();
    let mut wanted = Vec::new();
    expressions(&serde_json::from_str(&text).unwrap(), &mut wanted);
    let wanted: BTreeSet<&str> = wanted.iter().flat_map(|expression| metrics_in(expression)).collect();
    assert!(wanted.len() > 5, "{wanted:?}");

    let settings = ProxySettings { admin: "127.0.0.1:0".into(), ..Default::default() };
    let proxy = InProcess::start(support::shared_cluster(), &settings);
    proxy.psql().ok(&["SELECT 1"]);
    let address = proxy.admin();
    // What is not known yet has no sample.
    wait_until(DEADLINE, "the lag of replicas is known", || {
        metrics(address).contains("\npgbaton_replica_lag_seconds{")
    });
    let answer = metrics(address);
    let samples = samples(&answer);
    let missing: Vec<_> = wanted.difference(&samples).collect();
    assert!(missing.is_empty(), "{DASHBOARD} shows what is not there: {missing:?}");
}
