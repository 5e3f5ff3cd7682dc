//! `/api/v1/secret`, `/api/v1/secret/versions`.

use super::{body::JsonBody, caller::Authenticated, problem::Refusal, query::Parameters};
use crate::{
    app::App,
    operations::secrets::{self as operations, Precondition, Put, ReadOutcome},
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use strongroom_api::{
    ErrorCode,
    secrets::{PutSecret, SecretValue},
};
use strongroom_core::{FieldName, SecretPath, VersionSelector};
use uuid::Uuid;

/// `?path=[&version=][&field=]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    path: SecretPath,
    version: Option<String>,
    field: Option<FieldName>,
}

/// `?path=`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Path {
    path: SecretPath,
}

/// Releases a value.
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(which): Parameters<Which>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let known = known_version(&headers, caller.origin.request_id)?;
    let selector = match which.version.as_deref() {
        None => VersionSelector::Current,
        Some(text) => VersionSelector::parse(text)
            .map_err(|error| bad_path(format!("version: {error}"), caller.origin.request_id))?,
    };
    let read = operations::read(&app, &caller, &which.path, &selector, which.field.as_ref(), known)
        .await
        .map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    let read = match read {
        ReadOutcome::Released(read) => read,
        ReadOutcome::Unchanged(version) => return Ok(with_tag(StatusCode::NOT_MODIFIED.into_response(), version)),
    };
    let body = SecretValue::expose_payload(which.path, read.version, read.created_at, read.payload);
    Ok(with_tag(json(&body), read.version))
}

/// Puts a version.
pub(super) async fn put(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(Path { path }): Parameters<Path>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<PutSecret>,
) -> Result<Response, Refusal> {
    let precondition = precondition(&headers, caller.origin.request_id)?;
    let (payload, reason) = body.into_payload().map_err(|error| {
        Refusal::new(ErrorCode::UnprocessableContent, Some(error.to_string()), caller.origin.request_id)
    })?;
    let result = operations::put(&app, &caller, &path, Put { payload: &payload, reason, precondition })
        .await
        .map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    Ok(with_tag(json(&result), result.version))
}

/// Deletes a secret.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(Path { path }): Parameters<Path>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let precondition = precondition(&headers, caller.origin.request_id)?;
    operations::delete(&app, &caller, &path, precondition)
        .await
        .map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists a secret's versions.
pub(super) async fn versions(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(Path { path }): Parameters<Path>,
) -> Result<Response, Refusal> {
    let versions = operations::versions(&app, &caller, &path)
        .await
        .map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    Ok(json(&versions))
}

/// An answer as JSON.
pub(super) fn json(body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("answers are JSON");
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], Bytes::from(bytes)).into_response()
}

fn with_tag(mut response: Response, version: u64) -> Response {
    response
        .headers_mut()
        .insert(header::ETAG, HeaderValue::try_from(format!("\"{version}\"")).expect("digits in quotes are a header"));
    response
}

/// `If-None-Match: "7"`: the version that the caller has.
fn known_version(headers: &HeaderMap, request_id: Uuid) -> Result<Option<u64>, Refusal> {
    let mut values = headers.get_all(header::IF_NONE_MATCH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let version = if values.next().is_none() { version_of(value) } else { None };
    let bad = || {
        Refusal::new(ErrorCode::BadRequest, Some("if-none-match: one version's number in quotes".into()), request_id)
    };
    version.map(Some).ok_or_else(bad)
}

/// A version's number in quotes.
fn version_of(value: &HeaderValue) -> Option<u64> {
    let digits = value.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?;
    digits.parse().ok().filter(|version| *version > 0)
}

/// `If-Match: "7"`, `If-None-Match: *`, or neither.
fn precondition(headers: &HeaderMap, request_id: Uuid) -> Result<Precondition, Refusal> {
    let bad = |detail: &str| Refusal::new(ErrorCode::BadRequest, Some(detail.to_owned()), request_id);
    match (headers.get(header::IF_MATCH), headers.get(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (None, Some(value)) if value == "*" => Ok(Precondition::Absent),
        (None, Some(_)) => Err(bad("if-none-match: only * is known here")),
        (Some(value), None) => {
            version_of(value).map(Precondition::Current).ok_or_else(|| bad("if-match: a version's number in quotes"))
        }
        (Some(_), Some(_)) => Err(bad("if-match and if-none-match exclude each other")),
    }
}

fn bad_path(detail: String, request_id: Uuid) -> Refusal {
    Refusal::new(ErrorCode::BadPath, Some(detail), request_id)
}
