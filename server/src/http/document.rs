//! The OpenAPI document: made of the handlers' own descriptions, and of what follows for every operation from its form.
//!
//! A handler lists the codes that are its own ([`errors!`]); those that any request, any body, any query or any write can meet are added here, once.

use super::{OPEN, idempotency};
use crate::app::App;
use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};
use strongroom_api::{ErrorCode, Problem, routes};
use strongroom_core::{AliasName, FieldName, FolderPath, ProjectName, Scope, SecretPath, VersionSelector};
use utoipa::{
    OpenApi,
    openapi::{self, RefOr, extensions::Extensions},
};
use utoipa_axum::router::OpenApiRouter;

/// Where a response of the handlers' descriptions keeps its codes, until they become responses of the document.
const CODES: &str = "x-codes";

/// Names the error codes of operations: `errors! { ReadErrors: Forbidden, NotFound; }` makes a type for `responses(…, ReadErrors)`.
///
/// An operation names one such type, with the codes that its own work can end in. `document` adds the others.
macro_rules! errors {
    ($($name:ident: $($code:ident),+;)+) => {$(
        struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
                $crate::http::document::marked(&[$(strongroom_api::ErrorCode::$code),+])
            }
        }
    )+};
}
pub(super) use errors;

/// Responses that say no more than their codes.
pub(super) fn marked(codes: &[ErrorCode]) -> BTreeMap<String, RefOr<openapi::Response>> {
    let by_status = by_status(codes.iter().copied());
    let mark = |codes: &BTreeSet<&str>| {
        let extensions: Extensions = [(CODES, json!(codes))].into_iter().collect();
        openapi::Response::builder().extensions(Some(extensions)).build().into()
    };
    by_status.iter().map(|(status, codes)| (status.clone(), mark(codes))).collect()
}

/// The API's description, as OpenAPI 3.1.
#[utoipa::path(get, path = routes::OPENAPI, operation_id = "openapi", tag = "service",
    responses((status = OK, description = "The document.", body = Object)))]
pub(super) async fn document() -> Response {
    static BYTES: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(generated()));
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], BYTES.clone()).into_response()
}

/// The document's text: sorted, indented, the same in every build.
pub fn generated() -> String {
    let described = super::routes().into_openapi();
    let mut document = serde_json::to_value(described).expect("a document is JSON");
    finish(&mut document);
    serde_json::to_string_pretty(&sorted(document)).expect("a document is JSON") + "\n"
}

/// A router that begins with what belongs to no route.
pub(super) fn described() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Base::openapi())
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Strongroom",
        description = "Secrets for workloads. Secret paths travel in the query. Errors are RFC 9457 problems; programs decide by `code` alone. \
                       Answers may get new members, which clients ignore; requests with unknown members or parameters are refused.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(
        AliasName, ErrorCode, FieldName, FolderPath, Problem, ProjectName, Scope, SecretPath, VersionSelector,
        strongroom_api::watch::Change, strongroom_api::watch::End,
    )),
    tags(
        (name = "secrets", description = "Values and their versions."),
        (name = "login", description = "Credentials."),
        (name = "access", description = "Projects, clusters, roles, grants and policies: who may do what."),
        (name = "keys", description = "The instance's and projects' keys, made anew while the server serves."),
        (name = "service", description = "What looks after the server, and this document. Needs no credential."),
    ),
)]
struct Base;

/// Adds to each operation what follows from its form, and to the document the components that this needs.
fn finish(document: &mut Value) {
    // The server's version is not the API's, and tells a stranger what to try.
    document["info"]["version"] = json!("1");
    document["security"] = json!([{ "bearer": [] }]);
    let mut responses = Map::new();
    for (path, item) in members(&mut document["paths"]) {
        for (method, operation) in members(item) {
            let codes = codes(path, method, operation);
            if takes_key(path, method) {
                add_key(operation);
            }
            if OPEN.contains(&path.as_str()) {
                operation["security"] = json!([]);
            }
            add_headers(operation);
            for (status, codes) in by_status(codes) {
                let name = codes.iter().copied().collect::<Vec<_>>().join(".");
                let problem = problem(&status, &codes);
                match operation["responses"].get_mut(&status) {
                    // A status that is also an answer of the route's own: readyz.
                    Some(own) if own.get(CODES).is_none() => {
                        own["content"]["application/problem+json"] =
                            problem["content"]["application/problem+json"].clone();
                    }
                    _ => {
                        operation["responses"][&status] = json!({ "$ref": format!("#/components/responses/{name}") });
                        responses.insert(name, problem);
                    }
                }
            }
        }
    }
    document["components"]["responses"] = Value::Object(responses);
    document["components"]["headers"] = headers();
    document["components"]["securitySchemes"] = json!({ "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A session (`srs_…`, from login) or an issued token (`srt_…`).",
    }});
    without_null(document);
}

