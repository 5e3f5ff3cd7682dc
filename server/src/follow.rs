//! What a running server does without being asked: it follows the access rows and the keyring, says that it lives, keeps the anchor, and checks from time to time
//! that the rows still are what their manifests say.

use crate::{
    access::{Access, check_everything},
    anchor::{Disagreement, write_anchor},
    app::{App, Origin},
    failing::Failing,
    failure::{Failure, alarm},
    metrics as names,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use strongroom_api::ErrorCode;
use strongroom_core::{Action, Decision, ProjectName};
use strongroom_store::{beat, leave, revision, try_duty};
use time::OffsetDateTime;
use tokio::{
    sync::watch,
    time::{Instant, interval_at, timeout},
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
/// The duty of checking everything: each server has its turn, but not while another is at it.
const CHECK_DUTY: i32 = 1;

/// Follows until the server stops.
pub(crate) async fn follow(app: Arc<App>, stop: watch::Receiver<bool>) {
    let beating =
        Beating { id: Uuid::now_v7(), started_at: app.clock.now(), beat_at: None, epoch: 0, lacks_keys: false };
    tokio::join!(
        repeat(&app, Duty::Beat(beating), stop.clone()),
        repeat(&app, Duty::Anchor(Anchoring::default()), stop.clone()),
        repeat(&app, Duty::Check(Checking::default()), stop),
    );
}

/// What a server does by itself. Each goes on by itself, so that what keeps one waiting or failing neither keeps nor hides another.
enum Duty {
    Beat(Beating),
    Anchor(Anchoring),
    Check(Checking),
}

async fn repeat(app: &App, mut duty: Duty, mut stop: watch::Receiver<bool>) {
    let (first, every) = match duty {
        Duty::Beat(_) | Duty::Anchor(_) => (Duration::ZERO, EVERY),
        Duty::Check(_) => (app.check_every, app.check_every),
    };
    let mut ticks = interval_at(Instant::now() + first, every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = Failing::default();
    loop {
        tokio::select! {
            biased;
            () = crate::serve::stopped(&mut stop) => break,
            _ = ticks.tick() => {}
        }
        match duty.step(app).await {
            Ok(()) => failing.ends(),
            Err(error) => {
                let text = format!("{error:#}");
                let disagreement: Option<&Disagreement> = error.downcast_ref();
                // Once an outage, not twice a second; and a disagreement once, whatever its epochs are meanwhile.
                if !failing.is_new(&disagreement.map_or_else(|| text.clone(), Disagreement::key)) {
                    tracing::debug!(error = text, "{}, still", duty.failed());
                    continue;
                }
                tracing::error!(error = text, "{}", duty.failed());
                if disagreement.is_some() || matches!(error.downcast_ref(), Some(Failure::Integrity(_))) {
                    metrics::counter!(names::INTEGRITY).increment(1);
                    leave_event(app, "instance".to_owned()).await;
                }
            }
        }
    }
    if let Duty::Beat(beating) = duty {
        beating.leave(app).await;
    }
}

impl Duty {
    async fn step(&mut self, app: &App) -> anyhow::Result<()> {
        match self {
            Self::Beat(beating) => Ok(beating.step(app).await?),
            Self::Anchor(anchoring) => anchoring.step(app).await,
            Self::Check(checking) => Ok(checking.step(app).await?),
        }
    }

    fn failed(&self) -> &'static str {
        match self {
            Self::Beat(_) => "cannot follow the access rows",
            Self::Anchor(_) => "cannot keep the anchor",
            Self::Check(_) => "cannot check the access rows, or they do not stand it",
        }
    }
}

struct Beating {
    id: Uuid,
    started_at: OffsetDateTime,
    beat_at: Option<Instant>,
    /// The instance's manifest that was said last.
    epoch: i64,
    /// Whether new keys wait for the root key's provider.
    lacks_keys: bool,
}

#[derive(Default)]
struct Anchoring {
    /// The revision that was anchored last, whether by the next key of the keyring's rows too, and when.
    anchored: Option<(i64, bool, Instant)>,
    /// What was said of projects that disagree with the anchor: each disagreement once, for as long as it lasts.
    said: BTreeSet<String>,
}

impl Anchoring {
    async fn step(&mut self, app: &App) -> anyhow::Result<()> {
        if app.anchor.is_none() {
            return Ok(());
        }
        let row = {
            let mut connection = app.store.reader().await?;
            revision(&mut connection).await?
        };
        let row = row.ok_or_else(|| Failure::Integrity("the access revision is missing".to_owned()))?;
        let revision = app.verify(row)?.revision;
        // What somebody sets back changes no revision: the anchor is compared from time to time all the same.
        let by_next = app.keyring().next_keyring_mac().is_some();
        let holds = |(anchored, was_by_next, at): (i64, bool, Instant)| {
            (anchored, was_by_next) == (revision, by_next) && at.elapsed() < app.check_every
        };
        if !self.anchored.is_some_and(holds) {
            let disagreements = write_anchor(app).await?;
            self.anchored = Some((revision, by_next, Instant::now()));
            self.say(app, &disagreements).await;
        }
        Ok(())
    }

    async fn say(&mut self, app: &App, disagreements: &[Disagreement]) {
        let said = std::mem::take(&mut self.said);
        for disagreement in disagreements {
            let key = disagreement.key();
            if !said.contains(&key) {
                alarm(&Failure::Integrity(disagreement.to_string()), "keeping the anchor");
                leave_event(app, resource_of(app, disagreement)).await;
            }
            self.said.insert(key);
        }
    }
}

impl Beating {
    async fn step(&mut self, app: &App) -> Result<(), Failure> {
        app.access.forget_unused(Instant::now().into_std());
        let epoch = {
            let mut connection = app.store.reader().await?;
            Access::now(app, &mut connection, None).await?.instance.manifest().epoch
        };
        let epoch = if self.complete(app).await? { epoch } else { self.epoch };
        if epoch != self.epoch || self.beat_at.is_none_or(|at| at.elapsed() >= BEAT) {
            let now = app.clock.now();
            let mut transaction = app.store.begin().await?;
            beat(transaction.connection(), self.id, self.started_at, now, epoch, now - FORGET).await?;
            transaction.commit().await?;
            (self.epoch, self.beat_at) = (epoch, Some(Instant::now()));
        }
        Ok(())
    }

    /// Opens keys that are not in use yet. `false` while the root key's provider is away: this server has not followed until then, and rotations wait for it.
    async fn complete(&mut self, app: &App) -> Result<bool, Failure> {
        let outcome = timeout(COMPLETE, app.keys.complete()).await;
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
    async fn leave(&self, app: &App) {
        let left = async {
            let mut transaction = app.store.begin().await?;
            leave(transaction.connection(), self.id).await?;
            transaction.commit().await
        };
        if let Err(error) = left.await {
            tracing::debug!(error = %error, "the row of this server stays behind");
        }
    }
}

/// What was said of damaged projects: each damage once, for as long as it lasts.
#[derive(Default)]
struct Checking {
    said: BTreeMap<ProjectName, String>,
}

impl Checking {
    async fn step(&mut self, app: &App) -> Result<(), Failure> {
        let mut transaction = app.store.begin().await?;
        if !try_duty(transaction.connection(), CHECK_DUTY).await? {
            return Ok(());
        }
        let survey = check_everything(app, transaction.connection()).await?;
        drop(transaction);
        let said = std::mem::take(&mut self.said);
        for (project, damage) in &survey.damaged {
            let text = damage.to_string();
            if said.get(project) != Some(&text) {
                alarm(damage, "checking everything");
                leave_event(app, format!("{project}/")).await;
            }
            self.said.insert(project.clone(), text);
        }
        tracing::debug!(
            scopes = survey.scopes,
            damaged = survey.damaged.len(),
            "all access rows were compared with their manifests"
        );
        Ok(())
    }
}

/// The project that disagrees, where the instance knows it.
fn resource_of(app: &App, disagreement: &Disagreement) -> String {
    let instance = app.access.instance_kept();
    let project = instance
        .as_ref()
        .and_then(|instance| instance.projects().find(|project| disagreement.project() == Some(project.id)));
    project.map_or_else(|| "instance".to_owned(), |project| format!("{}/", project.name))
}

/// Leaves an event that rows are not what was written.
async fn leave_event(app: &App, resource: String) {
    let origin = Origin { request_id: Uuid::now_v7(), source: None };
    let mut event = app.event(origin, None, Action::Verify, Decision::Undecided, ErrorCode::Integrity.as_str());
    event.resource = Some(resource);
    // The log has it, whether or not the event can be written.
    let _ = app.audit.commit(event).await;
}
