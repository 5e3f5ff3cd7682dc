//! A new term: made, known to every server, active, and then all keys are wrapped by it.

use super::{
    Turn, finish,
    step::{Step, all_have_followed},
};
use crate::{
    access::{Access, Ledger},
    app::App,
    failure::Failure,
    keys::wrapped_purpose_key,
};
use strongroom_core::{ProjectId, ProjectName, Verified};
use strongroom_crypto::{KeyState, Keyring, KeyringError, NewTerm, WrappedProjectKey};
use strongroom_store::{
    Connection, Progress, ProjectKeyRow, PurposeKeyRow, RotationRow, TermRow, insert_term, project_wrapped_otherwise,
    projects_wrapped_otherwise, update_project_key, update_purpose_key, update_term,
};
use time::OffsetDateTime;

/// Takes the next step.
pub(super) async fn turn(app: &App, rotation: &Verified<RotationRow>, progress: &Progress) -> Result<Turn, Failure> {
    let access = current(app).await?;
    let target = access.instance.terms().iter().find(|term| term.term == rotation.target);
    match target.map(|term| term.state.as_str()) {
        None if next_term(&access) != rotation.target => finish(app, rotation).await,
        None => make(app, rotation).await,
        Some("pre-active") if !all_have_followed(app, waited_for(&access, progress)).await? => Ok(Turn::Waits),
        Some("pre-active") => activate(app, rotation).await,
        Some("active") => rewrap(app, rotation, &access).await,
        Some(_) => finish(app, rotation).await,
    }
}

/// What stands now.
pub(super) async fn current(app: &App) -> Result<Access, Failure> {
    let mut connection = app.store.reader().await?;
    Access::now(app, &mut connection, None).await
}

/// The number of the next term.
pub(crate) fn next_term(access: &Access) -> i32 {
    access.instance.terms().last().map_or(1, |term| term.term + 1)
}

/// Which manifest of the instance all servers must have followed. Where the rotation does not say, the one that stands.
pub(super) fn waited_for(access: &Access, progress: &Progress) -> i64 {
    progress.epoch.unwrap_or(access.instance.manifest().epoch)
}

async fn make(app: &App, rotation: &Verified<RotationRow>) -> Result<Turn, Failure> {
    // Before any lock: a key service may have to be asked.
    let term = NewTerm::make(app.keys.root(), app.instance.id, rotation.target).await.map_err(cannot)?;
    let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
    let (access, mut ledger) = step.lock(None).await?;
    if next_term(&access) != term.term() {
        return Ok(Turn::Moved);
    }
    insert(app, step.connection(), &mut ledger, &term).await?;
    step.progress.epoch = Some(access.instance.manifest().epoch + 1);
    step.stage("waiting-for-servers").await?;
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}

/// Writes a new term, which makes nothing yet.
pub(super) async fn insert(
    app: &App,
    connection: &mut Connection,
    ledger: &mut Ledger,
    term: &NewTerm,
) -> Result<(), Failure> {
    let wrapped = term.wrapped();
    let row = app.keyring().mac_keyring_row(TermRow {
        term: wrapped.term,
        state: wrapped.state.as_str().to_owned(),
        wrapped: wrapped.wrapped,
        created_at: app.clock.now(),
        retired_at: None,
    });
    insert_term(connection, &row).await?;
    ledger.put_in_instance(&row);
    Ok(())
}

async fn activate(app: &App, rotation: &Verified<RotationRow>) -> Result<Turn, Failure> {
    let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
    let (access, mut ledger) = step.lock(None).await?;
    let now = app.clock.now();
    for row in switched(&access, rotation.target, KeyState::DecryptOnly, now) {
        let row = app.keyring().mac_keyring_row(row);
        update_term(step.connection(), &row).await?;
        ledger.put_in_instance(&row);
    }
    step.progress.total = projects_wrapped_otherwise(step.connection(), rotation.target).await?;
    step.progress.done = 0;
    step.stage("rewrapping").await?;
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}

