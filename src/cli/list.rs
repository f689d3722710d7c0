//! `pgbaton list`: the cluster on one screen, once or again and again.

use std::fmt::Write as _;

use clap::Args;

use super::asking::read;
use super::printing::{Colour, Paint};
use super::{Asking, Outcome, aligned, ask, watching};
use crate::admin::picture::{Cluster, Node};
use crate::route::eligible::{Size, Time};
use crate::types::Millis;

/// How it is said of a node that it serves no reads because nobody reaches it.
const SILENT: &str = "does not answer";

pub(super) const LIST_HELP: &str = "\
Columns: lag is what a replica has not replayed yet, in bytes and in time; reads: whether it may serve any, else the last column
says why not; agent: what it has its server do, `silent` if it does not answer, `none` if there is none.

Examples:
  pgbaton list --watch
  pgbaton list --json | jq -r .primary";

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    pub(super) asking: Asking,
}

pub(super) fn list(ListArguments { watch, asking }: ListArguments) -> Outcome {
    watching::show(&asking, watch, || look(&asking))
}

fn look(asking: &Asking) -> Result<String, Box<dyn std::error::Error>> {
    let answer = ask(&asking.admin, "/cluster", &[])?;
    Ok(if asking.json { answer + "\n" } else { screen(&read(&asking.admin, &answer)?, Paint::of_stdout()) })
}

/// The cluster in a line, what is amiss with it, and a row for each node.
fn screen(cluster: &Cluster, paint: Paint) -> String {
    let Cluster { name, epoch, phase, primary, durability, voters, acks, paused, reason, nodes, .. } = cluster;
    let mut text = format!("cluster {name}");
    match (epoch, phase) {
        (Some(epoch), Some(phase)) => {
            let _ = write!(text, "   epoch {epoch}   {phase}");
        }
        _ => text.push_str("   no epoch yet"),
    }
    let _ = match primary {
        Some(primary) => write!(text, "   primary {primary}"),
        None => write!(text, "   {}", paint.paint("NO PRIMARY", Colour::Red)),
    };
    let _ = match (&**durability, voters.is_empty()) {
        ("quorum", true) => write!(text, "   quorum, without voters: nothing but the primary's disk"),
        ("quorum", false) => write!(text, "   quorum, {acks} of {}", voters.join(", ")),
        (other, _) => write!(text, "   {other}"),
    };
    if *paused {
        let _ = write!(text, "   {}", paint.paint("PAUSED", Colour::Yellow));
    }
    text.push('\n');
    if !reason.is_empty() {
        let _ = writeln!(text, "{reason}");
    }
    text.push('\n');
    let head = ["node", "role", "state", "timeline", "lsn", "lag", "reads", "agent", ""];
    let rows = std::iter::once(head.map(str::to_owned).to_vec()).chain(nodes.iter().map(|node| row(node, paint)));
    text.push_str(&aligned(&rows.collect::<Vec<_>>()));
    text
}

fn row(node: &Node, paint: Paint) -> Vec<String> {
    let is_primary = node.role == "primary";
    let lag = match (node.lag_bytes, node.lag_ms) {
        _ if is_primary => String::new(),
        (Some(bytes), Some(ms)) => format!("{}, {}", Size(bytes), Time(Millis(ms))),
        _ => "?".into(),
    };
    let reads = match node.eligible {
        _ if is_primary => "",
        true => "yes",
        false => "no",
    };
    // A primary serves no reads that a replica could serve: that is as it should be.
    let reason = if is_primary && node.state == "running" { "" } else { &node.reason };
    let (agent, step, trouble) = match &node.agent {
        Some(agent) => (&*agent.state, &*agent.step, &*agent.trouble),
        None => ("none", "", ""),
    };
    // An agent that says what it is doing says why its node does not answer, and in more detail what the control plane says.
    let (has_story, own) =
        (!step.is_empty() || !trouble.is_empty(), step.split_once(": ").map_or(step, |(_, own)| own));
    let is_told =
        has_story && (reason.starts_with(SILENT) || !own.is_empty() && reason.contains(own) || reason == trouble);
    let notes = [step, trouble, if is_told && agent != "silent" { "" } else { reason }];
    let notes: Vec<&str> = notes.into_iter().filter(|note| !note.is_empty()).collect();
    vec![
        node.id.clone(),
        node.role.to_string(),
        paint.paint(&node.state, colour(&node.state)),
        node.timeline.to_string(),
        node.lsn.clone(),
        lag,
        reads.into(),
        agent.into(),
        // What a program said may have several lines.
        notes.join("; ").replace('\n', " "),
    ]
}

fn colour(state: &str) -> Colour {
    match state {
        "running" => Colour::Green,
        "down" => Colour::Red,
        _ => Colour::Yellow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_says_what_is_and_what_is_amiss() {
        let answer = r#"{
            "name":"demo","epoch":3,"phase":"stable","primary":"n2","leader":"n2","durability":"quorum","voters":["n3"],
            "acks":1,"paused":true,"reason":"n1 is not a voter","nodes":[
            {"id":"n1","host":"h","port":1,"role":"unknown","state":"rejoining","timeline":1,"lsn":"0/3000148",
             "lag_bytes":null,"lag_ms":null,"eligible":false,"reason":"rejoin is under way; copying n2: 41 % of 2.1 GiB",
             "agent":{"state":"stopped","step":"rejoin: copying n2: 41 % of 2.1 GiB","trouble":"","epoch":3}},
            {"id":"n2","host":"h","port":2,"role":"primary","state":"running","timeline":2,"lsn":"0/4000000",
             "lag_bytes":0,"lag_ms":0,"eligible":false,"reason":"is the primary","agent":null},
            {"id":"n3","host":"h","port":3,"role":"replica","state":"running","timeline":2,"lsn":"0/3FFFF00",
             "lag_bytes":1572864,"lag_ms":2300,"eligible":true,"reason":"",
             "agent":{"state":"silent","step":"","trouble":"connection\nrefused","epoch":null}}]}"#;
        let shown = screen(&serde_json::from_str(answer).unwrap(), Paint::none());
        let expected = "\
cluster demo   epoch 3   stable   primary n2   quorum, 1 of n3   PAUSED
n1 is not a voter

node  role     state      timeline  lsn        lag             reads  agent
n1    unknown  rejoining  1         0/3000148  ?               no     stopped  rejoin: copying n2: 41 % of 2.1 GiB
n2    primary  running    2         0/4000000                         none
n3    replica  running    2         0/3FFFF00  1.5 MiB, 2.3 s  yes    silent   connection refused
";
        assert_eq!(shown, expected);
    }
}
