//! Destroying versions and purging secrets: for good. A tombstone in the project's manifest keeps what is gone from coming back.

use super::{
    change::write_row,
    delete::{existing_version, refuse_protected},
    once::run,
    pointers::{is_kept, release},
    work::{Halt, Work},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::change::audited,
};
use std::collections::BTreeSet;
use strongroom_core::{Action, SecretPath};
use strongroom_store::{SecretRow, VersionRow, VersionState, purge_secret, update_version};

/// Most versions destroyed at once.
const MAX_DESTROYED: usize = 100;

/// Erases the values and wrapped keys of versions. Those that are destroyed already stay so.
pub async fn destroy(app: &App, caller: &Caller, path: &SecretPath, versions: &[u64]) -> Result<(), Failure> {
    let outcome = async { run(app, caller, async |work| destroy_in(app, caller, work, path, versions).await).await };
    audited(app, caller, Action::Destroy, path.to_string(), outcome.await).await
}

/// [`destroy`] in a transaction.
pub async fn destroy_in(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    path: &SecretPath,
    versions: &[u64],
) -> Result<(), Halt> {
    let versions: BTreeSet<u64> = versions.iter().copied().collect();
    if versions.is_empty() || versions.len() > MAX_DESTROYED {
        return Err(Failure::Invalid(format!("versions: 1 to {MAX_DESTROYED}")).into());
    }
    let mut held = work.hold(app, caller, path, Action::Destroy).await?;
    let secret = held.existing()?.clone();
    refuse_protected(&held, &secret)?;
    let mut rows = Vec::with_capacity(versions.len());
    for version in &versions {
        let row = existing_version(app, work, &held, &secret, *version).await?;
        if row.state != VersionState::Destroyed {
            rows.push(row.into_inner());
        }
    }
    let numbers: Vec<i64> = rows.iter().map(|row| row.version).collect();
    if !rows.is_empty() {
        let release_all = |secret: &mut SecretRow| numbers.iter().try_for_each(|number| release(secret, *number));
        let after = write_row(app, work, &secret, release_all).await?;
        work.bury(app, caller, &mut held, &numbers).await?;
        // Those that only `previous` kept from being pruned are gone already.
        rows.retain(|row| is_kept(&after, row.version));
    }
    for row in rows {
        let row =
            VersionRow { state: VersionState::Destroyed, wrapped_key: Vec::new(), sealed_value: Vec::new(), ..row };
        update_version(work.connection(), &app.keyring().mac_row(row)).await?;
    }
    for version in &versions {
        let destroyed = i64::try_from(*version).is_ok_and(|version| numbers.contains(&version));
        work.record(app, caller, &[&held.grant], path, Some(*version), if destroyed { "ok" } else { "unchanged" });
    }
    work.changed(path);
    Ok(())
}

/// Removes a secret with all its versions, deleted or not.
pub async fn purge(app: &App, caller: &Caller, path: &SecretPath) -> Result<(), Failure> {
    let outcome = async { run(app, caller, async |work| purge_in(app, caller, work, path).await).await };
    audited(app, caller, Action::Purge, path.to_string(), outcome.await).await
}

/// [`purge`] in a transaction.
pub async fn purge_in(app: &App, caller: &Caller, work: &mut Work, path: &SecretPath) -> Result<(), Halt> {
    let mut held = work.hold(app, caller, path, Action::Purge).await?;
    let secret = held.existing()?.id;
    refuse_protected(&held, held.existing()?)?;
    work.bury(app, caller, &mut held, &[0]).await?;
    purge_secret(work.connection(), secret).await?;
    work.changed(path);
    work.record(app, caller, &[&held.grant], path, None, "ok");
    Ok(())
}
