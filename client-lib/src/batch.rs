//! Many secrets in one request.

use crate::{
    client::Client,
    error::Error,
    secrets::{Versioned, versioned},
    transport::Call,
};
use http::Method;
use strongroom_api::{
    Problem,
    batch::{Operation, ReadBatch, ReadResult, ReadResults, WriteBatch, WriteResult, WriteResults},
    routes,
};
use strongroom_core::Reference;

impl Client {
    /// Reads up to 100 references in one request; one result for each, in their order. All values together have at most 8 MiB: those after are refused.
    pub async fn read_batch(&self, references: &[Reference]) -> Result<Vec<Result<Versioned, Problem>>, Error> {
        let batch = ReadBatch { references: references.to_vec() };
        let call = Call::new(Method::POST, routes::SECRETS_READ).json(&batch, 64 * references.len())?.large_answer();
        let results = self.call(call).await?.json::<ReadResults>()?.results;
        if results.len() != references.len() {
            return Err(Error::protocol("it has not one result for each reference"));
        }
        let pairs = references.iter().zip(results);
        pairs
            .map(|(reference, result)| match result {
                ReadResult::Value(value) => versioned(reference, value).map(Ok),
                ReadResult::Problem(problem) => Ok(Err(problem)),
            })
            .collect()
    }

    /// Does up to 100 writes in one transaction, all or nothing; one result for each, in their order. Where one fails, the error's detail begins with its
    /// place, as in `operations[3]`.
    pub async fn write_batch(&self, operations: Vec<Operation>) -> Result<Vec<WriteResult>, Error> {
        let call = Call::new(Method::POST, routes::SECRETS_WRITE).json(&WriteBatch { operations }, 64 * 1024)?;
        Ok(self.write(call).await?.json::<WriteResults>()?.results)
    }
}
