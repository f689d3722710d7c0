//! Leaves nothing behind: what happens to a server connection when its transaction is over but something is still on it,
//! and when its client is gone, in whatever state that was.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Session;
use super::clients::Activity;
use super::machine::Tx;
use super::sink::Sink;
use crate::net::Stream;
use crate::pool::server::Exchange;
use crate::pool::{Lease, Server};
use crate::sql::{Pin, Pins};

/// How long a statement whose client has gone may go on: PostgreSQL itself would let it finish, so one that is about to
/// commit gets the chance to; then it is cancelled and its connection closed.
const GONE_GRACE: Duration = Duration::from_secs(10);

/// How much of a result nobody reads is read for the sake of the connection, in bytes. PostgreSQL would stop at the
/// first write that fails.
const GONE_RESULT: usize = 1024 * 1024;

/// How long undoing may take; a connection is cheaper than waiting longer.
const UNDO: Duration = Duration::from_secs(10);

/// Asks the server what of the session is left on it. The columns are in the order of `PROBED`.
const PROBE: &[u8] = b"SELECT \
    EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema()) \
    OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema()) \
    OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema()), \
    EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()), \
    EXISTS (SELECT FROM pg_catalog.pg_listening_channels()), \
    EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)";

const PROBED: [Pin; 4] = [Pin::Temporary, Pin::AdvisoryLock, Pin::Listen, Pin::HoldCursor];

/// Whether everything these pins stand for is undone by DISCARD ALL (PostgreSQL manual, DISCARD).
fn discard_undoes(pins: Pins) -> bool {
    pins.iter().all(|pin| !matches!(pin, Pin::Process | Pin::Oversized))
}

fn is_true(row: &[u8], column: usize) -> bool {
    // Columns of one byte each: two bytes of count, then length and value.
    row.get(2 + column * 5 + 4) == Some(&b't')
}

/// Which of these pins still stand for something. Asked twice, because a late cancel may hit the question.
async fn left_on(server: &mut Server, pins: Pins) -> Result<Pins, Exchange> {
    let rows = match server.run(&[PROBE.to_vec()], UNDO).await {
        Err(Exchange::Refused(_)) => server.run(&[PROBE.to_vec()], UNDO).await?,
        other => other?,
    };
    let row = rows.first().map(Vec::as_slice).unwrap_or_default();
    let mut left = pins;
    for (column, pin) in PROBED.into_iter().enumerate() {
        if !is_true(row, column) {
            left.remove(pin);
        }
    }
    Ok(left)
}

