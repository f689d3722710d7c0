//! pgbaton's own side: whether what it is configured to do can be done with these nodes, and what it waits for.

use super::facts::{Agent, Case};
use super::host::{gibibytes, little};
use super::{Check, Judge, Notes, check};
use crate::cluster::NodeState;
use crate::types::Durability;

/// Recruiting, promoting and following take about a second; a busy machine some more.
const CHANGE_MS: u64 = 3_000;

pub(super) const CHECKS: &[Check] = &[
    check(
        "candidates",
        "some node may take over from the primary",
        "there is no failover at all",
        Judge::Whole(candidates),
    ),
    check(
        "voters",
        "durability `quorum` has a standby more than acknowledgements are wanted",
        "when one standby is away, commits wait or are on fewer disks than was wished, and no failover is safe",
        Judge::Whole(voters),
    ),
    check(
        "agents",
        "there is an agent beside each node",
        "a primary of the past stays fenced until somebody makes it a standby by hand",
        Judge::Whole(agents),
    ),
    check(
        "store",
        "the state file can be written, and outlives a power failure",
        "no failover: nothing is done before the record of it is stored",
        Judge::Whole(store),
    ),
    check(
        "epoch",
        "the store is not older than the epochs in the database",
        "it was put back from a backup: pgbaton freezes, and asks the operator",
        Judge::Whole(epoch),
    ),
    check(
        "hold",
        "statements are held for longer than a failover takes",
        "clients get errors in the middle of it (57P03)",
        Judge::Whole(hold),
    ),
    check(
        "admin",
        "the admin endpoint listens, for agents and operators, and wants a token where others can reach it",
        "a primary is not started by its agent, which has nobody to ask; or everybody may order",
        Judge::Whole(admin),
    ),
    check(
        "state",
        "pgbaton may act, and nothing stands in the way of a failover",
        "it does nothing when the primary dies",
        Judge::Whole(state),
    ),
];

fn candidates(case: &Case, notes: &mut Notes) {
    let able: Vec<_> = case.nodes.iter().filter(|node| node.priority > 0).collect();
    if case.nodes.len() == 1 {
        notes.warn(
            "there is one node: nobody can take over from it",
            "make a standby, and add it as another [[cluster.nodes]]",
        );
    } else if able.is_empty() {
        notes.error(
            "every node has priority = 0: none is ever promoted",
            "priority = 100 for nodes that may be the primary",
        );
    } else if case.primary().is_some_and(|(primary, _)| able.iter().all(|node| node.id == primary.id)) {
        notes.error(
            format!("no node but {} may be the primary: all others have priority = 0", able[0].id),
            "priority = 100 for nodes that may take over",
        );
    }
}

fn voters(case: &Case, notes: &mut Notes) {
    if case.wishes.durability != Durability::Quorum || case.nodes.len() < 2 {
        return;
    }
    // Each of them may be the primary, so one of them is.
    let able = case.nodes.iter().filter(|node| node.priority > 0).count();
    let standbys = able.saturating_sub(1);
    let acks = case.wishes.acks as usize;
    if standbys < acks {
        notes.error(
            format!("cluster.quorum_acks is {acks}, and {standbys} standbys may be promoted"),
            format!("quorum_acks = {} under [cluster], or more standbys with a priority above 0", standbys.max(1)),
        );
    } else if standbys == acks {
        notes.warn(
            format!(
                "of {standbys} that may be promoted {acks} has to acknowledge each commit: when one is away, commits wait, and then are on the \
                 primary's disk alone"
            ),
            "one standby more, with a priority above 0",
        );
    }
}

fn agents(case: &Case, notes: &mut Notes) {
    let bare: Vec<&str> =
        case.nodes.iter().filter(|node| matches!(node.agent, Agent::None)).map(|node| &*node.id.0).collect();
    if bare.is_empty() || case.nodes.len() < 2 {
        return;
    }
    let whose = if bare.len() == case.nodes.len() { "no node".to_owned() } else { format!("not {}", bare.join(", ")) };
    notes.warn(
        format!("{whose} has an agent: what was a primary and died stays away until somebody makes it a standby by hand"),
        "on its host: pgbaton agent -c agent.toml (docs/agent.md); and agent = \"http://HOST:6501\" for it under [[cluster.nodes]]",
    );
}

