//! The agent's life: a start that brings all files or fails at its deadline, and then the loop that keeps them fresh.

mod follow;

use crate::{
    files::{Accepted, Cure, Fetched, Files, Trouble, kind},
    plan::{ConfigError, Plan},
    queue::Queue,
    sink::{SinkError, Storage},
};
use std::{collections::BTreeSet, convert::Infallible, future::Future, time::Duration};
use strongroom_api::agent::AgentConfig;
use strongroom_client::{Backoff, Client, Error};
use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{info, instrument, warn};

/// What is the same for all pods; the defaults are meant for them.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which file systems values may be written to.
    pub storage: Storage,
    /// How often the server is asked for the values themselves where no watch is open, where it has an older version than is held, and once
    /// after it was away; each time up to a fifth more or less.
    pub poll: Duration,
    /// How long a watch is kept open before it is opened anew, up to a fifth more or less. The server looks again by itself while it is open.
    pub reopen: Duration,
    /// The waits between tries.
    pub backoff: Backoff,
    /// The shortest wait, up to a fifth more, before a start asks again for a secret that was refused or does not exist.
    pub refused: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            storage: Storage::MemoryOnly,
            poll: Duration::from_mins(1),
            reopen: Duration::from_mins(10),
            backoff: Backoff::default(),
            refused: Duration::from_secs(5),
        }
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
    // Writing files never waits, so a shutdown cannot come in the middle of a swap. Old files it may leave are removed at the next start.
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
    server: String,
    deadline_seconds: u32,
    settings: Settings,
    client: Client,
    files: Files,
    /// Groups to read.
    queue: Queue,
    /// When the server is asked although no change was announced.
    poll_at: Instant,
    /// When old files that wait to be removed are looked after.
    sweep_at: Instant,
    /// Reads that failed as a whole, in a row.
    failures: u32,
    /// Sweeps that failed, in a row.
    failed_sweeps: u32,
    /// The server was away: it may come back with another database, whose numbers tell nothing. The next poll asks for everything.
    doubtful: bool,
    /// What is wrong with reading or writing, and was logged.
    outage: Option<String>,
    /// What is wrong with the watch, and was logged.
    watch_outage: Option<String>,
}

/// Why everything stands still.
enum Failure {
    Server(Error),
    Sink(SinkError),
}

impl Agent {
    fn new(plan: Plan, settings: Settings) -> Result<Self, RunError> {
        let now = Instant::now();
        Ok(Self {
            server: plan.config.server.clone(),
            deadline_seconds: plan.config.wait_deadline_seconds,
            settings,
            client: plan.client()?,
            files: Files::open(plan, settings.storage)?,
            queue: Queue::default(),
            poll_at: now,
            sweep_at: now,
            failures: 0,
            failed_sweeps: 0,
            doubtful: false,
            outage: None,
            watch_outage: None,
        })
    }

    async fn run(mut self) -> Result<Infallible, RunError> {
        if self.files.are_complete() {
            info!("the files of an earlier run are there; they stay until the server has newer ones");
            self.queue.add(self.files.everything(), Instant::now());
        } else {
            self.start().await?;
        }
        self.follow().await
    }

    /// Brings all files for the first time, or fails at the deadline. What was read is kept until the rest can be read too, and not asked for
    /// again: a pod that waits for one grant must not read its other secrets, and fill the audit log with it, all the while.
    #[instrument(skip_all)]
    async fn start(&mut self) -> Result<(), RunError> {
        let seconds = self.deadline_seconds;
        let deadline = Instant::now() + Duration::from_secs(seconds.into());
        let mut cause = format!("{} did not answer", self.server);
        let (mut accepted, mut logged) = (Vec::<Accepted>::new(), BTreeSet::new());
        self.queue.add(self.files.everything(), Instant::now());
        while let Some(next) = self.queue.next() {
            if timeout_at(deadline, sleep_until(next)).await.is_err() {
                return Err(RunError::Deadline { seconds, cause });
            }
            let due = self.queue.due(Instant::now());
            let Ok(Fetched { answers, stopped }) = timeout_at(deadline, self.files.fetch(&self.client, &due)).await
            else {
                return Err(RunError::Deadline { seconds, cause });
            };
            let (fit, troubles) = self.files.accept(answers);
            for one in fit {
                self.queue.done(one.index);
                accepted.push(one);
            }
            for (index, trouble) in troubles {
                if self.files.has(index) {
                    // Its files are there and stay.
                    self.queue.done(index);
                    self.files.note(index, trouble);
                    continue;
                }
                self.put_off_at_start(index, &trouble);
                if logged.insert((Some(index), trouble.kind)) {
                    warn!(cause = trouble.text, "no secrets yet; trying again");
                }
                cause = trouble.text;
            }
            if let Some(error) = stopped {
                let failure = Failure::Server(error);
                self.queue.hold_until(Instant::now() + self.pause_after(&failure, self.failures));
                self.failures += 1;
                let kind;
                (kind, cause) = failure.kind_and_cause();
                if logged.insert((None, kind)) {
                    warn!(cause, "no secrets yet; trying again");
                }
            } else {
                self.failures = 0;
            }
        }
        self.files.write(&accepted).failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// What only somebody can cure is not asked for many times a second by each pod that waits for it.
    fn put_off_at_start(&mut self, index: usize, trouble: &Trouble) {
        let Settings { backoff, refused, .. } = self.settings;
        let floor = if trouble.cure == Cure::Time { Duration::ZERO } else { refused };
        let pause = |failures| floor.mul_f64(1.0 + 0.2 * fastrand::f64()) + backoff.delay(failures, fastrand::f64());
        self.queue.put_off(index, Instant::now(), pause);
    }

    fn pause(&self, attempt: u32) -> Duration {
        self.settings.backoff.delay(attempt, fastrand::f64())
    }

    /// The pause, and what the server asked for on top, up to the longest pause.
    fn pause_after(&self, failure: &Failure, attempt: u32) -> Duration {
        let asked = match failure {
            Failure::Server(error) => error.retry_after().unwrap_or_default(),
            Failure::Sink(_) => Duration::ZERO,
        };
        self.pause(attempt) + asked.min(self.settings.backoff.cap)
    }
}

impl Failure {
    /// What is the same about failures that are logged once, and the cause for people.
    fn kind_and_cause(&self) -> (String, String) {
        match self {
            Self::Server(error) => (kind(error), error.to_string()),
            Self::Sink(error) => (error.to_string(), error.to_string()),
        }
    }
}

/// A time, a fifth more or less: many agents that began together do not stay together.
fn around(time: Duration) -> Duration {
    time.mul_f64(0.8 + 0.4 * fastrand::f64())
}
