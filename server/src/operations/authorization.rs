//! From a caller to a decision: the rows that can concern him, checked, and one question to the policy engine.

use crate::{
    access::{Access, InstanceAccess, ProjectAccess},
    app::{App, Caller},
    failure::Failure,
    metrics as names,
};
use std::sync::Arc;
use strongroom_core::{
    Action, Decision, FolderPath, Identity, PrincipalRef, ProjectName, RoleName, Scope, SecretPath, Verified,
};
use strongroom_policy::{
    Denied, Grant, GrantRule, GrantScope, Reach, Request, Resource, Slice, TextPolicy, is_forbid, principal_keys,
};
use strongroom_store::{Connection, GrantRow, PolicyRow};

/// What stands for a caller in one project: its access rows, the caller's roles there, and the rules that can concern him.
#[derive(Debug)]
pub struct Rules {
    access: Access,
    roles: Vec<RoleName>,
    slice: Slice,
    /// The one principal that each of the slice's policies names, where it names one.
    principal_keys: Vec<Option<String>>,
}

impl Rules {
    /// The project, where there is one.
    pub fn project(&self) -> Option<&Arc<ProjectAccess>> {
        self.access.project.as_ref()
    }

    /// The project.
    ///
    /// # Errors
    /// [`Failure::NotFound`] where there is none; it is for those who were allowed there.
    pub fn existing_project(&self) -> Result<&Arc<ProjectAccess>, Failure> {
        self.project().ok_or(Failure::NotFound)
    }

    /// The instance.
    pub fn instance(&self) -> &Arc<InstanceAccess> {
        &self.access.instance
    }

    /// All of it, for the ledger of a change.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Whether the caller is in a role.
    pub fn is_member(&self, role: &RoleName) -> bool {
        self.roles.contains(role)
    }
}

/// The rules that can concern `caller` in a project, and those of the instance. Without a project of that name, only the latter.
pub async fn rules(
    app: &App,
    connection: &mut Connection,
    caller: &Caller,
    project: Option<&ProjectName>,
) -> Result<Rules, Failure> {
    rules_of(Access::now(app, connection, project).await?, caller)
}

/// The rules that can concern `caller` as far as `access` goes.
pub fn rules_of(access: Access, caller: &Caller) -> Result<Rules, Failure> {
    let mut roles = Vec::new();
    if let Some(project) = &access.project {
        for pattern in member_patterns(&caller.identity) {
            for (pattern, role) in project.members(&pattern) {
                // It was found by text; the pattern itself decides.
                if pattern.matches(&caller.identity) {
                    roles.push(RoleName::new(project.name().clone(), role).map_err(|_| corrupt("roles.name"))?);
                }
            }
        }
        roles.sort();
        roles.dedup();
    }
    let (mut slice, mut keys) = (Slice::default(), Vec::new());
    let principals = principal_keys(&caller.identity, &roles);
    for principal in &principals {
        slice.grants.extend_from_slice(access.instance.grants_to(principal));
    }
    if let Some(project) = &access.project {
        for principal in &principals {
            slice.grants.extend(project.grants_to(principal).cloned());
        }
        for principal in principals.iter().map(|principal| Some(principal.as_str())).chain([None]) {
            for (row, text) in project.policies_about(principal) {
                slice.policies.push(text.clone());
                keys.push(row.principal_key.clone());
            }
        }
    }
    Ok(Rules { access, roles, slice, principal_keys: keys })
}

/// Decides, and counts a refusal; an evaluation error is an alarm as well.
pub fn decide(
    app: &App,
    caller: &Caller,
    rules: &Rules,
    action: Action,
    resource: Resource<'_>,
) -> Result<Grant, Denied> {
    ask(app, caller, rules, action, resource).inspect_err(|denied| {
        metrics::counter!(names::DENIED, "action" => action.as_str()).increment(1);
        if denied.is_alarm() {
            metrics::counter!(names::EVALUATION_ERRORS).increment(1);
            tracing::error!(request_id = %caller.origin.request_id, policies = ?denied.policies, "policies failed to evaluate; the request is denied");
        }
    })
}

/// A right that makes an answer richer, where not having it is no refusal.
pub fn right_to(app: &App, caller: &Caller, rules: &Rules, action: Action, resource: Resource<'_>) -> Option<Grant> {
    ask(app, caller, rules, action, resource).ok()
}

/// Whether something is shown to the caller: for the entries of a list, where leaving one out is no refusal.
pub fn may(app: &App, caller: &Caller, rules: &Rules, action: Action, resource: Resource<'_>) -> bool {
    ask(app, caller, rules, action, resource).is_ok()
}

/// A session narrowed to one role must be allowed twice: as the whole identity, so that no forbid is lost, and by what is granted or permitted to that role
/// alone.
fn ask(app: &App, caller: &Caller, rules: &Rules, action: Action, resource: Resource<'_>) -> Result<Grant, Denied> {
    let request = Request { identity: &caller.identity, roles: &rules.roles, action, resource };
    let grant = app.engine.authorize(&request, &rules.slice)?;
    let Some(role) = &caller.role else { return Ok(grant) };
    let (roles, slice) = narrowed(rules, role);
    app.engine.authorize(&Request { roles: &roles, ..request }, &slice)
}

