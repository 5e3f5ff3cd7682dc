//! The loop that keeps the files fresh: a watch, open nearly always, and what is due beside it.

use super::{Agent, Failure, around};
use crate::files::{Cure, Fetched, Written, is_servers_fault, kind};
use std::{convert::Infallible, time::Duration};
use strongroom_api::watch::EndReason;
use strongroom_client::{Backoff, Error, ErrorKind, WatchEvent, WatchStream};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, error, info, instrument, warn};

/// Changes that come within this time of the first are written in one swap with it.
const COALESCE: Duration = Duration::from_millis(20);

/// How long the old files stay after a swap, for an app that is just opening them.
const GRACE: Duration = Duration::from_millis(50);

/// Why the agent stopped listening to a watch.
enum Wake {
    /// It was open long enough. Opened anew it tells the server what is held now.
    Reopen,
    Ended(EndReason),
    Failed(Error),
}

impl Agent {
    /// Keeps the files fresh, for ever.
    #[instrument(skip_all)]
    pub(super) async fn follow(mut self) -> Result<Infallible, super::RunError> {
        let (mut attempt, mut watch_at) = (0, Instant::now());
        self.failures = 0;
        self.poll_at = self.next_poll();
        loop {
            self.tend_until(watch_at).await;
            let opened = Instant::now();
            let wake = match self.client.watch(self.files.watched()).await {
                Ok(mut stream) => self.listen(&mut stream).await,
                Err(error) => {
                    self.doubtful = true;
                    Wake::Failed(error)
                }
            };
            if opened.elapsed() > self.settings.backoff.cap || matches!(wake, Wake::Reopen) {
                attempt = 0;
            }
            watch_at = self.watch_again_at(wake, attempt);
            attempt += 1;
        }
    }

    fn watch_again_at(&mut self, wake: Wake, attempt: u32) -> Instant {
        let now = Instant::now();
        match wake {
            Wake::Reopen => now,
            Wake::Ended(EndReason::SessionEnded) => now + self.pause(attempt),
            Wake::Ended(reason) => {
                debug!(?reason, "the watch ended; watching again");
                // Spread out from the first time on: a server that stops says this to all its agents at once.
                now + self.pause(attempt.max(3))
            }
            Wake::Failed(error) => {
                self.report_watch_outage(&error);
                match error.kind() {
                    // The kubelet is just about to write the token, or the cluster's API to know it.
                    ErrorKind::Unauthenticated | ErrorKind::TokenFile => now + self.pause(attempt),
                    _ if is_servers_fault(&error) => now + self.patience().delay(attempt, fastrand::f64()),
                    _ if !error.is_retryable() => self.poll_at,
                    _ => now + self.pause_after(&Failure::Server(error), attempt),
                }
            }
        }
    }

    /// Does what is due while no watch is open, until one may be opened: not before this, and not while the server answers nothing.
    async fn tend_until(&mut self, watch_at: Instant) {
        loop {
            self.tend(false).await;
            let unreachable = self.failures > 0 && !self.queue.is_empty();
            if Instant::now() >= watch_at && !unreachable {
                return;
            }
            let next = self.next_due();
            sleep_until(if unreachable { next } else { next.min(watch_at) }).await;
        }
    }

    /// Acts on a watch's events, and on what is due meanwhile, until it ends or was open long enough.
    async fn listen(&mut self, stream: &mut WatchStream) -> Wake {
        let reopen_at = Instant::now() + around(self.settings.reopen);
        let mut ended = None;
        loop {
            tokio::select! {
                event = stream.next() => {
                    self.take_in(event, &mut ended);
                    let until = Instant::now() + COALESCE;
                    while ended.is_none()
                        && self.queue.next().is_some_and(|due| due <= until)
                        && let Ok(event) = timeout_at(until, stream.next()).await
                    {
                        self.take_in(event, &mut ended);
                    }
                }
                () = sleep_until(reopen_at.min(self.next_due())) => {}
            }
            self.tend(true).await;
            if let Some(wake) = ended {
                return wake;
            }
            if Instant::now() >= reopen_at {
                return Wake::Reopen;
            }
        }
    }

    fn take_in(&mut self, event: Option<Result<WatchEvent, Error>>, ended: &mut Option<Wake>) {
        match event {
            Some(Ok(WatchEvent::Change(change))) => {
                self.watch_recovered();
                debug!(secret = %change.path, version = change.version, "a change was announced");
                self.queue.add(self.files.behind(&change), Instant::now());
            }
            Some(Ok(WatchEvent::End(end))) => *ended = Some(Wake::Ended(end.reason)),
            Some(Ok(_)) => self.watch_recovered(),
            Some(Err(error)) => *ended = Some(Wake::Failed(error)),
            None => *ended = Some(Wake::Ended(EndReason::Other)),
        }
    }

