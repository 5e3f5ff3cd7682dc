//! What is written down of every request.

use crate::{action::Action, identity::Identity};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// How a request was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Allowed by policy.
    Allowed,
    /// Refused by policy, or because no policy allowed it.
    Denied,
    /// The request failed by itself, before or beside any decision: malformed, or something it depends on was away or tampered with.
    Undecided,
}

impl Decision {
    /// Its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Undecided => "undecided",
        }
    }
}

/// One event. It carries no value, no token and no free text of the caller: paths are parsed paths, identities are checked names.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    /// The event's id, a version 7 UUID.
    pub id: Uuid,
    /// When it was decided.
    pub at: OffsetDateTime,
    /// The request's id, which the caller was given too.
    pub request_id: Uuid,
    /// Who asked, where that is known.
    pub actor: Option<Identity>,
    /// What was asked.
    pub action: Action,
    /// On what: a secret's path, `project/`, a role's or cluster's name.
    pub resource: Option<String>,
    /// Which version, where one is meant.
    pub version: Option<u64>,
    /// How it was decided.
    pub decision: Decision,
    /// The policies and grants that decided.
    pub policies: Vec<String>,
    /// `ok`, or the stable error code of the answer.
    pub outcome: &'static str,
    /// The peer's address.
    pub source: Option<std::net::IpAddr>,
}
