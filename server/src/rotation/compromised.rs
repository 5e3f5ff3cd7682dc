//! A term may be known to somebody: every key below it is made anew, every row is authenticated anew after it was checked, every value is sealed anew, and all
//! tokens and sessions end.

use super::{
    Turn, finish,
    project_key::{destroy_older, next_cursor, succession},
    remac,
    step::{Step, all_have_followed},
    term::{cannot, current, insert, name_of, next_term, rewrapped, switched, waited_for},
};
use crate::{access::Access, app::App, failure::Failure, keys::wrapped_purpose_key};
use std::{collections::BTreeMap, sync::Arc};
use strongroom_core::{ProjectId, ProjectName, Verified};
use strongroom_crypto::{KeyState, Keyring, Maintenance, NewTerm, Purpose, SealedVersion, VersionNames, WrappedTerm};
use strongroom_store::{
    InstanceRow, Progress, PurposeKeyRow, RevisionRow, RotationRow, SecretRow, TermRow, VersionRow, VersionState,
    await_keys, claim_rotation, count_versions, delete_all_tokens, delete_finished_rotations, delete_idempotency_keys,
    hold_keys, insert_project_key, insert_purpose_key, is_wrapped_before, lock_all_secrets_after, open_rotations,
    project_authenticated_before, project_with_retired_keys, remac_rotation, reseal_version, revision,
    secrets_authenticated_before, update_instance, update_project_key, update_purpose_key, update_revision,
    update_secret, update_term, versions_before,
};
use uuid::Uuid;

/// Most secrets of a batch.
const SECRETS: i64 = 32;
/// Most versions of a project in a batch: their values are in memory meanwhile, at most 16 MiB.
const VERSIONS: i64 = 16;

/// Takes the next step.
pub(super) async fn turn(app: &App, rotation: &Verified<RotationRow>, progress: &Progress) -> Result<Turn, Failure> {
    let access = current(app).await?;
    let target = access.instance.terms().iter().find(|term| term.term == rotation.target);
    match target.map(|term| term.state.as_str()) {
        None if next_term(&access) != rotation.target => finish(app, rotation).await,
        None => make(app, rotation).await,
        Some("pre-active") if !all_have_followed(app, waited_for(&access, progress)).await? => Ok(Turn::Waits),
        Some("pre-active") => switch(app, rotation).await,
        Some("active") if progress.cursor.is_some() => {
            batch(app, rotation, &access, app.keyring().row_generation()).await
        }
        Some("active") => work(app, rotation, &access, progress).await,
        Some(_) => finish(app, rotation).await,
    }
}

/// Makes the term and a generation of each purpose's key, known to every server before any uses them.
async fn make(app: &App, rotation: &Verified<RotationRow>) -> Result<Turn, Failure> {
    // Before any lock: a key service may have to be asked.
    let term = NewTerm::make(app.keys.root(), app.instance.id, rotation.target).await.map_err(cannot)?;
    let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
    let (access, mut ledger) = step.lock(None).await?;
    if next_term(&access) != term.term() {
        return Ok(Turn::Moved);
    }
    insert(app, step.connection(), &mut ledger, &term).await?;
    for purpose in Purpose::ALL {
        let keys = access.instance.purpose_keys().iter().filter(|key| key.purpose == purpose.as_str());
        let generation = keys.map(|key| key.generation).max().unwrap_or(0) + 1;
        let key = term.new_purpose_key(purpose, generation);
        let row = app.keyring().mac_keyring_row(PurposeKeyRow {
            purpose: purpose.as_str().to_owned(),
            generation,
            term: key.term,
            state: key.state.as_str().to_owned(),
            wrapped: key.wrapped,
            created_at: app.clock.now(),
        });
        insert_purpose_key(step.connection(), &row).await?;
        ledger.put_in_instance(&row);
    }
    step.progress.epoch = Some(access.instance.manifest().epoch + 1);
    step.stage("waiting-for-servers").await?;
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}

