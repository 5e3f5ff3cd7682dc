//! What can go wrong, for programs (`kind`, `code`) and for people (`Display`). Never holds a value or a credential.

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use std::{fmt, time::Duration};
use strongroom_api::{ErrorCode, Problem};
use uuid::Uuid;

/// Longest text taken over from a server's answer.
const MAX_DETAIL: usize = 500;

/// The sort of an error: what a program decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The client was built with something unusable; nothing was sent.
    Configuration,
    /// The token file cannot be read or holds no token; nothing was sent.
    TokenFile,
    /// The argument cannot be sent; nothing was sent.
    BadArgument,
    /// No connection: the name, the address or the certificate.
    Connect,
    /// No answer in time. A change may have been made nevertheless.
    Timeout,
    /// The connection broke while an answer was awaited. A change may have been made nevertheless.
    Disconnected,
    /// 401: the credential is not accepted.
    Unauthenticated,
    /// 403: no policy allows it.
    Forbidden,
    /// 404: it does not exist.
    NotFound,
    /// 409 and 412: it exists, or its version is another.
    Conflict,
    /// 400, 405, 413, 415, 422 and 428: the request is wrong.
    BadRequest,
    /// 429, 502, 503 and 504: try again later.
    Unavailable,
    /// 500: the server failed.
    Server,
    /// The answer is none of Strongroom's.
    Protocol,
    /// A watch ended without a word, or fell silent.
    StreamLost,
}

/// Why a call failed.
#[derive(Clone)]
pub struct Error(Box<Facts>);

#[derive(Clone)]
struct Facts {
    kind: ErrorKind,
    /// What was wrong, and where nothing else says it, what to do.
    text: String,
    code: Option<ErrorCode>,
    detail: Option<String>,
    request_id: Option<Uuid>,
    retry_after: Option<Duration>,
}

impl Error {
    /// Its sort.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The server's stable code, where the server answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        self.0.code
    }

    /// Whether the same request may succeed later without anybody changing anything. Repeat only what is idempotent.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Connect
                | ErrorKind::Timeout
                | ErrorKind::Disconnected
                | ErrorKind::Unavailable
                | ErrorKind::StreamLost
        )
    }

    /// The id under which the request stands in the server's log and audit log.
    pub fn request_id(&self) -> Option<Uuid> {
        self.0.request_id
    }

    /// How long the server asked to wait; at most one hour.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What the server said was wrong in this request and where; at most 500 characters, without control characters.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self(Box::new(Facts { kind, text: text.into(), code: None, detail: None, request_id: None, retry_after: None }))
    }

    /// The error for an answer that is no success. `body` is read as a problem document where it is one.
    pub(crate) fn from_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        if status.is_redirection() {
            let text = "the server answered with a redirect, which is never followed: it could lead a credential astray. Give the server's own address";
            return Self::new(ErrorKind::Protocol, text);
        }
        let problem = serde_json::from_slice::<Problem>(body).ok();
        let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let text = match &problem {
            Some(problem) => match &problem.detail {
                Some(detail) => format!("{} {} {}", clean(&problem.title), clean(detail), clean(&problem.remedy)),
                None => format!("{} {}", clean(&problem.title), clean(&problem.remedy)),
            },
            None => format!(
                "the server answered {} without saying why; a proxy in between may have. Check the address and look into the server's log",
                status.as_u16()
            ),
        };
        Self(Box::new(Facts {
            kind: kind_of(status),
            text,
            code: problem.as_ref().map(|problem| problem.code),
            detail: problem.as_ref().and_then(|problem| problem.detail.as_deref()).map(clean),
            request_id: problem.as_ref().map(|problem| problem.request_id),
            retry_after: retry_after.map(|seconds: u64| Duration::from_secs(seconds.min(3600))),
        }))
    }

    /// The answer is not what this route answers. `part` names what; nothing of the answer itself is repeated.
    pub(crate) fn protocol(part: impl fmt::Display) -> Self {
        let text = format!(
            "the answer is not what a Strongroom server answers: {part}. Check the address, and that server and client are of one age"
        );
        Self::new(ErrorKind::Protocol, text)
    }
}

fn kind_of(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 | 412 => ErrorKind::Conflict,
        400 | 405 | 413 | 415 | 422 | 428 => ErrorKind::BadRequest,
        429 | 502 | 503 | 504 => ErrorKind::Unavailable,
        500..=599 => ErrorKind::Server,
        _ => ErrorKind::Protocol,
    }
}

/// A server's text for logs and terminals: bounded, and without escape sequences that could rewrite what stands before it.
fn clean(text: &str) -> String {
    text.chars().take(MAX_DETAIL).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)?;
        match &self.0.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("code", &self.0.code)
            .field("text", &self.to_string())
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(code: ErrorCode, detail: &str) -> Vec<u8> {
        serde_json::to_vec(&Problem::new(code, Some(detail.to_owned()), Uuid::nil())).unwrap()
    }

    #[test]
    fn every_code_of_the_api_has_a_kind_that_is_not_protocol() {
        for code in ErrorCode::ALL {
            let status = StatusCode::from_u16(code.status()).unwrap();
            let error = Error::from_answer(status, &HeaderMap::new(), &problem(*code, "x"));
            assert_ne!(error.kind(), ErrorKind::Protocol, "{code:?}");
            assert_eq!(error.code(), Some(*code));
        }
    }

    #[test]
    fn the_text_says_what_was_wrong_what_to_do_and_which_request() {
        let error = Error::from_answer(
            StatusCode::FORBIDDEN,
            &HeaderMap::new(),
            &problem(ErrorCode::Forbidden, "payments/db."),
        );
        let text = error.to_string();
        for part in
            [ErrorCode::Forbidden.meaning(), "payments/db.", ErrorCode::Forbidden.remedy(), "(request 00000000-"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn escape_sequences_and_endless_text_of_a_server_are_taken_out() {
        let error = Error::from_answer(
            StatusCode::BAD_REQUEST,
            &HeaderMap::new(),
            &problem(ErrorCode::BadRequest, &format!("\u{1b}[2J\n{}", "a".repeat(10_000))),
        );
        assert!(!error.to_string().contains(['\u{1b}', '\n']));
        assert!(error.detail().unwrap().len() <= MAX_DETAIL);
    }

    #[test]
    fn a_proxys_page_becomes_an_error_that_does_not_repeat_it() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        let error = Error::from_answer(StatusCode::BAD_GATEWAY, &headers, b"<html>hunter2</html>");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert!(error.is_retryable() && !error.to_string().contains("hunter2"));
    }

    #[test]
    fn a_redirect_is_an_error_that_says_so() {
        let error = Error::from_answer(StatusCode::TEMPORARY_REDIRECT, &HeaderMap::new(), b"");
        assert!(error.kind() == ErrorKind::Protocol && error.to_string().contains("redirect"));
    }
}
