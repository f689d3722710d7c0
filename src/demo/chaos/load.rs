//! A small load with a long memory: writers that know of each row whether it was acknowledged, refused or left in doubt, and
//! readers that know what they have seen.
//!
//! A row that was refused is written again under the same number. So at the end each acknowledged number must be there exactly once,
//! and none twice, whatever happened in between.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::tally::Tally;
use crate::demo::{DATABASE, PASSWORD, USER};

const WRITERS: u32 = 4;
const READERS: u32 = 4;

/// Between two writes of one writer, and two reads of one reader: enough to see every pause, and little enough for a laptop.
const PAUSE: Duration = Duration::from_millis(4);

/// Before a connection that was lost is made again.
const AGAIN: Duration = Duration::from_millis(100);

/// Longer than pgbaton holds anybody. Who gets no answer at all within this has a case for the summary.
const LIMIT: Duration = Duration::from_secs(90);

const TABLE: &str = "demo_chaos";

pub(super) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Verdict, String>>,
}

/// What the rows say when all is over.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub acknowledged: u64,
    /// Rows that are there.
    pub present: u64,
    /// Writes whose outcome the client was not told, and how many of those are there.
    pub in_doubt: u64,
    pub in_doubt_present: u64,
    /// Acknowledged, and not there.
    pub lost: u64,
    /// There twice.
    pub duplicated: u64,
}

/// What one writer remembers.
#[derive(Debug, Default)]
struct Memory {
    writer: u32,
    /// Every number up to here was acknowledged, but for those in doubt.
    last: u64,
    in_doubt: Vec<u64>,
}

impl Load {
    /// Returns when the table is there and everybody is at work.
    pub fn start(proxy: SocketAddr, tally: Arc<Tally>) -> Result<Load, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let since = runtime.block_on(async { prepare(&connect(proxy).await?).await })?;
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("load".into()).spawn(move || {
            runtime.block_on(async {
                let run = run_number();
                let writers =
                    (0..WRITERS).map(|writer| tokio::spawn(write(proxy, run, writer, tally.clone(), stopped.clone())));
                let readers = (0..READERS).map(|reader| {
                    tokio::spawn(read(proxy, run, reader % WRITERS, since.clone(), tally.clone(), stopped.clone()))
                });
                let (writers, readers): (Vec<_>, Vec<_>) = (writers.collect(), readers.collect());
                for reader in readers {
                    reader.await.map_err(|error| error.to_string())?;
                }
                let mut memories = Vec::new();
                for writer in writers {
                    memories.push(writer.await.map_err(|error| error.to_string())?);
                }
                judge(proxy, run, &memories).await
            })
        });
        Ok(Load { stop, thread: thread.map_err(|error| error.to_string())? })
    }

    /// Lets everybody end what they do, and counts.
    pub fn finish(self) -> Result<Verdict, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the load has failed, which is a fault of this program".to_owned())?
    }
}

/// Rows of an earlier run are somebody else's.
fn run_number() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

async fn connect(proxy: SocketAddr) -> Result<Client, String> {
    let mut config = Config::new();
    config.host(proxy.ip().to_string()).port(proxy.port()).user(USER).password(PASSWORD).dbname(DATABASE);
    config.application_name("pgbaton demo --chaos");
    let connected = timeout(LIMIT, config.connect(NoTls)).await.map_err(|_| "no answer".to_owned())?;
    let (client, connection) = connected.map_err(|error| note(&error))?;
    tokio::spawn(connection);
    Ok(client)
}

/// Makes the table; the token with which a session sees it everywhere.
async fn prepare(client: &Client) -> Result<String, String> {
    let table = format!(
        "CREATE TABLE IF NOT EXISTS {TABLE} (run bigint NOT NULL, writer int NOT NULL, number bigint NOT NULL);
         CREATE INDEX IF NOT EXISTS {TABLE}_index ON {TABLE} (run, writer, number)"
    );
    client.batch_execute(&table).await.map_err(|error| error.to_string())?;
    let token = client.simple_query("SHOW pgbaton.lsn").await.map_err(|error| error.to_string())?;
    first(&token).ok_or_else(|| "pgbaton gives no token".to_owned())
}

