//! Standbys die, stand still, or fall behind.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::{ANY, Scenario};
use crate::drill::faults;
use crate::drill::play::{Play, Step, Trouble};

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "kill-replica",
            does: "kill -9 of a standby's PostgreSQL",
            expects: "reads and writes go on with the others; no failover",
            is_smooth: true,
            play: kill_replica,
            ..ANY
        },
        Scenario {
            name: "all-replicas",
            does: "both standbys are switched off, and on again when writes and reads go on without them",
            expects: "writes wait until no standby's acknowledgement is asked for any more, then go on; no failover",
            play: all_replicas,
            ..ANY
        },
        Scenario {
            name: "freeze-replica",
            does: "SIGSTOP to a standby's PostgreSQL and agent for five seconds: its connections stay open",
            expects: "nobody waits for it for long; no failover",
            is_smooth: true,
            play: freeze_replica,
            ..ANY
        },
        Scenario {
            name: "frozen-receiver",
            does: "SIGSTOP to the process that receives WAL on a standby, for five seconds; the standby answers all the same",
            expects: "what it shows is not taken for fresh; no failover",
            is_smooth: true,
            play: frozen_receiver,
            ..ANY
        },
        Scenario {
            name: "replay-paused",
            does: "a standby receives but does not replay, for five seconds",
            expects: "nobody reads there what is older than what they have seen; no failover",
            is_smooth: true,
            play: replay_paused,
            ..ANY
        },
        Scenario {
            name: "failover-with-paused-replay",
            does: "one standby does not replay, and the primary is killed",
            expects: "one primary in the end, with all that was acknowledged",
            play: failover_with_paused_replay,
            ..ANY
        },
        Scenario {
            name: "failover-with-lagging-standby",
            does: "one standby has received nothing for a moment, and the primary is killed",
            expects: "it is not the one that lacks something which takes over; nothing is lost",
            play: failover_with_lagging_standby,
            ..ANY
        },
        Scenario {
            name: "replica-new-disk",
            does: "a standby comes back with an empty disk",
            expects: "it is made anew by a copy of everything; no failover",
            is_smooth: true,
            play: replica_new_disk,
            ..ANY
        },
        Scenario {
            name: "maintenance",
            does: "a standby is taken out of use by an operator for three seconds, and put back",
            expects: "nobody notices",
            is_smooth: true,
            play: maintenance,
            ..ANY
        },
    ]
}

fn kill_replica(play: &mut Play) -> Step {
    let standby = play.standby()?;
    play.kill_server(&standby);
    play.writes()?;
    play.reads()?;
    play.expect_no_failover();
    Ok(())
}

fn all_replicas(play: &mut Play) -> Step {
    let standbys = play.standbys();
    for standby in &standbys {
        play.switch_off(standby);
    }
    play.seen(format!("{} are switched off", standbys.join(" and ")));
    play.writes()?;
    play.reads()?;
    play.live_on()?;
    play.mended(format!("{} are switched on", standbys.join(" and ")));
    for standby in &standbys {
        play.host(standby).switch_on();
    }
    play.expect_no_failover();
    Ok(())
}

fn freeze_replica(play: &mut Play) -> Step {
    let standby = play.standby()?;
    play.freeze(&standby);
    play.writes()?;
    play.reads()?;
    play.pause(Duration::from_secs(5))?;
    play.reads()?;
    play.mended(format!("{standby} goes on"));
    play.host(&standby).thaw();
    play.expect_no_failover();
    Ok(())
}

fn frozen_receiver(play: &mut Play) -> Step {
    let standby = play.standby()?;
    let pid = receiver(play, &standby)?;
    play.fault(format!("{standby} receives nothing"));
    faults::send(pid, Signal::STOP);
    let waited = play.pause(Duration::from_secs(5));
    faults::send(pid, Signal::CONT);
    waited?;
    play.mended(format!("{standby} receives again"));
    play.writes()?;
    play.expect_no_failover();
    Ok(())
}

/// The process that receives WAL.
fn receiver(play: &Play, standby: &str) -> Step<u32> {
    let pid = play.ask(standby, "SELECT pid FROM pg_stat_wal_receiver")?;
    pid.parse().map_err(|_| Trouble::Stuck(format!("{standby} receives nothing")))
}

fn replay_paused(play: &mut Play) -> Step {
    let standby = play.standby()?;
    play.fault(format!("{standby} does not replay"));
    play.ask(&standby, "SELECT pg_wal_replay_pause()")?;
    let waited = play.pause(Duration::from_secs(5));
    play.ask(&standby, "SELECT pg_wal_replay_resume()")?;
    waited?;
    play.mended(format!("{standby} replays again"));
    play.writes()?;
    play.expect_no_failover();
    Ok(())
}

fn failover_with_paused_replay(play: &mut Play) -> Step {
    let (old, standby) = (play.primary(), play.standby()?);
    play.fault(format!("{standby} does not replay"));
    play.ask(&standby, "SELECT pg_wal_replay_pause()")?;
    play.pause(Duration::from_secs(1))?;
    play.kill_server(&old);
    let promoted = play.next_primary();
    // On one that was promoted there is nothing to resume, and it says so.
    let _ = play.ask(&standby, "SELECT pg_wal_replay_resume()");
    play.mended(format!("{standby} replays again"));
    promoted.map(drop)
}

fn failover_with_lagging_standby(play: &mut Play) -> Step {
    let (old, standby) = (play.primary(), play.standby()?);
    let pid = receiver(play, &standby)?;
    faults::send(pid, Signal::STOP);
    play.seen(format!("{standby} receives nothing"));
    let waited = play.pause(Duration::from_millis(1500));
    if waited.is_ok() {
        play.kill_server(&old);
        // It ends without a look at what has arrived for it meanwhile.
        faults::send(pid, Signal::TERM);
    }
    faults::send(pid, Signal::CONT);
    waited?;
    let primary = play.next_primary()?;
    if play.is_quorum() {
        play.expect(primary != standby, format!("{standby} was promoted, which had not received everything"));
    }
    Ok(())
}

fn replica_new_disk(play: &mut Play) -> Step {
    let standby = play.standby()?;
    play.fault(format!("{standby} has an empty disk"));
    play.host(&standby).exchange_disk(|data| {
        let _ = std::fs::remove_dir_all(data);
    });
    play.writes()?;
    play.expect_no_failover();
    Ok(())
}

fn maintenance(play: &mut Play) -> Step {
    let standby = play.standby()?;
    let path = format!("/nodes/{standby}/maintenance");
    let answer = play.order(&path, json!({ "on": true }));
    play.expect(answer.is_ok(), "it is refused");
    play.pause(Duration::from_secs(3))?;
    let answer = play.order(&path, json!({ "on": false }));
    play.expect(answer.is_ok(), "it is refused");
    play.writes()?;
    play.expect_no_failover();
    Ok(())
}
