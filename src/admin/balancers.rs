//! What load balancers ask, under the paths that Patroni has for it: a status is the whole answer, 200 or 503.
//!
//! Patroni runs beside each node and answers for that one. pgbaton is in front of all of them, so its paths answer for what a client
//! that is sent to *this pgbaton* would get, and the same words below `/nodes/ID` for one node. What exactly, and where it
//! differs from Patroni, is in `docs/decisions/0013-paths-for-load-balancers.md`.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::http::{Api, Refused};
use super::picture::{Cluster, Node};

/// The answer for those who read more than the status.
#[derive(Debug, Serialize)]
pub struct Fulfilled {
    /// The question: `primary`, `replica`, …
    status: String,
    /// The nodes that fulfil it.
    nodes: Vec<String>,
}

/// What may be asked beside the path. Anything else is refused rather than passed over: a condition that is not understood
/// is not fulfilled.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    lag: Option<String>,
    mode: Option<String>,
}

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/primary", both(of_all))
        .route("/master", both(of_all))
        .route("/read-write", both(of_all))
        .route("/leader", both(of_all))
        .route("/replica", both(of_all))
        .route("/read-only", both(of_all))
        .route("/health", both(of_all))
        .route("/readiness", both(of_all))
        .route("/liveness", both(of_all))
        .route("/nodes/{id}/primary", both(of_one))
        .route("/nodes/{id}/master", both(of_one))
        .route("/nodes/{id}/read-write", both(of_one))
        .route("/nodes/{id}/leader", both(of_one))
        .route("/nodes/{id}/replica", both(of_one))
        .route("/nodes/{id}/read-only", both(of_one))
        .route("/nodes/{id}/health", both(of_one))
        .route("/nodes/{id}/synchronous", both(of_one))
        .route("/nodes/{id}/sync", both(of_one))
        .route("/nodes/{id}/asynchronous", both(of_one))
        .route("/nodes/{id}/async", both(of_one))
        .route_layer(middleware::from_fn(status_alone))
}

/// Nobody reads what is answered to OPTIONS.
async fn status_alone(request: Request, next: Next) -> Response {
    let is_alone = request.method() == Method::OPTIONS;
    let response = next.run(request).await;
    if is_alone { response.status().into_response() } else { response }
}

/// GET and HEAD, and OPTIONS, which HAProxy asks with unless it is told otherwise.
fn both<H, T>(handler: H) -> MethodRouter<Arc<Api>>
where
    H: axum::handler::Handler<T, Arc<Api>> + Copy,
    T: 'static,
{
    get(handler).options(handler)
}

type Asked = Result<Query<Condition>, QueryRejection>;

/// Of this pgbaton.
async fn of_all(State(api): State<Arc<Api>>, uri: Uri, asked: Asked) -> Result<Response, Refused> {
    let word = last_word(&uri);
    let lag = condition(asked, word)?;
    if word == "liveness" {
        return Ok(fulfilled(word, Vec::new()));
    }
    if !(api.accepts)() {
        let hint = "It is shutting down; connect to another one.";
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "no new clients are accepted", hint));
    }
    let cluster = picture(&api);
    let nodes = nodes_that(&cluster, word, lag);
    if !nodes.is_empty() {
        return Ok(fulfilled(word, nodes));
    }
    let (code, message) = match word {
        "replica" => ("no_replica", format!("no replica serves reads{}", within(lag))),
        "health" => ("no_node", "no node answers".to_owned()),
        _ => ("no_primary", format!("nobody takes writes: {}", why(&cluster))),
    };
    Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, code, message, "See /cluster for what is known of each node."))
}

/// Of a node.
async fn of_one(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    uri: Uri,
    asked: Asked,
) -> Result<Response, Refused> {
    let word = last_word(&uri);
    let lag = condition(asked, word)?;
    let cluster = picture(&api);
    let Some(node) = cluster.nodes.iter().find(|node| node.id == id) else { return Err(unknown_node(&id)) };
    if fulfils(&cluster, node, word, lag) {
        return Ok(fulfilled(word, vec![id]));
    }
    let reason = if node.reason.is_empty() { format!("it is a {}", node.role) } else { node.reason.clone() };
    let message = format!("{id} is not that ({word}{}): {reason}", within(lag));
    let hint = "See /cluster for what is known of each node.";
    Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "not_so", message, hint))
}

fn picture(api: &Api) -> Cluster {
    Cluster::of(&api.cluster, &api.shared, &(api.believed)())
}

/// For every path that names a node.
pub(super) fn unknown_node(id: &str) -> Refused {
    let message = format!("{id} is not in the configuration");
    Refused::new(StatusCode::NOT_FOUND, "unknown_node", message, "See /cluster for the nodes that there are.")
}

fn last_word(uri: &Uri) -> &str {
    uri.path().rsplit('/').next().unwrap_or_default()
}

fn fulfilled(word: &str, nodes: Vec<String>) -> Response {
    Json(Fulfilled { status: word.to_owned(), nodes }).into_response()
}

