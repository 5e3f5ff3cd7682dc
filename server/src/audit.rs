//! The audit writer: events of reads and refusals are committed in groups, before anything is released.

use crate::{failure::Failure, keys::Keys, metrics as names};
use std::{
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use strongroom_core::{Action, AuditEvent, Clock, Decision, Maced};
use strongroom_store::{AuditRow, EventWriter, Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// Most events in one transaction.
const GROUP: usize = 256;
/// Most events waiting; beyond that requests are refused at once.
const QUEUE: usize = 4096;
/// How long a request waits for its event to be committed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is tried, after a failure, whether events can be written again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

struct Entry {
    event: AuditEvent,
    committed: oneshot::Sender<bool>,
}

/// A handle on the writer. The writer ends when the last handle is dropped, after all that was given to it.
#[derive(Clone, Debug)]
pub struct AuditWriter {
    queue: mpsc::Sender<Entry>,
    healthy: Arc<AtomicBool>,
}

impl AuditWriter {
    /// Starts the writer's task.
    pub fn start(store: Store, keys: Arc<Keys>, clock: Arc<dyn Clock>) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let healthy = Arc::new(AtomicBool::new(true));
        let task = tokio::spawn(write(receiver, EventWriter::new(store), keys, clock, healthy.clone()));
        (Self { queue, healthy }, task)
    }

    /// Commits an event; only after `Ok` may anything be released.
    pub async fn commit(&self, event: AuditEvent) -> Result<(), Failure> {
        let (committed, answer) = oneshot::channel();
        self.queue.try_send(Entry { event, committed }).map_err(|_| Failure::AuditUnavailable)?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(Failure::AuditUnavailable),
        }
    }

    /// Commits several events, in one group or a few; only after `Ok` may anything be released.
    pub async fn commit_all(&self, events: Vec<AuditEvent>) -> Result<(), Failure> {
        let commits = events.into_iter().map(|event| self.commit(event));
        futures_util::future::join_all(commits).await.into_iter().collect()
    }

    /// Whether the last group was written, or could be by now. It recovers without requests: a server that is not ready is sent none.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }
}

async fn write(
    mut receiver: mpsc::Receiver<Entry>,
    mut writer: EventWriter,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
    healthy: Arc<AtomicBool>,
) {
    let mut group = Vec::with_capacity(GROUP);
    loop {
        // While one group commits, the next gathers: the busier, the larger the groups.
        let gathered = receiver.recv_many(&mut group, GROUP);
        let gathered = if healthy.load(Ordering::Relaxed) {
            gathered.await
        } else if let Ok(gathered) = tokio::time::timeout(PROBE_EVERY, gathered).await {
            gathered
        } else {
            if writer.probe(&keys.now().mac_audit_row(AuditRow::from(probe(clock.as_ref())))).await.is_ok() {
                tracing::info!("audit events can be written again");
                healthy.store(true, Ordering::Relaxed);
            }
            continue;
        };
        if gathered == 0 {
            return;
        }
        let keyring = keys.now();
        let (rows, answers): (Vec<_>, Vec<_>) =
            group.drain(..).map(|entry| (keyring.mac_audit_row(AuditRow::from(entry.event)), entry.committed)).unzip();
        let outcomes = match writer.commit(&rows).await {
            Ok(()) => {
                metrics::counter!(names::AUDIT_COMMITS).increment(1);
                vec![true; rows.len()]
            }
            // The database is away: trying each would only take longer.
            Err(error @ StoreError::Unavailable(_)) => {
                report(&error, rows.len());
                vec![false; rows.len()]
            }
            // One event that cannot be written must not take the others of its group with it.
            Err(error) => {
                report(&error, rows.len());
                one_by_one(&mut writer, rows).await
            }
        };
        healthy.store(outcomes.iter().any(|written| *written), Ordering::Relaxed);
        metrics::counter!(names::AUDIT_EVENTS).increment(outcomes.iter().filter(|written| **written).count() as u64);
        for (answer, written) in answers.into_iter().zip(outcomes) {
            // A caller that no longer waits was refused already.
            let _ = answer.send(written);
        }
    }
}

async fn one_by_one(writer: &mut EventWriter, rows: Vec<Maced<AuditRow>>) -> Vec<bool> {
    let mut outcomes = Vec::with_capacity(rows.len());
    for row in &rows {
        let outcome = writer.commit(std::slice::from_ref(row)).await;
        outcomes.push(outcome.is_ok());
        if let Err(error) = &outcome {
            report(error, 1);
        }
        if matches!(outcome, Err(StoreError::Unavailable(_))) {
            break;
        }
    }
    // The database went away meanwhile: the rest would only wait for it, one after the other.
    outcomes.resize(rows.len(), false);
    outcomes
}

/// An event that is never committed.
fn probe(clock: &dyn Clock) -> AuditEvent {
    AuditEvent {
        id: Uuid::now_v7(),
        at: clock.now(),
        request_id: Uuid::nil(),
        actor: None,
        action: Action::WhoAmI,
        resource: None,
        version: None,
        decision: Decision::Undecided,
        policies: Vec::new(),
        outcome: "probe",
        source: None,
    }
}

fn report(error: &StoreError, events: usize) {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    tracing::error!(error = %error, cause, events, "audit events could not be written; their requests are refused");
}
