//! Verdicts on texts, kept by shape: the grammar is asked once for all texts that differ in constants only.
//!
//! One of these belongs to each worker; nothing is shared between threads on the path of a query. It is bounded by number
//! and by bytes: when the young half is full it becomes the old half, and what was not asked for again since is forgotten.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::route::names::{Names, Path};
use crate::route::outline::{self, Outline, Unreadable};
use crate::route::{Class, Verdict, judge};
use crate::sql::Dialect;
use crate::sql::shape::{self, Hint, Shape};

/// Verdicts in one half.
const HALF: usize = 4096;
/// Bytes of their keys in one half. With what hangs on each key the whole stays at some ten megabytes a worker.
const HALF_BYTES: usize = 1024 * 1024;
/// Longer shapes are judged anew each time; that costs less than what such a statement costs the server.
const LONGEST_KEY: usize = 16 * 1024;

/// `client_encoding`, as far as it matters for names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    Utf8,
    /// Each byte is the character of that number.
    Latin1,
    Other,
}

/// How a session's texts are to be read, and what its names mean.
pub struct Reading<'a> {
    pub dialect: Dialect,
    pub encoding: Encoding,
    pub names: &'a Names,
    pub names_version: u64,
    pub path: &'a Path,
    /// Stands for the database and the path.
    pub scope: u64,
}

/// What a text was found to be.
#[derive(Clone)]
pub struct Judged {
    pub verdict: Arc<Verdict>,
    pub hint: Option<Hint>,
}

impl Judged {
    pub fn class(&self) -> Class {
        self.verdict.class
    }
}

type Outlines = Result<Vec<Outline>, Unreadable>;

struct Entry {
    outlines: Arc<Outlines>,
    verdict: Arc<Verdict>,
    names_version: u64,
}

type Half = HashMap<Box<[u8]>, Entry, foldhash::fast::RandomState>;

pub struct Verdicts {
    young: Half,
    young_bytes: usize,
    old: Half,
    key: Vec<u8>,
    writes: Arc<Verdict>,
    unreadable: Arc<Verdict>,
}

impl Default for Verdicts {
    fn default() -> Self {
        let fixed = |class, reason: &'static str, text: &str| {
            Arc::new(Verdict {
                class,
                inner: None,
                executes: None,
                reasons: vec![text.to_owned()],
                reason,
                depends_on_constants: false,
            })
        };
        Verdicts {
            young: HashMap::default(),
            young_bytes: 0,
            old: HashMap::default(),
            key: Vec::new(),
            writes: fixed(Class::Write, "write", "it begins with a statement that writes"),
            unreadable: fixed(Class::Unreadable, "unreadable", "it cannot be read with certainty"),
        }
    }
}

impl Verdicts {
    /// The verdict on a text.
    pub fn judge(&mut self, text: &[u8], reading: &Reading<'_>) -> Judged {
        let hint = shape::hint(text);
        Judged { verdict: self.look_up(text, reading), hint }
    }

    /// A replica has refused to write for this text: until the names change it counts as a write.
    pub fn distrust(&mut self, text: &[u8], reading: &Reading<'_>) {
        self.look_up(text, reading);
        let mut key = reading.scope.to_ne_bytes().to_vec();
        if shape::shape(text, reading.dialect, &mut key).is_some()
            && let Some(entry) = self.young.get_mut(&key[..])
        {
            let mut verdict = Verdict::clone(&self.writes);
            verdict.reasons = vec!["a replica refused it: it writes (25006)".to_owned()];
            entry.verdict = Arc::new(verdict);
        }
    }

