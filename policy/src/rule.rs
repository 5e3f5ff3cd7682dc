//! What a decision is made from: grants, free-text policies, and the slice of both that can concern a request.

use strongroom_core::{Action, FolderPath, GrantId, Identity, PolicyId, PrincipalRef, ProjectName, RoleName, Scope};
use thiserror::Error;

/// Where a grant holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GrantScope {
    /// One secret, a folder with everything below it, or a whole project.
    Within(Scope),
    /// The instance itself: its clusters and the making of projects. It reaches no secret.
    Instance,
}

impl GrantScope {
    /// The project it lies in; none for the instance.
    pub fn project(&self) -> Option<ProjectName> {
        match self {
            Self::Within(scope) => Some(scope.project()),
            Self::Instance => None,
        }
    }
}

/// A grant: one principal may do these actions in this scope. It only ever permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRule {
    /// The row's id; decisions name it as `grant:<id>`.
    pub id: GrantId,
    /// Who.
    pub principal: PrincipalRef,
    /// What; at least one action and none twice.
    pub actions: Vec<Action>,
    /// Where.
    pub scope: GrantScope,
}

impl GrantRule {
    /// What the creator of a project is given: everything in it.
    pub fn project_owner(id: GrantId, principal: PrincipalRef, project: &ProjectName) -> Result<Self, BadGrant> {
        let folder = FolderPath::parse(&format!("{project}/")).map_err(|_| BadGrant::ProjectName)?;
        let actions = Action::ON_SECRETS.into_iter().chain(Action::ON_PROJECTS).collect();
        Self { id, principal, actions, scope: GrantScope::Within(Scope::Folder(folder)) }.checked()
    }

    /// What the first admin of an instance is given: the actions on the instance. It does not include reading anybody's secrets.
    pub fn instance_admin(id: GrantId, principal: PrincipalRef) -> Result<Self, BadGrant> {
        Self { id, principal, actions: Action::ON_INSTANCE.to_vec(), scope: GrantScope::Instance }.checked()
    }

    fn checked(self) -> Result<Self, BadGrant> {
        check_grant(&self.principal, &self.actions, &self.scope)?;
        Ok(self)
    }
}

/// A free-text Cedar policy as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPolicy {
    /// The row's id.
    pub id: PolicyId,
    /// Its name; decisions name it as `policy:<project>/<name>`, or `policy:<name>` where it is the instance's.
    pub name: String,
    /// One Cedar policy.
    pub text: String,
    /// The project it is confined to; none for one that holds in the whole instance.
    pub project: Option<ProjectName>,
}

impl TextPolicy {
    /// The name in decisions.
    pub fn label(&self) -> String {
        match &self.project {
            Some(project) => format!("policy:{project}/{}", self.name),
            None => format!("policy:{}", self.name),
        }
    }
}

/// The rules that can concern one request: those of the resource's project and of the instance whose principal key is one of [`principal_keys`] or none.
///
/// Each rule stands in it once. More of the same project and the instance changes no decision; a rule of another project, a rule that stands twice,
/// or one that [`check_grant`] would refuse makes every decision a denial, because such a slice was not built by the rules.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// The grants.
    pub grants: Vec<GrantRule>,
    /// The free-text policies, always including those without a principal key.
    pub policies: Vec<TextPolicy>,
}

/// The keys under which rules that name this caller are stored: its own and one of each of its roles, for example `workload:lab/payments/api` and
/// `role:payments/api-readers`.
pub fn principal_keys(identity: &Identity, roles: &[RoleName]) -> Vec<String> {
    std::iter::once(identity.principal())
        .chain(roles.iter().map(|role| PrincipalRef::Role(role.clone()).to_string()))
        .collect()
}

/// Why a grant is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadGrant {
    /// No action.
    #[error("a grant names at least one action")]
    NoAction,
    /// An action twice.
    #[error("the grant names the action {0} twice")]
    DuplicateAction(Action),
    /// An action on projects with a narrower scope.
    #[error("the action {0} is granted for a whole project only; write the scope as `project/`")]
    NeedsWholeProject(Action),
    /// An action on the instance within a project.
    #[error("the action {0} is on the instance, not on anything in a project; it cannot be granted there")]
    NeedsInstance(Action),
    /// An action on secrets or projects for the whole instance.
    #[error("the action {0} is granted within a project, never for the whole instance")]
    NeedsProject(Action),
    /// An action that is only ever audited.
    #[error("the action {0} is never granted")]
    NeverGranted(Action),
    /// Another project's role, or a project's role on the instance.
    #[error("the role belongs to another project; a role can touch only its own")]
    ForeignRole,
    /// A project's name that is too long to hold anything.
    #[error("the project's name is too long")]
    ProjectName,
}

/// Checks that a grant means what it says: at least one action, none twice, each of a kind that the scope can have, and no role of another project.
pub fn check_grant(principal: &PrincipalRef, actions: &[Action], scope: &GrantScope) -> Result<(), BadGrant> {
    if actions.is_empty() {
        return Err(BadGrant::NoAction);
    }
    for (at, &action) in actions.iter().enumerate() {
        if actions[..at].contains(&action) {
            return Err(BadGrant::DuplicateAction(action));
        }
        check_action(action, scope)?;
    }
    match principal {
        PrincipalRef::Role(role) if scope.project().as_ref() != Some(role.project()) => Err(BadGrant::ForeignRole),
        _ => Ok(()),
    }
}

