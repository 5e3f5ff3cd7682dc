//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header) on writes of secrets.

use super::problem::Refusal;
use crate::{
    app::{App, Origin},
    once::Once,
};
use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::Response,
};
use http_body_util::BodyExt as _;
use std::sync::Arc;
use strongroom_api::{ErrorCode, routes};

/// The header.
pub(super) const HEADER: &str = "idempotency-key";
/// Longest key in bytes.
const MAX_KEY: usize = 255;

/// Routes whose writes take a key. Elsewhere the header means nothing.
pub(super) const ROUTES: [&str; 11] = [
    routes::SECRET,
    routes::SECRET_ALIAS,
    routes::SECRET_METADATA,
    routes::SECRET_UNDELETE,
    routes::SECRET_DESTROY,
    routes::SECRET_PURGE,
    routes::SECRET_RENAME,
    routes::SECRET_COPY,
    routes::SECRET_MOVE,
    routes::SECRET_GENERATE,
    routes::SECRETS_WRITE,
];

/// Headers that change what a request asks for.
const HEAD: [header::HeaderName; 3] = [header::IF_MATCH, header::IF_NONE_MATCH, header::CONTENT_TYPE];

/// Reads the key, and has the body hashed while it is read, so that it is held once only.
pub(super) async fn note_key(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let takes_keys = request.extensions().get::<MatchedPath>().is_some_and(|path| ROUTES.contains(&path.as_str()));
    if !takes_keys || *request.method() == Method::GET || !request.headers().contains_key(HEADER) {
        return Ok(next.run(request).await);
    }
    let origin = *request.extensions().get::<Origin>().expect("identify() ran first");
    let Some(key) = key(request.headers()) else {
        let detail = format!("{HEADER}: one text of 1 to {MAX_KEY} visible characters, in quotes or without");
        return Err(Refusal::new(ErrorCode::BadRequest, Some(detail), origin.request_id));
    };
    let (method, uri) = (request.method(), request.uri());
    let route = format!("{method} {}?{}", uri.path(), uri.query().unwrap_or_default());
    let parts: Vec<&[u8]> =
        HEAD.iter().map(|name| request.headers().get(name).map_or(&b""[..], |value| value.as_bytes())).collect();
    let once = Arc::new(Once::new(&app.keyring(), route, key, &parts));
    request.extensions_mut().insert(once.clone());
    let request = request.map(|body| {
        Body::new(body.map_frame(move |frame| {
            if let Some(data) = frame.data_ref() {
                once.feed(data);
            }
            frame
        }))
    });
    Ok(next.run(request).await)
}

/// The key, out of its quotes: the draft has it in quotes, most clients send it bare.
fn key(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(HEADER).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    let key = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let well_formed = (1..=MAX_KEY).contains(&key.len())
        && key.bytes().all(|b| (0x21..=0x7e).contains(&b) && !matches!(b, b'"' | b'\\'));
    well_formed.then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_in_quotes_or_bare_and_each_malformed_one_is_refused() {
        let parse = |values: &[&str]| {
            let values = values.iter().map(|value| (HEADER.parse().unwrap(), value.parse().unwrap()));
            key(&values.fold(HeaderMap::new(), |mut headers, (name, value): (header::HeaderName, _)| {
                headers.append(name, value);
                headers
            }))
        };
        assert_eq!(parse(&["\"8e03978e\""]).as_deref(), Some("8e03978e"));
        assert_eq!(parse(&["8e03978e"]).as_deref(), Some("8e03978e"));
        let long = "a".repeat(MAX_KEY + 1);
        for malformed in [&["a", "b"][..], &[""], &["\"\""], &["\"a"], &["a b"], &["a\\b"], &["a\tb"], &[&long]] {
            assert_eq!(parse(malformed), None, "{malformed:?}");
        }
    }
}
