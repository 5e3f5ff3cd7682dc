//! Deleting.

use super::{
    unsigned,
    write::{Precondition, Write, precondition_holds},
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
    let outcome = try_delete(app, caller, path, precondition).await;
    audited(app, caller, Action::Delete, path.to_string(), outcome).await
}

async fn try_delete(app: &App, caller: &Caller, path: &SecretPath, precondition: Precondition) -> Result<(), Failure> {
    let mut write = Write::begin(app, caller, path, Action::Delete).await?;
    let secret = write.secret.take().ok_or(Failure::NotFound)?;
    if secret.deleted {
        return Err(Failure::Deleted);
    }
    if !precondition_holds(precondition, Some(&secret)) {
        return Err(Failure::VersionConflict);
    }
    let version = unsigned(secret.current_version);
    let row =
        SecretRow { deleted: true, updated_at: app.clock.now(), revision: secret.revision + 1, ..secret.into_inner() };
    update_secret(write.transaction.connection(), &app.keyring().mac_row(row)).await?;
    write.commit(app, caller, path, version).await
}
