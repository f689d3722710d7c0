//! What the pages say is there, is: links and anchors, commands, configuration, metrics, SQLSTATEs, units for systemd.
//!
//! A reader who follows a link to nowhere, or types a command that is not understood, does not come back. Each rule is a function
//! from text to complaints, tried at the end on small examples, so a rule that can no longer fail is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pgbaton::cli;
use pgbaton::config::{AgentConfig, Config};

/// Words in code that look like metrics and are roles, networks, databases.
const NO_METRICS: &[&str] = &["pgbaton_admin", "pgbaton_db", "pgbaton_exporter"];

/// The page that explains every SQLSTATE.
const TROUBLES: &str = "docs/troubleshooting.md";

// --- reading Markdown ------------------------------------------------------------------------------------------------

/// A page without its code, and its code.
#[derive(Default)]
struct Page {
    headings: Vec<String>,
    /// Line and target of each link.
    links: Vec<(usize, String)>,
    /// Line and text of what stands between backticks.
    spans: Vec<(usize, String)>,
    blocks: Vec<Block>,
}

struct Block {
    line: usize,
    language: String,
    text: String,
}

fn read(text: &str) -> Page {
    let mut page = Page::default();
    let mut fenced: Option<Block> = None;
    let mut indented: Option<Block> = None;
    let mut was_blank = true;
    for (line, text) in (1..).zip(text.lines()) {
        if let Some(language) = text.trim_start().strip_prefix("```") {
            match fenced.take() {
                Some(block) => page.blocks.push(block),
                None => fenced = Some(Block { line, language: language.trim().into(), text: String::new() }),
            }
            continue;
        }
        if let Some(block) = &mut fenced {
            block.text.push_str(text);
            block.text.push('\n');
            continue;
        }
        match (text.strip_prefix("    "), &mut indented) {
            (Some(code), Some(block)) => {
                block.text.push_str(code);
                block.text.push('\n');
                continue;
            }
            (Some(code), None) if was_blank => {
                indented = Some(Block { line, language: String::new(), text: format!("{code}\n") });
                continue;
            }
            _ => page.blocks.extend(indented.take()),
        }
        was_blank = text.trim().is_empty();
        if text.starts_with('#') {
            page.headings.push(text.trim_start_matches('#').trim().into());
        }
        let (prose, spans) = without_code(text);
        page.spans.extend(spans.into_iter().map(|span| (line, span)));
        let mut rest = prose.as_str();
        while let Some((_, behind)) = rest.split_once("](") {
            let Some((target, after)) = behind.split_once(')') else { break };
            page.links.push((line, target.trim().into()));
            rest = after;
        }
    }
    page.blocks.extend(fenced.or(indented));
    page
}

/// A line without what stands between backticks, and that.
fn without_code(line: &str) -> (String, Vec<String>) {
    let parts: Vec<&str> = line.split('`').collect();
    // What an odd backtick opens is not closed on this line: text.
    let is_code = |at: usize| at % 2 == 1 && at + 1 < parts.len();
    let prose = parts.iter().enumerate().filter(|(at, _)| !is_code(*at)).map(|(_, part)| *part).collect();
    let spans = parts.iter().enumerate().filter(|(at, _)| is_code(*at)).map(|(_, part)| (*part).into()).collect();
    (prose, spans)
}

/// As GitHub makes them: lower case, without signs, blanks as hyphens; repeated ones are counted.
fn anchors(headings: &[String]) -> BTreeSet<String> {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    let anchor = |heading: &String| {
        let lower = heading.to_lowercase();
        let kept = lower.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            c => c.is_alphanumeric().then_some(c),
        });
        let name: String = kept.collect();
        let before = count.entry(name.clone()).or_default();
        *before += 1;
        if *before == 1 { name } else { format!("{name}-{}", *before - 1) }
    };
    headings.iter().map(anchor).collect()
}

// --- the rules -------------------------------------------------------------------------------------------------------

