//! Keys: what there is, rotations, and the end of terms.

mod anchored;
mod status;

pub use status::status;

use super::change::{Change, audited};
use crate::{
    anchor::hex,
    app::{App, Caller},
    failure::Failure,
    rotation::{next_generation, resource},
};
use strongroom_api::keys::{ConfirmScope, Rotate, Rotation};
use strongroom_core::{Action, Verified};
use strongroom_crypto::KeyState;
use strongroom_store::{
    Connection, ManifestScope, Progress, RotationKind, RotationRow, TermRow, delete_quarantine, insert_quarantine,
    insert_rotation, manifest, open_rotations, update_term, uses_of_terms,
};
use uuid::Uuid;

/// Asks for a key to be made anew. The work goes on by itself, on whichever server comes first.
pub async fn rotate(app: &App, caller: &Caller, rotate: Rotate) -> Result<Rotation, Failure> {
    let (action, about) = match &rotate {
        Rotate::Root {} => (Action::ManageKeys, "keys/root".to_owned()),
        Rotate::Term { .. } => (Action::ManageKeys, "keys/term".to_owned()),
        Rotate::ProjectKey { project } => (Action::ManageProject, format!("{project}/")),
    };
    let outcome = try_rotate(app, caller, rotate).await;
    audited(app, caller, action, about, outcome).await
}

async fn try_rotate(app: &App, caller: &Caller, rotate: Rotate) -> Result<Rotation, Failure> {
    let row = RotationRow {
        id: Uuid::now_v7(),
        kind: RotationKind::Root,
        project: None,
        target: 0,
        compromised: false,
        accept_unanchored: false,
        author: caller.identity.principal(),
        created_at: app.clock.now(),
    };
    let (mut change, row) = match rotate {
        Rotate::Root {} => (Change::on_instance(app, caller, Action::ManageKeys).await?, row),
        Rotate::Term { compromised, accept_unanchored } => {
            let change = if compromised {
                let (mut change, quarantined) = anchored::begin(app, caller, accept_unanchored).await?;
                for row in quarantined {
                    let row = app.keyring().mac_row(row);
                    insert_quarantine(change.connection(), &row).await?;
                    change.ledger.put_in_instance(&row);
                }
                change
            } else {
                Change::on_instance(app, caller, Action::ManageKeys).await?
            };
            let target = change.instance().terms().last().map_or(1, |term| term.term + 1);
            (change, RotationRow { kind: RotationKind::Term, target, compromised, accept_unanchored, ..row })
        }
        Rotate::ProjectKey { project } => {
            let (change, project) = Change::in_project(app, caller, Action::ManageProject, &project).await?;
            let (project, target) = (Some(project.id()), next_generation(&project));
            (change, RotationRow { kind: RotationKind::ProjectKey, project, target, ..row })
        }
    };
    if row.kind != RotationKind::Term {
        no_compromise(app, change.connection()).await?;
    }
    begin(app, change.connection(), row.clone()).await?;
    change.commit(app, caller, resource(&row)).await?;
    app.rotations.notify_one();
    let now = row.created_at;
    let progress = Progress {
        stage: ASKED.to_owned(),
        cursor: None,
        done: 0,
        total: 0,
        failure: None,
        epoch: None,
        updated_at: now,
        finished_at: None,
    };
    Ok(status::shown(&row, progress))
}

/// The first stage.
const ASKED: &str = "asked";

/// Writes down that there is work.
pub(super) async fn begin(app: &App, connection: &mut Connection, row: RotationRow) -> Result<(), Failure> {
    Ok(insert_rotation(connection, &app.keyring().mac_row(row), ASKED).await?)
}

