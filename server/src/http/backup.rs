//! `/api/v1/backup`, `/api/v1/deliveries/newer`, `/api/v1/secret/advance`.

use super::{body::JsonBody, caller::Authenticated, document::errors, problem::Refusal, query::Parameters};
use crate::{
    app::App,
    operations::{backup, deliveries, secrets},
};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::Response,
};
use futures_util::stream;
use serde::Deserialize;
use std::sync::Arc;
use strongroom_api::{
    backup::{Advance, Advanced, MEDIA_TYPE, NewerDeliveries},
    routes,
};

errors! {
    TakeErrors: Forbidden;
    NewerErrors: Forbidden;
    AdvanceErrors: Forbidden, NotFound, ProjectShredded, UnprocessableContent;
}

/// No parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Streams a backup.
#[utoipa::path(get, path = routes::BACKUP, operation_id = "take_backup", tag = "service",
    responses((status = OK, description = "Every row, sealed as it is, one JSON object a line; without its last line it was cut off.",
        content_type = "application/vnd.strongroom.backup+jsonl", body = String), TakeErrors))]
pub(super) async fn take(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(Nothing {}): Parameters<Nothing>,
) -> Result<Response, Refusal> {
    let origin = caller.origin;
    let pieces = backup::begin(app, caller).await.map_err(|failure| Refusal::from_failure(failure, origin))?;
    let body = stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    Ok(response)
}

/// The pods that hold versions which the database has not given out.
#[utoipa::path(get, path = routes::NEWER_DELIVERIES, operation_id = "newer_deliveries", tag = "service",
    responses((status = OK, description = "By path and pod.", body = NewerDeliveries), NewerErrors))]
pub(super) async fn newer_deliveries(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    Parameters(Nothing {}): Parameters<Nothing>,
) -> Result<Json<NewerDeliveries>, Refusal> {
    let newer = deliveries::newer(&app, &caller).await;
    newer.map(Json).map_err(|failure| Refusal::from_failure(failure, caller.origin))
}

/// Has the next put of a secret get a number that no pod has seen.
#[utoipa::path(post, path = routes::SECRET_ADVANCE, operation_id = "advance_version", tag = "secrets",
    request_body = Advance,
    responses((status = OK, description = "The highest number given out now.", body = Advanced), AdvanceErrors))]
pub(super) async fn advance(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    JsonBody(advance): JsonBody<Advance>,
) -> Result<Json<Advanced>, Refusal> {
    let advanced = secrets::advance(&app, &caller, &advance.path, advance.latest_version).await;
    advanced.map(Json).map_err(|failure| Refusal::from_failure(failure, caller.origin))
}
