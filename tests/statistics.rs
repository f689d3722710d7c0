//! What the console says of the data plane, as PgBouncer says it: the figures are right, the columns are those that
//! dashboards and exporters look for, and a real exporter reads them.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pgbaton::admin::figures::Figures;
use pgbaton::pool::PoolKey;
use pgbaton::session::clients::{Arrival, Entrance};
use support::{DEADLINE, InProcess, ProxySettings, shared_cluster, wait_until};
use wire::{Batch, Login, Wire};

fn proxy(lines: &str) -> InProcess {
    let admin = "127.0.0.1:0".into();
    let settings = ProxySettings { proxy: lines.into(), admin, ..Default::default() };
    let proxy = InProcess::start(shared_cluster(), &settings);
    wait_until(DEADLINE, "a primary is known", || get(proxy.admin(), "/health/ready", "").contains("\"ready\""));
    proxy
}

fn login(proxy: &InProcess) -> Login {
    Login::at(proxy.address)
}

fn console(proxy: &InProcess) -> Wire {
    login(proxy).database("pgbaton").connect()
}

/// The rows of a table, each by the names of its columns.
fn rows(console: &mut Wire, command: &str) -> Vec<BTreeMap<String, String>> {
    let answer = console.query(command).ok();
    let names = answer.columns.clone();
    let row = |row: &Vec<Option<String>>| {
        names.iter().cloned().zip(row.iter().map(|value| value.clone().unwrap_or_default())).collect()
    };
    answer.rows.iter().map(row).collect()
}

/// What SHOW STATS has of the database that clients use.
fn stats(console: &mut Wire) -> BTreeMap<String, u64> {
    let all = rows(console, "SHOW STATS");
    let demo = all.into_iter().find(|row| row["database"] == "demo").unwrap_or_default();
    demo.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect()
}

fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

#[test]
fn what_is_done_is_counted_once_and_where_the_time_goes_is_told() {
    let proxy = proxy("");
    let mut console = console(&proxy);
    let mut client = login(&proxy).connect();
    client.run("SELECT 1");
    let before = stats(&mut console);
    let mut grew = {
        let mut last = before.clone();
        move |console: &mut Wire| {
            let now = stats(console);
            let names = ["total_xact_count", "total_query_count", "total_error_count", "total_received"];
            let grew = names.map(|name| now[name] - last[name]);
            last = now;
            grew
        }
    };
    let bytes = |batch: &Batch| batch.0.len() as u64;
    let mut does = |batch: Batch, transactions: u64, statements: u64, errors: u64| {
        let (sent, text) = (bytes(&batch), String::from_utf8_lossy(&batch.0).into_owned());
        client.batch(batch);
        assert_eq!(grew(&mut console), [transactions, statements, errors, sent], "{text:?}");
    };
    does(Batch::new().query("SELECT 1"), 1, 1, 0);
    does(Batch::new().query("BEGIN"), 0, 1, 0);
    does(Batch::new().query("SELECT 2"), 0, 1, 0);
    does(Batch::new().query("COMMIT"), 1, 1, 0);
    does(Batch::new().query("SELECT 3; SELECT 4"), 1, 2, 0);
    does(Batch::new().query("SELECT 1/0"), 1, 1, 1);
    does(Batch::new().query(";"), 1, 1, 0);
    let run = |batch: Batch, text: &str| batch.parse("", text).bind("", "", &[]).execute("", 0);
    let three = ["SELECT 5", "SELECT 6", "SELECT 7"].into_iter().fold(Batch::new(), run);
    does(three.sync(), 1, 3, 0);

    let sent = stats(&mut console)["total_sent"];
    client.run("SELECT repeat('x', 1000000)");
    let more = stats(&mut console)["total_sent"] - sent;
    assert!((1_000_000..1_010_000).contains(&more), "{more}");

    // In a block, what the client itself takes is of the transaction, and of no query.
    let before = stats(&mut console);
    client.run("BEGIN");
    client.run("SELECT pg_sleep(0.05)");
    std::thread::sleep(Duration::from_millis(50));
    client.run("COMMIT");
    let after = stats(&mut console);
    let took = |name: &str| after[name] - before[name];
    assert!(took("total_query_time") >= 50_000, "{after:?}");
    assert!(took("total_xact_time") >= took("total_query_time") + 50_000, "{before:?} {after:?}");

    // All of it in one piece, as the dashboard gets it.
    let figures = Figures::of(&proxy.shared());
    let counted = [figures.transactions, figures.queries, figures.errors, figures.received_bytes, figures.sent_bytes];
    let names = ["total_xact_count", "total_query_count", "total_error_count", "total_received", "total_sent"];
    assert_eq!(counted, names.map(|name| stats(&mut console)[name]));
    assert!(
        figures.query_seconds.p50 <= figures.query_seconds.p99 && figures.query_seconds.p99.is_some(),
        "{figures:?}"
    );
    let page = get(proxy.admin(), "/metrics", "");
    assert!(page.contains(&format!("\npgbaton_answered_statements_total {}\n", figures.queries)), "{page}");
    assert!(page.contains("\npgbaton_query_seconds_bucket{target=\"primary\",le=\"+Inf\"} "), "{page}");
}

