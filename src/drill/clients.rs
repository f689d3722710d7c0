//! What each kind of client does, over and over: the habits of applications that a failover has to leave alone.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::load::{ACCOUNTS, Dropped, Log, Look, Outcome, Read, Resolved, SAMPLES, SESSION, Shared, Write};
use super::wire::{Answer, Batch, Rng, Wire};

/// Applications think between statements; without it, the machine is the only thing that is tested.
const THINKING: Duration = Duration::from_millis(20);
/// After a connection that ended or was refused.
const BEFORE_ANOTHER: Duration = Duration::from_millis(20);

/// One round of what a client does. `Err`: the connection has ended, and how.
pub type Act = fn(&mut Client) -> Result<(), Ended>;

pub const WRITERS: [Act; 6] =
    [autocommit, autocommit_extended, block, block_extended, block_in_one_message, slow_block];

pub struct Ended(pub String);

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        // The numbers in the text differ from system to system, the kinds do not.
        Ended(format!("{:?}", error.kind()))
    }
}

pub struct Client<'s> {
    shared: &'s Shared,
    session: u64,
    /// Of the id given out last.
    n: u64,
    /// The greatest id that this session may rely on.
    expected: u64,
    rounds: u64,
    /// How long it has thought in the middle of what it is at.
    thought: Duration,
    random: Rng,
    wire: Wire,
    log: Log,
}

/// Until the load is over; whenever the connection ends, there is another.
pub fn live(shared: &Shared, session: u64, act: Act) -> Log {
    let (mut log, mut n, mut expected, mut rounds) = (Log::default(), 0, 0, 0);
    while !shared.is_over() {
        let wire = match shared.reach.connect(&shared.account) {
            Ok(Ok(wire)) => wire,
            refused => {
                let why = match refused {
                    Ok(said) => said
                        .err()
                        .map_or_else(String::new, |said| if said.code.is_empty() { said.message } else { said.code }),
                    Err(error) => format!("{:?}", error.kind()),
                };
                *log.refused.entry(why).or_default() += 1;
                std::thread::sleep(BEFORE_ANOTHER);
                continue;
            }
        };
        shared.connected.fetch_add(1, Ordering::Relaxed);
        let random = Rng(session << 32 | n);
        let thought = Duration::ZERO;
        let mut client = Client { shared, session, n, expected, rounds, thought, random, wire, log };
        let end = loop {
            if shared.is_over() {
                break None;
            }
            if let Err(end) = act(&mut client) {
                break Some(end);
            }
            client.rounds += 1;
            std::thread::sleep(THINKING);
        };
        (log, n, expected, rounds) = (client.log, client.n, client.expected, client.rounds);
        shared.connected.fetch_sub(1, Ordering::Relaxed);
        if let Some(Ended(why)) = end {
            log.dropped.push(Dropped { at: shared.now(), session, kind: name(act), why });
            std::thread::sleep(BEFORE_ANOTHER);
        }
    }
    log
}

fn name(act: Act) -> &'static str {
    let names: [(Act, &str); 10] = [
        (autocommit, "autocommit"),
        (autocommit_extended, "autocommit, extended"),
        (block, "block"),
        (block_extended, "block, extended"),
        (block_in_one_message, "block in one message"),
        (slow_block, "slow block"),
        (transfer, "transfer"),
        (read_own, "own reads"),
        (read, "reads"),
        (idle, "idle"),
    ];
    names.iter().find(|(other, _)| std::ptr::fn_addr_eq(*other, act)).map_or("?", |(_, name)| name)
}

/// What came of a conversation that writes.
enum Heard {
    Done(Answer),
    /// The connection is still there. The SQLSTATE of the first error.
    Error(String),
    Ended(Ended),
}