    /// How many verdicts are kept.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn look_up(&mut self, text: &[u8], reading: &Reading<'_>) -> Arc<Verdict> {
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        key.extend_from_slice(&reading.scope.to_ne_bytes());
        let start = key.len();
        let verdict = match shape::shape(text, reading.dialect, &mut key) {
            None => self.unreadable.clone(),
            Some(Shape { writes: true }) => self.writes.clone(),
            Some(_) => {
                let verdict = self.kept(&key, text, start, reading);
                match verdict.depends_on_constants {
                    false => verdict,
                    true => {
                        // Under a key of its own, which begins as no shape does.
                        let shape_is_ascii = key[start..].is_ascii();
                        key.truncate(start);
                        key.push(0);
                        key.extend_from_slice(text);
                        self.kept_or_new(&key, text, shape_is_ascii, reading)
                    }
                }
            }
        };
        self.key = key;
        verdict
    }

    fn kept(&mut self, key: &[u8], text: &[u8], start: usize, reading: &Reading<'_>) -> Arc<Verdict> {
        if let Some(entry) = self.young.get(key)
            && entry.names_version == reading.names_version
        {
            return entry.verdict.clone();
        }
        self.kept_or_new(key, text, key[start..].is_ascii(), reading)
    }

    fn kept_or_new(&mut self, key: &[u8], text: &[u8], shape_is_ascii: bool, reading: &Reading<'_>) -> Arc<Verdict> {
        let known = match self.young.get_mut(key) {
            Some(entry) if entry.names_version == reading.names_version => return entry.verdict.clone(),
            // The grammar has not changed, only what the names mean.
            Some(entry) => {
                entry.verdict = Arc::new(judge::judge(&entry.outlines, reading.names, reading.path));
                entry.names_version = reading.names_version;
                return entry.verdict.clone();
            }
            None => self.old.remove(key),
        };
        let entry = match known {
            Some(entry) if entry.names_version == reading.names_version => entry,
            known => {
                let outlines = match known {
                    Some(entry) => entry.outlines,
                    None => Arc::new(outlines(text, shape_is_ascii, reading)),
                };
                let verdict = Arc::new(judge::judge(&outlines, reading.names, reading.path));
                Entry { outlines, verdict, names_version: reading.names_version }
            }
        };
        let verdict = entry.verdict.clone();
        if key.len() <= LONGEST_KEY {
            if self.young.len() >= HALF || self.young_bytes + key.len() > HALF_BYTES {
                self.old = std::mem::take(&mut self.young);
                self.young_bytes = 0;
            }
            self.young_bytes += key.len();
            self.young.insert(key.into(), entry);
        }
        verdict
    }
}

fn outlines(text: &[u8], shape_is_ascii: bool, reading: &Reading<'_>) -> Outlines {
    match readable(text, shape_is_ascii, reading) {
        Some(text) => outline::outline(&text),
        None => Err(Unreadable("its characters are not read here as the server reads them".into())),
    }
}

/// The text as the grammar must see it to understand what the server understands. In an encoding other than UTF8 letters
/// beyond ASCII are harmless inside constants, where they are replaced; in names they are not.
fn readable<'t>(text: &'t [u8], shape_is_ascii: bool, reading: &Reading<'_>) -> Option<Cow<'t, str>> {
    if !reading.dialect.standard_conforming_strings && text.contains(&b'\\') {
        return None;
    }
    match reading.encoding {
        Encoding::Utf8 => return std::str::from_utf8(text).ok().map(Cow::Borrowed),
        _ if text.is_ascii() => return std::str::from_utf8(text).ok().map(Cow::Borrowed),
        Encoding::Latin1 => return Some(Cow::Owned(text.iter().map(|byte| char::from(*byte)).collect())),
        Encoding::Other => {}
    }
    if reading.dialect.unsafe_encoding || !shape_is_ascii {
        return None;
    }
    Some(Cow::Owned(text.iter().map(|byte| if byte.is_ascii() { *byte as char } else { '?' }).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(names: &Names) -> Reading<'_> {
        Reading {
            dialect: Dialect::default(),
            encoding: Encoding::Utf8,
            names,
            names_version: 1,
            path: &Path::Unknown,
            scope: 7,
        }
    }

    #[test]
    fn a_million_different_texts_do_not_grow_it() {
        let names = Names::default();
        let mut verdicts = Verdicts::default();
        for number in 0..50_000 {
            verdicts.judge(format!("SELECT x{number}").as_bytes(), &reading(&names));
        }
        assert!(verdicts.len() <= 2 * HALF, "{}", verdicts.len());
        let (before, text) = (verdicts.len(), "SELECT x".repeat(10_000));
        verdicts.judge(text.as_bytes(), &reading(&names));
        assert_eq!(verdicts.len(), before, "a text that is too long is not kept");
    }

    #[test]
    fn one_shape_is_kept_once() {
        let names = Names::default();
        let mut verdicts = Verdicts::default();
        for number in 0..1000 {
            verdicts.judge(format!("SELECT {number}").as_bytes(), &reading(&names));
        }
        assert_eq!(verdicts.len(), 1);
    }

    #[test]
    fn letters_beyond_ascii_count_in_names_only() {
        let names = Names::default();
        let greek = Reading { encoding: Encoding::Other, ..reading(&names) };
        let latin = Reading { encoding: Encoding::Latin1, ..reading(&names) };
        assert_eq!(readable(b"SELECT \xe9", false, &latin).as_deref(), Some("SELECT é"));
        assert_eq!(readable(b"SELECT '\xe9'", true, &greek).as_deref(), Some("SELECT '?'"));
        assert_eq!(readable(b"SELECT \xe9", false, &greek), None);
        assert_eq!(readable(b"SELECT '\xe9'", true, &reading(&names)), None, "not UTF8 at all");
    }
}
