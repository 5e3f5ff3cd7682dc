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
mod notifications;
mod policies;
mod pool;
mod projects;
mod revision;
mod roles;
mod secrets;
mod tokens;

pub use audit::{AuditRow, EventWriter, insert_events};
pub use clusters::{
    ClusterRow, RetiredNameRow, cluster_by_name, clusters, delete_cluster, insert_cluster, retire_name, retired_name,
};
pub use error::{Conflict, StoreError};
pub use grants::{GrantRow, delete_grant, grants_for, grants_of_project, insert_grant};
pub use instance::{
    InstanceKind, InstanceRow, claimed_instance, insert_instance, instance, is_migrated, lock_instance, update_instance,
};
pub use keyring::{PurposeKeyRow, TermRow, insert_purpose_key, insert_term, purpose_keys, terms};
pub use notifications::{Listener, notify_change};
pub use policies::{PolicyRow, delete_policy, policies_for, policies_of_project, policy_by_name, upsert_policy};
pub use pool::{Connection, Options, Store, Transaction};
pub use projects::{
    ProjectKeyRow, ProjectRow, active_project_key, insert_project, insert_project_key, project_by_name, projects,
};
pub use revision::{RevisionRow, insert_revision, lock_revision, update_revision};
pub use roles::{
    MemberRow, RoleRow, delete_members, delete_role, insert_member, insert_role, members_of, role_for_update,
    roles_for, roles_of_project,
};
pub use secrets::{
    Found, FoundVersion, SecretRow, Selector, VersionRow, find_secret, insert_secret, insert_version, list_secrets,
    lock_secret, read_secret, update_secret, versions_of,
};
pub use tokens::{TokenRow, insert_token, token_by_hash};
