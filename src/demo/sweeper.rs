//! The last line of defence against servers left behind: a shell that outlives us, if only just.
//!
//! `Drop` does not run when the process is killed with SIGKILL, calls `exit`, or keeps the cluster in a static, as tests
//! do to share one. The sweeper reads from a pipe whose other end only we hold. When we end, however we end, it reads
//! end-of-file, ends the agents (which would start servers again) and whatever they run, stops whatever servers there still are,
//! and removes the directory.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$1` the cluster's directory, `$2` the signal for servers, `$3` whether to `keep` the directory, `$4` the name of the program
/// that agents are, empty: there are none.
///
/// A data directory's `postmaster.pid` may be stale and the number taken by another process, so the name is looked at. Agents and
/// what they run are known by their name and by a node's directory among their arguments, so that nobody's `tail -f` is ended.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
read -r answer && [ "$answer" = done ] && exit 0
directory=$1 agent=$4
name_of() {
    name=
    { read -r name < "/proc/$1/comm"; } 2>/dev/null || name=$(ps -o comm= -p "$1" 2>/dev/null)
    name=${name##*/}
}
is_server() {
    name_of "$1"
    case "$name" in *postgres*|*postmaster*) return 0 ;; *) return 1 ;; esac
}
mine() {
    if [ -d /proc/self ]; then
        # One question for all: there may be hundreds of processes, and the machine may be busy.
        for file in $(grep -l -s -F -e "$directory/n" -e "$directory/pgbaton" /proc/[0-9]*/cmdline); do
            file=${file#/proc/}
            echo "${file%/cmdline}"
        done
    else
        ps -A -o pid=,command= | grep -F -e "$directory/n" -e "$directory/pgbaton" | while read -r pid rest; do echo "$pid"; done
    fi
}
end_agents() {
    left=0
    for pid in $(mine); do
        name_of "$pid"
        case "$name" in "$agent"|initdb|pg_basebackup|pg_rewind) ;; *) continue ;; esac
        left=$((left + 1))
        kill -KILL "$pid" 2>/dev/null
    done
}
servers() {
    for file in "$directory"/data/*/postmaster.pid; do
        [ -f "$file" ] || continue
        read -r pid < "$file" || continue
        is_server "$pid" && echo "$pid"
    done
    [ -n "$agent" ] || return
    for pid in $(mine); do
        is_server "$pid" && echo "$pid"
    done
}
signal_servers() {
    left=0
    for pid in $(servers); do
        left=$((left + 1))
        [ "$1" = none ] || { kill "-$1" "$pid"; kill -CONT "$pid"; } 2>/dev/null
    done
}
turn=0
while [ -n "$agent" ] && [ "$turn" -lt 50 ]; do
    end_agents
    [ "$left" -eq 0 ] && break
    sleep 0.1
    turn=$((turn + 1))
done
for signal in "$2" QUIT KILL; do
    signal_servers "$signal"
    turn=0
    while [ "$turn" -lt 50 ]; do
        signal_servers none
        [ "$left" -eq 0 ] && break 2
        sleep 0.1
        turn=$((turn + 1))
    done
done
[ "$3" = keep ] || rm -rf -- "$directory"
"#;

/// How much of a program's name the kernel tells.
const NAME: usize = 15;

#[derive(Debug)]
pub struct Sweeper {
    shell: Option<Child>,
}

impl Sweeper {
    /// `signal` is the name of what stops a server: `INT` for a fast, `QUIT` for an immediate shutdown.
    pub fn watch(directory: &Path, signal: &str, keep: bool) -> std::io::Result<Sweeper> {
        Self::spawn(directory, signal, keep, "", Stdio::null())
    }

    /// The same where agents run the servers: `program` is what they are. It holds the lock until everything is swept.
    pub fn watch_agents(directory: &Path, keep: bool, program: &Path, lock: File) -> std::io::Result<Sweeper> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let name: String = name.chars().take(NAME).collect();
        Self::spawn(directory, "INT", keep, &name, lock.into())
    }

    fn spawn(directory: &Path, signal: &str, keep: bool, agent: &str, output: Stdio) -> std::io::Result<Sweeper> {
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "pgbaton-sweeper"])
            .arg(directory)
            .args([signal, if keep { "keep" } else { "remove" }, agent])
            .current_dir("/")
            // A Ctrl-C at the terminal is for us; a group of its own also lets it end after us.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Sweeper { shell: Some(shell) })
    }

    /// Everything is stopped and removed: nothing to sweep.
    pub fn dismiss(&mut self) {
        let Some(mut shell) = self.shell.take() else { return };
        if let Some(mut pipe) = shell.stdin.take() {
            let _ = pipe.write_all(b"done\n");
        }
        let _ = shell.wait();
    }
}
