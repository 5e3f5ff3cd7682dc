//! The audit writer: events of reads and refusals are committed in groups, before anything is released.

use crate::{failure::Failure, metrics as names};
use std::{sync::Arc, time::Duration};
use strongroom_core::AuditEvent;
use strongroom_crypto::Keyring;
use strongroom_store::{AuditRow, Store, StoreError, insert_events};
use tokio::sync::{mpsc, oneshot};

/// Most events in one transaction.
const GROUP: usize = 256;
/// Most events waiting; beyond that requests are refused at once.
const QUEUE: usize = 4096;
/// How long a request waits for its event to be committed.
const PATIENCE: Duration = Duration::from_secs(5);

struct Entry {
    event: AuditEvent,
    committed: oneshot::Sender<bool>,
}

/// A handle on the writer. The writer ends when the last handle is dropped, after all that was given to it.
#[derive(Clone, Debug)]
pub struct AuditWriter(mpsc::Sender<Entry>);

impl AuditWriter {
    /// Starts the writer's task.
    pub fn start(store: Store, keyring: Arc<Keyring>) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), tokio::spawn(write(receiver, store, keyring)))
    }

    /// Commits an event; only after `Ok` may anything be released.
    pub async fn commit(&self, event: AuditEvent) -> Result<(), Failure> {
        let (committed, answer) = oneshot::channel();
        self.0.try_send(Entry { event, committed }).map_err(|_| Failure::AuditUnavailable)?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(Failure::AuditUnavailable),
        }
    }
}

async fn write(mut receiver: mpsc::Receiver<Entry>, store: Store, keyring: Arc<Keyring>) {
    let mut group = Vec::with_capacity(GROUP);
    // While one group commits, the next gathers: the busier, the larger the groups.
    while receiver.recv_many(&mut group, GROUP).await > 0 {
        let (events, answers): (Vec<_>, Vec<_>) = group.drain(..).map(|entry| (entry.event, entry.committed)).unzip();
        let count = events.len() as u64;
        let outcome = commit(&store, &keyring, events).await;
        if let Err(error) = &outcome {
            tracing::error!(error = %error, events = count, "audit events could not be written; their requests are refused");
        } else {
            metrics::counter!(names::AUDIT_EVENTS).increment(count);
            metrics::counter!(names::AUDIT_COMMITS).increment(1);
        }
        for answer in answers {
            // A caller that no longer waits was refused already.
            let _ = answer.send(outcome.is_ok());
        }
    }
}

async fn commit(store: &Store, keyring: &Keyring, events: Vec<AuditEvent>) -> Result<(), StoreError> {
    let rows: Vec<_> = events.into_iter().map(|event| keyring.mac_audit_row(AuditRow::from(event))).collect();
    let mut transaction = store.begin().await?;
    insert_events(transaction.connection(), &rows).await?;
    transaction.commit().await
}
