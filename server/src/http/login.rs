//! `/api/v1/login`, `/api/v1/session`.

use super::{answer::json, body::JsonBody, caller::Authenticated, document::errors, problem::Refusal};
use crate::{
    app::{App, Origin},
    operations::login as operations,
};
use axum::{Extension, extract::State, response::Response};
use std::sync::Arc;
use strongroom_api::{
    login::{Login, Session, WhoAmI},
    routes,
};
use strongroom_core::{Action, Decision};

errors! {
    Errors: Unauthenticated, Forbidden, UnprocessableContent, Integrity, AuditUnavailable;
}

/// Exchanges a service account token for a session.
#[utoipa::path(post, path = routes::LOGIN, operation_id = "login", tag = "login",
    request_body = Login,
    responses((status = OK, description = "The session.", body = Session), Errors))]
pub(super) async fn login(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    JsonBody(body): JsonBody<Login>,
) -> Result<Response, Refusal> {
    let session =
        operations::login(&app, origin, body).await.map_err(|failure| Refusal::from_failure(failure, origin))?;
    json(origin, &session)
}

/// Says who the caller is.
#[utoipa::path(get, path = routes::SESSION, operation_id = "who_am_i", tag = "login",
    responses((status = OK, description = "Whom the server takes the caller for.", body = WhoAmI)))]
pub(super) async fn who_am_i(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
) -> Result<Response, Refusal> {
    let event = app.event(caller.origin, Some(caller.identity.clone()), Action::WhoAmI, Decision::Allowed, "ok");
    app.audit.commit(event).await.map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    let body = WhoAmI {
        principal: caller.identity.principal(),
        expires_at: caller.expires_at,
        role: caller.role.map(|role| role.to_string()),
        instance: app.instance.name.clone(),
    };
    json(caller.origin, &body)
}
