//! The first screen: whether all is well in a sentence, each promise in a card, each scenario in a row.

use std::fmt::Write as _;

use super::Pair;
use super::markup::Text;
use crate::drill::outcome::{Figures, Plan, Promise, Report, Run, Verdict};
use crate::drill::words::{PROMISES, Result, counted, median, span};

/// Scenarios that are named in a card; of the others, how many they are.
const NAMED: usize = 4;

/// The most important thing first.
pub struct Headline {
    pub title: String,
    pub more: String,
    pub result: Result,
}

pub fn headline(report: &Report) -> Headline {
    let with: Vec<&Run> = report.runs.iter().filter(|run| run.plan == Plan::Pgbaton).collect();
    let count = |result| with.iter().filter(|run| Result::of(run) == result).count();
    let (passed, failed, stuck, skipped) =
        (count(Result::Pass), count(Result::Fail), count(Result::Stuck), count(Result::Skipped));
    let played = passed + failed + stuck;
    let compared = report.runs.len() - with.len();
    let (title, result) = match (failed, stuck, passed) {
        (0, 0, 0) => ("Nothing was played with pgbaton".to_owned(), Result::Skipped),
        (0, 0, _) => ("Every promise was kept".to_owned(), Result::Pass),
        (0, _, _) => (format!("{} of {} came to no end", stuck, counted(played as u64, "scenario")), Result::Stuck),
        (_, 0, _) => {
            (format!("Promises were broken in {failed} of {}", counted(played as u64, "scenario")), Result::Fail)
        }
        _ => (
            format!(
                "Promises were broken in {failed} of {}, and {stuck} came to no end",
                counted(played as u64, "scenario")
            ),
            Result::Fail,
        ),
    };
    let mut more = format!("{} played", counted(played as u64, "scenario"));
    if skipped > 0 {
        let _ = write!(more, ", {skipped} skipped");
    }
    if compared > 0 {
        let _ = write!(more, "; {} without pgbaton to compare with", counted(compared as u64, "run"));
    }
    Headline { title, more, result }
}

pub fn summary(report: &Report, pairs: &[Pair<'_>], headline: &Headline, date: &str) -> String {
    let class = class(headline.result);
    let mut out = format!(
        "<header class=\"top {class}\">\n<p class=\"product\">pgbaton drill</p>\n<h1>{} {}</h1>\n<p class=\"lead\">{}</p>\n\
         <p class=\"meta\">pgbaton {} · PostgreSQL {} · {date} · {}</p>\n</header>\n",
        icon(headline.result),
        Text(&headline.title),
        Text(&headline.more),
        Text(&report.version),
        Text(&report.postgres),
        durations(report),
    );
    out.push_str(&cards(report));
    out.push_str(&key_figures(report));
    out.push_str(&table(pairs));
    out
}

fn durations(report: &Report) -> String {
    let took = report.runs.iter().fold(0u64, |sum, run| sum.saturating_add(run.took));
    let mut durabilities: Vec<&str> =
        report.runs.iter().filter(|run| run.plan == Plan::Pgbaton).map(|run| run.durability.as_str()).collect();
    durabilities.sort_unstable();
    durabilities.dedup();
    let list = durabilities.join(" and ");
    match durabilities.is_empty() {
        true => span(took),
        false => format!("durability {} · {}", Text(&list), span(took)),
    }
}

pub fn class(result: Result) -> &'static str {
    match result {
        Result::Pass => "good",
        Result::Fail => "bad",
        Result::Stuck => "stuck",
        Result::Skipped => "none",
    }
}

/// A sign that is understood without colour.
pub fn icon(result: Result) -> &'static str {
    match result {
        Result::Pass => "<span class=\"icon good\" aria-hidden=\"true\">✓</span>",
        Result::Fail => "<span class=\"icon bad\" aria-hidden=\"true\">✗</span>",
        Result::Stuck => "<span class=\"icon stuck\" aria-hidden=\"true\">!</span>",
        Result::Skipped => "<span class=\"icon none\" aria-hidden=\"true\">–</span>",
    }
}

pub fn verdict_icon(verdict: Verdict) -> &'static str {
    icon(match verdict {
        Verdict::Pass => Result::Pass,
        Verdict::Fail => Result::Fail,
        Verdict::NotApplicable => Result::Skipped,
    })
}

