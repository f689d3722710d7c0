//! `pgbaton history` and `pgbaton availability`: what has been.

use clap::Args;

use super::asking::read;
use super::{Asking, Outcome, aligned, ask, watching};
use crate::admin::history::{self, Entries};
use crate::cluster::Availability;

pub(super) const HISTORY_HELP: &str = "\
Examples:
  pgbaton history --limit 5
  pgbaton history --json | jq '.entries[] | select(.what == \"epoch\")'";

pub(super) const AVAILABILITY_HELP: &str = "\
Time that no pgbaton watched is neither up nor down: it is said how much that is. What an operator ordered (a switchover)
is downtime, but no failure.

  MTTF  mean time to failure       uptime / failures
  MTTR  mean time to restoration   downtime / failures
  failure rate                     1 / MTTF
  availability                     MTTF / (MTTF + MTTR) = uptime / (uptime + downtime)

Example:
  pgbaton availability --window 90d";

#[derive(Debug, Args)]
pub(super) struct HistoryArguments {
    /// Only so many entries, the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    pub(super) asking: Asking,
}

#[derive(Debug, Args)]
pub(super) struct AvailabilityArguments {
    /// Until now from so long ago: 12h, 30d, "1month 3d"
    #[arg(long, value_name = "TIME", default_value = history::WINDOW, value_parser = window)]
    window: String,
    /// Again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    pub(super) asking: Asking,
}

/// As it was typed, if it means something.
fn window(text: &str) -> Result<String, String> {
    history::parse_window(text).map(|_| text.to_owned())
}

pub(super) fn history(HistoryArguments { limit, watch, asking }: HistoryArguments) -> Outcome {
    watching::show(&asking, watch, || {
        let answer = ask(&asking.admin, "/history", &[("limit", &limit.to_string())])?;
        if asking.json {
            return Ok(answer + "\n");
        }
        let Entries { entries } = read(&asking.admin, &answer)?;
        let table = history::table(&entries);
        let head = table.columns.iter().map(|column| column.name().to_owned()).collect();
        let rows = table.rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect());
        Ok(aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
    })
}

pub(super) fn availability(AvailabilityArguments { window, watch, asking }: AvailabilityArguments) -> Outcome {
    watching::show(&asking, watch, || {
        let answer = ask(&asking.admin, "/availability", &[("window", &window)])?;
        if asking.json {
            return Ok(answer + "\n");
        }
        let availability: Availability = read(&asking.admin, &answer)?;
        Ok(aligned(&availability.rows().into_iter().map(Vec::from).collect::<Vec<_>>()))
    })
}
