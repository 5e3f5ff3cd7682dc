//! `/api/v1/secrets/read` and `/api/v1/secrets/write`.

use super::{
    answer::{json, one},
    body::JsonBody,
    caller::Authenticated,
    document::errors,
    problem::Refusal,
};
use crate::{app::App, operations::secrets as operations};
use axum::{extract::State, response::Response};
use std::sync::Arc;
use strongroom_api::{
    batch::{ReadBatch, ReadResult, ReadResults, WriteBatch, WriteResults},
    routes,
    secrets::SecretValue,
};

errors! {
    ReadBatchErrors: UnprocessableContent;
    WriteBatchErrors:
        Forbidden, NotFound, SecretDeleted, SecretExpired, VersionDeleted, VersionDestroyed, VersionInUse, DeletionProtected, ProjectShredded, ProjectFull,
        VersionConflict, PreconditionRequired, UnprocessableContent, BadPath, BadBody;
}

/// Releases many values.
#[utoipa::path(post, path = routes::SECRETS_READ, operation_id = "read_secrets", tag = "secrets", request_body = ReadBatch,
    responses((status = OK, description = "One result for each reference, in their order.", body = ReadResults), ReadBatchErrors))]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    JsonBody(batch): JsonBody<ReadBatch>,
) -> Result<Response, Refusal> {
    let results = operations::read_batch(&app, &caller, &batch.references)
        .await
        .map_err(|failure| Refusal::from_failure(failure, caller.origin))?;
    let results = batch.references.into_iter().zip(results).map(|(reference, result)| match result {
        Ok(read) => ReadResult::Value(
            SecretValue::expose_payload(reference.path, read.version, read.created_at, read.payload)
                .at_revision(read.revision),
        ),
        Err(failure) => ReadResult::Problem(Refusal::from_failure(failure, caller.origin).into_problem()),
    });
    json(caller.origin, &ReadResults { results: results.collect() })
}

/// Does many writes.
#[utoipa::path(post, path = routes::SECRETS_WRITE, operation_id = "write_secrets", tag = "secrets", request_body = WriteBatch,
    responses((status = OK, description = "All of them are done. One result for each operation, in their order.", body = WriteResults), WriteBatchErrors))]
pub(super) async fn write(
    State(app): State<Arc<App>>,
    Authenticated(caller): Authenticated,
    JsonBody(batch): JsonBody<WriteBatch>,
) -> Result<Response, Refusal> {
    one(&caller, operations::write_batch(&app, &caller, batch.operations).await)
}
