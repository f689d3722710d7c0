//! What an operator orders: `POST /pause`, `/resume`, `/switchover`, `/failover`, `/reload`, `/nodes/ID/maintenance|rejoin|rebuild|restart`.
//!
//! An order is answered when it has been carried out or refused, which for a failover takes as long as that does. The body is
//! JSON and has to say so in its Content-Type: a page in somebody's browser can send a form to this address, but not that.

use std::pin::Pin;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::routing::post;
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::asked::{self, Who};
use super::balancers::unknown_node;
use super::http::{Api, Refused};
use crate::cluster::Command;
use crate::types::NodeId;

/// Gives an order of somebody's, and tells what came of it: what was done, or why not.
pub type Orders =
    Arc<dyn Fn(Command, String) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

/// Reads the configuration file again: what was applied and what waits for a restart, or why nothing was.
pub type Reload = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

/// The body of `POST /failover`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Failover {
    pub to: String,
    #[serde(default)]
    pub allow_data_loss: bool,
}

/// The body of `POST /switchover`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Switchover {
    /// `None`: the best of those that may.
    #[serde(default)]
    pub to: Option<String>,
}

/// The body of `POST /nodes/ID/maintenance`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    pub on: bool,
}

/// The body of an order that says everything in its path.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// What was done.
#[derive(Debug, Deserialize, Serialize)]
pub struct Done {
    pub done: String,
}

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .route("/switchover", post(switchover))
        .route("/failover", post(failover))
        .route("/reload", post(reload))
        .route("/nodes/{id}/maintenance", post(maintenance))
        .route("/nodes/{id}/rejoin", post(rejoin))
        .route("/nodes/{id}/rebuild", post(rebuild))
        .route("/nodes/{id}/restart", post(restart))
}

/// The body of an order. Also one that says nothing has to show that it is no form of a page's.
struct Said<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Said<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Said<T>, Refused> {
        let kind = request.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes());
        if !kind.is_some_and(is_json) {
            return Err(bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, "an order is sent as JSON".into()));
        }
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| bad(error.status(), error.body_text()))?;
        let text = if body.is_empty() { b"{}" } else { &body[..] };
        let said: Value = serde_json::from_slice(text)
            .map_err(|error| bad(StatusCode::BAD_REQUEST, format!("that is no JSON: {error}")))?;
        let not_it = |reason: String| bad(StatusCode::UNPROCESSABLE_ENTITY, reason);
        // Fields in the order of a list would be taken too.
        if !said.is_object() {
            return Err(not_it("an order is a JSON object".into()));
        }
        serde_json::from_value(said).map(Said).map_err(|error| not_it(error.to_string()))
    }
}

/// `application/json`, perhaps with parameters.
fn is_json(kind: &[u8]) -> bool {
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    kind.eq_ignore_ascii_case(b"application/json")
}

fn bad(status: StatusCode, message: String) -> Refused {
    Refused::new(
        status,
        "bad_request",
        message,
        "Content-Type: application/json; {\"to\":\"n2\"}, {\"on\":true}, or {}.",
    )
}

async fn order(api: &Api, who: Who, command: Command) -> Result<Json<Done>, Refused> {
    if let Some(node) = node_of(&command) {
        let topology = api.shared.topology.borrow().clone();
        if !topology.present().any(|(_, view)| view.address.id == *node) {
            return Err(unknown_node(&node.0));
        }
    }
    match asked::carry_out(&api.orders, who, command).await {
        Ok(done) => Ok(Json(Done { done })),
        Err(reason) => {
            Err(Refused::new(StatusCode::CONFLICT, "refused", reason, "See /cluster for the state of things."))
        }
    }
}

/// The node that an order names.
fn node_of(command: &Command) -> Option<&NodeId> {
    match command {
        Command::Pause | Command::Resume => None,
        Command::Switchover { to } => to.as_ref(),
        Command::Failover { to: node, .. }
        | Command::Maintenance { node, .. }
        | Command::Rejoin { node, .. }
        | Command::Restart { node } => Some(node),
    }
}

type Answer = Result<Json<Done>, Refused>;

async fn pause(State(api): State<Arc<Api>>, who: Who, _: Said<Nothing>) -> Answer {
    order(&api, who, Command::Pause).await
}

async fn resume(State(api): State<Arc<Api>>, who: Who, _: Said<Nothing>) -> Answer {
    order(&api, who, Command::Resume).await
}

async fn switchover(State(api): State<Arc<Api>>, who: Who, Said(Switchover { to }): Said<Switchover>) -> Answer {
    order(&api, who, Command::Switchover { to: to.as_deref().map(NodeId::from) }).await
}

async fn failover(State(api): State<Arc<Api>>, who: Who, Said(wanted): Said<Failover>) -> Answer {
    let Failover { to, allow_data_loss } = wanted;
    order(&api, who, Command::Failover { to: NodeId::from(&*to), allow_data_loss }).await
}

async fn reload(State(api): State<Arc<Api>>, who: Who, _: Said<Nothing>) -> Answer {
    let hint = "Nothing was changed. pgbaton config check -c FILE says what is wrong with a file.";
    let refused = |reason| Refused::new(StatusCode::CONFLICT, "refused", reason, hint);
    asked::reload(&api.reload, who).await.map(|done| Json(Done { done })).map_err(refused)
}

async fn maintenance(
    State(api): State<Arc<Api>>,
    Path(node): Path<String>,
    who: Who,
    Said(Maintenance { on }): Said<Maintenance>,
) -> Answer {
    order(&api, who, Command::Maintenance { node: NodeId::from(&*node), on }).await
}

async fn rejoin(State(api): State<Arc<Api>>, Path(node): Path<String>, who: Who, _: Said<Nothing>) -> Answer {
    order(&api, who, Command::Rejoin { node: NodeId::from(&*node), rebuild: false }).await
}

async fn rebuild(State(api): State<Arc<Api>>, Path(node): Path<String>, who: Who, _: Said<Nothing>) -> Answer {
    order(&api, who, Command::Rejoin { node: NodeId::from(&*node), rebuild: true }).await
}

async fn restart(State(api): State<Arc<Api>>, Path(node): Path<String>, who: Who, _: Said<Nothing>) -> Answer {
    order(&api, who, Command::Restart { node: NodeId::from(&*node) }).await
}
