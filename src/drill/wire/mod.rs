//! A PostgreSQL client of bare messages: for pipelines, half messages, silence, and sockets that die in the middle of
//! anything, which no driver would do for us.
//!
//! It blocks, one thread for each connection, and believes nothing it is not shown: whoever uses it checks every answer.

mod message;
mod sure;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::auth::Secret;
use crate::auth::scram::{ClientSecret, Offer, ScramClient};
use crate::demo::{DATABASE, PASSWORD, USER};
pub use message::{Answer, Batch, Message, Notification, PROTOCOL_3_0, Rng, Row, Said, message, startup};
use message::{columns, row, take_text, text};

/// Longer than any answer takes on a busy machine: who waits this long is waiting for nothing.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Who logs in, and where.
#[derive(Debug, Clone)]
pub struct Login {
    pub address: SocketAddr,
    pub user: String,
    pub password: String,
    pub database: String,
    pub parameters: Vec<(String, String)>,
}

impl Login {
    pub fn to(port: u16) -> Login {
        Login::at(here(port))
    }

    pub fn at(address: SocketAddr) -> Login {
        Login {
            address,
            user: USER.into(),
            password: PASSWORD.into(),
            database: DATABASE.into(),
            parameters: Vec::new(),
        }
    }

    pub fn user(mut self, user: &str, password: &str) -> Login {
        (self.user, self.password) = (user.into(), password.into());
        self
    }

    pub fn database(mut self, database: &str) -> Login {
        self.database = database.into();
        self
    }

    pub fn with(mut self, name: &str, value: &str) -> Login {
        self.parameters.push((name.into(), value.into()));
        self
    }

    pub fn packet(&self) -> Vec<u8> {
        let mut parameters = vec![("user", self.user.as_str()), ("database", self.database.as_str())];
        parameters.extend(self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        startup(PROTOCOL_3_0, &parameters)
    }

    /// Logs in, or gives what the server said instead.
    pub fn attempt(&self) -> io::Result<Result<Wire, Said>> {
        self.attempt_within(PATIENCE)
    }

    /// The same with so much time for the connection, and then for each of the server's answers.
    pub fn attempt_within(&self, limit: Duration) -> io::Result<Result<Wire, Said>> {
        let mut wire = Wire::open_within(self.address, limit)?;
        wire.send(&self.packet())?;
        let mut started = None;
        let mut proof = None;
        loop {
            let message = wire.receive()?;
            match (message.tag, message.body.get(..4)) {
                (b'R', Some([0, 0, 0, 10])) => {
                    let secret = ClientSecret::Password(Secret::new(self.password.clone()));
                    let (client, mechanism, first) = ScramClient::start(secret, Offer::Plain);
                    let body =
                        [text(mechanism), (first.len() as u32).to_be_bytes().to_vec(), first.into_bytes()].concat();
                    wire.send(&self::message(b'p', &body))?;
                    started = Some(client);
                }
                (b'R', Some([0, 0, 0, 11])) => {
                    let client = started.take().ok_or_else(out_of_order)?;
                    let (next, answer) = client.respond(&message.body[4..]).map_err(io::Error::other)?;
                    wire.send(&self::message(b'p', answer.as_bytes()))?;
                    proof = Some(next);
                }
                (b'R', Some([0, 0, 0, 12])) => {
                    let proof = proof.take().ok_or_else(out_of_order)?;
                    proof.finish(&message.body[4..]).map_err(io::Error::other)?;
                }
                (b'R', Some([0, 0, 0, 0])) => {}
                (b'S', _) => wire.note_parameter(&message.body),
                (b'K', Some(_)) => {
                    wire.pid = number(&message.body);
                    wire.secret = message.body[4..].to_vec();
                }
                (b'Z', _) => {
                    wire.be_patient(PATIENCE)?;
                    return Ok(Ok(wire));
                }
                (b'E', _) => return Ok(Err(Said::of(&message.body))),
                (b'N', _) => {}
                _ => return Err(io::Error::other(format!("unexpected at login: {message:?}"))),
            }
        }
    }
}

/// A connection, logged in or not.
pub struct Wire {
    stream: TcpStream,
    address: SocketAddr,
    buffer: Vec<u8>,
    at: usize,
    pub pid: u32,
    pub secret: Vec<u8>,
    pub parameters: BTreeMap<String, String>,
    pub notices: Vec<Said>,
    pub notifications: Vec<Notification>,
}

impl Wire {
    /// A connection on which nothing was said.
    pub fn open(port: u16) -> io::Result<Wire> {
        Wire::open_at(here(port))
    }

    pub fn open_at(address: SocketAddr) -> io::Result<Wire> {
        Wire::open_within(address, PATIENCE)
    }

    fn open_within(address: SocketAddr, limit: Duration) -> io::Result<Wire> {
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_nodelay(true)?;
        let wire = Wire {
            stream,
            address,
            buffer: Vec::new(),
            at: 0,
            pid: 0,
            secret: Vec::new(),
            parameters: BTreeMap::new(),
            notices: Vec::new(),
            notifications: Vec::new(),
        };
        wire.be_patient(limit)?;
        Ok(wire)
    }

