//! Aliases: which version is current, which is to be, and free names.

use super::{
    change::write_row,
    delete::existing_version,
    metadata::told,
    once::run,
    pointers::{activate, point, pointed},
    precondition::Precondition,
    unsigned,
    work::{Halt, Work},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::change::audited,
};
use strongroom_api::metadata::Changed;
use strongroom_core::{Action, SecretPath, VersionSelector};
use strongroom_store::VersionState;

/// Points an alias at a version that can be read: `current`, `pending` or a free one.
pub async fn point_alias(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    alias: &VersionSelector,
    target: &VersionSelector,
    precondition: Precondition,
) -> Result<Changed, Failure> {
    let outcome = async {
        run(app, caller, async |work| point_alias_in(app, caller, work, path, alias, target, precondition).await).await
    };
    audited(app, caller, Action::Write, path.to_string(), outcome.await).await
}

/// [`point_alias`] in a transaction.
pub async fn point_alias_in(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    path: &SecretPath,
    alias: &VersionSelector,
    target: &VersionSelector,
    precondition: Precondition,
) -> Result<Changed, Halt> {
    refuse_unsettable(alias)?;
    let held = work.hold(app, caller, path, Action::Write).await?;
    let secret = held.existing()?;
    if secret.deleted {
        return Err(Failure::Deleted.into());
    }
    precondition.check(held.rules.existing_project()?.settings(), Some(secret))?;
    let number = pointed(secret, target).map(unsigned).ok_or(Failure::NotFound)?;
    let version = existing_version(app, work, &held, secret, number).await?;
    match version.state {
        VersionState::Live => {}
        VersionState::Deleted => return Err(Failure::VersionDeleted.into()),
        VersionState::Destroyed => return Err(Failure::VersionDestroyed.into()),
    }
    let version = version.version;
    if pointed(secret, alias) == Some(version) {
        work.record(app, caller, &[&held.grant], path, Some(number), "unchanged");
        return Ok(told(app, caller, work, &held, secret));
    }
    let row = write_row(app, work, secret, |secret| match alias {
        VersionSelector::Current => {
            activate(secret, version);
            Ok(())
        }
        VersionSelector::Pending if version == secret.current_version => {
            Err(Failure::Invalid("version: it is current, and cannot be pending too".to_owned()))
        }
        VersionSelector::Pending => {
            secret.pending_version = Some(version);
            Ok(())
        }
        VersionSelector::Alias(alias) => point(secret, alias.clone(), version),
        VersionSelector::Previous | VersionSelector::Number(_) => refuse_unsettable(alias),
    })
    .await?;
    work.changed(path);
    work.record(app, caller, &[&held.grant], path, Some(number), "ok");
    Ok(told(app, caller, work, &held, &row))
}

/// Removes a free alias, or `pending`.
pub async fn remove_alias(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    alias: &VersionSelector,
    precondition: Precondition,
) -> Result<Changed, Failure> {
    let outcome = async {
        run(app, caller, async |work| remove_alias_in(app, caller, work, path, alias, precondition).await).await
    };
    audited(app, caller, Action::Write, path.to_string(), outcome.await).await
}

/// [`remove_alias`] in a transaction.
pub async fn remove_alias_in(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    path: &SecretPath,
    alias: &VersionSelector,
    precondition: Precondition,
) -> Result<Changed, Halt> {
    refuse_unsettable(alias)?;
    if *alias == VersionSelector::Current {
        return Err(Failure::Invalid("alias: `current` moves, and is never removed".to_owned()).into());
    }
    let held = work.hold(app, caller, path, Action::Write).await?;
    let secret = held.existing()?;
    if secret.deleted {
        return Err(Failure::Deleted.into());
    }
    precondition.check(held.rules.existing_project()?.settings(), Some(secret))?;
    let version = pointed(secret, alias).map(unsigned).ok_or(Failure::NotFound)?;
    let row = write_row(app, work, secret, |secret| {
        match alias {
            VersionSelector::Alias(alias) => {
                secret.aliases.remove(alias);
            }
            _ => secret.pending_version = None,
        }
        Ok(())
    })
    .await?;
    work.changed(path);
    work.record(app, caller, &[&held.grant], path, Some(version), "ok");
    Ok(told(app, caller, work, &held, &row))
}

fn refuse_unsettable(alias: &VersionSelector) -> Result<(), Failure> {
    match alias {
        VersionSelector::Previous => Err(Failure::Invalid(
            "alias: `previous` moves by itself when `current` moves; point `current` at it to go back".to_owned(),
        )),
        VersionSelector::Number(_) => Err(Failure::Invalid("alias: a number is no alias".to_owned())),
        VersionSelector::Current | VersionSelector::Pending | VersionSelector::Alias(_) => Ok(()),
    }
}
