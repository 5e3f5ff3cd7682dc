//! Service account tokens: what a token claims, and the two ways to believe it.

mod claims;
mod offline;
mod provider;
mod review;

pub use claims::Claims;
pub use offline::{TrustedKeys, verify_offline};
pub use provider::install_jwt_provider;
pub use review::{Reviewers, check_reviewer, review};

/// The audience that a cluster's tokens must have. It names instance and cluster, so that a token is no use elsewhere.
pub fn audience(instance: &str, cluster: &str) -> String {
    format!("strongroom/{instance}/{cluster}")
}
