//! `pgbaton drill`: which scenarios, and where the report goes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::demo::durability;
use super::yours::{self, YoursArguments};
use crate::drill::outcome::Report;
use crate::drill::scenarios::{self, Scenario};
use crate::drill::{self, compare, print, report};
use crate::types::Durability;

pub(super) const HELP: &str = "\
A throw-away cluster is made on this machine: three nodes, each with its agent, pgbaton, and thirty clients that write down everything
they are told. Then something is broken, and what they were told is compared with what each node holds. Nothing is left behind.

As root on Linux every node has a network of its own, whose cables can be cut; without, the scenarios that need it are skipped.
Without a name: kill-primary, freeze-primary, kill-replica, switchover.

With --compare the same is then done to three servers without pgbaton, whose clients have all of them in their connection string.

With --on it is done to a cluster that you have, by its pgbaton: what will be done is shown, and the cluster's name asked for as consent.
There it is one or more of switchover, switchover-with-long-transaction, failover-by-order, restart-standbys, rolling-restart,
terminate-backends, pause-and-resume (--all: all of them), or a command of your own.

Exit codes: 0 every promise was kept, 1 one was broken or a scenario came to no end, 2 usage, or no consent. What breaks without
pgbaton is no failure.

Examples:
  pgbaton drill kill-primary partition-primary
  pgbaton drill --list
  pgbaton drill --all --durability async --report drill.html
  pgbaton drill --all --json | jq '.runs[] | {scenario, figures}'
  pgbaton drill --compare --report drill.html kill-primary
  pgbaton drill --on http://127.0.0.1:6433 --dsn 'host=127.0.0.1 port=6432 user=app dbname=app' switchover
  pgbaton drill --on http://127.0.0.1:6433 --dsn 'host=127.0.0.1 port=6432 user=app dbname=app' \\
      --break 'docker compose kill node1' --mend 'docker compose start node1'";

#[derive(Debug, Args)]
pub(super) struct DrillArguments {
    /// What to do to the cluster, by the names of --list
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Say what there is, and end
    #[arg(long, conflicts_with_all = ["all", "scenarios"])]
    list: bool,
    /// Everything there is
    #[arg(long, conflicts_with = "scenarios")]
    all: bool,
    /// What an acknowledged commit is worth: `quorum` is also on a replica's disk, `async` on the primary's alone
    #[arg(long, value_name = "async|quorum", default_value = "quorum", value_parser = durability)]
    durability: Durability,
    /// How long the load goes on after the fault, at least
    #[arg(long, value_name = "S", default_value_t = 8, value_parser = clap::value_parser!(u64).range(0..=3600))]
    seconds: u64,
    /// Write all of it, with pictures, into this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print all of it as JSON, in place of the table
    #[arg(long)]
    json: bool,
    /// Keep the logs of scenarios that went wrong there
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Also without pgbaton, to compare with
    #[arg(long, conflicts_with = "on")]
    compare: bool,
    /// Without pgbaton: how long after the fault somebody promotes a standby
    #[arg(long, value_name = "S", default_value_t = compare::Plain::OPERATOR_AFTER.as_secs(), requires = "compare")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=3600))]
    operator_after: u64,
    #[command(flatten)]
    yours: YoursArguments,
}

pub(super) fn drill(arguments: DrillArguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let DrillArguments {
        scenarios,
        list,
        all,
        durability,
        seconds,
        report: page,
        json,
        keep,
        compare,
        operator_after,
        yours,
    } = arguments;
    if list {
        print_list();
        return Ok(ExitCode::SUCCESS);
    }
    match yours.options(&scenarios, all, Duration::from_secs(seconds)) {
        Ok(None) => {}
        Ok(Some(options)) => {
            check_page(page.as_deref())?;
            return match yours::play(&options)? {
                Some(found) => publish(&found, page.as_deref(), json),
                None => Ok(ExitCode::from(2)),
            };
        }
        Err(reason) => {
            eprintln!("pgbaton: {reason}");
            return Ok(ExitCode::from(2));
        }
    }
    let names = match scenarios.is_empty() {
        true => drill::TOUR.map(str::to_owned).into(),
        false => scenarios,
    };
    let wanted: Result<Vec<Scenario>, ExitCode> = match all {
        true => Ok(scenarios::all()),
        false => names.iter().map(|name| find(name)).collect(),
    };
    let scenarios = match wanted {
        Ok(scenarios) => scenarios,
        Err(usage) => return Ok(usage),
    };
    check_page(page.as_deref())?;
    let operator_after = compare.then_some(Duration::from_secs(operator_after));
    let found = drill::run(drill::Options { scenarios, durability, seconds, keep, operator_after })?;
    publish(&found, page.as_deref(), json)
}

/// A file that cannot be written is better known before half an hour of work.
fn check_page(page: Option<&Path>) -> Result<(), String> {
    match page {
        Some(file) => std::fs::write(file, "").map_err(|error| format!("cannot write {}: {error}", file.display())),
        None => Ok(()),
    }
}

/// The table or JSON on standard output, the page where it is wanted, and how the process ends.
fn publish(found: &Report, page: Option<&Path>, json: bool) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if let Some(file) = page {
        let page = report::html(found);
        std::fs::write(file, page).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    match json {
        true => println!("{}", serde_json::to_string_pretty(found)?),
        false => print!("{}", print::table(found)),
    }
    Ok(if found.is_bad() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn find(name: &str) -> Result<Scenario, ExitCode> {
    scenarios::find(name).map_err(|nearest| {
        eprintln!(
            "pgbaton: no scenario is called {name}; did you mean {nearest}? `pgbaton drill --list` names them all"
        );
        ExitCode::from(2)
    })
}

fn print_list() {
    use std::io::Write as _;
    let list: String = scenarios::all().iter().map(Scenario::description).collect();
    // Whoever reads may have seen enough (`| head`).
    let _ = std::io::stdout().lock().write_all(list.as_bytes());
}
