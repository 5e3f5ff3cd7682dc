//! JSON bodies, read with a limit and a deadline; the joined buffer is wiped afterwards (what hyper read it into is not ours to wipe). `axum::Json` is not used: its rejections repeat what was sent.

use super::{problem::Refusal, strict};
use crate::app::{App, Origin};
use crate::quoting::harmless;
use axum::{
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use strongroom_api::{
    ErrorCode,
    access::{NewCluster, NewGrant, NewProject, PatchProject, Policy, Role},
    backup::Advance,
    batch::{ReadBatch, WriteBatch},
    generate::Generate,
    keys::{ConfirmScope, DestroyTerm, Rotate, ShredProject},
    login::Login,
    metadata::{Copy, Destroy, Move, PatchMetadata, Purge, PutAlias, Rename},
    secrets::{PatchSecret, PutSecret},
    watch::Watch,
};
use zeroize::Zeroizing;

/// A body and the most bytes it may have.
pub(super) trait Body: DeserializeOwned {
    /// The limit. Only a payload needs much; a login comes from anybody.
    const LIMIT: usize;
    /// Whether it is a patch: then `application/merge-patch+json` (RFC 7396) is taken too.
    const IS_PATCH: bool = false;
}

macro_rules! limits {
    ($($body:ty => $kibibytes:literal $($patch:ident)?),+ $(,)?) => {$(
        impl Body for $body {
            const LIMIT: usize = $kibibytes * 1024;
            $(limits!(@ $patch);)?
        }
    )+};
    (@ patch) => {
        const IS_PATCH: bool = true;
    };
}

limits! {
    Login => 16,
    // A payload of 1 MiB as base64 or as escaped JSON, and its wrapping.
    PutSecret => 3072,
    PatchSecret => 3072 patch,
    Generate => 16,
    PatchMetadata => 64 patch,
    PutAlias => 4,
    Destroy => 16,
    Purge => 4,
    Rename => 4,
    Copy => 4,
    Move => 4,
    PatchProject => 4 patch,
    ReadBatch => 128,
    WriteBatch => 12288,
    Watch => 192,
    Advance => 4,
    NewProject => 4,
    NewCluster => 128,
    Role => 640,
    NewGrant => 16,
    Policy => 64,
    Rotate => 4,
    DestroyTerm => 4,
    ConfirmScope => 4,
    ShredProject => 4,
}

/// A parsed body.
pub(super) struct JsonBody<T>(pub T);

impl<T: Body> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let origin = *request.extensions().get::<Origin>().expect("identify() ran first");
        let refuse = |code, detail| Refusal::new(code, detail, origin.request_id);
        if !is_json(request.headers(), T::IS_PATCH) {
            return Err(refuse(ErrorCode::UnsupportedMediaType, None));
        }
        // What says itself that it is too long is not even read.
        let length =
            request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > T::LIMIT as u64) {
            return Err(refuse(ErrorCode::BodyTooLarge, None));
        }
        let body = Limited::new(request.into_body(), T::LIMIT);
        let collected = match tokio::time::timeout(app.deadlines.body, body.collect()).await {
            Ok(Ok(collected)) => collected,
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(refuse(ErrorCode::BodyTooLarge, None)),
            Ok(Err(_)) => return Err(refuse(ErrorCode::BadBody, Some("the body did not arrive whole".to_owned()))),
            Err(_) => return Err(refuse(ErrorCode::BadBody, Some("the body did not arrive in time".to_owned()))),
        };
        let bytes = Zeroizing::new(Vec::from(collected.to_bytes()));
        // Of a body that has its kind inside, serde would take an array as well.
        if bytes.iter().find(|b| !b.is_ascii_whitespace()).is_some_and(|first| *first == b'[') {
            return Err(refuse(ErrorCode::BadBody, Some("line 1 column 1: expected an object".to_owned())));
        }
        strict::from_json(&bytes).map(Self).map_err(|error| {
            let place = format!("line {} column {}: {}", error.line(), error.column(), harmless(&error.to_string()));
            refuse(ErrorCode::BadBody, Some(place))
        })
    }
}

fn is_json(headers: &HeaderMap, is_patch: bool) -> bool {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value.split(';').next().map(str::trim).is_some_and(|kind| {
            kind.eq_ignore_ascii_case("application/json")
                || (is_patch && kind.eq_ignore_ascii_case("application/merge-patch+json"))
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::quoting::harmless;
    use strongroom_api::{login::Login, secrets::PutSecret, watch::Watch};

    #[test]
    fn rejections_never_repeat_what_was_sent() {
        let canary = "hunter2-canary";
        for body in [
            r#""hunter2-canary""#,
            r#"{"fields":"hunter2-canary"}"#,
            r#"{"fields":{"a":{"hunter2-canary":1}}}"#,
            r#"{"fields":{"hunter2-canary/x":"y"}}"#,
            r#"{"hunter2-canary":1}"#,
            r#"{"hunter2-canary, expected hunter2-canary":1}"#,
            r#"{"fields":{"a":"hunter2-canary"#,
            r#"{"raw":["hunter2-canary"]}"#,
            r#"{"reason":{"hunter2-canary":2}}"#,
        ] {
            let error = serde_json::from_str::<PutSecret>(body).unwrap_err().to_string();
            assert!(!harmless(&error).contains(canary), "{body}: {}", harmless(&error));
        }
        let error = serde_json::from_str::<Login>(r#"{"token":["hunter2-canary"]}"#).unwrap_err().to_string();
        assert!(!harmless(&error).contains(canary));
        let error = serde_json::from_str::<Watch>(r#"{"secrets":[{"path":"hunter2-canary","held":0}]}"#)
            .unwrap_err()
            .to_string();
        assert!(!harmless(&error).contains(canary));
    }
}