impl Client<'_> {
    fn ask(&mut self, batch: Batch) -> Heard {
        let asked = String::from_utf8_lossy(&batch.0).replace(|c: char| c.is_control(), " ");
        match self.wire.ask(batch) {
            Err(error) => Heard::Ended(error.into()),
            Ok(answer) => {
                let Some(said) = answer.errors.first() else { return Heard::Done(answer) };
                self.log.errors.push(self.shared.now());
                let samples = self.log.samples.entry(said.code.clone()).or_default();
                if samples.len() < SAMPLES {
                    let (at, session) = (self.shared.now(), self.session);
                    samples.push(format!("{at:?} session {session}, asked {asked}: {said:?}"));
                }
                match answer.tags.ends_with('Z') {
                    true => Heard::Error(said.code.clone()),
                    false => Heard::Ended(Ended(said.code.clone())),
                }
            }
        }
    }

    fn next_id(&mut self) -> u64 {
        self.n += 1;
        self.session * SESSION + self.n
    }

    fn note(&mut self, id: u64, sent: Duration, outcome: Outcome) {
        // PostgreSQL says "committed here, perhaps nowhere else" as a warning, followed by success.
        let mut notices = std::mem::take(&mut self.wire.notices).into_iter();
        let is_doubtful = notices.any(|said| said.detail.contains("might not have been replicated"));
        if outcome == Outcome::Acknowledged {
            if is_doubtful {
                self.log.broken.push(format!("{id}: an interrupted synchronous wait was passed off as success"));
            }
            self.expected = self.expected.max(id);
            self.shared.note_acknowledged(sent);
        }
        let done = self.shared.now();
        let waited = done.saturating_sub(sent).saturating_sub(std::mem::take(&mut self.thought));
        self.log.writes.push(Write { id, sent, done, waited, outcome });
    }

    /// Notes what the conversation that was to commit `id` came to. `commit`: the tag that says it did.
    fn judge(&mut self, id: u64, sent: Duration, heard: Heard, commit: &str) -> Result<(), Ended> {
        match heard {
            // A COMMIT of a transaction that has failed is answered with ROLLBACK, and no error.
            Heard::Done(answer) if !answer.done.iter().any(|tag| tag == commit) => {
                self.note(id, sent, Outcome::Failed(answer.done.join(",")));
            }
            Heard::Done(_) => self.note(id, sent, Outcome::Acknowledged),
            Heard::Error(code) if is_unknown(&code) => {
                self.note(id, sent, Outcome::Unknown(code));
                self.resolve(id)?;
            }
            Heard::Error(code) => self.note(id, sent, Outcome::Failed(code)),
            Heard::Ended(end) => {
                // An error that ends the connection is an answer all the same, as those of a shutdown are.
                let outcome = match is_sqlstate(&end.0) && !is_unknown(&end.0) {
                    true => Outcome::Failed(end.0.clone()),
                    false => Outcome::Unknown(end.0.clone()),
                };
                self.note(id, sent, outcome);
                return Err(end);
            }
        }
        Ok(())
    }

    /// Looks, on the primary, whether what nobody could tell has happened. What is found holds from then on.
    fn resolve(&mut self, id: u64) -> Result<(), Ended> {
        let sql = format!("BEGIN; SELECT count(*) FROM ledger WHERE id = {id}; COMMIT");
        for _ in 0..5 {
            match self.ask(Batch::new().query(&sql)) {
                Heard::Done(answer) => {
                    let is_there = answer.rows.first().is_some_and(|row| row[0].as_deref() != Some("0"));
                    self.log.resolved.push(Resolved { id, is_there });
                    return Ok(());
                }
                Heard::Error(code) => {
                    self.note_error(code);
                    self.roll_back()?;
                }
                Heard::Ended(end) => return Err(end),
            }
        }
        Ok(())
    }

    fn note_error(&mut self, code: String) {
        *self.log.other_errors.entry(code).or_default() += 1;
    }

    fn roll_back(&mut self) -> Result<(), Ended> {
        match self.ask(Batch::new().query("ROLLBACK")) {
            Heard::Done(_) => {}
            Heard::Error(code) => self.note_error(code),
            Heard::Ended(end) => return Err(end),
        }
        Ok(())
    }

    /// A transaction, message by message: each batch has to succeed before the next is sent.
    fn transaction(&mut self, id: u64, before_commit: Vec<Batch>, pause: Duration) -> Result<(), Ended> {
        let sent = self.shared.now();
        self.thought = Duration::ZERO;
        for batch in before_commit {
            match self.ask(batch) {
                Heard::Done(_) => {}
                // Nothing was asked to be committed: whatever this says, it cannot be there.
                Heard::Error(code) => {
                    let code = if is_unknown(&code) { format!("{code} before COMMIT") } else { code };
                    self.note(id, sent, Outcome::Failed(code));
                    return self.roll_back();
                }
                Heard::Ended(end) => {
                    self.note(id, sent, Outcome::Failed(format!("{} before COMMIT", end.0)));
                    return Err(end);
                }
            }
            std::thread::sleep(pause);
            self.thought += pause;
        }
        // Some applications change their mind.
        if self.rounds % 20 == 19 {
            self.note(id, sent, Outcome::Failed("ROLLBACK".into()));
            return self.roll_back();
        }
        let heard = self.ask(Batch::new().query("COMMIT"));
        self.judge(id, sent, heard, "COMMIT")?;
        if self.log.writes.last().is_some_and(|write| matches!(write.outcome, Outcome::Failed(_))) {
            self.roll_back()?;
        }
        Ok(())
    }
}

