//! `/api/v1/secret`, `/api/v1/secret/versions`, `/api/v1/secrets`.

use super::{body::JsonBody, caller::Authenticated, document::errors, problem::Refusal, query::Parameters};
use crate::{
    app::App,
    operations::secrets::{self as operations, Precondition},
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
    ErrorCode, routes,
    secrets::{PutResult, PutSecret, SecretList, SecretValue, SecretVersions},
};
use strongroom_core::{FieldName, FolderPath, SecretPath, VersionSelector};
use utoipa::IntoParams;
use uuid::Uuid;

errors! {
    Read: BadPath, Forbidden, NotFound, SecretDeleted, FieldNotFound, ProjectShredded;
    Put: Forbidden, NotFound, ProjectShredded, VersionConflict, UnprocessableContent;
    Delete: Forbidden, NotFound, SecretDeleted, ProjectShredded, VersionConflict;
    Versions: Forbidden, NotFound, ProjectShredded;
    List: Forbidden, NotFound, ProjectShredded, UnprocessableContent;
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

/// `?folder=[&cursor=][&limit=]`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// What to list, with everything below it.
    folder: FolderPath,
    /// Where the page starts: the page before it says so.
    cursor: Option<SecretPath>,
    /// Most entries, 1 to 1,000; 100 without one. What lies outside is taken as the nearest.
    limit: Option<u32>,
}

/// Releases a value.
#[utoipa::path(get, path = routes::SECRET, operation_id = "read_secret", tag = "secrets",
    params(Which),
    responses((status = OK, description = "The value.", body = SecretValue, headers(("etag" = String))), Read))]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(which): Parameters<Which>,
) -> Result<Response, Refusal> {
    let selector = match which.version.as_deref() {
        None => VersionSelector::Current,
        Some(text) => VersionSelector::parse(text)
            .map_err(|error| bad_path(format!("version: {error}"), caller.origin.request_id))?,
    };
    let read = operations::read(&app, &caller, &which.path, &selector, which.field.as_ref())
        .await
        .map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    let body = SecretValue::expose_payload(which.path, read.version, read.created_at, read.payload);
    Ok(with_tag(json(&body), read.version))
}

/// Puts a version.
#[utoipa::path(put, path = routes::SECRET, operation_id = "put_secret", tag = "secrets",
    params(Path, ("if-match" = Option<String>, Header, description = "Only if this version is current: its number in quotes.", pattern = "^\"[1-9][0-9]*\"$"),
        ("if-none-match" = Option<String>, Header, description = "Only if there is no current version: `*`.", pattern = "^[*]$")), request_body = PutSecret,
    responses((status = OK, description = "The new version.", body = PutResult, headers(("etag" = String))), Put))]
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
    let result = operations::put(&app, &caller, &path, &payload, reason, precondition)
        .await
        .map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    Ok(with_tag(json(&result), result.version))
}

/// Deletes a secret.
#[utoipa::path(delete, path = routes::SECRET, operation_id = "delete_secret", tag = "secrets",
    params(Path, ("if-match" = Option<String>, Header, description = "Only if this version is current: its number in quotes.", pattern = "^\"[1-9][0-9]*\"$"),
        ("if-none-match" = Option<String>, Header, description = "Only if there is no current version: `*`.", pattern = "^[*]$")),
    responses((status = NO_CONTENT, description = "It is deleted."), Delete))]
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
#[utoipa::path(get, path = routes::SECRET_VERSIONS, operation_id = "list_versions", tag = "secrets",
    params(Path),
    responses((status = OK, description = "The newest first.", body = SecretVersions), Versions))]
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

/// Lists a folder.
#[utoipa::path(get, path = routes::SECRETS, operation_id = "list_secrets", tag = "secrets",
    params(Page),
    responses((status = OK, description = "One page.", body = SecretList), List))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Refusal> {
    let list = operations::list(&app, &caller, &page.folder, page.cursor.as_ref(), page.limit.unwrap_or(100))
        .await
        .map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    Ok(json(&list))
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

/// `If-Match: "7"`, `If-None-Match: *`, or neither.
fn precondition(headers: &HeaderMap, request_id: Uuid) -> Result<Precondition, Refusal> {
    let bad = |detail: &str| Refusal::new(ErrorCode::BadRequest, Some(detail.to_owned()), request_id);
    match (headers.get(header::IF_MATCH), headers.get(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (None, Some(value)) if value == "*" => Ok(Precondition::Absent),
        (None, Some(_)) => Err(bad("if-none-match: only * is known here")),
        (Some(value), None) => value
            .to_str()
            .ok()
            .and_then(|text| text.strip_prefix('"')?.strip_suffix('"')?.parse().ok())
            .filter(|version| *version > 0)
            .map(Precondition::Current)
            .ok_or_else(|| bad("if-match: a version's number in quotes")),
        (Some(_), Some(_)) => Err(bad("if-match and if-none-match exclude each other")),
    }
}

fn bad_path(detail: String, request_id: Uuid) -> Refusal {
    Refusal::new(ErrorCode::BadPath, Some(detail), request_id)
}
