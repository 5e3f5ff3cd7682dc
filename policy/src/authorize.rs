//! The one decision, and what proves it.

use cedar_policy::{AuthorizationError, Context, Decision, Entities, PolicyId as CedarId, PolicySet, SlotId};
use std::collections::HashMap;
use strongroom_core::{Action, FolderPath, Identity, Labels, Owner, ProjectName, RoleName, SecretId, SecretPath};
use thiserror::Error;

use crate::{
    complexity::{Depth, with_room},
    engine::{Engine, Unusable},
    rule::{GrantRule, Slice, check_grant},
};

/// Who wants to do what.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The authenticated caller.
    pub identity: &'a Identity,
    /// The roles the caller is in, of any project.
    pub roles: &'a [RoleName],
    /// What is to be done.
    pub action: Action,
    /// On what.
    pub resource: Resource<'a>,
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub enum Resource<'a> {
    /// A secret, or a path where there is none.
    Secret {
        /// Its path.
        path: &'a SecretPath,
        /// Its id; `None` where nothing exists at the path.
        id: Option<SecretId>,
        /// The version that is meant, where it is one.
        version: Option<u64>,
        /// What policies may ask of it; nothing where nothing exists at the path.
        about: About<'a>,
    },
    /// A project as a whole.
    Project(&'a ProjectName),
    /// A folder; `project/` means the project.
    Folder(&'a FolderPath),
    /// The instance.
    Instance,
}

/// The attributes of a secret that policies may ask for. [`About::default`] is a secret without any.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// Its labels.
    pub labels: Option<&'a Labels>,
    /// Who answers for it.
    pub owner: Option<&'a Owner>,
}

impl<'a> About<'a> {
    pub(crate) fn labels(self) -> impl Iterator<Item = String> + 'a {
        self.labels.into_iter().flat_map(Labels::texts)
    }

    pub(crate) fn owner(self) -> &'a str {
        self.owner.map_or("", Owner::as_str)
    }
}

impl Resource<'_> {
    /// The project it lies in; none for the instance.
    pub fn project(&self) -> Option<ProjectName> {
        match self {
            Self::Secret { path, .. } => Some(path.project()),
            Self::Project(project) => Some((*project).clone()),
            Self::Folder(folder) => Some(folder.project()),
            Self::Instance => None,
        }
    }

    /// Its name as audit events have it: a path, `project/`, `project/folder/` or `instance`.
    pub fn name(&self) -> String {
        match self {
            Self::Secret { path, .. } => path.to_string(),
            Self::Project(project) => format!("{project}/"),
            Self::Folder(folder) => folder.to_string(),
            Self::Instance => crate::entity::INSTANCE.to_owned(),
        }
    }
}

/// The proof that one action on one resource was allowed. Only [`Engine::authorize`] makes one, it cannot be copied, and what it allows consumes it.
#[derive(Debug)]
#[must_use = "a grant is the permission to do what was asked for; nothing was done yet"]
pub struct Grant {
    action: Action,
    resource: String,
    secret_id: Option<SecretId>,
    version: Option<u64>,
    policies: Vec<String>,
}

impl Grant {
    /// What was allowed.
    pub fn action(&self) -> Action {
        self.action
    }

    /// On what: a path, `project/`, `project/folder/` or `instance`.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// Which secret; `None` where the resource is no secret or did not exist.
    pub fn secret_id(&self) -> Option<SecretId> {
        self.secret_id
    }

    /// Which version, where the request named one.
    pub fn version(&self) -> Option<u64> {
        self.version
    }

    /// The rules that allowed it, sorted: `grant:<id>`, `policy:<project>/<name>`, or `policy:<name>` for the instance's own.
    pub fn policies(&self) -> &[String] {
        &self.policies
    }
}

