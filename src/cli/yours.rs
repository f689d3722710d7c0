//! `pgbaton drill --on URL`: the arguments of a drill on a cluster of one's own, and how it ends.

use std::time::Duration;

use clap::Args;

use crate::drill::outcome::Report;
use crate::drill::yours::{self, Deed, Dsn, Options, UserCommands, YoursError};
use crate::net::http::HttpUrl;

#[derive(Debug, Args)]
#[command(next_help_heading = "On a cluster of one's own")]
pub(super) struct YoursArguments {
    /// The admin endpoint of the pgbaton that looks after it; its token is in PGBATON_TOKEN
    #[arg(long, value_name = "URL", requires = "dsn")]
    pub(super) on: Option<HttpUrl>,
    /// Where and as whom clients connect to its proxy: "host=… port=… user=… dbname=…"; PGPASSWORD has the password
    #[arg(long, value_name = "DSN", requires = "on")]
    dsn: Option<Dsn>,
    /// A node, to be read past the proxy in the end: n1="host=… user=…" (may be given for each)
    #[arg(long = "node", value_name = "ID=DSN", requires = "on", value_parser = node)]
    nodes: Vec<(String, Dsn)>,
    /// The cluster's name, as consent in advance [default: it is asked for]
    #[arg(long, value_name = "NAME", requires = "on")]
    yes: Option<String>,
    /// Clients of the load
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(4..=500), requires = "on")]
    clients: u16,
    /// A command that breaks something, as one more scenario
    #[arg(long = "break", value_name = "COMMAND", requires = "on")]
    breaks: Option<String>,
    /// The command that mends it; the cluster then has to become as it was
    #[arg(long, value_name = "COMMAND", requires = "breaks")]
    mend: Option<String>,
}

fn node(text: &str) -> Result<(String, Dsn), String> {
    let (id, dsn) = text.split_once('=').ok_or("expected ID=DSN")?;
    Ok((super::orders::node_name(id)?, dsn.parse()?))
}

impl YoursArguments {
    /// `None` if it is not about a cluster of one's own. Without scenarios and without a command: a switchover.
    pub(super) fn options(self, scenarios: &[String], all: bool, seconds: Duration) -> Result<Option<Options>, String> {
        let (Some(on), Some(dsn)) = (self.on, self.dsn) else { return Ok(None) };
        let mut deeds = match all {
            true => Deed::ALL.into(),
            false => scenarios.iter().map(|name| name.parse()).collect::<Result<Vec<Deed>, String>>()?,
        };
        if self.breaks.is_some() {
            deeds.push(Deed::Break);
        }
        if deeds.is_empty() {
            deeds.push(Deed::Switchover);
        }
        let commands = UserCommands { breaks: self.breaks, mend: self.mend };
        let (token, clients) = (super::asking::token()?, usize::from(self.clients));
        Ok(Some(Options { on, token, dsn, nodes: self.nodes, deeds, commands, clients, seconds, yes: self.yes }))
    }
}

/// Plays it. `None`: there was no consent; it has been said why.
pub(super) fn play(options: &Options) -> Result<Option<Report>, String> {
    match yours::run(options) {
        Ok(report) => Ok(Some(report)),
        Err(YoursError::NoConsent(reason)) => {
            eprintln!("pgbaton: {reason}");
            Ok(None)
        }
        Err(YoursError::Failed(reason)) => Err(reason),
    }
}
