//! The agent as process 1 of a container: a process that does nothing but start the agent proper, pass signals on to it, and
//! take leave of every process that dies.
//!
//! Apart from the agent because nobody can tell a dead child that somebody waits for from one that was left to process 1: who
//! reaps all of them takes the other's answer away. And because the agent may be killed and started again while PostgreSQL
//! runs on, also in a container.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, wait};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::time::sleep;

use super::AgentError;
use super::processes::send;

/// Between the death of an agent and the next one.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether this process is the first one, which inherits every other.
pub fn is_first() -> bool {
    std::process::id() == 1
}

/// Runs this same program again as an ordinary process, and returns with its exit code. One that was killed is started anew.
pub fn run() -> Result<u8, AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(system("a runtime"))?.block_on(live())
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> AgentError {
    move |source| AgentError::System { what, source }
}

async fn live() -> Result<u8, AgentError> {
    let listen = |kind| signal(kind).map_err(system("listening to signals"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut quit = listen(SignalKind::quit())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let mut child = listen(SignalKind::child())?;
    let mut is_to_end = false;
    loop {
        let agent = start()?;
        let code = loop {
            if let Some(ended) = reap(agent) {
                break ended;
            }
            let passed = tokio::select! {
                _ = terminate.recv() => Signal::TERM,
                _ = interrupt.recv() => Signal::INT,
                _ = quit.recv() => Signal::TERM,
                _ = hangup.recv() => Signal::HUP,
                _ = child.recv() => continue,
            };
            is_to_end |= passed != Signal::HUP;
            send(agent, passed);
        };
        match code {
            Some(code) => return Ok(code),
            None if is_to_end => return Ok(1),
            None => {
                eprintln!("pgbaton: the agent was killed; it is started again");
                rest(&mut child, &mut terminate).await;
            }
        }
    }
}

fn start() -> Result<u32, AgentError> {
    let program = std::env::current_exe().map_err(system("the agent"))?;
    let mut command = Command::new(program);
    // A group of its own: what is typed at a terminal comes from here, once.
    command.args(std::env::args_os().skip(1)).process_group(0);
    Ok(command.spawn().map_err(system("the agent"))?.id())
}

/// Takes leave of all that have died. When the agent is among them, its exit code, or none if it was killed.
fn reap(agent: u32) -> Option<Option<u8>> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if u32::try_from(Pid::as_raw(Some(pid))).is_ok_and(|pid| pid == agent) {
            ended = Some(status.exit_status().map(|code| u8::try_from(code).unwrap_or(1)));
        }
    }
    ended
}

async fn rest(child: &mut Stream, terminate: &mut Stream) {
    let pause = sleep(PAUSE);
    tokio::pin!(pause);
    loop {
        tokio::select! {
            () = &mut pause => return,
            // Nobody is there to be told.
            _ = terminate.recv() => std::process::exit(1),
            _ = child.recv() => drop(reap(0)),
        }
    }
}
