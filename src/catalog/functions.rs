//! What a stored function does by itself, to the session and beyond, judged by its language, its extension and its body.

use super::why::{Cause, causes_of_pins};
use crate::sql::body::{Language, pins_of_body};
use crate::sql::{Pin, Pins};

/// Extensions whose functions in C keep something for the session, with the functions that do (`*` for all). What an
/// extension is not listed for is taken to be harmless: nearly all are pure computation.
const EXTENSIONS: &[(&str, &[&str], Pin)] = &[
    // Connections by name that outlive the call; everything else in it needs one of these or is closed at once.
    ("dblink", &["dblink_connect", "dblink_connect_u"], Pin::Process),
    ("dblink", &["dblink_get_connections"], Pin::Introspection),
    // Variables, hypothetical indexes, output buffers and pipes in the memory of the server process.
    ("pg_variables", &["*"], Pin::Process),
    ("session_variable", &["*"], Pin::Process),
    ("hypopg", &["*"], Pin::Process),
    ("orafce", &["*"], Pin::Process),
    ("pldbgapi", &["*"], Pin::Process),
    ("http", &["http_set_curlopt", "http_reset_curlopt"], Pin::Process),
    ("temporal_tables", &["set_system_time"], Pin::Process),
    // Becomes another role.
    ("set_user", &["*"], Pin::Process),
    // Changes a setting.
    ("pg_trgm", &["set_limit"], Pin::Opaque),
    // Run SQL that stands in a value.
    ("tablefunc", &["crosstab", "crosstab2", "crosstab3", "crosstab4", "crosstabn", "connectby"], Pin::Opaque),
    ("xml2", &["xpath_table"], Pin::Opaque),
];

/// Extensions whose functions in C show what belongs to one server, or reach other servers and files. Of all others the
/// declared volatility is believed.
const PER_NODE: &[&str] = &[
    "adminpack",
    "dblink",
    "file_fdw",
    "http",
    "pg_buffercache",
    "pg_cron",
    "pg_freespacemap",
    "pg_net",
    "pg_prewarm",
    "pg_stat_kcache",
    "pg_stat_monitor",
    "pg_stat_statements",
    "pg_visibility",
    "pg_wait_sampling",
    "pg_walinspect",
    "pageinspect",
    "pgrowlocks",
    "pgstattuple",
    "postgres_fdw",
    "pglogical",
    "sslinfo",
    "system_stats",
];

/// Settings that are other ones on a standby, by which a body, a view or a policy could tell.
pub(super) const PER_NODE_SETTINGS: &[&str] = &["in_hot_standby", "transaction_read_only"];

/// A function as the catalog stores it.
pub(super) struct Function {
    pub oid: u32,
    /// Empty if it cannot be read as text.
    pub schema: String,
    pub name: String,
    /// The types of its arguments, as people write them.
    pub signature: String,
    pub is_procedure: bool,
    pub is_volatile: bool,
    /// How many arguments it can be called with.
    pub arguments: (u16, u16),
    /// It takes or gives PostgreSQL's own structures, so SQL cannot call it; an index or an aggregate does.
    pub is_internal: bool,
    /// Of an alias of one of PostgreSQL's own functions.
    pub pins_of_alias: Pins,
    pub language: String,
    /// Empty if it belongs to none.
    pub extension: String,
    /// `None` when it cannot be read as text. For an alias of one of PostgreSQL's own functions, how that is implemented.
    pub body: Option<String>,
    /// `prosqlbody`, written out: the whole definition.
    pub has_standard_body: bool,
    /// Its own `SET search_path` begins with `pg_temp`: what it creates is temporary.
    pub creates_in_pg_temp: bool,
}

impl Function {
    /// The text in which names it uses can be found.
    pub fn readable_body(&self) -> Option<&str> {
        matches!(self.language.as_str(), "sql" | "plpgsql").then_some(self.body.as_deref()).flatten()
    }

    pub fn pins(&self) -> Pins {
        let mut pins = match (self.language.as_str(), &self.body) {
            ("sql" | "plpgsql", None) => Pins::of(Pin::Opaque),
            ("sql", Some(body)) if !self.has_standard_body => pins_of_body(body, Language::Sql),
            ("sql" | "plpgsql", Some(body)) => pins_of_body(body, Language::Plpgsql),
            ("internal", _) => self.pins_of_alias,
            ("c", _) if !self.extension.is_empty() => self.pins_of_extension(),
            // Perl's %_SHARED, Python's GD, static variables in C: nothing but the end of the process clears them.
            _ => Pins::of(Pin::Process),
        };
        if self.creates_in_pg_temp {
            pins.insert(Pin::Temporary);
        }
        pins
    }

    pub fn label(&self) -> String {
        format!("{}.{}({})", self.schema, self.name, self.signature)
    }

    /// Why a statement that calls it may not simply run on a replica, apart from what it uses.
    pub fn causes(&self, pins: Pins) -> Vec<Cause> {
        let mut causes = Vec::new();
        let is_extension = !self.extension.is_empty();
        match (self.language.as_str(), &self.body) {
            ("sql" | "plpgsql", None) => causes.push(Cause::Unreadable),
            ("sql" | "plpgsql", Some(body)) => {
                let body = body.to_ascii_lowercase();
                let setting = PER_NODE_SETTINGS.iter().find(|setting| body.contains(**setting));
                causes.extend(setting.map(|setting| Cause::Setting(setting)));
            }
            ("internal", _) => {}
            ("c", _) if is_extension && self.is_internal => return causes,
            ("c", _) if is_extension => {
                if PER_NODE.contains(&self.extension.as_str()) {
                    causes.push(Cause::Extension(self.extension.as_str().into()));
                }
            }
            (language, _) => causes.push(Cause::Language(language.into())),
        }
        if !matches!(causes.first(), Some(Cause::Language(_))) {
            causes.extend(causes_of_pins(pins));
        }
        if self.is_volatile {
            causes.push(Cause::Volatile);
        }
        causes
    }

    fn pins_of_extension(&self) -> Pins {
        let mut pins = Pins::EMPTY;
        for (extension, functions, pin) in EXTENSIONS {
            if *extension == self.extension && functions.iter().any(|name| *name == "*" || *name == self.name) {
                pins.insert(*pin);
            }
        }
        pins
    }
}
