//! Watching secrets: authorised when the watch begins and again at every event.

use super::{authorization, change::audited, secrets};
use crate::{
    app::{App, Caller},
    failure::Failure,
    metrics as names,
    serve::stopped,
    watchers::Watcher,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use strongroom_api::watch::{Change, End, EndReason, MAX_WATCHED, Watch};
use strongroom_core::{Action, Decision, SecretPath, VersionSelector};
use strongroom_store::find_secret;
use tokio::{sync::watch::Receiver, time::Instant};

/// At least this often something is sent, so that both sides notice a connection that is only half there.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// After so many quiet heartbeats the stream looks at everything it watches: a notification may have been lost, or a grant may be new. It is much cheaper
/// here than a poll by the agent, which would cost a connection, a session check and an audit event.
const QUIET_HEARTBEATS: u32 = 4;

/// What a stream sends.
#[derive(Debug)]
pub enum Event {
    /// A watched version is another one now.
    Changes(Vec<Change>),
    /// Nothing, but the connection is alive.
    Heartbeat,
    /// The last event.
    End(End),
}

/// A watch under way.
#[derive(Debug)]
pub struct Stream {
    app: Arc<App>,
    caller: Caller,
    watcher: Watcher,
    /// What is watched of each path, and the version last known to the caller.
    watched: BTreeMap<SecretPath, Vec<Known>>,
    ends_at: Instant,
    stop: Receiver<bool>,
    /// What to look at before the next wait.
    pending: Vec<SecretPath>,
    quiet: u32,
    /// Moved only by what is sent: who may see nothing must not notice, by late heartbeats, that something changed.
    heartbeat_at: Instant,
    ended: bool,
}

#[derive(Debug)]
struct Known {
    selector: VersionSelector,
    alias: Option<String>,
    version: u64,
}

/// Begins a watch. Whoever may not read a secret gets no events of it, as if it did not exist.
pub async fn begin(app: Arc<App>, caller: Caller, request: Watch) -> Result<Stream, Failure> {
    let outcome = try_begin(app.clone(), caller.clone(), request).await;
    audited(&app, &caller, Action::Watch, "watch".to_owned(), outcome).await
}

async fn try_begin(app: Arc<App>, caller: Caller, request: Watch) -> Result<Stream, Failure> {
    if request.secrets.is_empty() || request.secrets.len() > MAX_WATCHED {
        return Err(Failure::Invalid(format!("secrets: 1 to {MAX_WATCHED}")));
    }
    let mut watched: BTreeMap<SecretPath, Vec<Known>> = BTreeMap::new();
    for (index, secret) in request.secrets.into_iter().enumerate() {
        let selector = match &secret.version {
            None => VersionSelector::Current,
            Some(text) => VersionSelector::parse(text)
                .map_err(|error| Failure::Invalid(format!("secrets[{index}].version: {error}")))?,
        };
        watched.entry(secret.path).or_default().push(Known { selector, alias: secret.version, version: secret.held });
    }
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), Action::Watch, Decision::Allowed, "ok");
    event.resource = Some(watched.keys().map(SecretPath::as_str).collect::<Vec<_>>().join(","));
    app.audit.commit(event).await?;
    // Registered before the first look, so that no change falls between the two.
    let watcher = app.watchers.watch(watched.keys().cloned().collect());
    let left = (caller.expires_at - app.clock.now()).try_into().unwrap_or(Duration::ZERO);
    let pending = watched.keys().cloned().collect();
    metrics::gauge!(names::WATCHES).increment(1);
    Ok(Stream {
        stop: app.stop.clone(),
        app,
        caller,
        watcher,
        watched,
        ends_at: Instant::now() + left,
        pending,
        quiet: 0,
        heartbeat_at: Instant::now() + HEARTBEAT,
        ended: false,
    })
}

impl Stream {
    /// The next event; `None` after [`Event::End`].
    pub async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        loop {
            let changed: Vec<_> = if self.pending.is_empty() {
                let woken = tokio::select! {
                    biased;
                    () = stopped(&mut self.stop) => Err(EndReason::ServerStops),
                    () = tokio::time::sleep_until(self.ends_at) => Err(EndReason::SessionEnded),
                    changed = self.watcher.changed() => Ok(changed),
                    () = tokio::time::sleep_until(self.heartbeat_at) => {
                        self.heartbeat_at = Instant::now() + HEARTBEAT;
                        self.quiet += 1;
                        if self.quiet >= QUIET_HEARTBEATS {
                            self.quiet = 0;
                            self.pending = self.watched.keys().cloned().collect();
                        }
                        return Some(Event::Heartbeat);
                    }
                };
                match woken {
                    Ok(changed) => changed.into_iter().collect(),
                    Err(reason) => return Some(self.end(reason)),
                }
            } else {
                std::mem::take(&mut self.pending)
            };
            let mut changes = Vec::new();
            for path in &changed {
                match self.look(path).await {
                    Ok(found) => changes.extend(found),
                    Err(failure) => {
                        tracing::warn!(request_id = %self.caller.origin.request_id, error = %failure, "a watch ends");
                        return Some(self.end(EndReason::Unavailable));
                    }
                }
            }
            if !changes.is_empty() {
                self.heartbeat_at = Instant::now() + HEARTBEAT;
                return Some(Event::Changes(changes));
            }
        }
    }

    /// What the database says of a path now, as far as the caller may read it.
    async fn look(&mut self, path: &SecretPath) -> Result<Vec<Change>, Failure> {
        let app = &self.app;
        let mut connection = app.store.reader().await?;
        let rules = authorization::rules(app, &mut connection, &self.caller, Some(&path.project())).await?;
        let secret = secrets::checked(app, &rules, find_secret(&mut connection, path).await?)?;
        let now = app.clock.now();
        let secret = secret.filter(|secret| !secret.deleted && !secrets::is_expired(secret, now));
        // Aliases point at live versions only; what a number means must be looked at.
        let known = self.watched.get(path).map_or(&[][..], Vec::as_slice);
        let mut gone = Vec::new();
        for known in known {
            if let (Some(secret), VersionSelector::Number(_)) = (&secret, &known.selector)
                && let Some(number) = secrets::pointed(secret, &known.selector)
                && !secrets::is_live(app, &mut connection, &rules, secret, number).await?
            {
                gone.push(number);
            }
        }
        drop(connection);
        let mut changes = Vec::new();
        for known in self.watched.get_mut(path).into_iter().flatten() {
            let pointed = secret.as_ref().and_then(|secret| {
                let version = secrets::pointed(secret, &known.selector)?;
                let is_gone = matches!(known.selector, VersionSelector::Number(_)) && gone.contains(&version);
                u64::try_from(version).ok().filter(|_| !is_gone)
            });
            let resource = secrets::resource(path, secret.as_deref(), pointed);
            let version =
                pointed.filter(|_| authorization::may(app, &self.caller, &rules, Action::Read, resource)).unwrap_or(0);
            if version != known.version {
                known.version = version;
                changes.push(Change { path: path.clone(), alias: known.alias.clone(), version });
            }
        }
        Ok(changes)
    }

    fn end(&mut self, reason: EndReason) -> Event {
        self.ended = true;
        Event::End(End { reason })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        metrics::gauge!(names::WATCHES).decrement(1);
    }
}
