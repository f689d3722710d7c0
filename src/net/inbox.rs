//! Reads whole messages before there is a relay, each no longer than its reader allows.
//!
//! Whoever speaks here has not proved who it is, so nothing is reserved for a length that is merely claimed: the buffer
//! grows with what has arrived.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::wire::frame;

/// How much is read at once; most startup packets and every SASL message fit.
const CHUNK: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the connection was closed")]
    Closed,
    #[error("invalid length of message: {length}")]
    Length { length: u32 },
}

/// What has been read and not yet looked at.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    /// A message with its tag; `limit` is for the whole of it, in bytes.
    pub async fn message(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        limit: usize,
    ) -> Result<(u8, Vec<u8>), ReadError> {
        let head = self.at_least(stream, frame::HEADER).await?;
        let (tag, length) = (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]));
        if length < 4 || length as usize >= limit {
            return Err(ReadError::Length { length });
        }
        let total = length as usize + 1;
        self.at_least(stream, total).await?;
        let body = self.bytes[frame::HEADER..total].to_vec();
        self.bytes.drain(..total);
        Ok((tag, body))
    }

    /// The first byte, left where it is.
    pub async fn peek(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<u8, ReadError> {
        Ok(self.at_least(stream, 1).await?[0])
    }

    /// A packet without a tag, as a connection begins with; without its length word, and at least four bytes long.
    pub async fn packet(&mut self, stream: &mut (impl AsyncRead + Unpin), limit: usize) -> Result<Vec<u8>, ReadError> {
        let head = self.at_least(stream, 4).await?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let total = length as usize;
        if total < 8 || total > limit {
            return Err(ReadError::Length { length });
        }
        self.at_least(stream, total).await?;
        let body = self.bytes[4..total].to_vec();
        self.bytes.drain(..total);
        Ok(body)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    async fn at_least(&mut self, stream: &mut (impl AsyncRead + Unpin), count: usize) -> Result<&[u8], ReadError> {
        while self.bytes.len() < count {
            self.bytes.reserve(CHUNK);
            if stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(ReadError::Closed);
            }
        }
        Ok(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn messages_are_taken_one_by_one_and_the_rest_is_kept() {
        let mut stream: &[u8] = b"\0\0\0\x09\0\x03\0\0\0p\0\0\0\x06hiQ";
        let mut inbox = Inbox::default();
        assert_eq!(now(inbox.packet(&mut stream, 100)).unwrap(), b"\0\x03\0\0\0");
        assert_eq!(now(inbox.message(&mut stream, 100)).unwrap(), (b'p', b"hi".to_vec()));
        assert_eq!(inbox.take(), b"Q");
        assert!(matches!(now(inbox.peek(&mut stream)), Err(ReadError::Closed)));
    }

    #[test]
    fn lengths_are_checked_before_anything_is_read_for_them() {
        for bytes in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x07abc", b"\0\0\0\x65"] {
            let mut stream = bytes;
            assert!(matches!(now(Inbox::default().packet(&mut stream, 100)), Err(ReadError::Length { .. })));
        }
        for bytes in [&b"p\xff\xff\xff\xff"[..], b"p\0\0\0\x03", b"p\0\0\0\x64"] {
            let mut stream = bytes;
            assert!(matches!(now(Inbox::default().message(&mut stream, 100)), Err(ReadError::Length { .. })));
        }
    }
}
