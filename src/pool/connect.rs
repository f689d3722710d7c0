//! Logs in to a node: from the first byte of a connection to its first ReadyForQuery, as a linear conversation.
//!
//! Protocol 3.0 is spoken: nothing of 3.2 is needed towards a node, and every PostgreSQL knows it. What a node sends here
//! is decoded by hand, with its bounds checked, because it comes before the node has proved anything.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::auth::scram::{self, ClientSecret, Offer, ScramClient, ScramProof};
use crate::auth::{Credential, Md5Hash};
use crate::net::{DialError, Inbox, NodeTls, ReadError, Stream, dial_tls, tls};
use crate::types::NodeAddress;
use crate::wire::{fields, message};

/// Largest message a node may send while it greets us, in bytes; the longest in practice is an error with its context.
const MESSAGE_LIMIT: usize = 64 * 1024;

const PROTOCOL_3_0: u32 = 3 << 16;
const CANCEL_REQUEST: u32 = 1234 << 16 | 5678;

const AUTH_OK: u32 = 0;
const AUTH_CLEARTEXT: u32 = 3;
const AUTH_MD5: u32 = 5;
const AUTH_SASL: u32 = 10;
const AUTH_SASL_CONTINUE: u32 = 11;
const AUTH_SASL_FINAL: u32 = 12;

pub struct ConnectRequest<'a> {
    pub address: &'a NodeAddress,
    pub tls: &'a NodeTls,
    pub user: &'a str,
    pub database: &'a str,
    /// Further startup parameters, sent in this order.
    pub startup: &'a [(Box<str>, Box<str>)],
    pub credential: &'a Credential,
    /// For all of it: connecting, TLS and login.
    pub timeout: Duration,
}

/// A server connection that waits for its first query.
#[derive(Debug)]
pub struct Connected {
    pub stream: Stream,
    pub pid: u32,
    /// Four bytes in protocol 3.0, but taken as long as it comes.
    pub cancel_key: Vec<u8>,
    /// What the server reported, in its order.
    pub parameters: Vec<(String, String)>,
    /// What arrived behind ReadyForQuery.
    pub unread: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("node {node} ({host}:{port}): {source}")]
    Refused { node: String, host: String, port: u16, source: io::Error },
    #[error("node {node} did not let us in within {} ms", after.as_millis())]
    Timeout { node: String, after: Duration },
    /// The node's own error, as the body of its ErrorResponse.
    #[error("{}", error_text(body))]
    Server { body: Vec<u8>, sqlstate: String },
    #[error(
        "node {node} asks for {asked} of role \"{role}\", and {have}; \
         add the role with its password to auth.users_file, or let it log in with SCRAM"
    )]
    NoCredential { node: String, role: String, asked: &'static str, have: &'static str },
    #[error("node {node}: {reason}")]
    Protocol { node: String, reason: String },
    #[error("node {node}: {reason}")]
    Tls { node: String, reason: String },
}

fn error_text(body: &[u8]) -> String {
    String::from_utf8_lossy(fields::error_field(body, b'M').unwrap_or(b"the server refused the connection"))
        .into_owned()
}

pub async fn connect(request: &ConnectRequest<'_>) -> Result<Connected, ConnectError> {
    let deadline = Instant::now() + request.timeout;
    let node = || request.address.id.to_string();
    let stream = dial_tls(request.address, request.tls, request.timeout)
        .await
        .map_err(|error| dial_failed(request.address, error, request.timeout))?;
    match timeout_at(deadline, Greeting::new(request, stream).run()).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::Timeout { node: node(), after: request.timeout }),
    }
}

