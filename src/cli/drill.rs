//! `pgbaton drill`: what is broken, where, and what is left to read of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::yours::{self, YoursArguments};
use crate::drill::outcome::Report;
use crate::drill::{print, report};

#[derive(Debug, Args)]
pub(super) struct DrillArguments {
    /// What is done to the cluster
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// How long the load goes on after the fault
    #[arg(long, value_name = "S", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Write a page that can be sent around
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    yours: YoursArguments,
}

pub(super) fn run(arguments: DrillArguments) -> Result<(), Box<dyn std::error::Error>> {
    let DrillArguments { scenarios, seconds, report, json, yours } = arguments;
    let options = match yours.options(&scenarios, Duration::from_secs(seconds)) {
        Ok(Some(options)) => options,
        Ok(None) => usage("a drill needs a cluster: --on URL --dsn DSN"),
        Err(reason) => usage(&reason),
    };
    let found = yours::play(&options)?;
    publish(&found, report.as_deref(), json)
}

fn usage(reason: &str) -> ! {
    eprintln!("pgbaton: {reason}");
    std::process::exit(2);
}

/// The table or JSON on standard output, and the page where it is wanted; an error if a promise was broken.
pub(super) fn publish(found: &Report, page: Option<&Path>, json: bool) -> Result<(), Box<dyn std::error::Error>> {
    match json {
        true => println!("{}", serde_json::to_string_pretty(found)?),
        false => print!("{}", print::table(found)),
    }
    if let Some(path) = page {
        std::fs::write(path, report::html(found))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    match found.is_bad() {
        true => Err("a promise was broken, or a scenario came to no end".into()),
        false => Ok(()),
    }
}
