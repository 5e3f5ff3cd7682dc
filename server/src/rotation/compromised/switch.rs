//! The moment from which the old keys count for nothing but what stands.

use crate::{
    access::{Access, Ledger, branch},
    anchor::{Checkpoint, seal_anchor_by_next},
    app::App,
    failure::Failure,
    keys::{wrapped_purpose_key, wrapped_term},
    metrics as names,
    operations::keys::{checkpoint, known_epoch},
    rotation::{
        Turn, remac,
        step::Step,
        term::{cannot, switched},
    },
};
use std::{collections::BTreeMap, sync::Arc};
use strongroom_core::{AccessRow, Place, Verified};
use strongroom_crypto::{KeyState, Keyring, Purpose, WrappedKeyring};
use strongroom_store::{
    Connection, InstanceRow, ManifestRow, ManifestScope, PurposeKeyRow, QuarantineRow, RevisionRow, RotationRow,
    TermRow, claim_rotation, count_versions, delete_all_tokens, delete_idempotency_keys, insert_quarantine, manifests,
    open_rotations, remac_rotation, revision, update_instance, update_manifest, update_purpose_key, update_revision,
    update_term,
};

/// One transaction: the new keys are active, tokens and sessions end, and the instance's rows and every project's manifest are authenticated by the new row key.
pub(super) async fn switch(app: &App, rotation: &Verified<RotationRow>) -> Result<Turn, Failure> {
    app.keys.complete().await?;
    // Whoever starts on what this commits finds an anchor by the key that is in use then.
    seal_anchor_by_next(app).await?;
    let anchor = match checkpoint(app).await {
        // One that is not ours says nothing; the next start says so.
        Err(Failure::Integrity(_)) => None,
        read => read?,
    };
    let Some(mut step) = Step::claim(app, rotation.id).await? else { return Ok(Turn::Waits) };
    let (access, mut ledger) = step.lock(None).await?;
    let old = app.keyring();
    let terms = switched(&access, rotation.target, KeyState::Compromised, app.clock.now());
    let keys = switched_keys(&access, &old, rotation.target)?;
    let missing = || Failure::Integrity("the keyring's next MAC key is missing".to_owned());
    let mac_key = access.instance.row.next_keyring_mac_key.clone().ok_or_else(missing)?;
    let (terms, keys) =
        (with_others(access.instance.terms(), terms), with_others(access.instance.purpose_keys(), keys));
    let next = keyring_of(app, mac_key.clone(), &terms, &keys).await?;

    // What stands is looked at before anything of it is written.
    remac::instance_rows(&old, &next, step.connection(), &access, &mut ledger).await?;
    projects_manifests(app, (&old, &next), step.connection(), (&access, anchor.as_ref()), rotation, &mut ledger)
        .await?;
    remac::restores(&old, &next, step.connection()).await?;
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
    let row = InstanceRow {
        admin_claimed_at: None,
        keyring_mac_key: mac_key,
        next_keyring_mac_key: None,
        ..access.instance.row.clone().into_inner()
    };
    let row = next.mac_keyring_row(row);
    update_instance(step.connection(), &row).await?;
    ledger.put_in_instance(&row);
    let counted = revision(step.connection()).await?;
    let counted = counted.ok_or_else(|| Failure::Integrity("the access revision is missing".to_owned()))?;
    let counted = app.verify_current(counted)?.revision;
    update_revision(step.connection(), &next.mac_row(RevisionRow { revision: counted })).await?;
    for (row, _) in open_rotations(step.connection()).await? {
        // What is not ours is removed by whoever works on it next.
        let Ok(row) = app.verify_current(row) else { continue };
        // Somebody who works on one of them may wait for the lock that is held here; this one does not wait for him.
        if row.id != rotation.id && claim_rotation(step.connection(), row.id).await?.is_none() {
            return Ok(Turn::Waits);
        }
        remac_rotation(step.connection(), &next.mac_row(row.into_inner())).await?;
    }
    delete_idempotency_keys(step.connection(), next.row_generation()).await?;
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

/// The rows that stay as they are, and those that change instead of their like: all of them get a MAC by the keyring's next key.
fn with_others<T: AccessRow + Clone>(all: &[Verified<T>], changed: Vec<T>) -> Vec<T> {
    let stays = |row: &&Verified<T>| !changed.iter().any(|new| Place::of(new) == Place::of(&***row));
    let mut rows: Vec<T> = all.iter().filter(stays).map(|row| (**row).clone()).collect();
    rows.extend(changed);
    rows
}

/// The keyring as it will be with these rows.
async fn keyring_of(
    app: &App,
    mac_key: Vec<u8>,
    terms: &[TermRow],
    keys: &[PurposeKeyRow],
) -> Result<Arc<Keyring>, Failure> {
    let (keyring, root) = (app.keyring(), app.keys.root());
    let mac = keyring.promoted_mac(root, &mac_key).await.map_err(cannot)?;
    let rows = WrappedKeyring {
        mac_key,
        next_mac_key: None,
        terms: terms.iter().map(wrapped_term).collect::<Result<_, _>>()?,
        purpose_keys: keys.iter().map(wrapped_purpose_key).collect::<Result<_, _>>()?,
    };
    // Every key is known by now, so that no key service is asked under the lock.
    Ok(Arc::new(keyring.follow(root, mac, &rows).await.map_err(cannot)?))
}

/// Authenticates each project's manifest anew as it stands: it goes on pinning the rows that it covers, and from now on nobody makes another one by the old row
/// key. A project whose manifest is not ours is quarantined: once it was put back, as the old key made it, an operator says so.
async fn projects_manifests(
    app: &App,
    (old, next): (&Keyring, &Keyring),
    connection: &mut Connection,
    (access, anchor): (&Access, Option<&Checkpoint>),
    rotation: &Verified<RotationRow>,
    ledger: &mut Ledger,
) -> Result<(), Failure> {
    let found = manifests(connection).await?.into_iter();
    let mut found: BTreeMap<_, _> = found.map(|row| (row.claimed(|row| row.scope), row)).collect();
    for project in access.instance.projects() {
        let scope = ManifestScope::Project(project.id);
        let manifest = found.remove(&scope);
        let claimed = manifest.as_ref().map(|row| row.claimed(|row| (row.root.clone(), branch::claimed(row.epoch))));
        if let Some(Ok(row)) = manifest.map(|row| old.verify_current_row(row)) {
            let before = row.epoch;
            let row = ManifestRow { epoch: before + 1, ..row.into_inner() };
            update_manifest(connection, before, &next.mac_row(row)).await?;
        } else if !access.instance.is_quarantined(project.id) {
            metrics::counter!(names::INTEGRITY).increment(1);
            tracing::error!(project = %project.id, "its manifest is missing, or was not written by this instance; the project is quarantined");
            let (root, claimed) = claimed.unzip();
            let epoch = known_epoch(app, &access.instance, scope, claimed, anchor);
            let (root, author) = (root.unwrap_or_default(), rotation.author.clone());
            let row = QuarantineRow { scope, root, epoch, author, created_at: app.clock.now() };
            let row = next.mac_row(row);
            insert_quarantine(connection, &row).await?;
            ledger.put_in_instance(&row);
        }
    }
    Ok(())
}
