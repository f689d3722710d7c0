//! What a server connection has been told so far, and what it reported: settings, prepared statements, parameters.
//!
//! A session compares its own state with this memory when it takes the connection, and brings the two together before
//! the first statement. Pure data: the pool stores it next to the socket, `session` reads and writes it.

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::sql::{Statement, quote_ident};
use crate::types::NodeId;

fn hash_of(value: impl Hash) -> u64 {
    FixedState::default().hash_one(value)
}

/// The parameters a server reports (`GUC_REPORT`), as one comparable value. Cheap to compare: the hash is kept.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// XOR of the hashes of all entries, so that it does not depend on their order.
    hash: u64,
    entries: Vec<(Box<str>, Box<str>)>,
}

impl Parameters {
    pub fn new(entries: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut parameters = Parameters::default();
        for (name, value) in entries {
            parameters.set(&name, &value);
        }
        parameters
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.iter().find(|(known, _)| &**known == name).map(|(_, value)| &**value)
    }

    pub fn set(&mut self, name: &str, value: &str) {
        match self.entries.iter_mut().find(|(known, _)| &**known == name) {
            Some(entry) => {
                self.hash ^= hash_of((name, &*entry.1)) ^ hash_of((name, value));
                entry.1 = value.into();
            }
            None => {
                self.hash ^= hash_of((name, value));
                self.entries.push((name.into(), value.into()));
            }
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn same_as(&self, other: &Parameters) -> bool {
        self.hash == other.hash
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// The settings made with SET and the statements made with SQL PREPARE that outlive a transaction, in the order they were
/// made. The text is the client's own, so that saying it again on another server means the same.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Image {
    hash: u64,
    pub settings: Vec<(Box<str>, Box<[u8]>)>,
    pub prepared: Vec<(Box<str>, Box<[u8]>)>,
}

/// Settings whose value decides what may be set after them: with one of these in play everything is said anew in order.
fn changes_identity(name: &str) -> bool {
    matches!(name, "role" | "session_authorization")
}

impl Image {
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.prepared.is_empty()
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn same_as(&self, other: &Image) -> bool {
        self.hash == other.hash && self == other
    }

    fn rehash(mut self) -> Self {
        self.hash = if self.is_empty() { 0 } else { hash_of((&self.settings, &self.prepared)) };
        self
    }

    pub fn with_setting(&self, name: &str, text: &[u8]) -> Self {
        let mut image = match name {
            // What it does not say stays as it was said before.
            DATE_STYLE => {
                let (style, order) = date_style_parts(text);
                let mut image = self.clone();
                image.settings.retain(|(known, earlier)| {
                    let (had_style, had_order) = date_style_parts(earlier);
                    &**known != name || had_style && !style || had_order && !order
                });
                image
            }
            _ => self.without_setting(name),
        };
        // Changing the session's user also sets the role back (PostgreSQL manual, SET SESSION AUTHORIZATION).
        if name == "session_authorization" {
            image = image.without_setting("role");
        }
        image.settings.push((name.into(), text.into()));
        image.rehash()
    }

    pub fn without_setting(&self, name: &str) -> Self {
        let mut image = self.clone();
        image.settings.retain(|(known, _)| &**known != name);
        image.rehash()
    }

    /// What RESET ALL leaves: role and session authorization are not touched by it.
    pub fn without_settings(&self) -> Self {
        let mut image = self.clone();
        image.settings.retain(|(known, _)| changes_identity(known));
        image.rehash()
    }

    pub fn with_prepared(&self, name: &str, text: &[u8]) -> Self {
        let mut image = self.without_prepared(name);
        image.prepared.push((name.into(), text.into()));
        image.rehash()
    }

    pub fn without_prepared(&self, name: &str) -> Self {
        let mut image = self.clone();
        image.prepared.retain(|(known, _)| &**known != name);
        image.rehash()
    }

    pub fn without_any_prepared(&self) -> Self {
        let mut image = self.clone();
        image.prepared.clear();
        image.rehash()
    }

    pub fn has_prepared(&self, name: &[u8]) -> bool {
        self.prepared.iter().any(|(known, _)| known.as_bytes() == name)
    }

    fn date_style(&self) -> impl Iterator<Item = &[u8]> {
        self.settings.iter().filter(|(name, _)| &**name == DATE_STYLE).map(|(_, text)| &text[..])
    }

    /// The statements that turn a connection with this image into one with `wanted`.
    pub fn steps_to(&self, wanted: &Image) -> Vec<Vec<u8>> {
        let mut steps: Vec<Vec<u8>> = Vec::new();
        let identity = |image: &Image| image.settings.iter().any(|(name, _)| changes_identity(name));
        if self.settings != wanted.settings {
            if identity(self) || identity(wanted) {
                steps.push(b"RESET SESSION AUTHORIZATION".to_vec());
                steps.push(b"RESET ROLE".to_vec());
                steps.push(b"RESET ALL".to_vec());
                steps.extend(wanted.settings.iter().map(|(_, text)| text.to_vec()));
            } else {
                // One that is said in several parts is said anew as a whole.
                let changes_date_style = !self.date_style().eq(wanted.date_style());
                if changes_date_style && self.date_style().next().is_some() {
                    reset(DATE_STYLE, &mut steps);
                }
                for (name, _) in self.settings.iter().filter(|(name, _)| &**name != DATE_STYLE) {
                    if !wanted.settings.iter().any(|(other, _)| other == name) {
                        reset(name, &mut steps);
                    }
                }
                for setting in &wanted.settings {
                    let is_said =
                        if &*setting.0 == DATE_STYLE { !changes_date_style } else { self.settings.contains(setting) };
                    if !is_said {
                        steps.push(setting.1.to_vec());
                    }
                }
            }
        }
        for statement in &self.prepared {
            if !wanted.prepared.contains(statement) {
                steps.push(format!("DEALLOCATE {}", quote_ident(&statement.0)).into_bytes());
            }
        }
        for statement in &wanted.prepared {
            if !self.prepared.contains(statement) {
                steps.push(statement.1.to_vec());
            }
        }
        steps
    }
}

/// The one setting that a SET may change in part: the style of output, or the order of day, month and year (PostgreSQL manual,
/// 20.11.2 Locale and Formatting).
const DATE_STYLE: &str = "datestyle";

/// Whether a statement that sets `DateStyle` says the style, and the order. One of which nothing is known says both.
fn date_style_parts(text: &[u8]) -> (bool, bool) {
    let text = text.to_ascii_lowercase();
    let words = || text.split(|byte| !byte.is_ascii_alphabetic());
    let says = |any: &[&str]| words().any(|word| any.iter().any(|known| word.starts_with(known.as_bytes())));
    let style = says(&["iso", "sql", "postgres", "german"]);
    // German output sets the order too.
    let order = says(&["dmy", "mdy", "ymd", "euro", "noneuro", "german"]) || words().any(|word| word == b"us");
    if style || order { (style, order) } else { (true, true) }
}

fn reset(name: &str, steps: &mut Vec<Vec<u8>>) {
    if name == "session characteristics" {
        for part in ["isolation", "read_only", "deferrable"] {
            steps.push(format!("RESET default_transaction_{part}").into_bytes());
        }
    } else {
        let quoted: Vec<String> = name.split('.').map(quote_ident).collect();
        steps.push(format!("RESET {}", quoted.join(".")).into_bytes());
    }
}

/// A statement of the extended protocol that clients share: same text, parameter types, settings and catalog generation.
#[derive(Debug)]
pub struct Prepared {
    pub id: u64,
    /// Its name on every server: [`PREFIX`], the id in hexadecimal, and what makes it unknown to clients.
    pub server_name: Box<[u8]>,
    /// Body of the Parse from after the name: text, NUL, parameter types.
    pub tail: Box<[u8]>,
    /// What executing it does to the session; `None` if nothing.
    pub effect: Option<Arc<Statement>>,
    /// The catalog generation it was prepared under.
    pub generation: u64,
    /// What a Describe of it was answered, once one was: the message's tag and body. Clients decode results by it, so it
    /// may not change under them.
    pub shape: OnceLock<Box<[u8]>>,
    /// Where it may run, as the machine packs it; 0 while nobody has asked.
    pub route: AtomicU64,
}

/// The prefix of statement names on servers.
pub const PREFIX: &str = "pgbaton_";

/// [`Memory::sole_session`] of a connection that several sessions have used.
pub const MANY: u64 = u64::MAX;

/// [`Memory::unnamed`] when a message that would have changed it was skipped: it may be anybody's.
pub const UNKNOWN: u64 = u64::MAX;

/// What a client was answered on a connection, since this was last taken: it is counted. It is kept here, as an idle client
/// has no room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// With a result or an error.
    pub statements: u32,
    pub errors: u32,
    /// Ended, in whatever way; a statement outside of a block is one.
    pub transactions: u32,
    /// The client calls itself by another application_name.
    pub renamed: bool,
}

/// What a server connection has been told.
#[derive(Debug, Default)]
pub struct Memory {
    /// Where the connection leads.
    pub node: Option<NodeId>,
    pub image: Arc<Image>,
    pub parameters: Arc<Parameters>,
    /// Shared statements present on this server, with the tick of their last use.
    prepared: HashMap<u64, (Arc<Prepared>, u64), foldhash::fast::RandomState>,
    tick: u64,
    /// Which unnamed statement is there: a token of the session that parsed it, 0 for none, [`UNKNOWN`].
    pub unnamed: u64,
    /// The session that used this connection last; 0 for none.
    pub last_session: u64,
    /// The only session that has ever used this connection; 0 for none, [`MANY`] for several.
    pub sole_session: u64,
    /// The server process has a schema for temporary objects. It stays, empty, even after DISCARD ALL.
    pub has_temp_schema: bool,
    /// Statements carry the client's own names (the session asked to look at them).
    pub native: bool,
    pub answered: Answered,
}

impl Memory {
    pub fn new(parameters: Arc<Parameters>) -> Self {
        Memory { parameters, ..Memory::default() }
    }

    pub fn of(self, node: NodeId) -> Self {
        Memory { node: Some(node), ..self }
    }

    /// True if the statement is there; remembers that it was used.
    #[inline]
    pub fn touch(&mut self, id: u64) -> bool {
        self.tick += 1;
        match self.prepared.get_mut(&id) {
            Some(entry) => {
                entry.1 = self.tick;
                true
            }
            None => false,
        }
    }

    pub fn remember(&mut self, prepared: Arc<Prepared>) {
        self.tick += 1;
        self.prepared.insert(prepared.id, (prepared, self.tick));
    }

    pub fn forget(&mut self, id: u64) {
        self.prepared.remove(&id);
    }

    pub fn forget_all(&mut self) {
        self.prepared.clear();
        self.unnamed = 0;
    }

    pub fn prepared_count(&self) -> usize {
        self.prepared.len()
    }

    /// The statement not used for the longest time, if there are `limit` or more.
    pub fn to_evict(&self, limit: usize) -> Option<Arc<Prepared>> {
        if self.prepared.len() < limit {
            return None;
        }
        self.prepared.values().min_by_key(|(_, tick)| *tick).map(|(prepared, _)| prepared.clone())
    }

    /// After DISCARD ALL: settings as at connection start, nothing prepared.
    pub fn discarded(&mut self) {
        self.image = Arc::default();
        self.native = false;
        self.last_session = 0;
        self.forget_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(from: &Image, to: &Image) -> Vec<String> {
        from.steps_to(to).into_iter().map(|step| String::from_utf8(step).unwrap()).collect()
    }

    #[test]
    fn a_date_style_that_is_set_in_parts_is_carried_whole() {
        let said = |texts: &[&str]| {
            texts.iter().fold(Image::default(), |image, text| image.with_setting("datestyle", text.as_bytes()))
        };
        let steps = |from: &Image, to: &Image| -> Vec<String> {
            from.steps_to(to).into_iter().map(|step| String::from_utf8(step).unwrap()).collect()
        };
        let (iso, dmy) = ("SET datestyle TO iso", "SET datestyle TO dmy");
        let both = said(&[iso, "SET datestyle TO ymd", dmy]);
        assert_eq!(steps(&Image::default(), &both), [iso, dmy]);
        assert_eq!(steps(&both, &said(&[dmy])), ["RESET \"datestyle\"", dmy]);
        assert_eq!(steps(&said(&[iso]), &said(&[iso])), Vec::<String>::new());
        assert_eq!(steps(&both, &Image::default()), ["RESET \"datestyle\""]);
        let whole = "SET DateStyle = 'SQL, European'";
        assert_eq!(steps(&Image::default(), &said(&[iso, dmy, whole])), [whole]);
    }

    #[test]
    fn only_what_differs_is_said() {
        let a = Image::default().with_setting("timezone", b"SET timezone TO 'UTC'");
        let both = a.with_setting("search_path", b"set search_path = x");
        assert_eq!(steps(&a, &both), ["set search_path = x"]);
        assert_eq!(steps(&both, &a), ["RESET \"search_path\""]);
        assert!(steps(&both, &both.clone()).is_empty());
    }

    #[test]
    fn a_role_makes_everything_be_said_in_order() {
        let role =
            Image::default().with_setting("work_mem", b"SET work_mem = '1MB'").with_setting("role", b"SET ROLE r");
        assert_eq!(
            steps(&Image::default(), &role),
            ["RESET SESSION AUTHORIZATION", "RESET ROLE", "RESET ALL", "SET work_mem = '1MB'", "SET ROLE r"]
        );
    }

    #[test]
    fn images_made_the_same_way_are_the_same() {
        let make = || Image::default().with_setting("a.b", b"SET a.b = 1").with_prepared("p", b"PREPARE p AS SELECT 1");
        assert!(make().same_as(&make()));
        assert!(make().without_prepared("p").without_setting("a.b").same_as(&Image::default()));
        assert_eq!(steps(&make(), &Image::default()), ["RESET \"a\".\"b\"", "DEALLOCATE \"p\""]);
    }

    #[test]
    fn parameters_compare_by_content_whatever_the_order() {
        let one = Parameters::new([("a".into(), "1".into()), ("b".into(), "2".into())]);
        let mut two = Parameters::new([("b".into(), "3".into()), ("a".into(), "1".into())]);
        assert!(!one.same_as(&two));
        two.set("b", "2");
        assert!(one.same_as(&two));
    }

    #[test]
    fn the_least_recently_used_statement_leaves_first() {
        let mut memory = Memory::default();
        for id in 1..=3 {
            memory.remember(Arc::new(Prepared {
                id,
                server_name: Box::default(),
                tail: Box::default(),
                effect: None,
                generation: 0,
                shape: OnceLock::new(),
                route: AtomicU64::new(0),
            }));
        }
        memory.touch(1);
        assert_eq!(memory.to_evict(3).unwrap().id, 2);
        assert!(memory.to_evict(4).is_none());
    }
}