    /// When something is to be done although the watch says nothing.
    fn next_due(&self) -> Instant {
        let mut next = self.queue.next().map_or(self.poll_at, |due| due.min(self.poll_at));
        if self.files.have_retired() {
            next = next.min(self.sweep_at);
        }
        next
    }

    /// Does what is due.
    async fn tend(&mut self, watching: bool) {
        let now = Instant::now();
        if self.files.have_retired() && now >= self.sweep_at {
            self.sweep();
        }
        if now >= self.poll_at {
            self.poll_at = self.next_poll();
            // What is watched needs no poll, except where numbers tell nothing.
            let everything = !watching || self.doubtful;
            let asked = if everything { self.files.everything() } else { self.files.ahead_of_server() };
            self.queue.add(asked, now);
            self.doubtful = false;
        }
        if self.queue.next().is_some_and(|due| due <= Instant::now()) {
            self.refresh().await;
        }
    }

    /// Reads and writes what is due. What fails stays in the queue, with a pause.
    async fn refresh(&mut self) {
        let due = self.queue.due(Instant::now());
        let Fetched { answers, stopped } = self.files.fetch(&self.client, &due).await;
        let was_read = answers.iter().any(|(_, answer)| answer.is_ok());
        let (accepted, troubles) = self.files.accept(answers);
        for (index, trouble) in troubles {
            if trouble.cure == Cure::Time {
                let patience = self.patience();
                self.queue.put_off(index, Instant::now(), |failures| patience.delay(failures, fastrand::f64()));
            } else {
                self.queue.done(index);
            }
            self.files.note(index, trouble);
        }
        let Written { done, too_large, failed } = self.files.write(&accepted);
        for index in done {
            self.queue.done(index);
        }
        // No value is kept, so writing again is reading again, and what is wrong with a volume stays so for longer than a few seconds.
        let (now, pause) = (Instant::now(), self.settings.poll.mul_f64(1.0 + 0.2 * fastrand::f64()));
        for index in too_large {
            self.queue.put_off(index, now, |_| pause);
        }
        if failed.is_some() {
            // Whatever happened to the directory: next time all of it is written.
            self.queue.add(self.files.everything(), now);
            self.queue.hold_until(now + pause);
        }
        if self.files.have_retired() {
            self.sweep_at = Instant::now() + GRACE;
        }
        if let Some(error) = stopped {
            let failure = Failure::Server(error);
            self.queue.hold_until(Instant::now() + self.pause_after(&failure, self.failures));
            self.failures = self.failures.saturating_add(1);
            self.doubtful = true;
            self.report_outage(&failure);
        } else {
            self.failures = 0;
            match failed {
                Some(error) => self.report_outage(&Failure::Sink(error)),
                None if was_read => self.recovered(),
                None => {}
            }
        }
    }

    fn sweep(&mut self) {
        match self.files.sweep() {
            Ok(()) => self.failed_sweeps = 0,
            Err(error) => {
                if self.failed_sweeps == 0 {
                    warn!(%error, "the new files are there, but old ones could not be removed and take room; trying again");
                }
                self.sweep_at = Instant::now() + GRACE + self.patience().delay(self.failed_sweeps, fastrand::f64());
                self.failed_sweeps = self.failed_sweeps.saturating_add(1);
            }
        }
    }

    fn report_watch_outage(&mut self, error: &Error) {
        let kind = kind(error);
        if self.watch_outage.as_ref() == Some(&kind) {
            debug!(cause = %error, "still so");
            return;
        }
        warn!(cause = %error, "no watch: changes are noticed by asking now and then; trying again");
        self.watch_outage = Some(kind);
    }

    /// After the watch said something.
    fn watch_recovered(&mut self) {
        if self.watch_outage.take().is_some() {
            info!("the watch is open again");
        }
    }

    fn report_outage(&mut self, failure: &Failure) {
        let (kind, cause) = failure.kind_and_cause();
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

    /// After something was read and, where it is new, written.
    fn recovered(&mut self) {
        if self.outage.take().is_some() {
            if self.files.are_untroubled() && self.queue.is_empty() {
                info!("all is well again; the files are fresh");
            } else {
                info!("secrets can be read again, but not all");
            }
        }
    }

    /// The waits for what answers quickly and wrongly: they grow up to the poll's.
    fn patience(&self) -> Backoff {
        Backoff { cap: self.settings.poll.max(self.settings.backoff.base), ..self.settings.backoff }
    }

    fn next_poll(&self) -> Instant {
        Instant::now() + around(self.settings.poll)
    }
}
