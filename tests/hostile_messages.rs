//! Hostile messages of clients that are logged in: each gets PostgreSQL's own answer or loses its connection, and holds
//! no server connection longer than it must.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use support::{Proxy, shared_cluster, wait_until};
use wire::{Answer, Batch, Login, Rng, Wire, message, seed, trusting};

/// One server connection for everybody: whoever keeps it is noticed at once.
fn narrow_proxy() -> Proxy {
    let cluster = shared_cluster();
    Proxy::start(cluster, &trusting(cluster, "pool_size = 1\npool_wait = \"4s\""))
}

/// Somebody else can use the only server connection, soon.
#[track_caller]
fn others_go_on(proxy: &Proxy, what: &str) {
    let begin = Instant::now();
    let mut other = Login::to(proxy.port).connect();
    assert_eq!(other.query("SELECT 'fine'").ok().table(), "fine", "after {what}");
    assert!(begin.elapsed() < Duration::from_secs(3), "after {what} others waited {:?}", begin.elapsed());
}

/// As [`Wire::ask`], and then the session is still good for a query.
#[track_caller]
fn asked(client: &mut Wire, batch: Batch) -> Answer {
    let answer = client.batch(batch);
    assert_eq!(answer.status, b'I', "{answer:?}");
    assert_eq!(client.value("SELECT 'still here'"), "still here");
    answer
}

#[test]
fn what_postgresql_refuses_is_refused_and_the_session_goes_on() {
    let proxy = narrow_proxy();
    let mut client = Login::to(proxy.port).connect();
    let new = Batch::new;
    assert_eq!(asked(&mut client, new().bind("", "unknown", &[]).execute("", 0).sync()).code(), "26000");
    assert_eq!(asked(&mut client, new().describe(b'S', "unknown").sync()).code(), "26000");
    assert_eq!(asked(&mut client, new().describe(b'P', "unknown").sync()).code(), "34000");
    assert_eq!(asked(&mut client, new().execute("unknown", 0).sync()).code(), "34000");
    assert_eq!(asked(&mut client, new().close(b'S', "unknown").close(b'P', "unknown").sync()).ok().tags, "33Z");
    assert_eq!(asked(&mut client, new().describe(b'?', "x").sync()).code(), "08P01");
    assert_eq!(asked(&mut client, new().close(b'?', "x").sync()).code(), "08P01");
    assert_eq!(asked(&mut client, new().bind("", "", &[]).sync()).code(), "26000");
    assert_eq!(asked(&mut client, new().parse("", "SELECT FROM FROM").run("", &[]).sync()).code(), "42601");
    // A function that does not exist, by number; and one with arguments that are none.
    assert_eq!(asked(&mut client, new().raw(b'F', &[0, 0, 0x3f, 0xfe, 0, 0, 0, 0, 0, 0])).code(), "42883");
    // int4pl, with one argument that is longer than the message.
    let lengths = [0, 0, 0, 177, 0, 0, 0, 1, 0, 0, 0, 9, b'x'];
    assert_eq!(asked(&mut client, new().raw(b'F', &lengths)).code(), "08P01");
    // COPY messages outside COPY are ignored.
    assert_eq!(asked(&mut client, new().copy_data(b"1\n").copy_done().copy_fail("no").query("SELECT 1")).value(), "1");
    assert_eq!(asked(&mut client, new().flush().flush().sync()).tags, "Z");
    others_go_on(&proxy, "refusals");
}

#[test]
fn flush_alone_and_half_messages_hold_no_server_connection() {
    let proxy = narrow_proxy();
    let query = Batch::new().query("SELECT 'a statement that is long enough to be cut'").0;
    let mut halves = Vec::new();
    for cut in 1..query.len() {
        let mut client = Login::to(proxy.port).connect();
        client.send(&query[..cut]).unwrap();
        halves.push((cut, client));
    }
    let mut flushes = Login::to(proxy.port).connect();
    flushes.send(&Batch::new().flush().flush().0).unwrap();
    others_go_on(&proxy, "half messages");
    for (cut, mut client) in halves {
        client.send(&query[cut..]).unwrap();
        assert_eq!(client.until(b"Z").unwrap().value(), "a statement that is long enough to be cut");
    }
}

