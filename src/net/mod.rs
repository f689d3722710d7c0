//! Connections: plain or inside TLS, from clients and to nodes, and the reading of what is said before a relay begins.
//!
//! PostgreSQL's TLS begins with a question in plain text (SSLRequest), so the code that opens TLS has to know that bit of
//! the protocol; whatever comes after it is `session/login.rs` on one side and `pool/connect.rs` on the other.

pub mod conninfo;
pub mod dial;
pub mod endpoint;
pub mod http;
mod impatient;
pub mod inbox;
pub mod stream;
pub mod tls;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use self::conninfo::{Conninfo, ConninfoError};
pub use self::dial::{DialError, dial, dial_tls};
pub use self::inbox::{Inbox, ReadError};
pub use self::stream::Stream;
pub use self::tls::{ClientTlsMode, NodeTls, NodeTlsMode, ServerTls, TlsConfigError};

/// ALPN name of PostgreSQL's protocol, registered with IANA; PostgreSQL 17 and later insist on it for direct TLS.
pub const ALPN: &[u8] = b"postgresql";

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    /// A Unix socket.
    Local,
}

impl Peer {
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip().to_canonical()),
            Peer::Local => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Local => f.write_str("[local]"),
        }
    }
}
