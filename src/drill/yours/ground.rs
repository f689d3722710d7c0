//! Where the clients of a drill are at work: a schema of their own, made at the beginning and removed at the end.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::drill::checker::Asked;
use crate::drill::load::TABLES;
use crate::drill::reach::{Account, Reach};
use crate::drill::wire::{Answer, Batch, Said, Wire};
use crate::net::conninfo::Conninfo;

pub const SCHEMA: &str = "pgbaton_drill";
/// By which its sessions can be told from all others.
pub const APPLICATION: &str = "pgbaton_drill";

/// How long the schema may resist its removal: a cluster may be without a primary for a while.
const REMOVAL: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(250);

/// A connection string, as far as a drill takes it: one host, and a password. `Debug` and `Display` show none.
#[derive(Clone)]
pub struct Dsn {
    host: String,
    port: u16,
    account: Account,
}

impl FromStr for Dsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Dsn, String> {
        let info = Conninfo::parse(text).map_err(|error| error.to_string())?;
        let known = ["host", "port", "user", "password", "dbname", "sslmode", "connect_timeout", "application_name"];
        if let Some(other) = info.keys().find(|key| !known.contains(key)) {
            return Err(format!("{other} is not understood here; of libpq's keywords, {} are", known.join(", ")));
        }
        let host = info.get("host").filter(|host| !host.is_empty()).ok_or("host is missing")?;
        if host.contains(',') || host.starts_with('/') {
            return Err("one host, by its name or address".into());
        }
        if info.get("sslmode").is_some_and(|mode| mode == "require" || mode.starts_with("verify")) {
            return Err("the clients of a drill do not speak TLS".into());
        }
        let port = info.get("port").unwrap_or("5432").parse().map_err(|_| "port is not a number")?;
        let user = info.get("user").ok_or("user is missing")?;
        let password = info.get("password").map(str::to_owned).or_else(|| std::env::var("PGPASSWORD").ok());
        let account = Account {
            user: user.into(),
            password: password.unwrap_or_default(),
            database: info.get("dbname").unwrap_or(user).into(),
            parameters: vec![("search_path".into(), SCHEMA.into()), ("application_name".into(), APPLICATION.into())],
        };
        Ok(Dsn { host: host.into(), port, account })
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} as {}", self.host, self.port, self.account.user)
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Dsn {
    pub fn account(&self) -> &Account {
        &self.account
    }

    fn address(&self) -> Result<SocketAddr, String> {
        let Dsn { host, port, .. } = self;
        let addresses = (host.as_str(), *port).to_socket_addrs();
        let mut addresses = addresses.map_err(|error| format!("{host}: {error}"))?;
        addresses.next().ok_or_else(|| format!("{host} has no address"))
    }

    fn connect(&self, account: &Account) -> Result<Wire, String> {
        let attempt = Reach::One(self.address()?).connect(account);
        let wire = attempt.map_err(|error| format!("cannot connect to {self}: {error}"))?;
        wire.map_err(|said| format!("cannot log in at {self}: {}", words(&said)))
    }

    /// Through the proxy, on the primary, whatever is asked.
    fn on_primary(&self) -> Account {
        let mut account = self.account.clone();
        account.parameters.push(("pgbaton.target".into(), "primary".into()));
        account
    }
}

fn words(said: &Said) -> String {
    format!("{} {}", said.code, said.message).trim().to_owned()
}

/// What the server calls itself.
pub fn version(dsn: &Dsn) -> Result<String, String> {
    let wire = dsn.connect(&dsn.account)?;
    Ok(wire.parameters.get("server_version").cloned().unwrap_or_default())
}

fn ask(wire: &mut Wire, sql: &str) -> Result<Answer, String> {
    let answer = wire.ask(Batch::new().query(sql)).map_err(|error| error.to_string())?;
    match answer.errors.first() {
        Some(said) => Err(words(said)),
        None => Ok(answer),
    }
}

