//! The first packet of a connection: what a client asks for before anybody knows who it is.
//!
//! Format: PostgreSQL manual, "Message Formats", StartupMessage; behaviour: `ProcessStartupPacket()`.

use crate::wire::fields;
use crate::wire::message::{self, Problem};

/// The newest protocol 3 we speak.
const NEWEST_MINOR: u16 = 2;
/// PostgreSQL's `NAMEDATALEN - 1`: longer names are cut, as they were when the role or database was created.
const NAME_LIMIT: usize = 63;

#[derive(Debug, PartialEq)]
pub(super) struct StartupPacket {
    pub(super) asked_minor: u16,
    /// What we will speak.
    pub(super) minor: u16,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) parameters: Vec<(Box<str>, Box<str>)>,
    pub(super) replication: Option<String>,
    /// `_pq_.*` parameters, none of which we know.
    pub(super) unknown_options: Vec<Box<str>>,
}

impl StartupPacket {
    pub(super) fn is_physical_replication(&self) -> bool {
        self.replication.as_deref().is_some_and(|kind| kind != "database")
    }

    pub(super) fn must_negotiate(&self) -> bool {
        self.asked_minor > NEWEST_MINOR || !self.unknown_options.is_empty()
    }

    /// NegotiateProtocolVersion: the newest version we have, and the options we do not.
    pub(super) fn negotiate(&self, out: &mut Vec<u8>) {
        let version = (3u32 << 16 | u32::from(self.minor)).to_be_bytes();
        let count = (self.unknown_options.len() as u32).to_be_bytes();
        let mut names = Vec::new();
        for name in &self.unknown_options {
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        message::raw(out, b'v', &[&version, &count, &names]);
    }
}

/// What kind of packet this is: a protocol version, or a number that cannot be one.
pub(super) fn code(packet: &[u8]) -> u32 {
    // A packet has at least these four bytes.
    packet.first_chunk::<4>().map_or(0, |code| u32::from_be_bytes(*code))
}

/// A StartupMessage without its length word.
pub(super) fn parse(packet: &[u8]) -> Result<StartupPacket, Problem> {
    let version = code(packet);
    let (major, asked_minor) = ((version >> 16) as u16, version as u16);
    if major != 3 {
        let text =
            format!("unsupported frontend protocol {major}.{asked_minor}: server supports 3.0 to 3.{NEWEST_MINOR}");
        return Err(Problem::new("0A000", text));
    }
    let layout = || Problem::new("08P01", "invalid startup packet layout: expected terminator as last byte");
    let mut rest = packet.get(4..).unwrap_or_default();
    let mut startup = StartupPacket {
        asked_minor,
        minor: asked_minor.min(NEWEST_MINOR),
        user: String::new(),
        database: String::new(),
        parameters: Vec::new(),
        replication: None,
        unknown_options: Vec::new(),
    };
    loop {
        let (name, after) = fields::cstr(rest).ok_or_else(layout)?;
        if name.is_empty() {
            if !after.is_empty() {
                return Err(layout());
            }
            break;
        }
        let (value, after) = fields::cstr(after).ok_or_else(layout)?;
        rest = after;
        let (name, value) = (text(name)?, text(value)?);
        match name {
            "user" => startup.user = cut(value).to_owned(),
            "database" => startup.database = cut(value).to_owned(),
            "replication" => startup.replication = replication(value)?,
            _ if name.starts_with("_pq_.") => startup.unknown_options.push(name.into()),
            _ => startup.parameters.push((name.into(), value.into())),
        }
    }
    if startup.user.is_empty() {
        return Err(Problem::new("28000", "no PostgreSQL user name specified in startup packet"));
    }
    if startup.database.is_empty() {
        startup.database = startup.user.clone();
    }
    Ok(startup)
}

fn text(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes)
        .map_err(|_| Problem::new("22021", "invalid byte sequence for encoding \"UTF8\" in the startup packet"))
}

/// Cuts a name at [`NAME_LIMIT`] bytes, between characters.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(NAME_LIMIT);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// PostgreSQL reads `replication` as `database` or a boolean.
fn replication(value: &str) -> Result<Option<String>, Problem> {
    let lower = value.to_ascii_lowercase();
    let is_prefix = |word: &str, least: usize| lower.len() >= least && word.starts_with(&*lower);
    if value == "database" {
        Ok(Some(lower))
    } else if lower == "1" || is_prefix("true", 1) || is_prefix("yes", 1) || lower == "on" {
        Ok(Some("true".into()))
    } else if lower == "0" || is_prefix("false", 1) || is_prefix("no", 1) || is_prefix("off", 2) {
        Ok(None)
    } else {
        let problem = Problem::new("22023", format!("invalid value for parameter \"replication\": \"{value}\""));
        Err(problem.hint("Valid values are: \"false\", 0, \"true\", 1, \"database\"."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(version: u32, parameters: &[&str]) -> Vec<u8> {
        let mut bytes = version.to_be_bytes().to_vec();
        for text in parameters {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
        bytes.push(0);
        bytes
    }

    #[test]
    fn parameters_keep_their_order_and_ours_are_taken_out() {
        let bytes = packet(
            3 << 16 | 7,
            &["options", "-c a=b", "user", "bob", "_pq_.x", "1", "client_encoding", "UTF8", "replication", "database"],
        );
        let startup = parse(&bytes).unwrap();
        assert_eq!(
            startup,
            StartupPacket {
                asked_minor: 7,
                minor: 2,
                user: "bob".into(),
                database: "bob".into(),
                parameters: vec![("options".into(), "-c a=b".into()), ("client_encoding".into(), "UTF8".into())],
                replication: Some("database".into()),
                unknown_options: vec!["_pq_.x".into()],
            }
        );
        assert!(!startup.is_physical_replication() && startup.must_negotiate());
        let mut out = Vec::new();
        startup.negotiate(&mut out);
        assert_eq!(out, b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0");
    }

    #[test]
    fn replication_is_read_as_postgresql_reads_it() {
        for (value, expected) in [
            ("database", Some("database")),
            ("1", Some("true")),
            ("on", Some("true")),
            ("T", Some("true")),
            ("yes", Some("true")),
            ("0", None),
            ("of", None),
            ("N", None),
            ("false", None),
        ] {
            let startup = parse(&packet(3 << 16, &["user", "bob", "replication", value])).unwrap();
            assert_eq!(startup.replication.as_deref(), expected, "{value}");
        }
        for value in ["", "o", "2", "Database", "truely"] {
            assert_eq!(
                parse(&packet(3 << 16, &["user", "bob", "replication", value])).unwrap_err().code,
                "22023",
                "{value}"
            );
        }
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(cut(&"a".repeat(64)).len(), 63);
        assert_eq!(cut(&"\u{20ac}".repeat(30)).len(), 63);
        assert_eq!(cut(&"\u{e9}".repeat(40)).len(), 62);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
            let _ = parse(&[&[0, 3, 0, 0], &*bytes].concat());
        }
    }
}
