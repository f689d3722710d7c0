//! `GET /events` as a program hears it, and the files of the dashboard as a browser gets them; what a browser makes of them is in
//! `tests/browser.rs`.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use pgbaton::demo::Shutdown;
use rustix::process::Signal;
use serde_json::Value;
use support::{DEADLINE, InProcess, Proxy, ProxySettings, wait_until};

fn settings() -> ProxySettings {
    ProxySettings { admin: "127.0.0.1:0".into(), ..Default::default() }
}

/// Status and head of an answer whose body is not read yet.
fn ask(address: SocketAddr, path: &str, headers: &str) -> (u16, String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).unwrap() > 2 {}
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{head:?}")), head.to_lowercase(), reader)
}

fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    let (status, head, mut reader) = ask(address, path, "Connection: close\r\n");
    let mut body = String::new();
    reader.read_to_string(&mut body).unwrap();
    (status, head, body)
}

fn json(address: SocketAddr, path: &str) -> Value {
    serde_json::from_str(&get(address, path).2).unwrap()
}

#[derive(Debug, Default)]
struct Event {
    name: String,
    data: Value,
    id: Option<String>,
    retry: Option<String>,
}

/// Somebody who listens.
struct Listener(BufReader<TcpStream>);

impl Listener {
    fn new(address: SocketAddr, headers: &str) -> Listener {
        let (status, head, reader) = ask(address, "/events", headers);
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        Listener(reader)
    }

    /// `None` at the end of the stream. Chunks of the transfer encoding are lines of a hexadecimal number; no field looks like one.
    fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end_matches(['\r', '\n']).split_once(": ") {
                Some(("event", name)) => event.name = name.into(),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                Some(("id", id)) => event.id = Some(id.into()),
                Some(("retry", retry)) => event.retry = Some(retry.into()),
                // The chunk that ends the answer; the connection may serve another one.
                _ if line == "0\r\n" => return None,
                _ if line == "\n" && !event.name.is_empty() => return Some(event),
                _ => {}
            }
        }
    }

    /// What comes until there is such an event, that one included.
    #[track_caller]
    fn until(&mut self, is_it: impl Fn(&Event) -> bool) -> Vec<Event> {
        let (mut heard, begun) = (Vec::new(), Instant::now());
        while begun.elapsed() < DEADLINE {
            let event = self.next().expect("the stream has ended");
            let is_last = is_it(&event);
            heard.push(event);
            if is_last {
                return heard;
            }
        }
        panic!("not told: {heard:?}");
    }
}

fn names(value: &Value) -> Vec<&String> {
    value.as_object().unwrap().keys().collect()
}

#[test]
fn a_listener_is_told_everything_at_once_and_then_what_changes() {
    let cluster = support::cluster(1);
    let proxy = InProcess::start(&cluster, &settings());
    proxy.psql().ok(&["SELECT 1"]);
    wait_until(DEADLINE, "the replica serves", || json(proxy.admin(), "/cluster")["nodes"][1]["eligible"] == true);
    let mut listener = Listener::new(proxy.admin(), "");

    let first = listener.until(|event| event.name == "figures");
    let order: Vec<&str> = first.iter().map(|event| &*event.name).collect();
    assert_eq!((order[0], order[order.len() - 1]), ("cluster", "figures"), "{order:?}");
    assert_eq!(first[0].retry.as_deref(), Some("1000"));
    let asked = json(proxy.admin(), "/cluster");
    assert_eq!((names(&first[0].data), &first[0].data["nodes"][0]["id"]), (names(&asked), &asked["nodes"][0]["id"]));
    assert_eq!(names(&first[0].data["nodes"][1]), names(&asked["nodes"][1]));
    let past: Vec<&Event> = first.iter().filter(|event| event.name == "history").collect();
    assert!(past.iter().any(|event| event.data["what"] == "watch"), "{past:?}");
    assert!(past.iter().all(|event| event.id.is_some()));
    assert!(first.last().unwrap().data["rates"].is_null(), "two looks have to be taken for a rate");

    // One session: on the primary it keeps its connection.
    let many: Vec<&str> = std::iter::repeat_n("/* pgbaton: primary */ SELECT 1", 50).collect();
    proxy.psql().ok(&many);
    let is_told = |event: &Event| {
        let routes = event.data["routes"].as_array();
        event.name == "figures"
            && routes.is_some_and(|routes| {
                let on_primary = routes.iter().filter(|route| route["target"] == "primary");
                on_primary.filter_map(|route| route["total"].as_u64()).sum::<u64>() >= 50
            })
    };
    let figures = listener.until(is_told).pop().unwrap().data;
    assert!(figures["rates"]["primary"].is_number(), "{figures}");
    assert!(
        figures["pools"].as_array().is_some_and(|pools| pools.iter().any(|pool| pool["node"] == "n1")),
        "{figures}"
    );

    cluster.node("n2").unwrap().stop(Shutdown::Immediate);
    let told = listener.until(|event| event.name == "cluster" && event.data["nodes"][1]["state"] == "down");
    assert_eq!(told.last().unwrap().data["nodes"][1]["not_promotable"], "does not answer");
}

