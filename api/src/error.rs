//! Errors as callers see them: RFC 9457 problem details with a stable code.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! codes {
    ($($name:ident = $text:literal, $status:literal, $meaning:literal, $remedy:literal;)+) => {
        /// The stable code of an error. Codes are never renamed or reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(#[doc = $meaning] $name,)+
            /// A code this version does not know: the server is newer.
            #[serde(other)]
            Unknown,
        }

        impl ErrorCode {
            /// Every code that a server of this version answers.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code as it is written.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ Self::Unknown => "unknown" }
            }

            /// The HTTP status it comes with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ Self::Unknown => 500 }
            }

            /// What it means, for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ Self::Unknown => "The server is newer than this program." }
            }

            /// What to do about it.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)+ Self::Unknown => "Update this program." }
            }
        }
    };
}

codes! {
    BadRequest = "bad_request", 400, "The request is malformed.", "See `detail` for what and where.";
    BadBody = "bad_body", 400, "The body is not what this route takes.", "See `detail` for the line and column.";
    BadPath = "bad_path", 400, "A secret path, folder, reference or name is not well-formed.", "Segments have A-Z a-z 0-9 . _ - and paths at most 512 bytes.";
    BadUrl = "bad_url", 400, "The URL's path has an encoded or doubled slash, a backslash, a control or a non-ASCII character.", "Write the route plainly; secret paths go into the query.";
    Unauthenticated = "unauthenticated", 401, "The credential is missing, malformed, expired or not accepted here.", "Log in again with a fresh credential.";
    Forbidden = "forbidden", 403, "No policy allows this, or one forbids it; the answer is the same whether or not the thing exists.", "Ask a project owner for a grant and give the request id.";
    NotFound = "not_found", 404, "It does not exist; only callers who are allowed there learn this.", "Check the name; `list` shows what there is.";
    SecretDeleted = "secret_deleted", 404, "The secret is deleted.", "Put a new version, or restore it.";
    VersionDeleted = "version_deleted", 404, "That version of the secret is deleted.", "Undelete it, or read another version.";
    VersionDestroyed = "version_destroyed", 404, "That version of the secret was destroyed: its value is erased for good.", "Read another version.";
    SecretExpired = "secret_expired", 404, "The secret has expired.", "Put a new value, or prolong it in its metadata.";
    ProjectShredded = "project_shredded", 404, "The project's keys were destroyed: nothing in it can be read any more.", "What is left of it is being removed; its name is free afterwards.";
    FieldNotFound = "field_not_found", 404, "The secret's version has no such field.", "Read it whole to see its fields.";
    MethodNotAllowed = "method_not_allowed", 405, "The route exists, but not with this method.", "See the API's documentation.";
    AlreadyExists = "already_exists", 409, "Something of this name exists.", "Choose another name.";
    DeletionProtected = "deletion_protected", 409, "The secret is protected from deletion, by itself or by its project.", "Lift the protection first: the secret's needs `purge`, the project's `manage-project`.";
    VersionInUse = "version_in_use", 409, "The version is one that an alias points at.", "Activate another version or move the alias; to be rid of the current version, delete the secret, and purge it.";
    ProjectFull = "project_full", 409, "The project holds as many secrets as it may.", "Purge secrets that nobody needs, or raise the project's `max_secrets`.";
    RevisionConflict = "revision_conflict", 412, "The metadata's revision is not the one the request was made for.", "Read the metadata again and decide anew.";
    IdempotencyInProgress = "idempotency_in_progress", 409, "The first request with this idempotency key is still running.", "Try again after `retry-after`: then its answer is there.";
    NotNow = "not_now", 409, "It cannot be done as things are now.", "See `detail` for what stands in the way.";
    VersionConflict = "version_conflict", 412, "The secret's current version is not the one the request was made for.", "Read it again and decide anew.";
    PreconditionRequired = "precondition_required", 428, "The project demands that every write says which version it is made for.", "Send `if-match: \"<current version>\"`, or `if-none-match: *` for a new secret.";
    BodyTooLarge = "body_too_large", 413, "The body is larger than allowed.", "A payload is at most 1 MiB.";
    AnswerTooLarge = "answer_too_large", 413, "The values asked for in one request are together larger than 8 MiB.", "Ask for the rest in another request.";
    UnsupportedMediaType = "unsupported_media_type", 415, "The body's content type is not application/json.", "Send JSON with `content-type: application/json`.";
    BadPolicy = "bad_policy", 422, "The policy does not parse, does not fit the schema, or reaches outside its project.", "See `detail` for the position.";
    UnprocessableContent = "unprocessable_content", 422, "The body is well-formed but says something that cannot be.", "See `detail`.";
    IdempotencyKeyReused = "idempotency_key_reused", 422, "The idempotency key was used for another request.", "Use a new key for each request, and the same only to send the very same again.";
    OutcomeUnknown = "outcome_unknown", 500, "The write was sent and its outcome is not known: it may have happened.", "Look at what is there before you try again, or send the very same again with the same `idempotency-key`.";
    Internal = "internal", 500, "The server failed.", "Look for the request id in the server's log.";
    Integrity = "integrity", 500, "A stored row is not what Strongroom wrote: it was changed, or the wrong key is in use.", "Look for the request id in the server's log; treat the database as tampered with.";
    Unavailable = "unavailable", 503, "Something the answer depends on is away: the database, the cluster's API, or room in a queue.", "Try again after `retry-after`.";
    AuditUnavailable = "audit_unavailable", 503, "The audit event could not be written, so nothing was released.", "Try again after `retry-after`.";
}

/// Only what a server of this version answers: `unknown` is a client's word.
#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for ErrorCode {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .description(Some("The stable code of an error. Codes are never renamed or reused; new ones may come."))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for ErrorCode {}

/// The body of every error, `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The code's meaning.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: ErrorCode,
    /// What was wrong in this request and where; never a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What to do.
    pub remedy: String,
    /// The id under which the request stands in the log and the audit log.
    pub request_id: Uuid,
}

impl Problem {
    /// The problem for a code.
    pub fn new(code: ErrorCode, detail: Option<String>, request_id: Uuid) -> Self {
        Self {
            title: code.meaning().to_owned(),
            status: code.status(),
            code,
            detail,
            remedy: code.remedy().to_owned(),
            request_id,
        }
    }
}
