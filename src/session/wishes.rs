//! What a session asked for with `SET pgbaton.…` or at startup, and the `search_path` its names are looked up by.
//!
//! PostgreSQL itself keeps these settings (any name with a dot in it is allowed), so that SHOW, RESET, rollback and startup
//! options work as for all others; here they are read off what the session has set.

use std::str::FromStr;
use std::sync::Arc;

use crate::pool::Startup;
use crate::pool::memory::Image;
use crate::route::eligible::Floor;
use crate::route::names::{Names, Path};
use crate::route::{Consistency, Target};
use crate::sql::{schemas_of, setting_values};
use crate::types::{Lsn, Timeline};
use crate::wire::message::Problem;

/// The settings of ours that can be made.
const SETTABLE: [&str; 4] = ["consistency", "target", "min_lsn", "key"];
/// Those that can only be shown.
pub const SHOWN: [&str; 4] = ["node", "route", "lsn", "epoch"];

/// A position as `SHOW pgbaton.lsn` tells it and `SET pgbaton.min_lsn` takes it: `3@16/B374D848`, timeline and LSN. Without
/// the timeline it is taken to be of the present one.
pub fn parse_token(token: &str) -> Option<(Option<Timeline>, Lsn)> {
    match token.split_once('@') {
        Some((timeline, lsn)) => Some((Some(Timeline(timeline.trim().parse().ok()?)), lsn.trim().parse().ok()?)),
        None => Some((None, token.trim().parse().ok()?)),
    }
}

pub fn write_token(floor: Floor) -> String {
    format!("{}@{}", floor.timeline.0, floor.lsn)
}

/// Refuses a value of ours that means nothing; any other setting passes.
pub fn check(name: &str, text: &[u8]) -> Result<(), Problem> {
    let Some(own) = name.strip_prefix("pgbaton.") else { return Ok(()) };
    if SHOWN.contains(&own) {
        return Err(Problem::new("55P02", format!("parameter \"{name}\" cannot be changed")));
    }
    if !SETTABLE.contains(&own) {
        let known = SETTABLE.map(|name| format!("pgbaton.{name}")).join(", ");
        return Err(Problem::new("42704", format!("unrecognized configuration parameter \"{name}\""))
            .hint(format!("There are {known}.")));
    }
    let values = setting_values(text).unwrap_or_default();
    let value = values.first().map_or("", String::as_str);
    let (is_valid, hint) = match own {
        "consistency" => (Consistency::from_str(value).is_ok(), Consistency::NAMES.join(", ")),
        "target" => (Target::from_str(value).is_ok(), Target::NAMES.join(", ")),
        "min_lsn" => (value.is_empty() || parse_token(value).is_some(), "what SHOW pgbaton.lsn says, or ''".into()),
        _ => (true, String::new()),
    };
    match is_valid && values.len() == 1 {
        true => Ok(()),
        false => Err(Problem::new("22023", format!("invalid value for parameter \"{name}\": \"{value}\""))
            .hint(format!("Available values: {hint}."))),
    }
}

/// What a session wants of its reads.
#[derive(Clone, Debug)]
pub struct Wishes {
    pub consistency: Option<Consistency>,
    pub target: Target,
    pub min_lsn: Option<(Option<Timeline>, Lsn)>,
    pub key: Option<Box<str>>,
    pub path: Path,
    /// Its transactions are SERIALIZABLE unless they say otherwise, which no standby offers.
    pub is_serializable: bool,
    /// What `path` was made of, so that it is made anew when the defaults change.
    scope: u64,
}

impl Default for Wishes {
    fn default() -> Self {
        Wishes {
            consistency: None,
            target: Target::Auto,
            min_lsn: None,
            key: None,
            path: Path::Unknown,
            is_serializable: false,
            scope: 0,
        }
    }
}

impl Wishes {
    /// Reads them off what the session said at startup and has set since.
    pub fn read(startup: &Startup, image: &Image, names: &Names, user: &str, database: u64) -> Wishes {
        let mut wishes = Wishes::default();
        let mut search_path = names.role_paths.get(user).or(names.default_path.as_ref()).map(|path| path.to_string());
        let mut becomes_other = false;
        let mut at_startup = |name: &str, value: &str| {
            becomes_other |= ["role", "session_authorization"].iter().any(|other| name.eq_ignore_ascii_case(other));
            wishes.take(name, value, &mut search_path);
        };
        for (name, value) in &startup.parameters {
            if name.eq_ignore_ascii_case("options") {
                for (name, value) in options(value) {
                    at_startup(&name, &value);
                }
            } else {
                at_startup(name, value);
            }
        }
        for (name, text) in &image.settings {
            becomes_other |= matches!(&**name, "role" | "session_authorization");
            if &**name == "session characteristics" {
                let words = String::from_utf8_lossy(text).to_ascii_lowercase();
                wishes.is_serializable = words.contains("serializable");
            }
            let values = setting_values(text);
            match (&**name, values) {
                // `SET search_path = a, b` is a list of names, where one in single quotes is one name too.
                ("search_path", Some(values)) if starts_with_set(text) => {
                    search_path =
                        Some(values.iter().map(|name| crate::sql::quote_ident(name)).collect::<Vec<_>>().join(", "));
                }
                ("search_path", values) => search_path = values.and_then(|values| values.into_iter().next()),
                (_, Some(values)) if values.len() == 1 => wishes.take(name, &values[0], &mut None),
                _ => {}
            }
        }
        let schemas = search_path.as_deref().and_then(schemas_of);
        wishes.path = match schemas {
            // Who "$user" is then, is not known here.
            Some(schemas) if becomes_other && schemas.iter().any(|name| &**name == "$user") => Path::Unknown,
            Some(mut schemas) => {
                for name in &mut schemas {
                    if &**name == "$user" {
                        *name = user.into();
                    }
                }
                Path::Schemas(schemas)
            }
            None => Path::Unknown,
        };
        wishes.scope = scope(&wishes.path, database);
        wishes
    }

