//! What people get of a drill: the page, the table and the JSON, of good and bad drills, of hostile text, of nothing and of too much.

mod samples;

use std::process::{Command, Stdio};

use pgbaton::drill::outcome::{Chapter, End, Judged, Mark, MarkKind, Plan, Promise, Report, Run, Slice, Verdict};
use pgbaton::drill::{print, report};

/// Parses strictly: every element that is opened is closed, in its order, no attribute is there twice, no id either, and what is
/// linked to exists. It prints the text that a reader sees.
const PARSER: &str = r##"
import sys
from html.parser import HTMLParser
VOID = {"meta", "br", "link"}
class Strict(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.links, self.text, self.tags = [], set(), [], [], {}
    def handle_starttag(self, tag, attributes):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), (tag, names)
        for name, value in attributes:
            assert not name.startswith("on"), (tag, name)
            if name == "id":
                assert value not in self.ids, value
                self.ids.add(value)
            if name in ("href", "src"):
                assert value.startswith("#"), "loads " + value
                self.links.append(value[1:])
        if tag not in VOID:
            self.open.append(tag)
    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()
    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-4:], self.getpos())
        self.open.pop()
    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)
parser = Strict()
page = sys.stdin.buffer.read().decode("utf-8")
assert "url(http" not in page and "@import" not in page
parser.feed(page)
parser.close()
assert not parser.open, parser.open
for link in parser.links:
    assert link in parser.ids, link
assert parser.tags.get("script") == 1 and parser.tags.get("style") == 1, parser.tags
sys.stdout.buffer.write("".join(parser.text).encode("utf-8"))
"##;

/// The text of the page that is shown.
#[track_caller]
fn parsed(page: &str) -> String {
    let mut child = Command::new("python3")
        .args(["-c", PARSER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "it is not well-formed");
    String::from_utf8(output.stdout).unwrap()
}

/// Kept where a person can open it.
#[track_caller]
fn page(name: &str, report: &Report) -> String {
    let page = report::html(report);
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("drill-report");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(format!("{name}.html")), &page).unwrap();
    page
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "it does not say {part:?}:\n{text}");
    }
}

#[test]
fn a_good_drill_says_so_first() {
    let text = parsed(&page("good", &samples::report(vec![samples::good(), samples::switched()])));
    assert_says(
        &text,
        &[
            "Every promise was kept",
            "2 scenarios played",
            "kept in 2 scenarios",
            "702 ms",
            "n2 is the primary, n1 follows it again",
        ],
    );
    assert!(!text.contains("FAIL") && !text.contains("broken"), "{text}");
    // What the brain did and why, the phases, and what clients were told.
    assert_says(
        &text,
        &["has the most of the log", "recruit 92 ms", "40001", "to be repeated", "change of primary, 688 ms"],
    );
}

#[test]
fn what_was_broken_is_said_with_examples() {
    let text = parsed(&page("all-kinds", &samples::of_all_kinds()));
    assert_says(
        &text,
        &[
            "Promises were broken in 1 of 4 scenarios, and 1 came to no end",
            "1 skipped; 1 run without pgbaton to compare with",
            "broken in freeze-primary; kept in 2",
            "n1 took 3 writes after n2 was the primary: 3000412",
            "could not connect to n2",
            "only root can mount a small file system",
            "an operator promotes the first standby 10 s after the fault",
            "no write for 10.3 s",
        ],
    );
}

#[test]
fn runs_that_are_compared_share_one_axis_with_the_fault_at_zero() {
    let mut late = samples::without();
    // Its fault was 2 s later: the drawings have to say when it was since then.
    for mark in &mut late.marks {
        mark.at += 2000;
    }
    late.slices.iter_mut().for_each(|slice| slice.at += 2000);
    let page = page("compared", &samples::report(vec![samples::good(), late]));
    parsed(&page);
    let attribute =
        |name: &str| -> Vec<&str> { page.split(name).skip(1).map(|rest| rest.split('"').next().unwrap()).collect() };
    let axes: Vec<(&str, &str)> = attribute(" data-from=\"").into_iter().zip(attribute(" data-to=\"")).collect();
    assert_eq!(axes, [("-5000", "16000"), ("-5000", "16000")]);
    // The line of each one's fault, which is the first mark.
    let faults = attribute("<path class=\"mark fault\" d=\"M");
    let places: Vec<&str> = faults.iter().map(|path| path.split(' ').next().unwrap()).collect();
    assert!(places.len() == 2 && places[0] == places[1], "{places:?}");
    let first_slice: Vec<&str> =
        attribute(" data-steps=\"").into_iter().map(|steps| steps.split(',').next().unwrap()).collect();
    assert_eq!(first_slice, ["-3000", "-3000"]);
}

