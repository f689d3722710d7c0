//! From a client's first byte to the moment it may be told that it is in: TLS, the startup packet, the rules, the password.
//!
//! A linear conversation. Everything in it comes from somebody who has not proved anything: messages are short, nothing is
//! reserved for a length that is only claimed, all of it ends within the login timeout, and a client that is refused learns
//! no more than PostgreSQL would tell it. That includes *when* it is refused: see [`FAILURE_DELAY`].

mod password;
mod startup;

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use self::startup::{StartupPacket, code};
use crate::auth::rules::Visitor;
use crate::auth::{Credential, Method, MockSecret, Rules, StoredPassword, Users};
pub use crate::net::Peer;
use crate::net::{ALPN, ClientTlsMode, Inbox, ReadError, ServerTls, Stream, tls};
use crate::node::Control;
use crate::wire::message::{self, Problem};

pub const DEFAULT_LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// A refused password is answered this long after it arrived, whether the role exists, has no password, has one that
/// expired, or was just mistyped; all of these take well under a millisecond to find out. Counted from the client's last
/// message, so that a client cannot shift its answer to where a difference would show.
pub const FAILURE_DELAY: Duration = Duration::from_millis(200);

/// PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`, in bytes.
const STARTUP_LIMIT: usize = 10_000;
/// A client that does not read its refusal is not waited for.
const FAREWELL: Duration = Duration::from_secs(2);

const CANCEL_REQUEST: u32 = 1234 << 16 | 5678;
const SSL_REQUEST: u32 = 1234 << 16 | 5679;
const GSSENC_REQUEST: u32 = 1234 << 16 | 5680;
/// Longest cancel key of protocol 3.2, in bytes.
const CANCEL_KEY_LIMIT: usize = 256;
/// First byte of a TLS ClientHello, which no startup packet within the limit begins with.
const TLS_HANDSHAKE: u8 = 0x16;

/// Where verifiers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Source {
    /// From the users file if the role is in it, else from the primary.
    #[default]
    Passthrough,
    /// From the users file only.
    File,
}

/// Everything a login has to know; built from the configuration, and built anew when that is reloaded.
pub struct LoginContext {
    pub tls: ServerTls,
    pub rules: Rules,
    pub source: Source,
    pub users: Users,
    /// Asks the primary for verifiers; `None` only where `source` is `File`.
    pub roles: Option<Control>,
    /// To be kept over reloads.
    pub mock: MockSecret,
    pub login_timeout: Duration,
}

/// A client that may be told AuthenticationOk as soon as there is something to serve it with.
#[derive(Debug)]
pub struct Client {
    pub stream: Stream,
    /// Bytes that came behind its last message.
    pub unread: Vec<u8>,
    /// To be sent before AuthenticationOk.
    pub pending: Vec<u8>,
    pub user: String,
    pub database: String,
    /// Its startup parameters in their order, without `user`, `database`, `replication` and `_pq_.*`.
    pub startup: Vec<(Box<str>, Box<str>)>,
    /// 0 or 2: of protocol 3.
    pub protocol_minor: u16,
    pub credential: Credential,
    pub tls: bool,
    pub peer: Peer,
    /// The value of `replication`, if that asks for a walsender.
    pub replication: Option<String>,
}

#[derive(Debug)]
pub enum Admitted {
    /// `stream` is to be closed when the cancel has arrived, which is how its sender knows.
    Cancel {
        pid: u32,
        secret: Vec<u8>,
        stream: Stream,
    },
    Client(Box<Client>),
}

/// Why a connection did not become a session. The client has been told already, as far as it is to know.
#[derive(Debug, thiserror::Error)]
pub enum LoginFailure {
    #[error("closed by the client")]
    Gone,
    #[error("not done within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    #[error("no TLS: {0}")]
    Tls(String),
    /// `reason` is for the log, and says more than the client was told.
    #[error("refused ({code}): {reason}")]
    Refused { code: &'static str, reason: String },
}

/// A refusal on its way to the client.
struct Refusal {
    problem: Problem,
    reason: Option<String>,
}

enum Failure {
    Refuse(Box<Refusal>),
    Leave(LoginFailure),
}

type Step<T> = Result<T, Failure>;

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Failure::Refuse(Box::new(Refusal { problem, reason: None }))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        Failure::Leave(match error.kind() {
            BrokenPipe | ConnectionReset | UnexpectedEof => LoginFailure::Gone,
            _ => LoginFailure::Io(error),
        })
    }
}

