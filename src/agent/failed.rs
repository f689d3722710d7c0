//! Why an order was not carried out.

use crate::cluster::agent::Code;

/// For programs and for people.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Failed {
    pub code: Code,
    pub reason: String,
}

impl Failed {
    pub fn new(code: Code, reason: impl Into<String>) -> Failed {
        Failed { code, reason: reason.into() }
    }
}
