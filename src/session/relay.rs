//! Moves bytes between a client and its server connection, both ways at once, through the machine.
//!
//! Everything on the path of a query happens inside one `poll`: read what the client sent, take an idle server connection,
//! write to it, read the answer, write it to the client, give the connection back. Only what has to wait for somebody
//! else (a connection in use, a statement of our own) leaves it, as a [`Step`].
//!
//! All sessions of a worker read into one buffer, which is free again when `poll` returns; a session owns memory only for
//! what it could not pass on: an incomplete message, or bytes its slow peer did not take. While there is such a rest in
//! one direction nothing more is read for it, so a slow reader slows the writer down and costs one buffer at the most.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Session;
use super::clients::{Activity, Wish};
use super::known::{Known, VERDICTS};
use super::machine::plan::Why;
use super::machine::{self, Before, ClientStep, ServerStep};
use super::silent::fell_silent;
use super::sink::Sink;
use crate::net::Stream;
use crate::sql::{self, Pins};
use crate::wire::frame::Malformed;

/// Bytes read at once. Large results want few system calls; below 64 KiB each MB costs measurably more.
const READ_SIZE: usize = 64 * 1024;

/// How long a session that may want currval keeps its connection while others wait for one.
const SOFTLY: Duration = Duration::from_millis(500);

/// What is left of a server's bytes is put before the next where they are read, up to this.
const SHORT: usize = 4096;

/// Buffers that grew beyond this are given back when they are empty.
const KEEP: usize = 256;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// Why the relay stopped.
#[derive(Debug)]
pub enum Step {
    /// The client's next message needs a server connection and none was idle, or it needs preparing.
    NeedServer,
    Before(Before),
    /// The server connection is at rest but cannot simply be given back.
    Rest,
    /// A replica could not answer, and the client has heard nothing yet.
    Heal([u8; 5]),
    /// The client's next message is `EXPLAIN ROUTE`.
    Explain,
    Terminate,
    ClientGone,
    ServerGone(io::Error),
    ClientMalformed(Malformed),
    ServerMalformed(Malformed),
    Drained,
    Killed,
}

/// An error means that nothing of it was written.
fn poll_write(stream: &mut Stream, cx: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<usize> {
    let all = bytes.len();
    while !bytes.is_empty() {
        match Pin::new(&mut *stream).poll_write(cx, bytes) {
            Poll::Pending => break,
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(written)) => bytes = &bytes[written..],
            // What was taken before is told; the next attempt fails again.
            Poll::Ready(Err(_)) if bytes.len() < all => break,
            Poll::Ready(Err(error)) => return Err(error),
        }
    }
    Ok(all - bytes.len())
}

/// Writes a stretch of what was read, or else what the sink gathered in `rest`; what the peer does not take stays in
/// `rest`. Returns false if some did.
fn send(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    input: &[u8],
    run: Range<usize>,
    rest: &mut Vec<u8>,
) -> io::Result<()> {
    if !run.is_empty() {
        let written = poll_write(stream, cx, &input[run.clone()])?;
        rest.extend_from_slice(&input[run.start + written..run.end]);
    } else if !rest.is_empty() {
        drain(stream, cx, rest)?;
    }
    flush(stream, cx)
}

fn drain(stream: &mut Stream, cx: &mut Context<'_>, rest: &mut Vec<u8>) -> io::Result<()> {
    let written = poll_write(stream, cx, rest)?;
    if written == rest.len() {
        rest.clear();
        if rest.capacity() > KEEP {
            *rest = Vec::new();
        }
    } else if written > 0 {
        rest.drain(..written);
    }
    Ok(())
}

/// TLS may hold encrypted bytes back; for plain sockets this does nothing.
fn flush(stream: &mut Stream, cx: &mut Context<'_>) -> io::Result<()> {
    match Pin::new(stream).poll_flush(cx) {
        Poll::Ready(Err(error)) => Err(error),
        _ => Ok(()),
    }
}

fn poll_read(stream: &mut Stream, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}

