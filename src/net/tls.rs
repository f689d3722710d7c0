//! TLS towards clients ([`ServerTls`]) and towards nodes ([`NodeTls`]), with rustls and ring.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::ALPN;
use super::stream::{Carrier, Stream};

/// Whether clients may, must or cannot use TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientTlsMode {
    Disable,
    #[default]
    Allow,
    Require,
}

/// libpq's `sslmode` towards nodes, without `allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeTlsMode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl NodeTlsMode {
    pub fn as_str(self) -> &'static str {
        match self {
            NodeTlsMode::Disable => "disable",
            NodeTlsMode::Prefer => "prefer",
            NodeTlsMode::Require => "require",
            NodeTlsMode::VerifyCa => "verify-ca",
            NodeTlsMode::VerifyFull => "verify-full",
        }
    }
}

/// A mistake in the settings or files of TLS, for the person who starts the program.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    #[error("cannot read {what} {}: {source}", path.display())]
    Read { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{what} {} is not in PEM format: {problem}", path.display())]
    Pem { what: &'static str, path: PathBuf, problem: String },
    #[error("{what} {} holds no {wanted}", path.display())]
    Empty { what: &'static str, path: PathBuf, wanted: &'static str },
    #[error("the private key {} does not belong to the certificate {}", key.display(), cert.display())]
    WrongKey { cert: PathBuf, key: PathBuf },
    #[error("proxy.tls.cert and proxy.tls.key have to be given together")]
    HalfGiven,
    #[error("proxy.tls.mode is \"require\", and there is no certificate: set proxy.tls.cert and proxy.tls.key")]
    NoCertificate,
    #[error("the system has no trusted certificate authorities; give them in cluster.tls.ca")]
    NoSystemRoots,
    #[error("cannot use the TLS settings: {0}")]
    Other(String),
}

/// TLS towards clients.
pub struct ServerTls {
    mode: ClientTlsMode,
    acceptor: Option<TlsAcceptor>,
    end_point: Option<Vec<u8>>,
}

impl ServerTls {
    pub fn disabled() -> Self {
        ServerTls { mode: ClientTlsMode::Disable, acceptor: None, end_point: None }
    }

    /// Without a certificate and with mode `allow`, TLS is refused politely. With `client_ca`, clients may show a
    /// certificate, and one that is shown must be signed by that authority.
    pub fn new(
        mode: ClientTlsMode,
        cert: Option<&Path>,
        key: Option<&Path>,
        client_ca: Option<&Path>,
    ) -> Result<Self, TlsConfigError> {
        let (cert, key) = match (cert, key) {
            _ if mode == ClientTlsMode::Disable => return Ok(Self::disabled()),
            (Some(cert), Some(key)) => (cert, key),
            (None, None) if mode == ClientTlsMode::Require => return Err(TlsConfigError::NoCertificate),
            (None, None) => return Ok(ServerTls { mode, acceptor: None, end_point: None }),
            _ => return Err(TlsConfigError::HalfGiven),
        };
        let chain = certificates("the certificate", cert)?;
        let end_point = tls_server_end_point(&chain[0]);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsConfigError::Other(error.to_string()))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = roots("proxy.tls.client_ca", path)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| TlsConfigError::Other(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key_der = private_key(key)?;
        let mut config = builder.with_single_cert(chain, key_der).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsConfigError::WrongKey { cert: cert.into(), key: key.into() },
            other => TlsConfigError::Other(other.to_string()),
        })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // As PostgreSQL does: libpq cannot resume a session, so tickets would be bytes and state for nothing.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(ServerTls { mode, acceptor: Some(TlsAcceptor::from(Arc::new(config))), end_point })
    }

    pub fn mode(&self) -> ClientTlsMode {
        self.mode
    }

    /// Whether SSLRequest is answered with yes.
    pub fn is_offered(&self) -> bool {
        self.acceptor.is_some()
    }

    /// Hash of our certificate for channel binding (RFC 5929); `None` where its signature has no hash to use (Ed25519).
    pub fn end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }

    /// Runs the handshake. `head` is what was already read of it.
    pub async fn accept(&self, plain: Stream, head: Vec<u8>) -> io::Result<Stream> {
        let Some(acceptor) = &self.acceptor else {
            return Err(io::Error::other("TLS is not configured"));
        };
        let tls = acceptor.accept(Carrier::new(head, plain)).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Server(tls))))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("mode", &self.mode).field("offered", &self.is_offered()).finish()
    }
}

/// TLS towards nodes.
pub struct NodeTls {
    mode: NodeTlsMode,
    connector: Option<TlsConnector>,
}

impl NodeTls {
    pub fn disabled() -> Self {
        NodeTls { mode: NodeTlsMode::Disable, connector: None }
    }

