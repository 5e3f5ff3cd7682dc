//! Secrets: one file an operation. What they share stands here.

mod add;
mod advance;
mod alias;
mod batch_read;
mod batch_write;
mod change;
mod delete;
mod destroy;
mod generate;
mod list;
mod metadata;
mod once;
mod patch;
mod place;
mod pointers;
mod precondition;
mod put;
mod read;
mod versions;
mod work;

pub use advance::advance;
pub use alias::{point_alias, point_alias_in, remove_alias, remove_alias_in};
pub use batch_read::read_batch;
pub use batch_write::write_batch;
pub use delete::{delete, delete_in, undelete, undelete_in};
pub use destroy::{destroy, destroy_in, purge, purge_in};
pub use generate::{generate, generate_in, made};
pub use list::{ListQuery, MAX_PAGE, list};
pub use metadata::{MAX_KEPT, kept_versions, metadata, patch_metadata, patch_metadata_in};
pub use patch::{Changes, Patch, patch, patch_in};
pub use place::{MAX_COPIED, copy, copy_in, move_in, move_to, rename, rename_in};
pub(super) use pointers::{is_expired, pointed};
pub use precondition::Precondition;
pub use put::{MAX_REASON, Put, put, put_in};
pub use read::{ReadOutcome, ReadSecret, read};
pub(super) use versions::is_live;
pub use versions::{MAX_VERSIONS, versions};
pub use work::{Halt, Work};

use super::authorization::{Outlook, Rules, decide, refused};
use crate::{
    access::{Access, ProjectAccess},
    app::{App, Caller},
    failure::Failure,
};
use std::sync::Arc;
use strongroom_core::{Action, AuditEvent, Decision, SecretBytes, SecretPath, Unverified, Verified};
use strongroom_crypto::{OpenError, SealedVersion, VersionNames};
use strongroom_policy::{About, Grant, Resource};
use strongroom_store::{Connection, SecretRow, VersionRow, VersionState, find_secret};

/// A secret's row, checked: its MAC, that it lies in the project its path names, and that it was not removed for good before.
pub(super) fn checked(
    app: &App,
    rules: &Rules,
    row: Option<Unverified<SecretRow>>,
) -> Result<Option<Verified<SecretRow>>, Failure> {
    match (row, rules.project()) {
        (Some(row), Some(project)) => checked_in(app, project, row).map(Some),
        _ => Ok(None),
    }
}

/// The same for a project.
pub(super) fn checked_in(
    app: &App,
    project: &ProjectAccess,
    row: Unverified<SecretRow>,
) -> Result<Verified<SecretRow>, Failure> {
    let row = app.verify(row)?;
    if row.project != project.id() {
        return Err(Failure::Integrity(format!("the secret {} lies in another project than its path says", row.id)));
    }
    if project.is_buried(row.id, None) {
        return Err(Failure::Integrity(format!("the secret {} was removed for good, and its row is back", row.id)));
    }
    Ok(row)
}

/// A version's row, checked: its MAC, that it is of this secret, and that it was not destroyed before.
fn checked_version(
    app: &App,
    rules: &Rules,
    secret: &SecretRow,
    row: Unverified<VersionRow>,
) -> Result<Verified<VersionRow>, Failure> {
    let row = app.verify(row)?;
    let back = || {
        Failure::Integrity(format!("version {} of {} was destroyed, and its value is back", row.version, row.secret))
    };
    let project = rules.project().ok_or_else(back)?;
    let destroyed = row.state == VersionState::Destroyed;
    if row.secret != secret.id || (!destroyed && project.is_buried(secret.id, Some(row.version))) {
        return Err(back());
    }
    Ok(row)
}

/// The project with the key of a generation. A rotation may have made that key, and wrapped the version by it, after the rules were read: then the project is
/// looked at again.
async fn with_key(
    app: &App,
    connection: &mut Connection,
    rules: &Rules,
    generation: i32,
) -> Result<Arc<ProjectAccess>, Failure> {
    let project = rules.existing_project()?;
    if project.has_key(generation) {
        return Ok(project.clone());
    }
    Access::now(app, connection, Some(project.name())).await?.project.ok_or(Failure::NotFound)
}

/// Opens a version's value for a grant to read it.
fn opened(app: &App, project: &ProjectAccess, version: &VersionRow, grant: Grant) -> Result<SecretBytes, Failure> {
    let key = project.key(version.project_key_generation)?;
    let names =
        VersionNames { secret: version.secret, version: unsigned(version.version), media_type: &version.media_type };
    app.keyring().open_value(key, &names, &sealed(version), grant).map_err(|error| match error {
        OpenError::OtherGrant | OpenError::OtherProjectKey => Failure::Internal(error.into()),
        damaged => Failure::Integrity(damaged.to_string()),
    })
}

/// A version's row as crypto takes it.
fn sealed(version: &VersionRow) -> SealedVersion {
    SealedVersion {
        project_key_generation: version.project_key_generation,
        wrapped_key: version.wrapped_key.clone(),
        sealed_value: version.sealed_value.clone(),
    }
}

/// A secret as a policy's resource, or the path where there is none.
pub(super) fn resource<'a>(path: &'a SecretPath, secret: Option<&'a SecretRow>, version: Option<u64>) -> Resource<'a> {
    let about =
        secret.map_or(About::default(), |secret| About { labels: Some(&secret.labels), owner: secret.owner.as_ref() });
    Resource::Secret { path, id: secret.map(|secret| secret.id), version, about }
}

/// Whether a secret at this path could be one that the caller may do this to. Otherwise nothing there is looked at: a refusal that takes as long whether or not
/// something is there tells nothing.
fn may_reach(app: &App, caller: &Caller, rules: &Rules, action: Action, path: &SecretPath) -> bool {
    Outlook::new(app, caller, rules, action).decides(path) != Some(false)
}

/// The secret at a path, checked, where [`may_reach`] has it looked at.
pub(super) async fn found(
    app: &App,
    connection: &mut Connection,
    caller: &Caller,
    rules: &Rules,
    action: Action,
    path: &SecretPath,
) -> Result<Option<Verified<SecretRow>>, Failure> {
    if !may_reach(app, caller, rules, action, path) {
        return Ok(None);
    }
    checked(app, rules, find_secret(connection, path).await?)
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
    app.audit.commit(event(app, caller, (action, "ok"), resource, version, policies)).await
}

/// The event of what was allowed and came to this outcome.
fn event(
    app: &App,
    caller: &Caller,
    (action, outcome): (Action, &'static str),
    resource: String,
    version: Option<u64>,
    policies: Vec<String>,
) -> AuditEvent {
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), action, Decision::Allowed, outcome);
    event.resource = Some(resource);
    event.version = version;
    event.policies = policies;
    event
}

fn unsigned(version: i64) -> u64 {
    u64::try_from(version).expect("the database checks that versions are above 0")
}