#[test]
fn who_waits_for_a_server_connection_is_shown_while_it_does_and_counted_when_it_has() {
    let proxy = proxy("pool_size = 1\npool_wait = \"30s\"");
    let mut console = console(&proxy);
    let mut one = login(&proxy).with("application_name", "holder").connect();
    one.run("BEGIN");
    one.run("SET LOCAL work_mem = '5MB'");
    let mut two = login(&proxy).connect();
    two.send(&Batch::new().query("BEGIN READ WRITE").0).unwrap();
    let mut pool = BTreeMap::new();
    wait_until(DEADLINE, "somebody waits", || {
        pool = rows(&mut console, "SHOW POOLS").into_iter().find(|pool| pool["database"] == "demo").unwrap_or_default();
        pool.get("cl_waiting").is_some_and(|waiting| waiting == "1") && pool["maxwait_us"] != "0"
    });
    let shown = |name: &str| pool[name].as_str();
    assert_eq!([shown("user"), shown("cl_active"), shown("sv_active"), shown("sv_login")], ["demo", "1", "1", "0"]);
    assert_eq!(shown("pool_mode"), "transaction");
    let clients = rows(&mut console, "SHOW CLIENTS");
    let waiting = clients.iter().find(|client| client["state"] == "waiting").unwrap();
    assert!(waiting["wait_us"] != "0" && waiting["type"] == "C" && waiting["addr"] == "127.0.0.1", "{waiting:?}");
    assert_eq!(waiting["local_port"], proxy.address.port().to_string());
    let holder = clients.iter().find(|client| client["application_name"] == "holder").unwrap();
    let servers = rows(&mut console, "SHOW SERVERS");
    let server = servers.iter().find(|server| server["state"] == "active").unwrap();
    assert_eq!((&holder["link"], &server["link"]), (&server["ptr"], &holder["ptr"]));
    assert_eq!((&*server["type"], &*server["application_name"]), ("S", "holder"));
    let page = get(proxy.admin(), "/metrics", "");
    assert!(page.contains("\npgbaton_waiting_clients 1\n"), "{page}");
    assert_eq!(Figures::of(&proxy.shared()).waiting, 1);
    let before = stats(&mut console)["total_wait_time"];

    one.run("COMMIT");
    two.until(b"Z").unwrap();
    two.run("ROLLBACK");
    assert!(stats(&mut console)["total_wait_time"] > before);
    assert_eq!(Figures::of(&proxy.shared()).waiting, 0);
    one.run("SET application_name = 'other'");
    assert!(rows(&mut console, "SHOW CLIENTS").iter().any(|client| client["application_name"] == "other"));
}

