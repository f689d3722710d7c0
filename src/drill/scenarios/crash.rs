//! The primary dies, or is not what it was.

use std::process::Command;
use std::time::Duration;

use super::{ANY, Scenario};
use crate::drill::faults;
use crate::drill::play::{LIMIT, Play, Step, Trouble};
use crate::drill::stage::Server;
use crate::drill::wire::Wire;
use crate::types::Durability;
use rustix::process::Signal;

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "kill-primary",
            does: "kill -9 of everything that is the primary's PostgreSQL, at once",
            expects: "another node takes over, or the old one is taken back if its agent was faster; all nodes are whole again",
            play: kill_primary,
            ..ANY
        },
        Scenario {
            name: "kill-postmaster",
            does: "kill -9 of the primary's postmaster alone; its children end each in their own time",
            expects: "another node takes over, or the old one is taken back if its agent was faster; all nodes are whole again",
            play: kill_postmaster,
            ..ANY
        },
        Scenario {
            name: "kill-backend",
            does: "kill -9 of one server process of the primary: all others end, it recovers, its port stays open",
            expects: "the primary is waited for, or replaced if that is faster",
            play: kill_backend,
            ..ANY
        },
        Scenario {
            name: "power-failure",
            does: "kill -9 of the primary's PostgreSQL and its agent at once; the host is back after a second",
            expects: "another node takes over, or the old one is taken back if its agent was faster; all nodes are whole again",
            play: power_failure,
            ..ANY
        },
        Scenario {
            name: "host-gone",
            does: "the primary's host vanishes without a goodbye, not even from its kernel; it is back ten seconds later",
            expects: "another node takes over, though nothing is refused and nothing answers",
            needs_network: true,
            play: host_gone,
            ..ANY
        },
        Scenario {
            name: "freeze-primary",
            does: "SIGSTOP to the primary's PostgreSQL and its agent, SIGCONT when another has taken over",
            expects: "another node takes over; nobody is served by the zombie, which becomes a standby",
            play: freeze_primary,
            ..ANY
        },
        Scenario {
            name: "freeze-primary-briefly",
            does: "SIGSTOP to the primary's PostgreSQL for half a second",
            expects: "clients wait, and nothing else happens",
            play: freeze_primary_briefly,
            ..ANY
        },
        Scenario {
            name: "crash-loop",
            does: "kill -9 of the postmaster of whichever node is the primary, three times in a row",
            expects: "each time one node is the primary in the end",
            play: crash_loop,
            ..ANY
        },
        Scenario {
            name: "restart-while-commits-wait",
            does: "the primary is cut off from its standbys, and crashes while commits wait for their acknowledgement",
            expects: "nobody is told that a commit is safe which is not",
            needs_network: true,
            only: Some(Durability::Quorum),
            play: restart_while_commits_wait,
            ..ANY
        },
        Scenario {
            name: "cannot-write",
            does: "the primary's disk takes nothing more: every write of its PostgreSQL fails",
            expects: "another node takes over, or the server is started anew and can write; nothing is lost",
            play: cannot_write,
            ..ANY
        },
        Scenario {
            name: "wiped-disk",
            does: "the primary's host goes down and comes back with an empty disk",
            expects: "another node takes over; the host is made a standby by a copy of everything",
            play: wiped_disk,
            ..ANY
        },
        Scenario {
            name: "max-connections",
            does: "somebody takes every connection of the primary that is left, the reserved ones too, for five seconds",
            expects: "it looks dead and is not: no failover, clients go on over the connections there are",
            is_smooth: true,
            play: max_connections,
            ..ANY
        },
    ]
}

fn kill_primary(play: &mut Play) -> Step {
    let old = play.primary();
    play.kill_server(&old);
    play.next_primary().map(drop)
}

fn kill_postmaster(play: &mut Play) -> Step {
    let old = play.primary();
    play.fault(format!("kill -9 of {old}'s postmaster"));
    if let Some(pid) = play.host(&old).server_pid() {
        faults::kill_alone(pid);
    }
    play.next_primary().map(drop)
}

fn kill_backend(play: &mut Play) -> Step {
    let old = play.primary();
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'demo'
               AND application_name <> 'psql' AND pid <> pg_backend_pid() LIMIT 1";
    let pid = play.ask(&old, sql)?;
    play.fault(format!("kill -9 of {old}'s server process {pid}"));
    faults::send(pid.parse().map_err(|_| Trouble::Stuck("no server process".into()))?, Signal::KILL);
    play.writes()
}

fn power_failure(play: &mut Play) -> Step {
    let old = play.primary();
    play.freeze(&old);
    play.fault(format!("kill -9 of {old}'s PostgreSQL and agent"));
    play.host(&old).kill_all();
    play.next_primary().map(drop)
}

