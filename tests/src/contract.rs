//! Every answer that the harness gets is held against the OpenAPI document, so that each test is a test of the contract as well.
//!
//! Stricter than clients are: they ignore members they do not know, and here each must be described.

use crate::raw::Answer;
use jsonschema::{Draft, Validator};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
};

/// Panics where the document does not describe the answer.
pub(crate) fn check(method: &str, target: &str, answer: &Answer) {
    if let Err(difference) = difference(method, target, answer) {
        panic!(
            "the OpenAPI document does not describe this answer to {method} {target}: {difference}\n{}{}",
            answer.head,
            answer.text()
        );
    }
}

/// The document, with every object closed.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = serde_json::from_str(&strongroom_server::http::openapi()).expect("the document is JSON");
    let mut parts = Vec::new();
    find_parts(&document, &mut parts);
    close(&mut document);
    for part in parts {
        document["components"]["schemas"][part].as_object_mut().expect("a schema").remove("unevaluatedProperties");
    }
    document
});

fn difference(method: &str, target: &str, answer: &Answer) -> Result<(), String> {
    let path = target.split('?').next().unwrap_or_default();
    // An answer of the HTTP library: the request never was one.
    if answer.header("x-request-id").is_none() {
        return if matches!(answer.status, 400 | 414 | 431) && answer.body.is_empty() {
            Ok(())
        } else {
            Err("it has no x-request-id".to_owned())
        };
    }
    let item = &DOCUMENT["paths"][path];
    let operation = &item[if method == "HEAD" { "get".to_owned() } else { method.to_ascii_lowercase() }];
    if operation.is_null() {
        // What no document describes: a path or a method that there is not.
        let expected = if item.is_null() { [404, 400] } else { [405, 400] };
        return if expected.contains(&answer.status) {
            body_fits(
                &json!({ "allOf": [{ "$ref": "#/components/schemas/Problem" }], "unevaluatedProperties": false }),
                "Problem",
                answer,
            )
        } else {
            Err(format!("the operation is not in it, and the status is none of {expected:?}"))
        };
    }
    let response = resolved(&operation["responses"][answer.status.to_string()]);
    if response.is_null() {
        return Err(format!("the operation has no status {}", answer.status));
    }
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        header_fits(name, resolved(header), answer)?;
    }
    if method == "HEAD" {
        return Ok(());
    }
    let kind = answer.header("content-type").map(|kind| kind.split(';').next().unwrap_or_default().trim());
    match (response["content"].as_object(), kind) {
        (None, None) if answer.body.is_empty() => Ok(()),
        (None, _) => Err("the status has no body".to_owned()),
        (Some(contents), kind) => {
            let kind = kind.ok_or("it has no content type")?;
            let content = contents.get(kind).ok_or_else(|| format!("the status has no content type {kind}"))?;
            if kind.ends_with("json") {
                body_fits(&content["schema"], &format!("{method} {path} {} {kind}", answer.status), answer)
            } else {
                Ok(())
            }
        }
    }
}

fn header_fits(name: &str, header: &Value, answer: &Answer) -> Result<(), String> {
    let Some(text) = answer.header(name) else {
        return if header["required"] == true { Err(format!("it has no header {name}")) } else { Ok(()) };
    };
    let value = if header["schema"]["type"] == "integer" {
        text.parse().map_or(Value::Null, |number: i64| json!(number))
    } else {
        json!(text)
    };
    validator(name, &header["schema"]).validate(&value).map_err(|error| format!("header {name}: {error}"))
}

