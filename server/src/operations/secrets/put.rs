//! Putting a value.

use super::{
    unsigned,
    write::{Precondition, Write, precondition_holds},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::change::audited,
};
use strongroom_api::secrets::PutResult;
use strongroom_core::{Action, Payload, SecretId, SecretPath};
use strongroom_crypto::VersionNames;
use strongroom_store::{SecretRow, VersionRow, VersionState, insert_secret, insert_version, update_secret};
use time::OffsetDateTime;
use uuid::Uuid;

/// Most characters of a reason.
pub const MAX_REASON: usize = 256;

/// Puts a new version and points `current` at it.
pub async fn put(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    payload: &Payload,
    reason: Option<String>,
    precondition: Precondition,
) -> Result<PutResult, Failure> {
    let outcome = try_put(app, caller, path, payload, reason, precondition).await;
    audited(app, caller, Action::Write, path.to_string(), outcome).await
}

async fn try_put(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    payload: &Payload,
    reason: Option<String>,
    precondition: Precondition,
) -> Result<PutResult, Failure> {
    if reason.as_deref().is_some_and(|text| text.chars().count() > MAX_REASON || text.chars().any(char::is_control)) {
        return Err(Failure::Invalid(format!("reason: at most {MAX_REASON} characters, and no control characters")));
    }
    let mut write = Write::begin(app, caller, path, Action::Write).await?;
    let mut now = app.clock.now();
    if write.secret.is_none() && precondition_holds(precondition, None) {
        let project = write.rules.existing_project()?.id();
        let row = SecretRow::new(SecretId(Uuid::now_v7()), project, path.clone(), now);
        let row = app.keyring().mac_row(row);
        if insert_secret(write.transaction.connection(), &row).await? {
            return add_version(app, caller, write, (row.row().id, 1), path, payload, reason, now).await;
        }
        // Another put came first: it is there now, and whether it may be written is decided anew. The connection goes back before another is asked for.
        drop(write);
        write = Write::begin(app, caller, path, Action::Write).await?;
        now = app.clock.now();
    }
    write.rules.existing_project()?;
    let secret = write.secret.take().ok_or(Failure::VersionConflict)?;
    if !precondition_holds(precondition, Some(&secret)) {
        return Err(Failure::VersionConflict);
    }
    let version = secret.latest_version + 1;
    let row = SecretRow {
        deleted: false,
        latest_version: version,
        current_version: version,
        previous_version: Some(secret.current_version),
        updated_at: now,
        revision: secret.revision + 1,
        ..secret.into_inner()
    };
    let id = row.id;
    update_secret(write.transaction.connection(), &app.keyring().mac_row(row)).await?;
    add_version(app, caller, write, (id, version), path, payload, reason, now).await
}

/// Seals the value, adds the version, and commits.
#[expect(clippy::too_many_arguments, reason = "the common end of put's two ways")]
async fn add_version(
    app: &App,
    caller: &Caller,
    mut write: Write,
    (secret, number): (SecretId, i64),
    path: &SecretPath,
    payload: &Payload,
    reason: Option<String>,
    now: OffsetDateTime,
) -> Result<PutResult, Failure> {
    let keyring = app.keyring();
    let version = unsigned(number);
    let names = VersionNames { secret, version, media_type: payload.media_type() };
    let sealed = keyring.seal_value(write.rules.existing_project()?.active_key()?, &names, &payload.encode());
    let row = VersionRow {
        secret,
        version: number,
        author: caller.identity.principal(),
        reason,
        media_type: payload.media_type().to_owned(),
        created_at: now,
        project_key_generation: sealed.project_key_generation,
        wrapped_key: sealed.wrapped_key,
        sealed_value: sealed.sealed_value,
        state: VersionState::Live,
    };
    insert_version(write.transaction.connection(), &keyring.mac_row(row)).await?;
    write.commit(app, caller, path, version).await?;
    Ok(PutResult { path: path.clone(), version, created_at: now })
}