#[test]
fn a_run_without_pgbaton_is_compared_with_the_one_before_it() {
    // Two durabilities, each compared; and one that nobody played with pgbaton.
    let other = |durability: &str| Run { durability: durability.into(), ..samples::good() };
    let alone = Run { scenario: "kill-replica".into(), ..samples::without() };
    let runs = vec![other("quorum"), samples::without(), other("async"), samples::without(), alone];
    let page = page("pairs", &samples::report(runs));
    assert_eq!(page.matches("<section class=\"scene").count(), 3);
    assert_eq!(page.matches("<div class=\"compared\">").count(), 2);
    assert_says(&parsed(&page), &["2 scenarios played; 3 runs without pgbaton", "FAIL, without pgbaton"]);
}

const HOSTILE: &str = "</script></style><script>alert(1)</script><img src=x onerror='alert(2)'>\" onload=\"alert(3) &lt; &#x3c; \u{1b}[31m\0\u{202e}]]>-->";

fn hostile() -> Run {
    let text = || HOSTILE.to_owned();
    let mut run = samples::good();
    (run.scenario, run.does, run.expects, run.durability) = (text(), text(), text(), text());
    run.promises.push(Judged { promise: Promise::AsExpected, verdict: Verdict::Fail, why: text() });
    run.marks.push(Mark { at: 4000, kind: MarkKind::Seen, text: text() });
    run.story.push(Chapter { at: None, epoch: None, what: text(), reason: text() });
    run.figures.phases.push((text(), 12));
    run.figures.failed.insert(text(), 3);
    run
}

#[test]
fn text_from_elsewhere_is_only_text() {
    let stuck = Run { end: End::Stuck { reason: HOSTILE.into() }, ..hostile() };
    let skipped = Run { end: End::Skipped { reason: HOSTILE.into() }, ..hostile() };
    let compared = Run { plan: Plan::MultiHost, ..hostile() };
    let mut report = samples::report(vec![hostile(), compared, stuck, skipped]);
    (report.version, report.postgres) = (HOSTILE.into(), HOSTILE.into());
    let page = page("hostile", &report);
    // The parser refuses a second script, and attributes that begin with "on".
    let text = parsed(&page);
    assert!(text.matches("<script>alert(1)</script>").count() > 20, "{text}");
    assert!(!page.contains('\u{202e}') && !page.contains('\0') && !page.contains('\u{1b}'));

    let table = print::table(&report);
    assert!(!table.contains('\u{1b}') && !table.contains('\0'), "{table}");
}

#[test]
fn empty_runs_are_shown_as_they_are() {
    let text = parsed(&page("nothing", &samples::report(vec![])));
    assert_says(&text, &["Nothing was played"]);
    let empty = Run {
        marks: vec![],
        slices: vec![],
        promises: vec![],
        story: vec![],
        figures: Default::default(),
        ..samples::good()
    };
    parsed(&page("empty", &samples::report(vec![empty.clone(), Run { plan: Plan::MultiHost, ..empty }])));
    let mut one = samples::good();
    one.slices.truncate(1);
    one.marks.clear();
    let page = page("one-slice", &samples::report(vec![one]));
    assert_says(&parsed(&page), &["acknowledged writes per 100 ms"]);
    assert!(!page.contains("NaN") && !page.contains("inf"), "a number is none");
}

#[test]
fn a_page_is_bounded_whatever_a_run_holds() {
    let size = |slices: u64| {
        let run = Run { slices: samples::slices(slices, 3000..9000, 7), ..samples::good() };
        page("long", &samples::report(vec![run])).len()
    };
    let (some, many) = (size(480), size(10_000));
    assert!(many < some * 5 / 4, "{some} bytes, and {many}");

    let mut run = samples::good();
    run.marks = (0..10_000).map(|at| Mark { at: at * 7, kind: MarkKind::Seen, text: "x".repeat(10_000) }).collect();
    run.story = (0..10_000)
        .map(|at| Chapter { at: Some(at), epoch: Some(1), what: "y".repeat(10_000), reason: "z".repeat(10_000) })
        .collect();
    run.figures.phases = (0..10_000).map(|number| (format!("phase {number}"), 1)).collect();
    run.figures.failed = (0..10_000).map(|number| (number.to_string(), 1)).collect();
    run.promises[0].why = "w".repeat(1_000_000);
    let page = page("much", &samples::report(vec![run; 3]));
    parsed(&page);
    assert!(page.len() < 4_000_000, "{} bytes", page.len());
}

