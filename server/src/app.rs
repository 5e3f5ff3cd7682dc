//! What every operation needs.

use crate::{
    access::AccessCache, activity::Activity, anchor::AnchorPlace, audit::AuditWriter, cluster::Reviewers,
    failure::Failure, instance::Instance, keys::Keys, metrics as names, once::Once, serve::Deadlines,
    watchers::Watchers,
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use strongroom_core::{Action, AuditEvent, Clock, Decision, Identity, MacRow, RoleName, Unverified, Verified};
use strongroom_crypto::Keyring;
use strongroom_policy::Engine;
use strongroom_store::{AuditRow, Store, Transaction, insert_events};
use time::OffsetDateTime;
use tokio::{
    sync::{Mutex, Notify, Semaphore, watch},
    time::Instant,
};
use uuid::Uuid;

/// The running server.
#[derive(Debug)]
pub struct App {
    /// The instance.
    pub instance: Instance,
    /// Its keyring, which changes while the server runs.
    pub keys: Arc<Keys>,
    /// Where the manifests' epochs are written outside the database.
    pub anchor: Option<AnchorPlace>,
    /// The access rows that were loaded and checked.
    pub access: AccessCache,
    /// The database.
    pub store: Store,
    /// The policy engine.
    pub engine: Engine,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The audit writer.
    pub audit: AuditWriter,
    /// When secrets were last read, as far as it is not written down.
    pub activity: Activity,
    /// Open watches.
    pub watchers: Arc<Watchers>,
    /// Told when a secret got an expiry.
    pub expiry_changed: Notify,
    /// Clients of the registered clusters.
    pub reviewers: Reviewers,
    /// Wakes the work on keys: a rotation was asked for.
    pub rotations: Notify,
    /// How long a key is kept after nothing is protected by it any more.
    pub destroy_after: time::Duration,
    /// The longest life of a session in seconds.
    pub session_seconds: u32,
    /// How long clients may take.
    pub deadlines: Deadlines,
    /// How often all access rows are checked, but not while another server is at it, and the anchor is compared where nothing changed.
    pub check_every: Duration,
    /// The last look at whether the database answers.
    pub readiness: Mutex<Option<(Instant, bool)>>,
    /// Requests that are being served; beyond that newcomers are told to come again.
    pub room: Arc<Semaphore>,
    /// The same for logins: anybody may send one, and they must not take the room of those who are logged in.
    pub login_room: Arc<Semaphore>,
    /// Backups under way: one at a time.
    pub backups: Arc<Semaphore>,
    /// Turns true when the server stops.
    pub stop: watch::Receiver<bool>,
}

/// Most requests being served at once. Open watches are not counted.
pub const MAX_REQUESTS: usize = 1024;

/// Most logins being served at once.
pub const MAX_LOGINS: usize = 256;

/// A request as operations see it.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Its id, given to the caller with every answer.
    pub request_id: Uuid,
    /// The peer's address.
    pub source: Option<IpAddr>,
}

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub identity: Identity,
    /// The one role the session is narrowed to.
    pub role: Option<RoleName>,
    /// When the credential ends.
    pub expires_at: OffsetDateTime,
    /// The request.
    pub origin: Origin,
    /// What makes a write happen once however often it is sent, where the request carries a key for that.
    pub once: Option<Arc<Once>>,
}

impl App {
    /// The keyring as it is now.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.keys.now()
    }

    /// Checks a row's MAC. A wrong one ends the request; whoever answers it counts and logs it.
    pub fn verify<T: MacRow>(&self, row: Unverified<T>) -> Result<Verified<T>, Failure> {
        self.keyring().verify_row(row).map_err(|tampered| Failure::Integrity(tampered.to_string()))
    }

    /// Checks a row's MAC, which the row key in use must have made: [`Keyring::verify_current_row`]. Whoever asks has followed whatever changed the keyring.
    pub fn verify_current<T: MacRow>(&self, row: Unverified<T>) -> Result<Verified<T>, Failure> {
        self.keyring().verify_current_row(row).map_err(|tampered| Failure::Integrity(tampered.to_string()))
    }

    /// Checks the MACs of many rows.
    pub fn verify_all<T: MacRow>(&self, rows: Vec<Unverified<T>>) -> Result<Vec<Verified<T>>, Failure> {
        rows.into_iter().map(|row| self.verify(row)).collect()
    }

    /// An audit event of this moment.
    pub fn event(
        &self,
        origin: Origin,
        actor: Option<Identity>,
        action: Action,
        decision: Decision,
        outcome: &'static str,
    ) -> AuditEvent {
        AuditEvent {
            id: Uuid::now_v7(),
            at: self.clock.now(),
            request_id: origin.request_id,
            actor,
            action,
            resource: None,
            version: None,
            decision,
            policies: Vec::new(),
            outcome,
            source: origin.source,
        }
    }

    /// Writes a mutation's event into its transaction.
    pub async fn record(&self, transaction: &mut Transaction, event: AuditEvent) -> Result<(), Failure> {
        self.record_all(transaction, vec![event]).await
    }

    /// Writes the events of a transaction's mutations into it.
    pub async fn record_all(&self, transaction: &mut Transaction, events: Vec<AuditEvent>) -> Result<(), Failure> {
        let keyring = self.keyring();
        let rows: Vec<_> = events.into_iter().map(|event| keyring.mac_audit_row(AuditRow::from(event))).collect();
        insert_events(transaction.connection(), &rows).await.map_err(|error| {
            tracing::error!(error = %error, "an audit event could not be written; its change is not made");
            Failure::AuditUnavailable
        })?;
        metrics::counter!(names::AUDIT_EVENTS).increment(rows.len() as u64);
        Ok(())
    }
}