fn body_fits(schema: &Value, name: &str, answer: &Answer) -> Result<(), String> {
    let body: Value = serde_json::from_slice(&answer.body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let validator = validator(name, schema);
    let errors: Vec<_> = validator
        .iter_errors(&body)
        .map(|error| format!("at {:?}: {error}", error.instance_path().to_string()))
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

/// The validator of a schema of the document, made once for each name.
fn validator(name: &str, schema: &Value) -> Arc<Validator> {
    static MADE: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().expect("no validator panics");
    if let Some(validator) = made.get(name) {
        return validator.clone();
    }
    let mut whole = schema.clone();
    // So that its references find what they name.
    whole["components"] = json!({ "schemas": DOCUMENT["components"]["schemas"] });
    let validator = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true).build(&whole);
    let validator = Arc::new(validator.unwrap_or_else(|error| panic!("{name} has no valid schema: {error}")));
    made.entry(name.to_owned()).or_insert(validator).clone()
}

/// What a reference into the document names.
fn resolved(value: &Value) -> &Value {
    match value["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null),
        None => value,
    }
}

/// Names of schemas that are a part of others by `allOf`: whoever closes them closes those to their own members.
fn find_parts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            let parts = members.get("allOf").and_then(Value::as_array).into_iter().flatten();
            found.extend(parts.filter_map(|part| Some(part["$ref"].as_str()?.rsplit('/').next()?.to_owned())));
            members.values().for_each(|member| find_parts(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| find_parts(item, found)),
        _ => {}
    }
}

/// Lets no object have a member that is not described. The parts of an `allOf` stay open: each describes some members only.
fn close(value: &mut Value) {
    let members = match value {
        Value::Object(members) => members,
        Value::Array(items) => return items.iter_mut().for_each(close),
        _ => return,
    };
    for (name, member) in members.iter_mut() {
        if name != "allOf" {
            close(member);
        }
    }
    let is_schema = members.get("properties").is_some_and(Value::is_object) || members.contains_key("allOf");
    if is_schema && !members.contains_key("additionalProperties") {
        members.insert("unevaluatedProperties".to_owned(), json!(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890000-0000-7000-8000-000000000000";

    fn answer(status: u16, kind: &str, body: &Value) -> Answer {
        let head = format!("HTTP/1.1 {status} \r\nx-request-id: {ID}\r\ncontent-type: {kind}\r\n\r\n");
        Answer { status, head, body: body.to_string().into_bytes() }
    }

    fn role() -> Value {
        json!({ "project": "shop", "name": "readers", "members": [] })
    }

    fn problem(status: u16, code: &str) -> Answer {
        let body = json!({ "title": "t", "status": status, "code": code, "remedy": "r", "request_id": ID });
        answer(status, "application/problem+json", &body)
    }

    #[test]
    fn what_is_described_passes() {
        difference("PUT", "/api/v1/roles", &answer(200, "application/json", &role())).unwrap();
        difference("PUT", "/api/v1/roles", &problem(403, "forbidden")).unwrap();
        difference("PUT", "/api/v1/nothing", &problem(404, "not_found")).unwrap();
        difference("PATCH", "/api/v1/roles", &problem(405, "method_not_allowed")).unwrap();
    }

    #[test]
    fn each_difference_is_found() {
        let with = |name: &str, value: Value| {
            let mut body = role();
            body[name] = value;
            answer(200, "application/json", &body)
        };
        let mut without = role();
        without.as_object_mut().unwrap().remove("members");
        let mut anonymous = problem(403, "forbidden");
        anonymous.head = anonymous.head.replace("x-request-id", "x-other");
        for (name, method, path, answer) in [
            ("a member more", "PUT", "/api/v1/roles", with("author", json!("user:admin"))),
            ("a member less", "PUT", "/api/v1/roles", answer(200, "application/json", &without)),
            ("another type", "PUT", "/api/v1/roles", with("members", json!("all"))),
            ("another pattern", "PUT", "/api/v1/roles", with("project", json!("a/b"))),
            ("another status", "PUT", "/api/v1/roles", answer(201, "application/json", &role())),
            ("another content type", "PUT", "/api/v1/roles", answer(200, "text/plain", &role())),
            ("another code", "PUT", "/api/v1/roles", problem(404, "field_not_found")),
            ("no request id", "PUT", "/api/v1/roles", anonymous),
            ("no header", "PUT", "/api/v1/roles", problem(503, "unavailable")),
            ("a body where there is none", "DELETE", "/api/v1/roles", answer(204, "application/json", &role())),
            ("a route that is not there", "GET", "/api/v1/nothing", answer(200, "application/json", &role())),
            ("a method that is not there", "PATCH", "/api/v1/roles", answer(200, "application/json", &role())),
        ] {
            assert!(difference(method, path, &answer).is_err(), "{name}");
        }
    }
}
