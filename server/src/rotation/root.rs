//! What the root wraps is wrapped anew by its current key.

use super::{
    Turn, finish,
    step::{KEPT, Step, resource},
    term::{cannot, current},
};
use crate::{
    access::Access,
    app::{App, Origin},
    failure::Failure,
    operations::{keys::no_compromise, revision},
};
use std::time::Duration;
use strongroom_core::{Action, Decision, Verified};
use strongroom_crypto::{RootKeyProvider as _, RootWrapped, rewrap};
use strongroom_store::{
    Conflict, InstanceRow, RotationKind, RotationRow, StoreError, TermRow, insert_rotation, rotations, update_instance,
    update_term,
};
use tokio::time::Instant;
use uuid::Uuid;

/// How long after a rotation of the root key no server starts one by itself.
const PAUSE: Duration = Duration::from_mins(10);
/// How often it is looked whether everything is wrapped by the key that a service changed to.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the root wraps, as it stands.
type Wrapped = (RootWrapped, Vec<u8>);

/// What the current root key has not wrapped yet; `None` while that cannot be told, because its file cannot be read or its service has not answered.
fn outdated(app: &App, access: &Access) -> Option<Vec<Wrapped>> {
    let mut outdated = Vec::new();
    for (names, wrapped) in wrapped(app, access) {
        if app.keys.root().needs_rewrap(names, &wrapped)? {
            outdated.push((names, wrapped));
        }
    }
    Some(outdated)
}

/// How much there is of it. What cannot be told counts: an older root key goes once nothing is left.
pub(crate) fn count_outdated(app: &App, access: &Access) -> usize {
    outdated(app, access).map_or_else(|| wrapped(app, access).count(), |outdated| outdated.len())
}

fn wrapped(app: &App, access: &Access) -> impl Iterator<Item = Wrapped> {
    let instance = app.instance.id;
    let mac = (RootWrapped::KeyringMacKey { instance }, access.instance.row.keyring_mac_key.clone());
    let terms = access.instance.terms().iter().filter(|term| term.state != "destroyed");
    let terms = terms.map(move |term| (RootWrapped::Term { instance, term: term.term }, term.wrapped.clone()));
    std::iter::once(mac).chain(terms)
}

/// Takes the next step.
pub(super) async fn turn(app: &App, rotation: &Verified<RotationRow>) -> Result<Turn, Failure> {
    {
        let mut connection = app.store.reader().await?;
        if no_compromise(app, &mut connection).await.is_err() {
            // Servers know the keyring's next MAC key by how it is wrapped.
            return Ok(Turn::Waits);
        }
    }
    let access = current(app).await?;
    // Nothing that cannot be told is taken for done.
    let before = outdated(app, &access).ok_or(Failure::Unavailable("the root key, which cannot be read now,"))?;
    if before.is_empty() {
        return finish(app, rotation).await;
    }
    // Before any lock: a key service may have to be asked.
    let mut after = Vec::with_capacity(before.len());
    for (names, wrapped) in &before {
        after.push((*names, rewrap(app.keys.root(), *names, wrapped).await.map_err(cannot)?));
    }
    let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
    let (access, mut ledger) = step.lock(None).await?;
    if outdated(app, &access).as_ref() != Some(&before) {
        return Ok(Turn::Moved);
    }
    let keyring = app.keyring();
    for (names, wrapped) in after {
        match names {
            RootWrapped::KeyringMacKey { .. } => {
                let row = InstanceRow { keyring_mac_key: wrapped, ..access.instance.row.clone().into_inner() };
                let row = keyring.mac_keyring_row(row);
                update_instance(step.connection(), &row).await?;
                ledger.put_in_instance(&row);
            }
            RootWrapped::Term { term, .. } => {
                let row = access.instance.terms().iter().find(|row| row.term == term).expect("it was compared");
                let row = keyring.mac_keyring_row(TermRow { wrapped, ..(**row).clone() });
                update_term(step.connection(), &row).await?;
                ledger.put_in_instance(&row);
            }
        }
    }
    let count = i64::try_from(before.len()).unwrap_or(i64::MAX);
    (step.progress.done, step.progress.total) = (count, count);
    step.stage("rewrapped").await?;
    // With that it is done: another server's key service may name another key, and would wrap it all anew again.
    step.finish().await?;
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}

/// Looks from time to time whether this server's key service changed its key, and starts a rewrap then.
///
/// It starts one for a change that it saw itself, or that may have come before its start, until it finds nothing left to do. Services of two servers that do not
/// agree about the key would otherwise have each undo what the other did, for ever. A key that is a file, or that replaces an older one that is configured
/// beside it, changes when an operator says so: every server must know both first.
#[derive(Debug, Default)]
pub(super) struct Watch {
    looked_at: Option<Instant>,
    /// The key that the service named last.
    key_id: Option<String>,
    /// Whether what that key has not wrapped is still to be wrapped anew.
    changed: bool,
}

impl Watch {
    pub(super) async fn look(&mut self, app: &App) -> Result<(), Failure> {
        let root = app.keys.root();
        if !root.changes_by_itself() || root.is_changing() {
            return Ok(());
        }
        let key_id = root.key_id();
        if key_id.is_some() && key_id != self.key_id {
            *self = Self { looked_at: None, key_id, changed: true };
        }
        if !self.changed || self.looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        self.looked_at = Some(Instant::now());
        match outdated(app, &current(app).await?) {
            None => return Ok(()),
            Some(outdated) if outdated.is_empty() => {
                self.changed = false;
                return Ok(());
            }
            Some(_) if was_recent(app).await? => return Ok(()),
            Some(_) => {}
        }
        let row = RotationRow {
            id: Uuid::now_v7(),
            kind: RotationKind::Root,
            project: None,
            target: 0,
            compromised: false,
            accept_unanchored: false,
            author: "server".to_owned(),
            created_at: app.clock.now(),
        };
        let mut transaction = app.store.begin().await?;
        // The row is authenticated by the row key that is in use, which only whoever holds this lock changes.
        revision::advance(app, transaction.connection()).await?;
        let mut event =
            app.event(Origin { request_id: row.id, source: None }, None, Action::Rotate, Decision::Allowed, "asked");
        event.resource = Some(resource(&row));
        match insert_rotation(transaction.connection(), &app.keyring().mac_row(row), "asked").await {
            // Another server was first.
            Err(StoreError::Conflict(Conflict::Rotation)) => return Ok(()),
            inserted => inserted?,
        }
        app.record(&mut transaction, event).await?;
        transaction.commit().await?;
        tracing::info!("the root key's provider changed its key; what it wrapped is wrapped anew");
        Ok(())
    }
}

/// Whether a rotation of the root key was begun a moment ago, by whomever.
async fn was_recent(app: &App) -> Result<bool, Failure> {
    let mut connection = app.store.reader().await?;
    let after = app.clock.now() - PAUSE;
    let mut ours = rotations(&mut connection, KEPT).await?.into_iter().filter_map(|(row, _)| app.verify(row).ok());
    Ok(ours.any(|row| row.kind == RotationKind::Root && row.created_at > after))
}
