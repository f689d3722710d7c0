//! A connection that ends when the other side takes nothing of what is written for too long: an answer that never ends (a stream
//! of events) would keep its place for ever otherwise.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long somebody who asked over HTTP may leave an answer unread, once all buffers are full.
pub(super) const UNREAD: Duration = Duration::from_secs(30);

pub(super) struct Impatient<S> {
    stream: S,
    patience: Duration,
    clock: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl<S> Impatient<S> {
    pub fn new(stream: S, patience: Duration) -> Impatient<S> {
        Impatient { stream, patience, clock: Box::pin(sleep(patience)), is_waiting: false }
    }

    /// What became of an attempt to write, and what comes of having waited for so long.
    fn judge<T>(&mut self, cx: &mut Context<'_>, tried: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            self.is_waiting = false;
            return tried;
        }
        if !std::mem::replace(&mut self.is_waiting, true) {
            self.clock.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.clock.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other side does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, tried)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(cx, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, tried)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn who_reads_nothing_is_not_written_to_for_ever() {
        let (ours, mut theirs) = duplex(16);
        let mut ours = Impatient::new(ours, Duration::from_millis(50));
        ours.write_all(&[1; 16]).await.unwrap();
        let error = ours.write_all(&[2; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // It was only slow: patience begins anew.
        theirs.read_exact(&mut [0; 16]).await.unwrap();
        ours.write_all(&[3; 16]).await.unwrap();
    }
}
