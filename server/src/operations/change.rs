//! A change of access rows (projects, clusters, roles, grants, policies): authorised, one after the other, with its audit event and the next
//! revision in the same transaction.

use super::{
    authorization::{Rules, decide, refused, rules},
    revision,
    secrets::{found, resource},
};
use crate::{
    access::{Access, InstanceAccess, Ledger, ProjectAccess},
    app::{App, Caller},
    failure::Failure,
};
use std::sync::Arc;
use strongroom_core::{AccessRow, Action, AuditEvent, Decision, Maced, ProjectName, SecretPath};
use strongroom_policy::{Denied, Grant, Resource};
use strongroom_store::{Connection, Transaction};

/// A change under way; dropped, it never happened.
#[must_use]
pub struct Change {
    transaction: Transaction,
    grant: Grant,
    /// What the change does to the rows that manifests cover.
    pub ledger: Ledger,
    instance: Arc<InstanceAccess>,
    /// The rules that gave the further rights that were demanded.
    further: Vec<String>,
}

impl Change {
    /// Begins a change of the instance.
    pub async fn on_instance(app: &App, caller: &Caller, action: Action) -> Result<Self, Failure> {
        Ok(Self::begin(app, caller, action, None).await?.0)
    }

    /// Begins a change in a project.
    pub async fn in_project(
        app: &App,
        caller: &Caller,
        action: Action,
        name: &ProjectName,
    ) -> Result<(Self, Arc<ProjectAccess>), Failure> {
        let (change, project) = Self::begin(app, caller, action, Some(name)).await?;
        let project = project.ok_or(Failure::NotFound)?;
        if project.row().shredded { Err(Failure::Shredded) } else { Ok((change, project)) }
    }

    /// Decides, takes the lock under which access rows change, and decides again: what was allowed may have been revoked while this waited for the lock. Who
    /// is refused at first never takes it.
    async fn begin(
        app: &App,
        caller: &Caller,
        action: Action,
        name: Option<&ProjectName>,
    ) -> Result<(Self, Option<Arc<ProjectAccess>>), Failure> {
        let mut transaction = app.store.begin().await?;
        let (mut decision, mut rules) = decide_in(app, transaction.connection(), caller, action, name).await?;
        if decision.is_ok() {
            revision::advance(app, transaction.connection()).await?;
            (decision, rules) = decide_in(app, transaction.connection(), caller, action, name).await?;
        }
        match decision {
            Ok(grant) => {
                let access = rules.access().clone();
                let ledger = Ledger::new(&access);
                let change = Self { transaction, grant, ledger, instance: access.instance, further: Vec::new() };
                Ok((change, access.project))
            }
            Err(denied) => {
                drop(transaction);
                Err(refused(app, caller, action, resource_name(name), denied).await)
            }
        }
    }

    /// Looks at the rows of a project that a change decided about the instance is about, before anything is changed.
    ///
    /// # Errors
    /// [`Failure::Integrity`] when they do not fit: the change may go on without them.
    pub async fn project(&mut self, app: &App, name: &ProjectName) -> Result<Arc<ProjectAccess>, Failure> {
        let access = Access::now(app, self.transaction.connection(), Some(name)).await?;
        self.ledger = Ledger::new(&access);
        access.project.ok_or(Failure::NotFound)
    }

    /// Demands another right for the same change.
    pub async fn also(mut self, app: &App, caller: &Caller, action: Action) -> Result<Self, Failure> {
        let (decision, _) = decide_in(app, self.transaction.connection(), caller, action, None).await?;
        match decision {
            Ok(grant) => {
                self.further.extend_from_slice(grant.policies());
                Ok(self)
            }
            Err(denied) => {
                drop(self);
                Err(refused(app, caller, action, resource_name(None), denied).await)
            }
        }
    }

    /// The instance as it stands before the change.
    pub fn instance(&self) -> &Arc<InstanceAccess> {
        &self.instance
    }

    /// Notes a row of the change's project that is written.
    pub fn put<T: AccessRow>(&mut self, row: &Maced<T>) -> Result<(), Failure> {
        self.ledger.put(row)
    }

    /// Notes a row of the change's project that is removed.
    pub fn remove<T: AccessRow>(&mut self, row: &T) -> Result<(), Failure> {
        self.ledger.remove(row)
    }

    /// The connection to make the change on.
    pub fn connection(&mut self) -> &mut Connection {
        self.transaction.connection()
    }

    /// Writes a further event into the change.
    pub async fn record(&mut self, app: &App, event: AuditEvent) -> Result<(), Failure> {
        app.record(&mut self.transaction, event).await
    }

    /// Writes the manifests and the audit event, and commits.
    pub async fn commit(mut self, app: &App, caller: &Caller, resource: String) -> Result<(), Failure> {
        let mut event =
            app.event(caller.origin, Some(caller.identity.clone()), self.grant.action(), Decision::Allowed, "ok");
        event.resource = Some(resource);
        event.policies = self.grant.policies().iter().chain(&self.further).cloned().collect();
        self.ledger.write(app, self.transaction.connection()).await?;
        app.record(&mut self.transaction, event).await?;
        self.transaction.commit().await?;
        Ok(())
    }
}

