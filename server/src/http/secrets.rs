//! `/api/v1/secret`, `/api/v1/secret/versions`, `undelete` and `generate`.

use super::{
    answer::{json, none, one, with_tag},
    body::JsonBody,
    caller::Authenticated,
    precondition::{known_version, precondition},
    problem::Refusal,
    query::Parameters,
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::secrets::{self as operations, Put, ReadOutcome},
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use std::sync::Arc;
use strongroom_api::{
    ErrorCode, SecretText,
    generate::Generate,
    secrets::{PatchSecret, PutResult, PutSecret, SecretValue},
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

/// `?path=[&version=]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PathAndVersion {
    path: SecretPath,
    version: Option<u64>,
}

/// `?path=[&before=][&limit=]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionsPage {
    path: SecretPath,
    before: Option<u64>,
    limit: Option<u32>,
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
        ReadOutcome::Unchanged(version) => {
            return Ok(with_tag(StatusCode::NOT_MODIFIED.into_response(), &version.to_string()));
        }
    };
    let body = SecretValue::expose_payload(which.path, read.version, read.revision, read.created_at, read.payload);
    Ok(with_tag(json(&body), &read.version.to_string()))
}

/// Puts a version.
pub(super) async fn put(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(Path { path }): Parameters<Path>,
    headers: HeaderMap,
    JsonBody(mut body): JsonBody<PutSecret>,
) -> Result<Response, Refusal> {
    let precondition = precondition(&headers, caller.origin.request_id)?;
    let payload = body.take_payload().map_err(|error| {
        Refusal::new(ErrorCode::UnprocessableContent, Some(error.to_string()), caller.origin.request_id)
    })?;
    let expires_at = operations::stored_expiry(body.expires_at);
    let put = Put { payload: &payload, reason: body.reason, precondition, activate: body.activate, expires_at };
    tagged(&caller, operations::put(&app, &caller, &path, put).await)
}

/// Puts a version made of the current one's fields and others.
pub(super) async fn patch(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(Path { path }): Parameters<Path>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<PatchSecret>,
) -> Result<Response, Refusal> {
    let precondition = precondition(&headers, caller.origin.request_id)?;
    let changes = body.fields.into_iter().map(|(name, text)| (name, text.map(SecretText::into_bytes))).collect();
    tagged(&caller, operations::patch(&app, &caller, &path, changes, body.reason, precondition).await)
}

/// Puts a version that the server makes.
pub(super) async fn generate(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(Path { path }): Parameters<Path>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Generate>,
) -> Result<Response, Refusal> {
    let precondition = precondition(&headers, caller.origin.request_id)?;
    tagged(&caller, operations::generate(&app, &caller, &path, body, precondition).await)
}

/// Deletes a secret, or one version of it.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(PathAndVersion { path, version }): Parameters<PathAndVersion>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let precondition = precondition(&headers, caller.origin.request_id)?;
    none(&caller, operations::delete(&app, &caller, &path, version, precondition).await)
}

/// Brings a secret back, or one version of it.
pub(super) async fn undelete(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(PathAndVersion { path, version }): Parameters<PathAndVersion>,
) -> Result<StatusCode, Refusal> {
    none(&caller, operations::undelete(&app, &caller, &path, version).await)
}

/// Lists a secret's versions.
pub(super) async fn versions(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(page): Parameters<VersionsPage>,
) -> Result<Response, Refusal> {
    let limit = page.limit.unwrap_or(100);
    one(&caller, operations::versions(&app, &caller, &page.path, page.before, limit).await)
}

/// An answer to a put, with the version as its tag.
fn tagged(caller: &Caller, outcome: Result<PutResult, Failure>) -> Result<Response, Refusal> {
    let result = outcome.map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    Ok(with_tag(json(&result), &result.version.to_string()))
}

fn bad_path(detail: String, request_id: Uuid) -> Refusal {
    Refusal::new(ErrorCode::BadPath, Some(detail), request_id)
}