/// The SQLSTATE, or what there is in place of one.
fn spell(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| "connection lost".to_owned(), |code| code.code().to_owned())
}

/// The same, with all of it in the log.
fn note(error: &tokio_postgres::Error) -> String {
    let said = error.as_db_error().map_or_else(
        || error.to_string(),
        |error| {
            let more = [error.detail(), error.hint()].into_iter().flatten();
            more.fold(error.message().to_owned(), |said, more| format!("{said} ({more})"))
        },
    );
    let code = spell(error);
    tracing::info!(code, "the load was told: {said}");
    code
}

/// Whether the client was told that it was not done. 08007 says that it is not known, as do a connection that is lost and 40003.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| !code.code().starts_with("08") && code.code() != "40003")
}

/// A connection, made again as often as it takes, until all is over.
async fn connection(proxy: SocketAddr, tally: &Tally, stop: &AtomicBool) -> Option<Client> {
    while !stop.load(Ordering::Relaxed) {
        match connect(proxy).await {
            Ok(client) => return Some(client),
            Err(error) => tally.failed(&error),
        }
        sleep(AGAIN).await;
    }
    None
}

async fn write(proxy: SocketAddr, run: i64, writer: u32, tally: Arc<Tally>, stop: Arc<AtomicBool>) -> Memory {
    let mut memory = Memory { writer, ..Memory::default() };
    while let Some(client) = connection(proxy, &tally, &stop).await {
        while !stop.load(Ordering::Relaxed) && !client.is_closed() {
            let number = memory.last + 1;
            let insert = format!("INSERT INTO {TABLE} VALUES ({run}, {writer}, {number})");
            match timeout(LIMIT, client.simple_query(&insert)).await {
                Ok(Ok(_)) => {
                    memory.last = number;
                    tally.wrote();
                }
                Ok(Err(error)) => {
                    tally.failed(&note(&error));
                    if !is_refusal(&error) {
                        memory.last = number;
                        memory.in_doubt.push(number);
                    }
                }
                Err(_) => {
                    tally.failed("no answer");
                    memory.last = number;
                    memory.in_doubt.push(number);
                    // Its answer may come yet, and would be taken for that of the next.
                    break;
                }
            }
            sleep(PAUSE).await;
        }
    }
    memory
}

/// Looks how far a writer is, and asks which node said so. Half of the readers want to see what they have seen before, and more;
/// they hang on the primary while that is ahead. The others take what is a little older.
async fn read(proxy: SocketAddr, run: i64, writer: u32, since: String, tally: Arc<Tally>, stop: Arc<AtomicBool>) {
    // For the first connection: later ones may come after a change of primary, and the table is everywhere by then.
    let mut since = Some(format!("SET pgbaton.min_lsn = '{since}'"));
    let question = format!("SELECT max(number) FROM {TABLE} WHERE run = {run} AND writer = {writer}");
    while let Some(client) = connection(proxy, &tally, &stop).await {
        let mut seen = 0;
        let is_patient = writer % 2 == 1;
        if is_patient && let Err(error) = client.simple_query("SET pgbaton.consistency = 'bounded'").await {
            tally.failed(&note(&error));
        }
        if let Some(since) = since.take() {
            // Not for longer than that: a token of this timeline says nothing about the next.
            for first in [&*since, &question, "RESET pgbaton.min_lsn"] {
                if let Err(error) = client.simple_query(first).await {
                    tally.failed(&note(&error));
                }
            }
        }
        while !stop.load(Ordering::Relaxed) && !client.is_closed() {
            let asked = async {
                let number = first(&client.simple_query(&question).await?);
                let node = first(&client.simple_query("SHOW pgbaton.node").await?);
                Ok::<_, tokio_postgres::Error>((number, node))
            };
            match timeout(LIMIT, asked).await {
                Ok(Ok((number, node))) => {
                    let number: u64 = number.and_then(|number| number.parse().ok()).unwrap_or_default();
                    if number < seen && !is_patient {
                        tally.went_back();
                    }
                    seen = seen.max(number);
                    tally.read(node.as_deref().unwrap_or("?"));
                }
                Ok(Err(error)) => tally.failed(&spell(&error)),
                Err(_) => {
                    tally.failed("no answer");
                    break;
                }
            }
            sleep(PAUSE).await;
        }
    }
}

