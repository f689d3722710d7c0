//! Keeps the house in order: who may use whom, what stays pure, and that every file says why it exists.
//!
//! Each rule is a function from text to complaints, tried on small examples below before it is let loose on the
//! repository, so a rule that can no longer fail is noticed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files that may be longer than [`LONGEST`] lines, and why splitting them would make them worse.
const LONG_FILES: &[(&str, &str)] = &[];
const LONGEST: usize = 700;

/// Modules and files that are told what happened and never look for themselves.
const PURE: &[&str] = &["types", "wire", "sql", "route", "cluster", "session::machine"];
/// What they must not mention, as the beginning of a path or as a word.
const IMPURE: &[&str] =
    &["tokio", "std::net", "std::fs", "std::thread", "std::env", "Instant", "SystemTime", "rand", "socket2", "rustix"];

/// What may lie in the top directory.
const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".dockerignore",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "README.md",
    "docker",
    "docs",
    "fuzz",
    "migrations",
    "rustfmt.toml",
    "setup.sh",
    "src",
    "tests",
];

// --- the rules -------------------------------------------------------------------------------------------------------

/// The modules of the table in `src/lib.rs` and their height. In a row whose names are joined by `>`, the left one may
/// use the right one; otherwise neighbours in a row do not use each other.
fn layers(library: &str) -> BTreeMap<String, (u32, usize)> {
    let mut layers = BTreeMap::new();
    for line in library.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let mut cells = line.split('|').map(str::trim);
        let Some(layer) = cells.next().and_then(|cell| cell.parse::<u32>().ok()) else { continue };
        for (height, group) in cells.next().unwrap_or_default().rsplit('>').enumerate() {
            let names = group.split_whitespace().map(|name| name.trim_matches('`')).filter(|name| !name.is_empty());
            layers.extend(names.map(|name| (name.to_string(), (layer, height))));
        }
    }
    layers
}

/// Uses of a module that does not stand below the file's own.
fn layer_complaints(module: &[String], source: &str, layers: &BTreeMap<String, (u32, usize)>) -> Vec<String> {
    let Some(own) = module.first() else { return Vec::new() };
    let Some(&height) = layers.get(own) else {
        return vec![format!("module `{own}` is not in the table of src/lib.rs")];
    };
    let mut complaints = Vec::new();
    for (line, path) in paths(&code_only(source)) {
        let parts: Vec<&str> = path.split("::").collect();
        let used = match parts.as_slice() {
            ["crate", used, ..] => used,
            ["super", "super", ..] => {
                complaints.push(format!("line {line}: `{path}`: write crate::… so that the layer can be seen"));
                continue;
            }
            ["super", used, _, ..] if module.len() == 1 => used,
            _ => continue,
        };
        if let Some(&below) = layers.get(*used)
            && used != own
            && (below.0 > height.0 || below.0 == height.0 && below.1 >= height.1)
        {
            complaints.push(format!("line {line}: `{own}` uses `{used}`, which does not stand below it"));
        }
    }
    complaints
}

/// Mentions of sockets, clocks and the like in a file that has to be pure. Its tests may do what they like.
fn purity_complaints(source: &str) -> Vec<String> {
    let code = without_tests(&code_only(source));
    let found = paths(&code).into_iter().flat_map(|(line, path)| {
        let impure = IMPURE.iter().filter(move |impure| match impure.contains("::") {
            true => path == **impure || path.starts_with(&format!("{impure}::")),
            false => path.split("::").any(|part| part == **impure),
        });
        impure.map(move |impure| format!("line {line}: a pure file mentions `{impure}`"))
    });
    found.collect()
}

fn opening_complaint(source: &str) -> Option<String> {
    let first = source.lines().next().unwrap_or_default();
    (!first.starts_with("//! ")).then(|| "does not open with a `//!` line saying why it exists".to_string())
}

