//! A PostgreSQL client of bare messages: for pipelines, half messages, silence, and sockets that die in the middle of
//! anything, which no driver would do for us.
//!
//! It blocks, one thread for each connection, and believes nothing it is not shown: whoever uses it checks every answer.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use pgbaton::auth::Secret;
use pgbaton::auth::scram::{ClientSecret, Offer, ScramClient};
use pgbaton::demo::{DATABASE, PASSWORD, USER};

/// Longer than any answer takes on a busy machine: who waits this long is waiting for nothing.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A generator for seeded tests (splitmix64): the same seed gives the same choices on every machine.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Seed from the environment to repeat a run, else from the system; printed so that it can be repeated.
pub fn seed(what: &str) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let given = std::env::var("PGBATON_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(what) & 0xffff_ffff);
    println!("{what}: PGBATON_SEED={seed}");
    seed
}

/// One message: tag, length, body.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A startup packet with this protocol number and parameters.
pub fn startup(protocol: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = protocol.to_be_bytes().to_vec();
    for (name, value) in parameters {
        for text in [name, value] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
    packet.extend_from_slice(&body);
    packet
}

pub const PROTOCOL_3_0: u32 = 3 << 16;

fn text(value: &str) -> Vec<u8> {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// Messages to be sent together.
#[derive(Default, Clone)]
pub struct Batch(pub Vec<u8>);

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    pub fn raw(mut self, tag: u8, body: &[u8]) -> Batch {
        self.0.extend_from_slice(&message(tag, body));
        self
    }

    pub fn query(self, sql: &str) -> Batch {
        self.raw(b'Q', &text(sql))
    }

    pub fn parse(self, name: &str, sql: &str) -> Batch {
        let body = [text(name), text(sql), vec![0, 0]].concat();
        self.raw(b'P', &body)
    }

    /// All parameters and results as text; `None` is NULL.
    pub fn bind(self, portal: &str, statement: &str, parameters: &[Option<&str>]) -> Batch {
        let mut body = [text(portal), text(statement), vec![0, 0]].concat();
        body.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
        for parameter in parameters {
            match parameter {
                Some(value) => {
                    body.extend_from_slice(&(value.len() as u32).to_be_bytes());
                    body.extend_from_slice(value.as_bytes());
                }
                None => body.extend_from_slice(&(-1i32).to_be_bytes()),
            }
        }
        body.extend_from_slice(&[0, 0]);
        self.raw(b'B', &body)
    }

    pub fn describe(self, what: u8, name: &str) -> Batch {
        let body = [vec![what], text(name)].concat();
        self.raw(b'D', &body)
    }

    pub fn close(self, what: u8, name: &str) -> Batch {
        let body = [vec![what], text(name)].concat();
        self.raw(b'C', &body)
    }

    pub fn execute(self, portal: &str, rows: u32) -> Batch {
        let body = [text(portal), rows.to_be_bytes().to_vec()].concat();
        self.raw(b'E', &body)
    }

    pub fn sync(self) -> Batch {
        self.raw(b'S', b"")
    }

    pub fn flush(self) -> Batch {
        self.raw(b'H', b"")
    }

    pub fn copy_data(self, data: &[u8]) -> Batch {
        self.raw(b'd', data)
    }

    pub fn copy_done(self) -> Batch {
        self.raw(b'c', b"")
    }

    pub fn copy_fail(self, reason: &str) -> Batch {
        self.raw(b'f', &text(reason))
    }

    /// Bind and Execute of a statement with text parameters.
    pub fn run(self, statement: &str, parameters: &[Option<&str>]) -> Batch {
        self.bind("", statement, parameters).execute("", 0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

/// What an ErrorResponse or NoticeResponse says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    pub severity: String,
    pub code: String,
    pub message: String,
    pub detail: String,
}

impl Said {
    pub fn of(body: &[u8]) -> Said {
        let mut said = Said::default();
        for field in body.split(|byte| *byte == 0).filter(|field| !field.is_empty()) {
            let value = String::from_utf8_lossy(&field[1..]).into_owned();
            match field[0] {
                b'V' => said.severity = value,
                b'C' => said.code = value,
                b'M' => said.message = value,
                b'D' => said.detail = value,
                _ => {}
            }
        }
        said
    }
}

pub type Row = Vec<Option<String>>;

/// Everything that came until a ReadyForQuery (or as far as it was read).
#[derive(Debug, Default, Clone)]
pub struct Answer {
    /// Tags of all messages but notices, notifications and parameters, in order.
    pub tags: String,
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
    /// Command tags.
    pub done: Vec<String>,
    pub errors: Vec<Said>,
    pub copied: Vec<u8>,
    /// The transaction status, of the last ReadyForQuery.
    pub status: u8,
}

impl Answer {
    /// The only value of the only row.
    #[track_caller]
    pub fn value(&self) -> &str {
        assert!(self.errors.is_empty() && self.rows.len() == 1 && self.rows[0].len() == 1, "not one value: {self:?}");
        self.rows[0][0].as_deref().unwrap_or("(null)")
    }

    /// The SQLSTATE of the only error.
    #[track_caller]
    pub fn code(&self) -> &str {
        assert_eq!(self.errors.len(), 1, "not one error: {self:?}");
        &self.errors[0].code
    }

    #[track_caller]
    pub fn ok(self) -> Answer {
        assert!(self.errors.is_empty(), "{self:?}");
        self
    }

    /// All rows, columns joined by `|`, rows by `,`.
    pub fn table(&self) -> String {
        let row = |row: &Row| {
            let values: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or("(null)")).collect();
            values.join("|")
        };
        self.rows.iter().map(row).collect::<Vec<_>>().join(",")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub pid: u32,
    pub channel: String,
    pub payload: String,
}

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
        let mut wire = Wire::open_at(self.address)?;
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
                    let client = started.take().expect("SASLContinue after SASL");
                    let (next, answer) = client.respond(&message.body[4..]).map_err(io::Error::other)?;
                    wire.send(&self::message(b'p', answer.as_bytes()))?;
                    proof = Some(next);
                }
                (b'R', Some([0, 0, 0, 12])) => {
                    let proof = proof.take().expect("SASLFinal after SASLContinue");
                    proof.finish(&message.body[4..]).map_err(io::Error::other)?;
                }
                (b'R', Some([0, 0, 0, 0])) => {}
                (b'S', _) => wire.note_parameter(&message.body),
                (b'K', Some(pid)) => {
                    wire.pid = u32::from_be_bytes(pid.try_into().unwrap());
                    wire.secret = message.body[4..].to_vec();
                }
                (b'Z', _) => return Ok(Ok(wire)),
                (b'E', _) => return Ok(Err(Said::of(&message.body))),
                (b'N', _) => {}
                _ => return Err(io::Error::other(format!("unexpected at login: {message:?}"))),
            }
        }
    }

    #[track_caller]
    pub fn connect(&self) -> Wire {
        match self.attempt() {
            Ok(Ok(wire)) => wire,
            other => panic!("no login as {}: {:?}", self.user, other.map(|said| said.err())),
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
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Wire {
            stream,
            address,
            buffer: Vec::new(),
            at: 0,
            pid: 0,
            secret: Vec::new(),
            parameters: BTreeMap::new(),
            notices: Vec::new(),
            notifications: Vec::new(),
        })
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
            if let Some(head) = here.get(..5) {
                let total = u32::from_be_bytes(head[1..5].try_into().unwrap()) as usize + 1;
                if here.len() >= total {
                    let message = Message { tag: head[0], body: here[5..total].to_vec() };
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

    fn note_parameter(&mut self, body: &[u8]) {
        let mut parts = body.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            self.parameters.insert(name, value);
        }
    }

    /// Takes in what can come at any time. True if this was that.
    fn note(&mut self, message: &Message) -> bool {
        match message.tag {
            b'S' => self.note_parameter(&message.body),
            b'N' => self.notices.push(Said::of(&message.body)),
            b'A' => {
                let mut parts = message.body[4..].split(|byte| *byte == 0);
                let mut part = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
                let (channel, payload) = (part(), part());
                let pid = u32::from_be_bytes(message.body[..4].try_into().unwrap());
                self.notifications.push(Notification { pid, channel, payload });
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
                b'C' => answer.done.push(String::from_utf8_lossy(&body[..body.len() - 1]).into_owned()),
                b'E' => {
                    let said = Said::of(body);
                    let fatal = said.severity == "FATAL";
                    answer.errors.push(said);
                    if fatal {
                        return Ok(answer);
                    }
                }
                b'd' => answer.copied.extend_from_slice(body),
                b'Z' => answer.status = body[0],
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

    #[track_caller]
    pub fn query(&mut self, sql: &str) -> Answer {
        match self.ask(Batch::new().query(sql)) {
            Ok(answer) => answer,
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// A query that must succeed with one value.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> String {
        self.query(sql).value().to_owned()
    }

    /// A statement that must succeed.
    #[track_caller]
    pub fn run(&mut self, sql: &str) -> Answer {
        let answer = self.query(sql);
        assert!(answer.errors.is_empty(), "{sql}: {:?}", answer.errors);
        answer
    }

    #[track_caller]
    pub fn batch(&mut self, batch: Batch) -> Answer {
        match self.ask(batch) {
            Ok(answer) => answer,
            Err(error) => panic!("{error}"),
        }
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

fn columns(body: &[u8]) -> Vec<String> {
    let mut rest = &body[2..];
    let mut names = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        rest = rest.get(end + 19..).unwrap_or_default();
    }
    names
}

fn row(body: &[u8]) -> Row {
    let mut rest = &body[2..];
    let mut values = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => {
                values.push(Some(String::from_utf8_lossy(&after[..length]).into_owned()));
                rest = &after[length..];
            }
            Err(_) => {
                values.push(None);
                rest = after;
            }
        }
    }
    values
}

/// Settings for a proxy that lets everybody in unasked, and still knows the password for the nodes: tests that log in
/// thousands of times are not about SCRAM.
pub fn trusting(cluster: &pgbaton::demo::Cluster, proxy: &str) -> crate::support::ProxySettings {
    let file = cluster.directory().join("users");
    // Tests share a cluster, and a proxy may be reading the file just now: it is only ever there whole.
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let draft = file.with_extension(number.to_string());
    std::fs::write(&draft, format!("\"{USER}\" \"{PASSWORD}\"\n")).unwrap();
    crate::support::set_mode(&draft, 0o600);
    std::fs::rename(&draft, &file).unwrap();
    crate::support::ProxySettings {
        proxy: proxy.into(),
        auth: format!("method = \"file\"\nusers_file = \"{}\"", file.display()),
        sections: "[[auth.rules]]\nmethod = \"trust\"".into(),
        ..Default::default()
    }
}
