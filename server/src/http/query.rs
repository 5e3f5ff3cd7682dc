//! Query parameters, parsed into their types; what is unknown or doubled is refused.

use super::problem::Refusal;
use crate::{app::Origin, quoting::harmless};
use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use serde::de::DeserializeOwned;
use strongroom_api::ErrorCode;

/// Parsed parameters.
pub(super) struct Parameters<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let origin = *parts.extensions.get::<Origin>().expect("identify() ran first");
        Query::<T>::try_from_uri(&parts.uri).map(|Query(parameters)| Self(parameters)).map_err(|rejection| {
            let message = std::error::Error::source(&rejection).map_or_else(String::new, ToString::to_string);
            let message = message.rsplit_once(": ").map_or(message.as_str(), |(_, message)| message);
            Refusal::new(ErrorCode::BadRequest, Some(format!("query: {}", harmless(message))), origin.request_id)
        })
    }
}
