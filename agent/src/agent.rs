//! The loop: fetch everything, write it, watch for changes, fetch what changed.

use crate::{
    held::Held,
    plan::{ConfigError, Group, Plan},
    render::{Content, render},
    sink::{Output, Sink, SinkError, Storage, Swap},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::Future,
    time::Duration,
};
use strongroom_api::{
    agent::{AgentConfig, FileName},
    watch::{Change, EndReason, Watched},
};
use strongroom_client::{Backoff, Client, Error, ErrorKind, Versioned, WatchEvent, WatchStream};
use strongroom_core::VersionSelector;
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{debug, error, info, instrument, warn};

/// Changes that come within this time of the first are written in one swap with it.
const COALESCE: Duration = Duration::from_millis(20);

/// What is the same for all pods; the defaults are meant for them.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which file systems values may be written to.
    pub storage: Storage,
    /// How often the server is asked although the watch is silent; each time up to a fifth more or less.
    pub poll: Duration,
    /// The waits between tries.
    pub backoff: Backoff,
}

impl Default for Settings {
    fn default() -> Self {
        Self { storage: Storage::MemoryOnly, poll: Duration::from_mins(1), backoff: Backoff::default() }
    }
}

/// Why the agent ended by itself. Once the files are there nothing ends it but its shutdown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The files cannot be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The files could not be had in time.
    #[error("no secrets within {seconds} s: {cause}")]
    Deadline {
        /// The deadline.
        seconds: u32,
        /// What stood in the way last.
        cause: String,
    },
}

/// Runs until `shutdown` is ready; the files stay as they are then.
///
/// # Errors
/// [`RunError`] where the start fails: at once for a configuration or a directory that cannot be used, at the deadline for all else.
pub async fn run(config: AgentConfig, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    run_with(config, Settings::default(), shutdown).await
}

/// [`run`] with other settings.
pub async fn run_with(
    config: AgentConfig,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let agent = Agent::new(Plan::new(config)?, settings)?;
    // Writing files never waits, so a shutdown cannot come in the middle of a swap.
    tokio::select! {
        biased;
        () = shutdown => Ok(()),
        result = agent.run() => match result {
            Ok(never) => match never {},
            Err(error) => Err(error),
        },
    }
}

struct Agent {
    plan: Plan,
    settings: Settings,
    client: Client,
    sink: Sink,
    held: Held,
    /// Groups to fetch as soon as the server can be reached.
    pending: BTreeSet<usize>,
    /// What is wrong and was logged, by group.
    troubles: BTreeMap<usize, String>,
    /// What is wrong with everything and was logged.
    outage: Option<String>,
}

/// Why everything stands still.
enum Failure {
    Server(Error),
    Sink(SinkError),
}

/// Why one group's files stay as they are.
struct Trouble {
    /// The same trouble is logged once.
    kind: String,
    text: String,
}

type Fetched = Vec<(usize, Result<Versioned, Error>)>;

/// Why the agent stopped listening to a watch.
enum Wake {
    Poll,
    Ended(EndReason),
    Failed(Failure),
}

impl Agent {
    fn new(plan: Plan, settings: Settings) -> Result<Self, RunError> {
        let client = plan.client()?;
        let sink = Sink::open(&plan.config.directory, settings.storage)?;
        let mut held = Held::recover(&plan.config, sink.versions()?.as_deref());
        // A version counts as held only where all files that show it are there.
        let keys: Vec<_> = plan
            .groups
            .iter()
            .filter(|group| group.files.iter().all(|file| sink.holds(&file.name)))
            .map(Group::key)
            .collect();
        held.keep_only(keys.iter());
        Ok(Self {
            plan,
            settings,
            client,
            sink,
            held,
            pending: BTreeSet::new(),
            troubles: BTreeMap::new(),
            outage: None,
        })
    }