/// One transaction: the new keys are active, tokens and sessions end, and the instance's rows are authenticated by the new row key.
async fn switch(app: &App, rotation: &Verified<RotationRow>) -> Result<Turn, Failure> {
    let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
    let (access, mut ledger) = step.lock(None).await?;
    let old = app.keyring();
    let terms = switched(&access, rotation.target, KeyState::Compromised, app.clock.now());
    let keys = switched_keys(&access, &old, rotation.target)?;
    let next = keyring_of(app, &access, &terms, &keys).await?;

    // What stands is looked at before anything of it is written.
    remac::instance_rows(&old, &next, step.connection(), &access, &mut ledger).await?;
    delete_all_tokens(step.connection()).await?;
    for row in terms {
        let row = next.mac_keyring_row(row);
        update_term(step.connection(), &row).await?;
        ledger.put_in_instance(&row);
    }
    for row in keys {
        let row = next.mac_keyring_row(row);
        update_purpose_key(step.connection(), &row).await?;
        ledger.put_in_instance(&row);
    }
    // The first admin's token is gone with all others: whoever has the root key's file may claim again.
    let row = InstanceRow { admin_claimed_at: None, ..access.instance.row.clone().into_inner() };
    let row = next.mac_keyring_row(row);
    update_instance(step.connection(), &row).await?;
    ledger.put_in_instance(&row);
    let counted = revision(step.connection()).await?;
    let counted = counted.ok_or_else(|| Failure::Integrity("the access revision is missing".to_owned()))?;
    let counted = app.verify(counted)?.revision;
    update_revision(step.connection(), &next.mac_row(RevisionRow { revision: counted })).await?;
    for (row, _) in open_rotations(step.connection()).await? {
        let Ok(row) = app.verify(row) else { continue };
        // Somebody who works on one of them may wait for the lock that is held here; this one does not wait for him.
        if row.id != rotation.id && claim_rotation(step.connection(), row.id).await?.is_none() {
            return Ok(Turn::Waits);
        }
        remac_rotation(step.connection(), &next.mac_row(row.into_inner())).await?;
    }
    delete_idempotency_keys(step.connection()).await?;
    step.progress.total = count_versions(step.connection(), None).await?;
    (step.progress.done, step.progress.cursor) = (0, None);
    step.progress.epoch = Some(access.instance.manifest().epoch + 1);
    step.stage("sealing-anew").await?;
    ledger.write_by(&next, step.connection()).await?;
    step.commit(None).await?;
    Ok(Turn::Moved)
}

/// The purposes' keys whose rows change, the retired ones first: there is never more than one active.
fn switched_keys(access: &Access, keyring: &Keyring, target: i32) -> Result<Vec<PurposeKeyRow>, Failure> {
    let (mut retired, mut made) = (Vec::new(), Vec::new());
    for row in access.instance.purpose_keys().iter().filter(|row| row.state != "destroyed") {
        let key = wrapped_purpose_key(row)?;
        if key.term == target && key.state == KeyState::PreActive {
            made.push(PurposeKeyRow { state: KeyState::Active.as_str().to_owned(), ..(**row).clone() });
            continue;
        }
        retired.push(match key.purpose {
            // Nothing of these is worth another look: whoever has a session or a token gets new ones.
            Purpose::Token | Purpose::Session => {
                PurposeKeyRow { state: KeyState::Destroyed.as_str().to_owned(), wrapped: Vec::new(), ..(**row).clone() }
            }
            Purpose::RowMac | Purpose::Audit => {
                let wrapped = keyring.rewrap_purpose_key(&key, target).map_err(cannot)?;
                PurposeKeyRow {
                    state: KeyState::Compromised.as_str().to_owned(),
                    term: wrapped.term,
                    wrapped: wrapped.wrapped,
                    ..(**row).clone()
                }
            }
        });
    }
    retired.append(&mut made);
    Ok(retired)
}

