//! As much of JSON Schema as the description uses, and stricter: a word that it does not know is a failure, and so is a property
//! that is not described.

use serde_json::Value;

/// Fails with the place where a value is not what its schema says.
#[track_caller]
pub fn check(description: &Value, schema: &Value, value: &Value) {
    if let Err(reason) = validate(description, schema, value, "$") {
        panic!("{reason}\nin {value:#}");
    }
}

fn validate(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let rules = schema.as_object().ok_or_else(|| format!("{at}: {schema} is no schema"))?;
    let fail = |what: String| Err(format!("{at}: {what}, found {value}"));
    for (word, rule) in rules {
        match word.as_str() {
            "$ref" => {
                let pointer = rule.as_str().and_then(|name| name.strip_prefix('#')).ok_or("a $ref is a text")?;
                let target = root.pointer(pointer).ok_or_else(|| format!("{at}: there is no {pointer}"))?;
                validate(root, target, value, at)?;
            }
            "type" => {
                let types: Vec<&str> = match rule {
                    Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
                    one => one.as_str().into_iter().collect(),
                };
                if !types.iter().any(|name| is(value, name)) {
                    return fail(format!("expected {rule}"));
                }
            }
            "const" if value != rule => return fail(format!("expected {rule}")),
            "enum" if !rule.as_array().unwrap().contains(value) => return fail(format!("expected one of {rule}")),
            "minimum" if value.as_f64().is_some_and(|number| number < rule.as_f64().unwrap()) => {
                return fail(format!("expected at least {rule}"));
            }
            "maximum" if value.as_f64().is_some_and(|number| number > rule.as_f64().unwrap()) => {
                return fail(format!("expected at most {rule}"));
            }
            "pattern" => match (rule.as_str().unwrap(), value.as_str()) {
                ("^[0-9A-F]+/[0-9A-F]+$", Some(lsn)) => {
                    lsn.parse::<pgbaton::types::Lsn>().map_err(|_| format!("{at}: {lsn} is no position"))?;
                }
                ("^[a-z_]+$", Some(code)) if code.chars().all(|c| c.is_ascii_lowercase() || c == '_') => {}
                _ => return fail(format!("expected {rule}")),
            },
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(root, rule, item, &format!("{at}[{index}]"))?;
                }
            }
            "prefixItems" => {
                for (index, (item, rule)) in
                    value.as_array().into_iter().flatten().zip(rule.as_array().unwrap()).enumerate()
                {
                    validate(root, rule, item, &format!("{at}[{index}]"))?;
                }
            }
            "minItems" | "maxItems" => {
                let (length, bound) = (value.as_array().map_or(0, Vec::len) as u64, rule.as_u64().unwrap());
                if (word == "minItems" && length < bound) || (word == "maxItems" && length > bound) {
                    return fail(format!("expected {word} {rule}"));
                }
            }
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        return fail(format!("{name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, part) in value.as_object().into_iter().flatten() {
                    match rule.get(name) {
                        Some(rule) => validate(root, rule, part, &format!("{at}.{name}"))?,
                        None => return fail(format!("{name} is not described")),
                    }
                }
            }
            "additionalProperties" if rule.is_object() => {
                for (name, part) in value.as_object().into_iter().flatten() {
                    validate(root, rule, part, &format!("{at}.{name}"))?;
                }
            }
            "oneOf" | "anyOf" => {
                let tried: Vec<_> =
                    rule.as_array().unwrap().iter().map(|rule| validate(root, rule, value, at)).collect();
                let fitting = tried.iter().filter(|result| result.is_ok()).count();
                if fitting == 0 || word == "oneOf" && fitting > 1 {
                    let reasons: Vec<String> = tried.into_iter().filter_map(Result::err).collect();
                    return fail(format!("{fitting} of {word} fit: {}", reasons.join("; ")));
                }
            }
            "const" | "enum" | "minimum" | "maximum" | "additionalProperties" | "description" | "default" => {}
            other => return Err(format!("{at}: the description uses {other}, which is not looked at here")),
        }
    }
    Ok(())
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[test]
fn what_is_not_as_described_is_noticed() {
    let root = pgbaton::admin::openapi::document(false);
    let check = |name: &str, value: Value| {
        let schema = serde_json::json!({ "$ref": format!("#/components/schemas/{name}") });
        validate(&root, &schema, &value, "$")
    };
    let good = serde_json::json!({ "error": { "code": "refused", "message": "m", "hint": "" } });
    assert_eq!(check("Error", good.clone()), Ok(()));
    for (pointer, wrong) in [("/error/code", 1.into()), ("/error/code", "Bad Code".into()), ("/error", Value::Null)] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = wrong;
        assert!(check("Error", bad.clone()).is_err(), "{bad}");
    }
    let mut more = good;
    more["error"]["more"] = true.into();
    assert!(check("Error", more).unwrap_err().contains("more is not described"));
    let entry = serde_json::json!({ "what": "watch", "from": 1, "to": 2 });
    assert_eq!(check("HistoryEntry", entry), Ok(()));
    let entry = serde_json::json!({ "what": "outage", "from": 1, "to": 2 });
    assert!(check("HistoryEntry", entry).is_err(), "an outage has a reason");
}
