//! Secrets: put, read, list, delete.

use super::{
    authorization::{Rules, decide, may, refused, rules},
    change::audited,
    projects::with_rules,
};
use crate::{
    app::{App, Caller},
    failure::Failure,
};
use std::time::{Duration, Instant};
use strongroom_api::secrets::{PutResult, SecretEntry, SecretList, SecretVersions, VersionInfo};
use strongroom_core::{
    Action, Decision, FieldName, FolderPath, Payload, SecretId, SecretPath, Verified, VersionSelector,
};
use strongroom_crypto::{OpenError, ProjectKey, SealedVersion, VersionNames, WrappedProjectKey};
use strongroom_policy::{Grant, Resource};
use strongroom_store::{
    Found, FoundVersion, ProjectKeyRow, ProjectRow, SecretRow, Selector, Transaction, VersionRow, active_project_key,
    find_secret, insert_secret, insert_version, list_secrets, lock_secret, notify_change, read_secret, update_secret,
    versions_of,
};
use time::OffsetDateTime;
use uuid::Uuid;

/// Most characters of a reason.
pub const MAX_REASON: usize = 256;
/// Most entries of a page.
pub const MAX_PAGE: u32 = 1000;

/// Rows of one query of a list.
const SCAN_BATCH: i64 = 500;
/// Rows after which a page with entries ends.
const MAX_SCAN: usize = 10_000;
/// Rows after which a page without any is an error.
const MAX_EMPTY_SCAN: usize = 100_000;
/// Rules older than this are read again before a write is done by them.
const STALE: Duration = Duration::from_millis(100);

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
    let stored = stored_selector(selector);
    let Some(Found { secret, version }) = read_secret(&mut connection, path, stored).await? else {
        let (_, rules) = with_rules(app, &mut connection, caller, &path.project()).await?;
        drop(connection);
        let _allowed =
            granted(app, caller, &rules, Action::Read, Resource::Secret { path, id: None, version: None }).await?;
        return Err(Failure::NotFound);
    };
    let secret = app.verify(secret)?;
    let found = match version {
        Some(FoundVersion { version, key }) => Some((app.verify(version)?, app.verify(key)?)),
        None => None,
    };
    let number = found.as_ref().map(|(version, _)| unsigned(version.version));
    let rules = rules(app, &mut connection, caller, Some((secret.project, &path.project()))).await?;
    drop(connection);
    let grant =
        granted(app, caller, &rules, Action::Read, Resource::Secret { path, id: Some(secret.id), version: number })
            .await?;
    let policies = grant.policies().to_vec();
    let (version, key) = match found {
        _ if secret.deleted => return Err(Failure::Deleted),
        None => return Err(Failure::NotFound),
        Some(found) => found,
    };
    let payload = open(app, &version, &key, grant)?;
    let payload = match field {
        Some(name) => one_field(payload, name)?,
        None => payload,
    };
    leave_event(app, caller, Action::Read, path.to_string(), number, policies).await?;
    Ok(ReadSecret { version: unsigned(version.version), created_at: version.created_at, payload })
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
    if reason.as_deref().is_some_and(|text| text.chars().count() > MAX_REASON || text.chars().any(char::is_control)) {
        return Err(Failure::Invalid(format!("reason: at most {MAX_REASON} characters, and no control characters")));
    }
    let mut write = Write::begin(app, caller, path, Action::Write).await?;
    let project = write.project.as_ref().ok_or(Failure::NotFound)?.id;
    let mut now = app.clock.now();
    if write.secret.is_none() && precondition_holds(precondition, None) {
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
        if insert_secret(write.transaction.connection(), &row).await? {
            return add_version(app, caller, write, (row.row().id, 1), path, payload, reason, now).await;
        }
        // Another put came first: it is there now, and whether it may be written is decided anew. The connection goes back before another is asked for.
        drop(write);
        write = Write::begin(app, caller, path, Action::Write).await?;
        now = app.clock.now();
    }
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
        ..secret.into_inner()
    };
    let id = row.id;
    update_secret(write.transaction.connection(), &app.keyring().mac_row(row)).await?;
    add_version(app, caller, write, (id, version), path, payload, reason, now).await
}

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
    let row = SecretRow { deleted: true, updated_at: app.clock.now(), ..secret.into_inner() };
    update_secret(write.transaction.connection(), &app.keyring().mac_row(row)).await?;
    write.commit(app, caller, path, version).await
}

/// A secret's newest versions, without values.
pub async fn versions(app: &App, caller: &Caller, path: &SecretPath) -> Result<SecretVersions, Failure> {
    let outcome = try_versions(app, caller, path).await;
    audited(app, caller, Action::Describe, path.to_string(), outcome).await
}

