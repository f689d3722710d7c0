//! The primary is killed under clients in the middle of everything, and a standby is promoted by hand: each of them goes on,
//! and each hears what became of what it was doing.

#[path = "support/nodes.rs"]
mod nodes;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nodes::{Ledger, mark, reads, until_replicas_serve, watched_cluster};
use pgbaton::demo::Shutdown;
use pgbaton::types::Epoch;
use support::{DEADLINE, InProcess, Proxy, cluster, wait_until};
use wire::{Batch, Login, Wire, trusting};

fn send(client: &mut Wire, sql: &str) {
    client.send(&Batch::new().query(sql).0).unwrap();
}

#[test]
fn the_primary_is_killed_and_every_client_goes_on_with_the_next() {
    let cluster = watched_cluster(1);
    let primary = &cluster.nodes()[0];
    primary.sql("CREATE TABLE t (id int PRIMARY KEY, n text)").unwrap();
    primary.sql("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 30000) AS i").unwrap();
    cluster.wait_for_replicas().unwrap();
    let ledger = Ledger::of(&cluster);
    let proxy = Proxy::start(&cluster, &reads(&cluster, "max_lag_bytes = \"1GiB\""));
    until_replicas_serve(proxy.port, &ledger);
    let login = Login::to(proxy.port);

    let mut idle = login.connect();
    idle.run("SET timezone = 'Asia/Tokyo'");
    idle.batch(Batch::new().parse("mine", "SELECT count(*) FROM t WHERE id < 0").sync()).ok();
    // In a block, waiting for nothing.
    let mut block = login.connect();
    block.run("BEGIN");
    block.run("INSERT INTO t VALUES (-1)");
    // With a cursor, of which some has been fetched.
    let mut cursor = login.connect();
    cursor.run("BEGIN");
    cursor.run("DECLARE c CURSOR FOR SELECT id FROM t FOR UPDATE");
    assert_eq!(cursor.query("FETCH 10 FROM c").ok().rows.len(), 10);
    // Sending rows.
    let mut copy_in = login.connect();
    send(&mut copy_in, "COPY t FROM STDIN");
    assert_eq!(copy_in.until(b"G").unwrap().tags, "G");
    copy_in.send(&Batch::new().copy_data(b"-2\tcopied\n").0).unwrap();
    // With rows on the way, from the primary, that it does not take yet.
    let mut copy_out = login.connect();
    send(&mut copy_out, "/* pgbaton: primary */ COPY t TO STDOUT");
    assert_eq!(copy_out.until(b"d").unwrap().tags.chars().last(), Some('d'));
    let mut result = login.connect();
    send(&mut result, "/* pgbaton: primary */ SELECT * FROM t");
    assert_eq!(result.until(b"D").unwrap().tags, "TD");
    // Half of a pipeline, whose Sync is yet to be sent.
    let mut pipeline = login.connect();
    pipeline.send(&Batch::new().parse("", "INSERT INTO t VALUES (-3)").run("", &[]).flush().0).unwrap();
    assert_eq!(pipeline.until(b"C").unwrap().tags, "12C");
    // A statement that takes long, on its own.
    let mut alone = login.connect();
    send(&mut alone, "INSERT INTO t SELECT -4, pg_sleep(600)::text");
    // A read that had to go to the primary and is not answered yet.
    let mut reader = login.connect();
    let asked = mark("asked");
    send(&mut reader, &format!("SELECT count(*) FROM t, pg_sleep(0) WHERE id < 0 /* {asked} */"));
    reader.until(b"Z").unwrap().ok();
    let mut pinned = login.connect();
    pinned.run("CREATE TEMPORARY TABLE mine (id int)");
    wait_until(DEADLINE, "the long one runs", || {
        primary.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").unwrap() == "1"
    });

    primary.stop(Shutdown::Kill);
    // What is sent now waits.
    send(&mut idle, "INSERT INTO t VALUES (-5)");
    cluster.nodes()[1].sql("SELECT pg_promote()").unwrap();
    assert_eq!(idle.until(b"Z").unwrap().ok().done, ["INSERT 0 1"]);
    assert_eq!(idle.value("SHOW timezone"), "Asia/Tokyo");
    assert_eq!(idle.batch(Batch::new().run("mine", &[]).sync()).value(), "1");

    let failed = |answer: wire::Answer, code: &str, status: u8| {
        assert_eq!((answer.code(), answer.status), (code, status), "{answer:?}");
    };
    failed(block.query("INSERT INTO t VALUES (-6)"), "40001", b'E');
    failed(cursor.query("FETCH 10 FROM c"), "40001", b'E');
    for client in [&mut block, &mut cursor] {
        client.run("ROLLBACK");
    }
    copy_in.send(&Batch::new().copy_data(b"-7\tlate\n").copy_done().0).unwrap();
    // What was not sent to its end is not committed, nor what the dying server had an error for.
    failed(copy_in.until(b"Z").unwrap(), "40001", b'I');
    for client in [&mut copy_out, &mut result] {
        let answer = client.until(b"Z").unwrap();
        assert_eq!(answer.status, b'I');
        assert!(answer.errors.iter().all(|error| ["40001", "08007"].contains(&&*error.code)), "{:?}", answer.errors);
    }
    pipeline.send(&Batch::new().sync().0).unwrap();
    failed(pipeline.until(b"Z").unwrap(), "40001", b'I');
    let answer = alone.until(b"Z").unwrap();
    assert!(["40001", "08007"].contains(&answer.code()), "{answer:?}");
    let farewell = pinned.rest();
    assert_eq!(farewell.code(), "57P01");
    assert!(farewell.errors[0].detail.contains("temporary object"), "{farewell:?}");
    for client in
        [&mut block, &mut cursor, &mut copy_in, &mut copy_out, &mut result, &mut pipeline, &mut alone, &mut reader]
    {
        // Nothing but the one that was told so is there.
        assert_eq!(client.value("SELECT string_agg(id::text, ',') FROM t WHERE id < 0"), "-5");
        client.run("BEGIN; SELECT 1; COMMIT");
    }
}

