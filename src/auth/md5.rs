//! The md5 method, for roles whose verifier in `pg_authid` is still `md5…`.
//!
//! The verifier is `"md5" + hex(md5(password + role name))`. Client and server prove it to each other with a four-byte
//! salt, so whoever has the verifier can log in: it is as secret as the password, and is what we show to the node.

use std::fmt;

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use super::Secret;

/// `md5` and 32 lowercase hexadecimal digits, as `pg_authid.rolpassword` has them.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Hash(Secret);

impl Md5Hash {
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("md5")?;
        // PostgreSQL's get_password_type() asks for exactly lowercase digits; anything else is a plain password.
        let fits = digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| Md5Hash(Secret::new(text)))
    }

    pub fn of(password: &str, role: &str) -> Self {
        Md5Hash(Secret::new(tagged(&[password.as_bytes(), role.as_bytes()])))
    }

    /// What the client sends in answer to AuthenticationMD5Password with this salt.
    pub fn answer(&self, salt: [u8; 4]) -> String {
        tagged(&[&self.0.reveal().as_bytes()[3..], &salt])
    }

    pub fn accepts(&self, salt: [u8; 4], answer: &[u8]) -> bool {
        self.answer(salt).as_bytes().ct_eq(answer).into()
    }

    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<md5 verifier>")
    }
}

fn tagged(parts: &[&[u8]]) -> String {
    use std::fmt::Write;
    let mut hasher = Md5::new();
    for part in parts {
        hasher.update(part);
    }
    let mut text = String::with_capacity(35);
    text.push_str("md5");
    for byte in hasher.finalize() {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_is_the_one_postgresql_stores() {
        // SET password_encryption = md5; CREATE ROLE bob PASSWORD 'secret'; SELECT rolpassword FROM pg_authid …
        let hash = Md5Hash::of("secret", "bob");
        assert_eq!(Md5Hash::parse(hash.reveal()), Some(hash.clone()));
        assert!(hash.accepts([1, 2, 3, 4], hash.answer([1, 2, 3, 4]).as_bytes()));
        assert!(!hash.accepts([1, 2, 3, 5], hash.answer([1, 2, 3, 4]).as_bytes()));
        assert!(!hash.accepts([1, 2, 3, 4], b""));
    }

    #[test]
    fn a_password_that_only_begins_with_md5_is_no_verifier() {
        assert_eq!(Md5Hash::parse("md5"), None);
        assert_eq!(Md5Hash::parse(&format!("md5{}", "A".repeat(32))), None);
        assert_eq!(Md5Hash::parse(&format!("md5{}", "a".repeat(33))), None);
    }
}
