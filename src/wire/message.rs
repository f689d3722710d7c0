//! The messages pgbaton says itself, appended to a buffer that is sent together with what passes through.
//!
//! Messages to a client that carry several fields are pgwire's types; the small fixed ones on the path of every query are
//! written out here, because they are a handful of bytes.

use bytes::BytesMut;
use pgwire::messages::Message;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};

/// What a client is told when a statement or its connection fails in pgbaton itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// SQLSTATE (PostgreSQL manual, appendix A).
    pub code: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Problem { code, message: message.into(), detail: None, hint: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The body of its ErrorResponse, for where one is said in another's place.
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        error(&mut out, self);
        out.split_off(super::frame::HEADER)
    }

    fn fields(&self, severity: &str) -> Vec<(u8, String)> {
        let mut fields = vec![
            (b'S', severity.to_owned()),
            (b'V', severity.to_owned()),
            (b'C', self.code.to_owned()),
            (b'M', self.message.clone()),
        ];
        fields.extend(self.detail.iter().map(|text| (b'D', text.clone())));
        fields.extend(self.hint.iter().map(|text| (b'H', text.clone())));
        fields
    }
}

/// Appends an ErrorResponse of severity ERROR: the statement failed, the connection goes on.
pub fn error(out: &mut Vec<u8>, problem: &Problem) {
    encode(out, &ErrorResponse::new(problem.fields("ERROR")));
}

/// Appends an ErrorResponse of severity FATAL: the connection is closed after it.
pub fn fatal(out: &mut Vec<u8>, problem: &Problem) {
    encode(out, &ErrorResponse::new(problem.fields("FATAL")));
}

pub fn warning(out: &mut Vec<u8>, problem: &Problem) {
    encode(out, &NoticeResponse::new(problem.fields("WARNING")));
}

/// Appends any message of pgwire's. What we build ourselves always fits its format.
pub fn encode(out: &mut Vec<u8>, message: &impl Message) {
    let mut buffer = BytesMut::new();
    if let Err(error) = message.encode(&mut buffer) {
        // Only a string with an inner NUL could get here, and ours have none; losing the message beats a panic.
        tracing::error!(%error, "could not encode a message of our own");
        return;
    }
    out.extend_from_slice(&buffer);
}

/// Appends a message made of `parts`, one after the other.
pub fn raw(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(length + 5);
    out.push(tag);
    out.extend_from_slice(&(length as u32 + 4).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

pub fn ready_for_query(out: &mut Vec<u8>, status: u8) {
    out.extend_from_slice(&[b'Z', 0, 0, 0, 5, status]);
}

pub fn sync(out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'S', 0, 0, 0, 4]);
}

pub fn terminate(out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'X', 0, 0, 0, 4]);
}

pub const PARSE_COMPLETE: [u8; 5] = [b'1', 0, 0, 0, 4];
pub const CLOSE_COMPLETE: [u8; 5] = [b'3', 0, 0, 0, 4];

pub fn query(out: &mut Vec<u8>, sql: &[u8]) {
    raw(out, b'Q', &[sql, b"\0"]);
}

/// RowDescription and DataRows of a table whose columns are all text (type 25).
pub fn text_table<const N: usize>(out: &mut Vec<u8>, columns: &[&str; N], rows: Vec<[String; N]>) {
    let count = (N as u16).to_be_bytes();
    let mut body = count.to_vec();
    for column in columns {
        body.extend_from_slice(column.as_bytes());
        // No table, type text of variable size, no modifier, text format.
        body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0]);
    }
    raw(out, b'T', &[&body]);
    for row in rows {
        let mut body = count.to_vec();
        for value in row {
            body.extend_from_slice(&(value.len() as u32).to_be_bytes());
            body.extend_from_slice(value.as_bytes());
        }
        raw(out, b'D', &[&body]);
    }
}

pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    raw(out, b'C', &[tag.as_bytes(), b"\0"]);
}

pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    raw(out, b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
}

pub fn backend_key_data(out: &mut Vec<u8>, pid: u32, key: &[u8]) {
    raw(out, b'K', &[&pid.to_be_bytes(), key]);
}

pub fn authentication_ok(out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'R', 0, 0, 0, 8, 0, 0, 0, 0]);
}

/// Close of a statement (`S`) or portal (`P`).
pub fn close(out: &mut Vec<u8>, what: u8, name: &[u8]) {
    raw(out, b'C', &[&[what], name, b"\0"]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fields;

    #[test]
    fn an_error_reads_back_field_by_field() {
        let mut out = Vec::new();
        error(&mut out, &Problem::new("57P03", "no primary").hint("wait"));
        assert_eq!(out[0], b'E');
        assert_eq!(u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize, out.len() - 1);
        assert_eq!(fields::error_field(&out[5..], b'C'), Some(&b"57P03"[..]));
        assert_eq!(fields::error_field(&out[5..], b'H'), Some(&b"wait"[..]));
    }

    #[test]
    fn raw_counts_its_own_length() {
        let mut out = Vec::new();
        raw(&mut out, b'C', &[b"S", b"name", b"\0"]);
        assert_eq!(out, b"C\0\0\0\x0aSname\0");
    }
}
