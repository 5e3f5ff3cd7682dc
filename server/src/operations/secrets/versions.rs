//! A secret's versions, without their values.

use super::{
    checked_version, found, leave_event,
    pointers::{is_kept, names_of},
    resource, unsigned,
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::{
        authorization::{Rules, decide, refused, rules},
        change::audited,
    },
};
use strongroom_api::secrets::{SecretVersions, VersionInfo, VersionState as ShownState};
use strongroom_core::{Action, SecretPath, Verified};
use strongroom_store::{Connection, SecretRow, VersionRow, VersionState, find_version, versions_of};

/// Most versions of a page.
pub const MAX_VERSIONS: u32 = 1_000;

/// A secret's versions below `before`, the newest first, without values.
pub async fn versions(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    before: Option<u64>,
    limit: u32,
) -> Result<SecretVersions, Failure> {
    let outcome = try_versions(app, caller, path, before, limit).await;
    audited(app, caller, Action::Describe, path.to_string(), outcome).await
}

async fn try_versions(
    app: &App,
    caller: &Caller,
    path: &SecretPath,
    before: Option<u64>,
    limit: u32,
) -> Result<SecretVersions, Failure> {
    let limit = limit.clamp(1, MAX_VERSIONS);
    let before = before.map(|before| i64::try_from(before).unwrap_or(i64::MAX));
    let mut connection = app.store.reader().await?;
    let rules = rules(app, &mut connection, caller, Some(&path.project())).await?;
    let secret = found(app, &mut connection, caller, &rules, Action::Describe, path).await?;
    let about = resource(path, secret.as_deref(), None);
    let grant = match decide(app, caller, &rules, Action::Describe, about) {
        Ok(grant) => grant,
        Err(denied) => {
            // Nobody holds a connection while he waits for an event.
            drop(connection);
            return Err(refused(app, caller, Action::Describe, about.name(), denied).await);
        }
    };
    let secret = secret.ok_or(Failure::NotFound)?;
    let page = versions_of(&mut connection, secret.id, before, i64::from(limit) + 1).await?;
    drop(connection);
    let mut rows = Vec::with_capacity(page.len());
    for row in page {
        rows.push(checked_version(app, &rules, &secret, row)?);
    }
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_before = rows.last().filter(|_| more).map(|row| unsigned(row.version));
    rows.retain(|row| is_kept(&secret, row.version));
    leave_event(app, caller, Action::Describe, path.to_string(), None, grant.policies().to_vec()).await?;
    Ok(SecretVersions {
        path: path.clone(),
        current: unsigned(secret.current_version),
        previous: secret.previous_version.map(unsigned),
        pending: secret.pending_version.map(unsigned),
        deleted: secret.deleted,
        oldest: unsigned(secret.oldest_version),
        versions: rows.into_iter().map(|row| shown(&secret, row)).collect(),
        next_before,
    })
}

fn shown(secret: &SecretRow, row: Verified<VersionRow>) -> VersionInfo {
    let row = row.into_inner();
    VersionInfo {
        aliases: names_of(secret, row.version),
        version: unsigned(row.version),
        author: row.author,
        reason: row.reason,
        created_at: row.created_at,
        media_type: row.media_type,
        state: match row.state {
            VersionState::Live => ShownState::Live,
            VersionState::Deleted => ShownState::Deleted,
            VersionState::Destroyed => ShownState::Destroyed,
        },
    }
}

/// Whether a version of a secret can be read now.
pub(in crate::operations) async fn is_live(
    app: &App,
    connection: &mut Connection,
    rules: &Rules,
    secret: &SecretRow,
    number: i64,
) -> Result<bool, Failure> {
    let Some(row) = find_version(connection, secret.id, number).await? else { return Ok(false) };
    let row = checked_version(app, rules, secret, row)?;
    Ok(row.state == VersionState::Live && is_kept(secret, number))
}
