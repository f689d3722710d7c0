//! What PostgreSQL writes to its standard error: kept in a file of bounded size, and passed on line by line.
//!
//! A file rather than a pipe: a server that outlives its agent goes on writing to it, and never gets stuck on it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Beyond that, what was passed on is moved to a second file.
const LONGEST: u64 = 16 * 1024 * 1024;

/// How often new lines are looked for.
const LOOK: Duration = Duration::from_millis(100);

/// What is read at once.
const PIECE: u64 = 1024 * 1024;

/// How much of the end is looked at for an error message.
const TAIL: u64 = 64 * 1024;

pub struct ServerLog {
    path: PathBuf,
    /// Where it stood when the server was started last.
    mark: AtomicU64,
    /// Up to where it was passed on, and a line that has not ended.
    passed: Mutex<(u64, Vec<u8>)>,
}

impl ServerLog {
    pub fn new(path: PathBuf) -> ServerLog {
        let length = length(&path);
        ServerLog { path, mark: AtomicU64::new(length), passed: Mutex::new((length, Vec::new())) }
    }

    /// For a server that is about to start.
    pub fn begin(&self) -> io::Result<File> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        self.mark.store(file.metadata()?.len(), Ordering::Relaxed);
        Ok(file)
    }

    /// The end of what was written since the last [`ServerLog::begin`].
    pub fn tail(&self, lines: usize) -> String {
        let end = length(&self.path);
        let from = self.mark.load(Ordering::Relaxed).max(end.saturating_sub(TAIL));
        let text = read(&self.path, from, TAIL).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        without_passwords(&all[all.len().saturating_sub(lines)..].join("\n"))
    }

    /// Passes on what comes, for as long as it is polled.
    pub async fn pass_on(&self) {
        loop {
            self.pass_on_now();
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Passes on what is there.
    pub fn pass_on_now(&self) {
        let mut passed = self.passed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (at, rest) = &mut *passed;
        let end = length(&self.path);
        if end < *at {
            // Somebody else has emptied it.
            *at = 0;
        }
        while *at < end {
            let Ok(new) = read(&self.path, *at, PIECE) else { return };
            if new.is_empty() {
                break;
            }
            *at += new.len() as u64;
            rest.extend_from_slice(&new);
            while let Some(line) = rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=line).collect();
                tracing::info!(target: "postgres", "{}", without_passwords(String::from_utf8_lossy(&line).trim_end()));
            }
            if rest.len() as u64 > PIECE {
                tracing::info!(target: "postgres", "{}", without_passwords(&String::from_utf8_lossy(rest)));
                rest.clear();
            }
        }
        if *at > LONGEST && self.make_room().is_ok() {
            *at = 0;
        }
    }

    /// The server appends, so it goes on at the beginning of the emptied file.
    fn make_room(&self) -> io::Result<()> {
        let mut old = self.path.as_os_str().to_owned();
        old.push(".1");
        // Without room for it, the old lines go.
        let _ = std::fs::copy(&self.path, PathBuf::from(old));
        OpenOptions::new().write(true).open(&self.path)?.set_len(0)?;
        self.mark.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// PostgreSQL logs a changed `primary_conninfo` with everything in it.
fn without_passwords(text: &str) -> String {
    const KEY: &str = "password=";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(KEY) {
        let (before, value) = rest.split_at(at + KEY.len());
        out.push_str(before);
        out.push_str("***");
        // As libpq reads it: up to the closing quote, else up to a blank; a backslash takes the meaning from what follows. The
        // log puts the whole of it into double quotes.
        let quoted = value.strip_prefix('\'');
        let mut is_escaped = false;
        let mut ends = |character: char| {
            let is_end = match quoted {
                Some(_) => character == '\'',
                None => character.is_whitespace() || character == '"',
            };
            let ends = is_end && !is_escaped;
            is_escaped = character == '\\' && !is_escaped;
            ends
        };
        rest = match quoted {
            Some(value) => value.find(&mut ends).map_or("", |end| &value[end + 1..]),
            None => value.find(&mut ends).map_or("", |end| &value[end..]),
        };
    }
    out.push_str(rest);
    out
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |facts| facts.len())
}

fn read(path: &Path, from: u64, longest: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.take(longest).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_password_is_not_passed_on() {
        let said = "LOG:  parameter \"primary_conninfo\" changed to \"host=n1 password=hid\\ den user=u\"";
        let told = "LOG:  parameter \"primary_conninfo\" changed to \"host=n1 password=*** user=u\"";
        assert_eq!(without_passwords(said), told);
        assert_eq!(without_passwords(r"password='hid den \' x' port=1"), "password=*** port=1");
        assert_eq!(
            without_passwords("\"user=u password=hidden\" and password='hidden"),
            "\"user=u password=***\" and password=***"
        );
        assert_eq!(without_passwords("no secret"), "no secret");
    }

    #[test]
    fn the_tail_is_of_the_last_start_and_the_file_is_bounded() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("postgres.log");
        std::fs::write(&path, "of yesterday\n").unwrap();
        let log = ServerLog::new(path.clone());
        let mut file = log.begin().unwrap();
        assert_eq!(log.tail(5), "");
        file.write_all(b"one\ntwo\nthree\n").unwrap();
        assert_eq!(log.tail(2), "two\nthree");
        file.write_all(&vec![b'x'; LONGEST as usize]).unwrap();
        log.pass_on_now();
        assert_eq!(length(&path), 0);
        file.write_all(b"four\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "four\n");
        assert_eq!(log.tail(5), "four");
    }
}