    async fn run(mut self) -> Result<Infallible, RunError> {
        if self.plan.groups.iter().all(|group| self.held.version(&group.key()) > 0) {
            info!("the files of an earlier run are there; they stay until the server has newer ones");
            self.pending = self.everything();
        } else {
            self.start().await?;
        }
        self.follow().await
    }

    /// Brings all files for the first time, or fails at the deadline.
    #[instrument(skip_all)]
    async fn start(&mut self) -> Result<(), RunError> {
        let seconds = self.plan.config.wait_deadline_seconds;
        let deadline = Instant::now() + Duration::from_secs(seconds.into());
        let mut cause = format!("{} did not answer", self.plan.config.server);
        let mut logged = String::new();
        for attempt in 0.. {
            let Ok(fetched) = timeout_at(deadline, self.fetch(&self.everything())).await else { break };
            let (trouble, asked) = match fetched {
                Ok(fetched) => match self.apply(fetched)? {
                    None => return Ok(()),
                    Some(trouble) => (trouble, Duration::ZERO),
                },
                Err(error) => {
                    (Trouble { kind: kind(&error), text: error.to_string() }, error.retry_after().unwrap_or_default())
                }
            };
            cause = trouble.text;
            if logged != trouble.kind {
                warn!(cause, "no secrets yet; trying again");
                logged = trouble.kind;
            }
            let pause = self.pause(attempt) + asked.min(self.settings.backoff.cap);
            if timeout_at(deadline, sleep(pause)).await.is_err() {
                break;
            }
        }
        Err(RunError::Deadline { seconds, cause })
    }

    /// Keeps the files fresh, for ever.
    #[instrument(skip_all)]
    async fn follow(mut self) -> Result<Infallible, RunError> {
        let mut attempt = 0;
        let mut poll_at = self.next_poll();
        loop {
            if let Err(failure) = self.refresh().await {
                self.report_outage(&failure);
                sleep(self.pause(attempt)).await;
                attempt += 1;
                continue;
            }
            let opened = Instant::now();
            let wake = match self.client.watch(self.watched()).await {
                Ok(mut stream) => self.listen(&mut stream, poll_at).await,
                Err(error) => Wake::Failed(Failure::Server(error)),
            };
            if opened.elapsed() > self.settings.backoff.cap {
                attempt = 0;
            }
            let silent = matches!(wake, Wake::Poll);
            let until = match wake {
                Wake::Poll => Instant::now(),
                Wake::Ended(EndReason::SessionEnded) => Instant::now() + self.pause(attempt),
                Wake::Ended(reason) => {
                    debug!(?reason, "the watch ended; watching again");
                    // Spread over a second at least: a server that stops sends this to all its agents at once.
                    Instant::now() + self.pause(attempt.max(3))
                }
                Wake::Failed(failure) => {
                    self.report_outage(&failure);
                    let lasting = matches!(&failure, Failure::Server(error) if !error.is_retryable());
                    if lasting { poll_at } else { Instant::now() + self.pause(attempt) }
                }
            };
            attempt += 1;
            sleep_until(until.min(poll_at)).await;
            if Instant::now() >= poll_at {
                poll_at = self.next_poll();
                if silent {
                    // Watching anew tells the server what is held, so that it announces whatever the old stream may have lost.
                    attempt = 0;
                } else {
                    // No watch is open: ask for the values themselves.
                    self.pending = self.everything();
                }
            }
        }
    }

