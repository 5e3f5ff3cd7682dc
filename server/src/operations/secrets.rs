//! Secrets: put, read, list, delete.

use super::{
    authorization::{authorize, may, rules},
    change::audited,
    projects::with_rules,
};
use crate::{
    app::{App, Caller},
    failure::Failure,
};
use strongroom_api::secrets::{PutResult, SecretEntry, SecretList, SecretVersions, VersionInfo};
use strongroom_core::{
    Action, Decision, FieldName, FolderPath, Payload, ProjectId, SecretId, SecretPath, Verified, VersionSelector,
};
use strongroom_crypto::{OpenError, ProjectKey, SealedVersion, VersionNames, WrappedProjectKey};
use strongroom_policy::{Grant, Resource};
use strongroom_store::{
    Found, FoundVersion, ProjectKeyRow, SecretRow, Selector, Transaction, VersionRow, active_project_key, find_secret,
    insert_secret, insert_version, list_secrets, lock_secret, notify_change, read_secret, update_secret, versions_of,
};
use time::OffsetDateTime;
use uuid::Uuid;

/// Most characters of a reason.
pub const MAX_REASON: usize = 256;
/// Most entries of a page.
pub const MAX_PAGE: u32 = 1000;

/// Rows of one query of a list.
const SCAN_BATCH: i64 = 500;
/// Most rows that one page looks at.
const MAX_SCAN: usize = 10_000;

/// When a put is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Always.
    None,
    /// Only where nothing live is there.
    Absent,
    /// Only where this version is current.
    Current(u64),
}

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
    let mut connection = app.store.reader().await?;
    let stored = stored_selector(selector)?;
    let Some(Found { secret, version }) = read_secret(&mut connection, path, stored).await? else {
        let (_, rules) = with_rules(app, &mut connection, caller, &path.project()).await?;
        let grant =
            authorize(app, caller, &rules, Action::Read, Resource::Secret { path, id: None, version: None }).await?;
        drop(connection);
        return released(app, caller, path, None, grant.policies(), Err(Failure::NotFound)).await;
    };
    let secret = app.verify(secret)?;
    let found = version
        .map(|FoundVersion { version, key }| Ok::<_, Failure>((app.verify(version)?, app.verify(key)?)))
        .transpose()?;
    let number = found.as_ref().map(|(version, _)| unsigned(version.version));
    let project = path.project();
    let rules = rules(app, &mut connection, caller, Some((secret.project, &project))).await?;
    // Nothing below needs the database: the connection goes to someone else while the audit event commits.
    drop(connection);
    let resource = Resource::Secret { path, id: Some(secret.id), version: number };
    let grant = authorize(app, caller, &rules, Action::Read, resource).await?;
    let policies = grant.policies().to_vec();
    let outcome = match found {
        _ if secret.deleted => Err(Failure::Deleted),
        None => Err(Failure::NotFound),
        Some((version, key)) => open(app, &version, &key, grant).and_then(|payload| {
            let payload = match field {
                Some(name) => one_field(payload, name)?,
                None => payload,
            };
            Ok(ReadSecret { version: unsigned(version.version), created_at: version.created_at, payload })
        }),
    };
    released(app, caller, path, number, &policies, outcome).await
}

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
    if reason
        .as_deref()
        .is_some_and(|reason| reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control))
    {
        return Err(Failure::Invalid(format!("reason: at most {MAX_REASON} characters, and no control characters")));
    }
    let mut transaction = app.store.begin().await?;
    let (project, rules) = with_rules(app, transaction.connection(), caller, &path.project()).await?;
    let secret = lock_secret(transaction.connection(), path).await?.map(|row| app.verify(row)).transpose()?;
    let resource = Resource::Secret { path, id: secret.as_ref().map(|secret| secret.id), version: None };
    let grant = authorize(app, caller, &rules, Action::Write, resource).await?;
    let project = project.ok_or(Failure::NotFound)?;
    let now = app.clock.now();
    let (secret, version) = next_version(app, &mut transaction, project.id, path, secret, precondition, now).await?;
    let key = active_project_key(transaction.connection(), project.id)
        .await?
        .ok_or_else(|| Failure::Integrity("the project has no active key".to_owned()))?;
    let key = app.verify(key)?;
    let key = project_key(app, &key)?;
    let names = VersionNames { secret, version: unsigned(version), media_type: payload.media_type() };
    let sealed = app.keyring().seal_value(&key, &names, &payload.encode());
    let row = VersionRow {
        secret,
        version,
        author: caller.identity.principal(),
        reason,
        media_type: payload.media_type().to_owned(),
        created_at: now,
        project_key_generation: sealed.project_key_generation,
        wrapped_key: sealed.wrapped_key,
        sealed_value: sealed.sealed_value,
    };
    insert_version(transaction.connection(), &app.keyring().mac_row(row)).await?;
    notify_change(transaction.connection(), path).await?;
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), Action::Write, Decision::Allowed, "ok");
    event.resource = Some(path.to_string());
    event.version = Some(unsigned(version));
    event.policies = grant.policies().to_vec();
    app.record(&mut transaction, event).await?;
    transaction.commit().await?;
    Ok(PutResult { path: path.clone(), version: unsigned(version), created_at: now })
}

