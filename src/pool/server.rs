//! One connection to a PostgreSQL server: its socket, what it was told, and the conversations the pool has on it itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Notify;

use super::Startup;
use super::connect;
use super::memory::{Memory, Parameters};
use crate::net::{NodeTls, Stream};
use crate::types::NodeAddress;
use crate::wire::{fields, frame, message};

/// Counts cancel requests under way to a server. The connection must not go to another client before they have arrived:
/// the signal would hit the wrong query.
#[derive(Default, Debug)]
pub struct CancelGate {
    in_flight: AtomicUsize,
    /// A signal was sent that the server process may not have looked at yet.
    signalled: AtomicBool,
    quiet: Notify,
}

impl CancelGate {
    pub fn is_quiet(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) == 0 && !self.signalled.load(Ordering::SeqCst)
    }

    /// Cancel requests that are being sent.
    pub fn under_way(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Call while holding the lock that keeps the server with its client.
    pub fn enter(&self) {
        self.signalled.store(true, Ordering::SeqCst);
        self.in_flight.fetch_add(1, Ordering::SeqCst);
    }

    pub fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.quiet.notify_waiters();
    }

    async fn wait_sent(&self) {
        loop {
            let notified = self.quiet.notified();
            if self.in_flight.load(Ordering::SeqCst) == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// What is needed to cancel what a server is doing.
#[derive(Debug)]
pub struct ServerIdentity {
    pub address: Arc<NodeAddress>,
    pub tls: Arc<NodeTls>,
    pub pid: u32,
    pub cancel_key: Vec<u8>,
    pub gate: CancelGate,
    pub opened: SystemTime,
    /// The address on our side; `None`: a Unix socket.
    pub local: Option<String>,
    pub is_tls: bool,
}

impl ServerIdentity {
    /// Sends a cancel request and waits until PostgreSQL has acted on it: it closes the connection after the signal.
    pub async fn cancel(&self, timeout: Duration) {
        let sent = connect::send_cancel(&self.address, &self.tls, self.pid, &self.cancel_key, timeout).await;
        if let Err(error) = sent {
            tracing::warn!(node = %self.address.id, pid = self.pid, %error, "cancel request failed");
        }
    }
}

pub struct Server {
    pub stream: Stream,
    pub identity: Arc<ServerIdentity>,
    pub startup: Arc<Startup>,
    /// What the server reported when the connection was opened.
    pub startup_parameters: Arc<Parameters>,
    pub memory: Memory,
    /// Bytes read but not yet handed to a session.
    pub unread: Vec<u8>,
    /// Notifications that came while we asked something ourselves: whole messages, for the session that has the connection.
    pub overheard: Vec<u8>,
    pub opened: Instant,
    pub idle_since: Instant,
    /// The worker whose runtime the socket is registered with.
    pub worker: usize,
    pub generation: u64,
}

/// Why a conversation of our own failed.
#[derive(Debug, thiserror::Error)]
pub enum Exchange {
    #[error("server connection lost: {0}")]
    Lost(#[from] io::Error),
    /// The body of the first ErrorResponse.
    #[error("{}", error_text(.0))]
    Refused(Vec<u8>),
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

fn error_text(body: &[u8]) -> String {
    String::from_utf8_lossy(fields::error_field(body, b'M').unwrap_or_default()).into_owned()
}

impl Server {
    /// False if the server has closed the connection, or said why it will, while nobody was looking. Costs no system
    /// call when nothing happened: the readiness of the socket is known to the runtime.
    pub fn is_alive(&mut self) -> bool {
        let mut bytes = [0u8; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let mut context = Context::from_waker(Waker::noop());
            match Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.unread.extend_from_slice(buffer.filled()),
                Poll::Ready(_) => return false,
            }
        }
        // Between transactions a healthy server says nothing but ParameterStatus, notices and notifications.
        let mut rest = &self.unread[..];
        while let Ok(Some(head)) = frame::header(rest) {
            if !matches!(head.tag, b'S' | b'N' | b'A') {
                return false;
            }
            rest = rest.get(head.total..).unwrap_or_default();
        }
        rest.is_empty()
    }

    /// Registers the socket with the calling worker's runtime.
    pub fn move_to(&mut self, worker: usize) -> io::Result<()> {
        if self.worker != worker {
            self.stream = std::mem::replace(&mut self.stream, Stream::Closed).rehome()?;
            self.worker = worker;
        }
        Ok(())
    }

    /// Says goodbye, as far as that is possible without waiting, and closes.
    pub fn close(mut self) {
        let mut goodbye = Vec::with_capacity(5);
        message::terminate(&mut goodbye);
        let mut context = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut self.stream).poll_write(&mut context, &goodbye);
        let _ = Pin::new(&mut self.stream).poll_flush(&mut context);
    }

    /// Waits until all cancels have had their effect. No more must be able to come: the server is out of everybody's sight.
    pub async fn let_cancels_pass(&mut self, limit: Duration) -> Result<(), Exchange> {
        let identity = self.identity.clone();
        if identity.gate.is_quiet() {
            return Ok(());
        }
        if tokio::time::timeout(limit, identity.gate.wait_sent()).await.is_err() {
            return Err(Exchange::Timeout(limit));
        }
        // The signal has been sent; one empty round trip later it has been dealt with, if by hitting that.
        match self.exchange(b"Q\0\0\0\x05\0", 1, limit).await {
            Ok(_) | Err(Exchange::Refused(_)) => {
                identity.gate.signalled.store(false, Ordering::SeqCst);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Runs statements one by one as simple queries, in one write. Fails with the first error, after all were answered.
    /// Returns the data rows, each as its raw body.
    pub async fn run(&mut self, statements: &[Vec<u8>], limit: Duration) -> Result<Vec<Vec<u8>>, Exchange> {
        let mut out = Vec::new();
        for statement in statements {
            message::query(&mut out, statement);
        }
        self.exchange(&out, statements.len(), limit).await
    }

    /// Sends `out` and reads until `ready` ReadyForQuery messages have come.
    pub async fn exchange(&mut self, out: &[u8], ready: usize, limit: Duration) -> Result<Vec<Vec<u8>>, Exchange> {
        match tokio::time::timeout(limit, self.converse(out, ready)).await {
            Ok(result) => result,
            Err(_) => Err(Exchange::Timeout(limit)),
        }
    }

    async fn converse(&mut self, out: &[u8], mut ready: usize) -> Result<Vec<Vec<u8>>, Exchange> {
        self.memory.unnamed = 0;
        self.stream.write_all(out).await?;
        self.stream.flush().await?;
        let mut refused = None;
        let mut rows = Vec::new();
        let mut input = std::mem::take(&mut self.unread);
        let mut at = 0;
        while ready > 0 {
            let head =
                frame::header(&input[at..]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let Some(head) = head.filter(|head| input.len() - at >= head.total) else {
                if self.stream.read_buf(&mut input).await? == 0 {
                    return Err(Exchange::Lost(io::ErrorKind::UnexpectedEof.into()));
                }
                continue;
            };
            let body = &input[at + frame::HEADER..at + head.total];
            match head.tag {
                b'Z' => ready -= 1,
                b'E' => {
                    refused.get_or_insert_with(|| body.to_vec());
                }
                b'D' => rows.push(body.to_vec()),
                b'A' => self.overheard.extend_from_slice(&input[at..at + head.total]),
                b'S' => {
                    if let Some((name, value)) = fields::parameter_status(body) {
                        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
                        Arc::make_mut(&mut self.memory.parameters).set(&name, &value);
                    }
                }
                _ => {}
            }
            at += head.total;
        }
        self.unread = input.split_off(at);
        match refused {
            Some(body) => Err(Exchange::Refused(body)),
            None => Ok(rows),
        }
    }
}
