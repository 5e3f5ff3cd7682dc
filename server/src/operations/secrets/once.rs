//! One transaction with an operation in it, done once for each idempotency key.
//!
//! The answer is kept in the transaction of the write itself, so that either both are there or neither: that makes it safe to send a write again whose outcome
//! is unknown. Only success is kept; what failed did nothing and is tried anew. While the first is running, its key is locked, and a second is told to come
//! again instead of waiting with a connection in its hand.

use super::{
    event,
    work::{Halt, Work},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    once::{Decided, KEPT, Once},
    operations::authorization::{decide, refused, right_to, rules},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use strongroom_api::{
    batch::{WriteResult, WriteResults},
    metadata::{Changed, Placed},
    secrets::PutResult,
};
use strongroom_core::{Action, AuditEvent, Scope};
use strongroom_policy::{Denied, Resource};
use strongroom_store::{AnswerRow, delete_answer, find_answer, insert_answer, try_lock_answer};

/// What is kept of an answer.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    answer: T,
    decided: Vec<Decided>,
}

/// What a write answers, and may answer again.
pub(super) trait Answer: Serialize + DeserializeOwned {
    /// Leaves out what is told only by a further right to this resource.
    fn withhold(&mut self, _action: Action, _resource: &str) {}
}

impl Answer for () {}

impl Answer for Placed {}

impl Answer for PutResult {
    fn withhold(&mut self, action: Action, resource: &str) {
        self.unchanged &= action != Action::Read || self.path.as_str() != resource;
    }
}

impl Answer for Changed {
    fn withhold(&mut self, action: Action, resource: &str) {
        if action == Action::Describe && self.path.as_str() == resource {
            self.metadata = None;
        }
    }
}

impl Answer for WriteResults {
    fn withhold(&mut self, action: Action, resource: &str) {
        for result in &mut self.results {
            match result {
                WriteResult::Put(put) => put.withhold(action, resource),
                WriteResult::Alias(changed) | WriteResult::Metadata(changed) => changed.withhold(action, resource),
                WriteResult::Deleted(_) => {}
            }
        }
    }
}

/// Runs an operation in a transaction of its own. With a key that was used before it is not run: the caller is authorised again for everything that was
/// decided then, on the secrets as they were then by the rules of now, and given the same answer, but for what he is not told any more.
///
/// # Errors
/// [`Failure::InProgress`] while the first request with the key is running, [`Failure::KeyReused`] where that was another request; else what the operation says.
pub(super) async fn run<T, F>(app: &App, caller: &Caller, operation: F) -> Result<T, Failure>
where
    T: Answer,
    F: AsyncFnOnce(&mut Work) -> Result<T, Halt>,
{
    let mut work = Work::begin(app).await?;
    let Some(once) = &caller.once else {
        let outcome = operation(&mut work).await;
        return work.finish(app, caller, outcome).await;
    };
    if let Some(kept) = look(app, caller, once, &mut work).await? {
        return again(app, caller, work, kept).await;
    }
    let outcome = match operation(&mut work).await {
        Ok(answer) => keep(app, caller, once, &mut work, answer).await.map_err(Halt::from),
        Err(halt) => Err(halt),
    };
    work.finish(app, caller, outcome).await
}

/// Locks the key, and finds the answer that is kept under it.
async fn look<T: Answer>(app: &App, caller: &Caller, once: &Once, work: &mut Work) -> Result<Option<Kept<T>>, Failure> {
    let keys = once.keys(&app.keyring(), &caller.identity.principal());
    // By the oldest key held: a replica that has not yet heard of a new one takes the same lock. Where they differ all the same, one of two answers cannot be
    // inserted, and its write does not happen.
    let number = keys.last().and_then(|key| key.first_chunk()).expect("a hash has more than eight bytes");
    if !try_lock_answer(work.connection(), i64::from_be_bytes(*number)).await? {
        return Err(Failure::InProgress);
    }
    let Some(row) = find_answer(work.connection(), &keys).await? else { return Ok(None) };
    // By an older row key, which may be known to somebody who made this up: the switch to the newer one dropped all that were there.
    if row.generation() < app.keyring().row_generation() {
        let key = row.claimed(|row| row.key.clone());
        delete_answer(work.connection(), &key).await?;
        return Ok(None);
    }
    let row = app.verify(row)?;
    if row.created_at + KEPT <= app.clock.now() {
        delete_answer(work.connection(), &row.key).await?;
        return Ok(None);
    }
    if !once.request().contains(&row.body) {
        return Err(Failure::KeyReused);
    }
    let kept = serde_json::from_str(&row.answer);
    kept.map(Some)
        .map_err(|_| Failure::Integrity("idempotency_keys.answer holds what Strongroom never writes".to_owned()))
}

async fn keep<T: Serialize>(app: &App, caller: &Caller, once: &Once, work: &mut Work, answer: T) -> Result<T, Failure> {
    let (keyring, newest) = (app.keyring(), |hashes: Vec<Vec<u8>>| hashes.into_iter().next().expect("there is a key"));
    let kept = Kept { answer: &answer, decided: once.decided() };
    let row = AnswerRow {
        key: newest(once.keys(&keyring, &caller.identity.principal())),
        body: newest(once.request()),
        answer: serde_json::to_string(&kept).map_err(|error| Failure::Internal(error.into()))?,
        created_at: app.clock.now(),
    };
    insert_answer(work.connection(), &keyring.mac_row(row)).await?;
    Ok(answer)
}

/// Gives an answer again, to who would be allowed the write now. Its events say `replayed`.
async fn again<T: Answer>(app: &App, caller: &Caller, mut work: Work, kept: Kept<T>) -> Result<T, Failure> {
    let Kept { mut answer, decided } = kept;
    let mut events = Vec::with_capacity(decided.len());
    for decided in decided {
        match decide_again(app, caller, &mut work, &decided).await? {
            Again::Allowed(event) => events.push(*event),
            Again::Withheld => answer.withhold(decided.action, &decided.resource),
            Again::Denied(denied) => {
                drop(work);
                return Err(refused(app, caller, decided.action, decided.resource, denied).await);
            }
        }
    }
    drop(work);
    app.audit.commit_all(events).await?;
    Ok(answer)
}

/// What a decision comes to now.
enum Again {
    Allowed(Box<AuditEvent>),
    Withheld,
    Denied(Denied),
}

async fn decide_again(app: &App, caller: &Caller, work: &mut Work, decided: &Decided) -> Result<Again, Failure> {
    let corrupt = |_| Failure::Integrity("idempotency_keys.answer names what cannot be".to_owned());
    let scope = Scope::parse(&decided.resource).map_err(corrupt)?;
    let project = scope.project();
    let rules = rules(app, work.connection(), caller, Some(&project)).await?;
    let resource = match &scope {
        Scope::Secret(path) => decided.secret(path),
        Scope::Folder(_) => Resource::Project(&project),
    };
    let action = decided.action;
    let grant = if decided.enriches {
        match right_to(app, caller, &rules, action, resource) {
            Some(grant) => grant,
            None => return Ok(Again::Withheld),
        }
    } else {
        match decide(app, caller, &rules, action, resource) {
            Ok(grant) => grant,
            Err(denied) => return Ok(Again::Denied(denied)),
        }
    };
    let policies = grant.policies().to_vec();
    Ok(Again::Allowed(Box::new(event(app, caller, (action, "replayed"), decided.resource.clone(), None, policies))))
}
