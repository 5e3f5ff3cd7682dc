//! Projects.

use super::{
    authorization::{action_names, may, rules, whole_project},
    change::{Change, audited},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
};
use strongroom_api::access::Project;
use strongroom_core::{Action, Decision, GrantId, PrincipalRef, ProjectId, ProjectName};
use strongroom_crypto::{Entries, KeyState};
use strongroom_policy::{GrantRule, Resource};
use strongroom_store::{
    GrantRow, ProjectKeyRow, ProjectRow, ProjectSettings, insert_grant, insert_project, insert_project_key,
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
    let keyring = app.keyring();
    let row = keyring.mac_row(ProjectRow {
        id,
        name: name.clone(),
        author: author.clone(),
        created_at,
        shredded: false,
        settings: ProjectSettings::default(),
    });
    insert_project(change.connection(), &row).await?;
    change.ledger.put_in_instance(&row);
    let mut entries = Entries::default();
    let (_, wrapped) = keyring.new_project_key(id, 1);
    let key = keyring.mac_row(ProjectKeyRow {
        project: id,
        generation: 1,
        term: wrapped.term,
        state: KeyState::Active.as_str().to_owned(),
        wrapped: wrapped.wrapped,
        created_at,
        retired_at: None,
    });
    insert_project_key(change.connection(), &key).await?;
    entries.put(&key);
    let owner = GrantRule::project_owner(GrantId(Uuid::now_v7()), PrincipalRef::from(&caller.identity), &name)
        .map_err(|error| Failure::Internal(error.into()))?;
    let owner = keyring.mac_row(GrantRow {
        id: owner.id,
        project: Some(id),
        principal: author.clone(),
        actions: action_names(&owner.actions),
        scope: whole_project(&name).to_string(),
        author,
        created_at,
    });
    insert_grant(change.connection(), &owner).await?;
    entries.put(&owner);
    change.ledger.begin_project(id, entries);
    change.commit(app, caller, format!("{name}/")).await?;
    Ok(Project { id, name, created_at })
}

/// The projects in which the caller may list secrets or manage anything.
pub async fn list(app: &App, caller: &Caller) -> Result<Vec<Project>, Failure> {
    let outcome = try_list(app, caller).await;
    audited(app, caller, Action::List, "projects".to_owned(), outcome).await
}

async fn try_list(app: &App, caller: &Caller) -> Result<Vec<Project>, Failure> {
    let mut seen = Vec::new();
    let mut connection = app.store.reader().await?;
    let instance = rules(app, &mut connection, caller, None).await?.instance().clone();
    // Of a quarantined project nothing is decided, not even who sees it.
    for project in instance.projects().filter(|project| !instance.is_quarantined(project.id)) {
        let rules = rules(app, &mut connection, caller, Some(&project.name)).await?;
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
