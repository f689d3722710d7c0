//! What the names a statement mentions mean for it: it only reads, it may write, or it is not the same on a replica.

use super::{Class, MOST_REASONS};
use crate::route::names::{Found, Meaning, Names, Path, Traits};
use crate::route::outline::Mention;
use std::fmt::Write;

/// What a session has alike on every node: the version and the encodings, because a physical replica cannot differ in them,
/// and what pgbaton carries to whichever server serves the session.
const ALIKE_EVERYWHERE: [&str; 9] = [
    "server_version",
    "server_version_num",
    "server_encoding",
    "client_encoding",
    "standard_conforming_strings",
    "integer_datetimes",
    "timezone",
    "datestyle",
    "intervalstyle",
];

pub(super) fn is_alike_everywhere(setting: &str) -> bool {
    ALIKE_EVERYWHERE.iter().any(|known| known.eq_ignore_ascii_case(setting))
}

/// A setting with a dot in its name that belongs to no extension of PostgreSQL's own: an application makes it for itself,
/// with SET, which follows the session, or for a role or database, which every node knows.
fn is_applications_own(setting: &str) -> bool {
    const EXTENSIONS: [&str; 9] = [
        "auto_explain",
        "pg_stat_statements",
        "pg_trgm",
        "pg_prewarm",
        "pgbaton",
        "plpgsql",
        "plperl",
        "plpython",
        "pltcl",
    ];
    setting.split_once('.').is_some_and(|(class, _)| !EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(class)))
}

pub(super) fn may_differ(setting: &str) -> String {
    format!("the setting {setting} may differ between nodes")
}

/// `Read`, `Volatile` or `Differs`, and why.
pub(super) struct Weight {
    pub(super) class: Class,
    pub(super) reason: &'static str,
    pub(super) reasons: Vec<String>,
}

/// What has been found so far, the first of each kind first.
#[derive(Default)]
struct Scale {
    /// With the word for counters of the first one.
    differs: Vec<String>,
    reason: Option<&'static str>,
    may_write: Vec<String>,
}

impl Scale {
    fn differs(&mut self, reason: &'static str, why: String) {
        self.reason.get_or_insert(reason);
        push(&mut self.differs, why);
    }

    /// Puts what was found of a name on the scale. `describe` is only asked when it matters.
    fn add(&mut self, traits: Traits, describe: impl FnOnce() -> String) {
        if traits.contains(Traits::DIFFERS) {
            self.differs("differs", describe());
        } else if !traits.is_empty() {
            push(&mut self.may_write, describe());
        }
    }

    fn into_weight(self) -> Weight {
        let Scale { mut differs, reason, mut may_write } = self;
        match reason {
            Some(reason) => {
                differs.append(&mut may_write);
                differs.truncate(MOST_REASONS);
                Weight { class: Class::Differs, reason, reasons: differs }
            }
            None if !may_write.is_empty() => Weight { class: Class::Volatile, reason: "volatile", reasons: may_write },
            None => Weight { class: Class::Read, reason: "read", reasons: vec!["reads only".into()] },
        }
    }
}

fn push(reasons: &mut Vec<String>, why: String) {
    if reasons.len() < MOST_REASONS && !reasons.contains(&why) {
        reasons.push(why);
    }
}

pub(super) fn weigh(mentions: &[Mention], names: &Names, path: &Path) -> Weight {
    let mut scale = Scale::default();
    if !names.is_read {
        scale.differs("no catalog", "the catalog has not been read yet".into());
        return scale.into_weight();
    }
    for mention in mentions {
        match mention {
            Mention::Function { schema, name, arguments, constant } => {
                function(&mut scale, names, path, schema.as_deref(), name, *arguments, constant.as_deref());
            }
            Mention::Relation { schema, name } => match names.relation(schema.as_deref(), name, path) {
                Found::Known { traits, worst } => scale.add(traits, || meant("reads", worst, name, "")),
                Found::Unknown => unknown(&mut scale, "relation", schema.as_deref(), name, ""),
            },
            Mention::Operator { schema, symbol } => match names.operator(schema.as_deref(), symbol, path) {
                Found::Known { traits, worst } => scale.add(traits, || meant("uses the operator", worst, symbol, "")),
                Found::Unknown => unknown(&mut scale, "operator", schema.as_deref(), symbol, ""),
            },
            Mention::Type { schema, name } => match type_(names, path, schema.as_deref(), name) {
                Found::Known { traits, worst } => scale.add(traits, || meant("uses the type", worst, name, "")),
                Found::Unknown => unknown(&mut scale, "type", schema.as_deref(), name, ""),
            },
            Mention::Field(name) => field(&mut scale, names, name),
        }
    }
    // Last, so that what the statement itself says comes first.
    let anything = if names.anything.contains(Traits::ALLOWED) { Traits::NONE } else { names.anything };
    scale.add(anything, || format!("in this database anything may: {}", names.why_anything));
    scale.into_weight()
}

