//! Many writes in one transaction.

use super::{
    Precondition, Put,
    alias::point_alias_in,
    delete::delete_in,
    metadata::patch_metadata_in,
    once::run,
    patch::{Patch, patch_in},
    put::put_in,
    work::{Halt, Work},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::change::audited,
};
use strongroom_api::{
    SecretText,
    batch::{MAX_BATCH, Operation, WriteResult, WriteResults},
    metadata::Target,
};
use strongroom_core::{Action, VersionSelector};

/// Does up to [`MAX_BATCH`] writes, all or nothing.
///
/// They are done in the order of their paths, which is the order in which rows are locked: no two batches wait for each other. Each leaves its event in the
/// transaction; a batch that fails leaves the one event of what failed.
///
/// # Errors
/// [`Failure::InOperation`] names the first that failed, and says why.
pub async fn write_batch(app: &App, caller: &Caller, operations: Vec<Operation>) -> Result<WriteResults, Failure> {
    if !(1..=MAX_BATCH).contains(&operations.len()) {
        let outcome = Err(Failure::Invalid(format!("operations: 1 to {MAX_BATCH}")));
        return audited(app, caller, Action::Write, "secrets".to_owned(), outcome).await;
    }
    let mut ordered: Vec<(usize, Operation)> = operations.into_iter().enumerate().collect();
    ordered.sort_by(|(_, one), (_, other)| one.path().cmp(other.path()));
    // Where it stopped; nothing once all were done.
    let mut at = None;
    let outcome = run(app, caller, async |work| {
        let mut results: Vec<(usize, WriteResult)> = Vec::with_capacity(ordered.len());
        for (place, operation) in ordered {
            at = Some((place, action(&operation), operation.path().to_string()));
            results.push((place, apply(app, caller, work, operation).await?));
        }
        at = None;
        results.sort_by_key(|(place, _)| *place);
        Ok(WriteResults { results: results.into_iter().map(|(_, result)| result).collect() })
    })
    .await;
    match at {
        None => audited(app, caller, Action::Write, "secrets".to_owned(), outcome).await,
        Some((place, action, path)) => audited(app, caller, action, path, outcome)
            .await
            .map_err(|failure| Failure::InOperation { place, failure: Box::new(failure) }),
    }
}

async fn apply(app: &App, caller: &Caller, work: &mut Work, operation: Operation) -> Result<WriteResult, Halt> {
    Ok(match operation {
        Operation::Put(mut on) => {
            let payload = on.body.take_payload().map_err(|error| Failure::Invalid(error.to_string()))?;
            let put = Put {
                payload: &payload,
                reason: on.body.reason,
                precondition: precondition(on.if_version),
                activate: on.body.activate,
                expires_at: on.body.expires_at,
                labels: on.body.labels,
                owner: on.body.owner,
            };
            WriteResult::Put(put_in(app, caller, work, &on.path, put).await?)
        }
        Operation::Patch(on) => {
            let changes = on.body.fields.into_iter();
            let changes = changes.map(|(name, text)| (name, text.map(SecretText::into_bytes))).collect();
            let patch = Patch {
                changes,
                reason: on.body.reason,
                precondition: precondition(on.if_version),
                activate: true,
                expires_at: on.body.expires_at,
            };
            WriteResult::Put(patch_in(app, caller, work, &on.path, patch).await?)
        }
        Operation::Delete(on) => {
            delete_in(app, caller, work, &on.path, on.version, precondition(on.if_version)).await?;
            WriteResult::Deleted(on.path)
        }
        Operation::Alias(on) => {
            let selector = |what: &str, text: &str| {
                VersionSelector::parse(text).map_err(|error| Failure::Invalid(format!("{what}: {error}")))
            };
            let alias = selector("alias", &on.alias)?;
            let target = match on.body.version {
                Target::Number(number) => VersionSelector::Number(number),
                Target::Alias(name) => selector("version", &name)?,
            };
            let precondition = precondition(on.body.if_version);
            WriteResult::Alias(point_alias_in(app, caller, work, &on.path, &alias, &target, precondition).await?)
        }
        Operation::Metadata(on) => {
            WriteResult::Metadata(patch_metadata_in(app, caller, work, &on.path, &on.body, on.if_revision).await?)
        }
    })
}

fn precondition(if_version: Option<u64>) -> Precondition {
    match if_version {
        None => Precondition::None,
        Some(0) => Precondition::Absent,
        Some(version) => Precondition::Current(version),
    }
}

fn action(operation: &Operation) -> Action {
    match operation {
        Operation::Delete(_) => Action::Delete,
        Operation::Put(_) | Operation::Patch(_) | Operation::Alias(_) | Operation::Metadata(_) => Action::Write,
    }
}
