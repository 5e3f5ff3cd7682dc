//! Logging in.

use crate::SecretText;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// `POST /api/v1/login`: a workload's projected service account token for a session.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The registered cluster's name.
    pub cluster: String,
    /// The projected token, with the audience `strongroom/<instance>/<cluster>`.
    pub token: SecretText,
    /// Narrow the session to one role, `project/role`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// The session.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Session {
    /// The credential for `authorization: Bearer`.
    pub session: SecretText,
    /// When it ends; at most 15 minutes away, and never after the token that opened it.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// The same in seconds from now, for callers whose clock is off.
    pub expires_in_seconds: u64,
    /// Who the caller is, for example `workload:lab/payments/api`.
    pub principal: String,
}

/// `GET /api/v1/session`: who the caller is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhoAmI {
    /// For example `user:admin`.
    pub principal: String,
    /// When the credential ends.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// The role the session is narrowed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The instance's name.
    pub instance: String,
}
