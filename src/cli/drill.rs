//! `pgbaton drill`: which scenarios, and where the report goes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::durability;
use crate::drill::scenarios::{self, Scenario};
use crate::drill::{self, outcome};
use crate::types::Durability;

pub(super) const HELP: &str = "\
A throw-away cluster is made on this machine: three nodes, each with its agent, pgbaton, and thirty clients that write down everything
they are told. Then something is broken, and what they were told is compared with what each node holds. Nothing is left behind.

As root on Linux every node has a network of its own, whose cables can be cut; without, the scenarios that need it are skipped.
Without a name: kill-primary, freeze-primary, kill-replica, switchover.

Exit codes: 0 every promise was kept, 1 one was broken or a scenario came to no end, 2 usage.

Examples:
  pgbaton drill kill-primary partition-primary
  pgbaton drill --list
  pgbaton drill --all --durability async --report drill.html
  pgbaton drill --all --json | jq '.runs[] | {scenario, figures}'";

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
}

pub(super) fn drill(arguments: DrillArguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let DrillArguments { scenarios, list, all, durability, seconds, report, json, keep } = arguments;
    if list {
        print_list();
        return Ok(ExitCode::SUCCESS);
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
    // A file that cannot be written is better known before half an hour of work.
    if let Some(file) = &report {
        std::fs::write(file, "").map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    let found = drill::run(drill::Options { scenarios, durability, seconds, keep })?;
    if let Some(file) = &report {
        let page = stand_in::html(&found);
        std::fs::write(file, page).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    match json {
        true => println!("{}", serde_json::to_string_pretty(&found)?),
        false => print!("{}", stand_in::table(&found)),
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

/// Until there is `drill::print::table` and `drill::report::html`.
mod stand_in {
    use super::outcome::{End, Report, Verdict};

    pub fn table(report: &Report) -> String {
        let ms = |value: Option<u64>| value.map_or("-".into(), |value| format!("{value} ms"));
        let mut text = String::new();
        for run in &report.runs {
            let figures = &run.figures;
            let bad: Vec<String> = run
                .promises
                .iter()
                .filter(|judged| judged.verdict == Verdict::Fail)
                .map(|judged| format!("{:?}: {}", judged.promise, judged.why))
                .collect();
            let verdict = match &run.end {
                End::Skipped { reason } => format!("skipped: {reason}"),
                End::Stuck { reason } => format!("stuck: {reason}"),
                End::Played if bad.is_empty() => "kept".into(),
                End::Played => format!("broken: {}", bad.join("; ")),
            };
            text += &format!(
                "{:<34} {:<7} detect {:<8} first write {:<9} gap {:<9} reads {:<8} ok {:<6} failed {:?} other {:?} dropped {} lost {} unknown {} stale {} wrong {}  {verdict}\n",
                run.scenario,
                run.durability,
                ms(figures.detection),
                ms(figures.first_write),
                ms(figures.write_gap),
                ms(figures.read_gap),
                figures.acknowledged,
                figures.failed,
                figures.other_errors,
                figures.dropped,
                figures.lost,
                figures.unknown,
                figures.stale,
                figures.wrong
            );
        }
        text
    }

    pub fn html(report: &Report) -> String {
        format!(
            "<!doctype html><meta charset=\"utf-8\"><title>pgbaton drill</title><pre>{}</pre>\n",
            table(report).replace('&', "&amp;").replace('<', "&lt;")
        )
    }
}
