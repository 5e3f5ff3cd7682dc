//! The loop: fetch everything, write it, watch for changes, fetch what changed.

use crate::{
    files::{Files, Trouble, kind},
    plan::{ConfigError, Plan},
    sink::{SinkError, Storage},
};
use std::{collections::BTreeSet, convert::Infallible, future::Future, time::Duration};
use strongroom_api::{agent::AgentConfig, watch::EndReason};
use strongroom_client::{Backoff, Client, Error, WatchEvent, WatchStream};
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{debug, error, info, instrument, warn};

/// Changes that come within this time of the first are written in one swap with it.
const COALESCE: Duration = Duration::from_millis(20);

/// How long the old files stay after a swap, for an app that is just opening them.
const GRACE: Duration = Duration::from_millis(50);

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
    /// Groups to fetch as soon as the server can be reached.
    pending: BTreeSet<usize>,
    /// What is wrong with everything and was logged.
    outage: Option<String>,
}

/// Why everything stands still.
enum Failure {
    Server(Error),
    Sink(SinkError),
}

/// Why the agent stopped listening to a watch.
enum Wake {
    Poll,
    Ended(EndReason),
    Failed(Failure),
}

impl Agent {
    fn new(plan: Plan, settings: Settings) -> Result<Self, RunError> {
        let (server, deadline_seconds) = (plan.config.server.clone(), plan.config.wait_deadline_seconds);
        let client = plan.client()?;
        let files = Files::open(plan, settings.storage)?;
        Ok(Self { server, deadline_seconds, settings, client, files, pending: BTreeSet::new(), outage: None })
    }

    async fn run(mut self) -> Result<Infallible, RunError> {
        if self.files.are_complete() {
            info!("the files of an earlier run are there; they stay until the server has newer ones");
            self.pending = self.files.everything();
        } else {
            self.start().await?;
        }
        self.follow().await
    }

    /// Brings all files for the first time, or fails at the deadline.
    #[instrument(skip_all)]
    async fn start(&mut self) -> Result<(), RunError> {
        let seconds = self.deadline_seconds;
        let deadline = Instant::now() + Duration::from_secs(seconds.into());
        let mut cause = format!("{} did not answer", self.server);
        let mut logged = String::new();
        for attempt in 0.. {
            let Ok(fetched) = timeout_at(deadline, self.files.fetch(&self.client, &self.files.everything())).await
            else {
                break;
            };
            let (trouble, asked) = match fetched {
                Ok(fetched) => match self.files.apply(fetched)? {
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
                sleep(self.pause_after(&failure, attempt)).await;
                attempt += 1;
                continue;
            }
            let opened = Instant::now();
            let wake = match self.client.watch(self.files.watched()).await {
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
                    // Spread out from the first time on: a server that stops says this to all its agents at once.
                    Instant::now() + self.pause(attempt.max(3))
                }
                Wake::Failed(failure) => {
                    self.report_outage(&failure);
                    let lasting = matches!(&failure, Failure::Server(error) if !error.is_retryable());
                    if lasting { poll_at } else { Instant::now() + self.pause_after(&failure, attempt) }
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
                    self.pending = self.files.everything();
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
                debug!(secret = %change.path, version = change.version, "a change was announced");
                self.pending.extend(self.files.behind(&change));
            }
            Some(Ok(WatchEvent::End(end))) => *ended = Some(Wake::Ended(end.reason)),
            Some(Ok(_)) => self.recovered(),
            Some(Err(error)) => *ended = Some(Wake::Failed(Failure::Server(error))),
            None => *ended = Some(Wake::Ended(EndReason::Other)),
        }
    }

    /// Fetches and writes what is pending.
    async fn refresh(&mut self) -> Result<(), Failure> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let fetched = self.files.fetch(&self.client, &self.pending).await.map_err(Failure::Server)?;
        if let Err(error) = self.files.apply(fetched) {
            // Whatever happened to the directory: next time all of it is written.
            self.pending = self.files.everything();
            return Err(Failure::Sink(error));
        }
        self.recovered();
        self.pending.clear();
        if self.files.has_retired() {
            sleep(GRACE).await;
            self.files.sweep().map_err(Failure::Sink)?;
        }
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

    /// The pause, and what the server asked for on top, up to the longest pause.
    fn pause_after(&self, failure: &Failure, attempt: u32) -> Duration {
        let asked = match failure {
            Failure::Server(error) => error.retry_after().unwrap_or_default(),
            Failure::Sink(_) => Duration::ZERO,
        };
        self.pause(attempt) + asked.min(self.settings.backoff.cap)
    }

    fn next_poll(&self) -> Instant {
        Instant::now() + self.settings.poll.mul_f64(0.8 + 0.4 * fastrand::f64())
    }
}
