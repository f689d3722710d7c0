//! The console: database `pgbaton`, spoken to with psql. `SHOW …` reads, `RELOAD`, `KILL` and an operator's orders act.
//!
//! Only the simple query protocol is served: that is what psql and monitoring agents use for statements without parameters.
//! What is shown is put together in `tables` and `pgbouncer`. The console also answers by the name of PgBouncer's.

use std::sync::Arc;
use std::time::Duration;

use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};
use pgwire::messages::response::CommandComplete;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::asked::{self, Who};
use super::history::{self, History};
use super::orders::{Orders, Reload};
use super::pgbouncer;
use super::tables::{self, Column, Table};
use crate::cluster;
use crate::net::Stream;
use crate::session::clients::{Arrival, Client, Entrance, Wish};
use crate::session::hypothetical::Unexplained;
use crate::session::login;
use crate::session::machine::plan::explain_route;
use crate::session::shared::Shared;
use crate::types::NodeId;
use crate::wire::frame::{self, HEADER};
use crate::wire::message::{self, Problem};

/// Longest statement the console reads, in bytes.
const LONGEST: usize = 64 * 1024;

/// What a user of the console may do, from the roles it has in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    None,
    /// SHOW (member of `pg_monitor`).
    Show,
    /// Everything (member of `pgbaton_admin`, or superuser).
    Act,
}

/// What the console needs from the rest of the program.
pub struct Console {
    pub shared: Arc<Shared>,
    /// Reads the configuration file again; answers with what was applied and what needs a restart.
    pub reload: Reload,
    /// What the control plane believes.
    pub believed: Box<dyn Fn() -> Arc<cluster::Picture> + Send + Sync>,
    /// Every key of the configuration: name, value, default, and whether a reload changes it. Secrets are not among it.
    pub config: Box<dyn Fn() -> Vec<[String; 4]> + Send + Sync>,
    pub history: History,
    pub orders: Orders,
}

/// What drivers set when they connect, whether or not anybody asked them to.
const SET_BY_DRIVERS: [&str; 6] =
    ["application_name", "client_encoding", "client_min_messages", "datestyle", "extra_float_digits", "timezone"];

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Nodes,
    Lag,
    Pools,
    PoolsByNode,
    Databases,
    Users,
    Lists,
    Servers,
    Clients,
    Stats,
    StatsTotals,
    StatsAverages,
    Totals,
    Routes,
    History,
    Config,
    Version,
    Help,
    /// What drivers set of their own accord, of no matter here.
    Set,
    /// What is to be explained, and of which database if it is said.
    ExplainRoute(Option<String>, String),
    Reload,
    Kill(u64),
    /// With the word that is answered when it is done.
    Order(&'static str, cluster::Command),
}

pub const HELP: [(&str, &str); 29] = [
    ("SHOW NODES", "the nodes, their roles, how they were last seen, and whether they may serve reads"),
    ("SHOW LAG", "how far each replica is behind, and what it serves"),
    ("SHOW POOLS", "clients and server connections for each database and user"),
    ("SHOW POOLS BY NODE", "server connections for each database, user and node"),
    ("SHOW DATABASES", "the databases that clients were let into"),
    ("SHOW USERS", "the roles that have clients or server connections"),
    ("SHOW LISTS", "how many there are of everything"),
    ("SHOW SERVERS", "the server connections, those first that clients have just now"),
    ("SHOW CLIENTS", "who is connected, what they do, and why they keep a server connection (pinned)"),
    ("SHOW STATS", "of each database: totals since the start, and averages of the last minute"),
    ("SHOW STATS_TOTALS", "the totals alone"),
    ("SHOW STATS_AVERAGES", "the averages alone"),
    ("SHOW TOTALS", "both for all databases together, and where statements went"),
    ("SHOW ROUTES", "what was sent where, why, and how often"),
    ("SHOW HISTORY", "what happened to the cluster, the newest first"),
    ("SHOW CONFIG", "every key of the configuration with its value"),
    ("SHOW VERSION", "the version of pgbaton"),
    ("SHOW HELP", "this list"),
    ("EXPLAIN ROUTE [IN <database>] <sql>", "where a statement would go, and why"),
    ("RELOAD", "read the configuration file again"),
    ("KILL <id>", "end a client's connection (id as in SHOW CLIENTS)"),
    ("SWITCHOVER [TO <node>]", "exchange the primary as planned: nothing is lost, clients wait for a moment"),
    (
        "FAILOVER TO <node>",
        "make a node the primary now, whatever the state of the present one; refused if commits would be lost",
    ),
    ("PAUSE", "forbid any change of primary until RESUME"),
    ("RESUME", "allow changes of primary again"),
    ("MAINTENANCE <node> ON | OFF", "take a standby out of use (no reads, no vote, no promotion), or back into it"),
    ("REJOIN <node>", "make a node a standby of the primary again, the cheapest way that is right"),
    ("REBUILD <node>", "the same, by copying everything"),
    ("RESTART <node>", "restart a node's server, by its agent"),
];

