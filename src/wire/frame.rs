//! Finds the borders of messages in a stream by their five-byte header, without looking inside.
//!
//! A body may be larger than any buffer: the caller learns the length from the header and streams the rest. The limits
//! are PostgreSQL's own (`PQ_LARGE_MESSAGE_LIMIT`, `PQ_SMALL_MESSAGE_LIMIT` in libpq.h), so what a server would refuse is
//! refused here, before it costs memory.

/// Length of tag plus length word.
pub const HEADER: usize = 5;

/// Largest body PostgreSQL accepts, length word included (1 GiB - 2).
pub const LARGE_LIMIT: usize = 0x3fff_fffe;

/// Largest body of a message that carries only names and numbers.
pub const SMALL_LIMIT: usize = 10_000;

/// A message header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub tag: u8,
    /// Length of the whole message: tag, length word and body, in bytes. At least 5.
    pub total: usize,
}

/// Why a stream cannot be split any further. The connection it came from cannot be continued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    #[error("invalid message length {length} for message type {tag:?}", tag = *tag as char)]
    Length { tag: u8, length: u32 },
    #[error("invalid frontend message type {0}")]
    Tag(u8),
    #[error("invalid message format in message type {tag:?}", tag = *.0 as char)]
    Body(u8),
}

/// Reads the header at the start of `bytes`; `Ok(None)` if fewer than five bytes are there yet.
#[inline]
pub fn header(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((head, _)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let tag = head[0];
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if length < 4 || length as usize > LARGE_LIMIT {
        return Err(Malformed::Length { tag, length });
    }
    Ok(Some(Header { tag, total: length as usize + 1 }))
}

/// As [`header`], for what a client sends: the tag must be one PostgreSQL knows, and the length fit it.
#[inline]
pub fn client_header(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some(head) = header(bytes)? else {
        return match bytes.first() {
            Some(tag) if client_limit(*tag).is_none() => Err(Malformed::Tag(*tag)),
            _ => Ok(None),
        };
    };
    match client_limit(head.tag) {
        None => Err(Malformed::Tag(head.tag)),
        Some(limit) if head.total - 1 > limit => {
            Err(Malformed::Length { tag: head.tag, length: (head.total - 1) as u32 })
        }
        Some(_) => Ok(Some(head)),
    }
}

#[inline]
fn client_limit(tag: u8) -> Option<usize> {
    match tag {
        b'Q' | b'P' | b'B' | b'F' | b'd' | b'p' => Some(LARGE_LIMIT),
        b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' => Some(SMALL_LIMIT),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_needs_five_bytes() {
        assert_eq!(header(b"Q\0\0\0"), Ok(None));
        assert_eq!(header(b"Q\0\0\0\x05x"), Ok(Some(Header { tag: b'Q', total: 6 })));
    }

    #[test]
    fn lengths_that_postgresql_refuses_are_refused() {
        assert!(header(b"Q\0\0\0\x03").is_err());
        assert!(header(b"Q\xff\xff\xff\xff").is_err());
        assert!(client_header(b"S\0\0\x27\x11").is_err(), "a Sync of 10,001 bytes");
        assert!(client_header(b"d\0\0\x27\x11").is_ok());
    }

    #[test]
    fn an_unknown_tag_is_refused_at_its_first_byte() {
        assert_eq!(client_header(b"!"), Err(Malformed::Tag(b'!')));
    }

    proptest! {
        /// However a stream of messages is cut into reads, the borders found are the same.
        #[test]
        fn borders_do_not_depend_on_how_the_stream_was_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            cut in 1usize..17,
        ) {
            let mut stream = Vec::new();
            for body in &bodies {
                stream.push(b'd');
                stream.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
                stream.extend_from_slice(body);
            }
            let (mut buffer, mut found) = (Vec::new(), Vec::new());
            for piece in stream.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(head) = client_header(&buffer).unwrap() {
                    if buffer.len() < head.total { break; }
                    found.push(buffer[HEADER..head.total].to_vec());
                    buffer.drain(..head.total);
                }
            }
            prop_assert!(buffer.is_empty());
            prop_assert_eq!(found, bodies);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            let _ = header(&bytes);
            let _ = client_header(&bytes);
        }
    }
}