/// The only codes by which a server says that it does not know either.
fn is_unknown(code: &str) -> bool {
    code == "08007" || code == "40003"
}

fn is_sqlstate(why: &str) -> bool {
    why.len() == 5 && why.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn insert(id: u64) -> String {
    format!("INSERT INTO ledger VALUES ({id})")
}

/// Parse, Bind and Execute of the unnamed statement, with Sync.
fn extended(sql: &str, parameters: &[Option<&str>]) -> Batch {
    Batch::new().parse("", sql).run("", parameters).sync()
}

fn autocommit(client: &mut Client) -> Result<(), Ended> {
    let (id, sent) = (client.next_id(), client.shared.now());
    let heard = client.ask(Batch::new().query(&insert(id)));
    client.judge(id, sent, heard, "INSERT 0 1")
}

fn autocommit_extended(client: &mut Client) -> Result<(), Ended> {
    let (id, sent) = (client.next_id(), client.shared.now());
    let heard = client.ask(extended("INSERT INTO ledger VALUES ($1)", &[Some(&id.to_string())]));
    client.judge(id, sent, heard, "INSERT 0 1")
}

fn block(client: &mut Client) -> Result<(), Ended> {
    let id = client.next_id();
    let batches = vec![Batch::new().query("BEGIN"), Batch::new().query(&insert(id))];
    client.transaction(id, batches, Duration::ZERO)
}

fn block_extended(client: &mut Client) -> Result<(), Ended> {
    let id = client.next_id();
    let batches = vec![
        extended("BEGIN", &[]),
        extended("INSERT INTO ledger VALUES ($1)", &[Some(&id.to_string())]),
        extended("SELECT 1", &[]),
    ];
    client.transaction(id, batches, Duration::ZERO)
}

fn block_in_one_message(client: &mut Client) -> Result<(), Ended> {
    let (id, sent) = (client.next_id(), client.shared.now());
    let heard = client.ask(Batch::new().query(&format!("BEGIN; {}; COMMIT", insert(id))));
    client.judge(id, sent, heard, "COMMIT")?;
    // A failure within it leaves the transaction open.
    if client.log.writes.last().is_some_and(|write| matches!(write.outcome, Outcome::Failed(_))) {
        client.roll_back()?;
    }
    Ok(())
}

/// Long enough to be in the middle whenever something happens.
fn slow_block(client: &mut Client) -> Result<(), Ended> {
    let id = client.next_id();
    let batches = vec![Batch::new().query("BEGIN"), Batch::new().query(&insert(id)), Batch::new().query("SELECT 1")];
    client.transaction(id, batches, Duration::from_millis(100))
}

/// Moves 1 from one account to another, in the order of their numbers, so that there is no deadlock.
pub fn transfer(client: &mut Client) -> Result<(), Ended> {
    let from = 1 + client.random.below(ACCOUNTS as usize);
    let to = 1 + (from + client.random.below(ACCOUNTS as usize - 1)) % ACCOUNTS as usize;
    let mut steps = [(from, -1), (to, 1)];
    steps.sort_unstable();
    // An application repeats what is said to have failed, a few times, as a new transfer.
    for _ in 0..5 {
        let id = client.next_id();
        let mut batches = vec![Batch::new().query("BEGIN"), Batch::new().query(&insert(id))];
        for (account, amount) in steps {
            let sql = format!("UPDATE accounts SET balance = balance + {amount} WHERE id = {account}");
            batches.push(Batch::new().query(&sql));
        }
        client.transaction(id, batches, Duration::ZERO)?;
        let is_retryable = client.log.writes.last().is_some_and(|write| match &write.outcome {
            Outcome::Failed(code) => code == "40001",
            Outcome::Unknown(_) => client.log.resolved.last().is_some_and(|last| last.id == id && !last.is_there),
            Outcome::Acknowledged => false,
        });
        if !is_retryable || client.shared.is_over() {
            break;
        }
    }
    Ok(())
}

/// Writes, and then reads what it wrote.
pub fn read_own(client: &mut Client) -> Result<(), Ended> {
    autocommit(client)?;
    let (first, last) = (client.session * SESSION, (client.session + 1) * SESSION - 1);
    let sql = format!("SELECT coalesce(max(id), 0) FROM ledger WHERE id BETWEEN {first} AND {last}");
    let (expected, sent) = (client.expected, client.shared.now());
    match client.ask(Batch::new().query(&sql)) {
        Heard::Done(answer) => {
            let (seen, done) = (answer.first().unwrap_or_default().parse().unwrap_or_default(), client.shared.now());
            client.log.looks.push(Look { at: done, expected, seen });
            client.log.reads.push(Read { sent, done });
            client.expected = expected.max(seen);
        }
        Heard::Error(code) => client.note_error(code),
        Heard::Ended(end) => return Err(end),
    }
    Ok(())
}

/// Writes nothing, ever.
pub fn read(client: &mut Client) -> Result<(), Ended> {
    let sent = client.shared.now();
    match client.ask(Batch::new().query("SELECT sum(balance) FROM accounts")) {
        Heard::Done(answer) => {
            client.log.sums.push((sent, answer.first().unwrap_or_default().parse().unwrap_or_default()));
            client.log.reads.push(Read { sent, done: client.shared.now() });
            client.shared.note_read(sent);
        }
        Heard::Error(code) => client.note_error(code),
        Heard::Ended(end) => return Err(end),
    }
    Ok(())
}

/// Says how it wants to be served, then nothing until the end; then all of that must still be true.
pub fn idle(client: &mut Client) -> Result<(), Ended> {
    let megabytes = 5 + client.session % 20;
    let start = [
        Batch::new().query(&format!("SET work_mem = '{megabytes}MB'")),
        Batch::new().parse("kept", "SELECT $1::int + 1").sync(),
    ];
    for batch in start {
        // Whoever is told that it was not done says it again.
        loop {
            match client.ask(batch.clone()) {
                Heard::Done(_) => break,
                Heard::Error(code) => client.note_error(code),
                Heard::Ended(end) => return Err(end),
            }
            if client.shared.is_over() {
                return Ok(());
            }
            std::thread::sleep(THINKING);
        }
    }
    while !client.shared.is_over() {
        std::thread::sleep(THINKING);
    }
    let questions = [
        (Batch::new().query("SHOW work_mem"), format!("{megabytes}MB")),
        (Batch::new().run("kept", &[Some("41")]).sync(), "42".into()),
    ];
    for (batch, wanted) in questions {
        match client.ask(batch) {
            Heard::Done(answer) if answer.table() == wanted => {}
            Heard::Done(answer) => {
                client.log.broken.push(format!("session {}: {} instead of {wanted}", client.session, answer.table()));
            }
            Heard::Error(code) => client.log.broken.push(format!("session {}: {code}", client.session)),
            Heard::Ended(end) => return Err(end),
        }
    }
    Ok(())
}
