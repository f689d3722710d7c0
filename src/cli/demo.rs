//! `pgbaton demo`: the arguments of a whole cluster on this machine.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Outcome;
use crate::demo;
use crate::types::Durability;

pub(super) const DEMO_HELP: &str = "\
Role, password and database are `demo`:
  PGPASSWORD=demo psql -h 127.0.0.1 -p 6432 -U demo

Each node is a `pgbaton agent` with its PostgreSQL, made as a real cluster is: kill what you like.

PostgreSQL's programs are looked for in PGBATON_PG_BIN, then where `pg_config --bindir` says, then in the usual
directories and PATH. Started by root, the nodes run as user `postgres` (or `nobody`).

Examples:
  pgbaton demo --replicas 1 --listen 127.0.0.1:7000
  pgbaton demo --dir /tmp/cluster --keep     keep data and logs for a look afterwards
  pgbaton demo --dir /tmp/cluster            start it again as it was (and keep it)
  pgbaton demo --chaos --seconds 60          break something every few seconds under load; exit 1 if anything was lost";

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// Streaming replicas beside the primary
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=9))]
    replicas: u8,
    /// What an acknowledged commit is worth: `quorum` is also on a replica's disk, `async` on the primary's alone
    #[arg(long, value_name = "async|quorum", default_value = "quorum", value_parser = durability)]
    durability: Durability,
    /// Where the proxy listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6432")]
    listen: std::net::SocketAddr,
    /// Where its admin endpoint listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6433")]
    admin: std::net::SocketAddr,
    /// Where data, sockets and logs go; made by this command, empty, or one that was kept, which is started again
    /// [default: a new one under $TMPDIR]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave data and logs behind at the end
    #[arg(long)]
    keep: bool,
    /// Break something again and again, and show what a small load sees of it
    #[arg(long)]
    chaos: bool,
    /// How long all is well before the next thing is broken
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = pause_between, requires = "chaos")]
    every: Duration,
    /// End the chaos after so long [default: at Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=31_536_000), requires = "chaos")]
    seconds: Option<u64>,
}

pub(super) fn run(arguments: DemoArguments) -> Outcome {
    let DemoArguments { replicas, durability, listen, admin, dir, keep, chaos, every, seconds } = arguments;
    let (replicas, limit) = (usize::from(replicas), seconds.map(Duration::from_secs));
    let chaos = chaos.then_some(demo::Chaos { every, limit });
    Ok(demo::run(demo::Options { replicas, durability, listen, admin, directory: dir, keep, chaos })?)
}

pub(super) fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "async" => Ok(Durability::Async),
        "quorum" => Ok(Durability::Quorum),
        _ => Err("either async or quorum".into()),
    }
}

fn pause_between(text: &str) -> Result<Duration, String> {
    let pause = humantime_serde::re::humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&pause) {
        true => Ok(pause),
        false => Err("it has to be from 100ms to 1h".into()),
    }
}
