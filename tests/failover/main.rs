//! The end-to-end suite: real servers, real clients, real faults, and a judge that asks nobody but the servers.
//!
//! One scenario at a time has the machine; each prints its row of the table, which is also kept in
//! `target/tmp/failover.md`. `PGBATON_FAILOVER_RUNS=n` runs each n times and prints medians.

mod baton;
mod faults;
mod heal;
mod planted;
mod scenarios;
mod stage;
mod table;

#[path = "../support/nodes.rs"]
mod nodes;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/wire.rs"]
mod wire;

use std::sync::{Mutex, MutexGuard, PoisonError};

use pgbaton::drill::{checker, load, network};

/// Who has the machine.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The network is what everything else here believes in.
#[test]
fn a_cut_is_silent_and_one_way_if_wanted() {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    let _turn = turn();
    let network = match network::Network::new(&["n1", "n2"]) {
        Ok(network) => network,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let listener = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            network.enter("n1");
            TcpListener::bind((network.address("n1"), 5432)).unwrap()
        });
        thread.join().unwrap()
    });
    let dial = |from: &str| {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                network.enter(from);
                TcpStream::connect_timeout(&(network.address("n1"), 5432).into(), Duration::from_millis(300))
            });
            thread.join().unwrap()
        })
    };
    let mut client = dial("clients").unwrap();
    let (mut server, _) = listener.accept().unwrap();
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    }
    let mut byte = [0];
    let is_silence = |result: std::io::Result<usize>| {
        result.is_err_and(|error| matches!(error.kind(), std::io::ErrorKind::WouldBlock))
    };

    network.cut_one_way("clients", "n1");
    client.write_all(b"x").unwrap();
    assert!(is_silence(server.read(&mut byte)), "cut from the clients to n1");
    network.heal();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    server.read_exact(&mut byte).unwrap();

    network.isolate("n1");
    server.write_all(b"y").unwrap();
    assert!(is_silence(client.read(&mut byte)), "cut in both directions");
    assert!(dial("n2").is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut), "silent, not refused");
    network.heal();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.read_exact(&mut byte).unwrap();
    assert!(dial("n2").is_ok());
}