    pub fn scope(&self) -> u64 {
        self.scope
    }

    fn take(&mut self, name: &str, value: &str, search_path: &mut Option<String>) {
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "search_path" => *search_path = Some(value.to_owned()),
            "pgbaton.consistency" => self.consistency = value.parse().ok(),
            "pgbaton.target" => self.target = value.parse().unwrap_or(Target::Auto),
            "pgbaton.min_lsn" => self.min_lsn = parse_token(value),
            "pgbaton.key" => self.key = Some(value.into()),
            "default_transaction_isolation" => self.is_serializable = value.eq_ignore_ascii_case("serializable"),
            _ => {}
        }
    }
}

/// Stands for a path in a database; for no path of its own, `scope(&Path::Unknown, …)`.
pub fn scope(path: &Path, database: u64) -> u64 {
    use std::hash::BuildHasher;
    let schemas = match path {
        Path::Unknown => None,
        Path::Schemas(schemas) => Some(schemas),
    };
    foldhash::fast::FixedState::default().hash_one((database, schemas))
}

fn starts_with_set(text: &[u8]) -> bool {
    text.trim_ascii_start().get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"set"))
}

/// The settings in `options` of a startup packet: `-c name=value` and `--name=value`, with backslashes before spaces
/// (pg_split_opts).
fn options(text: &str) -> Vec<(String, String)> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.extend(characters.next()),
            character if character.is_ascii_whitespace() => words.push(std::mem::take(&mut word)),
            character => word.push(character),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("-c") {
            Some("") => words.next(),
            Some(rest) => Some(rest.to_owned()),
            None => word.strip_prefix("--").map(str::to_owned),
        };
        if let Some((name, value)) = setting.as_deref().and_then(|setting| setting.split_once('=')) {
            settings.push((name.trim().replace('-', "_"), value.to_owned()));
        }
    }
    settings
}

/// The wishes of a session and what they were read from.
#[derive(Debug)]
pub struct Kept {
    image: Arc<Image>,
    names_version: u64,
    pub wishes: Wishes,
}

impl Kept {
    pub fn new(image: &Arc<Image>, names_version: u64, wishes: Wishes) -> Kept {
        Kept { image: image.clone(), names_version, wishes }
    }

    #[inline]
    pub fn is_of(&self, image: &Arc<Image>, names_version: u64) -> bool {
        Arc::ptr_eq(&self.image, image) && self.names_version == names_version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(startup: &[(&str, &str)], set: &[(&str, &str)]) -> Wishes {
        let parameters = startup.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let image = set.iter().fold(Image::default(), |image, (name, text)| image.with_setting(name, text.as_bytes()));
        Wishes::read(&Startup { parameters, ..Startup::default() }, &image, &Names::default(), "alice", 1)
    }

    #[test]
    fn what_was_set_last_counts() {
        let wishes = read(
            &[("options", "-c pgbaton.consistency=strong -c search_path=a\\,b")],
            &[
                ("pgbaton.consistency", "SET pgbaton.consistency TO eventual"),
                ("pgbaton.min_lsn", "SET pgbaton.min_lsn = '3@0/10'"),
            ],
        );
        assert_eq!(wishes.consistency, Some(Consistency::Eventual));
        assert_eq!(wishes.min_lsn, Some((Some(Timeline(3)), Lsn(16))));
        assert_eq!(wishes.path, Path::Schemas(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn a_path_with_the_user_in_it_is_unknown_under_another_role() {
        let path = ("search_path", "SET search_path = \"$user\", public");
        assert_eq!(read(&[], &[path]).path, Path::Schemas(vec!["alice".into(), "public".into()]));
        assert_eq!(read(&[], &[path, ("role", "SET ROLE bob")]).path, Path::Unknown);
        assert_eq!(read(&[], &[]).path, Path::Unknown);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        assert!(check("work_mem", b"SET work_mem = 'x'").is_ok());
        assert!(check("pgbaton.target", b"SET pgbaton.target = 'replica'").is_ok());
        assert_eq!(check("pgbaton.target", b"SET pgbaton.target = 'both'").unwrap_err().code, "22023");
        assert_eq!(check("pgbaton.lsn", b"SET pgbaton.lsn = '1'").unwrap_err().code, "55P02");
        assert_eq!(check("pgbaton.x", b"SET pgbaton.x = '1'").unwrap_err().code, "42704");
        assert_eq!(check("pgbaton.min_lsn", b"SET pgbaton.min_lsn = 'zzz'").unwrap_err().code, "22023");
    }
}
