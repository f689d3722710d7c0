//! Reads are as fresh as was asked for, while replay on the replicas is paused, delayed and resumed at random: nobody at
//! `session` misses a write of its own or sees time run backward, and `strong` sees what anybody has committed.
//!
//! `PGBATON_FRESHNESS_SECONDS` says for how long (15 if not given; 60 shows more), `PGBATON_SEED` repeats the choices of a
//! run. Where reads ran is read in the nodes' own logs.

#[path = "support/nodes.rs"]
mod nodes;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use nodes::{Disturber, Ledger, Standby, mark, reads, until_replicas_serve, watched_cluster};
use pgbaton::demo::Cluster;
use support::{DEADLINE, Proxy, wait_until};
use wire::{Answer, Batch, Login, Rng, Wire, seed};

const CLIENTS: u64 = 50;
const SHARED: usize = 4;

fn duration() -> Duration {
    let given = std::env::var("PGBATON_FRESHNESS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(15))
}

fn set_up(cluster: &Cluster) {
    cluster.nodes()[0]
        .sql(&format!(
            "CREATE TABLE own (id int PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 50);
             CREATE TABLE shared (id int PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 50);
             CREATE TABLE clock (at bigint NOT NULL);
             INSERT INTO own SELECT id, 0 FROM generate_series(0, {}) id;
             INSERT INTO shared SELECT id, 0 FROM generate_series(0, {}) id;
             INSERT INTO clock VALUES (0);
             CREATE FUNCTION bump(who int) RETURNS bigint LANGUAGE sql AS
                 'UPDATE own SET n = n + 1 WHERE id = who RETURNING n'",
            CLIENTS - 1,
            SHARED - 1
        ))
        .unwrap();
    cluster.wait_for_replicas().unwrap();
}

/// Two replicas, and a proxy with these lines below `[reads]` that knows of both.
fn ground(lines: &str) -> (Cluster, Proxy, Ledger) {
    let cluster = watched_cluster(2);
    set_up(&cluster);
    let ledger = Ledger::of(&cluster);
    let proxy = Proxy::start(&cluster, &reads(&cluster, lines));
    (cluster, proxy, ledger)
}

// --- session ----------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct World {
    stop: AtomicBool,
    reads: AtomicU64,
    writes: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// One session: what it wrote and what it saw.
struct Reader {
    wire: Wire,
    id: u64,
    random: Rng,
    own: i64,
    shared: [i64; SHARED],
    mark: String,
    is_prepared: bool,
}

impl Reader {
    fn ask(&mut self, batch: Batch) -> Result<Answer, String> {
        let answer = self.wire.ask(batch).map_err(|error| error.to_string())?;
        if answer.errors.is_empty() { Ok(answer) } else { Err(format!("{:?}", answer.errors)) }
    }

    fn query(&mut self, sql: &str) -> Result<Answer, String> {
        self.ask(Batch::new().query(sql)).map_err(|error| format!("{sql}: {error}"))
    }

    fn write(&mut self) -> Result<(), String> {
        let update = format!("UPDATE own SET n = n + 1 WHERE id = {}", self.id);
        match self.random.below(9) {
            0 => self.query(&update)?,
            1 => self.ask(Batch::new().parse("", &update).run("", &[]).sync())?,
            2 => {
                self.query("BEGIN")?;
                self.query(&update)?;
                self.query("COMMIT")?
            }
            3 => self.query(&format!("BEGIN; {update}; COMMIT"))?,
            4 => self.query(&format!("WITH changed AS ({update} RETURNING n) SELECT n FROM changed"))?,
            // Looks like a read.
            5 => self.query(&format!("SELECT bump({})", self.id))?,
            6 => {
                let batch = Batch::new().parse("", "BEGIN").run("", &[]).parse("", &update).run("", &[]);
                self.ask(batch.parse("", "COMMIT").run("", &[]).sync())?
            }
            7 => {
                self.query(&format!("BEGIN; {update}; ROLLBACK"))?;
                return Ok(());
            }
            _ => {
                let at = self.random.below(SHARED);
                let answer = self.query(&format!("UPDATE shared SET n = n + 1 WHERE id = {at} RETURNING n"))?;
                self.shared[at] = answer.value().parse().unwrap();
                return Ok(());
            }
        };
        self.own += 1;
        Ok(())
    }

    /// Reads its own counter and a shared one, and holds them against what it knows.
    fn read(&mut self) -> Result<(), String> {
        let (id, at) = (self.id.to_string(), self.random.below(SHARED));
        let shared = at.to_string();
        let with = |own: &str, shared: &str| {
            format!("SELECT o.n, s.n FROM own o, shared s WHERE o.id = {own} AND s.id = {shared} /* {} */", self.mark)
        };
        let (plain, open) = (with(&id, &shared), with("$1", "$2"));
        let parameters = [Some(id.as_str()), Some(shared.as_str())];
        let shape = self.random.below(8);
        let answer = match shape {
            0 | 1 => self.query(&plain)?,
            2 => self.ask(Batch::new().parse("", &open).run("", &parameters).sync())?,
            3 => {
                let prepare = if self.is_prepared { Batch::new() } else { Batch::new().parse("both", &open) };
                self.is_prepared = true;
                self.ask(prepare.run("both", &parameters).sync())?
            }
            4 => {
                self.query("BEGIN READ ONLY")?;
                let first = self.query(&plain)?;
                self.check(&first, at, "in a read-only block")?;
                let second = self.query(&plain)?;
                self.query("COMMIT")?;
                second
            }
            5 => {
                self.query("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
                let first = self.query(&plain)?;
                let second = self.ask(Batch::new().parse("", &open).run("", &parameters).sync())?;
                self.query("ROLLBACK")?;
                if first.rows != second.rows {
                    return Err(format!("two reads of one snapshot: {:?}, {:?}", first.rows, second.rows));
                }
                second
            }
            6 => self.query(&format!("BEGIN READ ONLY; {plain}; COMMIT"))?,
            _ => {
                let batch = Batch::new().parse("", "BEGIN READ ONLY").run("", &[]);
                let batch = batch.parse("", &open).run("", &parameters);
                self.ask(batch.parse("", "COMMIT").run("", &[]).sync())?
            }
        };
        self.check(&answer, at, &format!("read of shape {shape}"))
    }

    fn check(&mut self, answer: &Answer, at: usize, how: &str) -> Result<(), String> {
        let row: Vec<i64> = match answer.rows.as_slice() {
            [row] => row.iter().flatten().filter_map(|value| value.parse().ok()).collect(),
            _ => Vec::new(),
        };
        let [own, shared] = row[..] else { return Err(format!("{how}: not two numbers: {answer:?}")) };
        if own != self.own {
            return Err(format!("{how}: stale: own counter is {own}, written was {}", self.own));
        }
        if shared < self.shared[at] {
            return Err(format!("{how}: backward: shared counter {at} is {shared}, seen was {}", self.shared[at]));
        }
        self.shared[at] = shared;
        Ok(())
    }

    fn live(&mut self, world: &World) -> Result<(), String> {
        while !world.stop.load(Ordering::Relaxed) {
            for _ in 0..self.random.below(3) {
                self.write()?;
                world.writes.fetch_add(1, Ordering::Relaxed);
            }
            for _ in 0..3 + self.random.below(6) {
                self.read()?;
                world.reads.fetch_add(1, Ordering::Relaxed);
                // At once, or after a time in which replicas may have caught up.
                if self.random.chance(30) {
                    std::thread::sleep(Duration::from_millis(self.random.next() % 800));
                }
            }
        }
        Ok(())
    }
}

#[test]
fn fifty_sessions_read_their_writes_and_never_see_time_run_backward() {
    let (cluster, proxy, ledger) = ground("");
    let seed = seed("freshness");
    let mark = mark("session");
    let world = Arc::new(World::default());
    let disturber = Disturber::start(&cluster, seed);
    let threads: Vec<_> = (0..CLIENTS)
        .map(|id| {
            let (world, port, mark) = (world.clone(), proxy.port, mark.clone());
            let random = Rng(seed ^ id.wrapping_mul(0x5851_f42d_4c95_7f2d));
            std::thread::spawn(move || {
                let wire = Login::to(port).connect();
                let mut reader = Reader { wire, id, random, own: 0, shared: [0; SHARED], mark, is_prepared: false };
                if let Err(what) = reader.live(&world) {
                    world.wrong.lock().unwrap().push(format!("session {id}: {what}"));
                    world.stop.store(true, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let begin = Instant::now();
    while begin.elapsed() < duration() && !world.stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
    }
    world.stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let acts = disturber.end();
    let shares = ledger.count(&mark);
    let (reads, writes) = (world.reads.load(Ordering::Relaxed), world.writes.load(Ordering::Relaxed));
    println!("{reads} reads, {writes} writes, {acts} disturbances; reads ran on {shares}");
    let wrong = world.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(shares.replicas() * 10 > shares.total(), "too few reads ran on replicas: {shares}");
    for standby in ["n2", "n3"] {
        assert!(shares.of(standby) > 0, "no read ran on {standby}: {shares}");
    }
}

// --- strong -----------------------------------------------------------------------------------------------------------

#[test]
fn a_strong_read_sees_what_another_session_has_just_committed() {
    let (cluster, proxy, ledger) = ground("");
    let seed = seed("strong");
    let mark = mark("strong");
    let disturber = Disturber::start(&cluster, seed);
    let until = Instant::now() + duration() / 2;
    let pairs = (0..4u64).map(|pair| {
        let (port, mark) = (proxy.port, mark.clone());
        std::thread::spawn(move || {
            // Out of band: nothing of this passes the proxy.
            let (tell, told) = mpsc::sync_channel::<u64>(0);
            let (thank, thanked) = mpsc::sync_channel::<()>(0);
            let reader = std::thread::spawn(move || {
                // Asked for in each of the ways there are.
                let login = Login::to(port);
                let mut client = match pair % 2 {
                    0 => login.with("options", "-c pgbaton.consistency=strong").connect(),
                    _ => login.connect(),
                };
                if pair % 2 == 1 {
                    client.run("SET pgbaton.consistency = 'strong'");
                }
                let sql = format!("SELECT n FROM own WHERE id = {pair} /* {mark} */");
                let mut checked = 0u64;
                while let Ok(committed) = told.recv() {
                    let seen = match committed % 3 {
                        0 => client.batch(Batch::new().parse("", &sql).run("", &[]).sync()).value().to_owned(),
                        1 => client.value(&format!("BEGIN READ ONLY; {sql}; COMMIT")),
                        _ => client.value(&sql),
                    };
                    assert_eq!(seen, committed.to_string(), "a strong read missed a commit");
                    checked += 1;
                    thank.send(()).unwrap();
                }
                checked
            });
            let mut writer = Login::to(port).connect();
            let mut random = Rng(seed ^ pair);
            let mut number = 0;
            while Instant::now() < until {
                number += 1;
                writer.run(&format!("UPDATE own SET n = n + 1 WHERE id = {pair}"));
                if tell.send(number).is_err() || thanked.recv().is_err() {
                    break;
                }
                if random.chance(2) {
                    std::thread::sleep(Duration::from_millis(random.next() % 50));
                }
            }
            drop(tell);
            reader.join().unwrap()
        })
    });
    let checked: u64 = pairs.collect::<Vec<_>>().into_iter().map(|pair| pair.join().unwrap()).sum();
    disturber.end();
    println!("{checked} strong reads ran on {}", ledger.count(&mark));
    assert!(checked > 100);
    let mut other = Login::to(proxy.port).connect();
    assert_eq!(other.query("SET pgbaton.consistency = 'sometimes'").code(), "22023");
    other.run("SET pgbaton.consistency = 'strong'");
    assert_eq!(other.value("SHOW pgbaton.consistency"), "strong");
}

// --- eventual, bounded ------------------------------------------------------------------------------------------------

#[test]
fn an_eventual_read_may_be_stale_and_a_session_read_beside_it_is_not() {
    let (cluster, proxy, ledger) = ground("");
    until_replicas_serve(proxy.port, &ledger);
    let mut standbys = Standby::all(&cluster);
    standbys.iter_mut().for_each(Standby::pause);
    let mut client = Login::to(proxy.port).connect();
    client.run("UPDATE own SET n = 7 WHERE id = 7");
    for _ in 0..50 {
        assert_eq!(client.value("SELECT n FROM own WHERE id = 7"), "7");
    }
    let mut other = Login::to(proxy.port).connect();
    other.run("SET pgbaton.consistency = 'eventual'");
    wait_until(DEADLINE, "an eventual read is stale while replay is paused", || {
        other.value("SELECT n FROM own WHERE id = 7") == "0"
    });
    other.run("SET pgbaton.consistency = 'strong'");
    assert_eq!(other.value("SELECT n FROM own WHERE id = 7"), "7");
    // What was written earlier in this session is still known when it asks for more again.
    client.run("SET pgbaton.consistency = 'eventual'");
    client.value("SELECT n FROM own WHERE id = 7");
    client.run("SET pgbaton.consistency = 'session'");
    assert_eq!(client.value("SELECT n FROM own WHERE id = 7"), "7");
    client.run("BEGIN; SET LOCAL pgbaton.consistency = 'eventual'; COMMIT");
    assert_eq!(client.value("SELECT n FROM own WHERE id = 7"), "7");
    standbys.iter_mut().for_each(Standby::resume);
}

/// What the test itself needs: the proxy looks four times a second, and this machine may be busy.
const SLACK: Duration = Duration::from_secs(2);

#[test]
fn a_bounded_read_is_never_older_than_the_bound() {
    let max_lag = Duration::from_secs(2);
    let (cluster, proxy, ledger) = ground("consistency = \"bounded\"\nmax_lag = \"2s\"\nslow_start = \"0s\"");
    until_replicas_serve(proxy.port, &ledger);
    let begin = Instant::now();
    let now = move || begin.elapsed().as_millis() as u64;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (mut direct, stop) = (Login::to(cluster.nodes()[0].port()).connect(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                direct.run(&format!("UPDATE clock SET at = {}", now()));
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let mut client = Login::to(proxy.port).connect();
    let mut age = |mark: &str| {
        let asked = now();
        let at: u64 = client.value(&format!("SELECT at FROM clock /* {mark} */")).parse().unwrap();
        Duration::from_millis(asked.saturating_sub(at))
    };
    let mut standbys = Standby::all(&cluster);
    wait_until(DEADLINE, "the clock runs", || age("first") < max_lag);
    standbys.iter_mut().for_each(Standby::pause);
    let (within, mut oldest) = (mark("within"), Duration::ZERO);
    wait_until(DEADLINE, "reads go to the primary once the replicas are too old", || {
        oldest = oldest.max(age(&within));
        ledger.count(&within).of("n1") > 0
    });
    println!("the oldest read was {oldest:?} old; reads ran on {}", ledger.count(&within));
    assert!(ledger.count(&within).replicas() > 0, "replicas a little behind serve bounded reads");
    // Nothing older turns up later either.
    let begin = Instant::now();
    while begin.elapsed() < max_lag + SLACK {
        oldest = oldest.max(age("beyond"));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(oldest < max_lag + SLACK, "a read was {oldest:?} old");
    standbys.iter_mut().for_each(Standby::resume);
    until_replicas_serve(proxy.port, &ledger);
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

// --- tokens -----------------------------------------------------------------------------------------------------------

#[test]
fn a_token_carries_one_services_writes_to_another() {
    let (cluster, proxy, ledger) = ground("");
    let elsewhere = Proxy::start(&cluster, &reads(&cluster, ""));
    until_replicas_serve(proxy.port, &ledger);
    until_replicas_serve(elsewhere.port, &ledger);
    let mut standbys = Standby::all(&cluster);
    let mut first = Login::to(proxy.port).connect();
    // Through the same proxy and through another one, which knows nothing of the first one's sessions.
    let mut others = [Login::to(proxy.port).connect(), Login::to(elsewhere.port).connect()];
    let mut number = 0;
    for round in 0..60 {
        match round {
            40 => standbys[0].pause(),
            50 => standbys[1].pause(),
            _ => {}
        }
        for consistency in ["eventual", "session"] {
            number += 1;
            first.run(&format!("UPDATE own SET n = {number} WHERE id = 1"));
            let token = first.value("SHOW pgbaton.lsn");
            for (at, other) in others.iter_mut().enumerate() {
                other.run(&format!("SET pgbaton.consistency = '{consistency}'"));
                other.run(&format!("SET pgbaton.min_lsn = '{token}'"));
                let seen = other.value("SELECT n FROM own WHERE id = 1");
                assert_eq!(seen, number.to_string(), "round {round}, {consistency}, client {at}, token {token}");
            }
        }
    }
    standbys.iter_mut().for_each(Standby::resume);
}

#[test]
fn a_token_that_is_none_is_refused_and_the_session_goes_on() {
    let cluster = watched_cluster(0);
    let proxy = Proxy::start(&cluster, &reads(&cluster, ""));
    let mut client = Login::to(proxy.port).connect();
    for token in ["rubbish", "0/", "/", "1:0/xyz", "-1", "0/1/2", "18446744073709551616", "0/0; DROP TABLE own"] {
        assert_eq!(client.query(&format!("SET pgbaton.min_lsn = '{token}'")).code(), "22023", "{token}");
        let batch = Batch::new().parse("", &format!("SET pgbaton.min_lsn = '{token}'")).run("", &[]).sync();
        assert_eq!(client.batch(batch).code(), "22023", "{token}");
        assert_eq!(client.value("SELECT 1"), "1");
    }
    let token = client.value("SHOW pgbaton.lsn");
    client.run(&format!("SET pgbaton.min_lsn = '{token}'"));
    assert_eq!(client.value("SELECT 2"), "2");
    // A cluster that was just found is in its first epoch.
    assert_eq!(client.value("SHOW pgbaton.epoch"), "1");
}
