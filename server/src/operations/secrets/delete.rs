//! Deleting.

use super::{
    precondition::Precondition,
    unsigned,
    work::{Halt, Work},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::change::audited,
};
use strongroom_core::{Action, SecretPath};
use strongroom_store::{SecretRow, update_secret};

/// Deletes a secret; its versions stay, and a put revives it with the next number.
pub async fn delete(app: &App, caller: &Caller, path: &SecretPath, precondition: Precondition) -> Result<(), Failure> {
    let outcome = async {
        let mut work = Work::begin(app).await?;
        let outcome = delete_in(app, caller, &mut work, path, precondition).await;
        work.finish(app, caller, outcome).await
    };
    audited(app, caller, Action::Delete, path.to_string(), outcome.await).await
}

/// [`delete`] in a transaction.
pub async fn delete_in(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    path: &SecretPath,
    precondition: Precondition,
) -> Result<(), Halt> {
    let mut held = work.hold(app, caller, path, Action::Delete).await?;
    let secret = held.take()?;
    if secret.deleted {
        return Err(Failure::Deleted.into());
    }
    precondition.check(held.rules.existing_project()?.settings(), Some(&secret))?;
    let version = unsigned(secret.current_version);
    let row = SecretRow { deleted: true, updated_at: app.clock.now(), revision: secret.revision + 1, ..secret };
    update_secret(work.connection(), &app.keyring().mac_row(row)).await?;
    work.changed(path);
    work.record(app, caller, &[&held.grant], path, Some(version), "ok");
    Ok(())
}