fn refuse<T>(code: &'static str, message: impl Into<String>) -> Step<T> {
    Err(Problem::new(code, message).into())
}

/// Logs a client in. It is not told AuthenticationOk yet: that can wait until there is a server to serve it.
pub async fn admit(stream: Stream, peer: Peer, context: &LoginContext) -> Result<Admitted, LoginFailure> {
    let mut login = Login { stream, peer, context, inbox: Inbox::default(), pending: Vec::new() };
    let failure = match timeout(context.login_timeout, login.run()).await {
        Ok(Ok(admitted)) => return Ok(admitted),
        Ok(Err(failure)) => failure,
        Err(_) => {
            let problem = Problem::new("57014", "canceling authentication due to timeout");
            login.farewell(&problem).await;
            return Err(LoginFailure::Timeout(context.login_timeout));
        }
    };
    match failure {
        Failure::Leave(failure) => Err(failure),
        Failure::Refuse(refusal) => {
            login.farewell(&refusal.problem).await;
            let reason = refusal.reason.unwrap_or(refusal.problem.message);
            Err(LoginFailure::Refused { code: refusal.problem.code, reason })
        }
    }
}

struct Login<'a> {
    /// `Closed` while a TLS handshake has it, so a timeout in there ends in silence.
    stream: Stream,
    peer: Peer,
    context: &'a LoginContext,
    inbox: Inbox,
    /// Messages not worth a write of their own.
    pending: Vec<u8>,
}