impl Command {
    fn parse(text: &str) -> Result<Command, Problem> {
        if let Some(rest) = explain_route(text.as_bytes()).and_then(|rest| std::str::from_utf8(rest).ok()) {
            let (database, sql) = in_database(rest)?;
            if sql.trim().trim_end_matches(';').is_empty() {
                return Err(Problem::new("42601", "there is no statement to explain"));
            }
            return Ok(Command::ExplainRoute(database, sql.to_owned()));
        }
        let typed: Vec<&str> = text.trim().trim_end_matches(';').split_whitespace().collect();
        let words: Vec<String> = typed.iter().map(|word| word.to_ascii_lowercase()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let Some(order) = order(&words, &typed) {
            return order;
        }
        match words[..] {
            ["show", "nodes"] => Ok(Command::Nodes),
            ["show", "lag"] => Ok(Command::Lag),
            ["show", "pools"] => Ok(Command::Pools),
            ["show", "pools", "by", "node"] => Ok(Command::PoolsByNode),
            ["show", "databases"] => Ok(Command::Databases),
            ["show", "users"] => Ok(Command::Users),
            ["show", "lists"] => Ok(Command::Lists),
            ["show", "stats_totals"] => Ok(Command::StatsTotals),
            ["show", "stats_averages"] => Ok(Command::StatsAverages),
            ["show", "totals"] => Ok(Command::Totals),
            ["set", setting, ..] if SET_BY_DRIVERS.iter().any(|known| setting.starts_with(known)) => Ok(Command::Set),
            ["show", "servers"] => Ok(Command::Servers),
            ["show", "clients"] => Ok(Command::Clients),
            ["show", "stats"] => Ok(Command::Stats),
            ["show", "routes"] => Ok(Command::Routes),
            ["show", "history"] => Ok(Command::History),
            ["show", "config"] => Ok(Command::Config),
            ["show", "version"] => Ok(Command::Version),
            ["show", "help"] | ["help"] => Ok(Command::Help),
            ["reload"] => Ok(Command::Reload),
            ["kill", id] => match id.parse() {
                Ok(id) => Ok(Command::Kill(id)),
                Err(_) => {
                    Err(Problem::new("22P02", format!("\"{id}\" is not a client's id")).hint("See SHOW CLIENTS."))
                }
            },
            ["explain", "route"] => Err(Problem::new("42601", "there is no statement to explain")),
            _ => Err(Problem::new("42601", "the console does not know this command").hint("SHOW HELP lists them.")),
        }
    }

    fn needs(&self) -> Right {
        match self {
            Command::Reload | Command::Kill(_) | Command::Order(..) => Right::Act,
            _ => Right::Show,
        }
    }
}

/// An operator's order, if it begins as one. Names of nodes are taken as they were typed, also in double quotes.
fn order(words: &[&str], typed: &[&str]) -> Option<Result<Command, Problem>> {
    use cluster::Command::{Failover, Maintenance, Pause, Rejoin, Restart, Resume, Switchover};
    let named = |at: usize| {
        let typed: &str = typed[at];
        NodeId::from(typed.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(typed))
    };
    let (tag, order) = match *words {
        ["switchover"] => ("SWITCHOVER", Switchover { to: None }),
        ["switchover", "to", _] => ("SWITCHOVER", Switchover { to: Some(named(2)) }),
        ["failover", "to", _] => ("FAILOVER", Failover { to: named(2), allow_data_loss: false }),
        ["pause"] => ("PAUSE", Pause),
        ["resume"] => ("RESUME", Resume),
        ["maintenance", _, state @ ("on" | "off")] => {
            ("MAINTENANCE", Maintenance { node: named(1), on: state == "on" })
        }
        ["rejoin", _] => ("REJOIN", Rejoin { node: named(1), rebuild: false }),
        ["rebuild", _] => ("REBUILD", Rejoin { node: named(1), rebuild: true }),
        ["restart", _] => ("RESTART", Restart { node: named(1) }),
        ["switchover" | "failover" | "pause" | "resume" | "maintenance" | "rejoin" | "rebuild" | "restart", ..] => {
            let problem = Problem::new("42601", "the console does not understand the rest of this command");
            return Some(Err(problem.hint("SHOW HELP lists what each command takes.")));
        }
        _ => return None,
    };
    Some(Ok(Command::Order(tag, order)))
}

/// `IN <database>` at the head of what is to be explained; no statement begins so. The name is read as PostgreSQL does.
fn in_database(text: &str) -> Result<(Option<String>, &str), Problem> {
    let rest = text.trim_start();
    let is_in = rest.get(..2).is_some_and(|word| word.eq_ignore_ascii_case("in"))
        && rest[2..].starts_with(|next: char| next.is_whitespace() || next == '"');
    if !is_in {
        return Ok((None, text));
    }
    let rest = rest[2..].trim_start();
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        return Ok((Some(rest[..end].to_lowercase()), &rest[end..]));
    };
    let mut name = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' if characters.next_if(|(_, next)| *next == '"').is_some() => name.push('"'),
            '"' => return Ok((Some(name), &quoted[at + 1..])),
            character => name.push(character),
        }
    }
    Err(Problem::new("42601", "unterminated quoted identifier after IN"))
}