/// The codes an operation can answer: its own, and those of its form.
fn codes(path: &str, method: &str, operation: &Value) -> BTreeSet<ErrorCode> {
    use ErrorCode as Code;
    let own =
        operation["responses"].as_object().into_iter().flat_map(Map::values).filter_map(|r| r.get(CODES)?.as_array());
    let mut codes: BTreeSet<Code> =
        own.flatten().map(|code| serde_json::from_value(code.clone()).expect("written by marked()")).collect();
    codes.extend([Code::BadUrl, Code::Internal, Code::Unavailable]);
    if !OPEN.contains(&path) {
        codes.extend([Code::Unauthenticated, Code::Integrity, Code::AuditUnavailable]);
    }
    if takes_key(path, method) {
        codes.extend([Code::BadRequest, Code::IdempotencyInProgress, Code::IdempotencyKeyReused]);
    }
    if operation.get("requestBody").is_some() {
        codes.extend([Code::BadBody, Code::BodyTooLarge, Code::UnsupportedMediaType]);
    }
    if operation.get("parameters").is_some() {
        codes.insert(Code::BadRequest);
    }
    if method != "get" && ![routes::LOGIN, routes::WATCH].contains(&path) {
        codes.insert(Code::OutcomeUnknown);
    }
    codes
}

fn takes_key(path: &str, method: &str) -> bool {
    method != "get" && idempotency::ROUTES.contains(&path)
}

/// The header of writes that are done once, however often they are sent.
fn add_key(operation: &mut Value) {
    let parameter = json!({
        "in": "header",
        "name": idempotency::HEADER,
        "description": "A new one for each request: sent again with the same, it is not done again, and answered as the first time; for 24 hours.",
        "schema": { "type": "string", "pattern": "^(?:\"[!#-\\[\\]-~]{1,255}\"|[!#-\\[\\]-~]{1,255})$" },
    });
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.push(parameter),
        None => operation["parameters"] = json!([parameter]),
    }
}

/// Codes by their status, as the document writes it.
fn by_status(codes: impl IntoIterator<Item = ErrorCode>) -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut by_status = BTreeMap::<_, BTreeSet<_>>::new();
    for code in codes {
        by_status.entry(code.status().to_string()).or_default().insert(code.as_str());
    }
    by_status
}

/// The response of a status that has these codes.
fn problem(status: &str, codes: &BTreeSet<&'static str>) -> Value {
    let meanings = ErrorCode::ALL.iter().filter(|code| codes.contains(code.as_str()));
    let description = meanings.map(|code| format!("`{}`: {}", code.as_str(), code.meaning())).collect::<Vec<_>>();
    let mut problem = json!({
        "description": description.join(" "),
        "content": { "application/problem+json": { "schema": { "allOf": [
            { "$ref": "#/components/schemas/Problem" },
            { "properties": { "code": { "enum": codes } } },
        ]}}},
        "headers": { "x-request-id": { "$ref": "#/components/headers/x-request-id" } },
    });
    // As `Refusal` sends them.
    for (wanted, header) in [("401", "www-authenticate"), ("503", "retry-after")] {
        if status == wanted {
            problem["headers"][header] = json!({ "$ref": format!("#/components/headers/{header}") });
        }
    }
    problem
}

fn headers() -> Value {
    json!({
        "etag": {
            "description": "The version's number in quotes, or `r` and the metadata's revision: for `If-Match`.",
            "required": true,
            "schema": { "type": "string", "pattern": "^\"r?[1-9][0-9]*\"$" },
        },
        "retry-after": {
            "description": "Seconds to wait before the next try.",
            "required": true,
            "schema": { "type": "integer", "minimum": 1 },
        },
        "www-authenticate": {
            "description": "The scheme that is taken.",
            "required": true,
            "schema": { "type": "string", "enum": ["Bearer"] },
        },
        "x-request-id": {
            "description": "The id under which the request stands in the server's log and in the audit log.",
            "required": true,
            "schema": { "type": "string", "format": "uuid" },
        },
    })
}

/// The id that every answer has, and the whole description of headers that a handler names.
fn add_headers(operation: &mut Value) {
    for (_, response) in members(&mut operation["responses"]) {
        let named = response["headers"].as_object().into_iter().flat_map(Map::keys).cloned();
        let names: Vec<String> = named.chain(["x-request-id".to_owned()]).collect();
        response["headers"] = names
            .into_iter()
            .map(|name| (name.clone(), json!({ "$ref": format!("#/components/headers/{name}") })))
            .collect();
    }
}

/// Takes `null` out of the types of parameters and of the members of answers: both are left out where they are absent. What tolerates unknown members is
/// an answer; requests refuse them.
fn without_null(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let is_answer = !members.contains_key("additionalProperties");
            if let Some(properties) = members.get_mut("properties").and_then(Value::as_object_mut).filter(|_| is_answer)
            {
                properties.values_mut().for_each(forbid_null);
            }
            if members.contains_key("in")
                && let Some(schema) = members.get_mut("schema")
            {
                forbid_null(schema);
            }
            members.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

fn forbid_null(schema: &mut Value) {
    if let Some(types) = schema.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|name| name != "null");
        if let [only] = &mut types[..] {
            schema["type"] = only.take();
        }
    }
    if let Some(one_of) = schema.get_mut("oneOf").and_then(Value::as_array_mut) {
        one_of.retain(|one| one["type"] != "null");
        if let [only] = &mut one_of[..] {
            *schema = only.take();
        }
    }
}

fn members(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flat_map(Map::iter_mut)
}

/// With the members of every object in the order of their names, whatever features other crates give serde_json.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            Value::Object(members.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
