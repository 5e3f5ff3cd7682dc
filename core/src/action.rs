//! What a caller may be allowed to do.

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// Not the name of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no such action; the actions are: {}", Action::ALL.map(Action::as_str).join(", "))]
pub struct UnknownAction;

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// One verb of the permission model. The same name stands in policies, grants, audit events and documents.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "kebab-case")]
        pub enum Action {
            $($(#[$doc])* $name),+
        }

        impl Action {
            /// Every action.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$name),+];

            /// Its name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

actions! {
    /// See a secret's value.
    Read = "read",
    /// See that a secret exists, its versions and metadata, not its value.
    Describe = "describe",
    /// See a secret's path in lists.
    List = "list",
    /// Put a new version, point aliases at versions, set expiry and how many versions are kept.
    Write = "write",
    /// Delete a secret or a version, and undelete it.
    Delete = "delete",
    /// Destroy versions: their ciphertext and wrapped keys are erased for good.
    Destroy = "destroy",
    /// Remove a secret with all its versions for good, and lift deletion protection.
    Purge = "purge",
    /// Create, change and remove a project's roles.
    ManageRoles = "manage-roles",
    /// Grant and revoke within a project.
    ManageGrants = "manage-grants",
    /// Write and remove a project's free-text policies.
    ManagePolicies = "manage-policies",
    /// Change a project's settings, and rotate its key.
    ManageProject = "manage-project",
    /// Create a project.
    CreateProject = "create-project",
    /// Register and remove clusters.
    ManageClusters = "manage-clusters",
    /// Remove or replace a project's forbid policy: whoever manages a project's policies may be the one it binds.
    RemoveForbids = "remove-forbids",
    /// Rotate the keyring, see how far it came, and destroy terms that nothing uses any more.
    ManageKeys = "manage-keys",
    /// Take a backup: every row, sealed as it is.
    Backup = "backup",
    /// Destroy a project's keys, and with them everything that was ever sealed under them.
    ShredProject = "shred-project",
    /// Exchange a credential for a session. Audited, never granted.
    Login = "login",
    /// Take over a new instance as its first admin. Audited, never granted.
    ClaimAdmin = "claim-admin",
    /// Watch secrets for changes; needs `read` on each. Audited, never granted.
    Watch = "watch",
    /// Ask who one is. Audited, never granted.
    WhoAmI = "who-am-i",
    /// A secret comes near its expiry, or expired. The server's own, audited, never granted.
    Expire = "expire",
    /// Access rows are checked against their manifests and the anchor. The server's own, audited, never granted.
    Verify = "verify",
    /// A step of the server's own on keys: a rotation, a rewrap. Audited, never granted.
    Rotate = "rotate",
    /// A database was restored from a backup, where the server runs. Audited, never granted.
    Restore = "restore",
}

impl Action {
    /// Actions on secrets and folders, which a grant may name.
    pub const ON_SECRETS: [Self; 7] =
        [Self::Read, Self::Describe, Self::List, Self::Write, Self::Delete, Self::Destroy, Self::Purge];
    /// Actions on a project as a whole, which a grant may name for the whole project only.
    pub const ON_PROJECTS: [Self; 4] =
        [Self::ManageRoles, Self::ManageGrants, Self::ManagePolicies, Self::ManageProject];
    /// Actions on the instance.
    pub const ON_INSTANCE: [Self; 6] = [
        Self::CreateProject,
        Self::ManageClusters,
        Self::RemoveForbids,
        Self::ManageKeys,
        Self::Backup,
        Self::ShredProject,
    ];
}

impl std::str::FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or(UnknownAction)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
