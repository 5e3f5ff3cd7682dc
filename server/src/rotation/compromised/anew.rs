//! What is below a new term, made anew: projects' rows and keys, and values.

use crate::{
    access::{Access, ProjectAccess},
    app::App,
    failure::Failure,
    rotation::{
        Damage, Turn,
        project_key::{destroy_older, next_cursor, succession},
        remac,
        step::Step,
        term::{current, rewrapped},
    },
};
use std::collections::BTreeMap;
use strongroom_core::{ProjectName, Verified};
use strongroom_crypto::{Maintenance, SealedVersion, VersionNames};
use strongroom_store::{
    RotationRow, SecretRow, VersionRow, VersionState, await_keys, hold_keys, insert_project_key, is_wrapped_before,
    lock_outdated_secrets_after, reseal_version, update_project_key, update_secret, versions_before,
};
use uuid::Uuid;

/// Most secrets of a batch.
const SECRETS: i64 = 32;
/// Most versions of a project in a batch: their values are in memory meanwhile, at most 16 MiB.
const VERSIONS: i64 = 16;

/// A project's rows are authenticated by the new row key, and it gets a new key; the older ones are wrapped by the new term.
pub(super) async fn renew(app: &App, rotation: &Verified<RotationRow>, name: &ProjectName) -> Result<Turn, Failure> {
    let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
    let (access, mut ledger) = step.lock(Some(name)).await?;
    let Some(project) = access.project else { return Ok(Turn::Moved) };
    let keyring = app.keyring();
    remac::project_rows(&keyring, step.connection(), &project, &mut ledger).await?;
    let mut rows = if project.row().shredded { Vec::new() } else { succession(app, &project) };
    for key in project.keys() {
        if !rows.iter().any(|row| row.generation == key.row.generation) {
            rows.push((*key.row).clone());
        }
    }
    for row in rows {
        let is_new = !project.has_key(row.generation);
        let other_term = row.term != rotation.target && row.state != "destroyed";
        let row = if other_term { rewrapped(&keyring, &row, rotation.target)? } else { row };
        let row = keyring.mac_row(row);
        if is_new {
            insert_project_key(step.connection(), &row).await?;
        } else {
            update_project_key(step.connection(), &row).await?;
        }
        ledger.put(&row)?;
    }
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}

/// Seals the next versions anew, and authenticates their rows. What somebody changed is left as it is, and noted.
pub(super) async fn batch(
    app: &App,
    rotation: &Verified<RotationRow>,
    access: &Access,
    damage: &mut Damage,
) -> Result<Turn, Failure> {
    let generation = app.keyring().row_generation();
    let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
    hold_keys(step.connection()).await?;
    let cursor = step.progress.cursor;
    let mut but = damage.projects();
    but.extend(access.instance.quarantined());
    let left_out = damage.secrets();
    let found = lock_outdated_secrets_after(step.connection(), cursor, generation, &but, &left_out, SECRETS).await?;
    let (mut taken, mut by_project, mut changed) = (Vec::new(), BTreeMap::<_, Vec<Uuid>>::new(), false);
    for row in found {
        let (id, project) = row.claimed(|row| (row.id, row.project));
        let is_old = row.generation() < generation;
        taken.push(id.0);
        let verified = app.verify(row).map(Verified::into_inner);
        let Some(row): Option<SecretRow> = damage.pass_secret(project, id, verified)? else { continue };
        by_project.entry((project, row.path.project())).or_default().push(id.0);
        if is_old {
            update_secret(step.connection(), &app.keyring().mac_row(row)).await?;
            changed = true;
        }
    }
    let mut unfinished: Option<Uuid> = None;
    for ((id, name), secrets) in by_project {
        let looked = Access::now(app, step.connection(), Some(&name)).await.map(|access| access.project);
        let looked = looked.and_then(|project| project.ok_or_else(|| no_such_project(&name)));
        let Some(project) = damage.pass(id, looked)? else { continue };
        let active = project.active_key().map_or(0, strongroom_crypto::ProjectKey::generation);
        let found = versions_before(step.connection(), &secrets, active, generation, true, VERSIONS).await?;
        if i64::try_from(found.len()) == Ok(VERSIONS)
            && let Some(last) = found.last().map(|row| row.claimed(|row| row.secret.0))
        {
            unfinished = Some(unfinished.map_or(last, |first| first.min(last)));
        }
        for version in found {
            let secret = version.claimed(|row| row.secret);
            let sealed = app.verify(version).and_then(|version| sealed_anew(app, &project, version.into_inner()));
            let Some(row) = damage.pass_secret(id, secret, sealed)? else { continue };
            reseal_version(step.connection(), &app.keyring().mac_row(row)).await?;
            step.progress.done += 1;
            changed = true;
        }
    }
    // At the end of a pass it begins anew: what others held is still to be done.
    let next = next_cursor(cursor, &taken, unfinished);
    step.progress.cursor = if taken.is_empty() { None } else { next };
    if changed {
        step.stage("sealing-anew").await?;
    } else if step.progress.cursor == cursor {
        // Others hold what is left, or it is damaged.
        return Ok(if taken.is_empty() { Turn::Waits } else { Turn::Moved });
    }
    step.failure = damage.text(access);
    step.commit(None).await?;
    Ok(Turn::Moved)
}

