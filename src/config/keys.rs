//! Every key a configuration file may hold, in one table.
//!
//! The parser takes defaults and ranges from here, the reload takes from here what may change while running, and the
//! reference page is printed from here, so the three cannot disagree.

use std::fmt::Write;

use super::{AuthMethod, ClientTlsMode, LogFormat, NodeTlsMode, PoolMode};
use crate::route::balance::Strategy;
use crate::route::{Consistency, Fallback, HashBy};

/// What a key's value must look like. Bounds are inclusive.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text,
    /// Up to 63 letters, digits, `_`, `-` and `.`; or nothing.
    Label,
    Boolean,
    /// A file that must exist. Empty means none; relative to the directory of the configuration file.
    Path,
    /// One listen address, or nothing.
    Address,
    /// Text that is not shown.
    Secret,
    /// A list of listen addresses.
    Addresses,
    /// A list of names of functions, with or without a schema; may be empty.
    Functions,
    Choice(&'static [&'static str]),
    Integer(u64, u64),
    /// Bounds as they would be written in the file.
    Duration(&'static str, &'static str),
    /// Bounds as they would be written in the file.
    Size(&'static str, &'static str),
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// `proxy`, `proxy.tls`; for `auth.rules` and `cluster.nodes` each element of the list has these keys.
    pub section: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    /// As it would be written in the file, without quotes; `None` when the key has to be given.
    pub default: Option<&'static str>,
    /// Whether a reload applies a new value to the running proxy.
    pub reloads: bool,
    pub meaning: &'static str,
}

