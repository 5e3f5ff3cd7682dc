//! The one way in which a secret's row changes: its revision counts, and versions that nothing holds any more go.

use super::{
    pointers::pinned,
    work::{Halt, Work},
};
use crate::{app::App, failure::Failure};
use strongroom_core::Verified;
use strongroom_store::{ProjectSettings, SecretRow, first_versions, prune_versions, update_secret};

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

/// Where the versions kept begin once one more is put.
pub(super) struct Kept {
    oldest: i64,
    skipped: i64,
}

impl Kept {
    /// As many of the newest are kept as the secret says, or its project. A number that was given up is no version. It costs as much as goes.
    pub(super) async fn after_put(
        work: &mut Work,
        secret: &SecretRow,
        settings: &ProjectSettings,
    ) -> Result<Self, Halt> {
        let (oldest, skipped) = (secret.oldest_version, secret.skipped_versions);
        let keep = i64::from(secret.keep_versions.unwrap_or(settings.keep_versions));
        let next = secret.latest_version + 1;
        let going = next - oldest + 1 - skipped - keep;
        if going <= 0 {
            return Ok(Self { oldest, skipped });
        }
        let first = first_versions(work.connection(), secret.id, oldest, going + 1).await?;
        let stays = usize::try_from(going).ok().and_then(|going| first.get(going)).copied().unwrap_or(next);
        // Where somebody removed rows there are fewer numbers to a version than was counted.
        Ok(Self { oldest: stays, skipped: (skipped - (stays - oldest - going)).max(0) })
    }

    /// Notes it in the secret's row.
    pub(super) fn note(&self, row: &mut SecretRow) {
        row.oldest_version = self.oldest;
        row.skipped_versions = self.skipped;
    }
}
