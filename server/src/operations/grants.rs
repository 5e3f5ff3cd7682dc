//! Grants: who may do what where.

use super::{
    authorization::{action_names, grant_rule},
    change::{Change, audited, look},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
};
use strongroom_api::access::{Grant, NewGrant};
use strongroom_core::{Action, GrantId, PrincipalRef, ProjectName, Verified};
use strongroom_policy::{GrantScope, check_grant};
use strongroom_store::{GrantRow, delete_grant, insert_grant};
use uuid::Uuid;

/// Grants.
pub async fn create(app: &App, caller: &Caller, new: NewGrant) -> Result<Grant, Failure> {
    let resource = new.scope.to_string();
    let outcome = try_create(app, caller, new).await;
    audited(app, caller, Action::ManageGrants, resource, outcome).await
}

async fn try_create(app: &App, caller: &Caller, new: NewGrant) -> Result<Grant, Failure> {
    let principal =
        PrincipalRef::parse(&new.principal).map_err(|error| Failure::Invalid(format!("principal: {error}")))?;
    let scope = GrantScope::Within(new.scope.clone());
    check_grant(&principal, &new.actions, &scope).map_err(|error| Failure::Invalid(error.to_string()))?;
    let name = new.scope.project();
    let (mut change, project) = Change::in_project(app, caller, Action::ManageGrants, &name).await?;
    let row = GrantRow {
        id: GrantId(Uuid::now_v7()),
        project: Some(project.id()),
        principal: new.principal,
        actions: action_names(&new.actions),
        scope: new.scope.to_string(),
        author: caller.identity.principal(),
        created_at: app.clock.now(),
    };
    let row = app.keyring().mac_row(row);
    insert_grant(change.connection(), &row).await?;
    change.put(&row)?;
    change.commit(app, caller, format!("grant:{}", row.row().id)).await?;
    let row = row.row();
    Ok(Grant {
        id: row.id,
        principal: row.principal.clone(),
        actions: new.actions,
        scope: row.scope.clone(),
        author: row.author.clone(),
        created_at: row.created_at,
    })
}

/// A project's grants, oldest first.
pub async fn list(app: &App, caller: &Caller, project: &ProjectName) -> Result<Vec<Grant>, Failure> {
    look(app, caller, Action::ManageGrants, Some(project), |rules| {
        rules.existing_project()?.grants().map(shown).collect()
    })
    .await
}

fn shown(row: &Verified<GrantRow>) -> Result<Grant, Failure> {
    Ok(Grant {
        id: row.id,
        principal: row.principal.clone(),
        actions: grant_rule(row)?.actions,
        scope: row.scope.clone(),
        author: row.author.clone(),
        created_at: row.created_at,
    })
}

/// Revokes a grant.
pub async fn delete(app: &App, caller: &Caller, project: &ProjectName, id: GrantId) -> Result<(), Failure> {
    let outcome = try_delete(app, caller, project, id).await;
    audited(app, caller, Action::ManageGrants, format!("grant:{id}"), outcome).await
}

async fn try_delete(app: &App, caller: &Caller, project: &ProjectName, id: GrantId) -> Result<(), Failure> {
    let (mut change, project) = Change::in_project(app, caller, Action::ManageGrants, project).await?;
    let row = project.grants().find(|row| row.id == id).ok_or(Failure::NotFound)?;
    delete_grant(change.connection(), row.id).await?;
    change.remove(&**row)?;
    change.commit(app, caller, format!("grant:{id}")).await
}
