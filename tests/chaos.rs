//! Two hundred clients over twenty server connections, each with an identity of its own, killed at random in every state:
//! no client ever sees another's row, setting, prepared statement, notice or error, and nothing is left on the server.
//!
//! `PGBATON_CHAOS_SECONDS` says how long (15 if not given; 60 shows more), `PGBATON_SEED` repeats the choices of a run.

#[path = "support/life.rs"]
mod life;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use life::{End, Life, SCHEMAS, SETUP};
use support::{DEADLINE, Proxy, shared_cluster, wait_until};
use wire::{Batch, Login, Rng, Wire, seed, trusting};

const CLIENTS: u64 = 200;
const POOL: usize = 20;

fn duration() -> Duration {
    let given = std::env::var("PGBATON_CHAOS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(15))
}

/// What all lives of a run share.
#[derive(Default)]
struct World {
    stop: AtomicBool,
    lives: AtomicU64,
    killed: AtomicU64,
    actions: AtomicU64,
    wrong: Mutex<Vec<String>>,
    /// Transactions prepared by clients that did not live to finish them: PostgreSQL keeps these for whoever comes.
    orphans: Mutex<Vec<String>>,
}

fn live(number: u64, login: &Login, random: &mut Rng, world: &World) {
    let mut life_number = 0;
    while !world.stop.load(Ordering::Relaxed) {
        life_number += 1;
        let id = format!("c{number}l{life_number}");
        let doom = random.chance(60).then(|| 1 + random.below(120));
        let mut life = match Life::begin(login, &id, random.clone(), doom) {
            Ok(life) => life,
            Err(error) => {
                world.wrong.lock().unwrap().push(format!("{id}: no login: {error}"));
                world.stop.store(true, Ordering::Relaxed);
                return;
            }
        };
        world.lives.fetch_add(1, Ordering::Relaxed);
        let mut end = life.introduce();
        for _ in 0..10 + random.below(40) {
            if end.is_err() || world.stop.load(Ordering::Relaxed) {
                break;
            }
            end = life.act();
            world.actions.fetch_add(1, Ordering::Relaxed);
        }
        random.0 = random.0.wrapping_add(life.steps());
        world.orphans.lock().unwrap().extend(life.orphan.take());
        match end {
            Ok(()) => life.leave(),
            Err(End::Killed) => {
                world.killed.fetch_add(1, Ordering::Relaxed);
            }
            Err(End::Wrong(what)) => {
                world.wrong.lock().unwrap().push(format!("{id}: {what}"));
                world.stop.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Client connections on the node other than our own.
fn server_connections(direct: &mut Wire) -> usize {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'demo' AND backend_type = 'client backend' \
               AND pid <> pg_backend_pid()";
    direct.value(sql).parse().unwrap()
}

#[test]
fn two_hundred_clients_over_twenty_connections_never_meet() {
    let cluster = shared_cluster();
    let node = cluster.primary().unwrap();
    let mut direct = Login::to(node.port()).connect();
    for schema in SCHEMAS {
        direct
            .run(&format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.whose AS SELECT '{schema}'::text AS schema"));
    }
    direct.run(SETUP);
    let proxy = Proxy::start(cluster, &trusting(cluster, &format!("pool_size = {POOL}")));
    let seed = seed("chaos");
    let world = Arc::new(World::default());
    let begin = Instant::now();
    let threads: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (world, port) = (world.clone(), proxy.port);
            let mut random = Rng(seed ^ number.wrapping_mul(0x5851_f42d_4c95_7f2d));
            let body = move || live(number, &Login::to(port), &mut random, &world);
            std::thread::Builder::new().stack_size(512 * 1024).spawn(body).unwrap()
        })
        .collect();
    let mut most = 0;
    while begin.elapsed() < duration() && !world.stop.load(Ordering::Relaxed) {
        most = most.max(server_connections(&mut direct));
        std::thread::sleep(Duration::from_millis(100));
    }
    world.stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    println!(
        "{} lives, {} of them killed, {} actions, {most} server connections at the most",
        count(&world.lives),
        count(&world.killed),
        count(&world.actions)
    );
    let wrong = world.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
    assert!(count(&world.killed) > 0 && count(&world.actions) > CLIENTS, "nothing happened");
    // A backend whose connection was closed in the middle of something may take a moment to notice.
    assert!(most <= 2 * POOL, "{most} server connections");
    nothing_is_left(&mut direct, &proxy, &world.orphans.lock().unwrap());
}

/// Looks from outside, and then from inside each pooled connection.
fn nothing_is_left(direct: &mut Wire, proxy: &Proxy, orphans: &[String]) {
    for (what, sql) in [
        ("advisory locks", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
        ("temporary tables", "SELECT count(*) FROM pg_class WHERE relpersistence = 't'"),
        (
            "open transactions",
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'demo' AND pid <> pg_backend_pid() \
             AND (state <> 'idle' OR xact_start IS NOT NULL)",
        ),
    ] {
        wait_until(DEADLINE, what, || direct.value(sql) == "0");
    }
    wait_until(DEADLINE, "no more than the pool's connections", || server_connections(direct) <= POOL);
    for gid in direct.query("SELECT gid FROM pg_prepared_xacts").rows {
        let gid = gid[0].clone().unwrap();
        assert!(orphans.contains(&gid), "transaction {gid} is prepared, and who prepared it has lived to finish it");
        direct.run(&format!("ROLLBACK PREPARED '{gid}'"));
    }
    let mut inside: Vec<Wire> = (0..POOL).map(|_| Login::to(proxy.port).connect()).collect();
    for wire in &mut inside {
        wire.run("BEGIN");
    }
    for wire in &mut inside {
        let table = wire.query(
            "SELECT (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors), \
             coalesce(current_setting('my.id', true), ''), current_setting('search_path'), \
             current_setting('application_name'), (SELECT count(*) FROM pg_prepared_statements \
             WHERE name NOT LIKE 'pgbaton%')",
        );
        assert_eq!(table.ok().table(), "0|0||\"$user\", public||0");
    }
}

#[test]
fn clients_with_different_startup_options_take_turns_on_one_connection() {
    let cluster = shared_cluster();
    let proxy = Proxy::start(cluster, &trusting(cluster, "pool_size = 1\npool_wait = \"5s\""));
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..6)
        .map(|number| {
            let (stop, port) = (stop.clone(), proxy.port);
            std::thread::spawn(move || {
                let kind = format!("-c my.kind={}", number % 3);
                let mut me = Login::to(port).with("options", &kind).connect();
                let mut turns = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = me.batch(Batch::new().query("SELECT current_setting('my.kind')"));
                    assert_eq!(answer.value(), (number % 3).to_string());
                    turns += 1;
                }
                turns
            })
        })
        .collect();
    std::thread::sleep(duration().min(Duration::from_secs(5)));
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        assert!(thread.join().unwrap() > 0);
    }
}
