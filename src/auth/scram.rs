//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 7677, 5929), as PostgreSQL speaks it, from both ends.
//!
//! ```text
//! client ── client-first ──▶ ScramServer::start   ── server-first ──▶ ScramClient::respond
//!        ── client-final ──▶ ScramServer::finish  ── server-final ──▶ ScramProof::finish
//! ```
//! Each step consumes the state before it, so steps can neither be repeated nor skipped. The server's success carries the
//! client's key: `ClientKey = ClientProof XOR HMAC(StoredKey, AuthMessage)`, and with that key [`ScramClient`] logs in to
//! every node that keeps the same verifier, without anybody knowing the password.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::verifier::{ScramVerifier, derive_keys, hmac_sha256, stored_key_of};
use super::{Key, Secret, random};

pub const PLAIN: &str = "SCRAM-SHA-256";
pub const PLUS: &str = "SCRAM-SHA-256-PLUS";
const PLUS_HEADER: &str = "p=tls-server-end-point,,";

/// A node that asks for more would keep a core busy for seconds; PostgreSQL's default is 4096.
const MAX_ITERATIONS: u32 = 5_000_000;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The exchange was well-formed, and the password is wrong.
    #[error("the password does not fit")]
    WrongProof,
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    #[error("the client supports SCRAM channel binding but thinks the server does not, and this server does")]
    BindingNegotiation,
    #[error("SCRAM channel binding check failed")]
    BindingMismatch,
    /// Seen by the client side only: the node does not know the role's verifier, so it is not the node we believe it to be.
    #[error("the server could not prove that it knows the role's password verifier")]
    ServerNotGenuine,
    #[error("the server asks for {0} iterations, more than the {MAX_ITERATIONS} that are accepted")]
    TooManyIterations(u32),
}

/// What the server offers on this connection; decides how the client's gs2 header is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer<'a> {
    /// SCRAM-SHA-256 only: no TLS, or a certificate that has no tls-server-end-point hash.
    Plain,
    /// SCRAM-SHA-256-PLUS too, bound to the hash of our certificate.
    Plus(&'a [u8]),
}

/// The server's side, after the client's first message.
pub struct ScramServer {
    verifier: ScramVerifier,
    /// What `c=` of the client's final message has to be.
    binding: String,
    nonce: String,
    /// `client-first-bare,server-first,`: the part of AuthMessage that is known so far.
    transcript: String,
}

/// A client that proved itself.
pub struct Accepted {
    /// To be sent in AuthenticationSASLFinal.
    pub server_final: String,
    pub client_key: Key,
    pub server_key: Key,
}

impl ScramServer {
    /// Takes the client's choice of mechanism and its first message, and gives the server's first message.
    pub fn start(
        verifier: ScramVerifier,
        mechanism: &str,
        offer: Offer<'_>,
        client_first: &[u8],
    ) -> Result<(ScramServer, String), ScramError> {
        Self::start_with_nonce(verifier, mechanism, offer, client_first, &nonce())
    }

