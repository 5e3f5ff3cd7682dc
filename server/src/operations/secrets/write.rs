//! A change of one secret under way.

use super::{checked, resource};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::authorization::{Rules, decide, refused, rules},
};
use std::time::{Duration, Instant};
use strongroom_core::{Action, Decision, SecretPath, Verified};
use strongroom_policy::Grant;
use strongroom_store::{SecretRow, Transaction, find_secret, hold_keys, lock_secret, notify_change};

/// Rules older than this are read again before a write is done by them.
const STALE: Duration = Duration::from_millis(100);

/// When a write is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Always.
    None,
    /// Only where nothing live is there.
    Absent,
    /// Only where this version is current.
    Current(u64),
}

/// A change of one secret under way; dropped, it never happened.
pub(super) struct Write {
    pub(super) transaction: Transaction,
    pub(super) rules: Rules,
    /// The locked row.
    pub(super) secret: Option<Verified<SecretRow>>,
    pub(super) grant: Grant,
}

impl Write {
    /// Decides, locks the secret's row, and decides again where the row is not the one that was decided on, or where the wait for it was long enough for a
    /// right to be revoked. Whoever is refused never holds the lock: he could keep others from writing with it.
    pub(super) async fn begin(app: &App, caller: &Caller, path: &SecretPath, action: Action) -> Result<Self, Failure> {
        let mut transaction = app.store.begin().await?;
        // Before the rules, which bring the project's key, and before the keyring follows: neither is destroyed until this is over.
        hold_keys(transaction.connection()).await?;
        let mut rules_now = rules(app, transaction.connection(), caller, Some(&path.project())).await?;
        let found = checked(app, &rules_now, find_secret(transaction.connection(), path).await?)?;
        let mut decision = decide(app, caller, &rules_now, action, resource(path, found.as_deref(), None));
        let mut secret = None;
        if decision.is_ok()
            && let Some(found) = found
        {
            let waiting = Instant::now();
            let locked = lock_secret(transaction.connection(), path).await?;
            if waiting.elapsed() > STALE {
                rules_now = rules(app, transaction.connection(), caller, Some(&path.project())).await?;
            }
            secret = checked(app, &rules_now, locked)?;
            // Labels and owner count too: policies see them.
            let same = secret.as_ref().is_some_and(|secret| secret.id == found.id && secret.revision == found.revision);
            if !same || waiting.elapsed() > STALE {
                decision = decide(app, caller, &rules_now, action, resource(path, secret.as_deref(), None));
            }
        }
        match decision {
            Ok(grant) => Ok(Self { transaction, rules: rules_now, secret, grant }),
            Err(denied) => {
                drop(transaction);
                Err(refused(app, caller, action, path.to_string(), denied).await)
            }
        }
    }

    /// Tells watchers, writes the audit event, and commits.
    pub(super) async fn commit(
        mut self,
        app: &App,
        caller: &Caller,
        path: &SecretPath,
        version: u64,
    ) -> Result<(), Failure> {
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

pub(super) fn precondition_holds(precondition: Precondition, secret: Option<&SecretRow>) -> bool {
    let live = secret.filter(|secret| !secret.deleted);
    match precondition {
        Precondition::None => true,
        Precondition::Absent => live.is_none(),
        Precondition::Current(version) => live.is_some_and(|secret| super::unsigned(secret.current_version) == version),
    }
}