    /// `verify-ca` and `verify-full` trust `ca`, or else the system's authorities. `require` with `ca` verifies as
    /// `verify-ca`, which is libpq's rule.
    pub fn new(mode: NodeTlsMode, ca: Option<&Path>) -> Result<Self, TlsConfigError> {
        let wanted = |ca: Option<&Path>| match ca {
            Some(path) => roots("cluster.tls.ca", path),
            None => system_roots(),
        };
        let verifier: Arc<dyn ServerCertVerifier> = match (mode, ca) {
            (NodeTlsMode::Disable, _) => return Ok(Self::disabled()),
            (NodeTlsMode::Prefer, _) | (NodeTlsMode::Require, None) => {
                Arc::new(Lenient { provider: provider(), roots: None })
            }
            (NodeTlsMode::Require | NodeTlsMode::VerifyCa, ca) => {
                Arc::new(Lenient { provider: provider(), roots: Some(wanted(ca)?) })
            }
            (NodeTlsMode::VerifyFull, ca) => {
                WebPkiServerVerifier::builder_with_provider(Arc::new(wanted(ca)?), provider())
                    .build()
                    .map_err(|error| TlsConfigError::Other(error.to_string()))?
            }
        };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsConfigError::Other(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(NodeTls { mode, connector: Some(TlsConnector::from(Arc::new(config))) })
    }

    pub fn mode(&self) -> NodeTlsMode {
        self.mode
    }

    pub(super) async fn handshake(&self, plain: Stream, host: &str) -> io::Result<Stream> {
        let Some(connector) = &self.connector else {
            return Err(io::Error::other("TLS is not configured"));
        };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let tls = connector.connect(name, Carrier::new(Vec::new(), plain)).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(tls))))
    }
}

impl fmt::Debug for NodeTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeTls").field("mode", &self.mode).finish()
    }
}

/// Verifies what the modes short of `verify-full` promise: the signatures of the handshake always, the chain where there
/// are roots, the host's name never.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    roots: Option<RootCertStore>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `tls-server-end-point` of RFC 5929: the certificate hashed with its signature's hash, SHA-256 in place of MD5 and SHA-1.
pub fn tls_server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let bytes = certificate.as_ref();
    match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        // With RSA: MD5, SHA-1, SHA-256; with ECDSA: SHA-1, SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Some(Sha256::digest(bytes).to_vec()),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Sha384::digest(bytes).to_vec()),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Sha512::digest(bytes).to_vec()),
        _ => None,
    }
}

/// The one common name in a certificate's subject. Several, or one with a NUL inside, are as good as none: PostgreSQL has
/// been deceived by both.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    (names.next().is_none() && !name.is_empty() && !name.contains('\0')).then(|| name.to_owned())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn pem_error(what: &'static str, wanted: &'static str, path: &Path, error: pem::Error) -> TlsConfigError {
    let path = path.into();
    match error {
        pem::Error::Io(source) => TlsConfigError::Read { what, path, source },
        pem::Error::NoItemsFound => TlsConfigError::Empty { what, path, wanted },
        other => TlsConfigError::Pem { what, path, problem: other.to_string() },
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let failed = |error| pem_error(what, "certificate", path, error);
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if chain.is_empty() { Err(failed(pem::Error::NoItemsFound)) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        pem_error("the private key", "private key that is not encrypted with a passphrase", path, error)
    })
}

fn roots(what: &'static str, path: &Path) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, path)? {
        let added = roots.add(certificate);
        added.map_err(|error| TlsConfigError::Pem { what, path: path.into(), problem: error.to_string() })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    // Some systems carry a certificate or two that cannot be parsed; the others are good.
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(TlsConfigError::NoSystemRoots) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Files { dir: tempfile::tempdir().unwrap() }
        }

        fn put(&self, name: &str, text: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    fn new(cert: &Path, key: &Path) -> Result<ServerTls, String> {
        ServerTls::new(ClientTlsMode::Allow, Some(cert), Some(key), None).map_err(|error| error.to_string())
    }

    #[test]
    fn mistakes_with_files_are_named() {
        let files = Files::new();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let cert = files.put("cert.pem", &made.cert.pem());
        let key = files.put("key.pem", &made.signing_key.serialize_pem());
        let wrong = files.put("wrong.pem", &other.serialize_pem());
        assert!(new(&cert, &key).is_ok());
        assert!(new(&cert, &wrong).unwrap_err().contains("wrong.pem does not belong to the certificate"));
        assert!(new(&key, &key).unwrap_err().ends_with("key.pem holds no certificate"));
        assert!(new(&cert, &cert).unwrap_err().contains("cert.pem holds no private key"));
        assert!(
            new(Path::new("/nonexistent"), &key).unwrap_err().starts_with("cannot read the certificate /nonexistent")
        );
        let none = ServerTls::new(ClientTlsMode::Require, None, None, None).unwrap_err().to_string();
        assert!(none.contains("set proxy.tls.cert"), "{none}");
        assert!(!ServerTls::new(ClientTlsMode::Allow, None, None, None).unwrap().is_offered());
    }

    #[test]
    fn the_end_point_hash_follows_the_certificates_signature() {
        let made = |algorithm| {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate =
                rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
            certificate.der().clone()
        };
        let sha256 = made(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(tls_server_end_point(&sha256), Some(Sha256::digest(&sha256).to_vec()));
        let sha384 = made(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(tls_server_end_point(&sha384), Some(Sha384::digest(&sha384).to_vec()));
        assert_eq!(tls_server_end_point(&made(&rcgen::PKCS_ED25519)), None);
        assert_eq!(tls_server_end_point(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
