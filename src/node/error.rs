//! Why a node did not do as asked, and what that says about it.

use std::io;
use std::time::Duration;

use crate::cluster::{Failure, FailureKind, Symptom};
use crate::net::DialError;
use crate::types::NodeId;

#[derive(Clone, Debug, thiserror::Error)]
pub enum NodeError {
    #[error("node {node}: {reason}")]
    Unreachable { node: NodeId, reason: String, symptom: Symptom },
    /// The node answered, and the answer is an error.
    #[error("node {node}: {message} ({sqlstate})")]
    Refused { node: NodeId, message: String, sqlstate: String },
    #[error("node {node}: no answer within {} ms", after.as_millis())]
    Timeout { node: NodeId, after: Duration },
    #[error("no node is known to be the primary{}{reason}", if reason.is_empty() { "" } else { ": " })]
    NoPrimary { reason: String },
    #[error("no node is named {0}")]
    Unknown(NodeId),
    #[error("too many logins wait for an answer from the primary")]
    Overloaded,
}

impl NodeError {
    /// What it says about the node's health.
    pub fn symptom(&self) -> Symptom {
        match self {
            NodeError::Unreachable { symptom, .. } => *symptom,
            NodeError::Timeout { .. } => Symptom::Silent,
            // It ends, or has not begun (57P01 and 57P02 on a connection that was opened just now).
            NodeError::Refused { sqlstate, .. } if matches!(sqlstate.as_str(), "57P01" | "57P02" | "57P03") => {
                Symptom::Starting
            }
            _ => Symptom::Rejected,
        }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Failure {
        let kind = match error.symptom() {
            Symptom::Rejected => FailureKind::Refused,
            Symptom::Refused | Symptom::Silent | Symptom::Starting => FailureKind::Unreachable,
        };
        Failure { kind, reason: error.to_string() }
    }
}

/// A connection that could not be opened.
pub(super) fn undialled(node: &NodeId, place: &str, error: &DialError) -> NodeError {
    let symptom = match error {
        DialError::Io(error) => of_io(error),
        DialError::Timeout => Symptom::Silent,
        // Something answers there.
        DialError::Tls(_) => Symptom::Rejected,
    };
    NodeError::Unreachable { node: node.clone(), reason: format!("{place}: {error}"), symptom }
}

/// Whether the connection is gone: without a word, or with one that says so (57P01 and 57P02, the server ends it).
pub(super) fn is_lost(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_none_or(|said| matches!(said.code().code(), "57P01" | "57P02" | "57P03"))
}

pub(super) fn refusal(node: &NodeId, error: &tokio_postgres::Error) -> NodeError {
    use std::error::Error;
    if let Some(refused) = error.as_db_error() {
        return NodeError::Refused {
            node: node.clone(),
            message: refused.message().to_owned(),
            sqlstate: refused.code().code().to_owned(),
        };
    }
    let cause = error.source();
    let symptom = match cause.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(error) => of_io(error),
        None if error.is_closed() => Symptom::Refused,
        // A login that we cannot do, an answer that we cannot read.
        None => Symptom::Rejected,
    };
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    NodeError::Unreachable { node: node.clone(), reason: format!("{error}{cause}"), symptom }
}

fn of_io(error: &io::Error) -> Symptom {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, NotConnected, NotFound, UnexpectedEof,
    };
    match error.kind() {
        // `NotFound`: the file of a Unix socket.
        ConnectionRefused | ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected | NotFound
        | UnexpectedEof => Symptom::Refused,
        // No route, no such name, no answer from its kernel.
        _ => Symptom::Silent,
    }
}
