//! Answers "how does this role prove who it is" for logins, always from the primary, with few questions.
//!
//! One task asks for everybody: what arrives while a question is on its way goes together into the next one. So any number
//! of logins needs one question at a time, and each gets an answer to a question that was asked *after* it arrived. Joining
//! the question already on its way would be wrong: a password changed before the login could still be unknown to it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::Type;

use super::error::refusal;
use super::keeper::{Inner, Line};
use super::{NodeError, ROLE_DEADLINE};

/// Logins that wait for an answer; more than these are told so. At a millisecond a question this is never a queue.
pub const MAX_WAITING: usize = 16_384;
/// Names in one question.
const MAX_BATCH: usize = 1024;
/// Roles remembered for when the primary cannot be asked.
const MAX_KNOWN: usize = 10_000;

const ROLES: &str = "
SELECT rolname::text, rolpassword, coalesce(rolvaliduntil < now(), false), rolcanlogin
FROM pg_authid WHERE rolname = ANY ($1::text[]::name[])";

/// One row of `pg_authid`.
#[derive(Clone, PartialEq, Eq)]
pub struct RoleRecord {
    /// `rolpassword`: a verifier, or nothing for a role that cannot log in by password.
    pub verifier: Option<String>,
    /// `VALID UNTIL` lies in the past: the password no longer counts.
    pub valid_until_passed: bool,
    pub can_login: bool,
}

impl std::fmt::Debug for RoleRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoleRecord")
            .field("has_verifier", &self.verifier.is_some())
            .field("valid_until_passed", &self.valid_until_passed)
            .field("can_login", &self.can_login)
            .finish()
    }
}

type Answer = Result<Option<Arc<RoleRecord>>, NodeError>;

pub(super) struct Question {
    name: String,
    answer: oneshot::Sender<Answer>,
}

#[derive(Clone)]
pub(super) struct Roles {
    questions: mpsc::Sender<Question>,
    /// What the primary said last.
    known: Arc<Mutex<HashMap<String, Arc<RoleRecord>>>>,
}

impl Roles {
    pub(super) fn new(questions: mpsc::Sender<Question>) -> Self {
        Roles { questions, known: Arc::default() }
    }

    pub(super) async fn ask(&self, name: &str, deadline: Instant) -> Answer {
        let (answer, answered) = oneshot::channel();
        let asked = self.questions.try_send(Question { name: name.to_owned(), answer });
        let outcome = match asked {
            Err(_) => Err(NodeError::Overloaded),
            Ok(()) => match timeout_at(deadline, answered).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) | Err(_) => Err(NodeError::NoPrimary { reason: "it does not answer in time".into() }),
            },
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(Some(record)) => {
                if known.len() >= MAX_KNOWN && !known.contains_key(name) {
                    known.clear();
                }
                known.insert(name.to_owned(), record.clone());
                Ok(Some(record))
            }
            Ok(None) => {
                known.remove(name);
                Ok(None)
            }
            Err(error) => match known.get(name) {
                Some(record) => {
                    tracing::debug!(role = name, %error, "the primary cannot be asked, its last answer counts");
                    Ok(Some(record.clone()))
                }
                None => Err(error),
            },
        }
    }
}

/// The task that asks. Ends when nobody can ask any more.
pub(super) async fn answer(inner: Arc<Inner>, mut questions: mpsc::Receiver<Question>) {
    let mut batch = Vec::new();
    while questions.recv_many(&mut batch, MAX_BATCH).await > 0 {
        // Who gave up meanwhile needs no answer.
        batch.retain(|question| !question.answer.is_closed());
        if batch.is_empty() {
            continue;
        }
        let names: Vec<&str> =
            batch.iter().map(|question| &*question.name).collect::<HashSet<_>>().into_iter().collect();
        let outcome = look_up(&inner, &names).await;
        for question in batch.drain(..) {
            let answer = match &outcome {
                Ok(found) => Ok(found.get(&question.name).cloned()),
                Err(error) => Err(error.clone()),
            };
            // The one who asked may have given up.
            let _ = question.answer.send(answer);
        }
    }
}

async fn look_up(inner: &Inner, names: &[&str]) -> Result<HashMap<String, Arc<RoleRecord>>, NodeError> {
    let deadline = Instant::now() + ROLE_DEADLINE;
    let primary = inner.primary(deadline).await?;
    let keeper = &inner.keeper(&primary)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let rows = inner.ask(keeper, Line::Questions, ROLES, &[(&names, Type::TEXT_ARRAY)], left).await?;
    let bad = |error: tokio_postgres::Error| refusal(&primary, &error);
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let record = RoleRecord {
            verifier: row.try_get(1).map_err(bad)?,
            valid_until_passed: row.try_get(2).map_err(bad)?,
            can_login: row.try_get(3).map_err(bad)?,
        };
        found.insert(row.try_get::<_, String>(0).map_err(bad)?, Arc::new(record));
    }
    Ok(found)
}
