//! What an operator orders: `POST /pause`, `/resume`, `/switchover`, `/failover`, `/reload`, `/nodes/ID/maintenance|rejoin|rebuild|restart`.
//!
//! An order is answered when it has been carried out or refused, which for a failover takes as long as that does. The body is
//! JSON and has to say so in its Content-Type: a page in somebody's browser can send a form to this address, but not that.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::http::{Api, Refused};
use crate::cluster::Command;
use crate::types::NodeId;

/// Gives an order, and tells what came of it: what was done, or why not.
pub type Orders = Arc<dyn Fn(Command) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

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

async fn order(api: &Api, command: Command) -> Result<Json<Done>, Refused> {
    tracing::info!(?command, "ordered by the admin endpoint");
    match (api.orders)(command).await {
        Ok(done) => Ok(Json(Done { done })),
        Err(reason) => {
            Err(Refused::new(StatusCode::CONFLICT, "refused", reason, "See /cluster for the state of things."))
        }
    }
}

/// Orders without a body have to show that they are no form, too.
fn check_kind(headers: &HeaderMap) -> Result<(), Refused> {
    let kind = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    match kind.is_some_and(|kind| kind.starts_with(b"application/json")) {
        true => Ok(()),
        false => Err(bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, "an order is sent as JSON".into())),
    }
}

fn bad(status: StatusCode, message: String) -> Refused {
    Refused::new(
        status,
        "bad_request",
        message,
        "Content-Type: application/json; {\"to\":\"n2\"}, {\"on\":true}, or {}.",
    )
}

fn body<T>(given: Result<Json<T>, JsonRejection>) -> Result<T, Refused> {
    given.map(|Json(body)| body).map_err(|error| bad(error.status(), error.body_text()))
}

async fn pause(State(api): State<Arc<Api>>, headers: HeaderMap) -> Result<Json<Done>, Refused> {
    check_kind(&headers)?;
    order(&api, Command::Pause).await
}

async fn resume(State(api): State<Arc<Api>>, headers: HeaderMap) -> Result<Json<Done>, Refused> {
    check_kind(&headers)?;
    order(&api, Command::Resume).await
}

async fn switchover(
    State(api): State<Arc<Api>>,
    wanted: Result<Json<Switchover>, JsonRejection>,
) -> Result<Json<Done>, Refused> {
    let Switchover { to } = body(wanted)?;
    order(&api, Command::Switchover { to: to.as_deref().map(NodeId::from) }).await
}

async fn reload(State(api): State<Arc<Api>>, headers: HeaderMap) -> Result<Json<Done>, Refused> {
    check_kind(&headers)?;
    tracing::info!("a reload was ordered by the admin endpoint");
    let hint = "Nothing was changed. pgbaton config check -c FILE says what is wrong with a file.";
    let refused = |reason| Refused::new(StatusCode::CONFLICT, "refused", reason, hint);
    (api.reload)().await.map(|done| Json(Done { done })).map_err(refused)
}

async fn failover(
    State(api): State<Arc<Api>>,
    wanted: Result<Json<Failover>, JsonRejection>,
) -> Result<Json<Done>, Refused> {
    let Failover { to, allow_data_loss } = body(wanted)?;
    order(&api, Command::Failover { to: NodeId::from(&*to), allow_data_loss }).await
}

async fn maintenance(
    State(api): State<Arc<Api>>,
    Path(node): Path<String>,
    wanted: Result<Json<Maintenance>, JsonRejection>,
) -> Result<Json<Done>, Refused> {
    let Maintenance { on } = body(wanted)?;
    order(&api, Command::Maintenance { node: NodeId::from(&*node), on }).await
}

/// An order that says everything in its path.
async fn order_node(
    api: &Api,
    headers: &HeaderMap,
    node: &str,
    command: impl FnOnce(NodeId) -> Command,
) -> Result<Json<Done>, Refused> {
    check_kind(headers)?;
    order(api, command(NodeId::from(node))).await
}

async fn rejoin(
    State(api): State<Arc<Api>>,
    Path(node): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Done>, Refused> {
    order_node(&api, &headers, &node, |node| Command::Rejoin { node, rebuild: false }).await
}

async fn rebuild(
    State(api): State<Arc<Api>>,
    Path(node): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Done>, Refused> {
    order_node(&api, &headers, &node, |node| Command::Rejoin { node, rebuild: true }).await
}

async fn restart(
    State(api): State<Arc<Api>>,
    Path(node): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Done>, Refused> {
    order_node(&api, &headers, &node, |node| Command::Restart { node }).await
}
