//! Which processes there are below another: a host is frozen or killed with all that runs on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

/// A process that is gone is what was wanted, mostly.
pub(super) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// These, and all that descend from them.
pub(super) fn tree(roots: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    let parents = parents();
    let mut found: BTreeSet<u32> = roots.into_iter().filter(|root| parents.contains_key(root)).collect();
    loop {
        let below = parents.iter().filter(|(_, parent)| found.contains(parent)).map(|(pid, _)| *pid);
        let more: BTreeSet<u32> = below.filter(|pid| !found.contains(pid)).collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// The postmaster of a data directory, if its `postmaster.pid` names one that lives. The file outlives a killed server, and
/// the number may be another process's by then: a postmaster has its directory among its arguments.
pub(super) fn server_of(data: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    let arguments = match std::fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(arguments) => arguments,
        Err(_) if has_proc() => return None,
        Err(_) => ps(&["-p", &pid.to_string(), "-o", "command="])?.into_bytes(),
    };
    String::from_utf8_lossy(&arguments).contains(&*data.to_string_lossy()).then_some(pid)
}

fn has_proc() -> bool {
    Path::new("/proc/self/stat").exists()
}

/// Of every process, its parent. One that has ended and was not waited for is none.
fn parents() -> BTreeMap<u32, u32> {
    if !has_proc() {
        let all = ps(&["-A", "-o", "pid=,ppid=,stat="]).unwrap_or_default();
        return all.lines().filter_map(from_ps).collect();
    }
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let stats = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    stats.filter_map(|entry| from_stat(&std::fs::read_to_string(entry.path().join("stat")).ok()?)).collect()
}

fn ps(arguments: &[&str]) -> Option<String> {
    let output = Command::new("ps").args(arguments).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `1234 (a name (of any kind)) S 1 …`
fn from_stat(stat: &str) -> Option<(u32, u32)> {
    let (pid, _) = stat.split_once(' ')?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some((pid.parse().ok()?, parent))
}

/// `1234 1 Ss`
fn from_ps(line: &str) -> Option<(u32, u32)> {
    let mut fields = line.split_whitespace();
    let (pid, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (!fields.next()?.starts_with('Z')).then_some((pid, parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_parentheses() {
        assert_eq!(from_stat("12 (a) b (c)) S 7 12 12 0"), Some((12, 7)));
        assert_eq!(from_stat("12 (gone) Z 7 12"), None);
        assert_eq!(from_ps("  12   7 Ss+"), Some((12, 7)));
    }

    #[test]
    fn a_tree_has_children_and_their_children() {
        let mut shell = Command::new("sh").args(["-c", "sleep 60 & echo; wait"]).spawn().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while tree([shell.id()]).len() < 2 {
            assert!(std::time::Instant::now() < deadline);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(tree([std::process::id()]).is_superset(&tree([shell.id()])));
        for pid in tree([shell.id()]) {
            send(pid, Signal::KILL);
        }
        shell.wait().unwrap();
        assert!(tree([shell.id()]).is_empty());
    }
}