impl Session {
    /// Relays until something has to be done that cannot be done in passing.
    pub(super) fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.me.client.waker.register(cx.waker());
        match self.me.client.wish() {
            Wish::Kill => return Poll::Ready(Step::Killed),
            Wish::Drain if self.machine.is_at_rest() && self.from_client.is_empty() => {
                return Poll::Ready(Step::Drained);
            }
            _ => {}
        }
        if self.me.client.is_nudged()
            && let Some(step) = self.let_go_softly()
        {
            return Poll::Ready(step);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut moved = false;
                if let Some(error) = self.given_up() {
                    return Poll::Ready(Step::ServerGone(error));
                }
                if !self.to_client.is_empty() {
                    let before = self.to_client.len();
                    if drain(&mut self.stream, cx, &mut self.to_client).is_err() {
                        return Poll::Ready(Step::ClientGone);
                    }
                    moved |= self.to_client.len() < before;
                }
                if flush(&mut self.stream, cx).is_err() {
                    return Poll::Ready(Step::ClientGone);
                }
                if self.lease.is_some() {
                    match self.poll_server(cx, scratch) {
                        Poll::Ready(Some(step)) => return Poll::Ready(step),
                        Poll::Ready(None) => moved = true,
                        Poll::Pending => {}
                    }
                }
                match self.poll_client(cx, scratch) {
                    Poll::Ready(Some(step)) => return Poll::Ready(step),
                    Poll::Ready(None) => moved = true,
                    Poll::Pending => {}
                }
                if !moved {
                    return Poll::Pending;
                }
            }
        })
    }

    /// Nothing goes to a primary that was given up, and nothing that it says is passed on; nor is a silent replica waited for.
    #[inline]
    fn given_up(&mut self) -> Option<io::Error> {
        if self.machine.is_on_replica()
            && self.lease.is_some()
            && self.shared.readers.silence.has_taken(self.me.client.footing())
        {
            return Some(fell_silent());
        }
        if self.machine.is_standby() {
            return self.outgrown();
        }
        let pass = self.me.client.pass();
        if pass == 0 || pass == self.shared.gate.generation() { None } else { self.let_go() }
    }

    /// Whether a cancel could only hit a commit is for others to see.
    #[inline]
    fn show_commit(&mut self) {
        let commits = self.machine.only_commit_is_due();
        if commits != self.commits {
            self.commits = commits;
            self.me.client.set_commits(commits);
        }
    }

    /// One step from the server to the client.
    fn poll_server(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Option<Step>> {
        let Some(lease) = &mut self.lease else { return Poll::Pending };
        let server = lease.server();
        if !self.to_server.is_empty()
            && let Err(error) = drain(&mut server.stream, cx, &mut self.to_server)
        {
            return Poll::Ready(Some(Step::ServerGone(error)));
        }
        if let Err(error) = flush(&mut server.stream, cx) {
            return Poll::Ready(Some(Step::ServerGone(error)));
        }
        if !self.to_client.is_empty() {
            return Poll::Pending;
        }
        let step = if server.unread.is_empty() {
            match poll_read(&mut server.stream, cx, scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Step::ServerGone(error))),
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Some(Step::ServerGone(io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Ok(read)) => {
                    self.me.client.tally.send(read);
                    match self.given_up() {
                        Some(error) => Some(Step::ServerGone(error)),
                        None => self.take_from_server(cx, &scratch[..read]),
                    }
                }
            }
        } else if server.unread.len() <= SHORT {
            // The beginning of a message waits for its end: what comes is read behind it.
            let begun = server.unread.len();
            scratch[..begun].copy_from_slice(&server.unread);
            match poll_read(&mut server.stream, cx, &mut scratch[begun..]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Step::ServerGone(error))),
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Some(Step::ServerGone(io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Ok(read)) => {
                    server.unread.clear();
                    self.me.client.tally.send(read);
                    match self.given_up() {
                        Some(error) => Some(Step::ServerGone(error)),
                        None => self.take_from_server(cx, &scratch[..begun + read]),
                    }
                }
            }
        } else {
            let mut input = std::mem::take(&mut server.unread);
            match poll_read(&mut server.stream, cx, scratch) {
                Poll::Pending => {
                    server.unread = input;
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Step::ServerGone(error))),
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Some(Step::ServerGone(io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Ok(read)) => {
                    input.extend_from_slice(&scratch[..read]);
                    self.me.client.tally.send(read);
                    match self.given_up() {
                        Some(error) => Some(Step::ServerGone(error)),
                        None => self.take_from_server(cx, &input),
                    }
                }
            }
        };
        Poll::Ready(step)
    }

    fn take_from_server(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Option<Step> {
        let lease = self.lease.as_mut()?;
        let server = lease.server();
        let mut sink = Sink::new(input, &mut self.to_client);
        let result = self.machine.server(input, &mut server.memory, &mut sink, self.max_inspect);
        let (taken, step) = match result {
            Ok(result) => result,
            Err(error) => return Some(Step::ServerMalformed(error)),
        };
        let run = sink.finish();
        if taken < input.len() {
            server.unread.extend_from_slice(&input[taken..]);
        }
        self.show_commit();
        self.note_answered();
        // Others must know of DDL before this client does.
        if self.machine.happened != machine::Happened::default() {
            self.note_happened();
        }
        if send(&mut self.stream, cx, input, run, &mut self.to_client).is_err() {
            return Some(Step::ClientGone);
        }
        match step {
            ServerStep::Rest => {
                self.me.client.transactions.fetch_add(1, Ordering::Relaxed);
                self.rest()
            }
            ServerStep::Heal(sqlstate) => Some(Step::Heal(sqlstate)),
            ServerStep::More => None,
        }
    }

    /// The transaction is over: gives the connection back if that needs no waiting.
    fn rest(&mut self) -> Option<Step> {
        self.note_served();
        self.note_over();
        self.heals = 0;
        let mut pins = self.machine.pins();
        if self.machine.is_on_replica() && self.sent.capacity() > KEEP {
            self.sent = Vec::new();
        }
        if self.machine.is_guest() {
            // What pins the session is on the connection kept aside. Anything else came about here, against all
            // expectation: nobody else may have this connection.
            let mut others = pins;
            others.remove(sql::Pin::Sequence);
            if !others.is_empty() {
                tracing::debug!(client = self.me.client.id, ?others, "a statement on a replica left something behind");
                pins.remove_all(others);
                self.machine.set_pins(pins);
                self.me.client.set_server(None);
                self.lease = None;
                self.take_back();
                return None;
            }
            pins = Pins::EMPTY;
        }
        if pins == Pins::of(sql::Pin::Sequence) {
            let since = *self.soft_since.get_or_insert_with(Instant::now);
            let had_its_answer = !self.machine.advanced_last() || since.elapsed() > SOFTLY * 4;
            if had_its_answer && self.me.client.take_nudge() {
                pins = Pins::EMPTY;
                self.machine.set_pins(pins);
                self.me.client.set_pins(pins);
                self.soft_since = None;
            }
        }
        if !pins.is_empty() || self.may_unpin {
            self.me.client.set_pins(pins);
            self.rested = Instant::now();
            if self.may_unpin {
                return Some(Step::Rest);
            }
            return None;
        }
        if !self.to_server.is_empty() {
            return None;
        }
        // Taking the server out of sight first: no cancel can be counted in after this.
        self.me.client.set_server(None);
        let lease = self.lease.as_mut()?;
        if !lease.server().identity.gate.is_quiet() || !lease.server().unread.is_empty() {
            return Some(Step::Rest);
        }
        self.me.client.set_activity(Activity::Idle);
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
        if self.aside.is_some() {
            self.take_back();
        }
        None
    }

    /// Somebody waits for a connection, and this session keeps one only so that currval or lastval, if it should ask for
    /// them, still know. A client that wants them asks at once: it goes without after [`SOFTLY`] of silence, after a
    /// statement that advanced no sequence (it has had its answer), and in any case after four times that.
    fn let_go_softly(&mut self) -> Option<Step> {
        if let Some(mut aside) = self.aside.take() {
            self.forget_sequences();
            // One that a cancel may still be under way to is closed.
            if aside.server().identity.gate.is_quiet() {
                aside.release();
            }
            return None;
        }
        let only_memory = self.machine.pins() == Pins::of(sql::Pin::Sequence);
        if only_memory && self.lease.is_some() && self.machine.is_at_rest() && self.rested.elapsed() > SOFTLY {
            self.machine.set_pins(Pins::EMPTY);
            self.me.client.set_pins(Pins::EMPTY);
            return self.rest();
        }
        None
    }

    /// One step from the client to the server.
    fn poll_client(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Option<Step>> {
        if !self.to_server.is_empty() || self.to_client.len() > READ_SIZE {
            return Poll::Pending;
        }
        // What waits behind this is read when the gate changes, which wakes us.
        if self.drains && self.waits_for_drain() {
            return Poll::Pending;
        }
        if self.stalled {
            let input = std::mem::take(&mut self.from_client);
            let before = input.len();
            match self.take_from_client(cx, &input) {
                None if self.from_client.len() == before && self.stalled => return Poll::Pending,
                // It was waiting for its own end all the time: that has to be read.
                None if self.from_client.len() == before => {}
                step => return Poll::Ready(step),
            }
        }
        match poll_read(&mut self.stream, cx, scratch) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(_)) | Poll::Ready(Ok(0)) => Poll::Ready(Some(Step::ClientGone)),
            Poll::Ready(Ok(read)) if self.from_client.is_empty() => {
                self.me.client.tally.receive(read);
                Poll::Ready(self.take_from_client(cx, &scratch[..read]))
            }
            Poll::Ready(Ok(read)) => {
                self.me.client.tally.receive(read);
                let mut input = std::mem::take(&mut self.from_client);
                input.extend_from_slice(&scratch[..read]);
                Poll::Ready(self.take_from_client(cx, &input))
            }
        }
    }

    /// Passes on what the client sent as far as it goes; the rest is kept in `from_client`.
    fn take_from_client(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Option<Step> {
        self.stalled = false;
        let mut at = 0;
        loop {
            self.refresh_wishes();
            let is_first = self.lease.is_some() && self.machine.is_at_rest() && self.to_server.is_empty();
            let rest = &input[at..];
            let mut sink = Sink::new(rest, &mut self.to_server);
            let known = Known::of(&self.database, &self.shared);
            let memory = self.lease.as_mut().map(|lease| &mut lease.server().memory);
            let limits = (self.max_inspect, self.max_prepared, self.sequence_use.is_likely(), self.ask_commits);
            let result = VERDICTS.with(|verdicts| {
                let context = known.context(&self.database, &self.wishes, self.identity, limits, verdicts);
                self.machine.client(rest, memory, &mut sink, &mut self.to_client, &context)
            });
            let (taken, step) = match result {
                Ok(result) => result,
                Err(error) => {
                    // What came before is sound, and a server that waits for it could not be given back.
                    let run = sink.finish();
                    self.to_server.extend_from_slice(&rest[run]);
                    return Some(Step::ClientMalformed(error));
                }
            };
            let run = sink.finish();
            self.show_commit();
            self.note_asked();
            if self.machine.is_armed() {
                self.keep_sent(&rest[..taken]);
            }
            if self.machine.happened != machine::Happened::default() {
                self.note_happened();
            }
            if let Some(lease) = &mut self.lease
                && let Err(error) = send(&mut lease.server().stream, cx, rest, run, &mut self.to_server)
            {
                if is_first && self.to_client.is_empty() && self.machine.pins().is_empty() {
                    // It broke while it was idle, and nothing has reached it: what was to be sent is sent elsewhere.
                    tracing::debug!(client = self.me.client.id, %error, "an idle server connection turned out to be broken");
                    self.keep(&input[at..]);
                    self.abandon();
                    return Some(Step::NeedServer);
                }
                self.keep(&input[at + taken..]);
                return Some(Step::ServerGone(error));
            }
            at += taken;
            let outcome = match step {
                ClientStep::More => None,
                ClientStep::Full => {
                    self.stalled = true;
                    None
                }
                ClientStep::NeedServer => {
                    if self.take_server_at_once() {
                        continue;
                    }
                    self.stalled = true;
                    Some(Step::NeedServer)
                }
                ClientStep::Before(before) => {
                    self.stalled = true;
                    Some(Step::Before(before))
                }
                ClientStep::SetAside => {
                    // Out of sight first: no cancel can be counted in after this.
                    self.me.client.set_server(None);
                    let Some(mut lease) = self.lease.take() else { continue };
                    if lease.server().identity.gate.is_quiet() {
                        self.aside = Some(lease);
                    } else {
                        self.me.client.set_server(Some(lease.server().identity.clone()));
                        self.lease = Some(lease);
                        self.machine.demand_primary(Why::Pinned);
                    }
                    continue;
                }
                ClientStep::GiveBack => {
                    let step = self.rest();
                    if step.is_none() && !(self.lease.is_some() && self.machine.is_on_replica()) {
                        continue;
                    }
                    self.stalled = true;
                    step
                }
                ClientStep::Explain => {
                    self.stalled = true;
                    Some(Step::Explain)
                }
                ClientStep::Terminate => Some(Step::Terminate),
            };
            self.keep(&input[at..]);
            // Replies of our own may be all there is to send.
            if !self.to_client.is_empty()
                && self.lease.is_none()
                && drain(&mut self.stream, cx, &mut self.to_client).is_err()
            {
                return Some(Step::ClientGone);
            }
            // A message answered by us alone (Close) leaves the connection at rest without a word from the server.
            if outcome.is_none() && self.lease.is_some() && self.machine.is_at_rest() && !self.stalled {
                return self.rest();
            }
            return outcome;
        }
    }

    /// The connection at hand is of no use, and nothing was sent on it: as if it had not been taken.
    fn abandon(&mut self) {
        self.note_over();
        self.me.client.set_server(None);
        self.lease = None;
        self.to_server.clear();
        self.sent.clear();
        self.machine.rewind();
        self.stalled = true;
        self.shared.look_now.notify_one();
    }

    /// What a replica is sent is kept until it has begun to answer, as far as that is little.
    fn keep_sent(&mut self, bytes: &[u8]) {
        if self.sent.len() + bytes.len() > READ_SIZE {
            self.sent = Vec::new();
            self.machine.disarm(&mut self.to_client);
        } else {
            self.sent.extend_from_slice(bytes);
        }
    }

    fn keep(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.from_client.extend_from_slice(rest);
        }
    }
}
