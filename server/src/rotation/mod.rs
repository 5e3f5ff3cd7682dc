//! Work on keys that goes on while servers serve, come and go: whichever server comes first takes the next step, each step is one transaction, and what is to be
//! done next is read from verified rows. How far a rotation says it came only says where to look first.

mod compromised;
mod damage;
mod project_key;
mod remac;
mod root;
mod shred;
mod step;
mod term;

pub(crate) use project_key::next_generation;
pub(crate) use root::count_outdated;
pub(crate) use step::resource;

use crate::{
    app::{App, Origin},
    failing::Failing,
    failure::Failure,
    metrics as names,
};
use damage::Damage;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use step::Step;
use strongroom_core::{Action, Decision, Unverified, Verified};
use strongroom_store::{
    Progress, RotationKind, RotationRow, claim_rotation, delete_rotation, note_failure, open_rotations,
};
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

/// How often it is looked whether there is work, or whether what a rotation waits for has come.
const EVERY: Duration = Duration::from_millis(500);

/// What came of a turn of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// A step was taken; there may be another one at once.
    Moved,
    /// It waits: for other servers, for time, or for whoever works on it now.
    Waits,
}

/// Works until the server stops.
pub(crate) async fn rotate(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let mut worker = Worker { app, failing: HashMap::new(), damage: HashMap::new(), rewraps: root::Watch::default() };
    let mut failing = Failing::default();
    loop {
        let turn = match worker.pass(&stop).await {
            Ok(turn) => {
                failing.ends();
                turn
            }
            Err(failure) => {
                if failing.is_new(&failure.to_string()) {
                    tracing::error!(error = %failure, "cannot look for work on keys");
                }
                Turn::Waits
            }
        };
        if *stop.borrow() {
            return;
        }
        if turn == Turn::Waits {
            tokio::select! {
                biased;
                () = crate::serve::stopped(&mut stop) => return,
                _ = timeout(EVERY, worker.app.rotations.notified()) => {}
            }
        }
    }
}

struct Worker {
    app: Arc<App>,
    /// The rotations whose last step failed.
    failing: HashMap<Uuid, Failed>,
    /// What the rotation of a compromised term leaves out.
    damage: HashMap<Uuid, Damage>,
    rewraps: root::Watch,
}

/// How the last steps of a rotation failed.
#[derive(Default)]
struct Failed {
    said: Failing,
    /// What stands in its row.
    noted: Option<String>,
}

impl Worker {
    /// One turn of each open rotation.
    async fn pass(&mut self, stop: &watch::Receiver<bool>) -> Result<Turn, Failure> {
        self.rewraps.look(&self.app).await?;
        let open = {
            let mut connection = self.app.store.reader().await?;
            open_rotations(&mut connection).await?
        };
        // Another server may have finished the others.
        let ids: HashSet<Uuid> = open.iter().map(|(row, _)| row.claimed(|row| row.id)).collect();
        self.failing.retain(|id, _| ids.contains(id));
        self.damage.retain(|id, _| ids.contains(id));
        let mut moved = Turn::Waits;
        for (row, progress) in open {
            if *stop.borrow() {
                return Ok(Turn::Waits);
            }
            let id = row.claimed(|row| row.id);
            let outcome = self.turn(row, &progress).await;
            match outcome {
                Ok(Turn::Moved) => {
                    self.failing.remove(&id);
                    moved = Turn::Moved;
                }
                Ok(Turn::Waits) => self.waits(id).await?,
                Err(failure) => self.failed(id, &failure).await?,
            }
        }
        Ok(moved)
    }

    async fn turn(&mut self, row: Unverified<RotationRow>, progress: &Progress) -> Result<Turn, Failure> {
        let app = &*self.app;
        let id = row.claimed(|row| row.id);
        // A newer generation than this server has followed is found out there: the row stays.
        let Ok(row) = app.verify_current(row) else { return refuse(app, id).await };
        match row.kind {
            RotationKind::Root => root::turn(app, &row).await,
            RotationKind::Term if row.compromised => {
                compromised::turn(app, &row, progress, self.damage.entry(id).or_default()).await
            }
            RotationKind::Term => term::turn(app, &row, progress).await,
            RotationKind::ProjectKey => project_key::turn(app, &row, progress).await,
            RotationKind::Shred => shred::turn(app, &row).await,
        }
    }

    /// Says each failure once, and notes the last one. The step's transaction may still be on its way back; then it is noted the next time.
    async fn failed(&mut self, id: Uuid, failure: &Failure) -> Result<(), Failure> {
        let text = match failure {
            Failure::Internal(error) => format!("{error:#}"),
            other => other.to_string(),
        };
        let failed = self.failing.entry(id).or_default();
        if failed.said.is_new(&text) {
            if let Failure::Integrity(_) = failure {
                metrics::counter!(names::INTEGRITY).increment(1);
            }
            tracing::error!(rotation = %id, error = text, "a step of a rotation failed; it is tried again");
        }
        if failed.noted.as_ref() != Some(&text) && note(&self.app, id, Some(&text)).await? {
            failed.noted = Some(text);
        }
        Ok(())
    }

    /// Strikes out a failure that has passed, where the rotation only waits now.
    async fn waits(&mut self, id: Uuid) -> Result<(), Failure> {
        if self.failing.contains_key(&id) && note(&self.app, id, None).await? {
            self.failing.remove(&id);
        }
        Ok(())
    }
}

async fn note(app: &App, id: Uuid, failure: Option<&str>) -> Result<bool, Failure> {
    let mut transaction = app.store.begin().await?;
    let noted = note_failure(transaction.connection(), id, failure).await?;
    transaction.commit().await?;
    Ok(noted)
}

/// Removes a rotation that this instance did not write, or wrote by a row key that is not in use any more: it is not done, and an alarm. Nothing is left of it
/// that a backup would stumble over; the event says what it claimed to be.
async fn refuse(app: &App, id: Uuid) -> Result<Turn, Failure> {
    // Before the row: it is at least as new.
    let keyring = app.keyring();
    let mut transaction = app.store.begin().await?;
    let Some((row, _)) = claim_rotation(transaction.connection(), id).await? else { return Ok(Turn::Waits) };
    let claimed = row.claimed(resource);
    if row.generation() >= keyring.row_generation() && keyring.verify_row(row).is_ok() {
        // It was authenticated anew: this server has not followed yet, or did so meanwhile.
        return Ok(Turn::Waits);
    }
    delete_rotation(transaction.connection(), id).await?;
    let origin = Origin { request_id: id, source: None };
    let mut event = app.event(origin, None, Action::Rotate, Decision::Undecided, "integrity");
    event.resource = Some(claimed.clone());
    app.record(&mut transaction, event).await?;
    transaction.commit().await?;
    metrics::counter!(names::INTEGRITY).increment(1);
    tracing::error!(rotation = %id, claimed, "a rotation was not written by this instance, or was changed since; it is removed and not done");
    Ok(Turn::Moved)
}

/// Ends a rotation that has nothing to do any more: what it makes was made, or what it is about is gone.
async fn finish(app: &App, row: &Verified<RotationRow>) -> Result<Turn, Failure> {
    let Some(mut step) = Step::claim(app, row.id).await? else { return Ok(Turn::Waits) };
    step.finish().await?;
    step.commit(None).await?;
    Ok(Turn::Moved)
}
