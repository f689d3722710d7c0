//! Where the control user's password and other secrets come from, so that they need not stand in the configuration file.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::document::Section;
use super::{Cluster, ConfigError, Node, Token};

/// Directories that PostgreSQL is built with as the default place of its socket; in `.pgpass` they are `localhost`.
const DEFAULT_SOCKET_DIRECTORIES: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

/// `environment` looks up a variable; an argument so that the order can be tested.
pub fn control_password(
    cluster: &Cluster,
    node: &Node,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<Zeroizing<String>>, ConfigError> {
    let refuse = |reason: String| ConfigError::Password { user: cluster.control_user.clone(), reason };
    if let Some(path) = &cluster.control_password_file {
        return read_secret(path).map(Some).map_err(refuse);
    }
    if let Some(value) = environment("PGBATON_CONTROL_PASSWORD") {
        let password = value.into_string().map_err(|_| refuse("PGBATON_CONTROL_PASSWORD is not UTF-8".into()))?;
        return Ok(Some(Zeroizing::new(password)));
    }
    let file = environment("PGPASSFILE").map(PathBuf::from);
    let Some(file) = file.or_else(|| environment("HOME").map(|home| PathBuf::from(home).join(".pgpass"))) else {
        return Ok(None);
    };
    let Ok(facts) = std::fs::metadata(&file) else { return Ok(None) };
    if !facts.is_file() {
        return Ok(None);
    }
    // libpq too ignores the file then; a silent fall-through to "no password" would be hard to explain, so say it.
    if facts.permissions().mode() & 0o077 != 0 {
        return Err(refuse(format!("{} must be readable by its owner only (chmod 600)", file.display())));
    }
    let text = std::fs::read_to_string(&file).map(Zeroizing::new);
    let text = text.map_err(|error| refuse(format!("cannot read {}: {error}", file.display())))?;
    Ok(find(&text, &node.host, node.port, &cluster.control_database, &cluster.control_user))
}

/// A secret of `section`: what `name` says, or what is in the file that `file_name` names.
pub fn secret(section: &Section<'_, '_>, name: &'static str, file_name: &'static str) -> (Token, Option<PathBuf>) {
    let (token, file) = (section.secret(name), section.path(file_name));
    let Some(path) = &file else { return (token, None) };
    if !token.is_empty() {
        section.refuse(file_name, format!("is given besides {name}; one of them is enough"));
    }
    if !section.opens_files() {
        return (token, file);
    }
    match read_secret(path) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => return (Token::new(&text), file),
        Ok(_) => section.refuse(file_name, "must hold ASCII letters, digits and signs, without spaces"),
        Err(reason) => section.refuse(file_name, reason),
    }
    (token, file)
}

/// The first line of a file that others cannot read.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<String>, String> {
    let shown = path.display();
    let facts = std::fs::metadata(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    if facts.permissions().mode() & 0o007 != 0 {
        return Err(format!("{shown} can be read by everybody; chmod 600 (or 640) it"));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?);
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        Err(format!("{shown} has nothing on its first line"))
    } else {
        Ok(Zeroizing::new(line.to_string()))
    }
}

/// The first matching line of a `.pgpass`
/// (<https://www.postgresql.org/docs/current/libpq-pgpass.html>): `host:port:database:user:password`.
fn find(text: &str, host: &str, port: u16, database: &str, user: &str) -> Option<Zeroizing<String>> {
    let host = if DEFAULT_SOCKET_DIRECTORIES.contains(&host) { "localhost" } else { host };
    let port = port.to_string();
    let wanted = [host, &port, database, user];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut rest = line;
        let matches = wanted.iter().all(|wanted| match field(rest) {
            Some((found, is_any, after)) => {
                rest = after;
                is_any || found == *wanted
            }
            None => false,
        });
        if matches {
            return Some(Zeroizing::new(unescape(rest)));
        }
    }
    None
}

/// The field up to an unescaped colon, whether it is `*`, and what follows the colon.
fn field(text: &str) -> Option<(String, bool, &str)> {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b':' => return Some((unescape(&text[..at]), &text[..at] == "*", &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => out.extend(characters.next()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClusterTls, NodeTlsMode};

    fn cluster() -> Cluster {
        Cluster {
            name: "main".into(),
            control_user: "pgbaton".into(),
            control_database: "postgres".into(),
            control_password_file: None,
            durability: crate::types::Durability::Async,
            quorum_acks: 1,
            max_lost_bytes: 0,
            agent_token: Default::default(),
            agent_token_file: None,
            tls: ClusterTls { mode: NodeTlsMode::Prefer, ca: None },
            nodes: vec![],
        }
    }

    fn node() -> Node {
        Node {
            id: "n1".into(),
            host: "db1".into(),
            port: 5432,
            agent: None,
            zone: String::new(),
            weight: 1,
            priority: 100,
        }
    }

    fn file(directory: &Path, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn pgpass_lines_match_by_libpqs_rules() {
        let text = "# comment\ndb2:*:*:pgbaton:two\ndb1:5432:postgres:pgbaton:o\\:n\\\\e\n*:*:*:*:any\n";
        let found = |host: &str, port| find(text, host, port, "postgres", "pgbaton").map(|found| found.to_string());
        assert_eq!(found("db1", 5432).as_deref(), Some("o:n\\e"));
        assert_eq!(found("db1", 5433).as_deref(), Some("any"));
        assert_eq!(found("db2", 1).as_deref(), Some("two"));
        assert_eq!(find("localhost:*:*:*:here", "/tmp", 1, "d", "u").as_deref().map(String::as_str), Some("here"));
        assert_eq!(find("db1:5432:postgres", "db1", 5432, "postgres", "pgbaton"), None);
    }

    #[test]
    fn the_file_wins_over_the_environment_and_that_over_pgpass() {
        let directory = tempfile::tempdir().unwrap();
        let secret = file(directory.path(), "secret", 0o600, "from file\n");
        file(directory.path(), ".pgpass", 0o600, "*:*:*:*:from pgpass\n");
        let home = directory.path().as_os_str().to_os_string();
        let with_variable = |name: &str| match name {
            "HOME" => Some(home.clone()),
            "PGBATON_CONTROL_PASSWORD" => Some("from environment".into()),
            _ => None,
        };
        let without = |name: &str| (name == "HOME").then(|| home.clone());
        let mut cluster = cluster();
        let get = |cluster: &Cluster, environment: &dyn Fn(&str) -> Option<OsString>| {
            control_password(cluster, &node(), environment).unwrap().map(|found| found.to_string())
        };
        assert_eq!(get(&cluster, &|_| None), None);
        assert_eq!(get(&cluster, &without).as_deref(), Some("from pgpass"));
        assert_eq!(get(&cluster, &with_variable).as_deref(), Some("from environment"));
        cluster.control_password_file = Some(secret);
        assert_eq!(get(&cluster, &with_variable).as_deref(), Some("from file"));
    }

    #[test]
    fn a_password_file_that_everybody_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = cluster();
        cluster.control_password_file = Some(file(directory.path(), "secret", 0o644, "hunter2"));
        let error = control_password(&cluster, &node(), &|_| None).unwrap_err().to_string();
        assert!(error.contains("can be read by everybody"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
