//! The command line: what can be typed, what it means, and how the process ends.
//!
//! Exit codes are an interface: 0 done, 1 refused (the reason is on standard error), 2 the command was not understood.

mod drill;
mod list;
mod yours;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};

use crate::admin::history::{self, Entries};
use crate::admin::orders::{Done, Failover, Maintenance, Switchover};
use crate::cluster::Availability;
use crate::config::{AgentConfig, Config, Log, LogFormat, is_label, keys};
use crate::net::http::{self, ClientError, HttpUrl};
use crate::session::explain::Explanation;
use crate::types::Durability;
use crate::{agent, app, demo, telemetry};

/// How long the answer to an order may take. It goes on if nobody waits for it any more.
const CARRIED_OUT: Duration = Duration::from_secs(600);

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

const AFTER_HELP: &str = "\
Examples:
  pgbaton demo                          a primary, two replicas and the proxy on this machine
  pgbaton config check -c pgbaton.toml  what is wrong with a configuration, line by line
  pgbaton serve -c pgbaton.toml         run the proxy
  pgbaton agent -c agent.toml           look after one PostgreSQL
  pgbaton drill --all                   break such a cluster in every way there is, and judge what clients saw
  pgbaton list --watch                  what a running one makes of its nodes, again and again
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
    #[command(after_help = SERVE_HELP)]
    Serve(ConfigFile),
    /// Look after one PostgreSQL, on its own machine, until SIGTERM
    #[command(after_help = AGENT_HELP)]
    Agent(AgentFile),
    /// Start a whole cluster on this machine, with the proxy in front, until Ctrl-C
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArguments),
    /// Break a cluster under load, and judge what clients saw
    #[command(after_help = drill::HELP)]
    Drill(Box<drill::DrillArguments>),
    /// The nodes: role, state, position, lag, whether they serve reads, what their agents do or complain of
    #[command(after_help = LIST_HELP)]
    List(ListArguments),
    /// Say where a running pgbaton would send a statement, and why
    #[command(after_help = EXPLAIN_HELP)]
    Explain(ExplainArguments),
    /// What happened to the cluster: every change of primary with its cause, and every outage
    #[command(after_help = HISTORY_HELP)]
    History(HistoryArguments),
    /// How much of the time writes were taken: availability, MTTF, MTTR, failure rate
    #[command(after_help = AVAILABILITY_HELP)]
    Availability(AvailabilityArguments),
    /// Bring the schema `pgbaton` to the primary, as the control user
    #[command(after_help = MIGRATE_HELP)]
    Migrate(ConfigFile),
    /// Exchange the primary as planned: nothing is lost, clients wait for a moment
    #[command(after_help = SWITCHOVER_HELP)]
    Switchover(SwitchoverArguments),
    /// Make a node the primary now, whatever the state of the present one
    #[command(after_help = FAILOVER_HELP)]
    Failover(FailoverArguments),
    /// Forbid any change of primary, until `resume`
    Pause(Asking),
    /// Allow changes of primary again; also: go on after the store was found to be older than the database
    Resume(Asking),
    /// Take a standby out of use (no reads, no vote, no promotion), or back into it
    Maintenance(MaintenanceArguments),
    /// Make a node a standby of the primary again, by its agent: as it is, by pg_rewind, or by a copy of everything
    #[command(after_help = REJOIN_HELP)]
    Rejoin(NodeArguments),
    /// The same, by a copy of everything
    Rebuild(NodeArguments),
    /// Restart a node's server, by its agent
    #[command(after_help = RESTART_HELP)]
    Restart(NodeArguments),
    /// Look at configuration
    #[command(subcommand)]
    Config(ConfigVerb),
}

const FAILOVER_HELP: &str = "\
It is refused if acknowledged commits would be lost by it, unless --allow-data-loss says that they may.

Example:
  pgbaton failover --to n2";

const LIST_HELP: &str = "\
Columns: lag is what a replica has not replayed yet, in bytes and in time; reads: whether it may serve any, else the last column
says why not; agent: what it has its server do, `silent` if it does not answer, `none` if there is none.

Examples:
  pgbaton list --watch
  pgbaton list --json | jq -r .primary";

const SWITCHOVER_HELP: &str = "\
It is refused, with the reason and before anything is touched, if no node can take over without loss. Transactions that are open may
end (failover.drain); new ones wait. If the new primary does not come up, the old one goes on.

Examples:
  pgbaton switchover
  pgbaton switchover --to n2";

