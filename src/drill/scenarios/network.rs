//! Cables are cut: silently, as the death of a switch is.

use std::time::Duration;

use super::{ANY, Scenario};
use crate::drill::play::{Play, Step};
use crate::drill::stage::MEMBER;

/// What they have in common.
const CUT: Scenario = Scenario { needs_network: true, ..ANY };

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "partition-primary",
            does: "the primary is cut off from everybody, until another has taken over and two seconds more",
            expects: "another node takes over; nobody is served by the old primary, which becomes a standby",
            play: partition_primary,
            ..CUT
        },
        Scenario {
            name: "partition-heals-in-the-middle",
            does: "the primary is cut off from everybody, and reached again while the next one is being made",
            expects: "one primary in the end, and no write taken by two",
            play: heals_in_the_middle,
            ..CUT
        },
        Scenario {
            name: "partition-proxy",
            does: "the primary is cut off from pgbaton only, for four seconds; its standbys still stream",
            expects: "the standbys veto: no failover, clients wait",
            play: partition_proxy,
            ..CUT
        },
        Scenario {
            name: "partition-standbys",
            does: "the primary is cut off from its standbys only: it answers, and in quorum it cannot commit",
            expects: "no failover; writes go on when no standby's acknowledgement is asked for any more",
            play: partition_standbys,
            ..CUT
        },
        Scenario {
            name: "one-way-loss",
            does: "nothing that the primary sends arrives anywhere; what is sent to it does",
            expects: "another node takes over; nobody is served by the old primary",
            play: one_way_loss,
            ..CUT
        },
        Scenario {
            name: "partition-replica",
            does: "a standby is cut off from everybody for five seconds",
            expects: "nobody waits for it for long; no failover",
            is_smooth: true,
            play: partition_replica,
            ..CUT
        },
    ]
}

fn partition_primary(play: &mut Play) -> Step {
    let (old, network) = (play.primary(), play.network()?);
    network.isolate(&old);
    play.fault(format!("{old} is cut off from everybody"));
    play.another_primary(&old)?;
    play.pause(Duration::from_secs(2))?;
    play.mended(format!("{old} is reached again"));
    network.heal();
    Ok(())
}

fn heals_in_the_middle(play: &mut Play) -> Step {
    let (old, network) = (play.primary(), play.network()?);
    network.isolate(&old);
    play.fault(format!("{old} is cut off from everybody"));
    play.until("a failover has begun", || play.stage.record().epoch > play.first.epoch)?;
    network.heal();
    play.mended(format!(
        "{old} is reached again: epoch {} is {}",
        play.stage.record().epoch,
        play.stage.record().phase
    ));
    play.writes()
}

fn partition_proxy(play: &mut Play) -> Step {
    let (old, network) = (play.primary(), play.network()?);
    play.fault(format!("{old} is cut off from pgbaton"));
    network.cut(&old, MEMBER);
    play.pause(Duration::from_secs(4))?;
    play.mended(format!("pgbaton reaches {old} again"));
    network.heal();
    play.writes()?;
    play.expect_no_failover();
    Ok(())
}

fn partition_standbys(play: &mut Play) -> Step {
    let (old, network) = (play.primary(), play.network()?);
    play.fault(format!("{old} is cut off from its standbys"));
    for standby in play.standbys() {
        network.cut(&old, &standby);
    }
    play.writes()?;
    play.live_on()?;
    play.mended(format!("{old} and its standbys reach each other again"));
    network.heal();
    play.expect_no_failover();
    Ok(())
}

fn one_way_loss(play: &mut Play) -> Step {
    let (old, network) = (play.primary(), play.network()?);
    play.fault(format!("nothing that {old} sends arrives"));
    for other in play.standbys().iter().map(String::as_str).chain([MEMBER]) {
        network.cut_one_way(&old, other);
    }
    play.another_primary(&old)?;
    play.pause(Duration::from_secs(2))?;
    play.mended(format!("what {old} sends arrives again"));
    network.heal();
    Ok(())
}

fn partition_replica(play: &mut Play) -> Step {
    let (standby, network) = (play.standby()?, play.network()?);
    network.isolate(&standby);
    play.fault(format!("{standby} is cut off from everybody"));
    play.writes()?;
    play.reads()?;
    play.pause(Duration::from_secs(5))?;
    play.mended(format!("{standby} is reached again"));
    network.heal();
    play.expect_no_failover();
    Ok(())
}
