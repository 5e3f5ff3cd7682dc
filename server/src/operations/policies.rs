//! Free-text Cedar policies of a project.

use super::change::{Change, allowed, audited, look, plain};
use crate::{
    access::ProjectAccess,
    app::{App, Caller},
    failure::Failure,
};
use strongroom_api::access::Policy;
use strongroom_core::{Action, FieldName, PolicyId, ProjectName, Verified};
use strongroom_store::{PolicyRow, delete_policy, insert_policy};
use uuid::Uuid;

/// Most policies of a project that can concern anyone: they stand in every decision there.
const MAX_OPEN: usize = 100;

/// Writes a policy, or replaces the one of its name.
pub async fn put(app: &App, caller: &Caller, policy: Policy) -> Result<Policy, Failure> {
    let resource = format!("policy:{}/{}", policy.project, plain(&policy.name));
    let outcome = try_put(app, caller, policy).await;
    audited(app, caller, Action::ManagePolicies, resource, outcome).await
}

async fn try_put(app: &App, caller: &Caller, policy: Policy) -> Result<Policy, Failure> {
    // The check costs time: only who may manage policies may spend it, and nobody waits for it.
    allowed(app, caller, Action::ManagePolicies, &policy.project).await?;
    let checked = app
        .engine
        .check_policy(Some(&policy.project), &policy.name, &policy.text)
        .map_err(|problem| Failure::BadPolicy(problem.to_string()))?;
    let (change, project) = Change::in_project(app, caller, Action::ManagePolicies, &policy.project).await?;
    let mut change = keep_forbids(app, caller, change, &project, checked.name()).await?;
    if checked.principal_key().is_none() {
        let open = project.policies_about(None).filter(|text| text.name != policy.name).count();
        if open >= MAX_OPEN {
            return Err(Failure::Invalid(format!(
                "the project has {MAX_OPEN} policies for anyone already; name a principal or a role in this one"
            )));
        }
    }
    if let Some((replaced, _)) = project.policy(&policy.name) {
        delete_policy(change.connection(), replaced.id).await?;
        change.remove(&**replaced)?;
    }
    let row = app.keyring().mac_row(PolicyRow {
        id: PolicyId(Uuid::now_v7()),
        project: project.id(),
        name: checked.name().to_owned(),
        text: checked.text().to_owned(),
        principal_key: checked.principal_key().map(str::to_owned),
        author: caller.identity.principal(),
        created_at: app.clock.now(),
    });
    insert_policy(change.connection(), &row).await?;
    change.put(&row)?;
    change.commit(app, caller, format!("policy:{}/{}", policy.project, policy.name)).await?;
    Ok(policy)
}

/// A project's policies, by name.
pub async fn list(app: &App, caller: &Caller, project: &ProjectName) -> Result<Vec<Policy>, Failure> {
    look(app, caller, Action::ManagePolicies, Some(project), |rules| {
        let shown = |row: &Verified<PolicyRow>| Policy {
            project: project.clone(),
            name: row.name.clone(),
            text: row.text.clone(),
        };
        Ok(rules.existing_project()?.policies().map(shown).collect())
    })
    .await
}

/// Removes a policy.
pub async fn delete(app: &App, caller: &Caller, project: &ProjectName, name: &str) -> Result<(), Failure> {
    let outcome = try_delete(app, caller, project, name).await;
    audited(app, caller, Action::ManagePolicies, format!("policy:{project}/{}", plain(name)), outcome).await
}

async fn try_delete(app: &App, caller: &Caller, project: &ProjectName, name: &str) -> Result<(), Failure> {
    if FieldName::parse(name).is_err() {
        return Err(Failure::NotFound);
    }
    let (change, access) = Change::in_project(app, caller, Action::ManagePolicies, project).await?;
    let mut change = keep_forbids(app, caller, change, &access, name).await?;
    let (row, _) = access.policy(name).ok_or(Failure::NotFound)?;
    delete_policy(change.connection(), row.id).await?;
    change.remove(&**row)?;
    change.commit(app, caller, format!("policy:{project}/{name}")).await
}

/// A forbid is taken away or replaced by an admin of the instance only: the manager of a project's policies may be the one it binds.
async fn keep_forbids(
    app: &App,
    caller: &Caller,
    change: Change,
    project: &ProjectAccess,
    name: &str,
) -> Result<Change, Failure> {
    let forbids = project.policy(name).is_some_and(|(_, text)| app.engine.forbids(text));
    if forbids { change.also(app, caller, Action::RemoveForbids).await } else { Ok(change) }
}