impl Key {
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

/// A section and whether it is a list (`[[…]]`) of tables.
pub struct SectionInfo {
    pub name: &'static str,
    pub is_list: bool,
    pub meaning: &'static str,
}

pub const SECTIONS: &[SectionInfo] = &[
    SectionInfo { name: "proxy", is_list: false, meaning: "Where clients connect, and how many may share what." },
    SectionInfo { name: "proxy.tls", is_list: false, meaning: "TLS between clients and pgbaton." },
    SectionInfo { name: "auth", is_list: false, meaning: "Who may enter." },
    SectionInfo {
        name: "auth.rules",
        is_list: true,
        meaning: "Rules for those who want to tell users, databases and addresses apart: the first rule that matches a \
                  client decides, and a client that none of them matches is refused. Without any rule every client \
                  logs in by `scram`.",
    },
    SectionInfo {
        name: "cluster",
        is_list: false,
        meaning: "The nodes behind pgbaton, and the control user it looks after them with (its rights: \
                  [operations.md](operations.md)).",
    },
    SectionInfo { name: "cluster.tls", is_list: false, meaning: "TLS between pgbaton and the nodes." },
    SectionInfo {
        name: "cluster.nodes",
        is_list: true,
        meaning: "One for each PostgreSQL node; at least one. Which of them is the primary is asked, not configured.",
    },
    SectionInfo {
        name: "reads",
        is_list: false,
        meaning: "Which statements may be served by replicas, and by which of them.",
    },
    SectionInfo { name: "failover", is_list: false, meaning: "Watching the nodes, and waiting for a primary." },
    SectionInfo {
        name: "admin",
        is_list: false,
        meaning: "The HTTP endpoint for operators, load balancers and monitoring ([operations.md](operations.md#http)).",
    },
    SectionInfo { name: "log", is_list: false, meaning: "What is written to standard error." },
];

const fn key(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    reloads: bool,
    meaning: &'static str,
) -> Key {
    Key { section, name, kind, default, reloads, meaning }
}

const RELOADS: bool = true;
const RESTART: bool = false;

pub const RULE_METHODS: &[&str] = &["scram", "cert", "trust", "reject"];

pub const KEYS: &[Key] = &[
    key(
        "proxy",
        "listen",
        Kind::Addresses,
        Some("127.0.0.1:6432"),
        RESTART,
        "Where clients connect: `host:port`, `[v6]:port`, or a path beginning with `/`, the directory of a Unix socket \
         `.s.PGSQL.<port>`, whose port is that of the first TCP address (6432 when there is none). Port 0 takes a free one.",
    ),
    key(
        "proxy",
        "pool_mode",
        Kind::Choice(PoolMode::NAMES),
        Some("transaction"),
        RESTART,
        "When a server connection goes back to the pool: after each transaction (unless the session is pinned to it), \
         or when the client leaves.",
    ),
    key(
        "proxy",
        "pool_size",
        Kind::Integer(1, 10_000),
        Some("20"),
        RELOADS,
        "Server connections per node, database and user.",
    ),
    key(
        "proxy",
        "max_clients",
        Kind::Integer(1, 1_000_000),
        Some("10000"),
        RELOADS,
        "Clients connected at once; the next one is refused with SQLSTATE 53300.",
    ),
    key(
        "proxy",
        "workers",
        Kind::Integer(0, 1024),
        Some("0"),
        RESTART,
        "Threads that serve clients; 0 is one per core.",
    ),
    key(
        "proxy",
        "pool_wait",
        Kind::Duration("10ms", "1h"),
        Some("30s"),
        RELOADS,
        "How long a client waits for a free server connection before it gets an error.",
    ),
    key(
        "proxy",
        "max_waiting",
        Kind::Integer(1, 1_000_000),
        Some("10000"),
        RELOADS,
        "Clients that may wait for a server connection of one pool; the next one gets an error at once.",
    ),
    key(
        "proxy",
        "server_login_timeout",
        Kind::Duration("100ms", "10m"),
        Some("15s"),
        RELOADS,
        "How long connecting and logging in to a node may take.",
    ),
    key(
        "proxy",
        "server_idle_timeout",
        Kind::Duration("1s", "30days"),
        Some("10m"),
        RELOADS,
        "A server connection nobody used for this long is closed.",
    ),
    key(
        "proxy",
        "server_lifetime",
        Kind::Duration("1s", "30days"),
        Some("1h"),
        RELOADS,
        "A server connection this old is closed when it is next free, so that servers can give back the memory they gathered.",
    ),
    key(
        "proxy",
        "client_login_timeout",
        Kind::Duration("100ms", "1h"),
        Some("60s"),
        RELOADS,
        "How long a client may take from connecting to being logged in.",
    ),
    key(
        "proxy",
        "max_prepared_statements",
        Kind::Integer(1, 100_000),
        Some("500"),
        RELOADS,
        "Named prepared statements kept on each server connection; the least recently used makes room.",
    ),
    key(
        "proxy",
        "max_inspect_bytes",
        Kind::Size("1KiB", "1GiB"),
        Some("1MiB"),
        RELOADS,
        "The longest statement that is read whole to see what it does to the session. A longer one is streamed to the \
         server, and the session stays with that server.",
    ),
    key(
        "proxy",
        "drain_timeout",
        Kind::Duration("0s", "1h"),
        Some("30s"),
        RELOADS,
        "After SIGTERM, how long open transactions may take to end before their clients are disconnected.",
    ),
    key(
        "proxy.tls",
        "mode",
        Kind::Choice(ClientTlsMode::NAMES),
        Some("allow"),
        RELOADS,
        "`allow`: the client chooses (without a certificate here, TLS is politely refused). `require`: a TCP client \
         without TLS is refused.",
    ),
    key("proxy.tls", "cert", Kind::Path, Some(""), RELOADS, "PEM file with the server certificate and its chain."),
    key("proxy.tls", "key", Kind::Path, Some(""), RELOADS, "PEM file with the certificate's private key."),
    key(
        "proxy.tls",
        "client_ca",
        Kind::Path,
        Some(""),
        RELOADS,
        "PEM file with the authorities that client certificates must come from; none given, none are asked for.",
    ),
    key(
        "auth",
        "method",
        Kind::Choice(AuthMethod::NAMES),
        Some("passthrough"),
        RELOADS,
        "Where a role's SCRAM verifier is looked up: `passthrough`, in the nodes' own `pg_authid`; `file`, in `users_file`.",
    ),
    key(
        "auth",
        "users_file",
        Kind::Path,
        Some(""),
        RELOADS,
        "Lines of `\"user\" \"password or SCRAM-SHA-256 verifier\"`. With method `passthrough` it comes first, and gives roles \
         that log in by `trust` or `cert` a password to show the nodes.",
    ),
    key("auth.rules", "user", Kind::Text, Some("all"), RELOADS, "A role, or `all`."),
    key("auth.rules", "database", Kind::Text, Some("all"), RELOADS, "A database, or `all`."),
    key(
        "auth.rules",
        "address",
        Kind::Text,
        Some("all"),
        RELOADS,
        "An address, a network such as `10.0.0.0/8`, `local` for Unix sockets, or `all`.",
    ),
    key(
        "auth.rules",
        "method",
        Kind::Choice(RULE_METHODS),
        None,
        RELOADS,
        "`scram`: by password. `cert`: by a TLS client certificate whose common name is the role. `trust`: let in \
         unasked. `reject`: refuse.",
    ),
    key(
        "auth.rules",
        "tls",
        Kind::Boolean,
        Some(""),
        RELOADS,
        "`true`: the rule is for clients with TLS only; `false`: only for those without. Not given: for both.",
    ),
    key("cluster", "name", Kind::Text, Some("main"), RESTART, "The cluster's name in logs and in the console."),
    key(
        "cluster",
        "control_user",
        Kind::Text,
        Some("pgbaton"),
        RESTART,
        "The role pgbaton itself logs in with, to look at the nodes and to read verifiers.",
    ),
    key("cluster", "control_database", Kind::Text, Some("postgres"), RESTART, "The database it logs in to."),
    key(
        "cluster",
        "control_password_file",
        Kind::Path,
        Some(""),
        RELOADS,
        "File with its password. None given: `PGBATON_CONTROL_PASSWORD`, then `~/.pgpass`, then no password.",
    ),
    key(
        "cluster.tls",
        "mode",
        Kind::Choice(NodeTlsMode::NAMES),
        Some("prefer"),
        RESTART,
        "As libpq's `sslmode`. `verify-ca` checks the node's certificate, `verify-full` the host name too.",
    ),
    key(
        "cluster.tls",
        "ca",
        Kind::Path,
        Some(""),
        RESTART,
        "PEM file with the authorities to check against; none given, those of the system.",
    ),
    key("cluster.nodes", "id", Kind::Text, None, RESTART, "The node's name: letters, digits, `_`, `-`, `.`; unique."),
    key(
        "cluster.nodes",
        "host",
        Kind::Text,
        None,
        RESTART,
        "Name or address, or the directory of its Unix socket (begins with `/`).",
    ),
    key("cluster.nodes", "port", Kind::Integer(1, 65_535), Some("5432"), RESTART, "The port it listens on."),
    key(
        "cluster.nodes",
        "zone",
        Kind::Label,
        Some(""),
        RESTART,
        "Where it runs. With `reads.zone` set, replicas of the same zone come before all others.",
    ),
    key(
        "cluster.nodes",
        "weight",
        Kind::Integer(0, 1000),
        Some("1"),
        RESTART,
        "Its share of the reads, beside those of the other replicas; 0: it serves none.",
    ),
    key("reads", "enabled", Kind::Boolean, Some("true"), RELOADS, "`false`: everything goes to the primary."),
    key(
        "reads",
        "consistency",
        Kind::Choice(Consistency::NAMES),
        Some("session"),
        RELOADS,
        "What a read sees. `eventual`: what some replica within the limits has. `bounded`: as that, and only from replicas \
         known to be within them. `session`: at least what its own session wrote. `strong`: all that was committed when \
         it arrived.",
    ),
    key(
        "reads",
        "max_lag",
        Kind::Duration("1ms", "30days"),
        Some("10s"),
        RELOADS,
        "A replica further behind serves no reads, until it is back within 80 % of this.",
    ),
    key(
        "reads",
        "max_lag_bytes",
        Kind::Size("1KiB", "1048576GiB"),
        Some("64MiB"),
        RELOADS,
        "The same, in bytes of WAL.",
    ),
    key(
        "reads",
        "balance",
        Kind::Choice(Strategy::NAMES),
        Some("least_connections"),
        RELOADS,
        "How one of the replicas that may serve is chosen. All but `round_robin` and `fastest` respect weights.",
    ),
    key(
        "reads",
        "hash_by",
        Kind::Choice(HashBy::NAMES),
        Some("user"),
        RELOADS,
        "With `balance = \"consistent_hash\"`, what is read from the same replica each time: all of one user, of one database, \
         of one `application_name`, or of one key that the client gives.",
    ),
    key(
        "reads",
        "zone",
        Kind::Label,
        Some(""),
        RELOADS,
        "Where this pgbaton runs: replicas of this zone come first. Not given: zones do not matter.",
    ),
    key(
        "reads",
        "slow_start",
        Kind::Duration("0s", "1h"),
        Some("10s"),
        RELOADS,
        "For how long after it came back a replica gets less than its share, growing from a tenth to all of it, so that its \
         caches can warm up.",
    ),
    key(
        "reads",
        "fallback",
        Kind::Choice(Fallback::NAMES),
        Some("primary"),
        RELOADS,
        "When no replica may serve a read: it goes to the `primary` at once, or after it has had to `wait` for \
         `reads.wait` in vain, or it is an `error` (57P03).",
    ),
    key(
        "reads",
        "wait",
        Kind::Duration("0s", "1h"),
        Some("1s"),
        RELOADS,
        "How long a read waits for a replica with `fallback = \"wait\"` or `SET pgbaton.target = 'replica'`; then it goes to \
         the primary.",
    ),
    key(
        "reads",
        "safe_functions",
        Kind::Functions,
        Some(""),
        RELOADS,
        "Functions that may run on replicas whatever the catalog says of them.",
    ),
    key(
        "reads",
        "unsafe_functions",
        Kind::Functions,
        Some(""),
        RELOADS,
        "Functions that run on the primary whatever the catalog says of them.",
    ),
    key(
        "failover",
        "probe_interval",
        Kind::Duration("10ms", "1m"),
        Some("250ms"),
        RESTART,
        "How often each node is asked for its role.",
    ),
    key(
        "failover",
        "probe_timeout",
        Kind::Duration("10ms", "1m"),
        Some("1s"),
        RESTART,
        "A node that has not answered for this long counts as not answering.",
    ),
    key(
        "failover",
        "hold",
        Kind::Duration("0s", "1h"),
        Some("30s"),
        RELOADS,
        "How long a new statement waits while there is no primary, before it gets SQLSTATE 57P03.",
    ),
    key(
        "failover",
        "ask_commits",
        Kind::Boolean,
        Some("true"),
        RELOADS,
        "Ask for the transaction's id before each COMMIT of a block, in the same write, so that its outcome can be found out if \
         the primary is lost in it. Without it such a client hears that the outcome is unknown (08007).",
    ),
    key(
        "admin",
        "listen",
        Kind::Address,
        Some("127.0.0.1:6433"),
        RESTART,
        "Where it listens: `host:port` or `[v6]:port`; `\"\"`: nowhere. Port 0 takes a free one.",
    ),
    key(
        "admin",
        "token",
        Kind::Secret,
        Some(""),
        RESTART,
        "What a request that acts (POST) has to show, as `Authorization: Bearer …`. Has to be given when `listen` is not a \
         loopback address.",
    ),
    key(
        "log",
        "format",
        Kind::Choice(LogFormat::NAMES),
        Some("text"),
        RESTART,
        "One line of text or one JSON object per event.",
    ),
    key(
        "log",
        "level",
        Kind::Text,
        Some("info"),
        RELOADS,
        "`error`, `warn`, `info`, `debug` or `trace`; also per module, as in `info,pgbaton::session=debug`.",
    ),
];

/// The key with this section and name.
pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// `docs/configuration.md`, printed from the table.
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    for section in SECTIONS {
        let brackets = if section.is_list { ("[[", "]]") } else { ("[", "]") };
        let _ = write!(page, "\n## `{}{}{}`\n\n{}\n\n", brackets.0, section.name, brackets.1, section.meaning);
        page.push_str("| key | type | default | range | reload | meaning |\n|---|---|---|---|---|---|\n");
        for key in KEYS.iter().filter(|key| key.section == section.name) {
            let (kind, range) = describe(key.kind);
            let _ = writeln!(
                page,
                "| `{}` | {kind} | {} | {range} | {} | {} |",
                key.name,
                default_cell(key),
                if key.reloads { "yes" } else { "restart" },
                key.meaning,
            );
        }
    }
    page
}

