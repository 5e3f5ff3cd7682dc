//! `/api/v1/watch`: server-sent events.

use super::{body::JsonBody, caller::Authenticated, document::errors, problem::Refusal};
use crate::{
    app::App,
    operations::watch::{self as operations, Event, Stream},
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;
use std::{convert::Infallible, fmt::Write as _, sync::Arc};
use strongroom_api::{routes, watch::Watch};
use utoipa::ToSchema;

errors! {
    Errors: UnprocessableContent;
}

/// Streams changes until the session ends.
#[utoipa::path(post, path = routes::WATCH, operation_id = "watch", tag = "secrets",
    request_body = Watch,
    responses(
        (status = OK, content_type = "text/event-stream", body = WatchEvent,
            description = "Server-sent events: `change` (data: `Change`), `heartbeat` (no data, at least every 15 seconds) and `end` (data: `End`; the stream closes after it)."),
        Errors,
    ))]
pub(super) async fn watch(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    JsonBody(request): JsonBody<Watch>,
) -> Result<Response, Refusal> {
    let origin = caller.origin;
    let stream =
        operations::begin(app, caller, request).await.map_err(|failure| Refusal::from_failure(failure, origin))?;
    let events = stream::unfold(stream, |mut stream: Stream| async move {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(written(&event))), stream))
    });
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// One server-sent event as the document describes it: its fields are lines.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is described only: `written` writes the lines")]
struct WatchEvent {
    event: WatchEventName,
    /// Of a `change` a `Change`, of an `end` an `End`, as JSON in one line; a `heartbeat` has none.
    #[schema(content_media_type = "application/json", nullable = false)]
    data: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it is described only")]
enum WatchEventName {
    Change,
    Heartbeat,
    End,
}

fn written(event: &Event) -> String {
    let mut text = String::new();
    match event {
        Event::Changes(changes) => {
            for change in changes {
                let data = serde_json::to_string(change).expect("a change is JSON");
                write!(text, "event: change\ndata: {data}\n\n").expect("a string takes all");
            }
        }
        Event::Heartbeat => text.push_str("event: heartbeat\n\n"),
        Event::End(end) => {
            let data = serde_json::to_string(end).expect("an end is JSON");
            write!(text, "event: end\ndata: {data}\n\n").expect("a string takes all");
        }
    }
    text
}
