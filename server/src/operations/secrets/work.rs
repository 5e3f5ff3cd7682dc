//! A transaction in which secrets change. Each operation on secrets has an inner function that works in a [`Work`] it is given, so that one transaction can
//! hold many of them; the outer function is one such transaction with one operation in it:
//!
//! ```text
//! run(app, caller, async |work| {
//!     put_in(app, caller, work, put).await   // as often as there are operations
//! }).await                                   // notices, manifests, events, commit; or the refusal's event
//! ```

use super::{checked, found, resource};
use crate::{
    access::Ledger,
    app::{App, Caller},
    failure::Failure,
    once::Decided,
    operations::{
        authorization::{self, Rules, decide, refused, rules},
        revision,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use strongroom_core::{Action, AuditEvent, Decision, ProjectId, ProjectName, SecretPath, Unverified, Verified};
use strongroom_policy::{Denied, Grant, Resource};
use strongroom_store::{
    Connection, ManifestScope, SecretRow, StoreError, TombstoneRow, Transaction, fits, hold_keys, hold_path,
    insert_tombstone, lock_secret, notify_change, share_secret,
};
use time::OffsetDateTime;

/// Rules older than this are read again before a write is done by them.
const STALE: Duration = Duration::from_millis(100);

/// A transaction in which secrets change; dropped, nothing happened.
///
/// Locks are taken in one order, so that no two transactions wait for each other: paths in their order (the secret's row, or where there is none and one may be
/// put there the path itself), then the one lock under which access rows change, and at the very end those under which projects' secrets are counted. Whoever
/// does several operations in one transaction takes their paths in that order, and what buries something last.
#[must_use]
pub struct Work {
    transaction: Transaction,
    events: Vec<AuditEvent>,
    changed: BTreeSet<SecretPath>,
    expires: bool,
    /// The most secrets of each project that got one.
    limits: BTreeMap<ProjectId, i32>,
    /// What is buried, by project. Written at the very end: a manifest that was written but not committed must be seen by no decision, which would keep it.
    ledgers: BTreeMap<ProjectName, Ledger>,
}

/// Why an operation in a [`Work`] stopped. The work must be given up before a refusal's event is waited for: nobody holds a pooled connection meanwhile.
#[derive(Debug)]
pub enum Halt {
    /// Policy refuses. The event is still to be left: [`Halt::settle`].
    Refused {
        /// What was asked.
        action: Action,
        /// On what.
        resource: String,
        /// Why.
        denied: Denied,
    },
    /// Anything else.
    Failed(Failure),
}

impl Halt {
    /// Leaves the event of a refusal. The transaction must be gone.
    pub async fn settle(self, app: &App, caller: &Caller) -> Failure {
        match self {
            Self::Refused { action, resource, denied } => refused(app, caller, action, resource, denied).await,
            Self::Failed(failure) => failure,
        }
    }
}

impl<T: Into<Failure>> From<T> for Halt {
    fn from(failure: T) -> Self {
        Self::Failed(failure.into())
    }
}

/// A place where a secret is or may be: decided on, and locked where there is one.
#[must_use]
pub(super) struct Held {
    pub(super) path: SecretPath,
    pub(super) rules: Rules,
    /// The locked row.
    pub(super) secret: Option<Verified<SecretRow>>,
    pub(super) grant: Grant,
    decided: Instant,
}

impl Work {
    /// Begins a transaction.
    pub(super) async fn begin(app: &App) -> Result<Self, Failure> {
        let mut transaction = app.store.begin().await?;
        // Before any rule or key is looked at: no key that this will write by is destroyed meanwhile.
        hold_keys(transaction.connection()).await?;
        Ok(Self {
            transaction,
            events: Vec::new(),
            changed: BTreeSet::new(),
            expires: false,
            limits: BTreeMap::new(),
            ledgers: BTreeMap::new(),
        })
    }

    /// The connection to work on.
    pub fn connection(&mut self) -> &mut Connection {
        self.transaction.connection()
    }

    /// Decides, locks the secret's row or its path, and decides again where the row is not the one that was decided on, or where the wait for it was long enough
    /// for a right to be revoked. Whoever is refused never holds the lock: he could keep others from writing with it. Whoever only reads shares it.
    pub(super) async fn hold(
        &mut self,
        app: &App,
        caller: &Caller,
        path: &SecretPath,
        action: Action,
    ) -> Result<Held, Halt> {
        let decided = Instant::now();
        let rules = rules(app, self.connection(), caller, Some(&path.project())).await?;
        let before = found(app, self.connection(), caller, &rules, action, path).await?;
        let grant = demand(app, caller, &rules, action, resource(path, before.as_deref(), None))?;
        let mut held = Held { path: path.clone(), rules, secret: None, grant, decided };
        let locked = self.lock(path, action, before.is_some()).await?;
        held.refresh(app, caller, self.connection()).await?;
        held.secret = checked(app, &held.rules, locked)?;
        // Labels and owner count too: policies see them.
        let state = |secret: &Option<Verified<SecretRow>>| secret.as_ref().map(|row| (row.id, row.revision));
        if state(&held.secret) != state(&before) || held.decided != decided {
            held.grant = held.demand(app, caller, action)?;
        }
        if held.rules.project().is_some_and(|project| project.row().shredded) {
            return Err(Failure::Shredded.into());
        }
        Ok(held)
    }

    /// Locks the secret's row; where there is none any more, or none yet, and one may be put there, its path.
    async fn lock(
        &mut self,
        path: &SecretPath,
        action: Action,
        is_there: bool,
    ) -> Result<Option<Unverified<SecretRow>>, StoreError> {
        let connection = self.connection();
        if is_there {
            let row = match action {
                Action::Read => share_secret(connection, path).await?,
                _ => lock_secret(connection, path).await?,
            };
            if row.is_some() {
                return Ok(row);
            }
        }
        if action != Action::Write {
            return Ok(None);
        }
        hold_path(connection, path).await?;
        // Another may have put it there before the path was ours.
        lock_secret(connection, path).await
    }

    /// Takes the lock under which access rows change, decides again, and notes tombstones: of these versions, or with 0 of the whole secret.
    pub(super) async fn bury(
        &mut self,
        app: &App,
        caller: &Caller,
        held: &mut Held,
        versions: &[i64],
    ) -> Result<(), Halt> {
        let project = held.path.project();
        if self.ledgers.is_empty() {
            revision::advance(app, self.connection()).await?;
        }
        held.rules = rules(app, self.connection(), caller, Some(&project)).await?;
        held.grant = held.demand(app, caller, held.grant.action())?;
        let (keyring, now, author) = (app.keyring(), app.clock.now(), caller.identity.principal());
        let secret = held.existing()?.id;
        let scope = ManifestScope::Project(held.rules.existing_project()?.id());
        let ledger = self.ledgers.entry(project).or_insert_with(|| Ledger::new(held.rules.access()));
        for version in versions {
            let row =
                TombstoneRow { scope, subject: secret.0, version: *version, author: author.clone(), created_at: now };
            let row = keyring.mac_row(row);
            insert_tombstone(self.transaction.connection(), &row).await?;
            ledger.put(&row)?;
        }
        Ok(())
    }

    /// Notes that watchers of a path must look again.
    pub(super) fn changed(&mut self, path: &SecretPath) {
        self.changed.insert(path.clone());
    }

    /// Notes the event of a change that was allowed by these rules.
    pub(super) fn record(
        &mut self,
        app: &App,
        caller: &Caller,
        grants: &[&Grant],
        path: &SecretPath,
        version: Option<u64>,
        outcome: &'static str,
    ) {
        let action = grants.first().expect("a change is allowed by some right").action();
        let mut event = app.event(caller.origin, Some(caller.identity.clone()), action, Decision::Allowed, outcome);
        event.resource = Some(path.to_string());
        event.version = version;
        event.policies = grants.iter().flat_map(|grant| grant.policies()).cloned().collect();
        event.policies.sort();
        event.policies.dedup();
        self.events.push(event);
    }

    /// Adds the rules of a further right that the last event's operation made use of.
    pub(super) fn also_allowed_by(&mut self, policies: Vec<String>) {
        if let Some(event) = self.events.last_mut() {
            event.policies.extend(policies);
            event.policies.sort();
            event.policies.dedup();
        }
    }

    /// Notes that a project got a secret, of which it may have so many. Looked at when the transaction ends: who waited for a secret with that lock in his hand
    /// would be waited for.
    pub(super) fn must_fit(&mut self, project: ProjectId, most: i32) {
        self.limits.insert(project, most);
    }

    /// Notes that a secret got an expiry: whoever looks after expiries may have to wake sooner.
    pub(super) fn expires(&mut self, at: Option<OffsetDateTime>) {
        self.expires |= at.is_some();
    }

    /// Ends the transaction: after success it tells watchers, writes manifests and events, and commits; otherwise nothing happened, and a refusal leaves its
    /// event.
    pub(super) async fn finish<T>(
        mut self,
        app: &App,
        caller: &Caller,
        outcome: Result<T, Halt>,
    ) -> Result<T, Failure> {
        match outcome {
            Ok(value) => {
                self.commit(app).await?;
                Ok(value)
            }
            Err(halt) => {
                self.events.clear();
                drop(self);
                Err(halt.settle(app, caller).await)
            }
        }
    }

    async fn commit(mut self, app: &App) -> Result<(), Failure> {
        for (project, most) in std::mem::take(&mut self.limits) {
            if !fits(self.transaction.connection(), project, most).await? {
                return Err(Failure::ProjectFull);
            }
        }
        for path in std::mem::take(&mut self.changed) {
            notify_change(self.transaction.connection(), &path).await?;
        }
        for ledger in std::mem::take(&mut self.ledgers).into_values() {
            ledger.write(app, self.transaction.connection()).await?;
        }
        app.record_all(&mut self.transaction, self.events).await?;
        self.transaction.commit().await?;
        if self.expires {
            app.expiry_changed.notify_one();
        }
        Ok(())
    }
}

impl Held {
    /// The secret.
    ///
    /// # Errors
    /// [`Failure::NotFound`] where there is none; it is for those who were allowed there.
    pub(super) fn existing(&self) -> Result<&Verified<SecretRow>, Failure> {
        self.secret.as_ref().ok_or(Failure::NotFound)
    }

    /// Demands another right on the same secret.
    pub(super) fn demand(&self, app: &App, caller: &Caller, action: Action) -> Result<Grant, Halt> {
        demand(app, caller, &self.rules, action, resource(&self.path, self.secret.as_deref(), None))
    }

    /// Demands a right on the secret's project.
    pub(super) fn demand_of_project(&self, app: &App, caller: &Caller, action: Action) -> Result<Grant, Halt> {
        demand(app, caller, &self.rules, action, Resource::Project(&self.path.project()))
    }

    /// Reads the rules again where they are so old that a right may have been revoked meanwhile.
    async fn refresh(&mut self, app: &App, caller: &Caller, connection: &mut Connection) -> Result<(), Failure> {
        if self.decided.elapsed() > STALE {
            self.decided = Instant::now();
            self.rules = rules(app, connection, caller, Some(&self.path.project())).await?;
        }
        Ok(())
    }

    /// Decides again where a statement made this wait for somebody.
    pub(super) async fn confirm(
        &mut self,
        app: &App,
        caller: &Caller,
        connection: &mut Connection,
    ) -> Result<(), Halt> {
        let before = self.decided;
        self.refresh(app, caller, connection).await?;
        if self.decided != before {
            self.grant = self.demand(app, caller, self.grant.action())?;
        }
        Ok(())
    }
}

/// Decides; a refusal's event is left once the transaction is gone.
fn demand(app: &App, caller: &Caller, rules: &Rules, action: Action, resource: Resource<'_>) -> Result<Grant, Halt> {
    let grant = decide(app, caller, rules, action, resource).map_err(|denied| Halt::Refused {
        action,
        resource: resource.name(),
        denied,
    })?;
    if let Some(once) = &caller.once {
        once.note(Decided::needed(action, &resource));
    }
    Ok(grant)
}

/// A right that makes a write's answer richer, where not having it is no refusal.
pub(super) fn right_to(
    app: &App,
    caller: &Caller,
    rules: &Rules,
    action: Action,
    resource: Resource<'_>,
) -> Option<Grant> {
    let grant = authorization::right_to(app, caller, rules, action, resource)?;
    if let Some(once) = &caller.once {
        once.note(Decided::enriching(action, &resource));
    }
    Some(grant)
}
