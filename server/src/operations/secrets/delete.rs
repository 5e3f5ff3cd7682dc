//! Deleting and undeleting: a secret, or one version of it. What is deleted cannot be read, and nothing of it is lost.

use super::{
    change::write_row,
    checked_version,
    once::run,
    pointers::{is_kept, release},
    precondition::Precondition,
    unsigned,
    work::{Halt, Held, Work},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::change::audited,
};
use strongroom_core::{Action, SecretPath, Verified};
use strongroom_store::{SecretRow, VersionRow, VersionState, forget_expiry, lock_version, update_version};

/// Deletes a secret, whose versions stay, or one version. A put revives a secret with the next number.
pub async fn delete(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    version: Option<u64>,
    precondition: Precondition,
) -> Result<(), Failure> {
    let outcome =
        async { run(app, caller, async |work| delete_in(app, caller, work, path, version, precondition).await).await };
    audited(app, caller, Action::Delete, path.to_string(), outcome.await).await
}

/// [`delete`] in a transaction.
pub async fn delete_in(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    path: &SecretPath,
    version: Option<u64>,
    precondition: Precondition,
) -> Result<(), Halt> {
    let held = work.hold(app, caller, path, Action::Delete).await?;
    let secret = held.existing()?;
    if secret.deleted {
        return Err(Failure::Deleted.into());
    }
    precondition.check_if_given(Some(secret))?;
    refuse_protected(&held, secret)?;
    let deleted = match version {
        None => {
            let row = write_row(app, work, secret, |row| {
                row.deleted = true;
                Ok(())
            })
            .await?;
            unsigned(row.current_version)
        }
        Some(version) => {
            let row = existing_version(app, work, &held, secret, version).await?;
            match row.state {
                VersionState::Live => {}
                VersionState::Deleted => return Err(Failure::VersionDeleted.into()),
                VersionState::Destroyed => return Err(Failure::VersionDestroyed.into()),
            }
            let after = write_row(app, work, secret, |secret| release(secret, row.version)).await?;
            // Where only `previous` kept it from being pruned it is gone already.
            if is_kept(&after, row.version) {
                let row = VersionRow { state: VersionState::Deleted, ..row.into_inner() };
                update_version(work.connection(), &app.keyring().mac_row(row)).await?;
            }
            version
        }
    };
    work.changed(path);
    work.record(app, caller, &[&held.grant], path, Some(deleted), "ok");
    Ok(())
}

/// Brings a deleted secret back, or one deleted version of a secret that is there.
pub async fn undelete(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    version: Option<u64>,
    precondition: Precondition,
) -> Result<(), Failure> {
    let outcome = async {
        run(app, caller, async |work| undelete_in(app, caller, work, path, version, precondition).await).await
    };
    audited(app, caller, Action::Delete, path.to_string(), outcome.await).await
}

/// [`undelete`] in a transaction. What is not deleted stays as it is, and that is no error.
pub async fn undelete_in(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    path: &SecretPath,
    version: Option<u64>,
    precondition: Precondition,
) -> Result<(), Halt> {
    let held = work.hold(app, caller, path, Action::Delete).await?;
    let secret = held.existing()?;
    precondition.check_to_bring_back(secret)?;
    let (number, undeleted) = match version {
        None => {
            if secret.deleted {
                write_row(app, work, secret, |row| {
                    row.deleted = false;
                    Ok(())
                })
                .await?;
                forget_expiry(work.connection(), secret.id).await?;
                work.expires(secret.expires_at);
            }
            (unsigned(secret.current_version), secret.deleted)
        }
        Some(_) if secret.deleted => return Err(Failure::Deleted.into()),
        Some(version) => {
            let row = existing_version(app, work, &held, secret, version).await?;
            let undeleted = row.state == VersionState::Deleted;
            if row.state == VersionState::Destroyed {
                return Err(Failure::VersionDestroyed.into());
            }
            if undeleted {
                write_row(app, work, secret, |_| Ok(())).await?;
                let row = VersionRow { state: VersionState::Live, ..row.into_inner() };
                update_version(work.connection(), &app.keyring().mac_row(row)).await?;
            }
            (version, undeleted)
        }
    };
    if undeleted {
        work.changed(path);
    }
    work.record(app, caller, &[&held.grant], path, Some(number), if undeleted { "ok" } else { "unchanged" });
    Ok(())
}

/// A version that is there, checked and locked, without its value.
pub(super) async fn existing_version(
    app: &App,
    work: &mut Work,
    held: &Held,
    secret: &SecretRow,
    version: u64,
) -> Result<Verified<VersionRow>, Halt> {
    let number = i64::try_from(version).ok().filter(|number| is_kept(secret, *number)).ok_or(Failure::NotFound)?;
    let row = lock_version(work.connection(), secret.id, number).await?.ok_or(Failure::NotFound)?;
    Ok(checked_version(app, &held.rules, secret, row)?)
}

/// Refuses what would take something away from a protected secret.
pub(super) fn refuse_protected(held: &Held, secret: &SecretRow) -> Result<(), Failure> {
    let of_project = held.rules.existing_project()?.settings().deletion_protection;
    if secret.deletion_protected || of_project { Err(Failure::Protected) } else { Ok(()) }
}
