//! `pgbaton migrate` and `pgbaton config`: what is done with a configuration before it serves.

use clap::Subcommand;

use super::Outcome;
use super::serving::ConfigFile;
use crate::app;
use crate::config::{AgentConfig, Config, keys};

pub(super) const MIGRATE_HELP: &str = "\
It is done at once or not at all, can be run again, and says what it did. The control user needs the rights that
migrations/roles.sql gives it (docs/operations.md).

Example:
  PGBATON_CONTROL_PASSWORD=secret pgbaton migrate -c /etc/pgbaton/pgbaton.toml";

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Say what is wrong with a configuration file, line by line
    Check(ConfigFile),
    /// Print docs/configuration.md
    PrintReference,
}

pub(super) fn migrate(ConfigFile { file }: ConfigFile) -> Outcome {
    let (node, applied) = app::migrate::migrate(&Config::load(&file)?)?;
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
        ConfigVerb::Check(ConfigFile { file }) if AgentConfig::is_in(&file) => {
            app::agent::check(&AgentConfig::load(&file)?)?;
            println!("{}: ok", file.display());
        }
        ConfigVerb::Check(ConfigFile { file }) => {
            let config = Config::load(&file)?;
            for node in &config.cluster.nodes {
                config.control_password(node)?;
            }
            println!("{}: ok", file.display());
        }
        ConfigVerb::PrintReference => print!("{}", keys::reference()),
    }
    Ok(())
}
