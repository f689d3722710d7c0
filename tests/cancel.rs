//! A cancel reaches the statement it was meant for, and never a later client of the same server connection.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{Proxy, shared_cluster, wait_until};
use wire::{Batch, Login, Rng, Wire, cancel, seed, trusting};

fn proxy(settings: &str) -> Proxy {
    let cluster = shared_cluster();
    Proxy::start(cluster, &trusting(cluster, settings))
}

/// The SQLSTATE of what comes, `None` for success.
fn outcome(client: &mut Wire) -> Option<String> {
    let answer = client.until(b"Z").unwrap();
    answer.errors.first().map(|error| error.code.clone())
}

#[test]
fn a_running_statement_is_cancelled_and_the_session_goes_on() {
    let proxy = proxy("pool_size = 1");
    let mut client = Login::to(proxy.port).connect();
    for batch in [
        Batch::new().query("SELECT pg_sleep(60)"),
        Batch::new().parse("", "SELECT pg_sleep(60)").run("", &[]).sync(),
        Batch::new().query("BEGIN; SELECT pg_sleep(60)"),
    ] {
        let begin = Instant::now();
        client.send(&batch.0).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        client.cancel().unwrap();
        assert_eq!(outcome(&mut client).as_deref(), Some("57014"));
        assert!(begin.elapsed() < Duration::from_secs(20));
        client.query("ROLLBACK");
        assert_eq!(client.value("SELECT 1"), "1");
    }
}

#[test]
fn a_client_that_waits_for_a_server_connection_can_be_cancelled() {
    let proxy = proxy("pool_size = 1");
    let mut holder = Login::to(proxy.port).connect();
    let mut waiting = Login::to(proxy.port).connect();
    holder.run("BEGIN");
    waiting.send(&Batch::new().query("/* pgbaton: primary */ SELECT 1").0).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    waiting.cancel().unwrap();
    assert_eq!(outcome(&mut waiting).as_deref(), Some("57014"));
    assert_eq!(holder.value("SELECT 'not me'"), "not me");
    holder.run("COMMIT");
    assert_eq!(waiting.value("SELECT 1"), "1");
}

#[test]
fn a_wrong_key_cancels_nothing() {
    let proxy = proxy("pool_size = 1");
    let mut client = Login::to(proxy.port).connect();
    client.send(&Batch::new().query("SELECT pg_sleep(1)").0).unwrap();
    let mut random = Rng(seed("wrong keys"));
    for length in [4, 4, 4, 32, 1, 256] {
        cancel(proxy.port, client.pid, &random.bytes(length)).unwrap();
    }
    cancel(proxy.port, client.pid + 1, &client.secret).unwrap();
    assert_eq!(outcome(&mut client), None);
}

/// Cancels race with the ends of the statements they are for; what is late must hit nothing.
#[test]
fn thousands_of_late_cancels_never_hit_a_later_client() {
    let proxy = proxy("pool_size = 2");
    let stop = Arc::new(AtomicBool::new(false));
    let (sent, hit, checked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut threads = Vec::new();
    let seed = seed("late cancels");
    for number in 0..4u64 {
        let (port, stop, sent, hit) = (proxy.port, stop.clone(), sent.clone(), hit.clone());
        threads.push(std::thread::spawn(move || {
            let mut random = Rng(seed ^ number);
            let mut client = Login::to(port).connect();
            let (pid, secret) = (client.pid, client.secret.clone());
            while !stop.load(Ordering::Relaxed) {
                let micros = random.next() % 2000;
                let statement = match random.below(4) {
                    0 => Batch::new().query("SELECT 1"),
                    // Pins and unpins, so that the server is asked what is left.
                    1 => Batch::new().query("LISTEN late; UNLISTEN late"),
                    2 => Batch::new().query("SELECT pg_sleep(0.0005)"),
                    _ => Batch::new().parse("", "SELECT pg_sleep(0.0005)").run("", &[]).sync(),
                };
                client.send(&statement.0).unwrap();
                let mut cancels = Vec::new();
                for _ in 0..2 {
                    let secret = secret.clone();
                    cancels.push(std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_micros(micros));
                        cancel(port, pid, &secret).is_ok()
                    }));
                }
                let mut expected = vec![outcome(&mut client)];
                // The next one may be hit too: the cancel is for whatever this client runs when it arrives.
                client.send(&Batch::new().query("SELECT 2").0).unwrap();
                expected.push(outcome(&mut client));
                for one in cancels {
                    assert!(one.join().unwrap());
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                for code in expected.into_iter().flatten() {
                    assert_eq!(code, "57014");
                    hit.fetch_add(1, Ordering::Relaxed);
                }
                // All cancels are dealt with, so this one must be left alone.
                assert_eq!(client.value("SELECT 'mine'"), "mine");
            }
        }));
    }
    for number in 0..6 {
        let (port, stop, checked) = (proxy.port, stop.clone(), checked.clone());
        threads.push(std::thread::spawn(move || {
            let mut victim = Login::to(port).connect();
            victim.batch(Batch::new().parse("v", "SELECT $1").sync());
            while !stop.load(Ordering::Relaxed) {
                let round = checked.fetch_add(1, Ordering::Relaxed).to_string();
                let answer = match number % 3 {
                    0 => victim.query(&format!("SELECT '{round}'")),
                    1 => victim.batch(Batch::new().run("v", &[Some(&round)]).sync()),
                    _ => {
                        victim.run("BEGIN");
                        let answer = victim.query(&format!("SELECT '{round}' FROM pg_sleep(0.001)"));
                        victim.run("COMMIT");
                        answer
                    }
                };
                assert_eq!(answer.value(), round, "another client's cancel");
            }
        }));
    }
    let begin = Instant::now();
    let enough = |sent: &AtomicU64| sent.load(Ordering::Relaxed) >= 4000;
    while !enough(&sent) && begin.elapsed() < Duration::from_secs(15) {
        assert!(!threads.iter().any(|thread| thread.is_finished()), "somebody was hit");
        std::thread::sleep(Duration::from_millis(50));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    println!("{sent:?} cancels sent, {hit:?} hit, {checked:?} statements of others checked");
    assert!(hit.load(Ordering::Relaxed) > 0 && sent.load(Ordering::Relaxed) > 100);
    wait_until(Duration::from_secs(20), "the connections are good", || {
        Login::to(proxy.port).connect().query("SELECT 1").errors.is_empty()
    });
}

/// A cancel that comes when the wait for a connection is just over must not be kept for the next wait.
#[test]
fn a_cancel_is_not_kept_for_a_later_statement() {
    let proxy = proxy("pool_size = 1");
    let mut holder = Login::to(proxy.port).connect();
    let mut waiting = Login::to(proxy.port).connect();
    let (pid, secret) = (waiting.pid, waiting.secret.clone());
    let mut random = Rng(seed("kept cancels"));
    for round in 0..200 {
        holder.run("BEGIN");
        waiting.send(&Batch::new().query("SELECT 1").0).unwrap();
        let (secret, micros, port) = (secret.clone(), random.next() % 1000, proxy.port);
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(micros));
            cancel(port, pid, &secret)
        });
        holder.run("COMMIT");
        let code = outcome(&mut waiting);
        assert!(code.is_none() || code.as_deref() == Some("57014"));
        late.join().unwrap().unwrap();
        holder.run("BEGIN");
        waiting.send(&Batch::new().query("SELECT 2").0).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        holder.run("COMMIT");
        assert_eq!(outcome(&mut waiting), None, "round {round}: an earlier cancel");
    }
}
