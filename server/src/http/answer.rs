//! Answers: JSON, nothing, a tag.

use super::problem::Refusal;
use crate::{app::Caller, failure::Failure};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use strongroom_api::access::Items;

/// An answer as JSON.
pub(super) fn json(body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("answers are JSON");
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], Bytes::from(bytes)).into_response()
}

/// The same with an `ETag`: this text in quotes.
pub(super) fn with_tag(mut response: Response, tag: &str) -> Response {
    let tag = HeaderValue::try_from(format!("\"{tag}\"")).expect("letters and digits in quotes are a header");
    response.headers_mut().insert(header::ETAG, tag);
    response
}

/// One thing, or the refusal.
pub(super) fn one(caller: &Caller, outcome: Result<impl Serialize, Failure>) -> Result<Response, Refusal> {
    outcome.map(|body| json(&body)).map_err(|failure| Refusal::from_failure(failure, caller.origin))
}

/// A list, or the refusal.
pub(super) fn many<T: Serialize>(caller: &Caller, outcome: Result<Vec<T>, Failure>) -> Result<Response, Refusal> {
    one(caller, outcome.map(|items| Items { items }))
}

/// No content, or the refusal.
pub(super) fn none(caller: &Caller, outcome: Result<(), Failure>) -> Result<StatusCode, Refusal> {
    outcome.map(|()| StatusCode::NO_CONTENT).map_err(|failure| Refusal::from_failure(failure, caller.origin))
}
