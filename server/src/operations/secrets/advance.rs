//! Giving up numbers: after a restore, pods may hold versions whose numbers the database would give out a second time.

use super::{
    change::write_row,
    unsigned,
    work::{Halt, Work},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::change::audited,
};
use strongroom_api::backup::{Advanced, MAX_ADVANCE};
use strongroom_core::{Action, SecretPath};

/// Has the next put get a number above `latest`. A write like any other: it is authorised and audited as one. It never goes back: a number that was given out already changes no other.
pub async fn advance(app: &App, caller: &Caller, path: &SecretPath, latest: u64) -> Result<Advanced, Failure> {
    let outcome = async {
        let mut work = Work::begin(app).await?;
        let outcome = advance_in(app, caller, &mut work, path, latest).await;
        work.finish(app, caller, outcome).await
    };
    let outcome = outcome.await;
    audited(app, caller, Action::Write, path.to_string(), outcome).await
}

async fn advance_in(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    path: &SecretPath,
    latest: u64,
) -> Result<Advanced, Halt> {
    let held = work.hold(app, caller, path, Action::Write).await?;
    let secret = held.existing()?;
    let before = unsigned(secret.latest_version);
    // Pods say what they like, and a number near the highest would leave no room for puts.
    if latest > before.saturating_add(MAX_ADVANCE) {
        let message = format!("latest_version: at most {MAX_ADVANCE} above {before}, the highest that was given out");
        return Err(Failure::Invalid(message).into());
    }
    let after = latest.max(before);
    let number = i64::try_from(after).map_err(|_| Failure::Invalid("latest_version: too high".to_owned()))?;
    write_row(app, work, secret, |row| {
        // No version has the numbers between, so none is pruned for them.
        row.skipped_versions += number - row.latest_version;
        row.latest_version = number;
        Ok(())
    })
    .await?;
    work.changed(path);
    work.record(app, caller, &[&held.grant], path, Some(after), "ok");
    Ok(Advanced { path: path.clone(), latest_version: after })
}