async fn try_versions(app: &App, caller: &Caller, path: &SecretPath) -> Result<SecretVersions, Failure> {
    let mut connection = app.store.reader().await?;
    let (_, rules) = with_rules(app, &mut connection, caller, &path.project()).await?;
    let secret = find_secret(&mut connection, path).await?.map(|row| app.verify(row)).transpose()?;
    let id = secret.as_ref().map(|secret| secret.id);
    let rows = match id {
        Some(id) => app.verify_all(versions_of(&mut connection, id, 100).await?)?,
        None => Vec::new(),
    };
    drop(connection);
    let grant = granted(app, caller, &rules, Action::Describe, Resource::Secret { path, id, version: None }).await?;
    let secret = secret.ok_or(Failure::NotFound)?;
    leave_event(app, caller, Action::Describe, path.to_string(), None, grant.policies().to_vec()).await?;
    let shown = |row: Verified<VersionRow>| {
        let row = row.into_inner();
        VersionInfo {
            version: unsigned(row.version),
            author: row.author,
            reason: row.reason,
            created_at: row.created_at,
            media_type: row.media_type,
        }
    };
    Ok(SecretVersions {
        path: path.clone(),
        current: unsigned(secret.current_version),
        previous: secret.previous_version.map(unsigned),
        deleted: secret.deleted,
        versions: rows.into_iter().map(shown).collect(),
    })
}

/// The secrets of a folder and below that the caller may list, a page at a time.
pub async fn list(
    app: &App,
    caller: &Caller,
    folder: &FolderPath,
    after: Option<&SecretPath>,
    limit: u32,
) -> Result<SecretList, Failure> {
    let outcome = try_list(app, caller, folder, after, limit).await;
    audited(app, caller, Action::List, folder.to_string(), outcome).await
}

/// Rows are read in batches and filtered until the page is full. A page that looked at [`MAX_SCAN`] rows ends early, but never before its first entry: a
/// cursor is always the path of an entry, so that it names nothing that the caller may not list.
async fn try_list(
    app: &App,
    caller: &Caller,
    folder: &FolderPath,
    after: Option<&SecretPath>,
    limit: u32,
) -> Result<SecretList, Failure> {
    if after.is_some_and(|after| !folder.contains(after)) {
        return Err(Failure::Invalid("cursor: it is of another folder".to_owned()));
    }
    let limit = limit.clamp(1, MAX_PAGE) as usize;
    let (project, rules) = {
        let mut connection = app.store.reader().await?;
        with_rules(app, &mut connection, caller, &folder.project()).await?
    };
    let mut secrets: Vec<SecretEntry> = Vec::new();
    let (mut position, mut scanned) = (after.cloned(), 0);
    // Whom no rule lets list anything here nothing is looked at for.
    let mut more = project.is_some() && rules.may_list_somewhere();
    while more && secrets.len() < limit && (scanned < MAX_SCAN || secrets.is_empty()) {
        if scanned >= MAX_EMPTY_SCAN {
            return Err(Failure::Invalid(
                "folder: too many secrets that you may not list come first; name a folder within".to_owned(),
            ));
        }
        // A connection for each batch: others get their turn while this one is looked through.
        let rows = {
            let mut connection = app.store.reader().await?;
            list_secrets(&mut connection, folder, position.as_ref(), SCAN_BATCH).await?
        };
        let rows = app.verify_all(rows)?;
        more = rows.len() == usize::try_from(SCAN_BATCH).expect("a small number");
        scanned += rows.len();
        for row in rows {
            if secrets.len() == limit {
                more = true;
                break;
            }
            let resource = Resource::Secret { path: &row.path, id: Some(row.id), version: None };
            if may(app, caller, &rules, Action::List, resource) {
                let version = unsigned(row.current_version);
                secrets.push(SecretEntry { path: row.path.clone(), version, updated_at: row.updated_at });
            }
            position = Some(row.path.clone());
        }
    }
    let next_cursor = secrets.last().filter(|_| more).map(|entry| entry.path.to_string());
    // Nothing from the start to the end: an empty folder is for those who may list the folder.
    let policies = if secrets.is_empty() && (after.is_none() || !rules.may_list_somewhere()) {
        granted(app, caller, &rules, Action::List, Resource::Folder(folder)).await?.policies().to_vec()
    } else {
        Vec::new()
    };
    leave_event(app, caller, Action::List, folder.to_string(), None, policies).await?;
    Ok(SecretList { folder: folder.clone(), secrets, next_cursor })
}

