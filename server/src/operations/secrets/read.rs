//! Reading a value.

use super::{checked, checked_version, granted, leave_event, resource, unsigned};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::{authorization::rules, change::audited},
};
use strongroom_core::{Action, FieldName, Payload, SecretPath, VersionSelector};
use strongroom_crypto::{OpenError, ProjectKey, SealedVersion, VersionNames};
use strongroom_policy::Grant;
use strongroom_store::{Selector, VersionRow, VersionState, read_secret};
use time::OffsetDateTime;

/// What a read releases.
#[derive(Debug)]
pub struct ReadSecret {
    /// Which version it is.
    pub version: u64,
    /// When that was made.
    pub created_at: OffsetDateTime,
    /// The value, or the one field asked for.
    pub payload: Payload,
}

/// Reads a version of a secret, whole or one field.
pub async fn read(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    selector: &VersionSelector,
    field: Option<&FieldName>,
) -> Result<ReadSecret, Failure> {
    let outcome = try_read(app, caller, path, selector, field).await;
    audited(app, caller, Action::Read, path.to_string(), outcome).await
}

async fn try_read(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    selector: &VersionSelector,
    field: Option<&FieldName>,
) -> Result<ReadSecret, Failure> {
    let mut connection = app.store.reader().await?;
    let mut rules_now = rules(app, &mut connection, caller, Some(&path.project())).await?;
    let found = read_secret(&mut connection, path, &stored_selector(selector)).await?;
    // A rotation may have made a key and moved the version to it between the two queries.
    let generation = found.as_ref().and_then(|found| found.version.as_ref()).map(|version| {
        // It decides which rows are looked at again, no more.
        version.claimed(|version| version.project_key_generation)
    });
    if let (Some(generation), Some(project)) = (generation, rules_now.project())
        && !project.has_key(generation)
    {
        rules_now = rules(app, &mut connection, caller, Some(&path.project())).await?;
    }
    let rules = rules_now;
    drop(connection);
    let (secret, version) = found.map_or((None, None), |found| (Some(found.secret), found.version));
    let secret = checked(app, &rules, secret)?;
    let version = match (&secret, version) {
        (Some(secret), Some(version)) => Some(checked_version(app, &rules, secret, version)?),
        _ => None,
    };
    let number = version.as_ref().map(|version| unsigned(version.version));
    let grant = granted(app, caller, &rules, Action::Read, resource(path, secret.as_deref(), number)).await?;
    let secret = secret.ok_or(Failure::NotFound)?;
    if secret.deleted {
        return Err(Failure::Deleted);
    }
    let version = version.ok_or(Failure::NotFound)?;
    if version.state != VersionState::Live {
        return Err(Failure::Deleted);
    }
    let policies = grant.policies().to_vec();
    let key = rules.existing_project()?.key(version.project_key_generation)?;
    let payload = open(app, &version, key, grant)?;
    let payload = match field {
        Some(name) => one_field(payload, name)?,
        None => payload,
    };
    leave_event(app, caller, Action::Read, path.to_string(), number, policies).await?;
    Ok(ReadSecret { version: unsigned(version.version), created_at: version.created_at, payload })
}

/// Opens a version's value for a grant to read it.
pub(super) fn open(app: &App, version: &VersionRow, key: &ProjectKey, grant: Grant) -> Result<Payload, Failure> {
    let names =
        VersionNames { secret: version.secret, version: unsigned(version.version), media_type: &version.media_type };
    let sealed = SealedVersion {
        project_key_generation: version.project_key_generation,
        wrapped_key: version.wrapped_key.clone(),
        sealed_value: version.sealed_value.clone(),
    };
    let bytes = app.keyring().open_value(key, &names, &sealed, grant).map_err(|error| match error {
        OpenError::OtherGrant | OpenError::OtherProjectKey => Failure::Internal(error.into()),
        damaged => Failure::Integrity(damaged.to_string()),
    })?;
    Payload::decode(&version.media_type, bytes).map_err(|error| Failure::Integrity(error.to_string()))
}

fn one_field(payload: Payload, name: &FieldName) -> Result<Payload, Failure> {
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