    fn start_with_nonce(
        verifier: ScramVerifier,
        mechanism: &str,
        offer: Offer<'_>,
        client_first: &[u8],
        server_nonce: &str,
    ) -> Result<(ScramServer, String), ScramError> {
        let text = std::str::from_utf8(client_first).map_err(|_| ScramError::Malformed("not UTF-8"))?;
        let (header, bare) = split_gs2(text)?;
        let binding = match (mechanism, offer, header) {
            (PLAIN, _, "n,,") => BASE64.encode(header),
            // "y" says: I could, but you did not offer it. If we did offer it, somebody took the offer away in between.
            (PLAIN, Offer::Plus(_), "y,,") => return Err(ScramError::BindingNegotiation),
            (PLAIN, Offer::Plain, "y,,") => BASE64.encode(header),
            (PLAIN, _, _) => return Err(ScramError::Malformed("channel binding data without SCRAM-SHA-256-PLUS")),
            (PLUS, Offer::Plus(hash), PLUS_HEADER) => BASE64.encode([PLUS_HEADER.as_bytes(), hash].concat()),
            (PLUS, Offer::Plus(_), "n,," | "y,,") => {
                return Err(ScramError::Malformed("SCRAM-SHA-256-PLUS without channel binding data"));
            }
            (PLUS, Offer::Plus(_), _) => return Err(ScramError::Malformed("unsupported channel binding type")),
            _ => return Err(ScramError::Malformed("client selected a SASL authentication mechanism not offered")),
        };

        let mut attributes = bare.split(',');
        let name = attributes.next().unwrap_or_default();
        if name.starts_with("m=") {
            return Err(ScramError::Malformed("the client requires an unsupported SCRAM extension"));
        }
        // The role is the one of the startup packet; libpq leaves this empty, others repeat it. PostgreSQL ignores it.
        if !name.starts_with("n=") {
            return Err(ScramError::Malformed("attribute \"n\" expected"));
        }
        let client_nonce = attributes.next().and_then(|part| part.strip_prefix("r="));
        let client_nonce = client_nonce.ok_or(ScramError::Malformed("attribute \"r\" expected"))?;
        if client_nonce.is_empty() || !client_nonce.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ScramError::Malformed("non-printable characters in SCRAM nonce"));
        }

        let nonce = format!("{client_nonce}{server_nonce}");
        let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        let transcript = format!("{bare},{server_first},");
        Ok((ScramServer { verifier, binding, nonce, transcript }, server_first))
    }

    pub fn finish(self, client_final: &[u8]) -> Result<Accepted, ScramError> {
        let text = std::str::from_utf8(client_final).map_err(|_| ScramError::Malformed("not UTF-8"))?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed("proof expected"))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|part| part.strip_prefix("c="));
        let binding = binding.ok_or(ScramError::Malformed("attribute \"c\" expected"))?;
        if binding != self.binding {
            return Err(ScramError::BindingMismatch);
        }
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r="));
        if nonce != Some(self.nonce.as_str()) {
            return Err(ScramError::Malformed("nonce does not match"));
        }
        let proof = decode_32(proof).ok_or(ScramError::Malformed("proof expected"))?;

        let message = [self.transcript.as_bytes(), without_proof.as_bytes()];
        let signature = Zeroizing::new(hmac_sha256(self.verifier.stored_key.reveal(), &message));
        let client_key = xor(&proof, &signature);
        if stored_key_of(&client_key) != self.verifier.stored_key {
            return Err(ScramError::WrongProof);
        }
        let server_signature = hmac_sha256(self.verifier.server_key.reveal(), &message);
        Ok(Accepted {
            server_final: format!("v={}", BASE64.encode(server_signature)),
            client_key,
            server_key: self.verifier.server_key,
        })
    }
}

/// What the client's side proves itself with.
pub enum ClientSecret {
    Keys { client_key: Key, server_key: Key },
    Password(Secret),
}

/// The client's side, before the server's first message.
pub struct ScramClient {
    secret: ClientSecret,
    nonce: String,
    binding: String,
}

/// The client's side, after its proof is sent: what the server has to answer.
pub struct ScramProof {
    expected: [u8; 32],
}

impl ScramClient {
    /// Gives the mechanism to name and the first message. `Offer::Plus` only when the node offered it *and* the hash of
    /// its certificate is known.
    pub fn start(secret: ClientSecret, offer: Offer<'_>) -> (ScramClient, &'static str, String) {
        Self::start_with_nonce(secret, offer, nonce())
    }

    fn start_with_nonce(secret: ClientSecret, offer: Offer<'_>, nonce: String) -> (ScramClient, &'static str, String) {
        // Not "y": that would claim support which depends on a hash that is not there for every certificate.
        let (mechanism, header, binding) = match offer {
            Offer::Plain => (PLAIN, "n,,", BASE64.encode("n,,")),
            Offer::Plus(hash) => (PLUS, PLUS_HEADER, BASE64.encode([PLUS_HEADER.as_bytes(), hash].concat())),
        };
        let first = format!("{header}{}", client_first_bare(&nonce));
        (ScramClient { secret, nonce, binding }, mechanism, first)
    }

    /// Takes the server's first message and gives the client's final one.
    pub fn respond(self, server_first: &[u8]) -> Result<(ScramProof, String), ScramError> {
        let text = std::str::from_utf8(server_first).map_err(|_| ScramError::Malformed("not UTF-8"))?;
        let mut attributes = text.split(',');
        let mut expect = |prefix: &str, otherwise: &'static str| {
            attributes.next().and_then(|part| part.strip_prefix(prefix)).ok_or(ScramError::Malformed(otherwise))
        };
        let nonce = expect("r=", "attribute \"r\" expected")?;
        let salt = expect("s=", "attribute \"s\" expected")?;
        let iterations = expect("i=", "attribute \"i\" expected")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Malformed("nonce does not match"));
        }
        let salt = BASE64.decode(salt).map_err(|_| ScramError::Malformed("salt is not base64"))?;
        let iterations: u32 = iterations.parse().map_err(|_| ScramError::Malformed("iteration count expected"))?;
        if iterations == 0 {
            return Err(ScramError::Malformed("iteration count expected"));
        }

        let (client_key, server_key) = match self.secret {
            // The keys were made with the salt of the role's verifier; a node with another verifier refuses the proof.
            ClientSecret::Keys { client_key, server_key } => (client_key, server_key),
            ClientSecret::Password(_) if iterations > MAX_ITERATIONS => {
                return Err(ScramError::TooManyIterations(iterations));
            }
            ClientSecret::Password(password) => derive_keys(&password, &salt, iterations),
        };
        let without_proof = format!("c={},r={nonce}", self.binding);
        let message = format!("{},{text},{without_proof}", client_first_bare(&self.nonce));
        let signature = Zeroizing::new(hmac_sha256(stored_key_of(&client_key).reveal(), &[message.as_bytes()]));
        let proof = xor(client_key.reveal(), &signature);
        let expected = hmac_sha256(server_key.reveal(), &[message.as_bytes()]);
        Ok((ScramProof { expected }, format!("{without_proof},p={}", BASE64.encode(proof.reveal()))))
    }
}

