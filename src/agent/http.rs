//! The agent's HTTP API: `GET /health`, `GET /status`, `GET /survey`, `POST /actions`.
//!
//! Health is told to everybody who can connect; all else wants the token, if there is one.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;

use super::admission::Admission;
use super::keeper::Agent;
use super::survey;
use crate::auth::Secret;
use crate::cluster::agent::{Order, Report};
use crate::cluster::doctor::facts::Site;
use crate::net::endpoint::{self, Refused};

/// An order has some hundred bytes.
const LONGEST: usize = 64 * 1024;

/// Of the id of an order, in characters.
const LONGEST_ID: usize = 100;

struct Api {
    agent: Arc<Agent>,
    token: Option<Secret>,
}

/// Serves for as long as it is polled.
pub async fn serve(listener: TcpListener, agent: Arc<Agent>, token: Option<Secret>) {
    let api = Arc::new(Api { agent, token });
    let router = Router::new()
        .route("/health", get(health))
        .route("/status", get(status))
        .route("/survey", get(look))
        .route("/actions", post(act))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(LONGEST))
        .layer(middleware::from_fn_with_state(api.clone(), check_token))
        .with_state(api);
    endpoint::serve(listener, router).await;
}

async fn check_token(State(api): State<Arc<Api>>, request: Request, next: Next) -> Result<Response, Refused> {
    let is_open = request.uri().path() == "/health";
    if !is_open
        && let Some(token) = &api.token
        && !endpoint::shows(request.headers(), token.reveal().as_bytes())
    {
        let hint = "Send it as Authorization: Bearer …; pgbaton takes it from cluster.agent_token.";
        return Err(Refused::new(StatusCode::UNAUTHORIZED, "token_required", "this needs the token of [agent]", hint));
    }
    Ok(next.run(request).await)
}

async fn unknown() -> Refused {
    let hint = "There are GET /health, GET /status, GET /survey and POST /actions.";
    Refused::new(StatusCode::NOT_FOUND, "unknown_path", "there is nothing at this path", hint)
}

async fn not_allowed() -> Refused {
    let hint = "GET /health, GET /status, GET /survey, POST /actions.";
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not take this method", hint)
}

/// The agent is well whenever it answers; what its server does is in the body.
async fn health(State(api): State<Arc<Api>>) -> Response {
    Json(serde_json::json!({ "status": "live", "server": api.agent.server() })).into_response()
}

async fn status(State(api): State<Arc<Api>>) -> Json<Report> {
    Json(api.agent.report().await)
}

async fn look(State(api): State<Arc<Api>>) -> Json<Site> {
    Json(survey::survey(&api.agent.site, api.token.is_some()).await)
}

async fn act(
    State(api): State<Arc<Api>>,
    given: Result<Json<Order>, JsonRejection>,
) -> Result<(StatusCode, Json<Report>), Refused> {
    let hint = "Content-Type: application/json; {\"epoch\":7,\"id\":\"…\",\"task\":{\"do\":\"start\"}}";
    let bad = |status, message: String| Refused::new(status, "bad_request", message, hint);
    let Json(order) = given.map_err(|error| bad(error.status(), error.body_text()))?;
    if order.id.is_empty() || order.id.chars().count() > LONGEST_ID || order.id.chars().any(char::is_control) {
        return Err(bad(StatusCode::BAD_REQUEST, format!("id: must have 1 to {LONGEST_ID} characters")));
    }
    let epoch = order.epoch;
    match api.agent.take(order) {
        Admission::Taken => Ok((StatusCode::ACCEPTED, Json(api.agent.report().await))),
        Admission::Known => Ok((StatusCode::OK, Json(api.agent.report().await))),
        Admission::Stale => {
            let message = format!("the order is of epoch {epoch}, and a later one is known");
            let hint = "It comes from somebody who has been overtaken. GET /status tells the epoch.";
            Err(Refused::new(StatusCode::CONFLICT, "stale", message, hint))
        }
        Admission::Busy => {
            let message = "another order of the same epoch is under way";
            let hint = "Wait for it (GET /status), or stop the server, or order under a newer epoch.";
            Err(Refused::new(StatusCode::CONFLICT, "busy", message, hint))
        }
    }
}
