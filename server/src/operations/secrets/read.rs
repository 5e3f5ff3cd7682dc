//! Reading a value.

use super::{
    checked, checked_version, event, granted, leave_event, may_reach, opened,
    pointers::{is_expired, is_kept, pointed},
    resource, unsigned, with_key,
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::{authorization::rules, change::audited},
};
use strongroom_core::{Action, FieldName, Payload, SecretPath, Unverified, VersionSelector};
use strongroom_store::{SecretRow, Selector, VersionRow, VersionState, read_secret};
use time::OffsetDateTime;

/// What a read releases.
#[derive(Debug)]
pub struct ReadSecret {
    /// Which version it is.
    pub version: u64,
    /// The secret's revision.
    pub revision: u64,
    /// When that was made.
    pub created_at: OffsetDateTime,
    /// The value, or the one field asked for.
    pub payload: Payload,
}

/// What a read comes to.
#[derive(Debug)]
pub enum ReadOutcome {
    /// The value.
    Released(ReadSecret),
    /// The caller has this version. The value was not fetched.
    Unchanged(u64),
}

/// Reads a version of a secret, whole or one field.
///
/// Where the version selected is `known` to the caller, nothing is released and only that is said: it takes the right to read all the same, and leaves the event
/// of a read with the outcome `unchanged`.
pub async fn read(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    selector: &VersionSelector,
    field: Option<&FieldName>,
    known: Option<u64>,
) -> Result<ReadOutcome, Failure> {
    let outcome = try_read(app, caller, path, selector, field, known).await;
    audited(app, caller, Action::Read, path.to_string(), outcome).await
}

async fn try_read(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    selector: &VersionSelector,
    field: Option<&FieldName>,
    known: Option<u64>,
) -> Result<ReadOutcome, Failure> {
    let mut connection = app.store.reader().await?;
    let rules = rules(app, &mut connection, caller, Some(&path.project())).await?;
    let found = if may_reach(app, caller, &rules, Action::Read, path) {
        let known = known.and_then(|known| i64::try_from(known).ok());
        read_secret(&mut connection, path, &stored_selector(selector), known).await?
    } else {
        None
    };
    // It decides which rows are looked at again, no more.
    let generation = |version: &Unverified<VersionRow>| version.claimed(|version| version.project_key_generation);
    let project = match found.as_ref().and_then(|found| found.version.as_ref()).map(generation) {
        Some(generation) if rules.project().is_some() => {
            Some(with_key(app, &mut connection, &rules, generation).await?)
        }
        _ => None,
    };
    drop(connection);
    let (secret, version) = found.map_or((None, None), |found| (Some(found.secret), found.version));
    let secret = checked(app, &rules, secret)?;
    // A number below 1 was never given out.
    let number =
        secret.as_ref().and_then(|secret| pointed(secret, selector)).filter(|version| *version > 0).map(unsigned);
    let grant = granted(app, caller, &rules, Action::Read, resource(path, secret.as_deref(), number)).await?;
    let secret = secret.ok_or(Failure::NotFound)?;
    let version = version.map(|version| checked_version(app, &rules, &secret, version)).transpose()?;
    if secret.deleted {
        return Err(Failure::Deleted);
    }
    if is_expired(&secret, app.clock.now()) {
        return Err(Failure::Expired);
    }
    if version.is_none() && points_somewhere(&secret, selector) {
        return Err(Failure::Integrity(format!("the version that {selector} of {} points at is missing", secret.id)));
    }
    let is_meant = |version: i64| number == Some(unsigned(version)) && is_kept(&secret, version);
    let version = version.filter(|version| is_meant(version.version)).ok_or(Failure::NotFound)?;
    match version.state {
        VersionState::Live => {}
        VersionState::Deleted => return Err(Failure::VersionDeleted),
        VersionState::Destroyed => return Err(Failure::VersionDestroyed),
    }
    let policies = grant.policies().to_vec();
    let version_number = unsigned(version.version);
    if known == Some(version_number) {
        app.audit.commit(event(app, caller, (Action::Read, "unchanged"), path.to_string(), number, policies)).await?;
        return Ok(ReadOutcome::Unchanged(version_number));
    }
    let project = project.ok_or(Failure::NotFound)?;
    let bytes = opened(app, &project, &version, grant)?;
    let payload = Payload::decode(&version.media_type, bytes).map_err(|error| Failure::Integrity(error.to_string()))?;
    let payload = match field {
        Some(name) => one_field(payload, name)?,
        None => payload,
    };
    leave_event(app, caller, Action::Read, path.to_string(), number, policies).await?;
    app.activity.note_read(secret.id, app.clock.now());
    Ok(ReadOutcome::Released(ReadSecret {
        version: version_number,
        revision: unsigned(secret.revision),
        created_at: version.created_at,
        payload,
    }))
}

/// Whether the selector is a pointer that is set: then there is a version, or somebody removed it.
fn points_somewhere(secret: &SecretRow, selector: &VersionSelector) -> bool {
    match selector {
        VersionSelector::Current => true,
        VersionSelector::Previous => secret.previous_version.is_some(),
        VersionSelector::Pending => secret.pending_version.is_some(),
        VersionSelector::Alias(alias) => secret.aliases.version(alias).is_some(),
        VersionSelector::Number(_) => false,
    }
}

/// One field of a payload, alone.
pub(super) fn one_field(payload: Payload, name: &FieldName) -> Result<Payload, Failure> {
    match payload {
        Payload::Fields(mut fields) => match fields.remove(name) {
            Some(value) => Ok(Payload::Fields([(name.clone(), value)].into())),
            None => Err(Failure::FieldNotFound),
        },
        Payload::Raw { .. } => Err(Failure::FieldNotFound),
    }
}

fn stored_selector(selector: &VersionSelector) -> Selector {
    match selector {
        VersionSelector::Current => Selector::Current,
        VersionSelector::Previous => Selector::Previous,
        VersionSelector::Pending => Selector::Pending,
        VersionSelector::Alias(alias) => Selector::Alias(alias.clone()),
        // A number that the database cannot hold was never given out, and neither was 0.
        VersionSelector::Number(number) => Selector::Number(i64::try_from(*number).unwrap_or(0)),
    }
}
