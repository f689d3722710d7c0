//! A scenario's section: what was done, what was promised and what came of it, drawn, told by the brain, and counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::chart::{self, MARKS, Scale, chart};
use super::markup::Text;
use super::summary::{capital, class, errors, icon, thousands, verdict_icon};
use super::{PHASES, Pair, axis};
use crate::drill::outcome::{Chapter, End, Figures, Plan, Run, Verdict};
use crate::drill::words::{PROMISES, Result, span, sqlstate};

/// Lines of the brain's account that are shown.
const CHAPTERS: usize = 200;
/// Kinds of errors that are shown.
const CODES: usize = 40;

pub fn scene(pair: &Pair<'_>, number: usize) -> String {
    let Pair { run, without, anchor } = pair;
    let result = Result::of(run);
    let plan = if run.plan == Plan::Pgbaton { String::new() } else { format!(", {}", run.plan.name()) };
    let mut out = format!(
        "<section class=\"scene {}\" id=\"{anchor}\">\n<h2>{} {}<span class=\"badge {}\">{}{plan}</span></h2>\n",
        class(result),
        icon(result),
        Text(&run.scenario),
        class(result),
        result.word(),
    );
    let _ = writeln!(
        out,
        "<dl class=\"intent\"><div><dt>What is done</dt><dd>{}</dd></div><div><dt>What is expected</dt><dd>{}</dd></div></dl>",
        Text(&run.does),
        Text(&run.expects)
    );
    out.push_str(&end(run));
    if let Some(without) = without {
        out.push_str(&compared(run, without));
    }
    if !run.promises.is_empty() {
        out.push_str(&promises(run));
    }
    let runs: Vec<&Run> = [Some(*run), *without].into_iter().flatten().filter(|run| !run.slices.is_empty()).collect();
    let scale = Scale::of(&runs);
    for (at, drawn) in runs.iter().enumerate() {
        out.push_str(&drawing(drawn, &scale, number * 2 + at, runs.len() > 1));
    }
    if !run.figures.phases.is_empty() {
        out.push_str(&phases(run));
    }
    if result != Result::Skipped {
        let other = without.filter(|other| Result::of(other) != Result::Skipped);
        out.push_str(&figures(run, other));
        out.push_str(&codes(run, other));
    }
    if !run.story.is_empty() {
        out.push_str(&story(run));
    }
    out.push_str("</section>\n");
    out
}

fn end(run: &Run) -> String {
    match &run.end {
        End::Played => String::new(),
        End::Skipped { reason } => format!("<p class=\"end none\"><strong>Skipped:</strong> {}</p>\n", Text(reason)),
        End::Stuck { reason } => {
            format!("<p class=\"end stuck\"><strong>It came to no end:</strong> {}</p>\n", Text(reason))
        }
    }
}

/// The difference in one sentence and a bar for each.
fn compared(run: &Run, without: &Run) -> String {
    let mut out = String::from("<div class=\"compared\">\n");
    if let End::Skipped { reason } | End::Stuck { reason } = &without.end {
        let what = if matches!(without.end, End::Stuck { .. }) { "came to no end" } else { "not played" };
        let _ = write!(out, "<p><strong>Without pgbaton: {what}.</strong> {}</p>\n</div>\n", Text(reason));
        return out;
    }
    let _ = writeln!(out, "<p class=\"other-does\"><strong>Without pgbaton:</strong> {}</p>", Text(&without.does));
    let gap = |run: &Run| run.figures.write_gap;
    let most = gap(run).max(gap(without)).unwrap_or(0).max(1);
    for (class, name, run) in [("ours", Plan::Pgbaton.name(), run), ("theirs", Plan::MultiHost.name(), without)] {
        let figures = &run.figures;
        let (said, part) = match gap(run) {
            Some(gap) => (format!("no write for {}", span(gap)), gap as f64 / most as f64 * 100.0),
            None => ("no write after the fault".into(), 100.0),
        };
        let _ = writeln!(
            out,
            "<div class=\"bar {class}\"><span class=\"name\">{name}</span><span class=\"track\"><span class=\"fill\" style=\"width:{part:.2}%\"></span></span>\
             <span class=\"value\">{said} · {} errors · {} dropped · {} lost</span></div>",
            thousands(errors(figures)),
            thousands(figures.dropped),
            thousands(figures.lost)
        );
    }
    out.push_str("</div>\n");
    out
}

