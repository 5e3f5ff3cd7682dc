//! Writes that are done once however often they are sent: what a request's `Idempotency-Key` stands for, and the forgetting of answers.

use crate::app::App;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard};
use strongroom_core::{Action, Labels, Owner, SecretId, SecretPath};
use strongroom_crypto::{Keyring, RequestHash};
use strongroom_policy::{About, Resource};
use strongroom_store::prune_answers;
use time::Duration;

/// How long an answer is kept.
pub const KEPT: Duration = Duration::hours(24);
/// How often old answers are looked for.
const PRUNE_EVERY: std::time::Duration = std::time::Duration::from_mins(10);
/// Most answers forgotten in one transaction.
const PRUNED_AT_ONCE: i64 = 5_000;

/// A request that carries a key.
#[derive(Debug)]
pub struct Once {
    /// Method, path and query: the same key means something else on another route.
    route: String,
    key: String,
    request: Mutex<RequestHash>,
    /// What was decided for the caller on the way: to be decided again before the answer is given a second time.
    decided: Mutex<Vec<Decided>>,
}

/// A decision, with all that it was made on but the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// What was asked.
    pub action: Action,
    /// The resource's name.
    pub resource: String,
    /// The secret as it was then. The write itself changes it: by what it is now, who may only create could not be told that he did.
    secret: Option<AsItWas>,
    /// Whether the write is done without the right too, and only its answer is poorer.
    pub enriches: bool,
}

/// What policies saw of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AsItWas {
    id: SecretId,
    labels: Labels,
    owner: Option<Owner>,
}

impl Decided {
    /// A right that the write needs.
    pub fn needed(action: Action, resource: &Resource<'_>) -> Self {
        let secret = match resource {
            Resource::Secret { id: Some(id), about, .. } => Some(AsItWas {
                id: *id,
                labels: about.labels.cloned().unwrap_or_default(),
                owner: about.owner.cloned(),
            }),
            _ => None,
        };
        Self { action, resource: resource.name(), secret, enriches: false }
    }

    /// A right that makes the answer richer.
    pub fn enriching(action: Action, resource: &Resource<'_>) -> Self {
        Self { enriches: true, ..Self::needed(action, resource) }
    }

    /// The secret as it was, at its path then.
    pub fn secret<'a>(&'a self, path: &'a SecretPath) -> Resource<'a> {
        let about = |was: &'a AsItWas| About { labels: Some(&was.labels), owner: was.owner.as_ref() };
        Resource::Secret {
            path,
            id: self.secret.as_ref().map(|was| was.id),
            version: None,
            about: self.secret.as_ref().map_or(About::default(), about),
        }
    }
}

impl Once {
    /// A request with this key. Its head's `parts` decide with its body whether another is the same.
    pub fn new(keyring: &Keyring, route: String, key: String, parts: &[&[u8]]) -> Self {
        let request = Mutex::new(keyring.request_hash(parts));
        Self { route, key, request, decided: Mutex::default() }
    }

    /// Feeds a piece of the body, as it is read.
    pub fn feed(&self, bytes: &[u8]) {
        lock(&self.request).update(bytes);
    }

    /// Notes what was allowed.
    pub fn note(&self, decided: Decided) {
        let mut all = lock(&self.decided);
        if !all.contains(&decided) {
            all.push(decided);
        }
    }

    /// All that was noted.
    pub fn decided(&self) -> Vec<Decided> {
        lock(&self.decided).clone()
    }

    /// The hashes under which the answer may be kept, newest first.
    pub fn keys(&self, keyring: &Keyring, principal: &str) -> Vec<Vec<u8>> {
        keyring.idempotency_keys(&[principal.as_bytes(), self.route.as_bytes(), self.key.as_bytes()])
    }

    /// The hashes of the request, newest first. The body must have been read.
    pub fn request(&self) -> Vec<Vec<u8>> {
        lock(&self.request).clone().finish()
    }
}

/// Forgets old answers, until the task is aborted. Any replica may, also several at once.
pub(crate) async fn keep_pruning(app: &App) {
    loop {
        tokio::time::sleep(PRUNE_EVERY).await;
        if let Err(failure) = prune(app).await {
            tracing::warn!(%failure, "old answers could not be forgotten; it is tried again");
        }
    }
}

/// Forgets answers older than [`KEPT`]; answers how many.
pub async fn prune(app: &App) -> Result<u64, crate::failure::Failure> {
    let (before, mut all) = (app.clock.now() - KEPT, 0);
    loop {
        let mut transaction = app.store.begin().await?;
        let pruned = prune_answers(transaction.connection(), before, PRUNED_AT_ONCE).await?;
        transaction.commit().await?;
        all += pruned;
        if pruned < PRUNED_AT_ONCE.unsigned_abs() {
            return Ok(all);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this lock")
}
