//! A new version made of the current one's fields and new ones.

use super::{
    checked_version,
    once::run,
    pointers::is_expired,
    put::{Put, check_reason, put_onto},
    resource, sealed, unsigned, with_key,
    work::{Halt, Held, Work},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::{authorization::right_to, change::audited, secrets::precondition::Precondition},
};
use std::collections::BTreeMap;
use strongroom_api::{Update, secrets::PutResult};
use strongroom_core::{Action, FieldName, Moment, Payload, SecretBytes, SecretPath};
use strongroom_crypto::{Maintenance, VersionNames};
use strongroom_store::read_version;

/// Fields to set, or with `None` to remove.
pub type Changes = BTreeMap<FieldName, Option<SecretBytes>>;

/// What is patched.
#[derive(Debug)]
pub struct Patch {
    /// The fields that change.
    pub changes: Changes,
    /// Why, for people.
    pub reason: Option<String>,
    /// When it is done.
    pub precondition: Precondition,
    /// Whether the version becomes current, or pending.
    pub activate: bool,
    /// When the secret stops being readable. Kept, it stays, and a secret that has expired is not patched: its other fields have expired too.
    pub expires_at: Update<Moment>,
}

/// Puts a version made of the current one's fields and others. It needs `write` only: the current value is opened, and nothing of it is told but whether the
/// result is a payload.
///
/// # Errors
/// Among others [`Failure::Expired`], where the patch does not say when the secret expires from now on.
pub async fn patch(app: &App, caller: &Caller, path: &SecretPath, patch: Patch) -> Result<PutResult, Failure> {
    let outcome = async { run(app, caller, async |work| patch_in(app, caller, work, path, patch).await).await };
    audited(app, caller, Action::Write, path.to_string(), outcome.await).await
}

/// [`patch`] in a transaction. The secret's row is locked, so that of two patches at once the second is made of what the first left.
pub async fn patch_in(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    path: &SecretPath,
    patch: Patch,
) -> Result<PutResult, Halt> {
    let Patch { changes, reason, precondition, activate, expires_at } = patch;
    check_reason(reason.as_deref())?;
    let changes = Bounded::new(changes)?;
    let held = work.hold(app, caller, path, Action::Write).await?;
    let secret = held.existing()?;
    if secret.deleted {
        return Err(Failure::Deleted.into());
    }
    if expires_at.is_keep() && is_expired(secret, app.clock.now()) {
        return Err(Failure::Expired.into());
    }
    precondition.check(held.rules.existing_project()?.settings(), Some(secret))?;
    let merged = changes.merged(current_payload(app, work, &held).await?);
    let payload = merged.map_err(|failure| {
        let about = resource(path, Some(secret), Some(unsigned(secret.current_version)));
        let reads = right_to(app, caller, &held.rules, Action::Read, about).is_some();
        if reads { failure } else { Failure::Invalid(NO_PAYLOAD.to_owned()) }
    })?;
    let put = Put { reason, precondition, activate, expires_at, ..Put::new(&payload) };
    put_onto(app, caller, work, held, put).await
}

/// The one thing that is said of every refused result to those who may not read the secret: why it was refused tells what it holds.
const NO_PAYLOAD: &str = "fields: with them the secret would not be 1 to 1,000 fields of together at most 1 MiB, or it holds raw bytes; whoever may read it is told which";

/// Changes whose fields by themselves are not too many or too large: where they are, that says nothing of the secret.
struct Bounded {
    set: BTreeMap<FieldName, SecretBytes>,
    removed: Vec<FieldName>,
}

impl Bounded {
    fn new(changes: Changes) -> Result<Self, Failure> {
        let (mut set, mut removed) = (BTreeMap::new(), Vec::new());
        for (name, value) in changes {
            match value {
                Some(value) => drop(set.insert(name, value)),
                None => removed.push(name),
            }
        }
        if set.is_empty() {
            return Ok(Self { set, removed });
        }
        match Payload::fields(set).map_err(|error| Failure::Invalid(format!("fields: {error}")))? {
            Payload::Fields(set) => Ok(Self { set, removed }),
            Payload::Raw { .. } => unreachable!("fields make a payload of fields"),
        }
    }

    fn merged(self, current: Payload) -> Result<Payload, Failure> {
        let Payload::Fields(mut fields) = current else {
            let message = "fields: the secret holds raw bytes, which have none; put it whole";
            return Err(Failure::Invalid(message.to_owned()));
        };
        fields.extend(self.set);
        for name in &self.removed {
            fields.remove(name);
        }
        Payload::fields(fields).map_err(|error| Failure::Invalid(format!("the patched secret: {error}")))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "whoever writes fields need not read the others, and is told nothing of them but whether the result is a payload"
)]
async fn current_payload(app: &App, work: &mut Work, held: &Held) -> Result<Payload, Halt> {
    let secret = held.existing()?;
    let missing = || Failure::Integrity(format!("the current version of {} is missing", secret.id));
    let row = read_version(work.connection(), secret.id, secret.current_version).await?.ok_or_else(missing)?;
    let row = checked_version(app, &held.rules, secret, row)?;
    let project = with_key(app, work.connection(), &held.rules, row.project_key_generation).await?;
    let key = project.key(row.project_key_generation)?;
    let names = VersionNames { secret: row.secret, version: unsigned(row.version), media_type: &row.media_type };
    let value = app
        .keyring()
        .open_for_maintenance(key, &names, &sealed(&row), &Maintenance::assume())
        .map_err(|error| Failure::Integrity(error.to_string()))?;
    Ok(Payload::decode(&row.media_type, value).map_err(|error| Failure::Integrity(error.to_string()))?)
}
