//! What a running server does without being asked: it follows the access rows and the keyring, says that it lives, keeps the anchor, and checks from time to time
//! that the rows still are what their manifests say.

use crate::{
    access::{Access, check_everything},
    anchor::Checkpoint,
    app::{App, Origin},
    failure::{Failure, alarm},
    metrics as names,
};
use std::{sync::Arc, time::Duration};
use strongroom_core::{Action, Decision};
use strongroom_store::{beat, leave, manifests, revision, try_duty};
use time::OffsetDateTime;
use tokio::{
    sync::watch,
    time::{Instant, interval, timeout},
};
use uuid::Uuid;

/// How often the access rows' revision is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// How often a server says that it lives, at least.
const BEAT: Duration = Duration::from_secs(5);
/// How long the root key's provider is waited for before this server says again that it lives.
const COMPLETE: Duration = Duration::from_secs(2);
/// A server that was not seen for so long is forgotten.
const FORGET: time::Duration = time::Duration::minutes(10);
/// How often everything is checked, by one server for all.
const CHECK_EVERY: Duration = Duration::from_mins(5);
/// The duty of that check.
const CHECK_DUTY: i32 = 1;

/// Follows until the server stops.
pub(crate) async fn follow(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let mut follower = Follower {
        id: Uuid::now_v7(),
        started_at: app.clock.now(),
        beat_at: None,
        epoch: 0,
        lacks_keys: false,
        anchored: None,
        checked_at: Instant::now(),
        app,
    };
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            biased;
            () = crate::serve::stopped(&mut stop) => return follower.leave().await,
            _ = ticks.tick() => {}
        }
        match follower.step().await {
            Ok(()) => failing = false,
            // Once an outage, not twice a second.
            Err(failure) if failing => tracing::debug!(error = %failure, "still cannot follow"),
            Err(failure) => {
                failing = true;
                if let Failure::Integrity(_) = failure {
                    metrics::counter!(names::INTEGRITY).increment(1);
                    leave_event(&follower.app, "instance".to_owned(), &failure).await;
                }
                tracing::error!(error = %failure, "cannot follow the access rows");
            }
        }
    }
}

struct Follower {
    app: Arc<App>,
    id: Uuid,
    started_at: OffsetDateTime,
    beat_at: Option<Instant>,
    /// The instance's manifest that was said last.
    epoch: i64,
    /// Whether new keys wait for the root key's provider.
    lacks_keys: bool,
    /// The revision that was anchored last.
    anchored: Option<i64>,
    checked_at: Instant,
}

impl Follower {
    async fn step(&mut self) -> Result<(), Failure> {
        self.app.access.forget_unused(Instant::now().into_std());
        let now = {
            let mut connection = self.app.store.reader().await?;
            let access = Access::now(&self.app, &mut connection, None).await?;
            let epoch = access.instance.manifest().epoch;
            let row = revision(&mut connection)
                .await?
                .ok_or_else(|| Failure::Integrity("the access revision is missing".to_owned()))?;
            (epoch, self.app.verify(row)?.revision)
        };
        let (epoch, revision) = now;
        let epoch = if self.complete().await? { epoch } else { self.epoch };
        if epoch != self.epoch || self.beat_at.is_none_or(|at| at.elapsed() >= BEAT) {
            let now = self.app.clock.now();
            let mut transaction = self.app.store.begin().await?;
            beat(transaction.connection(), self.id, self.started_at, now, epoch, now - FORGET).await?;
            transaction.commit().await?;
            (self.epoch, self.beat_at) = (epoch, Some(Instant::now()));
        }
        if self.anchored != Some(revision) && self.app.anchor.is_some() {
            write_anchor(&self.app, false).await?;
            self.anchored = Some(revision);
        }
        if self.checked_at.elapsed() >= CHECK_EVERY {
            self.checked_at = Instant::now();
            self.check().await?;
        }
        Ok(())
    }