/// A refusal. It carries nothing that the caller wrote.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("denied: {reason}")]
pub struct Denied {
    /// The rules the reason speaks of, sorted; empty for [`DenialReason::NoPermit`].
    pub policies: Vec<String>,
    /// Why.
    pub reason: DenialReason,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DenialReason {
    /// No rule allows it.
    #[error("no rule permits it")]
    NoPermit,
    /// A rule forbids it, whatever else permits it.
    #[error("a policy forbids it")]
    Forbidden,
    /// The action is not one on this kind of resource, or is never decided by policy.
    #[error("the action does not apply to this kind of resource")]
    NotApplicable,
    /// Policies could not be read or evaluated. An alarm: one of them may be the forbid that matters.
    #[error("{count} of the policies could not be evaluated")]
    EvaluationError {
        /// How many.
        count: usize,
    },
    /// Rules of another project, doubled ones or ones that no check would have let through. An alarm: the slice was built wrongly.
    #[error("{count} of the rules should not have been asked")]
    MisplacedRule {
        /// How many.
        count: usize,
    },
}

impl Denied {
    /// Whether somebody must look at it: something is broken, not merely refused.
    pub fn is_alarm(&self) -> bool {
        matches!(self.reason, DenialReason::EvaluationError { .. } | DenialReason::MisplacedRule { .. })
    }

    fn new(reason: DenialReason, mut policies: Vec<String>) -> Self {
        policies.sort();
        Self { policies, reason }
    }
}

impl Engine {
    /// Decides a request by the rules that can concern it.
    ///
    /// # Errors
    /// [`Denied`] unless some rule permits it, none forbids it, every policy could be evaluated and every rule belongs here.
    pub fn authorize(&self, request: &Request<'_>, slice: &Slice) -> Result<Grant, Denied> {
        let (principal, resource) =
            (self.types.principal(request.identity, request.roles), self.types.resource(&request.resource));
        let action = self.types.action(request.action);
        let question =
            cedar_policy::Request::new(principal.uid(), action, resource.uid(), Context::empty(), Some(self.schema()))
                .map_err(|_| Denied::new(DenialReason::NotApplicable, Vec::new()))?;
        let (rules, depth) = self.rules(request, slice)?;
        let entities = Entities::from_entities([principal, resource], None)
            .expect("a principal and a resource are two different entities");

        let response = with_room(depth, |_| self.authorizer.is_authorized(&question, &rules, &entities));
        let erring: Vec<String> = response
            .diagnostics()
            .errors()
            .map(|AuthorizationError::PolicyEvaluationError(error)| error.policy_id().to_string())
            .collect();
        if !erring.is_empty() {
            return Err(Denied::new(DenialReason::EvaluationError { count: erring.len() }, erring));
        }
        let mut policies: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        policies.sort();
        match response.decision() {
            Decision::Allow => {
                let (secret_id, version) = match request.resource {
                    Resource::Secret { id, version, .. } => (id, version),
                    Resource::Project(_) | Resource::Folder(_) | Resource::Instance => (None, None),
                };
                Ok(Grant { action: request.action, resource: request.resource.name(), secret_id, version, policies })
            }
            Decision::Deny if policies.is_empty() => Err(Denied::new(DenialReason::NoPermit, policies)),
            Decision::Deny => Err(Denied::new(DenialReason::Forbidden, policies)),
        }
    }