    /// Acts on a watch's events until it ends or the poll is due.
    async fn listen(&mut self, stream: &mut WatchStream, poll_at: Instant) -> Wake {
        let mut ended = None;
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = sleep_until(poll_at) => return Wake::Poll,
            };
            self.take_in(event, &mut ended);
            if !self.pending.is_empty() {
                let until = Instant::now() + COALESCE;
                while ended.is_none()
                    && let Ok(event) = timeout_at(until, stream.next()).await
                {
                    self.take_in(event, &mut ended);
                }
                if let Err(failure) = self.refresh().await {
                    return Wake::Failed(failure);
                }
            }
            if let Some(wake) = ended {
                return wake;
            }
        }
    }

    fn take_in(&mut self, event: Option<Result<WatchEvent, Error>>, ended: &mut Option<Wake>) {
        match event {
            Some(Ok(WatchEvent::Change(change))) => {
                self.recovered();
                self.note(&change);
            }
            Some(Ok(WatchEvent::End(end))) => *ended = Some(Wake::Ended(end.reason)),
            Some(Ok(_)) => self.recovered(),
            Some(Err(error)) => *ended = Some(Wake::Failed(Failure::Server(error))),
            None => *ended = Some(Wake::Ended(EndReason::Other)),
        }
    }

    /// Marks what a change concerns, unless it is held already.
    fn note(&mut self, change: &Change) {
        for (index, group) in self.plan.groups.iter().enumerate() {
            let version = group.read.version.to_string();
            let concerned = group.read.path == change.path && change.alias.as_deref().unwrap_or("current") == version;
            if concerned && change.version != self.held.version(&group.key()) {
                debug!(secret = %group.key(), version = change.version, "changed");
                self.pending.insert(index);
            }
        }
    }

    fn watched(&self) -> Vec<Watched> {
        let version =
            |selector: &VersionSelector| (*selector != VersionSelector::Current).then(|| selector.to_string());
        let watched = self.plan.groups.iter().map(|group| Watched {
            path: group.read.path.clone(),
            version: version(&group.read.version),
            held: self.held.version(&group.key()),
        });
        watched.collect()
    }

    /// Fetches and writes what is pending.
    async fn refresh(&mut self) -> Result<(), Failure> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let fetched = self.fetch(&self.pending).await.map_err(Failure::Server)?;
        if let Err(error) = self.apply(fetched) {
            // Whatever happened to the directory: next time all of it is written.
            self.pending = self.everything();
            return Err(Failure::Sink(error));
        }
        self.recovered();
        self.pending.clear();
        Ok(())
    }

    fn everything(&self) -> BTreeSet<usize> {
        (0..self.plan.groups.len()).collect()
    }

    /// Reads these groups. Where one cannot be reached, none can: that is the error; what concerns one secret only is in the list.
    async fn fetch(&self, groups: &BTreeSet<usize>) -> Result<Fetched, Error> {
        let mut fetched = Vec::with_capacity(groups.len());
        for index in groups {
            let result = self.client.read(&self.plan.groups[*index].read).await;
            match result {
                Err(error) if concerns_everything(&error) => return Err(error),
                result => fetched.push((*index, result)),
            }
        }
        Ok(fetched)
    }

    /// Writes what can be written, in one swap. Where something cannot, its files stay as they are, and that is logged once; where it has
    /// none yet, nothing is written and that is the answer.
    fn apply(&mut self, fetched: Fetched) -> Result<Option<Trouble>, SinkError> {
        let (accepted, mut troubles) = self.accept(fetched);
        let missing = troubles.iter().position(|(index, _)| self.held.version(&self.plan.groups[*index].key()) == 0);
        if let Some(missing) = missing {
            return Ok(Some(troubles.swap_remove(missing).1));
        }
        for Accepted { index, .. } in &accepted {
            self.troubles.remove(index);
        }
        for (index, trouble) in troubles {
            if self.troubles.get(&index) != Some(&trouble.kind) {
                warn!(cause = trouble.text, "a secret's files stay as they are");
                self.troubles.insert(index, trouble.kind);
            }
        }
        self.write(accepted)?;
        Ok(None)
    }

    /// Sorts what was fetched into what can be written and what cannot.
    fn accept(&self, fetched: Fetched) -> (Vec<Accepted>, Vec<(usize, Trouble)>) {
        let (mut accepted, mut troubles) = (Vec::new(), Vec::new());
        for (index, result) in fetched {
            let group = &self.plan.groups[index];
            match self.accept_one(group, result) {
                Ok((version, contents)) => accepted.push(Accepted { index, version, contents }),
                Err(trouble) => troubles.push((index, trouble)),
            }
        }
        (accepted, troubles)
    }

    fn accept_one(
        &self,
        group: &Group,
        result: Result<Versioned, Error>,
    ) -> Result<(u64, Vec<(FileName, Content)>), Trouble> {
        let key = group.key();
        let secret = result.map_err(|error| Trouble { kind: kind(&error), text: format!("{key}: {error}") })?;
        let held = self.held.version(&key);
        // A number is a version for ever, and a free alias is moved by people, backwards too where they want that.
        let only_forward = matches!(key.version, VersionSelector::Current | VersionSelector::Previous);
        if only_forward && secret.version < held {
            let text = format!(
                "{key}: the server has version {}, older than {held}, which is held; its database may have been set back",
                secret.version
            );
            return Err(Trouble { kind: "older".to_owned(), text });
        }
        let mut contents = Vec::with_capacity(group.files.len());
        for file in &group.files {
            let content = render(file, &secret.payload).map_err(|error| Trouble {
                kind: error.to_string(),
                text: format!("{key} version {} as {}: {error}", secret.version, file.name),
            })?;
            contents.push((file.name.clone(), content));
        }
        Ok((secret.version, contents))
    }

    /// One swap with everything accepted; all other files stay.
    fn write(&mut self, accepted: Vec<Accepted>) -> Result<(), SinkError> {
        if accepted.is_empty() {
            return Ok(());
        }
        let mut held = self.held.clone();
        let (mut contents, mut written) = (BTreeMap::new(), Vec::new());
        for Accepted { index, version, contents: files } in accepted {
            let key = self.plan.groups[index].key();
            held.set(&key, version);
            written.push((key, version));
            contents.extend(files);
        }
        let files = self.plan.groups.iter().flat_map(|group| &group.files);
        let outputs = files
            .map(|file| Output { name: file.name.clone(), mode: file.mode, content: contents.remove(&file.name) })
            .collect();
        let swap = self.sink.replace(outputs, &held.to_json())?;
        for (secret, version) in written {
            match swap {
                Swap::Written => info!(%secret, version, "written"),
                Swap::Unchanged => debug!(%secret, version, "unchanged"),
            }
        }
        self.held = held;
        Ok(())
    }

    fn report_outage(&mut self, failure: &Failure) {
        let (kind, cause) = match failure {
            Failure::Server(error) => (kind(error), error.to_string()),
            Failure::Sink(error) => (error.to_string(), error.to_string()),
        };
        if self.outage.as_ref() == Some(&kind) {
            debug!(cause, "still so");
            return;
        }
        match failure {
            Failure::Server(_) => warn!(cause, "the files stay as they are; trying again"),
            Failure::Sink(_) => error!(cause, "the files stay as they are; trying again"),
        }
        self.outage = Some(kind);
    }

    fn recovered(&mut self) {
        if self.outage.take().is_some() {
            info!("all is well again; the files are fresh");
        }
    }

    fn pause(&self, attempt: u32) -> Duration {
        self.settings.backoff.delay(attempt, fastrand::f64())
    }

    fn next_poll(&self) -> Instant {
        Instant::now() + self.settings.poll.mul_f64(0.8 + 0.4 * fastrand::f64())
    }
}

struct Accepted {
    index: usize,
    version: u64,
    contents: Vec<(FileName, Content)>,
}

fn concerns_everything(error: &Error) -> bool {
    error.is_retryable()
        || matches!(error.kind(), ErrorKind::TokenFile | ErrorKind::Unauthenticated | ErrorKind::Configuration)
}

fn kind(error: &Error) -> String {
    format!("{:?} {:?}", error.kind(), error.code())
}
