//! How far rules can reach: what a list need not even look at, and what it need not ask the engine about.

use cedar_policy::{ActionConstraint, Effect, Policy, ResourceConstraint};
use std::collections::{BTreeSet, HashSet};
use strongroom_core::{Action, FolderPath, Identity, PrincipalRef, ProjectName, RoleName, Scope, SecretPath};

use crate::{
    authorize::belongs,
    engine::Engine,
    entity::Named,
    rule::{GrantScope, Slice},
};

/// Where one caller may at most do one action in one project. Outside of it every decision is a refusal, whatever the attributes; within, the engine decides,
/// unless the rules that concern the action are grants alone, which know no conditions. [`Reach::default`] is nowhere.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    scopes: BTreeSet<String>,
    exact: bool,
}

impl Reach {
    /// What [`Engine::authorize`] decides on a secret of this path, with whatever labels and owner, where the reach says it; `None` where the engine must be asked.
    pub fn decides(&self, path: &SecretPath) -> Option<bool> {
        self.decides_text(path.as_str())
    }

    /// The same for a folder.
    pub fn decides_folder(&self, folder: &FolderPath) -> Option<bool> {
        self.decides_text(folder.as_str())
    }

    /// What of it lies in a folder: scopes of which none lies in another, in the order of their texts. A scope around the folder is the folder itself.
    pub fn within(&self, folder: &FolderPath) -> Vec<Scope> {
        if self.covers(folder.as_str()) {
            return vec![Scope::Folder(folder.clone())];
        }
        let mut found: Vec<Scope> = Vec::new();
        // Sorted by their bytes a folder comes before all that lies in it.
        for text in self.scopes.iter().filter(|text| text.starts_with(folder.as_str())) {
            let outer =
                found.last().is_some_and(|last| matches!(last, Scope::Folder(last) if text.starts_with(last.as_str())));
            if !outer && let Ok(scope) = Scope::parse(text) {
                found.push(scope);
            }
        }
        found
    }

    fn decides_text(&self, text: &str) -> Option<bool> {
        if !self.covers(text) {
            return Some(false);
        }
        self.exact.then_some(true)
    }

    /// Whether `text` is one of the scopes or lies in one.
    fn covers(&self, text: &str) -> bool {
        self.scopes.contains(text) || text.match_indices('/').any(|(at, _)| self.scopes.contains(&text[..=at]))
    }
}

impl Engine {
    /// Where in `project` the slice can at most let this caller do `action`, which is one on secrets or on projects.
    pub fn reach(
        &self,
        identity: &Identity,
        roles: &[RoleName],
        action: Action,
        project: &ProjectName,
        slice: &Slice,
    ) -> Reach {
        let everything = || format!("{project}/");
        let (mut reach, mut seen) = (Reach { scopes: BTreeSet::new(), exact: true }, HashSet::new());
        for grant in &slice.grants {
            if !seen.insert(grant.id) || !belongs(grant, Some(project)) {
                // A slice that was not built by the rules: the engine refuses everything by it, and it must be asked to.
                return Reach { scopes: BTreeSet::from([everything()]), exact: false };
            }
            let caller = match &grant.principal {
                PrincipalRef::Role(role) => roles.contains(role),
                other => *other == PrincipalRef::from(identity),
            };
            if let (true, true, GrantScope::Within(scope)) = (caller, grant.actions.contains(&action), &grant.scope) {
                reach.scopes.insert(scope.to_string());
            }
        }
        for row in &slice.policies {
            // One that cannot be used makes the engine refuse everything.
            let usable = self.usable(row).ok().filter(|_| row.project.as_ref().is_none_or(|of| of == project));
            let Some((policy, _)) = usable else {
                reach.exact = false;
                continue;
            };
            if !self.can_concern(&policy, action) {
                continue;
            }
            reach.exact = false;
            if policy.effect() == Effect::Permit {
                reach.scopes.insert(scope_of(&policy).unwrap_or_else(everything));
            }
        }
        reach
    }

    /// Whether the policy's head leaves the action in. The schema has no groups of actions.
    fn can_concern(&self, policy: &Policy, action: Action) -> bool {
        let action = self.types.action(action);
        match policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::In(actions) => actions.contains(&action),
            ActionConstraint::Eq(only) => only == action,
        }
    }
}

/// The one scope that the policy's head names; `None` where it may be anything.
fn scope_of(policy: &Policy) -> Option<String> {
    match policy.resource_constraint() {
        ResourceConstraint::Eq(entity) | ResourceConstraint::In(entity) | ResourceConstraint::IsIn(_, entity) => {
            match Named::parse(&entity) {
                Some(Named::Within(scope)) => Some(scope.to_string()),
                _ => None,
            }
        }
        ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
    }
}
