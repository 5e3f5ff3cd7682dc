//! The one way in which a secret's row changes: its revision counts, and versions that nothing holds any more go.

use super::{
    pointers::pinned,
    work::{Halt, Work},
};
use crate::{app::App, failure::Failure};
use strongroom_core::Verified;
use strongroom_store::{ProjectSettings, SecretRow, prune_versions, update_secret};

/// Writes a changed row: what is `before`, as `change` makes it. Versions that lost their last alias and lie below the oldest one kept are removed.
pub(super) async fn write_row(
    app: &App,
    work: &mut Work,
    before: &Verified<SecretRow>,
    change: impl FnOnce(&mut SecretRow) -> Result<(), Failure>,
) -> Result<SecretRow, Halt> {
    let mut row = SecretRow::clone(before);
    row.updated_at = app.clock.now();
    row.revision += 1;
    change(&mut row)?;
    let row = app.keyring().mac_row(row);
    update_secret(work.connection(), &row).await?;
    let row = row.row().clone();
    let held = pinned(&row);
    for version in pinned(before) {
        if version < before.oldest_version && !held.contains(&version) {
            prune_versions(work.connection(), row.id, version, version + 1, &[]).await?;
        }
    }
    if row.oldest_version > before.oldest_version {
        prune_versions(work.connection(), row.id, before.oldest_version, row.oldest_version, &held).await?;
    }
    Ok(row)
}

/// Where the versions kept begin once `latest` is the newest: the secret's own number of them, or its project's.
pub(super) fn oldest_kept(secret: &SecretRow, settings: &ProjectSettings, latest: i64) -> i64 {
    let kept = i64::from(secret.keep_versions.unwrap_or(settings.keep_versions));
    (latest - kept + 1).max(secret.oldest_version)
}
