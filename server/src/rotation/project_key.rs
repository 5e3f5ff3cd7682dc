//! A new generation of a project's key: data keys are wrapped by it, batch by batch, and then the older generations are destroyed.

use super::{
    Turn, finish,
    step::Step,
    term::{current, name_of},
};
use crate::{
    access::{Access, ProjectAccess},
    app::App,
    failure::Failure,
};
use std::sync::Arc;
use strongroom_core::{ProjectName, Verified};
use strongroom_crypto::{KeyState, VersionNames};
use strongroom_store::{
    Connection, Progress, ProjectKeyRow, RotationRow, VersionRow, await_keys, count_versions, hold_keys,
    insert_project_key, is_wrapped_before, lock_secrets_after, rewrap_versions, update_project_key, versions_before,
};
use uuid::Uuid;

/// Most secrets of a batch. Whoever writes one of them waits for the batch.
const SECRETS: i64 = 64;
/// Most versions of a batch.
const VERSIONS: i64 = 256;

/// Takes the next step.
pub(super) async fn turn(app: &App, rotation: &Verified<RotationRow>, progress: &Progress) -> Result<Turn, Failure> {
    let access = current(app).await?;
    let name = rotation.project.and_then(|project| name_of(&access, project));
    let Some(name) = name else { return finish(app, rotation).await };
    let project = {
        let mut connection = app.store.reader().await?;
        Access::now(app, &mut connection, Some(&name)).await?.project
    };
    let Some(project) = project.filter(|project| !project.row().shredded) else { return finish(app, rotation).await };
    match project.keys().find(|key| key.row.generation == rotation.target).map(|key| key.row.state.as_str()) {
        None if next_generation(&project) != rotation.target => finish(app, rotation).await,
        None => make(app, rotation, &name).await,
        Some("active") if progress.stage == WAITING => {
            let waits = older(&project, rotation.target).filter_map(|row| row.retired_at).max();
            if waits.is_some_and(|retired| retired + app.destroy_after > app.clock.now()) {
                return Ok(Turn::Waits);
            }
            destroy(app, rotation, &name).await
        }
        Some("active") => batch(app, rotation, &name).await,
        Some(_) => finish(app, rotation).await,
    }
}

const WAITING: &str = "waiting-to-destroy";

/// The number of a project's next generation.
pub(crate) fn next_generation(project: &ProjectAccess) -> i32 {
    project.keys().last().map_or(1, |key| key.row.generation + 1)
}

async fn make(app: &App, rotation: &Verified<RotationRow>, name: &ProjectName) -> Result<Turn, Failure> {
    let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
    let (access, mut ledger) = step.lock(Some(name)).await?;
    let Some(project) = access.project.filter(|project| !project.row().shredded) else { return Ok(Turn::Moved) };
    if next_generation(&project) != rotation.target {
        return Ok(Turn::Moved);
    }
    for row in succession(app, &project) {
        let (generation, row) = (row.generation, app.keyring().mac_row(row));
        if generation == rotation.target {
            insert_project_key(step.connection(), &row).await?;
        } else {
            update_project_key(step.connection(), &row).await?;
        }
        ledger.put(&row)?;
    }
    step.progress.total = count_versions(step.connection(), Some(project.id())).await?;
    step.progress.done = 0;
    step.stage("rewrapping").await?;
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}

/// A project's active key, retired, and the next generation that is active instead. In this order: there is never more than one active.
pub(super) fn succession(app: &App, project: &ProjectAccess) -> Vec<ProjectKeyRow> {
    let now = app.clock.now();
    let (_, new) = app.keyring().new_project_key(project.id(), next_generation(project));
    let retired = project.keys().filter(|key| key.row.state == "active").map(|key| ProjectKeyRow {
        state: KeyState::DecryptOnly.as_str().to_owned(),
        retired_at: Some(now),
        ..(*key.row).clone()
    });
    let made = ProjectKeyRow {
        project: new.project,
        generation: new.generation,
        term: new.term,
        state: KeyState::Active.as_str().to_owned(),
        wrapped: new.wrapped,
        created_at: now,
        retired_at: None,
    };
    retired.chain([made]).collect()
}

