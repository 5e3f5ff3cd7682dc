//! `/api/v1/secret`, `/api/v1/secret/versions`, `undelete` and `generate`.

use super::{
    answer::{json, none, one, with_tag},
    body::JsonBody,
    caller::Authenticated,
    document::errors,
    precondition::{known_version, precondition},
    problem::Refusal,
    query::Parameters,
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::secrets::{self as operations, Patch, Put, ReadOutcome},
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
    routes,
    secrets::{PatchSecret, PutResult, PutSecret, SecretValue, SecretVersions},
};
use strongroom_core::{FieldName, SecretPath, VersionSelector};
use utoipa::IntoParams;
use uuid::Uuid;

errors! {
    ReadErrors: BadPath, Forbidden, NotFound, SecretDeleted, SecretExpired, VersionDeleted, VersionDestroyed, FieldNotFound, ProjectShredded;
    PutErrors: Forbidden, NotFound, ProjectShredded, ProjectFull, VersionConflict, PreconditionRequired, UnprocessableContent;
    ChangeErrors: Forbidden, NotFound, SecretDeleted, SecretExpired, ProjectShredded, ProjectFull, VersionConflict, PreconditionRequired, UnprocessableContent;
    DeleteErrors:
        Forbidden, NotFound, SecretDeleted, VersionDeleted, VersionDestroyed, VersionInUse, DeletionProtected, ProjectShredded, VersionConflict;
    UndeleteErrors: Forbidden, NotFound, SecretDeleted, VersionDestroyed, ProjectShredded, VersionConflict;
    VersionsErrors: Forbidden, NotFound, ProjectShredded;
}

/// `?path=[&version=][&field=]`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Which secret.
    path: SecretPath,
    /// A version's number from 1, `current`, `previous`, `pending` or a free alias; `current` without one.
    #[param(value_type = Option<VersionSelector>)]
    version: Option<String>,
    /// One field of it.
    field: Option<FieldName>,
}

/// `?path=`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Path {
    /// Which secret.
    path: SecretPath,
}

/// `?path=[&version=]`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PathAndVersion {
    /// Which secret.
    path: SecretPath,
    /// Only this version of it.
    version: Option<u64>,
}

/// `?path=[&before=][&limit=]`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionsPage {
    /// Which secret.
    path: SecretPath,
    /// Only versions below this number.
    before: Option<u64>,
    /// Most entries; 100 without one. What is too large or zero is taken as the nearest that can be.
    #[param(format = "uint32")]
    limit: Option<u32>,
}

/// Releases a value.
#[utoipa::path(get, path = routes::SECRET, operation_id = "read_secret", tag = "secrets",
    params(Which, ("if-none-match" = Option<String>, Header, description = "A version that is held already: its number in quotes.", pattern = "^\"[1-9][0-9]*\"$")),
    responses((status = OK, description = "The value.", body = SecretValue, headers(("etag" = String))),
        (status = NOT_MODIFIED, description = "The version that is held is the one asked for.", headers(("etag" = String))), ReadErrors))]
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
    let body =
        SecretValue::expose_payload(which.path, read.version, read.created_at, read.payload).at_revision(read.revision);
    Ok(with_tag(json(caller.origin, &body)?, &read.version.to_string()))
}

/// Puts a version.
#[utoipa::path(put, path = routes::SECRET, operation_id = "put_secret", tag = "secrets",
    params(Path, ("if-match" = Option<String>, Header, description = "Only if this version is current: its number in quotes.", pattern = "^\"[1-9][0-9]*\"$"),
        ("if-none-match" = Option<String>, Header, description = "Only if there is no current version: `*`.", pattern = "^[*]$")), request_body = PutSecret,
    responses((status = OK, description = "The new version.", body = PutResult, headers(("etag" = String))), PutErrors))]
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
    let put = Put {
        payload: &payload,
        reason: body.reason,
        precondition,
        activate: body.activate,
        expires_at: body.expires_at,
        labels: body.labels,
        owner: body.owner,
    };
    tagged(&caller, operations::put(&app, &caller, &path, put).await)
}

/// Puts a version made of the current one's fields and others.
#[utoipa::path(patch, path = routes::SECRET, operation_id = "patch_secret", tag = "secrets",
    params(Path, ("if-match" = Option<String>, Header, description = "Only if this version is current: its number in quotes.", pattern = "^\"[1-9][0-9]*\"$"),
        ("if-none-match" = Option<String>, Header, description = "Only if there is no current version: `*`.", pattern = "^[*]$")), request_body(content((PatchSecret = "application/json"), (PatchSecret = "application/merge-patch+json"))),
    responses((status = OK, description = "The new version.", body = PutResult, headers(("etag" = String))), ChangeErrors))]
pub(super) async fn patch(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(Path { path }): Parameters<Path>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<PatchSecret>,
) -> Result<Response, Refusal> {
    let precondition = precondition(&headers, caller.origin.request_id)?;
    let changes = body.fields.into_iter().map(|(name, text)| (name, text.map(SecretText::into_bytes))).collect();
    let patch = Patch { changes, reason: body.reason, precondition, activate: true, expires_at: body.expires_at };
    tagged(&caller, operations::patch(&app, &caller, &path, patch).await)
}

/// Puts a version that the server makes.
#[utoipa::path(post, path = routes::SECRET_GENERATE, operation_id = "generate_secret", tag = "secrets",
    params(Path, ("if-match" = Option<String>, Header, description = "Only if this version is current: its number in quotes.", pattern = "^\"[1-9][0-9]*\"$"),
        ("if-none-match" = Option<String>, Header, description = "Only if there is no current version: `*`.", pattern = "^[*]$")), request_body = Generate,
    responses((status = OK, description = "The new version.", body = PutResult, headers(("etag" = String))), ChangeErrors))]
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
#[utoipa::path(delete, path = routes::SECRET, operation_id = "delete_secret", tag = "secrets",
    params(PathAndVersion, ("if-match" = Option<String>, Header, description = "Only if this version is current: its number in quotes.", pattern = "^\"[1-9][0-9]*\"$"),
        ("if-none-match" = Option<String>, Header, description = "Only if there is no current version: `*`.", pattern = "^[*]$")),
    responses((status = NO_CONTENT, description = "It is deleted."), DeleteErrors))]
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
#[utoipa::path(post, path = routes::SECRET_UNDELETE, operation_id = "undelete_secret", tag = "secrets",
    params(PathAndVersion, ("if-match" = Option<String>, Header, description = "Only if `current` points at this version, of a deleted secret too: its number in quotes.", pattern = "^\"[1-9][0-9]*\"$"),
        ("if-none-match" = Option<String>, Header, description = "Only if there is no current version: `*`.", pattern = "^[*]$")),
    responses((status = NO_CONTENT, description = "It is back."), UndeleteErrors))]
pub(super) async fn undelete(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(PathAndVersion { path, version }): Parameters<PathAndVersion>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let precondition = precondition(&headers, caller.origin.request_id)?;
    none(&caller, operations::undelete(&app, &caller, &path, version, precondition).await)
}

/// Lists a secret's versions.
#[utoipa::path(get, path = routes::SECRET_VERSIONS, operation_id = "list_versions", tag = "secrets",
    params(VersionsPage),
    responses((status = OK, description = "The newest first.", body = SecretVersions), VersionsErrors))]
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
    Ok(with_tag(json(caller.origin, &result)?, &result.version.to_string()))
}

fn bad_path(detail: String, request_id: Uuid) -> Refusal {
    Refusal::new(ErrorCode::BadPath, Some(detail), request_id)
}