impl ScramProof {
    pub fn finish(self, server_final: &[u8]) -> Result<(), ScramError> {
        let text = std::str::from_utf8(server_final).map_err(|_| ScramError::Malformed("not UTF-8"))?;
        let signature = text.split(',').next().and_then(|part| part.strip_prefix("v="));
        let signature = signature.and_then(decode_32).ok_or(ScramError::ServerNotGenuine)?;
        let genuine: bool = signature.as_slice().ct_eq(&self.expected).into();
        if genuine { Ok(()) } else { Err(ScramError::ServerNotGenuine) }
    }
}

fn client_first_bare(nonce: &str) -> String {
    format!("n=,r={nonce}")
}

/// 18 bytes as PostgreSQL uses (`SCRAM_RAW_NONCE_LEN`), in base64, which is printable and has no comma.
fn nonce() -> String {
    BASE64.encode(random::<18>())
}

/// `gs2-header = gs2-cbind-flag "," [authzid] ","` and what follows. Like PostgreSQL, an authzid is refused.
fn split_gs2(text: &str) -> Result<(&str, &str), ScramError> {
    let malformed = ScramError::Malformed("gs2 header expected");
    let flag_end = text.find(',').ok_or(malformed.clone())?;
    if !matches!(text.as_bytes()[0], b'n' | b'y' | b'p') {
        return Err(ScramError::Malformed("unexpected channel-binding flag"));
    }
    match text.as_bytes().get(flag_end + 1) {
        Some(b',') => Ok(text.split_at(flag_end + 2)),
        Some(b'a') => Err(ScramError::Malformed("the client uses authorization identity, but it is not supported")),
        _ => Err(malformed),
    }
}