fn length_complaint(path: &str, source: &str, long_files: &[(&str, &str)]) -> Option<String> {
    let lines = source.lines().count();
    let listed = long_files.iter().any(|(listed, reason)| *listed == path && !reason.is_empty());
    match (lines > LONGEST, listed) {
        (true, false) => Some(format!("has {lines} lines; look for the second noun in it, or list it with a reason")),
        (false, true) => Some("is listed as long but is not".into()),
        _ => None,
    }
}

/// `unwrap()` outside tests with no comment on its own line or the one before.
fn unwrap_complaints(source: &str) -> Vec<String> {
    let code = without_tests(&code_only(source));
    let lines: Vec<&str> = source.lines().collect();
    let is_explained = |at: usize| {
        lines[at].contains("//") || at.checked_sub(1).is_some_and(|before| lines[before].trim_start().starts_with("//"))
    };
    let found = code.lines().enumerate().filter(|(at, line)| line.contains(".unwrap()") && !is_explained(*at));
    found.map(|(at, _)| format!("line {}: unwrap() without a sentence saying why it cannot fail", at + 1)).collect()
}

fn top_level_complaints<'p>(files: impl Iterator<Item = &'p str>) -> Vec<String> {
    let mut entries: Vec<&str> = files.filter_map(|file| file.split('/').next()).collect();
    entries.dedup();
    entries.retain(|entry| !TOP_LEVEL.contains(entry));
    entries.iter().map(|entry| format!("`{entry}` does not belong in the top directory")).collect()
}

// --- reading Rust ----------------------------------------------------------------------------------------------------

/// The text with comments and the contents of literals blanked out; lines stay where they are.
fn code_only(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest),
            'r' if !ends_in_word(&out) && raw_string(rest).is_some() => raw_string(rest).unwrap(),
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    out
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(text: &str) -> usize {
    let mut is_escaped = true;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&end).map_or(text.len(), |at| 2 + hashes + at + end.len()))
}

/// The length of a character literal, 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text[1..].char_indices();
    match inside.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |at| at + 4),
        Some(_) => inside.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 2),
        None => 0,
    }
}

/// The code with every `#[cfg(test)]` item blanked out.
fn without_tests(code: &str) -> String {
    let mut out = code.to_string();
    while let Some(start) = out.find("#[cfg(test)]") {
        let mut depth = 0;
        let end = out[start..].char_indices().find_map(|(at, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0 && (c == '}' || c == ';')).then_some(start + at + 1)
        });
        let end = end.unwrap_or(out.len());
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// Every path in the code with its line; `use a::{b, c::d}` gives `a::b` and `a::c::d`.
fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(offset) = code[at..].find(|c: char| c.is_alphabetic() || c == '_') {
        at += offset;
        let line = 1 + code[..at].matches('\n').count();
        let mut tree = Vec::new();
        let rest = expand("", &code[at..], &mut tree);
        at = code.len() - rest.len();
        found.extend(tree.into_iter().map(|path| (line, path)));
    }
    found
}

/// Reads one path or tree of paths off the front of `text`; what follows it is returned.
fn expand<'t>(prefix: &str, text: &'t str, found: &mut Vec<String>) -> &'t str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let path = if prefix.is_empty() { text[..end].to_string() } else { format!("{prefix}::{}", &text[..end]) };
    let rest = &text[end..];
    let Some(after) = rest.trim_start().strip_prefix("::").map(str::trim_start) else {
        found.push(path);
        return rest;
    };
    match after.chars().next() {
        Some('{') => {
            let mut rest = &after[1..];
            loop {
                rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
                match rest.chars().next() {
                    Some('}') => return &rest[1..],
                    Some(c) if c.is_alphabetic() || c == '_' => rest = expand(&path, rest, found),
                    Some(c) => rest = &rest[c.len_utf8()..],
                    None => return rest,
                }
                // `as name` renames; it is not a path.
                if let Some(renamed) = rest.trim_start().strip_prefix("as ") {
                    rest = renamed.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
                }
            }
        }
        Some(c) if c.is_alphabetic() || c == '_' => expand(&path, after, found),
        _ => {
            found.push(path);
            after
        }
    }
}