/// Decides about the instance without beginning anything.
pub async fn allowed_on_instance(app: &App, caller: &Caller, action: Action) -> Result<(), Failure> {
    allowed_about(app, caller, action, None).await
}

/// Decides without beginning anything: for a check that is too dear for those who are refused, and too slow to be done under the lock.
pub async fn allowed(app: &App, caller: &Caller, action: Action, name: &ProjectName) -> Result<(), Failure> {
    allowed_about(app, caller, action, Some(name)).await
}

async fn allowed_about(app: &App, caller: &Caller, action: Action, name: Option<&ProjectName>) -> Result<(), Failure> {
    let decision = {
        let mut connection = app.store.reader().await?;
        decide_in(app, &mut connection, caller, action, name).await?.0
    };
    match decision {
        Ok(_) => Ok(()),
        Err(denied) => Err(refused(app, caller, action, resource_name(name), denied).await),
    }
}

/// The same for a path where a secret is or may be.
pub async fn allowed_on_secret(app: &App, caller: &Caller, action: Action, path: &SecretPath) -> Result<(), Failure> {
    let (decision, resource) = {
        let mut connection = app.store.reader().await?;
        let rules = rules(app, &mut connection, caller, Some(&path.project())).await?;
        let secret = found(app, &mut connection, caller, &rules, action, path).await?;
        let resource = resource(path, secret.as_deref(), None);
        (decide(app, caller, &rules, action, resource), resource.name())
    };
    match decision {
        Ok(_) => Ok(()),
        Err(denied) => Err(refused(app, caller, action, resource, denied).await),
    }
}

async fn decide_in(
    app: &App,
    connection: &mut Connection,
    caller: &Caller,
    action: Action,
    name: Option<&ProjectName>,
) -> Result<(Result<Grant, Denied>, Rules), Failure> {
    let rules = rules(app, connection, caller, name).await?;
    let resource = name.map_or(Resource::Instance, Resource::Project);
    Ok((decide(app, caller, &rules, action, resource), rules))
}

/// A look at a project's access rows, or without a project at the instance's: authorised, looked, audited, released.
pub async fn look<T, F>(
    app: &App,
    caller: &Caller,
    action: Action,
    name: Option<&ProjectName>,
    read: F,
) -> Result<T, Failure>
where
    F: FnOnce(&Rules) -> Result<T, Failure>,
{
    let outcome = try_look(app, caller, action, name, read).await;
    audited(app, caller, action, resource_name(name), outcome).await
}

async fn try_look<T, F>(
    app: &App,
    caller: &Caller,
    action: Action,
    name: Option<&ProjectName>,
    read: F,
) -> Result<T, Failure>
where
    F: FnOnce(&Rules) -> Result<T, Failure>,
{
    let (decision, rules) = {
        let mut connection = app.store.reader().await?;
        decide_in(app, &mut connection, caller, action, name).await?
    };
    let grant = match decision {
        Ok(grant) => grant,
        Err(denied) => return Err(refused(app, caller, action, resource_name(name), denied).await),
    };
    let found = read(&rules)?;
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), action, Decision::Allowed, "ok");
    event.resource = Some(resource_name(name));
    event.policies = grant.policies().to_vec();
    app.audit.commit(event).await?;
    Ok(found)
}

fn resource_name(name: Option<&ProjectName>) -> String {
    name.map_or(Resource::Instance, Resource::Project).name()
}

/// Passes an outcome on. A request that failed without leaving an event of its own leaves it here.
pub async fn audited<T>(
    app: &App,
    caller: &Caller,
    action: Action,
    resource: String,
    outcome: Result<T, Failure>,
) -> Result<T, Failure> {
    let Err(failure) = &outcome else { return outcome };
    // These have left theirs, or could not.
    if matches!(failure, Failure::Denied | Failure::AuditUnavailable) {
        return outcome;
    }
    let decision = decision_after(failure);
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), action, decision, failure.code().as_str());
    event.resource = Some(resource);
    match (app.audit.commit(event).await, failure) {
        // Nothing is released by these, and their own words matter more: of an unknown outcome nobody may hear that nothing happened.
        (_, Failure::OutcomeUnknown | Failure::Unavailable(_) | Failure::Integrity(_) | Failure::Internal(_)) => {
            outcome
        }
        (written, _) => written.and(outcome),
    }
}

/// What a failure says of the decision before it.
pub fn decision_after(failure: &Failure) -> Decision {
    match failure {
        Failure::NotFound
        | Failure::Deleted
        | Failure::VersionDeleted
        | Failure::VersionDestroyed
        | Failure::Expired
        | Failure::Protected
        | Failure::VersionInUse(_)
        | Failure::ProjectFull
        | Failure::RevisionConflict
        | Failure::Shredded
        | Failure::FieldNotFound
        | Failure::VersionConflict
        | Failure::PreconditionRequired
        | Failure::Conflict(_)
        | Failure::AnswerTooLarge
        | Failure::OutcomeUnknown => Decision::Allowed,
        _ => Decision::Undecided,
    }
}

/// A name as it may stand in an audit event before it was parsed: what is no plain name may be anything, a value too.
pub fn plain(name: &str) -> &str {
    let is_plain = (1..=253).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if is_plain { name } else { "(malformed)" }
}