#[test]
fn tables_that_pgbouncer_has_begin_with_its_columns_and_have_its_types() {
    let proxy = proxy("");
    let mut client = login(&proxy).connect();
    client.run("SELECT 1");
    let mut console = login(&proxy).database("pgbouncer").connect();
    for (command, columns) in [
        (
            "STATS",
            "database total_xact_count total_query_count total_received total_sent total_xact_time total_query_time \
             total_wait_time avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time avg_query_time avg_wait_time",
        ),
        ("STATS_TOTALS", "database xact_count query_count bytes_received bytes_sent xact_time query_time wait_time"),
        ("STATS_AVERAGES", "database xact_count query_count bytes_received bytes_sent xact_time query_time wait_time"),
        ("TOTALS", "name value"),
        (
            "POOLS",
            "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel \
             sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode",
        ),
        (
            "DATABASES",
            "name host port database force_user pool_size min_pool_size reserve_pool pool_mode max_connections \
             current_connections paused disabled",
        ),
        ("LISTS", "list items"),
        ("USERS", "name pool_mode"),
        (
            "CLIENTS",
            "type user database state addr port local_addr local_port connect_time request_time wait wait_us close_needed \
             ptr link remote_pid tls application_name",
        ),
        (
            "SERVERS",
            "type user database state addr port local_addr local_port connect_time request_time wait wait_us close_needed \
             ptr link remote_pid tls application_name",
        ),
        ("CONFIG", "key value default changeable"),
        ("VERSION", "version"),
    ] {
        let answer = console.query(&format!("SHOW {command};")).ok();
        let expected: Vec<&str> = columns.split_whitespace().collect();
        assert_eq!(answer.columns[..expected.len()], expected, "{command}");
        assert!(!answer.rows.is_empty(), "{command}");
    }
    // A pair of database and user is there once, however many nodes serve it.
    client.run("CREATE TEMP TABLE here (n int)");
    wait_until(DEADLINE, "both nodes have a pool", || {
        client.run("SELECT count(*) FROM pg_class");
        rows(&mut console, "SHOW POOLS BY NODE").len() == 2
    });
    assert_eq!(rows(&mut console, "SHOW POOLS").len(), 1);
    // What is a number is announced as one: int8.
    console.send(&Batch::new().query("SHOW STATS").0).unwrap();
    let head = console.receive().unwrap();
    let types: Vec<u32> = types(&head.body);
    assert_eq!((types[0], &types[1..]), (25, &vec![20; types.len() - 1][..]));
    console.until(b"Z").unwrap();
}

/// The types of a RowDescription.
fn types(body: &[u8]) -> Vec<u32> {
    let (mut rest, mut types) = (&body[2..], Vec::new());
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        types.push(u32::from_be_bytes(rest[end + 7..end + 11].try_into().unwrap()));
        rest = &rest[end + 19..];
    }
    types
}

#[test]
fn what_drivers_say_of_their_own_accord_does_not_fail() {
    let proxy = proxy("");
    let login = login(&proxy).database("pgbaton").with("extra_float_digits", "2").with("datestyle", "ISO, MDY");
    let mut console = login.with("application_name", "exporter").with("options", "-c statement_timeout=0").connect();
    assert_eq!(console.query(";").ok().tags, "IZ");
    assert_eq!(console.query("").ok().tags, "IZ");
    for text in
        ["SET extra_float_digits = 3", "SET DATESTYLE TO 'ISO'", "SET client_encoding TO 'UTF8';", "SET TimeZone='UTC'"]
    {
        assert_eq!(console.query(text).ok().done, ["SET"], "{text}");
    }
    assert_eq!(console.query("SET work_mem = 1").code(), "42601");
    let me = rows(&mut console, "SHOW CLIENTS");
    assert!(me.iter().any(|client| client["application_name"] == "exporter"), "{me:?}");
}

/// Ended with the test, whatever comes of it.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const EXPORTER: &str = "/usr/bin/prometheus-pgbouncer-exporter";