fn promises(run: &Run) -> String {
    let mut out = String::from("<h3>Promises</h3>\n<ul class=\"promises\">\n");
    for promise in PROMISES {
        for judged in run.promises.iter().filter(|judged| judged.promise == promise) {
            let number = promise.number().map_or(String::new(), |number| format!(" <small>{number}</small>"));
            let why = if judged.why.is_empty() { promise.meaning().to_owned() } else { judged.why.clone() };
            let class = match judged.verdict {
                Verdict::Pass => "good",
                Verdict::Fail => "bad",
                Verdict::NotApplicable => "none",
            };
            let _ = writeln!(
                out,
                "<li class=\"{class}\">{}<div><strong>{}</strong>{number} <span class=\"verdict\">{}</span><p>{}</p></div></li>",
                verdict_icon(judged.verdict),
                capital(promise),
                judged.verdict.word(),
                Text(&why)
            );
        }
    }
    out.push_str("</ul>\n");
    out
}

fn drawing(run: &Run, scale: &Scale, number: usize, is_compared: bool) -> String {
    let title = if is_compared { run.plan.name() } else { "what clients saw" };
    let mut out = format!(
        "<figure class=\"drawing {}\">\n<figcaption><strong>{title}</strong> <span>seconds since the fault</span></figcaption>\n<div class=\"wide\">{}</div>\n<p class=\"readout\" hidden></p>\n",
        if run.plan == Plan::Pgbaton { "ours" } else { "theirs" },
        chart(run, scale, number)
    );
    if run.slices.len() > axis::STEPS {
        let together = run.slices.len().div_ceil(axis::STEPS) as u64;
        let _ = writeln!(
            out,
            "<p class=\"note\">Each step of the drawing is {}: rates are its average, errors its sum, the maximum its maximum.</p>",
            span(together * crate::drill::outcome::Slice::WIDTH)
        );
    }
    if !run.marks.is_empty() {
        out.push_str("<ol class=\"marks\">\n");
        let origin = axis::origin(run);
        for (at, mark) in run.marks.iter().take(MARKS).enumerate() {
            let since = axis::since(mark.at, origin);
            let sign = if since < 0 { "−" } else { "+" };
            let _ = writeln!(
                out,
                "<li><svg viewBox=\"-10 -10 20 20\" width=\"20\" height=\"20\" aria-hidden=\"true\">{}</svg><span class=\"when\">{sign}{}</span> \
                 <span><em>{}</em> {}</span></li>",
                chart::token(mark.kind, at + 1),
                span(since.unsigned_abs()),
                mark.kind.word(),
                Text(&mark.text)
            );
        }
        out.push_str("</ol>\n");
        if run.marks.len() > MARKS {
            let _ = writeln!(out, "<p class=\"note\">and {} more</p>", run.marks.len() - MARKS);
        }
    }
    out.push_str("</figure>\n");
    out
}

/// How long each step took, as parts of a bar.
fn phases(run: &Run) -> String {
    let phases = chart::phases(run);
    let total = phases.last().map_or(0, |phase| phase.1.abs_diff(phases[0].0));
    let mut out = format!(
        "<h3>Change of primary <span class=\"aside\">{}</span></h3>\n<div class=\"phases\" aria-hidden=\"true\">",
        span(total)
    );
    for (at, (from, to, _)) in phases.iter().enumerate() {
        // A step of no time is still one.
        let _ = write!(
            out,
            "<span class=\"phase{}\" style=\"flex-grow:{}\">{}</span>",
            at % 2,
            to.abs_diff(*from).max(1),
            at + 1
        );
    }
    out.push_str("</div>\n<ol class=\"phase-list\">\n");
    for (from, to, name) in &phases {
        let _ = writeln!(out, "<li>{} <strong>{}</strong></li>", Text(name), span(to.abs_diff(*from)));
    }
    out.push_str("</ol>\n");
    let more = run.figures.phases.len().saturating_sub(PHASES);
    if more > 0 {
        let _ = writeln!(out, "<p class=\"note\">and {more} more</p>");
    }
    out
}

