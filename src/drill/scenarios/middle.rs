//! Something else breaks in the middle: the chosen one, the next one, pgbaton itself, an agent.

use std::time::Duration;

use super::{ANY, Scenario};
use crate::drill::faults;
use crate::drill::play::{Play, Step, Trouble};

const GONE: &str = "pgbaton itself is killed: its clients lose their connections";

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "candidate-killed",
            does: "the primary is killed, and so is the node that is being promoted in its place",
            expects: "one primary in the end, with all that was acknowledged",
            play: candidate_killed,
            ..ANY
        },
        Scenario {
            name: "two-failovers",
            does: "the primary is killed, and its successor within ten seconds",
            expects: "one primary in the end, with everything",
            play: two_failovers,
            ..ANY
        },
        Scenario {
            name: "baton-killed",
            does: "kill -9 of pgbaton in the middle of a failover; it is started again",
            expects: "it ends what it had begun",
            drops: Some(GONE),
            play: baton_killed,
            ..ANY
        },
        Scenario {
            name: "baton-and-primary-killed",
            does: "kill -9 of pgbaton and of the primary at once; pgbaton is started again",
            expects: "a pgbaton that has seen nothing of it makes another node the primary",
            drops: Some(GONE),
            play: baton_and_primary_killed,
            ..ANY
        },
        Scenario {
            name: "baton-restarted",
            does: "kill -9 of pgbaton while all is well; it is started again",
            expects: "no failover",
            drops: Some(GONE),
            play: baton_restarted,
            ..ANY
        },
        Scenario {
            name: "baton-frozen",
            does: "pgbaton stands still in the middle of a failover, for five seconds, and goes on",
            expects: "it ends what it had begun, and its clients are connected still",
            play: baton_frozen,
            ..ANY
        },
        Scenario {
            name: "agent-killed",
            does: "kill -9 of the primary's agent; its PostgreSQL goes on",
            expects: "nothing happens to clients, and the next agent takes the server over",
            is_smooth: true,
            play: agent_killed,
            ..ANY
        },
    ]
}

/// Until a failover has come to a phase, or is over.
fn until_phase(play: &Play, phase: &str) -> Step {
    let epoch = play.first.epoch;
    let limit = play.now() + crate::drill::play::LIMIT;
    loop {
        let record = play.stage.record();
        if record.epoch > epoch && (record.phase == phase || record.phase == "stable") {
            return Ok(());
        }
        if play.now() > limit {
            return Err(Trouble::Stuck(format!("{phase} is not reached: {record:?}")));
        }
        play.pause(Duration::from_millis(1))?;
    }
}

fn candidate_killed(play: &mut Play) -> Step {
    let old = play.primary();
    play.kill_server(&old);
    until_phase(play, "promoting")?;
    let record = play.stage.record();
    play.fault(format!("epoch {} is {}; kill -9 of {}", record.epoch, record.phase, record.primary));
    if let Some(pid) = play.host(&record.primary).server_pid() {
        faults::kill_all(pid);
    }
    play.writes()
}

fn two_failovers(play: &mut Play) -> Step {
    let first = play.primary();
    play.kill_server(&first);
    let second = play.next_primary()?;
    play.live_on()?;
    play.kill_server(&second);
    play.next_primary().map(drop)
}

fn baton_killed(play: &mut Play) -> Step {
    let old = play.primary();
    play.kill_server(&old);
    until_phase(play, "recruiting")?;
    let record = play.stage.record();
    play.fault(format!("epoch {} is {}; kill -9 of pgbaton", record.epoch, record.phase));
    play.stage.baton.kill();
    restart(play)?;
    play.next_primary().map(drop)
}

fn baton_and_primary_killed(play: &mut Play) -> Step {
    let old = play.primary();
    play.fault("kill -9 of pgbaton");
    play.stage.baton.kill();
    play.kill_server(&old);
    restart(play)?;
    play.writes()
}

fn baton_restarted(play: &mut Play) -> Step {
    play.fault("kill -9 of pgbaton");
    play.stage.baton.kill();
    restart(play)?;
    play.writes()?;
    play.expect_no_failover();
    Ok(())
}

fn restart(play: &mut Play) -> Step {
    play.stage.baton.restart().map_err(|error| Trouble::Stuck(format!("pgbaton does not start: {error}")))?;
    play.mended("pgbaton is started again");
    Ok(())
}

fn baton_frozen(play: &mut Play) -> Step {
    let old = play.primary();
    play.kill_server(&old);
    until_phase(play, "recruiting")?;
    let record = play.stage.record();
    play.fault(format!("epoch {} is {}; pgbaton stands still", record.epoch, record.phase));
    play.stage.baton.freeze();
    play.pause(Duration::from_secs(5))?;
    play.mended("pgbaton goes on");
    play.stage.baton.thaw();
    play.next_primary().map(drop)
}

fn agent_killed(play: &mut Play) -> Step {
    let primary = play.primary();
    let before = play.host(&primary).server_pid();
    play.fault(format!("kill -9 of {primary}'s agent"));
    play.host(&primary).kill_agent();
    play.pause(Duration::from_secs(3))?;
    play.writes()?;
    play.expect(play.host(&primary).server_pid() == before, format!("{primary}'s PostgreSQL is another one"));
    play.expect_no_failover();
    Ok(())
}