/// Serves a client that logged in to database `pgbaton`.
pub async fn serve(client: login::Client, right: Right, console: &Console, worker: usize) {
    let login::Client { mut stream, unread, pending, user, database, .. } = client;
    let mut out = pending;
    if right == Right::None {
        let problem = Problem::new("42501", "permission denied for the console")
            .hint("GRANT pg_monitor (SHOW) or pgbaton_admin (everything) to the role.");
        message::fatal(&mut out, &problem);
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.write_all(&out)).await;
        return;
    }
    let arrival = Arrival {
        user: (&*user).into(),
        database: (&*database).into(),
        peer: client.peer.to_string(),
        local: stream.local_addr().map(|address| address.to_string()),
        application_name: client
            .startup
            .iter()
            .find(|(name, _)| &**name == "application_name")
            .map_or(String::new(), |(_, value)| value.to_string()),
        tally: Arc::default(),
        tls: client.tls,
        entrance: Entrance::ReadWrite,
        worker,
        long_key: client.protocol_minor >= 2,
        pid: None,
    };
    // The console stays reachable when clients have used up their number.
    let Some(me) = console.shared.clients.enter(arrival, usize::MAX) else { return };
    message::authentication_ok(&mut out);
    for (name, value) in [
        ("server_version", concat!("15.0 (pgbaton ", env!("CARGO_PKG_VERSION"), ")")),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
        ("DateStyle", "ISO"),
    ] {
        message::parameter_status(&mut out, name, value);
    }
    message::backend_key_data(&mut out, me.client.pid, &me.client.secret);
    message::ready_for_query(&mut out, b'I');
    let killed = std::future::poll_fn(|cx| {
        me.client.waker.register(cx.waker());
        if me.client.wish() == Wish::None { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    });
    tokio::select! {
        _ = converse(&mut stream, unread, out, right, &me.client, console) => {}
        () = killed => {}
    }
}

async fn converse(
    stream: &mut Stream,
    mut input: Vec<u8>,
    mut out: Vec<u8>,
    right: Right,
    client: &Client,
    console: &Console,
) -> std::io::Result<()> {
    let mut skipping = false;
    loop {
        if !out.is_empty() {
            stream.write_all(&out).await?;
            stream.flush().await?;
            out.clear();
        }
        let head = match frame::client_header(&input) {
            Ok(head) => head.filter(|head| head.total <= input.len() || head.total > LONGEST),
            Err(error) => {
                message::fatal(&mut out, &Problem::new("08P01", error.to_string()));
                return stream.write_all(&out).await;
            }
        };
        let Some(head) = head else {
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
            continue;
        };
        if head.total > LONGEST {
            message::fatal(&mut out, &Problem::new("54000", "statement too long for the console"));
            return stream.write_all(&out).await;
        }
        let body: Vec<u8> = input.drain(..head.total).skip(HEADER).collect();
        match head.tag {
            b'Q' => {
                let text = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(&body)).into_owned();
                answer(&text, right, client, console, &mut out).await;
                message::ready_for_query(&mut out, b'I');
            }
            b'X' => return Ok(()),
            b'S' => {
                skipping = false;
                message::ready_for_query(&mut out, b'I');
            }
            _ if skipping => {}
            _ => {
                skipping = true;
                let problem = Problem::new("0A000", "the console serves the simple query protocol only")
                    .hint("Send the command without parameters, as psql does.");
                message::error(&mut out, &problem);
            }
        }
    }
}

