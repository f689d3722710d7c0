//! Where clients arrive: listening sockets, and handing each new connection to the worker that has the fewest.
//!
//! An accepted connection is handed over as a plain socket, for the runtime of its worker to register.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use super::StartError;
use crate::config::Listen;

/// Connections the kernel keeps for us until they are accepted; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long to wait when no further file can be opened: accepting again at once would spin.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// A connection that has just arrived.
pub enum Arrival {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// A listening socket. A Unix socket's file is removed when it is dropped.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Listener {
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }
}

/// Opens the sockets of one entry of a list, whose key is for the error; a host name may have several addresses.
pub fn open(key: &'static str, listen: &Listen, unix_port: u16) -> Result<Vec<Listener>, StartError> {
    let failed = |source| StartError::Listen { key, listen: listen.to_string(), source };
    match listen {
        Listen::Tcp { host, port } => {
            let addresses = (host.as_str(), *port).to_socket_addrs().map_err(failed)?;
            addresses.map(|address| open_tcp(address).map(Listener::Tcp).map_err(failed)).collect()
        }
        Listen::Unix { directory } => {
            let path = directory.join(format!(".s.PGSQL.{unix_port}"));
            Ok(vec![open_unix(path).map_err(failed)?])
        }
    }
}

pub fn open_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    // A restarted proxy may listen again while connections of the old one are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn open_unix(path: PathBuf) -> io::Result<Listener> {
    // A socket file outlives a process that was killed; one that nobody answers on is in nobody's use.
    if std::fs::metadata(&path).is_ok_and(|found| found.file_type().is_socket()) {
        match UnixStream::connect(&path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(&path)?,
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let listener = UnixListener::bind(&path)?;
    // As PostgreSQL's default unix_socket_permissions: who may connect is decided at login.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Unix(listener, path))
}

/// Accepts for as long as it is polled.
pub async fn accept_all(listener: Listener, hand_over: impl Fn(Arrival)) -> io::Result<()> {
    match &listener {
        Listener::Tcp(socket) => {
            let acceptor = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
            loop {
                let accepted = acceptor.accept().await;
                let accepted = accepted.and_then(|(stream, peer)| Ok(Arrival::Tcp(stream.into_std()?, peer)));
                take(accepted, &hand_over).await;
            }
        }
        Listener::Unix(socket, _) => {
            let acceptor = tokio::net::UnixListener::from_std(socket.try_clone()?)?;
            loop {
                let accepted = acceptor.accept().await;
                let accepted = accepted.and_then(|(stream, _)| Ok(Arrival::Unix(stream.into_std()?)));
                take(accepted, &hand_over).await;
            }
        }
    }
}

async fn take(accepted: io::Result<Arrival>, hand_over: &impl Fn(Arrival)) {
    match accepted {
        Ok(arrival) => hand_over(arrival),
        Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
            tracing::error!(%error, "cannot accept a connection; raise the limit on open files (ulimit -n)");
            tokio::time::sleep(OUT_OF_FILES).await;
        }
        // The client gave up before it was accepted.
        Err(error) => tracing::debug!(%error, "a connection was gone before it was accepted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.6432");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = open_unix(path.clone()).unwrap();
        assert_eq!(open_unix(path.clone()).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists(), "the socket file goes with the listener");
    }

    #[test]
    fn a_taken_port_is_named_in_the_error() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let listen = Listen::Tcp { host: "127.0.0.1".into(), port };
        let error = open("proxy.listen", &listen, 6432).err().unwrap().to_string();
        assert!(error.starts_with(&format!("proxy.listen: cannot listen on 127.0.0.1:{port}: ")), "{error}");
    }
}