/// Links to files that are not there, and to headings that are not in them.
fn link_complaints(path: &str, page: &Page, exists: impl Fn(&str) -> Option<BTreeSet<String>>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (line, target) in &page.links {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').map_or((target.as_str(), None), |(file, it)| (file, Some(it)));
        let place = if file.is_empty() { path.to_owned() } else { beside(path, file) };
        match (exists(&place), anchor) {
            (None, _) => complaints.push(format!("line {line}: there is no {place}")),
            (Some(known), Some(anchor)) if !known.contains(anchor) => {
                complaints.push(format!("line {line}: {place} has no heading #{anchor}"));
            }
            _ => {}
        }
    }
    complaints
}

/// `docs/a.md` and `../b/c.md` are `b/c.md`.
fn beside(path: &str, file: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Commands of pgbaton's that are not understood.
fn command_complaints(page: &Page) -> Vec<String> {
    let mut complaints = Vec::new();
    for block in page.blocks.iter().filter(|block| ["", "sh", "console", "ini"].contains(&block.language.as_str())) {
        // Where there is a prompt, the rest is what was answered.
        let has_prompt = block.text.lines().any(|line| line.starts_with("$ "));
        let lines = (block.line + 1..).zip(block.text.lines());
        for (line, text) in lines.filter(|(_, text)| !has_prompt || text.starts_with("$ ")) {
            for command in commands(text) {
                complaints.extend(misunderstood(&command, false).map(|reason| format!("line {line}: {reason}")));
            }
        }
    }
    for (line, span) in page.spans.iter().filter(|(_, span)| span.starts_with("pgbaton ")) {
        // A synopsis: what may be left out is there, of what may be chosen the first.
        let plain = span.replace("\\|", "|").replace(['[', ']'], "").replace('…', "");
        for mut command in commands(&plain) {
            command.iter_mut().for_each(|word| *word = word.split('|').next().unwrap_or_default().to_owned());
            complaints.extend(misunderstood(&command, true).map(|reason| format!("line {line}: {reason}")));
        }
    }
    complaints
}

/// `is_mention`: what a command takes need not be there, only what is there has to be right.
fn misunderstood(command: &[String], is_mention: bool) -> Option<String> {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    use clap::error::ErrorKind::{MissingRequiredArgument, MissingSubcommand, ValueValidation};
    let error = cli::understand(command.iter().map(String::as_str)).err()?;
    let is_fine = match error.kind() {
        DisplayHelp | DisplayVersion => true,
        // NODE, ADDR, FILE: something is to be put in its place.
        ValueValidation => is_mention && command.iter().any(|word| word.bytes().all(|byte| byte.is_ascii_uppercase())),
        MissingRequiredArgument | MissingSubcommand | DisplayHelpOnMissingArgumentOrSubcommand => is_mention,
        _ => false,
    };
    let first = error.to_string().lines().next().unwrap_or_default().to_owned();
    (!is_fine).then(|| format!("`{}`: {first}", command.join(" ")))
}

/// The command lines of pgbaton's on one line of shell.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut end = |words: &mut Vec<String>| {
        let words = std::mem::take(words);
        // The last "pgbaton" that is followed by a word: `docker compose exec pgbaton pgbaton list`, `sudo pgbaton …`
        let at = words.iter().rposition(|word| word == "pgbaton" || word.ends_with("/pgbaton"));
        let Some(at) = at.filter(|at| words[..*at].iter().all(|word| is_before_a_command(word))) else { return };
        // Of Docker's words the first one is the container's name.
        if words[..at].iter().any(|word| word == "docker") && words[at - 1] != "pgbaton" {
            return;
        }
        let mut command = words[at..].to_vec();
        command[0] = "pgbaton".into();
        if command.len() > 1 {
            found.push(command);
        }
    };
    let line = line.trim_start();
    let mut rest = line.strip_prefix("$ ").unwrap_or(line).chars().peekable();
    let mut word: Option<String> = None;
    while let Some(c) = rest.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                word.extend(rest.by_ref().take_while(|next| *next != c));
            }
            ' ' => words.extend(word.take()),
            '#' if word.is_none() => break,
            '&' | ';' | '|' | '(' | ')' | '>' | '<' if word.as_ref().is_none_or(|word| !word.contains('|')) => {
                // `on|off` is a choice, `a | b` a pipe.
                if c == '|' && word.is_some() && rest.peek().is_some_and(|next| next.is_alphanumeric()) {
                    word.get_or_insert_default().push(c);
                    continue;
                }
                words.extend(word.take());
                end(&mut words);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    end(&mut words);
    found
}

