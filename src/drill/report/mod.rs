//! What a drill found as one HTML page that can be sent around: it loads nothing, needs no script, and prints.
//!
//! [`summary`] is its first screen; each scenario then has a section ([`scene`]) with a drawing ([`chart`]). Whatever a run holds is
//! bounded before it is shown, so that a page never gets so large that nobody can open it.

mod axis;
mod chart;
mod markup;
mod scene;
mod summary;

use super::outcome::{Plan, Report, Run};
use crate::admin::tables::utc;
use markup::{Text, anchor};

/// Runs that have a section; the rest are in the table only.
const RUNS: usize = 200;
/// Steps of a change of primary that are shown.
const PHASES: usize = 24;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// A scenario as it was played with pgbaton and, if it was, without.
struct Pair<'r> {
    run: &'r Run,
    without: Option<&'r Run>,
    anchor: String,
}

/// Each run with pgbaton and the next one of the same scenario without; one that has no fellow stands for itself.
fn pairs(report: &Report) -> Vec<Pair<'_>> {
    let mut pairs: Vec<Pair<'_>> = Vec::new();
    for (number, run) in report.runs.iter().enumerate() {
        let fellow = pairs
            .iter_mut()
            .rev()
            .find(|pair| pair.run.plan == Plan::Pgbaton && pair.run.scenario == run.scenario && pair.without.is_none());
        match fellow {
            Some(pair) if run.plan == Plan::MultiHost => pair.without = Some(run),
            _ => pairs.push(Pair { run, without: None, anchor: anchor(&run.scenario, number + 1) }),
        }
    }
    pairs
}

/// The whole page.
pub fn html(report: &Report) -> String {
    let pairs = pairs(report);
    let headline = summary::headline(report);
    let date = utc(report.began / 1000);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"generator\" content=\"pgbaton {}\">\n\
         <title>pgbaton drill: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        Text(&report.version),
        Text(&headline.title),
    );
    page.push_str(&summary::summary(report, &pairs, &headline, &date));
    for (number, pair) in pairs.iter().take(RUNS).enumerate() {
        page.push_str(&scene::scene(pair, number));
    }
    if pairs.len() > RUNS {
        page.push_str(&format!("<p class=\"more\">{} more are in the table only.</p>\n", pairs.len() - RUNS));
    }
    page.push_str(&format!(
        "</main>\n<footer>Made by pgbaton {} on {date}. This page holds all it shows; it loads nothing.</footer>\n\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        Text(&report.version),
    ));
    page
}
