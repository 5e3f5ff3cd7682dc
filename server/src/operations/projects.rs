//! Projects.

use super::{
    authorization::{Rules, action_names, may, rules, whole_project},
    change::{Change, audited},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
};
use strongroom_api::access::Project;
use strongroom_core::{Action, Decision, GrantId, PrincipalRef, ProjectId, ProjectName, Verified};
use strongroom_policy::{GrantRule, Resource};
use strongroom_store::{
    Connection, GrantRow, ProjectKeyRow, ProjectRow, insert_grant, insert_project, insert_project_key, project_by_name,
    projects,
};
use uuid::Uuid;

/// Makes a project with its first key, and grants its creator everything in it.
pub async fn create(app: &App, caller: &Caller, name: ProjectName) -> Result<Project, Failure> {
    let resource = format!("{name}/");
    let outcome = try_create(app, caller, name).await;
    audited(app, caller, Action::CreateProject, resource, outcome).await
}

async fn try_create(app: &App, caller: &Caller, name: ProjectName) -> Result<Project, Failure> {
    let mut change = Change::on_instance(app, caller, Action::CreateProject).await?;
    let id = ProjectId(Uuid::now_v7());
    let created_at = app.clock.now();
    let author = caller.identity.principal();
    let row = ProjectRow { id, name: name.clone(), author: author.clone(), created_at };
    insert_project(change.connection(), &app.keyring().mac_row(row)).await?;
    let (_, wrapped) = app.keyring().new_project_key(id, 1);
    let key = ProjectKeyRow {
        project: id,
        generation: 1,
        term: wrapped.term,
        state: "active".to_owned(),
        wrapped: wrapped.wrapped,
        created_at,
    };
    insert_project_key(change.connection(), &app.keyring().mac_row(key)).await?;
    let owner = GrantRule::project_owner(GrantId(Uuid::now_v7()), PrincipalRef::from(&caller.identity), &name)
        .map_err(|error| Failure::Internal(error.into()))?;
    let owner_row = GrantRow {
        id: owner.id,
        project: Some(id),
        principal: author.clone(),
        actions: action_names(&owner.actions),
        scope: whole_project(&name).to_string(),
        author,
        created_at,
    };
    insert_grant(change.connection(), &app.keyring().mac_row(owner_row)).await?;
    change.commit(app, caller, format!("{name}/")).await?;
    Ok(Project { id, name, created_at })
}

/// The projects in which the caller may list secrets or manage anything.
pub async fn list(app: &App, caller: &Caller) -> Result<Vec<Project>, Failure> {
    let outcome = try_list(app, caller).await;
    audited(app, caller, Action::List, "projects".to_owned(), outcome).await
}

async fn try_list(app: &App, caller: &Caller) -> Result<Vec<Project>, Failure> {
    let mut connection = app.store.reader().await?;
    let all = app.verify_all(projects(&mut connection).await?)?;
    let mut seen = Vec::new();
    for project in all {
        let rules = rules(app, &mut connection, caller, Some((project.id, &project.name))).await?;
        let folder = whole_project(&project.name);
        let visible = may(app, caller, &rules, Action::List, Resource::Folder(&folder))
            || Action::ON_PROJECTS
                .into_iter()
                .any(|action| may(app, caller, &rules, action, Resource::Project(&project.name)));
        if visible {
            seen.push(Project { id: project.id, name: project.name.clone(), created_at: project.created_at });
        }
    }
    drop(connection);
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), Action::List, Decision::Allowed, "ok");
    event.resource = Some("projects".to_owned());
    app.audit.commit(event).await?;
    Ok(seen)
}

/// Finds a project and the rules that concern the caller there. Where there is none the rules are the instance's, so that a refusal is the same.
pub async fn with_rules(
    app: &App,
    connection: &mut Connection,
    caller: &Caller,
    name: &ProjectName,
) -> Result<(Option<Verified<ProjectRow>>, Rules), Failure> {
    let project = project_by_name(connection, name).await?.map(|row| app.verify(row)).transpose()?;
    let rules = rules(app, connection, caller, project.as_ref().map(|project| (project.id, name))).await?;
    Ok((project, rules))
}
