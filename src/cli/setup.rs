//! `pgbaton migrate` and `pgbaton config`: what is done with a configuration before it serves.

use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Outcome;
use super::serving::ConfigFile;
use crate::admin::{alerts, metrics};
use crate::app;
use crate::config::{AgentConfig, Config, ConfigError, keys};

pub(super) const CHECK_HELP: &str = "\
With --json: {\"file\":…,\"ok\":…,\"findings\":[{\"file\":…,\"line\":…,\"message\":…}]}

Example:
  pgbaton config check -c /etc/pgbaton/pgbaton.toml";

pub(super) const MIGRATE_HELP: &str = "\
It is done at once or not at all, can be run again, and says what it did. The control user needs the rights that
migrations/roles.sql gives it (docs/operations.md).

Example:
  PGBATON_CONTROL_PASSWORD=secret pgbaton migrate -c /etc/pgbaton/pgbaton.toml";

#[derive(Debug, Args)]
pub(super) struct Told {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the answer as JSON, also that it was refused
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Say what is wrong with a configuration file, line by line
    #[command(after_help = CHECK_HELP)]
    Check(Told),
    /// Print docs/configuration.md
    PrintReference,
    /// Print docs/metrics.md
    #[command(hide = true)]
    PrintMetrics,
    /// Print docker/monitoring/alerts.yml
    #[command(hide = true)]
    PrintAlerts,
}

/// What `config check --json` prints.
#[derive(Serialize)]
struct Checked {
    file: String,
    ok: bool,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    /// Null where it is about no line of a file.
    file: Option<String>,
    line: Option<usize>,
    message: String,
}

pub(super) fn migrate(Told { file: ConfigFile { file }, json }: Told) -> Outcome {
    let (node, applied) = app::migrate::migrate(&Config::load(&file)?)?;
    if json {
        println!("{}", serde_json::json!({ "node": node, "applied": applied }));
        return Ok(());
    }
    for migration in &applied {
        println!("applied {migration} on {node}");
    }
    if applied.is_empty() {
        println!("up to date on {node}");
    }
    Ok(())
}

pub(super) fn config(verb: ConfigVerb) -> Outcome {
    match verb {
        ConfigVerb::Check(Told { file: ConfigFile { file }, json }) => {
            let result = check(&file);
            if json {
                let findings = result.as_ref().err().map_or(Vec::new(), |error| findings(&**error));
                let checked = Checked { file: file.display().to_string(), ok: result.is_ok(), findings };
                println!("{}", serde_json::to_string(&checked)?);
            } else if result.is_ok() {
                println!("{}: ok", file.display());
            }
            result
        }
        ConfigVerb::PrintReference => {
            print!("{}", keys::reference());
            Ok(())
        }
        ConfigVerb::PrintMetrics => {
            print!("{}", metrics::reference());
            Ok(())
        }
        ConfigVerb::PrintAlerts => {
            print!("{}", alerts::rules());
            Ok(())
        }
    }
}

/// A file of either kind.
fn check(file: &Path) -> Outcome {
    if AgentConfig::is_in(file) {
        return app::agent::check(&AgentConfig::load(file)?);
    }
    let config = Config::load(file)?;
    for node in &config.cluster.nodes {
        config.control_password(node)?;
    }
    Ok(())
}

fn findings(error: &(dyn std::error::Error + 'static)) -> Vec<Finding> {
    let plain = |error: &dyn std::error::Error| vec![Finding { file: None, line: None, message: error.to_string() }];
    match error.downcast_ref::<ConfigError>() {
        Some(ConfigError::Wrong(problems)) => problems
            .iter()
            .map(|problem| Finding {
                file: Some(problem.file.display().to_string()),
                line: problem.line,
                message: problem.message.clone(),
            })
            .collect(),
        _ => plain(error),
    }
}