const REJOIN_HELP: &str = "\
What the node has that the cluster has not is kept aside, and named in `pgbaton history`. It goes on if this command is interrupted:
`pgbaton list` shows how far it is.";

const RESTART_HELP: &str = "\
All of a cluster, without an error for its clients: each standby, one after the other; then a switchover; then the primary of the past.

Example:
  pgbaton restart n2 && pgbaton restart n3 && pgbaton switchover && pgbaton restart n1";

const SERVE_HELP: &str = "\
Signals:
  SIGTERM, SIGINT  take no new clients, let open transactions end (proxy.drain_timeout), quit; a second one quits at once
  SIGHUP           read the file again, apply what can change while running, and log what cannot

Example:
  PGBATON_CONTROL_PASSWORD=secret pgbaton serve -c /etc/pgbaton/pgbaton.toml";

const AGENT_HELP: &str = "\
It starts PostgreSQL as its child, and does to it what a pgbaton orders; docs/agent.md has the whole of it.

Signals:
  SIGTERM, SIGINT  stop PostgreSQL (fast) and quit; a second one stops it immediately
  SIGHUP           read the file again, apply what can change while running, and log what cannot
  SIGKILL          leaves PostgreSQL running; the next agent takes it over

Example:
  PGBATON_CONTROL_PASSWORD=secret pgbaton agent -c /etc/pgbaton/agent.toml";

const DEMO_HELP: &str = "\
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

const EXPLAIN_HELP: &str = "\
The statement is explained as that of a session that has just logged in: with the role's own defaults, and with nothing set
or seen. In a session of one's own, EXPLAIN ROUTE … says the same for that session.

Examples:
  pgbaton explain 'SELECT * FROM orders'
  pgbaton explain --database shop --user app --json 'SELECT next_number()'";

const HISTORY_HELP: &str = "\
Examples:
  pgbaton history --limit 5
  pgbaton history --json | jq '.entries[] | select(.what == \"epoch\")'";

const AVAILABILITY_HELP: &str = "\
Time that no pgbaton watched is neither up nor down: it is said how much that is. What an operator ordered (a switchover)
is downtime, but no failure.

  MTTF  mean time to failure       uptime / failures
  MTTR  mean time to restoration   downtime / failures
  failure rate                     1 / MTTF
  availability                     MTTF / (MTTF + MTTR) = uptime / (uptime + downtime)

Example:
  pgbaton availability --window 90d";

const MIGRATE_HELP: &str = "\
It is done at once or not at all, can be run again, and says what it did. The control user needs the rights that
migrations/roles.sql gives it (docs/operations.md).

Example:
  PGBATON_CONTROL_PASSWORD=secret pgbaton migrate -c /etc/pgbaton/pgbaton.toml";

#[derive(Debug, Args)]
struct HistoryArguments {
    /// Only so many entries, the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Args)]
struct AvailabilityArguments {
    /// Until now from so long ago: 12h, 30d, "1month 3d"
    #[arg(long, value_name = "TIME", default_value = history::WINDOW, value_parser = window)]
    window: String,
    #[command(flatten)]
    asking: Asking,
}

/// As it was typed, if it means something.
fn window(text: &str) -> Result<String, String> {
    history::parse_window(text).map(|_| text.to_owned())
}

#[derive(Debug, Args)]
struct ExplainArguments {
    /// The statement
    sql: String,
    /// The database it would run in [default: the only one that clients have connected to]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// The role it would run as, for its search_path and other defaults
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

/// Whom an operator's verb asks, and how it says the answer.
#[derive(Debug, Args)]
struct Asking {
    /// The admin endpoint of a running pgbaton
    #[arg(long, value_name = "URL", env = "PGBATON_ADMIN", default_value = "http://127.0.0.1:6433")]
    admin: HttpUrl,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file; its keys are in docs/configuration.md
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "pgbaton.toml")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct AgentFile {
    /// The agent's file; its keys are in docs/configuration.md
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "agent.toml")]
    file: PathBuf,
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "async" => Ok(Durability::Async),
        "quorum" => Ok(Durability::Quorum),
        _ => Err("either async or quorum".into()),
    }
}

#[derive(Debug, Args)]
struct DemoArguments {
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

fn pause_between(text: &str) -> Result<Duration, String> {
    let pause = humantime_serde::re::humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&pause) {
        true => Ok(pause),
        false => Err("it has to be from 100ms to 1h".into()),
    }
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    asking: Asking,
}

/// A node's name, as far as one can be told from the outside.
fn node_name(text: &str) -> Result<String, String> {
    match is_label(text) && !text.is_empty() {
        true => Ok(text.to_owned()),
        false => Err("a node's name is up to 63 letters, digits, \"_\", \"-\" or \".\"".into()),
    }
}