fn host_gone(play: &mut Play) -> Step {
    let old = play.primary();
    let network = play.network()?;
    network.isolate(&old);
    play.fault(format!("{old} is cut off, and then switched off"));
    play.host(&old).switch_off();
    play.another_primary(&old)?;
    play.live_on()?;
    play.mended(format!("{old} is switched on"));
    network.heal();
    play.host(&old).switch_on();
    Ok(())
}

fn freeze_primary(play: &mut Play) -> Step {
    let old = play.primary();
    play.freeze(&old);
    play.another_primary(&old)?;
    play.pause(Duration::from_secs(2))?;
    play.mended(format!("{old} goes on"));
    play.host(&old).thaw();
    Ok(())
}

fn freeze_primary_briefly(play: &mut Play) -> Step {
    let old = play.primary();
    play.freeze(&old);
    play.pause(Duration::from_millis(500))?;
    play.mended(format!("{old} goes on"));
    play.host(&old).thaw();
    play.writes()?;
    play.expect_no_failover();
    Ok(())
}

fn crash_loop(play: &mut Play) -> Step {
    for _ in 0..3 {
        let old = play.primary();
        play.fault(format!("kill -9 of {old}'s postmaster"));
        if let Some(pid) = play.host(&old).server_pid() {
            faults::kill_alone(pid);
        }
        play.writes()?;
        play.pause(Duration::from_millis(500))?;
    }
    Ok(())
}

fn restart_while_commits_wait(play: &mut Play) -> Step {
    let old = play.primary();
    let network = play.network()?;
    play.fault(format!("nothing that {old} sends arrives at its standbys"));
    for standby in play.standbys() {
        network.cut_one_way(&old, &standby);
    }
    let waiting = "SELECT count(*) > 3 FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    play.until("commits wait", || play.ask(&old, waiting).is_ok_and(|answer| answer == "t"))?;
    play.seen("commits wait");
    play.kill_server(&old);
    play.mended("the cables are whole");
    network.heal();
    play.writes()
}

/// No process of the server may write beyond the beginning of any file from now on, which is what a full disk is to it.
fn cannot_write(play: &mut Play) -> Step {
    let old = play.primary();
    let Some(postmaster) = play.host(&old).server_pid() else {
        return Err(Trouble::Stuck(format!("{old} does not run")));
    };
    play.fault(format!("every write of {old} fails"));
    // The one that makes others first: they inherit it.
    for pid in std::iter::once(postmaster).chain(faults::family(postmaster)) {
        limit_files(play, pid)?;
    }
    play.writes()?;
    if play.primary() != old {
        play.seen(format!("{} is the primary", play.primary()));
    }
    Ok(())
}

/// As the user that owns the process: even root may not be allowed to limit another's.
fn limit_files(play: &Play, pid: u32) -> Step {
    let mut command = Command::new("prlimit");
    if let Some(user) = play.stage.hosts.run_as() {
        command = Command::new("setpriv");
        command.args(["--reuid", user, "--regid", user, "--clear-groups", "--", "prlimit"]);
    }
    let output = command.args(["--pid", &pid.to_string(), "--fsize=0:0"]).output();
    let why = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("prlimit: {error}"),
    };
    // One that has ended meanwhile writes nothing either.
    match std::path::Path::new(&format!("/proc/{pid}")).exists() {
        true => Err(Trouble::Skipped(why)),
        false => Ok(()),
    }
}

fn wiped_disk(play: &mut Play) -> Step {
    let old = play.primary();
    play.fault(format!("{old} goes down and comes back with an empty disk"));
    play.host(&old).exchange_disk(|data| {
        let _ = std::fs::remove_dir_all(data);
    });
    play.another_primary(&old).map(drop)
}

fn max_connections(play: &mut Play) -> Step {
    let old = play.primary();
    let server: Server = play.stage.server(&old);
    play.fault(format!("no connection is left on {old}"));
    let mut taken: Vec<Wire> = Vec::new();
    let end = play.now() + Duration::from_secs(5);
    // Whatever becomes free is taken, too.
    while play.now() < end {
        match server.connect() {
            Some(wire) => taken.push(wire),
            None => play.pause(Duration::from_millis(20))?,
        }
    }
    play.mended(format!("{} connections are given back", taken.len()));
    play.expect(taken.len() > 10, "there was nothing to take");
    drop(taken);
    play.until("writes go on", || play.has_written_since(end))?;
    play.expect_no_failover();
    play.expect(play.now() < end + LIMIT, "it took too long");
    Ok(())
}
