//! A change of access rows (projects, clusters, roles, grants, policies): authorised, one after the other, with its audit event and the next
//! revision in the same transaction.

use super::{
    authorization::{authorize, rules},
    projects::with_rules,
    revision,
};
use crate::{
    app::{App, Caller},
    failure::Failure,
};
use strongroom_core::{Action, Decision, ProjectName, Verified};
use strongroom_policy::{Grant, Resource};
use strongroom_store::{Connection, ProjectRow, Transaction};

/// A change under way; dropped, it never happened.
#[must_use]
pub struct Change {
    transaction: Transaction,
    grant: Grant,
}

impl Change {
    /// Begins a change of the instance.
    pub async fn on_instance(app: &App, caller: &Caller, action: Action) -> Result<Self, Failure> {
        let mut transaction = app.store.begin().await?;
        let rules = rules(app, transaction.connection(), caller, None).await?;
        let grant = authorize(app, caller, &rules, action, Resource::Instance).await?;
        revision::advance(app, transaction.connection()).await?;
        Ok(Self { transaction, grant })
    }

    /// Begins a change in a project.
    pub async fn in_project(
        app: &App,
        caller: &Caller,
        action: Action,
        name: &ProjectName,
    ) -> Result<(Self, Verified<ProjectRow>), Failure> {
        let mut transaction = app.store.begin().await?;
        let (project, rules) = with_rules(app, transaction.connection(), caller, name).await?;
        let grant = authorize(app, caller, &rules, action, Resource::Project(name)).await?;
        let project = project.ok_or(Failure::NotFound)?;
        revision::advance(app, transaction.connection()).await?;
        Ok((Self { transaction, grant }, project))
    }

    /// The connection to make the change on.
    pub fn connection(&mut self) -> &mut Connection {
        self.transaction.connection()
    }

    /// Writes the audit event and commits.
    pub async fn commit(mut self, app: &App, caller: &Caller, resource: String) -> Result<(), Failure> {
        let mut event =
            app.event(caller.origin, Some(caller.identity.clone()), self.grant.action(), Decision::Allowed, "ok");
        event.resource = Some(resource);
        event.policies = self.grant.policies().to_vec();
        app.record(&mut self.transaction, event).await?;
        self.transaction.commit().await?;
        Ok(())
    }
}

/// A look at a project's access rows: authorised, and the connection to look with.
pub async fn look(
    app: &App,
    connection: &mut Connection,
    caller: &Caller,
    action: Action,
    name: &ProjectName,
) -> Result<Verified<ProjectRow>, Failure> {
    let (project, rules) = with_rules(app, connection, caller, name).await?;
    let grant = authorize(app, caller, &rules, action, Resource::Project(name)).await?;
    looked(app, caller, grant, format!("{name}/")).await?;
    project.ok_or(Failure::NotFound)
}

/// Commits the event of a look at access rows.
pub async fn looked(app: &App, caller: &Caller, grant: Grant, resource: String) -> Result<(), Failure> {
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), grant.action(), Decision::Allowed, "ok");
    event.resource = Some(resource);
    event.policies = grant.policies().to_vec();
    app.audit.commit(event).await
}

/// A name as events may have it: anything but a plain one is a caller's free text, which has no place there.
pub fn plain(name: &str) -> &str {
    let is_plain = (1..=253).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if is_plain { name } else { "(malformed)" }
}

/// Passes an outcome on. A mutation that was allowed and yet did not happen leaves its event here, since its transaction left none.
pub async fn audited<T>(
    app: &App,
    caller: &Caller,
    action: Action,
    resource: String,
    outcome: Result<T, Failure>,
) -> Result<T, Failure> {
    if let Err(failure) = &outcome {
        let allowed = matches!(
            failure,
            Failure::NotFound
                | Failure::Deleted
                | Failure::VersionConflict
                | Failure::Conflict(_)
                | Failure::OutcomeUnknown
                | Failure::Integrity(_)
                | Failure::Internal(_)
        );
        if allowed {
            let mut event = app.event(
                caller.origin,
                Some(caller.identity.clone()),
                action,
                Decision::Allowed,
                failure.code().as_str(),
            );
            event.resource = Some(resource);
            app.audit.commit(event).await?;
        }
    }
    outcome
}