#[test]
fn debians_exporter_for_pgbouncer_reads_the_console() {
    if !std::path::Path::new(EXPORTER).exists() {
        return eprintln!("skipped: {EXPORTER} is not installed (package prometheus-pgbouncer-exporter)");
    }
    let proxy = proxy("");
    let mut client = login(&proxy).connect();
    for _ in 0..7 {
        client.run("SELECT 1");
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = std::fs::File::create(proxy.directory.path().join("exporter.log")).unwrap();
    let _exporter = Program(
        Command::new(EXPORTER)
            .args(["--host", "127.0.0.1", "--port", &free.port().to_string()])
            .args(["--pgbouncer-host", "127.0.0.1", "--pgbouncer-port", &proxy.address.port().to_string()])
            .args(["--pgbouncer-user", "demo"])
            .env("PGPASSWORD", pgbaton::demo::PASSWORD)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap(),
    );
    let said = || std::fs::read_to_string(proxy.directory.path().join("exporter.log")).unwrap();
    let deadline = std::time::Instant::now() + DEADLINE;
    while TcpStream::connect(free).is_err() {
        assert!(std::time::Instant::now() < deadline, "{}", said());
        std::thread::sleep(Duration::from_millis(20));
    }
    let page = get(free, "/metrics", "");
    let value = |sample: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {sample}:\n{page}\n{}", said())).parse::<f64>().unwrap()
    };
    assert!(value("pgbouncer_requests_total{database=\"demo\"}") >= 7.0);
    assert!(value("pgbouncer_received_bytes_total{database=\"demo\"}") > 0.0);
    assert!(value("pgbouncer_query_microseconds_total{database=\"demo\"}") > 0.0);
    assert_eq!(value("pgbouncer_active_clients{database=\"demo\",user=\"demo\"}"), 1.0);
    assert_eq!(value("pgbouncer_pool_size{database=\"demo\"}"), 20.0);
    assert_eq!(value("pgbouncer_databases"), 1.0);
    assert_eq!(value("pgbouncer_used_clients"), 2.0);
}

#[test]
fn the_number_of_series_depends_on_no_client() {
    let proxy = proxy("max_clients = 5000");
    let mut client = login(&proxy).connect();
    client.run("CREATE TABLE IF NOT EXISTS series (n int)");
    let all = [
        "SELECT count(*) FROM series WHERE n = 0",
        "INSERT INTO series VALUES (0)",
        "SELECT random() + 0",
        "BEGIN",
        "SELECT 0",
        "COMMIT",
        "SET search_path = public",
        "selec 0",
    ];
    let series = || {
        let page = get(proxy.admin(), "/metrics", "");
        let series = page.lines().filter(|line| !line.starts_with('#'));
        series.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect::<std::collections::BTreeSet<_>>()
    };
    let say = |client: &mut Wire, from: usize, to: usize| {
        let mut batch = Batch::new();
        for number in from..to {
            let text = all[number % all.len()];
            // A number in the place of the last zero, or a comment: each text is another one.
            let text = match text.rfind('0') {
                Some(at) => format!("{}{number}{}", &text[..at], &text[at + 1..]),
                None => format!("{text} /* {number} */"),
            };
            batch = batch.query(&text);
        }
        let count = to - from;
        client.send(&batch.0).unwrap();
        for _ in 0..count {
            client.until(b"Z").unwrap();
        }
    };
    let count: usize = std::env::var("PGBATON_TEXTS").map_or(20_000, |count| count.parse().unwrap());
    say(&mut client, 0, 400);
    // Reads go where they may, which changes with how far the replica is: those words are of a few, too.
    let limit = series().len() + 40;
    for from in (400..count).step_by(400) {
        say(&mut client, from, from + 400);
    }
    let shared = proxy.shared();
    let nodes = shared.topology.borrow().nodes.clone();
    let mut many = Vec::new();
    for number in 0..1000 {
        let (user, database): (std::sync::Arc<str>, std::sync::Arc<str>) =
            (format!("role{number}").into(), format!("db{number}").into());
        let key = PoolKey { node: nodes[0].address.id.clone(), database: database.clone(), user: user.clone() };
        let pool = shared.pools.get(&key, &nodes[0].address);
        shared.tallies.of(&database, 0).assign();
        let arrival = Arrival {
            user,
            database,
            peer: format!("10.0.0.1:{number}"),
            local: None,
            application_name: format!("application {number}"),
            tally: shared.tallies.of(&"db".into(), 0),
            tls: false,
            entrance: Entrance::ReadWrite,
            worker: 0,
            long_key: false,
            pid: None,
        };
        many.push((pool, shared.clients.enter(arrival, 5000).unwrap()));
    }
    let after = series();
    assert!(after.len() <= limit, "{} series, of at most {limit}: {after:#?}", after.len());
    assert!(!after.iter().any(|series| series.contains("role") || series.contains("db1")), "{after:#?}");
    let mut console = console(&proxy);
    assert!(rows(&mut console, "SHOW POOLS").len() > 1000, "the console does tell them apart");
}
