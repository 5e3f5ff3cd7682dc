//! The words and rules of Strongroom, without IO.
//!
//! What it is: the types every other crate speaks in ([`SecretPath`], [`Identity`], [`SecretBytes`], [`AuditEvent`], [`Clock`]) and the wrappers
//! that keep an unchecked database row apart from a checked one ([`Unverified`], [`Verified`]).
//! What it is not: a place for SQL, HTTP, cryptography or policy decisions.

mod action;
mod audit;
mod bytes;
mod clock;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod id;
mod identity;
mod metadata;
mod moment;
#[cfg(feature = "openapi")]
mod openapi;
mod path;
mod payload;
mod principal;
mod reference;
mod row;

pub use action::{Action, UnknownAction};
pub use audit::{AuditEvent, Decision};
pub use bytes::SecretBytes;
pub use clock::{Clock, FixedClock, SystemClock};
pub use id::{ClusterId, GrantId, InstanceId, PolicyId, ProjectId, RoleId, SecretId, TokenId};
pub use identity::{BadIdentity, Identity, PodIdentity, Workload, is_kubernetes_name};
pub use metadata::{Aliases, BadMetadata, Labels, MAX_ALIASES, MAX_LABELS, Owner};
pub use moment::{BadMoment, Moment};
pub use path::{BadPath, FolderPath, ProjectName, Scope, SecretPath};
pub use payload::{BadPayload, FIELDS_MEDIA_TYPE, MAX_FIELDS, MAX_PAYLOAD, Payload};
pub use principal::{BadPrincipal, MemberPattern, PrincipalRef, RoleName};
pub use reference::{AliasName, BadReference, FieldName, Reference, VersionSelector};
pub use row::{AccessRow, Columns, MacRow, Maced, Place, RowMac, Unverified, Verified};
