//! What is left of a project whose keys were destroyed is removed, batch by batch, until its name is free.

use super::{Turn, finish, step::Step, term::current};
use crate::{access::InstanceAccess, app::App, failure::Failure};
use std::sync::Arc;
use strongroom_core::{ProjectId, Verified};
use strongroom_store::{
    ManifestScope, ProjectRow, RotationRow, TombstoneRow, await_keys, delete_project, delete_quarantine,
    delete_some_secrets, insert_tombstone,
};

/// Secrets of a batch.
const BATCH: i64 = 200;

/// Takes the next step. Of what is removed only the project's own row is looked at: somebody may have changed the others, and be rid of by this.
pub(super) async fn turn(app: &App, rotation: &Verified<RotationRow>) -> Result<Turn, Failure> {
    let access = current(app).await?;
    // Where it lives nobody shredded it, whatever this row says.
    let Some(id) = rotation.project.filter(|id| shredded(&access.instance, *id).is_some()) else {
        return finish(app, rotation).await;
    };
    let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
    let removed = delete_some_secrets(step.connection(), id, BATCH).await?;
    if removed > 0 {
        step.progress.done += i64::try_from(removed).unwrap_or(0);
        step.stage("removing").await?;
        step.commit(None).await?;
        return Ok(Turn::Moved);
    }
    drop(step);
    let mut transaction = app.store.begin().await?;
    // A put that found the project alive may still add a secret.
    if !await_keys(transaction.connection()).await? {
        return Ok(Turn::Waits);
    }
    let Some(mut step) = Step::claim_in(app, transaction, rotation.id).await? else { return Ok(Turn::Waits) };
    if delete_some_secrets(step.connection(), id, 1).await? > 0 {
        step.commit(None).await?;
        return Ok(Turn::Moved);
    }
    let (access, mut ledger) = step.lock(None).await?;
    let Some(project) = shredded(&access.instance, id) else { return Ok(Turn::Moved) };
    delete_project(step.connection(), id).await?;
    ledger.remove_from_instance(&***project)?;
    ledger.end_project(id);
    let scope = ManifestScope::Project(id);
    if let Some(quarantine) = access.instance.quarantines().iter().find(|row| row.scope == scope) {
        delete_quarantine(step.connection(), scope).await?;
        ledger.remove_from_instance(&**quarantine)?;
    }
    let tombstone = app.keyring().mac_row(TombstoneRow {
        scope: ManifestScope::Instance,
        subject: id.0,
        version: 0,
        author: rotation.author.clone(),
        created_at: app.clock.now(),
    });
    insert_tombstone(step.connection(), &tombstone).await?;
    ledger.put_in_instance(&tombstone);
    step.finish().await?;
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}

fn shredded(instance: &InstanceAccess, id: ProjectId) -> Option<&Arc<Verified<ProjectRow>>> {
    instance.projects().find(|project| project.id == id && project.shredded)
}
