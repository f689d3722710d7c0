//! Plays a case against one address and writes down everything that came back.

use std::collections::BTreeMap;
use std::io;

use crate::corpus::{Case, Protocol, Step};
use crate::wire::{Batch, Login, Said, Wire};

/// What one exchange gave: everything between sending and ReadyForQuery.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// One line for each message.
    pub lines: Vec<String>,
    pub errors: Vec<String>,
    /// Transaction status at its end.
    pub status: u8,
    /// What the server has reported of itself, as of the end.
    pub parameters: BTreeMap<String, String>,
}

/// One address to play at.
pub struct Stage<'a> {
    pub login: Login,
    /// The comment that ends the text of a step.
    pub marker: &'a dyn Fn(usize) -> String,
    /// Called before a step that wants replicas to have everything.
    pub settle: &'a mut dyn FnMut(),
    /// Stands for `{#}` in texts: names nobody else has. `{db}` is the database.
    pub number: usize,
}

struct Session {
    wire: Wire,
    parameters: BTreeMap<String, String>,
}

/// One list of exchanges for each step; a queued step's is empty, the step that ends its pipeline has all.
pub fn play(case: &Case, protocol: Protocol, stage: Stage) -> io::Result<Vec<Vec<Exchange>>> {
    let mut sessions: BTreeMap<u8, Session> = BTreeMap::new();
    let mut all = Vec::new();
    let mut waiting = Batch::new();
    for (at, step) in case.steps.iter().enumerate() {
        if step.settled {
            (stage.settle)();
        }
        let session = sessions.entry(step.session).or_insert_with(|| Session::open(&stage.login));
        let text = marked(step, &(stage.marker)(at), &stage);
        let text = match case.is_latin1 {
            true => text.chars().map(|c| u8::try_from(c as u32).expect("a character of LATIN1")).collect(),
            false => text.into_bytes(),
        };
        let parameters: Vec<_> = step.parameters.iter().map(Option::as_deref).collect();
        let mut exchanges = Vec::new();
        match protocol {
            Protocol::Simple => {
                let batch = Batch::new().raw(b'Q', &[&text[..], b"\0"].concat());
                exchanges.push(session.exchange(batch, step, false)?);
            }
            Protocol::Extended => {
                waiting = parse(waiting, "", &text).bind("", "", &parameters).describe(b'P', "").execute("", 0);
                if !step.queued {
                    exchanges.push(session.exchange(std::mem::take(&mut waiting).sync(), step, true)?);
                }
            }
            Protocol::Named => {
                let name = format!("s{at}");
                let batch = parse(Batch::new(), &name, &text).describe(b'S', &name).sync();
                exchanges.push(session.exchange(batch, step, true)?);
                for _ in 0..2 {
                    let batch = Batch::new().bind("", &name, &parameters).execute("", 0).sync();
                    exchanges.push(session.exchange(batch, step, true)?);
                }
            }
        }
        all.push(exchanges);
    }
    for session in sessions.into_values() {
        session.close();
    }
    Ok(all)
}

fn marked(step: &Step, marker: &str, stage: &Stage) -> String {
    let text = step.text.replace("{#}", &stage.number.to_string()).replace("{db}", &stage.login.database);
    // A line comment would swallow it, which is fine for the log, but the text would be another one.
    let is_commented = text.lines().next_back().is_some_and(|line| line.contains("--"));
    format!("{text}{}{marker}", if is_commented { '\n' } else { ' ' })
}

fn parse(batch: Batch, name: &str, text: &[u8]) -> Batch {
    batch.raw(b'P', &[name.as_bytes(), b"\0", text, b"\0\0\0"].concat())
}

impl Session {
    fn open(login: &Login) -> Session {
        let wire = login.connect();
        let parameters = wire.parameters.clone();
        Session { wire, parameters }
    }

