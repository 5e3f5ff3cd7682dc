//! Putting a value.

use super::{
    precondition::Precondition,
    unsigned,
    work::{Halt, Held, Work},
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

/// What is put.
#[derive(Debug)]
pub struct Put<'a> {
    /// The value.
    pub payload: &'a Payload,
    /// Why, for people.
    pub reason: Option<String>,
    /// When it is done.
    pub precondition: Precondition,
}

/// Puts a new version and points `current` at it.
pub async fn put(app: &App, caller: &Caller, path: &SecretPath, put: Put<'_>) -> Result<PutResult, Failure> {
    let outcome = async {
        let mut work = Work::begin(app).await?;
        let outcome = put_in(app, caller, &mut work, path, put).await;
        work.finish(app, caller, outcome).await
    };
    audited(app, caller, Action::Write, path.to_string(), outcome.await).await
}

/// [`put`] in a transaction.
pub async fn put_in(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    path: &SecretPath,
    put: Put<'_>,
) -> Result<PutResult, Halt> {
    check_reason(put.reason.as_deref())?;
    let mut held = work.hold(app, caller, path, Action::Write).await?;
    let mut now = app.clock.now();
    if held.secret.is_none() {
        let project = held.rules.existing_project()?;
        put.precondition.check(project.settings(), None)?;
        let row = SecretRow::new(SecretId(Uuid::now_v7()), project.id(), path.clone(), now);
        let row = app.keyring().mac_row(row);
        if insert_secret(work.connection(), &row).await? {
            held.confirm(app, caller, work.connection()).await?;
            return add_version(app, caller, work, held, (row.row().id, 1), put, now).await;
        }
        // Another put came first: it is there now, and whether it may be written is decided anew.
        held = work.hold(app, caller, path, Action::Write).await?;
        now = app.clock.now();
    }
    let project = held.rules.existing_project()?;
    let secret = held.secret.as_ref().ok_or(Failure::VersionConflict)?;
    put.precondition.check(project.settings(), Some(secret))?;
    let version = secret.latest_version + 1;
    let row = SecretRow {
        deleted: false,
        latest_version: version,
        current_version: version,
        previous_version: Some(secret.current_version),
        updated_at: now,
        revision: secret.revision + 1,
        ..held.take()?
    };
    let id = row.id;
    update_secret(work.connection(), &app.keyring().mac_row(row)).await?;
    add_version(app, caller, work, held, (id, version), put, now).await
}

/// Seals the value, adds the version, and notes the event.
async fn add_version(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    held: Held,
    (secret, number): (SecretId, i64),
    put: Put<'_>,
    now: OffsetDateTime,
) -> Result<PutResult, Halt> {
    let keyring = app.keyring();
    let version = unsigned(number);
    let names = VersionNames { secret, version, media_type: put.payload.media_type() };
    let sealed = keyring.seal_value(held.rules.existing_project()?.active_key()?, &names, &put.payload.encode());
    let row = VersionRow {
        secret,
        version: number,
        author: caller.identity.principal(),
        reason: put.reason,
        media_type: put.payload.media_type().to_owned(),
        created_at: now,
        project_key_generation: sealed.project_key_generation,
        wrapped_key: sealed.wrapped_key,
        sealed_value: sealed.sealed_value,
        state: VersionState::Live,
    };
    insert_version(work.connection(), &keyring.mac_row(row)).await?;
    work.changed(&held.path);
    work.record(app, caller, &[&held.grant], &held.path, Some(version), "ok");
    Ok(PutResult { path: held.path, version, created_at: now })
}

/// Refuses a reason that is too long or would break a line.
pub(super) fn check_reason(reason: Option<&str>) -> Result<(), Failure> {
    if reason.is_some_and(|text| text.chars().count() > MAX_REASON || text.chars().any(char::is_control)) {
        return Err(Failure::Invalid(format!("reason: at most {MAX_REASON} characters, and no control characters")));
    }
    Ok(())
}