async fn say_farewell(client: u64, stream: &mut Stream, out: &[u8]) {
    if !out.is_empty() {
        let said = tokio::time::timeout(Duration::from_secs(5), stream.write_all(out)).await;
        if !matches!(said, Ok(Ok(()))) {
            tracing::debug!(client, "the client did not take its last message");
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.shutdown()).await;
}

impl Session {
    /// The connection is at rest, but a cancel is under way to it or what pinned the session may be gone.
    pub(super) async fn rest_slowly(&mut self) -> bool {
        let Some(lease) = &mut self.lease else { return true };
        if self.machine.is_guest() {
            // What pins the session is on the connection kept aside, if anything.
            self.me.client.set_server(None);
            let passed = lease.server().let_cancels_pass(UNDO).await;
            self.pass_overheard();
            self.me.client.set_activity(Activity::Idle);
            if let Some(mut lease) = self.lease.take()
                && passed.is_ok()
                && lease.server().unread.is_empty()
                && self.machine.is_at_rest()
                && self.to_server.is_empty()
            {
                lease.release();
            }
            self.take_back();
            self.stalled = !self.from_client.is_empty();
            return true;
        }
        if std::mem::take(&mut self.may_unpin) && !self.machine.pins().is_empty() {
            let pins = self.machine.pins();
            if pins.iter().all(|pin| PROBED.contains(&pin)) {
                match left_on(lease.server(), pins).await {
                    Ok(left) => self.machine.set_pins(left),
                    Err(Exchange::Refused(_)) => {}
                    Err(error) => return self.lose_server(io::Error::other(error)).await,
                }
            }
        }
        self.me.client.set_pins(self.machine.pins());
        if self.machine.pins().is_empty() && self.machine.is_at_rest() && self.to_server.is_empty() {
            // Taking the server out of sight first: no cancel can be counted in after this.
            self.me.client.set_server(None);
            let passed = lease.server().let_cancels_pass(UNDO).await;
            self.pass_overheard();
            self.me.client.set_activity(Activity::Idle);
            // One that could not be waited for is no longer to be used.
            if let Some(mut lease) = self.lease.take()
                && passed.is_ok()
                && lease.server().unread.is_empty()
            {
                lease.release();
            }
        } else {
            self.me.client.set_server(Some(lease.server().identity.clone()));
            self.pass_overheard();
        }
        self.stalled = !self.from_client.is_empty();
        true
    }

    /// Hands on the notifications that came while we asked the server something ourselves.
    pub(super) fn pass_overheard(&mut self) {
        let Some(lease) = &mut self.lease else { return };
        let server = lease.server();
        if server.overheard.is_empty() {
            return;
        }
        let overheard = std::mem::take(&mut server.overheard);
        let mut sink = Sink::new(&overheard, &mut self.to_client);
        // Whole notifications are never malformed, and change nothing in the machine.
        let _ = self.machine.server(&overheard, &mut server.memory, &mut sink, self.max_inspect);
        let run = sink.finish();
        self.to_client.extend_from_slice(&overheard[run]);
    }

    /// The end of the session.
    pub(super) async fn finish(&mut self) {
        let (shared, pass) = (self.shared.clone(), self.me.client.pass());
        {
            // What the client is still to hear, as far as it listens. A primary that is given up does not wait for that.
            let (id, stream, out) = (self.me.client.id, &mut self.stream, &self.to_client);
            let mut farewell = std::pin::pin!(say_farewell(id, stream, out));
            tokio::select! {
                biased;
                () = &mut farewell => {}
                () = shared.gate.gave_up(pass), if pass != 0 && !self.machine.is_on_replica() => {
                    self.lease = None;
                    self.aside = None;
                    self.me.client.set_pass(0);
                    farewell.await;
                }
            }
        }
        if let Some(mut aside) = self.aside.take()
            && aside.server().identity.gate.is_quiet()
        {
            // Sequence memory is forgotten by whoever next wants to use it.
            aside.release();
        }
        let Some(lease) = self.lease.take() else { return };
        self.me.client.set_server(None);
        // Nobody is left to repeat anything for.
        self.machine.disarm(&mut self.to_client);
        let is_concerned = pass != 0 && !self.machine.is_on_replica();
        tokio::select! {
            biased;
            () = shared.gate.gave_up(pass), if is_concerned => {}
            cleaned = self.clean(lease) => {
                if let Some(lease) = cleaned {
                    lease.release();
                }
            }
        }
    }

    /// Undoes what the session has left on the connection. `None` if it had to be closed.
    async fn clean(&mut self, mut lease: Lease) -> Option<Lease> {
        let identity = lease.server().identity.clone();
        if !self.machine.is_quiet() {
            let settled = tokio::time::timeout(GONE_GRACE, self.settle(lease.server())).await;
            if settled != Ok(true) {
                // Without a cancel the server would go on until it next writes.
                tokio::select! {
                    () = identity.cancel(Duration::from_secs(5)) => {}
                    () = tokio::time::sleep(Duration::from_secs(5)) => {}
                }
                return None;
            }
        }
        if lease.server().let_cancels_pass(UNDO).await.is_err() {
            return None;
        }
        let pins = self.machine.pins();
        if !discard_undoes(pins) {
            return None;
        }
        let mut undo: Vec<Vec<u8>> = Vec::new();
        if self.machine.status() != Tx::Idle {
            undo.push(b"ROLLBACK".to_vec());
        }
        // Sequence memory is forgotten by whoever next wants to use it.
        let discards = !pins.is_empty() && pins != Pins::of(Pin::Sequence);
        if discards {
            undo.push(b"DISCARD ALL".to_vec());
        }
        let server = lease.server();
        if !undo.is_empty() {
            if server.run(&undo, UNDO).await.is_err() {
                return None;
            }
            if discards {
                server.memory.discarded();
            }
        }
        server.unread.is_empty().then_some(lease)
    }

    /// Lets what was sent come to its end, without a client to hear of it. True if the connection is quiet then.
    async fn settle(&mut self, server: &mut Server) -> bool {
        if self.machine.copy_in() || !self.machine.is_whole() {
            return false;
        }
        let mut out = std::mem::take(&mut self.to_server);
        // A pipeline without its Sync would never be answered for good; PostgreSQL would roll it back at the disconnect,
        // and so must we.
        if self.machine.needs_sync() {
            return false;
        }
        if server.stream.write_all(&out).await.is_err() || server.stream.flush().await.is_err() {
            return false;
        }
        out.clear();
        let mut seen = 0;
        let mut input = std::mem::take(&mut server.unread);
        while !self.machine.is_quiet() {
            // An error before the client's last Query has the server wait for a Sync too.
            if self.machine.needs_sync() {
                return false;
            }
            match server.stream.read_buf(&mut input).await {
                Ok(read) if read > 0 => seen += read,
                _ => return false,
            }
            if seen > GONE_RESULT {
                return false;
            }
            let mut nowhere = Vec::new();
            let mut sink = Sink::new(&input, &mut nowhere);
            let Ok((taken, _)) = self.machine.server(&input, &mut server.memory, &mut sink, self.max_inspect) else {
                return false;
            };
            input.drain(..taken);
        }
        self.note_happened();
        server.unread = input;
        true
    }
}
