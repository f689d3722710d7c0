//! Logs: one line per event on standard error, as text for people or JSON for machines; and what metrics are made of.
//!
//! Set up once by `main`; the level can be changed while running. Nothing here knows what is logged or measured.

pub mod distribution;
pub mod metric;

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Where events go.
#[derive(Debug)]
pub enum Output {
    StandardError,
    File(std::fs::File),
}

/// Changes the level of the running process.
#[derive(Clone, Debug)]
pub struct LevelHandle(reload::Handle<EnvFilter, Registry>);

impl LevelHandle {
    /// Takes what [`check_level`] accepts.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let filter = parse(level)?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

/// Whether `level` is a level (`info`) or a list of directives (`info,pgbaton::session=debug`); the reason if not.
pub fn check_level(level: &str) -> Result<(), String> {
    parse(level).map(drop)
}

/// Starts logging. `None` when logging was already set up in this process, as in tests that start
/// several proxies: the first one's settings stay.
pub fn init(format: Format, level: &str, output: Output) -> Result<Option<LevelHandle>, String> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let (writer, is_terminal) = match output {
        Output::StandardError => (BoxMakeWriter::new(std::io::stderr), std::io::stderr().is_terminal()),
        Output::File(file) => (BoxMakeWriter::new(std::sync::Mutex::new(file)), false),
    };
    let layer = fmt::layer().with_writer(writer);
    let layer = match format {
        Format::Text => layer.with_ansi(is_terminal).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    let filter = filter.and(filter_fn(tells_no_statement));
    let started = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    Ok(started.is_ok().then_some(LevelHandle(handle)))
}

/// Whatever the level: the driver of the control connections tells each statement at debug, and a standby's `primary_conninfo`
/// has a password in it.
fn tells_no_statement(event: &Metadata<'_>) -> bool {
    !event.target().starts_with("tokio_postgres") || *event.level() <= Level::INFO
}

fn parse(level: &str) -> Result<EnvFilter, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // EnvFilter takes a lone unknown word for the name of a module, so "inof" would silence everything.
    let lone_words = level.split(',').map(str::trim).filter(|part| !part.contains(['=', ':', '[']));
    for word in lone_words {
        if !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            return Err(format!("\"{word}\" is not a level (error, warn, info, debug, trace or off)"));
        }
    }
    EnvFilter::try_new(level).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::{check_level, tells_no_statement};

    #[test]
    fn a_statement_of_a_control_connection_is_told_at_no_level() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let writer = std::sync::Mutex::new(File::from(place.as_fd().try_clone_to_owned().unwrap()));
        let filter = EnvFilter::new("trace,tokio_postgres::query=trace").and(filter_fn(tells_no_statement));
        let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_filter(filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::debug!(target: "tokio_postgres::simple_query", "ALTER SYSTEM SET primary_conninfo = 'password=hidden'");
            tracing::trace!(target: "tokio_postgres::query", "hidden too");
            tracing::info!(target: "tokio_postgres::connection", "a notice");
            tracing::trace!(target: "pgbaton::session", "a detail");
        });
        let told = std::fs::read_to_string(place.path()).unwrap();
        assert!(!told.contains("hidden"), "{told}");
        assert!(told.contains("a notice") && told.contains("a detail"), "{told}");
    }

    #[test]
    fn a_misspelt_level_is_refused_rather_than_silencing_the_log() {
        assert_eq!(check_level("info"), Ok(()));
        assert_eq!(check_level("warn,pgbaton::session=debug"), Ok(()));
        assert!(check_level("inof").unwrap_err().contains("\"inof\" is not a level"));
        assert!(check_level("info,pgbaton=loud").is_err());
        assert!(check_level("").is_err());
    }
}
