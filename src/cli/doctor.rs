//! `pgbaton doctor`: what would make a failover fail or lose something, and how to mend it, as a table for people.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::asking::{Asking, ask};
use crate::admin::doctor::Examination;
use crate::app;
use crate::cluster::doctor::{Finding, Level};
use crate::config::Config;

pub(super) const HELP: &str = "\
Asks a running pgbaton, or, with -c, the nodes and agents themselves, before anything is started. Reads only.

Examples:
  pgbaton doctor                        by the pgbaton that runs on this machine
  pgbaton doctor -c pgbaton.toml        from the configuration, whether or not anything runs
  pgbaton doctor --strict --json        for a pipeline: warnings count, too

Every check is explained in docs/doctor.md. A running pgbaton with an admin token wants to be shown it (PGBATON_TOKEN).
Exit codes: 0 no error, 1 an error (with --strict also a warning), 2 usage.";

/// Wider lines are broken on a terminal.
const WIDTH: usize = 110;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Ask the nodes that this configuration names, and no running pgbaton
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also what is well
    #[arg(long)]
    all: bool,
    /// Exit with 1 for a warning, too
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    pub(super) asking: Asking,
}

pub(super) fn doctor(arguments: &Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let Arguments { config, all, strict, asking } = arguments;
    let mut examination = match config {
        Some(file) => Examination { findings: app::doctor::doctor(&Config::load(file)?)? },
        None => serde_json::from_str(&ask(&asking.admin, "/doctor", &[])?)?,
    };
    let count = |level| examination.findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    let summary = summary(errors, warnings, examination.findings.len());
    let shown = match asking.json {
        true => {
            if !all {
                examination.findings.retain(|finding| finding.level != Level::Ok);
            }
            serde_json::to_string(&examination)? + "\n"
        }
        false => screen(&examination.findings, *all, std::io::stdout().is_terminal()) + &summary + "\n",
    };
    // Whoever reads may have seen enough (`| head`).
    let _ = std::io::stdout().lock().write_all(shown.as_bytes());
    let is_bad = errors > 0 || *strict && warnings > 0;
    Ok(if is_bad { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn summary(errors: usize, warnings: usize, all: usize) -> String {
    let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    match errors + warnings {
        0 => format!("nothing to complain of, {} checks", all),
        _ => format!("{}, {} in {all} checks", many(errors, "error"), many(warnings, "warning")),
    }
}

/// By node, each finding with its fix below it.
fn screen(findings: &[Finding], all: bool, breaks: bool) -> String {
    let mut text = String::new();
    let mut last = None;
    for finding in findings.iter().filter(|finding| all || finding.level != Level::Ok) {
        if last != Some(&finding.node) {
            if last.is_some() {
                text.push('\n');
            }
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", finding.node.as_deref().unwrap_or("cluster and pgbaton"));
            last = Some(&finding.node);
        }
        let head = format!("  {:<8} {:<26} ", finding.level.as_str(), finding.check);
        let below = " ".repeat(head.len());
        let _ = writeln!(text, "{head}{}", broken(&finding.message, &below, breaks));
        if !finding.fix.is_empty() {
            // Not broken: it is to be copied.
            let _ = writeln!(text, "{:<37}> {}", "", finding.fix);
        }
    }
    if last.is_some() {
        text.push('\n');
    }
    text
}

/// At blanks, with what follows below the beginning.
fn broken(text: &str, below: &str, breaks: bool) -> String {
    let room = WIDTH.saturating_sub(below.len());
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines
            .last_mut()
            .filter(|line| !breaks || line.is_empty() || line.chars().count() + 1 + word.chars().count() <= room);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines.join(&format!("\n{below}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(node: Option<&str>, level: Level, check: &'static str, message: &str, fix: &str) -> Finding {
        Finding { check: check.into(), node: node.map(str::to_owned), level, message: message.into(), fix: fix.into() }
    }

    #[test]
    fn findings_stand_by_node_with_their_fix() {
        let findings = [
            finding(None, Level::Warning, "agents", "no node has an agent", "pgbaton agent"),
            finding(Some("n1"), Level::Error, "fsync", "fsync is off", "on n1: on"),
            finding(Some("n1"), Level::Ok, "clock", "it agrees", ""),
        ];
        let expected = "\
cluster and pgbaton
  warning  agents                     no node has an agent
                                     > pgbaton agent

n1
  error    fsync                      fsync is off
                                     > on n1: on

";
        assert_eq!(screen(&findings, false, false), expected);
        assert!(screen(&findings, true, false).contains("  ok       clock"));
        assert_eq!(summary(1, 1, 3), "1 error, 1 warning in 3 checks");
        assert_eq!(summary(0, 0, 3), "nothing to complain of, 3 checks");
    }

    #[test]
    fn long_messages_are_broken_at_blanks() {
        let text = "word ".repeat(30);
        let shown = broken(&text, &" ".repeat(38), true);
        assert!(shown.lines().all(|line| line.len() <= WIDTH) && shown.lines().count() > 1, "{shown}");
        assert_eq!(broken("a  b", "", false), "a b");
    }
}
