//! The file of `pgbaton agent`: `[agent]`, `[agent.postgres]` and `[log]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::admin::is_loopback;
use super::document::Document;
use super::keys::AGENT;
use super::{ConfigError, Listen, Log, Token, log, password};
use crate::net::http::HttpUrl;

/// A checked file of an agent's.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    pub node: String,
    /// Never the directory of a Unix socket.
    pub listen: Listen,
    pub token: Token,
    /// Where it was read from, if it does not stand in the configuration itself.
    pub token_file: Option<PathBuf>,
    pub data_dir: PathBuf,
    pub bin_dir: Option<PathBuf>,
    pub port: u16,
    pub listen_addresses: String,
    pub socket_dir: Option<PathBuf>,
    /// At least one.
    pub pgbatons: Vec<HttpUrl>,
    pub control_user: String,
    pub control_password_file: Option<PathBuf>,
    pub superuser: String,
    pub superuser_password_file: Option<PathBuf>,
    /// Empty: none.
    pub database: String,
    pub networks: Vec<String>,
    pub keep_bytes: u64,
    pub postgres: BTreeMap<String, String>,
    pub log: Log,
}

/// Settings of PostgreSQL that are not the user's where there is an agent, and whose they are.
const OWNED: &[(&str, &str)] = &[
    ("port", "it is agent.port"),
    ("listen_addresses", "it is agent.listen_addresses"),
    ("unix_socket_directories", "it is agent.socket_dir"),
    ("data_directory", "it is agent.data_dir"),
    ("primary_conninfo", "pgbaton says whom a standby follows"),
    ("primary_slot_name", "pgbaton makes the slots"),
    ("synchronous_standby_names", "pgbaton says whose acknowledgement counts"),
    ("default_transaction_read_only", "pgbaton fences with it; set it for roles or databases"),
    ("hot_standby", "it is on: a standby is asked how far it is"),
    ("wal_log_hints", "it is on: a primary of the past is rewound"),
    ("promote_trigger_file", "only pgbaton promotes"),
    ("allow_alter_system", "pgbaton changes settings by ALTER SYSTEM"),
    ("recovery_target", "only pgbaton promotes"),
    ("recovery_target_action", "only pgbaton promotes"),
    ("recovery_target_inclusive", "only pgbaton promotes"),
    ("recovery_target_lsn", "only pgbaton promotes"),
    ("recovery_target_name", "only pgbaton promotes"),
    ("recovery_target_time", "only pgbaton promotes"),
    ("recovery_target_timeline", "a standby follows the latest one"),
    ("recovery_target_xid", "only pgbaton promotes"),
    ("include", "one file is all there is"),
    ("include_dir", "one file is all there is"),
    ("include_if_exists", "one file is all there is"),
];

impl AgentConfig {
    /// Reads and checks a file, and that the files and directories it names are there.
    pub fn load(path: &Path) -> Result<AgentConfig, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { file: path.to_path_buf(), source })?;
        Self::read(&text, path, true)
    }

    /// Checks a text; `file` is its name in messages and where relative paths start. Opens nothing.
    pub fn parse(text: &str, file: &Path) -> Result<AgentConfig, ConfigError> {
        Self::read(text, file, false)
    }

    /// Whether a file is meant for an agent. One that cannot be read is not: whoever reads it says why.
    pub fn is_in(path: &Path) -> bool {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        toml::from_str::<toml::Table>(&text).is_ok_and(|table| table.contains_key("agent"))
    }

    fn read(text: &str, file: &Path, check_files: bool) -> Result<AgentConfig, ConfigError> {
        let document = Document::parse(text, file, &AGENT, check_files);
        let document = document.map_err(|problem| ConfigError::Wrong(vec![problem]))?;
        let config = build(&document);
        let problems = document.into_problems();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::Wrong(problems)),
        }
    }

    /// From its file, else from `PGBATON_CONTROL_PASSWORD`, else none.
    pub fn control_password(&self) -> Result<Option<Zeroizing<String>>, ConfigError> {
        match &self.control_password_file {
            Some(path) => self.secret(&self.control_user, path).map(Some),
            None => match std::env::var("PGBATON_CONTROL_PASSWORD") {
                Ok(password) if !password.is_empty() => Ok(Some(Zeroizing::new(password))),
                Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
                Err(std::env::VarError::NotUnicode(_)) => Err(ConfigError::Password {
                    user: self.control_user.clone(),
                    reason: "PGBATON_CONTROL_PASSWORD is not UTF-8".into(),
                }),
            },
        }
    }

    pub fn superuser_password(&self) -> Result<Option<Zeroizing<String>>, ConfigError> {
        self.superuser_password_file.as_ref().map(|path| self.secret(&self.superuser, path)).transpose()
    }

    fn secret(&self, user: &str, path: &Path) -> Result<Zeroizing<String>, ConfigError> {
        password::read_secret(path).map_err(|reason| ConfigError::Password { user: user.to_owned(), reason })
    }
}

