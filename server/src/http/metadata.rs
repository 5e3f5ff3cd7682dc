//! `/api/v1/secret/metadata`, `alias`, `destroy`, `purge`, `rename`, `copy`, `move`.

use super::{
    answer::{json, none, one, with_tag},
    body::JsonBody,
    caller::Authenticated,
    document::errors,
    precondition::{if_revision, precondition_or},
    problem::Refusal,
    query::Parameters,
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::secrets as operations,
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use strongroom_api::{
    ErrorCode,
    metadata::{Changed, Copy, Destroy, Metadata, Move, PatchMetadata, Placed, Purge, PutAlias, Rename, Target},
    routes,
};
use strongroom_core::{AliasName, SecretPath, VersionSelector};
use utoipa::IntoParams;

type Server = State<Arc<App>>;

errors! {
    ReadErrors: Forbidden, NotFound, ProjectShredded;
    PatchErrors: Forbidden, NotFound, DeletionProtected, ProjectShredded, RevisionConflict, UnprocessableContent;
    PointAliasErrors:
        BadPath, Forbidden, NotFound, SecretDeleted, VersionDeleted, VersionDestroyed, ProjectShredded, VersionConflict, PreconditionRequired,
        UnprocessableContent;
    RemoveAliasErrors: BadPath, Forbidden, NotFound, SecretDeleted, ProjectShredded, VersionConflict, PreconditionRequired, UnprocessableContent;
    DestroyVersionsErrors: Forbidden, NotFound, VersionInUse, DeletionProtected, ProjectShredded, UnprocessableContent;
    PurgeSecretErrors: Forbidden, NotFound, DeletionProtected, ProjectShredded;
    PlaceErrors:
        Forbidden, NotFound, SecretDeleted, SecretExpired, AlreadyExists, DeletionProtected, ProjectFull, ProjectShredded, UnprocessableContent;
}

/// `?path=`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Path {
    /// Which secret.
    path: SecretPath,
}

/// `?path=&alias=`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Alias {
    /// Which secret.
    path: SecretPath,
    /// `current`, `pending` or a free name.
    #[param(value_type = AliasName)]
    alias: String,
}

/// Shows metadata.
#[utoipa::path(get, path = routes::SECRET_METADATA, operation_id = "read_metadata", tag = "secrets",
    params(Path),
    responses((status = OK, description = "What is known of it.", body = Metadata, headers(("etag" = String))), ReadErrors))]
pub(super) async fn metadata(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Path { path }): Parameters<Path>,
) -> Result<Response, Refusal> {
    let outcome = operations::metadata(&app, &caller, &path).await;
    tagged(&caller, outcome.map(|metadata| (metadata.revision, metadata)))
}

/// Changes metadata.
#[utoipa::path(patch, path = routes::SECRET_METADATA, operation_id = "patch_metadata", tag = "secrets",
    params(Path, ("if-match" = Option<String>, Header, description = "Only at this revision: its ETag.", pattern = "^\"r[1-9][0-9]*\"$")), request_body(content((PatchMetadata = "application/json"), (PatchMetadata = "application/merge-patch+json"))),
    responses((status = OK, description = "It is changed, or was so already.", body = Changed, headers(("etag" = String))), PatchErrors))]
pub(super) async fn patch_metadata(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Path { path }): Parameters<Path>,
    headers: HeaderMap,
    JsonBody(patch): JsonBody<PatchMetadata>,
) -> Result<Response, Refusal> {
    let if_revision = if_revision(&headers, caller.origin.request_id)?;
    changed(&caller, operations::patch_metadata(&app, &caller, &path, &patch, if_revision).await)
}

/// Points an alias at a version.
#[utoipa::path(put, path = routes::SECRET_ALIAS, operation_id = "put_alias", tag = "secrets",
    params(Alias, ("if-match" = Option<String>, Header, description = "Only if this version is current: its number in quotes.", pattern = "^\"[1-9][0-9]*\"$")), request_body = PutAlias,
    responses((status = OK, description = "It points there.", body = Changed, headers(("etag" = String))), PointAliasErrors))]