fn nodes_that(cluster: &Cluster, word: &str, lag: Option<u64>) -> Vec<String> {
    let nodes = cluster.nodes.iter().filter(|node| fulfils(cluster, node, word, lag));
    nodes.map(|node| node.id.clone()).collect()
}

fn fulfils(cluster: &Cluster, node: &Node, word: &str, lag: Option<u64>) -> bool {
    let is_primary = cluster.primary.as_deref() == Some(&node.id);
    let is_replica =
        !is_primary && node.eligible && lag.is_none_or(|most| node.lag_bytes.is_some_and(|behind| behind <= most));
    let is_voter = cluster.durability == "quorum" && cluster.voters.contains(&node.id);
    match word {
        "replica" => is_replica,
        "read-only" | "readiness" => is_primary || is_replica,
        // It answers, whatever is done to it.
        "health" => node.role != "unknown",
        "synchronous" | "sync" => is_replica && is_voter,
        "asynchronous" | "async" => is_replica && !is_voter,
        // primary, master, read-write, leader
        _ => is_primary,
    }
}

fn why(cluster: &Cluster) -> &str {
    if cluster.reason.is_empty() { "no primary is known" } else { &cluster.reason }
}

fn within(lag: Option<u64>) -> String {
    lag.map_or(String::new(), |lag| format!(" with {lag} bytes of lag at most"))
}

/// The lag that is asked for, in bytes.
fn condition(asked: Asked, word: &str) -> Result<Option<u64>, Refused> {
    let hint = "lag is a number of bytes, or one with B, kB, MB, GB or TB (of 1024 each): /replica?lag=16MB";
    let bad = |message: String| Refused::new(StatusCode::BAD_REQUEST, "bad_request", message, hint);
    let Query(Condition { lag, mode }) = asked.map_err(|error| bad(error.body_text()))?;
    match mode.as_deref() {
        None => {}
        Some("apply") if word == "readiness" => {}
        Some(_) if word == "readiness" => return Err(bad("mode: it is told what has been replayed (apply)".into())),
        Some(_) => return Err(bad("mode is for /readiness".into())),
    }
    lag.map(|lag| parse_bytes(&lag).ok_or_else(|| bad(format!("lag: \"{lag}\" is not an amount of bytes")))).transpose()
}

/// As PostgreSQL writes it, and Patroni reads it: units are of 1024, and their case matters.
fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_read_as_postgresql_writes_it() {
        assert_eq!(parse_bytes("1048576"), Some(1 << 20));
        assert_eq!(parse_bytes("0"), Some(0));
        assert_eq!(parse_bytes("16kB"), Some(16 * 1024));
        assert_eq!(parse_bytes("64 MB"), Some(64 << 20));
        assert_eq!(parse_bytes("2GB"), Some(2 << 30));
        assert_eq!(parse_bytes("1TB"), Some(1 << 40));
        for wrong in ["", "MB", "-1", "1.5GB", "16KB", "16mb", "10s", "99999999999TB", "1 M B"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }

    fn cluster() -> Cluster {
        let node = |id: &str, role: &str, eligible: bool, lag: Option<u64>| {
            serde_json::json!({
                "id": id, "host": "h", "port": 1, "role": role, "state": if role == "unknown" { "down" } else { "running" },
                "timeline": 1, "lsn": "0/1", "lag_bytes": lag, "lag_ms": lag, "eligible": eligible, "reason": "", "agent": null
            })
        };
        let nodes = [
            node("n1", "primary", false, Some(0)),
            node("n2", "replica", true, Some(100)),
            node("n3", "replica", true, Some(5000)),
            node("n4", "replica", false, Some(0)),
            node("n5", "unknown", false, None),
        ];
        serde_json::from_value(serde_json::json!({
            "name": "main", "epoch": 1, "phase": "stable", "primary": "n1", "leader": "n1", "durability": "quorum",
            "voters": ["n2"], "acks": 1, "paused": false, "reason": "", "nodes": nodes
        }))
        .unwrap()
    }

    #[test]
    fn each_word_finds_its_nodes() {
        let found = |word: &str, lag| nodes_that(&cluster(), word, lag).join(" ");
        for word in ["primary", "master", "read-write", "leader"] {
            assert_eq!(found(word, None), "n1", "{word}");
        }
        assert_eq!(found("replica", None), "n2 n3");
        assert_eq!(found("replica", Some(4999)), "n2");
        assert_eq!(found("replica", Some(5000)), "n2 n3");
        assert_eq!(found("replica", Some(0)), "");
        assert_eq!(found("read-only", Some(99)), "n1");
        assert_eq!(found("readiness", None), "n1 n2 n3");
        assert_eq!(found("health", None), "n1 n2 n3 n4");
        assert_eq!((found("sync", None), found("asynchronous", None)), ("n2".into(), "n3".into()));
    }

    #[test]
    fn a_primary_that_does_not_take_writes_is_none() {
        let closed = Cluster { primary: None, ..cluster() };
        assert_eq!(nodes_that(&closed, "primary", None), Vec::<String>::new());
        assert_eq!(nodes_that(&closed, "replica", None), ["n2", "n3"]);
    }
}
