//! PostgreSQL. The only crate that speaks SQL.
//!
//! What it is: one function a query, each query in one place, listed columns, checked counts of affected rows.
//! What it is not: trusting. It cannot decrypt and cannot verify a MAC: rows come out as [`strongroom_core::Unverified`] and go in as
//! [`strongroom_core::Maced`].

mod audit;
mod clusters;
mod error;
mod grants;
mod instance;
mod keyring;
mod manifests;
mod notifications;
mod policies;
mod pool;
mod projects;
mod quarantines;
mod remac;
mod removal;
mod replicas;
mod revision;
mod roles;
mod rotations;
mod secrets;
mod tokens;
mod tombstones;
mod uses;

pub use audit::{AuditRow, EventWriter, insert_events};
pub use clusters::{ClusterRow, RetiredNameRow, clusters, delete_cluster, insert_cluster, retire_name, retired_names};
pub use error::{Conflict, StoreError};
pub use grants::{GrantRow, delete_grant, grants_of, insert_grant};
pub use instance::{
    InstanceKind, InstanceRow, claimed_instance, insert_instance, instance, is_migrated, lock_instance, update_instance,
};
pub use keyring::{
    PurposeKeyRow, TermRow, insert_purpose_key, insert_term, purpose_keys, terms, update_purpose_key, update_term,
};
pub use manifests::{
    ManifestRow, ManifestScope, delete_manifest, insert_manifest, manifest, manifests, manifests_for, update_manifest,
};
pub use notifications::{Listener, notify_change};
pub use policies::{PolicyRow, delete_policy, insert_policy, policies_of_project};
pub use pool::{Connection, Options, Store, Transaction};
pub use projects::{
    ProjectKeyRow, ProjectRow, ProjectSettings, insert_project, insert_project_key, project_keys, projects,
    update_project, update_project_key,
};
pub use quarantines::{QuarantineRow, delete_quarantine, insert_quarantine, quarantines};
pub use remac::Remac;
pub use removal::{delete_all_tokens, delete_idempotency_keys, delete_project};
pub use replicas::{beat, leave, live_replicas, try_duty};
pub use revision::{RevisionRow, insert_revision, lock_revision, revision, update_revision};
pub use roles::{
    MemberRow, RoleRow, delete_members, delete_role, insert_member, insert_role, members_of_project, roles_of_project,
};
pub use rotations::{
    Progress, RotationKind, RotationRow, claim_rotation, delete_finished_rotations, insert_rotation, note_failure,
    open_rotations, remac_rotation, rotations, update_progress,
};
pub use secrets::{
    Found, SecretRow, Selector, VersionRow, VersionState, delete_some_secrets, find_secret, insert_secret,
    insert_version, list_secrets, lock_all_secrets_after, lock_secret, lock_secrets_after, read_secret, reseal_version,
    rewrap_versions, update_secret, update_version, versions_before, versions_of,
};
pub use tokens::{TokenRow, insert_token, tokens};
pub use tombstones::{TombstoneRow, delete_tombstones, insert_tombstone, tombstones};
pub use uses::{
    Use, await_keys, count_versions, hold_keys, is_wrapped_before, project_authenticated_before,
    project_with_retired_keys, project_wrapped_otherwise, projects_wrapped_otherwise, retired_project_keys,
    secrets_authenticated_before, uses_of_project_keys, uses_of_terms,
};