#[derive(Debug, Args)]
struct NodeArguments {
    #[arg(value_name = "NODE", value_parser = node_name)]
    node: String,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Args)]
struct SwitchoverArguments {
    /// The node that is to be the primary [default: the best of those that may]
    #[arg(long, value_name = "NODE", value_parser = node_name)]
    to: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Args)]
struct FailoverArguments {
    /// The node that is to be the primary
    #[arg(long, value_name = "NODE", value_parser = node_name)]
    to: String,
    /// Also if acknowledged commits are lost by it
    #[arg(long)]
    allow_data_loss: bool,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Args)]
struct MaintenanceArguments {
    #[arg(value_name = "NODE", value_parser = node_name)]
    node: String,
    #[arg(value_name = "on|off", value_parser = ["on", "off"])]
    state: String,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Say what is wrong with a configuration file, line by line
    Check(ConfigFile),
    /// Print docs/configuration.md
    PrintReference,
}

/// Reads the arguments of this process and does what they say.
pub fn run() -> ExitCode {
    // clap prints its own message and exits with 2 for usage, 0 for --help and --version.
    match execute(CommandLine::parse().verb) {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("pgbaton: {reason}");
            ExitCode::from(1)
        }
    }
}

fn execute(verb: Verb) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match verb {
        Verb::Drill(arguments) => drill::drill(*arguments),
        verb => obey(verb).map(|()| ExitCode::SUCCESS),
    }
}

/// All whose answer is that it was done, or why not.
fn obey(verb: Verb) -> Result<(), Box<dyn std::error::Error>> {
    match verb {
        Verb::Serve(ConfigFile { file }) => {
            let config = Config::load(&file)?;
            let level = start_logging(&config.log)?;
            Ok(app::serve(config, file, level)?)
        }
        Verb::Agent(AgentFile { file }) => {
            if agent::init::is_first() {
                std::process::exit(agent::init::run()?.into());
            }
            let config = AgentConfig::load(&file)?;
            start_logging(&config.log)?;
            app::agent::run(&config, &file)
        }
        Verb::Demo(arguments) => {
            let DemoArguments { replicas, durability, listen, admin, dir, keep, chaos, every, seconds } = arguments;
            let (replicas, limit) = (usize::from(replicas), seconds.map(Duration::from_secs));
            let chaos = chaos.then_some(demo::Chaos { every, limit });
            Ok(demo::run(demo::Options { replicas, durability, listen, admin, directory: dir, keep, chaos })?)
        }
        // Answered before: it has an exit code of its own.
        Verb::Drill(_) => Ok(()),
        Verb::List(ListArguments { watch, asking }) => list::list(&asking, watch),
        Verb::Explain(arguments) => explain(arguments),
        Verb::History(HistoryArguments { limit, asking }) => {
            let answer = ask(&asking.admin, "/history", &[("limit", &limit.to_string())])?;
            if asking.json {
                println!("{answer}");
                return Ok(());
            }
            let Entries { entries } = serde_json::from_str(&answer)?;
            let table = history::table(&entries);
            let rows = table.rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect());
            print_aligned(
                std::iter::once(table.columns.iter().map(ToString::to_string).collect()).chain(rows).collect(),
            );
            Ok(())
        }
        Verb::Availability(AvailabilityArguments { window, asking }) => {
            let answer = ask(&asking.admin, "/availability", &[("window", &window)])?;
            if asking.json {
                println!("{answer}");
                return Ok(());
            }
            let availability: Availability = serde_json::from_str(&answer)?;
            print_aligned(availability.rows().into_iter().map(Vec::from).collect());
            Ok(())
        }
        Verb::Migrate(ConfigFile { file }) => {
            let (node, applied) = app::migrate::migrate(&Config::load(&file)?)?;
            for migration in &applied {
                println!("applied {migration} on {node}");
            }
            if applied.is_empty() {
                println!("up to date on {node}");
            }
            Ok(())
        }
        Verb::Switchover(SwitchoverArguments { to, asking }) => order(&asking, "/switchover", &Switchover { to }),
        Verb::Failover(FailoverArguments { to, allow_data_loss, asking }) => {
            order(&asking, "/failover", &Failover { to, allow_data_loss })
        }
        Verb::Pause(asking) => order(&asking, "/pause", &serde_json::json!({})),
        Verb::Resume(asking) => order(&asking, "/resume", &serde_json::json!({})),
        Verb::Maintenance(MaintenanceArguments { node, state, asking }) => {
            order(&asking, &format!("/nodes/{node}/maintenance"), &Maintenance { on: state == "on" })
        }
        Verb::Rejoin(NodeArguments { node, asking }) => order_node(&asking, &node, "rejoin"),
        Verb::Rebuild(NodeArguments { node, asking }) => order_node(&asking, &node, "rebuild"),
        Verb::Restart(NodeArguments { node, asking }) => order_node(&asking, &node, "restart"),
        Verb::Config(ConfigVerb::Check(ConfigFile { file })) if AgentConfig::is_in(&file) => {
            app::agent::check(&AgentConfig::load(&file)?)?;
            println!("{}: ok", file.display());
            Ok(())
        }
        Verb::Config(ConfigVerb::Check(ConfigFile { file })) => {
            let config = Config::load(&file)?;
            for node in &config.cluster.nodes {
                config.control_password(node)?;
            }
            println!("{}: ok", file.display());
            Ok(())
        }
        Verb::Config(ConfigVerb::PrintReference) => {
            print!("{}", keys::reference());
            Ok(())
        }
    }
}

