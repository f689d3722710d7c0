//! One postmaster as a process: our child, or one that was there before us.
//!
//! A task waits for its end; only that task signals it, so no signal reaches another process that got its number.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{mpsc, watch};

use super::processes::{Identity, send};

/// How often one that is not our child is looked at.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub struct Process {
    pub pid: u32,
    signals: mpsc::UnboundedSender<Signal>,
    /// How it ended.
    ended: watch::Receiver<Option<String>>,
}

impl Process {
    /// Runs within a runtime. That the returned value is dropped does not end the process.
    pub fn spawn(command: Command) -> std::io::Result<Process> {
        let mut child = tokio::process::Command::from(command).spawn()?;
        // It has one until it was waited for.
        let pid = child.id().unwrap_or_default();
        let (signals, mut wanted) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(None);
        tokio::spawn(async move {
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    Some(signal) = wanted.recv() => {
                        if let Some(pid) = child.id() {
                            send(pid, signal);
                        }
                    }
                }
            };
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            end.send_replace(Some(status));
        });
        Ok(Process { pid, signals, ended })
    }

    /// One that runs already, and is somebody else's child.
    pub fn adopt(identity: Identity) -> Process {
        let (signals, mut wanted) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(None);
        tokio::spawn(async move {
            while identity.lives() {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    Some(signal) = wanted.recv() => identity.signal(signal),
                }
            }
            end.send_replace(Some("it was started by another agent, so it is not known how".into()));
        });
        Process { pid: identity.pid, signals, ended }
    }

    pub fn signal(&self, signal: Signal) {
        // The task is gone when the process is.
        let _ = self.signals.send(signal);
    }

    /// How it ended; `None`: it lives.
    pub fn ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// Waits for its end.
    pub async fn end(&self) -> String {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await;
        end.ok().and_then(|status| status.clone()).unwrap_or_default()
    }
}
