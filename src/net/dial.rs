//! Opens connections to nodes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::stream::Stream;
use super::tls::{NodeTls, NodeTlsMode};
use crate::types::NodeAddress;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("cannot connect with TLS: {0}")]
    Tls(String),
}

/// Where a node's Unix socket is, if its host is the directory of one.
pub fn unix_socket(address: &NodeAddress) -> Option<PathBuf> {
    address.host.starts_with('/').then(|| Path::new(&address.host).join(format!(".s.PGSQL.{}", address.port)))
}

/// A plain connection. A name that resolves to several addresses is tried in order, all within `connect_timeout`.
pub async fn dial(address: &NodeAddress, connect_timeout: Duration) -> Result<Stream, DialError> {
    dial_until(address, Instant::now() + connect_timeout).await
}

/// A connection with TLS as `tls` asks for it; Unix sockets never have it, as with libpq.
pub async fn dial_tls(address: &NodeAddress, tls: &NodeTls, connect_timeout: Duration) -> Result<Stream, DialError> {
    let deadline = Instant::now() + connect_timeout;
    let plain = dial_until(address, deadline).await?;
    if tls.mode() == NodeTlsMode::Disable || plain.is_unix() {
        return Ok(plain);
    }
    match timeout_at(deadline, request_tls(plain, address, tls)).await {
        Err(_) => Err(DialError::Timeout),
        // As libpq does: a handshake that fails is no reason to give up where TLS is a mere preference.
        Ok(Err(DialError::Tls(reason))) if tls.mode() == NodeTlsMode::Prefer => {
            tracing::debug!(node = %address.id, reason, "TLS with the node failed, going on without");
            dial_until(address, deadline).await
        }
        Ok(outcome) => outcome,
    }
}

async fn dial_until(address: &NodeAddress, deadline: Instant) -> Result<Stream, DialError> {
    let connecting = async {
        match unix_socket(address) {
            Some(path) => Ok(Stream::unix(UnixStream::connect(path).await?)),
            None => Stream::tcp(TcpStream::connect((address.host.as_str(), address.port)).await?),
        }
    };
    match timeout_at(deadline, connecting).await {
        Err(_) => Err(DialError::Timeout),
        Ok(outcome) => Ok(outcome?),
    }
}

async fn request_tls(mut plain: Stream, address: &NodeAddress, tls: &NodeTls) -> Result<Stream, DialError> {
    plain.write_all(&SSL_REQUEST).await?;
    // Room for two: a byte that follows the answer was put there by somebody who is not inside TLS (CVE-2021-23222).
    let mut answer = [0; 2];
    match (plain.read(&mut answer).await?, answer[0]) {
        (0, _) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        (2, _) => Err(DialError::Tls("the node sent unencrypted data after its answer to SSLRequest".into())),
        (_, b'S') => tls.handshake(plain, &address.host).await.map_err(|error| DialError::Tls(error.to_string())),
        (_, b'N') if tls.mode() == NodeTlsMode::Prefer => Ok(plain),
        (_, b'N') => Err(DialError::Tls(format!(
            "the node does not offer TLS and cluster.tls.mode is \"{}\"; set ssl = on there, or choose another mode",
            tls.mode().as_str()
        ))),
        // The text of such an error comes from nobody in particular (CVE-2024-10977), so it is not shown.
        (_, b'E') => Err(io::Error::other("the node answered SSLRequest with an error").into()),
        (_, other) => Err(DialError::Tls(format!("unexpected answer {other:#04x} to SSLRequest; is this PostgreSQL?"))),
    }
}
