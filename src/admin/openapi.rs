//! `GET /openapi.json`: what every path takes and answers, as OpenAPI 3.1, for programs and for those who write them.
//!
//! A route without an entry here is a red test (`tests/api.rs`), and so is an answer that is not what its entry says.

mod schemas;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::guard;
use super::http::Api;

/// What is asked beside the path.
struct Parameter {
    name: &'static str,
    is_required: bool,
    about: &'static str,
    example: &'static str,
}

const LAG: Parameter = Parameter {
    name: "lag",
    is_required: false,
    about: "How far behind a replica may be: bytes, or with B, kB, MB, GB or TB, of 1024 each.",
    example: "16MB",
};
const MODE: Parameter = Parameter {
    name: "mode",
    is_required: false,
    about: "What counts as not behind; only `apply` (replayed) is told.",
    example: "apply",
};
const LIMIT: Parameter =
    Parameter { name: "limit", is_required: false, about: "Only so many entries, the newest.", example: "10" };
const WINDOW: Parameter = Parameter {
    name: "window",
    is_required: false,
    about: "Until now from so long ago: `12h`, `30d`, `1month 3d`.",
    example: "30d",
};
const SQL: Parameter =
    Parameter { name: "sql", is_required: true, about: "The statement to explain.", example: "SELECT 1" };
const DATABASE: Parameter = Parameter {
    name: "database",
    is_required: false,
    about: "Where it would run; may be left out while clients have connected to one only.",
    example: "demo",
};
const USER: Parameter = Parameter { name: "user", is_required: false, about: "Who would run it.", example: "demo" };