fn check_action(action: Action, scope: &GrantScope) -> Result<(), BadGrant> {
    let whole_project = matches!(scope, GrantScope::Within(Scope::Folder(folder)) if folder.is_project());
    let in_project = matches!(scope, GrantScope::Within(_));
    if Action::ON_SECRETS.contains(&action) {
        if in_project { Ok(()) } else { Err(BadGrant::NeedsProject(action)) }
    } else if Action::ON_PROJECTS.contains(&action) {
        match (whole_project, in_project) {
            (true, _) => Ok(()),
            (false, true) => Err(BadGrant::NeedsWholeProject(action)),
            (false, false) => Err(BadGrant::NeedsProject(action)),
        }
    } else if Action::ON_INSTANCE.contains(&action) {
        if in_project { Err(BadGrant::NeedsInstance(action)) } else { Ok(()) }
    } else {
        Err(BadGrant::NeverGranted(action))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn within(scope: &str) -> GrantScope {
        GrantScope::Within(Scope::parse(scope).unwrap())
    }

    #[test]
    fn each_refused_grant_has_its_own_answer() {
        use Action::{
            ClaimAdmin, CreateProject, List, Login, ManageClusters, ManageGrants, ManagePolicies, ManageRoles, Read,
            WhoAmI,
        };
        for (principal, actions, scope, expected) in [
            ("user:ada", vec![], within("p/"), BadGrant::NoAction),
            ("user:ada", vec![Read, List, Read], within("p/"), BadGrant::DuplicateAction(Read)),
            ("user:ada", vec![Read, ManageRoles], within("p/f/"), BadGrant::NeedsWholeProject(ManageRoles)),
            ("user:ada", vec![ManageGrants], within("p/a"), BadGrant::NeedsWholeProject(ManageGrants)),
            ("user:ada", vec![ManagePolicies], GrantScope::Instance, BadGrant::NeedsProject(ManagePolicies)),
            ("user:ada", vec![Read], GrantScope::Instance, BadGrant::NeedsProject(Read)),
            ("user:ada", vec![CreateProject], within("p/"), BadGrant::NeedsInstance(CreateProject)),
            ("user:ada", vec![ManageClusters], within("p/a"), BadGrant::NeedsInstance(ManageClusters)),
            ("user:ada", vec![Login], within("p/"), BadGrant::NeverGranted(Login)),
            ("user:ada", vec![ClaimAdmin], GrantScope::Instance, BadGrant::NeverGranted(ClaimAdmin)),
            ("user:ada", vec![WhoAmI], within("p/"), BadGrant::NeverGranted(WhoAmI)),
            ("role:q/readers", vec![Read], within("p/"), BadGrant::ForeignRole),
            ("role:p/readers", vec![CreateProject], GrantScope::Instance, BadGrant::ForeignRole),
        ] {
            assert_eq!(
                check_grant(&PrincipalRef::parse(principal).unwrap(), &actions, &scope),
                Err(expected),
                "{actions:?} in {scope:?}"
            );
        }
    }

    #[test]
    fn grants_of_each_kind_are_taken() {
        let readers = PrincipalRef::parse("role:p/readers").unwrap();
        for scope in ["p/", "p/f/", "p/f/a", "p/a"] {
            assert_eq!(check_grant(&readers, &Action::ON_SECRETS, &within(scope)), Ok(()), "{scope}");
        }
        assert_eq!(check_grant(&readers, &[Action::Read, Action::ManageRoles], &within("p/")), Ok(()));
    }

    #[test]
    fn the_grants_that_strongroom_makes_itself_are_checked_too() {
        let (id, ada) = (GrantId(Uuid::nil()), PrincipalRef::parse("user:ada").unwrap());
        let admin = GrantRule::instance_admin(id, ada.clone()).unwrap();
        assert_eq!((admin.actions.as_slice(), &admin.scope), (Action::ON_INSTANCE.as_slice(), &GrantScope::Instance));
        assert_eq!(
            GrantRule::instance_admin(id, PrincipalRef::parse("role:p/admins").unwrap()),
            Err(BadGrant::ForeignRole)
        );
        let owner = GrantRule::project_owner(id, ada, &ProjectName::parse("p").unwrap()).unwrap();
        assert_eq!((owner.actions.len(), owner.scope), (11, within("p/")));
        let foreign = PrincipalRef::parse("role:q/owners").unwrap();
        assert_eq!(
            GrantRule::project_owner(id, foreign, &ProjectName::parse("p").unwrap()),
            Err(BadGrant::ForeignRole)
        );
    }

    #[test]
    fn principal_keys_name_the_caller_and_each_role() {
        let identity = Identity::user("ada").unwrap();
        let roles = [RoleName::parse("p/readers").unwrap(), RoleName::parse("q/writers").unwrap()];
        assert_eq!(principal_keys(&identity, &roles), ["user:ada", "role:p/readers", "role:q/writers"]);
    }
}