/// `None` only where a value without default is missing or wrong; the document then has noted why.
fn build(document: &Document<'_>) -> Option<AgentConfig> {
    let section = document.section("agent");
    let node = section.label("node");
    let listen = section.address("listen");
    let (token, token_file) = password::secret(&section, "token", "token_file");
    match &listen {
        Some(Listen::Tcp { host, .. }) if !is_loopback(host) && token.is_empty() && token_file.is_none() => {
            section.refuse("token", format!("has to be given, as agent.listen (\"{host}\") is not a loopback address"));
        }
        Some(_) => {}
        None => section.refuse("listen", "must be \"host:port\""),
    }
    let data_dir = section.directory("data_dir", false);
    if node.is_empty() {
        section.refuse("node", "has to be given");
    }
    if data_dir.is_none() {
        section.refuse("data_dir", "has to be given");
    }
    let pgbatons = section.values("pgbatons", |text| text.parse::<HttpUrl>());
    if pgbatons.is_empty() {
        section.refuse("pgbatons", "has to name at least one: without the record no primary is ever started");
    }
    let config = AgentConfig {
        node,
        token,
        token_file,
        bin_dir: section.directory("bin_dir", true),
        port: u16::try_from(section.integer("port")).unwrap_or_default(),
        listen_addresses: section.text("listen_addresses"),
        socket_dir: section.directory("socket_dir", true),
        pgbatons,
        control_user: section.text("control_user"),
        control_password_file: section.path("control_password_file"),
        superuser: section.text("superuser"),
        superuser_password_file: section.path("superuser_password_file"),
        database: section.label("database"),
        networks: section.values("networks", network),
        keep_bytes: section.size("keep") as u64,
        postgres: document.section("agent.postgres").free(setting),
        listen: listen?,
        data_dir: data_dir?,
        log: log(document)?,
    };
    if config.superuser == config.control_user {
        section.refuse("control_user", "has to be another role than agent.superuser");
    }
    Some(config)
}

/// As `pg_hba.conf` takes it.
fn network(text: &str) -> Result<String, String> {
    let is_one = text == "samenet" || text.parse::<ipnet::IpNet>().is_ok();
    is_one.then(|| text.to_owned()).ok_or_else(|| "must be a network such as \"10.0.0.0/8\", or \"samenet\"".into())
}

