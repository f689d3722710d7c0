//! `GET /doctor`: what the doctor finds, asked of the nodes anew.
//!
//! An examination opens a connection to each node, so there is one at a time: who comes while one is going on gets the result of the
//! next, together with everybody else who waits.

use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::http::{Api, Refused};
use crate::cluster::doctor::Finding;

/// The body of the answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Examination {
    pub findings: Vec<Finding>,
}

/// Asks and judges; why that cannot be done else.
type Examine = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Examination, String>> + Send>> + Send + Sync>;

pub struct Doctor {
    examine: Examine,
    /// When the last one was begun, and what came of it.
    last: Mutex<Option<(Instant, Result<Examination, String>)>>,
}

impl Doctor {
    pub fn new(examine: Examine) -> Doctor {
        Doctor { examine, last: Mutex::default() }
    }

    async fn now(&self) -> Result<Examination, String> {
        let came = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((_, found)) = last.as_ref().filter(|(begun, _)| *begun >= came) {
            return found.clone();
        }
        let begun = Instant::now();
        let found = (self.examine)().await;
        *last = Some((begun, found.clone()));
        found
    }
}

pub(super) async fn findings(State(api): State<Arc<Api>>) -> Result<Json<Examination>, Refused> {
    let hint = "Ask again in a moment.";
    let found = api.doctor.now().await;
    found.map(Json).map_err(|reason| Refused::new(StatusCode::SERVICE_UNAVAILABLE, "not_now", reason, hint))
}
