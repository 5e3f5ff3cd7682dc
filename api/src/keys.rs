//! Keys on the wire: what there is, what uses it, and work on them. Never a key, not even a wrapped one.

use serde::{Deserialize, Serialize};
use strongroom_core::{ProjectId, ProjectName};
use time::OffsetDateTime;
use uuid::Uuid;

/// `POST /api/v1/keys/rotate`: which key is to be made anew.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Rotate {
    /// Wrap the terms and the key of the keyring's rows by the current root key.
    Root {},
    /// Make a new term, and wrap every key by it.
    Term {
        /// The terms so far may be known to somebody: make every key below anew, seal every value anew, and end all tokens and sessions.
        #[serde(default)]
        compromised: bool,
        /// Go on although no anchor says which access rows are the right ones.
        #[serde(default)]
        accept_unanchored: bool,
    },
    /// Make a new generation of a project's key, and wrap the data keys of all its versions by it.
    ProjectKey {
        /// Whose key.
        project: ProjectName,
    },
}

/// `POST /api/v1/keys/destroy`: a term that nothing uses any more is erased from the database. Copies from before still have it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DestroyTerm {
    /// Its number.
    pub term: i32,
}

/// `POST /api/v1/keys/confirm`: the access rows of a scope are the right ones, although the anchor does not say so.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfirmScope {
    /// The scope: a project's id.
    pub scope: Uuid,
    /// The root of its manifest, in hexadecimal digits, as `GET /api/v1/keys` shows it: what is confirmed is what was looked at.
    pub root: String,
}

/// `POST /api/v1/projects/shred`: a project's keys are destroyed, and everything in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ShredProject {
    /// The project.
    pub name: ProjectName,
    /// The name again: nothing brings it back.
    pub confirm: ProjectName,
}

/// `GET /api/v1/keys`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Keys {
    /// The terms, oldest first.
    pub terms: Vec<Term>,
    /// The keys for MACs, by purpose, oldest generation first.
    pub purpose_keys: Vec<PurposeKey>,
    /// Projects with more than one generation of their key in use.
    pub project_keys: Vec<ProjectKey>,
    /// How many wrapped keys the current root key has not wrapped yet. Where the server cannot read it now, all of them.
    pub root_outdated: u64,
    /// Which root key wraps now, opaque; nothing while a key service has not said yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_key_id: Option<String>,
    /// The newest rotations, those that go on first.
    pub rotations: Vec<Rotation>,
    /// Scopes that wait for an operator's word.
    pub quarantines: Vec<Quarantine>,
}

/// A term of the keyring.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Term {
    /// Its number.
    pub term: i32,
    /// `pre-active`, `active`, `decrypt-only`, `compromised` or `destroyed`.
    pub state: String,
    /// How many keys it wraps.
    pub uses: u64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it stopped being the active one.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<OffsetDateTime>,
}

/// A generation of a purpose's key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PurposeKey {
    /// `row-mac`, `token`, `session` or `audit`.
    pub purpose: String,
    /// Its generation.
    pub generation: i32,
    /// The term that wraps it.
    pub term: i32,
    /// As a term's.
    pub state: String,
}

/// A generation of a project's key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProjectKey {
    /// Whose.
    pub project: ProjectName,
    /// Its generation.
    pub generation: i32,
    /// The term that wraps it.
    pub term: i32,
    /// `active` or `decrypt-only`.
    pub state: String,
    /// How many versions it wraps.
    pub uses: u64,
}

/// Work on a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rotation {
    /// Its id.
    pub id: Uuid,
    /// `root`, `term`, `project-key` or `shred`.
    pub what: String,
    /// Whose key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// The term or the generation that it makes; 0 where it makes none.
    pub target: i32,
    /// Whether what came before may be known to somebody.
    pub compromised: bool,
    /// Who asked for it.
    pub author: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// What it does now; `finished` at its end.
    pub stage: String,
    /// How many rows are done.
    pub done: u64,
    /// Of how many there were when it began; writes meanwhile add to what is done.
    pub total: u64,
    /// Why the last step failed; it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// When it ended.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<OffsetDateTime>,
}

/// A scope whose access rows are others than the anchor says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quarantine {
    /// The project's id.
    pub scope: Uuid,
    /// Its name, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectName>,
    /// The root of its manifest now, in hexadecimal digits.
    pub root: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}
