//! Secrets and their versions: the rows. How they are read and written stands in the files beside this one.

mod expiry;
mod list;
mod read;
mod rekey;
mod versions;
mod write;

pub use expiry::{
    DueExpiry, ExpiryCounts, ExpiryStage, claim_expiries, count_expiries, due_expiries, forget_expiry, mark_expiry,
    next_expiry,
};
pub use list::{ListedSecret, PathRange, SecretFilter, list_children, list_secrets, search_secrets};
pub use read::{
    Found, Selector, find_secret, hold_path, lock_secret, read_secret, secrets_at, share_secret, try_lock_secret,
};
pub use rekey::{
    delete_some_secrets, lock_outdated_secrets_after, lock_secrets_after, reseal_version, rewrap_versions,
    versions_before,
};
pub use versions::{
    FoundVersion, find_version, first_versions, insert_version, lock_version, prune_versions, read_version,
    update_version, versions_of, versions_with_values,
};
pub use write::{fits, insert_secret, purge_secret, update_secret};

use crate::error::StoreError;
use strongroom_core::{Aliases, Columns, Labels, MacRow, Owner, ProjectId, RowMac, SecretId, SecretPath, Unverified};
use time::OffsetDateTime;

/// A secret: the path's binding to an id, which versions its aliases point at, and what is known beside its value.
#[derive(Clone, Debug)]
pub struct SecretRow {
    /// Its id; ciphertexts name it.
    pub id: SecretId,
    /// The project it lies in.
    pub project: ProjectId,
    /// Its path.
    pub path: SecretPath,
    /// Whether it is deleted.
    pub deleted: bool,
    /// The highest number given out.
    pub latest_version: i64,
    /// What `current` points at.
    pub current_version: i64,
    /// What `previous` points at.
    pub previous_version: Option<i64>,
    /// When it was first put.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
    /// What `pending` points at.
    pub pending_version: Option<i64>,
    /// The free aliases.
    pub aliases: Aliases,
    /// Its labels.
    pub labels: Labels,
    /// Who answers for it.
    pub owner: Option<Owner>,
    /// When it stops being readable.
    pub expires_at: Option<OffsetDateTime>,
    /// Whether it is protected from deletion, whatever its project says.
    pub deletion_protected: bool,
    /// Most versions kept; the project's number where it says none.
    pub keep_versions: Option<i32>,
    /// Versions below were pruned, but for those that an alias points at.
    pub oldest_version: i64,
    /// How many numbers from `oldest_version` on were given up: no version has them.
    pub skipped_versions: i64,
    /// Counts this row's changes, from 1.
    pub revision: i64,
}

impl MacRow for SecretRow {
    const TABLE: &'static str = "secrets";
    const LAYOUT: i16 = 2;

    fn columns(&self, out: &mut Columns) {
        self.first_layout(out);
        out.optional(self.pending_version, |c, version| {
            c.integer(version);
        });
        out.text(&self.aliases.canonical()).text(&self.labels.canonical());
        out.optional(self.owner.as_ref(), |c, owner| {
            c.text(owner.as_str());
        });
        out.optional(self.expires_at, |c, at| {
            c.time(at);
        });
        out.boolean(self.deletion_protected);
        out.optional(self.keep_versions, |c, kept| {
            c.integer(kept.into());
        });
        out.integer(self.oldest_version).integer(self.skipped_versions).integer(self.revision);
    }

    fn columns_of(&self, layout: i16, out: &mut Columns) -> bool {
        match layout {
            Self::LAYOUT => self.columns(out),
            1 if self.has_only_first_layout() => self.first_layout(out),
            _ => return false,
        }
        true
    }
}

impl SecretRow {
    /// A secret as it is first put, with version 1.
    pub fn new(id: SecretId, project: ProjectId, path: SecretPath, now: OffsetDateTime) -> Self {
        Self {
            id,
            project,
            path,
            deleted: false,
            latest_version: 1,
            current_version: 1,
            previous_version: None,
            created_at: now,
            updated_at: now,
            pending_version: None,
            aliases: Aliases::default(),
            labels: Labels::default(),
            owner: None,
            expires_at: None,
            deletion_protected: false,
            keep_versions: None,
            oldest_version: 1,
            skipped_versions: 0,
            revision: 1,
        }
    }

    fn first_layout(&self, out: &mut Columns) {
        out.uuid(self.id.0).uuid(self.project.0).text(self.path.as_str()).boolean(self.deleted);
        out.integer(self.latest_version).integer(self.current_version);
        out.optional(self.previous_version, |c, version| {
            c.integer(version);
        });
        out.time(self.created_at).time(self.updated_at);
    }

