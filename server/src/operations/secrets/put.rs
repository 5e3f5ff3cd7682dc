//! Putting a value.

use super::{
    add::{add_version, create},
    change::{Kept, write_row},
    checked_version,
    once::run,
    opened,
    pointers::{activate, is_expired},
    precondition::Precondition,
    resource, unsigned, with_key,
    work::{Halt, Held, Work, right_to},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::change::audited,
};
use strongroom_api::{Update, secrets::PutResult};
use strongroom_core::{Action, Labels, Moment, Owner, Payload, SecretPath};
use strongroom_crypto::same_value;
use strongroom_policy::Grant;
use strongroom_store::{SecretRow, forget_expiry, read_version};
use time::OffsetDateTime;

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
    /// Whether it becomes current, or pending.
    pub activate: bool,
    /// When the secret stops being readable. Kept, it stays, but that a secret that has expired is readable again, without an expiry.
    pub expires_at: Update<Moment>,
    /// Labels to set; the others stay.
    pub labels: Labels,
    /// Who answers for it from now on; `None`: who did.
    pub owner: Option<Owner>,
}

impl<'a> Put<'a> {
    /// A put that makes this value current.
    pub fn new(payload: &'a Payload) -> Self {
        Self {
            payload,
            reason: None,
            precondition: Precondition::None,
            activate: true,
            expires_at: Update::Keep,
            labels: Labels::default(),
            owner: None,
        }
    }

    /// The right to set labels and owner, where there are any: they feed policies.
    pub(super) fn may_describe(&self, app: &App, caller: &Caller, held: &Held) -> Result<Option<Grant>, Halt> {
        let describes = !self.labels.is_empty() || self.owner.is_some();
        describes.then(|| held.demand_of_project(app, caller, Action::ManageGrants)).transpose()
    }

    /// Sets labels and owner.
    pub(super) fn describe(&self, row: &mut SecretRow) -> Result<(), Failure> {
        row.labels = row.labels.with(&self.labels).map_err(|error| Failure::Invalid(format!("labels: {error}")))?;
        if let Some(owner) = &self.owner {
            row.owner = Some(owner.clone());
        }
        Ok(())
    }

    /// Whether a secret has these labels and this owner already.
    fn is_described(&self, secret: &SecretRow) -> bool {
        let labels = secret.labels.as_map();
        self.labels.as_map().iter().all(|(key, value)| labels.get(key) == Some(value))
            && (self.owner.is_none() || self.owner == secret.owner)
    }
}

/// Puts a new version and points `current` at it, or `pending`.
///
/// # Errors
/// Among others [`Failure::VersionConflict`], [`Failure::PreconditionRequired`] and [`Failure::ProjectFull`].
pub async fn put(app: &App, caller: &Caller, path: &SecretPath, put: Put<'_>) -> Result<PutResult, Failure> {
    let outcome = async { run(app, caller, async |work| put_in(app, caller, work, path, put).await).await };
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
    put.may_describe(app, caller, &held)?;
    if held.secret.is_none() {
        match create(app, caller, work, &mut held, &put).await? {
            Some(created) => return add_version(app, caller, work, held, created, put).await,
            // Another put came first: it is there now, and whether it may be written is decided anew.
            None => held = work.hold(app, caller, path, Action::Write).await?,
        }
    }
    let secret = held.secret.as_ref().ok_or(Failure::VersionConflict)?;
    put.precondition.check(held.rules.existing_project()?.settings(), Some(secret))?;
    if !put.activate && secret.deleted {
        return Err(Failure::Deleted.into());
    }
    if put.activate
        && put.expires_at.is_keep()
        && !secret.deleted
        && !is_expired(secret, app.clock.now())
        && let Some(unchanged) = unchanged(app, caller, work, &held, put.payload).await?
    {
        if !put.is_described(secret) {
            write_row(app, work, secret, |row| put.describe(row)).await?;
            if let Some(grant) = put.may_describe(app, caller, &held)? {
                work.record(app, caller, &[&grant], path, None, "ok");
            }
        }
        return Ok(unchanged);
    }
    put_onto(app, caller, work, held, put).await
}

/// Adds a version to a secret that is there, whatever its current one is.
pub(super) async fn put_onto(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    mut held: Held,
    put: Put<'_>,
) -> Result<PutResult, Halt> {
    let secret = held.secret.take().ok_or(Failure::NotFound)?;
    let settings = held.rules.existing_project()?.settings().clone();
    let now = app.clock.now();
    let version = secret.latest_version + 1;
    let lasting = secret.expires_at.filter(|_| !(put.activate && is_expired(&secret, now)));
    let expires_at = put.expires_at.map(OffsetDateTime::from).applied(lasting);
    let kept = Kept::after_put(work, &secret, &settings).await?;
    let row = write_row(app, work, &secret, |row| {
        row.latest_version = version;
        if put.activate {
            row.deleted = false;
            activate(row, version);
        } else {
            row.pending_version = Some(version);
        }
        row.expires_at = expires_at;
        put.describe(row)?;
        kept.note(row);
        Ok(())
    })
    .await?;
    if expires_at != secret.expires_at || secret.deleted {
        forget_expiry(work.connection(), row.id).await?;
        work.expires(expires_at);
    }
    add_version(app, caller, work, held, (row.id, version), put).await
}

/// Whether the current version has this value already: compared only for those who may read it. Who may not learns nothing, and nothing is opened for him.
async fn unchanged(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    held: &Held,
    payload: &Payload,
) -> Result<Option<PutResult>, Halt> {
    let secret = held.existing()?;
    let version = unsigned(secret.current_version);
    let about = resource(&held.path, Some(secret), Some(version));
    let Some(read) = right_to(app, caller, &held.rules, Action::Read, about) else { return Ok(None) };
    let missing = || Failure::Integrity(format!("the current version of {} is missing", secret.id));
    let row = read_version(work.connection(), secret.id, secret.current_version).await?.ok_or_else(missing)?;
    let row = checked_version(app, &held.rules, secret, row)?;
    let policies = read.policies().to_vec();
    let project = with_key(app, work.connection(), &held.rules, row.project_key_generation).await?;
    let same =
        row.media_type == payload.media_type() && same_value(&opened(app, &project, &row, read)?, &payload.encode());
    if !same {
        return Ok(None);
    }
    work.record(app, caller, &[&held.grant], &held.path, Some(version), "unchanged");
    work.also_allowed_by(policies);
    Ok(Some(PutResult { path: held.path.clone(), version, created_at: row.created_at, unchanged: true }))
}

/// Refuses a reason that is too long or would break a line.
pub(super) fn check_reason(reason: Option<&str>) -> Result<(), Failure> {
    if reason.is_some_and(|text| text.chars().count() > MAX_REASON || text.chars().any(char::is_control)) {
        return Err(Failure::Invalid(format!("reason: at most {MAX_REASON} characters, and no control characters")));
    }
    Ok(())
}