/// Deletes a secret; its versions stay, and a put revives it with the next number.
pub async fn delete(app: &App, caller: &Caller, path: &SecretPath, precondition: Precondition) -> Result<(), Failure> {
    let outcome = try_delete(app, caller, path, precondition).await;
    audited(app, caller, Action::Delete, path.to_string(), outcome).await
}

async fn try_delete(app: &App, caller: &Caller, path: &SecretPath, precondition: Precondition) -> Result<(), Failure> {
    let mut transaction = app.store.begin().await?;
    let (_, rules) = with_rules(app, transaction.connection(), caller, &path.project()).await?;
    let secret = lock_secret(transaction.connection(), path).await?.map(|row| app.verify(row)).transpose()?;
    let resource = Resource::Secret { path, id: secret.as_ref().map(|secret| secret.id), version: None };
    let grant = authorize(app, caller, &rules, Action::Delete, resource).await?;
    let secret = secret.ok_or(Failure::NotFound)?;
    if secret.deleted {
        return Err(Failure::Deleted);
    }
    if !precondition_holds(precondition, Some(&secret)) {
        return Err(Failure::VersionConflict);
    }
    let version = unsigned(secret.current_version);
    let row = SecretRow { deleted: true, updated_at: app.clock.now(), ..secret.into_inner() };
    update_secret(transaction.connection(), &app.keyring().mac_row(row)).await?;
    notify_change(transaction.connection(), path).await?;
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), Action::Delete, Decision::Allowed, "ok");
    event.resource = Some(path.to_string());
    event.version = Some(version);
    event.policies = grant.policies().to_vec();
    app.record(&mut transaction, event).await?;
    transaction.commit().await?;
    Ok(())
}

/// A secret's newest versions, without values.
pub async fn versions(app: &App, caller: &Caller, path: &SecretPath) -> Result<SecretVersions, Failure> {
    let mut connection = app.store.reader().await?;
    let (_, rules) = with_rules(app, &mut connection, caller, &path.project()).await?;
    let secret = find_secret(&mut connection, path).await?.map(|row| app.verify(row)).transpose()?;
    let resource = Resource::Secret { path, id: secret.as_ref().map(|secret| secret.id), version: None };
    let grant = authorize(app, caller, &rules, Action::Describe, resource).await?;
    let outcome = match secret {
        None => Err(Failure::NotFound),
        Some(secret) => {
            let rows = app.verify_all(versions_of(&mut connection, secret.id, 100).await?)?;
            Ok(SecretVersions {
                path: path.clone(),
                current: unsigned(secret.current_version),
                previous: secret.previous_version.map(unsigned),
                deleted: secret.deleted,
                versions: rows
                    .into_iter()
                    .map(Verified::into_inner)
                    .map(|row| VersionInfo {
                        version: unsigned(row.version),
                        author: row.author,
                        reason: row.reason,
                        created_at: row.created_at,
                        media_type: row.media_type,
                    })
                    .collect(),
            })
        }
    };
    drop(connection);
    audit_read(app, caller, Action::Describe, path.to_string(), None, grant.policies(), &outcome).await?;
    outcome
}

/// The secrets of a folder and below that the caller may list, a page at a time.
///
/// Rows are read in batches and filtered until the page is full; a page that looked at [`MAX_SCAN`] rows ends early and says where to go on.
pub async fn list(
    app: &App,
    caller: &Caller,
    folder: &FolderPath,
    after: Option<&SecretPath>,
    limit: u32,
) -> Result<SecretList, Failure> {
    let limit = limit.clamp(1, MAX_PAGE) as usize;
    let mut connection = app.store.reader().await?;
    let (project, rules) = with_rules(app, &mut connection, caller, &folder.project()).await?;
    let mut policies = Vec::new();
    // Whoever no rule lets list anything here is refused before anything is looked at, whether or not there is something.
    if project.is_none() || !rules.may_list_somewhere() {
        policies = authorize(app, caller, &rules, Action::List, Resource::Folder(folder)).await?.policies().to_vec();
    }
    let mut secrets = Vec::new();
    let (mut cursor, mut scanned, mut more) = (after.cloned(), 0, project.is_some());
    while more && secrets.len() < limit && scanned < MAX_SCAN {
        let rows = app.verify_all(list_secrets(&mut connection, folder, cursor.as_ref(), SCAN_BATCH).await?)?;
        more = rows.len() == usize::try_from(SCAN_BATCH).expect("a small number");
        for row in &rows {
            if secrets.len() == limit {
                more = true;
                break;
            }
            scanned += 1;
            cursor = Some(row.path.clone());
            if may(
                app,
                caller,
                &rules,
                Action::List,
                Resource::Secret { path: &row.path, id: Some(row.id), version: None },
            ) {
                secrets.push(SecretEntry {
                    path: row.path.clone(),
                    version: unsigned(row.current_version),
                    updated_at: row.updated_at,
                });
            }
        }
    }
    drop(connection);
    // Nothing from the start to the end: an empty folder is for those who may list the folder.
    if secrets.is_empty() && after.is_none() && !more && policies.is_empty() {
        policies = authorize(app, caller, &rules, Action::List, Resource::Folder(folder)).await?.policies().to_vec();
    }
    let next_cursor = cursor.filter(|_| more).map(|path| path.to_string());
    audit_read(app, caller, Action::List, folder.to_string(), None, &policies, &Ok(())).await?;
    Ok(SecretList { folder: folder.clone(), secrets, next_cursor })
}

