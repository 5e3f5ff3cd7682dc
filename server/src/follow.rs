//! What a running server does without being asked: it follows the access rows and the keyring, says that it lives, keeps the anchor, and checks from time to time
//! that the rows still are what their manifests say.

use crate::{
    access::{Access, check_everything, verified_manifests},
    anchor::Checkpoint,
    app::{App, Origin},
    failure::Failure,
    metrics as names,
};
use std::{sync::Arc, time::Duration};
use strongroom_core::{Action, Decision, ProjectId};
use strongroom_crypto::Keyring;
use strongroom_store::{beat, leave, revision, try_duty};
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
                    leave_event(&follower.app, &failure).await;
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
    /// The revision that was anchored last, and whether by the next key of the keyring's rows too.
    anchored: Option<(i64, bool)>,
    checked_at: Instant,
}

impl Follower {
    async fn step(&mut self) -> Result<(), Failure> {
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
        let state = (revision, self.app.keyring().next_keyring_mac().is_some());
        if self.anchored != Some(state) && self.app.anchor.is_some() {
            write_anchor(&self.app, false).await?;
            self.anchored = Some(state);
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
        let scopes = check_everything(&self.app, transaction.connection()).await?;
        tracing::debug!(scopes, "all access rows fit their manifests");
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
    // Before the manifests and the keyring: whatever another server wrote here, the database has it already, the key that it was written by too.
    let standing = if force { None } else { place.read().await.map_err(away)? };
    let (instance, rows) = {
        let mut connection = app.store.reader().await?;
        let instance = Access::now(app, &mut connection, None).await?.instance;
        let rows = verified_manifests(app, &mut connection, &instance).await?;
        (instance, rows)
    };
    let keyring = app.keyring();
    let standing = match standing {
        Some(text) => Some((Checkpoint::open(&text, keyring.keyring_mac())?, text)),
        None => None,
    };
    let rows: Vec<_> = rows.iter().map(|row| &**row).collect();
    let mut checkpoint = Checkpoint::new(app.instance.id.0, app.clock.now(), rows.iter().copied());
    if let Some((standing, text)) = standing {
        standing
            .check(app.instance.id.0, &rows, |project| instance.is_left_out(project))
            .map_err(|disagreement| Failure::Integrity(disagreement.to_string()))?;
        checkpoint.keep(&standing, |project| instance.is_quarantined(ProjectId(project)));
        if standing.manifests == checkpoint.manifests && is_sealed_by_next(&text, &keyring) {
            return Ok(());
        }
    }
    let written = place.write(&checkpoint, &keyring).await;
    metrics::gauge!(names::ANCHOR_FAILING).set(if written.is_ok() { 0.0 } else { 1.0 });
    written.map_err(away)
}

/// Sees to it that the anchor, as it stands, goes on being this instance's own when the next key authenticates the keyring's rows.
pub(crate) async fn seal_anchor_by_next(app: &App) -> Result<(), Failure> {
    let Some(place) = &app.anchor else { return Ok(()) };
    let away = |error: anyhow::Error| {
        tracing::error!(error = format!("{error:#}"), "the anchor cannot be written; no key is replaced before it can");
        Failure::Unavailable("the anchor's place")
    };
    let Some(text) = place.read().await.map_err(away)? else { return Ok(()) };
    let keyring = app.keyring();
    match Checkpoint::open(&text, keyring.keyring_mac()) {
        Ok(checkpoint) if !is_sealed_by_next(&text, &keyring) => place.write(&checkpoint, &keyring).await.map_err(away),
        // One that is not ours is left as it is: the next start says so.
        _ => Ok(()),
    }
}

/// Whether an anchor's text has a MAC by the next key, where there is one.
fn is_sealed_by_next(text: &str, keyring: &Keyring) -> bool {
    keyring.next_keyring_mac().is_none_or(|next| Checkpoint::open(text, next).is_ok())
}

async fn leave_event(app: &App, failure: &Failure) {
    let origin = Origin { request_id: Uuid::now_v7(), source: None };
    let mut event = app.event(origin, None, Action::Verify, Decision::Undecided, failure.code().as_str());
    event.resource = Some("instance".to_owned());
    // The log has it, whether or not the event can be written.
    let _ = app.audit.commit(event).await;
}