/// The keyring as it will be with these rows instead of those that stand.
async fn keyring_of(
    app: &App,
    access: &Access,
    terms: &[TermRow],
    keys: &[PurposeKeyRow],
) -> Result<Arc<Keyring>, Failure> {
    let state = |text: &str| {
        text.parse().map_err(|_| Failure::Integrity("a key's state is what Strongroom never writes".to_owned()))
    };
    let mut wrapped_terms = Vec::new();
    for row in access.instance.terms() {
        let row = terms.iter().find(|new| new.term == row.term).unwrap_or(row);
        wrapped_terms.push(WrappedTerm { term: row.term, state: state(&row.state)?, wrapped: row.wrapped.clone() });
    }
    let mut wrapped_keys = Vec::new();
    for row in access.instance.purpose_keys() {
        let mut key = wrapped_purpose_key(row)?;
        let same = |new: &&PurposeKeyRow| (&new.purpose, new.generation) == (&row.purpose, row.generation);
        if let Some(new) = keys.iter().find(same) {
            (key.term, key.state, key.wrapped) = (new.term, state(&new.state)?, new.wrapped.clone());
        }
        wrapped_keys.push(key);
    }
    // Every term is known by now, so that no key service is asked under the lock.
    let keyring = app.keyring().follow(app.keys.root(), &wrapped_terms, &wrapped_keys).await.map_err(cannot)?;
    Ok(Arc::new(keyring))
}

/// What is left to do once the new keys are active, in this order: projects' access rows and keys, secrets and their versions, the projects' older keys, and
/// last the older row key.
async fn work(
    app: &App,
    rotation: &Verified<RotationRow>,
    access: &Access,
    progress: &Progress,
) -> Result<Turn, Failure> {
    let generation = app.keyring().row_generation();
    let waiting: Vec<Uuid> = access.instance.quarantines().iter().map(|row| row.scope.id()).collect();
    let (project, secrets, retired) = {
        let mut connection = app.store.reader().await?;
        (
            project_authenticated_before(&mut connection, generation, &waiting).await?,
            secrets_authenticated_before(&mut connection, generation, &waiting).await?,
            project_with_retired_keys(&mut connection, &waiting).await?,
        )
    };
    if let Some(id) = project {
        return renew(app, rotation, &existing(access, id)?).await;
    }
    if secrets.is_some() {
        return batch(app, rotation, access, generation).await;
    }
    if let Some(id) = retired {
        return retire(app, rotation, &existing(access, id)?).await;
    }
    if !waiting.is_empty() {
        let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
        step.stage("waiting-for-confirmation").await?;
        step.commit(None).await?;
        return Ok(Turn::Waits);
    }
    conclude(app, rotation, access, progress).await
}

fn existing(access: &Access, id: ProjectId) -> Result<ProjectName, Failure> {
    name_of(access, id).ok_or_else(|| Failure::Integrity(format!("there are rows of project {id}, which there is not")))
}