#[test]
fn malformed_messages_cost_one_connection_and_no_server_connection() {
    let proxy = narrow_proxy();
    let sound = Batch::new().query("SELECT 1").0;
    let pipeline = Batch::new().parse("s", "SELECT 2").run("s", &[]).0;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("an unknown tag", message(b'!', b"")),
        ("a zero tag", message(0, b"")),
        ("a password", message(b'p', b"demo\0")),
        ("a length of 3", vec![b'Q', 0, 0, 0, 3]),
        ("a length of 2 GiB", vec![b'Q', 0x80, 0, 0, 0]),
        ("a length of 1 GiB", vec![b'Q', 0x40, 0, 0, 0]),
        ("a Sync of 1 MB", vec![b'S', 0, 0x10, 0, 0]),
        ("a Close of 1 MB", vec![b'C', 0, 0x10, 0, 0]),
        ("a startup packet", Login::to(proxy.port).packet()),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in &cases {
        for (before, prefix) in [("", &[][..]), (" behind a query", &sound), (" behind a pipeline", &pipeline)] {
            let mut client = Login::to(proxy.port).connect();
            client.send(&[prefix, bytes].concat()).unwrap();
            let answer = client.rest();
            let last = answer.errors.last().unwrap_or_else(|| panic!("{what}{before}: no word of it: {answer:?}"));
            assert_eq!((last.severity.as_str(), last.code.as_str()), ("FATAL", "08P01"), "{what}{before}");
            others_go_on(&proxy, &format!("{what}{before}"));
        }
    }
}

#[test]
fn malformed_bodies_get_08p01() {
    let proxy = narrow_proxy();
    for (what, tag, body) in [
        ("a Query without its end", b'Q', &b"SELECT 1"[..]),
        ("an empty Query body", b'Q', b""),
        ("a Parse without text", b'P', b"name\0"),
        ("an empty Parse", b'P', b""),
        ("a Parse with fewer types than it says", b'P', b"\0SELECT 1\0\0\x05"),
        ("a Bind without names", b'B', b"xyz"),
        ("a Flush with a body", b'H', b"body"),
        ("an empty Bind", b'B', b""),
        ("an Execute without rows", b'E', b"\0"),
        ("an empty Execute", b'E', b""),
        ("an empty Describe", b'D', b""),
        ("a Describe without an end", b'D', b"Sname"),
        ("an empty Close", b'C', b""),
        ("a FunctionCall of two bytes", b'F', b"\0\x01"),
    ] {
        let mut client = Login::to(proxy.port).connect();
        client.send(&message(tag, body)).unwrap();
        client.send(&Batch::new().sync().0).unwrap();
        let answer = client.until(b"Z").unwrap();
        // A Flush by itself goes nowhere, so nobody minds what is in it.
        let fine = answer.errors.first().map_or(tag == b'H', |error| error.code == "08P01");
        assert!(fine, "{what}: {answer:?}");
        others_go_on(&proxy, what);
    }
}

/// PostgreSQL answers a Flush only when it is malformed. That error must not reach who uses the connection next.
#[test]
fn a_malformed_flush_behind_a_query_is_nobody_elses_error() {
    let proxy = narrow_proxy();
    let mut other = Login::to(proxy.port).connect();
    for round in 0..50 {
        let mut hostile = Login::to(proxy.port).connect();
        hostile.send(&Batch::new().query("SELECT 1").raw(b'H', b"body").0).unwrap();
        assert_eq!(other.value(&format!("SELECT {round}")), round.to_string());
    }
}

#[test]
fn a_flood_of_half_a_megabyte_byte_by_byte_costs_no_more_than_its_bytes() {
    let proxy = narrow_proxy();
    let mut dribbling = Login::to(proxy.port).connect();
    let text = format!("SELECT length('{}')", "x".repeat(700_000));
    let batch = Batch::new().query(&text).0;
    let (start, end) = batch.split_at(batch.len() - 3000);
    dribbling.send(start).unwrap();
    let cpu = |proxy: &Proxy| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = cpu(&proxy);
    for byte in end.chunks(1) {
        dribbling.send(byte).unwrap();
        // So that each is read by itself.
        std::thread::sleep(Duration::from_micros(100));
    }
    assert_eq!(dribbling.until(b"Z").unwrap().value(), "700000");
    let ticks = cpu(&proxy) - before;
    println!("3,000 bytes behind 700,000: {ticks} ticks");
    assert!(ticks < 50, "{ticks} ticks of 10 ms for 3,000 bytes");
}

