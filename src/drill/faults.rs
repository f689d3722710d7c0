//! What is done to a node: to all of its processes, as when a machine dies or stands still, or to one of them.
//!
//! Backends are sessions of their own, so a process group does not reach them; they are found as children in `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long killed processes may take to be gone on a busy machine.
const GONE: Duration = Duration::from_secs(30);

/// SIGKILL to a process and all its descendants at once: nothing notices the death of another, nothing says goodbye. Waits
/// until they are gone.
pub fn kill_all(root: u32) {
    kill_these(&freeze_all(root));
}

/// Of processes that stand still.
pub fn kill_these(all: &BTreeSet<u32>) {
    for pid in all {
        send(*pid, Signal::KILL);
    }
    wait_for_end(all);
}

/// SIGKILL to a postmaster alone; its children notice and end, each in its own time.
pub fn kill_alone(postmaster: u32) {
    let all = family(postmaster);
    send(postmaster, Signal::KILL);
    wait_for_end(&all);
}

/// SIGSTOP to a process and all its descendants, as when a virtual machine is paused: sockets stay open, nobody answers.
/// Returns the processes.
pub fn freeze_all(postmaster: u32) -> BTreeSet<u32> {
    // First the one that makes others, then those there are.
    send(postmaster, Signal::STOP);
    let mut frozen = BTreeSet::new();
    loop {
        let all = family(postmaster);
        if all.is_subset(&frozen) {
            return frozen;
        }
        for pid in &all {
            send(*pid, Signal::STOP);
        }
        frozen.extend(all);
    }
}

pub fn thaw(processes: &BTreeSet<u32>) {
    for pid in processes {
        send(*pid, Signal::CONT);
    }
}

/// A process and all its descendants.
pub fn family(root: u32) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some((parent, state)) = parent_and_state(pid)
            && state != 'Z'
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = BTreeSet::from([root]);
    let mut left = vec![root];
    while let Some(pid) = left.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            family.insert(*child);
            left.push(*child);
        }
    }
    family
}

/// The command name in `/proc/<pid>/stat` may hold anything, so what follows its last parenthesis is read.
fn parent_and_state(pid: u32) -> Option<(u32, char)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

fn wait_for_end(processes: &BTreeSet<u32>) {
    let deadline = Instant::now() + GONE;
    let is_gone = |pid: &u32| parent_and_state(*pid).is_none_or(|(_, state)| state == 'Z');
    while !processes.iter().all(is_gone) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One that is gone is what was wanted.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}
