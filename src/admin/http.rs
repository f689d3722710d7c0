//! The HTTP endpoint on `admin.listen`: health for load balancers, metrics for monitoring, and answers for `pgbaton`'s verbs.
//!
//! What reads is open to whoever can connect; what acts (any method but GET and HEAD), and `/doctor`, has to show the
//! token, if there is one. Every error is `{"error":{"code","message","hint"}}`. To add a path: a handler below, a line in [`router`],
//! and in `openapi` what it takes and answers, without which a test is red.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;

use super::doctor::Doctor;
use super::events::{self, Feed};
use super::history::{self, Entries, History};
use super::orders::{Orders, Reload};
use super::picture::Cluster;
use super::{balancers, guard, metrics, openapi};
use crate::auth::Secret;
use crate::cluster::{self, Availability};
use crate::driver::changes::Changes;
use crate::net::endpoint;
pub(super) use crate::net::endpoint::Refused;
use crate::session::explain::Explanation;
use crate::session::hypothetical::Unexplained;
use crate::session::shared::Shared;
use crate::telemetry::metric::Format;

/// What the endpoint needs from the rest of the program.
pub struct Api {
    pub shared: Arc<Shared>,
    /// `cluster.name`
    pub cluster: String,
    /// What the control plane believes.
    pub believed: Box<dyn Fn() -> Arc<cluster::Picture> + Send + Sync>,
    pub orders: Orders,
    pub reload: Reload,
    /// Whether new clients are accepted.
    pub accepts: Box<dyn Fn() -> bool + Send + Sync>,
    pub token: Option<Secret>,
    pub history: History,
    /// What is counted of changes of primary.
    pub changes: Changes,
    /// For how long nobody has taken writes, in milliseconds; `None` while somebody does.
    pub closed_for: Box<dyn Fn() -> Option<u64> + Send + Sync>,
    pub feed: Feed,
    pub doctor: Doctor,
}

/// Serves for as long as it is polled.
pub async fn serve(listener: TcpListener, api: Arc<Api>) {
    endpoint::serve(listener, router(api)).await;
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/cluster", get(cluster))
        .route("/explain", get(explain))
        .route("/history", get(past))
        .route("/availability", get(availability))
        .route("/openapi.json", get(openapi::answer))
        .merge(balancers::routes())
        .route("/events", get(events::events))
        .merge(super::dashboard::routes())
        .route("/doctor", get(super::doctor::findings))
        .merge(super::orders::routes())
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(api.clone(), guard::check))
        .with_state(api)
}

impl From<Unexplained> for Refused {
    fn from(reason: Unexplained) -> Refused {
        let (status, code) = match reason {
            Unexplained::NoneKnown | Unexplained::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_database"),
            Unexplained::Several(_) => (StatusCode::BAD_REQUEST, "which_database"),
        };
        Refused::new(status, code, reason.to_string(), reason.hint())
    }
}

async fn unknown() -> Refused {
    let hint = "/openapi.json has every path, what it takes and what it answers.";
    Refused::new(StatusCode::NOT_FOUND, "unknown_path", "there is nothing at this path", hint)
}

async fn not_allowed() -> Refused {
    let hint = "What tells is read with GET, what acts is sent with POST.";
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not take this method", hint)
}

async fn live() -> Response {
    Json(serde_json::json!({ "status": "live" })).into_response()
}

async fn ready(State(api): State<Arc<Api>>) -> Result<Response, Refused> {
    let topology = api.shared.topology.borrow().clone();
    if !(api.accepts)() {
        let hint = "It is shutting down; connect to another one.";
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "no new clients are accepted", hint));
    }
    let Some(primary) = topology.primary() else {
        let message = format!("no primary is known: {}", topology.reason);
        let hint = "See /cluster for what is known of each node.";
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "no_primary", message, hint));
    };
    Ok(Json(serde_json::json!({ "status": "ready", "primary": primary.address.id.to_string() })).into_response())
}

async fn metrics(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::asked_for(accept.unwrap_or_default());
    let page = metrics::page(&api.shared, &(api.believed)(), &api.changes.counted(), format);
    ([(header::CONTENT_TYPE, format.content_type())], page).into_response()
}

async fn cluster(State(api): State<Arc<Api>>) -> Json<Cluster> {
    Json(Cluster::of(&api.cluster, &api.shared, &(api.believed)()))
}

/// What is asked of `/explain`.
#[derive(Deserialize)]
struct Question {
    database: Option<String>,
    user: Option<String>,
    sql: Option<String>,
}

async fn explain(
    State(api): State<Arc<Api>>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<Explanation>, Refused> {
    let hint = "GET /explain?sql=…, with database= and user= as they apply, all percent-encoded.";
    let bad = |message: String| Refused::new(StatusCode::BAD_REQUEST, "bad_request", message, hint);
    let Query(Question { database, user, sql }) = question.map_err(|error| bad(error.body_text()))?;
    let sql = sql.ok_or_else(|| bad("sql has to be given".to_owned()))?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (database, user) = (given(database), given(user));
    Ok(Json(api.shared.explain(database.as_deref(), user.as_deref(), &sql).await?))
}

#[derive(Deserialize)]
struct HowMuch {
    limit: Option<usize>,
}

async fn past(
    State(api): State<Arc<Api>>,
    asked: Result<Query<HowMuch>, QueryRejection>,
) -> Result<Json<Entries>, Refused> {
    let hint = "GET /history, or with ?limit=… for the newest of its entries.";
    let bad = |error: QueryRejection| Refused::new(StatusCode::BAD_REQUEST, "bad_request", error.body_text(), hint);
    let Query(HowMuch { limit }) = asked.map_err(bad)?;
    let mut entries = (api.history)();
    if let Some(limit) = limit {
        entries.drain(..entries.len().saturating_sub(limit));
    }
    Ok(Json(Entries { entries }))
}

#[derive(Deserialize)]
struct Window {
    window: Option<String>,
}

async fn availability(
    State(api): State<Arc<Api>>,
    asked: Result<Query<Window>, QueryRejection>,
) -> Result<Json<Availability>, Refused> {
    let hint = "GET /availability?window=30d; units are s, m, h, d, weeks, months and years.";
    let bad = |message: String| Refused::new(StatusCode::BAD_REQUEST, "bad_request", message, hint);
    let Query(Window { window }) = asked.map_err(|error| bad(error.body_text()))?;
    let window = history::parse_window(window.as_deref().unwrap_or(history::WINDOW));
    let window = window.map_err(|error| bad(format!("window: {error}")))?;
    Ok(Json(history::availability(&api.history, window)))
}