/// The terms whose states change when `target` becomes the active one, the retired ones first: there is never more than one active.
pub(super) fn switched(access: &Access, target: i32, becomes: KeyState, now: OffsetDateTime) -> Vec<TermRow> {
    let others = access.instance.terms().iter().filter(|term| term.term != target);
    let others = others.filter_map(|term| {
        let row = TermRow { retired_at: term.retired_at.or(Some(now)), ..(**term).clone() };
        let all = becomes == KeyState::Compromised;
        match term.state.as_str() {
            // What a rotation that was superseded had made: it wraps nothing yet, and somebody may know it too.
            "pre-active" if all => {
                Some(TermRow { state: KeyState::Destroyed.as_str().to_owned(), wrapped: Vec::new(), ..row })
            }
            "active" => Some(TermRow { state: becomes.as_str().to_owned(), ..row }),
            "decrypt-only" | "compromised" if all => Some(TermRow { state: becomes.as_str().to_owned(), ..row }),
            // Gone, or not touched by an ordinary rotation.
            _ => None,
        }
    });
    let made = access.instance.terms().iter().filter(|term| term.term == target && term.state == "pre-active");
    let made = made.map(|term| TermRow { state: KeyState::Active.as_str().to_owned(), ..(**term).clone() });
    others.chain(made).collect()
}

async fn rewrap(app: &App, rotation: &Verified<RotationRow>, access: &Access) -> Result<Turn, Failure> {
    let left = |row: &Verified<PurposeKeyRow>| row.term != rotation.target && row.state != "destroyed";
    if access.instance.purpose_keys().iter().any(left) {
        let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
        let (access, mut ledger) = step.lock(None).await?;
        let keyring = app.keyring();
        for row in access.instance.purpose_keys().iter().filter(|row| left(row)) {
            let wrapped = keyring.rewrap_purpose_key(&wrapped_purpose_key(row)?, rotation.target).map_err(cannot)?;
            let row = PurposeKeyRow { term: wrapped.term, wrapped: wrapped.wrapped, ..(**row).clone() };
            let row = keyring.mac_keyring_row(row);
            update_purpose_key(step.connection(), &row).await?;
            ledger.put_in_instance(&row);
        }
        step.stage("rewrapping").await?;
        step.commit(Some(ledger)).await?;
        return Ok(Turn::Moved);
    }
    let found = {
        let mut connection = app.store.reader().await?;
        project_wrapped_otherwise(&mut connection, rotation.target).await?
    };
    let Some(project) = found else { return finish(app, rotation).await };
    let Some(name) = name_of(access, project) else {
        return Err(Failure::Integrity(format!("there is a key of project {}, which there is not", project.0)));
    };
    let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
    let (access, mut ledger) = step.lock(Some(&name)).await?;
    let Some(project) = access.project else { return Ok(Turn::Moved) };
    let keyring = app.keyring();
    for key in project.keys().filter(|key| key.row.term != rotation.target && key.key.is_some()) {
        let row = keyring.mac_row(rewrapped(&keyring, &key.row, rotation.target)?);
        update_project_key(step.connection(), &row).await?;
        ledger.put(&row)?;
    }
    step.progress.done += 1;
    step.stage("rewrapping").await?;
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}

/// A generation of a project's key, wrapped by another term.
pub(super) fn rewrapped(keyring: &Keyring, row: &ProjectKeyRow, term: i32) -> Result<ProjectKeyRow, Failure> {
    let wrapped = WrappedProjectKey {
        project: row.project,
        generation: row.generation,
        term: row.term,
        wrapped: row.wrapped.clone(),
    };
    let wrapped = keyring.rewrap_project_key(&wrapped, term).map_err(cannot)?;
    Ok(ProjectKeyRow { term: wrapped.term, wrapped: wrapped.wrapped, ..row.clone() })
}

/// The name of a project by its id.
pub(super) fn name_of(access: &Access, id: ProjectId) -> Option<ProjectName> {
    access.instance.projects().find(|project| project.id == id).map(|project| project.name.clone())
}

/// Why a key was not made or wrapped.
pub(super) fn cannot(error: KeyringError) -> Failure {
    if error.is_unavailable() {
        tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "the root key's provider is away");
        return Failure::Unavailable("the root key's provider");
    }
    match error {
        KeyringError::Provider { .. } => Failure::Internal(anyhow::Error::new(error)),
        other => Failure::Integrity(other.to_string()),
    }
}
