//! Roles: a project's named groups.

use super::change::{Change, audited, look, plain};
use crate::{
    app::{App, Caller},
    failure::Failure,
};
use strongroom_api::access::Role;
use strongroom_core::{Action, MemberPattern, ProjectName, RoleId, RoleName};
use strongroom_store::{
    MemberRow, RoleRow, delete_members, delete_role, insert_member, insert_role, members_of, role_for_update,
    roles_of_project,
};
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
    let id = if let Some(row) = role_for_update(change.connection(), project.id, name.name()).await? {
        let row = app.verify(row)?;
        delete_members(change.connection(), row.id).await?;
        row.id
    } else {
        let row = RoleRow {
            id: RoleId(Uuid::now_v7()),
            project: project.id,
            name: name.name().to_owned(),
            author: caller.identity.principal(),
            created_at: app.clock.now(),
        };
        let row = app.keyring().mac_row(row);
        insert_role(change.connection(), &row).await?;
        row.row().id
    };
    for pattern in &members {
        insert_member(change.connection(), &app.keyring().mac_row(MemberRow { role: id, pattern: pattern.clone() }))
            .await?;
    }
    change.commit(app, caller, format!("role:{name}")).await?;
    Ok(Role { members, ..role })
}

/// A project's roles with their members.
pub async fn list(app: &App, caller: &Caller, project: &ProjectName) -> Result<Vec<Role>, Failure> {
    let outcome = look(app, caller, Action::ManageRoles, Some(project), async |connection, row| {
        let row = row.ok_or(Failure::NotFound)?;
        let mut roles = Vec::new();
        for role in app.verify_all(roles_of_project(connection, row.id).await?)? {
            let members = app.verify_all(members_of(connection, role.id).await?)?;
            let members = members.into_iter().map(|member| member.pattern.clone()).collect();
            roles.push(Role { project: project.clone(), name: role.name.clone(), members });
        }
        Ok(roles)
    });
    outcome.await
}

/// Removes a role. Grants to it stay and reach nobody.
pub async fn delete(app: &App, caller: &Caller, name: &RoleName) -> Result<(), Failure> {
    let outcome = try_delete(app, caller, name).await;
    audited(app, caller, Action::ManageRoles, format!("role:{name}"), outcome).await
}

async fn try_delete(app: &App, caller: &Caller, name: &RoleName) -> Result<(), Failure> {
    let (mut change, project) = Change::in_project(app, caller, Action::ManageRoles, name.project()).await?;
    let role = role_for_update(change.connection(), project.id, name.name()).await?.ok_or(Failure::NotFound)?;
    let role = app.verify(role)?;
    delete_role(change.connection(), role.id).await?;
    change.commit(app, caller, format!("role:{name}")).await?;
    Ok(())
}
