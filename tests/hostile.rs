//! Hostile clients: whatever they send, or do not send, costs one connection; memory stays bounded, and others, who run
//! checked queries all the while, do not notice.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::{DEADLINE, Proxy, ProxySettings, shared_cluster, wait_until};
use wire::{Batch, Login, PROTOCOL_3_0, Rng, message, seed, startup, trusting};

/// How long a neighbour's query may take while somebody misbehaves, on a machine busy with other tests.
const NOTICEABLE: Duration = Duration::from_secs(15);

/// What a hostile client may cost the proxy at the most, in KiB: some buffers, and what the allocator keeps.
const BOUND_KIB: u64 = 24 * 1024;

/// Clients that behave, and look closely.
struct Neighbours {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Neighbours {
    fn settle_in(port: u16, count: u32) -> Neighbours {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..count).map(|number| {
            let (stop, asked) = (stop.clone(), asked.clone());
            std::thread::spawn(move || neighbour(port, number, &stop, &asked))
        });
        let threads = threads.collect();
        let neighbours = Neighbours { stop, asked, threads };
        neighbours.live_on();
        neighbours
    }

    /// Waits until each has had several answers since.
    #[track_caller]
    fn live_on(&self) {
        let goal = self.asked.load(Ordering::Relaxed) + 4 * self.threads.len() as u64;
        wait_until(DEADLINE, "the neighbours go on", || {
            let dead = self.threads.iter().any(JoinHandle::is_finished);
            assert!(!dead, "a neighbour has noticed");
            self.asked.load(Ordering::Relaxed) >= goal
        });
    }

    #[track_caller]
    fn move_out(self) {
        self.live_on();
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let longest = thread.join().expect("a neighbour has noticed");
            assert!(longest < NOTICEABLE, "a neighbour waited {longest:?} for its answer");
        }
    }
}

fn neighbour(port: u16, number: u32, stop: &AtomicBool, asked: &AtomicU64) -> Duration {
    let name = format!("neighbour {number}");
    let mut me = Login::to(port).with("application_name", &name).connect();
    me.run(&format!("SET my.number = '{number}'"));
    me.batch(Batch::new().parse("mine", "SELECT $1 || ' of ' || current_setting('my.number')").sync()).ok();
    let mut longest = Duration::ZERO;
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let begin = Instant::now();
        assert_eq!(me.value("SHOW application_name"), name);
        let answer = me.batch(Batch::new().run("mine", &[Some(&round.to_string())]).sync()).ok();
        assert_eq!(answer.value(), format!("{round} of {number}"));
        me.run("BEGIN");
        assert_eq!(me.value(&format!("SELECT {round} + {number}")), (round + number).to_string());
        me.run("COMMIT");
        longest = longest.max(begin.elapsed());
        asked.fetch_add(1, Ordering::Relaxed);
        // A neighbour lives here; it does not hoard the processor.
        std::thread::sleep(Duration::from_millis(1));
    }
    longest
}

/// A proxy that lets all in, with four server connections for everybody.
fn small_proxy(more: &str) -> Proxy {
    let cluster = shared_cluster();
    let proxy = Proxy::start(cluster, &trusting(cluster, &format!("pool_size = 4\n{more}")));
    Login::to(proxy.port).connect().value("SELECT 1");
    proxy
}

fn kib(proxy: &Proxy, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs `act` and gives the memory the proxy took more than before at its highest, in KiB.
fn growth_of(proxy: &Proxy, act: impl FnOnce()) -> u64 {
    // Sets the high-water mark back to what is resident now (proc(5), clear_refs).
    std::fs::write(format!("/proc/{}/clear_refs", proxy.pid()), "5").unwrap();
    let before = kib(proxy, "VmRSS");
    act();
    kib(proxy, "VmHWM").saturating_sub(before)
}

fn open_files(proxy: &Proxy) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count()
}

/// Lets this process, and proxies it starts, open as many files as the system allows.
fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn is_closed(stream: &mut TcpStream, limit: Duration) -> bool {
    stream.set_read_timeout(Some(limit)).unwrap();
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            }
        }
    }
}

/// Sends these bytes on a new connection; it must be closed by the other side.
#[track_caller]
fn costs_one_connection(port: u16, what: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // It may be closed before everything is written.
    let _ = stream.write_all(bytes);
    assert!(is_closed(&mut stream, Duration::from_secs(20)), "still open after {what}");
}