/// What may stand before a command on its line: settings of the environment, and commands that run others.
fn is_before_a_command(word: &str) -> bool {
    let runners =
        ["sudo", "exec", "docker", "compose", "until", "while", "if", "then", "do", "run", "watch", "-n", "0.5"];
    word.contains('=')
        || word.starts_with('-')
        || word.ends_with(".yml")
        || runners.contains(&word)
        || word == "pgbaton"
}

/// Configuration that would be refused: whole files, and parts to which what has to be there is added.
fn configuration_complaints(page: &Page) -> Vec<String> {
    let blocks = page.blocks.iter().filter(|block| block.language == "toml");
    let complaint = |block: &Block| {
        let has = |table: &str| block.text.lines().any(|line| line.trim_start().starts_with(table));
        let file = Path::new("page.toml");
        let text = block.text.replace('…', "x");
        let refused = if has("[agent") {
            let head = if has("[agent]") { "" } else { "[agent]\n" };
            let needed = if has("data_dir") { "" } else { "node = \"n1\"\ndata_dir = \"/d\"\n" };
            let whole = format!("{head}{needed}{text}");
            AgentConfig::parse(&whole, file).err().map(|error| error.to_string())
        } else {
            let needed = if has("[[cluster.nodes]]") { "" } else { "\n[[cluster.nodes]]\nid = \"n1\"\nhost = \"h\"\n" };
            Config::parse(&format!("{text}{needed}"), file).err().map(|error| error.to_string())
        };
        refused.map(|reason| format!("line {}: {reason}", block.line))
    };
    blocks.filter_map(complaint).collect()
}

/// Metrics that no source names. `source` is all of it.
fn metric_complaints(page: &Page, source: &str) -> Vec<String> {
    let blocks = page.blocks.iter().map(|block| (block.line, block.text.as_str()));
    let spans = page.spans.iter().map(|(line, span)| (*line, span.as_str()));
    let mut complaints = Vec::new();
    for (line, code) in spans.chain(blocks) {
        for word in code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let Some(name) = word.strip_prefix("pgbaton_") else { continue };
            let ends = ["_total", "_bucket", "_sum", "_count", "_info", ""].map(|end| name.strip_suffix(end));
            let names = |base: &str| [format!("\"pgbaton_{base}\""), format!("\"{base}\"")];
            let is_known = ends.into_iter().flatten().flat_map(names).any(|name| source.contains(&name));
            if !is_known && !NO_METRICS.contains(&word) {
                complaints.push(format!("line {line}: no source names a metric {word}"));
            }
        }
    }
    complaints
}

/// Every SQLSTATE that a source makes an error of.
fn sqlstates(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for maker in ["Problem::new(", "refuse(", "code: ", "let sqlstate = "] {
        for behind in source.split(maker).skip(1) {
            let end = if maker.starts_with("let") { behind.find(';') } else { Some(behind.len().min(60)) };
            let shown: String = behind.chars().take(end.unwrap_or(0)).collect();
            let literals = shown.split('"').skip(1).step_by(2);
            let first = if maker.starts_with("let") { usize::MAX } else { 1 };
            let is_argument = maker.starts_with("let") || shown.trim_start().starts_with('"');
            found.extend(literals.take(first).filter(|text| is_argument && is_sqlstate(text)).map(str::to_owned));
        }
    }
    found
}

