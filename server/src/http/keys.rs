//! `/api/v1/keys` and `/api/v1/projects/shred`.

use super::{
    access::{none, one},
    body::JsonBody,
    caller::Authenticated,
    problem::Refusal,
};
use crate::{
    app::App,
    operations::{keys, shred},
};
use axum::{extract::State, http::StatusCode, response::Response};
use std::sync::Arc;
use strongroom_api::keys::{ConfirmScope, DestroyTerm, Rotate, ShredProject};

type Server = State<Arc<App>>;

/// Shows what there is.
pub(super) async fn status(State(app): Server, Authenticated(caller): Authenticated) -> Result<Response, Refusal> {
    one(&caller, keys::status(&app, &caller).await)
}

/// Asks for a rotation.
pub(super) async fn rotate(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(rotate): JsonBody<Rotate>,
) -> Result<Response, Refusal> {
    one(&caller, keys::rotate(&app, &caller, rotate).await)
}

/// Destroys a term.
pub(super) async fn destroy_term(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(DestroyTerm { term }): JsonBody<DestroyTerm>,
) -> Result<StatusCode, Refusal> {
    none(&caller, keys::destroy_term(&app, &caller, term).await)
}

/// Confirms a scope.
pub(super) async fn confirm_scope(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(confirm): JsonBody<ConfirmScope>,
) -> Result<StatusCode, Refusal> {
    none(&caller, keys::confirm_scope(&app, &caller, confirm).await)
}

/// Shreds a project.
pub(super) async fn shred_project(
    State(app): Server,
    Authenticated(caller): Authenticated,
    JsonBody(shred): JsonBody<ShredProject>,
) -> Result<StatusCode, Refusal> {
    none(&caller, shred::shred_project(&app, &caller, shred).await)
}
