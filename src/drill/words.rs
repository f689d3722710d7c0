//! How the findings of a drill are said, in the terminal as in the report: promises, verdicts, times, SQLSTATEs.

use super::outcome::{End, MarkKind, Plan, Promise, Run, Verdict};

/// In the order in which they are judged and shown.
pub const PROMISES: [Promise; 6] = [
    Promise::NothingLost,
    Promise::HonestAnswers,
    Promise::OnePrimary,
    Promise::FreshReads,
    Promise::StayConnected,
    Promise::AsExpected,
];

impl Promise {
    pub fn name(self) -> &'static str {
        match self {
            Promise::FreshReads => "fresh reads",
            Promise::NothingLost => "nothing lost",
            Promise::OnePrimary => "one primary",
            Promise::StayConnected => "stay connected",
            Promise::HonestAnswers => "honest answers",
            Promise::AsExpected => "as expected",
        }
    }

    /// What is promised, as the end of "it is promised that …".
    pub fn meaning(self) -> &'static str {
        match self {
            Promise::FreshReads => "a session sees what it has written, and never less than before",
            Promise::NothingLost => "every acknowledged commit is there; in async, what is lost is within its bound",
            Promise::OnePrimary => "nobody writes to a node that was replaced",
            Promise::StayConnected => "sessions keep their connections",
            Promise::HonestAnswers => "what was said to have failed is not there, nothing is there twice, sums add up",
            Promise::AsExpected => "the cluster does what the scenario expects, and is whole in the end",
        }
    }

    /// Its number in docs/guarantees.md; none for what only the scenario expects.
    pub fn number(self) -> Option<&'static str> {
        match self {
            Promise::FreshReads => Some("P2"),
            Promise::NothingLost => Some("P4"),
            Promise::OnePrimary => Some("P5"),
            Promise::StayConnected => Some("P6"),
            Promise::HonestAnswers => Some("P7"),
            Promise::AsExpected => None,
        }
    }
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "kept",
            Verdict::Fail => "broken",
            Verdict::NotApplicable => "does not apply",
        }
    }
}

impl Plan {
    pub fn name(self) -> &'static str {
        match self {
            Plan::Pgbaton => "with pgbaton",
            Plan::MultiHost => "without pgbaton",
        }
    }
}

impl MarkKind {
    pub fn word(self) -> &'static str {
        match self {
            MarkKind::Fault => "fault",
            MarkKind::Mended => "mended",
            MarkKind::Seen => "seen",
        }
    }
}

/// What came of a run as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    Pass,
    Fail,
    Stuck,
    Skipped,
}

impl Result {
    pub fn of(run: &Run) -> Result {
        match &run.end {
            End::Skipped { .. } => Result::Skipped,
            End::Stuck { .. } => Result::Stuck,
            End::Played if run.is_bad() => Result::Fail,
            End::Played => Result::Pass,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Result::Pass => "pass",
            Result::Fail => "FAIL",
            Result::Stuck => "STUCK",
            Result::Skipped => "skipped",
        }
    }
}

/// A length of time, in as few digits as say enough: `612 ms`, `1.24 s`, `10.4 s`, `2 min 5 s`.
pub fn span(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 if ms.is_multiple_of(1000) => format!("{} s", ms / 1000),
        1000..10_000 => format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
        10_000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => match (ms / 60_000, ms % 60_000 / 1000) {
            (minutes, 0) => format!("{minutes} min"),
            (minutes, seconds) => format!("{minutes} min {seconds} s"),
        },
    }
}

/// With its noun: `1 read`, `2 reads`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The median; of an even number, the upper one.
pub fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// What a client is told by an SQLSTATE, as far as it is of those that a change of primary brings about. The words are
/// this project's where it sends the code itself (docs/architecture.md), else those of PostgreSQL's appendix A.
pub fn sqlstate(code: &str) -> &'static str {
    match code {
        "08000" | "08003" | "08006" => "the connection was lost",
        "08001" | "08004" => "no connection was made",
        "08007" => "nobody knows whether it was committed",
        "25006" => "a write on a node that is read-only",
        "25P02" => "the transaction had failed before",
        "25P03" => "the transaction was idle for too long",
        "40001" => "the transaction is to be repeated; it did not happen",
        "40003" => "nobody knows whether the statement was completed",
        "53100" => "the disk is full",
        "53300" => "too many connections",
        "55000" => "the object is not in the state for it",
        "57014" => "the statement was cancelled",
        "57P01" => "the server is being shut down, or an operator ended the session",
        "57P02" => "another process of the server crashed",
        "57P03" => "no primary within the time that statements are held",
        "57P05" => "the session was idle for too long",
        "58000" | "58030" | "XX000" => "the server is in trouble",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_few_digits() {
        let said = [0, 999, 1000, 1239, 10_449, 60_000, 125_999].map(span);
        assert_eq!(said, ["0 ms", "999 ms", "1 s", "1.23 s", "10.4 s", "1 min", "2 min 5 s"]);
    }

    #[test]
    fn a_median_is_a_value_that_was_measured() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![5, 1, 9]), Some(5));
        assert_eq!(median(vec![5, 1]), Some(5));
    }
}