fn decode_32(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(BASE64.decode(text).ok()?);
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

fn xor(left: &[u8; 32], right: &[u8; 32]) -> Key {
    let mut bytes = *left;
    for (byte, other) in bytes.iter_mut().zip(right) {
        *byte ^= other;
    }
    Key::new(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC_SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    const RFC_SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const RFC_CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const RFC_CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn rfc_verifier() -> ScramVerifier {
        ScramVerifier::from_password(&Secret::new("pencil"), &BASE64.decode(RFC_SALT).unwrap(), 4096)
    }

    fn start(mechanism: &str, offer: Offer<'_>, first: &str) -> Result<(ScramServer, String), ScramError> {
        ScramServer::start_with_nonce(rfc_verifier(), mechanism, offer, first.as_bytes(), RFC_SERVER_NONCE)
    }

    #[test]
    fn the_exchange_of_rfc_7677_is_accepted_and_gives_the_client_key() {
        let (server, first) = start(PLAIN, Offer::Plain, RFC_CLIENT_FIRST).unwrap();
        assert_eq!(first, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let accepted = server.finish(RFC_CLIENT_FINAL.as_bytes()).unwrap();
        assert_eq!(accepted.server_final, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(stored_key_of(&accepted.client_key), rfc_verifier().stored_key);
    }

    #[test]
    fn a_changed_proof_is_a_wrong_password_and_nothing_else() {
        let (server, _) = start(PLAIN, Offer::Plain, RFC_CLIENT_FIRST).unwrap();
        let changed = RFC_CLIENT_FINAL.replace("p=dH", "p=dI");
        assert_eq!(server.finish(changed.as_bytes()).err(), Some(ScramError::WrongProof));
    }

    fn talk(secret: ClientSecret, client: Offer<'_>, server: Offer<'_>) -> Result<Accepted, ScramError> {
        let (client, mechanism, first) = ScramClient::start(secret, client);
        let (server, server_first) = ScramServer::start(rfc_verifier(), mechanism, server, first.as_bytes())?;
        let (proof, client_final) = client.respond(server_first.as_bytes())?;
        let accepted = server.finish(client_final.as_bytes())?;
        proof.finish(accepted.server_final.as_bytes())?;
        Ok(accepted)
    }

    #[test]
    fn the_recovered_key_logs_in_again_without_the_password() {
        let first = talk(ClientSecret::Password(Secret::new("pencil")), Offer::Plain, Offer::Plain).unwrap();
        let keys = ClientSecret::Keys { client_key: first.client_key, server_key: first.server_key };
        talk(keys, Offer::Plus(b"certificate"), Offer::Plus(b"certificate")).unwrap();
    }

    #[test]
    fn a_wrong_password_is_refused() {
        let refused = talk(ClientSecret::Password(Secret::new("pencils")), Offer::Plain, Offer::Plain);
        assert_eq!(refused.err(), Some(ScramError::WrongProof));
    }

    #[test]
    fn a_certificate_put_in_between_is_noticed() {
        let pencil = ClientSecret::Password(Secret::new("pencil"));
        let refused = talk(pencil, Offer::Plus(b"somebody else's"), Offer::Plus(b"ours"));
        assert_eq!(refused.err(), Some(ScramError::BindingMismatch));
    }

    #[test]
    fn an_offer_that_was_taken_away_in_between_is_noticed() {
        let first = "y,,n=,r=abc";
        assert_eq!(start(PLAIN, Offer::Plus(b"hash"), first).err(), Some(ScramError::BindingNegotiation));
        assert!(start(PLAIN, Offer::Plain, first).is_ok());
    }

    #[test]
    fn a_mechanism_that_was_not_offered_is_refused() {
        for (mechanism, offer, first) in [
            (PLUS, Offer::Plain, "p=tls-server-end-point,,n=,r=abc"),
            (PLUS, Offer::Plus(b"hash"), "n,,n=,r=abc"),
            (PLUS, Offer::Plus(b"hash"), "p=tls-unique,,n=,r=abc"),
            (PLAIN, Offer::Plus(b"hash"), "p=tls-server-end-point,,n=,r=abc"),
            ("PLAIN", Offer::Plain, "n,,n=,r=abc"),
        ] {
            assert!(
                matches!(start(mechanism, offer, first).err(), Some(ScramError::Malformed(_))),
                "{mechanism} {first}"
            );
        }
    }

    #[test]
    fn malformed_first_messages_are_refused() {
        for first in
            ["", ",", "n", "n,", "n,a=bob,n=,r=abc", "x,,n=,r=abc", "n,,m=x,n=,r=abc", "n,,n=", "n,,n=,r=", "n,,r=abc"]
        {
            assert!(matches!(start(PLAIN, Offer::Plain, first).err(), Some(ScramError::Malformed(_))), "{first}");
        }
        let bytes = ScramServer::start(rfc_verifier(), PLAIN, Offer::Plain, b"n,,n=\xff,r=abc");
        assert!(matches!(bytes.err(), Some(ScramError::Malformed(_))));
    }

    #[test]
    fn malformed_final_messages_are_refused() {
        for last in [
            "",
            "c=biws",
            "c=biws,p=",
            "c=biws,r=other,p=AAAA",
            "r=x,p=AAAA",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=AAAA",
        ] {
            let (server, _) = start(PLAIN, Offer::Plain, RFC_CLIENT_FIRST).unwrap();
            assert!(matches!(server.finish(last.as_bytes()).err(), Some(ScramError::Malformed(_))), "{last}");
        }
    }

    #[test]
    fn a_node_that_does_not_know_the_verifier_is_not_believed() {
        let (client, _, first) = ScramClient::start(ClientSecret::Password(Secret::new("pencil")), Offer::Plain);
        let (_, server_first) = ScramServer::start(rfc_verifier(), PLAIN, Offer::Plain, first.as_bytes()).unwrap();
        let (proof, _) = client.respond(server_first.as_bytes()).unwrap();
        let invented = format!("v={}", BASE64.encode([0; 32]));
        assert_eq!(proof.finish(invented.as_bytes()), Err(ScramError::ServerNotGenuine));

        for server_first in ["", "r=abc,s=,i=1", "e=other-error"] {
            let (client, _, _) = ScramClient::start(ClientSecret::Password(Secret::new("x")), Offer::Plain);
            assert!(client.respond(server_first.as_bytes()).is_err(), "{server_first}");
        }
    }

    #[test]
    fn a_node_cannot_keep_us_busy_with_iterations() {
        let (client, _, _) =
            ScramClient::start_with_nonce(ClientSecret::Password(Secret::new("x")), Offer::Plain, "abc".into());
        let refused = client.respond(b"r=abcdef,s=AAAA,i=4294967295");
        assert_eq!(refused.err(), Some(ScramError::TooManyIterations(u32::MAX)));
    }
}