/// One test at a time: each loads the machine by itself, and what a neighbour notices shall be that test's doing.
fn turn() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn garbage_before_login_costs_one_connection() {
    let _turn = turn();
    let proxy = small_proxy("client_login_timeout = \"5s\"");
    let neighbours = Neighbours::settle_in(proxy.port, 4);
    let user = [("user", "demo")];
    let whole = startup(PROTOCOL_3_0, &user);
    let mut long = startup(PROTOCOL_3_0, &[("user", "demo"), ("options", &"x".repeat(9_960))]);
    assert!(long.len() > 10_000 - 20);
    long.resize(10_001, 0);
    long[..4].copy_from_slice(&10_001u32.to_be_bytes());
    let ssl = [0, 0, 0, 8, 4, 210, 22, 47];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a length of zero", vec![0; 8]),
        ("a length of 7", vec![0, 0, 0, 7, 0, 3, 0]),
        ("a length of 4 GiB", vec![0xff; 16]),
        ("a length that is negative", vec![0x80, 0, 0, 0, 0, 3, 0, 0]),
        ("10,001 bytes", long),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("no terminator", whole[..whole.len() - 1].iter().copied().chain([b'x']).collect()),
        ("a name without a value", [&[0, 0, 0, 13, 0, 3, 0, 0][..], b"user\0"].concat()),
        ("no user", startup(PROTOCOL_3_0, &[("database", "demo")])),
        ("an empty user", startup(PROTOCOL_3_0, &[("user", "")])),
        ("protocol 2", startup(2 << 16, &user)),
        ("protocol 1234.1", startup(1234 << 16 | 1, &user)),
        ("bytes behind an SSL request", [&ssl[..], &whole[..]].concat()),
        ("SSL requests without end", ssl.repeat(50)),
        ("a cancel request without a key", vec![0, 0, 0, 12, 4, 210, 22, 46, 0, 0, 0, 1]),
        ("a cancel request with a long key", {
            let mut packet = vec![0, 0, 2, 0, 4, 210, 22, 46];
            packet.resize(512, 7);
            packet
        }),
        ("a cancel request for nobody", [&[0, 0, 0, 16, 4, 210, 22, 46][..], &[9; 8]].concat()),
        ("a TLS handshake record of nonsense", [&[0x16, 3, 1, 2, 0, 1][..], &[7; 600]].concat()),
        ("UTF-8 that is none", startup(PROTOCOL_3_0, &user).iter().map(|b| b | 0x80).collect()),
        ("a user that is no text", [&[0, 0, 0, 17, 0, 3, 0, 0][..], b"user\0\xff\xfe\0\0"].concat()),
    ];
    for (what, bytes) in &cases {
        costs_one_connection(proxy.port, what, bytes);
    }
    // Half of a packet, and then the end.
    for cut in 1..whole.len() {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        stream.write_all(&whole[..cut]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(is_closed(&mut stream, DEADLINE), "open after {cut} bytes of a startup packet and no more");
    }
    let mut random = Rng(seed("garbage before login"));
    for _ in 0..100 {
        let mut bytes = random.bytes(64);
        // Not longer than it says, so that there is nothing to wait for.
        bytes[..4].copy_from_slice(&(8 + random.below(56) as u32).to_be_bytes());
        costs_one_connection(proxy.port, "random bytes", &bytes);
    }
    neighbours.move_out();
}

