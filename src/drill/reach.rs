//! Whom clients call, and as whom: one address, or all nodes, of which they look for the one that takes writes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::wire::{Login, PATIENCE, Said, Wire};
use crate::demo::{DATABASE, PASSWORD, USER};

/// For each of several addresses, as `connect_timeout=2`: libpq takes no less.
const EACH: Duration = Duration::from_secs(2);

/// What a client says of a server that is not the one it looks for; libpq says it without an SQLSTATE, too.
const READ_ONLY: &str = "session is read-only";

/// Who logs in.
#[derive(Clone, Debug)]
pub struct Account {
    pub user: String,
    pub password: String,
    pub database: String,
    /// Said at every login: `search_path`, `application_name`.
    pub parameters: Vec<(String, String)>,
}

impl Default for Account {
    /// Of a throw-away cluster.
    fn default() -> Self {
        Account { user: USER.into(), password: PASSWORD.into(), database: DATABASE.into(), parameters: Vec::new() }
    }
}

#[derive(Clone, Debug)]
pub enum Reach {
    One(SocketAddr),
    /// Each in order, until one says that it takes writes: `target_session_attrs=read-write`
    /// (<https://www.postgresql.org/docs/current/libpq-connect.html>).
    Any(Vec<SocketAddr>),
}

impl From<SocketAddr> for Reach {
    fn from(address: SocketAddr) -> Self {
        Reach::One(address)
    }
}

impl Reach {
    /// A connection, or what was said instead; of several, the last words.
    pub fn connect(&self, account: &Account) -> io::Result<Result<Wire, Said>> {
        match self {
            Reach::One(address) => account.login(*address).attempt_within(PATIENCE),
            Reach::Any(addresses) => {
                let mut last = Err(io::ErrorKind::AddrNotAvailable.into());
                for address in addresses {
                    last = match account.login(*address).attempt_within(EACH) {
                        Ok(Ok(wire)) if takes_writes(&wire) => return Ok(Ok(wire)),
                        Ok(Ok(_)) => Ok(Err(Said { message: READ_ONLY.into(), ..Said::default() })),
                        other => other,
                    };
                }
                last
            }
        }
    }
}

impl Account {
    fn login(&self, address: SocketAddr) -> Login {
        let login = Login::at(address).user(&self.user, &self.password).database(&self.database);
        self.parameters.iter().fold(login, |login, (name, value)| login.with(name, value))
    }
}

/// By what the server reports of itself at every login (since PostgreSQL 14).
fn takes_writes(wire: &Wire) -> bool {
    let is_off = |name: &str| wire.parameters.get(name).is_none_or(|value| value == "off");
    is_off("in_hot_standby") && is_off("default_transaction_read_only")
}