/// What a good answer is.
enum Good {
    /// By the name of its schema.
    Json(&'static str),
    /// By its media type.
    Text(&'static str),
}

/// One path with one method.
struct Entry {
    method: &'static str,
    path: &'static str,
    about: &'static str,
    parameters: &'static [Parameter],
    /// The name of the schema of what is sent.
    body: Option<&'static str>,
    good: Good,
    /// What else it may answer.
    errors: &'static [u16],
}

const fn tell(path: &'static str, about: &'static str, schema: &'static str) -> Entry {
    Entry { method: "get", path, about, parameters: &[], body: None, good: Good::Json(schema), errors: &[] }
}

/// What a load balancer asks of this pgbaton.
const fn check(path: &'static str, about: &'static str, parameters: &'static [Parameter]) -> Entry {
    Entry { parameters, errors: &[400, 503], ..tell(path, about, "Fulfilled") }
}

/// And of a node.
const fn check_node(path: &'static str, about: &'static str, parameters: &'static [Parameter]) -> Entry {
    Entry { errors: &[400, 404, 503], ..check(path, about, parameters) }
}

const fn order(path: &'static str, about: &'static str, body: &'static str) -> Entry {
    let errors = &[400, 401, 403, 404, 408, 409, 413, 415, 422];
    Entry { method: "post", path, about, parameters: &[], body: Some(body), good: Good::Json("Done"), errors }
}

const fn page(path: &'static str, about: &'static str, media: &'static str) -> Entry {
    Entry { good: Good::Text(media), ..tell(path, about, "") }
}

/// Every path. What a load balancer asks can be asked with HEAD and OPTIONS too.
const ENTRIES: &[Entry] = &[
    page("/", "The dashboard.", "text/html"),
    Entry { errors: &[404], ..page("/dashboard/{file}", "What the dashboard is made of.", "*/*") },
    tell("/health/live", "The process answers.", "Live"),
    Entry { errors: &[503], ..tell("/health/ready", "New clients are accepted, and a primary is known.", "Ready") },
    page("/metrics", "What is counted, as OpenMetrics text.", "application/openmetrics-text"),
    tell("/cluster", "The cluster and each of its nodes.", "Cluster"),
    Entry { parameters: &[LIMIT], errors: &[400], ..tell("/history", "What happened, oldest first.", "History") },
    Entry {
        parameters: &[WINDOW],
        errors: &[400],
        ..tell("/availability", "How much of the time writes were taken.", "Availability")
    },
    Entry {
        parameters: &[SQL, DATABASE, USER],
        errors: &[400, 404],
        ..tell("/explain", "Where a statement would go, and why.", "Explanation")
    },
    Entry {
        errors: &[401, 503],
        ..tell("/doctor", "What is wrong with the cluster or may become so, and what to do about it.", "Findings")
    },
    Entry {
        errors: &[503],
        ..page(
            "/events",
            "What happens, as it happens: server-sent events named `cluster` (data: as GET /cluster), `history` (an entry of \
             GET /history) and `figures`.",
            "text/event-stream",
        )
    },
    tell("/openapi.json", "This description.", "Description"),
    check("/primary", "This pgbaton takes writes now.", &[LAG]),
    check("/master", "The same as /primary.", &[LAG]),
    check("/read-write", "The same as /primary.", &[LAG]),
    check("/leader", "The same as /primary.", &[LAG]),
    check("/replica", "This pgbaton serves reads from a replica that is not further behind.", &[LAG]),
    check("/read-only", "The same, or the primary.", &[LAG]),
    check("/health", "This pgbaton takes clients, and a node answers.", &[LAG]),
    check("/readiness", "This pgbaton takes clients, and can do something for them now.", &[LAG, MODE]),
    check("/liveness", "The process answers.", &[LAG]),
    check_node("/nodes/{id}/primary", "The node takes writes now.", &[LAG]),
    check_node("/nodes/{id}/master", "The same as /nodes/{id}/primary.", &[LAG]),
    check_node("/nodes/{id}/read-write", "The same as /nodes/{id}/primary.", &[LAG]),
    check_node("/nodes/{id}/leader", "The same as /nodes/{id}/primary.", &[LAG]),
    check_node("/nodes/{id}/replica", "The node serves reads, and is not further behind.", &[LAG]),
    check_node("/nodes/{id}/read-only", "The same, or it is the primary.", &[LAG]),
    check_node("/nodes/{id}/health", "The node answers.", &[LAG]),
    check_node("/nodes/{id}/synchronous", "As replica, and commits may wait for its acknowledgement.", &[LAG]),
    check_node("/nodes/{id}/sync", "The same as /nodes/{id}/synchronous.", &[LAG]),
    check_node("/nodes/{id}/asynchronous", "As replica, and no commit waits for it.", &[LAG]),
    check_node("/nodes/{id}/async", "The same as /nodes/{id}/asynchronous.", &[LAG]),
    order("/pause", "Forbid any change of primary.", "Nothing"),
    order("/resume", "Allow changes of primary again.", "Nothing"),
    order("/switchover", "Exchange the primary as planned.", "Switchover"),
    order("/failover", "Make a node the primary now.", "Failover"),
    order("/reload", "Read the configuration file again.", "Nothing"),
    order("/nodes/{id}/maintenance", "Take a standby out of use, or back into it.", "Maintenance"),
    order(
        "/nodes/{id}/rejoin",
        "Make a node a standby of the primary again, the cheapest way that is right.",
        "Nothing",
    ),
    order("/nodes/{id}/rebuild", "The same, by a copy of everything.", "Nothing"),
    order("/nodes/{id}/restart", "Restart a node's server, by its agent.", "Nothing"),
];

pub(super) async fn answer(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(document(api.token.is_some()))
}

/// The whole description. `has_token`: whether orders have to show one.
pub fn document(has_token: bool) -> Value {
    let mut paths = Map::new();
    for entry in ENTRIES {
        let path = paths.entry(entry.path).or_insert_with(|| json!({}));
        path[entry.method] = operation(entry, entry.method, has_token);
        if matches!(entry.good, Good::Json("Fulfilled")) {
            for method in ["head", "options"] {
                path[method] = operation(entry, method, has_token);
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "pgbaton",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0" },
            "description": "Looking is open to whoever can connect; orders (POST) show the token, if there is one. \
                            Every error is {\"error\":{\"code\",\"message\",\"hint\"}}, and a code never changes its meaning.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "description": "admin.token" } },
        },
    })
}

fn operation(entry: &Entry, method: &str, has_token: bool) -> Value {
    let id = entry.path.trim_matches('/').replace(['/', '-', '.'], "_").replace(['{', '}'], "");
    let mut operation = json!({
        "operationId": format!("{method}_{}", if id.is_empty() { "dashboard" } else { &id }),
        "summary": entry.about,
        "responses": responses(entry, method),
    });
    let mut parameters: Vec<Value> = entry.parameters.iter().map(parameter).collect();
    let places = [("id", "The node's name.", "n1"), ("file", "A file of the dashboard.", "app.js")];
    for (name, about, example) in places.iter().filter(|(name, ..)| entry.path.contains(&format!("{{{name}}}"))) {
        parameters.push(json!({
            "name": name, "in": "path", "required": true, "description": about, "example": example,
            "schema": { "type": "string" },
        }));
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(schema) = entry.body {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": reference(schema) } } });
    }
    if has_token && (method == "post" || entry.path == guard::TOLD_WITH_TOKEN) {
        operation["security"] = json!([{ "token": [] }]);
    }
    operation
}

fn parameter(parameter: &Parameter) -> Value {
    let Parameter { name, is_required, about, example } = parameter;
    json!({
        "name": name, "in": "query", "required": is_required, "description": about, "example": example,
        "schema": schemas::parameter(name),
    })
}

/// HEAD has no body, and nobody reads that of OPTIONS.
fn responses(entry: &Entry, method: &str) -> Value {
    let content = |media: &str, schema: Value| match method {
        "head" | "options" => json!({}),
        _ => json!({ media: { "schema": schema } }),
    };
    let good = match entry.good {
        Good::Json(schema) => content("application/json", reference(schema)),
        Good::Text(media) => content(media, json!({ "type": "string" })),
    };
    let mut responses = Map::new();
    responses.insert("200".into(), json!({ "description": "So it is, or so it was done.", "content": good }));
    // Without a token, to whoever calls it by a strange name.
    for status in entry.errors.iter().chain(&[403]) {
        let error =
            json!({ "description": meaning(*status), "content": content("application/json", reference("Error")) });
        responses.insert(status.to_string(), error);
    }
    responses.into()
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "It cannot be understood.",
        401 => "It needs the token.",
        403 => "Not by that name, or not from a page elsewhere.",
        404 => "No such node, or database.",
        408 => "The body came too slowly.",
        409 => "It was understood, and refused as things are.",
        413 => "The body is too long.",
        415 => "It is no JSON by its Content-Type.",
        422 => "It is JSON, and not what is taken here.",
        // 503
        _ => "It is not so just now.",
    }
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}
