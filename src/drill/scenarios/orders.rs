//! What operators order, and what they do behind its back.

use std::time::Duration;

use serde_json::json;

use super::{ANY, Scenario};
use crate::drill::play::{Play, Step};
use crate::drill::wire::{Batch, Login};

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "switchover",
            does: "the primary is exchanged as planned",
            expects: "clients wait for a moment; no error, nothing lost",
            is_smooth: true,
            play: switchover,
            ..ANY
        },
        Scenario {
            name: "switchover-with-long-transaction",
            does: "the primary is exchanged while a transaction has been open for long and does not end",
            expects: "that one gets 40001 and keeps its connection; all others only wait",
            play: switchover_with_long_transaction,
            ..ANY
        },
        Scenario {
            name: "switchover-then-crash",
            does: "the primary is exchanged as planned, and the new one is killed at once",
            expects: "one primary in the end, with everything",
            play: switchover_then_crash,
            ..ANY
        },
        Scenario {
            name: "switchover-to-lagging",
            does: "an exchange is ordered to a standby that does not replay",
            expects: "it is refused or undone, or done once the standby has replayed all; no client sees an error",
            is_smooth: true,
            play: switchover_to_lagging,
            ..ANY
        },
        Scenario {
            name: "paused",
            does: "changes of primary are paused, the primary's host is switched off for five seconds, then they are resumed",
            expects: "nothing happens, and it is said why; after the resume another node takes over",
            play: paused,
            ..ANY
        },
        Scenario {
            name: "rolling-restart",
            does: "every server is restarted: the standbys, a switchover, then the old primary",
            expects: "no client sees an error",
            is_smooth: true,
            play: rolling_restart,
            ..ANY
        },
        Scenario {
            name: "promoted-by-hand",
            does: "somebody promotes a standby behind pgbaton's back",
            expects: "nobody is sent to it; the primary goes on, and the other becomes its standby again",
            impostor: Some("a second primary is what is done here; were anybody sent to it, writes would be lost"),
            play: promoted_by_hand,
            ..ANY
        },
    ]
}

fn switchover(play: &mut Play) -> Step {
    play.switchover().map(drop)
}

fn switchover_with_long_transaction(play: &mut Play) -> Step {
    let login = Login::at(play.stage.baton.address);
    let connect = || login.attempt().ok()?.ok();
    let client = match &play.stage.network {
        Some(network) => network.among_clients(connect),
        None => connect(),
    };
    let Some(mut client) = client else {
        play.expect(false, "the long transaction has no connection");
        return Ok(());
    };
    let begun =
        client.ask(Batch::new().query("BEGIN; CREATE TABLE IF NOT EXISTS long (id int); INSERT INTO long VALUES (1)"));
    play.expect(begun.is_ok_and(|answer| answer.errors.is_empty()), "the long transaction does not begin");
    play.switchover()?;
    let answer = client.ask(Batch::new().query("INSERT INTO long VALUES (2)"));
    match answer {
        Ok(answer) => {
            let codes: Vec<&str> = answer.errors.iter().map(|said| said.code.as_str()).collect();
            play.seen(format!("the long transaction is told {codes:?}"));
            play.expect(codes == ["40001"] || codes == ["25P02"], format!("it was told {codes:?}"));
            let rest =
                client.ask(Batch::new().query("ROLLBACK")).and_then(|_| client.ask(Batch::new().query("SELECT 1")));
            play.expect(rest.is_ok_and(|answer| answer.first() == Some("1")), "its connection is of no use any more");
        }
        Err(error) => play.expect(false, format!("the long transaction lost its connection: {error}")),
    }
    Ok(())
}

fn switchover_then_crash(play: &mut Play) -> Step {
    let new = play.switchover()?;
    play.kill_server(&new);
    play.next_primary().map(drop)
}

fn switchover_to_lagging(play: &mut Play) -> Step {
    let standby = play.standby()?;
    play.ask(&standby, "SELECT pg_wal_replay_pause()")?;
    play.live_on()?;
    let answer = play.order("/switchover", json!({ "to": standby }));
    // Nothing to resume on one that was promoted all the same.
    let _ = play.ask(&standby, "SELECT pg_wal_replay_resume()");
    play.mended(format!("{standby} replays again"));
    play.expect(answer.is_err() || play.primary() == standby, "it is said to be done, and is not");
    if answer.is_err() {
        play.expect(play.primary() == play.first.primary, "it was refused, and the primary is another one");
    }
    play.writes()
}

fn paused(play: &mut Play) -> Step {
    let old = play.primary();
    let answer = play.order("/pause", json!({}));
    play.expect(answer.is_ok(), "it cannot be paused");
    play.switch_off(&old);
    play.pause(Duration::from_secs(5))?;
    play.expect_no_failover();
    let reason = play.stage.cluster().map(|cluster| cluster.reason).unwrap_or_default();
    play.seen(format!("it says: {reason}"));
    play.expect(reason.contains("pause"), format!("it does not say why nothing happens: {reason:?}"));
    let answer = play.order("/resume", json!({}));
    play.expect(answer.is_ok(), "it cannot be resumed");
    play.another_primary(&old)?;
    play.mended(format!("{old} is switched on"));
    play.host(&old).switch_on();
    Ok(())
}

fn rolling_restart(play: &mut Play) -> Step {
    let first = play.primary();
    for standby in play.standbys() {
        restart(play, &standby)?;
    }
    play.switchover()?;
    play.whole("after the switchover")?;
    restart(play, &first)
}

fn restart(play: &mut Play, id: &str) -> Step {
    let answer = play.order(&format!("/nodes/{id}/restart"), json!({}));
    play.expect(answer.is_ok(), format!("{id} is not restarted: {}", answer.err().unwrap_or_default()));
    play.whole(&format!("{id} was restarted"))
}

fn promoted_by_hand(play: &mut Play) -> Step {
    let (primary, standby) = (play.primary(), play.standby()?);
    play.fault(format!("SELECT pg_promote() on {standby}"));
    play.ask(&standby, "SELECT pg_promote()")?;
    play.writes()?;
    play.expect(play.primary() == primary, format!("{} is the primary", play.primary()));
    Ok(())
}
