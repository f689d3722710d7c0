//! Running PostgreSQL's programs so that nothing of them outlives the order that wanted them.

use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;

use crate::agent::{Failed, Site};
use crate::cluster::agent::Code;
use crate::net::Conninfo;

/// So many lines of what a program complained of go into an error.
const KEPT_LINES: usize = 12;

/// What a program came to.
pub struct Ended {
    pub status: ExitStatus,
    /// The end of its standard error.
    pub complaint: String,
}

/// Kills the program with its children when it is dropped before its end.
struct Job(Child);

impl Drop for Job {
    fn drop(&mut self) {
        // It has an id for as long as nobody has waited for its end, so the number is not somebody else's.
        if let Some(pid) = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Ended {
    pub fn is_disk_full(&self) -> bool {
        self.complaint.contains("No space left on device") || self.complaint.contains("Disk quota exceeded")
    }

    /// An error for a program that had to succeed.
    pub fn check(self, what: &str) -> Result<(), Failed> {
        if self.status.success() {
            return Ok(());
        }
        let code = if self.is_disk_full() {
            Code::DiskFull
        } else if is_about_password(&self.complaint) {
            Code::Password
        } else {
            Code::Failed
        };
        Err(Failed::new(code, format!("{what} failed ({}): {}", self.status, self.complaint)))
    }
}

/// Whether somebody complains that he was not let in.
pub fn is_about_password(text: &str) -> bool {
    ["password authentication failed", "no password supplied", "no pg_hba.conf entry", "pg_hba.conf rejects"]
        .iter()
        .any(|phrase| text.contains(phrase))
}

/// One of PostgreSQL's programs, which speaks English, and knows the password that it may be asked for: in its environment,
/// which nobody else can read.
pub fn command(site: &Site, program: &str) -> Command {
    let mut command = site.runner.command(&site.bin.program(program));
    command.env("LC_ALL", "C").env("PGCONNECT_TIMEOUT", "10");
    if let Some(password) = &site.control_password {
        command.env("PGPASSWORD", password.reveal());
    }
    command
}

/// A connection string for a program, which everybody may see in the list of processes. It does not go by the node's name:
/// a copy under way that tells the primary how far it is must not be taken for the synchronous standby of that name.
pub fn without_secrets(conninfo: &Conninfo) -> String {
    let mut conninfo = conninfo.clone();
    conninfo.set("application_name", "pgbaton_repair");
    conninfo.remove("password");
    conninfo.remove("sslpassword");
    conninfo.to_text()
}

/// Runs it to the end. `says` is given each line of its output; `is_progress` each of its standard error, and whether that
/// is no complaint.
pub async fn run(
    mut command: Command,
    what: &str,
    says: impl FnMut(&str),
    mut is_progress: impl FnMut(&str) -> bool,
) -> Result<Ended, Failed> {
    let failed = |error: std::io::Error| Failed::new(Code::Failed, format!("cannot run {what}: {error}"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    let mut job = Job(command.kill_on_drop(true).spawn().map_err(failed)?);
    let (Some(output), Some(errors)) = (job.0.stdout.take(), job.0.stderr.take()) else {
        return Err(Failed::new(Code::Failed, format!("cannot read what {what} says")));
    };
    let mut complaints: Vec<String> = Vec::new();
    let listens = each_line(errors, |line| {
        if !line.is_empty() && !is_progress(line) {
            if complaints.len() == KEPT_LINES {
                complaints.remove(0);
            }
            complaints.push(line.to_owned());
        }
    });
    let (said, complained) = tokio::join!(each_line(output, says), listens);
    said.and(complained).map_err(failed)?;
    let status = job.0.wait().await.map_err(failed)?;
    Ok(Ended { status, complaint: complaints.join("\n") })
}

/// Progress is written over itself with carriage returns.
async fn each_line(from: impl AsyncRead + Unpin, mut take: impl FnMut(&str)) -> std::io::Result<()> {
    let mut from = BufReader::with_capacity(1 << 16, from);
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        text.trim_end().split('\r').for_each(&mut take);
    }
}

/// Runs what has little to say, and must succeed.
pub async fn output(command: Command, what: &str) -> Result<String, Failed> {
    let mut text = String::new();
    let says = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    run(command, what, says, |_| false).await?.check(what)?;
    Ok(text)
}