fn is_sqlstate(text: &str) -> bool {
    text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// The SQLSTATEs in the first column of a page's tables.
fn explained(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let codes = rows.filter_map(|rest| rest.split('`').next()).filter(|text| is_sqlstate(text));
    codes.map(str::to_owned).collect()
}

// --- the repository --------------------------------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a directory that ends so, by its path from the root.
fn files(directory: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = vec![root().join(directory)];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => found.push(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()),
            }
        }
    }
    found.retain(|path| path.ends_with(ending));
    found.sort();
    found
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// README, the pages below `docs/` and the changes.
fn pages() -> Vec<(String, Page)> {
    let paths = ["README.md".to_owned(), "CHANGELOG.md".into()].into_iter().chain(files("docs", ".md"));
    let pages: Vec<_> = paths.map(|path| (path.clone(), read(&text(&path)))).collect();
    assert!(pages.len() > 15, "the pages are not found");
    pages
}

/// All of src, without what is only compiled for tests.
fn sources() -> String {
    let is_test = |path: &String| path.ends_with("/tests.rs") || path.contains("/tests/");
    let paths = files("src", ".rs").into_iter().filter(|path| !is_test(path));
    paths.map(|path| text(&path).split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()).collect()
}

#[track_caller]
fn assert_none(check: impl Fn(&str, &Page) -> Vec<String>) {
    let named = |(path, page): &(String, Page)| {
        check(path, page).into_iter().map(|complaint| format!("{path}: {complaint}")).collect::<Vec<_>>()
    };
    let complaints: Vec<String> = pages().iter().flat_map(named).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_link_leads_somewhere() {
    let exists = |path: &str| match path.ends_with(".md") {
        true => std::fs::read_to_string(root().join(path)).ok().map(|text| anchors(&read(&text).headings)),
        false => root().join(path).exists().then(BTreeSet::new),
    };
    assert_none(|path, page| link_complaints(path, page, exists));
}

#[test]
fn every_command_is_understood() {
    assert_none(|_, page| command_complaints(page));
}

#[test]
fn every_configuration_is_accepted() {
    assert_none(|_, page| configuration_complaints(page));
}

#[test]
fn every_metric_is_there() {
    let source = sources();
    assert_none(|_, page| metric_complaints(page, &source));
}

#[test]
fn every_sqlstate_that_is_sent_is_explained() {
    let (sent, explained) = (sqlstates(&sources()), explained(&text(TROUBLES)));
    assert!(sent.len() > 15, "the SQLSTATEs are not found: {sent:?}");
    let missing: Vec<_> = sent.difference(&explained).collect();
    assert!(missing.is_empty(), "{TROUBLES} does not explain {missing:?}");
    let stale: Vec<_> = explained.difference(&sent).collect();
    assert!(stale.is_empty(), "{TROUBLES} explains {stale:?}, which nothing sends");
}

/// Whether systemd would take the units, and how much they leave open.
#[test]
fn units_are_in_order() {
    let version = std::process::Command::new("systemd-analyze").arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let number = version.split_whitespace().nth(1).and_then(|word| word.parse::<u32>().ok());
    // `security --offline` came with 250.
    if number.is_none_or(|number| number < 250) {
        eprintln!("skipped: units_are_in_order (no systemd-analyze of 250 or later)");
        return;
    }
    let units = files("docs/systemd", ".service");
    assert_eq!(units.len(), 2, "{units:?}");
    let place = tempfile::tempdir().unwrap();
    for unit in units {
        // The program is looked for, and is elsewhere here.
        let here = text(&unit).replace("/usr/local/bin/pgbaton", env!("CARGO_BIN_EXE_pgbaton"));
        let copy = place.path().join(Path::new(&unit).file_name().unwrap());
        std::fs::write(&copy, here).unwrap();
        let analyze = |words: &[&str]| {
            let run = std::process::Command::new("systemd-analyze").args(words).arg(&copy).output().unwrap();
            (run.status.success(), String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned())
        };
        let (is_taken, said) = analyze(&["verify", "--man=no"]);
        let name = copy.file_name().unwrap().to_string_lossy().into_owned();
        assert!(is_taken && !said.contains(&name), "{unit}: {said}");
        // Of ten (hardly anything is forbidden) in tenths. The agent's is PostgreSQL's, whose extensions may want a lot.
        let threshold = if name.contains("agent") { "55" } else { "15" };
        let (is_tight, said) =
            analyze(&["security", "--offline=true", "--no-pager", &format!("--threshold={threshold}")]);
        assert!(is_tight, "{unit}: {said}");
    }
}

// --- each rule can fail ----------------------------------------------------------------------------------------------

#[test]
fn a_link_to_nowhere_is_noticed() {
    let page = read("# A b\n[x](b.md) [y](b.md#there) `[n](one)` [z](#a-b)\n\n    [n](one)\n[w](https://a.b/c)");
    let exists = |path: &str| (path == "docs/a.md").then(|| anchors(&["A b".into(), "A b".into()]));
    let complaints = link_complaints("docs/a.md", &page, exists);
    assert_eq!(complaints, ["line 2: there is no docs/b.md", "line 2: there is no docs/b.md"]);
    let page = read("[x](../docs/a.md#a-b-1) [y](a.md#c)");
    assert_eq!(link_complaints("docs/b.md", &page, exists), ["line 1: docs/a.md has no heading #c"]);
    assert_eq!(anchors(&["`a_b` (c), d: e – f".into()]), BTreeSet::from(["a_b-c-d-e--f".to_owned()]));
}

#[test]
fn a_command_that_is_not_understood_is_noticed() {
    let wrong = |text: &str| command_complaints(&read(text)).len();
    for right in [
        "```sh\npgbaton list --watch   # every second\n```",
        "```sh\nA=b pgbaton restart n2 && pgbaton switchover --to n1 | cat\n```",
        "\n    $ pgbaton explain --user demo 'SELECT 1'\n    at  node  role\n",
        "`pgbaton switchover [--to NODE]`, `pgbaton explain`, `pgbaton maintenance NODE on\\|off`",
        "```sh\ndocker compose -f docker/compose.yml exec pgbaton pgbaton list\n```",
        "```sh\ndocker compose exec pgbaton cat /etc/x\n```",
        "```\n$ pgbaton list\npgbaton is in front of PostgreSQL\n```",
    ] {
        assert_eq!(wrong(right), 0, "{right}");
    }
    for one_wrong in [
        "```sh\npgbaton lists\n```",
        "```sh\npgbaton list && pgbaton list --wach\n```",
        "```sh\npgbaton failover\n```",
        "\n    $ pgbaton restart\n",
        "`pgbaton switchover --two n1`",
        "`pgbaton maintenance n1 maybe`",
    ] {
        assert_eq!(wrong(one_wrong), 1, "{one_wrong}");
    }
}

#[test]
fn configuration_that_would_be_refused_is_noticed() {
    let wrong = |text: &str| configuration_complaints(&read(&format!("```toml\n{text}\n```"))).len();
    assert_eq!(wrong("[reads]\nbalance = \"random\""), 0);
    assert_eq!(wrong("[reads]\nbalance = \"best\""), 1);
    assert_eq!(wrong("[agent.postgres]\nshared_buffers = \"1GB\""), 0);
    assert_eq!(wrong("[agent]\nnode = \"n1\"\ndata_dir = \"/d\"\ndata = 1"), 1);
}

#[test]
fn a_metric_that_is_not_there_is_noticed() {
    let page = read("`pgbaton_epoch` `rate(pgbaton_reads_total[5m])`\n```\npgbaton_none 1\n```\npgbaton_prose");
    assert_eq!(
        metric_complaints(&page, "\"pgbaton_epoch\" \"pgbaton_reads\""),
        ["line 2: no source names a metric pgbaton_none"]
    );
}

#[test]
fn sqlstates_are_found_where_errors_are_made() {
    let source = "Problem::new(\"53300\", x); Problem::new(\n    \"08006\",\n y) if state == \"57014\" refuse(\"28000\", z)
        let sqlstate = if a { \"42601\" } else { \"3D000\" }; Problem::new(sqlstate, \"ABCDE\") Refused { code: \"08P01\" }";
    let found: Vec<String> = sqlstates(source).into_iter().collect();
    assert_eq!(found, ["08006", "08P01", "28000", "3D000", "42601", "53300"]);
    assert_eq!(explained("| `40001` | x |\n| 57P03 | `28000` |"), BTreeSet::from(["40001".to_owned()]));
}
