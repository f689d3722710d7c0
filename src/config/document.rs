//! Reading a TOML text key by key, each checked against the table of keys, each mistake noted with its line.
//!
//! All mistakes of a file are gathered and reported together: whoever writes a configuration should not have to start
//! the proxy five times to learn of five of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Kind, Schema};
use super::{Listen, Problem, Token};
use crate::net::http::HttpUrl;
use crate::route::FunctionName;

/// A parsed file, and what was found wrong with it so far.
pub struct Document<'t> {
    text: &'t str,
    file: &'t Path,
    schema: &'static Schema,
    root: Spanned<DeTable<'t>>,
    /// Whether the files that the configuration names are opened to see that they can be.
    check_files: bool,
    problems: RefCell<Vec<Problem>>,
    asked: RefCell<BTreeSet<String>>,
}

/// One table of the file, or nothing where the file leaves it out; then every key has its default.
pub struct Section<'d, 't> {
    document: &'d Document<'t>,
    name: &'static str,
    /// As the reader of a message would write it: `cluster.nodes[2]`.
    label: String,
    table: Option<&'d DeTable<'t>>,
    span: Range<usize>,
}

impl<'t> Document<'t> {
    /// `schema`: which keys there are in a file of this kind.
    pub fn parse(text: &'t str, file: &'t Path, schema: &'static Schema, check_files: bool) -> Result<Self, Problem> {
        let root = DeTable::parse(text).map_err(|error| Problem {
            file: file.to_path_buf(),
            line: error.span().map(|span| line_of(text, span.start)),
            message: error.message().trim_end().to_string(),
        })?;
        let document =
            Document { text, file, schema, root, check_files, problems: RefCell::default(), asked: RefCell::default() };
        document.note_unknown_keys("", document.root.get_ref());
        Ok(document)
    }

    /// A table such as `proxy.tls`.
    pub fn section(&self, name: &'static str) -> Section<'_, 't> {
        let found = self.find(name).and_then(|value| Some((value.get_ref().as_table()?, value.span())));
        let (table, span) = found.map_or((None, 0..0), |(table, span)| (Some(table), span));
        Section { document: self, name, label: name.to_string(), table, span }
    }

    /// The tables of a list such as `cluster.nodes`.
    pub fn list(&self, name: &'static str) -> Vec<Section<'_, 't>> {
        let Some(array) = self.find(name).and_then(|value| value.get_ref().as_array()) else { return Vec::new() };
        let tables = array.iter().enumerate().filter_map(|(at, value)| {
            let table = Some(value.get_ref().as_table()?);
            Some(Section { document: self, name, label: format!("{name}[{}]", at + 1), table, span: value.span() })
        });
        tables.collect()
    }

    /// Notes a mistake that concerns several keys at the line of one of them.
    pub fn refuse(&self, path: &str, message: impl Into<String>) {
        let span = self.find(path).map(Spanned::span);
        self.note(span, format!("{path}: {}", message.into()));
    }

    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems.dedup();
        problems
    }

    /// The keys that were read so far, for the test that the table and the parser know the same ones.
    #[cfg(test)]
    pub fn asked(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }

    fn find(&self, path: &str) -> Option<&Spanned<DeValue<'t>>> {
        let mut table = self.root.get_ref();
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let value = table.get(part)?;
            if parts.peek().is_none() {
                return Some(value);
            }
            table = value.get_ref().as_table()?;
        }
        None
    }

    fn note(&self, span: Option<Range<usize>>, message: String) {
        let line = span.map(|span| line_of(self.text, span.start));
        self.problems.borrow_mut().push(Problem { file: self.file.to_path_buf(), line, message });
    }

    /// Walks the whole file; whatever the table of keys does not have is a mistake.
    fn note_unknown_keys(&self, section: &str, table: &DeTable<'t>) {
        for (name, value) in table.iter() {
            let path =
                if section.is_empty() { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
            let info = self.schema.sections().find(|info| info.name == path);
            match (info, value.get_ref()) {
                (Some(info), DeValue::Table(_)) if self.schema.free == Some(info.name) => {}
                (Some(info), DeValue::Table(inner)) if !info.is_list => self.note_unknown_keys(&path, inner),
                (Some(info), DeValue::Array(elements)) if info.is_list => {
                    for element in elements {
                        match element.get_ref().as_table() {
                            Some(inner) => self.note_unknown_keys(&path, inner),
                            None => {
                                self.note(Some(element.span()), format!("{path}: must hold tables, written [[{path}]]"))
                            }
                        }
                    }
                }
                (Some(info), _) if info.is_list => {
                    self.note(Some(name.span()), format!("{path}: must be a list of tables, written [[{path}]]"));
                }
                (Some(_), _) => self.note(Some(name.span()), format!("{path}: must be a table, written [{path}]")),
                (None, _) if self.schema.find(section, name.get_ref()).is_some() => {}
                (None, _) => {
                    self.note(Some(name.span()), unknown_key(self.schema, section, name.get_ref(), &path));
                }
            }
        }
    }
}

