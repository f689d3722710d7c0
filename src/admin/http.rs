//! The HTTP endpoint on `admin.listen`: health for load balancers, metrics for monitoring, and answers for `pgbaton`'s verbs.
//!
//! What reads is open to whoever can connect; what acts (any method but GET and HEAD), and `/doctor`, has to show the token, if
//! there is one. Every error is `{"error":{"code","message","hint"}}`. To add a path: a handler below, a line in [`router`].

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;

use super::doctor::Doctor;
use super::history::{self, Entries, History};
use super::metrics;
use super::orders::{Orders, Reload};
use super::picture::Cluster;
use crate::auth::Secret;
use crate::cluster::{self, Availability};
use crate::net::endpoint;
pub(super) use crate::net::endpoint::Refused;
use crate::session::explain::Explanation;
use crate::session::hypothetical::Unexplained;
use crate::session::shared::Shared;

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
        .route("/doctor", get(super::doctor::findings))
        .merge(super::orders::routes())
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(api.clone(), check_token))
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

async fn check_token(State(api): State<Arc<Api>>, request: Request, next: Next) -> Result<Response, Refused> {
    // What the doctor finds helps whoever wants to break in, and costs the nodes some work.
    let only_reads = matches!(*request.method(), Method::GET | Method::HEAD) && request.uri().path() != "/doctor";
    if !only_reads
        && let Some(token) = &api.token
        && !endpoint::shows(request.headers(), token.reveal().as_bytes())
    {
        let hint = "Send it as Authorization: Bearer …; pgbaton's own commands take it from PGBATON_TOKEN.";
        return Err(Refused::new(StatusCode::UNAUTHORIZED, "token_required", "this needs the token of [admin]", hint));
    }
    Ok(next.run(request).await)
}

async fn unknown() -> Refused {
    let hint = "There are /health/live, /health/ready, /metrics, /cluster, /explain, /history, /availability, /doctor; to POST to: /pause, \
                /resume, /switchover, /failover, /reload, /nodes/ID/maintenance, /nodes/ID/rejoin, /nodes/ID/rebuild, /nodes/ID/restart.";
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

async fn metrics(State(api): State<Arc<Api>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::page(&api.shared, &(api.believed)())).into_response()
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