#[test]
fn what_was_heard_is_not_told_again() {
    let proxy = InProcess::start(support::shared_cluster(), &settings());
    let history = |listener: &mut Listener| -> Vec<String> {
        let first = listener.until(|event| event.name == "figures");
        first.into_iter().filter_map(|event| event.id).collect()
    };
    wait_until(DEADLINE, "there is a past", || {
        json(proxy.admin(), "/history")["entries"].as_array().is_some_and(|entries| entries.len() > 1)
    });
    let heard = history(&mut Listener::new(proxy.admin(), ""));
    let last = heard.last().unwrap();
    assert!(heard.len() > 1, "{heard:?}");
    assert!(history(&mut Listener::new(proxy.admin(), &format!("Last-Event-ID: {last}\r\n"))).is_empty());
    assert_eq!(history(&mut Listener::new(proxy.admin(), &format!("Last-Event-ID: {}\r\n", heard[0]))), heard[1..]);
    assert_eq!(history(&mut Listener::new(proxy.admin(), "Last-Event-ID: 1-1\r\n")), heard);
}

#[test]
fn so_many_may_listen_and_others_are_still_answered() {
    let proxy = InProcess::start(support::shared_cluster(), &settings());
    let address = proxy.admin();
    let mut listeners: Vec<Listener> = (0..64).map(|_| Listener::new(address, "")).collect();
    let (status, head, mut refusal) = ask(address, "/events", "Connection: close\r\n");
    assert_eq!(status, 503, "{head}");
    let mut body = String::new();
    refusal.read_to_string(&mut body).unwrap();
    assert!(body.contains("too_many_listeners"), "{body}");
    assert_eq!(get(address, "/health/live").0, 200);
    // All hear the same.
    for listener in &mut listeners {
        let first = listener.until(|event| event.name == "figures");
        assert_eq!(first[0].name, "cluster");
    }
    listeners.pop();
    wait_until(DEADLINE, "who leaves makes room", || ask(address, "/events", "").0 == 200);
}

#[test]
fn who_listens_does_not_keep_pgbaton_from_stopping() {
    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sections = "[failover]\nautomatic = false\n".to_owned();
    let settings = ProxySettings { admin: admin.to_string(), sections, ..Default::default() };
    let mut proxy = Proxy::start(support::shared_cluster(), &settings);
    wait_until(DEADLINE, "the admin endpoint listens", || TcpStream::connect(admin).is_ok());
    let mut listener = Listener::new(admin, "");
    let mut session = wire::Login::to(proxy.port).connect();
    session.run("BEGIN");
    session.run("SELECT 1");
    proxy.signal(Signal::TERM);
    while listener.next().is_some() {}
    // It still waits for this one, and no listener waits with it.
    session.run("COMMIT");
    drop(session);
    assert_eq!(proxy.wait(), Some(0));
}

#[test]
fn the_page_and_its_files_come_with_a_strict_policy() {
    let proxy = InProcess::start(support::shared_cluster(), &settings());
    let (status, head, page) = get(proxy.admin(), "/");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
    for policy in ["default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(head.contains(policy), "{head}");
    }
    assert!(!head.contains("unsafe"), "{head}");
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    let named: Vec<&str> = page.split('"').filter(|word| word.starts_with("dashboard/")).collect();
    assert!(named.len() >= 3, "{named:?}");
    for path in named {
        let (status, head, _) = get(proxy.admin(), &format!("/{path}"));
        assert_eq!(status, 200, "{path}");
        assert!(head.contains("content-security-policy: default-src 'self'"), "{path}: {head}");
    }
    let (status, _, body) = get(proxy.admin(), "/dashboard/..%2fmod.rs");
    assert_eq!(status, 404, "{body}");
}