fn no_such_project(name: &ProjectName) -> Failure {
    Failure::Integrity(format!("there are secrets of the project {name}, which there is not"))
}

/// The same value under a new data key, wrapped by the project's new key. Where nothing is sealed any more, the row as it is.
#[expect(clippy::disallowed_methods, reason = "a value is opened to be sealed anew at once; nobody sees it")]
fn sealed_anew(app: &App, project: &ProjectAccess, version: VersionRow) -> Result<VersionRow, Failure> {
    if version.state == VersionState::Destroyed || project.row().shredded {
        return Ok(version);
    }
    let number = u64::try_from(version.version).expect("the database checks that versions are above 0");
    let names = VersionNames { secret: version.secret, version: number, media_type: &version.media_type };
    let sealed = SealedVersion {
        project_key_generation: version.project_key_generation,
        wrapped_key: version.wrapped_key.clone(),
        sealed_value: version.sealed_value.clone(),
    };
    let keyring = app.keyring();
    let key = project.key(version.project_key_generation)?;
    let value = keyring
        .open_for_maintenance(key, &names, &sealed, &Maintenance::assume())
        .map_err(|error| Failure::Integrity(format!("version {number} of the secret {}: {error}", version.secret)))?;
    let sealed = keyring.seal_value(project.active_key()?, &names, &value);
    Ok(VersionRow {
        project_key_generation: sealed.project_key_generation,
        wrapped_key: sealed.wrapped_key,
        sealed_value: sealed.sealed_value,
        ..version
    })
}

/// Destroys a project's older keys at once, where nothing is wrapped by them and nobody is about to: they may be known to somebody.
pub(super) async fn retire(
    app: &App,
    rotation: &Verified<RotationRow>,
    name: &ProjectName,
    damage: &mut Damage,
) -> Result<Turn, Failure> {
    let mut transaction = app.store.begin().await?;
    if !await_keys(transaction.connection()).await? {
        return Ok(Turn::Waits);
    }
    let Some(mut step) = Step::claim_in(app, transaction, rotation.id).await? else { return Ok(Turn::Waits) };
    let (access, mut ledger) = step.lock(Some(name)).await?;
    let Some(project) = access.project else { return Ok(Turn::Moved) };
    let active = project.active_key()?.generation();
    if is_wrapped_before(step.connection(), project.id(), active).await? {
        // A write came in between that had looked up the older key.
        drop(step);
        return batch(app, rotation, &current(app).await?, damage).await;
    }
    destroy_older(app, step.connection(), &project, active, &mut ledger).await?;
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}
