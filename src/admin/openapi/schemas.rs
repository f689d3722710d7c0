//! What is sent and answered, as JSON Schema. The words are those of the types that are printed: `picture`, `cluster::history`.

use serde_json::{Value, json};

/// Of a parameter in the query.
pub(super) fn parameter(name: &str) -> Value {
    match name {
        "limit" => json!({ "type": "integer", "minimum": 0 }),
        "lag" => {
            json!({ "type": "string", "pattern": "^[0-9]{1,15} *(B|kB|MB)?$|^[0-9]{1,9} *(GB)?$|^[0-9]{1,6} *(TB)?$" })
        }
        "mode" => json!({ "type": "string", "enum": ["apply"] }),
        "window" => json!({ "type": "string" }),
        _ => json!({ "type": "string" }),
    }
}

/// An object of which every property is there.
fn object(properties: Value) -> Value {
    let names: Vec<&String> = properties.as_object().map(|properties| properties.keys().collect()).unwrap_or_default();
    json!({ "type": "object", "required": names, "properties": properties })
}

/// An object of which these may be missing.
fn object_with(properties: Value, optional: &[&str]) -> Value {
    let mut object = object(properties);
    if let Some(required) = object["required"].as_array_mut() {
        required.retain(|name| name.as_str().is_none_or(|name| !optional.contains(&name)));
    }
    object
}