    fn has_only_first_layout(&self) -> bool {
        self.pending_version.is_none()
            && self.aliases == Aliases::default()
            && self.labels.is_empty()
            && self.owner.is_none()
            && self.expires_at.is_none()
            && !self.deletion_protected
            && self.keep_versions.is_none()
            && self.oldest_version == 1
            && self.skipped_versions == 0
            && self.revision == 1
    }

    const fn state(&self) -> &'static str {
        if self.deleted { "deleted" } else { "live" }
    }
}

/// What became of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// It can be read.
    Live,
    /// It cannot be read until it is undeleted.
    Deleted,
    /// Its ciphertext and wrapped key are erased.
    Destroyed,
}

impl VersionState {
    /// Its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Deleted => "deleted",
            Self::Destroyed => "destroyed",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "live" => Ok(Self::Live),
            "deleted" => Ok(Self::Deleted),
            "destroyed" => Ok(Self::Destroyed),
            _ => Err(StoreError::Corrupt { table: "secret_versions", column: "state" }),
        }
    }
}

/// A version. The sealed value authenticates itself; the MAC covers the rest.
#[derive(Clone, Debug)]
pub struct VersionRow {
    /// Whose version.
    pub secret: SecretId,
    /// Its number, from 1.
    pub version: i64,
    /// Who put it.
    pub author: String,
    /// Why.
    pub reason: Option<String>,
    /// What kind of payload.
    pub media_type: String,
    /// When.
    pub created_at: OffsetDateTime,
    /// Which generation of the project's key wraps the data key.
    pub project_key_generation: i32,
    /// The data key, sealed under the project's key; empty once destroyed.
    pub wrapped_key: Vec<u8>,
    /// The value, sealed under the data key; empty once destroyed.
    pub sealed_value: Vec<u8>,
    /// What became of it.
    pub state: VersionState,
}

impl MacRow for VersionRow {
    const TABLE: &'static str = "secret_versions";
    const LAYOUT: i16 = 2;

    fn columns(&self, out: &mut Columns) {
        self.first_layout(out);
        out.text(self.state.as_str());
    }

    fn columns_of(&self, layout: i16, out: &mut Columns) -> bool {
        match layout {
            Self::LAYOUT => self.columns(out),
            1 if self.state == VersionState::Live => self.first_layout(out),
            _ => return false,
        }
        true
    }
}

impl VersionRow {
    fn first_layout(&self, out: &mut Columns) {
        out.uuid(self.secret.0).integer(self.version).text(&self.author);
        out.optional(self.reason.as_deref(), |c, reason| {
            c.text(reason);
        });
        out.text(&self.media_type)
            .time(self.created_at)
            .integer(self.project_key_generation.into())
            .bytes(&self.wrapped_key);
    }
}

/// A secret's row as the queries return it.
struct RawSecret {
    id: uuid::Uuid,
    project_id: uuid::Uuid,
    path: String,
    state: String,
    latest_version: i64,
    current_version: i64,
    previous_version: Option<i64>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    pending_version: Option<i64>,
    aliases: String,
    labels: String,
    owner: Option<String>,
    expires_at: Option<OffsetDateTime>,
    deletion_protected: bool,
    keep_versions: Option<i32>,
    oldest_version: i64,
    skipped_versions: i64,
    revision: i64,
    mac_generation: i32,
    mac_layout: i16,
    mac: Vec<u8>,
}

impl RawSecret {
    fn unverified(self) -> Result<Unverified<SecretRow>, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "secrets", column };
        let row = SecretRow {
            id: SecretId(self.id),
            project: ProjectId(self.project_id),
            path: SecretPath::parse(&self.path).map_err(|_| corrupt("path"))?,
            deleted: match self.state.as_str() {
                "live" => false,
                "deleted" => true,
                _ => return Err(corrupt("state")),
            },
            latest_version: self.latest_version,
            current_version: self.current_version,
            previous_version: self.previous_version,
            created_at: self.created_at,
            updated_at: self.updated_at,
            pending_version: self.pending_version,
            aliases: Aliases::parse_canonical(&self.aliases).map_err(|_| corrupt("aliases"))?,
            labels: Labels::parse_canonical(&self.labels).map_err(|_| corrupt("labels"))?,
            owner: self.owner.as_deref().map(Owner::parse).transpose().map_err(|_| corrupt("owner"))?,
            expires_at: self.expires_at,
            deletion_protected: self.deletion_protected,
            keep_versions: self.keep_versions,
            oldest_version: self.oldest_version,
            skipped_versions: self.skipped_versions,
            revision: self.revision,
        };
        Ok(Unverified::new(row, RowMac { generation: self.mac_generation, layout: self.mac_layout, tag: self.mac }))
    }
}
