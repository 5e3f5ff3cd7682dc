//! Strongroom's words as Cedar's entities, and back.

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use std::collections::{HashMap, HashSet};
use strongroom_core::{Action, FolderPath, Identity, PrincipalRef, ProjectName, RoleName, Scope, SecretPath};

use crate::{authorize::Resource, rule::GrantScope};

/// The id of the one entity of the type `Instance`.
pub(crate) const INSTANCE: &str = "instance";

/// The schema's entity types, parsed once.
#[derive(Debug)]
pub(crate) struct EntityTypes {
    role: EntityTypeName,
    workload: EntityTypeName,
    user: EntityTypeName,
    service: EntityTypeName,
    instance: EntityTypeName,
    project: EntityTypeName,
    folder: EntityTypeName,
    secret: EntityTypeName,
    action: EntityTypeName,
}

impl EntityTypes {
    pub(crate) fn new() -> Self {
        let parse = |name: &str| name.parse().expect("a plain word is the name of an entity type");
        Self {
            role: parse("Role"),
            workload: parse("Workload"),
            user: parse("User"),
            service: parse("Service"),
            instance: parse("Instance"),
            project: parse("Project"),
            folder: parse("Folder"),
            secret: parse("Secret"),
            action: parse("Action"),
        }
    }

    pub(crate) fn action(&self, action: Action) -> EntityUid {
        uid(&self.action, action.as_str())
    }

    pub(crate) fn principal_ref(&self, principal: &PrincipalRef) -> EntityUid {
        match principal {
            PrincipalRef::Role(role) => uid(&self.role, &role.to_string()),
            PrincipalRef::Workload(workload) => uid(&self.workload, &workload.to_string()),
            PrincipalRef::User(name) => uid(&self.user, name),
            PrincipalRef::Service(name) => uid(&self.service, name),
        }
    }

    pub(crate) fn scope(&self, scope: &GrantScope) -> EntityUid {
        match scope {
            GrantScope::Within(Scope::Secret(path)) => uid(&self.secret, path.as_str()),
            GrantScope::Within(Scope::Folder(folder)) => self.folder(folder),
            GrantScope::Instance => uid(&self.instance, INSTANCE),
        }
    }

    /// The caller with all its roles.
    pub(crate) fn principal(&self, identity: &Identity, roles: &[RoleName]) -> Entity {
        let parents = roles.iter().map(|role| uid(&self.role, &role.to_string())).collect();
        let id = self.principal_ref(&identity.into());
        match identity {
            Identity::Workload { workload, .. } => {
                let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
                let attributes = HashMap::from([
                    ("cluster".to_owned(), text(workload.cluster())),
                    ("namespace".to_owned(), text(workload.namespace())),
                    ("service_account".to_owned(), text(workload.service_account())),
                ]);
                with_attributes(id, attributes, parents)
            }
            Identity::User { .. } | Identity::Service { .. } => Entity::new_no_attrs(id, parents),
        }
    }

    /// The resource with everything it lies in. All ancestors are its parents here, so that they need no entities of their own.
    pub(crate) fn resource(&self, resource: &Resource<'_>) -> Entity {
        let instance = uid(&self.instance, INSTANCE);
        match resource {
            Resource::Secret { path, id, about, .. } => {
                let mut parents = HashSet::from([instance, uid(&self.project, path.project().as_str())]);
                parents.extend(path.folders().map(|folder| uid(&self.folder, folder.as_str())));
                let attributes = HashMap::from([
                    (
                        "labels".to_owned(),
                        RestrictedExpression::new_set(about.labels().map(RestrictedExpression::new_string)),
                    ),
                    ("owner".to_owned(), RestrictedExpression::new_string(about.owner().to_owned())),
                    ("exists".to_owned(), RestrictedExpression::new_bool(id.is_some())),
                ]);
                with_attributes(uid(&self.secret, path.as_str()), attributes, parents)
            }
            Resource::Folder(folder) if !folder.is_project() => {
                let mut parents = HashSet::from([instance, uid(&self.project, folder.project().as_str())]);
                let text = folder.as_str();
                // The slash after the project is the project's, the last one is the folder's own.
                let slashes: Vec<usize> = text.match_indices('/').map(|(at, _)| at).collect();
                parents.extend(slashes[1..slashes.len() - 1].iter().map(|&at| uid(&self.folder, &text[..=at])));
                Entity::new_no_attrs(uid(&self.folder, text), parents)
            }
            Resource::Folder(project) => Entity::new_no_attrs(self.folder(project), HashSet::from([instance])),
            Resource::Project(project) => {
                Entity::new_no_attrs(uid(&self.project, project.as_str()), HashSet::from([instance]))
            }
            Resource::Instance => Entity::new_no_attrs(instance, HashSet::new()),
        }
    }

    fn folder(&self, folder: &FolderPath) -> EntityUid {
        if folder.is_project() {
            uid(&self.project, folder.project().as_str())
        } else {
            uid(&self.folder, folder.as_str())
        }
    }
}

/// An entity that a policy's text names, in our words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Principal(PrincipalRef),
    Within(Scope),
    Instance,
    Action,
}

impl Named {
    /// What the entity means; `None` where its id is malformed or its type unknown, so that it can never match.
    pub(crate) fn parse(entity: &EntityUid) -> Option<Self> {
        let id = entity.id().unescaped();
        let principal = |kind: &str| PrincipalRef::parse(&format!("{kind}:{id}")).ok().map(Self::Principal);
        match entity.type_name().to_string().as_str() {
            "Role" => principal("role"),
            "Workload" => principal("workload"),
            "User" => principal("user"),
            "Service" => principal("service"),
            "Instance" => (id == INSTANCE).then_some(Self::Instance),
            "Project" => {
                let project = ProjectName::parse(id).ok()?;
                FolderPath::parse(&format!("{project}/")).ok().map(|folder| Self::Within(Scope::Folder(folder)))
            }
            "Folder" => FolderPath::parse(id)
                .ok()
                .filter(|folder| !folder.is_project())
                .map(|folder| Self::Within(Scope::Folder(folder))),
            "Secret" => SecretPath::parse(id).ok().map(|path| Self::Within(Scope::Secret(path))),
            "Action" => Some(Self::Action),
            _ => None,
        }
    }

    /// The project it belongs to, where it belongs to one.
    pub(crate) fn project(&self) -> Option<ProjectName> {
        match self {
            Self::Principal(PrincipalRef::Role(role)) => Some(role.project().clone()),
            Self::Within(scope) => Some(scope.project()),
            Self::Principal(_) | Self::Instance | Self::Action => None,
        }
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn with_attributes(
    id: EntityUid,
    attributes: HashMap<String, RestrictedExpression>,
    parents: HashSet<EntityUid>,
) -> Entity {
    Entity::new(id, attributes, parents)
        .expect("texts, booleans and sets of texts are values that cannot fail to evaluate")
}
