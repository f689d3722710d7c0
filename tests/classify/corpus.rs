//! The corpus as text: themes, cases and steps, and what is expected of each.
//!
//! A file is nearly SQL. A line `--- name | attributes` begins a case; a step is the lines up to `--> expectation`, which
//! to SQL is a comment. `# ` at the start of a line is a remark. The part before the first case is the set-up, run on
//! the primary before anything else. See `tests/classify/README.md` for all the words.

use std::path::Path;

/// Where a statement must have run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// A provable read. On the primary it is a missed chance.
    Replica,
    /// On a replica it would be wrong.
    Primary,
    /// Either would be right.
    Any,
    /// Nowhere: an error before it in the pipeline, or pgbaton answers it.
    Nowhere,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Simple,
    Extended,
    /// Parse of a named statement, then Bind and Execute twice.
    Named,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub line: usize,
    pub text: String,
    pub target: Target,
    /// The SQLSTATE the direct connection gives.
    pub error: Option<String>,
    /// Values differ from one connection to the next: only their types and the shape of the answer are compared.
    pub unlike: bool,
    /// Means something at pgbaton only: nothing is compared.
    pub own: bool,
    /// Sent together with the next step, under its Sync.
    pub queued: bool,
    /// Before it is sent, replicas have all that was written so far.
    pub settled: bool,
    /// Which of the case's sessions sends it.
    pub session: u8,
    pub parameters: Vec<Option<String>>,
    /// For COPY FROM STDIN.
    pub data: String,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub line: usize,
    pub protocols: Vec<Protocol>,
    /// Startup parameters.
    pub login: Vec<(String, String)>,
    pub user: Option<String>,
    pub is_latin1: bool,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub struct Theme {
    pub name: String,
    pub setup: String,
    pub cases: Vec<Case>,
}

impl Case {
    /// Whether it makes, changes or drops objects, as far as its words say.
    pub fn changes_catalog(&self) -> bool {
        const WORDS: [&str; 14] = [
            "CREATE ",
            "ALTER ",
            "DROP ",
            "COMMENT ON ",
            "GRANT ",
            "REVOKE ",
            " INTO ",
            "TRUNCATE ",
            "VACUUM ",
            "ANALYZE ",
            "REINDEX ",
            "CLUSTER ",
            "REFRESH ",
            "DISCARD ",
        ];
        self.steps.iter().any(|step| WORDS.iter().any(|word| step.text.contains(word)))
    }
}

pub fn read_all(directory: &Path) -> Vec<Theme> {
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    files.iter().map(|file| parse(file)).collect()
}

fn parse(file: &Path) -> Theme {
    let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
    let source = std::fs::read_to_string(file).unwrap();
    let mut theme = Theme { name, setup: String::new(), cases: Vec::new() };
    let mut open: Option<(Case, bool)> = None;
    let mut text = String::new();
    for (at, line) in source.lines().enumerate() {
        let at = at + 1;
        let wrong = |what: &str| -> ! { panic!("{}:{at}: {what}: {line}", file.display()) };
        if line.starts_with("# ") || line == "#" {
            continue;
        }
        if let Some(header) = line.strip_prefix("--- ") {
            if !text.trim().is_empty() && open.is_some() {
                wrong("the statement above has no expectation");
            }
            text.clear();
            finish(&mut theme, open.take());
            open = Some(head(header, at).unwrap_or_else(|what| wrong(&what)));
            continue;
        }
        let Some((case, _)) = &mut open else {
            theme.setup.push_str(line);
            theme.setup.push('\n');
            continue;
        };
        match line.rfind("-->") {
            None => {
                text.push_str(line);
                text.push('\n');
            }
            Some(arrow) => {
                // What stands before the arrow is kept to the byte; the space next to it is not part of the text.
                let last = &line[..arrow];
                text.push_str(last.strip_suffix(' ').unwrap_or(last));
                let step = step(&text, &line[arrow + 3..], at).unwrap_or_else(|what| wrong(&what));
                case.steps.push(step);
                text.clear();
            }
        }
    }
    assert!(text.trim().is_empty(), "{}: the last statement has no expectation", file.display());
    finish(&mut theme, open);
    theme
}

