//! Whom a grant or a role names.

use crate::{
    identity::{BadIdentity, Identity, Workload},
    path::{BadPath, ProjectName, SecretPath},
};
use std::fmt;
use thiserror::Error;

/// Why a text names no principal, role or member. The text itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadPrincipal {
    /// None of the four forms.
    #[error("a principal is written role:PROJECT/NAME, workload:CLUSTER/NAMESPACE/ACCOUNT, user:NAME or service:NAME")]
    Form,
    /// A member of a role that is none of the three kinds of identity.
    #[error("a member is written workload:CLUSTER/NAMESPACE/ACCOUNT, user:NAME or service:NAME")]
    MemberForm,
    /// Not `project/name`.
    #[error("a role is written PROJECT/NAME, both of A-Z a-z 0-9 . _ - and together at most 512 bytes")]
    Role,
    /// `*` within a name, or where it would reach too far.
    #[error(
        "`*` stands only for a whole cluster or a whole account, never for a namespace, a part of a name, a user or a service"
    )]
    Wildcard,
    /// The identity's name is wrong.
    #[error(transparent)]
    Identity(#[from] BadIdentity),
}

/// A role's full name, `project/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleName {
    project: ProjectName,
    name: String,
}

impl RoleName {
    /// The role `name` of `project`; the name is one segment of `[A-Za-z0-9._-]`.
    pub fn new(project: ProjectName, name: &str) -> Result<Self, BadPrincipal> {
        let whole = SecretPath::parse(&format!("{project}/{name}")).map_err(|_: BadPath| BadPrincipal::Role)?;
        if whole.name() == name { Ok(Self { project, name: name.to_owned() }) } else { Err(BadPrincipal::Role) }
    }

    /// Parses `project/name`.
    pub fn parse(text: &str) -> Result<Self, BadPrincipal> {
        let (project, name) = text.split_once('/').ok_or(BadPrincipal::Role)?;
        Self::new(ProjectName::parse(project).map_err(|_: BadPath| BadPrincipal::Role)?, name)
    }

    /// The project it belongs to; it can touch no other.
    pub fn project(&self) -> &ProjectName {
        &self.project
    }

    /// Its name within the project.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.name)
    }
}

/// Whom a grant is for. Its text (`Display`) is the principal key that rows are found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrincipalRef {
    /// Every member of a role.
    Role(RoleName),
    /// One service account of one cluster.
    Workload(Workload),
    /// A person.
    User(String),
    /// A machine outside the clusters.
    Service(String),
}

impl PrincipalRef {
    /// Parses `role:project/name`, `workload:cluster/namespace/account`, `user:name` or `service:name`.
    pub fn parse(text: &str) -> Result<Self, BadPrincipal> {
        let (kind, name) = text.split_once(':').ok_or(BadPrincipal::Form)?;
        match kind {
            "role" => Ok(Self::Role(RoleName::parse(name)?)),
            "workload" => {
                let [cluster, namespace, account] = three(name)?;
                Ok(Self::Workload(Workload::parse(cluster, namespace, account)?))
            }
            "user" | "service" => {
                Identity::check_principal(text)?;
                Ok(if kind == "user" { Self::User(name.to_owned()) } else { Self::Service(name.to_owned()) })
            }
            _ => Err(BadPrincipal::Form),
        }
    }
}

impl From<&Identity> for PrincipalRef {
    fn from(identity: &Identity) -> Self {
        match identity {
            Identity::Workload { workload, .. } => Self::Workload(workload.clone()),
            Identity::User { name } => Self::User(name.clone()),
            Identity::Service { name } => Self::Service(name.clone()),
        }
    }
}

impl fmt::Display for PrincipalRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => write!(f, "role:{role}"),
            Self::Workload(workload) => write!(f, "workload:{workload}"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Service(name) => write!(f, "service:{name}"),
        }
    }
}

/// One line of a role: an identity, or the workloads of one namespace in any cluster, under any account, or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemberPattern(Pattern);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Pattern {
    /// Without a name: any cluster, any account.
    Workload {
        cluster: Option<String>,
        namespace: String,
        account: Option<String>,
    },
    User(String),
    Service(String),
}

impl MemberPattern {
    /// Parses `workload:cluster/namespace/account` (`*` for the whole cluster or the whole account), `user:name` or `service:name`.
    pub fn parse(text: &str) -> Result<Self, BadPrincipal> {
        let (kind, name) = text.split_once(':').ok_or(BadPrincipal::MemberForm)?;
        match kind {
            "workload" => {
                let [cluster, namespace, account] = three(name)?;
                let named = |segment: &str| (segment != "*").then(|| segment.to_owned());
                let (cluster, account) = (named(cluster), named(account));
                if [cluster.as_deref(), Some(namespace), account.as_deref()]
                    .into_iter()
                    .flatten()
                    .any(|name| name.contains('*'))
                {
                    return Err(BadPrincipal::Wildcard);
                }
                // Any valid name in the place of `*`, so that one rule checks all names.
                Workload::parse(cluster.as_deref().unwrap_or("any"), namespace, account.as_deref().unwrap_or("any"))?;
                Ok(Self(Pattern::Workload { cluster, namespace: namespace.to_owned(), account }))
            }
            "user" | "service" if name.contains('*') => Err(BadPrincipal::Wildcard),
            "user" | "service" => {
                Identity::check_principal(text)?;
                let name = name.to_owned();
                Ok(Self(if kind == "user" { Pattern::User(name) } else { Pattern::Service(name) }))
            }
            _ => Err(BadPrincipal::MemberForm),
        }
    }

