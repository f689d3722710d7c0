//! A run as a drawing: writes, reads, errors and latency on one time axis, with what was done to the cluster across all of them.
//!
//! It is SVG made here, and needs no script; one that hovers reads the steps from an attribute. Lines differ by their dashes and
//! marks by their shape, not by colour alone.

use std::fmt::Write as _;

use super::axis::{self, Axis, Step};
use super::markup::Text;
use crate::drill::outcome::{MarkKind, Run};
use crate::drill::words::span;

/// In units of the drawing, which are pixels on a wide screen.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 26.0;
/// Of each row of numbers above the panels.
const LANE: f64 = 20.0;
const LANES: usize = 3;
const BAND: f64 = 16.0;
const RATE: f64 = 92.0;
const ERRORS: f64 = 38.0;
const LATENCY: f64 = 120.0;
/// Between panels; holds the title of the lower one.
const BETWEEN: f64 = 24.0;
const FOOT: f64 = 26.0;

/// Marks that are drawn and listed.
pub const MARKS: usize = 60;

/// What the drawings of runs that are compared have in common.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub axis: Axis,
    /// The greatest that is to be drawn.
    writes: f64,
    reads: f64,
    errors: f64,
    /// Exponents of ten, in microseconds.
    fastest: i32,
    slowest: i32,
}

impl Scale {
    pub fn of(runs: &[&Run]) -> Scale {
        let steps: Vec<Step> = runs.iter().flat_map(|run| axis::steps(run)).collect();
        let greatest = |of: fn(&Step) -> f64| steps.iter().map(of).fold(0.0, f64::max);
        let times = || {
            steps
                .iter()
                .flat_map(|step| [step.write_median, step.write_max, step.read_median, step.read_max])
                .flatten()
                .map(|us| us.max(1) as f64)
        };
        Scale {
            axis: Axis::of(runs.iter().copied()),
            writes: round_up(greatest(|step| step.writes)),
            reads: round_up(greatest(|step| step.reads)),
            errors: round_up(greatest(|step| step.errors as f64)),
            fastest: times().fold(1000.0, f64::min).log10().floor() as i32,
            slowest: times().fold(10_000.0, f64::max).log10().ceil() as i32,
        }
    }

    fn x(&self, at: i64) -> f64 {
        LEFT + self.axis.part(at) * (WIDTH - LEFT - RIGHT)
    }
}

/// The next of 1, 2, 5, 10, 20, …
fn round_up(value: f64) -> f64 {
    if value <= 1.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|round| *round >= value).unwrap_or(value)
}

/// A part of the drawing that is as wide as it and has a height axis of its own.
struct Panel {
    top: f64,
    height: f64,
}

impl Panel {
    fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// From 0 at the bottom to 1 at the top.
    fn y(&self, part: f64) -> f64 {
        self.bottom() - part.clamp(0.0, 1.0) * self.height
    }

