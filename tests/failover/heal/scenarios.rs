//! What is done to the cluster. Each ends with everything as it was, and the judge.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use super::field::Field;
use crate::checker::Verdict;
use crate::load::Log;
use crate::support::{bin, wait_until};
use crate::wire::Rng;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A machine is without power, frozen or cut off for so long.
fn pass(random: &mut Rng, from_ms: usize, to_ms: usize) {
    let ms = from_ms + random.below(to_ms - from_ms);
    std::thread::sleep(Duration::from_millis(ms as u64));
}

/// Breaks something, repairs what only people can (power, cables), and says what it was.
fn break_something(field: &Field, random: &mut Rng) -> String {
    let ids = field.ids();
    let primary = field.record().primary;
    // The primary half of the time.
    let id = match random.below(2) {
        0 => primary.clone(),
        _ => ids[random.below(ids.len())].clone(),
    };
    let others: Vec<String> = ids.iter().filter(|other| **other != id).cloned().collect();
    let other = others[random.below(others.len())].clone();
    let host = field.host(&id);
    let what = match random.below(9) {
        0 | 1 => {
            host.kill_server();
            "kill -9 of the server"
        }
        2 => {
            host.kill();
            pass(random, 200, 3000);
            host.start();
            "power failure"
        }
        3 => {
            host.freeze(false);
            pass(random, 500, 6000);
            host.thaw();
            "the server frozen"
        }
        4 => {
            host.freeze(true);
            pass(random, 500, 6000);
            host.thaw();
            "the machine frozen"
        }
        5 => {
            field.network.isolate(&id);
            pass(random, 500, 8000);
            field.network.heal();
            "cut from everybody"
        }
        6 => {
            field.network.cut(&id, &other);
            pass(random, 500, 6000);
            field.network.heal();
            "cut from another node"
        }
        7 => {
            host.kill();
            // What the last one alone has cannot be had again.
            host.wipe();
            host.start();
            "a new disk"
        }
        _ => {
            host.kill_agent();
            pass(random, 100, 1000);
            host.start();
            "kill -9 of the agent"
        }
    };
    format!("{id}{}: {what}", if id == primary { " (the primary)" } else { "" })
}

#[test]
fn twenty_faults_in_a_row() {
    let _turn = crate::turn();
    let Some(field) = Field::new("twenty faults in a row", 3) else { return };
    let seed = number("PGBATON_HEAL_SEED", u64::from(std::process::id()));
    println!("PGBATON_HEAL_SEED={seed}");
    let mut random = Rng(seed);
    for round in 1..=number("PGBATON_HEAL_FAULTS", 20) {
        let what = break_something(&field, &mut random);
        field.wait_for_writes();
        let took = field.wait_until_whole(&format!("seed {seed}, fault {round}, {what}"));
        println!("{round:3}  {what}: whole after {:.1} s, epoch {}", took.as_secs_f64(), field.record().epoch);
    }
    let (log, verdict) = field.judge();
    println!("{} acknowledged, longest without a write {:?}", verdict.acknowledged, log.write_gap(Duration::ZERO));
    assert_eq!(verdict.dropped(), 0, "{verdict}");
}

#[test]
fn an_old_primary_is_a_standby_again_and_what_it_alone_had_is_kept() {
    let _turn = crate::turn();
    let Some(field) = Field::new("the old primary returns", 3) else { return };
    let old = field.record().primary;
    field.host(&old).kill();
    field.wait_for_writes();
    assert_ne!(field.record().primary, old);
    field.host(&old).start();
    field.wait_until_whole("the old primary is back");
    let history = field.order(&["history"]).unwrap();
    let is_told =
        |line: &str| line.contains(&old) && ["follow", "rewind", "rebuild"].iter().any(|way| line.contains(way));
    assert!(history.lines().any(is_told), "{history}");
    field.live_on();
    field.judge();
}

/// No error, no doubt, no connection lost. What clients undid themselves is no failure.
fn assert_nobody_noticed(log: &Log, verdict: &Verdict) {
    let failed: Vec<&String> = verdict.failed.keys().filter(|why| *why != "ROLLBACK").collect();
    assert!(failed.is_empty() && verdict.unknown.is_empty(), "{verdict}\n{:?}", log.samples);
    assert!(log.other_errors.is_empty(), "{:?}\n{:?}", log.other_errors, log.samples);
    assert_eq!(verdict.dropped(), 0, "{verdict}");
}

#[test]
fn every_node_is_restarted_in_turn_and_nobody_notices() {
    let _turn = crate::turn();
    let Some(field) = Field::new("rolling restart", 3) else { return };
    let first = field.record().primary;
    let restart = |id: &str| {
        field.order(&["restart", id]).unwrap_or_else(|reason| panic!("{id}: {reason}"));
        field.wait_until_whole(&format!("{id} was restarted"));
        field.live_on();
    };
    for id in field.ids().iter().filter(|id| **id != first) {
        restart(id);
    }
    field.order(&["switchover"]).unwrap();
    field.wait_until_whole("another is the primary");
    restart(&first);
    let (log, verdict) = field.judge();
    println!("longest without a write {:?}", log.write_gap(Duration::ZERO));
    assert_nobody_noticed(&log, &verdict);
}

