//! Who may enter, and with what a session proves itself to a node afterwards.
//!
//! Nothing in here touches a socket: the conversation with a client is `session/login.rs`, the one with a node is
//! `pool/connect.rs`, and both ask this module what to say next. Secrets live in [`Secret`] and [`Key`], which are wiped
//! when dropped, compared in constant time and print nothing of themselves.

pub mod md5;
pub mod rules;
pub mod scram;
pub mod users;
pub mod verifier;

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub use self::md5::Md5Hash;
pub use self::rules::{Method, Rules};
pub use self::users::Users;
pub use self::verifier::{MockSecret, ScramVerifier, StoredPassword};

/// A text that must not be seen: a password.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(Zeroizing::new(text.into()))
    }

    /// The text itself. Named so that its uses can be found.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

/// A SHA-256-sized key of SCRAM: ClientKey, StoredKey or ServerKey.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; 32]>);

impl Key {
    pub fn new(bytes: [u8; 32]) -> Self {
        Key(Zeroizing::new(bytes))
    }

    pub fn reveal(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<key>")
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Key {}

/// What a session has to show to a node when a server connection is opened for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Nothing is known (a `trust` or `cert` login without an entry in the users file): only a node that asks for nothing
    /// can be entered.
    None,
    /// Recovered from the client's own SCRAM exchange, or taken from it: enough to run SCRAM with every node that has
    /// the same verifier, and worthless for any other role or password.
    ScramKeys { client_key: Key, server_key: Key },
    /// The role's md5 verifier, which is all that md5 authentication needs.
    Md5(Md5Hash),
    /// A password from the users file.
    Password(Secret),
}

impl Credential {
    /// For messages: the kind, never the content.
    pub fn kind(&self) -> &'static str {
        match self {
            Credential::None => "none",
            Credential::ScramKeys { .. } => "scram keys",
            Credential::Md5(_) => "md5 verifier",
            Credential::Password(_) => "password",
        }
    }
}

/// Fills an array from the operating system's random numbers.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; N];
    // The one way this fails is a kernel without getrandom and without /dev/urandom; authentication is impossible there.
    SystemRandom::new().fill(&mut bytes).expect("the operating system gives no random numbers");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_prints_nothing_of_itself() {
        let shown = format!(
            "{:?} {:?} {:?}",
            Credential::Password(Secret::new("hunter2")),
            Credential::ScramKeys { client_key: Key::new([77; 32]), server_key: Key::new([77; 32]) },
            Credential::Md5(Md5Hash::of("hunter2", "bob")),
        );
        assert!(!shown.contains("hunter2") && !shown.contains("77"), "{shown}");
        assert!(!shown.contains(Md5Hash::of("hunter2", "bob").reveal()), "{shown}");
    }
}