/// In how many runs with pgbaton a promise was kept, and in which not.
fn cards(report: &Report) -> String {
    let mut out = String::from("<section aria-label=\"Promises\" class=\"cards\">\n");
    for promise in PROMISES {
        let judged = |verdict: Verdict| -> Vec<&Run> {
            let runs = report.runs.iter().filter(|run| run.plan == Plan::Pgbaton);
            runs.filter(|run| run.promises.iter().any(|judged| judged.promise == promise && judged.verdict == verdict))
                .collect()
        };
        let (kept, broken) = (judged(Verdict::Pass), judged(Verdict::Fail));
        let (verdict, said) = match (kept.len(), broken.len()) {
            (0, 0) => (Verdict::NotApplicable, "not judged".to_owned()),
            (kept, 0) => (Verdict::Pass, format!("kept in {}", counted(kept as u64, "scenario"))),
            (kept, _) => (Verdict::Fail, format!("broken in {}; kept in {kept}", named(&broken))),
        };
        let number = promise.number().map_or(String::new(), |number| format!(" <small>{number}</small>"));
        let _ = writeln!(
            out,
            "<div class=\"card {}\"><h3>{} {}{number}</h3><p>{}</p><p class=\"said\">{}</p></div>",
            if verdict == Verdict::Fail { "bad" } else { "" },
            verdict_icon(verdict),
            capital(promise),
            promise.meaning(),
            Text(&said)
        );
    }
    out.push_str("</section>\n");
    out
}

pub fn capital(promise: Promise) -> String {
    let name = promise.name();
    name[..1].to_uppercase() + &name[1..]
}

fn named(runs: &[&Run]) -> String {
    let mut names: Vec<&str> = runs.iter().map(|run| run.scenario.as_str()).collect();
    names.dedup();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let list = names.join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

/// Of all runs of a plan that were played.
fn of_all(report: &Report, plan: Plan, of: fn(&Figures) -> Option<u64>) -> Option<u64> {
    median(report.runs.iter().filter(|run| run.plan == plan).filter_map(|run| of(&run.figures)).collect())
}

fn key_figures(report: &Report) -> String {
    let total = |of: fn(&Figures) -> u64| {
        report
            .runs
            .iter()
            .filter(|run| run.plan == Plan::Pgbaton)
            .fold(0u64, |sum, run| sum.saturating_add(of(&run.figures)))
    };
    let times: [(&str, fn(&Figures) -> Option<u64>); 4] = [
        ("until the failure is detected", |figures| figures.detection),
        ("until the first write after the fault", |figures| figures.first_write),
        ("longest time without a write", |figures| figures.write_gap),
        ("longest time without a read", |figures| figures.read_gap),
    ];
    let mut out = String::from("<section aria-label=\"Key figures\" class=\"keys\">\n");
    for (name, of) in times {
        let without = of_all(report, Plan::MultiHost, of)
            .map_or(String::new(), |ms| format!("<span class=\"without\">without pgbaton: {}</span>", span(ms)));
        let value = of_all(report, Plan::Pgbaton, of).map_or("–".into(), span);
        let _ = writeln!(out, "<div><strong>{value}</strong><span>{name}, median</span>{without}</div>");
    }
    let _ = writeln!(
        out,
        "<div><strong>{} of {}</strong><span>acknowledged writes lost, in all scenarios</span></div>\n</section>",
        thousands(total(|figures| figures.lost)),
        thousands(total(|figures| figures.acknowledged))
    );
    out
}

/// With a narrow blank between groups of three.
pub fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202F}');
        }
        out.push(digit);
    }
    out
}

