//! PostgreSQL's own programs on this machine: where they are, as whom they run, and in which surroundings.

mod binaries;
mod process;

use std::path::Path;

pub use binaries::PgBin;
pub use process::{Cancel, Place, RunAs, Runner, tail};

/// Why a program was not found, did not run, or did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("{0}")]
    NoPostgres(String),
    #[error("PostgreSQL does not run as root, and there is no user \"postgres\" or \"nobody\" to run it as")]
    NoUser,
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// `output`: the end of what it said.
    #[error("{what} failed ({status}):\n{output}")]
    Failed { what: String, status: String, output: String },
    #[error("cancelled")]
    Cancelled,
}

impl ProgramError {
    /// For what was tried with a path.
    pub fn io(what: &str, path: &Path) -> impl Fn(std::io::Error) -> ProgramError + use<> {
        let what = format!("{what} {}", path.display());
        move |source| ProgramError::Io { what: what.clone(), source }
    }
}