/// Wraps the data keys of the next secrets. What is at hand is never a value.
async fn batch(app: &App, rotation: &Verified<RotationRow>, name: &ProjectName) -> Result<Turn, Failure> {
    let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
    hold_keys(step.connection()).await?;
    let Some(project) = Access::now(app, step.connection(), Some(name)).await?.project else { return Ok(Turn::Moved) };
    let cursor = step.progress.cursor;
    let secrets = lock_secrets_after(step.connection(), project.id(), cursor, SECRETS).await?;
    let ids: Vec<Uuid> = app.verify_all(secrets)?.iter().map(|secret| secret.id.0).collect();
    let found = versions_before(step.connection(), &ids, rotation.target, 0, false, VERSIONS).await?;
    let full = i64::try_from(found.len()) == Ok(VERSIONS);
    let versions = app.verify_all(found)?;
    let rewrapped = versions.iter().map(|version| rewrapped(app, &project, version));
    let rows = rewrapped.collect::<Result<Vec<_>, _>>()?.into_iter().map(|row| app.keyring().mac_row(row));
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        rewrap_versions(step.connection(), &rows).await?;
    }
    step.progress.done += i64::try_from(rows.len()).unwrap_or(0);
    step.progress.cursor = next_cursor(cursor, &ids, full.then(|| versions.last()).flatten().map(|row| row.secret.0));
    let mut turn = Turn::Moved;
    if ids.is_empty() {
        step.progress.cursor = None;
        if !is_wrapped_before(step.connection(), project.id(), rotation.target).await? {
            step.stage(WAITING).await?;
        } else if cursor.is_none() {
            // Somebody holds what is left.
            turn = Turn::Waits;
        }
    } else {
        step.stage("rewrapping").await?;
    }
    step.commit(None).await?;
    Ok(turn)
}

/// Where the next batch begins: behind the secrets that this one took, or, where there were too many versions, behind the last secret that it did whole.
pub(super) fn next_cursor(before: Option<Uuid>, taken: &[Uuid], unfinished: Option<Uuid>) -> Option<Uuid> {
    match unfinished {
        None => taken.last().copied().or(before),
        Some(unfinished) => taken.iter().copied().take_while(|id| *id < unfinished).last().or(before),
    }
}

fn rewrapped(app: &App, project: &ProjectAccess, version: &VersionRow) -> Result<VersionRow, Failure> {
    let number = u64::try_from(version.version).expect("the database checks that versions are above 0");
    let names = VersionNames { secret: version.secret, version: number, media_type: &version.media_type };
    let (from, to) = (project.key(version.project_key_generation)?, project.active_key()?);
    let wrapped_key = app
        .keyring()
        .rewrap(from, to, &names, &version.wrapped_key)
        .map_err(|error| Failure::Integrity(format!("version {number} of the secret {}: {error}", version.secret)))?;
    Ok(VersionRow { project_key_generation: to.generation(), wrapped_key, ..version.clone() })
}

/// The generations before one that are not destroyed.
fn older(project: &Arc<ProjectAccess>, generation: i32) -> impl Iterator<Item = &Verified<ProjectKeyRow>> {
    project.keys().map(|key| &key.row).filter(move |row| row.generation < generation && row.state != "destroyed")
}

/// Destroys the older generations, where nothing is wrapped by them and nobody is about to.
async fn destroy(app: &App, rotation: &Verified<RotationRow>, name: &ProjectName) -> Result<Turn, Failure> {
    let mut transaction = app.store.begin().await?;
    if !await_keys(transaction.connection()).await? {
        return Ok(Turn::Waits);
    }
    let Some(mut step) = Step::claim_in(app, transaction, rotation.id).await? else { return Ok(Turn::Waits) };
    let (access, mut ledger) = step.lock(Some(name)).await?;
    let Some(project) = access.project else { return Ok(Turn::Moved) };
    if is_wrapped_before(step.connection(), project.id(), rotation.target).await? {
        // A write came in between that had looked up the older key.
        step.stage("rewrapping").await?;
        step.commit(None).await?;
        return Ok(Turn::Moved);
    }
    destroy_older(app, step.connection(), &project, rotation.target, &mut ledger).await?;
    step.finish().await?;
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}

/// Erases the generations before one.
pub(super) async fn destroy_older(
    app: &App,
    connection: &mut Connection,
    project: &Arc<ProjectAccess>,
    generation: i32,
    ledger: &mut crate::access::Ledger,
) -> Result<(), Failure> {
    for row in older(project, generation) {
        let state = KeyState::Destroyed.as_str().to_owned();
        let row = app.keyring().mac_row(ProjectKeyRow { state, wrapped: Vec::new(), ..(**row).clone() });
        update_project_key(connection, &row).await?;
        ledger.put(&row)?;
    }
    Ok(())
}
