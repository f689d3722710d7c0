//! The configuration file: what it may say, what it says, and what a new one changes.
//!
//! This module knows every other module's settings; none of them knows this one. `app` turns these plain structs into
//! the settings each module takes.

mod admin;
mod agent;
mod document;
mod failover;
pub mod keys;
mod password;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::net::http::HttpUrl;
use crate::route::balance::Strategy;
use crate::route::{Consistency, Fallback, FunctionName, HashBy};
use crate::types::Durability;
pub use admin::{Admin, Token};
pub use agent::AgentConfig;
pub use document::is_label;
use document::{Document, Section};
pub use failover::{Coordination, Failover};
use keys::{KEYS, SECTIONS};

/// A checked configuration. Every value is within the range that `docs/configuration.md` gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    pub proxy: Proxy,
    pub auth: Auth,
    pub cluster: Cluster,
    pub reads: Reads,
    pub failover: Failover,
    pub coordination: Coordination,
    pub admin: Admin,
    pub log: Log,
}

/// `[proxy]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proxy {
    pub listen: Vec<Listen>,
    /// Where sessions arrive that are a standby's; none of `listen`.
    pub listen_read_only: Vec<Listen>,
    pub pool_mode: PoolMode,
    pub pool_size: usize,
    pub max_clients: usize,
    /// 0: one per core.
    pub workers: usize,
    #[serde(with = "humantime_serde")]
    pub pool_wait: Duration,
    pub max_waiting: usize,
    #[serde(with = "humantime_serde")]
    pub server_login_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub server_idle_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub server_lifetime: Duration,
    #[serde(with = "humantime_serde")]
    pub client_login_timeout: Duration,
    pub max_prepared_statements: usize,
    pub max_inspect_bytes: usize,
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    pub tls: ProxyTls,
}

/// `[proxy.tls]`: `cert` and `key` are both given or both not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProxyTls {
    pub mode: ClientTlsMode,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
}

/// `[auth]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Auth {
    pub method: AuthMethod,
    /// Always given when `method` is `File`.
    pub users_file: Option<PathBuf>,
    pub rules: Vec<Rule>,
}

/// `[[auth.rules]]`, as written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    pub user: String,
    pub database: String,
    pub address: String,
    pub method: String,
    pub tls: Option<bool>,
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cluster {
    pub name: String,
    pub control_user: String,
    pub control_database: String,
    pub control_password_file: Option<PathBuf>,
    pub durability: Durability,
    /// At least 1.
    pub quorum_acks: u32,
    pub max_lost_bytes: u64,
    /// What agents want to be shown; empty: nothing.
    pub agent_token: Token,
    /// Where it was read from, if it does not stand in the configuration itself.
    pub agent_token_file: Option<PathBuf>,
    pub tls: ClusterTls,
    /// At least one; ids are unique, and so are addresses.
    pub nodes: Vec<Node>,
}

/// `[cluster.tls]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterTls {
    pub mode: NodeTlsMode,
    /// `None`: the system's authorities.
    pub ca: Option<PathBuf>,
}

/// `[[cluster.nodes]]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    pub id: String,
    /// A name, an address, or (beginning with `/`) the directory of a Unix socket.
    pub host: String,
    pub port: u16,
    /// `None`: there is no agent beside it.
    #[serde(serialize_with = "shown_or_empty")]
    pub agent: Option<HttpUrl>,
    /// Empty: none.
    pub zone: String,
    /// 0: no reads.
    pub weight: u32,
    /// 0: never promoted.
    pub priority: u32,
}

