//! How an operator's verb asks a running pgbaton, and what it says when there is no good answer.

use std::fmt;
use std::time::{Duration, Instant};

use clap::Args;
use serde::de::DeserializeOwned;

use super::Outcome;
use super::progress::Progress;
use crate::admin::orders::Done;
use crate::net::http::{self, ClientError, HttpUrl};

/// How long the answer to an order may take. It goes on if nobody waits for it any more.
const CARRIED_OUT: Duration = Duration::from_secs(600);

/// Whom an operator's verb asks, and how it says the answer.
#[derive(Debug, Args)]
pub(super) struct Asking {
    /// The admin endpoint of a running pgbaton
    #[arg(long, value_name = "URL", env = "PGBATON_ADMIN", hide_env_values = true)]
    #[arg(default_value = "http://127.0.0.1:6433")]
    pub(super) admin: HttpUrl,
    /// Print the answer as JSON, also that it was refused
    #[arg(long)]
    pub(super) json: bool,
}

/// The same of an order that takes its time.
#[derive(Debug, Args)]
pub(super) struct Ordering {
    #[command(flatten)]
    pub(super) asking: Asking,
    /// Do not say on standard error how far it is (nobody is told where that is no terminal)
    #[arg(long, short)]
    pub(super) quiet: bool,
}

/// Why there is no good answer. With `--json` it is printed as the endpoint would say it.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) hint: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\nHint: {}", self.hint) }
    }
}

impl std::error::Error for Failed {}

impl Failed {
    pub(super) fn new(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Failed {
        Failed { code: code.to_owned(), message: message.into(), hint: hint.into() }
    }
}

/// What a running pgbaton wants to be shown, from the environment.
pub(super) fn token() -> Result<Option<String>, String> {
    if let Ok(token) = std::env::var("PGBATON_TOKEN") {
        return Ok(Some(token));
    }
    let Some(file) = std::env::var_os("PGBATON_TOKEN_FILE").filter(|file| !file.is_empty()) else { return Ok(None) };
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("cannot read {} (PGBATON_TOKEN_FILE): {error}", file.display()))?;
    Ok(text.lines().next().map(str::to_owned))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Asks a running pgbaton.
pub(super) fn ask(
    admin: &HttpUrl,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<String, Box<dyn std::error::Error>> {
    let runtime = runtime()?;
    let token = token()?;
    let answer = runtime.block_on(http::get(admin, token.as_deref(), path, parameters, http::ANSWER));
    Ok(answer.map_err(|error| failed(admin, error))?)
}

/// Reads an answer; one that is not understood may come from a pgbaton of another version.
pub(super) fn read<T: DeserializeOwned>(admin: &HttpUrl, answer: &str) -> Result<T, Failed> {
    serde_json::from_str(answer).map_err(|error| strange(admin, format!("its answer is not understood: {error}")))
}

/// Gives an order to a running pgbaton and prints what was done.
pub(super) fn order(asking: &Asking, path: &str, body: &impl serde::Serialize) -> Outcome {
    say(asking, &give(asking, true, path, body)?)
}

/// Prints what was done.
pub(super) fn say(asking: &Asking, answer: &str) -> Outcome {
    if asking.json {
        println!("{answer}");
        return Ok(());
    }
    let Done { done } = read(&asking.admin, answer)?;
    println!("{done}");
    Ok(())
}

/// Gives an order, and says on the way how far it is; the answer is as it came.
pub(super) fn give(
    asking: &Asking,
    is_quiet: bool,
    path: &str,
    body: &impl serde::Serialize,
) -> Result<String, Box<dyn std::error::Error>> {
    let token = token()?;
    let body = serde_json::to_string(body)?;
    let begun = Instant::now();
    let answer = runtime()?.block_on(async {
        let (admin, path) = (asking.admin.clone(), path.to_owned());
        // In a task of its own: it is not to wait for those who look how far it is.
        let order = tokio::spawn(async move { http::post(&admin, token.as_deref(), &path, body, CARRIED_OUT).await });
        Progress::new(&asking.admin, is_quiet).until(order).await
    });
    Ok(answer?.map_err(|error| match error {
        // It was given, then.
        ClientError::Unreachable { .. } if begun.elapsed() >= CARRIED_OUT => {
            Failed::new("late", error.to_string(), "It goes on: see `pgbaton list` and `pgbaton history`.")
        }
        error => failed(&asking.admin, error),
    })?)
}

/// One sentence on what is wrong, and one on what to do about it.
fn failed(admin: &HttpUrl, error: ClientError) -> Failed {
    match error {
        ClientError::Unreachable { .. } => {
            let hint = "Is pgbaton running, and admin.listen that address? --admin or PGBATON_ADMIN names another one.";
            Failed::new("unreachable", error.to_string(), hint)
        }
        // Of a path that this version knows.
        ClientError::Refused { ref code, .. } if code == "unknown_path" => {
            strange(admin, "it does not know that".into())
        }
        ClientError::Refused { code, message, hint } => Failed { code, message, hint },
        ClientError::Strange { .. } => {
            let hint = "Something else listens there. --admin or PGBATON_ADMIN is the address in admin.listen.";
            Failed::new("strange", error.to_string(), hint)
        }
        ClientError::Unsayable(_) => Failed::new("unsayable", error.to_string(), ""),
    }
}

/// Of an answer that pgbaton would not give; unless it is another one.
fn strange(admin: &HttpUrl, reason: String) -> Failed {
    const OURS: &str = env!("CARGO_PKG_VERSION");
    let description = runtime()
        .ok()
        .and_then(|runtime| runtime.block_on(http::get(admin, None, "/openapi.json", &[], http::ANSWER)).ok());
    let version = description
        .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
        .and_then(|description| Some(description["info"]["version"].as_str()?.to_owned()));
    match version {
        Some(version) if version != OURS => {
            let message = format!("{admin} is pgbaton {version}, and this is {OURS}: {reason}");
            Failed::new("other_version", message, "Use the commands of the version that runs there.")
        }
        _ => {
            let hint = "Something else listens there, or a pgbaton of another version.";
            Failed::new("strange", format!("{admin} does not answer as pgbaton {OURS} does: {reason}"), hint)
        }
    }
}
