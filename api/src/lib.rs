//! What crosses a wire: routes, bodies, error codes, and the configuration the injector hands the agent.
//!
//! What it is: types that the server, the client library and the injector share, so that none of them can drift.
//! What it is not: rules. Whatever has a rule is parsed into a type of `strongroom-core` while it is deserialised.

pub mod access;
pub mod agent;
pub mod backup;
pub mod batch;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod generate;
pub mod keys;
pub mod login;
pub mod metadata;
mod object;
mod secret_text;
pub mod secrets;
mod update;
pub mod watch;

pub use error::{ErrorCode, Problem};
pub use secret_text::SecretText;
pub use update::Update;

/// Paths of the API. Secret paths are query parameters, so that no proxy or router can read them differently.
pub mod routes {
    /// `POST`: a credential for a session.
    pub const LOGIN: &str = "/api/v1/login";
    /// `GET`: who the caller is.
    pub const SESSION: &str = "/api/v1/session";
    /// `GET`, `PUT`, `PATCH`, `DELETE` with `?path=`: one secret; `DELETE` with `&version=` one version of it.
    pub const SECRET: &str = "/api/v1/secret";
    /// `GET` with `?path=[&before=][&limit=]`: a secret's versions, without values.
    pub const SECRET_VERSIONS: &str = "/api/v1/secret/versions";
    /// `PUT`, `DELETE` with `?path=&alias=`: what an alias points at.
    pub const SECRET_ALIAS: &str = "/api/v1/secret/alias";
    /// `GET`, `PATCH` with `?path=`: what is known of a secret beside its value.
    pub const SECRET_METADATA: &str = "/api/v1/secret/metadata";
    /// `POST` with `?path=[&version=]`: a deleted secret or version back.
    pub const SECRET_UNDELETE: &str = "/api/v1/secret/undelete";
    /// `POST`: versions destroyed for good.
    pub const SECRET_DESTROY: &str = "/api/v1/secret/destroy";
    /// `POST`: a secret removed for good.
    pub const SECRET_PURGE: &str = "/api/v1/secret/purge";
    /// `POST`: another path within the project.
    pub const SECRET_RENAME: &str = "/api/v1/secret/rename";
    /// `POST`: a copy, in another project too.
    pub const SECRET_COPY: &str = "/api/v1/secret/copy";
    /// `POST`: from one project to another.
    pub const SECRET_MOVE: &str = "/api/v1/secret/move";
    /// `POST` with `?path=`: a value that the server makes and nobody has seen.
    pub const SECRET_GENERATE: &str = "/api/v1/secret/generate";
    /// `POST`: many values in one request.
    pub const SECRETS_READ: &str = "/api/v1/secrets/read";
    /// `POST`: many writes in one transaction.
    pub const SECRETS_WRITE: &str = "/api/v1/secrets/write";
    /// `GET` with `?folder=`: the secrets in a folder and below; without it a search of everything.
    pub const SECRETS: &str = "/api/v1/secrets";
    /// `POST`: a stream of changes as server-sent events.
    pub const WATCH: &str = "/api/v1/watch";
    /// `GET`, `POST`: projects.
    pub const PROJECTS: &str = "/api/v1/projects";
    /// `GET`, `PATCH` with `?name=`: a project and its settings.
    pub const PROJECT: &str = "/api/v1/project";
    /// `GET`, `POST`, `DELETE` with `?name=`: clusters.
    pub const CLUSTERS: &str = "/api/v1/clusters";
    /// `GET` with `?project=`, `PUT`, `DELETE` with `?project=&name=`: a project's roles.
    pub const ROLES: &str = "/api/v1/roles";
    /// `GET` with `?project=`, `POST`, `DELETE` with `?project=&id=`: a project's grants.
    pub const GRANTS: &str = "/api/v1/grants";
    /// `GET` with `?project=`, `PUT`, `DELETE` with `?project=&name=`: a project's free-text policies.
    pub const POLICIES: &str = "/api/v1/policies";
    /// `POST`: has the next put of a secret get a number that no pod has seen.
    pub const SECRET_ADVANCE: &str = "/api/v1/secret/advance";
    /// `GET`: the pods that hold versions which the database has not given out.
    pub const NEWER_DELIVERIES: &str = "/api/v1/deliveries/newer";
    /// `GET`: every row, sealed as it is.
    pub const BACKUP: &str = "/api/v1/backup";
    /// `GET`: the description of the API, OpenAPI 3.1.
    pub const OPENAPI: &str = "/api/v1/openapi.json";
    /// `POST`: a project's keys are destroyed.
    pub const PROJECTS_SHRED: &str = "/api/v1/projects/shred";
    /// `GET`: terms, keys, what uses them, and rotations.
    pub const KEYS: &str = "/api/v1/keys";
    /// `POST`: a key is made anew.
    pub const KEYS_ROTATE: &str = "/api/v1/keys/rotate";
    /// `POST`: a term is destroyed.
    pub const KEYS_DESTROY: &str = "/api/v1/keys/destroy";
    /// `POST`: a quarantined scope is confirmed.
    pub const KEYS_CONFIRM: &str = "/api/v1/keys/confirm";
    /// `GET`: the process is alive.
    pub const HEALTHZ: &str = "/healthz";
    /// `GET`: the process can serve.
    pub const READYZ: &str = "/readyz";
    /// `GET`: metrics in Prometheus' text format.
    pub const METRICS: &str = "/metrics";
}

/// The prefix of a session.
pub const SESSION_PREFIX: &str = "srs_";
/// The prefix of an issued token.
pub const TOKEN_PREFIX: &str = "srt_";
