//! Who asked for what: one line in the log for each order, whatever way it came, with what became of it and why.
//!
//! An order goes on when whoever gave it hangs up, and so does the line about it: both are in a task of their own.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, Request};
use axum::http::header::USER_AGENT;
use axum::http::{Extensions, HeaderMap, request};

use super::orders::{Orders, Reload};
use crate::cluster::Command;
use crate::net::endpoint::Caller;

/// What somebody may call themselves, in characters.
const LONGEST_NAME: usize = 100;

/// Between two lines about tokens that were refused: whoever tries them all shall not fill the disk with it.
const TOKEN_LINES: Duration = Duration::from_secs(10);

/// Who asks, as far as they say and can be seen. Never proof of anything: what they were let in for is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// A user of the console; what a program calls itself, with the system's user if it is one of pgbaton's verbs.
    name: String,
    /// `HTTP`, `console` or `signal`.
    over: &'static str,
    /// Address and port, or that it is of this machine.
    peer: String,
}

impl Who {
    pub fn console(user: &str, peer: &str) -> Who {
        Who { name: printable(user), over: "console", peer: peer.to_owned() }
    }

    pub fn signal(name: &str) -> Who {
        Who { name: name.to_owned(), over: "signal", peer: "this machine".into() }
    }

    pub(super) fn of(request: &Request) -> Who {
        Who::at(request.headers(), request.extensions())
    }

    fn at(headers: &HeaderMap, extensions: &Extensions) -> Who {
        let name = headers.get(USER_AGENT).map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
        let peer = extensions.get::<Caller>().map(|Caller(address)| address.to_string());
        Who {
            name: name.map_or("somebody".into(), |name| printable(&name)),
            over: "HTTP",
            peer: peer.unwrap_or_default(),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} ({})", self.name, self.peer, self.over)
    }
}

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Who, Infallible> {
        Ok(Who::at(&parts.headers, &parts.extensions))
    }
}

/// What others call themselves cannot break a line, nor fill one.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(LONGEST_NAME).collect()
}

/// Has an order carried out.
pub async fn carry_out(orders: &Orders, who: Who, command: Command) -> Result<String, String> {
    let what = told(&command);
    let carried_out = orders(command, who.to_string());
    log(who, what, carried_out).await
}

/// Has the configuration file read again.
pub async fn reload(reload: &Reload, who: Who) -> Result<String, String> {
    log(who, "reload".into(), reload()).await
}

async fn log(
    who: Who,
    what: String,
    carried_out: impl Future<Output = Result<String, String>> + Send + 'static,
) -> Result<String, String> {
    let task = tokio::spawn(async move {
        let result = carried_out.await;
        match &result {
            Ok(done) => tracing::info!(by = %who, order = what, outcome = "done", reason = done, "an order"),
            Err(reason) => tracing::warn!(by = %who, order = what, outcome = "refused", reason, "an order"),
        }
        result
    });
    // It ends early only when everything does.
    task.await.unwrap_or_else(|_| Err("shutting down".into()))
}

/// As it is typed on the command line.
fn told(command: &Command) -> String {
    match command {
        Command::Pause => "pause".into(),
        Command::Resume => "resume".into(),
        Command::Switchover { to: None } => "switchover".into(),
        Command::Switchover { to: Some(to) } => format!("switchover --to {to}"),
        Command::Failover { to, allow_data_loss: false } => format!("failover --to {to}"),
        Command::Failover { to, allow_data_loss: true } => format!("failover --to {to} --allow-data-loss"),
        Command::Maintenance { node, on } => format!("maintenance {node} {}", if *on { "on" } else { "off" }),
        Command::Rejoin { node, rebuild: false } => format!("rejoin {node}"),
        Command::Rejoin { node, rebuild: true } => format!("rebuild {node}"),
        Command::Restart { node } => format!("restart {node}"),
    }
}

/// Says that somebody without the right to it asked for this.
pub(super) fn refused(who: &Who, order: &str, reason: &str) {
    tracing::warn!(by = %who, order = printable(order), outcome = "refused", reason, "an order");
}

/// Says that somebody did not show the right token; often only how often that was.
pub(super) fn refused_token(who: &Who, path: &str) {
    static TOLD: Mutex<Quiet> = Mutex::new(Quiet { since: None, untold: 0 });
    let untold = TOLD.lock().unwrap_or_else(PoisonError::into_inner).ask(Instant::now());
    if let Some(untold) = untold {
        tracing::warn!(by = %who, order = printable(path), outcome = "refused", untold, reason = "without the token", "an order");
    }
}

/// When it was last said, and how often not since.
struct Quiet {
    since: Option<Instant>,
    untold: u64,
}

impl Quiet {
    /// How many were not told of, if this one is to be.
    fn ask(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_some_and(|since| now.duration_since(since) < TOKEN_LINES) {
            self.untold += 1;
            return None;
        }
        self.since = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_calls_themselves_cannot_break_a_line() {
        let who = Who::console("al\nice\u{1b}[2J", "10.0.0.1:5");
        assert_eq!(who.to_string(), "al?ice?[2J from 10.0.0.1:5 (console)");
        assert_eq!(Who::console(&"x".repeat(1000), "").name.len(), LONGEST_NAME);
    }

    #[test]
    fn many_refused_tokens_are_few_lines() {
        let mut quiet = Quiet { since: None, untold: 0 };
        let begin = Instant::now();
        assert_eq!(quiet.ask(begin), Some(0));
        assert_eq!((quiet.ask(begin), quiet.ask(begin + TOKEN_LINES / 2)), (None, None));
        assert_eq!(quiet.ask(begin + TOKEN_LINES), Some(2));
        assert_eq!(quiet.ask(begin + TOKEN_LINES * 2), Some(0));
    }
}
