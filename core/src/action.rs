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
    /// Put a new version.
    Write = "write",
    /// Delete a secret (it can be undeleted).
    Delete = "delete",
    /// Create, change and remove a project's roles.
    ManageRoles = "manage-roles",
    /// Grant and revoke within a project.
    ManageGrants = "manage-grants",
    /// Write and remove a project's free-text policies.
    ManagePolicies = "manage-policies",
    /// Create a project.
    CreateProject = "create-project",
    /// Register and remove clusters.
    ManageClusters = "manage-clusters",
    /// Remove or replace a project's forbid policy: whoever manages a project's policies may be the one it binds.
    RemoveForbids = "remove-forbids",
    /// Exchange a credential for a session. Audited, never granted.
    Login = "login",
    /// Take over a new instance as its first admin. Audited, never granted.
    ClaimAdmin = "claim-admin",
    /// Watch secrets for changes; needs `read` on each. Audited, never granted.
    Watch = "watch",
    /// Ask who one is. Audited, never granted.
    WhoAmI = "who-am-i",
}

impl Action {
    /// Actions on secrets and folders, which a grant may name.
    pub const ON_SECRETS: [Self; 5] = [Self::Read, Self::Describe, Self::List, Self::Write, Self::Delete];
    /// Actions on a project as a whole, which a grant may name for the whole project only.
    pub const ON_PROJECTS: [Self; 3] = [Self::ManageRoles, Self::ManageGrants, Self::ManagePolicies];
    /// Actions on the instance.
    pub const ON_INSTANCE: [Self; 3] = [Self::CreateProject, Self::ManageClusters, Self::RemoveForbids];
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
