//! How the chaos is told: a line a second, a line for each event, and a summary.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, SystemTime};

use super::Outcome;
use super::load::Verdict;
use super::tally::{Second, Tally};
use crate::admin::picture::Cluster;
use crate::admin::tables::utc;

/// What colour an event has, where there are colours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Bad,
    Good,
}

pub(super) struct Report {
    has_colours: bool,
}

impl Report {
    pub fn new() -> Report {
        let has_colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Report { has_colours }
    }

    /// What has happened just now, to a tenth of a second.
    pub fn event(&self, mood: Mood, text: &str) {
        let colour = if mood == Mood::Bad { "\x1b[33m" } else { "\x1b[32m" };
        let (on, off) = if self.has_colours { (colour, "\x1b[0m") } else { ("", "") };
        self.say(&format!("{} {on}{text}{off}", clock(true)));
    }

    pub fn second(&self, cluster: &Cluster, second: &Second) {
        let line = line(cluster, second);
        let (on, off) = if self.has_colours { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        self.say(&format!("{on}{}  {line}{off}", clock(false)));
    }

    fn say(&self, line: &str) {
        // Whoever reads may have seen enough; the cluster is taken down all the same.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}

/// `12:03:04` or `12:03:04.4`, UTC.
fn clock(with_tenths: bool) -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let text = utc(since.as_secs());
    let time = text.split(' ').nth(1).unwrap_or_default();
    if with_tenths { format!("{time}.{}", since.subsec_millis() / 100) } else { time.to_owned() }
}

fn line(cluster: &Cluster, second: &Second) -> String {
    let reads: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| format!("{} {:<4.0}", node.id, second.reads.get(&node.id).copied().unwrap_or_default()))
        .collect();
    // Of one that nobody knows the lag of, there is nothing to say.
    let lag = cluster.nodes.iter().filter(|node| node.role == "replica").filter_map(|node| node.lag_ms).max();
    let lag = lag.map_or("-".into(), |lag| format!("{lag} ms"));
    let epoch = cluster.epoch.map_or("-".into(), |epoch| epoch.to_string());
    let primary = cluster.primary.as_deref().unwrap_or("none");
    let errors = if second.errors.is_empty() { "none".to_owned() } else { counted(&second.errors) };
    format!(
        "{:>4.0} writes/s  reads/s {}  lag {lag:<6}  epoch {epoch}  primary {primary:<4}  longest pause {:<7}  errors {errors}",
        second.writes,
        reads.join(" "),
        span(second.longest),
    )
}

fn counted<K: AsRef<str> + Ord>(counts: &BTreeMap<K, u64>) -> String {
    counts.iter().map(|(what, count)| format!("{count} {}", what.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `380 ms`, `3.1 s`
pub(super) fn span(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// What came of it.
pub(super) struct Summary<'c> {
    pub took: Duration,
    pub outcomes: &'c [Outcome],
    pub tally: &'c Tally,
    pub verdict: &'c Result<Verdict, String>,
}

impl Summary<'_> {
    pub fn text(&self) -> String {
        let Summary { took, outcomes, tally, verdict } = self;
        let total = tally.total();
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        for outcome in *outcomes {
            *kinds.entry(outcome.what).or_default() += 1;
        }
        let faults = if outcomes.is_empty() { String::new() } else { format!(": {}", counted(&kinds)) };
        let mut text = format!("In {} {} faults{faults}\n\n", span(*took), outcomes.len());
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<13} {value}");
        };
        match verdict {
            Ok(Verdict { acknowledged, present, in_doubt, in_doubt_present, lost, duplicated }) => {
                row(
                    "acknowledged",
                    format!("{acknowledged} rows, and {in_doubt} left in doubt ({in_doubt_present} of them there)"),
                );
                row("present", format!("{present} rows"));
                row("lost", lost.to_string());
                row("duplicated", duplicated.to_string());
            }
            Err(error) => row("rows", format!("could not be counted: {error}")),
        }
        let by_node = if total.reads.is_empty() { "none".to_owned() } else { counted(&total.reads) };
        row("reads", format!("{by_node}; seen to go back in time: {}", total.backwards));
        row("errors", if total.errors.is_empty() { "none".into() } else { counted(&total.errors) });
        let pauses: Vec<Duration> = outcomes.iter().filter_map(|outcome| outcome.pause).collect();
        let (changes, median) = (pauses.len(), middle(pauses).map_or("-".into(), span));
        let longest = span(total.longest);
        row("write pauses", format!("median {median} at {changes} changes of primary; longest of all {longest}"));
        let healed: Vec<Duration> = outcomes.iter().filter_map(|outcome| outcome.healed).collect();
        let longest = healed.iter().max().copied().map_or("-".into(), span);
        let times = format!("{} of {} times within 60 s", healed.len(), outcomes.len());
        row("healed", format!("{times}, median {}, longest {longest}", middle(healed).map_or("-".into(), span)));
        text
    }

    /// Why all is not well.
    pub fn judge(&self) -> Result<(), String> {
        let verdict = self.verdict.as_ref().map_err(|error| format!("the rows could not be counted: {error}"))?;
        let unhealed = self.outcomes.iter().filter(|outcome| outcome.healed.is_none()).count();
        let backwards = self.tally.total().backwards;
        let mut amiss = Vec::new();
        let mut note = |count: u64, what: &str| {
            if count > 0 {
                amiss.push(format!("{count} {what}"));
            }
        };
        note(verdict.lost, "acknowledged rows were lost");
        note(verdict.duplicated, "rows are there twice");
        note(backwards, "reads saw less than the same session had seen before");
        note(unhealed as u64, "faults were not healed within 60 s");
        if amiss.is_empty() { Ok(()) } else { Err(amiss.join("; ")) }
    }
}

/// The median; of an even number, the upper one.
fn middle(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort();
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(what: &'static str, pause: u64, healed: Option<u64>) -> Outcome {
        Outcome {
            what,
            pause: (pause > 0).then(|| Duration::from_millis(pause)),
            healed: healed.map(Duration::from_millis),
        }
    }

    #[test]
    fn a_summary_says_what_was_lost() {
        let tally = Tally::new();
        tally.read("n2");
        tally.failed("40001");
        let outcomes =
            [outcome("kill -9", 380, Some(3100)), outcome("kill -9", 450, Some(2000)), outcome("freeze", 0, None)];
        let verdict =
            Ok(Verdict { acknowledged: 10, present: 10, in_doubt: 2, in_doubt_present: 1, lost: 1, duplicated: 0 });
        let summary = Summary { took: Duration::from_secs(42), outcomes: &outcomes, tally: &tally, verdict: &verdict };
        assert_eq!(
            summary.text(),
            "In 42.0 s 3 faults: 1 freeze, 2 kill -9\n\n\
             \x20 acknowledged  10 rows, and 2 left in doubt (1 of them there)\n\
             \x20 present       10 rows\n\
             \x20 lost          1\n\
             \x20 duplicated    0\n\
             \x20 reads         1 n2; seen to go back in time: 0\n\
             \x20 errors        1 40001\n\
             \x20 write pauses  median 450 ms at 2 changes of primary; longest of all 0 ms\n\
             \x20 healed        2 of 3 times within 60 s, median 3.1 s, longest 3.1 s\n"
        );
        assert_eq!(summary.judge().unwrap_err(), "1 acknowledged rows were lost; 1 faults were not healed within 60 s");
    }

    #[test]
    fn nothing_amiss_is_said_to_be_so() {
        let (tally, verdict) = (Tally::new(), Ok(Verdict::default()));
        let outcomes = [outcome("kill -9", 380, Some(3100))];
        let summary = Summary { took: Duration::from_secs(9), outcomes: &outcomes, tally: &tally, verdict: &verdict };
        assert_eq!(summary.judge(), Ok(()));
        let verdict = Err("no answer".to_owned());
        assert!(Summary { verdict: &verdict, ..summary }.judge().unwrap_err().contains("no answer"));
    }
}
