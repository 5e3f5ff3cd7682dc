//! Projects, clusters, roles, grants and policies on the wire.

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

/// A list of any of these.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Items<T> {
    /// All of them, by name or age.
    pub items: Vec<T>,
}
