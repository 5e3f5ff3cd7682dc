//! What every request passes before a handler sees it.

use super::{problem::Refusal, unread::Shared};
use crate::{
    app::{App, Origin},
    metrics as names,
};
use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderValue, Method, Uri, header},
    middleware::Next,
    response::Response,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use strongroom_api::{ErrorCode, routes};
use tokio::time::Instant;
use uuid::Uuid;

/// For everything but a watch, body included.
const REQUEST: Duration = Duration::from_secs(30);

/// Gives the request its id (ours, never the caller's), counts it, and finishes the answer.
pub(super) async fn identify(State(_): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let source = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let origin = Origin { request_id: Uuid::now_v7(), source };
    request.extensions_mut().insert(origin);
    let method = request.method().as_str().to_owned();
    let body = Shared::take(&mut request);
    let mut response = next.run(request).await;
    body.settle(&mut response).await;
    let headers = response.headers_mut();
    headers
        .insert("x-request-id", HeaderValue::try_from(origin.request_id.to_string()).expect("a UUID is visible ASCII"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    let route = response.extensions().get::<Route>().map_or("none", |route| route.0);
    let status = response.status().as_u16();
    let method = known_method(&method);
    metrics::counter!(names::REQUESTS, "route" => route, "method" => method, "status" => status.to_string())
        .increment(1);
    if route != routes::WATCH {
        metrics::histogram!(names::REQUEST_SECONDS, "route" => route).record(started.elapsed().as_secs_f64());
    }
    tracing::debug!(request_id = %origin.request_id, route, method, status, elapsed_us = started.elapsed().as_micros(), "request");
    response
}

/// Refuses URLs that two programs could read differently: encoded or doubled slashes, dots, backslashes, anything but plain ASCII.
pub(super) async fn check_url(request: Request, next: Next) -> Result<Response, Refusal> {
    let origin = *request.extensions().get::<Origin>().expect("identify() ran first");
    if !is_plain(request.uri()) {
        return Err(Refusal::new(ErrorCode::BadUrl, None, origin.request_id));
    }
    Ok(next.run(request).await)
}

/// Runs the handler in a task of its own, with a deadline: a client that goes away cancels nothing half-way, least of all a transaction. The tasks are counted,
/// because a client may send and leave.
pub(super) async fn detach(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Refusal> {
    let origin = *request.extensions().get::<Origin>().expect("identify() ran first");
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .and_then(|path| super::ROUTES.iter().map(|(route, _)| *route).find(|route| *route == path.as_str()));
    // Whoever looks after the server must see it when it is full, most of all then.
    let watched_over = route.is_some_and(|route| [routes::HEALTHZ, routes::READYZ, routes::METRICS].contains(&route));
    let room = if route == Some(routes::LOGIN) { &app.login_room } else { &app.room };
    let place = room.clone().try_acquire_owned();
    if place.is_err() && !watched_over {
        return Err(Refusal::new(ErrorCode::Unavailable, Some("the server is full".to_owned()), origin.request_id));
    }
    let writes = !matches!(*request.method(), Method::GET | Method::HEAD)
        && ![Some(routes::LOGIN), Some(routes::WATCH), Some(routes::SECRETS_READ)].contains(&route);
    let task = tokio::spawn(async move {
        let response = next.run(request).await;
        drop(place);
        response
    });
    let mut response = match tokio::time::timeout(REQUEST, task).await {
        Ok(Ok(response)) => response,
        // The panic's message may hold anything; the hook has logged its place.
        Ok(Err(_)) => return Err(Refusal::new(ErrorCode::Internal, None, origin.request_id)),
        // The task goes on to its end, so that no connection is left in an unknown state; its answer has come too late.
        Err(_) => {
            tracing::warn!(request_id = %origin.request_id, "a request took too long");
            let code = if writes { ErrorCode::OutcomeUnknown } else { ErrorCode::Unavailable };
            return Err(Refusal::new(code, None, origin.request_id));
        }
    };
    if let Some(route) = route {
        response.extensions_mut().insert(Route(route));
    }
    Ok(response)
}

/// The matched route, for the metrics.
#[derive(Clone, Copy)]
struct Route(&'static str);

fn is_plain(uri: &Uri) -> bool {
    // The origin form only: an absolute form names a host that somebody may have checked, or not.
    let path = uri.path();
    uri.scheme().is_none()
        && uri.authority().is_none()
        && path.starts_with('/')
        && !path.contains("//")
        && path.split('/').all(|segment| !matches!(segment, "." | ".."))
        && path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-'))
}

/// Methods as labels: an unknown one must not make a new time series.
fn known_method(method: &str) -> &'static str {
    ["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn each_url_that_could_be_read_in_two_ways_is_refused() {
        for bad in [
            "/api//v1",
            "/api/v1%2fsecret",
            "/api/%2e%2e/x",
            "/api/../x",
            "/./x",
            "/a%00",
            "/a%5Cb",
            "/a%20",
            "http://h/api",
            "/api/v1/secret;x",
        ] {
            assert!(!is_plain(&bad.parse().unwrap()), "{bad}");
        }
        assert!(is_plain(&"/api/v1/secret?path=a/b%2Fc".parse().unwrap()));
    }
}