fn store(case: &Case, notes: &mut Notes) {
    let store = &case.store;
    if let Some(trouble) = &store.trouble {
        notes.error(
            format!("the state file {} cannot be written: {trouble}", store.path),
            "coordination.path: in a directory that is there and belongs to the user pgbaton runs as",
        );
    }
    if store.is_volatile {
        notes.warn(
            format!("the state file {} is on a file system in memory: after a restart of the machine nobody knows the epoch", store.path),
            "coordination.path: on a disk, such as /var/lib/pgbaton/state.json",
        );
    }
    if let Some(room) = store.room
        && let Some(level) = little(room, 0)
    {
        notes.complain(
            level,
            format!("the file system of the state file {} has {} left", store.path, gibibytes(room.free)),
            format!("df -h {}; then make room there", store.path),
        );
    }
}

fn epoch(case: &Case, notes: &mut Notes) {
    let stored = case.picture.as_ref().and_then(|picture| picture.epoch).or(case.store.epoch);
    let of_nodes = case.nodes.iter().filter_map(|node| Some((node.seen()?.schema.epoch?, node)));
    let Some((newest, node)) = of_nodes.max_by_key(|(epoch, _)| *epoch) else { return };
    match stored {
        Some(stored) if stored.0 < newest => notes.error(
            format!("the store is at epoch {stored}, and {} has one of {newest}: the store is older than the database", node.id),
            "make sure that no other pgbaton looks after these nodes; then pgbaton resume",
        ),
        None => notes.warn(
            format!("the state file {} has no record, and {} has epochs up to {newest}", case.store.path, node.id),
            "coordination.path: the file that was used before; if it is lost, pgbaton begins from what the database says",
        ),
        _ => {}
    }
}

fn hold(case: &Case, notes: &mut Notes) {
    let expected = case.wishes.detection_ms.saturating_add(CHANGE_MS);
    if case.wishes.hold_ms < expected && case.nodes.len() > 1 {
        notes.warn(
            format!(
                "failover.hold is {} s, and a failover may take {} s: {} s until the primary counts as down, and {} s for the change",
                case.wishes.hold_ms as f64 / 1000.0,
                expected as f64 / 1000.0,
                case.wishes.detection_ms as f64 / 1000.0,
                CHANGE_MS / 1000
            ),
            format!("hold = \"{}s\" under [failover]", expected.div_ceil(1000).max(10)),
        );
    }
}

fn admin(case: &Case, notes: &mut Notes) {
    let wishes = &case.wishes;
    let has_agents = case.nodes.iter().any(|node| !matches!(node.agent, Agent::None));
    if wishes.admin.is_empty() && has_agents {
        notes.error(
            "admin.listen is off: agents ask there whose epoch it is before they start a primary",
            "listen = \"127.0.0.1:6433\" under [admin], or an address that the agents reach",
        );
    } else if !wishes.admin.is_empty() && !wishes.admin_is_loopback && !wishes.has_admin_token {
        notes.error(
            format!("admin.listen is {}, and there is no token: whoever reaches it may order a failover", wishes.admin),
            "token under [admin]: openssl rand -hex 16",
        );
    }
}

fn state(case: &Case, notes: &mut Notes) {
    let Some(picture) = &case.picture else { return notes.leave_open() };
    if picture.paused {
        notes.warn("paused: nothing is done when the primary dies", "pgbaton resume");
    }
    for (node, account) in &picture.nodes {
        if account.state == NodeState::Maintenance {
            notes.warn(
                format!("{node} is in maintenance: no reads, no vote, no promotion"),
                format!("pgbaton maintenance {node} off"),
            );
        }
    }
    if !picture.reason.is_empty() {
        notes.warn(picture.reason.clone(), "pgbaton list shows what each node lacks");
    }
}
