//! `/api/v1/secret/metadata`, `alias`, `destroy`, `purge`, `rename`, `copy`, `move`.

use super::{
    answer::{json, none, one, with_tag},
    body::JsonBody,
    caller::Authenticated,
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
use serde::Deserialize;
use std::sync::Arc;
use strongroom_api::{
    ErrorCode,
    metadata::{Copy, Destroy, Metadata, Move, PatchMetadata, Purge, PutAlias, Rename, Target},
};
use strongroom_core::{SecretPath, VersionSelector};

type Server = State<Arc<App>>;

/// `?path=`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Path {
    path: SecretPath,
}

/// `?path=&alias=`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alias {
    path: SecretPath,
    alias: String,
}

/// Shows metadata.
pub(super) async fn metadata(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Path { path }): Parameters<Path>,
) -> Result<Response, Refusal> {
    shown(&caller, operations::metadata(&app, &caller, &path).await)
}

/// Changes metadata.
pub(super) async fn patch_metadata(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Path { path }): Parameters<Path>,
    headers: HeaderMap,
    JsonBody(patch): JsonBody<PatchMetadata>,
) -> Result<Response, Refusal> {
    let if_revision = if_revision(&headers, caller.origin.request_id)?;
    shown(&caller, operations::patch_metadata(&app, &caller, &path, &patch, if_revision).await)
}

/// Points an alias at a version.
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
    one(&caller, operations::point_alias(&app, &caller, &path, &alias, &target, precondition).await)
}

/// Removes an alias.
pub(super) async fn delete_alias(
    State(app): Server,
    Authenticated(caller): Authenticated,
    Parameters(Alias { path, alias }): Parameters<Alias>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let precondition = precondition_or(&headers, None, caller.origin.request_id)?;
    let alias = selector(&caller, "alias", &alias)?;
    one(&caller, operations::remove_alias(&app, &caller, &path, &alias, precondition).await)
}

/// Destroys versions.
pub(super) async fn destroy(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(body): JsonBody<Destroy>,
) -> Result<StatusCode, Refusal> {
    none(&caller, operations::destroy(&app, &caller, &body.path, &body.versions).await)
}

/// Removes a secret for good.
pub(super) async fn purge(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(body): JsonBody<Purge>,
) -> Result<StatusCode, Refusal> {
    none(&caller, operations::purge(&app, &caller, &body.path).await)
}

/// Gives a secret another path.
pub(super) async fn rename(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(body): JsonBody<Rename>,
) -> Result<Response, Refusal> {
    one(&caller, operations::rename(&app, &caller, &body).await)
}

/// Copies a secret.
pub(super) async fn copy(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(body): JsonBody<Copy>,
) -> Result<Response, Refusal> {
    one(&caller, operations::copy(&app, &caller, &body).await)
}

/// Moves a secret to another project.
pub(super) async fn move_to(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(body): JsonBody<Move>,
) -> Result<Response, Refusal> {
    one(&caller, operations::move_to(&app, &caller, &body).await)
}

fn shown(caller: &Caller, outcome: Result<Metadata, Failure>) -> Result<Response, Refusal> {
    let metadata = outcome.map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    Ok(with_tag(json(&metadata), &format!("r{}", metadata.revision)))
}

fn selector(caller: &Caller, what: &str, text: &str) -> Result<VersionSelector, Refusal> {
    VersionSelector::parse(text)
        .map_err(|error| Refusal::new(ErrorCode::BadPath, Some(format!("{what}: {error}")), caller.origin.request_id))
}
