//! Answers: JSON, nothing, a tag.

use super::problem::Refusal;
use crate::{
    app::{Caller, Origin},
    failure::Failure,
};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use strongroom_api::access::Items;

/// An answer as JSON. What cannot be written, such as a time of a year that RFC 3339 does not know, is our fault and ends this request only.
pub(super) fn json(origin: Origin, body: &impl Serialize) -> Result<Response, Refusal> {
    let bytes = serde_json::to_vec(body).map_err(|error| {
        Refusal::from_failure(Failure::Internal(anyhow::Error::new(error).context("the answer is no JSON")), origin)
    })?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], Bytes::from(bytes)).into_response())
}

/// The same with an `ETag`: this text in quotes.
pub(super) fn with_tag(mut response: Response, tag: &str) -> Response {
    let tag = HeaderValue::try_from(format!("\"{tag}\"")).expect("letters and digits in quotes are a header");
    response.headers_mut().insert(header::ETAG, tag);
    response
}

/// One thing, or the refusal.
pub(super) fn one(caller: &Caller, outcome: Result<impl Serialize, Failure>) -> Result<Response, Refusal> {
    let body = outcome.map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    json(caller.origin, &body)
}

/// A list, or the refusal.
pub(super) fn many<T: Serialize>(caller: &Caller, outcome: Result<Vec<T>, Failure>) -> Result<Response, Refusal> {
    one(caller, outcome.map(|items| Items { items }))
}

/// No content, or the refusal.
pub(super) fn none(caller: &Caller, outcome: Result<(), Failure>) -> Result<StatusCode, Refusal> {
    outcome.map(|()| StatusCode::NO_CONTENT).map_err(|failure| Refusal::from_failure(failure, caller.origin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_api::login::WhoAmI;
    use time::macros::datetime;
    use uuid::Uuid;

    #[test]
    fn an_answer_that_cannot_be_written_is_an_internal_error_with_the_requests_id() {
        let origin = Origin { request_id: Uuid::from_u128(7), source: None };
        let body = WhoAmI {
            principal: "user:ada".to_owned(),
            expires_at: datetime!(-0001-12-31 23:00 UTC),
            role: None,
            instance: "test".to_owned(),
        };
        let problem = json(origin, &body).expect_err("RFC 3339 has no such year").into_problem();
        assert_eq!((problem.code.as_str(), problem.request_id), ("internal", origin.request_id));
    }
}
