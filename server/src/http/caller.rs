//! The one extractor that says who is calling. It owns every rejection of a credential.

use super::problem::Refusal;
use crate::{
    app::{App, Caller, Origin},
    failure::Failure,
    metrics as names,
    once::Once,
    operations::authentication::authenticate,
};
use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use std::sync::Arc;

/// Longest credential in bytes.
const MAX_CREDENTIAL: usize = 4096;

/// An authenticated caller. A handler that names no `Authenticated` takes anyone.
pub(super) struct Authenticated(pub Caller);

impl FromRequestParts<Arc<App>> for Authenticated {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let origin = *parts.extensions.get::<Origin>().expect("identify() ran first");
        let outcome = match credential(parts) {
            Some(credential) => authenticate(app, origin, credential).await,
            None => Err(Failure::Unauthenticated("missing")),
        };
        match outcome {
            Ok(caller) => Ok(Self(Caller { once: parts.extensions.get::<Arc<Once>>().cloned(), ..caller })),
            Err(failure) => {
                if let Failure::Unauthenticated(kind) = &failure {
                    metrics::counter!(names::UNAUTHENTICATED, "kind" => *kind).increment(1);
                }
                Err(Refusal::from_failure(failure, origin))
            }
        }
    }
}

/// The bearer credential: exactly one `Authorization` header. Two could be read differently by whoever stands before us.
fn credential(parts: &Parts) -> Option<&[u8]> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, credential) = value.as_bytes().split_first_chunk::<7>()?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && (1..=MAX_CREDENTIAL).contains(&credential.len())).then_some(credential)
}