impl<'t> Section<'_, 't> {
    pub fn integer(&self, name: &'static str) -> u64 {
        self.read(name, |kind, given| {
            let Kind::Integer(min, max) = kind else { return Err(format!("{} in the table", type_name(kind))) };
            let expected = || format!("must be a whole number from {min} to {max}, found {}", given.shown());
            given.integer().filter(|number| (min..=max).contains(number)).ok_or_else(expected)
        })
        .unwrap_or_default()
    }

    /// An integer whose range in the table fits a `u32`.
    pub fn number(&self, name: &'static str) -> u32 {
        u32::try_from(self.integer(name)).unwrap_or(u32::MAX)
    }

    /// An integer whose range in the table fits a `usize`.
    pub fn count(&self, name: &'static str) -> usize {
        usize::try_from(self.integer(name)).unwrap_or(usize::MAX)
    }

    pub fn duration(&self, name: &'static str) -> Duration {
        self.read(name, |kind, given| {
            let Kind::Duration(min, max) = kind else { return Err(format!("{} in the table", type_name(kind))) };
            let expected = || {
                format!("must be a duration with a unit, such as \"30s\", from {min} to {max}, found {}", given.shown())
            };
            let range = parse_duration(min).zip(parse_duration(max)).map(|(min, max)| min..=max);
            let value = given.text().and_then(parse_duration);
            value.filter(|value| range.is_some_and(|range| range.contains(value))).ok_or_else(expected)
        })
        .unwrap_or_default()
    }

    /// In bytes.
    pub fn size(&self, name: &'static str) -> usize {
        self.read(name, |kind, given| {
            let Kind::Size(min, max) = kind else { return Err(format!("{} in the table", type_name(kind))) };
            let expected = || format!("must be a size such as \"1MiB\", from {min} to {max}, found {}", given.shown());
            let range = parse_size(min).zip(parse_size(max)).map(|(min, max)| min..=max);
            let value = given.integer().or_else(|| given.text().and_then(parse_size));
            let value = value.filter(|value| range.is_some_and(|range| range.contains(value)));
            value.and_then(|value| usize::try_from(value).ok()).ok_or_else(expected)
        })
        .unwrap_or_default()
    }

    pub fn text(&self, name: &'static str) -> String {
        self.read(name, |_, given| match given.text() {
            Some("") => Err("must not be empty".into()),
            Some(text) if text.contains('\0') => Err("must not contain a zero byte".into()),
            Some(text) => Ok(text.to_string()),
            None => Err(format!("must be text, found {}", given.shown())),
        })
        .unwrap_or_default()
    }

    /// `None` when the key is not given and has no default.
    pub fn boolean(&self, name: &'static str) -> Option<bool> {
        self.read(name, |_, given| match given {
            Given::Value(value) => {
                value.as_bool().map(Some).ok_or_else(|| format!("must be true or false, found {}", given.shown()))
            }
            Given::Default(text) => Ok(text.parse().ok()),
        })
        .flatten()
    }

    /// A short name; empty when not given.
    pub fn label(&self, name: &'static str) -> String {
        self.read(name, |_, given| match given.text() {
            Some(text) if is_label(text) => Ok(text.to_string()),
            _ => Err(format!("must be up to 63 letters, digits, \"_\", \"-\" or \".\", found {}", given.shown())),
        })
        .unwrap_or_default()
    }

    pub fn functions(&self, name: &'static str) -> Vec<FunctionName> {
        self.read(name, |_, given| {
            let values = match &given {
                Given::Default(_) => return Ok(Vec::new()),
                Given::Value(DeValue::Array(values)) => values,
                Given::Value(_) => {
                    return Err(format!("must be a list such as [\"schema.function\"], found {}", given.shown()));
                }
            };
            let read = |value: &DeValue<'_>| {
                let wrong = |expected| format!("must be {expected}, found {}", Given::Value(value).shown());
                value.as_str().ok_or("a text").and_then(str::parse).map_err(wrong)
            };
            values.iter().map(|value| read(value.get_ref())).collect()
        })
        .unwrap_or_default()
    }

    /// The value that `parse` finds for one of the key's names.
    pub fn choice<T>(&self, name: &'static str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.read(name, |kind, given| {
            let Kind::Choice(names) = kind else { return Err(format!("{} in the table", type_name(kind))) };
            given.text().and_then(&parse).ok_or_else(|| {
                let hint = given.text().and_then(|text| nearest(text, names.iter().copied()));
                let hint = hint.map(|name| format!("; did you mean \"{name}\"?")).unwrap_or_default();
                format!("must be one of {}, found {}{hint}", quoted(names), given.shown())
            })
        })
    }

    /// `None` when empty or not given. A relative path starts at the file's directory.
    pub fn path(&self, name: &'static str) -> Option<PathBuf> {
        self.read(name, |_, given| {
            let text = given.text().ok_or_else(|| format!("must be a path, found {}", given.shown()))?;
            if text.is_empty() {
                return Ok(None);
            }
            let path = self.document.file.parent().unwrap_or(Path::new("")).join(text);
            if self.document.check_files {
                let opened = std::fs::File::open(&path).and_then(|file| file.metadata());
                match opened {
                    Ok(facts) if facts.is_dir() => {
                        return Err(format!("{} is a directory, not a file", path.display()));
                    }
                    Ok(_) => {}
                    Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
                }
            }
            Ok(Some(path))
        })
        .flatten()
    }

    /// Of a file that need not exist yet; its directory must. A relative path starts at the file's directory.
    pub fn state_file(&self, name: &'static str) -> PathBuf {
        self.read(name, |_, given| {
            let text = given.text().ok_or_else(|| format!("must be a path, found {}", given.shown()))?;
            let path = self.document.file.parent().unwrap_or(Path::new("")).join(text);
            if text.is_empty() || text.ends_with('/') || path.file_name().is_none() {
                return Err(format!("must name a file, found {}", given.shown()));
            }
            if self.document.check_files {
                let directory = path.parent().filter(|directory| *directory != Path::new(""));
                match directory.unwrap_or(Path::new(".")).metadata() {
                    Ok(facts) if facts.is_dir() && !path.is_dir() => {}
                    Ok(_) if path.is_dir() => return Err(format!("{} is a directory, not a file", path.display())),
                    Ok(_) => return Err(format!("{} is not in a directory", path.display())),
                    Err(error) => return Err(format!("cannot make {}: its directory: {error}", path.display())),
                }
            }
            Ok(path)
        })
        .unwrap_or_default()
    }

    /// Of a directory; it need not exist, unless `must_exist` says so. What it is in has to. Relative to the file's directory.
    pub fn directory(&self, name: &'static str, must_exist: bool) -> Option<PathBuf> {
        self.read(name, |_, given| {
            let text = given.text().ok_or_else(|| format!("must be a path, found {}", given.shown()))?;
            if text.is_empty() {
                return Ok(None);
            }
            let path = self.document.file.parent().unwrap_or(Path::new("")).join(text);
            // Its last component names it, and what lies beside it is named after it.
            let path: PathBuf = path.components().collect();
            if path.file_name().is_none() {
                return Err(format!("must name a directory, found {}", given.shown()));
            }
            if self.document.check_files {
                let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
                match (path.metadata(), parent.metadata()) {
                    (Ok(facts), _) if !facts.is_dir() => return Err(format!("{} is not a directory", path.display())),
                    (Ok(_), _) => {}
                    (Err(error), _) if must_exist => return Err(format!("cannot read {}: {error}", path.display())),
                    (_, Ok(facts)) if facts.is_dir() => {}
                    (_, Ok(_)) => return Err(format!("{} is not a directory", parent.display())),
                    (_, Err(error)) => {
                        return Err(format!("cannot make {}: {}: {error}", path.display(), parent.display()));
                    }
                }
            }
            Ok(Some(path))
        })
        .flatten()
    }

    /// A list of texts that `parse` understands.
    pub fn values<T>(&self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        self.read(name, |_, given| {
            let texts: Vec<&str> = match &given {
                Given::Default("") => Vec::new(),
                Given::Default(text) => vec![text],
                Given::Value(DeValue::Array(values)) => {
                    let texts = values.iter().map(|value| value.get_ref().as_str());
                    texts.collect::<Option<_>>().ok_or("must be a list of texts")?
                }
                Given::Value(_) => return Err(format!("must be a list of texts, found {}", given.shown())),
            };
            let read = |text: &str| parse(text).map_err(|reason| format!("{reason}, found \"{text}\""));
            texts.into_iter().map(read).collect()
        })
        .unwrap_or_default()
    }

    /// Everything in a section whose keys are not fixed, as text; what `check` objects to is noted.
    pub fn free(&self, check: impl Fn(&str, &str) -> Result<(), String>) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for (name, value) in self.table.iter().flat_map(|table| table.iter()) {
            let name = name.get_ref();
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(_) | DeValue::Float(_) => {
                    let text = self.document.text.get(value.span()).unwrap_or_default();
                    text.replace('_', "")
                }
                DeValue::Boolean(is_on) => if *is_on { "on" } else { "off" }.to_owned(),
                other => {
                    self.refuse(
                        name,
                        format!("must be text, a number or a boolean, found {}", Given::Value(other).shown()),
                    );
                    continue;
                }
            };
            match check(name, &text) {
                Ok(()) => {
                    found.insert(name.to_string(), text);
                }
                Err(reason) => self.refuse(name, reason),
            }
        }
        found
    }

    pub fn addresses(&self, name: &'static str) -> Vec<Listen> {
        self.read(name, |kind, given| {
            let texts: Vec<&str> = match &given {
                Given::Default("") => Vec::new(),
                Given::Default(text) => vec![text],
                Given::Value(DeValue::Array(values)) => {
                    let texts = values.iter().map(|value| value.get_ref().as_str());
                    texts.collect::<Option<_>>().ok_or("must be a list of texts")?
                }
                Given::Value(_) => {
                    return Err(format!("must be a list such as [\"127.0.0.1:6432\"], found {}", given.shown()));
                }
            };
            if texts.is_empty() && matches!(kind, Kind::Addresses) {
                return Err("must name at least one address".into());
            }
            texts.into_iter().map(Listen::parse).collect()
        })
        .unwrap_or_default()
    }

    /// `None` when empty.
    pub fn address(&self, name: &'static str) -> Option<Listen> {
        self.read(name, |_, given| match given.text() {
            Some("") => Ok(None),
            Some(text) => match Listen::parse(text)? {
                Listen::Unix { .. } => Err(format!("must be \"host:port\", found \"{text}\"")),
                listen => Ok(Some(listen)),
            },
            None => Err(format!("must be \"host:port\", found {}", given.shown())),
        })
        .flatten()
    }

    /// What is wrong with it is told without it.
    pub fn secret(&self, name: &'static str) -> Token {
        self.read(name, |_, given| match given.text() {
            Some(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Token::new(text)),
            _ => Err("must be text of ASCII letters, digits and signs, without spaces".into()),
        })
        .unwrap_or_default()
    }

    /// `http://host:port`, or nothing.
    pub fn url(&self, name: &'static str) -> Option<HttpUrl> {
        self.read(name, |_, given| match given.text() {
            Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|reason| format!("{reason}, found {}", given.shown())),
            None => Err(format!("must be text, found {}", given.shown())),
        })
        .flatten()
    }

    /// Whether files that the configuration names may be opened.
    pub fn opens_files(&self) -> bool {
        self.document.check_files
    }

    /// Notes a mistake in one of this section's keys that the key's kind alone does not show.
    pub fn refuse(&self, name: &str, message: impl Into<String>) {
        let given = self.table.and_then(|table| table.get(name));
        let span = given.map_or_else(|| self.span.clone(), Spanned::span);
        self.document.note(Some(span), format!("{}.{name}: {}", self.label, message.into()));
    }

    /// Notes what `check` objects to and gives `None`; a key that is missing and has no default is noted too.
    fn read<T>(&self, name: &'static str, check: impl FnOnce(Kind, Given<'_, 't>) -> Result<T, String>) -> Option<T> {
        let key = (self.document.schema.find(self.name, name))
            // Which keys exist is fixed when this is compiled, and a test reads every one of them.
            .unwrap_or_else(|| panic!("the table of configuration keys lacks {}.{name}", self.name));
        self.document.asked.borrow_mut().insert(key.path());
        let given = match (self.table.and_then(|table| table.get(name)), key.default) {
            (Some(value), _) => Given::Value(value.get_ref()),
            (None, Some(default)) => Given::Default(default),
            (None, None) => {
                self.refuse(name, "has to be given");
                return None;
            }
        };
        check(key.kind, given).map_err(|message| self.refuse(name, message)).ok()
    }
}

