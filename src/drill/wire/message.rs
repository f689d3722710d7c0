//! What is said to a server and by it: messages to be sent together, and answers taken apart.

/// A generator for what has to be the same again (splitmix64): the same seed gives the same choices on every machine.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    #[allow(clippy::should_implement_trait, reason = "it never ends, and is asked for one number at a time")]
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

pub(super) fn text(value: &str) -> Vec<u8> {
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
    /// The first value of the first row; `None` also for NULL.
    pub fn first(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
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

/// The text before the first zero of what is left, which is then what follows it.
pub(super) fn take_text(rest: &mut &[u8]) -> String {
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let text = String::from_utf8_lossy(&rest[..end]).into_owned();
    *rest = rest.get(end + 1..).unwrap_or_default();
    text
}

/// Of a RowDescription.
pub(super) fn columns(body: &[u8]) -> Vec<String> {
    let mut rest = body.get(2..).unwrap_or_default();
    let mut names = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        rest = rest.get(end + 19..).unwrap_or_default();
    }
    names
}

/// Of a DataRow; one that is cut short ends where it is cut.
pub(super) fn row(body: &[u8]) -> Row {
    let mut rest = body.get(2..).unwrap_or_default();
    let mut values = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => {
                let (value, left) = after.split_at(length.min(after.len()));
                values.push(Some(String::from_utf8_lossy(value).into_owned()));
                rest = left;
            }
            Err(_) => {
                values.push(None);
                rest = after;
            }
        }
    }
    values
}