#[test]
fn garbage_inside_sasl_costs_one_connection() {
    let _turn = turn();
    let proxy = Proxy::start(shared_cluster(), &ProxySettings { proxy: "pool_size = 4".into(), ..Default::default() });
    let neighbours = Neighbours::settle_in(proxy.port, 3);
    let start = Login::to(proxy.port).packet();
    let first = |mechanism: &str, length: u32, text: &[u8]| {
        message(b'p', &[mechanism.as_bytes(), b"\0", &length.to_be_bytes(), text].concat())
    };
    let mut random = Rng(seed("garbage inside SASL"));
    let mut cases = vec![
        ("a Query for a password", message(b'Q', b"SELECT 1\0")),
        ("a Sync for a password", message(b'S', b"")),
        ("an unknown message", message(b'!', b"")),
        ("nothing", message(b'p', b"")),
        ("a plain password", message(b'p', b"demo\0")),
        ("an unknown mechanism", first("SCRAM-MD5", 3, b"n,,")),
        ("PLUS without TLS", first("SCRAM-SHA-256-PLUS", 3, b"n,,")),
        ("a length beyond the message", first("SCRAM-SHA-256", 1000, b"n,,n=,r=abc")),
        // No initial response is allowed; the server asks for it, and gets this.
        ("a first message of nonsense", [first("SCRAM-SHA-256", u32::MAX, b""), message(b'p', b"n,,n")].concat()),
        ("no attributes", first("SCRAM-SHA-256", 3, b"n,,")),
        ("no nonce", first("SCRAM-SHA-256", 6, b"n,,n=,")),
        ("a nonce that is no text", first("SCRAM-SHA-256", 11, b"n,,n=,r=\xff\xfe\xfd")),
        ("channel binding without TLS", first("SCRAM-SHA-256", 14, b"p=tls-unique,,")),
        ("1,025 bytes", message(b'p', &[b'x'; 1021])),
        ("100 kB", message(b'p', &[b'x'; 100_000])),
        ("4 GiB announced", [&[b'p', 0xff, 0xff, 0xff, 0xff][..], &[0; 100]].concat()),
        ("a length of 3", vec![b'p', 0, 0, 0, 3]),
    ];
    for _ in 0..40 {
        let length = random.below(200);
        cases.push(("random text", first("SCRAM-SHA-256", length as u32, &random.bytes(length))));
    }
    let proper = first("SCRAM-SHA-256", 13, b"n,,n=,r=abcde");
    for tail in [&b"c=biws,r=abcde,p=AAAA"[..], b"", b"c=", b"c=biws,r=abcde", b"p=p=p=", &[0; 30], &[b','; 900]] {
        cases.push(("a false final message", [&proper[..], &message(b'p', tail)].concat()));
    }
    for (what, bytes) in &cases {
        costs_one_connection(proxy.port, what, &[&start[..], bytes].concat());
    }
    neighbours.move_out();
}