/// Makes the secret, or moves its aliases on, and says which version is to be inserted. `secret` is the locked row, where there is one.
async fn next_version(
    app: &App,
    transaction: &mut Transaction,
    project: ProjectId,
    path: &SecretPath,
    mut secret: Option<Verified<SecretRow>>,
    precondition: Precondition,
    now: OffsetDateTime,
) -> Result<(SecretId, i64), Failure> {
    if secret.is_none() && precondition_holds(precondition, None) {
        let row = app.keyring().mac_row(SecretRow {
            id: SecretId(Uuid::now_v7()),
            project,
            path: path.clone(),
            deleted: false,
            latest_version: 1,
            current_version: 1,
            previous_version: None,
            created_at: now,
            updated_at: now,
        });
        if insert_secret(transaction.connection(), &row).await? {
            return Ok((row.row().id, 1));
        }
        // Another put came first: it is there now.
        secret = lock_secret(transaction.connection(), path).await?.map(|row| app.verify(row)).transpose()?;
    }
    let secret = secret.ok_or(Failure::VersionConflict)?;
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
        ..secret.into_inner()
    };
    let id = row.id;
    update_secret(transaction.connection(), &app.keyring().mac_row(row)).await?;
    Ok((id, version))
}

fn precondition_holds(precondition: Precondition, secret: Option<&SecretRow>) -> bool {
    let live = secret.filter(|secret| !secret.deleted);
    match precondition {
        Precondition::None => true,
        Precondition::Absent => live.is_none(),
        Precondition::Current(version) => live.is_some_and(|secret| unsigned(secret.current_version) == version),
    }
}

fn open(app: &App, version: &VersionRow, key: &ProjectKeyRow, grant: Grant) -> Result<Payload, Failure> {
    let key = project_key(app, key)?;
    let names =
        VersionNames { secret: version.secret, version: unsigned(version.version), media_type: &version.media_type };
    let sealed = SealedVersion {
        project_key_generation: version.project_key_generation,
        wrapped_key: version.wrapped_key.clone(),
        sealed_value: version.sealed_value.clone(),
    };
    let bytes = app.keyring().open_value(&key, &names, &sealed, grant).map_err(|error| match error {
        OpenError::OtherGrant | OpenError::OtherProjectKey => Failure::Internal(error.into()),
        damaged => Failure::Integrity(damaged.to_string()),
    })?;
    Payload::decode(&version.media_type, bytes).map_err(|error| Failure::Integrity(error.to_string()))
}

fn project_key(app: &App, row: &ProjectKeyRow) -> Result<ProjectKey, Failure> {
    let wrapped = WrappedProjectKey {
        project: row.project,
        generation: row.generation,
        term: row.term,
        wrapped: row.wrapped.clone(),
    };
    app.keyring().open_project_key(&wrapped).map_err(|error| Failure::Integrity(error.to_string()))
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

fn stored_selector(selector: &VersionSelector) -> Result<Selector, Failure> {
    match selector {
        VersionSelector::Current => Ok(Selector::Current),
        VersionSelector::Previous => Ok(Selector::Previous),
        VersionSelector::Number(number) => i64::try_from(*number).map(Selector::Number).map_err(|_| Failure::NotFound),
        // This version keeps no free aliases, so none exists: asked for, it points nowhere. Version 0 is never given out.
        VersionSelector::Alias(_) => Ok(Selector::Number(0)),
    }
}

/// Commits the event of a read, and only then lets its outcome out.
async fn released<T>(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    version: Option<u64>,
    policies: &[String],
    outcome: Result<T, Failure>,
) -> Result<T, Failure> {
    audit_read(app, caller, Action::Read, path.to_string(), version, policies, &outcome).await?;
    outcome
}

async fn audit_read<T>(
    app: &App,
    caller: &Caller,
    action: Action,
    resource: String,
    version: Option<u64>,
    policies: &[String],
    outcome: &Result<T, Failure>,
) -> Result<(), Failure> {
    let word = match outcome {
        Ok(_) => "ok",
        Err(failure) => failure.code().as_str(),
    };
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), action, Decision::Allowed, word);
    event.resource = Some(resource);
    event.version = version;
    event.policies = policies.to_vec();
    app.audit.commit(event).await
}

fn unsigned(version: i64) -> u64 {
    u64::try_from(version).expect("the database checks that versions are above 0")
}