/// What an order says: nothing may be in it that nobody reads.
fn said(properties: Value, optional: &[&str]) -> Value {
    let mut object = object_with(properties, optional);
    object["additionalProperties"] = false.into();
    object
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn text_or_null() -> Value {
    json!({ "type": ["string", "null"] })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn count_or_null() -> Value {
    json!({ "type": ["integer", "null"], "minimum": 0 })
}

/// In milliseconds since 1970.
fn moment() -> Value {
    json!({ "type": "integer", "minimum": 0, "description": "milliseconds since 1970" })
}

fn lsn() -> Value {
    json!({ "type": "string", "pattern": "^[0-9A-F]+/[0-9A-F]+$" })
}

fn one_of(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

fn list_of(what: Value) -> Value {
    json!({ "type": "array", "items": what })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn or_null(name: &str) -> Value {
    json!({ "anyOf": [reference(name), { "type": "null" }] })
}

pub(super) fn all() -> Value {
    let mut all = serde_json::Map::new();
    for part in [simple(), cluster(), history(), orders()] {
        if let Value::Object(part) = part {
            all.extend(part);
        }
    }
    all.into()
}

fn simple() -> Value {
    json!({
        "Error": object(json!({ "error": object(json!({
            "code": { "type": "string", "pattern": "^[a-z_]+$", "description": "for programs; never changes its meaning" },
            "message": text(),
            "hint": { "type": "string", "description": "what to do about it; may be empty" },
        })) })),
        "Live": object(json!({ "status": { "const": "live" } })),
        "Ready": object(json!({ "status": { "const": "ready" }, "primary": text() })),
        "Fulfilled": object(json!({
            "status": { "type": "string", "description": "what was asked" },
            "nodes": { "type": "array", "items": text(), "description": "the nodes that fulfil it" },
        })),
        "Description": { "type": "object" },
        "Availability": object(json!({
            "from": moment(),
            "to": moment(),
            "observed_ms": count(),
            "uptime_ms": count(),
            "downtime_ms": count(),
            "failures": count(),
            "mttf_ms": count_or_null(),
            "mttr_ms": count_or_null(),
            "failure_rate_per_hour": { "type": ["number", "null"], "minimum": 0 },
            "availability": { "type": ["number", "null"], "minimum": 0, "maximum": 1 },
            "longest": { "anyOf": [
                object(json!({ "from": moment(), "to": moment(), "reason": text() })),
                { "type": "null" },
            ] },
        })),
        "Explanation": object(json!({
            "class": text(),
            "target": one_of(&["primary", "replica", "none"]),
            "reason": text(),
            "reasons": list_of(text()),
            "consistency": one_of(&["eventual", "bounded", "session", "strong"]),
            "nodes": list_of(object(json!({
                "id": text(), "rejected": text_or_null(), "lag_bytes": count_or_null(), "lag_ms": count_or_null(),
            }))),
        })),
        "Findings": object(json!({ "findings": list_of(object(json!({
            "check": text(),
            "node": text_or_null(),
            "level": one_of(&["ok", "warning", "error"]),
            "message": text(),
            "fix": text_or_null(),
        }))) })),
    })
}

fn cluster() -> Value {
    json!({
        "Cluster": object(json!({
            "name": text(),
            "epoch": count_or_null(),
            "phase": { "enum": ["recruiting", "promoting", "stable", null] },
            "primary": { "type": ["string", "null"], "description": "the node that takes writes now" },
            "leader": { "type": ["string", "null"], "description": "whose epoch it is" },
            "durability": one_of(&["async", "quorum"]),
            "voters": list_of(text()),
            "acks": count(),
            "paused": { "type": "boolean" },
            "reason": { "type": "string", "description": "why nobody takes writes, or what stands in the way of a failover" },
            "nodes": list_of(reference("Node")),
        })),
        "Node": object(json!({
            "id": text(),
            "host": text(),
            "port": { "type": "integer", "minimum": 1, "maximum": 65535 },
            "role": one_of(&["primary", "replica", "unknown"]),
            "state": one_of(&["running", "starting", "down", "fenced", "rejoining", "maintenance", "unknown"]),
            "timeline": count(),
            "lsn": lsn(),
            "lag_bytes": count_or_null(),
            "lag_ms": count_or_null(),
            "eligible": { "type": "boolean", "description": "it may serve reads" },
            "reason": { "type": "string", "description": "why not" },
            "not_promotable": {
                "type": ["string", "null"],
                "description": "why it cannot be made the primary now; null when it can",
            },
            "agent": or_null("Agent"),
        })),
        "Agent": object(json!({
            "state": one_of(&["starting", "running", "stopping", "stopped", "waiting", "silent", "unknown"]),
            "step": text(),
            "trouble": text(),
            "epoch": count_or_null(),
        })),
    })
}

fn history() -> Value {
    let diverged = object(json!({
        "timeline": count(), "from": lsn(), "to": lsn(), "commits": count_or_null(), "kept": text(),
    }));
    let epoch = json!({
        "what": { "const": "epoch" },
        "epoch": count(),
        "kind": text(),
        "cause": text(),
        "from": text_or_null(),
        "to": text(),
        "timeline": count(),
        "fork_lsn": { "anyOf": [lsn(), { "type": "null" }] },
        "durability": one_of(&["async", "quorum"]),
        "phases": list_of(json!({ "type": "array", "prefixItems": [text(), count()], "minItems": 2, "maxItems": 2 })),
        "rejected": { "type": "object", "additionalProperties": text() },
        "known_loss_bytes": count(),
        "lost_commits_at_most": count_or_null(),
        "closed_at": moment(),
        "opened_at": moment(),
        "by": { "type": "string", "description": "who ordered it, if somebody did" },
    });
    let repair = json!({
        "what": { "const": "repair" },
        "node": text(),
        "epoch": count(),
        "primary": text(),
        "repair": one_of(&["follow", "rewind", "rebuild", "auto"]),
        "why": text(),
        "diverged": { "anyOf": [diverged, { "type": "null" }] },
        "failure": text(),
        "began_at": moment(),
        "ended_at": moment(),
    });
    let outage = json!({ "what": { "const": "outage" }, "from": moment(), "to": { "type": ["integer", "null"] }, "reason": text() });
    json!({
        "History": object(json!({ "entries": list_of(reference("HistoryEntry")) })),
        "HistoryEntry": { "oneOf": [
            object_with(epoch, &["by"]),
            object(outage),
            object(repair),
            object(json!({ "what": { "const": "watch" }, "from": moment(), "to": moment() })),
        ] },
    })
}

fn orders() -> Value {
    json!({
        "Nothing": said(json!({}), &[]),
        "Switchover": said(json!({ "to": { "type": ["string", "null"], "description": "the best of those that may, if none" } }), &["to"]),
        "Failover": said(json!({ "to": text(), "allow_data_loss": { "type": "boolean", "default": false } }), &["allow_data_loss"]),
        "Maintenance": said(json!({ "on": { "type": "boolean" } }), &[]),
        "Done": object(json!({ "done": text() })),
    })
}