#[test]
fn a_login_that_never_ends_is_ended() {
    let _turn = turn();
    let proxy = small_proxy("client_login_timeout = \"1s\"");
    let neighbours = Neighbours::settle_in(proxy.port, 2);
    let whole = Login::to(proxy.port).with("options", &"-c a=b ".repeat(100)).packet();
    let begin = Instant::now();
    let mut loris: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(("127.0.0.1", proxy.port)).unwrap()).collect();
    // A byte at a time, so that there is never a long silence.
    for byte in whole.chunks(1) {
        if begin.elapsed() > Duration::from_millis(2500) {
            break;
        }
        for stream in &mut loris {
            let _ = stream.write_all(byte);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(begin.elapsed() > Duration::from_secs(2), "the packet was not long enough");
    for stream in &mut loris {
        assert!(is_closed(stream, Duration::from_secs(2)), "a login longer than client_login_timeout goes on");
    }
    neighbours.move_out();
}

#[test]
fn five_thousand_connections_that_say_nothing_cost_little() {
    let _turn = turn();
    let wanted = 5_000.min(raise_open_files().saturating_sub(500) as usize);
    if wanted < 5_000 {
        println!("the limit on open files allows only {wanted} connections");
    }
    let proxy = small_proxy("");
    let neighbours = Neighbours::settle_in(proxy.port, 3);
    let before = open_files(&proxy);
    let mut silent = Vec::with_capacity(wanted);
    let growth = growth_of(&proxy, || {
        for _ in 0..wanted {
            silent.push(TcpStream::connect(("127.0.0.1", proxy.port)).unwrap());
        }
        wait_until(DEADLINE, "all are accepted", || open_files(&proxy) >= before + wanted);
    });
    println!("{wanted} silent connections: {growth} KiB");
    assert!(growth < 16 * wanted as u64, "{growth} KiB for {wanted} connections");
    neighbours.live_on();
    drop(silent);
    wait_until(DEADLINE, "their sockets are closed", || open_files(&proxy) < before + 50);
    neighbours.move_out();
}

#[test]
fn a_client_that_does_not_read_its_result_costs_a_buffer() {
    let _turn = turn();
    let proxy = small_proxy("");
    let neighbours = Neighbours::settle_in(proxy.port, 3);
    let mut lazy = Login::to(proxy.port).connect();
    let growth = growth_of(&proxy, || {
        let sql = "SELECT repeat(chr(65 + n % 26), 100000) FROM generate_series(1, 2000) n";
        lazy.send(&Batch::new().query(sql).0).unwrap();
        for _ in 0..5 {
            neighbours.live_on();
            std::thread::sleep(Duration::from_millis(200));
        }
        // And it is all there, in order, once it is read.
        for number in 1..=2000u32 {
            let row = loop {
                let message = lazy.receive().unwrap();
                if message.tag == b'D' {
                    break message.body;
                }
            };
            let letter = b'A' + (number % 26) as u8;
            assert!(row.len() == 100_006 && row[6..].iter().all(|byte| *byte == letter), "row {number}");
        }
        assert_eq!(lazy.until(b"Z").unwrap().done, ["SELECT 2000"]);
    });
    println!("200 MB not read: {growth} KiB");
    assert!(growth < BOUND_KIB, "{growth} KiB");
    assert_eq!(lazy.value("SELECT 'still here'"), "still here");
    neighbours.move_out();
}

#[test]
fn large_statements_and_parameters_are_streamed() {
    let _turn = turn();
    let proxy = small_proxy("");
    let neighbours = Neighbours::settle_in(proxy.port, 2);
    let piece = vec![b'x'; 1 << 20];
    let mut large = Login::to(proxy.port).connect();
    let growth = growth_of(&proxy, || {
        let (head, tail) = ("SELECT length('", "')\0");
        let length = (4 + head.len() + 100 * piece.len() + tail.len()) as u32;
        large.send(&[&[b'Q'][..], &length.to_be_bytes(), head.as_bytes()].concat()).unwrap();
        for _ in 0..100 {
            large.send(&piece).unwrap();
        }
        large.send(tail.as_bytes()).unwrap();
        assert_eq!(large.until(b"Z").unwrap().value(), "104857600");
    });
    println!("a statement of 100 MB: {growth} KiB");
    assert!(growth < BOUND_KIB, "{growth} KiB");
    let mut large = Login::to(proxy.port).connect();
    let growth = growth_of(&proxy, || {
        large.send(&Batch::new().parse("", "SELECT length($1)").0).unwrap();
        let names = [0, 0, 0, 0, 0, 1];
        let length = (4 + names.len() + 4 + 300 * piece.len() + 2) as u32;
        let value = (300 * piece.len() as u32).to_be_bytes();
        large.send(&[&[b'B'][..], &length.to_be_bytes(), &names, &value].concat()).unwrap();
        for _ in 0..300 {
            large.send(&piece).unwrap();
        }
        large.send(&[0, 0]).unwrap();
        large.send(&Batch::new().execute("", 0).sync().0).unwrap();
        assert_eq!(large.until(b"Z").unwrap().value(), "314572800");
    });
    println!("a parameter of 300 MB: {growth} KiB");
    assert!(growth < BOUND_KIB, "{growth} KiB");
    neighbours.move_out();
}

#[test]
fn floods_of_small_messages_are_read_no_faster_than_their_answers() {
    let _turn = turn();
    let proxy = small_proxy("");
    let neighbours = Neighbours::settle_in(proxy.port, 2);
    for (what, opening) in [("at rest", ""), ("in a transaction", "BEGIN"), ("pinned", "LISTEN flood")] {
        let mut flood = Login::to(proxy.port).connect();
        if !opening.is_empty() {
            flood.run(opening);
        }
        let growth = growth_of(&proxy, || {
            let mut writer = flood.stream().try_clone().unwrap();
            writer.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
            let syncs = Batch::new().sync().0.repeat(1000);
            let sent = std::thread::spawn(move || (0..1000).all(|_| writer.write_all(&syncs).is_ok()));
            // Time enough to take in everything, if it were to be taken in.
            std::thread::sleep(Duration::from_secs(1));
            for number in 0..1_000_000 {
                let message = flood.receive().unwrap();
                assert_eq!(message.tag, b'Z', "answer {number}");
            }
            assert!(sent.join().unwrap());
        });
        println!("a million Syncs {what}: {growth} KiB");
        assert!(growth < BOUND_KIB, "{what}: {growth} KiB");
        assert_eq!(flood.value("SELECT 'still here'"), "still here");
    }
    neighbours.move_out();
}