    /// Opens keys that are not in use yet. `false` while the root key's provider is away: this server has not followed until then, and rotations wait for it.
    async fn complete(&mut self) -> Result<bool, Failure> {
        let outcome = timeout(COMPLETE, self.app.keys.complete()).await;
        let outcome = outcome.unwrap_or(Err(Failure::Unavailable("the root key's provider, which is slow,")));
        let complete = match outcome {
            Ok(()) => true,
            Err(Failure::Unavailable(_)) => false,
            Err(other) => return Err(other),
        };
        if !complete && !self.lacks_keys {
            tracing::warn!("new keys wait for the root key's provider; this server serves on by those it has");
        }
        self.lacks_keys = !complete;
        Ok(complete)
    }

    /// Says that this server is gone, so that no rotation waits for it. Where that fails, it waits until the server was not seen for a while.
    async fn leave(&self) {
        let left = async {
            let mut transaction = self.app.store.begin().await?;
            leave(transaction.connection(), self.id).await?;
            transaction.commit().await
        };
        if let Err(error) = left.await {
            tracing::debug!(error = %error, "the row of this server stays behind");
        }
    }

    async fn check(&self) -> Result<(), Failure> {
        let mut transaction = self.app.store.begin().await?;
        if !try_duty(transaction.connection(), CHECK_DUTY).await? {
            return Ok(());
        }
        let survey = check_everything(&self.app, transaction.connection()).await?;
        drop(transaction);
        for (project, damage) in &survey.damaged {
            alarm(damage, "checking everything");
            leave_event(&self.app, format!("{project}/"), damage).await;
        }
        tracing::debug!(
            scopes = survey.scopes,
            damaged = survey.damaged.len(),
            "all access rows were compared with their manifests"
        );
        Ok(())
    }
}

/// Writes what the manifests are now into the anchor. With `force` whatever stands there is written over.
///
/// # Errors
/// [`Failure::Integrity`] when the database is older than the anchor, or lacks a manifest that stands in it: then the anchor stays, for it is the evidence.
pub(crate) async fn write_anchor(app: &App, force: bool) -> Result<(), Failure> {
    let Some(place) = &app.anchor else { return Ok(()) };
    let away = |error: anyhow::Error| {
        metrics::gauge!(names::ANCHOR_FAILING).set(1.0);
        tracing::error!(
            error = format!("{error:#}"),
            "the anchor cannot be written; a rollback from now on would not be noticed"
        );
        Failure::Unavailable("the anchor's place")
    };
    let mac = app.keyring();
    let mac = mac.keyring_mac();
    // Before the manifests: whatever another server wrote here, the database has it already.
    let standing = if force { None } else { place.read().await.map_err(away)? };
    let standing = standing.map(|text| Checkpoint::open(&text, mac)).transpose()?;
    let (instance, rows) = {
        let mut connection = app.store.reader().await?;
        let instance = Access::now(app, &mut connection, None).await?.instance;
        (instance, app.verify_all(manifests(&mut connection).await?)?)
    };
    let rows: Vec<_> = rows.iter().map(|row| &**row).collect();
    let checkpoint = Checkpoint::new(app.instance.id.0, app.clock.now(), rows.iter().copied());
    if let Some(standing) = standing {
        standing
            .check(app.instance.id.0, &rows, |project| instance.is_buried(project))
            .map_err(|disagreement| Failure::Integrity(disagreement.to_string()))?;
        if standing.manifests == checkpoint.manifests {
            return Ok(());
        }
    }
    let written = place.write(&checkpoint, mac).await;
    metrics::gauge!(names::ANCHOR_FAILING).set(if written.is_ok() { 0.0 } else { 1.0 });
    written.map_err(away)
}

async fn leave_event(app: &App, resource: String, failure: &Failure) {
    let origin = Origin { request_id: Uuid::now_v7(), source: None };
    let mut event = app.event(origin, None, Action::Verify, Decision::Undecided, failure.code().as_str());
    event.resource = Some(resource);
    // The log has it, whether or not the event can be written.
    let _ = app.audit.commit(event).await;
}