fn setting(name: &str, value: &str) -> Result<(), String> {
    let lower = name.to_ascii_lowercase();
    if let Some((_, whose)) = OWNED.iter().find(|(owned, _)| *owned == lower) {
        return Err(format!("cannot be set here: {whose}"));
    }
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$')
    };
    if !name.split('.').all(is_word) {
        return Err("is not the name of a setting".into());
    }
    match value.contains(['\n', '\r', '\0']) {
        true => Err("must be one line".into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "node = \"n1\"\ndata_dir = \"/srv/n1\"\n";

    fn parse(text: &str) -> Result<AgentConfig, String> {
        AgentConfig::parse(text, Path::new("/etc/agent.toml")).map_err(|error| error.to_string())
    }

    fn refusal(text: &str) -> String {
        match parse(&format!("[agent]\n{LEAST}{text}")) {
            Ok(_) => panic!("accepted: {text}"),
            Err(message) => message,
        }
    }

    #[test]
    fn a_name_and_a_directory_are_a_whole_file() {
        let config = parse(&format!("[agent]\n{LEAST}")).unwrap();
        assert_eq!(config.data_dir, Path::new("/srv/n1"));
        assert_eq!(config.listen.to_string(), "127.0.0.1:6501");
        assert_eq!(config.pgbatons, ["http://127.0.0.1:6433".parse().unwrap()]);
        assert_eq!((config.port, config.keep_bytes), (5432, 1 << 30));
        assert_eq!((config.control_user.as_str(), config.superuser.as_str()), ("pgbaton", "postgres"));
        assert_eq!((config.networks.len(), config.postgres.len()), (0, 0));
    }

    #[test]
    fn settings_of_postgresql_are_kept_as_text() {
        let text = "[agent.postgres]\nshared_buffers = \"128MB\"\nmax_connections = 1_000\nfsync = false\n\
                    random_page_cost = 1.1\n[log]\nlevel = \"debug\"";
        let config = parse(&format!("[agent]\n{LEAST}{text}")).unwrap();
        let settings: Vec<_> = config.postgres.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(settings, ["fsync=off", "max_connections=1000", "random_page_cost=1.1", "shared_buffers=128MB"]);
        assert_eq!(config.log.level, "debug");
    }

    #[test]
    fn mistakes_are_named_with_their_key() {
        for (text, complaint) in [
            ("[agent.postgres]\nprimary_conninfo = \"host=x\"", "agent.postgres.primary_conninfo: cannot be set here"),
            ("[agent.postgres]\nPort = 1", "agent.postgres.Port: cannot be set here: it is agent.port"),
            ("[agent.postgres]\n\"a b\" = 1", "agent.postgres.a b: is not the name of a setting"),
            ("[agent.postgres]\nwork_mem = [1]", "agent.postgres.work_mem: must be text"),
            ("[agent.postgres]\nwork_mem = \"1\\n2\"", "agent.postgres.work_mem: must be one line"),
            ("listen = \"0.0.0.0:6501\"", "agent.token: has to be given"),
            ("listen = \"\"", "agent.listen: must be"),
            ("pgbatons = []", "agent.pgbatons: has to name at least one"),
            ("pgbatons = [\"https://db\"]", "agent.pgbatons: https is not spoken"),
            ("networks = [\"10.0.0.0\"]", "agent.networks: must be a network"),
            ("control_user = \"postgres\"", "agent.control_user: has to be another role"),
            ("prot = 1", "agent.prot: unknown key; did you mean \"port\"?"),
            ("[proxy]\npool_size = 1", "proxy: unknown key"),
            ("[log]\nlevel = \"loud\"", "log.level: \"loud\" is not a level"),
        ] {
            let message = refusal(text);
            assert!(message.contains(complaint), "{text}: {message}");
        }
        assert!(parse("[agent]").unwrap_err().contains("agent.data_dir: has to be given"));
    }

    #[test]
    fn an_open_address_with_a_token_is_fine() {
        let config = parse(&format!("[agent]\n{LEAST}listen = \"0.0.0.0:6501\"\ntoken = \"secret\"")).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("agent.toml");
        std::fs::write(&file, "[agent]\nnode = \"n1\"\ndata_dir = \"no/n1\"\nbin_dir = \"bin\"").unwrap();
        let message = AgentConfig::load(&file).unwrap_err().to_string();
        assert!(message.contains("agent.data_dir: cannot make"), "{message}");
        assert!(message.contains("agent.bin_dir: cannot read"), "{message}");
        std::fs::create_dir_all(place.path().join("no")).unwrap();
        std::fs::create_dir_all(place.path().join("bin")).unwrap();
        assert_eq!(AgentConfig::load(&file).unwrap().data_dir, place.path().join("no/n1"));
        assert!(AgentConfig::is_in(&file));
    }

    #[test]
    fn the_table_and_the_parser_know_the_same_keys() {
        let text = format!("[agent]\n{LEAST}");
        let document = Document::parse(&text, Path::new("t"), &AGENT, false).unwrap();
        build(&document).unwrap();
        let table: std::collections::BTreeSet<String> = AGENT.keys().map(crate::config::keys::Key::path).collect();
        assert_eq!(document.asked(), table);
        let found: Vec<crate::config::Problem> = document.into_problems();
        assert_eq!(found, []);
    }
}