/// The first column of the first row.
fn first(messages: &[SimpleQueryMessage]) -> Option<String> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
        _ => None,
    })?
}

/// Compares what is there, on the primary, with what everybody remembers.
async fn judge(proxy: SocketAddr, run: i64, memories: &[Memory]) -> Result<Verdict, String> {
    let client = connect(proxy).await?;
    let mut verdict = Verdict::default();
    client.simple_query("SET pgbaton.target = 'primary'").await.map_err(|error| error.to_string())?;
    for memory in memories {
        let rows =
            format!("SELECT number FROM {TABLE} WHERE run = {run} AND writer = {} ORDER BY number", memory.writer);
        let rows = client.simple_query(&rows).await.map_err(|error| error.to_string())?;
        let numbers = rows.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        compare(memory, numbers, &mut verdict);
    }
    Ok(verdict)
}

/// `present` in order.
fn compare(memory: &Memory, present: impl Iterator<Item = u64>, verdict: &mut Verdict) {
    let in_doubt: std::collections::BTreeSet<u64> = memory.in_doubt.iter().copied().collect();
    let doubts = in_doubt.len() as u64;
    verdict.acknowledged += memory.last - doubts;
    verdict.in_doubt += doubts;
    let (mut before, mut acknowledged) = (None, 0);
    for number in present {
        verdict.present += 1;
        if before == Some(number) {
            verdict.duplicated += 1;
        } else if in_doubt.contains(&number) {
            verdict.in_doubt_present += 1;
        } else if number <= memory.last {
            acknowledged += 1;
        }
        before = Some(number);
    }
    verdict.lost += memory.last - doubts - acknowledged;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(last: u64, in_doubt: &[u64], present: &[u64]) -> Verdict {
        let mut verdict = Verdict::default();
        let memory = Memory { writer: 0, last, in_doubt: in_doubt.to_vec() };
        compare(&memory, present.iter().copied(), &mut verdict);
        verdict
    }

    #[test]
    fn every_acknowledged_row_has_to_be_there_once() {
        let good = verdict(5, &[2, 4], &[1, 2, 3, 5]);
        let expected = Verdict { acknowledged: 3, present: 4, in_doubt: 2, in_doubt_present: 1, ..Verdict::default() };
        assert_eq!(good, expected);
        assert_eq!(verdict(3, &[], &[1, 3]).lost, 1);
        assert_eq!(verdict(3, &[2], &[1, 3, 3]), Verdict { duplicated: 1, ..verdict(3, &[2], &[1, 3]) }.with(3));
        assert_eq!(verdict(3, &[2], &[1, 2, 2, 3]).duplicated, 1, "one in doubt may not be there twice either");
    }

    #[test]
    fn a_refused_row_that_is_there_is_no_acknowledged_one() {
        // The next number was refused, and is there all the same: whoever writes it again makes it two.
        assert_eq!(verdict(2, &[], &[1, 2, 3]).lost, 0);
        assert_eq!(verdict(3, &[], &[1, 2, 3, 3]).duplicated, 1);
    }

    impl Verdict {
        fn with(self, present: u64) -> Verdict {
            Verdict { present, ..self }
        }
    }
}
