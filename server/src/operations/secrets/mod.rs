//! Secrets: one file an operation. What they share stands here.

mod delete;
mod list;
mod precondition;
mod put;
mod read;
mod versions;
mod work;

pub use delete::{delete, delete_in};
pub use list::{ListQuery, MAX_PAGE, list};
pub use precondition::Precondition;
pub use put::{MAX_REASON, Put, put, put_in};
pub use read::{ReadOutcome, ReadSecret, read};
pub use versions::versions;
pub use work::{Halt, Work};

use super::authorization::{Rules, decide, refused};
use crate::{
    app::{App, Caller},
    failure::Failure,
};
use strongroom_core::{Action, Decision, SecretPath, Unverified, Verified};
use strongroom_policy::{About, Grant, Resource};
use strongroom_store::{SecretRow, VersionRow};

/// A secret's row, checked: its MAC, that it lies in the project its path names, and that it was not removed for good before.
pub(super) fn checked(
    app: &App,
    rules: &Rules,
    row: Option<Unverified<SecretRow>>,
) -> Result<Option<Verified<SecretRow>>, Failure> {
    let (Some(row), Some(project)) = (row, rules.project()) else { return Ok(None) };
    let row = app.verify(row)?;
    if row.project != project.id() {
        return Err(Failure::Integrity(format!("the secret {} lies in another project than its path says", row.id)));
    }
    if project.is_buried(row.id, None) {
        return Err(Failure::Integrity(format!("the secret {} was removed for good, and its row is back", row.id)));
    }
    Ok(Some(row))
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
    let destroyed = row.state == strongroom_store::VersionState::Destroyed;
    if row.secret != secret.id || (!destroyed && project.is_buried(secret.id, Some(row.version))) {
        return Err(back());
    }
    Ok(row)
}

/// A secret as a policy's resource, or the path where there is none.
pub(super) fn resource<'a>(path: &'a SecretPath, secret: Option<&'a SecretRow>, version: Option<u64>) -> Resource<'a> {
    let about =
        secret.map_or(About::default(), |secret| About { labels: Some(&secret.labels), owner: secret.owner.as_ref() });
    Resource::Secret { path, id: secret.map(|secret| secret.id), version, about }
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
    outcome: &'static str,
) -> Result<(), Failure> {
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), action, Decision::Allowed, outcome);
    event.resource = Some(resource);
    event.version = version;
    event.policies = policies;
    app.audit.commit(event).await
}

fn unsigned(version: i64) -> u64 {
    u64::try_from(version).expect("the database checks that versions are above 0")
}
