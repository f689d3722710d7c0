//! What a drill found as a table for the terminal: a line for each run, below it what was broken, and a last word.

use std::fmt::Write as _;

use super::outcome::{End, Figures, Plan, Report, Run, Verdict};
use super::words::{Result, counted, median, span};

const HEAD: [&str; 12] = [
    "scenario",
    "durability",
    "result",
    "detected",
    "first write",
    "write gap",
    "read gap",
    "errors",
    "dropped",
    "lost",
    "unknown",
    "stale",
];
/// The first columns, which hold words; numbers stand at the right of theirs.
const WORDS: usize = 3;

/// A line of the table, and what is to be said below it.
struct Line {
    cells: Vec<String>,
    below: Vec<String>,
}

pub fn table(report: &Report) -> String {
    let mut lines = vec![Line { cells: HEAD.map(str::to_owned).to_vec(), below: Vec::new() }];
    lines.extend(report.runs.iter().map(line));
    for plan in [Plan::Pgbaton, Plan::MultiHost] {
        let runs: Vec<&Run> =
            report.runs.iter().filter(|run| run.plan == plan && Result::of(run) != Result::Skipped).collect();
        if runs.len() > 1 {
            lines.push(Line { cells: medians(plan, &runs), below: Vec::new() });
        }
    }
    let mut text = aligned(&lines);
    let _ = write!(text, "\n{}\n", summary(report));
    text
}

fn line(run: &Run) -> Line {
    let result = Result::of(run);
    let mut cells = vec![label(run), one_line(&run.durability), result.word().to_owned()];
    let mut below = Vec::new();
    match &run.end {
        End::Skipped { reason } => below.push(one_line(reason)),
        End::Stuck { reason } => below.push(format!("came to no end: {}", one_line(reason))),
        End::Played => {}
    }
    if result != Result::Skipped {
        cells.extend(numbers(&run.figures));
    }
    for judged in run.promises.iter().filter(|judged| judged.verdict == Verdict::Fail) {
        below.push(format!(
            "{}: {}",
            judged.promise.name(),
            judged.why.lines().map(one_line).collect::<Vec<_>>().join("\n")
        ));
    }
    Line { cells, below }
}

fn label(run: &Run) -> String {
    match run.plan {
        Plan::Pgbaton => one_line(&run.scenario),
        Plan::MultiHost => format!("{}, {}", one_line(&run.scenario), run.plan.name()),
    }
}

/// What was said elsewhere does not get to move the cursor.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn time(value: Option<u64>) -> String {
    value.map_or("-".into(), span)
}

fn errors(figures: &Figures) -> u64 {
    figures.failed.values().chain(figures.other_errors.values()).fold(0, |sum, count| sum.saturating_add(*count))
}

fn numbers(figures: &Figures) -> Vec<String> {
    let times = [figures.detection, figures.first_write, figures.write_gap, figures.read_gap].map(time);
    let counts = [errors(figures), figures.dropped, figures.lost, figures.unknown, figures.stale];
    times.into_iter().chain(counts.map(|count| count.to_string())).collect()
}

fn medians(plan: Plan, runs: &[&Run]) -> Vec<String> {
    let middle =
        |of: &dyn Fn(&Figures) -> Option<u64>| median(runs.iter().filter_map(|run| of(&run.figures)).collect());
    let mut cells = vec![format!("median {}", plan.name()), String::new(), String::new()];
    let times: [fn(&Figures) -> Option<u64>; 4] = [
        |figures| figures.detection,
        |figures| figures.first_write,
        |figures| figures.write_gap,
        |figures| figures.read_gap,
    ];
    cells.extend(times.map(|of| time(middle(&of))));
    let counts: [fn(&Figures) -> u64; 5] =
        [errors, |figures| figures.dropped, |figures| figures.lost, |figures| figures.unknown, |figures| figures.stale];
    cells.extend(counts.map(|of| middle(&|figures| Some(of(figures))).map_or("-".into(), |count| count.to_string())));
    cells
}

/// Columns two blanks apart.
fn aligned(lines: &[Line]) -> String {
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.cells.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for Line { cells, below } in lines {
        let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column < WORDS {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        for said in below.iter().flat_map(|said| said.lines()) {
            let _ = writeln!(text, "    {said}");
        }
    }
    text
}

/// How it ended, in a sentence; what the exit code says too.
fn summary(report: &Report) -> String {
    let with: Vec<&Run> = report.runs.iter().filter(|run| run.plan == Plan::Pgbaton).collect();
    let of = |result| -> Vec<&str> {
        with.iter().filter(|run| Result::of(run) == result).map(|run| run.scenario.as_str()).collect()
    };
    let named = |names: &[&str]| format!("{} ({})", names.len(), one_line(&names.join(", ")));
    let (passed, failed, stuck, skipped) = (of(Result::Pass), of(Result::Fail), of(Result::Stuck), of(Result::Skipped));
    let mut parts = Vec::new();
    if !failed.is_empty() {
        parts.push(format!("promises were broken in {}", named(&failed)));
    }
    if !stuck.is_empty() {
        parts.push(format!("{} came to no end", named(&stuck)));
    }
    if !passed.is_empty() {
        let all = if failed.is_empty() && stuck.is_empty() { "every promise was kept" } else { "all were kept" };
        parts.push(format!("{all} in {}", passed.len()));
    }
    if !skipped.is_empty() {
        parts.push(format!("{} skipped", skipped.len()));
    }
    let compared = report.runs.len() - with.len();
    if with.is_empty() && compared > 0 {
        return format!("{} without pgbaton.", counted(compared as u64, "run"));
    }
    if parts.is_empty() {
        parts.push("nothing was played".into());
    }
    let compared = report.runs.len() - with.len();
    let compared =
        if compared > 0 { format!("; {} without pgbaton", counted(compared as u64, "run")) } else { String::new() };
    format!("{}: {}{compared}.", counted(with.len() as u64, "scenario"), parts.join("; "))
}
