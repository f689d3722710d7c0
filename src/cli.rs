//! The command line: what can be typed, what it means, and how the process ends.
//!
//! Exit codes are an interface: 0 done, 1 refused (the reason is on standard error), 2 the command was not understood.
//! Each verb is in `cli/`, with its arguments and its help.

mod asking;
mod demo;
mod doctor;
mod drill;
mod explain;
mod list;
mod orders;
mod past;
mod printing;
mod progress;
mod serving;
mod setup;
mod shell;
mod watching;
mod yours;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use asking::{Asking, Failed, ask};
use printing::aligned;

/// What a verb comes to: nothing more to say, or why it was refused.
type Outcome = Result<(), Box<dyn std::error::Error>>;

/// One address for the application, any number of PostgreSQL nodes behind it.
///
/// Applications connect to pgbaton as if it were PostgreSQL. It finds the primary among the configured nodes and
/// shares few server connections between many clients.
#[derive(Debug, Parser)]
#[command(name = "pgbaton", version, max_term_width = 110, after_help = AFTER_HELP, subcommand_required = true)]
#[command(arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

/// Whether this is a command line that does something, for tests of what pages say; the name of the program comes first.
pub fn understand<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<(), clap::Error> {
    CommandLine::try_parse_from(words).map(|_| ())
}

const AFTER_HELP: &str = "\
Examples:
  pgbaton demo                          a primary, two replicas and the proxy on this machine
  pgbaton config check -c pgbaton.toml  what is wrong with a configuration, line by line
  pgbaton serve -c pgbaton.toml         run the proxy
  pgbaton agent -c agent.toml           look after one PostgreSQL
  pgbaton drill --all                   break such a cluster in every way there is, and judge what clients saw
  pgbaton list --watch                  what a running one makes of its nodes, again and again
  pgbaton doctor                        what would make a failover fail, and how to mend it
  pgbaton switchover --to n2            exchange the primary, without a client noticing more than a short wait
  pgbaton explain 'SELECT 1'            where a running one sends a statement, and why
  pgbaton availability --window 90d     how much of the time writes were taken

Environment variables:
  PGBATON_CONTROL_PASSWORD  password of the control user, if no control_password_file is configured
  PGPASSFILE                used in place of ~/.pgpass for the same, if that variable is not set either
  PGBATON_PG_BIN            directory with initdb and postgres, for `demo` and `agent`
  PGBATON_ADMIN             the admin endpoint of a running pgbaton, in place of --admin
  PGBATON_TOKEN             its token (admin.token)
  PGBATON_TOKEN_FILE        a file with that token, if PGBATON_TOKEN is not set

Exit codes: 0 done, 1 refused (the reason is on standard error), 2 usage.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the proxy until SIGTERM
    #[command(after_help = serving::SERVE_HELP)]
    Serve(serving::ConfigFile),
    /// Look after one PostgreSQL, on its own machine, until SIGTERM
    #[command(after_help = serving::AGENT_HELP)]
    Agent(serving::AgentFile),
    /// Start a whole cluster on this machine, with the proxy in front, until Ctrl-C
    #[command(after_help = demo::DEMO_HELP)]
    Demo(demo::DemoArguments),
    /// Break a cluster under load, and judge what clients saw
    #[command(after_help = drill::HELP)]
    Drill(Box<drill::DrillArguments>),
    /// The nodes: role, state, position, lag, whether they serve reads, what their agents do or complain of
    #[command(after_help = list::LIST_HELP)]
    List(list::ListArguments),
    /// Say where a running pgbaton would send a statement, and why
    #[command(after_help = explain::EXPLAIN_HELP)]
    Explain(explain::ExplainArguments),
    /// What happened to the cluster: every change of primary with its cause, and every outage
    #[command(after_help = past::HISTORY_HELP)]
    History(past::HistoryArguments),
    /// Look for everything that would make a failover fail, or lose something, and say how to mend it
    #[command(after_help = doctor::HELP)]
    Doctor(doctor::Arguments),
    /// How much of the time writes were taken: availability, MTTF, MTTR, failure rate
    #[command(after_help = past::AVAILABILITY_HELP)]
    Availability(past::AvailabilityArguments),
    /// Bring the schema `pgbaton` to the primary, as the control user
    #[command(after_help = setup::MIGRATE_HELP)]
    Migrate(setup::Told),
    /// Exchange the primary as planned: nothing is lost, clients wait for a moment
    #[command(after_help = orders::SWITCHOVER_HELP)]
    Switchover(orders::SwitchoverArguments),
    /// Make a node the primary now, whatever the state of the present one
    #[command(after_help = orders::FAILOVER_HELP)]
    Failover(orders::FailoverArguments),
    /// Forbid any change of primary, until `resume`
    Pause(Asking),
    /// Allow changes of primary again; also: go on after the store was found to be older than the database
    Resume(Asking),
    /// Take a standby out of use (no reads, no vote, no promotion), or back into it
    Maintenance(orders::MaintenanceArguments),
    /// Make a node a standby of the primary again, by its agent: as it is, by pg_rewind, or by a copy of everything
    #[command(after_help = orders::REJOIN_HELP)]
    Rejoin(orders::RepairArguments),
    /// The same, by a copy of everything
    Rebuild(orders::RepairArguments),
    /// Restart a node's server, by its agent
    #[command(after_help = orders::RESTART_HELP)]
    Restart(orders::NodeArguments),
    /// Look at configuration
    #[command(subcommand)]
    Config(setup::ConfigVerb),
    /// Print a script that completes what is typed, for a shell
    #[command(after_help = shell::COMPLETIONS_HELP)]
    Completions(shell::CompletionArguments),
    /// Print a page for `man`
    #[command(after_help = shell::MAN_HELP)]
    Man(shell::ManArguments),
}

