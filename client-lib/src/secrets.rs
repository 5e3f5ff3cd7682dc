//! Secrets: read, put, patch, generate, delete, list.

use crate::{
    client::Client,
    error::{Error, ErrorKind},
    transport::{Answer, Call},
};
use http::{HeaderValue, Method, StatusCode, header};
use std::collections::BTreeMap;
use strongroom_api::{
    SecretText, Update,
    generate::Generate,
    routes,
    secrets::{PatchSecret, PutResult, PutSecret, SecretList, SecretValue, SecretVersions},
};
use strongroom_core::{
    FieldName, FolderPath, Labels, Moment, Owner, Payload, Reference, SecretBytes, SecretPath, VersionSelector,
};
use time::OffsetDateTime;

/// A value and which version it is.
#[derive(Debug)]
pub struct Versioned {
    /// The version's number.
    pub version: u64,
    /// Counts the changes of the secret: a lower version at a higher revision is one that somebody went back to. 0 where the server does not say.
    pub revision: u64,
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
    /// Put it as `pending`, to be activated later by [`Client::point_alias`]; `current` stays.
    pub pending: bool,
    /// When the secret stops being readable. Kept, it stays, but that a secret that has expired is readable again, without an expiry.
    pub expires_at: Update<Moment>,
    /// Labels to set with the value; the secret's others stay. Needs `manage-grants` too.
    pub labels: Labels,
    /// Who answers for it. Needs `manage-grants` too.
    pub owner: Option<Owner>,
}

impl Client {
    /// A secret's value. With a field in the reference the payload holds that field only.
    pub async fn read(&self, reference: &Reference) -> Result<Versioned, Error> {
        released(reference, &self.call(read_call(reference)).await?)
    }

    /// As [`Client::read`], unless the version selected is `known`: then nothing comes, and the server has not even fetched the value.
    pub async fn read_unless(&self, reference: &Reference, known: u64) -> Result<Option<Versioned>, Error> {
        let answer = self.call(read_call(reference).header(header::IF_NONE_MATCH, tag(&known.to_string()))).await?;
        if answer.status == StatusCode::NOT_MODIFIED { Ok(None) } else { released(reference, &answer).map(Some) }
    }

    /// Puts a new version, once: where the answer is lost it is asked for again, under an idempotency key.
    pub async fn put(&self, path: &SecretPath, payload: Payload, options: PutOptions) -> Result<PutResult, Error> {
        let expected = payload_size(&payload);
        let body = PutSecret {
            activate: !options.pending,
            expires_at: options.expires_at,
            labels: options.labels,
            owner: options.owner,
            ..PutSecret::new(payload, options.reason)
        };
        let call = Call::new(Method::PUT, routes::SECRET).query("path", path.as_str()).json(&body, expected)?;
        self.write(conditional(call, options.if_version)).await?.json()
    }

    /// Puts a new version made of the current one's fields and these; `None` removes a field. The caller needs not be allowed to read the secret.
    pub async fn patch(
        &self,
        path: &SecretPath,
        fields: BTreeMap<FieldName, Option<SecretBytes>>,
        if_version: Option<u64>,
        reason: Option<String>,
    ) -> Result<PutResult, Error> {
        let expected = 1024 + fields.values().flatten().map(|value| 2 * value.len() + 64).sum::<usize>();
        let mut texts = BTreeMap::new();
        for (name, value) in fields {
            let text = value.map(|value| SecretText::from_bytes(value).ok_or_else(not_text)).transpose()?;
            texts.insert(name, text);
        }
        let body = PatchSecret { fields: texts, reason, expires_at: Update::Keep };
        let call = Call::new(Method::PATCH, routes::SECRET).query("path", path.as_str()).json(&body, expected)?;
        let call = call.header(header::CONTENT_TYPE, HeaderValue::from_static("application/merge-patch+json"));
        self.write(conditional(call, if_version)).await?.json()
    }