impl Login<'_> {
    async fn run(&mut self) -> Step<Admitted> {
        let startup = match self.open().await? {
            Opening::Cancel { pid, secret } => {
                let stream = std::mem::replace(&mut self.stream, Stream::Closed);
                return Ok(Admitted::Cancel { pid, secret, stream });
            }
            Opening::Startup(startup) => startup,
        };
        let credential = self.authenticate(&startup).await?;
        Ok(Admitted::Client(Box::new(Client {
            tls: self.stream.is_tls(),
            stream: std::mem::replace(&mut self.stream, Stream::Closed),
            unread: self.inbox.take(),
            pending: std::mem::take(&mut self.pending),
            user: startup.user,
            database: startup.database,
            startup: startup.parameters,
            protocol_minor: startup.minor,
            credential,
            peer: self.peer,
            replication: startup.replication,
        })))
    }

    async fn farewell(&mut self, problem: &Problem) {
        // What is pending belongs before AuthenticationOk, which will not come, but a client that is refused for what it
        // negotiated should know what was negotiated.
        let mut out = std::mem::take(&mut self.pending);
        message::fatal(&mut out, problem);
        let farewell = async {
            self.stream.write_all(&out).await?;
            self.stream.shutdown().await
        };
        let _ = timeout(FAREWELL, farewell).await;
    }

    // --- before the startup packet ---

    async fn open(&mut self) -> Step<Opening> {
        if self.peek().await? == TLS_HANDSHAKE {
            return self.direct_tls().await;
        }
        let (mut may_tls, mut may_gss) = (true, true);
        loop {
            let packet = self.packet().await?;
            match code(&packet) {
                SSL_REQUEST if may_tls => {
                    may_tls = false;
                    self.nothing_behind("SSL request")?;
                    // As in PostgreSQL, no TLS over Unix sockets.
                    if self.context.tls.is_offered() && !self.stream.is_unix() {
                        self.stream.write_all(b"S").await?;
                        self.handshake(Vec::new()).await?;
                        may_gss = false;
                    } else {
                        self.stream.write_all(b"N").await?;
                    }
                }
                GSSENC_REQUEST if may_gss => {
                    may_gss = false;
                    self.nothing_behind("GSSAPI encryption request")?;
                    self.stream.write_all(b"N").await?;
                }
                _ => return self.last_packet(&packet),
            }
        }
    }

    /// PostgreSQL 17's way: TLS from the first byte, and ALPN to show that the client means PostgreSQL.
    async fn direct_tls(&mut self) -> Step<Opening> {
        if !self.context.tls.is_offered() || self.stream.is_unix() {
            return Err(Failure::Leave(LoginFailure::Tls("direct TLS, and TLS is not offered".into())));
        }
        let head = self.inbox.take();
        self.handshake(head).await?;
        if self.stream.alpn_protocol() != Some(ALPN) {
            // PostgreSQL closes without a word too: whoever is there need not speak its protocol.
            return Err(Failure::Leave(LoginFailure::Tls("direct TLS without ALPN \"postgresql\"".into())));
        }
        let packet = self.packet().await?;
        self.last_packet(&packet)
    }

    async fn handshake(&mut self, head: Vec<u8>) -> Step<()> {
        let plain = std::mem::replace(&mut self.stream, Stream::Closed);
        match self.context.tls.accept(plain, head).await {
            Ok(stream) => {
                self.stream = stream;
                Ok(())
            }
            Err(error) => Err(Failure::Leave(LoginFailure::Tls(error.to_string()))),
        }
    }

    /// What comes with the request was not sent by somebody inside TLS, and must not be taken for it (CVE-2021-23214).
    fn nothing_behind(&self, request: &str) -> Step<()> {
        if self.inbox.is_empty() {
            return Ok(());
        }
        let problem = Problem::new("08P01", format!("received unencrypted data after {request}"));
        Err(problem
            .detail("This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.")
            .into())
    }

    fn last_packet(&self, packet: &[u8]) -> Step<Opening> {
        if code(packet) == CANCEL_REQUEST {
            return match packet[4..].split_first_chunk::<4>() {
                Some((pid, secret)) if (1..=CANCEL_KEY_LIMIT).contains(&secret.len()) => {
                    Ok(Opening::Cancel { pid: u32::from_be_bytes(*pid), secret: secret.to_vec() })
                }
                // Nobody waits for an answer to a cancel request.
                _ => Err(Failure::Leave(LoginFailure::Refused {
                    code: "08P01",
                    reason: "invalid length of cancel request packet".into(),
                })),
            };
        }
        Ok(Opening::Startup(startup::parse(packet)?))
    }

    async fn peek(&mut self) -> Step<u8> {
        self.inbox.peek(&mut self.stream).await.map_err(|error| read_failed(error, "startup packet"))
    }

    async fn packet(&mut self) -> Step<Vec<u8>> {
        let packet = self.inbox.packet(&mut self.stream, STARTUP_LIMIT).await;
        packet.map_err(|error| read_failed(error, "startup packet"))
    }

    // --- after it ---

    async fn authenticate(&mut self, startup: &StartupPacket) -> Step<Credential> {
        if startup.must_negotiate() {
            startup.negotiate(&mut self.pending);
        }
        let tls = self.stream.is_tls();
        let visitor = Visitor {
            user: &startup.user,
            database: &startup.database,
            address: self.peer.ip(),
            tls,
            physical_replication: startup.is_physical_replication(),
        };
        if self.context.tls.mode() == ClientTlsMode::Require && !tls && !self.stream.is_unix() {
            let problem = self.no_entry(startup);
            return Err(problem.hint("This server requires TLS; connect with sslmode=require.").into());
        }
        match self.context.rules.method_for(&visitor) {
            None => Err(self.no_entry(startup).into()),
            Some(Method::Reject) => Err(self.rejected(startup).into()),
            Some(Method::Trust) => Ok(self.credential_on_file(&startup.user)),
            Some(Method::Cert) => {
                self.check_certificate(&startup.user)?;
                Ok(self.credential_on_file(&startup.user))
            }
            Some(Method::Scram) => self.ask_password(&startup.user).await,
        }
    }

    /// In PostgreSQL's words, which drivers and people know; `auth.rules` are our pg_hba.conf.
    fn no_entry(&self, startup: &StartupPacket) -> Problem {
        match startup.is_physical_replication() {
            true => self.not_allowed(startup, "no pg_hba.conf entry for replication connection from"),
            false => self.not_allowed(startup, "no pg_hba.conf entry for"),
        }
    }

    fn rejected(&self, startup: &StartupPacket) -> Problem {
        match startup.is_physical_replication() {
            true => self.not_allowed(startup, "pg_hba.conf rejects replication connection for"),
            false => self.not_allowed(startup, "pg_hba.conf rejects connection for"),
        }
    }

    fn not_allowed(&self, startup: &StartupPacket, what: &str) -> Problem {
        let host = self.peer.ip().map_or_else(|| "[local]".into(), |address| address.to_string());
        let mut text = format!("{what} host \"{host}\", user \"{}\", ", startup.user);
        if !startup.is_physical_replication() {
            text.push_str(&format!("database \"{}\", ", startup.database));
        }
        text.push_str(if self.stream.is_tls() { "SSL encryption" } else { "no encryption" });
        Problem::new("28000", text)
    }

    /// For logins without a password: what the users file has for the role, if it can be shown to a node at all.
    fn credential_on_file(&self, user: &str) -> Credential {
        match self.context.users.get(user).map(|entry| &entry.password) {
            Some(StoredPassword::Plain(password)) if !password.is_empty() => Credential::Password(password.clone()),
            Some(StoredPassword::Md5(hash)) => Credential::Md5(hash.clone()),
            // A SCRAM verifier proves nothing to a node: the ClientKey cannot be computed from it.
            _ => Credential::None,
        }
    }

    fn check_certificate(&self, user: &str) -> Step<()> {
        let Some(certificate) = self.stream.peer_certificate() else {
            return refuse("28000", "connection requires a valid client certificate");
        };
        let name = tls::common_name(certificate);
        if name.as_deref() == Some(user) {
            return Ok(());
        }
        Err(Failure::Refuse(Box::new(Refusal {
            problem: Problem::new("28000", format!("certificate authentication failed for user \"{user}\"")),
            reason: Some(match name {
                Some(name) => format!("user \"{user}\" came with the certificate of \"{name}\""),
                None => format!("user \"{user}\" came with a certificate without a common name"),
            }),
        })))
    }
}

