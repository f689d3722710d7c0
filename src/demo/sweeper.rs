//! The last line of defence against servers left behind: a shell that outlives us, if only just.
//!
//! `Drop` does not run when the process is killed with SIGKILL, calls `exit`, or keeps the cluster in a static, as tests
//! do to share one. The sweeper reads from a pipe whose other end only we hold. When we end, however we end, it reads
//! end-of-file, stops whatever servers the data directories still name, and removes the directory.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$1` the cluster's directory, `$2` the signal for servers, `$3` whether to `keep` the directory.
///
/// A data directory's `postmaster.pid` may be stale and the number taken by another process, so the name is looked at.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
read -r answer && [ "$answer" = done ] && exit 0
is_server() {
    name=$(cat "/proc/$1/comm" 2>/dev/null || ps -o comm= -p "$1" 2>/dev/null)
    case "$name" in *postgres*|*postmaster*) return 0 ;; *) return 1 ;; esac
}
signal_servers() {
    left=0
    for file in "$1"/data/*/postmaster.pid; do
        [ -f "$file" ] || continue
        read -r pid < "$file" || continue
        is_server "$pid" || continue
        left=$((left + 1))
        [ "$2" = none ] || { kill "-$2" "$pid"; kill -CONT "$pid"; } 2>/dev/null
    done
}
for signal in "$2" QUIT KILL; do
    signal_servers "$1" "$signal"
    turn=0
    while [ "$turn" -lt 50 ]; do
        signal_servers "$1" none
        [ "$left" -eq 0 ] && break 2
        sleep 0.1
        turn=$((turn + 1))
    done
done
[ "$3" = keep ] || rm -rf -- "$1"
"#;

#[derive(Debug)]
pub struct Sweeper {
    shell: Option<Child>,
}

impl Sweeper {
    /// `signal` is the name of what stops a server: `INT` for a fast, `QUIT` for an immediate shutdown.
    pub fn watch(directory: &Path, signal: &str, keep: bool) -> std::io::Result<Sweeper> {
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "pgbaton-sweeper"])
            .arg(directory)
            .args([signal, if keep { "keep" } else { "remove" }])
            .current_dir("/")
            // A Ctrl-C at the terminal is for us; a group of its own also lets it end after us.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
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
