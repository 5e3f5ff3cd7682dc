//! Adding a secret, or a version to it.

use super::{
    put::Put,
    unsigned,
    work::{Halt, Held, Work},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
};
use strongroom_api::secrets::PutResult;
use strongroom_core::{Payload, SecretId};
use strongroom_crypto::VersionNames;
use strongroom_store::{SecretRow, VersionRow, VersionState, insert_secret, insert_version};
use time::OffsetDateTime;
use uuid::Uuid;

/// Adds the secret. `None` where another put came first.
pub(super) async fn create(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    held: &mut Held,
    put: &Put<'_>,
) -> Result<Option<(SecretId, i64)>, Halt> {
    let project = held.rules.existing_project()?.clone();
    put.precondition.check(project.settings(), None)?;
    if !put.activate {
        let message = "activate: the first version of a secret is current; leave it out";
        return Err(Failure::Invalid(message.to_owned()).into());
    }
    let mut row = SecretRow::new(SecretId(Uuid::now_v7()), project.id(), held.path.clone(), app.clock.now());
    row.expires_at = put.expires_at.map(OffsetDateTime::from).applied(None);
    put.describe(&mut row)?;
    if insert(app, caller, work, held, row.clone()).await? {
        work.expires(row.expires_at);
        Ok(Some((row.id, 1)))
    } else {
        Ok(None)
    }
}

/// Adds a secret's row where nothing is at its path. `false` where something came there first. Whether its project has room is looked at when the transaction
/// ends.
pub(super) async fn insert(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    held: &mut Held,
    row: SecretRow,
) -> Result<bool, Halt> {
    let project = held.rules.existing_project()?.clone();
    if let Some(most) = project.settings().max_secrets {
        work.must_fit(project.id(), most);
    }
    let inserted = insert_secret(work.connection(), &app.keyring().mac_row(row)).await?;
    held.confirm(app, caller, work.connection()).await?;
    Ok(inserted)
}

/// Seals the value, adds the version, and notes the event.
pub(super) async fn add_version(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    held: Held,
    (secret, number): (SecretId, i64),
    put: Put<'_>,
) -> Result<PutResult, Halt> {
    let version = unsigned(number);
    let created_at = app.clock.now();
    // Decided anew: something may have been waited for.
    let describes = put.may_describe(app, caller, &held)?;
    let row = VersionRow {
        secret,
        version: number,
        author: caller.identity.principal(),
        reason: put.reason,
        media_type: put.payload.media_type().to_owned(),
        created_at,
        project_key_generation: 0,
        wrapped_key: Vec::new(),
        sealed_value: Vec::new(),
        state: VersionState::Live,
    };
    seal_version(app, work, &held, row, put.payload).await?;
    work.changed(&held.path);
    work.record(app, caller, &[&held.grant], &held.path, Some(version), "ok");
    // An event of its own: who looks for changes of rights must find labels among them.
    if let Some(grant) = describes {
        work.record(app, caller, &[&grant], &held.path, None, "ok");
    }
    Ok(PutResult { path: held.path, version, created_at, unchanged: false })
}

/// Seals a value for a version's row under the project's active key, and adds it.
pub(super) async fn seal_version(
    app: &App,
    work: &mut Work,
    held: &Held,
    row: VersionRow,
    payload: &Payload,
) -> Result<(), Halt> {
    let keyring = app.keyring();
    let names = VersionNames { secret: row.secret, version: unsigned(row.version), media_type: payload.media_type() };
    let sealed = keyring.seal_value(held.rules.existing_project()?.active_key()?, &names, &payload.encode());
    let row = VersionRow {
        project_key_generation: sealed.project_key_generation,
        wrapped_key: sealed.wrapped_key,
        sealed_value: sealed.sealed_value,
        ..row
    };
    insert_version(work.connection(), &keyring.mac_row(row)).await?;
    Ok(())
}
