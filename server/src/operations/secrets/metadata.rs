//! What is known of a secret beside its value.

use super::{
    change::write_row,
    found, granted, leave_event,
    once::run,
    pointers::{is_expired, shown},
    resource, unsigned,
    work::{Halt, Held, Work, right_to},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::{authorization::rules, change::audited},
};
use strongroom_api::metadata::{Changed, Metadata, PatchMetadata};
use strongroom_core::{Action, Labels, SecretPath};
use strongroom_store::{SecretRow, forget_expiry};
use time::OffsetDateTime;

/// Most versions that can be kept of a secret.
pub const MAX_KEPT: u32 = 10_000;

/// A secret's metadata.
pub async fn metadata(app: &App, caller: &Caller, path: &SecretPath) -> Result<Metadata, Failure> {
    let outcome = try_metadata(app, caller, path).await;
    audited(app, caller, Action::Describe, path.to_string(), outcome).await
}

async fn try_metadata(app: &App, caller: &Caller, path: &SecretPath) -> Result<Metadata, Failure> {
    let mut connection = app.store.reader().await?;
    let rules = rules(app, &mut connection, caller, Some(&path.project())).await?;
    let secret = found(app, &mut connection, caller, &rules, Action::Describe, path).await?;
    drop(connection);
    let grant = granted(app, caller, &rules, Action::Describe, resource(path, secret.as_deref(), None)).await?;
    let secret = secret.ok_or(Failure::NotFound)?;
    leave_event(app, caller, Action::Describe, path.to_string(), None, grant.policies().to_vec()).await?;
    Ok(written(&secret, app.clock.now()))
}

/// Changes metadata. Labels and owner feed policies, so changing one is authorised as a grant, beside `write`; lifting deletion protection needs `purge`.
pub async fn patch_metadata(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    patch: &PatchMetadata,
    if_revision: Option<u64>,
) -> Result<Changed, Failure> {
    let outcome = async {
        run(app, caller, async |work| patch_metadata_in(app, caller, work, path, patch, if_revision).await).await
    };
    audited(app, caller, Action::Write, path.to_string(), outcome.await).await
}

/// [`patch_metadata`] in a transaction.
pub async fn patch_metadata_in(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    path: &SecretPath,
    patch: &PatchMetadata,
    if_revision: Option<u64>,
) -> Result<Changed, Halt> {
    let keep_versions = patch.keep_versions.try_map(kept_versions)?;
    let held = work.hold(app, caller, path, Action::Write).await?;
    let mut further = Vec::new();
    if !patch.labels.is_empty() || !patch.owner.is_keep() {
        further.push(held.demand_of_project(app, caller, Action::ManageGrants)?);
    }
    if patch.deletion_protected == Some(false) {
        further.push(held.demand(app, caller, Action::Purge)?);
    }
    let secret = held.existing()?;
    if if_revision.is_some_and(|revision| revision != unsigned(secret.revision)) {
        return Err(Failure::RevisionConflict.into());
    }
    let now = app.clock.now();
    let change = |row: &mut SecretRow| {
        if !patch.labels.is_empty() {
            row.labels = merged(&row.labels, patch)?;
        }
        row.owner = patch.owner.clone().applied(row.owner.take());
        row.expires_at = patch.expires_at.map(OffsetDateTime::from).applied(row.expires_at);
        row.keep_versions = keep_versions.applied(row.keep_versions);
        if let Some(protected) = patch.deletion_protected {
            row.deletion_protected = protected;
        }
        Ok(())
    };
    let mut after = SecretRow::clone(secret);
    change(&mut after)?;
    if is_same(secret, &after) {
        work.record(app, caller, &[&held.grant], path, None, "unchanged");
        return Ok(told(app, caller, work, &held, secret));
    }
    let row = write_row(app, work, secret, change).await?;
    if row.expires_at != secret.expires_at {
        forget_expiry(work.connection(), row.id).await?;
        work.expires(row.expires_at);
    }
    if is_expired(&row, now) != is_expired(secret, now) {
        work.changed(path);
    }
    work.record(app, caller, &[&held.grant], path, None, "ok");
    let changed = told(app, caller, work, &held, &row);
    // One event for each right that was needed: who looks for changes of rights must find labels among them.
    for grant in &further {
        work.record(app, caller, &[grant], path, None, "ok");
    }
    Ok(changed)
}

/// What a change answers, once its event is noted: who may describe the secret is told all of it.
pub(super) fn told(app: &App, caller: &Caller, work: &mut Work, held: &Held, row: &SecretRow) -> Changed {
    let describe = right_to(app, caller, &held.rules, Action::Describe, resource(&held.path, Some(row), None));
    let metadata = describe.map(|grant| {
        work.also_allowed_by(grant.policies().to_vec());
        written(row, app.clock.now())
    });
    Changed { path: held.path.clone(), revision: unsigned(row.revision), metadata }
}

/// Whether two states of a row are the same in all that a patch can change.
fn is_same(before: &SecretRow, after: &SecretRow) -> bool {
    before.labels == after.labels
        && before.owner == after.owner
        && before.expires_at == after.expires_at
        && before.keep_versions == after.keep_versions
        && before.deletion_protected == after.deletion_protected
}

/// A number of versions to keep.
pub fn kept_versions(kept: u32) -> Result<i32, Failure> {
    let in_range = (1..=MAX_KEPT).contains(&kept);
    i32::try_from(kept)
        .ok()
        .filter(|_| in_range)
        .ok_or_else(|| Failure::Invalid(format!("keep_versions: 1 to {MAX_KEPT}")))
}

fn merged(labels: &Labels, patch: &PatchMetadata) -> Result<Labels, Failure> {
    let mut merged = labels.as_map().clone();
    for (key, value) in &patch.labels {
        match value {
            Some(value) => merged.insert(key.clone(), value.clone()),
            None => merged.remove(key),
        };
    }
    Labels::new(merged).map_err(|error| Failure::Invalid(format!("labels: {error}")))
}

fn written(secret: &SecretRow, now: OffsetDateTime) -> Metadata {
    Metadata {
        path: secret.path.clone(),
        labels: secret.labels.clone(),
        owner: secret.owner.clone(),
        expires_at: secret.expires_at,
        expired: is_expired(secret, now),
        keep_versions: secret.keep_versions.and_then(|kept| u32::try_from(kept).ok()),
        deletion_protected: secret.deletion_protected,
        deleted: secret.deleted,
        pointers: shown(secret),
        latest: unsigned(secret.latest_version),
        revision: unsigned(secret.revision),
        created_at: secret.created_at,
        updated_at: secret.updated_at,
    }
}
