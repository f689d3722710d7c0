//! What the console shows that PgBouncer has too: with its columns, names and units (those of 1.18), so that dashboards and
//! exporters made for PgBouncer find their way. What only pgbaton has comes behind that.
//!
//! PgBouncer has one pool for a database and a user, and exporters fail when that pair comes twice. Here there is one on each
//! node; `SHOW POOLS` adds them up, and `SHOW POOLS BY NODE` tells them apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::figures::{self, PoolFigures};
use super::tables::{Column, Table, text, utc, yes};
use crate::pool::ServerIdentity;
use crate::session::CONSOLES;
use crate::session::clients::{Activity, Client, Entrance, Wish};
use crate::session::shared::Shared;
use crate::session::tally::{self, Totals};
use Column::{Number as N, Text as T};

type Row = Vec<Option<String>>;

/// Figures of one database, as PgBouncer has them: transactions, statements, bytes in and out, and microseconds in
/// transactions, in queries, and of waiting.
fn seven(totals: &Totals) -> [u64; 7] {
    let Totals { transactions, statements, received, sent, transaction_us, wait_us, .. } = totals;
    [*transactions, *statements, *received, *sent, *transaction_us, totals.query_us(), *wait_us]
}

/// The same for a second, or for one transaction or query.
fn averages(totals: &Totals, period: Duration) -> [u64; 7] {
    let each = |count: u64, us: u64| us.checked_div(count).unwrap_or_default();
    let rate = |count: u64| (count as f64 / period.as_secs_f64().max(1e-3)) as u64;
    let queries = totals.queries.iter().map(|queries| queries.count()).sum();
    [
        rate(totals.transactions),
        rate(totals.statements),
        rate(totals.received),
        rate(totals.sent),
        each(totals.transactions, totals.transaction_us),
        each(queries, totals.query_us()),
        rate(totals.wait_us),
    ]
}

struct Stats {
    totals: BTreeMap<Arc<str>, Totals>,
    period: Duration,
    lately: hashbrown::HashMap<Arc<str>, Totals>,
}

impl Stats {
    fn of(shared: &Shared) -> Stats {
        let (period, lately) = shared.tallies.period(Instant::now());
        Stats { totals: shared.tallies.all().into_iter().collect(), period, lately }
    }

    fn averages(&self, database: &str) -> [u64; 7] {
        self.lately.get(database).map_or([0; 7], |lately| averages(lately, self.period))
    }
}

pub fn stats(shared: &Shared) -> Table {
    let stats = Stats::of(shared);
    let rows = stats.totals.iter().map(|(database, totals)| {
        let mut row = vec![text(database)];
        row.extend(seven(totals).map(text));
        row.extend(stats.averages(database).map(text));
        row.extend([totals.assignments, totals.errors, totals.statements].map(text));
        row
    });
    let columns = [
        T("database"),
        N("total_xact_count"),
        N("total_query_count"),
        N("total_received"),
        N("total_sent"),
        N("total_xact_time"),
        N("total_query_time"),
        N("total_wait_time"),
        N("avg_xact_count"),
        N("avg_query_count"),
        N("avg_recv"),
        N("avg_sent"),
        N("avg_xact_time"),
        N("avg_query_time"),
        N("avg_wait_time"),
        N("total_server_assignment_count"),
        N("total_error_count"),
        // What total_query_count was before PgBouncer 1.8; some exporters still ask for it.
        N("total_requests"),
    ];
    Table::of(&columns, rows.collect())
}

const SEVEN: [Column; 8] = [
    T("database"),
    N("xact_count"),
    N("query_count"),
    N("bytes_received"),
    N("bytes_sent"),
    N("xact_time"),
    N("query_time"),
    N("wait_time"),
];

pub fn stats_totals(shared: &Shared) -> Table {
    let rows = Stats::of(shared).totals.into_iter();
    let rows = rows.map(|(database, totals)| [text(database)].into_iter().chain(seven(&totals).map(text)).collect());
    Table::of(&SEVEN, rows.collect())
}

pub fn stats_averages(shared: &Shared) -> Table {
    let stats = Stats::of(shared);
    let row = |database: &Arc<str>| {
        let averages = stats.averages(database).map(text);
        [text(database)].into_iter().chain(averages).collect()
    };
    Table::of(&SEVEN, stats.totals.keys().map(row).collect())
}

