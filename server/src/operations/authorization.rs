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
    Denied, Grant, GrantRule, GrantScope, Reach, Request, Resource, Slice, TextPolicy, principal_keys,
};
use strongroom_store::{Connection, GrantRow, PolicyRow};

/// What stands for a caller in one project: its access rows, the caller's roles there, and the rules that can concern him.
#[derive(Debug)]
pub struct Rules {
    access: Access,
    whole: Side,
    /// What is left where the session is narrowed to one role: every forbid, and what is granted or permitted to that role alone.
    narrowed: Option<Side>,
}

/// Roles and rules that one question to the engine is asked by.
#[derive(Debug)]
struct Side {
    roles: Vec<RoleName>,
    slice: Slice,
}

impl Side {
    /// That of one role, where the caller is in it; without any rules yet.
    fn of_role(role: &RoleName, roles: &[RoleName]) -> Self {
        let roles = roles.iter().filter(|member| *member == role).cloned().collect();
        Self { roles, slice: Slice::default() }
    }

    fn ask(&self, app: &App, caller: &Caller, action: Action, resource: Resource<'_>) -> Result<Grant, Denied> {
        let request = Request { identity: &caller.identity, roles: &self.roles, action, resource };
        app.engine.authorize(&request, &self.slice)
    }

    fn reach(&self, app: &App, caller: &Caller, action: Action, project: &ProjectAccess) -> Reach {
        app.engine.reach(&caller.identity, &self.roles, action, project.name(), &self.slice)
    }
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
        self.whole.roles.contains(role)
    }
}

/// The rules that can concern `caller` in a project, and those of the instance. Without a project of that name, only the latter.
pub async fn rules(
    app: &App,
    connection: &mut Connection,
    caller: &Caller,
    project: Option<&ProjectName>,
) -> Result<Rules, Failure> {
    rules_of(app, Access::now(app, connection, project).await?, caller)
}

/// The rules that can concern `caller` as far as `access` goes.
pub fn rules_of(app: &App, access: Access, caller: &Caller) -> Result<Rules, Failure> {
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
    let principals = principal_keys(&caller.identity, &roles);
    let mut whole = Side { roles, slice: Slice::default() };
    let mut narrowed = caller.role.as_ref().map(|role| Side::of_role(role, &whole.roles));
    let alone = caller.role.clone().map(PrincipalRef::Role);
    for principal in &principals {
        let of_project = access.project.iter().flat_map(|project| project.grants_to(principal));
        for grant in access.instance.grants_to(principal).iter().chain(of_project) {
            if let Some(narrowed) = &mut narrowed
                && alone.as_ref() == Some(&grant.principal)
            {
                narrowed.slice.grants.push(grant.clone());
            }
            whole.slice.grants.push(grant.clone());
        }
    }
    let alone = alone.map(|alone| alone.to_string());
    if let Some(project) = &access.project {
        for key in principals.iter().map(|principal| Some(principal.as_str())).chain([None]) {
            for text in project.policies_about(key) {
                if let Some(narrowed) = &mut narrowed
                    && (key == alone.as_deref() || app.engine.forbids(text))
                {
                    narrowed.slice.policies.push(text.clone());
                }
                whole.slice.policies.push(text.clone());
            }
        }
    }
    Ok(Rules { access, whole, narrowed })
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
    let grant = rules.whole.ask(app, caller, action, resource)?;
    match &rules.narrowed {
        Some(narrowed) => narrowed.ask(app, caller, action, resource),
        None => Ok(grant),
    }
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
        let reach = |side: &Side| side.reach(app, caller, action, project);
        Self { whole: reach(&rules.whole), narrowed: rules.narrowed.as_ref().map(reach) }
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
pub fn member_patterns(identity: &Identity) -> Vec<String> {
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