/// `[reads]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reads {
    /// `false`: everything goes to the primary.
    pub enabled: bool,
    pub consistency: Consistency,
    #[serde(with = "humantime_serde")]
    pub max_lag: Duration,
    pub max_lag_bytes: u64,
    pub balance: Strategy,
    pub hash_by: HashBy,
    /// Where this proxy runs; empty: zones do not matter.
    pub zone: String,
    #[serde(with = "humantime_serde")]
    pub slow_start: Duration,
    pub fallback: Fallback,
    #[serde(with = "humantime_serde")]
    pub wait: Duration,
    /// No function is in both.
    pub safe_functions: Vec<FunctionName>,
    pub unsafe_functions: Vec<FunctionName>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Log {
    pub format: LogFormat,
    /// A level, or directives such as `info,pgbaton::session=debug`.
    pub level: String,
}

fn shown_or_empty<S: Serializer>(url: &Option<HttpUrl>, serializer: S) -> Result<S::Ok, S::Error> {
    match url {
        Some(url) => serializer.collect_str(url),
        None => serializer.serialize_str(""),
    }
}

/// An enum of the words a key may have.
macro_rules! choice {
    ($(#[$about:meta])* $name:ident => $($variant:ident $text:literal),+) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const NAMES: &'static [&'static str] = &[$($text),+];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some($name::$variant),)+ _ => None }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

choice!(PoolMode => Transaction "transaction", Session "session");
choice!(ClientTlsMode => Disable "disable", Allow "allow", Require "require");
choice!(NodeTlsMode => Disable "disable", Prefer "prefer", Require "require",
    VerifyCa "verify-ca", VerifyFull "verify-full");
choice!(AuthMethod => Passthrough "passthrough", File "file");
choice!(Rejoin => Auto "auto", Manual "manual");
choice!(CoordinationKind => Embedded "embedded", Etcd "etcd");
choice!(LogFormat => Text "text", Json "json");

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A name or address, and a port; port 0 takes a free one.
    Tcp { host: String, port: u16 },
    /// The directory of a socket `.s.PGSQL.<port>`; the port is [`Proxy::unix_port`].
    Unix { directory: PathBuf },
}

impl Listen {
    /// Reads `host:port`, `[v6]:port` or `/directory`.
    pub fn parse(text: &str) -> Result<Listen, String> {
        if text.starts_with('/') {
            return Ok(Listen::Unix { directory: PathBuf::from(text) });
        }
        let expected = || {
            format!("must be \"host:port\" or the directory of a Unix socket (beginning with \"/\"), found \"{text}\"")
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let port = port.parse().map_err(|_| expected())?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(expected()),
            None if host.is_empty() || host.contains(':') => return Err(expected()),
            None => host,
        };
        Ok(Listen::Tcp { host: host.to_string(), port })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Listen::Tcp { host, port } => write!(f, "{host}:{port}"),
            Listen::Unix { directory } => write!(f, "{}", directory.display()),
        }
    }
}

impl Serialize for Listen {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    /// Counted from 1; `None` when it is the absence of something.
    pub line: Option<usize>,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    /// Every mistake found, in the order of lines.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<Problem>),
    #[error("the password of control user \"{user}\": {reason}")]
    Password { user: String, reason: String },
}

/// What differs between two configurations, as names of keys (`cluster.nodes` and `auth.rules` as a whole).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// A reload applies these.
    pub applied: Vec<String>,
    /// These wait for a restart.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// Reads and checks a file, and that the files it names can be read.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { file: path.to_path_buf(), source })?;
        Self::read(&text, path, true)
    }

    /// Checks a text; `file` is its name in messages and where relative paths start. Opens nothing.
    pub fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
        Self::read(text, file, false)
    }

    fn read(text: &str, file: &Path, check_files: bool) -> Result<Config, ConfigError> {
        let document = Document::parse(text, file, &keys::PGBATON, check_files);
        let document = document.map_err(|problem| ConfigError::Wrong(vec![problem]))?;
        let config = build(&document);
        let problems = document.into_problems();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::Wrong(problems)),
        }
    }

    /// Every key with its value in effect, in the order of the reference page; lists of tables as one value.
    pub fn entries(&self) -> Vec<(String, String)> {
        // All fields are texts, numbers, lists and structs with named fields, which TOML can always express.
        let root = toml::Value::try_from(self).unwrap_or_else(|error| panic!("a configuration is TOML: {error}"));
        let find = |path: &str| path.split('.').try_fold(&root, |value, part| value.get(part));
        let mut entries = Vec::new();
        for section in SECTIONS {
            if section.is_list {
                let list = find(section.name).map(toml::Value::to_string).unwrap_or_default();
                entries.push((section.name.to_string(), list));
                continue;
            }
            for key in KEYS.iter().filter(|key| key.section == section.name) {
                let value = match find(&key.path()) {
                    Some(toml::Value::String(text)) => text.clone(),
                    Some(toml::Value::Array(values)) => {
                        values.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(", ")
                    }
                    Some(other) => other.to_string(),
                    None => String::new(),
                };
                entries.push((key.path(), value));
            }
        }
        entries
    }

    /// What a reload from this configuration to `new` applies, and what it cannot.
    pub fn changes(&self, new: &Config) -> Changes {
        let mut changes = Changes::default();
        for ((path, old), (_, new)) in self.entries().into_iter().zip(new.entries()) {
            if old == new {
                continue;
            }
            let reloads = KEYS.iter().filter(|key| key.path() == path || key.section == path).all(|key| key.reloads);
            if reloads { changes.applied.push(path) } else { changes.needs_restart.push(path) }
        }
        // Two different tokens look the same among the entries.
        let tokens = [
            ("admin.token", self.admin.token != new.admin.token),
            ("cluster.agent_token", self.cluster.agent_token != new.cluster.agent_token),
        ];
        for (token, is_other) in tokens {
            let reloads = KEYS.iter().any(|key| key.path() == token && key.reloads);
            let list = if reloads { &mut changes.applied } else { &mut changes.needs_restart };
            if is_other && !list.iter().any(|known| known == token) {
                list.push(token.to_owned());
            }
        }
        changes
    }

    /// The control user's password for `node`: `control_password_file`, else `PGBATON_CONTROL_PASSWORD`, else
    /// `~/.pgpass` by libpq's rules, else none.
    pub fn control_password(&self, node: &Node) -> Result<Option<Zeroizing<String>>, ConfigError> {
        password::control_password(&self.cluster, node, &|name| std::env::var_os(name))
    }
}