/// Of the whole proxy: PgBouncer's figures, then where statements went.
pub fn totals(shared: &Shared) -> Table {
    let stats = Stats::of(shared);
    let totals = tally::sum(stats.totals.values());
    let averages = averages(&tally::sum(stats.lately.values()), stats.period);
    let names = ["xact_count", "query_count", "bytes_received", "bytes_sent", "xact_time", "query_time", "wait_time"];
    let named = |prefix: &str, values: [u64; 7]| {
        names.into_iter().zip(values).map(|(name, value)| (format!("{prefix}_{name}"), value)).collect::<Vec<_>>()
    };
    let mut rows = named("total", seven(&totals));
    rows.extend(named("avg", averages));
    let figures = figures::Figures::of(shared);
    let (primary, replica) = (figures.statements_primary, figures.statements_replica);
    let ours = [
        ("total_server_assignment_count", primary + replica),
        ("total_primary_assignment_count", primary),
        ("total_replica_assignment_count", replica),
        ("total_retried_count", figures.retried),
        ("total_error_count", totals.errors),
        ("cl_count", figures.clients as u64),
    ];
    rows.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    let rows = rows.into_iter().map(|(name, value)| vec![Some(name), text(value)]);
    Table::of(&[T("name"), N("value")], rows.collect())
}

fn pool_mode(shared: &Shared) -> &'static str {
    if shared.settings.load().session_mode { "session" } else { "transaction" }
}

/// What PgBouncer calls a pool: all that clients of one database and user have.
#[derive(Default)]
struct Pool {
    active: usize,
    waiting: usize,
    cancels: usize,
    maxwait: Duration,
    /// By node.
    servers: BTreeMap<String, PoolFigures>,
}

fn pools_of(shared: &Shared) -> BTreeMap<(String, String), Pool> {
    let mut pools: BTreeMap<(String, String), Pool> = BTreeMap::new();
    for servers in figures::pools(shared) {
        let pool = pools.entry((servers.database.clone(), servers.user.clone())).or_default();
        pool.servers.insert(servers.node.clone(), servers);
    }
    for client in shared.clients.all().iter().filter(|client| !CONSOLES.contains(&&*client.database)) {
        let pool = pools.entry((client.database.to_string(), client.user.to_string())).or_default();
        match client.activity() {
            Activity::Waiting => pool.waiting += 1,
            // To PgBouncer one that asks for nothing is active too.
            Activity::Idle | Activity::Active => pool.active += 1,
        }
        pool.maxwait = pool.maxwait.max(client.waits());
        pool.cancels += client.server().map_or(0, |server| server.gate.under_way());
    }
    pools
}

pub fn pools(shared: &Shared) -> Table {
    let mode = pool_mode(shared);
    let row = |((database, user), pool): ((String, String), Pool)| {
        let sum = |what: fn(&PoolFigures) -> usize| pool.servers.values().map(what).sum::<usize>();
        let nodes: Vec<_> = pool.servers.values().map(|on| format!("{} {}", on.node, on.active + on.idle)).collect();
        let (active, idle, login) = (sum(|on| on.active), sum(|on| on.idle), sum(|on| on.opening));
        let cancelled = usize::from(pool.cancels > 0);
        let mut row = vec![Some(database), Some(user)];
        let clients = [pool.active, pool.waiting, pool.cancels, 0];
        // A connection is ready as soon as it is given back: none waits to be checked or reset.
        let servers = [active, pool.cancels, cancelled, idle, 0, 0, login];
        row.extend(clients.into_iter().chain(servers).map(text));
        row.extend([text(pool.maxwait.as_secs()), text(pool.maxwait.subsec_micros()), text(mode)]);
        row.push(Some(nodes.join(", ")));
        row
    };
    let columns = [
        T("database"),
        T("user"),
        N("cl_active"),
        N("cl_waiting"),
        N("cl_active_cancel_req"),
        N("cl_waiting_cancel_req"),
        N("sv_active"),
        N("sv_active_cancel"),
        N("sv_being_canceled"),
        N("sv_idle"),
        N("sv_used"),
        N("sv_tested"),
        N("sv_login"),
        N("maxwait"),
        N("maxwait_us"),
        T("pool_mode"),
        T("nodes"),
    ];
    Table::of(&columns, pools_of(shared).into_iter().map(row).collect())
}

