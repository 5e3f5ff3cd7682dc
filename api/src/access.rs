//! Projects, clusters, roles, grants and policies on the wire.

use crate::{Update, object};
use serde::{Deserialize, Serialize};
use strongroom_core::{Action, ClusterId, GrantId, ProjectId, ProjectName, Scope};
use time::OffsetDateTime;

/// `POST /api/v1/projects`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewProject {
    /// The first segment of its secrets' paths. Names of projects never change.
    pub name: ProjectName,
}

/// A project. Its creator is granted everything in it, by a grant that is listed and can be revoked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name.
    pub name: ProjectName,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// `GET /api/v1/project?name=`: a project and what it demands of its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProjectInfo {
    /// Its id.
    pub id: ProjectId,
    /// Its name.
    pub name: ProjectName,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Most versions kept of a secret that does not say otherwise.
    pub keep_versions: u32,
    /// Whether a write must say which version it is made for. A deletion need not: it overwrites nothing, and can be undone.
    pub require_check_and_set: bool,
    /// Whether its secrets are protected from deletion.
    pub deletion_protection: bool,
    /// How long before a secret's expiry the event is left, in seconds; 0 for none.
    pub expiry_notice_seconds: u32,
    /// Most secrets it may hold, deleted ones counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_secrets: Option<u32>,
}

/// `PATCH /api/v1/project?name=`: what is left out stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PatchProject {
    /// Most versions kept of a secret that does not say otherwise, 1 to 10,000. What is beyond it goes with a secret's next put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_versions: Option<u32>,
    /// Whether a write must say which version it is made for. A deletion need not: it overwrites nothing, and can be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_check_and_set: Option<bool>,
    /// Whether its secrets are protected from deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection: Option<bool>,
    /// How long before a secret's expiry the event is left, in seconds, at most a year; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_notice_seconds: Option<u32>,
    /// Most secrets it may hold; null: any number. Those that are there stay.
    #[serde(default, skip_serializing_if = "Update::is_keep")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>))]
    pub max_secrets: Update<u32>,
}

/// How a cluster's tokens are checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Trust {
    /// By asking the cluster's API (TokenReview): the default.
    TokenReview {
        /// The API's address, `https://…`.
        api_url: String,
        /// PEM of the CA the API's certificate must chain to.
        api_ca: String,
    },
    /// By the issuer's public keys, for a cluster the server cannot reach. A deleted pod's token stays good until it expires.
    OfflineKeys {
        /// A JSON Web Key Set, as `/openid/v1/jwks` gives it.
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        keys: serde_json::Value,
    },
}

/// `POST /api/v1/clusters`. A cluster's name and trust never change; a change is a new cluster, and roles do not follow.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewCluster {
    /// Its name.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 63, pattern = r"^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// What its tokens' `iss` must be; no two clusters share one.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 512, pattern = r"^[!-~]+$"))]
    pub issuer: String,
    /// How its tokens are checked.
    #[serde(deserialize_with = "object::deserialize")]
    pub trust: Trust,
}

/// A registered cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// Its issuer.
    pub issuer: String,
    /// `token-review` or `offline-keys`.
    pub kind: String,
    /// The audience its pods' tokens must have: `strongroom/<instance>/<cluster>`.
    pub audience: String,
    /// When it was registered.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// `PUT /api/v1/roles`: makes a role, or replaces its members.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// The project it belongs to; it can touch no other.
    pub project: ProjectName,
    /// Its name within the project.
    pub name: String,
    /// `workload:cluster/namespace/account` (`*` for the cluster or for the account), `user:name` or `service:name`.
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub members: Vec<String>,
}

/// `POST /api/v1/grants`: who may do what where.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewGrant {
    /// `role:project/name`, `workload:cluster/namespace/account`, `user:name` or `service:name`.
    pub principal: String,
    /// What.
    pub actions: Vec<Action>,
    /// `project/` for all of it, `project/folder/`, or one secret.
    pub scope: Scope,
}

/// A grant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Grant {
    /// Its id, as refusals' explanations and `revoke` name it.
    pub id: GrantId,
    /// Who.
    pub principal: String,
    /// What.
    pub actions: Vec<Action>,
    /// Where.
    pub scope: String,
    /// Who granted it.
    pub author: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// `PUT /api/v1/policies`: a free-text Cedar policy, forced into its project.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The project.
    pub project: ProjectName,
    /// Its name within the project.
    pub name: String,
    /// One Cedar policy, `permit` or `forbid`.
    pub text: String,
}

/// One page of projects.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProjectList {
    /// Those of this page, by name.
    pub items: Vec<Project>,
    /// Where the next page starts; left out after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<ProjectName>,
}

/// A list of any of these.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Items<T> {
    /// All of them, by name or age.
    pub items: Vec<T>,
}
