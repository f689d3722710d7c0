//! Where the record is kept: the store behind `[coordination]`.
//!
//! Before anything is done to a node for an epoch, the record of that epoch is here. A store that has lost or mixed up what it
//! was given is the one thing that could make two primaries of one, so whatever cannot be read is refused, never guessed.

pub mod embedded;
mod files;
mod history;

use std::path::PathBuf;

pub use embedded::Embedded;
pub use files::directory_of;

/// Why the store cannot be used, or did not take something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another pgbaton has it.
    #[error(
        "another pgbaton{} uses {}: {} is locked; two of them may not look after one cluster",
        by.map(|pid| format!(" (process {pid})")).unwrap_or_default(), path.display(), lock.display()
    )]
    Held { path: PathBuf, lock: PathBuf, by: Option<u32> },
    /// What is there is not what was written there. Nobody but an operator can say what to do.
    #[error(
        "{} is not as pgbaton wrote it: {reason}. It says which node may take writes, so it is not taken for empty. Make sure \
         that exactly one node of the cluster is a primary, move the file away, and start again: pgbaton then begins with what \
         the nodes say",
        path.display()
    )]
    Damaged { path: PathBuf, reason: String },
    /// It may be good, but not for this version.
    #[error("{} is of another version of pgbaton ({reason}); run the one that wrote it", path.display())]
    Foreign { path: PathBuf, reason: String },
    /// Somebody else wrote, or removed it, though it is locked.
    #[error("{} was changed by somebody else ({reason}); nothing is written over it", path.display())]
    Changed { path: PathBuf, reason: String },
    /// The disk or the rights. What was stored before can still be read.
    #[error("cannot {act} {}: {source}", path.display())]
    Io { act: &'static str, path: PathBuf, source: std::io::Error },
}
