//! `/api/v1/secrets/read` and `/api/v1/secrets/write`.

use super::{
    answer::{json, one},
    body::JsonBody,
    caller::Authenticated,
    problem::Refusal,
};
use crate::{app::App, operations::secrets as operations};
use axum::{extract::State, response::Response};
use std::sync::Arc;
use strongroom_api::{
    batch::{ReadBatch, ReadResult, ReadResults, WriteBatch},
    secrets::SecretValue,
};

/// Releases many values.
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    JsonBody(batch): JsonBody<ReadBatch>,
) -> Result<Response, Refusal> {
    let results = operations::read_batch(&app, &caller, &batch.references)
        .await
        .map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    let results = batch.references.into_iter().zip(results).map(|(reference, result)| match result {
        Ok(read) => ReadResult::Value(SecretValue::expose_payload(
            reference.path,
            read.version,
            read.revision,
            read.created_at,
            read.payload,
        )),
        Err(failure) => ReadResult::Problem(Refusal::from_failure(failure, caller.origin).into_problem()),
    });
    Ok(json(&ReadResults { results: results.collect() }))
}

/// Does many writes.
pub(super) async fn write(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    JsonBody(batch): JsonBody<WriteBatch>,
) -> Result<Response, Refusal> {
    one(&caller, operations::write_batch(&app, &caller, batch.operations).await)
}
