//! One type for every connection, so that sessions and pools need not be generic over what carries them.
//!
//! A plain connection can be handed from one worker's runtime to another's ([`Stream::rehome`]). One inside TLS cannot:
//! rustls's state would survive it, but tokio-rustls does not give the socket back without the session.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// A peer whose machine has vanished is noticed after about 30 + 3 × 10 seconds of silence.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);

#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Either of the above inside TLS, as server or as client. Boxed: the state of a TLS session is above a kilobyte.
    Tls(Box<TlsStream<Carrier>>),
    /// Taken away to be moved; every use of it is an error.
    Closed,
}

impl Stream {
    /// Sets what every TCP connection of ours has: no delay for small packets, and keepalive.
    pub fn tcp(socket: TcpStream) -> io::Result<Stream> {
        socket.set_nodelay(true)?;
        let reference = SockRef::from(&socket);
        reference.set_tcp_keepalive(&KEEPALIVE)?;
        Ok(Stream::Tcp(socket))
    }

    pub fn unix(socket: UnixStream) -> Stream {
        Stream::Unix(socket)
    }

    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    pub fn is_unix(&self) -> bool {
        match self {
            Stream::Unix(_) => true,
            Stream::Tls(tls) => matches!(tls.get_ref().0.plain, Stream::Unix(_)),
            _ => false,
        }
    }

    /// The address on this side; `None`: it has none, as a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(socket) => socket.local_addr().ok(),
            Stream::Tls(tls) => tls.get_ref().0.plain.local_addr(),
            Stream::Unix(_) | Stream::Closed => None,
        }
    }

    /// Registers the socket with the runtime of the caller. A connection inside TLS comes back unchanged.
    pub fn rehome(self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Tcp(socket) => Stream::Tcp(TcpStream::from_std(socket.into_std()?)?),
            Stream::Unix(socket) => Stream::Unix(UnixStream::from_std(socket.into_std()?)?),
            other => other,
        })
    }

    /// The peer's certificate, which the handshake has verified as far as it was told to.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Stream::Tls(tls) => tls.get_ref().1.peer_certificates()?.first(),
            _ => None,
        }
    }

    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        match self {
            Stream::Tls(tls) => tls.get_ref().1.alpn_protocol(),
            _ => None,
        }
    }
}

/// What TLS runs over: a plain stream, and what was read from it before it was known to be TLS.
#[derive(Debug)]
pub struct Carrier {
    head: Vec<u8>,
    plain: Stream,
}

impl Carrier {
    pub(super) fn new(head: Vec<u8>, plain: Stream) -> Self {
        Carrier { head, plain }
    }
}

fn closed<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Stream::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
            Stream::Closed => closed(),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Stream::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
            Stream::Closed => closed(),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Stream::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Stream::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
            Stream::Closed => closed(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Tcp(socket) => socket.is_write_vectored(),
            Stream::Unix(socket) => socket.is_write_vectored(),
            Stream::Tls(tls) => tls.is_write_vectored(),
            Stream::Closed => false,
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Stream::Unix(socket) => Pin::new(socket).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Stream::Closed => closed(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Stream::Closed => closed(),
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.head.is_empty() {
            return Pin::new(&mut this.plain).poll_read(cx, buffer);
        }
        let count = this.head.len().min(buffer.remaining());
        buffer.put_slice(&this.head[..count]);
        this.head.drain(..count);
        if this.head.is_empty() {
            this.head = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().plain).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().plain).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.plain.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().plain).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().plain).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_connection_goes_on_in_another_runtime_after_the_first_is_gone() {
        let first = runtime();
        let (mut here, there) = first.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (other, _) = listener.accept().await.unwrap();
            (Stream::tcp(socket).unwrap(), other.into_std().unwrap())
        });
        let second = runtime();
        here = second.block_on(async { here.rehome().unwrap() });
        drop(first);
        second.block_on(async {
            let mut there = TcpStream::from_std(there).unwrap();
            there.write_all(b"still here").await.unwrap();
            let mut bytes = [0; 10];
            here.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"still here");
        });
    }
}