#[test]
fn ten_switchovers_cost_nobody_anything() {
    let _turn = crate::turn();
    let Some(field) = Field::new("ten switchovers", 3) else { return };
    let mut pauses = Vec::new();
    for round in 1..=10 {
        let (before, began) = (field.record(), field.now());
        field.order(&["switchover"]).unwrap_or_else(|reason| panic!("round {round}: {reason}"));
        assert_ne!(field.record().primary, before.primary);
        field.wait_until_whole(&format!("switchover {round}"));
        field.live_on();
        pauses.push((began, field.now()));
    }
    let (log, verdict) = field.judge();
    let mut gaps: Vec<u128> = pauses.iter().map(|(from, to)| log.write_gap_within(*from, *to).as_millis()).collect();
    gaps.sort_unstable();
    println!("without a write, in ms: {gaps:?}, median {}", gaps[gaps.len() / 2]);
    assert_nobody_noticed(&log, &verdict);
}

#[test]
fn a_replica_with_a_new_disk_is_made_anew() {
    let _turn = crate::turn();
    let Some(field) = Field::new("a new disk", 3) else { return };
    let replica = field.ids().into_iter().find(|id| *id != field.record().primary).unwrap();
    let epoch = field.record().epoch;
    field.host(&replica).kill();
    field.host(&replica).wipe();
    field.host(&replica).start();
    field.wait_until_whole("a new disk");
    assert_eq!(field.record().epoch, epoch, "no failover for that");
    let history = field.order(&["history"]).unwrap();
    wait_until(super::field::WHOLE, "the history tells", || {
        let is_told = |line: &str| line.contains(&replica) && line.contains("rebuild");
        field.order(&["history"]).is_ok_and(|history| history.lines().any(is_told))
    });
    assert!(!history.is_empty());
    field.judge();
}

/// A server of another cluster, made where a node's data was; returns its system identifier.
fn make_another_cluster(directory: &Path) -> String {
    let run = |program: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"]);
        let output = command.arg(bin().program(program)).args(arguments).current_dir("/").output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let directory = directory.to_str().unwrap();
    run("initdb", &["-D", directory, "--no-sync", "-A", "reject"]);
    let said = run("pg_controldata", &[directory]);
    let line = said.lines().find(|line| line.starts_with("Database system identifier")).unwrap();
    line.split(':').nth(1).unwrap().trim().to_owned()
}

#[test]
fn what_an_agent_cannot_do_is_told_at_list_and_the_node_keeps_its_data() {
    let _turn = crate::turn();
    let Some(field) = Field::new("told at list", 3) else { return };
    let id = field.ids().into_iter().find(|id| *id != field.record().primary).unwrap();
    let host = field.host(&id);
    let data = host.data_directory();

    // Somebody else has its port.
    host.kill();
    let address = (field.network.address(&id), super::field::PORT);
    let listener = std::thread::scope(|scope| {
        let listens = scope.spawn(|| {
            field.network.enter(&id);
            TcpListener::bind(address).unwrap()
        });
        listens.join().unwrap()
    });
    host.start();
    field.wait_until_listed(&id, &["port"]);
    drop(listener);
    field.wait_until_whole("the port is free again");

    // Another cluster's data is in its place, and stays there.
    host.kill();
    let aside = data.with_extension("aside");
    std::fs::rename(&data, &aside).unwrap();
    let other = make_another_cluster(&data);
    host.start();
    field.wait_until_listed(&id, &["another cluster", "other cluster"]);
    host.kill();
    let output = std::process::Command::new(bin().program("pg_controldata")).arg(&data).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(&other), "its data is as it was");
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&aside, &data).unwrap();
    host.start();
    field.wait_until_whole("its own data is back");

    // The password is wrong when it has to be made anew.
    host.kill();
    host.wipe();
    host.believe_password("not-this-one");
    host.start();
    field.wait_until_listed(&id, &["password"]);
    host.kill_agent();
    host.believe_password(super::field::CONTROL_PASSWORD);
    host.start();
    field.wait_until_whole("the password is right again");

    // The disk is too small for a copy.
    host.kill();
    host.wipe();
    let disk = Disk::mount(&data, "24m");
    host.start();
    field.wait_until_listed(&id, &["are free"]);
    host.kill();
    drop(disk);
    host.start();
    field.wait_until_whole("the disk is large enough");
    field.judge();
}

/// A small disk, mounted until this is dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Disk {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=0777");
        let status = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(at).status();
        assert!(status.unwrap().success());
        Disk(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}
