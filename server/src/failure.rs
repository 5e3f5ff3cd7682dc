//! How an operation fails. It knows no HTTP; `http::problem` maps it.

use crate::metrics as names;
use strongroom_api::ErrorCode;
use strongroom_store::{Conflict, StoreError};
use thiserror::Error;

/// Why an operation did not do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Failure {
    /// The credential is not accepted. The text is for the log, never for the caller.
    #[error("the credential is not accepted: {0}")]
    Unauthenticated(&'static str),
    /// Policy refuses, or nothing allows.
    #[error("denied")]
    Denied,
    /// Nothing there, and the caller may know.
    #[error("not found")]
    NotFound,
    /// The secret is deleted.
    #[error("the secret is deleted")]
    Deleted,
    /// The version is deleted.
    #[error("the version is deleted")]
    VersionDeleted,
    /// The version was destroyed.
    #[error("the version was destroyed")]
    VersionDestroyed,
    /// The secret's expiry has come.
    #[error("the secret has expired")]
    Expired,
    /// The secret or its project is protected from deletion.
    #[error("protected from deletion")]
    Protected,
    /// An alias points at the version; says which.
    #[error("{0}")]
    VersionInUse(String),
    /// The project holds as many secrets as it may.
    #[error("the project is full")]
    ProjectFull,
    /// The metadata's revision is another.
    #[error("another revision is current")]
    RevisionConflict,
    /// The project's keys were destroyed.
    #[error("the project was shredded")]
    Shredded,
    /// The version has no such field.
    #[error("no such field")]
    FieldNotFound,
    /// The precondition does not hold.
    #[error("another version is current")]
    VersionConflict,
    /// The project demands a precondition of every write, and there is none.
    #[error("a precondition is required")]
    PreconditionRequired,
    /// The first request with this idempotency key is still running.
    #[error("the first request with this key is still running")]
    InProgress,
    /// The idempotency key stood for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The values of one request are too large together.
    #[error("the values asked for are too large together")]
    AnswerTooLarge,
    /// One operation of several failed, and with it all.
    #[error("operations[{place}]: {failure}")]
    InOperation {
        /// Its place among them, from 0.
        place: usize,
        /// Why.
        failure: Box<Self>,
    },
    /// Something of this name exists.
    #[error("{0} exists already")]
    Conflict(Conflict),
    /// It cannot be done as things are now; says why, never a value.
    #[error("{0}")]
    NotNow(String),
    /// Well-formed, but it cannot be; says what and where, never a value.
    #[error("{0}")]
    Invalid(String),
    /// A policy text that is refused; says where.
    #[error("{0}")]
    BadPolicy(String),
    /// Something the answer depends on is away.
    #[error("unavailable: {0}")]
    Unavailable(&'static str),
    /// The commit's answer did not come.
    #[error("the outcome of the write is unknown")]
    OutcomeUnknown,
    /// The audit event could not be written.
    #[error("the audit event could not be written")]
    AuditUnavailable,
    /// A row or a sealed value is not what Strongroom wrote.
    #[error("integrity: {0}")]
    Integrity(String),
    /// A defect.
    #[error("internal")]
    Internal(#[source] anyhow::Error),
}

impl Failure {
    /// The stable code that callers and the audit log are given.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unauthenticated(_) => ErrorCode::Unauthenticated,
            Self::Denied => ErrorCode::Forbidden,
            Self::NotFound => ErrorCode::NotFound,
            Self::Deleted => ErrorCode::SecretDeleted,
            Self::VersionDeleted => ErrorCode::VersionDeleted,
            Self::VersionDestroyed => ErrorCode::VersionDestroyed,
            Self::Expired => ErrorCode::SecretExpired,
            Self::Protected => ErrorCode::DeletionProtected,
            Self::VersionInUse(_) => ErrorCode::VersionInUse,
            Self::ProjectFull => ErrorCode::ProjectFull,
            Self::RevisionConflict => ErrorCode::RevisionConflict,
            Self::Shredded => ErrorCode::ProjectShredded,
            Self::FieldNotFound => ErrorCode::FieldNotFound,
            Self::VersionConflict => ErrorCode::VersionConflict,
            Self::PreconditionRequired => ErrorCode::PreconditionRequired,
            Self::InProgress => ErrorCode::IdempotencyInProgress,
            Self::KeyReused => ErrorCode::IdempotencyKeyReused,
            Self::AnswerTooLarge => ErrorCode::AnswerTooLarge,
            Self::InOperation { failure, .. } => failure.code(),
            Self::Conflict(_) => ErrorCode::AlreadyExists,
            Self::NotNow(_) => ErrorCode::NotNow,
            Self::Invalid(_) => ErrorCode::UnprocessableContent,
            Self::BadPolicy(_) => ErrorCode::BadPolicy,
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::OutcomeUnknown => ErrorCode::OutcomeUnknown,
            Self::AuditUnavailable => ErrorCode::AuditUnavailable,
            Self::Integrity(_) => ErrorCode::Integrity,
            Self::Internal(_) => ErrorCode::Internal,
        }
    }
}

/// What came of one part of something larger. A damaged part is an alarm and `None`: it must not keep the others from being done.
///
/// # Errors
/// Any other failure, which is not of that part alone.
pub fn unless_damaged<T>(outcome: Result<T, Failure>, during: &'static str) -> Result<Option<T>, Failure> {
    match outcome {
        Ok(done) => Ok(Some(done)),
        Err(failure @ Failure::Integrity(_)) => {
            alarm(&failure, during);
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// Counts and logs damage that work goes on without.
pub fn alarm(damage: &Failure, during: &'static str) {
    metrics::counter!(names::INTEGRITY).increment(1);
    tracing::error!(error = %damage, during, "integrity failure; going on without it");
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(conflict) => Self::Conflict(conflict),
            StoreError::Unavailable(error) => {
                tracing::warn!(error = %error, "the database is not available");
                Self::Unavailable("the database")
            }
            StoreError::OutcomeUnknown(error) => {
                tracing::warn!(error = %error, "the outcome of a commit is unknown");
                Self::OutcomeUnknown
            }
            StoreError::BadText => Self::Invalid("a text holds a NUL character".to_owned()),
            error @ StoreError::Corrupt { .. } => Self::Integrity(error.to_string()),
            other => Self::Internal(anyhow::Error::new(other)),
        }
    }
}
