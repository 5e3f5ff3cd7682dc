//! Failures as RFC 9457 problems. The only place where they become HTTP.

use crate::{app::Origin, failure::Failure, metrics as names};
use axum::{
    Extension,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use strongroom_api::{ErrorCode, Problem};
use uuid::Uuid;

/// A refused request.
#[derive(Debug)]
pub struct Refusal(Box<Problem>);

impl Refusal {
    /// A refusal by code; the detail says what was wrong and where, never a value.
    pub fn new(code: ErrorCode, detail: Option<String>, request_id: Uuid) -> Self {
        Self(Box::new(Problem::new(code, detail, request_id)))
    }

    /// The problem itself, where it is one result of several.
    pub fn into_problem(self) -> Problem {
        *self.0
    }

    /// What an operation's failure means to the caller. Whatever is our fault is logged here, once.
    pub fn from_failure(failure: Failure, origin: Origin) -> Self {
        let code = failure.code();
        let detail = match failure {
            Failure::Unauthenticated(_)
            | Failure::Denied
            | Failure::NotFound
            | Failure::Deleted
            | Failure::VersionDeleted
            | Failure::VersionDestroyed
            | Failure::Expired
            | Failure::Protected
            | Failure::ProjectFull
            | Failure::RevisionConflict
            | Failure::Shredded
            | Failure::FieldNotFound
            | Failure::VersionConflict
            | Failure::PreconditionRequired
            | Failure::AnswerTooLarge
            | Failure::InProgress
            | Failure::KeyReused
            | Failure::OutcomeUnknown
            | Failure::AuditUnavailable => None,
            Failure::InOperation { place, failure } => {
                let inner = Self::from_failure(*failure, origin).0.detail;
                let place = format!("operations[{place}]");
                Some(inner.map_or(place.clone(), |inner| format!("{place}: {inner}")))
            }
            Failure::Conflict(conflict) => Some(format!("{conflict} exists already")),
            Failure::NotNow(message)
            | Failure::Invalid(message)
            | Failure::BadPolicy(message)
            | Failure::VersionInUse(message) => Some(message),
            Failure::Unavailable(what) => Some(format!("{what} is not available")),
            Failure::Integrity(message) => {
                metrics::counter!(names::INTEGRITY).increment(1);
                tracing::error!(request_id = %origin.request_id, what = message, "integrity failure");
                None
            }
            Failure::Internal(error) => {
                tracing::error!(request_id = %origin.request_id, error = format!("{error:#}"), "internal error");
                None
            }
        };
        Self::new(code, detail, origin.request_id)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).expect("codes have valid statuses");
        let body = serde_json::to_vec(&self.0).expect("a problem is JSON");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.0.code {
            ErrorCode::Unauthenticated => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            ErrorCode::Unavailable | ErrorCode::AuditUnavailable | ErrorCode::IdempotencyInProgress => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// The answer where no route is.
pub(super) async fn no_such_route(Extension(origin): Extension<Origin>) -> Refusal {
    Refusal::new(ErrorCode::NotFound, Some("there is no such route".to_owned()), origin.request_id)
}

/// The answer where a route does not take the method.
pub(super) async fn no_such_method(Extension(origin): Extension<Origin>) -> Refusal {
    Refusal::new(ErrorCode::MethodNotAllowed, None, origin.request_id)
}
