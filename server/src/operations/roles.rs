//! Roles: a project's named groups.

use super::change::{Change, audited, look, plain};
use crate::{
    app::{App, Caller},
    failure::Failure,
};
use strongroom_api::access::Role;
use strongroom_core::{Action, MemberPattern, ProjectName, RoleId, RoleName};
use strongroom_store::{MemberRow, RoleRow, delete_members, delete_role, insert_member, insert_role};
use uuid::Uuid;

/// Most members of a role.
const MAX_MEMBERS: usize = 1000;

/// Makes a role, or replaces its members.
pub async fn put(app: &App, caller: &Caller, role: Role) -> Result<Role, Failure> {
    let resource = format!("role:{}/{}", role.project, plain(&role.name));
    let outcome = try_put(app, caller, role).await;
    audited(app, caller, Action::ManageRoles, resource, outcome).await
}

async fn try_put(app: &App, caller: &Caller, role: Role) -> Result<Role, Failure> {
    let name =
        RoleName::new(role.project.clone(), &role.name).map_err(|error| Failure::Invalid(format!("name: {error}")))?;
    if role.members.len() > MAX_MEMBERS {
        return Err(Failure::Invalid(format!("members: at most {MAX_MEMBERS}")));
    }
    let mut members = Vec::with_capacity(role.members.len());
    for (index, member) in role.members.iter().enumerate() {
        MemberPattern::parse(member).map_err(|error| Failure::Invalid(format!("members[{index}]: {error}")))?;
        members.push(member.clone());
    }
    members.sort();
    members.dedup();

    let (mut change, project) = Change::in_project(app, caller, Action::ManageRoles, &role.project).await?;
    let keyring = app.keyring();
    let id = if let Some(role) = project.role(name.name()) {
        delete_members(change.connection(), role.row.id).await?;
        for member in &role.members {
            change.remove(&**member)?;
        }
        role.row.id
    } else {
        let row = keyring.mac_row(RoleRow {
            id: RoleId(Uuid::now_v7()),
            project: project.id(),
            name: name.name().to_owned(),
            author: caller.identity.principal(),
            created_at: app.clock.now(),
        });
        insert_role(change.connection(), &row).await?;
        change.put(&row)?;
        row.row().id
    };
    for pattern in &members {
        let row = keyring.mac_row(MemberRow { role: id, pattern: pattern.clone() });
        insert_member(change.connection(), &row).await?;
        change.put(&row)?;
    }
    change.commit(app, caller, format!("role:{name}")).await?;
    Ok(Role { members, ..role })
}

/// A project's roles with their members.
pub async fn list(app: &App, caller: &Caller, project: &ProjectName) -> Result<Vec<Role>, Failure> {
    look(app, caller, Action::ManageRoles, Some(project), |rules| {
        let shown = |role: &crate::access::Role| Role {
            project: project.clone(),
            name: role.row.name.clone(),
            members: role.members.iter().map(|member| member.pattern.clone()).collect(),
        };
        Ok(rules.existing_project()?.roles().map(shown).collect())
    })
    .await
}

/// Removes a role. Grants to it stay and reach nobody.
pub async fn delete(app: &App, caller: &Caller, name: &RoleName) -> Result<(), Failure> {
    let outcome = try_delete(app, caller, name).await;
    audited(app, caller, Action::ManageRoles, format!("role:{name}"), outcome).await
}

async fn try_delete(app: &App, caller: &Caller, name: &RoleName) -> Result<(), Failure> {
    let (mut change, project) = Change::in_project(app, caller, Action::ManageRoles, name.project()).await?;
    let role = project.role(name.name()).ok_or(Failure::NotFound)?;
    delete_role(change.connection(), role.row.id).await?;
    change.remove(&*role.row)?;
    for member in &role.members {
        change.remove(&**member)?;
    }
    change.commit(app, caller, format!("role:{name}")).await
}