async fn answer(text: &str, right: Right, client: &Client, console: &Console, out: &mut Vec<u8>) {
    if text.trim().trim_end_matches(';').is_empty() {
        message::raw(out, b'I', &[]);
        return;
    }
    let result = match Command::parse(text) {
        Ok(command) if command.needs() == Right::Act && right != Right::Act => {
            let who = Who::console(&client.user, &client.peer);
            asked::refused(&who, text.trim(), "without the role pgbaton_admin");
            Err(Problem::new("42501", "permission denied").hint("This command needs the role pgbaton_admin."))
        }
        Ok(command) => run(&command, client, console).await,
        Err(problem) => Err(problem),
    };
    match result {
        Ok(table) => write(&table, out),
        Err(problem) => message::error(out, &problem),
    }
}

async fn run(command: &Command, client: &Client, console: &Console) -> Result<Table, Problem> {
    let shared = &console.shared;
    let who = || Who::console(&client.user, &client.peer);
    Ok(match command {
        Command::Nodes => tables::nodes(shared, &(console.believed)()),
        Command::Lag => tables::lag(shared),
        Command::Pools => pgbouncer::pools(shared),
        Command::PoolsByNode => pgbouncer::pools_by_node(shared),
        Command::Databases => pgbouncer::databases(shared),
        Command::Users => pgbouncer::users(shared),
        Command::Lists => pgbouncer::lists(shared),
        Command::Servers => pgbouncer::servers(shared),
        Command::Clients => pgbouncer::clients(shared),
        Command::Stats => pgbouncer::stats(shared),
        Command::StatsTotals => pgbouncer::stats_totals(shared),
        Command::StatsAverages => pgbouncer::stats_averages(shared),
        Command::Totals => pgbouncer::totals(shared),
        Command::Set => Table::done("SET"),
        Command::Routes => tables::routes(shared),
        Command::History => history::table(&(console.history)()),
        Command::Config => {
            let rows = (console.config)().into_iter().map(|row| row.map(Some).to_vec());
            Table::shown(&["key", "value", "default", "changeable"], rows.collect())
        }
        Command::Version => pgbouncer::version(),
        Command::Help => {
            let rows = HELP.iter().map(|(command, about)| vec![Some((*command).into()), Some((*about).into())]);
            Table::shown(&["command", "about"], rows.collect())
        }
        Command::ExplainRoute(database, sql) => {
            let explained = shared.explain(database.as_deref(), Some(&client.user), sql).await;
            let explained = explained.map_err(|reason| {
                let sqlstate = if let Unexplained::Several(_) = reason { "42601" } else { "3D000" };
                let hint = match reason {
                    Unexplained::Several(_) => "EXPLAIN ROUTE IN <database> <sql>",
                    _ => reason.hint(),
                };
                Problem::new(sqlstate, reason.to_string()).hint(hint)
            })?;
            tables::explanation(&explained)
        }
        Command::Reload => match asked::reload(&console.reload, who()).await {
            Ok(report) => Table::shown(&["reload"], vec![vec![Some(report)]]).tagged("RELOAD"),
            Err(error) => return Err(Problem::new("F0000", error)),
        },
        Command::Order(tag, order) => {
            // object_not_in_prerequisite_state: it was understood, and cannot be done as things are.
            let done = asked::carry_out(&console.orders, who(), order.clone()).await;
            let done =
                done.map_err(|reason| Problem::new("55000", reason).hint("SHOW NODES has the state of things."))?;
            Table::shown(&["done"], vec![vec![Some(done)]]).tagged(tag)
        }
        Command::Kill(id) => match shared.clients.all().into_iter().find(|client| client.id == *id) {
            Some(client) => {
                client.ask(Wish::Kill);
                tracing::info!(by = %who(), order = format!("kill {id}"), outcome = "done", "an order");
                Table::done("KILL")
            }
            None => {
                let unknown = Problem::new("42704", format!("no client has the id {id}"));
                return Err(unknown.hint("See SHOW CLIENTS."));
            }
        },
    })
}

