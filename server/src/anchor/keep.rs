//! Keeping the anchor: compared at each start, written after each change.

use super::{AnchorPlace, Checkpoint, Disagreement, PlaceError};
use crate::{
    access::{ATTEMPTS, Access, Manifests, branch, verified_manifests},
    app::{App, Origin},
    failure::Failure,
    metrics as names,
    operations::revision,
    root::Waiting,
};
use anyhow::Context as _;
use std::collections::BTreeSet;
use strongroom_core::{Action, Decision, ProjectId};
use strongroom_crypto::Keyring;
use strongroom_store::{InstanceKind, ManifestScope, manifest};
use uuid::Uuid;

/// From when on it is said that the anchor will not fit any more.
const ALMOST: f64 = 0.8;

/// Refuses a database that is older than its anchor or of another branch, unless told otherwise. Where there is no anchor yet, it is made. A place that is away
/// is waited for, for as long as it takes.
pub(crate) async fn check_anchor(app: &App, accept_older: bool) -> anyhow::Result<()> {
    let Some(place) = &app.anchor else {
        if app.instance.kind == InstanceKind::Production {
            tracing::warn!("no anchor is configured: a rollback of the whole database would not be noticed");
        }
        return Ok(());
    };
    let mut waiting = Waiting::new("the anchor");
    loop {
        let text = match place.read().await {
            Err(away @ PlaceError::Away { .. }) => {
                waiting.pause(&format!("{:#}", anyhow::Error::new(away))).await;
                continue;
            }
            read => read?,
        };
        let Some(text) = text else {
            tracing::warn!(place = %place, "there is no anchor yet; it is made from what the database says now");
            return write_anchor(app).await.map(drop);
        };
        note_fullness(place, place.fullness(text.len()), 0.0);
        let found = Found::now(app).await?;
        let (disagreement, highest) = match Checkpoint::open(&text, app.keyring().keyring_mac()) {
            Ok(checkpoint) => {
                let mut disagreements = found.disagreements(app, &checkpoint).into_iter();
                let Some(first) = disagreements.next() else { return Ok(()) };
                let first = anyhow::Error::new(first);
                let disagreement = match disagreements.len() {
                    0 => first,
                    more => first.context(format!("the anchor disagrees with {} scopes; the first", more + 1)),
                };
                (disagreement, checkpoint.highest())
            }
            // Written by a key that this database does not have yet, where it is from before a compromised term was replaced. What it says is not believed.
            Err(not_ours) => (anyhow::Error::new(not_ours), 0),
        };
        // Another instance's is written over by no word.
        if !accept_older || Checkpoint::claimed_instance(&text) != Some(app.instance.id.0) {
            return Err(disagreement);
        }
        if accept(app, place, highest, &found, &disagreement).await? {
            return Ok(());
        }
    }
}

/// Takes a database that disagrees with its anchor, as told: begins a branch, so that what was left behind is never taken for newer, and audits that. `false`
/// where the database is another by now than the one that was looked at.
async fn accept(
    app: &App,
    place: &AnchorPlace,
    beyond: i64,
    found: &Found,
    disagreement: &anyhow::Error,
) -> anyhow::Result<bool> {
    let mut transaction = app.store.begin().await?;
    revision::advance(app, transaction.connection()).await?;
    let standing = manifest(transaction.connection(), ManifestScope::Instance).await?;
    let looked_at = found.access.instance.manifest();
    if !standing.is_some_and(|row| row.claimed(|row| row == &**looked_at)) {
        return Ok(false);
    }
    tracing::warn!(disagreement = format!("{disagreement:#}"), "accepted, as told");
    let (keyring, now) = (app.keyring(), app.clock.now());
    let begun = branch::begin(&keyring, transaction.connection(), beyond, now).await?;
    let origin = Origin { request_id: Uuid::now_v7(), source: None };
    let mut event = app.event(origin, None, Action::Verify, Decision::Allowed, "older-database-accepted");
    event.resource = Some("instance".to_owned());
    app.record(&mut transaction, event).await?;
    // Before the commit: another start that was told the same waits for the lock, and must find an anchor that agrees with what it finds then.
    // Of a damaged project nothing is anchored any more, or the next start would be refused again.
    let is_damaged =
        |scope| matches!(scope, ManifestScope::Project(project) if found.manifests.damaged.contains_key(&project));
    let anchored = begun.iter().filter(|row| !is_damaged(row.scope));
    place.write(&Checkpoint::new(app.instance.id.0, now, anchored), &keyring).await?;
    transaction.commit().await?;
    app.access.forget();
    Ok(true)
}