/// `name | attribute | attribute`, and whether each step is a case of its own.
fn head(header: &str, line: usize) -> Result<(Case, bool), String> {
    let mut parts = header.split(" | ").map(str::trim);
    let name = parts.next().unwrap_or_default().to_owned();
    let mut case =
        Case { name, line, protocols: Vec::new(), login: Vec::new(), user: None, is_latin1: false, steps: Vec::new() };
    let mut is_group = false;
    for part in parts {
        let (word, rest) = part.split_once(' ').unwrap_or((part, ""));
        match word {
            "each" => is_group = true,
            "simple" => case.protocols.push(Protocol::Simple),
            "extended" => case.protocols.push(Protocol::Extended),
            "named" => case.protocols.push(Protocol::Named),
            "both" => case.protocols = vec![Protocol::Simple, Protocol::Extended],
            "all" => case.protocols = vec![Protocol::Simple, Protocol::Extended, Protocol::Named],
            "latin1" => case.is_latin1 = true,
            "user" => case.user = Some(rest.to_owned()),
            "login" => {
                let (key, value) = rest.split_once('=').ok_or("login needs key=value")?;
                case.login.push((key.into(), value.into()));
            }
            _ => return Err(format!("unknown attribute {word}")),
        }
    }
    if case.protocols.is_empty() {
        case.protocols = match is_group {
            true => vec![Protocol::Simple, Protocol::Extended],
            false => vec![Protocol::Simple],
        };
    }
    Ok((case, is_group))
}

fn finish(theme: &mut Theme, open: Option<(Case, bool)>) {
    let Some((mut case, is_group)) = open else { return };
    assert!(!case.steps.is_empty(), "{}: {} has no steps", theme.name, case.name);
    match is_group {
        false => theme.cases.push(case),
        true => {
            for step in std::mem::take(&mut case.steps) {
                theme.cases.push(Case { line: step.line, steps: vec![step], ..case.clone() });
            }
        }
    }
}

/// `replica error 22012 unlike | with 1, NULL | data 1\t2\n`
fn step(text: &str, expectation: &str, line: usize) -> Result<Step, String> {
    let text = text.trim_start_matches('\n');
    let (session, text) = match text.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
        Some((number, rest)) => (number.parse().map_err(|_| "@ needs a number")?, rest),
        None => (1, text),
    };
    let mut parts = expectation.split(" | ");
    let mut words = parts.next().unwrap_or_default().split_whitespace();
    let target = match words.next() {
        Some("replica") => Target::Replica,
        Some("primary") => Target::Primary,
        Some("any" | "fresh") => Target::Any,
        Some("nowhere") => Target::Nowhere,
        other => return Err(format!("unknown target {other:?}")),
    };
    let mut step = Step {
        line,
        text: text.to_owned(),
        target,
        error: None,
        unlike: false,
        own: false,
        queued: false,
        settled: false,
        session,
        parameters: Vec::new(),
        data: String::new(),
    };
    while let Some(word) = words.next() {
        match word {
            "error" => step.error = Some(words.next().ok_or("error needs a code")?.to_owned()),
            "unlike" => step.unlike = true,
            "own" => step.own = true,
            "queued" => step.queued = true,
            "settled" => step.settled = true,
            _ => return Err(format!("unknown word {word}")),
        }
    }
    for part in parts {
        let (word, rest) = part.trim().split_once(' ').ok_or("an attribute needs a value")?;
        match word {
            "with" => {
                let value = |value: &str| (value.trim() != "NULL").then(|| value.trim().to_owned());
                step.parameters = rest.split(',').map(value).collect();
            }
            "data" => step.data = rest.replace("\\t", "\t").replace("\\n", "\n"),
            _ => return Err(format!("unknown attribute {word}")),
        }
    }
    Ok(step)
}