impl Verb {
    /// Whether whoever typed it reads JSON, also when it is refused. `config check` has its own.
    fn wants_json(&self) -> bool {
        match self {
            Verb::List(its) => its.asking.json,
            Verb::Explain(its) => its.asking.json,
            Verb::History(its) => its.asking.json,
            Verb::Availability(its) => its.asking.json,
            Verb::Doctor(its) => its.asking.json,
            Verb::Pause(asking) | Verb::Resume(asking) => asking.json,
            Verb::Maintenance(its) => its.asking.json,
            Verb::Switchover(its) => its.ordering.asking.json,
            Verb::Failover(its) => its.ordering.asking.json,
            Verb::Restart(its) => its.ordering.asking.json,
            Verb::Rejoin(its) | Verb::Rebuild(its) => its.ordering.asking.json,
            Verb::Migrate(its) => its.json,
            _ => false,
        }
    }
}

/// Reads the arguments of this process and does what they say.
pub fn run() -> ExitCode {
    // clap prints its own message and exits with 2 for usage, 0 for --help and --version.
    let verb = CommandLine::parse().verb;
    let wants_json = verb.wants_json();
    match execute(verb) {
        Ok(code) => code,
        Err(reason) => {
            if wants_json {
                println!("{}", told(&*reason));
            }
            eprintln!("pgbaton: {reason}");
            ExitCode::from(1)
        }
    }
}

/// A refusal as the endpoint would say it.
fn told(reason: &(dyn std::error::Error + 'static)) -> serde_json::Value {
    let (code, message, hint) = match reason.downcast_ref::<Failed>() {
        Some(Failed { code, message, hint }) => (&**code, message.clone(), &**hint),
        None => ("failed", reason.to_string(), ""),
    };
    serde_json::json!({ "error": { "code": code, "message": message, "hint": hint } })
}

/// The text of `docs/cli.md`, for the test that prints it.
pub fn reference() -> String {
    shell::reference(CommandLine::command())
}

/// Every verb there is, for the test that has to know them all.
pub fn verbs() -> Vec<String> {
    CommandLine::command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect()
}

fn execute(verb: Verb) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let done = match verb {
        // They have exit codes of their own.
        Verb::Doctor(arguments) => return doctor::doctor(&arguments),
        Verb::Drill(arguments) => return drill::drill(*arguments),
        Verb::Serve(arguments) => serving::serve(arguments),
        Verb::Agent(arguments) => serving::look_after(arguments),
        Verb::Demo(arguments) => demo::run(arguments),
        Verb::List(arguments) => list::list(arguments),
        Verb::Explain(arguments) => explain::explain(arguments),
        Verb::History(arguments) => past::history(arguments),
        Verb::Availability(arguments) => past::availability(arguments),
        Verb::Migrate(arguments) => setup::migrate(arguments),
        Verb::Switchover(arguments) => orders::switchover(arguments),
        Verb::Failover(arguments) => orders::failover(arguments),
        Verb::Pause(asking) => orders::pause(&asking),
        Verb::Resume(asking) => orders::resume(&asking),
        Verb::Maintenance(arguments) => orders::maintenance(arguments),
        Verb::Rejoin(arguments) => orders::repair(arguments, "rejoin"),
        Verb::Rebuild(arguments) => orders::repair(arguments, "rebuild"),
        Verb::Restart(arguments) => orders::restart(arguments),
        Verb::Config(verb) => setup::config(verb),
        Verb::Completions(arguments) => shell::completions(arguments, CommandLine::command()),
        Verb::Man(arguments) => shell::man(arguments, CommandLine::command()),
    };
    done.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn help_names_every_environment_variable_that_is_read() {
        let help = CommandLine::command().render_long_help().to_string();
        for name in [
            "PGBATON_CONTROL_PASSWORD",
            "PGPASSFILE",
            "PGBATON_PG_BIN",
            "PGBATON_ADMIN",
            "PGBATON_TOKEN",
            "PGBATON_TOKEN_FILE",
        ] {
            assert!(help.contains(name), "{name}");
        }
    }
}
