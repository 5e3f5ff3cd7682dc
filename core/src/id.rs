//! Ids of rows. Each is a UUID of its own type, so that one cannot be passed for another.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

ids! {
    /// The Strongroom instance: one database, one root key.
    InstanceId,
    /// A project, the unit of tenancy.
    ProjectId,
    /// A secret; it stays the same when the secret is renamed.
    SecretId,
    /// A registered cluster.
    ClusterId,
    /// A project's role.
    RoleId,
    /// A grant: a linked policy template.
    GrantId,
    /// A free-text Cedar policy.
    PolicyId,
    /// An issued, stored token.
    TokenId,
}