    fn exchange(&mut self, batch: Batch, step: &Step, is_extended: bool) -> io::Result<Exchange> {
        self.wire.send(&batch.0)?;
        let mut exchange = Exchange::default();
        loop {
            let message = self.wire.receive()?;
            let body = &message.body;
            match message.tag {
                b'S' => {
                    let mut parts = body.split(|byte| *byte == 0).map(String::from_utf8_lossy);
                    if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                        self.parameters.insert(name.into_owned(), value.into_owned());
                    }
                    continue;
                }
                b'A' => {
                    let rest = String::from_utf8_lossy(&body[4..]).replace('\0', " ");
                    exchange.lines.push(format!("notification {rest}"));
                    continue;
                }
                b'T' => exchange.lines.push(format!("columns {}", columns(body))),
                b'D' if step.unlike => {
                    if exchange.lines.last().is_none_or(|line| line != "rows") {
                        exchange.lines.push("rows".into());
                    }
                }
                b'D' => exchange.lines.push(format!("row {}", row(body))),
                b'C' => {
                    let tag = String::from_utf8_lossy(&body[..body.len() - 1]).into_owned();
                    let tag = if step.unlike { tag.trim_end_matches(|c: char| c.is_ascii_digit()).into() } else { tag };
                    exchange.lines.push(format!("done {tag}"));
                }
                b'E' => {
                    let said = Said::of(body);
                    exchange.lines.push(format!("error {}", fields(body, step.unlike)));
                    exchange.errors.push(said.code);
                    if matches!(said.severity.as_str(), "FATAL" | "PANIC") {
                        break;
                    }
                }
                b'N' => exchange.lines.push(format!("notice {}", fields(body, step.unlike))),
                b'G' => {
                    exchange.lines.push("copy in".into());
                    let answer = Batch::new().copy_data(step.data.as_bytes()).copy_done();
                    // The server ignored the Sync that came before the data.
                    let answer = if is_extended { answer.sync() } else { answer };
                    self.wire.send(&answer.0)?;
                }
                b'd' => exchange.lines.push(format!("data {}", String::from_utf8_lossy(body))),
                b'Z' => {
                    exchange.status = body[0];
                    exchange.lines.push(format!("ready {}", body[0] as char));
                    break;
                }
                tag => exchange.lines.push(format!("message {}", tag as char)),
            }
        }
        exchange.parameters = self.parameters.clone();
        Ok(exchange)
    }

    /// Leaves politely, and waits until the other side has gone too.
    fn close(mut self) {
        let _ = self.wire.send(&crate::wire::message(b'X', b""));
        self.wire.rest();
    }
}

/// Name, type, modifier and format of each column.
fn columns(body: &[u8]) -> String {
    let mut rest = &body[2..];
    let mut columns = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let name = String::from_utf8_lossy(&rest[..end]);
        let Some(facts) = rest.get(end + 7..end + 19) else { break };
        let number = |at: usize| u32::from_be_bytes([facts[at], facts[at + 1], facts[at + 2], facts[at + 3]]);
        let oid = number(0);
        // Types made by a case have another oid in each database.
        let oid = if oid >= 16384 { "own".to_owned() } else { oid.to_string() };
        columns.push(format!("{name}:{oid}:{}:{}", number(6) as i32, facts[11]));
        rest = &rest[end + 19..];
    }
    columns.join(" ")
}

fn row(body: &[u8]) -> String {
    let mut rest = &body[2..];
    let mut values = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => {
                values.push(String::from_utf8_lossy(&after[..length]).into_owned());
                rest = &after[length..];
            }
            Err(_) => {
                values.push("(null)".into());
                rest = after;
            }
        }
    }
    values.join("|")
}

/// All fields but where in PostgreSQL's source it was said.
fn fields(body: &[u8], is_unlike: bool) -> String {
    let fields = body.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    let wanted = fields.filter(|field| match field[0] {
        b'F' | b'L' | b'R' => false,
        b'S' | b'V' | b'C' => true,
        _ => !is_unlike,
    });
    wanted.map(|field| String::from_utf8_lossy(field).into_owned()).collect::<Vec<_>>().join("; ")
}