pub(super) async fn put_alias(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Alias { path, alias }): Parameters<Alias>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<PutAlias>,
) -> Result<Response, Refusal> {
    let precondition = precondition_or(&headers, body.if_version, caller.origin.request_id)?;
    let alias = selector(&caller, "alias", &alias)?;
    let target = match body.version {
        Target::Number(number) => VersionSelector::Number(number),
        Target::Alias(name) => selector(&caller, "version", &name)?,
    };
    changed(&caller, operations::point_alias(&app, &caller, &path, &alias, &target, precondition).await)
}

/// Removes an alias.
#[utoipa::path(delete, path = routes::SECRET_ALIAS, operation_id = "delete_alias", tag = "secrets",
    params(Alias, ("if-match" = Option<String>, Header, description = "Only if this version is current: its number in quotes.", pattern = "^\"[1-9][0-9]*\"$")),
    responses((status = OK, description = "It is removed.", body = Changed, headers(("etag" = String))), RemoveAliasErrors))]
pub(super) async fn delete_alias(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Alias { path, alias }): Parameters<Alias>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let precondition = precondition_or(&headers, None, caller.origin.request_id)?;
    let alias = selector(&caller, "alias", &alias)?;
    changed(&caller, operations::remove_alias(&app, &caller, &path, &alias, precondition).await)
}

/// Destroys versions.
#[utoipa::path(post, path = routes::SECRET_DESTROY, operation_id = "destroy_versions", tag = "secrets",
    request_body = Destroy,
    responses((status = NO_CONTENT, description = "They are destroyed."), DestroyVersionsErrors))]
pub(super) async fn destroy(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(body): JsonBody<Destroy>,
) -> Result<StatusCode, Refusal> {
    none(&caller, operations::destroy(&app, &caller, &body.path, &body.versions).await)
}

/// Removes a secret for good.
#[utoipa::path(post, path = routes::SECRET_PURGE, operation_id = "purge_secret", tag = "secrets",
    request_body = Purge,
    responses((status = NO_CONTENT, description = "It is removed."), PurgeSecretErrors))]
pub(super) async fn purge(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(body): JsonBody<Purge>,
) -> Result<StatusCode, Refusal> {
    none(&caller, operations::purge(&app, &caller, &body.path).await)
}

/// Gives a secret another path.
#[utoipa::path(post, path = routes::SECRET_RENAME, operation_id = "rename_secret", tag = "secrets",
    request_body = Rename,
    responses((status = OK, description = "Where it lies now.", body = Placed), PlaceErrors))]
pub(super) async fn rename(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(body): JsonBody<Rename>,
) -> Result<Response, Refusal> {
    one(&caller, operations::rename(&app, &caller, &body).await)
}

/// Copies a secret.
#[utoipa::path(post, path = routes::SECRET_COPY, operation_id = "copy_secret", tag = "secrets",
    request_body = Copy,
    responses((status = OK, description = "Where the copy lies.", body = Placed), PlaceErrors))]
pub(super) async fn copy(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(body): JsonBody<Copy>,
) -> Result<Response, Refusal> {
    one(&caller, operations::copy(&app, &caller, &body).await)
}

/// Moves a secret to another project.
#[utoipa::path(post, path = routes::SECRET_MOVE, operation_id = "move_secret", tag = "secrets",
    request_body = Move,
    responses((status = OK, description = "Where it lies now.", body = Placed), PlaceErrors))]
pub(super) async fn move_to(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(body): JsonBody<Move>,
) -> Result<Response, Refusal> {
    one(&caller, operations::move_to(&app, &caller, &body).await)
}

fn changed(caller: &Caller, outcome: Result<Changed, Failure>) -> Result<Response, Refusal> {
    tagged(caller, outcome.map(|changed| (changed.revision, changed)))
}

/// A body with the revision as its tag.
fn tagged(caller: &Caller, outcome: Result<(u64, impl Serialize), Failure>) -> Result<Response, Refusal> {
    let (revision, body) = outcome.map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    Ok(with_tag(json(caller.origin, &body)?, &format!("r{revision}")))
}

fn selector(caller: &Caller, what: &str, text: &str) -> Result<VersionSelector, Refusal> {
    VersionSelector::parse(text)
        .map_err(|error| Refusal::new(ErrorCode::BadPath, Some(format!("{what}: {error}")), caller.origin.request_id))
}