#[test]
fn a_read_on_the_primary_that_was_not_answered_is_asked_again() {
    let cluster = watched_cluster(1);
    let primary = &cluster.nodes()[0];
    primary.sql("CREATE TABLE t (id int PRIMARY KEY)").unwrap();
    cluster.wait_for_replicas().unwrap();
    let ledger = Ledger::of(&cluster);
    let proxy = Proxy::start(&cluster, &reads(&cluster, ""));
    until_replicas_serve(proxy.port, &ledger);
    let standby = &cluster.nodes()[1];
    let mut client = Login::to(proxy.port).connect();
    // Replay stands still, so that who has written reads on the primary; and there the read waits for a lock.
    standby.sql("SELECT pg_wal_replay_pause()").unwrap();
    client.run("INSERT INTO t VALUES (1)");
    let mut locker = Login::to(primary.port()).connect();
    locker.run("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
    let mark = mark("waiting");
    let read = format!("SELECT count(*) FROM t /* {mark} */");
    client.send(&Batch::new().parse("", &read).describe(b'S', "").run("", &[]).sync().0).unwrap();
    wait_until(DEADLINE, "it waits for the lock", || {
        primary.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").unwrap() == "1"
    });
    primary.stop(Shutdown::Kill);
    standby.sql("SELECT pg_wal_replay_resume()").unwrap();
    standby.sql("SELECT pg_promote()").unwrap();
    assert_eq!(client.until(b"Z").unwrap().value(), "1");
    assert!(ledger.count(&mark).of("n2") > 0, "it was answered where it ran");
}

/// Stands between the proxy and a node, and can cut every connection without either of them having a say in it.
struct Cable {
    port: u16,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cable {
    fn to(node: u16) -> Cable {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let known = connections.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", node))) else { continue };
                known.lock().unwrap().push(client.try_clone().unwrap());
                for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                {
                    std::thread::spawn(move || {
                        let mut bytes = [0; 65536];
                        while let Ok(read @ 1..) = from.read(&mut bytes) {
                            if to.write_all(&bytes[..read]).is_err() {
                                break;
                            }
                        }
                        // The server's side stays as it is: it is not told that anything has happened.
                    });
                }
            }
        });
        Cable { port, connections }
    }

    fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// The server lives and is the primary still: it is the one to ask.
#[test]
fn a_commit_whose_connection_was_cut_is_asked_about_where_it_ran() {
    for epoch in [0, 1] {
        for commits in [true, false] {
            let cluster = cluster(0);
            let node = &cluster.nodes()[0];
            node.sql("CREATE TABLE t (id int PRIMARY KEY)").unwrap();
            let cable = Cable::to(node.port());
            let mut settings = trusting(&cluster, "");
            settings.left_out = vec!["n1"];
            settings.sections += &format!(
                "\n[failover]\nhold = \"60s\"\n[[cluster.nodes]]\nid = \"n1\"\nhost = \"127.0.0.1\"\nport = {}",
                cable.port
            );
            let proxy = InProcess::start(&cluster, &settings);
            if epoch > 0 {
                proxy.shared().open_writes(Epoch(epoch));
            }
            let mut client = Login::to(proxy.address.port()).connect();
            // A deferred constraint makes the COMMIT take as long as somebody else wants.
            client.run("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END'");
            client.run("CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f()");
            drop(client);
            let mut client = Login::to(proxy.address.port()).connect();
            let mut other = Login::to(node.port()).connect();
            other.run("SELECT pg_advisory_lock(7)");
            client.run("BEGIN");
            client.run("INSERT INTO t VALUES (1)");
            send(&mut client, "COMMIT");
            wait_until(DEADLINE, "the commit waits", || {
                node.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'").unwrap() == "1"
            });
            cable.cut();
            // It goes on for all that, and ends as it ends.
            std::thread::sleep(Duration::from_millis(200));
            match commits {
                true => drop(other.run("SELECT pg_advisory_unlock(7)")),
                false => {
                    let sql = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'advisory'";
                    node.sql(sql).unwrap();
                }
            }
            let answer = client.until(b"Z").unwrap();
            assert_eq!(answer.status, b'I');
            match commits {
                true => assert_eq!(answer.ok().done, ["COMMIT"]),
                false => assert_eq!(answer.code(), "40001"),
            }
            assert_eq!(client.value("SELECT count(*) FROM t"), if commits { "1" } else { "0" });
        }
    }
}