// --- the repository --------------------------------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below the given top directories: path from the root, and text.
fn rust_files(directories: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut left: Vec<PathBuf> = directories.iter().map(|name| root().join(name)).collect();
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !["target", "work", "node_modules", "corpus", "artifacts"].contains(&name.as_str()) {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(), text));
            }
        }
    }
    files.sort();
    files
}

/// `src/pool/waiters.rs` is `pool::waiters`; `main.rs` and `lib.rs` stand above all and are nothing.
fn module_of(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let parts = inside.split('/').filter(|part| *part != "mod" && !["main", "lib"].contains(part));
    parts.map(str::to_string).collect()
}

/// Whole files that are only compiled for tests, by the name this repository gives them.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[track_caller]
fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn for_each_file(directories: &[&str], check: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let files = rust_files(directories);
    assert!(!files.is_empty());
    let named = |(path, text): &(String, String)| {
        check(path, text).into_iter().map(|complaint| format!("{path}: {complaint}")).collect::<Vec<_>>()
    };
    files.iter().flat_map(named).collect()
}

#[test]
fn a_file_uses_only_what_stands_below_it() {
    let layers = layers(&std::fs::read_to_string(root().join("src/lib.rs")).unwrap());
    assert!(layers.len() > 10, "the table of layers in src/lib.rs is not read: {layers:?}");
    assert_none(for_each_file(&["src"], |path, text| layer_complaints(&module_of(path), text, &layers)));
}

#[test]
fn pure_files_touch_no_socket_and_no_clock() {
    let is_pure = |path: &str| {
        let module = module_of(path).join("::");
        PURE.iter().any(|pure| module == *pure || module.starts_with(&format!("{pure}::")))
    };
    assert_none(for_each_file(&["src"], |path, text| if is_pure(path) { purity_complaints(text) } else { Vec::new() }));
}

#[test]
fn every_file_says_why_it_exists() {
    assert_none(for_each_file(&["src", "tests", "fuzz"], |_, text| opening_complaint(text).into_iter().collect()));
}

#[test]
fn no_file_is_uncomfortably_long() {
    let complaints = |path: &str, text: &str| length_complaint(path, text, LONG_FILES).into_iter().collect();
    assert_none(for_each_file(&["src", "tests", "fuzz"], complaints));
}

#[test]
fn unwrap_outside_tests_is_explained() {
    let complaints = |path: &str, text: &str| if is_test_file(path) { Vec::new() } else { unwrap_complaints(text) };
    assert_none(for_each_file(&["src"], complaints));
}

#[test]
fn the_top_directory_holds_only_what_belongs_there() {
    let output = std::process::Command::new("git").args(["ls-files"]).current_dir(root()).output();
    let tracked = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    if tracked.is_empty() {
        eprintln!("not a git checkout: the top directory is not looked at");
        return;
    }
    assert_none(top_level_complaints(tracked.lines()));
}

// --- each rule can fail ----------------------------------------------------------------------------------------------

const TABLE: &str = "//! | layer | modules |\n//! |---|---|\n//! | 3 | `cli` > `app` |\n//! | 2 | `pool` `node` |\n//! | 0 | `types` |\n";

fn layer_trial(path: &str, source: &str) -> Vec<String> {
    layer_complaints(&module_of(path), source, &layers(TABLE))
}

#[test]
fn using_upwards_or_sideways_is_noticed() {
    let upwards = ["line 1: `pool` uses `app`, which does not stand below it"];
    assert_eq!(layer_trial("src/pool/mod.rs", "use crate::app::Running;"), upwards);
    assert_eq!(layer_trial("src/pool.rs", "use crate::{types, app};"), upwards);
    assert_eq!(layer_trial("src/pool/x.rs", "fn f() -> crate::app::Running {}"), upwards);
    assert_eq!(layer_trial("src/pool.rs", "use super::app::Running;"), upwards);
    let sideways = ["line 2: `pool` uses `node`, which does not stand below it"];
    assert_eq!(layer_trial("src/pool/x.rs", "use crate::types::Lsn;\nuse crate::{node::Dial as D, types};"), sideways);
    assert_eq!(layer_trial("src/app.rs", "use crate::cli;").len(), 1);
    assert_eq!(layer_trial("src/pool/a/b.rs", "use super::super::other;").len(), 1);
    assert_eq!(layer_trial("src/new.rs", ""), ["module `new` is not in the table of src/lib.rs"]);
}

