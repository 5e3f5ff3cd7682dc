//! What the tests of this crate share: a set of rules, and the slice of it that a server would fetch.

use std::sync::LazyLock;
use strongroom_core::{
    Identity, PodIdentity, PolicyId, PrincipalRef, ProjectName, RoleName, SecretId, SecretPath, Workload,
};
use strongroom_policy::{Engine, GrantRule, Request, Slice, TextPolicy, principal_keys};
use uuid::Uuid;

pub(crate) static ENGINE: LazyLock<Engine> = LazyLock::new(Engine::new);

/// All rules of an instance, of every project.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) grants: Vec<GrantRule>,
    /// Each with its principal key.
    pub(crate) policies: Vec<(TextPolicy, Option<String>)>,
}

impl Rules {
    /// Adds a policy if the engine takes it.
    pub(crate) fn add(&mut self, project: Option<&str>, name: &str, text: &str) -> bool {
        let project = project.map(self::project);
        let Ok(checked) = ENGINE.check_policy(project.as_ref(), name, text) else { return false };
        // Ids from the text, so that the engine's store of parsed policies is used and never wrong.
        let id = PolicyId(Uuid::from_u128(
            text.bytes()
                .chain(name.bytes())
                .fold(7, |hash: u128, b| hash.wrapping_mul(0x0100_0193).wrapping_add(b.into())),
        ));
        self.policies.push((
            TextPolicy { id, name: name.to_owned(), text: text.to_owned(), project },
            checked.principal_key().map(str::to_owned),
        ));
        true
    }

    /// What the server fetches: the rules of the resource's project and of the instance that are stored under one of the caller's keys, or under none.
    pub(crate) fn slice(&self, request: &Request<'_>) -> Slice {
        let keys = principal_keys(request.identity, request.roles);
        let whole = self.of_project(request);
        let concerns = |row: &TextPolicy| {
            let (_, key) = self.policies.iter().find(|(known, _)| known == row).expect("taken from there");
            key.as_ref().is_none_or(|key| keys.contains(key))
        };
        Slice {
            grants: whole.grants.into_iter().filter(|grant| keys.contains(&grant.principal.to_string())).collect(),
            policies: whole.policies.into_iter().filter(concerns).collect(),
        }
    }

    /// All rules of the resource's project and of the instance, whomever they name.
    pub(crate) fn of_project(&self, request: &Request<'_>) -> Slice {
        let project = request.resource.project();
        let here = |of: Option<ProjectName>| of.is_none() || of == project;
        Slice {
            grants: self.grants.iter().filter(|grant| here(grant.scope.project())).cloned().collect(),
            policies: self
                .policies
                .iter()
                .map(|(row, _)| row)
                .filter(|row| here(row.project.clone()))
                .cloned()
                .collect(),
        }
    }
}

pub(crate) fn pod(cluster: &str, namespace: &str, account: &str) -> Identity {
    Identity::Workload {
        workload: Workload::parse(cluster, namespace, account).unwrap(),
        pod: PodIdentity { name: "pod-0".to_owned(), uid: Uuid::nil(), account_uid: Uuid::nil() },
    }
}

pub(crate) fn user(name: &str) -> Identity {
    Identity::user(name).unwrap()
}

pub(crate) fn service(name: &str) -> Identity {
    Identity::Service { name: name.to_owned() }
}

pub(crate) fn project(name: &str) -> ProjectName {
    ProjectName::parse(name).unwrap()
}

pub(crate) fn principal(text: &str) -> PrincipalRef {
    PrincipalRef::parse(text).unwrap()
}

pub(crate) fn role(text: &str) -> RoleName {
    RoleName::parse(text).unwrap()
}

pub(crate) fn path(text: &str) -> SecretPath {
    SecretPath::parse(text).unwrap()
}

pub(crate) const SOME_SECRET: SecretId = SecretId(Uuid::from_u128(1));
