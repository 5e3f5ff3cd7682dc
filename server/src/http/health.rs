//! `/healthz`, `/readyz`, `/metrics`. None needs a credential; none says anything about secrets.

use crate::{app::App, metrics as names};
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use std::{sync::Arc, time::Duration};
use strongroom_api::routes;
use tokio::time::Instant;

/// The process answers.
#[utoipa::path(get, path = routes::HEALTHZ, operation_id = "healthz", tag = "service",
    responses((status = OK, description = "It does.", content_type = "text/plain", body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The database answers within a second, audit events can be written, and the server is not stopping. Asked at most once a second, whoever asks how often: it
/// needs no credential, and must not take connections from those who have one.
#[utoipa::path(get, path = routes::READYZ, operation_id = "readyz", tag = "service",
    responses((status = OK, description = "It can serve.", content_type = "text/plain", body = String), (status = SERVICE_UNAVAILABLE, description = "It cannot; the text says why.", content_type = "text/plain", body = String)))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    if *app.stop.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    let mut last = app.readiness.lock().await;
    let ready = match *last {
        Some((at, ready)) if at.elapsed() < Duration::from_secs(1) => ready,
        _ => {
            let ready = matches!(tokio::time::timeout(Duration::from_secs(1), app.store.ping()).await, Ok(Ok(())));
            *last = Some((Instant::now(), ready));
            ready
        }
    };
    match (ready, app.audit.is_healthy()) {
        (true, true) => (StatusCode::OK, "ok\n"),
        (true, false) => (StatusCode::SERVICE_UNAVAILABLE, "audit events cannot be written\n"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n"),
    }
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = routes::METRICS, operation_id = "metrics", tag = "service",
    responses((status = OK, description = "See docs/metrics.md.", content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let (open, idle) = app.store.connections();
    metrics::gauge!(names::DATABASE_CONNECTIONS, "state" => "open").set(f64::from(open));
    metrics::gauge!(names::DATABASE_CONNECTIONS, "state" => "idle")
        .set(u32::try_from(idle).map_or(f64::MAX, f64::from));
    let handle = names::handle();
    handle.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render()).into_response()
}
