//! The console: database `pgbaton`, spoken to with psql. `SHOW …` reads, `RELOAD` and `KILL` act.
//!
//! Column names are PgBouncer's where it has the same thing, so that what monitors PgBouncer finds its way. Only the
//! simple query protocol is served: that is what psql and monitoring agents use for statements without parameters.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};
use pgwire::messages::response::CommandComplete;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::Stream;
use crate::session::clients::{Activity, Arrival, Client, Wish};
use crate::session::login;
use crate::session::shared::Shared;
use crate::types::Topology;
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
    pub reload: Box<dyn Fn() -> Result<String, String> + Send + Sync>,
}

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Nodes,
    Pools,
    Clients,
    Version,
    Help,
    Reload,
    Kill(u64),
}

const HELP: [(&str, &str); 7] = [
    ("SHOW NODES", "the nodes, their roles and how they were last seen"),
    ("SHOW POOLS", "server connections for each node, database and user"),
    ("SHOW CLIENTS", "who is connected, what they do, and why they keep a server connection (pinned)"),
    ("SHOW VERSION", "the version of pgbaton"),
    ("SHOW HELP", "this list"),
    ("RELOAD", "read the configuration file again"),
    ("KILL <id>", "end a client's connection (id as in SHOW CLIENTS)"),
];

impl Command {
    fn parse(text: &str) -> Result<Command, Problem> {
        let words: Vec<String> =
            text.trim().trim_end_matches(';').split_whitespace().map(str::to_ascii_lowercase).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["show", "nodes"] => Ok(Command::Nodes),
            ["show", "pools"] => Ok(Command::Pools),
            ["show", "clients"] => Ok(Command::Clients),
            ["show", "version"] => Ok(Command::Version),
            ["show", "help"] | ["help"] => Ok(Command::Help),
            ["reload"] => Ok(Command::Reload),
            ["kill", id] => match id.parse() {
                Ok(id) => Ok(Command::Kill(id)),
                Err(_) => {
                    Err(Problem::new("22P02", format!("\"{id}\" is not a client's id")).hint("See SHOW CLIENTS."))
                }
            },
            _ => Err(Problem::new("42601", "the console does not know this command").hint("SHOW HELP lists them.")),
        }
    }

    fn needs(&self) -> Right {
        match self {
            Command::Reload | Command::Kill(_) => Right::Act,
            _ => Right::Show,
        }
    }
}

struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<Option<String>>>,
    tag: String,
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
        tls: client.tls,
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
        _ = converse(&mut stream, unread, out, right, console) => {}
        () = killed => {}
    }
}

async fn converse(
    stream: &mut Stream,
    mut input: Vec<u8>,
    mut out: Vec<u8>,
    right: Right,
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
                answer(&text, right, console, &mut out);
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

fn answer(text: &str, right: Right, console: &Console, out: &mut Vec<u8>) {
    if text.trim().trim_end_matches(';').is_empty() {
        message::raw(out, b'I', &[]);
        return;
    }
    let result = Command::parse(text).and_then(|command| {
        if command.needs() == Right::Act && right != Right::Act {
            return Err(Problem::new("42501", "permission denied").hint("This command needs the role pgbaton_admin."));
        }
        run(&command, console)
    });
    match result {
        Ok(table) => write(&table, out),
        Err(problem) => message::error(out, &problem),
    }
}

fn run(command: &Command, console: &Console) -> Result<Table, Problem> {
    let shared = &console.shared;
    let shown = |columns, rows| Ok(Table { columns, rows, tag: "SHOW".into() });
    match command {
        Command::Nodes => {
            let topology: Arc<Topology> = shared.topology.borrow().clone();
            let rows = topology.nodes.iter().map(|node| {
                vec![
                    Some(node.address.id.to_string()),
                    Some(node.address.host.clone()),
                    Some(node.address.port.to_string()),
                    Some(node.role.as_str().to_owned()),
                    Some(node.timeline.0.to_string()),
                    Some(node.lsn.to_string()),
                    Some(node.reason.clone()),
                ]
            });
            shown(&["id", "host", "port", "role", "timeline", "lsn", "reason"], rows.collect())
        }
        Command::Pools => {
            let mut pools = shared.pools.all();
            pools.sort_by(|a, b| (&a.key.database, &a.key.user).cmp(&(&b.key.database, &b.key.user)));
            let rows = pools.iter().map(|pool| {
                let (size, idle, waiting) = pool.status();
                vec![
                    Some(pool.key.database.to_string()),
                    Some(pool.key.user.to_string()),
                    Some(pool.key.node.to_string()),
                    Some(waiting.to_string()),
                    Some(size.saturating_sub(idle).to_string()),
                    Some(idle.to_string()),
                ]
            });
            shown(&["database", "user", "node", "cl_waiting", "sv_active", "sv_idle"], rows.collect())
        }
        Command::Clients => {
            let rows = shared.clients.all().iter().map(client_row).collect();
            shown(
                &["id", "user", "database", "state", "addr", "connect_time", "link", "tls", "xact_count", "pinned"],
                rows,
            )
        }
        Command::Version => {
            shown(&["version"], vec![vec![Some(concat!("pgbaton ", env!("CARGO_PKG_VERSION")).into())]])
        }
        Command::Help => {
            let rows = HELP.iter().map(|(command, about)| vec![Some((*command).into()), Some((*about).into())]);
            shown(&["command", "about"], rows.collect())
        }
        Command::Reload => match (console.reload)() {
            Ok(report) => Ok(Table { columns: &["reload"], rows: vec![vec![Some(report)]], tag: "RELOAD".into() }),
            Err(error) => Err(Problem::new("F0000", error)),
        },
        Command::Kill(id) => match shared.clients.all().into_iter().find(|client| client.id == *id) {
            Some(client) => {
                client.ask(Wish::Kill);
                Ok(Table { columns: &[], rows: Vec::new(), tag: "KILL".into() })
            }
            None => Err(Problem::new("42704", format!("no client has the id {id}")).hint("See SHOW CLIENTS.")),
        },
    }
}

fn client_row(client: &Arc<Client>) -> Vec<Option<String>> {
    let state = match client.activity() {
        Activity::Idle => "idle",
        Activity::Waiting => "waiting",
        Activity::Active => "active",
    };
    let since = client.connected.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let pins: Vec<_> = client.pins().iter().map(|pin| pin.as_str()).collect();
    vec![
        Some(client.id.to_string()),
        Some(client.user.to_string()),
        Some(client.database.to_string()),
        Some(state.to_owned()),
        Some(client.peer.clone()),
        Some(utc(since)),
        client.server_pid().map(|pid| pid.to_string()),
        Some(if client.tls { "yes" } else { "" }.to_owned()),
        Some(client.transactions.load(std::sync::atomic::Ordering::Relaxed).to_string()),
        Some(pins.join(", ")),
    ]
}

/// Seconds since 1970 as `YYYY-MM-DD hh:mm:ss UTC` (proleptic Gregorian calendar; days to date after H. Hinnant).
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60)
}

fn write(table: &Table, out: &mut Vec<u8>) {
    if !table.columns.is_empty() {
        let column = |name: &&str| FieldDescription::new((*name).into(), 0, 0, 25, -1, -1, 0);
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
    fn times_are_printed_as_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_798_761_599), "2026-12-31 23:59:59 UTC");
    }
}