pub fn pools_by_node(shared: &Shared) -> Table {
    let row = |pool: PoolFigures| {
        let PoolFigures { database, user, node, active, idle, opening, waiting, limit } = pool;
        let mut row = vec![Some(database), Some(user), Some(node)];
        row.extend([waiting, active, idle, opening, limit].map(text));
        row
    };
    let columns = [
        T("database"),
        T("user"),
        T("node"),
        N("cl_waiting"),
        N("sv_active"),
        N("sv_idle"),
        N("sv_login"),
        N("pool_size"),
    ];
    Table::of(&columns, figures::pools(shared).into_iter().map(row).collect())
}

/// Databases that a client has been let into.
pub fn databases(shared: &Shared) -> Table {
    let primary = shared.topology.borrow().primary().map(|node| node.address.clone());
    let (mode, size) = (pool_mode(shared), shared.pools.size_limit());
    let pools = figures::pools(shared);
    let mut names: Vec<_> = shared.databases().iter().map(|database| database.name.to_string()).collect();
    names.sort();
    let row = |name: String| {
        let connections: usize =
            pools.iter().filter(|pool| pool.database == name).map(|pool| pool.active + pool.idle).sum();
        let is_held = !shared.gate.is_open();
        vec![
            text(&name),
            primary.as_ref().map(|address| address.host.clone()),
            primary.as_ref().map(|address| address.port.to_string()),
            Some(name),
            None,
            text(size),
            text(0),
            text(0),
            text(mode),
            // There is no bound but that of each pool.
            text(0),
            text(connections),
            text(u8::from(is_held)),
            text(0),
            primary.as_ref().map(|address| address.id.to_string()),
        ]
    };
    let columns = [
        T("name"),
        T("host"),
        N("port"),
        T("database"),
        T("force_user"),
        N("pool_size"),
        N("min_pool_size"),
        N("reserve_pool"),
        T("pool_mode"),
        N("max_connections"),
        N("current_connections"),
        N("paused"),
        N("disabled"),
        T("node"),
    ];
    Table::of(&columns, names.into_iter().map(row).collect())
}

pub fn users(shared: &Shared) -> Table {
    let mode = pool_mode(shared);
    let users: BTreeSet<String> = pools_of(shared).into_keys().map(|(_, user)| user).collect();
    Table::shown(&["name", "pool_mode"], users.into_iter().map(|user| vec![Some(user), text(mode)]).collect())
}

pub fn lists(shared: &Shared) -> Table {
    let (pools, clients) = (pools_of(shared), shared.clients.count());
    let users: BTreeSet<_> = pools.keys().map(|(_, user)| user).collect();
    let servers: Vec<_> = figures::pools(shared);
    let lists = [
        ("databases", shared.databases().len()),
        ("users", users.len()),
        ("pools", pools.len()),
        ("free_clients", shared.settings.load().max_clients.saturating_sub(clients)),
        ("used_clients", clients),
        ("login_clients", shared.logins.load(Ordering::Relaxed)),
        ("free_servers", servers.iter().map(|pool| pool.idle).sum()),
        ("used_servers", servers.iter().map(|pool| pool.active).sum()),
        // Names are looked up anew with each connection: there is nothing to list.
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ];
    Table::of(&[T("list"), N("items")], lists.map(|(list, items)| vec![text(list), text(items)]).to_vec())
}

const CONNECTION: [Column; 18] = [
    T("type"),
    T("user"),
    T("database"),
    T("state"),
    T("addr"),
    N("port"),
    T("local_addr"),
    N("local_port"),
    T("connect_time"),
    T("request_time"),
    N("wait"),
    N("wait_us"),
    N("close_needed"),
    T("ptr"),
    T("link"),
    N("remote_pid"),
    T("tls"),
    T("application_name"),
];

fn moment(at: SystemTime) -> Option<String> {
    Some(utc(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()))
}

/// Address and port; of a Unix socket `unix` and 0, as in PgBouncer.
fn address(socket: Option<&str>) -> [Option<String>; 2] {
    match socket.and_then(|socket| socket.rsplit_once(':')) {
        Some((host, port)) => [text(host.trim_matches(['[', ']'])), text(port)],
        None => [text("unix"), text(0)],
    }
}

fn client_ptr(client: &Client) -> String {
    format!("c{}", client.id)
}