#[test]
fn times_beyond_all_reason_do_not_panic() {
    let mut run = samples::good();
    run.slices[3].at = u64::MAX;
    run.marks[0].at = u64::MAX;
    run.took = u64::MAX;
    run.figures.phases = vec![("a".into(), u64::MAX), ("b".into(), u64::MAX)];
    run.figures.failed = [("40001".to_owned(), u64::MAX), ("57P03".to_owned(), u64::MAX)].into();
    let report = samples::report(vec![run.clone(), run]);
    parsed(&page("beyond", &report));
    print::table(&report);
}

#[test]
fn what_is_drawn_is_what_clients_saw() {
    let slice = |at: u64, writes: u32| Slice { at, writes, ..Slice::default() };
    let run = Run {
        slices: vec![slice(0, 10), slice(100, 0), slice(200, 0), slice(300, 0), slice(400, 5)],
        marks: vec![Mark { at: 100, kind: MarkKind::Fault, text: "fault".into() }],
        ..samples::good()
    };
    let page = report::html(&samples::report(vec![run]));
    assert_says(
        &page,
        &[
            "data-steps=\"-100,10,0,0,,,,;0,0,0,0,,,,;100,0,0,0,,,,;200,0,0,0,,,,;300,5,0,0,,,,\"",
            "no write for 702 ms",
        ],
    );
    // All of the panel's height is 10 writes.
    let area = page.split("class=\"area writes\" d=\"").nth(1).unwrap().split('"').next().unwrap();
    let heights: Vec<f64> = area
        .split(['M', 'V', 'H'])
        .skip(1)
        .enumerate()
        .filter(|(number, _)| number % 2 == 1)
        .map(|(_, part)| part.parse().unwrap())
        .collect();
    let bottom = *heights.last().unwrap();
    let drawn: Vec<f64> = heights.iter().take(5).map(|y| ((bottom - y) / 92.0 * 10.0).round()).collect();
    assert_eq!(drawn, [10.0, 0.0, 0.0, 0.0, 5.0], "{area}");
}

#[test]
fn the_table_says_it_in_the_terminal() {
    let table = print::table(&samples::of_all_kinds());
    let expected = "\
scenario                       durability  result   detected  first write  write gap  read gap  errors  dropped  lost  unknown  stale
kill-primary                   quorum      pass       271 ms       688 ms     702 ms    103 ms      11        0     0        1      0
kill-primary, without pgbaton  async       FAIL            -       10.3 s     10.3 s    10.1 s    1856       16     2        5      0
    nothing lost: 2 acknowledged writes are not there: 3000412, 5000398
    stay connected: 8 connections ended under their clients: 57P01, end of file
switchover                     quorum      pass            -       240 ms     233 ms    103 ms       0        0     0        0      0
freeze-primary                 quorum      FAIL       1.21 s       1.90 s     1.91 s    103 ms      11        2     3        1     12
    fresh reads: 12 reads showed less than their session knew: at 5.1 s session 3 knew 3000412 and saw 3000409 on n3
    nothing lost: 3 acknowledged writes are not there: 3000412, 5000398, 5000399
    one primary: n1 took 3 writes after n2 was the primary: 3000412 (at 10.031 s), 5000398 (at 10.032 s), 5000399 (at 10.034 s)
partition-primary              quorum      STUCK           -            -       57 s         -       0        0     0        0      0
    came to no end: after 60 s n1 does not follow n2: rejoin: pg_rewind: could not connect to n2
disk-full                      quorum      skipped
    only root can mount a small file system
median with pgbaton                                   1.21 s       688 ms     1.91 s    103 ms      11        0     0        1      0

5 scenarios: promises were broken in 1 (freeze-primary); 1 (partition-primary) came to no end; all were kept in 2; 1 skipped; 1 run without pgbaton.
";
    assert_eq!(table, expected, "\n{table}");
}

#[test]
fn the_json_is_the_report() {
    let report = samples::of_all_kinds();
    let json = serde_json::to_string_pretty(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["runs"][1]["plan"], "multi-host");
    assert_eq!(value["runs"][5]["end"]["end"], "skipped");
    assert_eq!(value["runs"][3]["promises"][2]["verdict"], "fail");
}