fn describe(kind: Kind) -> (&'static str, String) {
    match kind {
        Kind::Text => ("text", String::new()),
        Kind::Label => ("text", "up to 63 of `A-Z a-z 0-9 _ - .`".into()),
        Kind::Boolean => ("boolean", String::new()),
        Kind::Path => ("path", String::new()),
        Kind::Address => ("address", "one or `\"\"`".into()),
        Kind::Secret => ("text", String::new()),
        Kind::Addresses => ("list of addresses", "at least one".into()),
        Kind::Functions => ("list of functions", "`function`, `schema.function`".into()),
        Kind::Choice(names) => ("one of", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
        Kind::Integer(min, max) => ("integer", format!("{min} … {max}")),
        Kind::Duration(min, max) => ("duration", format!("{min} … {max}")),
        Kind::Size(min, max) => ("size", format!("{min} … {max}")),
    }
}

fn default_cell(key: &Key) -> String {
    match (key.default, key.kind) {
        (None, _) => "required".into(),
        (Some(""), Kind::Boolean) => "not given".into(),
        (Some(""), Kind::Functions) => "`[]`".into(),
        (Some(text), Kind::Integer(..) | Kind::Boolean) => format!("`{text}`"),
        (Some(text), Kind::Addresses) => format!("`[\"{text}\"]`"),
        (Some(text), _) => format!("`\"{text}\"`"),
    }
}

const INTRODUCTION: &str = "\
# Configuration

*Printed by `pgbaton config print-reference`; do not edit by hand.*

One TOML file, given with `pgbaton serve -c FILE`. Every key has a default but the nodes, so this is a whole configuration:

```toml
[[cluster.nodes]]
id = \"n1\"
host = \"10.0.0.11\"

[[cluster.nodes]]
id = \"n2\"
host = \"10.0.0.12\"
```

`pgbaton config check -c FILE` reads a file and says what is wrong with it, with the line. An unknown key is an error,
so a misspelt one is never silently ignored.

A **duration** is text with a unit: `\"250ms\"`, `\"30s\"`, `\"1h 30m\"`. A **size** is `\"64KiB\"`, `\"1MiB\"`, or a number of
bytes. A relative **path** starts at the directory of the configuration file. **Reload** says whether SIGHUP applies a
changed value; a change of the others is reported in the log and waits for a restart.
";
