//! Reads the few fields of a message body that pgbaton acts on, each with its bounds checked.

use memchr::memchr;

/// A NUL-terminated string at the start of `body`, and what follows it. `None` if no NUL is there (yet).
#[inline]
pub fn cstr(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(0, body)?;
    Some((&body[..end], &body[end + 1..]))
}

/// Portal and statement name of a Bind, and the offset in `body` at which the rest begins.
#[inline]
pub fn bind_names(body: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let (portal, rest) = cstr(body)?;
    let (statement, rest) = cstr(rest)?;
    Some((portal, statement, body.len() - rest.len()))
}

/// Parameter values of a Bind: `body` from after the names. `None` if malformed. NULL is `None`.
pub fn bind_parameters(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (formats, rest) = count(body)?;
    let rest = rest.get(formats * 2..)?;
    let (parameters, mut rest) = count(rest)?;
    let mut values = Vec::with_capacity(parameters.min(64));
    for _ in 0..parameters {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        if length < 0 {
            values.push(None);
            rest = after;
        } else {
            values.push(Some(after.get(..length as usize)?));
            rest = &after[length as usize..];
        }
    }
    Some(values)
}

fn count(body: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = body.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*number) as usize, rest))
}

/// One field of an ErrorResponse or NoticeResponse (`S` severity, `V` severity untranslated, `C` SQLSTATE, `M` message,
/// `R` routine, …).
pub fn error_field(mut body: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        let (tag, rest) = body.split_first()?;
        if *tag == 0 {
            return None;
        }
        let (value, rest) = cstr(rest)?;
        if *tag == wanted {
            return Some(value);
        }
        body = rest;
    }
}

/// Name and value of a ParameterStatus.
pub fn parameter_status(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = cstr(body)?;
    let (value, _) = cstr(rest)?;
    Some((name, value))
}

/// The command tag of a CommandComplete.
pub fn command_tag(body: &[u8]) -> &[u8] {
    body.strip_suffix(b"\0").unwrap_or(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bind_fields_are_read_in_order() {
        let mut body = b"p\0s\0".to_vec();
        body.extend_from_slice(&[0, 1, 0, 0]); // one format: text
        body.extend_from_slice(&[0, 2, 0, 0, 0, 1, b'x', 0xff, 0xff, 0xff, 0xff]); // 'x', NULL
        body.extend_from_slice(&[0, 0]);
        let (portal, statement, at) = bind_names(&body).unwrap();
        assert_eq!((portal, statement, at), (&b"p"[..], &b"s"[..], 4));
        assert_eq!(bind_parameters(&body[at..]).unwrap(), vec![Some(&b"x"[..]), None]);
    }

    #[test]
    fn error_fields_are_found_by_tag() {
        let body = b"SERROR\0C26000\0Mno\0\0";
        assert_eq!(error_field(body, b'C'), Some(&b"26000"[..]));
        assert_eq!(error_field(body, b'H'), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = bind_names(&bytes);
            let _ = bind_parameters(&bytes);
            let _ = error_field(&bytes, b'C');
            let _ = parameter_status(&bytes);
        }
    }
}