    /// How long it waits for the next bytes.
    pub fn be_patient(&self, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))?;
        self.stream.set_write_timeout(Some(limit))
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next message as it is.
    pub fn receive(&mut self) -> io::Result<Message> {
        loop {
            let here = &self.buffer[self.at..];
            if let [tag, length @ ..] = here
                && length.len() >= 4
            {
                let total = (number(length) as usize).max(4) + 1;
                if here.len() >= total {
                    let message = Message { tag: *tag, body: here[5..total].to_vec() };
                    self.at += total;
                    if self.at == self.buffer.len() {
                        self.buffer.clear();
                        self.at = 0;
                    }
                    return Ok(message);
                }
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            let mut chunk = [0; 16 * 1024];
            let read = match self.stream.read(&mut chunk) {
                // Not a fault of the connection: the standard library says to read again.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            match read {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.buffer.extend_from_slice(&chunk[..read]),
            }
        }
    }

    fn note_parameter(&mut self, mut body: &[u8]) {
        let name = take_text(&mut body);
        self.parameters.insert(name, take_text(&mut body));
    }

    /// Takes in what can come at any time. True if this was that.
    fn note(&mut self, message: &Message) -> bool {
        match message.tag {
            b'S' => self.note_parameter(&message.body),
            b'N' => self.notices.push(Said::of(&message.body)),
            b'A' => {
                let mut rest = message.body.get(4..).unwrap_or_default();
                let (channel, payload) = (take_text(&mut rest), take_text(&mut rest));
                self.notifications.push(Notification { pid: number(&message.body), channel, payload });
            }
            _ => return false,
        }
        true
    }

    /// Everything up to and with the first message of one of these tags.
    pub fn until(&mut self, ends: &[u8]) -> io::Result<Answer> {
        let mut answer = Answer::default();
        loop {
            let message = self.receive()?;
            if self.note(&message) {
                continue;
            }
            answer.tags.push(message.tag as char);
            let body = &message.body;
            match message.tag {
                b'T' => answer.columns = columns(body),
                b'D' => answer.rows.push(row(body)),
                b'C' => answer.done.push(take_text(&mut body.as_slice())),
                b'E' => {
                    let said = Said::of(body);
                    let fatal = matches!(&*said.severity, "FATAL" | "PANIC");
                    answer.errors.push(said);
                    if fatal {
                        return Ok(answer);
                    }
                }
                b'd' => answer.copied.extend_from_slice(body),
                b'Z' => answer.status = body.first().copied().unwrap_or_default(),
                _ => {}
            }
            if ends.contains(&message.tag) {
                return Ok(answer);
            }
        }
    }

    /// Sends, and reads up to ReadyForQuery.
    pub fn ask(&mut self, batch: Batch) -> io::Result<Answer> {
        self.send(&batch.0)?;
        self.until(b"Z")
    }

    /// Asks for a cancel on a connection of its own, and waits until that is closed.
    pub fn cancel(&self) -> io::Result<()> {
        cancel_at(self.address, self.pid, &self.secret)
    }

    /// Closes without a goodbye, so that the other side's next write is answered with a reset.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        let _ = socket.set_linger(Some(Duration::ZERO));
    }

    /// Reads to the end; what was said on the way.
    pub fn rest(&mut self) -> Answer {
        let mut answer = Answer::default();
        while let Ok(message) = self.receive() {
            if self.note(&message) {
                continue;
            }
            answer.tags.push(message.tag as char);
            if message.tag == b'E' {
                answer.errors.push(Said::of(&message.body));
            }
        }
        answer
    }

    /// The other side has closed: an end of the stream or a reset, not silence.
    pub fn is_closed(&mut self) -> bool {
        loop {
            match self.receive() {
                Ok(_) => {}
                Err(error) => {
                    return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                }
            }
        }
    }
}

pub fn cancel(port: u16, pid: u32, secret: &[u8]) -> io::Result<()> {
    cancel_at(here(port), pid, secret)
}

fn here(port: u16) -> SocketAddr {
    (IpAddr::from(Ipv4Addr::LOCALHOST), port).into()
}

fn cancel_at(address: SocketAddr, pid: u32, secret: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut packet = (12 + secret.len() as u32).to_be_bytes().to_vec();
    packet.extend_from_slice(&(1234u32 << 16 | 5678).to_be_bytes());
    packet.extend_from_slice(&pid.to_be_bytes());
    packet.extend_from_slice(secret);
    stream.write_all(&packet)?;
    let mut nothing = [0; 16];
    while stream.read(&mut nothing)? > 0 {}
    Ok(())
}

/// The first four bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn out_of_order() -> io::Error {
    io::Error::other("the server does not keep to the order of a SASL exchange")
}
