//! Secrets: read, put, delete, list.

use crate::{
    client::Client,
    error::Error,
    transport::{Answer, Call},
};
use http::{HeaderValue, Method, StatusCode, header};
use strongroom_api::{
    Problem,
    batch::{Operation, ReadBatch, ReadResult, ReadResults, WriteBatch, WriteResult, WriteResults},
    routes,
    secrets::{PutResult, PutSecret, SecretList, SecretValue, SecretVersions},
};
use strongroom_core::{FolderPath, Owner, Payload, Reference, SecretPath, VersionSelector};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A value and which version it is.
#[derive(Debug)]
pub struct Versioned {
    /// The version's number.
    pub version: u64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// The value, wiped when dropped.
    pub payload: Payload,
}

/// How to put.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Put only where this is the secret's current version; 0: only where there is none. Otherwise [`ErrorKind::Conflict`](crate::ErrorKind::Conflict).
    pub if_version: Option<u64>,
    /// Why, for people; at most 256 characters. Not for secrets.
    pub reason: Option<String>,
}

/// What to look for. Everything given narrows; nothing given is everything the caller may list.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Only in this folder and below.
    pub folder: Option<FolderPath>,
    /// The folder's own secrets and the names of its subfolders, instead of everything below. Not with what asks something of secrets.
    pub children_only: bool,
    /// Deleted secrets too, of those that the caller may delete.
    pub deleted: bool,
    /// Labels that must be there: `key=value`, or `key` for any value.
    pub labels: Vec<String>,
    /// Who must answer for it.
    pub owner: Option<Owner>,
    /// What must stand somewhere in the path. The server looks at each path for it.
    pub name: Option<String>,
    /// It expires earlier than this.
    pub expires_before: Option<OffsetDateTime>,
    /// It last changed earlier than this.
    pub changed_before: Option<OffsetDateTime>,
    /// Its value was not released since.
    pub not_read_since: Option<OffsetDateTime>,
    /// Most entries of a page; 100 unless set, at most 1,000.
    pub limit: Option<u32>,
}

impl Client {
    /// A secret's value. With a field in the reference the payload holds that field only.
    pub async fn read(&self, reference: &Reference) -> Result<Versioned, Error> {
        released(reference, &self.call(read_call(reference)).await?)
    }

    /// As [`Client::read`], unless the version selected is `known`: then nothing comes, and the server has not even fetched the value.
    pub async fn read_unless(&self, reference: &Reference, known: u64) -> Result<Option<Versioned>, Error> {
        let answer = self.call(read_call(reference).header(header::IF_NONE_MATCH, tag(known))).await?;
        if answer.status == StatusCode::NOT_MODIFIED { Ok(None) } else { released(reference, &answer).map(Some) }
    }

    /// Puts a new version, once: where the answer is lost it is asked for again, under an idempotency key.
    pub async fn put(&self, path: &SecretPath, payload: Payload, options: PutOptions) -> Result<PutResult, Error> {
        let expected = payload_size(&payload);
        let call = Call::new(Method::PUT, routes::SECRET)
            .query("path", path.as_str())
            .json(&PutSecret::new(payload, options.reason), expected)?;
        let call = match options.if_version {
            None => call,
            Some(0) => call.header(header::IF_NONE_MATCH, HeaderValue::from_static("*")),
            Some(version) => call.header(header::IF_MATCH, tag(version)),
        };
        self.write(call).await?.json()
    }

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

    /// Deletes a secret; its versions stay and a new put brings it back.
    pub async fn delete(&self, path: &SecretPath) -> Result<(), Error> {
        self.write(Call::new(Method::DELETE, routes::SECRET).query("path", path.as_str())).await.map(drop)
    }

    /// One page of the secrets in a folder and below that the caller may list. The next page starts at the last one's `next_cursor`.
    pub async fn list(&self, folder: &FolderPath, cursor: Option<&str>) -> Result<SecretList, Error> {
        let mut call = Call::new(Method::GET, routes::SECRETS).query("folder", folder.as_str());
        if let Some(cursor) = cursor {
            call = call.query("cursor", cursor);
        }
        self.call(call).await?.json()
    }

    /// One page of what the caller may list and the search lets through. The next page starts at the last one's `next_cursor`.
    pub async fn search(&self, search: &Search, cursor: Option<&str>) -> Result<SecretList, Error> {
        let mut call = Call::new(Method::GET, routes::SECRETS);
        let moment = |at: Option<OffsetDateTime>| at.map(|at| at.format(&Rfc3339).unwrap_or_default());
        let once = [
            ("folder", search.folder.as_ref().map(FolderPath::to_string)),
            ("recursive", search.children_only.then(|| "false".to_owned())),
            ("deleted", search.deleted.then(|| "true".to_owned())),
            ("owner", search.owner.as_ref().map(Owner::to_string)),
            ("name", search.name.clone()),
            ("expires_before", moment(search.expires_before)),
            ("changed_before", moment(search.changed_before)),
            ("not_read_since", moment(search.not_read_since)),
            ("limit", search.limit.map(|limit| limit.to_string())),
            ("cursor", cursor.map(str::to_owned)),
        ];
        for (name, value) in once {
            if let Some(value) = value {
                call = call.query(name, &value);
            }
        }
        for label in &search.labels {
            call = call.query("label", label);
        }
        self.call(call).await?.json()
    }

    /// A secret's newest versions, without values.
    pub async fn versions(&self, path: &SecretPath) -> Result<SecretVersions, Error> {
        self.call(Call::new(Method::GET, routes::SECRET_VERSIONS).query("path", path.as_str())).await?.json()
    }
}

fn read_call(reference: &Reference) -> Call {
    let mut call = Call::new(Method::GET, routes::SECRET).query("path", reference.path.as_str());
    if reference.version != VersionSelector::Current {
        call = call.query("version", &reference.version.to_string());
    }
    if let Some(field) = &reference.field {
        call = call.query("field", field.as_str());
    }
    call
}

fn released(reference: &Reference, answer: &Answer) -> Result<Versioned, Error> {
    versioned(reference, answer.json()?)
}

fn versioned(reference: &Reference, value: SecretValue) -> Result<Versioned, Error> {
    if value.path != reference.path {
        return Err(Error::protocol("it is about another secret"));
    }
    let (version, created_at) = (value.version, value.created_at);
    let payload = value.into_payload().map_err(|error| Error::protocol(format_args!("its payload: {error}")))?;
    Ok(Versioned { version, created_at, payload })
}

/// A version as a tag.
fn tag(version: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).expect("digits and quotes are a header value")
}

/// A bound of the body's usual size, so that its buffer rarely moves.
fn payload_size(payload: &Payload) -> usize {
    let inner = match payload {
        Payload::Fields(fields) => fields.iter().map(|(name, value)| name.as_str().len() + 2 * value.len() + 8).sum(),
        Payload::Raw { bytes, .. } => bytes.len().div_ceil(3) * 4 + 256,
    };
    inner + 1024
}