fn function(
    scale: &mut Scale,
    names: &Names,
    path: &Path,
    schema: Option<&str>,
    name: &str,
    arguments: u16,
    constant: Option<&str>,
) {
    // `name(x)` may be a cast as well; it is one for certain where there is no such function.
    let cast = if arguments == 1 { names.type_(schema, name, path) } else { Found::Unknown };
    if let Found::Known { traits, worst } = cast {
        scale.add(traits, || meant("uses the type", worst, name, ""));
    }
    // In FROM, `unnest(a, b)` is one call for each.
    let arguments = if name == "unnest" && matches!(schema, None | Some("pg_catalog")) { 1 } else { arguments };
    let count = || format!("({arguments} {})", if arguments == 1 { "argument" } else { "arguments" });
    match names.function(schema, name, arguments, path) {
        Found::Known { traits, worst } => {
            scale.add(traits, || meant("calls", worst, name, &count()));
            let is_allowed = worst.traits.contains(Traits::ALLOWED);
            if name == "current_setting" && !is_allowed {
                match constant {
                    Some(setting) if is_alike_everywhere(setting) || is_applications_own(setting) => {}
                    Some(setting) => scale.differs("setting", may_differ(setting)),
                    None => scale.differs("setting", "a setting may differ between nodes".into()),
                }
            }
        }
        Found::Unknown if cast == Found::Unknown => unknown(scale, "function", schema, name, &count()),
        Found::Unknown => {}
    }
}

/// Of a type that is not known as one: a table's rows are one too, and `_int4` is `int4[]`.
fn type_<'n>(names: &'n Names, path: &Path, schema: Option<&str>, name: &str) -> Found<'n> {
    let found = names.type_(schema, name, path);
    if found != Found::Unknown {
        return found;
    }
    // Only PostgreSQL's own arrays: a user's type may be called with a _ for other reasons.
    if let Some(element) = name.strip_prefix('_')
        && matches!(schema, None | Some("pg_catalog"))
    {
        return names.type_(Some("pg_catalog"), element, path);
    }
    names.relation(schema, name, path)
}

/// `x.name`: most often a column, then nothing here knows it.
fn field(scale: &mut Scale, names: &Names, name: &str) {
    if let Some(meaning) = names.field(name) {
        scale.add(meaning.traits, || meant("may call", meaning, name, &format!(", as .{name}")));
    }
    // It may be a cast to a type of that name as well.
    if let Found::Known { traits, worst } = names.type_(None, name, &Path::Unknown) {
        scale.add(traits, || meant("may use the type", worst, name, &format!(", as .{name}")));
    }
}

/// `calls public.audit(1 argument): VOLATILE`.
fn meant(does: &str, meaning: &Meaning, name: &str, rest: &str) -> String {
    let mut text = format!("{does} {}.{name}{rest}", meaning.schema);
    if !meaning.why.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {}", meaning.why);
    }
    text
}

/// `function public.f(3 arguments) is not known`.
fn unknown(scale: &mut Scale, kind: &str, schema: Option<&str>, name: &str, rest: &str) {
    let text = match schema {
        Some(schema) => format!("{kind} {schema}.{name}{rest} is not known"),
        None => format!("{kind} {name}{rest} is not known"),
    };
    scale.differs("unknown name", text);
}
