//! PostgreSQL. The only crate that speaks SQL.
//!
//! What it is: one function a query, each query in one place, listed columns, checked counts of affected rows.
//! What it is not: trusting. It cannot decrypt and cannot verify a MAC: rows come out as [`strongroom_core::Unverified`] and go in as
//! [`strongroom_core::Maced`].

mod activity;
mod audit;
mod backup;
mod clusters;
mod concerns;
mod deliveries;
mod error;
mod grants;
mod idempotency;
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
mod restores;
mod revision;
mod roles;
mod rotations;
mod secrets;
mod tokens;
mod tombstones;
mod uses;

pub use activity::note_reads;
pub use audit::{AuditRow, EventWriter, insert_events};
pub use backup::{
    BACKUP_TABLES, BackupRow, LEFT_OUT, TableShape, is_empty, lift_limits, limit_idleness, schema_version,
};
pub use clusters::{ClusterRow, RetiredNameRow, clusters, delete_cluster, insert_cluster, retire_name, retired_names};
pub use concerns::projects_concerning;
pub use deliveries::{DeliveryRow, NewerDelivery, newer_deliveries, prune_deliveries, upsert_deliveries};
pub use error::{Conflict, StoreError};
pub use grants::{GrantRow, delete_grant, grants_of, insert_grant};
pub use idempotency::{AnswerRow, delete_answer, find_answer, insert_answer, prune_answers, try_lock_answer};
pub use instance::{
    InstanceKind, InstanceRow, claimed_instance, insert_instance, instance, is_migrated, lock_instance, update_instance,
};
pub use keyring::{
    PurposeKeyRow, TermRow, insert_purpose_key, insert_term, purpose_keys, terms, update_purpose_key, update_term,
};
pub use manifests::{
    ManifestRow, ManifestScope, delete_manifest, insert_manifest, manifest, manifests, manifests_for, manifests_of,
    update_manifest,
};
pub use notifications::{Listener, notify_change};
pub use policies::{PolicyRow, delete_policy, insert_policy, policies_of_project};
pub use pool::{Connection, Options, Store, Transaction, knows_schema, migrate_within};
pub use projects::{
    ProjectKeyRow, ProjectRow, ProjectSettings, insert_project, insert_project_key, project_keys, projects,
    update_project, update_project_key,
};
pub use quarantines::{QuarantineRow, delete_quarantine, insert_quarantine, quarantines};
pub use remac::Remac;
pub use removal::{delete_all_tokens, delete_idempotency_keys, delete_project, delete_project_keys};
pub use replicas::{beat, leave, live_replicas, try_duty};
pub use restores::{RestoreRow, insert_restore, restores, take_new_restores};
pub use revision::{RevisionRow, insert_revision, lock_revision, revision, update_revision};
pub use roles::{
    MemberRow, RoleRow, delete_members, delete_role, insert_member, insert_role, members_of_project, roles_of_project,
};
pub use rotations::{
    Progress, RotationKind, RotationRow, claim_rotation, delete_finished_rotations, delete_rotation, insert_rotation,
    note_failure, open_rotations, prune_rotations, remac_rotation, rotations, update_progress,
};
pub use secrets::{
    DueExpiry, ExpiryCounts, ExpiryStage, Found, FoundVersion, ListedSecret, PathRange, SecretFilter, SecretRow,
    Selector, VersionRow, VersionState, claim_expiries, count_expiries, delete_some_secrets, due_expiries, find_secret,
    find_version, first_versions, fits, forget_expiry, hold_path, insert_secret, insert_version, list_children,
    list_secrets, lock_outdated_secrets_after, lock_secret, lock_secrets_after, lock_version, mark_expiry, next_expiry,
    prune_versions, purge_secret, read_secret, read_version, reseal_version, rewrap_versions, search_secrets,
    secrets_at, share_secret, try_lock_secret, update_secret, update_version, versions_before, versions_of,
    versions_with_values,
};
pub use tokens::{TokenRow, insert_token, tokens};
pub use tombstones::{TombstoneRow, delete_tombstones, insert_tombstone, tombstones};
pub use uses::{
    Use, await_keys, count_versions, hold_keys, is_wrapped_before, project_to_renew, project_with_retired_keys,
    project_wrapped_otherwise, projects_wrapped_otherwise, retired_project_keys, secrets_authenticated_before,
    uses_of_project_keys, uses_of_terms,
};
