//! Who is asking.

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;
use uuid::Uuid;

/// Longest Kubernetes name (a DNS subdomain) in bytes.
const MAX_NAME: usize = 253;

/// Why a text is not the name of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadIdentity {
    /// A cluster, namespace or service account that no Kubernetes accepts.
    #[error("a {part} has 1 to {MAX_NAME} characters of a-z 0-9 . -, and starts and ends with a letter or digit")]
    Name {
        /// Which part.
        part: &'static str,
    },
    /// Not `workload:cluster/namespace/account`, `user:name` or `service:name`.
    #[error("an identity is written workload:CLUSTER/NAMESPACE/ACCOUNT, user:NAME or service:NAME")]
    Form,
    /// A person's or service's name with other characters.
    #[error("a user's or service's name has 1 to {MAX_NAME} characters of a-z 0-9 . _ @ + -")]
    Account,
}

/// A Kubernetes service account of a registered cluster. Names of clusters never change, so the triple says who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Workload {
    cluster: String,
    namespace: String,
    service_account: String,
}

impl Workload {
    /// Parses the three names; each is a lower-case DNS name, as Kubernetes has them.
    pub fn parse(cluster: &str, namespace: &str, service_account: &str) -> Result<Self, BadIdentity> {
        for (part, name) in [("cluster", cluster), ("namespace", namespace), ("service account", service_account)] {
            if !is_kubernetes_name(name) {
                return Err(BadIdentity::Name { part });
            }
        }
        Ok(Self {
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        })
    }

    /// The registered cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.cluster, self.namespace, self.service_account)
    }
}

/// The pod behind a workload's login, as the cluster vouched for it. Never used to allow anything by name alone; the UIDs say which pod it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodIdentity {
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: Uuid,
    /// The service account's UID.
    pub account_uid: Uuid,
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A pod, by its service account.
    Workload {
        /// Which service account.
        workload: Workload,
        /// Which pod.
        pod: PodIdentity,
    },
    /// A person.
    User {
        /// The person's name.
        name: String,
    },
    /// A machine outside the clusters.
    Service {
        /// The service's name.
        name: String,
    },
}

impl Identity {
    /// A person.
    pub fn user(name: &str) -> Result<Self, BadIdentity> {
        if is_account_name(name) { Ok(Self::User { name: name.to_owned() }) } else { Err(BadIdentity::Account) }
    }

    /// The principal's text, as grants and audit events name it: `workload:cluster/namespace/account`, `user:name` or `service:name`.
    pub fn principal(&self) -> String {
        match self {
            Self::Workload { workload, .. } => format!("workload:{workload}"),
            Self::User { name } => format!("user:{name}"),
            Self::Service { name } => format!("service:{name}"),
        }
    }

    /// Checks the text form that [`Self::principal`] gives.
    pub fn check_principal(text: &str) -> Result<(), BadIdentity> {
        match text.split_once(':') {
            Some(("workload", rest)) => {
                let mut parts = rest.split('/');
                match (parts.next(), parts.next(), parts.next(), parts.next()) {
                    (Some(cluster), Some(namespace), Some(account), None) => {
                        Workload::parse(cluster, namespace, account).map(|_| ())
                    }
                    _ => Err(BadIdentity::Form),
                }
            }
            Some(("user" | "service", name)) if is_account_name(name) => Ok(()),
            Some(("user" | "service", _)) => Err(BadIdentity::Account),
            _ => Err(BadIdentity::Form),
        }
    }
}

/// Whether a text is a name as Kubernetes has them (a DNS subdomain): 1 to 253 characters of `a-z 0-9 . -`, with a letter or digit at both ends.
pub fn is_kubernetes_name(name: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        && edge(name.bytes().next())
        && edge(name.bytes().last())
}

fn is_account_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_' | b'@' | b'+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_no_cluster_would_accept_are_refused() {
        for bad in ["", "A", "a/b", "-a", "a-", "a b", "a\u{e9}", "*"] {
            assert!(Workload::parse("lab", bad, "app").is_err(), "{bad:?}");
        }
        assert_eq!(Workload::parse("lab", "payments", "api").unwrap().to_string(), "lab/payments/api");
    }

    #[test]
    fn principals_are_checked_whole() {
        for good in ["workload:lab/payments/api", "user:ada@example.org", "service:ci"] {
            assert_eq!(Identity::check_principal(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "lab/payments/api",
            "workload:lab/payments",
            "workload:a/b/c/d",
            "workload:*/b/c",
            "user:",
            "user:Ada",
            "robot:x",
        ] {
            assert!(Identity::check_principal(bad).is_err(), "{bad}");
        }
    }
}