impl Proxy {
    /// The number in the name of Unix sockets: the port of the first TCP address, 6432 when there is none to take.
    pub fn unix_port(&self) -> u16 {
        first_port(&self.listen).unwrap_or(6432)
    }

    /// The same for those of `listen_read_only`; 6434, so that both may be in one directory.
    pub fn read_only_unix_port(&self) -> u16 {
        first_port(&self.listen_read_only).unwrap_or(6434)
    }
}

fn first_port(addresses: &[Listen]) -> Option<u16> {
    addresses.iter().find_map(|listen| match listen {
        Listen::Tcp { port, .. } if *port != 0 => Some(*port),
        _ => None,
    })
}

/// `None` only where a value without default is missing or wrong; the document then has noted why.
fn build(document: &Document<'_>) -> Option<Config> {
    let proxy = proxy(document);
    let auth = auth(document);
    let cluster = cluster(document);
    let reads = reads(document);
    let failover = Failover::read(document);
    let coordination = Coordination::read(document);
    let admin = Admin::read(document);
    let log = log(document);
    Some(Config {
        proxy: proxy?,
        auth: auth?,
        cluster: cluster?,
        reads: reads?,
        failover,
        coordination: coordination?,
        admin,
        log: log?,
    })
}

fn log(document: &Document<'_>) -> Option<Log> {
    let section = document.section("log");
    let format = section.choice("format", LogFormat::parse);
    let level = section.text("level");
    if let Err(reason) = crate::telemetry::check_level(&level) {
        section.refuse("level", reason);
    }
    Some(Log { format: format?, level })
}