enum Opening {
    Cancel { pid: u32, secret: Vec<u8> },
    Startup(StartupPacket),
}

impl fmt::Debug for LoginContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginContext").field("tls", &self.tls).field("source", &self.source).finish_non_exhaustive()
    }
}

fn read_failed(error: ReadError, what: &str) -> Failure {
    match error {
        ReadError::Closed => Failure::Leave(LoginFailure::Gone),
        ReadError::Io(error) => error.into(),
        ReadError::Length { .. } => Problem::new("08P01", format!("invalid length of {what}")).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever arrives, the login ends without a panic, and a client that was not let in gets at most one error.
        #[test]
        fn random_bytes_are_refused(
            start in prop::sample::select(vec![&b""[..], b"\0\0\0\x10\0\x03\0\0user\0a\0\0", b"\0\0\0\x08\x04\xd2\x16\x2f"]),
            tag in prop::sample::select(vec![&b""[..], b"p\0\0\0\x24SCRAM-SHA-256\0\0\0\0\x0e", b"p"]),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (mut client, server) = tokio::net::UnixStream::pair().unwrap();
                let context = LoginContext {
                    tls: ServerTls::disabled(),
                    rules: Rules::default(),
                    source: Source::File,
                    users: Users::default(),
                    roles: None,
                    mock: MockSecret::generate(),
                    login_timeout: Duration::from_secs(20),
                };
                client.write_all(&[start, tag, &bytes].concat()).await.unwrap();
                client.shutdown().await.unwrap();
                let admitted = admit(Stream::unix(server), Peer::Local, &context).await;
                assert!(!matches!(admitted, Ok(Admitted::Client(_))));
            });
        }
    }
}
