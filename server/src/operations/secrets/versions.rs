//! A secret's versions, without their values.

use super::{checked, granted, leave_event, resource, unsigned};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::{authorization::rules, change::audited},
};
use strongroom_api::secrets::{SecretVersions, VersionInfo};
use strongroom_core::{Action, SecretPath, Verified};
use strongroom_store::{VersionRow, find_secret, versions_of};

/// A secret's newest versions, without values.
pub async fn versions(app: &App, caller: &Caller, path: &SecretPath) -> Result<SecretVersions, Failure> {
    let outcome = try_versions(app, caller, path).await;
    audited(app, caller, Action::Describe, path.to_string(), outcome).await
}

async fn try_versions(app: &App, caller: &Caller, path: &SecretPath) -> Result<SecretVersions, Failure> {
    let mut connection = app.store.reader().await?;
    let rules = rules(app, &mut connection, caller, Some(&path.project())).await?;
    let secret = checked(app, &rules, find_secret(&mut connection, path).await?)?;
    let rows = match &secret {
        Some(secret) => app.verify_all(versions_of(&mut connection, secret.id, None, 100).await?)?,
        None => Vec::new(),
    };
    drop(connection);
    let grant = granted(app, caller, &rules, Action::Describe, resource(path, secret.as_deref(), None)).await?;
    let secret = secret.ok_or(Failure::NotFound)?;
    leave_event(app, caller, Action::Describe, path.to_string(), None, grant.policies().to_vec(), "ok").await?;
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
