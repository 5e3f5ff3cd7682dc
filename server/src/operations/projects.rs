//! Projects.

use super::{
    authorization::{Outlook, Rules, action_names, may, whole_project},
    change::{Change, audited, look},
    everywhere::Everywhere,
    secrets::kept_versions,
};
use crate::{
    app::{App, Caller},
    failure::Failure,
};
use strongroom_api::access::{PatchProject, Project, ProjectInfo, ProjectList};
use strongroom_core::{Action, Decision, GrantId, PrincipalRef, ProjectId, ProjectName};
use strongroom_crypto::{Entries, KeyState};
use strongroom_policy::{GrantRule, Resource};
use strongroom_store::{
    GrantRow, ProjectKeyRow, ProjectRow, ProjectSettings, insert_grant, insert_project, insert_project_key,
    update_project,
};
use uuid::Uuid;

/// Most projects of a page.
pub const MAX_PAGE: u32 = 1000;

/// Longest notice before an expiry: a year, in seconds.
const MAX_NOTICE: i32 = 31_536_000;

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

/// A project and what it demands of its secrets.
pub async fn settings(app: &App, caller: &Caller, name: &ProjectName) -> Result<ProjectInfo, Failure> {
    look(app, caller, Action::ManageProject, Some(name), |rules| {
        let project = rules.existing_project()?;
        if project.row().shredded { Err(Failure::Shredded) } else { Ok(shown(project.row())) }
    })
    .await
}

/// Changes what a project demands of its secrets. What is there stays as it is; versions beyond a lower number go with the secrets' next puts.
pub async fn patch_settings(
    app: &App,
    caller: &Caller,
    name: &ProjectName,
    patch: &PatchProject,
) -> Result<ProjectInfo, Failure> {
    let outcome = try_patch(app, caller, name, patch).await;
    audited(app, caller, Action::ManageProject, format!("{name}/"), outcome).await
}

async fn try_patch(
    app: &App,
    caller: &Caller,
    name: &ProjectName,
    patch: &PatchProject,
) -> Result<ProjectInfo, Failure> {
    let (mut change, project) = Change::in_project(app, caller, Action::ManageProject, name).await?;
    let mut row = ProjectRow::clone(project.row());
    apply(&mut row.settings, patch)?;
    let row = app.keyring().mac_row(row);
    update_project(change.connection(), &row).await?;
    change.ledger.put_in_instance(&row);
    change.commit(app, caller, format!("{name}/")).await?;
    if patch.expiry_notice_seconds.is_some() {
        app.expiry_changed.notify_one();
    }
    Ok(shown(row.row()))
}

fn apply(settings: &mut ProjectSettings, patch: &PatchProject) -> Result<(), Failure> {
    if let Some(kept) = patch.keep_versions {
        settings.keep_versions = kept_versions(kept)?;
    }
    if let Some(required) = patch.require_check_and_set {
        settings.require_check_and_set = required;
    }
    if let Some(protected) = patch.deletion_protection {
        settings.deletion_protection = protected;
    }
    if let Some(seconds) = patch.expiry_notice_seconds {
        let invalid = || Failure::Invalid(format!("expiry_notice_seconds: 0 to {MAX_NOTICE}"));
        settings.expiry_notice_seconds =
            i32::try_from(seconds).ok().filter(|seconds| *seconds <= MAX_NOTICE).ok_or_else(invalid)?;
    }
    let invalid = || Failure::Invalid(format!("max_secrets: 1 to {}, or null", i32::MAX));
    let most =
        patch.max_secrets.try_map(|most| i32::try_from(most).ok().filter(|most| *most > 0).ok_or_else(invalid))?;
    settings.max_secrets = most.applied(settings.max_secrets);
    Ok(())
}

fn shown(row: &ProjectRow) -> ProjectInfo {
    let settings = &row.settings;
    let number = |number: i32| u32::try_from(number).expect("the database checks that it is above 0");
    ProjectInfo {
        id: row.id,
        name: row.name.clone(),
        created_at: row.created_at,
        keep_versions: number(settings.keep_versions),
        require_check_and_set: settings.require_check_and_set,
        deletion_protection: settings.deletion_protection,
        expiry_notice_seconds: number(settings.expiry_notice_seconds),
        max_secrets: settings.max_secrets.map(number),
    }
}

/// A page of the projects in which the caller may list secrets or manage anything, by name: at most `limit`, which is at least 1 and at most [`MAX_PAGE`]
/// whatever it says, after the one of the name `after`.
pub async fn list(app: &App, caller: &Caller, after: Option<&ProjectName>, limit: u32) -> Result<ProjectList, Failure> {
    let outcome = try_list(app, caller, after, limit).await;
    audited(app, caller, Action::List, "projects".to_owned(), outcome).await
}

async fn try_list(app: &App, caller: &Caller, after: Option<&ProjectName>, limit: u32) -> Result<ProjectList, Failure> {
    let limit = limit.clamp(1, MAX_PAGE) as usize;
    let (mut items, mut more) = (Vec::new(), false);
    let mut everywhere = Everywhere::begin(app, caller, after).await?;
    while let Some(rules) = everywhere.next().await? {
        let row = rules.existing_project()?.row();
        if after == Some(&row.name) || !is_visible(app, caller, &rules, &row.name) {
            continue;
        }
        if items.len() == limit {
            more = true;
            break;
        }
        items.push(Project { id: row.id, name: row.name.clone(), created_at: row.created_at });
    }
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), Action::List, Decision::Allowed, "ok");
    event.resource = Some("projects".to_owned());
    app.audit.commit(event).await?;
    let next_cursor = items.last().filter(|_| more).map(|last| last.name.clone());
    Ok(ProjectList { items, next_cursor })
}

fn is_visible(app: &App, caller: &Caller, rules: &Rules, name: &ProjectName) -> bool {
    let folder = whole_project(name);
    [Action::List].into_iter().chain(Action::ON_PROJECTS).any(|action| {
        let may = || may(app, caller, rules, action, Resource::Folder(&folder));
        Outlook::new(app, caller, rules, action).decides_folder(&folder).unwrap_or_else(may)
    })
}