    /// The slice as Cedar's policies, with the depth of the deepest; all of it is looked at, and one rule that does not belong or cannot be read refuses the request.
    fn rules(&self, request: &Request<'_>, slice: &Slice) -> Result<(PolicySet, Depth), Denied> {
        let project = request.resource.project();
        let (mut misplaced, mut unreadable) = (Vec::new(), Vec::new());
        let (template, mut rules) = match self.grant_template(request.action) {
            Some((template, set)) => (template, set.clone()),
            None => return Err(Denied::new(DenialReason::NotApplicable, Vec::new())),
        };
        let mut seen = std::collections::HashSet::with_capacity(slice.grants.len());
        for grant in &slice.grants {
            if !seen.insert(grant.id) || !belongs(grant, project.as_ref()) {
                misplaced.push(label(grant));
            } else if grant.actions.contains(&request.action) {
                let slots = HashMap::from([
                    (SlotId::principal(), self.types.principal_ref(&grant.principal)),
                    (SlotId::resource(), self.types.scope(&grant.scope)),
                ]);
                rules
                    .link(template.clone(), CedarId::new(label(grant)), slots)
                    .expect("the ids differ and both slots are filled");
            }
        }
        let mut deepest = Depth::default();
        for row in &slice.policies {
            let at_home = row.project.is_none() || row.project == project;
            match self.usable(row) {
                Ok((policy, depth)) => {
                    deepest = deepest.max(depth);
                    if !at_home || rules.add(policy).is_err() {
                        misplaced.push(row.label());
                    }
                }
                Err(Unusable::Unconfined) => misplaced.push(row.label()),
                Err(Unusable::Unreadable) => unreadable.push(row.label()),
            }
        }
        if !misplaced.is_empty() {
            return Err(Denied::new(DenialReason::MisplacedRule { count: misplaced.len() }, misplaced));
        }
        if !unreadable.is_empty() {
            return Err(Denied::new(DenialReason::EvaluationError { count: unreadable.len() }, unreadable));
        }
        Ok((rules, deepest))
    }
}

pub(crate) fn belongs(grant: &GrantRule, project: Option<&ProjectName>) -> bool {
    let home = grant.scope.project();
    (home.is_none() || home.as_ref() == project) && check_grant(&grant.principal, &grant.actions, &grant.scope).is_ok()
}

fn label(grant: &GrantRule) -> String {
    format!("grant:{}", grant.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_core::{PodIdentity, Workload};
    use uuid::Uuid;

    static_assertions::assert_not_impl_any!(Grant: Clone, Copy, Default, From<Denied>);

    #[test]
    fn every_request_is_made_of_entities_that_fit_the_schema() {
        let engine = Engine::new();
        let pod = Identity::Workload {
            workload: Workload::parse("lab", "payments", "api").unwrap(),
            pod: PodIdentity { name: "api-0".to_owned(), uid: Uuid::nil(), account_uid: Uuid::nil() },
        };
        let roles = [RoleName::parse("p/readers").unwrap()];
        let (path, project) = (SecretPath::parse("p/a/b/c").unwrap(), ProjectName::parse("p").unwrap());
        let folders = ["p/", "p/a/", "p/a/b/c/"].map(|folder| FolderPath::parse(folder).unwrap());
        let mut resources = vec![
            Resource::Secret { path: &path, id: None, version: None, about: About::default() },
            Resource::Secret {
                path: &path,
                id: Some(SecretId(Uuid::nil())),
                version: Some(1),
                about: About::default(),
            },
            Resource::Project(&project),
            Resource::Instance,
        ];
        resources.extend(folders.iter().map(Resource::Folder));
        for identity in [pod, Identity::user("ada").unwrap(), Identity::Service { name: "ci".to_owned() }] {
            for resource in &resources {
                let entities = [engine.types.principal(&identity, &roles), engine.types.resource(resource)];
                assert!(Entities::from_entities(entities, Some(engine.schema())).is_ok(), "{resource:?}");
            }
        }
    }

    #[test]
    fn a_resource_lies_in_each_folder_above_it_and_in_no_other() {
        let engine = Engine::new();
        let ancestors = |resource: &Resource<'_>| {
            let entity = engine.types.resource(resource);
            let id = entity.uid();
            let entities = Entities::from_entities([entity], None).unwrap();
            let mut names: Vec<String> = entities.ancestors(&id).unwrap().map(ToString::to_string).collect();
            names.sort();
            names.join(" ")
        };
        let path = SecretPath::parse("p/a/b/c").unwrap();
        let secret = Resource::Secret { path: &path, id: None, version: None, about: About::default() };
        assert_eq!(ancestors(&secret), r#"Folder::"p/a/" Folder::"p/a/b/" Instance::"instance" Project::"p""#);
        for (folder, expected) in [
            ("p/", r#"Instance::"instance""#),
            ("p/a/", r#"Instance::"instance" Project::"p""#),
            ("p/a/b/c/", r#"Folder::"p/a/" Folder::"p/a/b/" Instance::"instance" Project::"p""#),
        ] {
            assert_eq!(ancestors(&Resource::Folder(&FolderPath::parse(folder).unwrap())), expected);
        }
    }
}
