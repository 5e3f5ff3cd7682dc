//! A term may be known to somebody: every key below it is made anew, every row is authenticated anew after it was checked, every value is sealed anew, and all
//! tokens and sessions end.
//!
//! From the switch on every manifest is authenticated by the new row key and pins the rows that it covers, whichever key authenticated those. So what whoever
//! knows the old key makes after it is refused, and what is left to do is read from the rows.

mod anew;
mod switch;

use super::{
    Damage, Turn, finish,
    step::{Step, all_have_followed},
    term::{cannot, current, insert, name_of, next_term, waited_for},
};
use crate::{access::Access, app::App, failure::Failure};
use anew::{batch, renew, retire};
use strongroom_core::{ProjectId, ProjectName, Verified};
use strongroom_crypto::{KeyState, NewTerm, Purpose, next_keyring_mac_key};
use strongroom_store::{
    InstanceRow, Progress, PurposeKeyRow, RotationRow, await_keys, delete_finished_rotations, delete_idempotency_keys,
    insert_purpose_key, project_to_renew, project_with_retired_keys, secrets_authenticated_before, update_instance,
    update_purpose_key,
};
use switch::switch;

/// Takes the next step.
pub(super) async fn turn(
    app: &App,
    rotation: &Verified<RotationRow>,
    progress: &Progress,
    damage: &mut Damage,
) -> Result<Turn, Failure> {
    let access = current(app).await?;
    let target = access.instance.terms().iter().find(|term| term.term == rotation.target);
    match target.map(|term| term.state.as_str()) {
        None if next_term(&access) != rotation.target => finish(app, rotation).await,
        None => make(app, rotation).await,
        Some("pre-active") if !all_have_followed(app, waited_for(&access, progress)).await? => Ok(Turn::Waits),
        Some("pre-active") => switch(app, rotation).await,
        Some("active") => work(app, rotation, &access, progress, damage).await,
        Some(_) => finish(app, rotation).await,
    }
}

/// Makes the term, the keyring's next MAC key, and a generation of each purpose's key, known to every server before any uses them.
async fn make(app: &App, rotation: &Verified<RotationRow>) -> Result<Turn, Failure> {
    // Before any lock: a key service may have to be asked.
    let term = NewTerm::make(app.keys.root(), app.instance.id, rotation.target).await.map_err(cannot)?;
    let mac_key = next_keyring_mac_key(app.keys.root(), app.instance.id).await.map_err(cannot)?;
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
    let row = InstanceRow { next_keyring_mac_key: Some(mac_key), ..access.instance.row.clone().into_inner() };
    let row = app.keyring().mac_keyring_row(row);
    update_instance(step.connection(), &row).await?;
    ledger.put_in_instance(&row);
    step.progress.epoch = Some(access.instance.manifest().epoch + 1);
    step.stage("waiting-for-servers").await?;
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}

/// What is left to do once the new keys are active, in this order: projects' access rows and keys, secrets and their versions, the projects' older keys, and
/// last the older row key. What somebody damaged is left out, and waited for when all else is done.
async fn work(
    app: &App,
    rotation: &Verified<RotationRow>,
    access: &Access,
    progress: &Progress,
    damage: &mut Damage,
) -> Result<Turn, Failure> {
    if damage.rests(&access.instance) {
        return Ok(Turn::Waits);
    }
    if progress.cursor.is_some() {
        return batch(app, rotation, access, damage).await;
    }
    let generation = app.keyring().row_generation();
    let waiting = access.instance.quarantined();
    let but = [waiting.clone(), damage.projects()].concat();
    let (project, secrets) = {
        let mut connection = app.store.reader().await?;
        (
            project_to_renew(&mut connection, generation, rotation.target, &but).await?,
            secrets_authenticated_before(&mut connection, generation, &but, &damage.secrets()).await?,
        )
    };
    if let Some(id) = project {
        let name = existing(access, id)?;
        let renewed = renew(app, rotation, &name).await;
        return Ok(damage.pass(id, renewed)?.unwrap_or(Turn::Moved));
    }
    if secrets {
        return batch(app, rotation, access, damage).await;
    }
    let but = [but, damage.projects_of_secrets()].concat();
    let retired = {
        let mut connection = app.store.reader().await?;
        project_with_retired_keys(&mut connection, &but).await?
    };
    if let Some(id) = retired {
        let name = existing(access, id)?;
        let retired = retire(app, rotation, &name, damage).await;
        return Ok(damage.pass(id, retired)?.unwrap_or(Turn::Moved));
    }
    if !but.is_empty() {
        let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
        step.stage(if waiting.is_empty() { "waiting-for-repair" } else { "waiting-for-confirmation" }).await?;
        step.failure = damage.text(access);
        step.commit(None).await?;
        damage.rest(&access.instance);
        return Ok(Turn::Waits);
    }
    conclude(app, rotation, access, progress).await
}

fn existing(access: &Access, id: ProjectId) -> Result<ProjectName, Failure> {
    name_of(access, id).ok_or_else(|| Failure::Integrity(format!("there are rows of project {id}, which there is not")))
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
    let left = project_to_renew(step.connection(), generation, rotation.target, &[]).await?.is_some()
        || secrets_authenticated_before(step.connection(), generation, &[], &[]).await?;
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
    // Nothing is left that could check these. Writes that were under way at the switch have left theirs since.
    delete_finished_rotations(step.connection(), generation).await?;
    delete_idempotency_keys(step.connection(), generation).await?;
    step.finish().await?;
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}
