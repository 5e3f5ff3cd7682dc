//! Watching for changes: `POST /api/v1/watch` answers with server-sent events.
//!
//! Event names: `change` (data: [`Change`]), `heartbeat` (no data, at least every 15 seconds), `end` (data: [`End`]; the stream closes after it).
//! Events carry path and version only, never a value.

use serde::{Deserialize, Serialize};
use strongroom_core::SecretPath;

/// Most secrets in one watch.
pub const MAX_WATCHED: usize = 200;

/// What the caller watches and holds. Where the version is another than the one held, that is announced at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// At most 200 secrets.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 200))]
    pub secrets: Vec<Watched>,
}

/// One watched secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Which secret.
    pub path: SecretPath,
    /// An alias, or a number; `current` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The version the caller holds; 0 for none.
    #[cfg_attr(feature = "openapi", schema(format = "uint64"))]
    pub held: u64,
    /// A version the caller holds that is newer than what this server announced or answered: its database may have been set back. `held` is 0 then, because none of
    /// the server's versions is held, so that it announces whatever it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(format = "uint64"))]
    pub ahead: Option<u64>,
}

/// The data of the event `change`: the watched version is now another than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// Which secret.
    pub path: SecretPath,
    /// The alias or number as it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The version it is now; 0 when there is none any more, or when the caller may no longer read it.
    pub version: u64,
}

/// The data of the event `end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct End {
    /// Why the stream ends.
    pub reason: EndReason,
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EndReason {
    /// The session ended: log in again and watch again.
    SessionEnded,
    /// The server stops: reconnect, with jitter.
    ServerStops,
    /// The server could not decide: reconnect, with jitter.
    Unavailable,
    /// A reason this version does not know.
    #[serde(other)]
    Other,
}
