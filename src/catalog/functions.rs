//! What a stored function does to the session by itself, judged by its language, its extension and its body.

use crate::sql::body::{Language, pins_of_body, pins_of_builtin};
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

/// A function as the catalog stores it.
pub(super) struct Function {
    pub oid: u32,
    pub name: String,
    pub language: String,
    /// Empty if it belongs to none.
    pub extension: String,
    /// `None` when it cannot be read as text. For an alias of one of PostgreSQL's own functions, the name of that if it
    /// is one that matters.
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
            ("internal", builtin) => builtin.as_deref().map_or(Pins::EMPTY, pins_of_builtin),
            ("c", _) if !self.extension.is_empty() => self.pins_of_extension(),
            // Perl's %_SHARED, Python's GD, static variables in C: nothing but the end of the process clears them.
            _ => Pins::of(Pin::Process),
        };
        if self.creates_in_pg_temp {
            pins.insert(Pin::Temporary);
        }
        pins
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