/// A project's rows are authenticated by the new row key, and it gets a new key; the older ones are wrapped by the new term.
async fn renew(app: &App, rotation: &Verified<RotationRow>, name: &ProjectName) -> Result<Turn, Failure> {
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

/// Seals the next versions anew, and authenticates their rows.
async fn batch(app: &App, rotation: &Verified<RotationRow>, access: &Access, generation: i32) -> Result<Turn, Failure> {
    let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
    hold_keys(step.connection()).await?;
    let cursor = step.progress.cursor;
    let found = lock_all_secrets_after(step.connection(), cursor, SECRETS).await?;
    let (mut taken, mut by_project) = (Vec::new(), BTreeMap::<ProjectName, Vec<Uuid>>::new());
    for row in found {
        let is_old = row.generation() < generation;
        if row.claimed(|row| access.instance.is_quarantined(row.project)) {
            taken.push(row.claimed(|row| row.id.0));
            continue;
        }
        let row: SecretRow = app.verify(row)?.into_inner();
        taken.push(row.id.0);
        by_project.entry(row.path.project()).or_default().push(row.id.0);
        if is_old {
            update_secret(step.connection(), &app.keyring().mac_row(row)).await?;
        }
    }
    let mut unfinished: Option<Uuid> = None;
    for (name, secrets) in by_project {
        let Some(project) = Access::now(app, step.connection(), Some(&name)).await?.project else { continue };
        let active = project.active_key().map_or(0, strongroom_crypto::ProjectKey::generation);
        let found = versions_before(step.connection(), &secrets, active, generation, true, VERSIONS).await?;
        let full = i64::try_from(found.len()) == Ok(VERSIONS);
        let versions = app.verify_all(found)?;
        if full && let Some(last) = versions.last() {
            unfinished = Some(unfinished.map_or(last.secret.0, |first| first.min(last.secret.0)));
        }
        step.progress.done += i64::try_from(versions.len()).unwrap_or(0);
        for version in versions {
            let row = sealed_anew(app, &project, version.into_inner())?;
            reseal_version(step.connection(), &app.keyring().mac_row(row)).await?;
        }
    }
    // At the end of a pass it begins anew: what others held is still to be done.
    let next = next_cursor(cursor, &taken, unfinished);
    step.progress.cursor = if taken.is_empty() { None } else { next };
    step.stage("sealing-anew").await?;
    step.commit(None).await?;
    Ok(if taken.is_empty() && cursor.is_none() { Turn::Waits } else { Turn::Moved })
}

/// The same value under a new data key, wrapped by the project's new key. Where nothing is sealed any more, the row as it is.
#[expect(clippy::disallowed_methods, reason = "a value is opened to be sealed anew at once; nobody sees it")]
fn sealed_anew(app: &App, project: &crate::access::ProjectAccess, version: VersionRow) -> Result<VersionRow, Failure> {
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
async fn retire(app: &App, rotation: &Verified<RotationRow>, name: &ProjectName) -> Result<Turn, Failure> {
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
        return batch(app, rotation, &current(app).await?, app.keyring().row_generation()).await;
    }
    destroy_older(app, step.connection(), &project, active, &mut ledger).await?;
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}

/// Destroys the older row keys, once no row is authenticated by them and nobody is about to write one. Every server has followed the switch by then: "finished"
/// says that none takes a token or a session of before.
async fn conclude(
    app: &App,
    rotation: &Verified<RotationRow>,
    access: &Access,
    progress: &Progress,
) -> Result<Turn, Failure> {
    if !all_have_followed(app, waited_for(access, progress)).await? {
        return Ok(Turn::Waits);
    }
    let generation = app.keyring().row_generation();
    let mut transaction = app.store.begin().await?;
    if !await_keys(transaction.connection()).await? {
        return Ok(Turn::Waits);
    }
    let Some(mut step) = Step::claim_in(app, transaction, rotation.id).await? else { return Ok(Turn::Waits) };
    let (access, mut ledger) = step.lock(None).await?;
    let left = project_authenticated_before(step.connection(), generation, &[]).await?.is_some()
        || secrets_authenticated_before(step.connection(), generation, &[]).await?.is_some();
    if left {
        return Ok(Turn::Moved);
    }
    for row in access.instance.purpose_keys() {
        if row.purpose == Purpose::RowMac.as_str() && row.generation < generation && row.state != "destroyed" {
            let state = KeyState::Destroyed.as_str().to_owned();
            let row = PurposeKeyRow { state, wrapped: Vec::new(), ..(**row).clone() };
            let row = app.keyring().mac_keyring_row(row);
            update_purpose_key(step.connection(), &row).await?;
            ledger.put_in_instance(&row);
        }
    }
    delete_finished_rotations(step.connection(), generation).await?;
    step.finish().await?;
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}
