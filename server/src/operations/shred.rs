//! The end of a project: its keys are destroyed at once, and what is left of it is removed in the background.

use super::{
    change::{Change, audited},
    keys::{begin, no_compromise},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
};
use strongroom_api::keys::ShredProject;
use strongroom_core::Action;
use strongroom_crypto::KeyState;
use strongroom_store::{ProjectKeyRow, ProjectRow, RotationKind, RotationRow, update_project, update_project_key};
use uuid::Uuid;

/// Destroys all generations of a project's key: nothing in it can be read any more, by nobody, from the moment this returns.
pub async fn shred_project(app: &App, caller: &Caller, shred: ShredProject) -> Result<(), Failure> {
    let about = format!("{}/", shred.name);
    let outcome = try_shred(app, caller, shred).await;
    audited(app, caller, Action::ShredProject, about, outcome).await
}

async fn try_shred(app: &App, caller: &Caller, shred: ShredProject) -> Result<(), Failure> {
    let (mut change, project) = Change::of_project(app, caller, Action::ShredProject, &shred.name).await?;
    if shred.confirm != shred.name {
        return Err(Failure::Invalid("confirm: it must be the project's name again".to_owned()));
    }
    if project.row().shredded {
        return Err(Failure::Shredded);
    }
    if project.settings().deletion_protection {
        return Err(Failure::NotNow("the project is protected from deletion; lift that first".to_owned()));
    }
    no_compromise(app, change.connection()).await?;
    let keyring = app.keyring();
    for key in project.keys().filter(|key| key.key.is_some()) {
        let state = KeyState::Destroyed.as_str().to_owned();
        let retired_at = key.row.retired_at.or(Some(app.clock.now()));
        let row = keyring.mac_row(ProjectKeyRow { state, wrapped: Vec::new(), retired_at, ..(*key.row).clone() });
        update_project_key(change.connection(), &row).await?;
        change.put(&row)?;
    }
    let row = keyring.mac_row(ProjectRow { shredded: true, ..(**project.row()).clone() });
    update_project(change.connection(), &row).await?;
    change.ledger.put_in_instance(&row);
    let rotation = RotationRow {
        id: Uuid::now_v7(),
        kind: RotationKind::Shred,
        project: Some(project.id()),
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
