//! `pgbaton serve` and `pgbaton agent`: what runs until it is told to end.

use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use crate::config::{AgentConfig, Config, Log, LogFormat};
use crate::{agent, app, telemetry};

pub(super) const SERVE_HELP: &str = "\
Signals:
  SIGTERM, SIGINT  take no new clients, let open transactions end (proxy.drain_timeout), quit; a second one quits at once
  SIGHUP           read the file again, apply what can change while running, and log what cannot

Example:
  PGBATON_CONTROL_PASSWORD=secret pgbaton serve -c /etc/pgbaton/pgbaton.toml";

pub(super) const AGENT_HELP: &str = "\
It starts PostgreSQL as its child, and does to it what a pgbaton orders; docs/agent.md has the whole of it.

Signals:
  SIGTERM, SIGINT  stop PostgreSQL (fast) and quit; a second one stops it immediately
  SIGHUP           read the file again, apply what can change while running, and log what cannot
  SIGKILL          leaves PostgreSQL running; the next agent takes it over

Example:
  PGBATON_CONTROL_PASSWORD=secret pgbaton agent -c /etc/pgbaton/agent.toml";

#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// The configuration file; its keys are in docs/configuration.md
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "pgbaton.toml")]
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct AgentFile {
    /// The agent's file; its keys are in docs/configuration.md
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "agent.toml")]
    pub(super) file: PathBuf,
}

pub(super) fn serve(ConfigFile { file }: ConfigFile) -> Outcome {
    let config = Config::load(&file)?;
    let level = start_logging(&config.log)?;
    Ok(app::serve(config, file, level)?)
}

pub(super) fn look_after(AgentFile { file }: AgentFile) -> Outcome {
    if agent::init::is_first() {
        std::process::exit(agent::init::run()?.into());
    }
    let config = AgentConfig::load(&file)?;
    start_logging(&config.log)?;
    app::agent::run(&config, &file)
}

/// The handle lets a reload change the level.
fn start_logging(log: &Log) -> Result<Option<telemetry::LevelHandle>, String> {
    let format = match log.format {
        LogFormat::Text => telemetry::Format::Text,
        LogFormat::Json => telemetry::Format::Json,
    };
    telemetry::init(format, &log.level, telemetry::Output::StandardError)
}