fn figures(run: &Run, without: Option<&Run>) -> String {
    let time = |value: Option<u64>| value.map_or("–".into(), span);
    let values = |run: &Run| -> Vec<(&'static str, String)> {
        let figures = &run.figures;
        let mut rows = vec![
            ("detected after", time(figures.detection)),
            ("first write after", time(figures.first_write)),
            ("longest time without a write", time(figures.write_gap)),
            ("longest time without a read", time(figures.read_gap)),
            ("writes acknowledged", thousands(figures.acknowledged)),
            ("writes refused", thousands(figures.failed.values().fold(0, |sum, count| sum.saturating_add(*count)))),
            ("writes of unknown outcome", thousands(figures.unknown)),
            ("acknowledged writes lost", thousands(figures.lost)),
            (
                "log known to be lost",
                figures.known_lost_bytes.map_or("–".into(), |bytes| format!("{} bytes", thousands(bytes))),
            ),
            ("connections dropped", thousands(figures.dropped)),
            ("stale reads", thousands(figures.stale)),
            ("wrong", thousands(figures.wrong)),
        ];
        rows.push(("all of it took", span(run.took)));
        rows
    };
    let (ours, theirs) = (values(run), without.map(values));
    let mut out = String::from("<div class=\"side\"><div><h3>Figures</h3>\n<table class=\"figures\">\n");
    if theirs.is_some() {
        let _ = writeln!(
            out,
            "<thead><tr><td></td><th scope=\"col\" class=\"n\">{}</th><th scope=\"col\" class=\"n\">{}</th></tr></thead>",
            run.plan.name(),
            Plan::MultiHost.name()
        );
    }
    out.push_str("<tbody>\n");
    for (at, (name, value)) in ours.into_iter().enumerate() {
        let _ = write!(out, "<tr><th scope=\"row\">{name}</th><td class=\"n\">{value}</td>");
        if let Some((_, value)) = theirs.as_ref().and_then(|rows| rows.get(at)) {
            let _ = write!(out, "<td class=\"n\">{value}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    out
}

/// What clients were told, by SQLSTATE; ends the columns that [`figures`] began.
fn codes(run: &Run, without: Option<&Run>) -> String {
    let mut out = String::from("<div><h3>Errors clients saw</h3>\n");
    let mut table = |title: &str, figures: &Figures| {
        let mut all: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (code, count) in &figures.failed {
            all.entry(code).or_default().0 += count;
        }
        for (code, count) in &figures.other_errors {
            all.entry(code).or_default().1 += count;
        }
        if all.is_empty() {
            let _ = writeln!(out, "<p>{title}none</p>");
            return;
        }
        let _ = writeln!(
            out,
            "{}<div class=\"wide\"><table class=\"codes\"><thead><tr><th scope=\"col\">SQLSTATE</th><th scope=\"col\" class=\"n\">writes</th>\
             <th scope=\"col\" class=\"n\">others</th><th scope=\"col\">meaning</th></tr></thead><tbody>",
            if title.is_empty() { String::new() } else { format!("<p>{title}</p>") }
        );
        for (code, (writes, others)) in all.iter().take(CODES) {
            let _ = writeln!(
                out,
                "<tr><th scope=\"row\"><code>{}</code></th><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
                Text(code),
                thousands(*writes),
                thousands(*others),
                sqlstate(code)
            );
        }
        out.push_str("</tbody></table></div>\n");
        if all.len() > CODES {
            let _ = writeln!(out, "<p class=\"note\">and {} more</p>", all.len() - CODES);
        }
    };
    match without {
        None => table("", &run.figures),
        Some(without) => {
            table("With pgbaton: ", &run.figures);
            table("Without pgbaton: ", &without.figures);
        }
    }
    out.push_str("</div></div>\n");
    out
}

fn story(run: &Run) -> String {
    let origin = axis::origin(run);
    let mut out = String::from(
        "<h3>What pgbaton did, and why</h3>\n<div class=\"wide\"><table class=\"story\"><thead><tr><th scope=\"col\" class=\"n\">when</th><th scope=\"col\" class=\"n\">epoch</th><th scope=\"col\">what</th><th scope=\"col\">why</th></tr></thead><tbody>\n",
    );
    for Chapter { at, epoch, what, reason } in run.story.iter().take(CHAPTERS) {
        let when = at.map_or(String::new(), |at| {
            let since = axis::since(at, origin);
            format!("{}{}", if since < 0 { "−" } else { "+" }, span(since.unsigned_abs()))
        });
        let epoch = epoch.map_or(String::new(), |epoch| epoch.to_string());
        let _ = writeln!(
            out,
            "<tr><td class=\"n\">{when}</td><td class=\"n\">{epoch}</td><td class=\"what\">{}</td><td>{}</td></tr>",
            Text(what),
            Text(reason)
        );
    }
    out.push_str("</tbody></table></div>\n");
    if run.story.len() > CHAPTERS {
        let _ = writeln!(out, "<p class=\"note\">and {} more</p>", run.story.len() - CHAPTERS);
    }
    out
}
