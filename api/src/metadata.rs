//! What is known of a secret beside its value, and where secrets go: metadata, aliases, states of versions, renaming, copying.

use crate::Update;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use strongroom_core::{AliasName, Labels, Moment, Owner, SecretPath};
use time::OffsetDateTime;

/// `GET /api/v1/secret/metadata?path=`. The `ETag` is the revision: `"r7"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Metadata {
    /// Which secret.
    pub path: SecretPath,
    /// Its labels.
    pub labels: Labels,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// When it stops being readable.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// Whether that time has come.
    pub expired: bool,
    /// Most versions kept, where the secret says another number than its project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_versions: Option<u32>,
    /// Whether it is protected from deletion, whatever its project says.
    pub deletion_protected: bool,
    /// Whether it is deleted.
    pub deleted: bool,
    /// What its aliases point at.
    #[serde(flatten)]
    pub pointers: Pointers,
    /// The highest version's number.
    pub latest: u64,
    /// Counts the changes of everything here.
    pub revision: u64,
    /// When it was first put.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// The answer to a change of metadata or of an alias. The `ETag` is the revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Changed {
    /// Which secret.
    pub path: SecretPath,
    /// Its revision now; the same as before where nothing was to be changed.
    pub revision: u64,
    /// All that is known of it now. Only those who may `describe` it are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub metadata: Option<Metadata>,
}

/// What a secret's aliases point at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pointers {
    /// The version that is read where none is named.
    pub current: u64,
    /// The version that was current before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<u64>,
    /// The version that was put to be activated later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u64>,
    /// The free aliases.
    #[serde(default)]
    pub aliases: BTreeMap<AliasName, u64>,
}

/// `PATCH /api/v1/secret/metadata?path=`: what is left out stays, null removes. `If-Match: "r7"` makes it conditional on the revision.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PatchMetadata {
    /// Labels to set, or with null to remove; the others stay. Needs `manage-grants` too: policies see labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
    /// Who answers for it. Needs `manage-grants` too: policies see owners.
    #[serde(default, skip_serializing_if = "Update::is_keep")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Owner>))]
    pub owner: Update<Owner>,
    /// When it stops being readable.
    #[serde(default, skip_serializing_if = "Update::is_keep")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Moment>))]
    pub expires_at: Update<Moment>,
    /// Most versions kept, 1 to 10,000; null: the project's number. What is beyond it goes with the next put.
    #[serde(default, skip_serializing_if = "Update::is_keep")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>))]
    pub keep_versions: Update<u32>,
    /// Whether it is protected from deletion. Lifting needs `purge` too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protected: Option<bool>,
}

/// A version as an alias is pointed at it: by its number, or by another alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Target {
    /// This version.
    Number(u64),
    /// What this alias points at: `current`, `previous`, `pending` or a free one.
    Alias(String),
}

/// `PUT /api/v1/secret/alias?path=&alias=`. `current` activates a version, which is also how to go back to an earlier one; `pending` names what is to be
/// activated later; up to 32 others are free. `previous` moves by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PutAlias {
    /// Where it points from now on: a version that can be read.
    pub version: Target,
    /// Only where this version is current, as `If-Match` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
}

/// `POST /api/v1/secret/destroy`: value and wrapped key of these versions are erased for good.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Destroy {
    /// Which secret.
    pub path: SecretPath,
    /// Which versions, 1 to 100. None that an alias but `previous` points at.
    pub versions: Vec<u64>,
}

/// `POST /api/v1/secret/purge`: the secret with all its versions is removed for good. Its path is free again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Purge {
    /// Which secret.
    pub path: SecretPath,
}

/// `POST /api/v1/secret/rename`: the same secret with all its versions and metadata at another path of its project.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// Where it lies.
    pub from: SecretPath,
    /// Where it is to lie; nothing may be there, not even a deleted secret.
    pub to: SecretPath,
}

/// Which versions are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CopiedVersions {
    /// The current one; it becomes version 1.
    #[default]
    Current,
    /// All that can be read, under their numbers, with their aliases.
    All,
}

/// `POST /api/v1/secret/copy`: a new secret with values of another, sealed anew. Until that is done, whoever writes the other one waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// Where it lies.
    pub from: SecretPath,
    /// Where the copy is to lie; nothing may be there, not even a deleted secret.
    pub to: SecretPath,
    /// Which versions.
    #[serde(default)]
    pub versions: CopiedVersions,
    /// Whether labels and owner are copied too. Needs `manage-grants` at the target; expiry, versions kept and deletion protection are always copied.
    #[serde(default)]
    pub metadata: bool,
}

/// `POST /api/v1/secret/move`: all versions that can be read go to another project; the source is removed for good, and what could not be read with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// Where it lies.
    pub from: SecretPath,
    /// Where it is to lie; nothing may be there, not even a deleted secret.
    pub to: SecretPath,
    /// Whether labels and owner go too. Needs `manage-grants` at the target.
    #[serde(default)]
    pub metadata: bool,
}

/// The answer to a rename, a copy or a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Placed {
    /// Where it lies now.
    pub path: SecretPath,
    /// What `current` points at there.
    pub version: u64,
    /// How many versions were sealed anew; none by a rename.
    pub copied: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_patch_what_is_left_out_differs_from_null() {
        let patch = |text: &str| serde_json::from_str::<PatchMetadata>(text).unwrap();
        let none = patch("{}");
        assert!(none.owner.is_keep() && none.expires_at.is_keep() && none.keep_versions.is_keep());
        let null = patch(r#"{"owner":null,"expires_at":null,"keep_versions":null}"#);
        assert_eq!((null.owner, null.expires_at, null.keep_versions), (Update::Clear, Update::Clear, Update::Clear));
        let set =
            r#"{"labels":{"a":"1","b":null},"owner":"team:a","expires_at":"2030-01-01T00:00:00Z","keep_versions":3}"#;
        assert_eq!(serde_json::to_string(&patch(set)).unwrap(), set);
        let cleared = r#"{"owner":null,"expires_at":null,"keep_versions":null}"#;
        assert_eq!(serde_json::to_string(&patch(cleared)).unwrap(), cleared);
    }

    #[test]
    fn a_target_is_a_number_or_a_name_and_nothing_else() {
        let put = |text: &str| serde_json::from_str::<PutAlias>(text).map(|put| put.version);
        assert_eq!(put(r#"{"version":3}"#).unwrap(), Target::Number(3));
        assert_eq!(put(r#"{"version":"pending"}"#).unwrap(), Target::Alias("pending".to_owned()));
        for bad in [r#"{"version":-1}"#, r#"{"version":null}"#, r#"{"version":1.5}"#, r#"{"version":[1]}"#, "{}"] {
            assert!(put(bad).is_err(), "{bad}");
        }
    }
}