fn write(table: &Table, out: &mut Vec<u8>) {
    if !table.columns.is_empty() {
        // text or bigint, both as text.
        let column = |column: &Column| match *column {
            Column::Text(name) => FieldDescription::new(name.into(), 0, 0, 25, -1, -1, 0),
            Column::Number(name) => FieldDescription::new(name.into(), 0, 0, 20, 8, -1, 0),
        };
        message::encode(out, &RowDescription::new(table.columns.iter().map(column).collect()));
        for row in &table.rows {
            let mut data = bytes::BytesMut::new();
            for value in row {
                match value {
                    Some(text) => {
                        data.extend_from_slice(&(text.len() as i32).to_be_bytes());
                        data.extend_from_slice(text.as_bytes());
                    }
                    None => data.extend_from_slice(&(-1i32).to_be_bytes()),
                }
            }
            message::encode(out, &DataRow::new(data, row.len() as i16));
        }
    }
    message::encode(out, &CommandComplete::new(table.tag.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_without_regard_to_case_or_semicolon() {
        assert_eq!(Command::parse(" show  CLIENTS ;").unwrap(), Command::Clients);
        assert_eq!(Command::parse("KILL 12").unwrap(), Command::Kill(12));
        assert_eq!(Command::parse("kill x").unwrap_err().code, "22P02");
        assert_eq!(Command::parse("drop table t").unwrap_err().code, "42601");
    }

    #[test]
    fn only_commands_that_act_need_the_admin_role() {
        assert_eq!(Command::Clients.needs(), Right::Show);
        assert_eq!(Command::Kill(1).needs(), Right::Act);
    }

    #[test]
    fn orders_name_nodes_as_they_are_written() {
        let order = |text: &str| match Command::parse(text) {
            Ok(command @ Command::Order(..)) => {
                assert_eq!(command.needs(), Right::Act);
                let Command::Order(tag, order) = command else { unreachable!() };
                format!("{tag} {order:?}")
            }
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(order("switchover;"), "SWITCHOVER Switchover { to: None }");
        assert_eq!(order("SWITCHOVER TO Db-2"), "SWITCHOVER Switchover { to: Some(Db-2) }");
        assert_eq!(order("failover to \"n2\" ;"), "FAILOVER Failover { to: n2, allow_data_loss: false }");
        assert_eq!(order("Pause"), "PAUSE Pause");
        assert_eq!(order("resume"), "RESUME Resume");
        assert_eq!(order("maintenance n3 ON"), "MAINTENANCE Maintenance { node: n3, on: true }");
        assert_eq!(order("rejoin n1"), "REJOIN Rejoin { node: n1, rebuild: false }");
        assert_eq!(order("rebuild n1"), "REBUILD Rejoin { node: n1, rebuild: true }");
        assert_eq!(order("restart n1"), "RESTART Restart { node: n1 }");
        for wrong in ["switchover n2", "failover", "failover to", "pause n1", "rejoin", "maintenance n1", "rebuild a b"]
        {
            assert_eq!(Command::parse(wrong).unwrap_err().code, "42601", "{wrong}");
        }
    }

    #[test]
    fn explain_route_may_name_a_database() {
        let parse = |text: &str| match Command::parse(text) {
            Ok(Command::ExplainRoute(database, sql)) => (database, sql.trim().to_owned()),
            other => panic!("{other:?}"),
        };
        let named = |database: &str, sql: &str| (Some(database.to_owned()), sql.to_owned());
        assert_eq!(parse("explain ROUTE SELECT 'In x'"), (None, "SELECT 'In x'".into()));
        assert_eq!(parse("EXPLAIN ROUTE IN Shop SELECT 1;"), named("shop", "SELECT 1;"));
        assert_eq!(parse("EXPLAIN ROUTE in \"My \"\"Shop\" SELECT 1"), named("My \"Shop", "SELECT 1"));
        assert_eq!(parse("EXPLAIN ROUTE INSERT INTO t VALUES (1)"), (None, "INSERT INTO t VALUES (1)".into()));
        assert_eq!(Command::parse("EXPLAIN ROUTE IN \"open SELECT 1").unwrap_err().code, "42601");
        for nothing in
            ["EXPLAIN ROUTE", "EXPLAIN ROUTE ", "EXPLAIN ROUTE ;", "EXPLAIN ROUTE IN shop", "EXPLAIN ROUTE IN "]
        {
            assert_eq!(Command::parse(nothing).unwrap_err().code, "42601", "{nothing}");
        }
        assert_eq!(Command::ExplainRoute(None, String::new()).needs(), Right::Show);
    }
}