fn proxy(document: &Document<'_>) -> Option<Proxy> {
    let section = document.section("proxy");
    let tls_section = document.section("proxy.tls");
    let tls_mode = tls_section.choice("mode", ClientTlsMode::parse);
    let (cert, key, client_ca) = (tls_section.path("cert"), tls_section.path("key"), tls_section.path("client_ca"));
    let pool_mode = section.choice("pool_mode", PoolMode::parse);
    let proxy = Proxy {
        listen: section.addresses("listen"),
        listen_read_only: section.addresses("listen_read_only"),
        pool_size: section.count("pool_size"),
        max_clients: section.count("max_clients"),
        workers: section.count("workers"),
        pool_wait: section.duration("pool_wait"),
        max_waiting: section.count("max_waiting"),
        server_login_timeout: section.duration("server_login_timeout"),
        server_idle_timeout: section.duration("server_idle_timeout"),
        server_lifetime: section.duration("server_lifetime"),
        client_login_timeout: section.duration("client_login_timeout"),
        max_prepared_statements: section.count("max_prepared_statements"),
        max_inspect_bytes: section.size("max_inspect_bytes"),
        drain_timeout: section.duration("drain_timeout"),
        pool_mode: pool_mode?,
        tls: ProxyTls { mode: tls_mode?, cert, key, client_ca },
    };
    check_client_tls(&tls_section, &proxy.tls);
    check_addresses(&section, &proxy);
    Some(proxy)
}

/// No two of them may be the same, as far as that can be told without asking anybody what a name stands for.
fn check_addresses(section: &Section<'_, '_>, proxy: &Proxy) {
    let mut known: HashSet<(String, u16)> = HashSet::new();
    let lists = [
        ("listen", &proxy.listen, proxy.unix_port()),
        ("listen_read_only", &proxy.listen_read_only, proxy.read_only_unix_port()),
    ];
    for (key, list, unix_port) in lists {
        for listen in list {
            let place = match listen {
                // Each gets a port of its own.
                Listen::Tcp { port: 0, .. } => continue,
                Listen::Tcp { host, port } => (host.clone(), *port),
                Listen::Unix { directory } => (directory.display().to_string(), unix_port),
            };
            if !known.insert(place) {
                section.refuse(key, format!("names \"{listen}\", where pgbaton listens for clients already"));
            }
        }
    }
}

fn check_client_tls(section: &Section<'_, '_>, tls: &ProxyTls) {
    match (&tls.cert, &tls.key) {
        (Some(_), None) => section.refuse("key", "has to be given, as proxy.tls.cert is"),
        (None, Some(_)) => section.refuse("cert", "has to be given, as proxy.tls.key is"),
        (None, None) if tls.mode == ClientTlsMode::Require => {
            section.refuse("mode", "\"require\" needs proxy.tls.cert and proxy.tls.key");
        }
        (None, None) if tls.client_ca.is_some() => {
            section.refuse("client_ca", "has no effect without proxy.tls.cert and proxy.tls.key");
        }
        _ => {}
    }
}

fn auth(document: &Document<'_>) -> Option<Auth> {
    let section = document.section("auth");
    let method = section.choice("method", AuthMethod::parse);
    let users_file = section.path("users_file");
    if method == Some(AuthMethod::File) && users_file.is_none() {
        section.refuse("users_file", "has to be given, as auth.method is \"file\"");
    }
    let rules = document.list("auth.rules").into_iter().map(|section| {
        let known = |text: &str| keys::RULE_METHODS.contains(&text).then(|| text.to_string());
        Rule {
            user: section.text("user"),
            database: section.text("database"),
            address: section.text("address"),
            // A missing or unknown method is noted, and then no configuration comes of it.
            method: section.choice("method", known).unwrap_or_default(),
            tls: section.boolean("tls"),
        }
    });
    let rules = rules.collect();
    Some(Auth { method: method?, users_file, rules })
}