#[test]
fn clients_that_vanish_behind_a_statement_leave_nothing() {
    let proxy = narrow_proxy();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a query not answered yet", Batch::new().query("SELECT pg_sleep(0.05)").0),
        ("an open transaction", Batch::new().query("BEGIN; CREATE TABLE vanished (a int)").0),
        ("a pipeline without Sync", Batch::new().parse("", "SELECT pg_advisory_lock(77)").run("", &[]).0),
        ("a query behind a failed pipeline", {
            Batch::new().parse("", "SELECT 1").bind("", "unknown", &[]).query("BEGIN").0
        }),
        ("COPY in progress", Batch::new().query("COPY pg_temp.vanished FROM STDIN").copy_data(b"1\n").0),
        ("a result half read", Batch::new().query("SELECT repeat('x', 10000) FROM generate_series(1, 5000)").0),
        ("half a Bind", Batch::new().bind("", "", &[Some(&"x".repeat(5000))]).0[..4000].to_vec()),
        ("a setting", Batch::new().query("SET my.secret = 'leaked'").0),
        ("a temporary table", Batch::new().query("CREATE TEMP TABLE secret AS SELECT 'leaked' AS text").0),
        ("LISTEN", Batch::new().query("LISTEN secret").0),
    ];
    for (what, bytes) in &cases {
        for reset in [false, true] {
            let mut client = Login::to(proxy.port).connect();
            client.send(bytes).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            if reset {
                client.reset()
            } else {
                drop(client)
            }
            let mut other = Login::to(proxy.port).connect();
            // A connection that has to be cancelled first is waited for.
            let begin = Instant::now();
            assert_eq!(other.query("SELECT 1").ok().status, b'I', "after {what}");
            assert!(begin.elapsed() < Duration::from_secs(3), "{what}: {:?}", begin.elapsed());
            let left = "SELECT current_setting('my.secret', true) = 'leaked', \
                        (SELECT count(*) FROM pg_class WHERE relname IN ('vanished', 'secret')), \
                        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), \
                        (SELECT count(*) FROM pg_listening_channels())";
            wait_until(Duration::from_secs(10), what, || {
                let table = other.query(left).ok().table();
                table == "(null)|0|0|0" || table == "f|0|0|0"
            });
        }
    }
}

#[test]
fn random_messages_hurt_nobody_else() {
    let cluster = shared_cluster();
    let proxy = Proxy::start(cluster, &trusting(cluster, "pool_size = 1"));
    let mut random = Rng(seed("random messages"));
    let tags = b"QPBDECSHFdcfXp!\0";
    let mut witness = Login::to(proxy.port).connect();
    witness.run("SET my.witness = 'me'");
    for round in 0..150 {
        let mut client = Login::to(proxy.port).connect();
        client.stream().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut sent = Vec::new();
        for _ in 0..1 + random.below(8) {
            let tag = *random.pick(tags);
            let length = random.below(60);
            let mut bytes = match random.below(4) {
                0 => Batch::new().parse("s", "SELECT $1::text").run("s", &[Some("x")]).0,
                1 => Batch::new().query("BEGIN; SELECT 1").0,
                _ => message(tag, &random.bytes(length)),
            };
            if random.chance(10) {
                bytes.truncate(random.below(bytes.len() + 1));
            }
            if random.chance(10) {
                let at = random.below(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
            sent.push(format!("{}", bytes.escape_ascii()));
            if client.send(&bytes).is_err() {
                break;
            }
            if random.chance(30) {
                let _ = client.receive();
            }
        }
        if random.chance(50) {
            client.reset()
        } else {
            drop(client)
        }
        let begin = Instant::now();
        assert_eq!(witness.value("SHOW my.witness"), "me");
        assert!(begin.elapsed() < Duration::from_secs(8), "round {round}: {:?} after {sent:#?}", begin.elapsed());
    }
}