    /// Puts a new version with a value that the server makes; nobody has seen it.
    pub async fn generate(
        &self,
        path: &SecretPath,
        request: &Generate,
        if_version: Option<u64>,
    ) -> Result<PutResult, Error> {
        let call = Call::new(Method::POST, routes::SECRET_GENERATE).query("path", path.as_str()).json(request, 1024)?;
        self.write(conditional(call, if_version)).await?.json()
    }

    /// Deletes a secret; its versions stay and a new put brings it back.
    pub async fn delete(&self, path: &SecretPath) -> Result<(), Error> {
        self.write(Call::new(Method::DELETE, routes::SECRET).query("path", path.as_str())).await.map(drop)
    }

    /// Deletes one version. None that an alias other than `previous` points at.
    pub async fn delete_version(&self, path: &SecretPath, version: u64) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, routes::SECRET).query("path", path.as_str());
        self.write(call.query("version", &version.to_string())).await.map(drop)
    }

    /// Brings a deleted secret back, or one deleted version of it.
    pub async fn undelete(&self, path: &SecretPath, version: Option<u64>) -> Result<(), Error> {
        let mut call = Call::new(Method::POST, routes::SECRET_UNDELETE).query("path", path.as_str());
        if let Some(version) = version {
            call = call.query("version", &version.to_string());
        }
        self.write(call).await.map(drop)
    }

    /// One page of the secrets in a folder and below that the caller may list. The next page starts at the last one's `next_cursor`.
    pub async fn list(&self, folder: &FolderPath, cursor: Option<&str>) -> Result<SecretList, Error> {
        let mut call = Call::new(Method::GET, routes::SECRETS).query("folder", folder.as_str());
        if let Some(cursor) = cursor {
            call = call.query("cursor", cursor);
        }
        self.call(call).await?.json()
    }

    /// A secret's newest versions, without values.
    pub async fn versions(&self, path: &SecretPath) -> Result<SecretVersions, Error> {
        self.versions_before(path, None, None).await
    }

    /// A page of a secret's versions, the newest first: those below `before`, at most `limit` (100 where nothing is said).
    pub async fn versions_before(
        &self,
        path: &SecretPath,
        before: Option<u64>,
        limit: Option<u32>,
    ) -> Result<SecretVersions, Error> {
        let mut call = Call::new(Method::GET, routes::SECRET_VERSIONS).query("path", path.as_str());
        if let Some(before) = before {
            call = call.query("before", &before.to_string());
        }
        if let Some(limit) = limit {
            call = call.query("limit", &limit.to_string());
        }
        self.call(call).await?.json()
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

/// The value of an answer, where it is about what was asked for.
pub(crate) fn versioned(reference: &Reference, value: SecretValue) -> Result<Versioned, Error> {
    if value.path != reference.path {
        return Err(Error::protocol("it is about another secret"));
    }
    let (version, revision, created_at) = (value.version, value.revision, value.created_at);
    let payload = value.into_payload().map_err(|error| Error::protocol(format_args!("its payload: {error}")))?;
    Ok(Versioned { version, revision, created_at, payload })
}

/// Makes a call conditional on the current version; 0: on there being none.
fn conditional(call: Call, if_version: Option<u64>) -> Call {
    match if_version {
        None => call,
        Some(0) => call.header(header::IF_NONE_MATCH, HeaderValue::from_static("*")),
        Some(version) => call.header(header::IF_MATCH, tag(&version.to_string())),
    }
}

/// An entity tag as a header.
pub(crate) fn tag(text: &str) -> HeaderValue {
    HeaderValue::try_from(format!("\"{text}\"")).expect("letters, digits and quotes are a header value")
}

fn not_text() -> Error {
    Error::new(ErrorKind::BadArgument, "a field's value is not UTF-8 text; nothing was sent")
}

/// A bound of the body's usual size, so that its buffer rarely moves.
fn payload_size(payload: &Payload) -> usize {
    let inner = match payload {
        Payload::Fields(fields) => fields.iter().map(|(name, value)| name.as_str().len() + 2 * value.len() + 8).sum(),
        Payload::Raw { bytes, .. } => bytes.len().div_ceil(3) * 4 + 256,
    };
    inner + 1024
}
