//! `/api/v1/keys` and `/api/v1/projects/shred`.

use super::{
    answer::{none, one},
    body::JsonBody,
    caller::Authenticated,
    document::errors,
    problem::Refusal,
};
use crate::{
    app::App,
    operations::{keys, shred},
};
use axum::{extract::State, http::StatusCode, response::Response};
use std::sync::Arc;
use strongroom_api::{
    keys::{ConfirmScope, DestroyTerm, Keys, Rotate, Rotation, ShredProject},
    routes,
};

type Server = State<Arc<App>>;

errors! {
    StatusErrors: Forbidden;
    RotateErrors: Forbidden, NotFound, ProjectShredded, AlreadyExists, NotNow, UnprocessableContent;
    DestroyErrors: Forbidden, NotFound, NotNow, UnprocessableContent;
    ConfirmErrors: Forbidden, NotFound, NotNow, UnprocessableContent;
    ShredErrors: Forbidden, NotFound, ProjectShredded, NotNow, DeletionProtected, UnprocessableContent;
}

/// Shows what there is.
#[utoipa::path(get, path = routes::KEYS, operation_id = "read_keys", tag = "keys",
    responses((status = OK, description = "Terms, keys, what uses them, and rotations.", body = Keys), StatusErrors))]
pub(super) async fn status(State(app): Server, Authenticated(caller): Authenticated) -> Result<Response, Refusal> {
    one(&caller, keys::status(&app, &caller).await)
}

/// Asks for a rotation.
#[utoipa::path(post, path = routes::KEYS_ROTATE, operation_id = "rotate_keys", tag = "keys", request_body = Rotate,
    responses((status = OK, description = "It has begun; it goes on by itself.", body = Rotation), RotateErrors))]
pub(super) async fn rotate(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(rotate): JsonBody<Rotate>,
) -> Result<Response, Refusal> {
    one(&caller, keys::rotate(&app, &caller, rotate).await)
}

/// Destroys a term.
#[utoipa::path(post, path = routes::KEYS_DESTROY, operation_id = "destroy_term", tag = "keys", request_body = DestroyTerm,
    responses((status = NO_CONTENT, description = "It is destroyed."), DestroyErrors))]
pub(super) async fn destroy_term(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(DestroyTerm { term }): JsonBody<DestroyTerm>,
) -> Result<StatusCode, Refusal> {
    none(&caller, keys::destroy_term(&app, &caller, term).await)
}

/// Confirms a scope.
#[utoipa::path(post, path = routes::KEYS_CONFIRM, operation_id = "confirm_scope", tag = "keys", request_body = ConfirmScope,
    responses((status = NO_CONTENT, description = "It is confirmed."), ConfirmErrors))]
pub(super) async fn confirm_scope(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(confirm): JsonBody<ConfirmScope>,
) -> Result<StatusCode, Refusal> {
    none(&caller, keys::confirm_scope(&app, &caller, confirm).await)
}

/// Shreds a project.
#[utoipa::path(post, path = routes::PROJECTS_SHRED, operation_id = "shred_project", tag = "keys", request_body = ShredProject,
    responses((status = NO_CONTENT, description = "Its keys are destroyed; what is left of it is being removed."), ShredErrors))]
pub(super) async fn shred_project(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(shred): JsonBody<ShredProject>,
) -> Result<StatusCode, Refusal> {
    none(&caller, shred::shred_project(&app, &caller, shred).await)
}
