//! One step of a rotation: one transaction.

use crate::{
    access::{Access, Ledger},
    app::{App, Origin},
    failure::Failure,
    operations::revision,
};
use strongroom_core::{Action, Decision, ProjectName, Verified};
use strongroom_store::{
    Connection, Progress, RotationKind, RotationRow, Transaction, claim_rotation, live_replicas, prune_rotations,
    update_progress,
};
use uuid::Uuid;

/// How many finished rotations are kept.
pub(super) const KEPT: i64 = 100;

/// A server that was not seen for so long is not waited for.
const ALIVE: time::Duration = time::Duration::seconds(15);

/// A step under way; dropped, it never happened.
#[must_use]
pub(super) struct Step<'a> {
    app: &'a App,
    transaction: Transaction,
    row: Verified<RotationRow>,
    /// How far the rotation came.
    pub(super) progress: Progress,
    /// What it could not do, for whoever looks.
    pub(super) failure: Option<String>,
}

impl<'a> Step<'a> {
    /// Takes a rotation until the transaction ends; `None` where another server has it, or it is finished.
    pub(super) async fn claim(app: &'a App, id: Uuid) -> Result<Option<Self>, Failure> {
        Self::claim_in(app, app.store.begin().await?, id).await
    }

    /// The same in a transaction that took other locks first.
    pub(super) async fn claim_in(
        app: &'a App,
        mut transaction: Transaction,
        id: Uuid,
    ) -> Result<Option<Self>, Failure> {
        let Some((row, progress)) = claim_rotation(transaction.connection(), id).await? else { return Ok(None) };
        let row = app.verify(row)?;
        Ok(Some(Self { app, transaction, row, progress, failure: None }))
    }

    /// The connection to work on.
    pub(super) fn connection(&mut self) -> &mut Connection {
        self.transaction.connection()
    }

    /// Takes the lock under which access rows change, and says what stands.
    pub(super) async fn lock(&mut self, project: Option<&ProjectName>) -> Result<(Access, Ledger), Failure> {
        revision::advance(self.app, self.transaction.connection()).await?;
        let access = Access::now(self.app, self.transaction.connection(), project).await?;
        let ledger = Ledger::new(&access);
        Ok((access, ledger))
    }

    /// Says which stage it is in now. A new one leaves an event.
    pub(super) async fn stage(&mut self, stage: &'static str) -> Result<(), Failure> {
        if self.progress.stage == stage {
            return Ok(());
        }
        stage.clone_into(&mut self.progress.stage);
        let origin = Origin { request_id: self.row.id, source: None };
        let mut event = self.app.event(origin, None, Action::Rotate, Decision::Allowed, stage);
        event.resource = Some(resource(&self.row));
        tracing::info!(rotation = %self.row.id, kind = self.row.kind.as_str(), stage, "a rotation goes on");
        self.app.record(&mut self.transaction, event).await
    }

    /// Says that all is done.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        self.stage("finished").await?;
        self.progress.finished_at = Some(self.app.clock.now());
        Ok(())
    }

    /// Writes the manifests and how far it came, and commits.
    pub(super) async fn commit(mut self, ledger: Option<Ledger>) -> Result<(), Failure> {
        if let Some(ledger) = ledger {
            ledger.write(self.app, self.transaction.connection()).await?;
        }
        self.progress.failure = self.failure.take();
        self.progress.updated_at = self.app.clock.now();
        update_progress(self.transaction.connection(), self.row.id, &self.progress).await?;
        if self.progress.finished_at.is_some() {
            prune_rotations(self.transaction.connection(), KEPT).await?;
        }
        Ok(self.transaction.commit().await?)
    }
}

/// What a rotation is about, as events name it.
pub(crate) fn resource(row: &RotationRow) -> String {
    match (row.kind, row.project) {
        (RotationKind::Term, _) => format!("keys/term/{}", row.target),
        (RotationKind::ProjectKey, Some(project)) => format!("keys/project/{}/{}", project.0, row.target),
        (RotationKind::Shred, Some(project)) => format!("keys/project/{}", project.0),
        _ => "keys/root".to_owned(),
    }
}

/// Whether every server that is alive has read its keyring at this manifest of the instance or a later one.
pub(super) async fn all_have_followed(app: &App, epoch: i64) -> Result<bool, Failure> {
    let mut connection = app.store.reader().await?;
    let (_, lowest) = live_replicas(&mut connection, app.clock.now() - ALIVE).await?;
    // No server at all would be strange: this one lives.
    Ok(lowest.is_some_and(|lowest| lowest >= epoch))
}
