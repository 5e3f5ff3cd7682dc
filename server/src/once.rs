//! Writes that are done once however often they are sent: what a request's `Idempotency-Key` stands for, and the forgetting of answers.

use crate::app::App;
use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard},
};
use strongroom_core::Action;
use strongroom_crypto::{Keyring, RequestHash};
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
    decided: Mutex<BTreeSet<(Action, String)>>,
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

    /// Notes what was allowed, and on what.
    pub fn note(&self, action: Action, resource: String) {
        lock(&self.decided).insert((action, resource));
    }

    /// All that was noted.
    pub fn decided(&self) -> Vec<(Action, String)> {
        lock(&self.decided).iter().cloned().collect()
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
