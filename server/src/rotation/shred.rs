//! What is left of a project whose keys were destroyed is removed, batch by batch, until its name is free.

use super::{
    Turn, finish,
    step::Step,
    term::{current, name_of},
};
use crate::{app::App, failure::Failure};
use strongroom_core::Verified;
use strongroom_store::{
    ManifestScope, RotationRow, TombstoneRow, await_keys, delete_project, delete_some_secrets, insert_tombstone,
};

/// Secrets of a batch.
const BATCH: i64 = 200;

/// Takes the next step.
pub(super) async fn turn(app: &App, rotation: &Verified<RotationRow>) -> Result<Turn, Failure> {
    let access = current(app).await?;
    let Some((id, name)) = rotation.project.and_then(|id| Some((id, name_of(&access, id)?))) else {
        return finish(app, rotation).await;
    };
    if !access.instance.project(&name).is_some_and(|project| project.shredded) {
        // It lives: nobody shredded it, whatever this row says.
        return finish(app, rotation).await;
    }
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
    let (access, mut ledger) = step.lock(Some(&name)).await?;
    let Some(project) = access.project.filter(|project| project.id() == id) else { return Ok(Turn::Moved) };
    delete_project(step.connection(), id).await?;
    ledger.remove_from_instance(&**project.row())?;
    ledger.end_project(id);
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