fn cluster(document: &Document<'_>) -> Option<Cluster> {
    let section = document.section("cluster");
    let tls = document.section("cluster.tls");
    let tls_mode = tls.choice("mode", NodeTlsMode::parse);
    let ca = tls.path("ca");
    if ca.is_some() && !matches!(tls_mode, None | Some(NodeTlsMode::VerifyCa | NodeTlsMode::VerifyFull)) {
        tls.refuse("ca", "has no effect unless cluster.tls.mode is \"verify-ca\" or \"verify-full\"");
    }
    let durability = section.choice("durability", |text| match text {
        "async" => Some(Durability::Async),
        "quorum" => Some(Durability::Quorum),
        _ => None,
    });
    let (mut ids, mut addresses, mut agents) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut nodes = Vec::new();
    for section in document.list("cluster.nodes") {
        let id = section.text("id");
        if !id.is_empty() && !document::is_label(&id) {
            section.refuse("id", format!("must be up to 63 letters, digits, \"_\", \"-\" or \".\", found \"{id}\""));
        }
        if !id.is_empty() && !ids.insert(id.clone()) {
            section.refuse("id", format!("\"{id}\" is the name of another node"));
        }
        let host = section.text("host");
        let port = u16::try_from(section.integer("port")).unwrap_or_default();
        if !host.is_empty() && !addresses.insert((host.clone(), port)) {
            section.refuse("host", format!("\"{host}\" with port {port} is the address of another node"));
        }
        let agent = section.url("agent");
        if let Some(agent) = agent.as_ref().filter(|agent| !agents.insert(agent.to_string())) {
            section.refuse("agent", format!("\"{agent}\" is the agent of another node"));
        }
        let (weight, priority) = (section.number("weight"), section.number("priority"));
        nodes.push(Node { id, host, port, agent, zone: section.label("zone"), weight, priority });
    }
    if nodes.is_empty() {
        document
            .refuse("cluster.nodes", "at least one node has to be given, as [[cluster.nodes]] with id, host and port");
    }
    let (agent_token, agent_token_file) = password::secret(&section, "agent_token", "agent_token_file");
    Some(Cluster {
        name: section.text("name"),
        control_user: section.text("control_user"),
        control_database: section.text("control_database"),
        control_password_file: section.path("control_password_file"),
        quorum_acks: section.number("quorum_acks"),
        max_lost_bytes: section.size("max_lost_bytes") as u64,
        agent_token,
        agent_token_file,
        durability: durability?,
        tls: ClusterTls { mode: tls_mode?, ca },
        nodes,
    })
}

fn reads(document: &Document<'_>) -> Option<Reads> {
    let section = document.section("reads");
    let consistency = section.choice("consistency", |text| text.parse().ok());
    let balance = section.choice("balance", |text| text.parse().ok());
    let hash_by = section.choice("hash_by", |text| text.parse().ok());
    let fallback = section.choice("fallback", |text| text.parse().ok());
    let (safe_functions, unsafe_functions) =
        (section.functions("safe_functions"), section.functions("unsafe_functions"));
    if let Some(both) = unsafe_functions.iter().find(|name| safe_functions.contains(name)) {
        section.refuse("unsafe_functions", format!("\"{both}\" is among reads.safe_functions too"));
    }
    Some(Reads {
        enabled: section.boolean("enabled").unwrap_or(true),
        max_lag: section.duration("max_lag"),
        max_lag_bytes: section.size("max_lag_bytes") as u64,
        zone: section.label("zone"),
        slow_start: section.duration("slow_start"),
        wait: section.duration("wait"),
        consistency: consistency?,
        balance: balance?,
        hash_by: hash_by?,
        fallback: fallback?,
        safe_functions,
        unsafe_functions,
    })
}

#[cfg(test)]
mod tests;