/// Asks a node to cancel what the server process `pid` is doing. Returns when the node has closed the connection, which it
/// does after it has sent the signal, so whatever is sent to that server afterwards is not hit by it.
pub async fn send_cancel(
    address: &NodeAddress,
    tls: &NodeTls,
    pid: u32,
    key: &[u8],
    timeout: Duration,
) -> Result<(), ConnectError> {
    let deadline = Instant::now() + timeout;
    let mut stream = dial_tls(address, tls, timeout).await.map_err(|error| dial_failed(address, error, timeout))?;
    let mut packet = (key.len() as u32 + 12).to_be_bytes().to_vec();
    packet.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
    packet.extend_from_slice(&pid.to_be_bytes());
    packet.extend_from_slice(key);
    let conversation = async {
        stream.write_all(&packet).await?;
        let mut nothing = [0; 64];
        while stream.read(&mut nothing).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    match timeout_at(deadline, conversation).await {
        Err(_) => Err(ConnectError::Timeout { node: address.id.to_string(), after: timeout }),
        // A reset is a close too, and inside TLS PostgreSQL closes without saying so.
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => {
            Ok(())
        }
        Ok(Err(source)) => Err(refused(address, source)),
        Ok(Ok(())) => Ok(()),
    }
}

fn refused(address: &NodeAddress, source: io::Error) -> ConnectError {
    ConnectError::Refused { node: address.id.to_string(), host: address.host.clone(), port: address.port, source }
}

fn dial_failed(address: &NodeAddress, error: DialError, after: Duration) -> ConnectError {
    let node = address.id.to_string();
    match error {
        DialError::Io(source) => refused(address, source),
        DialError::Timeout => ConnectError::Timeout { node, after },
        DialError::Tls(_) => ConnectError::Tls { node, reason: error.to_string() },
    }
}

/// Where a SASL exchange with the node stands.
enum Sasl {
    None,
    Started(ScramClient),
    Proved(ScramProof),
    Verified,
}

struct Greeting<'a> {
    request: &'a ConnectRequest<'a>,
    stream: Stream,
    inbox: Inbox,
    sasl: Sasl,
}

impl<'a> Greeting<'a> {
    fn new(request: &'a ConnectRequest<'a>, stream: Stream) -> Self {
        Greeting { request, stream, inbox: Inbox::default(), sasl: Sasl::None }
    }

    async fn run(mut self) -> Result<Connected, ConnectError> {
        let packet = self.startup_packet()?;
        self.send(&packet).await?;
        let mut connected = Connected {
            stream: Stream::Closed,
            pid: 0,
            cancel_key: Vec::new(),
            parameters: Vec::new(),
            unread: Vec::new(),
        };
        let mut is_in = false;
        loop {
            let (tag, body) = self.receive().await?;
            match tag {
                b'R' if !is_in => is_in = self.authenticate(&body).await?,
                b'E' => {
                    let sqlstate = fields::error_field(&body, b'C').map(String::from_utf8_lossy).unwrap_or_default();
                    return Err(ConnectError::Server { sqlstate: sqlstate.into_owned(), body });
                }
                // We ask for 3.0 and for no options, so there is nothing in NegotiateProtocolVersion to act on.
                b'N' | b'v' => {}
                b'S' if is_in => {
                    let (name, value) = fields::parameter_status(&body).ok_or_else(|| self.malformed(tag))?;
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    connected.parameters.push((text(name), text(value)));
                }
                b'K' if is_in => {
                    let (pid, key) = body.split_first_chunk::<4>().ok_or_else(|| self.malformed(tag))?;
                    connected.pid = u32::from_be_bytes(*pid);
                    connected.cancel_key = key.to_vec();
                }
                b'Z' if is_in => {
                    connected.unread = self.inbox.take();
                    connected.stream = self.stream;
                    return Ok(connected);
                }
                _ => return Err(self.malformed(tag)),
            }
        }
    }

    fn startup_packet(&self) -> Result<Vec<u8>, ConnectError> {
        let own = [("user", self.request.user), ("database", self.request.database)];
        let further = self.request.startup.iter().map(|(name, value)| (&**name, &**value));
        let mut packet = vec![0; 4];
        packet.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
        for (name, value) in own.into_iter().chain(further) {
            if name.is_empty() || name.contains('\0') || value.contains('\0') {
                return Err(self.protocol("a startup parameter is empty or has a zero byte inside"));
            }
            for text in [name, value] {
                packet.extend_from_slice(text.as_bytes());
                packet.push(0);
            }
        }
        packet.push(0);
        let length = packet.len() as u32;
        packet[..4].copy_from_slice(&length.to_be_bytes());
        Ok(packet)
    }