/// The schema while it is there. Whoever forgets to remove it does so by dropping this.
pub struct Ground {
    dsn: Dsn,
    address: SocketAddr,
    is_removed: bool,
}

impl Ground {
    pub fn make(dsn: &Dsn) -> Result<Ground, String> {
        let address = dsn.address()?;
        let mut wire = dsn.connect(&dsn.on_primary())?;
        let is_there = ask(&mut wire, &format!("SELECT to_regnamespace('{SCHEMA}') IS NOT NULL"))?;
        if is_there.first() == Some("t") {
            return Err(format!(
                "the schema {SCHEMA} is there already: another drill is running, or one was killed (DROP SCHEMA {SCHEMA} CASCADE)"
            ));
        }
        // At once, so that nothing is left of it if it fails.
        let made = ask(&mut wire, &format!("BEGIN; CREATE SCHEMA {SCHEMA}; {TABLES}; COMMIT"));
        made.map_err(|reason| format!("the schema {SCHEMA} cannot be made: {reason}"))?;
        Ok(Ground { dsn: dsn.clone(), address, is_removed: false })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn account(&self) -> Account {
        self.dsn.account.clone()
    }

    pub fn connect(&self) -> Result<Wire, String> {
        self.dsn.connect(&self.dsn.on_primary())
    }

    pub fn reader(&self) -> Reader {
        Reader { name: "the primary, through the proxy".into(), dsn: self.dsn.clone(), account: self.dsn.on_primary() }
    }

    pub fn remove(mut self) -> Result<(), String> {
        self.take_away()
    }

    fn take_away(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + REMOVAL;
        while !self.is_removed {
            let sql = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE");
            match self.connect().and_then(|mut wire| ask(&mut wire, &sql)) {
                Ok(_) => self.is_removed = true,
                Err(reason) if Instant::now() > deadline => {
                    // Once is enough to try that long.
                    self.is_removed = true;
                    return Err(format!(
                        "the schema {SCHEMA} could not be removed, and is to be dropped by hand: {reason}"
                    ));
                }
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Err(reason) = self.take_away() {
            eprintln!("pgbaton: {reason}");
        }
    }
}

/// Reads the tables, through the proxy or on a node.
pub struct Reader {
    name: String,
    dsn: Dsn,
    account: Account,
}

impl Reader {
    pub fn of_node(id: &str, dsn: &Dsn) -> Reader {
        Reader { name: id.into(), dsn: dsn.clone(), account: dsn.account.clone() }
    }
}

impl Asked for Reader {
    fn name(&self) -> &str {
        &self.name
    }

    fn ask(&self, sql: &str) -> Option<String> {
        let mut wire = self.dsn.connect(&self.account).ok()?;
        let answer = ask(&mut wire, sql).ok()?;
        let line = |row: &Vec<Option<String>>| {
            let cells: Vec<&str> = row.iter().map(|cell| cell.as_deref().unwrap_or_default()).collect();
            cells.join("|")
        };
        Some(answer.rows.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_is_taken_as_far_as_it_is_understood() {
        let dsn: Dsn = "host=db port=6432 user=app password='it''s' dbname=shop".replace("''", "\\'").parse().unwrap();
        assert_eq!((dsn.to_string().as_str(), dsn.account().database.as_str()), ("db:6432 as app", "shop"));
        assert_eq!(dsn.account().password, "it's");
        assert!(!format!("{dsn:?}").contains("it's"));
        assert_eq!("postgres://app@db/shop".parse::<Dsn>().unwrap().to_string(), "db:5432 as app");
        for (text, reason) in [
            ("user=app", "host is missing"),
            ("host=db", "user is missing"),
            ("host=a,b user=app", "one host"),
            ("host=db user=app sslmode=verify-full", "TLS"),
            ("host=db user=app port=x", "not a number"),
            ("host=db user=app service=x", "service is not understood"),
        ] {
            let error = text.parse::<Dsn>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
