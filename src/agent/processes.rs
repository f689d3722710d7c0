//! Processes as the system tells of them: whether one lives, what it is, and which belong to a data directory.
//!
//! From `/proc`. Where there is none, nothing is found, and PostgreSQL's own lock file is what is left.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// A process that may be gone by now, and its number another's: which one it is says when it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub pid: u32,
    /// In clock ticks since the machine was started.
    began: u64,
}

impl Identity {
    /// `None`: it is gone, or dead and waits for its parent.
    pub fn of(pid: u32) -> Option<Identity> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold anything: state, parent …; the 22nd field in all is when it began.
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let began = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Identity { pid, began })
    }

    pub fn lives(self) -> bool {
        Identity::of(self.pid) == Some(self)
    }

    pub fn signal(self, signal: Signal) {
        if self.lives() {
            send(self.pid, signal);
        }
    }
}

/// A process that is gone is not an error: that is what was wanted.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The postmaster of this data directory, if there is one: that its lock file names a process is not enough, as the number
/// may be another's by now.
pub fn postmaster_of(data_dir: &Path) -> Option<Identity> {
    let identity = Identity::of(LockFile::read(data_dir)?.pid)?;
    is_postmaster(identity.pid, data_dir).then_some(identity)
}

fn is_postmaster(pid: u32, data_dir: &Path) -> bool {
    let arguments = arguments(pid);
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    if !name.is_some_and(|name| name == "postgres" || name == "postmaster") {
        return false;
    }
    match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(directory) => is_same(&directory, data_dir),
        // Not ours to see; then what it was started with.
        Err(_) => arguments.iter().any(|argument| is_same(Path::new(argument), data_dir)),
    }
}

fn arguments(pid: u32) -> Vec<String> {
    let text = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    text.split(|&byte| byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// Every process of PostgreSQL's that works in this data directory, the postmaster among them.
pub fn those_in(data_dir: &Path) -> Vec<Identity> {
    let Ok(data_dir) = data_dir.canonicalize() else { return Vec::new() };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let is_there = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|directory| directory == data_dir);
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if is_there && matches!(name.trim(), "postgres" | "postmaster") {
            found.extend(Identity::of(pid));
        }
    }
    found
}

/// Every `initdb` that makes this data directory.
pub fn makers_of(data_dir: &Path) -> Vec<Identity> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.trim() == "initdb" && arguments(pid).iter().any(|argument| Path::new(argument) == data_dir) {
            found.extend(Identity::of(pid));
        }
    }
    found
}

/// `postmaster.pid` (<https://www.postgresql.org/docs/current/storage-file-layout.html>).
#[derive(Debug)]
pub struct LockFile {
    pub pid: u32,
    pub is_ready: bool,
    /// Of its shared memory; not there before that is made.
    segment: Option<u64>,
}

impl LockFile {
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("postmaster.pid")
    }

    pub fn read(data_dir: &Path) -> Option<LockFile> {
        Self::parse(&std::fs::read_to_string(Self::path(data_dir)).ok()?)
    }

    fn parse(text: &str) -> Option<LockFile> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        // Negative: a server without a postmaster, which something else runs and waits for.
        let pid = lines.first()?.parse().ok()?;
        let segment = lines.get(6).and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        Some(LockFile { pid, is_ready: lines.get(7).is_some_and(|state| *state == "ready"), segment })
    }

    /// Whether a process still has the shared memory: what PostgreSQL looks at before it starts. It sees processes that
    /// we may not look into.
    pub fn memory_is_used(&self) -> bool {
        let Some(segment) = self.segment else { return false };
        let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
        // key, shmid, perms, size, cpid, lpid, nattch
        let mut rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
        rows.any(|row| {
            row.get(1).is_some_and(|id| id.parse() == Ok(segment)) && row.get(6).is_some_and(|count| *count != "0")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_is_read_in_each_of_its_states() {
        let whole = "4711\n/srv/n1\n1732212345\n5432\n/tmp\n127.0.0.1\n   123456    98765\nready   \n";
        let lock = LockFile::parse(whole).unwrap();
        assert_eq!((lock.pid, lock.is_ready, lock.segment), (4711, true, Some(98765)));
        let lock = LockFile::parse("4711\n/srv/n1\n1732212345\n5432\n").unwrap();
        assert_eq!((lock.is_ready, lock.segment), (false, None));
        let lock = LockFile::parse(&whole.replace("ready", "standby")).unwrap();
        assert!(!lock.is_ready);
        assert!(LockFile::parse("-4711\n/srv/n1\n").is_none());
        assert!(LockFile::parse("").is_none());
    }

    #[test]
    fn this_process_lives_and_is_no_postmaster() {
        let own = Identity::of(std::process::id()).unwrap();
        assert!(own.lives());
        assert!(!Identity { began: own.began + 1, ..own }.lives(), "another one with its number");
        let place = tempfile::tempdir().unwrap();
        std::fs::write(LockFile::path(place.path()), format!("{}\n", own.pid)).unwrap();
        assert_eq!(postmaster_of(place.path()), None);
    }
}
