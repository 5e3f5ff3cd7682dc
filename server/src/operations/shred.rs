//! The end of a project: its keys are destroyed at once, and what is left of it is removed in the background.

use super::{
    change::{Change, audited},
    keys::begin,
};
use crate::{
    app::{App, Caller},
    failure::Failure,
};
use strongroom_api::keys::ShredProject;
use strongroom_core::{Action, ProjectName};
use strongroom_crypto::KeyState;
use strongroom_store::{
    ProjectKeyRow, ProjectRow, RotationKind, RotationRow, delete_project_keys, update_project, update_project_key,
};
use uuid::Uuid;

/// Destroys all generations of a project's key: nothing in it can be read any more, by nobody, from the moment this returns. What somebody did to the project's rows
/// does not keep it, and neither does the replacement of a compromised term, which may be waiting for just these rows: only the project's own row has to be sound.
pub async fn shred_project(app: &App, caller: &Caller, shred: ShredProject) -> Result<(), Failure> {
    let about = format!("{}/", shred.name);
    let outcome = try_shred(app, caller, shred).await;
    audited(app, caller, Action::ShredProject, about, outcome).await
}

async fn try_shred(app: &App, caller: &Caller, shred: ShredProject) -> Result<(), Failure> {
    let mut change = Change::on_instance(app, caller, Action::ShredProject).await?;
    let project = change.instance().project(&shred.name).cloned().ok_or(Failure::NotFound)?;
    if shred.confirm != shred.name {
        return Err(Failure::Invalid("confirm: it must be the project's name again".to_owned()));
    }
    if project.shredded {
        return Err(Failure::Shredded);
    }
    if project.settings.deletion_protection {
        return Err(Failure::NotNow("the project is protected from deletion; lift that first".to_owned()));
    }
    destroy_keys(app, &mut change, &shred.name).await?;
    let row = app.keyring().mac_row(ProjectRow { shredded: true, ..(**project).clone() });
    update_project(change.connection(), &row).await?;
    change.ledger.put_in_instance(&row);
    let rotation = RotationRow {
        id: Uuid::now_v7(),
        kind: RotationKind::Shred,
        project: Some(project.id),
        target: 0,
        compromised: false,
        accept_unanchored: false,
        author: caller.identity.principal(),
        created_at: app.clock.now(),
    };
    begin(app, change.connection(), rotation).await?;
    change.commit(app, caller, format!("{}/", shred.name)).await?;
    app.rotations.notify_one();
    Ok(())
}

async fn destroy_keys(app: &App, change: &mut Change, name: &ProjectName) -> Result<(), Failure> {
    let project = match change.project(app, name).await {
        // Nothing is vouched for of a project that is damaged or quarantined, not even that these were its keys.
        Err(Failure::Integrity(what)) => {
            tracing::warn!(project = %name, what, "a project whose rows somebody changed is shredded");
            let id = change.instance().project(name).ok_or(Failure::NotFound)?.id;
            return Ok(delete_project_keys(change.connection(), id).await?);
        }
        project => project?,
    };
    for key in project.keys().filter(|key| key.key.is_some()) {
        let state = KeyState::Destroyed.as_str().to_owned();
        let retired_at = key.row.retired_at.or(Some(app.clock.now()));
        let row = app.keyring().mac_row(ProjectKeyRow { state, wrapped: Vec::new(), retired_at, ..(*key.row).clone() });
        update_project_key(change.connection(), &row).await?;
        change.put(&row)?;
    }
    Ok(())
}