    /// True when the node is satisfied.
    async fn authenticate(&mut self, body: &[u8]) -> Result<bool, ConnectError> {
        let (code, rest) = body.split_first_chunk::<4>().ok_or_else(|| self.malformed(b'R'))?;
        let state = std::mem::replace(&mut self.sasl, Sasl::None);
        match (u32::from_be_bytes(*code), state) {
            // A node that has begun SCRAM must also finish it: its signature is what proves that it is the right one.
            (AUTH_OK, Sasl::None | Sasl::Verified) => return Ok(true),
            (AUTH_CLEARTEXT, Sasl::None) => {
                let Credential::Password(password) = self.request.credential else {
                    return Err(self.no_credential("the password in clear text"));
                };
                if !self.stream.is_tls() && !self.stream.is_unix() {
                    return Err(self.protocol(
                        "it asks for the password in clear text on a connection without TLS; \
                         use scram-sha-256 in its pg_hba.conf, or set cluster.tls.mode",
                    ));
                }
                self.send_password(password.reveal()).await?;
            }
            (AUTH_MD5, Sasl::None) => {
                let salt = rest.first_chunk::<4>().ok_or_else(|| self.malformed(b'R'))?;
                let hash = match self.request.credential {
                    Credential::Md5(hash) => hash.clone(),
                    Credential::Password(password) => Md5Hash::of(password.reveal(), self.request.user),
                    _ => return Err(self.no_credential("an md5 password")),
                };
                self.send_password(&hash.answer(*salt)).await?;
            }
            (AUTH_SASL, Sasl::None) => self.start_scram(rest).await?,
            (AUTH_SASL_CONTINUE, Sasl::Started(client)) => {
                let (proof, answer) = client.respond(rest).map_err(|error| self.protocol(error.to_string()))?;
                let mut out = Vec::new();
                message::raw(&mut out, b'p', &[answer.as_bytes()]);
                self.send(&out).await?;
                self.sasl = Sasl::Proved(proof);
            }
            (AUTH_SASL_FINAL, Sasl::Proved(proof)) => {
                proof.finish(rest).map_err(|error| self.protocol(error.to_string()))?;
                self.sasl = Sasl::Verified;
            }
            (code, Sasl::None) => {
                return Err(self.protocol(format!(
                    "it asks for an authentication method we do not have (code {code}); \
                     use scram-sha-256 in its pg_hba.conf for this proxy"
                )));
            }
            _ => return Err(self.malformed(b'R')),
        }
        Ok(false)
    }

    async fn start_scram(&mut self, mut mechanisms: &[u8]) -> Result<(), ConnectError> {
        let mut offered = Vec::new();
        while let Some((name, rest)) = fields::cstr(mechanisms) {
            if name.is_empty() {
                break;
            }
            offered.push(name);
            mechanisms = rest;
        }
        let secret = match self.request.credential {
            Credential::ScramKeys { client_key, server_key } => {
                ClientSecret::Keys { client_key: client_key.clone(), server_key: server_key.clone() }
            }
            Credential::Password(password) => ClientSecret::Password(password.clone()),
            _ => return Err(self.no_credential("a SCRAM password")),
        };
        let has_plus = offered.contains(&scram::PLUS.as_bytes());
        let end_point = self.stream.peer_certificate().and_then(tls::tls_server_end_point);
        let offer = match &end_point {
            Some(hash) if has_plus => Offer::Plus(hash),
            _ if offered.contains(&scram::PLAIN.as_bytes()) => Offer::Plain,
            _ => return Err(self.protocol("it offers no SASL mechanism that we have")),
        };
        let (client, mechanism, first) = ScramClient::start(secret, offer);
        self.sasl = Sasl::Started(client);
        let mut out = Vec::new();
        let length = (first.len() as u32).to_be_bytes();
        message::raw(&mut out, b'p', &[mechanism.as_bytes(), b"\0", &length, first.as_bytes()]);
        self.send(&out).await
    }

    async fn send_password(&mut self, password: &str) -> Result<(), ConnectError> {
        let mut out = zeroize::Zeroizing::new(Vec::with_capacity(password.len() + 6));
        message::raw(&mut out, b'p', &[password.as_bytes(), b"\0"]);
        self.send(&out).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| refused(self.request.address, error))
    }

    async fn receive(&mut self) -> Result<(u8, Vec<u8>), ConnectError> {
        let received = self.inbox.message(&mut self.stream, MESSAGE_LIMIT).await;
        received.map_err(|error| match error {
            ReadError::Io(source) => refused(self.request.address, source),
            ReadError::Closed => refused(
                self.request.address,
                io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection during login"),
            ),
            ReadError::Length { .. } => self.protocol(format!("{error}; is this PostgreSQL?")),
        })
    }

    fn protocol(&self, reason: impl Into<String>) -> ConnectError {
        ConnectError::Protocol { node: self.request.address.id.to_string(), reason: reason.into() }
    }

    fn malformed(&self, tag: u8) -> ConnectError {
        self.protocol(format!("malformed or unexpected message {:?} during login", tag as char))
    }

    fn no_credential(&self, asked: &'static str) -> ConnectError {
        let have = match self.request.credential {
            Credential::None => "nothing is known that could be shown to it",
            Credential::ScramKeys { .. } => "only SCRAM keys are known",
            Credential::Md5(_) => "only an md5 verifier is known",
            Credential::Password(_) => "a password is known",
        };
        let node = self.request.address.id.to_string();
        ConnectError::NoCredential { node, role: self.request.user.to_owned(), asked, have }
    }
}