    /// A title above it, and lines where its axis has labels. The title goes where it is drawn over marks.
    fn frame(&self, out: &mut String, over: &mut String, title: &str, labels: &[(f64, String)]) {
        let _ = write!(over, r#"<text class="title" x="{LEFT}" y="{:.1}">{title}</text>"#, self.top - 7.0);
        for (part, label) in labels {
            let y = self.y(*part);
            let _ = write!(
                out,
                r#"<path class="grid" d="M{LEFT} {y:.1}H{:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{label}</text>"#,
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0
            );
        }
    }
}

/// The drawing. `number` makes what it defines different from that of others on the page.
pub fn chart(run: &Run, scale: &Scale, number: usize) -> String {
    let steps = axis::steps(run);
    let flags = flags(run, scale);
    let lanes = flags.iter().map(|flag| flag.lane + 1).max().unwrap_or(0);
    let band = phases(run);
    let mut y = lanes as f64 * LANE + 4.0;
    let band_top = y;
    if !band.is_empty() {
        y += BAND;
    }
    let mut panel = |height: f64| {
        let panel = Panel { top: y + BETWEEN, height };
        y = panel.bottom();
        panel
    };
    let (writes, reads, errors, times) = (panel(RATE), panel(RATE), panel(ERRORS), panel(LATENCY));
    let bottom = times.bottom();
    let height = bottom + FOOT;

    let mut out = format!(
        r#"<svg class="chart" viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{}" data-left="{LEFT}" data-right="{:.0}" data-from="{}" data-to="{}" data-steps="{}">"#,
        Text(&spoken(run)),
        WIDTH - RIGHT,
        scale.axis.from,
        scale.axis.to,
        data(&steps)
    );
    let _ = write!(
        out,
        r#"<defs><pattern id="hatch{number}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path class="hatching" d="M0 0V6"/></pattern></defs>"#
    );

    let mut over = String::new();
    let rate = |max: f64| [(0.0, "0".to_owned()), (0.5, number_label(max / 2.0)), (1.0, number_label(max))];
    writes.frame(&mut out, &mut over, "acknowledged writes per 100 ms", &rate(scale.writes));
    let silent = axis::longest_silence(&steps, |step| step.writes);
    silence(&mut out, &mut over, &writes, scale, silent, ("write", run.figures.write_gap), number);
    out.push_str(&area(&steps, scale, &writes, "writes", |step| step.writes / scale.writes));
    reads.frame(&mut out, &mut over, "answered reads per 100 ms", &rate(scale.reads));
    let silent = axis::longest_silence(&steps, |step| step.reads);
    silence(&mut out, &mut over, &reads, scale, silent, ("read", run.figures.read_gap), number);
    out.push_str(&area(&steps, scale, &reads, "reads", |step| step.reads / scale.reads));
    errors.frame(&mut out, &mut over, "errors", &[(0.0, "0".into()), (1.0, number_label(scale.errors))]);
    out.push_str(&bars(&steps, scale, &errors));

    let title = "latency: writes <tspan class=\"key-writes\">━━ median ── max</tspan>, reads <tspan class=\"key-reads\">╍╍ median ┄┄ max</tspan>";
    let decades = f64::from(scale.slowest - scale.fastest).max(1.0);
    let labels: Vec<(f64, String)> = (scale.fastest..=scale.slowest)
        .map(|power| (f64::from(power - scale.fastest) / decades, decade(power)))
        .collect();
    times.frame(&mut out, &mut over, title, &labels);
    let height_of = |us: u64| ((us.max(1) as f64).log10() - f64::from(scale.fastest)) / decades;
    let lines: [(&str, fn(&Step) -> Option<u64>); 4] = [
        ("read-max", |step| step.read_max),
        ("read-median", |step| step.read_median),
        ("write-max", |step| step.write_max),
        ("write-median", |step| step.write_median),
    ];
    for (class, of) in lines {
        out.push_str(&line(&steps, scale, &times, class, |step| of(step).map(height_of)));
    }

    for (at, (from, to, name)) in band.iter().enumerate() {
        let (left, right) = (scale.x(*from), scale.x(*to));
        let _ = write!(
            out,
            r#"<rect class="phase phase{}" x="{left:.1}" y="{band_top:.1}" width="{:.1}" height="{BAND}"><title>{}: {}</title></rect>"#,
            at % 2,
            (right - left).max(1.0),
            Text(name),
            span(to.abs_diff(*from)),
        );
        let _ = write!(
            out,
            r#"<rect class="shade" x="{left:.1}" y="{:.1}" width="{:.1}" height="{:.1}"/>"#,
            band_top + BAND,
            (right - left).max(1.0),
            bottom - band_top - BAND
        );
    }
    if let (Some(first), Some(last)) = (band.first(), band.last()) {
        let (left, right) = (scale.x(first.0), scale.x(last.1));
        // Beside it, where there is room.
        let (x, anchor) = if right < WIDTH * 0.75 { (right + 6.0, "start") } else { (left - 6.0, "end") };
        let _ = write!(
            over,
            r#"<text class="tick" x="{x:.1}" y="{:.1}" text-anchor="{anchor}">change of primary, {}</text>"#,
            band_top + BAND - 4.0,
            span(last.1.abs_diff(first.0))
        );
    }
    for tick in scale.axis.ticks() {
        let x = scale.x(tick);
        let _ = write!(
            out,
            r#"<path class="grid" d="M{x:.1} {bottom:.1}v5"/><text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            bottom + 18.0,
            seconds(tick)
        );
    }
    for flag in &flags {
        flag.draw(&mut out, bottom);
    }
    out.push_str(&over);
    let _ = write!(out, r#"<path class="cursor" d="M0 {band_top:.1}V{bottom:.1}" visibility="hidden"/></svg>"#);
    out
}

/// The drawing in a sentence, for whoever cannot see it.
fn spoken(run: &Run) -> String {
    let mut said = format!("{}, {}: writes, reads, errors and latency over time.", run.scenario, run.plan.name());
    if let Some(gap) = run.figures.write_gap {
        let _ = write!(said, " The longest time without an acknowledged write was {}.", span(gap));
    }
    said
}

/// Numbers only, for the script that hovers.
fn data(steps: &[Step]) -> String {
    let number = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
    let step = |step: &Step| {
        let rates = format!("{},{:.0},{:.0},{}", step.from, step.writes, step.reads, step.errors);
        let times = [step.write_median, step.write_max, step.read_median, step.read_max].map(number).join(",");
        format!("{rates},{times}")
    };
    steps.iter().map(step).collect::<Vec<_>>().join(";")
}

/// A power of ten in microseconds: `100 µs`, `1 ms`, `10 s`.
fn decade(power: i32) -> String {
    let (unit, power) = match power {
        ..3 => ("µs", power),
        3..6 => ("ms", power - 3),
        _ => ("s", power - 6),
    };
    format!("{} {unit}", 10u64.saturating_pow(power.max(0) as u32))
}

fn number_label(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// `0`, `+2 s`, `−0.5 s`.
fn seconds(ms: i64) -> String {
    let sign = match ms {
        0 => return "0".into(),
        ..0 => "−",
        _ => "+",
    };
    format!("{sign}{} s", ms.unsigned_abs() as f64 / 1000.0)
}

fn area(steps: &[Step], scale: &Scale, panel: &Panel, class: &str, part: impl Fn(&Step) -> f64) -> String {
    let mut path = String::new();
    let mut before: Option<i64> = None;
    for step in steps {
        let (left, right, y) = (scale.x(step.from), scale.x(step.to), panel.y(part(step)));
        if before != Some(step.from) {
            if before.is_some() {
                let _ = write!(path, "V{:.1}", panel.bottom());
            }
            let _ = write!(path, "M{left:.1} {:.1}", panel.bottom());
        }
        let _ = write!(path, "V{y:.1}H{right:.1}");
        before = Some(step.to);
    }
    if before.is_some() {
        let _ = write!(path, "V{:.1}", panel.bottom());
    }
    format!(r#"<path class="area {class}" d="{path}"/>"#)
}

fn bars(steps: &[Step], scale: &Scale, panel: &Panel) -> String {
    let mut path = String::new();
    for step in steps.iter().filter(|step| step.errors > 0) {
        let (left, right) = (scale.x(step.from), scale.x(step.to));
        // One error has to be seen beside a thousand.
        let y = panel.y(step.errors as f64 / scale.errors).min(panel.bottom() - 3.0);
        let _ =
            write!(path, "M{left:.1} {:.1}V{y:.1}H{:.1}V{:.1}z", panel.bottom(), right.max(left + 2.0), panel.bottom());
    }
    format!(r#"<path class="errors" d="{path}"/>"#)
}

fn line(steps: &[Step], scale: &Scale, panel: &Panel, class: &str, part: impl Fn(&Step) -> Option<f64>) -> String {
    let mut path = String::new();
    let mut before: Option<i64> = None;
    for step in steps {
        let Some(part) = part(step) else {
            before = None;
            continue;
        };
        let (left, right, y) = (scale.x(step.from), scale.x(step.to), panel.y(part));
        let _ = match before == Some(step.from) {
            true => write!(path, "V{y:.1}H{right:.1}"),
            false => write!(path, "M{left:.1} {y:.1}H{right:.1}"),
        };
        before = Some(step.to);
    }
    format!(r#"<path class="line {class}" d="{path}"/>"#)
}

fn silence(
    out: &mut String,
    over: &mut String,
    panel: &Panel,
    scale: &Scale,
    silent: Option<(i64, i64)>,
    (what, measured): (&str, Option<u64>),
    number: usize,
) {
    let Some((from, to)) = silent else { return };
    let (left, right) = (scale.x(from), scale.x(to));
    let width = (right - left).max(1.0);
    let _ = write!(
        out,
        r#"<rect class="silence" x="{left:.1}" y="{:.1}" width="{width:.1}" height="{}" fill="url(#hatch{number})"/>"#,
        panel.top, panel.height
    );
    // Steps are coarser than what was measured.
    let label = format!("no {what} for {}", span(measured.unwrap_or(to.abs_diff(from))));
    // As wide as a letter is in these letters, so that it stands in it or beside it.
    let needed = label.len() as f64 * 6.4;
    let (x, anchor) = match (needed < width, right + needed < WIDTH - RIGHT) {
        (true, _) => (left + width / 2.0, "middle"),
        (false, true) => (right + 6.0, "start"),
        (false, false) => (left - 6.0, "end"),
    };
    let _ = write!(
        over,
        r#"<text class="silent" x="{x:.1}" y="{:.1}" text-anchor="{anchor}">{label}</text>"#,
        panel.top + panel.height / 2.0 + 4.0
    );
}

/// A number above the panels, and its line across them.
struct Flag {
    x: f64,
    lane: usize,
    number: usize,
    kind: MarkKind,
}

/// Each in a lane where it does not cover one to its left; when all are full, in the last.
fn flags(run: &Run, scale: &Scale) -> Vec<Flag> {
    let origin = axis::origin(run);
    let mut ends = [f64::MIN; LANES];
    let flag = |(number, mark): (usize, &crate::drill::outcome::Mark)| {
        let x = scale.x(axis::since(mark.at, origin));
        let lane = ends.iter().position(|end| *end <= x - 11.0).unwrap_or(LANES - 1);
        ends[lane] = x + 11.0;
        Flag { x, lane, number: number + 1, kind: mark.kind }
    };
    run.marks.iter().take(MARKS).enumerate().map(flag).collect()
}

impl Flag {
    fn draw(&self, out: &mut String, bottom: f64) {
        let (x, y) = (self.x, self.lane as f64 * LANE + 11.0);
        let class = self.kind.word();
        let _ = write!(
            out,
            r#"<path class="mark {class}" d="M{x:.1} {:.1}V{bottom:.1}"/><g transform="translate({x:.1} {y:.1})">{}</g>"#,
            y + 9.0,
            token(self.kind, self.number)
        );
    }
}

/// A mark's shape with its number: a fault is a square, what was mended is a circle, what was seen is an empty circle.
pub fn token(kind: MarkKind, number: usize) -> String {
    let shape = match kind {
        MarkKind::Fault => r#"<rect x="-9" y="-9" width="18" height="18" rx="2"/>"#,
        MarkKind::Mended | MarkKind::Seen => r#"<circle r="9"/>"#,
    };
    format!(r#"<g class="token {}">{shape}<text y="4" text-anchor="middle">{number}</text></g>"#, kind.word())
}

/// When each phase of the change of primary was, since the fault. The first one, if it is `detect`, ended with the decision; without it,
/// the time until the decision is shown as one.
pub fn phases(run: &Run) -> Vec<(i64, i64, &str)> {
    let named = run.figures.phases.iter().map(|(name, took)| (name.as_str(), *took));
    let detection = run.figures.detection.unwrap_or(0);
    let (mut at, before) = match run.figures.phases.first() {
        None => return Vec::new(),
        Some((name, took)) if name == "detect" => (axis::since(detection.saturating_sub(*took), 0), None),
        Some(_) => (0, run.figures.detection.map(|took| ("detect", took))),
    };
    let mut phases = Vec::new();
    for (name, took) in before.into_iter().chain(named).take(super::PHASES) {
        let end = at.saturating_add_unsigned(took);
        phases.push((at, end, name));
        at = end;
    }
    phases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        assert_eq!([0.0, 0.4, 1.0, 1.1, 23.0, 51.0, 1000.0].map(round_up), [1.0, 1.0, 1.0, 2.0, 50.0, 100.0, 1000.0]);
    }

    #[test]
    fn an_axis_of_latency_has_round_labels() {
        assert_eq!([2, 3, 4, 6, 8].map(decade), ["100 µs", "1 ms", "10 ms", "1 s", "100 s"]);
    }

    #[test]
    fn times_on_the_axis_have_a_sign() {
        assert_eq!([-500, 0, 2000].map(seconds), ["−0.5 s", "0", "+2 s"]);
    }
}
