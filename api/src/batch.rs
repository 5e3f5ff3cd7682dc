//! Many secrets in one request.

use crate::{
    Problem,
    metadata::{Changed, PatchMetadata, PutAlias},
    secrets::{PatchSecret, PutResult, PutSecret, SecretValue},
};
use serde::{Deserialize, Serialize};
use strongroom_core::{Reference, SecretPath};

/// Most references of a [`ReadBatch`], and most operations of a [`WriteBatch`].
pub const MAX_BATCH: usize = 100;

/// Most bytes of values in the answer to one [`ReadBatch`], as they are stored.
pub const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// `POST /api/v1/secrets/read`: the values of 1 to [`MAX_BATCH`] references. Each is decided on and audited by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReadBatch {
    /// `project/name[#field][@alias]`.
    pub references: Vec<Reference>,
}

/// The answer to a [`ReadBatch`]: one result for each reference, in their order.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadResults {
    /// The results.
    pub results: Vec<ReadResult>,
}

/// What became of one reference.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReadResult {
    /// The value.
    Value(SecretValue),
    /// Why there is none.
    Problem(Problem),
}

/// `POST /api/v1/secrets/write`: 1 to [`MAX_BATCH`] operations in one transaction, all or nothing. They are done in the order of their paths; those on one path
/// in the order they stand in. Where one fails, `detail` begins with its place, as in `operations[3]`. Whether a project has room for all that they add is looked
/// at when they are done: then no place is named.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WriteBatch {
    /// The operations.
    pub operations: Vec<Operation>,
}

/// One write. Its `body` is that of the route that does it alone.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Puts a version.
    Put(On<PutSecret>),
    /// Puts a version made of the current one.
    Patch(On<PatchSecret>),
    /// Deletes a secret, or a version of it.
    Delete(DeleteOn),
    /// Points an alias at a version. The body may name the version that must be current.
    Alias(AliasOn),
    /// Changes metadata.
    Metadata(MetadataOn),
}

/// A write to a path, by a body.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct On<T> {
    /// Which secret.
    pub path: SecretPath,
    /// Only where this version is current; 0: only where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// What to write.
    pub body: T,
}

/// A deletion.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeleteOn {
    /// Which secret.
    pub path: SecretPath,
    /// Which version of it; the whole secret without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Only where this version is current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
}

/// An alias, pointed at a version.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AliasOn {
    /// Which secret.
    pub path: SecretPath,
    /// `current`, `pending` or a free name.
    pub alias: String,
    /// What it points at.
    pub body: PutAlias,
}

/// A change of metadata.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MetadataOn {
    /// Which secret.
    pub path: SecretPath,
    /// Only where the metadata has this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_revision: Option<u64>,
    /// What changes.
    pub body: PatchMetadata,
}

impl Operation {
    /// The path it is about.
    pub fn path(&self) -> &SecretPath {
        match self {
            Self::Put(on) => &on.path,
            Self::Patch(on) => &on.path,
            Self::Delete(on) => &on.path,
            Self::Alias(on) => &on.path,
            Self::Metadata(on) => &on.path,
        }
    }
}

/// The answer to a [`WriteBatch`]: one result for each operation, in their order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WriteResults {
    /// The results.
    pub results: Vec<WriteResult>,
}

/// What one operation came to: what it answers where it is done alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WriteResult {
    /// Of a put or a patch.
    Put(PutResult),
    /// Of a deletion: which secret.
    Deleted(SecretPath),
    /// Of an alias.
    Alias(Changed),
    /// Of metadata.
    Metadata(Changed),
}
