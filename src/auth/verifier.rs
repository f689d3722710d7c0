//! Verifiers: what PostgreSQL keeps instead of a password, and what we make up for roles that do not exist.
//!
//! A SCRAM verifier is `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` (base64), see "Database Roles and
//! passwords" in `pg_authid`. A role that does not exist is asked for its password all the same, with a salt that is the
//! same at each try, so that nobody can list the roles by watching salts change.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Key, Md5Hash, Secret, random};

/// PostgreSQL's own default (`SCRAM_SHA_256_DEFAULT_ITERATIONS`, and `scram_iterations` since 16).
pub const DEFAULT_ITERATIONS: u32 = 4096;
/// What a salt of PostgreSQL's own making has.
const SALT_LEN: usize = 16;

/// A password as it is stored, in `pg_authid` or in the users file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredPassword {
    Scram(ScramVerifier),
    Md5(Md5Hash),
    Plain(Secret),
}

impl StoredPassword {
    /// Never fails: like PostgreSQL's `get_password_type`, what is not well-formed as a verifier is a plain password.
    pub fn parse(text: &str) -> Self {
        if let Some(verifier) = ScramVerifier::parse(text) {
            StoredPassword::Scram(verifier)
        } else if let Some(hash) = Md5Hash::parse(text) {
            StoredPassword::Md5(hash)
        } else {
            StoredPassword::Plain(Secret::new(text))
        }
    }
}

/// What a server needs to run SCRAM-SHA-256 with one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramVerifier {
    pub iterations: u32,
    pub salt: Vec<u8>,
    pub stored_key: Key,
    pub server_key: Key,
}

impl ScramVerifier {
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (parameters, keys) = rest.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|count| *count > 0)?;
        Some(ScramVerifier {
            iterations,
            salt: BASE64.decode(salt).ok()?,
            stored_key: decode_key(stored_key)?,
            server_key: decode_key(server_key)?,
        })
    }

    pub fn from_password(password: &Secret, salt: &[u8], iterations: u32) -> Self {
        let (client_key, server_key) = derive_keys(password, salt, iterations);
        ScramVerifier { iterations, salt: salt.to_vec(), stored_key: stored_key_of(&client_key), server_key }
    }
}

/// Makes up verifiers for roles that do not exist: per role name always the same, and not to be told from a real one.
#[derive(Clone)]
pub struct MockSecret(Key);

impl MockSecret {
    /// A new secret; one per process, so that a role's made-up salt lives as long as the process.
    pub fn generate() -> Self {
        MockSecret(Key::new(random()))
    }

    /// The salt for this role: also used for plain passwords of the users file, which have none.
    pub fn salt(&self, role: &str) -> Vec<u8> {
        self.derive(b"salt", role)[..SALT_LEN].to_vec()
    }

    /// A verifier that no password fits (finding one means inverting SHA-256).
    pub fn verifier(&self, role: &str) -> ScramVerifier {
        ScramVerifier {
            iterations: DEFAULT_ITERATIONS,
            salt: self.salt(role),
            stored_key: Key::new(self.derive(b"stored", role)),
            server_key: Key::new(self.derive(b"server", role)),
        }
    }

    fn derive(&self, purpose: &[u8], role: &str) -> [u8; 32] {
        hmac_sha256(self.0.reveal(), &[purpose, b":", role.as_bytes()])
    }
}

impl std::fmt::Debug for MockSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<mock secret>")
    }
}

/// ClientKey and ServerKey of RFC 5802, section 3.
pub fn derive_keys(password: &Secret, salt: &[u8], iterations: u32) -> (Key, Key) {
    let prepared = prepare(password);
    let mut salted = Zeroizing::new([0u8; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(prepared.reveal().as_bytes(), salt, iterations, salted.as_mut_slice());
    let client_key = hmac_sha256(&*salted, &[b"Client Key"]);
    let server_key = hmac_sha256(&*salted, &[b"Server Key"]);
    (Key::new(client_key), Key::new(server_key))
}

pub fn stored_key_of(client_key: &Key) -> Key {
    Key::new(Sha256::digest(client_key.reveal()).into())
}

pub(super) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// SASLprep, or the password as it is when SASLprep refuses it: what PostgreSQL and libpq do (`pg_saslprep`).
fn prepare(password: &Secret) -> Secret {
    match stringprep::saslprep(password.reveal()) {
        Ok(prepared) if !prepared.is_empty() => Secret::new(prepared),
        _ => password.clone(),
    }
}

fn decode_key(text: &str) -> Option<Key> {
    let bytes = Zeroizing::new(BASE64.decode(text).ok()?);
    Some(Key::new(bytes.as_slice().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_as_postgresql_15_stores_it_fits_its_password() {
        // CREATE ROLE … PASSWORD 'pencil' on PostgreSQL 15, with the salt of RFC 7677.
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let made = ScramVerifier::from_password(&Secret::new("pencil"), &salt, 4096);
        let stored = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                      WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        assert_eq!(ScramVerifier::parse(stored), Some(made));
    }

    #[test]
    fn sasl_prep_maps_the_soft_hyphen_to_nothing_and_lets_what_it_refuses_pass() {
        let plain = ScramVerifier::from_password(&Secret::new("IX"), b"0123456789abcdef", 1);
        assert_eq!(ScramVerifier::from_password(&Secret::new("I\u{ad}X"), b"0123456789abcdef", 1), plain);
        let refused = ScramVerifier::from_password(&Secret::new("I\u{7}X"), b"0123456789abcdef", 1);
        assert_ne!(refused, plain);
    }

    #[test]
    fn what_is_no_verifier_is_a_plain_password() {
        let odd = [
            "secret",
            "SCRAM-SHA-256$4096:c2FsdA==$short:short",
            "SCRAM-SHA-256$0:c2FsdA==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            "md5short",
            "",
        ];
        for text in odd {
            assert_eq!(StoredPassword::parse(text), StoredPassword::Plain(Secret::new(text)), "{text}");
        }
    }

    #[test]
    fn an_unknown_role_gets_the_same_salt_at_each_try_and_another_than_its_neighbour() {
        let mock = MockSecret::generate();
        assert_eq!(mock.verifier("nobody"), mock.verifier("nobody"));
        assert_ne!(mock.salt("nobody"), mock.salt("nobody2"));
        assert_ne!(mock.salt("nobody"), MockSecret::generate().salt("nobody"));
        assert_eq!(mock.salt("nobody").len(), 16);
    }
}
