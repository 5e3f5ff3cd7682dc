//! `/api/v1/login`, `/api/v1/session`.

use super::{answer::json, body::JsonBody, caller::Authenticated, problem::Refusal};
use crate::{
    app::{App, Origin},
    operations::login as operations,
};
use axum::{Extension, extract::State, response::Response};
use std::sync::Arc;
use strongroom_api::login::{Login, WhoAmI};
use strongroom_core::{Action, Decision};

/// Exchanges a service account token for a session.
pub(super) async fn login(
    State(app): State<Arc<App>>,
    Extension(origin): Extension<Origin>,
    JsonBody(body): JsonBody<Login>,
) -> Result<Response, Refusal> {
    let session =
        operations::login(&app, origin, body).await.map_err(|failure| Refusal::from_failure(failure, origin))?;
    Ok(json(&session))
}

/// Says who the caller is.
pub(super) async fn who_am_i(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
) -> Result<Response, Refusal> {
    let event = app.event(caller.origin, Some(caller.identity.clone()), Action::WhoAmI, Decision::Allowed, "ok");
    app.audit.commit(event).await.map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    Ok(json(&WhoAmI {
        principal: caller.identity.principal(),
        expires_at: caller.expires_at,
        role: caller.role.map(|role| role.to_string()),
        instance: app.instance.name.clone(),
    }))
}
