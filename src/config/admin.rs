//! `[admin]`: where operators and monitoring ask, and the token that stands between a network and what acts.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use super::Listen;
use super::document::Document;
use super::password;

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Admin {
    /// `None`: nobody is listened to. Never the directory of a Unix socket.
    #[serde(serialize_with = "empty_or_text")]
    pub listen: Option<Listen>,
    pub token: Token,
    /// Where it was read from, if it does not stand in the configuration itself.
    pub token_file: Option<PathBuf>,
}

/// A secret as written in the file. It is neither printed nor told by `SHOW CONFIG`: both say only that there is one.
#[derive(Clone, PartialEq, Default)]
pub struct Token(Zeroizing<String>);

impl Token {
    pub fn new(text: &str) -> Token {
        Token(Zeroizing::new(text.to_owned()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "***" })
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { "***" })
    }
}

fn empty_or_text<S: Serializer>(listen: &Option<Listen>, serializer: S) -> Result<S::Ok, S::Error> {
    match listen {
        Some(listen) => listen.serialize(serializer),
        None => serializer.serialize_str(""),
    }
}

impl Admin {
    /// Nobody but this machine reaches it.
    pub fn is_loopback(&self) -> bool {
        match &self.listen {
            Some(Listen::Tcp { host, .. }) => is_loopback(host),
            _ => true,
        }
    }

    pub(super) fn read(document: &Document<'_>) -> Admin {
        let section = document.section("admin");
        let (token, token_file) = password::secret(&section, "token", "token_file");
        let admin = Admin { listen: section.address("listen"), token, token_file };
        if let Some(Listen::Tcp { host, .. }) = &admin.listen
            && !is_loopback(host)
            && admin.token.is_empty()
            && admin.token_file.is_none()
        {
            section.refuse("token", format!("has to be given, as admin.listen (\"{host}\") is not a loopback address"));
        }
        admin
    }
}

/// What other names stand for is only known where they are looked up, and may change.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let token = Token::new("open sesame");
        assert_eq!(format!("{token:?}"), "***");
        let admin = Admin { listen: None, token, token_file: None };
        assert_eq!(toml::to_string(&admin).unwrap(), "listen = \"\"\ntoken = \"***\"\n");
    }

    #[test]
    fn only_the_machine_itself_is_loopback() {
        for (host, is) in [
            ("127.0.0.1", true),
            ("127.8.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("localhost", true),
            ("0.0.0.0", false),
            ("::", false),
            ("10.0.0.1", false),
            ("db1", false),
            ("127.0.0.1.example.com", false),
        ] {
            assert_eq!(is_loopback(host), is, "{host}");
        }
    }
}
