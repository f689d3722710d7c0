//! How an operator's verb asks a running pgbaton, and what it says when there is no good answer.

use std::time::{Duration, Instant};

use clap::Args;

use super::Outcome;
use crate::admin::orders::Done;
use crate::net::http::{self, ClientError, HttpUrl};

/// How long the answer to an order may take. It goes on if nobody waits for it any more.
const CARRIED_OUT: Duration = Duration::from_secs(600);

/// Whom an operator's verb asks, and how it says the answer.
#[derive(Debug, Args)]
pub(super) struct Asking {
    /// The admin endpoint of a running pgbaton
    #[arg(long, value_name = "URL", env = "PGBATON_ADMIN", default_value = "http://127.0.0.1:6433")]
    pub(super) admin: HttpUrl,
    /// Print the answer as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// What a running pgbaton wants to be shown, from the environment.
fn token() -> Result<Option<String>, String> {
    if let Ok(token) = std::env::var("PGBATON_TOKEN") {
        return Ok(Some(token));
    }
    let Some(file) = std::env::var_os("PGBATON_TOKEN_FILE").filter(|file| !file.is_empty()) else { return Ok(None) };
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("cannot read {} (PGBATON_TOKEN_FILE): {error}", file.display()))?;
    Ok(text.lines().next().map(str::to_owned))
}

/// Asks a running pgbaton.
pub(super) fn ask(
    admin: &HttpUrl,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<String, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let token = token()?;
    Ok(runtime.block_on(http::get(admin, token.as_deref(), path, parameters, http::ANSWER)).map_err(unanswered)?)
}

/// Gives an order to a running pgbaton and prints what was done.
pub(super) fn order(asking: &Asking, path: &str, body: &impl serde::Serialize) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let token = token()?;
    let body = serde_json::to_string(body)?;
    let begun = Instant::now();
    let answer = runtime.block_on(http::post(&asking.admin, token.as_deref(), path, body, CARRIED_OUT));
    let answer = answer.map_err(|error| match error {
        // It was given, then.
        ClientError::Unreachable { .. } if begun.elapsed() >= CARRIED_OUT => {
            format!("{error}; it goes on: see `pgbaton list` and `pgbaton history`")
        }
        error => unanswered(error),
    })?;
    if asking.json {
        println!("{answer}");
        return Ok(());
    }
    let Done { done } = serde_json::from_str(&answer)?;
    println!("{done}");
    Ok(())
}

fn unanswered(error: ClientError) -> String {
    match error {
        ClientError::Unreachable { .. } => {
            format!("{error}; is pgbaton running, and admin.listen that address (--admin, PGBATON_ADMIN)?")
        }
        error => error.to_string(),
    }
}