/// What is left for a session that is narrowed to a role: every forbid, and what is granted or permitted to that role alone.
fn narrowed(rules: &Rules, role: &RoleName) -> (Vec<RoleName>, Slice) {
    let roles = rules.roles.iter().filter(|r| *r == role).cloned().collect();
    let principal = PrincipalRef::Role(role.clone());
    let key = principal.to_string();
    let grants = rules.slice.grants.iter().filter(|grant| grant.principal == principal).cloned().collect();
    let policies = rules
        .slice
        .policies
        .iter()
        .zip(&rules.principal_keys)
        .filter(|(policy, for_whom)| is_forbid(&policy.text) || for_whom.as_deref() == Some(key.as_str()))
        .map(|(policy, _)| policy.clone())
        .collect();
    (roles, Slice { grants, policies })
}

/// How far a caller's rules can reach in one project, for one action: what [`may`] says, where it can be said without asking the engine.
#[derive(Debug)]
pub struct Outlook {
    whole: Reach,
    /// Of the one role that the session is narrowed to.
    narrowed: Option<Reach>,
}

impl Outlook {
    /// The outlook in the rules' project; nothing where there is none.
    pub fn new(app: &App, caller: &Caller, rules: &Rules, action: Action) -> Self {
        let Some(project) = rules.project() else { return Self { whole: Reach::default(), narrowed: None } };
        let reach = |roles: &[RoleName], slice: &Slice| {
            app.engine.reach(&caller.identity, roles, action, project.name(), slice)
        };
        let narrowed = caller.role.as_ref().map(|role| {
            let (roles, slice) = narrowed(rules, role);
            reach(&roles, &slice)
        });
        Self { whole: reach(&rules.roles, &rules.slice), narrowed }
    }

    /// Whether the caller may do it to a secret of this path, whatever its labels and owner; `None` where the engine must be asked.
    pub fn decides(&self, path: &SecretPath) -> Option<bool> {
        self.both(|reach| reach.decides(path))
    }

    /// The same for a folder.
    pub fn decides_folder(&self, folder: &FolderPath) -> Option<bool> {
        self.both(|reach| reach.decides_folder(folder))
    }

    /// Where in a folder it can at most be done.
    pub fn within(&self, folder: &FolderPath) -> Vec<Scope> {
        // A narrowed session must be allowed twice, so that either bounds it; the narrowed reach is the smaller.
        self.narrowed.as_ref().unwrap_or(&self.whole).within(folder)
    }

    /// What the decisions that must all allow come to.
    fn both(&self, decide: impl Fn(&Reach) -> Option<bool>) -> Option<bool> {
        let whole = decide(&self.whole);
        match self.narrowed.as_ref().map(decide) {
            None => whole,
            Some(narrowed) if whole == Some(false) || narrowed == Some(false) => Some(false),
            Some(narrowed) => whole.and(narrowed),
        }
    }
}

/// Commits a refusal's audit event, before the caller hears of it. Whoever calls this holds no connection any more: waiting for the event with one in hand would
/// starve everybody else.
pub async fn refused(app: &App, caller: &Caller, action: Action, resource: String, denied: Denied) -> Failure {
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), action, Decision::Denied, "forbidden");
    event.resource = Some(resource);
    event.policies = denied.policies;
    match app.audit.commit(event).await {
        Ok(()) => Failure::Denied,
        Err(failure) => failure,
    }
}

/// The grant's row as a rule.
pub fn grant_rule(row: &Verified<GrantRow>) -> Result<GrantRule, Failure> {
    let actions =
        row.actions.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| corrupt("grants.actions"))?;
    let scope = match row.scope.as_str() {
        "instance" => GrantScope::Instance,
        scope => GrantScope::Within(Scope::parse(scope).map_err(|_| corrupt("grants.scope"))?),
    };
    let principal = PrincipalRef::parse(&row.principal).map_err(|_| corrupt("grants.principal"))?;
    Ok(GrantRule { id: row.id, principal, actions, scope })
}

/// The names of actions as they stand in a row: in the order of the permission model.
pub fn action_names(actions: &[Action]) -> String {
    let names: Vec<_> = Action::ALL.into_iter().filter(|action| actions.contains(action)).map(Action::as_str).collect();
    names.join(",")
}

/// A folder that is the whole project.
pub fn whole_project(name: &ProjectName) -> FolderPath {
    FolderPath::parse(&format!("{name}/")).expect("a project's name with a slash is a folder")
}

/// The policy's row as the engine takes it.
pub fn text_policy(row: &Verified<PolicyRow>, project: &ProjectName) -> TextPolicy {
    TextPolicy { id: row.id, name: row.name.clone(), text: row.text.clone(), project: Some(project.clone()) }
}

/// Every pattern that can match an identity: `*` stands only for the whole cluster or the whole account, so there are four for a workload.
fn member_patterns(identity: &Identity) -> Vec<String> {
    match identity {
        Identity::Workload { workload, .. } => {
            let (cluster, namespace, account) = (workload.cluster(), workload.namespace(), workload.service_account());
            [(cluster, account), ("*", account), (cluster, "*"), ("*", "*")]
                .map(|(cluster, account)| format!("workload:{cluster}/{namespace}/{account}"))
                .to_vec()
        }
        other => vec![other.principal()],
    }
}

fn corrupt(column: &'static str) -> Failure {
    Failure::Integrity(format!("{column} holds what Strongroom never writes"))
}