#[test]
fn using_downwards_is_not() {
    for (path, source) in [
        ("src/cli.rs", "use crate::{app, pool::Pool};"),
        ("src/pool/mod.rs", "use crate::types::NodeId; use super::x; mod tests { use super::*; use crate::pool::Y; }"),
        ("src/pool.rs", "// use crate::app;\nconst TEXT: &str = \"crate::app\"; /* crate::app */"),
        ("src/pool.rs", "fn f<'a>(x: &'a str) { let c = '\"'; } // \" crate::app"),
        ("src/pool.rs", "const RAW: &str = r#\"say \"crate::app\"\"#;"),
        ("src/main.rs", "use crate::app;"),
    ] {
        assert_eq!(layer_trial(path, source), Vec::<String>::new(), "{source}");
    }
    // After a literal the code is looked at again.
    assert_eq!(layer_trial("src/pool.rs", "f('\\'', b\"x\", r\"y\\\", crate::app::g())").len(), 1);
}

#[test]
fn a_clock_or_socket_in_a_pure_file_is_noticed() {
    for source in [
        "use tokio::time;",
        "use std::{fmt, net::TcpStream};",
        "use std::time::{Duration, Instant};",
        "fn now() -> std::time::SystemTime { todo!() }",
        "let dice = rand::random();",
    ] {
        assert_eq!(purity_complaints(source).len(), 1, "{source}");
    }
    for source in
        ["use std::time::Duration;", "// an Instant", "fn operand() {}", "#[cfg(test)]\nmod tests { use std::fs; }"]
    {
        assert_eq!(purity_complaints(source), Vec::<String>::new(), "{source}");
    }
}

#[test]
fn a_file_without_opening_words_is_noticed() {
    assert_eq!(opening_complaint("//! Why.\nuse x;"), None);
    assert!(opening_complaint("use x;").is_some());
    assert!(opening_complaint("").is_some());
}

#[test]
fn a_long_file_is_noticed_and_so_is_a_stale_exception() {
    let (short, long) = ("x\n".repeat(LONGEST), "x\n".repeat(LONGEST + 1));
    let listed = [("src/a.rs", "a table")];
    assert_eq!(length_complaint("src/a.rs", &short, &[]), None);
    assert!(length_complaint("src/a.rs", &long, &[]).is_some());
    assert_eq!(length_complaint("src/a.rs", &long, &listed), None);
    assert!(length_complaint("src/a.rs", &short, &listed).is_some());
}

#[test]
fn an_unexplained_unwrap_is_noticed() {
    assert_eq!(unwrap_complaints("a();\nb.unwrap();").len(), 1);
    assert_eq!(unwrap_complaints("#[cfg(test)]\nmod tests { fn t() { a.unwrap(); } }\nb.unwrap();").len(), 1);
    for source in [
        "b.unwrap(); // never empty: checked above",
        "// Never empty.\nb.unwrap();",
        "b.unwrap_or(1);",
        "let text = \".unwrap()\";",
        "#[cfg(test)]\nmod tests;\n",
        "#[cfg(test)]\nmod tests { fn t() { a.unwrap(); } }",
    ] {
        assert_eq!(unwrap_complaints(source), Vec::<String>::new(), "{source}");
    }
}

#[test]
fn a_stray_file_in_the_top_directory_is_noticed() {
    let files = ["Cargo.toml", "notes.txt", "src/lib.rs", "src/main.rs", "utils/x.rs"];
    assert_eq!(
        top_level_complaints(files.into_iter()),
        ["`notes.txt` does not belong in the top directory", "`utils` does not belong in the top directory"]
    );
}