/// Gives an order to a running pgbaton and prints what was done.
fn order(asking: &Asking, path: &str, body: &impl serde::Serialize) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let token = token()?;
    let body = serde_json::to_string(body)?;
    let begun = Instant::now();
    let answer = runtime.block_on(http::post(&asking.admin, token.as_deref(), path, body, CARRIED_OUT));
    let answer = answer.map_err(|error| match error {
        // It was given, then.
        ClientError::Unreachable { .. } if begun.elapsed() >= CARRIED_OUT => {
            format!("{error}; it goes on: see `pgbaton list` and `pgbaton history`")
        }
        error => unanswered(error),
    })?;
    if asking.json {
        println!("{answer}");
        return Ok(());
    }
    let Done { done } = serde_json::from_str(&answer)?;
    println!("{done}");
    Ok(())
}

fn order_node(asking: &Asking, node: &str, what: &str) -> Result<(), Box<dyn std::error::Error>> {
    order(asking, &format!("/nodes/{node}/{what}"), &serde_json::json!({}))
}

fn explain(arguments: ExplainArguments) -> Result<(), Box<dyn std::error::Error>> {
    let ExplainArguments { sql, database, user, asking } = arguments;
    let mut question = vec![("sql", sql.as_str())];
    question.extend(database.as_deref().map(|name| ("database", name)));
    question.extend(user.as_deref().map(|name| ("user", name)));
    let answer = ask(&asking.admin, "/explain", &question)?;
    if asking.json {
        println!("{answer}");
        return Ok(());
    }
    let explanation: Explanation = serde_json::from_str(&answer)?;
    print_aligned(explanation.rows().into_iter().map(Vec::from).collect());
    Ok(())
}

fn print_aligned(rows: Vec<Vec<String>>) {
    // Whoever reads may have seen enough (`| head`).
    let _ = std::io::stdout().lock().write_all(aligned(&rows).as_bytes());
}

/// Columns two blanks apart.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// What a running pgbaton wants to be shown, from the environment.
fn token() -> Result<Option<String>, String> {
    if let Ok(token) = std::env::var("PGBATON_TOKEN") {
        return Ok(Some(token));
    }
    let Some(file) = std::env::var_os("PGBATON_TOKEN_FILE").filter(|file| !file.is_empty()) else { return Ok(None) };
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("cannot read {} (PGBATON_TOKEN_FILE): {error}", file.display()))?;
    Ok(text.lines().next().map(str::to_owned))
}

/// Asks a running pgbaton.
fn ask(admin: &HttpUrl, path: &str, parameters: &[(&str, &str)]) -> Result<String, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let token = token()?;
    Ok(runtime.block_on(http::get(admin, token.as_deref(), path, parameters, http::ANSWER)).map_err(unanswered)?)
}

fn unanswered(error: ClientError) -> String {
    match error {
        ClientError::Unreachable { .. } => {
            format!("{error}; is pgbaton running, and admin.listen that address (--admin, PGBATON_ADMIN)?")
        }
        error => error.to_string(),
    }
}

/// The handle lets a reload change the level.
fn start_logging(log: &Log) -> Result<Option<telemetry::LevelHandle>, String> {
    let format = match log.format {
        LogFormat::Text => telemetry::Format::Text,
        LogFormat::Json => telemetry::Format::Json,
    };
    telemetry::init(format, &log.level, telemetry::Output::StandardError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

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
