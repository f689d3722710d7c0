//! `--watch`: the same question again every second, until Ctrl-C or until nobody reads any more.

use std::io::{IsTerminal, Write as _};
use std::time::{Duration, SystemTime};

use super::{Asking, Outcome};
use crate::admin::tables::utc;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Begins at the top left corner of a terminal, and wipes what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Shows it once; `watch`: also while pgbaton cannot be reached. What `look` gives ends with a line break.
pub(super) fn show(
    asking: &Asking,
    watch: bool,
    look: impl Fn() -> Result<String, Box<dyn std::error::Error>>,
) -> Outcome {
    let mut out = std::io::stdout().lock();
    if !watch {
        let shown = look()?;
        // Whoever reads may have seen enough (`| head`).
        let _ = out.write_all(shown.as_bytes());
        return Ok(());
    }
    let clears = out.is_terminal() && !asking.json;
    loop {
        let shown = look().unwrap_or_else(|error| match asking.json {
            true => format!("{}\n", serde_json::json!({ "error": { "message": error.to_string() } })),
            false => format!("{error}\n"),
        });
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let written = match (clears, asking.json) {
            (true, _) => write!(out, "{CLEAR}{}, Ctrl-C ends\n\n{shown}", utc(now)),
            (false, true) => write!(out, "{shown}"),
            (false, false) => write!(out, "{}\n{shown}\n", utc(now)),
        };
        if written.and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
}