/// Writes what the manifests are now into the anchor. Of projects that disagree with it, which are answered, what it says stays: it is the evidence.
///
/// # Errors
/// [`Disagreement`] where the instance itself is older than the anchor or of another branch: then all of it stays.
pub(crate) async fn write_anchor(app: &App) -> anyhow::Result<Vec<Disagreement>> {
    let outcome = try_write(app).await;
    let agrees = outcome.as_ref().is_ok_and(Vec::is_empty);
    metrics::gauge!(names::ANCHOR_FAILING).set(if agrees { 0.0 } else { 1.0 });
    outcome
}

async fn try_write(app: &App) -> anyhow::Result<Vec<Disagreement>> {
    let Some(place) = &app.anchor else { return Ok(Vec::new()) };
    let away = "the anchor cannot be kept; a rollback from now on would not be noticed";
    // Before the manifests and the keyring: whatever another server wrote here, the database has it already, the key that it was written by too.
    let text = place.read().await.context(away)?;
    let found = Found::now(app).await?;
    let keyring = app.keyring();
    let mut checkpoint = Checkpoint::new(app.instance.id.0, app.clock.now(), &found.manifests.sound);
    let mut disagreements = Vec::new();
    if let Some(text) = &text {
        let standing = Checkpoint::open(text, keyring.keyring_mac())?;
        disagreements = found.disagreements(app, &standing);
        if let Some(whole) = disagreements.iter().find(|disagreement| disagreement.project().is_none()) {
            return Err(whole.clone().into());
        }
        let disagreeing: BTreeSet<_> = disagreements.iter().filter_map(Disagreement::project).collect();
        checkpoint.keep(&standing, |project| {
            let project = ProjectId(project);
            disagreeing.contains(&project) || found.access.instance.is_quarantined(project)
        });
        if standing.manifests == checkpoint.manifests && is_sealed_by_next(text, &keyring) {
            return Ok(disagreements);
        }
    }
    let before = text.map_or(0.0, |text| place.fullness(text.len()));
    let fullness = place.write(&checkpoint, &keyring).await.context(away)?;
    note_fullness(place, fullness, before);
    Ok(disagreements)
}

/// Sees to it that the anchor, as it stands, goes on being this instance's own when the next key authenticates the keyring's rows.
pub(crate) async fn seal_anchor_by_next(app: &App) -> Result<(), Failure> {
    let Some(place) = &app.anchor else { return Ok(()) };
    let away = |error: PlaceError| {
        let error = format!("{:#}", anyhow::Error::new(error));
        tracing::error!(error, "the anchor cannot be written; no key is replaced before it can");
        Failure::Unavailable("the anchor's place")
    };
    let Some(text) = place.read().await.map_err(away)? else { return Ok(()) };
    let keyring = app.keyring();
    match Checkpoint::open(&text, keyring.keyring_mac()) {
        Ok(checkpoint) if !is_sealed_by_next(&text, &keyring) => {
            place.write(&checkpoint, &keyring).await.map(drop).map_err(away)
        }
        // One that is not ours is left as it is: the next start says so.
        _ => Ok(()),
    }
}

/// Whether an anchor's text has a MAC by the next key, where there is one.
fn is_sealed_by_next(text: &str, keyring: &Keyring) -> bool {
    keyring.next_keyring_mac().is_none_or(|next| Checkpoint::open(text, next).is_ok())
}

/// What the database says, all of one moment.
struct Found {
    access: Access,
    manifests: Manifests,
}

impl Found {
    async fn now(app: &App) -> Result<Self, Failure> {
        let mut connection = app.store.reader().await?;
        for _ in 0..ATTEMPTS {
            let access = Access::now(app, &mut connection, None).await?;
            if let Some(manifests) = verified_manifests(app, &mut connection, &access.instance).await? {
                return Ok(Self { access, manifests });
            }
        }
        Err(Failure::Unavailable("the access rows, which change all the time,"))
    }

    fn disagreements(&self, app: &App, checkpoint: &Checkpoint) -> Vec<Disagreement> {
        let is_gone = |project| self.access.instance.is_left_out(project);
        checkpoint.disagreements(app.instance.id.0, &self.manifests, is_gone)
    }
}

fn note_fullness(place: &AnchorPlace, now: f64, before: f64) {
    metrics::gauge!(names::ANCHOR_FULLNESS).set(now);
    if now > ALMOST && before <= ALMOST {
        tracing::warn!(
            place = %place,
            percent = (now * 100.0).round(),
            "the anchor fills its place: once it does not fit, changes are not anchored any more. A file (anchor.file) takes more than a ConfigMap"
        );
    }
}