/// A value from the file, or the default as the table has it.
enum Given<'v, 't> {
    Value(&'v DeValue<'t>),
    Default(&'static str),
}

impl Given<'_, '_> {
    fn text(&self) -> Option<&str> {
        match self {
            Given::Value(value) => value.as_str(),
            Given::Default(text) => Some(text),
        }
    }

    fn integer(&self) -> Option<u64> {
        match self {
            Given::Value(value) => {
                let integer = value.as_integer()?;
                u64::from_str_radix(integer.as_str(), integer.radix()).ok()
            }
            Given::Default(text) => text.parse().ok(),
        }
    }

    fn shown(&self) -> String {
        match self {
            Given::Default(text) => format!("\"{text}\""),
            Given::Value(DeValue::String(text)) => format!("\"{text}\""),
            Given::Value(DeValue::Integer(number)) => number.to_string(),
            Given::Value(DeValue::Float(number)) => number.to_string(),
            Given::Value(DeValue::Boolean(value)) => value.to_string(),
            Given::Value(DeValue::Array(_)) => "a list".into(),
            Given::Value(DeValue::Table(_)) => "a table".into(),
            Given::Value(DeValue::Datetime(value)) => value.to_string(),
        }
    }
}

/// What names nodes and zones.
pub fn is_label(text: &str) -> bool {
    text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

fn type_name(kind: Kind) -> String {
    format!("is a {kind:?}")
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count()
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn unknown_key(schema: &'static Schema, section: &str, name: &str, path: &str) -> String {
    let below = |full: &'static str| match section {
        "" => (!full.contains('.')).then_some(full),
        _ => full.strip_prefix(section)?.strip_prefix('.').filter(|rest| !rest.contains('.')),
    };
    let siblings = schema.keys().filter(|key| key.section == section).map(|key| key.name);
    let siblings = siblings.chain(schema.sections().filter_map(|info| below(info.name)));
    if let Some(near) = nearest(name, siblings) {
        return format!("{path}: unknown key; did you mean \"{near}\"?");
    }
    if let Some(elsewhere) = schema.keys().find(|key| key.name == name) {
        return format!("{path}: unknown key; \"{name}\" belongs in [{}]", elsewhere.section);
    }
    format!("{path}: unknown key")
}

/// The candidate that differs least, if it is near enough to be a misspelling.
fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let (distance, candidate) = candidates.map(|candidate| (edits(name, candidate), candidate)).min()?;
    (distance <= 2.max(name.len() / 3)).then_some(candidate)
}

/// Levenshtein distance.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, left) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (at, right) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[to.len()]
}

fn parse_duration(text: &str) -> Option<Duration> {
    humantime_serde::re::humantime::parse_duration(text).ok()
}

/// `"1MiB"`, `"64 KiB"`, `"10MB"`, `"512B"`; in bytes.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        assert_eq!(parse_size("1MiB"), Some(1 << 20));
        assert_eq!(parse_size("64 KiB"), Some(65536));
        assert_eq!(parse_size("10MB"), Some(10_000_000));
        assert_eq!(parse_size("MiB"), None);
        assert_eq!(parse_size("10"), None);
        assert_eq!(parse_size("99999999999999GiB"), None);
    }

    #[test]
    fn a_misspelling_is_near_and_another_word_is_not() {
        assert_eq!(nearest("pool_sise", ["pool_mode", "pool_size"].into_iter()), Some("pool_size"));
        assert_eq!(nearest("zone", ["pool_mode", "listen"].into_iter()), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
