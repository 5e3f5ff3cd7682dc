//! Giving up numbers: after a restore, pods may hold versions whose numbers the database would give out a second time.

use super::{unsigned, write::Write};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::change::audited,
};
use strongroom_api::backup::{Advanced, MAX_ADVANCE};
use strongroom_core::{Action, SecretPath};
use strongroom_store::{SecretRow, update_secret};

/// Has the next put get a number above `latest`. A write like any other: it is authorised and audited as one. It never goes back: a number that was given out already changes no other.
pub async fn advance(app: &App, caller: &Caller, path: &SecretPath, latest: u64) -> Result<Advanced, Failure> {
    let outcome = try_advance(app, caller, path, latest).await;
    audited(app, caller, Action::Write, path.to_string(), outcome).await
}

async fn try_advance(app: &App, caller: &Caller, path: &SecretPath, latest: u64) -> Result<Advanced, Failure> {
    let mut write = Write::begin(app, caller, path, Action::Write).await?;
    let secret = write.secret.take().ok_or(Failure::NotFound)?;
    let before = unsigned(secret.latest_version);
    // Pods say what they like, and a number near the highest would leave no room for puts.
    if latest > before.saturating_add(MAX_ADVANCE) {
        return Err(Failure::Invalid(format!(
            "latest_version: at most {MAX_ADVANCE} above {before}, the highest that was given out"
        )));
    }
    let after = latest.max(before);
    let row = SecretRow {
        latest_version: i64::try_from(after).map_err(|_| Failure::Invalid("latest_version: too high".to_owned()))?,
        updated_at: app.clock.now(),
        revision: secret.revision + 1,
        ..secret.into_inner()
    };
    update_secret(write.transaction.connection(), &app.keyring().mac_row(row)).await?;
    write.commit(app, caller, path, after).await?;
    Ok(Advanced { path: path.clone(), latest_version: after })
}
