//! What crosses a wire: routes, bodies, error codes, and the configuration the injector hands the agent.
//!
//! What it is: types that the server, the client library and the injector share, so that none of them can drift.
//! What it is not: rules. Whatever has a rule is parsed into a type of `strongroom-core` while it is deserialised.

pub mod access;
pub mod agent;
mod error;
pub mod keys;
pub mod login;
mod secret_text;
pub mod secrets;
pub mod watch;

pub use error::{ErrorCode, Problem};
pub use secret_text::SecretText;

/// Paths of the API. Secret paths are query parameters, so that no proxy or router can read them differently.
pub mod routes {
    /// `POST`: a credential for a session.
    pub const LOGIN: &str = "/api/v1/login";
    /// `GET`: who the caller is.
    pub const SESSION: &str = "/api/v1/session";
    /// `GET`, `PUT`, `DELETE` with `?path=`: one secret.
    pub const SECRET: &str = "/api/v1/secret";
    /// `GET` with `?path=`: a secret's versions, without values.
    pub const SECRET_VERSIONS: &str = "/api/v1/secret/versions";
    /// `GET` with `?folder=`: the secrets in a folder and below.
    pub const SECRETS: &str = "/api/v1/secrets";
    /// `POST`: a stream of changes as server-sent events.
    pub const WATCH: &str = "/api/v1/watch";
    /// `GET`, `POST`: projects.
    pub const PROJECTS: &str = "/api/v1/projects";
    /// `GET`, `POST`, `DELETE` with `?name=`: clusters.
    pub const CLUSTERS: &str = "/api/v1/clusters";
    /// `GET` with `?project=`, `PUT`, `DELETE` with `?project=&name=`: a project's roles.
    pub const ROLES: &str = "/api/v1/roles";
    /// `GET` with `?project=`, `POST`, `DELETE` with `?project=&id=`: a project's grants.
    pub const GRANTS: &str = "/api/v1/grants";
    /// `GET` with `?project=`, `PUT`, `DELETE` with `?project=&name=`: a project's free-text policies.
    pub const POLICIES: &str = "/api/v1/policies";
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
