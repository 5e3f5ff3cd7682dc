//! Keys: what there is, rotations, and the end of terms.

mod anchored;
mod status;

pub(crate) use anchored::{checkpoint, known_epoch};
pub use status::status;

use super::change::{Change, audited};
use crate::{
    access::branch,
    anchor::hex,
    app::{App, Caller, Origin},
    failure::Failure,
    rotation::{next_generation, resource},
};
use std::time::Duration;
use strongroom_api::keys::{ConfirmScope, Rotate, Rotation};
use strongroom_core::{Action, Decision, Verified};
use strongroom_crypto::KeyState;
use strongroom_store::{
    Connection, ManifestRow, ManifestScope, Progress, QuarantineRow, RotationKind, RotationRow, TermRow,
    claim_rotation, delete_quarantine, insert_quarantine, insert_rotation, manifest, open_rotations, update_manifest,
    update_progress, update_term, uses_of_terms,
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
                let (mut change, quarantined) = superseding(app, caller, accept_unanchored).await?;
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

/// How often an ordinary rotation of the term is tried to be closed; whoever works on it now has it for a moment.
const TRIES: u32 = 20;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Begins a change in which the term's ordinary rotation is closed, where one is open, whatever became of it: what it made is replaced too, and a compromised term waits
/// for nothing.
async fn superseding(
    app: &App,
    caller: &Caller,
    accept_unanchored: bool,
) -> Result<(Change, Vec<QuarantineRow>), Failure> {
    for _ in 0..TRIES {
        let (mut change, quarantined) = anchored::begin(app, caller, accept_unanchored).await?;
        if supersede(app, &mut change).await? {
            return Ok((change, quarantined));
        }
        drop(change);
        tokio::time::sleep(PAUSE).await;
    }
    Err(Failure::NotNow("a server works on the rotation of the term that is open; try again".to_owned()))
}

/// Closes the term's ordinary rotation; `false` where somebody works on it now.
async fn supersede(app: &App, change: &mut Change) -> Result<bool, Failure> {
    for (row, _) in open_rotations(change.connection()).await? {
        let (id, kind) = row.claimed(|row| (row.id, row.kind));
        if kind != RotationKind::Term {
            continue;
        }
        // One that is not ours is removed by whoever works on it next.
        let Ok(row) = app.verify_current(row) else { return Ok(false) };
        if row.compromised {
            return Ok(true);
        }
        let Some((_, progress)) = claim_rotation(change.connection(), id).await? else { return Ok(false) };
        let now = app.clock.now();
        let stage = "superseded".to_owned();
        let progress = Progress { stage, failure: None, updated_at: now, finished_at: Some(now), ..progress };
        update_progress(change.connection(), id, &progress).await?;
        let mut event =
            app.event(Origin { request_id: id, source: None }, None, Action::Rotate, Decision::Allowed, "superseded");
        event.resource = Some(resource(&row));
        change.record(app, event).await?;
    }
    Ok(true)
}

/// The first stage.
const ASKED: &str = "asked";

/// Writes down that there is work.
pub(super) async fn begin(app: &App, connection: &mut Connection, row: RotationRow) -> Result<(), Failure> {
    Ok(insert_rotation(connection, &app.keyring().mac_row(row), ASKED).await?)
}

/// Refuses while a compromised term is being replaced: everything below it is made anew anyway.
pub(crate) async fn no_compromise(app: &App, connection: &mut Connection) -> Result<(), Failure> {
    for (row, _) in open_rotations(connection).await? {
        if app.verify_current(row).is_ok_and(|row| row.compromised) {
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
    // By any row key that is still known: what was put back as it stood before the switch has the MAC of the older one.
    let now = app.verify(now)?;
    if hex(&now.root) != confirm.root {
        return Err(Failure::NotNow("root: the rows are others than those; look at them again".to_owned()));
    }
    // The operator's word is what vouches for it: the row key that is in use says so from now on.
    let before = now.epoch;
    // It may have been put back from before the database was: then it is taken into the branch that stands.
    let known = branch::highest_beside(change.instance().manifest().epoch, [row.epoch, before]);
    // Or from an earlier state of its own, and the anchor and other servers know a later one: it goes on beyond that.
    let epoch = branch::beyond(known).ok_or_else(|| {
        Failure::NotNow(
            "the epoch of its manifest is the last of its branch: put back one that a server wrote".to_owned(),
        )
    })?;
    let next = ManifestRow { epoch, ..now.into_inner() };
    update_manifest(change.connection(), before, &app.keyring().mac_row(next)).await?;
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