    /// Whether `identity` is meant.
    pub fn matches(&self, identity: &Identity) -> bool {
        match (&self.0, identity) {
            (Pattern::Workload { cluster, namespace, account }, Identity::Workload { workload, .. }) => {
                cluster.as_ref().is_none_or(|cluster| cluster == workload.cluster())
                    && namespace == workload.namespace()
                    && account.as_ref().is_none_or(|account| account == workload.service_account())
            }
            (Pattern::User(member), Identity::User { name })
            | (Pattern::Service(member), Identity::Service { name }) => member == name,
            _ => false,
        }
    }
}

impl fmt::Display for MemberPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Workload { cluster, namespace, account } => {
                let (cluster, account) = (cluster.as_deref().unwrap_or("*"), account.as_deref().unwrap_or("*"));
                write!(f, "workload:{cluster}/{namespace}/{account}")
            }
            Pattern::User(name) => write!(f, "user:{name}"),
            Pattern::Service(name) => write!(f, "service:{name}"),
        }
    }
}

fn three(name: &str) -> Result<[&str; 3], BadIdentity> {
    let mut parts = name.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(cluster), Some(namespace), Some(account), None) => Ok([cluster, namespace, account]),
        _ => Err(BadIdentity::Form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PodIdentity;
    use uuid::Uuid;

    fn pod(cluster: &str, namespace: &str, account: &str) -> Identity {
        Identity::Workload {
            workload: Workload::parse(cluster, namespace, account).unwrap(),
            pod: PodIdentity { name: "api-0".to_owned(), uid: Uuid::nil(), account_uid: Uuid::nil() },
        }
    }

    #[test]
    fn principals_print_as_they_parse() {
        for text in ["role:payments/api-readers", "workload:lab/payments/api", "user:ada@example.org", "service:ci"] {
            assert_eq!(PrincipalRef::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn each_malformed_principal_has_its_own_answer() {
        for (text, expected) in [
            ("", BadPrincipal::Form),
            ("payments/api", BadPrincipal::Form),
            ("robot:x", BadPrincipal::Form),
            ("Role:p/x", BadPrincipal::Form),
            ("role:payments", BadPrincipal::Role),
            ("role:payments/", BadPrincipal::Role),
            ("role:/readers", BadPrincipal::Role),
            ("role:payments/a/b", BadPrincipal::Role),
            ("role:payments/..", BadPrincipal::Role),
            ("role:payments/*", BadPrincipal::Role),
            ("workload:lab/payments", BadPrincipal::Identity(BadIdentity::Form)),
            ("workload:lab/payments/api/x", BadPrincipal::Identity(BadIdentity::Form)),
            ("workload:*/payments/api", BadPrincipal::Identity(BadIdentity::Name { part: "cluster" })),
            ("workload:lab/payments/*", BadPrincipal::Identity(BadIdentity::Name { part: "service account" })),
            ("user:", BadPrincipal::Identity(BadIdentity::Account)),
            ("user:Ada", BadPrincipal::Identity(BadIdentity::Account)),
            ("service:*", BadPrincipal::Identity(BadIdentity::Account)),
        ] {
            assert_eq!(PrincipalRef::parse(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn each_malformed_member_has_its_own_answer() {
        for (text, expected) in [
            ("", BadPrincipal::MemberForm),
            ("*", BadPrincipal::MemberForm),
            ("role:p/x", BadPrincipal::MemberForm),
            ("workload:*", BadPrincipal::Identity(BadIdentity::Form)),
            ("workload:lab/*", BadPrincipal::Identity(BadIdentity::Form)),
            ("workload:lab/*/api", BadPrincipal::Wildcard),
            ("workload:*/*/*", BadPrincipal::Wildcard),
            ("workload:lab/pay*/api", BadPrincipal::Wildcard),
            ("workload:lab/payments/api*", BadPrincipal::Wildcard),
            ("workload:la*/payments/api", BadPrincipal::Wildcard),
            ("workload:lab/payments/**", BadPrincipal::Wildcard),
            ("workload:lab//api", BadPrincipal::Identity(BadIdentity::Name { part: "namespace" })),
            ("workload:lab/payments/Api", BadPrincipal::Identity(BadIdentity::Name { part: "service account" })),
            ("workload: lab/payments/api", BadPrincipal::Identity(BadIdentity::Name { part: "cluster" })),
            ("user:*", BadPrincipal::Wildcard),
            ("service:c*", BadPrincipal::Wildcard),
            ("user:Ada", BadPrincipal::Identity(BadIdentity::Account)),
        ] {
            assert_eq!(MemberPattern::parse(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn a_member_pattern_means_whole_names_only() {
        let api = pod("lab", "payments", "api");
        for (text, expected) in [
            ("workload:lab/payments/api", true),
            ("workload:*/payments/api", true),
            ("workload:lab/payments/*", true),
            ("workload:*/payments/*", true),
            ("workload:lab/payments/ap", false),
            ("workload:lab/payment/api", false),
            ("workload:other/payments/api", false),
            ("workload:*/billing/*", false),
            ("user:api", false),
            ("service:api", false),
        ] {
            let pattern = MemberPattern::parse(text).unwrap();
            assert_eq!(pattern.matches(&api), expected, "{text}");
            assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn a_user_and_a_service_of_one_name_are_two_members() {
        let (user, service) = (Identity::User { name: "ci".to_owned() }, Identity::Service { name: "ci".to_owned() });
        let pattern = MemberPattern::parse("user:ci").unwrap();
        assert!(pattern.matches(&user) && !pattern.matches(&service));
    }
}
