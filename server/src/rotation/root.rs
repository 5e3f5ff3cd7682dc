//! What the root wraps is wrapped anew by its current key.

use super::{
    Turn, finish,
    step::{Step, resource},
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
use strongroom_crypto::{RootWrapped, rewrap};
use strongroom_store::{
    Conflict, InstanceRow, RotationKind, RotationRow, StoreError, TermRow, insert_rotation, update_instance,
    update_term,
};
use tokio::time::Instant;
use uuid::Uuid;

/// How often it is looked whether a key service changed its key.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What the current root key has not wrapped yet, as it stands.
pub(crate) fn outdated(app: &App, access: &Access) -> Vec<(RootWrapped, Vec<u8>)> {
    let instance = app.instance.id;
    let mac = (RootWrapped::KeyringMacKey { instance }, access.instance.row.keyring_mac_key.clone());
    let terms = access.instance.terms().iter().filter(|term| term.state != "destroyed");
    let terms = terms.map(|term| (RootWrapped::Term { instance, term: term.term }, term.wrapped.clone()));
    let all = std::iter::once(mac).chain(terms);
    all.filter(|(names, wrapped)| app.keys.root().needs_rewrap(*names, wrapped)).collect()
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
    let before = outdated(app, &access);
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
    if outdated(app, &access) != before {
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
    step.commit(Some(ledger)).await?;
    Ok(Turn::Moved)
}

/// Looks from time to time whether a key service changed its key, and starts a rewrap then.
///
/// Where an older root key is configured beside the current one, an operator says when: every server must know both first.
#[derive(Debug, Default)]
pub(super) struct Watch {
    looked_at: Option<Instant>,
}

impl Watch {
    pub(super) async fn look(&mut self, app: &App) -> Result<(), Failure> {
        if self.looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        self.looked_at = Some(Instant::now());
        if app.keys.root().is_changing() || outdated(app, &current(app).await?).is_empty() {
            return Ok(());
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