/// Refuses while a compromised term is being replaced: everything below it is made anew anyway.
pub(super) async fn no_compromise(app: &App, connection: &mut Connection) -> Result<(), Failure> {
    for (row, _) in open_rotations(connection).await? {
        if app.verify(row).is_ok_and(|row| row.compromised) {
            return Err(Failure::NotNow(
                "a compromised term is being replaced; wait until that is finished".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Destroys a term that nothing uses any more. Copies of the database from before (backups, the write-ahead log, dumps) still have it, wrapped by the root key: what
/// it wrapped opens there until they are gone, or the root key that wrapped it there is.
pub async fn destroy_term(app: &App, caller: &Caller, term: i32) -> Result<(), Failure> {
    let outcome = try_destroy(app, caller, term).await;
    audited(app, caller, Action::ManageKeys, format!("keys/term/{term}"), outcome).await
}

async fn try_destroy(app: &App, caller: &Caller, term: i32) -> Result<(), Failure> {
    let mut change = Change::on_instance(app, caller, Action::ManageKeys).await?;
    let row: Verified<TermRow> =
        change.instance().terms().iter().find(|row| row.term == term).cloned().ok_or(Failure::NotFound)?;
    let retired = match (row.state.as_str(), row.retired_at) {
        ("destroyed", _) => return Err(Failure::NotNow(format!("term {term} is destroyed already"))),
        ("decrypt-only" | "compromised", Some(retired)) => retired,
        _ => return Err(Failure::NotNow(format!("term {term} is in use; rotate first"))),
    };
    let of_purposes = change.instance().purpose_keys().iter();
    let of_purposes = of_purposes.filter(|key| key.term == term && key.state != "destroyed").count();
    let uses = uses_of_terms(change.connection()).await?.into_iter().find(|used| used.number == term);
    let uses = uses.map_or(0, |used| used.rows).max(i64::try_from(of_purposes).unwrap_or(i64::MAX));
    if uses > 0 {
        return Err(Failure::NotNow(format!(
            "term {term} still wraps {uses} keys; wait until the rotation is finished"
        )));
    }
    no_compromise(app, change.connection()).await?;
    let may_go = retired + app.destroy_after;
    if may_go > app.clock.now() {
        return Err(Failure::NotNow(format!("term {term} is kept until {may_go} (keys.destroy_after_seconds)")));
    }
    let state = KeyState::Destroyed.as_str().to_owned();
    let row = app.keyring().mac_keyring_row(TermRow { state, wrapped: Vec::new(), ..row.into_inner() });
    update_term(change.connection(), &row).await?;
    change.ledger.put_in_instance(&row);
    change.commit(app, caller, format!("keys/term/{term}")).await
}

/// Confirms that the access rows of a quarantined scope are the right ones.
pub async fn confirm_scope(app: &App, caller: &Caller, confirm: ConfirmScope) -> Result<(), Failure> {
    let about = format!("keys/confirm/{}", confirm.scope);
    let outcome = try_confirm(app, caller, confirm, &about).await;
    audited(app, caller, Action::ManageKeys, about.clone(), outcome).await
}

async fn try_confirm(app: &App, caller: &Caller, confirm: ConfirmScope, about: &str) -> Result<(), Failure> {
    let mut change = Change::on_instance(app, caller, Action::ManageKeys).await?;
    let row = change.instance().quarantines().iter().find(|row| row.scope.id() == confirm.scope).cloned();
    let row = row.ok_or(Failure::NotFound)?;
    let now = manifest(change.connection(), row.scope).await?;
    let now = now.ok_or_else(|| Failure::Integrity("the manifest of a quarantined scope is missing".to_owned()))?;
    if hex(&app.verify(now)?.root) != confirm.root {
        return Err(Failure::NotNow("root: the rows are others than those; look at them again".to_owned()));
    }
    delete_quarantine(change.connection(), row.scope).await?;
    change.ledger.remove_from_instance(&*row)?;
    change.commit(app, caller, about.to_owned()).await?;
    app.rotations.notify_one();
    Ok(())
}

/// A project's id as a scope.
pub(super) fn scope_name(scope: ManifestScope) -> String {
    crate::access::name(scope)
}