fn server_ptr(server: &ServerIdentity) -> String {
    format!("{}/{}", server.address.id, server.pid)
}

fn pins(client: &Client) -> Option<String> {
    Some(client.pins().iter().map(|pin| pin.as_str()).collect::<Vec<_>>().join(", "))
}

pub fn clients(shared: &Shared) -> Table {
    let columns: Vec<_> =
        CONNECTION.into_iter().chain([N("id"), T("node"), N("xact_count"), T("pinned"), T("read_only")]).collect();
    Table::of(&columns, shared.clients.all().iter().map(|client| client_row(client)).collect())
}

fn client_row(client: &Client) -> Row {
    let state = match client.activity() {
        Activity::Idle => "idle",
        Activity::Waiting => "waiting",
        Activity::Active => "active",
    };
    let (server, waits) = (client.server(), client.waits());
    let is_going = client.wish() != Wish::None;
    let mut row = vec![text("C"), text(&client.user), text(&client.database), text(state)];
    row.extend(address((client.peer != "[local]").then_some(&client.peer)));
    row.extend(address(client.local.as_deref()));
    row.extend([
        moment(client.connected),
        moment(client.asked()),
        text(waits.as_secs()),
        text(waits.subsec_micros()),
        text(u8::from(is_going)),
        Some(client_ptr(client)),
        Some(server.as_ref().map_or(String::new(), |server| server_ptr(server))),
        // Known of nobody who comes over the network.
        text(0),
        yes(client.tls),
        text(client.application_name()),
        text(client.id),
        server.map(|server| server.address.id.to_string()),
        text(client.transactions.load(Ordering::Relaxed)),
        pins(client),
        yes(client.entrance == Entrance::ReadOnly),
    ]);
    row
}

/// Those that a client has just now, then those that nobody has.
pub fn servers(shared: &Shared) -> Table {
    let columns: Vec<_> = CONNECTION.into_iter().chain([T("node"), T("pinned")]).collect();
    let mut rows = Vec::new();
    for client in shared.clients.all() {
        let Some(server) = client.server() else { continue };
        let owner = [&client.user, &client.database, "active"];
        let mut row =
            server_row(owner, &server, moment(client.asked()), &client_ptr(&client), &client.application_name());
        row.extend([text(&server.address.id), pins(&client)]);
        rows.push(row);
    }
    for pool in shared.pools.all() {
        for (server, name) in pool.idle() {
            let mut row = server_row([&pool.key.user, &pool.key.database, "idle"], &server, None, "", &name);
            row.extend([text(&server.address.id), text("")]);
            rows.push(row);
        }
    }
    Table::of(&columns, rows)
}

fn server_row(owner: [&str; 3], server: &ServerIdentity, asked: Option<String>, link: &str, name: &str) -> Row {
    let mut row = vec![text("S")];
    row.extend(owner.map(text));
    row.extend([text(&server.address.host), text(server.address.port)]);
    row.extend(address(server.local.as_deref()));
    let opened = moment(server.opened);
    row.extend([opened.clone(), asked.or(opened), text(0), text(0), text(0)]);
    row.extend([Some(server_ptr(server)), text(link), text(server.pid), yes(server.is_tls), text(name)]);
    row
}

/// `PgBouncer` and its version are looked for in this by what decides by them which columns there are.
pub fn version() -> Table {
    let version = concat!("pgbaton ", env!("CARGO_PKG_VERSION"), " (its console is as that of PgBouncer 1.18.0)");
    Table::shown(&["version"], vec![vec![text(version)]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_apart() {
        let some = |address: [&str; 2]| address.map(|part| Some(part.to_owned()));
        assert_eq!(address(Some("10.0.0.1:5432")), some(["10.0.0.1", "5432"]));
        assert_eq!(address(Some("[::1]:70")), some(["::1", "70"]));
        assert_eq!(address(None), some(["unix", "0"]));
    }

    #[test]
    fn averages_are_by_second_or_by_transaction() {
        let totals = Totals {
            transactions: 20,
            statements: 40,
            received: 1000,
            sent: 3000,
            transaction_us: 400,
            wait_us: 50,
            ..Totals::default()
        };
        assert_eq!(averages(&totals, Duration::from_secs(10)), [2, 4, 100, 300, 20, 0, 5]);
        assert_eq!(averages(&Totals::default(), Duration::ZERO), [0; 7]);
    }
}