fn table(pairs: &[Pair<'_>]) -> String {
    let mut out = String::from(
        "<section><h2>Scenarios</h2>\n<div class=\"wide\"><table class=\"scenarios\">\n<thead><tr><th scope=\"col\">Scenario</th>\
         <th scope=\"col\">Result</th><th scope=\"col\">Durability</th><th scope=\"col\" class=\"n\">Detected</th>\
         <th scope=\"col\" class=\"n\">First write</th><th scope=\"col\" class=\"n\">Write gap</th><th scope=\"col\" class=\"n\">Read gap</th>\
         <th scope=\"col\" class=\"n\">Errors</th><th scope=\"col\" class=\"n\">Dropped</th><th scope=\"col\" class=\"n\">Lost</th>\
         <th scope=\"col\" class=\"n\">Unknown</th><th scope=\"col\" class=\"n\">Stale</th><th scope=\"col\" class=\"n\">Wrong</th></tr></thead>\n<tbody>\n",
    );
    for pair in pairs {
        row(&mut out, pair.run, Some(&pair.anchor));
        if let Some(without) = pair.without {
            row(&mut out, without, None);
        }
    }
    out.push_str("</tbody>\n<tfoot>\n");
    for plan in [Plan::Pgbaton, Plan::MultiHost] {
        let runs: Vec<&Run> = pairs
            .iter()
            .flat_map(|pair| [Some(pair.run), pair.without])
            .flatten()
            .filter(|run| run.plan == plan && Result::of(run) != Result::Skipped)
            .collect();
        // Of one, the median is itself.
        if runs.len() > 1 {
            medians(&mut out, plan, &runs);
        }
    }
    out.push_str(
        "</tfoot>\n</table></div>\n<p class=\"note\">Detected: from the fault to the decision that the primary is down. First write: from the fault \
         to the first write that was sent after it and acknowledged. Gaps: the longest time without an acknowledged write, or an answered \
         read. Dropped: connections that ended under a client. Lost: acknowledged and not there. Unknown: commits of which the client was \
         told that nobody knows, or that had no answer. Stale: reads that showed less than the session knew. Wrong: said to have failed \
         and there, there twice, sums that do not add up.</p></section>\n",
    );
    out
}

pub fn errors(figures: &Figures) -> u64 {
    figures.failed.values().chain(figures.other_errors.values()).fold(0, |sum, count| sum.saturating_add(*count))
}

fn row(out: &mut String, run: &Run, anchor: Option<&str>) {
    let result = Result::of(run);
    let name = match anchor {
        Some(anchor) if run.plan == Plan::Pgbaton => format!("<a href=\"#{anchor}\">{}</a>", Text(&run.scenario)),
        Some(anchor) => format!("<a href=\"#{anchor}\">{}</a> <small>without pgbaton</small>", Text(&run.scenario)),
        None => "<small>without pgbaton</small>".to_owned(),
    };
    let _ = write!(
        out,
        "<tr class=\"{}\"><th scope=\"row\">{name}</th><td class=\"result {}\">{} {}</td><td>{}</td>",
        if run.plan == Plan::MultiHost { "other" } else { "" },
        class(result),
        icon(result),
        result.word(),
        Text(&run.durability)
    );
    if result == Result::Skipped {
        out.push_str("<td colspan=\"10\" class=\"reason\">");
        if let crate::drill::outcome::End::Skipped { reason } = &run.end {
            let _ = write!(out, "{}", Text(reason));
        }
        out.push_str("</td></tr>\n");
        return;
    }
    let figures = &run.figures;
    for time in [figures.detection, figures.first_write, figures.write_gap, figures.read_gap] {
        let _ = write!(out, "<td class=\"n\">{}</td>", time.map_or("–".into(), span));
    }
    let _ = write!(out, "<td class=\"n\">{}</td>", thousands(errors(figures)));
    for (count, is_bad) in [
        (figures.dropped, broke(run, Promise::StayConnected)),
        (figures.lost, broke(run, Promise::NothingLost)),
        (figures.unknown, false),
        (figures.stale, broke(run, Promise::FreshReads)),
        (figures.wrong, broke(run, Promise::HonestAnswers)),
    ] {
        let class = if count > 0 && is_bad { "n bad" } else { "n" };
        let _ = write!(out, "<td class=\"{class}\">{}</td>", thousands(count));
    }
    out.push_str("</tr>\n");
}

fn broke(run: &Run, promise: Promise) -> bool {
    run.promises.iter().any(|judged| judged.promise == promise && judged.verdict == Verdict::Fail)
}

fn medians(out: &mut String, plan: Plan, runs: &[&Run]) {
    let middle =
        |of: &dyn Fn(&Figures) -> Option<u64>| median(runs.iter().filter_map(|run| of(&run.figures)).collect());
    let _ = write!(out, "<tr><th scope=\"row\">Median {}</th><td></td><td></td>", plan.name());
    let times: [fn(&Figures) -> Option<u64>; 4] = [
        |figures| figures.detection,
        |figures| figures.first_write,
        |figures| figures.write_gap,
        |figures| figures.read_gap,
    ];
    for of in times {
        let _ = write!(out, "<td class=\"n\">{}</td>", middle(&of).map_or("–".into(), span));
    }
    let counts: [fn(&Figures) -> u64; 6] = [
        errors,
        |figures| figures.dropped,
        |figures| figures.lost,
        |figures| figures.unknown,
        |figures| figures.stale,
        |figures| figures.wrong,
    ];
    for of in counts {
        let _ =
            write!(out, "<td class=\"n\">{}</td>", middle(&|figures| Some(of(figures))).map_or("–".into(), thousands));
    }
    out.push_str("</tr>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1\u{202F}000", "1\u{202F}234\u{202F}567"]);
    }
}