/// A change of one secret under way; dropped, it never happened.
struct Write {
    transaction: Transaction,
    project: Option<Verified<ProjectRow>>,
    /// The locked row.
    secret: Option<Verified<SecretRow>>,
    grant: Grant,
}

impl Write {
    /// Decides, locks the secret's row, and decides again where the row is not the one that was decided on, or where the wait for it was long enough for a
    /// right to be revoked. Whoever is refused never holds the lock: he could keep others from writing with it.
    async fn begin(app: &App, caller: &Caller, path: &SecretPath, action: Action) -> Result<Self, Failure> {
        let mut transaction = app.store.begin().await?;
        let (project, rules) = with_rules(app, transaction.connection(), caller, &path.project()).await?;
        let found = find_secret(transaction.connection(), path).await?.map(|row| app.verify(row)).transpose()?;
        let seen = found.as_ref().map(|secret| secret.id);
        let mut decision = decide(app, caller, &rules, action, Resource::Secret { path, id: seen, version: None });
        let mut secret = None;
        if decision.is_ok() && seen.is_some() {
            let waiting = Instant::now();
            secret = lock_secret(transaction.connection(), path).await?.map(|row| app.verify(row)).transpose()?;
            let id = secret.as_ref().map(|secret| secret.id);
            if id != seen || waiting.elapsed() > STALE {
                let (_, rules) = with_rules(app, transaction.connection(), caller, &path.project()).await?;
                decision = decide(app, caller, &rules, action, Resource::Secret { path, id, version: None });
            }
        }
        match decision {
            Ok(grant) => Ok(Self { transaction, project, secret, grant }),
            Err(denied) => {
                drop(transaction);
                Err(refused(app, caller, action, path.to_string(), denied).await)
            }
        }
    }

    /// Tells watchers, writes the audit event, and commits.
    async fn commit(mut self, app: &App, caller: &Caller, path: &SecretPath, version: u64) -> Result<(), Failure> {
        notify_change(self.transaction.connection(), path).await?;
        let action = self.grant.action();
        let mut event = app.event(caller.origin, Some(caller.identity.clone()), action, Decision::Allowed, "ok");
        event.resource = Some(path.to_string());
        event.version = Some(version);
        event.policies = self.grant.policies().to_vec();
        app.record(&mut self.transaction, event).await?;
        self.transaction.commit().await?;
        Ok(())
    }
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
    let project = write.project.as_ref().ok_or(Failure::NotFound)?.id;
    let key = active_project_key(write.transaction.connection(), project)
        .await?
        .ok_or_else(|| Failure::Integrity("the project has no active key".to_owned()))?;
    let key = app.verify(key)?;
    let key = project_key(app, &key)?;
    let version = unsigned(number);
    let names = VersionNames { secret, version, media_type: payload.media_type() };
    let sealed = app.keyring().seal_value(&key, &names, &payload.encode());
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
    };
    insert_version(write.transaction.connection(), &app.keyring().mac_row(row)).await?;
    write.commit(app, caller, path, version).await?;
    Ok(PutResult { path: path.clone(), version, created_at: now })
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

fn stored_selector(selector: &VersionSelector) -> Selector {
    match selector {
        VersionSelector::Current => Selector::Current,
        VersionSelector::Previous => Selector::Previous,
        // A number that the database cannot hold was never given out, and neither was 0. This version keeps no free aliases: they point nowhere.
        VersionSelector::Number(number) => Selector::Number(i64::try_from(*number).unwrap_or(0)),
        VersionSelector::Alias(_) => Selector::Number(0),
    }
}

/// Decides on a read, with a refusal's event. No connection is held any more.
async fn granted(
    app: &App,
    caller: &Caller,
    rules: &Rules,
    action: Action,
    resource: Resource<'_>,
) -> Result<Grant, Failure> {
    match decide(app, caller, rules, action, resource) {
        Ok(grant) => Ok(grant),
        Err(denied) => Err(refused(app, caller, action, resource.name(), denied).await),
    }
}

/// Commits the event of a read; only then may its outcome leave.
async fn leave_event(
    app: &App,
    caller: &Caller,
    action: Action,
    resource: String,
    version: Option<u64>,
    policies: Vec<String>,
) -> Result<(), Failure> {
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), action, Decision::Allowed, "ok");
    event.resource = Some(resource);
    event.version = version;
    event.policies = policies;
    app.audit.commit(event).await
}

fn unsigned(version: i64) -> u64 {
    u64::try_from(version).expect("the database checks that versions are above 0")
}
