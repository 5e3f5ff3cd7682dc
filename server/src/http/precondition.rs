//! `If-Match` and `If-None-Match`.

use super::problem::Refusal;
use crate::operations::secrets::Precondition;
use axum::http::{HeaderMap, HeaderValue, header};
use strongroom_api::ErrorCode;
use uuid::Uuid;

/// `If-Match: "7"`, `If-None-Match: *`, or neither.
pub(super) fn precondition(headers: &HeaderMap, request_id: Uuid) -> Result<Precondition, Refusal> {
    let bad = |detail: &str| Refusal::new(ErrorCode::BadRequest, Some(detail.to_owned()), request_id);
    match (headers.get(header::IF_MATCH), headers.get(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (None, Some(value)) if value == "*" => Ok(Precondition::Absent),
        (None, Some(_)) => Err(bad("if-none-match: only * is known here")),
        (Some(value), None) => {
            tag(value, "").map(Precondition::Current).ok_or_else(|| bad("if-match: a version's number in quotes"))
        }
        (Some(_), Some(_)) => Err(bad("if-match and if-none-match exclude each other")),
    }
}

/// `If-None-Match: "7"` of a read: the version that the caller has.
pub(super) fn known_version(headers: &HeaderMap, request_id: Uuid) -> Result<Option<u64>, Refusal> {
    let mut values = headers.get_all(header::IF_NONE_MATCH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let version = if values.next().is_none() { tag(value, "") } else { None };
    let detail = "if-none-match: one version's number in quotes".to_owned();
    version.map(Some).ok_or_else(|| Refusal::new(ErrorCode::BadRequest, Some(detail), request_id))
}

/// As [`precondition`], for a secret that must be there, with the version that the body may name instead.
pub(super) fn precondition_or(
    headers: &HeaderMap,
    if_version: Option<u64>,
    request_id: Uuid,
) -> Result<Precondition, Refusal> {
    let bad = |detail: &str| Refusal::new(ErrorCode::BadRequest, Some(detail.to_owned()), request_id);
    match (precondition(headers, request_id)?, if_version) {
        (Precondition::Absent, _) => Err(bad("if-none-match: an alias points at a version that is there")),
        (given, None) => Ok(given),
        (Precondition::None, Some(0)) => Err(bad("if_version: a version's number, from 1")),
        (Precondition::None, Some(version)) => Ok(Precondition::Current(version)),
        (Precondition::Current(_), Some(_)) => Err(bad("if-match and if_version exclude each other")),
    }
}

/// `If-Match: "r7"`, or nothing.
pub(super) fn if_revision(headers: &HeaderMap, request_id: Uuid) -> Result<Option<u64>, Refusal> {
    let bad = |detail: &str| Refusal::new(ErrorCode::BadRequest, Some(detail.to_owned()), request_id);
    if headers.contains_key(header::IF_NONE_MATCH) {
        return Err(bad("if-none-match: metadata is changed where it is"));
    }
    headers
        .get(header::IF_MATCH)
        .map(|value| tag(value, "r").ok_or_else(|| bad("if-match: a revision as its ETag has it, \"r7\"")))
        .transpose()
}

fn tag(value: &HeaderValue, prefix: &str) -> Option<u64> {
    let number = value.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?.strip_prefix(prefix)?;
    let is_plain = number.bytes().all(|b| b.is_ascii_digit());
    number.parse().ok().filter(|number| *number > 0 && is_plain)
}
